"""Element types and value types.

A type says what a value is, never where it lives: layout, placement and alignment are the business of ops and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np

from ir.dims import Dim, Size, dim_text, names, upper_bound

Kind: TypeAlias = Literal["float", "int", "uint", "bool", "complex", "string"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type. `bits` is the width of its value; arrays in memory use whole bytes per element (`itemsize`)."""

    name: str
    kind: Kind
    bits: int
    numpy: np.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of one element in an array (sub-byte types occupy one byte each; `pack` is for files)."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_signed(self) -> bool:
        return self.kind in ("int", "float")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _dtype(name: str, kind: Kind, bits: int, numpy: object) -> DType:
    return DType(name, kind, bits, np.dtype(numpy))  # type: ignore[call-overload]


bool_ = _dtype("bool", "bool", 8, np.bool_)
i8 = _dtype("i8", "int", 8, np.int8)
i16 = _dtype("i16", "int", 16, np.int16)
i32 = _dtype("i32", "int", 32, np.int32)
i64 = _dtype("i64", "int", 64, np.int64)
u8 = _dtype("u8", "uint", 8, np.uint8)
u16 = _dtype("u16", "uint", 16, np.uint16)
u32 = _dtype("u32", "uint", 32, np.uint32)
u64 = _dtype("u64", "uint", 64, np.uint64)
i4 = _dtype("i4", "int", 4, ml_dtypes.int4)
u4 = _dtype("u4", "uint", 4, ml_dtypes.uint4)
i2 = _dtype("i2", "int", 2, ml_dtypes.int2)
u2 = _dtype("u2", "uint", 2, ml_dtypes.uint2)
f16 = _dtype("f16", "float", 16, np.float16)
bf16 = _dtype("bf16", "float", 16, ml_dtypes.bfloat16)
f32 = _dtype("f32", "float", 32, np.float32)
f64 = _dtype("f64", "float", 64, np.float64)
f8e4m3fn = _dtype("f8e4m3fn", "float", 8, ml_dtypes.float8_e4m3fn)
f8e4m3fnuz = _dtype("f8e4m3fnuz", "float", 8, ml_dtypes.float8_e4m3fnuz)
f8e5m2 = _dtype("f8e5m2", "float", 8, ml_dtypes.float8_e5m2)
f8e5m2fnuz = _dtype("f8e5m2fnuz", "float", 8, ml_dtypes.float8_e5m2fnuz)
f8e8m0 = _dtype("f8e8m0", "float", 8, ml_dtypes.float8_e8m0fnu)
f6e2m3 = _dtype("f6e2m3", "float", 6, ml_dtypes.float6_e2m3fn)
f6e3m2 = _dtype("f6e3m2", "float", 6, ml_dtypes.float6_e3m2fn)
f4e2m1 = _dtype("f4e2m1", "float", 4, ml_dtypes.float4_e2m1fn)
c64 = _dtype("c64", "complex", 64, np.complex64)
c128 = _dtype("c128", "complex", 128, np.complex128)
string = _dtype("string", "string", 64, object)

DTYPES: dict[str, DType] = {
    t.name: t
    for t in (
        bool_, i8, i16, i32, i64, u8, u16, u32, u64, i4, u4, i2, u2, f16, bf16, f32, f64,
        f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz, f8e8m0, f6e2m3, f6e3m2, f4e2m1, c64, c128, string,
    )
}  # fmt: skip
_BY_NUMPY = {t.numpy: t for t in DTYPES.values()}


def dtype_of(array: np.ndarray | np.generic | np.dtype) -> DType:
    """The DType of a NumPy array, scalar or dtype. Raises TypeError for one that ONNX does not have."""
    numpy = array if isinstance(array, np.dtype) else array.dtype
    if numpy.kind in "OUST":
        return string
    found = _BY_NUMPY.get(numpy)
    if found is None:
        raise TypeError(f"no element type for NumPy dtype {numpy}")
    return found


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor of `dtype` whose shape is a tuple of sizes (ints, or symbolic dims of `ir.dims`)."""

    dtype: DType
    shape: tuple[Size, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(size, int) for size in self.shape)

    @property
    def elements(self) -> Size:
        """Number of elements, symbolic where the shape is."""
        return math.prod(self.shape, start=1)  # type: ignore[arg-type]

    @property
    def max_elements(self) -> int | None:
        """An upper bound on the number of elements, None where a dim has none."""
        bound = upper_bound(self.elements)
        return None if bound is None else int(bound)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(dim_text(size) for size in self.shape)}]"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A sequence whose elements are all of type `element`; its length is known at run time only."""

    element: Type

    def __str__(self) -> str:
        return f"seq<{self.element}>"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value of type `element`, or nothing."""

    element: Type

    def __str__(self) -> str:
        return f"optional<{self.element}>"


@dataclass(frozen=True, slots=True)
class MapType:
    """A map from integer or string keys to values of type `value`."""

    key: DType
    value: Type

    def __str__(self) -> str:
        return f"map<{self.key},{self.value}>"


Type: TypeAlias = TensorType | SequenceType | OptionalType | MapType


def names_in(type_: Type) -> set[str]:
    """The symbols in the sizes of a type, and of the elements of one that has elements."""
    while isinstance(type_, (SequenceType, OptionalType)):
        type_ = type_.element
    return {name for size in type_.shape for name in names(size)} if isinstance(type_, TensorType) else set()


def tensor(dtype: DType | str, *shape: Size) -> TensorType:
    """`tensor("f32", N, 3)` is the type f32[N,3]."""
    return TensorType(DTYPES[dtype] if isinstance(dtype, str) else dtype, shape)


__all__ = [
    "DTYPES", "DType", "Dim", "MapType", "OptionalType", "SequenceType", "Size", "TensorType", "Type", "dtype_of",
    "names_in", "tensor",
]  # fmt: skip
