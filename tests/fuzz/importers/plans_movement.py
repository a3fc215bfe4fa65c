"""Plans of operators that ask for shapes, change them, or move elements."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.fuzz.importers.draft import Draft, Undrawable, plan
from tests.fuzz.importers.schemas import NUMPY, element, kind, number


@plan("Shape")
def shape(n: Draft) -> None:
    rank = n.feed(0, n.shape()).ndim
    n.choose("start", *range(-rank - 1, rank + 2))
    n.choose("end", *range(-rank - 1, rank + 2))


@plan("Reshape")
def reshape(n: Draft) -> None:
    """0 copies a size unless `allowzero` is set; at most one size is -1, and then the others decide it."""
    x = n.feed(0, n.shape())
    target = _regrouped(n, x.shape)
    keep_zero = n.choose("allowzero", 0, 1)
    written: list[int] = list(target)
    if not keep_zero:
        if any(size == 0 and (a >= x.ndim or x.shape[a] != 0) for a, size in enumerate(target)):
            raise Undrawable("a size of 0 cannot be said here")
        written = [0 if a < x.ndim and x.shape[a] == size and n.chance(0.3) else size for a, size in enumerate(target)]
    others = [size for a, size in enumerate(target)]
    at = n.integer(0, len(written) - 1) if written else -1
    if written and n.chance(0.5) and math.prod(others[:at] + others[at + 1 :]) and not (keep_zero and 0 in written):
        written[at] = -1
    n.fix(1, np.array(written, np.int64))


def _regrouped(n: Draft, sizes: tuple[int, ...]) -> list[int]:
    """Another shape of as many elements: neighbours merged, ones put in, sizes split."""
    found: list[int] = []
    for size in sizes:
        if found and n.chance(0.4):
            found[-1] *= size
        else:
            found.append(size)
        if n.chance(0.2):
            found.append(1)
        if found[-1] and found[-1] % 2 == 0 and n.chance(0.3):
            found[-1:] = [2, found[-1] // 2]
    if not sizes and n.chance(0.5):
        found = [1] * n.integer(1, 3)
    if math.prod(sizes) == 1 and n.chance(0.2):
        found = []
    return found


@plan("Flatten")
def flatten(n: Draft) -> None:
    rank = n.feed(0, n.shape(0 if n.schema.since_version >= 11 else 1)).ndim
    low = -rank if n.schema.since_version >= 11 else 0
    if rank == 0:
        n.set(axis=0)
    else:
        n.choose("axis", *range(low, rank + 1))


@plan("Squeeze")
def squeeze(n: Draft) -> None:
    x = n.feed(0, [size if n.chance(0.5) else 1 for size in n.shape()])
    ones = [a for a, size in enumerate(x.shape) if size == 1]
    if n.chance(0.7):
        chosen = n.random.sample(ones, n.integer(0, len(ones)))
        negative = n.schema.since_version >= 11
        n.parameter("axes", [a - x.ndim if negative and n.chance(0.4) else a for a in chosen])
        if not chosen:
            raise Undrawable("no axes: left open whether that is all or none")


@plan("Unsqueeze")
def unsqueeze(n: Draft) -> None:
    x = n.feed(0, n.shape(0, 3))
    count = n.integer(1, 3)
    rank = x.ndim + count
    negative = n.schema.since_version >= 11
    chosen = n.random.sample(range(rank), count)
    n.parameter("axes", [a - rank if negative and n.chance(0.4) else a for a in chosen])


@plan("Expand")
def expand(n: Draft) -> None:
    whole = n.shape()
    n.feed(0, n.narrowed(whole))
    n.fix(1, np.array(n.narrowed(whole) if n.chance(0.3) else whole, np.int64))


@plan("Transpose")
def transpose(n: Draft) -> None:
    rank = n.feed(0, n.shape()).ndim
    if n.chance(0.8):
        n.set(perm=n.random.sample(range(rank), rank))


@plan("Slice")
def slice_(n: Draft) -> None:
    x = n.feed(0, n.shape(1))
    axes = n.axes(x.ndim, 1) if n.chance(0.7) else None
    count = x.ndim if axes is None else len(axes)
    if axes is None and n.chance(0.3):
        count = n.integer(1, x.ndim)
    ends = [*range(-7, 8), 2**31 - 1, -(2**31) + 1]
    n.parameter("starts", [n.pick(ends) for _ in range(count)])
    n.parameter("ends", [n.pick(ends) for _ in range(count)])
    if axes is not None:
        n.parameter("axes", axes)
    if n.wants("steps"):
        n.fix("steps", np.array([n.pick([1, 1, 2, 3, -1, -1, -2]) for _ in range(count)]))


@plan("Concat")
def concat(n: Draft) -> None:
    like = list(n.shape(1))
    axis = n.axis(len(like))
    n.set(axis=axis)
    for position in range(n.integer(1, 4)):
        like[axis] = n.size()
        n.feed(position, like)


@plan("Split")
def split(n: Draft) -> None:
    """Equal parts, where they divide the axis; from version 18 on the last one may be smaller."""
    x = list(n.shape(1))
    axis, parts = n.axis(len(x)), n.integer(1, 4)
    n.set(axis=axis)
    if axis == 0 and n.chance(0.5):
        del n.attributes["axis"]
    n.outputs = parts
    if n.chance(0.5):
        sizes = [n.size() for _ in range(parts)]
        x[axis] = sum(sizes)
        n.feed(0, x)
        n.parameter("split", sizes)
        return
    x[axis] = parts * n.integer(1, 3)
    if n.has("num_outputs"):
        n.set(num_outputs=parts)
        if n.chance(0.5):
            x[axis] = max(x[axis] - n.integer(0, 1), 1)
            if math.ceil(x[axis] / parts) * (parts - 1) >= x[axis]:
                raise Undrawable("more parts than there are entries")
    n.feed(0, x)


@plan("Pad")
def pad(n: Draft) -> None:
    """Reflection needs more entries than it adds; cutting off leaves something to reflect."""
    mode = n.choose("mode", "constant", "reflect", "edge", *(["wrap"] if n.schema.since_version >= 19 else []))
    x = n.feed(0, n.shape(1, least=0 if mode == "constant" else 1))
    axes = n.axes(x.ndim, 1) if n.has("axes") and n.chance(0.5) else list(range(x.ndim))
    most = [x.shape[a] - 1 if mode == "reflect" else x.shape[a] if mode == "wrap" else 3 for a in axes]
    pads = [n.integer(-1 if mode == "constant" and x.shape[a] > 2 and n.chance(0.3) else 0, min(m, 3))
            for _ in range(2) for a, m in zip(axes, most)]  # fmt: skip
    n.parameter("pads", pads)
    if n.has("value"):
        n.real("value", -3, 3)
    elif n.chance(0.6):
        n.fix(2, n.array(n.dtype(2), ()))
    if len(axes) != x.ndim or (n.chance(0.2) and n.has("axes")):
        n.fix("axes", np.array(axes))


@plan("Tile")
def tile(n: Draft) -> None:
    x = n.feed(0, n.shape())
    n.fix(1, np.array(n.integers(x.ndim, 0 if n.chance(0.1) else 1, 3)))


@plan("DepthToSpace", "SpaceToDepth")
def blocks(n: Draft) -> None:
    size, deep = n.integer(1, 3), n.version.name == "DepthToSpace"
    n.set(blocksize=size)
    n.choose("mode", "DCR", "CRD")
    channels, height, width = (n.size(1) for _ in range(3))
    if deep:
        n.feed(0, [n.size(), channels * size * size, height, width])
    else:
        n.feed(0, [n.size(), channels, height * size, width * size])


@plan("CenterCropPad")
def center_crop_pad(n: Draft) -> None:
    x = n.feed(0, n.shape(1))
    axes = n.axes(x.ndim, 1)
    if n.chance(0.6):
        n.set(axes=axes)
    else:
        axes = list(range(x.ndim))
    n.fix("shape", np.array([n.size(1) for _ in axes]))


@plan("Trilu")
def trilu(n: Draft) -> None:
    n.feed(0, n.shape(2))
    n.choose("upper", 0, 1)
    if n.wants("k"):
        n.fix("k", n.integer(-6, 6))


@plan("ReverseSequence")
def reverse_sequence(n: Draft) -> None:
    x = n.feed(0, n.shape(2, least=1))
    time, batch = n.pick([(0, 1), (1, 0)])
    n.set(batch_axis=batch, time_axis=time)
    n.give(1, np.array(n.integers(x.shape[batch], 1, x.shape[time]), np.int64))


@plan("EyeLike")
def eye_like(n: Draft) -> None:
    n.feed(0, n.shape(2, 2))
    n.choose("k", *range(-3, 4))
    if n.chance(0.5):
        n.set(dtype=number(n.bind("T2")))


@plan("ConstantOfShape")
def constant_of_shape(n: Draft) -> None:
    n.fix(0, np.array(n.shape(), np.int64))
    if n.chance(0.8):
        value = n.array(n.bind("T2"), (1,))
        n.set(value=_tensor_of(value, element(n.types["T2"])))


def _tensor_of(value: np.ndarray, dtype: str) -> TensorProto:
    from onnx import helper

    if kind(dtype) == "string":
        return helper.make_tensor("value", TensorProto.STRING, value.shape, [s.encode() for s in value.reshape(-1)])
    return numpy_helper.from_array(value.astype(NUMPY[dtype]), "value")


@plan("Constant")
def constant(n: Draft) -> None:
    """Exactly one attribute holds the value."""
    spelling = n.pick(name for name in n.schema.attributes if name != "sparse_value")
    numbers = [n.uniform(-4, 4) for _ in range(n.integer(0, 4))]
    match spelling:
        case "value":
            dtype = n.bind("T")
            n.set(value=_tensor_of(n.array(dtype, n.shape()), dtype))
        case "value_float":
            n.set(value_float=n.uniform(-4, 4))
        case "value_floats":
            n.set(value_floats=numbers)
        case "value_int":
            n.set(value_int=n.integer(-9, 9))
        case "value_ints":
            n.set(value_ints=[int(x) for x in numbers])
        case "value_string":
            n.set(value_string="ab")
        case "value_strings":
            n.set(value_strings=["a", "", "é"][: len(numbers)])


@plan("Range")
def range_(n: Draft) -> None:
    dtype = n.dtype(0)
    down = n.chance(0.3)
    start, span, step = n.integer(-5, 5), n.integer(0, 9), n.integer(1, 4)
    scale = n.pick([1, 0.5, 0.25]) if kind(dtype) == "float" else 1
    values = (start * scale, (start - span if down else start + span) * scale, (-step if down else step) * scale)
    for position, value in enumerate(values):
        n.fix(position, np.array(value))
    n.choose("stash_type", 1)


@plan("OneHot")
def one_hot(n: Draft) -> None:
    """Indices below 0 count from the end; those out of range give no element `on`."""
    indices = n.feed(0, n.shape(1 if n.schema.since_version < 11 else 0, 3), -6, 6)
    if kind(n.dtype(0)) == "float":
        n.give(0, np.floor(indices.astype(np.float64)).astype(indices.dtype))
    depth = n.integer(1, 5)
    n.fix(1, np.array(depth if n.chance(0.5) else [depth]))
    n.feed(2, (2,))
    n.choose("axis", *range(-indices.ndim - 1, indices.ndim + 1))


@plan("Upsample")
def upsample(n: Draft) -> None:
    rank = n.integer(1, 4)
    mode = n.choose("mode", "nearest", "linear")
    x = n.feed(0, [n.size(1) for _ in range(rank)])
    scales = [float(n.pick([1, 1.5, 2, 3])) for _ in range(rank)]
    if mode == "linear":
        scales = [1.0] * max(0, rank - 2) + scales[-2:]
    n.parameter("scales", scales)
    assert x.ndim == rank
