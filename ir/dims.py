"""Symbolic sizes: polynomials over names, floor divisions, minima and maxima, kept in one normal form.

A `Size` is an int or a `Dim`; an operation whose result is constant gives a plain int (or a Fraction, which appears only on
the way to a `floor`). Equality is equality of normal forms and never raises; order and truth are answered from the bounds of
the symbols, or raise `Undecided`. Symbols are non-negative, and whatever divides is taken to be non-zero. This module must not
know where sizes come from or what they are used for, and must import only the standard library.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, TypeAlias, cast

from ir.dim_text import Function, parse_expression, quote_name

MAX_TERMS = 256
MAX_DEGREE = 64
MAX_BITS = 512
MAX_ATOM_TEXT = 3072
MAX_DEPTH = 32
MAX_NAME = 1024
_MAX_DENOMINATOR = 1024
_MAX_RELAXATIONS = 24

Coefficient: TypeAlias = int | Fraction


class Undecided(ArithmeticError):
    """A question about sizes whose answer depends on the values of the symbols (or on a size too large to keep)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Atom:
    """An indivisible factor of a term. Its text determines it, so equality, hash and order are those of the text."""

    text: str = field(init=False, repr=False)
    depth: int = field(init=False, repr=False)
    order: tuple[int, str] = field(init=False, repr=False)

    def _settle(self, rank: int, text: str, children: Iterable[Size]) -> None:
        depth = 1 + max((_depth(child) for child in children), default=-1)
        if depth > MAX_DEPTH or len(text) > MAX_ATOM_TEXT:
            raise Undecided(f"a size nested deeper than {MAX_DEPTH} levels or longer than {MAX_ATOM_TEXT} characters")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "order", (rank, text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Atom) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True, slots=True, eq=False)
class Name(_Atom):
    """A symbol."""

    name: str

    def __post_init__(self) -> None:
        self._settle(0, quote_name(self.name), ())


@dataclass(frozen=True, slots=True, eq=False)
class FloorDiv(_Atom):
    """`num // den`, both with integer coefficients."""

    num: Size
    den: Size

    def __post_init__(self) -> None:
        self._settle(1, f"{_operand_text(self.num)}//{_operand_text(self.den)}", (self.num, self.den))


@dataclass(frozen=True, slots=True, eq=False)
class Min(_Atom):
    """The least of two or more sizes with integer coefficients; a constant comes last."""

    args: tuple[Size, ...]

    def __post_init__(self) -> None:
        self._settle(2, f"min({','.join(map(dim_text, self.args))})", self.args)


@dataclass(frozen=True, slots=True, eq=False)
class Max(_Atom):
    """The greatest of two or more sizes with integer coefficients; a constant comes last."""

    args: tuple[Size, ...]

    def __post_init__(self) -> None:
        self._settle(3, f"max({','.join(map(dim_text, self.args))})", self.args)


Atom: TypeAlias = Name | FloorDiv | Min | Max
Monomial: TypeAlias = tuple[Atom, ...]
Term: TypeAlias = tuple[Coefficient, Monomial]


