"""dce: removes ops whose results nobody uses. Inputs of the graph stay: they are its signature."""

from __future__ import annotations

from compiler.pipeline import graph_pass
from ir.dims import Dim, names, symbol_of
from ir.graph import Graph, Node
from ir.op import Op
from ir.rewrite import for_each_graph
from ir.types import TensorType, Type


@graph_pass
def dce(graph: Graph) -> None:
    """Removes ops whose results nobody uses."""
    for_each_graph(graph, remove_unused)


def remove_unused(graph: Graph) -> None:
    """Removes unused nodes of one graph, users before producers. What tells a size that others need is used."""
    outputs = set(graph.outputs)
    needed = {name for value in graph.outputs for name in _told(graph, value.type)}
    for node in graph.nodes_reversed():
        told = {name for value in node.outputs for name in _told(graph, value.type)} if graph.limits else set()
        defined = node.op.sizes_defined()
        told |= {name for size in defined for name in names(size)} & graph.limits.keys()
        is_used = any(value.users or value in outputs for value in node.outputs)
        is_check = node.op.name == "told" and symbol_of(defined[0]) not in graph.limits
        if not is_used and not is_check and not _introduced(graph, node, told) & needed:
            graph.remove(node)
        elif graph.limits:
            needed |= told | _told_in(graph, node.op)


def _introduced(graph: Graph, node: Node, told: set[str]) -> set[str]:
    """The sizes that only a run tells and that no operand of a node has."""
    return told - {name for v in node.inputs if v is not None for name in _told(graph, v.type)} if told else told


def _told(graph: Graph, type_: Type) -> set[str]:
    """The symbols in a type whose values only a run tells."""
    if isinstance(type_, TensorType):
        return {name for size in type_.shape for name in names(size)} & graph.limits.keys()
    inner = getattr(type_, "element", None)
    return set() if inner is None else _told(graph, inner)


def _told_in(graph: Graph, op: Op) -> set[str]:
    """The symbols in the attributes of an op, nested graphs included, whose values only a run tells."""
    found: set[str] = set()
    pending: list[object] = list(vars(op).values())
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Dim):
            found |= names(value) & graph.limits.keys()
        elif isinstance(value, Graph):
            for node in value.nodes():
                pending.extend(vars(node.op).values())
                found.update(name for v in node.outputs for name in _told(graph, v.type))
    return found
