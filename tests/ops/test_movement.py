"""Movement ops where shapes are symbolic, and shape arithmetic of real exporters that must fold while importing.

What single ops do on static shapes is tested from their examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference.kernel import run_kernel
from compiler.errors import CompileError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from compiler.onnx.ops.shape import resolved
from compiler.passes.lower import lower
from ir.build import Builder, graph_of
from ir.dims import Size, bounded, evaluate, parse_dim
from ir.evaluate import evaluate_graph
from ir.expr import Index, loop_var
from ir.graph import Graph
from ir.op import OPS, parse_type
from ir.ops.movement import reshape_index


def dims(text: str) -> tuple[Size, ...]:
    return tuple(parse_dim(part) for part in text.split())


@pytest.mark.parametrize(
    ("shape", "source", "expected"),
    [
        ("N 1 S", "N S", "i0 i2"),
        ("N S 4 16", "N S 64", "i0 i1 16*i2+i3"),
        ("N S 64", "N S 4 16", "i0 i1 i2//16 i2-16*(i2//16)"),
        ("N 8 S", "N 2 4 S", "i0 i1//4 i1-4*(i1//4) i2"),
        ("N*S 64", "N S 64", "i0//S -S*(i0//S)+i0 i1"),
        ("P 4 16", "N 64", "i0 16*i1+i2"),
        ("4 1 6", "2 12", "i0//2 6*i0+i2-12*(i0//2)"),
    ],
)
def test_reshape_divides_only_where_axes_merge(shape: str, source: str, expected: str) -> None:
    sizes = dims(shape)
    bounds = {f"i{a}": (0, size - 1 if isinstance(size, int) else None) for a, size in enumerate(sizes)}
    with bounded(bounds):
        found = reshape_index([loop_var(name) for name in bounds], sizes, dims(source))
    assert " ".join(str(i.value) for i in found if isinstance(i, Index)) == expected


def lowered(
    op_name: str, types: list[str], sizes: dict[str, int], operands: list[np.ndarray], **attributes: Any
) -> None:
    """Runs the kernel of an op on symbolic types, and the op itself, on the same arrays."""
    graph = graph_of(OPS[op_name](**attributes), [parse_type(text) for text in types])
    (kernel,) = lower.run(graph.clone()).kernels
    expected = evaluate_graph(graph, operands, sizes)
    results = [np.zeros_like(np.ascontiguousarray(e)) for e in expected]
    run_kernel(kernel, dict(zip((p.name for p in kernel.params), [*operands, *results])), sizes)
    for result, wanted in zip(results, expected):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize(
    ("op_name", "types", "attributes"),
    [
        ("pad", ["f32[N]"], {"before": (3,), "after": dims("N+1"), "mode": "reflect"}),
        ("pad", ["f32[N]"], {"before": (2,), "after": dims("N"), "mode": "edge"}),
        ("pad", ["f32[2,N]"], {"before": (0, 2), "after": dims("1 5"), "mode": "wrap"}),
        ("pad", ["f32[N]"], {"before": (-1,), "after": dims("N"), "value": 2.0}),
        ("slice", ["f32[N]"], {"starts": dims("N-1"), "shape": dims("N"), "steps": (-1,)}),
        ("concat", ["f32[N,2]", "f32[3,2]", "f32[2*N,2]"], {"axis": 0}),
        ("tile", ["f32[N,2]"], {"repeats": dims("2 N")}),
        ("top_k", ["f32[2,N]"], {"axis": 1, "count": 2}),
        ("cum_sum", ["i32[N,2]"], {"axis": 0, "exclusive": True, "reverse": True}),
    ],
)
def test_kernels_of_symbolic_shapes(op_name: str, types: list[str], attributes: dict[str, Any], size: int) -> None:
    rng = np.random.default_rng(0)
    shapes = [parse_type(text) for text in types]
    operands = [rng.integers(0, 9, [evaluate(s, {"N": size}) for s in x.shape]).astype(x.dtype.numpy) for x in shapes]
    lowered(op_name, types, {"N": size}, operands, **attributes)


def imported(text: str, dims_given: dict[str, Any] | None = None) -> Graph:
    """The graph of a model in ONNX's own text form."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{text}')
    return import_model(read_model_proto(model), dims_given)


