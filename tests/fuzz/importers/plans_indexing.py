"""Plans of operators that gather, scatter, search, sort, and accumulate."""

from __future__ import annotations

import numpy as np

from tests.fuzz.importers.draft import Draft, Undrawable, plan
from tests.fuzz.importers.schemas import kind


def _indices(n: Draft, key: int, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Indices into an axis of `size`; from version 11 on also from its end."""
    if size == 0 and 0 not in shape:
        raise Undrawable("an empty axis has no entries")
    low = -size if n.schema.since_version >= 11 and n.chance(0.6) else 0
    return n.feed(key, shape, low, size - 1) if 0 not in shape else n.feed(key, shape)


@plan("Gather")
def gather(n: Draft) -> None:
    x = n.feed(0, n.shape(1))
    axis = n.choose("axis", *range(-x.ndim if n.supports_negative_axes() else 0, x.ndim))
    _indices(n, 1, n.shape(0, 3), x.shape[axis])


@plan("GatherElements")
def gather_elements(n: Draft) -> None:
    x = n.feed(0, n.shape(1))
    axis = n.choose("axis", *range(-x.ndim, x.ndim))
    shape = [n.integer(0 if size == 0 else 1, size) for size in x.shape]
    shape[axis] = n.size() if x.shape[axis] else 0
    _indices(n, 1, tuple(shape), x.shape[axis])


@plan("GatherND")
def gather_nd(n: Draft) -> None:
    x = n.feed(0, n.shape(1, least=1))
    batch = n.choose("batch_dims", *range(x.ndim)) or 0
    shape, indices = _nd_indices(n, x.shape, batch)
    n.give(1, indices.reshape(shape))


def _nd_indices(
    n: Draft, sizes: tuple[int, ...], batch: int, unique: bool = False
) -> tuple[tuple[int, ...], np.ndarray]:
    depth = n.integer(1, len(sizes) - batch)
    outer = (*sizes[:batch], *n.shape(0, 2))
    rows = []
    count = int(np.prod(outer))
    indexed = sizes[batch : batch + depth]
    if unique:
        if count > int(np.prod(indexed)):
            raise Undrawable("more updates than places")
        chosen = n.random.sample(range(int(np.prod(indexed))), count)
        rows = [np.unravel_index(c, indexed) for c in chosen]
    else:
        rows = [[n.integer(0, size - 1) for size in indexed] for _ in range(count)]
    found = np.array(rows, np.int64).reshape((count, depth))
    if n.chance(0.4):
        found = np.where(n.numbers.random(found.shape) < 0.5, found, found - np.array(indexed))
    return (*outer, depth), found


@plan("Scatter", "ScatterElements")
def scatter_elements(n: Draft) -> None:
    """Without a reduction no place is written twice, which would leave open by which."""
    x = n.feed(0, n.shape(1, 3, least=1))
    axis = n.choose("axis", *range(-x.ndim if n.supports_negative_axes() else 0, x.ndim))
    reduction = n.choose("reduction", "none", *_reductions(n)) or "none"
    shape = [n.integer(1, size) for size in x.shape]
    size = x.shape[axis]
    if reduction == "none":
        order = np.argsort(
            n.numbers.random(tuple(size if a == axis % x.ndim else s for a, s in enumerate(shape))), axis
        )
        indices = np.take(order, range(shape[axis]), axis)
    else:
        indices = n.numbers.integers(0, size, shape)
    if n.schema.since_version >= 11 and n.chance(0.5):
        indices = np.where(n.numbers.random(indices.shape) < 0.5, indices, indices - size)
    n.give(1, indices.astype(np.int64 if n.dtype(1) == "int64" else np.int32))
    n.feed(2, indices.shape)


def _reductions(n: Draft) -> list[str]:
    """Reductions of this version that have a meaning for the data."""
    if kind(n.dtype(0)) in ("string", "bool"):
        return []
    most = ["add", "mul"] if n.schema.since_version < 18 else ["add", "mul", "max", "min"]
    return most[:2] if kind(n.dtype(0)) == "complex" else most


@plan("ScatterND")
def scatter_nd(n: Draft) -> None:
    x = n.feed(0, n.shape(1, least=1))
    reduction = n.choose("reduction", "none", *_reductions(n)) or "none"
    shape, indices = _nd_indices(n, x.shape, 0, unique=reduction == "none")
    if n.schema.since_version < 11:
        indices = np.maximum(indices, 0)
    n.give(1, indices.reshape(shape))
    n.feed(2, (*shape[:-1], *x.shape[shape[-1] :]))


@plan("ArgMax", "ArgMin")
def arg(n: Draft) -> None:
    x = n.feed(0, n.shape(1, least=1))
    n.choose("axis", *range(-x.ndim if n.supports_negative_axes() else 0, x.ndim))
    n.choose("keepdims", 0, 1)
    n.choose("select_last_index", 0, 1)


@plan("TopK")
def top_k(n: Draft) -> None:
    """All values differ where the order of equal ones is left open (`sorted` = 0 leaves open the order of all)."""
    x = n.feed(0, n.shape(1, least=1), -100, 100)
    axis = n.choose("axis", *range(-x.ndim if n.supports_negative_axes() else 0, x.ndim))
    n.choose("largest", 0, 1)
    n.choose("sorted", 1)
    count = n.integer(0 if n.chance(0.1) else 1, x.shape[axis])
    n.set(k=count)  # an attribute in version 1
    if "k" not in n.schema.attributes:
        n.fix(1, np.array([count]))


@plan("CumSum", "CumProd")
def accumulate(n: Draft) -> None:
    x = n.feed(0, n.shape(1), -2, 2)
    n.fix(1, np.array(n.axis(x.ndim)))
    n.choose("exclusive", 0, 1)
    n.choose("reverse", 0, 1)


@plan("NonZero")
def non_zero(n: Draft) -> None:
    n.feed(0, n.shape(1), -1, 1)


@plan("Compress")
def compress(n: Draft) -> None:
    x = n.feed(0, n.shape(1))
    length = x.size
    if n.chance(0.6):
        axis = n.axis(x.ndim)
        n.set(axis=axis)
        length = x.shape[axis]
    n.feed(1, (n.integer(min(1, length), length),))


@plan("Unique")
def unique(n: Draft) -> None:
    x = n.feed(0, n.shape(1, 3, least=1), -2, 2)
    n.choose("sorted", 0, 1)
    if n.chance(0.5):
        n.set(axis=n.axis(x.ndim))


@plan("NonMaxSuppression")
def non_max_suppression(n: Draft) -> None:
    batches, boxes, classes = n.integer(1, 2), n.integer(1, 8), n.integer(1, 3)
    center = n.choose("center_point_box", 0, 1)
    corners = n.numbers.uniform(0, 1, (batches, boxes, 2))
    sides = n.numbers.uniform(0.05, 0.6, (batches, boxes, 2))
    pair = (corners, sides) if center else (corners, corners + sides)
    if not center and n.chance(0.3):
        pair = pair[::-1]
    n.give(0, np.concatenate(pair, axis=2).astype(np.float32))
    n.give(1, n.numbers.permutation(batches * classes * boxes).reshape(batches, classes, boxes).astype(np.float32) / 64)
    if n.chance(0.9):
        n.fix(2, np.array([n.integer(0, 5)]))
        if n.wants(3, 0.8):
            n.fix(3, np.array([n.uniform(0, 1)]))
            if n.wants(4):
                n.fix(4, np.array([n.uniform(0, 0.5)]))


@plan("TensorScatter")
def tensor_scatter(n: Draft) -> None:
    """The cache has its sequence at `axis`, which is not the batch axis; `linear` does not wrap around."""
    past = list(n.shape(2, least=1))
    axis = n.integer(1, len(past) - 1)
    n.set(axis=axis - len(past) if n.chance(0.5) else axis)
    mode = n.choose("mode", "linear", "circular")
    n.feed(0, past)
    update = list(past)
    update[axis] = n.integer(1, past[axis])
    n.feed(1, update)
    if n.chance(0.7):
        high = past[axis] - update[axis] if mode == "linear" else past[axis] - 1
        n.give(2, np.array(n.integers(past[0], 0, high), np.int64))
