"""Attention as one kernel: what is made one, in blocks of which sizes, and that results stay what they were."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.c.toolchain import build_shared, find_compiler
from backends.reference import run_program
from compiler import observe as see
from compiler.backend import find_backend
from compiler.pipeline import PASSES, Pipeline, load_passes
from ir import types as t
from ir.build import Builder
from ir.dims import ceil_div, names, symbol
from ir.expr import Apply, Index, Load, apply, walk
from ir.graph import Graph, Value
from ir.kernel import For, If, Kernel, Let, Local, Store, walk_stmts
from ir.program import Program
from ir.types import tensor

load_passes()
RNG = np.random.default_rng(5)
FIRST = ["fold", "canonicalize", "legalize", "fold", "cse", "dce", "fuse", "lower", "simplify", "join"]
LAST = ["reuse", "share", "tile", "unravel", "partition", "accumulate", "simplify", "memory"]
S, K, N = symbol("S"), symbol("K"), symbol("N")
SIZES = {"S": 7, "K": 70, "N": 2}
U8 = tensor("u8").dtype
RTOL, ATOL = 2e-5, 2e-6
"""Sums of up to 150 products in another order, and quotients as products with reciprocals: some roundings of f32."""

Make = Callable[..., Any]


def across(b: Builder, k: Value) -> Value:
    return b.transpose(k, perm=(*range(k.rank - 2), k.rank - 1, k.rank - 2))


def spelled(b: Builder, q: Value, k: Value, v: Value, mask: Value | None = None) -> Value:
    x = b.matmul(q, across(b, k)) * 0.25
    return b.matmul(b.softmax(x if mask is None else x + mask, axes=(-1,)), v)


def guarded(b: Builder, q: Value, k: Value, v: Value, mask: Value) -> Value:
    """As exporters spell it: rows where nothing is seen become 0."""
    y = b.softmax(b.where(b.greater(mask, 0.0), b.matmul(q, across(b, k)), b.const(np.float32(-np.inf))), axes=(-1,))
    return b.matmul(b.where(b.is_nan(y), b.const(np.float32(0)), y), v)


def capped(b: Builder, q: Value, k: Value, v: Value) -> Value:
    return b.attention(q, k, v, scale=0.3, softcap=2.0)


def causal(b: Builder, q: Value, k: Value, v: Value) -> Value:
    return b.attention(q, k, v, scale=0.3, causal=True)


def windowed(b: Builder, q: Value, k: Value, v: Value) -> Value:
    return b.attention(q, k, v, scale=0.3, left_window=3, right_window=2)


def causal_masked(b: Builder, q: Value, k: Value, v: Value, mask: Value) -> Value:
    return b.attention(q, k, v, b.greater(mask, 0.0), scale=0.3, causal=True, right_window=1, left_window=90)


def allowed(b: Builder, q: Value, k: Value, v: Value, mask: Value) -> Value:
    return b.attention(q, k, v, b.greater(mask, 0.0), scale=0.3)


def rounded(b: Builder, q: Value, k: Value, v: Value) -> Value:
    """Weights that are bytes: they must be known before values are multiplied with them."""
    scale, zero = b.const(np.float32(1 / 255)), b.const(np.uint8(0))
    weights = b.softmax(b.matmul(q, across(b, k)), axes=(-1,))
    return b.matmul(b.dequantize(b.quantize(weights, scale, zero, to=U8), scale, zero), v)


def turned(b: Builder, q: Value, k: Value, v: Value) -> Value:
    """Keys that lie across already, and a function of the result."""
    return b.relu(b.matmul(b.softmax(b.matmul(q, k), axes=(-1,)), v))


ONE: dict[str, tuple[Make, list[tuple[Any, ...]]]] = {
    "plain": (spelled, [(2, 3, 20, 8), (2, 3, 20, 8), (2, 3, 20, 8)]),
    "no_heads": (spelled, [(9, 8), (30, 8), (30, 12)]),
    "key_mask": (spelled, [(2, 3, 20, 8), (2, 3, 33, 8), (2, 3, 33, 6), (2, 1, 1, 33)]),
    "full_mask": (spelled, [(2, 3, 18, 8), (2, 3, 33, 8), (2, 3, 33, 5), (2, 1, 18, 33)]),
    "guarded": (guarded, [(2, 2, 9, 8), (2, 2, 17, 8), (2, 2, 17, 4), (2, 1, 9, 17)]),
    "capped": (capped, [(1, 2, 9, 8), (1, 2, 17, 8), (1, 2, 17, 4)]),
    "causal": (causal, [(1, 2, 20, 8), (1, 2, 20, 8), (1, 2, 20, 4)]),
    "windowed": (windowed, [(1, 2, 20, 8), (1, 2, 20, 8), (1, 2, 20, 4)]),
    "allowed": (allowed, [(1, 2, 9, 8), (1, 2, 17, 8), (1, 2, 17, 4), (9, 17)]),
    "rounded": (rounded, [(1, 2, 9, 8), (1, 2, 17, 8), (1, 2, 17, 4)]),
    "turned": (turned, [(1, 2, 9, 8), (1, 2, 8, 17), (1, 2, 17, 4)]),
    "grouped": (causal, [(2, 4, 8, 8), (2, 2, 21, 8), (2, 2, 21, 4)]),
    "long": (spelled, [(1, 1, 5, 8), (1, 1, 2500, 8), (1, 1, 2500, 8)]),
    "symbols": (spelled, [(N, 2, S, 8), (N, 2, K, 8), (N, 2, K, 12)]),
    "symbols_masked": (guarded, [(N, 2, S, 8), (N, 2, K, 8), (N, 2, K, 4), (N, 1, S, K)]),
    "symbols_causal": (causal, [(N, 2, S, 8), (N, 2, K, 8), (N, 2, K, 4)]),
    "symbols_windowed": (windowed, [(N, 2, S, 8), (N, 2, K, 8), (N, 2, K, 4)]),
    "symbols_both": (causal_masked, [(N, 2, S, 8), (N, 2, K, 8), (N, 2, K, 4), (N, 1, S, K)]),
    "symbols_grouped": (causal, [(N, 4, S, 8), (N, 2, K, 8), (N, 2, K, 4)]),
}


def graph_of(make: Make, shapes: list[tuple[Any, ...]]) -> Graph:
    graph = Graph("attention")
    inputs = [graph.add_input(name, tensor("f32", *shape)) for name, shape in zip("qkvm", shapes)]
    with Builder(graph) as b:
        made = make(b, *inputs)
        outputs = list(made) if isinstance(made, tuple) else [made]
        graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])
    return graph


def programs(make: Make, shapes: list[tuple[Any, ...]], **options: int) -> tuple[Program, Program]:
    """The program as it is without the pass, and with it."""
    plain = Pipeline([*FIRST, *LAST]).run(graph_of(make, shapes))
    attend = PASSES["attend"].with_options(**{"lanes": 4, "registers": 16, **options})
    made = Pipeline([*FIRST, attend, *LAST]).run(graph_of(make, shapes), watch=[see.Verify()])
    return plain, made


def attention_of(program: Program) -> list[Kernel]:
    return [kernel for kernel in program.kernels if kernel.name.startswith("attention")]


def numbers(shape: tuple[Any, ...], **sizes: int) -> tuple[int, ...]:
    values = {**SIZES, **sizes}
    return tuple(values[str(size)] if not isinstance(size, int) else size for size in shape)


def feeds_of(shapes: list[tuple[Any, ...]], **sizes: int) -> dict[str, np.ndarray]:
    feeds = {n: RNG.standard_normal(numbers(s, **sizes)).astype(np.float32) for n, s in zip("qkvm", shapes)}
    if "m" in feeds and feeds["m"].shape[-2] > 1:
        feeds["m"][..., 2, :] = -1.0  # a query that sees no key, where the sign says what is seen
    return feeds


@pytest.mark.parametrize("name", ONE)
def test_attention_is_one_kernel(name: str):
    make, shapes = ONE[name]
    plain, made = programs(make, shapes)
    assert len(attention_of(made)) == 1 and not attention_of(plain)
    feeds = feeds_of(shapes)
    found, wanted = run_program(made, feeds)["y0"], run_program(plain, feeds)["y0"]
    assert np.allclose(found, wanted, RTOL, ATOL, equal_nan=True)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", ["symbols", "symbols_grouped"])
def test_few_queries_have_blocks_of_their_own(name: str, rows: int):
    make, shapes = ONE[name]
    plain, made = programs(make, shapes, lanes=8)
    (kernel,) = attention_of(made)
    assert any(isinstance(s, If) and s.condition == apply("ge", Index(t.i64, S), 4) for s in walk_stmts(kernel.body))
    feeds = feeds_of(shapes, S=rows, K=66)
    assert np.allclose(run_program(made, feeds)["y0"], run_program(plain, feeds)["y0"], RTOL, ATOL)


def built(make: Make, shapes: list[tuple[Any, ...]], folder: Path, **options: Any) -> tuple[Program, Any]:
    """The program as the C target makes it, and its code, compiled without a warning."""
    target = find_backend("c", **options)
    program = target.pipeline().run(graph_of(make, shapes), watch=[see.Verify()])
    assert attention_of(program)
    artifact = target.emit(program, folder)
    sources = [f for f in folder.glob("*.c") if f.name != "main.c"]
    flags = ["-Werror", "-Wconversion", "-Wno-sign-conversion"]
    marched = [] if options.get("march") is None else [f"-march={options['march']}"]
    build_shared(sources, folder / "strict.so", find_compiler(), include=[folder], flags=[*flags, *marched])
    return program, artifact.load()


@pytest.mark.parametrize("march", ["native", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("name", ONE)
def test_c_agrees_with_the_plain_program(name: str, march: str, tmp_path: Path):
    if march != "native" and platform.machine() != "x86_64":
        pytest.skip("there are no such processors of this kind")
    make, shapes = ONE[name]
    _, loaded = built(make, shapes, tmp_path, march=march, threads=2)
    is_symbolic = name.startswith("symbols")
    reference = find_backend("c", threads=1)
    unfused = reference.pipeline().without("attend").run(graph_of(make, shapes))
    slow = reference.emit(unfused, tmp_path / "plain").load()
    for rows, keys in [(1, 1), (1, 70), (3, 7), (7, 64), (16, 65), (33, 300), (200, 150)] if is_symbolic else [(7, 70)]:
        feeds = feeds_of(shapes, S=rows, K=keys)
        found, wanted = loaded.run(feeds)["y0"], slow.run(feeds)["y0"]
        # A weight may be rounded to the next byte.
        atol = 8 / 255 if name == "rounded" else ATOL
        assert np.allclose(found, wanted, RTOL, atol, equal_nan=True), (rows, keys)


@pytest.mark.parametrize("name", ["plain", "full_mask", "causal", "symbols", "long"])
def test_deterministic_code_has_the_same_bits_for_every_width_of_vectors(name: str, tmp_path: Path):
    if platform.machine() != "x86_64":
        pytest.skip("there are no such processors of this kind")
    make, shapes = ONE[name]
    feeds = feeds_of(shapes)
    found = []
    for march in ("x86-64", "x86-64-v3", "native"):
        _, loaded = built(make, shapes, tmp_path / march, march=march, deterministic=True)
        found.append(loaded.run(feeds)["y0"])
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_scores_take_no_memory():
    """Not of the arena, whatever the number of keys: a block of them lies on the stack."""
    _, shapes = ONE["symbols"]
    plain, made = programs(spelled, shapes)
    assert names_of(plain) >= {"S", "K"} and made.arena_bytes == 0
    (kernel,) = attention_of(made)
    arrays = [s.type for s in walk_stmts(kernel.body) if isinstance(s, Local)]
    assert all(isinstance(type_.elements, int) and type_.elements * 4 <= 65536 for type_ in arrays)


def names_of(program: Program) -> set[str]:
    """The sizes that the arena's depends on."""
    return set(names(program.arena_bytes))


