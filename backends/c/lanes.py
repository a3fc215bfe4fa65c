"""What a vector loop looks like: which values differ from lane to lane, what lies side by side, what adds up as one."""

from __future__ import annotations

from functools import lru_cache

from ir import types as t
from ir.dims import Dim, Name, Size, names, substitute, symbol, terms
from ir.expr import Apply, Cast, Expr, Index, Load, transform, walk
from ir.kernel import DOT_OPERANDS, For, Store, dot_length, exprs_of


def factors_of(value: Expr, var: str) -> tuple[Load, Load]:
    """The loads of a product of two: the one that does not depend on `var`, and the one that does."""
    x, w = sorted((e for e in walk(value) if isinstance(e, Load)), key=lambda load: depends(load, var))
    return x, w


def indices_of(loop: For) -> tuple[Expr, ...]:
    """The indices at which the store of a loop of one reads and writes."""
    stores = [stmt for stmt in loop.body if isinstance(stmt, Store)]
    loads = [e for stmt in stores for e in walk(stmt.value) if isinstance(e, Load)]
    return tuple(i for access in (*stores, *loads) for i in access.index)


def is_dot(loop: For, var: str) -> bool:
    """Whether a loop marked "dot" in the vector loop over `var` adds products of operands that lie side by side: those
    of one place for all lanes, and those of the last axis behind that of the lanes."""
    store = loop.body[0] if loop.mark == "dot" and len(loop.body) == 1 else None
    if not isinstance(store, Store) or store.function != "add" or store.value.dtype not in DOT_OPERANDS:
        return False
    value = store.value
    if not is_contiguous(store.index, var) or depends_any(store.index, loop.var) or not isinstance(value, Apply):
        return False
    if value.function != "mul" or not all(isinstance(a, Cast) and isinstance(a.value, Load) for a in value.args):
        return False
    x, w = factors_of(value, var)
    if (x.dtype, w.dtype) != DOT_OPERANDS[value.dtype] or loop.extent != dot_length(w.dtype):
        return False
    if depends(x, var) or len(w.index) < 2:
        return False
    return (
        x.outside is None
        and w.outside is None
        and is_contiguous(x.index, loop.var)
        and is_contiguous(w.index[:-1], var)
        and w.index[-1] == Index(t.i64, symbol(loop.var))
        and not depends_any(w.index[:-1], loop.var)
    )


def depends_any(index: tuple[Expr, ...], var: str) -> bool:
    """Whether an index differs with a loop variable."""
    return any(depends(i, var) for i in index)


def first_of(load: Load, var: str) -> Load:
    """The load where `var` is 0."""

    def one(expr: Expr) -> Expr | None:
        return Index(t.i64, substitute(expr.value, {var: 0})) if isinstance(expr, Index) else None

    return Load(load.dtype, load.buffer, tuple(transform(i, one) for i in load.index))


@lru_cache(maxsize=65536)
def depends(expr: Expr, var: str) -> bool:
    """Whether a value differs with a loop variable."""
    return any(isinstance(part, Index) and var in names(part.value) for part in walk(expr))


def is_contiguous(index: tuple[Expr, ...], var: str) -> bool:
    """Whether the last index grows by one with `var` and the others do not depend on it."""
    if not index or any(depends(i, var) for i in index[:-1]) or not isinstance(index[-1], Index):
        return False
    last = index[-1].value
    if not isinstance(last, Dim):
        return False
    own = [(c, atoms) for c, atoms in terms(last) if any(var in names(Dim(((1, (atom,)),))) for atom in atoms)]
    return len(own) == 1 and own[0][0] == 1 and len(own[0][1]) == 1 and isinstance(own[0][1][0], Name)


def keeps_order(loop: For) -> bool:
    """Whether a buffer that the loop stores to is read at the stored element only, or beyond all that are stored, so
    that lanes are independent."""
    stores = {stmt.buffer: stmt.index for stmt in loop.body if isinstance(stmt, Store)}
    loads = [e for stmt in loop.body for e in walk(*exprs_of(stmt)) if isinstance(e, Load)]
    own = [(load.index, stores[load.buffer]) for load in loads if load.buffer in stores]
    return all(read == stored or _is_beyond(read, stored, loop.extent) for read, stored in own)


def _is_beyond(read: tuple[Expr, ...], stored: tuple[Expr, ...], extent: Size | Expr) -> bool:
    """Whether an index lies so far behind another that a loop of `extent` iterations never reaches it."""
    if read[:-1] != stored[:-1] or not isinstance(read[-1], Index) or not isinstance(stored[-1], Index):
        return False
    distance = read[-1].value - stored[-1].value
    return isinstance(distance, int) and isinstance(extent, int) and distance >= extent
