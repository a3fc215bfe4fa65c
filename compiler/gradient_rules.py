"""How each op is differentiated: from the derivatives by its outputs to those by its operands.

A rule takes the builder, the node and the derivatives by its outputs (None: the output does not matter), and gives one
derivative for each operand, None where there is none. Where a function has a corner, its derivative there is one of the
two beside it, or their mean for `max` and `min`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ir import types as t
from ir.dims import Size, decide_eq, maximum
from ir.op import OpError
from ir.ops.reduction import normal_axes

Rule = Callable[[Any, Any, Sequence[Any]], Sequence[Any]]


def sum_to(b: Any, grad: Any, like: Any) -> Any:
    """A derivative by a broadcast operand, summed over what the operand was repeated along."""
    lead = grad.rank - like.rank
    stretched = [lead + a for a, size in enumerate(like.shape) if size == 1 and grad.shape[lead + a] != 1]
    axes = (*range(lead), *stretched)
    if not axes:
        return grad
    summed = b.reduce_sum(grad, axes=axes, keepdims=True)
    return b.reshape(summed, shape=like.shape) if lead else summed


def _number(b: Any, value: float, like: Any) -> Any:
    return b.const(value, like.dtype)


def _zeros(b: Any, like: Any) -> Any:
    return b.full(shape=like.shape, value=0.0, dtype=like.dtype)


def _masked(b: Any, condition: Any, grad: Any) -> Any:
    return b.where(condition, grad, _number(b, 0.0, grad))


# Functions of one operand: derivative(b, op, x, y), which is multiplied by that of the result.

_DERIVATIVES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "neg": lambda b, op, x, y: _number(b, -1.0, x),
    "abs": lambda b, op, x, y: b.sign(x),
    "exp": lambda b, op, x, y: y,
    "log": lambda b, op, x, y: b.reciprocal(x),
    "sqrt": lambda b, op, x, y: 0.5 / y,
    "reciprocal": lambda b, op, x, y: -(y * y),
    "sin": lambda b, op, x, y: b.cos(x),
    "cos": lambda b, op, x, y: -b.sin(x),
    "tan": lambda b, op, x, y: y * y + 1.0,
    "asin": lambda b, op, x, y: b.reciprocal(b.sqrt(1.0 - x * x)),
    "acos": lambda b, op, x, y: -b.reciprocal(b.sqrt(1.0 - x * x)),
    "atan": lambda b, op, x, y: b.reciprocal(x * x + 1.0),
    "sinh": lambda b, op, x, y: b.cosh(x),
    "cosh": lambda b, op, x, y: b.sinh(x),
    "tanh": lambda b, op, x, y: 1.0 - y * y,
    "asinh": lambda b, op, x, y: b.reciprocal(b.sqrt(x * x + 1.0)),
    "acosh": lambda b, op, x, y: b.reciprocal(b.sqrt(x * x - 1.0)),
    "atanh": lambda b, op, x, y: b.reciprocal(1.0 - x * x),
    "erf": lambda b, op, x, y: b.exp(-(x * x)) * (2 / math.sqrt(math.pi)),
    "sigmoid": lambda b, op, x, y: y * (1.0 - y),
    "relu": lambda b, op, x, y: b.cast(b.greater(x, 0.0), to=x.dtype),
    "leaky_relu": lambda b, op, x, y: _below(b, x, op.alpha, 1.0),
    "elu": lambda b, op, x, y: _below(b, x, y + op.alpha, 1.0),
    "selu": lambda b, op, x, y: _below(b, x, y + op.alpha * op.gamma, op.gamma),
    "celu": lambda b, op, x, y: _below(b, x, b.exp(x / op.alpha), 1.0),
    "thresholded_relu": lambda b, op, x, y: b.cast(b.greater(x, op.alpha), to=x.dtype),
    "shrink": lambda b, op, x, y: b.cast(b.greater(b.abs(x), op.lambd), to=x.dtype),
    "softplus": lambda b, op, x, y: b.sigmoid(x),
    "softsign": lambda b, op, x, y: b.reciprocal(_square(b.abs(x) + 1.0)),
    "hard_sigmoid": lambda b, op, x, y: _inner(b, y) * op.alpha,
    "hard_swish": lambda b, op, x, y: _hard_swish(b, x),
    "gelu": lambda b, op, x, y: _gelu(b, op, x),
    "swish": lambda b, op, x, y: _swish(b, op, x),
    "mish": lambda b, op, x, y: _mish(b, x),
}


def _square(x: Any) -> Any:
    return x * x


def _below(b: Any, x: Any, below: Any, above: float) -> Any:
    """`below` where x is below zero, else `above`."""
    below = _number(b, below, x) if isinstance(below, float) else below
    return b.expand(b.where(b.less(x, 0.0), below, _number(b, above, x)), shape=x.shape)


def _inner(b: Any, y: Any) -> Any:
    """1 where y lies between 0 and 1, else 0."""
    inside = b.and_(b.greater(y, 0.0), b.less(y, 1.0))
    return b.cast(inside, to=y.dtype)


def _hard_swish(b: Any, x: Any) -> Any:
    gate = b.hard_sigmoid(x, alpha=1 / 6, beta=0.5)
    return gate + x * _inner(b, gate) * (1 / 6)


def _gelu(b: Any, op: Any, x: Any) -> Any:
    if op.approximate:
        root = math.sqrt(2 / math.pi)
        inner = (x + x * x * x * 0.044715) * root
        tanh = b.tanh(inner)
        slope = (x * x * (3 * 0.044715) + 1.0) * root
        return (tanh + 1.0) * 0.5 + x * 0.5 * (1.0 - tanh * tanh) * slope
    below = (b.erf(x * math.sqrt(0.5)) + 1.0) * 0.5
    return below + x * b.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def _swish(b: Any, op: Any, x: Any) -> Any:
    gate = b.sigmoid(x * op.alpha)
    return gate + x * gate * (1.0 - gate) * op.alpha


def _mish(b: Any, x: Any) -> Any:
    tanh = b.tanh(b.softplus(x))
    return tanh + x * (1.0 - tanh * tanh) * b.sigmoid(x)


def _unary(derivative: Callable[[Any, Any, Any, Any], Any]) -> Rule:
    def rule(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
        return (grads[0] * derivative(b, node.op, node.inputs[0], node.outputs[0]),)

    return rule


# Operands that broadcast.


def _add(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    return tuple(sum_to(b, grads[0], x) for x in node.inputs)


def _sub(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    return sum_to(b, grads[0], x), sum_to(b, -grads[0], y)


def _mul(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    return sum_to(b, grads[0] * y, x), sum_to(b, grads[0] * x, y)


def _div(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    by_x = grads[0] / y
    return sum_to(b, by_x, x), sum_to(b, -(by_x * node.output), y)


def _pow(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    exponent = y if y.dtype == x.dtype else b.cast(y, to=x.dtype)
    slope = exponent * b.pow(x, exponent - 1.0)
    by_x = b.where(b.equal(exponent, 0.0), _number(b, 0.0, x), slope)  # x ** 0 is 1, at 0 as well
    if not y.dtype.is_float:
        return sum_to(b, grads[0] * by_x, x), None
    logarithm = b.log(b.where(b.greater(x, 0.0), x, _number(b, 1.0, x)))
    by_y = grads[0] * node.output * logarithm
    return sum_to(b, grads[0] * by_x, x), sum_to(b, by_y if y.dtype == x.dtype else b.cast(by_y, to=y.dtype), y)


def _extreme(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    is_first = b.greater(x, y) if node.op.name == "max" else b.less(x, y)
    share = b.where(b.equal(x, y), _number(b, 0.5, x), b.cast(is_first, to=x.dtype))
    return sum_to(b, grads[0] * share, x), sum_to(b, grads[0] * (1.0 - share), y)


def _clip(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, *bounds = node.inputs
    low, high = [*bounds, None, None][:2]
    total, results = grads[0], []
    for bound, compare in ((low, b.less), (high, b.greater)):
        if bound is None:
            results.append(None)
            continue
        outside = compare(x, bound)
        results.append(sum_to(b, _masked(b, outside, grads[0]), bound))
        total = b.where(outside, _number(b, 0.0, x), total)
    if low is not None and high is not None:
        results[0] = sum_to(b, _masked(b, b.and_(b.less(x, low), b.less(low, high)), grads[0]), low)
        at_high = _masked(b, b.greater(b.max(x, low), high), grads[0])
        results[1] = sum_to(b, at_high, high)
    return (total, *results)


def _where(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    condition, x, y = node.inputs
    zero = _number(b, 0.0, grads[0])
    return None, sum_to(b, b.where(condition, grads[0], zero), x), sum_to(b, b.where(condition, zero, grads[0]), y)


def _prelu(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, slope = node.inputs
    below = b.less(x, 0.0)
    by_slope = _masked(b, below, grads[0] * x)
    return b.where(below, grads[0] * slope, grads[0]), sum_to(b, by_slope, slope)


def _cast(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x = node.inputs[0]
    return (b.cast(grads[0], to=x.dtype) if x.dtype.is_float and node.op.to.is_float else None,)


# Products and convolutions.


def _swapped(b: Any, x: Any) -> Any:
    return b.transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _matmul(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, y = node.inputs
    wide_x = b.reshape(x, shape=(1, x.shape[0])) if x.rank == 1 else x
    wide_y = b.reshape(y, shape=(y.shape[0], 1)) if y.rank == 1 else y
    shape = list(grads[0].shape)
    if y.rank == 1:
        shape.append(1)
    if x.rank == 1:
        shape.insert(len(shape) - 1, 1)
    grad = b.reshape(grads[0], shape=tuple(shape)) if tuple(shape) != grads[0].shape else grads[0]
    by_x = sum_to(b, b.matmul(grad, _swapped(b, wide_y)), wide_x)
    by_y = sum_to(b, b.matmul(_swapped(b, wide_x), grad), wide_y)
    return b.reshape(by_x, shape=x.shape), b.reshape(by_y, shape=y.shape)


def _einsum(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    left, _, out = node.op.equation.replace(" ", "").partition("->")
    terms = left.split(",")
    is_plain = "->" in node.op.equation and "." not in left
    if not is_plain or any(len(set(term)) != len(term) for term in (*terms, out)):
        raise OpError(f"einsum {node.op.equation!r} has no derivative here: it has dots, a diagonal or no output")
    results = []
    for number, (term, x) in enumerate(zip(terms, node.inputs)):
        others = [(s, v) for i, (s, v) in enumerate(zip(terms, node.inputs)) if i != number]
        known = "".join(c for c in term if c in out or any(c in s for s, _ in others))
        equation = ",".join([out, *(s for s, _ in others)]) + "->" + known
        part = b.einsum(grads[0], *(v for _, v in others), equation=equation)
        kept = tuple(size if c in known else 1 for c, size in zip(term, x.shape))
        results.append(b.expand(b.reshape(part, shape=kept), shape=x.shape))
    return results


def _full(out: Sequence[Size], op: Any, window: Sequence[Size]) -> list[Size]:
    """How far windows `out` reach along each axis, counted from the first element of the image."""
    axes = zip(out, op.stride, window, op.dilation, op.pad)
    return [(o - 1) * s + (k - 1) * d + 1 - p for o, s, k, d, p in axes]


def _uncut(out: Sequence[Size], size: Sequence[Size], op: Any, window: Sequence[Size]) -> dict[str, Any]:
    """Attributes of the transposed convolution that leads from windows `out` back to an axis of `size` each."""
    before, full = op.pad[: len(out)], _full(out, op, window)
    after = tuple(maximum(f - n, 0) for f, n in zip(full, size))
    extra = tuple(maximum(n - f, 0) for f, n in zip(full, size))
    return {"stride": op.stride, "dilation": op.dilation, "pad": (*before, *after), "extra": extra}


def _conv(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, w, *rest = node.inputs
    bias = rest[0] if rest else None
    op, grad = node.op, grads[0]
    back = _uncut(grad.shape[2:], x.shape[2:], op, w.shape[2:])
    by_x = b.conv_transpose(grad, w, None, groups=op.groups, **back)
    by_bias = None if bias is None else b.reduce_sum(grad, axes=(0, *range(2, x.rank)), keepdims=False)
    if not isinstance(w.shape[0], int) or not isinstance(w.shape[1], int):
        raise OpError(f"conv of weights {w.type} has no derivative here: its channels must be known when compiling")
    swap = (1, 0, *range(2, x.rank))
    parts = []
    for group in range(op.groups):
        xs = _channels(b, x, group * w.shape[1], w.shape[1])
        gs = _channels(b, grad, group * (w.shape[0] // op.groups), w.shape[0] // op.groups)
        # The batch is summed over, as channels are: taps stride where windows dilated, and the other way round.
        part = b.conv(
            b.transpose(xs, perm=swap), b.transpose(gs, perm=swap), None,
            stride=op.dilation, dilation=op.stride, pad=op.pad,
        )  # fmt: skip
        part = b.transpose(part, perm=swap)
        parts.append(b.slice(part, starts=(0,) * w.rank, shape=(part.shape[0], *w.shape[1:]), steps=(1,) * w.rank))
    return by_x, parts[0] if len(parts) == 1 else b.concat(*parts, axis=0), by_bias


def _channels(b: Any, x: Any, start: int, count: int) -> Any:
    if x.shape[1] == count:
        return x
    rest = x.rank - 2
    return b.slice(x, starts=(0, start, *[0] * rest), shape=(x.shape[0], count, *x.shape[2:]), steps=(1,) * x.rank)


def _average_pool(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, op, channels = node.inputs[0], node.op, node.inputs[0].shape[1]
    if not isinstance(channels, int):
        raise OpError(f"average_pool of {x.type} has no derivative here: its channels must be known when compiling")
    grad, spatial = grads[0], x.rank - 2
    back = _uncut(grad.shape[2:], x.shape[2:], op, op.window)
    # Each window's divisor is the number of its taps that meet the image, or the image with its padding.
    image = [n + p + q if op.include_pad else n for n, p, q in zip(x.shape[2:], op.pad, op.pad[spatial:])]
    before = (0,) * spatial if op.include_pad else op.pad[:spatial]
    reach = [f + p for f, p in zip(_full(grad.shape[2:], op, op.window), op.pad)]
    after = tuple(maximum(r - p - n, 0) for r, p, n in zip(reach, before, image))
    ones = b.full(shape=(1, 1, *image), value=1.0, dtype=x.dtype)
    kernel = b.full(shape=(1, 1, *op.window), value=1.0, dtype=x.dtype)
    count = b.conv(ones, kernel, None, stride=op.stride, dilation=op.dilation, pad=(*before, *after))
    w = b.full(shape=(channels, 1, *op.window), value=1.0, dtype=x.dtype)
    return (b.conv_transpose(grad / count, w, None, groups=channels, **back),)


def _max_pool(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, op = node.inputs[0], node.op
    places = b.max_pool_indices(
        x, window=op.window, stride=op.stride, pad=op.pad, dilation=op.dilation, ceil=op.ceil
    )  # fmt: skip
    total, count = x.tensor.elements, grads[0].tensor.elements
    flat = b.full(shape=(total,), value=0.0, dtype=x.dtype)
    places, grad = b.reshape(places, shape=(count,)), b.reshape(grads[0], shape=(count,))
    return (b.reshape(b.scatter_elements(flat, places, grad, axis=0, reduction="add"), shape=x.shape),)


# Reductions.


def _spread(b: Any, node: Any, value: Any) -> Any:
    """What belongs to a reduction's result, with the reduced axes put back as axes of size 1."""
    x = node.inputs[0]
    reduced = normal_axes(node.op.axes, x.rank, node.op.name)
    shape = tuple(1 if a in reduced else size for a, size in enumerate(x.shape))
    return b.reshape(value, shape=shape) if shape != value.shape else value


