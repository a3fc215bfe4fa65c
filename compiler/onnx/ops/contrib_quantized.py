"""Operators of com.microsoft that compute on quantised tensors."""

from __future__ import annotations

import math
from typing import Any

from onnx import TensorProto

from compiler.onnx.ops.pooling import AveragePool
from compiler.onnx.ops.quantized import dequantized, integer_product, integer_range, quantized, rank0
from compiler.onnx.ops.shape import normal_axis
from compiler.onnx.ops.windows import channels_first, channels_last_again
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError

_MS = "com.microsoft"
FLOAT = int(TensorProto.FLOAT)
"""The element type f32, as attributes spell it."""


@onnx_op("QuantizeLinear", domain=_MS)
def QuantizeLinear(b: Any, x: Any, y_scale: Any, y_zero_point: Any = None, *, axis: int = 1) -> Any:
    """Halves are divided in f32, unlike by the operator of ai.onnx."""
    to = t.u8 if y_zero_point is None else y_zero_point.dtype
    return quantized(b, x, y_scale, y_zero_point, to, axis, precision=FLOAT)


@onnx_op("DequantizeLinear", domain=_MS)
def DequantizeLinear(b: Any, x: Any, x_scale: Any, x_zero_point: Any = None, *, axis: int = 1) -> Any:
    return dequantized(b, x, x_scale, x_zero_point, axis)


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
    scales = [v if v.dtype == t.f32 else b.cast(v, to=t.f32) for v in (a_scale, b_scale)]
    scale = rank0(b, scales[0]) * rank0(b, scales[1])
    y = b.cast(integer_product(b, A, B, a_zero_point, b_zero_point), to=t.f32) * scale
    y = y if a_scale.dtype == t.f32 else b.cast(y, to=a_scale.dtype)
    return y if bias is None else y + bias


def real(b: Any, x: Any, scale: Any, zero: Any) -> Any:
    """The numbers that a quantised tensor stands for."""
    return b.dequantize(x, rank0(b, scale), rank0(b, zero), to=scale.dtype)


def quantised(b: Any, y: Any, scale: Any, zero: Any, like: Any) -> Any:
    """Numbers as a quantised tensor, of the type of `like` where there is no zero point."""
    to = like.dtype if zero is None else zero.dtype
    return b.quantize(y, rank0(b, scale), rank0(b, zero), to=to)


def _levels(b: Any, x: Any, zero: Any) -> Any:
    """x - zero in f32, which is exact."""
    levels = b.cast(x, to=t.f32)
    return levels if zero is None else levels - b.cast(rank0(b, zero), to=t.f32)


def _nearest(b: Any, y: Any, zero: Any, like: Any) -> Any:
    """y + zero, rounded and clamped: unlike in QuantizeLinear, the zero point is added before ties go to even."""
    to = like.dtype if zero is None else zero.dtype
    y = y if zero is None else y + b.cast(rank0(b, zero), to=t.f32)
    low, high = integer_range(to)
    return b.cast(b.clip(b.round(y), b.const(low, t.f32), b.const(high, t.f32)), to=to)


@onnx_op("QLinearAdd", domain=_MS)
def QLinearAdd(
    b: Any,
    A: Any,
    A_scale: Any,
    A_zero: Any | None,
    B: Any,
    B_scale: Any,
    B_zero: Any | None,
    C_scale: Any,
    C_zero: Any = None,
) -> Any:
    left, right = (rank0(b, scale) / rank0(b, C_scale) for scale in (A_scale, B_scale))
    return _nearest(b, _levels(b, A, A_zero) * left + _levels(b, B, B_zero) * right, C_zero, A)


@onnx_op("QLinearMul", domain=_MS)
def QLinearMul(
    b: Any,
    A: Any,
    A_scale: Any,
    A_zero: Any | None,
    B: Any,
    B_scale: Any,
    B_zero: Any | None,
    C_scale: Any,
    C_zero: Any = None,
) -> Any:
    scale = rank0(b, A_scale) * rank0(b, B_scale) / rank0(b, C_scale)
    return _nearest(b, _levels(b, A, A_zero) * _levels(b, B, B_zero) * scale, C_zero, A)


@onnx_op("QLinearSigmoid", domain=_MS)
def QLinearSigmoid(b: Any, X: Any, X_scale: Any, X_zero: Any | None, Y_scale: Any, Y_zero: Any = None) -> Any:
    return quantised(b, b.sigmoid(real(b, X, X_scale, X_zero)), Y_scale, Y_zero, X)


@onnx_op("QLinearLeakyRelu", domain=_MS)
def QLinearLeakyRelu(
    b: Any,
    X: Any,
    X_scale: Any,
    X_zero: Any | None,
    Y_scale: Any,
    Y_zero: Any = None,
    *,
    alpha: float = 0.009999999776482582,
) -> Any:
    return quantised(b, b.leaky_relu(real(b, X, X_scale, X_zero), alpha=alpha), Y_scale, Y_zero, X)


@onnx_op("QLinearSoftmax", domain=_MS)
def QLinearSoftmax(
    b: Any, X: Any, X_scale: Any, X_zero: Any | None, Y_scale: Any, Y_zero: Any, *, axis: int = -1, opset: int
) -> Any:
    first = normal_axis(axis, X.rank)
    axes = (first,) if opset >= 13 else tuple(range(first, X.rank))
    return quantised(b, b.softmax(real(b, X, X_scale, X_zero), axes=axes), Y_scale, Y_zero, X)


