"""Choices that passes offer: every one means the same, and an answer that is none of them changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference.kernel import run_kernel
from compiler.choices import RULES, Answers
from compiler.passes.tile import Panels, tile_kernel
from compiler.passes.winograd import forms
from compiler.pipeline import PASSES, Pipeline, load_passes
from compiler.tuned import answering
from ir.blob import ArrayBlob
from ir.build import Builder
from ir.evaluate import evaluate_graph
from ir.graph import Graph
from ir.kernel import Kernel
from ir.panels import PanelBlob
from ir.parse import parse_kernel
from ir.types import tensor

LANES, REGISTERS = 4, 8
RNG = np.random.default_rng(3)

ROWS = """kernel @rows(in x: f32[2,7,5], const w: f32[5,19], out y: f32[2,7,19]) {
  for n in 0..2, m in 0..7, c in 0..19 {
    var acc: f32 = 0.0
    for k in 0..5 {
      acc += x[n, m, k] * w[k, c]
    }
    y[n, m, c] = max(acc, 0.0)
  }
}"""

BYTES = """kernel @bytes(in x: u8[2,7,8], const w: i8[8,19], out y: i32[2,7,19]) {
  for n in 0..2, m in 0..7, c in 0..19 {
    var acc: i32 = 0:i32
    for k in 0..8 {
      acc += i32(x[n, m, k]) * i32(w[k, c])
    }
    y[n, m, c] = max(acc, 0:i32)
  }
}"""


def tiled(text: str, answers: Answers) -> tuple[Kernel, Panels]:
    kernel, panels = tile_kernel(parse_kernel(text), LANES, REGISTERS, {"w"}, answers)
    assert panels is not None
    return kernel, panels


def question(text: str):
    answers = Answers()
    tiled(text, answers)
    (found,) = answers.asked.values()
    return found


def unknown_rows(text: str) -> str:
    return text.replace("[2,7,", "[2,M,").replace("0..7", "0..M")


@pytest.mark.parametrize("text", [ROWS, BYTES, unknown_rows(ROWS), unknown_rows(BYTES)])
def test_every_tile_and_order_gives_the_same(text: str) -> None:
    asked = question(text)
    assert len(asked.legal) > 10 and asked.rule == asked.legal[0]
    assert {form.split(" ", 1)[1] for form in asked.legal} == {"panels first", "panels before rows", "panels last"}
    types = {buffer.name: buffer.type.dtype.numpy for buffer in parse_kernel(text).params}
    depth = int(parse_kernel(text).buffer("w").type.shape[0])
    x, w = RNG.integers(0, 9, (2, 7, depth)).astype(types["x"]), RNG.integers(-9, 9, (depth, 19)).astype(types["w"])
    expected = np.maximum(x.astype(np.int64) @ w.astype(np.int64), 0)  # small integers are exact in f32
    texts = set()
    for form in asked.legal:
        kernel, panels = tiled(text, Answers({("tile", asked.key): form}))
        packed = PanelBlob(ArrayBlob(w), (depth,), panels.columns, panels.depth, panels.axis + 1).array()
        y = np.full((2, 7, 19), -1, types["y"])
        run_kernel(kernel, {"x": x, "w": packed, "y": y})
        np.testing.assert_array_equal(y, expected)
        texts.add(str(kernel))
    assert len(texts) > 10


def test_an_answer_that_is_none_is_refused_and_the_rule_stands() -> None:
    asked = question(ROWS)
    for answer in ("4096x64 panels first", "1x1 rows first", "", "0x0", 'x"; system("rm")'):
        answers = Answers({("tile", asked.key): answer})
        kernel, _ = tiled(ROWS, answers)
        assert answers.refused == {("tile", asked.key): answer}
        assert str(kernel) == str(tile_kernel(parse_kernel(ROWS), LANES, REGISTERS, {"w"}, RULES)[0])


def test_the_key_is_the_structure_whatever_names_are() -> None:
    other = ROWS.replace("acc", "total").replace("[n, m", "[b, r").replace("n in", "b in").replace("m in", "r in")
    assert question(other).key == question(ROWS).key
    assert question(ROWS.replace("max(acc, 0.0)", "exp(acc)")).key != question(ROWS).key


def convolution(height: int = 9) -> Graph:
    graph = Graph("conv")
    x = graph.add_input("x", tensor("f32", 1, 16, height, 10))
    with Builder(graph) as b:
        w = b.const(RNG.standard_normal((16, 16, 3, 3)).astype(np.float32))
        graph.set_outputs([b.conv(x, w, stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1))], ["y"])
    return graph


def test_every_form_of_a_convolution_gives_the_same() -> None:
    load_passes()
    steps = Pipeline(["fold", "layout", "fold", "winograd"])
    graph = convolution()
    answers = Answers()
    answering(steps, answers).run(graph)
    (asked,) = answers.asked.values()
    assert asked.rule == "tiles of 4, 3 rows" and {"plain sums", "tiles of 2, 5 rows"} <= set(asked.legal)
    feeds = [RNG.standard_normal((1, 16, 9, 10)).astype(np.float32)]
    (expected,) = evaluate_graph(graph, feeds)
    ops = set()
    for form in asked.legal:
        made = answering(steps, Answers({("winograd", asked.key): form})).run(graph)
        ops.add(tuple(sorted({node.op.name for node in made.nodes()})))
        (found,) = evaluate_graph(made, feeds)
        # Winograd's filtering with tiles of 4 x 4 loses about 1e-5 of the largest result.
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert len(ops) == 2


def test_forms_are_offered_only_where_they_are_right() -> None:
    load_passes()
    steps = Pipeline(["fold", "layout", "fold"])
    (node,) = steps.run(convolution()).nodes("conv_channels_last")
    assert len({str(form) for form in forms(node)}) == len(forms(node))
    answers = Answers()
    graph = Graph("strided")
    x = graph.add_input("x", tensor("f32", 1, 16, 9, 10))
    with Builder(graph) as b:
        w = b.const(RNG.standard_normal((16, 16, 3, 3)).astype(np.float32))
        graph.set_outputs([b.conv(x, w, stride=(2, 2), pad=(1, 1, 1, 1), dilation=(1, 1))], ["y"])
    Pipeline([*steps.passes, PASSES["winograd"].with_options(choices=answers)]).run(graph)
    assert not answers.asked
