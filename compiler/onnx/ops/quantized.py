"""Quantisation of ai.onnx, and the convolution of com.microsoft, which may have its channels last."""

from __future__ import annotations

from typing import Any

from compiler.onnx.load import element_type
from compiler.onnx.ops.windows import channels_first, channels_last_again, window
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.types import DType


def granularity(x: Any, scale: Any, axis: int, block_size: int) -> tuple[int, int]:
    """The axis along which scales differ, and the length of a block of it (0: one entry), for `ir.ops.quantized`."""
    if scale.rank == 0 or scale.shape == (1,):
        return 0, 0
    if scale.rank == 1 and x.rank == 1 and not block_size:
        return 0, 0
    if not -x.rank <= axis < x.rank:
        raise OpError(f"`axis` is {axis}, the input {x.type}")
    axis = axis + x.rank if axis < 0 else axis
    if scale.rank == 1 and not (block_size and x.rank == 1):
        return axis, 0
    if block_size <= 0:
        raise OpError(f"the scale is {scale.type}; `block_size` must say how long its blocks are")
    return axis, block_size


def quantized(
    b: Any,
    x: Any,
    scale: Any,
    zero_point: Any,
    to: DType,
    axis: int,
    block_size: int = 0,
    saturate: int = 1,
    precision: int = 0,
) -> Any:
    """QuantizeLinear of any version."""
    axis, block = granularity(x, scale, axis, block_size)
    exact = element_type(precision) if precision else None
    return b.quantize(x, scale, zero_point, to=to, axis=axis, block=block, saturate=bool(saturate), precision=exact)


def dequantized(
    b: Any, x: Any, scale: Any, zero_point: Any, axis: int, block_size: int = 0, output_dtype: int = 0
) -> Any:
    """DequantizeLinear of any version."""
    axis, block = granularity(x, scale, axis, block_size)
    to = element_type(output_dtype) if output_dtype else scale.dtype
    if to == t.f8e8m0:
        raise OpError(f"`output_dtype` must be given: no output has the type of the scale, {to}")
    return b.dequantize(x, scale, zero_point, to=to, axis=axis, block=block)


@onnx_op("QuantizeLinear", since=10)
def QuantizeLinear(
    b: Any, x: Any, y_scale: Any, y_zero_point: Any = None, *, axis: int = 1, block_size: int = 0,
    output_dtype: int = 0, precision: int = 0, saturate: int = 1,
) -> Any:  # fmt: skip
    to = element_type(output_dtype) if output_dtype else t.u8
    if y_zero_point is not None:
        if output_dtype and y_zero_point.dtype != to:
            raise OpError(f"`output_dtype` is {to}, y_zero_point {y_zero_point.type}")
        to = y_zero_point.dtype
    return quantized(b, x, y_scale, y_zero_point, to, axis, block_size, saturate, precision)


