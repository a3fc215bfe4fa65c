"""Resizing and sampling of images: Resize, Upsample, GridSample, AffineGrid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from compiler.onnx.ops.quantized import integer_range
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import choose, count_of, elements_of, number, numbers, scalar, sizes_of, told
from ir import types as t
from ir.build import ArrayBuilder
from ir.dims import Dim, Size, floor
from ir.op import OPS, OpError
from ir.ops.image import cubic_weights

_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Filter:
    """How values between elements are made. `nearest` is one of ONNX's, or "behind": see `_behind`."""

    mode: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Axis:
    """One axis to resize. `scale` is 0 where it is just out / size; `region` is that of tf_crop_and_resize. Scale and
    ends of the region are numbers, or f32 scalars that a run tells."""

    axis: int
    size: Size
    out: Size
    scale: Any
    coordinates: str
    region: tuple[Any, Any]

    @property
    def is_identity(self) -> bool:
        return self.size == self.out and self.scale in (0.0, 1.0) and self.coordinates != "tf_crop_and_resize"

    @property
    def is_known(self) -> bool:
        """Whether all of its numbers are known when compiling."""
        return all(isinstance(number, (int, float)) for number in (self.size, self.out, self.scale, *self.region))

    @property
    def ratio(self) -> float:
        """out / size as the coordinates use it; 0 where only a run tells."""
        return 0.0 if not self.is_known else self.scale or int(self.out) / int(self.size)


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
    regions = _regions(b, roi, len(chosen)) if coordinate_transformation_mode == "tf_crop_and_resize" else None
    along = _axes(x, chosen, outs, factors, coordinate_transformation_mode, regions)
    how = Filter(mode, nearest_mode, float(cubic_coeff_a), bool(exclude_outside), bool(antialias))
    return _resize(b, x, sorted(along, key=lambda a: a.axis), how, float(extrapolation_value))


def _axes(
    x: Any, axes: Sequence[int], outs: Sequence[Size], factors: Sequence[Any], coordinates: str,
    regions: Sequence[tuple[Any, Any]] | None = None,
) -> list[Axis]:  # fmt: skip
    """What to do to each axis."""
    whole = [(0.0, 1.0)] * len(axes)
    rows = zip(axes, outs, factors, regions or whole)
    return [Axis(axis, x.shape[axis], out, factor, coordinates, region) for axis, out, factor, region in rows]


@onnx_op("Resize", since=10)
@onnx_op("Upsample", since=9)
def Resize10(b: Any, x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    """Of elements on both sides, the one before is nearest where an axis grows, and that behind where it shrinks: the
    text leaves it open, its examples and ONNX Runtime have it so."""
    factors = _floats(b, scales)
    if not all(isinstance(factor, float) for factor in factors):
        how = Filter(mode, "behind" if mode == "nearest" else "floor", -0.75, False, False)
        outs, factors = _targets(b, x, list(range(x.rank)), scales, None, "stretch")
        return _resize(b, x, _axes(x, range(x.rank), outs, factors, "asymmetric"), how, 0.0)
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


def _floats(b: Any, value: Any) -> list[Any]:
    """The numbers of a tensor, none where it is omitted: floats, and f32 scalars for those that only a run tells."""
    if value is None or 0 in value.shape:
        return []
    if value.content is None or value.content.dtype == object:
        return [b.cast(number(b, value, n), to=t.f32) for n in range(count_of(value, "scales"))]
    return [float(v) for v in value.content.reshape(-1)]


def _regions(b: Any, roi: Any, count: int) -> list[tuple[Any, Any]]:
    numbers = _floats(b, roi)
    if len(numbers) != 2 * count:
        raise OpError(f"`roi` gives {len(numbers)} numbers; there are {count} axes")
    return list(zip(numbers[:count], numbers[count:]))


def _targets(b: Any, x: Any, axes: list[int], scales: Any, sizes: Any, policy: str) -> tuple[list[Size], list[Any]]:
    """The new size of each axis, and its scale where that is not just new size / old size (else 0)."""
    inner = [x.shape[axis] for axis in axes]
    factors = _floats(b, scales)
    if factors:
        known = [factor for factor in factors if isinstance(factor, float)]
        if len(factors) != len(axes) or any(factor <= 0 for factor in known):
            raise OpError(f"`scales` is {factors}; it must give {len(axes)} positive numbers")
        return [
            _scaled(size, factor) if isinstance(factor, float) else _scaled_at_run_time(b, axis, size, factor)
            for axis, size, factor in zip(axes, inner, factors)
        ], factors
    if sizes is None:
        raise OpError("neither `scales` nor `sizes` is given")
    if count_of(sizes, "sizes") != len(axes):
        raise OpError(f"`sizes` gives {count_of(sizes, 'sizes')} sizes; there are {len(axes)} axes")
    if policy == "stretch":
        return list(sizes_of(b, sizes, "sizes", axes=axes)), [0.0] * len(axes)
    outs = elements_of(b, sizes, "sizes")
    if not all(isinstance(size, int) for size in (*inner, *outs)):
        return _in_proportion(b, axes, inner, outs, policy)
    ratios = [int(out) / int(size) for out, size in zip(outs, inner)]
    chosen = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(chosen * int(size) + 0.5) for size in inner], [chosen] * len(inner)


