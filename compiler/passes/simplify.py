"""simplify: kernels with simpler indices: floor divisions that a loop's extent settles, guards that cannot fail, loops
of one iteration."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from compiler.pipeline import kernel_pass
from ir.dims import Size, bounded, names, settle, substitute, upper_bound
from ir.element import guard, inside
from ir.expr import Apply, Const, Expr, Index, Load, transform
from ir.kernel import For, If, Kernel, Stmt, map_blocks, map_exprs
from ir.schedule import substitute_var

_MOST_TRIED = 64


@kernel_pass
def simplify(kernel: Kernel) -> Kernel:
    """Settles index arithmetic by the extents of the loops around it."""
    shapes = {b.name: b.type.shape for b in kernel.params}
    return replace(kernel, body=_block(kernel.body, {}, shapes))


def _block(block: tuple[Stmt, ...], extents: dict[str, Size], shapes: dict[str, tuple[Size, ...]]) -> tuple[Stmt, ...]:
    result: list[Stmt] = []
    memo: dict[Expr, Expr] = {}
    for stmt in block:
        stmt = map_exprs(stmt, lambda e: transform(e, lambda x: _one(x, extents, shapes), memo))
        stmt = _within(stmt, extents, shapes)
        if isinstance(stmt, If) and isinstance(stmt.condition, Const):
            result.extend(stmt.then if stmt.condition.value else stmt.orelse)
        elif isinstance(stmt, For) and stmt.extent == 1:
            result.extend(substitute_var(stmt.body, stmt.var, 0))
        else:
            result.append(stmt)
    return tuple(result)


def _within(stmt: Stmt, extents: dict[str, Size], shapes: dict[str, tuple[Size, ...]]) -> Stmt:
    """`stmt` with simpler blocks inside of it, where a loop's extent is known as well."""
    if not isinstance(stmt, For) or isinstance(stmt.extent, Expr):
        return map_blocks(stmt, lambda b: _block(b, extents, shapes))
    extent, greatest = _settle_extent(stmt.extent, extents)
    stmt = replace(stmt, extent=extent)
    inner = {**extents, stmt.var: greatest}
    top = upper_bound(greatest)
    with bounded({stmt.var: (0, None if top is None else max(0, int(top) - 1))}):
        return map_blocks(stmt, lambda b: _block(b, inner, shapes))


def _settle_extent(extent: Size, extents: dict[str, Size]) -> tuple[Size, Size]:
    """A loop's extent, and the greatest that it has. One that follows from few iterations around is tried out."""
    extent = settle(extent, extents)
    given = names(extent)
    ranges = {name: size for name in sorted(given) if isinstance(size := extents.get(name), int)}
    if not given or given != ranges.keys() or not 0 < math.prod(ranges.values()) <= _MOST_TRIED:
        return extent, extent
    places = itertools.product(*map(range, ranges.values()))
    tried = [substitute(extent, dict(zip(ranges, place))) for place in places]
    greatest = max(0, *(int(size) for size in tried))  # type: ignore[arg-type]
    return (greatest if len(set(tried)) == 1 else extent), greatest


def _one(expr: Expr, extents: dict[str, Size], shapes: dict[str, tuple[Size, ...]]) -> Expr | None:
    match expr:
        case Index():
            settled = settle(expr.value, extents)
            return None if settled == expr.value else Index(expr.dtype, settled)
        case Load(outside=outside) if outside is not None and expr.buffer in shapes:
            shape = shapes[expr.buffer]
            if inside(expr.index, shape) is False:
                return outside
            kept = guard(expr.index, shape, outside)
            if kept is None or _always_inside(expr.index, shape, extents):
                return Load(expr.dtype, expr.buffer, expr.index)
            return None
        case Apply(function="lt", args=(Index(value=a), Index(value=b))):
            return Const(expr.dtype, True) if b != 0 and settle(a // b, extents) == 0 else None
    return None


def _always_inside(index: tuple[Expr, ...], shape: tuple[Size, ...], extents: dict[str, Size]) -> bool:
    """Whether each index settles to lie within its extent: i//extent is 0 for it."""
    for i, size in zip(index, shape):
        if not isinstance(i, Index) or size == 0:
            return False
        if i.value == 0 and isinstance(size, int) and size > 0:
            continue
        if settle(i.value // size, extents) != 0:
            return False
    return True
