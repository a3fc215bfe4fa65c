"""The deflate coding of zlib streams (RFC 1950 and 1951), byte by byte.

The stream may lie in pieces: `fetch` gives the next byte and goes on. The last 32 KiB stand in the work memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ir import types as t
from ir.element import Output
from ir.expr import Expr, Index, Var, apply, select
from ir.ops.images.canvas import Canvas, both, negated, shl, shr

WINDOW = 1 << 15
LENGTHS = (
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    13,
    15,
    17,
    19,
    23,
    27,
    31,
    35,
    43,
    51,
    59,
    67,
    83,
    99,
    115,
    131,
    163,
    195,
    227,
    258,
)
LENGTH_BITS = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4 + (0,)
DISTANCES = (
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
)  # fmt: skip
DISTANCE_BITS = tuple(max(0, i // 2 - 1) for i in range(30))
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_LENGTH_AT, _EXTRA_AT, _DISTANCE_AT, _SPREAD_AT, _ORDER_AT = 0, 29, 58, 88, 118


@dataclass
class Code:
    """A canonical Huffman code: how many words of each length there are, and the symbols in order."""

    counts: Output
    symbols: Output


class Inflater:
    """Decodes a stream; `fetch(variable)` reads its next byte into a variable."""

    def __init__(self, c: Canvas, fetch: Callable[[Var], None], window_at: Expr) -> None:
        self.c = c
        self.fetch = fetch
        self.window_at = window_at
        self.constants = c.local("constants", 137)
        for at, values in ((_LENGTH_AT, LENGTHS), (_EXTRA_AT, LENGTH_BITS), (_DISTANCE_AT, DISTANCES),
                           (_SPREAD_AT, DISTANCE_BITS), (_ORDER_AT, ORDER)):  # fmt: skip
            for i, value in enumerate(values):
                c.set(self.constants, (at + i,), value)
        self.bits, self.count = c.var("bits"), c.var("bit_count")
        self.got, self.fresh = c.var("got"), c.var("fresh")
        self.literals = Code(c.local("literal_counts", 16), c.local("literal_symbols", 288))
        self.distances = Code(c.local("distance_counts", 16), c.local("distance_symbols", 32))
        self.lengths = c.local("code_lengths", 320)
        self.starts = c.local("starts", 16)

    def take(self, number: Expr | int) -> Expr:
        """The next bits, the lowest first."""
        c = self.c
        number = Index(t.i64, number) if isinstance(number, int) else number
        with c.k.during(self.count < number):
            self.fetch(self.fresh)
            c.k.assign(self.bits, shl(self.fresh, self.count), "add")
            c.k.assign(self.count, 8, "add")
        c.k.assign(self.got, apply("and", self.bits, shl(Index(t.i64, 1), number) - 1))
        c.k.assign(self.bits, shr(self.bits, number))
        c.k.assign(self.count, self.count - number)
        return c.let("taken", self.got)

    def constant(self, at: int, index: Expr) -> Expr:
        return self.c.get(self.constants, index + at)

    def symbol(self, code: Code) -> Expr:
        """The next symbol of a code; gives up where the bits are no word of it."""
        return self.c.huffman_symbol(
            lambda: self.take(1),
            longest=15,
            words=lambda length: self.c.get(code.counts, length),
            symbols=lambda place: self.c.get(code.symbols, apply("min", place, code.symbols.shape[0] - 1)),
        )

    def build(self, code: Code, begin: Expr, count: Expr) -> None:
        """Makes a code of lengths begin..begin+count; gives up where there are more words than bits allow."""
        c = self.c
        c.fill(code.counts)
        with c.k.loop(i=count) as i:
            length = c.let("length", c.get(self.lengths, begin + i))
            c.set(code.counts, (length,), c.get(code.counts, length) + 1)
        c.set(code.counts, (0,), 0)
        room = c.var("room", 1)
        c.set(self.starts, (0,), 0)
        c.set(self.starts, (1,), 0)
        with c.k.loop(i=15) as i:
            c.k.assign(room, room * 2 - c.get(code.counts, i + 1))
            with c.k.when(i < 14):
                c.set(self.starts, (i + 2,), c.get(self.starts, i + 1) + c.get(code.counts, i + 1))
            c.need(room >= 0)
        with c.k.when(c.ok), c.k.loop(i=count) as i:
            length = c.let("length", c.get(self.lengths, begin + i))
            with c.k.when(length > 0):
                place = c.let("place", c.get(self.starts, length))
                c.set(code.symbols, (apply("min", place, code.symbols.shape[0] - 1),), i)
                c.set(self.starts, (length,), place + 1)

    def _fixed(self) -> None:
        c = self.c
        with c.k.loop(i=320) as i:
            literal = select(i < 144, Index(t.i64, 8), select(i < 256, Index(t.i64, 9), Index(t.i64, 7)))
            eight = select(i < 280, literal, Index(t.i64, 8))
            c.set(self.lengths, (i,), select(i < 288, eight, Index(t.i64, 5)))
        self.build(self.literals, Index(t.i64, 0), Index(t.i64, 288))
        self.build(self.distances, Index(t.i64, 288), Index(t.i64, 30))

    def _described(self) -> None:
        """Codes whose lengths stand in the stream, coded themselves."""
        c = self.c
        literals = c.let("literals", self.take(5) + 257)
        distances = c.let("distances", self.take(5) + 1)
        given = c.let("given", self.take(4) + 4)
        c.need(both(literals <= 286, distances <= 30))
        c.fill(self.lengths)
        with c.k.loop(i=given) as i:
            c.set(self.lengths, (self.constant(_ORDER_AT, i),), self.take(3))
        self.build(self.literals, Index(t.i64, 0), Index(t.i64, 19))
        c.fill(self.lengths)
        filled = c.var("filled")
        total = c.let("total", literals + distances)
        with c.repeat(filled < total):
            symbol = self.symbol(self.literals)
            repeats, value = c.var("repeats", 1), c.var("value", symbol)
            with c.k.when(symbol.equals(16)):
                c.need(filled > 0)
                c.k.assign(value, c.get(self.lengths, apply("max", filled - 1, 0)))
                c.k.assign(repeats, self.take(2) + 3)
            with c.k.when(symbol >= 17):
                c.k.assign(value, 0)
                with c.k.when(symbol.equals(17)):
                    c.k.assign(repeats, self.take(3) + 3)
                with c.k.otherwise():
                    c.k.assign(repeats, self.take(7) + 11)
            c.need(filled + repeats <= total)
            with c.repeat(repeats > 0):
                c.set(self.lengths, (filled,), apply("min", apply("max", value, 0), 15))
                c.k.assign(filled, 1, "add")
                c.k.assign(repeats, repeats - 1)
        with c.k.when(c.ok):
            self.build(self.distances, literals, distances)
            self.build(self.literals, Index(t.i64, 0), literals)

    def run(self, put: Callable[[Expr], None], wants: Callable[[], Expr]) -> None:
        """Decodes a zlib stream as long as `wants()`, handing each byte to `put`; gives up where it ends before."""
        c = self.c
        method, flags = self.take(8), self.take(8)
        c.need(both((method % 16).equals(8), ((method * 256 + flags) % 31).equals(0), (flags // 32 % 2).equals(0)))
        written, last, in_block = c.var("written"), c.flag("last"), c.flag("in_block")
        stored, copied, distance = c.var("stored", -1), c.var("copied"), c.var("distance")
        with c.repeat(wants()):
            with c.k.when(negated(in_block)):
                c.need(negated(last))
                self._start_block(last, stored)
                c.k.assign(in_block, True)
            value = c.var("next_byte", -1)
            with c.k.when(c.ok & (copied > 0)):
                from_ = apply("and", written - distance, WINDOW - 1)
                c.k.assign(value, self._window(from_))
                c.k.assign(copied, copied - 1)
            with c.k.otherwise():
                with c.k.when(c.ok & (stored >= 0)):
                    with c.k.when(stored.equals(0)):
                        c.k.assign(in_block, False)
                        c.k.assign(stored, -1)
                    with c.k.otherwise():
                        c.k.assign(value, self.take(8))
                        c.k.assign(stored, stored - 1)
                with c.k.otherwise(), c.k.when(c.ok):
                    self._coded(value, copied, distance, in_block, written)
            with c.k.when(c.ok & (value >= 0)):
                self._remember(apply("and", written, WINDOW - 1), value)
                c.k.assign(written, 1, "add")
                put(value)

    def _start_block(self, last: Var, stored: Var) -> None:
        c = self.c
        c.k.assign(last, self.take(1).equals(1))
        kind = self.take(2)
        with c.k.when(kind.equals(0)):
            self.take(self.count % 8)
            length, check = self.take(16), self.take(16)
            c.need((length + check).equals(65535))
            c.k.assign(stored, length)
        with c.k.when(kind.equals(1)):
            self._fixed()
        with c.k.when(kind.equals(2)):
            self._described()
        c.need(kind < 3)

    def _coded(self, value: Var, copied: Var, distance: Var, in_block: Var, written: Var) -> None:
        """A literal, the end of a block, or a piece of what came before."""
        c = self.c
        symbol = self.symbol(self.literals)
        with c.k.when(symbol < 256):
            c.k.assign(value, symbol)
        with c.k.when(symbol.equals(256)):
            c.k.assign(in_block, False)
        with c.k.when(c.ok & (symbol > 256)):
            c.need(symbol < 286)
            which = c.let("which", apply("min", symbol - 257, 28))
            c.k.assign(copied, self.constant(_LENGTH_AT, which) + self.take(self.constant(_EXTRA_AT, which)))
            far = self.symbol(self.distances)
            c.need(far < 30)
            spread = c.let("spread", apply("max", apply("min", far, 29), 0))
            c.k.assign(distance, self.constant(_DISTANCE_AT, spread) + self.take(self.constant(_SPREAD_AT, spread)))
            c.need(distance <= written)

    def _window(self, place: Expr) -> Expr:
        assert self.c.work is not None
        return self.c.get(self.c.work, self.window_at + place)

    def _remember(self, place: Expr, value: Expr) -> None:
        assert self.c.work is not None
        self.c.set(self.c.work, (self.window_at + place,), value)
