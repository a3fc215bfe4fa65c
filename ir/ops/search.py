"""Search and scan: top-k, arg max and min, running sums and products. Each is a kernel over one axis.

The kernels are plain loops: selection takes time proportional to the axis times what is selected.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import KernelBuilder, Output, Tensor, highest, lowest
from ir.expr import Expr, Index
from ir.op import Op, case, op, require, require_at_most
from ir.ops.indexing import nest
from ir.types import TensorType

_TIES = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, -1.0, 0.0]], np.float32)


def _without(shape: tuple[Size, ...], axis: int) -> tuple[Size, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _require_axis(op_name: str, axis: int, x: TensorType) -> None:
    require(0 <= axis < x.rank, lambda: f"{op_name}: axis {axis} of {x}")
    require(x.dtype.kind in ("int", "uint", "float"), lambda: f"{op_name} does not take {x.dtype}")


@op
class TopK(Op):
    """The `count` greatest (or least) elements along `axis` in order, and their indices; equals in their own order."""

    axis: int
    count: Size = 1
    largest: bool = True
    examples = [
        case("f32[2,5]", axis=1, count=3),
        case(_TIES, axis=1, count=4, largest=False),
        case("i64[4,2]", axis=0, count=2),
    ]

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        _require_axis("top_k", self.axis, x)
        require_at_most(f"top_k of axis {self.axis} of {x}", self.count, x.shape[self.axis])
        shape = (*x.shape[: self.axis], self.count, *x.shape[self.axis + 1 :])
        return x.with_shape(shape), TensorType(t.i64, shape)

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.largest:  # stable in descending order: an ascending one of the flipped axis, flipped
            last = x.shape[self.axis] - 1
            order = last - np.flip(np.argsort(np.flip(x, self.axis), self.axis, kind="stable"), self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        chosen = np.take(order, np.arange(int(self.count)), axis=self.axis)
        return np.take_along_axis(x, chosen, self.axis), chosen.astype(np.int64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        before = "gt" if self.largest else "lt"
        with nest(k, _without(x.shape, self.axis), "parallel") as outer:
            at = lambda i: (*outer[: self.axis], i, *outer[self.axis :])  # noqa: E731
            last = k.variable("last", 0, x.dtype)
            last_at = k.variable("last_at", -1, t.i64)
            with k.loop(r=self.count) as r:
                best = k.variable("best", 0, x.dtype)
                best_at = k.variable("best_at", -1, t.i64)
                with k.loop(j=x.shape[self.axis]) as j:
                    value = k.let("value", x.at(*at(j)), x.dtype)
                    remains = _apply(before, last, value) | (value.equals(last) & (j > last_at)) | (last_at < 0)
                    with k.when(remains & (_apply(before, value, best) | (best_at < 0))):
                        k.assign(best, value)
                        k.assign(best_at, j)
                k.store(outs[0], at(r), best)
                k.store(outs[1], at(r), best_at)
                k.assign(last, best)
                k.assign(last_at, best_at)


def _apply(comparison: str, a: Expr, b: Expr) -> Expr:
    return {"gt": a > b, "ge": a >= b, "lt": a < b, "le": a <= b}[comparison]


class Arg(Op):
    """Base of the index of an extreme element along `axis`, which vanishes; of equals the first, or the last."""

    axis: int
    last: bool = False
    comparison: ClassVar[str] = "gt"

    def infer(self, x: TensorType) -> TensorType:
        _require_axis(self.name, self.axis, x)
        require_at_most(f"{self.name} of axis {self.axis} of {x}", 1, x.shape[self.axis])
        return TensorType(t.i64, _without(x.shape, self.axis))

    def reference(self, x: np.ndarray) -> np.ndarray:
        find = np.argmax if self.comparison == "gt" else np.argmin
        if self.last:
            return np.asarray(x.shape[self.axis] - 1 - find(np.flip(x, self.axis), self.axis)).astype(np.int64)
        return np.asarray(find(x, self.axis)).astype(np.int64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        comparison = self.comparison.replace("t", "e") if self.last else self.comparison
        extreme = lowest(x.dtype) if self.comparison == "gt" else highest(x.dtype)
        with nest(k, _without(x.shape, self.axis), "parallel") as outer:
            best = k.variable("best", extreme, x.dtype)
            best_at = k.variable("best_at", 0, t.i64)
            with k.loop(j=x.shape[self.axis]) as j:
                value = k.let("value", x.at(*outer[: self.axis], j, *outer[self.axis :]), x.dtype)
                with k.when(_apply(comparison, value, best)):
                    k.assign(best, value)
                    k.assign(best_at, j)
            k.store(outs[0], outer, best_at)


@op
class ArgMax(Arg):
    """The index of the greatest element along `axis`; of equals the first, or the `last`."""

    axis: int
    last: bool = False
    examples = [case("f32[2,4,3]", axis=1), case(_TIES, axis=1, last=True), case("i64[3]", axis=0)]


@op
class ArgMin(Arg):
    """The index of the least element along `axis`; of equals the first, or the `last`."""

    axis: int
    last: bool = False
    comparison = "lt"
    examples = [case("f32[2,4,3]", axis=2), case(_TIES, axis=1, last=True), case("u8[3]", axis=0)]


class Scan(Op):
    """Base of running totals along `axis`; `exclusive` ones leave out the element itself, `reverse` ones start last."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    function: ClassVar[str] = "add"
    symbolic = True

    def infer(self, x: TensorType) -> TensorType:
        _require_axis(self.name, self.axis, x)
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        x = np.moveaxis(np.flip(x, self.axis) if self.reverse else x, self.axis, 0)
        if self.exclusive:
            first = np.full((1, *x.shape[1:]), 0 if self.function == "add" else 1).astype(x.dtype)
            x = np.concatenate([first, x[:-1]]) if len(x) else x
        total = (np.add if self.function == "add" else np.multiply).accumulate(x, axis=0, dtype=x.dtype)
        total = np.moveaxis(total, 0, self.axis)
        return np.flip(total, self.axis) if self.reverse else total

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        size = x.shape[self.axis]
        with nest(k, _without(x.shape, self.axis), "parallel") as outer:
            total = k.variable("total", 0 if self.function == "add" else 1, x.dtype)
            with k.loop(j=size) as j:
                place = Index(t.i64, size - 1) - j if self.reverse else j
                at = (*outer[: self.axis], place, *outer[self.axis :])
                value = k.let("value", x.at(*at), x.dtype)
                if self.exclusive:
                    k.store(outs[0], at, total)
                k.assign(total, value, self.function)
                if not self.exclusive:
                    k.store(outs[0], at, total)


@op
class CumSum(Scan):
    """Running sums along `axis`; `exclusive` ones leave out the element itself, `reverse` ones start last."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    examples = [
        case("f32[5]", axis=0),
        case("f32[2,4]", axis=1, exclusive=True),
        case("i32[3,2]", axis=0, reverse=True),
    ]


@op
class CumProd(Scan):
    """Running products along `axis`; `exclusive` ones leave out the element itself, `reverse` ones start last."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    function = "mul"
    examples = [case("f32[5]", axis=0), case("f64[2,3]", axis=1, exclusive=True, reverse=True)]
