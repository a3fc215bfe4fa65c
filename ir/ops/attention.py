"""Attention: scaled dot products with masks, rotary position embedding, and the cache of past keys and values.

Layout is head-major: q[b, h, s, d], k[b, g, t, d], v[b, g, t, e], where each of g key heads serves h/g query heads.
Narrow floats are computed in f32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, decide_eq
from ir.element import KernelBuilder, Output, Tensor, cast, select
from ir.expr import Expr
from ir.op import Op, OpError, assume_equal, case, define, op, require, require_equal
from ir.ops.elementwise import broadcasts_to, same_dtype
from ir.ops.reduction import accumulator
from ir.types import DType, TensorType, dtype_of

_STAGES = ("", "raw", "capped", "masked", "weights")


def _masks(mask: tuple[Size, ...], scores: tuple[Size, ...]) -> bool:
    """Whether a mask broadcasts to scores; demands what that takes. Its last axis is 1 only where it is known to be:
    ONNX pads a mask for fewer keys, of which one for a single key cannot be told when it runs."""
    if mask and mask[-1] != 1:
        if decide_eq(mask[-1], scores[-1]) is False:
            return False
        assume_equal(mask[-1], scores[-1])
        mask = (*mask[:-1], scores[-1])
    return broadcasts_to(mask, scores)


@op
class Attention(Op):
    """softmax(scale * q k' + mask) v.

    A query at position p = start[b] + i (`past` + i without `start`) sees key j if the bool `mask` allows it, j <= p
    where `causal`, p - left_window <= j <= p + right_window where they are not negative, and j < lengths[b]. A float
    `mask` is added to the scores. A query that sees no key gives zeros. `softcap` c bounds scores to c * tanh(x / c).
    `sink[h]` is one more score in the softmax's denominator. Softmax is computed in `softmax_dtype` (default: that of
    sums). With `scores`, a second output holds them: "raw", "capped", "masked", or "weights" after softmax.
    """

    scale: float
    causal: bool = False
    past: Size = 0
    softcap: float = 0.0
    left_window: int = -1
    right_window: int = -1
    softmax_dtype: DType | None = None
    scores: str = ""
    examples = [
        case("f32[2,4,3,8]", "f32[2,2,5,8]", "f32[2,2,5,6]", scale=0.35),
        case("f32[1,2,3,4]", "f32[1,2,5,4]", "f32[1,2,5,4]", "f32[3,5]", scale=0.5, causal=True, past=2, softcap=2.0,
             scores="masked"),
        case("f32[2,2,3,4]", "f32[2,1,6,4]", "f32[2,1,6,4]", np.array([[[True]], [[False]]]), np.array([3, 0]),
             np.array([6, 2]), "f32[2]", scale=0.5, causal=True, left_window=2, scores="weights"),
        case("f16[1,2,2,4]", "f16[1,2,4,4]", "f16[1,2,4,4]", scale=0.5, left_window=1, right_window=0),
    ]  # fmt: skip

    def infer(self, q: TensorType, k: TensorType, v: TensorType, mask: TensorType | None = None,
              start: TensorType | None = None, lengths: TensorType | None = None,
              sink: TensorType | None = None) -> Any:  # fmt: skip
        same_dtype("attention", q, k, v)
        require(q.dtype.is_float, lambda: f"attention does not take {q.dtype}")
        require(q.rank == k.rank == v.rank == 4, lambda: f"attention: q, k, v are {q}, {k}, {v}; each needs 4 axes")
        require(self.scores in _STAGES, lambda: f"attention: scores '{self.scores}'")
        heads, groups = q.shape[1], k.shape[1]
        require(isinstance(heads, int) and isinstance(groups, int) and groups > 0 and heads % groups == 0,
                lambda: f"attention: {heads} query heads and {groups} key heads")  # fmt: skip
        for what, a, b in (
            ("batch", q.shape[0], k.shape[0]), ("batch", q.shape[0], v.shape[0]), ("head size", q.shape[3], k.shape[3]),
            ("number of keys", k.shape[2], v.shape[2]), ("number of heads", groups, v.shape[1]),
        ):  # fmt: skip
            require_equal(f"attention: {what}", a, b)
        shape = (*q.shape[:3], k.shape[2])
        if mask is not None:
            require(mask.dtype in (t.bool_, q.dtype), lambda: f"attention: mask is {mask}")
            require(_masks(mask.shape, shape), lambda: f"attention: mask is {mask}, scores are {list(shape)}")
        for name, vector in (("start", start), ("lengths", lengths)):
            if vector is not None and (vector.rank != 1 or not vector.dtype.is_integer):
                raise OpError(f"attention: {name} is {vector}")
            if vector is not None and vector.shape[0] != 1:
                require_equal(f"attention: the size of {name}", vector.shape[0], q.shape[0])
        if sink is not None:
            require(sink.rank == 1, lambda: f"attention: sink is {sink}")
            require_equal("attention: the size of sink", sink.shape[0], heads)
        out = q.with_shape((*q.shape[:3], v.shape[3]))
        return (out, q.with_shape(shape)) if self.scores else out

    def exact(self, dtype: DType) -> DType:
        return self.softmax_dtype or accumulator(dtype)

    def allowed(self, s: int, keys: int, start: np.ndarray | None, lengths: np.ndarray | None) -> np.ndarray:
        """Which keys positions let queries see: bool[b or 1, 1, s, t]."""
        j = np.arange(keys).reshape(1, 1, 1, keys)
        first = np.array([int(self.past)]) if start is None else start.astype(np.int64)
        p = first.reshape(-1, 1, 1, 1) + np.arange(s).reshape(1, 1, s, 1)
        seen = np.ones((1, 1, s, keys), np.bool_)
        if self.causal:
            seen = seen & (j <= p)
        if self.left_window >= 0:
            seen = seen & (j >= p - self.left_window)
        if self.right_window >= 0:
            seen = seen & (j <= p + self.right_window)
        return seen if lengths is None else seen & (j < lengths.reshape(-1, 1, 1, 1))

    def reference(self, q, k, v, mask=None, start=None, lengths=None, sink=None):
        dtype, wide = q.dtype, accumulator(dtype_of(q)).numpy
        repeats = q.shape[1] // k.shape[1]
        q, k, v = (x.astype(wide) for x in (q, np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)))
        stages = {"raw": (q @ np.swapaxes(k, 2, 3)) * wide.type(self.scale)}
        stages["capped"] = np.tanh(stages["raw"] / self.softcap) * self.softcap if self.softcap else stages["raw"]
        seen = self.allowed(q.shape[2], k.shape[2], start, lengths)
        masked = stages["capped"]
        if mask is not None:
            masked = np.where(mask, masked, -np.inf) if mask.dtype == np.bool_ else masked + mask.astype(wide)
        stages["masked"] = masked = np.where(seen, masked, -np.inf).astype(wide)
        x = masked.astype(self.exact(dtype_of(dtype)).numpy)
        top = x.max(axis=-1, keepdims=True, initial=-np.inf)
        if sink is not None:
            sink = sink.reshape(1, -1, 1, 1).astype(x.dtype)
            top = np.maximum(top, sink)
        top = np.where(np.isneginf(top), 0, top).astype(x.dtype)
        e = np.exp(x - top)
        total = e.sum(axis=-1, keepdims=True) + (0 if sink is None else np.exp(sink - top))
        stages["weights"] = weights = (e / np.where(total == 0, 1, total)).astype(wide)
        y = (weights @ v).astype(dtype)
        return (y, stages[self.scores].astype(dtype)) if self.scores else y

    def expand(self, b: Any, q, k, v, mask=None, start=None, lengths=None, sink=None) -> Any:
        dtype, wide = q.dtype, accumulator(q.dtype)
        q, k, v = (x if x.dtype == wide else b.cast(x, to=wide) for x in (q, k, v))
        (batch, heads, s, d), (_, groups, keys, _), e = q.shape, k.shape, v.shape[3]
        rows = heads // groups * s
        shared = b.reshape(q, shape=(batch, groups, rows, d)) if groups != heads else q
        raw = b.matmul(shared, b.transpose(k, perm=(0, 1, 3, 2))) * self.scale
        raw = b.reshape(raw, shape=(batch, heads, s, keys)) if groups != heads else raw
        capped = b.tanh(raw / self.softcap) * self.softcap if self.softcap else raw
        masked = self._masked(b, capped, mask, start, lengths)
        weights = self._weights(b, masked, sink, masked is not capped)
        share = b.reshape(weights, shape=(batch, groups, rows, keys)) if groups != heads else weights
        y = b.matmul(share, v)
        y = b.reshape(y, shape=(batch, heads, s, e)) if groups != heads else y
        stages = {"raw": raw, "capped": capped, "masked": masked, "weights": weights}
        outs = [y, stages[self.scores]] if self.scores else [y]
        outs = [x if x.dtype == dtype else b.cast(x, to=dtype) for x in outs]
        return tuple(outs) if self.scores else outs[0]

    def _masked(self, b: Any, scores: Any, mask: Any, start: Any, lengths: Any) -> Any:
        """Scores with -inf where a query does not see a key."""
        lowest = b.const(-np.inf, scores.dtype)
        _, _, s, keys = scores.shape
        seen = None
        if mask is not None and mask.dtype == t.bool_:
            seen = mask
        elif mask is not None:
            scores = scores + (mask if mask.dtype == scores.dtype else b.cast(mask, to=scores.dtype))
        j = b.iota(shape=(1, keys), axis=1)
        p = b.iota(shape=(s, 1), axis=0) + b.dims(self.past)
        if start is not None:
            first = b.reshape(b.cast(start, to=t.i64), shape=(start.shape[0], 1, 1, 1))
            p = b.iota(shape=(s, 1), axis=0) + first
        conditions = []
        if self.causal:
            conditions.append(b.less_or_equal(j, p))
        if self.left_window >= 0:
            conditions.append(b.greater_or_equal(j, p - self.left_window))
        if self.right_window >= 0:
            conditions.append(b.less_or_equal(j, p + self.right_window))
        if lengths is not None:
            last = b.reshape(b.cast(lengths, to=t.i64), shape=(lengths.shape[0], 1, 1, 1))
            conditions.append(b.less(j, last))
        for condition in conditions:
            seen = condition if seen is None else b.and_(seen, condition)
        return scores if seen is None else b.where(seen, scores, lowest)

    def _weights(self, b: Any, masked: Any, sink: Any, is_masked: bool) -> Any:
        """Softmax over keys; 0 where every score is -inf."""
        wide, exact = masked.dtype, self.softmax_dtype or masked.dtype
        x = masked if exact == wide else b.cast(masked, to=exact)
        if not is_masked and sink is None:
            y = b.softmax(x, axes=(-1,))
            return y if exact == wide else b.cast(y, to=wide)
        top = b.reduce_max(x, axes=(3,), keepdims=True)
        if sink is not None:
            sink = b.reshape(sink if sink.dtype == exact else b.cast(sink, to=exact), shape=(1, sink.shape[0], 1, 1))
            top = b.max(top, sink)
        top = b.where(b.equal(top, b.const(-np.inf, exact)), b.const(0.0, exact), top)
        e = b.exp(x - top)
        total = b.reduce_sum(e, axes=(3,), keepdims=True)
        if sink is not None:
            total = total + b.exp(sink - top)
        y = e / b.where(b.equal(total, b.const(0.0, exact)), b.const(1.0, exact), total)
        return y if exact == wide else b.cast(y, to=wide)


@op
class Rotary(Op):
    """Rotary position embedding: pairs of elements of x[b, n, s, d] turned by the angles of cos[b, s, r], sin[b, s, r].

    A pair is elements (i, i + r), or (2i, 2i + 1) where `interleaved`. Elements from 2r on stay.
    """

    interleaved: bool = False
    examples = [
        case("f32[2,3,4,8]", "f32[2,4,4]", "f32[2,4,4]"),
        case("f32[1,2,3,6]", "f32[1,3,2]", "f32[1,3,2]", interleaved=True),
        case("f16[1,2,3,6]", "f16[1,3,2]", "f16[1,3,2]"),
    ]

    def infer(self, x: TensorType, cos: TensorType, sin: TensorType) -> TensorType:
        same_dtype("rotary", x, cos, sin)
        require(x.rank == 4 and cos.rank == sin.rank == 3, lambda: f"rotary does not take {x}, {cos}, {sin}")
        half, size = cos.shape[2], x.shape[3]
        require(isinstance(half, int), "rotary: the number of angles must be known")
        require(not isinstance(size, int) or not isinstance(half, int) or 2 * half <= size,
                lambda: f"rotary: {half} pairs of {size} elements")  # fmt: skip
        for axis, own in ((0, 0), (1, 2)):
            if cos.shape[axis] != 1:
                require_equal("attention: rotary", cos.shape[axis], x.shape[own])
        assume_equal(cos.shape[2], sin.shape[2])
        return x

    def reference(self, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        wide = accumulator(dtype_of(x)).numpy
        half = cos.shape[2]
        c, s = (v.astype(wide)[:, None] for v in (cos, sin))
        y = x.astype(wide)
        step = np.s_[..., 0 : 2 * half : 2], np.s_[..., 1 : 2 * half : 2]
        first, second = step if self.interleaved else (np.s_[..., :half], np.s_[..., half : 2 * half])
        out = y.copy()
        out[first] = y[first] * c - y[second] * s
        out[second] = y[first] * s + y[second] * c
        return out.astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor, cos: Tensor, sin: Tensor) -> Expr:
        b, n, s, j = i
        wide, half = accumulator(x.dtype), cos.shape[2]
        if self.interleaved:
            angle, other, is_first = j // 2 % half, (j // 2 * 2 + 1 - j % 2) % (2 * half), (j % 2).equals(0)
        else:
            angle, other, is_first = j % half, (j + half) % (2 * half), j < half
        own, partner = cast(x.at(b, n, s, j), wide), cast(x.at(b, n, s, other), wide)
        at = (0 if cos.shape[0] == 1 else b, 0 if cos.shape[1] == 1 else s, angle)
        turned = own * cast(cos.at(*at), wide) + select(is_first, -partner, partner) * cast(sin.at(*at), wide)
        if half * 2 != x.shape[3]:
            turned = select(j < 2 * half, turned, own)
        return cast(turned, x.dtype)


@op
class CacheAppend(Op):
    """The cache past[b, g, p, d] with `size` entries, and new[b, g, s, d] from start[b] on; behind its end zeros."""

    size: Size
    index_names = "b g t d"
    examples = [
        case("f32[2,1,3,4]", "f32[2,1,2,4]", np.array([3, 1]), size=5),
        case("f32[1,2,6,4]", "f32[1,2,1,4]", np.array([2], np.int32), size=6),
        case("f32[1,1,0,2]", "f32[1,1,3,2]", np.array([0]), size=3),
    ]

    def infer(self, past: TensorType, new: TensorType, start: TensorType) -> TensorType:
        same_dtype("cache_append", past, new)
        require(past.rank == new.rank == 4, lambda: f"cache_append does not take {past}, {new}")
        require(start.rank == 1 and start.dtype.is_integer, lambda: f"cache_append: start is {start}")
        for axis in (0, 1, 3):
            require_equal("attention: a size of the cache", past.shape[axis], new.shape[axis])
        return past.with_shape((*past.shape[:2], self.size, past.shape[3]))

    def reference(self, past: np.ndarray, new: np.ndarray, start: np.ndarray) -> np.ndarray:
        size = int(self.size)
        out = np.zeros((*past.shape[:2], size, past.shape[3]), past.dtype)
        kept = min(size, past.shape[2])
        out[:, :, :kept] = past[:, :, :kept]
        for row, first in enumerate(start.tolist()):
            for position in range(new.shape[2]):
                if 0 <= first + position < size:
                    out[row, :, first + position] = new[row, :, position]
        return out

    def element(self, i: tuple[Expr, ...], past: Tensor, new: Tensor, start: Tensor) -> Expr:
        b, g, j, d = i
        old = past.at(b, g, j, d, outside=0)
        return new.at(b, g, j - cast(start.at(b), t.i64), d, outside=old)


@op
class CachesAppend(Op):
    """`cache_append` of a cache of keys and one of values, where only a run tells their `size`: the last operand."""

    defines = ("size",)
    size: Size
    examples = [
        case("f32[2,1,3,4]", "f32[2,1,3,2]", "f32[2,1,2,4]", "f32[2,1,2,2]", np.array([3, 1]), np.array(5), size=5),
        case("i8[1,2,6,4]", "i8[1,2,6,4]", "i8[1,2,1,4]", "i8[1,2,1,4]", np.array([2]), np.array(6), size=6),
    ]

    def infer(self, past_keys: TensorType, past_values: TensorType, keys: TensorType, values: TensorType,
              start: TensorType, count: TensorType) -> tuple[TensorType, ...]:  # fmt: skip
        require(count == TensorType(t.i64, ()), lambda: f"caches_append: the size is {count}")
        require_equal("attention: a size of the cache", past_keys.shape[2], past_values.shape[2])
        appended = CacheAppend(self.size)
        types = appended.infer(past_keys, keys, start), appended.infer(past_values, values, start)
        define(self.size, past_keys.shape[2] + keys.shape[2])
        return types

    def reference(self, past_keys, past_values, keys, values, start, count):
        appended = CacheAppend(int(count))
        return appended.reference(past_keys, keys, start), appended.reference(past_values, values, start)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], past_keys: Tensor, past_values: Tensor, keys: Tensor,
               values: Tensor, start: Tensor, count: Tensor) -> None:  # fmt: skip
        for out, past, new in ((outs[0], past_keys, keys), (outs[1], past_values, values)):
            batch, groups, _, size = out.shape
            with k.loop("parallel", b=batch, g=groups) as (b, g), k.loop(t=self.size, d=size) as (j, d):
                k.store(out, (b, g, j, d), CacheAppend(self.size).element((b, g, j, d), past, new, start))