def test_keys_are_read_as_they_were():
    """Not transposed by a call before: neither a copy of them, nor what makes them."""
    _, shapes = ONE["plain"]
    _, made = programs(spelled, shapes)
    assert [call.kernel.name for call in made.calls()] == [attention_of(made)[0].name]

    def make(b: Builder, q: Value, k: Value, v: Value) -> Value:
        return spelled(b, q, b.tanh(k) + 1.0, v)

    _, made = programs(make, shapes)
    first, last = made.calls()
    stored = next(s for s in walk_stmts(first.kernel.body) if isinstance(s, Store))
    loads = [e for e in walk(stored.value) if isinstance(e, Load)]
    assert [load.index for load in loads] == [stored.index] and last.kernel in attention_of(made)


@pytest.mark.parametrize("name", ["symbols_causal", "symbols_windowed", "symbols_both"])
def test_blocks_that_nobody_sees_are_skipped(name: str):
    """Past the last key that the last query of a block sees, and before the first that the first does."""
    make, shapes = ONE[name]
    _, made = programs(make, shapes)
    (kernel,) = attention_of(made)
    blocks = [s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.extent == ceil_div(K, 64)]
    for s in blocks:
        *before, last = s.body
        assert isinstance(last, If) and not last.orelse and all(isinstance(x, Let) for x in before)
    skipped, all_seen = 0, 0
    for s in walk_stmts(kernel.body):
        if isinstance(s, If) and "le" in {e.function for e in walk(s.condition) if isinstance(e, Apply)}:
            skipped += not s.orelse
            all_seen += bool(s.orelse)
    assert skipped == all_seen == len(blocks) > 0


