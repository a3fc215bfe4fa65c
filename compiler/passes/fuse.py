"""fuse: groups ops that can become one kernel.

A group has one output. It holds pointwise ops and movement composed into their users, and at most one reduction or
contraction, whose result is used at the very index it has (so that it is computed once): what follows it is its
epilogue, what precedes a reduction its prologue. Contractions read memory: nothing is composed into their operands.
Reductions are never computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from compiler.passes.narrow import reads_narrow
from compiler.pipeline import graph_pass
from ir import types as t
from ir.dims import Size, decide_le
from ir.element import Names, Tensor, naming
from ir.expr import Apply, Expr, Index, Load, Reduce, loop_var, walk
from ir.functions import COSTLY
from ir.graph import Graph, Node, Value
from ir.op import OPS, Op
from ir.ops.fused import tensor_of
from ir.rewrite import for_each_graph, remove_dead
from ir.types import TensorType

Kind = Literal["pointwise", "reduction", "contraction", "opaque"]
_MOST_NODES = 64
_MOST_OPERANDS = 12
_CHEAP = 6


@dataclass(frozen=True)
class Shape:
    """What an op's element rule looks like: its kind, and the arithmetic one element costs."""

    kind: Kind
    cost: int


def probe(node: Node) -> tuple[Expr, dict[int, set[tuple[Expr, ...]]]]:
    """The element rule of a node as an expression, and the indices at which it reads each operand (by position)."""
    reads: dict[int, set[tuple[Expr, ...]]] = {}

    def watched(position: int, type_: TensorType) -> Tensor:
        def load(index: tuple[Expr, ...], outside: Expr | None) -> Expr:
            reads.setdefault(position, set()).add(index)
            return Load(type_.dtype, f"b{position}", index, outside)

        return Tensor(type_, load)

    tensors = [None if v is None else watched(i, v.tensor) for i, v in enumerate(node.inputs)]
    index = index_of(node.output.tensor)
    with naming(Names([str(i.value) for i in index if isinstance(i, Index)])):
        return node.op.element(index, *tensors), reads


def has_element(node: Node) -> bool:
    """Whether a node is a tensor computed element by element from tensors."""
    if len(node.outputs) != 1 or not type(node.op).has("element") or not isinstance(node.output.type, TensorType):
        return False
    return all(v is None or isinstance(v.type, TensorType) for v in node.inputs)


def is_elementwise(node: Node) -> bool:
    """Whether each element depends on just those elements of the operands that NumPy broadcasting pairs with it."""
    if not has_element(node):
        return False
    _, reads = probe(node)
    index = index_of(node.output.tensor)
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        own = index[len(index) - value.rank :]
        paired = tuple(Index(t.i64, 0) if size == 1 else i for size, i in zip(value.shape, own))
        if value.rank > len(index) or reads.get(position, {paired}) != {paired}:
            return False
    return True


def shape_of(node: Node) -> Shape:
    """Looks at the element rule of a node."""
    if type(node.op).stores_once:
        return Shape("contraction", 0)
    if not has_element(node):
        return Shape("opaque", 0)
    expr, reads = probe(node)
    reduces = [e for e in walk(expr) if isinstance(e, Reduce)]
    if not reduces:
        cost = sum(8 if e.function in COSTLY else 1 for e in walk(expr) if isinstance(e, Apply) and e.dtype != t.i64)
        return Shape("pointwise", 0 if node.op.movement else cost)
    if len(reduces) > 1:
        return Shape("opaque", 0)
    domain: Size = node.output.tensor.elements
    for _, extent in reduces[0].axes:
        domain = domain * extent
    tensors_read = [v.tensor.elements for i, v in enumerate(node.inputs) if v is not None and i in reads]
    once = all(elements == domain for elements in tensors_read) and all(len(r) == 1 for r in reads.values())
    return Shape("reduction" if once else "contraction", 0)


def index_of(type_: TensorType) -> tuple[Expr, ...]:
    """Index variables for a tensor; an axis of size 1 has index 0."""
    return tuple(Index(t.i64, 0) if size == 1 else loop_var(f"i{axis}") for axis, size in enumerate(type_.shape))


@dataclass
class Group:
    """The nodes of a kernel to be: `root` gives the result. `copied` nodes stay in the graph for their other users.
    `read` are conversions of what a contraction reads: like that, they read memory."""

    root: Node
    members: dict[Node, None] = field(default_factory=dict)
    copied: set[Node] = field(default_factory=set)
    read: set[Node] = field(default_factory=set)
    core: Node | None = None


@graph_pass
def fuse(graph: Graph) -> None:
    """Replaces groups of more than one op by `fused` nodes, in nested graphs too."""
    for_each_graph(graph, fuse_graph)


