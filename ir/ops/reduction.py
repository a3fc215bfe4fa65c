"""Reductions over axes of one tensor: sums, products, extremes, norms.

Narrow floats are reduced in f32 and rounded once. A reduction of nothing gives the identity of its function. `axes`
may be negative; no axes reduce nothing (importers translate ONNX's "no axes means all").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir import types as t
from ir.dims import Size, maximum, minimum
from ir.element import Tensor, all_over, any_over, apply, cast, highest, lowest, max_over, min_over, prod_over, sum_over
from ir.expr import Expr, Index
from ir.functions import truncated_div
from ir.op import Op, OpError, case, ints, op, require
from ir.types import DType, TensorType


def accumulator(dtype: DType) -> DType:
    """The type in which sums of `dtype` are taken: f32 for narrower floats, else the type itself."""
    return t.f32 if dtype.is_float and dtype.bits < 32 else dtype


def wide(value: Expr) -> Expr:
    """`value` in the type in which sums of it are taken."""
    return cast(value, accumulator(value.dtype))


def normal_axes(axes: ints, rank: int, what: str) -> ints:
    """`axes` counted from the front, ascending. Raises OpError where one is out of range or given twice."""
    found = sorted(axis + rank if axis < 0 else axis for axis in axes)
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) != len(found):
        raise OpError(f"{what}: axes {list(axes)} do not name different axes of a tensor of rank {rank}")
    return tuple(found)


@dataclass(frozen=True, repr=False)
class Reduction(Op):
    """Base of reductions over `axes`, which stay as axes of size 1 where `keepdims`."""

    kinds: ClassVar[tuple[str, ...]] = ("float", "int", "uint")

    axes: ints = ()
    keepdims: bool = True

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind in self.kinds, lambda: f"{self.name} does not take {x.dtype}")
        reduced = normal_axes(self.axes, x.rank, self.name)
        kept: list[Size] = []
        for axis, size in enumerate(x.shape):
            if axis not in reduced:
                kept.append(size)
            elif self.keepdims:
                kept.append(1)
        return x.with_shape(kept)

    def over(self, function: Callable[..., Any], x: np.ndarray) -> np.ndarray:
        """`function` (np.sum, ...) applied to `x` in the accumulator type; the result keeps that type."""
        reduced = normal_axes(self.axes, x.ndim, self.name)
        if x.dtype != object:
            x = x.astype(accumulator(t.dtype_of(x)).numpy, copy=False)
        with np.errstate(all="ignore"):
            return np.asarray(function(x, axis=reduced, keepdims=self.keepdims))

    def fold(
        self, reduce: Callable[..., Expr], i: tuple[Expr, ...], x: Tensor, term: Callable[[Expr], Expr] = wide
    ) -> Expr:
        """`reduce` (sum_over, ...) over what output index `i` gathers of `x`, each element passed through `term`."""
        reduced = normal_axes(self.axes, x.rank, self.name)
        kept = iter(i)
        index: list[Expr | None] = []
        for axis in range(x.rank):
            if axis not in reduced:
                index.append(next(kept))
                continue
            index.append(None)
            if self.keepdims:
                next(kept)

        def body(*inner: Expr) -> Expr:
            taken = iter(inner)
            return term(x.at(*(next(taken) if place is None else place for place in index)))

        return reduce([x.shape[axis] for axis in reduced], body)

    def count(self, x: Tensor) -> Size:
        """How many elements one result gathers."""
        result: Size = 1
        for axis in normal_axes(self.axes, x.rank, self.name):
            result = result * x.shape[axis]
        return result


_CASES = [
    case("f32[2,3,4]", axes=(1,)), case("f32[2,3,4]", axes=(-1, 0), keepdims=False), case("f32[2,0]", axes=(1,)),
    case("f16[2,3]", axes=(0, 1)), case("f32[3]"),
]  # fmt: skip


@op
class ReduceSum(Reduction):
    """The sum; 0 of nothing."""

    symbolic = True
    examples = [*_CASES, case("i32[2,3]", axes=(1,))]

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.over(lambda a, **k: np.sum(a, dtype=a.dtype, **k), x).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(self.fold(sum_over, i, x), x.dtype)


@op
class ReduceMean(Reduction):
    """The sum divided by the number of elements (towards zero for integers); NaN of nothing."""

    examples = [c for c in _CASES if not c.operands[0] or 0 not in c.operands[0].shape]  # type: ignore[union-attr]

    def reference(self, x: np.ndarray) -> np.ndarray:
        total = self.over(lambda a, **k: np.sum(a, dtype=a.dtype, **k), x)
        count = int(np.prod([x.shape[a] for a in self.axes], dtype=np.int64))
        with np.errstate(all="ignore"):
            mean = truncated_div(total, total.dtype.type(count))
        return np.asarray(mean).astype(x.dtype)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        total = self.fold(sum_over, i, x)
        return cast(total / cast(Index(t.i64, self.count(x)), total.dtype), x.dtype)


@op
class ReduceProd(Reduction):
    """The product; 1 of nothing."""

    symbolic = True
    examples = _CASES

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.over(lambda a, **k: np.prod(a, dtype=a.dtype, **k), x).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(self.fold(prod_over, i, x), x.dtype)


class _Extreme(Reduction):
    kinds = ("float", "int", "uint", "bool")
    symbolic = True
    greatest: ClassVar[bool]

    def reference(self, x: np.ndarray) -> np.ndarray:
        reduced = normal_axes(self.axes, x.ndim, self.name)
        if x.dtype == object:
            function = np.frompyfunc(maximum if self.greatest else minimum, 2, 1)
            for axis in reversed(reduced):
                x = np.asarray(function.reduce(x, axis=axis, keepdims=self.keepdims), dtype=object)
            return x
        start = (lowest if self.greatest else highest)(t.dtype_of(x))
        function = np.maximum if self.greatest else np.minimum
        return np.asarray(
            function.reduce(x, axis=reduced, keepdims=self.keepdims, initial=x.dtype.type(start)), dtype=x.dtype
        )

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        reduce = max_over if self.greatest else min_over
        if x.dtype.kind == "bool":
            reduce = any_over if self.greatest else all_over
        return self.fold(reduce, i, x, lambda value: value)


@op
class ReduceMax(_Extreme):
    """The greatest element, NaN where there is one; of nothing -inf, the least integer, or False."""

    greatest = True
    examples = [*_CASES, case("bool[2,3]", axes=(1,)), case("i8[2,3]", axes=(0,))]


@op
class ReduceMin(_Extreme):
    """The least element, NaN where there is one; of nothing +inf, the greatest integer, or True."""

    greatest = False
    examples = [*_CASES, case("bool[2,3]", axes=(1,)), case("i8[2,3]", axes=(0,))]


@op
class ReduceL1(Reduction):
    """The sum of absolute values."""

    examples = _CASES

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.over(lambda a, **k: np.sum(np.abs(a), dtype=a.dtype, **k), x).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(self.fold(sum_over, i, x, lambda value: apply("abs", wide(value))), x.dtype)


@op
class ReduceSumSquare(Reduction):
    """The sum of squares."""

    examples = _CASES

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.over(lambda a, **k: np.sum(a * a, dtype=a.dtype, **k), x).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(self.fold(sum_over, i, x, lambda value: wide(value) * wide(value)), x.dtype)


@op
class ReduceL2(Reduction):
    """The square root of the sum of squares; integers take the root in f64 and cut it."""

    examples = _CASES

    def reference(self, x: np.ndarray) -> np.ndarray:
        total = self.over(lambda a, **k: np.sum(a * a, dtype=a.dtype, **k), x)
        return np.sqrt(total).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        total = self.fold(sum_over, i, x, lambda value: wide(value) * wide(value))
        return cast(apply("sqrt", total if total.dtype.is_float else cast(total, t.f64)), x.dtype)


@op
class ReduceLogSum(Reduction):
    """The logarithm of the sum; -inf of nothing."""

    kinds = ("float",)
    examples = [
        case("f32[2,0]", axes=(1,)),
        case(np.array([[1, 2, 3], [4, 5, 6]], np.float32), axes=(-1,), keepdims=False),
    ]

    def reference(self, x: np.ndarray) -> np.ndarray:
        total = self.over(lambda a, **k: np.sum(a, dtype=a.dtype, **k), x)
        with np.errstate(all="ignore"):
            return np.log(total).astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(apply("log", self.fold(sum_over, i, x)), x.dtype)


@op
class ReduceLogSumExp(Reduction):
    """log(sum(exp(x))), computed as log(sum(exp(x - m))) + m with m the greatest element; -inf of nothing."""

    kinds = ("float",)
    examples = [*_CASES, case(np.array([[1000, 999], [-1000, -1001]], np.float32), axes=(1,))]

    def reference(self, x: np.ndarray) -> np.ndarray:
        reduced = normal_axes(self.axes, x.ndim, self.name)
        a = x.astype(accumulator(t.dtype_of(x)).numpy, copy=False)
        with np.errstate(all="ignore"):
            top = np.max(a, axis=reduced, keepdims=True, initial=-np.inf)
            top = np.where(np.isinf(top), 0, top).astype(a.dtype)
            y = np.log(np.sum(np.exp(a - top), axis=reduced, keepdims=True)) + top
        return (y if self.keepdims else np.squeeze(y, axis=reduced)).astype(x.dtype, copy=False)

    def expand(self, b: Any, x: Any) -> Any:
        wide_type = accumulator(x.dtype)
        a = x if wide_type == x.dtype else b.cast(x, to=wide_type)
        top = b.reduce_max(a, axes=self.axes, keepdims=True)
        top = b.where(b.is_inf(top), b.const(0.0, wide_type), top)
        y = b.log(b.reduce_sum(b.exp(a - top), axes=self.axes, keepdims=True)) + top
        if not self.keepdims:
            y = b.reduce_sum(y, axes=self.axes, keepdims=False)
        return y if wide_type == x.dtype else b.cast(y, to=x.dtype)
