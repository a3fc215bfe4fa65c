"""Grouped attention with a cache, and rotary embedding, of com.microsoft, as generative models use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.onnx.ops.attention import default_scale, merge_heads, rotated, split_heads
from compiler.onnx.ops.contrib_attention import columns
from compiler.onnx.ops.contrib_cache import bias_in_window, codec, moved, window_of
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import elements_of, told
from ir import types as t
from ir.dims import Dim, Size, decide_eq, maximum
from ir.op import OpError

_MS = "com.microsoft"


@onnx_op("RotaryEmbedding", domain=_MS)
def RotaryEmbedding(
    b: Any, input: Any, position_ids: Any, cos_cache: Any, sin_cache: Any, *, interleaved: int = 0,
    is_packed_batching: int = 0, num_heads: int = 0, rotary_embedding_dim: int = 0, scale: float = 1.0,
) -> Any:  # fmt: skip
    """`is_packed_batching` only lets a sequence be longer than the caches; positions are looked up all the same."""
    if scale != 1.0:
        raise OpError(f"`scale` is {scale}; what it scales is not documented, and ONNX Runtime ignores it")
    if rotary_embedding_dim and not num_heads:
        raise OpError("`rotary_embedding_dim` needs `num_heads`")
    size = cos_cache.shape[1] * 2
    heads = num_heads or (0 if input.rank == 4 else input.shape[2] // size)
    x = split_heads(b, input, heads, "input")
    if position_ids.rank == 1:
        position_ids = b.reshape(position_ids, shape=(1, 1)) + b.iota(shape=(1, x.shape[2]), axis=1)
    y = rotated(b, x, cos_cache, sin_cache, position_ids, bool(interleaved), rotary_embedding_dim)
    return merge_heads(b, y) if input.rank == 3 else y


@dataclass(frozen=True)
class Step:
    """Where the tokens of a call are: their number, and i64[b] of how many come before them and how many there are
    with them; whether the call may be a first prompt, whose tokens are all there are.
    """

    length: Size
    start: Any
    totals: Any
    may_be_first: bool


@onnx_op("GroupQueryAttention", domain=_MS)
def GroupQueryAttention(
    b: Any, query: Any, key: Any = None, value: Any = None, past_key: Any = None, past_value: Any = None,
    seqlens_k: Any = None, total_sequence_length: Any = None, cos_cache: Any = None, sin_cache: Any = None,
    position_ids: Any = None, attention_bias: Any = None, head_sink: Any = None, k_scale: Any = None,
    v_scale: Any = None, q_norm_weight: Any = None, k_norm_weight: Any = None, query_seqlens: Any = None, *,
    num_heads: int, kv_num_heads: int, causal: int = 1, do_rotary: int = 0, k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE", kv_cache_bit_width: int = 0, local_window_size: int = -1,
    q_norm_epsilon: float | None = None, qk_norm_epsilon: float = 1e-6, qk_output: int = 0,
    rotary_interleaved: int = 0, scale: float = 0.0, sliding_window_cache: int = 0, smooth_softmax: int = -1,
    softcap: float = 0.0, v_quant_type: str = "NONE",
) -> Any:  # fmt: skip
    if seqlens_k is None or total_sequence_length is None or (key is None) != (value is None):
        raise OpError("`seqlens_k`, `total_sequence_length`, and both or none of `key` and `value` must be given")
    if (past_key is None) != (past_value is None) or (q_norm_weight is None) != (k_norm_weight is None):
        raise OpError("`past_key` and `past_value`, and the weights of both norms, must be given together")
    if not causal and local_window_size > 0:
        raise OpError("`local_window_size` is for causal attention")
    q, k, v = _query_key_value(b, query, key, value, num_heads, kv_num_heads)
    step = _step(b, q, seqlens_k, query_seqlens, past_key)
    if q_norm_weight is not None:
        epsilons = (qk_norm_epsilon if e is None else e for e in (q_norm_epsilon, k_norm_epsilon))
        q, k = (b.rms_norm(x, w, epsilon=e) for x, w, e in zip((q, k), (q_norm_weight, k_norm_weight), epsilons))
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise OpError("`do_rotary` needs `cos_cache` and `sin_cache`")
        positions = _positions(b, step, position_ids, total_sequence_length)
        is_shared = decide_eq(k.shape[2], 0) is True  # keys that another node has put into the cache
        q, k = (
            x if x is k and is_shared
            else rotated(b, x, cos_cache, sin_cache, positions, bool(rotary_interleaved), cos_cache.shape[1] * 2)
            for x in (q, k)
        )  # fmt: skip
    if smooth_softmax == 1 and head_sink is None:
        head_sink = b.const(np.zeros(num_heads, np.float32))
    options: dict[str, Any] = {
        "scale": scale or default_scale(q), "causal": bool(causal), "softcap": softcap,
        "left_window": local_window_size - 1 if local_window_size > 0 else -1,
    }  # fmt: skip
    codecs = [
        codec(past, divisor, kind, kv_cache_bit_width or 8, x.shape[3])
        for past, divisor, kind, x in ((past_key, k_scale, k_quant_type, k), (past_value, v_scale, v_quant_type, v))
    ]
    stored = [c.encode(b, x) for c, x in zip(codecs, (k, v))]
    if sliding_window_cache:
        if b.is_output_used(3) and qk_output:
            raise OpError("`qk_output` with `sliding_window_cache` is not supported")
        at = window_of(b, past_key, step.start, step.totals, local_window_size)
        start, size = at.before, at.capacity + step.length
        stored = [b.cache_append(past, x, start, size=size) for past, x in zip((past_key, past_value), stored)]
        present = [moved(b, x, at.kept, at.capacity) for x in stored]
        bias = bias_in_window(b, attention_bias, at.gone, size)
    else:
        start = step.start
        if past_key is not None:
            stored = _appended(b, (past_key, past_value), stored, start, total_sequence_length)
        present = stored
        bias = _bias(b, attention_bias, stored[0].shape[2])
    k, v = (c.decode(b, x, q.shape[3], q.dtype) for c, x in zip(codecs, stored))
    stage = {0: "", 1: "masked", 2: "weights"}.get(qk_output, "") if b.is_output_used(3) else ""
    out = b.attention(q, k, v, bias, start, None if causal else step.totals, head_sink, scores=stage, **options)
    if not stage:
        return merge_heads(b, out), *present
    y, scores = out
    return merge_heads(b, y), *present, _given_scores(b, scores, total_sequence_length)


def _given_scores(b: Any, scores: Any, total: Any) -> Any:
    """Scores [b, h, s, total] with zeros where a query does not see a key."""
    hidden = b.equal(scores, b.const(-np.inf, scores.dtype))
    scores = b.where(hidden, b.const(0.0, scores.dtype), scores)
    (count,) = elements_of(b, total, "total_sequence_length")
    if not isinstance(count, (int, Dim)):
        count = told(b, count, b.run_time_size(3, output=3), scores.shape[3])
    return columns(b, scores, 0, count)


def _query_key_value(b: Any, query: Any, key: Any, value: Any, heads: int, groups: int) -> list[Any]:
    """q[b, h, s, d], k and v[b, g, s, d] from tensors [b, s, ...], or from one that holds all three.

    Keys and values of no tokens stand for those that are in the cache already.
    """
    if key is None:
        if query.rank != 3 or not isinstance(query.shape[2], int) or query.shape[2] % (heads + 2 * groups):
            raise OpError(f"`query` is {query.type}; it does not hold {heads} heads and two times {groups}")
        size = query.shape[2] // (heads + 2 * groups)
        query, key, value = (
            columns(b, query, at * size, count * size)
            for at, count in ((0, heads), (heads, groups), (heads + groups, groups))
        )
    if decide_eq(key.shape[1], 0) is not True:
        if decide_eq(key.shape[1], query.shape[1]) is False:
            raise OpError(f"`key` is {key.type} and `query` {query.type}; they must have as many tokens")
        b.assume_equal(key.shape[1], query.shape[1])
    parts = (query, heads, "query"), (key, groups, "key"), (value, groups, "value")
    return [split_heads(b, x, count, what) for x, count, what in parts]


def _step(b: Any, q: Any, seqlens_k: Any, query_seqlens: Any, past: Any) -> Step:
    """Where the tokens are: `seqlens_k` is one less than how many there are after the call, of each sequence."""
    batch, length = q.shape[0], q.shape[2]
    totals = b.cast(b.reshape(seqlens_k, shape=(batch,)), to=t.i64) + 1
    if query_seqlens is None:
        return Step(length, b.max(totals - b.dims(length), 0), totals, True)
    if past is None:
        raise OpError("`query_seqlens` needs `past_key` and `past_value`")
    return Step(length, totals - b.cast(query_seqlens, to=t.i64), totals, False)


def _positions(b: Any, step: Step, position_ids: Any, total: Any) -> Any:
    """i64[b, s] of the angles to turn by. In a first prompt, the first of the positions given starts all sequences."""
    count = b.iota(shape=(1, step.length), axis=1)
    if position_ids is None:
        return b.reshape(step.start, shape=(step.start.shape[0], 1)) + count
    if not step.may_be_first:
        return position_ids
    first = b.slice(position_ids, starts=(0, 0), shape=(1, 1), steps=(1, 1)) + count
    total = b.reshape(b.cast(total, to=t.i64), shape=())
    return b.where(b.equal(total, b.dims(step.length)), first, position_ids)


def _appended(b: Any, past: tuple[Any, Any], new: list[Any], start: Any, total: Any) -> list[Any]:
    """The present caches: they have the entries of the past ones, or all `total` tokens, whichever are more."""
    if total.content is not None:
        size = maximum(past[0].shape[2], b.sizes(total, "total_sequence_length")[0])
        return [b.cache_append(old, x, start, size=size) for old, x in zip(past, new)]
    count = b.max(b.reshape(b.cast(total, to=t.i64), shape=()), b.dims(past[0].shape[2]))
    return list(b.caches_append(*past, *new, start, count, size=b.run_time_size(2, output=1)))


def _bias(b: Any, bias: Any, keys: Size) -> Any:
    """A bias whose last axis has `keys` entries: with zeros for entries of the cache that no query sees."""
    if bias is None or decide_eq(bias.shape[-1], keys) is True:
        return bias
    none = (0,) * (bias.rank - 1)
    return b.pad(bias, before=(*none, 0), after=(*none, keys - bias.shape[-1]))
