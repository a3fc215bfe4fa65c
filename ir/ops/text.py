"""Strings: joining, splitting, matching, letters in another case; and counting of n-grams, of numbers as well.

Only a graph interpreter runs ops on strings as they are; without strings they are what their `on_cells` says.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ir import types as t
from ir.automaton import automaton
from ir.dims import Size
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Index, select
from ir.op import Op, OpError, case, define, ints, op, require
from ir.ops.cell_pieces import change_case, simple_case, split_text
from ir.ops.cells import in_rows
from ir.ops.elementwise import broadcast_shapes
from ir.regex import RegexError, parse, python_pattern
from ir.types import TensorType

floats = tuple[float, ...]


def texts(x: np.ndarray) -> list[str]:
    """The strings of an array in row-major order; bytes are decoded."""
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in x.ravel().tolist()]


def string_array(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out.reshape(shape)


def _require_strings(what: str, *xs: TensorType) -> None:
    for x in xs:
        if x.dtype != t.string:
            raise OpError(f"{what} does not take {x}")


@op
class StringConcat(Op):
    """a followed by b, with broadcasting."""

    structural = True
    examples = [
        case("string[2,3]", "string[2,3]"), case("string[2,1]", "string[3]"), case("string[]", "string[]"),
        case(np.array(["", "é"], object), np.array(["x", ""], object)), case("string[0,2]", "string[2]"),
    ]  # fmt: skip

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        _require_strings("string_concat", a, b)
        return TensorType(t.string, broadcast_shapes(a.shape, b.shape, stretches=True))

    def reference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.broadcast_arrays(a, b)
        return string_array([x + y for x, y in zip(texts(a), texts(b))], a.shape)

    def on_cells(self, b: Any, x: Any, y: Any) -> Any:
        shape = broadcast_shapes(x.shape[:-1], y.shape[:-1], stretches=True)
        joined = b.concat_cells(in_rows(b, x, shape), in_rows(b, y, shape))
        return b.reshape(joined, shape=(*shape, joined.shape[1]))


@op
class RegexFullMatch(Op):
    """Whether the whole of each string matches `pattern`, which is in the syntax of RE2 (see `ir.regex`)."""

    structural = True
    pattern: str = ""
    examples = [
        case(np.array([["a@b.com", "@b.com"], ["a@b.org", ""]], object), pattern=r"[\w.]+@b\.(com|net)"),
        case(np.array(["é", "e\n", "ée", "\U0001f600"], object), pattern="."),
        case(np.array("aXbx", object), pattern="(?i)(AX|bX){2}$"), case("string[3]", pattern=""), case("string[0]"),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        _require_strings("regex_full_match", x)
        try:
            parse(self.pattern)
        except RegexError as error:
            raise OpError(f"regex_full_match: {error}") from error
        return x.with_dtype(t.bool_)

    def reference(self, x: np.ndarray) -> np.ndarray:
        whole = re.compile(python_pattern(parse(self.pattern)))
        found = [whole.fullmatch(text) is not None for text in texts(x)]
        return np.array(found, np.bool_).reshape(x.shape)

    def on_cells(self, b: Any, x: Any) -> Any:
        made = automaton(self.pattern)
        tables = (b.const(made.classes), b.const(made.table), b.const(made.accepts))
        return b.reshape(b.walk_cells(in_rows(b, x), *tables), shape=x.shape[:-1])


@op
class StringSplit(Op):
    """The parts of each string along a new last axis, and their number.

    What parts them is `delimiter`, or runs of spaces where it is empty; at most `limit` splits are made, if it is not
    negative. Rows are filled with empty strings; their length is `size`.
    """

    structural = True
    defines = ("size",)
    size: Size
    delimiter: str = ""
    limit: int = -1
    examples = [
        case(np.array([["a b c", " d "], ["", "e\tf"]], object), size=3),
        case(np.array("a,b,,c", object), delimiter=",", size=4),
        case(np.array(["a--b--c", "--", "é--"], object), delimiter="--", limit=1, size=2),
        case("string[0]", size=0),
    ]

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        _require_strings("string_split", x)
        define(self.size, None if self.limit < 0 else self.limit + 1)
        return x.with_shape((*x.shape, self.size)), x.with_dtype(t.i64)

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [split_text(text, self.delimiter, self.limit) for text in texts(x)]
        width = max((len(row) for row in rows), default=0)
        flat = [part for row in rows for part in [*row, *[""] * (width - len(row))]]
        counts = np.array([len(row) for row in rows], np.int64).reshape(x.shape)
        return string_array(flat, (*x.shape, width)), counts

    def on_cells(self, b: Any, x: Any) -> Any:
        rows, shape = in_rows(b, x), x.shape[:-1]
        counts = b.count_pieces(rows, delimiter=self.delimiter, limit=self.limit)
        most = b.max(b.reduce_max(counts, axes=(0,), keepdims=False), b.const(np.array(0)))
        parts = b.fill_pieces(rows, most, size=self.size, delimiter=self.delimiter, limit=self.limit)
        return b.reshape(parts, shape=(*shape, *parts.shape[1:])), b.reshape(counts, shape=shape)


@op
class StringCase(Op):
    """Strings in lower case, or in upper case where `upper`, letter by letter: one that has no single other stays."""

    structural = True
    upper: bool = False
    examples = [
        case(np.array([["aBc", "ÄÖß"], ["ДЖı", ""]], object)), case(np.array("ⱥ ɐ ǆ ﬁ", object), upper=True),
        case("string[0]"),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        _require_strings("string_case", x)
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return string_array(["".join(simple_case(c, self.upper) for c in text) for text in texts(x)], x.shape)

    def on_cells(self, b: Any, x: Any) -> Any:
        made = change_case(b, in_rows(b, x), self.upper)
        return b.reshape(made, shape=(*x.shape[:-1], made.shape[1]))


@op
class CountNgrams(Op):
    """How often each n-gram of a pool occurs in each row, with gaps of up to `most_skipped` items; f32[..., width].

    `pool` holds n-grams one after the other, those of n = 1 from starts[0] on, of n = 2 from starts[1] on, and so on.
    The count of the i-th goes to column columns[i]. Only lengths `shortest` to `longest` are counted. `mode` is "TF"
    (counts), "IDF" (`weights` where there are any) or "TFIDF" (their product).
    """

    pool: tuple[int | str, ...] = ()
    starts: ints = ()
    columns: ints = ()
    shortest: int = 1
    longest: int = 1
    most_skipped: int = 0
    mode: str = "TF"
    weights: floats = ()
    examples = [
        *(
            case(np.array([[1, 1, 3, 3, 3, 7], [8, 6, 7, 5, 6, 8]], np.int32), pool=(2, 3, 5, 4, 5, 6, 7, 8, 6, 7),
                 starts=(0, 4), columns=(0, 1, 2, 3, 4, 5, 6), shortest=low, longest=2, most_skipped=skip, mode=mode,
                 weights=(1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 4.0))
            for low, skip, mode in ((1, 0, "TF"), (2, 5, "TF"), (1, 1, "TFIDF"), (1, 3, "IDF"))
        ),
        case(np.array(["a", "b", "a", "c"], object), pool=("a", "b", "a", "b", "c", "a"), starts=(0, 2),
             columns=(3, 0, 1, 1), longest=2, most_skipped=1),
        case("i64[0]", pool=(1, 2), starts=(0,), columns=(0, 1)), case("i64[3]"),
        case("i64[2,0]", pool=(1,), starts=(0,), columns=(0,)),
    ]  # fmt: skip

    @property
    def width(self) -> int:
        return max(self.columns, default=-1) + 1

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_integer or x.dtype == t.string, lambda: f"count_ngrams does not take {x}")
        require(1 <= x.rank <= 2, lambda: f"count_ngrams does not take {x}")
        require(self.mode in ("TF", "IDF", "TFIDF"), lambda: f"count_ngrams: mode '{self.mode}'")
        require(len(self.weights) in (0, len(self.columns)), "count_ngrams: there must be as many weights as n-grams")
        fits = all(number < len(self.columns) for _, number in self.ngrams()) and all(c >= 0 for c in self.columns)
        require(fits, "count_ngrams: there must be a column for each n-gram, from 0 on")
        kinds = {type(item) for item in self.pool}
        require(kinds <= {str if x.dtype == t.string else int}, lambda: f"count_ngrams: the pool does not suit {x}")
        return TensorType(t.f32, (*x.shape[:-1], self.width))

    def ngrams(self) -> list[tuple[tuple[Any, ...], int]]:
        """The n-grams of the pool that are counted, each with its number in the pool; of equal ones the last."""
        found: dict[tuple[Any, ...], int] = {}
        number = 0
        for n, start in enumerate(self.starts, 1):
            end = self.starts[n] if n < len(self.starts) else len(self.pool)
            for at in range(start, end - n + 1, n):
                if self.shortest <= n <= self.longest:
                    found[self.pool[at : at + n]] = number
                number += 1
        return list(found.items())

    def reference(self, x: np.ndarray) -> np.ndarray:
        ngrams = dict(self.ngrams())
        items: list[Any] = texts(x) if x.dtype == object else x.ravel().tolist()
        size, count = x.shape[-1], int(np.prod(x.shape[:-1]))
        out = np.zeros((count, self.width), np.float32)
        for i, counts in enumerate(out):
            row = items[i * size : (i + 1) * size]
            for n in range(self.shortest, self.longest + 1):
                for step in range(1, self.most_skipped + 2 if n > 1 else 2):
                    for first in range(len(row) - (n - 1) * step):
                        number = ngrams.get(tuple(row[first : first + (n - 1) * step + 1 : step]))
                        if number is not None:
                            counts[self.columns[number]] += 1
        if self.mode != "TF":
            factors = self._factors()
            out = (out if self.mode == "TFIDF" else (out > 0).astype(np.float32)) * factors
        return out.reshape((*x.shape[:-1], self.width)).astype(np.float32)

    def _factors(self) -> np.ndarray:
        factors = np.ones(self.width, np.float32)
        if self.weights:
            factors[list(self.columns)] = self.weights
        return factors

    def expand(self, b: Any, x: Any) -> Any:
        """Items as numbers of a vocabulary; the n-grams of each length among them; what `mode` makes of the counts."""
        ngrams = self.ngrams()
        words = list(dict.fromkeys(word for ngram, _ in ngrams for word in ngram))
        numbers = {word: number for number, word in enumerate(words)}
        wide = x if x.dtype == t.string else b.cast(x, to=t.i64)
        keys = np.array(words, object if x.dtype == t.string else np.int64)
        ids = b.lookup(wide, b.const(keys), b.const(np.arange(len(words))), b.const(np.array(-1)))
        rows = ids if x.rank == 2 else b.reshape(ids, shape=(1, x.shape[0]))
        total = b.full(shape=(rows.shape[0], self.width), value=0.0, dtype=t.f32)
        for n in range(self.shortest, self.longest + 1):
            found = sorted(
                ([numbers[word] for word in ngram], self.columns[at]) for ngram, at in ngrams if len(ngram) == n
            )
            if found:
                grams, columns = (np.array(list(part)) for part in zip(*found))
                skips = self.most_skipped if n > 1 else 0
                counts = b.count_grams(rows, b.const(grams), b.const(columns), width=self.width, most_skipped=skips)
                total = b.add(total, counts)
        if self.mode != "TF":
            once = b.cast(b.greater(total, b.const(0.0, t.f32)), to=t.f32)
            total = b.mul(total if self.mode == "TFIDF" else once, b.const(self._factors()))
        return total if x.rank == 2 else b.reshape(total, shape=(self.width,))


@op
class CountGrams(Op):
    """How often each row of `grams`, numbers that ascend, occurs in each row of x, with gaps of up to `most_skipped`.

    The count of grams[i] goes to columns[i] of f32[rows,width].
    """

    width: int
    most_skipped: int = 0
    examples = [
        case(np.array([[0, 1, 0, 1, -1], [1, 1, 1, 0, 0]]), np.array([[0, 1], [1, 1]]), np.array([2, 0]), width=3),
        case(np.array([[0, 1, 0, 1, 2]]), np.array([[0, 0], [0, 1], [1, 2]]), np.array([0, 1, 1]), width=2,
             most_skipped=7),
        case("i64[2,0]", np.array([[0]]), np.array([0]), width=1),
    ]  # fmt: skip

    def infer(self, x: TensorType, grams: TensorType, columns: TensorType) -> TensorType:
        fits = x.rank == 2 and x.dtype == grams.dtype == columns.dtype == t.i64 and grams.rank == 2
        require(fits and columns.shape == grams.shape[:1], lambda: f"count_grams of {grams}, {columns} in {x}")
        return TensorType(t.f32, (x.shape[0], self.width))

    def reference(self, x: np.ndarray, grams: np.ndarray, columns: np.ndarray) -> np.ndarray:
        out, n = np.zeros((len(x), self.width), np.float32), grams.shape[1]
        for row, counts in zip(x, out):
            for step in range(1, self.most_skipped + 2):
                for first in range(len(row) - (n - 1) * step):
                    for gram, column in zip(grams, columns):
                        counts[column] += np.array_equal(row[first : first + (n - 1) * step + 1 : step], gram)
        return out

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, grams: Tensor, columns: Tensor) -> None:
        (out,), n = outs, grams.shape[1]
        assert isinstance(n, int)
        with k.loop("parallel", r=x.shape[0]) as r:
            with k.loop(c=self.width) as c:
                k.store(out, (r, c), 0.0)
            with k.loop(s=self.most_skipped + 1) as s, k.loop(f=Index(t.i64, x.shape[1]) - (s + 1) * (n - 1)) as f:
                low, high = k.variable("low", 0, t.i64), k.variable("high", Index(t.i64, grams.shape[0]), t.i64)
                with k.during(low < high):
                    middle = k.let("middle", (low + high) // 2)
                    order = k.variable("order", 0, t.i64)
                    with k.loop(j=n) as j:
                        theirs, own = grams.at(middle, j), x.at(r, f + j * (s + 1))
                        k.assign(
                            order,
                            select(order.equals(0), select(theirs < own, -1, select(theirs > own, 1, order)), order),
                        )
                    with k.when(order.equals(0)):
                        k.store(out, (r, columns.at(middle)), 1.0, "add")
                    k.assign(low, select(order < 0, middle + 1, low))
                    k.assign(high, select(order < 0, high, select(order > 0, middle, low)))
