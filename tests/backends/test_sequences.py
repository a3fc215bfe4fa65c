"""Sequences and optionals in C: the same as in the interpreter, from one artifact, at several lengths and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from compiler import observe as see
from compiler.errors import CompileError, UsageError
from compiler.onnx_backend import prepare, run_model
from ir.evaluate import evaluate_graph
from tests.backends.test_run_time_sizes import info, loop, model

RNG = np.random.default_rng(0)


def sequence(name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_sequence_value_info(name, kind, shape)


def optional(name: str, inner: Any) -> Any:
    return helper.make_value_info(name, helper.make_optional_type_proto(inner.type))


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def same(made: Any, wanted: Any) -> None:
    if wanted is None or isinstance(wanted, list):
        assert (made is None) == (wanted is None)
        assert wanted is None or len(made) == len(wanted)
        for a, b in zip(made or [], wanted or []):
            same(a, b)
        return
    assert made.shape == wanted.shape and made.dtype == wanted.dtype
    np.testing.assert_array_equal(made, wanted)


def agree(proto: Any, tmp_path: Path, *feeds: dict[str, Any], **options: Any) -> None:
    """Holds C to the results of the interpreter."""
    loaded = compiler.load(proto, **options)
    watched = [see.Verify(), see.Numerics(feeds[0])]
    artifact = compiler.compile(loaded, out=tmp_path / "net", march="", opt="-O1", watch=watched)
    runnable = artifact.load()
    for each in feeds:
        wanted = evaluate_graph(loaded.graph, [each[v.name] for v in loaded.graph.inputs])
        made = runnable.run(each)
        for name, value in zip(loaded.graph.output_names, wanted):
            same(made[name], value)
    runnable.close()


def test_elements_are_taken_put_in_and_taken_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SequenceAt", ["s", "i"], ["a"]),
        helper.make_node("SequenceInsert", ["s", "x", "i"], ["longer"]),
        helper.make_node("SequenceErase", ["longer", "j"], ["shorter"]),
        helper.make_node("SequenceLength", ["shorter"], ["n"]),
        helper.make_node("Exp", ["x"], ["unused"]),
        helper.make_node("Neg", ["a"], ["b"]),
    ]
    inputs = [sequence("s", ["a", "b"]), info("x", ["p", "q"]), info("i", [], TensorProto.INT64),
              info("j", [], TensorProto.INT64)]  # fmt: skip
    outputs = [info("b", [None, None]), sequence("longer", [None, None]), sequence("shorter", [None, None]),
               info("n", [], TensorProto.INT64)]  # fmt: skip
    proto = model(nodes, inputs, outputs)
    some = [f32(2, 3), f32(4, 1), f32(0, 5)]
    feeds = [
        {"s": some[:n], "x": f32(*shape), "i": np.array(i), "j": np.array(j)}
        for n, shape, i, j in ((3, (3, 3), 0, -1), (3, (1, 1), -1, 2), (1, (2, 2), 0, 0))
    ]
    agree(proto, tmp_path, *feeds)
    runnable = compiler.Artifact(tmp_path / "net").load()
    for wrong in (3, -4):
        with pytest.raises(CompileError, match="must agree"):
            runnable.run({**feeds[0], "i": np.array(wrong)})
    with pytest.raises(UsageError, match="takes a list"):
        runnable.run({**feeds[0], "s": np.zeros(3, np.float32)})
    runnable.close()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("new_axis", [0, 1])
def test_elements_are_joined(axis: int, new_axis: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=axis, new_axis=new_axis)]
    proto = model(nodes, [sequence("s", ["a", "b"])], [info("y", [None] * (2 + new_axis))])
    grow = (lambda k: (2, 3)) if new_axis else (lambda k: (k + 1, 3) if axis == 0 else (3, k + 1))
    agree(proto, tmp_path, {"s": [f32(*grow(k)) for k in range(4)]}, {"s": [f32(*grow(5))]})
    runnable = compiler.Artifact(tmp_path / "net").load()
    with pytest.raises(CompileError):
        runnable.run({"s": [f32(2, 2), f32(5, 7)]})
    with pytest.raises(CompileError):
        runnable.run({"s": []})
    runnable.close()


def test_a_tensor_is_split_by_sizes_that_a_run_tells(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["s"], axis=1),
        helper.make_node("SplitToSequence", ["x", "step"], ["t"], axis=0),
        helper.make_node("SplitToSequence", ["x"], ["u"], axis=0, keepdims=0),
    ]
    inputs = [info("x", ["a", "b"]), info("sizes", ["n"], TensorProto.INT64), info("step", [], TensorProto.INT64)]
    proto = model(nodes, inputs, [sequence("s", [None, None]), sequence("t", [None, None]), sequence("u", [None])])
    feeds = [
        {"x": f32(5, 6), "sizes": np.array([1, 0, 5]), "step": np.array(2)},
        {"x": f32(3, 4), "sizes": np.array([4]), "step": np.array(7)},
    ]
    agree(proto, tmp_path, *feeds)
    runnable = compiler.Artifact(tmp_path / "net").load()
    with pytest.raises(CompileError):
        runnable.run({**feeds[0], "sizes": np.array([1, 1])})
    runnable.close()


def test_a_loop_that_gathers_rows_and_keeps_a_tensor(tmp_path: Path) -> None:
    body = loop(
        [
            helper.make_node("Concat", ["a", "x"], ["part"], axis=0),
            helper.make_node("SequenceInsert", ["s", "part"], ["s2"]),
            helper.make_node("ReduceSum", ["part"], ["sum"], keepdims=0),
            helper.make_node("Add", ["total", "sum"], ["total2"]),
        ],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), sequence("s", None), info("a", ["k"]),
         info("total", [])],
        [info("going", [], TensorProto.BOOL), sequence("s2", None), info("part", ["m"]), info("total2", [])],
    )  # fmt: skip
    nodes = [
        helper.make_node("SequenceEmpty", [], ["empty"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["trip"]),
        helper.make_node("Loop", ["trip", "", "empty", "x", "start"], ["s_out", "a_out", "t_out"], body=body),
    ]
    proto = model(
        nodes, [info("x", ["n"]), info("start", [])], [sequence("s_out", None), info("a_out", ["m"]), info("t_out", [])]
    )
    feeds = [{"x": np.arange(n, dtype=np.float32), "start": np.array(1, np.float32)} for n in (4, 1)]
    agree(proto, tmp_path, *feeds)


def test_branches_that_give_sequences_and_optionals(tmp_path: Path) -> None:
    then = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["a"]), helper.make_node("Optional", ["a"], ["oa"])],
        "then", [], [sequence("a", None), optional("oa", sequence("", None))],
    )  # fmt: skip
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["k"]))
    orelse = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["b"]), helper.make_node("Optional", [], ["ob"], type=kind)],
        "else", [], [sequence("b", None), optional("ob", sequence("", None))],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["c"], ["s", "o"], then_branch=then, else_branch=orelse),
        helper.make_node("SequenceLength", ["s"], ["n"]),
        helper.make_node("OptionalHasElement", ["o"], ["there"]),
    ]
    outputs = [sequence("s", ["k"]), info("n", [], TensorProto.INT64), info("there", [], TensorProto.BOOL),
               optional("o", sequence("", ["k"]))]  # fmt: skip
    proto = model(nodes, [info("c", [], TensorProto.BOOL), info("x", ["k"])], outputs)
    agree(proto, tmp_path, {"c": np.array(True), "x": f32(3)}, {"c": np.array(False), "x": f32(2)})


def test_sequences_of_strings(tmp_path: Path) -> None:
    text = TensorProto.STRING
    body = helper.make_graph([helper.make_node("StringConcat", ["a", "x"], ["b"])], "body", [info("a", ["n"], text)],
                             [info("b", ["n"], text)])  # fmt: skip
    nodes = [
        helper.make_node("SequenceInsert", ["s", "x", "i"], ["longer"]),
        helper.make_node("SequenceAt", ["longer", "i"], ["at"]),
        helper.make_node("SequenceErase", ["longer", "i"], ["same"]),
        helper.make_node("ConcatFromSequence", ["longer"], ["joined"], axis=0),
        helper.make_node("SplitToSequence", ["joined", "two"], ["pairs"], axis=0),
        helper.make_node("SequenceMap", ["s"], ["mapped"], body=body),
    ]
    inputs = [sequence("s", ["n"], text), info("x", ["k"], text), info("i", [], TensorProto.INT64),
              info("two", [], TensorProto.INT64)]  # fmt: skip
    outputs = [sequence(name, None, text) for name in ("longer", "same", "pairs", "mapped")]
    outputs += [info("at", [None], text), info("joined", [None], text)]
    words = np.array(["", "ab", "öäü", "c" * 9], object)
    feeds = [
        {"s": [words[:1], words[1:2]], "x": words[3:], "i": np.array(1), "two": np.array(2)},
        {"s": [words[2:3]], "x": words[:1], "i": np.array(0), "two": np.array(3)},
    ]
    agree(model(nodes, inputs, outputs, opset=20), tmp_path, *feeds)


def test_a_sequence_that_grows_in_a_branch_of_a_loop(tmp_path: Path) -> None:
    grown = helper.make_graph([helper.make_node("SequenceInsert", ["s", "x"], ["longer"])], "then", [],
                              [sequence("longer", None)])  # fmt: skip
    kept = helper.make_graph([helper.make_node("Identity", ["s"], ["same"])], "else", [], [sequence("same", None)])
    body = loop(
        [
            helper.make_node("Mod", ["i", "two"], ["odd"]),
            helper.make_node("Cast", ["odd"], ["is_odd"], to=TensorProto.BOOL),
            helper.make_node("If", ["is_odd"], ["s2"], then_branch=grown, else_branch=kept),
        ],
        [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), sequence("s", None)],
        [info("going", [], TensorProto.BOOL), sequence("s2", None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["trip"]),
        helper.make_node("SequenceConstruct", ["y"], ["first"]),
        helper.make_node("Loop", ["trip", "", "first"], ["all"], body=body),
    ]
    proto = model(nodes, [info("x", ["n"]), info("y", ["k"])], [sequence("all", None)])
    agree(proto, tmp_path, *({"x": f32(n), "y": f32(k)} for n, k in ((5, 2), (1, 9), (4, 0))))


def test_a_position_that_is_a_size(tmp_path: Path) -> None:
    """The importer took a size for a number that it knew."""
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["at"]),
        helper.make_node("SequenceAt", ["s", "at"], ["z"]),
    ]
    proto = model(nodes, [info("x", ["n"]), info("y", ["n"])], [info("z", ["m"])])
    agree(proto, tmp_path, *({"x": f32(n), "y": f32(n)} for n in (1, 0)))


def pieces(split: list[Any], axes: list[Any]) -> Any:
    nodes = [helper.make_node("SplitToSequence", ["x", "split"], ["s"])]
    return model(nodes, [info("x", ["n"]), info("split", split, TensorProto.INT64)], [sequence("s", axes)])


def test_pieces_of_nothing(tmp_path: Path) -> None:
    """The interpreter made one piece of an axis of size 0, and one of no sizes."""
    feeds = [{"x": f32(n), "split": np.array(2)} for n in (0, 1, 5)]
    agree(pieces([], ["m"]), tmp_path, *feeds)
    agree(pieces(["k"], ["m"]), tmp_path / "k", {"x": f32(3), "split": np.array([2, 1])},
          {"x": f32(0), "split": np.array([], np.int64)})  # fmt: skip


@pytest.mark.parametrize("split", [[-1, 4], [4, -1], [2, 2], [1 << 62] * 4, [-(1 << 63), -(1 << 63), 3], [3, -1, 1]])
def test_pieces_that_are_none_are_refused(split: list[int], tmp_path: Path) -> None:
    """Sizes below 0 passed if they added up, and went on as sizes of elements."""
    proto, feeds = pieces(["k"], ["m"]), {"x": f32(3), "split": np.array(split)}
    with pytest.raises(Exception, match="pieces"):
        evaluate_graph(compiler.load(proto).graph, [feeds["x"], feeds["split"]])
    with pytest.raises(CompileError, match="dimension"):
        compiler.compile(proto, out=tmp_path / "net").load().run(feeds)


def test_elements_of_one_declared_size(tmp_path: Path) -> None:
    """Two elements of seq<f32[m]> took each other's size; they may differ, but then not be added."""
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("SequenceAt", ["s", "zero"], ["a"]),
        helper.make_node("SequenceAt", ["s", "one"], ["b"]),
        helper.make_node("Neg", ["a"], ["c"]),
        helper.make_node("Concat", ["c", "b"], ["d"], axis=0),
        helper.make_node("Add", ["a", "b"], ["e"]),
    ]
    apart = model(nodes[:-1], [sequence("s", ["m"])], [info("d", ["k"])])
    agree(apart, tmp_path, {"s": [f32(2), f32(5)]}, {"s": [f32(4), f32(0), f32(1)]})
    together = model(nodes, [sequence("s", ["m"])], [info("e", ["k"])])
    agree(together, tmp_path / "sum", {"s": [f32(3), f32(3)]})
    with pytest.raises(CompileError, match="dimension"):
        compiler.compile(together, out=tmp_path / "less").load().run({"s": [f32(1), f32(3)]})


