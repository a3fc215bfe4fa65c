"""sequences: sequences and optionals become tensors, for targets that have neither (see `ir.parts`).

What an op becomes is its `on_parts`. An input or output of the model that is a sequence becomes several, whose names
begin with its own; loops and branches carry the tensors that make a sequence up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from compiler.errors import CompileError, Problems
from compiler.passes.legalize import expand, refusal
from compiler.pipeline import graph_pass
from ir.build import Builder
from ir.dims import Size, symbol
from ir.graph import Graph, Node, Value
from ir.kinds import kind_of, tensor_names
from ir.op import OpError
from ir.ops.control import Loop
from ir.ops.sequence import fitted
from ir.parts import Form, Items, Maybe, form_of, leaf_types, leaves
from ir.types import TensorType, Type


@graph_pass
def sequences(graph: Graph) -> None:
    """Makes tensors of all sequences and optionals. Raises Problems with the reasons for ops that cannot be on them."""
    if not _has_composites(graph):
        return
    refused: list[CompileError] = []
    kinds: dict[str, list[object]] = {}
    work = _Rewriting(graph, refused, {})
    try:
        for value in list(graph.inputs):
            if not isinstance(value.type, TensorType):
                kinds[f"input {value.name}"] = kind_of(value.type)
        for name, value in zip(graph.output_names, graph.outputs):
            if not isinstance(value.type, TensorType):
                kinds[f"output {name}"] = kind_of(value.type)
    except TypeError as error:
        raise Problems([refusal(next(graph.nodes()), str(error))]) from error
    work.inputs([v.name for v in graph.inputs], of_callers=True)
    work.run()
    if refused:
        raise Problems(refused)
    names = list(graph.output_names)
    work.outputs(names)
    graph.kinds.update(kinds)


def _is_composite(type_: Type) -> bool:
    return not isinstance(type_, TensorType)


def _has_composites(graph: Graph) -> bool:
    """Whether a value of the graph, or of a graph nested in it, is no tensor."""
    values = [*graph.inputs, *(value for node in graph.nodes() for value in node.outputs)]
    nested = (g for node in graph.nodes() for g in _nested(node))
    return any(_is_composite(value.type) for value in values) or any(map(_has_composites, nested))


def _nested(node: Node) -> list[Graph]:
    return [value for value in vars(node.op).values() if isinstance(value, Graph)]


class _Rewriting:
    """One graph on its way. `forms` are the values that are no tensors, and what stands for them; `most` says of the
    counts of sequences what they are at most."""

    def __init__(self, graph: Graph, refused: list[CompileError], most: dict[Value, Size]) -> None:
        self.graph = graph
        self.refused = refused
        self.forms: dict[Value, Form] = {}
        self.most = most
        self.types: dict[Value, Type] = {}
        self.done: list[Node] = []

    def inputs(self, labels: Sequence[str], *, of_callers: bool = False) -> list[int]:
        """Puts the tensors of each input in its place; how many there are of each. The number of elements of a sequence
        that a caller gives is a dim, so it needs no tensor."""
        given, counts = list(self.graph.inputs), []
        self.graph.inputs = []
        for value, label in zip(given, labels):
            if not _is_composite(value.type):
                value.index = len(self.graph.inputs)
                self.graph.inputs.append(value)
                counts.append(1)
                continue
            self.graph.rename(value, f"{value.name}.whole")
            made: list[Value] = []
            for name, type_ in leaf_types(value.type, label):
                if of_callers and name.endswith(".count"):
                    first = next(self.graph.nodes(), None)
                    made.append(Builder(self.graph, first).dims(symbol(f"{label}_items"), name=name))
                else:
                    made.append(self.graph.add_input(name, type_))
            counts.append(len(made))
            self.note(value, form_of(value.type, iter(made)))
        return counts

    def outputs(self, labels: Sequence[str]) -> None:
        """Puts the tensors of each output in its place, and removes the nodes that others stand for."""
        values, names = [], []
        for value, label in zip(self.graph.outputs, labels):
            form = self.forms.get(value, value)
            values += leaves(form)
            type_ = self.types.get(value, value.type)
            names += tensor_names(kind_of(type_), label) if value in self.forms else [label]
        self.graph.set_outputs(values, names)
        for node in reversed(self.done):
            if node.graph is self.graph and not any(value.is_used() for value in node.outputs):
                self.graph.remove(node)

    def note(self, value: Value, form: Form) -> None:
        """Remembers what stands for a value."""
        self.forms[value] = form
        inner = form
        while isinstance(inner, Maybe):
            inner = inner.value
        if isinstance(inner, Items):
            self.most[inner.count] = inner.most

    def run(self) -> None:
        """Rewrites every node that has to do with what is no tensor."""
        pending = list(self.graph.nodes())[::-1]
        while pending:
            node = pending.pop()
            touches = any(v in self.forms for v in node.inputs) or any(_is_composite(v.type) for v in node.outputs)
            if not touches and not any(map(_has_composites, _nested(node))):
                continue
            try:
                pending.extend(reversed(self.node(node)))
            except (OpError, ValueError, TypeError) as error:
                self.refused.append(refusal(node, str(error)))
                return
            self.done.append(node)

    def node(self, node: Node) -> list[Node]:
        """Rewrites one node; gives nodes that are to be rewritten in its place."""
        b = Builder(self.graph, node, node.sources)
        operands = [None if v is None else self.forms.get(v, v) for v in node.inputs]
        if node.op.name == "if_":
            made = self.branch(b, node, operands)
        elif isinstance(node.op, Loop):
            made = self.loop(b, node, operands)
        elif type(node.op).has("on_parts"):
            with b:
                made = node.op.on_parts(b, *operands)
        elif type(node.op).has("expand"):
            return expand(self.graph, node)
        elif node.op.name == "identity":
            made = operands[0]
        else:
            raise OpError(f"{node.op.name} of sequences has no form without sequences: only the interpreter runs it")
        forms = list(made) if isinstance(made, tuple) else [made]
        for old, form in zip(node.outputs, forms, strict=True):
            if _is_composite(old.type):
                self.note(old, form)
            else:
                assert isinstance(form, Value)
                self.replace(old, form)
        return []

    def replace(self, old: Value, new: Value) -> None:
        """Makes users of a tensor use another, which has its name."""
        name = old.name
        self.graph.replace(old, new)
        if new.node is not None and new.name.isdigit():
            self.graph.rename(new, name)

    def branch(self, b: Builder, node: Node, operands: list[Form]) -> tuple[Form, ...]:
        """An `if_` whose results are the tensors of what it gave."""
        condition, *captures = operands
        bodies, given = [], []
        for body in (node.op.then, node.op.orelse):  # type: ignore[attr-defined]
            own, captures = captures[: len(body.inputs)], captures[len(body.inputs) :]
            bodies.append(self.body(body, own))
            given += [leaf for form in own for leaf in leaves(form)]
        names = _result_names(node, len(node.outputs))
        op_ = dataclasses.replace(node.op, then=bodies[0], orelse=bodies[1], results=names)  # type: ignore[type-var]
        made = b.apply(op_, condition, *given)
        return self.results(node, iter(made if isinstance(made, tuple) else (made,)))

    def loop(self, b: Builder, node: Node, operands: list[Form]) -> tuple[Form, ...]:
        """A loop that carries the tensors of what it carried, of sizes that change from step to step."""
        op_ = node.op
        assert isinstance(op_, Loop)
        trip, condition, *values = operands
        carried, captures = values[: op_.carried], values[op_.carried :]
        carried = [fitted(b, form, v.type) for form, v in zip(carried, op_.body.inputs[2:])]
        labels = [f"{op_.label}.in.{i}.parts" for i in range(op_.carried)]
        types = [op_.body.outputs[0].type, *(v.type for v in op_.body.inputs[2 : 2 + op_.carried])]
        body = self.body(op_.body, [None, None, *([None] * op_.carried), *captures], ["", "", *labels], types)
        limit = op_.limit if op_.limit is not None else self.graph.limits.get(op_.total)
        if op_.steps is None and limit is None and isinstance(trip, Value):
            limit = self.most.get(_origin(trip))
        states = [leaf for form in carried for leaf in leaves(form)]
        given = [leaf for form in captures for leaf in leaves(form)]
        names = _result_names(node, op_.carried)
        new = dataclasses.replace(op_, body=body, carried=len(states), limit=limit, results=names)
        made = b.apply(new, trip, condition, *states, *given)
        return self.results(node, iter(made if isinstance(made, tuple) else (made,)))

    def body(
        self, graph: Graph, given: Sequence[Form | None], labels: Sequence[str] = (), results: Sequence[Type] = ()
    ) -> Graph:
        """A nested graph rewritten. `given` are the forms of inputs that are captured, whose tensors give the types of
        those in the graph; `labels` what sizes of other inputs are called after; `results` the types that outputs must
        have, where these are not their own."""
        body = graph.clone()
        inner = _Rewriting(body, self.refused, self.most)
        types = [v.type for v in body.inputs]
        names = [labels[i] if i < len(labels) and labels[i] else v.name for i, v in enumerate(body.inputs)]
        counts = inner.inputs(names)
        leaves_left = list(body.inputs)
        for form, type_, count in zip(given, types, counts):
            own, leaves_left = leaves_left[:count], leaves_left[count:]
            if form is not None and _is_composite(type_):
                for leaf, outer in zip(own, leaves(form)):
                    leaf.type = outer.type
        inner.run()
        for position, value in enumerate(graph.outputs):
            type_ = results[position] if position < len(results) else value.type
            if _is_composite(type_):
                own_value = body.outputs[position]
                form = inner.forms.get(own_value, own_value)
                inner.forms[own_value] = fitted(Builder(body, None), form, type_)
                inner.types[own_value] = type_
        inner.outputs(body.output_names)
        return body

    def results(self, node: Node, made: Iterator[Value]) -> tuple[Form, ...]:
        return tuple(form_of(value.type, made) for value in node.outputs)


def _result_names(node: Node, count: int) -> tuple[str, ...]:
    """What the sizes of the first `count` results are called after, once each is the tensors of what it was: those of
    tensors keep their names."""
    names: list[str] = []
    for i, value in enumerate(node.outputs[:count]):
        label = f"{node.op.label}.{i}"  # type: ignore[attr-defined]
        parts_ = [name for name, _ in leaf_types(value.type, f"{label}.parts")]
        names += parts_ if _is_composite(value.type) else [label]
    return tuple(names)


def _origin(value: Value) -> Value:
    """The value that a number was before it was reshaped or cast."""
    while value.node is not None and value.node.op.name in ("reshape", "cast"):
        source = value.node.inputs[0]
        assert source is not None
        value = source
    return value


__all__ = ["sequences"]
