"""Symbols for sizes that passes add to a graph: each is called what it is for, unless the graph has such a size."""

from __future__ import annotations

from collections.abc import Iterator

from ir.dims import Size, names, symbol
from ir.graph import Graph
from ir.rewrite import nested_graphs
from ir.types import OptionalType, SequenceType, TensorType, Type


class FreshSizes:
    """Called with a name, gives a symbol of that name, or of that name and a number where it is taken."""

    def __init__(self, graph: Graph) -> None:
        self._taken = set(size_names(graph))

    def __call__(self, hint: str) -> Size:
        name, count = hint, 1
        while name in self._taken:
            count += 1
            name = f"{hint}{count}"
        self._taken.add(name)
        return symbol(name)


def size_names(graph: Graph) -> Iterator[str]:
    """The names of the sizes in a graph and in those nested in it; some come more than once."""
    yield from (*graph.bounds, *graph.limits)
    for value in graph.inputs:
        yield from _in_type(value.type)
    for node in graph.nodes():
        for value in node.outputs:
            yield from _in_type(value.type)
        for inner in nested_graphs(node):
            yield from size_names(inner)


def _in_type(type_: Type) -> Iterator[str]:
    while isinstance(type_, (SequenceType, OptionalType)):
        type_ = type_.element
    if isinstance(type_, TensorType):
        for size in type_.shape:
            yield from names(size)


__all__ = ["FreshSizes", "size_names"]
