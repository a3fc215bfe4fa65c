"""Models whose ranks depend on a condition or on a size being 1: what is decided when importing, what is assumed and
then checked where it runs, and what is refused. Each model runs on the interpreter and as compiled C."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import compiler
from compiler.errors import CompileError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import EvaluationError, evaluate_graph
from ir.graph import Graph

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'
Arrays = dict[str, np.ndarray]


def imported(text: str) -> Graph:
    return import_model(read_model_proto(onnx.parser.parse_model(HEAD + text)))


def outputs(text: str, *feeds: Arrays) -> list[Arrays]:
    """What a model gives on each of the feeds, from one artifact; the interpreter must give the same."""
    graph, model = imported(text), compiler.compile(onnx.parser.parse_model(HEAD + text), "c").load()
    results = []
    for given in feeds:
        made = model.run(given)
        for name, array in zip(graph.output_names, evaluate_graph(graph, [given[v.name] for v in graph.inputs])):
            np.testing.assert_allclose(made[name], array, rtol=1e-6)
        results.append(made)
    return results


def refused(text: str, feeds: Arrays, message: str) -> None:
    """Both the interpreter and C refuse the feeds; the message of the former matches."""
    graph = imported(text)
    with pytest.raises((ValueError, EvaluationError), match=message):
        evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
    with pytest.raises(CompileError):
        compiler.compile(onnx.parser.parse_model(HEAD + text), "c").load().run(feeds)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def structural(graph: Graph) -> list[str]:
    """The control flow in a graph, and in the graphs in it."""
    found = []
    for node in graph.nodes():
        bodies = [v for v in node.op.attributes().values() if isinstance(v, Graph)]
        found += [node.op.name] * bool(bodies) + [name for body in bodies for name in structural(body)]
    return found


NESTED = """
g (float[N,S,4] x, int64 rate) => (y) <int64 fast = {16000}, int64[1] last = {1}, int64 one = {1}> {
  is_fast = Equal(rate, fast)
  y = If (is_fast) <then_branch = then () => (float[N,4] a) {
    shape = Shape(x)
    size = Gather(shape, one)
    single = Equal(size, one)
    flat = If (single) <
      then_branch = squeezed () => (b) { b = Squeeze(x, last) },
      else_branch = kept () => (c) { c = Identity(x) }
    >
    a = Relu(flat)
  }, else_branch = orelse () => (float[N,4] d) { d = ReduceSum<keepdims = 0>(x, last) }>
}"""


def test_a_size_that_a_branch_assumes_is_checked_in_that_branch() -> None:
    fast, slow = np.array(16000), np.array(8000)
    made = outputs(NESTED, {"x": -ones(2, 1, 4), "rate": fast}, {"x": ones(3, 5, 4), "rate": slow})
    assert (made[0]["y"].tolist(), made[1]["y"].tolist()) == ([[0] * 4] * 2, [[5] * 4] * 3)
    refused(NESTED, {"x": ones(3, 5, 4), "rate": fast}, "S is 5.*must be equal")


def test_what_a_condition_says_is_known_in_its_branches() -> None:
    text = """
    g (float[2,3] x, int64 rate, bool flag) => (y) <int64 fast = {16}, int64[1] axis = {0}> {
      is_fast = Equal(rate, fast)
      both = And(is_fast, flag)
      y = If (both) <then_branch = then () => (float a) {
        again = Equal(rate, fast)
        t = If (again) <then_branch = p () => (b) { b = ReduceSum<keepdims = 0>(x) },
                        else_branch = q () => (c) { c = Relu(x) }>
        u = If (flag) <then_branch = v () => (e) { e = Neg(t) }, else_branch = w () => (f) { f = Relu(x) }>
        factor = Cast<to = 1>(rate)
        a = Mul(u, factor)
      }, else_branch = orelse () => (float d) { d = If (both) <
          then_branch = r () => (h) { h = Relu(x) }, else_branch = s () => (k) { k = ReduceMax<keepdims = 0>(x) }> }>
    }"""
    assert structural(imported(text)) == ["if_"]
    yes, no = np.array(True), np.array(False)
    feeds = [{"x": ones(2, 3), "rate": np.array(rate), "flag": flag} for rate, flag in ((16, yes), (16, no), (8, yes))]
    assert [float(made["y"]) for made in outputs(text, *feeds)] == [-96, 1, 1]


def test_a_float_that_equals_zero_may_be_minus_zero() -> None:
    text = """
    g (float x) => (y) <float zero = {0}> {
      c = Equal(x, zero)
      y = If (c) <then_branch = p () => (a) { a = Reciprocal(x) }, else_branch = q () => (b) { b = Identity(x) }>
    }"""
    feeds = [{"x": np.array(x, np.float32)} for x in (0.0, -0.0, 2.0)]
    assert [float(made["y"]) for made in outputs(text, *feeds)] == [np.inf, -np.inf, 2]


def rank_choice(declared: str) -> str:
    return f"""
    g (float[N,4] x) => ({declared} y) <int64 zero = {{0}}, int64[1] first = {{0}}, int64 one = {{1}}> {{
      shape = Shape(x)
      size = Gather(shape, zero)
      c = Equal(size, one)
      y = If (c) <then_branch = p () => (a) {{ a = Squeeze(x, first) }}, else_branch = q () => (b) {{ b = Neg(x) }}>
    }}"""


def test_of_branches_that_differ_in_rank_the_one_that_fits_the_declared_output_is_taken() -> None:
    assert outputs(rank_choice("float[4]"), {"x": ones(1, 4)})[0]["y"].shape == (4,)
    refused(rank_choice("float[4]"), {"x": ones(2, 4)}, "N is 2")
    shapes = [made["y"].shape for made in outputs(rank_choice("float[M,4]"), {"x": ones(3, 4)}, {"x": ones(0, 4)})]
    assert shapes == [(3, 4), (0, 4)]
    refused(rank_choice("float[M,4]"), {"x": ones(1, 4)}, "N is 1, it must not be 1 for node 'If_3'")


def squeeze(declared: str) -> str:
    return f"g (float[N,1,4] x) => ({declared} y) {{ y = Squeeze(x) }}"


def test_squeeze_without_axes_follows_the_declared_rank_and_checks_it() -> None:
    assert outputs(squeeze("float[4]"), {"x": ones(1, 1, 4)})[0]["y"].shape == (4,)
    refused(squeeze("float[4]"), {"x": ones(2, 1, 4)}, "N is 2 and 1 is 1; they must be equal for node 'Squeeze_0'")
    shapes = [made["y"].shape for made in outputs(squeeze("float[M,4]"), *({"x": ones(n, 1, 4)} for n in (2, 0)))]
    assert shapes == [(2, 4), (0, 4)]
    refused(squeeze("float[M,4]"), {"x": ones(1, 1, 4)}, "N is 1, it must not be 1 for node 'Squeeze_0'")


@pytest.mark.parametrize("declared", ["", "float[a,b,c]"])
def test_squeeze_without_axes_is_refused_where_nothing_tells_the_rank(declared: str) -> None:
    with pytest.raises(CompileError, match="whether N is 1"):
        imported(squeeze(declared))


def test_squeeze_without_axes_knows_the_sizes_that_are_demanded_already() -> None:
    text = """
    g (float[N,3,4] x, float[1,4] w) => (y) <float[1,2,4] half> {
      both = Concat<axis = 1>(x, half)
      y = Squeeze(both)
    }""".replace("<float[1,2,4] half>", "<float[1,2,4] half = {0,0,0,0,0,0,0,0}>")
    feeds = {"x": ones(1, 3, 4), "w": ones(1, 4)}
    assert outputs(text, feeds)[0]["y"].shape == (5, 4)
    refused(text, {**feeds, "x": ones(2, 3, 4)}, "must be equal for node 'Concat_0'")


def test_squeeze_without_axes_knows_the_size_that_its_branch_is_for() -> None:
    text = """
    g (float[N,4] x) => (float[4] y) <int64 zero = {0}, int64 one = {1}, int64[1] first = {0}> {
      shape = Shape(x)
      size = Gather(shape, zero)
      c = Equal(size, one)
      y = If (c) <then_branch = p () => (a) { a = Squeeze(x) },
                  else_branch = q () => (b) { b = ReduceSum<keepdims = 0>(x, first) }>
    }"""
    made = outputs(text, {"x": ones(1, 4)}, {"x": ones(3, 4)})
    assert [m["y"].tolist() for m in made] == [[1] * 4, [3] * 4]
