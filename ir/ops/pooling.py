"""Pools over windows of the spatial axes of x[n, c, ...], and the inverse of max pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, ceil_div, minimum
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const, inside, lowest, max_over, sum_over
from ir.expr import Expr, Index
from ir.op import Op, assume_equal, case, ints, op, require, sizes
from ir.ops.contraction import named, tap_names
from ir.ops.reduction import accumulator, wide
from ir.types import TensorType, dtype_of


@dataclass(frozen=True, repr=False)
class Pool(Op):
    """Base of pools. `pad` gives the padding before each spatial axis, then that after each.

    With `ceil`, a last window may reach beyond the padding, as long as it starts within the tensor or the padding
    before it.
    """

    window: ints = ()
    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    ceil: bool = False
    index_names = "n c oh ow"

    def infer(self, x: TensorType) -> TensorType:
        spatial = x.rank - 2
        require(spatial >= 1, lambda: f"{self.name}: input is {x}; it needs at least 3 axes")
        require(len(self.window) == len(self.stride) == len(self.dilation) == spatial and len(self.pad) == 2 * spatial,
                f"{self.name}: window, stride and dilation must give a number per spatial axis, pad two")  # fmt: skip
        return x.with_shape((*x.shape[:2], *(self.windows(a, size) for a, size in enumerate(x.shape[2:]))))

    def windows(self, axis: int, size: Size) -> Size:
        """How many windows there are along spatial axis `axis`."""
        before, after = self.pad[axis], self.pad[len(self.window) + axis]
        rest = size + before + after - (self.window[axis] - 1) * self.dilation[axis] - 1
        if not self.ceil:
            return rest // self.stride[axis] + 1
        return minimum(ceil_div(rest, self.stride[axis]) + 1, ceil_div(size + before, self.stride[axis]))

    def taps(self, x: np.ndarray, fill: Any) -> Iterator[np.ndarray]:
        """For every tap of the window, the array of what it meets in each window; `fill` where that is padding."""
        out = [int(self.windows(a, size)) for a, size in enumerate(x.shape[2:])]
        reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, self.stride, self.window, self.dilation)]
        before = [int(p) for p in self.pad[: len(out)]]
        after = [max(0, r - b - n) for r, b, n in zip(reach, before, x.shape[2:])]
        padded = np.pad(x, [(0, 0), (0, 0), *zip(before, after)], constant_values=fill)
        for tap in np.ndindex(*self.window):
            starts = [k * d for k, d in zip(tap, self.dilation)]
            at = [slice(b, b + (o - 1) * s + 1, s) for b, o, s in zip(starts, out, self.stride)]
            yield padded[(slice(None), slice(None), *at)]

    def meet(self, i: tuple[Expr, ...], x: Tensor, taps: tuple[Expr, ...], outside: Any) -> Expr:
        """The element of `x` that a tap meets in the window of output index `i`."""
        n, c, *position = i
        windows = zip(position, self.stride, taps, self.dilation, self.pad)
        return x.at(n, c, *(p * s + k * d - before for p, s, k, d, before in windows), outside=outside)


_GEOMETRIES: list[dict[str, Any]] = [
    {"window": (3, 3), "stride": (2, 2), "pad": (1, 1, 1, 1), "dilation": (1, 1)},
    {"window": (3, 2), "stride": (2, 3), "pad": (1, 0, 0, 1), "dilation": (2, 1), "ceil": True},
]
_SHAPES = ["f32[1,2,7,8]", "f32[2,1,8,9]"]


def _cases(**more: Any) -> list[Any]:
    return [case(shape, **geometry, **more) for shape, geometry in zip(_SHAPES, _GEOMETRIES)]


@op
class MaxPool(Pool):
    """The greatest element of each window; padding never is."""

    examples = [
        *_cases(), case("i8[1,1,5]", window=(2,), stride=(2,), pad=(0, 1), dilation=(1,)),
        case("f32[1,1,3,4,3]", window=(2,) * 3, stride=(1,) * 3, pad=(0,) * 6, dilation=(1,) * 3),
    ]  # fmt: skip

    def reference(self, x: np.ndarray) -> np.ndarray:
        taps = list(self.taps(x, x.dtype.type(lowest(dtype_of(x)))))
        return np.maximum.reduce(taps)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        least = lowest(x.dtype)
        body = named(lambda *taps: self.meet(i, x, taps, least), tap_names(len(self.window)))
        return max_over(self.window, body)


@op
class MaxPoolIndices(Pool):
    """Where in x the first greatest element of each window is: its place in x[n, c, ...] in row-major order.

    With `column_major`, the spatial axes count in the opposite order. -1 for a window of padding only.
    """

    column_major: bool = False
    examples = [*_cases(), *_cases(column_major=True)]

    def infer(self, x: TensorType) -> TensorType:
        return super().infer(x).with_dtype(t.i64)

    def reference(self, x: np.ndarray) -> np.ndarray:
        spatial = x.shape[2:]
        places = np.arange(math.prod(spatial)).reshape(spatial[::-1] if self.column_major else spatial)
        places = places.T if self.column_major else places
        planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *([1] * len(spatial)))
        where = planes * math.prod(spatial) + places
        values, found = None, None
        for value, place in zip(self.taps(x, x.dtype.type(lowest(dtype_of(x)))), self.taps(where, -1)):
            if values is None or found is None:
                values, found = value, place
                continue
            better = (place >= 0) & ((value > values) | (found < 0) | (np.isnan(value) & ~np.isnan(values)))
            values, found = np.where(better, value, values), np.where(better, place, found)
        return np.asarray(found, dtype=np.int64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        (y,) = outs
        names = tap_names(x.rank - 2)
        positions = [name.replace("k", "o") for name in names]
        with k.loop("parallel", **_extents(("n", "c", *positions), y.shape)) as (n, c, *position):
            best = k.variable("best", lowest(x.dtype), x.dtype)
            where = k.variable("where", Index(t.i64, -1), t.i64)
            with k.loop(**_extents(names, self.window)) as found:
                taps = found if isinstance(found, tuple) else (found,)
                windows = zip(position, self.stride, taps, self.dilation, self.pad)
                at = [p * s + tap * d - before for p, s, tap, d, before in windows]
                value = x.at(n, c, *at, outside=lowest(x.dtype))
                better = (value > best) | (where < 0)
                if x.dtype.is_float:
                    better = better | (apply("isnan", value) & apply("not", apply("isnan", best)))
                within = inside(at, x.shape[2:])
                with k.when(better if isinstance(within, bool) else within & better):
                    k.assign(where, self.place(x, n, c, at))
                    k.assign(best, value)
            k.store(y, (n, c, *position), where)

    def place(self, x: Tensor, n: Expr, c: Expr, at: list[Expr]) -> Expr:
        """The number of an element, as `column_major` counts."""
        place = n * x.shape[1] + c
        for size in x.shape[2:]:
            place = place * size
        scale: Size = 1
        pairs = list(zip(at, x.shape[2:]))
        for position, size in pairs if self.column_major else reversed(pairs):
            place = place + position * scale
            scale = scale * size
        return place


@op
class AveragePool(Pool):
    """The mean of each window: of what lies in the tensor, or with `include_pad` also of the padding, as zeros."""

    include_pad: bool = False
    examples = [*_cases(), *_cases(include_pad=True)]

    def reference(self, x: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(x)).numpy
        total = sum(self.taps(x.astype(exact, copy=False), 0))
        counted = np.ones((1, 1, *x.shape[2:]), exact)
        if not self.include_pad:
            count = sum(self.taps(counted, 0))
        else:
            spatial = x.ndim - 2
            pads = [(int(self.pad[a]), int(self.pad[spatial + a])) for a in range(spatial)]
            counted = np.pad(counted, [(0, 0), (0, 0), *pads], constant_values=1)
            out = [int(self.windows(a, size)) for a, size in enumerate(x.shape[2:])]
            whole = type(self)(self.window, self.stride, (0,) * (2 * spatial), self.dilation, True)
            count = np.sum(list(whole.taps(counted, 0)), axis=0)[
                (slice(None), slice(None), *(slice(0, o) for o in out))
            ]
        with np.errstate(all="ignore"):
            return np.asarray(total / count).astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        body = named(lambda *taps: wide(self.meet(i, x, taps, 0)), tap_names(len(self.window)))
        total = sum_over(self.window, body)
        counts = [self.counted(axis, position, x.shape[2 + axis]) for axis, position in enumerate(i[2:])]
        count = math.prod(counts[1:], start=counts[0])
        return cast(total / cast(count, total.dtype), x.dtype)

    def counted(self, axis: int, position: Expr, size: Size) -> Expr:
        """How many taps of the window at `position` count, along one spatial axis."""
        before, after = self.pad[axis], self.pad[len(self.window) + axis]
        taps, dilation = self.window[axis], self.dilation[axis]
        start = position * self.stride[axis] - before
        end = size + after if self.include_pad else size
        last = apply("min", Index(t.i64, taps), (end - start + (dilation - 1)) // dilation)
        if self.include_pad:
            return last
        return last - apply("max", Index(t.i64, 0), (dilation - 1 - start) // dilation)


@op
class LpPool(Pool):
    """The p-norm of each window."""

    p: int = 2
    examples = [*_cases(), *_cases(p=1), *_cases(p=3)]

    def reference(self, x: np.ndarray) -> np.ndarray:
        exact = np.abs(x.astype(accumulator(dtype_of(x)).numpy, copy=False))
        total = sum(tap**self.p for tap in self.taps(exact, 0))
        return np.asarray(total ** np.asarray(1 / self.p, exact.dtype)).astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        def body(*taps: Expr) -> Expr:
            value = apply("abs", wide(self.meet(i, x, taps, 0)))
            return value if self.p == 1 else value * value if self.p == 2 else apply("pow", value, float(self.p))

        total = sum_over(self.window, named(body, tap_names(len(self.window))))
        if self.p == 1:
            return cast(total, x.dtype)
        return cast(apply("sqrt", total) if self.p == 2 else apply("pow", total, 1 / self.p), x.dtype)


@op
class MaxUnpool(Op):
    """Zeros of `shape`, but at each place that `indices` names the element of x that goes there.

    Places count within `inner`, the shape that the pool read, in row-major order; what lies outside is dropped.
    """

    inner: sizes
    shape: sizes
    examples = [
        case(
            np.array([[[[1, 2], [3, 4]]]], np.float32),
            np.array([[[[5, 7], [13, 15]]]]),
            inner=(1, 1, 4, 4),
            shape=shape,
        )
        for shape in ((1, 1, 4, 4), (1, 1, 5, 5))
    ]

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        require(indices.dtype == t.i64 and indices.rank == x.rank, lambda: f"max_unpool: indices are {indices}")
        for a, b in zip(x.shape, indices.shape):
            assume_equal(a, b)
        require(len(self.shape) == len(self.inner) == x.rank, lambda: f"max_unpool: the shapes do not fit {x}")
        return x.with_shape(self.shape)

    def reference(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        y = np.zeros([int(size) for size in self.shape], x.dtype)
        inner = [int(size) for size in self.inner]
        for value, place in zip(x.ravel(), indices.ravel()):
            if 0 <= place < math.prod(inner):
                at = np.unravel_index(int(place), inner)
                if all(p < size for p, size in zip(at, y.shape)):
                    y[at] = value
        return y

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, indices: Tensor) -> None:
        (y,) = outs
        hints = [f"i{axis}" for axis in range(x.rank)]
        with k.loop("parallel", **_extents(hints, y.shape)) as i:
            k.store(y, i, const(0, y.dtype))
        with k.loop(**_extents(hints, x.shape)) as i:
            rest = place = k.let("place", indices.at(*i))
            at: list[Expr] = []
            for size in reversed(self.inner[1:]):
                at.insert(0, rest % Index(t.i64, size))
                rest = rest // Index(t.i64, size)
            at.insert(0, rest)
            within = inside(at, y.shape)
            within = place >= 0 if isinstance(within, bool) else within & (place >= 0)
            with k.when(within):
                k.store(y, at, x.at(*i))


def _extents(names: Sequence[str], shape: Sequence[Size]) -> dict[str, Any]:
    """Loop names with their extents, for `KernelBuilder.loop`."""
    return dict(zip(names, shape))
