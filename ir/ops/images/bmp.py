"""Windows bitmaps: 1, 4, 8, 16, 24 and 32 bits, palettes, bit fields, and run-length coding; bottom up or top down."""

from __future__ import annotations

from ir import types as t
from ir.expr import Expr, Index, apply, select
from ir.ops.images.canvas import Canvas, between, both, either, negated, shl, shr


class Header:
    """What the header says, as names in the kernel."""

    def __init__(self, c: Canvas) -> None:
        little = lambda at, size: c.number(Index(t.i64, at), size, True)  # noqa: E731
        self.offset = c.let("offset", little(10, 4))
        self.size = c.let("header", little(14, 4))
        self.is_old = self.size.equals(12)
        self.width = c.let("columns", select(self.is_old, little(18, 2), little(18, 4)))
        rows = c.let("rows", select(self.is_old, little(20, 2), little(22, 4)))
        self.is_top_down = rows >= 1 << 31
        self.height = c.let("lines", select(self.is_top_down, (1 << 32) - rows, rows))
        self.bits = c.let("bits", select(self.is_old, little(24, 2), little(28, 2)))
        self.coding = c.let("coding", select(self.is_old, Index(t.i64, 0), little(30, 4)))
        self.colours = c.let("colours", select(self.is_old, Index(t.i64, 0), little(46, 4)))

    def is_sound(self) -> Expr:
        bits = self.bits
        plain = self.coding.equals(0) & either(*(bits.equals(n) for n in (1, 4, 8, 16, 24, 32)))
        fields = self.coding.equals(3) & (bits.equals(16) | bits.equals(32))
        runs = (self.coding.equals(1) & bits.equals(8)) | (self.coding.equals(2) & bits.equals(4))
        known = self.is_old | between(self.size, 40, 124)
        return both(known, between(self.width, 1, 1 << 20), between(self.height, 1, 1 << 20), plain | fields | runs)


def is_bmp(c: Canvas) -> Expr:
    return c.matches(b"BM")


def decode(c: Canvas) -> None:
    """Writes the pixels of a bitmap."""
    head = Header(c)
    c.need(head.is_sound())
    palette = c.let("palette", head.size + 14)
    with c.k.when(c.ok & negated(either(head.coding.equals(1), head.coding.equals(2)))):
        _rows(c, head, palette)
    with c.k.when(c.ok & either(head.coding.equals(1), head.coding.equals(2))):
        _runs(c, head, palette)


def _line(c: Canvas, head: Header, row: Expr) -> Expr:
    return select(head.is_top_down, row, c.height - 1 - row)


def _palette_pixel(c: Canvas, head: Header, palette: Expr, y: Expr, x: Expr, index: Expr) -> None:
    entry = c.let("entry", palette + index * select(head.is_old, Index(t.i64, 3), Index(t.i64, 4)))
    c.put(y, x, c.byte(entry + 2), c.byte(entry + 1), c.byte(entry))


