"""Which loops of a register tile are unrolled, and which are vectors."""

from __future__ import annotations

from ir.expr import Apply, Cast, Load, walk
from ir.functions import COSTLY
from ir.kernel import For, Kernel, exprs_of, walk_stmts
from ir.schedule import mark

_SHORT = 8
"""Operations of a result that are written out for each register; longer ones run in a loop over rows."""


def mark_tile(kernel: Kernel, inner: list[str]) -> Kernel:
    """Marks the tile's loops: rows unrolled, columns vectors. What comes after the sum is written out where it is
    short."""
    result = kernel
    for s in list(walk_stmts(kernel.body)):
        if not isinstance(s, For):
            continue
        base, is_after = tile_loop(s.var), s.var.removesuffix("_c").endswith("_e")
        if base == inner[-1] and not _guards(s, is_after):
            result = mark(result, s.var, "vector")
        elif len(inner) > 1 and base == inner[0] and not (is_after and _is_long(s)):
            result = mark(result, s.var, "unroll")
    return result


def tile_loop(name: str) -> str:
    """The name of the loop of a tile that a loop is, or is a copy of: for the first values, for what comes after the
    sum, for the rows or the columns that are left over."""
    base = name.removesuffix("_c").removesuffix("_z").removesuffix("_e")
    while base.endswith("_t"):
        base = base.removesuffix("_t")
    return base


def _is_long(loop: For) -> bool:
    exprs = [e for e in walk(*(e for s in walk_stmts(loop.body) for e in exprs_of(s))) if isinstance(e, Apply | Cast)]
    return len(exprs) > _SHORT or any(isinstance(e, Apply) and e.function in COSTLY for e in exprs)


def _guards(loop: For, is_after: bool) -> bool:
    """Whether something in the loop may lie outside its buffer, or is a choice within the sum: no plain vector code."""
    for s in walk_stmts((loop,)):
        if any(isinstance(e, Load) and e.outside is not None for e in walk(*exprs_of(s))):
            return True
        if not is_after and any(isinstance(e, Apply) and e.function == "select" for e in walk(*exprs_of(s))):
            return True
    return False
