"""Normalizations. Each stays one op until a backend expands it.

Statistics are taken in f32 where the input is narrower; what is normalized is rounded to the type of x before scale
and bias apply, as ONNX specifies.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np

from ir.dims import Size
from ir.element import Tensor, apply, cast, sum_over
from ir.expr import Expr
from ir.op import Op, assume_equal, case, op, require
from ir.ops.reduction import accumulator, normal_axes, wide
from ir.types import TensorType, dtype_of

_FEW_NEIGHBOURS = 16
"""Terms of a sum that stand side by side in an expression, rather than in a loop."""


def widen(b: Any, x: Any) -> Any:
    """`x` in the type in which its statistics are taken."""
    exact = accumulator(x.dtype)
    return x if exact == x.dtype else b.cast(x, to=exact)


def convert(b: Any, x: Any, like: Any) -> Any:
    """`x` in the type of `like`."""
    return x if x.dtype == like.dtype else b.cast(x, to=like.dtype)


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(accumulator(dtype_of(x)).numpy, copy=False)


def _standard(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """`x` minus its mean over `axes`, divided by its standard deviation, in the type of `x`."""
    a = _wide(x)
    with np.errstate(all="ignore"):
        deviation = a - a.mean(axis=axes, keepdims=True)
        variance = (deviation * deviation).mean(axis=axes, keepdims=True)
        return (deviation / np.sqrt(variance + a.dtype.type(epsilon))).astype(x.dtype)


def _standardize(b: Any, x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    """`_standard` as ops."""
    a = widen(b, x)
    deviation = a - b.reduce_mean(a, axes=axes, keepdims=True)
    variance = b.reduce_mean(deviation * deviation, axes=axes, keepdims=True)
    return convert(b, deviation * b.reciprocal(b.sqrt(variance + epsilon)), x)


def _affine(b: Any, x: Any, scale: Any | None, bias: Any | None) -> Any:
    if scale is not None:
        x = x * convert(b, scale, x)
    return x if bias is None else x + convert(b, bias, x)


def _check_broadcast(name: str, x: TensorType, what: str, operand: TensorType | None) -> None:
    """Raises OpError unless `operand` broadcasts to the shape of `x`."""
    if operand is None:
        return
    require(operand.rank <= x.rank, lambda: f"{name}: {what} {operand} has more axes than the input {x}")
    for own, size in zip(x.shape[x.rank - operand.rank :], operand.shape):
        require(size == 1 or not (isinstance(size, int) and isinstance(own, int)) or size == own,
                lambda: f"{name}: {what} {operand} does not broadcast to {x}")  # fmt: skip
        if size != 1:
            assume_equal(size, own)


def _check_channels(name: str, x: TensorType, *operands: TensorType) -> None:
    """Raises OpError unless each operand has one number for every channel of x[n, c, ...]."""
    require(x.rank >= 2, lambda: f"{name}: the input {x} has no channel axis")
    for operand in operands:
        require(operand.rank == 1, lambda operand=operand: f"{name}: {operand} should be one number per channel of {x}")
        size, channels = operand.shape[0], x.shape[1]
        require(not (isinstance(size, int) and isinstance(channels, int)) or size == channels,
                lambda operand=operand: f"{name}: {operand} should be one number per channel of {x}")  # fmt: skip
        assume_equal(size, channels)


def _per_channel(v: Any, rank: int) -> Any:
    """An array with one number per channel, shaped to broadcast against x[n, c, ...]."""
    return v.reshape(-1, *([1] * (rank - 2)))


def _by_channel(b: Any, v: Any, rank: int) -> Any:
    """`_per_channel` as an op."""
    return v if rank == 2 else b.reshape(v, shape=(v.shape[0], *([1] * (rank - 2))))


@op
class LayerNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, the statistics taken over the axes from `axis` on."""

    axis: int = -1
    epsilon: float = 1e-5
    examples = [
        case("f32[2,3,8]", "f32[8]", "f32[8]"), case("f32[2,3,4]", "f32[3,4]", None, axis=1, epsilon=1e-3),
        case("f16[3,8]", "f16[8]", "f16[8]"), case("f32[2,4]", None, None),
    ]  # fmt: skip

    def infer(self, x: TensorType, scale: TensorType | None = None, bias: TensorType | None = None) -> TensorType:
        require(x.dtype.is_float, lambda: f"layer_norm does not take {x.dtype}")
        normal_axes((self.axis,), x.rank, self.name)
        _check_broadcast(self.name, x, "scale", scale)
        _check_broadcast(self.name, x, "bias", bias)
        return x

    def reference(self, x: np.ndarray, scale: np.ndarray | None = None, bias: np.ndarray | None = None) -> np.ndarray:
        y = _standard(x, tuple(range(self.axis % x.ndim, x.ndim)), self.epsilon)
        y = y if scale is None else y * scale.astype(x.dtype)
        return y if bias is None else y + bias.astype(x.dtype)

    def expand(self, b: Any, x: Any, scale: Any = None, bias: Any = None) -> Any:
        return _affine(b, _standardize(b, x, tuple(range(self.axis % x.rank, x.rank)), self.epsilon), scale, bias)


