"""Portable network graphics: every colour type and bit depth, palettes, and Adam7's passes. Transparency is dropped."""

from __future__ import annotations

from ir import types as t
from ir.expr import Expr, Index, Var, apply, select
from ir.ops.images.canvas import Canvas, between, both, either, negated, shl, shr
from ir.ops.images.inflate import WINDOW, Inflater

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and their steps, of each of Adam7's passes."""


class Header:
    """What the first chunk says."""

    def __init__(self, c: Canvas) -> None:
        at = lambda place, size: c.number(Index(t.i64, place), size, False)  # noqa: E731
        self.width, self.height = c.let("columns", at(16, 4)), c.let("lines", at(20, 4))
        self.depth, self.colour = c.let("depth", c.byte(24)), c.let("colour", c.byte(25))
        self.is_interlaced = c.byte(28).equals(1)
        self.is_plain = both(c.byte(26).equals(0), c.byte(27).equals(0), c.byte(28) <= 1)

    def is_sound(self, c: Canvas) -> Expr:
        depth, wide = self.depth, either(self.depth.equals(8), self.depth.equals(16))
        narrow = either(depth.equals(1), depth.equals(2), depth.equals(4))
        fits = either(
            both(self.colour.equals(0), wide | narrow),
            both(self.colour.equals(3), narrow | depth.equals(8)),
            both(either(self.colour.equals(2), self.colour.equals(4), self.colour.equals(6)), wide),
        )
        sizes = between(self.width, 1, 1 << 20) & between(self.height, 1, 1 << 20)
        return both(c.matches(b"IHDR", 12), self.is_plain, sizes, fits)


def is_png(c: Canvas) -> Expr:
    return c.matches(SIGNATURE)


def size(c: Canvas) -> tuple[Expr, Expr]:
    """Height and width."""
    head = Header(c)
    c.need(head.is_sound(c))
    return head.height, head.width