def either(kind: int, given: list[Any], other: list[Any], op: str = "Identity") -> Any:
    """What is in the optional `o`, else what `op` makes of `x`."""
    then = helper.make_graph([helper.make_node("OptionalGetElement", ["o"], ["taken"])], "then", [],
                             [info("taken", given, kind)])  # fmt: skip
    orelse = helper.make_graph([helper.make_node(op, ["x"], ["made"])], "else", [], [info("made", other, kind)])
    nodes = [
        helper.make_node("OptionalHasElement", ["o"], ["there"]),
        helper.make_node("If", ["there"], ["y"], then_branch=then, else_branch=orelse),
    ]
    inputs = [optional("o", info("", given, kind)), info("x", other, kind)]
    return model(nodes, inputs, [info("y", [None] * len(other), kind)], opset=18)


@pytest.mark.parametrize(("given", "other"), [([3], [3]), (["N"], ["N"]), (["M"], ["N"]), ([2, "N"], [2, "N"])])
def test_an_optional_may_be_absent(given: list[Any], other: list[Any], tmp_path: Path) -> None:
    """Nothing was taken for an array of size 0, which contradicted sizes that are fixed, and those of other inputs."""
    x = f32(*(size if isinstance(size, int) else 3 for size in other))
    proto = either(TensorProto.FLOAT, given, other, "Abs")
    agree(proto, tmp_path, {"o": None, "x": x}, {"o": x + 1, "x": x})


