"""Signals: overlapping frames, and the discrete Fourier transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, decide_le, minimum
from ir.element import Tensor, apply, cast, const, select, sum_over
from ir.expr import Expr, Index
from ir.op import Op, OpError, case, op, require, require_at_most, sizes
from ir.ops.reduction import accumulator, normal_axes
from ir.types import TensorType

TABLE_LIMIT = 1 << 25
"""Most elements of the table that a transform is multiplied with."""


@op
class Frame(Op):
    """Frames of `length` along axis 1, each `step` after the one before: y[b, f, l, ...] = x[b, f * step + l, ...]."""

    length: Size
    step: Size
    movement = True
    examples = [case("f32[2,10,1]", length=4, step=3), case("f32[1,5]", length=5, step=1)]

    def infer(self, x: TensorType) -> TensorType:
        fits = x.rank >= 2 and decide_le(1, self.step) is not False
        require(fits, lambda: f"frame: step {self.step} over {x}")
        require(decide_le(self.length, x.shape[1]) is not False,
                lambda: f"frame: a frame of {self.length} is longer than the signal {x}")  # fmt: skip
        count = (x.shape[1] - self.length) // self.step + 1
        return x.with_shape((x.shape[0], count, self.length, *x.shape[2:]))

    def reference(self, x: np.ndarray) -> np.ndarray:
        length, step = int(self.length), int(self.step)
        starts = np.arange(0, x.shape[1] - length + 1, step)
        return x[:, starts[:, None] + np.arange(length)]

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        b, f, offset, *rest = i
        return x.at(b, f * self.step + offset, *rest)


@op
class Dft(Op):
    """The discrete Fourier transform along `axis` of x[..., parts], parts being (real) or (real, imaginary).

    The signal is cut or padded with zeros to `length`. `onesided` gives the first length // 2 + 1 values only. The
    inverse divides by `length`; a onesided inverse reads such a half and gives the real signal.
    """

    length: int
    axis: int = -2
    inverse: bool = False
    onesided: bool = False
    examples = [
        case("f32[2,6,1]", length=6), case("f32[2,5,2]", length=8, onesided=True),
        case("f32[1,7,3,2]", length=5, axis=1), case("f32[2,6,2]", length=6, inverse=True),
        case("f32[2,4,2]", length=6, inverse=True, onesided=True),
        case("f32[2,4,2]", length=7, inverse=True, onesided=True), case("f16[4,1]", length=4),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float and x.rank >= 2 and x.shape[-1] in (1, 2), lambda: f"dft does not take {x}")
        (axis,) = normal_axes((self.axis,), x.rank, self.name)
        require(axis != x.rank - 1, "dft: the last axis holds the parts of a complex number")
        require(self.length >= 1, lambda: f"dft: the length is {self.length}")
        if not isinstance(x.shape[axis], int):
            raise OpError(f"dft: size {x.shape[axis]} of the signal must be known when compiling")
        out, parts = self._result
        return x.with_shape((*x.shape[:axis], out, *x.shape[axis + 1 : -1], parts))

    @property
    def _result(self) -> tuple[int, int]:
        """Number of values and of parts of each, along the axis of the result."""
        if self.onesided:
            return (self.length, 1) if self.inverse else (self.length // 2 + 1, 2)
        return self.length, 2

    def reference(self, x: np.ndarray) -> np.ndarray:
        axis = self.axis % x.ndim
        exact = x.astype(np.float64)
        signal = exact[..., 0] + 1j * exact[..., 1] if x.shape[-1] == 2 else exact[..., 0]
        if self.inverse and self.onesided:
            return np.fft.irfft(signal, n=self.length, axis=axis)[..., None].astype(x.dtype)
        y = (np.fft.ifft if self.inverse else np.fft.fft)(signal, n=self.length, axis=axis)
        y = np.take(y, range(self._result[0]), axis)
        return np.stack([y.real, y.imag], axis=-1).astype(x.dtype)

    def table(self, count: int, parts: int) -> np.ndarray:
        """The matrix [count * parts, values * parts] that transforms a signal of `count` numbers of `parts` each."""
        values, out_parts = self._result
        size = count * parts * values * out_parts
        if size > TABLE_LIMIT:
            raise OpError(f"dft: the table of a transform of length {self.length} would have {size} numbers")
        given = np.arange(count)
        turns = np.outer(given, np.arange(values)) % self.length
        angle = (2 if self.inverse else -2) * math.pi / self.length * turns
        share = np.where(given < self.length, 1.0, 0.0)
        if self.inverse:
            share = share / self.length
        if self.inverse and self.onesided:
            twice = (given > 0) & (2 * given < self.length)
            share = np.where(2 * given <= self.length, share, 0.0) * np.where(twice, 2.0, 1.0)
        cos, sin = np.cos(angle) * share[:, None], np.sin(angle) * share[:, None]
        full = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
        return full[:, :parts, :, :out_parts].reshape(count * parts, values * out_parts)

    def expand(self, b: Any, x: Any) -> Any:
        axis = self.axis % x.rank
        count, parts = x.shape[axis], x.shape[-1]
        values, out_parts = self._result
        dtype = accumulator(x.dtype)
        table = b.const(self.table(count, parts), dtype)
        others = [a for a in range(x.rank - 1) if a != axis]
        perm = (*others, axis, x.rank - 1)
        if perm != tuple(range(x.rank)):
            x = b.transpose(x, perm=perm)
        rows = b.reshape(x, shape=(*x.shape[:-2], count * parts))
        y = b.matmul(rows if dtype == x.dtype else b.cast(rows, to=dtype), table)
        y = y if dtype == x.dtype else b.cast(y, to=x.dtype)
        y = b.reshape(y, shape=(*x.shape[:-2], values, out_parts))
        back = tuple(perm.index(a) for a in range(x.rank))
        return y if back == tuple(range(x.rank)) else b.transpose(y, perm=back)


@op
class DirectDft(Op):
    """`dft` where lengths, or the axis, are known only at run time: each value is a sum of its own, in f64.

    x has `count` numbers along the axis, the transform `length`; `shape` is that of the result without its last axis.
    Without `axis`, the operand `along` gives it.
    """

    shape: sizes
    count: Size
    length: Size
    axis: int | None = None
    inverse: bool = False
    onesided: bool = False
    examples = [
        case("f32[2,6,1]", shape=(2, 6), count=6, length=6, axis=1),
        case("f32[2,5,2]", shape=(2, 5), count=5, length=8, axis=1, onesided=True),
        case("f32[1,7,3,2]", np.array(1), shape=(1, 5, 3), count=7, length=5),
        case("f32[2,6,2]", shape=(2, 6), count=6, length=6, axis=1, inverse=True),
        case("f32[4,2,2]", np.array(0), shape=(7, 2), count=4, length=7, inverse=True, onesided=True),
        case("f32[2,3,2]", shape=(2, 6), count=3, length=6, axis=1, inverse=True, onesided=True),
    ]  # fmt: skip

    def infer(self, x: TensorType, along: TensorType | None = None) -> TensorType:
        require(x.dtype.is_float and x.rank >= 2 and x.shape[-1] in (1, 2), lambda: f"direct_dft does not take {x}")
        require((self.axis is None) == (along is not None), "direct_dft: either an axis or an operand that gives it")
        require(self.axis is None or 0 <= self.axis < x.rank - 1, lambda: f"direct_dft: axis {self.axis} of {x}")
        require(along is None or along == TensorType(t.i64, ()), lambda: f"direct_dft: the axis is {along}")
        require(len(self.shape) == x.rank - 1, lambda: f"direct_dft: {len(self.shape)} sizes for {x}")
        require_at_most("direct_dft: points", 1, self.length)
        return x.with_shape((*self.shape, 1 if self.inverse and self.onesided else 2))

    def reference(self, x: np.ndarray, along: np.ndarray | None = None) -> np.ndarray:
        axis = int(along) if self.axis is None and along is not None else self.axis
        assert axis is not None
        return Dft(int(self.length), axis, self.inverse, self.onesided).reference(x)  # type: ignore[arg-type]

    def element(self, i: tuple[Expr, ...], x: Tensor, along: Tensor | None = None) -> Expr:
        given = [self.axis == a if along is None else along.at().equals(a) for a in range(x.rank - 1)]
        length = Index(t.i64, self.length)
        place: Expr = Index(t.i64, 0)
        for own, hit in zip(i, given):
            place = (own if hit else place) if isinstance(hit, bool) else select(hit, own, place)
        half = self.inverse and self.onesided
        count = minimum(self.count, self.length // 2 + 1 if half else self.length)

        def term(n: Expr) -> Expr:
            at = [(n if hit else own) if isinstance(hit, bool) else select(hit, n, own) for own, hit in zip(i, given)]
            turn = cast(place * n % length, t.f64) / cast(length, t.f64)
            angle = turn * (2 * math.pi if self.inverse else -2 * math.pi)
            cos, sin, real = apply("cos", angle), apply("sin", angle), cast(x.at(*at, 0), t.f64)
            imaginary = cast(x.at(*at, 1), t.f64) if x.shape[-1] == 2 else const(0, t.f64)
            value = real * cos - imaginary * sin
            if half:
                twice = (n > 0) & (n * 2 < length)
                return value * select(twice, const(2, t.f64), const(1, t.f64))
            return select(i[-1].equals(0), value, real * sin + imaginary * cos)

        total = sum_over((count,), term)
        return cast(total / cast(length, t.f64) if self.inverse else total, x.dtype)


def mel_weights(bins: int, length: int, rate: int, low: float, high: float) -> np.ndarray:
    """Triangular filters [length // 2 + 1, bins], evenly spaced on the mel scale from `low` to `high` Hz, in f64."""
    edges = np.array([2595 * np.log10(1 + frequency / 700) for frequency in (low, high)])
    mels = np.arange(bins + 2) * ((edges[1] - edges[0]) / (bins + 2)) + edges[0]
    places = (((length + 1) * 700 * (10 ** (mels / 2595) - 1)) // rate).astype(np.int64)
    weights = np.zeros((length // 2 + 1, bins))
    for column in range(bins):
        left, centre, right = (int(p) for p in places[column : column + 3])
        if left == centre:
            weights[centre, column] = 1
        for row in range(left, centre + 1 if centre > left else left):
            weights[row, column] = (row - left) / (centre - left)
        for row in range(centre, right):
            weights[row, column] = (right - row) / (right - centre)
    return weights
