"""A lowered model: kernels called in order on buffers, with a plan of where every buffer lies.

This is what a backend emits. A program holds no graph: only kernels (each once per structure), buffers, and steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ir.blob import Blob
from ir.dims import Size, names
from ir.kernel import Kernel
from ir.types import TensorType

Place: TypeAlias = Literal["input", "output", "weight", "arena", "view"]


@dataclass
class Slot:
    """A range of the arena. Its size in bytes is a multiple of 64 and may be symbolic; slots lie one after another."""

    bytes: Size


@dataclass
class ProgramBuffer:
    """A tensor in memory, dense and row-major.

    "input" and "output" buffers belong to the caller, "weight" ones have a `blob`, "arena" ones lie at `offset` bytes
    in slot `slot`, and a "view" is the memory of buffer `base` under another type (same bytes from the start).
    """

    name: str
    type: TensorType
    place: Place
    blob: Blob | None = None
    base: str | None = None
    slot: int = -1
    offset: int = 0


@dataclass(frozen=True)
class Call:
    """`kernel(args)`: names of program buffers in the order of the kernel's parameters.

    `sizes` gives a program-level size for each name in `kernel.sizes`, in that order. `sources` are ONNX node names.
    """

    kernel: Kernel
    args: tuple[str, ...]
    sizes: tuple[Size, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Branch:
    """Runs `then` where the bool scalar in buffer `condition` is true, else `orelse`.

    `equal_then` and `equal_orelse` are sizes that must be equal where that side runs.
    """

    condition: str
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]
    sources: tuple[str, ...] = ()
    equal_then: tuple[tuple[Size, Size], ...] = ()
    equal_orelse: tuple[tuple[Size, Size], ...] = ()


Step: TypeAlias = Call | Branch


@dataclass
class Program:
    """Inputs and outputs are names of buffers, `input_names` and `output_names` what callers see (model names).

    `bounds` narrows symbolic dims, `equal_dims` must hold when called, for the ONNX nodes in `demanded_by`.
    `strings` are the inputs and outputs that hold strings as cells, as in `Graph`. `pipeline` is the spec that made the
    program.
    """

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    buffers: dict[str, ProgramBuffer] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    bounds: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    equal_dims: list[tuple[Size, Size]] = field(default_factory=list)
    demanded_by: dict[tuple[Size, Size], str] = field(default_factory=dict)
    strings: frozenset[str] = frozenset()
    pipeline: str = ""

    @property
    def sizes(self) -> tuple[str, ...]:
        """Symbolic sizes a caller must give, sorted: those in the types of inputs and outputs, and in the steps."""
        found: set[str] = set()
        for buffer in self.buffers.values():
            for size in buffer.type.shape:
                found |= names(size)
        for call in self.calls():
            for size in call.sizes:
                found |= names(size)
        demands = [pair for branch in self.branches() for pair in (*branch.equal_then, *branch.equal_orelse)]
        for pair in (*self.equal_dims, *demands):
            found |= names(pair[0]) | names(pair[1])
        return tuple(sorted(found))

    @property
    def arena_bytes(self) -> Size:
        """Bytes of working memory a call needs, besides inputs, outputs and weights."""
        total: Size = 0
        for slot in self.slots:
            total = total + slot.bytes
        return total

    @property
    def weights(self) -> list[ProgramBuffer]:
        """Buffers with bytes to emit, in order of name creation."""
        return [buffer for buffer in self.buffers.values() if buffer.place == "weight"]

    def calls(self) -> Iterator[Call]:
        """Every call, those of branches included, in order."""
        return (step for step in self.walk() if isinstance(step, Call))

    def branches(self) -> Iterator[Branch]:
        """Every branch, those inside of others included, in order."""
        return (step for step in self.walk() if isinstance(step, Branch))

    def walk(self) -> Iterator[Step]:
        """Every step in the order of the text, a branch before what it holds."""
        stack: list[Step] = list(reversed(self.steps))
        while stack:
            step = stack.pop()
            yield step
            if isinstance(step, Branch):
                stack.extend(reversed((*step.then, *step.orelse)))

    @property
    def kernels(self) -> list[Kernel]:
        """Distinct kernels in order of first use."""
        return list({call.kernel.name: call.kernel for call in self.calls()}.values())

    def root(self, name: str) -> ProgramBuffer:
        """The buffer that owns the memory of `name`, through views."""
        buffer = self.buffers[name]
        while buffer.base is not None:
            buffer = self.buffers[buffer.base]
        return buffer
