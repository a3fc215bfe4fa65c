"""The normal form of symbolic sizes: polynomials over names, floor divisions, minima and maxima, and their arithmetic.

Two sizes are equal where their normal forms are, whatever route led to them; a constant is always a plain number. The
rewrites hold for every value of the symbols, given that names are not negative and that no divisor is zero. This
module must not simplify by the bounds of symbols: that is `ir.dim_bounds`. Use it through `ir.dims`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias, cast

from ir.dim_text import quote_name

MAX_TERMS = 256
MAX_DEGREE = 64
MAX_BITS = 512
MAX_ATOM_TEXT = 3072
MAX_DEPTH = 32
MAX_NAME = 1024
_MAX_DENOMINATOR = 1024

Coefficient: TypeAlias = int | Fraction


class Undecided(ArithmeticError):
    """A question about sizes whose answer depends on the values of the symbols (or on a size too large to keep)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Atom:
    """An indivisible factor of a term. Its text determines it, so equality, hash and order are those of the text."""

    text: str = field(init=False, repr=False)
    depth: int = field(init=False, repr=False)
    order: tuple[int, str] = field(init=False, repr=False)
    names: frozenset[str] = field(init=False, repr=False)

    def _settle(self, rank: int, text: str, children: Iterable[Size]) -> None:
        atoms = [atom for child in children for _, monomial in terms(child) for atom in monomial]
        depth = 1 + max((atom.depth for atom in atoms), default=-1)
        if depth > MAX_DEPTH or len(text) > MAX_ATOM_TEXT:
            raise Undecided(f"a size nested deeper than {MAX_DEPTH} levels or longer than {MAX_ATOM_TEXT} characters")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "order", (rank, text))
        object.__setattr__(self, "names", frozenset().union(*(atom.names for atom in atoms)))

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
        object.__setattr__(self, "names", frozenset((self.name,)))


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
        return NotImplemented if value is None else floor_div(self, value)

    def __rfloordiv__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else floor_div(value, self)

    def __mod__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else self - value * floor_div(self, value)

    def __rmod__(self, other: Number) -> Size:
        value = _operand(other)
        return NotImplemented if value is None else value - self * floor_div(value, self)

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
        from ir.dim_bounds import low_end

        if low_end(self) > 0:
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


def terms(size: Size | Fraction) -> tuple[Term, ...]:
    """The (coefficient, atoms) of each term, in printing order; a repeated atom is a power, no atom is the constant."""
    if isinstance(size, Dim):
        return size._terms
    return ((size, ()),) if size else ()


def names(size: Size | Fraction) -> frozenset[str]:
    """The names of all symbols in `size`."""
    return frozenset().union(*(atom.names for _, monomial in terms(size) for atom in monomial))


def floor(size: Number) -> Size:
    """The greatest integer not above `size`."""
    return floor_div(required(size), 1)


def ceil(size: Number) -> Size:
    """The least integer not below `size`."""
    return ceil_div(size, 1)


def ceil_div(num: Number, den: Number) -> Size:
    """`num / den` rounded up; `den` is taken to be positive. Raises ZeroDivisionError for a constant zero."""
    num, den = required(num), required(den)
    scale = denominator(num, den)
    num, den = num * scale, den * scale
    return floor_div(num + den - 1, den)


def dim_text(size: Size | Fraction) -> str:
    """Readable text without spaces, the same for equal sizes: `(H+1)//2`, `2*N+1`, `min(N,4)`. `parse_dim` reads it."""
    if not isinstance(size, Dim):
        return str(size)
    if size._text is None:
        text = "".join(_term_text(coefficient, monomial) for coefficient, monomial in size._terms)
        object.__setattr__(size, "_text", text.removeprefix("+"))
    return cast(str, size._text)


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
    plain = size >= 0 if isinstance(size, int) else sole_atom(size, (Name, Min, Max)) is not None
    return text if plain else f"({text})"


# Normal form.


def _operand(value: object) -> Size | Any | None:
    """`value` as an int, Fraction or Dim, or None if it is no number. Raises Undecided for a float such as 0.1."""
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
    return plain(exact)


def required(value: object) -> Any:
    number = _operand(value)
    if number is None:
        raise TypeError(f"not a size: {value!r}")
    return number


