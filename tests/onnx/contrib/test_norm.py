"""SkipLayerNormalization, SkipSimplifiedLayerNormalization, SimplifiedLayerNormalization, EmbedLayerNormalization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused

rng = np.random.default_rng(0)
SIZES = [(2, 3), (1, 5)]
H = 8


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def skip_norm(
    op: str, batch: int = 2, length: int = 3, *, skip: str = "bsh", bias: bool = True, dtype: Any = np.float32,
    outputs: tuple[str, ...] = ("y", "mean", "inverse", "sum"), epsilon: float = 1e-5,
) -> Form:  # fmt: skip
    shapes = {"bsh": (batch, length, H), "1sh": (1, length, H), "sh": (length, H)}
    operands: dict[str, Any] = {"x": floats(batch, length, H), "skip": floats(*shapes[skip]), "gamma": floats(H)}
    if op == "SkipLayerNormalization":
        operands["beta"] = floats(H)
    operands["bias"] = floats(H) if bias else None
    given = {name: None if a is None else a.astype(dtype) for name, a in operands.items()}
    tolerance = {np.float32: 2e-5, np.float64: 2e-5}.get(dtype, 2 * float(ml_dtypes.finfo(dtype).eps))
    return Form(op, given, {"epsilon": epsilon}, outputs, tolerance=tolerance)


OPS = ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip", ["bsh", "1sh", "sh"])
def test_skip(op: str, bias: bool, skip: str) -> None:
    check(*(skip_norm(op, *sizes, skip=skip, bias=bias) for sizes in SIZES))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("outputs", [("y",), ("y", "mean"), ("y", "", "inverse"), ("y", "", "", "sum")])
def test_skip_gives_the_outputs_that_are_asked_for(op: str, outputs: tuple[str, ...]) -> None:
    check(skip_norm(op, outputs=outputs))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_skip_rounds_narrow_floats_once(op: str, dtype: Any) -> None:
    # The tolerance is one step of the type on either side of the last rounding.
    check(skip_norm(op, dtype=dtype, outputs=("y", "", "", "sum")))


@pytest.mark.parametrize("op", OPS)
def test_skip_of_tokens_without_a_batch(op: str) -> None:
    operands = {"x": floats(6, H), "skip": floats(6, H), "gamma": floats(H)}
    check(Form(op, operands, {"epsilon": 1e-5}, ("y", "", "", "sum")))


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_simplified(axis: int) -> None:
    operands = {"x": floats(2, 3, H), "scale": floats(*(2, 3, H)[axis:])}
    check(Form("SimplifiedLayerNormalization", operands, {"axis": axis, "epsilon": 1e-3}, ("y", "inverse"), domain=""))


@pytest.mark.parametrize(("x", "scale"), [(np.float16, np.float16), (np.float16, np.float32), (np.float64, np.float64)])
def test_simplified_has_the_type_of_its_scale(x: Any, scale: Any) -> None:
    operands = {"x": floats(2, 3, H).astype(x), "scale": floats(H).astype(scale)}
    check(Form("SimplifiedLayerNormalization", operands, outputs=("y", "inverse"), domain="", tolerance=2e-3))  # of f16


def test_simplified_in_the_domain_of_microsoft() -> None:
    x, scale = floats(2, 3, H), floats(H)
    want = {"y": x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5)) * scale}
    check(Form("SimplifiedLayerNormalization", {"x": x, "scale": scale}, want=want))


def embedding(
    batch: int = 2, length: int = 5, *, segments: bool = True, mask: np.ndarray | None = None, positions: str = "",
    outputs: tuple[str, ...] = ("y", "seen", "sum"), **attributes: Any,
) -> Form:  # fmt: skip
    def ids(below: int, *shape: int) -> np.ndarray:
        return rng.integers(0, below, shape).astype(np.int32)

    operands: dict[str, Any] = {
        "ids": ids(9, batch, length), "segments": ids(2, batch, length) if segments else None,
        "words": floats(9, H), "positions": floats(7, H), "kinds": floats(2, H) if segments else None,
        "gamma": floats(H), "beta": floats(H), "mask": mask,
        "at": {"": None, "1": ids(7, 1, length), "b": ids(7, batch, length)}[positions],
    }  # fmt: skip
    return Form("EmbedLayerNormalization", operands, attributes, outputs)


MASK = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 2]], np.int32)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("positions", ["", "1", "b"])
def test_embedding(segments: bool, mask: np.ndarray | None, positions: str) -> None:
    check(embedding(segments=segments, mask=mask, positions=positions, epsilon=1e-5))


@pytest.mark.parametrize("outputs", [("y",), ("y", "seen"), ("y", "", "sum")])
def test_embedding_gives_the_outputs_that_are_asked_for(outputs: tuple[str, ...]) -> None:
    check(embedding(mask=MASK, outputs=outputs, mask_index_type=0))


def test_embedding_at_two_sizes() -> None:
    check(embedding(2, 5, mask=MASK), embedding(3, 4, mask=np.ones((3, 4), np.int32)))


def test_what_is_refused() -> None:
    form = embedding()
    half = Form(form.op, {**form.operands, "kinds": None})
    check_refused(half, "`segment_ids` and `segment_embedding` must be given together")
    operands = {"x": floats(2, 1, 3, H), "skip": floats(2, 1, 3, H), "gamma": floats(H)}
    check_refused(Form(OPS[0], operands), "inputs of 2 or 3 axes")


def test_in_c(tmp_path: Path) -> None:
    groups = [[skip_norm(op, *sizes) for sizes in SIZES] for op in OPS]
    groups.append([skip_norm(OPS[0], dtype=np.float16, outputs=("y", "", "", "sum"))])
    groups.append([embedding(2, 5, mask=MASK), embedding(3, 4, mask=np.ones((3, 4), np.int32), positions="")])
    simplified = {"x": floats(2, 3, H), "scale": floats(H)}
    groups.append([Form("SimplifiedLayerNormalization", simplified, outputs=("y", "inverse"), domain="")])
    check_c(tmp_path, *groups)
