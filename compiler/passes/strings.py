"""strings: values of type string become cells of bytes, for targets that have no strings (see `ir.cells`).

What an op becomes is its `on_cells`. An input string[N] becomes u8[N,NAME_bytes], where the new size is a dim of the
model like any other; widths of results follow from those of the operands.
"""

from __future__ import annotations

import dataclasses

from compiler.errors import CompileError, Problems
from compiler.passes.legalize import expand, refusal
from compiler.pipeline import graph_pass
from ir import cells
from ir import types as t
from ir.build import Builder
from ir.dims import Size, maximum, names, symbol
from ir.graph import Graph, Node, Value
from ir.op import Op, OpError
from ir.ops.control import Loop, Scan
from ir.ops.movement import wider
from ir.types import TensorType, Type


@graph_pass
def strings(graph: Graph) -> None:
    """Makes cells of all strings. Raises Problems with the reasons for ops that have no form on cells."""
    refused: list[CompileError] = []
    taken = _sizes_in(graph)
    holds = {f"input {v.name}" for v in graph.inputs if _is_string(v.type)}
    holds |= {f"output {n}" for n, v in zip(graph.output_names, graph.outputs) if _is_string(v.type)}
    widths = {value: _fresh(f"{value.name}_bytes", taken) for value in graph.inputs if _is_string(value.type)}
    _Rewriting(graph, refused).run(widths)
    if refused:
        raise Problems(refused)
    graph.strings = frozenset(holds) | graph.strings


def _is_string(type_: Type) -> bool:
    return isinstance(type_, TensorType) and type_.dtype == t.string


def _makes_strings(node: Node) -> bool:
    """Whether a result of the node, or a value inside of it, is a string."""
    graphs = [value for value in node.op.attributes().values() if isinstance(value, Graph)]
    inner = (_makes_strings(each) for graph in graphs for each in graph.nodes())
    return any(_is_string(v.type) for v in node.outputs) or any(inner)


def _sizes_in(graph: Graph) -> set[str]:
    values = [*graph.inputs, *(value for node in graph.nodes() for value in node.outputs)]
    return {n for v in values if isinstance(v.type, TensorType) for size in v.shape for n in names(size)}


def _fresh(hint: str, taken: set[str]) -> Size:
    name, count = hint, 1
    while name in taken:
        count += 1
        name = f"{hint}{count}"
    taken.add(name)
    return symbol(name)


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
            except (OpError, ValueError) as error:
                self.refused.append(refusal(node, str(error)))
                self._give_up(node)

    def _expand_composites(self) -> None:
        """Puts other ops in the place of composites of strings, which know nothing of cells."""
        pending = list(self.graph.nodes())[::-1]
        while pending:
            node = pending.pop()
            touches = any(v is not None and _is_string(v.type) for v in (*node.inputs, *node.outputs))
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
        elif any(isinstance(value, Graph) for value in node.op.attributes().values()):
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
        is_string, name = _is_string(old.type), old.name
        shape = new.shape[:-1] if is_string else new.shape
        if len(shape) != old.rank or (not is_string and new.dtype != old.dtype):
            raise OpError(f"%{name} is {old.type}, and on cells {new.type}: on_cells is wrong")
        self.graph.replace(old, new)
        if is_string:
            self.cells.add(new)
        if new.node is not None and old.node is not None and new.name.isdigit():
            self.graph.rename(new, name)

    def _control(self, b: Builder, node: Node) -> tuple[Value, ...]:
        if isinstance(node.op, Scan):
            raise OpError("scan of strings is a loop first")
        return self._loop(b, node) if isinstance(node.op, Loop) else self._branches(b, node)

    def _loop(self, b: Builder, node: Node) -> tuple[Value, ...]:
        """A loop of cells: those that it carries have a width that changes from step to step."""
        op_ = node.op
        assert isinstance(op_, Loop)
        body = op_.body.clone()
        widths: dict[Value, Size] = {}
        for position, (value, given) in enumerate(zip(body.inputs, node.inputs)):
            if _is_string(value.type) and given is not None:
                carried = position < 2 + op_.carried
                widths[value] = symbol(f"{op_.label}.in.{position - 2}.bytes") if carried else given.shape[-1]
        _Rewriting(body, self.refused).run(widths)
        made = b.apply(dataclasses.replace(op_, body=body), *node.inputs)
        return made if isinstance(made, tuple) else (made,)

    def _branches(self, b: Builder, node: Node) -> tuple[Value, ...]:
        """An `if_` of cells: results of both branches are as wide as the wider one."""
        op, captures = node.op, node.inputs[1:]
        bodies = [op.then.clone(), op.orelse.clone()]  # type: ignore[attr-defined]
        for body in bodies:
            given, captures = captures[: len(body.inputs)], captures[len(body.inputs) :]
            widths = {v: g.shape[-1] for v, g in zip(body.inputs, given) if g is not None and _is_string(v.type)}
            _Rewriting(body, self.refused).run(widths)
        for position, old in enumerate(node.outputs):
            if _is_string(old.type):
                results = [body.outputs[position] for body in bodies]
                width = maximum(results[0].shape[-1], results[1].shape[-1])
                for body, result in zip(bodies, results):
                    body.outputs[position] = wider(Builder(body, None, node.sources), result, width)
        made = b.apply(_with_graphs(op, then=bodies[0], orelse=bodies[1]), *node.inputs)
        return made if isinstance(made, tuple) else (made,)


def _with_graphs(op: Op, **graphs: Graph) -> Op:
    return dataclasses.replace(op, **graphs)  # type: ignore[type-var]


__all__ = ["strings"]
