"""Convolutional regions in channels-last form: what moves with them, in every graph, and that C computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from compiler.backend import find_backend
from compiler.pipeline import PASSES, Pipeline, load_passes
from ir.build import Builder
from ir.dims import Size, symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Node, Value
from ir.op import OPS
from ir.types import tensor

load_passes()
RNG = np.random.default_rng(5)
CONV = {"stride": (1, 1), "pad": (0,) * 4, "dilation": (1, 1)}


def weights(b: Builder, *shape: int) -> Value:
    return b.const(RNG.standard_normal(shape).astype(np.float32))


def image(graph: Graph, *shape: Size | str) -> Value:
    return graph.add_input("x", tensor("f32", *(symbol(s) if isinstance(s, str) else s for s in shape)))


def all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of those nested in it."""
    for node in graph.nodes():
        yield node
        for value in node.op.attributes().values():
            if isinstance(value, Graph):
                yield from all_nodes(value)


def names_after(graph: Graph, passes: list[str]) -> list[str]:
    return [node.op.name for node in all_nodes(Pipeline(passes).run(graph)) if node.op.name != "const"]


def assert_c_agrees(graph: Graph, folder: Path, *arrays: np.ndarray) -> None:
    """C gives what the graph does. Sums of some hundred products of about 1 differ by the order of summands only."""
    target = find_backend("c", march="native")
    feeds = dict(zip([v.name for v in graph.inputs], arrays))
    found = target.emit(target.pipeline().run(graph), folder).load().run(feeds)
    for name, wanted in zip(graph.output_names, evaluate_graph(graph, list(arrays))):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4)


