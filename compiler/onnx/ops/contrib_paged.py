"""Attention of com.microsoft whose keys and values stand in pages of a pool, for sequences that are packed."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.attention import default_scale, rotated
from compiler.onnx.ops.contrib_attention import columns
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.ops.norm import convert, widen


@onnx_op("PagedAttention", domain="com.microsoft")
def PagedAttention(
    b: Any, query: Any, key: Any = None, value: Any = None, key_cache: Any = None, value_cache: Any = None,
    cumulative_sequence_length: Any = None, past_seqlens: Any = None, block_table: Any = None, cos_cache: Any = None,
    sin_cache: Any = None, slot_mapping: Any = None, head_sink: Any = None, q_norm_weight: Any = None,
    k_norm_weight: Any = None, k_scale: Any = None, v_scale: Any = None, attention_metadata: Any = None, *,
    num_heads: int, kv_num_heads: int, do_rotary: int = 0, is_causal: int = 1, k_cache_dtype: str = "",
    k_quant_type: str = "NONE", kv_cache_layout: str = "SEPARATE", local_window_size: int = -1,
    qk_norm_epsilon: float = 1e-6, rotary_interleaved: int = 0, rotary_offset: int = 0, scale: float = 0.0,
    softcap: float = 0.0, v_cache_dtype: str = "", v_head_size: int = 0, v_quant_type: str = "NONE",
) -> Any:  # fmt: skip
    """`attention_metadata` only bounds lengths; `k_cache_dtype` and `v_cache_dtype` may name the types there are."""
    is_latent = kv_cache_layout == "LATENT"
    if kv_cache_layout not in ("SEPARATE", "LATENT"):
        raise OpError(f"`kv_cache_layout` is '{kv_cache_layout}'; it must be SEPARATE or LATENT")
    if k_scale is not None or v_scale is not None or k_quant_type != "NONE" or v_quant_type != "NONE":
        raise OpError("a quantised cache is not supported")
    needed = {
        "key_cache": key_cache, "cumulative_sequence_length": cumulative_sequence_length, "past_seqlens": past_seqlens,
        "block_table": block_table,
    }  # fmt: skip
    missing = [name for name, given in needed.items() if given is None]
    if missing or is_latent != (value_cache is None):
        raise OpError(f"input `{missing[0] if missing else 'value_cache'}` does not fit the layout {kv_cache_layout}")
    if not b.is_output_used(1) or (not is_latent and not b.is_output_used(2)):
        raise OpError("its caches are written in place; without outputs for them there is nowhere to write")
    if (q_norm_weight is None) != (k_norm_weight is None):
        raise OpError("`q_norm_weight` and `k_norm_weight` must be given together")
    q, k, v = _parts(b, query, key, value, num_heads, kv_num_heads, is_latent)
    if q_norm_weight is not None:
        q, k = (b.rms_norm(x, w, epsilon=qk_norm_epsilon) for x, w in ((q, q_norm_weight), (k, k_norm_weight)))
    ends, past, table = (b.cast(x, to=t.i64) for x in (cumulative_sequence_length, past_seqlens, block_table))
    sequence, position = _places(b, q.shape[0], ends, past)
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise OpError("`do_rotary` needs `cos_cache` and `sin_cache`")
        q, k = (
            _turned(b, x, cos_cache, sin_cache, position, bool(rotary_interleaved), rotary_offset) for x in (q, k)
        )  # fmt: skip
    at = b.cast(slot_mapping, to=t.i64) if slot_mapping is not None else _slots(b, table, sequence, position, key_cache)
    keys = b.pages_write(key_cache, convert(b, k, key_cache), at)
    values = None if is_latent else b.pages_write(value_cache, convert(b, v, value_cache), at)
    if is_latent and v_head_size not in (0, q.shape[2]) and not scale:
        raise OpError("values narrower than keys need a `scale`")
    y = b.paged_attention(
        widen(b, q), keys, values, ends, past, table, head_sink, scale=scale or default_scale(_four(b, q)),
        causal=bool(is_causal), left_window=local_window_size - 1 if local_window_size > 0 else -1, softcap=softcap,
        value_size=(v_head_size or q.shape[2]) if is_latent else 0,
    )  # fmt: skip
    y = convert(b, b.reshape(y, shape=(y.shape[0], num_heads * y.shape[2])), query)
    return y, keys, values


def _four(b: Any, x: Any) -> Any:
    """x[n, h, d] as [1, h, n, d]."""
    return b.transpose(b.reshape(x, shape=(1, *x.shape)), perm=(0, 2, 1, 3))


def _parts(b: Any, query: Any, key: Any, value: Any, heads: int, groups: int, is_latent: bool) -> list[Any]:
    """q[n, h, d], k and v[n, g, d] from tensors [n, ...], or from one that holds them; v is None where keys hold it."""
    if is_latent:
        if groups != 1 or value is not None or key is None:
            raise OpError("the layout LATENT has one head of keys, in `key`, and no `value`")
    elif (key is None) != (value is None):
        raise OpError("both or none of `key` and `value` must be given")
    elif key is None:
        width = query.shape[1] if query.rank == 2 else None
        if not isinstance(width, int) or width % (heads + 2 * groups):
            raise OpError(f"`query` is {query.type}; it does not hold {heads} heads and two times {groups}")
        size = width // (heads + 2 * groups)
        spans = ((0, heads), (heads, groups), (heads + groups, groups))
        query, key, value = (columns(b, query, at * size, count * size) for at, count in spans)
    found = []
    for what, x, count in (("query", query, heads), ("key", key, groups), ("value", value, groups)):
        if x is not None and (x.rank != 2 or not isinstance(x.shape[1], int) or x.shape[1] % count):
            raise OpError(f"`{what}` is {x.type}; it must have 2 axes, the last of {count} heads")
        found.append(None if x is None else b.reshape(x, shape=(x.shape[0], count, x.shape[1] // count)))
    return found


def _places(b: Any, count: Any, ends: Any, past: Any) -> tuple[Any, Any]:
    """i64[n] of the sequence that each token is of, and of where it stands in it."""
    token = b.iota(shape=(count, 1), axis=0)
    sequences = past.shape[0]
    last = b.reshape(b.slice(ends, starts=(1,), shape=(sequences,), steps=(1,)), shape=(1, sequences))
    gone = b.reduce_sum(b.cast(b.greater_or_equal(token, last), to=t.i64), axes=(1,), keepdims=False)
    sequence = b.min(gone, b.dims(sequences - 1))
    before = b.gather(past, sequence, axis=0) - b.gather(ends, sequence, axis=0)
    return sequence, before + b.reshape(token, shape=(count,))


def _turned(b: Any, x: Any, cos: Any, sin: Any, position: Any, interleaved: bool, offset: int) -> Any:
    """x[n, h, d] with the elements from `offset` on turned, as many as there are angles for."""
    count, size = cos.shape[1] * 2, x.shape[2]
    if not isinstance(count, int) or not 0 <= offset <= size - count:
        raise OpError(f"{count} elements from {offset} on cannot be turned in a head of {size}")
    heads = _four(b, x)
    parts = [(0, offset), (offset, count), (offset + count, size - offset - count)]
    before, middle, behind = (columns(b, heads, start, length) for start, length in parts)
    middle = rotated(b, middle, cos, sin, b.reshape(position, shape=(1, x.shape[0])), interleaved, count)
    turned = b.concat(before, middle, behind, axis=3)
    return b.reshape(b.transpose(turned, perm=(0, 2, 1, 3)), shape=x.shape)


def _slots(b: Any, table: Any, sequence: Any, position: Any, cache: Any) -> Any:
    """i64[n] of the slots that the tables of the sequences have for the tokens; -1 where they have no page."""
    slots, width = b.dims(cache.shape[1]), table.shape[1]
    column = position / slots
    inside = b.min(b.max(column, 0), b.dims(width - 1))
    flat = b.reshape(table, shape=(table.shape[0] * width,))
    page = b.gather(flat, sequence * b.dims(width) + inside, axis=0)
    is_page = b.and_(b.greater_or_equal(page, 0), b.equal(column, inside))
    return b.where(is_page, page * slots + position - column * slots, b.const(-1, t.i64))
