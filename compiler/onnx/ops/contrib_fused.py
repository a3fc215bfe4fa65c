"""Products and convolutions of com.microsoft with what follows them, as the optimiser of ONNX Runtime writes them.

What follows a product is computed in f32 at least. The products of narrow floats are rounded before, unless a factor
scales them, which may be there to keep them within their range.
"""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.contraction import Conv, ConvTranspose
from compiler.onnx.ops.shape import normal_axis
from compiler.onnx.ops.windows import channels_first, channels_last_again
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import elements_of, told
from ir.dims import Dim, Size
from ir.op import OpError
from ir.ops.norm import convert, widen

_MS = "com.microsoft"
_PARAMETERS = {
    "Affine": 2, "Celu": 1, "Clip": 2, "Elu": 1, "HardSigmoid": 2, "LeakyRelu": 1, "ParametricSoftplus": 2,
    "ScaledTanh": 2, "Selu": 2, "ThresholdedRelu": 1,
}  # fmt: skip
"""How many numbers an activation takes; others take none, and ignore those they are given."""


def activated(b: Any, x: Any, name: str, parameters: tuple[float, ...]) -> Any:
    """x after the activation of a fused operator; parameters are the activation's attributes."""
    count = _PARAMETERS.get(name, 0)
    if count and len(parameters) != count:
        raise OpError(f"activation '{name}' takes {count} parameters, not {list(parameters)}")
    first, second = (*parameters, 0.0, 0.0)[:2]
    match name:
        case "":
            return x
        case "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign":
            return getattr(b, name.lower())(x)
        case "HardSwish":
            return b.hard_swish(x)
        case "LeakyRelu" | "Elu" | "Celu" | "ThresholdedRelu":
            if name == "Celu" and first == 0:
                raise OpError("the parameter of Celu is 0, by which it would divide")
            names = {"LeakyRelu": "leaky_relu", "ThresholdedRelu": "thresholded_relu"}
            return getattr(b, names.get(name, name.lower()))(x, alpha=first)
        case "Selu":
            return b.selu(x, alpha=first, gamma=second)
        case "HardSigmoid":
            return b.hard_sigmoid(x, alpha=first, beta=second)
        case "Clip":
            return b.clip(x, *(b.const(p, x.dtype) for p in (first, second)))
        case "Affine":
            return x * first + second
        case "ScaledTanh":
            return b.tanh(x * second) * first
        case "ParametricSoftplus":
            return b.softplus(x * second) * first
    raise OpError(f"activation '{name}' is not supported")


