"""Axes that are computed while the model runs: which numbers belong to each axis of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.onnx.told import choose, count_of, numbers, vector
from ir import types as t
from ir.dims import Size


class RunTimeAxes:
    """Axes of a tensor of `rank` axes, given by an integer tensor; each may be counted from the end.

    `is_valid` is a bool scalar that a run gives: that each is one of the tensor's axes, and none is given twice.
    """

    def __init__(self, b: Any, axes: Any, rank: int) -> None:
        self.b = b
        self.count: Size = axes.shape[0] if axes.rank else 1
        given = numbers(b, axes)
        self.places = choose(b, b.less(given, 0), given + rank, given)
        column = b.reshape(b.iota(shape=(rank,)), shape=(rank, 1))
        self.hits = b.equal(column, b.reshape(self.places, shape=(1, self.count)))
        found = b.reduce_sum(b.cast(self.hits, to=t.i64), axes=(1,), keepdims=False)
        self.is_hit = b.greater(found, 0)
        once = b.less_or_equal(b.reduce_max(found, axes=(0,), keepdims=False), 1) if rank else b.const(True)
        total = b.reduce_sum(found, axes=(0,), keepdims=False) if rank else b.dims(0)
        self.is_valid = b.and_(once, b.equal(total, b.dims(self.count)))

    def by_axis(self, values: Any, default: Any) -> Any:
        """For each axis of the tensor the number of `values` that is for it, or `default` (a number for all axes, or an
        i64 tensor with one for each)."""
        b = self.b
        own = choose(b, self.hits, b.reshape(numbers(b, values), shape=(1, self.count)), 0)
        return choose(b, self.is_hit, b.reduce_sum(own, axes=(1,), keepdims=False), default)


def without_axes(b: Any, axes: Any, shape: Sequence[Size], only_ones: bool = True) -> Any:
    """The sizes of `shape` without those of `axes`, as an i64 tensor; -1 for each where the axes are not valid, or with
    `only_ones` where one has another size than 1."""
    chosen = RunTimeAxes(b, axes, len(shape))
    kept = b.not_(chosen.is_hit)
    is_valid = chosen.is_valid
    if only_ones and shape:
        wrong = b.and_(chosen.is_hit, b.not_equal(vector(b, shape), 1))
        is_valid = b.and_(is_valid, b.equal(b.reduce_max(b.cast(wrong, to=t.i64), axes=(0,), keepdims=False), 0))
    place = b.cum_sum(b.cast(kept, to=t.i64), axis=0, exclusive=True)
    return _placed(b, kept, place, shape, len(shape) - count_of(axes, "axes"), is_valid)


def with_axes(b: Any, axes: Any, shape: Sequence[Size]) -> Any:
    """The sizes of `shape` with a size of 1 at each of `axes`, axes of the result; -1 where the axes are not valid."""
    rank = len(shape) + count_of(axes, "axes")
    chosen = RunTimeAxes(b, axes, rank)
    kept = b.cast(b.not_(chosen.is_hit), to=t.i64)
    source = b.min(b.cum_sum(kept, axis=0, exclusive=True), max(len(shape) - 1, 0))
    sizes = b.gather(vector(b, shape), source, axis=0) if shape else b.full(shape=(rank,), value=1, dtype=t.i64)
    return choose(b, chosen.is_valid, choose(b, chosen.is_hit, 1, sizes), -1)


def _placed(b: Any, kept: Any, place: Any, shape: Sequence[Size], rank: int, is_valid: Any) -> Any:
    """The sizes that are kept, each at its place of `rank`."""
    column = b.reshape(b.iota(shape=(rank,)), shape=(rank, 1))
    row = (1, len(shape))
    hits = b.and_(b.equal(column, b.reshape(place, shape=row)), b.reshape(kept, shape=row))
    sizes = b.reduce_sum(choose(b, hits, b.reshape(vector(b, shape), shape=row), 0), axes=(1,), keepdims=False)
    return choose(b, is_valid, sizes, -1)


__all__ = ["RunTimeAxes", "with_axes", "without_axes"]