class Dim:
    """A size that depends on symbols: an immutable, hashable polynomial in normal form. Make one with `symbol`."""

    __slots__ = ("_hash", "_terms", "_text")
    _terms: tuple[Term, ...]
    _hash: int
    _text: str | None

    def __init__(self, terms: tuple[Term, ...]) -> None:
        """Takes terms already in normal form: sorted, with distinct monomials and no zero coefficient."""
        object.__setattr__(self, "_terms", terms)
        object.__setattr__(self, "_hash", hash(terms))
        object.__setattr__(self, "_text", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Dim is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_from_pairs, (self._terms,))

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: object) -> Dim:
        return self

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Dim) and self._hash == other._hash and self._terms == other._terms

    def __str__(self) -> str:
        return dim_text(self)

    __repr__ = __str__

    def __add__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _sum(self, value)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Dim(tuple((-c, m) for c, m in self._terms))

    def __pos__(self) -> Dim:
        return self

    def __sub__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _sum(self, -value)

    def __rsub__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _sum(-self, value)

    def __mul__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _product(self, value)

    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> Size:
        if not isinstance(exponent, numbers.Integral) or exponent < 0:
            return NotImplemented
        result: Size = 1
        for _ in range(int(exponent)):
            result = result * self
        return result

    def __floordiv__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _floor_div(self, value)

    def __rfloordiv__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _floor_div(value, self)

    def __mod__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else self - value * _floor_div(self, value)

    def __rmod__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else value - self * _floor_div(value, self)

    def __truediv__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _true_div(self, value)

    def __rtruediv__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else _true_div(value, self)

    def __floor__(self) -> Size:
        return floor(self)

    def __ceil__(self) -> Size:
        return ceil(self)

    def __lt__(self, other: Number) -> bool:
        value = _operand(other)
        return NotImplemented if value is None else _ordered(self, "<", value)

    def __le__(self, other: Number) -> bool:
        value = _operand(other)
        return NotImplemented if value is None else _ordered(self, "<=", value)

    def __gt__(self, other: Number) -> bool:
        value = _operand(other)
        return NotImplemented if value is None else not _ordered(self, "<=", value)

    def __ge__(self, other: Number) -> bool:
        value = _operand(other)
        return NotImplemented if value is None else not _ordered(self, "<", value)

    def __bool__(self) -> bool:
        if _low(self, {}) > 0:
            return True
        raise Undecided(f"the size {self} may be zero")

    def __index__(self) -> int:
        raise Undecided(f"the size {self} has no fixed value")

    def __int__(self) -> int:
        raise Undecided(f"the size {self} has no fixed value")

    def __float__(self) -> float:
        raise Undecided(f"the size {self} has no fixed value")


Size: TypeAlias = int | Dim
Number: TypeAlias = int | Fraction | float | Dim


@lru_cache(maxsize=4096)
def symbol(name: str) -> Dim:
    """The size called `name`, which may be any string of up to 1024 characters (else ValueError)."""
    if len(name) > MAX_NAME:
        raise ValueError(f"a name of {len(name)} characters; at most {MAX_NAME} are kept")
    return Dim(((1, (Name(name),)),))


def terms(size: Size) -> tuple[Term, ...]:
    """The (coefficient, atoms) of each term, in printing order; a repeated atom is a power, no atom is the constant."""
    if isinstance(size, Dim):
        return size._terms
    return ((size, ()),) if size else ()


def floor(size: Number) -> Size:
    """The greatest integer not above `size`."""
    return _floor_div(_required(size), 1)


def ceil(size: Number) -> Size:
    """The least integer not below `size`."""
    return ceil_div(size, 1)


def ceil_div(num: Number, den: Number) -> Size:
    """`num / den` rounded up; `den` is taken to be positive. Raises ZeroDivisionError for a constant zero."""
    num, den = _required(num), _required(den)
    scale = _denominator(num, den)
    num, den = num * scale, den * scale
    return _floor_div(num + den - 1, den)


def minimum(*sizes: Number) -> Size:
    """The least of one or more sizes; those that the bounds in force prove never to be the least are left out."""
    return _extremum(sizes, Min, Max)


def maximum(*sizes: Number) -> Size:
    """The greatest of one or more sizes; those that the bounds in force prove never to be the greatest are left out."""
    return _extremum(sizes, Max, Min)


