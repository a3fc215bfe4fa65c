"""What a graph may demand of sizes besides that two are equal, each written as a pair of sizes that must be equal, and
the sentences that say which demand does not hold.

A demand is made and recognised without regard to the bounds of symbols, so that its form does not depend on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from ir.dims import (
    Dim,
    Max,
    Min,
    Name,
    Size,
    decide_eq,
    decide_le,
    dim_text,
    evaluate,
    maximum,
    minimum,
    names,
    substitute,
    symbol,
    terms,
    unbounded,
)  # fmt: skip

Pair = tuple[Size, Size]


def unequal(a: Size, b: Size) -> Pair:
    """The demand that two sizes differ."""
    with unbounded():
        return minimum(_distance(a, b), 1), 1


_late: ContextVar[Collection[str]] = ContextVar("late symbols", default=())


@contextmanager
def told_late(late: Collection[str]) -> Iterator[None]:
    """Says which symbols have values that only a run tells."""
    token = _late.set(late)
    try:
        yield
    finally:
        _late.reset(token)


def limits_in_force() -> Mapping[str, Size | None]:
    """What the symbols that only a run tells are at most, as far as that is known here."""
    late = _late.get()
    return late if isinstance(late, Mapping) else {}


def may_stretch(own: Size, size: Size) -> bool:
    """Whether an axis of size `own` that pairs with one of `size` may turn out to be 1 where that is not.

    Sizes with symbols in common are two ways to compute one size, and demanded to be equal. So are sizes that only a
    run tells: they are made for each other, and what they equal may be the one thing that bounds them.
    """
    if not isinstance(own, Dim) or size in (own, 1) or names(own) & names(size) or decide_eq(own, 1) is False:
        return False
    return not (names(own) | names(size)) & set(_late.get())


def equal_or_one(a: Size, b: Size) -> Pair:
    """The demand that `a` is `b` or 1."""
    with unbounded():
        return minimum(_distance(a, 1), _distance(a, b)), 0


def not_negative(a: Size) -> Pair:
    """The demand that a size is at least 0."""
    with unbounded():
        return maximum(a, 0), a


def broken_demand(pair: Pair, sizes: Mapping[str, int]) -> str:
    """A sentence about a demand that does not hold at these values of the symbols."""
    left, right = pair
    for a, b in _operands(left):
        if pair == unequal(a, b):
            return f"{_valued(a, sizes)}, it must not be {_named(b, sizes)}"
        if pair == equal_or_one(a, b):
            return f"{_valued(a, sizes)}, it must be {_named(b, sizes)} or 1"
    if pair == not_negative(right):
        return f"{_valued(right, sizes)}, it must not be negative"
    return f"{_valued(left, sizes)} and {_valued(right, sizes)}; they must be equal"


def is_implied(demand: Pair, pairs: Collection[Pair]) -> bool:
    """Whether a demand holds wherever other pairs of sizes are equal, as far as they say so outright."""
    left, right = demand
    if left == right or demand in pairs or resolve(left, pairs) == resolve(right, pairs):
        return True
    return any(demand == equal_or_one(a, b) and is_implied((a, b), pairs) for a, b in _operands(left))


def resolve(size: Size, pairs: Iterable[Pair]) -> Size:
    """`size` with symbols replaced by what `pairs` say they are equal to, as far as they say so outright."""
    left = list(pairs) if isinstance(size, Dim) else []
    while left:
        name, other = _solved(*left.pop(0))
        if name is not None:
            replaced: dict[str, Size] = {name: other}
            size = substitute(size, replaced)
            left = [(substitute(x, replaced), substitute(y, replaced)) for x, y in left]
    return size


def _solved(left: Size, right: Size) -> tuple[str | None, Size]:
    """The symbol that one side of an equation is, and the other side."""
    for one, other in ((left, right), (right, left)):
        if not isinstance(one, Dim) or len(found := terms(one)) != 1:
            continue
        factor, monomial = found[0]
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Name):
            return (None if monomial[0].name in names(other) else monomial[0].name), other
    return None, 0


def demanded_limit(name: str, pairs: Iterable[Pair], late: Collection[str]) -> Size | None:
    """What a symbol is at most because a pair of sizes must be equal, in terms of symbols that are not `late`: the `p`
    of `p+q == 2*N` is not above 2*N. None where no pair tells."""
    for left, right in (way for pair in pairs for way in (pair, pair[::-1])):
        if names(right) & set(late) or name not in names(left):
            continue
        own = [c for c, m in terms(left) if len(m) == 1 and isinstance(m[0], Name) and m[0].name == name]
        rest = left - own[0] * symbol(name) if len(own) == 1 and own[0] > 0 else None
        if rest is not None and name not in names(rest) and decide_le(0, rest) is True:
            return right // own[0]
    return None


def _distance(a: Size, b: Size) -> Size:
    return maximum(a - b, b - a)


def _operands(size: Size) -> Iterator[Pair]:
    """The pairs of sizes that may be what a demand was made of, the plain ones first."""
    args = next((m[0].args for _, m in terms(size) if len(m) == 1 and isinstance(m[0], Min)), ())
    differences = [d for arg in args for part in _parts(arg) for d in (part, -part) if isinstance(d, Dim)]
    found: list[Pair] = [(d + k, k) for d in differences for k in (0, 1)]
    found += [(d + 1, d + 1 - e) for d in differences for e in differences]
    yield from sorted(found, key=lambda pair: (len(names(pair[0]) & names(pair[1])), *map(len, map(dim_text, pair))))


def _parts(size: Size) -> tuple[Size, ...]:
    found = terms(size)
    alone = found[0][1][0] if len(found) == 1 and len(found[0][1]) == 1 else None
    return alone.args if isinstance(alone, Max) else (size,)


def _valued(size: Size, sizes: Mapping[str, int]) -> str:
    return f"{dim_text(size)} is {evaluate(size, sizes)}"


def _named(size: Size, sizes: Mapping[str, int]) -> str:
    return str(size) if isinstance(size, int) else f"{dim_text(size)} ({evaluate(size, sizes)})"


__all__ = [
    "Pair", "broken_demand", "demanded_limit", "equal_or_one", "is_implied", "limits_in_force", "may_stretch",
    "not_negative", "resolve", "told_late", "unequal",
]  # fmt: skip
