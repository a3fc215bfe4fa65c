"""Derivatives of graphs: every rule against differences of the op's own reference, and the operator Gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx.parser
import pytest

import compiler
import ir.ops  # noqa: F401 - registers the ops
from compiler.errors import UnsupportedError
from compiler.gradient import gradients
from compiler.gradient_rules import CONSTANT, RULES
from ir.build import Builder
from ir.evaluate import evaluate_graph
from ir.graph import Graph
from ir.op import OPS, Example, Op, OpError
from ir.types import dtype_of, f64, tensor

STEP = 1e-6
COMPOSITES = ("layer_norm", "rms_norm", "batch_norm", "instance_norm", "lp_norm", "reduce_log_sum_exp")


def _has_floats(example: Example) -> bool:
    return any(a is not None and dtype_of(a).is_float for a in example.arrays())


def _doubled(example: Example, seed: int) -> list[np.ndarray | None]:
    """The example's operands, floats in double precision."""
    arrays = []
    for a in example.arrays(seed):
        is_float = a is not None and dtype_of(a).is_float
        arrays.append(a.astype(np.float64) if is_float and a is not None else a)
    return arrays


def _weighted(op: Op, arrays: Sequence[np.ndarray | None]) -> tuple[Graph, list[int]]:
    """A graph that gives the sum of an op's first output, weighted, and the derivatives by its floats."""
    graph = Graph("g")
    b = Builder(graph)
    types = [None if a is None else tensor(dtype_of(a), *a.shape) for a in arrays]
    operands = [None if type_ is None else graph.add_input(f"x{i}", type_) for i, type_ in enumerate(types)]
    made = b.apply(op, *operands)
    y = made[0] if isinstance(made, tuple) else made
    weights = np.asarray(np.random.default_rng(7).uniform(0.5, 1.5, [int(s) for s in y.shape]))
    y = b.mul(b.cast(y, to=f64) if y.dtype != f64 else y, b.const(weights))
    total = b.reduce_sum(y, axes=tuple(range(y.rank)), keepdims=False)
    floats = [i for i, v in enumerate(operands) if v is not None and v.dtype.is_float]
    xs = [v for v in operands if v is not None and v.dtype.is_float]
    graph.set_outputs([total, *gradients(b, total, {x: x for x in xs}, xs)])
    return graph, floats


@pytest.mark.parametrize("name", (*sorted(RULES), *COMPOSITES))
def test_rules_agree_with_differences(name: str) -> None:
    """On all examples with floats: there are no derivatives by others. Something must have been compared."""
    examples = [(number, e) for number, e in enumerate(OPS[name].examples) if _has_floats(e)]
    assert sum(_compared(name, number, example) for number, example in examples)


def _compared(name: str, number: int, example: Example) -> int:
    """How many derivatives were compared with differences; those at corners and jumps cannot be."""
    attributes = {k: f64 if k == "to" else v for k, v in example.attributes.items()}
    arrays = _doubled(example, seed=number)
    try:
        graph, floats = _weighted(OPS[name](**attributes), arrays)
    except OpError as error:
        assert "has no derivative here" in str(error)
        return 0
    given = [a for a in arrays if a is not None]
    positions = {i: sum(a is not None for a in arrays[:i]) for i in range(len(arrays))}

    def total(at: int, place: tuple[int, ...], by: float) -> float:
        moved = [a.copy() for a in given]
        moved[positions[at]][place] += by
        return float(evaluate_graph(graph, moved)[0])

    results = evaluate_graph(graph, given)
    base, compared = float(results[0]), 0
    for operand, grad in zip(floats, results[1:]):
        x = given[positions[operand]]
        assert grad.shape == x.shape, number
        for place in np.ndindex(x.shape):
            above = (total(operand, place, STEP) - base) / STEP
            below = (base - total(operand, place, -STEP)) / STEP
            is_smooth = abs(above) < 1e-2 / STEP and abs(above - below) < 1e-3 * max(1, abs(above))
            if not is_smooth:
                continue  # a corner, a jump, or outside of where the function is defined
            # One-sided differences err by the step times the second derivative; their mean by its square.
            np.testing.assert_allclose(grad[place], (above + below) / 2, rtol=1e-5, atol=1e-5, err_msg=f"{number}")
            compared += 1
    return compared


def test_every_rule_is_of_an_op_and_no_constant_one_has_a_rule() -> None:
    assert set(RULES) <= set(OPS)
    assert set(OPS) >= CONSTANT
    assert not CONSTANT & set(RULES)


def _run(text: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = compiler.load(onnx.parser.parse_model(text))
    return list(evaluate_graph(model.graph, [feeds[v.name] for v in model.graph.inputs]))


_HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.preview.training": 1]> '


def test_the_gradient_of_a_gradient() -> None:
    text = (
        _HEAD
        + """g (float x) => (float first, float second) {
        square = Mul(x, x) cube = Mul(square, x)
        first = ai.onnx.preview.training.Gradient <xs=["x"], y="cube"> (x)
        second = ai.onnx.preview.training.Gradient <xs=["x"], y="first"> (x)
    }"""
    )
    first, second = _run(text, {"x": np.array(3.0, np.float32)})
    assert (first, second) == (27.0, 18.0)


def test_values_given_in_place_of_the_named_ones() -> None:
    """The derivative is taken where the inputs of the node say, not where the graph was computed."""
    text = (
        _HEAD
        + """g (float[2] x, float[2] z, float[2] x1, float[2] z1) => (float[2] dx, float[2] dz) {
        e = Exp(z) y = Mul(x, e)
        dx, unused = ai.onnx.preview.training.Gradient <xs=["x", "z"], y="y"> (x1, z1)
        dz = ai.onnx.preview.training.Gradient <xs=["x"], zs=["z"], y="y"> (x1, z)
    }"""
    )
    x, z = np.array([1, 2], np.float32), np.array([0, 1], np.float32)
    x1, z1 = np.array([5, 6], np.float32), np.array([2, 3], np.float32)
    dx, dz = _run(text, {"x": x, "z": z, "x1": x1, "z1": z1})
    np.testing.assert_allclose(dx, np.exp(z1), rtol=1e-6)  # two roundings of float32
    np.testing.assert_allclose(dz, np.exp(z), rtol=1e-6)


def test_by_an_inner_value_and_by_one_that_does_not_matter() -> None:
    text = (
        _HEAD
        + """g (float[N,3] x, float[3,2] w, float[4] other) => (float[N,2] dh, float[4] none) {
        h = MatMul(x, w) y = Tanh(h)
        dh, none = ai.onnx.preview.training.Gradient <xs=["h", "other"], y="y"> (h, other)
    }"""
    )
    x, w = np.ones((2, 3), np.float32), np.full((3, 2), 0.1, np.float32)
    dh, none = _run(text, {"x": x, "w": w, "other": np.ones(4, np.float32)})
    np.testing.assert_allclose(dh, 1 - np.tanh(x @ w) ** 2, rtol=1e-6)  # two roundings of float32
    assert not none.any()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Det(x)", "determinant has no derivative here"),
        ("y = Cast<to=7>(x)", "only floats have derivatives"),
    ],
)
def test_refusals_name_the_op(body: str, reason: str) -> None:
    text = f"{_HEAD} g (float[2,2] x) => (float[2,2] dx) {{ {body}"
    text += ' dx = ai.onnx.preview.training.Gradient <xs=["x"], y="y"> (x) }'
    with pytest.raises(UnsupportedError, match=reason):
        compiler.load(onnx.parser.parse_model(text))