def test_an_absent_optional_keeps_bounds(tmp_path: Path) -> None:
    proto = either(TensorProto.FLOAT, ["M"], ["N"], "Abs")
    agree(proto, tmp_path, {"o": None, "x": f32(3)}, {"o": f32(2), "x": f32(3)}, dims={"M": (2, 5)})


def test_an_absent_optional_keeps_what_sizes_must_be(tmp_path: Path) -> None:
    """A branch that is not taken demands that the size of nothing is that of x, or 1."""
    sum_ = [helper.make_node("OptionalGetElement", ["o"], ["taken"]), helper.make_node("Add", ["taken", "x"], ["sum"])]
    then = helper.make_graph(sum_, "then", [], [info("sum", [None])])
    orelse = helper.make_graph([helper.make_node("Abs", ["x"], ["made"])], "else", [], [info("made", ["N"])])
    nodes = [
        helper.make_node("OptionalHasElement", ["o"], ["there"]),
        helper.make_node("If", ["there"], ["y"], then_branch=then, else_branch=orelse),
    ]
    proto = model(nodes, [optional("o", info("", ["M"])), info("x", ["N"])], [info("y", [None])], opset=18)
    agree(proto, tmp_path, {"o": None, "x": f32(3)}, {"o": f32(3), "x": f32(3)})


