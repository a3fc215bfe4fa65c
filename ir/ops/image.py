"""Resampling of images: repetition, interpolation along an axis by a table, and sampling at a grid of positions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, minimum
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const, highest, lowest, select, sum_over
from ir.expr import Expr, Index
from ir.op import Op, assume_equal, case, ints, op, require, require_at_most
from ir.ops.reduction import accumulator
from ir.types import DType, TensorType, dtype_of

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
"""How Resize maps an output position to a source position, by the names of ONNX."""


@op
class Repeat(Op):
    """Every element `factors[a]` times in a row along each axis a (nearest-neighbour upsampling by whole factors)."""

    factors: ints
    movement = True
    symbolic = True
    index_names = "n c oh ow"
    examples = [case("f32[1,2,2,3]", factors=(1, 1, 2, 3)), case("i64[3]", factors=(2,))]

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.factors) == x.rank and all(f >= 1 for f in self.factors),
                lambda: f"repeat: factors {list(self.factors)} do not fit {x}")  # fmt: skip
        return x.with_shape(size * factor for size, factor in zip(x.shape, self.factors))

    def reference(self, x: np.ndarray) -> np.ndarray:
        for axis, factor in enumerate(self.factors):
            x = np.repeat(x, factor, axis)
        return x

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return x.at(*(p // factor for p, factor in zip(i, self.factors)))


@op
class ResizeCoordinates(Op):
    """The source position of each of `out` positions, when an axis of `size` is resized; f32, not clamped.

    `mode` is one of COORDINATES. `scale` is out / size, or where it is not 0, that number: then `out` is a rounded
    size * scale. `start` and `end` are the region of tf_crop_and_resize. As in the ONNX test suite, align_corners maps
    the last position of size * scale, not of `out`, to the last element. Operands, f32 scalars, stand for the
    attributes of their names.
    """

    size: Size
    out: Size
    mode: str = "half_pixel"
    scale: float = 0.0
    start: float = 0.0
    end: float = 1.0
    examples = [
        *(case(size=4, out=7, mode=mode) for mode in COORDINATES), case(size=4, out=2, mode="align_corners", scale=0.6),
        case(size=4, out=2, mode="half_pixel_symmetric", scale=0.6), case(size=4, out=1, mode="pytorch_half_pixel"),
        case(size=4, out=3, mode="tf_crop_and_resize", start=0.4, end=1.2), case(size=1, out=1, mode="align_corners"),
        *(case(np.array(0.6, np.float32), size=4, out=2, mode=mode) for mode in COORDINATES),
        case(None, *np.array([0.4, 1.2], np.float32), size=4, out=3, mode="tf_crop_and_resize"),
    ]  # fmt: skip

    def infer(
        self, scale: TensorType | None = None, start: TensorType | None = None, end: TensorType | None = None
    ) -> TensorType:
        require(self.mode in COORDINATES, lambda: f"resize: there is no coordinate mode '{self.mode}'")
        given = [v for v in (scale, start, end) if v is not None]
        require(all(v == TensorType(t.f32, ()) for v in given), "resize: scale, start and end must be f32[]")
        return TensorType(t.f32, (self.out,))

    def reference(
        self, scale: np.ndarray | None = None, start: np.ndarray | None = None, end: np.ndarray | None = None
    ) -> np.ndarray:
        one = np.float32
        i, size, out = np.arange(int(self.out), dtype=np.float32), one(self.size), one(self.out)
        given = scale is not None or bool(self.scale)
        factor = one(self.scale if scale is None else scale) if given else out / size
        length = factor * size if given else out
        half, first, last = one(0.5), one(self.start if start is None else start), one(self.end if end is None else end)
        match self.mode:
            case "asymmetric":
                return i / factor
            case "tf_half_pixel_for_nn":
                return (i + half) / factor
            case "align_corners":
                return i * (size - 1) / (length - 1) if length != 1 else i * 0
            case "tf_crop_and_resize" if out == 1:
                return i * 0 + half * (first + last) * (size - 1)
            case "tf_crop_and_resize":
                return first * (size - 1) + i * ((last - first) * (size - 1) / (out - 1))
            case "pytorch_half_pixel" if out == 1:
                return i * 0
            case "half_pixel_symmetric":
                return size / 2 * (1 - out / length) + (i + half) / factor - half
        return (i + half) / factor - half

    def element(
        self, i: tuple[Expr, ...], scale_: Tensor | None = None, start: Tensor | None = None, end: Tensor | None = None
    ) -> Expr:
        p, size, out = (cast(value, t.f32) for value in (i[0], Index(t.i64, self.size), Index(t.i64, self.out)))
        if scale_ is None:
            scale = const(self.scale, t.f32) if self.scale else out / size
            length = size * self.scale if self.scale else out
        else:
            scale, length = scale_.at(), size * scale_.at()
        if start is not None and end is not None and self.mode == "tf_crop_and_resize":
            step = (size - 1.0) * (end.at() - start.at()) / (out - 1.0)
            middle = (size - 1.0) * (0.5 * (start.at() + end.at()))
            return select(out.equals(1.0), middle, (size - 1.0) * start.at() + p * step)
        half_pixel = (p + 0.5) / scale - 0.5
        match self.mode:
            case "asymmetric":
                return p / scale
            case "tf_half_pixel_for_nn":
                return (p + 0.5) / scale
            case "align_corners":
                return select(length.equals(1.0), 0.0, p * (size - 1.0) / (length - 1.0))
            case "tf_crop_and_resize":
                step = (size - 1.0) * (self.end - self.start) / (out - 1.0)
                inner = (size - 1.0) * self.start + p * step
                return select(out.equals(1.0), (size - 1.0) * (0.5 * (self.start + self.end)), inner)
            case "pytorch_half_pixel":
                return select(out > 1.0, half_pixel, 0.0)
            case "half_pixel_symmetric":
                return size / 2.0 * (1.0 - out / length) + (p + 0.5) / scale - 0.5
        return half_pixel


@op
class Resample(Op):
    """Along `axis`, output o is the sum over taps t of x[..., index[o, t], ...] * weight[o, t].

    `index` must lie within the axis. Without weights there is one tap, which is taken as it is. Integers are rounded
    to even and saturate.
    """

    axis: int
    index_names = "n c oh ow"
    examples = [
        case("f32[1,2,3,2]", np.array([[0, 1], [1, 2], [2, 2], [0, 2]]), "f32[4,2]", axis=2),
        case("f16[3,2]", np.array([[2], [0]]), None, axis=0),
        case("u8[1,4]", np.array([[0, 1, 2, 3]] * 3), np.full((3, 4), 0.4, np.float32), axis=1),
    ]

    def infer(self, x: TensorType, index: TensorType, weight: TensorType | None = None) -> TensorType:
        require(0 <= self.axis < x.rank, lambda: f"resample: {x} has no axis {self.axis}")
        require(index.dtype == t.i64 and index.rank == 2, lambda: f"resample: the index table is {index}")
        if weight is None:
            require(index.shape[1] == 1, "resample: several taps need weights")
        else:
            require(weight.shape == index.shape and weight.dtype == accumulator(weight.dtype),
                    lambda: f"resample: weights {weight} do not fit indices {index}")  # fmt: skip
        require_at_most(f"resample of axis {self.axis} of {x}", minimum(index.shape[0], 1), x.shape[self.axis])
        return x.with_shape(index.shape[0] if a == self.axis else size for a, size in enumerate(x.shape))

    def reference(self, x: np.ndarray, index: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        if weight is None:
            return np.take(x, index[:, 0], self.axis)
        taps = np.take(x, index, self.axis).astype(weight.dtype)
        shape = (*weight.shape, *[1] * (x.ndim - self.axis - 1))
        y = (taps * weight.reshape(shape)).sum(self.axis + 1, dtype=weight.dtype)
        dtype = dtype_of(x)
        return (np.clip(np.round(y), lowest(dtype), highest(dtype)) if dtype.is_integer else y).astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor, index: Tensor, weight: Tensor | None = None) -> Expr:
        o = i[self.axis]

        def tap(k: Expr | int) -> Expr:
            return x.at(*i[: self.axis], index.at(o, k), *i[self.axis + 1 :])

        if weight is None:
            return tap(0)
        if index.shape[1] == 2:
            y = cast(tap(0), weight.dtype) * weight.at(o, 0) + cast(tap(1), weight.dtype) * weight.at(o, 1)
        else:
            y = sum_over(index.shape[1:], lambda k: cast(tap(k), weight.dtype) * weight.at(o, k))
        return cast(saturated(y, x.dtype), x.dtype)


def saturated(value: Expr, dtype: DType) -> Expr:
    """`value` rounded and clamped so that it fits the integer type `dtype`; as it is for floats."""
    if not dtype.is_integer:
        return value
    return apply("min", apply("max", apply("round", value), float(lowest(dtype))), float(highest(dtype)))


@op
class GridSample(Op):
    """x[n, c, ...] sampled at positions that `grid[n, ..., axis]` gives, from -1 to 1, the last spatial axis first.

    `mode` is nearest, linear or cubic; `padding` (zeros, border, reflection) says what lies outside; -1 and 1 are the
    centres of the outermost elements with `align_corners`, else their outer edges.
    """

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False
    examples = [
        *(case("f32[1,2,4,5]", "f32[1,3,2,2]", mode=mode, padding=padding, align_corners=corners)
          for mode in ("nearest", "linear", "cubic") for padding, corners in
          (("zeros", False), ("border", True), ("reflection", False), ("reflection", True))),
        case("f32[1,1,2,3,4]", "f32[1,2,2,2,3]"),
    ]  # fmt: skip

    def infer(self, x: TensorType, grid: TensorType) -> TensorType:
        require(self.mode in ("nearest", "linear", "cubic"), lambda: f"grid_sample: there is no mode '{self.mode}'")
        require(self.padding in ("zeros", "border", "reflection"),
                lambda: f"grid_sample: there is no padding '{self.padding}'")  # fmt: skip
        require(x.rank >= 3 and grid.rank == x.rank and grid.shape[-1] == x.rank - 2,
                lambda: f"grid_sample: the grid {grid} does not fit {x}")  # fmt: skip
        require(grid.dtype.is_float, lambda: f"grid_sample: the grid is {grid.dtype}")
        assume_equal(x.shape[0], grid.shape[0])
        return x.with_shape((*x.shape[:2], *grid.shape[1:-1]))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Taps along one axis, counted from the element at or before the position."""
        return {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[self.mode]

    def reference(self, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(grid)).numpy
        axes = [self._axis(grid[..., -1 - a].astype(exact), size) for a, size in enumerate(x.shape[2:])]
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * (grid.ndim - 2))
        complex_or_not = x.dtype if x.dtype.kind == "c" else np.float32
        y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), np.result_type(exact, complex_or_not))
        planes = np.moveaxis(x, 1, -1)
        for taps in itertools.product(*axes):
            weight, inside, at = 1, True, []
            for position, share, size in zip(*zip(*taps), x.shape[2:]):
                weight, inside = weight * share, inside & (position >= 0) & (position < size)
                at.append(np.clip(position, 0, size - 1))
            y += np.where(np.asarray(inside)[..., None], planes[(batch, *at)], 0) * np.asarray(weight)[..., None]
        y = np.moveaxis(y, -1, 1)
        dtype = dtype_of(x)
        return (np.clip(np.round(y), lowest(dtype), highest(dtype)) if dtype.is_integer else y).astype(x.dtype)

    def _axis(self, g: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Element and weight of each tap along one axis, for normalized positions `g`."""
        p = (g + 1) / 2 * (size - 1) if self.align_corners else ((g + 1) * size - 1) / 2
        p = np.round(p) if self.mode == "nearest" else p
        low, high = (0.0, size - 1.0) if self.align_corners else (-0.5, size - 0.5)
        if self.padding == "reflection":
            p = _reflected(p, low, high)
        p = np.where(np.abs(p) < 2**30, p, -(2.0**30)).astype(g.dtype)
        base = np.floor(p)
        taps = []
        for offset, weight in zip(self.offsets, _weights(self.mode, p - base)):
            at = base + offset
            if self.padding == "reflection":
                at = _reflected(at, low, high)
            at = np.trunc(at).astype(np.int64)
            taps.append((at if self.padding == "zeros" else np.clip(at, 0, size - 1), weight))
        return taps

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, grid: Tensor) -> None:
        (y,) = outs
        names = ("od", "oh", "ow")[5 - x.rank :] if x.rank <= 5 else tuple(f"o{a}" for a in range(x.rank - 2))
        with k.loop("parallel", **{"n": x.shape[0], **dict(zip(names, y.shape[2:]))}) as (n, *position):  # type: ignore[arg-type]
            axes = [self._taps(k, grid.at(n, *position, x.rank - 3 - a), size) for a, size in enumerate(x.shape[2:])]
            with k.loop(c=x.shape[1]) as c:
                acc = k.variable("acc", 0, axes[0][0][1].dtype)
                for taps in itertools.product(*axes):
                    value = cast(x.at(n, c, *(at for at, _ in taps), outside=0), acc.dtype)
                    for _, weight in taps:
                        value = value * weight
                    k.assign(acc, value, "add")
                k.store(y, (n, c, *position), cast(saturated(acc, y.dtype), y.dtype))

    def _taps(self, k: KernelBuilder, g: Expr, size: Size) -> list[tuple[Expr, Expr]]:
        """`_axis` as kernel statements."""
        dtype = accumulator(g.dtype)
        g, extent = cast(g, dtype), cast(Index(t.i64, size), dtype)
        p = (g + 1.0) / 2.0 * (extent - 1.0) if self.align_corners else ((g + 1.0) * extent - 1.0) / 2.0
        p = k.let("p", apply("round", p) if self.mode == "nearest" else p, dtype)
        low, high = (extent * 0.0, extent - 1.0) if self.align_corners else (const(-0.5, dtype), extent - 0.5)
        if self.padding == "reflection":
            p = k.let("p", _reflect(p, low, high), dtype)
        p = k.let("p", select(apply("abs", p) < 2.0**30, p, -(2.0**30)), dtype)
        base = k.let("base", apply("floor", p), dtype)
        fraction = p - base if self.mode == "nearest" else k.let("fraction", p - base, dtype)
        taps: list[tuple[Expr, Expr]] = []
        for offset, weight in zip(self.offsets, _weights(self.mode, fraction)):
            at = base + float(offset)
            if self.padding == "reflection":
                at = _reflect(at, low, high)
            place = cast(apply("trunc", at), t.i64)
            if self.padding != "zeros":
                place = apply("min", apply("max", place, Index(t.i64, 0)), Index(t.i64, size - 1))
            share = k.let("weight", weight, dtype) if isinstance(weight, Expr) else const(weight, dtype)
            taps.append((k.let("at", place), share))
        return taps


def _weights(mode: str, f: Any) -> list[Any]:
    """Weights of the taps at `GridSample.offsets` for a position `f` beyond tap 0; for arrays or expressions."""
    if mode == "nearest":
        return [1.0]
    return [1.0 - f, f] if mode == "linear" else cubic_weights(f, -0.75)


def cubic_weights(f: Any, a: float) -> list[Any]:
    """Weights of taps -1, 0, 1, 2 for a position `f` beyond tap 0 (Keys 1981, equation 4, with coefficient `a`)."""

    def near(d: Any) -> Any:
        return (d * (a + 2) - (a + 3)) * d * d + 1.0

    def far(d: Any) -> Any:
        return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(f + 1.0), near(f), near(1.0 - f), far(2.0 - f)]


def _reflected(p: np.ndarray, low: float, high: float) -> np.ndarray:
    """Positions mirrored at `low` and `high` until they lie between."""
    span = high - low
    if span <= 0:
        return np.full_like(p, low)
    distance = np.fmod(np.abs(p - low), 2 * span)
    return (low + np.minimum(distance, 2 * span - distance)).astype(p.dtype)


def _reflect(p: Expr, low: Expr, high: Expr) -> Expr:
    """`_reflected` as an expression."""
    span = high - low
    distance = apply("fmod", apply("abs", p - low), span * 2.0)
    return select(span > 0.0, low + apply("min", distance, span * 2.0 - distance), low)
