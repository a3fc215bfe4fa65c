"""The inverse of square matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import types as t
from ir.dims import decide_eq
from ir.element import KernelBuilder, Output, Tensor, apply, select
from ir.expr import Index
from ir.op import Op, assume_equal, case, op, require
from ir.types import TensorType


def _regular(*shape: int) -> np.ndarray:
    """Matrices far from singular, whose pivots are not all on the diagonal."""
    noise = np.random.default_rng(0).standard_normal((*shape, shape[-1]))
    return (noise + 3 * np.eye(shape[-1])[::-1]).astype(np.float32)


@op
class Inverse(Op):
    """The inverse of each matrix of the last two axes, by elimination with the greatest pivot of each column.

    Outputs the inverse, and a matrix to work in, zeros at the end. A singular matrix gives elements that are not
    finite.
    """

    examples = [
        case(_regular(3)), case(_regular(2, 2, 4)), case(_regular(2, 1).astype(np.float64)), case("f32[0,3,3]"),
        case(np.array([[0, 2], [4, 0]], np.float32)), case("f32[2,0,0]"),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        require(x.dtype in (t.f32, t.f64) and x.rank >= 2, lambda: f"inverse does not take {x}")
        require(decide_eq(*x.shape[-2:]) is not False, lambda: f"inverse: {x} is not square")
        assume_equal(*x.shape[-2:])
        return x, x

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.empty_like(x)
        for at in np.ndindex(x.shape[:-2]):
            try:
                y[at] = np.linalg.inv(x[at].astype(np.float64))
            except np.linalg.LinAlgError:
                y[at] = np.nan
        return y, np.zeros_like(x)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        y = outs[0]
        if y.rank == 2:
            self._one(k, outs, x, ())
            return
        with k.loop("parallel", **{f"b{axis}": size for axis, size in enumerate(y.shape[:-2])}) as batch:
            self._one(k, outs, x, batch if isinstance(batch, tuple) else (batch,))

    def _one(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, batch: tuple[Any, ...]) -> None:
        """The inverse of one matrix: what makes `work` the unit matrix makes the inverse of the unit matrix."""
        y, work = outs
        size = x.shape[-1]
        with k.loop(r=size, c=size) as (r, c):
            k.store(work, (*batch, r, c), x.at(*batch, r, c))
            k.store(y, (*batch, r, c), select(r.equals(c), 1, 0))
        with k.loop(p=size) as p:
            best = k.variable("best", p, t.i64)
            with k.loop(r=Index(t.i64, size) - p) as r:
                candidate = r + p
                greater = apply("abs", work.at(*batch, candidate, p)) > apply("abs", work.at(*batch, best, p))
                k.assign(best, select(greater, candidate, best))
            with k.when(best.differs(p)), k.loop(c=size) as c:
                for matrix in outs:
                    kept = k.let("kept", matrix.at(*batch, p, c), x.dtype)
                    k.store(matrix, (*batch, p, c), matrix.at(*batch, best, c))
                    k.store(matrix, (*batch, best, c), kept)
            pivot = k.let("pivot", work.at(*batch, p, p), x.dtype)
            with k.loop(c=size) as c:
                for matrix in outs:
                    k.store(matrix, (*batch, p, c), matrix.at(*batch, p, c) / pivot)
            with k.loop(r=size) as r, k.when(r.differs(p)):
                factor = k.let("factor", work.at(*batch, r, p), x.dtype)
                with k.loop(c=size) as c:
                    for matrix in outs:
                        k.store(matrix, (*batch, r, c), matrix.at(*batch, r, c) - factor * matrix.at(*batch, p, c))
        with k.loop(r=size, c=size) as (r, c):
            k.store(work, (*batch, r, c), 0)
