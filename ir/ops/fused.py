"""A fused group: several ops that become one kernel, because the intermediate values need no memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ir.element import Tensor, computed_tensor, const
from ir.evaluate import evaluate_graph
from ir.expr import Expr
from ir.graph import Graph, Value
from ir.op import Op, op
from ir.types import TensorType, Type


@op
class Fused(Op):
    """The one output of `body`, a closed graph of element ops and one-element constants."""

    body: Graph

    def infer(self, *operands: Type) -> Any:
        return self.body.outputs[0].type

    def reference(self, *arrays: Any) -> Any:
        return evaluate_graph(self.body, arrays)[0]

    def element(self, i: tuple[Expr, ...], *tensors: Tensor) -> Expr:
        return compose(self.body, tensors).at(*i)


def compose(body: Graph, tensors: tuple[Tensor, ...]) -> Tensor:
    """The output of `body` as a tensor computed from `tensors`, by composing the element rules of its nodes."""
    known: dict[Value, Tensor] = dict(zip(body.inputs, tensors))
    for node in body.nodes():
        known[node.output] = tensor_of(node.output, [None if v is None else known[v] for v in node.inputs])
    return known[body.outputs[0]]


def tensor_of(value: Value, operands: list[Tensor | None]) -> Tensor:
    """The output of a node in a fused group as a tensor, computed by its element rule from `operands`."""
    assert value.node is not None
    op_ = value.node.op
    type_: TensorType = value.tensor
    if value.blob is not None:
        literal = literal_of(value)
        return computed_tensor(type_, lambda index: literal)
    return computed_tensor(type_, lambda index: op_.element(index, *operands))


def structure_of(op_: Op) -> Hashable:
    """What an op is, apart from the names of values: equal for fused groups that compute the same."""
    if not isinstance(op_, Fused):
        return op_
    number: dict[Value, int] = {value: n for n, value in enumerate(op_.body.inputs)}
    parts: list[Hashable] = [tuple(value.type for value in op_.body.inputs)]
    for node in op_.body.nodes():
        for value in node.outputs:
            number[value] = len(number)
        what: Hashable = repr(literal_of(node.output)) if node.output.blob is not None else node.op
        parts.append((what, tuple(None if v is None else number[v] for v in node.inputs), node.output.type))
    return tuple(parts)


def literal_of(value: Value) -> Expr:
    """A one-element constant as a literal."""
    content = value.content
    assert content is not None and content.size == 1
    element = content.reshape(-1)[0]
    return const(element.item() if hasattr(element, "item") else element, value.dtype)
