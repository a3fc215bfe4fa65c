"""Operators of com.microsoft whose weights are packed in blocks of a few bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import ceil_div
from ir.op import OpError


def _levels(
    b: Any, packed: Any, scales: Any, zero_points: Any, bits: int, block: int, size: int, groups: Any = None
) -> Any:
    """Rows of `packed` bytes as `size` floats each, one scale and zero point per block of the last axis.

    `groups` says which scale each entry of the last axis has, where blocks are not in order.
    """
    if bits not in (2, 4, 8):
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


@onnx_op("MatMulNBits", domain="com.microsoft")
def MatMulNBits(
    b: Any, A: Any, B: Any, scales: Any, zero_points: Any = None, g_idx: Any = None, bias: Any = None, *, K: int,
    N: int, bits: int = 4, block_size: int = 128, accuracy_level: int = 0, weight_prepacked: int = 0,
) -> Any:  # fmt: skip
    if weight_prepacked:
        raise OpError("`weight_prepacked` weights are laid out for one machine only; export the model without it")
    blocks = ceil_div(K, block_size)
    packed = b.reshape(B, shape=(N, blocks * block_size * bits // 8))
    if bits == 8 and K % block_size:
        packed = b.slice(packed, starts=(0, 0), shape=(N, K), steps=(1, 1))
    scales = b.reshape(scales, shape=(N, blocks))
    if zero_points is not None:
        width = ceil_div(blocks * bits, 8) if zero_points.dtype == t.u8 else blocks
        zero_points = b.reshape(zero_points, shape=(N, width))
    weights = _levels(b, packed, scales, zero_points, bits, block_size, K, g_idx)
    if weights.dtype != A.dtype:
        weights = b.cast(weights, to=A.dtype)
    y = b.matmul(A, b.transpose(weights, perm=(1, 0)))
    return y if bias is None else y + bias


@onnx_op("GatherBlockQuantized", domain="com.microsoft")
def GatherBlockQuantized(
    b: Any, data: Any, indices: Any, scales: Any, zero_points: Any = None, *, bits: int = 4, block_size: int = 128,
    gather_axis: int = 0, quantize_axis: int = 1,
) -> Any:  # fmt: skip
    rank = data.rank
    gathered, blocked = gather_axis % rank, quantize_axis % rank
    if gathered == blocked:
        raise OpError("`gather_axis` and `quantize_axis` are the same axis")
    picked: list[Any] = [
        None if v is None else b.gather(v, indices, axis=gathered) for v in (data, scales, zero_points)
    ]
    rows, scales, zero_points = picked
    axis = blocked if blocked < gathered else blocked + indices.rank - 1
    if data.dtype != t.u8:
        return b.dequantize(rows, scales, zero_points, to=scales.dtype, axis=axis, block=block_size)
    if axis != rows.rank - 1:
        raise OpError("`quantize_axis` of packed bytes must be the last axis")
    size = rows.shape[-1] * (8 // bits)
    return _levels(b, rows, scales, zero_points, bits, block_size, size)
