"""MatMulNBits and GatherBlockQuantized: weights packed in blocks of a few bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused, run_onnxruntime

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def bytes_(*shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def unpacked(x: np.ndarray, bits: int) -> np.ndarray:
    """The numbers in the bytes of the last axis, the lowest bits first."""
    parts = [(x >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*x.shape[:-1], -1).astype(np.float32)


def product(
    shape: tuple[int, ...], k: int = 70, n: int = 5, block: int = 32, bits: int = 4, zeros: str = "", *,
    bias: bool = False, order: np.ndarray | None = None, dtype: Any = np.float32, flat: bool = False, **attributes: Any,
) -> Form:  # fmt: skip
    """A[shape, k] times n rows of k numbers."""
    blocks = -(-k // block)
    scales, points = floats(n, blocks) * np.float32(0.1), None
    if zeros:
        packed = bytes_(n, -(-blocks * bits // 8))
        points = packed if zeros == "packed" else (rng.random((n, blocks)) * (1 << bits)).astype(dtype)
    operands: dict[str, Any] = {
        "a": floats(*shape, k).astype(dtype), "b": bytes_(n, blocks, block * bits // 8), "scales": scales.astype(dtype),
        "zeros": points, "order": order, "bias": floats(n).astype(dtype) if bias else None,
    }  # fmt: skip
    if flat:
        operands |= {
            name: a.reshape(-1) for name, a in operands.items() if name in ("scales", "zeros") and a is not None
        }
    constants = tuple(name for name in ("b", "scales", "zeros", "order") if operands[name] is not None)
    given = {"K": k, "N": n, "bits": bits, "block_size": block, **attributes}
    # Weights reach 12 and sums have 256 of them: f32 is exact to 1e-4 of such sums, and f16 rounds each weight.
    return Form("MatMulNBits", operands, given, constants=constants, tolerance=1e-3 if dtype == np.float32 else 2e-2)


def stated(form: Form) -> Form:
    """The form with what its description says: (number - zero point) * scale of its block, multiplied in f64."""
    k, n, bits, block = (form.attributes[name] for name in ("K", "N", "bits", "block_size"))
    given = {name: a for name, a in form.operands.items() if a is not None}
    blocks = -(-k // block)
    numbers = unpacked(given["b"], bits).reshape(n, -1)[:, :k]
    zeros = np.full((n, blocks), 1 << (bits - 1))
    if "zeros" in given:
        zeros = given["zeros"]
        zeros = unpacked(zeros, bits)[:, :blocks] if zeros.dtype == np.uint8 else zeros
    at = given.get("order", np.arange(k) // block)
    weights = (numbers - zeros.astype(np.float64)[:, at]) * given["scales"].astype(np.float64)[:, at]
    y = given["a"].astype(np.float64) @ weights.T + given.get("bias", np.zeros(n))
    return replace(form, want={"y": y.astype(given["a"].dtype)})


SHAPES = [(70, 5, 32), (64, 8, 16), (40, 3, 16), (256, 4, 128)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed", "float"])
@pytest.mark.parametrize(("k", "n", "block"), SHAPES)
def test_products(bits: int, zeros: str, k: int, n: int, block: int) -> None:
    form = product((2, 3), k, n, block, bits, zeros)
    check(stated(form))
    if (bits, zeros) != (8, "float"):  # which ONNX Runtime does not take
        check(form)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bias_and_sizes(bits: int) -> None:
    first = product((2, 3), bits=bits, zeros="packed", bias=True)
    second = replace(first, operands={**first.operands, "a": floats(1, 5, 70)})
    check(first, second)
    check(product((), bits=bits, bias=True))
    check(product((3,), bits=bits, zeros="packed", flat=True))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed", "float"])
def test_the_order_of_blocks(bits: int, zeros: str) -> None:
    """Of 2 and 8 bits, or with packed zero points, ONNX Runtime does not do what the description says."""
    for order in (np.arange(64) // 32, rng.permutation(64) // 32):
        form = product((3,), 64, 8, bits=bits, zeros=zeros, order=order.astype(np.int32))
        check(stated(form))
        if bits == 4 and zeros != "packed":
            check(form)


@pytest.mark.parametrize("zeros", ["", "packed", "float"])
def test_floats_of_16_bits(zeros: str) -> None:
    check(product((3,), 64, 8, zeros=zeros, dtype=np.float16))


@pytest.mark.parametrize("level", [1, 4])
def test_no_accuracy_is_given_away(level: int) -> None:
    check(stated(product((3,), 64, 8, zeros="packed", accuracy_level=level)))


@pytest.mark.parametrize("shape", [(8, 0, 16), (0, 2, 16), (8, 2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_that_is_left_out(shape: tuple[int, ...], bias: bool) -> None:
    form = product((3,), 64, 8, bias=bias)
    check(replace(form, operands={**form.operands, "b": np.zeros(shape, np.uint8)}))


def gather(data: np.ndarray, indices: np.ndarray, scales: np.ndarray, zeros: Any = None, **attributes: Any) -> Form:
    operands = {"data": data, "indices": indices, "scales": scales, "zeros": zeros}
    constants = ("data", "scales") if zeros is None else ("data", "scales", "zeros")
    return Form("GatherBlockQuantized", operands, attributes, constants=constants)


INDICES = [np.array([[1, -3], [0, 9]]), np.array([1, -11, 10, 100, -1, -10]), np.array(3)]
"""Rows of a table of 10, some counted from its end, and some that are not there and read as zeros."""


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("indices", INDICES, ids=["matrix", "outside", "scalar"])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_packed_rows(bits: int, zeros: bool, indices: np.ndarray, index: Any) -> None:
    points = bytes_(10, -(-3 * bits // 8)) if zeros else None
    rows = bytes_(10, 96 * bits // 8)
    form = gather(rows, indices.astype(index), floats(10, 3), points, bits=bits, block_size=32, quantize_axis=-1)
    check(form)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("gathered", "blocked"), [(0, 1), (2, 1), (0, 2), (1, -1), (1, 1)])
def test_axes(dtype: Any, zeros: bool, gathered: int, blocked: int) -> None:
    shape, few = [4, 5, 6], [4, 5, 6]
    shape[blocked], few[blocked] = 40, 3
    low = -8 if dtype == ml_dtypes.int4 else 0
    data, points = (rng.integers(low, low + 16, s).astype(dtype) for s in (shape, few))
    options: dict[str, Any] = {"block_size": 16, "gather_axis": gathered, "quantize_axis": blocked}
    first = gather(data, np.array([[1, 3], [0, -2]]), floats(*few), points if zeros else None, **options)
    check(first, replace(first, operands={**first.operands, "indices": np.array([[3, 9, -1]])}))


@pytest.mark.parametrize("axis", [0, 1])
def test_bytes_in_blocks_of_another_axis(axis: int) -> None:
    """ONNX Runtime has blocks of bytes along the last axis only; elsewhere they mean the same."""
    data, scales, points = bytes_(32, 32), floats(2, 32), bytes_(2, 32)
    options: dict[str, Any] = {"bits": 8, "block_size": 16, "quantize_axis": 0, "gather_axis": axis}
    indices = np.array([3, 17])
    want = (data.astype(np.float32) - np.repeat(points, 16, 0)) * np.repeat(scales, 16, 0)
    check(replace(gather(data, indices, scales, points, **options), want={"y": want.take(indices, axis)}))


@pytest.mark.parametrize(
    "dtype",
    [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz,
     ml_dtypes.float4_e2m1fn],
)  # fmt: skip
def test_small_floats(dtype: Any) -> None:
    data = floats(10, 32).astype(dtype)
    for rows in (10, 1):
        check(gather(data, INDICES[0], floats(rows, 2), block_size=16))
        check(gather(data, INDICES[0], floats(rows, 1).astype(np.float16), block_size=0))


def test_what_is_refused() -> None:
    check_refused(product((3,), weight_prepacked=1), "laid out for one machine")
    check_refused(product((3,), block=24), "a power of 2")
    check_refused(
        replace(product((3,)), attributes={"K": 70, "N": 5, "bits": 3, "block_size": 32}), "must be 2, 4 or 8"
    )
    table = gather(bytes_(10, 16), INDICES[0], floats(10, 1), block_size=32)
    check_refused(replace(table, attributes={"block_size": 24}), "a power of 2")
    check_refused(
        replace(table, attributes={"block_size": 32, "gather_axis": 1, "quantize_axis": 1}), "along the first axis"
    )
    check_refused(replace(table, attributes={"block_size": 32, "gather_axis": 2}), "not both axes")
    small = gather(floats(10, 32).astype(ml_dtypes.float8_e5m2), INDICES[0], floats(10, 2), block_size=16)
    check_refused(replace(small, constants=("data",)), "no zero points", zeros=small.operands["data"])
    check_refused(small, "must have 2 axes", scales=floats(2))


def test_in_c(tmp_path: Path) -> None:
    first = product((2, 3), bits=4, zeros="packed", bias=True)
    second = product((4,), 64, 8, 16, 2, "float")
    table = gather(bytes_(10, 48), INDICES[1], floats(10, 3), bytes_(10, 2), bits=4, block_size=32)
    groups = [
        [first, replace(first, operands={**first.operands, "a": floats(1, 5, 70)})],
        [second, replace(second, operands={**second.operands, "a": floats(7, 64)})],
        [product((3,), bits=8, zeros="packed")],
        [table, replace(table, operands={**table.operands, "indices": np.array([2, 12, -3])})],
        [gather(floats(10, 32).astype(ml_dtypes.float8_e4m3fn), INDICES[0], floats(1, 2), block_size=16)],
    ]
    check_c(tmp_path, *groups)


def test_the_statement_is_the_one_of_onnxruntime() -> None:
    form = product((3,), zeros="packed", bias=True)
    np.testing.assert_allclose(stated(form).expected()["y"], run_onnxruntime(form)["y"], 1e-4, 1e-4)
