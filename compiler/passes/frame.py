"""frame: what gets a frame of equal elements around it is stored inside of the frame by the call that makes it.

The halo of a convolution is such a frame. Written by a call of its own, all of the operand goes through memory once
more. Here the call that makes the operand stores it where the framed one lies, with any function of an element that
stood between the two applied at once, and what is left of the other call fills the frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from compiler.passes.simplify import simplify
from compiler.pipeline import program_pass
from ir import types as t
from ir.dims import Size, symbol
from ir.element import Names
from ir.expr import Apply, Const, Expr, Index, Load, Var, apply, transform, walk
from ir.kernel import Buffer, For, Kernel, Stmt, Store, exprs_of, map_stmts, walk_stmts
from ir.program import Branch, Call, Program, Repeat, Step, touched

_Fill: TypeAlias = Callable[[tuple[Expr, ...]], tuple[Stmt, ...]]


@dataclass(frozen=True)
class Frame:
    """What a kernel does that frames its operand: `value` of each of its elements, among elements that are `around`,
    of which each axis has `before` and `after`. `operand` is the load in `value`."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: Expr
    operand: Load
    around: Const


@program_pass
def frame(program: Program) -> None:
    """Stores operands inside of their frames."""
    state = _Framing(program)
    program.steps = state.steps(program.steps)


