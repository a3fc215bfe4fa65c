"""The nests of loops that `tile` makes tiles of: sums, or greatest values, of what is read along rows and columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, prod

from compiler.passes.simplify import simplify
from compiler.passes.tile_choice import Shared
from ir import types as t
from ir.access import any_varies, is_contiguous, stride
from ir.dims import FloorDiv, atoms, symbol
from ir.element import Names
from ir.expr import Apply, Cast, Expr, Index, Load, walk
from ir.kernel import (
    DOT_OPERANDS,
    Assign,
    For,
    Kernel,
    Let,
    Stmt,
    Store,
    Variable,
    dot_length,
    exprs_of,
    walk_stmts,
)
from ir.schedule import find_loop, reorder, split, unflatten, unmark
from ir.types import DType


@dataclass(frozen=True)
class Nest:
    """What a kernel that can be tiled consists of: output loops, outermost first, and the accumulator's name."""

    loops: tuple[For, ...]
    accumulator: str
    weight: str | None
    """A const operand that is read along the columns and not along the rows: it can be packed."""
    rows: str | None
    columns: str
    dot: str | None = None
    """The loop that sums products of narrow operands, `together` of which can be one instruction."""
    together: int = 1
    depth_axis: int = -2
    """The axis of the weights along which that loop runs, counted from the last."""
    is_inner: bool = False
    """Whether it is a part of its kernel only."""

    @property
    def summed(self) -> list[Load]:
        """What the sum reads."""
        return loads_of(self.loops[-1].body[1])

    @property
    def weight_loads(self) -> list[Load]:
        return [e for s in walk_stmts(self.loops[-1].body) for e in _own_loads(s) if e.buffer == self.weight]

    def rows_of_weights(self) -> float:
        """For how many rows in all each of the weights is read."""
        weights = [load.index for load in self.weight_loads]
        extents = [f.extent for f in self.loops if not any(any_varies(index, f.var) for index in weights)]
        return prod(extent if isinstance(extent, int) else inf for extent in extents)

    def apart(self, kernel: Kernel) -> int | None:
        """The bytes from what one row of a tile multiplies by the shared vectors to what the next does, where known."""
        for load in self.summed:
            if self.rows and any_varies(load.index, self.rows) and not any_varies(load.index, self.columns):
                elements = stride(load.index, kernel.buffer(load.buffer).type.shape, self.rows)
                return elements and abs(elements) * load.dtype.itemsize
        return None

    def shared(self) -> Shared:
        """What the rows of a tile load in common: nothing for a pooling window, weights for a depthwise convolution."""
        if self.rows is None or not all(any_varies(e.index, self.columns) for e in self.summed):
            return "vectors"
        return "nothing" if all(any_varies(e.index, self.rows) for e in self.summed) else "weights"

    def reads_others_along(self, loop: str) -> bool:
        """Whether the sum reads another operand than the weights along a loop, as a depthwise convolution does."""
        return any(e.buffer != self.weight and any_varies(e.index, loop) for e in self.summed)


def find_nest(kernel: Kernel, packable: set[str]) -> Nest | None:
    """Output loops around one accumulator of f32 or i32, the innermost contiguous in operands that vary along it."""
    if len(kernel.body) != 1 or not isinstance(kernel.body[0], For):
        return None
    loops: list[For] = [kernel.body[0]]
    while len(loops[-1].body) == 1 and isinstance(loops[-1].body[0], For):
        loops.append(loops[-1].body[0])
    body = loops[-1].body
    if (
        len(body) < 3
        or not isinstance(body[0], Variable)
        or not isinstance(body[1], For)
        or body[0].init.dtype not in (t.f32, t.i32)
    ):
        return None
    update = _only_update(body[1])
    stores = [s for s in body[2:] if isinstance(s, Store)]
    if update is None or update.name != body[0].name or len(stores) != 1:
        return None
    if body[-1] is not stores[0] or not all(isinstance(s, Let) for s in body[2:-1]):
        return None
    if update.function not in ("add", "max") or (update.function, body[0].init.dtype) == ("max", t.i32):
        return None
    if any(isinstance(f.extent, Expr) for f in loops):
        return None
    columns = loops[-1].var
    if not is_contiguous(stores[0].index, columns):
        return None
    loads = [e for e in walk(update.value) if isinstance(e, Load)]
    if not loads or not _is_summable(update.value, body[0].init.dtype):
        return None
    if not all(is_contiguous(e.index, columns) or not any_varies(e.index, columns) for e in loads):
        return None
    if not any(any_varies(e.index, columns) for e in loads):
        return None
    rows = loops[-2].var if len(loops) > 1 and any(any_varies(e.index, loops[-2].var) for e in loads) else None
    summed = [f.var for f in walk_stmts((body[1],)) if isinstance(f, For)]
    weight = _weight_of(loads, packable, columns, rows, summed)
    if weight is not None and sum(e.buffer == weight for e in loads_of(loops[0])) != 1:
        weight = None
    dot, axis = _dot_loop(kernel, update, summed, weight, columns) or (None, -2)
    if dot is None and update.value.dtype == t.f32 and any(e.dtype != t.f32 for e in loads):
        return None
    together = dot_length(loads[0].dtype) if dot else 1
    return Nest(tuple(loops), body[0].name, weight, rows, columns, dot, together, axis)


