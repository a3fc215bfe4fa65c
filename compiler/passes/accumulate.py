"""accumulate: reductions along what lies side by side in memory run in vectors, with several partial results.

A serial sum waits for each addition before the next. Here every lane of a few vectors gathers a part of its own, what
makes no whole vector is gathered by itself, and the parts are combined in one fixed order: results are the same in
every run and on any number of threads. Rounding differs from that of the serial order. Kernels that `tile` made hold
their partial results in tiles already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from compiler.pipeline import kernel_pass
from ir import types as t
from ir.access import any_varies, is_contiguous
from ir.dims import Size, symbol
from ir.element import Names, identity
from ir.expr import Apply, Cast, Expr, Index, Load, Var, apply, walk
from ir.kernel import (
    Assign,
    For,
    If,
    Kernel,
    Let,
    Local,
    Stmt,
    Store,
    Variable,
    map_blocks,
    rename,
    walk_stmts,
)
from ir.schedule import only_update, substitute_var
from ir.types import TensorType

_MOST_VECTORS = 4
"""Partial vectors: as many as hide the latency of an addition."""
_FUNCTIONS = ("add", "mul", "max", "min")
_ELEMENTS = (t.f32, t.f64, t.i8, t.i16, t.i32, t.i64, t.u8, t.u16, t.u32, t.u64)


@dataclass(frozen=True)
class _Reduction:
    """`variable`, and the loops that gather into it: `outer` around the innermost, whose body is `body`."""

    variable: Variable
    function: str
    outer: tuple[For, ...]
    loop: For

    @property
    def extent(self) -> Size:
        assert not isinstance(self.loop.extent, Expr)
        return self.loop.extent


@kernel_pass
def accumulate(kernel: Kernel, *, lanes: int = 8, keep_columns: bool = False) -> Kernel:
    """Gives each serial reduction over contiguous memory partial results; `lanes` f32 elements make a vector.

    With `keep_columns` it leaves alone what runs along memory from result to result, too: there some machine may have
    tiles, which gather in order, and all other machines then do so as well.
    """
    loops = [s.var for s in walk_stmts(kernel.body) if isinstance(s, For)]
    own = [s.name for s in walk_stmts(kernel.body) if isinstance(s, (Let, Variable, Local))]
    taken = Names([*kernel.sizes, *(b.name for b in kernel.params), *loops, *own])
    return replace(kernel, body=_block(kernel.body, taken, lanes, keep_columns))


def _block(
    block: tuple[Stmt, ...], taken: Names, lanes: int, keep_columns: bool, around: str | None = None
) -> tuple[Stmt, ...]:
    """A block with its reductions in vectors. `around` is the variable of the loop that holds it."""
    result: list[Stmt] = []
    for position, stmt in enumerate(block):
        before = block[position - 1] if position else None
        reduction = None
        if isinstance(before, Variable) and isinstance(stmt, For):
            reduction = _reduction_of(before, stmt)
        if reduction is not None and keep_columns and _runs_along(reduction, around):
            reduction = None
        made = None if reduction is None else _in_vectors(reduction, taken, lanes)
        if made is not None:
            result += made
        else:
            loop = stmt.var if isinstance(stmt, For) else around
            inside = partial(_block, taken=taken, lanes=lanes, keep_columns=keep_columns, around=loop)
            result.append(map_blocks(stmt, inside))
    return tuple(result)


def _runs_along(reduction: _Reduction, var: str | None) -> bool:
    """Whether what a reduction reads lies side by side for neighbouring iterations of the loop around it."""
    (update,) = reduction.loop.body
    assert isinstance(update, Assign)
    loads = [e for e in walk(update.value) if isinstance(e, Load) and var is not None and any_varies(e.index, var)]
    return bool(loads) and all(var is not None and is_contiguous(load.index, var) for load in loads)


def _reduction_of(variable: Variable, stmt: Stmt) -> _Reduction | None:
    """The reduction into a variable that a statement is, if it runs along contiguous memory."""
    nest: list[For] = []
    body: tuple[Stmt, ...] = (stmt,)
    while len(body) == 1 and isinstance(body[0], For):
        if isinstance(body[0].extent, Expr) or body[0].mark:
            return None
        nest.append(body[0])
        body = body[0].body
    update = only_update(body)
    if not nest or update is None or update.name != variable.name or update.function not in _FUNCTIONS:
        return None
    if variable.init.dtype not in _ELEMENTS or not _is_by_lane(update.value, nest[-1].var, variable.name):
        return None
    *outer, loop = nest
    return _Reduction(variable, update.function, tuple(outer), replace(loop, body=(update,)))


def _is_by_lane(value: Expr, var: str, accumulator: str) -> bool:
    """Whether a value can be computed for neighbouring iterations of a loop at a time: it reads contiguous memory, or
    what is the same for all of them, and not what is gathered."""
    contiguous = False
    for expr in walk(value):
        if isinstance(expr, Var) and expr.name == accumulator:
            return False
        if isinstance(expr, Apply) and expr.dtype not in (*_ELEMENTS, t.bool_):
            return False
        if isinstance(expr, Cast) and expr.dtype not in _ELEMENTS:
            return False
        if not isinstance(expr, Load) or not any_varies(expr.index, var):
            continue
        if expr.outside is not None or expr.dtype not in _ELEMENTS or not is_contiguous(expr.index, var):
            return False
        contiguous = True
    return contiguous


def _in_vectors(reduction: _Reduction, taken: Names, lanes: int) -> list[Stmt] | None:
    """The statements that take the place of a reduction's loops; None where there are too few elements."""
    dtype, extent = reduction.variable.init.dtype, reduction.extent
    width = _width(extent, max(1, lanes * t.f32.itemsize // dtype.itemsize))
    count = min(_MOST_VECTORS, extent // width) if isinstance(extent, int) else _MOST_VECTORS
    if width == 1 or count == 0:
        return None
    name = reduction.variable.name
    part, vector, lane = taken.fresh(f"{name}_part"), taken.fresh("v"), taken.fresh("lane")
    start = identity(reduction.function, dtype)
    fill = Store(part, (_at(symbol(vector)), _at(symbol(lane))), start)
    stmts = _gathering(reduction, part, count, width, taken)
    for loop in reversed(reduction.outer):
        stmts = (replace(loop, body=stmts),)
    made: list[Stmt] = [
        Local(part, TensorType(dtype, (count, width))),
        For(vector, count, (For(lane, width, (fill,), "vector"),), "unroll"),
        *stmts,
        *_combined(reduction, part, count, width, taken),
    ]
    if isinstance(extent, int):
        return made
    return [If(apply("ge", _at(extent), width), tuple(made), (_plain(reduction, taken),))]


def _width(extent: Size, lanes: int) -> int:
    """Lanes of the partial results: all that a vector has, or half of them where few elements make no whole vectors
    but whole halves."""
    is_few = isinstance(extent, int) and extent < _MOST_VECTORS * lanes
    return lanes // 2 if is_few and lanes >= 8 and extent % lanes != 0 and extent % (lanes // 2) == 0 else lanes


def _plain(reduction: _Reduction, taken: Names) -> Stmt:
    """A copy of the loops as they were."""
    stmt: Stmt = reduction.loop
    for loop in reversed(reduction.outer):
        stmt = replace(loop, body=(stmt,))
    others = {loop.var: taken.fresh(loop.var) for loop in (*reduction.outer, reduction.loop)}
    (copy,) = rename(Kernel("copy", (), (stmt,)), others).body
    return copy


def _gathering(reduction: _Reduction, part: str, count: int, width: int, taken: Names) -> tuple[Stmt, ...]:
    """One run through the innermost loop: by several vectors, by one vector, element by element."""
    extent, var = reduction.extent, reduction.loop.var
    (update,) = reduction.loop.body
    assert isinstance(update, Assign)
    block, vector, lane = taken.fresh(f"{var}_block"), taken.fresh("v"), taken.fresh("lane")
    blocks, vectors = extent // (count * width), extent // width
    place = (symbol(block) * count + symbol(vector)) * width + symbol(lane)
    add = Store(part, (_at(symbol(vector)), _at(symbol(lane))), _value_at(update, var, place), reduction.function)
    result: list[Stmt] = [
        For(block, blocks, (For(vector, count, (For(lane, width, (add,), "vector"),), "unroll"),)),
    ]
    if vectors - blocks * count != 0:
        block, lane = taken.fresh(f"{var}_block"), taken.fresh("lane")
        place = (blocks * count + symbol(block)) * width + symbol(lane)
        add = Store(part, (_at(0), _at(symbol(lane))), _value_at(update, var, place), reduction.function)
        result.append(For(block, vectors - blocks * count, (For(lane, width, (add,), "vector"),)))
    if extent - vectors * width != 0:
        result.append(_rest(reduction, part, width, vectors, taken))
    return tuple(result)


def _rest(reduction: _Reduction, part: str, width: int, vectors: Size, taken: Names) -> Stmt:
    """What gathers the elements behind the last of the whole vectors: one by one, or where taking an element twice is
    the same as taking it once, by a vector that ends with the last one."""
    var, extent = reduction.loop.var, reduction.extent
    (update,) = reduction.loop.body
    assert isinstance(update, Assign)
    if reduction.function in ("max", "min"):
        lane = taken.fresh("lane")
        value = _value_at(update, var, extent - width + symbol(lane))
        return For(lane, width, (Store(part, (_at(0), _at(symbol(lane))), value, reduction.function),), "vector")
    rest = taken.fresh(f"{var}_rest")
    body = (replace(update, value=_value_at(update, var, vectors * width + symbol(rest))),)
    return For(rest, extent - vectors * width, body)


def _value_at(update: Assign, var: str, place: Size) -> Expr:
    (moved,) = substitute_var((update,), var, place)
    assert isinstance(moved, Assign)
    return moved.value


def _combined(reduction: _Reduction, part: str, count: int, width: int, taken: Names) -> list[Stmt]:
    """The partial results as one: vector by vector, then half by half of what is left."""
    dtype, function, name = reduction.variable.init.dtype, reduction.function, reduction.variable.name
    fold, lane = taken.fresh(f"{name}_fold"), taken.fresh("lane")
    parts = [Load(dtype, part, (_at(v), _at(symbol(lane)))) for v in range(count)]
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [pair[0] if len(pair) == 1 else apply(function, *pair) for pair in pairs]
    result: list[Stmt] = [
        Local(fold, TensorType(dtype, (width,))),
        For(lane, width, (Store(fold, (_at(symbol(lane)),), parts[0]),), "vector"),
    ]
    half = width // 2
    while half > 1:
        lane = taken.fresh("lane")
        upper = Load(dtype, fold, (_at(symbol(lane) + half),))
        result.append(For(lane, half, (Store(fold, (_at(symbol(lane)),), upper, function),), "vector"))
        half //= 2
    first, second = (Load(dtype, fold, (_at(place),)) for place in (0, 1))
    return [*result, Assign(name, apply(function, first, second), function)]


def _at(place: Size) -> Index:
    return Index(t.i64, place)
