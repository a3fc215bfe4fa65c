"""Operators of com.microsoft that compute on quantised tensors."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.quantized import integer_product, rank0
from compiler.onnx.ops.recurrent import recurrent_attributes
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.ops.recurrent_quantized import QuantizedLstmScan

_MS = "com.microsoft"


def _per_direction(b: Any, parameter: Any, count: int) -> Any:
    """A scale or zero point of rank 1 (one per direction) or 2 (one per gate as well) as [d, 1] or [d, g]."""
    return b.reshape(parameter, shape=(count, 1)) if parameter.rank < 2 else parameter


@onnx_op("DynamicQuantizeLSTM", domain=_MS)
def DynamicQuantizeLSTM(
    b: Any, X: Any, W: Any, R: Any, B: Any = None, sequence_lens: Any = None, initial_h: Any = None,
    initial_c: Any = None, P: Any = None, W_scale: Any = None, W_zero_point: Any = None, R_scale: Any = None,
    R_zero_point: Any = None, *, activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] = (), clip: float = 0.0, direction: str = "forward", hidden_size: int = 0,
    input_forget: int = 0,
) -> Any:  # fmt: skip
    if None in (W_scale, W_zero_point, R_scale, R_zero_point):
        raise OpError("the scales and zero points of W and R must be given")
    default = ("sigmoid", "tanh", "tanh")
    given = recurrent_attributes(activations, default, direction, activation_alpha, activation_beta, clip)
    time, batch, inputs = X.shape
    count, _, width = W.shape
    w_scale, w_zero, r_scale, r_zero = (
        _per_direction(b, v, count) for v in (W_scale, W_zero_point, R_scale, R_zero_point)
    )
    x, x_scale, x_zero = b.dynamic_quantize(X)
    w_zero = b.reshape(w_zero, shape=(count, 1, w_zero.shape[1]))
    product = b.matmul_integer(b.reshape(x, shape=(1, time * batch, inputs)), W, x_zero, w_zero)
    xw = b.cast(product, to=t.f32) * (x_scale * b.reshape(w_scale, shape=(count, 1, w_scale.shape[1])))
    if B is not None:
        xw = xw + b.reshape(_bias(b, B, width), shape=(count, 1, width))
    xw = b.transpose(b.reshape(xw, shape=(count, time, batch, width)), perm=(1, 2, 0, 3))
    xw = b.reshape(xw, shape=(time, batch, count * width))
    scan = QuantizedLstmScan(input_forget=bool(input_forget), **given)
    return b.apply(scan, xw, R, r_scale, r_zero, P, sequence_lens, initial_h, initial_c)[:3]


def _bias(b: Any, bias: Any, width: int) -> Any:
    """The biases of inputs and states, added: [d, 4h] of [d, 8h]."""
    count = bias.shape[0]
    halves = [b.slice(bias, starts=(0, first), shape=(count, width), steps=(1, 1)) for first in (0, width)]
    return halves[0] + halves[1]


@onnx_op("DynamicQuantizeMatMul", domain=_MS)
def DynamicQuantizeMatMul(b: Any, A: Any, B: Any, b_scale: Any, b_zero_point: Any = None, bias: Any = None) -> Any:
    a, a_scale, a_zero = b.dynamic_quantize(A)
    y = b.cast(integer_product(b, a, B, a_zero, b_zero_point), to=t.f32) * (a_scale * rank0(b, b_scale))
    return y if bias is None else y + bias


@onnx_op("MatMulIntegerToFloat", domain=_MS)
def MatMulIntegerToFloat(
    b: Any, A: Any, B: Any, a_scale: Any, b_scale: Any, a_zero_point: Any = None, b_zero_point: Any = None,
    bias: Any = None,
) -> Any:  # fmt: skip
    scale = rank0(b, a_scale) * rank0(b, b_scale)
    product = b.cast(integer_product(b, A, B, a_zero_point, b_zero_point), to=scale.dtype)
    return product * scale if bias is None else product * scale + bias
