"""Control flow and sequences: what is inlined or unrolled when compiling, and what stays for the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import UnsupportedError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def unknown(*names: str) -> list[onnx.ValueInfoProto]:
    return [onnx.ValueInfoProto(name=name) for name in names]


def body(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]
) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), unknown(*outputs))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), unknown(*outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def imported(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
) -> Graph:  # fmt: skip
    return import_model(read_model_proto(model(nodes, inputs, outputs, constants or {})))


def structural(graph: Graph) -> list[str]:
    """The ops that only the interpreter runs, or a branch."""
    return [node.op.name for node in graph.nodes() if node.op.structural and node.op.name != "const"]


def array(values: object, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype)


def branches(then: onnx.NodeProto, orelse: onnx.NodeProto) -> onnx.NodeProto:
    graphs = {"then_branch": body([then], [], then.output), "else_branch": body([orelse], [], orelse.output)}
    return helper.make_node("If", ["c"], ["y"], name="choice", **graphs)


ADD, MUL = helper.make_node("Add", ["x", "x"], ["a"]), helper.make_node("Mul", ["x", "x"], ["m"])


def test_if_with_a_known_condition_is_inlined() -> None:
    graph = imported([branches(ADD, MUL)], [tensor("x", FLOAT, 2)], ["y"], {"c": array(False, np.bool_)})
    assert structural(graph) == []
    assert evaluate_graph(graph, [array([3, 4])])[0].tolist() == [9, 16]


def test_if_at_run_time() -> None:
    graph = imported([branches(ADD, MUL)], [tensor("c", BOOL), tensor("x", FLOAT, 2)], ["y"])
    assert structural(graph) == ["if_"]
    for condition, want in ((True, [6, 8]), (False, [9, 16])):
        assert evaluate_graph(graph, [array(condition, np.bool_), array([3, 4])])[0].tolist() == want


def test_branches_of_different_sizes() -> None:
    double = helper.make_node("Concat", ["x", "x"], ["a"], axis=0)
    graph = imported([branches(double, MUL)], [tensor("c", BOOL), tensor("x", FLOAT, 2)], ["y"])
    assert "choice.0.0" in str(graph.outputs[0].type)
    assert evaluate_graph(graph, [array(True, np.bool_), array([3, 4])])[0].tolist() == [3, 4, 3, 4]


def test_branches_of_different_ranks_are_refused() -> None:
    flat = helper.make_node("ReduceSum", ["x"], ["a"], keepdims=0)
    with pytest.raises(UnsupportedError, match="ranks must agree; give the sizes or inputs"):
        imported([branches(flat, MUL)], [tensor("c", BOOL), tensor("x", FLOAT, 2)], ["y"])


def test_squeezing_by_a_size_that_is_not_known_assumes_it_is_one() -> None:
    squeeze = helper.make_node("Squeeze", ["x", "axis"], ["a"])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "axis"], ["n"]),
        helper.make_node("Equal", ["n", "axis"], ["c"]), branches(squeeze, helper.make_node("Identity", ["x"], ["m"])),
    ]  # fmt: skip
    graph = imported(nodes, [tensor("x", FLOAT, 2, "N")], ["y"], {"axis": array([1], np.int64)})
    assert [v.rank for v in graph.outputs] == [1]
    assert evaluate_graph(graph, [array([[3], [4]])])[0].tolist() == [3, 4]
    with pytest.raises(ValueError, match="must be"):
        evaluate_graph(graph, [array([[3, 1], [4, 1]])])


STEP = body(
    [helper.make_node("Identity", ["going"], ["go_on"]), helper.make_node("Add", ["s", "x"], ["next"]),
     helper.make_node("Mul", ["next", "x"], ["out"])],
    [tensor("i", INT64), tensor("going", BOOL), tensor("s", FLOAT, 2)], ["go_on", "next", "out"],
)  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
def test_loop(known: bool) -> None:
    trip = {"trip": array(3, np.int64)}
    node = helper.make_node("Loop", ["trip", "", "first"], ["last", "all"], body=STEP)
    inputs = [tensor("first", FLOAT, 2), tensor("x", FLOAT, 2)]
    graph = imported(
        [node], [*inputs, *([] if known else [tensor("trip", INT64)])], ["last", "all"], trip if known else None
    )
    assert structural(graph) == ([] if known else ["loop"])
    last, every = evaluate_graph(graph, [array([0, 1]), array([1, 2]), *([] if known else [trip["trip"]])])
    assert last.tolist() == [3, 7]
    assert every.tolist() == [[1, 6], [2, 10], [3, 14]]


def test_loop_of_no_steps() -> None:
    node = helper.make_node("Loop", ["trip", "", "first"], ["last", "all"], body=STEP)
    inputs = [tensor("first", FLOAT, 2), tensor("x", FLOAT, 2)]
    graph = imported([node], inputs, ["last", "all"], {"trip": array(0, np.int64)})
    last, every = evaluate_graph(graph, [array([0, 1]), array([1, 2])])
    assert (last.tolist(), every.shape) == ([0, 1], (0, 2))


def test_loop_whose_value_grows() -> None:
    grow = body(
        [helper.make_node("Identity", ["going"], ["go_on"]), helper.make_node("Concat", ["s", "s"], ["next"], axis=0)],
        [tensor("i", INT64), tensor("going", BOOL), tensor("s", FLOAT, "K")], ["go_on", "next"],
    )  # fmt: skip
    node = helper.make_node("Loop", ["trip", "", "first"], ["last"], body=grow)
    graph = imported([node], [tensor("trip", INT64), tensor("first", FLOAT, 1)], ["last"])
    assert evaluate_graph(graph, [array(3, np.int64), array([5])])[0].tolist() == [5] * 8


def test_loop_until_a_condition_known_when_compiling() -> None:
    count = body(
        [helper.make_node("Less", ["i", "four"], ["go_on"]), helper.make_node("Add", ["s", "s"], ["next"])],
        [tensor("i", INT64), tensor("going", BOOL), tensor("s", FLOAT, 2)], ["go_on", "next"],
    )  # fmt: skip
    node = helper.make_node("Loop", ["", "yes", "first"], ["last"], body=count)
    constants = {"yes": array(True, np.bool_), "four": array(4, np.int64)}
    graph = imported([node], [tensor("first", FLOAT, 2)], ["last"], constants)
    assert structural(graph) == []
    assert evaluate_graph(graph, [array([1, 2])])[0].tolist() == [32, 64]


@pytest.mark.parametrize("length", [3, "T"])
def test_scan(length: int | str) -> None:
    step = body(
        [helper.make_node("Add", ["s", "x"], ["next"]), helper.make_node("Mul", ["next", "w"], ["out"])],
        [tensor("s", FLOAT, 2), tensor("x", FLOAT, 2)], ["next", "out"],
    )  # fmt: skip
    node = helper.make_node(
        "Scan", ["first", "rows"], ["last", "all"], body=step, num_scan_inputs=1, scan_input_axes=[1],
        scan_input_directions=[1], scan_output_axes=[-1],
    )  # fmt: skip
    inputs = [tensor("first", FLOAT, 2), tensor("rows", FLOAT, 2, length), tensor("w", FLOAT, 2)]
    graph = imported([node], inputs, ["last", "all"])
    assert structural(graph) == ([] if length == 3 else ["scan"])
    rows = array([[1, 2, 3], [4, 5, 6]])
    last, every = evaluate_graph(graph, [array([0, 0]), rows, array([1, 10])])
    assert last.tolist() == [6, 15]
    assert every.tolist() == [[3, 5, 6], [60, 110, 150]]


def test_sequences_made_and_taken_apart_leave_tensors() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "z"], ["s0"]),
        helper.make_node("SequenceInsert", ["s0", "w", "one"], ["s1"]),
        helper.make_node("SequenceErase", ["s1", "zero"], ["s2"]),
        helper.make_node("SequenceLength", ["s2"], ["n"]),
        helper.make_node("ConcatFromSequence", ["s2"], ["y"], axis=0),
        helper.make_node("SequenceAt", ["s2", "last"], ["e"]),
    ]
    inputs = [tensor(name, FLOAT, 2) for name in "xzw"]
    constants = {name: array(v, np.int64) for name, v in (("one", 1), ("zero", 0), ("last", -1))}
    graph = imported(nodes, inputs, ["n", "y", "e"], constants)
    n, y, e = evaluate_graph(graph, [array([1, 2]), array([3, 4]), array([5, 6])])
    assert (n.tolist(), y.tolist(), e.tolist()) == (2, [5, 6, 3, 4], [3, 4])
    used = {node.op.name for value in graph.outputs for node in [value.node] if node is not None}
    assert used <= {"const", "concat"}


def test_sequence_at_a_place_known_at_run_time() -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0),
             helper.make_node("SequenceAt", ["s", "at"], ["y"])]  # fmt: skip
    graph = imported(nodes, [tensor("x", FLOAT, 3, 2), tensor("at", INT64)], ["y"])
    assert evaluate_graph(graph, [array([[1, 2], [3, 4], [5, 6]]), array(-2, np.int64)])[0].tolist() == [3, 4]


def test_a_place_outside_of_a_sequence_is_refused() -> None:
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("SequenceAt", ["s", "at"], ["y"])]
    with pytest.raises(UnsupportedError, match="`position` is 1 in a sequence of 1"):
        imported(nodes, [tensor("x", FLOAT, 2)], ["y"], {"at": array(1, np.int64)})
