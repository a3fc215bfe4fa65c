"""Sizes that a run tells in different ways and that must agree: where they are checked, and against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from compiler.errors import CompileError
from ir.evaluate import evaluate_graph
from tests.backends.test_run_time_sizes import agree, info, loop, model

INT, BOOL = TensorProto.INT64, TensorProto.BOOL
STEP = (info("i", [], INT), info("going", [], BOOL))


def kept(x: str, mask: str, made: str) -> list[Any]:
    """Nodes that make `made` of the entries of x where `mask` holds."""
    return [
        helper.make_node("NonZero", [mask], [f"{made}_at"]),
        helper.make_node("Constant", [], [f"{made}_first"], value_ints=[0]),
        helper.make_node("Squeeze", [f"{made}_at", f"{made}_first"], [f"{made}_flat"]),
        helper.make_node("Gather", [x, f"{made}_flat"], [made]),
    ]


def refused(proto: Any, tmp_path: Path, feeds: dict[str, np.ndarray], **options: Any) -> None:
    """A run of the interpreter and one of C both fail, the latter with a status."""
    loaded = compiler.load(proto, **options)
    with pytest.raises(Exception, match=r"must be|must have|must agree"):
        evaluate_graph(loaded.graph, [feeds[v.name] for v in loaded.graph.inputs])
    runnable = compiler.compile(loaded, out=tmp_path / "refused", opt="-O1").load(opt="-O1")
    with pytest.raises(CompileError, match="dimension"):
        runnable.run(feeds)


def arms(first: list[Any], second: list[Any]) -> dict[str, Any]:
    return {
        "then_branch": helper.make_graph(first, "then", [], [info(first[-1].output[0], ["p"])]),
        "else_branch": helper.make_graph(second, "else", [], [info(second[-1].output[0], ["q"])]),
    }


def if_and_kept() -> Any:
    """What an If gives, of n or 2n elements, plus the entries of z that are not below 0."""
    choice = arms([helper.make_node("Concat", ["x", "x"], ["a"], axis=0)], [helper.make_node("Neg", ["x"], ["b"])])
    nodes = [
        helper.make_node("If", ["c"], ["y"], **choice),
        helper.make_node("GreaterOrEqual", ["z", "zero"], ["mask"]),
        *kept("z", "mask", "w"),
        helper.make_node("Add", ["y", "w"], ["sum"]),
    ]
    inputs = [info("c", [], BOOL), info("x", ["n"]), info("z", ["m"]), info("zero", [])]
    return model(nodes, inputs, [info("sum", ["k"])])


def if_feeds(takes_then: bool, count: int) -> dict[str, np.ndarray]:
    rows = {"x": np.ones(3, np.float32), "z": np.arange(count, dtype=np.float32)}
    return {**rows, "c": np.array(takes_then), "zero": np.zeros((), np.float32)}


def test_what_an_if_gives_meets_a_size_told_later(tmp_path: Path) -> None:
    agree(if_and_kept(), tmp_path, if_feeds(True, 6), if_feeds(False, 3))


@pytest.mark.parametrize(("takes_then", "count"), [(True, 1), (True, 3), (False, 6)])
def test_what_an_if_gives_is_checked_against_a_size_told_later(takes_then: bool, count: int, tmp_path: Path) -> None:
    """It was forgotten after the If, and the shorter operand read beyond its end."""
    refused(if_and_kept(), tmp_path, if_feeds(takes_then, count))


def test_a_carried_size_meets_one_told_in_each_step(tmp_path: Path) -> None:
    """The size after a step was held against the size that the step had told."""
    body = loop(
        [
            helper.make_node("GreaterOrEqual", ["a", "least"], ["mask"]),
            *kept("a", "mask", "same"),
            helper.make_node("Add", ["a", "same"], ["twice"]),
            helper.make_node("Concat", ["twice", "one"], ["longer"], axis=0),
        ],
        [*STEP, info("a", ["k"])],
        [info("going", [], BOOL), info("longer", ["k2"])],
    )
    shape = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Squeeze", ["s"], ["trip"])]
    nodes = [*shape, helper.make_node("Loop", ["trip", "", "x"], ["y"], body=body)]
    proto = model(nodes, [info("x", ["n"]), info("least", []), info("one", [1])], [info("y", ["m"])])
    given = {"x": np.ones(3, np.float32), "one": np.ones(1, np.float32)}
    agree(proto, tmp_path, {**given, "least": np.array(-1, np.float32)})
    refused(proto, tmp_path, {**given, "least": np.array(2, np.float32)})


def test_rows_told_in_each_step(tmp_path: Path) -> None:
    """Rows of other sizes than the first were stacked, with holes between them."""
    body = loop(
        [
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("LessOrEqual", ["x", "f"], ["mask"]),
            *kept("x", "mask", "row"),
        ],
        list(STEP),
        [info("going", [], BOOL), info("row", ["k"])],
    )
    nodes = [helper.make_node("Loop", ["trip", ""], ["y"], name="steps", body=body)]
    proto = model(nodes, [info("trip", [], INT), info("x", ["n"])], [info("y", ["m", "k"])])
    same, rising = np.zeros(3, np.float32), np.arange(3, dtype=np.float32)
    options: dict[str, Any] = {"dims": {"steps.steps": (0, 5)}}
    agree(proto, tmp_path, *({"trip": np.array(n), "x": same} for n in (2, 0, 5)), **options)
    refused(proto, tmp_path, {"trip": np.array(3), "x": rising}, **options)


def test_the_number_of_steps_meets_a_size_told_before(tmp_path: Path) -> None:
    """While the rows were not made yet, their greatest number was held against the other size."""
    body = loop([helper.make_node("Cast", ["i"], ["row"], to=TensorProto.FLOAT)], list(STEP),
                [info("going", [], BOOL), info("row", [])])  # fmt: skip
    nodes = [
        helper.make_node("GreaterOrEqual", ["x", "zero"], ["mask"]),
        *kept("x", "mask", "z"),
        helper.make_node("Loop", ["trip", ""], ["rows"], name="steps", body=body),
        helper.make_node("Add", ["rows", "z"], ["y"]),
    ]
    inputs = [info("trip", [], INT), info("x", ["n"]), info("zero", [])]
    proto = model(nodes, inputs, [info("y", ["k"])])
    given = {"x": np.arange(4, dtype=np.float32), "zero": np.zeros((), np.float32)}
    options: dict[str, Any] = {"dims": {"steps.steps": (0, 9)}}
    agree(proto, tmp_path, {**given, "trip": np.array(4)}, **options)
    refused(proto, tmp_path, {**given, "trip": np.array(5)}, **options)


def growing(trip: str, made: str) -> Any:
    """A loop node `again` that puts x behind x, `trip` times."""
    body = loop([helper.make_node("Concat", ["a", "x"], ["longer"], axis=0)], [*STEP, info("a", ["k"])],
                [info("going", [], BOOL), info("longer", ["k2"])])  # fmt: skip
    return helper.make_node("Loop", [trip, "", "x"], [made], name="again", body=body)


def test_a_dim_that_is_called_like_a_new_size(tmp_path: Path) -> None:
    """The new size of what a loop carries hid the dim, and was computed from itself."""
    body = loop([helper.make_node("Concat", ["a", "x"], ["longer"], axis=0)], [*STEP, info("a", ["k"])],
                [info("going", [], BOOL), info("longer", ["k2"])])  # fmt: skip
    nodes = [helper.make_node("Loop", ["t", "", "a0"], ["y"], name="lp", body=body)]
    inputs = [info("t", [], INT), info("a0", ["A"]), info("x", ["new_lp_in_0_0"])]
    feeds = {"t": np.array(2), "a0": np.ones(2, np.float32), "x": np.full(3, 2, np.float32)}
    agree(model(nodes, inputs, [info("y", ["m"])]), tmp_path, feeds, dims={"lp.steps": (0, 10)})


def test_loops_of_one_name(tmp_path: Path) -> None:
    """The sizes of the first were those of the second from then on."""
    nodes = [growing("t1", "one"), growing("t2", "two"), helper.make_node("Concat", ["one", "two"], ["y"], axis=0)]
    inputs = [info("x", ["n"]), info("t1", [], INT), info("t2", [], INT)]
    proto = model(nodes, inputs, [info("y", ["m"]), info("one", ["k"])])
    feeds = {"x": np.arange(2, dtype=np.float32), "t1": np.array(3), "t2": np.array(1)}
    agree(proto, tmp_path, feeds, dims={"again.in.0.0": (0, 8), "again#2.in.0.0": (0, 8)})


def test_a_loop_in_steps_that_are_written_out(tmp_path: Path) -> None:
    """All steps had the sizes of the last."""
    body = loop(
        [
            helper.make_node("Gather", ["trips", "i"], ["trip"]),
            growing("trip", "piece"),
            helper.make_node("Concat", ["all", "piece"], ["more"], axis=0),
        ],
        [*STEP, info("all", ["k"])],
        [info("going", [], BOOL), info("more", ["k2"])],
    )
    nodes = [
        helper.make_node("Constant", [], ["three"], value_int=3),
        helper.make_node("Loop", ["three", "", "x"], ["y"], name="outer", body=body),
    ]
    proto = model(nodes, [info("x", ["n"]), info("trips", [3], INT)], [info("y", ["m"])])
    feeds = {"x": np.arange(2, dtype=np.float32), "trips": np.array([1, 3, 2])}
    agree(proto, tmp_path, feeds, dims={f"outer/again{n}.in.0.0": (0, 8) for n in ("", "#2", "#3")})


def test_what_nothing_needs_demands_nothing(tmp_path: Path) -> None:
    """Sizes of a Reshape that nothing uses became dims for callers to give."""
    shaped = [
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["s", "shape"], ["unused"]),
        helper.make_node("Identity", ["s"], ["next"]),
        helper.make_node("Identity", ["x"], ["row"]),
    ]
    body = helper.make_graph(
        shaped, "body", [info("s", ["n"]), info("e", [])], [info("next", ["n"]), info("row", ["n"])]
    )
    node = helper.make_node("Scan", ["x", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    proto = model([node], [info("x", ["n"]), info("rows", [1], INT)], [info("last", ["n"]), info("y", ["n", "n"])])
    agree(proto, tmp_path, {"x": np.arange(4, dtype=np.float32), "rows": np.array([2])})
    assert [dim["name"] for dim in compiler.compile(proto, out=tmp_path / "dims").manifest["dims"]] == ["n"]


def test_a_scan_that_gives_one_value_twice(tmp_path: Path) -> None:
    """In the loop that it becomes, two results had one name."""
    body = helper.make_graph([], "body", [info("s", ["n"]), info("e", [])], [info("s", ["n"]), info("s", ["n"])])
    node = helper.make_node("Scan", ["x", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    proto = model([node], [info("x", ["n"])], [info("last", ["n"]), info("y", ["n", "n"])])
    agree(proto, tmp_path, {"x": np.arange(4, dtype=np.float32)})


def test_rows_of_a_loop_without_a_step(tmp_path: Path) -> None:
    """The kernel for rows that are never made stored outside of nothing."""
    body = loop([helper.make_node("Neg", ["x"], ["row"])], list(STEP), [info("going", [], BOOL), info("row", ["n"])])
    nodes = [
        helper.make_node("Constant", [], ["none"], value_int=0),
        helper.make_node("Loop", ["none", ""], ["y"], body=body),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    agree(model(nodes, [info("x", ["n"])], [info("z", ["m", "n"])]), tmp_path, {"x": np.ones(3, np.float32)})


def shrinking() -> Any:
    """A loop that drops the first of what it carries, `trip` times, and stacks a number."""
    body = loop(
        [
            helper.make_node("Constant", [], ["one"], value_ints=[1]),
            helper.make_node("Constant", [], ["end"], value_ints=[99]),
            helper.make_node("Slice", ["a", "one", "end"], ["rest"]),
            helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0),
        ],
        [*STEP, info("a", ["k"])],
        [info("going", [], BOOL), info("rest", ["k2"]), info("sum", [])],
    )
    nodes = [helper.make_node("Loop", ["trip", "", "x"], ["y", "sums"], name="steps", body=body)]
    return model(nodes, [info("x", ["n"]), info("trip", [], INT)], [info("y", ["m"]), info("sums", ["t"])])


def test_a_carried_value_that_shrinks(tmp_path: Path) -> None:
    """What `n - min(n, 1)` is at most could not be told."""
    feeds = [{"x": np.arange(n, dtype=np.float32), "trip": np.array(trip)} for n, trip in ((5, 2), (2, 4), (0, 1))]
    agree(shrinking(), tmp_path, *feeds, dims={"steps.steps": (0, 6)})


def test_the_steps_of_a_loop_are_what_is_to_be_bounded(tmp_path: Path) -> None:
    """A bound was asked for under the name of a counter, which takes none; steps also bound what grows with them."""
    with pytest.raises(CompileError, match=r"the size 'steps.steps' is known only when") as caught:
        compiler.compile(shrinking(), out=tmp_path / "unbounded")
    assert "steps.step'" not in str(caught.value) and "steps.in" not in str(caught.value)
    nodes = [growing("t1", "y")]
    proto = model(nodes, [info("x", ["n"]), info("t1", [], INT)], [info("y", ["m"])])
    with pytest.raises(CompileError, match=r"the size 'again.steps' is known only when"):
        compiler.compile(proto, out=tmp_path / "growing")
    feeds = {"x": np.arange(2, dtype=np.float32), "t1": np.array(3)}
    agree(proto, tmp_path, feeds, dims={"again.steps": (0, 5)})
    with pytest.raises(CompileError, match="beyond its limit"):
        compiler.compile(proto, out=tmp_path / "less", dims={"again.steps": (0, 2)}).load().run(feeds)


def test_a_size_that_is_divided_by(tmp_path: Path) -> None:
    """Where it was 0, the size of the result was no number: in the loader as in the interpreter."""
    nodes = [
        *kept("z", "mask", "w"),
        helper.make_node("Shape", ["w"], ["rows"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    inputs = [info("x", ["n"]), info("z", ["k"]), info("mask", ["k"], BOOL)]
    proto = model(nodes, inputs, [info("y", ["a", "b"])])
    feeds = [
        {"x": np.ones(n, np.float32), "z": np.ones(4, np.float32), "mask": np.arange(4) < count}
        for n, count in ((6, 2), (0, 3), (0, 0), (6, 0))
    ]
    agree(proto, tmp_path, *feeds[:2])
    loaded = compiler.load(proto)
    runnable = compiler.compile(loaded, out=tmp_path / "zero").load()
    for each in feeds[2:]:
        with pytest.raises(ValueError, match="divides by zero"):
            evaluate_graph(loaded.graph, [each[v.name] for v in loaded.graph.inputs])
        with pytest.raises(CompileError, match="dimension"):
            runnable.run(each)


@pytest.mark.parametrize("place", [0, 2, -3])
def test_a_known_place_on_an_axis_that_may_be_shorter(place: int, tmp_path: Path) -> None:
    """What lies beyond the end of a caller's memory was read."""
    nodes = [
        helper.make_node("Constant", [], ["place"], value_int=place),
        helper.make_node("Gather", ["x", "place"], ["y"]),
        *kept("z", "mask", "w"),
        helper.make_node("Gather", ["w", "place"], ["v"]),
    ]
    inputs = [info("x", ["n", 3]), info("z", ["k"]), info("mask", ["k"], BOOL)]
    proto = model(nodes, inputs, [info("y", [3]), info("v", [])])
    given = {"x": np.ones((3, 3), np.float32), "z": np.arange(4, dtype=np.float32), "mask": np.ones(4, np.bool_)}
    agree(proto, tmp_path, given)
    loaded = compiler.load(proto)
    runnable = compiler.compile(loaded, out=tmp_path / "net").load()
    for short in ({"x": np.ones((0, 3), np.float32)}, {"mask": np.zeros(4, np.bool_)}):
        feeds = {**given, **short}
        with pytest.raises(ValueError, match="must not be negative"):
            evaluate_graph(loaded.graph, [feeds[v.name] for v in loaded.graph.inputs])
        with pytest.raises(CompileError):
            runnable.run(feeds)


def test_what_a_loop_carries_is_imported_again_with_limits_of_its_own(tmp_path: Path) -> None:
    """Results of an If kept the limit that they had while what the loop carries was not yet known to grow."""
    choice = arms([helper.make_node("Concat", ["a", "x"], ["p"], axis=0)], [helper.make_node("Neg", ["a"], ["q"])])
    body = loop(
        [helper.make_node("If", ["c"], ["next"], **choice)],
        [*STEP, info("a", ["k"])],
        [info("going", [], BOOL), info("next", ["k2"])],
    )
    shape = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Squeeze", ["s"], ["trip"])]
    nodes = [*shape, helper.make_node("Loop", ["trip", "", "x"], ["y"], name="steps", body=body)]
    proto = model(nodes, [info("x", ["n"]), info("c", [], BOOL)], [info("y", ["m"])])
    x = np.arange(4, dtype=np.float32)
    feeds = [{"x": x, "c": np.array(takes_then)} for takes_then in (True, False)]
    agree(proto, tmp_path, *feeds, dims={"steps.in.0.0": (0, 20)})
