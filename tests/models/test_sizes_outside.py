"""Sizes that branches and loops give and that do not fit what they meet: a status, and nothing outside of memory is
touched. The sizes are such that what is too large reaches beyond a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from backends.c import CBackend
from backends.reference.program import run_program
from tests.backends.test_run_time_sizes import info, loop, model
from tests.models.guarded import run_fenced

INT, BOOL = TensorProto.INT64, TensorProto.BOOL
STEP = (info("i", [], INT), info("going", [], BOOL))
MANY = 100_000
Case = tuple[Any, dict[str, Any], dict[str, np.ndarray], str]
"""A model, its dims, inputs, and what the status says."""


def floats(count: int) -> np.ndarray:
    return np.ones(count, np.float32)


def branches() -> Case:
    """What an If gives meets an input: it was planned to have that many elements, and was copied before."""
    then = helper.make_graph([helper.make_node("Abs", ["x"], ["a"])], "then", [], [info("a", ["N"])])
    orelse = helper.make_graph([helper.make_node("Neg", ["y"], ["b"])], "orelse", [], [info("b", ["M"])])
    nodes = [
        helper.make_node("If", ["c"], ["o"], then_branch=then, else_branch=orelse),
        helper.make_node("Add", ["o", "z"], ["s"]),
        helper.make_node("Abs", ["s"], ["r"]),
    ]
    inputs = [info("c", [], BOOL), info("x", ["N"]), info("y", ["M"]), info("z", ["N"])]
    feeds = {"c": np.array(False), "x": floats(4), "y": floats(MANY), "z": floats(4)}
    return model(nodes, inputs, [info("r", ["N"])]), {}, feeds, "dimension"


def rows() -> Case:
    """What a Loop stacks meets an input: it was planned to have that many rows."""
    body = loop([helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT)], list(STEP),
                [info("going", [], BOOL), info("f", [])])  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["t", ""], ["st"], name="lp", body=body),
        helper.make_node("Add", ["st", "z"], ["s"]),
    ]
    proto = model(nodes, [info("t", [], INT), info("z", ["N"])], [info("s", ["N"])])
    return proto, {"lp.steps": (0, MANY)}, {"t": np.array(MANY), "z": floats(4)}, "dimension"


def carried() -> Case:
    """What a Loop carries, and makes longer in each step, meets an input."""
    body = loop([helper.make_node("Concat", ["a", "x"], ["longer"], axis=0)], [*STEP, info("a", ["k"])],
                [info("going", [], BOOL), info("longer", ["k2"])])  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["t", "", "x"], ["long"], name="lp", body=body),
        helper.make_node("Add", ["long", "z"], ["s"]),
    ]
    proto = model(nodes, [info("t", [], INT), info("x", ["M"]), info("z", ["N"])], [info("s", ["N"])])
    feeds = {"t": np.array(9), "x": floats(MANY // 10), "z": floats(4)}
    return proto, {"lp.steps": (0, 9)}, feeds, "dimension"


def replaced() -> Case:
    """What a Loop carries becomes longer than the limit that was given for it, by a number known when compiling."""
    body = loop([helper.make_node("Identity", ["w"], ["next"])], [*STEP, info("a", ["k"])],
                [info("going", [], BOOL), info("next", ["k2"])])  # fmt: skip
    nodes = [helper.make_node("Loop", ["t", "", "x"], ["y"], name="lp", body=body)]
    proto = model(nodes, [info("t", [], INT), info("x", ["N"]), info("w", [MANY])], [info("y", ["K"])])
    return proto, {"lp.in.0.0": (0, 3)}, {"t": np.array(1), "x": floats(3), "w": floats(MANY)}, "limit"


def windows(combine: str) -> Case:
    """A window that does not fit what a Loop captures: its positions, reduced, are fewer than none."""
    constant = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 3], [1, 1, 1])
    body = loop(
        [
            helper.make_node("Constant", [], ["w"], value=constant),
            helper.make_node("Conv", ["x", "w"], ["k"]),
            helper.make_node(combine, ["k"], ["q"], keepdims=0),
            helper.make_node("Add", ["a", "q"], ["next"]),
        ],
        [*STEP, info("a", [])],
        [info("going", [], BOOL), info("next", [])],
    )
    nodes = [helper.make_node("Loop", ["t", "", "a0"], ["r"], body=body)]
    proto = model(nodes, [info("t", [], INT), info("a0", []), info("x", [1, 1, "H"])], [info("r", [])])
    feeds = {"t": np.array(2), "a0": np.zeros((), np.float32), "x": np.ones((1, 1, 1), np.float32)}
    return proto, {}, feeds, "dimension"


def windows_summed() -> Case:
    return windows("ReduceSum")


def windows_compared() -> Case:
    return windows("ReduceMax")


CASES = [branches, rows, carried, replaced, windows_summed, windows_compared]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_outside_is_touched(case: Any, tmp_path: Path) -> None:
    proto, dims, feeds, said = case()
    loaded = compiler.load(proto, dims=dims)
    backend = CBackend(march="", opt="-O1")
    program = backend.pipeline().run(loaded)
    folder = backend.emit(program, tmp_path / "net", loaded).folder
    [[outcome]] = run_fenced([(case.__name__, str(folder), [feeds])], tmp_path)
    assert isinstance(outcome, str) and said in outcome
    with pytest.raises(ValueError, match=r"it must( not)? be|must be equal|the run gives"):
        run_program(program, feeds)
