"""winograd: convolutions with windows of 3 x 3 by Winograd's filtering, where that pays.

A convolution becomes three ops: its input at the points of tiles, a matrix product over channels for each point, and
the results from their points. Weights are taken to the points when they are emitted. Which convolutions gain is a
matter of their shapes alone, and is told by `form_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from compiler.choices import RULES, Choices
from compiler.passes.fold import deferred
from compiler.pipeline import graph_pass
from ir.build import Builder
from ir.dims import Size, bounded, ceil_div, decide_le, dim_text, lower_bound, names, substitute, symbol
from ir.graph import Graph, Node, Value
from ir.ops.winograd import WinogradWeights
from ir.rewrite import remove_dead

CACHES = (1 << 20, 16 << 20)
"""Bytes of the second-level and the third-level cache."""
_SMALL = 7
_LARGE = 15
"""Rows and columns of results from which on tiles of 4 x 4 are taken where sizes are not known, and beside bf16."""
_CHANNELS = 16
_KEPT = 0.4375
"""The part of the second-level cache in which what is made at the points of a block stays, while weights pass."""
_NEAR, _FAR = 0.3, 1.5
"""What a byte costs that stays there, and one that does not. A byte of weights from the third-level cache, which are
read in order, costs as much as a near one, and so does an operation."""
_BEYOND = 1.0
"""What a byte of weights costs from beyond. All fitted to times of convolutions from 7 x 7 x 512 to 56 x 56 x 64."""


@dataclass(frozen=True)
class Form:
    """Tiles of `tile` x `tile` outputs, in blocks of `rows` rows."""

    tile: int
    rows: int

    def __str__(self) -> str:
        return f"tiles of {self.tile}, {self.rows} rows"


_PLAIN = "plain sums"


@graph_pass
def winograd(graph: Graph, *, least: int = 2, caches: tuple[int, int] = CACHES, choices: Choices = RULES) -> None:
    """Rewrites channels-last convolutions for which tiles of at least `least` rows and columns pay. `caches` are the
    bytes of the second and the third level. `choices` answers for which they do, and how large they are."""
    with bounded(graph.bounds):
        for node in graph.nodes("conv_channels_last"):
            if why_not(node) is not None:
                continue
            found = form_of(node, caches, least)
            rule = found if isinstance(found, Form) and found.tile >= least else _PLAIN
            every = partial(forms, node, caches)
            form = choices.choose("winograd", node.output.name, partial(key_of, node, least), rule, every)
            if isinstance(form, Form):
                _convert(graph, node, form)


def forms(node: Node, caches: tuple[int, int] = CACHES) -> list[Form | str]:
    """Every way to do a convolution that can be done by Winograd's filtering: plain sums, then the form of each tile
    that its sizes suggest, then those with other blocks."""
    _, oh, ow, outputs = node.output.shape
    channels = node.inputs[1].shape[2]  # type: ignore[union-attr]
    found: list[Form | str] = [_PLAIN]
    if not isinstance(oh, int) or not isinstance(ow, int):
        return [*found, Form(4, 1), Form(2, 1)]
    found += [_best(tile, oh, ow, int(channels), int(outputs), caches)[1] for tile in (4, 2)]
    for tile in (4, 2):
        total = -(-oh // tile)
        found += [Form(tile, -(-total // blocks)) for blocks in range(1, total + 1)]
    return list(dict.fromkeys(found))


def key_of(node: Node, least: int) -> str:
    """The structure of a convolution: its operands and its result, whatever their sizes are called, and which tiles
    its rule may choose."""
    shapes = [v.shape for v in (*node.inputs[:2], node.output) if v is not None]
    symbols = dict.fromkeys(name for shape in shapes for size in shape for name in sorted(names(size)))
    mapping = {name: symbol(f"s{i}") for i, name in enumerate(symbols)}
    x, w, y = (", ".join(dim_text(substitute(size, mapping)) for size in shape) for shape in shapes)
    return f"{node.output.dtype}[{x}] by [{w}] to [{y}], tiles of {least} and more"


def form_of(node: Node, caches: tuple[int, int] = CACHES, least: int = 2) -> Form | str:
    """How a channels-last convolution is done by Winograd's filtering, or why it is not. `least` is more than 2 where
    what it is done beside is faster than plain sums of f32."""
    reason = why_not(node)
    if reason is not None:
        return reason
    w = node.inputs[1]
    assert w is not None
    _, oh, ow, outputs = node.output.shape
    channels = w.shape[2]
    if min(int(channels), int(outputs)) < _CHANNELS:
        return f"with fewer than {_CHANNELS} channels the sums are too short"
    if any(decide_le(size, _SMALL - 1) is True for size in (oh, ow)):
        return f"there are fewer than {_SMALL} rows or columns of results"
    is_small = any(decide_le(size, _LARGE - 1) is True for size in (oh, ow))
    if least > 2 and is_small:
        return "plain sums of narrow operands are as fast"
    if not isinstance(oh, int) or not isinstance(ow, int):
        return Form(2 if is_small else 4, 1)
    best = [_best(tile, oh, ow, int(channels), int(outputs), caches) for tile in (2, 4)]
    return min(best, key=lambda pair: pair[0])[1]


def why_not(node: Node) -> str | None:
    """Why a channels-last convolution cannot be done by Winograd's filtering; None where it can."""
    op, (x, w, *_) = node.op, node.inputs
    assert x is not None and w is not None
    if w.blob is None or w.shape[:2] != (3, 3) or w.rank != 4 or x.dtype.name != "f32":
        return "only windows of 3 x 3 with weights of f32 that are known"
    if op.stride != (1, 1) or op.dilation != (1, 1) or op.groups != 1:  # type: ignore[attr-defined]
        return "only windows that move by one, without gaps and in one group"
    return None


