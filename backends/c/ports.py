"""Inputs and outputs of an emitted folder as its manifest describes them, and arrays in the form that its C takes.

A port that holds strings is u8 with the bytes of a cell on its last axis (`ir.cells`); callers give and get arrays of
str. Needs the manifest, NumPy and symbolic sizes; none of the compiler's graph code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import UsageError
from ir import cells
from ir.blob import stored
from ir.dims import parse_dim
from ir.types import DTYPES, TensorType


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type in C, and whether it holds strings."""

    name: str
    type: TensorType
    strings: bool = False

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Port:
        """The port of an entry in a manifest."""
        type_ = TensorType(DTYPES[entry["dtype"]], tuple(parse_dim(str(size)) for size in entry["shape"]))
        return Port(entry["name"], type_, bool(entry.get("strings")))

    def given(self, feeds: Mapping[str, Any]) -> np.ndarray:
        """The input as C takes it, C-contiguous. Raises UsageError where it is missing or of another type or rank."""
        if self.name not in feeds:
            raise UsageError("E0208", f"input '{self.name}' is missing", help=f"it is {self.described}")
        array = np.asarray(feeds[self.name])
        if self.strings:
            return self._cells(array)
        if array.dtype != self.type.dtype.numpy:
            raise UsageError("E0209", f"input '{self.name}' is {array.dtype}; the model takes {self.type.dtype.numpy}")
        if array.ndim != self.type.rank:
            message = f"input '{self.name}' has shape {list(array.shape)}; the model takes {self.described}"
            raise UsageError("E0209", message)
        return stored(np.ascontiguousarray(array).reshape(array.shape))

    def _cells(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "OUST":
            raise UsageError("E0209", f"input '{self.name}' is {array.dtype}; the model takes strings")
        if array.ndim != self.type.rank - 1:
            message = f"input '{self.name}' has shape {list(array.shape)}; the model takes {self.described}"
            raise UsageError("E0209", message)
        width = self.type.shape[-1]
        try:
            return cells.encode(array.astype(object), width if isinstance(width, int) else None)
        except ValueError as error:
            raise UsageError("E0209", f"input '{self.name}': {error}") from error

    def result(self, array: np.ndarray) -> np.ndarray:
        """The output as callers get it, from what C wrote."""
        return cells.decode(array) if self.strings else array

    @property
    def described(self) -> str:
        """The type as callers see it."""
        return str(TensorType(DTYPES["string"], self.type.shape[:-1]) if self.strings else self.type)


__all__ = ["Port"]