def test_an_optional_of_strings(tmp_path: Path) -> None:
    """That it was an optional was forgotten over its being of strings."""
    words = np.array(["ab", "c", ""], object)
    proto = either(TensorProto.STRING, ["N"], ["N"])
    agree(proto, tmp_path, {"o": None, "x": words}, {"o": words[::-1], "x": words})
    manifest = compiler.Artifact(tmp_path / "net").manifest
    assert manifest["kinds"]["input o"] == ["optional", ["tensor", "string", ["N"], "o.value"], "o.present"]


def test_an_absent_sequence(tmp_path: Path) -> None:
    nodes = [helper.make_node("OptionalHasElement", ["o"], ["there"]), helper.make_node("Identity", ["o"], ["p"])]
    inner = sequence("", [2, "k"])
    proto = model(nodes, [optional("o", inner)], [info("there", [], TensorProto.BOOL), optional("p", inner)], opset=18)
    agree(proto, tmp_path, {"o": None}, {"o": []}, {"o": [f32(2, 3), f32(2, 1)]})


def test_names_of_tensors_and_dims_are_not_those_of_the_model(tmp_path: Path) -> None:
    """A tensor `s.sizes` beside a sequence `s` was taken for its sizes, and a dim `s_items` for how many there are."""
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Abs", ["s.sizes"], ["t.count"]),
        helper.make_node("Abs", ["s_items"], ["s.elements"]),
        helper.make_node("Identity", ["w"], ["v"]),
    ]
    inputs = [sequence("s", [2, "k"]), info("s.sizes", ["s_room"]), info("s_items", ["s_items", "w_bytes"]),
              info("w", ["n"], TensorProto.STRING)]  # fmt: skip
    outputs = [sequence("t", [2, "k"]), info("t.count", ["s_room"]), info("s.elements", ["s_items", "w_bytes"]),
               info("v", ["n"], TensorProto.STRING)]  # fmt: skip
    words = np.array(["a", "bcd"], object)
    feeds = {"s": [f32(2, 3)] * 5, "s.sizes": f32(4), "s_items": f32(7, 1), "w": words}
    agree(model(nodes, inputs, outputs), tmp_path, feeds, {**feeds, "s": []})
    manifest = compiler.Artifact(tmp_path / "net").manifest
    assert manifest["kinds"]["input s"] == ["sequence", "f32", ["2", "k"], ["s.sizes.1", "s.elements.1"]]
    assert manifest["kinds"]["output t"][3] == ["t.count.1", "t.sizes", "t.elements"]
    names = [port["name"] for port in (*manifest["inputs"], *manifest["outputs"])]
    assert {"s.sizes.1", "s.elements.1", "t.count.1"} <= set(names) and len(set(names)) == len(names)
    assert {"s_items2", "s_room2", "w_bytes2"} <= {dim["name"] for dim in manifest["dims"]}


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
def test_elements_are_of_the_declared_type(device: str) -> None:
    """They were of any shape of no more axes than declared; what then failed did not name the input."""
    nodes = [helper.make_node("SequenceAt", ["s", "i"], ["y"])]
    proto = model(nodes, [sequence("s", [2, "k"]), info("i", [], TensorProto.INT64)], [info("y", [2, None])])
    prepared, first = prepare(proto, device), np.array(0)
    assert prepared.run([[f32(2, 5), f32(2, 3)], first])[0].shape == (2, 5)
    wrong: dict[str, Any] = {
        "'s', element 1, has shape [3, 2]; the model takes f32[2,k]": [f32(2, 3), f32(3, 2)],
        "'s', element 0, has shape [6]; the model takes f32[2,k]": [f32(6)],
        "'s', element 0, is float64; the model takes float32": [np.zeros((2, 3))],
        "'s' is no list; the model takes a list of arrays": f32(2, 2, 3),
    }
    for message, value in wrong.items():
        with pytest.raises(UsageError) as caught:
            prepared.run([value, first])
        assert f"input {message}" in caught.value.message


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
def test_values_of_optionals_are_of_the_declared_type(device: str) -> None:
    proto = either(TensorProto.FLOAT, [3], [3])
    for message, value in {"is float64": np.zeros(3), "has shape": f32(3, 1)}.items():
        with pytest.raises(UsageError, match=f"input 'o' {message}"):
            run_model(proto, [value, f32(3)], device)


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
def test_a_position_that_is_not_there(device: str) -> None:
    """The interpreter's own error came through where a CompileError is promised."""
    nodes = [helper.make_node("SequenceAt", ["s", "i"], ["y"])]
    proto = model(nodes, [sequence("s", ["k"]), info("i", [], TensorProto.INT64)], [info("y", [None])])
    with pytest.raises(CompileError, match=r"sequence_at|dimension"):
        run_model(proto, [[f32(2)], np.array(1)], device)
