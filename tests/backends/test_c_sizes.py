"""Dims for which a tensor has no size: emitted C refuses them before it touches memory, where they matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler.errors import CompileError

FLOAT = TensorProto.FLOAT
node = helper.make_node
WEIGHT = numpy_helper.from_array(np.ones((1, 1, 3), np.float32), "w")


def value(name: str, *shape: int | str, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def loaded(nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto):
    graph = helper.make_graph(list(nodes), "sizes", list(inputs), [output], [WEIGHT])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return compiler.compile(model, "c", opt="-O1").load()


def arm(output: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "arm", [], [value(output)])


def test_a_window_that_does_not_fit_is_refused():
    model = loaded([node("Conv", ["x", "w"], ["y"])], [value("x", 1, 1, "L")], value("y", 1, 1, "M"))
    assert model.run({"x": np.ones((1, 1, 4), np.float32)})["y"].tolist() == [[[3.0, 3.0]]]
    with pytest.raises(CompileError, match="must not be negative"):
        model.run({"x": np.ones((1, 1, 1), np.float32)})


def test_sizes_in_a_branch_matter_where_it_runs():
    then = arm("a", node("Conv", ["x", "w"], ["z"]), node("ReduceSum", ["z"], ["a"], keepdims=0))
    orelse = arm("b", node("Add", ["x", "q"], ["s"]), node("ReduceSum", ["s"], ["b"], keepdims=0))
    branch = node("If", ["c"], ["y"], then_branch=then, else_branch=orelse)
    inputs = [value("x", 1, 1, "L"), value("q", 1, 1, "M"), value("c", dtype=TensorProto.BOOL)]
    model = loaded([branch], inputs, value("y"))

    def run(taken: bool, *lengths: int) -> float:
        x, q = (np.ones((1, 1, length), np.float32) for length in lengths)
        return model.run({"x": x, "q": q, "c": np.array(taken)})["y"].item()

    assert run(True, 4, 9) == 6.0
    assert run(False, 1, 1) == 2.0
    for taken, *lengths in ((True, 1, 1), (False, 4, 9)):
        with pytest.raises(CompileError, match="a dimension is out of its bounds"):
            run(taken, *lengths)
