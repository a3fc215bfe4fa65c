"""The determinant of square matrices."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const, select
from ir.expr import Index
from ir.op import Op, case, op, require
from ir.ops.reduction import accumulator
from ir.types import TensorType

_MOST_ROWS = 64
"""A matrix is copied to the stack; larger ones are refused."""


@op
class Determinant(Op):
    """The determinant of each matrix of the last two axes, by elimination with the greatest pivot of each column."""

    examples = [
        case("f32[3,3]"), case("f32[2,2,4,4]"), case(np.array([[0, 2], [3, 4]], np.float32)), case("f64[1,1]"),
        case(np.array([[1, 2, 3], [2, 4, 6], [1, 0, 1]], np.float32)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float and x.rank >= 2, lambda: f"determinant does not take {x}")
        rows, columns = x.shape[-2:]
        require(rows == columns and isinstance(rows, int) and rows <= _MOST_ROWS,
                lambda: f"determinant: {x} must be square, of at most {_MOST_ROWS} known rows")  # fmt: skip
        return x.with_shape(x.shape[:-2])

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        (y,) = outs
        if not y.shape:
            self._one(k, y, x, ())
            return
        with k.loop("parallel", **{f"b{axis}": size for axis, size in enumerate(y.shape)}) as batch:  # type: ignore[arg-type]
            self._one(k, y, x, batch if isinstance(batch, tuple) else (batch,))

    def _one(self, k: KernelBuilder, y: Output, x: Tensor, batch: tuple) -> None:
        """The determinant of one matrix."""
        size, dtype = int(x.shape[-1]), accumulator(x.dtype)  # type: ignore[arg-type]
        a = k.local("a", TensorType(dtype, (size, size)))
        with k.loop(r=size, c=size) as (r, c):
            k.store(a, (r, c), cast(x.at(*batch, r, c), dtype))
        det = k.variable("det", 1, dtype)
        with k.loop(p=size) as p:
            best = k.variable("best", p, t.i64)
            with k.loop(r=size - 1 - p) as r:
                candidate = r + p + 1
                greater = apply("abs", a.at(candidate, p)) > apply("abs", a.at(best, p))
                k.assign(best, select(greater, candidate, best))
            with k.when(best.differs(p)):
                k.assign(det, -det)
                with k.loop(c=size) as c:
                    kept = k.let("kept", a.at(p, c), dtype)
                    k.store(a, (p, c), a.at(best, c))
                    k.store(a, (best, c), kept)
            pivot = k.let("pivot", a.at(p, p), dtype)
            k.assign(det, pivot, "mul")
            with k.when(pivot.differs(const(0, dtype))), k.loop(r=size - 1 - p) as r:
                row = r + p + 1
                factor = k.let("factor", a.at(row, p) / pivot, dtype)
                with k.loop(c=Index(t.i64, size) - p) as c:
                    k.store(a, (row, c + p), a.at(row, c + p) - factor * a.at(p, c + p))
        k.store(y, batch, cast(det, y.dtype))