def _in_proportion(
    b: Any, axes: list[int], inner: list[Size], outs: list[Any], policy: str
) -> tuple[list[Size], list[Any]]:
    """`_targets` where all axes have one scale, which only a run tells."""
    extents = [b.cast(b.dims(size), to=t.f64) for size in inner]
    ratios = [b.cast(scalar(b, out), to=t.f64) / extent for out, extent in zip(outs, extents)]
    chosen = reduce(b.min if policy == "not_larger" else b.max, ratios)
    half = b.const(0.5, t.f64)
    found = [
        told(b, b.cast(b.floor(chosen * extent + half), to=t.i64), b.run_time_size(axis, is_bounded=False))
        for axis, extent in zip(axes, extents)
    ]
    return found, [b.cast(chosen, to=t.f32)] * len(axes)


def _scaled_at_run_time(b: Any, axis: int, size: Size, factor: Any) -> Size:
    """`_scaled` where only a run tells the scale, which must be above 0."""
    wide = b.cast(b.floor(b.cast(b.dims(size), to=t.f32) * factor), to=t.i64)
    return told(b, choose(b, b.greater(factor, 0.0), wide, -1), b.run_time_size(axis, is_bounded=False))


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
    factor = a.out // a.size if isinstance(a.scale, float) else 0
    if not isinstance(factor, int) or factor < 1 or a.size * factor != a.out or a.scale not in (0.0, float(factor)):
        return 0
    if a.coordinates == "asymmetric":
        return factor if how.nearest == "floor" or (how.nearest == "round_prefer_floor" and factor == 2) else 0
    halves = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
    return factor if a.coordinates in halves and how.nearest.startswith("round") else 0


def _resize_axis(b: Any, x: Any, a: Axis, how: Filter, extrapolation: float) -> Any:
    """One axis by a table of elements and weights, computed now where sizes are known, else when the program runs."""
    dtype = t.f64 if x.dtype == t.f64 else t.f32
    known = a.is_known
    numbers = {"scale": a.scale, "start": a.region[0], "end": a.region[1]}
    attributes: dict[str, Any] = {name: number for name, number in numbers.items() if isinstance(number, float)}
    attributes.update(size=a.size, out=a.out, mode=a.coordinates)
    operands = [None if isinstance(number, float) else number for number in numbers.values()]
    builder = ArrayBuilder() if known else b
    if known:
        positions = OPS["resize_coordinates"](**attributes).reference()
    else:
        positions = b.resize_coordinates(*operands, **attributes)
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
            "floor": lambda: b.floor(x), "ceil": lambda: b.ceil(x), "behind": lambda: _behind(b, x, a.scale),
        }[how.nearest]()  # fmt: skip
        return b.reshape(_clamped(b, rounded, a.size), shape=column), None
    base = b.floor(x)
    if how.antialias and not a.is_known:
        return _stretched_taps(b, x, base, a, how)
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


def _behind(b: Any, x: Any, scale: Any) -> Any:
    """The element before each position where the axis grows, the one behind where it shrinks."""
    if isinstance(scale, float):
        return b.ceil(x) if scale < 1 else b.floor(x)
    return b.where(b.less(scale, 1.0), b.ceil(x), b.floor(x))


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
    return offsets, [_weight(b, b.abs((fraction - float(offset)) * ratio), how) for offset in offsets]


def _weight(b: Any, d: Any, how: Filter) -> Any:
    """The weight of an element at a distance of `d`."""
    if how.mode == "linear":
        return b.max(1.0 - d, 0.0)
    coefficient = how.cubic_a
    near = ((coefficient + 2) * d - (coefficient + 3)) * d * d + 1.0
    far = ((coefficient * d - 5 * coefficient) * d + 8 * coefficient) * d - 4 * coefficient
    return b.where(b.less_or_equal(d, 1.0), near, b.where(b.less(d, 2.0), far, 0.0 * d))


def _stretched_taps(b: Any, x: Any, base: Any, a: Axis, how: Filter) -> tuple[Any, Any]:
    """`_taps` where only a run tells by how much the filter is stretched, and so how many taps it has."""
    reach = 1 if how.mode == "linear" else 2
    size, out = (b.cast(b.dims(n), to=t.f64) for n in (a.size, a.out))
    one = b.const(1.0, t.f64)
    ratio = b.cast(a.scale, to=t.f64) if not isinstance(a.scale, float) else b.const(a.scale, t.f64)
    ratio = ratio if a.scale != 0.0 else out / size
    ratio = b.min(b.max(ratio, one / size), one)  # less would give no output
    start = b.cast(b.floor(b.const(-float(reach), t.f64) / ratio), to=t.i64) + 1
    most = 2 * reach * a.size + 2
    taps = told(b, b.min(2 - 2 * start, b.dims(most)), b.run_time_number(f"taps{a.axis}"), most)
    column, row = (a.out, 1), (1, taps)
    offsets = b.reshape(b.cast(b.iota(shape=(taps,)) + start, to=t.f32), shape=row)
    weights = _weight(b, b.abs((b.reshape(x - base, shape=column) - offsets) * b.cast(ratio, to=t.f32)), how)
    places = b.reshape(base, shape=column) + offsets
    if how.exclude_outside:
        weights = b.where(_outside(b, places, a.size), 0.0 * weights, weights)
    return _clamped(b, places, a.size), weights / b.reduce_sum(weights, axes=(1,), keepdims=True)


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
