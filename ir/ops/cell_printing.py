"""Numbers as text, on cells of bytes (`ir.cells`): what `cast` to strings becomes.

A float gets the fewest digits that read back as the same number, of these the nearest, in the form of Python's `repr`.
What lies half way to its neighbours is computed exactly, in limbs in an array of fixed size.
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
from ir.ops.cells import clear_from
from ir.types import DType, TensorType

_INTEGER_WIDTH = {1: 5, 2: 2, 4: 3, 8: 4, 16: 6, 32: 11, 64: 20}
"""Bytes that the longest integer of so many bits takes."""


@op
class PrintIntegers(Op):
    """The integers x[n] as decimal digits, cells of `width` bytes."""

    width: int = 20
    examples = [
        case(np.array([0, 7, -10, 2**63 - 1, -(2**63)])), case(np.array([2**64 - 1, 0], np.uint64)),
        case(np.array([-128, 99]), width=4), case("i64[0]"),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype in (t.i64, t.u64) and x.rank == 1, lambda: f"print_integers does not take {x}")
        return TensorType(t.u8, (x.shape[0], self.width))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return cells.encode(convert(x, t.string), self.width)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        (out,) = outs
        with k.loop("parallel", n=x.shape[0]) as n:
            value = k.let("value", x.at(n))
            negative = k.let("negative", value < 0 if x.dtype.is_signed else const(False, t.bool_))
            bits = cast(value, t.u64)
            size = k.let("size", select(negative, const(0, t.u64) - bits, bits))
            count, rest = k.variable("count", 1, t.i64), k.variable("rest", size / 10, t.u64)
            with k.during(rest > 0):
                k.assign(count, 1, "add")
                k.assign(rest, rest / 10)
            k.assign(count, cast(negative, t.i64), "add")
            clear_from(k, out, n, count)
            with k.when(negative):
                k.store(out, (n, 0), ord("-"))
            left, place = k.variable("left", size, t.u64), k.variable("place", count - 1, t.i64)
            with k.during(place >= cast(negative, t.i64)):
                k.store(out, (n, place), cast(left - left / 10 * 10 + 48, t.u8))
                k.assign(left, left / 10)
                k.assign(place, 1, "sub")


class _Form:
    """A float format: bits of the significand, the least exponent of its last bit, bytes of text, limbs of digits."""

    def __init__(self, precision: int, least: int, width: int, limbs: int) -> None:
        self.precision = precision
        self.least = least
        self.width = width
        self.limbs = limbs


_FORMS = {t.f16: _Form(11, -24, 12, 4), t.f32: _Form(24, -149, 20, 16), t.f64: _Form(53, -1074, 24, 88)}
_BASE = 10**9


def _samples(dtype: DType) -> np.ndarray:
    """Powers of ten and of two with their neighbours, and special values."""
    numpy = dtype.numpy.type
    with np.errstate(all="ignore"):
        powers = [10.0**e for e in range(-8, 18)] + [2.0**e for e in range(-24, 4, 3)] + [1 / 3, 123456789.0]
        x = np.array(powers).astype(numpy)
        x = np.concatenate([x, np.nextafter(x, numpy(0)), -np.nextafter(x, numpy(np.inf))])
        limits = np.finfo(numpy)
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, limits.max, -limits.tiny, limits.smallest_subnormal]
        return np.concatenate([x, np.array(special).astype(numpy)])


@op
class PrintFloats(Op):
    """The floats x[n] as the shortest text that reads back as the same number, as Python's `repr` writes it."""

    examples = [*(case(_samples(dtype)) for dtype in _FORMS), case("f32[0]")]

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype in _FORMS and x.rank == 1, lambda: f"print_floats does not take {x}")
        return TensorType(t.u8, (x.shape[0], _FORMS[x.dtype].width))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return cells.encode(convert(x, t.string), next(f.width for d, f in _FORMS.items() if d.numpy == x.dtype))

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        (out,) = outs
        with k.loop("parallel", n=x.shape[0]) as n:
            value = k.let("value", cast(x.at(n), t.f64))
            size = k.let("size", apply("abs", value))
            text = _Text(k, out, n)
            with k.when(apply("isnan", value)):
                text.put("nan")
            with k.otherwise():
                with k.when((value < 0.0) | (value.equals(0.0) & (const(1.0, t.f64) / value < 0.0))):
                    text.put("-")
                with k.when(apply("isinf", value)):
                    text.put("inf")
                with k.otherwise():
                    with k.when(value.equals(0.0)):
                        text.put("0.0")
                    with k.otherwise():
                        digits = _Shortest(k, size, _FORMS[x.dtype])
                        with k.when((digits.exponent >= -4) & (digits.exponent < 16)):
                            _write_plain(k, text, digits)
                        with k.otherwise():
                            _write_scientific(k, text, digits)
            clear_from(k, out, n, text.count)


