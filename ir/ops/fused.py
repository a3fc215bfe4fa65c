"""A fused group: several ops that become one kernel, because the intermediate values need no memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ir.element import KernelBuilder, Output, Tensor, computed_tensor, const
from ir.evaluate import evaluate_graph
from ir.expr import Expr
from ir.graph import Graph, Node, Value
from ir.kernel import Stmt, Store, map_stmts
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


@op
class FusedKernel(Op):
    """The one output of `body`, a closed graph in which one op has a kernel that stores each element once, and element
    ops follow from that element, at the same index."""

    body: Graph

    def infer(self, *operands: Type) -> Any:
        return self.body.outputs[0].type

    def reference(self, *arrays: Any) -> Any:
        return evaluate_graph(self.body, arrays)[0]

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], *tensors: Tensor) -> None:
        (out,) = outs
        core = core_of(self.body)
        known: dict[Value, Tensor] = dict(zip(self.body.inputs, tensors))
        inner = KernelBuilder(k.names)
        operands = [None if v is None else known.get(v) or tensor_of(v, []) for v in core.inputs]
        core.op.kernel(inner, (Output(out.name, core.output.tensor),), *operands)

        def finished(stmt: Stmt) -> Stmt:
            if not isinstance(stmt, Store) or stmt.buffer != out.name:
                return stmt
            known[core.output] = computed_tensor(core.output.tensor, lambda index: stmt.value)
            return Store(out.name, stmt.index, compose(self.body, tensors, known).at(*stmt.index))

        for stmt in map_stmts(inner.body, finished):
            k._add(stmt)


def core_of(body: Graph) -> Node:
    """The node of a fused group that has a kernel."""
    return next(node for node in body.nodes() if type(node.op).has("kernel"))


def compose(body: Graph, tensors: tuple[Tensor, ...], given: Mapping[Value, Tensor] | None = None) -> Tensor:
    """The output of `body` as a tensor computed from `tensors`, by composing the element rules of its nodes but for the
    results that are `given`."""
    known: dict[Value, Tensor] = {**dict(zip(body.inputs, tensors)), **(given or {})}
    for node in body.nodes():
        if node.output not in known:
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
    if not isinstance(op_, (Fused, FusedKernel)):
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