def fuse_graph(graph: Graph) -> None:
    """Fuses the ops of one graph."""
    shapes = _shapes(graph)
    absorbed: set[Node] = set()
    groups: list[Group] = []
    for node in graph.nodes_reversed():
        if node in absorbed or shapes[node].kind == "opaque" or is_view(node):
            continue
        group = _grow(graph, node, shapes)
        absorbed |= set(group.members) - group.copied - {node}
        if len(group.members) > 1:
            groups.append(group)
    for group in groups:
        if group.root.graph is graph:  # a root that other groups copied may have no users left, and be gone
            _replace(graph, group)


def _shapes(graph: Graph) -> dict[Node, Shape]:
    """`shape_of` every node, looking once at nodes that differ only in names: networks repeat their layers.

    What gives sizes their values stays a step of its own.
    """
    known: dict[tuple[object, ...], Shape] = {}
    shapes: dict[Node, Shape] = {}
    for node in graph.nodes():
        if node.op.name == "const" or type(node.op).structural or node.op.defines:
            shapes[node] = Shape("opaque", 0)
            continue
        key = (node.op, *(v and v.type for v in node.inputs), *(v.type for v in node.outputs))
        if key not in known:
            known[key] = shape_of(node)
        shapes[node] = known[key]
    return shapes


def is_view(node: Node) -> bool:
    """Whether a node only gives another meaning to the same bytes."""
    return node.op.name in ("reshape", "told", "bit_view")


def _grow(graph: Graph, root: Node, shapes: dict[Node, Shape]) -> Group:
    group = Group(root, {root: None})
    if shapes[root].kind != "pointwise":
        group.core = root
    while True:
        before = len(group.members)
        for node in list(group.members):
            _absorb_operands(graph, group, node, shapes)
        if len(group.members) == before:
            return group


def _absorb_operands(graph: Graph, group: Group, node: Node, shapes: dict[Node, Shape]) -> None:
    if node in group.read:
        return
    if shapes[node].kind == "contraction":
        _absorb_literals(node, group)
        if reads_narrow(node):
            group.read |= {value.node for value in node.inputs[:2] if value is not None and value.node is not None}
            group.members.update(dict.fromkeys(group.read))
        return
    for value in dict.fromkeys(v for v in node.inputs if v is not None):
        producer = value.node
        if producer is None or producer in group.members:
            continue
        if _is_literal(value):
            group.members[producer] = None
            group.copied.add(producer)
        else:
            _absorb(graph, group, producer, shapes)


def _absorb_literals(node: Node, group: Group) -> None:
    for value in node.inputs:
        if value is not None and value.node is not None and _is_literal(value):
            group.members[value.node] = None
            group.copied.add(value.node)


def _is_literal(value: Value) -> bool:
    return (
        value.blob is not None
        and value.content is not None
        and value.content.size == 1
        and value.dtype.kind != "string"
    )


def _absorb(graph: Graph, group: Group, producer: Node, shapes: dict[Node, Shape]) -> None:
    """Adds `producer` to the group where that is sound and pays."""
    shape = shapes[producer]
    value = producer.outputs[0]
    if shape.kind == "opaque" or len(group.members) >= _MOST_NODES:
        return
    is_shared = value in graph.outputs or any(user not in group.members or user in group.copied for user in value.users)
    if shape.kind == "pointwise":
        users = [user for user in value.users if user in group.members]
        if is_shared and not (producer.op.movement and _all_pointwise(value, shapes) and value not in graph.outputs):
            return
        if any(shapes[user].kind == "contraction" for user in users):
            return
        if not producer.op.movement and shape.cost > _CHEAP and not all(_reads_once(user, value) for user in users):
            return
        group.members[producer] = None
        if is_shared:
            group.copied.add(producer)
        if _within_operands(group, producer) and not is_shared and _narrows(producer):
            _keep_with_contraction(graph, group, producer, shapes)
        return
    if is_shared or group.core is not None or value.shape != group.root.output.shape:
        return
    group.core = producer
    group.members[producer] = None
    if not _used_in_place(group, value) or not _within_operands(group, producer):
        group.core = None
        group.members.pop(producer, None)


def _narrows(node: Node) -> bool:
    """Whether the result of a node takes less memory than what it is made of."""
    first = node.inputs[0] if node.inputs else None
    return first is not None and node.output.dtype.itemsize < first.dtype.itemsize


