"""What a call of a compiled model needs that follows from the shapes of its inputs: made once for each, used often.

A call takes some microseconds besides the kernels, so what stands here is written for few steps in Python.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends.c.ports import Port, Ports
from compiler.errors import CompileError, UsageError
from ir import kinds
from ir.dims import evaluate, names

_HEAD_BYTES = object.__basicsize__
_read_pointer = ctypes.c_void_p.from_address


def _address_in_object(array: np.ndarray) -> int | None:
    """The address of the elements, read from the array object, whose first field it is: in a sixth of the time that
    `array.ctypes.data` takes."""
    return _read_pointer(id(array) + _HEAD_BYTES).value


def _address_by_numpy(array: np.ndarray) -> int | None:
    return array.ctypes.data


def _reads_objects() -> bool:
    """Whether arrays are laid out in this Python as `_address_in_object` believes."""
    if sys.implementation.name != "cpython":
        return False
    tried = [np.empty(size, np.uint8) for size in (1, 100)]
    tried.append(tried[1][3:])
    return all(_address_in_object(array) == array.ctypes.data for array in tried)


address = _address_in_object if _reads_objects() else _address_by_numpy


class PreparedCall:
    """The arguments of calls whose inputs have the same shapes. `needed` is the size of the arena in bytes."""

    def __init__(self, ports: Ports, sizes: Mapping[str, int], measure: Any) -> None:
        """`measure` is the C function that takes the dims and gives the size of the arena.

        Raises CompileError where it says that sizes are negative, or too large.
        """
        self.ports = ports
        self.sizes = sizes
        self.dims = (ctypes.c_int64 * max(1, len(ports.dims)))(*(sizes[name] for name in ports.dims))
        self.needed = int(measure(self.dims))
        if self.needed < 0:
            raise CompileError("E0501", "a tensor would have a negative size, or be too large", exit_code=5)
        self.arena_bytes = ctypes.c_size_t(self.needed)
        self._told = (ctypes.c_int64 * max(1, len(ports.told)))()
        tensors = len(ports.inputs) + len(ports.outputs)
        self.pointers = (ctypes.c_void_p * max(1, tensors + len(ports.told)))()
        for i in range(len(ports.told)):
            self.pointers[tensors + i] = ctypes.addressof(self._told) + i * ctypes.sizeof(ctypes.c_int64)
        self._pack = struct.Struct(f"{tensors}P").pack_into
        self._names = [port.name for port in ports.outputs]
        self._made = [(self._memory_shape(port), port.type.dtype.numpy) for port in ports.outputs]
        own = {port.name for port in ports.outputs if not self._is_told(port)}
        self._writable = {name for name in own & set(ports.output_names) if f"output {name}" not in ports.kinds}
        is_tensors = not any(key.startswith("output ") for key in ports.kinds)
        self._decode = None if is_tensors else kinds.decoder(ports.kinds)

    def _memory_shape(self, port: Port) -> tuple[int, ...]:
        """The shape of an output; one axis with room for all that a run may give where only that tells it."""
        shape = (port.room,) if self._is_told(port) else port.type.shape
        return tuple(max(0, evaluate(size, self.sizes)) for size in shape)

    def _is_told(self, port: Port) -> bool:
        return any(names(size) & set(self.ports.told) for size in port.type.shape)

    def memories(self) -> list[np.ndarray]:
        """Memory for every output."""
        new = self.ports.new
        return [new(shape, dtype) for shape, dtype in self._made]

    def given(self, outputs: Mapping[str, Any], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Memory for every output: the arrays in `outputs`, new ones for those left out. Raises UsageError."""
        if not outputs.keys() <= self._writable:
            raise self._refusal(outputs)
        taken = [_range(array) for array in inputs]
        results = []
        for name, (shape, dtype) in zip(self._names, self._made):
            array = outputs.get(name)
            if array is None:
                results.append(self.ports.new(shape, dtype))
                continue
            begin, end = own = _range(_checked(name, array, shape, dtype))
            for other_begin, other_end in taken:
                if begin < other_end and other_begin < end:
                    raise UsageError("E0209", f"the array for output '{name}' shares memory with another")
            taken.append(own)
            results.append(array)
        return results

    def _refusal(self, outputs: Mapping[str, Any]) -> UsageError:
        """Why some of `outputs` cannot be given."""
        callers = self.ports.output_names
        unknown = sorted(outputs.keys() - set(callers))
        if unknown:
            message = f"the model has no output '{unknown[0]}'"
            return UsageError("E0208", message, help=f"its outputs: {', '.join(callers)}")
        message = f"output '{min(outputs.keys() - self._writable)}' cannot be written into an array that is given"
        return UsageError("E0209", message, help="only tensors can whose sizes follow from those of the inputs")

    def point(self, inputs: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Lets the call read and write these arrays."""
        self._pack(self.pointers, 0, *map(address, inputs), *map(address, results))

    def results(self, results: Sequence[np.ndarray]) -> dict[str, Any]:
        """The outputs by name as callers get them, when the call is done."""
        if not self.ports.told:
            made = dict(zip(self._names, results))
            return made if self._decode is None else self._decode(made)
        told = dict(zip(self.ports.told, self._told))
        return self.ports.results(results, {**self.sizes, **told})


def _checked(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that a caller gives for an output. Raises UsageError where it is not of `dtype` and `shape`."""
    if type(array) is not np.ndarray or (array.dtype is not dtype and array.dtype != dtype) or array.shape != shape:
        found = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UsageError("E0209", f"the array for output '{name}' is {found}; the model gives {dtype}{list(shape)}")
    flags = array.flags
    if not flags.c_contiguous or not flags.writeable:
        raise UsageError("E0209", f"the array for output '{name}' is not C-contiguous, or read-only")
    return array


def _range(array: np.ndarray) -> tuple[int, int]:
    """The addresses of the first byte of a C-contiguous array, and of that after its last."""
    begin = address(array) or 0
    return begin, begin + array.nbytes


__all__ = ["PreparedCall", "address"]
