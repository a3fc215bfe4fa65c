"""The builder that importers of operators are written with: it knows the node they work for, and its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from compiler.errors import NodeRef
from compiler.onnx.conditions import Knowledge
from ir.build import Builder
from ir.demand import resolve
from ir.dims import Size, decide_eq, symbol_of
from ir.graph import Graph, Value
from ir.types import Type

if TYPE_CHECKING:
    from compiler.onnx.importer import Scope


class Failed(Exception):
    """A value depends on a node whose error is already recorded."""


class OnnxBuilder(Builder):
    """The builder that operator functions get: a Builder that also knows the node it works for."""

    def __init__(self, scope: Scope, node: onnx.NodeProto, ref: NodeRef, opset: int) -> None:
        super().__init__(scope.graph, sources=(ref.name,))
        self.scope = scope
        self.opset = opset
        self.ref = ref
        self.output_names = list(node.output)

    def is_output_used(self, position: int) -> bool:
        """Whether the node names its output number `position`."""
        return position < len(self.output_names) and bool(self.output_names[position])

    def value_of(self, name: str) -> Value:
        """The value that the model calls `name`, which an earlier node made. Raises ModelError where there is none."""
        value = self.scope.lookup(name)
        if value is None:
            raise Failed
        return value

    def unique_label(self) -> str:
        """Where the node stands, as a text that no other node of this import gets."""
        where = f"{self.ref.path}/{self.ref.name}"
        count = self.scope.importer.labels
        count[where] += 1
        return where if count[where] == 1 else f"{where}#{count[where]}"

    def run_time_size(self, axis: int, output: int = 0, *, is_bounded: bool = True) -> Size:
        """The size of an axis of an output that only a run tells: a symbol with a name of its own.

        Where nothing in the op bounds the size, it is the one that the model declares, if it does: a run checks that.
        """
        name = self.output_names[output] if self.is_output_used(output) else f"{self.ref.name}.{output}"
        size = self.scope.run_time_size(name, axis, is_bounded)
        if (own := symbol_of(size)) is not None:
            self.graph.limits.setdefault(own, None)
        return size

    def declared_size(self, axis: int, output: int = 0) -> int | None:
        """The size of an axis of an output as a number, where the model declares one."""
        name = self.output_names[output] if self.is_output_used(output) else ""
        dims = self.scope.declared.get(name, ())
        is_number = axis < len(dims) and dims[axis].HasField("dim_value")
        return int(dims[axis].dim_value) if is_number else None

    def remember_teller(self, size: Size, value: Value) -> None:
        """Notes that a size is the number in `value`: what is refused because of the size asks for that."""
        name = symbol_of(size)
        if name is not None:
            self.scope.importer.tellers[name] = value

    def run_time_number(self, what: str) -> Size:
        """A size that only a run tells and that is not one of an output's axes: `what` says what it is."""
        name = self.output_names[0] if self.is_output_used(0) else self.ref.name
        return self.scope.importer.run_time_size(f"{self.scope.path}/{name}_{what}".lstrip("/"))

    def subgraph(
        self, proto: onnx.GraphProto, types: Sequence[Type], name: str, known: Knowledge | None = None
    ) -> tuple[Graph, list[Value]]:
        """A nested graph as a closed Graph, whose inputs are `types` and then what it captures; the captured values.

        `known` holds wherever the nested graph runs.
        """
        return self.scope.close(proto, types, name, self.ref, known or Knowledge())

    def inline(self, proto: onnx.GraphProto, arguments: Sequence[Value] = ()) -> list[Value]:
        """The nodes of a nested graph inserted here; its outputs."""
        return self.scope.inline(proto, arguments, self.ref)

    def is_equal(self, a: Size, b: Size) -> bool | None:
        """Whether two sizes are equal, given their bounds and what is demanded or known to be equal here; None where
        that depends."""
        pairs = self.scope.equalities()
        return decide_eq(resolve(a, pairs), resolve(b, pairs))

    def declared_rank(self, position: int = 0) -> int | None:
        """The rank that the model declares for output number `position` of the node, if it does."""
        name = self.output_names[position] if self.is_output_used(position) else ""
        return len(self.scope.declared[name]) if name in self.scope.declared else None
