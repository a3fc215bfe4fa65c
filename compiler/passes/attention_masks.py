"""Masks of scores, queries by keys, as the blocks of attention read them: keys by queries, so that queries are lanes.

A mask is turned once for all heads and layers that it masks, in the order in which its blocks are read. Its rows are
filled up to whole blocks by its last query,
and what is a bool becomes a number, for which vectors have comparisons.
"""

from __future__ import annotations

from collections.abc import Collection

from ir import types as t
from ir.access import any_varies, varies
from ir.dims import Size, ceil_div, minimum, symbol
from ir.element import Names
from ir.expr import Const, Expr, Index, Load, apply, cast, const, transform, walk
from ir.kernel import Buffer, For, Kernel, Local, Stmt, Store
from ir.types import TensorType

_KEYS = 16
"""Keys that are turned at a time: as many as a line of the cache holds."""
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
    """A value that reads masks from other buffers, whose names `masks` gives; by query and key still, which `in_blocks`
    changes."""

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer not in masks:
            return None
        load = Load(t.f32, masks[expr.buffer], expr.index)
        return apply("ne", load, Const(t.f32, 0.0)) if expr.dtype == t.bool_ else load

    return transform(value, one)


def in_blocks(value: Expr, masks: Collection[str], block: Size, lane: Size) -> Expr:
    """A value that reads masks as they lie when they are turned: at a block of queries, a key, a query of the block."""

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer not in masks:
            return None
        *others, _, key = expr.index
        return Load(expr.dtype, expr.buffer, (*others, Index(t.i64, block), key, Index(t.i64, lane)))

    return transform(value, one)


def turned(type_: TensorType, queries: int) -> TensorType:
    """The type of a mask that is turned, for blocks of so many queries: each block lies by itself, key after key."""
    *others, rows, keys = type_.shape
    return TensorType(t.f32, (*others, ceil_div(rows, queries), keys, queries))


def turning(name: str, type_: TensorType, queries: int) -> Kernel:
    """The kernel that turns a mask, a few keys of a block of queries at a time."""
    made = turned(type_, queries)
    *others, blocks, keys, _ = made.shape
    names = Names(sorted({"x", "y", *Kernel(name, (Buffer("x", type_),), ()).sizes}))
    outer: list[tuple[str, Size]] = [(names.fresh(f"i{axis}"), size) for axis, size in enumerate(others) if size != 1]
    rest = iter(outer)
    index: list[Size] = [0 if size == 1 else symbol(next(rest)[0]) for size in others]
    block, part, held = names.fresh("block"), names.fresh("key_block"), names.fresh("keys")
    first = symbol(part) * _KEYS
    count = _KEYS if keys % _KEYS == 0 else minimum(_KEYS, keys - first)

    def at(*places: Size) -> tuple[Expr, ...]:
        return tuple(Index(t.i64, place) for place in places)

    lane, key = names.fresh("lane"), names.fresh("key")
    query = minimum(symbol(block) * queries + symbol(lane), type_.shape[-2] - 1)
    read = Load(type_.dtype, "x", at(*index, query, first + symbol(key)))
    fill = For(lane, queries, (For(key, count, (Store(held, at(symbol(key), symbol(lane)), cast(read, t.f32)),)),))
    lane, key = names.fresh("lane"), names.fresh("key")
    made_at = at(*index, symbol(block), first + symbol(key), symbol(lane))
    store = Store("y", made_at, Load(t.f32, held, at(symbol(key), symbol(lane))))
    body: tuple[Stmt, ...] = (
        Local(held, TensorType(t.f32, (_KEYS, queries))),
        fill,
        For(key, count, (For(lane, queries, (store,), "vector"),)),
    )
    loops = [*outer, (block, blocks), (part, ceil_div(keys, _KEYS))]
    for number, (var, extent) in reversed(list(enumerate(loops))):
        body = (For(var, extent, body, "parallel" if number < _PARALLEL else ""),)
    return Kernel(name, (Buffer("x", type_), Buffer("y", made, "out")), body)


__all__ = ["in_blocks", "masks_of", "read_across", "turned", "turning"]
