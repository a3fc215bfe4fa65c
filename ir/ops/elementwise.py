"""Elementwise ops: NumPy broadcasting, one scalar function per element.

Element types do not mix (`cast` converts). NaN goes through `min` and `max`, integers wrap around, and operands that
hold symbolic sizes are computed exactly or not at all. Truth values, bits and comparisons are in `logic`,
functions that networks apply to sums in `activation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any, ClassVar

import numpy as np

from ir import types as t
from ir.demand import equal_or_one, may_stretch
from ir.dims import Size, decide_eq
from ir.element import Tensor, apply, cast, const
from ir.expr import Expr
from ir.functions import FUNCTIONS
from ir.op import Op, OpError, assume_equal, case, op, require
from ir.symbolic import holds_dims, symbolic_map
from ir.types import DType, TensorType

NUMBERS = ("float", "int", "uint")


def broadcast_shapes(*shapes: tuple[Size, ...], stretches: bool = False) -> tuple[Size, ...]:
    """The NumPy broadcast of shapes. Raises OpError where numbers contradict.

    Where two sizes differ of which one is symbolic, the operand with most axes other than 1 (of those, the first) gives
    the size of the result, a number before a symbol. The sizes are demanded to be equal; with `stretches`, which is for
    element rules that read by `Tensor.stretched_at`, sizes of unrelated symbols may turn out to be 1 as well.
    """
    rank = max((len(s) for s in shapes), default=0)
    ordered = sorted(shapes, key=lambda shape: -sum(size != 1 for size in shape)) if stretches else shapes
    result: list[Size] = []
    for axis in range(rank):
        sizes = [s[axis - rank + len(s)] for s in ordered if axis - rank + len(s) >= 0]
        result.append(broadcast_sizes(sizes, stretches))
    return tuple(result)


def broadcast_sizes(sizes: list[Size], stretches: bool = False) -> Size:
    """One axis of `broadcast_shapes`: the first of `sizes` that is a number other than 1, else a symbolic one."""
    wide = list(dict.fromkeys(size for size in sizes if size != 1))
    if not wide:
        return 1
    fixed = [size for size in wide if isinstance(size, int)]
    if len(fixed) > 1:
        raise OpError(f"sizes {fixed[0]} and {fixed[1]} do not broadcast")
    chosen = fixed[0] if fixed else wide[0]
    for other in wide:
        demand_paired(other, chosen, stretches)
    return chosen


def demand_paired(own: Size, size: Size, stretches: bool = True) -> None:
    """Demands that an axis of size `own` can be read along one of `size`: that it is as long, or 1 where it may be."""
    assume_equal(*(equal_or_one(own, size) if stretches and may_stretch(own, size) else (own, size)))


def broadcasts_to(shape: Sequence[Size], target: Sequence[Size]) -> bool:
    """Whether a tensor of `shape` may broadcast to `target`, read by `Tensor.stretched_at`; demands what that takes."""
    pairs = [(own, size) for own, size in zip(reversed(shape), reversed(target)) if own != 1]
    if len(shape) > len(target) or any(decide_eq(*pair) is False and not may_stretch(*pair) for pair in pairs):
        return False
    for own, size in pairs:
        demand_paired(own, size)
    return True


def same_dtype(op_name: str, *types: TensorType) -> DType:
    """The element type all operands share. Raises OpError where they differ."""
    first = types[0].dtype
    for other in types[1:]:
        if other.dtype != first:
            raise OpError(f"{op_name}: operands have types {first} and {other.dtype}")
    return first


class Elementwise(Op):
    """Base of ops that apply one scalar function to broadcast operands of one type."""

    function: ClassVar[str] = ""
    """The scalar function, where it is not called like the op."""
    symbolic_function: ClassVar[str] = ""
    """The function on symbolic sizes, where it is not called like `function`."""
    kinds: ClassVar[tuple[str, ...]] = NUMBERS
    symbolic = True

    def result_type(self, *operands: TensorType) -> TensorType:
        dtype = same_dtype(self.name, *operands)
        require(dtype.kind in self.kinds, lambda: f"{self.name} does not take {dtype}")
        out = t.bool_ if FUNCTIONS[self.function or self.name].is_predicate else dtype
        return TensorType(out, broadcast_shapes(*(x.shape for x in operands), stretches=True))

    def compute(self, *operands: np.ndarray) -> np.ndarray:
        name = self.function or self.name
        if any(holds_dims(x) for x in operands):
            return symbolic_map(self.symbolic_function or name, *operands)
        with np.errstate(all="ignore"):
            result = np.asarray(FUNCTIONS[name].numpy(*operands))
        return result.astype(bool if FUNCTIONS[name].is_predicate else operands[0].dtype, copy=False)


class Unary(Elementwise):
    """Base of elementwise ops of one operand."""

    kinds = ("float",)

    def infer(self, x: TensorType) -> TensorType:
        return self.result_type(x)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.compute(x)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return apply(self.function or self.name, x.at(*i))


class Binary(Elementwise):
    """Base of elementwise ops of two operands."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return self.result_type(a, b)

    def reference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.compute(a, b)

    def element(self, i: tuple[Expr, ...], a: Tensor, b: Tensor) -> Expr:
        return apply(self.function or self.name, *paired(i, a, b))