def names(size: Size) -> frozenset[str]:
    """The names of all symbols in `size`."""
    found: set[str] = set()
    pending = [size]
    while pending:
        for _, monomial in terms(pending.pop()):
            for atom in monomial:
                if isinstance(atom, Name):
                    found.add(atom.name)
                pending.extend(_children(atom))
    return frozenset(found)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value of `size` at the given values of its symbols.

    Raises KeyError for a symbol without a value, ZeroDivisionError, and ValueError where the value is not an integer.
    """
    value = substitute(size, values)
    if isinstance(value, Dim):
        raise KeyError(f"no value for {', '.join(sorted(names(value)))}")
    if not isinstance(value, int):
        raise ValueError(f"{dim_text(size)} is not an integer at {dict(values)}")
    return value


def substitute(size: Size, mapping: Mapping[str, Size]) -> Size:
    """`size` with each symbol named in `mapping` replaced, all at once; the other symbols stay."""
    if not isinstance(size, Dim):
        return size
    result: Size = 0
    for coefficient, monomial in size._terms:
        factors = [_substitute_atom(atom, mapping) for atom in monomial]
        result = result + reduce(_product_of_any, factors, cast(Size, coefficient))
    return _plain(result)


def _product_of_any(left: Size, right: Size) -> Size:
    return left * right


def _substitute_atom(atom: Atom, mapping: Mapping[str, Size]) -> Size:
    match atom:
        case Name():
            return mapping[atom.name] if atom.name in mapping else _single(atom)
        case FloorDiv():
            return _floor_div(substitute(atom.num, mapping), substitute(atom.den, mapping))
        case Min():
            return minimum(*(substitute(arg, mapping) for arg in atom.args))
        case Max():
            return maximum(*(substitute(arg, mapping) for arg in atom.args))


def dim_text(size: Size | Fraction) -> str:
    """Readable text without spaces, the same for equal sizes: `(H+1)//2`, `2*N+1`, `min(N,4)`. `parse_dim` reads it."""
    if not isinstance(size, Dim):
        return str(size)
    if size._text is None:
        text = "".join(_term_text(coefficient, monomial) for coefficient, monomial in size._terms)
        object.__setattr__(size, "_text", text.removeprefix("+"))
    return cast(str, size._text)


def parse_dim(text: str) -> Size:
    """Reads the text of `dim_text` back, and expressions as model exporters write them (`floor(n/2 - 1/2) + 1`).

    Raises ValueError for what is not such an expression, is longer than 4096 characters or nests deeper than 64 levels. `a-b` is
    a difference here; `parse_dim_param` decides between expression and name.
    """
    try:
        value = _plain(parse_expression(text, symbol, _FUNCTIONS))
    except (Undecided, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a size: {error}") from error
    if isinstance(value, Fraction):
        raise ValueError(f"{text!r} is not an integer")
    return value


def parse_dim_param(text: str) -> Size:
    """The size that a dimension's text in a model stands for: an expression, or else a symbol called like the whole text.

    `batch-size`, `a:b` and `?` are names; `past + current` and `(s0-1)//2` are expressions; a quotient is rounded down.
    Raises ValueError for a name of more than 1024 characters.
    """
    if text.replace("-", "_").replace(":", "_").replace(".", "_").isidentifier():
        return symbol(text)
    try:
        return floor(parse_dim(text))
    except ValueError:
        return symbol(text)


def _term_text(coefficient: Coefficient, monomial: Monomial) -> str:
    sign = "-" if coefficient < 0 else "+"
    numerator, denominator = abs(coefficient.numerator), coefficient.denominator
    alone = abs(coefficient) == 1 and len(monomial) == 1 and coefficient > 0
    factors = [] if numerator == 1 and monomial else [str(numerator)]
    for atom in dict.fromkeys(monomial):
        text = atom.text if alone or not isinstance(atom, FloorDiv) else f"({atom.text})"
        power = monomial.count(atom)
        factors.append(text if power == 1 else f"{text}**{power}")
    return sign + "*".join(factors) + (f"/{denominator}" if denominator != 1 else "")


def _operand_text(size: Size) -> str:
    """The text of an operand of `//`: in parentheses unless it is a number or one name, minimum or maximum."""
    text = dim_text(size)
    plain = size >= 0 if isinstance(size, int) else _sole_atom(size, (Name, Min, Max)) is not None
    return text if plain else f"({text})"


# Normal form.


def _operand(value: object) -> Size | Any | None:
    """`value` as an int, Fraction or Dim, or None if it is not a number. Raises Undecided for a float without simple value."""
    if isinstance(value, (Dim, int, Fraction)):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real):
        return None
    number = float(value)
    exact = Fraction(number) if math.isfinite(number) else None
    if exact is None or exact.denominator > _MAX_DENOMINATOR:
        raise Undecided(f"{number} is not a simple fraction")
    return _plain(exact)


def _required(value: object) -> Any:
    number = _operand(value)
    if number is None:
        raise TypeError(f"not a size: {value!r}")
    return number


def _plain(value: Any) -> Any:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _terms_of(value: Any) -> tuple[Term, ...]:
    return value._terms if isinstance(value, Dim) else (((value, ()),) if value else ())


def _monomial_order(monomial: Monomial) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Graded lexicographic: the highest degree first, and a monomial order, so that division terminates."""
    return (-len(monomial), tuple(atom.order for atom in monomial))


