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
from ir.evaluate import EvaluationError, evaluate_graph
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


INT = TensorProto.INT64


def experts() -> Any:
    """Rows of x cut in two where an input says, each part transformed on its own; then scaled row by row."""
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_int=0), helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Range", ["zero", "cut", "one"], ["first"]),
        helper.make_node("Range", ["cut", "end", "one"], ["second"]),
        helper.make_node("Gather", ["x", "first"], ["a"]), helper.make_node("Gather", ["x", "second"], ["b"]),
        helper.make_node("MatMul", ["a", "w"], ["p"]), helper.make_node("Neg", ["b"], ["q"]),
        helper.make_node("Concat", ["p", "q"], ["r"], axis=0), helper.make_node("Mul", ["r", "scale"], ["y"]),
    ]  # fmt: skip
    inputs = [
        info("x", ["T", 4]), info("w", [4, 4]), info("cut", [], INT), info("end", [], INT), info("scale", ["T", 4]),
    ]  # fmt: skip
    return model(nodes, inputs, [info("y", ["T", 4])])


def expert_feeds(cut: int, end: int, rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    floats = {n: rng.standard_normal(s).astype(np.float32) for n, s in (("x", (rows, 4)), ("w", (4, 4)))}
    return {**floats, "cut": np.array(cut), "end": np.array(end), "scale": np.ones((rows, 4), np.float32)}


def test_ranges_are_bounded_by_the_size_that_their_sum_must_have(tmp_path: Path) -> None:
    proto = experts()
    feeds = [expert_feeds(cut, 2 * n, 2 * n) for cut, n in ((2, 3), (0, 2), (4, 2), (1, 1))]
    agree(proto, tmp_path, *feeds)
    loaded = compiler.load(proto)
    program = CBackend().pipeline().run(loaded)
    assert sorted(map(str, program.limits.values())) == ["T", "T"]
    sizes = {str(program.capacity(program.buffers[name].type)) for name in program.buffers if name in "pqr"}
    assert sizes == {"16*T"}


@pytest.mark.parametrize(("cut", "end"), [(2, 5), (9, 6), (-3, 6), (2, 7)])
def test_ranges_that_do_not_add_up_are_refused_by_a_run(tmp_path: Path, cut: int, end: int) -> None:
    proto, feeds = experts(), expert_feeds(cut, end, 6)
    graph = compiler.load(proto).graph
    with pytest.raises((ValueError, EvaluationError)):
        evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
    with pytest.raises(CompileError):
        compiler.compile(proto, out=tmp_path / "net").load().run(feeds)


def test_a_range_that_nothing_bounds_needs_a_bound(tmp_path: Path) -> None:
    nodes = [helper.make_node("Range", ["from", "to", "by"], ["y"])]
    for kind, values in ((INT, (7, -1, -3)), (TensorProto.FLOAT, (0.5, 3.0, 0.75)), (INT, (3, 1, 1)), (INT, (3, 1, 0))):
        proto = model(nodes, [info(name, [], kind) for name in ("from", "to", "by")], [info("y", ["n"], kind)])
        with pytest.raises(CompileError, match="nothing bounds it"):
            compiler.compile(proto, out=tmp_path / "unbounded")
        dtype = np.int64 if kind == INT else np.float32
        feeds = {name: np.array(value, dtype) for name, value in zip(("from", "to", "by"), values)}
        agree(proto, tmp_path / f"{kind}{values}", feeds, dims={"n": (0, 9)})


def test_an_unbounded_size_names_the_inputs_that_decide_it() -> None:
    body = loop(
        [helper.make_node("Identity", ["a"], ["row"]), helper.make_node("Identity", ["a"], ["next"])],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("a", ["n"])],
        [info("going", [], TensorProto.BOOL), info("next", ["n"]), info("row", ["n"])],
    )
    nodes = [
        helper.make_node("Mul", ["half", "two"], ["trip"]),
        helper.make_node("Loop", ["trip", "", "x"], ["last", "rows"], name="steps", body=body),
    ]
    number = [info(name, [], TensorProto.INT64) for name in ("half", "two")]
    proto = model(nodes, [*number, info("x", ["n"])], [info("last", ["n"]), info("rows", ["m", "n"])])
    with pytest.raises(CompileError, match="nothing bounds it") as raised:
        CBackend(march="").pipeline().run(compiler.load(proto))
    errors = getattr(raised.value, "errors", [raised.value])
    assert {name for error in errors for name in error.needs} == {"half", "two"}


def test_a_loop_that_stacks_nothing_names_the_inputs_that_decide_its_steps() -> None:
    body = loop(
        [helper.make_node("Concat", ["a", "a"], ["next"], axis=0)],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("a", ["n"])],
        [info("going", [], TensorProto.BOOL), info("next", ["m"])],
    )
    nodes = [helper.make_node("Loop", ["trip", "", "x"], ["last"], name="doubled", body=body)]
    proto = model(nodes, [info("trip", [], TensorProto.INT64), info("x", [2])], [info("last", ["k"])])
    with pytest.raises(CompileError, match="nothing bounds it") as raised:
        CBackend(march="").pipeline().run(compiler.load(proto))
    errors = getattr(raised.value, "errors", [raised.value])
    assert errors and all("trip" in error.needs for error in errors)
