"""Elementwise ops on truth values and bits, comparisons, and the choice between two values.

One op serves truth values and integers where the logic is the same, bit by bit. Comparisons with NaN are false, except
`not_equal`.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np

from ir import types as t
from ir.element import Tensor, apply, const, select
from ir.expr import Expr
from ir.op import Op, case, op, require
from ir.ops.cells import in_rows
from ir.ops.elementwise import NUMBERS, Binary, Unary, broadcast_shapes, paired, row, same_dtype
from ir.ops.movement import same_width
from ir.types import TensorType

_BITS = ("bool", "int", "uint")
_TRUTH = [case("bool[2,3]", "bool[2,3]"), case("bool[3,1]", "bool[4]"), case("i32[3]", "i32[3]"), case("u8[3]", "u8[]")]
_ORDER = [
    case("f32[2,3]", "f32[3]"),
    case("i64[3]", "i64[3]"),
    case("u8[4]", "u8[4]"),
    case("f16[4]", "f16[1]"),
    case(row("f32", 1.0, nan, -0.0), row("f32", 1.0, nan, 0.0)),
]
_SHIFTS = [
    case(row("u8", 16, 4, 1, 255), row("u8", 1, 2, 7, 9)),
    case("u32[2,3]", row("u32", 3)),
    case(row("i32", -16, 4, -1), row("i32", 2, 40, -1)),
]


@op
class IsNan(Unary):
    """Whether x is not a number."""

    function = "isnan"
    examples = [case(row("f32", -0.0, inf, -inf, nan)), case("f16[2,3]"), case("bf16[]")]


@op
class IsInf(Op):
    """Whether x is infinite: +inf where `positive`, -inf where `negative`."""

    positive: bool = True
    negative: bool = True
    examples = [
        case(row("f32", 1.0, inf, -inf, nan)),
        case(row("f32", 1.0, inf, -inf, nan), positive=False),
        case(row("f32", 1.0, inf, -inf, nan), negative=False),
        case("f16[3]", positive=False, negative=False),
    ]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, lambda: f"is_inf does not take {x.dtype}")
        return x.with_dtype(t.bool_)

    def reference(self, x: np.ndarray) -> Any:
        return np.isinf(x) & ((x > 0) & self.positive | (x < 0) & self.negative)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        if not self.positive and not self.negative:
            return const(False, t.bool_)
        value = x.at(*i)
        found = apply("isinf", value)
        if self.positive and self.negative:
            return found
        return found & (value > 0 if self.positive else value < 0)


@op
class And(Binary):
    """Both, of truth values; bit by bit, of integers."""

    kinds = _BITS
    examples = _TRUTH


@op
class Or(Binary):
    """Either or both, of truth values; bit by bit, of integers."""

    kinds = _BITS
    examples = _TRUTH


@op
class Xor(Binary):
    """Exactly one, of truth values; bit by bit, of integers."""

    kinds = _BITS
    examples = _TRUTH


@op
class Not(Unary):
    """The opposite, of a truth value; every bit inverted, of an integer."""

    kinds = _BITS
    examples = [case("bool[2,3]"), case("bool[]"), case("i32[3]"), case("u8[3]")]


@op
class ShiftLeft(Binary):
    """The bits of a moved b places up; b beyond the width (or negative) moves all of them out."""

    function = "shl"
    kinds = ("int", "uint")
    examples = _SHIFTS


@op
class ShiftRight(Binary):
    """The bits of a moved b places down, copies of the sign following; b negative or beyond the width leaves these."""

    function = "shr"
    kinds = ("int", "uint")
    examples = _SHIFTS


@op
class Equal(Binary):
    """a == b"""

    function = "eq"
    kinds = (*NUMBERS, "bool", "string", "complex")
    examples = [*_ORDER, case("bool[3]", "bool[3]"), case("string[5]", "string[5]"), case("string[2,3]", "string[3]")]

    def on_cells(self, b: Any, x: Any, y: Any) -> Any:
        return same_cells(b, x, y)


def same_cells(b: Any, x: Any, y: Any) -> Any:
    """Whether strings are equal, as bool; their cells are x and y, whose shapes broadcast."""
    shape = broadcast_shapes(x.shape[:-1], y.shape[:-1], stretches=True)
    return b.reshape(b.equal_cells(in_rows(b, x, shape), in_rows(b, y, shape)), shape=shape)


@op
class NotEqual(Binary):
    """a != b"""

    function = "ne"
    kinds = (*NUMBERS, "bool", "string", "complex")
    examples = [*_ORDER, case("bool[3]", "bool[3]"), case("string[4]", "string[]")]

    def on_cells(self, b: Any, x: Any, y: Any) -> Any:
        return b.not_(same_cells(b, x, y))


@op
class Less(Binary):
    """a < b"""

    function = "lt"
    examples = _ORDER


@op
class LessOrEqual(Binary):
    """a <= b"""

    function = "le"
    examples = _ORDER


@op
class Greater(Binary):
    """a > b"""

    function = "gt"
    examples = _ORDER


@op
class GreaterOrEqual(Binary):
    """a >= b"""

    function = "ge"
    examples = _ORDER


@op
class Where(Op):
    """a where the condition holds, else b; all broadcast."""

    symbolic = True
    examples = [
        case("bool[2,3]", "f32[2,3]", "f32[3]"),
        case("bool[3]", "i64[]", "i64[3]"),
        case("bool[2,1]", "bool[3]", "bool[2,3]"),
        case("bool[2,3]", "string[3]", "string[2,1]"),
    ]

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
        require(condition.dtype == t.bool_, lambda: f"where: the condition is {condition.dtype}")
        shape = broadcast_shapes(condition.shape, a.shape, b.shape, stretches=True)
        return TensorType(same_dtype("where", a, b), shape)

    def reference(self, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(condition, a, b)

    def element(self, i: tuple[Expr, ...], condition: Tensor, a: Tensor, b: Tensor) -> Expr:
        return select(*paired(i, condition, a, b))

    def on_cells(self, b: Any, condition: Any, x: Any, y: Any) -> Any:
        return b.where(b.reshape(condition, shape=(*condition.shape, 1)), *same_width(b, x, y))
