"""memory: gives every intermediate buffer its place in one arena, by lifetimes.

Buffers of known size share one slot and lie at offsets found greedily, largest first. Buffers of symbolic size share
slots with others that are never live at the same time; a slot is as large as its largest tenant. The size of the arena
is exact: a number, or a function of the symbolic dims, in which sizes that only a run tells count with their limits.
Kernels are not changed here.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.pipeline import program_pass
from ir.dims import Size, bounded, decide_le, maximum
from ir.program import Program, ProgramBuffer, Repeat, Slot, Step, blocks_of, touched

ALIGNMENT = 64
"""Bytes. A cache line, and the widest vector there is."""


@dataclass
class Lifetime:
    """Steps, counted in textual order, from the first that writes a buffer to the last that touches it."""

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@program_pass
def memory(program: Program) -> None:
    """Places the buffers of the arena."""
    with bounded(program.bounds):
        lives = lifetimes(program)
        arena = [b for b in program.buffers.values() if b.place == "arena" and b.name in lives]
        for buffer in [b for b in program.buffers.values() if b.place == "arena" and b.name not in lives]:
            del program.buffers[buffer.name]
        sizes = [(buffer, padded_bytes(program, buffer)) for buffer in arena]
        fixed = [(buffer, size) for buffer, size in sizes if isinstance(size, int)]
        symbolic = [(buffer, size) for buffer, size in sizes if not isinstance(size, int)]
        program.slots = []
        if fixed:
            program.slots.append(Slot(_place_fixed(fixed, lives)))
        _place_symbolic(program, symbolic, lives)


def lifetimes(program: Program) -> dict[str, Lifetime]:
    """The lifetime of each buffer that owns memory and is touched; views count for their base.

    What a loop shares with the steps around it is needed until its last step, which may be followed by its first.
    """
    lives: dict[str, Lifetime] = {}
    position = 0
    loops: list[tuple[int, int]] = []

    def visit(steps: Iterable[Step]) -> None:
        nonlocal position
        for step in steps:
            start = position
            for name in touched(step):
                root = program.root(name).name
                life = lives.setdefault(root, Lifetime(position, position))
                life.last = position
            position += 1
            for block in blocks_of(step):
                visit(block)
            if isinstance(step, Repeat):
                loops.append((start, position - 1))

    visit(program.steps)
    end = 1 << 60
    for name in program.outputs:
        root = program.root(name).name
        if root in lives:
            lives[root].last = end
    for start, last in loops:  # inner ones come first
        for life in lives.values():
            if life.first <= last and life.last >= start and not (start <= life.first and life.last <= last):
                life.first, life.last = min(life.first, start), max(life.last, last)
    return lives


def padded_bytes(program: Program, buffer: ProgramBuffer) -> Size:
    """Bytes that a buffer takes at most, rounded up to the alignment; none where a branch that is not taken has a
    negative size."""
    size = program.capacity(buffer.type)
    padded = (size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT
    return padded if decide_le(0, padded) is True else maximum(0, padded)


def _place_fixed(buffers: list[tuple[ProgramBuffer, int]], lives: dict[str, Lifetime]) -> int:
    """Offsets for buffers of known size, largest first, each at the lowest address free over its lifetime."""
    placed: list[tuple[int, int, Lifetime]] = []
    total = 0
    for buffer, size in sorted(buffers, key=lambda item: (-item[1], lives[item[0].name].first, item[0].name)):
        life = lives[buffer.name]
        offset = 0
        for start, end, other in placed:  # sorted by start
            if other.overlaps(life):
                if start - offset >= size:
                    break
                offset = max(offset, end)
        buffer.slot, buffer.offset = 0, offset
        insort(placed, (offset, offset + size, life), key=lambda item: item[0])
        total = max(total, offset + size)
    return total


def _place_symbolic(
    program: Program, buffers: Sequence[tuple[ProgramBuffer, Size]], lives: dict[str, Lifetime]
) -> None:
    """Slots for buffers of symbolic size, in order of first use."""
    taken_until: dict[int, int] = {}
    for buffer, size in sorted(buffers, key=lambda item: (lives[item[0].name].first, item[0].name)):
        life = lives[buffer.name]
        free = [index for index, last in taken_until.items() if last < life.first]
        index = _best(program, free, size)
        if index is None:
            index = len(program.slots)
            program.slots.append(Slot(size))
        elif decide_le(size, program.slots[index].bytes) is not True:
            program.slots[index].bytes = maximum(program.slots[index].bytes, size)
        buffer.slot, buffer.offset = index, 0
        taken_until[index] = life.last


def _best(program: Program, free: list[int], size: Size) -> int | None:
    """The free slot that fits best: of equal size, one that is larger, one that is smaller, else any."""
    for fits in (
        lambda slot: slot == size,
        lambda slot: decide_le(size, slot) is True,
        lambda slot: decide_le(slot, size) is True,
    ):
        for index in free:
            if fits(program.slots[index].bytes):
                return index
    return free[0] if free else None