class _Chunks:
    """The data of the chunks IDAT, one after the other."""

    def __init__(self, c: Canvas) -> None:
        self.c = c
        self.at = c.var("at", 8)
        self.left = c.var("left")
        self.palette = c.var("palette", 0)
        self.colours = c.var("colours")
        self.go_on()

    def go_on(self) -> None:
        """Goes to the next chunk with data, past its head; keeps the place of a palette. Gives up without one."""
        c = self.c
        looks = c.flag("looks", True)
        with c.repeat(looks):
            length = c.let("size", c.number(self.at, 4, False))
            c.need(self.at + length + 8 <= c.end)
            with c.k.when(c.matches(b"PLTE", self.at + 4)):
                c.k.assign(self.palette, self.at + 8)
                c.k.assign(self.colours, length // 3)
            with c.k.when(c.matches(b"IDAT", self.at + 4)):
                with c.k.when(length > 0):
                    c.k.assign(looks, False)
                c.k.assign(self.left, length)
                c.k.assign(self.at, select(length > 0, self.at + 8, self.at + 12))
            with c.k.otherwise():
                c.need(negated(c.matches(b"IEND", self.at + 4)))
                c.k.assign(self.at, length + 12, "add")

    def fetch(self, into: Var) -> None:
        c = self.c
        with c.k.when(self.left.equals(0)):
            c.k.assign(self.at, 4, "add")
            self.go_on()
        c.k.assign(into, c.byte(self.at))
        c.k.assign(self.at, 1, "add")
        c.k.assign(self.left, self.left - 1)


class _Rows:
    """Takes bytes of filtered rows, undoes the filters, and writes pixels as rows become whole.

    The row and the one before stand in the work memory in turn, each behind eight zeros: the pixel left of the first.
    """

    def __init__(self, c: Canvas, head: Header, chunks: _Chunks) -> None:
        self.c, self.head, self.chunks = c, head, chunks
        colour = head.colour
        channels = select(colour.equals(2), Index(t.i64, 3), select(colour.equals(6), Index(t.i64, 4), Index(t.i64, 1)))
        self.channels = c.let("channels", select(colour.equals(4), Index(t.i64, 2), channels))
        self.bits = c.let("pixel_bits", self.channels * head.depth)
        self.step = c.let("step", apply("max", self.bits // 8, 1))
        self.room = c.let("room", c.width * 8 + 16)
        self.table = c.local("passes", 7, 4)
        for number, row in enumerate(_PASSES):
            for i, value in enumerate(row):
                c.set(self.table, (number, i), value)
        self.number, self.row = c.var("pass_number", -1), c.var("row")
        self.rows, self.columns, self.length = c.var("pass_rows"), c.var("pass_columns"), c.var("row_bytes")
        self.place, self.filter, self.side = c.var("place", -1), c.var("filter"), c.var("side")
        self.done = c.flag("done")
        self.next_pass()

    def entry(self, column: int) -> Expr:
        return self.c.get(self.table, apply("min", self.number, 6), Index(t.i64, column))

    def next_pass(self) -> None:
        """Goes to the next pass that has pixels; an image that is not interlaced has one."""
        c, head = self.c, self.head
        c.k.assign(self.rows, 0)
        with c.k.during(both(negated(self.done), self.rows.equals(0))):
            c.k.assign(self.number, 1, "add")
            last = select(head.is_interlaced, Index(t.i64, 7), Index(t.i64, 1))
            c.k.assign(self.done, self.number >= last)
            with c.k.when(head.is_interlaced):
                y, x, down, across = (c.let("grid", self.entry(i)) for i in range(4))
                c.k.assign(self.rows, (c.height - y + down - 1) // down)
                c.k.assign(self.columns, (c.width - x + across - 1) // across)
            with c.k.otherwise():
                c.k.assign(self.rows, c.height)
                c.k.assign(self.columns, c.width)
            with c.k.when(self.columns <= 0):
                c.k.assign(self.rows, 0)
            with c.k.when(self.rows < 0):
                c.k.assign(self.rows, 0)
        c.k.assign(self.length, (self.columns * self.bits + 7) // 8)
        c.k.assign(self.row, 0)
        with c.k.loop(i=self.room * 2) as i:
            c.set(self._work, (i,), 0)

    @property
    def _work(self):
        assert self.c.work is not None
        return self.c.work

    def at(self, side: Expr, place: Expr) -> Expr:
        """Where byte `place` of one of the two rows stands."""
        return side * self.room + place + 8

    def put(self, value: Expr) -> None:
        """Takes the next byte."""
        c = self.c
        with c.k.when(self.place < 0):
            c.need(value <= 4)
            c.k.assign(self.filter, value)
            c.k.assign(self.place, 0)
        with c.k.otherwise():
            here = c.let("here", self.at(self.side, self.place))
            above_at = c.let("above_at", self.at(1 - self.side, self.place))
            left, above = c.let("a", c.get(self._work, here - self.step)), c.let("b", c.get(self._work, above_at))
            corner = c.let("corner", c.get(self._work, above_at - self.step))
            c.set(self._work, (here,), (value + self._predicted(left, above, corner)) % 256)
            c.k.assign(self.place, 1, "add")
        with c.k.when(c.ok & (self.place >= self.length)):
            self._write_row()
            c.k.assign(self.place, -1)
            c.k.assign(self.side, 1 - self.side)
            c.k.assign(self.row, 1, "add")
            with c.k.when(self.row >= self.rows):
                self.next_pass()

    def _predicted(self, left: Expr, above: Expr, corner: Expr) -> Expr:
        c, kind = self.c, self.filter
        total = c.let("p", left + above - corner)
        to_left, to_above, to_corner = (c.let("near", apply("abs", total - v)) for v in (left, above, corner))
        paeth = select(
            both(to_left <= to_above, to_left <= to_corner), left, select(to_above <= to_corner, above, corner)
        )
        zero = Index(t.i64, 0)
        first = select(kind.equals(1), left, select(kind.equals(2), above, zero))
        return c.let("predicted", select(kind.equals(3), (left + above) // 2, select(kind.equals(4), paeth, first)))

    def _sample(self, start: Expr, bit: Expr) -> Expr:
        """The sample at a bit of the row, as a number from 0 to 255: of 16 bits the upper eight; palettes unscaled."""
        c, depth = self.c, self.head.depth
        byte = c.let("packed", c.get(self._work, start + bit // 8))
        shift = apply("max", Index(t.i64, 8) - depth - bit % 8, 0)
        most = c.let("most", shl(Index(t.i64, 1), apply("min", depth, 8)) - 1)
        value = c.let("sample", select(depth >= 8, byte, apply("and", shr(byte, shift), most)))
        return select(self.head.colour.equals(3), value, value * 255 // most)

    def _write_row(self) -> None:
        c, head = self.c, self.head
        first_y, first_x = c.var("first_y"), c.var("first_x")
        down, across = c.var("down", 1), c.var("across", 1)
        with c.k.when(head.is_interlaced):
            for i, variable in enumerate((first_y, first_x, down, across)):
                c.k.assign(variable, self.entry(i))
        start = c.let("row_start", self.at(self.side, Index(t.i64, 0)))
        is_colour = either(head.colour.equals(2), head.colour.equals(6))
        with c.k.loop(i=self.columns) as i:
            y, x = c.let("y", first_y + self.row * down), c.let("x", first_x + i * across)
            bit = c.let("bit", i * self.bits)
            red = c.let("red", self._sample(start, bit))
            with c.k.when(head.colour.equals(3)):
                c.need(red < self.chunks.colours)
                entry = c.let("entry", self.chunks.palette + red * 3)
                c.put(y, x, c.byte(entry), c.byte(entry + 1), c.byte(entry + 2))
            with c.k.when(is_colour):
                green, blue = (c.let("other", self._sample(start, bit + head.depth * n)) for n in (1, 2))
                c.put(y, x, red, green, blue)
            with c.k.when(negated(is_colour | head.colour.equals(3))):
                c.grey(y, x, red)


def decode(c: Canvas) -> None:
    """Writes the pixels of a PNG."""
    head = Header(c)
    c.need(head.is_sound(c))
    with c.k.when(c.ok):
        chunks = _Chunks(c)
        rows = _Rows(c, head, chunks)
        inflater = Inflater(c, chunks.fetch, c.let("window_at", rows.room * 2))
        inflater.run(rows.put, lambda: negated(rows.done))


__all__ = ["WINDOW", "decode", "is_png", "size"]
