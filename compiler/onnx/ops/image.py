"""Resizing and sampling of images: Resize, Upsample, GridSample, AffineGrid."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from compiler.onnx.ops.quantized import integer_range
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import count_of, numbers, sizes_of
from ir import types as t
from ir.build import ArrayBuilder
from ir.dims import Dim, Size, floor
from ir.op import OPS, OpError, UnknownValue
from ir.ops.image import cubic_weights

_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Filter:
    """How values between elements are made."""

    mode: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Axis:
    """One axis to resize. `scale` is 0 where it is just out / size; `region` is that of tf_crop_and_resize."""

    axis: int
    size: Size
    out: Size
    scale: float
    coordinates: str
    region: tuple[float, float]

    @property
    def is_identity(self) -> bool:
        return self.size == self.out and self.scale in (0.0, 1.0) and self.coordinates != "tf_crop_and_resize"

    @property
    def ratio(self) -> float:
        """out / size as the coordinates use it. Raises OpError where it is not known when compiling."""
        if self.scale:
            return self.scale
        if isinstance(self.size, Dim) or isinstance(self.out, Dim):
            raise OpError(f"antialiasing from size {self.size} to {self.out} needs both known when compiling")
        return self.out / self.size


@onnx_op("Resize", since=11)
def Resize(
    b: Any,
    x: Any,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] = (),
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Any:
    if mode not in ("nearest", "linear", "cubic") or nearest_mode not in _NEAREST:
        raise OpError(f"mode '{mode}' with nearest_mode '{nearest_mode}' is unknown")
    chosen = [axis % x.rank for axis in axes] if axes else list(range(x.rank))
    outs, factors = _targets(b, x, chosen, scales, sizes, keep_aspect_ratio_policy)
    regions = _regions(roi, len(chosen)) if coordinate_transformation_mode == "tf_crop_and_resize" else None
    along = [
        Axis(
            axis,
            x.shape[axis],
            out,
            factor,
            coordinate_transformation_mode,
            regions[position] if regions else (0.0, 1.0),
        )
        for position, (axis, out, factor) in enumerate(zip(chosen, outs, factors))
    ]
    how = Filter(mode, nearest_mode, float(cubic_coeff_a), bool(exclude_outside), bool(antialias))
    return _resize(b, x, sorted(along, key=lambda a: a.axis), how, float(extrapolation_value))


@onnx_op("Resize", since=10)
@onnx_op("Upsample", since=9)
def Resize10(b: Any, x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    """Of elements on both sides, the one before is nearest where an axis grows, and that behind where it shrinks: the
    text leaves it open, its examples and ONNX Runtime have it so."""
    factors = _floats(scales, "scales")
    for shrinks, nearest in ((True, "ceil"), (False, "floor")):
        part = np.array([factor if (factor < 1) == shrinks else 1.0 for factor in factors], np.float32)
        x = Resize(b, x, None, b.const(part), coordinate_transformation_mode="asymmetric", mode=mode,
                   nearest_mode=nearest)  # fmt: skip
    return x


@onnx_op("Upsample", since=7)
def Upsample7(b: Any, x: Any, *, scales: tuple[float, ...], mode: str = "nearest") -> Any:
    return Resize10(b, x, b.const(np.array(scales, np.float32)), mode=mode)


@onnx_op("Upsample", since=1)
def Upsample1(b: Any, x: Any, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Any:
    return Upsample7(b, x, scales=(1.0, 1.0, height_scale, width_scale), mode="linear" if mode == "bilinear" else mode)


def _floats(value: Any, what: str) -> list[float]:
    """The numbers of a known tensor; none where it is omitted."""
    if value is None:
        return []
    if value.content is None or value.content.dtype == object:
        raise UnknownValue(f"`{what}` is computed at run time; it must be known when compiling", value)
    return [float(v) for v in value.content.reshape(-1)]


def _regions(roi: Any, count: int) -> list[tuple[float, float]]:
    numbers = _floats(roi, "roi")
    if len(numbers) != 2 * count:
        raise OpError(f"`roi` gives {len(numbers)} numbers; there are {count} axes")
    return list(zip(numbers[:count], numbers[count:]))


def _targets(b: Any, x: Any, axes: list[int], scales: Any, sizes: Any, policy: str) -> tuple[list[Size], list[float]]:
    """The new size of each axis, and its scale where that is not just new size / old size (else 0)."""
    inner = [x.shape[axis] for axis in axes]
    factors = _floats(scales, "scales")
    if factors:
        if len(factors) != len(axes) or any(factor <= 0 for factor in factors):
            raise OpError(f"`scales` is {factors}; it must give {len(axes)} positive numbers")
        return [_scaled(size, factor) for size, factor in zip(inner, factors)], factors
    if sizes is None:
        raise OpError("neither `scales` nor `sizes` is given")
    outs = list(b.sizes(sizes, "sizes"))
    if len(outs) != len(axes):
        raise OpError(f"`sizes` gives {len(outs)} sizes; there are {len(axes)} axes")
    if policy == "stretch":
        return outs, [0.0] * len(outs)
    if any(isinstance(size, Dim) for size in (*inner, *outs)):
        raise OpError(f"keep_aspect_ratio_policy '{policy}' needs sizes known when compiling")
    ratios = [int(out) / int(size) for out, size in zip(outs, inner)]
    chosen = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(chosen * int(size) + 0.5) for size in inner], [chosen] * len(inner)


def _scaled(size: Size, factor: float) -> Size:
    """floor(size * factor), in f32 as the shape rule of ONNX computes it; exact for symbolic sizes."""
    if not isinstance(size, Dim):
        return int(np.floor(np.float32(size) * np.float32(factor)))
    simple = Fraction(factor).limit_denominator(1000)
    exact = simple if np.float32(float(simple)) == np.float32(factor) else Fraction(factor)
    return floor(size * exact)


def _resize(b: Any, x: Any, along: list[Axis], how: Filter, extrapolation: float) -> Any:
    factors = [1] * x.rank
    rest = []
    for a in along:
        if a.is_identity:
            continue
        factor = _whole_factor(a, how)
        if factor:
            factors[a.axis] = factor
        else:
            rest.append(a)
    if any(factor != 1 for factor in factors):
        x = b.repeat(x, factors=tuple(factors))
    exact = x
    if len(rest) > 1 and how.mode != "nearest" and (x.dtype.is_integer or x.dtype.bits < 32):
        exact = b.cast(x, to=t.f64 if x.dtype.bits > 16 else t.f32)  # rounded once, after the last axis
    for a in rest:
        exact = _resize_axis(b, exact, a, how, extrapolation)
    if exact.dtype == x.dtype:
        return exact
    if x.dtype.is_integer:
        low, high = integer_range(x.dtype)
        exact = b.clip(b.round(exact), b.const(low, exact.dtype), b.const(high, exact.dtype))
    return b.cast(exact, to=x.dtype)


def _whole_factor(a: Axis, how: Filter) -> int:
    """By how much nearest resizing just repeats every element of an axis; 0 where it does something else."""
    if how.mode != "nearest" or a.size == 0:
        return 0
    factor = a.out // a.size
    if not isinstance(factor, int) or factor < 1 or a.size * factor != a.out or a.scale not in (0.0, float(factor)):
        return 0
    if a.coordinates == "asymmetric":
        return factor if how.nearest == "floor" or (how.nearest == "round_prefer_floor" and factor == 2) else 0
    halves = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
    return factor if a.coordinates in halves and how.nearest.startswith("round") else 0


def _resize_axis(b: Any, x: Any, a: Axis, how: Filter, extrapolation: float) -> Any:
    """One axis by a table of elements and weights, computed now where sizes are known, else when the program runs."""
    dtype = t.f64 if x.dtype == t.f64 else t.f32
    known = not isinstance(a.size, Dim) and not isinstance(a.out, Dim)
    start, end = a.region
    attributes = {"size": a.size, "out": a.out, "mode": a.coordinates, "scale": a.scale, "start": start, "end": end}
    builder = ArrayBuilder() if known else b
    positions = OPS["resize_coordinates"](**attributes).reference() if known else b.resize_coordinates(**attributes)
    index, weight = _taps(builder, positions, a, how)
    weight = None if weight is None else builder.cast(weight, to=dtype)
    if known:
        index, weight = b.const(index), None if weight is None else b.const(weight)
    y = b.resample(x, index, weight, axis=a.axis)
    if a.coordinates != "tf_crop_and_resize":
        return y
    outside = _outside(builder, positions, a.size)
    outside = b.const(outside) if known else outside
    mask = b.reshape(outside, shape=(a.out, *[1] * (x.rank - a.axis - 1)))
    if x.dtype.is_integer:
        low, high = integer_range(x.dtype)
        extrapolation = min(max(round(extrapolation), low), high)
    return b.where(mask, b.const(extrapolation, x.dtype), y)


def _taps(b: Any, x: Any, a: Axis, how: Filter) -> tuple[Any, Any]:
    """The elements [out, taps] that each position `x` reads, clamped to the axis, and their weights (None: one tap)."""
    column = (a.out, 1)
    if how.mode == "nearest":
        rounded = {
            "round_prefer_floor": lambda: b.ceil(x - 0.5), "round_prefer_ceil": lambda: b.floor(x + 0.5),
            "floor": lambda: b.floor(x), "ceil": lambda: b.ceil(x),
        }[how.nearest]()  # fmt: skip
        return b.reshape(_clamped(b, rounded, a.size), shape=column), None
    base = b.floor(x)
    if how.antialias and a.ratio < 1:
        offsets, weights = _antialiased(b, x - base, a.ratio, how)
    elif how.mode == "linear":
        offsets, weights = [0, 1], [1.0 - (x - base), x - base]
    else:
        offsets, weights = [-1, 0, 1, 2], cubic_weights(x - base, how.cubic_a)
    places = [base + float(offset) for offset in offsets]
    if how.exclude_outside:
        weights = [b.where(_outside(b, p, a.size), 0.0 * w, w) for p, w in zip(places, weights)]
    if how.exclude_outside or how.antialias:
        total = sum(weights[1:], weights[0])
        weights = [w / total for w in weights]
    index = b.concat(*(b.reshape(_clamped(b, p, a.size), shape=column) for p in places), axis=1)
    return index, b.concat(*(b.reshape(w, shape=column) for w in weights), axis=1)


def _outside(b: Any, place: Any, size: Size) -> Any:
    """Whether places lie outside of an axis."""
    last = b.cast(b.dims(size - 1), to=t.f32) if isinstance(size, Dim) else float(size - 1)
    return b.or_(b.less(place, 0.0), b.greater(place, last))


def _clamped(b: Any, place: Any, size: Size) -> Any:
    return b.min(b.max(b.cast(place, to=t.i64), 0), size - 1)


def _antialiased(b: Any, fraction: Any, ratio: float, how: Filter) -> tuple[list[int], list[Any]]:
    """Taps of the filter stretched by 1 / ratio, for positions `fraction` beyond tap 0; the sum of weights is not 1."""
    reach = 1 if how.mode == "linear" else 2
    start = int(np.floor(-reach / ratio)) + 1
    offsets = list(range(start, 2 - start))
    weights = []
    for offset in offsets:
        d = b.abs((fraction - float(offset)) * ratio)
        if how.mode == "linear":
            weights.append(b.max(1.0 - d, 0.0))
            continue
        coefficient = how.cubic_a
        near = ((coefficient + 2) * d - (coefficient + 3)) * d * d + 1.0
        far = ((coefficient * d - 5 * coefficient) * d + 8 * coefficient) * d - 4 * coefficient
        weights.append(b.where(b.less_or_equal(d, 1.0), near, b.where(b.less(d, 2.0), far, 0.0 * d)))
    return offsets, weights


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


@onnx_op("GridSample", since=16)
def GridSample(
    b: Any, x: Any, grid: Any, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Any:
    return b.grid_sample(
        x, grid, mode=_GRID_MODES.get(mode, mode), padding=padding_mode, align_corners=bool(align_corners)
    )


@onnx_op("AffineGrid", since=20)
def AffineGrid(b: Any, theta: Any, size: Any, *, align_corners: int = 0) -> Any:
    """theta[n, d, d + 1] applied to the positions of an image [n, c, ...] of `size`: [n, ..., d], last axis first."""
    rank = count_of(size, "size") - 2
    if rank not in (2, 3):
        raise OpError(f"`size` gives {rank + 2} sizes; it must give 4 or 5")
    whole = numbers(b, size)
    spatial = sizes_of(b, b.slice(whole, starts=(2,), shape=(rank,), steps=(1,)), "size", first=1)
    columns = []
    for axis in reversed(range(rank)):
        place = b.iota(shape=(*spatial, 1), axis=axis, dtype=theta.dtype)
        extent = b.cast(b.dims(spatial[axis]), to=theta.dtype)
        # The one position of an axis of size 1 lies at -1 where corners are aligned.
        scaled = place * 2.0 / b.max(extent - 1.0, 1.0) if align_corners else (place * 2.0 + 1.0) / extent
        columns.append(scaled - 1.0)
    columns.append(b.full(shape=(*spatial, 1), value=1.0, dtype=theta.dtype))
    count: Size = 1
    for extent in spatial:
        count = count * extent
    positions = b.reshape(b.concat(*columns, axis=rank), shape=(1, count, rank + 1))
    moved = b.matmul(positions, b.transpose(theta, perm=(0, 2, 1)))
    return b.reshape(moved, shape=(theta.shape[0], *spatial, rank))
