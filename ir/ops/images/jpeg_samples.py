"""From the coefficients of a JPEG to pixels: the exact transform in whole numbers, smooth upsampling, colours.

All of it is what the Independent JPEG Group's decoder computes by default, to the last bit: its "islow" transform,
"fancy" upsampling (three parts of the nearer sample and one of the next, rounding to alternate sides), and its tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ir import types as t
from ir.element import Output
from ir.expr import Expr, Index, apply, select
from ir.ops.images.canvas import Canvas, both, either, negated, shr

if TYPE_CHECKING:
    from ir.ops.images.jpeg import Frame

_BITS, _EXTRA = 13, 2
"""Fraction bits of the constants, and bits more that are kept between the two passes."""


def _fixed(value: float, bits: int = _BITS) -> int:
    return int(value * (1 << bits) + 0.5)


def write_pixels(c: Canvas, frame: Frame) -> None:
    """Turns every block of coefficients into samples, in its place, and writes the pixels."""
    scratch = c.local("block", 64)
    with c.k.loop(i=frame.count) as i:
        base = c.let("base", frame.get(i, "base"))
        with c.k.loop(n=frame.get(i, "columns") * frame.get(i, "rows")) as n:
            _transform(c, frame, c.let("start", base + n * 64), frame.get(i, "quantiser"), scratch)
    _pixels(c, frame)


def _transform(c: Canvas, frame: Frame, start: Expr, quantiser: Expr, scratch: Output) -> None:
    """The inverse cosine transform of a block: its columns, then its rows (Loeffler, Ligtenberg and Moschytz)."""
    assert c.work is not None
    work = c.work
    with c.k.loop(column=8) as column:
        inputs = [
            c.get(work, start + column + 8 * r) * c.get(frame.quantisers, quantiser, column + 8 * r) for r in range(8)
        ]
        for r, value in enumerate(_butterfly(c, inputs, _BITS - _EXTRA)):
            c.set(scratch, (column + 8 * r,), value)
    with c.k.loop(row=8) as row:
        inputs = [c.get(scratch, row * 8 + x) for x in range(8)]
        for x, value in enumerate(_butterfly(c, inputs, _BITS + _EXTRA + 3)):
            c.set(work, (start + row * 8 + x,), apply("min", apply("max", value + 128, 0), 255))


def _butterfly(c: Canvas, inputs: list[Expr], shift: int) -> list[Expr]:
    """One dimension of the transform; the results lose `shift` bits, rounded."""
    x = [c.let("in", value) for value in inputs]
    z = c.let("z", (x[2] + x[6]) * _fixed(0.541196100))
    low, high = c.let("even", z - x[6] * _fixed(1.847759065)), c.let("even", z + x[2] * _fixed(0.765366865))
    total, difference = (x[0] + x[4]) * (1 << _BITS), (x[0] - x[4]) * (1 << _BITS)
    even = [c.let("even", v) for v in (total + high, difference + low, difference - low, total - high)]
    z1, z2, z3, z4 = (c.let("sum", v) for v in (x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]))
    z5 = c.let("z5", (z3 + z4) * _fixed(1.175875602))
    z1, z2 = c.let("z1", z1 * -_fixed(0.899976223)), c.let("z2", z2 * -_fixed(2.562915447))
    z3, z4 = c.let("z3", z5 - z3 * _fixed(1.961570560)), c.let("z4", z5 - z4 * _fixed(0.390180644))
    odd = [
        c.let("odd", v)
        for v in (
            x[1] * _fixed(1.501321110) + z1 + z4, x[3] * _fixed(3.072711026) + z2 + z3,
            x[5] * _fixed(2.053119869) + z2 + z4, x[7] * _fixed(0.298631336) + z1 + z3,
        )
    ]  # fmt: skip
    sums = [*(e + o for e, o in zip(even, odd)), *(e - o for e, o in zip(even[::-1], odd[::-1]))]
    return [shr(value + (1 << (shift - 1)), shift) for value in sums]


def _pixels(c: Canvas, frame: Frame) -> None:
    values = c.local("values", 3)
    one = Index(t.i64, 1)
    ids = [frame.get(Index(t.i64, i), "id") for i in range(3)]
    letters = both(*(value.equals(ord(letter)) for value, letter in zip(ids, "RGB")))
    is_rgb = c.flag("is_rgb", negated(frame.jfif) & either(frame.adobe.equals(0), both(frame.adobe < 0, letters)))
    assert c.pixels is not None
    with c.k.loop(y=c.pixels.shape[0], x=c.pixels.shape[1]) as (y, x):
        with c.k.loop(i=frame.count) as i:
            wide, high = (
                c.let("fx", frame.across // frame.get(i, "across")),
                c.let("fy", frame.down // frame.get(i, "down")),
            )
            columns, rows = (
                c.let("columns", (c.width + wide - one) // wide),
                c.let("rows", (c.height + high - one) // high),
            )
            c.set(values, (i,), _upsampled(c, frame, i, y, x, wide, high, columns, rows))
        first, second, third = (c.get(values, Index(t.i64, i)) for i in range(3))
        with c.k.when(frame.count.equals(1)):
            c.grey(y, x, first)
        with c.k.otherwise():
            with c.k.when(is_rgb):
                c.put(y, x, first, second, third)
            with c.k.otherwise():
                _colour(c, y, x, first, c.let("cb", second - 128), c.let("cr", third - 128))


def _sample(c: Canvas, frame: Frame, i: Expr, y: Expr, x: Expr) -> Expr:
    assert c.work is not None
    block = y // 8 * frame.get(i, "columns") + x // 8
    return c.let("sample", c.get(c.work, frame.get(i, "base") + block * 64 + y % 8 * 8 + x % 8))


def _upsampled(
    c: Canvas, frame: Frame, i: Expr, y: Expr, x: Expr, wide: Expr, high: Expr, columns: Expr, rows: Expr
) -> Expr:  # fmt: skip
    """The sample of a component at a pixel. Beyond the component's own edge, its last sample goes on."""
    row, column = c.let("row", y // high), c.let("column", x // wide)
    next_row = c.let("next_row", row + (y % 2) * 2 - 1)
    next_row = c.let("next_row", apply("min", apply("max", next_row, 0), rows - 1))
    next_column = c.let("next_column", column + (x % 2) * 2 - 1)
    next_column = c.let("next_column", apply("min", apply("max", next_column, 0), columns - 1))
    is_two_wide, is_two_high = c.flag("two_wide", wide.equals(2)), c.flag("two_high", high.equals(2))
    smooth = c.flag("smooth", both(is_two_wide, columns > 2, either(high.equals(1), is_two_high)))
    tall = c.flag("tall", both(wide.equals(1), is_two_high))
    value = c.var("sample_here", _sample(c, frame, i, row, column))
    with c.k.when(smooth | tall):
        below = _sample(c, frame, i, next_row, column)
        near = c.let("near", select(is_two_high, value * 3 + below, value))
        with c.k.when(tall):
            c.k.assign(value, shr(near + 1 + y % 2, 2))
        with c.k.otherwise():
            beside, corner = _sample(c, frame, i, row, next_column), _sample(c, frame, i, next_row, next_column)
            far = c.let("far", select(is_two_high, beside * 3 + corner, beside))
            both_ways = shr(near * 3 + far + 8 - x % 2, 4)
            c.k.assign(value, select(is_two_high, both_ways, shr(near * 3 + far + 1 + x % 2, 2)))
    return value


def _colour(c: Canvas, y: Expr, x: Expr, luma: Expr, blue: Expr, red: Expr) -> None:
    """YCbCr as RGB, as ITU-R BT.601 says, with 16 bits of fraction."""
    half = 1 << 15
    of_red = shr(red * _fixed(1.40200, 16) + half, 16)
    of_blue = shr(blue * _fixed(1.77200, 16) + half, 16)
    of_green = shr(blue * -_fixed(0.34414, 16) - red * _fixed(0.71414, 16) + half, 16)
    parts = [c.let("part", apply("min", apply("max", luma + v, 0), 255)) for v in (of_red, of_green, of_blue)]
    c.put(y, x, *parts)
