"""Arithmetic of ai.onnx: sums, products, powers, rounding, trigonometry, extremes.

Before opset 7 the second operand broadcast at an `axis`; from then on as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.types import DType

_UNARY = {
    "Abs": ("abs", 1), "Neg": ("neg", 1), "Sign": ("sign", 9), "Sqrt": ("sqrt", 1), "Reciprocal": ("reciprocal", 1),
    "Exp": ("exp", 1), "Log": ("log", 1), "Erf": ("erf", 9), "Floor": ("floor", 1), "Ceil": ("ceil", 1),
    "Round": ("round", 11), "Sin": ("sin", 7), "Cos": ("cos", 7), "Tan": ("tan", 7), "Asin": ("asin", 7),
    "Acos": ("acos", 7), "Atan": ("atan", 7), "Sinh": ("sinh", 9), "Cosh": ("cosh", 9), "Asinh": ("asinh", 9),
    "Acosh": ("acosh", 9), "Atanh": ("atanh", 9), "Tanh": ("tanh", 1), "Sigmoid": ("sigmoid", 1),
}  # fmt: skip


def unary(op_name: str) -> Callable[..., Any]:
    """The importer of an operator that is one op of one operand."""

    def importer(b: Any, x: Any, *, consumed_inputs: tuple[int, ...] = ()) -> Any:
        return getattr(b, op_name)(x)

    return importer


for _name, (_op, _since) in _UNARY.items():
    if _name != "Erf":
        onnx_op(_name, since=_since)(unary(_op))


@onnx_op("Erf", since=9)
def Erf(b: Any, x: Any) -> Any:
    return in_floats(b, b.erf, x, t.f32)


def in_floats(b: Any, function: Callable[..., Any], x: Any, dtype: DType, **attributes: Any) -> Any:
    """`function` of x; of integers in `dtype`, with what lies behind the point cut off."""
    if not x.dtype.is_integer:
        return function(x, **attributes)
    return b.cast(function(b.cast(x, to=dtype), **attributes), to=x.dtype)


def aligned(b: Any, a: Any, c: Any, broadcast: int, axis: int | None) -> Any:
    """Operand `c` of an operator before opset 7, shaped so that its first axis is paired with `axis` of `a`."""
    if not broadcast or axis is None or c.rank == 0 or a.rank == c.rank:
        return c
    first = axis + a.rank if axis < 0 else axis
    trailing = a.rank - first - c.rank
    if first < 0 or trailing < 0:
        raise OpError(f"an operand of rank {c.rank} does not fit at axis {axis} of one of rank {a.rank}")
    return b.reshape(c, shape=(*c.shape, *[1] * trailing)) if trailing else c


def binary(name: str, importer: Callable[[Any, Any, Any], Any]) -> None:
    """Registers an operator of two operands: with `broadcast` and `axis` from opset 1, as in NumPy from 7."""

    def before_7(
        b: Any, a: Any, c: Any, *, broadcast: int = 0, axis: int | None = None, consumed_inputs: tuple[int, ...] = ()
    ) -> Any:
        return importer(b, a, aligned(b, a, c, broadcast, axis))

    def from_7(b: Any, a: Any, c: Any) -> Any:
        return importer(b, a, c)

    onnx_op(name, since=1)(before_7)
    onnx_op(name, since=7)(from_7)


def _divide(b: Any, a: Any, c: Any) -> Any:
    return b.trunc_div(a, c) if a.dtype.is_integer else b.div(a, c)


binary("Add", lambda b, a, c: b.add(a, c))
binary("Sub", lambda b, a, c: b.sub(a, c))
binary("Mul", lambda b, a, c: b.mul(a, c))
binary("Div", _divide)
binary("Pow", lambda b, a, c: b.pow(a, c))


@onnx_op("Mod", since=10)
def Mod(b: Any, a: Any, c: Any, *, fmod: int = 0) -> Any:
    return b.fmod(a, c) if fmod else b.mod(a, c)


@onnx_op("Max")
def Max(b: Any, *operands: Any, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return _combined(b.max, operands)


@onnx_op("Min")
def Min(b: Any, *operands: Any, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return _combined(b.min, operands)


@onnx_op("Sum")
def Sum(b: Any, *operands: Any, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return _combined(b.add, operands)


@onnx_op("Mean")
def Mean(b: Any, *operands: Any, consumed_inputs: tuple[int, ...] = ()) -> Any:
    total = _combined(b.add, operands)
    return total if len(operands) == 1 else b.div(total, float(len(operands)))


def _combined(function: Callable[[Any, Any], Any], operands: tuple[Any, ...]) -> Any:
    if not operands or any(x is None for x in operands):
        raise OpError("it needs one operand or more, none of them left out")
    return reduce(function, operands)


@onnx_op("Clip", since=1)
def Clip_1(
    b: Any, x: Any, *, min: float | None = None, max: float | None = None, consumed_inputs: tuple[int, ...] = ()
) -> Any:
    bounds = [None if bound is None else b.const(bound, x.dtype) for bound in (min, max)]
    return b.clip(x, *bounds)


@onnx_op("Clip", since=11)
def Clip(b: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    bounds = [None if bound is None else _scalar(b, bound) for bound in (min, max)]
    return b.clip(x, *bounds)


def _scalar(b: Any, bound: Any) -> Any:
    """A bound as rank 0; exporters also write it as a tensor of one element."""
    return bound if bound.rank == 0 else b.reshape(bound, shape=())
