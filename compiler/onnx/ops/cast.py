"""Conversions of ai.onnx, and operators that leave their input as it is."""

from __future__ import annotations

from typing import Any

import onnx

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.types import DType


def _converted(b: Any, x: Any, to: DType, saturate: int = 1, round_mode: str = "up") -> Any:
    if round_mode not in ("up", "down", "nearest"):
        raise OpError(f"`round_mode` is {round_mode!r}; it must be up, down or nearest")
    if x.dtype == to:
        return x
    if to != t.f8e8m0:
        round_mode = "up"
    return b.cast(x, to=to, saturate=bool(saturate), round_mode=round_mode)


@onnx_op("Cast", since=1)
def Cast_1(b: Any, x: Any, *, to: str) -> Any:
    if to not in dict(onnx.TensorProto.DataType.items()):
        raise OpError(f"`to` is {to!r}, which is no element type")
    return _converted(b, x, element_type(onnx.TensorProto.DataType.Value(to)))


@onnx_op("Cast", since=6)
def Cast(b: Any, x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return _converted(b, x, element_type(to), saturate, round_mode)


@onnx_op("CastLike", since=15)
def CastLike(b: Any, x: Any, target_type: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return _converted(b, x, target_type.dtype, saturate, round_mode)


@onnx_op("BitCast", since=26)
def BitCast(b: Any, x: Any, *, to: int) -> Any:
    return b.bit_cast(x, to=element_type(to))


@onnx_op("Identity")
def Identity(b: Any, x: Any) -> Any:
    return x
