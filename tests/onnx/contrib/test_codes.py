"""Weights that are codes into a table, and scores of tokens, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.onnx.contrib.differential import (
    Case,
    by_name,
    case,
    check,
    check_c,
    check_refused,
    compiled,
    onnxruntime_gives,
)


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packed(n: int, k: int, block: int) -> list[np.ndarray]:
    """Codes and the factors of their blocks."""
    r = np.random.default_rng(n * k)
    codes = r.integers(0, 256, (n * k + 1) // 2).astype(np.uint8)
    return [codes, (r.random(-(-n * k // block)) + 0.5).astype(np.float32)]


def untransposed(a: np.ndarray, codes: np.ndarray, factors: np.ndarray, **given: int) -> np.ndarray:
    """A times the weights [N, K], of which ONNX Runtime leaves a part unset; their transpose it multiplies well."""
    unit = np.eye(given["K"], dtype=np.float32)
    return a @ onnxruntime_gives("MatMulBnb4", unit, codes, factors, **given | {"transB": 1}).T


def weight_cases() -> Iterator[Case]:
    for kind in (0, 1):
        for n, k, block in ((4, 32, 16), (3, 33, 16), (5, 16, 64), (8, 64, 32)):
            given = {"N": n, "K": k, "block_size": block, "quant_type": kind}
            yield case(f"{kind}-{n}x{k}", "MatMulBnb4", [real(2, 3, k), *packed(n, k, block)], given, constants=[1, 2],
                       c=n == 3)  # fmt: skip
        given = {"N": 4, "K": 32, "block_size": 16, "quant_type": kind}
        yield case(f"{kind}-transposed", "MatMulBnb4", [real(3, 4), *packed(4, 32, 16)], given | {"transB": 0},
                   meaning=untransposed)  # fmt: skip
        yield case(f"{kind}-batch", "MatMulBnb4", lambda n: [real(n, 32), *packed(4, 32, 16)], given, constants=[1, 2],
                   c=True)  # fmt: skip


def token_cases() -> Iterator[Case]:
    """The score of a token that would repeat a sequence becomes -inf."""
    ids = np.random.default_rng(0).integers(0, 3, (4, 8))
    for size in (1, 2, 3, 8, 9):
        yield case(f"{size}", "NGramRepeatBlock", [ids, real(4, 5)], {"ngram_size": size}, is_finite=False, c=size < 3)
    yield case(
        "batch",
        "NGramRepeatBlock",
        lambda n: [ids[: n - 1, : n + 2], real(n - 1, 5)],
        {"ngram_size": 2},
        is_finite=False,
        c=True,
    )


CASES = by_name(weight_cases, token_cases)


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


_GIVEN = {"N": 4, "K": 32, "block_size": 16, "quant_type": 1}
REFUSALS = [
    (case("type", "MatMulBnb4", [real(3, 32), *packed(4, 32, 16)], _GIVEN | {"quant_type": 2}), "0 (FP4) or 1 (NF4)"),
    (case("block", "MatMulBnb4", [real(3, 32), *packed(4, 32, 16)], _GIVEN | {"block_size": 24}), "a power of 2"),
    (case("fit", "MatMulBnb4", [real(3, 32), *packed(4, 32, 32)], _GIVEN), "do not fit 4 x 32"),
    (
        case("ngram", "NGramRepeatBlock", [np.zeros((1, 4), np.int64), real(1, 4)], {"ngram_size": 0}),
        "`ngram_size` is 0",
    ),
]


@pytest.mark.parametrize(("row", "why"), REFUSALS, ids=[row.id for row, _ in REFUSALS])
def test_refusals_name_what_and_why(row: Case, why: str) -> None:
    check_refused(*row.forms, why)