def _atom_order(atom: Atom) -> tuple[int, str]:
    return atom.order


def _from_dict(coefficients: Mapping[Monomial, Coefficient]) -> Any:
    kept = {monomial: _plain(c) for monomial, c in coefficients.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    ordered = sorted(kept, key=_monomial_order) if len(kept) > 1 else list(kept)
    if len(ordered) > MAX_TERMS or len(ordered[0]) > MAX_DEGREE:
        raise Undecided(f"a size of more than {MAX_TERMS} terms or of a degree above {MAX_DEGREE}")
    if any(c.numerator.bit_length() > MAX_BITS or c.denominator.bit_length() > MAX_BITS for c in kept.values()):
        raise Undecided(f"a coefficient of more than {MAX_BITS} bits")
    return Dim(tuple((kept[monomial], monomial) for monomial in ordered))


def _from_pairs(pairs: Iterable[Term]) -> Any:
    total: dict[Monomial, Coefficient] = {}
    for coefficient, monomial in pairs:
        total[monomial] = total.get(monomial, 0) + coefficient
    return _from_dict(total)


def _single(atom: Atom) -> Dim:
    return Dim(((1, (atom,)),))


def _sum(left: Any, right: Any) -> Any:
    return _from_pairs((*_terms_of(left), *_terms_of(right)))


def _times(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    return tuple(sorted(left + right, key=_atom_order))


def _product(left: Any, right: Any) -> Any:
    a, b = _terms_of(left), _terms_of(right)
    return _from_pairs((c * d, _times(m, n)) for c, m in a for d, n in b)


def _denominator(*values: Any) -> int:
    return math.lcm(*(c.denominator for value in values for c, _ in _terms_of(value)))


def _depth(size: Size) -> int:
    return max((atom.depth for _, monomial in terms(size) for atom in monomial), default=-1) if size is not None else -1


def _children(atom: Atom) -> tuple[Size, ...]:
    match atom:
        case FloorDiv():
            return (atom.num, atom.den)
        case Min() | Max():
            return atom.args
        case _:
            return ()


def _sole_atom(size: Size, kinds: type | tuple[type, ...]) -> Any:
    """The atom of one of `kinds` that `size` consists of, or None."""
    if not isinstance(size, Dim) or len(size._terms) != 1:
        return None
    coefficient, monomial = size._terms[0]
    return monomial[0] if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], kinds) else None


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    """`monomial / factor`, or None if `factor` does not divide it."""
    rest = list(monomial)
    for atom in factor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _divide(num: Any, den: Any, quotient_of: Callable[[Coefficient, Coefficient], Coefficient]) -> tuple[Any, Any]:
    """(q, r) with num == q*den + r, by polynomial long division; `quotient_of` divides two coefficients."""
    divisor = _terms_of(den)
    lead, lead_monomial = divisor[0]
    rest = {monomial: c for c, monomial in _terms_of(num)}
    quotient: dict[Monomial, Coefficient] = {}
    remainder: dict[Monomial, Coefficient] = {}
    while rest:
        monomial = min(rest, key=_monomial_order)
        cofactor = _without(monomial, lead_monomial)
        factor = 0 if cofactor is None else quotient_of(rest[monomial], lead)
        if cofactor is not None and factor:
            quotient[cofactor] = quotient.get(cofactor, 0) + factor
            for c, divided in divisor:
                product = _times(divided, cofactor)
                rest[product] = rest.get(product, 0) - factor * c
        left = rest.pop(monomial)
        if left:
            remainder[monomial] = left
        rest = {m: c for m, c in rest.items() if c}
    return _from_dict(quotient), _from_dict(remainder)


def _true_div(num: Any, den: Any) -> Any:
    if not isinstance(den, Dim):
        return _product(num, Fraction(1) / den)
    quotient, remainder = _divide(num, den, lambda c, d: Fraction(c) / d)
    if isinstance(remainder, Dim) or remainder:
        raise Undecided(f"{dim_text(num)} is not a multiple of {den}")
    return quotient


