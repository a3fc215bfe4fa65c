"""Quantised tensors: conversion from and to them, and contractions of integers with zero points.

Rounding is to the nearest, ties to even; integers clamp to the range of their type. Sums are i32 and wrap. Scales and
zero points are one number, one per entry of an axis, or one per block of an axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, ceil_div, decide_eq
from ir.element import Tensor, apply, cast, highest, lowest, sum_over
from ir.expr import Expr
from ir.functions import convert
from ir.op import Op, OpError, assume_equal, case, ints, op, require, sizes
from ir.ops.contraction import Conv, Matmul
from ir.ops.elementwise import broadcasts_to
from ir.ops.reduction import accumulator
from ir.types import DType, TensorType, dtype_of


def check_parameter(what: str, x: TensorType, parameter: TensorType | None, axis: int, block: int) -> None:
    """Raises OpError unless a scale or zero point fits `x`: rank 0, one element, one per entry or block of `axis`."""
    if parameter is None or parameter.rank == 0 or parameter.shape == (1,):
        return
    require(0 <= axis < x.rank, lambda: f"{what}: axis {axis} of {x}")
    expected: tuple[Size, ...] = (x.shape[axis],)
    if block:
        expected = (*x.shape[:axis], ceil_div(x.shape[axis], block), *x.shape[axis + 1 :])
    fits = parameter.rank == len(expected) and all(
        decide_eq(a, b) is not False for a, b in zip(parameter.shape, expected)
    )
    require(fits, lambda: f"{what} of {x} along axis {axis} with blocks of {block or 1} is {parameter}")
    for a, b in zip(parameter.shape, expected):
        assume_equal(a, b)


def parameter_at(parameter: Tensor, i: tuple[Expr, ...], axis: int, block: int) -> Expr:
    """The scale or zero point that belongs to the element at index `i`."""
    if parameter.rank == 0:
        return parameter.at()
    if parameter.shape == (1,):
        return parameter.at(0)
    if block:
        return parameter.at(*i[:axis], i[axis] // block, *i[axis + 1 :])
    return parameter.at(i[axis])


def spread(parameter: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """A scale or zero point as an array that broadcasts against one of `shape`."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    if block:
        return np.repeat(parameter, block, axis=axis).take(np.arange(shape[axis]), axis=axis)
    return parameter.reshape([-1 if a == axis else 1 for a in range(len(shape))])


