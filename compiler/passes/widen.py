"""widen: convolutions of few channels compute neighbouring outputs together, so that their sums fill vectors.

Several outputs next to each other become the channels of one, which has a wider window of weights: those of each output
in its place, among zeros. Taps of a row and channels of few elements become one run of taps. Only weights move; the
operand and the result are seen under other shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.passes.layout import is_function, put
from compiler.pipeline import graph_pass
from ir import types as t
from ir.build import Builder
from ir.dims import Size, bounded, ceil_div
from ir.graph import Graph, Node, Value
from ir.rewrite import for_each_graph

_MOST_TOGETHER = 16
_LEAST_ROWS = 6
"""Fewer rows of outputs share no loads of weights."""
_GAIN = 0.8
"""How much of the cost must be left at most, since windows that overlap are read again."""
_FEW_CHANNELS = 16
_ONE_VECTOR = 1.15
"""What a row of one vector costs over one of several, since it loads as often as it multiplies."""


@dataclass(frozen=True)
class _Row:
    """The last spatial axis of a convolution: `outputs` windows of `taps`, and the channels of an output."""

    outputs: Size
    taps: int
    stride: int
    channels: int

    def cost(self, together: int, lanes: int) -> float:
        """Products per output that has a use, for `together` outputs as one, over those of one that fills vectors."""
        columns = self.channels * together
        window = (self.taps + self.stride * (together - 1)) / self.taps
        beyond = -(-self.outputs // together) * together / self.outputs if isinstance(self.outputs, int) else 1
        is_scalar = columns * 4 < lanes
        filled = lanes if is_scalar else -(-columns // lanes) * lanes / columns
        return window * beyond * filled * (_ONE_VECTOR if columns <= lanes else 1)

    def best(self, lanes: int) -> int:
        """How many outputs to compute together; 1 to leave them."""
        counts = [n for n in range(1, _MOST_TOGETHER + 1) if n == 1 or self._divides(n)]
        best = min(counts, key=lambda n: self.cost(n, lanes))
        return best if self.cost(best, lanes) < _GAIN * self.cost(1, lanes) else 1

    def _divides(self, together: int) -> bool:
        if isinstance(self.outputs, int):
            return self.outputs >= _LEAST_ROWS * together
        return self.outputs % together == 0


@graph_pass
def widen(graph: Graph, *, lanes: int = 8) -> None:
    """Rewrites channels-last convolutions whose channels do not fill vectors of `lanes` elements."""
    for_each_graph(graph, lambda each: _widen_all(each, lanes))


def _widen_all(graph: Graph, lanes: int) -> None:
    with bounded(graph.bounds):
        for node in list(graph.nodes("conv_channels_last")):
            _widen(graph, node, lanes)


def _widen(graph: Graph, node: Node, lanes: int) -> None:
    x, w, *rest = node.inputs
    op: Any = node.op
    assert x is not None and w is not None
    if x.dtype != t.f32 or w.blob is None or not w.tensor.is_static or op.groups != 1 or any(op.pad):
        return
    *_, taps, inner, outer = w.shape
    row = _Row(node.output.shape[-2], taps, op.stride[-1], outer)  # type: ignore[arg-type]
    together = row.best(lanes) if op.dilation[-1] == 1 else 1
    is_run = op.dilation[-1] == 1 and taps != 1 and inner in range(2, _FEW_CHANNELS) and x.shape[-1] == inner
    if together == 1 and not is_run:
        return
    b = Builder(graph, before=node, sources=node.sources)
    x, weights, bias = _reaching(b, x, row, together), _side_by_side(b, w, row, together), next(iter(rest), None)
    if bias is not None:
        bias = b.concat(*[bias] * together, axis=0)
    y = (_by_run if is_run else _by_tap)(b, op, x, weights, bias, together)
    front = node.output.shape[:-2]
    if y.shape == (*front, ceil_div(row.outputs, together), row.channels * together):
        _replace(graph, node, y, together)


def _reaching(b: Builder, x: Value, row: _Row, together: int) -> Value:
    """`x` with zeros after it, as far as the last window reaches."""
    width = x.shape[-2]
    if not isinstance(row.outputs, int) or not isinstance(width, int):
        return x
    missing = (-(-row.outputs // together) * together - 1) * row.stride + row.taps - width
    if missing <= 0:
        return x
    return b.pad(x, before=(0,) * x.rank, after=(*[0] * (x.rank - 2), missing, 0))


def _side_by_side(b: Builder, w: Value, row: _Row, together: int) -> Value:
    """The weights of neighbouring outputs, each moved to its place in a window for all of them."""
    front = (0,) * (w.rank - 3)
    room = (together - 1) * row.stride
    moved = [
        b.pad(w, before=(*front, at, 0, 0), after=(*front, room - at, 0, 0)) for at in range(0, room + 1, row.stride)
    ]
    return b.concat(*moved, axis=w.rank - 1)


def _by_tap(b: Builder, op: Any, x: Value, w: Value, bias: Value | None, together: int) -> Value:
    stride = (*op.stride[:-1], op.stride[-1] * together)
    return b.conv_channels_last(x, w, bias, stride=stride, pad=op.pad, dilation=op.dilation)


def _by_run(b: Builder, op: Any, x: Value, w: Value, bias: Value | None, together: int) -> Value:
    """The convolution with the channels of an element as taps of their own, one after the other."""
    *front, width, inner = x.shape
    *others, taps, _, outer = w.shape
    x = b.reshape(x, shape=(*front, width * inner, 1))
    w = b.reshape(w, shape=(*others, taps * inner, 1, outer))
    stride = (*op.stride[:-1], op.stride[-1] * together * inner)
    return b.conv_channels_last(x, w, bias, stride=stride, pad=op.pad, dilation=op.dilation)


def _replace(graph: Graph, node: Node, y: Value, together: int) -> None:
    """Puts outputs that were computed together in the place of a node's, after the functions of elements behind it."""
    last = node
    while (wide := _after(graph, last, y, together)) is not None:
        (last,), y = last.output.users, wide
    b = Builder(graph, before=last, sources=last.sources)
    shape = last.output.shape
    narrow = b.reshape(y, shape=(*shape[:-2], y.shape[-2] * together, shape[-1]))
    if narrow.shape != shape:
        narrow = b.slice(narrow, starts=(0,) * len(shape), shape=shape, steps=(1,) * len(shape))
    put(graph, last.output, narrow)


