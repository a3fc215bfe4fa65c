"""Portable anymaps P1 to P6: bits, greys and colours, as text or as bytes, of any greatest value up to 65535."""

from __future__ import annotations

from ir import types as t
from ir.expr import Expr, Index, Var, select
from ir.ops.images.canvas import Canvas, between, both, either, negated, shr


class Header:
    """What the header says; `at` is the place behind it."""

    def __init__(self, c: Canvas) -> None:
        self.kind = c.let("kind", c.byte(1) - ord("0"))
        self.at = c.var("at", 2)
        self.is_text = self.kind <= 3
        self.is_bits = either(self.kind.equals(1), self.kind.equals(4))
        self.is_colour = either(self.kind.equals(3), self.kind.equals(6))
        found = []
        for name in ("columns", "lines", "most"):
            value = c.var(name, 1)
            with c.k.when(negated(self.is_bits)) if name == "most" else c.k.when(c.ok):
                number(c, self.at, value)
            found.append(value)
        self.width, self.height, self.most = found
        c.k.assign(self.at, 1, "add")  # one white space

    def is_sound(self) -> Expr:
        return both(between(self.width, 1, 1 << 20), between(self.height, 1, 1 << 20), between(self.most, 1, 65535))


def is_pnm(c: Canvas) -> Expr:
    return both(c.byte(0).equals(ord("P")), between(c.byte(1), ord("1"), ord("6")), is_white(c.byte(2)))


def is_white(value: Expr) -> Expr:
    return either(value.equals(32), between(value, 9, 13))


def skip(c: Canvas, at: Var) -> None:
    """Goes on to what is neither white space nor a comment."""
    comment = c.flag("comment")
    looks = c.flag("looks", True)
    with c.repeat(looks & (at < c.end)):
        value = c.let("letter", c.byte(at))
        with c.k.when(comment):
            with c.k.when(either(value.equals(10), value.equals(13))):
                c.k.assign(comment, False)
            c.k.assign(at, 1, "add")
        with c.k.otherwise():
            c.k.assign(comment, value.equals(ord("#")))
            with c.k.when(either(value.equals(ord("#")), is_white(value))):
                c.k.assign(at, 1, "add")
            with c.k.otherwise():
                c.k.assign(looks, False)


def number(c: Canvas, at: Var, value: Var) -> None:
    """Reads a number as text into `value`; gives up where there is none."""
    skip(c, at)
    digits = c.var("digits")
    c.k.assign(value, 0)
    with c.repeat(both(digits < 10, between(c.byte(at), ord("0"), ord("9")))):
        c.k.assign(value, value * 10 + (c.byte(at) - ord("0")))
        c.k.assign(at, 1, "add")
        c.k.assign(digits, 1, "add")
    c.need(digits > 0)


def decode(c: Canvas) -> None:
    """Writes the pixels of an anymap."""
    head = Header(c)
    c.need(head.is_sound())
    channels = c.let("channels", select(head.is_colour, Index(t.i64, 3), Index(t.i64, 1)))
    bytes_each = c.let("bytes_each", select(head.most > 255, Index(t.i64, 2), Index(t.i64, 1)))
    stride = c.let("stride", select(head.is_bits, (head.width + 7) // 8, head.width * channels * bytes_each))
    with c.k.when(negated(head.is_text)):
        c.need(head.at + stride * head.height <= c.end)
    samples = c.local("samples", 3)
    assert c.pixels is not None
    with c.k.loop(y=c.pixels.shape[0], x=c.pixels.shape[1]) as (y, x), c.k.when(c.ok):
        with c.k.loop(s=3) as s:
            value = c.var("value")
            with c.k.when(s < channels):
                with c.k.when(both(head.is_text, head.is_bits)):
                    skip(c, head.at)
                    c.k.assign(value, c.byte(head.at) - ord("0"))
                    c.k.assign(head.at, 1, "add")
                with c.k.when(both(head.is_text, negated(head.is_bits))):
                    number(c, head.at, value)
                with c.k.when(both(negated(head.is_text), head.is_bits)):
                    bits = c.byte(head.at + y * stride + x // 8)
                    c.k.assign(value, shr(bits, 7 - x % 8) % 2)
                with c.k.when(both(negated(head.is_text), negated(head.is_bits))):
                    place = c.let("place", head.at + y * stride + (x * channels + s) * bytes_each)
                    wide = c.number(place, 2, False)
                    c.k.assign(value, select(bytes_each.equals(2), wide, c.byte(place)))
                c.need(between(value, 0, head.most))
                c.set(samples, (s,), _scaled(c, head, value))
            with c.k.otherwise():
                c.set(samples, (s,), c.get(samples, Index(t.i64, 0)))
        c.put(y, x, *(c.get(samples, Index(t.i64, s)) for s in range(3)))


def _scaled(c: Canvas, head: Header, value: Expr) -> Expr:
    """A sample from 0 to 255. Bits are black where they are set; greys of two bytes keep their high byte."""
    twice = c.let("twice", value * 510 + head.most)
    half_up = c.let("half_up", twice // (head.most * 2))
    is_tie = both((twice % (head.most * 2)).equals(0), (half_up % 2).equals(1))
    rounded = half_up - select(is_tie, Index(t.i64, 1), Index(t.i64, 0))
    high = (value * 65535 * 2 + head.most) // (head.most * 2) // 256
    grey_of_two = both(head.most > 255, negated(head.is_colour))
    return select(head.is_bits, (1 - value) * 255, select(grey_of_two, high, rounded))


def size(c: Canvas) -> tuple[Expr, Expr]:
    """Height and width."""
    head = Header(c)
    c.need(head.is_sound())
    return head.height, head.width
