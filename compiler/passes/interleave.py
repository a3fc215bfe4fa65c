"""interleave: what is made in blocks is used up block by block, while it is in the cache.

Where one call makes a buffer in blocks (`ProgramBuffer.blocked`), and the calls after it go through the same blocks in
their outermost loops, the calls become the body of loops over blocks, and each buffer between them holds one block.
Memory shrinks by as much. The loops inside of a block are those that threads share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from compiler.pipeline import program_pass
from ir import types as t
from ir.dims import Size, substitute, symbol
from ir.element import Names
from ir.expr import Expr, Index, Load, transform, walk
from ir.kernel import Buffer, For, Kernel, Stmt, Store, exprs_of, map_exprs, map_stmts, walk_stmts
from ir.program import Call, Program, Repeat, Step, touched


@program_pass
def interleave(program: Program) -> None:
    """Makes loops over blocks."""
    state = _Interleaving(program)
    program.steps = state.steps(program.steps)


@dataclass
class _Interleaving:
    program: Program
    made: dict[tuple[Kernel, frozenset[str]], Kernel] = field(default_factory=dict)
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        taken = {*self.program.sizes, *self.program.limits, *(kernel.name for kernel in self.program.kernels)}
        self.names = Names(sorted(taken))

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with loops over blocks. Those inside of loops and branches stay as they are."""
        result = list(steps)
        for position in reversed(range(len(result))):
            run = self.run(result, position)
            if len(run) > 1:
                result[run[-1]] = self.loop([step for i in run if isinstance(step := result[i], Call)])
                for i in reversed(run[:-1]):
                    del result[i]
        return result

    def run(self, steps: Sequence[Step], start: int) -> list[int]:
        """The positions of the calls that can go through the blocks that the call at `start` makes, itself first."""
        first = steps[start]
        if not isinstance(first, Call) or not self.program.buffers[first.args[-1]].blocked:
            return []
        axes = self.program.buffers[first.args[-1]].type.shape[: self.program.buffers[first.args[-1]].blocked]
        if all(size == 1 for size in axes):
            return []
        run, calls, between = [start], [first], list[Call]()
        for position in range(start + 1, len(steps)):
            step, made = steps[position], calls[-1].args[-1]
            if not isinstance(step, Call):
                break
            if made not in step.args:
                between.append(step)
                continue
            is_moved = all(is_apart(self.program, call, other) for call in calls for other in between)
            if not is_moved or not self.goes_on(calls, step, axes):
                break
            run.append(position)
            calls.append(step)
        return run

    def goes_on(self, calls: Sequence[Call], user: Call, axes: Sequence[Size]) -> bool:
        """Whether a call can take each block of what the last of `calls` makes as soon as it is made."""
        maker = calls[-1]
        name = maker.args[-1]
        buffer = self.program.buffers[name]
        if buffer.place != "arena" or any(other.base == name for other in self.program.buffers.values()):
            return False
        if sum(touched(step).count(name) for step in self.program.walk()) != 2 or user.args[-1] == name:
            return False
        if any(written(self.program, user) & _roots(self.program, call) for call in calls):
            return False
        return all(_is_by_block(call, name, axes) for call in (maker, user))

    def loop(self, calls: Sequence[Call]) -> Repeat:
        """The loops over the blocks of calls, in which the buffers between them hold one block."""
        first = self.program.buffers[calls[0].args[-1]]
        axes = first.type.shape[: first.blocked]
        counters = [None if size == 1 else self.names.fresh("block") for size in axes]
        between = {call.args[-1] for call in calls[:-1]}
        steps: tuple[Step, ...] = tuple(self.of_block(call, between, counters) for call in calls)
        for name in between:
            buffer = self.program.buffers[name]
            buffer.type = buffer.type.with_shape(buffer.type.shape[len(axes) :])
            buffer.blocked = 0
        sources = tuple(dict.fromkeys(source for call in calls for source in call.sources))
        for counter, size in reversed(list(zip(counters, axes))):
            if counter is not None:
                self.program.limits[counter] = size
                steps = (Repeat(counter, None, None, steps, times=size),)
        (outermost,) = steps
        assert isinstance(outermost, Repeat)
        return replace(outermost, sources=sources)

    def of_block(self, call: Call, between: set[str], counters: Sequence[str | None]) -> Call:
        """The call for one block."""
        held = frozenset(b.name for b, arg in zip(call.kernel.params, call.args) if arg in between)
        key = (call.kernel, held)
        loops = _loops(call.kernel, [counter is not None for counter in counters])
        assert loops is not None
        if key not in self.made:
            self.made[key] = self.equal(_of_block(call.kernel, held, loops, len(counters), self.names))
        kernel = self.made[key]
        numbers = [symbol(counter) for counter in counters if counter is not None]
        sizes = {**dict(zip(call.kernel.sizes, call.sizes)), **dict(zip((f.var for f in loops), numbers))}
        return replace(call, kernel=kernel, sizes=tuple(sizes[name] for name in kernel.sizes), sources=())

    def equal(self, kernel: Kernel) -> Kernel:
        """A kernel made before that differs in its name alone, else `kernel`."""
        found = (k for k in self.made.values() if (k.params, k.body) == (kernel.params, kernel.body))
        return next(found, kernel)


