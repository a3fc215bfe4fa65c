"""Activations of ai.onnx, and softmax with its relatives.

Before opset 13 softmax is taken over all axes from `axis` on together; from then on over one axis.
"""

from __future__ import annotations

import math
from typing import Any

from compiler.onnx.ops.arithmetic import unary
from compiler.onnx.registry import onnx_op
from ir.op import OpError

for _name, _op, _since in (
    ("Relu", "relu", 1), ("Softplus", "softplus", 1), ("Softsign", "softsign", 1), ("HardSwish", "hard_swish", 14),
    ("Mish", "mish", 18),
):  # fmt: skip
    onnx_op(_name, since=_since)(unary(_op))


@onnx_op("LeakyRelu")
def LeakyRelu(b: Any, x: Any, *, alpha: float = 0.009999999776482582, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return b.leaky_relu(x, alpha=alpha)


@onnx_op("PRelu", since=1)
def PRelu_1(b: Any, x: Any, slope: Any, *, consumed_inputs: tuple[int, ...] = ()) -> Any:
    if slope.rank == 1 and slope.shape != (1,) and x.rank > 2:
        slope = b.reshape(slope, shape=(*slope.shape, *[1] * (x.rank - 2)))
    return b.prelu(x, slope)


@onnx_op("PRelu", since=7)
def PRelu(b: Any, x: Any, slope: Any) -> Any:
    return b.prelu(x, slope)


@onnx_op("Elu")
def Elu(b: Any, x: Any, *, alpha: float = 1.0, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return b.elu(x, alpha=alpha)


@onnx_op("Selu", since=1)
def Selu_1(
    b: Any,
    x: Any,
    *,
    alpha: float = 1.673200011253357,
    gamma: float = 1.0506999492645264,
    consumed_inputs: tuple[int, ...] = (),
) -> Any:
    return b.selu(x, alpha=alpha, gamma=gamma)


@onnx_op("Selu", since=6)
def Selu(b: Any, x: Any, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Any:
    return b.selu(x, alpha=alpha, gamma=gamma)


@onnx_op("Celu", since=12)
def Celu(b: Any, x: Any, *, alpha: float = 1.0) -> Any:
    if alpha == 0:
        raise OpError("`alpha` is 0, by which it would divide")
    return b.celu(x, alpha=alpha)


@onnx_op("ThresholdedRelu", since=10)
def ThresholdedRelu(b: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return b.thresholded_relu(x, alpha=alpha)


@onnx_op("HardSigmoid")
def HardSigmoid(
    b: Any, x: Any, *, alpha: float = 0.20000000298023224, beta: float = 0.5, consumed_inputs: tuple[int, ...] = ()
) -> Any:
    return b.hard_sigmoid(x, alpha=alpha, beta=beta)


@onnx_op("Shrink", since=9)
def Shrink(b: Any, x: Any, *, lambd: float = 0.5, bias: float = 0.0) -> Any:
    return b.shrink(x, lambd=lambd, bias=bias)


@onnx_op("Swish", since=24)
def Swish(b: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return b.swish(x, alpha=alpha)


@onnx_op("SwiGLU", since=28)
def SwiGLU(b: Any, gate: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return b.mul(b.swish(gate, alpha=alpha), x)


@onnx_op("Gelu", since=20)
def Gelu(b: Any, x: Any, *, approximate: str = "none") -> Any:
    if approximate not in ("none", "tanh"):
        raise OpError(f"`approximate` is {approximate!r}; it must be none or tanh")
    return b.gelu(x, approximate=approximate == "tanh")


def _from_axis_on(x: Any, axis: int) -> tuple[int, ...]:
    first = axis + x.rank if axis < 0 else axis
    if not 0 <= first <= x.rank:
        raise OpError(f"`axis` is {axis}, for a tensor of rank {x.rank}")
    return tuple(range(first, x.rank))


@onnx_op("Softmax", since=1)
def Softmax_1(b: Any, x: Any, *, axis: int = 1) -> Any:
    return b.softmax(x, axes=_from_axis_on(x, axis))


@onnx_op("Softmax", since=13)
def Softmax(b: Any, x: Any, *, axis: int = -1) -> Any:
    return b.softmax(x, axes=(axis,))


@onnx_op("LogSoftmax", since=1)
def LogSoftmax_1(b: Any, x: Any, *, axis: int = 1) -> Any:
    return b.log_softmax(x, axes=_from_axis_on(x, axis))


@onnx_op("LogSoftmax", since=13)
def LogSoftmax(b: Any, x: Any, *, axis: int = -1) -> Any:
    return b.log_softmax(x, axes=(axis,))


@onnx_op("Hardmax", since=1)
def Hardmax_1(b: Any, x: Any, *, axis: int = 1) -> Any:
    axes = _from_axis_on(x, axis)
    if len(axes) == 1:
        return b.hardmax(x, axis=axes[0])
    kept = x.rank - len(axes)
    flat = b.reshape(x, shape=(*x.shape[:kept], math.prod(x.shape[kept:])))
    return b.reshape(b.hardmax(flat), shape=x.shape)


@onnx_op("Hardmax", since=13)
def Hardmax(b: Any, x: Any, *, axis: int = -1) -> Any:
    return b.hardmax(x, axis=axis)
