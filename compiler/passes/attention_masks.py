"""Masks of scores, queries by keys, as the blocks of attention read them: keys by queries, so that queries are lanes.

A mask is turned once for all heads and layers that it masks. Its rows are filled up to whole blocks by its last query,
and what is a bool becomes a number, for which vectors have comparisons.
"""

from __future__ import annotations

from compiler.passes.attention import Product, Weights
from ir import types as t
from ir.access import any_varies, varies
from ir.dims import Size, ceil_div, minimum, symbol
from ir.element import Names
from ir.expr import Const, Expr, Index, Load, apply, cast, transform, walk
from ir.kernel import Buffer, For, Kernel, Stmt, Store
from ir.types import TensorType


def masks_of(scores: Product, weights: Weights, reader: str) -> list[str] | None:
    """The buffers that scores depend on by query and key; None where they depend on the query in any other way."""
    row, columns = scores.row.var, (scores.column.var, weights.column.var)
    found: dict[str, None] = {}

    def is_mask(expr: Load) -> bool:
        *others, query, key = expr.index if len(expr.index) > 1 else (Index(t.i64, 0), *expr.index, Index(t.i64, 0))
        is_known = all(isinstance(index, Index) for index in expr.index) and expr.outside is None
        is_across = query == Index(t.i64, symbol(row)) and any(key == Index(t.i64, symbol(c)) for c in columns)
        return (
            expr.buffer != reader
            and is_known
            and is_across
            and not any_varies(others, row)
            and expr.dtype in (t.f32, t.bool_)
        )

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load):
            return None
        if is_mask(expr):
            found[expr.buffer] = None
            return Const(expr.dtype, False if expr.dtype == t.bool_ else 0.0)
        return Load(expr.dtype, expr.buffer, ()) if expr.buffer == reader else None

    rest = [transform(value, one) for value in (scores.value, weights.score)]
    loads = [e for value in (scores.value, weights.score) for e in walk(value) if isinstance(e, Load)]
    if any(e.buffer in found and not is_mask(e) for e in loads) or any(varies(value, row) for value in rest):
        return None
    return list(found)


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
    names = Names(sorted({"x", "y", *Kernel(name, (Buffer("x", type_),), ()).sizes}))
    axes: list[tuple[str, Size]] = [(names.fresh(f"i{axis}"), size) for axis, size in enumerate(made.shape)]
    index: list[Size] = [0 if size == 1 else symbol(var) for var, size in axes]
    loops = [axis for axis in axes if axis[1] != 1]
    row = minimum(index[-1], type_.shape[-2] - 1)
    read = Load(type_.dtype, "x", tuple(Index(t.i64, i) for i in (*index[:-2], row, index[-2])))
    body: tuple[Stmt, ...] = (Store("y", tuple(Index(t.i64, i) for i in index), cast(read, t.f32)),)
    for number, (var, extent) in reversed(list(enumerate(loops))):
        body = (For(var, extent, body, "parallel" if number < 2 and len(loops) > 1 else ""),)
    return Kernel(name, (Buffer("x", type_), Buffer("y", made, "out")), body)


__all__ = ["across", "masks_of", "read_across", "turning"]
