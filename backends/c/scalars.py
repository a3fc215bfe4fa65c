"""Element types, literals, casts and scalar functions as C.

Narrow floats are stored as bits and computed in float, rounding after every function that can leave the format;
sub-byte integers occupy a byte. Everything is defined for all values: integers wrap around, division by zero is zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backends.c.sizes import ATOM, PRODUCT, SUM, UNARY, literal, paren
from ir import types as t
from ir.element import highest, lowest
from ir.types import DType

COMPARISON = 0


class Text(NamedTuple):
    """C text and how tightly its outermost operator binds."""

    text: str
    rank: int = ATOM

    def at(self, least: int) -> str:
        """The text, in parentheses unless it binds at least as tightly as `least`."""
        return paren(self.text, self.rank, least)


_STORAGE = {
    t.bool_: "uint8_t", t.i8: "int8_t", t.i16: "int16_t", t.i32: "int32_t", t.i64: "int64_t",
    t.u8: "uint8_t", t.u16: "uint16_t", t.u32: "uint32_t", t.u64: "uint64_t",
    t.i4: "int8_t", t.i2: "int8_t", t.u4: "uint8_t", t.u2: "uint8_t",
    t.f16: "uint16_t", t.bf16: "uint16_t", t.f32: "float", t.f64: "double",
    t.f8e4m3fn: "uint8_t", t.f8e4m3fnuz: "uint8_t", t.f8e5m2: "uint8_t", t.f8e5m2fnuz: "uint8_t",
    t.f8e8m0: "uint8_t", t.f6e2m3: "uint8_t", t.f6e3m2: "uint8_t", t.f4e2m1: "uint8_t",
}  # fmt: skip
_SUB_BYTE = {t.i4: t.i8, t.i2: t.i8, t.u4: t.u8, t.u2: t.u8}
_SATURATING = (t.f8e4m3fn, t.f8e4m3fnuz, t.f8e5m2, t.f8e5m2fnuz)


def is_supported(dtype: DType) -> bool:
    """Whether C code computes with `dtype`: all but complex numbers and strings."""
    return dtype in _STORAGE


def storage_type(dtype: DType) -> str:
    """The C type of an element in memory."""
    return _STORAGE[dtype]


def value_type(dtype: DType) -> str:
    """The C type of a value in a local."""
    if dtype == t.bool_:
        return "bool"
    return "float" if is_narrow_float(dtype) else _STORAGE[dtype]


def is_narrow_float(dtype: DType) -> bool:
    """Whether values are computed in float and encoded when stored."""
    return dtype.is_float and dtype.bits < 32


def loaded(dtype: DType, element: str) -> Text:
    """The value of an element in memory."""
    if dtype == t.bool_:
        return Text(f"{element} != 0", COMPARISON)
    return Text(f"sesame_{dtype}_to_f32({element})") if is_narrow_float(dtype) else Text(element)


def stored(dtype: DType, value: Text) -> str:
    """The element in memory for a value of its type."""
    if dtype == t.f8e8m0:
        # The value is a power of two already, and only this encoder leaves the least one in its place.
        return f"sesame_f32_to_f8e8m0_nearest({value.text})"
    if not is_narrow_float(dtype):
        return value.text
    decoder = f"sesame_{dtype}_to_f32("
    if value.rank == ATOM and value.text.startswith(decoder):  # one call: its argument has the bits already
        return value.text[len(decoder) : -1]
    return _encoded(dtype, value.text, False)


def _encoded(dtype: DType, text: str, saturate: bool) -> str:
    if dtype == t.f8e8m0:
        return f"sesame_f32_to_f8e8m0_up{'_sat' if saturate else ''}({text})"
    return f"sesame_f32_to_{dtype}{'_sat' if saturate and dtype in _SATURATING else ''}({text})"


def constant(dtype: DType, value: object) -> Text:
    """A literal of `dtype`, exact."""
    if dtype == t.bool_:
        return Text("true" if value else "false")
    if dtype.is_float:
        return _float_literal(float(value), dtype == t.f64)  # type: ignore[arg-type]
    number = int(value)  # type: ignore[call-overload]
    if dtype == t.i32 and number == -(1 << 31):
        return Text("INT32_MIN")
    if dtype in (t.u32, t.u64):
        return Text(f"{number}u" if number < 1 << 32 else f"UINT64_C({number})")
    return Text(literal(number), ATOM if number >= 0 else UNARY)


def _float_literal(value: float, is_double: bool) -> Text:
    if math.isnan(value):
        return Text("NAN")
    if math.isinf(value):
        return Text("INFINITY") if value > 0 else Text("-INFINITY", UNARY)
    text = repr(value) if is_double else str(np.float32(value))
    if "." not in text and "e" not in text:
        text += ".0"
    rank = ATOM if math.copysign(1.0, value) > 0 else UNARY
    return Text(text if is_double else f"{text}f", rank)


def cast_text(value: Text, source: DType, target: DType, saturate: bool) -> Text:
    """`value` of type `source` converted to `target`. Floats to integers round towards zero, saturate, and NaN is
    0; types of less than a byte keep the low bits, as from integers."""
    if source == target:
        return value
    if target == t.bool_:
        return Text(f"{value.at(SUM)} != 0", COMPARISON)
    if target.is_float:
        return _cast_to_float(value, source, target, saturate)
    if source.is_float:
        width = "f64" if source == t.f64 else "f32"
        whole = Text(f"sesame_{width}_to_{'i32' if target in _SUB_BYTE else target}({value.text})")
        return _wrapped_sub_byte(target, whole)
    if target in _SUB_BYTE:
        return _wrapped_sub_byte(target, Text(f"(int){value.at(UNARY)}", UNARY))
    if value_type(target) == value_type(source):
        return value
    return Text(f"({value_type(target)}){value.at(UNARY)}", UNARY)


def integer_in_float(value: Text, dtype: DType) -> Text:
    """An f32 rounded towards zero and clamped to the range of a small integer type, still as f32."""
    return Text(f"sesame_integer_f32({value.text}, {lowest(dtype)}.0f, {highest(dtype)}.0f)")


def _wrapped_sub_byte(dtype: DType, value: Text) -> Text:
    return Text(f"sesame_wrap_{dtype}({value.text})") if dtype in _SUB_BYTE else value


def _cast_to_float(value: Text, source: DType, target: DType, saturate: bool) -> Text:
    if target == t.f64:
        return Text(f"(double){value.at(UNARY)}", UNARY)
    if target == t.f32:
        return value if is_narrow_float(source) else Text(f"(float){value.at(UNARY)}", UNARY)
    if source == t.f64:
        value = Text(f"sesame_f64_to_f32_odd({value.text})")
    elif not source.is_float and source.bits >= 32:
        value = Text(f"sesame_f64_to_f32_odd((double){value.at(UNARY)})")
    elif not source.is_float:
        value = Text(f"(float){value.at(UNARY)}", UNARY)
    return Text(f"sesame_{target}_to_f32({_encoded(target, value.text, saturate)})")


_INFIX = {"add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT)}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_BITS = {"and": "&", "or": "|", "xor": "^", "min": "&", "max": "|", "add": "|", "mul": "&"}
_INTEGER = (
    "add", "sub", "mul", "neg", "and", "or", "xor", "not", "min", "max", "shl", "shr", "abs", "sign", "pow", "div",
    "floordiv", "mod", "fmod",
)  # fmt: skip
_SINGLE = {
    "exp": "sesame_expf", "log": "sesame_logf", "tanh": "sesame_tanhf", "sigmoid": "sesame_sigmoidf",
    "erf": "sesame_erff", "sin": "sesame_sinf", "cos": "sesame_cosf",
}  # fmt: skip
_LIBM = {
    "fmod": "fmod", "pow": "pow", "atan2": "atan2", "abs": "fabs", "sqrt": "sqrt", "exp": "exp", "expm1": "expm1",
    "log": "log", "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
    "erf": "erf", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint",
}  # fmt: skip
_ROUNDED_EXACTLY = ("fmod", "abs", "sqrt", "floor", "ceil", "trunc", "round")
"""Functions of the C library whose results IEEE-754 prescribes; those of others differ from library to library."""
_FLOAT_HELPERS = ("min", "max", "sign", "mod", "floordiv", "isnan", "isinf")
_EXACT = (
    "neg",
    "abs",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "round",
    "min",
    "max",
    "select",
    "mod",
    "fmod",
    "isnan",
    "isinf",
)


def has_function(function: str, dtype: DType) -> bool:
    """Whether `function` of arguments of `dtype` has C code."""
    if not is_supported(dtype):
        return False
    if function in COMPARE or function == "select":
        return True
    if dtype == t.bool_:
        return function in _BITS or function == "not"
    if dtype.is_float:
        return function in _INFIX or function in _LIBM or function in _FLOAT_HELPERS or function in ("neg", "sigmoid")
    return function in _INTEGER or function in ("floor", "ceil", "trunc", "round")


def function_text(function: str, dtype: DType, args: list[Text], *, exact: bool = False) -> Text:
    """`function` applied to values of `dtype` (for select: the type of the last two). KeyError for what has no C.

    With `exact` the C library does only what it must round as every other does; the rest the runtime does.
    """
    if function in COMPARE:
        return Text(f"{args[0].at(SUM)} {COMPARE[function]} {args[1].at(SUM)}", COMPARISON)
    if function == "select":
        return _select_text(dtype, args)
    if dtype == t.bool_:
        if function == "not":
            return Text(f"!{args[0].at(UNARY + 1)}", UNARY)
        return Text(f"{args[0].at(ATOM)} {_BITS[function]} {args[1].at(ATOM)}", COMPARISON)
    if dtype.is_float:
        return _float_function(function, dtype, args, exact)
    return _integer_function(function, dtype, args)


def _select_text(dtype: DType, args: list[Text]) -> Text:
    text = f"{args[0].at(UNARY)} ? {args[1].at(SUM)} : {args[2].at(SUM)}"
    if dtype.is_integer and dtype.bits < 32:
        return Text(f"({value_type(dtype)})({text})", UNARY)
    return Text(f"({text})")


def _integer_function(function: str, dtype: DType, args: list[Text]) -> Text:
    if function in ("floor", "ceil", "trunc", "round"):
        return args[0]
    if function in ("add", "sub", "mul") and dtype in (t.u32, t.u64):
        return _infix(function, args)
    wide = _SUB_BYTE.get(dtype, dtype)
    if dtype.is_signed:
        name = "rem" if function == "fmod" else function
    else:
        name = {"fmod": "rem", "mod": "rem", "div": "floordiv"}.get(function, function)
    if function not in _INTEGER:
        raise KeyError(function)
    text = Text(f"sesame_{name}_{wide}({', '.join(arg.text for arg in args)})")
    return _wrapped_sub_byte(dtype, text)


def _infix(function: str, args: list[Text]) -> Text:
    operator, rank = _INFIX[function]
    left, right = args
    # a - (b + c) and a / (b * c) need their parentheses; sums of sums do not, C reads them from the left.
    return Text(f"{left.at(rank)} {operator} {right.at(rank + 1)}", rank)


def _float_function(function: str, dtype: DType, args: list[Text], exact: bool) -> Text:
    is_double = dtype == t.f64
    if function in _INFIX:
        result = _infix(function, args)
    elif function == "neg":
        result = Text(f"-{args[0].at(UNARY + 1)}", UNARY)
    elif function in _FLOAT_HELPERS or (function == "sigmoid" and is_double):
        result = Text(f"sesame_{function}_{'f64' if is_double else 'f32'}({', '.join(arg.text for arg in args)})")
    else:
        library = "sesame_" if exact and function not in _ROUNDED_EXACTLY else ""
        name = library + _LIBM[function] if is_double else _SINGLE.get(function) or f"{library}{_LIBM[function]}f"
        result = Text(f"{name}({', '.join(arg.text for arg in args)})")
    return rounded(dtype, result) if function not in _EXACT else result


def rounded(dtype: DType, value: Text) -> Text:
    """A float that was just computed, rounded to the narrow format it stands for."""
    if not is_narrow_float(dtype):
        return value
    if dtype in (t.f16, t.bf16):
        return Text(f"sesame_round_{dtype}({value.text})")
    return Text(f"sesame_{dtype}_to_f32({_encoded(dtype, value.text, False)})")


def bounded_text(function: str, dtype: DType, value: Text, bound: Text) -> Text:
    """Maximum or minimum of a float and a bound that is not NaN: one comparison, and NaN passes."""
    name = "at_least" if function == "max" else "at_most"
    return Text(f"sesame_{name}_{'f64' if dtype == t.f64 else 'f32'}({value.text}, {bound.text})")
