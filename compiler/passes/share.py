"""share: gives a name to what an element computes more than once.

An element rule is a tree of expressions in which equal parts are one object. Printed or emitted as a tree it would
compute, and show, each part as often as it is mentioned; a `let` before the statement says it once. What is mentioned
only under a condition stays there, since a load may be valid there alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from compiler.pipeline import kernel_pass
from ir.element import Names
from ir.expr import Apply, Const, Expr, Index, Load, Reduce, Var, children, transform
from ir.kernel import For, Kernel, Let, Local, Stmt, Variable, While, exprs_of, map_blocks, map_exprs, walk_stmts


@kernel_pass
def share(kernel: Kernel) -> Kernel:
    """Names every subexpression that a statement surely evaluates and mentions at least twice."""
    taken = [*kernel.sizes, *(b.name for b in kernel.params)]
    for stmt in walk_stmts(kernel.body):
        if isinstance(stmt, For):
            taken.append(stmt.var)
        elif isinstance(stmt, (Let, Variable, Local)):
            taken.append(stmt.name)
    return replace(kernel, body=_block(kernel.body, Names(taken)))


def _block(block: tuple[Stmt, ...], names: Names) -> tuple[Stmt, ...]:
    result: list[Stmt] = []
    for stmt in block:
        # What a loop tests changes from round to round: a name before the loop would keep its first value.
        lets, stmt = ([], stmt) if isinstance(stmt, While) else _named(stmt, names)
        result += [*lets, map_blocks(stmt, lambda inner: _block(inner, names))]
    return tuple(result)


def _named(stmt: Stmt, names: Names) -> tuple[list[Stmt], Stmt]:
    roots = exprs_of(stmt)
    mentions: Counter[Expr] = Counter(roots)
    order: list[Expr] = []
    seen: set[Expr] = set()
    for root in roots:
        _post_order(root, seen, order, mentions)
    certain = _certain(roots)
    lets: list[Stmt] = []
    done: dict[Expr, Expr] = {}
    for expr in order:
        if mentions[expr] < 2 or expr not in certain or isinstance(expr, (Const, Index, Var, Reduce)):
            continue
        name = names.fresh("t")
        lets.append(Let(name, _replaced(expr, done)))
        done[expr] = Var(expr.dtype, name)
    if not done:
        return [], stmt
    return lets, map_exprs(stmt, lambda e: _replaced(e, done))


def _replaced(expr: Expr, done: dict[Expr, Expr]) -> Expr:
    """`expr` with the largest named parts replaced by their names."""
    if expr in done:
        return done[expr]
    memo: dict[Expr, Expr] = dict(done)
    return transform(expr, lambda _: None, memo)


def _post_order(root: Expr, seen: set[Expr], order: list[Expr], mentions: Counter[Expr]) -> None:
    """Appends the distinct subexpressions of `root`, parts first, and counts how often each is mentioned."""
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if ready:
            order.append(expr)
            continue
        if expr in seen:
            continue
        seen.add(expr)
        stack.append((expr, True))
        for part in reversed(children(expr)):
            mentions[part] += 1
            stack.append((part, False))


def _certain(roots: tuple[Expr, ...]) -> set[Expr]:
    """The subexpressions that are evaluated whatever the conditions in `roots` turn out to be."""
    certain: set[Expr] = set()
    stack = list(roots)
    while stack:
        expr = stack.pop()
        if expr in certain:
            continue
        certain.add(expr)
        if isinstance(expr, Apply) and expr.function == "select":
            stack.append(expr.args[0])
        elif isinstance(expr, Load) and expr.outside is not None:
            stack.extend(expr.index)
        elif not isinstance(expr, Reduce):
            stack.extend(children(expr))
    return certain
