"""What sizes that only a run tells are at most: memory is planned for that much.

Used by `lower`. A size that nothing bounds is refused, with the inputs that it follows from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from compiler.errors import NodeRef, Problems, UnsupportedError
from ir.demand import Pair, demanded_limit
from ir.dims import Limits, Size, Undecided, greatest, names, symbol, symbol_of
from ir.graph import Graph
from ir.program import Bind, Branch, Program, Repeat, Step
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
    unlimited: dict[str, None] = {}
    bound = {name for step in program.walk() for name in _names_bound(step) if name in limits}
    for name in sorted(bound):
        try:
            found[name] = greatest(symbol(name), limits)
        except Undecided:
            unlimited |= dict.fromkeys(_roots(name, limits) or [name])
    if unlimited:
        problems = [_unlimited(name, program) for name in unlimited]
        raise problems[0] if len(problems) == 1 else Problems(problems)
    for group, limit in limits.products.items():
        own = group.intersection(found)
        try:
            if len(own) > 1:
                found.products[own] = greatest(limit, limits)
        except Undecided:
            continue  # each symbol has a limit of its own, and the product that of their product
    return found


def forget_unbound(program: Program, late: Collection[str]) -> None:
    """Drops what is demanded of sizes that no step tells any more, since nothing needs what had them."""
    unbound = set(late) - {name for step in program.walk() for name in _names_bound(step)}

    def left(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        return tuple(pair for pair in pairs if not (names(pair[0]) | names(pair[1])) & unbound)

    def changed(step: Step) -> Step:
        match step:
            case Branch():
                arms = {"then": tuple(map(changed, step.then)), "orelse": tuple(map(changed, step.orelse))}
                return replace(step, **arms, equal_then=left(step.equal_then), equal_orelse=left(step.equal_orelse))
            case Repeat():
                return replace(step, body=tuple(map(changed, step.body)), equal=left(step.equal))
            case _:
                return step

    program.equal_dims = list(left(program.equal_dims))
    program.steps = list(map(changed, program.steps))


def _roots(name: str, limits: Mapping[str, Size | None]) -> list[str]:
    """The symbols without a limit for whose lack `name` has none. What a loop carries is limited by its steps."""
    found: list[str] = []
    pending, seen = [name], set()
    while pending:
        name = pending.pop()
        if name in seen or name not in limits:
            continue
        seen.add(name)
        limit = limits[name]
        steps = next((n for n in limits if n.endswith(".steps") and name.startswith(n.removesuffix("steps"))), name)
        if limit is not None:
            pending += sorted(names(limit))
        else:
            found.append(steps if limits[steps] is None else name)
    return list(dict.fromkeys(found))


def _names_bound(step: Step) -> list[str]:
    if isinstance(step, Repeat):
        return [step.step]
    pairs = step.pairs if isinstance(step, Bind) else ()
    return [name for name in (symbol_of(size) for size, _ in pairs) if name is not None]


def _unlimited(name: str, program: Program) -> UnsupportedError:
    """The error for a size that only a run tells and that has no limit."""
    loop = name.removesuffix("steps") if name.endswith(".steps") else None  # whose steps may be no size of anything
    tellers = [s for s in program.walk() if any(n == name or (loop and n.startswith(loop)) for n in _names_bound(s))]
    step = next(iter(tellers), None)
    node = NodeRef(step.sources[0], "", "sesame") if step is not None and step.sources else None
    message = f"the size '{name}' is known only when the model runs, and nothing bounds it"
    needs = inputs_behind(program, {name, *(teller.step for teller in tellers if isinstance(teller, Repeat))})
    other = f"; or make constants of what it follows from: input {', '.join(needs)}" if needs else ""
    error = UnsupportedError("E0411", message, node=node, help=f"give it a bound: --dim {name}=0..1000{other}")
    error.needs = needs
    return error


__all__ = ["forget_unbound", "limits_known", "limits_of"]
