"""Random operators of ai.onnx: drawn as `ir.ops.random` says, so the same numbers on every run."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.types import DType


def _key(b: Any, seed: float | None) -> int:
    """The 64 bits that name a stream: made of the seed, or of the node's place in the model, so that nodes differ."""
    if seed is None:
        source = b"node " + b.unique_label().encode("utf-8", "surrogateescape")
    else:
        source = b"seed " + struct.pack("<d", seed)
    return int.from_bytes(hashlib.blake2b(source, digest_size=8).digest(), "little")


def _dtype(number: int, like: DType | None = None) -> DType:
    if number:
        return element_type(number)
    return t.f32 if like is None else like


@onnx_op("RandomUniform", since=1)
def RandomUniform(
    b: Any, *, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, shape: tuple[int, ...]
) -> Any:
    return b.random_uniform(shape=shape, low=low, high=high, dtype=_dtype(dtype), seed=_key(b, seed))


@onnx_op("RandomUniformLike", since=1)
def RandomUniformLike(
    b: Any, x: Any, *, dtype: int = 0, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Any:
    return b.random_uniform(shape=x.shape, low=low, high=high, dtype=_dtype(dtype, x.dtype), seed=_key(b, seed))


@onnx_op("RandomNormal", since=1)
def RandomNormal(
    b: Any, *, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, shape: tuple[int, ...]
) -> Any:
    return b.random_normal(shape=shape, mean=mean, scale=scale, dtype=_dtype(dtype), seed=_key(b, seed))


@onnx_op("RandomNormalLike", since=1)
def RandomNormalLike(
    b: Any, x: Any, *, dtype: int = 0, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    return b.random_normal(shape=x.shape, mean=mean, scale=scale, dtype=_dtype(dtype, x.dtype), seed=_key(b, seed))


@onnx_op("Bernoulli", since=15)
def Bernoulli(b: Any, x: Any, *, dtype: int = 0, seed: float | None = None) -> Any:
    exact = t.f64 if x.dtype == t.f64 else t.f32
    drawn = b.random_uniform(shape=x.shape, dtype=exact, seed=_key(b, seed))
    hit = b.less(drawn, x if x.dtype == exact else b.cast(x, to=exact))
    return b.cast(hit, to=element_type(dtype) if dtype else x.dtype)


@onnx_op("Multinomial", since=7)
def Multinomial(b: Any, x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    """For each row of log probabilities, the first class whose cumulated share reaches a number drawn."""
    if x.rank != 2 or sample_size < 1:
        raise OpError(f"the input is {x.type}, `sample_size` {sample_size}")
    batch, classes = x.shape
    x = x if x.dtype == t.f32 else b.cast(x, to=t.f32)
    shares = b.reshape(b.cum_sum(b.softmax(x, axes=(1,)), axis=1), shape=(batch, 1, classes))
    drawn = b.random_uniform(shape=(batch, sample_size, 1), seed=_key(b, seed))
    passed = b.cast(b.less_or_equal(shares, drawn), to=t.i64)
    number = b.reduce_sum(passed, axes=(2,), keepdims=False)
    return b.cast(b.min(number, b.dims(classes - 1)), to=element_type(dtype))


@onnx_op("Dropout", since=1)
def Dropout_1(b: Any, x: Any, *, ratio: float = 0.5, is_test: int = 0, consumed_inputs: tuple[int, ...] = ()) -> Any:
    return _kept(b, x, x.dtype)


@onnx_op("Dropout", since=10)
def Dropout_10(b: Any, x: Any, *, ratio: float = 0.5) -> Any:
    return _kept(b, x, t.bool_)


@onnx_op("Dropout", since=12)
def Dropout(b: Any, x: Any, ratio: Any = None, training_mode: Any = None, *, seed: int | None = None) -> Any:
    """In training mode, an element is dropped with probability `ratio`; the others are scaled by 1 / (1 - ratio)."""
    known = None if training_mode is None else training_mode.content
    is_idle = ratio is not None and ratio.content is not None and not ratio.content.any()
    if training_mode is None or is_idle or (known is not None and not known.any()):
        return _kept(b, x, t.bool_)
    exact = t.f64 if x.dtype == t.f64 else t.f32
    ratio = b.const(0.5, exact) if ratio is None else b.cast(ratio, to=exact)
    drawn = b.random_uniform(shape=x.shape, dtype=exact, seed=_key(b, seed))
    kept = b.greater_or_equal(drawn, ratio)
    scaled = b.cast(
        b.mul(b.cast(x, to=exact), b.div(b.const(1.0, exact), b.sub(b.const(1.0, exact), ratio))), to=x.dtype
    )
    dropped = b.where(kept, scaled, b.const(0, x.dtype))
    if known is not None:
        return dropped, kept
    return b.where(training_mode, dropped, x), b.or_(b.not_(training_mode), kept)


def _kept(b: Any, x: Any, mask_dtype: DType) -> Any:
    """Inference: every element is kept, and the mask says so."""
    if not b.is_output_used(1):
        return x, None
    return x, b.full(shape=x.shape, value=1, dtype=mask_dtype)
