"""Multi-head attention of com.microsoft, as the transformer optimiser of ONNX Runtime writes it."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.attention import default_scale, merge_heads, split_heads
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size
from ir.op import OpError

_MS = "com.microsoft"


def _columns(b: Any, x: Any, start: Size, count: Size) -> Any:
    """`count` entries of the last axis from `start` on."""
    starts = (*(0,) * (x.rank - 1), start)
    return b.slice(x, starts=starts, shape=(*x.shape[:-1], count), steps=(1,) * x.rank)


def _entry(b: Any, x: Any, axis: int, position: int) -> Any:
    """Entry `position` of `axis`, without the axis."""
    starts = tuple(position if a == axis else 0 for a in range(x.rank))
    shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
    part = b.slice(x, starts=starts, shape=shape, steps=(1,) * x.rank)
    return b.reshape(part, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))


def padding_bias(b: Any, mask: Any, batch: Size, keys: Size, filtered: float) -> Any:
    """What a mask of padding adds to scores[b, h, s, t]: `filtered` for keys that are not to be seen.

    The mask is the number of keys to see of each sequence, or truth values [b, t] or [b, s, t].
    """
    zero, low = b.const(0.0, t.f32), b.const(filtered, t.f32)
    if mask.rank == 1:
        if mask.shape != (batch,):
            raise OpError(f"a mask of type {mask.type} is not supported; it must be [batch], [batch, keys] or 3-D")
        seen = b.less(b.iota(shape=(1, 1, 1, keys), axis=3), b.reshape(b.cast(mask, to=t.i64), shape=(batch, 1, 1, 1)))
    elif mask.rank in (2, 3):
        shape = (mask.shape[0], 1, 1, mask.shape[1]) if mask.rank == 2 else (mask.shape[0], 1, *mask.shape[1:])
        shaped = b.reshape(mask, shape=shape)
        seen = shaped if mask.dtype == t.bool_ else b.not_equal(shaped, b.const(0, mask.dtype))
    else:
        raise OpError(f"a mask of type {mask.type} is not supported")
    return b.where(seen, zero, low)


def attended(
    b: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    bias: Any,
    past: tuple[Any, Any],
    *,
    scale: float,
    causal: bool,
    filtered: float,
) -> tuple[Any, Any, Any]:
    """Attention of heads q, k, v[b, h, s, d] behind the past ones: output [b, s, h*d], and present keys and values."""
    length: Size = 0
    if past[0] is not None:
        length = past[0].shape[2]
        k, v = b.concat(past[0], k, axis=2), b.concat(past[1], v, axis=2)
    if mask is not None:
        padding = padding_bias(b, mask, q.shape[0], k.shape[2], filtered)
        padding = padding if padding.dtype == q.dtype else b.cast(padding, to=q.dtype)
        bias = padding if bias is None else padding + bias
    y = b.attention(q, k, v, bias, scale=scale or default_scale(q), causal=causal, past=length)
    return merge_heads(b, y), k, v


@onnx_op("MultiHeadAttention", domain=_MS)
def MultiHeadAttention(
    b: Any, query: Any, key: Any = None, value: Any = None, bias: Any = None, key_padding_mask: Any = None,
    attention_bias: Any = None, past_key: Any = None, past_value: Any = None, past_sequence_length: Any = None,
    cache_indirection: Any = None, *, num_heads: int, mask_filter_value: float = -10000.0, scale: float = 0.0,
    unidirectional: int = 0,
) -> Any:  # fmt: skip
    if past_sequence_length is not None or cache_indirection is not None:
        raise OpError("a shared cache (`past_sequence_length`, `cache_indirection`) is not supported")
    packed = query if key is None else key
    if packed.rank == 5:  # [b, s, h, 3 or 2, d]
        parts = [b.transpose(_entry(b, packed, 3, i), perm=(0, 2, 1, 3)) for i in range(packed.shape[3])]
        heads = parts if key is None else [_with_bias(b, query, bias, 0), *parts]
    elif key is None or value is None:
        raise OpError("`key` and `value` must be given, unless one tensor of 5 axes holds them")
    else:
        offsets = (0, query.shape[-1], 2 * query.shape[-1])
        heads = [_with_bias(b, x, bias, at) for x, at in zip((query, key, value), offsets)]
    q, k, v = (split_heads(b, x, num_heads, what) for x, what in zip(heads, ("query", "key", "value")))
    return attended(
        b, q, k, v, key_padding_mask, attention_bias, (past_key, past_value), scale=scale, causal=bool(unidirectional),
        filtered=mask_filter_value,
    )  # fmt: skip


def _with_bias(b: Any, x: Any, bias: Any, start: Size) -> Any:
    """x[b, s, d] plus its part of the bias of all three projections; heads [b, h, s, d] have none."""
    return x if bias is None or x.rank == 4 else x + _columns(b, bias, start, x.shape[-1])


@onnx_op("Attention", domain=_MS)
def Attention(
    b: Any, input: Any, weights: Any, bias: Any = None, mask_index: Any = None, past: Any = None,
    attention_bias: Any = None, past_sequence_length: Any = None, *, num_heads: int, do_rotary: int = 0,
    mask_filter_value: float = -10000.0, past_present_share_buffer: int = 0, qkv_hidden_sizes: tuple[int, ...] = (),
    rotary_embedding_dim: int = 0, scale: float = 0.0, unidirectional: int = 0,
) -> Any:  # fmt: skip
    if do_rotary or past_present_share_buffer or past_sequence_length is not None:
        raise OpError("rotary embedding and a shared cache are not supported")
    width = weights.shape[1]
    if not isinstance(width, int):
        raise OpError("the hidden size must be known when compiling")
    projected = b.matmul(input, weights)
    projected = projected if bias is None else projected + bias
    sizes = qkv_hidden_sizes or (width // 3,) * 3
    starts = (0, sizes[0], sizes[0] + sizes[1])
    q, k, v = (
        split_heads(b, _columns(b, projected, start, size), num_heads, "input") for start, size in zip(starts, sizes)
    )
    cache = (None, None) if past is None else (_entry(b, past, 0, 0), _entry(b, past, 0, 1))
    y, k, v = attended(
        b,
        q,
        k,
        v,
        mask_index,
        attention_bias,
        cache,
        scale=scale,
        causal=bool(unidirectional),
        filtered=mask_filter_value,
    )
    if not b.is_output_used(1):
        return y
    return y, b.concat(*(b.reshape(x, shape=(1, *x.shape)) for x in (k, v)), axis=0)
