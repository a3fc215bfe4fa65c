"""Slices, pads, repeats and parts whose numbers are computed while the model runs, by ops that take sizes.

All are brought into bounds by ops on scalars first, so that no value leads outside of a tensor: see `told`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compiler.onnx.axes import RunTimeAxes
from compiler.onnx.told import FARTHEST, choose, count_of, elements_of, is_known, number, numbers, scalar, told
from ir.dims import Dim, Size
from ir.op import OpError

_ENDLESS = 1 << 62
"""A bound of a slice that is farther than any size."""


@dataclass(frozen=True)
class Span:
    """What to take of one axis: bounds and step as ONNX gives them, each a number or an i64 scalar."""

    start: Any
    end: Any
    step: Any


def spans_by_axis(b: Any, rank: int, starts: Any, ends: Any, axes: Any, steps: Any) -> tuple[dict[int, Span], Any]:
    """The span of each axis that is sliced, and a bool scalar that says whether the axes are valid (None: they are)."""
    if not is_known(axes):
        chosen = RunTimeAxes(b, axes, rank)
        columns = [chosen.by_axis(starts, 0), chosen.by_axis(ends, _ENDLESS)]
        columns += [] if steps is None else [chosen.by_axis(steps, 1)]
        found = {a: Span(*(number(b, c, a) for c in columns)) if steps is not None
                 else Span(number(b, columns[0], a), number(b, columns[1], a), 1) for a in range(rank)}  # fmt: skip
        return found, chosen.is_valid
    count = count_of(starts, "starts")
    places = range(count) if axes is None else [axis % rank for axis in b.sizes(axes, "axes")]
    rows = [
        [1] * count if values is None else elements_of(b, values, what)
        for values, what in ((starts, "starts"), (ends, "ends"), (steps, "steps"))
    ]
    if any(len(row) != count for row in rows) or len(set(places)) != count:
        raise OpError("`starts`, `ends`, `axes` and `steps` must have one number for each axis")
    return {a: Span(*(row[n] for row in rows)) for n, a in enumerate(places)}, None


def sliced_at_run_time(b: Any, x: Any, axis: int, span: Span, is_valid: Any, size: Size) -> Any:
    """x with the entries of one axis that a span takes; `size` is what their number becomes."""
    extent = scalar(b, x.shape[axis])
    step = b.max(b.min(scalar(b, span.step), extent + 1), -(extent + 1))
    forward = b.greater(step, 0)
    low, high = choose(b, forward, 0, -1), choose(b, forward, extent, extent - 1)
    first, stop = (_within(b, scalar(b, bound), extent, low, high) for bound in (span.start, span.end))
    stride = b.max(b.abs(step), 1)
    count = b.max(b.div(choose(b, forward, stop - first, first - stop) + stride - 1, stride), 0)
    bad = b.equal(step, 0) if not isinstance(span.step, int) else b.const(False)
    bad = bad if is_valid is None else b.or_(bad, b.not_(is_valid))
    count = told(b, choose(b, bad, -1, count), size, x.shape[axis])
    starts, shape, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    shape[axis] = count
    if isinstance(span.step, int):
        starts[axis] = told(b, b.max(first, 0), b.run_time_number(f"start{axis}"), x.shape[axis])
        steps[axis] = span.step
        return b.slice(x, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps))
    places = b.iota(shape=(count,)) * step + first
    return b.gather(x, places, axis=axis)


def _within(b: Any, bound: Any, extent: Any, low: Any, high: Any) -> Any:
    """A bound counted from the front, brought between `low` and `high`."""
    return b.max(b.min(choose(b, b.less(bound, 0), bound + extent, bound), high), low)


def padded_at_run_time(b: Any, x: Any, pads: Any, axes: Sequence[int] | Any, mode: str, fill: Any) -> Any:
    """x with pads that only a run tells; negative ones cut off. `axes` are numbers, or a tensor of them."""
    if isinstance(axes, Sequence):
        row, count = elements_of(b, pads, "pads"), len(axes)
        if len(row) != 2 * count:
            raise OpError(f"`pads` has {len(row)} numbers; {count} axes need {2 * count}")
        given = {a: (row[n], row[count + n]) for n, a in enumerate(axes)}
        is_valid = None
    else:
        chosen, wide = RunTimeAxes(b, axes, x.rank), numbers(b, pads)
        count = chosen.count
        halves = [b.slice(wide, starts=(start,), shape=(count,), steps=(1,)) for start in (0, count)]
        before, after = (chosen.by_axis(half, 0) for half in halves)
        given = {a: (number(b, before, a), number(b, after, a)) for a in range(x.rank)}
        is_valid = chosen.is_valid
    zeros: list[Size] = [0] * x.rank
    front, behind, outs = list(zeros), list(zeros), list(x.shape)
    for a, (p, q) in given.items():
        if (p, q) == (0, 0):
            continue
        outs[a] = b.run_time_size(a, is_bounded=False)
        x, front[a], behind[a] = _padded_axis(b, x, a, scalar(b, p), scalar(b, q), outs[a], is_valid, mode)
    return b.pad(x, fill, before=tuple(front), after=tuple(behind), mode=mode)


def _padded_axis(
    b: Any, x: Any, axis: int, before: Any, after: Any, out: Size, is_valid: Any, mode: str
) -> tuple[Any, Size, Size]:
    """x without what pads cut off, and the numbers of elements to add in front of the axis and behind."""
    before, after = (b.max(b.min(pad, FARTHEST), -FARTHEST) for pad in (before, after))
    total = b.dims(x.shape[axis]) + before + after
    if is_valid is not None:
        total = choose(b, is_valid, total, -1)
    if mode != "constant":
        return _mirrored_axis(b, x, axis, before, after, total, out)
    told(b, total, out)
    front = told(b, b.max(before, 0), b.run_time_number(f"before{axis}"), FARTHEST)
    front = front - told(b, b.max(-before, 0), b.run_time_number(f"cut{axis}"), FARTHEST)
    return x, front, out - x.shape[axis] - front


def _mirrored_axis(b: Any, x: Any, axis: int, before: Any, after: Any, total: Any, out: Size) -> tuple[Any, Size, Size]:
    """`_padded_axis` where what is added are elements of x: there must be one then."""
    cut = b.max(-before, 0)
    left = b.dims(x.shape[axis]) - cut - b.max(-after, 0)
    is_nothing = b.or_(b.less(left, 0), b.and_(b.equal(left, 0), b.greater(total, 0)))
    told(b, choose(b, is_nothing, -1, total), out)
    kept = told(b, left, b.run_time_number(f"kept{axis}"), x.shape[axis])
    start = told(b, cut, b.run_time_number(f"cut{axis}"), x.shape[axis])
    front = told(b, b.max(before, 0), b.run_time_number(f"before{axis}"), FARTHEST)
    starts, shape = [0] * x.rank, list(x.shape)
    starts[axis], shape[axis] = start, kept
    x = b.slice(x, starts=tuple(starts), shape=tuple(shape), steps=(1,) * x.rank)
    return x, front, out - kept - front


def repeats_at_run_time(b: Any, x: Any, counts: Sequence[Any]) -> tuple[Size, ...]:
    """How often to repeat x along each axis, where `counts` has numbers and scalars."""
    found: list[Size] = []
    for a, (size, count) in enumerate(zip(x.shape, counts)):
        declared = b.run_time_size(a, is_bounded=False) if size == 1 else b.declared_size(a)
        whole = isinstance(size, int) and isinstance(declared, int) and size > 0 and declared % size == 0
        if isinstance(count, (int, Dim)):
            found.append(count)
        elif size == 1 or whole:
            found.append(told(b, count, declared if size == 1 else declared // size))
        else:
            found.append(told(b, count, b.run_time_number(f"repeats{a}")))
    return tuple(found)


def parts_at_run_time(b: Any, values: Any, axis: int, size: Size) -> list[Size]:
    """The sizes of the parts that an axis of `size` is split into."""
    found = elements_of(b, values, "split")
    return [
        count if isinstance(count, (int, Dim)) else told(b, count, b.run_time_size(axis, n), size)
        for n, count in enumerate(found)
    ]


__all__ = [
    "Span", "padded_at_run_time", "parts_at_run_time", "repeats_at_run_time", "sliced_at_run_time",
    "spans_by_axis",
]  # fmt: skip
