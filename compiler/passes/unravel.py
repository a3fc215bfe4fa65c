"""unravel: an innermost loop that goes through the rows of something as one run becomes a loop over the rows and one
along a row.

Where an operand was reshaped, its elements are read at quotients and remainders of one variable. They lie side by
side along a row, and only there what makes vectors of loops sees it.
"""

from __future__ import annotations

from compiler.passes.simplify import simplify
from compiler.pipeline import kernel_pass
from ir.dims import FloorDiv, Size, atoms, symbol
from ir.element import Names
from ir.expr import Expr, Index, walk
from ir.kernel import For, Kernel, Let, Local, Stmt, Variable, exprs_of, walk_stmts
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
        row = _row_of(loop)
        if row is not None and sum(f.var == loop.var for f in loops) == 1:
            made = split(made, loop.var, row, taken.fresh(f"{loop.var}_row"), taken.fresh(f"{loop.var}_place"))
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


def _divisors(stmt: Stmt, var: str) -> list[int]:
    """What a loop's variable is divided by in the indices of a statement."""
    sizes: list[Size] = [e.value for e in walk(*exprs_of(stmt)) if isinstance(e, Index)]
    quotients = [a for size in sizes for a in atoms(size) if isinstance(a, FloorDiv)]
    return [q.den for q in quotients if q.num == symbol(var) and isinstance(q.den, int)]
