"""Random numbers as a function of a key and a place: the same on every run, machine and device, with no state.

Word `n` of the stream of a key is what SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", 2014) started at the key gives as its n-th number; `docs/random.md` has it with all that is made of it.
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

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK = (1 << 64) - 1
_DTYPES = (t.f16, t.bf16, t.f32, t.f64)


def words_array(place: np.ndarray, key: int) -> np.ndarray:
    """64 random bits for each place, a u64."""
    x = (place + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(key & _MASK)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x


def words_expr(place: Expr, key: int) -> Expr:
    """`words_array` as an expression."""
    x = (place + const(1, t.u64)) * const(_GOLDEN, t.u64) + const(key & _MASK, t.u64)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1)):
        x = apply("xor", x, apply("shr", x, const(shift, t.u64)))
        x = x if factor == 1 else x * const(factor, t.u64)
    return x


def _drawn_in(dtype: DType) -> tuple[DType, int]:
    """The float type that numbers of `dtype` are computed in, and the bits of a word that it takes."""
    return (t.f64, 53) if dtype == t.f64 else (t.f32, 24)


def unit_array(words: np.ndarray, dtype: DType) -> np.ndarray:
    """Multiples of 2**-24 (f64: 2**-53) in [0, 1) from the first bits of words."""
    wide, bits = _drawn_in(dtype)
    return (words >> np.uint64(64 - bits)).astype(wide.numpy) * wide.numpy.type(2.0**-bits)


def unit_expr(words: Expr, dtype: DType) -> Expr:
    """`unit_array` as an expression."""
    wide, bits = _drawn_in(dtype)
    return cast(apply("shr", words, const(64 - bits, t.u64)), wide) * const(2.0**-bits, wide)


def _places(shape: tuple[Size, ...]) -> np.ndarray:
    extents = tuple(int(size) for size in shape)
    return np.arange(math.prod(extents), dtype=np.uint64).reshape(extents)


def _place(i: tuple[Expr, ...], shape: tuple[Size, ...]) -> Expr:
    """The position of an element in row-major order, as u64."""
    flat: Expr = Index(t.i64, 0)
    for index, size in zip(i, shape):
        flat = flat * Index(t.i64, size) + index
    return cast(flat, t.u64)


@op
class RandomUniform(Op):
    """Numbers drawn evenly from [low, high); `high` itself only where the result rounds to it."""

    shape: sizes
    low: float = 0.0
    high: float = 1.0
    dtype: DType = t.f32
    seed: int = 0
    examples = [
        case(shape=(3, 4), seed=7), case(shape=(5,), low=-2.0, high=2.0, dtype=t.f64), case(shape=()),
        case(shape=(0, 2)), case(shape=(4,), dtype=t.bf16, seed=-1), case(shape=(3,), seed=1 << 63),
    ]  # fmt: skip

    def infer(self) -> TensorType:
        require(self.dtype in _DTYPES, lambda: f"random_uniform does not make {self.dtype}")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        unit = unit_array(words_array(_places(self.shape), self.seed), self.dtype)
        kind = unit.dtype.type
        return convert(unit * kind(self.high - self.low) + kind(self.low), self.dtype)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        unit = unit_expr(words_expr(_place(i, self.shape), self.seed), self.dtype)
        return cast(unit * (self.high - self.low) + self.low, self.dtype)


@op
class RandomNormal(Op):
    """Numbers drawn from the normal distribution, by the transform of Box and Muller."""

    shape: sizes
    mean: float = 0.0
    scale: float = 1.0
    dtype: DType = t.f32
    seed: int = 0
    examples = [
        case(shape=(3, 4), seed=7), case(shape=(5,), mean=1.0, scale=2.0, dtype=t.f16), case(shape=()),
        case(shape=(2, 3), dtype=t.f64, seed=1 << 40), case(shape=(0,)),
    ]  # fmt: skip

    def infer(self) -> TensorType:
        require(self.dtype in _DTYPES, lambda: f"random_normal does not make {self.dtype}")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        place = _places(self.shape) * np.uint64(2)
        words = words_array(place, self.seed), words_array(place + np.uint64(1), self.seed)
        first, second = (unit_array(word, self.dtype) for word in words)
        kind = first.dtype.type
        radius = np.sqrt(np.log(kind(1) - first) * kind(-2))
        normal = radius * np.cos(second * kind(2 * math.pi))
        return convert(normal * kind(self.scale) + kind(self.mean), self.dtype)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        place = _place(i, self.shape) * const(2, t.u64)
        words = words_expr(place, self.seed), words_expr(place + const(1, t.u64), self.seed)
        first, second = (unit_expr(word, self.dtype) for word in words)
        radius = apply("sqrt", apply("log", 1 - first) * -2.0)
        normal = radius * apply("cos", second * (2 * math.pi))
        return cast(normal * self.scale + self.mean, self.dtype)


__all__ = ["RandomNormal", "RandomUniform", "words_array"]