def _rows(c: Canvas, head: Header, palette: Expr) -> None:
    """Pixels that stand in rows of whole groups of four bytes."""
    stride = c.let("stride", (head.width * head.bits + 31) // 32 * 4)
    c.need(head.offset + stride * head.height <= c.end + 3)
    masks = [c.let(name, _mask(c, head, i)) for i, name in enumerate(("red_mask", "green_mask", "blue_mask"))]
    shifts = []
    for mask in masks:
        low = c.var("low")
        with c.k.during(both(low < 32, shr(mask, low) % 2 < 1, mask > 0)):
            c.k.assign(low, 1, "add")
        shifts.append(low)
    with c.k.loop(r=c.pixels.shape[0], x=c.pixels.shape[1]) as (r, x):  # type: ignore[union-attr]
        y = c.let("y", _line(c, head, r))
        start = c.let("start", head.offset + r * stride)
        with c.k.when(head.bits <= 8):
            bit = c.let("bit", x * head.bits)
            value = shr(c.byte(start + bit // 8), Index(t.i64, 8) - head.bits - bit % 8)
            index = c.let("index", apply("and", value, shl(Index(t.i64, 1), head.bits) - 1))
            _palette_pixel(c, head, palette, y, x, index)
        with c.k.when(head.bits.equals(24)):
            at = c.let("at", start + x * 3)
            c.put(y, x, c.byte(at + 2), c.byte(at + 1), c.byte(at))
        with c.k.when(either(head.bits.equals(16), head.bits.equals(32))):
            size = c.let("bytes", head.bits // 8)
            at = c.let("at", start + x * size)
            value = c.let("value", select(size.equals(2), c.number(at, 2, True), c.number(at, 4, True)))
            c.put(y, x, *(_scaled(c, value, mask, low) for mask, low in zip(masks, shifts)))


def _mask(c: Canvas, head: Header, channel: int) -> Expr:
    """The bits of a channel: as the header says, or five of 16 and eight of 32."""
    said = c.number(Index(t.i64, 54 + 4 * channel), 4, True)
    usual = select(head.bits.equals(16), Index(t.i64, 31 << 5 * (2 - channel)), Index(t.i64, 255 << 8 * (2 - channel)))
    return select(head.coding.equals(3), said, usual)


def _scaled(c: Canvas, value: Expr, mask: Expr, low: Expr) -> Expr:
    """A channel as a number from 0 to 255, rounded down."""
    top = c.let("top", apply("max", shr(mask, low), 1))
    return c.let("channel", shr(apply("and", value, mask), low) * 255 // top)


def _runs(c: Canvas, head: Header, palette: Expr) -> None:
    """Run-length coding: pairs of a count and a value; a count of 0 leads to the end of a line, a step, or pixels."""
    with c.k.loop(r=c.pixels.shape[0], x=c.pixels.shape[1]) as (r, x):  # type: ignore[union-attr]
        _palette_pixel(c, head, palette, r, x, Index(t.i64, 0))
    at, row, column = c.var("at", head.offset), c.var("row"), c.var("column")
    done = c.flag("done")
    with c.repeat(both(negated(done), row < head.height)):
        c.need(at + 1 < c.end)
        count, value = c.let("count", c.byte(at)), c.let("value", c.byte(at + 1))
        c.k.assign(at, 2, "add")
        length = c.var("length", count)
        is_run = c.flag("is_run", count > 0)
        with c.k.when(count.equals(0) & (value >= 3)):
            c.k.assign(length, value)
        with c.k.when(length > 0):
            i = c.var("i")
            with c.k.during((i < length) & (column < head.width)):
                nibble = head.bits.equals(4)
                place = select(nibble, i // 2, i)
                packed = c.let("packed", select(is_run, value, c.byte(at + place)))
                half = select((i % 2).equals(0), packed // 16, packed % 16)
                _palette_pixel(c, head, palette, _line(c, head, row), column, select(nibble, half, packed))
                c.k.assign(column, 1, "add")
                c.k.assign(i, 1, "add")
            with c.k.when(negated(is_run)):  # pixels as they are take whole pairs of bytes
                size = c.let("size", select(head.bits.equals(4), (length + 1) // 2, length))
                c.k.assign(at, size + size % 2, "add")
        with c.k.when(count.equals(0) & value.equals(0)):
            c.k.assign(column, 0)
            c.k.assign(row, 1, "add")
        with c.k.when(count.equals(0) & value.equals(1)):
            c.k.assign(done, True)
        with c.k.when(count.equals(0) & value.equals(2)):
            c.k.assign(column, c.byte(at), "add")
            c.k.assign(row, c.byte(at + 1), "add")
            c.k.assign(at, 2, "add")


def size(c: Canvas) -> tuple[Expr, Expr]:
    """Height and width."""
    head = Header(c)
    c.need(head.is_sound())
    return head.height, head.width
