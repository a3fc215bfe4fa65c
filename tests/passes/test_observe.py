"""Observers: each on a pipeline with a pass that does something, and one that goes wrong."""

from __future__ import annotations

import io

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler.errors import CompileError
from compiler.observe import Dump, Explain, Numerics, Time, Verify
from compiler.pipeline import Pass, Pipeline
from ir.build import Builder
from ir.graph import Graph
from ir.types import tensor

FEEDS = {"x": np.array([[0.5, -1.0, 2.0], [0.0, 1.0, 3.0]], np.float32)}


def gelu_graph(divisor: float = 1.4142135) -> Graph:
    graph = Graph("model")
    with Builder(graph, sources=("gelu",)) as b:
        x = graph.add_input("x", tensor("f32", 2, 3))
        y = x * (b.erf(x / divisor) + 1.0) * 0.5
    graph.set_outputs([y], ["y"])
    return graph


def _damage(graph: Graph) -> None:
    next(graph.nodes("erf")).output.type = tensor("f32", 7)


def _change(graph: Graph) -> None:
    constant = next(node for node in graph.nodes("const") if node.output.content == 0.5)
    graph.replace(constant.output, Builder(graph, constant).const(np.float32(0.25)))


damage = Pass("damage", "graph", _damage)
change = Pass("change", "graph", _change)
LOWERED = ["canonicalize", "fold", "legalize", "fuse", "lower", "memory"]


def test_verify_names_the_pass():
    Pipeline(LOWERED).run(gelu_graph(), watch=[Verify()])
    with pytest.raises(CompileError, match="pass damage broke the graph"):
        Pipeline(["cse", damage, "dce"]).run(gelu_graph(), watch=[Verify()])


def test_time_has_a_row_for_each_pass():
    watch = Time()
    Pipeline(LOWERED).run(gelu_graph(), watch=[watch])
    assert [row.name for row in watch.rows] == LOWERED
    assert watch.rows[0].before == 8 and watch.rows[0].after == 1
    assert watch.rows[0].rules == {"ErfGelu": 1}
    assert "ErfGelu 1" in watch.table() and "total" in watch.table()


def test_dump_writes_what_changed(tmp_path):
    Pipeline(LOWERED).run(gelu_graph(), watch=[Dump(tmp_path / "ir")])
    names = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert names == ["00-input.graph", "01-canonicalize.graph", "05-lower.program"]
    assert "erf" in (tmp_path / "ir" / "00-input.graph").read_text()


def test_explain_prints_applications_and_near_misses():
    stream = io.StringIO()
    Pipeline(["canonicalize"]).run(gelu_graph(), watch=[Explain("ErfGelu", stream)])
    assert "applied 1 times, nearly 0 times" in stream.getvalue()
    stream = io.StringIO()
    Pipeline(["canonicalize"]).run(gelu_graph(1.5), watch=[Explain("ErfGelu", stream)])
    assert "(from gelu): %0 is 1.5, not 1.414214" in stream.getvalue()
    stream = io.StringIO()
    Pipeline(["dce"]).run(gelu_graph(), watch=[Explain("ErfGelu", stream)])
    assert "no pass of this pipeline has a rule of that name" in stream.getvalue()


def test_numerics_names_the_pass_that_changed_the_result():
    watch = Numerics(FEEDS, run_program=run_program)
    Pipeline(LOWERED).run(gelu_graph(), watch=[watch])
    assert [name for name, _ in watch.worst] == LOWERED
    assert all(worst < 1e-4 for _, worst in watch.worst)
    with pytest.raises(CompileError, match=r"pass change changed output y: \[.*\(\d of 6 differ\)"):
        Pipeline(["cse", change, "canonicalize"]).run(gelu_graph(), watch=[Numerics(FEEDS)])


def test_numerics_needs_every_input():
    with pytest.raises(CompileError, match="input 'x'"):
        Pipeline(["cse"]).run(gelu_graph(), watch=[Numerics({})])