@pytest.mark.parametrize("name", ["full_mask", "allowed", "symbols_masked"])
def test_a_mask_is_turned_once(name: str):
    make, shapes = ONE[name]

    def twice(b: Builder, q: Value, k: Value, v: Value, mask: Value) -> tuple[Value, Value]:
        return make(b, q, k, v, mask), make(b, q, v if v.shape == k.shape else k * 2.0, v, mask)

    plain, made = programs(twice, shapes)
    turned = [call.args[-1] for call in made.calls() if call.kernel.name.startswith("turn")]
    assert len(turned) == 1
    assert sum(turned[0] in call.args for call in made.calls() if call.kernel in attention_of(made)) == 2
    feeds = feeds_of(shapes)
    found, wanted = run_program(made, feeds), run_program(plain, feeds)
    for output in ("y0", "y1"):
        assert np.allclose(found[output], wanted[output], RTOL, ATOL, equal_nan=True)


def weights_too(b: Builder, q: Value, k: Value, v: Value) -> tuple[Value, Value]:
    weights = b.softmax(b.matmul(q, across(b, k)), axes=(-1,))
    return b.matmul(weights, v), weights


def scores_too(b: Builder, q: Value, k: Value, v: Value) -> tuple[Value, Value]:
    scores = b.matmul(q, across(b, k))
    return b.matmul(b.softmax(scores, axes=(-1,)), v), scores


