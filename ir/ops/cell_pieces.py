"""Parts of strings, and letters in another case, on cells of bytes (`ir.cells`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ir import cells
from ir import types as t
from ir.dims import Size, minimum
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, Index, Var, apply, cast, const, select
from ir.op import Op, case, define, op, require
from ir.ops.cells import byte, clear_from, example_cells, require_cells
from ir.types import TensorType

Piece = Callable[[Expr, Expr, Expr], None]
"""What is done with the number of a piece, its first byte and the byte behind its last."""


def split_text(text: str, delimiter: str, limit: int) -> list[str]:
    """The parts of a string between delimiters, or of what is not space where `delimiter` is empty."""
    return text.split(delimiter or None, limit)


def _space(x: Tensor, n: Expr, at: Expr) -> Expr:
    """The bytes of the space character at `at`, 0 where there is none. These are the spaces of Python's str.split."""
    first, second, third = (byte(x, n, at + offset) for offset in range(3))
    single = first.equals(32) | ((first >= 9) & (first <= 13)) | ((first >= 28) & (first <= 31))
    double = first.equals(0xC2) & (second.equals(0x85) | second.equals(0xA0))
    in_2000 = second.equals(0x80) & (
        ((third >= 0x80) & (third <= 0x8A)) | third.equals(0xA8) | third.equals(0xA9) | third.equals(0xAF)
    )
    general = first.equals(0xE2) & (in_2000 | (second.equals(0x81) & third.equals(0x9F)))
    ogham = first.equals(0xE1) & second.equals(0x9A) & third.equals(0x80)
    ideographic = first.equals(0xE3) & second.equals(0x80) & third.equals(0x80)
    triple = select(general | ogham | ideographic, 3, const(0, t.i64))
    return select(single, 1, select(double, 2, triple))


def _skip_spaces(k: KernelBuilder, x: Tensor, n: Expr, at: Var) -> None:
    with k.during(_space(x, n, at) > 0):
        k.assign(at, _space(x, n, at), "add")


def _each_word(k: KernelBuilder, x: Tensor, n: Expr, limit: int, piece: Piece) -> Expr:
    """Pieces between runs of spaces; gives their number."""
    at, count = k.variable("at", 0, t.i64), k.variable("count", 0, t.i64)
    _skip_spaces(k, x, n, at)
    with k.during(byte(x, n, at).differs(0)):
        start = k.let("start", at)
        going = k.variable("going", True, t.bool_)
        is_last = count.equals(limit)
        with k.during(going):
            k.assign(at, 1, "add")
            k.assign(going, byte(x, n, at).differs(0) & (is_last | _space(x, n, at).equals(0)))
        piece(count, start, at)
        k.assign(count, 1, "add")
        _skip_spaces(k, x, n, at)
    return count


def _each_part(k: KernelBuilder, x: Tensor, n: Expr, delimiter: bytes, limit: int, piece: Piece) -> Expr:
    """Pieces between delimiters; gives their number."""
    at, start = k.variable("at", 0, t.i64), k.variable("start", 0, t.i64)
    count, going = k.variable("count", 0, t.i64), k.variable("going", True, t.bool_)
    with k.during(going):
        splits = count.differs(limit)
        for offset, letter in enumerate(delimiter):
            splits = splits & byte(x, n, at + offset).equals(letter)
        k.assign(going, byte(x, n, at).differs(0))
        with k.when(splits | going.equals(False)):
            piece(count, start, at)
            k.assign(count, 1, "add")
            k.assign(at, len(delimiter), "add")
            k.assign(start, at)
        with k.otherwise():
            k.assign(at, 1, "add")
    return count


class _Splitting(Op):
    """Base of what walks over the pieces of strings."""

    delimiter: str
    limit: int

    def check(self, x: TensorType) -> None:
        require_cells(self.name, x)
        require("\0" not in self.delimiter, lambda: f"{self.name}: the delimiter holds a NUL character")

    def pieces(self, k: KernelBuilder, x: Tensor, n: Expr, piece: Piece) -> Expr:
        """Writes the loop over the pieces of string n; gives their number."""
        if not self.delimiter:
            return _each_word(k, x, n, self.limit, piece)
        return _each_part(k, x, n, self.delimiter.encode(), self.limit, piece)

    def most(self, width: Size) -> Size:
        """How many pieces a string of `width` bytes has at most."""
        size = len(self.delimiter.encode())
        found = width // size + 1 if size else (width + 1) // 2
        return found if self.limit < 0 else minimum(found, self.limit + 1)


