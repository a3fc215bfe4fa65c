"""Whole programs on NumPy memory: the arena is one byte array, so a wrong memory plan gives wrong numbers here too.

Kernels run in the interpreter of `kernel.py`. Memory starts as garbage; nothing is allocated but what is planned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from backends.reference.kernel import GARBAGE, compile_kernel, spoil
from ir.bind import bind_sizes, check_assumptions
from ir.dims import Size, dim_text, evaluate, names, symbol_of
from ir.program import Bind, Branch, Call, Program, ProgramBuffer, Repeat, Step, told_by
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
        self.sizes = {**dict.fromkeys(program.limits, 0), **sizes}
        self.known: set[str] = set()
        self.demands = [pair for pair in program.equal_dims if program.late(pair)]
        self.inputs = inputs
        self.kernels = {kernel.name: compile_kernel(kernel) for kernel in program.kernels}
        lengths = [evaluate(slot.bytes, sizes) for slot in program.slots]
        self.starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self.arena = np.full(sum(lengths), GARBAGE, np.uint8)
        self.arrays: dict[str, np.ndarray] = {}
        self.unplanned: dict[str, np.ndarray] = {}

    def run(self, steps: list[Step] | tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Call():
                    self.call(step)
                case Branch():
                    holds = self.array(step.condition).reshape(-1)[0]
                    with self.demanding(step.equal_then if holds else step.equal_orelse):
                        self.run(step.then if holds else step.orelse)
                    self.known |= told_by((step,))
                case Bind():
                    self.bind(step)
                case Repeat():
                    self.repeat(step)

    def bind(self, step: Bind) -> None:
        """Gives sizes their values. Raises ValueError for one beyond its limit, or that contradicts what is known."""
        values = [
            int(self.array(value).item()) if isinstance(value, str) else evaluate(value, self.sizes)
            for _, value in step.pairs
        ]
        if step.may_refuse and min(values) < 0:
            raise ValueError("an input is of a form that this program does not read")
        told: dict[str, int] = {}
        for (size, _), value in zip(step.pairs, values):
            name = symbol_of(size)
            if name is not None and name in self.program.limits:
                if told.setdefault(name, value if step.reserves else self.within_limit(name, value)) != value:
                    raise ValueError(f"the size {name} is {told[name]}; the run gives {value} as well")
            elif evaluate(size, self.sizes) != value:
                raise ValueError(f"the size {dim_text(size)} is {evaluate(size, self.sizes)}; the run gives {value}")
        for source, target in step.copies:
            elements = self.array(source).reshape(-1)
            self.memory(self.program.buffers[target], elements.shape)[...] = elements
        for name, value in told.items():
            self.set(name, value)
        if not step.settled:
            return
        self.known |= told.keys()
        for group, limit in self.program.limits.products.items():
            product = math.prod(max(1, self.sizes[name]) for name in group)
            if group & told.keys() and group <= self.known and product > evaluate(limit, self.sizes):
                raise ValueError(f"the sizes {', '.join(sorted(group))} are more than {evaluate(limit, self.sizes)}")
        late = [pair for pair in self.demands if self.program.late(pair) & told.keys()]
        check_assumptions({}, [pair for pair in late if self.program.late(pair) <= self.known], self.sizes)

    @contextmanager
    def demanding(self, pairs: Sequence[tuple[Size, Size]]) -> Iterator[None]:
        """Checks sizes that a block demands to be equal: at its start, or where they become known inside of it."""
        before, known = self.demands, {*self.known}
        check_assumptions({}, [pair for pair in pairs if self.program.late(pair) <= self.known], self.sizes)
        self.demands = [*before, *(pair for pair in pairs if not self.program.late(pair) <= self.known)]
        yield
        self.demands, self.known = before, known

    def within_limit(self, name: str, value: int) -> int:
        """A value for a symbol that steps bind. Raises ValueError where it is out of its bounds."""
        limit = evaluate(self.program.limits[name], self.sizes)
        least = self.program.bounds.get(name, (0, None))[0]
        if not least <= value <= limit:
            raise ValueError(f"the size {name} is {value}, it must be {least} to {limit}")
        return value

    def set(self, name: str, value: int) -> None:
        """Gives one symbol its value, and forgets the shapes that have it."""
        self.sizes[name] = value
        self.arrays = {
            known: array
            for known, array in self.arrays.items()
            if not any(name in names(size) for size in self.program.buffers[known].type.shape)
        }

    def repeat(self, step: Repeat) -> None:
        self.set(step.step, 0)
        self.known.add(step.step)
        while self.goes_on(step):
            with self.demanding(step.equal):
                self.run(step.body)
            self.set(step.step, self.within_limit(step.step, self.sizes[step.step] + 1))

    def goes_on(self, step: Repeat) -> bool:
        """Whether a loop has another step."""
        done = self.sizes[step.step]
        if step.times is not None and done >= evaluate(step.times, self.sizes):
            return False
        if step.trip is not None and done >= int(self.array(step.trip).item()):
            return False
        return step.going is None or bool(self.array(step.going).item())

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
            if min(shape, default=0) < 0:
                raise ValueError(f"{name} is {buffer.type}, which here is of shape {list(shape)}")
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
                if buffer.name not in self.unplanned:
                    most = evaluate(self.program.capacity(buffer.type), self.sizes) // dtype.itemsize
                    self.unplanned[buffer.name] = np.empty(max(0, most), dtype.numpy)
                    spoil(self.unplanned[buffer.name])
                return self.unplanned[buffer.name][: int(np.prod(shape, dtype=np.int64))].reshape(shape)


def _reinterpret(base: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The first bytes of `base` as an array of another type, on the same memory."""
    flat = base.reshape(-1)
    count = int(np.prod(shape, dtype=np.int64))
    if flat.dtype == dtype:
        return flat[:count].reshape(shape)
    return flat.view(np.uint8)[: count * dtype.itemsize].view(dtype).reshape(shape)