@dataclass
class _Framing:
    program: Program
    frames: dict[str, Frame | None] = field(default_factory=dict)
    made: dict[tuple[str, str], tuple[Kernel, Kernel] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names(sorted(kernel.name for kernel in self.program.kernels))
        self.touches = Counter(name for step in self.program.walk() for name in touched(step))
        self.bases = {buffer.base for buffer in self.program.buffers.values()}

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with framed operands stored at once, those inside of branches and loops too."""
        result: list[Step] = []
        makers: dict[str, int] = {}
        for step in steps:
            if isinstance(step, Branch):
                step = replace(step, then=tuple(self.steps(step.then)), orelse=tuple(self.steps(step.orelse)))
            elif isinstance(step, Repeat):
                step = replace(step, body=tuple(self.steps(step.body)))
            elif isinstance(step, Call):
                place = makers.get(step.args[0])
                maker = None if place is None else result[place]
                both = None if not isinstance(maker, Call) else self.framed(maker, step)
                if both is not None and place is not None:
                    result[place], step = both
                    makers[both[0].args[-1]] = place
                else:
                    makers[step.args[-1]] = len(result)
            result.append(step)
        return result

    def framed(self, maker: Call, user: Call) -> tuple[Call, Call] | None:
        """The call that makes an operand inside of its frame, and that which fills the frame; None where a call does
        not frame what another makes, or others need it without the frame."""
        operand, result = maker.args[-1], user.args[-1]
        if self.touches[operand] != 2 or operand in self.bases or self.program.buffers[operand].place != "arena":
            return None
        if len(user.args) != 2 or self.program.buffers[result].place not in ("arena", "output"):
            return None
        if any(self.program.buffers[name].blocked for name in (operand, result)):
            return None
        name = user.kernel.name
        if name not in self.frames:
            self.frames[name] = frame_of(user.kernel)
        found = self.frames[name]
        if found is None:
            return None
        key = (maker.kernel.name, name)
        if key not in self.made:
            self.made[key] = self.kernels(maker.kernel, user.kernel, found)
        kernels = self.made[key]
        if kernels is None:
            return None
        inner, rest = kernels
        sizes = dict(zip(user.kernel.sizes, user.sizes))
        sources = tuple(dict.fromkeys((*maker.sources, *user.sources)))
        return (
            Call(inner, (*maker.args[:-1], result), maker.sizes, sources),
            Call(rest, (result,), tuple(sizes[size] for size in rest.sizes), user.sources),
        )

    def kernels(self, maker: Kernel, user: Kernel, frame: Frame) -> tuple[Kernel, Kernel] | None:
        """The kernels of the two calls."""
        inner = stored_inside(maker, frame)
        if inner is None or inner.sizes != maker.sizes:
            return None
        result = user.params[-1]
        taken = Names([*user.sizes, result.name])
        body = _around(result, frame, taken)
        rest = Kernel(self.names.fresh(f"frame_of_{user.name}"), (result,), body)
        return replace(inner, name=self.names.fresh(f"{maker.name}_framed")), simplify.run(rest)


def frame_of(kernel: Kernel) -> Frame | None:
    """The frame that a kernel puts around its operand; None where it does anything else."""
    operand, result = kernel.params[0], kernel.params[-1]
    if len(kernel.params) != 2 or operand.role != "in" or result.role != "out":
        return None
    loops, body = dict[str, Size | Expr](), kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops[body[0].var] = body[0].extent
        body = body[0].body
    store = body[0] if len(body) == 1 else None
    if not isinstance(store, Store) or store.function is not None or len(store.index) != operand.type.rank:
        return None
    for index, size in zip(store.index, result.type.shape):
        is_whole = any(index == Index(t.i64, symbol(var)) and extent == size for var, extent in loops.items())
        if not is_whole and not (index == Index(t.i64, 0) and size == 1):
            return None
    given = _guarded(store.value)
    loads = [e for e in walk(given[1]) if isinstance(e, Load)] if given is not None else []
    if given is None or len(loads) != 1 or len(loops) != sum(size != 1 for size in result.type.shape):
        return None
    conditions, value, around = given
    before = tuple(_distance(i, at) for i, at in zip(store.index, loads[0].index))
    sizes = zip(operand.type.shape, result.type.shape, before)
    after = tuple(None if b is None else _number(outer - inner - b) for inner, outer, b in sizes)
    if any(n is None or n < 0 for n in (*before, *after)) or not any((*before, *after)):
        return None
    numbers = [n for n in (*before, *after) if n is not None]
    rank = operand.type.rank
    made = Frame(tuple(numbers[:rank]), tuple(numbers[rank:]), value, loads[0], around)
    if conditions is not None and conditions != _inside(made, operand.type.shape):
        return None
    return made if _depends_on_operand_alone(made) else None


def _guarded(value: Expr) -> tuple[set[Expr] | None, Expr, Const] | None:
    """The conditions under which a value is another one than a constant, that one, and the constant. A load with a
    value for what lies outside has the conditions that this implies, given as None."""
    match value:
        case Load(outside=Const() as around):
            return None, Load(value.dtype, value.buffer, value.index), around
        case Apply(function="select", args=(condition, yes, Const() as around)):
            return set(_conjuncts(condition)), yes, around
    return None


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, Apply) and condition.function == "and":
        return [part for arg in condition.args for part in _conjuncts(arg)]
    return [condition]


def _inside(frame: Frame, shape: tuple[Size, ...]) -> set[Expr]:
    """The conditions under which the operand is not left."""
    found: set[Expr] = set()
    for index, size, before, after in zip(frame.operand.index, shape, frame.before, frame.after):
        found |= {apply("ge", index, 0)} if before else set()
        found |= {apply("lt", index, Index(t.i64, size))} if after else set()
    return found


def _distance(outer: Expr, inner: Expr) -> int | None:
    return _number(outer.value - inner.value) if isinstance(outer, Index) and isinstance(inner, Index) else None


def _number(size: Size) -> int | None:
    return size if isinstance(size, int) else None


def _depends_on_operand_alone(frame: Frame) -> bool:
    """Whether a framed element is a function of one element of the operand, and not of its place."""
    element = Var(frame.operand.dtype, "element")
    rest = transform(frame.value, lambda e: element if e == frame.operand else None)
    return frame.operand.outside is None and not any(isinstance(e, Index) for e in walk(rest))


def stored_inside(kernel: Kernel, frame: Frame) -> Kernel | None:
    """`kernel` with its result stored inside of a frame; None where it is not stored in one statement, or read."""
    result = kernel.params[-1]
    stmts = list(walk_stmts(kernel.body))
    stores = [s for s in stmts if isinstance(s, Store) and s.buffer == result.name]
    is_read = any(isinstance(e, Load) and e.buffer == result.name for s in stmts for e in walk(*exprs_of(s)))
    outs = [b for b in kernel.params if b.role not in ("in", "const")]
    if len(stores) != 1 or is_read or stores[0].function is not None or outs != [result] or result.role != "out":
        return None
    (store,) = stores
    index = tuple(i + before for i, before in zip(store.index, frame.before))
    moved = Store(result.name, index, transform(frame.value, lambda e: store.value if e == frame.operand else None))
    shape = (size + b + a for size, b, a in zip(result.type.shape, frame.before, frame.after))
    type_ = replace(result.type, dtype=frame.value.dtype, shape=tuple(shape))
    body = map_stmts(kernel.body, lambda s: moved if s == store else s)
    return replace(kernel, params=(*kernel.params[:-1], Buffer(result.name, type_, "out")), body=body)


def _around(result: Buffer, frame: Frame, taken: Names) -> tuple[Stmt, ...]:
    """Statements that fill a frame: axis after axis, in front of the operand, behind it, and beside it."""
    shape, axes = result.type.shape, list(zip(frame.before, frame.after))

    def fill(place: tuple[Expr, ...]) -> tuple[Stmt, ...]:
        if len(place) == len(shape):
            return (Store(result.name, place, frame.around),)
        return run(place, shape[len(place)], 0, fill)

    def run(place: tuple[Expr, ...], extent: Size, first: Size, inner: _Fill) -> tuple[Stmt, ...]:
        var = taken.fresh(f"i{len(place)}")
        return (For(var, extent, inner((*place, Index(t.i64, symbol(var) + first)))),)

    def beside(place: tuple[Expr, ...]) -> tuple[Stmt, ...]:
        axis = len(place)
        if not any(b or a for b, a in axes[axis:]):
            return ()
        before, after = axes[axis]
        size = shape[axis]
        parts = run(place, before, 0, fill) if before else ()
        parts += run(place, size - before - after, before, beside) if any(b or a for b, a in axes[axis + 1 :]) else ()
        return parts + (run(place, after, size - after, fill) if after else ())

    return beside(())


__all__ = ["Frame", "frame", "frame_of", "stored_inside"]
