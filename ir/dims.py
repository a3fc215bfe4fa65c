"""Symbolic sizes: an int, or a `Dim` built from symbols by + - * // %, `minimum` and `maximum`, in one normal form.

An operation whose result is constant gives a plain int (or a Fraction, which appears only on the way to a `floor`).
Equality never raises; order and truth are answered from the bounds of the symbols, or raise `Undecided`. This module
must not know where sizes come from or what they are used for, and must import only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import reduce
from typing import TypeVar, cast

from ir.dim_bounds import bounded, decide_eq, decide_le, lower_bound, maximum, minimum, unbounded, upper_bound
from ir.dim_form import (
    MAX_TERMS,
    Atom,
    Dim,
    FloorDiv,
    Max,
    Min,
    Monomial,
    Name,
    Number,
    Size,
    Term,
    Undecided,
    ceil,
    ceil_div,
    dim_text,
    floor,
    floor_div,
    names,
    plain,
    single,
    symbol,
    terms,
)  # fmt: skip
from ir.dim_text import Function, parse_expression


class DividesByZero(ZeroDivisionError, ValueError):
    """A size has no value, since it divides by one that is 0."""


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value of `size` at the given values of its symbols.

    Raises KeyError for a symbol without a value, and ValueError where the value is not an integer, or where it divides
    by zero (which is a ZeroDivisionError, too).
    """
    try:
        value = substitute(size, values)
    except ZeroDivisionError as error:
        raise DividesByZero(f"{dim_text(size)} divides by zero at {dict(values)}") from error
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
    return plain(result)


def _product_of_any(left: Size, right: Size) -> Size:
    return left * right


def _substitute_atom(atom: Atom, mapping: Mapping[str, Size]) -> Size:
    match atom:
        case Name():
            return mapping[atom.name] if atom.name in mapping else single(atom)
        case FloorDiv():
            return floor_div(substitute(atom.num, mapping), substitute(atom.den, mapping))
        case Min():
            return minimum(*(substitute(arg, mapping) for arg in atom.args))
        case Max():
            return maximum(*(substitute(arg, mapping) for arg in atom.args))


def symbol_of(size: Size) -> str | None:
    """The name of a size that is a symbol alone, else None."""
    if not isinstance(size, Dim) or len(size._terms) != 1:
        return None
    coefficient, monomial = size._terms[0]
    alone = coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Name)
    return monomial[0].name if alone and isinstance(monomial[0], Name) else None


_Limit = TypeVar("_Limit")


_MOST_LIMITS = 64
"""How many limits of limits are followed; no model nests as deep."""


class Limits(dict[str, _Limit]):
    """What symbols are at most, by name, and what products of symbols are at most.

    `products` has groups of names: the product of one or several different names of a group does not exceed the size.
    """

    def __init__(self, given: Mapping[str, _Limit] | None = None) -> None:
        super().__init__(given or {})
        self.products: dict[frozenset[str], Size] = dict(given.products) if isinstance(given, Limits) else {}


def greatest(size: Size, limits: Mapping[str, Size | None]) -> Size:
    """A size without the symbols of `limits` that `size` does not exceed while each of them is within 0 and its limit.

    Raises Undecided for a symbol without a limit, for symbols that limit one another, and where no such size is found.
    """
    return _greatest(size, limits, 0)


def _greatest(size: Size, limits: Mapping[str, Size | None], depth: int) -> Size:
    """See `greatest`; `depth` is how many limits of limits have been taken."""
    if depth > _MOST_LIMITS:
        raise Undecided(f"the greatest value of {dim_text(size)}, which limits itself")
    if not isinstance(size, Dim) or not names(size) & limits.keys():
        return size
    total: Size = 0
    for coefficient, monomial in size._terms:
        term = reduce(_product_of_any, (single(atom) for atom in monomial), cast(Size, coefficient))
        if not names(term) & limits.keys():
            total = total + term
        elif coefficient > 0 or decide_le(term, 0) is not True:
            total = total + _greatest_product(coefficient, monomial, limits, depth)
    return plain(total)


