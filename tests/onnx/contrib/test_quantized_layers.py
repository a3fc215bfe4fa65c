"""Attention, embeddings and recurrent layers of com.microsoft on quantised weights, against ONNX Runtime.

Weights stay within 7 bits: ONNX Runtime's kernels saturate sums of two products on processors without VNNI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx.contrib.differential import Case, by_name, case, check, check_c, check_refused, compiled


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def levels(kind: type, *shape: int, seed: int = 0) -> np.ndarray:
    """Numbers of a type within 7 bits."""
    low, high = (-60, 60) if kind is np.int8 else (0, 120)
    return np.random.default_rng(seed).integers(low, high, shape).astype(kind)


def scales(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).random(shape) * 0.01 + 0.005, np.float32)


def attention(weight: type = np.int8, batch: int = 2, length: int = 4, mask: np.ndarray | None = None, past: int = 0,
              column: bool = False, zero: bool = True, width: int = 12) -> list[np.ndarray | None]:  # fmt: skip
    """The operands of QAttention in 3 heads."""
    x, w = levels(np.uint8, batch, length, 10), levels(weight, 10, 3 * width, seed=1)
    shape = (3 * width,) if column else ()
    zeros = [np.array(40, np.uint8), np.full(shape, 3, weight)] if zero else [None, None]
    cache = real(2, batch, 3, past, width // 3) if past else None
    return [x, w, real(3 * width), np.array(0.02, np.float32), scales(*shape), mask, *zeros, cache]


def attention_cases() -> Iterator[Case]:
    ints = lambda *rows: np.array(rows, np.int32)  # noqa: E731
    given = {"num_heads": 3}
    weights = [1, 2, 3, 4, 6, 7]
    for name, operands in {
        "int8": attention(), "uint8": attention(np.uint8), "column": attention(column=True),
        "no_zero": attention(zero=False), "lengths": attention(mask=ints(4, 2)),
        "ranges": attention(mask=ints(4, 3, 0, 1)), "mask2": attention(mask=ints([1, 1, 0, 1], [1, 1, 1, 0])),
        "mask3": attention(mask=np.tril(np.ones((2, 4, 4), np.int32))),
    }.items():  # fmt: skip
        yield case(name, "QAttention", operands, given, constants=weights, c=name in ("int8", "column", "mask2"))
        yield case(f"{name}-causal", "QAttention", operands, given | {"unidirectional": 1}, constants=weights)
    for past in (0, 3):
        causal = given | {"unidirectional": 1}
        operands = attention(past=past)
        if not past:
            operands[8] = real(2, 2, 3, 1, 4)[:, :, :, :0]
        yield case(f"past{past}", "QAttention", operands, causal, outputs=2, constants=weights, c=past > 0)
    yield case("past-mask", "QAttention", attention(past=3, mask=np.tril(np.ones((2, 7), np.int32), 4)), given,
               outputs=2, constants=weights)  # fmt: skip
    yield case("scale", "QAttention", attention(), given | {"scale": 0.3}, constants=weights)
    yield case("filter", "QAttention", attention(mask=ints(4, 2)), given | {"mask_filter_value": -50.0})
    yield case("batch", "QAttention", lambda n: attention(batch=n, length=n + 1), given, constants=weights, c=True)


def embedding(kind: type, *, segments: bool = True, mask: bool = True, batch: int = 2) -> list[np.ndarray | None]:
    ids = np.random.default_rng(3).integers(0, 9, (batch, 5)).astype(np.int32)
    tables = [levels(kind, 9, 8), levels(kind, 6, 8, seed=1), levels(kind, 2, 8, seed=2)]
    seen = (ids > 2).astype(np.int32) if mask else None
    zero, unit = np.array(3, kind), lambda v: np.array(v, np.float32)
    return [
        ids, ids % 2 if segments else None, tables[0], tables[1], tables[2] if segments else None,
        levels(kind, 8, seed=4), levels(kind, 8, seed=5), seen, unit(0.02), unit(0.03),
        unit(0.04) if segments else None, unit(0.05), unit(0.01), zero, zero, zero if segments else None, zero, zero,
    ]  # fmt: skip


def embedding_cases() -> Iterator[Case]:
    for kind in (np.int8, np.uint8):
        for segments in (True, False):
            for mask in (True, False):
                operands = embedding(kind, segments=segments, mask=mask)
                yield case(f"{kind.__name__}-{segments:d}{mask:d}", "QEmbedLayerNormalization", operands,
                           {"epsilon": 1e-5}, outputs=2, c=segments and mask)  # fmt: skip
    yield case("batch", "QEmbedLayerNormalization", lambda n: embedding(np.uint8, batch=n), outputs=2, c=True)


def lstm(*, directions: int = 1, time: int = 4, batch: int = 3, weight: type = np.int8, column: bool = False,
         bias: bool = True, lens: Sequence[int] = (), state: bool = False, peephole: bool = False,
         zero: int = 0) -> list[np.ndarray | None]:  # fmt: skip
    """The operands of DynamicQuantizeLSTM with 5 inputs and 4 units."""
    d, shape = directions, (directions, 16) if column else (directions,)
    return [
        real(time, batch, 5), levels(weight, d, 5, 16, seed=1), levels(weight, d, 4, 16, seed=2),
        real(d, 32, seed=3) * np.float32(0.1) if bias else None, np.array(lens, np.int32) if lens else None,
        real(d, batch, 4, seed=4) if state else None, real(d, batch, 4, seed=5) if state else None,
        real(d, 12, seed=6) if peephole else None, scales(*shape), np.full(shape, zero, weight),
        scales(*shape, seed=7), np.full(shape, zero, weight),
    ]  # fmt: skip


def lstm_cases() -> Iterator[Case]:
    """One thread of ONNX Runtime quantises the states of all sequences together, as here; several, in parts.

    All of it where Y is an output: without it, states of sequences that are over stay in ONNX Runtime's memory, and
    take part in the next step.
    """
    both: dict[str, Any] = {"direction": "bidirectional"}
    other = {"activations": ["HardSigmoid", "Affine", "ScaledTanh"], "activation_alpha": [0.3, 0.9, 1.2],
             "activation_beta": [0.4, 0.1, 0.7]}  # fmt: skip
    forms: dict[str, tuple[list[np.ndarray | None], dict[str, Any]]] = {
        "forward": (lstm(), {}), "reverse": (lstm(), {"direction": "reverse"}), "both": (lstm(directions=2), both),
        "uint8": (lstm(weight=np.uint8, zero=50), {}), "column": (lstm(column=True), {}), "zero": (lstm(zero=3), {}),
        "column-both": (lstm(column=True, directions=2, weight=np.uint8, zero=50), both),
        "lengths": (lstm(lens=(4, 2, 1)), {}), "lengths-both": (lstm(lens=(1, 4, 2), directions=2, state=True), both),
        "lengths-none": (lstm(lens=(0, 2, 3)), {}), "lengths-short": (lstm(lens=(2, 1, 2), directions=2), both),
        "peepholes": (lstm(peephole=True, state=True), {}),
        "clip": (lstm(), {"clip": 0.5}), "coupled": (lstm(), {"input_forget": 1}), "no_bias": (lstm(bias=False), {}),
        "activations": (lstm(), other), "relu": (lstm(), {"activations": ["Relu", "Tanh", "Sigmoid"]}),
        "one": (lstm(batch=1), {}), "step": (lstm(time=1), {}),
    }  # fmt: skip
    weights = [1, 2, 8, 9, 10, 11]
    for name, (operands, attributes) in forms.items():
        yield case(name, "DynamicQuantizeLSTM", operands, {"hidden_size": 4} | attributes, outputs=3,
                   constants=weights, c=name in ("uint8", "column-both", "lengths-both", "peepholes"))  # fmt: skip
    yield case("states", "DynamicQuantizeLSTM", lstm(), {"hidden_size": 4}, outputs=(1, 2), constants=weights)
    yield case("batch", "DynamicQuantizeLSTM", lambda n: lstm(batch=n, time=n + 1), {"hidden_size": 4}, outputs=3,
               constants=weights, c=True)  # fmt: skip


CASES = by_name(attention_cases, embedding_cases, lstm_cases)


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


REFUSALS = [
    (case("rotary", "QAttention", attention(), {"num_heads": 3, "do_rotary": 1}), "`do_rotary`"),
    (case("heads", "QAttention", attention(), {"num_heads": 5}), "in 5 heads"),
    (case("segments", "QEmbedLayerNormalization", [v if i != 4 else None for i, v in enumerate(embedding(np.int8))],
          outputs=2), "given together"),
    (case("scales", "DynamicQuantizeLSTM", [*lstm()[:8], None, *lstm()[9:]], {"hidden_size": 4}), "must be given"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "why"), REFUSALS, ids=[row.id for row, _ in REFUSALS])
def test_refusals_name_what_and_why(row: Case, why: str) -> None:
    check_refused(*row.forms, why)
