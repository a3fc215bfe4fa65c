"""The graph IR: tensor ops in SSA form, mutable, with use lists, because names, sources and users matter per node.

Nodes stand in a linked list that is a topological order at all times. Nested graphs (attributes of control flow and of
fused groups) are closed: they see only their own inputs. Types are inferred when a node is made, never by a later pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.blob import Blob
from ir.dims import Limits, Size
from ir.op import Op, OpError
from ir.types import TensorType, Type

if TYPE_CHECKING:
    from ir.build import Builder


class Value:
    """The result of a node, or an input of the graph."""

    __slots__ = ("_content", "graph", "index", "name", "node", "type", "users")

    def __init__(self, graph: Graph, name: str, type_: Type, node: Node | None, index: int) -> None:
        self.graph = graph
        self.name = name
        self.type = type_
        self.node = node
        self.index = index
        self.users: dict[Node, int] = {}
        self._content: np.ndarray | None = None

    @property
    def tensor(self) -> TensorType:
        """The type, which must be a tensor's."""
        if not isinstance(self.type, TensorType):
            raise OpError(f"%{self.name} is {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.tensor.shape

    @property
    def dtype(self):
        return self.tensor.dtype

    @property
    def rank(self) -> int:
        return len(self.tensor.shape)

    @property
    def content(self) -> np.ndarray | None:
        """The value itself where it is known and small: an array, of dtype object where it holds symbolic dims."""
        return self._content

    @property
    def blob(self) -> Blob | None:
        """The bytes of a constant, else None."""
        return getattr(self.node.op, "blob", None) if self.node is not None and self.node.op.name == "const" else None

    def is_used(self) -> bool:
        return bool(self.users) or self in self.graph.outputs

    def __add__(self, other: Any) -> Value:
        return self.graph.builder.add(self, other)

    def __radd__(self, other: Any) -> Value:
        return self.graph.builder.add(other, self)

    def __sub__(self, other: Any) -> Value:
        return self.graph.builder.sub(self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.graph.builder.sub(other, self)

    def __mul__(self, other: Any) -> Value:
        return self.graph.builder.mul(self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.graph.builder.mul(other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.graph.builder.div(self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.graph.builder.div(other, self)

    def __neg__(self) -> Value:
        return self.graph.builder.neg(self)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """One op applied to values. `sources` are the names of the ONNX nodes it came from, through every rewrite."""

    __slots__ = ("graph", "inputs", "next", "op", "outputs", "previous", "sources")

    def __init__(self, graph: Graph, op: Op, inputs: Sequence[Value | None], sources: tuple[str, ...]) -> None:
        self.graph: Graph | None = graph
        self.op = op
        self.inputs: list[Value | None] = list(inputs)
        self.outputs: list[Value] = []
        self.sources = sources
        self.previous: Node | None = None
        self.next: Node | None = None

    @property
    def output(self) -> Value:
        """The only output."""
        if len(self.outputs) != 1:
            raise ValueError(f"{self.op.name} has {len(self.outputs)} outputs")
        return self.outputs[0]

    def set_input(self, position: int, value: Value | None) -> None:
        """Replaces one operand, keeping the use lists right."""
        old = self.inputs[position]
        if old is value:
            return
        self.inputs[position] = value
        if old is not None:
            _drop_use(old, self)
        if value is not None:
            value.users[self] = value.users.get(self, 0) + 1

    def __repr__(self) -> str:
        outs = ", ".join(f"%{v.name}" for v in self.outputs)
        ins = ", ".join("_" if v is None else f"%{v.name}" for v in self.inputs)
        return f"{outs} = {self.op.name} {ins}"


def _drop_use(value: Value, node: Node) -> None:
    count = value.users[node] - 1
    if count:
        value.users[node] = count
    else:
        del value.users[node]


class Graph:
    """A function of tensors: inputs, nodes in order, outputs.

    `bounds` narrows symbolic dims to (least, greatest or None). `equal_dims` are pairs of sizes that the graph assumes
    to be equal because an op demands it; emitted code checks them when it is called. `demanded_by` names an ONNX node
    that does, for the error. `limits` are the symbols whose values only a run tells, each with a size that it does not
    exceed (None: nothing bounds it); nested graphs and clones share it. `kinds` are what inputs and outputs
    are to callers where passes have put other tensors in their place (`ir.kinds`).
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.output_names: list[str] = []
        self.bounds: dict[str, tuple[int, int | None]] = {}
        self.equal_dims: list[tuple[Size, Size]] = []
        self.demanded_by: dict[tuple[Size, Size], str] = {}
        self.kinds: dict[str, list[Any]] = {}
        self.limits: Limits[Size | None] = Limits()
        self._first: Node | None = None
        self._last: Node | None = None
        self._count = 0
        self._names: set[str] = set()
        self._next_number = 0
        self._builders: list[Builder] = []

    @property
    def builder(self) -> Builder:
        """The builder in use (the innermost `with builder:`), else one that appends."""
        if not self._builders:
            from ir.build import Builder

            return Builder(self)
        return self._builders[-1]

    def add_input(self, name: str, type_: Type) -> Value:
        value = Value(self, self.fresh_name(name), type_, None, len(self.inputs))
        self.inputs.append(value)
        return value

    def set_outputs(self, values: Iterable[Value], names: Iterable[str] | None = None) -> None:
        """Declares the outputs; `names` are what callers see (default: the values' own names)."""
        self.outputs = list(values)
        self.output_names = list(names) if names is not None else [v.name for v in self.outputs]

    def fresh_name(self, hint: str | None = None) -> str:
        """A name not yet used in the graph: the hint itself where it is free, a number where there is none."""
        if hint is None:
            while str(self._next_number) in self._names:
                self._next_number += 1
            name = str(self._next_number)
        else:
            name, count = hint, 0
            while name in self._names:
                count += 1
                name = f"{hint}.{count}"
        self._names.add(name)
        return name

    def rename(self, value: Value, name: str) -> None:
        """Gives a value another name; a number is added where the name is taken."""
        self._names.discard(value.name)
        value.name = self.fresh_name(name)

    def nodes(self, op_name: str | None = None) -> Iterator[Node]:
        """Nodes in order, optionally those of one op. The current node may be removed while iterating."""
        node = self._first
        while node is not None:
            following = node.next
            if op_name is None or node.op.name == op_name:
                yield node
            node = following if node.graph is None else node.next

    def nodes_reversed(self) -> Iterator[Node]:
        """Nodes from the last to the first. The current node may be removed while iterating."""
        node = self._last
        while node is not None:
            before = node.previous
            yield node
            node = before if node.graph is None else node.previous

    def __len__(self) -> int:
        return self._count

    def insert(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        types: Sequence[Type],
        *,
        names: Sequence[str | None] = (),
        sources: tuple[str, ...] = (),
        before: Node | None = None,
    ) -> Node:
        """Makes a node of known output types, before `before` or at the end. Use a Builder unless types are given."""
        node = Node(self, op, inputs, sources)
        for value in inputs:
            if value is not None:
                if value.graph is not self:
                    raise OpError(f"{op.name}: operand %{value.name} belongs to another graph")
                value.users[node] = value.users.get(node, 0) + 1
        for i, type_ in enumerate(types):
            hint = names[i] if i < len(names) else None
            node.outputs.append(Value(self, self.fresh_name(hint), type_, node, i))
        self._link(node, before)
        return node

    def _link(self, node: Node, before: Node | None) -> None:
        node.next = before
        node.previous = self._last if before is None else before.previous
        if node.previous is None:
            self._first = node
        else:
            node.previous.next = node
        if before is None:
            self._last = node
        else:
            before.previous = node
        self._count += 1

    def _unlink(self, node: Node) -> None:
        if node.previous is None:
            self._first = node.next
        else:
            node.previous.next = node.next
        if node.next is None:
            self._last = node.previous
        else:
            node.next.previous = node.previous
        self._count -= 1

    def move_before(self, node: Node, anchor: Node) -> None:
        """Moves a node in the order; the caller keeps the order topological."""
        self._unlink(node)
        self._link(node, anchor)

    def remove(self, node: Node) -> None:
        """Removes a node whose results are not used. Raises ValueError where they are."""
        for value in node.outputs:
            if value.users or value in self.outputs:
                raise ValueError(f"cannot remove {node!r}: %{value.name} is used")
        for value in node.inputs:
            if value is not None:
                _drop_use(value, node)
        self._unlink(node)
        node.graph = None
        node.inputs = []
        for value in node.outputs:
            self._names.discard(value.name)

    def replace(self, old: Value, new: Value) -> None:
        """Makes every user of `old` use `new`; removes the node of `old` when none of its results is used then."""
        if old is new:
            return
        if old.node is not None and new.node is not None and old.node is not new.node:
            merged = dict.fromkeys((*new.node.sources, *old.node.sources))
            new.node.sources = tuple(merged)
        for user in list(old.users):
            for position, value in enumerate(user.inputs):
                if value is old:
                    user.set_input(position, new)
        self.outputs = [new if value is old else value for value in self.outputs]
        node = old.node
        if node is not None and node.graph is self and not any(v.is_used() for v in node.outputs):
            self.remove(node)

    def clone(self) -> Graph:
        """An independent copy with the same names; nested graphs and blobs are shared (they do not change in place)."""
        copy = Graph(self.name)
        copy.bounds, copy.equal_dims = dict(self.bounds), list(self.equal_dims)
        copy.demanded_by, copy.limits, copy.kinds = dict(self.demanded_by), self.limits, dict(self.kinds)
        mapped: dict[Value, Value] = {}
        for value in self.inputs:
            mapped[value] = copy.add_input(value.name, value.type)
        for node in self.nodes():
            new = copy.insert(
                node.op, [None if v is None else mapped[v] for v in node.inputs], [v.type for v in node.outputs],
                names=[v.name for v in node.outputs], sources=node.sources,
            )  # fmt: skip
            for old_value, new_value in zip(node.outputs, new.outputs):
                mapped[old_value] = new_value
                new_value._content = old_value._content
        copy.set_outputs([mapped[v] for v in self.outputs], self.output_names)
        return copy

    def __str__(self) -> str:
        from ir.text import graph_text

        return graph_text(self)
