"""Calls that go through the same rows as one kernel: which are joined, where rows lie, and that nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.passes.reuse import in_place
from compiler.pipeline import Pipeline
from ir.build import Builder
from ir.dims import symbol
from ir.graph import Graph, Value
from ir.kernel import For, Local, walk_stmts
from ir.parse import parse_kernel
from ir.program import Program
from ir.types import tensor

RNG = np.random.default_rng(11)
FIRST = ["fold", "canonicalize", "legalize", "fold", "cse", "dce", "fuse", "lower", "simplify"]
LAST = ["reuse", "share", "tile", "unravel", "partition", "accumulate", "simplify", "memory"]
N, K = symbol("N"), symbol("K")
U8 = tensor("u8").dtype

Make = Callable[[Builder, Value], Any]


def graph_of(make: Make, *shape: Any, dtype: str = "f32") -> Graph:
    graph = Graph("rows")
    x = graph.add_input("x", tensor(dtype, *shape))
    with Builder(graph) as b:
        found = make(b, x)
        outputs = found if isinstance(found, tuple) else (found,)
        graph.set_outputs(list(outputs), [f"y{i}" for i in range(len(outputs))])
    return graph


def programs(make: Make, *shape: Any, dtype: str = "f32") -> tuple[Program, Program]:
    """The program as it is lowered, and with calls joined."""
    plain = Pipeline([*FIRST, *LAST]).run(graph_of(make, *shape, dtype=dtype))
    made = Pipeline([*FIRST, "join", *LAST]).run(graph_of(make, *shape, dtype=dtype), watch=[see.Verify()])
    return plain, made


def calls(program: Program) -> int:
    return len(list(program.calls()))


def shifted(b: Builder, x: Value) -> Value:
    return x - b.reduce_max(x, axes=(-1,), keepdims=True)


def spelled_softmax(b: Builder, x: Value) -> Value:
    e = b.exp(shifted(b, x))
    return b.relu(e / b.reduce_sum(e, axes=(-1,), keepdims=True) - 0.125)


def standard(b: Builder, x: Value) -> Value:
    d = x - b.reduce_mean(x, axes=(-1,), keepdims=True)
    return d / b.sqrt(b.reduce_mean(d * d, axes=(-1,), keepdims=True) + 1e-5)


def masked(b: Builder, x: Value) -> Value:
    """As exporters spell a softmax with a mask: rows where nothing is seen become 0."""
    y = b.softmax(b.where(b.greater(x, 0.0), x, b.const(np.float32(-np.inf))), axes=(-1,))
    return b.where(b.is_nan(y), b.const(np.float32(0)), y)


def bytes_of(b: Builder, x: Value) -> Value:
    return b.quantize(standard(b, x), b.const(np.float32(0.03)), b.const(np.uint8(128)), to=U8)


ONE = {
    "softmax": lambda b, x: b.softmax(x, axes=(-1,)),
    "log_softmax": lambda b, x: b.log_softmax(x, axes=(-1,)),
    "layer_norm": lambda b, x: b.layer_norm(x, None, None),
    "rms_norm": lambda b, x: b.rms_norm(x, None),
    "lp_norm": lambda b, x: b.lp_norm(x, axis=-1),
    "spelled_softmax": spelled_softmax,
    "standard": standard,
    "masked": masked,
    "scaled_by_all": lambda b, x: x * b.reduce_sum(x * x, axes=(-1,)) / b.reduce_max(x, axes=(-1,)),
}


@pytest.mark.parametrize("name", ONE)
def test_one_kernel_goes_through_the_rows(name: str):
    plain, made = programs(ONE[name], 3, 40)
    assert calls(made) == 1 < calls(plain)
    (call,) = made.calls()
    outer = next(s for s in walk_stmts(call.kernel.body) if isinstance(s, For))
    assert (outer.mark, outer.extent) == ("parallel", 3)
    assert made.arena_bytes == 0
    x = RNG.standard_normal((3, 40)).astype(np.float32)
    assert np.array_equal(run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"])


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_sizes_may_be_symbols(name: str, count: int):
    plain, made = programs(ONE[name], N, K)
    assert calls(made) == 1
    x = RNG.standard_normal((2, count)).astype(np.float32)
    if count > 1:
        x[0, 1], x[1, 0] = np.nan, np.inf
    found, wanted = run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"]
    assert np.array_equal(found, wanted, equal_nan=True)


def test_rows_are_written_where_they_were_read():
    w = RNG.standard_normal((40, 40)).astype(np.float32)

    def make(b: Builder, x: Value) -> Value:
        return b.matmul(b.softmax(b.matmul(x, b.const(w)), axes=(-1,)), b.const(w))

    plain, made = programs(make, 6, 40)
    roles = [[b.role for b in call.kernel.params] for call in made.calls()]
    assert roles == [["in", "const", "out"], ["inout"], ["in", "const", "out"]]
    x = RNG.standard_normal((6, 40)).astype(np.float32)
    assert np.array_equal(run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"])


def test_a_row_of_another_type_lies_in_a_local_array():
    """Softmax that ends in bytes keeps its exponentials, which are dear, beside them."""

    def make(b: Builder, x: Value) -> Value:
        e = b.exp(shifted(b, x))
        y = e / b.reduce_sum(e, axes=(-1,), keepdims=True)
        return b.quantize(y, b.const(np.float32(0.01)), b.const(np.uint8(0)), to=U8)

    plain, made = programs(make, 3, 40)
    (call,) = made.calls()
    assert (40,) in [s.type.shape for s in walk_stmts(call.kernel.body) if isinstance(s, Local)]
    x = RNG.standard_normal((3, 40)).astype(np.float32)
    assert np.array_equal(run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"])
    _, symbolic = programs(make, N, K)
    assert calls(symbolic) == 1 and symbolic.arena_bytes != 0  # no array has a size that is not known


def test_what_others_use_is_kept():
    def make(b: Builder, x: Value) -> tuple[Value, ...]:
        top = b.reduce_max(x, axes=(-1,), keepdims=True)
        e = b.exp(x - top)
        return e / b.reduce_sum(e, axes=(-1,), keepdims=True), top, e

    plain, made = programs(make, 3, 40)
    assert calls(made) == 1
    x = RNG.standard_normal((3, 40)).astype(np.float32)
    found, wanted = run_program(made, {"x": x}), run_program(plain, {"x": x})
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


APART = {
    "another axis": lambda b, x: x - b.reduce_max(x, axes=(0,), keepdims=True),
    "all axes": lambda b, x: x - b.reduce_max(x, axes=(0, 1), keepdims=True),
    "rows elsewhere": lambda b, x: b.reduce_max(x, axes=(-1,)) + b.transpose(b.reduce_max(x, axes=(-1,)), perm=(1, 0)),
    "a product": lambda b, x: b.matmul(x, b.exp(x)),
}


@pytest.mark.parametrize("name", APART)
def test_what_needs_other_rows_stays_apart(name: str):
    plain, made = programs(APART[name], 12, 12)
    assert calls(made) == calls(plain)
    x = RNG.standard_normal((12, 12)).astype(np.float32)
    assert np.array_equal(run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"])


def test_layers_share_a_kernel():
    def make(b: Builder, x: Value) -> Value:
        for _ in range(3):
            x = b.matmul(b.softmax(x, axes=(-1,)), b.const(np.eye(8, dtype=np.float32)[::-1]))
        return x

    _, made = programs(make, 8, 8)
    found = [call.kernel.name for call in made.calls() if "max" in call.kernel.name]
    assert len(found) == 3 and found[1] == found[2] != found[0]  # the input is not written over


ALL = {**ONE, "bytes": bytes_of, "after": lambda b, x: b.softmax(b.tanh(x) * 4.0, axes=(-1,))}


@pytest.mark.parametrize("march", ["native", "x86-64"])
@pytest.mark.parametrize("is_symbolic", [True, False])
def test_c_agrees_with_the_plain_program(is_symbolic: bool, march: str, tmp_path: Path):
    def make(b: Builder, x: Value) -> tuple[Value, ...]:
        return tuple(function(b, x) for function in ALL.values())

    for count in [0, 1, 17, 70] if is_symbolic else [45]:
        shape = (N, K) if is_symbolic else (5, count)
        plain, _ = programs(make, *shape)
        target = find_backend("c", march=march, threads=2)
        program = target.pipeline().run(graph_of(make, *shape), watch=[see.Verify()])
        loaded = target.emit(program, tmp_path / str(count)).load()
        x = RNG.standard_normal((5, count)).astype(np.float32)
        if count > 1:
            x[1, count // 2], x[2, 1], x[3, 0], x[4] = np.nan, np.inf, -np.inf, -1
        found, wanted = loaded.run({"x": x}), run_program(plain, {"x": x})
        for number, name in enumerate(ALL):
            got, expected = (result[f"y{number}"].astype(np.float64) for result in (found, wanted))
            # Sums of up to 70 terms in two orders, and functions of them; a byte may be rounded the other way.
            atol = 1 if name == "bytes" else 0
            assert np.allclose(got, expected, rtol=3e-5, atol=max(atol, 1e-5), equal_nan=True), name


TWICE = """kernel @twice(in x: f32[N,K], out y: f32[N,K]) {{
  for n in 0..N parallel {{
    var acc: f32 = 0.0
    for k in 0..K {{
      acc += x[n, k]
    }}
    for j in 0..K {{
      y[n, j] = {first}
    }}
    for i in 0..K {{
      y[n, i] = {second}
    }}
  }}
}}"""


@pytest.mark.parametrize("first, second, is_possible", [
    ("x[n, j] * acc", "y[n, i] + acc", True),
    ("acc", "y[n, K - 1 - i] + acc", True),
    ("x[n, K - 1 - j]", "y[n, i]", False),
    ("x[n, j]", "x[n, i]", False),
    ("x[j, n]", "y[n, i]", False),
    ("(x[n, j] or 0.0)", "y[n, i]", False),
])  # fmt: skip
def test_what_is_read_after_it_was_written_over(first: str, second: str, is_possible: bool):
    made = in_place(parse_kernel(TWICE.format(first=first, second=second)), "x")
    assert (made is not None) == is_possible


def test_rows_that_data_chooses_are_gathered_in_plain_loops():
    """An index from data is checked for each element, which no compiler does for many at a time."""

    table = RNG.standard_normal((9, 40)).astype(np.float32)

    def make(b: Builder, x: Value) -> Value:
        return b.layer_norm(b.gather(b.const(table), x, axis=0), None, None)

    plain, made = programs(make, 3, dtype="i64")
    (call,) = made.calls()
    loops = [s for s in walk_stmts(call.kernel.body) if isinstance(s, For) and s.extent == 40]
    assert [loop.mark for loop in loops] == ["", "vector"]
    x = np.array([8, -9, 0])
    assert np.array_equal(run_program(made, {"x": x})["y0"], run_program(plain, {"x": x})["y0"])
