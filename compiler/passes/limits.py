"""What sizes that only a run tells are at most: memory is planned for that much.

Used by `lower`. A size that nothing bounds is refused, with the inputs that it follows from.
"""

from __future__ import annotations

from compiler.errors import CompileError, NodeRef, Problems, UnsupportedError
from ir.demand import demanded_limit
from ir.dims import Limits, Size, Undecided, greatest, symbol, symbol_of
from ir.graph import Graph
from ir.program import Bind, Program, Repeat, Step
from ir.program_flow import inputs_behind


def limits_known(graph: Graph) -> Limits[Size | None]:
    """The limits of the symbols that only a run tells; where an op has none, one that a demand of the graph implies."""
    late, found = graph.limits.keys(), Limits(graph.limits)
    for name, limit in graph.limits.items():
        found[name] = demanded_limit(name, graph.equal_dims, late) if limit is None else limit
    return found


def limits_of(program: Program, limits: Limits[Size | None]) -> Limits[Size]:
    """The symbols that steps bind, and what they are at most in terms of the others. Raises Problems for those that
    nothing bounds."""
    found: Limits[Size] = Limits()
    problems: list[CompileError] = []
    bound = {name for step in program.walk() for name in _names_bound(step) if name in limits}
    for name in sorted(bound):
        try:
            found[name] = greatest(symbol(name), limits)
        except Undecided:
            problems.append(_unlimited(name, program))
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
    for group, limit in limits.products.items():
        own = group.intersection(found)
        try:
            if len(own) > 1:
                found.products[own] = greatest(limit, limits)
        except Undecided:
            continue  # each symbol has a limit of its own, and the product that of their product
    return found


def _names_bound(step: Step) -> list[str]:
    if isinstance(step, Repeat):
        return [step.step]
    pairs = step.pairs if isinstance(step, Bind) else ()
    return [name for name in (symbol_of(size) for size, _ in pairs) if name is not None]


def _unlimited(name: str, program: Program) -> UnsupportedError:
    """The error for a size that only a run tells and that has no limit."""
    step = next(s for s in program.walk() if name in _names_bound(s))
    node = NodeRef(step.sources[0], "", "sesame") if step.sources else None
    message = f"the size '{name}' is known only when the model runs, and nothing bounds it"
    needs = inputs_behind(program, name)
    other = f"; or make constants of what it follows from: input {', '.join(needs)}" if needs else ""
    error = UnsupportedError("E0411", message, node=node, help=f"give it a bound: --dim {name}=0..1000{other}")
    error.needs = needs
    return error


__all__ = ["limits_known", "limits_of"]
