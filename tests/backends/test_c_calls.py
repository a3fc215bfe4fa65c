"""Calls of a compiled model: what is remembered from call to call never shows, and outputs go where callers want."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from backends.c import calls, loader
from compiler.errors import CompileError, UsageError
from tests.backends.test_run_time_sizes import info, model


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """y = (a + b) * 2 with a f32[N,3], b f32[3], and N at most 5."""
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Add", ["s", "s"], ["y"])]
    proto = model(nodes, [info("a", ["N", 3]), info("b", [3])], [info("y", ["N", 3])])
    folder = tmp_path_factory.mktemp("calls") / "net"
    loaded = compiler.compile(compiler.load(proto, dims={"N": (1, 5)}), out=folder, march="", opt="-O1").load()
    yield loaded
    loaded.close()


def feeds(rows: int = 2, first: float = 0) -> dict[str, Any]:
    return {"a": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + np.float32(first), "b": np.ones(3, "f4")}


def right(made: dict[str, Any], given: dict[str, Any]) -> bool:
    return np.array_equal(made["y"], (given["a"] + given["b"]) * 2)


def test_shapes_take_turns(sums: Any) -> None:
    for rows in (2, 5, 2, 1, 5, 2):
        assert right(sums.run(feeds(rows)), feeds(rows))


def test_results_are_the_callers_own(sums: Any) -> None:
    first = sums.run(feeds())
    second = sums.run(feeds(first=7))
    assert right(first, feeds()) and right(second, feeds(first=7))


def test_more_shapes_than_are_remembered(sums: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_SHAPES_KEPT", 2)
    for rows in (1, 2, 3, 4, 5, 1, 2):
        assert right(sums.run(feeds(rows)), feeds(rows))


def test_arrays_that_are_not_dense_are_copied(sums: Any) -> None:
    given = feeds(4)
    wide = np.zeros((4, 6), np.float32)
    wide[:, ::2] = given["a"]
    assert right(sums.run({"a": wide[:, ::2], "b": np.ones(6, np.float32)[::2]}), given)
    assert right(sums.run({"b": given["b"], "a": np.asfortranarray(given["a"])}), given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros((2, 3))}, "input 'a' is float64; the model takes float32"),
        ({"a": np.zeros((2, 3), ">f4")}, "input 'a' is >f4"),
        ({"a": np.zeros(3, np.float32)}, r"input 'a' has shape \[3\]"),
        ({"a": np.zeros((2, 4), np.float32)}, "a: axis 1 is 4, it must be 3"),
        ({"a": np.zeros((6, 3), np.float32)}, "the size N is 6, it must be 1 to 5"),
        ({"c": np.zeros(3, np.float32)}, "the model has no input 'c'"),
    ],
)
def test_what_does_not_fit_is_refused_after_a_call_too(sums: Any, change: dict[str, Any], message: str) -> None:
    for _ in range(2):
        sums.run(feeds())
        with pytest.raises(UsageError, match=message):
            sums.run({**feeds(), **change})


def test_a_missing_input(sums: Any) -> None:
    sums.run(feeds())
    with pytest.raises(UsageError, match="input 'b' is missing"):
        sums.run({"a": feeds()["a"]})


def test_outputs_are_written_into_given_arrays(sums: Any) -> None:
    room = np.empty((2, 3), np.float32)
    for first in (0, 5):
        made = sums.run(feeds(first=first), outputs={"y": room})
        assert made["y"] is room and right(made, feeds(first=first))
    assert right(sums.run(feeds(), outputs={}), feeds())


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"z": np.empty((2, 3), np.float32)}, "the model has no output 'z'"),
        ({"y": np.empty((2, 3))}, r"output 'y' is float64\[2, 3\]; the model gives float32\[2, 3\]"),
        ({"y": np.empty((3, 3), np.float32)}, r"float32\[3, 3\]; the model gives float32\[2, 3\]"),
        ({"y": [[0.0]]}, "output 'y' is list"),
        ({"y": np.empty((2, 6), np.float32)[:, ::2]}, "not C-contiguous"),
        ({"y": np.frombuffer(bytes(24), np.float32).reshape(2, 3)}, "read-only"),
    ],
)
def test_arrays_that_outputs_cannot_go_into(sums: Any, outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sums.run(feeds(), outputs=outputs)


def test_an_output_that_shares_memory_with_an_input(sums: Any) -> None:
    memory = np.zeros(12, np.float32)
    given = {"a": memory[:6].reshape(2, 3), "b": np.ones(3, np.float32)}
    with pytest.raises(UsageError, match="'y' shares memory with another"):
        sums.run(given, outputs={"y": memory[3:9].reshape(2, 3)})
    assert right(sums.run(given, outputs={"y": memory[6:].reshape(2, 3)}), given)


def test_sizes_that_only_a_run_tells(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Neg", ["x"], ["y"])]
    proto = model(nodes, [info("x", [4])], [info("at", [1, "n"], TensorProto.INT64), info("y", [4])])
    loaded = compiler.compile(proto, out=tmp_path / "net", march="", opt="-O1").load()
    room = np.empty(4, np.float32)
    for wanted in ([0, 2], [], [1, 2, 3], [0, 2]):
        x = np.zeros(4, np.float32)
        x[wanted] = 1
        made = loaded.run({"x": x}, outputs={"y": room})
        assert made["at"].tolist() == [wanted] and made["y"] is room and np.array_equal(room, -x)
    with pytest.raises(UsageError, match="output 'at' cannot be written into"):
        loaded.run({"x": x}, outputs={"at": np.empty((1, 4), np.int64)})
    loaded.close()


def test_strings_cannot_be_written_into_arrays(tmp_path: Path) -> None:
    proto = model([helper.make_node("Identity", ["x"], ["y"])], [info("x", [2], TensorProto.STRING)],
                  [info("y", [2], TensorProto.STRING)])  # fmt: skip
    loaded = compiler.compile(proto, out=tmp_path / "net", march="", opt="-O1").load()
    given = {"x": np.array(["a", "long"], object)}
    assert loaded.run(given)["y"].tolist() == loaded.run(given)["y"].tolist() == ["a", "long"]
    with pytest.raises(UsageError, match="output 'y' cannot be written into"):
        loaded.run(given, outputs={"y": np.empty(2, object)})
    loaded.close()


def test_a_failing_run_leaves_the_next_one_alone(tmp_path: Path) -> None:
    proto = model([helper.make_node("Gather", ["x", "i"], ["y"])], [info("x", [4]), info("i", [1], TensorProto.INT64)],
                  [info("y", [1])])  # fmt: skip
    loaded = compiler.compile(proto, out=tmp_path / "net", march="", opt="-O1").load()
    x = np.arange(4, dtype=np.float32)
    for _ in range(2):
        with pytest.raises(CompileError, match="an index in the input data"):
            loaded.run({"x": x, "i": np.array([9])})
        assert loaded.run({"x": x, "i": np.array([3])})["y"].tolist() == [3]
    loaded.close()


def test_addresses_are_those_that_numpy_gives() -> None:
    whole = np.arange(12, dtype=np.int64).reshape(3, 4)
    for array in (whole, whole[1:], whole.T, np.empty(0, np.float32), np.array(1.5), np.frombuffer(b"abc", np.uint8)):
        assert calls.address(array) == array.ctypes.data


def test_times_of_kernels(tmp_path: Path) -> None:
    """Each call adds to memory of the caller; without the option nothing of it is there."""
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["p"], name="product"),
        helper.make_node("Softmax", ["p"], ["y"], name="weights"),
    ]
    loaded = compiler.load(model(nodes, [info("x", ["N", "N"])], [info("y", ["N", "N"])]))
    plain = compiler.compile(loaded, out=tmp_path / "plain", march="", opt="-O1")
    timed = compiler.compile(loaded, out=tmp_path / "timed", march="", opt="-O1", profile=True)
    assert "steps" not in plain.manifest and "profile" not in plain.manifest["options"]
    assert "profile" not in (plain.folder / "model.c").read_text() + (plain.folder / "model.h").read_text()
    x = np.eye(3, dtype=np.float32)
    runnable = timed.load()
    for times in (1, 2):
        made = runnable.run({"x": x})["y"]
        assert (runnable.profile[:, 1] == times).all() and (runnable.profile[:, 0] >= 0).all()
    np.testing.assert_array_equal(made, plain.load().run({"x": x})["y"])
    costs = runnable.costs({"x": x})
    assert len(costs) == timed.manifest["calls"] and costs[0]["nodes"] == ["product"]
    assert costs[0]["operations"] >= 2 * 3**3
    runnable.close()


def test_times_of_kernels_in_loops(tmp_path: Path) -> None:
    """A call inside of a loop counts each time; names like those of the clock are the model's to use."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["start", "start"], ["twice"])],
        "body",
        [info("step", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), info("start", [2])],
        [info("on", [], TensorProto.BOOL), info("twice", [2])],
    )
    proto = model([helper.make_node("Loop", ["n", "", "profile"], ["y"], body=body)],
                  [info("n", [], TensorProto.INT64), info("profile", [2])], [info("y", [2])])  # fmt: skip
    loaded = compiler.load(proto)
    options = {"march": "", "opt": "-O1", "profile": True}
    runnable = compiler.compile(loaded, out=tmp_path / "net", **options).load()
    x = np.ones(2, np.float32)
    assert runnable.run({"n": np.array(5), "profile": x})["y"].tolist() == [32, 32]
    assert runnable.profile[:, 1].max() == 5
    runnable.close()
    watched = compiler.compile(loaded, out=tmp_path / "watched", sanitize="undefined", **options).load()
    assert watched.run({"n": np.array(3), "profile": x})["y"].tolist() == [8, 8]
