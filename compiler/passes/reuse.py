"""reuse: kernels that may write over an operand do so, where that operand is not needed any more.

A kernel may when it reads the operand only at the index at which it stores. It becomes a variant with one "inout"
buffer, and the result a view of the operand. Runs before `memory`, which then places one buffer instead of two.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.passes.memory import lifetimes
from compiler.pipeline import program_pass
from ir.expr import Expr, Load, transform, walk
from ir.kernel import Buffer, Kernel, Store, exprs_of, map_exprs, map_stmts, walk_stmts
from ir.program import Bind, Branch, Call, Program, Repeat, Step


@program_pass
def reuse(program: Program) -> None:
    """Turns results into in-place updates."""
    lives = lifetimes(program)
    variants: dict[tuple[str, str], Kernel | None] = {}
    position = 0

    def visit(step: Step) -> Step:
        nonlocal position
        here = position
        position += 1
        if isinstance(step, Branch):
            return replace(step, then=tuple(map(visit, step.then)), orelse=tuple(map(visit, step.orelse)))
        if isinstance(step, Repeat):
            return replace(step, body=tuple(map(visit, step.body)))
        if isinstance(step, Bind):
            return step
        for operand in _candidates(program, step):
            root = program.root(step.args[operand]).name
            if lives[root].last != here or lives[step.args[-1]].first != here:
                continue  # a result that another branch writes first is written while the operand is still needed
            key = (step.kernel.name, step.kernel.params[operand].name)
            if key not in variants:
                variants[key] = in_place(step.kernel, key[1])
            variant = variants[key]
            if variant is None:
                continue
            result = program.buffers[step.args[-1]]
            result.place, result.base = "view", root
            lives[root].last = max(lives[root].last, lives.pop(result.name).last)
            return replace(step, kernel=variant, args=tuple(a for i, a in enumerate(step.args) if i != operand))
        return step

    program.steps = [visit(step) for step in program.steps]


def _candidates(program: Program, call: Call) -> list[int]:
    """Positions of operands that the result of a call could replace: in the arena, of its type, not used twice."""
    outs = [i for i, b in enumerate(call.kernel.params) if b.role != "in" and b.role != "const"]
    if outs != [len(call.args) - 1] or program.buffers[call.args[-1]].place != "arena":
        return []
    result = program.buffers[call.args[-1]].type
    roots = [program.root(a).name for a in call.args]
    return [
        i
        for i, name in enumerate(call.args[:-1])
        if program.root(name).place == "arena"
        and program.buffers[name].type.dtype == result.dtype
        and program.root(name).type.elements == result.elements
        and roots.count(roots[i]) == 1
    ]


def in_place(kernel: Kernel, operand: str) -> Kernel | None:
    """`kernel` writing its result over `operand`; None where it reads the operand elsewhere than where it stores."""
    result = kernel.params[-1].name
    given = kernel.buffer(operand)
    if given.type != kernel.params[-1].type:
        return None
    stores = [s for s in walk_stmts(kernel.body) if isinstance(s, Store) and s.buffer == result]
    if len(stores) != 1 or stores[0].function is not None:
        return None
    for stmt in walk_stmts(kernel.body):
        for expr in walk(*exprs_of(stmt)):
            if not isinstance(expr, Load) or expr.buffer not in (operand, result):
                continue
            is_same_place = stmt is stores[0] and expr.index == stores[0].index and expr.outside is None
            if expr.buffer == result or not is_same_place:
                return None

    def moved(expr: Expr) -> Expr | None:
        return Load(expr.dtype, result, expr.index) if isinstance(expr, Load) and expr.buffer == operand else None

    memo: dict[Expr, Expr] = {}
    body = map_stmts(kernel.body, lambda stmt: map_exprs(stmt, lambda e: transform(e, moved, memo)))
    kept = (b for b in kernel.params if b.name not in (operand, result))
    params = (*kept, Buffer(result, given.type, "inout"))
    return Kernel(f"{kernel.name}_into_{operand}", params, body)
