"""strings: values of type string become cells of bytes, for targets that have no strings (see `ir.cells`).

What an op becomes is its `on_cells`. An input string[N] becomes u8[N,NAME_bytes], where the new size is a dim of the
model like any other; widths of results follow from those of the operands.
"""

from __future__ import annotations

import dataclasses

from compiler.errors import CompileError, Problems
from compiler.passes.legalize import ReportedError, expand, refusal
from compiler.pipeline import graph_pass
from ir import cells
from ir import types as t
from ir.build import Builder
from ir.dims import Size, decide_le, maximum, names, symbol
from ir.fresh import FreshSizes
from ir.graph import Graph, Node, Value
from ir.op import OpError
from ir.ops.control import If_, Loop
from ir.ops.movement import wider
from ir.rewrite import nested_graphs, take_place
from ir.types import TensorType, Type

_ATTEMPTS = 3
"""How often the body of a loop is made again with wider cells for what it carries, to see whether they are enough."""


@graph_pass
def strings(graph: Graph) -> None:
    """Makes cells of all strings. Raises Problems with the reasons for ops that have no form on cells."""
    refused: list[CompileError] = []
    fresh = FreshSizes(graph)
    holds = {f"input {v.name}" for v in graph.inputs if _is_string(v.type)}
    holds |= {f"output {n}" for n, v in zip(graph.output_names, graph.outputs) if _is_string(v.type)}
    widths = {value: fresh(f"{value.name}_bytes") for value in graph.inputs if _is_string(value.type)}
    _Rewriting(graph, refused).run(widths)
    if refused:
        raise Problems(refused)
    graph.kinds.update({port: ["strings"] for port in sorted(holds)})


def _is_string(type_: Type) -> bool:
    return isinstance(type_, TensorType) and type_.dtype == t.string


def _makes_strings(node: Node) -> bool:
    """Whether a result of the node, or a value inside of it, is a string."""
    inner = (_makes_strings(each) for graph in nested_graphs(node) for each in graph.nodes())
    return any(_is_string(v.type) for v in node.outputs) or any(inner)


