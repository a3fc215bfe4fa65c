"""Reductions of symbolic sizes, and axes as the opsets give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from ir.dims import Size, bounded, maximum, symbol
from ir.evaluate import evaluate_graph
from ir.op import OPS, OpError, parse_type
from tests.ops.test_contraction import import_node

H, W = symbol("H"), symbol("W")


@pytest.mark.parametrize(
    ("op", "expected"),
    [("reduce_sum", H + W + 3), ("reduce_prod", 3 * H * W), ("reduce_max", maximum(H, W, 3))],
)
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_sizes_reduce_to_sizes(op: str, expected: Size, shape: tuple[int, ...]) -> None:
    sizes = np.array([H, W, 3], dtype=object).reshape(shape)
    with bounded({"H": (0, None), "W": (0, None)}):
        assert OPS[op](axes=tuple(range(len(shape))), keepdims=False).reference(sizes).item() == expected  # type: ignore[call-arg]


@pytest.mark.parametrize("axes", [(2,), (-3,), (0, -2)])
def test_axes_must_name_different_axes(axes: tuple[int, ...]) -> None:
    with pytest.raises(OpError, match="different axes"):
        OPS["reduce_sum"](axes=axes).infer(parse_type("f32[2,3]"))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("opset", "axes", "attributes", "expected"),
    [
        (11, None, {}, (1, 1)), (11, None, {"axes": [1], "keepdims": 0}, (2,)), (13, [1], {}, (2, 1)),
        (13, [], {}, (1, 1)),
        (13, [], {"noop_with_empty_axes": 1}, (2, 3)), (13, None, {"noop_with_empty_axes": 1}, (2, 3)),
        (13, [-2], {"keepdims": 0}, (3,)),
    ],
)  # fmt: skip
def test_absent_axes(opset: int, axes: list[int] | None, attributes: dict[str, Any], expected: tuple[int, ...]) -> None:
    constants = {} if axes is None else {"axes": np.array(axes, np.int64)}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = evaluate_graph(import_node("ReduceSum", {"x": (2, 3)}, constants, opset, **attributes), [x])
    assert y.shape == expected
    assert y.sum() == x.sum()
