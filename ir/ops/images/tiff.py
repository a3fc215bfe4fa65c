"""TIFF in strips, of either byte order: bits, greys, palettes and colours of up to 16 bits; uncompressed, PackBits, LZW
and Deflate, with horizontal differences. Of several images the first counts; tiles and planes are not read."""

from __future__ import annotations

from collections.abc import Callable

from ir import types as t
from ir.expr import Expr, Index, Var, apply, select
from ir.ops.images.canvas import Canvas, between, both, either, negated, shl, shr
from ir.ops.images.inflate import Inflater

_TAGS = {
    "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "fill_order": 266,
    "offsets": 273, "samples": 277, "rows": 278, "counts": 279, "planar": 284, "predictor": 317, "colours": 320,
    "tiles": 322,
}  # fmt: skip
_NAMES = tuple(_TAGS)
_CLEAR, _END, _FIRST = 256, 257, 258


class Header:
    """The entries of the first directory: where the values of each known tag stand."""

    def __init__(self, c: Canvas) -> None:
        self.c = c
        self.little = c.flag("little", c.byte(0).equals(ord("I")))
        directory = c.let("directory", self.number(Index(t.i64, 4), 4))
        self.table = c.local("tags", len(_TAGS), 3)
        c.fill(self.table)
        count = c.let("entries", apply("min", self.number(directory, 2), 4096))
        with c.k.loop(e=count) as e:
            at = c.let("at", directory + 2 + e * 12)
            tag, kind = c.let("tag", self.number(at, 2)), c.let("kind", self.number(at + 2, 2))
            number = c.let("number", self.number(at + 4, 4))
            size = select(kind.equals(3), Index(t.i64, 2), select(kind.equals(4), Index(t.i64, 4), Index(t.i64, 1)))
            place = c.let("value_at", select(number * size <= 4, at + 8, self.number(at + 8, 4)))
            for row, known in enumerate(_TAGS.values()):
                with c.k.when(both(tag.equals(known), number < 1 << 24, place < 1 << 30)):
                    for column, value in enumerate((size, number, place)):
                        c.set(self.table, (row, column), value)
        self.width, self.height = c.let("columns", self.first("width", 0)), c.let("lines", self.first("height", 0))

    def number(self, at: Expr, size: int) -> Expr:
        return self.c.number(at, size, self.little)

    def count(self, name: str) -> Expr:
        return self.c.get(self.table, Index(t.i64, _NAMES.index(name)), Index(t.i64, 1))

    def value(self, name: str, index: Expr) -> Expr:
        """A value of a tag; 0 beyond its values."""
        row = Index(t.i64, _NAMES.index(name))
        size, place = (self.c.get(self.table, row, Index(t.i64, column)) for column in (0, 2))
        at = self.c.let("place", place + index * size)
        wide = select(size.equals(4), self.number(at, 4), self.number(at, 2))
        value = select(size.equals(1), self.c.byte(at), wide)
        return self.c.let(name, select(index < self.count(name), value, Index(t.i64, 0)))

    def first(self, name: str, default: int) -> Expr:
        return select(self.count(name) > 0, self.value(name, Index(t.i64, 0)), Index(t.i64, default))

    def is_sound(self) -> Expr:
        return between(self.width, 1, 1 << 20) & between(self.height, 1, 1 << 20)


def is_tiff(c: Canvas) -> Expr:
    return either(c.matches(b"II*\0"), c.matches(b"MM\0*"))


def size(c: Canvas) -> tuple[Expr, Expr]:
    """Height and width; -1 where the image lies in tiles, or has other colours than red, green and blue."""
    head = Header(c)
    c.need(head.is_sound())
    is_other = c.flag("is_other", either(head.count("tiles").differs(0), head.first("photometric", 0) > 3))
    return select(is_other, -1, head.height), select(is_other, -1, head.width)


