"""String operators of ai.onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.ops.indexing import nonzero
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import decide_eq, decide_le, maximum
from ir.op import OpError
from ir.ops.cell_pieces import simple_case


@onnx_op("StringConcat", since=20)
def StringConcat(b: Any, x: Any, y: Any) -> Any:
    return b.string_concat(x, y)


@onnx_op("RegexFullMatch", since=20)
def RegexFullMatch(b: Any, x: Any, *, pattern: str = "") -> Any:
    return b.regex_full_match(x, pattern=pattern)


@onnx_op("StringSplit", since=20)
def StringSplit(b: Any, x: Any, *, delimiter: str = "", maxsplit: int = -1) -> Any:
    return b.string_split(x, delimiter=delimiter, limit=maxsplit, size=b.run_time_size(x.rank))


@onnx_op("StringNormalizer", since=10)
def StringNormalizer(
    b: Any, x: Any, *, case_change_action: str = "NONE", is_case_sensitive: int = 0, locale: str = "",
    stopwords: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """Strings that are none of `stopwords`, in another case; one empty string if there is none. Letters change as in
    Unicode's simple mappings, whatever the locale."""
    if case_change_action not in ("NONE", "LOWER", "UPPER"):
        raise OpError(f"`case_change_action` is '{case_change_action}'; it must be NONE, LOWER or UPPER")
    if x.rank not in (1, 2) or (x.rank == 2 and decide_eq(x.shape[0], 1) is False):
        raise OpError(f"it takes [C] or [1,C], not {x.type}")
    axis, nothing = x.rank - 1, b.const(np.array([""], object))
    kept = b.reshape(x, shape=(x.shape[-1],)) if axis else x
    if stopwords:
        compared, words = kept, stopwords
        if not is_case_sensitive:
            compared = b.string_case(kept)
            words = tuple("".join(simple_case(letter, upper=False) for letter in word) for word in stopwords)
        words = b.const(np.array(list(dict.fromkeys(words)), object))
        ones = b.const(np.ones(words.shape[0], np.int64))
        keep = b.equal(b.lookup(compared, words, ones, b.const(np.array(0))), b.const(np.array(0)))
        # What is left is an empty string behind the others that is kept where no other is.
        count = b.reduce_sum(b.cast(keep, to=t.i64), axes=(0,), keepdims=True)
        keep = b.concat(keep, b.equal(count, b.const(np.array(0))), axis=0)
        places = nonzero(b, keep, lambda: b.run_time_size(axis))
        kept = b.gather(b.concat(kept, nothing, axis=0), b.reshape(places, shape=(places.shape[1],)), axis=0)
    elif decide_le(1, kept.shape[0]) is not True:
        kept = b.pad(kept, before=(0,), after=(maximum(kept.shape[0], 1) - kept.shape[0],))
    if case_change_action != "NONE":
        kept = b.string_case(kept, upper=case_change_action == "UPPER")
    return b.reshape(kept, shape=(1, kept.shape[0])) if axis else kept


@onnx_op("TfIdfVectorizer", since=9)
def TfIdfVectorizer(
    b: Any, x: Any, *, max_gram_length: int, max_skip_count: int, min_gram_length: int, mode: str,
    ngram_counts: tuple[int, ...], ngram_indexes: tuple[int, ...], pool_int64s: tuple[int, ...] = (),
    pool_strings: tuple[str, ...] = (), weights: tuple[float, ...] = (),
) -> Any:  # fmt: skip
    return b.count_ngrams(
        x, pool=pool_int64s or pool_strings, starts=ngram_counts, columns=ngram_indexes, shortest=min_gram_length,
        longest=max_gram_length, most_skipped=max_skip_count, mode=mode, weights=weights,
    )  # fmt: skip
