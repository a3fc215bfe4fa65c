"""NonZero, Compress, Unique and NonMaxSuppression: against ONNX Runtime, and as C, where only a run tells the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from compiler.errors import UnsupportedError
from ir.evaluate import evaluate_graph
from tests.backends.test_run_time_sizes import agree, info, model
from tests.ops.single_node import agrees, run

TYPES = (np.float32, np.float64, np.int64, np.int8)
SHAPES = ((7,), (3, 4), (2, 3, 4), (0,), (2, 0))


def few(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers of which many are equal, and some 0."""
    return rng.integers(0, 3, shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_nonzero(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.int64, np.bool_):
        agrees("NonZero", [few(rng, shape, dtype)])


def test_nonzero_of_a_scalar_has_no_rows() -> None:
    """ONNX says so; ONNX Runtime gives one row."""
    for value, shape in ((2.0, (0, 1)), (0.0, (0, 0))):
        assert run("NonZero", [np.array(value, np.float32)])[0].shape == shape
        assert run("NonZero", [np.array(value, np.float32)], constants=[0])[0].shape == shape


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_unique(shape: tuple[int, ...], ordered: int) -> None:
    rng = np.random.default_rng(ordered)
    for dtype in TYPES:
        x = few(rng, shape, dtype)
        agrees("Unique", [x], 4, sorted=ordered)
        agrees("Unique", [x], 4, sorted=ordered, constants=[0])
        for axis in range(-len(shape), len(shape)):
            agrees("Unique", [x], 4, sorted=ordered, axis=axis)


def test_unique_takes_nan_for_one_value_that_comes_last() -> None:
    x = np.array([np.nan, 1, -np.inf, np.nan, 1], np.float32)
    values, first, inverse, counts = run("Unique", [x], 4)
    np.testing.assert_array_equal(values, np.array([-np.inf, 1, np.nan], np.float32))
    assert (first.tolist(), inverse.tolist(), counts.tolist()) == ([2, 1, 0], [2, 1, 0, 2, 1], [1, 2, 2])


def test_unique_strings() -> None:
    x = np.array(["b", "a", "b"], object)
    values, first, inverse, counts = run("Unique", [x], 4)
    assert (values.tolist(), first.tolist(), inverse.tolist(), counts.tolist()) == (
        ["a", "b"],
        [1, 0],
        [1, 0, 1],
        [1, 2],
    )


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("length", [1, 3, 4, 12])
def test_compress(axis: int | None, length: int) -> None:
    rng = np.random.default_rng(length)
    attributes = {} if axis is None else {"axis": axis}
    agrees("Compress", [few(rng, (3, 4), np.float32), rng.random(length) < 0.6], **attributes)


def test_what_lies_beyond_the_axis_chooses_nothing() -> None:
    x, condition = np.arange(3, dtype=np.float32), np.array([False, True, True, True, True])
    assert run("Compress", [x, condition])[0].tolist() == [1, 2]


def detections(seed: int, coarse: bool) -> list[np.ndarray | None]:
    """Boxes, scores (coarse ones have equals), and limits, some of them left out."""
    rng = np.random.default_rng(seed)
    batch, classes, count = (int(rng.integers(low, high)) for low, high in ((1, 3), (1, 4), (1, 30)))
    scores = np.round(rng.random((batch, classes, count)), 1 if coarse else 4)
    return [
        rng.random((batch, count, 4)).astype(np.float32), scores.astype(np.float32),
        np.array([rng.integers(0, 8)]) if seed % 5 else None,
        np.array([rng.random()], np.float32) if seed % 3 else None,
        np.array([rng.random()], np.float32) if seed % 4 else None,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
def test_non_max_suppression(seed: int) -> None:
    operands, centered = detections(seed, coarse=seed % 2 == 1), seed // 2 % 2
    agrees("NonMaxSuppression", operands, center_point_box=centered, opset=10 + seed % 2)
    if operands[2] is not None:
        agrees("NonMaxSuppression", operands, center_point_box=centered, opset=11, constants=[2])


def test_a_number_that_is_no_score_chooses_nothing() -> None:
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]], np.float32)
    for threshold in (None, np.array(0.0, np.float32)):
        scores = np.array([[[np.nan, 0.5]]], np.float32)
        found = run("NonMaxSuppression", [boxes, scores, np.array(5), None, threshold])[0]
        assert found.tolist() == [[0, 0, 1]]


