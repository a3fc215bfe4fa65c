"""Scalar functions on symbolic sizes, so that arithmetic on shapes folds while a graph is built.

Every answer is exact: integers, fractions (a float that came from a size), and sizes of `ir.dims`. Where the exact
answer is not a size, or depends on the values of the symbols, `Undecided` is raised; nothing here rounds or guesses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ir.dims import Dim, Undecided, ceil, decide_eq, decide_le, floor, maximum, minimum, terms

_MAX_DENOMINATOR = 1024


def holds_dims(array: np.ndarray) -> bool:
    """Whether an array of known content has a symbolic size in it."""
    return array.dtype == object and any(isinstance(value, Dim) for value in array.flat)


def symbolic_map(function: str, *operands: np.ndarray) -> np.ndarray:
    """The scalar function of that name on arrays that may hold symbolic sizes, with NumPy broadcasting.

    Raises Undecided where it has no exact meaning on sizes, or where the symbols decide.
    """
    exact = EXACT.get(function)
    if exact is None:
        raise Undecided(f"{function} of a symbolic size")
    if function == "div" and not any(is_fractional(x) for x in operands):
        exact = _even_quotient
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    columns = [[exact_value(v) for v in np.broadcast_to(x, shape).ravel().tolist()] for x in operands]
    out = np.empty(math.prod(shape), dtype=object)
    try:
        out[:] = [exact(*values) for values in zip(*columns)]
    except ZeroDivisionError as error:
        raise Undecided(str(error)) from error
    return out.reshape(shape)


def is_fractional(array: np.ndarray) -> bool:
    """Whether an array certainly holds numbers of a float type: by its own type, or by a fraction in it."""
    if array.dtype != object:
        return array.dtype.kind not in "iub"
    return any(
        isinstance(v, (float, Fraction)) or (isinstance(v, Dim) and any(isinstance(c, Fraction) for c, _ in terms(v)))
        for v in array.flat
    )


def exact_value(value: Any) -> Any:
    """A number as an int, a Fraction or a Dim. Raises Undecided for floats that are no simple fraction."""
    if isinstance(value, (Dim, int, Fraction)):
        return value
    number = float(value)
    exact = Fraction(number) if math.isfinite(number) else None
    if exact is None or exact.denominator > _MAX_DENOMINATOR:
        raise Undecided(f"{number} is not a simple fraction")
    return exact.numerator if exact.denominator == 1 else exact


def truncate(value: Any) -> Any:
    """`value` rounded towards zero, as a float is converted to an integer."""
    if isinstance(value, Dim):
        return floor(maximum(value, 0)) - floor(maximum(-value, 0)) if _has_fraction(value) else value
    return math.trunc(value)


def truncated_quotient(a: Any, b: Any) -> Any:
    """a / b of integers, rounded towards zero; where the sign of `a` is known it is a floor division."""
    if not isinstance(b, Dim) and b < 0:
        a, b = -a, -b
    elif isinstance(b, Dim) and decide_le(0, b) is not True:
        raise Undecided(f"the sign of the divisor {b}")
    return maximum(a, 0) // b - maximum(-a, 0) // b


def _has_fraction(value: Dim) -> bool:
    return any(isinstance(c, Fraction) for c, _ in terms(value))


def _even_quotient(a: Any, b: Any) -> Any:
    """a / b where it comes out even. Operands may be of an integer or a float type here: only then do both agree."""
    quotient = _quotient(a, b)
    if isinstance(quotient, Fraction) or (isinstance(quotient, Dim) and _has_fraction(quotient)):
        raise Undecided(f"{a} / {b} does not come out even")
    return quotient


def _quotient(a: Any, b: Any) -> Any:
    if isinstance(a, Dim) or isinstance(b, Dim):
        return a / b
    return exact_value(Fraction(a) / Fraction(b))


def _power(a: Any, b: Any) -> Any:
    if not isinstance(b, int) or not 0 <= b <= 8:
        raise Undecided(f"{a} to the power {b}")
    return a**b


def _equal(a: Any, b: Any) -> bool:
    verdict = decide_eq(a, b)
    if verdict is None:
        raise Undecided(f"whether {a} equals {b}")
    return verdict


def _sign(a: Any) -> int:
    if isinstance(a, Dim):
        return 0 if _equal(a, 0) else (1 if a > 0 else -1)
    return (a > 0) - (a < 0)


def _round(a: Any) -> Any:
    if not isinstance(a, Dim):
        return round(a)
    if _has_fraction(a):
        raise Undecided(f"{a} rounded to nearest")
    return a


EXACT: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _quotient,
    "truncdiv": truncated_quotient,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "fmod": lambda a, b: a - b * truncated_quotient(a, b),
    "pow": _power,
    "min": minimum,
    "max": maximum,
    "neg": lambda a: -a,
    "abs": lambda a: maximum(a, -a),
    "sign": _sign,
    "floor": floor,
    "ceil": ceil,
    "trunc": truncate,
    "round": _round,
    "eq": _equal,
    "ne": lambda a, b: not _equal(a, b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}

__all__ = ["EXACT", "exact_value", "holds_dims", "is_fractional", "symbolic_map", "truncate", "truncated_quotient"]
