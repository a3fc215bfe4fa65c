"""Activations of com.microsoft, and sums with what follows them.

Sums are taken in f32 at least, and rounded once at the end.
"""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.random import Dropout
from compiler.onnx.ops.shape import elements, normal_axis
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import ceil_div
from ir.op import OpError
from ir.ops.norm import convert, widen

_MS = "com.microsoft"
_WORD = 32
"""How many elements one number of a bit mask stands for."""


@onnx_op("Gelu", domain=_MS)
def Gelu(b: Any, x: Any) -> Any:
    return b.gelu(x)


@onnx_op("FastGelu", domain=_MS)
def FastGelu(b: Any, x: Any, bias: Any = None) -> Any:
    return convert(b, b.gelu(_sum(b, x, bias), approximate=True), x)


@onnx_op("BiasGelu", domain=_MS)
def BiasGelu(b: Any, x: Any, bias: Any) -> Any:
    return convert(b, b.gelu(_sum(b, x, bias)), x)


@onnx_op("QuickGelu", domain=_MS)
def QuickGelu(b: Any, x: Any, *, alpha: float = 1.7020000219345093) -> Any:
    return b.swish(x, alpha=alpha)


@onnx_op("BiasAdd", domain=_MS)
def BiasAdd(b: Any, x: Any, bias: Any, skip: Any) -> Any:
    return convert(b, _sum(b, x, bias, skip), x)


@onnx_op("BiasSplitGelu", domain=_MS)
def BiasSplitGelu(b: Any, x: Any, bias: Any) -> Any:
    """The left half of the last axis times the gelu of the right half."""
    total, width = _sum(b, x, bias), x.shape[-1] // 2
    if isinstance(x.shape[-1], int) and x.shape[-1] % 2:
        raise OpError(f"the last axis of {x.type} has no halves")
    shape, steps = (*x.shape[:-1], width), (1,) * x.rank
    left, right = (b.slice(total, starts=(*[0] * (x.rank - 1), at), shape=shape, steps=steps) for at in (0, width))
    return convert(b, left * b.gelu(right), x)


@onnx_op("BiasSoftmax", domain=_MS)
def BiasSoftmax(b: Any, data: Any, bias: Any, *, axis: int = 1, is_inner_broadcast: int) -> Any:
    """`is_inner_broadcast` says how the bias broadcasts, which its shape says as well."""
    first = normal_axis(axis, data.rank)
    return convert(b, b.softmax(_sum(b, data, bias), axes=tuple(range(first, data.rank))), data)


def _dropped(b: Any, data: Any, bias: Any, residual: Any, ratio: Any, training_mode: Any, seed: int | None) -> Any:
    """Dropout of data + bias, then plus residual; and the mask, where it is used."""
    kept, mask = Dropout(b, _sum(b, data, bias), ratio, training_mode, seed=seed)
    return convert(b, kept if residual is None else kept + widen(b, residual), data), mask


@onnx_op("BiasDropout", domain=_MS)
def BiasDropout(
    b: Any, data: Any, bias: Any, residual: Any = None, ratio: Any = None, training_mode: Any = None, *,
    seed: int | None = None,
) -> Any:  # fmt: skip
    return _dropped(b, data, bias, residual, ratio, training_mode, seed)


@onnx_op("BitmaskDropout", domain=_MS)
def BitmaskDropout(b: Any, data: Any, ratio: Any = None, training_mode: Any = None, *, seed: int | None = None) -> Any:
    kept, mask = Dropout(b, data, ratio, training_mode, seed=seed)
    return kept, _packed(b, mask)


@onnx_op("BitmaskBiasDropout", domain=_MS)
def BitmaskBiasDropout(
    b: Any, data: Any, bias: Any, residual: Any = None, ratio: Any = None, training_mode: Any = None, *,
    seed: int | None = None,
) -> Any:  # fmt: skip
    total, mask = _dropped(b, data, bias, residual, ratio, training_mode, seed)
    return total, _packed(b, mask)


def _packed(b: Any, mask: Any) -> Any:
    """A mask with one bit for each element, the lowest bits first; bits beyond the elements are set."""
    if mask is None or not b.is_output_used(1):
        return None
    count = elements(mask.shape)
    words = ceil_div(count, _WORD)
    rest = b.full(shape=(words * _WORD - count,), value=1, dtype=t.bool_)
    bits = b.reshape(b.concat(b.reshape(mask, shape=(count,)), rest, axis=0), shape=(words, _WORD))
    places = b.iota(shape=(1, _WORD), axis=1, dtype=t.u32)
    return b.reduce_sum(b.shift_left(b.cast(bits, to=t.u32), places), axes=(1,), keepdims=False)


def _sum(b: Any, x: Any, *others: Any) -> Any:
    """x plus those of the others that are given."""
    total = widen(b, x)
    for other in others:
        if other is not None:
            total = total + widen(b, other)
    return total