@op
class Quantize(Op):
    """x / scale + zero_point as `to`, rounded and clamped. ONNX QuantizeLinear.

    The quotient is taken in `precision` (default: the type of the scale). Narrow floats clamp where `saturate`.
    """

    to: DType
    axis: int = 0
    block: int = 0
    saturate: bool = True
    precision: DType | None = None
    examples = [
        case(np.array([0.5, 1.5, -2.5, 600, -3], np.float32), np.array(1, np.float32), np.array(2, np.uint8), to=t.u8),
        case("f32[2,3]", "f32[3]", np.array([1, -1, 0], np.int8), to=t.i8, axis=1),
        case("f32[2,5]", np.full((2, 2), 0.25, np.float32), None, to=t.i4, axis=1, block=3),
        case("f16[4]", np.array(0.1, np.float16), None, to=t.i16, precision=t.f32),
        case(np.array([1e6, 0.3, -7], np.float32), np.array(2, np.float32), None, to=t.f8e4m3fn),
        case(np.array([7, -9], np.int32), np.array(2, np.float32), None, to=t.i8),
    ]

    def quotient(self, x: DType, scale: DType) -> DType:
        """The type in which x / scale is computed."""
        if self.precision is not None:
            return self.precision
        wide = next((d for d in (t.f64, t.f32) if d in (x, scale)), None)
        return wide or (scale if scale in (t.f16, t.bf16) else t.f32)

    def infer(self, x: TensorType, scale: TensorType, zero_point: TensorType | None = None) -> TensorType:
        require(x.dtype.kind in ("float", "int"), lambda: f"quantize does not take {x.dtype}")
        require(self.to.is_integer or (self.to.is_float and self.to.bits <= 8), lambda: f"quantize: to {self.to}")
        require(zero_point is None or zero_point.dtype == self.to, lambda: f"quantize: zero_point is {zero_point}")
        check_parameter("scale", x, scale, self.axis, self.block)
        check_parameter("zero_point", x, zero_point, self.axis, self.block)
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None) -> np.ndarray:
        exact = self.quotient(dtype_of(x), dtype_of(scale)).numpy
        with np.errstate(all="ignore"):
            y = x.astype(exact) / spread(scale, x.shape, self.axis, self.block).astype(exact)
            if self.to.is_float:
                if zero_point is not None:
                    y = y.astype(np.float32) + spread(zero_point, x.shape, self.axis, self.block).astype(np.float32)
                return convert(y, self.to, self.saturate)
            y = np.rint(y).astype(np.float32)
            if zero_point is not None:
                y = y + spread(zero_point, x.shape, self.axis, self.block).astype(np.float32)
            return np.clip(y, lowest(self.to), highest(self.to)).astype(np.int32).astype(self.to.numpy)

    def element(self, i: tuple[Expr, ...], x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Expr:
        exact = self.quotient(x.dtype, scale.dtype)
        y = cast(x.at(*i), exact) / cast(parameter_at(scale, i, self.axis, self.block), exact)
        if self.to.is_integer:
            y = cast(apply("round", y), t.f32)
        if zero_point is not None:
            y = cast(y, t.f32) + cast(parameter_at(zero_point, i, self.axis, self.block), t.f32)
        return clamped(y, self.to) if self.to.is_integer else cast(y, self.to, self.saturate)


def clamped(y: Expr, to: DType) -> Expr:
    """A float of integer value as `to`, clamped to its range."""
    return cast(apply("min", apply("max", y, lowest(to)), highest(to)), to)


@op
class Dequantize(Op):
    """(x - zero_point) * scale as `to`, computed in f32. ONNX DequantizeLinear.

    The zero point may be one number where the scale has many, and may be a float.
    """

    to: DType = t.f32
    axis: int = 0
    block: int = 0
    examples = [
        case("u8[2,3]", np.array(0.5, np.float32), np.array(3, np.uint8)),
        case("i8[2,3]", "f32[3]", "i8[3]", axis=1),
        case("i4[2,5]", "f32[2,2]", "i4[2,2]", axis=1, block=3),
        case("u8[2,4]", "f16[2,2]", np.array(8, np.uint8), axis=1, block=2, to=t.f16),
        case("i32[4]", np.array(0.1, np.float32), None),
        case("f8e5m2[4]", np.array(2, np.float32), None),
    ]

    def infer(self, x: TensorType, scale: TensorType, zero_point: TensorType | None = None) -> TensorType:
        require(x.dtype.kind in ("int", "uint", "float"), lambda: f"dequantize does not take {x.dtype}")
        require(self.to.is_float, lambda: f"dequantize: to {self.to}")
        check_parameter("scale", x, scale, self.axis, self.block)
        check_parameter("zero_point", x, zero_point, self.axis, self.block)
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None) -> np.ndarray:
        exact = accumulator(self.to).numpy
        y = x.astype(exact)
        if zero_point is not None:
            y = y - spread(zero_point, x.shape, self.axis, self.block).astype(exact)
        return convert(y * spread(scale, x.shape, self.axis, self.block).astype(exact), self.to)

    def element(self, i: tuple[Expr, ...], x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Expr:
        exact = accumulator(self.to)
        y = cast(x.at(*i), exact)
        if zero_point is not None:
            y = y - cast(parameter_at(zero_point, i, self.axis, self.block), exact)
        return cast(y * cast(parameter_at(scale, i, self.axis, self.block), exact), self.to)


@op
class UnpackBits(Op):
    """The first `size` unsigned numbers of `bits` bits that the bytes of the last axis hold, the lowest bits first."""

    bits: int
    size: Size
    examples = [case("u8[2,3]", bits=4, size=5), case("u8[3]", bits=2, size=12), case("u8[2,2]", bits=8, size=2)]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype == t.u8 and x.rank >= 1, lambda: f"unpack_bits does not take {x}")
        require(self.bits in (1, 2, 4, 8), lambda: f"unpack_bits: {self.bits} bits")
        have = x.shape[-1] * (8 // self.bits)
        require(not (isinstance(have, int) and isinstance(self.size, int)) or self.size <= have,
                lambda: f"unpack_bits: {x} holds {have} numbers, not {self.size}")  # fmt: skip
        return x.with_shape((*x.shape[:-1], self.size))

    def reference(self, x: np.ndarray) -> np.ndarray:
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        parts = (x[..., None] >> shifts) & np.uint8((1 << self.bits) - 1)
        return parts.reshape(*x.shape[:-1], -1)[..., : int(self.size)]

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        per_byte = 8 // self.bits
        byte = x.at(*i[:-1], i[-1] // per_byte)
        if per_byte == 1:
            return byte
        return apply("and", apply("shr", byte, cast(i[-1] % per_byte * self.bits, t.u8)), (1 << self.bits) - 1)


@op
class DynamicQuantize(Op):
    """x as u8 with the scale and zero point that fit its range, which is made to hold 0. ONNX DynamicQuantizeLinear.

    Outputs y, scale[], zero_point[]. A tensor of zeros has scale 1.
    """

    examples = [case("f32[2,5]"), case(np.zeros(3, np.float32)), case(np.array([-1, -4, -2.5], np.float32))]

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require(x.dtype == t.f32, lambda: f"dynamic_quantize does not take {x.dtype}")
        return x.with_dtype(t.u8), TensorType(t.f32, ()), TensorType(t.u8, ())

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        low, high = np.min(x, initial=np.float32(0)), np.max(x, initial=np.float32(0))
        scale = np.asarray((high - low) / np.float32(255) if high > low else 1, np.float32)
        zero_point = np.asarray(np.rint(np.clip(-low / scale, 0, 255))).astype(np.uint8)
        return Quantize(t.u8).reference(x, scale, zero_point), scale, zero_point

    def expand(self, b: Any, x: Any) -> tuple[Any, ...]:
        axes = tuple(range(x.rank))
        low = b.min(b.reduce_min(x, axes=axes, keepdims=False), 0.0)
        high = b.max(b.reduce_max(x, axes=axes, keepdims=False), 0.0)
        scale = b.where(b.greater(high, low), (high - low) / 255.0, b.const(1.0, t.f32))
        nearest = b.round(b.clip(-low / scale, b.const(0.0, t.f32), b.const(255.0, t.f32)))
        zero_point = b.cast(nearest, to=t.u8)
        return b.quantize(x, scale, zero_point, to=t.u8), scale, zero_point


@op
class MatmulInteger(Op):
    """Matrix product in i32 of x - x_zero and y - y_zero. Zero points broadcast against their operands."""

    index_names = "b h m n"
    examples = [
        case("u8[3,4]", "i8[4,5]"),
        case("u8[2,3,4]", "u8[4,5]", np.array(3, np.uint8), np.array([1, 2, 3, 4, 5], np.uint8)),
        case("i8[3,4]", "i8[4,2]", "i8[3,1]", "i8[1,2]"),
    ]

    def infer(
        self, x: TensorType, y: TensorType, x_zero: TensorType | None = None, y_zero: TensorType | None = None
    ) -> TensorType:
        for operand, zero in ((x, x_zero), (y, y_zero)):
            if not operand.dtype.is_integer or operand.rank < 2:
                raise OpError(f"matmul_integer does not take {operand}")
            if zero is not None and not broadcasts_to(zero.shape, operand.shape):
                raise OpError(f"matmul_integer: zero point {zero} of {operand}")
        return Matmul().infer(x.with_dtype(t.i32), y.with_dtype(t.i32))

    def reference(
        self, x: np.ndarray, y: np.ndarray, x_zero: np.ndarray | None = None, y_zero: np.ndarray | None = None
    ) -> np.ndarray:
        return np.matmul(from_zero(x, x_zero), from_zero(y, y_zero))

    def element(
        self, i: tuple[Expr, ...], x: Tensor, y: Tensor, x_zero: Tensor | None = None, y_zero: Tensor | None = None
    ) -> Expr:
        *batch, m, n = i

        def operand(tensor: Tensor, zero: Tensor | None, index: tuple[Expr, ...]) -> Expr:
            value = cast(tensor.broadcast_at(index), t.i32)
            return value if zero is None else value - cast(zero.stretched_at(index, tensor.shape), t.i32)

        def term(k: Expr) -> Expr:
            return operand(x, x_zero, (*batch, m, k)) * operand(y, y_zero, (*batch, k, n))

        return sum_over(x.shape[-1:], term)


def from_zero(x: np.ndarray, zero: np.ndarray | None) -> np.ndarray:
    """x - zero in i32."""
    return x.astype(np.int32) if zero is None else x.astype(np.int32) - zero.astype(np.int32)


def unsigned(b: Any, x: Any, zero: Any | None) -> tuple[Any, Any | None]:
    """Bytes x of i8 as u8, and the zero point that then is theirs, in i32; None where it is known to be 0."""
    return _shifted(b, x, zero, t.u8, 128 if x.dtype == t.i8 else 0)


def signed(b: Any, w: Any, zero: Any | None) -> tuple[Any, Any | None]:
    """Bytes w of u8 as i8, and the zero point that then is theirs, in i32; None where it is known to be 0."""
    return _shifted(b, w, zero, t.i8, -128 if w.dtype == t.u8 else 0)


def _shifted(b: Any, x: Any, zero: Any | None, to: DType, by: int) -> tuple[Any, Any | None]:
    if by:
        x = b.cast(b.cast(x, to=t.i16) + b.const(by, t.i16), to=to)
    if zero is None:
        return x, b.const(by, t.i32) if by else None
    level = b.cast(zero, to=t.i32)
    level = level + b.const(by, t.i32) if by else level
    content = level.content
    return x, None if content is not None and not content.any() else level


@op
class ConvInteger(Op):
    """Convolution in i32 of x - x_zero[] and w - w_zero[] (or w_zero[o]); padding counts as x_zero.

    Attributes are those of `conv`.
    """

    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    groups: int = 1
    index_names = "n oc oh ow"
    examples = [
        case("u8[1,3,6,6]", "i8[4,3,3,3]", np.array(5, np.uint8), None, stride=(2, 2), pad=(1, 1, 1, 1),
             dilation=(1, 1)),
        case("u8[2,4,7]", "u8[6,2,3]", np.array(1, np.uint8), "u8[6]", stride=(1,), pad=(0, 2), dilation=(2,),
             groups=2),
    ]  # fmt: skip

    def conv(self) -> Conv:
        return Conv(self.stride, self.pad, self.dilation, self.groups)

    def infer(
        self, x: TensorType, w: TensorType, x_zero: TensorType | None = None, w_zero: TensorType | None = None
    ) -> TensorType:
        require(x.dtype.is_integer and w.dtype.is_integer, lambda: f"conv_integer does not take {x} and {w}")
        require(x_zero is None or x_zero.rank == 0, lambda: f"conv_integer: zero point {x_zero} of the input")
        require(w_zero is None or w_zero.rank <= 1, lambda: f"conv_integer: zero point {w_zero} of the weights")
        return self.conv().infer(x.with_dtype(t.i32), w.with_dtype(t.i32))

    def reference(self, x, w, x_zero=None, w_zero=None):
        if w_zero is not None and w_zero.ndim:
            w_zero = w_zero.reshape(-1, *[1] * (w.ndim - 1))
        return self.conv().reference(from_zero(x, x_zero), from_zero(w, w_zero))

    def element(
        self, i: tuple[Expr, ...], x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
    ) -> Expr:
        return self.conv().element(i, from_level(x, x_zero), from_level(w, w_zero))


def from_level(tensor: Tensor, zero: Tensor | None = None) -> Tensor:
    """`tensor` minus its zero point, of which there is one or one for each entry of the first axis, in i32; outside of
    it, 0."""

    def load(index: tuple[Expr, ...], outside: Expr | None) -> Expr:
        if zero is None:
            return cast(tensor.at(*index, outside=None if outside is None else 0), t.i32)
        level = zero.at(*index[: zero.rank])
        value = tensor.at(*index, outside=None if outside is None else level)
        return cast(value, t.i32) - cast(level, t.i32)

    return Tensor(tensor.type.with_dtype(t.i32), load)


@op
class Requantize(Op):
    """sum * multiplier + zero_point as `to`, rounded and clamped. The multiplier may differ along `axis`."""

    to: DType
    axis: int = 0
    examples = [
        case("i32[2,3]", np.array(0.3, np.float32), np.array(4, np.uint8), to=t.u8),
        case(np.array([[100, -100], [5, 7]], np.int32), np.array([0.5, 30], np.float32), None, to=t.i8, axis=1),
    ]

    def infer(self, x: TensorType, multiplier: TensorType, zero_point: TensorType | None = None) -> TensorType:
        require(x.dtype == t.i32 and multiplier.dtype == t.f32, lambda: f"requantize does not take {x}, {multiplier}")
        require(self.to.is_integer, lambda: f"requantize: to {self.to}")
        check_parameter("multiplier", x, multiplier, self.axis, 0)
        check_parameter("zero_point", x, zero_point, self.axis, 0)
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray, multiplier: np.ndarray, zero_point: np.ndarray | None = None) -> np.ndarray:
        y = np.rint(x.astype(np.float32) * spread(multiplier, x.shape, self.axis, 0))
        if zero_point is not None:
            y = y + spread(zero_point, x.shape, self.axis, 0).astype(np.float32)
        return np.clip(y, lowest(self.to), highest(self.to)).astype(np.int32).astype(self.to.numpy)

    def element(self, i: tuple[Expr, ...], x: Tensor, multiplier: Tensor, zero_point: Tensor | None = None) -> Expr:
        y = apply("round", cast(x.at(*i), t.f32) * parameter_at(multiplier, i, self.axis, 0))
        if zero_point is not None:
            y = y + cast(parameter_at(zero_point, i, self.axis, 0), t.f32)
        return clamped(y, self.to)


__all__ = ["ConvInteger", "Dequantize", "MatmulInteger", "Quantize", "Requantize", "UnpackBits"]