class _Text:
    """The bytes of one cell, written one after another."""

    def __init__(self, k: KernelBuilder, out: Output, row: Expr) -> None:
        self.k, self.out, self.row = k, out, row
        self.count = k.variable("count", 0, t.i64)

    def put(self, letters: str) -> None:
        for letter in letters:
            self._byte(const(ord(letter), t.u8))

    def digit(self, value: Expr) -> None:
        self._byte(cast(value + 48, t.u8))

    def _byte(self, value: Expr) -> None:
        self.k.store(self.out, (self.row, self.count), value)
        self.k.assign(self.count, 1, "add")


class _Shortest:
    """The shortest decimal of a positive number: `count` digits from `start` on in `digits`, times 10**`exponent` for
    the first of them.

    With m the significand and 2**e its unit, 4*m and what lies half way to both neighbours are whole numbers of
    2**(e-2). These are made whole numbers of a power of ten, and digits of all three are compared from the left.
    """

    def __init__(self, k: KernelBuilder, size: Expr, form: _Form) -> None:
        self.k, self.form = k, form
        unit, whole = self._significand(size)
        self.is_even = k.let("is_even", (whole & 1).equals(0))
        is_narrow = whole.equals(1 << (form.precision - 1)) & (unit > form.least)
        low = whole * 4 - select(is_narrow, const(1, t.u64), const(2, t.u64))
        self.limbs = [k.local(name, TensorType(t.u64, (form.limbs,))) for name in ("low", "middle", "high")]
        self.used = k.variable("used", 2, t.i64)
        for limbs, number in zip(self.limbs, (low, whole * 4, whole * 4 + 2)):
            k.store(limbs, (0,), number - number / _BASE * _BASE)
            k.store(limbs, (1,), number / _BASE)
        shift = k.let("shift", unit - 2)
        self._times_power(2, 29, select(shift > 0, shift, 0))
        self.point = k.let("decimals", select(shift < 0, -shift, 0))
        self._times_power(5, 12, self.point)
        self.tens = k.local("tens", TensorType(t.u64, (9,)))
        for place in range(9):
            k.store(self.tens, (place,), 10**place)
        self.digits = k.local("digits", TensorType(t.i64, (24,)))
        self.made = k.variable("made", 0, t.i64)
        top = self._choose()
        self.start = k.let("start", cast(self.digits.at(0).equals(0), t.i64))
        self.count = k.let("shown", self.made - self.start)
        self.exponent = k.let("exponent", top - self.start - self.point)

    def _significand(self, size: Expr) -> tuple[Var, Expr]:
        """The unit's exponent and the significand as a whole number."""
        k, form = self.k, self.form
        scaled, unit = k.variable("scaled", size, t.f64), k.variable("unit", 0, t.i64)
        steps = ((2.0**-32, 32, scaled >= 2.0 ** (form.precision + 32)), (0.5, 1, scaled >= 2.0**form.precision),
                 (2.0**32, -32, (scaled < 2.0 ** (form.precision - 33)) & (unit >= form.least + 32)),
                 (2.0, -1, (scaled < 2.0 ** (form.precision - 1)) & (unit > form.least)))  # fmt: skip
        for factor, step, condition in steps:
            with k.during(condition):
                k.assign(scaled, factor, "mul")
                k.assign(unit, step, "add")
        return unit, k.let("whole", cast(scaled, t.u64))

    def _times_power(self, factor: int, most: int, exponent: Expr) -> None:
        """All three numbers times factor**exponent, `most` factors at a time."""
        k = self.k
        left = k.variable("left", exponent, t.i64)
        with k.during(left > 0):
            step, power = k.let("step", apply("min", left, Index(t.i64, most))), k.variable("power", 1, t.u64)
            with k.loop(p=step):
                k.assign(power, factor, "mul")
            carries = [k.variable("carry", 0, t.u64) for _ in self.limbs]
            with k.loop(i=self.used) as i:
                for limbs, carry in zip(self.limbs, carries):
                    product = k.let("product", limbs.at(i) * power + carry)
                    k.assign(carry, product / _BASE)
                    k.store(limbs, (i,), product - product / _BASE * _BASE)
            with k.when(carries[2] > 0):
                for limbs, carry in zip(self.limbs, carries):
                    k.store(limbs, (self.used,), carry)
                k.assign(self.used, 1, "add")
            k.assign(left, step, "sub")

    def _digit(self, number: int, place: Expr) -> Expr:
        """The digit of one of the numbers at 10**place."""
        digits = self.limbs[number].at(place // 9) / self.tens.at(place % 9)
        return cast(digits - digits / 10 * 10, t.i64)

    def _last(self, number: int) -> Expr:
        """The place of the last digit that is not zero."""
        place = self.k.variable("last", 0, t.i64)
        with self.k.during(self._digit(number, place).equals(0)):
            self.k.assign(place, 1, "add")
        return place

    def _choose(self) -> Expr:
        """Takes digits until they are between both half ways; gives the place of the first."""
        k = self.k
        ends = [self._last(number) for number in range(3)]
        place = k.variable("place", self.used * 9 - 1, t.i64)
        with k.during(self._digit(2, place).equals(0)):
            k.assign(place, 1, "sub")
        top = k.let("top", place)
        room, going = k.variable("room", 0, t.i64), k.variable("going", True, t.bool_)
        with k.during(going):
            low, middle, high = (k.let(f"d{number}", self._digit(number, place)) for number in range(3))
            may_fall = k.let("may_fall", low.differs(middle) | (self.is_even & (place <= ends[0])))
            # How far the number rounded up here is below the upper half way: not known, one digit, or safely.
            known = select(room.equals(1) & (middle.differs(9) | high.differs(0)), 2, room)
            fresh = select(middle + 1 < high, 2, select(middle.differs(high), 1, const(0, t.i64)))
            k.assign(room, select(room.equals(0), fresh, known))
            may_rise = k.let("may_rise", (room > 0) & (self.is_even | (room > 1) | (place > ends[2])))
            k.store(self.digits, (self.made,), middle)
            k.assign(self.made, 1, "add")
            with k.when(may_fall | may_rise):
                k.assign(going, False)
                after = self._digit(1, apply("max", place - 1, Index(t.i64, 0)))
                is_odd = (middle & 1).equals(1)
                above = (after > 5) | (after.equals(5) & ((place - 1 > ends[1]) | is_odd))
                with k.when(may_rise & (may_fall.equals(False) | ((place > 0) & above))):
                    self._round_up()
            k.assign(place, 1, "sub")
        return top

    def _round_up(self) -> None:
        k, last = self.k, self.made - 1
        k.store(self.digits, (last,), 1, "add")
        with k.during((self.made > 1) & self.digits.at(self.made - 1).equals(10)):
            k.assign(self.made, 1, "sub")
            k.store(self.digits, (self.made - 1,), 1, "add")

    def at(self, i: Expr) -> Expr:
        """Digit i, counted from the first that is shown; 0 behind the last."""
        inside = i < self.count
        return select(inside, self.digits.at(self.start + select(inside, i, 0)), const(0, t.i64))


def _write_plain(k: KernelBuilder, text: _Text, digits: _Shortest) -> None:
    """As 0.00123, 12300.0 or 12.3"""
    before = digits.exponent + 1
    with k.when(before <= 0):
        text.put("0.")
        with k.loop(z=-before):
            text.put("0")
    with k.otherwise():
        with k.loop(i=before) as i:
            text.digit(digits.at(i))
        text.put(".")
        with k.when(digits.count <= before):
            text.put("0")
    first = apply("max", before, Index(t.i64, 0))
    with k.loop(i=digits.count - first) as i:
        text.digit(digits.at(first + i))


def _write_scientific(k: KernelBuilder, text: _Text, digits: _Shortest) -> None:
    """As 1e-05 or 1.23e+100"""
    text.digit(digits.at(Index(t.i64, 0)))
    with k.when(digits.count > 1):
        text.put(".")
    with k.loop(i=digits.count - 1) as i:
        text.digit(digits.at(i + 1))
    text.put("e")
    with k.when(digits.exponent < 0):
        text.put("-")
    with k.otherwise():
        text.put("+")
    size = k.let("power_of_ten", apply("abs", digits.exponent))
    with k.when(size >= 100):
        text.digit(size // 100)
    text.digit(size // 10 % 10)
    text.digit(size % 10)


def print_cells(b: Any, x: Any) -> Any:
    """Rows of cells from a vector of numbers or truth values."""
    if x.dtype == t.bool_:
        texts = b.const(cells.encode(np.array(["False", "True"], object)))
        return b.gather(texts, b.cast(x, to=t.i64), axis=0)
    if x.dtype.is_integer:
        wide = x if x.dtype in (t.i64, t.u64) else b.cast(x, to=t.i64)
        return b.print_integers(wide, width=_INTEGER_WIDTH[x.dtype.bits])
    require(x.dtype.is_float, lambda: f"cast: {x.dtype} has no form as text")
    return b.print_floats(x if x.dtype in (t.f16, t.f32, t.f64) else b.cast(x, to=t.f32))
