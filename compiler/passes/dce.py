"""dce: removes ops whose results nobody uses. Inputs of the graph stay: they are its signature."""

from __future__ import annotations

from compiler.pipeline import graph_pass
from ir.dims import Dim, names, symbol_of
from ir.graph import Graph, Node
from ir.op import Op
from ir.rewrite import for_each_graph
from ir.types import names_in


@graph_pass
def dce(graph: Graph) -> None:
    """Removes ops whose results nobody uses."""
    for_each_graph(graph, remove_unused)


def remove_unused(graph: Graph) -> None:
    """Removes unused nodes of one graph, users before producers. What tells a size that others need is used."""
    outputs = set(graph.outputs)
    late = graph.limits.keys()
    needed = {name for value in graph.outputs for name in names_in(value.type) & late}
    for node in graph.nodes_reversed():
        told = {name for value in node.outputs for name in names_in(value.type) & late} if late else set()
        defined = node.op.sizes_defined()
        told |= {name for size in defined for name in names(size)} & late
        is_used = any(value.users or value in outputs for value in node.outputs)
        is_check = node.op.name == "told" and symbol_of(defined[0]) not in late
        if not is_used and not is_check and not _introduced(node, told) & needed:
            graph.remove(node)
        elif late:
            needed |= told | _needed_by(node.op) & late


def _introduced(node: Node, told: set[str]) -> set[str]:
    """The sizes that only a run tells and that no operand of a node has."""
    return told - {name for v in node.inputs if v is not None for name in names_in(v.type)} if told else told


def _needed_by(op: Op) -> set[str]:
    """The symbols in the attributes of an op, nested graphs included."""
    found: set[str] = set()
    pending: list[object] = list(vars(op).values())
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Dim):
            found |= names(value)
        elif isinstance(value, Graph):
            for node in value.nodes():
                pending.extend(vars(node.op).values())
                found.update(name for v in node.outputs for name in names_in(v.type))
    return found
