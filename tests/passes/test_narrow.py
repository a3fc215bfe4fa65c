"""Contractions of bf16: what they round, what they store, where they pay, and that kernels and C compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.errors import UsageError
from compiler.passes.narrow import pays
from compiler.pipeline import Pipeline, load_passes
from ir import types as t
from ir.build import Builder
from ir.dims import substitute, symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.types import TensorType, tensor

RNG = np.random.default_rng(11)
ROUNDED = 3e-6
"""Of the largest result, between sums of the same rounded operands in f32: some hundred terms in another order."""
NARROW = 2**-8
"""Of the largest result, beside unrounded operands: each of two errs by 2^-9 of itself at most, and errors of random
signs add up as the terms do. So do those of two products, one after the other."""
GRAPH_PASSES = ["fold", "canonicalize", "layout", "fold", "widen", "fold", "cse", "dce", "narrow", "fuse"]


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))


def kernels(outputs: int, *inner: int) -> np.ndarray:
    return np.moveaxis(weights(*inner, outputs), -1, 0)


def graph_of(x: TensorType, make: Callable[[Builder, Value], Value | list[Value]]) -> Graph:
    graph = Graph("g")
    value = graph.add_input("x", x)
    with Builder(graph) as b:
        made = make(b, value)
    outputs = made if isinstance(made, list) else [made]
    graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])
    return graph


def window(**more: object) -> dict[str, object]:
    return {"stride": (1, 1), "pad": (1, 1, 1, 1), "dilation": (1, 1), **more}


def two_products(b: Builder, x: Value) -> Value:
    return b.matmul(b.relu(b.matmul(x, b.const(weights(32, 64)))), b.const(weights(64, 40)))


def residual(b: Builder, x: Value) -> Value:
    y = b.relu(b.matmul(x, b.const(weights(64, 64))))
    return y + b.matmul(y, b.const(weights(64, 64)))


def convolutions(b: Builder, x: Value) -> Value:
    y = b.relu(b.conv(x, b.const(kernels(32, 16, 3, 3)), b.const(weights(32)), **window(stride=(2, 2))))
    return b.conv(y, b.const(kernels(32, 32, 1, 1)), **window(pad=(0, 0, 0, 0)))


def grouped(b: Builder, x: Value) -> Value:
    return b.conv(x, b.const(kernels(32, 8, 3, 3)), **window(groups=2))


def transposed(b: Builder, x: Value) -> Value:
    more = window(stride=(2, 2), extra=(1, 1))
    return b.conv_transpose(x, b.const(weights(16, 24, 3, 3)), **more)


def few_channels(b: Builder, x: Value) -> Value:
    return b.conv(x, b.const(kernels(32, 3, 7, 7)), b.const(weights(32)), **window(stride=(2, 2), pad=(3, 2, 3, 2)))


def spectrum(b: Builder, x: Value) -> Value:
    """Frames of a signal of any length, as a Fourier transform takes them: whose last element is of no frame, too."""
    return b.conv(x, b.const(kernels(24, 1, 32)), stride=(10,), pad=(0, 0), dilation=(1,))


IMAGE = tensor("f32", 1, 16, 9, 10)
CASES = [
    pytest.param(tensor("f32", 13, 32), two_products, 2, id="products"),
    pytest.param(tensor("f32", symbol("N"), 32), two_products, 2, id="rows of any number"),
    pytest.param(tensor("f32", 7, symbol("K") * 4), two_products, 2, id="sums whose length the weights tell"),
    pytest.param(tensor("f32", 5, 64), residual, 2, id="residual"),
    pytest.param(tensor("f32", 1, 3, 6, 32), two_products, 2, id="batched rows"),
    pytest.param(IMAGE, convolutions, 2, id="convolutions"),
    pytest.param(tensor("f32", 2, 3, 18, 21), few_channels, 1, id="few channels"),
    pytest.param(tensor("f32", 2, 1, symbol("L") + 64), spectrum, 1, id="frames of a signal"),
    pytest.param(IMAGE, grouped, 1, id="groups"),
    pytest.param(IMAGE, transposed, 1, id="transposed"),
    pytest.param(tensor("f32", 2, 16, 11), lambda b, x: b.conv(
        x, b.const(kernels(24, 16, 5)), stride=(1,), pad=(2, 2), dilation=(1,)), 1, id="one axis"),
]  # fmt: skip


def feeds_of(graph: Graph) -> dict[str, np.ndarray]:
    sizes = {"N": 7, "K": 8, "L": 9}
    shape = [size if isinstance(size, int) else int(substitute(size, sizes)) for size in graph.inputs[0].shape]
    return {"x": RNG.standard_normal(shape).astype(np.float32)}


def rounded(graph: Graph) -> Graph:
    """The graph after the passes of graphs, with contractions narrow."""
    load_passes()
    return Pipeline(GRAPH_PASSES).run(graph)


def casts(graph: Graph) -> list[tuple[str, str]]:
    """The types between which something is converted, in the groups that become kernels too."""
    found = []
    for node in graph.nodes():
        inner = node.op.body.nodes() if node.op.name == "fused" else [node]  # type: ignore[attr-defined]
        found += [(str(n.inputs[0].dtype), str(n.output.dtype)) for n in inner if n.op.name == "cast" and n.inputs[0]]
    return found


@pytest.mark.parametrize(("x", "make", "count"), CASES)
def test_kernels_and_c_add_products_of_rounded_operands(
    tmp_path: Path, x: TensorType, make: Callable[[Builder, Value], Value], count: int
) -> None:
    graph = graph_of(x, make)
    feeds = feeds_of(graph)
    narrow = rounded(graph)
    assert casts(narrow).count(("bf16", "f32")) == 2 * count
    wanted = evaluate_graph(narrow, list(feeds.values()))[0]
    plain = evaluate_graph(graph, list(feeds.values()))[0]
    size = np.abs(plain).max()
    assert 0 < np.abs(wanted - plain).max() < NARROW * count * size
    target = find_backend("c", precision="bf16")
    program = target.pipeline().run(graph, watch=[see.Verify()])
    loaded = target.emit(program, tmp_path / "c").load()
    assert np.abs(loaded.run(feeds)["y0"] - wanted).max() < ROUNDED * size
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((tmp_path / "c").glob("kernels_*.c")))
    assert code.count("= sesame_dot2_") >= count


def test_the_kernel_interpreter_agrees() -> None:
    graph = graph_of(tensor("f32", 3, 32), two_products)
    feeds = feeds_of(graph)
    program = find_backend("c", precision="bf16").pipeline().run(graph)
    wanted = evaluate_graph(rounded(graph), list(feeds.values()))[0]
    assert np.abs(run_program(program, feeds)["y0"] - wanted).max() < ROUNDED * np.abs(wanted).max()


def test_what_only_contractions_read_is_stored_narrow() -> None:
    program = find_backend("c", precision="bf16").pipeline().run(graph_of(tensor("f32", 13, 32), two_products))
    between = [buffer for buffer in program.buffers.values() if buffer.place == "arena"]
    assert [str(buffer.type.dtype) for buffer in between] == ["bf16", "bf16"]
    packed = [buffer for buffer in program.buffers.values() if buffer.place == "weight"]
    assert all(buffer.type.dtype == t.bf16 and buffer.type.shape[-1] == 2 for buffer in packed) and len(packed) == 2


def test_what_is_stored_narrow_is_rounded_in_vectors(tmp_path: Path) -> None:
    """After a sum, and where a kernel only converts: one element at a time takes longer than the sums."""
    target = find_backend("c", precision="bf16")
    target.emit(target.pipeline().run(graph_of(tensor("f32", 13, 32), two_products)), tmp_path)
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("kernels_*.c")))
    assert code.count("sesame_rounded_bf16x") >= 13
    assert "sesame_f32_to_bf16" not in code.partition("/* matmul")[2].partition("/* matmul")[0]


def test_an_operand_of_several_contractions_is_rounded_once() -> None:
    def make(b: Builder, x: Value) -> list[Value]:
        y = b.relu(x)
        return [b.matmul(y, b.const(weights(64, 64))) for _ in range(3)]

    assert casts(rounded(graph_of(tensor("f32", 5, 64), make))).count(("f32", "bf16")) == 1


def test_a_halo_is_added_to_what_is_rounded() -> None:
    """Its zeros are those of bf16, and the kernel that makes the operand stores it narrow."""
    narrow = rounded(graph_of(IMAGE, convolutions))
    pads = [n for n in narrow.nodes() for v in n.outputs if n.op.name in ("pad", "fused") and v.dtype == t.bf16]
    assert len(pads) == 2


def refusals(x: TensorType, make: Callable[[Builder, Value], Value | list[Value]]) -> list[bool | str]:
    load_passes()
    graph = Pipeline(["fold", "canonicalize", "layout", "fold", "cse", "dce"]).run(graph_of(x, make))
    return [pays(node) for node in graph.nodes() if node.op.name in ("matmul", "conv_channels_last")]


def test_products_for_which_it_does_not_pay_stay_as_they_are() -> None:
    def product(inner: int, outer: int) -> list[bool | str]:
        return refusals(tensor("f32", 5, inner), lambda b, x: b.matmul(x, b.const(weights(inner, outer))))

    assert product(64, 64) == [True]
    assert product(63, 64) == ["sums over 63 channels are not made of pairs"]
    assert product(8, 64) == ["sums of 8 products for 64 columns are too small"]
    assert product(64, 8) == ["sums of 64 products for 8 columns are too small"]
    assert product(64, 24) == ["rounding the other operand would cost more than it gains"]  # nothing else makes x
    depthwise = refusals(IMAGE, lambda b, x: b.conv(x, b.const(kernels(16, 1, 3, 3)), **window(groups=16)))
    assert depthwise == ["sums over 1 channels are not made of pairs"]
    both = refusals(tensor("f32", 5, 64), lambda b, x: b.matmul(x, b.transpose(x, perm=(1, 0))))
    assert both == ["only products of f32 by weights that are known"]


def test_products_at_the_points_of_tiles_stay_f32() -> None:
    def make(b: Builder, x: Value) -> Value:
        return b.conv(x, b.const(kernels(64, 64, 3, 3)), **window())

    program = find_backend("c", precision="bf16").pipeline().run(graph_of(tensor("f32", 1, 64, 28, 28), make))
    assert all(buffer.type.dtype == t.f32 for buffer in program.buffers.values())
    small = find_backend("c", precision="bf16").pipeline().run(graph_of(tensor("f32", 1, 64, 14, 14), make))
    assert any(buffer.type.dtype == t.bf16 for buffer in small.buffers.values())


def test_another_precision_is_refused(tmp_path: Path) -> None:
    target = find_backend("c", precision="f16")
    with pytest.raises(UsageError, match="the precision is 'f32' or 'bf16', not 'f16'"):
        target.pipeline()