def _best(tile: int, oh: int, ow: int, channels: int, outputs: int, caches: tuple[int, int]) -> tuple[float, Form]:
    """The form with tiles of a size that costs least, and what it costs: what is made at the points of few rows stays
    in the cache, and many rows use weights well."""
    points, total, columns = (tile + 2) ** 2, -(-oh // tile), -(-ow // tile)
    weights = points * channels * outputs * 4

    def cost(rows: int) -> float:
        blocks = -(-total // rows)
        block = points * rows * columns * (channels + outputs) * 4
        moved = 2 * blocks * block * (_NEAR if block <= _KEPT * caches[0] else _FAR)
        moved += blocks * weights * (_NEAR if weights <= caches[1] else _BEYOND)
        return moved + blocks * rows * columns * points * channels * outputs * 2 * _NEAR

    rows = min(range(1, total + 1), key=lambda rows: (cost(rows), -rows))
    return cost(rows), Form(tile, rows)


def _convert(graph: Graph, node: Node, form: Form) -> None:
    x, w, *rest = node.inputs
    assert x is not None and w is not None
    _, oh, ow, _ = node.output.shape
    b = Builder(graph, before=node, sources=node.sources)
    step = form.tile * form.rows
    x = _padded(b, x, node.op.pad, ceil_div(oh, step) * step - oh, ceil_div(ow, form.tile) * form.tile - ow)  # type: ignore[attr-defined]
    points = b.winograd_input(x, tile=form.tile, rows=form.rows)
    products = b.matmul(points, _weights(b, w, form))
    y = b.winograd_output(products, *rest, tile=form.tile, rows=form.rows, shape=(oh, ow))
    name = node.output.name
    graph.replace(node.output, y)
    remove_dead(graph, node)
    graph.rename(y, name)


def _weights(b: Builder, w: Value, form: Form) -> Value:
    """The weights at the points: computed when they are emitted, however large."""
    op = WinogradWeights(tile=form.tile)
    made = b.apply(op, w)
    blob = deferred(op, [w.blob], made, 0, 1)
    remove_dead(b.graph, made.node)
    return b.const(blob, name=f"{w.name}.points")


def _padded(b: Builder, x: Value, pad: tuple[Size, ...], below: Size, right: Size) -> Value:
    """The image with its padding, and with what whole tiles reach beyond it: one pad in place of two."""
    before, after = [0, pad[0], pad[1], 0], [0, pad[2] + below, pad[3] + right, 0]
    if not any(size != 0 for size in (*before, *after)):
        return x
    inner = x.node
    if inner is not None and inner.op.name == "pad" and _is_of_zeros(inner):
        before = [p + q for p, q in zip(before, inner.op.before)]  # type: ignore[attr-defined]
        after = [p + q for p, q in zip(after, inner.op.after)]  # type: ignore[attr-defined]
        assert inner.inputs[0] is not None
        x = inner.inputs[0]
    return b.pad(x, before=tuple(before), after=tuple(after))


def _is_of_zeros(node: Node) -> bool:
    """Whether a pad only adds zeros."""
    op = node.op
    widths = (lower_bound(size) for size in (*op.before, *op.after))  # type: ignore[attr-defined]
    adds = all(low is not None and low >= 0 for low in widths)
    return adds and len(node.inputs) == 1 and op.mode == "constant" and op.value == 0  # type: ignore[attr-defined]


__all__ = ["Form", "form_of", "forms", "key_of", "why_not", "winograd"]
