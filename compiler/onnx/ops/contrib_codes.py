"""Operators of com.microsoft whose weights are codes of 4 bits, which stand for numbers in a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import ceil_div
from ir.op import OpError

_POSITIVE = (0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
_TABLES = {
    0: (*_POSITIVE, *(-v for v in _POSITIVE)),
    1: (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
}  # fmt: skip
"""FP4: a sign, two bits of exponent, one of mantissa, in thirds. NF4: quantiles of the normal distribution (Dettmers et
al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023)."""


@onnx_op("MatMulBnb4", domain="com.microsoft")
def MatMulBnb4(
    b: Any, A: Any, B: Any, absmax: Any, *, K: int, N: int, block_size: int, quant_type: int, training_mode: int = 0,
    transB: int = 1,
) -> Any:  # fmt: skip
    """The weights [N, K] in a row, the first of each byte in its upper half, one factor for each block of them."""
    if quant_type not in _TABLES:
        raise OpError(f"`quant_type` is {quant_type}; it must be 0 (FP4) or 1 (NF4)")
    if block_size < 16 or block_size & (block_size - 1):
        raise OpError(f"`block_size` is {block_size}; it must be a power of 2 of at least 16")
    count = N * K
    size = ceil_div(count, 2)
    blocks = ceil_div(count, block_size)
    if B.shape != (size,) or absmax.shape != (blocks,):
        raise OpError(f"weights {B.type} and factors {absmax.type} do not fit {N} x {K} in blocks of {block_size}")
    pairs = b.reshape(b.unpack_bits(B, bits=4, size=2 * size), shape=(size, 2))
    table = b.const(np.array(_TABLES[quant_type]).astype(A.dtype.numpy))
    numbers = b.gather(table, b.cast(_exchanged(b, pairs), to=t.i32), axis=0)
    factors = b.expand(b.reshape(absmax, shape=(blocks, 1)), shape=(blocks, block_size))
    numbers, factors = (
        b.slice(b.reshape(v, shape=(length,)), starts=(0,), shape=(count,), steps=(1,))
        for v, length in ((numbers, 2 * size), (factors, blocks * block_size))
    )
    weights = b.reshape(numbers * factors, shape=(N, K))
    return b.matmul(A, b.transpose(weights, perm=(1, 0)) if transB else weights)


def _exchanged(b: Any, pairs: Any) -> Any:
    """Pairs [n, 2] of codes, the second before the first."""
    low, high = (b.slice(pairs, starts=(0, at), shape=(pairs.shape[0], 1), steps=(1, 1)) for at in (0, 1))
    return b.concat(high, low, axis=1)