def paired(i: Sequence[Expr], *tensors: Tensor) -> list[Expr]:
    """The elements of broadcast operands that make element `i` of the result."""
    shape = broadcast_shapes(*(x.shape for x in tensors), stretches=True)
    return [x.stretched_at(i, shape) for x in tensors]


def row(dtype: str, *values: Any) -> np.ndarray:
    """A vector, for examples: `row("f32", 0.5, math.nan)`."""
    return np.array(values).astype(t.DTYPES[dtype].numpy)


_UNARY = [case("f32[2,3]"), case("f32[]"), case("f32[0,4]"), case("f16[5]"), case("bf16[5]")]
_SIGNED = [*_UNARY, case("i32[2,3]"), case("i8[4]"), case(row("f32", -0.0, inf, -inf, nan))]
_POSITIVE = [case(row("f32", 0.25, 1.0, 3.0, 1e4)), case(row("f16", 0.5, 7.0)), case(row("f32", 0.0, -1.0, inf, nan))]
_WITHIN_ONE = [case(row("f32", -0.75, 0.5, 0.1)), case(row("f32", 1.0, -1.0, 1.5, nan))]
_ROUNDED = [
    case(row("f32", -2.5, -1.5, -0.5, -0.2, 0.5, 1.5, 2.5, 2.51, 1e9, inf, nan)),
    case(row("f16", 0.5, 1.5, -7.75)),
    case("bf16[4]"),
    case("f32[]"),
]
_BINARY = [
    case("f32[2,3]", "f32[2,3]"),
    case("f32[2,3]", "f32[3]"),
    case("f32[4,1]", "f32[1,5]"),
    case("f32[]", "f32[2]"),
    case("f32[0,3]", "f32[1,3]"),
    case("f16[2,3]", "f16[3]"),
    case("bf16[3]", "bf16[3]"),
]
_INTEGERS = [case("i32[3]", "i32[3]"), case("i64[2,3]", "i64[]"), case("u8[3]", "u8[3]"), case("i8[2]", "i8[2]")]
_NUMBERS = [*_BINARY, *_INTEGERS]
_EXTREMES = [*_NUMBERS, case(row("f32", 1.0, nan, nan, -inf), row("f32", nan, 2.0, nan, 3.0))]
_QUOTIENTS = [
    case(row("i32", -7, 7, -7, 7, 0), row("i32", 2, -2, -2, 2, 3)),
    case(row("u8", 200, 7), row("u8", 3, 2)),
    case("i64[2,3]", row("i64", 3)),
]
_REMAINDERS = [*_QUOTIENTS, case(row("f32", -7.5, 7.5, 5.0, 1.0), row("f32", 2.0, -2.0, inf, 0.0))]


