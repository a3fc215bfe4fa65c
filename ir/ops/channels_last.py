"""Convolution and pooling on channels-last tensors, x[n, ..., c]: what the layout pass makes of their siblings.

For a row of outputs, the taps of a row and the channels are one contiguous run of memory. The meaning is that of the
channels-first op between two transposes.
"""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.dims import ceil_div
from ir.element import Tensor, cast, sum_over
from ir.expr import Expr
from ir.op import Op, case, ints, op, require, sizes
from ir.ops.contraction import Conv, ConvTranspose, named, tap_names
from ir.ops.pooling import AveragePool, MaxPool, Pool
from ir.ops.quantized import from_level
from ir.ops.reduction import wide
from ir.types import TensorType


def to_last(rank: int) -> ints:
    """The permutation from n, c, ... to n, ..., c."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> ints:
    """The permutation from n, ..., c to n, c, ..."""
    return (0, rank - 1, *range(1, rank - 1))


def _permuted(x: TensorType, perm: ints) -> TensorType:
    return x.with_shape(x.shape[p] for p in perm)


@op
class ConvChannelsLast(Op):
    """Convolution of x[n, ..., c] with w[..., c/groups, o], optionally plus bias[o]: y[n, ..., o].

    `pad` gives the zeros before each spatial axis, then those after each.
    """

    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    groups: int = 1
    index_names = "n oh ow oc"
    examples = [
        case("f32[1,8,7,3]", "f32[3,3,3,4]", "f32[4]", stride=(2, 1), pad=(1, 1, 1, 0), dilation=(1, 1)),
        case("f32[2,7,4]", "f32[3,1,4]", None, stride=(1,), pad=(0, 2), dilation=(2,), groups=4),
    ]

    def _first(self) -> Conv:
        return Conv(stride=self.stride, pad=self.pad, dilation=self.dilation, groups=self.groups)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        weights = _permuted(w, (w.rank - 1, w.rank - 2, *range(w.rank - 2)))
        return _permuted(self._first().infer(_permuted(x, to_first(x.rank)), weights, bias), to_last(x.rank))

    def reference(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        weights = np.transpose(w, (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))
        y = self._first().reference(np.transpose(x, to_first(x.ndim)), weights, bias)
        return np.ascontiguousarray(np.transpose(y, to_last(x.ndim)))

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor, bias: Tensor | None = None) -> Expr:
        n, *position, oc = i
        inner = w.shape[-2]
        first = 0 if self.groups == 1 else oc // (w.shape[-1] // self.groups) * inner

        # Windows lie inside of what is not padded, by the size of the result.
        outside = 0 if any(size != 0 for size in self.pad) else None

        def term(*taps: Expr) -> Expr:
            *k, ic = taps
            windows = zip(position, self.stride, k, self.dilation, self.pad)
            at = [p * s + tap * d - before for p, s, tap, d, before in windows]
            return wide(x.at(n, *at, first + ic, outside=outside)) * wide(w.at(*k, ic, oc))

        acc = sum_over(w.shape[:-1], named(term, (*tap_names(len(position)), "ic")))
        return cast(acc if bias is None else acc + wide(bias.at(oc)), x.dtype)


@op
class ConvIntegerChannelsLast(Op):
    """Convolution in i32 of integers x[n, ..., c] and w[..., c/groups, o] without zero points: y[n, ..., o]."""

    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    groups: int = 1
    index_names = "n oh ow oc"
    examples = [
        case("u8[1,8,7,8]", "i8[3,3,8,5]", stride=(2, 1), pad=(0, 0, 0, 0), dilation=(1, 1)),
        case("u8[2,7,4]", "i8[3,2,6]", stride=(1,), pad=(0, 2), dilation=(2,), groups=2),
        case("i32[1,8,7,1]", "i8[3,3,1,1]", stride=(2, 1), pad=(0, 0, 0, 0), dilation=(1, 1)),
    ]

    def _wide(self) -> ConvChannelsLast:
        return ConvChannelsLast(stride=self.stride, pad=self.pad, dilation=self.dilation, groups=self.groups)

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        require(x.dtype.is_integer and w.dtype.is_integer, lambda: f"{self.name} does not take {x} and {w}")
        return self._wide().infer(x.with_dtype(t.i32), w.with_dtype(t.i32))

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return self._wide().reference(x.astype(np.int32), w.astype(np.int32))

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor) -> Expr:
        return self._wide().element(i, from_level(x), from_level(w))


@op
class ConvTransposeChannelsLast(Op):
    """The transpose of convolution: x[n, ..., c] with w[..., c/groups, o], optionally plus bias[o]: y[n, ..., o].

    `pad` is cut from the full result before each spatial axis, then after each; `extra` widens it after each.
    Position q of the full result meets the taps q % stride + k * stride, at element q // stride - k of x: outputs whose
    positions have one remainder are an ordinary convolution with those taps.
    """

    stride: ints = ()
    pad: sizes = ()
    extra: sizes = ()
    groups: int = 1
    index_names = "n oh ow oc"
    examples = [
        case("f32[1,4,3,3]", "f32[3,4,3,2]", "f32[2]", stride=(2, 3), pad=(1, 1, 0, 1), extra=(1, 0)),
        case("f32[2,5,4]", "f32[3,2,6]", None, stride=(2,), pad=(1, 1), extra=(0,), groups=2),
        case("f32[1,2,3,2]", "f32[1,2,2,1]", "f32[1]", stride=(2, 2), pad=(0,) * 4, extra=(0, 0)),
    ]

    def _first(self) -> ConvTranspose:
        dilation = (1,) * len(self.stride)
        return ConvTranspose(self.stride, self.pad, dilation, self.extra, self.groups)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        require(w.rank >= 3 and self.groups >= 1, lambda: f"{self.name}: {w} in {self.groups} groups")
        *taps, inner, outer = w.shape
        first = w.with_shape((inner * self.groups, outer // self.groups, *taps))
        return _permuted(self._first().infer(_permuted(x, to_first(x.rank)), first, bias), to_last(x.rank))

    def reference(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        *taps, inner, outer = w.shape
        parts = w.reshape(*taps, inner, self.groups, outer // self.groups)
        first = np.moveaxis(parts, (-2, -3, -1), (0, 1, 2)).reshape(-1, outer // self.groups, *taps)
        y = self._first().reference(np.transpose(x, to_first(x.ndim)), first, bias)
        return np.ascontiguousarray(np.transpose(y, to_last(x.ndim)))

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor, bias: Tensor | None = None) -> Expr:
        n, *position, oc = i
        inner = w.shape[-2]
        first = 0 if self.groups == 1 else oc // (w.shape[-1] // self.groups) * inner
        full = [p + before for p, before in zip(position, self.pad)]
        phases = [q % s for q, s in zip(full, self.stride)]
        counts = [ceil_div(taps - r.value, s) for taps, r, s in zip(w.shape, phases, self.stride)]  # type: ignore[attr-defined]

        def term(*steps: Expr) -> Expr:
            *k, ic = steps
            at = [q // s - step for q, s, step in zip(full, self.stride, k)]
            taps = [r + step * s for r, s, step in zip(phases, self.stride, k)]
            return wide(x.at(n, *at, first + ic, outside=0)) * wide(w.at(*taps, ic, oc))

        acc = sum_over([*counts, inner], named(term, (*tap_names(len(position)), "ic")))
        return cast(acc if bias is None else acc + wide(bias.at(oc)), x.dtype)


def _pool_infer(pool: Pool, x: TensorType) -> TensorType:
    return _permuted(Pool.infer(pool, _permuted(x, to_first(x.rank))), to_last(x.rank))


def _first_tensor(x: Tensor) -> Tensor:
    """`x`, read as if channels came first."""
    perm = to_last(x.rank)
    first = _permuted(x.type, to_first(x.rank))
    return Tensor(first, lambda index, outside: x.load(tuple(index[p] for p in perm), outside))


_POOLS = [case("f32[1,7,8,2]", window=(3, 3), stride=(2, 2), pad=(1, 1, 1, 1), dilation=(1, 1))]


@op
class MaxPoolChannelsLast(MaxPool):
    """The greatest element of each window of x[n, ..., c]."""

    index_names = "n oh ow c"
    examples = _POOLS

    def infer(self, x: TensorType) -> TensorType:
        return _pool_infer(self, x)

    def reference(self, x: np.ndarray) -> np.ndarray:
        y = MaxPool.reference(self, np.transpose(x, to_first(x.ndim)))
        return np.ascontiguousarray(np.transpose(y, to_last(x.ndim)))

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return MaxPool.element(self, tuple(i[p] for p in to_first(x.rank)), _first_tensor(x))


@op
class AveragePoolChannelsLast(AveragePool):
    """The mean of each window of x[n, ..., c]."""

    index_names = "n oh ow c"
    examples = _POOLS

    def infer(self, x: TensorType) -> TensorType:
        return _pool_infer(self, x)

    def reference(self, x: np.ndarray) -> np.ndarray:
        y = AveragePool.reference(self, np.transpose(x, to_first(x.ndim)))
        return np.ascontiguousarray(np.transpose(y, to_last(x.ndim)))

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return AveragePool.element(self, tuple(i[p] for p in to_first(x.rank)), _first_tensor(x))
