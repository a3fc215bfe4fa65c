"""Operands whose sizes do not belong together are refused by the type rule: kernels would read beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from ir.build import graph_of
from ir.op import OPS, OpError, parse_type

_CONV = {"stride": (1, 1), "pad": (0,) * 4, "dilation": (1, 1)}
_TRANSPOSE = {**_CONV, "extra": (0, 0)}
_DEFORM = {**_CONV, "offset_groups": 1}

CASES = [
    ("conv", _CONV, ["f32[1,2,4,4]", "f32[3,2,2,2]", "f32[4]"], "size of the bias: 4 where it must be 3"),
    ("conv", _CONV, ["f32[1,2,4,4]", "f32[3,2,2,2]", "f32[3,1]"], "bias is"),
    ("conv", {**_CONV, "groups": 2}, ["f32[1,2,4,4]", "f32[3,1,2,2]"], "shared by 2 groups"),
    ("conv_transpose", _TRANSPOSE, ["f32[1,2,4,4]", "f32[2,3,2,2]", "f32[2]"], "size of the bias"),
    ("conv_transpose", {**_TRANSPOSE, "groups": 2}, ["f32[1,3,4,4]", "f32[3,1,4,4]"], "shared by 2 groups"),
    ("deform_conv", _DEFORM, ["f32[2,1,3,3]", "f32[1,1,2,2]", "f32[1,8,2,2]"], "size of the offsets: 1"),
    ("deform_conv", _DEFORM, ["f32[1,1,3,3]", "f32[1,1,2,2]", "f32[1,8,2,2]", "f32[2]"], "size of the bias"),
    ("deform_conv", _DEFORM, ["f32[1,1,3,3]", "f32[1,1,2,2]", "f32[1,8,2,2]", None, "f32[2,4,2,2]"], "of the masks: 2"),
    ("attention", {"scale": 1.0}, ["f32[1,2,3,4]"] * 3 + [None, "i64[2]"], "size of start: 2"),
    ("attention", {"scale": 1.0}, ["f32[1,2,3,4]"] * 3 + [None, None, "i64[2]"], "size of lengths: 2"),
    ("attention", {"scale": 1.0}, ["f32[1,2,3,4]"] * 3 + [None, None, None, "f32[3]"], "size of sink: 3"),
    ("linear_attention", {"rule": "delta"}, ["f32[1,3,2,4]"] * 3 + [None, None, "f32[1,3,4]"], "size of beta: 4"),
    ("linear_attention", {"rule": "gated"}, ["f32[1,3,2,4]"] * 3 + [None, "f32[1,3,2,3]"], "size of decay: 3"),
    ("linear_attention", {}, ["f32[1,3,2,4]"] * 3 + ["f32[1,2,4,5]"], "size of state: 5"),
    ("linear_attention", {}, ["f32[1,3,2,4]", "f32[1,3,2,4]", "f32[1,2,2,4]"], "size of v: 2"),
]


@pytest.mark.parametrize(("name", "attributes", "operands", "reason"), CASES)
def test_sizes_that_do_not_fit_are_refused(
    name: str, attributes: dict[str, Any], operands: list[str | None], reason: str
) -> None:
    types = [None if text is None else parse_type(text) for text in operands]
    with pytest.raises(OpError, match=reason):
        graph_of(OPS[name](**attributes), types)


@pytest.mark.parametrize(
    ("name", "attributes", "operands", "demand"),
    [
        ("conv", _CONV, ["f32[1,2,4,4]", "f32[M,2,2,2]", "f32[B]"], "[(B, M)]"),
        ("conv_transpose", {**_TRANSPOSE, "groups": 2}, ["f32[1,C,4,4]", "f32[C,1,4,4]"], "[(C, 2*(C//2))]"),
        ("attention", {"scale": 1.0}, ["f32[N,2,3,4]"] * 3 + [None, "i64[L]"], "[(L, N)]"),
    ],
)
def test_sizes_that_are_not_known_are_demanded(
    name: str, attributes: dict[str, Any], operands: list[str | None], demand: str
) -> None:
    types = [None if text is None else parse_type(text) for text in operands]
    graph = graph_of(OPS[name](**attributes), types)
    assert "[" + ", ".join(f"({a}, {b})" for a, b in graph.equal_dims) + "]" == demand
