"""How the indices of loads and stores move with a loop: not at all, or to the element that lies next in memory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from ir.dims import Dim, Size, names, substitute, symbol
from ir.expr import Expr, Index, walk


@lru_cache(maxsize=65536)
def varies(expr: Expr, var: str) -> bool:
    """Whether a value differs with a loop variable."""
    return any(isinstance(part, Index) and var in names(part.value) for part in walk(expr))


def any_varies(index: Iterable[Expr], var: str) -> bool:
    """Whether an index differs with a loop variable."""
    return any(varies(i, var) for i in index)


def is_contiguous(index: tuple[Expr, ...], var: str) -> bool:
    """Whether the last index grows by one with `var` and the others do not depend on it."""
    if not index or any_varies(index[:-1], var) or not isinstance(index[-1], Index):
        return False
    last = index[-1].value
    return isinstance(last, Dim) and var not in names(last - symbol(var))


def stride(index: tuple[Expr, ...], shape: tuple[Size, ...], var: str) -> int | None:
    """The elements between those that an index into a buffer of this shape names at `var` and at `var` + 1; None where
    it is not always the same number."""
    total, step = 0, 1
    for part, size in zip(reversed(index), reversed(shape)):
        if varies(part, var):
            if not isinstance(part, Index) or not isinstance(step, int):
                return None
            moved = substitute(part.value, {var: symbol(var) + 1}) - part.value
            if not isinstance(moved, int):
                return None
            total += moved * step
        step = step * size  # type: ignore[operator]
    return total
