"""Demands on sizes: when they hold, and what is said where they do not."""

from __future__ import annotations

import itertools

import pytest

from ir.demand import broken_demand, demanded_limit, equal_or_one, is_implied, not_negative, unequal
from ir.dims import bounded, dim_text, evaluate, parse_dim

A, B, SUM = parse_dim("A"), parse_dim("B"), parse_dim("P+S")


def test_demands_hold_just_where_they_say() -> None:
    for a, b in itertools.product(range(5), repeat=2):
        values = {"A": a, "B": b}

        def holds(pair, values=values) -> bool:
            left, right = pair
            return evaluate(left, values) == evaluate(right, values)

        assert holds(unequal(A, B)) == (a != b)
        assert holds(unequal(A, 1)) == (a != 1)
        assert holds(equal_or_one(A, B)) == (a in (1, b))
        assert holds(equal_or_one(A, 3)) == (a in (1, 3))
        assert holds(not_negative(A - B)) == (a >= b)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (lambda: (A, B), "A is 5 and B is 2; they must be equal"),
        (lambda: unequal(A, 5), "A-5 is 0, it must not be 0"),
        (lambda: unequal(A, 1), "A is 5, it must not be 1"),
        (lambda: equal_or_one(A, B), "A is 5, it must be B (2) or 1"),
        (lambda: equal_or_one(A, 7), "A is 5, it must be 7 or 1"),
        (lambda: equal_or_one(A, SUM), "A is 5, it must be P+S (7) or 1"),
        (lambda: equal_or_one(SUM, A), "P+S is 7, it must be A (5) or 1"),
        (lambda: equal_or_one(2 * A + 1, B), "2*A+1 is 11, it must be B (2) or 1"),
        (lambda: not_negative(B - A), "-A+B is -3, it must not be negative"),
    ],
)
def test_sentences_name_the_sizes_a_demand_was_made_of(demand, expected: str) -> None:
    values = {"A": 5, "B": 2, "P": 3, "S": 4}
    assert broken_demand(demand(), values) == expected
    with bounded({"A": (1, 8), "B": (2, None)}):  # a demand has one form, whatever is known where it is made
        assert broken_demand(demand(), values) == expected


def test_a_demand_keeps_its_sentence_through_text() -> None:
    left, right = equal_or_one(A, SUM)
    again = parse_dim(dim_text(left)), parse_dim(dim_text(right))
    assert broken_demand(again, {"A": 5, "P": 3, "S": 4}) == "A is 5, it must be P+S (7) or 1"


def test_demands_that_others_imply() -> None:
    pairs = [(A, SUM), (B, 3)]
    for demand in ((A, SUM), (SUM, A), (2 * A, 2 * SUM), (A * B, 3 * SUM), equal_or_one(A, SUM), equal_or_one(SUM, A)):
        assert is_implied(demand, pairs)
    for demand in ((A, B), equal_or_one(A, B), unequal(A, 1), (A + 1, SUM)):
        assert not is_implied(demand, pairs)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("p+q", "2*N", "2*N"),
        ("N", "3*p+4*q", "N//3"),
        ("p+N*q", "M", "M"),
        ("p-q", "N", None),  # p may be as much as N+q
        ("p*p", "N", None),
        ("p+max(p-1,0)", "N", None),
        ("p", "q", None),  # which has no limit itself
        ("q", "N", None),
    ],
)
def test_limits_that_follow_from_demands(left: str, right: str, expected: str | None) -> None:
    found = demanded_limit("p", [(parse_dim(left), parse_dim(right))], {"p", "q"})
    assert (None if found is None else dim_text(found)) == expected
