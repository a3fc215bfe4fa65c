"""layout: channels-last through convolutional regions, with transposes only at their edges.

Each convolution becomes its channels-last form between two transposes; transposes then sink through every op that does
not care about the order of axes, and meet and cancel. Layout stays explicit: what cannot be moved stays a transpose.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from compiler.passes.dce import remove_unused
from compiler.passes.fuse import is_elementwise
from compiler.pipeline import graph_pass
from compiler.rules.constants import is_constant
from ir.build import Builder
from ir.dims import Size, bounded, ceil_div, decide_le, maximum
from ir.graph import Graph, Node, Value
from ir.op import OPS, Op, OpError
from ir.ops.channels_last import to_first, to_last
from ir.rewrite import for_each_graph
from ir.types import TensorType

_FEW_CHANNELS = 4
"""Fewer are no vector of columns worth its multiplications."""
_POINTWISE = ("ir.ops.elementwise", "ir.ops.activation")
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
    for node in graph.nodes("conv_transpose"):
        _convert_conv_transpose(graph, node)
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
    put(graph, node.output, b.transpose(y, perm=to_first(rank)))


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
    put(graph, node.output, b.transpose(b.conv_integer_channels_last(rows, weights, **attributes), perm=to_first(rank)))


def _reduces_all(node: Node) -> bool:
    """Whether a node makes one number of all elements, in an order that does not matter."""
    return (
        node.op.name in ("reduce_min", "reduce_max") and node.output.rank == 0 and _source(node.inputs[0]) is not None
    )


def _reduce_before(graph: Graph, node: Node) -> None:
    found = _source(node.inputs[0])
    assert found is not None
    b = Builder(graph, before=node, sources=node.sources)
    put(graph, node.output, b.apply(node.op, found[0]))


def _convert_conv_transpose(graph: Graph, node: Node) -> None:
    x, w, *rest = node.inputs
    assert x is not None and w is not None
    op: Any = node.op
    taps = w.shape[2:]
    is_dense = all(d == 1 or k == 1 for d, k in zip(op.dilation, taps))
    if w.blob is None or not x.dtype.is_float or not is_dense or not all(isinstance(p, int) for p in op.pad):
        return
    b = Builder(graph, before=node, sources=node.sources)
    bias = next(iter(rest), None)
    is_one_product = op.groups == 1 and taps == op.stride and not any((*op.pad, *op.extra))
    few = is_one_product and decide_le(_FEW_CHANNELS, w.shape[1]) is False
    y = _as_product(b, x, w, bias) if few else _by_phase(b, op, x, w, bias)
    put(graph, node.output, y)


def _as_product(b: Builder, x: Value, w: Value, bias: Value | None) -> Value:
    """A transposed convolution without overlap, as a product that gives all outputs of an element as its channels."""
    half, (inner, outer, *taps) = w.rank - 2, w.shape
    each = b.transpose(w, perm=(0, *range(2, 2 + half), 1))
    count = math.prod([*taps, outer])  # type: ignore[arg-type]
    weights = b.reshape(each, shape=(*[1] * half, inner, count))
    if bias is not None:
        bias = b.reshape(b.expand(bias, shape=(*taps, outer)), shape=(count,))
    rows = b.transpose(x, perm=to_last(x.rank))
    ones = (1,) * half
    y = b.conv_channels_last(rows, weights, bias, stride=ones, pad=(0,) * 2 * half, dilation=ones)
    y = b.reshape(y, shape=(*rows.shape[:-1], *taps, outer))
    y = b.transpose(y, perm=(0, 1 + 2 * half, *(axis for a in range(half) for axis in (1 + a, 1 + half + a))))
    return b.reshape(y, shape=(x.shape[0], outer, *(size * k for size, k in zip(x.shape[2:], taps))))


def _by_phase(b: Builder, op: Any, x: Value, w: Value, bias: Value | None) -> Value:
    """A transposed convolution in its channels-last form: with a halo of zeros, so that no window reaches beyond x, and
    as many outputs along each axis as fill whole strides."""
    half, (inner, outer, *taps) = w.rank - 2, w.shape
    parts = b.reshape(w, shape=(op.groups, inner // op.groups, outer, *taps))
    parts = b.transpose(parts, perm=(*range(3, 3 + half), 1, 0, 2))
    weights = b.reshape(parts, shape=(*taps, inner // op.groups, outer * op.groups))
    wanted = op.infer(x.tensor, w.tensor).shape[2:]
    axes = [_halo(*axis) for axis in zip(x.shape[2:], wanted, taps, op.stride, op.pad)]
    before, after, cut, cut_after, extra = zip(*axes)
    rows = b.pad(b.transpose(x, perm=to_last(x.rank)), before=(0, *before, 0), after=(0, *after, 0))
    pad = (*cut, *cut_after)
    y = b.conv_transpose_channels_last(rows, weights, bias, stride=op.stride, pad=pad, extra=extra, groups=op.groups)
    shape = (x.shape[0], *wanted, outer * op.groups)
    if y.shape != shape:
        y = b.slice(y, starts=(0,) * x.rank, shape=shape, steps=(1,) * x.rank)
    return b.transpose(y, perm=to_first(x.rank))


def _halo(size: Size, wanted: Size, taps: Any, stride: int, cut: Any) -> tuple[Size, ...]:
    """Of one axis of a transposed convolution that cuts off `cut` elements before `wanted`: zeros before and after x,
    what to cut off then, before and after, and what to add after."""
    outputs = ceil_div(wanted, stride) * stride
    before = max(0, ceil_div(taps, stride) - 1 - cut // stride)
    after = maximum(0, (outputs - 1 + cut) // stride - size + 1)
    cut, extra = cut + before * stride, max(0, stride - taps)
    full = (before + size + after - 1) * stride + taps + extra
    return before, after, cut, full - outputs - cut, extra


def put(graph: Graph, old: Value, new: Value) -> None:
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
        _sink_reshape(graph, node)
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
    put(graph, node.output, b.transpose(y, perm=perm))


def _sink_reshape(graph: Graph, node: Node) -> None:
    """Moves a reshape from before a function of each element to after it, where it may follow a convolution."""
    value = node.inputs[0] if len(node.inputs) == 1 else None
    if value is None or value.node is None or value.node.op.name != "reshape" or not is_function(node):
        return
    operand = value.node.inputs[0]
    assert operand is not None
    b = Builder(graph, before=node, sources=node.sources)
    y = b.apply(node.op, operand)
    put(graph, node.output, b.reshape(y, shape=node.output.shape))
    assert y.node is not None
    _sink(graph, y.node)


def is_function(node: Node) -> bool:
    """Whether a node computes each element from those of its operands at the same place, whatever axes these have."""
    op = node.op
    is_pointwise = type(op).__module__ in _POINTWISE and not op.attributes().keys() & {"axis", "axes"}
    return is_pointwise and len(node.outputs) == 1 and is_elementwise(node)


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


def _along_axis(op: Any, perm: tuple[int, ...]) -> Op:
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
    "concat": _along_axis, "pad": _pad, "slice": _slice, "repeat": _repeat, "max_pool": _pool, "average_pool": _pool,
    "lrn": _along_axis,
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
        put(graph, node.output, b.transpose(value, perm=perm))


def _flatten(graph: Graph, node: Node) -> None:
    """A transpose that only moves axes of size 1 becomes a reshape. Last, since a reshape does not sink."""
    value, perm = node.inputs[0], node.op.perm  # type: ignore[attr-defined]
    assert value is not None
    if [p for p in perm if value.shape[p] != 1] == [p for p in range(len(perm)) if value.shape[p] != 1]:
        b = Builder(graph, before=node, sources=node.sources)
        put(graph, node.output, b.reshape(value, shape=node.output.shape))
