"""Whole programs on NumPy memory: the arena is one byte array, so a wrong memory plan gives wrong numbers here too.

Kernels run in the interpreter of `kernel.py`. Memory starts as garbage; nothing is allocated but what is planned.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.reference.kernel import GARBAGE, compile_kernel, spoil
from ir.bind import bind_sizes, check_assumptions
from ir.dims import evaluate
from ir.program import Branch, Call, Program, ProgramBuffer, Step
from ir.types import string


def run_program(program: Program, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of `program` by output name, for feeds by input name.

    Raises ValueError where feeds do not fit, or break what the program assumes of its sizes.
    """
    missing = [name for name in program.input_names if name not in feeds]
    if missing:
        raise ValueError(f"no feed for input {', '.join(map(repr, missing))}")
    arrays = [np.asarray(feeds[name]) for name in program.input_names]
    types = [program.buffers[name].type for name in program.inputs]
    for name, array, type_ in zip(program.input_names, arrays, types):
        if array.dtype != type_.dtype.numpy:
            raise ValueError(f"input {name!r} is {array.dtype}, it must be {type_}")
    sizes = bind_sizes(types, arrays, program.input_names)
    check_assumptions(program.bounds, program.equal_dims, sizes)
    machine = _Machine(program, sizes, dict(zip(program.inputs, arrays)))
    machine.run(program.steps)
    return {name: machine.array(buffer).copy() for name, buffer in zip(program.output_names, program.outputs)}


class _Machine:
    """The memory of one run and its compiled kernels."""

    def __init__(self, program: Program, sizes: dict[str, int], inputs: dict[str, np.ndarray]) -> None:
        self.program = program
        self.sizes = sizes
        self.inputs = inputs
        self.kernels = {kernel.name: compile_kernel(kernel) for kernel in program.kernels}
        lengths = [evaluate(slot.bytes, sizes) for slot in program.slots]
        self.starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self.arena = np.full(sum(lengths), GARBAGE, np.uint8)
        self.arrays: dict[str, np.ndarray] = {}

    def run(self, steps: list[Step] | tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Call():
                    self.call(step)
                case Branch():
                    holds = self.array(step.condition).reshape(-1)[0]
                    check_assumptions({}, step.equal_then if holds else step.equal_orelse, self.sizes)
                    self.run(step.then if holds else step.orelse)

    def call(self, call: Call) -> None:
        values = dict(zip(call.kernel.sizes, (evaluate(size, self.sizes) for size in call.sizes)))
        arrays = [self.array(name) for name in call.args]
        # Memory is dense: a parameter of one axis takes the elements of any shape in their order.
        arrays = [a.reshape(-1) if p.type.rank == 1 else a for p, a in zip(call.kernel.params, arrays)]
        try:
            self.kernels[call.kernel.name](arrays, values)
        except (ValueError, IndexError) as error:
            origin = f" (from {', '.join(call.sources)})" if call.sources else ""
            raise type(error)(f"{call.kernel.name}({', '.join(call.args)}){origin}: {error}") from error

    def array(self, name: str) -> np.ndarray:
        """The memory of a buffer as an array of its type."""
        if name not in self.arrays:
            buffer = self.program.buffers[name]
            shape = tuple(evaluate(size, self.sizes) for size in buffer.type.shape)
            self.arrays[name] = self.memory(buffer, shape)
        return self.arrays[name]

    def memory(self, buffer: ProgramBuffer, shape: tuple[int, ...]) -> np.ndarray:
        dtype = buffer.type.dtype
        match buffer.place:
            case "input":
                return np.ascontiguousarray(self.inputs[buffer.name]).reshape(shape)
            case "weight" if buffer.blob is not None:
                return np.ascontiguousarray(buffer.blob.array()).reshape(shape)
            case "view" if buffer.base is not None:
                return _reinterpret(self.array(buffer.base), dtype.numpy, shape)
            case "arena" if dtype is not string and buffer.slot >= 0:
                start = self.starts[buffer.slot] + buffer.offset
                length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                if start + length > self.arena.size:
                    raise ValueError(f"{buffer.name} ends at byte {start + length} of an arena of {self.arena.size}")
                return self.arena[start : start + length].view(dtype.numpy).reshape(shape)
            case _:
                fresh = np.empty(shape, dtype.numpy)
                spoil(fresh.reshape(-1))
                return fresh


def _reinterpret(base: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The first bytes of `base` as an array of another type, on the same memory."""
    flat = base.reshape(-1)
    count = int(np.prod(shape, dtype=np.int64))
    if flat.dtype == dtype:
        return flat[:count].reshape(shape)
    return flat.view(np.uint8)[: count * dtype.itemsize].view(dtype).reshape(shape)
