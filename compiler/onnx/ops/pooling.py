"""Pools of ai.onnx: over windows, over everything, and over regions of interest."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.windows import Window, per_axis, spatial_axes, window
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import sizes_of
from ir import types as t
from ir.op import OpError


def _attributes(at: Window, ceil_mode: int) -> dict[str, Any]:
    return {"window": at.kernel, "stride": at.stride, "pad": at.pad, "dilation": at.dilation, "ceil": bool(ceil_mode)}


@onnx_op("MaxPool", since=1)
def MaxPool(
    b: Any,
    x: Any,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] = (),
    pads: tuple[int, ...] = (),
    storage_order: int = 0,
    strides: tuple[int, ...] = (),
) -> Any:
    at = window(x, kernel_shape, auto_pad=auto_pad, strides=strides, dilations=dilations, pads=pads)
    y = b.max_pool(x, **_attributes(at, ceil_mode))
    if not b.is_output_used(1):
        return y
    return y, b.max_pool_indices(x, **_attributes(at, ceil_mode), column_major=bool(storage_order))


@onnx_op("AveragePool", since=1)
def AveragePool(
    b: Any,
    x: Any,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: tuple[int, ...] = (),
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    at = window(x, kernel_shape, auto_pad=auto_pad, strides=strides, dilations=dilations, pads=pads)
    return b.average_pool(x, **_attributes(at, ceil_mode), include_pad=bool(count_include_pad))


@onnx_op("LpPool", since=1)
def LpPool(
    b: Any,
    x: Any,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] = (),
    p: float = 2,
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    at = window(x, kernel_shape, auto_pad=auto_pad, strides=strides, dilations=dilations, pads=pads)
    return b.lp_pool(x, **_attributes(at, ceil_mode), p=_whole(p))


def _whole(p: float) -> int:
    if p < 1 or p != int(p):
        raise OpError(f"`p` is {p}; it must be a whole number of at least 1")
    return int(p)


def _all_spatial(x: Any) -> tuple[int, ...]:
    return tuple(range(2, 2 + len(spatial_axes(x))))


@onnx_op("GlobalAveragePool", since=1)
def GlobalAveragePool(b: Any, x: Any) -> Any:
    return b.reduce_mean(x, axes=_all_spatial(x), keepdims=True)


@onnx_op("GlobalMaxPool", since=1)
def GlobalMaxPool(b: Any, x: Any) -> Any:
    return b.reduce_max(x, axes=_all_spatial(x), keepdims=True)


@onnx_op("GlobalLpPool", since=1)
def GlobalLpPool(b: Any, x: Any, *, p: float = 2) -> Any:
    axes = _all_spatial(x)
    if _whole(p) == 1:
        return b.reduce_l1(x, axes=axes, keepdims=True)
    if _whole(p) == 2:
        return b.reduce_l2(x, axes=axes, keepdims=True)
    return b.pow(b.reduce_sum(b.pow(b.abs(x), float(p)), axes=axes, keepdims=True), 1.0 / p)


@onnx_op("MaxUnpool", since=9)
def MaxUnpool(
    b: Any,
    x: Any,
    indices: Any,
    output_shape: Any = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    spatial = spatial_axes(x)
    rank = len(spatial)
    kernel = per_axis(kernel_shape, rank, 1, "kernel_shape")
    stride = per_axis(strides, rank, 1, "strides")
    pad = per_axis(pads, 2 * rank, 0, "pads")
    sizes = [
        (size - 1) * s + k - before - after
        for size, s, k, before, after in zip(spatial, stride, kernel, pad[:rank], pad[rank:])
    ]
    inner = (*x.shape[:2], *sizes)
    shape = inner if output_shape is None else sizes_of(b, output_shape, "output_shape")
    if len(shape) != x.rank:
        raise OpError(f"`output_shape` gives {len(shape)} sizes for {x.type}")
    return b.max_unpool(x, indices, inner=inner, shape=shape)


@onnx_op("MaxRoiPool", since=1)
def MaxRoiPool(b: Any, x: Any, rois: Any, *, pooled_shape: tuple[int, ...], spatial_scale: float = 1.0) -> Any:
    height, width = per_axis(pooled_shape, 2, 1, "pooled_shape")
    return b.max_roi_pool(x, rois, height=height, width=width, scale=float(spatial_scale))


@onnx_op("RoiAlign", since=16)
def RoiAlign(
    b: Any,
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    if mode not in ("avg", "max") or coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise OpError(f"mode '{mode}' with coordinates '{coordinate_transformation_mode}' is unknown")
    return b.roi_align(
        x,
        rois,
        b.cast(batch_indices, to=t.i64),
        height=output_height,
        width=output_width,
        samples=max(0, sampling_ratio),
        scale=float(spatial_scale),
        half_pixel=coordinate_transformation_mode == "half_pixel",
        greatest=mode == "max",
    )


@onnx_op("RoiAlign", since=10)
def RoiAlign10(
    b: Any,
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    return RoiAlign(
        b, x, rois, batch_indices, coordinate_transformation_mode="output_half_pixel", mode=mode,
        output_height=output_height, output_width=output_width, sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )  # fmt: skip
