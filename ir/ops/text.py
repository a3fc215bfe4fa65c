"""Strings: joining, splitting, matching, normalising, and counting of n-grams. Only a graph interpreter runs these."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, symbol
from ir.op import Op, OpError, case, ints, op, require
from ir.ops.cells import in_rows
from ir.ops.elementwise import broadcast_shapes
from ir.types import TensorType

floats = tuple[float, ...]
words = tuple[str, ...]


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
    """Whether the whole of each string matches `pattern`."""

    structural = True
    pattern: str = ""

    def infer(self, x: TensorType) -> TensorType:
        _require_strings("regex_full_match", x)
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise OpError(f"regex_full_match: `{self.pattern}` is no pattern: {error}") from error
        return x.with_dtype(t.bool_)

    def reference(self, x: np.ndarray) -> np.ndarray:
        found = [re.fullmatch(self.pattern, text) is not None for text in texts(x)]
        return np.array(found, np.bool_).reshape(x.shape)


@op
class StringSplit(Op):
    """The parts of each string along a new last axis, and their number.

    What parts them is `delimiter`, or runs of spaces where it is empty; at most `limit` splits are made, if it is not
    negative. Rows are filled with empty strings; their length is the symbol `label`.
    """

    structural = True
    delimiter: str = ""
    limit: int = -1
    label: str = "parts"

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        _require_strings("string_split", x)
        return x.with_shape((*x.shape, symbol(self.label))), x.with_dtype(t.i64)

    def reference(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [text.split(self.delimiter or None, self.limit) for text in texts(x)]
        width = max((len(row) for row in rows), default=0)
        flat = [part for row in rows for part in [*row, *[""] * (width - len(row))]]
        counts = np.array([len(row) for row in rows], np.int64).reshape(x.shape)
        return string_array(flat, (*x.shape, width)), counts


@op
class StringNormalize(Op):
    """The strings of the last axis that are none of `stopwords`, in another case. One empty string if none is left.

    `case` is "NONE", "LOWER" or "UPPER"; stopwords match in any case unless `sensitive`. The number left is the symbol
    `label`.
    """

    structural = True
    case: str = "NONE"
    sensitive: bool = False
    stopwords: words = ()
    label: str = "kept"

    def infer(self, x: TensorType) -> TensorType:
        _require_strings("string_normalize", x)
        require(x.rank == 1 or (x.rank == 2 and x.shape[0] == 1), lambda: f"string_normalize does not take {x}")
        require(self.case in ("NONE", "LOWER", "UPPER"), lambda: f"string_normalize: case '{self.case}'")
        return x.with_shape((*x.shape[:-1], symbol(self.label)))

    def reference(self, x: np.ndarray) -> np.ndarray:
        change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}[self.case]
        stop = set(self.stopwords) if self.sensitive else {word.lower() for word in self.stopwords}
        kept = [text for text in texts(x) if (text if self.sensitive else text.lower()) not in stop]
        made = [change(text) for text in kept] or [""]
        return string_array(made, (*x.shape[:-1], len(made)))


@op
class CountNgrams(Op):
    """How often each n-gram of a pool occurs in each row, with gaps of up to `most_skipped` items; f32[..., width].

    `pool` holds n-grams one after the other, those of n = 1 from starts[0] on, of n = 2 from starts[1] on, and so on.
    The count of the i-th goes to column columns[i]. Only lengths `shortest` to `longest` are counted. `mode` is "TF"
    (counts), "IDF" (`weights` where there are any) or "TFIDF" (their product).
    """

    structural = True
    pool: tuple[int | str, ...] = ()
    starts: ints = ()
    columns: ints = ()
    shortest: int = 1
    longest: int = 1
    most_skipped: int = 0
    mode: str = "TF"
    weights: floats = ()

    @property
    def width(self) -> int:
        return max(self.columns, default=-1) + 1

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_integer or x.dtype == t.string, lambda: f"count_ngrams does not take {x}")
        require(1 <= x.rank <= 2, lambda: f"count_ngrams does not take {x}")
        require(self.mode in ("TF", "IDF", "TFIDF"), lambda: f"count_ngrams: mode '{self.mode}'")
        require(len(self.weights) in (0, len(self.columns)), "count_ngrams: there must be as many weights as n-grams")
        shape: tuple[Size, ...] = (*x.shape[:-1], self.width)
        return TensorType(t.f32, shape)

    def ngrams(self) -> dict[tuple[Any, ...], int]:
        """The number of each n-gram of the pool, for the lengths that are counted."""
        found: dict[tuple[Any, ...], int] = {}
        number = 0
        for n, start in enumerate(self.starts, 1):
            end = self.starts[n] if n < len(self.starts) else len(self.pool)
            for at in range(start, end - n + 1, n):
                if self.shortest <= n <= self.longest:
                    found[self.pool[at : at + n]] = number
                number += 1
        return found

    def reference(self, x: np.ndarray) -> np.ndarray:
        ngrams = self.ngrams()
        items: list[Any] = texts(x) if x.dtype == object else x.ravel().tolist()
        size = x.shape[-1]
        rows = [items[i * size : (i + 1) * size] for i in range(len(items) // size if size else x.size)]
        out = np.zeros((len(rows) if size else int(np.prod(x.shape[:-1])), self.width), np.float32)
        for row, counts in zip(rows, out):
            for n in range(self.shortest, self.longest + 1):
                for step in range(1, self.most_skipped + 2 if n > 1 else 2):
                    for first in range(len(row) - (n - 1) * step):
                        number = ngrams.get(tuple(row[first : first + (n - 1) * step + 1 : step]))
                        if number is not None:
                            counts[self.columns[number]] += 1
        if self.mode != "TF" and self.weights:
            factors = np.ones(self.width, np.float32)
            factors[list(self.columns)] = self.weights
            out = (out if self.mode == "TFIDF" else (out > 0).astype(np.float32)) * factors
        elif self.mode == "IDF":
            out = (out > 0).astype(np.float32)
        return out.reshape((*x.shape[:-1], self.width)).astype(np.float32)
