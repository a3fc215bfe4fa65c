"""Random numbers as a function of a seed and a place: the same on every run and every machine, with no state.

A place is mixed into 32 bits by multiplications and shifts; what is drawn from them is computed in f32.
"""

from __future__ import annotations

import math

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import apply, cast, const
from ir.expr import Expr, Index
from ir.functions import convert
from ir.op import Op, case, op, require, sizes
from ir.types import DType, TensorType

_GOLDEN = 0x9E3779B9
_FACTORS = (0x7FEB352D, 0x846CA68B)
_SHIFTS = (16, 15, 16)
_UNIT = 2.0**-24
_DTYPES = (t.f16, t.bf16, t.f32, t.f64)


def mixed_array(place: np.ndarray, seed: int) -> np.ndarray:
    """32 random bits for each place."""
    x = place * np.uint32(_GOLDEN) + np.uint32(seed & 0xFFFFFFFF)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x


def mixed_expr(place: Expr, seed: int) -> Expr:
    """`mixed_array` as an expression."""
    x = place * const(_GOLDEN, t.u32) + const(seed & 0xFFFFFFFF, t.u32)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1)):
        x = apply("xor", x, apply("shr", x, const(shift, t.u32)))
        x = x if factor == 1 else x * const(factor, t.u32)
    return x


def unit_array(bits: np.ndarray) -> np.ndarray:
    """A float in [0, 1) from 32 bits."""
    return (bits >> np.uint32(8)).astype(np.float32) * np.float32(_UNIT)


def unit_expr(bits: Expr) -> Expr:
    return cast(apply("shr", bits, const(8, t.u32)), t.f32) * _UNIT


def _place(i: tuple[Expr, ...], shape: tuple[Size, ...]) -> Expr:
    """The position of an element in row-major order, as u32."""
    flat: Expr = Index(t.i64, 0)
    for index, size in zip(i, shape):
        flat = flat * Index(t.i64, size) + index
    return cast(flat, t.u32)


@op
class RandomUniform(Op):
    """Numbers drawn evenly from [low, high)."""

    shape: sizes
    low: float = 0.0
    high: float = 1.0
    dtype: DType = t.f32
    seed: int = 0
    examples = [case(shape=(3, 4), seed=7), case(shape=(5,), low=-2.0, high=2.0, dtype=t.f64), case(shape=())]

    def infer(self) -> TensorType:
        require(self.dtype in _DTYPES, lambda: f"random_uniform does not make {self.dtype}")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        shape = tuple(int(size) for size in self.shape)
        place = np.arange(math.prod(shape), dtype=np.uint32).reshape(shape)
        unit = unit_array(mixed_array(place, self.seed))
        return convert(unit * np.float32(self.high - self.low) + np.float32(self.low), self.dtype)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        unit = unit_expr(mixed_expr(_place(i, self.shape), self.seed))
        return cast(unit * (self.high - self.low) + self.low, self.dtype)


@op
class RandomNormal(Op):
    """Numbers drawn from the normal distribution, by the transform of Box and Muller."""

    shape: sizes
    mean: float = 0.0
    scale: float = 1.0
    dtype: DType = t.f32
    seed: int = 0
    examples = [case(shape=(3, 4), seed=7), case(shape=(5,), mean=1.0, scale=2.0, dtype=t.f16)]

    def infer(self) -> TensorType:
        require(self.dtype in _DTYPES, lambda: f"random_normal does not make {self.dtype}")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        shape = tuple(int(size) for size in self.shape)
        place = np.arange(math.prod(shape), dtype=np.uint32).reshape(shape)
        first, second = (unit_array(mixed_array(place, seed)) for seed in (self.seed, ~self.seed))
        radius = np.sqrt(np.log(np.float32(1) - first) * np.float32(-2))
        normal = radius * np.cos(second * np.float32(2 * math.pi))
        return convert(normal * np.float32(self.scale) + np.float32(self.mean), self.dtype)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        first, second = (unit_expr(mixed_expr(_place(i, self.shape), seed)) for seed in (self.seed, ~self.seed))
        radius = apply("sqrt", apply("log", 1 - first) * -2.0)
        normal = radius * apply("cos", second * (2 * math.pi))
        return cast(normal * self.scale + self.mean, self.dtype)


__all__ = ["RandomNormal", "RandomUniform"]
