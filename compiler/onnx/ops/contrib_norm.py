"""Normalizations of com.microsoft, and the one that ONNX Runtime writes into the default domain.

What stands between the parts of one of these operators is never rounded: narrow floats are computed in f32 throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.ops.shape import demand_at_most
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size
from ir.op import OpError
from ir.ops.norm import convert, widen
from ir.types import DType

_MS = "com.microsoft"


def _narrowed(b: Any, x: Any, to: DType) -> Any:
    return x if x is None or x.dtype == to else b.cast(x, to=to)


def _deviations(b: Any, a: Any, mean: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    """1 / sqrt(mean of squared deviations + epsilon); a mean of None is 0."""
    deviation = a if mean is None else a - mean
    spread = b.reduce_mean(deviation * deviation, axes=axes, keepdims=True)
    return b.reciprocal(b.sqrt(spread + float(epsilon)))


@onnx_op("SimplifiedLayerNormalization", since=1)
@onnx_op("SimplifiedLayerNormalization", since=1, domain=_MS)
def SimplifiedLayerNormalization(
    b: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """RMS normalization; ONNX Runtime writes it in the default domain. The type is that of the scale."""
    wide = widen(b, x)
    y = b.rms_norm(wide, _narrowed(b, scale, wide.dtype), axis=axis, epsilon=float(epsilon))
    y = _narrowed(b, y, scale.dtype)
    if not b.is_output_used(1):
        return y
    stash = {1: t.f32, 11: t.f64}.get(stash_type)
    if stash is None:
        raise OpError(f"`stash_type` is {stash_type}; it must be 1 (float) or 11 (double)")
    return y, _narrowed(b, _deviations(b, wide, None, tuple(range(axis % x.rank, x.rank)), epsilon), stash)


@onnx_op("SkipSimplifiedLayerNormalization", since=1, domain=_MS)
def SkipSimplifiedLayerNormalization(
    b: Any, x: Any, skip: Any, gamma: Any, bias: Any = None, *, epsilon: float = 1e-12
) -> Any:
    total = _with_skip(b, x, skip, bias)
    y = b.rms_norm(total, _narrowed(b, gamma, total.dtype), axis=-1, epsilon=float(epsilon))
    mean = inverse = None
    if b.is_output_used(1):  # this norm takes the mean for 0
        mean = b.full(shape=(*x.shape[:-1], 1), value=0.0, dtype=t.f32)
    if b.is_output_used(2):
        inverse = _narrowed(b, _deviations(b, total, None, (x.rank - 1,), epsilon), t.f32)
    return _narrowed(b, y, x.dtype), mean, inverse, _narrowed(b, total, x.dtype)


@onnx_op("SkipLayerNormalization", since=1, domain=_MS)
def SkipLayerNormalization(
    b: Any, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, *, epsilon: float = 1e-12
) -> Any:
    total = _with_skip(b, x, skip, bias)
    gamma, beta = (_narrowed(b, v, total.dtype) for v in (gamma, beta))
    y = b.layer_norm(total, gamma, beta, axis=-1, epsilon=float(epsilon))
    mean = inverse = None
    if b.is_output_used(1) or b.is_output_used(2):
        mean = b.reduce_mean(total, axes=(x.rank - 1,), keepdims=True)
        inverse = _narrowed(b, _deviations(b, total, mean, (x.rank - 1,), epsilon), t.f32)
        mean = _narrowed(b, mean, t.f32)
    return _narrowed(b, y, x.dtype), mean, inverse, _narrowed(b, total, x.dtype)


def _with_skip(b: Any, x: Any, skip: Any, bias: Any | None) -> Any:
    """x + skip + bias, where skip[s, h] or skip[1, s, h] serves every sequence."""
    if x.rank not in (2, 3) or skip.rank > x.rank or skip.rank < 2:
        raise OpError(f"it takes inputs of 2 or 3 axes, not {x.type} and {skip.type}")
    total = widen(b, x) + widen(b, skip)
    return total if bias is None else total + convert(b, bias, total)


@onnx_op("EmbedLayerNormalization", domain=_MS)
def EmbedLayerNormalization(
    b: Any, input_ids: Any, segment_ids: Any = None, word_embedding: Any = None, position_embedding: Any = None,
    segment_embedding: Any = None, gamma: Any = None, beta: Any = None, mask: Any = None, position_ids: Any = None, *,
    epsilon: float = 1e-12, mask_index_type: int = 1,
) -> Any:  # fmt: skip
    tables = {"word_embedding": word_embedding, "position_embedding": position_embedding, "gamma": gamma, "beta": beta}
    missing = next((name for name, table in tables.items() if table is None), None)
    if missing is not None:
        raise OpError(f"input `{missing}` is missing")
    if (segment_ids is None) != (segment_embedding is None):
        raise OpError("`segment_ids` and `segment_embedding` must be given together")
    if input_ids.rank != 2:
        raise OpError(f"`input_ids` is {input_ids.type}; it must have 2 axes")
    batch, length = input_ids.shape
    if position_ids is None:
        position_ids = first_places(b, position_embedding, length)
    total = widen(b, b.gather(word_embedding, input_ids, axis=0))
    total = total + widen(b, b.gather(position_embedding, position_ids, axis=0))
    if segment_ids is not None:
        total = total + widen(b, b.gather(segment_embedding, segment_ids, axis=0))
    y = b.layer_norm(total, *(convert(b, v, total) for v in (gamma, beta)), axis=2, epsilon=epsilon)
    seen = count_seen(b, mask, batch) if b.is_output_used(1) else None
    dtype = word_embedding.dtype
    return _narrowed(b, y, dtype), seen, _narrowed(b, total, dtype)


def first_places(b: Any, table: Any, length: Size) -> Any:
    """i64[1, length] of the first rows of a table. Raises OpError where it has fewer."""
    message = f"there are {length} tokens, and {table.shape[0]} positions"
    demand_at_most(b, length, table.shape[0], message)
    return b.iota(shape=(1, length), axis=1)


def count_seen(b: Any, mask: Any, batch: Size) -> Any:
    """i32[batch]: how many entries of a mask [batch, length] are 1; 0 without a mask."""
    if mask is None:
        return b.full(shape=(batch,), value=0, dtype=t.i32)
    is_seen = b.equal(mask, b.const(np.array(1, np.int32)))
    return b.reduce_sum(b.cast(is_seen, to=t.i32), axes=(1,), keepdims=False)
