"""ONNX operators that ask for a shape or change one without moving elements: Shape, Size, Reshape, Squeeze, Expand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.onnx.axes import with_axes, without_axes
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import choose, count_of, elements_of, is_known, known_numbers, number, numbers, told
from ir.demand import equal_or_one, may_stretch, not_negative, unequal
from ir.dims import Dim, Size, decide_eq, decide_le, minimum, symbol_of, upper_bound
from ir.op import OpError
from ir.ops.run_time_sizes import most_elements


def normal_axis(axis: Size, rank: int, what: str = "axis") -> int:
    """`axis` counted from the front. Raises OpError where it is not one of `rank` axes, or not a number."""
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise OpError(f"`{what}` is {axis}; the tensor has {rank} axes")
    return axis + rank if axis < 0 else axis


def normal_axes(axes: Sequence[Size], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, in the order given. Raises OpError for one out of range or given twice."""
    found = tuple(normal_axis(axis, rank, "axes") for axis in axes)
    if len(set(found)) != len(found):
        raise OpError(f"`axes` {list(axes)} names an axis twice")
    return found


def elements(shape: Sequence[Size]) -> Size:
    """The number of elements of a shape."""
    product: Size = 1
    for size in shape:
        product = product * size
    return product


def demand_equal(b: Any, a: Size, c: Size, message: str) -> None:
    """Records that two sizes must be equal. Raises OpError(message) where they cannot be."""
    if decide_eq(a, c) is False:
        raise OpError(message)
    b.assume_equal(a, c)


def demand_at_most(b: Any, size: Size, most: Size, message: str) -> None:
    """Records that a size must be no more than another. Raises OpError(message) where it cannot be."""
    fits = decide_le(size, most)
    if fits is False:
        raise OpError(message)
    if fits is None:
        b.assume_equal(*not_negative(most - size))


def from_front(b: Any, position: Size, size: Size) -> Size:
    """A position on an axis of `size`, counted from its end where negative, as one from the front.

    Where the sign of a symbolic position is not known, the likely one is assumed, and checked when the program runs.
    """
    if decide_le(0, position):
        return position
    if decide_le(position, -1):
        return position + size
    if (upper_bound(position) or 1) <= 0:
        b.assume_equal(minimum(position, -1), position)
        return position + size
    b.assume_equal(*not_negative(position))
    return position


def reshaped(b: Any, x: Any, shape: Sequence[Size]) -> Any:
    """x with `shape`; x itself where it has that shape already."""
    return x if tuple(shape) == x.shape else b.reshape(x, shape=tuple(shape))


def resolved(b: Any, source: Sequence[Size], target: Sequence[Size], keep_zero: bool) -> tuple[Size, ...]:
    """The shape that ONNX Reshape gives a tensor of shape `source` for `target`, where 0 copies and -1 is solved."""
    shape: list[Size] = list(target)
    for a, size in enumerate(target):
        if size == 0 and not keep_zero:
            if a >= len(source):
                raise OpError(f"`shape` {list(target)} copies axis {a} of a tensor with {len(source)} axes")
            shape[a] = source[a]
    unknown = [a for a, size in enumerate(shape) if size == -1]
    if len(unknown) > 1 or any(isinstance(size, int) and size < -1 for size in shape):
        raise OpError(f"`shape` {list(target)} has more than one -1, or less than -1")
    for a in unknown:
        shape[a] = _missing(b, source, [size for size in shape if size != -1], target)
    if decide_eq(elements(shape), elements(source)) is False:
        raise OpError(f"a tensor of shape {list(source)} cannot be reshaped to {list(target)}")
    return tuple(shape)


def _missing(b: Any, source: Sequence[Size], known: Sequence[Size], target: Sequence[Size]) -> Size:
    """The size that makes `known` hold as many elements as `source`."""
    left, right = list(source), []
    for size in known:  # cancelling axis by axis decides 0/0, and keeps products small
        if size in left:
            left.remove(size)
        else:
            right.append(size)
    total, divisor = elements(left), elements(right)
    if divisor == 0:
        raise OpError(f"`shape` {list(target)} leaves -1 undefined for a tensor of shape {list(source)}")
    size = total // divisor
    demand_equal(b, size * divisor, total, f"`shape` {list(target)} does not divide a tensor of shape {list(source)}")
    return size


