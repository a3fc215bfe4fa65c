"""Malformed models: each is refused with an error that says what is wrong, and names the node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import compiler
from compiler.errors import CompileError, ModelError, UnsupportedError
from ir.evaluate import evaluate_graph

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
node = helper.make_node


def value(name: str, dtype: int = FLOAT, shape: Sequence[int | str] = (2, 3)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def model(*nodes: onnx.NodeProto, functions: Sequence[onnx.FunctionProto] = (), **others: object) -> onnx.ModelProto:
    inputs = [value("x"), value("c", BOOL, ()), value("n", INT64, ())]
    graph = helper.make_graph(list(nodes), "g", inputs, [value("y")], **others)  # type: ignore[arg-type]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=list(functions), opset_imports=opsets)


def body(inputs: Sequence[str], outputs: Sequence[str], *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", [value(n) for n in inputs], [value(n) for n in outputs])


def call(*inputs: str, output: str = "r") -> onnx.ModelProto:
    """A model that calls a function whose output is `output`, which its only node calls `r`."""
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Twice", ["a"], [output], [node("Add", ["a", "a"], ["r"])], opsets)
    return model(node("Twice", list(inputs), ["y"], domain="own", name="it"), functions=[function])


WEIGHT = helper.make_tensor("w", FLOAT, [3], [1.0, 2.0, 3.0])
CASES = {
    "unknown value": (model(node("Add", ["x", "z"], ["y"], name="it")), "nothing produces the value 'z'"),
    "user before producer": (
        model(node("Relu", ["z"], ["y"], name="it"), node("Relu", ["x"], ["z"])),
        "nothing produces the value 'z' before it is used",
    ),
    "cycle": (
        model(node("Add", ["x", "y"], ["z"], name="it"), node("Relu", ["z"], ["y"])),
        "nothing produces the value 'y'",
    ),
    "text for a number": (
        model(node("Softmax", ["x"], ["y"], axis="one", name="it")),
        "attribute `axis` is STRING; Softmax takes INT",
    ),
    "number for a list": (
        model(node("Transpose", ["x"], ["y"], perm=1, name="it")),
        "attribute `perm` is INT; Transpose takes INTS",
    ),
    "number for a graph": (
        model(node("If", ["c"], ["y"], then_branch=1, else_branch=1, name="it")),
        "is INT; If takes GRAPH",
    ),
    "branch without its value": (
        model(node("If", ["c"], ["y"], then_branch=body([], ["z"]), else_branch=body([], ["x"]), name="it")),
        "nothing produces the value 'z'",
    ),
    "branch with inputs": (
        model(node("If", ["c"], ["y"], then_branch=body(["q"], ["q"]), else_branch=body([], ["x"]), name="it")),
        "'body' has 1 inputs; it must take 0",
    ),
    "loop body without inputs": (
        model(node("Loop", ["n", "c", "x"], ["y"], body=body([], ["c", "x"]), name="it")),
        "'body' has 0 inputs; it must take 3",
    ),
    "function without its value": (call("x", output="q"), "its function produces no value 'q'"),
    "too many operands of a function": (call("x", "x"), "it has 2 inputs; its function takes 1"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_model_is_refused_by_node(name: str):
    given, message = CASES[name]
    with pytest.raises(ModelError) as caught:
        compiler.load(given)
    assert message in caught.value.message
    assert caught.value.node is not None and caught.value.node.name == "it"


def test_a_loop_body_without_results_is_refused():
    given = model(node("Loop", ["n", "c", "x"], ["y"], body=body(["i", "go", "v"], []), name="it"))
    with pytest.raises(compiler.CompileError, match="its body gives 0 results"):
        compiler.load(given)


def test_two_initializers_of_one_name_are_refused():
    with pytest.raises(ModelError, match="two initializers are called 'w'"):
        compiler.load(model(node("Add", ["x", "w"], ["y"]), initializer=[WEIGHT, WEIGHT]))


def test_a_dim_name_of_excessive_length_is_refused():
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "g", [value("x", shape=("a" * 3000, 3))], [value("y")])
    with pytest.raises(ModelError, match="3000 characters"):
        compiler.load(helper.make_model(graph))


def test_no_control_characters_of_a_name_reach_the_terminal():
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "g", [value("x", shape=("\x1b[31mN", 3))], [value("y")])
    with pytest.raises(compiler.CompileError) as caught:
        compiler.load(helper.make_model(graph), dims={"M": 1})
    assert "\\x1b[31mN" in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_model_may_have_any_name():
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "../a\0b", [value("x")], [value("y")])
    assert compiler.compile(helper.make_model(graph), "reference").folder.is_dir()


def test_a_branch_may_use_a_table_of_symbolic_sizes():
    inputs = [value("x", shape=("A", "B")), value("c", BOOL, ())]
    twice, same = body([], ["t"], node("Add", ["s", "s"], ["t"])), body([], ["s"])
    nodes = [
        node("Constant", [], ["axes"], value_ints=[0]),
        node("Shape", ["x"], ["sizes"]),
        node("Unsqueeze", ["sizes", "axes"], ["s"]),
        node("If", ["c"], ["y"], then_branch=twice, else_branch=same),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", INT64, (1, 2))])
    made = compiler.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).graph
    assert str(made.outputs[0].type) == "i64[1,2]"
    found = evaluate_graph(made, [np.zeros((3, 4), np.float32), np.array(True)])[0]
    assert found.tolist() == [[6, 8]]


def test_a_name_cannot_pass_for_a_line_of_an_error() -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="n'\nerror[E0000]: forged")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    with pytest.raises(CompileError) as caught:
        compiler.load(model)
    lines = str(caught.value).splitlines()
    assert any("forged" in line for line in lines)
    assert not any(line.startswith("error[E0000]") for line in lines)


def test_attributes_reach_graphs_beside_references() -> None:
    """A function's node with an attribute of its own and a graph in which another attribute is referred to."""
    reference = {"ref_attr_name": "alpha", "type": onnx.AttributeProto.FLOAT}
    inner = helper.make_node("Constant", [], ["c"])
    inner.attribute.append(onnx.AttributeProto(name="value_float", **reference))
    arms = {
        name: helper.make_graph([inner], name, [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [])])
        for name in ("then_branch", "else_branch")
    }
    choose = helper.make_node("If", ["flag"], ["out"], **arms)
    leaky = helper.make_node("LeakyRelu", ["x"], ["r"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", **reference))
    add = helper.make_node("Add", ["r", "out"], ["y"])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", ["x", "flag"], ["y"], [choose, leaky, add], opsets, ["alpha"])
    call = helper.make_node("F", ["x", "flag"], ["y"], domain="own", alpha=0.5)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph([call], "g", [x, flag], [y])
    loaded = compiler.load(helper.make_model(graph, opset_imports=opsets, functions=[function]))
    (made,) = evaluate_graph(loaded.graph, [np.array([-2, 2], np.float32), np.array(True)])
    np.testing.assert_array_equal(made, np.array([-0.5, 2.5], np.float32))


def test_a_size_that_cannot_be_decided_is_a_refusal() -> None:
    """Of a slice with as many axes as only a run tells; an error of its own would be no answer to a valid model."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[4, 4] x, int64[n] starts, int64[n] ends) => (float[a, b] y) { y = Slice (x, starts, ends) }"""
    with pytest.raises(UnsupportedError, match=r"Slice: .*must be known when compiling"):
        compiler.load(onnx.parser.parse_model(text))
