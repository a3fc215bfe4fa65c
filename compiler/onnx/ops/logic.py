"""Logic, bits, comparisons and choice of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.arithmetic import binary
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError

binary("And", lambda b, a, c: b.and_(a, c))
binary("Or", lambda b, a, c: b.or_(a, c))
binary("Xor", lambda b, a, c: b.xor(a, c))
binary("Equal", lambda b, a, c: b.equal(a, c))
binary("Less", lambda b, a, c: b.less(a, c))
binary("Greater", lambda b, a, c: b.greater(a, c))


@onnx_op("LessOrEqual", since=12)
def LessOrEqual(b: Any, a: Any, c: Any) -> Any:
    return b.less_or_equal(a, c)


@onnx_op("GreaterOrEqual", since=12)
def GreaterOrEqual(b: Any, a: Any, c: Any) -> Any:
    return b.greater_or_equal(a, c)


@onnx_op("Not")
def Not(b: Any, x: Any) -> Any:
    return b.not_(x)


@onnx_op("BitwiseAnd", since=18)
def BitwiseAnd(b: Any, a: Any, c: Any) -> Any:
    return b.and_(a, c)


@onnx_op("BitwiseOr", since=18)
def BitwiseOr(b: Any, a: Any, c: Any) -> Any:
    return b.or_(a, c)


@onnx_op("BitwiseXor", since=18)
def BitwiseXor(b: Any, a: Any, c: Any) -> Any:
    return b.xor(a, c)


@onnx_op("BitwiseNot", since=18)
def BitwiseNot(b: Any, x: Any) -> Any:
    return b.not_(x)


@onnx_op("BitShift", since=11)
def BitShift(b: Any, a: Any, c: Any, *, direction: str) -> Any:
    if direction not in ("LEFT", "RIGHT"):
        raise OpError(f"`direction` is {direction!r}; it must be LEFT or RIGHT")
    return b.shift_left(a, c) if direction == "LEFT" else b.shift_right(a, c)


@onnx_op("IsNaN", since=9)
def IsNaN(b: Any, x: Any) -> Any:
    return b.is_nan(x)


@onnx_op("IsInf", since=10)
def IsInf(b: Any, x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    return b.is_inf(x, positive=bool(detect_positive), negative=bool(detect_negative))


@onnx_op("Where", since=9)
def Where(b: Any, condition: Any, x: Any, y: Any) -> Any:
    if condition.dtype != t.bool_:
        raise OpError(f"the condition is {condition.type}, not bool")
    return b.where(condition, x, y)
