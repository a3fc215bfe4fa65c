"""What random graphs found, each cut down to the least graph that showed it, so that it stays fixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.c import CBackend
from compiler.observe import Verify
from ir.blob import ArrayBlob
from ir.build import Builder
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.op import parse_type
from tests.fuzz.graphs import random_array

RNG = np.random.default_rng(11)


def _const(b: Builder, *shape: int) -> Value:
    return b.const(ArrayBlob(RNG.standard_normal(shape).astype(np.float32)))


def depthwise_with_columns_left_over(b: Builder, x: Value) -> Value:
    """The last tile read its input, which is not padded as weights are, beyond the end."""
    return b.conv(x, _const(b, 6, 1, 3, 1), stride=(1, 1), pad=(1, 1, 0, 0), dilation=(1, 1), groups=6)


def depthwise_over_one_element(b: Builder, x: Value) -> Value:
    """A convolution that looks elementwise was moved before the transposes of another."""
    y = b.conv(x, _const(b, 4, 1, 1), stride=(2,), pad=(0, 0), dilation=(1,), groups=4)
    return b.relu(b.conv(y, _const(b, 4, 1, 1), stride=(1,), pad=(0, 0), dilation=(1,), groups=4))


def norm_over_one_row(b: Builder, x: Value) -> Value:
    """A norm over an axis of one element was moved before a transpose with its axes as they were."""
    return b.reduce_l2(b.conv(x, _const(b, 4, 3, 1, 1), stride=(1, 1), pad=(0,) * 4, dilation=(1, 1)), axes=(2,))


def convolution_of_no_images(b: Builder, x: Value) -> Value:
    """The reference could not reshape an empty batch."""
    return b.conv(x, _const(b, 4, 2, 3, 3), stride=(1, 1), pad=(1,) * 4, dilation=(1, 1), groups=2)


def padding_around_nothing(b: Builder, x: Value) -> Value:
    """Whether an index lies within an axis of size 0 was asked by dividing by it."""
    return b.pad(b.slice(x, starts=(0, 0), shape=(0, 3), steps=(1, 1)), before=(2, 0), after=(1, 1), value=1.5)


def weights_of_two_groupings(b: Builder, x: Value, y: Value) -> Value:
    """Weights packed for two groups were taken for those of four."""
    w = _const(b, 192, 2, 3, 3)
    one, two = (
        b.conv(v, w, stride=(1, 1), pad=(0,) * 4, dilation=(1, 1), groups=g) for v, g in ((x, 2), (y, 4))
    )  # fmt: skip
    return b.add(one, two)


def nothing_beside_something(b: Builder, x: Value) -> Value:
    """A buffer of no bytes lies within another, which looked as if they shared memory."""
    y = b.reduce_l2(b.transpose(x, perm=(1, 0)), axes=(1,))
    return b.reshape(b.slice(y, starts=(0, 1), shape=(3, 0), steps=(1, 1)), shape=(0,))


def padding_around_a_literal(b: Builder, x: Value) -> Value:
    """A constant of one element was read outside of itself, too."""
    return b.add(x, b.pad(b.const(np.array([2.5], np.float32)), before=(1,), after=(1,), value=1.0))


CASES: list[tuple[Callable[..., Value], tuple[str, ...]]] = [
    (depthwise_with_columns_left_over, ("f32[1,6,5,7]",)),
    (depthwise_over_one_element, ("f32[2,4,2]",)),
    (norm_over_one_row, ("f32[2,3,1,5]",)),
    (weights_of_two_groupings, ("f32[1,4,5,5]", "f32[1,8,5,5]")),
    (nothing_beside_something, ("f32[2,3]",)),
    (padding_around_nothing, ("f32[2,3]",)),
    (convolution_of_no_images, ("f32[0,4,4,5]",)),
    (padding_around_a_literal, ("f32[2,3]",)),
]


def test_kernels_are_shared_only_within_the_same_bounds(tmp_path: Path) -> None:
    """Two equal products of symbolic width, one known to be wide: the other got its tiles, and read out of bounds."""
    graph = Graph("widths")
    graph.bounds["N"] = (64, None)
    x, y, z = (
        graph.add_input(f"x{i}", parse_type(text)) for i, text in enumerate(["f32[4,8]", "f32[8,N]", "f32[8,M]"])
    )
    b = Builder(graph)
    graph.set_outputs([b.matmul(x, y), b.matmul(x, z)], ["y0", "y1"])
    feeds = {f"x{i}": random_array(RNG, x.dtype, shape) for i, shape in enumerate([(4, 8), (8, 70), (8, 3)])}
    made = _compiled(graph, tmp_path).run(feeds)
    for name, wanted in zip(graph.output_names, evaluate_graph(graph, list(feeds.values()))):
        np.testing.assert_allclose(made[name], wanted, rtol=1e-4, atol=1e-4)


def _compiled(graph: Graph, folder: Path) -> Any:
    backend = CBackend(opt="-O1")
    return backend.emit(backend.pipeline().run(graph, watch=[Verify()]), folder / "out").load(opt="-O1")


@pytest.mark.parametrize(("make", "types"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_compiled_as_interpreted(make: Callable[..., Value], types: tuple[str, ...], tmp_path: Path) -> None:
    """Valid after every pass, and the same numbers in the end; 1e-4 allows for sums in another order."""
    graph = Graph(make.__name__)
    inputs = [graph.add_input(f"x{i}", parse_type(text)) for i, text in enumerate(types)]
    graph.set_outputs([make(Builder(graph), *inputs)], ["y"])
    feeds = {v.name: random_array(RNG, v.dtype, [int(size) for size in v.shape]) for v in inputs}  # type: ignore[arg-type]
    made = _compiled(graph, tmp_path).run(feeds)["y"]
    (wanted,) = evaluate_graph(graph, list(feeds.values()))
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)
