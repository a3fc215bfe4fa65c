"""Attention and rotary embedding of ai.onnx."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import decide_le
from ir.op import OpError

STAGES = ("raw", "capped", "masked", "weights")


def split_heads(b: Any, x: Any, heads: int, what: str) -> Any:
    """x[b, s, h*d] as [b, h, s, d]; a tensor of rank 4 is that already."""
    if x.rank == 4:
        return x
    if x.rank != 3:
        raise OpError(f"{what} is {x.type}; it must have 3 or 4 axes")
    if heads < 1:
        raise OpError(f"{what} is {x.type}; its number of heads must be given")
    if not isinstance(x.shape[2], int) or x.shape[2] % heads:
        raise OpError(f"{what} is {x.type}; its last axis does not split into {heads} heads")
    batch, length, hidden = x.shape
    return b.transpose(b.reshape(x, shape=(batch, length, heads, hidden // heads)), perm=(0, 2, 1, 3))


def merge_heads(b: Any, x: Any) -> Any:
    """x[b, h, s, d] as [b, s, h*d]."""
    batch, heads, length, size = x.shape
    return b.reshape(b.transpose(x, perm=(0, 2, 1, 3)), shape=(batch, length, heads * size))


def padded_mask(b: Any, mask: Any, keys: Any) -> Any:
    """A mask whose last axis may be shorter than the number of keys, with keys that are not seen behind it."""
    if mask is None or mask.rank == 0 or mask.shape[-1] == 1 or decide_le(keys, mask.shape[-1]) is not False:
        return mask
    after = (*(0,) * (mask.rank - 1), keys - mask.shape[-1])
    fill = b.const(np.zeros((), np.bool_)) if mask.dtype == t.bool_ else b.const(-np.inf, mask.dtype)
    return b.pad(mask, fill, before=(0,) * mask.rank, after=after)


@onnx_op("Attention", since=23)
def Attention(
    b: Any, Q: Any, K: Any, V: Any, attn_mask: Any = None, past_key: Any = None, past_value: Any = None,
    nonpad_kv_seqlen: Any = None, *, is_causal: int = 0, kv_num_heads: int = 0, q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0, scale: float = 0.0, softcap: float = 0.0, softmax_precision: int = 0,
    left_window_size: int = -1, right_window_size: int = -1,
) -> Any:  # fmt: skip
    if not 0 <= qk_matmul_output_mode < len(STAGES):
        raise OpError(f"`qk_matmul_output_mode` is {qk_matmul_output_mode}; it must be 0 to 3")
    if (past_key is None) != (past_value is None):
        raise OpError("`past_key` and `past_value` must be given together")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise OpError("`nonpad_kv_seqlen` and `past_key` exclude each other")
    is_flat = Q.rank == 3
    q, k, v = (
        split_heads(b, Q, q_num_heads, "Q"),
        split_heads(b, K, kv_num_heads, "K"),
        split_heads(b, V, kv_num_heads, "V"),
    )
    past = 0
    if past_key is not None:
        past = past_key.shape[2]
        k, v = b.concat(past_key, k, axis=2), b.concat(past_value, v, axis=2)
    start = None
    if nonpad_kv_seqlen is not None:
        start = b.cast(nonpad_kv_seqlen, to=t.i64) - b.dims(q.shape[2])
    present = k, v
    if v.dtype != q.dtype:  # values may have a type of their own: then all is computed in one that holds both
        exact = t.f64 if t.f64 in (q.dtype, v.dtype) else t.f32
        q, k, v = (x if x.dtype == exact else b.cast(x, to=exact) for x in (q, k, v))
    if attn_mask is not None and attn_mask.dtype not in (t.bool_, q.dtype):
        attn_mask = b.cast(attn_mask, to=q.dtype)
    stage = STAGES[qk_matmul_output_mode] if b.is_output_used(3) else ""
    out = b.attention(
        q, k, v, padded_mask(b, attn_mask, k.shape[2]), start, nonpad_kv_seqlen,
        scale=scale or default_scale(q), causal=bool(is_causal), past=past, softcap=softcap, scores=stage,
        left_window=left_window_size, right_window=right_window_size,
        softmax_dtype=element_type(softmax_precision) if softmax_precision else None,
    )  # fmt: skip
    y, scores = (
        x if x is None or x.dtype == Q.dtype else b.cast(x, to=Q.dtype) for x in (out if stage else (out, None))
    )
    return merge_heads(b, y) if is_flat else y, *present, scores


def default_scale(q: Any) -> float:
    """1 / sqrt(head size). Raises OpError where that is symbolic."""
    size = q.shape[3]
    if not isinstance(size, int):
        raise OpError("without `scale`, the head size must be known when compiling")
    return 1 / math.sqrt(size)


@onnx_op("RotaryEmbedding", since=23)
def RotaryEmbedding(
    b: Any, X: Any, cos_cache: Any, sin_cache: Any, position_ids: Any = None, *, interleaved: int = 0,
    num_heads: int = 0, rotary_embedding_dim: int = 0,
) -> Any:  # fmt: skip
    x = split_heads(b, X, num_heads, "X")
    y = rotated(b, x, cos_cache, sin_cache, position_ids, bool(interleaved), rotary_embedding_dim)
    return merge_heads(b, y) if X.rank == 3 else y


def rotated(b: Any, x: Any, cos: Any, sin: Any, positions: Any, interleaved: bool, rotary_dim: int) -> Any:
    """x[b, h, s, d] turned. The caches are [b, s, r], or [p, r] with `positions`[b, s] that pick their rows."""
    if positions is not None:
        cos, sin = (b.gather(cache, positions, axis=0) for cache in (cos, sin))
    if cos.rank != 3:
        raise OpError(f"the cache is {cos.type}; without position ids it must have 3 axes")
    wanted = rotary_dim or x.shape[3]
    if cos.shape[2] * 2 != wanted:
        raise OpError(f"the cache has {cos.shape[2]} angles; {wanted} elements to turn need half as many")
    cos, sin = (v if v.dtype == x.dtype else b.cast(v, to=x.dtype) for v in (cos, sin))
    return b.rotary(x, cos, sin, interleaved=interleaved)


@onnx_op("LinearAttention", since=27)
def LinearAttention(
    b: Any, query: Any, key: Any, value: Any, past_state: Any = None, decay: Any = None, beta: Any = None, *,
    chunk_size: int = 64, kv_num_heads: int, q_num_heads: int, scale: float = 0.0, update_rule: str = "gated_delta",
) -> Any:  # fmt: skip
    dtype = query.dtype
    wide = t.f64 if dtype == t.f64 else t.f32

    def heads(x: Any, count: int) -> Any:
        """x[b, s, h*d] as [b, s, h, d]."""
        if x.rank != 3 or not isinstance(x.shape[2], int) or count < 1 or x.shape[2] % count:
            raise OpError(f"an input is {x.type}; it must have 3 axes, the last of {count} heads")
        return widened(b.reshape(x, shape=(*x.shape[:2], count, x.shape[2] // count)))

    def widened(x: Any) -> Any:
        return x if x is None or x.dtype == wide else b.cast(x, to=wide)

    q, k, v = heads(query, q_num_heads), heads(key, kv_num_heads), heads(value, kv_num_heads)
    is_gated, is_delta = update_rule.startswith("gated"), update_rule.endswith("delta")
    decay = heads(decay, kv_num_heads) if decay is not None and is_gated else None
    y, state, _ = b.linear_attention(
        q, k, v, widened(past_state), decay, widened(beta) if is_delta else None,
        rule=update_rule, scale=scale or default_scale(q),
    )  # fmt: skip
    y = b.reshape(y, shape=(*y.shape[:2], y.shape[2] * y.shape[3]))
    kept = dtype if past_state is None else past_state.dtype
    return tuple(x if x.dtype == to else b.cast(x, to=to) for x, to in ((y, dtype), (state, kept)))
