"""narrow: contractions multiply bf16 and add in f32, where that pays.

Weights become bf16 when they are emitted. Activations are rounded once, next to what makes them, so that they are
stored narrow where only contractions read them. Results stay f32. In the graph a contraction keeps its op: its operands
are converted to bf16, which rounds, and back, which is exact, and fusion makes one kernel of it and the way back.
"""

from __future__ import annotations

import math
from typing import Any

from compiler.passes.fold import deferred
from compiler.pipeline import graph_pass
from ir import types as t
from ir.build import Builder
from ir.dims import bounded
from ir.graph import Graph, Node, Value
from ir.kernel import dot_length
from ir.op import OPS, Op
from ir.rewrite import for_each_graph, remove_dead, take_place

_CONTRACTIONS = ("matmul", "conv_channels_last", "conv_transpose_channels_last")
_MOVES = ("pad", "reshape", "transpose", "slice", "expand")
_LEAST_SUM = 16
_LEAST_COLUMNS = 16
"""Below these a sum is over before its operands are in place, and columns do not fill a vector."""
_LEAST_USES = 32
"""Products of an activation that pay for rounding it in a step of its own."""


@graph_pass
def narrow(graph: Graph) -> None:
    """Converts the operands of contractions, in nested graphs too."""
    for_each_graph(graph, _narrow_all)


def _narrow_all(graph: Graph) -> None:
    with bounded(graph.bounds):
        for node in list(graph.nodes("conv_channels_last")):
            _pair_taps(graph, node)
        chosen = {node: None for name in _CONTRACTIONS for node in graph.nodes(name) if pays(node) is True}
    rounded: dict[Value, Value] = {}
    for node in [node for node in graph.nodes() if node in chosen]:
        x, w, *rest = node.inputs
        assert x is not None and w is not None
        operands = [_rounded(graph, x, rounded, chosen), _rounded_weights(graph, w, node, rounded)]
        b = Builder(graph, before=node, sources=node.sources)
        wide = [b.cast(operand, to=t.f32) for operand in operands]
        y = graph.insert(node.op, [*wide, *rest], [node.output.type], sources=node.sources, before=node).output
        name = node.output.name
        graph.replace(node.output, y)
        graph.rename(y, name)
    for value in rounded:
        if value.node is not None:
            remove_dead(graph, value.node)


def pays(node: Node) -> bool | str:
    """True, or why a contraction stays one of f32."""
    if node.op.name not in _CONTRACTIONS:
        return f"{node.op.name} is none of {', '.join(_CONTRACTIONS)}"
    x, w = node.inputs[:2]
    assert x is not None and w is not None
    if x.dtype != t.f32 or w.blob is None or w.rank < 2 or not w.tensor.is_static:
        return "only products of f32 by weights that are known"
    if x.node is not None and x.node.op.name == "winograd_input":
        return "the points of tiles need all of their digits"
    groups = getattr(node.op, "groups", 1)
    *taps, inner, outer = (int(size) for size in w.shape)
    if inner % dot_length(t.bf16):
        return f"sums over {inner} channels are not made of pairs"
    window = 1 if node.op.name == "matmul" else math.prod(taps)
    if inner * window < _LEAST_SUM or outer // groups < _LEAST_COLUMNS:
        return f"sums of {inner * window} products for {outer // groups} columns are too small"
    if not _only_user(x) and outer // groups * window < _LEAST_USES:
        return "rounding the other operand would cost more than it gains"
    return True