@onnx_op("DequantizeLinear", since=10)
def DequantizeLinear(
    b: Any, x: Any, x_scale: Any, x_zero_point: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Any:
    return dequantized(b, x, x_scale, x_zero_point, axis, block_size, output_dtype)


@onnx_op("DynamicQuantizeLinear", since=11)
def DynamicQuantizeLinear(b: Any, x: Any) -> Any:
    return b.dynamic_quantize(x)


def integer_product(b: Any, x: Any, y: Any, x_zero: Any, y_zero: Any) -> Any:
    """x @ y in i32. A zero point of rank 1 belongs to the rows of x and to the columns of y."""
    if x_zero is not None and x_zero.rank == 1 and x_zero.shape != (1,):
        x_zero = b.reshape(x_zero, shape=(*x_zero.shape, 1))
    vector_x, vector_y = x.rank == 1, y.rank == 1
    x = b.reshape(x, shape=(1, *x.shape)) if vector_x else x
    y = b.reshape(y, shape=(*y.shape, 1)) if vector_y else y
    product = b.matmul_integer(x, y, x_zero, y_zero)
    if not vector_x and not vector_y:
        return product
    rows, columns = product.shape[-2:]
    kept = (() if vector_x else (rows,)) + (() if vector_y else (columns,))
    return b.reshape(product, shape=(*product.shape[:-2], *kept))


@onnx_op("MatMulInteger", since=10)
def MatMulInteger(b: Any, A: Any, B: Any, a_zero_point: Any = None, b_zero_point: Any = None) -> Any:
    return integer_product(b, A, B, a_zero_point, b_zero_point)


def rank0(b: Any, x: Any) -> Any:
    """A parameter of one element with rank 0; others, and None, as they are."""
    return b.reshape(x, shape=()) if x is not None and x.shape == (1,) else x


@onnx_op("ConvInteger", since=10)
def ConvInteger(
    b: Any, x: Any, w: Any, x_zero_point: Any = None, w_zero_point: Any = None, *, auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] = (), group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    at = window(x, w.shape[2:], auto_pad=auto_pad, strides=strides, dilations=dilations, pads=pads)
    zeros = rank0(b, x_zero_point), rank0(b, w_zero_point)
    return b.conv_integer(x, w, *zeros, stride=at.stride, pad=at.pad, dilation=at.dilation, groups=group)


@onnx_op("QLinearConv", since=10)
@onnx_op("QLinearConv", since=1, domain="com.microsoft")
def QLinearConv(
    b: Any, x: Any, x_scale: Any, x_zero_point: Any, w: Any, w_scale: Any, w_zero_point: Any, y_scale: Any,
    y_zero_point: Any, bias: Any = None, *, auto_pad: str = "NOTSET", dilations: tuple[int, ...] = (),
    group: int = 1, kernel_shape: tuple[int, ...] = (), pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
    channels_last: int = 0,
) -> Any:  # fmt: skip
    x = channels_first(b, x, channels_last)
    acc = ConvInteger(b, x, w, x_zero_point, w_zero_point, auto_pad=auto_pad, dilations=dilations, group=group,
                      pads=pads, strides=strides)  # fmt: skip
    if bias is not None:
        acc = acc + b.reshape(bias, shape=(*bias.shape, *[1] * (acc.rank - 2)))
    multiplier = rank0(b, x_scale) * rank0(b, w_scale) / rank0(b, y_scale)
    y = b.requantize(acc, multiplier, rank0(b, y_zero_point), to=y_zero_point.dtype, axis=1)
    return channels_last_again(b, y, channels_last)


@onnx_op("QLinearMatMul", since=10)
def QLinearMatMul(
    b: Any,
    A: Any,
    a_scale: Any,
    a_zero_point: Any,
    B: Any,
    b_scale: Any,
    b_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
) -> Any:
    if any(v.dtype.is_float for v in (A, B, y_zero_point)):
        product = _float_product(b, (A, a_scale, a_zero_point), (B, b_scale, b_zero_point))
        return quantized(b, product, _wide(b, y_scale), y_zero_point, y_zero_point.dtype, axis=-2)
    acc = integer_product(b, A, B, a_zero_point, b_zero_point)
    scales = [b.cast(v, to=t.f32) if v.dtype != t.f32 else v for v in (a_scale, b_scale, y_scale)]
    left, right, out = (rank0(b, v) for v in scales)
    zero = rank0(b, y_zero_point)
    if left.rank == 0 and out.rank == 0 and zero.rank == 0 and right.rank <= 1 and A.rank > 1 and B.rank > 1:
        return b.requantize(acc, left * right / out, zero, to=zero.dtype, axis=acc.rank - 1)
    if left.rank == 1:
        left = b.reshape(left, shape=(*left.shape, 1))
    if out.rank == 1:
        out, zero = (b.reshape(v, shape=(*v.shape, 1)) if v.rank == 1 else v for v in (out, zero))
    product = b.cast(acc, to=t.f32) * (left * right / out)
    rounded = b.round(product) + b.cast(zero, to=t.f32)
    low, high = integer_range(y_zero_point.dtype)
    return b.cast(b.clip(rounded, b.const(low, t.f32), b.const(high, t.f32)), to=y_zero_point.dtype)


def _wide(b: Any, scale: Any) -> Any:
    return scale if scale.dtype == t.f32 else b.cast(scale, to=t.f32)


def _float_product(b: Any, left: tuple[Any, Any, Any], right: tuple[Any, Any, Any]) -> Any:
    """The product in f32 of what two quantized operands stand for; scales of rank 1 are of rows, and of columns."""
    factors = [
        dequantized(b, x, _wide(b, scale), zero, axis=axis, output_dtype=1)
        for (x, scale, zero), axis in ((left, -2), (right, -1))
    ]
    return b.matmul(*factors)


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and greatest number of an integer type."""
    if dtype.kind == "uint":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
