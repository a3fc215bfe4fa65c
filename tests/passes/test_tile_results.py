"""What follows the sum of a tile: written as vectors, for whole panels and the last, and equal to the interpreter's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from compiler.backend import find_backend
from ir import types as t
from ir.build import Builder
from ir.dims import Size, symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.types import tensor

RNG = np.random.default_rng(11)
Result = Callable[[Builder, Value, Value], Value]


def one(b: Builder, value: float) -> Value:
    return b.const(np.float32(value))


def quantized(b: Builder, y: Value, _: Value) -> Value:
    q = b.quantize(y, one(b, 0.11), b.const(np.uint8(7)), to=t.u8)
    return b.dequantize(q, one(b, 0.11), b.const(np.uint8(7)))


RESULTS: dict[str, Result] = {
    "relu": lambda b, y, _: b.relu(y),
    "swish": lambda b, y, _: y * b.sigmoid(y),
    "tanh": lambda b, y, _: b.tanh(y),
    "gelu": lambda b, y, _: y * (b.erf(y * one(b, 0.7071067)) + one(b, 1.0)) * one(b, 0.5),
    "exp of log": lambda b, y, _: b.exp(b.log(b.abs(y) + one(b, 1.0))),
    "leaky": lambda b, y, _: b.where(b.less(y, one(b, 0.0)), y * one(b, 0.1), y),
    "within": lambda b, y, _: b.where(
        getattr(b, "and")(b.less(y, one(b, 1.0)), b.greater(y, one(b, -1.0))), y, one(b, 3.0)
    ),
    "floor": lambda b, y, _: b.floor(y * one(b, 4.0)),
    "root": lambda b, y, _: b.sqrt(b.abs(y) + one(b, 0.25)),  # not near 0, where roots magnify differences
    "residual": lambda b, y, r: y + r,
    "quantized": quantized,
    "as bytes": lambda b, y, _: b.cast(b.quantize(y, one(b, 0.05), None, to=t.i8), to=t.i32),
}


SHAPES = ((1, 5), (4, 16), (9, 48), (11, 50), (7, 24), (13, 97), (5, 1), (3, 40))
DEPTH = 19


def products(result: Result, shapes: tuple[tuple[Size, int], ...], depth: int = DEPTH) -> Graph:
    """result(x @ w + bias, residual) of inputs of each shape."""
    graph = Graph("products")
    outputs = []
    with Builder(graph) as b:
        for number, (rows, columns) in enumerate(shapes):
            x = graph.add_input(f"x{number}", tensor("f32", rows, depth))
            residual = graph.add_input(f"r{number}", tensor("f32", rows, columns))
            w = b.const(RNG.standard_normal((depth, columns)).astype(np.float32))
            y = b.matmul(x, w) + b.const(RNG.standard_normal(columns).astype(np.float32))
            outputs.append(result(b, y, residual))
        graph.set_outputs(outputs, [f"y{number}" for number in range(len(shapes))])
    return graph


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has the same numbers, whichever ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(11))


@pytest.mark.parametrize("march", ["native", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("name", RESULTS)
def test_results_of_tiles_agree(name: str, march: str, tmp_path: Path) -> None:
    """Columns that make whole panels, parts of them, and parts of one vector; rows known and not.

    Sums of 19 products of about 1 differ by the order of summands, by 1e-6 of the largest; a step of a quantiser more
    where that moves one of them over its threshold, which these seeds do not.
    """
    unknown = tuple((symbol(f"n{number}"), columns) for number, (_, columns) in enumerate(SHAPES))
    graph = products(RESULTS[name], (*SHAPES, *unknown))
    shapes = [shape for rows, columns in SHAPES * 2 for shape in ((rows, DEPTH), (rows, columns))]
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    arrays[4][0, 0] = np.nan
    feeds = dict(zip([value.name for value in graph.inputs], arrays))
    target = find_backend("c", march=march)
    found = target.emit(target.pipeline().run(graph), tmp_path).load().run(feeds)
    with np.errstate(invalid="ignore"):
        wanted = evaluate_graph(graph, arrays)
    for output, value in zip(graph.output_names, wanted):
        np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=2e-6, err_msg=output)


def text_of(graph: Graph, folder: Path) -> str:
    target = find_backend("c", march="x86-64-v4")
    target.emit(target.pipeline().run(graph), folder)
    return "".join(path.read_text() for path in sorted(folder.glob("kernels_*.c")))


def test_functions_of_results_are_those_of_vectors(tmp_path: Path) -> None:
    text = text_of(products(RESULTS["swish"], ((27, 96),)), tmp_path)
    assert "sesame_sigmoid_f32x16(" in text and "sesame_sigmoidf(" not in text


def test_short_results_go_from_registers_to_memory(tmp_path: Path) -> None:
    text = text_of(products(RESULTS["relu"], ((27, 100),)), tmp_path)
    whole = text.split("} else {")[0]
    assert "SESAME_STORE(f32x16, &y" in whole and "float acc[" not in whole
