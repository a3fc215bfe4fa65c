"""Symbolic sizes: the normal form, its text, substitution and bounds, by example and against plain integers."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ir.dims import (
    Dim,
    FloorDiv,
    Max,
    Min,
    Name,
    Undecided,
    bounded,
    ceil,
    ceil_div,
    decide_eq,
    decide_le,
    dim_text,
    evaluate,
    floor,
    greatest,
    lower_bound,
    maximum,
    minimum,
    names,
    parse_dim,
    parse_dim_param,
    substitute,
    symbol,
    terms,
    upper_bound,
)  # fmt: skip

H, K, M, N = symbol("H"), symbol("K"), symbol("M"), symbol("N")


# Examples.


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((2 * N + 2) // 2, "N+1"),
        (N * M // M, "N"),
        ((4 * N) % 4, "0"),
        (N % 4, "N-4*(N//4)"),
        (N // 2 // 3, "N//6"),
        (N // M // K, "N//(K*M)"),
        ((5 * N + K) // 2, "2*N+(K+N)//2"),
        ((H + 2 - 3) // 2 + 1, "(H+1)//2"),
        (((H + 1) // 2 + 1) // 2, "(H+3)//4"),
        ((2 * N + 1) // 4, "N//2"),
        (-(-N // 4), "(N+3)//4"),
        (ceil_div(N, 4), "(N+3)//4"),
        (-(-N // M), "(N-1)//M+1"),
        (ceil_div(N, M), "(N-1)//M+1"),
        ((N + 1) * K // (N + 1), "K"),
        (N * M * K // (2 * K), "M*N//2".replace("M*N", "(M*N)")),
        (N // 2 + (N - N // 2), "N"),
        (minimum(4, N, 6, minimum(M, N)), "min(M,N,4)"),
        (minimum(N, M, minimum(2 * H, 4)), "min(2*H,M,N,4)"),
        (maximum(0, N), "N"),
        (minimum(2, 2 % (N + 3)), "2"),
        (minimum(2 % (N + 3), 2), "2"),
        (maximum(N, N + 1, M), "max(M,N+1)"),
        (-maximum(-N, -M), "min(M,N)"),
        (minimum(2 * N, 4), "2*min(N,2)"),
        (N**2 * M + 3, "M*N**2+3"),
        (floor(N / 2 - Fraction(1, 2)), "(N+1)//2-1"),
        (ceil(N * 0.25), "(N+3)//4"),
        (5 // N, "5//N"),
        (-N, "-N"),
        (M - N, "M-N"),
        (2 * (N // 2) * M, "2*M*(N//2)"),
        (-(N // 2), "-(N//2)"),
        (N / 2 + M * 3 / 4, "3*M/4+N/2"),
    ],
)
def test_normal_form(size, text):
    assert dim_text(size) == text
    assert parse_dim(text) == size


@pytest.mark.parametrize("size", [N - N, (4 * N) % 4, 0 * N, (N * M) // (N * M), (N + 2) - N, 2 * N / N, (-1) // N])
def test_a_constant_is_an_int(size):
    assert type(size) is int


def test_a_constant_that_is_no_integer_is_a_fraction():
    assert (N + Fraction(1, 2)) - N == Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("past_sequence_length + sequence_length", symbol("past_sequence_length") + symbol("sequence_length")),
        ("2*s44*s70", 2 * symbol("s44") * symbol("s70")),
        ("floor(audio_seq_len/2 - 1/2) + 1", (symbol("audio_seq_len") + 1) // 2),
        ("Max(1, s0)", maximum(1, symbol("s0"))),
        ("Min(7, s0, s1)", minimum(7, symbol("s0"), symbol("s1"))),
        ("s0**2", symbol("s0") * symbol("s0")),
        ("((s1 - 1)//2) + 1", (symbol("s1") - 1) // 2 + 1),
        ("Mod(s0, 2)", symbol("s0") % 2),
        ("ceiling(0.5*s0)", ceil_div(symbol("s0"), 2)),
        ("-N//2", -N // 2),
        ("-N**2", -(N * N)),
        ("16", 16),
        ("7//2 - 3", 0),
        ("a.b_1", symbol("a.b_1")),
        ("a:b", symbol("a:b")),
        ("min", symbol("min")),
        ("`?x` * 2", symbol("?x") * 2),
        (r"`a\`b\\c\u{a}`", symbol("a`b\\c\n")),
    ],
)
def test_parse(text, expected):
    assert parse_dim(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "?", "a b", "2d", "a+", "(a", "a)", "f(a)", "floor(a, b)", "min()", "`a", r"`\x`", "1/2", "a/0",
        "a//(b-b)",
        "a**b", "a**-1", "a**65", "a**2**2", "((9**64)**64)**64", "(a+b+c+d+e+f)**64",
        "(" * 65 + "a" + ")" * 65, "a+" * 2100 + "a", "a/b", "1e3", "9" * 200, "é", "a\u0660",
    ],
)  # fmt: skip
def test_what_is_no_expression_raises_value_error(text):
    with pytest.raises(ValueError):
        parse_dim(text)


def test_parentheses_may_nest_64_deep():
    assert parse_dim("(" * 64 + "N" + ")" * 64) == N


@pytest.mark.parametrize("text", ["batch-size", "a:b", "?", "2d", "a b", "dim-1", "größe", "unk__12", "", "1/2"])
def test_a_dim_param_that_is_no_expression_is_a_name(text):
    assert parse_dim_param(text) == symbol(text)


def test_a_dim_param_that_is_an_expression():
    assert parse_dim_param("past + current") == symbol("past") + symbol("current")
    assert parse_dim_param("n/2") == symbol("n") // 2
    assert parse_dim_param("16") == 16


@given(st.text(max_size=20))
def test_any_name_round_trips(name):
    assert parse_dim(dim_text(symbol(name) * 2 + 1)) == symbol(name) * 2 + 1
    assert dim_text(symbol(name)).isprintable()


@given(st.text(alphabet="aN01 +-*/%(),.`\\fminlor", max_size=30))
def test_hostile_text_gives_a_size_or_value_error(text):
    try:
        size = parse_dim(text)
    except ValueError:
        return
    assert parse_dim(dim_text(size)) == size


def test_sizes_too_large_to_keep_are_undecided_not_slow():
    size: Any = N
    with pytest.raises(Undecided):
        for _ in range(100):
            size = size // 2 * M + size // 3
    with pytest.raises(Undecided):
        (N + M + H + K + 1) ** 40
    with pytest.raises(Undecided):
        minimum(*(symbol(f"n{i}") for i in range(17)))
    with pytest.raises(ValueError):
        symbol("a" * 2000)


def test_division():
    assert (2 * N * M) / M == 2 * N
    assert (N * N - 1) / (N + 1) == N - 1
    assert N / 0.5 == 2 * N
    for divide in (lambda: N / M, lambda: 1 / N, lambda: N * 0.1, lambda: N / math.nan, lambda: N * math.inf):
        with pytest.raises(Undecided):
            divide()
    for divide in (lambda: N / 0, lambda: N // 0, lambda: N % 0, lambda: N // (M - M), lambda: 1 // (M - M)):
        with pytest.raises(ZeroDivisionError):
            divide()


def test_conversions_are_undecided():
    for convert in (int, float, operator.index, bool):
        with pytest.raises(Undecided):
            convert(N)
    assert bool(N + 1)
    assert issubclass(Undecided, ArithmeticError)


def test_other_types_are_refused_by_python():
    for combine in (operator.add, operator.truediv, operator.floordiv, operator.lt):
        with pytest.raises(TypeError):
            combine(N, "a")
    assert N != "N" and N != 1 and N != 2.5 and N is not None


def test_immutable_hashable_copyable():
    with pytest.raises(AttributeError):
        N._terms = ()  # type: ignore[misc]
    size = minimum(N * 2 + 1, M // 3)
    assert isinstance(size, Dim)
    assert pickle.loads(pickle.dumps(size)) == copy.deepcopy(size) == copy.copy(size) == size
    assert hash(pickle.loads(pickle.dumps(size))) == hash(size)


def test_terms_show_the_structure_in_printing_order():
    assert terms(0) == () and terms(3) == ((3, ()),)
    assert terms((H + 1) // 2 - 3 * N * N + 7) == (
        (-3, (Name("N"), Name("N"))), (1, (FloorDiv(H + 1, 2),)), (7, ()),
    )  # fmt: skip
    assert terms(minimum(N, M)) == ((1, (Min((M, N)),)),)
    assert terms(maximum(N, 4)) == ((1, (Max((N, 4)),)),)
    assert Min((M, N)) != Max((M, N)) and Name("N") == Name("N")


def test_names():
    assert names(7) == frozenset()
    assert names(minimum(N // 2, M) * H + 1) == {"N", "M", "H"}


def test_evaluate_and_substitute():
    assert evaluate(7, {}) == 7
    assert evaluate(N // 2 + M, {"N": 5, "M": 1}) == 3
    assert substitute(N + M, {"N": M, "M": N}) == N + M
    assert substitute((N + 1) // 2, {"N": 2 * M + 1}) == M + 1
    assert substitute(maximum(N, 4), {"N": 2}) == 4
    with pytest.raises(KeyError):
        evaluate(N + M, {"N": 1})
    with pytest.raises(ValueError):
        evaluate(N / 2, {"N": 1})
    with pytest.raises(ZeroDivisionError):
        evaluate(M // N, {"N": 0, "M": 1})


def test_numpy_object_arrays():
    array = np.array([N, 3], dtype=object)
    assert list(array * 2) == [2 * N, 6]
    assert list(array + M) == [N + M, M + 3] == list(M + array)
    assert list(array // 2) == [N // 2, 1]
    assert list(np.floor(array * 0.5)) == [N // 2, 1]
    assert np.prod(array) == 3 * N and np.sum(array) == N + 3
    assert np.int64(3) * N == N * np.int64(3) == 3 * N
    assert N * np.float32(0.5) == N / 2
    assert list(np.maximum(array, 0)) == [N, 3]


# Bounds.


def test_bounds():
    assert (lower_bound(N), upper_bound(N)) == (0, None)
    assert (lower_bound(N % 4), upper_bound(N % 4)) == (0, 3)
    assert (lower_bound(N - N // 2), upper_bound(N - M)) == (0, None)
    assert lower_bound(maximum(N, M) - M) == 0
    assert upper_bound(minimum(N, M) - M) == 0
    assert (lower_bound(5), upper_bound(5)) == (5, 5)
    with bounded({"N": (1, 512)}):
        assert (lower_bound(N), upper_bound(N * 2 + 1)) == (1, 1025)
        assert (lower_bound(512 // N), upper_bound(512 // N)) == (1, 512)
        assert upper_bound(N / 3) == 171 and lower_bound(N / 3) == 0
        assert minimum(N, 600) == N
        with bounded({"N": (0, 16), "M": (2, None)}):
            assert (lower_bound(N), upper_bound(N), lower_bound(M)) == (1, 16, 2)
        assert upper_bound(N) == 512 and lower_bound(M) == 0
        with pytest.raises(ValueError), bounded({"N": (600, None)}):
            pass
    assert upper_bound(N) is None and minimum(N, 600) != N


def test_order():
    assert N < N + 1 and N <= N + M and N + 1 > N and N + M >= N
    assert not N + 1 < N and not N > N + M
    assert N >= 0 and not N < 0
    assert decide_le(N, M) is None and decide_le(3, 4) is True and decide_le(N + 1, N) is False
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(Undecided):
            compare(N, M)
    with bounded({"N": (1, 4), "M": (5, None)}):
        assert N < M and not N >= M


def test_decide_eq():
    assert decide_eq(N + M, M + N) is True
    assert decide_eq(2 * N, 5) is False  # an even number
    assert decide_eq(N, N + 1) is False
    assert decide_eq(N, -1) is False
    assert decide_eq(N, M) is None and decide_eq(2 * N, 4) is None
    assert decide_eq(3, 3) is True and decide_eq(3, 4) is False


def test_import_takes_only_the_standard_library():
    code = "import sys, ir.dims; print([m for m in ('numpy', 'lark', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Against plain integers: a tree of operations is applied to sizes and to ints alike.

SYMBOLS = ("a", "b", "c")
OPERATIONS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "min": lambda x, y: minimum(x, y) if isinstance(x, Dim) or isinstance(y, Dim) else min(x, y),
    "max": lambda x, y: maximum(x, y) if isinstance(x, Dim) or isinstance(y, Dim) else max(x, y),
}  # fmt: skip


def trees(max_leaves: int = 10) -> st.SearchStrategy[Any]:
    leaves = st.sampled_from(SYMBOLS) | st.integers(-6, 6)
    return st.recursive(
        leaves, lambda inner: st.tuples(st.sampled_from(sorted(OPERATIONS)), inner, inner), max_leaves=max_leaves
    )


def apply(tree: Any, values: Any) -> Any:
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return values[tree]
    operation, left, right = tree
    return OPERATIONS[operation](apply(left, values), apply(right, values))


def sized(tree: Any) -> Any:
    try:
        return apply(tree, {name: symbol(name) for name in SYMBOLS})
    except (ZeroDivisionError, Undecided):
        assume(False)


def counted(tree: Any, values: Any) -> int:
    try:
        return apply(tree, values)
    except ZeroDivisionError:
        assume(False)
        raise


VALUES = st.fixed_dictionaries({name: st.integers(0, 30) for name in SYMBOLS})


@given(trees(), VALUES)
@settings(max_examples=400, deadline=None)
def test_a_size_evaluates_to_what_integers_give(tree, values):
    expected, size = counted(tree, values), sized(tree)
    assert isinstance(size, (int, Dim))
    assert evaluate(size, values) == expected


@given(trees())
@settings(max_examples=300, deadline=None)
def test_text_round_trips(tree):
    size = sized(tree)
    text = dim_text(size)
    assume(len(text) <= 4096)
    assert parse_dim(text) == size
    assert " " not in text
    assert dim_text(parse_dim(text)) == text


@given(trees(), trees(4), trees(4), VALUES)
@settings(max_examples=200, deadline=None)
def test_substitution_agrees_with_evaluation(tree, first, second, values):
    size, replaced = sized(tree), {"a": sized(first), "b": sized(second)}
    inner = {name: counted(t, values) for name, t in (("a", first), ("b", second))}
    assume(min(inner.values()) >= 0)  # a symbol stands for a size
    counted(tree, {**values, **inner})
    try:
        substituted = substitute(size, replaced)
    except (ZeroDivisionError, Undecided):
        assume(False)
        raise
    assert evaluate(substituted, values) == evaluate(size, {**values, **inner})


@given(trees(5), trees(5), trees(5))
@settings(max_examples=200, deadline=None)
def test_ring_laws_hold_structurally(x, y, z):
    a, b, c = sized(x), sized(y), sized(z)
    try:
        sides = [
            ((a + b) + c, a + (b + c)), (a + b, b + a), (a * b, b * a), (a * (b + c), a * b + a * c),
            (a - a, 0), (a + b - b, a), (hash(a + b), hash(b + a)), (minimum(a, b), minimum(b, a)),
        ]  # fmt: skip
    except Undecided:
        assume(False)
        raise
    for left, right in sides:
        assert left == right


@given(trees(5), trees(5), st.integers(1, 9), st.sampled_from(SYMBOLS))
@settings(max_examples=200, deadline=None)
def test_multiples_leave_a_floor_division(x, y, k, name):
    q, r = sized(x), sized(y)
    linear = [c for c, monomial in terms(r) if monomial]
    assume(not linear or any(c > 0 for c in linear))  # a falling remainder is written as a ceiling
    try:
        assert ((k * q + r) - r) // k == q
        assert q * symbol(name) // symbol(name) == q
        if linear and all(c > 0 for c in linear) and all(c > 0 for c, m in terms(q) if m):
            assert (k * q + r) // k == q + r // k
    except Undecided:
        assume(False)


@given(trees(), trees(), VALUES, st.booleans())
@settings(max_examples=300, deadline=None)
def test_bounds_and_decisions_are_sound(x, y, values, bound):
    with bounded({name: (max(0, v - 2), v + 3) for name, v in values.items()} if bound else {}):
        left, right = counted(x, values), counted(y, values)
        a, b = sized(x), sized(y)
        low, high = lower_bound(a), upper_bound(a)
        assert (low is None or low <= left) and (high is None or left <= high)
        assert decide_le(a, b) in (None, left <= right)
        assert decide_eq(a, b) in (None, left == right)


def divides_by_numbers(tree: Any) -> bool:
    if not isinstance(tree, tuple):
        return True
    operation, left, right = tree
    positive = operation not in ("//", "%") or (isinstance(right, int) and right > 0)
    return positive and divides_by_numbers(left) and divides_by_numbers(right)


@given(trees(), st.fixed_dictionaries({name: st.integers(0, 4) for name in SYMBOLS}))
@settings(max_examples=400, deadline=None)
def test_the_greatest_value_is_not_exceeded(tree, values):
    """Of products also whose factors may be negative: two of them are positive together. Sizes divide by what is
    positive."""
    assume(divides_by_numbers(tree))
    expected, size = counted(tree, values), sized(tree)
    try:
        most = greatest(size, dict.fromkeys(SYMBOLS, 4))
    except (Undecided, ZeroDivisionError):
        assume(False)
    assert isinstance(most, int) and expected <= most


def test_the_greatest_product_of_factors_that_may_be_negative():
    a, b, c, d = (symbol(name) for name in "abcd")
    most = dict.fromkeys("abcd", 8)
    assert greatest(minimum(a - b, 0) * minimum(c - d, 0), most) == 64
    assert greatest(minimum(a, 1) * minimum(c - d, 0) * -4, most) == 32
    assert greatest(c * minimum(a - 12, b), most) == 0
    assert greatest(-b * maximum(a - 20, -4), most) == 32