@onnx_op("Shape", since=1)
def Shape(b: Any, data: Any, *, start: int = 0, end: int | None = None) -> Any:
    return b.dims(data.shape[slice(start, end)])


@onnx_op("Size", since=1)
def Size_(b: Any, data: Any) -> Any:
    return b.dims(elements(data.shape))


@onnx_op("Reshape", since=1)
def Reshape_1(b: Any, data: Any, *, shape: tuple[int, ...] = (), consumed_inputs: tuple[int, ...] = ()) -> Any:
    return reshaped(b, data, resolved(b, data.shape, shape, keep_zero=False))


@onnx_op("Reshape", since=5)
def Reshape(b: Any, data: Any, shape: Any, *, allowzero: int = 0) -> Any:
    if is_known(shape):
        return reshaped(b, data, resolved(b, data.shape, b.sizes(shape, "shape"), keep_zero=bool(allowzero)))
    return _reshaped_at_run_time(b, data, shape, keep_zero=bool(allowzero))


def _reshaped_at_run_time(b: Any, data: Any, shape: Any, keep_zero: bool) -> Any:
    """data with the shape that a tensor tells. What is known of it stays as it is, and is checked."""
    count_of(shape, "shape")
    wanted = known_numbers(shape)
    for a, size in enumerate(wanted):
        if size == 0 and not keep_zero and a < data.rank:
            wanted[a] = data.shape[a]
    known = [size if size is not None and decide_le(0, size) else None for size in wanted]
    sizes = b.reshape_sizes(numbers(b, shape), source=data.shape, keep_zero=keep_zero)
    return reshaped(b, data, told_shape(b, data, sizes, known))


def told_shape(b: Any, data: Any, sizes: Any, known: Sequence[Size | None]) -> tuple[Size, ...]:
    """The shape that the i64 tensor `sizes` tells, which is one that `data` can take, or less than 0; `known` are those
    of its sizes that are."""
    limit = most_elements(data.shape)
    found: list[Size] = []
    for a, size in enumerate(known):
        chosen = size if size is not None else b.run_time_size(a, is_bounded=False)
        others = [other for other in found if symbol_of(other) is not None]
        found.append(told(b, number(b, sizes, a), chosen, limit, others if symbol_of(chosen) is not None else ()))
    return tuple(found)


@onnx_op("Flatten", since=1)
def Flatten(b: Any, x: Any, *, axis: int = 1) -> Any:
    if not -x.rank <= axis <= x.rank:
        raise OpError(f"`axis` is {axis}; the tensor has {x.rank} axes")
    cut = axis + x.rank if axis < 0 else axis
    return reshaped(b, x, (elements(x.shape[:cut]), elements(x.shape[cut:])))


def _squeezed(b: Any, data: Any, axes: Sequence[Size] | None) -> Any:
    if axes is None:
        return reshaped(b, data, _without_ones(b, data.shape))
    dropped = normal_axes(axes, data.rank)
    for a in dropped:
        demand_equal(b, data.shape[a], 1, f"axis {a} of {data.type} cannot be squeezed: its size is not 1")
    return reshaped(b, data, [size for a, size in enumerate(data.shape) if a not in dropped])


def _without_ones(b: Any, shape: Sequence[Size]) -> list[Size]:
    """The sizes that are not 1. Of those that only a run tells, all are 1 or none is where the rank that the model
    declares leaves no other choice, and that is checked when it runs."""
    verdicts = [b.is_equal(size, 1) for size in shape]
    unsure = [size for size, is_one in zip(shape, verdicts) if is_one is None]
    kept = [size for size, is_one in zip(shape, verdicts) if is_one is False]
    declared = b.declared_rank()
    if unsure and declared == len(kept):
        for size in unsure:
            b.assume_equal(size, 1)
        return kept
    if unsure and declared == len(kept) + len(unsure):
        for size in unsure:
            b.assume_equal(*unequal(size, 1))
        return [size for size, is_one in zip(shape, verdicts) if is_one is not True]
    if unsure:
        raise OpError(f"without `axes`, the rank depends on whether {unsure[0]} is 1; fix or bound that size")
    return kept


