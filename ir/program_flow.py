"""What the sizes of a program follow from: which of its inputs would have to be known for a size to be known."""

from __future__ import annotations

from collections.abc import Collection

from ir.dims import names
from ir.program import Bind, Call, Program, Repeat, Step, blocks_of, touched


def inputs_behind(program: Program, told: Collection[str]) -> tuple[str, ...]:
    """The inputs, by their model names, whose values decide what the symbols `told` are; sorted.

    Where several steps bind the symbol or write memory on the way, all of them count.
    """
    found: set[str] = set()
    seen: set[str] = set()
    symbols, buffers = sorted(told), []
    while symbols or buffers:
        if symbols:
            symbol = symbols.pop()
            if symbol not in seen:
                seen.add(symbol)
                _follow_symbol(program, symbol, symbols, buffers)
            continue
        root = program.root(buffers.pop())
        if f"%{root.name}" in seen:
            continue
        seen.add(f"%{root.name}")
        if root.place == "input":
            found.add(program.input_names[program.inputs.index(root.name)])
        else:
            _follow_buffer(program, root.name, buffers)
    return tuple(sorted(found))


def _follow_symbol(program: Program, symbol: str, symbols: list[str], buffers: list[str]) -> None:
    """Adds the symbols and buffers that a symbol takes its values from."""
    for step in program.walk():
        if isinstance(step, Repeat) and (step.step == symbol or _binds(step, symbol)):
            buffers += touched(step)
        for size, value in step.pairs if isinstance(step, Bind) else ():
            if symbol in names(size):
                if isinstance(value, str):
                    buffers.append(value)
                else:
                    symbols += names(value)


def _binds(step: Step, symbol: str) -> bool:
    """Whether a step, or one inside of it, gives a symbol a value."""
    own = isinstance(step, Bind) and any(symbol in names(size) for size, _ in step.pairs)
    return own or any(_binds(inner, symbol) for block in blocks_of(step) for inner in block)


def _follow_buffer(program: Program, root: str, buffers: list[str]) -> None:
    """Adds the buffers that what is written to a buffer is made of."""
    for step in program.walk():
        if isinstance(step, Bind):
            buffers += [source for source, target in step.copies if program.root(target).name == root]
        if not isinstance(step, Call):
            continue
        written = {program.root(a).name for a, b in zip(step.args, step.kernel.params) if b.role in ("out", "inout")}
        if root in written:
            buffers += [arg for arg, b in zip(step.args, step.kernel.params) if b.role in ("in", "const", "inout")]


__all__ = ["inputs_behind"]
