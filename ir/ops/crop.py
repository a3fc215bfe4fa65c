"""Crops of images, resized to one size."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import Tensor, apply, cast, select
from ir.expr import Expr, Index
from ir.op import Op, assume_equal, case, op, require
from ir.ops.reduction import accumulator
from ir.ops.region import image_of
from ir.types import DType, TensorType, dtype_of

_BOXES = np.array([[0.1, 0.2, 0.8, 0.9], [0.9, 0.7, 0.2, 0.1], [-0.5, -0.2, 1.3, 1.2]], np.float32)


@op
class CropAndResize(Op):
    """Boxes [y1, x1, y2, x2] of x[batch_indices[r], c], in shares of its extent, sampled at `height` x `width` points.

    The corners of a box are its outermost points; a side of one point lies in the middle. Between elements values are
    interpolated, or `nearest` ones taken. A point beyond the centres of the outermost elements has the value `outside`.
    """

    height: Size
    width: Size
    nearest: bool = False
    outside: float = 0.0
    examples = [
        case("f32[2,2,6,7]", _BOXES, np.array([0, 1, 1]), height=3, width=4, outside=2.5),
        case("f32[2,1,6,7]", _BOXES, np.array([0, 1, 0]), height=4, width=3, nearest=True),
        case("f32[1,1,5,5]", _BOXES, np.array([0, 0, 0]), height=1, width=1),
        case("f64[1,1,1,5]", _BOXES[:1].astype(np.float64), np.array([0]), height=2, width=1),
    ]

    def infer(self, x: TensorType, boxes: TensorType, batch_indices: TensorType) -> TensorType:
        require(x.rank == 4 and x.dtype.is_float, lambda: f"crop_and_resize does not take {x}")
        require(boxes.rank == 2 and boxes.shape[1] == 4 and boxes.dtype == x.dtype,
                lambda: f"crop_and_resize: boxes are {boxes}")  # fmt: skip
        require(batch_indices.rank == 1 and batch_indices.dtype == t.i64,
                lambda: f"crop_and_resize: the batch indices are {batch_indices}")  # fmt: skip
        for size in (self.height, self.width):
            require(not isinstance(size, int) or size > 0, f"crop_and_resize: a size is {size}")
        assume_equal(boxes.shape[0], batch_indices.shape[0])
        return x.with_shape((boxes.shape[0], x.shape[1], self.height, self.width))

    def reference(self, x: np.ndarray, boxes: np.ndarray, batch_indices: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(x)).numpy.type
        wide, sizes = x.astype(exact), (int(self.height), int(self.width))
        y = np.full((len(boxes), x.shape[1], *sizes), exact(self.outside))
        for r, (y1, x1, y2, x2) in enumerate(boxes.astype(exact)):
            plane = image_of(wide, batch_indices[r])
            rows, columns = (
                self._points(low, high, count, extent)
                for low, high, count, extent in zip((y1, x1), (y2, x2), sizes, x.shape[2:])
            )
            for i, v in enumerate(rows):
                for j, u in enumerate(columns):
                    if 0 <= v <= x.shape[2] - 1 and 0 <= u <= x.shape[3] - 1:
                        y[r, :, i, j] = self._value(plane, v, u)
        return y.astype(x.dtype)

    @staticmethod
    def _points(low: np.floating, high: np.floating, count: int, extent: int) -> list[np.floating]:
        """Where along one axis the points of a box lie."""
        last = type(low)(extent - 1)
        if count == 1:
            return [type(low)(0.5) * (low + high) * last]
        step = (high - low) * last / type(low)(count - 1)
        return [low * last + type(low)(i) * step for i in range(count)]

    def _value(self, plane: np.ndarray, v: np.floating, u: np.floating) -> np.ndarray:
        if self.nearest:
            return plane[:, int(np.floor(v + v.dtype.type(0.5))), int(np.floor(u + u.dtype.type(0.5)))]
        (top, left), (below, right) = np.floor([v, u]).astype(int), np.ceil([v, u]).astype(int)
        dv, du = v - v.dtype.type(top), u - u.dtype.type(left)
        upper = plane[:, top, left] + (plane[:, top, right] - plane[:, top, left]) * du
        lower = plane[:, below, left] + (plane[:, below, right] - plane[:, below, left]) * du
        return upper + (lower - upper) * dv

    def element(self, i: tuple[Expr, ...], x: Tensor, boxes: Tensor, batch_indices: Tensor) -> Expr:
        r, c, row, column = i
        exact = accumulator(x.dtype)
        corners = [cast(boxes.at(r, k), exact) for k in range(4)]
        v = self._place(corners[0], corners[2], row, self.height, x.shape[2])
        u = self._place(corners[1], corners[3], column, self.width, x.shape[3])
        within = (v >= 0.0) & (v <= _last(x.shape[2], exact)) & (u >= 0.0) & (u <= _last(x.shape[3], exact))
        batch = batch_indices.at(r)

        def load(at_v: Expr, at_u: Expr) -> Expr:
            return cast(x.at(batch, c, cast(at_v, t.i64), cast(at_u, t.i64), outside=0), exact)

        if self.nearest:
            value = load(apply("floor", v + 0.5), apply("floor", u + 0.5))
            return cast(select(within, value, self.outside), x.dtype)
        (top, below), (left, right) = ((apply("floor", p), apply("ceil", p)) for p in (v, u))
        upper = load(top, left) + (load(top, right) - load(top, left)) * (u - left)
        lower = load(below, left) + (load(below, right) - load(below, left)) * (u - left)
        return cast(select(within, upper + (lower - upper) * (v - top), self.outside), x.dtype)

    @staticmethod
    def _place(low: Expr, high: Expr, at: Expr, count: Size, extent: Size) -> Expr:
        """Where along one axis point `at` of `count` lies."""
        last = _last(extent, low.dtype)
        middle = (low + high) * 0.5 * last
        if count == 1:
            return middle
        spread = low * last + cast(at, low.dtype) * ((high - low) * last / _last(count, low.dtype))
        return spread if isinstance(count, int) else select(Index(t.i64, count).equals(1), middle, spread)


def _last(size: Size, dtype: DType) -> Expr:
    """The place of the last of `size` elements."""
    return cast(Index(t.i64, size - 1), dtype)
