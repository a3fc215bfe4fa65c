"""ONNX operators that move elements by index arithmetic: Transpose, Slice, Concat, Split, Pad, Tile and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.onnx.axes import RunTimeAxes
from compiler.onnx.ops.shape import demand_equal, from_front, normal_axes, normal_axis, reshaped
from compiler.onnx.registry import onnx_op
from compiler.onnx.run_time_movement import (
    padded_at_run_time,
    parts_at_run_time,
    repeats_at_run_time,
    sliced_at_run_time,
    spans_by_axis,
)
from compiler.onnx.told import choose, count_of, elements_of, is_known, number, sizes_of
from ir.dims import Dim, Max, Min, Size, ceil_div, maximum, minimum, terms
from ir.op import OpError
from ir.types import DTYPES

_ENDLESS = 10**9
"""Exporters write a bound this far away, or farther, for "to the end"."""


@onnx_op("Transpose", since=1)
def Transpose(b: Any, data: Any, *, perm: tuple[int, ...] | None = None) -> Any:
    axes = tuple(reversed(range(data.rank))) if perm is None else normal_axes(perm, data.rank)
    return data if axes == tuple(range(data.rank)) else b.transpose(data, perm=axes)


def sliced(b: Any, x: Any, axis: int, start: Size, count: Size, step: int = 1) -> Any:
    """`count` entries of x along one axis, from `start` on; x itself where that is all of it."""
    if (start, count, step) == (0, x.shape[axis], 1):
        return x
    starts, shape, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], shape[axis], steps[axis] = start, count, step
    return b.slice(x, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps))


def _clamped(b: Any, bound: Size, size: Size, low: Size, high: Size) -> Size:
    """A slice bound as ONNX reads it: from the end where negative, then brought between `low` and `high`."""
    if isinstance(bound, int) and abs(bound) >= _ENDLESS:
        return high if bound > 0 else low
    place = from_front(b, bound, size)
    if place is bound:
        return minimum(place, high)
    return maximum(low, minimum(place, high)) if low == 0 else minimum(high, maximum(low, place))


def _distance(end: Size, start: Size) -> Size:
    """end - start, with the other term taken into a minimum or maximum, so that d - max(0, d-k) becomes min(d, k)."""
    difference = end - start
    found = [(c, m[0]) for c, m in terms(difference) if len(m) == 1 and isinstance(m[0], (Min, Max)) and abs(c) == 1]
    if len(found) != 1 or len(terms(difference)) == 1:
        return difference
    sign, atom = found[0]
    rest = difference - sign * Dim(((1, (atom,)),))
    pick = minimum if isinstance(atom, Min) == (sign == 1) else maximum
    return pick(*(rest + sign * arg for arg in atom.args))


def _range(b: Any, size: Size, start: Size, end: Size, step: int) -> tuple[Size, Size]:
    """Where a slice of an axis of `size` starts, and how many entries it has."""
    if size == 0:
        return 0, 0
    if step > 0:
        first, stop = _clamped(b, start, size, 0, size), _clamped(b, end, size, 0, size)
        return first, maximum(0, ceil_div(_distance(stop, first), step))
    first, stop = _clamped(b, start, size, -1, size - 1), _clamped(b, end, size, -1, size - 1)
    return first, maximum(0, ceil_div(_distance(first, stop), -step))


def _slice(
    b: Any, data: Any, starts: Sequence[Size], ends: Sequence[Size], axes: Sequence[Size] | None, steps: Sequence[Size]
) -> Any:
    chosen = tuple(range(len(starts))) if axes is None else normal_axes(axes, data.rank)
    steps = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(chosen) == len(steps) or len(chosen) > data.rank:
        raise OpError("`starts`, `ends`, `axes` and `steps` must have one number for each axis")
    first, shape, by = [0] * data.rank, list(data.shape), [1] * data.rank
    for a, start, end, step in zip(chosen, starts, ends, steps):
        if not isinstance(step, int) or step == 0:
            raise OpError(f"`steps` has {step}; it must be a number other than 0")
        first[a], shape[a] = _range(b, data.shape[a], start, end, step)
        by[a] = 1 if shape[a] == 1 else step
    if tuple(shape) == data.shape and all(start == 0 for start in first) and all(step == 1 for step in by):
        return data
    return b.slice(data, starts=tuple(first), shape=tuple(shape), steps=tuple(by))


@onnx_op("Slice", since=1)
def Slice_1(
    b: Any, data: Any, *, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...] | None = None
) -> Any:
    return _slice(b, data, starts, ends, axes, ())


@onnx_op("Slice", since=10)
def Slice(b: Any, data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    if not is_known(starts, ends, axes, steps):
        return _slice_at_run_time(b, data, starts, ends, axes, steps)
    return _slice(
        b, data, b.sizes(starts, "starts"), b.sizes(ends, "ends"),
        None if axes is None else b.sizes(axes, "axes"), () if steps is None else b.sizes(steps, "steps"),
    )  # fmt: skip


def _slice_at_run_time(b: Any, data: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    """A slice where some numbers are computed at run time: axis by axis, those that are known as ever."""
    if axes is not None and is_known(axes):
        normal_axes(b.sizes(axes, "axes"), data.rank)
    spans, is_valid = spans_by_axis(b, data.rank, starts, ends, axes, steps)
    if any(a >= data.rank for a in spans):
        raise OpError(f"`starts` has {len(spans)} numbers; the tensor has {data.rank} axes")
    for a, span in spans.items():
        if all(isinstance(bound, (int, Dim)) for bound in (span.start, span.end, span.step)):
            data = _slice(b, data, [span.start], [span.end], [a], [span.step])
        else:
            data = sliced_at_run_time(b, data, a, span, is_valid, b.run_time_size(a))
    return data


@onnx_op("Concat", since=1)
def Concat_1(b: Any, *inputs: Any, axis: int = 1) -> Any:
    return Concat(b, *inputs, axis=axis)


@onnx_op("Concat", since=4)
def Concat(b: Any, *inputs: Any, axis: int) -> Any:
    if not inputs:
        raise OpError("it has no inputs")
    along = normal_axis(axis, inputs[0].rank)
    if any(x.rank != inputs[0].rank for x in inputs):
        raise OpError(f"its inputs have different ranks: {', '.join(str(x.type) for x in inputs)}")
    kept = [x for x in inputs if x.shape[along] != 0] or [inputs[0]]
    return kept[0] if len(kept) == 1 else b.concat(*kept, axis=along)


def parts_of(b: Any, x: Any, axis: int, counts: Sequence[Size]) -> tuple[Any, ...]:
    """x cut along one axis into parts of `counts` entries. Raises OpError where they do not add up to all of it."""
    size, total = x.shape[axis], sum(counts)
    demand_equal(b, total, size, f"`split` {list(counts)} does not add up to {size}")
    parts, start = [], 0
    for count in counts:
        parts.append(sliced(b, x, axis, start, count))
        start = start + count
    return tuple(parts)


def _even(b: Any, size: Size, parts: int) -> list[Size]:
    """`size` cut into equal parts. Raises OpError where it cannot be."""
    part = size // parts
    demand_equal(b, part * parts, size, f"an axis of size {size} does not split into {parts} equal parts")
    return [part] * parts


def _parts(b: Any, x: Any, axis: int, split: Any) -> Sequence[Size]:
    """The sizes of parts that a tensor gives."""
    return b.sizes(split, "split") if is_known(split) else parts_at_run_time(b, split, axis, x.shape[axis])


@onnx_op("Split", since=1)
def Split_1(b: Any, x: Any, split_: Any = None, *, axis: int = 0, split: tuple[int, ...] | None = None) -> Any:
    along = normal_axis(axis, x.rank)
    given = split if split_ is None else _parts(b, x, along, split_)
    return parts_of(b, x, along, given or _even(b, x.shape[along], len(b.output_names)))


@onnx_op("Split", since=13)
def Split_13(b: Any, x: Any, split: Any = None, *, axis: int = 0) -> Any:
    along = normal_axis(axis, x.rank)
    given = _even(b, x.shape[along], len(b.output_names)) if split is None else _parts(b, x, along, split)
    return parts_of(b, x, along, given)


@onnx_op("Split", since=18)
def Split(b: Any, x: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    along = normal_axis(axis, x.rank)
    if split is not None:
        return parts_of(b, x, along, _parts(b, x, along, split))
    parts, size = num_outputs or len(b.output_names), x.shape[along]
    part = ceil_div(size, parts)
    if isinstance(size, int):
        return parts_of(b, x, along, [max(0, min(part, size - n * part)) for n in range(parts)])
    if size // parts == part:
        return parts_of(b, x, along, [part] * parts)
    return parts_of(b, x, along, [*[part] * (parts - 1), size - part * (parts - 1)])


def _pad(
    b: Any, x: Any, before: Sequence[Size], after: Sequence[Size], mode: str, value: float, fill: Any = None
) -> Any:
    if mode != "constant":
        x = _cut(b, x, before, after)
        before, after = ([maximum(p, 0) for p in pads] for pads in (before, after))
    if all(p == 0 for p in (*before, *after)):
        return x
    return b.pad(x, fill, before=tuple(before), after=tuple(after), mode=mode, value=value)


def _cut(b: Any, x: Any, before: Sequence[Size], after: Sequence[Size]) -> Any:
    """x without what negative pads cut off."""
    for a, (p, q) in enumerate(zip(before, after)):
        front, back = maximum(-p, 0), maximum(-q, 0)
        x = sliced(b, x, a, front, x.shape[a] - front - back)
    return x


def _halves(pads: Sequence[Size], rank: int, axes: Sequence[int]) -> tuple[list[Size], list[Size]]:
    """`pads` (all those before, then all those after) as one number before and after for each axis of a tensor."""
    if len(pads) != 2 * len(axes):
        raise OpError(f"`pads` has {len(pads)} numbers; {len(axes)} axes need {2 * len(axes)}")
    before: list[Size] = [0] * rank
    after: list[Size] = [0] * rank
    for n, a in enumerate(axes):
        before[a], after[a] = pads[n], pads[len(axes) + n]
    return before, after


@onnx_op("Pad", since=1)
def Pad_1(b: Any, data: Any, *, paddings: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Any:
    return _pad(b, data, *_halves(paddings, data.rank, range(data.rank)), mode, value)


@onnx_op("Pad", since=2)
def Pad_2(b: Any, data: Any, *, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Any:
    return _pad(b, data, *_halves(pads, data.rank, range(data.rank)), mode, value)


@onnx_op("Pad", since=11)
def Pad(b: Any, data: Any, pads: Any, constant_value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    if not is_known(pads, axes):
        return _pad_at_run_time(b, data, pads, constant_value, axes, mode)
    chosen = range(data.rank) if axes is None else normal_axes(b.sizes(axes, "axes"), data.rank)
    before, after = _halves(b.sizes(pads, "pads"), data.rank, chosen)
    if constant_value is None or mode != "constant":
        return _pad(b, data, before, after, mode, 0)
    known = constant_value.content
    if known is None or known.dtype == object:
        return _pad(b, data, before, after, mode, 0, reshaped(b, constant_value, ()))
    return _pad(b, data, before, after, mode, known.reshape(-1)[0].item())


def _pad_at_run_time(b: Any, data: Any, pads: Any, fill: Any, axes: Any, mode: str) -> Any:
    chosen = axes
    if is_known(axes):
        chosen = tuple(range(data.rank)) if axes is None else normal_axes(b.sizes(axes, "axes"), data.rank)
    fill = reshaped(b, fill, ()) if fill is not None and mode == "constant" else None
    return padded_at_run_time(b, data, pads, chosen, mode, fill)


@onnx_op("Tile", since=6)
def Tile(b: Any, x: Any, repeats: Any) -> Any:
    if not is_known(repeats):
        return b.tile(x, repeats=repeats_at_run_time(b, x, elements_of(b, repeats, "repeats")))
    counts = b.sizes(repeats, "repeats")
    return x if all(count == 1 for count in counts) else b.tile(x, repeats=counts)


@onnx_op("Tile", since=1)
def Tile_1(b: Any, x: Any, tiles: Any, axis: Any) -> Any:
    if not is_known(tiles, axis):
        chosen = RunTimeAxes(b, axis, x.rank)
        counts = choose(b, chosen.is_valid, chosen.by_axis(tiles, 1), -1)
        return b.tile(x, repeats=repeats_at_run_time(b, x, [number(b, counts, a) for a in range(x.rank)]))
    count, along = b.scalar(tiles, "tiles"), normal_axis(int(b.scalar(axis, "axis")), x.rank)
    return b.tile(x, repeats=tuple(int(count) if a == along else 1 for a in range(x.rank)))


@onnx_op("DepthToSpace", since=1)
def DepthToSpace(b: Any, x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    if mode not in ("DCR", "CRD"):
        raise OpError(f"`mode` is {mode!r}; it must be DCR or CRD")
    n, c, h, w = _image(x)
    depth = c // blocksize**2
    if mode == "DCR":
        parts = b.reshape(x, shape=(n, blocksize, blocksize, depth, h, w))
        moved = b.transpose(parts, perm=(0, 3, 4, 1, 5, 2))
    else:
        parts = b.reshape(x, shape=(n, depth, blocksize, blocksize, h, w))
        moved = b.transpose(parts, perm=(0, 1, 4, 2, 5, 3))
    return b.reshape(moved, shape=(n, depth, h * blocksize, w * blocksize))


@onnx_op("SpaceToDepth", since=1)
def SpaceToDepth(b: Any, x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    if mode not in ("DCR", "CRD"):
        raise OpError(f"`mode` is {mode!r}; it must be DCR or CRD")
    n, c, h, w = _image(x)
    rows, columns = h // blocksize, w // blocksize
    parts = b.reshape(x, shape=(n, c, rows, blocksize, columns, blocksize))
    moved = b.transpose(parts, perm=(0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return b.reshape(moved, shape=(n, c * blocksize**2, rows, columns))


def _image(x: Any) -> tuple[Size, ...]:
    if x.rank != 4:
        raise OpError(f"the input is {x.type}; it must have 4 axes")
    return x.shape


@onnx_op("CenterCropPad", since=18)
def CenterCropPad(b: Any, x: Any, shape: Any, *, axes: tuple[int, ...] | None = None) -> Any:
    chosen = tuple(range(x.rank)) if axes is None else normal_axes(axes, x.rank)
    if count_of(shape, "shape") != len(chosen):
        raise OpError(f"`shape` has {count_of(shape, 'shape')} sizes for {len(chosen)} axes")
    target = sizes_of(b, shape, "shape", axes=chosen)
    before: list[Size] = [0] * x.rank
    after: list[Size] = [0] * x.rank
    for a, size in zip(chosen, target):
        kept = minimum(x.shape[a], size)
        missing = size - kept  # so that what is padded has the size itself, in its own form
        x = sliced(b, x, a, (x.shape[a] - kept) // 2, kept)
        before[a], after[a] = missing // 2, missing - missing // 2
    return _pad(b, x, before, after, "constant", 0)


@onnx_op("Trilu", since=14)
def Trilu(b: Any, x: Any, k: Any = None, *, upper: int = 1) -> Any:
    if k is None or k.content is not None:
        return b.trilu(x, None, upper=bool(upper), diagonal=0 if k is None else b.scalar(k, "k"))
    return b.trilu(x, reshaped(b, b.cast(k, to=DTYPES["i64"]), ()), upper=bool(upper))


@onnx_op("ReverseSequence", since=10)
def ReverseSequence(b: Any, x: Any, sequence_lens: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    return b.reverse_sequence(
        x, sequence_lens, batch=normal_axis(batch_axis, x.rank), time=normal_axis(time_axis, x.rank)
    )


__all__ = ["parts_of", "sliced"]
