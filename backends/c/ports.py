"""Inputs, outputs and dims of an emitted folder as its manifest describes them, and arrays as its C takes them.

Needs the manifest, NumPy and symbolic sizes; none of the compiler's graph code, and no compiled code either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.c.statuses import OF_FORM, OF_VALUES, status_name
from compiler.errors import EXIT_INTERNAL, EXIT_USAGE, CompileError, UnsupportedError, UsageError
from ir import kinds
from ir.bind import bind_sizes, check_assumptions
from ir.blob import stored
from ir.dims import Size, evaluate, parse_dim
from ir.types import DTYPES, TensorType


def failed_run(status: int, words: str) -> CompileError:
    """The error of a run that returned `status`, which means `words`."""
    name = status_name(status)
    if name == OF_FORM:
        return UnsupportedError("E0405", words)
    exit_code = EXIT_USAGE if name in OF_VALUES else EXIT_INTERNAL
    return CompileError("E0502", f"the model returned: {words}", exit_code=exit_code)


@dataclass(frozen=True)
class Port:
    """A tensor that C takes or gives: its name, its type, and how many elements it has at most."""

    name: str
    type: TensorType
    room: Size

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Port:
        """The port of an entry in a manifest."""
        type_ = TensorType(DTYPES[entry["dtype"]], tuple(parse_dim(str(size)) for size in entry["shape"]))
        return Port(entry["name"], type_, parse_dim(entry["room"]) if "room" in entry else type_.elements)

    def given(self, tensors: Mapping[str, Any], seen: TensorType) -> np.ndarray:
        """The input as C takes it, C-contiguous. Raises UsageError where it is missing or of another type or rank;
        `seen` is its type as callers see it, which may have fewer axes."""
        if self.name not in tensors:
            raise UsageError("E0208", f"input '{self.name}' is missing", help=f"it is {seen}")
        array = np.asarray(tensors[self.name])
        if array.dtype != self.type.dtype.numpy:
            raise UsageError("E0209", f"input '{self.name}' is {array.dtype}; the model takes {self.type.dtype.numpy}")
        if array.ndim != self.type.rank:
            shape = array.shape[: array.ndim - (self.type.rank - seen.rank)]
            raise UsageError("E0209", f"input '{self.name}' has shape {list(shape)}; the model takes {seen}")
        return stored(np.ascontiguousarray(array).reshape(array.shape))


class Ports:
    """What a model takes and gives. `told` are the sizes of outputs that only a run tells, `kinds` what inputs and
    outputs are to callers, where that is not the tensors of C."""

    new: Callable[[tuple[int, ...], np.dtype], np.ndarray] = staticmethod(lambda shape, dtype: np.empty(shape, dtype))
    """Makes memory for an output."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.kinds: dict[str, list[Any]] = dict(manifest.get("kinds", {}))
        self.inputs = [Port.of(entry) for entry in manifest["inputs"]]
        self.outputs = [Port.of(entry) for entry in manifest["outputs"]]
        self.dims = [dim["name"] for dim in manifest["dims"]]
        self.told = [size["name"] for size in manifest.get("told", ())]
        self._bounds = {dim["name"]: (int(dim["min"]), dim["max"]) for dim in manifest["dims"]}
        self._equal = [(parse_dim(a), parse_dim(b)) for a, b in manifest.get("equal_dims", [])]
        self._demanded_by = dict(zip(self._equal, manifest.get("equal_dims_nodes", [])))
        self._taken = [(port.name, port.type.dtype.numpy) for port in self.inputs]
        stored_otherwise = any(port.type.dtype.bits < 8 for port in self.inputs)
        self._is_plain = not stored_otherwise and not any(key.startswith("input ") for key in self.kinds)

    @property
    def output_names(self) -> list[str]:
        """The outputs as callers know them."""
        several = kinds.several(self.kinds, "output")
        inner = {each for name, kind in several.items() for each in kinds.tensor_names(kind, name)}
        return [*several, *(port.name for port in self.outputs if port.name not in inner)]

    def as_they_are(self, feeds: Mapping[str, Any]) -> list[np.ndarray] | None:
        """The inputs in order where C takes the very arrays, as far as types go; None where `arrays` must look at them.

        Shapes are not looked at.
        """
        if not self._is_plain or len(feeds) != len(self._taken):
            return None
        arrays: list[np.ndarray] = []
        for name, dtype in self._taken:
            array = feeds.get(name)
            if type(array) is not np.ndarray or not array.flags.c_contiguous:
                return None
            if array.dtype is not dtype and array.dtype != dtype:
                return None
            arrays.append(array)
        return arrays

    def arrays(self, feeds: Mapping[str, Any]) -> list[np.ndarray]:
        """The inputs in order, as C takes them. Raises UsageError for what does not fit."""
        self._check_names(feeds)
        types = {port.name: port.type for port in self.inputs}
        try:
            tensors = kinds.encode(self.kinds, feeds, types, self._bounds, self._equal)
        except ValueError as error:
            raise UsageError("E0209", f"input {error}") from error
        return [port.given(tensors, self._seen(port)) for port in self.inputs]

    def _check_names(self, feeds: Mapping[str, Any]) -> None:
        """Raises UsageError for an input that is missing, if it is none of C, or that the model does not have."""
        several = kinds.several(self.kinds, "input")
        for name, kind in several.items():
            if name not in feeds:
                raise UsageError("E0208", f"input '{name}' is missing", help=f"it is a value of kind {kind[0]}")
        inner = {each for name, kind in several.items() for each in kinds.tensor_names(kind, name)}
        known = [*several, *(port.name for port in self.inputs if port.name not in inner)]
        unknown = sorted(set(feeds) - set(known))
        if unknown:
            raise UsageError("E0208", f"the model has no input '{unknown[0]}'", help=f"its inputs: {', '.join(known)}")

    def _seen(self, port: Port) -> TensorType:
        """The type of an input as callers see it."""
        is_text = self.kinds.get(f"input {port.name}") == ["strings"]
        return TensorType(DTYPES["string"], port.type.shape[:-1]) if is_text else port.type

    def _label(self, port: Port) -> str:
        """The input that a tensor of C is, or is a part of, as callers call it."""
        several = kinds.several(self.kinds, "input").items()
        return next((name for name, kind in several if port.name in kinds.tensor_names(kind, name)), port.name)

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The dims, from the shapes of the inputs. Raises UsageError where they contradict the model."""
        try:
            sizes = bind_sizes([port.type for port in self.inputs], arrays, list(map(self._label, self.inputs)))
            check_assumptions(self._bounds, self._equal, sizes, self._demanded_by)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        return sizes

    def results(self, memories: Sequence[np.ndarray], sizes: Mapping[str, int]) -> dict[str, Any]:
        """The outputs by name as callers get them; `sizes` includes those that the run told."""
        results = {}
        for port, memory in zip(self.outputs, memories):
            shape = tuple(evaluate(size, sizes) for size in port.type.shape)
            count = math.prod(shape)
            array = memory if memory.size == count else memory[:count].copy()
            results[port.name] = array if array.shape == shape else array.reshape(shape)
        return kinds.decode(self.kinds, results)


__all__ = ["Port", "Ports", "failed_run"]