def _keep_with_contraction(graph: Graph, group: Group, node: Node, shapes: dict[Node, Shape]) -> None:
    """Leaves `node`, which narrows what a contraction gives, to that contraction's group where this one cannot hold
    both: what is stored between them is then narrow."""
    path = [node]
    while True:
        operand = path[-1].inputs[0] if path[-1].inputs else None
        producer = None if operand is None or len(operand.users) != 1 else operand.node
        if operand is None or producer is None or producer in group.members or operand.shape != node.output.shape:
            return
        if shapes[producer].kind == "contraction":
            break
        if shapes[producer].kind != "pointwise" or producer.op.movement:
            return
        path.append(producer)
    for earlier in path[1:]:
        group.members[earlier] = None
    _absorb(graph, group, producer, shapes)
    if producer not in group.members:
        for earlier in path:
            group.members.pop(earlier, None)


def _within_operands(group: Group, producer: Node) -> bool:
    if len(_operands(group)) <= _MOST_OPERANDS:
        return True
    group.members.pop(producer, None)
    group.copied.discard(producer)
    return False


def _all_pointwise(value: Value, shapes: dict[Node, Shape]) -> bool:
    return all(shapes[user].kind in ("pointwise", "reduction") and not is_view(user) for user in value.users)


def _reads_once(user: Node, value: Value) -> bool:
    """Whether one element of `value` is read about once over all elements of `user`'s result (no broadcast of it)."""
    return decide_le(user.output.tensor.elements, value.tensor.elements) is True


def _used_in_place(group: Group, value: Value) -> bool:
    """Whether the group reads `value` only at the index of its own result."""
    index = index_of(group.root.output.tensor)
    seen: set[tuple[Expr, ...]] = set()

    def watch(type_: TensorType) -> Tensor:
        def load(at: tuple[Expr, ...], outside: Expr | None) -> Expr:
            seen.add(at if outside is None else ())
            return Load(type_.dtype, "core", at, outside)

        return Tensor(type_, load)

    body, _ = _body(group)
    inner = (
        next(n for n in body.nodes() if n.op is group.core.op and n.output.name == value.name) if group.core else None
    )
    if inner is None:
        return False
    known: dict[Value, Tensor] = {v: Tensor(v.tensor, _plain_load(v.tensor, i)) for i, v in enumerate(body.inputs)}
    for node in body.nodes():
        if node is inner:
            known[node.output] = watch(node.output.tensor)
        else:
            known[node.output] = tensor_of(node.output, [None if v is None else known[v] for v in node.inputs])
    with naming(Names([str(i.value) for i in index if isinstance(i, Index)])):
        known[body.outputs[0]].at(*index)
    return seen == {index}


def _plain_load(type_: TensorType, number: int):
    return lambda index, outside: Load(type_.dtype, f"b{number}", index, outside)


def _operands(group: Group) -> list[Value]:
    found: dict[Value, None] = {}
    for node in group.members:
        for value in node.inputs:
            if value is not None and value.node not in group.members:
                found[value] = None
    return list(found)


def _body(group: Group) -> tuple[Graph, list[Value]]:
    """The group as a closed graph, and the values it takes, in the order the group's nodes use them."""
    body = Graph("fused")
    order = _in_order(group)
    mapped: dict[Value, Value] = {}
    operands: list[Value] = []
    for node in order:
        for value in node.inputs:
            if value is not None and value not in mapped and value.node not in group.members:
                operands.append(value)
                mapped[value] = body.add_input(value.name, value.type)
    for node in order:
        inputs = [None if v is None else mapped[v] for v in node.inputs]
        new = body.insert(
            node.op, inputs, [v.type for v in node.outputs], names=[v.name for v in node.outputs], sources=node.sources
        )
        for old, made in zip(node.outputs, new.outputs):
            mapped[old] = made
            made._content = old._content
    body.set_outputs([mapped[group.root.output]])
    return body, operands


def _in_order(group: Group) -> list[Node]:
    """Members with producers before users."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(group.root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        for value in reversed(node.inputs):
            if value is not None and value.node is not None and value.node in group.members:
                stack.append((value.node, False))
    return order


def _replace(graph: Graph, group: Group) -> None:
    body, operands = _body(group)
    body.bounds, body.limits = graph.bounds, graph.limits
    has_kernel = group.core is not None and type(group.core.op).has("kernel")
    fused: Op = OPS["fused_kernel" if has_kernel else "fused"](body=body)  # type: ignore[call-arg]
    sources = tuple(
        dict.fromkeys(name for node in _in_order(group) if node not in group.copied for name in node.sources)
    )
    root = group.root
    old = root.output
    name = old.name
    made = graph.insert(fused, operands, [old.type], sources=sources, before=root)
    graph.replace(old, made.output)
    for node in list(group.members):
        if node.graph is graph and not any(v.is_used() for v in node.outputs):
            remove_dead(graph, node)
    graph.rename(made.output, name)
