"""Operators of com.microsoft on images: norms over groups of channels, pools, crops and samples."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.image import GridSample
from compiler.onnx.ops.pooling import MaxPool
from compiler.onnx.ops.windows import channels_first, channels_last_again
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import count_of, sizes_of
from ir import types as t
from ir.op import OpError
from ir.ops.norm import convert, widen

_MS = "com.microsoft"


@onnx_op("NhwcMaxPool", domain=_MS)
def NhwcMaxPool(
    b: Any, x: Any, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: tuple[int, ...] = (),
    kernel_shape: tuple[int, ...], pads: tuple[int, ...] = (), strides: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    y = MaxPool(b, channels_first(b, x), auto_pad=auto_pad, ceil_mode=ceil_mode, dilations=dilations,
                kernel_shape=kernel_shape, pads=pads, strides=strides)  # fmt: skip
    return channels_last_again(b, y)


def _normed(b: Any, total: Any, gamma: Any, beta: Any, like: Any, groups: int, epsilon: float, silu: int, last: int):
    """The norm over groups of channels of a wide sum, then x * sigmoid(x) where `silu`, in the type of `like`."""
    if silu not in (0, 1):
        raise OpError(f"`activation` is {silu}; it must be 0 (none) or 1 (SiLU)")
    first = channels_first(b, total, last)
    y = b.group_norm(first, convert(b, gamma, total), convert(b, beta, total), groups=groups, epsilon=float(epsilon))
    return convert(b, channels_last_again(b, b.swish(y) if silu else y, last), like)


@onnx_op("GroupNorm", domain=_MS)
def GroupNorm(
    b: Any, X: Any, gamma: Any, beta: Any, *, activation: int, channels_last: int = 1,
    epsilon: float = 9.999999747378752e-06, groups: int,
) -> Any:  # fmt: skip
    return _normed(b, widen(b, X), gamma, beta, X, groups, epsilon, activation, channels_last)


@onnx_op("SkipGroupNorm", domain=_MS)
def SkipGroupNorm(
    b: Any, X: Any, gamma: Any, beta: Any, skip: Any, bias: Any = None, *, activation: int, channels_last: int = 1,
    epsilon: float = 9.999999747378752e-06, groups: int,
) -> Any:  # fmt: skip
    total = widen(b, X)
    for other in (skip, bias):
        if other is not None:
            total = total + widen(b, _over_positions(b, other, X.rank, channels_last))
    y = _normed(b, total, gamma, beta, X, groups, epsilon, activation, channels_last)
    return y, convert(b, total, X) if b.is_output_used(1) else None


def _over_positions(b: Any, x: Any, rank: int, last: int) -> Any:
    """x[c] or x[n, c] as one that is added at every position of an image of `rank` axes."""
    if x.rank == rank:
        return x
    if x.rank > 2:
        raise OpError(f"{x.type} is neither a number per channel, nor per sample and channel, nor an image")
    ones = (1,) * (rank - 2)
    batch = x.shape[:-1] or (1,)
    return b.reshape(x, shape=(*batch, *ones, x.shape[-1]) if last else (*batch, x.shape[-1], *ones))


@onnx_op("GridSample", domain=_MS)
def ContribGridSample(
    b: Any, X: Any, Grid: Any, *, align_corners: int = 0, mode: str = "bilinear", padding_mode: str = "zeros"
) -> Any:
    return GridSample(b, X, Grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


@onnx_op("CropAndResize", domain=_MS)
def CropAndResize(
    b: Any, X: Any, rois: Any, batch_indices: Any, crop_size: Any, *, extrapolation_value: float = 0.0,
    mode: str = "bilinear",
) -> Any:  # fmt: skip
    if mode not in ("bilinear", "nearest"):
        raise OpError(f"`mode` is {mode!r}; it must be bilinear or nearest")
    if count_of(crop_size, "crop_size") != 2:
        raise OpError(f"`crop_size` gives {count_of(crop_size, 'crop_size')} sizes; it must give 2")
    sizes = sizes_of(b, crop_size, "crop_size", first=2)
    return b.crop_and_resize(X, rois, b.cast(batch_indices, to=t.i64), height=sizes[0], width=sizes[1],
                             nearest=mode == "nearest", outside=float(extrapolation_value))  # fmt: skip
