"""Frames: operands are stored inside of them by the calls that make them, with the same results, and where not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.passes.frame import frame_of
from ir.build import Builder
from ir.dims import substitute, symbol
from ir.graph import Graph, Value
from ir.op import OPS
from ir.parse import parse_kernel
from ir.program import Program
from ir.types import TensorType, tensor

RNG = np.random.default_rng(23)
WINDOW = {"stride": (1, 1), "pad": (1, 1, 1, 1), "dilation": (1, 1)}


def kernels(outputs: int, *inner: int) -> np.ndarray:
    return RNG.standard_normal((outputs, *inner)).astype(np.float32)


def graph_of(x: TensorType, make: Callable[[Builder, Value], Value | list[Value]]) -> Graph:
    graph = Graph("g")
    value = graph.add_input("x", x)
    with Builder(graph) as b:
        made = make(b, value)
    outputs = made if isinstance(made, list) else [made]
    graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])
    return graph


def depthwise(b: Builder, x: Value) -> Value:
    y = b.clip(b.conv(x, b.const(kernels(16, 8, 1, 1)), stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)), 0.0, 6.0)
    return b.conv(y, b.const(kernels(16, 1, 3, 3)), **WINDOW, groups=16)


def strided(b: Builder, x: Value) -> Value:
    """Two halos, one of them on one side only."""
    y = b.relu(b.conv(x, b.const(kernels(24, 8, 3, 3)), stride=(2, 2), pad=(0, 0, 0, 0), dilation=(1, 1)))
    return b.conv(y, b.const(kernels(16, 24, 2, 2)), stride=(1, 1), pad=(0, 1, 1, 0), dilation=(1, 1))


def of_ones(b: Builder, x: Value) -> Value:
    y = b.matmul(x, b.const(kernels(6, 40)))
    return b.pad(b.exp(y), before=(2, 0), after=(1, 3), value=1.0)


def pooled(b: Builder, x: Value) -> Value:
    y = b.max_pool(x, window=(2, 2), stride=(2, 2), pad=(0, 0, 0, 0), dilation=(1, 1))
    return b.pad(y, before=(0, 1, 0, 2), after=(0, 0, 3, 0))


IMAGE = tensor("f32", 1, 8, 11, 13)
ANY = tensor("f32", symbol("N"), 8, symbol("H") + 3, symbol("H") + 5)
CASES = [
    pytest.param(IMAGE, depthwise, 1, id="depthwise"),
    pytest.param(ANY, depthwise, 1, id="sizes of any number"),
    pytest.param(IMAGE, strided, 1, id="on one side"),
    pytest.param(tensor("f32", 5, 6), of_ones, 1, id="around a function"),
    pytest.param(IMAGE, pooled, 1, id="around a pool"),
]


def frames(program: Program) -> list[str]:
    return [call.kernel.name for call in program.calls() if call.kernel.name.startswith("frame_of")]


def feeds_of(graph: Graph) -> dict[str, np.ndarray]:
    shape = [
        size if isinstance(size, int) else int(substitute(size, {"N": 2, "H": 6})) for size in graph.inputs[0].shape
    ]
    return {"x": RNG.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize(("x", "make", "count"), CASES)
def test_what_is_framed_is_stored_in_place_with_the_same_bits(
    tmp_path: Path, x: TensorType, make: Callable[[Builder, Value], Value], count: int
) -> None:
    graph = graph_of(x, make)
    feeds = feeds_of(graph)
    target = find_backend("c", threads=2)
    program = target.pipeline().run(graph.clone(), watch=[see.Verify()])
    plain = target.pipeline().without("frame").run(graph)
    assert len(frames(program)) == count and not frames(plain)
    assert len(list(program.calls())) == len(list(plain.calls()))
    made = target.emit(program, tmp_path / "made").load().run(feeds)["y0"]
    assert made.tobytes() == target.emit(plain, tmp_path / "plain").load().run(feeds)["y0"].tobytes()
    size = np.abs(made).max()
    # sums of at most 216 products in another order
    assert np.abs(run_program(program, feeds)["y0"] - made).max() < 1e-5 * size


def test_others_that_need_the_operand_keep_it() -> None:
    def make(b: Builder, x: Value) -> list[Value]:
        y = b.matmul(x, b.const(kernels(6, 40)))
        return [b.pad(y, before=(1, 1), after=(1, 1)), b.reduce_sum(y, axes=(1,))]

    assert not frames(find_backend("c").pipeline().run(graph_of(tensor("f32", 5, 6), make)))


def test_the_output_of_a_model_is_no_operand_of_a_frame() -> None:
    def make(b: Builder, x: Value) -> list[Value]:
        y = b.matmul(x, b.const(kernels(6, 40)))
        return [y, b.pad(y, before=(1, 1), after=(1, 1))]

    assert not frames(find_backend("c").pipeline().run(graph_of(tensor("f32", 5, 6), make)))


def test_calls_in_a_branch_are_framed_as_well() -> None:
    def make(b: Builder, x: Value) -> Value:
        bodies = []
        for scale in (1.0, 2.0):
            body = Graph(f"scaled_{scale}")
            value = body.add_input("x", x.type)
            with Builder(body) as inner:
                made = inner.pad(inner.matmul(value, inner.const(scale * kernels(6, 40))), before=(1, 0), after=(1, 0))
            body.set_outputs([made], ["y"])
            bodies.append(body)
        condition = b.greater(b.reduce_sum(x, axes=(0, 1), keepdims=False), 0.0)
        return b.apply(OPS["if_"](then=bodies[0], orelse=bodies[1]), condition, x, x)  # type: ignore[call-arg]

    assert len(frames(find_backend("c").pipeline().run(graph_of(tensor("f32", 5, 6), make)))) == 2


PAD = """kernel @k(in x: f32[{size}], out y: f32[9,4]) {{
  for h in 0..{rows}, w in 0..4 {{
    y[h, w] = {value}
  }}
}}"""


def kernel_frame(value: str, size: str = "7,4", rows: str = "9"):
    return frame_of(parse_kernel(PAD.format(size=size, rows=rows, value=value)))


def test_which_kernels_put_a_frame_around_an_operand() -> None:
    within = "(h - 1 >= 0) & (h - 1 < 7)"
    for value, size in [
        ("(x[h - 1, w] or 0.5)", "7,4"),
        (f"select({within}, max(x[h - 1, w], 0.0), 0.5)", "7,4"),
        ("select(h - 1 >= 0, max(x[h - 1, w], 0.0), 0.5)", "8,4"),
    ]:
        found = kernel_frame(value, size)
        assert found is not None and found.operand is not None and found.around.value == 0.5
        assert (found.before, found.after) == ((1, 0), (8 - int(size[0]), 0))
    assert kernel_frame("(x[h - 1, w] or x[0, 0])") is None, "what lies around is not one value"
    assert kernel_frame("select(x[0, w] > 0.0, x[h, w], 0.0)", "9,4") is None, "it depends on data"
    assert kernel_frame("select(h%2 >= 1, x[h, w], 0.0)", "9,4") is None, "it is no frame"
    assert kernel_frame("x[h, w]", "9,4") is None, "there is none"
    assert kernel_frame("(x[h - 1, w] or 0.0)", rows="8") is None, "a row is not stored"


@pytest.mark.parametrize(
    ("value", "size", "why"),
    [
        ("select({} & (w < 3), max(x[h - 1, w], 0.0), 0.0)", "7,4", "part of the operand is left out"),
        ("select({}, x[h - 1, w] * f32(w), 0.0)", "7,4", "a function of the place"),
        ("select({}, x[h - 1, w] + x[h - 1, 0], 0.0)", "7,4", "two elements"),
        ("select({}, x[w, h - 1], 0.0)", "4,7", "elements are moved"),
        ("select(h < 7, x[h + 1, w], 0.0)", "8,4", "elements are cut off"),
    ],
)
def test_what_is_no_function_of_the_element_at_the_same_place(value: str, size: str, why: str) -> None:
    found = kernel_frame(value.format("(h - 1 >= 0) & (h - 1 < 7)"), size)
    assert found is not None and found.operand is None, why


def shuffled(b: Builder, x: Value) -> Value:
    """Channels of four groups in turn, with a halo around the image."""
    n, h, w, c = x.shape
    y = b.reshape(x, shape=(n, h, w, 4, c // 4))
    y = b.reshape(b.transpose(y, perm=(0, 1, 2, 4, 3)), shape=x.shape)
    return b.pad(b.relu(y), before=(0, 1, 1, 0), after=(0, 2, 1, 0))


def test_what_is_moved_into_a_frame_asks_nothing_of_its_elements(tmp_path: Path) -> None:
    graph = graph_of(tensor("f32", 2, 5, 6, 136), shuffled)
    feeds = feeds_of(graph)
    target = find_backend("c")
    program = target.pipeline().run(graph, watch=[see.Verify()])
    assert [call.kernel.name.rpartition("_")[2] for call in program.calls()] == ["inside", "pad"]
    x = feeds["x"].reshape(2, 5, 6, 4, 34).transpose(0, 1, 2, 4, 3).reshape(2, 5, 6, 136)
    wanted = np.pad(np.maximum(x, 0), ((0, 0), (1, 2), (1, 1), (0, 0)))
    np.testing.assert_array_equal(target.emit(program, tmp_path).load().run(feeds)["y0"], wanted)
    np.testing.assert_array_equal(run_program(program, feeds)["y0"], wanted)
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("kernels_*.c")))
    assert "?" not in code and "/ 4" not in code
