"""The scalar functions that kernels may apply: name, number of arguments, meaning in NumPy.

This table is the one place a scalar function is declared. A backend maps the names to its own language; the meaning
here is what its results are checked against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


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
    def shifted(a: Any, b: Any) -> Any:
        a, b = np.asarray(a), np.asarray(b)
        width = a.dtype.itemsize * 8
        return np.where(b < width, direction(a, np.minimum(b, width - 1)), np.zeros_like(a))

    return shifted


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
    Function("pow", 2, np.power),
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
