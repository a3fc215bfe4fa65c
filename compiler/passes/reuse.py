"""reuse: kernels that may write over an operand do so, where that operand is not needed any more.

A kernel may when it reads the operand only at the index at which it stores. It becomes a variant with one "inout"
buffer, and the result a view of the operand. Runs before `memory`, which then places one buffer instead of two.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.passes.memory import lifetimes
from compiler.pipeline import program_pass
from ir.dims import names, symbol
from ir.expr import Expr, Index, Load, transform, walk
from ir.kernel import Buffer, For, Kernel, Stmt, Store, While, exprs_of, map_exprs, map_stmts, walk_stmts
from ir.program import Call, Program, Step, map_inside


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
        if not isinstance(step, Call):
            return map_inside(step, lambda block: map(visit, block))
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
    """`kernel` writing its result over `operand`; None where it reads the operand elsewhere than where it stores, or
    later than it stores there."""
    result = kernel.params[-1].name
    given = kernel.buffer(operand)
    if given.type != kernel.params[-1].type:
        return None
    stores = [s for s in walk_stmts(kernel.body) if isinstance(s, Store) and s.buffer == result]
    reads_result = any(load.buffer == result for load in _loads(kernel.body))
    is_once = len(stores) == 1 and not reads_result and stores[0].function is None
    is_function = is_once and _is_read_where_stored(kernel.body, operand, stores[0])
    if not is_function and not _is_read_before(kernel, operand):
        return None

    def moved(expr: Expr) -> Expr | None:
        return Load(expr.dtype, result, expr.index) if isinstance(expr, Load) and expr.buffer == operand else None

    memo: dict[Expr, Expr] = {}
    body = map_stmts(kernel.body, lambda stmt: map_exprs(stmt, lambda e: transform(e, moved, memo)))
    kept = (b for b in kernel.params if b.name not in (operand, result))
    params = (*kept, Buffer(result, given.type, "inout"))
    return Kernel(f"{kernel.name}_into_{operand}", params, body)


def _loads(block: tuple[Stmt, ...]) -> list[Load]:
    return [e for stmt in walk_stmts(block) for e in walk(*exprs_of(stmt)) if isinstance(e, Load)]


def _is_read_where_stored(block: tuple[Stmt, ...], operand: str, store: Store) -> bool:
    """Whether a block reads an operand in one statement only, at the place at which that stores."""
    own = [(s, e) for s in walk_stmts(block) for e in walk(*exprs_of(s)) if isinstance(e, Load) and e.buffer == operand]
    return all(stmt is store and load.index == store.index and load.outside is None for stmt, load in own)


def _is_read_before(kernel: Kernel, operand: str) -> bool:
    """Whether a kernel goes through rows, and in each of them reads an operand up to where it first stores its result,
    and there only at the places at which it stores."""
    result, body, rows = kernel.params[-1].name, kernel.body, list[str]()
    while len(body) == 1 and isinstance(body[0], For):
        rows.append(body[0].var)
        body = body[0].body
    if len(body) < 2 or any(isinstance(s, While) for s in walk_stmts(body)):
        return False
    stores = [s for s in walk_stmts(body) if isinstance(s, Store) and s.buffer == result]
    reads = [e for e in _loads(body) if e.buffer == operand]
    places = [s.index for s in stores] + [e.index for e in _loads(body) if e.buffer in (operand, result)]
    axes = {_axes_of(index, rows) for index in places}
    if len(axes) != 1 or None in axes or any(e.outside is not None for e in reads):
        return False
    first = next(i for i, s in enumerate(body) if any(store in stores for store in walk_stmts((s,))))
    if any(load.buffer == operand for load in _loads(body[first + 1 :])):
        return False
    inside = list(walk_stmts((body[first],)))
    writing = [s for s in inside if isinstance(s, Store) and s.buffer == result]
    if len(writing) != 1:
        return False
    used = {name for i in writing[0].index for e in walk(i) if isinstance(e, Index) for name in names(e.value)}
    is_once = all(s.var in used for s in inside if isinstance(s, For))
    return is_once and _is_read_where_stored((body[first],), operand, writing[0])


def _axes_of(index: tuple[Expr, ...], rows: list[str]) -> tuple[int, ...] | None:
    """The axes along which an index is the number of the row, for each loop over rows."""
    found = []
    for row in rows:
        own = [axis for axis, i in enumerate(index) if isinstance(i, Index) and i.value == symbol(row)]
        if not own:
            return None
        found.append(own[0])
    return tuple(found)
