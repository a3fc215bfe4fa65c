"""Values that are there before the program runs: constants, and tensors of symbolic sizes."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.blob import Blob
from ir.element import cast, const, select
from ir.expr import Expr, Index
from ir.op import Op, case, op, require, sizes
from ir.types import DType, TensorType


@op
class Const(Op):
    """A constant whose bytes are read only when they are emitted."""

    blob: Blob
    structural = True

    def infer(self) -> TensorType:
        return TensorType(self.blob.dtype, self.blob.shape)

    def reference(self) -> np.ndarray:
        return self.blob.array()


@op
class Dims(Op):
    """Sizes as an i64 tensor: rank 1, or rank 0 where `scalar`. They may be symbolic."""

    values: sizes = ()
    scalar: bool = False
    symbolic = True
    movement = True
    examples = [case(values=(2, 3)), case(values=(7,), scalar=True), case()]

    def infer(self) -> TensorType:
        return TensorType(t.i64, () if self.scalar else (len(self.values),))

    def reference(self) -> np.ndarray:
        known = all(isinstance(v, int) for v in self.values)
        array = np.array(self.values, dtype=np.int64 if known else object)
        return array.reshape(()) if self.scalar else array.reshape(len(self.values))

    def element(self, i: tuple[Expr, ...]) -> Expr:
        if self.scalar:
            return Index(t.i64, self.values[0])
        result: Expr = Index(t.i64, self.values[-1] if self.values else 0)
        for position in range(len(self.values) - 2, -1, -1):
            result = select(i[0].equals(position), Index(t.i64, self.values[position]), result)
        return result


@op
class Full(Op):
    """A tensor of `shape` with every element `value`."""

    shape: sizes
    value: float = 0.0
    dtype: DType = t.f32
    movement = True
    examples = [case(shape=(2, 3), value=1.5), case(shape=(), value=3, dtype=t.i64)]

    def infer(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        return np.full([int(size) for size in self.shape], self.value, dtype=self.dtype.numpy)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        return const(self.value, self.dtype)


@op
class Iota(Op):
    """0, 1, 2, ... along `axis` of a tensor of `shape`."""

    shape: sizes
    axis: int = 0
    dtype: DType = t.i64
    movement = True
    examples = [case(shape=(5,)), case(shape=(2, 3), axis=1, dtype=t.f32)]

    def infer(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        shape = [int(size) for size in self.shape]
        row = np.arange(shape[self.axis]).astype(self.dtype.numpy)
        return np.broadcast_to(row.reshape([-1 if a == self.axis else 1 for a in range(len(shape))]), shape).copy()

    def element(self, i: tuple[Expr, ...]) -> Expr:
        return cast(i[self.axis], self.dtype)


@op
class Eye(Op):
    """A matrix of `shape` with ones on diagonal `diagonal` (above the main one where positive) and zeros elsewhere."""

    shape: sizes
    diagonal: int = 0
    dtype: DType = t.f32
    movement = True
    examples = [case(shape=(3, 4)), case(shape=(4, 3), diagonal=-1, dtype=t.i32)]

    def infer(self) -> TensorType:
        require(len(self.shape) == 2, lambda: f"eye: shape {list(self.shape)} must have 2 sizes")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        rows, columns = (int(size) for size in self.shape)
        return np.eye(rows, columns, self.diagonal).astype(self.dtype.numpy)

    def element(self, i: tuple[Expr, ...]) -> Expr:
        on_diagonal = (i[1] - i[0]).equals(self.diagonal)
        return select(on_diagonal, const(1, self.dtype), const(0, self.dtype))
