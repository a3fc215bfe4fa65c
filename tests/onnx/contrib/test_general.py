"""General operators of com.microsoft against ONNX Runtime; complex numbers, transforms and others against NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.onnx.contrib.differential import Case, Form, by_name, case, check, check_c, check_refused, compiled

EXACT = 1e-12


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def wide(*shape: int, seed: int = 0) -> np.ndarray:
    return real(*shape, seed=seed).astype(np.float64)


def ints(*values: int, kind: type = np.int64) -> np.ndarray:
    return np.array(values, kind)


def matrix_cases() -> Iterator[Case]:
    regular = lambda *shape: real(*shape) + 3 * np.eye(shape[-1], dtype=np.float32)  # noqa: E731
    # An inverse has the error of its matrix times its condition number, here below 100.
    yield case("one", "Inverse", [regular(5, 5)], tolerance=1e-5, c=True)
    yield case("stack", "Inverse", [regular(2, 3, 4, 4)], tolerance=1e-5, c=True)
    yield case("pivots", "Inverse", [np.array([[0, 2, 1], [4, 0, 0], [0, 1, 3]], np.float32)])
    yield case("f64", "Inverse", [regular(3, 6, 6).astype(np.float64)], tolerance=EXACT)
    yield case("f16", "Inverse", [regular(3, 3).astype(np.float16)], tolerance=2e-3)
    yield case("batch", "Inverse", lambda n: [regular(n, n + 1, n + 1)], tolerance=1e-5, c=True)
    yield case("empty", "Inverse", [regular(2, 3, 3)[:0]])
    yield case("tril", "Trilu", [real(2, 4, 5), ints(1).reshape(())], {"upper": 0}, constants=[1])
    yield case("triu", "Trilu", [wide(4, 5)], c=True)
    yield case("triu-run_time", "Trilu", [np.arange(20).reshape(4, 5), ints(-2).reshape(())])
    yield case("triu-batch", "Trilu", lambda n: [real(n, n, 3)])
    for metric in ("sqeuclidean", "euclidean"):
        given = {"metric": metric}
        # ONNX Runtime takes a*a - 2ab + b*b, which loses digits where a is near b.
        yield case(metric, "CDist", [real(4, 3), real(5, 3, seed=1)], given, tolerance=1e-4, c=True)
        yield case(f"{metric}-f64", "CDist", [wide(4, 3), wide(5, 3, seed=1)], given, tolerance=1e-11)
        yield case(f"{metric}-batch", "CDist", lambda n: [real(n, 3), real(n + 1, 3, seed=1)], given, tolerance=1e-4)
    yield case("cdist-default", "CDist", [real(4, 3), real(5, 3, seed=1)], tolerance=1e-4)


def movement_cases() -> Iterator[Case]:
    x = real(3, 4)
    for mode in ("constant", "edge", "reflect"):
        yield case(f"pad-{mode}", "Pad", [x, ints(1, 2, 2, 1)], {"mode": mode}, constants=[1], c=mode == "reflect")
    yield case("pad-value", "Pad", [x, ints(0, 1, 2, 0).reshape(1, 4), np.array(0.5, np.float32)], constants=[1, 2])
    yield case("pad-values", "Pad", [x, ints(0, 1, 2, 0), np.array([0.5], np.float32)], constants=[1])
    yield case("pad-negative", "Pad", [x, ints(-1, 1, 0, -2)], constants=[1])
    yield case("pad-batch", "Pad", lambda n: [real(n, 3, n), ints(0, 1, 2, 0, 1, 1)], constants=[1], c=True)
    for axis in (0, 1, 2, -1, -2, -3):
        yield case(f"expand{axis}", "ExpandDims", [x, ints(axis, kind=np.int32).reshape(())], constants=[1])
    for kind in (np.float64, np.int8, np.uint64, np.float16, np.bool_):
        yield case(f"expand-{kind.__name__}", "ExpandDims", [x.astype(kind), np.array(1, np.int32)], constants=[1])
    yield case("expand-batch", "ExpandDims", lambda n: [real(n, 3), np.array(1, np.int32)], constants=[1], c=True)
    data = np.arange(24).reshape(2, 3, 4)
    for number, indices in enumerate(([[0, 1], [1, 2]], [[[0, -1]], [[-2, 0]]], [[1]], [[0, 1, 2], [1, 0, 3]])):
        for kind in (np.int32, np.int64):
            yield case(f"gather{number}-{kind.__name__}", "GatherND", [data, np.array(indices, kind)], c=number == 0)
    yield case("gather-bool", "GatherND", [data % 3 == 0, ints(1, 0).reshape(1, 2)])
    yield case("gather-batch", "GatherND", lambda n: [real(3, n), np.arange(2 * n).reshape(n, 2) % 2])
    for number, (shape, given) in enumerate([
        ((2, 7, 3), {"dim": 1, "size": 3, "step": 2}), ((2, 7), {"size": 3}), ((9,), {"dim": 0, "size": 4, "step": 3}),
        ((5, 2), {"dim": -2, "size": 5}),
    ]):  # fmt: skip
        yield case(f"unfold{number}", "UnfoldTensor", [real(*shape)], given, c=number == 0)
    yield case("unfold-i64", "UnfoldTensor", [data], {"size": 2, "step": 2})
    yield case("unfold-batch", "UnfoldTensor", lambda n: [real(n, n + 3)], {"size": 2, "step": 2}, c=True)
    yield case("sample", "SampleOp", [x])
    yield case("sample-batch", "SampleOp", lambda n: [real(n, 2)])
    rows = lambda w, i, *_: w[i]  # noqa: E731
    yield case("embedding", "TorchEmbedding", [x, ints(2, 0, 1), ints(0).reshape(()), np.array(True)], meaning=rows)
    yield case("embedding-batch", "TorchEmbedding", lambda n: [x, np.arange(3 * n).reshape(n, 3) % 3], meaning=rows)


def range_cases() -> Iterator[Case]:
    for kind in (np.int16, np.int32, np.int64, np.float32, np.float64):
        scalar = lambda v, k=kind: np.array(v, k)  # noqa: E731
        name = kind.__name__
        yield case(f"{name}", "Range", [scalar(1), scalar(7)], constants=[0, 1])
        yield case(f"{name}-step", "Range", [scalar(9), scalar(-2), scalar(-3)], constants=[0, 1, 2])
        yield case(f"{name}-ones", "Range", [scalar([0]), scalar([5]), scalar([2])], constants=[0, 1, 2])
        yield case(f"{name}-none", "Range", [scalar(5), scalar(5)], constants=[0, 1])
    floats = [np.array(v, np.float32) for v in (0.5, 3, 0.4)]
    yield case("fraction", "Range", floats, constants=[0, 1, 2])


def hash_cases() -> Iterator[Case]:
    numbers = np.random.default_rng(0).integers(-(1 << 40), 1 << 40, (3, 20))
    for kind in (np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64):
        for number, given in enumerate(({}, {"positive": 0}, {"seed": 42}, {"seed": 0xFFFFFFFF, "positive": 0})):
            if number == 3 and kind is not np.int32:
                continue
            yield case(f"{kind.__name__}-{number}", "MurmurHash3", [numbers.astype(kind)], given,
                       c=number == 1 and np.dtype(kind).kind != "f")  # fmt: skip
    yield case("batch", "MurmurHash3", lambda n: [np.arange(n, dtype=np.int32)], c=True)


def multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return parts(numbers(a) * numbers(b), a.dtype)


def multiplied_conjugate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return parts(numbers(a) * numbers(b).conj(), a.dtype)


def numbers(x: np.ndarray) -> np.ndarray:
    return x[..., 0].astype(np.float64) + 1j * x[..., 1]


def parts(x: np.ndarray, kind: np.dtype) -> np.ndarray:
    return np.stack([np.real(x), np.imag(x)], axis=-1).astype(kind)


def rfft(x: np.ndarray, *, signal_ndim: int = 1, **_: int) -> np.ndarray:
    return parts(np.fft.rfftn(x.astype(np.float64), axes=range(x.ndim - signal_ndim, x.ndim)), x.dtype)


def irfft(x: np.ndarray, *, signal_ndim: int, **_: int) -> np.ndarray:
    signal = numbers(x)
    return np.fft.irfftn(signal, axes=range(signal.ndim - signal_ndim, signal.ndim)).astype(x.dtype)


def complex_cases() -> Iterator[Case]:
    for op, meaning in (("ComplexMul", multiplied), ("ComplexMulConj", multiplied_conjugate)):
        yield case(op, op, [real(3, 4, 2), real(3, 4, 2, seed=1)], meaning=meaning, c=True)
        yield case(f"{op}-row", op, [real(3, 4, 2), real(4, 2, seed=1)], meaning=meaning)
        yield case(f"{op}-outer", op, [real(4, 2), real(3, 1, 2, seed=1)], meaning=meaning)
        yield case(f"{op}-f64", op, [wide(3, 2), wide(3, 2, seed=1)], meaning=meaning, tolerance=EXACT)
        yield case(f"{op}-batch", op, lambda n: [real(n, 4, 2), real(n, 4, 2, seed=1)], meaning=meaning)
    for count in (1, 2, 3):
        given = {"signal_ndim": count, "normalized": 0, "onesided": 1}
        yield case(f"rfft{count}", "Rfft", [real(3, 4, 6, 8)], given, meaning=rfft, c=count == 2)
        yield case(f"irfft{count}", "Irfft", [real(3, 4, 6, 5, 2)], given, meaning=irfft, c=count == 2)
    yield case("rfft-f64", "Rfft", [wide(3, 7)], meaning=rfft, tolerance=EXACT)
    yield case("rfft-f16", "Rfft", [real(3, 8).astype(np.float16)], meaning=rfft, tolerance=4e-3)
    yield case("rfft-batch", "Rfft", lambda n: [real(n, 3, 8)], meaning=rfft)
    yield case("rfft-length", "Rfft", lambda n: [real(2, 2 * n + 2)], meaning=rfft, c=True)
    yield case("irfft-length", "Irfft", lambda n: [real(2, n + 2, 2)], {"signal_ndim": 1}, meaning=irfft, c=True)
    yield case("irfft-batch", "Irfft", lambda n: [real(n, 3, 5, 2)], {"signal_ndim": 1}, meaning=irfft)


def finite(*xs: np.ndarray, isinf_only: int = 0, isnan_only: int = 0) -> np.ndarray:
    tests = [] if isnan_only else [np.isinf]
    tests += [] if isinf_only else [np.isnan]
    return np.array(not any(test(x.astype(np.float64)).any() for x in xs for test in tests))


def finite_cases() -> Iterator[Case]:
    inf, nan = np.array([1, np.inf], np.float32), np.array([[np.nan, 2]], np.float32)
    for number, operands in enumerate(([real(2, 3), real(4)], [real(3), inf], [nan], [inf, nan], [-inf])):
        for given in ({}, {"isinf_only": 1}, {"isnan_only": 1}):
            label = f"{number}-{'-'.join(given) or 'both'}"
            yield case(label, "IsAllFinite", operands, given, meaning=finite, c=number in (0, 1) and not given)
    yield case("kinds", "IsAllFinite", [inf.astype(np.float16)], meaning=finite)
    yield case("f64", "IsAllFinite", [wide(3)], meaning=finite)
    yield case("bf16", "IsAllFinite", [nan.astype(ml_dtypes.bfloat16)], meaning=finite)
    yield case("batch", "IsAllFinite", lambda n: [real(n, 2)], meaning=finite)


def words(count: int, length: int) -> np.ndarray:
    """Words of at least one character, 0 behind them; one of them with 0 in its middle."""
    r = np.random.default_rng(0)
    made = r.integers(1, 9, (count, length)).astype(np.int32)
    for row, size in zip(made, r.integers(1, length + 1, count)):
        row[size:] = 0
    made[0] = [1, 2, 0, *range(1, length - 2)]
    return made


def search_cases() -> Iterator[Case]:
    for values in ([2, 1, 1, 3, 4, 3], [5], [0.5, -1, 0.5, -1, 7]):
        yield case(f"unique-{len(values)}", "Unique", [np.array(values, np.float32)], outputs=3, constants=[0])
        yield case(
            f"unique-run_time-{len(values)}", "Unique", [np.array(values, np.float32)], outputs=3, c=len(values) > 5
        )
    yield case("unique-places", "Unique", [np.array([3, 1, 3, 2], np.float32)], outputs=(0, 1, 2))
    yield case("unique-batch", "Unique", lambda n: [np.arange(3 * n, dtype=np.float32) % (n + 1)], outputs=3, c=True)
    tables = [real(5, 1, 3, 4), real(5, seed=1), real(9, 4, seed=2)]
    given = {"char_embedding_size": 4, "conv_window_size": 3, "embedding_size": 5}
    yield case("words", "WordConvEmbedding", [words(8, 7), *tables], given, c=True)
    yield case("words-defaults", "WordConvEmbedding", [words(4, 3), *tables])
    yield case("words-batch", "WordConvEmbedding", lambda n: [words(n, n + 4), *tables], c=True)
    none = [np.zeros((1, 4), np.int32), *tables]
    yield case("words-none", "WordConvEmbedding", none, meaning=lambda s, w, *_: np.zeros((len(s), len(w)), np.float32))


CASES = by_name(
    matrix_cases, movement_cases, range_cases, hash_cases, complex_cases, finite_cases, search_cases
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


def test_hashes_of_numbers_are_those_of_their_bytes() -> None:
    """The hash of 0 with seed 0 as the authors of the function publish it, and of four zero bytes with another seed."""
    check(Form("MurmurHash3", {"x": np.zeros(1, np.int32)}, want={"y": np.array([0x2362F9DE], np.uint32)}))
    check(Form("MurmurHash3", {"x": np.zeros(1, np.uint32)}, {"seed": 1}))


REFUSALS = [
    (case("square", "Inverse", [real(2, 3)]), "is not square"),
    (case("metric", "CDist", [real(2, 3), real(2, 3)], {"metric": "cosine"}), "`metric` is 'cosine'"),
    (case("parts", "ComplexMul", [real(2, 3), real(2, 3)]), "two parts of complex numbers"),
    (case("normalized", "Rfft", [real(2, 4)], {"normalized": 1}), "they must be 0 and 1"),
    (case("window", "UnfoldTensor", [real(2, 4)], {"size": 5}), "holds no window of 5"),
    (case("axis", "ExpandDims", [real(2), np.array(4, np.int32)], constants=[1]), "`axes` is 4"),
    (case("bytes", "MurmurHash3", [np.zeros(2, np.int8)]), "numbers of 32 and 64 bits"),
    (case("seed", "MurmurHash3", [np.zeros(2, np.int32)], {"seed": -1}), "unsigned number of 32 bits"),
    (case("only", "IsAllFinite", [real(2)], {"isinf_only": 1, "isnan_only": 1}), "exclude each other"),
    (
        case("width", "WordConvEmbedding", [words(2, 4), real(5, 1, 3, 4), real(5), real(9, 4)], {"embedding_size": 4}),
        "`embedding_size` is 4",
    ),
    (case("beams", "BeamSearch", [real(2)]), "generate tokens outside of it"),
    (case("ordered", "QOrderedMatMul", [real(2)]), "export the model with QDQ nodes"),
    (case("snpe", "Snpe", [real(2)]), "one vendor's device"),
    (case("bfp", "QuantizeBFP", [real(2)]), "is not documented"),
    (case("tokens", "Tokenizer", [real(2)]), "regular expressions"),
]


@pytest.mark.parametrize(("row", "why"), REFUSALS, ids=[row.id for row, _ in REFUSALS])
def test_refusals_name_what_and_why(row: Case, why: str) -> None:
    check_refused(*row.forms, why)
