"""Reductions in vectors: what becomes of the loops, and what C and the interpreter make of any number of elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_kernel, run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.passes.accumulate import accumulate
from compiler.passes.unravel import unravel
from compiler.pipeline import Pipeline
from ir.build import Builder
from ir.dims import symbol
from ir.graph import Graph, Value
from ir.kernel import For, Kernel, Local, walk_stmts
from ir.parse import parse_kernel
from ir.text import kernel_text
from ir.types import tensor
from ir.verify import verify_kernel

RNG = np.random.default_rng(7)
COUNTS = [0, 1, 2, 7, 8, 15, 16, 17, 31, 63, 64, 65, 127, 200]
"""Nothing, parts of a vector, whole ones, and whole blocks of vectors, for vectors of 4, 8 and 16 elements."""
ROWS = """kernel @rows(in x: {dtype}[N,{extent}], out y: {dtype}[N]) {{
  for n in 0..N parallel {{
    var acc: {dtype} = {start}
    for k in 0..{extent} {{
      {body}
    }}
    y[n] = acc
  }}
}}"""


def rows(extent: int | str, body: str, start: str = "0.0", dtype: str = "f32") -> Kernel:
    return parse_kernel(ROWS.format(extent=extent, body=body, start=start, dtype=dtype))


def made(kernel: Kernel, lanes: int = 8) -> Kernel:
    result = accumulate.run(kernel, lanes=lanes)
    verify_kernel(result)
    assert str(parse_kernel(kernel_text(result))) == kernel_text(result)
    return result


def result_of(kernel: Kernel, x: np.ndarray) -> np.ndarray:
    sizes = {"N": len(x), "K": x.shape[-1]}
    y = np.zeros(len(x), x.dtype)
    run_kernel(kernel, {"x": x, "y": y}, {name: sizes[name] for name in kernel.sizes})
    return y


def test_what_a_tile_might_gather_in_order_can_be_kept():
    """A window moves along memory with the result and with the sum: tiles of neighbouring results gather in order."""
    window = parse_kernel(
        """kernel @window(in x: f32[N+99], out y: f32[N]) {
          for n in 0..N parallel {
            var acc: f32 = 0.0
            for k in 0..100 {
              acc += x[n + k]
            }
            y[n] = acc
          }
        }"""
    )
    assert accumulate.run(window, lanes=8) != window
    assert accumulate.run(window, lanes=8, keep_columns=True) == window
    kernel = rows(100, "acc += x[n, k]")
    assert accumulate.run(kernel, lanes=8, keep_columns=True) == accumulate.run(kernel, lanes=8) != kernel


def test_a_sum_has_partial_results():
    kernel = made(rows(100, "acc += x[n, k] * x[n, k]"))
    marks = {s.var: s.mark for s in walk_stmts(kernel.body) if isinstance(s, For)}
    assert marks["n"] == "parallel"
    assert list(marks.values()).count("vector") == 5  # start, blocks, four vectors to one, 8 lanes to 4, 4 to 2
    assert [s.type.shape for s in walk_stmts(kernel.body) if isinstance(s, Local)] == [(4, 8), (8,)]
    x = RNG.standard_normal((3, 100)).astype(np.float32)
    exact = np.sum(x.astype(np.float64) ** 2, axis=-1)
    assert np.allclose(result_of(kernel, x), exact, rtol=1e-6)  # a sum of 100 squares in f32


@pytest.mark.parametrize("body", [
    "acc += x[n, 2*k]", "acc += x[k, n]", "acc += (x[n, k + 1] or 0.0)", "acc -= x[n, k]", "acc = x[n, k]",
    "acc += x[n, k] * acc", "acc += x[n, 0]",
])  # fmt: skip
def test_what_is_no_reduction_along_memory_stays(body: str):
    kernel = rows("N//2", body)
    assert accumulate.run(kernel, lanes=8) == kernel


def test_few_elements_stay_a_loop():
    kernel = rows(7, "acc += x[n, k]")
    assert accumulate.run(kernel, lanes=8) == kernel


@pytest.mark.parametrize(
    "body, start", [("acc += x[n, k]", "0.0"), ("acc max= x[n, k]", "-inf"), ("acc min= x[n, k]", "inf")]
)
@pytest.mark.parametrize("extent", ["K", 23])
def test_every_element_counts_once(body: str, start: str, extent: int | str):
    """Whole numbers add up exactly in any order."""
    plain = rows(extent, body, start)
    kernel = made(plain)
    for count in COUNTS if extent == "K" else [23]:
        x = RNG.integers(-99, 99, (2, count)).astype(np.float32)
        assert np.array_equal(result_of(kernel, x), result_of(plain, x))


@pytest.mark.parametrize(
    "body, start", [("acc max= x[n, k]", "-inf"), ("acc min= x[n, k]", "inf"), ("acc += x[n, k]", "0.0")]
)
@pytest.mark.parametrize("place", [0, 9, 31, 32, 39, 40, 44])
def test_nan_reaches_the_result(body: str, start: str, place: int):
    x = RNG.standard_normal((2, 45)).astype(np.float32)
    x[1, place] = np.nan
    found = result_of(made(rows(45, body, start)), x)
    assert np.isfinite(found[0]) and np.isnan(found[1])


def test_axes_that_a_reshape_made_one_are_gone_through_in_turn():
    text = """kernel @all(in x: f32[N,4,20], out y: f32[]) {
      var acc: f32 = 0.0
      for n in 0..N, k in 0..80 {
        acc += x[n, k//20, k%20]
      }
      y[] = acc
    }"""
    plain = parse_kernel(text)
    kernel = made(unravel.run(plain))
    assert any(s.mark == "vector" for s in walk_stmts(kernel.body) if isinstance(s, For))
    x = RNG.integers(-99, 99, (3, 4, 20)).astype(np.float32)
    results = [np.zeros((), np.float32) for _ in range(2)]
    for k, y in zip((plain, kernel), results):
        run_kernel(k, {"x": x, "y": y}, {"N": 3})
    assert results[0] == results[1] == x.sum()


@pytest.mark.parametrize(
    "extent, shapes",
    [(20, [(4, 4), (4,)]), (24, [(3, 8), (8,)]), (9, [(1, 8), (8,)]), (12, [(3, 4), (4,)]), (80, [(4, 8), (8,)])],
)
def test_few_elements_take_narrower_vectors_where_those_come_out_even(extent: int, shapes: list[tuple[int, ...]]):
    kernel = made(rows(extent, "acc += x[n, k]"))
    assert [s.type.shape for s in walk_stmts(kernel.body) if isinstance(s, Local)] == shapes


def reductions(b: Builder, x: Value, i: Value, u: Value) -> dict[str, Value]:
    """Reductions along the last axis, some of which look at more than the element."""
    last: dict[str, Any] = {"axes": (-1,), "keepdims": False}
    shifted = x - b.reduce_max(x, axes=(-1,), keepdims=True)
    return {
        "max": b.reduce_max(x, **last), "min": b.reduce_min(x, **last), "sum": b.reduce_sum(x, **last),
        "squares": b.reduce_sum_square(x, **last), "l1": b.reduce_l1(x, **last),
        "exp": b.reduce_sum(b.exp(shifted), **last), "both": b.reduce_max(x, axes=(0, 1), keepdims=False),
        "imax": b.reduce_max(i, **last), "imin": b.reduce_min(i, **last), "isum": b.reduce_sum(i, **last),
        "umax": b.reduce_max(u, **last), "umin": b.reduce_min(u, **last),
        "total": b.reduce_sum(b.cast(u, to=tensor("i32").dtype), **last),
    }  # fmt: skip


def graph_of(count: Any) -> Graph:
    graph = Graph("reductions")
    x, i, u = (graph.add_input(d, tensor(d, symbol("N"), count)) for d in ("f32", "i32", "u8"))
    with Builder(graph) as b:
        found = reductions(b, x, i, u)
        graph.set_outputs(list(found.values()), list(found))
    return graph


def feeds(n: int, count: int) -> dict[str, np.ndarray]:
    x = RNG.standard_normal((n, count)).astype(np.float32)
    ends = np.iinfo(np.int32)
    i = RNG.integers(ends.min, ends.max, (n, count), dtype=np.int32)
    return {"f32": x, "i32": i, "u8": RNG.integers(0, 256, (n, count), dtype=np.uint8)}


def agree(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], count: int) -> None:
    for name, array in wanted.items():
        # Sums of f32 in two orders: half an ulp for each addition, of terms no larger than the sum of their sizes.
        atol = 6e-8 * count * count if name in ("sum", "squares", "l1", "exp") else 0
        assert np.allclose(found[name], array, rtol=0, atol=atol, equal_nan=True), name


@pytest.mark.parametrize("march", ["native", "x86-64", "x86-64-v3"])
def test_c_and_the_interpreter_agree(march: str, tmp_path: Path):
    target = find_backend("c", march=march, threads=2)
    model = graph_of(symbol("K"))
    plain = Pipeline(["legalize", "fuse", "lower", "memory"]).run(graph_of(symbol("K")))
    loaded = target.emit(target.pipeline().run(model, watch=[see.Verify()]), tmp_path).load()
    for count in COUNTS:
        given = feeds(3, count)
        agree(loaded.run(given), run_program(plain, given), count)
    for place in (0, 16, 64, 99):
        given = feeds(3, 100)
        given["f32"][1, place] = np.nan
        given["f32"][2, place] = np.inf
        agree(loaded.run(given), run_program(plain, given), 100)


def test_any_number_of_threads_gives_the_same_bits(tmp_path: Path):
    given = feeds(40, 333)
    results = []
    for threads in (1, 2, 5):
        target = find_backend("c", threads=threads)
        program = target.pipeline().run(graph_of(333))
        results.append(target.emit(program, tmp_path / str(threads)).load().run(given))
    for name, array in results[0].items():
        assert all(array.tobytes() == other[name].tobytes() for other in results[1:]), name