def _greatest_product(coefficient: Number, monomial: Monomial, limits: Mapping[str, Size | None], depth: int) -> Size:
    """What a product is at most. Of a factor that may be negative, what counts is how far it is from 0: on the side of
    the coefficient where there is one, else on both, since two of them make a product that is positive."""
    signed = [atom for atom in monomial if not isinstance(atom, Name) and decide_le(0, single(atom)) is not True]
    if not signed and coefficient < 0:
        return 0
    alone, together = _products([atom for atom in monomial if atom not in signed], limits)
    factors = [_greatest_atom(atom, limits, depth) for atom in alone]
    factors += [_greatest(limit, limits, depth + 1) for limit in together]
    for atom in signed:
        ends: list[Size] = [] if len(monomial) == 1 else [0]
        if coefficient > 0 or len(signed) > 1:
            ends.append(_greatest_atom(atom, limits, depth))
        if coefficient < 0 or len(signed) > 1:
            ends.append(_greatest_negated(atom, limits, depth))
        factors.append(maximum(*ends))
    return reduce(_product_of_any, factors, cast(Size, coefficient if coefficient > 0 else -coefficient))


def _greatest_negated(atom: Atom, limits: Mapping[str, Size | None], depth: int) -> Size:
    """What the negative of an atom is at most."""
    match atom:
        case Name():
            return 0
        case FloorDiv():
            return maximum(0, _greatest(-atom.num, limits, depth))
        case Max():
            return minimum(*_those_bounded(tuple(-arg for arg in atom.args), limits, depth))
        case Min():
            return maximum(*(_greatest(-arg, limits, depth) for arg in atom.args))


def _products(monomial: Iterable[Atom], limits: Mapping[str, Size | None]) -> tuple[list[Atom], list[Size]]:
    """The atoms of a product that stand alone, and the limits of those that have one together."""
    alone, together = list(monomial), []
    groups = limits.products if isinstance(limits, Limits) else {}
    while True:
        own = {atom.name: atom for atom in alone if isinstance(atom, Name)}
        most = max(groups, key=lambda group: len(group & own.keys()), default=frozenset())
        if len(most & own.keys()) < 2:
            return alone, together
        for name in most & own.keys():
            alone.remove(own[name])
        together.append(groups[most])


def _greatest_atom(atom: Atom, limits: Mapping[str, Size | None], depth: int) -> Size:
    match atom:
        case Name():
            if atom.name not in limits:
                return single(atom)
            limit = limits[atom.name]
            if limit is None:
                raise Undecided(atom.name)
            return _greatest(limit, limits, depth + 1)
        case FloorDiv():
            num = _greatest(atom.num, limits, depth)
            return num if names(atom.den) & limits.keys() else floor_div(num, atom.den)
        case Max():
            return maximum(*(_greatest(arg, limits, depth) for arg in atom.args))
        case Min():
            return minimum(*_those_bounded(atom.args, limits, depth))


def _those_bounded(args: tuple[Size, ...], limits: Mapping[str, Size | None], depth: int) -> list[Size]:
    """The greatest values of those sizes that have one. Raises Undecided where none has."""
    found: list[Size] = []
    missing: Undecided | None = None
    for arg in args:
        try:
            found.append(_greatest(arg, limits, depth))
        except Undecided as error:
            missing = error
    if not found:
        raise missing or Undecided("the least of no sizes")
    return found


def settle(size: Size, extents: Mapping[str, Size]) -> Size:
    """`size` with every floor division dropped that is constant while each symbol in `extents` runs over 0..extent-1.

    (4*a + b)//4 is a where b has extent 4, and (a*N + b)//N is a where b has extent N.
    """
    if not isinstance(size, Dim):
        return size
    result: Size = 0
    for coefficient, monomial in size._terms:
        factors = [_settle_atom(atom, extents) for atom in monomial]
        result = result + reduce(_product_of_any, factors, cast(Size, coefficient))
    return plain(result)


def _settle_atom(atom: Atom, extents: Mapping[str, Size]) -> Size:
    match atom:
        case Name():
            return single(atom)
        case Min():
            return minimum(*(settle(arg, extents) for arg in atom.args))
        case Max():
            return maximum(*(settle(arg, extents) for arg in atom.args))
        case FloorDiv():
            num, den = settle(atom.num, extents), settle(atom.den, extents)
            if isinstance(num, Dim) and not names(den) & extents.keys():
                least, greatest = _end(num, extents, -1), _end(num, extents, 1)
                if least is not None and decide_le(0, least) and greatest is not None and decide_le(greatest, den - 1):
                    return 0
            return floor_div(num, den)


