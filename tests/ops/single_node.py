"""Models of one node, imported and run on the graph interpreter, and compared with ONNX Runtime where it runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import ir.ops  # noqa: F401 - registers the ops
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph


def node_model(
    op: str, operands: Sequence[np.ndarray | None], outputs: int = 1, domain: str = "", constants: Sequence[int] = (),
    opset: int = 21, ml_opset: int = 3, **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of one node; operands at positions in `constants` are initializers, the others inputs x0, x1, ..."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(operands)]
    given = {name: a for name, a in zip(names, operands) if a is not None}
    weights = {names[i] for i in constants}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
        if name not in weights
    ]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    initializers = [numpy_helper.from_array(a, name) for name, a in given.items() if name in weights]
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=n) for n in results], initializers)
    versions = {"": opset, "com.microsoft": 1, "ai.onnx.ml": ml_opset, "ai.onnx.preview.training": 1}
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(d, v) for d, v in versions.items()], ir_version=10
    )


def feeds_of(model: onnx.ModelProto, operands: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    return {v.name: operands[int(v.name[1:])] for v in model.graph.input}  # type: ignore[misc]


def imported(model: onnx.ModelProto) -> Graph:
    return import_model(read_model_proto(model))


def run(op: str, operands: Sequence[np.ndarray | None], outputs: int = 1, **options: Any) -> list[np.ndarray]:
    """What the node gives on the graph interpreter."""
    model = node_model(op, operands, outputs, **options)
    feeds, graph = feeds_of(model, operands), imported(model)
    return [np.asarray(r) for r in evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])]


def agrees(
    op: str, operands: Sequence[np.ndarray | None], outputs: int = 1, *, tolerance: float = 1e-5,
    view: Callable[[np.ndarray], np.ndarray] = np.asarray, **options: Any,
) -> None:  # fmt: skip
    """Asserts that the node gives what ONNX Runtime gives: floats within `tolerance`, all else exactly.

    `view` picks the part of each output that counts.
    """
    model = node_model(op, operands, outputs, **options)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds_of(model, operands))
    for got, want in zip(run(op, operands, outputs, **options), map(np.asarray, expected), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype), op
        got, want = view(got), view(want)
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            np.testing.assert_array_equal(got, want)
