"""frame: what gets a frame of equal elements around it is stored inside of the frame, where nothing is asked.

The halo of a convolution is such a frame. Written by a call of its own, all of the operand goes through memory once
more. Here the call that makes the operand stores it where the framed one lies, with any function of an element that
stood between the two applied at once, and what is left of the other call fills the frame. Where the framed call moves
elements, as a transpose does, it stays, for what lies inside alone: loops that ask of each element where it lies make
no vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from compiler.passes.simplify import simplify
from compiler.pipeline import program_pass
from ir import types as t
from ir.dims import Size, names, symbol, symbol_of
from ir.element import Names
from ir.expr import Apply, Const, Expr, Index, Load, Var, apply, transform, walk
from ir.kernel import Buffer, For, Kernel, Stmt, Store, exprs_of, map_stmts, walk_stmts
from ir.program import Call, Program, Step, map_inside, touched
from ir.schedule import substitute_var

_Fill: TypeAlias = Callable[[tuple[Expr, ...]], tuple[Stmt, ...]]


@dataclass(frozen=True)
class Frame:
    """What a kernel does that stores `value` among elements that are `around`, of which each axis has `before` and
    `after`. `operand` is the only load in `value`, where that is a function of the element that lies at the same place
    inside of the frame; else None."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: Expr
    around: Const
    operand: Load | None


@program_pass
def frame(program: Program) -> None:
    """Stores operands inside of their frames."""
    state = _Framing(program)
    program.steps = state.steps(program.steps)


