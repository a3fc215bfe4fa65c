"""Sizes that only a run tells: counted by one op, bound, and used by those after it, in all three ways of running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from backends.c import CBackend
from backends.reference.program import run_program
from compiler.errors import CompileError
from ir.evaluate import evaluate_graph
from ir.verify import verify_program


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int = 21) -> Any:
    """An ONNX model of these nodes."""
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def agree(proto: Any, tmp_path: Path, *feeds: dict[str, np.ndarray], **options: Any) -> None:
    """Holds the interpreter, the interpreter of lowered programs, and C to the same results."""
    loaded = compiler.load(proto, **options)
    backend = CBackend(march="", opt="-O1")
    program = backend.pipeline().run(loaded)
    verify_program(program)
    runnable = backend.emit(program, tmp_path / "net", loaded).load()
    for each in feeds:
        wanted = evaluate_graph(loaded.graph, [each[v.name] for v in loaded.graph.inputs])
        for made in (run_program(program, each), runnable.run(each)):
            for name, value in zip(loaded.graph.output_names, wanted):
                assert made[name].shape == value.shape and made[name].dtype == value.dtype
                np.testing.assert_allclose(made[name], value, rtol=1e-5, atol=1e-6)
    runnable.close()


def loop(body_nodes: list[Any], body_inputs: list[Any], body_outputs: list[Any]) -> Any:
    return helper.make_graph(body_nodes, "body", body_inputs, body_outputs)


def test_a_loop_of_unknown_length_that_carries_and_stops(tmp_path: Path) -> None:
    body = loop(
        [
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Identity", ["b"], ["next_a"]),
            helper.make_node("ReduceSum", ["c"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "most"], ["on"]),
        ],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("a", ["n"]), info("b", ["n"])],
        [info("on", [], TensorProto.BOOL), info("next_a", ["n"]), info("c", ["n"])],
    )
    nodes = [helper.make_node("Loop", ["trip", "", "x", "y"], ["p", "q"], body=body)]
    inputs = [info("trip", [], TensorProto.INT64), info("x", ["n"]), info("y", ["n"]), info("most", [])]
    proto = model(nodes, inputs, [info("p", ["n"]), info("q", ["n"])])
    one = np.ones(3, np.float32)
    feeds = [
        {"trip": np.array(trip), "x": one, "y": one, "most": np.array(most, np.float32)}
        for trip, most in ((7, 1e9), (0, 1e9), (100, 50.0))
    ]
    agree(proto, tmp_path, *feeds)


def test_a_loop_that_stacks_up_to_a_bound(tmp_path: Path) -> None:
    body = loop(
        [
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["a", "f"], ["row"]),
            helper.make_node("Add", ["a", "row"], ["next"]),
        ],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("a", ["n"])],
        [info("going", [], TensorProto.BOOL), info("next", ["n"]), info("row", ["n"])],
    )
    nodes = [helper.make_node("Loop", ["trip", "", "x"], ["last", "rows"], name="steps", body=body)]
    inputs = [info("trip", [], TensorProto.INT64), info("x", ["n"])]
    proto = model(nodes, inputs, [info("last", ["n"]), info("rows", ["m", "n"])])
    feeds = [{"trip": np.array(t), "x": np.arange(n, dtype=np.float32)} for t, n in ((4, 3), (0, 2), (9, 5))]
    with pytest.raises(CompileError, match="nothing bounds it"):
        agree(proto, tmp_path, *feeds)
    agree(proto, tmp_path, *feeds, dims={"steps.steps": (0, 9)})
    loaded = compiler.load(proto, dims={"steps.steps": (0, 3)})
    runnable = CBackend(march="", opt="-O1").emit(CBackend().pipeline().run(loaded), tmp_path / "less", loaded).load()
    with pytest.raises(CompileError, match="beyond its limit"):
        runnable.run(feeds[0])


def test_a_carried_value_that_grows(tmp_path: Path) -> None:
    body = loop(
        [helper.make_node("Concat", ["a", "x"], ["longer"], axis=0)],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("a", ["k"])],
        [info("going", [], TensorProto.BOOL), info("longer", ["k2"])],
    )
    shape = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Squeeze", ["s"], ["trip"])]
    nodes = [*shape, helper.make_node("Loop", ["trip", "", "x"], ["y"], body=body)]
    proto = model(nodes, [info("x", ["n"])], [info("y", ["m"])])
    agree(proto, tmp_path, *({"x": np.arange(n, dtype=np.float32)} for n in (3, 1, 6)))


def test_an_if_whose_arms_differ_in_size(tmp_path: Path) -> None:
    arms = [
        helper.make_graph([helper.make_node("Concat", ["x", "x"], [f"{name}.y"], axis=0) for _ in range(1)], name,
                          [], [info(f"{name}.y", ["m"])])
        if name == "then" else helper.make_graph([helper.make_node("Neg", ["x"], ["else.y"])], name, [],
                                                 [info("else.y", ["n"])])
        for name in ("then", "else")
    ]  # fmt: skip
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=arms[0], else_branch=arms[1]),
        helper.make_node("Exp", ["y"], ["z"]),
    ]
    proto = model(nodes, [info("c", [], TensorProto.BOOL), info("x", ["n"])], [info("z", ["k"])])
    x = np.arange(4, dtype=np.float32)
    agree(proto, tmp_path, {"c": np.array(True), "x": x}, {"c": np.array(False), "x": x})


def test_a_scan_of_unknown_length(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["s2"]), helper.make_node("Mul", ["s2", "f"], ["row"])],
        "body",
        [info("s", ["k"]), info("e", ["k"]), info("f", ["k"])],
        [info("s2", ["k"]), info("row", ["k"])],
    )
    node = helper.make_node(
        "Scan", ["s0", "x", "y"], ["last", "rows"], body=body, num_scan_inputs=2, scan_input_axes=[0, 1],
        scan_input_directions=[0, 1], scan_output_axes=[1], scan_output_directions=[1],
    )  # fmt: skip
    inputs = [info("s0", ["k"]), info("x", ["t", "k"]), info("y", ["k", "t"])]
    proto = model([node], inputs, [info("last", ["k"]), info("rows", ["k", "t"])])
    rng = np.random.default_rng(0)
    feeds = [
        {
            "s0": rng.standard_normal(k).astype(np.float32),
            "x": rng.standard_normal((t, k)).astype(np.float32),
            "y": rng.standard_normal((k, t)).astype(np.float32),
        }
        for t, k in ((5, 3), (1, 1), (0, 2))
    ]
    agree(proto, tmp_path, *feeds)