def plain(value: Any) -> Any:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _monomial_order(monomial: Monomial) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Graded lexicographic: the highest degree first, and a monomial order, so that division terminates."""
    return (-len(monomial), tuple(atom.order for atom in monomial))


def _atom_order(atom: Atom) -> tuple[int, str]:
    return atom.order


def _from_dict(coefficients: Mapping[Monomial, Coefficient]) -> Any:
    kept = {monomial: plain(c) for monomial, c in coefficients.items() if c}
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


def single(atom: Atom) -> Dim:
    return Dim(((1, (atom,)),))


def _sum(left: Any, right: Any) -> Any:
    return _from_pairs((*terms(left), *terms(right)))


def _times(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    return tuple(sorted(left + right, key=_atom_order))


def _product(left: Any, right: Any) -> Any:
    a, b = terms(left), terms(right)
    return _from_pairs((c * d, _times(m, n)) for c, m in a for d, n in b)


def denominator(*values: Any) -> int:
    return math.lcm(*(c.denominator for value in values for c, _ in terms(value)))


def children(atom: Atom) -> tuple[Size, ...]:
    match atom:
        case FloorDiv():
            return (atom.num, atom.den)
        case Min() | Max():
            return atom.args
        case _:
            return ()


def sole_atom(size: Size, kinds: type | tuple[type, ...]) -> Any:
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
    divisor = terms(den)
    lead, lead_monomial = divisor[0]
    rest = {monomial: c for c, monomial in terms(num)}
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


def floor_div(num: Any, den: Any) -> Any:
    """floor(num / den) in normal form: an atom is made only where none of the rewrites applies."""
    if not isinstance(den, Dim):
        if not isinstance(num, Dim):
            return num // den
        if den == 0:
            raise ZeroDivisionError(f"{num} divided by zero")
    scale = denominator(num, den)
    num, den = _cancel(num * scale, den * scale)
    if terms(den)[0][0] < 0:
        num, den = -num, -den
    if not isinstance(den, Dim) and not isinstance(num, Dim):
        return num // den
    if not isinstance(den, Dim) and all(c < 0 for c, monomial in terms(num) if monomial):
        return -floor_div(-num + den - 1, den)
    quotient, remainder = _divide(num, den, lambda c, d: c // d)
    if isinstance(quotient, Dim) or quotient:
        return quotient + floor_div(remainder, den)
    return _floor_div_reduced(remainder, den)


def _floor_div_reduced(num: Any, den: Any) -> Any:
    """floor(num / den) where no multiple of `den` can be split off `num`, which has integer coefficients like `den`."""
    if not isinstance(num, Dim) and num == 0:
        return 0
    if not _nonnegative(den):
        return single(FloorDiv(num, den))
    if all(c < 0 for c, _ in terms(num)):
        return -1 - floor_div(-num - 1, den)
    content = math.gcd(*(cast(int, c) for c, m in terms(num) if m), *(cast(int, c) for c, _ in terms(den)))
    if content > 1 and isinstance(num, Dim):
        return floor_div(_from_pairs((cast(int, c) // content, m) for c, m in num._terms), exact_quotient(den, content))
    inner = _inner_floor_div(num, den)
    if inner is not None:
        rest = num - single(inner)
        return floor_div(inner.num + inner.den * rest, inner.den * den)
    return single(FloorDiv(num, den))


def _inner_floor_div(num: Any, den: Any) -> FloorDiv | None:
    """The x//a such that (x//a + r)//den should become (x + a*r)//(a*den), if there is exactly one."""
    alone = sole_atom(num, FloorDiv)
    if alone is not None and _nonnegative(alone.den):
        return alone
    if isinstance(den, Dim):
        return None
    found = [m[0] for c, m in terms(num) if c == 1 and len(m) == 1 and isinstance(m[0], FloorDiv)]
    found = [atom for atom in found if isinstance(atom.den, int)]
    return found[0] if len(found) == 1 else None


def _cancel(num: Any, den: Any) -> tuple[Any, Any]:
    """Both divided by their greatest common number and monomial."""
    pairs = (*terms(num), *terms(den))
    content = math.gcd(*(cast(int, c) for c, _ in pairs))
    common = list(pairs[-1][1])
    for atom in pairs[-1][1]:
        if min(monomial.count(atom) for _, monomial in pairs) < common.count(atom):
            common.remove(atom)
    if content == 1 and not common:
        return num, den
    return exact_quotient(num, content, tuple(common)), exact_quotient(den, content, tuple(common))


def exact_quotient(value: Any, content: int, common: Monomial = ()) -> Any:
    return _from_pairs((cast(int, c) // content, cast(Monomial, _without(m, common))) for c, m in terms(value))


def _nonnegative(size: Size) -> bool:
    """Whether the form alone shows that `size` is never negative, whatever the bounds of the symbols."""
    return all(c > 0 and all(_nonnegative_atom(atom) for atom in monomial) for c, monomial in terms(size))


def _nonnegative_atom(atom: Atom) -> bool:
    kind = any if isinstance(atom, Max) else all
    return isinstance(atom, Name) or kind(_nonnegative(child) for child in children(atom))


def _ordered(left: Any, relation: str, right: Any) -> bool:
    from ir.dim_bounds import decide  # bounds build on the normal form, and only these comparisons go the other way

    answer = decide(right - left, strict=relation == "<")
    if answer is None:
        raise Undecided(f"whether {dim_text(left)} {relation} {dim_text(right)} depends on the symbols")
    return answer
