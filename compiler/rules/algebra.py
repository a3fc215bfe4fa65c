"""Identities: what leaves a value as it is, what undoes itself, and the simpler of two spellings of one value.

Floats are treated as in mathematics only where the difference is the sign of a zero, or one rounding.
"""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import numpy as np

from compiler.rules.constants import is_constant, number
from ir.op import OPS, OpError, assumptions, case
from ir.ops.elementwise import Elementwise
from ir.rule import Rule
from ir.types import DType, TensorType, bf16, f16, f32, f64

_X = case("f32[2,3]")


class AddZero(Rule):
    """x + 0  =>  x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return x + 0

    def replace(b, x):
        return x


class SubZero(Rule):
    """x - 0  =>  x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return x - 0

    def replace(b, x):
        return x


class MulOne(Rule):
    """x * 1  =>  x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return x * 1

    def replace(b, x):
        return x


class DivOne(Rule):
    """x / 1  =>  x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return x / 1

    def replace(b, x):
        return x


class PowOne(Rule):
    """x ** 1  =>  x"""

    examples = [_X]

    def find(b, x):
        return b.pow(x, 1)

    def replace(b, x):
        return x


class Square(Rule):
    """x ** 2  =>  x * x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return b.pow(x, 2)

    def replace(b, x):
        return x * x


class Cube(Rule):
    """x ** 3  =>  x * x * x"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return b.pow(x, 3)

    def replace(b, x):
        return x * x * x


class PowHalf(Rule):
    """x ** 0.5  =>  sqrt(x)"""

    examples = [_X]

    def find(b, x):
        return b.pow(x, 0.5)

    def replace(b, x):
        return b.sqrt(x)


class PowMinusHalf(Rule):
    """x ** -0.5  =>  1 / sqrt(x)"""

    examples = [_X]

    def find(b, x):
        return b.pow(x, -0.5)

    def replace(b, x):
        return b.reciprocal(b.sqrt(x))


class PowMinusOne(Rule):
    """x ** -1  =>  1 / x"""

    examples = [_X]

    def find(b, x):
        return b.pow(x, -1)

    def check(m):
        return m["x"].dtype.is_float or "an integer has no reciprocal"

    def replace(b, x):
        return b.reciprocal(x)


class OneOver(Rule):
    """1 / x  =>  reciprocal(x)"""

    examples = [_X]

    def find(b, x):
        return 1 / x

    def check(m):
        return m["x"].dtype.is_float or "an integer has no reciprocal"

    def replace(b, x):
        return b.reciprocal(x)


class TimesReciprocal(Rule):
    """x * (1 / y)  =>  x / y, unless 1 / y is a constant"""

    examples = [case("f32[2,3]", "f32[3]")]

    def find(b, x, y):
        return x * b.reciprocal(y)

    def check(m):
        return not is_constant(m["y"]) or f"%{m['y'].name} is a constant"

    def replace(b, x, y):
        return x / y


class DoubleNegation(Rule):
    """-(-x)  =>  x"""

    examples = [_X]
    shared = True

    def find(b, x):
        return b.neg(b.neg(x))

    def replace(b, x):
        return x


class DoubleNot(Rule):
    """not not x  =>  x"""

    examples = [case("bool[2,3]")]
    shared = True

    def find(b, x):
        return b.not_(b.not_(x))

    def replace(b, x):
        return x


class WhereSame(Rule):
    """where(c, x, x)  =>  x"""

    examples = [case("bool[2,3]", "f32[2,3]")]

    def find(b, c, x):
        return b.where(c, x, x)

    def replace(b, c, x):
        return x


class WhereKnown(Rule):
    """where(c, x, y) where c is true everywhere  =>  x; where it is false everywhere  =>  y"""

    examples = [case(np.array([True, True]), "f32[2]", "f32[2]"), case(np.array(False), "f32[2]", "f32[2]")]

    def find(b, c, x, y):
        return b.where(c, x, y)

    def check(m):
        content = m["c"].content
        if content is None or content.dtype != np.bool_ or not content.size:
            return f"%{m['c'].name} is not known"
        return bool(content.all() or not content.any()) or f"%{m['c'].name} is true here and false there"

    def replace(b, c, x, y):
        return x if c.content.all() else y


