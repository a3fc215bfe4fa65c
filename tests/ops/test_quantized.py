"""Quantised operators against ONNX Runtime: integers must be the same."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.ops.single_node import agrees, run

MS: dict[str, Any] = {"domain": "com.microsoft"}
rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def bytes_(*shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def signed(*shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape, dtype=np.int8)


def scale(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


def zero(value: Any, dtype: Any = np.uint8) -> np.ndarray:
    return np.array(value, dtype)


@pytest.mark.parametrize(("dtype", "level"), [(np.uint8, 128), (np.int8, -3), (np.uint16, 9), (np.int16, 3)])
def test_quantize_and_dequantize(dtype: Any, level: int) -> None:
    x = floats(50) * 300
    agrees("QuantizeLinear", [x, scale(2.5), zero(level, dtype)])
    agrees("DequantizeLinear", [x.astype(np.int32).astype(dtype), scale(2.5), zero(level, dtype)])


def test_ties_round_to_even() -> None:
    (y,) = run("QuantizeLinear", [np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), scale(1), zero(0, np.int8)])
    assert y.tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scales_along_an_axis(axis: int) -> None:
    x, count = floats(3, 4) * 9, (3, 4)[axis]
    agrees("QuantizeLinear", [x, floats(count) ** 2 + 0.1, signed(count)], axis=axis)
    agrees("DequantizeLinear", [signed(3, 4), floats(count), signed(count)], axis=axis)


def test_blocks() -> None:
    agrees("QuantizeLinear", [floats(3, 8), floats(3, 4) ** 2 + 0.01, None], axis=1, block_size=2, output_dtype=3)
    agrees("DequantizeLinear", [signed(3, 8), floats(3, 4), signed(3, 4)], axis=1, block_size=2)


def test_dynamic_quantize() -> None:
    for x in (floats(50), np.abs(floats(50)), -np.abs(floats(9)), np.zeros(3, np.float32)):
        agrees("DynamicQuantizeLinear", [x], 3)


def test_integer_products() -> None:
    agrees(
        "MatMulInteger", [bytes_(2, 3, 4), signed(4, 5), zero(7), zero([1, -2, 3, -4, 5], np.int8)], constants=(1, 3)
    )
    agrees("ConvInteger", [bytes_(1, 2, 6, 6), bytes_(4, 2, 3, 3), zero(7), zero(3)], pads=[1, 1, 1, 1])
    agrees(
        "DynamicQuantizeMatMul",
        [floats(3, 8), signed(8, 5), scale([0.1] * 5), None, floats(5)],
        constants=(1, 2, 4),
        **MS,
    )
    operands = [
        bytes_(3, 8),
        signed(8, 5),
        scale(0.1),
        scale([0.1, 0.2, 0.3, 0.4, 0.5]),
        zero(4),
        zero([0] * 5, np.int8),
    ]
    agrees("MatMulIntegerToFloat", operands, constants=(1, 3, 5), **MS)


def test_requantised_products() -> None:
    per_channel = scale([0.1, 0.2, 0.3, 0.4])
    operands = [
        bytes_(1, 2, 6, 6), scale(0.1), zero(3), signed(4, 2, 3, 3), per_channel, zero([0] * 4, np.int8), scale(2),
        zero(90), rng.integers(-50, 50, 4).astype(np.int32),
    ]  # fmt: skip
    agrees("QLinearConv", operands, constants=tuple(range(1, 9)), pads=[1, 1, 1, 1])
    operands = [
        bytes_(3, 5),
        scale(0.1),
        zero(3),
        signed(5, 4),
        per_channel,
        zero([0] * 4, np.int8),
        scale(2),
        zero(90),
    ]
    agrees("QLinearMatMul", operands, constants=tuple(range(1, 8)))


@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm(transposed: int) -> None:
    b = signed(5, 4) if transposed else signed(4, 5)
    bias = rng.integers(-50, 50, 5).astype(np.int32)
    operands = [bytes_(3, 4), scale(0.1), zero(2), b, scale(0.02), zero(0, np.int8), bias, scale(0.1), zero(100)]
    agrees("QGemm", operands, constants=tuple(range(1, 9)), transB=transposed, **MS)


def test_quantised_elementwise() -> None:
    agrees(
        "QLinearAdd", [bytes_(2, 3), scale(0.1), zero(3), bytes_(3), scale(0.2), zero(100), scale(0.3), zero(20)], **MS
    )
    agrees(
        "QLinearMul", [bytes_(2, 3), scale(0.1), zero(3), bytes_(3), scale(0.2), zero(99), scale(0.9), zero(20)], **MS
    )
    agrees("QLinearSigmoid", [bytes_(40), scale(0.05), zero(128), scale(1 / 256), zero(0)], **MS)
    agrees("QLinearLeakyRelu", [bytes_(40), scale(0.05), zero(128), scale(0.04), zero(9)], alpha=0.3, **MS)
    agrees("QLinearGlobalAveragePool", [bytes_(2, 3, 4, 4), scale(0.1), zero(2), scale(0.07), zero(9)], **MS)
    operands = [scale(0.1), zero(2), bytes_(2, 3), scale(0.2), zero(3), bytes_(2, 3), scale(0.05), zero(1)]
    agrees("QLinearConcat", operands, axis=1, constants=(0, 1, 3, 4, 6, 7), **MS)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("k", "n", "block"), [(64, 32, 32), (70, 17, 32), (16, 8, 16)])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
def test_matmul_n_bits(bits: int, k: int, n: int, block: int, zeros: str) -> None:
    blocks = -(-k // block)
    points = {"none": None, "packed": bytes_(n, -(-blocks * bits // 8)), "float": floats(n, blocks)}[zeros]
    operands = [floats(2, 3, k), bytes_(n, blocks, block * bits // 8), floats(n, blocks), points]
    constants = (1, 2) if points is None else (1, 2, 3)
    agrees("MatMulNBits", operands, constants=constants, K=k, N=n, bits=bits, block_size=block, tolerance=1e-3, **MS)


def test_matmul_8_bits() -> None:
    operands = [floats(3, 64), bytes_(32, 2, 32), floats(32, 2), bytes_(32, 2)]
    agrees("MatMulNBits", operands, constants=(1, 2, 3), K=64, N=32, bits=8, block_size=32, tolerance=1e-3, **MS)


@pytest.mark.parametrize("with_zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_gather_packed_rows(bits: int, with_zeros: bool) -> None:
    rows, points = bytes_(10, 64 * bits // 8), bytes_(10, -(-2 * bits // 8)) if with_zeros else None
    operands = [rows, np.array([[1, 3], [0, 9]]), floats(10, 2), points]
    agrees("GatherBlockQuantized", operands, bits=bits, block_size=32, gather_axis=0, quantize_axis=1, **MS)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
def test_gather_along_another_axis(dtype: Any) -> None:
    low = -8 if dtype == ml_dtypes.int4 else 0
    x, points = (rng.integers(low, low + 16, s).astype(dtype) for s in ((4, 32, 6), (4, 2, 6)))
    operands = [x, np.array([[1, 3], [0, 2]]), floats(4, 2, 6), points]
    agrees("GatherBlockQuantized", operands, constants=(0, 2, 3), block_size=16, gather_axis=2, quantize_axis=1, **MS)