def _loops(kernel: Kernel, has_loop: Sequence[bool]) -> list[For] | None:
    """The outermost loops, one for each axis that has one; None where a kernel is not made of as many."""
    found: list[For] = []
    body = kernel.body
    for _ in range(sum(has_loop)):
        if len(body) != 1 or not isinstance(body[0], For) or isinstance(body[0].extent, Expr):
            return None
        found.append(body[0])
        body = body[0].body
    return found


def _is_by_block(call: Call, name: str, axes: Sequence[Size]) -> bool:
    """Whether the outermost loops of a call run over the blocks `axes`, and it touches a buffer in that block only."""
    loops = _loops(call.kernel, [size != 1 for size in axes])
    own = [b.name for b, arg in zip(call.kernel.params, call.args) if arg == name]
    if loops is None or len(own) != 1:
        return False
    sizes = dict(zip(call.kernel.sizes, call.sizes))
    extents = [substitute(loop.extent, sizes) for loop in loops if not isinstance(loop.extent, Expr)]
    if extents != [size for size in axes if size != 1]:
        return False
    rest = iter(loops)
    block = tuple(Index(t.i64, 0 if size == 1 else symbol(next(rest).var)) for size in axes)
    for stmt in walk_stmts(call.kernel.body):
        places = [e.index for e in walk(*exprs_of(stmt)) if isinstance(e, Load) and e.buffer == own[0]]
        places += [stmt.index] if isinstance(stmt, Store) and stmt.buffer == own[0] else []
        if any(len(index) <= len(axes) or index[: len(axes)] != block for index in places):
            return False
    return True


def _roots(program: Program, call: Call) -> set[str]:
    return {program.root(name).name for name in call.args}


def written(program: Program, call: Call) -> set[str]:
    """The buffers whose memory a call writes."""
    results = (arg for b, arg in zip(call.kernel.params, call.args) if b.role in ("out", "inout"))
    return {program.root(name).name for name in results}


def is_apart(program: Program, a: Call, b: Call) -> bool:
    """Whether two calls may change places: neither writes what the other touches."""
    return not (written(program, a) & _roots(program, b)) and not (written(program, b) & _roots(program, a))


def _of_block(kernel: Kernel, held: frozenset[str], loops: Sequence[For], axes: int, taken: Names) -> Kernel:
    """The kernel for one block: the numbers of the block are sizes, and buffers that hold one block lack those axes."""

    def load(expr: Expr) -> Expr | None:
        if isinstance(expr, Load) and expr.buffer in held:
            return Load(expr.dtype, expr.buffer, expr.index[axes:], expr.outside)
        return None

    memo: dict[Expr, Expr] = {}

    def inner(stmt: Stmt) -> Stmt:
        stmt = map_exprs(stmt, lambda e: transform(e, load, memo))
        return replace(stmt, index=stmt.index[axes:]) if isinstance(stmt, Store) and stmt.buffer in held else stmt

    params = tuple(
        Buffer(b.name, b.type.with_shape(b.type.shape[axes:]), b.role) if b.name in held else b for b in kernel.params
    )
    return Kernel(taken.fresh(f"{kernel.name}_of_block"), params, map_stmts(loops[-1].body, inner))


__all__ = ["interleave", "is_apart", "written"]
