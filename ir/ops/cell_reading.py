"""Numbers from text, on cells of bytes (`ir.cells`): what `cast` from strings becomes.

Exact for any number of digits: a decimal is a big integer times a power of ten, in limbs in an array of fixed size, of
which the 64 leading bits and whether anything follows decide the rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import cells
from ir import types as t
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, Index, Var, apply, cast, const, select
from ir.functions import convert
from ir.op import Op, case, op, require
from ir.ops.cells import byte, example_cells, require_cells
from ir.types import DType, TensorType

_SPACES = (9, 13)
_KEPT_DIGITS = 800
"""Digits that are read exactly. Half way between two numbers has at most 767; what follows counts as more than zero."""
_LIMBS = 136
"""Of 32 bits each: a divisor of 10**(330 + 800) and the 64 bits that must remain of the quotient."""
_GREATEST_EXPONENT = 310
_LEAST_EXPONENT = -345


def _is_space(c: Expr) -> Expr:
    return c.equals(32) | ((c >= _SPACES[0]) & (c <= _SPACES[1]))


def _is_digit(c: Expr) -> Expr:
    return (c >= 48) & (c <= 57)


def _lower(c: Expr) -> Expr:
    return select((c >= 65) & (c <= 90), c + 32, c)


def _skip(k: KernelBuilder, x: Tensor, n: Expr, at: Var) -> None:
    with k.during(_is_space(byte(x, n, at))):
        k.assign(at, 1, "add")


def _sign(k: KernelBuilder, x: Tensor, n: Expr, at: Var) -> Expr:
    """Whether there is a minus sign; steps over either sign."""
    found = k.let("sign", byte(x, n, at))
    k.assign(at, cast(found.equals(43) | found.equals(45), t.i64), "add")
    return k.let("negative", found.equals(45))


def _word(k: KernelBuilder, x: Tensor, n: Expr, at: Var, word: str) -> Expr:
    """Whether `word` stands at `at`, in any case; steps over it if so."""
    same: Expr = const(True, t.bool_)
    for offset, letter in enumerate(word):
        same = same & _lower(byte(x, n, at + offset)).equals(ord(letter))
    found = k.let("found", same)
    k.assign(at, select(found, at + len(word), at))
    return found


_READ = [
    example_cells("1", "-2.5", " +.5e1\t", "3.", "1e400", "-1e-400", "0.1", "123456789012345678901234567890", "1E+05"),
    example_cells("inf", "-Infinity", "NaN", "+INF", "0", "-0.0", "000.000100", "1e-7"),
    example_cells("2.2250738585072011e-308", "4.9406564584124654e-324", "2.4703282292062327e-324"),
    example_cells("9007199254740993", "9007199254740993.0000000000000000000000000000000001", "1.7976931348623159e308",
                  "1.7976931348623157e308", "0.00000000000000000000000000000000000012345678901234567890123456789e34"),
    np.zeros((0, 3), np.uint8),
]  # fmt: skip


@op
class ReadFloats(Op):
    """The numbers that strings x[n] say, as f64[n], rounded to the nearest even.

    Digits with a point or an exponent, "inf", "infinity" or "nan" in any case, a sign, and spaces around them. Any
    other string is the caller's error: `reference` raises ValueError, kernels store where there is nothing.
    """

    examples = [case(x) for x in _READ]

    def infer(self, x: TensorType) -> TensorType:
        require_cells("read_floats", x)
        return TensorType(t.f64, x.shape[:1])

    def reference(self, x: np.ndarray) -> np.ndarray:
        return convert(cells.decode(x), t.f64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        with k.loop("parallel", n=x.shape[0]) as n:
            at = k.variable("at", 0, t.i64)
            _skip(k, x, n, at)
            negative = _sign(k, x, n, at)
            infinite = _word(k, x, n, at, "inf")
            with k.when(infinite):
                _word(k, x, n, at, "inity")
            missing = _word(k, x, n, at, "nan")
            named = k.let("named", infinite | missing)
            value = k.variable("value", select(missing, float("nan"), const(float("inf"), t.f64)), t.f64)
            valid = k.variable("valid", named, t.bool_)
            with k.when(named.equals(False)):
                k.assign(value, 0.0)
                _decimal(k, x, n, at, value, valid)
            _skip(k, x, n, at)
            k.assign(valid, valid & byte(x, n, at).equals(0))
            # An index that is not there is how a kernel refuses its data.
            k.store(outs[0], (select(valid, n, -1),), select(negative, -value, value))


def _decimal(k: KernelBuilder, x: Tensor, n: Expr, at: Var, value: Var, valid: Var) -> None:
    """Reads digits, a point and an exponent from `at` on; sets `value`, and `valid` where there is a number."""
    begin = k.let("begin", at)
    mantissa = k.variable("mantissa", 0, t.u64)
    kept, exponent = k.variable("kept", 0, t.i64), k.variable("exponent", 0, t.i64)
    point, going = k.variable("point", False, t.bool_), k.variable("going", True, t.bool_)
    with k.during(going):
        c = k.let("c", byte(x, n, at))
        with k.when(_is_digit(c)):
            k.assign(valid, True)
            k.assign(exponent, cast(point, t.i64), "sub")
            with k.when(kept < 19):
                k.assign(mantissa, mantissa * 10 + cast(c - 48, t.u64))
                k.assign(kept, cast(mantissa.differs(0), t.i64), "add")
            with k.otherwise():
                k.assign(kept, 20)  # one digit more than the mantissa has room for
                k.assign(exponent, 1, "add")
            k.assign(at, 1, "add")
        with k.otherwise():
            k.assign(going, c.equals(46) & point.equals(False))
            with k.when(going):
                k.assign(point, True)
                k.assign(at, 1, "add")
    end = k.let("end", at)
    scale = _exponent(k, x, n, at, valid)
    k.assign(exponent, scale, "add")
    is_short = (kept < 20) & (mantissa <= 1 << 53) & (exponent >= -22) & (exponent <= 22)
    with k.when(is_short):
        # Both are exact, so that one rounding is all there is.
        power = k.variable("power", 1.0, t.f64)
        with k.loop(p=apply("abs", exponent)):
            k.assign(power, 10.0, "mul")
        whole = k.let("whole", cast(mantissa, t.f64))
        k.assign(value, select(exponent < 0, whole / power, whole * power))
    with k.otherwise(), k.when(mantissa.differs(0)):
        _big_decimal(k, x, n, begin, end, scale, value)


def _exponent(k: KernelBuilder, x: Tensor, n: Expr, at: Var, valid: Var) -> Expr:
    """The exponent at `at`, 0 where there is none; one that is far out of range is some number that is, too."""
    scale = k.variable("scale", 0, t.i64)
    with k.when(valid & _lower(byte(x, n, at)).equals(ord("e"))):
        k.assign(at, 1, "add")
        negative = _sign(k, x, n, at)
        k.assign(valid, _is_digit(byte(x, n, at)))
        with k.during(_is_digit(byte(x, n, at))):
            k.assign(scale, apply("min", scale * 10 + (byte(x, n, at) - 48), const(1 << 40, t.i64)))
            k.assign(at, 1, "add")
        k.assign(scale, select(negative, -scale, scale))
    return scale


class _Big:
    """A natural number in an array of 32-bit limbs, the lowest first; `count` of them are in use."""

    def __init__(self, k: KernelBuilder) -> None:
        self.k = k
        self.limbs = k.local("limbs", TensorType(t.u64, (_LIMBS,)))
        self.count = k.variable("count", 0, t.i64)

    def multiply(self, factor: Expr, carry: Expr) -> None:
        """Times `factor`, plus `carry`; both are of 32 bits."""
        k = self.k
        rest = k.variable("rest", carry, t.u64)
        with k.loop(i=self.count) as i:
            product = k.let("product", self.limbs.at(i) * factor + rest)
            k.store(self.limbs, (i,), product & 0xFFFFFFFF)
            k.assign(rest, apply("shr", product, const(32, t.u64)))
        with k.when(rest.differs(0)):
            k.store(self.limbs, (self.count,), rest)
            k.assign(self.count, 1, "add")

    def divide(self, divisor: Expr, remains: Var) -> None:
        """Divided by a number of 32 bits and rounded down; `remains` becomes true where something remains."""
        k = self.k
        rest = k.variable("rest", 0, t.u64)
        with k.loop(i=self.count) as i:
            place = self.count - 1 - i
            dividend = k.let("dividend", apply("shl", rest, const(32, t.u64)) | self.limbs.at(place))
            k.store(self.limbs, (place,), dividend / divisor)
            k.assign(rest, dividend - dividend / divisor * divisor)
        k.assign(remains, remains | rest.differs(0))
        with k.during((self.count > 0) & self.limbs.at(apply("max", self.count - 1, Index(t.i64, 0))).equals(0)):
            k.assign(self.count, 1, "sub")

    def shift(self, places: Expr) -> None:
        """Times 2**(32*places)."""
        k = self.k
        with k.loop(i=self.count) as i:
            k.store(self.limbs, (self.count - 1 - i + places,), self.limbs.at(self.count - 1 - i))
        with k.loop(i=places) as i:
            k.store(self.limbs, (i,), 0)
        k.assign(self.count, places, "add")


def _big_decimal(k: KernelBuilder, x: Tensor, n: Expr, begin: Expr, end: Expr, scale: Expr, value: Var) -> None:
    """`value` becomes the decimal whose digits stand from `begin` to `end`, times 10**scale. It is not zero."""
    big = _Big(k)
    sticky = k.variable("sticky", False, t.bool_)
    digits, exponent = k.variable("digits", 0, t.i64), k.variable("power", scale, t.i64)
    point = k.variable("fraction", False, t.bool_)
    with k.loop(i=end - begin) as i:
        c = k.let("c", byte(x, n, begin + i))
        with k.when(_is_digit(c)):
            k.assign(exponent, cast(point, t.i64), "sub")
            with k.when(digits < _KEPT_DIGITS):
                k.assign(digits, cast((digits > 0) | c.differs(48), t.i64), "add")
                big.multiply(const(10, t.u64), cast(c - 48, t.u64))
            with k.otherwise():
                k.assign(exponent, 1, "add")
                k.assign(sticky, sticky | c.differs(48))
        k.assign(point, point | c.equals(46))
    size = k.let("size", digits + exponent)
    with k.when(size > _GREATEST_EXPONENT):
        k.assign(value, float("inf"))
    with k.otherwise(), k.when(size > _LEAST_EXPONENT):
        # So many that 64 bits are left of the quotient by 10**-exponent: log2(10) / 32 < 7 / 64.
        spare = 4 + apply("max", -exponent, Index(t.i64, 0)) * 7 // 64 - big.count
        places = k.let("places", apply("max", spare, Index(t.i64, 2)))
        big.shift(places)
        with k.during(exponent >= 9):
            big.multiply(const(10**9, t.u64), const(0, t.u64))
            k.assign(exponent, 9, "sub")
        with k.during(exponent > 0):
            big.multiply(const(10, t.u64), const(0, t.u64))
            k.assign(exponent, 1, "sub")
        with k.during(exponent <= -9):
            big.divide(const(10**9, t.u64), sticky)
            k.assign(exponent, 9, "add")
        with k.during(exponent < 0):
            big.divide(const(10, t.u64), sticky)
            k.assign(exponent, 1, "add")
        _rounded(k, big, places, sticky, value)


def _rounded(k: KernelBuilder, big: _Big, places: Expr, sticky: Var, value: Var) -> None:
    """`value` becomes the f64 nearest to big / 2**(32*places), where `sticky` says that a little more was cut off."""
    lead = k.variable("lead", 0, t.u64)
    bits = k.variable("bits", big.count * 32, t.i64)
    top = big.limbs.at(big.count - 1)
    third = big.limbs.at(apply("max", big.count - 3, Index(t.i64, 0)))
    empty = k.variable("empty", 0, t.u64)
    with k.during(apply("shl", top, cast(empty, t.u64)) < 1 << 31):
        k.assign(empty, 1, "add")
    k.assign(bits, cast(empty, t.i64), "sub")
    high = apply("shl", apply("shl", top, const(32, t.u64)) | big.limbs.at(big.count - 2), empty)
    low = select(big.count >= 3, apply("shl", third, empty), const(0, t.u64))
    k.assign(lead, high | apply("shr", low, const(32, t.u64)))
    k.assign(sticky, sticky | (low & 0xFFFFFFFF).differs(0))
    with k.loop(i=big.count - 3) as i:
        k.assign(sticky, sticky | big.limbs.at(i).differs(0))
    exponent = k.variable("binary", bits - 64 - places * 32, t.i64)
    drop = k.let("drop", apply("max", Index(t.i64, 11), -1074 - exponent))
    width = k.let("width", cast(drop, t.u64))
    rest = k.let("cut", lead & (apply("shl", const(1, t.u64), width) - 1))
    half = k.let("half", apply("shl", const(1, t.u64), width - 1))
    kept = k.let("significand", apply("shr", lead, width))
    up = (rest > half) | (rest.equals(half) & (sticky | (kept & 1).equals(1)))
    k.assign(value, cast(kept + select(up & (drop <= 64), const(1, t.u64), const(0, t.u64)), t.f64))
    k.assign(exponent, drop, "add")
    with k.during(exponent > 0):
        k.assign(value, 2.0, "mul")
        k.assign(exponent, 1, "sub")
    with k.during(exponent < 0):
        k.assign(value, 0.5, "mul")
        k.assign(exponent, 1, "add")


@op
class ReadIntegers(Op):
    """The integers that strings x[n] say, as i64[n] of the same low 64 bits, from -2**63 to 2**64-1.

    A number with a point or an exponent, of which `floats` has the value, is rounded towards zero. As `read_floats`,
    it refuses what is no number, and what is out of range.
    """

    examples = [
        case(example_cells("12", "-7", " +0099\n", "1e3", "-2.9", "18446744073709551615", "-9223372036854775808"),
             np.array([12, -7, 99, 1e3, -2.9, 2.0**64, -(2.0**63)])),
        case("u8[0,2]", "f64[0]"),
    ]  # fmt: skip

    def infer(self, x: TensorType, floats: TensorType) -> TensorType:
        require_cells("read_integers", x)
        require(floats == TensorType(t.f64, x.shape[:1]), lambda: f"read_integers: {floats} for {x}")
        return TensorType(t.i64, x.shape[:1])

    def reference(self, x: np.ndarray, floats: np.ndarray) -> np.ndarray:
        return convert(cells.decode(x), t.i64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, floats: Tensor) -> None:
        with k.loop("parallel", n=x.shape[0]) as n:
            at = k.variable("at", 0, t.i64)
            _skip(k, x, n, at)
            negative = _sign(k, x, n, at)
            begin = k.let("begin", at)
            size, valid = k.variable("size", 0, t.u64), k.variable("valid", True, t.bool_)
            with k.during(_is_digit(byte(x, n, at))):
                digit = k.let("digit", cast(byte(x, n, at) - 48, t.u64))
                greatest = const((1 << 64) - 1, t.u64)
                k.assign(valid, valid & (size <= (greatest - digit) / 10))
                k.assign(size, size * 10 + digit)
                k.assign(at, 1, "add")
            plain = k.variable("plain", at > begin, t.bool_)
            _skip(k, x, n, at)
            k.assign(plain, plain & byte(x, n, at).equals(0))
            with k.when(plain):
                k.assign(valid, valid & (negative.equals(False) | (size <= 1 << 63)))
            with k.otherwise():
                real = k.let("real", floats.at(n))
                k.assign(valid, (real >= -(2.0**63)) & (real < 2.0**64))
                k.assign(size, cast(select(valid, apply("abs", real), 0.0), t.u64))
            below = k.let("below", negative & (size > 0))
            value = cast(select(below, const(0, t.u64) - size, size), t.i64)
            k.store(outs[0], (select(valid, n, -1),), value)


def read_cells(b: Any, x: Any, to: DType, **conversion: Any) -> Any:
    """Numbers of type `to` from rows of cells; `conversion` is what `cast` takes besides."""
    floats = b.read_floats(x)
    if not to.is_integer:
        return floats if to == t.f64 else b.cast(floats, to=to, **conversion)
    integers = b.read_integers(x, floats)
    return integers if to == t.i64 else b.cast(integers, to=to)
