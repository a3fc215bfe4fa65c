"""Graph passes where a text does not show enough: bytes of weights, refusals, shared graphs."""

from __future__ import annotations

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from compiler.errors import Problems
from compiler.pipeline import Pipeline
from ir.blob import ArrayBlob, Blob, DeferredBlob
from ir.build import Builder
from ir.dims import symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Node
from ir.types import tensor
from ir.verify import verify_graph

RNG = np.random.default_rng(3)


class Unread(Blob):
    """A weight that must not be read while compiling."""

    def __init__(self, *shape: int) -> None:
        super().__init__(tensor("f32").dtype, shape)

    def array(self) -> np.ndarray:
        raise AssertionError("a large weight was read")

    @property
    def key(self) -> str:
        return "unread"


def test_large_weights_are_not_read():
    graph = Graph("linear")
    with Builder(graph) as b:
        x = graph.add_input("x", tensor("f32", symbol("N"), 1024))
        w = b.const(Unread(512, 1024), name="w")
        y = b.matmul(x, b.transpose(w * b.const(np.float32(2.0) * np.ones((512, 1), np.float32)), perm=(1, 0)))
    graph.set_outputs([y])
    made = Pipeline(["canonicalize", "cse", "fold", "dce"]).run(graph)
    assert [node.op.name for node in made.nodes()] == ["const", "matmul"]
    blob = next(made.nodes("const")).output.blob
    assert isinstance(blob, DeferredBlob) and blob.shape == (1024, 512)


def test_a_deferred_weight_has_the_bytes_of_the_ops_it_replaces():
    graph = Graph("conv")
    with Builder(graph) as b:
        x = graph.add_input("x", tensor("f32", 1, 32, 6, 6))
        w = b.const(ArrayBlob(RNG.standard_normal((64, 32, 3, 3)).astype(np.float32)))
        statistics = [b.const(ArrayBlob(np.abs(RNG.standard_normal(64)).astype(np.float32) + 0.5)) for _ in range(4)]
        y = b.conv(x, w, stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1))
        y = b.batch_norm(y, *statistics)
    graph.set_outputs([y])
    made = Pipeline(["canonicalize", "fold", "dce"]).run(graph)
    verify_graph(made)
    assert [node.op.name for node in made.nodes() if node.op.name != "const"] == ["conv"]
    feed = RNG.standard_normal((1, 32, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(evaluate_graph(made, [feed])[0], evaluate_graph(graph, [feed])[0], 1e-4, 1e-4)


def test_equal_deferred_weights_are_one():
    graph = Graph("tied")
    with Builder(graph) as b:
        x = graph.add_input("x", tensor("f32", 2, 96))
        w = b.const(ArrayBlob(RNG.standard_normal((64, 96)).astype(np.float32)))
        y = b.matmul(x, b.transpose(w, perm=(1, 0))) + b.matmul(x, b.transpose(w, perm=(1, 0)))
    graph.set_outputs([y])
    made = Pipeline(["fold", "cse", "dce"]).run(graph)
    assert [node.op.name for node in made.nodes()] == ["const", "matmul", "add"]


def test_results_over_the_limit_stay_ops():
    graph = Graph("outer")
    with Builder(graph) as b:
        column = b.const(ArrayBlob(np.ones((1024, 1), np.float32)))
        y = b.add(column, b.const(ArrayBlob(np.ones((1, 1024), np.float32))))
    graph.set_outputs([y])
    assert len(Pipeline.parse("fold{limit=1}").run(graph)) == 3
    assert len(Pipeline.parse("fold{limit=4}").run(graph)) == 1


def refuses(*names: str):
    def accepts(node: Node) -> bool | str:
        return f"no {node.op.name} here" if node.op.name in names else True

    return accepts


def test_all_refusals_are_reported_together():
    graph = Graph("refused")
    b = Builder(graph, sources=("first",))
    x = graph.add_input("x", tensor("f32", 2, 3))
    y = b.erf(b.softmax(x))
    b.sources = ("second",)
    graph.set_outputs([b.erf(y)])
    with pytest.raises(Problems) as caught:
        Pipeline(["legalize"]).with_options("legalize", accepts=refuses("softmax", "erf", "exp")).run(graph)
    names = [(error.node.name, error.node.op) for error in caught.value.errors if error.node]
    assert names == [("first", "exp"), ("first", "erf"), ("second", "erf")]
    assert all(error.code == "E0410" for error in caught.value.errors)
    assert "no erf here" in str(caught.value)


def test_what_is_accepted_is_not_expanded():
    graph = Graph("whole")
    graph.set_outputs([Builder(graph).softmax(graph.add_input("x", tensor("f32", 2, 3)))])
    pipeline = Pipeline(["legalize"]).with_options("legalize", accepts=refuses())
    assert [node.op.name for node in pipeline.run(graph).nodes()] == ["softmax"]
    assert str(pipeline) == "legalize"


def test_the_model_is_not_changed_by_its_passes():
    graph = Graph("kept")
    with Builder(graph):
        x = graph.add_input("x", tensor("f32", 2))
        graph.set_outputs([(x + 0.0) * 1.0])
    before = str(graph)
    assert len(Pipeline(["canonicalize", "dce"]).run(graph)) == 0
    assert str(graph) == before