@op
class RmsNorm(Op):
    """x / sqrt(mean(x^2) + epsilon) * scale, the mean taken over the axes from `axis` on. The type is that of scale."""

    axis: int = -1
    epsilon: float = 1e-5
    examples = [
        case("f32[2,3,8]", "f32[8]"), case("f32[2,3,4]", "f32[3,4]", axis=-2), case("f16[3,8]", "f32[8]"),
        case("f16[3,8]", None),
    ]  # fmt: skip

    def infer(self, x: TensorType, scale: TensorType | None = None) -> TensorType:
        require(x.dtype.is_float, lambda: f"rms_norm does not take {x.dtype}")
        normal_axes((self.axis,), x.rank, self.name)
        _check_broadcast(self.name, x, "scale", scale)
        return x if scale is None else x.with_dtype(scale.dtype)

    def reference(self, x: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
        a = _wide(x)
        axes = tuple(range(self.axis % x.ndim, x.ndim))
        with np.errstate(all="ignore"):
            mean = (a * a).mean(axis=axes, keepdims=True)
            y = (a / np.sqrt(mean + a.dtype.type(self.epsilon))).astype(x.dtype)
        return y if scale is None else y.astype(scale.dtype) * scale

    def expand(self, b: Any, x: Any, scale: Any = None) -> Any:
        a = widen(b, x)
        mean = b.reduce_mean(a * a, axes=tuple(range(self.axis % x.rank, x.rank)), keepdims=True)
        y = convert(b, a * b.reciprocal(b.sqrt(mean + self.epsilon)), x)
        return y if scale is None else convert(b, y, scale) * scale


@op
class GroupNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias per channel; statistics per sample and group of channels."""

    groups: int = 1
    epsilon: float = 1e-5
    examples = [
        case("f32[2,4,3,3]", "f32[4]", "f32[4]", groups=2),
        case("f16[1,6,4]", "f16[6]", "f16[6]", groups=3, epsilon=1e-2),
    ]  # fmt: skip

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        require(x.dtype.is_float, lambda: f"group_norm does not take {x.dtype}")
        _check_channels(self.name, x, scale, bias)
        require(self.groups >= 1 and (not isinstance(x.shape[1], int) or x.shape[1] % self.groups == 0),
                lambda: f"group_norm: {x.shape[1]} channels do not make {self.groups} groups")  # fmt: skip
        return x

    def reference(self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        y = _standard(
            x.reshape(x.shape[0], self.groups, math.prod(x.shape[1:]) // self.groups), (2,), self.epsilon
        ).reshape(x.shape)
        return y * _per_channel(scale.astype(x.dtype), x.ndim) + _per_channel(bias.astype(x.dtype), x.ndim)

    def expand(self, b: Any, x: Any, scale: Any, bias: Any) -> Any:
        per_group: Size = x.shape[1] // self.groups
        for size in x.shape[2:]:
            per_group = per_group * size
        y = _standardize(b, b.reshape(x, shape=(x.shape[0], self.groups, per_group)), (2,), self.epsilon)
        return _affine(b, b.reshape(y, shape=x.shape), _by_channel(b, scale, x.rank), _by_channel(b, bias, x.rank))


@op
class InstanceNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias per channel; statistics per sample and channel."""

    epsilon: float = 1e-5
    examples = [case("f32[2,3,4,4]", "f32[3]", "f32[3]"), case("f16[1,2,8]", "f16[2]", "f16[2]", epsilon=1e-2)]

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        require(x.dtype.is_float and x.rank >= 3, lambda: f"instance_norm does not take {x}")
        _check_channels(self.name, x, scale, bias)
        return x

    def reference(self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        y = _standard(x, tuple(range(2, x.ndim)), self.epsilon)
        return y * _per_channel(scale.astype(x.dtype), x.ndim) + _per_channel(bias.astype(x.dtype), x.ndim)

    def expand(self, b: Any, x: Any, scale: Any, bias: Any) -> Any:
        y = _standardize(b, x, tuple(range(2, x.rank)), self.epsilon)
        return _affine(b, y, _by_channel(b, scale, x.rank), _by_channel(b, bias, x.rank))


@op
class BatchNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias with given statistics per channel.

    Expands to one factor and one summand per channel, which are constants where the operands are.
    """

    epsilon: float = 1e-5
    examples = [
        case("f32[2,3,4,4]", "f32[3]", "f32[3]", "f32[3]", np.array([1.0, 2.0, 0.5], np.float32)),
        case("f16[2,2]", "f32[2]", "f32[2]", "f32[2]", np.array([1.0, 2.0], np.float32), epsilon=1e-2),
    ]

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType, mean: TensorType, variance: TensorType
    ) -> TensorType:
        require(x.dtype.is_float, lambda: f"batch_norm does not take {x.dtype}")
        _check_channels(self.name, x, scale, bias, mean, variance)
        return x

    def reference(
        self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
    ) -> np.ndarray:
        a = _wide(x)
        factor, bias, mean, variance = (_per_channel(v.astype(a.dtype), x.ndim) for v in (scale, bias, mean, variance))
        with np.errstate(all="ignore"):
            return ((a - mean) / np.sqrt(variance + a.dtype.type(self.epsilon)) * factor + bias).astype(x.dtype)

    def expand(self, b: Any, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
        a = widen(b, x)
        scale, bias, mean, variance = (convert(b, v, a) for v in (scale, bias, mean, variance))
        factor = scale / b.sqrt(variance + self.epsilon)
        summand = bias - mean * factor
        return convert(b, a * _by_channel(b, factor, x.rank) + _by_channel(b, summand, x.rank), x)


@op
class LpNorm(Op):
    """x divided by its p-norm along `axis`; 0 where that norm is 0. `p` is 1 or 2."""

    axis: int = -1
    p: int = 2
    examples = [case("f32[2,3,4]", axis=1), case("f32[2,3]", p=1), case(np.array([[0, 0], [3, 4]], np.float32))]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, lambda: f"lp_norm does not take {x.dtype}")
        require(self.p in (1, 2), lambda: f"lp_norm: p is {self.p}; it must be 1 or 2")
        normal_axes((self.axis,), x.rank, self.name)
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        a = _wide(x)
        norm = (
            np.abs(a).sum(self.axis, keepdims=True) if self.p == 1 else np.sqrt((a * a).sum(self.axis, keepdims=True))
        )
        with np.errstate(all="ignore"):
            return np.where(norm == 0, 0, a / norm).astype(x.dtype)

    def expand(self, b: Any, x: Any) -> Any:
        a = widen(b, x)
        norm = (b.reduce_l1 if self.p == 1 else b.reduce_l2)(a, axes=(self.axis,), keepdims=True)
        return convert(b, b.where(b.equal(norm, 0.0), b.const(0.0, a.dtype), a / norm), x)


@op
class Lrn(Op):
    """Local response normalization: x / (bias + alpha / size * s)^beta, s the sum of squares of `size` neighbours along
    `axis`."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    axis: int = 1
    index_names = "n c h w"
    examples = [
        case("f32[1,5,2,2]", size=3),
        case("f32[2,4,3]", size=2, alpha=0.5, beta=0.5, bias=2.0),
        case("f32[2,3,70]", size=5, alpha=0.5, axis=2),
        case("f32[2,40]", size=19, alpha=0.5, beta=1.0),
        case("f32[1,5,2]", size=3, alpha=-2.0, bias=0.0),
    ]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float and x.rank >= 2, lambda: f"lrn does not take {x}")
        require(self.size >= 1, lambda: f"lrn: size is {self.size}")
        require(0 <= self.axis < x.rank, lambda: f"lrn: axis {self.axis} of {x}")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        a = np.moveaxis(_wide(x), self.axis, -1)
        before = (self.size - 1) // 2
        after = self.size - 1 - before
        squares = np.pad(a * a, [*[(0, 0)] * (x.ndim - 1), (before, after)])
        total = sum(squares[..., k : k + a.shape[-1]] for k in range(self.size))
        base = a.dtype.type(self.bias) + a.dtype.type(self.alpha / self.size) * total
        return np.moveaxis((a / base ** a.dtype.type(self.beta)).astype(x.dtype), -1, self.axis)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        def square(k: Expr | int) -> Expr:
            place = (*i[: self.axis], i[self.axis] + k - (self.size - 1) // 2, *i[self.axis + 1 :])
            value = wide(x.at(*place, outside=0))
            return value * value

        if self.size <= _FEW_NEIGHBOURS:
            total = functools.reduce(operator.add, map(square, range(self.size)))
        else:
            total = sum_over((self.size,), square)
        base = total * (self.alpha / self.size) + self.bias
        return cast(wide(x.at(*i)) / self._power(base), x.dtype)

    def _power(self, base: Expr) -> Expr:
        """base ^ beta, by square roots where these give it: of a number that is above 0."""
        if not (self.bias > 0 and self.alpha >= 0):
            return apply("pow", base, self.beta)
        root = apply("sqrt", base)
        short = {1.0: base, 0.5: root, 0.75: root * apply("sqrt", root)}
        return short[self.beta] if self.beta in short else apply("pow", base, self.beta)
