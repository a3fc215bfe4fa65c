"""vectorize: innermost loops that compute costly functions for what lies side by side become loops of vectors.

C compilers make vectors of plain arithmetic, but not of exponentials and what is made of them; the loops of `join` and
the tiles of `tile` are marked by those passes. A mark is a hint: what has no vector form stays a loop.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.pipeline import kernel_pass
from ir.access import any_varies, is_contiguous
from ir.expr import Apply, Expr, Load, walk
from ir.functions import COSTLY
from ir.kernel import For, Kernel, Let, Stmt, Store, exprs_of, map_stmts


@kernel_pass
def vectorize(kernel: Kernel) -> Kernel:
    """Marks each innermost loop of stores side by side that computes a costly function."""
    return replace(kernel, body=map_stmts(kernel.body, _marked))


def _marked(stmt: Stmt) -> Stmt:
    if not isinstance(stmt, For) or stmt.mark or isinstance(stmt.extent, Expr):
        return stmt
    return replace(stmt, mark="vector") if _is_lanes(stmt) else stmt


def _is_lanes(loop: For) -> bool:
    """Whether a loop stores side by side what is costly to compute, of what lies side by side."""
    stores = [stmt for stmt in loop.body if isinstance(stmt, Store)]
    if not stores or not all(isinstance(stmt, (Let, Store)) for stmt in loop.body):
        return False
    if not all(is_contiguous(store.index, loop.var) for store in stores):
        return False
    parts = list(walk(*(e for stmt in loop.body for e in exprs_of(stmt))))
    moving = [e for e in parts if isinstance(e, Load) and any_varies(e.index, loop.var)]
    if not all(is_contiguous(load.index, loop.var) for load in moving):
        return False
    return any(isinstance(e, Apply) and e.function in COSTLY for e in parts)
