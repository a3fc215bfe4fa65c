"""Indexing: ops that read or write where another tensor says (gather, scatter, one-hot), and folding of columns.

Indices count from the end of the axis where they are negative. One outside the axis is the caller's error, and memory
stays safe: a read takes the nearest entry, a write is dropped, `reference` raises IndexError. Plain slices, whose
positions are attributes, are in `movement`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, decide_eq, minimum
from ir.element import KernelBuilder, Output, Tensor, sum_over
from ir.expr import Expr, Index, cast, const, select
from ir.kernel import Mark
from ir.op import Op, assume_equal, case, ints, op, require, require_at_most, sizes
from ir.ops.movement import lesser, same_width
from ir.types import TensorType


def wrapped(index: Expr, size: Size) -> Expr:
    """An index of any integer type as i64, negative ones counted from the end of an axis of `size`."""
    index = cast(index, t.i64)
    return select(index < 0, index + size, index)


@contextmanager
def nest(k: KernelBuilder, shape: Sequence[Size], mark: Mark = "") -> Iterator[tuple[Expr, ...]]:
    """Loops over every index of `shape`, which may be empty; the outermost loop gets `mark`."""
    if not shape:
        yield ()
        return
    with k.loop(mark, **{f"i{a}": size for a, size in enumerate(shape)}) as index:
        yield index if isinstance(index, tuple) else (index,)


def _copy(k: KernelBuilder, out: Output, source: Tensor) -> None:
    with nest(k, source.shape, "parallel") as i:
        k.store(out, i, source.at(*i))


def _require_entry(op_name: str, axes: Sequence[Size], indices: Sequence[Size]) -> None:
    """Demands that axes which indices of some shape name entries of are not empty, unless there are no indices."""
    for size in axes:
        require_at_most(f"{op_name} of an axis of size {size}", minimum(math.prod(indices, start=1), 1), size)  # type: ignore[arg-type]


def _require_beside(op_name: str, axis: int, x: TensorType, indices: TensorType) -> None:
    """Demands that indices along `axis` have no entries beside those of x along the other axes. Raises OpError."""
    require(0 <= axis < x.rank, lambda: f"{op_name}: axis {axis} of {x}")
    require(x.rank == indices.rank, lambda: f"{op_name}: {x} and indices {indices} have different ranks")
    for a, (own, size) in enumerate(zip(indices.shape, x.shape)):
        if a != axis:
            require_at_most(f"{op_name}: axis {a} of indices {indices}", own, size)


def _require_indices(op_name: str, indices: TensorType) -> None:
    require(indices.dtype in (t.i32, t.i64), lambda: f"{op_name}: indices are {indices}, not i32 or i64")


def _assume_same(op_name: str, ours: Sequence[Size], theirs: Sequence[Size]) -> None:
    """Demands equal sizes, axis by axis. Raises OpError where they provably differ."""
    same = len(ours) == len(theirs) and all(decide_eq(a, b) is not False for a, b in zip(ours, theirs))
    require(same, lambda: f"{op_name}: sizes {list(ours)} and {list(theirs)} differ")
    for a, b in zip(ours, theirs):
        assume_equal(a, b)


@op
class Gather(Op):
    """x with axis `axis` replaced by the axes of `indices`: the entries of x that they name."""

    axis: int = 0
    symbolic = True
    examples = [
        case("f32[4,3]", np.array([[0, -1], [2, 1]])),
        case("f32[2,3,2]", np.array([2, 0], np.int32), axis=1),
        case("i64[3]", np.array(-2)),
        case("string[2,3]", np.array([2, -3, 0]), axis=1),
    ]

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        require(0 <= self.axis < x.rank, lambda: f"gather: axis {self.axis} of {x}")
        _require_indices("gather", indices)
        _require_entry("gather", x.shape[self.axis : self.axis + 1], indices.shape)
        return x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def reference(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.take(x, indices.astype(np.int64), axis=self.axis)

    def element(self, i: tuple[Expr, ...], x: Tensor, indices: Tensor) -> Expr:
        after = self.axis + indices.rank
        position = wrapped(indices.at(*i[self.axis : after]), x.shape[self.axis])
        return x.at(*i[: self.axis], position, *i[after:])

    def on_cells(self, b: Any, x: Any, indices: Any) -> Any:
        return b.gather(x, indices, axis=self.axis)


@op
class GatherElements(Op):
    """y[i] = x[i with i[axis] replaced by indices[i]]; the result has the shape of `indices`."""

    axis: int = 0
    symbolic = True
    examples = [
        case("f32[3,4]", np.array([[0, -1, 2], [1, 1, 0]])),
        case("f32[2,3]", np.array([[2, 2, 0, 1], [-3, 0, 0, 1]], np.int32), axis=1),
        case("string[3,2]", np.array([[2, -1]]), axis=0),
    ]

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _require_beside("gather_elements", self.axis, x, indices)
        _require_indices("gather_elements", indices)
        _require_entry("gather_elements", x.shape[self.axis : self.axis + 1], indices.shape)
        return x.with_shape(indices.shape)

    def reference(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return x[_grid(indices, self.axis)]

    def element(self, i: tuple[Expr, ...], x: Tensor, indices: Tensor) -> Expr:
        position = wrapped(indices.at(*i), x.shape[self.axis])
        return x.at(*i[: self.axis], position, *i[self.axis + 1 :])

    def on_cells(self, b: Any, x: Any, indices: Any) -> Any:
        return b.gather_elements(x, _for_bytes(b, indices, x.shape[-1]), axis=self.axis)


def _for_bytes(b: Any, indices: Any, width: Size) -> Any:
    """Indices of strings as indices of the bytes of their cells."""
    return b.expand(b.reshape(indices, shape=(*indices.shape, 1)), shape=(*indices.shape, width))


def _grid(indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """The index arrays that name, for each place of `indices`, that place with its `axis` replaced."""
    grid = np.indices(indices.shape, sparse=True)
    return (*grid[:axis], indices.astype(np.int64), *grid[axis + 1 :])


@op
class GatherND(Op):
    """Slices of x named by the rows of `indices`: y[b, o, ...] = x[b, *indices[b, o], ...], `batch_dims` axes b."""

    batch_dims: int = 0
    symbolic = True
    examples = [
        case("f32[2,3,4]", np.array([[1, 0], [0, -1], [1, 2]])),
        case("f32[2,3,4]", np.array([[[1], [0]], [[-1], [2]]]), batch_dims=1),
        case("f32[2,2]", np.array([1, 1])),
        case("string[2,3]", np.array([[1, 0], [0, -1]])),
        case("string[3]", np.array([2])),
    ]

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _require_indices("gather_nd", indices)
        depth, batch = _depth("gather_nd", indices), self.batch_dims
        fits = 0 <= batch < indices.rank and batch + depth <= x.rank
        require(fits, lambda: f"gather_nd: {x} has too few axes for indices {indices} with {batch} batch axes")
        _assume_same("gather_nd", x.shape[:batch], indices.shape[:batch])
        _require_entry("gather_nd", x.shape[batch : batch + depth], indices.shape[:-1])
        return x.with_shape((*indices.shape[:-1], *x.shape[batch + depth :]))

    def reference(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        batch, depth = self.batch_dims, indices.shape[-1]
        own = np.indices(indices.shape[:-1], sparse=True)[:batch]
        named = [indices[..., j].astype(np.int64) for j in range(depth)]
        return (
            np.asarray(x[(*own, *named)], x.dtype)
            if batch + depth
            else np.broadcast_to(x, (*indices.shape[:-1], *x.shape))
        )

    def element(self, i: tuple[Expr, ...], x: Tensor, indices: Tensor) -> Expr:
        batch, rows, depth = self.batch_dims, indices.rank - 1, _depth("gather_nd", indices.type)
        named = [wrapped(indices.at(*i[:rows], j), x.shape[batch + j]) for j in range(depth)]
        return x.at(*i[:batch], *named, *i[rows:])

    def on_cells(self, b: Any, x: Any, indices: Any) -> Any:
        return b.gather_nd(x, indices, batch_dims=self.batch_dims)


def _depth(op_name: str, indices: TensorType) -> int:
    """How many axes a row of `indices` names. Raises OpError where that is not known."""
    depth = indices.shape[-1] if indices.rank else None
    require(isinstance(depth, int), lambda: f"{op_name}: the last axis of indices {indices} must have a known size")
    assert isinstance(depth, int)
    return depth


REDUCTIONS: dict[str, str | None] = {"none": None, "add": "add", "mul": "mul", "max": "max", "min": "min"}
_COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter_reference(x: np.ndarray, at: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> np.ndarray:
    out = x.astype(
        object if object in (x.dtype, updates.dtype) else x.dtype
    )  # object where either holds symbolic sizes
    if reduction == "none":
        out[at] = updates
    else:
        _COMBINE[reduction].at(out, at, updates)
    return out


@op
class ScatterElements(Op):
    """x with elements replaced by, or combined with, `updates`, at their own index with that of `axis` given.

    Where an element is named more than once, updates apply in order.
    """

    axis: int = 0
    reduction: str = "none"
    symbolic = True
    examples = [
        case("f32[3,3]", np.array([[1, 0, 2], [0, 2, 1]]), "f32[2,3]"),
        case("f32[1,5]", np.array([[1, -1, 1]], np.int32), "f32[1,3]", axis=1, reduction="add"),
        case("i64[4]", np.array([3, 0, 3]), "i64[3]", reduction="max"),
        case("string[4]", np.array([3, 0, 3]), np.array(["x", "yyyy", "z"], object)),
    ]

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        _require_beside("scatter_elements", self.axis, x, indices)
        _require_scatter("scatter_elements", x, indices, updates, self.reduction)
        _assume_same("scatter_elements", indices.shape, updates.shape)
        return x

    def reference(self, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        return _scatter_reference(x, _grid(indices, self.axis), updates, self.reduction)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, indices: Tensor, updates: Tensor) -> None:
        _copy(k, outs[0], x)
        with nest(k, indices.shape) as i:
            position = k.let("position", wrapped(indices.at(*i), x.shape[self.axis]))
            at = (*i[: self.axis], position, *i[self.axis + 1 :])
            k.store(outs[0], at, updates.at(*i), REDUCTIONS[self.reduction])

    def on_cells(self, b: Any, x: Any, indices: Any, updates: Any) -> Any:
        require(self.reduction == "none", lambda: f"scatter_elements: strings have no {self.reduction}")
        x, updates = same_width(b, x, updates)
        return b.scatter_elements(x, _for_bytes(b, indices, x.shape[-1]), updates, axis=self.axis)


def _require_scatter(op_name: str, x: TensorType, indices: TensorType, updates: TensorType, reduction: str) -> None:
    _require_indices(op_name, indices)
    require(x.dtype == updates.dtype, lambda: f"{op_name}: {x} is updated with {updates}")
    require(reduction in REDUCTIONS, lambda: f"{op_name}: reduction {reduction!r} is none of {', '.join(REDUCTIONS)}")


@op
class ScatterND(Op):
    """x with the slices that the rows of `indices` name replaced by, or combined with, `updates`, in order."""

    reduction: str = "none"
    symbolic = True
    examples = [
        case("f32[4,3]", np.array([[2], [-4]]), "f32[2,3]"),
        case("f32[2,3]", np.array([[[0, 1]], [[0, 1]]]), "f32[2,1]", reduction="add"),
        case("i64[4]", np.array([[3], [0], [3]]), "i64[3]", reduction="min"),
        case("string[2,3]", np.array([[1]]), "string[1,3]"),
    ]

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        _require_scatter("scatter_nd", x, indices, updates, self.reduction)
        depth = _depth("scatter_nd", indices)
        require(depth <= x.rank, lambda: f"scatter_nd: {x} has too few axes for indices {indices}")
        _assume_same("scatter_nd", (*indices.shape[:-1], *x.shape[depth:]), updates.shape)
        return x

    def reference(self, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        at = tuple(indices[..., j].astype(np.int64) for j in range(indices.shape[-1]))
        return _scatter_reference(x, at, updates, self.reduction)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, indices: Tensor, updates: Tensor) -> None:
        _copy(k, outs[0], x)
        rows, depth = indices.rank - 1, _depth("scatter_nd", indices.type)
        with nest(k, updates.shape[:rows]) as i:
            named = [k.let("position", wrapped(indices.at(*i, j), x.shape[j])) for j in range(depth)]
            with nest(k, updates.shape[rows:]) as rest:
                k.store(outs[0], (*named, *rest), updates.at(*i, *rest), REDUCTIONS[self.reduction])

    def on_cells(self, b: Any, x: Any, indices: Any, updates: Any) -> Any:
        require(self.reduction == "none", lambda: f"scatter_nd: strings have no {self.reduction}")
        x, updates = same_width(b, x, updates)
        return b.scatter_nd(x, indices, updates)


@op
class TensorScatter(Op):
    """A cache with `update` written along `axis` from starts[n] on (0 without starts), n being the index on axis 0.

    Where `circular`, places are taken modulo the size of the axis; else what lies outside of it is dropped.
    """

    axis: int
    circular: bool = False
    examples = [
        case("f32[2,4,3]", "f32[2,2,3]", np.array([1, 2]), axis=1),
        case("f32[2,1,4,2]", "f32[2,1,3,2]", np.array([3, 0]), axis=2, circular=True),
        case("f32[2,4]", "f32[2,1]", None, axis=1),
    ]

    def infer(self, x: TensorType, update: TensorType, starts: TensorType | None = None) -> TensorType:
        require(0 < self.axis < x.rank, lambda: f"tensor_scatter: axis {self.axis} of {x}")
        require(x.dtype == update.dtype, lambda: f"tensor_scatter: {x} is updated with {update}")
        require_at_most("tensor_scatter: the update", update.shape[self.axis], x.shape[self.axis])
        others = [s for a, s in enumerate(x.shape) if a != self.axis]
        _assume_same("tensor_scatter", others, [s for a, s in enumerate(update.shape) if a != self.axis])
        if starts is not None:
            _require_indices("tensor_scatter", starts)
            _assume_same("tensor_scatter", x.shape[:1], starts.shape)
        return x

    def reference(self, x: np.ndarray, update: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        out = x.copy()
        for n in range(x.shape[0]):
            start = 0 if starts is None else int(starts[n])
            for step in range(update.shape[self.axis]):
                place = (start + step) % x.shape[self.axis] if self.circular else start + step
                if place < 0:
                    raise IndexError(f"row {place} of a cache of {x.shape[self.axis]} rows")
                np.moveaxis(out[n], self.axis - 1, 0)[place] = np.moveaxis(update[n], self.axis - 1, 0)[step]
        return out

    def element(self, i: tuple[Expr, ...], x: Tensor, update: Tensor, starts: Tensor | None = None) -> Expr:
        start = Index(t.i64, 0) if starts is None else cast(starts.at(i[0]), t.i64)
        step = i[self.axis] - start
        if self.circular:
            step = step % x.shape[self.axis]
        written = (step >= 0) & (step < Index(t.i64, update.shape[self.axis]))
        return select(written, update.at(*i[: self.axis], step, *i[self.axis + 1 :]), x.at(*i))


@op
class OneHot(Op):
    """values[1] where the new axis `axis`, of size `depth`, has the index that `indices` names; elsewhere values[0]."""

    axis: int
    depth: Size = 1
    examples = [
        case(np.array([[1, -1], [5, 0]]), "f32[2]", axis=2, depth=4),
        case(np.array([1.0, 2.0], np.float32), "i32[2]", axis=0, depth=3),
        case(np.array([1, -1]), np.array(["off", "on"], object), axis=1, depth=3),
    ]

    def infer(self, indices: TensorType, values: TensorType) -> TensorType:
        require(0 <= self.axis <= indices.rank, lambda: f"one_hot: axis {self.axis} beside the axes of {indices}")
        _assume_same("one_hot", values.shape, (2,))
        return values.with_shape((*indices.shape[: self.axis], self.depth, *indices.shape[self.axis :]))

    def reference(self, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
        hot = np.expand_dims(indices.astype(np.int64), self.axis)
        hot = np.where(hot < 0, hot + int(self.depth), hot)
        row = np.arange(int(self.depth)).reshape([-1 if a == self.axis else 1 for a in range(hot.ndim)])
        return values[(hot == row).astype(np.intp)]

    def element(self, i: tuple[Expr, ...], indices: Tensor, values: Tensor) -> Expr:
        hot = wrapped(indices.at(*i[: self.axis], *i[self.axis + 1 :]), self.depth)
        return select(hot.equals(i[self.axis]), values.at(1), values.at(0))

    def on_cells(self, b: Any, indices: Any, values: Any) -> Any:
        chosen = b.one_hot(indices, b.const(np.array([0, 1])), axis=self.axis, depth=self.depth)
        return b.gather(values, chosen, axis=0)


@op
class ReverseSequence(Op):
    """x with the first lengths[n] entries of axis `time` in reverse, n being the index on axis `batch`."""

    batch: int = 1
    time: int = 0
    examples = [
        case("f32[4,2]", np.array([3, 1])),
        case("f32[2,3,2]", np.array([0, 3]), batch=0, time=1),
        case("string[3,2]", np.array([3, 2])),
    ]

    def infer(self, x: TensorType, lengths: TensorType) -> TensorType:
        axes = {self.batch, self.time}
        require(len(axes) == 2 and axes <= set(range(x.rank)), lambda: f"reverse_sequence: axes {sorted(axes)} of {x}")
        require(lengths.dtype.is_integer, lambda: f"reverse_sequence: lengths are {lengths}")
        _assume_same("reverse_sequence", (x.shape[self.batch],), lengths.shape)
        return x

    def reference(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        out = x.copy()
        source, target = (np.moveaxis(array, (self.batch, self.time), (0, 1)) for array in (x, out))
        for n, length in enumerate(np.maximum(lengths, 0).tolist()):
            target[n, :length] = source[n, :length][::-1]
        return out

    def element(self, i: tuple[Expr, ...], x: Tensor, lengths: Tensor) -> Expr:
        step, length = i[self.time], lesser(cast(lengths.at(i[self.batch]), t.i64), Index(t.i64, x.shape[self.time]))
        place = select(step < length, length - 1 - step, step)
        return x.at(*(place if a == self.time else p for a, p in enumerate(i)))

    def on_cells(self, b: Any, x: Any, lengths: Any) -> Any:
        return b.reverse_sequence(x, lengths, batch=self.batch, time=self.time)


@op
class Col2im(Op):
    """An image of `shape` as the sum of overlapping blocks: x[n, c*prod(block) + k, l] is tap k of block number l.

    `pad` gives what the image was padded by before each spatial axis, then after each. ONNX Col2Im.
    """

    shape: sizes
    block: sizes
    stride: ints
    pad: ints
    dilation: ints
    examples = [
        case("f32[1,8,9]", shape=(4, 4), block=(2, 2), stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)),
        case("f32[2,3,4]", shape=(7,), block=(3,), stride=(2,), pad=(2, 2), dilation=(2,)),
    ]

    def places(self) -> tuple[Size, ...]:
        """How many blocks stand along each spatial axis."""
        spatial = len(self.shape)
        spans = [self.dilation[a] * (self.block[a] - 1) + 1 for a in range(spatial)]
        padded = [self.shape[a] + self.pad[a] + self.pad[spatial + a] for a in range(spatial)]
        return tuple((p - span) // s + 1 for p, span, s in zip(padded, spans, self.stride))

    def infer(self, x: TensorType) -> TensorType:
        spatial, taps = len(self.shape), math.prod(self.block, start=1)  # type: ignore[arg-type]
        counts = [len(self.block), len(self.stride), len(self.dilation), len(self.pad) // 2]
        require(counts == [spatial] * 4, "col2im: block, stride, pad and dilation must suit the spatial axes")
        require(x.rank == 3, lambda: f"col2im: {x} must have 3 axes")
        channels = x.shape[1]
        whole = decide_eq(channels // taps * taps, channels) is not False
        require(whole, lambda: f"col2im: {x} holds no blocks of {taps}")
        assume_equal(channels // taps * taps, channels)
        for places in self.places():
            require_at_most(f"col2im: blocks in an image of {self.shape}", 0, places)
        _assume_same("col2im", (x.shape[2],), (math.prod(self.places(), start=1),))  # type: ignore[arg-type]
        return x.with_shape((x.shape[0], channels // taps, *self.shape))

    def reference(self, x: np.ndarray) -> np.ndarray:
        spatial, places = len(self.shape), [int(p) for p in self.places()]
        kernel = [int(size) for size in self.block]
        padded = [int(s) + self.pad[a] + self.pad[spatial + a] for a, s in enumerate(self.shape)]
        image = np.zeros((x.shape[0], x.shape[1] // math.prod(kernel), *padded), x.dtype)
        blocks = x.reshape(*image.shape[:2], *kernel, *places)
        for tap in np.ndindex(*kernel):
            starts = [k * d for k, d in zip(tap, self.dilation)]
            at = tuple(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, places, self.stride))
            image[(..., *at)] += blocks[(slice(None), slice(None), *tap)]
        return image[(..., *(slice(self.pad[a], self.pad[a] + int(s)) for a, s in enumerate(self.shape)))]

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        n, c, *position = i
        places = self.places()

        def tap(*k: Expr) -> Expr:
            row, place, inside = c, Index(t.i64, 0), const(True, t.bool_)
            for a, (p, tap_a) in enumerate(zip(position, k)):
                offset = p + self.pad[a] - tap_a * self.dilation[a]
                at = offset // self.stride[a]
                inside = inside & (offset % self.stride[a]).equals(0) & (at >= 0) & (at < Index(t.i64, places[a]))
                row, place = row * self.block[a] + tap_a, place * places[a] + at
            return select(inside, x.at(n, row, place), const(0, x.dtype))

        return sum_over(self.block, tap)
