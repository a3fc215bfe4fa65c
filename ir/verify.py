"""What must hold of a graph, a kernel or a program at all times; passes are checked by it, not trusted.

All problems are found and reported together. This module only reads, and must not depend on how anything was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ir.demand import resolve
from ir.dims import Size, bounded, decide_eq
from ir.graph import Graph, Node, Value
from ir.kernel import Kernel
from ir.op import assumptions
from ir.program import Program
from ir.types import MapType, OptionalType, SequenceType, TensorType, Type

_SHOWN = 20

Bounds = Mapping[str, tuple[int, int | None]]
Pairs = Sequence[tuple[Size, Size]]


class VerifyError(Exception):
    """A graph, kernel or program breaks a rule of its IR. `problems` has one sentence for each."""

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        super().__init__("\n  ".join([f"{what}:", *problems[:_SHOWN], *more]))
        self.problems = list(problems)


def verify_graph(graph: Graph) -> None:
    """Checks order, use lists, names, types against the ops' own type rules, outputs, and nested graphs.

    Raises VerifyError.
    """
    problems = list(_graph_problems(graph))
    if problems:
        raise VerifyError(f"graph {graph.name}", problems)


def verify_kernel(kernel: Kernel) -> None:
    """Checks names, scopes, ranks, element types, assignments, and indices that provably leave their buffer.

    Raises VerifyError.
    """
    from ir.kernel_verify import kernel_problems

    problems = list(kernel_problems(kernel))
    if problems:
        raise VerifyError(f"kernel {kernel.name}", problems)


def verify_program(program: Program) -> None:
    """Checks every kernel, calls against parameters, views, and the memory plan over the lifetimes of buffers.

    Raises VerifyError.
    """
    from ir.program_verify import program_problems

    problems = list(program_problems(program))
    if problems:
        raise VerifyError(f"program {program.name}", problems)


# Types that mean the same under what is known of the sizes.


def types_agree(graph: Graph, a: Type, b: Type) -> bool:
    """Whether two types are equal, given the bounds of the graph's dims and the dims it assumes to be equal."""
    if a == b:
        return True
    match a, b:
        case TensorType(), TensorType():
            return a.dtype == b.dtype and shapes_agree(a.shape, b.shape, graph.bounds, graph.equal_dims)
        case (SequenceType(), SequenceType()) | (OptionalType(), OptionalType()):
            return types_agree(graph, a.element, b.element)
        case MapType(), MapType():
            return a.key == b.key and types_agree(graph, a.value, b.value)
        case _:
            return False


def shapes_agree(a: Sequence[Size], b: Sequence[Size], bounds: Bounds, equal_dims: Pairs) -> bool:
    """Whether two shapes are equal wherever the bounds and equalities hold."""
    return len(a) == len(b) and all(sizes_agree(x, y, bounds, equal_dims) for x, y in zip(a, b))


def sizes_agree(a: Size, b: Size, bounds: Bounds, equal_dims: Pairs) -> bool:
    """Whether two sizes are equal wherever the bounds and equalities hold."""
    if a == b or any(a - b in (left - right, right - left) for left, right in equal_dims):
        return True
    with bounded(bounds):
        return decide_eq(resolve(a, equal_dims), resolve(b, equal_dims)) is True


# Graphs.


def _graph_problems(graph: Graph) -> Iterator[str]:
    yield from _structure_problems(graph)
    defined: set[Value] = set(graph.inputs)
    uses: Counter[tuple[Value, Node]] = Counter()
    for node in graph.nodes():
        sound = True
        for value in node.inputs:
            if value is None:
                continue
            uses[value, node] += 1
            if value.graph is not graph:
                yield f"{_show(node)}: operand %{value.name} belongs to another graph"
            elif value not in defined:
                yield f"{_show(node)}: operand %{value.name} is used before it is defined"
            else:
                continue
            sound = False
        defined.update(node.outputs)
        if sound:
            yield from _type_problems(graph, node)
        yield from _nested_problems(node)
    yield from _use_problems(defined, uses)
    for value, name in zip(graph.outputs, graph.output_names):
        if value not in defined:
            yield f"output {name!r} is %{value.name}, which nothing in the graph defines"


def _structure_problems(graph: Graph) -> Iterator[str]:
    """The list of nodes, the names of values, and the number of outputs."""
    previous: Node | None = None
    count = 0
    for node in graph.nodes():
        if node.graph is not graph or node.previous is not previous:
            yield f"{_show(node)}: the list of nodes is broken here"
        for position, value in enumerate(node.outputs):
            if value.node is not node or value.index != position or value.graph is not graph:
                yield f"{_show(node)}: %{value.name} does not know that it is result {position} of this node"
        previous = node
        count += 1
    if count != len(graph):
        yield f"the graph counts {len(graph)} nodes and has {count}"
    given = Counter(value.name for value in _values(graph))
    yield from (f"the name %{name} is given to {n} values" for name, n in given.items() if n > 1)
    if len(graph.outputs) != len(graph.output_names):
        yield f"{len(graph.outputs)} outputs have {len(graph.output_names)} names"
    outer = Counter(graph.output_names)
    yield from (f"{n} outputs are called {name!r}" for name, n in outer.items() if n > 1)


def _values(graph: Graph) -> Iterable[Value]:
    yield from graph.inputs
    for node in graph.nodes():
        yield from node.outputs


def _type_problems(graph: Graph, node: Node) -> Iterator[str]:
    """Where the types of a node's results are not what its type rule gives."""
    try:
        with bounded(graph.bounds), assumptions():
            inferred = node.op.infer(*(None if value is None else value.type for value in node.inputs))
    except Exception as error:
        yield f"{_show(node)}: the type rule refuses: {error}"
        return
    types = inferred if isinstance(inferred, tuple) else (inferred,)
    if len(types) != len(node.outputs):
        yield f"{_show(node)}: {len(node.outputs)} results, the type rule gives {len(types)}"
        return
    for value, type_ in zip(node.outputs, types):
        if not types_agree(graph, value.type, type_):
            yield f"{_show(node)}: %{value.name} is {value.type}, the type rule gives {type_}"


def _use_problems(defined: Iterable[Value], uses: Counter[tuple[Value, Node]]) -> Iterator[str]:
    expected: dict[Value, dict[Node, int]] = {}
    for (value, node), count in uses.items():
        expected.setdefault(value, {})[node] = count
    for value in sorted(defined, key=lambda v: v.name):
        if value.users != expected.get(value, {}):
            listed = ", ".join(repr(node) for node in value.users) or "nothing"
            actual = ", ".join(repr(node) for node in expected.get(value, {})) or "nothing"
            yield f"%{value.name} lists as users: {listed}; it is used by: {actual}"


def _nested_problems(node: Node) -> Iterator[str]:
    pending = list(vars(node.op).items())
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, Graph):
            yield from (f"{_show(node)}: in its {name}: {problem}" for problem in _graph_problems(value))
        elif isinstance(value, tuple):
            pending[:0] = [(name, item) for item in value]


def _show(node: Node) -> str:
    return repr(node) + (f" (from {', '.join(node.sources)})" if node.sources else "")


__all__ = [
    "VerifyError", "resolve", "shapes_agree", "sizes_agree", "types_agree", "verify_graph", "verify_kernel",
    "verify_program",
]  # fmt: skip
