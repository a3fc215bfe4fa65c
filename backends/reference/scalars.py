"""Scalar arithmetic on NumPy scalars of one exact type, as the kernel interpreter needs it.

The meaning of a function is `ir.functions`; here its results are only brought back to the type they must have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ir.functions import FUNCTIONS, convert
from ir.types import DTYPES, DType

_NATIVE = [t.name for t in DTYPES.values() if t.numpy.isbuiltin == 1 and t.numpy.kind in "iufc"]
_PLAIN = frozenset((*_NATIVE, "bool"))
_ORDERED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
FAST_INFIX: dict[tuple[str, str], str] = {
    **{(f, t): op for f, op in {"add": "+", "sub": "-", "mul": "*", **_ORDERED}.items() for t in _NATIVE},
    **{("div", t): "/" for t in ("f16", "f32", "f64")},
}
"""Functions and types for which Python's operator on two NumPy scalars is the NumPy function, only sooner."""


def constant(value: Any, dtype: DType) -> Any:
    """A literal as a scalar."""
    if dtype.kind in ("string", "bool"):
        return value
    return np.asarray(value).astype(dtype.numpy)[()] if isinstance(value, float) else dtype.numpy.type(value)


def scalar_function(name: str, dtype: DType) -> Callable[..., Any]:
    """Function `name` on scalars of `dtype`, with its result as a scalar of the type it must have."""
    entry = FUNCTIONS[name]
    if entry.is_predicate:
        return lambda *args: bool(entry.numpy(*args))
    numpy_dtype, kind = dtype.numpy, dtype.numpy.type

    def call(*args: Any) -> Any:
        result = entry.numpy(*args)
        return result if type(result) is kind else np.asarray(result).astype(numpy_dtype)[()]

    return call


def converter(source: DType, target: DType, saturate: bool) -> Callable[[Any], Any]:
    """The conversion of a scalar of `source` (for i64 also a Python int) to `target`, as `Cast` means it."""
    if "string" in (source.kind, target.kind):
        raise TypeError(f"a kernel cannot convert {source} to {target}")
    if target.kind == "bool":
        return lambda value: bool(value != 0)
    source_numpy, target_numpy = source.numpy, target.numpy
    if {source.name, target.name} <= _PLAIN:
        return lambda value: np.asarray(value, dtype=source_numpy).astype(target_numpy)[()]
    return lambda value: convert(np.array([value], dtype=source_numpy), target, saturate)[0]