@dataclass
class _Framing:
    program: Program
    frames: dict[str, Frame | None] = field(default_factory=dict)
    made: dict[tuple[str, str], Kernel | None] = field(default_factory=dict)
    fillings: dict[str, Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names(sorted(kernel.name for kernel in self.program.kernels))
        self.touches = Counter(name for step in self.program.walk() for name in touched(step))
        self.bases = {buffer.base for buffer in self.program.buffers.values()}

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with framed operands stored at once, those inside of branches and loops too."""
        result: list[Step] = []
        makers: dict[str, int] = {}
        for step in steps:
            step = map_inside(step, self.steps)
            if isinstance(step, Call):
                place = makers.get(step.args[0])
                maker = None if place is None else result[place]
                both = None if not isinstance(maker, Call) else self.framed(maker, step)
                if both is not None and place is not None:
                    result[place], step = both
                elif (parts := self.parted(step)) is not None:
                    inside, step = parts
                    result.append(inside)
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
        found = self.frame(user.kernel)
        if found is None or found.operand is None:
            return None
        key = (maker.kernel.name, user.kernel.name)
        if key not in self.made:
            self.made[key] = stored_inside(maker.kernel, found)
            if (inner := self.made[key]) is not None:
                self.made[key] = replace(inner, name=self.names.fresh(f"{maker.kernel.name}_framed"))
        inner = self.made[key]
        if inner is None or inner.sizes != maker.kernel.sizes:
            return None
        sources = tuple(dict.fromkeys((*maker.sources, *user.sources)))
        return Call(inner, (*maker.args[:-1], result), maker.sizes, sources), self.filling(user, found)

    def parted(self, call: Call) -> tuple[Call, Call] | None:
        """A call that frames what it moves as one for what lies inside and one that fills the frame."""
        found = self.frame(call.kernel)
        if found is None or found.before[-1] or found.after[-1]:
            return None
        key = ("", call.kernel.name)
        if key not in self.made:
            self.made[key] = replace(_inside(call.kernel, found), name=self.names.fresh(f"{call.kernel.name}_inside"))
        inner = self.made[key]
        assert inner is not None
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        return replace(call, kernel=inner, sizes=tuple(sizes[n] for n in inner.sizes)), self.filling(call, found)

    def frame(self, kernel: Kernel) -> Frame | None:
        """`frame_of`, looking once at each kernel."""
        if kernel.name not in self.frames:
            self.frames[kernel.name] = frame_of(kernel)
        return self.frames[kernel.name]

    def filling(self, call: Call, frame: Frame) -> Call:
        """The call that fills the frame of what a call makes."""
        name = call.kernel.name
        if name not in self.fillings:
            result = call.kernel.params[-1]
            body = _around(result, frame, Names([*call.kernel.sizes, result.name]))
            self.fillings[name] = simplify.run(Kernel(self.names.fresh(f"frame_of_{name}"), (result,), body))
        kernel = self.fillings[name]
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        return Call(kernel, call.args[-1:], tuple(sizes[size] for size in kernel.sizes), call.sources)


def frame_of(kernel: Kernel) -> Frame | None:
    """The frame that a kernel puts around something; None where it does anything else."""
    result = kernel.params[-1]
    if [b for b in kernel.params if b.role not in ("in", "const")] != [result] or result.role != "out":
        return None
    loops, store = _nest(kernel)
    if store is None or len(loops) != sum(size != 1 for size in result.type.shape):
        return None
    extents = {loop.var: loop.extent for loop in loops}
    variables = [symbol_of(i.value) if isinstance(i, Index) else None for i in store.index]
    for index, var, size in zip(store.index, variables, result.type.shape):
        is_whole = var is not None and extents.get(var) == size
        if not is_whole and not (index == Index(t.i64, 0) and size == 1):
            return None
    given = _guarded(kernel, store.value)
    if given is None:
        return None
    conditions, value, around = given
    rank = len(store.index)
    before, after = [0] * rank, [0] * rank
    for condition in conditions:
        found = _bound(condition, variables, result.type.shape)
        if found is None:
            return None
        axis, least, most = found
        before[axis], after[axis] = max(before[axis], least), max(after[axis], most)
    if not any((*before, *after)):
        return None
    made = Frame(tuple(before), tuple(after), value, around, None)
    return replace(made, operand=_operand(kernel, made, store))


def _nest(kernel: Kernel) -> tuple[list[For], Store | None]:
    """The loops of a kernel that is one store inside of them."""
    loops, body = list[For](), kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    store = body[0] if len(body) == 1 else None
    return loops, store if isinstance(store, Store) and store.function is None else None


def _bound(condition: Expr, variables: Sequence[str | None], shape: Sequence[Size]) -> tuple[int, int, int] | None:
    """The axis whose variable a condition bounds, with how many elements it keeps out at the start and at the end."""
    if not isinstance(condition, Apply) or not all(isinstance(arg, Index) for arg in condition.args):
        return None
    a, b = (arg.value for arg in condition.args if isinstance(arg, Index))
    for axis, (var, extent) in enumerate(zip(variables, shape)):
        if var is None:
            continue
        least, limit = symbol(var) - (a - b), b - a + symbol(var)
        if condition.function == "ge" and isinstance(least, int):
            return axis, max(0, least), 0
        if condition.function == "lt" and var not in names(limit):
            cut = extent - limit
            return (axis, 0, max(0, cut)) if isinstance(cut, int) else None
    return None


def _operand(kernel: Kernel, frame: Frame, store: Store) -> Load | None:
    """See `Frame`."""
    loads = [e for e in walk(frame.value) if isinstance(e, Load)]
    if len(loads) != 1 or len(kernel.params) != 2 or loads[0].outside is not None:
        return None
    (load,) = loads
    if load.index != tuple(i - before for i, before in zip(store.index, frame.before)):
        return None
    sizes = zip(kernel.params[-1].type.shape, frame.before, frame.after)
    if tuple(size - before - after for size, before, after in sizes) != kernel.buffer(load.buffer).type.shape:
        return None
    element = Var(load.dtype, "element")
    rest = transform(frame.value, lambda e: element if e == load else None)
    return None if any(isinstance(e, Index) for e in walk(rest)) else load


def _inside(kernel: Kernel, frame: Frame) -> Kernel:
    """The kernel for what lies inside of the frame."""
    loops, store = _nest(kernel)
    assert store is not None
    body: tuple[Stmt, ...] = (replace(store, value=frame.value),)
    places = {symbol_of(i.value): axis for axis, i in enumerate(store.index) if isinstance(i, Index)}
    for loop in reversed(loops):
        before, after = frame.before[places[loop.var]], frame.after[places[loop.var]]
        assert not isinstance(loop.extent, Expr)
        body = substitute_var(body, loop.var, symbol(loop.var) + before) if before else body
        body = (replace(loop, extent=loop.extent - before - after, body=body),)
    return simplify.run(replace(kernel, body=body))


def _guarded(kernel: Kernel, value: Expr) -> tuple[list[Expr], Expr, Const] | None:
    """The conditions under which a value is another one than a constant, that one, and the constant."""
    match value:
        case Load(outside=Const() as around):
            sizes = zip(value.index, kernel.buffer(value.buffer).type.shape)
            asked = [c for i, size in sizes for c in (apply("ge", i, 0), apply("lt", i, Index(t.i64, size)))]
            open_ = [c for c in asked if not isinstance(c, Const) or not c.value]
            return open_, Load(value.dtype, value.buffer, value.index), around
        case Apply(function="select", args=(condition, yes, Const() as around)):
            return _conjuncts(condition), yes, around
    return None


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, Apply) and condition.function == "and":
        return [part for arg in condition.args for part in _conjuncts(arg)]
    return [condition]


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
