"""Random operators of ai.onnx: drawn as `ir.ops.random` says, so the same numbers on every run."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.types import DType


def _seed(b: Any, seed: float | None) -> int:
    """The 32 bits of a seed; without one, bits made of the node's name, so that nodes differ."""
    if seed is None:
        return zlib.crc32(f"{b.ref.path}/{b.ref.name}".encode())
    return zlib.crc32(struct.pack("<f", seed))


def _dtype(number: int, like: DType | None = None) -> DType:
    if number:
        return element_type(number)
    return like if like is not None and like.is_float else t.f32


@onnx_op("RandomUniform", since=1)
def RandomUniform(
    b: Any, *, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, shape: tuple[int, ...]
) -> Any:
    return b.random_uniform(shape=shape, low=low, high=high, dtype=_dtype(dtype), seed=_seed(b, seed))


@onnx_op("RandomUniformLike", since=1)
def RandomUniformLike(
    b: Any, x: Any, *, dtype: int = 0, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Any:
    return b.random_uniform(shape=x.shape, low=low, high=high, dtype=_dtype(dtype, x.dtype), seed=_seed(b, seed))


@onnx_op("RandomNormal", since=1)
def RandomNormal(
    b: Any, *, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, shape: tuple[int, ...]
) -> Any:
    return b.random_normal(shape=shape, mean=mean, scale=scale, dtype=_dtype(dtype), seed=_seed(b, seed))


@onnx_op("RandomNormalLike", since=1)
def RandomNormalLike(
    b: Any, x: Any, *, dtype: int = 0, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    return b.random_normal(shape=x.shape, mean=mean, scale=scale, dtype=_dtype(dtype, x.dtype), seed=_seed(b, seed))


@onnx_op("Bernoulli", since=15)
def Bernoulli(b: Any, x: Any, *, dtype: int = 0, seed: float | None = None) -> Any:
    exact = t.f64 if x.dtype == t.f64 else t.f32
    drawn = b.random_uniform(shape=x.shape, dtype=exact, seed=_seed(b, seed))
    hit = b.less(drawn, x if x.dtype == exact else b.cast(x, to=exact))
    return b.cast(hit, to=element_type(dtype) if dtype else x.dtype)


@onnx_op("Multinomial", since=7)
def Multinomial(b: Any, x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    """For each row of log probabilities, the first class whose cumulated share reaches a number drawn."""
    if x.rank != 2 or sample_size < 1:
        raise OpError(f"the input is {x.type}, `sample_size` {sample_size}")
    batch, classes = x.shape
    if not isinstance(classes, int):
        raise OpError("the number of classes must be known when compiling")
    x = x if x.dtype == t.f32 else b.cast(x, to=t.f32)
    shares = b.reshape(b.cum_sum(b.softmax(x, axes=(1,)), axis=1), shape=(batch, 1, classes))
    drawn = b.random_uniform(shape=(batch, sample_size, 1), seed=_seed(b, seed))
    passed = b.cast(b.less_or_equal(shares, drawn), to=t.i64)
    number = b.reduce_sum(passed, axes=(2,), keepdims=False)
    return b.cast(b.min(number, b.const(np.array(classes - 1))), to=element_type(dtype))
