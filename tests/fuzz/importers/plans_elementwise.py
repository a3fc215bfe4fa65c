"""Plans of operators that work element by element, with NumPy broadcasting where there are several operands."""

from __future__ import annotations

import re

import numpy as np

from tests.fuzz.importers.draft import PLANS, Draft, Plan, Undrawable, plan
from tests.fuzz.importers.schemas import element, kind, number

SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0)


def unary(low: float = -4, high: float = 4, special: float = 0.1, **attributes: tuple) -> Plan:
    """One operand of any shape with elements in [low, high]; attributes in a range of floats, or of some choices."""

    def make(n: Draft) -> None:
        x = n.feed(0, n.shape(), low, high)
        if (
            kind(n.dtype(0)) == "float"
            and x.size
            and n.chance(special)
            and n.dtype(0) in ("float", "double", "float16")
        ):
            x.reshape(-1)[n.integer(0, x.size - 1)] = n.pick(SPECIAL)
        for name, options in attributes.items():
            if len(options) == 2 and all(isinstance(option, float) for option in options):
                n.real(name, *options)
            else:
                n.choose(name, *options)

    return make


UNARY: dict[str, Plan] = {
    **dict.fromkeys(("Abs", "Neg", "Sign", "Relu", "Floor", "Ceil", "Round", "Tanh", "Sigmoid", "Erf"), unary(-6, 6)),
    **dict.fromkeys(("Sin", "Cos", "Atan", "Asinh", "Softsign", "Softplus", "Mish", "HardSwish", "Exp"), unary(-6, 6)),
    **dict.fromkeys(("Not", "BitwiseNot", "Identity"), unary(-100, 100)),
    **dict.fromkeys(("Sinh", "Cosh"), unary(-4, 4)),
    **dict.fromkeys(("Acos", "Asin"), unary(-1, 1)),
    "Tan": unary(-1.4, 1.4),
    "Atanh": unary(-0.95, 0.95),
    "Acosh": unary(1, 8),
    "Log": unary(0.05, 8),
    "Sqrt": unary(0, 9),
    "Reciprocal": unary(0.25, 4),
    "IsNaN": unary(special=0.9),
    "IsInf": unary(special=0.9, detect_negative=(0, 1), detect_positive=(0, 1)),
    "Elu": unary(alpha=(0.1, 2.0)),
    "Celu": unary(alpha=(0.1, 2.0)),
    "LeakyRelu": unary(alpha=(-0.5, 1.5)),
    "ThresholdedRelu": unary(alpha=(0.0, 2.0)),
    "HardSigmoid": unary(alpha=(0.1, 1.0), beta=(0.0, 1.0)),
    "Selu": unary(alpha=(0.5, 2.0), gamma=(0.5, 2.0)),
    "Swish": unary(alpha=(-1.0, 2.0)),
    "Gelu": unary(approximate=("none", "tanh")),
    "Shrink": unary(-5, 5, bias=(-1.0, 1.0), lambd=(0.0, 3.0)),
    "Binarizer": unary(threshold=(-2.0, 2.0), special=0.0),
    "Size": unary(),
}
PLANS.update(UNARY)


def broadcast(low: float = -4, high: float = 4) -> Plan:
    """Two operands that broadcast with one another."""

    def make(n: Draft) -> None:
        _pair(n, (low, high), (low, high))

    return make


def _pair(n: Draft, *ranges: tuple[float, float]) -> None:
    whole = n.shape()
    shapes = [whole, n.narrowed(whole)] if n.chance(0.7) else [n.narrowed(whole), n.narrowed(whole)]
    if n.chance(0.5):
        shapes.reverse()
    for position, (shape, (low, high)) in enumerate(zip(shapes, ranges)):
        n.feed(position, shape, low, high)


for _name in ("Add", "Sub", "Mul", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "StringConcat"):
    plan(_name)(broadcast(-40, 40))
for _name in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
    plan(_name)(broadcast(-2, 2))


@plan("Div")
def div(n: Draft) -> None:
    _pair(n, (-40, 40), (1, 9) if n.chance(0.5) or kind(n.dtype(0)) == "uint" else (-9, -1))


@plan("Mod")
def mod(n: Draft) -> None:
    """`fmod` must be 1 for floats before version 28; an integer divisor must not be 0."""
    before = n.schema.since_version < 28
    is_float = kind(n.dtype(0)) == "float"
    if is_float and before:
        n.set(fmod=1)
    else:
        n.choose("fmod", 0, 1)
    _pair(n, (-40, 40), (1, 9) if n.chance(0.5) or kind(n.dtype(0)) == "uint" else (-9, -1))