@onnx_op("FusedConv", domain=_MS)
def FusedConv(
    b: Any, X: Any, W: Any, B: Any = None, Z: Any = None, *, activation: str = "",
    activation_params: tuple[float, ...] = (), auto_pad: str = "NOTSET", dilations: tuple[int, ...] = (),
    group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    y = Conv(b, X, W, B, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
             strides=strides)  # fmt: skip
    y = widen(b, y) if Z is None else widen(b, y) + widen(b, Z)
    return convert(b, activated(b, y, activation, activation_params), X)


@onnx_op("NhwcFusedConv", domain=_MS)
def NhwcFusedConv(
    b: Any, X: Any, W: Any, B: Any = None, Z: Any = None, *, activation: str = "",
    activation_params: tuple[float, ...] = (), auto_pad: str = "NOTSET", dilations: tuple[int, ...] = (),
    group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    """FusedConv on tensors with their channels last; the weights are [o, c, ...] as everywhere."""
    y = FusedConv(
        b, channels_first(b, X), W, B, None if Z is None else channels_first(b, Z), activation=activation,
        activation_params=activation_params, auto_pad=auto_pad, dilations=dilations, group=group,
        kernel_shape=kernel_shape, pads=pads, strides=strides,
    )  # fmt: skip
    return channels_last_again(b, y)


@onnx_op("NhwcConv", domain=_MS)
def NhwcConv(
    b: Any, X: Any, W: Any, B: Any = None, *, auto_pad: str = "NOTSET", dilations: tuple[int, ...] = (),
    group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    y = Conv(b, channels_first(b, X), W, B, auto_pad=auto_pad, dilations=dilations, group=group,
             kernel_shape=kernel_shape, pads=pads, strides=strides)  # fmt: skip
    return channels_last_again(b, y)


@onnx_op("ConvTransposeWithDynamicPads", domain=_MS)
def ConvTransposeWithDynamicPads(
    b: Any, X: Any, W: Any, Pads: Any = None, B: Any = None, *, auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] = (), group: int = 1, kernel_shape: tuple[int, ...] = (),
    output_padding: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    rank = max(X.rank - 2, 1)
    pads: list[Size] = []
    for n, pad in enumerate(() if Pads is None else elements_of(b, Pads, "Pads")):
        if isinstance(pad, (int, Dim)):
            pads.append(pad)
            continue
        size, span = X.shape[2 + n % rank], W.shape[2 + n % rank]
        most = size * max(strides, default=1) + span * max(dilations, default=1)  # no result is larger
        pads.append(told(b, pad, b.run_time_number(f"pad{n}"), most))
    return ConvTranspose(b, X, W, B, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape,
                         output_padding=output_padding, pads=tuple(pads), strides=strides)  # fmt: skip


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
    left, right = _transposed(b, A, transA, transBatchA), _transposed(b, B, transB, transBatchB)
    return convert(b, _scaled_product(b, left, right, alpha), A)


def _scaled_product(b: Any, left: Any, right: Any, alpha: float) -> Any:
    """alpha * left @ right, in the wide type where alpha is not 1."""
    return b.matmul(left, right) if alpha == 1.0 else b.matmul(widen(b, left), widen(b, right)) * alpha


@onnx_op("TransposeMatMul", domain=_MS)
def TransposeMatMul(b: Any, A: Any, B: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    return FusedMatMul(b, A, B, alpha=alpha, transA=transA, transB=transB)


@onnx_op("SparseToDenseMatMul", domain=_MS)
def SparseToDenseMatMul(b: Any, A: Any, B: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    """A is a sparse initializer, which has become dense."""
    y = b.matmul(_transposed(b, A, transA, 0), _transposed(b, B, transB, 0))
    return y if alpha == 1.0 else y * (alpha if y.dtype.is_float else _whole(alpha))


def _whole(factor: float) -> int:
    if not float(factor).is_integer():
        raise OpError(f"`alpha` is {factor}, which would make integers fractional")
    return int(factor)


@onnx_op("FusedMatMulActivation", domain=_MS)
def FusedMatMulActivation(
    b: Any, A: Any, B: Any, *, activation: str, activation_alpha: float | None = None, activation_axis: int = -1,
    activation_beta: float | None = None, activation_gamma: float | None = None, alpha: float = 1.0, transA: int = 0,
    transB: int = 0, transBatchA: int = 0, transBatchB: int = 0,
) -> Any:  # fmt: skip
    left, right = _transposed(b, A, transA, transBatchA), _transposed(b, B, transB, transBatchB)
    y = widen(b, _scaled_product(b, left, right, alpha))
    if activation in ("Softmax", "LogSoftmax"):
        made = b.softmax if activation == "Softmax" else b.log_softmax
        return convert(b, made(y, axes=(normal_axis(activation_axis, y.rank),)), A)
    given = _parameters(activation, activation_alpha, activation_beta, activation_gamma)
    return convert(b, activated(b, y, activation, given), A)


def _parameters(activation: str, alpha: float | None, beta: float | None, gamma: float | None) -> tuple[float, ...]:
    """Attributes of a fused operator as the parameters of its activation."""
    second = gamma if activation == "Selu" else beta
    wanted = (alpha, second)[: _PARAMETERS.get(activation, 0)]
    return tuple(v for v in wanted if v is not None)


@onnx_op("FusedGemm", domain=_MS)
def FusedGemm(
    b: Any, A: Any, B: Any, C: Any = None, *, activation: str = "", activation_alpha: float | None = None,
    activation_beta: float | None = None, activation_gamma: float | None = None, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,
) -> Any:  # fmt: skip
    if A.rank != 2 or B.rank != 2:
        raise OpError(f"operands are {A.type} and {B.type}; both must have 2 axes")
    if not A.dtype.is_float:
        raise OpError(f"an activation of {A.dtype} is not supported")
    left, right = _transposed(b, A, transA, 0), _transposed(b, B, transB, 0)
    y = widen(b, _scaled_product(b, left, right, alpha))
    if C is not None and beta != 0:
        y = y + (widen(b, C) if beta == 1.0 else widen(b, C) * beta)
    given = _parameters(activation, activation_alpha, activation_beta, activation_gamma)
    return convert(b, activated(b, y, activation, given), A)


@onnx_op("GemmFastGelu", domain=_MS)
def GemmFastGelu(b: Any, X: Any, W: Any, bias: Any = None) -> Any:
    y = widen(b, b.matmul(X, W))
    return convert(b, b.gelu(y if bias is None else y + widen(b, bias), approximate=True), X)
