"""What sequence ops become where there are no sequences (their `on_parts`, see `ir.parts`).

Sizes of elements are data here. What they say is checked, or has no effect beyond zeros: nothing outside of a row is
read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, maximum
from ir.element import KernelBuilder, Output, Tensor, apply, select
from ir.expr import Expr, Index
from ir.op import Op, case, define_shape, op, require, sizes
from ir.ops.indexing import nest
from ir.ops.movement import wider
from ir.types import TensorType


def _flat_cells(b: Any, x: Any, axes: int) -> Any:
    """Cells with the axes from number `axes` on as one."""
    return b.reshape(x, shape=(*x.shape[:axes], math.prod(x.shape[axes:], start=1)))


def _blank(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros, or empty strings."""
    return np.full(shape, "" if dtype.kind == "O" else 0, dtype)


@op
class Checked(Op):
    """x, where the number in `flag` is `holds`; a run in which it is another fails."""

    holds: Size = 1
    defines = ("holds",)
    examples = [case("f32[2]", np.array(1)), case("i64[]", np.array(1)), case("string[2]", np.array(1))]

    def infer(self, x: TensorType, flag: TensorType) -> TensorType:
        require(flag.dtype == t.i64 and flag.rank == 0, lambda: f"checked: the flag is {flag}")
        return x

    def reference(self, x: np.ndarray, flag: np.ndarray) -> np.ndarray:
        if int(flag) != self.holds:
            raise ValueError("a position, a size or a number of elements is not what it must be")
        return x

    def element(self, i: tuple[Expr, ...], x: Tensor, flag: Tensor) -> Expr:
        return x.at(*i)

    def on_cells(self, b: Any, x: Any, flag: Any) -> Any:
        return b.checked(x, flag, holds=self.holds)


@op
class InsertRow(Op):
    """rows[C,M] with `row`[M] before row `at`: C+1 rows. The position is within 0 and C."""

    examples = [
        case("f32[3,2]", "f32[2]", np.array(1)),
        case("f32[2,2]", "f32[2]", np.array(2)),
        case("i64[0,3]", "i64[3]", np.array(0)),
        case("string[2,3]", np.array(["x", "a longer one", ""], object), np.array(1)),
    ]

    def infer(self, rows: TensorType, row: TensorType, at: TensorType) -> TensorType:
        require(rows.rank == 2 and row.rank == 1 and rows.dtype == row.dtype, lambda: f"insert_row: {row} in {rows}")
        return rows.with_shape((rows.shape[0] + 1, rows.shape[1]))

    def reference(self, rows: np.ndarray, row: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[: int(at)], row[None], rows[int(at) :]])

    def element(self, i: tuple[Expr, ...], rows: Tensor, row: Tensor, at: Tensor) -> Expr:
        place, column = i
        before, after = rows.at(place, column, outside=0), rows.at(place - 1, column, outside=0)
        return select(place < at.at(), before, select(place.equals(at.at()), row.at(column), after))

    def on_cells(self, b: Any, rows: Any, row: Any, at: Any) -> Any:
        width = maximum(rows.shape[-1], row.shape[-1])
        longer = b.insert_row(_flat_cells(b, wider(b, rows, width), 1), _flat_cells(b, wider(b, row, width), 0), at)
        return b.reshape(longer, shape=(longer.shape[0], rows.shape[1], width))


@op
class RemoveRow(Op):
    """rows[C,M] without row `at`: those after it move up, and the last one is zeros."""

    examples = [
        case("f32[3,2]", np.array(1)), case("i64[2,1]", np.array(0)), case("f32[1,2]", np.array(0)),
        case("string[3,2]", np.array(1)),
    ]  # fmt: skip

    def infer(self, rows: TensorType, at: TensorType) -> TensorType:
        require(rows.rank == 2, lambda: f"remove_row: {rows}")
        return rows

    def reference(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[: int(at)], rows[int(at) + 1 :], _blank((1, rows.shape[1]), rows.dtype)])

    def element(self, i: tuple[Expr, ...], rows: Tensor, at: Tensor) -> Expr:
        place, column = i
        return select(place < at.at(), rows.at(place, column), rows.at(place + 1, column, outside=0))

    def on_cells(self, b: Any, rows: Any, at: Any) -> Any:
        return b.reshape(b.remove_row(_flat_cells(b, rows, 1), at), shape=rows.shape)


@op
class RowTensor(Op):
    """A row of T[M] as a tensor of `shape`, whose sizes are given as operands too; zeros where the row is too short."""

    shape: sizes
    defines = ("shape",)
    examples = [
        case("f32[7]", np.array(2), np.array(3), shape=(2, 3)),
        case("f32[2]", np.array(3), shape=(3,)),
        case("i64[1]", shape=()),
        case("string[5]", np.array(3), np.array(2), shape=(3, 2)),
    ]

    def infer(self, row: TensorType, *counts: TensorType) -> TensorType:
        require(row.rank == 1 and len(counts) == len(self.shape), lambda: f"row_tensor: {row}, {len(counts)} sizes")
        define_shape(self.shape, row.shape[0])
        return row.with_shape(self.shape)

    def reference(self, row: np.ndarray, *counts: np.ndarray) -> np.ndarray:
        shape = tuple(int(count) for count in counts)
        filled = _blank((math.prod(shape),), row.dtype)
        kept = min(filled.size, row.size)
        filled[:kept] = row[:kept]
        return filled.reshape(shape)

    def element(self, i: tuple[Expr, ...], row: Tensor, *counts: Tensor) -> Expr:
        return row.at(_flat(i, self.shape), outside=0)

    def on_cells(self, b: Any, row: Any, *counts: Any) -> Any:
        width = row.shape[-1]
        return b.row_tensor(_flat_cells(b, row, 0), *counts, b.dims(width), shape=(*self.shape, width))


