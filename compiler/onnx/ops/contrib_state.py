"""Operators of com.microsoft that carry a state from one call to the next: causal convolution and linear attention."""

from __future__ import annotations

from typing import Any

import compiler.onnx.ops.attention as onnx_attention
from compiler.onnx.ops.contraction import causal_conv
from compiler.onnx.registry import onnx_op
from ir.op import OpError

_MS = "com.microsoft"


@onnx_op("CausalConvWithState", domain=_MS)
def CausalConvWithState(
    b: Any, input: Any, weight: Any, bias: Any = None, past_state: Any = None, *, activation: str = "none",
    channels_last: int = 0, dilation: int = 1, input_channel_offset: int = 0, input_channels: int = 0, ndim: int = 1,
    state_channels_last: int = -1, state_length: int = 0, state_update_capacity: int = 0, state_window: int = 0,
) -> Any:  # fmt: skip
    if ndim != 1 or state_window:
        raise OpError("more than one spatial axis and a `state_window` are not supported, nor by ONNX Runtime on CPUs")
    if input_channel_offset or input_channels or state_channels_last != -1 or state_length or state_update_capacity:
        raise OpError("the attributes of the extended path are not supported, nor by ONNX Runtime on CPUs")
    if dilation < 1:
        raise OpError(f"`dilation` is {dilation}; it must be at least 1")
    if not channels_last:
        return causal_conv(b, input, weight, bias, past_state, activation, dilation)
    if input.rank < 3:
        raise OpError(f"`input` is {input.type}; with `channels_last` it must have a batch, a sequence and channels")
    axes = input.shape[2:]

    def channels_first(x: Any) -> Any:
        """x[b, s, ...] as [b, c, s]."""
        return None if x is None else b.transpose(b.reshape(x, shape=(*x.shape[:2], weight.shape[0])), perm=(0, 2, 1))

    results = causal_conv(b, channels_first(input), weight, bias, channels_first(past_state), activation, dilation)
    behind = (b.transpose(y, perm=(0, 2, 1)) for y in results)
    return tuple(b.reshape(y, shape=(*y.shape[:2], *axes)) for y in behind)


@onnx_op("LinearAttention", domain=_MS)
def LinearAttention(
    b: Any, query: Any, key: Any, value: Any, past_state: Any = None, decay: Any = None, beta: Any = None, *,
    chunk_size: int = 64, kv_num_heads: int, q_num_heads: int, scale: float = 0.0, state_window: int = 0,
    update_rule: str = "gated_delta",
) -> Any:  # fmt: skip
    """That of ai.onnx, and also with more heads of keys than of queries, which then share a query."""
    if state_window:
        raise OpError("a `state_window` is not supported, nor by ONNX Runtime on CPUs")
    if 0 < q_num_heads < kv_num_heads:
        if kv_num_heads % q_num_heads or query.rank != 3 or not isinstance(query.shape[2], int):
            raise OpError(f"{kv_num_heads} heads of keys do not share {q_num_heads} heads of `query` {query.type}")
        batch, length, width = query.shape
        size, share = width // q_num_heads, kv_num_heads // q_num_heads
        heads = b.reshape(query, shape=(batch, length, q_num_heads, 1, size))
        heads = b.expand(heads, shape=(batch, length, q_num_heads, share, size))
        query, q_num_heads = b.reshape(heads, shape=(batch, length, kv_num_heads * size)), kv_num_heads
    return onnx_attention.LinearAttention(
        b, query, key, value, past_state, decay, beta, kv_num_heads=kv_num_heads, q_num_heads=q_num_heads, scale=scale,
        update_rule=update_rule,
    )  # fmt: skip
