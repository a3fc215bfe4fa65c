"""GroupQueryAttention and RotaryEmbedding of com.microsoft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused, run_onnxruntime

rng = np.random.default_rng(0)
HEADS, GROUPS, H = 4, 2, 16


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def numbers(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def first_of(counts: Sequence[int], axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """A view of the first entries of `axis` of each sequence; what is behind them has no meaning."""
    return lambda x: np.concatenate([np.moveaxis(row, axis - 1, 0)[:n].ravel() for row, n in zip(x, counts)])


def resident(count: int, capacity: int, window: int) -> int:
    """How many of the last `count` tokens a cache of `capacity` entries holds, by the operator's description."""
    step = capacity - window + 1
    return count if count <= capacity else count - step * -(-(count - capacity) // step)


def grouped(
    length: int, past: int | None, totals: Sequence[int], *, packed: bool = False, angles: int = 0, size: int = H,
    positions: Any = None, bias: tuple[int, ...] = (), sink: bool = False, valid: Sequence[int] | None = None,
    total: int | None = None, outputs: tuple[str, ...] = ("y", "keys", "values"), dtype: Any = np.float32,
    **attributes: Any,
) -> Form:  # fmt: skip
    """`length` new tokens after which sequences have `totals`, behind caches with room for `past`."""
    batch = len(totals)
    widths = (HEADS, GROUPS, GROUPS)
    parts = [floats(batch, length, (sum(widths) if packed else count) * size) for count in widths]
    caches = [None if past is None else floats(batch, GROUPS, past, size) for _ in range(2)]
    turns = [weights(64, angles) if angles else None for _ in range(2)]
    operands: dict[str, Any] = {
        "query": parts[0], "key": None if packed else parts[1], "value": None if packed else parts[2],
        "past_key": caches[0], "past_value": caches[1], "last": numbers(totals) - 1,
        "total": numbers(total or max(totals)), "cos": turns[0], "sin": turns[1],
        "at": None if positions is None else np.array(positions, np.int64), "bias": floats(*bias) if bias else None,
        "sink": floats(HEADS) if sink else None, "key_scale": None, "value_scale": None, "query_norm": None,
        "key_norm": None, "valid": None if valid is None else numbers(valid),
    }  # fmt: skip
    operands = {n: a.astype(dtype) if a is not None and a.dtype == np.float32 else a for n, a in operands.items()}
    counts = [min(length, total) for total in totals] if valid is None else valid
    held = totals
    if attributes.get("sliding_window_cache") and past is not None and 0 < attributes["local_window_size"] <= past:
        held = [resident(total, past, attributes["local_window_size"]) for total in totals]
    views = {"y": first_of(counts, 1), "scores": first_of(counts, 2)}
    views |= {name: first_of(held, 2) for name in ("keys", "values")}
    given = {"num_heads": HEADS, "kv_num_heads": GROUPS, "do_rotary": int(bool(angles)), **attributes}
    return Form(
        "GroupQueryAttention", operands, given, outputs, ("cos", "sin") if angles else (), views=views,
        declared={"scores": dtype}, measured=("total",),
    )  # fmt: skip


def weights(*shape: int) -> np.ndarray:
    """Floats that are the same for the same shape: a constant of several forms."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


CALLS: dict[str, list[tuple[int, int | None, list[int]]]] = {
    "prompt": [(3, None, [3, 3]), (5, None, [5])],
    "prompt of an empty cache": [(3, 0, [3, 3]), (5, 0, [5])],
    "padded prompt": [(4, None, [4, 2]), (6, None, [3, 6])],
    "padded prompt of a cache with room": [(4, 9, [4, 2]), (3, 12, [3, 3])],
    "token of a cache that grows": [(1, 5, [6, 6]), (1, 8, [9])],
    "token of a cache with room": [(1, 9, [6, 3]), (1, 12, [12])],
    "tokens of a cache that grows": [(3, 5, [8]), (4, 2, [6])],
    "tokens of a cache with room": [(3, 9, [8]), (2, 16, [9])],
}
"""Calls at two sizes each: new tokens, entries of the past cache, tokens after the call."""


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("angles", [0, H // 2])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_calls(call: str, packed: bool, angles: int, interleaved: int) -> None:
    options: dict[str, Any] = {"packed": packed, "angles": angles, "rotary_interleaved": interleaved}
    check(*(grouped(*sizes, **options) for sizes in CALLS[call]))


CACHED = [name for name in CALLS if name not in ("prompt", "padded prompt")]


def at_run_time(form: Form) -> Form:
    """The form with the number of all tokens as an input, which the size of the present cache depends on."""
    return replace(form, measured=())


@pytest.mark.parametrize("call", CACHED)
@pytest.mark.parametrize("angles", [0, 8])
def test_totals_that_only_a_run_tells(call: str, angles: int) -> None:
    check(*(at_run_time(grouped(*sizes, angles=angles)) for sizes in CALLS[call]))


def test_scores_for_totals_that_only_a_run_tells() -> None:
    options: dict[str, Any] = {"qk_output": 1, "outputs": ("y", "keys", "values", "scores")}
    check(*(at_run_time(grouped(*sizes, **options)) for sizes in CALLS["token of a cache with room"]))


@pytest.mark.parametrize("packed", [False, True])
def test_a_part_of_a_head_is_turned(packed: bool) -> None:
    check(*(grouped(*sizes, packed=packed, angles=8, size=32) for sizes in CALLS["token of a cache with room"]))


def test_positions() -> None:
    check(grouped(1, 9, [4, 3], angles=8, positions=[[9], [2]]), grouped(3, 7, [6], angles=8, positions=[[9, 1, 2]]))
    first = grouped(3, None, [3, 3], angles=8, positions=[[2, 3, 4], [5, 6, 7]])
    check(first, grouped(2, None, [2], angles=8, positions=[[7, 1]]))  # of a prompt the first position counts


@pytest.mark.parametrize("window", [-1, 1, 2, 4, 20])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("smooth", [-1, 0, 1])
def test_attributes(window: int, softcap: float, smooth: int) -> None:
    options: dict[str, Any] = {"local_window_size": window, "softcap": softcap, "smooth_softmax": smooth}
    check(grouped(3, 9, [8], scale=0.4, **options), grouped(1, 7, [7], scale=0.4, **options))
    check(grouped(4, None, [4, 3], **options))


@pytest.mark.parametrize("smooth", [0, 1])
def test_sink(smooth: int) -> None:
    check(grouped(3, 9, [8], sink=True, smooth_softmax=smooth))


@pytest.mark.parametrize("past", [5, 9])
@pytest.mark.parametrize("heads", [1, HEADS])
def test_bias(past: int, heads: int) -> None:
    check(grouped(3, past, [8], bias=(1, heads, 3, 8)), grouped(2, past + 1, [past + 1], bias=(1, heads, 2, past + 1)))
    check(grouped(3, None, [3, 2], bias=(2, heads, 3, 3), softcap=2.0))


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("past", [5, 9])
@pytest.mark.parametrize(
    "options", [{}, {"softcap": 2.0}, {"local_window_size": 2}, {"smooth_softmax": 1}, {"bias": (1, 1, 3, 8)}]
)
def test_scores(stage: int, past: int, options: dict[str, Any]) -> None:
    check(grouped(3, past, [8], qk_output=stage, outputs=("y", "keys", "values", "scores"), **options))


def test_scores_of_sequences_of_several_lengths() -> None:
    for call in ("padded prompt", "token of a cache with room"):
        outputs = ("y", "keys", "values", "scores")
        check(*(grouped(*sizes, qk_output=1, outputs=outputs) for sizes in CALLS[call]))


@pytest.mark.parametrize(
    "call", ["prompt", "padded prompt", "token of a cache with room", "tokens of a cache with room"]
)
def test_not_causal(call: str) -> None:
    check(*(grouped(*sizes, causal=0) for sizes in CALLS[call]))


@pytest.mark.parametrize("angles", [0, 8])
def test_keys_that_are_in_the_cache_already(angles: int) -> None:
    form = grouped(3, 9, [8], angles=angles)
    nothing = {name: floats(1, 0, GROUPS * H) for name in ("key", "value")}
    check(replace(form, operands={**form.operands, **nothing}))


@pytest.mark.parametrize("angles", [0, 8])
def test_padded_queries(angles: int) -> None:
    check(grouped(3, 9, [5, 4], valid=[2, 3], angles=angles), grouped(4, 11, [6], valid=[1], angles=angles))
    check(grouped(3, 9, [5, 4], valid=[2, 0], angles=angles, total=9))
    check(grouped(1, 9, [5, 4], valid=[1, 0], angles=angles))


WINDOWED = [
    (1, 5, [3]),
    (1, 5, [6]),
    (1, 5, [12]),
    (4, 5, [12]),
    (7, 5, [12]),
    (7, 5, [7]),
    (1, 5, [9, 6]),
    (3, 4, [9]),
]


@pytest.mark.parametrize(("length", "capacity", "totals"), WINDOWED)
@pytest.mark.parametrize("options", [{}, {"angles": 8}, {"bias": HEADS}, {"bias": 1}])
def test_a_cache_of_the_last_tokens(length: int, capacity: int, totals: list[int], options: dict[str, Any]) -> None:
    def at(length: int, capacity: int, totals: list[int]) -> Form:
        bias = (len(totals), options["bias"], length, max(totals)) if "bias" in options else ()
        given = {**options, "bias": bias, "local_window_size": 4, "sliding_window_cache": 1}
        return grouped(length, capacity, totals, **given)

    check(at(length, capacity, totals), at(1, 6, [8]))


@pytest.mark.parametrize("valid", [[2, 3], [0, 3]])
def test_padded_queries_of_a_cache_of_the_last_tokens(valid: list[int]) -> None:
    check(grouped(3, 5, [9, 6], valid=valid, angles=8, local_window_size=4, sliding_window_cache=1))


def quantised(form: Form, bits: int, kind: str) -> Form:
    """The form with a cache of `bits` bits."""
    limit, size = (100, H) if bits == 8 else (128, H // 2)
    dtype = np.int8 if bits == 8 else np.uint8
    low = -limit if bits == 8 else 0
    operands = dict(form.operands)
    for name in ("key", "value"):
        past = form.operands[f"past_{name}"]
        assert past is not None
        operands[f"past_{name}"] = rng.integers(low, low + 2 * limit, (*past.shape[:3], size)).astype(dtype)
        shape = (1,) if kind == "PER_TENSOR" else (1, GROUPS, 1, H)
        operands[f"{name}_scale"] = (rng.random(shape).astype(np.float32) + 0.5) * np.float32(
            0.02 if bits == 8 else 0.3
        )
    given = {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
    return replace(form, operands=operands, attributes={**form.attributes, **given})


@pytest.mark.parametrize("call", CACHED)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["PER_TENSOR", "PER_CHANNEL"])
def test_a_quantised_cache(call: str, bits: int, kind: str) -> None:
    check(*(quantised(grouped(*sizes, angles=8), bits, kind) for sizes in CALLS[call]))


def test_a_quantised_cache_of_the_last_tokens() -> None:
    check(quantised(grouped(3, 5, [9], local_window_size=4, sliding_window_cache=1), 8, "PER_CHANNEL"))


def test_a_cache_of_small_floats() -> None:
    """ONNX Runtime has it on other processors: entries are divided by the scale and rounded, and multiplied again."""
    form, scale = grouped(3, 9, [8], angles=8), np.array([0.5], np.float32)
    small = ml_dtypes.float8_e4m3fn
    past = {name: form.operands[name].astype(small) for name in ("past_key", "past_value")}  # type: ignore[union-attr]
    scales = {"key_scale": scale, "value_scale": scale}
    given = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}
    # Twice through the operator: the entries that it makes of the new tokens, and attention on what they stand for.
    floats_past = {name: a.astype(np.float32) * scale for name, a in past.items()}
    first = run_onnxruntime(replace(form, operands={**form.operands, **floats_past}))
    kept = {name: (first[name] / scale).astype(small) for name in ("keys", "values")}
    again = {
        "past_key": kept["keys"].astype(np.float32) * scale,
        "past_value": kept["values"].astype(np.float32) * scale,
    }
    nothing = {name: floats(1, 0, GROUPS * H) for name in ("key", "value")}
    want = {**kept, "y": run_onnxruntime(replace(form, operands={**form.operands, **again, **nothing}))["y"]}
    operands = {**form.operands, **past, **scales}
    check(replace(form, operands=operands, attributes={**form.attributes, **given}, want=want))


def test_norms() -> None:
    """ONNX Runtime has them on other processors: each head divided by the root of its mean square, and scaled."""
    form = grouped(3, None, [3, 3], angles=8)
    gains = floats(H), floats(H)
    normed = dict(form.operands)
    for name, gain, epsilon in (("query", gains[0], 1e-2), ("key", gains[1], 1e-3)):
        x = form.operands[name].reshape(2, 3, -1, H)  # type: ignore[union-attr]
        y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(epsilon)) * gain
        normed[name] = y.reshape(2, 3, -1).astype(np.float32)
    want = run_onnxruntime(replace(form, operands=normed))
    given = {**form.operands, "query_norm": gains[0], "key_norm": gains[1]}
    attributes = {**form.attributes, "q_norm_epsilon": 1e-2, "qk_norm_epsilon": 1e-3}
    check(replace(form, operands=given, attributes=attributes, want=want))


def test_floats_of_16_bits() -> None:
    form = grouped(3, 9, [8], angles=8, dtype=np.float16)
    check(replace(form, tolerance=4e-3))  # four steps of f16: ONNX Runtime rounds the turned queries and the weights


def rotary(
    batch: int, length: int, *, angles: int = 4, flat: bool = True, positions: str = "all", dtype: Any = np.float32,
    **attributes: Any,
) -> Form:  # fmt: skip
    shape = (batch, length, 16) if flat else (batch, 2, length, 8)
    at = rng.integers(0, 16, (batch, length)) if positions == "all" else np.array([3])
    operands = {"x": floats(*shape), "at": at, "cos": weights(16, angles), "sin": weights(16, angles)}
    given = {n: a.astype(dtype) if a.dtype == np.float32 else a for n, a in operands.items()}
    return Form("RotaryEmbedding", given, attributes, constants=("cos", "sin"))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("positions", ["all", "offset"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("options", [{}, {"num_heads": 2}, {"num_heads": 2, "angles": 2, "rotary_embedding_dim": 4}])
def test_rotary(flat: bool, positions: str, interleaved: int, options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"flat": flat, "positions": positions, "interleaved": interleaved, **options}
    check(rotary(2, 3, **given), rotary(1, 5, **given))


def test_rotary_of_packed_sequences() -> None:
    check(rotary(1, 30, is_packed_batching=1, num_heads=2))  # longer than the caches


def test_rotary_of_floats_of_16_bits() -> None:
    check(replace(rotary(2, 3, dtype=np.float16), tolerance=2e-3))  # ONNX Runtime rounds each product to f16


def test_what_is_refused() -> None:
    check_refused(rotary(2, 3, scale=0.5), "ONNX Runtime ignores it")
    check_refused(rotary(2, 3, rotary_embedding_dim=8), "needs `num_heads`")
    check_refused(grouped(3, 9, [8]), "must be given", key=None)
    check_refused(grouped(3, 9, [8]), "given together", past_key=None)
    check_refused(grouped(3, 9, [8]), "as many tokens", key=floats(1, 5, GROUPS * H), value=floats(1, 5, GROUPS * H))
    check_refused(grouped(3, 9, [8], causal=0, local_window_size=2), "causal attention")
    check_refused(grouped(3, None, [3], valid=[3]), "needs `past_key`")
    check_refused(grouped(3, 9, [8], sliding_window_cache=1, local_window_size=-1), "a `local_window_size`")
    check_refused(grouped(3, 9, [8], sliding_window_cache=1, local_window_size=10), "does not hold a window")
    check_refused(grouped(3, 9, [8], k_quant_type="PER_TENSOR"), "needs a scale")
    check_refused(
        quantised(grouped(3, 9, [8]), 8, "PER_TENSOR"), "is not supported; it is 8 in i8", past_key=floats(1, 2, 9, 16)
    )
    check_refused(replace(grouped(3, 9, [8], angles=8), constants=()), "needs `cos_cache`", cos=None)


def test_in_c(tmp_path: Path) -> None:
    def at(call: str, **options: Any) -> list[Form]:
        return [grouped(*sizes, **options) for sizes in CALLS[call]]

    tokens = CALLS["token of a cache with room"]
    window = {"local_window_size": 4, "sliding_window_cache": 1, "angles": 8}
    check_c(
        tmp_path,
        at("prompt", angles=8),
        at("padded prompt of a cache with room", packed=True, softcap=2.0),
        at("tokens of a cache that grows", angles=8, local_window_size=3, smooth_softmax=1),
        [quantised(grouped(*sizes, angles=8), 8, "PER_CHANNEL") for sizes in tokens],
        [quantised(grouped(*sizes), 4, "PER_TENSOR") for sizes in tokens],
        [grouped(3, 5, [9], **window), grouped(1, 6, [8], **window)],
        [grouped(3, 9, [5, 4], valid=[2, 3]), grouped(4, 11, [6], valid=[1])],
        [rotary(2, 3, positions="offset"), rotary(1, 5, positions="offset")],
        [at_run_time(grouped(1, 5, [6])), at_run_time(grouped(3, 9, [8]))],
    )