_TEXTS = example_cells("a,b", "", ",", "ab", "a,,b,", " x\t y\u2003z\u00a0", "  ", "é, ü", "\x1f\x85a b  c ")


@op
class CountPieces(_Splitting):
    """Into how many pieces each string x[n] splits, as i64[n]; see `string_split`."""

    delimiter: str = ""
    limit: int = -1
    examples = [
        *(case(_TEXTS, delimiter=d, limit=n) for d, n in ((",", -1), (",", 1), ("", -1), ("", 1), (", ", -1), ("", 0))),
        case("u8[0,2]"),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        self.check(x)
        return TensorType(t.i64, x.shape[:1])

    def reference(self, x: np.ndarray) -> np.ndarray:
        rows = (split_text(text, self.delimiter, self.limit) for text in cells.decode(x).tolist())
        return np.array([len(row) for row in rows], np.int64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        with k.loop("parallel", n=x.shape[0]) as n:
            k.store(outs[0], (n,), self.pieces(k, x, n, lambda count, start, end: None))


@op
class FillPieces(_Splitting):
    """The pieces of each string x[n] as cells u8[n,size,W], empty strings behind the last; `most` is `size`."""

    defines = ("size",)
    size: Size
    delimiter: str = ""
    limit: int = -1
    examples = [
        case(_TEXTS, np.array(4), delimiter=",", size=4), case(_TEXTS, np.array(2), delimiter=",", limit=1, size=2),
        case(_TEXTS, np.array(3), size=3), case(_TEXTS, np.array(2), limit=1, size=2),
        case("u8[0,2]", np.array(0), size=0),
    ]  # fmt: skip

    def infer(self, x: TensorType, most: TensorType) -> TensorType:
        self.check(x)
        require(most == TensorType(t.i64, ()), lambda: f"fill_pieces: the number of pieces is {most}")
        define(self.size, self.most(x.shape[1]))
        return TensorType(t.u8, (x.shape[0], self.size, x.shape[1]))

    def reference(self, x: np.ndarray, most: np.ndarray) -> np.ndarray:
        out = np.full((len(x), int(most)), "", object)
        for row, text in zip(out, cells.decode(x).tolist()):
            parts = split_text(text, self.delimiter, self.limit)
            row[: len(parts)] = parts
        return cells.encode(out, x.shape[1])

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, most: Tensor) -> None:
        (out,) = outs
        with k.loop("parallel", n=x.shape[0]) as n:
            with k.loop(p=out.shape[1], j=out.shape[2]) as (p, j):
                k.store(out, (n, p, j), 0)

            def keep(count: Expr, start: Expr, end: Expr) -> None:
                with k.when(count < Index(t.i64, out.shape[1])), k.loop(b=end - start) as b:
                    k.store(out, (n, count, b), x.at(n, start + b))

            self.pieces(k, x, n, keep)


@functools.cache
def case_pairs(upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Code points from 128 on that are another one in upper (or lower) case, ascending, and these others, as i32."""
    return pairs_among((chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000), upper)


def pairs_among(letters: Iterable[str], upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """`case_pairs` of some letters only, which are given in ascending order."""
    pairs = [(ord(letter), ord(other)) for letter in letters if (other := simple_case(letter, upper)) != letter]
    return np.array([a for a, _ in pairs], np.int32), np.array([b for _, b in pairs], np.int32)


def simple_case(letter: str, upper: bool) -> str:
    """The one letter that Unicode gives as the other case of a letter: the letter itself where it is several."""
    if not upper:
        lower = letter.lower()
        return lower if len(lower) == 1 else "i"  # of U+0130 only
    forms = (letter.upper(), letter.title(), letter)
    return next(form for form in forms if len(form) == 1)


_WORDS = ("aB1", "ÀÉß ı", "Ⱥɐ\u2c65", "ДЖǅ𐐀", "", "İK")


@op
class CaseCells(Op):
    """The strings x[n] in lower case, or in upper case where `upper`, letter by letter, cells u8[n,W+W//2].

    `letters` and `others` are `case_pairs`; none of `others` takes more than half as many bytes again.
    """

    upper: bool = False
    examples = [
        case(example_cells(*_WORDS), *pairs_among(sorted({*"".join(_WORDS)} - {*"aB1 K"}), upper), upper=upper)
        for upper in (False, True)
    ] + [case(np.array([[0xC3, 0x41], [0xE2, 0], [0x80, 0xC3]], np.uint8), *pairs_among("àé", True))]

    def infer(self, x: TensorType, letters: TensorType, others: TensorType) -> TensorType:
        require_cells("case_cells", x)
        is_table = letters == others and letters.dtype == t.i32 and letters.rank == 1
        require(is_table, lambda: f"case_cells: a table of {letters} and {others}")
        return TensorType(t.u8, (x.shape[0], x.shape[1] + x.shape[1] // 2))

    def reference(self, x: np.ndarray, letters: np.ndarray, others: np.ndarray) -> np.ndarray:
        table = {chr(a): chr(b) for a, b in zip(letters.tolist(), others.tolist())}

        def other(letter: str) -> str:
            ascii_case = letter.upper() if self.upper else letter.lower()
            return table.get(letter, ascii_case if ord(letter) < 128 else letter)

        texts = [row.decode("utf-8", "surrogateescape") for row in cells.rows(x)]
        changed = ["".join(map(other, text)).encode("utf-8", "surrogateescape") for text in texts]
        return cells.from_rows(changed, x.shape[1] + x.shape[1] // 2)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, letters: Tensor, others: Tensor) -> None:
        (out,) = outs
        with k.loop("parallel", n=x.shape[0]) as n:
            at, end = k.variable("at", 0, t.i64), k.variable("end", 0, t.i64)

            def put(value: Expr) -> None:
                k.store(out, (n, end), cast(value, t.u8))
                k.assign(end, 1, "add")

            with k.during(byte(x, n, at).differs(0)):
                first = k.let("first", byte(x, n, at))
                with k.when(first < 128):
                    low, high, step = (97, 122, -32) if self.upper else (65, 90, 32)
                    put(select((first >= low) & (first <= high), first + step, first))
                    k.assign(at, 1, "add")
                with k.otherwise():
                    size, code = _code_point(k, x, n, at, first)
                    found = _other(k, code, letters, others)
                    with k.when(found < 0), k.loop(b=size) as b:
                        put(byte(x, n, at + b))
                    with k.otherwise():
                        _put_code_point(k, found, put)
                    k.assign(at, size, "add")
            clear_from(k, out, n, end)


def _code_point(k: KernelBuilder, x: Tensor, n: Expr, at: Expr, first: Expr) -> tuple[Expr, Expr]:
    """How many bytes the character at `at` has, and its code point; 1 and 0 where it is none."""
    size = k.variable("size", select(first >= 0xF0, 4, select(first >= 0xE0, 3, select(first >= 0xC0, 2, 1))), t.i64)
    code = k.variable("code", first & (apply("shr", const(0x7F, t.i64), size)), t.i64)
    intact = k.variable("intact", size > 1, t.bool_)
    with k.loop(b=size - 1) as b:
        following = byte(x, n, at + 1 + b)
        k.assign(intact, intact & (following & 0xC0).equals(0x80))
        k.assign(code, code * 64 + (following & 0x3F))
    k.assign(size, select(intact, size, 1))
    k.assign(code, select(intact, code, 0))
    return size, code


def _other(k: KernelBuilder, code: Expr, letters: Tensor, others: Tensor) -> Expr:
    """The other case of a code point, -1 where it has none."""
    low, high = k.variable("low", 0, t.i64), k.variable("high", Index(t.i64, letters.shape[0]), t.i64)
    found = k.variable("found", -1, t.i64)
    with k.during(low < high):
        middle = k.let("middle", (low + high) // 2)
        letter = k.let("letter", cast(letters.at(middle), t.i64))
        with k.when(letter.equals(code)):
            k.assign(found, cast(others.at(middle), t.i64))
        k.assign(low, select(letter < code, middle + 1, low))
        k.assign(high, select(letter < code, high, select(letter > code, middle, low)))
    return found


def _put_code_point(k: KernelBuilder, code: Expr, put: Callable[[Expr], None]) -> None:
    """Writes a code point as UTF-8."""

    def tail(places: int) -> Expr:
        return (code // (64**places)) % 64 + 0x80

    with k.when(code < 0x80):
        put(code)
    with k.otherwise():
        with k.when(code < 0x800):
            put(code // 64 + 0xC0)
        with k.otherwise():
            with k.when(code < 0x10000):
                put(code // 4096 + 0xE0)
            with k.otherwise():
                put(code // 262144 + 0xF0)
                put(tail(2))
            put(tail(1))
        put(tail(0))


def change_case(b: Any, x: Any, upper: bool) -> Any:
    """Rows of cells in another case."""
    letters, others = case_pairs(upper)
    return b.case_cells(x, b.const(letters), b.const(others), upper=upper)
