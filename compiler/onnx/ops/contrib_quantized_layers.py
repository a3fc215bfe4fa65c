"""Layers of com.microsoft on quantised weights: attention, embeddings, and recurrent ones."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.attention import split_heads
from compiler.onnx.ops.contrib_attention import Cache, attended, columns, entry
from compiler.onnx.ops.contrib_norm import count_seen, first_places
from compiler.onnx.ops.quantized import integer_product, rank0
from compiler.onnx.ops.recurrent import recurrent_attributes
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.ops.norm import convert
from ir.ops.quantized import signed
from ir.ops.recurrent_quantized import QuantizedLstmScan

_MS = "com.microsoft"


@onnx_op("QAttention", domain=_MS)
def QAttention(
    b: Any, input: Any, weight: Any, bias: Any, input_scale: Any, weight_scale: Any, mask_index: Any = None,
    input_zero_point: Any = None, weight_zero_point: Any = None, past: Any = None, *, do_rotary: int = 0,
    mask_filter_value: float = -10000.0, num_heads: int, past_present_share_buffer: int = 0, scale: float = 0.0,
    unidirectional: int = 0,
) -> Any:  # fmt: skip
    """Attention whose projection is a product of integers; what follows it is computed in floats."""
    if do_rotary or past_present_share_buffer:
        raise OpError("`do_rotary` and `past_present_share_buffer` are not supported")
    width = weight.shape[1] if weight.rank == 2 else None
    if not isinstance(width, int) or width % (3 * num_heads):
        raise OpError(
            f"the columns of `weight` {weight.type} do not make queries, keys and values in {num_heads} heads"
        )
    scales = (rank0(b, v if v.dtype == t.f32 else b.cast(v, to=t.f32)) for v in (input_scale, weight_scale))
    product = integer_product(b, input, weight, rank0(b, input_zero_point), weight_zero_point)
    projected = convert(b, b.cast(product, to=t.f32) * (next(scales) * next(scales)), bias) + bias
    size = width // 3
    q, k, v = (split_heads(b, columns(b, projected, at * size, size), num_heads, "input") for at in range(3))
    cache = Cache() if past is None else Cache(entry(b, past, 0, 0), entry(b, past, 0, 1))
    y, k, v, _ = attended(
        b, q, k, v, mask_index, None, cache, scale=scale, causal=bool(unidirectional), filtered=mask_filter_value
    )
    if not b.is_output_used(1):
        return y
    return y, b.concat(*(b.reshape(x, shape=(1, *x.shape)) for x in (k, v)), axis=0)


@onnx_op("QEmbedLayerNormalization", domain=_MS)
def QEmbedLayerNormalization(
    b: Any, input_ids: Any, segment_ids: Any | None, word_embedding_quant: Any, position_embedding_quant: Any,
    segment_embedding: Any | None, gamma_quant: Any, beta_quant: Any, mask: Any | None, word_embedding_scale: Any,
    position_embedding_scale: Any, segment_embedding_scale: Any | None, gamma_scale: Any, beta_scale: Any,
    word_embedding_zero_point: Any, position_embedding_zero_point: Any, segment_embedding_zero_point: Any | None,
    gamma_zero_point: Any, beta_zero_point: Any, *, epsilon: float = 9.999999960041972e-13,
) -> Any:  # fmt: skip
    segment = (segment_ids, segment_embedding, segment_embedding_scale, segment_embedding_zero_point)
    if len({v is None for v in segment}) > 1:
        raise OpError("the inputs of the segments must be given together")
    if input_ids.rank != 2:
        raise OpError(f"`input_ids` is {input_ids.type}; it must have 2 axes")

    def real(x: Any, scale: Any, zero: Any) -> Any:
        return b.dequantize(x, rank0(b, scale), rank0(b, zero), to=t.f32)

    def rows(table: Any, places: Any, scale: Any, zero: Any) -> Any:
        return real(b.gather(table, places, axis=0), scale, zero)

    batch, length = input_ids.shape
    positions = first_places(b, position_embedding_quant, length)
    total = rows(word_embedding_quant, input_ids, word_embedding_scale, word_embedding_zero_point)
    total = total + rows(position_embedding_quant, positions, position_embedding_scale, position_embedding_zero_point)
    if segment_ids is not None:
        total = total + rows(segment_embedding, segment_ids, *segment[2:])
    gamma, beta = real(gamma_quant, gamma_scale, gamma_zero_point), real(beta_quant, beta_scale, beta_zero_point)
    y = b.layer_norm(total, gamma, beta, axis=2, epsilon=epsilon)
    return y, count_seen(b, mask, batch) if b.is_output_used(1) else None


def _per_direction(b: Any, parameter: Any, count: int) -> Any:
    """A scale or zero point of rank 1 (one per direction) or 2 (one per gate as well) as [d, 1] or [d, g]."""
    return b.reshape(parameter, shape=(count, 1)) if parameter.rank < 2 else parameter


@onnx_op("DynamicQuantizeLSTM", domain=_MS)
def DynamicQuantizeLSTM(
    b: Any, X: Any, W: Any, R: Any, B: Any = None, sequence_lens: Any = None, initial_h: Any = None,
    initial_c: Any = None, P: Any = None, W_scale: Any = None, W_zero_point: Any = None, R_scale: Any = None,
    R_zero_point: Any = None, *, activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] = (), clip: float = 0.0, direction: str = "forward", hidden_size: int = 0,
    input_forget: int = 0,
) -> Any:  # fmt: skip
    if None in (W_scale, W_zero_point, R_scale, R_zero_point):
        raise OpError("the scales and zero points of W and R must be given")
    default = ("sigmoid", "tanh", "tanh")
    given = recurrent_attributes(activations, default, direction, activation_alpha, activation_beta, clip)
    time, batch, inputs = X.shape
    count, _, width = W.shape
    w_scale, w_zero, r_scale, r_zero = (
        _per_direction(b, v, count) for v in (W_scale, W_zero_point, R_scale, R_zero_point)
    )
    x, x_scale, x_zero = b.dynamic_quantize(X if sequence_lens is None else _reached(b, X, sequence_lens))
    w_zero = b.reshape(w_zero, shape=(count, 1, w_zero.shape[1]))
    product = b.matmul_integer(b.reshape(x, shape=(1, time * batch, inputs)), W, x_zero, w_zero)
    xw = b.cast(product, to=t.f32) * (x_scale * b.reshape(w_scale, shape=(count, 1, w_scale.shape[1])))
    if B is not None:
        xw = xw + b.reshape(_bias(b, B, width), shape=(count, 1, width))
    xw = b.transpose(b.reshape(xw, shape=(count, time, batch, width)), perm=(1, 2, 0, 3))
    xw = b.reshape(xw, shape=(time, batch, count * width))
    scan = QuantizedLstmScan(input_forget=bool(input_forget), **given)
    r, r_zero = signed(b, R, r_zero)
    levels = b.cast(r, to=t.i32)
    if r_zero is not None:
        levels = levels - b.reshape(r_zero, shape=(count, 1, r_zero.shape[1]))
    sums = b.reduce_sum(levels, axes=(1,), keepdims=False)
    return b.apply(scan, xw, r, r_scale, r_zero, sums, P, sequence_lens, initial_h, initial_c)[:3]


def _reached(b: Any, x: Any, lens: Any) -> Any:
    """x[t, n, i] with zeros for steps that no sequence reaches, so that they leave its range alone."""
    longest = b.reduce_max(b.cast(lens, to=t.i64), axes=(0,), keepdims=False)
    return b.where(b.less(b.iota(shape=(x.shape[0], 1, 1), axis=0), longest), x, b.const(0.0, t.f32))


def _bias(b: Any, bias: Any, width: int) -> Any:
    """The biases of inputs and states, added: [d, 4h] of [d, 8h]."""
    count = bias.shape[0]
    halves = [b.slice(bias, starts=(0, first), shape=(count, width), steps=(1, 1)) for first in (0, width)]
    return halves[0] + halves[1]
