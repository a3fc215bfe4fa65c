"""Inputs: sizes that keep what a model assumes of its dims, seeded values, and files that .npy cannot type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.commands.arguments import parse_dims
from compiler.errors import UsageError
from compiler.feeds import Signature, choose_sizes, fit_feeds, random_feeds
from ir.dims import symbol
from ir.types import tensor

N, P, T = symbol("N"), symbol("P"), symbol("T")


def test_sizes_respect_bounds_and_equalities() -> None:
    signature = Signature(
        {"x": tensor("f32", N, P), "m": tensor("f32", T)}, {"N": (5, None), "P": (0, 2)}, [(T, N + P)]
    )
    assert choose_sizes(signature) == {"N": 5, "P": 2, "T": 7}
    assert choose_sizes(signature, {"N": 6, "P": 1}) == {"N": 6, "P": 1, "T": 7}


def test_unknown_size() -> None:
    with pytest.raises(UsageError, match="no symbolic dim 'K'"):
        choose_sizes(Signature({"x": tensor("f32", N)}), {"K": 1})


def test_values_are_of_their_type() -> None:
    types = {
        name: tensor(name, 64)
        for name in ("f32", "f16", "bf16", "i8", "u8", "i64", "bool", "string", "i4", "f8e5m2", "c64")
    }
    feeds = random_feeds(Signature(types), seed=3)
    for name, type_ in types.items():
        assert feeds[name].dtype == type_.dtype.numpy and feeds[name].shape == (64,)
    assert feeds["i64"].min() >= 0 and feeds["i8"].min() < 0
    again = random_feeds(Signature(types), seed=3)
    assert all(np.array_equal(feeds[name], again[name]) for name in ("f32", "i64", "bool"))


def test_types_that_npy_cannot_name_come_back() -> None:
    stored = np.array([1, 2], ml_dtypes.bfloat16).view("V2")
    assert fit_feeds(Signature({"x": tensor("bf16", N)}), {"x": stored})["x"].dtype == ml_dtypes.bfloat16


def test_dims_on_the_command_line() -> None:
    assert parse_dims(["N=1", "seq=1..512", "H=16.."]) == {"N": 1, "seq": (1, 512), "H": (16, None)}
