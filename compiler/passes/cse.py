"""cse: equal ops on equal operands become one. Constants are equal by the key of their bytes; random ops never are."""

from __future__ import annotations

import dataclasses
from typing import Any

from compiler.pipeline import graph_pass
from ir.graph import Graph, Node
from ir.op import Op
from ir.pattern import COMMUTATIVE
from ir.rewrite import for_each_graph
from ir.types import TensorType


@graph_pass
def cse(graph: Graph) -> None:
    """Merges equal ops on equal operands."""
    for_each_graph(graph, merge_equal)


def merge_equal(graph: Graph) -> None:
    """Merges equal nodes of one graph into the first of them."""
    constants = _Constants()
    first: dict[Any, Node] = {}
    for node in graph.nodes():
        if not node.op.pure or holds_graph(node.op):
            continue
        known = constants.first(node) if node.op.name == "const" else first.setdefault(_key(node), node)
        if known is not node and _is_same(known, node):
            for old, new in zip(list(node.outputs), known.outputs):
                graph.replace(old, new)
            if node.graph is graph:
                graph.remove(node)


class _Constants:
    """The first constant of given bytes. Bytes are hashed only where another has the same type."""

    def __init__(self) -> None:
        self.only: dict[TensorType, Node] = {}
        self.by_key: dict[tuple[TensorType, str], Node] = {}
        self.hashed: set[TensorType] = set()

    def first(self, node: Node) -> Node:
        type_ = node.output.tensor
        other = self.only.setdefault(type_, node)
        if other is node:
            return node
        if type_ not in self.hashed:
            self.hashed.add(type_)
            self.by_key[type_, _blob_key(other)] = other
        return self.by_key.setdefault((type_, _blob_key(node)), node)


def _blob_key(node: Node) -> str:
    blob = node.output.blob
    assert blob is not None
    return blob.key


def _key(node: Node) -> Any:
    operands = [0 if v is None else id(v) for v in node.inputs]
    if node.op.name in COMMUTATIVE:
        operands.sort()
    return (node.op, *operands)


def _is_same(a: Node, b: Node) -> bool:
    """Whether two nodes of one key mean the same: 0.0 and -0.0 are one key, and sizes that data decide may differ."""
    same_types = [v.type for v in a.outputs] == [v.type for v in b.outputs]
    return same_types and (a.op is b.op or a.op.name == "const" or repr(a.op.attributes()) == repr(b.op.attributes()))


def holds_graph(op: Op) -> bool:
    """Whether an op has a nested graph."""
    return any(isinstance(getattr(op, field.name), Graph) for field in dataclasses.fields(op))  # type: ignore[arg-type]
