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
"""Rows and columns of results from which on tiles of 4 x 4 are faster than those of 2 x 2, whose errors are smaller and
whose weights take half of the memory."""
_CHANNELS = 16
_FILLED = 0.75
"""The part of a cache in which what is used again stays."""
_COSTS = (0.3, 1.0)
"""What reading a byte from the second-level and from the third-level cache costs beside one from the third level."""
_BEYOND = 4.0
_BYTES_PER_FLOP = 0.3
"""Bytes from the third-level cache in the time of one operation."""


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
            found = form_of(node, caches)
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
    found += [Form(tile, _rows(tile, oh, ow, int(channels), int(outputs), caches)) for tile in (4, 2)]
    for tile in (4, 2) if isinstance(oh, int) and isinstance(ow, int) else ():
        total = -(-oh // tile)  # type: ignore[operator]
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


def form_of(node: Node, caches: tuple[int, int] = CACHES) -> Form | str:
    """How a channels-last convolution is done by Winograd's filtering, or why it is not."""
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
    tile = 2 if any(decide_le(size, _LARGE - 1) is True for size in (oh, ow)) else 4
    return Form(tile, _rows(tile, oh, ow, int(channels), int(outputs), caches))


def why_not(node: Node) -> str | None:
    """Why a channels-last convolution cannot be done by Winograd's filtering; None where it can."""
    op, (x, w, *_) = node.op, node.inputs
    assert x is not None and w is not None
    if w.blob is None or w.shape[:2] != (3, 3) or w.rank != 4 or x.dtype.name != "f32":
        return "only windows of 3 x 3 with weights of f32 that are known"
    if op.stride != (1, 1) or op.dilation != (1, 1) or op.groups != 1:  # type: ignore[attr-defined]
        return "only windows that move by one, without gaps and in one group"
    return None


def _rows(tile: int, oh: Size, ow: Size, channels: int, outputs: int, caches: tuple[int, int]) -> int:
    """Rows of tiles in a block: what is made at the points of few stays in the cache, and many use weights well."""
    if not isinstance(oh, int) or not isinstance(ow, int):
        return 1
    points, total, columns = (tile + 2) ** 2, -(-oh // tile), -(-ow // tile)
    weights = points * channels * outputs * 4

    def cost(rows: int) -> float:
        blocks = -(-total // rows)
        block = points * rows * columns * (channels + outputs) * 4
        traffic = 2 * blocks * block * _cost_of_byte(block, caches)
        traffic += (blocks - 1) * weights * _cost_of_byte(weights + block, caches)
        return traffic + blocks * rows * columns * points * channels * outputs * 2 * _BYTES_PER_FLOP

    return min(range(1, total + 1), key=lambda rows: (cost(rows), -rows))


def _cost_of_byte(working_set: int, caches: tuple[int, int]) -> float:
    return next((cost for size, cost in zip(caches, _COSTS) if working_set <= _FILLED * size), _BEYOND)


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