@op
class Add(Binary):
    """a + b"""

    examples = _NUMBERS


@op
class Sub(Binary):
    """a - b"""

    examples = _NUMBERS


@op
class Mul(Binary):
    """a * b"""

    examples = _NUMBERS


@op
class Div(Binary):
    """a / b; of integers towards zero, and 0 where b is 0."""

    examples = [*_BINARY, *_QUOTIENTS]


@op
class TruncDiv(Binary):
    """a / b of integers, rounded towards zero. `div` does the same, but cannot tell integers from floats in symbolic
    sizes and folds them only where they come out even; this op always folds them."""

    function = "div"
    symbolic_function = "truncdiv"
    kinds = ("int", "uint")
    examples = _QUOTIENTS


@op
class Mod(Binary):
    """a - floor(a / b) * b: the remainder with the sign of b."""

    examples = _REMAINDERS


@op
class Fmod(Binary):
    """a - trunc(a / b) * b: the remainder with the sign of a."""

    examples = _REMAINDERS


@op
class Pow(Binary):
    """a to the power b, in the type of a; b may be of another type. Integers to a negative power round to zero."""

    examples = [
        case(row("f32", 1.5, 2.0, 0.0), row("f32", 2.0, -1.5, 0.0)),
        case(row("f32", 1.5, -2.0), row("i64", 2, 3)),
        case(row("i32", 3, -2, 2, -1), row("i32", 4, 3, -1, -3)),
        case(row("i64", 3, 2), row("f32", 2.5, 3.0)),
        case(row("f16", 1.5, 3.0), row("f16", 2.0, 0.5)),
    ]

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        for x in (a, b):
            require(x.dtype.kind in NUMBERS, lambda: f"pow does not take {a.dtype} and {b.dtype}")
        return TensorType(a.dtype, broadcast_shapes(a.shape, b.shape, stretches=True))

    @staticmethod
    def computed_in(a: DType, b: DType) -> DType:
        """The type in which the power is taken: a's if that is a float, else f64 for a float b, else the wider."""
        if a.is_float:
            return a
        if b.is_float:
            return t.f64
        return a if a.bits >= b.bits and a.is_signed >= b.is_signed else t.i64

    def reference(self, a: np.ndarray, b: np.ndarray) -> Any:
        if holds_dims(a) or holds_dims(b):
            return symbolic_map("pow", a, b)
        wide = self.computed_in(t.dtype_of(a), t.dtype_of(b)).numpy
        return self.compute(a.astype(wide), b.astype(wide)).astype(a.dtype)

    def element(self, i: tuple[Expr, ...], a: Tensor, b: Tensor) -> Expr:
        wide = self.computed_in(a.dtype, b.dtype)
        return cast(apply("pow", *(cast(x, wide) for x in paired(i, a, b))), a.dtype)


@op
class Min(Binary):
    """The lesser of a and b; NaN if either is."""

    examples = _EXTREMES


@op
class Max(Binary):
    """The greater of a and b; NaN if either is."""

    examples = _EXTREMES


@op
class Neg(Unary):
    """-x"""

    kinds = NUMBERS
    examples = _SIGNED


@op
class Abs(Unary):
    """|x|"""

    kinds = NUMBERS
    examples = [*_SIGNED, case("u8[3]")]


@op
class Sign(Unary):
    """-1, 0 or 1 with the sign of x; NaN of NaN."""

    kinds = NUMBERS
    examples = [*_SIGNED, case("u8[3]")]


@op
class Reciprocal(Unary):
    """1 / x"""

    function = "div"
    examples = [*_UNARY, case(row("f32", 0.0, -0.0, inf))]

    def reference(self, x: np.ndarray) -> Any:
        return self.compute(np.ones((), object if holds_dims(x) else x.dtype), x)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return apply("div", const(1, x.dtype), x.at(*i))


@op
class Sqrt(Unary):
    """The square root; NaN below zero."""

    examples = _POSITIVE


