"""Attention and rotary embedding of com.microsoft."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.ops.attention import default_scale, merge_heads, rotated, split_heads
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size, decide_eq, maximum
from ir.op import OpError

_MS = "com.microsoft"


def _part(b: Any, x: Any, axis: int, start: Size, count: Size) -> Any:
    """`count` slices of `x` along `axis` from `start` on."""
    starts = tuple(start if a == axis else 0 for a in range(x.rank))
    shape = tuple(count if a == axis else size for a, size in enumerate(x.shape))
    return b.slice(x, starts=starts, shape=shape, steps=(1,) * x.rank)


@onnx_op("RotaryEmbedding", domain=_MS)
def RotaryEmbedding(
    b: Any, input: Any, position_ids: Any, cos_cache: Any, sin_cache: Any, *, interleaved: int = 0,
    is_packed_batching: int = 0, num_heads: int = 0, rotary_embedding_dim: int = 0, scale: float = 1.0,
) -> Any:  # fmt: skip
    if is_packed_batching or scale != 1.0:
        raise OpError("`is_packed_batching` and a `scale` other than 1 are not supported")
    size = rotary_embedding_dim if rotary_embedding_dim and num_heads else cos_cache.shape[1] * 2
    heads = num_heads or (0 if input.rank == 4 else input.shape[2] // size)
    x = split_heads(b, input, heads, "input")
    if position_ids.rank == 1:
        first = b.reshape(position_ids, shape=(1, 1))
        position_ids = first + b.iota(shape=(1, x.shape[2]), axis=1)
    y = rotated(b, x, cos_cache, sin_cache, position_ids, bool(interleaved), rotary_embedding_dim)
    return merge_heads(b, y) if input.rank == 3 else y


@onnx_op("GroupQueryAttention", domain=_MS)
def GroupQueryAttention(
    b: Any, query: Any, key: Any = None, value: Any = None, past_key: Any = None, past_value: Any = None,
    seqlens_k: Any = None, total_sequence_length: Any = None, cos_cache: Any = None, sin_cache: Any = None,
    position_ids: Any = None, attention_bias: Any = None, head_sink: Any = None, k_scale: Any = None,
    v_scale: Any = None, *, num_heads: int, kv_num_heads: int, do_rotary: int = 0, local_window_size: int = -1,
    qk_output: int = 0, rotary_interleaved: int = 0, scale: float = 0.0, smooth_softmax: int = 0,
    softcap: float = 0.0, k_quant_type: str = "NONE",
    v_quant_type: str = "NONE", kv_cache_bit_width: int = 0,
) -> Any:  # fmt: skip
    if k_scale is not None or v_scale is not None or k_quant_type != "NONE" or v_quant_type != "NONE":
        raise OpError("a quantised cache is not supported")
    if seqlens_k is None or total_sequence_length is None or (key is None) != (value is None):
        raise OpError("`seqlens_k`, `total_sequence_length`, and both or none of `key` and `value` must be given")
    q, k, v = _query_key_value(b, query, key, value, num_heads, kv_num_heads)
    length = q.shape[2]
    totals = b.cast(b.reshape(seqlens_k, shape=(q.shape[0],)), to=t.i64) + 1
    start = b.max(totals - b.dims(length), 0)
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise OpError("`do_rotary` needs `cos_cache` and `sin_cache`")
        if position_ids is None:
            position_ids = b.reshape(start, shape=(q.shape[0], 1)) + b.iota(shape=(1, length), axis=1)
        width = cos_cache.shape[1] * 2
        q, k = (rotated(b, x, cos_cache, sin_cache, position_ids, bool(rotary_interleaved), width) for x in (q, k))
    size = _cache_size(b, past_key, length, total_sequence_length)
    if past_key is not None:
        k = b.cache_append(past_key, k, start, size=size)
        v = b.cache_append(past_value, v, start, size=size)
    if smooth_softmax and head_sink is None:
        head_sink = b.const(np.zeros(num_heads, np.float32))
    stage = {0: "", 1: "masked", 2: "weights"}.get(qk_output, "") if b.is_output_used(3) else ""
    out = b.attention(
        q, k, v, _bias(b, attention_bias, k.shape[2]), start, None, head_sink, scale=scale or default_scale(q),
        causal=True, softcap=softcap,
        left_window=local_window_size - 1 if local_window_size > 0 else -1, scores=stage,
    )  # fmt: skip
    y, scores = out if stage else (out, None)
    return merge_heads(b, y), k, v, scores


def _query_key_value(b: Any, query: Any, key: Any, value: Any, heads: int, groups: int) -> list[Any]:
    """q[b, h, s, d], k and v[b, g, s, d] from tensors [b, s, ...], or from one that holds all three."""
    if key is None:
        size = query.shape[2] // (heads + 2 * groups)
        query, key, value = (
            _part(b, query, 2, at * size, count * size)
            for at, count in ((0, heads), (heads, groups), (heads + groups, groups))
        )
    parts = (query, heads, "query"), (key, groups, "key"), (value, groups, "value")
    return [split_heads(b, x, count, what) for x, count, what in parts]


def _cache_size(b: Any, past: Any, length: Size, total: Any) -> Size:
    """Entries of the present cache: those of the past one, or of the sequence so far, whichever are more."""
    if past is None:
        return length
    if total.content is None:
        raise OpError("`total_sequence_length` is computed at run time; it must follow from the shapes of the inputs")
    return maximum(past.shape[2], b.sizes(total, "total_sequence_length")[0])


def _bias(b: Any, bias: Any, keys: Size) -> Any:
    """A bias whose last axis has `keys` entries: cut, or with zeros for entries of the cache that no query sees."""
    if bias is None or decide_eq(bias.shape[-1], keys) is True:
        return bias
    none = (0,) * (bias.rank - 1)
    return b.pad(bias, before=(*none, 0), after=(*none, keys - bias.shape[-1]))
