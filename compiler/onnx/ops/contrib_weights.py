"""Operators of com.microsoft whose weights are packed in blocks of a few bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size, ceil_div, decide_eq
from ir.op import OpError

_MS = "com.microsoft"
_BITS = (2, 4, 8)


def levels(
    b: Any, packed: Any, scales: Any, zero_points: Any, bits: int, block: int, size: Size, groups: Any = None
) -> Any:
    """Rows of `packed` bytes as `size` floats each, one scale and zero point per block of the last axis.

    `groups` says which scale each entry of the last axis has, where blocks are not in order.
    """
    if bits not in _BITS:
        raise OpError(f"`bits` is {bits}; it must be 2, 4 or 8")
    x = b.unpack_bits(packed, bits=bits, size=size) if bits < 8 else packed
    zero: Any = b.const(np.array(1 << (bits - 1), np.uint8))
    if zero_points is not None and zero_points.dtype == t.u8 and bits < 8:
        zero = b.unpack_bits(zero_points, bits=bits, size=scales.shape[-1])
    elif zero_points is not None:
        zero = zero_points
    if groups is not None:
        scales, zero = (v if v.rank == 0 else b.gather(v, groups, axis=v.rank - 1) for v in (scales, zero))
        block = 1
    return b.dequantize(x, scales, zero, to=scales.dtype, axis=x.rank - 1, block=block)


@onnx_op("MatMulNBits", domain=_MS)
def MatMulNBits(
    b: Any, A: Any, B: Any, scales: Any, zero_points: Any = None, g_idx: Any = None, bias: Any = None, *, K: int,
    N: int, bits: int = 4, block_size: int = 128, accuracy_level: int = 0, weight_prepacked: int = 0,
) -> Any:  # fmt: skip
    """`accuracy_level` allows for less than the accuracy of floats, which is what products have here."""
    if weight_prepacked:
        raise OpError("`weight_prepacked` weights are laid out for one machine only; export the model without it")
    if bits not in _BITS:
        raise OpError(f"`bits` is {bits}; it must be 2, 4 or 8")
    if K < 1 or N < 1 or block_size < 16 or block_size & (block_size - 1):
        raise OpError(f"`K` and `N` are {K} and {N}, `block_size` is {block_size}; it must be a power of 2, from 16 on")
    if any(decide_eq(size, 0) is True for size in B.shape):  # a projection that is left out
        y = b.full(shape=(*A.shape[:-1], N), value=0.0, dtype=A.dtype)
        return y if bias is None else y + bias
    blocks = ceil_div(K, block_size)
    packed = b.reshape(B, shape=(N, blocks * block_size * bits // 8))
    if bits == 8 and K % block_size:
        packed = b.slice(packed, starts=(0, 0), shape=(N, K), steps=(1, 1))
    scales = b.reshape(scales, shape=(N, blocks))
    if zero_points is not None:
        width = ceil_div(blocks * bits, 8) if zero_points.dtype == t.u8 else blocks
        zero_points = b.reshape(zero_points, shape=(N, width))
    weights = levels(b, packed, scales, zero_points, bits, block_size, K, g_idx)
    if weights.dtype != A.dtype:
        weights = b.cast(weights, to=A.dtype)
    y = b.matmul(A, b.transpose(weights, perm=(1, 0)))
    return y if bias is None else y + bias


@onnx_op("GatherBlockQuantized", domain=_MS)
def GatherBlockQuantized(
    b: Any, data: Any, indices: Any, scales: Any, zero_points: Any = None, *, bits: int = 4, block_size: int = 128,
    gather_axis: int = 0, quantize_axis: int = 1,
) -> Any:  # fmt: skip
    rank = data.rank
    if not (-rank <= gather_axis < rank and -rank <= quantize_axis < rank):
        raise OpError(
            f"`gather_axis` {gather_axis} and `quantize_axis` {quantize_axis} are not both axes of {data.type}"
        )
    gathered, blocked = gather_axis % rank, quantize_axis % rank
    is_packed = data.dtype == t.u8 and bits < 8
    if is_packed and (gathered != 0 or gathered == blocked or blocked != rank - 1):
        raise OpError("packed bytes are gathered along the first axis and quantised along the last")
    if data.dtype.is_float:
        if zero_points is not None:
            raise OpError(f"data of type {data.dtype} has no zero points")
        scales = _for_all_rows(b, scales, data.shape, blocked)
        block_size = block_size or _whole(data.shape[blocked])
    elif block_size < 16 or block_size & (block_size - 1):
        raise OpError(f"`block_size` is {block_size}; it must be a power of 2, from 16 on")
    if gathered == blocked:  # entries of a block go apart
        return _picked(b, _real(b, data, scales, zero_points, bits, block_size, blocked), indices, gathered)
    rows, few_scales, few_zeros = (
        None if v is None else _rows(b, v, indices, gathered) for v in (data, scales, zero_points)
    )
    axis = blocked if blocked < gathered else blocked + indices.rank - 1
    return _known(b, _real(b, rows, few_scales, few_zeros, bits, block_size, axis), indices, data.shape, gathered)


def _whole(size: Size) -> int:
    """The size of an axis that is one block. Raises OpError where it is symbolic."""
    if not isinstance(size, int):
        raise OpError("with a `block_size` of 0, the quantised axis must have a known size")
    return max(size, 1)


def _for_all_rows(b: Any, scales: Any, shape: tuple[Size, ...], blocked: int) -> Any:
    """Scales with all entries of the other axes, of which a single one may stand for all."""
    if scales.rank != len(shape):
        raise OpError(f"`scales` is {scales.type}; it must have {len(shape)} axes")
    full = tuple(size if axis == blocked else shape[axis] for axis, size in enumerate(scales.shape))
    return scales if full == scales.shape else b.expand(scales, shape=full)


def _real(b: Any, x: Any, scales: Any, zero_points: Any, bits: int, block: int, axis: int) -> Any:
    """What quantised x stands for."""
    if x.dtype != t.u8:
        return b.dequantize(x, scales, zero_points, to=scales.dtype, axis=axis, block=block)
    if axis == x.rank - 1:
        return levels(b, x, scales, zero_points, bits, block, x.shape[-1] * (8 // bits))
    if zero_points is None:
        zero_points = b.const(np.array(128, np.uint8))
    return b.dequantize(x, scales, zero_points, to=scales.dtype, axis=axis, block=block)


def _rows(b: Any, x: Any, indices: Any, axis: int) -> Any:
    """Entries of x; for indices outside of it, entries that `_known` blots out."""
    last = b.cast(b.dims(x.shape[axis]), to=indices.dtype) - 1
    return b.gather(x, b.max(b.min(indices, last), -last - 1), axis=axis)


def _known(b: Any, y: Any, indices: Any, shape: tuple[Size, ...], axis: int) -> Any:
    """y with zeros where an index lies outside of the axis."""
    size = b.cast(b.dims(shape[axis]), to=indices.dtype)
    is_inside = b.and_(b.less(indices, size), b.greater_or_equal(indices, -size))
    spread = b.reshape(is_inside, shape=(*indices.shape, *(1,) * (len(shape) - 1 - axis)))
    return b.where(spread, y, b.const(0.0, y.dtype))


def _picked(b: Any, x: Any, indices: Any, axis: int) -> Any:
    return _known(b, _rows(b, x, indices, axis), indices, x.shape, axis)
