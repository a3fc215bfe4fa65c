"""join: calls that go through the same rows one after the other become one kernel, which does a row at a time.

A softmax is a maximum, a function of elements, a sum, and another function; a norm is much the same. Each goes through
all rows, and through memory, before the next begins. Joined, a row stays in the cache from its first reduction to the
last function of it, and most of what lies between takes no memory. At least one of the calls is a reduction within
rows; contractions, which are tiled, are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from compiler.passes.interleave import is_apart, written
from compiler.passes.rows import Form, form_of, joined
from compiler.pipeline import program_pass
from ir.dims import Size, substitute, symbol, symbol_of
from ir.element import Names
from ir.expr import Index
from ir.kernel import Kernel
from ir.program import Call, Program, Step, map_inside, touched

_MOST_BETWEEN = 8
"""Calls that a call may be moved in front of."""
_MOST_OPERANDS = 16


@program_pass
def join(program: Program) -> None:
    """Makes one kernel of the calls of each group."""
    state = _Joining(program)
    program.steps = state.steps(program.steps)


@dataclass
class _Group:
    """Calls that become one, in order. `rows` is the number of loops that they share, None before the first
    reduction tells it."""

    calls: list[Call]
    forms: list[Form]
    rows: int | None

    def writers(self, name: str) -> Form | None:
        return next((form for call, form in zip(self.calls, self.forms) if call.args[-1] == name), None)


@dataclass
class _Joining:
    program: Program
    forms: dict[str, Form | None] = field(default_factory=dict)
    made: dict[Hashable, tuple[Kernel, list[int], list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names(sorted(kernel.name for kernel in self.program.kernels))
        self.touches = Counter(name for step in self.program.walk() for name in touched(step))
        self.bases = {buffer.base for buffer in self.program.buffers.values()}

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with groups of calls as one, those inside of branches and loops too."""
        result: list[Step] = []
        taken: set[int] = set()
        for position, step in enumerate(steps):
            if position in taken:
                continue
            step = map_inside(step, self.steps)
            if isinstance(step, Call) and (group := self.start(step)) is not None:
                positions = self.grow(group, steps, position)
                if len(group.calls) > 1:
                    taken |= set(positions)
                    step = self.one(group)
            result.append(step)
        return result

    def start(self, call: Call) -> _Group | None:
        """A group of one call; None where it has to stay by itself."""
        form = self.form(call)
        if form is None or any(symbol_of(size) is None for size in call.sizes):
            return None
        if any(self.program.buffers[arg].blocked for arg in call.args):
            return None
        return _Group([call], [form], len(form.loops) if form.is_reduction else None)

    def form(self, call: Call) -> Form | None:
        name = call.kernel.name
        if name not in self.forms:
            self.forms[name] = form_of(call.kernel)
        return self.forms[name]

    def grow(self, group: _Group, steps: Sequence[Step], start: int) -> list[int]:
        """Adds the calls after `start` that can be done row by row with those of the group; their positions."""
        positions: list[int] = []
        between: list[Call] = []
        for position in range(start + 1, len(steps)):
            step = steps[position]
            if not isinstance(step, Call) or len(between) > _MOST_BETWEEN:
                break
            is_moved = all(is_apart(self.program, step, other) for other in between)
            if not is_moved or not self.goes_on(group, step):
                between.append(step)
                continue
            positions.append(position)
        return positions

    def goes_on(self, group: _Group, call: Call) -> bool:
        """Whether a call does for each row what follows from that row of the group, or gathers from the same operand.
        If so it is added."""
        made = {name for member in group.calls for name in member.args[-1:]}
        own = self.start(call)
        if own is None:
            return False
        (form,) = own.forms
        has_same_operand = any(set(member.args[:-1]) & set(call.args[:-1]) for member in group.calls)
        if not made & set(call.args[:-1]) and not (form.is_reduction and group.rows is not None and has_same_operand):
            return False
        rows = group.rows if group.rows is not None else own.rows
        if rows is None or len(form.loops) < rows or (form.is_reduction and len(form.loops) != rows):
            return False
        if any(len(other.loops) < rows for other in group.forms):
            return False
        if self.extents(call, form, rows) != self.extents(group.calls[0], group.forms[0], rows):
            return False
        if not self.is_apart_but_for(group, call, made) or form.axes(form.store.index, rows) is None:
            return False
        operands = {arg for member in (*group.calls, call) for arg in member.args}
        if len(operands) > _MOST_OPERANDS:
            return False
        if not all(self.follows(group, call, form, name, rows) for name in made & set(call.args[:-1])):
            return False
        group.calls.append(call)
        group.forms.append(form)
        group.rows = rows
        return True

    def extents(self, call: Call, form: Form, rows: int) -> list[Size]:
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        return [substitute(loop.extent, sizes) for loop in form.loops[:rows]]  # type: ignore[arg-type]

    def is_apart_but_for(self, group: _Group, call: Call, made: set[str]) -> bool:
        """Whether a call has to do with the memory of the group by the names `made` only."""
        roots = {self.program.root(name).name for name in made}
        if any(self.program.root(arg).name in roots and arg not in made for arg in call.args):
            return False
        before = {self.program.root(arg).name for member in group.calls for arg in member.args}
        return not written(self.program, call) & before

    def follows(self, group: _Group, call: Call, form: Form, name: str, rows: int) -> bool:
        """Whether a call reads of a buffer, in each row, what the group stored in that row."""
        maker = group.writers(name)
        assert maker is not None
        stored = maker.store.index
        axes = maker.axes(stored, rows)
        for param, arg in zip(call.kernel.params, call.args):
            for load in form.loads(param.name) if arg == name else ():
                if load.outside is not None or axes is None or form.axes(load.index, rows) != axes:
                    return False
                others = [axis for axis in range(len(stored)) if axis not in axes]
                is_one = len(maker.loops) == rows
                if is_one and any(load.index[axis] != stored[axis] or not _is_number(stored[axis]) for axis in others):
                    return False
        return True

    def one(self, group: _Group) -> Call:
        """The call of one kernel for a group; groups that differ only in names share it."""
        calls, rows = group.calls, group.rows
        assert rows is not None
        counts = Counter(arg for call in calls for arg in call.args)
        internal = {
            name
            for call in calls[:-1]
            if self.is_internal(name := call.args[-1]) and counts[name] == self.touches[name]
        }
        buffers = list(dict.fromkeys(arg for call in calls for arg in call.args))
        symbols = list(dict.fromkeys(symbol_of(size) for call in calls for size in call.sizes))
        shape = [
            (call.kernel.name, *map(buffers.index, call.args), *(symbols.index(symbol_of(s)) for s in call.sizes))
            for call in calls
        ]
        key = (tuple(shape), tuple(sorted(map(buffers.index, internal))))
        if key not in self.made:
            name = self.names.fresh(_name_of([call.kernel.name for call in calls]))
            kernel, args, sizes = joined(name, calls, rows, internal)
            self.made[key] = kernel, [buffers.index(arg) for arg in args], [symbols.index(size) for size in sizes]
        kernel, positions, numbers = self.made[key]
        sources = tuple(dict.fromkeys(source for call in calls for source in call.sources))
        sizes = tuple(symbol(name) for number in numbers if (name := symbols[number]) is not None)
        return Call(kernel, tuple(buffers[i] for i in positions), sizes, sources)

    def is_internal(self, name: str) -> bool:
        """Whether a buffer is memory of the program's own, under one name."""
        return self.program.buffers[name].place == "arena" and name not in self.bases


def _is_number(index: object) -> bool:
    return isinstance(index, Index) and isinstance(index.value, int)


def _name_of(kernels: Sequence[str]) -> str:
    """A name that says what the kernels do, each word once."""
    words = dict.fromkeys(word for name in kernels for word in name.rstrip("0123456789").split("_"))
    return "_".join(list(words)[:8])
