"""Operators on text held against ONNX Runtime, and StringNormalizer beyond the suite's cases."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.single_node import agrees, run


def array(*items: str) -> np.ndarray:
    return np.array(items, dtype=object)


TEXTS = array("a@b.com", "", "straße", "ab\n", "É1", "foo.bar@yahoo.com", "aXbx", "\U0001f600", "a\u00a0b", "x-1_2")


@pytest.mark.parametrize(
    "pattern",
    ["", ".*", r"[\w.]+@\w+\.com", "(?i)axBX", r"\pL+\d?", "[^a-z]+", "(a|b|é)*.", "(?s).{1,4}", r"[[:alpha:]\-_\d]+",
     r"^\S+$", r"\x{1F600}", "(a@b|foo[.]bar@yahoo)\\Q.com\\E", r"\w+\W\w+", r"\b.+\b\W?", r".\B.*\B"],
)  # fmt: skip
def test_regex_full_match(pattern: str) -> None:
    agrees("RegexFullMatch", [TEXTS.reshape(2, 5)], pattern=pattern)


@pytest.mark.parametrize("delimiter", ["", ",", "--", "é"])
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_string_split(delimiter: str, limit: int | None) -> None:
    """ONNX Runtime has no part of an empty string, and no space at the end of the last; onnx.reference has both."""
    x = array("a,b,,c", " d  e", "x,", ",", "x--y--é--z", "é", "  ", "one two  three four five").reshape(2, 4)
    agrees("StringSplit", [x], outputs=2, delimiter=delimiter, **({} if limit is None else {"maxsplit": limit}))


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("stopwords", [(), ("monday",), ("Apfel", "MONDAY", "x")])
def test_string_normalizer(action: str, sensitive: int, stopwords: tuple[str, ...]) -> None:
    """Of ASCII: other letters are changed by the locale of the machine in ONNX Runtime, which may not have any."""
    x = array("Monday", "monday", "APFEL", "zz top", "x")
    for operand in (x, x[None], array("monday")):
        options = {"case_change_action": action, "is_case_sensitive": sensitive, "stopwords": stopwords, "locale": "C"}
        agrees("StringNormalizer", [operand], **{k: v for k, v in options.items() if v != ()})


def test_letters_have_their_simple_other_case() -> None:
    x = array("ÄPFEL straße", "ДЖ ΟΔΟΣ", "İı", "ﬁ ŉ ᾳ ǆ")
    (lower,) = run("StringNormalizer", [x], case_change_action="LOWER")
    assert lower.tolist() == ["äpfel straße", "дж οδοσ", "iı", "ﬁ ŉ ᾳ ǆ"]
    (upper,) = run("StringNormalizer", [x], case_change_action="UPPER", stopwords=["äPFEL STRAßE"])
    assert upper.tolist() == ["ДЖ ΟΔΟΣ", "İI", "ﬁ ŉ ᾼ Ǆ"]


def test_nothing_left_is_one_empty_string() -> None:
    (y,) = run("StringNormalizer", [array("a", "A")], stopwords=["a"])
    assert y.tolist() == [""]
    (y,) = run("StringNormalizer", [np.zeros((1, 0), object)])
    assert y.tolist() == [[""]]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("low", "high", "skip"), [(1, 1, 0), (1, 2, 0), (2, 2, 3), (1, 3, 2)])
def test_tfidf_vectorizer(mode: str, weighted: bool, low: int, high: int, skip: int) -> None:
    rng = np.random.default_rng(low + high + skip)
    pool = [1, 2, 3, *(1, 2, 2, 3, 3, 1, 2, 2), *(1, 2, 3, 3, 2, 1)]
    options = {
        "pool_int64s": pool, "ngram_counts": [0, 3, 11], "ngram_indexes": rng.permutation(9).tolist(), "mode": mode,
        "min_gram_length": low, "max_gram_length": high, "max_skip_count": skip,
    }  # fmt: skip
    if weighted:
        options["weights"] = rng.integers(1, 9, 9).astype(float).tolist()
    for x in (rng.integers(0, 5, 12), rng.integers(0, 4, (3, 7)).astype(np.int32)):
        agrees("TfIdfVectorizer", [x], **options)
    strings = {**options, "pool_strings": [str(number) for number in pool]}
    del strings["pool_int64s"]
    agrees("TfIdfVectorizer", [rng.integers(0, 4, (2, 8)).astype(str).astype(object)], **strings)
