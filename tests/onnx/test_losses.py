"""Losses, which are imported from the function bodies of their schemas, and windows, against onnx's evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

import compiler
from compiler.onnx_backend import run_model
from ir.evaluate import evaluate_graph
from tests.ops.single_node import node_model

# Sums of some ten numbers in another order; half precision keeps eleven bits.
TOLERANCE = {"float16": 5e-3, "float32": 1e-5, "float64": 1e-12}


def agrees(op: str, operands: list[np.ndarray], outputs: int, **options: Any) -> None:
    model = node_model(op, operands, outputs, **options)
    expected = ReferenceEvaluator(model).run(None, {f"x{i}": a for i, a in enumerate(operands)})
    for got, want in zip(run_model(model, operands, "REFERENCE"), map(np.asarray, expected), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
            continue
        np.testing.assert_allclose(got, want, rtol=TOLERANCE[want.dtype.name], atol=TOLERANCE[want.dtype.name])


def labelled(shape: tuple[int, ...], dtype: type, ignored: int | None, index: type) -> list[np.ndarray]:
    """Scores, labels (one of them ignored) and weights."""
    rng = np.random.default_rng(len(shape))
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(index)
    if ignored is not None:
        labels.reshape(-1)[0] = ignored
    weights = rng.uniform(0.1, 2, shape[1])
    return [rng.standard_normal(shape).astype(dtype), labels, weights.astype(dtype)]


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("ignored", [None, 1, -100])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses(shape: tuple[int, ...], ignored: int | None, is_weighted: bool, reduction: str) -> None:
    attributes = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
    for dtype, index in ((np.float16, np.int32), (np.float32, np.int64), (np.float64, np.int32)):
        operands = labelled(shape, dtype, ignored, index)[: 3 if is_weighted else 2]
        for opset in (12, 13):
            agrees("SoftmaxCrossEntropyLoss", operands, 2 if ignored is None else 1, opset=opset, **attributes)
        for opset in (12, 13, 22):
            agrees("NegativeLogLikelihoodLoss", operands, 1, opset=opset, **attributes)


def test_mean_over_what_is_not_ignored() -> None:
    """Also where the ignored label is -1, which onnx's evaluator takes for none."""
    scores = np.log(np.array([[0.5, 0.25], [0.125, 0.5], [0.9, 0.1]], np.float32))
    labels = np.array([0, 0, -1])
    model = node_model("NegativeLogLikelihoodLoss", [scores, labels], opset=13, ignore_index=-1)
    (loss,) = run_model(model, [scores, labels], "REFERENCE")
    np.testing.assert_allclose(loss, -(np.log(0.5) + np.log(0.125)) / 2, rtol=1e-6)  # roundings of float32


def test_losses_of_symbolic_sizes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C,D] x, int64[N,D] labels) => (float loss, float[N,C,D] p) {
        loss, p = SoftmaxCrossEntropyLoss <reduction="mean", ignore_index=2> (x, labels)
    }"""
    graph = compiler.load(onnx.parser.parse_model(text)).graph
    for shape in ((2, 4, 3), (1, 3, 5)):
        x, labels, _ = labelled(shape, np.float32, 2, np.int64)
        loss, p = evaluate_graph(graph, [x, labels])
        expected = x - np.log(np.exp(x).sum(1, keepdims=True))
        np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-5)  # sums of five numbers in another order
        kept = labels != 2
        picked = np.take_along_axis(expected, labels[:, None], 1)[:, 0]
        np.testing.assert_allclose(loss, -picked[kept].mean(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a symmetric window of one element divides 0 by 0
@pytest.mark.parametrize("name", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("kind", [1, 10, 11])
def test_windows(name: str, periodic: int, kind: int) -> None:
    for size, index in ((1, np.int64), (2, np.int32), (9, np.int64)):
        operands = [np.array(size, index)]
        agrees(name, operands, 1, opset=17, periodic=periodic, output_datatype=kind)