def _pair_taps(graph: Graph, node: Node) -> None:
    """Sees a convolution whose channels are taps of its last axis, one after the other, as one of two channels."""
    x, w, *rest = node.inputs
    op: Any = node.op
    assert x is not None and w is not None
    width, outputs = x.shape[-2], node.output.shape[-2]
    is_run = w.blob is not None and w.tensor.is_static and x.shape[-1] == w.shape[-2] == 1 and w.rank >= 3
    if not is_run or x.dtype != t.f32 or op.dilation[-1] != 1 or op.stride[-1] % 2 or any(op.pad) or op.groups != 1:
        return
    *others, taps, _, outer = (int(size) for size in w.shape)
    pairs = (taps + 1) // 2
    if math.prod(others) * taps < _LEAST_SUM or outer < _LEAST_COLUMNS:
        return
    if not isinstance(width, int) and taps % 2:
        return  # whether a last pair reaches beyond x is not known
    b = Builder(graph, before=node, sources=node.sources)
    front = (0,) * len(others)
    x = _whole_pairs(b, x, (outputs - 1) * op.stride[-1] + 2 * pairs if isinstance(width, int) else None)
    if taps % 2:
        w = _constant(b, OPS["pad"](before=(0,) * w.rank, after=(*front, 1, 0, 0)), w, f"{w.name}.even")  # type: ignore[call-arg]
    w = _constant(b, OPS["reshape"](shape=(*others, pairs, 2, outer)), w, f"{w.name}.pairs")  # type: ignore[call-arg]
    stride = (*op.stride[:-1], op.stride[-1] // 2)
    y = b.conv_channels_last(x, w, *rest, stride=stride, pad=op.pad, dilation=op.dilation)
    take_place(graph, node.output, y)
    remove_dead(graph, node)


def _whole_pairs(b: Builder, x: Value, reach: Any) -> Value:
    """Elements of the axis before the last as pairs: with zeros after them as far as windows `reach`, or without a last
    one that no window reaches, which those of whole pairs do not where it has none beside it."""
    *front, width, _ = x.shape
    if reach is None:
        even = 2 * (width // 2)
        if even != width:
            x = b.slice(x, starts=(0,) * x.rank, shape=(*front, even, 1), steps=(1,) * x.rank)
    else:
        missing = max(0, reach - width)
        missing += (width + missing) % 2
        if missing:
            x = b.pad(x, before=(0,) * x.rank, after=(*[0] * len(front), missing, 0))
    return b.reshape(x, shape=(*front, x.shape[-2] // 2, 2))


def reads_narrow(node: Node) -> bool:
    """Whether a node is a contraction of operands that are bf16, converted to f32."""
    if node.op.name not in _CONTRACTIONS:
        return False
    producers = [v.node for v in node.inputs[:2] if v is not None]
    return all(p is not None and is_exact_cast(p) for p in producers)


def is_exact_cast(node: Node) -> bool:
    """Whether a node converts bf16 to f32."""
    source = node.inputs[0] if node.op.name == "cast" else None
    return source is not None and source.dtype == t.bf16 and node.output.dtype == t.f32


def _only_user(value: Value) -> bool:
    return len(value.users) == 1 and value not in value.graph.outputs and value.node is not None


def _rounded(graph: Graph, x: Value, rounded: dict[Value, Value], chosen: dict[Node, None]) -> Value:
    """`x` in bf16. What only moves elements moves the rounded ones, where nobody else needs them."""
    if x in rounded:
        return rounded[x]
    node = x.node
    is_moved = node is not None and node.op.name in _MOVES and all(v is node.inputs[0] for v in node.inputs)
    if node is None or not is_moved or not _keeps_zeros(node) or x in graph.outputs:
        return rounded.setdefault(x, _after(graph, x).cast(x, to=t.bf16))
    if not all(user in chosen or user.graph is not graph for user in x.users):
        return rounded.setdefault(x, _after(graph, x).cast(x, to=t.bf16))
    source = node.inputs[0]
    assert source is not None
    chosen_too = {**chosen, node: None}
    inner = _rounded(graph, source, rounded, chosen_too)
    rounded[x] = _after(graph, x).apply(node.op, inner)
    return rounded[x]


def _keeps_zeros(node: Node) -> bool:
    """Whether what a movement adds, if anything, is the same in bf16."""
    return node.op.name != "pad" or node.op.value == 0  # type: ignore[attr-defined]


def _after(graph: Graph, value: Value) -> Builder:
    """A builder right behind what makes a value, or in front of the graph's first node."""
    node = value.node
    sources = () if node is None else node.sources
    following = next(graph.nodes(), None) if node is None else node.next
    return Builder(graph, before=following, sources=sources)


def _rounded_weights(graph: Graph, w: Value, node: Node, rounded: dict[Value, Value]) -> Value:
    """The weights in bf16."""
    if w not in rounded:
        b = Builder(graph, before=node, sources=node.sources)
        rounded[w] = _constant(b, OPS["cast"](to=t.bf16), w, f"{w.name}.bf16")  # type: ignore[call-arg]
    return rounded[w]


def _constant(b: Builder, op: Op, w: Value, name: str) -> Value:
    """What an op makes of weights, as weights: computed when they are emitted, however large."""
    made = b.apply(op, w)
    assert w.blob is not None
    blob = deferred(op, [w.blob], made, 0, 1)
    b.graph.remove(made.node)
    return b.const(blob, name=name)


__all__ = ["is_exact_cast", "narrow", "pays", "reads_narrow"]
