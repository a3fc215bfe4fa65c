"""Operators of com.microsoft that are several of ai.onnx in one, as the optimiser of ONNX Runtime writes them."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.contraction import Conv
from compiler.onnx.registry import onnx_op
from ir.op import OpError

_MS = "com.microsoft"


def activated(b: Any, x: Any, name: str, parameters: tuple[float, ...]) -> Any:
    """x after the activation of a fused operator; parameters are the activation's attributes."""
    match name:
        case "":
            return x
        case "Relu" | "Tanh" | "Sigmoid":
            return getattr(b, name.lower())(x)
        case "LeakyRelu" if len(parameters) == 1:
            return b.leaky_relu(x, alpha=parameters[0])
        case "Clip" if len(parameters) == 2:
            return b.clip(x, *(b.const(p, x.dtype) for p in parameters))
        case "HardSigmoid" if len(parameters) == 2:
            return b.hard_sigmoid(x, alpha=parameters[0], beta=parameters[1])
    raise OpError(f"activation '{name}' with parameters {list(parameters)} is not supported")


@onnx_op("FusedConv", domain=_MS)
def FusedConv(
    b: Any, X: Any, W: Any, B: Any = None, Z: Any = None, *, activation: str = "",
    activation_params: tuple[float, ...] = (), auto_pad: str = "NOTSET", dilations: tuple[int, ...] = (),
    group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    y = Conv(b, X, W, B, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
             strides=strides)  # fmt: skip
    return activated(b, y if Z is None else y + Z, activation, activation_params)


def _transposed(b: Any, x: Any, trans: int, trans_batch: int) -> Any:
    """An operand of FusedMatMul: the first axis moved behind the batch, and the axes of the matrix exchanged."""
    if x.rank < 2:
        return x
    if trans_batch:
        x = b.transpose(x, perm=(*range(1, x.rank - 1), 0, x.rank - 1))
    return b.transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2)) if trans else x


@onnx_op("FusedMatMul", domain=_MS)
def FusedMatMul(
    b: Any, A: Any, B: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0,
    transBatchB: int = 0,
) -> Any:  # fmt: skip
    y = b.matmul(_transposed(b, A, transA, transBatchA), _transposed(b, B, transB, transBatchB))
    return y if alpha == 1.0 else y * alpha


@onnx_op("FusedGemm", domain=_MS)
def FusedGemm(
    b: Any, A: Any, B: Any, C: Any = None, *, activation: str = "", activation_alpha: float = 0.0,
    activation_beta: float = 0.0, activation_gamma: float = 0.0, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,
) -> Any:  # fmt: skip
    y = b.matmul(_transposed(b, A, transA, 0), _transposed(b, B, transB, 0)) * alpha
    y = y if C is None else y + C * beta
    parameters = {"LeakyRelu": (activation_alpha,), "HardSigmoid": (activation_alpha, activation_beta)}
    return activated(b, y, activation, parameters.get(activation, ()))
