"""JPEG: baseline and progressive Huffman coding of greys and of three colours, with any sampling by whole factors.

Coefficients of all blocks stand in the work memory until the last scan; `jpeg_samples` makes pixels of them. A stream
that is damaged inside decodes to what it says; one that ends too early is given up.
"""

from __future__ import annotations

from ir import types as t
from ir.expr import Expr, Index, Operand, Var, apply, as_expr, select
from ir.ops.images.canvas import Canvas, between, both, either, negated, shl, shr
from ir.ops.images.jpeg_samples import write_pixels

ZIGZAG = (
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
)  # fmt: skip
COMPONENT = ("id", "across", "down", "quantiser", "columns", "base", "dc", "ac", "predicted", "rows")
"""What is kept of a component: `columns` and `rows` of blocks, where its first coefficient stands, tables of a scan."""


def is_jpeg(c: Canvas) -> Expr:
    return c.matches(b"\xff\xd8\xff")


class Markers:
    """Goes from marker to marker; `code` is the last one found, `at` the place behind it."""

    def __init__(self, c: Canvas) -> None:
        self.c = c
        self.at, self.code = c.var("at", 2), c.var("code")
        self.length = c.var("segment")

    def find(self) -> None:
        """The next marker and the length of what follows it; code 0 where the stream ends."""
        c = self.c
        c.k.assign(self.code, 0)
        with c.repeat(both(self.code.equals(0), self.at < c.end)):
            value = c.let("second", c.byte(self.at + 1))
            with c.k.when(both(c.byte(self.at).equals(255), between(value, 1, 254))):
                c.k.assign(self.code, value)
                c.k.assign(self.at, 1, "add")
            c.k.assign(self.at, 1, "add")
        c.k.assign(self.length, c.number(self.at, 2, False))

    def is_frame(self) -> Expr:
        return between(self.code, 0xC0, 0xC2)

    def is_alone(self) -> Expr:
        """Whether nothing belongs to the marker."""
        return either(between(self.code, 0xD0, 0xD8), self.code <= 1)

    def skip(self) -> None:
        c = self.c
        with c.k.when(negated(self.is_alone())):
            c.need(self.length >= 2)
            c.k.assign(self.at, self.length, "add")


def size(c: Canvas) -> tuple[Expr, Expr]:
    """Height and width; -1 where the image has four components, as those made for print."""
    markers = Markers(c)
    markers.find()
    with c.repeat(negated(markers.is_frame())):
        c.need(both(markers.code.differs(0), markers.code.differs(0xD9), markers.code.differs(0xDA)))
        markers.skip()
        markers.find()
    height, width = (c.let(name, c.number(markers.at + i, 2, False)) for name, i in (("lines", 3), ("columns", 5)))
    c.need(both(height > 0, width > 0, c.byte(markers.at + 2).equals(8)))
    is_for_print = c.byte(markers.at + 7).equals(4)
    return select(is_for_print, -1, height), select(is_for_print, -1, width)


