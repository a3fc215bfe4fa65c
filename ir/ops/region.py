"""Pools over regions of interest: rectangles of an image, given by their corners, become images of one size."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const, lowest, select
from ir.expr import Expr, Index, Var
from ir.op import Op, assume_equal, case, op, require
from ir.ops.reduction import accumulator
from ir.types import DType, TensorType, dtype_of

_MOST_SAMPLES = 4096
"""Bound on the samples along one side of a bin, so that a malformed region cannot stall a program: of one that lies in
an image, a bin has one for each element along it."""

_ROIS = np.array([[0.5, 0.5, 4.2, 5.1], [1.0, 0.0, 1.5, 2.0], [-3.0, -2.0, 9.0, 9.0]], np.float32)


def image_of(x: np.ndarray, batch: int) -> np.ndarray:
    """The image that an index names, which does not count from the end. Raises IndexError."""
    if not 0 <= batch < len(x):
        raise IndexError(f"image {batch} of {len(x)}")
    return x[batch]


@op
class RoiAlign(Op):
    """Regions [x1, y1, x2, y2] of x[batch_indices[r], c], each a mean (or maximum) of interpolated samples per bin.

    `samples` along each side of a bin; 0 takes as many as elements of x lie in it, rounded up. Coordinates are
    multiplied by `scale`, and with `half_pixel` moved by half an element. `greatest` takes the maximum.
    """

    height: int = 1
    width: int = 1
    samples: int = 0
    scale: float = 1.0
    half_pixel: bool = True
    greatest: bool = False
    examples = [
        case("f32[2,2,6,7]", _ROIS, np.array([0, 1, 1]), height=2, width=3),
        case("f32[2,1,6,7]", _ROIS, np.array([0, 1, 0]), height=2, width=2, samples=2, scale=0.5, half_pixel=False),
        case("f32[1,1,5,5]", _ROIS, np.array([0, 0, 0]), height=2, width=2, samples=2, greatest=True),
    ]

    def infer(self, x: TensorType, rois: TensorType, batch_indices: TensorType) -> TensorType:
        require(x.rank == 4 and x.dtype.is_float, lambda: f"roi_align does not take {x}")
        require(rois.rank == 2 and rois.shape[1] == 4, lambda: f"roi_align: regions are {rois}, not [count,4]")
        require(batch_indices.rank == 1 and batch_indices.dtype == t.i64,
                lambda: f"roi_align: the batch indices are {batch_indices}")  # fmt: skip
        assume_equal(rois.shape[0], batch_indices.shape[0])
        return x.with_shape((rois.shape[0], x.shape[1], self.height, self.width))

    def reference(self, x: np.ndarray, rois: np.ndarray, batch_indices: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(x)).numpy.type
        y = np.zeros((len(rois), x.shape[1], self.height, self.width), exact)
        for r, (roi, batch) in enumerate(zip(rois.astype(exact), batch_indices)):
            x1, y1, x2, y2 = (v * exact(self.scale) - exact(0.5 if self.half_pixel else 0) for v in roi)
            least = exact(-np.inf if self.half_pixel else 1)
            bins = [(y1, max(y2 - y1, least), self.height), (x1, max(x2 - x1, least), self.width)]
            for ph, pw in np.ndindex(self.height, self.width):
                rows, columns = self._positions(ph, *bins[0]), self._positions(pw, *bins[1])
                count = len(rows) * len(columns)
                within = [_inside(rows, x.shape[2]), _inside(columns, x.shape[3])]
                values = [_corners(image_of(x, batch), v, u) for v in within[0] for u in within[1]]
                if len(values) < count:  # samples outside of the image
                    values.append([np.zeros(x.shape[1])])
                if values and self.greatest:
                    y[r, :, ph, pw] = np.max([np.max(v, axis=0) for v in values], axis=0)
                elif values:
                    y[r, :, ph, pw] = np.sum([np.sum(v, axis=0) for v in values], axis=0) / count
        return y.astype(x.dtype)

    def _positions(self, p: int, start: float, extent: float, bins: int) -> list[float]:
        """Where bin `p` of `bins` is sampled along one axis."""
        size = extent / bins
        count = self.samples or (int(min(np.ceil(size), _MOST_SAMPLES)) if size > 0 else 0)
        with np.errstate(invalid="ignore"):
            return [start + p * size + (k + 0.5) * size / count for k in range(count)]

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, rois: Tensor, batch_indices: Tensor
    ) -> None:
        (y,) = outs
        exact = accumulator(x.dtype)
        with k.loop("parallel", r=rois.shape[0]) as r:
            batch = k.let("batch", batch_indices.at(r))
            corners = [
                k.let(name, cast(rois.at(r, column), exact) * self.scale - (0.5 if self.half_pixel else 0.0), exact)
                for column, name in enumerate(("x1", "y1", "x2", "y2"))
            ]
            bin_h, count_h = self._bins(k, corners[1], corners[3], self.height, "h")
            bin_w, count_w = self._bins(k, corners[0], corners[2], self.width, "w")
            count = k.let("count", apply("max", count_h * count_w, Index(t.i64, 1)))
            with k.loop(c=x.shape[1], ph=self.height, pw=self.width) as (c, ph, pw):
                acc = k.variable("acc", lowest(exact) if self.greatest else 0, exact)
                with k.loop(iy=count_h, ix=count_w) as (iy, ix):
                    v = corners[1] + _along(ph, iy, bin_h, count_h)
                    u = corners[0] + _along(pw, ix, bin_w, count_w)
                    self._sample(k, acc, x, (batch, c), k.let("v", v, exact), k.let("u", u, exact))
                value: Expr = acc / cast(count, exact)
                if self.greatest:
                    value = select(count_h * count_w > 0, acc, 0.0)
                k.store(y, (r, c, ph, pw), cast(value, y.dtype))

    def _bins(self, k: KernelBuilder, start: Expr, end: Expr, bins: int, letter: str) -> tuple[Expr, Expr]:
        """Extent of a bin along one axis, and how many samples it has there."""
        extent = end - start if self.half_pixel else apply("max", end - start, 1.0)
        size = k.let(f"bin_{letter}", extent / float(bins), start.dtype)
        if self.samples:
            return size, Index(t.i64, self.samples)
        count = select(size > 0.0, apply("min", apply("ceil", size), float(_MOST_SAMPLES)), 0.0)
        return size, k.let(f"count_{letter}", cast(count, t.i64))

    def _sample(self, k: KernelBuilder, acc: Var, x: Tensor, plane: tuple[Expr, Expr], v: Expr, u: Expr) -> None:
        """Adds the interpolated sample at (v, u) to `acc`."""
        height, width = x.shape[2:]
        top, below, share_v = _neighbours(k, v, height, acc.dtype, "v")
        left, right, share_u = _neighbours(k, u, width, acc.dtype, "u")
        found = (v >= -1.0) & (v <= _extent(height, acc.dtype)) & (u >= -1.0) & (u <= _extent(width, acc.dtype))
        parts = [
            select(found, cast(x.at(*plane, row, column, outside=0), acc.dtype) * (a * b), 0.0)
            for row, a in ((top, 1.0 - share_v), (below, share_v))
            for column, b in ((left, 1.0 - share_u), (right, share_u))
        ]
        if not self.greatest:
            k.assign(acc, parts[0] + parts[1] + parts[2] + parts[3], "add")
            return
        for part in parts:
            k.assign(acc, part, "max")


def _extent(size: Size, dtype: DType) -> Expr:
    return cast(Index(t.i64, size), dtype)


def _along(p: Expr, k: Expr, size: Expr, count: Expr) -> Expr:
    """Where sample `k` of `count` lies in bin `p`, from the start of the region."""
    return cast(p, size.dtype) * size + (cast(k, size.dtype) + 0.5) * size / cast(count, size.dtype)


def _neighbours(k: KernelBuilder, v: Expr, size: Size, dtype: DType, letter: str) -> tuple[Expr, Expr, Expr]:
    """The elements before and after position `v` along one axis, and the weight of the latter."""
    last = Index(t.i64, size - 1)
    inner = select(v > 0.0, apply("min", v, _extent(size, dtype)), 0.0)
    low = k.let(f"low_{letter}", apply("min", cast(apply("floor", inner), t.i64), last))
    high = k.let(f"high_{letter}", apply("min", low + 1, last))
    share = k.let(f"share_{letter}", select(low >= last, const(0, dtype), inner - cast(low, dtype)), dtype)
    return low, high, share


def _inside(positions: list[float], size: int) -> list[float]:
    """Those that are no more than an element away from what they are in; others are of value 0."""
    return [position for position in positions if -1 <= position <= size]


def _corners(planes: np.ndarray, v: float, u: float) -> list[np.ndarray]:
    """The four weighted elements around position (v, u) of each plane, which is inside of it."""
    height, width = planes.shape[1:]
    pairs = []
    for position, size in ((max(v, 0), height), (max(u, 0), width)):
        low = min(int(position), size - 1)
        share = 0.0 if low >= size - 1 else position - low
        pairs.append(((low, 1 - share), (min(low + 1, size - 1), share)))
    return [planes[:, row, column] * (a * b) for row, a in pairs[0] for column, b in pairs[1]]


@op
class MaxRoiPool(Op):
    """Regions [batch, x1, y1, x2, y2] of x, rounded to whole elements, each the maximum per bin; 0 for an empty one."""

    height: int = 1
    width: int = 1
    scale: float = 1.0
    examples = [
        case("f32[2,2,6,7]", np.array([[0, 0, 0, 4, 5], [1, 2, 2, 2, 2]], np.float32), height=2, width=3),
        case(
            "f32[1,1,6,7]", np.array([[0, 1, 3, 12, 13], [0, 9, 9, 20, 20]], np.float32), height=3, width=2, scale=0.5
        ),
    ]

    def infer(self, x: TensorType, rois: TensorType) -> TensorType:
        require(x.rank == 4 and x.dtype.is_float, lambda: f"max_roi_pool does not take {x}")
        require(rois.rank == 2 and rois.shape[1] == 5, lambda: f"max_roi_pool: regions are {rois}, not [count,5]")
        return x.with_shape((rois.shape[0], x.shape[1], self.height, self.width))

    def reference(self, x: np.ndarray, rois: np.ndarray) -> np.ndarray:
        y = np.zeros((len(rois), x.shape[1], self.height, self.width), x.dtype)
        for r, roi in enumerate(rois):
            x1, y1, x2, y2 = (int(np.floor(v * np.float32(self.scale) + np.float32(0.5))) for v in roi[1:])
            for ph, pw in np.ndindex(self.height, self.width):
                rows = _bin(ph, self.height, y1, y2, x.shape[2])
                columns = _bin(pw, self.width, x1, x2, x.shape[3])
                if rows[0] < rows[1] and columns[0] < columns[1]:
                    y[r, :, ph, pw] = image_of(x, int(roi[0]))[:, slice(*rows), slice(*columns)].max(axis=(1, 2))
        return y

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, rois: Tensor) -> None:
        (y,) = outs
        with k.loop("parallel", r=rois.shape[0]) as r:
            batch = k.let("batch", self._whole(rois.at(r, 0)))
            x1, y1, x2, y2 = (
                k.let(name, self._whole(cast(rois.at(r, column), t.f32) * self.scale + 0.5))
                for column, name in enumerate(("x1", "y1", "x2", "y2"), start=1)
            )
            with k.loop(c=x.shape[1], ph=self.height, pw=self.width) as (c, ph, pw):
                top, rows = self._range(k, ph, self.height, y1, y2, x.shape[2], "h")
                left, columns = self._range(k, pw, self.width, x1, x2, x.shape[3], "w")
                best = k.variable("best", lowest(x.dtype), x.dtype)
                with k.loop(h=rows, w=columns) as (h, w):
                    k.assign(best, x.at(batch, c, top + h, left + w, outside=lowest(x.dtype)), "max")
                k.store(y, (r, c, ph, pw), select((rows > 0) & (columns > 0), best, const(0, x.dtype)))

    def _whole(self, value: Expr) -> Expr:
        """A coordinate as an integer, within what an integer holds."""
        limit = float(1 << 30)
        return cast(select(apply("abs", value) < limit, apply("floor", value), -limit), t.i64)

    def _range(
        self, k: KernelBuilder, p: Expr, bins: int, start: Expr, end: Expr, size: Size, letter: str
    ) -> tuple[Expr, Expr]:
        """First element and number of elements of bin `p` along one axis."""
        extent = apply("max", end - start + 1, Index(t.i64, 1))
        low, high = p * extent // bins + start, (p * extent + extent + (bins - 1)) // bins + start
        low, high = (apply("min", apply("max", v, Index(t.i64, 0)), Index(t.i64, size)) for v in (low, high))
        first = k.let(f"first_{letter}", low)
        return first, k.let(f"count_{letter}", apply("max", high - first, Index(t.i64, 0)))


def _bin(p: int, bins: int, start: int, end: int, size: int) -> tuple[int, int]:
    """First and last element (exclusive) of bin `p` along one axis."""
    extent = max(end - start + 1, 1)
    low, high = p * extent // bins + start, -(-(p + 1) * extent // bins) + start
    return min(max(low, 0), size), min(max(high, 0), size)
