"""Schedule primitives: Kernel -> Kernel, by loop name. They change the order of work, never what is computed.

Each one checks what it needs and raises ScheduleError with the reason otherwise, so a schedule is a list of calls that
either is right or says why not. Which schedule is good for which machine is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ir import types as t
from ir.dims import Size, ceil_div, decide_le, minimum, names, settle, substitute, symbol
from ir.expr import Expr, Index, Load, Reduce, Var, transform
from ir.kernel import (
    Assign,
    Buffer,
    For,
    If,
    Kernel,
    Let,
    Local,
    Mark,
    Stmt,
    Store,
    Variable,
    map_exprs,
    map_stmts,
    rename,
    walk_stmts,
)
from ir.types import TensorType

SUFFIXES = ("_t", "_z", "_e", "_p", "_c")
"""What the names of loops and locals end in that are copies of others: no size of a kernel may end so."""


class ScheduleError(Exception):
    """A primitive does not apply; the message says why."""


def find_loop(kernel: Kernel, name: str) -> For:
    """The loop over `name`. Raises ScheduleError unless there is exactly one."""
    found = [s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.var == name]
    if len(found) != 1:
        raise ScheduleError(f"kernel {kernel.name} has {len(found)} loops called {name}")
    return found[0]


def substitute_var(block: tuple[Stmt, ...], name: str, value: Size) -> tuple[Stmt, ...]:
    """`block` with loop variable `name` replaced by a size over other variables."""

    def one(expr: Expr) -> Expr | None:
        if isinstance(expr, Index) and name in names(expr.value):
            return Index(t.i64, substitute(expr.value, {name: value}))
        if isinstance(expr, Reduce):
            axes = tuple((v, substitute(e, {name: value})) for v, e in expr.axes)
            return replace(expr, axes=axes) if axes != expr.axes else None
        return None

    memo: dict[Expr, Expr] = {}

    def stmt(s: Stmt) -> Stmt:
        s = map_exprs(s, lambda e: transform(e, one, memo))
        if isinstance(s, For) and not isinstance(s.extent, Expr):
            return replace(s, extent=substitute(s.extent, {name: value}))
        return s

    return map_stmts(block, stmt)


def _replace_loop(kernel: Kernel, name: str, make: Callable[[For], Stmt | tuple[Stmt, ...]]) -> Kernel:
    find_loop(kernel, name)

    def stmt(s: Stmt) -> Stmt | tuple[Stmt, ...]:
        return make(s) if isinstance(s, For) and s.var == name else s

    return replace(kernel, body=map_stmts(kernel.body, stmt))


def split(kernel: Kernel, loop: str, factor: int, outer: str, inner: str, tail: str = "exact") -> Kernel:
    """`for loop in 0..E` as `for outer, inner in 0..factor`.

    `tail` says what becomes of a remainder: "exact" (there is none: `factor` divides E), "peel" (a loop `loop`_t after
    it), or "overlap" (the last block starts at E - factor and repeats some iterations: only where E >= factor and
    iterations are independent and idempotent).
    """
    found = find_loop(kernel, loop)
    if isinstance(found.extent, Expr):
        raise ScheduleError(f"the extent of {loop} depends on data")
    extent = found.extent
    o, i = symbol(outer), symbol(inner)
    if tail == "exact":
        if extent % factor != 0:
            raise ScheduleError(f"{factor} does not divide the extent {extent} of {loop}")
        body = substitute_var(found.body, loop, o * factor + i)
        return _replace_loop(kernel, loop, lambda s: For(outer, extent // factor, (For(inner, factor, body),), s.mark))
    if tail == "overlap":
        if decide_le(factor, extent) is False:
            raise ScheduleError(f"{loop} has fewer than {factor} iterations")
        body = substitute_var(found.body, loop, minimum(o * factor, extent - factor) + i)
        blocks = ceil_div(extent, factor)
        return _replace_loop(kernel, loop, lambda s: For(outer, blocks, (For(inner, factor, body),), s.mark))
    if tail != "peel":
        raise ScheduleError(f"unknown tail {tail!r}")
    body = substitute_var(found.body, loop, o * factor + i)
    rest = f"{loop}_t"
    tail_body = renamed_locals(substitute_var(found.body, loop, extent // factor * factor + symbol(rest)), "_t")
    remainder = extent - extent // factor * factor
    main = For(outer, extent // factor, (For(inner, factor, body),), found.mark)
    if remainder == 0:
        return _replace_loop(kernel, loop, lambda _: main)
    return _replace_loop(kernel, loop, lambda _: (main, For(rest, remainder, tail_body)))


def renamed_locals(block: tuple[Stmt, ...], suffix: str) -> tuple[Stmt, ...]:
    """A copy of `block` whose own names get a suffix, so that names stay unique in the kernel."""
    mapping: dict[str, str] = {}
    for s in walk_stmts(block):
        if isinstance(s, For):
            mapping[s.var] = s.var + suffix
        elif isinstance(s, (Let, Variable, Local)):
            mapping[s.name] = s.name + suffix
    return rename(Kernel("copy", (), block), mapping).body


def reorder(kernel: Kernel, order: Sequence[str]) -> Kernel:
    """Makes perfectly nested loops stand in `order`, outermost first. The outermost place keeps its mark."""
    inside = next((s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.var in order), None)
    if inside is None:
        raise ScheduleError(f"kernel {kernel.name} has no loop of {', '.join(order)}")
    nest: list[For] = []
    stmt: Stmt = inside
    while isinstance(stmt, For):
        nest.append(stmt)
        if len(nest) == len(order):
            break
        if len(stmt.body) != 1:
            raise ScheduleError(f"loop {stmt.var} holds more than the next loop of {', '.join(order)}")
        stmt = stmt.body[0]
    if {f.var for f in nest} != set(order):
        raise ScheduleError(f"the loops {', '.join(order)} are not perfectly nested in each other")
    by_name = {f.var: f for f in nest}
    for position, name in enumerate(order):
        for later in order[position:]:
            extent = by_name[name].extent
            if isinstance(extent, Expr) or later in names(extent):
                raise ScheduleError(f"the extent of {name} depends on {later} or on data")
    body = nest[-1].body
    for position, name in reversed(list(enumerate(order))):
        mark: Mark = nest[0].mark if position == 0 else ("" if by_name[name].mark == "parallel" else by_name[name].mark)
        body = (For(name, by_name[name].extent, body, mark),)
    return _replace_loop(kernel, nest[0].var, lambda _: body[0])


def mark(kernel: Kernel, loop: str, how: Mark) -> Kernel:
    """Marks a loop as "parallel", "vector", "unroll" or "dot" (or as nothing)."""
    found = find_loop(kernel, loop)
    if how in ("unroll", "dot") and not isinstance(found.extent, int):
        raise ScheduleError(f"{loop} has no fixed extent, so it cannot be marked {how}")
    return _replace_loop(kernel, loop, lambda s: replace(s, mark=how))


def unmark(kernel: Kernel) -> Kernel:
    """Takes the marks of all loops away."""
    return replace(kernel, body=map_stmts(kernel.body, lambda s: replace(s, mark="") if isinstance(s, For) else s))


def vectorize(kernel: Kernel, loop: str) -> Kernel:
    """Its iterations become the lanes of vectors."""
    return mark(kernel, loop, "vector")


def unroll(kernel: Kernel, loop: str) -> Kernel:
    return mark(kernel, loop, "unroll")


def parallelize(kernel: Kernel, loop: str) -> Kernel:
    """Its iterations may run on several threads; they must not depend on each other."""
    for s in walk_stmts(find_loop(kernel, loop).body):
        if isinstance(s, Store) and any(b.name == s.buffer for b in kernel.params) and not any(
            isinstance(e, Index) and loop in names(e.value) for e in s.index
        ):  # fmt: skip
            raise ScheduleError(f"every iteration of {loop} writes the same element of {s.buffer}")
    return mark(kernel, loop, "parallel")


def stage(kernel: Kernel, variable: str, loops: Sequence[str], local: str | None = None) -> Kernel:
    """Gives an accumulator one element for each iteration of the innermost `loops` around it, and moves those loops
    inside the reduction: initialise all, reduce all, then what follows for all.

    The loops must be perfectly nested, of fixed extent, and hold: the variable, one reduction nest that assigns it, and
    statements that use it. This is what turns a dot product into a register tile.
    """
    first = find_loop(kernel, loops[0])
    nest = [first]
    while nest[-1].var != loops[-1]:
        inner = nest[-1].body
        if len(inner) != 1 or not isinstance(inner[0], For):
            raise ScheduleError(f"the loops {', '.join(loops)} are not perfectly nested")
        nest.append(inner[0])
    if [f.var for f in nest] != list(loops) or not all(isinstance(f.extent, int) for f in nest):
        raise ScheduleError(f"the loops {', '.join(loops)} need fixed extents and this order")
    body = nest[-1].body
    at = next((n for n, s in enumerate(body) if isinstance(s, Variable) and s.name == variable), None)
    if at is None or at + 1 >= len(body) or not isinstance(body[at + 1], For):
        raise ScheduleError(f"{variable} is not followed by its reduction")
    before, declared, reduction, after = body[:at], body[at], body[at + 1], body[at + 2 :]
    assert isinstance(declared, Variable) and isinstance(reduction, For)
    if before:
        raise ScheduleError(f"statements stand before {variable}")
    name = local or variable
    shape = tuple(int(f.extent) for f in nest)  # type: ignore[arg-type]
    type_ = TensorType(declared.init.dtype, shape)
    index = tuple(Index(t.i64, symbol(f.var)) for f in nest)

    def around(stmts: tuple[Stmt, ...], suffix: str) -> tuple[Stmt, ...]:
        for f in reversed(nest):
            stmts = (For(f.var, f.extent, stmts, f.mark),)
        if suffix:
            return renamed_locals(stmts, suffix)
        return stmts

    def to_local(expr: Expr) -> Expr | None:
        return Load(expr.dtype, name, index) if isinstance(expr, Var) and expr.name == variable else None

    memo: dict[Expr, Expr] = {}

    def rewritten(s: Stmt) -> Stmt:
        s = map_exprs(s, lambda e: transform(e, to_local, memo))
        if isinstance(s, Assign) and s.name == variable:
            return Store(name, index, s.value, s.function)
        return s

    def push(s: For) -> For:
        """Moves the tile loops inside the innermost reduction loop."""
        if len(s.body) == 1 and isinstance(s.body[0], For):
            return replace(s, body=(push(s.body[0]),))
        return replace(s, body=around(map_stmts(s.body, rewritten), ""))

    made = (
        Local(name, type_),
        *around((Store(name, index, declared.init),), "_z"),
        push(reduction),
        *around(map_stmts(after, rewritten), "_e"),
    )
    return _replace_loop(kernel, loops[0], lambda _: made)


def pack(kernel: Kernel, buffer: str, axis: int, factor: int) -> Kernel:
    """Lays out a buffer in panels: `axis` is cut into blocks of `factor`, the block number becomes the first axis and
    the place within the block the last. Every index along `axis` must be `block*factor + place`."""
    found = kernel.buffer(buffer)
    extent = found.type.shape[axis]
    rest = [s for a, s in enumerate(found.type.shape) if a != axis]
    type_ = found.type.with_shape((ceil_div(extent, factor), *rest, factor))
    extents = loop_extents(kernel)

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer != buffer:
            return None
        position = expr.index[axis]
        if not isinstance(position, Index) or expr.outside is not None:
            raise ScheduleError(f"{buffer} is read at an index that depends on data or may lie outside")
        block = settle(position.value // factor, extents)
        place = position.value - block * factor
        others = [i for a, i in enumerate(expr.index) if a != axis]
        return Load(expr.dtype, buffer, (Index(t.i64, block), *others, Index(t.i64, place)))

    memo: dict[Expr, Expr] = {}
    body = map_stmts(kernel.body, lambda s: map_exprs(s, lambda e: transform(e, one, memo)))
    params = tuple(Buffer(b.name, type_, b.role) if b.name == buffer else b for b in kernel.params)
    return replace(kernel, params=params, body=body)


def interleave(kernel: Kernel, buffer: str, factor: int, axis: int = -2) -> Kernel:
    """Lays `factor` entries of an axis, counted from the last, side by side behind the last: w[..., k, n] becomes
    w[..., k//factor, n, k%factor]. Every index along that axis must be `block*factor + place`."""
    kernel = unflatten(kernel, buffer, kernel.buffer(buffer).type.rank + axis, factor)
    type_ = kernel.buffer(buffer).type
    order = [a for a in range(type_.rank) if a != type_.rank + axis]
    order.append(type_.rank + axis)

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer != buffer:
            return None
        return Load(expr.dtype, buffer, tuple(expr.index[a] for a in order))

    memo: dict[Expr, Expr] = {}
    body = map_stmts(kernel.body, lambda s: map_exprs(s, lambda e: transform(e, one, memo)))
    swapped = type_.with_shape(type_.shape[a] for a in order)
    params = tuple(Buffer(b.name, swapped, b.role) if b.name == buffer else b for b in kernel.params)
    return replace(kernel, params=params, body=body)


def unflatten(kernel: Kernel, buffer: str, axis: int, factor: int) -> Kernel:
    """Sees axis `axis` of a buffer as two, the second of extent `factor`: the same bytes under another type."""
    found = kernel.buffer(buffer)
    shape = found.type.shape
    if shape[axis] % factor != 0:
        raise ScheduleError(f"{factor} does not divide axis {axis} of {found.type}")
    type_ = found.type.with_shape((*shape[:axis], shape[axis] // factor, factor, *shape[axis + 1 :]))
    extents = loop_extents(kernel)

    def one(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer != buffer:
            return None
        position = expr.index[axis]
        if not isinstance(position, Index) or expr.outside is not None:
            raise ScheduleError(f"{buffer} is read at an index that depends on data or may lie outside")
        block = settle(position.value // factor, extents)
        pair = (Index(t.i64, block), Index(t.i64, position.value - block * factor))
        return Load(expr.dtype, buffer, (*expr.index[:axis], *pair, *expr.index[axis + 1 :]))

    memo: dict[Expr, Expr] = {}
    body = map_stmts(kernel.body, lambda s: map_exprs(s, lambda e: transform(e, one, memo)))
    params = tuple(Buffer(b.name, type_, b.role) if b.name == buffer else b for b in kernel.params)
    return replace(kernel, params=params, body=body)


def loop_extents(kernel: Kernel) -> dict[str, Size]:
    """The extent of every loop variable whose extent is a size."""
    return {s.var: s.extent for s in walk_stmts(kernel.body) if isinstance(s, For) and not isinstance(s.extent, Expr)}


def only_update(body: tuple[Stmt, ...]) -> Assign | None:
    """The only assignment of a block, with the names that stand before it put in; None for any other block."""
    if not body or not isinstance(body[-1], Assign) or not all(isinstance(s, Let) for s in body[:-1]):
        return None
    values: dict[str, Expr] = {}

    def one(expr: Expr) -> Expr | None:
        return values.get(expr.name) if isinstance(expr, Var) else None

    for stmt in body[:-1]:
        assert isinstance(stmt, Let)
        values[stmt.name] = transform(stmt.value, one)
    return replace(body[-1], value=transform(body[-1].value, one))


def unname(kernel: Kernel) -> Kernel:
    """Puts loads that have names in their place, in loops of nothing but such names and one assignment. They are named
    again where vectors are written."""

    def stmt(s: Stmt) -> Stmt:
        has_loads = isinstance(s, For) and all(isinstance(x.value, Load) for x in s.body if isinstance(x, Let))
        update = only_update(s.body) if isinstance(s, For) and has_loads else None
        return replace(s, body=(update,)) if isinstance(s, For) and update is not None else s

    return replace(kernel, body=map_stmts(kernel.body, stmt))


def choose(condition: Expr, fast: Kernel, plain: Kernel) -> Kernel:
    """A kernel that does as `fast` where the condition on its sizes holds, else as `plain`. Their parameters are equal.

    Where both consist of the same outermost loop, the choice is made inside of it, and the loop stays parallel.
    """
    if fast.params != plain.params:
        raise ScheduleError("the two kernels have different parameters")
    a, b = fast.body[0], plain.body[0]
    is_one = len(fast.body) == len(plain.body) == 1
    if is_one and isinstance(a, For) and isinstance(b, For) and (a.var, a.extent, a.mark) == (b.var, b.extent, b.mark):
        return replace(fast, body=(replace(a, body=(If(condition, a.body, renamed_locals(b.body, "_p")),)),))
    return replace(fast, body=(If(condition, fast.body, renamed_locals(plain.body, "_p")),))
