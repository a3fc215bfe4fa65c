"""A lowered model: kernels called in order on buffers, with a plan of where every buffer lies.

This is what a backend emits. A program holds no graph: only kernels (each once per structure), buffers, and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ir.blob import Blob
from ir.dims import Dim, Limits, Size, Undecided, greatest, names, symbol, symbol_of
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
    blocked: int = 0
    """How many of the first axes count blocks, each of which is best used up before the next is made."""


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


@dataclass(frozen=True)
class Bind:
    """Gives sizes the values that a run tells, all at once: numbers in i64 scalar buffers, or other sizes.

    A symbol of `Program.limits` takes the value, which must be within its limit, and the same where it is given twice;
    any other size must have it. `copies`
    are buffers whose elements go into others, in order, when the new values are found good and not yet in force: the
    targets are of types in which the new values stand where the old ones stand in those of the sources. A negative
    value where it `may_refuse` says that the program cannot do what it was given. What is demanded of the sizes is
    checked where they are `settled`, and not where they are those of memory yet to be filled, or of the next step of a
    loop, in which other sizes that they must agree with are still those of the step before. Sizes of memory yet to be
    filled, which the step `reserves`, are those that it was planned for: no size is checked.
    """

    pairs: tuple[tuple[Size, str | Size], ...]
    copies: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()
    may_refuse: bool = False
    settled: bool = True
    reserves: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The buffers it reads."""
        return (*(value for _, value in self.pairs if isinstance(value, str)), *(source for source, _ in self.copies))


@dataclass(frozen=True)
class Repeat:
    """Runs `body` while the bool in buffer `going` holds (None: always), at most as often as the i64 in buffer `trip`
    says and `times` (None: without end). The symbol `step` counts from 0, and keeps the number of steps done.

    `equal` are sizes that must be equal in each step.
    """

    step: str
    trip: str | None
    going: str | None
    body: tuple[Step, ...]
    sources: tuple[str, ...] = ()
    equal: tuple[tuple[Size, Size], ...] = ()
    times: Size | None = None


Step: TypeAlias = Call | Branch | Bind | Repeat


def blocks_of(step: Step) -> tuple[tuple[Step, ...], ...]:
    """The blocks of steps directly inside a step."""
    match step:
        case Branch(then=then, orelse=orelse):
            return (then, orelse)
        case Repeat(body=body):
            return (body,)
        case _:
            return ()


def map_inside(step: Step, change: Callable[[tuple[Step, ...]], Iterable[Step]]) -> Step:
    """A step with the blocks of steps directly inside of it changed."""
    match step:
        case Branch(then=then, orelse=orelse):
            return replace(step, then=tuple(change(then)), orelse=tuple(change(orelse)))
        case Repeat(body=body):
            return replace(step, body=tuple(change(body)))
        case _:
            return step


def told_by(steps: Sequence[Step]) -> set[str]:
    """The symbols that have values after steps, whichever way branches go."""
    found: set[str] = set()
    for step in steps:
        match step:
            case Bind(pairs=pairs, settled=True):
                found |= {name for name in (symbol_of(size) for size, _ in pairs) if name is not None}
            case Branch(then=then, orelse=orelse):
                found |= told_by(then) & told_by(orelse)
    return found


def touched(step: Step) -> tuple[str, ...]:
    """The buffers that a step reads or writes itself, those of the steps inside of it left out."""
    match step:
        case Call(args=args):
            return args
        case Branch(condition=condition):
            return (condition,)
        case Bind():
            return (*step.reads, *(target for _, target in step.copies))
        case Repeat(trip=trip, going=going):
            return tuple(name for name in (trip, going) if name is not None)


def map_calls(steps: Sequence[Step], change: Callable[[Call], Call]) -> list[Step]:
    """Steps with each call changed, those inside of others included, in order."""

    def changed(step: Step) -> Step:
        return change(step) if isinstance(step, Call) else map_inside(step, lambda block: map_calls(block, change))

    return list(map(changed, steps))


