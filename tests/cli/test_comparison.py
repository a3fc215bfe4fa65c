"""Comparison of arrays: what counts as equal, and the numbers that are reported."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.verify import Tolerance, compare, compare_outputs

f32 = np.float32


def test_equal_arrays() -> None:
    x = np.array([1, -2, 0, np.nan, np.inf, -np.inf], f32)
    found = compare("x", x, x.copy())
    assert (found.ok, found.max_abs, found.ulp, found.wrong) == (True, 0.0, 0, 0)


def test_ulps_are_counted_across_zero() -> None:
    tiny = np.finfo(f32).smallest_subnormal
    assert compare("x", np.array([tiny], f32), np.array([-tiny], f32)).ulp == 2
    assert compare("x", np.array([0.0], f32), np.array([-0.0], f32)).ulp == 0
    one = np.array([1], f32)
    assert compare("x", np.nextafter(one, f32(2)), one).ulp == 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_ulps_of_other_floats(dtype: type) -> None:
    one = np.array([1], dtype)
    above = (one.view(f"u{one.itemsize}") + 3).view(dtype)
    assert compare("x", above, one).ulp == 3


def test_tolerances() -> None:
    expected = np.array([1000.0, 1.0], f32)
    actual = expected + np.array([0.01, 0.01], f32)
    assert compare("x", actual, expected).ok  # within 1e-4 of the largest element
    assert not compare("x", actual, expected, Tolerance(rtol=1e-4)).ok
    assert compare("x", actual, expected, Tolerance(atol=0.02)).ok
    assert not compare("x", actual, expected, Tolerance(ulp=100)).ok
    assert compare("x", np.nextafter(expected, f32(0)), expected, Tolerance(ulp=1)).ok


def test_cosine_suffices_where_given() -> None:
    expected = np.array([1000.0, 1.0], f32)
    assert compare("x", expected * f32(1.01), expected, Tolerance(cosine=0.999)).ok
    assert not compare("x", expected[::-1].copy(), expected, Tolerance(cosine=0.999)).ok


def test_nan_and_infinities_must_match() -> None:
    finite, nan, inf = np.array([1.0], f32), np.array([np.nan], f32), np.array([np.inf], f32)
    for one, other in [(finite, nan), (nan, finite), (inf, finite), (inf, -inf), (nan, inf)]:
        assert not compare("x", one, other, Tolerance(rtol=10, atol=10)).ok


def test_integers_are_exact() -> None:
    big = np.array([2**63 - 1, -(2**63)], np.int64)
    assert compare("x", big, big.copy()).ok
    assert not compare("x", big - np.array([1, 0]), big).ok  # float64 could not tell these apart
    assert compare("x", np.array([3], np.int8), np.array([2], np.int8), Tolerance(atol=1)).ok


def test_type_shape_strings_and_absence() -> None:
    assert compare("x", np.zeros(2), np.zeros(2, f32)).reason == "it is f64, expected f32"
    assert "shape" in compare("x", np.zeros((2, 1), f32), np.zeros(2, f32)).reason
    assert not compare("x", np.array(["a"]), np.array(["b"])).ok
    assert compare("x", np.zeros((0, 3), f32), np.zeros((0, 3), f32)).ok
    missing = compare_outputs({}, {"y": np.zeros(1, f32)})
    assert not missing[0].ok and "no such output" in missing[0].reason


def test_sequences_item_by_item() -> None:
    x = np.zeros(2, f32)
    assert [c.name for c in compare_outputs({"s": [x, x]}, {"s": [x, x]})] == ["s[0]", "s[1]"]
    assert not compare_outputs({"s": [x]}, {"s": [x, x]})[0].ok
    assert compare_outputs({"s": None}, {"s": None})[0].ok