def _after(graph: Graph, node: Node, y: Value, together: int) -> Value | None:
    """What the only user of a node computes, on outputs that lie together; None where that is something else."""
    value = node.output
    if value in graph.outputs or len(value.users) != 1:
        return None
    (user,) = value.users
    if not is_function(user) or user.output.shape != value.shape:
        return None
    b = Builder(graph, before=user, sources=user.sources)
    operands = [y if v is value else _alike(b, v, value, y, together) for v in user.inputs if v is not None]
    if len(operands) != len(user.inputs) or any(v is None for v in operands):
        return None
    made = b.apply(user.op, *operands)
    return made if made.shape == y.shape else None


def _alike(b: Builder, operand: Value, value: Value, y: Value, together: int) -> Value | None:
    """Another operand of a function of `value`, for the function of `y`; None where it would have to be moved."""
    if operand.tensor.elements == 1 and operand.rank <= value.rank:
        return operand
    if operand.shape == value.shape and y.tensor.elements == value.tensor.elements:
        return b.reshape(operand, shape=y.shape)
    is_vector = all(size == 1 for size in operand.shape[:-1]) and operand.shape[-1:] == value.shape[-1:]
    if operand.blob is None or not is_vector:
        return None
    return b.concat(*[b.reshape(operand, shape=value.shape[-1:])] * together, axis=0)
