"""How far apart the elements are that a loop reads."""

from __future__ import annotations

from ir import types as t
from ir.access import stride
from ir.dims import symbol
from ir.expr import Index

N, V = symbol("n"), symbol("v")


def test_a_stride_counts_elements_of_all_axes():
    index = (Index(t.i64, V), Index(t.i64, 2 * V + 1), Index(t.i64, symbol("k")))
    assert stride(index, (4, 5, 6), "v") == 5 * 6 + 2 * 6
    assert stride(index, (4, 5, 6), "k") == 1
    assert stride(index, (4, 5, 6), "other") == 0


def test_a_stride_that_is_not_always_the_same_is_none():
    assert stride((Index(t.i64, V), Index(t.i64, N)), (4, N), "v") is None
    assert stride((Index(t.i64, V * V),), (16,), "v") is None
    assert stride((Index(t.i64, V // 2),), (16,), "v") is None
