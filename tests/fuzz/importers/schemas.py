"""The operators of ONNX as cases are drawn for them: every version of a schema that some opset from 7 on uses."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx.defs

DOMAINS = ("", "ai.onnx.ml")
FIRST_OPSET = 7
PARTNER = {"ai.onnx.ml": 21}
"""The opset of ai.onnx beside that of another domain."""

UNDRAWN = {
    "ImageDecoder": "its input is a file of a picture format",
    "SequenceMap": "its body is a graph; tests/ops/test_control.py has cases",
    "Loop": "its body is a graph; tests/ops/test_control.py has cases",
    "Scan": "its body is a graph; tests/ops/test_control.py has cases",
    "If": "its branches are graphs; tests/ops/test_control.py has cases",
}
"""Operators without cases, and why."""


@dataclass(frozen=True)
class Version:
    """One version of an operator, and the opsets at which it is in force."""

    schema: Any
    opsets: tuple[int, int]

    @property
    def name(self) -> str:
        return self.schema.name

    @property
    def domain(self) -> str:
        return self.schema.domain

    def __str__(self) -> str:
        return f"{self.name}-{self.schema.since_version}"


@functools.cache
def versions() -> tuple[Version, ...]:
    """Every version to draw cases for, sorted by domain, name and version."""
    newest = {domain: _newest(domain) for domain in DOMAINS}
    families: dict[tuple[str, str], list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in DOMAINS and schema.name not in UNDRAWN:
            families.setdefault((schema.domain, schema.name), []).append(schema)
    found = []
    for (domain, _), schemas in sorted(families.items()):
        first = FIRST_OPSET if domain == "" else 1
        schemas.sort(key=lambda schema: schema.since_version)
        ends = [schema.since_version - 1 for schema in schemas[1:]] + [newest[domain]]
        for schema, end in zip(schemas, ends):
            if end >= first and not schema.deprecated:
                found.append(Version(schema, (max(first, schema.since_version), end)))
    return tuple(found)


def _newest(domain: str) -> int:
    return max(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain)


NUMPY: Mapping[str, np.dtype] = {
    name: np.dtype(type_)
    for name, type_ in {
        "float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
        "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64, "bool": np.bool_,
        "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64, "string": np.object_,
        "complex64": np.complex64, "complex128": np.complex128, "int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4,
        "int2": ml_dtypes.int2, "uint2": ml_dtypes.uint2, "float4e2m1": ml_dtypes.float4_e2m1fn,
        "float8e4m3fn": ml_dtypes.float8_e4m3fn, "float8e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8e5m2": ml_dtypes.float8_e5m2, "float8e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8e8m0": ml_dtypes.float8_e8m0fnu, "float6e2m3": ml_dtypes.float6_e2m3fn,
        "float6e3m2": ml_dtypes.float6_e3m2fn,
    }.items()
}  # fmt: skip
"""NumPy's type for each element type, by the name that schemas use."""


def kind(name: str) -> str:
    """ "float", "int", "uint", "bool", "string" or "complex": what sort of element type `name` is."""
    if name in ("double", "bfloat16"):
        return "float"
    return name.rstrip("0123456789") if not name.startswith("float") else "float"


def element(type_text: str) -> str:
    """The element type in `type_text`: "float" of "seq(tensor(float))"."""
    return type_text.rpartition("(")[2].rstrip(")")


def number(name: str) -> int:
    """The number of an element type in TensorProto.DataType."""
    return onnx.TensorProto.DataType.Value(name.upper())