@op
class Exp(Unary):
    """e to the power x."""

    examples = [*_UNARY, case(row("f32", -200.0, 100.0, inf, -inf, nan))]


@op
class Log(Unary):
    """The natural logarithm; NaN below zero."""

    examples = _POSITIVE


@op
class Sin(Unary):
    """The sine of x in radians."""

    examples = _UNARY


@op
class Cos(Unary):
    """The cosine of x in radians."""

    examples = _UNARY


@op
class Tan(Unary):
    """The tangent of x in radians."""

    examples = _UNARY


@op
class Asin(Unary):
    """The angle in [-pi/2, pi/2] whose sine is x."""

    examples = _WITHIN_ONE


@op
class Acos(Unary):
    """The angle in [0, pi] whose cosine is x."""

    examples = _WITHIN_ONE


@op
class Atan(Unary):
    """The angle in [-pi/2, pi/2] whose tangent is x."""

    examples = _UNARY


@op
class Sinh(Unary):
    """The hyperbolic sine."""

    examples = _UNARY


@op
class Cosh(Unary):
    """The hyperbolic cosine."""

    examples = _UNARY


@op
class Tanh(Unary):
    """The hyperbolic tangent."""

    examples = [*_UNARY, case(row("f32", -100.0, 100.0, 1e-6))]


@op
class Asinh(Unary):
    """The inverse hyperbolic sine."""

    examples = _UNARY


@op
class Acosh(Unary):
    """The inverse hyperbolic cosine; NaN below 1."""

    examples = [case(row("f32", 1.0, 1.5, 20.0)), case(row("f32", 0.5, nan))]


@op
class Atanh(Unary):
    """The inverse hyperbolic tangent."""

    examples = _WITHIN_ONE


@op
class Erf(Unary):
    """The error function."""

    examples = [*_UNARY, case(row("f32", -9.0, 4.0, 1e-4, inf, nan))]


@op
class Sigmoid(Unary):
    """1 / (1 + e**-x)"""

    examples = [*_UNARY, case(row("f32", -120.0, 120.0, inf, -inf, nan))]


@op
class Floor(Unary):
    """The greatest integer not above x."""

    examples = _ROUNDED


@op
class Ceil(Unary):
    """The least integer not below x."""

    examples = _ROUNDED


@op
class Round(Unary):
    """The nearest integer, the even one of two."""

    examples = _ROUNDED


@op
class Clip(Op):
    """min(max(x, low), high), so that high wins; either bound (rank 0) may be left out. NaN stays."""

    symbolic = True
    examples = [
        case("f32[2,3]", np.array(-0.5, np.float32), np.array(0.5, np.float32)),
        case(row("f32", nan, inf, 1.0), None, np.array(2.0, np.float32)),
        case("i32[4]", np.array(1, np.int32), None),
        case("f32[3]", np.array(2.0, np.float32), np.array(1.0, np.float32)),
        case("f16[3]", None, None),
    ]

    def infer(self, x: TensorType, low: TensorType | None = None, high: TensorType | None = None) -> TensorType:
        require(x.dtype.kind in NUMBERS, lambda: f"clip does not take {x.dtype}")
        for bound in (low, high):
            require(bound is None or bound == TensorType(x.dtype, ()), f"clip: a bound of {x} is {bound}")
        return x

    def reference(self, x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> Any:
        for function, symbolic, bound in (np.maximum, "max", low), (np.minimum, "min", high):
            if bound is not None:
                is_symbolic = holds_dims(x) or holds_dims(bound)
                x = symbolic_map(symbolic, x, bound) if is_symbolic else function(x, bound)
        return np.array(x)

    def element(self, i: tuple[Expr, ...], x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Expr:
        value = x.at(*i)
        if low is not None:
            value = apply("max", value, low.at())
        return value if high is None else apply("min", value, high.at())


__all__ = [
    "NUMBERS", "Binary", "Elementwise", "Unary", "broadcast_shapes", "broadcast_sizes", "broadcasts_to", "paired",
    "same_dtype",
]  # fmt: skip
