"""Which inputs decide a size: those that it is computed from, and those that decide how control flows."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

import compiler
from backends.c import CBackend
from compiler.errors import CompileError
from tests.backends.test_run_time_sizes import info, loop, model

INT, BOOL = TensorProto.INT64, TensorProto.BOOL


def ranged(nodes: list[Any], inputs: list[Any]) -> Any:
    """A model that counts to `k`, which nodes make."""
    numbers = [helper.make_node("Constant", [], [name], value_int=n) for name, n in (("zero", 0), ("one", 1))]
    counted = helper.make_node("Range", ["zero", "k", "one"], ["y"])
    return model([*nodes, *numbers, counted], inputs, [info("y", ["n"], INT)])


def of_a_branch() -> Any:
    then = helper.make_graph([helper.make_node("Add", ["k1", "k1"], ["a"])], "then", [], [info("a", [], INT)])
    orelse = helper.make_graph([helper.make_node("Mul", ["k2", "k2"], ["b"])], "orelse", [], [info("b", [], INT)])
    node = helper.make_node("If", ["c"], ["k"], then_branch=then, else_branch=orelse)
    return ranged([node], [info("c", [], BOOL), info("k1", [], INT), info("k2", [], INT), info("x", [])])


def of_a_loop() -> Any:
    body = loop(
        [helper.make_node("Add", ["a", "by"], ["next"])],
        [info("i", [], INT), info("going", [], BOOL), info("a", [], INT)],
        [info("going", [], BOOL), info("next", [], INT)],
    )
    node = helper.make_node("Loop", ["t", "", "k0"], ["k"], body=body)
    return ranged([node], [info("t", [], INT), info("k0", [], INT), info("by", [], INT)])


def of_one_arm() -> Any:
    """The size is told in one arm only: the condition does not decide what it is."""
    counted = [
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Range", ["zero", "k1", "one"], ["r"]),
        helper.make_node("ReduceSum", ["r"], ["a"], keepdims=0),
    ]
    then = helper.make_graph(counted, "then", [], [info("a", [], INT)])
    orelse = helper.make_graph([helper.make_node("Identity", ["k2"], ["b"])], "orelse", [], [info("b", [], INT)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=orelse)
    return model([node], [info("c", [], BOOL), info("k1", [], INT), info("k2", [], INT)], [info("y", [], INT)])


@pytest.mark.parametrize(
    ("make", "inputs"),
    [(of_a_branch, {"c", "k1", "k2"}), (of_a_loop, {"t", "k0", "by"}), (of_one_arm, {"k1"})],
)
def test_inputs_that_decide_a_size(make: Any, inputs: set[str]) -> None:
    with pytest.raises(CompileError, match="nothing bounds it") as raised:
        CBackend(march="").pipeline().run(compiler.load(make()))
    errors = getattr(raised.value, "errors", [raised.value])
    assert {name for error in errors for name in error.needs} == inputs