@plan("Pow")
def pow_(n: Draft) -> None:
    """Integer powers of what is not a float stay small and positive, so that nothing overflows."""
    integer = "int" in n.dtype(0)
    if n.schema.since_version >= 12:
        n.bind("T1", lambda name: "int" in name or not integer)
    _pair(n, (0.2, 3) if not integer else (0, 4), (0, 3) if integer else (-2, 3))


@plan("BitShift")
def bit_shift(n: Draft) -> None:
    """Before version 28, shifts by as many bits as there are, or more, are left open."""
    bits = int(n.dtype(0).lstrip("uint"))
    n.choose("direction", "LEFT", "RIGHT")
    if n.schema.since_version < 28:
        _pair(n, (0, 2**62), (0, bits - 1))
    else:
        _pair(n, (-(2**62), 2**62), (-2, bits + 2))


@plan("PRelu")
def prelu(n: Draft) -> None:
    """The slope broadcasts to the input, not the other way."""
    x = n.feed(0, n.shape())
    n.feed(1, n.narrowed(x.shape), -2, 2)


@plan("Max", "Min", "Sum", "Mean")
def variadic(n: Draft) -> None:
    whole = n.shape()
    for position in range(n.integer(1, 4)):
        n.feed(position, whole if n.chance(0.4) else n.narrowed(whole), -9, 9)


@plan("Where")
def where(n: Draft) -> None:
    whole = n.shape()
    for position in range(3):
        n.feed(position, whole if n.chance(0.5) else n.narrowed(whole))


@plan("SwiGLU")
def swiglu(n: Draft) -> None:
    n.feed(1, n.feed(0, n.shape()).shape)
    n.real("alpha", 0.25, 2)


@plan("Clip")
def clip(n: Draft) -> None:
    n.feed(0, n.shape())
    if n.has("min") and "min" in n.schema.attributes:
        n.real("min", -3, 0)
        n.real("max", 0, 3)
        return
    for name, low, high in (("min", -3, 1), ("max", 0, 3)):
        if n.wants(name, 0.7):
            bound = n.array(n.dtype(0), (), low, high)
            n.fix(name, bound) if n.chance(0.5) else n.give(name, bound)


@plan("Cast")
def cast(n: Draft) -> None:
    source = n.bind("T1")
    target = element(n.pick(n.allowed("T2")))
    n.set(to=number(target))
    _conversion(n, source, target)


@plan("CastLike")
def cast_like(n: Draft) -> None:
    source, target = n.bind("T1"), n.bind("T2")
    _conversion(n, source, target)
    n.feed(1, n.shape())


def _conversion(n: Draft, source: str, target: str) -> None:
    """Values that the target can hold, where what becomes of others is left open."""
    n.choose("saturate", 0, 1)
    n.choose("round_mode", "up", "down", "nearest")
    if kind(source) == "string":
        texts = _texts(target)
        n.give(0, n.numbers.choice(np.array(texts, dtype=object), n.shape()))
        return
    if target == "float8e8m0":
        n.feed(0, n.shape(), 1, 100)  # the powers of two, which have neither a sign nor a zero
        return
    high = {"uint2": 3, "int2": 1, "int4": 7, "float4e2m1": 6, "float6e2m3": 7, "float6e3m2": 28}.get(target, 15)
    if kind(target) == "float":
        high = 1000 if n.chance(0.3) else high  # floats saturate or overflow, as the text says
    n.feed(0, n.shape(), 0 if target.startswith("uint") else -min(high, 2) if target == "int2" else -high, high)


def _texts(target: str) -> tuple[str, ...]:
    if target == "bool":
        raise Undrawable("what text is true is left open")
    match kind(target):
        case "string":
            return ("a", "b c", "")
        case "uint":
            return ("0", "1")
        case "int":
            return ("0", "1", "-1")
    return ("1", "-2.5", "1e2", "INF", "+INF", "-INF", "NaN", "3.25")


@plan("BitCast")
def bit_cast(n: Draft) -> None:
    """The two types have the same width."""
    source = n.bind("T1")
    target = element(n.pick(t for t in n.allowed("T2") if _bits(element(t)) == _bits(source)))
    n.set(to=number(target))
    n.feed(0, n.shape(), 0 if target == "bool" else -4, 1 if target == "bool" else 4)


def _bits(name: str) -> int:
    fixed = {"float": 32, "double": 64, "bool": 8, "complex64": 64, "complex128": 128}
    if name in fixed:
        return fixed[name]
    found = re.match(r"\D+(\d+)", name)
    assert found
    return int(found[1])
