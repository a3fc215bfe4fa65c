"""From graphs to programs, run on the kernel interpreter: names that meet, and memory that branches share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_kernel, run_program
from compiler.pipeline import PASSES, Pipeline, load_passes
from ir.build import Builder
from ir.dims import symbol
from ir.graph import Graph, Value
from ir.op import OPS
from ir.parse import parse_kernel
from ir.types import tensor

STEPS = [
    "legalize",
    "fuse",
    "lower",
    "simplify",
    "reuse",
    "share",
    "tile",
    "unravel",
    "partition",
    "accumulate",
    "simplify",
    "memory",
]


def arm(make: Callable[[Builder, list[Value]], list[Value]], *names: str) -> Graph:
    """A closed graph of f32 vectors `names`."""
    graph = Graph("arm")
    given = [graph.add_input(name, tensor("f32", 4)) for name in names]
    with Builder(graph) as b:
        graph.set_outputs(make(b, given))
    return graph


@pytest.mark.parametrize("dim", ["i", "x", "y"])
def test_a_dim_may_be_called_like_a_loop_or_an_operand(dim: str):
    graph = Graph("names")
    x = graph.add_input("a", tensor("f32", symbol(dim), symbol("j")))
    with Builder(graph) as b:
        sizes = b.dims((symbol(dim), symbol("j")))
        scaled = b.cast(sizes, to=tensor("f32").dtype) * b.const(np.float32(2))
    graph.set_outputs([x, sizes, scaled], ["same", "sizes", "scaled"])
    feeds = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    found = run_program(Pipeline(STEPS).run(graph), feeds)
    assert np.array_equal(found["same"], feeds["a"])
    assert found["sizes"].tolist() == [2, 3]
    assert found["scaled"].tolist() == [4.0, 6.0]


@pytest.mark.parametrize("taken", [True, False])
def test_a_result_takes_no_memory_that_the_other_branch_still_reads(taken: bool):
    graph = Graph("branches")
    c = graph.add_input("c", tensor("bool"))
    x = graph.add_input("x", tensor("f32", 4))
    with Builder(graph) as b:
        v = b.exp(x)
        then = arm(lambda _, given: given, "x", "v")
        orelse = arm(lambda b, given: [given[0], given[0] * b.const(np.float32(3))], "v")
        first, second = b.apply(OPS["if_"](then=then, orelse=orelse), c, x, v, v)  # type: ignore[call-arg]
        graph.set_outputs([b.neg(first), b.neg(second)], ["first", "second"])
    array = np.array([1, 2, 3, 4], np.float32)
    found = run_program(Pipeline(STEPS).run(graph), {"c": np.array(taken), "x": array})
    wanted = (array, np.exp(array)) if taken else (np.exp(array), np.exp(array) * 3)
    np.testing.assert_allclose(found["first"], -wanted[0], rtol=1e-6)
    np.testing.assert_allclose(found["second"], -wanted[1], rtol=1e-6)


def test_sizes_that_a_branch_demands_to_be_equal_are_checked_where_it_runs():
    graph = Graph("branches")
    c = graph.add_input("c", tensor("bool"))
    p, q = (graph.add_input(name, tensor("f32", symbol(size))) for name, size in (("p", "N"), ("q", "M")))
    then, orelse = Graph("then"), Graph("orelse")
    with Builder(then) as b:
        inner = [then.add_input(v.name, v.type) for v in (p, q)]
        then.set_outputs([b.add(*inner)])
    with Builder(orelse) as b:
        orelse.set_outputs([b.neg(orelse.add_input("p", p.type))])
    with Builder(graph) as b:
        y = b.apply(OPS["if_"](then=then, orelse=orelse), c, p, q, p)  # type: ignore[call-arg]
        graph.set_outputs([y], ["y"])
    program = Pipeline(STEPS).run(graph)
    three, five = np.ones(3, np.float32), np.ones(5, np.float32)
    assert run_program(program, {"c": np.array(True), "p": five, "q": five})["y"].tolist() == [2.0] * 5
    assert run_program(program, {"c": np.array(False), "p": five, "q": three})["y"].tolist() == [-1.0] * 5
    with pytest.raises(ValueError, match="M is 3, it must be N"):
        run_program(program, {"c": np.array(True), "p": five, "q": three})


@pytest.mark.parametrize("dim", ["m_t", "n_p", "k_z"])
def test_a_dim_may_be_called_like_a_part_of_a_loop(dim: str):
    graph = Graph("product")
    x = graph.add_input("x", tensor("f32", symbol("M"), symbol("K")))
    w = graph.add_input("w", tensor("f32", symbol("K"), symbol(dim)))
    with Builder(graph) as b:
        graph.set_outputs([b.matmul(x, w)], ["y"])
    feeds = {name: np.ones((5, 3) if name == "x" else (3, 17), np.float32) for name in ("x", "w")}
    assert np.array_equal(run_program(Pipeline(STEPS).run(graph), feeds)["y"], np.full((5, 17), 3, np.float32))


def test_what_a_loop_tests_is_computed_in_every_round() -> None:
    """A part that the condition mentions twice must not be named before the loop."""
    kernel = parse_kernel("""kernel @count(in x: i64[4], out y: i64[1]) {
      var n: i64 = 0
      while (n < 3) & ((x[n] * 2 > 3) & (x[n] * 2 < 5)) {
        n += 1
      }
      y[0] = n
    }""")
    y = np.zeros(1, np.int64)
    load_passes()
    run_kernel(PASSES["share"].run(kernel), {"x": np.array([2, 4, 2, 2]), "y": y})
    assert y.tolist() == [1]


def test_a_loop_of_many_lengths_is_simplified():
    """The greatest of them is told whatever their number is: 40 here."""
    text = """kernel @triangle(in x: f32[40], out y: f32[40,40]) {
  for i in 0..40, j in 0..i {
    y[i, j] = x[j]
  }
}"""
    load_passes()
    kernel = PASSES["simplify"].run(parse_kernel(text))
    assert str(kernel) == str(parse_kernel(text))
