"""Operators of com.microsoft on images, against ONNX Runtime; norms over groups of channels against NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.onnx.contrib.differential import Case, by_name, case, check, check_c, check_refused, compiled


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pool_cases() -> Iterator[Case]:
    shapes = {
        "pads": {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]},
        "ceil": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        "dilations": {"kernel_shape": [3, 2], "dilations": [1, 2]},
        "upper": {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "lower": {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
        "valid": {"kernel_shape": [2, 3], "auto_pad": "VALID"},
    }
    for kind in (np.int8, np.uint8):
        x = (real(2, 9, 7, 3) * 40).astype(np.int64).astype(kind)
        for name, given in shapes.items():
            yield case(f"{name}-{kind.__name__}", "NhwcMaxPool", [x], given, c=name == "pads")
        yield case(f"1d-{kind.__name__}", "NhwcMaxPool", [x[:, :, 0]], {"kernel_shape": [3]})
        yield case(f"batch-{kind.__name__}", "NhwcMaxPool", lambda n, v=x: [v.repeat(n, 0).repeat(n, 1)],
                   shapes["pads"], c=True)  # fmt: skip


def normed(x, gamma, beta, *, groups, epsilon=1e-5, activation, channels_last=1):
    """GroupNorm as its documentation has it, in f64."""
    first = np.moveaxis(x.astype(np.float64), -1, 1) if channels_last else x.astype(np.float64)
    rows = first.reshape(first.shape[0], groups, -1)
    rows = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + epsilon)
    y = rows.reshape(first.shape) * gamma.astype(np.float64)[:, None, None] + beta.astype(np.float64)[:, None, None]
    y = y / (1 + np.exp(-y)) if activation else y
    return (np.moveaxis(y, 1, -1) if channels_last else y).astype(x.dtype)


def skip_normed(x, gamma, beta, skip, bias=None, *, channels_last=1, **attributes):
    ones = (1, 1)
    wide = lambda v: v.reshape(*v.shape[:-1], *ones, v.shape[-1]) if channels_last else v.reshape(*v.shape, *ones)  # noqa: E731
    total = x.astype(np.float64) + (skip if skip.ndim == 4 else wide(skip))
    total = total if bias is None else total + wide(bias)
    y = normed(total, gamma, beta, channels_last=channels_last, **attributes)
    return y.astype(x.dtype), total.astype(x.dtype)


def norm_cases() -> Iterator[Case]:
    gamma, beta = real(6, seed=1), real(6, seed=2)
    for last in (0, 1):
        shape = (2, 4, 5, 6) if last else (2, 6, 4, 5)
        for silu in (0, 1):
            given = {"groups": 3, "activation": silu, "channels_last": last}
            name = f"{last}-{silu}"
            yield case(f"{name}", "GroupNorm", [real(*shape), gamma, beta], given, meaning=normed, c=silu == 1)
            yield case(f"{name}-f16", "GroupNorm", [real(*shape).astype(np.float16), gamma, beta],
                       given | {"epsilon": 1e-2}, meaning=normed, tolerance=2e-3)  # fmt: skip
            for label, sizes in (
                ("whole", shape),
                ("channel", (2, 6)),
                ("one", (2, 1, 1, 6) if last else (2, 6, 1, 1)),
            ):
                yield case(f"skip-{name}-{label}", "SkipGroupNorm",
                           [real(*shape), gamma, beta, real(*sizes, seed=3), real(6, seed=4)], given, outputs=2,
                           meaning=skip_normed, c=silu == 0)  # fmt: skip
    given = {"groups": 2, "activation": 0}
    yield case("defaults", "GroupNorm", [real(1, 3, 3, 4), real(4), real(4)], given, meaning=normed)
    yield case("batch", "GroupNorm", lambda n: [real(n, n + 1, 3, 4), real(4), real(4)], given, meaning=normed, c=True)
    yield case("skip-no_bias", "SkipGroupNorm", [real(1, 3, 3, 4), real(4), real(4), real(1, 4)], given,
               meaning=lambda *xs, **given: skip_normed(*xs, **given)[0])  # fmt: skip
    yield case("skip-batch", "SkipGroupNorm", lambda n: [real(n, n, 3, 4), real(4), real(4), real(n, 4), real(4)],
               given, outputs=2, meaning=skip_normed)  # fmt: skip


def sample_cases() -> Iterator[Case]:
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                given = {"mode": mode, "padding_mode": padding, "align_corners": corners}
                # ONNX Runtime takes cubic weights in another order, whose terms cancel.
                yield case(f"{mode}-{padding}-{corners}", "GridSample", [real(2, 3, 5, 6), real(2, 4, 3, 2)], given,
                           tolerance=1e-4 if mode == "bicubic" else 1e-5, c=padding == "border")  # fmt: skip
    yield case("defaults", "GridSample", [real(1, 1, 4, 4), real(1, 2, 2, 2)])
    yield case("batch", "GridSample", lambda n: [real(n, 3, n + 2, 6), real(n, 4, n, 2)], c=True)


def crop_cases() -> Iterator[Case]:
    boxes = (np.random.default_rng(0).random((5, 4)) * 1.4 - 0.2).astype(np.float32)
    boxes[0] = (0, 0, 1, 1)
    which = np.array([0, 1, 1, 0, 1], np.int32)
    for mode in ("bilinear", "nearest"):
        for height, width in ((3, 4), (1, 5), (6, 1), (1, 1)):
            sizes = np.array([height, width], np.int32)
            yield case(f"{mode}-{height}x{width}", "CropAndResize", [real(2, 3, 6, 7), boxes, which, sizes],
                       {"mode": mode, "extrapolation_value": 2.5}, constants=[3], c=height == 3)  # fmt: skip
    sizes = np.array([3, 2], np.int32)
    yield case("defaults", "CropAndResize", [real(2, 3, 6, 7), boxes, which, sizes], constants=[3])
    yield case("empty", "CropAndResize", [real(2, 3, 6, 7), boxes[:0], which[:0], sizes], constants=[3])
    yield case("batch", "CropAndResize", lambda n: [real(2, 3, n + 4, 7), boxes[:n], which[:n], sizes], constants=[3],
               c=True)  # fmt: skip


CASES = by_name(pool_cases, norm_cases, sample_cases, crop_cases)


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


REFUSALS = [
    (case("silu", "GroupNorm", [real(1, 2, 2, 4), real(4), real(4)], {"groups": 2, "activation": 2}), "0 (none) or 1"),
    (case("groups", "GroupNorm", [real(1, 2, 2, 4), real(4), real(4)], {"groups": 3, "activation": 0}), "3 groups"),
    (case("mode", "CropAndResize", [real(1, 1, 4, 4), real(1, 4), np.zeros(1, np.int32), np.ones(2, np.int32)],
          {"mode": "cubic"}, constants=[3]), "`mode` is 'cubic'"),
    (case("skip", "SkipGroupNorm", [real(1, 2, 2, 4), real(4), real(4), real(1, 2, 4)], {"groups": 2, "activation": 0}),
     "neither a number per channel"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "why"), REFUSALS, ids=[row.id for row, _ in REFUSALS])
def test_refusals_name_what_and_why(row: Case, why: str) -> None:
    check_refused(*row.forms, why)
