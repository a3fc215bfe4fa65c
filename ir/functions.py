"""The scalar functions that kernels may apply: name, number of arguments, meaning in NumPy.

This table is the one place a scalar function is declared. A backend maps the names to its own language; the meaning
here is what its results are checked against.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ir.types import DType, dtype_of


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function. `is_predicate` functions give bool; others give the type of their (last) arguments."""

    name: str
    arity: int
    numpy: Callable[..., Any]
    is_predicate: bool = False
    infix: str | None = None


def truncated_div(a: Any, b: Any) -> Any:
    """ONNX Div: true division for floats, towards zero for integers (x // 0 is 0, as NumPy has it)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "iu":
        return a / b
    with np.errstate(divide="ignore", over="ignore"):
        quotient = a // b
        remainder = a - quotient * b
        return quotient + ((remainder != 0) & ((a < 0) != (b < 0))).astype(a.dtype)


def _erf(x: Any) -> Any:
    x = np.asarray(x)
    exact = np.array([math.erf(v) for v in x.astype(np.float64).ravel().tolist()])
    return exact.reshape(x.shape).astype(x.dtype)


def _sigmoid(x: Any) -> Any:
    x = np.asarray(x)
    wide = x.astype(np.float64) if x.dtype.itemsize >= 4 else x.astype(np.float32)
    e = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _logic(boolean: Callable[..., Any], bits: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: boolean(*args) if np.asarray(args[0]).dtype == np.bool_ else bits(*args)


def _shift(direction: Callable[..., Any]) -> Callable[..., Any]:
    """Shifts by a negative amount, or by the width of the type or more, leave what the sign alone gives."""

    def shifted(a: Any, b: Any) -> Any:
        a, b = np.asarray(a), np.asarray(b)
        width = a.dtype.itemsize * 8
        is_within = (b >= 0) & (b < width)
        kept = np.where(is_within, b, 0).astype(a.dtype)
        emptied = np.where(a < 0, -1, 0).astype(a.dtype) if direction is np.right_shift else np.zeros_like(a)
        return np.where(is_within, direction(a, kept), emptied)

    return shifted


def _power(a: Any, b: Any) -> Any:
    """a to the power b; an integer to a negative power is rounded towards zero, and 0 where a is 0."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "iu":
        return np.power(a, b)
    inverse = (
        np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b & 1), 0)) if a.dtype.kind == "i" else np.where(a == 1, 1, 0)
    )
    return np.where(b < 0, inverse, np.power(a, np.maximum(b, 0))).astype(a.dtype)


def _is_inf(x: Any) -> Any:
    return np.isinf(np.asarray(x))


_TABLE = [
    Function("add", 2, np.add, infix="+"),
    Function("sub", 2, np.subtract, infix="-"),
    Function("mul", 2, np.multiply, infix="*"),
    Function("div", 2, truncated_div, infix="/"),
    Function("floordiv", 2, np.floor_divide, infix="//"),
    Function("mod", 2, np.mod, infix="%"),
    Function("fmod", 2, np.fmod),
    Function("pow", 2, _power),
    Function("min", 2, np.minimum),
    Function("max", 2, np.maximum),
    Function("atan2", 2, np.arctan2),
    Function("neg", 1, np.negative),
    Function("abs", 1, np.abs),
    Function("sign", 1, np.sign),
    Function("sqrt", 1, np.sqrt),
    Function("exp", 1, np.exp),
    Function("expm1", 1, np.expm1),
    Function("log", 1, np.log),
    Function("log1p", 1, np.log1p),
    Function("sin", 1, np.sin),
    Function("cos", 1, np.cos),
    Function("tan", 1, np.tan),
    Function("asin", 1, np.arcsin),
    Function("acos", 1, np.arccos),
    Function("atan", 1, np.arctan),
    Function("sinh", 1, np.sinh),
    Function("cosh", 1, np.cosh),
    Function("tanh", 1, np.tanh),
    Function("asinh", 1, np.arcsinh),
    Function("acosh", 1, np.arccosh),
    Function("atanh", 1, np.arctanh),
    Function("erf", 1, _erf),
    Function("sigmoid", 1, _sigmoid),
    Function("floor", 1, np.floor),
    Function("ceil", 1, np.ceil),
    Function("trunc", 1, np.trunc),
    Function("round", 1, np.round),
    Function("isnan", 1, np.isnan, is_predicate=True),
    Function("isinf", 1, _is_inf, is_predicate=True),
    Function("lt", 2, np.less, is_predicate=True, infix="<"),
    Function("le", 2, np.less_equal, is_predicate=True, infix="<="),
    Function("gt", 2, np.greater, is_predicate=True, infix=">"),
    Function("ge", 2, np.greater_equal, is_predicate=True, infix=">="),
    Function("eq", 2, np.equal, is_predicate=True, infix="=="),
    Function("ne", 2, np.not_equal, is_predicate=True, infix="!="),
    Function("and", 2, _logic(np.logical_and, np.bitwise_and), infix="&"),
    Function("or", 2, _logic(np.logical_or, np.bitwise_or), infix="|"),
    Function("xor", 2, _logic(np.logical_xor, np.bitwise_xor), infix="^"),
    Function("not", 1, _logic(np.logical_not, np.invert)),
    Function("shl", 2, _shift(np.left_shift), infix="<<"),
    Function("shr", 2, _shift(np.right_shift), infix=">>"),
    Function("select", 3, np.where),
]

