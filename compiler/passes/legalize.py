"""legalize: expands composite ops that a backend does not run as they are, until it accepts every op.

What cannot be expanded is refused with the backend's own sentence; all refusals of a model are reported together.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.errors import CompileError, NodeRef, Problems, UnsupportedError
from compiler.pipeline import graph_pass
from ir.build import Builder
from ir.dims import bounded
from ir.graph import Graph, Node
from ir.op import OpError
from ir.rewrite import map_nested
from ir.types import Type
from ir.verify import types_agree


def is_primitive(node: Node) -> bool | str:
    """What `legalize` accepts when no backend is asked: every op that is not made of others."""
    return True if not type(node.op).has("expand") else f"{node.op.name} is made of other ops"


def is_any_type(_: Type) -> bool | str:
    """What `legalize` takes for inputs and outputs when no backend is asked: values of every type."""
    return True


@graph_pass
def legalize(
    graph: Graph,
    *,
    accepts: Callable[[Node], bool | str] = is_primitive,
    carries: Callable[[Type], bool | str] = is_any_type,
) -> None:
    """Expands ops until `accepts` gives True for each, and asks `carries` of the types of inputs and outputs.

    Raises Problems with the reasons for what is refused.
    """
    refused: list[CompileError] = []
    _legalize(graph, accepts, refused)
    ports = [*((v.name, v) for v in graph.inputs), *zip(graph.output_names, graph.outputs)]
    for name, value in ports if not refused else ():
        verdict = carries(value.type)
        if verdict is not True:
            refused.append(UnsupportedError("E0410", f"'{name}' is {value.type}; {verdict}"))
    if refused:
        raise Problems(refused)


def _legalize(graph: Graph, accepts: Callable[[Node], bool | str], refused: list[CompileError]) -> None:
    with bounded(graph.bounds):
        _legalize_nodes(graph, accepts, refused)


def _legalize_nodes(graph: Graph, accepts: Callable[[Node], bool | str], refused: list[CompileError]) -> None:
    pending = list(graph.nodes())[::-1]
    while pending:
        node = pending.pop()
        if node.op.name == "const":
            continue
        verdict = accepts(node)
        if verdict is True:
            if node.op.structural:
                map_nested(node, lambda inner: _legalize(inner, accepts, refused))
            continue
        if type(node.op).has("expand"):
            pending.extend(reversed(expand(graph, node)))
        else:
            refused.append(refusal(node, verdict))


class ReportedError(Exception):
    """An op has no form that a pass makes of ops, for a reason that is among its refusals already."""


def refusal(node: Node, verdict: bool | str) -> UnsupportedError:
    """The error for a node that a target does not run, with the target's sentence where there is one."""
    reason = verdict if isinstance(verdict, str) else f"the target does not run {node.op.name}"
    ref = NodeRef(
        name=node.sources[0] if node.sources else node.outputs[0].name,
        op=node.op.name,
        domain="sesame",
        inputs=tuple("-" if v is None else f"%{v.name}: {v.type}" for v in node.inputs),
        outputs=tuple(f"%{v.name}: {v.type}" for v in node.outputs),
    )
    return UnsupportedError("E0410", reason, node=ref)


def expand(graph: Graph, node: Node) -> list[Node]:
    """Puts the ops that a composite is made of in its place; the new nodes, in order.

    Raises OpError where the expansion has other types than the op: then the op's declaration is wrong.
    """
    before = node.previous
    with Builder(graph, node, node.sources) as b:
        made = node.op.expand(b, *node.inputs)
    results = made if isinstance(made, tuple) else (made,)
    if len(results) != len(node.outputs) or not all(
        types_agree(graph, old.type, new.type) for old, new in zip(node.outputs, results)
    ):
        wanted, found = [str(v.type) for v in node.outputs], [str(v.type) for v in results]
        raise OpError(f"{node.op.name} expands to {', '.join(found)}; its type rule says {', '.join(wanted)}")
    new_nodes = [before.next if before is not None else next(graph.nodes())]
    while new_nodes[-1] is not node:
        assert new_nodes[-1] is not None
        new_nodes.append(new_nodes[-1].next)
    new_nodes.pop()
    inside = set(new_nodes)
    for old, new in zip(list(node.outputs), results):
        name = old.name
        graph.replace(old, new)
        if new.node in inside:
            new.type = old.type  # the same sizes, in the words of the users
            graph.rename(new, name)
    if node.graph is graph:
        graph.remove(node)
    return [n for n in new_nodes if n is not None and n.graph is graph]