def test_branches_are_channels_last_too(tmp_path: Path) -> None:
    def branch(width: int) -> Graph:
        graph = Graph("branch")
        x = image(graph, "N", 3, "L")
        with Builder(graph) as b:
            y = b.conv(x, weights(b, 8, 3, width), stride=(1,), pad=(width // 2,) * 2, dilation=(1,))
            y = b.conv(b.relu(y), weights(b, 32, 8, 1), stride=(1,), pad=(0, 0), dilation=(1,))
        graph.set_outputs([y])
        return graph

    graph = Graph("choice")
    which = graph.add_input("which", tensor("bool"))
    x = image(graph, "N", 3, "L")
    with Builder(graph) as b:
        y = b.apply(OPS["if_"](then=branch(3), orelse=branch(5)), which, x, x)  # type: ignore[call-arg]
    graph.set_outputs([y], ["y"])
    found = names_after(graph, ["layout", "fuse"])
    assert found.count("conv_channels_last") == 4 and "conv" not in found
    assert found.count("fused") == 4, "what surrounds a convolution in a branch is not one kernel"
    array = RNG.standard_normal((2, 3, 21)).astype(np.float32)
    for taken in (True, False):
        assert_c_agrees(graph, tmp_path / str(taken), np.array(taken), array)


def test_gates_and_upsampling_stay_between_convolutions(tmp_path: Path) -> None:
    graph = Graph("pyramid")
    x = image(graph, "N", 16, "H", "W")
    with Builder(graph) as b:
        fine = b.conv(x, weights(b, 16, 16, 1, 1), **CONV)
        pooled = b.reduce_mean(fine, axes=(2, 3))
        gate = b.sigmoid(b.conv(pooled, weights(b, 16, 16, 1, 1), **CONV))
        wide = b.repeat(fine * gate, factors=(1, 1, 2, 2))
        y = b.conv(wide, weights(b, 16, 16, 1, 1), **CONV)
    graph.set_outputs([y], ["y"])
    assert names_after(graph, ["layout", "fold", "dce"]).count("transpose") == 2
    assert_c_agrees(graph, tmp_path, RNG.standard_normal((2, 16, 5, 7)).astype(np.float32))


TRANSPOSED = {
    "halves": ((1, 8, 5, 6), (8, 20, 4, 4), {"stride": (2, 2), "pad": (1, 1, 1, 1)}),
    "odd taps": ((2, 8, 5, 4), (8, 20, 3, 3), {"stride": (2, 2), "pad": (1, 1, 1, 1)}),
    "odd taps, even size": ((2, 8, 5, 4), (8, 20, 3, 3), {"stride": (2, 2), "pad": (1, 1, 1, 1), "extra": (1, 1)}),
    "no overlap": ((1, 8, 3, 4), (8, 20, 2, 3), {"stride": (2, 3)}),
    "no overlap, one channel": ((1, 8, 3, 4), (8, 1, 2, 3), {"stride": (2, 3)}),
    "gaps": ((1, 8, 3, 4), (8, 20, 1, 2), {"stride": (3, 3), "extra": (2, 0)}),
    "uneven cuts": ((1, 8, 5, 4), (8, 20, 5, 4), {"stride": (2, 3), "pad": (3, 0, 1, 2), "extra": (0, 1)}),
    "groups": ((1, 8, 5, 4), (8, 6, 3, 3), {"stride": (2, 2), "pad": (1, 0, 0, 1), "groups": 2}),
    "each channel": ((1, 24, 5, 4), (24, 1, 3, 2), {"stride": (2, 2), "groups": 24}),
    "stride 1": ((1, 8, 5, 4), (8, 20, 3, 2), {"stride": (1, 1), "pad": (1, 0, 1, 0)}),
    "dilated": ((1, 8, 5, 4), (8, 20, 3, 2), {"stride": (2, 2), "dilation": (2, 1)}),
    "a sound": ((2, 8, 9), (8, 20, 16), {"stride": (8,), "pad": (4, 4)}),
    "a volume": ((1, 4, 3, 2, 3), (4, 18, 3, 2, 2), {"stride": (2, 2, 1), "pad": (0, 1, 0, 1, 0, 0)}),
}


@pytest.mark.parametrize("is_symbolic", [False, True])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str, is_symbolic: bool, tmp_path: Path) -> None:
    shape, w, given = TRANSPOSED[name]
    half = len(shape) - 2
    attributes = {"pad": (0,) * 2 * half, "dilation": (1,) * half, "extra": (0,) * half, **given}
    graph = Graph("transposed")
    sizes = [f"d{a}" if is_symbolic and a != 1 else size for a, size in enumerate(shape)]
    with Builder(graph) as b:
        y = b.conv_transpose(
            image(graph, *sizes), weights(b, *w), weights(b, w[1] * given.get("groups", 1)), **attributes
        )
        graph.set_outputs([b.relu(y)], ["y"])
    assert ("conv_transpose" in names_after(graph, ["layout"])) == (name == "dilated")
    assert_c_agrees(graph, tmp_path, RNG.standard_normal(shape).astype(np.float32))


FEW = {
    "one channel": ((2, 9, 40, 8), (3, 5, 8, 1), {}),
    "one channel, uneven": ((1, 4, 47, 8), (3, 5, 8, 1), {}),
    "a long filter": ((2, 1, 900, 1), (1, 64, 1, 1), {"stride": (1, 2)}),
    "half a vector": ((1, 5, 70, 4), (3, 9, 4, 8), {}),
    "a run of taps": ((1, 9, 11, 3), (3, 3, 3, 32), {"stride": (2, 2)}),
    "dilated": ((1, 9, 50, 3), (3, 3, 3, 1), {"dilation": (1, 2)}),
    "few outputs": ((1, 9, 9, 3), (3, 3, 3, 2), {}),
    "a sound": ((2, 96, 5), (7, 5, 3), {"stride": (3,)}),
}


@pytest.mark.parametrize("is_symbolic", [False, True])
@pytest.mark.parametrize("name", FEW)
def test_few_channels(name: str, is_symbolic: bool, tmp_path: Path) -> None:
    shape, w, given = FEW[name]
    half = len(shape) - 2
    attributes = {"stride": (1,) * half, "pad": (0,) * 2 * half, "dilation": (1,) * half, **given}
    sizes = [f"d{a}" if is_symbolic and a < half else size for a, size in enumerate(shape)]
    graph = Graph("few")
    with Builder(graph) as b:
        y = b.conv_channels_last(image(graph, *sizes), weights(b, *w), weights(b, w[-1]), **attributes)
        y = b.relu(y) * weights(b, w[-1])
        graph.set_outputs([b.sigmoid(y + b.transpose(y, perm=(0, *range(1, half + 2))))], ["y"])
    assert_c_agrees(graph, tmp_path, RNG.standard_normal(shape).astype(np.float32))


def test_channels_that_only_a_run_tells_are_no_taps() -> None:
    graph = Graph("unknown")
    with Builder(graph) as b:
        y = b.conv_channels_last(image(graph, "n", "h", "w", "c"), weights(b, 3, 3, 3, 8), None, **CONV)
    graph.set_outputs([y], ["y"])
    made = Pipeline([PASSES["widen"].with_options(lanes=16), "dce"]).run(graph)
    assert [node.op.name for node in made.nodes() if node.op.name != "const"] == ["conv_channels_last"]


def test_neighbouring_outputs_fill_a_vector() -> None:
    graph = Graph("narrow")
    with Builder(graph) as b:
        x = image(graph, 1, 20, 132, 8)
        y = b.conv_channels_last(x, weights(b, 5, 5, 8, 1), weights(b, 1), **CONV)
        y = b.sigmoid(y * weights(b, 1))
    graph.set_outputs([y], ["y"])
    made = Pipeline([PASSES["widen"].with_options(lanes=16), "fold", "dce", "fuse"]).run(graph)
    (conv,) = (node for node in all_nodes(made) if node.op.name == "conv_channels_last")
    assert conv.output.shape == (1, 16, 8, 16)
    assert [node.op.name for node in made.nodes() if node.op.name != "const"] == ["reshape", "fused", "reshape"]
