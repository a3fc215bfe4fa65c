"""Inputs, outputs and dims of an emitted folder as its manifest describes them, and arrays as its C takes them.

A port that holds strings is u8 with the bytes of a cell on its last axis (`ir.cells`); callers give and get arrays of
str. Needs the manifest, NumPy and symbolic sizes; none of the compiler's graph code, and no compiled code either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import UsageError
from ir import cells, parts
from ir.bind import bind_sizes, check_assumptions
from ir.blob import stored
from ir.dims import Size, evaluate, parse_dim
from ir.types import DTYPES, TensorType


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type in C, whether it holds strings, the keys where its rows are maps, and how
    many elements it has at most."""

    name: str
    type: TensorType
    strings: bool = False
    keys: tuple[int | str, ...] | None = None
    room: Size = 0

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Port:
        """The port of an entry in a manifest."""
        type_ = TensorType(DTYPES[entry["dtype"]], tuple(parse_dim(str(size)) for size in entry["shape"]))
        keys = tuple(entry["keys"]) if "keys" in entry else None
        room = parse_dim(entry["room"]) if "room" in entry else type_.elements
        return Port(entry["name"], type_, bool(entry.get("strings")), keys, room)

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

    def result(self, array: np.ndarray) -> Any:
        """The output as callers get it, from what C wrote."""
        if self.keys is not None:
            return [dict(zip(self.keys, row, strict=True)) for row in array.tolist()]
        return cells.decode(array) if self.strings else array

    @property
    def described(self) -> str:
        """The type as callers see it."""
        return str(TensorType(DTYPES["string"], self.type.shape[:-1]) if self.strings else self.type)


class Ports:
    """What a model takes and gives. `told` are the sizes of outputs that only a run tells.

    Sequences and optionals are several tensors each (`ir.parts`); callers give and get lists, and None.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._composites: dict[str, list[Any]] = dict(manifest.get("composites", {}))
        self.inputs = [Port.of(entry) for entry in manifest["inputs"]]
        self.outputs = [Port.of(entry) for entry in manifest["outputs"]]
        self.dims = [dim["name"] for dim in manifest["dims"]]
        self.told = [size["name"] for size in manifest.get("told", ())]
        self._bounds = {dim["name"]: (int(dim["min"]), dim["max"]) for dim in manifest["dims"]}
        self._equal = [(parse_dim(a), parse_dim(b)) for a, b in manifest.get("equal_dims", [])]
        self._demanded_by = dict(zip(self._equal, manifest.get("equal_dims_nodes", [])))

    def arrays(self, feeds: Mapping[str, Any]) -> list[np.ndarray]:
        """The inputs in order, as C takes them. Raises UsageError for what does not fit."""
        feeds = self._with_parts(feeds)
        arrays = [port.given(feeds) for port in self.inputs]
        known = [port.name for port in self.inputs]
        unknown = sorted(set(feeds) - set(known))
        if unknown:
            raise UsageError("E0208", f"the model has no input '{unknown[0]}'", help=f"its inputs: {', '.join(known)}")
        return arrays

    def _with_parts(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The feeds with the tensors of each sequence and optional in its place."""
        given = dict(feeds)
        for key, what in self._composites.items():
            kind, _, name = key.partition(" ")
            if kind != "input":
                continue
            if name not in given:
                raise UsageError("E0208", f"input '{name}' is missing", help=f"it is of kind {what[0]}")
            try:
                given.update(parts.encode(given.pop(name), what, name))
            except ValueError as error:
                raise UsageError("E0209", f"input {error}") from error
        return given

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The dims, from the shapes of the inputs. Raises UsageError where they contradict the model."""
        try:
            sizes = bind_sizes([port.type for port in self.inputs], arrays, [port.name for port in self.inputs])
            check_assumptions(self._bounds, self._equal, sizes, self._demanded_by)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        return sizes

    def memories(self, sizes: Mapping[str, int]) -> list[np.ndarray]:
        """Memory for the outputs, each in one axis, with room for the most elements that it can have."""
        return [np.empty(max(0, evaluate(port.room, sizes)), port.type.dtype.numpy) for port in self.outputs]

    def results(self, memories: Sequence[np.ndarray], sizes: Mapping[str, int]) -> dict[str, Any]:
        """The outputs by name as callers get them; `sizes` includes those that the run told."""
        results = {}
        for port, memory in zip(self.outputs, memories):
            shape = tuple(evaluate(size, sizes) for size in port.type.shape)
            count = math.prod(shape)
            array = memory if memory.size == count else memory[:count].copy()
            results[port.name] = port.result(array.reshape(shape))
        for key, what in self._composites.items():
            kind, _, name = key.partition(" ")
            if kind == "output":
                whole = parts.decode(results, what, name)
                results = {n: v for n, v in results.items() if n != name and n not in parts.names(what, name)}
                results[name] = whole
        return results


__all__ = ["Port", "Ports"]