@onnx_op("Squeeze", since=1)
def Squeeze_1(b: Any, data: Any, *, axes: tuple[int, ...] | None = None) -> Any:
    return _squeezed(b, data, axes)


@onnx_op("Squeeze", since=13)
def Squeeze(b: Any, data: Any, axes: Any = None) -> Any:
    if axes is not None and not is_known(axes):
        sizes = without_axes(b, axes, data.shape)
        return reshaped(b, data, told_shape(b, data, sizes, [None] * sizes.shape[0]))
    return _squeezed(b, data, None if axes is None else b.sizes(axes, "axes"))


def _unsqueezed(b: Any, data: Any, axes: Sequence[Size]) -> Any:
    rank = data.rank + len(axes)
    added = normal_axes(axes, rank)
    kept = iter(data.shape)
    return reshaped(b, data, [1 if a in added else next(kept) for a in range(rank)])


@onnx_op("Unsqueeze", since=1)
def Unsqueeze_1(b: Any, data: Any, *, axes: tuple[int, ...]) -> Any:
    return _unsqueezed(b, data, axes)


@onnx_op("Unsqueeze", since=13)
def Unsqueeze(b: Any, data: Any, axes: Any) -> Any:
    if not is_known(axes):
        sizes = with_axes(b, axes, data.shape)
        return reshaped(b, data, told_shape(b, data, sizes, [None] * sizes.shape[0]))
    return _unsqueezed(b, data, b.sizes(axes, "axes"))


@onnx_op("Expand", since=8)
def Expand(b: Any, data: Any, shape: Any) -> Any:
    target = elements_of(b, shape, "shape")
    if any(isinstance(size, int) and size < 0 for size in target):
        raise OpError(f"`shape` is {list(target)}; sizes cannot be negative")
    rank = max(data.rank, len(target))
    padded = [(1,) * (rank - len(sizes)) + tuple(sizes) for sizes in (data.shape, target)]
    wide = tuple(_expanded(b, axis, own, size) for axis, (own, size) in enumerate(zip(*padded)))
    return data if wide == data.shape else b.expand(data, shape=wide)


def _expanded(b: Any, axis: int, own: Size, size: Any) -> Size:
    """The size that an axis of `own` has when expanded to `size`, a size or a scalar, where either may be 1. Raises
    OpError."""
    if not isinstance(size, (int, Dim)):
        return _expanded_at_run_time(b, axis, own, size)
    if size == 1 or own == size:
        return own
    if own == 1 or may_stretch(own, size):
        return size  # that `own` is 1 or `size` is demanded by the op
    if may_stretch(size, own):
        b.assume_equal(*equal_or_one(size, own))
        return own
    demand_equal(b, own, size, f"an axis of size {own} does not expand to {size}")
    return own


def _expanded_at_run_time(b: Any, axis: int, own: Size, size: Any) -> Size:
    """`_expanded` where only a run tells the size. An axis that is not of size 1 keeps its own."""
    if own == 1:
        return told(b, size, b.run_time_size(axis, is_bounded=False))
    fits = b.or_(b.equal(b.dims(own), 1), b.equal(size, b.dims(own)))
    wanted = choose(b, b.equal(size, 1), own, choose(b, fits, size, -1))
    return told(b, wanted, own if b.is_equal(own, 1) is False else b.run_time_size(axis, is_bounded=False))


__all__ = [
    "demand_at_most", "demand_equal", "elements", "from_front", "normal_axes", "normal_axis", "reshaped", "told_shape",
]  # fmt: skip