class Frame:
    """Tables and components of the image."""

    def __init__(self, c: Canvas) -> None:
        self.c = c
        self.quantisers = c.local("quantisers", 4, 64)
        self.counts, self.symbols = c.local("huffman_counts", 8, 17), c.local("huffman_symbols", 8, 256)
        self.components = c.local("components", 4, len(COMPONENT))
        self.zigzag = c.local("zigzag", 64)
        for i, place in enumerate(ZIGZAG):
            c.set(self.zigzag, (i,), place)
        for table in (self.quantisers, self.counts, self.symbols, self.components):
            c.fill(table)
        self.count, self.across, self.down = c.var("components_in_all"), c.var("most_across", 1), c.var("most_down", 1)
        self.units_across, self.units_down = c.var("units_across"), c.var("units_down")
        self.interval = c.var("restart_interval")
        self.adobe, self.jfif = c.var("adobe", -1), c.flag("jfif")
        self.progressive, self.scans = c.flag("progressive"), c.var("scans")

    def get(self, component: Expr, what: str) -> Expr:
        return self.c.get(self.components, component, Index(t.i64, COMPONENT.index(what)))

    def set(self, component: Expr, what: str, value: Operand) -> None:
        self.c.set(self.components, (component, COMPONENT.index(what)), value)

    def read_quantisers(self, at: Expr, length: Expr) -> None:
        c = self.c
        place, end = c.var("place", at + 2), c.let("segment_end", at + length)
        with c.repeat(place < end):
            which, is_wide = c.let("which", c.byte(place) % 16), c.let("wide", c.byte(place) // 16)
            c.need(both(which < 4, is_wide < 2))
            c.k.assign(place, 1, "add")
            with c.k.when(c.ok), c.k.loop(i=64) as i:
                value = select(is_wide.equals(1), c.number(place + i * 2, 2, False), c.byte(place + i))
                c.set(self.quantisers, (which, c.get(self.zigzag, i)), value)
            c.k.assign(place, (is_wide + 1) * 64, "add")

    def read_codes(self, at: Expr, length: Expr) -> None:
        c = self.c
        place, end = c.var("place", at + 2), c.let("segment_end", at + length)
        with c.repeat(place < end):
            which = c.let("which", c.byte(place) // 16 * 4 + c.byte(place) % 16)
            c.need(both(c.byte(place) // 16 < 2, c.byte(place) % 16 < 4))
            total = c.var("total")
            with c.k.when(c.ok), c.k.loop(i=16) as i:
                c.set(self.counts, (which, i + 1), c.byte(place + 1 + i))
                c.k.assign(total, c.byte(place + 1 + i), "add")
            c.need(total <= 256)
            with c.k.when(c.ok), c.k.loop(i=total) as i:
                c.set(self.symbols, (which, i), c.byte(place + 17 + i))
            c.k.assign(place, total + 17, "add")

    def read_frame(self, at: Expr) -> None:
        """Sizes and sampling; makes room for the coefficients, all of them 0."""
        c = self.c
        c.need(self.count.equals(0))
        c.k.assign(self.count, c.byte(at + 7))
        c.need(either(self.count.equals(1), self.count.equals(3)))
        c.need(both(c.number(at + 3, 2, False).equals(c.height), c.number(at + 5, 2, False).equals(c.width)))
        c.need(c.byte(at + 2).equals(8))
        with c.k.when(c.ok), c.k.loop(i=self.count) as i:
            place = c.let("place", at + 8 + i * 3)
            across, down = c.let("h", c.byte(place + 1) // 16), c.let("v", c.byte(place + 1) % 16)
            c.need(both(between(across, 1, 4), between(down, 1, 4), c.byte(place + 2) < 4))
            for what, value in (("id", c.byte(place)), ("across", across), ("down", down)):
                self.set(i, what, value)
            self.set(i, "quantiser", apply("min", c.byte(place + 2), 3))
            c.k.assign(self.across, across, "max")
            c.k.assign(self.down, down, "max")
        with c.k.when(c.ok):
            c.k.assign(self.units_across, (c.width + self.across * 8 - 1) // (self.across * 8))
            c.k.assign(self.units_down, (c.height + self.down * 8 - 1) // (self.down * 8))
            total = c.var("total")
            with c.k.loop(i=self.count) as i:
                across, down = c.let("h", self.get(i, "across")), c.let("v", self.get(i, "down"))
                c.need(both((self.across % across).equals(0), (self.down % down).equals(0)))
                self.set(i, "columns", self.units_across * across)
                self.set(i, "rows", self.units_down * down)
                self.set(i, "base", total)
                c.k.assign(total, self.units_across * across * self.units_down * down * 64, "add")
            assert c.work is not None
            with c.k.loop(i=total) as i:
                c.set(c.work, (i,), 0)


class Bits:
    """The bits of a scan, the highest first; bytes behind a marker count as 0."""

    def __init__(self, c: Canvas, at: Var) -> None:
        self.c, self.at = c, at
        self.bits, self.count, self.beyond = c.var("bits"), c.var("bit_count"), c.var("beyond")

    def reset(self) -> None:
        c = self.c
        self.settle()
        for variable in (self.bits, self.count, self.beyond):
            c.k.assign(variable, 0)

    def settle(self) -> None:
        """Gives up where bits beyond the end of the stream were used."""
        self.c.need(self.count >= self.beyond)

    def take(self, number: Operand) -> Expr:
        c = self.c
        wanted = as_expr(number, t.i64)
        with c.k.during(self.count < wanted):
            value = c.var("fetched", c.byte(self.at))
            with c.k.when(self.at >= c.end):
                c.k.assign(self.beyond, 8, "add")
            with c.k.when(value.equals(255)):
                with c.k.when(c.byte(self.at + 1).equals(0)):
                    c.k.assign(self.at, 2, "add")
                with c.k.otherwise():
                    c.k.assign(value, 0)
                    with c.k.when(self.at + 1 >= c.end):
                        c.k.assign(self.beyond, 8, "add")
            with c.k.otherwise():
                c.k.assign(self.at, 1, "add")
            c.k.assign(self.bits, self.bits * 256 + value)
            c.k.assign(self.count, 8, "add")
        c.k.assign(self.count, self.count - wanted)
        got = c.let("got", shr(self.bits, self.count))
        c.k.assign(self.bits, apply("and", self.bits, shl(Index(t.i64, 1), self.count) - 1))
        return got

    def signed(self, size: Expr) -> Expr:
        """A number of `size` bits, of which those with a leading 0 are negative."""
        c = self.c
        value = c.let("magnitude", self.take(size))
        half = shl(Index(t.i64, 1), apply("max", size - 1, 0))
        return c.let("signed", select(both(size > 0, value < half), value - half * 2 + 1, value))

    def symbol(self, frame: Frame, table: Expr) -> Expr:
        """The next symbol of a Huffman code; gives up where the bits are no word of it."""
        return self.c.huffman_symbol(
            lambda: self.take(1),
            longest=16,
            words=lambda length: self.c.get(frame.counts, table, length),
            symbols=lambda place: self.c.get(frame.symbols, table, apply("min", place, 255)),
        )


class Scan:
    """One scan: some components, a range of coefficients, and the bits of them that it gives."""

    def __init__(self, c: Canvas, frame: Frame, markers: Markers) -> None:
        self.c, self.frame, self.at = c, frame, markers.at
        self.members = c.local("members", 4)
        self.count = c.var("members_in_all", c.byte(markers.at + 2))
        c.need(both(between(self.count, 1, 4), self.count <= frame.count))
        with c.k.when(c.ok):
            self._members(markers.at)
        place = c.let("place", markers.at + 3 + self.count * 2)
        self.first, self.last = c.let("first", c.byte(place)), c.let("last", c.byte(place + 1))
        self.before, self.shift = c.let("before", c.byte(place + 2) // 16), c.let("shift", c.byte(place + 2) % 16)
        c.need(both(self.first <= self.last, self.last < 64, self.shift <= 13))
        c.need(either(self.first.equals(0), self.count.equals(1)))
        c.k.assign(markers.at, markers.length, "add")
        self.bits = Bits(c, markers.at)
        self.run = c.var("run_of_ends")

    def _members(self, at: Expr) -> None:
        c, frame = self.c, self.frame
        with c.k.loop(i=self.count) as i:
            found = c.var("found", -1)
            with c.k.loop(j=frame.count) as j, c.k.when(frame.get(j, "id").equals(c.byte(at + 3 + i * 2))):
                c.k.assign(found, j)
            c.need(found >= 0)
            tables = c.let("tables", c.byte(at + 4 + i * 2))
            c.need(both(tables // 16 < 4, tables % 16 < 4))
            with c.k.when(c.ok):
                c.set(self.members, (i,), found)
                frame.set(found, "dc", tables // 16)
                frame.set(found, "ac", tables % 16 + 4)
                frame.set(found, "predicted", 0)

    def decode(self) -> None:
        """Decodes every unit: a block of each column and row of sampling, or of the one component a block."""
        c, frame = self.c, self.frame
        alone = c.let("alone", select(self.count.equals(1), Index(t.i64, 1), Index(t.i64, 0)))
        only = c.let("only", c.get(self.members, Index(t.i64, 0)))
        wide = (c.width * frame.get(only, "across") + frame.across * 8 - 1) // (frame.across * 8)
        high = (c.height * frame.get(only, "down") + frame.down * 8 - 1) // (frame.down * 8)
        columns = c.let("unit_columns", select(alone > 0, wide, frame.units_across))
        rows = c.let("unit_rows", select(alone > 0, high, frame.units_down))
        with c.k.loop(u=rows * columns) as u, c.k.when(c.ok):
            with c.k.when(both(frame.interval > 0, u > 0)), c.k.when((u % apply("max", frame.interval, 1)).equals(0)):
                self._restart()
            with c.k.loop(m=self.count) as m:
                component = c.let("component", c.get(self.members, m))
                across = c.let("h", select(alone > 0, Index(t.i64, 1), frame.get(component, "across")))
                down = c.let("v", select(alone > 0, Index(t.i64, 1), frame.get(component, "down")))
                with c.k.loop(y=down, x=across) as (y, x), c.k.when(c.ok):
                    row, column = u // columns * down + y, u % columns * across + x
                    block = row * frame.get(component, "columns") + column
                    self._block(component, c.let("start", frame.get(component, "base") + block * 64))
        self.bits.settle()

    def _restart(self) -> None:
        """Starts anew behind the next restart marker."""
        c = self.c
        self.bits.reset()
        c.k.assign(self.run, 0)
        with c.k.loop(i=self.frame.count) as i:
            self.frame.set(i, "predicted", 0)
        with c.k.when(both(c.byte(self.at).equals(255), between(c.byte(self.at + 1), 0xD0, 0xD7))):
            c.k.assign(self.at, 2, "add")

    def _block(self, component: Expr, start: Expr) -> None:
        c, frame = self.c, self.frame
        assert c.work is not None
        with c.k.when(self.first.equals(0)):
            with c.k.when(self.before.equals(0)):
                size = self.bits.symbol(frame, frame.get(component, "dc"))
                c.need(size <= 15)
                with c.k.when(c.ok):
                    value = c.let("level", frame.get(component, "predicted") + self.bits.signed(size))
                    frame.set(component, "predicted", value)
                    c.set(c.work, (start,), value * shl(Index(t.i64, 1), self.shift))
            with c.k.otherwise():
                bit = self.bits.take(1)
                value = c.get(c.work, start)
                c.set(c.work, (start,), apply("or", value, shl(bit, self.shift)))
        with c.k.when(c.ok & (self.last > 0)):
            with c.k.when(self.before.equals(0)):
                self._first_pass(component, start)
            with c.k.otherwise():
                self._refine(component, start)

    def _place(self, start: Expr, k: Expr) -> Expr:
        return start + self.c.get(self.frame.zigzag, apply("min", k, 63))

    def _ends(self, run: Expr) -> None:
        """How many blocks end here: two to the power of `run`, and as many more as that many bits say."""
        self.c.k.assign(self.run, shl(Index(t.i64, 1), run) + self.bits.take(run))

    def _first_pass(self, component: Expr, start: Expr) -> None:
        c, frame = self.c, self.frame
        assert c.work is not None
        with c.k.when(self.run > 0):
            c.k.assign(self.run, self.run - 1)
        with c.k.otherwise():
            k = c.var("k", apply("max", self.first, 1))
            with c.repeat(k <= self.last):
                symbol = self.bits.symbol(frame, frame.get(component, "ac"))
                run, size = c.let("run", symbol // 16), c.let("size", symbol % 16)
                with c.k.when(c.ok & (size > 0)):
                    c.k.assign(k, run, "add")
                    value = self.bits.signed(size)
                    c.need(k < 64)
                    c.set(c.work, (self._place(start, k),), value * shl(Index(t.i64, 1), self.shift))
                    c.k.assign(k, 1, "add")
                with c.k.otherwise():
                    with c.k.when(run.equals(15)):
                        c.k.assign(k, 16, "add")
                    with c.k.otherwise():
                        with c.k.when(c.ok):
                            self._ends(run)
                            c.k.assign(self.run, self.run - 1)
                        c.k.assign(k, 64)

    def _correct(self, place: Expr, value: Expr) -> None:
        """One more bit of a coefficient that is not 0."""
        c = self.c
        assert c.work is not None
        bit = self.bits.take(1)
        one = c.let("one", shl(Index(t.i64, 1), self.shift))
        with c.k.when(both(bit > 0, apply("and", value, one).equals(0))):
            c.set(c.work, (place,), value + select(value >= 0, one, -one))

    def _refine(self, component: Expr, start: Expr) -> None:
        """Bits of coefficients that an earlier scan gave, and coefficients that are 1 or -1 in the bit of this one."""
        c, frame = self.c, self.frame
        assert c.work is not None
        k = c.var("k", self.first)
        with c.repeat(both(self.run.equals(0), k <= self.last)):
            symbol = self.bits.symbol(frame, frame.get(component, "ac"))
            run, fresh = c.var("zeros", symbol // 16), c.var("fresh")
            with c.k.when(c.ok):
                with c.k.when((symbol % 16) > 0):
                    bit = self.bits.take(1)
                    one = shl(Index(t.i64, 1), self.shift)
                    c.k.assign(fresh, select(bit > 0, one, -one))
                with c.k.otherwise(), c.k.when(run < 15):
                    self._ends(run)
            looks = c.flag("looks", self.run.equals(0))
            with c.repeat(looks & (k <= self.last)):
                place = c.let("place", self._place(start, k))
                value = c.let("value", c.get(c.work, place))
                with c.k.when(value.differs(0)):
                    self._correct(place, value)
                    c.k.assign(k, 1, "add")
                with c.k.otherwise():
                    c.k.assign(run, run - 1)
                    with c.k.when(run < 0):
                        c.k.assign(looks, False)
                    with c.k.otherwise():
                        c.k.assign(k, 1, "add")
            with c.k.when(self.run.equals(0)):
                with c.k.when(both(fresh.differs(0), k < 64)):
                    c.set(c.work, (self._place(start, k),), fresh)
                c.k.assign(k, 1, "add")
        with c.k.when(self.run > 0):
            with c.repeat(k <= self.last):
                place = c.let("place", self._place(start, k))
                value = c.let("value", c.get(c.work, place))
                with c.k.when(value.differs(0)):
                    self._correct(place, value)
                c.k.assign(k, 1, "add")
            c.k.assign(self.run, self.run - 1)


def decode(c: Canvas) -> None:
    """Writes the pixels of a JPEG."""
    frame, markers = Frame(c), Markers(c)
    done = c.flag("done")
    with c.repeat(negated(done)):
        markers.find()
        is_scan = c.let("is_scan", select(markers.code.equals(0xDA), Index(t.i64, 1), Index(t.i64, 0)))
        with c.k.when(either(markers.code.equals(0xD9), markers.code.equals(0))):
            c.need(either(markers.code.differs(0), negated(frame.progressive)))
            c.k.assign(done, True)
        with c.k.when(markers.code.equals(0xDB)):
            frame.read_quantisers(markers.at, markers.length)
        with c.k.when(markers.code.equals(0xC4)):
            frame.read_codes(markers.at, markers.length)
        with c.k.when(markers.is_frame()):
            c.k.assign(frame.progressive, markers.code.equals(0xC2))
            frame.read_frame(markers.at)
        c.need(negated(both(between(markers.code, 0xC3, 0xCF), markers.code.differs(0xC4), markers.code.differs(0xCC))))
        with c.k.when(markers.code.equals(0xDD)):
            c.k.assign(frame.interval, c.number(markers.at + 2, 2, False))
        with c.k.when(both(markers.code.equals(0xE0), c.matches(b"JFIF\0", markers.at + 2))):
            c.k.assign(frame.jfif, True)
        with c.k.when(both(markers.code.equals(0xEE), c.matches(b"Adobe", markers.at + 2))):
            c.k.assign(frame.adobe, c.byte(markers.at + 13))
        with c.k.when(c.ok & is_scan.equals(1)):
            scan = Scan(c, frame, markers)
            with c.k.when(c.ok):
                scan.decode()
            c.k.assign(frame.scans, 1, "add")
        with c.k.otherwise(), c.k.when(negated(done)):
            markers.skip()
    c.need(both(frame.count > 0, frame.scans > 0))
    with c.k.when(c.ok):
        write_pixels(c, frame)
