"""Multi-head attention of com.microsoft, as the transformer optimiser of ONNX Runtime writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.onnx.ops.attention import default_scale, merge_heads, split_heads
from compiler.onnx.ops.shape import demand_at_most
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size, decide_eq
from ir.op import OpError

_MS = "com.microsoft"


def columns(b: Any, x: Any, start: Size, count: Size) -> Any:
    """`count` entries of the last axis from `start` on."""
    starts = (*(0,) * (x.rank - 1), start)
    return b.slice(x, starts=starts, shape=(*x.shape[:-1], count), steps=(1,) * x.rank)


def entry(b: Any, x: Any, axis: int, position: int) -> Any:
    """Entry `position` of `axis`, without the axis."""
    starts = tuple(position if a == axis else 0 for a in range(x.rank))
    shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
    part = b.slice(x, starts=starts, shape=shape, steps=(1,) * x.rank)
    return b.reshape(part, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))


@dataclass(frozen=True)
class Cache:
    """Keys and values [b, h, p, d] of earlier calls. With `filled`[b], only so many entries count, and new ones are
    written behind them; without it new ones are appended to all. Of a beam search, `origins`[b / w, w, p] says in which
    of the w beams of its sequence each entry of a beam stands.
    """

    keys: Any = None
    values: Any = None
    filled: Any = None
    origins: Any = None


def padding_bias(b: Any, mask: Any, batch: Size, length: Size, keys: Size, filtered: float) -> Any:
    """What a mask of padding adds to scores[b, h, s, t]: `filtered` for keys that are not to be seen.

    The mask says of [b, t] or [b, s, t] what is to be seen, by numbers above 0; [b, 1, m, m] says it of the greatest
    sequence. Or it is the number of keys to see [b]; that and the first key to see, one after the other [2 b]; or that
    and what packed sequences would need besides [3 b + 2].
    """
    if mask.rank == 1:
        seen = _range_seen(b, mask, batch, keys)
    elif mask.rank in (2, 3, 4):
        if mask.rank == 4:
            for size in mask.shape[2:]:
                demand_at_most(b, keys, size, f"a mask of type {mask.type} is not of {keys} keys")
            starts, shape = (0, 0, keys - length, 0), (*mask.shape[:2], length, keys)
            mask = b.slice(mask, starts=starts, shape=shape, steps=(1,) * 4)
        if decide_eq(mask.shape[-1], keys) is False:
            raise OpError(f"a mask of type {mask.type} is not supported; it must have an entry for each of {keys} keys")
        shape = {2: (mask.shape[0], 1, 1, mask.shape[-1]), 3: (mask.shape[0], 1, *mask.shape[1:])}
        shaped = b.reshape(mask, shape=shape.get(mask.rank, mask.shape))
        seen = shaped if mask.dtype == t.bool_ else b.greater(shaped, b.const(0, mask.dtype))
    else:
        raise OpError(f"a mask of type {mask.type} is not supported")
    return b.where(seen, b.const(0.0, t.f32), b.const(filtered, t.f32))


def _range_seen(b: Any, mask: Any, batch: Size, keys: Size) -> Any:
    """bool[b, 1, 1, t] of a mask of one axis: see `padding_bias`."""
    forms = [size for size in (batch, 2 * batch, 3 * batch + 2) if decide_eq(mask.shape[0], size) is not False]
    if not forms:
        raise OpError(f"a mask of type {mask.type} is not supported; its size must be batch, 2 batch or 3 batch + 2")
    size = next((size for size in forms if decide_eq(mask.shape[0], size)), forms[0])
    b.assume_equal(mask.shape[0], size)
    position = b.iota(shape=(1, 1, 1, keys), axis=3)

    def bound(start: Size) -> Any:
        part = b.slice(mask, starts=(start,), shape=(batch,), steps=(1,))
        return b.reshape(b.cast(part, to=t.i64), shape=(batch, 1, 1, 1))

    seen = b.less(position, bound(0))
    return b.and_(seen, b.greater_or_equal(position, bound(batch))) if size == 2 * batch else seen


def attended(
    b: Any, q: Any, k: Any, v: Any, mask: Any, bias: Any, cache: Cache, *, scale: float, causal: bool, filtered: float,
    scores: bool = False,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """Attention of heads q, k, v[b, h, s, d] behind those of the cache.

    Outputs [b, s, h*d], the present keys and values, and the scores before softmax where they are wanted.
    """
    batch, length = q.shape[0], q.shape[2]
    past: Size = 0
    start = lengths = None
    if causal:
        if decide_eq(length, k.shape[2]) is False:
            raise OpError(f"`unidirectional` is for as many keys as queries, not {k.shape[2]} and {length}")
        b.assume_equal(length, k.shape[2])
    if cache.filled is not None:
        start, size = cache.filled, cache.keys.shape[2]
        lengths = start + b.dims(k.shape[2])
        k, v = (b.cache_append(old, new, start, size=size) for old, new in ((cache.keys, k), (cache.values, v)))
    elif cache.keys is not None:
        past = cache.keys.shape[2]
        k, v = b.concat(cache.keys, k, axis=2), b.concat(cache.values, v, axis=2)
    read_k, read_v = k, v
    if cache.origins is not None:
        read_k, read_v = _of_beams(b, k, cache), _of_beams(b, v, cache)
    if mask is not None:
        padding = padding_bias(b, mask, batch, length, k.shape[2], filtered)
        padding = padding if padding.dtype == q.dtype else b.cast(padding, to=q.dtype)
        bias = padding if bias is None else padding + bias
    out = b.attention(
        q, read_k, read_v, bias, start, lengths, scale=scale or default_scale(q), causal=causal, past=past,
        scores="masked" if scores else "",
    )  # fmt: skip
    y, stage = out if scores else (out, None)
    if stage is not None:  # finite, as others give them
        stage = b.max(stage, b.const(np.finfo(np.float32).min, stage.dtype))
    return merge_heads(b, y), k, v, stage


def _of_beams(b: Any, x: Any, cache: Cache) -> Any:
    """Entries x[b, h, t, d] of the present cache as each beam sees them: past ones where their origin says."""
    origins = cache.origins
    sequences, beams, size = origins.shape
    first = b.iota(shape=(sequences, 1, 1), axis=0) * b.dims(beams)
    row = b.reshape(first + b.cast(origins, to=t.i64), shape=(x.shape[0], size))
    is_past = b.less(b.iota(shape=(1, size), axis=1), b.reshape(cache.filled, shape=(x.shape[0], 1)))
    row = b.where(is_past, row, b.iota(shape=(x.shape[0], 1), axis=0))
    return b.gather_elements(x, b.expand(b.reshape(row, shape=(x.shape[0], 1, size, 1)), shape=x.shape), axis=0)


def filled_entries(b: Any, length: Any, batch: Size) -> Any:
    """i64[batch] of the one number of entries that every sequence has in a shared cache."""
    return b.expand(b.reshape(b.cast(length, to=t.i64), shape=(1,)), shape=(batch,))


@onnx_op("MultiHeadAttention", domain=_MS)
def MultiHeadAttention(
    b: Any, query: Any, key: Any = None, value: Any = None, bias: Any = None, key_padding_mask: Any = None,
    attention_bias: Any = None, past_key: Any = None, past_value: Any = None, past_sequence_length: Any = None,
    cache_indirection: Any = None, *, num_heads: int, mask_filter_value: float = -10000.0, scale: float = 0.0,
    unidirectional: int = 0,
) -> Any:  # fmt: skip
    if (past_key is None) != (past_value is None):
        raise OpError("`past_key` and `past_value` must be given together")
    if past_sequence_length is not None and past_key is None:
        raise OpError("`past_sequence_length` is for a cache, and there is none")
    q, k, v = _three_heads(b, query, key, value, bias, num_heads)
    if cache_indirection is not None:
        if past_sequence_length is None or decide_eq(q.shape[2], 1) is not True or cache_indirection.rank != 3:
            raise OpError("`cache_indirection` is for one token at a time, and needs `past_sequence_length`")
        b.assume_equal(cache_indirection.shape[2], past_key.shape[2])
    filled = None if past_sequence_length is None else filled_entries(b, past_sequence_length, q.shape[0])
    return attended(
        b, q, k, v, key_padding_mask, attention_bias, Cache(past_key, past_value, filled, cache_indirection),
        scale=scale, causal=bool(unidirectional), filtered=mask_filter_value, scores=b.is_output_used(3),
    )  # fmt: skip


def _three_heads(b: Any, query: Any, key: Any, value: Any, bias: Any, heads: int) -> list[Any]:
    """q, k, v[b, h, s, d] from tensors of their own, from [b, s, h, 2, d] that holds k and v, or [b, s, h, 3, d]."""
    packed = query if key is None else key
    if packed.rank == 5:
        if value is not None or packed.shape[3] != (3 if key is None else 2) or packed.shape[2] != heads:
            raise OpError(f"a packed tensor of type {packed.type} does not hold what is missing in {heads} heads")
        parts = [entry(b, packed, 3, i) for i in range(packed.shape[3])]  # [b, s, h, d]
        parts = [b.reshape(x, shape=(*x.shape[:2], heads * x.shape[3])) for x in parts]
        parts = parts if key is None else [query, *parts]
    elif key is None or value is None:
        raise OpError("`key` and `value` must be given, unless one tensor of 5 axes holds them")
    else:
        parts = [query, key, value]
    if bias is not None:
        width = parts[0].shape[-1]
        parts = [_with_bias(b, x, bias, at) for x, at in zip(parts, (0, width, 2 * width))]
    return [split_heads(b, x, heads, what) for x, what in zip(parts, ("query", "key", "value"))]


def _with_bias(b: Any, x: Any, bias: Any, start: Size) -> Any:
    """x[b, s, d] plus its part of the bias of all three projections; heads [b, h, s, d] have none."""
    return x if x.rank == 4 else x + columns(b, bias, start, x.shape[-1])


@onnx_op("Attention", domain=_MS)
def Attention(
    b: Any, input: Any, weights: Any, bias: Any = None, mask_index: Any = None, past: Any = None,
    attention_bias: Any = None, past_sequence_length: Any = None, *, num_heads: int, do_rotary: int = 0,
    mask_filter_value: float = -10000.0, past_present_share_buffer: int = 0, qkv_hidden_sizes: tuple[int, ...] = (),
    rotary_embedding_dim: int = 0, scale: float = 0.0, unidirectional: int = 0,
) -> Any:  # fmt: skip
    if do_rotary:
        raise OpError("`do_rotary` is not supported: the operator has no input for the angles")
    if past_present_share_buffer and (past is None or past_sequence_length is None):
        raise OpError("`past_present_share_buffer` needs `past` and `past_sequence_length`")
    sizes = _hidden_sizes(weights, qkv_hidden_sizes, num_heads)
    projected = b.matmul(input, weights)
    projected = projected if bias is None else projected + bias
    starts = (0, sizes[0], sizes[0] + sizes[1])
    q, k, v = (
        split_heads(b, columns(b, projected, start, size), num_heads, "input") for start, size in zip(starts, sizes)
    )
    filled = filled_entries(b, past_sequence_length, q.shape[0]) if past_present_share_buffer else None
    cache = Cache() if past is None else Cache(entry(b, past, 0, 0), entry(b, past, 0, 1), filled)
    y, k, v, _ = attended(
        b, q, k, v, mask_index, attention_bias, cache, scale=scale, causal=bool(unidirectional),
        filtered=mask_filter_value,
    )  # fmt: skip
    if not b.is_output_used(1):
        return y
    if sizes[1] != sizes[2]:
        raise OpError(f"keys of {sizes[1]} and values of {sizes[2]} elements do not fit one `present`")
    return y, b.concat(*(b.reshape(x, shape=(1, *x.shape)) for x in (k, v)), axis=0)


def _hidden_sizes(weights: Any, given: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """How many columns of the weights make q, k and v. Raises OpError where they are not all of them."""
    width = weights.shape[1] if weights.rank == 2 else None
    if not isinstance(width, int):
        raise OpError(f"`weights` is {weights.type}; it must have 2 axes, and the hidden size be known when compiling")
    sizes = given or (width // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != width or any(size < 1 or size % heads for size in sizes):
        raise OpError(f"{width} columns of `weights` do not make queries, keys and values in {heads} heads: {sizes}")
    return sizes
