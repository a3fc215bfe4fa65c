"""Masks of scores, queries by keys, as the blocks of attention read them: keys by queries, so that queries are lanes.

A mask is turned once for all heads and layers that it masks. Its rows are filled up to whole blocks by its last query,
and what is a bool becomes a number, for which vectors have comparisons.
"""

from __future__ import annotations

from ir import types as t
from ir.access import any_varies, varies
from ir.dims import Size, ceil_div, minimum, symbol
from ir.element import Names
from ir.expr import Const, Expr, Index, Load, apply, cast, const, transform, walk
from ir.kernel import Buffer, For, Kernel, Local, Stmt, Store
from ir.types import TensorType

_BLOCK = 16
"""Queries and keys that are turned at a time: as many as a line of the cache holds."""
_PARALLEL = 3
"""Loops that threads share."""


def masks_of(value: Expr, row: str, column: str) -> list[str]:
    """The buffers that a score depends on by query and key; none where it depends on the query in any other way."""
    across = (Index(t.i64, symbol(row)), Index(t.i64, symbol(column)))

    def is_mask(load: Load) -> bool:
        is_known = all(isinstance(index, Index) for index in load.index) and load.outside is None
        is_typed = load.dtype in (t.f32, t.bool_)
        return is_known and is_typed and load.index[-2:] == across and not any_varies(load.index[:-2], row)

    loads = [e for e in walk(value) if isinstance(e, Load)]
    found = list(dict.fromkeys(e.buffer for e in loads if is_mask(e)))
    rest = transform(
        value, lambda e: const(0, e.dtype) if isinstance(e, Load) and e.buffer in found and is_mask(e) else None
    )
    if any(e.buffer in found and not is_mask(e) for e in loads) or varies(rest, row):
        return []
    return found


def read_across(value: Expr, masks: dict[str, str]) -> Expr:
    """A value that reads masks turned: `masks` are the names of the buffers that they are then."""

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer not in masks:
            return None
        index = (*expr.index[:-2], expr.index[-1], expr.index[-2])
        load = Load(t.f32, masks[expr.buffer], index)
        return apply("ne", load, Const(t.f32, 0.0)) if expr.dtype == t.bool_ else load

    return transform(value, one)


def across(type_: TensorType, queries: int) -> TensorType:
    """The type of a mask that is turned, for blocks of so many queries."""
    *others, rows, keys = type_.shape
    return TensorType(t.f32, (*others, keys, ceil_div(rows, queries) * queries))


def turning(name: str, type_: TensorType, queries: int) -> Kernel:
    """The kernel that turns a mask."""
    made = across(type_, queries)
    *others, keys, _ = made.shape
    wide = min(queries, _BLOCK)
    names = Names(sorted({"x", "y", *Kernel(name, (Buffer("x", type_),), ()).sizes}))
    outer: list[tuple[str, Size]] = [(names.fresh(f"i{axis}"), size) for axis, size in enumerate(others) if size != 1]
    rest = iter(outer)
    index: list[Size] = [0 if size == 1 else symbol(next(rest)[0]) for size in others]
    key, row, block = names.fresh("key_block"), names.fresh("row_block"), names.fresh("block")
    first = symbol(key) * _BLOCK
    count = _BLOCK if keys % _BLOCK == 0 else minimum(_BLOCK, keys - first)
    lane, k = names.fresh("row"), names.fresh("key")
    query = minimum(symbol(row) * wide + symbol(lane), type_.shape[-2] - 1)
    read = Load(type_.dtype, "x", tuple(Index(t.i64, i) for i in (*index, query, first + symbol(k))))
    held = (Index(t.i64, symbol(k)), Index(t.i64, symbol(lane)))
    fill = For(lane, wide, (For(k, count, (Store(block, held, cast(read, t.f32)),)),))
    last, to = names.fresh("key"), names.fresh("row")
    held = (Index(t.i64, symbol(last)), Index(t.i64, symbol(to)))
    place = tuple(Index(t.i64, i) for i in (*index, first + symbol(last), symbol(row) * wide + symbol(to)))
    store = For(last, count, (For(to, wide, (Store("y", place, Load(t.f32, block, held)),), "vector"),))
    body: tuple[Stmt, ...] = (Local(block, TensorType(t.f32, (_BLOCK, wide))), fill, store)
    loops = [*outer, (key, ceil_div(keys, _BLOCK)), (row, made.shape[-1] // wide)]
    for number, (var, extent) in reversed(list(enumerate(loops))):
        body = (For(var, extent, body, "parallel" if number < _PARALLEL else ""),)
    return Kernel(name, (Buffer("x", type_), Buffer("y", made, "out")), body)


__all__ = ["across", "masks_of", "read_across", "turning"]