class MulMulConstant(Rule):
    """(x * c) * d  =>  x * (c * d), of constants"""

    examples = [case("f32[2,3]", np.array([1.0, 2.0, 3.0], np.float32), np.array(0.3, np.float32))]

    def find(b, x, c, d):
        return (x * c) * d

    def check(m):
        c, d = m["c"], m["d"]
        if not is_constant(c) or not is_constant(d):
            return f"%{c.name} and %{d.name} are not both constants"
        if is_constant(m["x"]):
            return f"%{m['x'].name} is a constant, too"
        if c.content is None or d.content is None or c.content.dtype == object or d.content.dtype == object:
            return f"%{c.name} and %{d.name} are not both small"
        with np.errstate(all="ignore"):
            product = c.content * d.content
        if product.size > max(c.content.size, d.content.size):
            return "the product is larger than its factors"
        return bool(np.isfinite(product.astype(np.float64)).all()) or "the product is not finite"

    def replace(b, x, c, d):
        return x * (c * d)


class DivByPowerOfTwo(Rule):
    """x / c  =>  x * (1 / c), c one number, where 1 / c is exact"""

    examples = [case("f32[2,3]", np.array(8.0, np.float32)), case("f16[4]", np.array(0.5, np.float16))]

    def find(b, x, c):
        return x / c

    def check(m):
        c = number(m["c"])
        if c is None or not m["x"].dtype.is_float:
            return f"%{m['c'].name} is not a known float"
        mantissa, exponent = np.frexp(c)
        return bool(abs(mantissa) == 0.5 and -13 < exponent < 15) or f"1 / {c} is not exact"

    def replace(b, x, c):
        return x * (1 / number(c))


_BITS = {f16: 11, bf16: 8, f32: 24, f64: 53}
_WIDER = {f16: (f32, f64), bf16: (f32, f64), f32: (f64,)}


def is_lossless(source: DType, target: DType) -> bool:
    """Whether `target` represents every value of `source`."""
    if source == target or source.kind == "bool":
        return target.kind != "string"
    if source.is_float:
        return target in _WIDER.get(source, ())
    if not source.is_integer:
        return False
    if target.is_float:
        return target in _BITS and source.bits - source.is_signed <= _BITS[target]
    if not target.is_integer or (source.is_signed and not target.is_signed):
        return False
    return source.bits + (target.is_signed and not source.is_signed) <= target.bits


class CastOfCast(Rule):
    """cast(cast(x, wider), t)  =>  cast(x, t)"""

    shared = True
    examples = [
        case("f16[4]", wider=f32, to=f64),
        case("f16[4]", wider=f32, to=f16),
        case("bool[4]", wider=f32, to=f16),
    ]

    def find(b, x):
        return b.cast(b.cast(x, to=b.any_attr("wider")), to=b.any_attr("to"))

    def check(m):
        source, wider, to = m["x"].dtype, m["wider"], m["to"]
        if not is_lossless(source, wider):
            return f"{wider} does not hold every {source}"
        # Floats turn into integers in another way than integers do: out of range, one saturates and one wraps.
        if source.kind != "bool" and source.is_float != wider.is_float and not to.is_float:
            return f"{source} and {wider} turn into {to} in different ways"
        return True

    def replace(b, x, m):
        return b.cast(x, to=m["to"])


class IdentityCast(Rule):
    """cast(x, the type of x)  =>  x"""

    examples = [case("f32[3]", to=f32)]

    def find(b, x):
        return b.cast(x, to=b.any_attr("to"))

    def check(m):
        return m["x"].dtype == m["to"] or f"%{m['x'].name} is {m['x'].dtype}, not {m['to']}"

    def replace(b, x):
        return x


class DropExpand(Rule):
    """f(expand(x), y)  =>  f(x, y), where an elementwise op broadcasts x by itself"""

    examples = []
    roots = tuple(name for name, op in OPS.items() if issubclass(op, Elementwise) or name == "where")

    def change(b, node):
        if len(node.inputs) < 2 or not any(
            v is not None and v.node and v.node.op.name == "expand" for v in node.inputs
        ):
            return None
        operands = list(node.inputs)
        for position, value in enumerate(operands):
            if value is None or value.node is None or value.node.op.name != "expand":
                continue
            narrow = [*operands[:position], value.node.inputs[0], *operands[position + 1 :]]
            if _result_type(node, narrow) == node.output.type:
                operands = narrow
        return b.apply(node.op, *operands) if operands != node.inputs else None


def _result_type(node, operands) -> TensorType | None:
    try:
        with assumptions() as demanded:
            result = node.op.infer(*(None if v is None else v.type for v in operands))
    except OpError:
        return None
    return None if demanded else result