class _Rewriting:
    """One graph on its way from strings to cells."""

    def __init__(self, graph: Graph, refused: list[CompileError]) -> None:
        self.graph = graph
        self.refused = refused
        self.cells: set[Value] = set()

    def run(self, widths: dict[Value, Size]) -> None:
        """Rewrites the graph; `widths` are those of its inputs that are strings."""
        self._expand_composites()
        for value, width in widths.items():
            value.type = TensorType(t.u8, (*value.shape, width))
            self.cells.add(value)
        for node in list(self.graph.nodes()):
            if not any(v in self.cells for v in node.inputs) and not _makes_strings(node):
                continue
            try:
                self._node(node)
            except ReportedError:
                self._give_up(node)
            except (OpError, ValueError) as error:
                self.refused.append(refusal(node, str(error)))
                self._give_up(node)

    def _expand_composites(self) -> None:
        """Puts other ops in the place of composites of strings, which know nothing of cells."""
        pending = list(self.graph.nodes())[::-1]
        while pending:
            node = pending.pop()
            touches = _makes_strings(node) or any(v is not None and _is_string(v.type) for v in node.inputs)
            if touches and type(node.op).has("expand") and not type(node.op).has("on_cells"):
                pending.extend(reversed(expand(self.graph, node)))

    def _give_up(self, node: Node) -> None:
        """Puts something of the right type in the place of an op that is refused, to find further problems."""
        for old in list(node.outputs):
            if _is_string(old.type):
                zeros = Builder(self.graph, node, node.sources).full(shape=(*old.shape, 1), value=0, dtype=t.u8)
                self._put(old, zeros)

    def _node(self, node: Node) -> None:
        """Puts in the place of a node what it is on cells."""
        b = Builder(self.graph, node, node.sources)
        if node.op.name == "const":
            blob = node.output.blob
            assert blob is not None
            made = b.const(cells.encode(blob.array()))
        elif nested_graphs(node):
            made = self._control(b, node)
        elif type(node.op).has("on_cells"):
            with b:
                made = node.op.on_cells(b, *node.inputs)
        else:
            raise OpError(f"{node.op.name} of strings has no form without strings: only the interpreter runs it")
        for old, new in zip(list(node.outputs), made if isinstance(made, tuple) else (made,), strict=True):
            self._put(old, new)
        if node.graph is self.graph:
            self.graph.remove(node)

    def _put(self, old: Value, new: Value) -> None:
        """Makes users of `old` use `new`, which has its name and, but for cells, its type."""
        is_string = _is_string(old.type)
        shape = new.shape[:-1] if is_string else new.shape
        if len(shape) != old.rank or (not is_string and new.dtype != old.dtype):
            raise OpError(f"%{old.name} is {old.type}, and on cells {new.type}: on_cells is wrong")
        take_place(self.graph, old, new)
        if is_string:
            self.cells.add(new)

    def _control(self, b: Builder, node: Node) -> tuple[Value, ...]:
        match node.op:
            case If_():
                return self._branches(b, node, node.op)
            case Loop():
                return self._steps(b, node, node.op)
        raise OpError(f"{node.op.name} of strings has no form without strings: only the interpreter runs it")

    def _branches(self, b: Builder, node: Node, op: If_) -> tuple[Value, ...]:
        """An `if_` of cells: results of both branches are as wide as the wider one."""
        captures = node.inputs[1:]
        bodies = [op.then.clone(), op.orelse.clone()]
        for body in bodies:
            given, captures = captures[: len(body.inputs)], captures[len(body.inputs) :]
            widths = {v: g.shape[-1] for v, g in zip(body.inputs, given) if g is not None and _is_string(v.type)}
            _Rewriting(body, self.refused).run(widths)
        for position, old in enumerate(node.outputs):
            if _is_string(old.type):
                results = [body.outputs[position] for body in bodies]
                width = maximum(results[0].shape[-1], results[1].shape[-1])
                for body in bodies:
                    _widen_output(body, position, width)
        made = b.apply(dataclasses.replace(op, then=bodies[0], orelse=bodies[1]), *node.inputs)
        return made if isinstance(made, tuple) else (made,)

    def _steps(self, b: Builder, node: Node, op: Loop) -> tuple[Value, ...]:
        """A loop of cells: what is carried is as wide as it gets, or of a width of its own where it keeps growing."""
        prefix = f"{op.label}.in."
        operands = list(node.inputs)
        widths = {i: _width(v) for i, v in enumerate(operands) if i >= 2 and _is_string(op.body.inputs[i].type)}
        carried = [i for i in widths if i < 2 + op.carried]
        grows: set[int] = set()
        attempt = 0
        while True:
            body, refused = op.body.clone(), list[CompileError]()
            _Rewriting(body, refused).run({body.inputs[i]: width for i, width in widths.items()})
            after = {i: _width(body.outputs[i - 1]) for i in carried if i not in grows}
            wide = [i for i in after if not decide_le(after[i], widths[i])]
            if not wide or refused:
                break
            attempt += 1
            for i in wide:
                if attempt <= _ATTEMPTS and not any(name.startswith(prefix) for name in names(after[i])):
                    widths[i] = maximum(widths[i], after[i])
                else:
                    grows.add(i)
                    widths[i] = symbol(f"{prefix}{i - 2}.bytes")
        if refused:
            self.refused.extend(refused)
            raise ReportedError
        for i in after:
            _widen_output(body, i - 1, widths[i])
            operands[i] = wider(b, operands[i], widths[i])
        for old, value in zip(op.body.outputs[1 + op.carried :], body.outputs[1 + op.carried :]):
            if _is_string(old.type) and any(name.startswith(prefix) for name in names(_width(value))):
                raise OpError("strings that a loop stacks must have one width; these grow from step to step")
        made = b.apply(dataclasses.replace(op, body=body), *operands)
        return made if isinstance(made, tuple) else (made,)


def _width(value: Value | None) -> Size:
    assert value is not None
    return value.shape[-1]


def _widen_output(body: Graph, position: int, width: Size) -> None:
    """Pads an output of a nested graph to `width`."""
    body.outputs[position] = wider(Builder(body), body.outputs[position], width)


__all__ = ["strings"]
