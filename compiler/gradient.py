"""Reverse-mode differentiation of a graph: from a value back to those it depends on, one rule for each op.

The forward computation is found in the graph itself. Where the values differentiated by are given other values, it is
inserted again with them; composites without a rule are taken apart. An op that neither has a rule nor is made of others
is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compiler.gradient_rules import CONSTANT, RULES
from ir.build import Builder
from ir.graph import Node, Value
from ir.op import OpError
from ir.types import TensorType


def gradients(b: Builder, y: Value, given: Mapping[Value, Value], xs: Sequence[Value]) -> list[Value]:
    """d sum(y) / dx for each of `xs`, all of which are keys of `given`.

    `given` says which values are independent, and the values that they have here: themselves, where nothing else is
    meant. Raises OpError for values that are not floats, and for ops that cannot be differentiated.
    """
    for value in (y, *xs):
        if not (isinstance(value.type, TensorType) and value.dtype.is_float):
            raise OpError(f"%{value.name} is {value.type}; only floats have derivatives")
    tape = _Tape(b, given, xs)
    for node in _between(y, given):
        tape.add(node)
    result = tape.values.get(y, y)
    totals: dict[Value, Value] = {result: b.full(shape=y.shape, value=1.0, dtype=y.dtype)}
    for node in reversed(tape.nodes):
        _step_back(b, node, tape.varying, totals)
    zero = lambda x: b.full(shape=x.shape, value=0.0, dtype=x.dtype)  # noqa: E731
    return [totals[given[x]] if given[x] in totals else zero(x) for x in xs]


def _between(y: Value, stops: Iterable[Value]) -> list[Node]:
    """The nodes that y is computed by, in order, as far as the values `stops`."""
    ends, seen, stack = set(stops), set(), [y]
    while stack:
        value = stack.pop()
        if value in ends or value.node is None or value.node in seen:
            continue
        seen.add(value.node)
        stack.extend(v for v in value.node.inputs if v is not None)
    return [node for node in y.graph.nodes() if node in seen]


class _Tape:
    """The forward computation: nodes with rules, in order, and the values that vary with those differentiated by."""

    def __init__(self, b: Builder, given: Mapping[Value, Value], xs: Sequence[Value]) -> None:
        self.b = b
        self.values = dict(given)
        self.varying = {given[x] for x in xs}
        self.nodes: list[Node] = []

    def add(self, node: Node) -> None:
        """Takes a node over, with the values that its operands have here."""
        operands = [None if v is None else self.values.get(v, v) for v in node.inputs]
        is_same = all(a is b for a, b in zip(operands, node.inputs))
        varies = any(v in self.varying for v in operands)
        if varies and node.op.name not in RULES and node.op.name not in CONSTANT:
            self.take_apart(node, operands)
            return
        if not is_same:
            made = self.b.apply(node.op, *operands)
            outputs = made if isinstance(made, tuple) else (made,)
            self.values.update(zip(node.outputs, outputs))
            made_by = outputs[0].node
            assert made_by is not None
            node = made_by
        if varies and node.op.name in RULES:
            self.nodes.append(node)
            self.varying.update(node.outputs)

    def take_apart(self, node: Node, operands: Sequence[Value | None]) -> None:
        """Adds the nodes that a composite is made of."""
        if not type(node.op).has("expand"):
            raise OpError(f"{node.op.name} has no derivative here")
        graph = self.b.graph
        last = next(graph.nodes_reversed())
        made: Any = node.op.expand(self.b, *operands)
        inserted = []
        for each in graph.nodes_reversed():
            if each is last:
                break
            inserted.append(each)
        for each in reversed(inserted):
            self.add(each)
        outputs: tuple[Value, ...] = made if isinstance(made, tuple) else (made,)
        for old, new in zip(node.outputs, outputs):
            self.values[old] = self.values.get(new, new)


def _step_back(b: Builder, node: Node, varying: set[Value], totals: dict[Value, Value]) -> None:
    """Adds to the derivatives by a node's operands what its outputs contribute."""
    grads = [totals.get(v) for v in node.outputs]
    if all(g is None for g in grads):
        return
    by_operand: Sequence[Any] = RULES[node.op.name](b, node, grads)
    for value, grad in zip(node.inputs, by_operand):
        if value is not None and value in varying and grad is not None:
            totals[value] = b.add(totals[value], grad) if value in totals else grad


__all__ = ["gradients"]
