"""Convolutions by Winograd's filtering: against plain sums, where it is used and where not, and block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.choices import Answers
from compiler.passes.fuse import fuse
from compiler.passes.winograd import Form, form_of
from compiler.pipeline import PASSES, Pipeline, load_passes
from compiler.tuned import answering
from ir.build import Builder
from ir.dims import Size, symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.op import OPS
from ir.ops.winograd import _INPUT, _OUTPUT, _WEIGHTS
from ir.program import Call, Repeat
from ir.types import tensor

RNG = np.random.default_rng(5)
ERRORS = {2: 1e-6, 4: 1e-5}
"""Of the largest result, by tile. Sums at the points cancel to the results: what f32 loses there is that much with some
hundred channels, where plain sums lose about 3e-7."""


def conv(
    b: Builder, x: Value, outputs: int, pad: tuple[int, ...] = (1, 1, 1, 1), bias: bool = True, **more: Any
) -> Value:
    channels = x.shape[1] // more.get("groups", 1)
    scale = np.float32(1 / np.sqrt(9 * channels))
    w = b.const(RNG.standard_normal((outputs, channels, 3, 3)).astype(np.float32) * scale)
    rest = [b.const(RNG.standard_normal(outputs).astype(np.float32))] if bias else []
    window = {"stride": (1, 1), "pad": pad, "dilation": (1, 1), **more}
    return b.conv(x, w, *rest, **window)


def built(graph: Graph, folder: Path, **options: Any) -> Any:
    target = find_backend("c", **options)
    program = target.pipeline().run(graph, watch=[see.Verify()])
    return program, target.emit(program, folder).load()


def forms(graph: Graph) -> list[Form | str]:
    load_passes()
    laid_out = Pipeline(["fold", "canonicalize", "layout", "fold", "cse", "dce"]).run(graph)
    return [form_of(node) for node in laid_out.nodes("conv_channels_last")]


@pytest.mark.parametrize("tile", [2, 4])
def test_the_matrices_make_a_convolution(tile: int):
    d, g = RNG.standard_normal(tile + 2), RNG.standard_normal(3)
    found = _OUTPUT[tile] @ ((_WEIGHTS[tile] @ g) * (_INPUT[tile] @ d))
    assert np.allclose(
        found, np.correlate(d, g), rtol=0, atol=1e-12
    )  # in f64, where rounding is 1e-15 of terms up to 8


SHAPES: list[tuple[int, int, int, int, int, tuple[int, ...], bool]] = [
    # n, channels, height, width, outputs, pad, bias
    (1, 32, 28, 28, 32, (1, 1, 1, 1), True),
    (1, 19, 15, 30, 37, (1, 1, 1, 1), True),  # channels and outputs that are not whole vectors, rows beyond whole tiles
    (2, 16, 17, 19, 80, (0, 0, 0, 0), False),  # batch, no padding, several groups of outputs
    (1, 48, 7, 7, 64, (1, 1, 1, 1), True),
    (2, 20, 11, 9, 17, (0, 2, 1, 0), False),  # a halo that differs on each side
    (1, 16, 61, 57, 16, (1, 1, 1, 1), True),
]


@pytest.mark.parametrize("tile", [2, 4])
def test_results_are_those_of_plain_sums(tile: int, tmp_path: Path):
    graph = Graph("shapes")
    results, feeds = [], {}
    with Builder(graph) as b:
        for number, (n, c, h, w, outputs, pad, bias) in enumerate(SHAPES):
            x = graph.add_input(f"x{number}", tensor("f32", n, c, h, w))
            feeds[x.name] = RNG.standard_normal((n, c, h, w)).astype(np.float32)
            results.append(conv(b, x, outputs, pad, bias))
    graph.set_outputs(results, [f"y{number}" for number in range(len(results))])
    assert [form.tile if isinstance(form, Form) else 0 for form in forms(graph)] == [4] * len(SHAPES)
    expected = evaluate_graph(graph, list(feeds.values()))
    target, asked = find_backend("c"), Answers()
    answering(target.pipeline(), asked).run(graph)
    known = {
        where: next(form for form in question.legal if form.startswith(f"tiles of {tile}"))
        for where, question in asked.asked.items()
        if question.point == "winograd"
    }
    program = answering(target.pipeline(), Answers(known)).run(graph, watch=[see.Verify()])
    found = target.emit(program, tmp_path).load().run(feeds)
    assert len(known) == len(SHAPES)
    for number in range(len(SHAPES)):
        error = np.abs(found[f"y{number}"] - expected[number]).max() / np.abs(expected[number]).max()
        assert error < ERRORS[tile], f"{SHAPES[number]}: {error:.1e} of the largest result"


def test_sizes_that_callers_choose(tmp_path: Path):
    graph = Graph("sizes")
    x = graph.add_input("x", tensor("f32", symbol("N"), 24, symbol("H"), symbol("W")))
    with Builder(graph) as b:
        graph.set_outputs([b.relu(conv(b, x, 24))], ["y"])
    assert forms(graph) == [Form(4, 1)]
    _, model = built(graph, tmp_path)
    for n, h, w in [(1, 16, 20), (3, 1, 2), (2, 33, 7), (1, 5, 61)]:
        array = RNG.standard_normal((n, 24, h, w)).astype(np.float32)
        (expected,) = evaluate_graph(graph, [array])
        assert np.abs(model.run({"x": array})["y"] - expected).max() < ERRORS[4] * np.abs(expected).max()


def test_what_follows_is_computed_as_results_are_stored(tmp_path: Path):
    graph = Graph("residual")
    x = graph.add_input("x", tensor("f32", 1, 32, 14, 14))
    with Builder(graph) as b:
        first = b.relu(conv(b, x, 32))
        second = b.relu(conv(b, first, 32) + first)
        graph.set_outputs([conv(b, second, 32) + second], ["y"])
    program, model = built(graph, tmp_path, threads=2)
    names = sorted(call.kernel.name for call in program.calls() if call.kernel.name.startswith("winograd_output_"))
    assert names == ["winograd_output_add_relu_into_b", "winograd_output_relu"]
    array = RNG.standard_normal((1, 32, 14, 14)).astype(np.float32)
    (expected,) = evaluate_graph(graph, [array])
    error = np.abs(model.run({"x": array})["y"] - expected).max() / np.abs(expected).max()
    assert error < 3 * ERRORS[2]  # three convolutions


@pytest.mark.parametrize(
    ("shape", "outputs", "more", "reason"),
    [
        ((1, 64, 28, 28), 64, {"stride": (2, 2)}, "move by one"),
        ((1, 64, 28, 28), 64, {"dilation": (2, 2), "pad": (2, 2, 2, 2)}, "without gaps"),
        ((1, 64, 28, 28), 64, {"groups": 2}, "one group"),
        ((1, 3, 28, 28), 64, {}, "fewer than 16 channels"),
        ((1, 64, 28, 28), 8, {}, "fewer than 16 channels"),
        ((1, 64, 6, 28), 64, {}, "fewer than 7 rows or columns"),
    ],
)
def test_convolutions_that_stay_as_they_are(shape: tuple[int, ...], outputs: int, more: dict[str, Any], reason: str):
    graph = Graph("plain")
    with Builder(graph) as b:
        graph.set_outputs([conv(b, graph.add_input("x", tensor("f32", *shape)), outputs, **more)])
    (found,) = forms(graph)
    assert isinstance(found, str) and reason in found


def test_it_can_be_switched_off():
    assert "winograd" in str(find_backend("c").pipeline())
    assert "winograd" not in str(find_backend("c,winograd=false").pipeline())


def test_a_halo_is_made_once():
    graph = Graph("halo")
    with Builder(graph) as b:
        x = b.relu(conv(b, graph.add_input("x", tensor("f32", 1, 16, 17, 15)), 16))
        graph.set_outputs([conv(b, x, 16)])
    made = Pipeline(["layout", "fold", "winograd", "cse", "dce"]).run(graph)
    *_, pad = made.nodes("pad")
    assert pad.inputs[0].node.op.name == "relu"  # type: ignore[union-attr]
    assert (pad.op.before, pad.op.after) == ((0, 1, 1, 0), (0, 4, 2, 0))  # type: ignore[attr-defined]


def tiled(n: Size, rows: int) -> Graph:
    """Four channels of 4 x 6 results, in tiles of 2 x 2."""
    graph = Graph("tiled")
    x = graph.add_input("x", tensor("f32", n, 6, 8, 4))
    with Builder(graph) as b:
        u = b.winograd_weights(b.const(RNG.standard_normal((3, 3, 4, 5)).astype(np.float32)), tile=2)
        points = b.winograd_input(x, tile=2, rows=rows)
        y = b.winograd_output(b.matmul(points, u), tile=2, rows=rows, shape=(4, 6))
        graph.set_outputs([b.relu(y)], ["y"])
    return graph


STEPS = ["fold", "fuse", "lower", "simplify", "reuse", "share", "interleave"]
STEPS += ["tile", "unravel", "partition", "accumulate", "simplify", "memory"]


@pytest.mark.parametrize(("n", "rows", "loops"), [(1, 1, 1), (3, 1, 2), (2, 2, 1), (1, 2, 0), (symbol("N"), 1, 2)])
def test_blocks_are_used_up_one_after_another(n: Size, rows: int, loops: int):
    graph = tiled(n, rows)
    program = Pipeline(STEPS).run(graph, watch=[see.Verify()])
    found = [step for step in program.walk() if isinstance(step, Repeat)]
    assert len(found) == loops
    if loops:
        assert [call.kernel.name for call in program.calls()] == [
            "winograd_input_of_block", "matmul_of_block", "winograd_output_relu_of_block",
        ]  # fmt: skip
        held = [program.buffers[call.args[-1]].type.shape for call in program.calls()][:2]
        assert held == [(16, 3 * rows, 4), (16, 3 * rows, 5)]
    array = RNG.standard_normal((2 if n == symbol("N") else n, 6, 8, 4)).astype(np.float32)
    (expected,) = evaluate_graph(graph, [array])
    result = run_program(program, {"x": array})["y"]
    assert np.allclose(result, expected, rtol=0, atol=1e-5)  # sums of four channels in another order


def test_a_call_in_between_stays_before_the_blocks():
    graph = tiled(1, 1)
    x = graph.inputs[0]
    with Builder(graph) as b:
        other = b.reduce_sum(b.exp(x), axes=(1, 2), keepdims=True)
        graph.set_outputs(
            [b.apply(OPS["add"](), graph.outputs[0], b.reduce_sum(other, axes=(3,), keepdims=True))], ["y"]
        )
    program = Pipeline(STEPS).run(graph, watch=[see.Verify()])
    assert sum(isinstance(step, Repeat) for step in program.steps) == 1
    assert isinstance(program.steps[0], Call)
    array = RNG.standard_normal((1, 6, 8, 4)).astype(np.float32)
    (expected,) = evaluate_graph(graph, [array])
    assert np.allclose(run_program(program, {"x": array})["y"], expected, rtol=1e-5, atol=0)  # a sum of some hundred


def test_a_result_that_is_used_twice_is_not_held_by_block():
    graph = tiled(1, 1)
    points = next(graph.nodes("winograd_input")).output
    with Builder(graph) as b:
        graph.set_outputs([*graph.outputs, b.neg(points)], ["y", "points"])
    program = Pipeline(STEPS).run(graph, watch=[see.Verify()])
    assert not any(isinstance(step, Repeat) for step in program.steps)
    assert PASSES["interleave"].doc and fuse.doc