def _end(size: Dim, extents: Mapping[str, Size], sign: int) -> Size | None:
    """The greatest (sign 1) or least (-1) value of a size that rises or falls with each symbol of `extents`, else None.

    Such a size is linear in them, and in quotients of sums of them by numbers, and mentions each once.
    """
    ends: dict[str, Size] = {}
    for coefficient, monomial in size._terms:
        found = [atom for atom in monomial if names(single(atom)) & extents.keys()]
        if not found:
            continue
        rising = _rising(found[0], extents) if len(found) == 1 else None
        if rising is None or rising.keys() & ends.keys():
            return None
        for name, way in rising.items():
            ends[name] = extents[name] - 1 if coefficient * sign * way > 0 else 0
    return substitute(size, ends)


def _rising(atom: Atom, extents: Mapping[str, Size]) -> dict[str, int] | None:
    """The symbols of `extents` in an atom: 1 where it rises with one, -1 where it falls; None where it does both."""
    if isinstance(atom, Name):
        return {atom.name: 1}
    if not isinstance(atom, FloorDiv) or not isinstance(atom.num, Dim) or not isinstance(atom.den, int):
        return None
    ways: dict[str, int] = {}
    for coefficient, monomial in atom.num._terms:
        inside = [a for a in monomial if names(single(a)) & extents.keys()]
        if not inside:
            continue
        if len(monomial) != 1 or not isinstance(inside[0], Name) or inside[0].name in ways:
            return None
        ways[inside[0].name] = 1 if coefficient > 0 else -1
    return ways


def parse_dim(text: str) -> Size:
    """Reads the text of `dim_text` back, and expressions as model exporters write them (`floor(n/2 - 1/2) + 1`).

    Raises ValueError for what is not such an expression, is longer than 4096 characters or nests deeper than 64
    levels. `a-b` is a difference here; `parse_dim_param` decides between expression and name.
    """
    try:
        value = plain(parse_expression(text, symbol, _FUNCTIONS))
    except (Undecided, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a size: {error}") from error
    if isinstance(value, Fraction):
        raise ValueError(f"{text!r} is not an integer")
    return value


def atoms(size: Size) -> list[Atom]:
    """The atoms of a size, those inside of others left out."""
    return [atom for _, monomial in terms(size) for atom in monomial]


def parse_dim_param(text: str) -> Size:
    """The size that a dimension's text in a model stands for: an expression, or else a symbol of that name.

    `batch-size`, `a:b` and `?` are names; `past + current` and `(s0-1)//2` are expressions; a quotient is rounded down.
    Raises ValueError for a name of more than 1024 characters.
    """
    if text.replace("-", "_").replace(":", "_").replace(".", "_").isidentifier():
        return symbol(text)
    try:
        return floor(parse_dim(text))
    except ValueError:
        return symbol(text)


_FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("min", "Min"), (minimum, 1, MAX_TERMS)),
    **dict.fromkeys(("max", "Max"), (maximum, 1, MAX_TERMS)),
    **dict.fromkeys(("floor", "FloorToInt"), (floor, 1, 1)),
    **dict.fromkeys(("ceil", "ceiling", "CeilToInt"), (ceil, 1, 1)),
    **dict.fromkeys(("Mod", "PythonMod"), (lambda a, b: a % b, 2, 2)),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), (lambda a, b: a // b, 2, 2)),
    "CeilDiv": (ceil_div, 2, 2),
}

__all__ = [
    "Atom",
    "Dim",
    "DividesByZero",
    "FloorDiv",
    "Limits",
    "Max",
    "Min",
    "Monomial",
    "Name",
    "Number",
    "Size",
    "Term",
    "Undecided",
    "atoms",
    "bounded",
    "ceil",
    "ceil_div",
    "decide_eq",
    "decide_le",
    "dim_text",
    "evaluate",
    "floor",
    "greatest",
    "lower_bound",
    "maximum",
    "minimum",
    "names",
    "parse_dim",
    "parse_dim_param",
    "settle",
    "substitute",
    "symbol",
    "symbol_of",
    "terms",
    "unbounded",
    "upper_bound",
]  # fmt: skip
