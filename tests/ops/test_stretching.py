"""Broadcasting where only a run tells whether a size is 1: one artifact serves equal sizes and sizes of 1, refuses
others, and its code for equal sizes is that of equal sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import pytest

import compiler
from backends.reference.program import run_program
from compiler.errors import CompileError, UsageError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from compiler.pipeline import Pipeline
from ir.evaluate import evaluate_graph
from ir.graph import Graph

HEAD = '<ir_version: 10, opset_import: ["" : 23]>\n'
Arrays = list[np.ndarray]
Shapes = list[tuple[int, ...]]


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def imported(text: str, **dims: int | tuple[int, int | None]) -> Graph:
    return import_model(read_model_proto(model(text)), dims)


def arrays(graph: Graph, shapes: Shapes) -> Arrays:
    rng = np.random.default_rng(len(shapes))
    return [
        rng.random(shape) < 0.6 if v.dtype.kind == "bool" else rng.standard_normal(shape).astype(np.float32)
        for v, shape in zip(graph.inputs, shapes)
    ]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    scores = q @ np.swapaxes(k, 2, 3) / np.sqrt(q.shape[-1])
    return softmax(np.where(mask, scores, -1e9) if mask.dtype == bool else scores + mask) @ v


CASES: dict[str, tuple[str, Callable[..., np.ndarray], list[Shapes]]] = {
    "rows": (
        "g (float[N,4] x, float[M,4] y) => (z) { z = Add(x, y) }",
        np.add,
        [[(3, 4), (3, 4)], [(3, 4), (1, 4)], [(1, 4), (1, 4)], [(0, 4), (1, 4)], [(0, 4), (0, 4)]],
    ),
    "columns": (
        "g (float[2,N] x, float[2,M] y) => (z) { z = Sub(x, y) }",
        np.subtract,
        [[(2, 19), (2, 19)], [(2, 19), (2, 1)], [(2, 1), (2, 1)], [(2, 0), (2, 1)]],
    ),
    "both": (
        "g (float[M,K] y, float[N,3,C] x) => (z) { p = Mul(y, x)  z = Exp(p) }",
        lambda y, x: np.exp(y * x),
        [[(3, 5), (2, 3, 5)], [(1, 5), (2, 3, 5)], [(3, 1), (2, 3, 5)], [(1, 1), (2, 3, 5)]],
    ),
    "number": (
        "g (float[N,6] x, float[4,K] y) => (z) { z = Max(x, y) }",
        np.maximum,
        [[(4, 6), (4, 6)], [(1, 6), (4, 6)], [(4, 6), (4, 1)], [(1, 6), (4, 1)]],
    ),
    "where": (
        "g (bool[M,1,K] c, float[N,3,L] x, float l) => (z) { z = Where(c, x, l) }",
        np.where,
        [[(2, 1, 5), (2, 3, 5), ()], [(1, 1, 5), (2, 3, 5), ()], [(2, 1, 1), (2, 3, 5), ()]],
    ),
    "prelu": (
        "g (float[N,C,4] x, float[D,1] s) => (z) { z = PRelu(x, s) }",
        lambda x, s: np.where(x < 0, x * s, x),
        [[(2, 3, 4), (3, 1)], [(2, 3, 4), (1, 1)]],
    ),
    "expand": (
        "g (float[M,4] x, float[N,4] like) => (z) { shape = Shape(like)  z = Expand(x, shape) }",
        lambda x, like: np.broadcast_to(x, np.broadcast_shapes(x.shape, like.shape)),
        [[(3, 4), (3, 4)], [(1, 4), (3, 4)]],
    ),
    "reduction": (
        "g (float[N,K] x, float[N,L] y) => (z) <int64[1] a = {1}> { p = Mul(x, y)  z = ReduceSum<keepdims=0>(p, a) }",
        lambda x, y: (x * y).sum(1),
        [[(2, 33), (2, 33)], [(2, 33), (2, 1)]],
    ),
    "transposed": (
        """g (float[N,4,H] x, float[M,4,K] y) => (z) {
          a = Transpose<perm = [0, 2, 1]>(x)  b = Transpose<perm = [0, 2, 1]>(y)
          s = Add(a, b)  r = Relu(s)  z = Transpose<perm = [0, 2, 1]>(r)
        }""",
        lambda x, y: np.maximum(x + y, 0),
        [[(2, 4, 5), (2, 4, 5)], [(2, 4, 5), (1, 4, 1)], [(2, 4, 5), (2, 4, 1)]],
    ),
    "sliced": (
        """g (float[N,9] x, float[N,K] y) => (z) <int64[1] s = {2}, int64[1] e = {7}, int64[1] a = {1}> {
          p = Add(x, y)  z = Slice(p, s, e, a)
        }""",
        lambda x, y: (x + y)[:, 2:7],
        [[(3, 9), (3, 9)], [(3, 9), (3, 1)]],
    ),
    "mask": (
        "g (float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,T,4] v, float[M,Q,T] m) => (z) { z = Attention(q, k, v, m) }",
        attention,
        [[(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), shape] for shape in ((2, 3, 5), (2, 1, 5))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_artifact_serves_equal_sizes_and_sizes_of_one(name: str) -> None:
    text, meaning, runs = CASES[name]
    graph = imported(text)
    program = Pipeline(["legalize", "canonicalize", "layout", "fuse", "lower", "memory"]).run(graph.clone())
    compiled = compiler.compile(model(text), "c").load()
    for shapes in runs:
        given = arrays(graph, shapes)
        feeds = {v.name: array for v, array in zip(graph.inputs, given)}
        expected = meaning(*given)
        made = [evaluate_graph(graph, given)[0], run_program(program, feeds)["z"], compiled.run(feeds)["z"]]
        for result in made:
            assert result.shape == expected.shape
            np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-6, err_msg=str(shapes))


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("rows", [(3, 4), (2, 4)], r"M is 2, it must be N \(3\) or 1 for node 'Add_0'"),
        ("rows", [(1, 4), (2, 4)], r"M is 2, it must be N \(1\) or 1"),
        ("number", [(2, 6), (4, 6)], "N is 2, it must be 4 or 1"),
        ("expand", [(2, 4), (3, 4)], r"M is 2, it must be N \(3\) or 1 for node 'Expand_1'"),
        ("expand", [(3, 4), (1, 4)], r"M is 3, it must be N \(1\) or 1 for node 'Expand_1'"),
        ("prelu", [(2, 3, 4), (2, 1)], r"D is 2, it must be C \(3\) or 1"),
        ("mask", [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5)], r"Q is 2, it must be S \(3\) or 1"),
    ],
)
def test_other_sizes_are_refused(name: str, shapes: Shapes, message: str) -> None:
    text, _, _ = CASES[name]
    graph = imported(text)
    given = arrays(graph, shapes)
    with pytest.raises(ValueError, match=message):
        evaluate_graph(graph, given)
    with pytest.raises(UsageError, match=message):
        compiler.compile(model(text), "c").load().run({v.name: a for v, a in zip(graph.inputs, given)})


def kernels(text: str, **dims: int | tuple[int, int | None]) -> list[str]:
    return [str(kernel) for kernel in Pipeline(["legalize", "lower"]).run(imported(text, **dims)).kernels]


def test_code_for_equal_sizes_is_that_of_equal_sizes() -> None:
    agree, alike, apart = kernels(CASES["columns"][0])
    assert "M == N" in agree or "N == M" in agree
    assert alike == kernels(CASES["columns"][0].replace("M", "N"))[0].replace("b: f32[2,N]", "b: f32[2,M]")
    assert "b[i, dim(j*min(M-1,1))]" in apart


def test_an_axis_before_the_last_needs_no_second_version() -> None:
    (kernel,) = kernels(CASES["rows"][0])
    assert "b[dim(i*min(M-1,1)), j]" in kernel


@pytest.mark.parametrize("dims", [{"M": (2, None)}, {"M": 1}, {"N": 1}])
def test_bounds_decide_what_cannot_be_one(dims: dict) -> None:
    (kernel,) = kernels(CASES["columns"][0].replace("2,N", "N").replace("2,M", "M"), **dims)
    assert "min(" not in kernel


def test_sizes_that_are_demanded_to_be_equal_elsewhere_are_taken_to_be() -> None:
    text = """g (float[2,N] x, float[2,M] y, float[M,3] w) => (z, v) {
      z = Add(x, y)  v = MatMul(x, w)
    }"""
    assert [("min(" in kernel) for kernel in kernels(text)] == [False, False]


def test_sizes_made_of_the_same_dims_must_be_equal() -> None:
    text = """g (float[N,4] x) => (z) <int64[1] s = {0}, int64[1] e = {5}, int64[1] a = {0}> {
      y = Slice(x, s, e, a)  z = Add(x, y)
    }"""
    graph = imported(text)
    assert evaluate_graph(graph, [np.ones((5, 4), np.float32)])[0].shape == (5, 4)
    with pytest.raises(ValueError, match="must be equal"):
        evaluate_graph(graph, [np.ones((6, 4), np.float32)])


def test_a_mask_for_another_number_of_keys_is_refused() -> None:
    """Its last axis is not stretched: a mask for fewer keys is one that is to be padded."""
    text = CASES["mask"][0].replace("M,Q,T", "M,Q,U")
    graph = imported(text)
    given = arrays(graph, [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 3, 1)])
    with pytest.raises(ValueError, match="U is 1 and T is 5; they must be equal"):
        evaluate_graph(graph, given)
    with pytest.raises(CompileError):
        compiler.compile(model(text), "c").load().run({v.name: a for v, a in zip(graph.inputs, given)})
