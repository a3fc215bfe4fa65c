"""The loops of a transposed convolution, by phase: outputs that have one remainder are an ordinary convolution.

A kernel that reads at (o + c) // stride, and sums over taps that depend on (o + c) % stride, gets loops over
o // stride and o % stride, with the remainders outside of the rows that a tile consists of.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.passes.simplify import simplify
from ir.dims import Atom, Dim, FloorDiv, Size, atoms, names, symbol
from ir.element import Names
from ir.expr import Expr, Index, walk
from ir.kernel import For, Kernel, Variable, exprs_of, walk_stmts
from ir.schedule import reorder, split, unmark


def split_phases(kernel: Kernel) -> Kernel:
    """The kernel with a loop over phases for each output axis that has some; other kernels stay as they are."""
    loops = _output_loops(kernel)
    strides = {} if not loops else {f.var: s for f in loops[:-1] if (s := _stride(loops[-1], f)) is not None}
    if not strides:
        return kernel
    loop_names = [s.var for s in walk_stmts(kernel.body) if isinstance(s, For)]
    taken = Names([*kernel.sizes, *(b.name for b in kernel.params), *loop_names])
    made = unmark(kernel)
    order, phases = [], []
    for loop in loops:
        stride = strides.get(loop.var)
        if stride is None:
            order.append(loop.var)
            continue
        step, phase = taken.fresh(f"{loop.var}_step"), taken.fresh(f"{loop.var}_phase")
        made = split(made, loop.var, stride, step, phase)
        order.append(step)
        phases.append(phase)
    *outer, rows, columns = order
    return simplify.run(reorder(made, [*outer, *phases, rows, columns]))


def _output_loops(kernel: Kernel) -> list[For]:
    """The loops around one accumulator, outermost first; none for a kernel of another form."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    return loops if len(loops) > 1 and body and isinstance(body[0], Variable) else []


def _stride(innermost: For, loop: For) -> int | None:
    """The number by which places of a loop are divided in the sum, where it divides its extent."""
    for atom in _atoms(innermost):
        if not isinstance(atom, FloorDiv) or not isinstance(atom.den, int) or not isinstance(atom.num, Dim):
            continue
        rest = atom.num - symbol(loop.var)
        is_place = not (isinstance(rest, Dim) and loop.var in names(rest))
        if is_place and not isinstance(loop.extent, Expr) and loop.extent % atom.den == 0:
            return atom.den
    return None


def _atoms(innermost: For) -> Iterator[Atom]:
    """The atoms of the extents and indices of the sum in a loop."""
    for stmt in walk_stmts(innermost.body[1:2]):
        found: list[Size] = [e.value for e in walk(*exprs_of(stmt)) if isinstance(e, Index)]
        if isinstance(stmt, For) and not isinstance(stmt.extent, Expr):
            found.append(stmt.extent)
        for size in found:
            yield from atoms(size)
