"""Values that are there before the program runs: constants, and tensors of symbolic sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import types as t
from ir.blob import Blob
from ir.dims import Size
from ir.element import Output, Tensor, apply, cast, const, select
from ir.expr import Expr, Index
from ir.op import Op, case, define, op, require, sizes
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


def _numbers(dtype: str, *values: float) -> list[np.ndarray]:
    """Scalars, for examples."""
    return [np.array(value).astype(t.DTYPES[dtype].numpy) for value in values]


def _require_numbers(op_name: str, *operands: TensorType) -> TensorType:
    """The type that the ends and the step of a range share. Raises OpError."""
    first = operands[0]
    fits = all(v.dtype == first.dtype and v.rank == 0 for v in operands) and first.dtype.kind in (
        "float",
        "int",
        "uint",
    )
    require(fits, lambda: f"{op_name}: start, limit and delta are {', '.join(map(str, operands))}")
    return first


@op
class Range(Op):
    """start, start + delta, start + 2 * delta, ... before `limit`: `size` numbers, which only a run tells; none where
    delta is 0."""

    size: Size
    defines = ("size",)
    examples = [
        case(*_numbers("i64", 3, 11, 3), size=3), case(*_numbers("i32", 5, 1, -2), size=2),
        case(*_numbers("f32", 0.5, 2.0, 0.25), size=6), case(*_numbers("i64", 3, 1, 1), size=0),
        case(*_numbers("f64", 1.0, 2.0, 0.0), size=0),
    ]  # fmt: skip

    def infer(self, start: TensorType, limit: TensorType, delta: TensorType) -> TensorType:
        define(self.size, None)
        return _require_numbers("range", start, limit, delta).with_shape((self.size,))

    def reference(self, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
        count = CountRange().reference(start, limit, delta)
        return FillRange(int(count)).reference(start, delta, count)

    def expand(self, b: Any, start: Any, limit: Any, delta: Any) -> Any:
        return b.fill_range(start, delta, b.count_range(start, limit, delta), size=self.size)


@op
class CountRange(Op):
    """How many numbers there are from `start` by steps of `delta` before `limit`, as i64."""

    examples = [
        case(*_numbers("i64", 3, 11, 3)), case(*_numbers("i32", 5, 1, -2)), case(*_numbers("f32", 0.0, 1.0, 0.1)),
        case(*_numbers("i64", 3, 11, 0)), case(*_numbers("u8", 200, 250, 7)), case(*_numbers("f64", 1.0, 2.0, 0.0)),
    ]  # fmt: skip

    def infer(self, start: TensorType, limit: TensorType, delta: TensorType) -> TensorType:
        return TensorType(t.i64, _require_numbers("count_range", start, limit, delta).shape)

    def reference(self, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
        if delta == 0:
            return np.array(0)
        if start.dtype.kind in "iu":
            return np.array(max(0, -((int(start) - int(limit)) // int(delta))))
        return np.array(max(0, math.ceil((float(limit) - float(start)) / float(delta))))

    def element(self, i: tuple[Expr, ...], start: Tensor, limit: Tensor, delta: Tensor) -> Expr:
        wide = t.f64 if start.dtype.is_float else t.i64
        first, end, step = (cast(v.at(), wide) for v in (start, limit, delta))
        if start.dtype.is_float:
            count = cast(apply("ceil", (end - first) / step), t.i64)
        else:
            count = -apply("floordiv", first - end, step)
        return select(step.equals(0), 0, apply("max", count, 0))


@op
class FillRange(Op):
    """start + i * delta, in the type of these, for `size` places i; the last operand is the size."""

    size: Size
    defines = ("size",)
    examples = [
        case(*_numbers("i64", 3, -2), np.array(4), size=4), case(*_numbers("f32", 0.5, 0.1), np.array(6), size=6),
    ]  # fmt: skip

    def infer(self, start: TensorType, delta: TensorType, count: TensorType) -> TensorType:
        require(count.dtype == t.i64 and count.rank == 0, lambda: f"fill_range: the size is {count}")
        define(self.size, None)
        return _require_numbers("fill_range", start, delta).with_shape((self.size,))

    def reference(self, start: np.ndarray, delta: np.ndarray, count: np.ndarray) -> np.ndarray:
        return (start + np.arange(int(count)).astype(start.dtype) * delta).astype(start.dtype)

    def kernel(self, k: Any, outputs: tuple[Output, ...], start: Tensor, delta: Tensor, count: Tensor) -> None:
        with k.loop("parallel", i=self.size) as i:
            k.store(outputs[0], (i,), start.at() + cast(i, start.dtype) * delta.at())