def output_types(graph: Graph) -> str:
    return " ".join(str(v.type) for v in graph.outputs)


def test_heads_split_as_torch_writes_it() -> None:
    graph = imported("""
    g (float[B,S,64] x) => (float[n,h,s,d] y) <int64 zero = {0}, int64 one = {1}, int64[1] first = {0},
        int64[1] four = {4}, int64[1] rest = {-1}, int64[3] flat = {0, 0, -1}>
    {
      shape = Shape(x)
      b = Gather<axis = 0>(shape, zero)
      s = Gather<axis = 0>(shape, one)
      b1 = Unsqueeze(b, first)
      s1 = Unsqueeze(s, first)
      target = Concat<axis = 0>(b1, s1, four, rest)
      heads = Reshape(x, target)
      y = Transpose<perm = [0, 2, 1, 3]>(heads)
    }""")
    assert output_types(graph) == "f32[B,4,S,16]"
    assert graph.equal_dims == []


def test_broadcast_of_a_mask_as_torch_writes_it() -> None:
    graph = imported("""
    g (float[B,1,1,S] mask, float[B,T,8] x) => (float[a,b,c,d] y) <int64 zero = {0}, int64 one = {1},
        int64[1] first = {0}, int64[1] minus = {-1}, int64[1] single = {1}>
    {
      shape = Shape(x)
      b = Gather<axis = 0>(shape, zero)
      t = Gather<axis = 0>(shape, one)
      b1 = Unsqueeze(b, first)
      t1 = Unsqueeze(t, first)
      target = Concat<axis = 0>(b1, single, t1, minus)
      rank = Shape(target)
      ones = ConstantOfShape<value = int64[1] {1}>(rank)
      minus_ones = Mul(ones, minus)
      keep = Equal(target, minus_ones)
      chosen = Where(keep, ones, target)
      y = Expand(mask, chosen)
    }""")
    assert output_types(graph) == "f32[B,1,T,S]"


def test_ranges_of_symbolic_length_compose() -> None:
    graph = imported("""
    g (float[B,S] x, float[B,P] past) => (int64[n] y) <int64 zero = {0}, int64 one = {1}>
    {
      xs = Shape(x)
      ps = Shape(past)
      s = Gather<axis = 0>(xs, one)
      p = Gather<axis = 0>(ps, one)
      total = Add(p, s)
      y = Range(p, total, one)
    }""")
    assert output_types(graph) == "i64[S]"
    (y,) = evaluate_graph(graph, [np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32)])
    assert y.tolist() == [2, 3, 4]


def slice_to(start: int | str, end: int | str, step: int = 1, **given: Any) -> str:
    """The type of x[:, start:end:step] for x of shape [B, S]; a bound is a number, or S, P or S - P as "PS"."""
    numbers = [bound if isinstance(bound, int) else 0 for bound in (start, end)]
    names = [bound if isinstance(bound, str) else name for bound, name in ((start, "low"), (end, "high"))]
    graph = imported(
        f"""
    g (float[B,S] x, float[B,P] past) => (float[n,m] y)
        <int64[1] one = {{1}}, int64[1] steps = {{{step}}},
         int64[1] low = {{{numbers[0]}}}, int64[1] high = {{{numbers[1]}}}>
    {{
      xs = Shape(x)
      ps = Shape(past)
      S = Gather<axis = 0>(xs, one)
      P = Gather<axis = 0>(ps, one)
      PS = Sub(S, P)
      y = Slice(x, {names[0]}, {names[1]}, one, steps)
    }}""",
        given,
    )
    return output_types(graph)


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        (0, 2**31 - 1, 1, "f32[B,S]"),
        (0, "S", 1, "f32[B,S]"),
        (0, "P", 1, "f32[B,min(P,S)]"),
        (-2, 2**63 - 1, 1, "f32[B,min(S,2)]"),
        (1, 2**63 - 1, 2, "f32[B,(max(S-1,0)+1)//2]"),
        (-1, -(2**63), -1, "f32[B,S]"),
        (0, -1, 1, "f32[B,max(S-1,0)]"),
        (0, 5, 1, "f32[B,min(S,5)]"),
    ],
)
def test_slice_bounds_are_clamped(start: Any, end: Any, step: int, expected: str) -> None:
    assert slice_to(start, end, step) == expected


