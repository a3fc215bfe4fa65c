"""Activations: functions of one float that networks apply after a sum, and softmax with its relatives.

They are computed in f32 for narrower types and rounded once. `sigmoid` and `tanh` are scalar functions of their own
and stand in `elementwise`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import types as t
from ir.element import Tensor, apply, cast, select
from ir.expr import Expr
from ir.functions import FUNCTIONS
from ir.op import Op, case, ints, op, require
from ir.ops.elementwise import NUMBERS, broadcasts_to, row, same_dtype
from ir.ops.reduction import accumulator, normal_axes, wide
from ir.types import DType, TensorType

_X = [case("f32[2,3]"), case("f32[]"), case("f32[0,4]"), case("f16[5]"), case("bf16[5]"), case("f64[3]"),
      case(row("f32", -90.0, -2.0, -0.5, -0.0, 0.5, 2.0, 90.0, math.nan))]  # fmt: skip


def _with(**attributes: float) -> list[Any]:
    """The first and the last example again, with attributes."""
    return [*_X, case("f32[2,3]", **attributes), case(*_X[-1].operands, **attributes)]


class Activation(Op):
    """Base of functions of one float: `formula` in kernel expressions, `value` in NumPy, both of a wide x."""

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, lambda: f"{self.name} does not take {x.dtype}")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            y = self.value(x.astype(accumulator(t.dtype_of(x)).numpy, copy=False))
        return np.asarray(y).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(self.formula(wide(x.at(*i))), x.dtype)

    def value(self, x: np.ndarray) -> Any:
        raise NotImplementedError(type(self).__name__)

    def formula(self, x: Expr) -> Expr:
        raise NotImplementedError(type(self).__name__)


@op
class Relu(Op):
    """max(x, 0), of floats and integers; NaN stays."""

    examples = [*_X, case("i32[2,3]"), case("i8[4]")]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind in NUMBERS, lambda: f"relu does not take {x.dtype}")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, np.zeros((), x.dtype))

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return apply("max", x.at(*i), 0)


@op
class LeakyRelu(Activation):
    """x, or alpha * x below zero."""

    alpha: float = 0.01
    examples = _with(alpha=0.25)

    def value(self, x: np.ndarray) -> Any:
        return np.where(x < 0, x.dtype.type(self.alpha) * x, x)

    def formula(self, x: Expr) -> Expr:
        return select(x < 0, x * self.alpha, x)


@op
class Prelu(Op):
    """x, or slope * x below zero; the slope broadcasts to x."""

    examples = [
        case("f32[2,3,4]", "f32[3,1]"),
        case("f32[2,3]", "f32[]"),
        case("i32[2,3]", "i32[3]"),
        case("f16[4]", "f16[1]"),
    ]

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        require(same_dtype("prelu", x, slope).kind in NUMBERS, lambda: f"prelu does not take {x.dtype}")
        require(broadcasts_to(slope.shape, x.shape), lambda: f"prelu: slope {slope} does not broadcast to {x}")
        return x

    def reference(self, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.where(x < 0, slope * x, x).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor, slope: Tensor) -> Expr:
        value = x.at(*i)
        return select(value < 0, value * slope.stretched_at(i, x.shape), value)


@op
class Elu(Activation):
    """x, or alpha * (e**x - 1) below zero."""

    alpha: float = 1.0
    examples = _with(alpha=2.0)

    def value(self, x: np.ndarray) -> Any:
        return np.where(x < 0, x.dtype.type(self.alpha) * (np.exp(x) - 1), x)

    def formula(self, x: Expr) -> Expr:
        return select(x < 0, (apply("exp", x) - 1) * self.alpha, x)


@op
class Selu(Activation):
    """gamma * x, or gamma * alpha * (e**x - 1) where x is not above zero."""

    alpha: float = 1.6732631921768188
    gamma: float = 1.0507010221481323
    examples = _with(alpha=2.0, gamma=3.0)

    def value(self, x: np.ndarray) -> Any:
        alpha, gamma = x.dtype.type(self.alpha), x.dtype.type(self.gamma)
        return gamma * np.where(x <= 0, alpha * np.exp(x) - alpha, x)

    def formula(self, x: Expr) -> Expr:
        return select(x <= 0, apply("exp", x) * self.alpha - self.alpha, x) * self.gamma


@op
class Celu(Activation):
    """max(0, x) + min(0, alpha * (e**(x / alpha) - 1))"""

    alpha: float = 1.0
    examples = _with(alpha=2.0)

    def value(self, x: np.ndarray) -> Any:
        alpha = x.dtype.type(self.alpha)
        return np.maximum(0, x) + np.minimum(0, alpha * (np.exp(x / alpha) - 1))

    def formula(self, x: Expr) -> Expr:
        below = (apply("exp", x / self.alpha) - 1) * self.alpha
        return apply("max", x, 0) + apply("min", below, 0)


@op
class ThresholdedRelu(Activation):
    """x where it is above alpha, else 0."""

    alpha: float = 1.0
    examples = _with(alpha=0.25)

    def value(self, x: np.ndarray) -> Any:
        return np.where(x > x.dtype.type(self.alpha), x, 0)

    def formula(self, x: Expr) -> Expr:
        return select(x > self.alpha, x, 0)


@op
class Softplus(Activation):
    """log(1 + e**x)"""

    examples = _X

    def value(self, x: np.ndarray) -> Any:
        return np.logaddexp(x, x.dtype.type(0))

    def formula(self, x: Expr) -> Expr:
        return _softplus(x)


def _softplus(x: Expr) -> Expr:
    """log(1 + e**x) without overflow."""
    return apply("max", x, 0) + apply("log1p", apply("exp", -apply("abs", x)))


@op
class Softsign(Activation):
    """x / (1 + |x|)"""

    examples = _X

    def value(self, x: np.ndarray) -> Any:
        return x / (1 + np.abs(x))

    def formula(self, x: Expr) -> Expr:
        return x / (apply("abs", x) + 1)


@op
class HardSigmoid(Activation):
    """alpha * x + beta, kept within 0 and 1."""

    alpha: float = 0.2
    beta: float = 0.5
    examples = _with(alpha=0.5, beta=0.6)

    def value(self, x: np.ndarray) -> Any:
        return np.maximum(0, np.minimum(1, x.dtype.type(self.alpha) * x + x.dtype.type(self.beta)))

    def formula(self, x: Expr) -> Expr:
        return apply("max", apply("min", x * self.alpha + self.beta, 1), 0)


@op
class HardSwish(Activation):
    """x * (x / 6 + 1 / 2 kept within 0 and 1)"""

    examples = _X

    def value(self, x: np.ndarray) -> Any:
        return x * np.maximum(0, np.minimum(1, x.dtype.type(1 / 6) * x + x.dtype.type(0.5)))

    def formula(self, x: Expr) -> Expr:
        return x * apply("max", apply("min", x * (1 / 6) + 0.5, 1), 0)


@op
class Gelu(Activation):
    """x times the standard normal distribution function of x, or its approximation by tanh where `approximate`."""

    approximate: bool = False
    examples = [*_X, case("f32[2,3]", approximate=True), case("f16[5]", approximate=True)]

    def value(self, x: np.ndarray) -> Any:
        if self.approximate:
            inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x**3)
            return x.dtype.type(0.5) * x * (1 + np.tanh(inner))
        return x.dtype.type(0.5) * x * (1 + FUNCTIONS["erf"].numpy(x * x.dtype.type(math.sqrt(0.5))))

    def formula(self, x: Expr) -> Expr:
        if self.approximate:
            inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
            return x * 0.5 * (apply("tanh", inner) + 1)
        return x * 0.5 * (apply("erf", x * math.sqrt(0.5)) + 1)


@op
class Mish(Activation):
    """x * tanh(log(1 + e**x))"""

    examples = _X

    def value(self, x: np.ndarray) -> Any:
        return x * np.tanh(np.logaddexp(x, x.dtype.type(0)))

    def formula(self, x: Expr) -> Expr:
        return x * apply("tanh", _softplus(x))


@op
class Swish(Activation):
    """x * sigmoid(alpha * x): SiLU where alpha is 1."""

    alpha: float = 1.0
    examples = _with(alpha=1.702)

    def value(self, x: np.ndarray) -> Any:
        return x * FUNCTIONS["sigmoid"].numpy(x.dtype.type(self.alpha) * x)

    def formula(self, x: Expr) -> Expr:
        return x * apply("sigmoid", x if self.alpha == 1 else x * self.alpha)


@op
class Shrink(Op):
    """x - bias above lambd, x + bias below -lambd, else 0; of floats and integers."""

    lambd: float = 0.5
    bias: float = 0.0
    examples = [case("f32[2,3]"), case("f32[2,3]", lambd=0.25, bias=0.5), case("i32[5]", lambd=1.0, bias=1.0),
                case("f16[4]", bias=0.1), case("u8[4]", lambd=1.5)]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind in NUMBERS, lambda: f"shrink does not take {x.dtype}")
        return x

    @staticmethod
    def computed_in(dtype: DType) -> DType:
        """Integers are compared and shifted as floats, since `lambd` and `bias` are."""
        return t.f64 if dtype.is_integer else accumulator(dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        v = x.astype(self.computed_in(t.dtype_of(x)).numpy, copy=False)
        lambd, bias = v.dtype.type(self.lambd), v.dtype.type(self.bias)
        return np.where(v < -lambd, v + bias, np.where(v > lambd, v - bias, 0)).astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        v = cast(x.at(*i), self.computed_in(x.dtype))
        return cast(select(v < -self.lambd, v + self.bias, select(v > self.lambd, v - self.bias, 0)), x.dtype)


_OVER = [
    case("f32[2,3]"),
    case("f32[2,3,4]", axes=(1,)),
    case("f32[2,3,4]", axes=(1, 2)),
    case("f16[2,5]"),
    case("bf16[2,3]"),
    case("f32[0,3]"),
    case("f32[3]", axes=(0,)),
    case(row("f32", 1e4, -1e4, 9999.0)),
]


def _checked(name: str, x: TensorType, axes: ints) -> TensorType:
    require(x.dtype.is_float, lambda: f"{name} does not take {x.dtype}")
    normal_axes(axes, x.rank, name)
    return x


def _widened(b: Any, x: Any) -> tuple[Any, DType]:
    """`x` in the type in which it is summed, and its own type."""
    dtype = x.dtype if isinstance(x.dtype, DType) else t.dtype_of(x.dtype)
    return (x, dtype) if accumulator(dtype) == dtype else (b.cast(x, to=accumulator(dtype)), dtype)


def _narrowed(b: Any, y: Any, dtype: DType) -> Any:
    return y if accumulator(dtype) == dtype else b.cast(y, to=dtype)


@op
class Softmax(Op):
    """e**x divided by its sum over `axes` (taken together), so that the result is positive and sums to 1."""

    axes: ints = (-1,)
    examples = _OVER

    def infer(self, x: TensorType) -> TensorType:
        return _checked("softmax", x, self.axes)

    def reference(self, x: np.ndarray) -> np.ndarray:
        v = x.astype(accumulator(t.dtype_of(x)).numpy, copy=False)
        e = np.exp(v - v.max(axis=self.axes, keepdims=True, initial=-np.inf))
        return (e / e.sum(axis=self.axes, keepdims=True)).astype(x.dtype, copy=False)

    def expand(self, b: Any, x: Any) -> Any:
        v, dtype = _widened(b, x)
        e = b.exp(b.sub(v, b.reduce_max(v, axes=self.axes)))
        return _narrowed(b, b.div(e, b.reduce_sum(e, axes=self.axes)), dtype)


@op
class LogSoftmax(Op):
    """The logarithm of softmax over `axes`, taken together."""

    axes: ints = (-1,)
    examples = _OVER

    def infer(self, x: TensorType) -> TensorType:
        return _checked("log_softmax", x, self.axes)

    def reference(self, x: np.ndarray) -> np.ndarray:
        v = x.astype(accumulator(t.dtype_of(x)).numpy, copy=False)
        shifted = v - v.max(axis=self.axes, keepdims=True, initial=-np.inf)
        return (shifted - np.log(np.exp(shifted).sum(axis=self.axes, keepdims=True))).astype(x.dtype, copy=False)

    def expand(self, b: Any, x: Any) -> Any:
        v, dtype = _widened(b, x)
        shifted = b.sub(v, b.reduce_max(v, axes=self.axes))
        return _narrowed(b, b.sub(shifted, b.log(b.reduce_sum(b.exp(shifted), axes=self.axes))), dtype)


@op
class Hardmax(Op):
    """1 at the first greatest element along `axis`, else 0."""

    axis: int = -1
    examples = [
        case("f32[2,5]"),
        case("f32[2,3,4]", axis=1),
        case(row("f32", 1.0, 3.0, 3.0)),
        case("f16[2,5]"),
        case("f32[0,3]"),
    ]

    def infer(self, x: TensorType) -> TensorType:
        return _checked("hardmax", x, (self.axis,))

    def reference(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros_like(x)
        if x.size:
            np.put_along_axis(y, np.expand_dims(x.argmax(axis=self.axis), self.axis), 1, axis=self.axis)
        return y

    def expand(self, b: Any, x: Any) -> Any:
        dtype = x.dtype if isinstance(x.dtype, DType) else t.dtype_of(x.dtype)
        (axis,) = normal_axes((self.axis,), len(x.shape), "hardmax")
        size = x.shape[axis]
        place = b.iota(shape=tuple(size if a == axis else 1 for a in range(len(x.shape))), axis=axis)
        is_greatest = b.equal(x, b.reduce_max(x, axes=(axis,)))
        first = b.reduce_min(b.where(is_greatest, place, b.const(size)), axes=(axis,))
        return b.cast(b.equal(place, first), to=dtype)


__all__ = ["Activation"]