@dataclass
class Program:
    """Inputs and outputs are names of buffers, `input_names` and `output_names` what callers see (model names).

    `bounds` narrows symbolic dims, `equal_dims` must hold when called, for the ONNX nodes in `demanded_by`.
    `limits` are the symbols that steps bind, each with what it is at most in terms of those that callers give alone.
    `kinds` are those of `Graph`. `pipeline` is the spec that made the program.
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
    kinds: dict[str, list[Any]] = field(default_factory=dict)
    limits: Limits[Size] = field(default_factory=lambda: Limits())
    pipeline: str = ""

    @property
    def sizes(self) -> tuple[str, ...]:
        """Symbolic sizes a caller must give, sorted: those in the types of inputs and outputs, and in the steps."""
        found = {name for size in self._all_sizes() for name in names(size)}
        found |= {name for name in found & self.limits.keys() for name in names(self.limits[name])}
        return tuple(sorted(found - self.limits.keys()))

    @property
    def told(self) -> tuple[str, ...]:
        """The symbols in the types of outputs that only a run tells, sorted: a caller must learn them from it."""
        shapes = (self.buffers[name].type.shape for name in self.outputs)
        return tuple(sorted({name for shape in shapes for size in shape for name in names(size)} & self.limits.keys()))

    def late(self, pair: tuple[Size, Size]) -> set[str]:
        """The symbols in a pair of sizes that only a run tells."""
        return set(names(pair[0]) | names(pair[1])) & self.limits.keys()

    def _all_sizes(self) -> Iterator[Size]:
        for buffer in self.buffers.values():
            yield from buffer.type.shape
        for pair in self.equal_dims:
            yield from pair
        for step in self.walk():
            match step:
                case Call(sizes=sizes):
                    yield from sizes
                case Branch():
                    yield from (size for pair in (*step.equal_then, *step.equal_orelse) for size in pair)
                case Bind(pairs=pairs):
                    yield from (size for pair in pairs for size in pair if not isinstance(size, str))
                case Repeat(step=name, equal=equal, times=times):
                    yield symbol(name)
                    yield from () if times is None else (times,)
                    yield from (size for pair in equal for size in pair)

    def capacity(self, type_: TensorType) -> Size:
        """Bytes that a tensor takes at most, in terms of the sizes that callers give.

        That sizes must be equal counts only where it is checked before there is memory of that size: see `_counted`.
        """
        size = type_.elements * type_.dtype.itemsize
        late = self.limits.keys()
        for left, right in (way for pair in self.equal_dims for way in (pair, pair[::-1])):
            if not isinstance(right, Dim) or not names(right) & names(size) & late or names(left) & late:
                continue
            if not names(right) & late <= self._counted():
                continue
            try:
                return greatest(size / right * left, self.limits)
            except Undecided:
                continue  # the size is no multiple of this side of the equation
        return greatest(size, self.limits)

    def _counted(self) -> set[str]:
        """The symbols that are told by numbers in buffers alone: such a count precedes all memory of its size, while
        what a branch or a loop gives lies in memory before its size is known outside."""
        told = [pair for step in self.walk() if isinstance(step, Bind) for pair in step.pairs]
        from_sizes = {symbol_of(size) for size, value in told if not isinstance(value, str)}
        return {name for size, _ in told if (name := symbol_of(size)) is not None} - from_sizes

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

    def sourced_calls(self) -> Iterator[tuple[Call, tuple[str, ...]]]:
        """Every call in order, with the ONNX nodes that it or the step around it comes from."""

        def visit(steps: Sequence[Step], around: tuple[str, ...]) -> Iterator[tuple[Call, tuple[str, ...]]]:
            for step in steps:
                sources = step.sources or around
                if isinstance(step, Call):
                    yield step, sources
                for block in blocks_of(step):
                    yield from visit(block, sources)

        return visit(self.steps, ())

    def branches(self) -> Iterator[Branch]:
        """Every branch, those inside of others included, in order."""
        return (step for step in self.walk() if isinstance(step, Branch))

    def walk(self) -> Iterator[Step]:
        """Every step in the order of the text, one that holds others before those."""
        stack: list[Step] = list(reversed(self.steps))
        while stack:
            step = stack.pop()
            yield step
            stack.extend(inner for block in reversed(blocks_of(step)) for inner in reversed(block))

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