def _floor_div(num: Any, den: Any) -> Any:
    """floor(num / den) in normal form: an atom is made only where none of the rewrites applies."""
    if not isinstance(den, Dim):
        if not isinstance(num, Dim):
            return num // den
        if den == 0:
            raise ZeroDivisionError(f"{num} divided by zero")
    scale = _denominator(num, den)
    num, den = _cancel(num * scale, den * scale)
    if _terms_of(den)[0][0] < 0:
        num, den = -num, -den
    if not isinstance(den, Dim) and not isinstance(num, Dim):
        return num // den
    if not isinstance(den, Dim) and all(c < 0 for c, monomial in _terms_of(num) if monomial):
        return -_floor_div(-num + den - 1, den)
    quotient, remainder = _divide(num, den, lambda c, d: c // d)
    if isinstance(quotient, Dim) or quotient:
        return quotient + _floor_div(remainder, den)
    return _floor_div_reduced(remainder, den)


def _floor_div_reduced(num: Any, den: Any) -> Any:
    """floor(num / den) where no multiple of `den` can be split off `num`, which has integer coefficients like `den`."""
    if not isinstance(num, Dim) and num == 0:
        return 0
    if not _nonnegative(den):
        return _single(FloorDiv(num, den))
    if all(c < 0 for c, _ in _terms_of(num)):
        return -1 - _floor_div(-num - 1, den)
    content = math.gcd(*(cast(int, c) for c, m in _terms_of(num) if m), *(cast(int, c) for c, _ in _terms_of(den)))
    if content > 1 and isinstance(num, Dim):
        return _floor_div(_from_pairs((cast(int, c) // content, m) for c, m in num._terms), _exact(den, content))
    inner = _inner_floor_div(num, den)
    if inner is not None:
        rest = num - _single(inner)
        return _floor_div(inner.num + inner.den * rest, inner.den * den)
    return _single(FloorDiv(num, den))


def _inner_floor_div(num: Any, den: Any) -> FloorDiv | None:
    """The x//a such that (x//a + r)//den should become (x + a*r)//(a*den), if there is exactly one."""
    alone = _sole_atom(num, FloorDiv)
    if alone is not None and _nonnegative(alone.den):
        return alone
    if isinstance(den, Dim):
        return None
    found = [m[0] for c, m in _terms_of(num) if c == 1 and len(m) == 1 and isinstance(m[0], FloorDiv)]
    found = [atom for atom in found if isinstance(atom.den, int)]
    return found[0] if len(found) == 1 else None


def _cancel(num: Any, den: Any) -> tuple[Any, Any]:
    """Both divided by their greatest common number and monomial."""
    pairs = (*_terms_of(num), *_terms_of(den))
    content = math.gcd(*(cast(int, c) for c, _ in pairs))
    common = list(pairs[-1][1])
    for atom in pairs[-1][1]:
        if min(monomial.count(atom) for _, monomial in pairs) < common.count(atom):
            common.remove(atom)
    if content == 1 and not common:
        return num, den
    return _exact(num, content, tuple(common)), _exact(den, content, tuple(common))


def _exact(value: Any, content: int, common: Monomial = ()) -> Any:
    return _from_pairs((cast(int, c) // content, cast(Monomial, _without(m, common))) for c, m in _terms_of(value))


def _nonnegative(size: Size) -> bool:
    """Whether the form alone shows that `size` is never negative, whatever the bounds of the symbols."""
    return all(c > 0 and all(_nonnegative_atom(atom) for atom in monomial) for c, monomial in terms(size))


def _nonnegative_atom(atom: Atom) -> bool:
    kind = any if isinstance(atom, Max) else all
    return isinstance(atom, Name) or kind(_nonnegative(child) for child in _children(atom))


def _extremum(sizes: Iterable[Number], kind: type[Min] | type[Max], opposite: type[Min] | type[Max]) -> Any:
    args: dict[Any, None] = {}
    for size in sizes:
        value = _plain(_required(size))
        atom = _sole_atom(value, kind)
        args.update(dict.fromkeys((value,) if atom is None else atom.args))
    if not args:
        raise ValueError("the least or greatest of no sizes")
    scale = _denominator(*args)
    kept = _undominated([_plain(arg * scale) for arg in args], kind is Min)
    if len(kept) == 1:
        return _plain(kept[0] * Fraction(1, scale))
    if all(_terms_of(arg)[0][0] < 0 for arg in kept if isinstance(arg, Dim)):
        return -_extremum([-arg * Fraction(1, scale) for arg in kept], opposite, kind)
    content = math.gcd(*(cast(int, c) for arg in kept for c, _ in _terms_of(arg)))
    ordered = sorted((_exact(arg, content) for arg in kept), key=lambda arg: (isinstance(arg, int), dim_text(arg)))
    return _single(kind(tuple(ordered))) * Fraction(content, scale)


def _undominated(args: list[Any], least: bool) -> list[Any]:
    """`args` without those that are never below (above, unless `least`) another that stays."""
    kept = list(args)
    for arg in args:
        others = [other for other in kept if other is not arg]
        if any(_low(arg - other if least else other - arg, {}) >= 0 for other in others):
            kept = others
    return kept


# Bounds. An interval end is an int, a Fraction, or an infinity; infinities are never added to finite numbers.

Interval: TypeAlias = tuple[Any, Any]
_BOUNDS: ContextVar[Mapping[str, tuple[int, int | None]]] = ContextVar("bounds of symbols")
_NO_BOUNDS: Mapping[str, tuple[int, int | None]] = {}


@contextmanager
def bounded(mapping: Mapping[str, tuple[int, int | None]]) -> Iterator[None]:
    """Within the context, narrows the bounds of symbols to (least, greatest or None); both ends are included.

    Sizes simplified within it may hold within it only. Raises ValueError where no value is left for a symbol.
    """
    current = dict(_BOUNDS.get(_NO_BOUNDS))
    for name, (low, high) in mapping.items():
        outer_low, outer_high = current.get(name, (0, None))
        low = max(low, outer_low)
        high = min((end for end in (high, outer_high) if end is not None), default=None)
        if high is not None and high < low:
            raise ValueError(f"no value is left for {name}: at least {low} and at most {high}")
        current[name] = (low, high)
    token = _BOUNDS.set(current)
    try:
        yield
    finally:
        _BOUNDS.reset(token)


def lower_bound(size: Size) -> int | None:
    """An integer that `size` is never below, or None if none is known."""
    low = _low(size, {})
    if low == -math.inf:
        return None
    return math.ceil(low) if _denominator(size) == 1 else math.floor(low)


def upper_bound(size: Size) -> int | None:
    """An integer that `size` is never above, or None if none is known."""
    bound = lower_bound(-size)
    return None if bound is None else -bound


def decide_le(a: Size, b: Size) -> bool | None:
    """True if a <= b whatever the symbols, False if a > b whatever the symbols, else None."""
    return _decide(_required(b) - _required(a), strict=False)


def decide_eq(a: Size, b: Size) -> bool | None:
    """True if both have the same normal form, False if they differ whatever the symbols, else None."""
    difference = _required(a) - _required(b)
    if not isinstance(difference, Dim):
        return difference == 0
    if _low(difference, {}) > 0 or _low(-difference, {}) > 0:
        return False
    whole = difference * _denominator(difference)
    content = math.gcd(*(cast(int, c) for c, monomial in _terms_of(whole) if monomial))
    constant = next((c for c, monomial in _terms_of(whole) if not monomial), 0)
    return False if constant % content else None


def _decide(difference: Any, strict: bool) -> bool | None:
    """Whether `difference` is at least zero (above zero if `strict`): True, False, or None if that depends."""
    low, high = _low(difference, {}), -_low(-difference, {})
    if low > 0 or (low == 0 and not strict):
        return True
    return False if high < 0 or (high == 0 and strict) else None


def _ordered(left: Any, relation: str, right: Any) -> bool:
    answer = _decide(right - left, strict=relation == "<")
    if answer is None:
        raise Undecided(f"whether {dim_text(left)} {relation} {dim_text(right)} depends on the symbols")
    return answer


def _low(size: Any, memo: dict[Atom, Interval], budget: list[int] | None = None) -> Any:
    """The greatest lower end found: by interval arithmetic, and by replacing an atom by what it is never below or above.

    The replacement lets x - x//2 cancel, which interval arithmetic alone cannot see. `budget` counts the replacements left.
    """
    if not isinstance(size, Dim):
        return size
    best = _sum_of_ends(_scaled(c, _monomial_interval(m, memo))[0] for c, m in size._terms)
    if len(size._terms) == 1:
        return best
    budget = [_MAX_RELAXATIONS] if budget is None else budget
    for coefficient, monomial in size._terms:
        for replacement in _relaxations(coefficient, monomial):
            if budget[0] == 0:
                return best
            budget[0] -= 1
            relaxed = size + coefficient * (replacement - _single(monomial[0]))
            best = max(best, _low(relaxed, memo, budget))
    return best


def _relaxations(coefficient: Coefficient, monomial: Monomial) -> tuple[Any, ...]:
    """Sizes that never make the term greater when put in place of its sole atom."""
    atom = monomial[0] if len(monomial) == 1 else None
    if isinstance(atom, FloorDiv) and isinstance(atom.den, int):
        num = atom.num if coefficient < 0 else atom.num - atom.den + 1
        return (num * Fraction(1, atom.den),)
    kind = Max if coefficient > 0 else Min
    return atom.args if isinstance(atom, kind) else ()


def _sum_of_ends(ends: Iterable[Any]) -> Any:
    total: Any = 0
    for end in ends:
        if end == -math.inf:
            return end
        total += end
    return total


def _scaled(factor: Coefficient, interval: Interval) -> Interval:
    ends = (_times_end(factor, interval[0]), _times_end(factor, interval[1]))
    return ends if factor > 0 else (ends[1], ends[0])


def _times_end(a: Any, b: Any) -> Any:
    if a == 0 or b == 0:
        return 0
    if math.inf in (abs(a), abs(b)):
        return math.inf if (a > 0) == (b > 0) else -math.inf
    return a * b


def _monomial_interval(monomial: Monomial, memo: dict[Atom, Interval]) -> Interval:
    low, high = 1, 1
    for atom in monomial:
        a, b = _atom_interval(atom, memo)
        products = [_times_end(x, y) for x in (low, high) for y in (a, b)]
        low, high = min(products), max(products)
    return low, high


def _atom_interval(atom: Atom, memo: dict[Atom, Interval]) -> Interval:
    found = memo.get(atom)
    if found is None:
        found = memo[atom] = _new_atom_interval(atom, memo)
    return found


def _new_atom_interval(atom: Atom, memo: dict[Atom, Interval]) -> Interval:
    if isinstance(atom, Name):
        low, high = _BOUNDS.get(_NO_BOUNDS).get(atom.name, (0, None))
        return low, math.inf if high is None else high
    intervals = [(_low(child, memo), -_low(-child, memo)) for child in _children(atom)]
    if isinstance(atom, FloorDiv):
        return _floor_div_interval(*intervals)
    pick = min if isinstance(atom, Min) else max
    return pick(low for low, _ in intervals), pick(high for _, high in intervals)


def _floor_div_interval(num: Interval, den: Interval) -> Interval:
    """The bounds of floor(num / den) for integers; `den` is not zero."""
    if den[1] <= 0 and den[0] < 0:
        num, den = (-num[1], -num[0]), (-den[1], -den[0])
    if den[0] < 0:
        most = max(abs(num[0]), abs(num[1]))
        return -most, most
    least, most = max(den[0], 1), max(den[1], 1)
    return _floor_end(num[0], least if num[0] < 0 else most), _floor_end(num[1], most if num[1] < 0 else least)


def _floor_end(num: Any, den: Any) -> Any:
    if abs(num) == math.inf:
        return num
    if den == math.inf:
        return -1 if num < 0 else 0
    return num // den


_FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("min", "Min"), (minimum, 1, MAX_TERMS)),
    **dict.fromkeys(("max", "Max"), (maximum, 1, MAX_TERMS)),
    **dict.fromkeys(("floor", "FloorToInt"), (floor, 1, 1)),
    **dict.fromkeys(("ceil", "ceiling", "CeilToInt"), (ceil, 1, 1)),
    **dict.fromkeys(("Mod", "PythonMod"), (lambda a, b: a % b, 2, 2)),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), (lambda a, b: a // b, 2, 2)),
    "CeilDiv": (ceil_div, 2, 2),
}
