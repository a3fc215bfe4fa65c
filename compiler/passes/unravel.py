"""unravel: an innermost loop that goes through the rows of something as one run becomes a loop over the rows and one
along a row.

Where an operand was reshaped, its elements are read at quotients and remainders of one variable. They lie side by
side along a row, and only there what makes vectors of loops sees it. Likewise where a few rows are read in turn, as
channels are shuffled: a loop over places and one over the rows show that each row is read in order.
"""

from __future__ import annotations

from compiler.passes.simplify import simplify
from compiler.pipeline import kernel_pass
from ir import types as t
from ir.access import any_varies, is_contiguous, varies
from ir.dims import FloorDiv, Size, atoms, substitute, symbol
from ir.element import Names
from ir.expr import Apply, Expr, Index, Load, walk
from ir.kernel import For, Kernel, Let, Local, Stmt, Store, Variable, exprs_of, walk_stmts
from ir.schedule import split

_LEAST = 8
"""Elements of a row; shorter ones fill no vector."""


@kernel_pass
def unravel(kernel: Kernel) -> Kernel:
    """Splits innermost loops by the length of the rows that they go through."""
    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    own = [s.name for s in walk_stmts(kernel.body) if isinstance(s, (Let, Variable, Local))]
    taken = Names([*kernel.sizes, *(b.name for b in kernel.params), *(f.var for f in loops), *own])
    made = kernel
    for loop in loops:
        if sum(f.var == loop.var for f in loops) != 1:
            continue
        row, turns = _row_of(loop), _turns_of(loop)
        if row is not None:
            made = split(made, loop.var, row, taken.fresh(f"{loop.var}_row"), taken.fresh(f"{loop.var}_place"))
        elif turns is not None:
            made = split(made, loop.var, turns, taken.fresh(f"{loop.var}_place"), taken.fresh(f"{loop.var}_row"))
    return made if made is kernel else simplify.run(made)


def _row_of(loop: For) -> int | None:
    """The length of the rows that a loop goes through, None where it is one run or no innermost loop."""
    if loop.mark not in ("", "parallel") or isinstance(loop.extent, Expr):
        return None
    if any(isinstance(s, For) for s in walk_stmts(loop.body)):
        return None
    found = {den for s in walk_stmts(loop.body) for den in _divisors(s, loop.var)}
    least = min(found, default=0)
    if least < _LEAST or loop.extent == least or loop.extent % least != 0 or any(den % least for den in found):
        return None
    return least


def _turns_of(loop: For) -> int | None:
    """How many rows a loop that stores side by side reads in turn, each in order; None where it does anything else."""
    store = loop.body[0] if len(loop.body) == 1 else None
    if loop.mark or not isinstance(store, Store) or not isinstance(loop.extent, int):
        return None
    found = set(_divisors(store, loop.var))
    turns = min(found, default=0)
    if len(found) != 1 or not 2 <= turns < _LEAST or loop.extent % turns or loop.extent < _LEAST * turns:
        return None
    if store.function is not None or not is_contiguous(store.index, loop.var) or _asks(store.value, loop.var):
        return None
    place = "place"  # no name of a kernel has to differ from it: it stands in no kernel
    loads = [e.index for e in walk(store.value) if isinstance(e, Load) and any_varies(e.index, loop.var)]
    turn = {loop.var: symbol(place) * turns}
    moved = [tuple(Index(t.i64, substitute(i.value, turn)) for i in at if isinstance(i, Index)) for at in loads]
    return turns if all(is_contiguous(at, place) for at in moved) else None


def _asks(value: Expr, var: str) -> bool:
    """Whether a value is chosen by a loop's variable, or read with another one for what lies outside."""
    for expr in walk(value):
        if isinstance(expr, Apply) and expr.function == "select" and varies(expr.args[0], var):
            return True
        if isinstance(expr, Load) and expr.outside is not None:
            return True
    return False


def _divisors(stmt: Stmt, var: str) -> list[int]:
    """What a loop's variable is divided by in the indices of a statement."""
    sizes: list[Size] = [e.value for e in walk(*exprs_of(stmt)) if isinstance(e, Index)]
    quotients = [a for size in sizes for a in atoms(size) if isinstance(a, FloorDiv)]
    return [q.den for q in quotients if q.num == symbol(var) and isinstance(q.den, int)]
