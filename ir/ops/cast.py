"""Ops that change the element type: by value, or by giving the same bits another meaning."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np

from ir import types as t
from ir.element import Tensor, apply, cast, select
from ir.expr import Expr
from ir.functions import convert
from ir.op import Op, case, op, require
from ir.ops.cell_printing import print_cells
from ir.ops.cell_reading import read_cells
from ir.ops.cells import in_rows
from ir.ops.elementwise import row
from ir.symbolic import holds_dims, truncate
from ir.types import DType, TensorType

_NUMERALS = np.array([["12", " -3.7"], ["+0.25e2\n", "1000"]], dtype=object)


@op
class Cast(Op):
    """x converted to `to`, as `ir.functions.convert` says. A float made of symbolic sizes stays exact."""

    to: DType
    saturate: bool = True
    round_mode: str = "up"
    symbolic = True
    examples = [
        case("f32[2,3]", to=t.i32),
        case("i64[3]", to=t.f32),
        case(row("f32", 0.0, -0.5, nan), to=t.bool_),
        case("bool[3]", to=t.f16),
        case(row("i32", 300, -1), to=t.u8),
        case("f64[3]", to=t.f32),
        case("f32[3]", to=t.bf16),
        case("bf16[3]", to=t.f32),
        case(row("f32", 1e6, -1e6, inf, 0.3), to=t.f8e4m3fn),
        case(row("f32", 1e6, -1e6, inf, 0.3), to=t.f8e5m2, saturate=False),
        case(row("f32", 0.0, -0.06, 0.07, 1.1, -3.3, 7.6, 99.0, -inf), to=t.f6e2m3),
        case(row("f32", 0.0, -0.03, 0.1, 1.1, -3.3, 7.6, 99.0, -inf), to=t.f6e3m2),
        case(np.array([0.25, -7.5, 3.0]).astype(t.f6e2m3.numpy), to=t.f32),
        case(np.array([0.25, -28.0, 3.0]).astype(t.f6e3m2.numpy), to=t.f16),
        case(row("f32", 0.0, 1e-39, 1.0, 1.1, 1.5, 3.1, 3e38, inf, nan), to=t.f8e8m0),
        case(row("f32", 0.0, 1e-39, 1.0, 1.1, 1.5, 3.1, 3e38, inf, nan), to=t.f8e8m0, round_mode="down"),
        case(row("f32", 0.0, 1e-38, 1.0, 1.1, 1.5, 3.1, 3e38, inf), to=t.f8e8m0, round_mode="nearest", saturate=False),
        case(row("f32", 3e38, inf, nan), to=t.f8e8m0, round_mode="nearest"),
        *(case("f32[2,3]", to=t.string), case("bool[3]", to=t.string), case("u8[]", to=t.string)),
        *(case("bf16[5]", to=t.string), case("f16[5]", to=t.string)),
        *(case(_NUMERALS, to=to) for to in (t.f64, t.f32, t.f16, t.bf16, t.i64, t.i32, t.u8, t.bool_, t.f8e4m3fn)),
    ]

    def infer(self, x: TensorType) -> TensorType:
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray) -> np.ndarray:
        if not holds_dims(x):
            return convert(x, self.to, self.saturate, self.round_mode)
        if self.to.is_float:
            return x
        change = truncate if self.to.is_integer else bool
        out = np.empty(x.size, dtype=object)
        out[:] = [change(v) for v in x.ravel().tolist()]
        return out.reshape(x.shape)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        value = x.at(*i)
        if self.to == t.f8e8m0 and self.round_mode != "up":
            value = _rounded_power(cast(value, t.f32), self.round_mode)
        return cast(value, self.to, self.saturate)

    def on_cells(self, b: Any, x: Any) -> Any:
        if self.to == t.string:
            printed = print_cells(b, b.reshape(x, shape=(x.tensor.elements,)))
            return b.reshape(printed, shape=(*x.shape, printed.shape[1]))
        read = read_cells(b, in_rows(b, x), self.to, saturate=self.saturate, round_mode=self.round_mode)
        return b.reshape(read, shape=x.shape[:-1])


def _rounded_power(x: Expr, round_mode: str) -> Expr:
    """An f32 that rounds up to the power of two to which `x` rounds down, or to the nearest with ties up."""
    x = apply("abs", x)
    is_denormal = x < 2.0**-126
    above = cast(cast(x, t.f8e8m0, saturate=False), t.f32)
    below = select(is_denormal, 0.0, select(above.equals(x), x, x * 0.5))
    if round_mode == "down":
        return below
    power = cast(cast(below, t.f8e8m0, saturate=False), t.f32)
    nearest = select(x < power * 1.5, power, x)
    return select(is_denormal, select(x > 2.0**-127, x, 0.0), nearest)


@op
class BitCast(Op):
    """The bits of x read as elements of `to`, which has the same width."""

    to: DType
    examples = [
        case("f32[2,3]", to=t.i32), case("u16[3]", to=t.bf16), case("i4[5]", to=t.f4e2m1), case("f4e2m1[5]", to=t.i4),
        case("u2[2]", to=t.i2), case("bool[3]", to=t.u8),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        known = x.dtype.kind != "string" and self.to.kind != "string"
        require(known and x.dtype.bits == self.to.bits, lambda: f"bit_cast: {x.dtype} and {self.to} differ in width")
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray) -> np.ndarray:
        raw = np.ascontiguousarray(x).reshape(x.shape).view(np.uint8 if self.to.itemsize == 1 else self.to.numpy)
        if self.to.bits < 8:
            raw = raw & np.uint8((1 << self.to.bits) - 1)
            raw = raw - ((raw >> np.uint8(self.to.bits - 1)) << np.uint8(self.to.bits)) * np.uint8(
                self.to.kind == "int"
            )
        return raw.view(self.to.numpy)

    def expand(self, b: Any, x: Any) -> Any:
        """The same memory. Signed integers of less than a byte fill it with their sign; unsigned ones do not."""
        plain = t.DTYPES[f"u{self.to.bits}"] if self.to.bits in (2, 4) else None
        if plain is None:
            return b.bit_view(x, to=self.to)
        x = b.cast(x, to=plain) if x.dtype.kind == "int" else x
        return b.cast(b.bit_view(x, to=plain), to=self.to) if self.to.kind == "int" else b.bit_view(x, to=self.to)


@op
class BitView(Op):
    """The memory of x as elements of `to`, which take as many bytes. A target gives it no code, only another name."""

    to: DType
    structural = True
    examples = [case("f32[2,3]", to=t.i32), case("u16[3]", to=t.bf16)]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.itemsize == self.to.itemsize, lambda: f"bit_view: {x.dtype} and {self.to} differ in width")
        return x.with_dtype(self.to)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return (
            np.ascontiguousarray(x)
            .reshape(x.shape)
            .view(np.uint8 if self.to.itemsize == 1 else self.to.numpy)
            .view(self.to.numpy)
        )
