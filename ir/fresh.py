"""Symbols for sizes that passes add to a graph: each is called what it is for, unless the graph has such a size."""

from __future__ import annotations

from collections.abc import Iterator

from ir.dims import Size, symbol
from ir.element import Names
from ir.graph import Graph
from ir.rewrite import nested_graphs
from ir.types import names_in


class FreshSizes:
    """Called with a name, gives a symbol of that name, or of that name and a number where it is taken."""

    def __init__(self, graph: Graph) -> None:
        self._names = Names(tuple(size_names(graph)))

    def __call__(self, hint: str) -> Size:
        return symbol(self._names.fresh(hint))


def size_names(graph: Graph) -> Iterator[str]:
    """The names of the sizes in a graph and in those nested in it; some come more than once."""
    yield from (*graph.bounds, *graph.limits)
    for value in graph.inputs:
        yield from names_in(value.type)
    for node in graph.nodes():
        for value in node.outputs:
            yield from names_in(value.type)
        for inner in nested_graphs(node):
            yield from size_names(inner)


__all__ = ["FreshSizes", "size_names"]