@onnx_op("QLinearConcat", domain=_MS)
def QLinearConcat(b: Any, Y_scale: Any, Y_zero: Any, *inputs: Any, axis: int) -> Any:
    if not inputs or len(inputs) % 3:
        raise OpError(
            f"it has {len(inputs)} inputs after the first two; each tensor comes with a scale and a zero point"
        )
    given = [inputs[i : i + 3] for i in range(0, len(inputs), 3)]
    parts = [quantised(b, real(b, *part), Y_scale, Y_zero, inputs[0]) for part in given]
    return b.concat(*parts, axis=normal_axis(axis, parts[0].rank))


@onnx_op("QLinearWhere", domain=_MS)
def QLinearWhere(
    b: Any, condition: Any, X: Any, X_scale: Any, X_zero: Any, Y: Any, Y_scale: Any, Y_zero: Any, Z_scale: Any,
    Z_zero: Any,
) -> Any:  # fmt: skip
    parts = (X, X_scale, X_zero), (Y, Y_scale, Y_zero)
    return b.where(condition, *(quantised(b, real(b, *part), Z_scale, Z_zero, X) for part in parts))


def _pooled(b: Any, X: Any, scales: tuple[Any, Any], zeros: tuple[Any, Any], axes: tuple[int, ...], keep: bool) -> Any:
    """The mean over `axes`, whose sum is taken in integers."""
    count = math.prod(X.shape[axis] for axis in axes)
    total = b.reduce_sum(b.cast(X, to=t.i32), axes=axes, keepdims=keep)
    if zeros[0] is not None:
        total = total - b.cast(rank0(b, zeros[0]), to=t.i32) * b.cast(b.dims(count), to=t.i32)
    scale = rank0(b, scales[0]) / (rank0(b, scales[1]) * b.cast(b.dims(count), to=t.f32))
    to = X.dtype if zeros[1] is None else zeros[1].dtype
    return b.requantize(total, scale, rank0(b, zeros[1]), to=to)


@onnx_op("QLinearGlobalAveragePool", domain=_MS)
def QLinearGlobalAveragePool(
    b: Any, X: Any, X_scale: Any, X_zero: Any | None, Y_scale: Any, Y_zero: Any, *, channels_last: int = 0
) -> Any:
    if X.rank < 3:
        raise OpError(f"the input is {X.type}; it needs a batch axis, a channel axis and at least one more")
    axes = tuple(range(1, X.rank - 1)) if channels_last else tuple(range(2, X.rank))
    return _pooled(b, X, (X_scale, Y_scale), (X_zero, Y_zero), axes, True)


@onnx_op("QLinearAveragePool", domain=_MS)
def QLinearAveragePool(
    b: Any, X: Any, X_scale: Any, X_zero: Any | None, Y_scale: Any, Y_zero: Any = None, *, auto_pad: str = "NOTSET",
    ceil_mode: int = 0, channels_last: int = 0, count_include_pad: int = 0, kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    mean = AveragePool(
        b, channels_first(b, real(b, X, X_scale, X_zero), channels_last), auto_pad=auto_pad, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, kernel_shape=kernel_shape, pads=pads, strides=strides,
    )  # fmt: skip
    return _nearest(b, channels_last_again(b, mean, channels_last) / rank0(b, Y_scale), Y_zero, X)


@onnx_op("QLinearReduceMean", domain=_MS)
def QLinearReduceMean(
    b: Any, data: Any, data_scale: Any, data_zero: Any | None, reduced_scale: Any, reduced_zero: Any = None, *,
    axes: tuple[int, ...], keepdims: int,
) -> Any:  # fmt: skip
    chosen = tuple(sorted(normal_axis(axis, data.rank) for axis in axes)) or tuple(range(data.rank))
    return _pooled(b, data, (data_scale, reduced_scale), (data_zero, reduced_zero), chosen, bool(keepdims))


@onnx_op("ReduceSumInteger", domain=_MS)
def ReduceSumInteger(b: Any, data: Any, *, axes: tuple[int, ...], keepdims: int) -> Any:
    chosen = tuple(sorted(normal_axis(axis, data.rank) for axis in axes)) or tuple(range(data.rank))
    return b.reduce_sum(b.cast(data, to=t.i32), axes=chosen, keepdims=bool(keepdims))


@onnx_op("MulInteger", domain=_MS)
def MulInteger(b: Any, A: Any, A_zero: Any | None, B: Any, B_zero: Any = None) -> Any:
    levels = []
    for x, zero in ((A, A_zero), (B, B_zero)):
        wide = b.cast(x, to=t.i32)
        levels.append(wide if zero is None else wide - b.cast(rank0(b, zero), to=t.i32))
    return levels[0] * levels[1]


@onnx_op("MatMulInteger16", domain=_MS)
def MatMulInteger16(b: Any, A: Any, B: Any) -> Any:
    if A.dtype != t.i16 or B.dtype != t.i16:
        raise OpError(f"operands are {A.type} and {B.type}; products of i16 are supported")
    return integer_product(b, A, B, None, None)


@onnx_op("QGemm", domain=_MS)
def QGemm(
    b: Any, A: Any, a_scale: Any, a_zero: Any, B: Any, b_scale: Any, b_zero: Any, C: Any = None, y_scale: Any = None,
    y_zero: Any = None, *, alpha: float = 1.0, transA: int = 0, transB: int = 0,
) -> Any:  # fmt: skip
    left = b.transpose(A, perm=(1, 0)) if transA else A
    right = b.transpose(B, perm=(1, 0)) if transB else B
    acc = integer_product(b, left, right, rank0(b, a_zero), b_zero)
    acc = acc if C is None else acc + C
    scale = rank0(b, a_scale) * rank0(b, b_scale)
    scale = scale if alpha == 1.0 else scale * alpha
    if y_scale is None:
        return b.cast(acc, to=t.f32) * scale
    to = A.dtype if y_zero is None else y_zero.dtype
    return b.requantize(acc, scale / rank0(b, y_scale), rank0(b, y_zero), to=to, axis=1)
