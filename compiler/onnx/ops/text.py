"""String operators of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.control import label
from compiler.onnx.registry import onnx_op


@onnx_op("StringConcat", since=20)
def StringConcat(b: Any, x: Any, y: Any) -> Any:
    return b.string_concat(x, y)


@onnx_op("RegexFullMatch", since=20)
def RegexFullMatch(b: Any, x: Any, *, pattern: str = "") -> Any:
    return b.regex_full_match(x, pattern=pattern)


@onnx_op("StringSplit", since=20)
def StringSplit(b: Any, x: Any, *, delimiter: str = "", maxsplit: int = -1) -> Any:
    return b.string_split(x, delimiter=delimiter, limit=maxsplit, label=f"{label(b)}.parts")


@onnx_op("StringNormalizer", since=10)
def StringNormalizer(
    b: Any, x: Any, *, case_change_action: str = "NONE", is_case_sensitive: int = 0, locale: str = "",
    stopwords: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    return b.string_normalize(
        x, case=case_change_action, sensitive=bool(is_case_sensitive), stopwords=stopwords, label=f"{label(b)}.kept"
    )


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
