"""partition: an innermost loop over what lies in several parts becomes a loop over each part.

Where a loop's variable is compared with numbers, as in a concatenation, or an operand is read with a value for what
lies outside of it, as in padding, every element asks in which part it is. Parts known, nothing is asked, and each part
is a plain run that makes vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compiler.passes.simplify import simplify
from compiler.pipeline import kernel_pass
from ir.dims import Size, substitute, symbol
from ir.expr import Apply, Const, Expr, Index, Load, transform, walk
from ir.kernel import For, Kernel, Let, Stmt, Store, exprs_of, map_exprs, map_stmts, walk_stmts
from ir.schedule import renamed_locals, substitute_var
from ir.types import TensorType

_LEAST = 8
"""Elements of a part, on average: shorter ones fill no vector."""
_MOST = 72
"""Parts of a loop."""


@kernel_pass
def partition(kernel: Kernel) -> Kernel:
    """Parts innermost loops where conditions on their variable change."""
    shapes = {b.name: b.type for b in kernel.params}
    names = {s.var for s in walk_stmts(kernel.body) if isinstance(s, For)}
    names |= {s.name for s in walk_stmts(kernel.body) if isinstance(s, Let)} | set(kernel.sizes) | set(shapes)

    def stmt(s: Stmt) -> Stmt | tuple[Stmt, ...]:
        return _parts(s, shapes, names) if isinstance(s, For) else s

    body = map_stmts(kernel.body, stmt)
    return kernel if body == kernel.body else simplify.run(Kernel(kernel.name, kernel.params, body))


def _parts(loop: For, shapes: dict[str, TensorType], names: set[str]) -> tuple[Stmt, ...]:
    """A loop for each part of an innermost one; the loop itself where it has one part."""
    extent = loop.extent
    if not isinstance(extent, int) or loop.mark not in ("", "vector"):
        return (loop,)
    if not all(isinstance(s, (Let, Store)) for s in loop.body):
        return (loop,)
    found = {b for s in loop.body for e in walk(*exprs_of(s)) for b in _borders(e, loop.var, shapes)}
    borders = [0, *sorted(b for b in found if 0 < b < extent), extent]
    if len(borders) == 2 or len(borders) > _MOST or (len(borders) - 1) * _LEAST > extent:
        return (loop,)
    made: list[Stmt] = []
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        body = _settled(loop, start, end, shapes)
        part = (For(loop.var, end - start, substitute_var(body, loop.var, symbol(loop.var) + start), loop.mark),)
        suffix = f"_{number}"
        if any(f"{name}{suffix}" in names for name in names):
            return (loop,)
        made.extend(renamed_locals(part, suffix) if number else part)
    return tuple(made)


def _borders(expr: Expr, var: str, shapes: dict[str, TensorType]) -> Iterator[int]:
    """Values of a variable at which a comparison, or whether a load lies inside, changes."""
    match expr:
        case Apply(function="lt", args=(Index(value=a), Index(value=b))):
            yield from _zeros(b - a, var)
        case Load(outside=outside) if outside is not None and expr.buffer in shapes:
            for index, size in zip(expr.index, shapes[expr.buffer].shape):
                if isinstance(index, Index):
                    yield from _zeros(index.value + 1, var)
                    yield from _zeros(size - index.value, var)


def _zeros(distance: Size, var: str) -> Iterator[int]:
    """The first value of a variable for which `distance`, var plus a number or a number less var, is above 0 or not."""
    rising, falling = distance - symbol(var), distance + symbol(var)
    if isinstance(rising, int):
        yield 1 - rising
    elif isinstance(falling, int):
        yield falling


def _settled(loop: For, start: int, end: int, shapes: dict[str, TensorType]) -> tuple[Stmt, ...]:
    """The body of a loop, with what is asked of its variable answered for a part without borders inside."""

    def is_positive(distance: Size) -> bool | None:
        if not any(True for _ in _zeros(distance, loop.var)):
            return distance > 0 if isinstance(distance, int) else None
        return bool(substitute(distance, {loop.var: start}) > 0)

    def one(expr: Expr) -> Expr | None:
        match expr:
            case Apply(function="lt", args=(Index(value=a), Index(value=b))):
                known = is_positive(b - a)
                return None if known is None else Const(expr.dtype, known)
            case Apply(function="select", args=(Const(value=value), yes, no)):
                return yes if value else no
            case Load(outside=outside) if outside is not None and expr.buffer in shapes:
                return _load(expr, outside)
        return None

    def _load(expr: Load, outside: Expr) -> Expr | None:
        answers = []
        for index, size in zip(expr.index, shapes[expr.buffer].shape):
            if not isinstance(index, Index):
                return None
            answers += [is_positive(index.value + 1), is_positive(size - index.value)]
        if any(answer is False for answer in answers):
            return outside
        return Load(expr.dtype, expr.buffer, expr.index) if all(answers) else None

    memo: dict[Expr, Expr] = {}
    return tuple(map_exprs(s, lambda e: transform(e, one, memo)) for s in loop.body)