def _gathered(b: Any, node: Any) -> Any:
    """How many elements each result of a reduction gathers, in the type of its operand."""
    x = node.inputs[0]
    count: Size = 1
    for axis in normal_axes(node.op.axes, x.rank, node.op.name):
        count = count * x.shape[axis]
    return b.cast(b.dims(count), to=x.dtype)


def _reduced(factor: Callable[[Any, Any, Any, Any], Any]) -> Rule:
    """The rule of a reduction: factor(b, node, x, y) is multiplied by the derivative of the result, both spread."""

    def rule(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
        x, grad = node.inputs[0], _spread(b, node, grads[0])
        made = factor(b, node, x, _spread(b, node, node.output))
        return (b.expand(grad if made is None else grad * made, shape=x.shape),)

    return rule


def _winners(b: Any, node: Any, x: Any, y: Any) -> Any:
    """The derivative of an extreme, shared equally by the elements that have it."""
    equal = b.cast(b.equal(x, y), to=x.dtype)
    return equal / b.reduce_sum(equal, axes=node.op.axes, keepdims=True)


def _length(b: Any, x: Any, y: Any) -> Any:
    """x / y, and 0 where the length y is 0."""
    is_zero = b.equal(y, 0.0)
    return x / b.where(is_zero, _number(b, 1.0, y), y)


_REDUCTIONS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "reduce_sum": lambda b, node, x, y: None,
    "reduce_mean": lambda b, node, x, y: b.reciprocal(_gathered(b, node)),
    "reduce_max": _winners,
    "reduce_min": _winners,
    "reduce_l1": lambda b, node, x, y: b.sign(x),
    "reduce_l2": lambda b, node, x, y: _length(b, x, y),
    "reduce_sum_square": lambda b, node, x, y: x * 2.0,
    "reduce_log_sum": lambda b, node, x, y: b.exp(-y),
    "reduce_log_sum_exp": lambda b, node, x, y: b.exp(x - y),
}