def other_axis(b: Builder, q: Value, k: Value, v: Value) -> Value:
    return b.matmul(b.softmax(b.matmul(q, across(b, k)), axes=(-2,)), v)


def not_normal(b: Builder, q: Value, k: Value, v: Value) -> Value:
    """Exponentials that are divided by the sum of others."""
    scores = b.matmul(q, across(b, k))
    powers = b.exp(scores - b.reduce_max(scores, axes=(-1,), keepdims=True))
    return b.matmul(powers / b.reduce_sum(b.abs(scores), axes=(-1,), keepdims=True), v)


def scored_twice(b: Builder, q: Value, k: Value, v: Value) -> Value:
    """Weights that are multiplied by what depends on the key."""
    return b.matmul(b.softmax(b.matmul(q, across(b, k)), axes=(-1,)) * b.reduce_sum(k, axes=(-1,), keepdims=False), v)


LEFT: dict[str, tuple[Make, list[tuple[Any, ...]]]] = {
    "weights_too": (weights_too, [(2, 8, 8), (2, 20, 8), (2, 20, 8)]),
    "scores_too": (scores_too, [(2, 8, 8), (2, 20, 8), (2, 20, 8)]),
    "other_axis": (other_axis, [(2, 20, 8), (2, 20, 8), (2, 20, 8)]),
    "not_normal": (not_normal, [(2, 8, 8), (2, 20, 8), (2, 20, 8)]),
    "scored_twice": (scored_twice, [(8, 8), (20, 8), (20, 8)]),
    "great_heads": (spelled, [(2, 8, 1100), (2, 20, 1100), (2, 20, 8)]),
    "unknown_heads": (spelled, [(2, 8, K), (2, 20, K), (2, 20, 8)]),
    "rounded_long": (rounded, [(2, 8, 8), (2, K, 8), (2, K, 8)]),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_attention_is_left_alone(name: str):
    make, shapes = LEFT[name]
    plain, made = programs(make, shapes)
    assert not attention_of(made)
    assert [call.kernel for call in made.calls()] == [call.kernel for call in plain.calls()]


def test_layers_share_a_kernel():
    def make(b: Builder, q: Value, k: Value, v: Value) -> Value:
        return spelled(b, spelled(b, q, k, v), v, k)

    _, shapes = ONE["plain"]
    _, made = programs(make, shapes)
    assert len(attention_of(made)) == 1 and len(list(made.calls())) == 2


def test_rows_that_see_nothing():
    """NaN where nothing guards them, 0 where something does; keys of a block that are all masked change nothing."""
    shapes = [(1, 6, 8), (1, 200, 8), (1, 200, 8), (1, 6, 200)]
    mask = np.zeros((1, 6, 200), np.float32)
    mask[0, 1, :], mask[0, 2, :150], mask[0, 3, 5:] = -np.inf, -np.inf, np.finfo(np.float32).min
    feeds = {**feeds_of(shapes[:3]), "m": mask}
    for shape in (shapes, [shapes[0], (1, K, 8), (1, K, 8), (1, 6, K)]):
        plain, made = programs(spelled, shape)
        assert attention_of(made)
        found, wanted = run_program(made, feeds)["y0"], run_program(plain, feeds)["y0"]
        assert np.isnan(found[0, 1]).all() and np.isfinite(found[0, 2:]).all()
        assert np.allclose(found, wanted, RTOL, ATOL, equal_nan=True)
