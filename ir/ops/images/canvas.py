"""What the decoders of images share: bytes read by position, pixels written by place, and whether all is well.

Streams are hostile. A read beyond the end gives 0, a pixel outside of the image is not written, and the loops that a
decoder writes end with the image or with the stream. Numbers are i64 throughout; their sums stay far from its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ir import types as t
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, Index, Operand, Var, apply, as_expr, cast, select
from ir.ops.indexing import nest
from ir.types import TensorType

WORK_ROWS, WORK_COLUMNS, WORK_EXTRA = 32, 32, 1 << 15
"""The work memory of an image has 4 numbers for every pixel of a frame this much larger, and some more."""


def both(*conditions: Expr) -> Expr:
    """Whether all hold; later ones are not looked at where an earlier one fails."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = result & condition
    return result


def either(*conditions: Expr) -> Expr:
    result = conditions[0]
    for condition in conditions[1:]:
        result = result | condition
    return result


def negated(condition: Expr) -> Expr:
    return apply("not", condition)


def shl(value: Expr, by: Operand) -> Expr:
    return apply("shl", value, by)


def shr(value: Expr, by: Operand) -> Expr:
    return apply("shr", value, by)


def between(value: Expr, low: Operand, high: Operand) -> Expr:
    """low <= value <= high"""
    return (value >= low) & (value <= high)


class Canvas:
    """A kernel that decodes `data` into `pixels` (none: it only finds the size), and uses `work` as memory."""

    def __init__(
        self, k: KernelBuilder, data: Tensor, pixels: Output | None = None, work: Output | None = None
    ) -> None:
        self.k = k
        self.data = data
        self.pixels = pixels
        self.work = work
        self.end = Index(t.i64, data.shape[0])
        self.ok = k.variable("ok", True, t.bool_)

    @property
    def height(self) -> Expr:
        assert self.pixels is not None
        return Index(t.i64, self.pixels.shape[0])

    @property
    def width(self) -> Expr:
        assert self.pixels is not None
        return Index(t.i64, self.pixels.shape[1])

    def fail(self) -> None:
        """Gives up: nothing of the image counts."""
        self.k.assign(self.ok, False)

    def need(self, condition: Expr) -> None:
        """Gives up unless the condition holds."""
        with self.k.when(negated(condition)):
            self.fail()

    # Bytes.

    def byte(self, at: Operand) -> Expr:
        """The byte at a position; 0 outside of the stream."""
        return cast(self.data.at(at, outside=0), t.i64)

    def number(self, at: Expr, size: int, little: bool | Expr) -> Expr:
        """An unsigned number of `size` bytes; `little` says whether the least comes first."""
        if isinstance(little, Expr):
            return select(little, self.number(at, size, True), self.number(at, size, False))
        result: Expr = Index(t.i64, 0)
        for place in range(size):
            result = result + self.byte(at + place) * (256 ** (place if little else size - 1 - place))
        return result

    def matches(self, text: bytes, at: Operand = 0) -> Expr:
        """Whether these bytes stand at a position."""
        start = as_expr(at, t.i64)
        return both(*(self.byte(start + i).equals(value) for i, value in enumerate(text)))

    # Variables and memory.

    def var(self, name: str, value: Operand = 0) -> Var:
        return self.k.variable(name, value, t.i64)

    def flag(self, name: str, value: bool | Expr = False) -> Var:
        return self.k.variable(name, value, t.bool_)

    def let(self, name: str, value: Operand) -> Expr:
        return self.k.let(name, value)

    def local(self, name: str, *shape: int) -> Output:
        """A small table of i32."""
        return self.k.local(name, TensorType(t.i32, shape))

    def get(self, table: Tensor, *index: Expr) -> Expr:
        return cast(table.at(*index), t.i64)

    def set(self, table: Output, index: tuple[Operand, ...], value: Operand) -> None:
        number = value if not isinstance(value, Expr) else cast(value, table.dtype)
        self.k.store(table, index, number)

    def fill(self, table: Output, value: int = 0) -> None:
        """Every entry of a table set to a value."""
        with nest(self.k, table.shape) as index:
            self.set(table, index, value)

    @contextmanager
    def repeat(self, condition: Expr) -> Iterator[None]:
        """A loop as long as all is well and the condition holds."""
        with self.k.during(self.ok & condition):
            yield

    # Codes.

    def huffman_symbol(
        self,
        bit: Callable[[], Expr],
        longest: int,
        words: Callable[[Expr], Expr],
        symbols: Callable[[Expr], Expr],
    ) -> Expr:
        """The next symbol of a canonical Huffman code; gives up where the bits are no word of it.

        Args:
            bit: Takes the next bit of the stream.
            longest: The most bits of a word.
            words: How many words of a length there are.
            symbols: The symbol at a place, all sorted by their words; asked for places beyond the last one too.
        """
        word, first, place = self.var("word"), self.var("first"), self.var("place")
        length, symbol = self.var("length"), self.var("symbol", -1)
        with self.repeat(both(symbol < 0, length < longest)):
            self.k.assign(length, 1, "add")
            self.k.assign(word, word * 2 + bit())
            self.k.assign(first, first * 2)
            count = self.let("words", words(length))
            with self.k.when(between(word - first, 0, count - 1)):
                self.k.assign(symbol, symbols(place + (word - first)))
            self.k.assign(place, count, "add")
            self.k.assign(first, count, "add")
        self.need(symbol >= 0)
        return symbol

    # Pixels.

    def put(self, y: Expr, x: Expr, red: Expr, green: Expr, blue: Expr) -> None:
        """Writes a pixel, whose colours are from 0 to 255, where it lies inside of the image."""
        assert self.pixels is not None
        inside = both(y >= 0, y < self.height, x >= 0, x < self.width)
        with self.k.when(inside):
            for channel, value in enumerate((red, green, blue)):
                self.k.store(self.pixels, (y, x, channel), cast(value, t.u8))

    def grey(self, y: Expr, x: Expr, value: Expr) -> None:
        self.put(y, x, value, value, value)


__all__ = ["Canvas", "between", "both", "either", "negated", "shl", "shr"]