class _Rows:
    """Takes the bytes of rows, adds up differences, and writes pixels as rows become whole."""

    def __init__(self, c: Canvas, head: Header) -> None:
        self.c, self.head = c, head
        self.bits = c.let("depth", head.first("bits", 1))
        self.samples = c.let("per_pixel", head.first("samples", 1))
        self.photometric = c.let("meaning", head.first("photometric", 0))
        self.predicts = c.flag("predicts", head.first("predictor", 1).equals(2))
        self.length = c.let("row_bytes", (head.width * self.bits * self.samples + 7) // 8)
        self.place, self.row = c.var("place_in_row"), c.var("row")
        self._check()

    def _check(self) -> None:
        c, head = self.c, self.head
        grey = both(self.photometric <= 1, self.samples.equals(1), _among(self.bits, 1, 2, 4, 8, 16))
        colour = both(self.photometric.equals(2), _among(self.samples, 3, 4), _among(self.bits, 8, 16))
        entries = shl(Index(t.i64, 1), apply("min", self.bits, 8)) * 3
        indexed = both(self.photometric.equals(3), self.samples.equals(1), _among(self.bits, 1, 2, 4, 8))
        c.need(either(grey, colour, both(indexed, head.count("colours") >= entries)))
        c.need(both(head.count("bits") <= self.samples, head.count("tiles").equals(0)))
        with c.k.when(c.ok), c.k.loop(s=head.count("bits")) as s:
            c.need(head.value("bits", s).equals(self.bits))
        c.need(either(self.samples.equals(1), head.first("planar", 1).equals(1)))
        c.need(head.first("fill_order", 1).equals(1))
        c.need(either(negated(self.predicts), self.bits.equals(8)))
        c.need(head.first("predictor", 1) <= 2)

    def put(self, value: Expr) -> None:
        """Takes the next byte."""
        c, work = self.c, self.c.work
        assert work is not None
        before = select(self.predicts, c.get(work, self.place + 8 - self.samples), Index(t.i64, 0))
        with c.k.when(self.place < self.samples):
            c.set(work, (self.place + 8,), value)
        with c.k.otherwise():
            c.set(work, (self.place + 8,), (value + before) % 256)
        c.k.assign(self.place, 1, "add")
        with c.k.when(self.place >= self.length):
            self._write_row()
            c.k.assign(self.place, 0)
            c.k.assign(self.row, 1, "add")

    def _sample(self, bit: Expr) -> Expr:
        """A sample: of 16 bits the upper eight, of fewer all."""
        c, work = self.c, self.c.work
        assert work is not None
        byte = c.let(
            "byte", bit // 8 + select(both(self.bits.equals(16), self.head.little), Index(t.i64, 1), Index(t.i64, 0))
        )
        packed = c.let("packed", c.get(work, byte + 8))
        shift = apply("max", Index(t.i64, 8) - self.bits - bit % 8, 0)
        narrow = apply("and", shr(packed, shift), shl(Index(t.i64, 1), apply("min", self.bits, 8)) - 1)
        return c.let("sample", select(self.bits >= 8, packed, narrow))

    def _write_row(self) -> None:
        c, head = self.c, self.head
        most = c.let("most", shl(Index(t.i64, 1), apply("min", self.bits, 8)) - 1)
        with c.k.loop(x=c.pixels.shape[1]) as x:  # type: ignore[union-attr]
            bit = c.let("bit", x * self.bits * self.samples)
            red = self._sample(bit)
            with c.k.when(self.photometric.equals(2)):
                green, blue = (self._sample(bit + self.bits * n) for n in (1, 2))
                c.put(self.row, x, red, green, blue)
            with c.k.when(self.photometric.equals(3)):
                c.put(self.row, x, *(head.value("colours", red + (most + 1) * n) // 256 for n in range(3)))
            with c.k.when(self.photometric <= 1):
                level = c.let("level", red * 255 // most)
                c.grey(self.row, x, select(self.photometric.equals(0), 255 - level, level))


def _among(value: Expr, *numbers: int) -> Expr:
    return either(*(value.equals(number) for number in numbers))


def decode(c: Canvas) -> None:
    """Writes the pixels of a TIFF."""
    head = Header(c)
    c.need(head.is_sound())
    with c.k.when(c.ok):
        rows = _Rows(c, head)
        coding = c.let("coding", head.first("compression", 1))
        c.need(_among(coding, 1, 5, 8, 32773, 32946))
        per_strip = c.let("per_strip", apply("min", head.first("rows", 1 << 20), head.height))
        c.need(per_strip > 0)
        with c.k.loop(s=head.count("offsets")) as s, c.k.when(both(c.ok, rows.row < head.height)):
            at = c.var("at", head.value("offsets", s))
            end = c.let("strip_end", apply("min", at + head.value("counts", s), c.end))
            last = c.let("last_row", apply("min", rows.row + per_strip, head.height))
            _strip(c, rows, coding, at, end, last)
        c.need(rows.row >= head.height)


def _strip(c: Canvas, rows: _Rows, coding: Expr, at: Var, end: Expr, last: Expr) -> None:
    def fetch(into: Var) -> None:
        c.need(at < end)
        c.k.assign(into, c.byte(at))
        c.k.assign(at, 1, "add")

    wants = lambda: rows.row < last  # noqa: E731
    value = c.var("value")
    with c.k.when(coding.equals(1)), c.repeat(wants()):
        fetch(value)
        rows.put(value)
    with c.k.when(coding.equals(32773)):
        _packed(c, fetch, value, rows, wants)
    with c.k.when(coding.equals(5)):
        _words(c, fetch, rows, wants)
    with c.k.when(either(coding.equals(8), coding.equals(32946))):
        Inflater(c, fetch, c.let("window_at", rows.length + 16)).run(rows.put, wants)


def _packed(
    c: Canvas, fetch: Callable[[Var], None], value: Var, rows: _Rows, wants: Callable[[], Expr]
) -> None:  # fmt: skip
    """PackBits: a count, then as many bytes, or one byte that repeats."""
    head, literal, repeats = c.var("head"), c.var("literal"), c.var("repeats")
    with c.repeat(wants()):
        with c.k.when(both(literal.equals(0), repeats.equals(0))):
            fetch(head)
            with c.k.when(head < 128):
                c.k.assign(literal, head + 1)
            with c.k.when(head > 128):
                c.k.assign(repeats, 257 - head)
                fetch(value)
        with c.k.otherwise():
            with c.k.when(literal > 0):
                fetch(value)
                c.k.assign(literal, literal - 1)
            with c.k.otherwise():
                c.k.assign(repeats, repeats - 1)
            rows.put(value)


class _Dictionary:
    """The words of LZW in the work memory: the word that each extends, and its last byte; and one word reversed."""

    def __init__(self, c: Canvas, start: Expr) -> None:
        self.c, self.start = c, start

    def get(self, column: int, place: Expr) -> Expr:
        assert self.c.work is not None
        return self.c.get(self.c.work, self.start + place + 4096 * column)

    def set(self, column: int, place: Expr, value: Expr) -> None:
        assert self.c.work is not None
        self.c.set(self.c.work, (self.start + place + 4096 * column,), value)


def _words(c: Canvas, fetch: Callable[[Var], None], rows: _Rows, wants: Callable[[], Expr]) -> None:
    """LZW with codes of 9 to 12 bits, the highest bit first, which grow one code early."""
    words = _Dictionary(c, c.let("words_at", rows.length + 16))
    bits, count, fresh = c.var("bits"), c.var("bit_count"), c.var("fresh")
    size, width, previous, pending = c.var("size", _FIRST), c.var("width", 9), c.var("previous", -1), c.var("pending")
    with c.repeat(wants()):
        with c.k.when(pending > 0):
            c.k.assign(pending, pending - 1)
            rows.put(words.get(2, pending))
        with c.k.otherwise():
            with c.k.during(count < width):
                fetch(fresh)
                c.k.assign(bits, bits * 256 + fresh)
                c.k.assign(count, 8, "add")
            c.k.assign(count, count - width)
            code = c.let("code", shr(bits, count))
            c.k.assign(bits, apply("and", bits, shl(Index(t.i64, 1), count) - 1))
            c.need(code.differs(_END))
            with c.k.when(code.equals(_CLEAR)):
                c.k.assign(size, _FIRST)
                c.k.assign(width, 9)
                c.k.assign(previous, -1)
            with c.k.otherwise(), c.k.when(c.ok):
                is_new = c.let("is_new", select(code >= size, Index(t.i64, 1), Index(t.i64, 0)))
                c.need(either(code < size, both(code.equals(size), previous >= 0)))
                with c.k.when(c.ok):
                    _unfold(c, words, select(is_new > 0, previous, code), is_new, pending)
                    first = c.let("first", words.get(2, pending - 1))
                    with c.k.when(is_new > 0):  # the word before, and its own first byte again
                        words.set(2, Index(t.i64, 0), first)
                    with c.k.when(both(previous >= 0, size < 4096)):
                        words.set(0, size, previous)
                        words.set(1, size, first)
                        c.k.assign(size, 1, "add")
                    c.k.assign(previous, code)
                    longest = select(
                        size >= 1023, select(size >= 2047, Index(t.i64, 12), Index(t.i64, 11)), Index(t.i64, 10)
                    )
                    c.k.assign(width, select(size >= 511, longest, Index(t.i64, 9)))


def _unfold(c: Canvas, words: _Dictionary, code: Expr, start: Expr, pending: Var) -> None:
    """Writes the bytes of a word backwards, from place `start` on; `pending` is then how many there are."""
    word = c.var("word", code)
    c.k.assign(pending, start)
    with c.repeat(both(word >= 0, pending < 4096)):
        with c.k.when(word < 256):
            words.set(2, pending, word)
            c.k.assign(word, -1)
        with c.k.otherwise():
            words.set(2, pending, words.get(1, word))
            c.k.assign(word, words.get(0, word))
        c.k.assign(pending, 1, "add")