def _flat(index: tuple[Expr, ...], shape: tuple[Size, ...]) -> Expr:
    """The position of an element in row-major order."""
    place: Expr = Index(t.i64, 0)
    for i, size in zip(index, shape):
        place = place * Index(t.i64, size) + i
    return place


@op
class PieceRows(Op):
    """Pieces of x along `axis` as rows T[C,M]: piece k is sizes[k] entries from starts[k] on, with zeros after it."""

    axis: int
    room: Size
    examples = [
        case("f32[2,5,3]", np.array([0, 2]), np.array([2, 3]), axis=1, room=18),
        case("f32[4]", np.array([0, 3, 4]), np.array([3, 1, 0]), axis=0, room=4),
        case("string[2,3]", np.array([0, 2]), np.array([2, 1]), axis=1, room=4),
    ]

    def infer(self, x: TensorType, starts: TensorType, sizes: TensorType) -> TensorType:
        require(0 <= self.axis < x.rank, lambda: f"piece_rows: axis {self.axis} of {x}")
        return x.with_shape((starts.shape[0], self.room))

    def reference(self, x: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        rows = _blank((len(starts), int(self.room)), x.dtype)
        for row, start, size in zip(rows, starts.tolist(), sizes.tolist()):
            piece = np.take(x, range(start, start + size), axis=self.axis)
            row[: piece.size] = piece.reshape(-1)
        return rows

    def element(self, i: tuple[Expr, ...], x: Tensor, starts: Tensor, sizes: Tensor) -> Expr:
        piece, place = i
        size = select(sizes.at(piece) > 0, sizes.at(piece), 1)
        index: list[Expr] = []
        for axis in range(x.rank - 1, -1, -1):
            own: Expr = size if axis == self.axis else Index(t.i64, x.shape[axis])
            index.insert(0, place % own if axis else place)
            place = place // own
        within = index[self.axis] < sizes.at(piece)
        index[self.axis] = index[self.axis] + starts.at(piece)
        return select(within, x.at(*index, outside=0), 0)

    def on_cells(self, b: Any, x: Any, starts: Any, sizes: Any) -> Any:
        width = x.shape[-1]
        rows = b.piece_rows(x, starts, sizes, axis=self.axis, room=self.room * width)
        return b.reshape(rows, shape=(rows.shape[0], self.room, width))


@op
class JoinedRows(Op):
    """A tensor of `shape`, whose sizes are given as operands too, from the rows of a sequence: element k is sizes[k]
    entries of `axis` from starts[k] on. Entries that no element has are zeros."""

    axis: int
    shape: sizes
    defines = ("shape",)
    examples = [
        case("f32[2,6]", np.array([0, 2]), np.array([2, 1]), np.array(2), np.array(3), axis=1, shape=(2, 3)),
        case("f32[3,2]", np.array([0, 1, 1]), np.array([1, 0, 2]), np.array(3), axis=0, shape=(3,)),
        case("string[2,4]", np.array([0, 2]), np.array([2, 1]), np.array(2), np.array(3), axis=1, shape=(2, 3)),
    ]

    def infer(self, rows: TensorType, starts: TensorType, sizes: TensorType, *counts: TensorType) -> TensorType:
        require(rows.rank == 2 and len(counts) == len(self.shape), lambda: f"joined_rows: {rows}, {len(counts)} sizes")
        define_shape(self.shape, rows.shape[0] * rows.shape[1])
        return rows.with_shape(self.shape)

    def reference(self, rows: np.ndarray, starts: np.ndarray, sizes: np.ndarray, *counts: np.ndarray) -> np.ndarray:
        joined = _blank(tuple(int(count) for count in counts), rows.dtype)
        for row, start, size in zip(rows, starts.tolist(), sizes.tolist()):
            shape = [size if axis == self.axis else extent for axis, extent in enumerate(joined.shape)]
            place = tuple(slice(start, start + size) if a == self.axis else slice(None) for a in range(joined.ndim))
            joined[place] = row[: math.prod(shape)].reshape(shape)
        return joined

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], rows: Tensor, starts: Tensor, sizes: Tensor, *counts: Tensor
    ) -> None:
        (joined,) = outs
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        with nest(k, self.shape) as i:
            k.store(joined, i, 0)
        with k.loop(j=rows.shape[0]) as j:
            start, size = k.let("start", starts.at(j)), k.let("size", sizes.at(j))
            with k.loop(b=apply("min", size, Index(t.i64, self.shape[self.axis]))) as b:
                place = k.let("place", start + b)
                inside = (place >= 0) & (place < Index(t.i64, self.shape[self.axis]))
                with k.when(inside), nest(k, before) as p, nest(k, after) as q:
                    row = _flat(p, before) * size + b
                    source = row * Index(t.i64, math.prod(after)) + _flat(q, after)
                    k.store(joined, (*p, place, *q), rows.at(j, source, outside=0))

    def on_cells(self, b: Any, rows: Any, starts: Any, sizes: Any, *counts: Any) -> Any:
        width = rows.shape[-1]
        flat, shape = _flat_cells(b, rows, 1), (*self.shape, width)
        return b.joined_rows(flat, starts, sizes, *counts, b.dims(width), axis=self.axis, shape=shape)


__all__ = ["Checked", "InsertRow", "JoinedRows", "PieceRows", "RemoveRow", "RowTensor"]
