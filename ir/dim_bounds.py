"""What holds for symbolic sizes within the bounds of their symbols: order, truth, and the least or greatest of several.

Answers are sound but not complete: None, or an infinite end, says that nothing was proved. Symbols are non-negative,
and `bounded` narrows them further. Use it through `ir.dims`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, TypeAlias, cast

from ir.dim_form import (
    Atom,
    Coefficient,
    Dim,
    FloorDiv,
    Max,
    Min,
    Monomial,
    Name,
    Number,
    Size,
    Undecided,
    children,
    denominator,
    dim_text,
    exact_quotient,
    plain,
    required,
    single,
    terms,
)  # fmt: skip

MAX_ARGS = 16
_MAX_RELAXATIONS = 24
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


@contextmanager
def unbounded() -> Iterator[None]:
    """Within the context, symbols have no bounds, but for being non-negative."""
    token = _BOUNDS.set(_NO_BOUNDS)
    try:
        yield
    finally:
        _BOUNDS.reset(token)


def lower_bound(size: Size) -> int | None:
    """An integer that `size` is never below, or None if none is known."""
    low = low_end(size)
    if low == -math.inf:
        return None
    return math.ceil(low) if denominator(size) == 1 else math.floor(low)


def upper_bound(size: Size) -> int | None:
    """An integer that `size` is never above, or None if none is known."""
    bound = lower_bound(-size)
    return None if bound is None else -bound


def decide_le(a: Size, b: Size) -> bool | None:
    """True if a <= b whatever the symbols, False if a > b whatever the symbols, else None."""
    return decide(required(b) - required(a), strict=False)


def decide_eq(a: Size, b: Size) -> bool | None:
    """True if both have the same normal form, False if they differ whatever the symbols, else None."""
    difference = required(a) - required(b)
    if not isinstance(difference, Dim):
        return difference == 0
    if low_end(difference) > 0 or low_end(-difference) > 0:
        return False
    whole = difference * denominator(difference)
    content = math.gcd(*(cast(int, c) for c, monomial in terms(whole) if monomial))
    constant = next((c for c, monomial in terms(whole) if not monomial), 0)
    return False if constant % content else None


def decide(difference: Any, strict: bool) -> bool | None:
    """Whether `difference` is at least zero (above zero if `strict`): True, False, or None if that depends."""
    low, high = low_end(difference), -low_end(-difference)
    if low > 0 or (low == 0 and not strict):
        return True
    return False if high < 0 or (high == 0 and strict) else None


def low_end(size: Any, memo: dict[Atom, Interval] | None = None, budget: list[int] | None = None) -> Any:
    """The greatest lower end found: by interval arithmetic, and by putting in place of an atom what bounds it.

    The replacement lets x - x//2 cancel, which interval arithmetic alone cannot see. `budget` counts the replacements
    left.
    """
    if not isinstance(size, Dim):
        return size
    memo = {} if memo is None else memo
    best = _sum_of_ends(_scaled(c, _monomial_interval(m, memo))[0] for c, m in size._terms)
    if len(size._terms) == 1:
        return best
    budget = [_MAX_RELAXATIONS] if budget is None else budget
    for coefficient, monomial in size._terms:
        if not _shares_names(monomial, size):
            continue
        for replacement in _relaxations(coefficient, monomial):
            if budget[0] == 0:
                return best
            budget[0] -= 1
            relaxed = size + coefficient * (replacement - single(monomial[0]))
            best = max(best, low_end(relaxed, memo, budget))
    return best


def _shares_names(monomial: Monomial, size: Dim) -> bool:
    """Whether a sole atom, other than a name, could cancel with another term of `size`."""
    if len(monomial) != 1 or isinstance(monomial[0], Name):
        return False
    own = monomial[0].names
    return any(own & atom.names for _, other in size._terms if other is not monomial for atom in other)


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
    intervals = [(low_end(child, memo), -low_end(-child, memo)) for child in children(atom)]
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


def minimum(*sizes: Number) -> Size:
    """The least of one or more sizes; those that the bounds in force prove never to be the least are left out."""
    return _extremum(sizes, Min, Max)


def maximum(*sizes: Number) -> Size:
    """The greatest of one or more sizes; those that the bounds in force prove never to be the greatest are left out."""
    return _extremum(sizes, Max, Min)


def _extremum(sizes: Iterable[Number], kind: type[Min] | type[Max], opposite: type[Min] | type[Max]) -> Any:
    args: dict[Any, None] = {}
    for size in sizes:
        args.update(dict.fromkeys(_flattened(plain(required(size)), kind, opposite)))
    if not args:
        raise ValueError("the least or greatest of no sizes")
    if len(args) > MAX_ARGS:
        raise Undecided(f"the least or greatest of more than {MAX_ARGS} sizes")
    scale = denominator(*args)
    kept = _undominated(sorted((plain(arg * scale) for arg in args), key=_argument_order), kind is Min)
    if len(kept) == 1:
        return plain(kept[0] * Fraction(1, scale))
    if all(terms(arg)[0][0] < 0 for arg in kept if isinstance(arg, Dim)):
        return -_extremum([-arg * Fraction(1, scale) for arg in kept], opposite, kind)
    content = math.gcd(*(cast(int, c) for arg in kept for c, _ in terms(arg)))
    ordered = sorted((exact_quotient(arg, content) for arg in kept), key=_argument_order)
    return single(kind(tuple(ordered))) * Fraction(content, scale)


def _argument_order(size: Any) -> tuple[bool, str]:
    return (not isinstance(size, Dim), dim_text(size))


def _flattened(size: Any, kind: type[Min] | type[Max], opposite: type[Min] | type[Max]) -> tuple[Any, ...]:
    """The arguments of a multiple of `kind` (or of minus its opposite), multiplied; else `size` alone."""
    split = terms(size)
    if len(split) != 1 or len(split[0][1]) != 1:
        return (size,)
    coefficient, (atom,) = split[0]
    nested = isinstance(atom, kind if coefficient > 0 else opposite)
    return tuple(plain(coefficient * arg) for arg in children(atom)) if nested else (size,)


def _undominated(args: list[Any], least: bool) -> list[Any]:
    """`args` without those never below (above, unless `least`) another that stays; of equals the last stays."""
    kept = list(args)
    for arg in args:
        others = [other for other in kept if other is not arg]
        if any(low_end(arg - other if least else other - arg) >= 0 for other in others):
            kept = others
    return kept