FUNCTIONS: dict[str, Function] = {function.name: function for function in _TABLE}
COSTLY = frozenset((
    "exp", "log", "erf", "tanh", "sigmoid", "pow", "sin", "cos", "sqrt", "div", "log1p", "expm1", "mod", "floordiv",
))  # fmt: skip
"""Functions that take many instructions, or long ones."""


def convert(x: Any, to: DType, saturate: bool = True, round_mode: str = "up") -> np.ndarray:
    """Numbers, truth values or strings as elements of `to`: what `Cast` means.

    Floats round to the nearest even and become infinite beyond the range; float8 types clamp instead where `saturate`
    (else NaN, or infinity where the type has one), and float8 e8m0 is a power of two, rounded "up", "down" or to the
    "nearest" with ties up. Integers keep their low bits. A float converted to an integer is
    rounded towards zero; outside of the range the result is some integer. NaN is true. Strings say numbers as Python
    writes them, or "inf", "infinity" and "nan" in any case, with ASCII spaces around. Raises ValueError for a string
    that is no number, and for one that says no integer of 64 bits where it should.
    """
    x = np.asarray(x)
    with np.errstate(all="ignore"):
        if x.dtype.kind in "OUT":
            read = _parsed(x, to)
            if to.is_integer:
                return read.astype(to.numpy)
            return read if to.kind == "string" else convert(read, to, saturate, round_mode)
        if to.kind == "string":
            return _printed(x)
        if to.name == "f8e8m0":
            return _power_of_two(x.astype(np.float32), saturate, round_mode).view(to.numpy)
        if saturate and to.is_float and to.bits == 8:
            wide = x if x.dtype == np.float64 else x.astype(np.float32)
            greatest = float(ml_dtypes.finfo(to.numpy).max)
            return np.clip(wide, -greatest, greatest).astype(to.numpy)
        if x.dtype.isbuiltin != 1 and to.numpy.isbuiltin != 1:  # not every pair of narrow types has a conversion
            x = x.astype(np.int64 if dtype_of(x).is_integer else np.float32)
        return x.astype(to.numpy)


def _power_of_two(x: np.ndarray, saturate: bool, round_mode: str) -> np.ndarray:
    """The exponent bytes of f32, as float8 e8m0 has them: no sign, no zero, 255 is NaN. What is rounded is the exponent
    field, so that below 2**-126 floats lie between the codes 0 and 1."""
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    half = np.where(bits < 0x800000, np.uint32(0x3FFFFF), np.uint32(0x400000))
    increment = {"up": np.uint32(0x7FFFFF), "down": np.uint32(0), "nearest": half}[round_mode]
    code = np.minimum((bits + increment) >> np.uint32(23), np.uint32(254 if saturate else 255))
    return np.where(bits > 0x7F800000, np.uint32(255), code).astype(np.uint8)


_NUMBER = re.compile(
    r"[ \t-\r]*([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|infinity|nan))[ \t-\r]*",
    re.ASCII | re.IGNORECASE,
)


def _parsed(x: np.ndarray, to: DType) -> np.ndarray:
    """Strings as what they say: i64 for integers, f64 for other numbers, str for strings."""
    texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in x.ravel().tolist()]
    if to.kind == "string":
        out = np.empty(len(texts), dtype=object)
        out[:] = texts
        return out.reshape(x.shape)
    found = [_NUMBER.fullmatch(text) for text in texts]
    wrong = next((text for text, match in zip(texts, found) if match is None), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r:.60} is no number")
    numbers = [match[1] for match in found if match is not None]
    if not to.is_integer:
        return np.array([float(number) for number in numbers], np.float64).reshape(x.shape)
    bits = [_integer(number) & 0xFFFFFFFFFFFFFFFF for number in numbers]
    return np.array(bits, np.uint64).view(np.int64).reshape(x.shape)


def _integer(number: str) -> int:
    """The integer that a number says, rounded towards zero. Raises ValueError outside of -2**63 to 2**64 - 1."""
    is_plain = number.lstrip("+-").isdigit()
    value = float(number)
    if not -(2.0**63) <= value <= 2.0**64:  # nan, too
        raise ValueError(f"{number:.60} is out of the range of integers")
    # Leading zeros aside, what is in range is short: Python reads no more than some thousand digits.
    whole = (-1 if number[0] == "-" else 1) * int(number.lstrip("+-0") or "0") if is_plain else int(value)
    if not -(1 << 63) <= whole < 1 << 64:
        raise ValueError(f"{number:.60} is out of the range of integers")
    return whole


def _printed(x: np.ndarray) -> np.ndarray:
    """Numbers and truth values as Python writes them; a float has the fewest digits that tell it from others of its
    type, those of 8 bits and less, and bf16, as f32."""
    exact = x if x.dtype.kind in "biufc" else x.astype(np.float32)
    out = np.empty(x.size, dtype=object)
    out[:] = [_float_text(v) if exact.dtype.kind == "f" else str(v) for v in exact.ravel()]
    return out.reshape(x.shape)


def _float_text(x: np.floating[Any]) -> str:
    """What `repr` is for float, for any float of NumPy: what NumPy prints differs from version to version."""
    text = np.format_float_scientific(x, unique=True, trim="-", exp_digits=2)
    exponent = text.partition("e")[2]
    is_plain = bool(exponent) and -4 <= int(exponent) < 16
    return np.format_float_positional(x, unique=True, trim="0") if is_plain else text