def test_one_limit_is_one_number() -> None:
    boxes, scores = np.zeros((1, 2, 4), np.float32), np.zeros((1, 1, 2), np.float32)
    with pytest.raises(UnsupportedError, match=r"a limit is i64\[2\]; it must be one number"):
        run("NonMaxSuppression", [boxes, scores, np.array([1, 2])])


def test_a_detector_as_c(tmp_path: Path) -> None:
    """The sizes go on through gathers, and outputs come at the size that the run tells."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "share", "least"], ["picked"]),
        helper.make_node("Gather", ["picked", "two"], ["place"], axis=1),
        helper.make_node("Gather", ["boxes", "zero"], ["first"], axis=0),
        helper.make_node("Gather", ["first", "place"], ["kept"], axis=0),
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Constant", [], ["zero"], value_int=0),
    ]
    inputs = [info("boxes", ["B", "N", 4]), info("scores", ["B", "C", "N"]), info("most", [1], TensorProto.INT64),
              info("share", [1]), info("least", [])]  # fmt: skip
    proto = model(nodes[4:] + nodes[:4], inputs, [info("picked", ["n", 3], TensorProto.INT64), info("kept", ["n", 4])])
    feeds = []
    for seed in (1, 2, 7):
        boxes, scores, *_ = detections(seed, coarse=True)
        limits = {"most": np.array([seed]), "share": np.array([0.3], np.float32), "least": np.array(0.2, np.float32)}
        feeds.append({"boxes": boxes, "scores": scores, **limits})
    agree(proto, tmp_path, *feeds)


@pytest.mark.parametrize(("axis", "ordered"), [(None, 1), (None, 0), (0, 1), (1, 0)])
def test_unique_strings_as_c(tmp_path: Path, axis: int | None, ordered: int) -> None:
    names = ["values", "first", "inverse", "counts"]
    node = helper.make_node("Unique", ["x"], names, sorted=ordered, **({} if axis is None else {"axis": axis}))
    rank = 1 if axis is None else 2
    outputs = [info("values", [None] * rank, TensorProto.STRING)]
    outputs += [info(name, [None], TensorProto.INT64) for name in names[1:]]
    proto = model([node], [info("x", ["N", "M"], TensorProto.STRING)], outputs)
    loaded = compiler.load(proto)
    runnable = compiler.compile(loaded, "c", out=tmp_path / "net", march="", opt="-O1").load()
    words = np.array([["b", "a", "\u00e9"], ["ab", "", "b"], ["b", "a", "\u00e9"]], object)
    for x in (words, words[:1], words[:, :2]):
        wanted = evaluate_graph(loaded.graph, [x])
        made = runnable.run({"x": x})
        for name, value in zip(names, wanted):
            assert made[name].tolist() == value.tolist()


@pytest.mark.parametrize("ordered", [0, 1])
def test_choices_in_a_row_as_c(tmp_path: Path, ordered: int) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "limit"], ["is_above"]),
        helper.make_node("NonZero", ["is_above"], ["places"]),
        helper.make_node("Compress", ["x", "chosen"], ["rows"], axis=0),
        helper.make_node("Unique", ["rows"], ["values", "first", "inverse", "counts"], sorted=ordered, axis=1),
        helper.make_node("ReduceSum", ["values"], ["sums"], keepdims=0),
    ]
    integers = [info(name, [None], TensorProto.INT64) for name in ("first", "inverse", "counts")]
    outputs = [info("places", [2, None], TensorProto.INT64), info("values", [None, None]), *integers, info("sums", [])]
    inputs = [info("x", ["N", "M"]), info("limit", []), info("chosen", ["K"], TensorProto.BOOL)]
    rng = np.random.default_rng(3)
    feeds = [
        {"x": few(rng, shape, np.float32), "limit": np.array(limit, np.float32), "chosen": rng.random(shape[0]) < share}
        for shape, limit, share in (((3, 6), 0.5, 0.7), ((5, 2), 9.0, 1.0), ((1, 4), -1.0, 0.0), ((4, 9), 1.5, 0.5))
    ]
    agree(model(nodes, inputs, outputs), tmp_path, *feeds)
