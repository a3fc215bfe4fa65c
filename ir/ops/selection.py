"""Selection: where a tensor is not zero, which elements are the same, which boxes overlap.

What is selected is as long as the data says. Only `nonzero` has such a size; the others give places in tensors of fixed
sizes, marked where nothing stands, and `nonzero` with a gather does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, decide_eq
from ir.element import KernelBuilder, Output, Tensor, apply, cast, select
from ir.expr import Expr, Index
from ir.op import Op, assume_equal, case, define, op, require
from ir.ops.indexing import nest
from ir.types import TensorType

Before = Callable[[Expr, Expr], Expr]
"""before(a, b): whether entry a belongs before entry b; it may write statements."""


def sort_entries(k: KernelBuilder, entries: Output, row: tuple[Expr, ...], count: Expr, before: Before) -> None:
    """Sorts the first `count` entries of a row of i64 in place, by heap: `before` must be a strict total order.

    Any other `before` gives some order of the same entries, in bounded time.
    """
    if entries.shape[len(row)] == 0:
        return
    at = lambda i: entries.at(*row, i)  # noqa: E731

    def swap(i: Expr, j: Expr) -> None:
        kept = k.let("kept", at(i))
        k.store(entries, (*row, i), at(j))
        k.store(entries, (*row, j), kept)

    def sink(start: Expr, end: Expr) -> None:
        place = k.variable("place", start, t.i64)
        sinks = k.variable("sinks", True, t.bool_)
        with k.during(sinks & (place * 2 + 1 < end)):
            child = k.variable("child", place * 2 + 1, t.i64)
            with k.when(child + 1 < end):
                is_earlier = before(at(child), at(child + 1))
                with k.when(is_earlier):
                    k.assign(child, child + 1)
            is_earlier = before(at(place), at(child))
            with k.when(is_earlier):
                swap(place, child)
                k.assign(place, child)
            with k.otherwise():
                k.assign(sinks, False)

    half = k.let("half", count // 2)
    with k.loop(h=half) as h:
        sink(half - 1 - h, count)
    with k.loop(s=apply("max", count - 1, 0)) as s:
        last = k.let("last", count - 1 - s)
        swap(Index(t.i64, 0), last)
        sink(Index(t.i64, 0), last)


@op
class NonzeroFill(Op):
    """The indices of the elements of x that are not 0, row-major, as columns of i64[rank,size]; `count` is `size`."""

    defines = ("size",)
    size: Size
    examples = [
        case(np.array([[1.0, 0.0], [np.nan, -0.0]], np.float32), np.array(2), size=2),
        case(np.array([0, 3, 0, 5]), np.array(2), size=2),
        case(np.array([[[True]], [[False]]]), np.array(1), size=1),
        case(np.zeros((0, 3), np.int8), np.array(0), size=0),
        case(np.array(2.0), np.array(1), size=1),
    ]

    def infer(self, x: TensorType, count: TensorType) -> TensorType:
        _require_comparable("nonzero_fill", x)
        require(count == TensorType(t.i64, ()), lambda: f"nonzero_fill: the count is {count}")
        define(self.size, x.elements)
        return TensorType(t.i64, (x.rank, self.size))

    def reference(self, x: np.ndarray, count: np.ndarray) -> np.ndarray:
        return _nonzero(x)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, count: Tensor) -> None:
        at = k.variable("at", 0, t.i64)
        with nest(k, x.shape) as i:
            value = x.at(*i)
            # Never more than were counted, so that memory stays safe whatever the operands hold.
            with k.when((value if x.dtype == t.bool_ else value.differs(0)) & (at < count.at())):
                for axis, position in enumerate(i):
                    k.store(outs[0], (axis, at), position)
                k.assign(at, 1, "add")


@op
class Nonzero(Op):
    """The indices of the elements of x that are not 0, row-major, as the columns of i64[rank,size]."""

    defines = ("size",)
    size: Size
    examples = [
        case(np.array([[1.0, 0.0], [np.nan, -0.0]], np.float32), size=2),
        case(np.array([0, 3, 0, 5]), size=2),
        case(np.zeros((2, 0), np.bool_), size=0),
        case(np.array(True), size=1),
    ]

    def infer(self, x: TensorType) -> TensorType:
        _require_comparable("nonzero", x)
        define(self.size, x.elements)
        return TensorType(t.i64, (x.rank, self.size))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return _nonzero(x)

    def expand(self, b: Any, x: Any) -> Any:
        is_set = x if x.dtype == t.bool_ else b.not_equal(x, b.const(0, x.dtype))
        count = b.reduce_sum(b.cast(is_set, to=t.i64), axes=tuple(range(x.rank)), keepdims=False)
        return b.nonzero_fill(is_set, count, size=self.size)


def _nonzero(x: np.ndarray) -> np.ndarray:
    places = np.argwhere(x) if x.ndim else np.zeros((int(bool(x)), 0))
    return np.ascontiguousarray(places.T, dtype=np.int64)


def _require_comparable(name: str, x: TensorType) -> None:
    require(x.dtype.kind in ("float", "int", "uint", "bool"), lambda: f"{name} does not take {x.dtype}")


_NAN = np.array([2.0, np.nan, 1.0, np.nan, -0.0, 0.0, 2.0], np.float32)


@op
class UniquePlaces(Op):
    """Which entries along `axis` are equal: (first, inverse, counts), each i64 as long as the axis.

    first[u] is the first entry that equals distinct entry number u, counts[u] how many do; behind the last, they are
    -1 and 0. Entry i equals distinct entry number inverse[i]. These numbers ascend with the entries where `ordered`
    (element by element, NaN last and equal to itself; of complex numbers the real parts first), else with their first
    places.
    """

    axis: int = 0
    ordered: bool = True
    examples = [
        case(np.array([2, 1, 1, 3, 4, 3])),
        case(np.array([2, 1, 1, 3, 4, 3]), ordered=False),
        case(_NAN), case(_NAN, ordered=False),
        case(np.array([[1, 0, 0], [1, 0, 0], [0, 3, 4]], np.float32)),
        case(np.array([[[1, 1], [0, 1], [2, 1], [0, 1]]] * 2, np.int32), axis=1),
        case(np.array([True, False, True]), ordered=False),
        case(np.zeros((0, 2), np.float32)), case(np.zeros((2, 0), np.float32)), case("f16[9]"),
        case(np.array(["b", "ä", "", "b"], object)), case(np.array([["b", "a"], ["b", "a"]], object), ordered=False),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
        known = x.dtype.kind in ("float", "int", "uint", "bool", "string", "complex")
        require(known, lambda: f"unique_places does not take {x.dtype}")
        require(0 <= self.axis < x.rank, lambda: f"unique_places: axis {self.axis} of {x}")
        found = TensorType(t.i64, (x.shape[self.axis],))
        return found, found, found

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if x.dtype.kind == "c":  # the real part counts first
            x = np.moveaxis(np.stack([np.real(x), np.imag(x)], axis=-1), self.axis, 0)
        else:
            x = np.moveaxis(x, self.axis, 0)
        rows = [np.asarray(row, x.dtype).reshape(-1).tolist() for row in x]

        def compare(i: int, j: int) -> int:
            for a, c in zip(rows[i], rows[j]):
                if a != c and not (a != a and c != c):
                    return -1 if a < c or c != c else 1
            return 0

        groups: list[list[int]] = []
        for i in sorted(range(len(rows)), key=cmp_to_key(compare)):
            if groups and compare(groups[-1][0], i) == 0:
                groups[-1].append(i)
            else:
                groups.append([i])
        groups = groups if self.ordered else sorted(groups)
        first, inverse = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
        counts = np.zeros(len(rows), np.int64)
        for number, group in enumerate(groups):
            first[number], counts[number], inverse[group] = group[0], len(group), number
        return first, inverse, counts

    def on_cells(self, b: Any, x: Any) -> Any:
        """Cells compare as their strings do: bytes of UTF-8 are in the order of the code points."""
        return b.unique_places(x, axis=self.axis, ordered=self.ordered)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        first, inverse, counts = outs
        size = x.shape[self.axis]
        with k.loop(i=size) as i:
            k.store(first, (i,), i)
            k.store(counts, (i,), 0)
        order = lambda a, c: self._order(k, x, a, c)  # noqa: E731

        def before(a: Expr, c: Expr) -> Expr:
            verdict = order(a, c)
            return (verdict < 0) | (verdict.equals(0) & (a < c))

        sort_entries(k, first, (), Index(t.i64, size), before)
        # Equal entries stand together, the first in front: `first` is overwritten from its front as it is read.
        distinct = k.variable("distinct", 0, t.i64)
        with k.loop(j=size) as j:
            entry = k.let("entry", first.at(j))
            starts = k.variable("starts", True, t.bool_)
            with k.when(distinct > 0):
                k.assign(starts, order(first.at(distinct - 1), entry).differs(0))
            with k.when(starts):
                k.store(first, (distinct,), entry)
                k.assign(distinct, 1, "add")
            k.store(inverse, (entry,), distinct - 1)
            k.store(counts, (distinct - 1,), 1, "add")
        with k.loop(j=size) as j, k.when(j >= distinct):
            k.store(first, (j,), -1)
        if not self.ordered:
            self._by_first_place(k, first, inverse, counts, size)

    def _order(self, k: KernelBuilder, x: Tensor, a: Expr, c: Expr) -> Expr:
        """Below, equal to or above 0 as entry a comes before, equals or comes after entry c."""
        verdict = k.variable("verdict", 0, t.i64)
        others = (*x.shape[: self.axis], *x.shape[self.axis + 1 :])
        with nest(k, others) as i, k.when(verdict.equals(0)):
            left = k.let("left", _number(x.at(*i[: self.axis], a, *i[self.axis :])))
            right = k.let("right", _number(x.at(*i[: self.axis], c, *i[self.axis :])))
            below, above = left < right, left > right
            if x.dtype.is_float:
                below = below | (apply("isnan", right) & apply("not", apply("isnan", left)))
                above = above | (apply("isnan", left) & apply("not", apply("isnan", right)))
            k.assign(verdict, select(below, Index(t.i64, -1), select(above, Index(t.i64, 1), Index(t.i64, 0))))
        return verdict

    def _by_first_place(self, k: KernelBuilder, first: Output, inverse: Output, counts: Output, size: Size) -> None:
        """Numbers the distinct entries anew, as they come up; `counts` holds the new numbers in between."""
        number = k.variable("number", 0, t.i64)
        with k.loop(i=size) as i, k.when(first.at(inverse.at(i)).equals(i)):
            k.store(counts, (inverse.at(i),), number)
            k.assign(number, 1, "add")
        with k.loop(i=size) as i:
            k.store(inverse, (i,), counts.at(inverse.at(i)))
        with k.loop(i=size) as i:
            k.store(counts, (i,), 0)
        k.assign(number, 0)
        with k.loop(i=size) as i:
            with k.when(inverse.at(i).equals(number)):
                k.store(first, (number,), i)
                k.assign(number, 1, "add")
            k.store(counts, (inverse.at(i),), 1, "add")


def _number(value: Expr) -> Expr:
    return cast(value, t.u8) if value.dtype == t.bool_ else value


_BOXES = np.array(
    [[0, 0, 1, 1], [0, 0.1, 1, 1.1], [1, 0.9, 0, -0.1], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]],
    np.float32,
)
_SCORES = np.array([[0.9, 0.75, 0.6, 0.95, 0.5, 0.3], [0.5, 0.5, np.nan, 0.5, 0.9, 0.5]], np.float32)
_MOST, _SHARE = np.array(3), np.array(0.5, np.float32)


@op
class NonMaxPlaces(Op):
    """Boxes chosen greedily by score, without those that overlap a chosen one: places[b,c,n], -1 behind the last.

    Of boxes[b,n,4], at most `most` of each class by scores[b,c,n], best first, equals in their own order. A box is
    passed over where its score is not above `threshold` (or is NaN), or where its intersection with a chosen box is
    more than `share` of their union. Boxes are two corners y, x, y, x; or with `centered` center and size x, y, w, h.
    """

    centered: bool = False
    examples = [
        case(_BOXES[None], _SCORES[None], _MOST, _SHARE, np.array(0.0, np.float32)),
        case(_BOXES[None], _SCORES[None, :1], _MOST, _SHARE, np.array(0.6, np.float32), centered=True),
        case("f32[2,5,4]", "f32[2,3,5]", np.array(9), np.array(0.1, np.float32), None),
        case("f32[1,7,4]", "f32[1,1,7]", np.array(-1), None, None),
        case("f32[1,0,4]", "f32[1,2,0]", np.array(1), None, None),
    ]  # fmt: skip

    def infer(
        self, boxes: TensorType, scores: TensorType, most: TensorType, share: TensorType | None = None,
        threshold: TensorType | None = None,
    ) -> TensorType:  # fmt: skip
        fits = boxes.rank == 3 and scores.rank == 3 and decide_eq(boxes.shape[2], 4) is not False
        require(fits, lambda: f"non_max_places: boxes are {boxes}, scores {scores}")
        require(boxes.dtype == scores.dtype == t.f32, lambda: f"non_max_places: boxes {boxes}, scores {scores}")
        require(most == TensorType(t.i64, ()), lambda: f"non_max_places: the number of boxes is {most}")
        known = all(limit in (None, TensorType(t.f32, ())) for limit in (share, threshold))
        require(known, lambda: f"non_max_places: the limits are {share} and {threshold}")
        pairs = ((boxes.shape[0], scores.shape[0]), (boxes.shape[1], scores.shape[2]), (boxes.shape[2], 4))
        for ours, theirs in pairs:
            require(decide_eq(ours, theirs) is not False, lambda: f"non_max_places: boxes {boxes}, scores {scores}")
            assume_equal(ours, theirs)
        return TensorType(t.i64, scores.shape)

    def reference(
        self, boxes: np.ndarray, scores: np.ndarray, most: np.ndarray, share: np.ndarray | None = None,
        threshold: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        share = np.zeros((), np.float32) if share is None else share
        places = np.full(scores.shape, -1)
        for batch, of_class in np.ndindex(*scores.shape[:2]):
            given = scores[batch, of_class]
            taken = ~np.isnan(given) if threshold is None else given > threshold
            chosen: list[int] = []
            for i in sorted(np.flatnonzero(taken).tolist(), key=lambda i: (-given[i], i)):
                if len(chosen) >= int(most):
                    break
                if not any(self._overlap(boxes[batch, i], boxes[batch, j], share) for j in chosen):
                    chosen.append(i)
            places[batch, of_class, : len(chosen)] = chosen
        return places

    def _overlap(self, a: np.ndarray, c: np.ndarray, share: np.ndarray) -> bool:
        spans, areas = [], []
        for box in (a, c):
            if self.centered:
                half = box[2:] / np.float32(2)
                low, high = box[:2] - half, box[:2] + half
            else:
                low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
            spans.append((low, high))
            areas.append((high[0] - low[0]) * (high[1] - low[1]))
        sides = np.minimum(spans[0][1], spans[1][1]) - np.maximum(spans[0][0], spans[1][0])
        shared = sides[0] * sides[1]
        union = areas[0] + areas[1] - shared
        if min(sides) <= 0 or shared <= 0 or min(areas) <= 0 or union <= 0:
            return False
        return bool(shared / union > share)

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], boxes: Tensor, scores: Tensor, most: Tensor,
        share: Tensor | None = None, threshold: Tensor | None = None,
    ) -> None:  # fmt: skip
        (places,) = outs
        with k.loop("parallel", c=scores.shape[1], b=scores.shape[0]) as (c, b):
            count = k.variable("count", 0, t.i64)
            with k.loop(n=scores.shape[2]) as n:
                score = k.let("score", scores.at(b, c, n))
                taken = score.equals(score) if threshold is None else score > threshold.at()
                with k.when(taken):
                    k.store(places, (b, c, count), n)
                    k.assign(count, 1, "add")

            def before(i: Expr, j: Expr) -> Expr:
                one, other = k.let("one", scores.at(b, c, i)), k.let("other", scores.at(b, c, j))
                return (one > other) | (one.equals(other) & (i < j))

            sort_entries(k, places, (b, c), count, before)
            # The chosen boxes are written in front of those that are still to be looked at.
            chosen = k.variable("chosen", 0, t.i64)
            with k.loop(r=count) as r, k.when(chosen < most.at()):
                place = k.let("place", places.at(b, c, r))
                apart = k.variable("apart", True, t.bool_)
                j = k.variable("j", 0, t.i64)
                with k.during(apart & (j < chosen)):
                    limit = None if share is None else share.at()
                    k.assign(apart, apply("not", self._overlaps(k, boxes, b, place, places.at(b, c, j), limit)))
                    k.assign(j, 1, "add")
                with k.when(apart):
                    k.store(places, (b, c, chosen), place)
                    k.assign(chosen, 1, "add")
            with k.loop(n=scores.shape[2]) as n, k.when(n >= chosen):
                k.store(places, (b, c, n), -1)

    def _overlaps(self, k: KernelBuilder, boxes: Tensor, b: Expr, i: Expr, j: Expr, share: Expr | None) -> Expr:
        """Whether boxes i and j share more than they may."""
        low: list[list[Expr]] = []
        high: list[list[Expr]] = []
        for box, name in ((i, "a"), (j, "c")):
            place = k.let(f"{name}_at", box)
            value = [boxes.at(b, place, axis) for axis in range(4)]
            if self.centered:
                half = [value[2] / 2.0, value[3] / 2.0]
                low.append([k.let(f"{name}_low", v - h) for v, h in zip(value, half)])
                high.append([k.let(f"{name}_high", v + h) for v, h in zip(value, half)])
            else:
                low.append([k.let(f"{name}_low", apply("min", value[x], value[x + 2])) for x in range(2)])
                high.append([k.let(f"{name}_high", apply("max", value[x], value[x + 2])) for x in range(2)])
        areas = [k.let("area", (last[0] - first[0]) * (last[1] - first[1])) for first, last in zip(low, high)]
        sides = [
            k.let("side", apply("min", high[0][x], high[1][x]) - apply("max", low[0][x], low[1][x])) for x in range(2)
        ]
        shared = k.let("shared", sides[0] * sides[1])
        union = k.let("union", areas[0] + areas[1] - shared)
        sound = union > 0.0
        for part in (*sides, shared, *areas):
            sound = sound & (part > 0.0)
        ratio = shared / select(sound, union, 1.0)
        return sound & (ratio > (0.0 if share is None else share))


__all__ = ["NonMaxPlaces", "Nonzero", "NonzeroFill", "UniquePlaces", "sort_entries"]
