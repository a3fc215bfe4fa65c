"""sequences: sequences and optionals become tensors, for targets that have neither (see `ir.parts`).

What an op becomes is its `on_parts`. An input or output of the model that is a sequence becomes several, whose names
begin with its own; loops and branches carry the tensors that make a sequence up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from compiler.errors import CompileError, Problems, UnsupportedError
from compiler.passes.legalize import ReportedError, expand, refusal
from compiler.pipeline import graph_pass
from ir import types as t
from ir.build import Builder
from ir.dims import Size, names
from ir.fresh import FreshSizes
from ir.graph import Graph, Node, Value
from ir.kinds import kind_of
from ir.op import OpError
from ir.ops.control import Loop
from ir.ops.sequence import fitted
from ir.parts import Form, Items, Maybe, form_of, leaf_types, leaves
from ir.rewrite import nested_graphs, take_place
from ir.types import TensorType, Type


@graph_pass
def sequences(graph: Graph) -> None:
    """Makes tensors of all sequences and optionals. Raises Problems with the reasons for ops that cannot be on them and
    for inputs that have no form in tensors."""
    if not _has_composites(graph):
        return
    refused: list[CompileError] = []
    work = _Rewriting(graph, refused, {})
    work.inputs_of_callers()
    work.run()
    if refused:
        raise Problems(refused)
    work.outputs_to_callers()


def _is_composite(type_: Type) -> bool:
    return not isinstance(type_, TensorType)


def _has_composites(graph: Graph) -> bool:
    """Whether a value of the graph, or of a graph nested in it, is no tensor."""
    values = [*graph.inputs, *(value for node in graph.nodes() for value in node.outputs)]
    nested = (g for node in graph.nodes() for g in nested_graphs(node))
    return any(_is_composite(value.type) for value in values) or any(map(_has_composites, nested))


class _Rewriting:
    """One graph on its way. `forms` are the values that are no tensors, and what stands for them; `most` says of the
    counts of sequences what they are at most. `lost` are values that nothing can stand for, which is reported."""

    def __init__(self, graph: Graph, refused: list[CompileError], most: dict[Value, Size]) -> None:
        self.graph = graph
        self.refused = refused
        self.forms: dict[Value, Form] = {}
        self.lost: set[Value] = set()
        self.most = most
        self.types: dict[Value, Type] = {}
        self.done: list[Node] = []

    def inputs_of_callers(self) -> None:
        """Puts the tensors of each input of the model in its place, and notes their names. The number of elements of a
        sequence is a dim, so it needs no tensor."""
        given, fresh = list(self.graph.inputs), FreshSizes(self.graph)
        self.graph.inputs = []
        for value in given:
            if _is_composite(value.type):
                self.input_of_callers(value, fresh)
            else:
                self.keep(value)

    def input_of_callers(self, value: Value, fresh: FreshSizes) -> None:
        """Puts the tensors of an input of the model in its place, or notes why there are none."""
        label = value.name
        try:
            types = leaf_types(value.type, label, fresh, is_counted=False)
        except TypeError:
            reason = "which has no form in tensors: only the interpreter takes it"
            self.refused.append(UnsupportedError("E0410", f"input '{label}' is {value.type}, {reason}"))
            self.lost.add(value)
            return
        made = self.parts(value, types, partial(self.count_of_callers, f"{label}.count"))
        self.graph.kinds[f"input {label}"] = kind_of(value.type, [part.name for part in made])
        for name in {name for part in made for size in part.shape for name in names(size)}:
            self.graph.limits.pop(name, None)  # the shape of an input tells it

    def count_of_callers(self, name: str, size: Size) -> Value:
        """A dim as a tensor, before all other nodes."""
        return Builder(self.graph, next(self.graph.nodes(), None)).dims(size, name=name)

    def inputs(self, labels: Sequence[str]) -> list[int]:
        """Puts the tensors of each input of a nested graph in its place; how many there are of each."""
        given, counts = list(self.graph.inputs), []
        self.graph.inputs = []
        for value, label in zip(given, labels):
            if _is_composite(value.type):
                counts.append(len(self.parts(value, leaf_types(value.type, label))))
            else:
                self.keep(value)
                counts.append(1)
        return counts

    def keep(self, value: Value) -> None:
        """Puts an input after those that are there."""
        value.index = len(self.graph.inputs)
        self.graph.inputs.append(value)

    def parts(
        self, value: Value, types: list[tuple[str, TensorType]], count_of: Callable[[Size], Value] | None = None
    ) -> list[Value]:
        """Makes inputs of these types, which stand for an input."""
        self.graph.rename(value, f"{value.name}.whole")
        made = [self.graph.add_input(name, type_) for name, type_ in types]
        self.note(value, form_of(value.type, iter(made), count_of))
        return made

    def outputs_to_callers(self) -> None:
        """Puts the tensors of each output of the model in its place, and notes their names."""
        taken = set(self.graph.output_names)
        labels: list[list[str]] = []
        for label, value in zip(self.graph.output_names, self.graph.outputs):
            labels.append([label])
            if value in self.forms:
                labels[-1] = [_fresh_name(name, taken) for name, _ in leaf_types(value.type, label)]
                self.graph.kinds[f"output {label}"] = kind_of(value.type, labels[-1])
        self.outputs(labels)

    def outputs(self, names_: Sequence[Sequence[str]]) -> None:
        """Puts the tensors of each output, which get these names, in its place, and removes the nodes that others stand
        for."""
        values = [leaf for value in self.graph.outputs for leaf in leaves(self.forms.get(value, value))]
        self.graph.set_outputs(values, [name for own in names_ for name in own])
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
        """Rewrites every node that has to do with what is no tensor. Those that are refused give something to go on
        with."""
        pending = list(self.graph.nodes())[::-1]
        while pending:
            node = pending.pop()
            if any(v in self.lost for v in node.inputs):
                self.give_up(node)
                continue
            touches = any(v in self.forms for v in node.inputs) or any(_is_composite(v.type) for v in node.outputs)
            if not touches and not any(map(_has_composites, nested_graphs(node))):
                continue
            try:
                pending.extend(reversed(self.node(node)))
                self.done.append(node)
            except ReportedError:
                self.give_up(node)
            except (OpError, ValueError, TypeError) as error:
                self.refused.append(refusal(node, str(error)))
                self.give_up(node)

    def give_up(self, node: Node) -> None:
        """Puts something of the right type in the place of what a refused node gives, to find further problems."""
        b = Builder(self.graph, node, node.sources)
        for old in list(node.outputs):
            try:
                types = [type_ for _, type_ in leaf_types(old.type, old.name)]
            except TypeError:
                self.lost.add(old)
                continue
            made = [b.full(shape=type_.shape, value=_nothing(type_), dtype=type_.dtype) for type_ in types]
            if _is_composite(old.type):
                self.note(old, form_of(old.type, iter(made)))
            else:
                take_place(self.graph, old, made[0])

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
                take_place(self.graph, old, form)
        return []

    def branch(self, b: Builder, node: Node, operands: list[Form]) -> tuple[Form, ...]:
        """An `if_` whose results are the tensors of what it gave."""
        condition, *captures = operands
        bodies, given, known = [], [], len(self.refused)
        for body in (node.op.then, node.op.orelse):  # type: ignore[attr-defined]
            own, captures = captures[: len(body.inputs)], captures[len(body.inputs) :]
            bodies.append(self.body(body, own))
            given += [leaf for form in own for leaf in leaves(form)]
        self.raise_refused(known)
        labels = _result_names(node, len(node.outputs))
        op_ = dataclasses.replace(node.op, then=bodies[0], orelse=bodies[1], results=labels)  # type: ignore[type-var]
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
        known = len(self.refused)
        body = self.body(op_.body, [None, None, *([None] * op_.carried), *captures], ["", "", *labels], types)
        self.raise_refused(known)
        limit = op_.limit if op_.limit is not None else self.graph.limits.get(op_.total)
        if op_.steps is None and limit is None and isinstance(trip, Value):
            limit = self.most.get(_origin(trip))
        states = [leaf for form in carried for leaf in leaves(form)]
        given = [leaf for form in captures for leaf in leaves(form)]
        results = _result_names(node, op_.carried)
        new = dataclasses.replace(op_, body=body, carried=len(states), limit=limit, results=results)
        made = b.apply(new, trip, condition, *states, *given)
        return self.results(node, iter(made if isinstance(made, tuple) else (made,)))

    def body(
        self, graph: Graph, given: Sequence[Form | None], labels: Sequence[str] = (), results: Sequence[Type] = ()
    ) -> Graph:
        """A nested graph rewritten. `given` are the forms of inputs that are captured, whose tensors give the types of
        those in the graph; `labels` what sizes of other inputs are called after; `results` the types that outputs must
        have, where these are not their own. It is of no use where anything in it is refused."""
        body = graph.clone()
        inner = _Rewriting(body, self.refused, self.most)
        types = [v.type for v in body.inputs]
        counts = inner.inputs([(labels[i] if i < len(labels) else "") or v.name for i, v in enumerate(body.inputs)])
        leaves_left = list(body.inputs)
        for form, type_, count in zip(given, types, counts):
            own, leaves_left = leaves_left[:count], leaves_left[count:]
            if form is not None and _is_composite(type_):
                for leaf, outer in zip(own, leaves(form)):
                    leaf.type = outer.type
        known = len(self.refused)
        inner.run()
        if len(self.refused) > known:
            return body
        for position, value in enumerate(graph.outputs):
            type_ = results[position] if position < len(results) else value.type
            if _is_composite(type_):
                own_value = body.outputs[position]
                form = inner.forms.get(own_value, own_value)
                inner.forms[own_value] = fitted(Builder(body, None), form, type_)
                inner.types[own_value] = type_
        ended = [inner.types.get(value, value.type) for value in body.outputs]
        inner.outputs([[name for name, _ in leaf_types(*of)] for of in zip(ended, body.output_names)])
        return body

    def raise_refused(self, known: int) -> None:
        """Raises ReportedError where more is refused than was `known`."""
        if len(self.refused) > known:
            raise ReportedError

    def results(self, node: Node, made: Iterator[Value]) -> tuple[Form, ...]:
        return tuple(form_of(value.type, made) for value in node.outputs)


def _result_names(node: Node, count: int) -> tuple[str, ...]:
    """What the sizes of the first `count` results are called after, once each is the tensors of what it was: those of
    tensors keep their names."""
    labels: list[str] = []
    for i, value in enumerate(node.outputs[:count]):
        label = f"{node.op.label}.{i}"  # type: ignore[attr-defined]
        parts_ = [name for name, _ in leaf_types(value.type, f"{label}.parts")]
        labels += parts_ if _is_composite(value.type) else [label]
    return tuple(labels)


def _fresh_name(hint: str, taken: set[str]) -> str:
    """The hint, with a number where it is taken; it is then taken."""
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}.{count}"
    taken.add(name)
    return name


def _nothing(type_: TensorType) -> int | str:
    return "" if type_.dtype is t.string else 0


def _origin(value: Value) -> Value:
    """The value that a number was before it was reshaped or cast."""
    while value.node is not None and value.node.op.name in ("reshape", "cast"):
        source = value.node.inputs[0]
        assert source is not None
        value = source
    return value


__all__ = ["sequences"]
