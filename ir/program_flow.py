"""What the sizes of a program follow from: which of its inputs would have to be known for a size to be known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ir.dims import names
from ir.program import Bind, Branch, Call, Program, Repeat, Step, blocks_of, touched

Within = tuple[Step, ...]
"""The branches and loops that a step stands in."""


def inputs_behind(program: Program, told: Collection[str]) -> tuple[str, ...]:
    """The inputs, by their model names, whose values decide what the symbols `told` are; sorted.

    Where several steps bind the symbol or write memory on the way, all of them count, and so does what decides which
    of them run, and how often.
    """
    steps = list(_walk(program.steps, ()))
    found: set[str] = set()
    seen: set[str] = set()
    symbols, buffers = sorted(told), []
    while symbols or buffers:
        if symbols:
            symbol = symbols.pop()
            if symbol not in seen:
                seen.add(symbol)
                _follow_symbol(steps, symbol, symbols, buffers)
            continue
        root = program.root(buffers.pop())
        if f"%{root.name}" in seen:
            continue
        seen.add(f"%{root.name}")
        if root.place == "input":
            found.add(program.input_names[program.inputs.index(root.name)])
        else:
            _follow_buffer(program, steps, root.name, buffers)
    return tuple(sorted(found))


def _walk(steps: Sequence[Step], within: Within) -> Iterator[tuple[Step, Within]]:
    """Every step with what it stands in."""
    for step in steps:
        yield step, within
        for block in blocks_of(step):
            yield from _walk(block, (*within, step))


def _follow_symbol(steps: list[tuple[Step, Within]], symbol: str, symbols: list[str], buffers: list[str]) -> None:
    """Adds the symbols and buffers that a symbol takes its values from."""
    giving: list[Within] = []
    for step, within in steps:
        if isinstance(step, Repeat) and step.step == symbol:
            giving.append((*within, step))
        for size, value in step.pairs if isinstance(step, Bind) else ():
            if symbol in names(size):
                giving.append(within)
                if isinstance(value, str):
                    buffers.append(value)
                else:
                    symbols += names(value)
    buffers += _deciding(giving)


def _follow_buffer(program: Program, steps: list[tuple[Step, Within]], root: str, buffers: list[str]) -> None:
    """Adds the buffers that what is written to a buffer is made of."""
    giving: list[Within] = []
    for step, within in steps:
        for sources, target in _writes(step):
            if program.root(target).name == root:
                giving.append(within)
                buffers += sources
    buffers += _deciding(giving)


def _writes(step: Step) -> Iterator[tuple[list[str], str]]:
    """What a step itself writes: each buffer with those that its elements are made of."""
    match step:
        case Bind(copies=copies):
            yield from (([source], target) for source, target in copies)
        case Call():
            roles = list(zip(step.args, step.kernel.params))
            read = [name for name, param in roles if param.role != "out"]
            yield from ((read, name) for name, param in roles if param.role in ("out", "inout"))


def _deciding(giving: list[Within]) -> list[str]:
    """The buffers that decide what a value is that is given inside of branches and loops: how often a loop runs, and
    which way a branch goes, unless there is only one way to have the value at all."""
    kinds = (Repeat,) if len(giving) == 1 else (Branch, Repeat)
    return [name for within in giving for step in within if isinstance(step, kinds) for name in touched(step)]


__all__ = ["inputs_behind"]
