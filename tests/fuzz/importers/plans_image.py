"""Plans of convolutions, pools, resizing and regions of images; and of quantized arithmetic."""

from __future__ import annotations

import numpy as np

from tests.fuzz.importers.draft import Draft, Undrawable, plan
from tests.fuzz.importers.schemas import kind


def _windows(n: Draft, axes: int, kernel: list[int], dilates: bool = True) -> list[int]:
    """Strides, dilations and padding, by numbers or automatically; the sizes that a dilated kernel covers."""
    n.choose("strides", [n.integer(1, 3) for _ in range(axes)])
    automatic = n.choose("auto_pad", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER") or "NOTSET"
    dilation = [1] * axes
    if dilates and automatic in ("NOTSET", "VALID"):
        dilation = n.choose("dilations", [n.integer(1, 2) for _ in range(axes)]) or dilation
    covered = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    if automatic == "NOTSET":
        n.choose("pads", [n.integer(0, min(2, c - 1)) for c in covered * 2])
    return covered


def _image(n: Draft, covered: list[int]) -> list[int]:
    """Spatial sizes that hold one window at least."""
    return [c + n.integer(0, 4) for c in covered]


@plan("Conv", "ConvInteger", "QLinearConv", "ConvTranspose")
def conv(n: Draft) -> None:
    name = n.version.name
    axes, groups = n.integer(1, 3), n.pick([1, 1, 2, 3])
    inner, outer, kernel = groups * n.integer(1, 2), groups * n.integer(1, 2), n.integers(axes, 1, 3)
    n.choose("group", groups) if groups == 1 else n.set(group=groups)
    if n.chance(0.4):
        n.set(kernel_shape=kernel)
    covered = _windows(n, axes, kernel)
    x = (n.integer(1, 2), inner, *_image(n, covered))
    weights = (inner, outer // groups, *kernel) if name == "ConvTranspose" else (outer, inner // groups, *kernel)
    if name == "ConvTranspose":
        _transposed(n, axes, kernel)
    if name == "QLinearConv":
        _quantized_conv(n, x, weights)
        return
    n.feed(0, x)
    n.feed(1, weights)
    if name == "ConvInteger":
        if n.chance(0.6):
            n.feed(2, ())
            if n.chance(0.6):
                n.feed(3, () if n.chance(0.5) else (outer,))
    elif n.chance(0.5):
        n.feed(2, (outer,))


def _transposed(n: Draft, axes: int, kernel: list[int]) -> None:
    """Output padding is less than the stride; SAME with a kernel less than its stride would cut off a negative part."""
    strides = n.attributes.get("strides", [1] * axes)
    if n.attributes.get("auto_pad", "NOTSET").startswith("SAME") and any(k < s for k, s in zip(kernel, strides)):
        raise Undrawable("padding less than nothing")
    if n.chance(0.4):
        n.set(output_padding=[n.integer(0, s - 1) for s in strides])
    if n.attributes.get("auto_pad", "NOTSET").startswith("SAME"):
        n.attributes.pop("output_padding", None)


def _quantized_conv(n: Draft, x: tuple[int, ...], weights: tuple[int, ...]) -> None:
    n.feed(0, x, -128, 255)
    n.fix(1, np.array(n.uniform(0.01, 0.1)))
    n.fix(2, n.array(n.dtype(2), (), -10, 10))
    n.feed(3, weights, -128, 255)
    one_each = (weights[0],) if n.chance(0.5) else ()
    n.fix(4, n.array("float", one_each, 0.01, 0.1))
    n.fix(5, n.array(n.dtype(5), one_each, -10, 10) if kind(n.dtype(5)) == "uint" else np.zeros(one_each))
    n.fix(6, np.array(n.uniform(0.05, 0.3)))
    n.fix(7, n.array(n.dtype(7), (), -10, 100))
    if n.chance(0.5):
        n.fix(8, n.array("int32", (weights[0],), -500, 500))


@plan("DeformConv")
def deform_conv(n: Draft) -> None:
    kernel, groups, shifts = n.integers(2, 1, 3), n.integer(1, 2), n.integer(1, 2)
    inner, outer = groups * shifts * n.integer(1, 2), groups * n.integer(1, 2)
    strides, dilations = n.integers(2, 1, 2), n.integers(2, 1, 2)
    pads = n.integers(4, 0, 1)
    n.set(strides=strides, dilations=dilations, pads=pads, group=groups, offset_group=shifts)
    if n.chance(0.5):
        n.set(kernel_shape=kernel)
    covered = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    sizes = _image(n, covered)
    out = [(s + pads[a] + pads[a + 2] - c) // strides[a] + 1 for a, (s, c) in enumerate(zip(sizes, covered))]
    batch = n.integer(1, 2)
    n.feed(0, (batch, inner, *sizes))
    n.feed(1, (outer, inner // groups, *kernel))
    n.feed(2, (batch, shifts * kernel[0] * kernel[1] * 2, *out), -1.5, 1.5)
    if n.chance(0.5):
        n.feed(3, (outer,))
    if n.chance(0.5):
        n.feed(4, (batch, shifts * kernel[0] * kernel[1], *out), 0, 1)


@plan("MaxPool", "AveragePool", "LpPool")
def pool(n: Draft) -> None:
    axes = n.integer(1, 3)
    kernel = n.integers(axes, 1, 3)
    n.set(kernel_shape=kernel)
    covered = _windows(n, axes, kernel)
    if n.attributes.get("auto_pad", "NOTSET").startswith("SAME") and any(
        k < s for k, s in zip(kernel, n.attributes.get("strides", [1] * axes))
    ):
        raise Undrawable("padding less than nothing")
    n.choose("ceil_mode", 0, 1)
    n.choose("count_include_pad", 0, 1)
    n.choose("p", 1, 2, 3)
    n.choose("storage_order", 0, 1)
    n.feed(0, (n.integer(1, 2), n.integer(1, 2), *_image(n, covered)), -100, 100)
    if n.version.name != "MaxPool":
        n.feed(0, n.operands[0].value.shape)


@plan("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(n: Draft) -> None:
    n.feed(0, n.shape(3, 5, least=1))
    n.choose("p", 1, 2, 3)


@plan("MaxUnpool")
def max_unpool(n: Draft) -> None:
    """Indices as MaxPool gives them: places in the whole of the input that was pooled, each once."""
    axes = n.integer(1, 2)
    kernel = n.integers(axes, 1, 3)
    pooled = (n.integer(1, 2), n.integer(1, 2), *(n.integer(1, 3) for _ in range(axes)))
    whole = (*pooled[:2], *(p * k for p, k in zip(pooled[2:], kernel)))
    n.set(kernel_shape=kernel, strides=kernel)
    n.feed(0, pooled)
    places = []
    for at in np.ndindex(*pooled):
        inside = [a * k + n.integer(0, k - 1) for a, k in zip(at[2:], kernel)]
        places.append(np.ravel_multi_index((*at[:2], *inside), whole))
    n.give(1, np.array(places, np.int64).reshape(pooled))
    if n.chance(0.3):
        n.fix(2, np.array(whole))


@plan("MaxRoiPool")
def max_roi_pool(n: Draft) -> None:
    x = n.feed(0, (n.integer(1, 2), n.integer(1, 2), n.integer(4, 8), n.integer(4, 8)))
    count = n.integer(1, 3)
    corners = n.numbers.integers(0, 4, (count, 2))
    rois = np.concatenate(
        [n.numbers.integers(0, x.shape[0], (count, 1)), corners, corners + n.numbers.integers(0, 5, (count, 2))], axis=1
    )
    n.give(1, rois.astype(x.dtype))
    n.set(pooled_shape=n.integers(2, 1, 3))
    n.choose("spatial_scale", 1.0, 0.5)


@plan("RoiAlign")
def roi_align(n: Draft) -> None:
    x = n.feed(0, (n.integer(1, 2), n.integer(1, 2), n.integer(4, 8), n.integer(4, 8)))
    count = n.integer(1, 3)
    corners = n.numbers.uniform(0, 4, (count, 2))
    n.give(1, np.concatenate([corners, corners + n.numbers.uniform(0.5, 4, (count, 2))], axis=1).astype(x.dtype))
    n.give(2, np.array(n.integers(count, 0, x.shape[0] - 1), np.int64))
    n.choose("output_height", 1, 2, 3)
    n.choose("output_width", 1, 2, 3)
    n.choose("sampling_ratio", 0, 1, 2)
    n.choose("spatial_scale", 1.0, 0.5)
    n.choose("mode", "avg", "max")
    n.choose("coordinate_transformation_mode", "half_pixel", "output_half_pixel")


@plan("Resize")
def resize(n: Draft) -> None:
    """Either scales or sizes; `tf_crop_and_resize` needs a region of interest."""
    version = n.schema.since_version
    rank = n.integer(1, 4)
    mode = n.choose("mode", "nearest", "linear", "cubic") if version >= 11 else n.choose("mode", "nearest", "linear")
    coordinates = n.choose(
        "coordinate_transformation_mode", "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
        *(["half_pixel_symmetric"] if version >= 19 else []),
        *(["tf_half_pixel_for_nn"] if version == 11 else ["tf_crop_and_resize"]),
    )  # fmt: skip
    n.choose("nearest_mode", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    moved = n.integer(1, min(2, rank)) if mode != "cubic" else min(2, rank)
    if mode == "cubic" and rank < 2:
        raise Undrawable("cubic has two axes")
    x = n.feed(0, [n.integer(1, 6) for _ in range(rank)], -9 if kind(n.dtype(0)) != "uint" else 0, 99)
    axes = list(range(rank - moved, rank))
    if mode == "cubic":
        n.choose("exclude_outside", 0, 1)
        n.choose("cubic_coeff_a", -0.5, -0.75)
    if mode != "nearest":
        n.choose("antialias", 0, 0, 1)
    some = n.has("axes") and n.chance(0.3)
    if some:
        n.set(axes=[a - rank if n.chance(0.3) else a for a in axes])
    if coordinates == "tf_crop_and_resize":
        starts = [n.uniform(0, 0.4) if a in axes else 0.0 for a in (axes if some else range(rank))]
        ends = [n.uniform(0.6, 1.3) if a in axes else 1.0 for a in (axes if some else range(rank))]
        n.fix(1, np.array(starts + ends))
        n.real("extrapolation_value", -2, 2)
    every = axes if some else list(range(rank))
    if version >= 11 and n.chance(0.5):
        sizes = [n.integer(1, 9) if a in axes else x.shape[a] for a in every]
        n.fix("sizes", np.array(sizes))
        n.choose("keep_aspect_ratio_policy", "stretch")
        if n.has("keep_aspect_ratio_policy") and n.chance(0.2) and (some or moved == rank):
            n.set(keep_aspect_ratio_policy=n.pick(["not_larger", "not_smaller"]))
        if version == 11:
            n.fix("scales", np.zeros(0))
            if 1 not in n.operands:
                n.fix("roi", np.zeros(0))
        return
    n.fix("scales", np.array([n.pick([0.5, 0.6, 1.0, 1.5, 2.0, 2.3, 3.0]) if a in axes else 1.0 for a in every]))
    if version == 11 and 1 not in n.operands:
        n.fix("roi", np.zeros(0))


@plan("GridSample")
def grid_sample(n: Draft) -> None:
    new = n.schema.since_version >= 20
    modes = ("linear", "nearest", "cubic") if new else ("bilinear", "nearest", "bicubic")
    mode = n.choose("mode", *modes)
    axes = n.integer(2, 3) if new and mode != "cubic" else 2
    n.choose("padding_mode", "zeros", "border", "reflection")
    n.choose("align_corners", 0, 1)
    batch = n.integer(1, 2)
    n.only(0, "float", "int", "uint", "complex")
    n.feed(0, (batch, n.integer(1, 2), *n.integers(axes, 2, 5)))
    n.feed(1, (batch, *n.integers(axes, 1, 4), axes), -1.4, 1.4)


@plan("AffineGrid")
def affine_grid(n: Draft) -> None:
    axes, batch = n.integer(2, 3), n.integer(1, 2)
    n.feed(0, (batch, axes, axes + 1))
    n.fix(1, np.array([batch, n.integer(1, 2), *n.integers(axes, 1, 4)]))
    n.choose("align_corners", 0, 1)


@plan("Col2Im")
def col2im(n: Draft) -> None:
    """Overlapping blocks are added: of numbers."""
    n.only(0, "int", "uint", "float", "complex")
    axes = n.integer(1, 3)
    block = n.integers(axes, 1, 3)
    strides = n.choose("strides", n.integers(axes, 1, 2)) or [1] * axes
    dilations = n.choose("dilations", n.integers(axes, 1, 2)) or [1] * axes
    pads = n.choose("pads", n.integers(2 * axes, 0, 1)) or [0] * (2 * axes)
    covered = [(k - 1) * d + 1 for k, d in zip(block, dilations)]
    image = _image(n, covered)
    counts = [(s + pads[a] + pads[a + axes] - c) // strides[a] + 1 for a, (s, c) in enumerate(zip(image, covered))]
    n.feed(0, (n.integer(1, 2), n.integer(1, 2) * int(np.prod(block)), int(np.prod(counts))))
    n.fix(1, np.array(image))
    n.fix(2, np.array(block))


@plan("QuantizeLinear")
def quantize_linear(n: Draft) -> None:
    """One scale, one for each entry of an axis, or one for each block along it."""
    _with_zero_point(n, 0, "T3" if n.schema.since_version >= 23 else "T2")
    n.choose("saturate", 0, 1)
    n.choose("precision", 1)
    if 2 not in n.operands and n.has("output_dtype") and n.chance(0.5):
        from tests.fuzz.importers.schemas import element, number

        n.set(output_dtype=number(element(n.pick(n.allowed("T3" if n.schema.since_version >= 23 else "T2")))))


def _with_zero_point(n: Draft, data: int, zero: str) -> None:
    shape = n.shape(1, 4, least=1)
    low, high = (-30, 30) if kind(n.dtype(data)) != "int" else (-1000, 1000)
    n.feed(data, shape, low, high)
    scale = _scale_shape(n, shape)
    if scale is None:
        raise Undrawable("this version has one scale")
    n.feed(1, scale, 0.1, 2)
    if n.chance(0.6):
        name = n.dtype(2)
        if kind(name) == "float" or name == "int32":
            n.give(2, np.zeros(scale).astype(n.array(name, ()).dtype))
        else:
            n.feed(2, scale, -2, 5)


def _scale_shape(n: Draft, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    way = n.pick(["tensor", "axis", "block"])
    if way == "tensor" or not n.has("axis"):
        return ()
    axis = n.integer(-len(shape), len(shape) - 1)
    n.set(axis=axis)
    if way == "axis" or not n.has("block_size"):
        return (shape[axis],)
    block = n.integer(1, shape[axis])
    n.set(block_size=block)
    scale = list(shape)
    scale[axis] = -(-shape[axis] // block)
    if -(-shape[axis] // scale[axis]) != block and (scale[axis] - 1) * block >= shape[axis]:
        raise Undrawable("a block without entries")
    return tuple(scale)


@plan("DequantizeLinear")
def dequantize_linear(n: Draft) -> None:
    _with_zero_point(n, 0, "T1")
    if n.has("output_dtype") and (n.chance(0.2) or n.dtype(1) == "float8e8m0"):
        from tests.fuzz.importers.schemas import number

        n.set(output_dtype=number(n.pick(["float", "float16"])))


@plan("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: Draft) -> None:
    n.feed(0, n.shape(least=1))
    n.outputs = 3


@plan("QLinearMatMul")
def qlinear_matmul(n: Draft) -> None:
    k = n.integer(1, 4)
    left, right = (n.integer(1, 3), k), (k, n.integer(1, 3))
    if n.chance(0.3):
        left = (n.integer(1, 2), *left)
    rows, columns = n.chance(0.2), n.chance(0.2)
    for position, shape, each in ((0, left, (left[-2],) if rows else ()), (3, right, (right[-1],) if columns else ())):
        n.feed(position, shape, -100, 200)
        n.fix(position + 1, n.array(n.dtype(position + 1), each, 0.02, 0.2))
        zero = n.array(n.dtype(position + 2), each, -5, 20)
        n.fix(position + 2, zero if kind(n.dtype(position + 2)) != "float" else np.zeros(each))
    n.fix(6, np.array(n.uniform(0.3, 2)))
    n.fix(7, n.array(n.dtype(7), (), -5, 90) if kind(n.dtype(7)) != "float" else np.zeros(()))