def _softmax(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    y = node.output
    return (y * (grads[0] - b.reduce_sum(grads[0] * y, axes=node.op.axes, keepdims=True)),)


def _log_softmax(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    total = b.reduce_sum(grads[0], axes=node.op.axes, keepdims=True)
    return (grads[0] - b.exp(node.output) * total,)


def _cum_sum(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    op = node.op
    return (b.cum_sum(grads[0], axis=op.axis, exclusive=op.exclusive, reverse=not op.reverse),)


# Movement.


def _reshape(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    return (b.reshape(grads[0], shape=node.inputs[0].shape),)


def _transpose(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    perm = node.op.perm
    return (b.transpose(grads[0], perm=tuple(perm.index(a) for a in range(len(perm)))),)


def _expand(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    return (sum_to(b, grads[0], node.inputs[0]),)


def _concat(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    axis, offset, results = node.op.axis, 0, []
    for x in node.inputs:
        starts = tuple(offset if a == axis else 0 for a in range(x.rank))
        results.append(b.slice(grads[0], starts=starts, shape=x.shape, steps=(1,) * x.rank))
        offset = offset + x.shape[axis]
    return results


def _slice(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    """The derivative put back where the slice was taken: spaced out by the steps, with zeros around."""
    x, op, grad = node.inputs[0], node.op, grads[0]
    for a, step in enumerate(op.steps):
        count = grad.shape[a]
        if step < 0:
            starts = tuple(count - 1 if c == a else 0 for c in range(x.rank))
            steps = tuple(-1 if c == a else 1 for c in range(x.rank))
            grad = b.slice(grad, starts=starts, shape=grad.shape, steps=steps)
        if abs(step) > 1:
            shape, rest = grad.shape, x.rank - a - 1
            grad = b.reshape(grad, shape=(*shape[: a + 1], 1, *shape[a + 1 :]))
            after = (*[0] * (a + 1), abs(step) - 1, *[0] * rest)
            grad = b.pad(grad, before=(0,) * grad.rank, after=after)
            grad = b.reshape(grad, shape=(*shape[:a], count * abs(step), *shape[a + 1 :]))
    before, after = [], []
    for start, count, step, size, spaced in zip(op.starts, op.shape, op.steps, x.shape, grad.shape):
        first = start if step > 0 else start + (count - 1) * step
        first = 0 if decide_eq(count, 0) else first
        before.append(first)
        after.append(size - first - spaced)
    return (b.pad(grad, before=tuple(before), after=tuple(after)),)


def _pad(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    if node.op.mode != "constant":
        raise OpError(f"pad of mode {node.op.mode!r} has no derivative here")
    before = tuple(-p for p in node.op.before)
    inner = b.pad(grads[0], before=before, after=tuple(-p for p in node.op.after))
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return (inner,)
    every = tuple(range(inner.rank))
    total = b.reduce_sum(grads[0], axes=every, keepdims=False) - b.reduce_sum(inner, axes=every, keepdims=False)
    return inner, total


def _tile(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x = node.inputs[0]
    split = tuple(size for pair in zip(node.op.repeats, x.shape) for size in pair)
    return (b.reduce_sum(b.reshape(grads[0], shape=split), axes=tuple(range(0, 2 * x.rank, 2)), keepdims=False),)


def _trilu(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    k = node.inputs[1] if len(node.inputs) > 1 else None
    return (b.trilu(grads[0], k, upper=node.op.upper, diagonal=node.op.diagonal), None)


def _gather(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, indices = node.inputs
    axis, width = node.op.axis, indices.rank
    first = (*range(axis, axis + width), *range(axis), *range(axis + width, x.rank - 1 + width))
    updates = b.transpose(grads[0], perm=first)
    others = (*x.shape[:axis], *x.shape[axis + 1 :])
    zeros = b.full(shape=(x.shape[axis], *others), value=0.0, dtype=x.dtype)
    places = b.reshape(indices, shape=(*indices.shape, 1))
    total = b.scatter_nd(
        zeros, places if indices.dtype == t.i64 else b.cast(places, to=t.i64), updates, reduction="add"
    )
    return b.transpose(total, perm=(*range(1, axis + 1), 0, *range(axis + 1, x.rank))), None


def _gather_elements(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, indices = node.inputs
    return b.scatter_elements(_zeros(b, x), indices, grads[0], axis=node.op.axis, reduction="add"), None


def _gather_nd(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x, indices = node.inputs
    if node.op.batch_dims:
        raise OpError("gather_nd with `batch_dims` has no derivative here")
    return b.scatter_nd(_zeros(b, x), indices, grads[0], reduction="add"), None


def _top_k(b: Any, node: Any, grads: Sequence[Any]) -> Sequence[Any]:
    x = node.inputs[0]
    return (b.scatter_elements(_zeros(b, x), node.outputs[1], grads[0], axis=node.op.axis, reduction="add"),)


RULES: dict[str, Rule] = {
    **{name: _unary(derivative) for name, derivative in _DERIVATIVES.items()},
    **{name: _reduced(factor) for name, factor in _REDUCTIONS.items()},
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "pow": _pow, "max": _extreme, "min": _extreme, "clip": _clip,
    "where": _where, "prelu": _prelu, "cast": _cast, "matmul": _matmul, "einsum": _einsum, "conv": _conv,
    "average_pool": _average_pool, "max_pool": _max_pool, "softmax": _softmax, "log_softmax": _log_softmax,
    "cum_sum": _cum_sum, "reshape": _reshape, "transpose": _transpose, "expand": _expand, "concat": _concat,
    "slice": _slice, "pad": _pad, "tile": _tile, "trilu": _trilu, "gather": _gather,
    "gather_elements": _gather_elements, "gather_nd": _gather_nd, "top_k": _top_k,
}  # fmt: skip

CONSTANT = frozenset(
    (
        "floor", "ceil", "round", "sign", "equal", "not_equal", "less", "less_or_equal", "greater", "greater_or_equal",
        "is_nan", "is_inf", "not", "and", "or", "xor", "arg_max", "arg_min", "hardmax", "full", "iota", "eye", "dims",
        "const",
    )
)  # fmt: skip
"""Ops whose results do not change with small changes of their operands: their derivative is 0."""

__all__ = ["CONSTANT", "RULES", "sum_to"]
