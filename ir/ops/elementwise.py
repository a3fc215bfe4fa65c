"""Elementwise ops: NumPy broadcasting, one scalar function per element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ir import types as t
from ir.dims import Dim, Size
from ir.element import Tensor, apply, cast, select
from ir.expr import Expr
from ir.functions import FUNCTIONS
from ir.op import Op, OpError, assume_equal, case, op, require
from ir.types import DType, TensorType


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The NumPy broadcast of shapes. Two different symbolic dims (or a dim and a number) count as equal: the first
    wins, and the builder records the assumption. Raises OpError where numbers contradict."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(rank):
        sizes = [s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0]
        result.append(broadcast_sizes(sizes))
    return tuple(result)


def broadcast_sizes(sizes: list[Size]) -> Size:
    """One axis of `broadcast_shapes`."""
    wide = list(dict.fromkeys(size for size in sizes if size != 1))
    if not wide:
        return 1
    fixed = [size for size in wide if isinstance(size, int)]
    if len(fixed) > 1:
        raise OpError(f"sizes {fixed[0]} and {fixed[1]} do not broadcast")
    chosen = fixed[0] if fixed else wide[0]
    for other in wide:
        assume_equal(other, chosen)
    return chosen


def same_dtype(op_name: str, *types: TensorType) -> DType:
    """The element type all operands share. Raises OpError where they differ."""
    first = types[0].dtype
    for other in types[1:]:
        if other.dtype != first:
            raise OpError(f"{op_name}: operands have types {first} and {other.dtype}")
    return first


class Elementwise(Op):
    """Base of ops that apply one scalar function to broadcast operands."""

    function: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ("float", "int", "uint")

    def infer(self, *operands: TensorType) -> TensorType:
        dtype = same_dtype(self.name, *operands)
        require(dtype.kind in self.kinds, lambda: f"{self.name} does not take {dtype}")
        out = t.bool_ if FUNCTIONS[self.function or self.name].is_predicate else dtype
        return TensorType(out, broadcast_shapes(*(x.shape for x in operands)))

    def reference(self, *operands: np.ndarray) -> Any:
        function = FUNCTIONS[self.function or self.name].numpy
        if any(x.dtype == object for x in operands):
            return symbolic_map(function, *operands)
        with np.errstate(all="ignore"):
            result = np.asarray(function(*operands))
        if FUNCTIONS[self.function or self.name].is_predicate:
            return result
        return result.astype(operands[0].dtype, copy=False)

    def element(self, i: tuple[Expr, ...], *operands: Tensor) -> Expr:
        return apply(self.function or self.name, *(x.broadcast_at(i) for x in operands))


def symbolic_map(function: Callable[..., Any], *operands: np.ndarray) -> np.ndarray:
    """`function` on arrays that hold symbolic dims, element by element. Raises Undecided where a dim cannot tell."""
    exact = {
        np.add: lambda a, b: a + b, np.subtract: lambda a, b: a - b, np.multiply: lambda a, b: a * b,
        np.floor_divide: lambda a, b: a // b, np.mod: lambda a, b: a % b, np.negative: lambda a: -a,
    }  # fmt: skip
    from ir.dims import Undecided

    chosen = exact.get(function)  # type: ignore[arg-type]
    if chosen is None:
        raise Undecided("not a symbolic function")
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    columns = [np.broadcast_to(x, shape).ravel().tolist() for x in operands]
    out = np.empty(len(columns[0]), dtype=object)
    out[:] = [chosen(*values) for values in zip(*columns)]
    return out.reshape(shape)


_UNARY = [case("f32[2,3]"), case("f32[]"), case("f32[0,4]")]
_BINARY = [case("f32[2,3]", "f32[2,3]"), case("f32[2,3]", "f32[3]"), case("f32[4,1]", "f32[1,5]"), case("f32[]", "f32[2]")]


@op
class Add(Elementwise):
    """a + b"""

    symbolic = True
    examples = [*_BINARY, case("i32[3]", "i32[3]")]


@op
class Exp(Elementwise):
    """e**x"""

    kinds = ("float",)
    examples = _UNARY


@op
class Where(Op):
    """a where the condition holds, else b; all broadcast."""

    symbolic = True
    examples = [case("bool[2,3]", "f32[2,3]", "f32[3]"), case("bool[3]", "i64[]", "i64[3]")]

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
        require(condition.dtype == t.bool_, lambda: f"where: the condition is {condition.dtype}")
        return TensorType(same_dtype("where", a, b), broadcast_shapes(condition.shape, a.shape, b.shape))

    def reference(self, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(condition, a, b)

    def element(self, i: tuple[Expr, ...], condition: Tensor, a: Tensor, b: Tensor) -> Expr:
        return select(condition.broadcast_at(i), a.broadcast_at(i), b.broadcast_at(i))


@op
class Cast(Op):
    """x converted to `to`; `saturate` clamps out-of-range values of narrow floats, as ONNX Cast does."""

    to: DType
    saturate: bool = True
    symbolic = True
    examples = [case("f32[2,3]", to=t.i32), case("i64[3]", to=t.f32), case("f32[3]", to=t.bool_)]

    def infer(self, x: TensorType) -> TensorType:
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray) -> np.ndarray:
        if x.dtype == object and any(isinstance(v, Dim) for v in x.flat):
            return x
        with np.errstate(all="ignore"):
            return x.astype(self.to.numpy)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return cast(x.at(*i), self.to, self.saturate)
