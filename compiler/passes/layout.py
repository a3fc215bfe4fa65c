"""layout: channels-last through convolutional regions, with transposes only at their edges.

Each convolution becomes its channels-last form between two transposes; transposes then sink through every op that does
not care about the order of axes, and meet and cancel. Layout stays explicit: what cannot be moved stays a transpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from compiler.passes.dce import remove_unused
from compiler.passes.fuse import is_elementwise
from compiler.pipeline import graph_pass
from compiler.rules.constants import is_constant
from ir.build import Builder
from ir.dims import bounded
from ir.graph import Graph, Node, Value
from ir.op import OPS, Op, OpError
from ir.ops.channels_last import to_first, to_last
from ir.rewrite import for_each_graph
from ir.types import TensorType

_SIBLINGS = {"max_pool": "max_pool_channels_last", "average_pool": "average_pool_channels_last"}


@graph_pass
def layout(graph: Graph) -> None:
    """Rewrites convolutional regions to channels-last."""
    for_each_graph(graph, _to_channels_last)


def _to_channels_last(graph: Graph) -> None:
    for node in graph.nodes("conv"):
        _convert_conv(graph, node)
    for node in graph.nodes("conv_integer"):
        _convert_conv_integer(graph, node)
    for node in graph.nodes():
        if node.op.name == "transpose":
            _cancel(graph, node)
        elif _reduces_all(node):
            _reduce_before(graph, node)
        else:
            _sink(graph, node)
    for node in graph.nodes("transpose"):
        _flatten(graph, node)
    remove_unused(graph)


def _convert_conv(graph: Graph, node: Node) -> None:
    x, w, *rest = node.inputs
    assert x is not None and w is not None
    if w.blob is None or not x.dtype.is_float:
        return
    rank, op = x.rank, node.op
    b = Builder(graph, before=node, sources=node.sources)
    stride, pad, dilation, groups = op.stride, op.pad, op.dilation, op.groups  # type: ignore[attr-defined]
    rows = b.transpose(x, perm=to_last(rank))
    if any(size != 0 for size in pad):  # a halo in memory: the inner loops need no guards then
        half = rank - 2
        rows = b.pad(rows, before=(0, *pad[:half], 0), after=(0, *pad[half:], 0))
    weights = b.transpose(w, perm=(*range(2, rank), 1, 0))
    y = b.conv_channels_last(rows, weights, *rest, stride=stride, pad=(0,) * len(pad), dilation=dilation, groups=groups)
    _put(graph, node.output, b.transpose(y, perm=to_first(rank)))


def _convert_conv_integer(graph: Graph, node: Node) -> None:
    x, w, *zeros = node.inputs
    assert x is not None and w is not None
    op = node.op
    if not is_constant(w) or any(zero is not None for zero in zeros):
        return
    rank = x.rank
    b = Builder(graph, before=node, sources=node.sources)
    attributes = {name: getattr(op, name) for name in ("stride", "pad", "dilation", "groups")}
    rows, weights = b.transpose(x, perm=to_last(rank)), b.transpose(w, perm=(*range(2, rank), 1, 0))
    _put(
        graph, node.output, b.transpose(b.conv_integer_channels_last(rows, weights, **attributes), perm=to_first(rank))
    )


def _reduces_all(node: Node) -> bool:
    """Whether a node makes one number of all elements, in an order that does not matter."""
    return (
        node.op.name in ("reduce_min", "reduce_max") and node.output.rank == 0 and _source(node.inputs[0]) is not None
    )


def _reduce_before(graph: Graph, node: Node) -> None:
    found = _source(node.inputs[0])
    assert found is not None
    b = Builder(graph, before=node, sources=node.sources)
    _put(graph, node.output, b.apply(node.op, found[0]))


def _put(graph: Graph, old: Value, new: Value) -> None:
    """`new` instead of `old`, under the old name."""
    name = old.name
    graph.replace(old, new)
    graph.rename(new, name)


def _source(value: Value | None) -> tuple[Value, tuple[int, ...]] | None:
    """Operand and permutation of the transpose that makes `value`."""
    if value is None or value.node is None or value.node.op.name != "transpose":
        return None
    operand = value.node.inputs[0]
    assert operand is not None
    return operand, value.node.op.perm  # type: ignore[attr-defined]


def _sink(graph: Graph, node: Node) -> None:
    """Moves a transpose from before a node to after it, where the node allows that."""
    if len(node.outputs) != 1 or not isinstance(node.outputs[0].type, TensorType):
        return
    found = next((s for s in map(_source, node.inputs) if s is not None), None)
    if found is None:
        return
    perm = found[1]
    moved = permuted(node.op, perm, node)
    if moved is None:
        return
    b = Builder(graph, before=node, sources=node.sources)
    operands = []
    for value in node.inputs:
        operand = None if value is None else _before(b, value, perm)
        if operand is None and value is not None:
            return
        operands.append(operand)
    if not _fits(moved, operands, perm, node):
        return
    y = b.apply(moved, *operands)
    _put(graph, node.output, b.transpose(y, perm=perm))


def _fits(op: Op, operands: list[Value | None], perm: tuple[int, ...], node: Node) -> bool:
    """Whether `op` gives the permuted result. An op that works along an axis looks elementwise where that axis has one
    element (a product over one, a norm over one), and means something else once axes are permuted."""
    try:
        with bounded(node.output.graph.bounds):
            type_ = op.infer(*(None if v is None else v.type for v in operands))
    except OpError:
        return False
    return isinstance(type_, TensorType) and type_.shape == _unpermute(node.output.shape, perm)


def _before(b: Builder, value: Value, perm: tuple[int, ...]) -> Value | None:
    """A value whose transpose by `perm` broadcasts as `value` does; None where that would cost one at run time."""
    found = _source(value)
    if found is not None and found[1] == perm:
        return found[0]
    if value.rank == 0 or (all(size == 1 for size in value.shape) and value.rank <= 1):
        return value
    if value.rank > len(perm):
        return None
    inverse = tuple(perm.index(axis) for axis in range(len(perm)))
    shape = (*([1] * (len(perm) - value.rank)), *value.shape)
    wide = value if value.rank == len(perm) else b.reshape(value, shape=shape)
    if [p for p in inverse if shape[p] != 1] == [axis for axis, size in enumerate(shape) if size != 1]:
        return b.reshape(wide, shape=tuple(shape[p] for p in inverse))
    return b.transpose(wide, perm=inverse) if value.blob is not None else None


def permuted(op: Op, perm: tuple[int, ...], node: Node) -> Op | None:
    """The op that does on operands before a transpose what `op` does after it; None where there is none."""
    move = _MOVES.get(op.name)
    if move is not None:
        return move(op, perm)
    return op if node.output.rank == len(perm) and not op.movement and is_elementwise(node) else None


def _concat(op: Any, perm: tuple[int, ...]) -> Op:
    return dataclasses.replace(op, axis=perm[op.axis % len(perm)])


def _pad(op: Any, perm: tuple[int, ...]) -> Op:
    return dataclasses.replace(op, before=_unpermute(op.before, perm), after=_unpermute(op.after, perm))


def _slice(op: Any, perm: tuple[int, ...]) -> Op:
    return dataclasses.replace(
        op, starts=_unpermute(op.starts, perm), shape=_unpermute(op.shape, perm), steps=_unpermute(op.steps, perm)
    )


def _unpermute(values: tuple[Any, ...], perm: tuple[int, ...]) -> tuple[Any, ...]:
    """Per-axis numbers of the transposed tensor, in the order of the axes before the transpose."""
    return tuple(values[perm.index(axis)] for axis in range(len(perm)))


def _reduce(op: Any, perm: tuple[int, ...]) -> Op | None:
    if not op.keepdims:
        return None
    return dataclasses.replace(op, axes=tuple(sorted(perm[axis % len(perm)] for axis in op.axes)))


def _pool(op: Any, perm: tuple[int, ...]) -> Op | None:
    if perm != to_first(len(perm)):
        return None
    fields = {f.name: getattr(op, f.name) for f in dataclasses.fields(op)}
    return OPS[_SIBLINGS[op.name]](**fields)


def _repeat(op: Any, perm: tuple[int, ...]) -> Op:
    return dataclasses.replace(op, factors=_unpermute(op.factors, perm))


_MOVES: dict[str, Callable[[Any, tuple[int, ...]], Op | None]] = {
    "concat": _concat, "pad": _pad, "slice": _slice, "repeat": _repeat, "max_pool": _pool, "average_pool": _pool,
    **dict.fromkeys(("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
}  # fmt: skip


def _cancel(graph: Graph, node: Node) -> None:
    """Merges a transpose with the one before it."""
    found = _source(node.inputs[0])
    if found is None:
        return
    value, inner = found
    perm = tuple(inner[p] for p in node.op.perm)  # type: ignore[attr-defined]
    if perm == tuple(range(len(perm))):
        graph.replace(node.output, value)
    else:
        b = Builder(graph, before=node, sources=node.sources)
        _put(graph, node.output, b.transpose(value, perm=perm))


def _flatten(graph: Graph, node: Node) -> None:
    """A transpose that only moves axes of size 1 becomes a reshape. Last, since a reshape does not sink."""
    value, perm = node.inputs[0], node.op.perm  # type: ignore[attr-defined]
    assert value is not None
    if [p for p in perm if value.shape[p] != 1] == [p for p in range(len(perm)) if value.shape[p] != 1]:
        b = Builder(graph, before=node, sources=node.sources)
        _put(graph, node.output, b.reshape(value, shape=node.output.shape))