def inner_nests(kernel: Kernel, packable: set[str]) -> list[Nest]:
    """The nests without rows that stand somewhere in a kernel, in textual order."""
    found: list[Nest] = []
    for s in walk_stmts(kernel.body):
        if not isinstance(s, For) or any(s is loop for nest in found for loop in walk_stmts(nest.loops)):
            continue
        nest = find_nest(replace(kernel, body=(s,)), packable)
        if nest is not None and len(nest.loops) == 1:
            found.append(replace(nest, is_inner=True))
    return found


def split_groups(kernel: Kernel, packable: set[str]) -> Kernel:
    """A grouped contraction with a loop over its groups around that over a group's columns, and the weights of each
    group on their own axis; other kernels stay as they are."""
    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    stored = [s for s in walk_stmts(kernel.body) if isinstance(s, Store)]
    columns = stored[-1].index[-1] if len(stored) == 1 and stored[0].index else None
    found = next((f for f in loops if isinstance(columns, Index) and columns.value == symbol(f.var)), None)
    if found is None or not isinstance(found.extent, int):
        return kernel
    for expr in walk(*(e for s in walk_stmts(kernel.body) for e in exprs_of(s))):
        for atom in atoms(expr.value) if isinstance(expr, Index) else ():
            if not isinstance(atom, FloorDiv) or atom.num != symbol(found.var) or not isinstance(atom.den, int):
                continue
            if found.extent % atom.den != 0:
                continue
            taken = Names([*kernel.sizes, *(b.name for b in kernel.params), *(f.var for f in loops)])
            group, column = taken.fresh("g"), taken.fresh(f"{found.var}_g")
            made = simplify.run(split(kernel, found.var, atom.den, group, column))
            others = [f.var for f in loops[: loops.index(found)]]
            made = reorder(unmark(made), [group, *others, column])
            return _unflatten_weights(made, packable, found.extent, atom.den)
    return kernel


def _unflatten_weights(kernel: Kernel, packable: set[str], columns: int, per_group: int) -> Kernel:
    for buffer in kernel.params:
        if buffer.name in packable and buffer.type.rank > 1 and buffer.type.shape[-1] == columns:
            kernel = unflatten(kernel, buffer.name, buffer.type.rank - 1, per_group)
    return kernel


def _is_summable(value: Expr, dtype: DType) -> bool:
    """Whether a value of type `dtype` is made of nothing but such, and of narrow operands converted to it."""
    operands = [e for e in walk(value) if not isinstance(e, Index) and e.dtype != t.bool_]
    is_inside = all(not isinstance(e, Load) or e.outside is None for e in operands)
    narrow = () if not is_inside else (t.i8, t.u8) if dtype == t.i32 else DOT_OPERANDS[dtype]
    return all(e.dtype == dtype or (e.dtype in narrow and isinstance(e, Load)) for e in operands)


def _dot_loop(
    kernel: Kernel, update: Assign, summed: list[str], weight: str | None, columns: str
) -> tuple[str, int] | None:
    """The innermost loop of a sum of x * w, where w are weights, both of types that are multiplied in a loop marked
    "dot", and the loop runs along the last axis of x and one of w before the last; and that axis, from the last."""
    value = update.value
    if weight is None or update.function != "add" or not isinstance(value, Apply) or value.function != "mul":
        return None
    loads = [a.value for a in value.args if isinstance(a, Cast) and isinstance(a.value, Load)]
    if len(loads) != 2:
        return None
    x, w = sorted(loads, key=lambda load: isinstance(load, Load) and load.buffer == weight)
    assert isinstance(x, Load) and isinstance(w, Load)
    loop = find_loop(kernel, summed[-1])
    if (x.dtype, w.dtype) != DOT_OPERANDS.get(value.dtype) or not isinstance(loop.extent, int):
        return None
    if loop.extent % dot_length(w.dtype) != 0:
        return None
    along = [axis for axis in range(-len(w.index), -1) if w.index[axis] == Index(t.i64, symbol(loop.var))]
    if len(along) != 1:
        return None
    others = (*(index for index in w.index if index != Index(t.i64, symbol(loop.var))), *x.index[:-1])
    if not is_contiguous(x.index, loop.var) or any_varies(others, loop.var) or any_varies(x.index, columns):
        return None
    return loop.var, along[0]


def _weight_of(loads: list[Load], packable: set[str], columns: str, rows: str | None, summed: list[str]) -> str | None:
    """The first operand that may be packed and is read along the columns and the sum, but not along the rows."""
    for load in loads:
        if load.buffer not in packable or load.outside is not None or not any_varies(load.index, columns):
            continue
        if rows is not None and any_varies(load.index, rows):
            continue
        if any(any_varies(load.index, axis) for axis in summed):
            return load.buffer
    return None


def loads_of(stmt: Stmt) -> list[Load]:
    """The loads of a statement and those inside of it."""
    return [e for s in walk_stmts((stmt,)) for e in _own_loads(s)]


def _own_loads(stmt: Stmt) -> list[Load]:
    return [e for e in walk(*exprs_of(stmt)) if isinstance(e, Load)]


def _only_update(loop: For) -> Assign | None:
    body: tuple[Stmt, ...] = (loop,)
    while len(body) == 1 and isinstance(body[0], For):
        body = body[0].body
    return body[0] if len(body) == 1 and isinstance(body[0], Assign) else None
