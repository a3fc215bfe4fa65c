"""dce: removes ops whose results nobody uses. Inputs of the graph stay: they are its signature."""

from __future__ import annotations

from compiler.pipeline import graph_pass
from ir.graph import Graph
from ir.rewrite import for_each_graph


@graph_pass
def dce(graph: Graph) -> None:
    """Removes ops whose results nobody uses."""
    for_each_graph(graph, remove_unused)


def remove_unused(graph: Graph) -> None:
    """Removes unused nodes of one graph, users before producers."""
    outputs = set(graph.outputs)
    for node in graph.nodes_reversed():
        if not any(value.users or value in outputs for value in node.outputs):
            graph.remove(node)
