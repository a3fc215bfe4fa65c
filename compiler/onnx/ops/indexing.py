"""ONNX operators that index with tensors, search, or scan: Gather, Scatter, OneHot, TopK, ArgMax, CumSum, Unique."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from compiler.onnx.ops.movement import sliced
from compiler.onnx.ops.shape import demand_at_most, elements, from_front, normal_axis, reshaped
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import choose, demand, elements_of, is_known, number, numbers, sizes_of, told
from ir import types as t
from ir.dims import Dim, Size, decide_le, minimum
from ir.op import OpError


@onnx_op("Gather", since=1)
def Gather(b: Any, data: Any, indices: Any, *, axis: int = 0) -> Any:
    along = normal_axis(axis, data.rank)
    known = indices.content
    run = None if known is None else _run(b, known.reshape(-1).tolist(), data.shape[along])
    if known is None or run is None:
        return b.gather(data, indices, axis=along)
    start, step = run
    for place in dict.fromkeys((start, start + (known.size - 1) * step)):
        message = f"index {place} into an axis of size {data.shape[along]}"
        demand_at_most(b, 0, place, message)
        demand_at_most(b, place, data.shape[along] - 1, message)
    part = sliced(b, data, along, start, known.size, step)
    return reshaped(b, part, (*data.shape[:along], *indices.shape, *data.shape[along + 1 :]))


def _run(b: Any, indices: Sequence[Size], size: Size) -> tuple[Size, int] | None:
    """Start and step, where known indices into an axis of `size` are evenly spaced: then they are a slice."""
    if not indices:
        return None
    if isinstance(size, int) and any(isinstance(i, int) and not -size <= i < size for i in indices):
        raise OpError(f"index {next(i for i in indices if not -size <= i < size)} into an axis of size {size}")
    if len(indices) == 1:
        return from_front(b, indices[0], size), 1
    places = [i + size if isinstance(i, int) and i < 0 else i for i in indices]
    steps = {after - before for before, after in pairwise(places)}
    step = steps.pop()
    return (places[0], step) if not steps and isinstance(step, int) and step != 0 else None


@onnx_op("GatherElements", since=11)
def GatherElements(b: Any, data: Any, indices: Any, *, axis: int = 0) -> Any:
    return b.gather_elements(data, indices, axis=normal_axis(axis, data.rank))


@onnx_op("GatherND", since=11)
def GatherND(b: Any, data: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    return b.gather_nd(data, indices, batch_dims=batch_dims)


@onnx_op("Scatter", since=9)
def Scatter(b: Any, data: Any, indices: Any, updates: Any, *, axis: int = 0) -> Any:
    return b.scatter_elements(data, indices, updates, axis=normal_axis(axis, data.rank))


@onnx_op("ScatterElements", since=11)
def ScatterElements(b: Any, data: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    return b.scatter_elements(data, indices, updates, axis=normal_axis(axis, data.rank), reduction=reduction)


@onnx_op("ScatterND", since=11)
def ScatterND(b: Any, data: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    return b.scatter_nd(data, indices, updates, reduction=reduction)


@onnx_op("TensorScatter", since=24)
def TensorScatter(
    b: Any, past_cache: Any, update: Any, write_indices: Any = None, *, axis: int = -2, mode: str = "linear"
) -> Any:
    if mode not in ("linear", "circular"):
        raise OpError(f"`mode` is {mode!r}; it must be linear or circular")
    along = normal_axis(axis, past_cache.rank)
    return b.tensor_scatter(past_cache, update, write_indices, axis=along, circular=mode == "circular")


@onnx_op("OneHot", since=9)
def OneHot(b: Any, indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    along = normal_axis(axis, indices.rank + 1)
    if is_known(depth):
        classes = b.scalar(depth, "depth")
        classes = int(classes) if isinstance(classes, float) else classes
    else:
        classes = told(b, number(b, numbers(b, depth)), b.run_time_size(along, is_bounded=False))
    return b.one_hot(indices, values, axis=along, depth=classes)


def _block(b: Any, x: Any, axis: int, size: Any) -> Size:
    """The size of blocks along an axis, which a run tells: at least 1, and no more than x has rows."""
    return told(b, choose(b, b.less(size, 1), -1, size), b.run_time_number(f"block{axis}"), x.shape[1])


@onnx_op("Col2Im", since=18)
def Col2Im(
    b: Any, x: Any, image_shape: Any, block_shape: Any, *, dilations: tuple[int, ...] = (), pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    blocks = [
        size if isinstance(size, (int, Dim)) else _block(b, x, a, size)
        for a, size in enumerate(elements_of(b, block_shape, "block_shape"))
    ]
    image = sizes_of(b, image_shape, "image_shape", first=2)
    ones = (1,) * len(image)
    return b.col2im(
        x, shape=image, block=tuple(blocks), stride=strides or ones, dilation=dilations or ones,
        pad=pads or (0,) * (2 * len(image)),
    )  # fmt: skip


@onnx_op("TopK", since=1)
def TopK_1(b: Any, x: Any, *, k: int, axis: int = -1) -> Any:
    return b.top_k(x, axis=normal_axis(axis, x.rank), count=k)


@onnx_op("TopK", since=10)
def TopK(b: Any, x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    along = normal_axis(axis, x.rank)
    if is_known(k):
        count = b.scalar(k, "k")
    else:
        count = told(b, number(b, numbers(b, k)), b.run_time_size(along), x.shape[along])
    return b.top_k(x, axis=along, count=count, largest=bool(largest))


def _arg(b: Any, name: str, x: Any, axis: int, keepdims: int, last: int) -> Any:
    along = normal_axis(axis, x.rank)
    found = getattr(b, name)(x, axis=along, last=bool(last))
    return b.reshape(found, shape=(*x.shape[:along], 1, *x.shape[along + 1 :])) if keepdims else found


@onnx_op("ArgMax", since=1)
def ArgMax(b: Any, x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(b, "arg_max", x, axis, keepdims, select_last_index)


@onnx_op("ArgMin", since=1)
def ArgMin(b: Any, x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(b, "arg_min", x, axis, keepdims, select_last_index)


def _scan(b: Any, name: str, x: Any, axis: Any, exclusive: int, reverse: int) -> Any:
    """A running total; where the axis is known at run time only, every one of them, and a choice."""
    scan = getattr(b, name)
    options = {"exclusive": bool(exclusive), "reverse": bool(reverse)}
    if axis.content is not None:
        return scan(x, axis=normal_axis(int(b.scalar(axis, "axis")), x.rank), **options)
    which = reshaped(b, axis, ())
    demand(b, b.and_(b.greater_or_equal(which, -x.rank), b.less(which, x.rank)))
    result = scan(x, axis=x.rank - 1, **options)
    for along in range(x.rank - 1):
        for spelling in (along, along - x.rank):
            result = b.where(b.equal(which, spelling), scan(x, axis=along, **options), result)
    return result


@onnx_op("CumSum", since=11)
def CumSum(b: Any, x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return _scan(b, "cum_sum", x, axis, exclusive, reverse)


@onnx_op("CumProd", since=26)
def CumProd(b: Any, x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return _scan(b, "cum_prod", x, axis, exclusive, reverse)


def _is_known(value: Any) -> bool:
    """Whether the elements themselves are known: what is selected from them has a size known when compiling, too."""
    return value.content is not None and (value.content.dtype != object or value.dtype == t.string)


def nonzero(b: Any, x: Any, size: Callable[[], Size]) -> Any:
    """The indices of what is not 0 as columns; where they are not known when compiling, as many as `size()` says."""
    filled = getattr(x.node.op, "value", 0) if x.node is not None and x.node.op.name == "full" else 0
    if x.rank == 1 and filled:  # how old exporters write a range
        return b.iota(shape=(1, x.shape[0]), axis=1)
    if _is_known(x):
        places = np.argwhere(x.content) if x.rank else np.zeros((int(bool(x.content)), 0))
        return b.const(np.ascontiguousarray(places.T, dtype=np.int64))
    if x.dtype.kind in ("complex", "string"):
        x = b.not_equal(x, b.const(np.array("", object) if x.dtype == t.string else 0, x.dtype))
    return b.nonzero(x, size=size())


def _chosen(b: Any, condition: Any, axis: int) -> Any:
    """The places along one axis where a condition holds; `axis` is that of the first output whose size this is."""
    places = nonzero(b, condition, lambda: b.run_time_size(axis))
    return b.reshape(places, shape=(places.shape[1],))


@onnx_op("NonZero", since=9)
def NonZero(b: Any, x: Any) -> Any:
    return nonzero(b, x, lambda: b.run_time_size(1))


@onnx_op("Compress", since=9)
def Compress(b: Any, x: Any, condition: Any, *, axis: int | None = None) -> Any:
    if condition.rank != 1:
        raise OpError(f"the condition is {condition.type}; it must have one axis")
    x = reshaped(b, x, (elements(x.shape),)) if axis is None else x
    along = 0 if axis is None else normal_axis(axis, x.rank)
    if decide_le(condition.shape[0], x.shape[along]) is not True:  # what lies beyond the axis chooses nothing
        length = minimum(condition.shape[0], x.shape[along])
        condition = b.slice(condition, starts=(0,), shape=(length,), steps=(1,))
    return b.gather(x, _chosen(b, condition, along), axis=along)


@onnx_op("Unique", since=11)
def Unique(b: Any, x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    x = reshaped(b, x, (elements(x.shape),)) if axis is None else x
    along = 0 if axis is None else normal_axis(axis, x.rank)
    first, inverse, counts = b.unique_places(x, axis=along, ordered=bool(sorted))
    if _is_known(first):
        distinct = b.const(np.arange(int((first.content >= 0).sum())))
    else:
        distinct = _chosen(b, b.greater_or_equal(first, b.const(0, t.i64)), along)
    first = b.gather(first, distinct, axis=0)
    return b.gather(x, first, axis=along), first, inverse, b.gather(counts, distinct, axis=0)
