"""Maps from keys to values: in Python a dict. Only a graph interpreter has them.

A target without maps gives the rows that `zip_map` makes maps of as they are (see the pass `maps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.op import Op, case, define, op, require
from ir.types import DType, MapType, SequenceType, TensorType, Type

Key = int | str


def key_type(keys: tuple[Key, ...]) -> DType:
    return t.string if keys and isinstance(keys[0], str) else t.i64


@op
class ZipMap(Op):
    """For each row of x[n, keys] a map from `keys` to its elements: a sequence of maps."""

    structural = True
    keys: tuple[Key, ...]
    examples = [case("f32[2,3]", keys=(4, 7, 1)), case("f32[0,1]", keys=("a",))]

    def infer(self, x: TensorType) -> SequenceType:
        fits = x.rank == 2 and x.shape[1] in (len(self.keys), *(() if isinstance(x.shape[1], int) else (x.shape[1],)))
        require(fits, lambda: f"zip_map: {len(self.keys)} keys for {x}")
        return SequenceType(MapType(key_type(self.keys), TensorType(x.dtype, ())))

    def reference(self, x: np.ndarray) -> list[dict[Key, Any]]:
        return [dict(zip(self.keys, row, strict=True)) for row in x.tolist()]


def _map_of(name: str, type_: Type) -> tuple[DType, DType]:
    """The types of keys and values. Raises OpError for what is no map of single values."""
    is_plain = isinstance(type_, MapType) and isinstance(type_.value, TensorType) and type_.value.rank == 0
    require(is_plain, lambda: f"{name} does not take {type_}")
    assert isinstance(type_, MapType) and isinstance(type_.value, TensorType)
    return type_.key, type_.value.dtype


def _plain(values: Mapping[Key, Any]) -> dict[Key, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}


@op
class MapToTensor(Op):
    """The values of a map from i64, as [1, size] of type `to`, in the order of their keys.

    With `places`, value v of key k stands at [0, k] of [1, places] instead, a zero (of strings "0.f") where there is no
    such key, and other keys are left out.
    """

    structural = True
    defines = ("size",)
    to: DType
    size: Size
    places: int = 0

    def infer(self, values: Type) -> TensorType:
        key, value = _map_of(self.name, values)
        require(key == t.i64 and value in (t.f32, t.string), lambda: f"{self.name} does not take {values}")
        require(self.to in (t.f32, t.i64, t.string), lambda: f"{self.name} does not give {self.to}")
        if not self.places:
            define(self.size, None)
        return TensorType(self.to, (1, self.places or self.size))

    def reference(self, values: Mapping[Key, Any]) -> np.ndarray:
        given = sorted((int(key), self._converted(value)) for key, value in _plain(values).items())
        if not self.places:
            return np.array([[value for _, value in given]], self.to.numpy).reshape(1, -1)
        y = np.full((1, self.places), "0.f" if self.to == t.string else 0, self.to.numpy)
        for key, value in given:
            if 0 <= key < self.places:
                y[0, key] = value
        return y

    def _converted(self, value: Any) -> Any:
        if self.to == t.string:
            return value if isinstance(value, str) else f"{value:f}"
        return float(value) if self.to == t.f32 else int(float(value))


@op
class MapLookup(Op):
    """The values of a map by the keys of `vocabulary`, as [1, len(vocabulary)]; 0 or "" for keys that it lacks."""

    structural = True
    vocabulary: tuple[Key, ...]
    dtype: DType = t.f32

    def infer(self, values: Type) -> TensorType:
        key, value = _map_of(self.name, values)
        fits = (key, value) == (key_type(self.vocabulary), self.dtype)
        require(fits, lambda: f"{self.name}: {key_type(self.vocabulary)} to {self.dtype} from {values}")
        return TensorType(value, (1, len(self.vocabulary)))

    def reference(self, values: Mapping[Key, Any]) -> np.ndarray:
        plain, missing = _plain(values), "" if self.dtype == t.string else 0
        return np.array([[plain.get(key, missing) for key in self.vocabulary]], self.dtype.numpy)


__all__ = ["Key", "MapLookup", "MapToTensor", "ZipMap", "key_type"]
