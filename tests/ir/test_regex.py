"""Regular expressions: what they match, as Python's own engine and as bytes, and what is refused with which words."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.automaton import automaton, byte_ranges
from ir.regex import RegexError, normal, parse, python_pattern

ALPHABET = "ab0 é\n\u20ac\U0001f600"


def matches(pattern: str, text: str) -> bool:
    """What both ways of matching say, which must agree."""
    found = automaton(pattern).matches(text.encode())
    assert found == (re.fullmatch(python_pattern(parse(pattern)), text) is not None), (pattern, text)
    return found


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", [""], ["a"]),
        ("a|b|", ["a", "b", ""], ["ab", "c"]),
        ("(?:ab)+c?", ["ab", "ababc"], ["", "abc ", "c"]),
        ("a{2,3}?", ["aa", "aaa"], ["a", "aaaa"]),
        ("a{,2}", ["a{,2}"], ["a", "aa"]),
        ("a{2", ["a{2"], ["aa"]),
        ("a{02}", ["a{02}"], ["aa"]),
        ("a{2}{1,03}", ["aa{1,03}"], ["aaaa"]),
        ("[^a-c]", ["d", "é", "\n"], ["a", "", "dd"]),
        ("[]a]+", ["]a", "a"], ["b"]),
        ("[a\\-z]", ["-", "a", "z"], ["b"]),
        ("[a-]", ["-", "a"], ["b"]),
        ("[[:alpha:][:^ascii:]]+", ["aé"], ["1", ""]),
        ("\\d\\D\\w\\W\\s\\S", ["0a_- x"], ["٣a_- x", "0a_-\u000bx"]),
        ("\\x41\\x{e9}\\101\\t", ["A\u00e9A\t"], ["AeA\t"]),
        ("\\Qa.b\\Ec", ["a.bc"], ["axbc"]),
        (".", ["a", "\U0001f600"], ["\n", ""]),
        ("(?s).", ["\n"], [""]),
        ("(?i)straße|K", ["STRAßE", "k", "\u212a"], ["STRASSE"]),
        ("(?i:a)b(?-i)c", ["Abc"], ["ABc"]),
        ("(?P<year>\\d+)-(?<day>x)", ["12-x"], ["-x"]),
        ("^a$", ["a"], ["a\n", ""]),
        ("(\\W|^)a(\\W|$)", ["a", " a", "a ", "-a-"], ["ba", "--a"]),
        ("\\A\\z", [""], ["a"]),
        ("a^b", [], ["ab", "a^b"]),
        ("(^|x)*y", ["y", "xxy"], ["xx"]),
        ("\\pL+\\p{Lu}\\P{L}\\p{^Nd}", ["éÀ1x"], ["éà1x", "é\u00c011"]),
        ("(a*)*", ["", "aaa"], ["b"]),
        ("\\ba\\b.\\B.*", ["a  ", "a "], ["a b", "ab ", "a"]),
        ("\\B", [""], ["a"]),
        ("a\\b(é|b)\\B*", ["aé"], ["ab"]),
        ("[\\w.\\-]{0,25}@(yahoo|gm)\\.com", ["a.b-c@gm.com", "@yahoo.com"], ["a@b.com", "x" * 26 + "@gm.com"]),
    ],
)  # fmt: skip
def test_what_a_pattern_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not matches(pattern, text)] == []
    assert [text for text in no if matches(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a)\\1", "references back are not supported at position 3"),
        ("a(?=b)", "looking around is not regular"),
        ("(?<!b)a", "looking around is not regular"),
        ("a\\C", "single bytes are not supported"),
        ("(?m)^a", "several lines"),
        ("(a", r"a missing \)"),
        ("a)", r"an unexpected \)"),
        ("[a", r"a missing \]"),
        ("[z-a]", "a range that ends before it begins"),
        ("*a", "a repetition of nothing"),
        ("a**", "a repetition of a repetition"),
        ("a{3,2}", "a repetition of 3 to 2 times"),
        ("a{1001}", "a repetition of 1001"),
        ("a{0,10000}", "a repetition of more than 1000 times"),
        ("a{" + "9" * 5000 + ",}", "a repetition of more than 1000 times"),
        ("\\pL" * 1000, "more than 200000 ranges of characters"),
        ("\\p{Greek}", "the class Greek: of the classes of Unicode, general categories are supported"),
        ("[[:foo:]]", "the unknown class"),
        ("\\y", "the unknown escape"),
        ("a\\", "the unknown escape"),
        ("(" * 300, "groups nested more than 200 deep"),
        ("\\x{110000}", "a code beyond Unicode"),
    ],
)
def test_what_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(RegexError, match=reason):
        parse(pattern)


def test_patterns_that_would_be_too_large_are_refused() -> None:
    with pytest.raises(RegexError, match="needs more than 5000 states"):
        automaton("(a|b)*a(a|b){16}")
    with pytest.raises(RegexError, match="more than 200000 parts"):
        automaton("((a{1000}){1000}){1000}")


@pytest.mark.parametrize("pattern", [r"(?:\pL{1,100}\pN?)*", "((a?){30}){100}", r"(\pL?){60}"])
def test_few_states_that_are_sets_of_many_are_refused(pattern: str) -> None:
    with pytest.raises(RegexError, match="takes more than 3000000 steps"):
        automaton(pattern)


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "é", ".", "[^a]", "[0-b]", "\\w", "\\S", "€?", "\U0001f600", "(?:)", "\\b", "^", "\\Z"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(PATTERNS, st.lists(st.text(ALPHABET, max_size=6), min_size=1, max_size=8))
def test_random_patterns_match_as_in_python(pattern: str, texts: list[str]) -> None:
    own = re.compile(pattern, re.ASCII)
    pattern = pattern.replace("\\Z", "\\z")
    for text in texts:
        assert matches(pattern, text) == (own.fullmatch(text) is not None), (pattern, text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x3000)), min_size=1, max_size=3))
def test_bytes_of_ranges_are_those_of_their_code_points(pairs: list[tuple[int, int]]) -> None:
    ranges = normal([(low, min(low + size, 0x10FFFF)) for low, size in pairs])
    sequences = byte_ranges(ranges)
    count = sum(int(np.prod([high - low + 1 for low, high in sequence])) for sequence in sequences)
    codes = [code for low, high in ranges for code in range(low, high + 1) if not 0xD800 <= code <= 0xDFFF]
    assert count == len(codes)  # as many as there are, and each of them:
    for code in codes[:: max(1, len(codes) // 500)]:
        data = chr(code).encode()
        fits = [len(s) == len(data) and all(low <= b <= high for b, (low, high) in zip(data, s)) for s in sequences]
        assert sum(fits) == 1