def test_slice_bounds_simplify_by_bounds_of_sizes() -> None:
    assert slice_to(0, "P", P=(1, 8), S=(8, 64)) == "f32[B,P]"
    assert slice_to(-2, 2**63 - 1, S=(2, None)) == "f32[B,2]"


def test_slice_of_the_last_entries_assumes_that_they_are_there() -> None:
    assert slice_to("PS", 2**63 - 1) == "f32[B,P]"


def test_squeeze_without_axes_is_refused_where_the_rank_would_depend_on_the_input() -> None:
    text = "g (float[B,1,4] x) => (y) { y = Squeeze(x) }"
    with pytest.raises(CompileError, match="whether B is 1"):
        imported(text)
    assert output_types(imported(text, {"B": 1})) == "f32[4]"
    assert output_types(imported(text, {"B": (2, None)})) == "f32[B,4]"


def test_known_indices_become_a_slice() -> None:
    graph = imported("""
    g (float[B,S,8] x) => (float[n,m] last, float[a,b,c] odd) <int64 minus = {-1}, int64[3] some = {1, 3, 5}>
    {
      last = Gather<axis = 1>(x, minus)
      odd = Gather<axis = 2>(x, some)
    }""")
    assert output_types(graph) == "f32[B,8] f32[B,S,3]"
    assert [node.op.name for node in graph.nodes() if node.op.name != "const"] == ["slice", "reshape", "slice"]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("f32[N,3,H,W]", "0 0 -1", "f32[N,3,H*W]"),
        ("f32[N,S,64]", "-1 64", "f32[N*S,64]"),
        ("f32[N,S,64]", "0 -1 4 16", "f32[N,S,4,16]"),
        ("f32[0,3]", "0 -1", "f32[0,3]"),
        ("f32[6*N,S]", "2 -1", "f32[2,3*N*S]"),
        ("f32[N,P+S,2,8]", "N P+S -1", "f32[N,P+S,16]"),
    ],
)
def test_reshape_solves_the_missing_size_exactly(source: str, target: str, expected: str) -> None:
    b = Builder(Graph())
    x = b.graph.add_input("x", parse_type(source))
    shape = resolved(b, x.shape, dims(target), keep_zero=False)
    assert (str(b.reshape(x, shape=shape).type), b.graph.equal_dims) == (expected, [])


def test_uneven_split_of_a_symbolic_axis() -> None:
    graph = imported("g (float[N,4] x) => (float[a,b] p, float[c,d] q) { p, q = Split<num_outputs = 2>(x) }")
    parts = evaluate_graph(graph, [np.arange(20, dtype=np.float32).reshape(5, 4)])
    assert [part.shape for part in parts] == [(3, 4), (2, 4)]


def test_constants_of_shape_hold_no_memory() -> None:
    graph = imported("g () => (float[a,b] y) <int64[2] shape = {100000, 100000}> { y = ConstantOfShape(shape) }")
    blob = graph.outputs[0].blob
    assert blob is not None and blob.array().strides == (0, 0)


def test_the_builder_folds_movement_of_sizes() -> None:
    b = Builder(Graph())
    sizes = b.dims(dims("N S 4"))
    part = b.slice(b.transpose(b.reshape(sizes, shape=(1, 3)), perm=(1, 0)), starts=(1, 0), shape=(2, 1), steps=(1, 1))
    assert str(b.tile(part, repeats=(1, 2)).content.tolist()) == "[[S, S], [4, 4]]"
