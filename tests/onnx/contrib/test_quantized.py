"""Quantised operators of com.microsoft against ONNX Runtime: every input form, type and attribute.

Integers must be equal. With scales that are powers of two all arithmetic is exact, and many results are ties, so that
the order of rounding and of adding the zero point shows. With other scales, sums in floats are taken with or without
fused multiply-add according to the processor, which can move a result that is next to a tie by one step.
Weights stay within 7 bits: ONNX Runtime's kernels saturate sums of two products on processors without VNNI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.onnx.contrib.differential import Case, by_name, case, check, check_c, compiled

NEAR_TIES = 0.01
"""The share of elements that may lie next to a tie, where scales are no powers of two."""
_KINDS = (np.uint8, np.int8)
_PAIRS = ((np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8))


def levels(kind: type, *shape: int, seed: int = 0) -> np.ndarray:
    """All numbers of a type of 8 or 16 bits."""
    limits = np.iinfo(kind)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(kind)


def weights(kind: type, *shape: int, seed: int = 0) -> np.ndarray:
    low, high = (-60, 60) if kind is np.int8 else (0, 120)
    return np.random.default_rng(seed).integers(low, high, shape).astype(kind)


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scale(value: float | Sequence[float]) -> np.ndarray:
    return np.array(value, np.float32)


def scales(count: int) -> np.ndarray:
    return (np.random.default_rng(9).random(count) * 0.02 + 0.001).astype(np.float32)


def without(row: Case, *positions: int) -> Case:
    """`row` with the zero points at `positions` omitted; they are 0, which is what ONNX Runtime is given.

    It crashes where some of them are omitted.
    """
    (form,) = row.forms
    operands = {**form.operands, **{f"x{i}": None for i in positions}}
    return replace(row, forms=(replace(form, operands=operands, meaning=lambda *_, **__: form.expected()["y0"]),))


def binary_cases() -> Iterator[Case]:
    for op in ("QLinearAdd", "QLinearMul"):
        for kind in _KINDS:
            zero, name = (lambda v, k=kind: np.array(v, k)), f"{op}-{kind.__name__}"
            x, y = levels(kind, 8, 50), levels(kind, 8, 50, seed=1)
            a, c = (x, scale(0.5), zero(3)), (scale(1), zero(5))
            yield case(f"{name}-exact", op, [*a, y, scale(0.25), zero(7), *c], c=True)
            yield case(f"{name}-even", op, [*a, y, scale(0.25), zero(7), scale(2), zero(4)])
            other = [x, scale(0.013), zero(9), y, scale(0.027), zero(3), scale(0.041), zero(2)]
            yield case(f"{name}-near", op, other, near=NEAR_TIES)
            zeros = [x, scale(0.5), zero(0), y, scale(0.5), zero(0), scale(2), zero(0)]
            yield without(case(f"{name}-no_zero", op, zeros), 2, 5, 7)
            yield without(case(f"{name}-some", op, [*a, *zeros[3:]]), 5)
            for shape in ((1,), (50,), (8, 1), (3, 8, 50)):
                part = levels(kind, *shape, seed=2)
                yield case(f"{name}-broadcast{len(shape)}_{shape[0]}", op, [*a, part, scale(0.25), zero(7), *c])
            yield case(
                f"{name}-batch",
                op,
                lambda n, o=op, k=kind, z=zero: [
                    levels(k, n, 3, 4),
                    scale(0.5),
                    z(3),
                    levels(k, n, 1, 4, seed=1),
                    scale(0.25),
                    z(7),
                    scale(1),
                    z(5),
                ],
                c=kind is np.int8,
            )
            yield case(f"{name}-empty", op, [x[:0], scale(0.5), zero(3), y[:0], scale(0.25), zero(7), *c])


def unary_cases() -> Iterator[Case]:
    for kind in _KINDS:
        every = np.arange(np.iinfo(kind).min, np.iinfo(kind).max + 1).astype(kind).reshape(2, 128)
        zero, name = (lambda v, k=kind: np.array(v, k)), kind.__name__
        for op, attributes in (("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.25}), ("QLinearLeakyRelu", {})):
            label = f"{op}-{name}-{len(attributes)}"
            # ONNX Runtime takes sigmoid from a polynomial, so that a result next to a tie may move.
            near = NEAR_TIES if op == "QLinearSigmoid" else 0.0
            yield case(
                label, op, [every, scale(0.0625), zero(100), scale(1 / 256), zero(1)], attributes, near=near, c=True
            )
            yield case(f"{label}-coarse", op, [every, scale(0.25), zero(3), scale(0.5), zero(5)], attributes)
            zeros = [every, scale(0.03), zero(0), scale(0.007), zero(0)]
            yield without(case(f"{label}-no_zero", op, zeros, attributes, near=near), 2, 4)
            yield case(
                f"{label}-batch",
                op,
                lambda n, k=kind, z=zero: [levels(k, n, 7), scale(0.5), z(3), scale(0.5), z(1)],
                attributes,
            )


def softmax_cases() -> Iterator[Case]:
    for kind in _KINDS:
        zero, name = (lambda v, k=kind: np.array(v, k)), kind.__name__
        x = levels(kind, 4, 5, 6)
        for opset in (12, 13):
            for axis in (-1, 0, 1, 2):
                yield case(
                    f"{name}-{opset}-axis{axis}",
                    "QLinearSoftmax",
                    [x, scale(0.03), zero(100), scale(1 / 256), zero(0)],
                    {"axis": axis, "opset": opset},
                    # ONNX Runtime sums rounded exponentials from a table.
                    near=NEAR_TIES,
                    c=opset == 13 and axis == 1,
                )
        yield case(
            f"{name}-default-axis",
            "QLinearSoftmax",
            [x, scale(0.1), zero(3), scale(1 / 64), zero(-5 if kind is np.int8 else 5)],
            {"opset": 13},
            near=NEAR_TIES,
        )
        zeros = [x, scale(0.1), zero(0), scale(1 / 256), zero(0)]
        yield without(case(f"{name}-no_zero", "QLinearSoftmax", zeros, {"opset": 13}, near=NEAR_TIES), 2)
        yield case(
            f"{name}-batch",
            "QLinearSoftmax",
            lambda n, k=kind, z=zero: [levels(k, n, 30), scale(0.05), z(0), scale(1 / 128), z(0)],
            {"opset": 13},
            near=NEAR_TIES,
        )


def selection_cases() -> Iterator[Case]:
    for kind in _KINDS:
        zero, name = (lambda v, k=kind: np.array(v, k)), kind.__name__
        x, y, z = levels(kind, 3, 40), levels(kind, 3, 40, seed=1), levels(kind, 3, 10, seed=2)
        out = (scale(0.5), zero(4))
        a, b, c = (x, scale(0.25), zero(3)), (y, scale(1), zero(1)), (z, scale(0.5), zero(4))
        yield case(f"concat-{name}-0", "QLinearConcat", [*out, *a, *b], {"axis": 0}, c=True)
        yield case(f"concat-{name}-1", "QLinearConcat", [*out, *a, *b, *c], {"axis": -1})
        yield case(f"concat-{name}-one", "QLinearConcat", [*out, *a], {"axis": 1})
        yield case(
            f"concat-{name}-near", "QLinearConcat", [scale(0.02), zero(1), x, scale(0.013), zero(3), *b], {"axis": 1}
        )
        yield case(
            f"concat-{name}-batch",
            "QLinearConcat",
            lambda n, k=kind, s=zero: [
                scale(0.5),
                s(4),
                levels(k, n, 3),
                scale(0.25),
                s(3),
                levels(k, n, 4),
                scale(1),
                s(1),
            ],
            {"axis": 1},
        )
        condition = np.random.default_rng(0).random((3, 40)) < 0.5
        yield case(f"where-{name}", "QLinearWhere", [condition, *a, *b, *out], c=True)
        yield case(
            f"where-{name}-row", "QLinearWhere", [condition, *a, y[:1], scale(1), zero(1), scale(0.013), zero(4)]
        )
        yield case(f"where-{name}-column", "QLinearWhere", [condition[:, :1], x[:1], *a[1:], *b, *out])
        yield case(
            f"where-{name}-batch",
            "QLinearWhere",
            lambda n, k=kind, s=zero: [
                np.arange(n * 3).reshape(n, 3) % 2 == 0,
                levels(k, n, 3),
                scale(0.25),
                s(3),
                levels(k, 3, seed=1),
                scale(1),
                s(1),
                scale(0.5),
                s(4),
            ],
        )


def pool_cases() -> Iterator[Case]:
    shapes = {
        "pads": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "counted": {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [1, 2]},
        "ceil": {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1},
        "upper": {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "lower": {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"},
        "valid": {"kernel_shape": [4, 2], "auto_pad": "VALID"},
    }
    for kind in _KINDS:
        zero, name = (lambda v, k=kind: np.array(v, k)), kind.__name__
        rest = (scale(0.25), zero(7))
        x = (scale(0.5), zero(100))
        for label, attributes in shapes.items():
            for last in (0, 1):
                image = levels(kind, 2, 9, 8, 3) if last else levels(kind, 2, 3, 9, 8)
                yield case(
                    f"{name}-{label}-{last}",
                    "QLinearAveragePool",
                    [image, *x, *rest],
                    attributes | {"channels_last": last},
                    near=NEAR_TIES,
                    c=label == "pads",
                )
        yield case(
            f"{name}-exact", "QLinearAveragePool", [levels(kind, 1, 2, 8, 8), *x, *rest], {"kernel_shape": [2, 2]}
        )
        yield case(f"{name}-1d", "QLinearAveragePool", [levels(kind, 1, 2, 9), *x, *rest], {"kernel_shape": [2]})
        yield case(
            f"{name}-3d", "QLinearAveragePool", [levels(kind, 1, 2, 4, 5, 6), *x, *rest], {"kernel_shape": [2, 1, 2]}
        )
        zeros = [levels(kind, 1, 2, 9), scale(0.5), zero(0), scale(1), zero(0)]
        yield without(case(f"{name}-no_zero", "QLinearAveragePool", zeros, {"kernel_shape": [2]}), 2, 4)
        for last in (0, 1):
            for shape in ((2, 3, 5, 7), (1, 4, 6), (2, 3, 2, 3, 4)):
                yield case(
                    f"global-{name}-{last}-{len(shape)}",
                    "QLinearGlobalAveragePool",
                    [levels(kind, *shape), scale(0.05), zero(10), scale(0.03), zero(7)],
                    {"channels_last": last},
                    c=len(shape) == 4,
                )
            yield case(
                f"global-{name}-{last}-exact",
                "QLinearGlobalAveragePool",
                [levels(kind, 40, 4, 4, 4), scale(0.25), zero(11), scale(1), zero(5)],
                {"channels_last": last},
            )
        yield case(
            f"global-{name}-batch",
            "QLinearGlobalAveragePool",
            lambda n, k=kind, z=zero: [levels(k, n, 3, n + 1, 4), scale(0.25), z(11), scale(0.3), z(5)],
            c=True,
        )


def mean(x, x_scale, x_zero, y_scale, y_zero, *, axes, keepdims):
    """QLinearReduceMean as its documentation has it; ONNX Runtime has no kernel for processors."""
    numbers = (x.astype(np.float64) - (0 if x_zero is None else x_zero.astype(np.float64))) * x_scale
    y = np.rint(numbers.mean(axis=tuple(axes) or None, keepdims=bool(keepdims)) / y_scale)
    limits = np.iinfo(x.dtype)
    return np.clip(y + (0 if y_zero is None else y_zero.astype(np.float64)), limits.min, limits.max).astype(x.dtype)


def mean_cases() -> Iterator[Case]:
    for kind in _KINDS:
        for axes in ([-1], [0, 2], [1, -1]):
            for keep in (0, 1):
                x = [levels(kind, 3, 4, 8), scale(0.25), np.array(9, kind), scale(0.125), np.array(3, kind)]
                yield case(
                    f"mean-{kind.__name__}-{len(axes)}{axes[0]}-{keep}",
                    "QLinearReduceMean",
                    x,
                    {"axes": axes, "keepdims": keep},
                    meaning=mean,
                )
        yield case(
            f"mean-{kind.__name__}-no_zero",
            "QLinearReduceMean",
            [levels(kind, 3, 8), scale(0.5), None, scale(1), None],
            {"axes": [1], "keepdims": 1},
            meaning=mean,
        )
        total = lambda x, axes, keepdims: x.astype(np.int32).sum(tuple(axes), keepdims=bool(keepdims), dtype=np.int32)  # noqa: E731
        for keep in (0, 1):
            yield case(
                f"sum-{kind.__name__}-{keep}",
                "ReduceSumInteger",
                [levels(kind, 3, 4, 8)],
                {"axes": [0, -1], "keepdims": keep},
                meaning=total,
            )


def product(x, x_zero, y, y_zero):
    levels_ = [v.astype(np.int32) - (0 if z is None else z.astype(np.int32)) for v, z in ((x, x_zero), (y, y_zero))]
    return levels_[0] * levels_[1]


def integer_cases() -> Iterator[Case]:
    for kind in _KINDS:
        x, y = levels(kind, 3, 40), levels(kind, 40, seed=1)
        yield case(f"mul-{kind.__name__}", "MulInteger", [x, np.array(3, kind), y, np.array(9, kind)], meaning=product)
        yield case(f"mul-{kind.__name__}-no_zero", "MulInteger", [x, None, y, None], meaning=product)
    wide = levels(np.int16, 5, 16) // 64
    yield case("matmul16", "MatMulInteger16", [wide, wide.T.copy()], c=True)
    yield case("matmul16-batch", "MatMulInteger16", lambda n: [levels(np.int16, n, 5, 16) // 64, wide.T.copy() // 64])


def matmul_cases() -> Iterator[Case]:
    column = scales(7)
    for left, right in _PAIRS:
        name = f"{left.__name__}-{right.__name__}"
        a, w = levels(left, 5, 16), weights(right, 16, 7)
        az, bias = np.array(9, left), real(7)
        op = "MatMulIntegerToFloat"
        yield case(f"float-{name}", op, [a, w, scale(0.05), scale(0.01)])
        per_column = np.arange(7).astype(right)
        yield case(f"float-{name}-column", op, [a, w, scale(0.05), column, az, per_column, bias], c=True)
        deep = levels(left, 2, 3, 5, 16)
        yield case(f"float-{name}-ones", op, [deep, w, scale([0.05]), column, az, np.array([4], right), bias])
        batch = [levels(left, 2, 5, 16), weights(right, 2, 16, 7), scale([0.05])]
        yield case(
            f"float-{name}-stack", op, [*batch, column.reshape(1, 1, 7).repeat(2, 0), az, weights(right, 2, 1, 7)]
        )
        yield case(
            f"float-{name}-batch",
            op,
            lambda n, k=left, v=right: [
                levels(k, n, 5, 16),
                weights(v, 16, 7),
                scale(0.05),
                scale(0.01),
                np.array(3, k),
                np.array(4, v),
            ],
            constants=[1, 2, 3, 4, 5],
            c=True,
        )
    for right in _KINDS:
        op, name = "DynamicQuantizeMatMul", f"dynamic-{right.__name__}"
        a, w = real(2, 3, 5, 16), weights(right, 16, 7)
        yield case(name, op, [a, w, scale(0.01)], c=True)
        yield case(f"{name}-column", op, [a, w, column, np.arange(7).astype(right), real(7)])
        yield case(f"{name}-ones", op, [a, w, scale([0.1]), np.array([3], right), real(7)], constants=[1, 2, 3, 4])
        yield case(f"{name}-bias", op, [a, w, scale(0.1), None, real(7)])
        yield case(f"{name}-stack", op, [a, weights(right, 3, 16, 7), scale(0.1), np.array(3, right)])
        yield case(f"{name}-zeros", op, [a * 0, w, scale(0.01)])
        yield case(f"{name}-batch", op, lambda n, k=right: [real(n, n + 1, 16), weights(k, 16, 7), scale(0.01)])


def gemm_cases() -> Iterator[Case]:
    ints = np.random.default_rng(5).integers(-99, 99, (5, 7)).astype(np.int32)
    for left, right in _PAIRS:
        name = f"gemm-{left.__name__}-{right.__name__}"
        a, w = levels(left, 5, 16), weights(right, 16, 7)
        az, y = np.array(10, left), (scale(0.3), np.array(7, left))
        start = [a, scale(0.05), az, w, scale(0.01), np.array(3, right)]
        exact = [a, scale(0.5), az, w, scale(0.5), np.array(3, right)]
        column = [w, scales(7), np.full(7, 2, right)]
        yield case(name, "QGemm", [*start, None, *y], near=NEAR_TIES, c=True)
        yield case(f"{name}-exact", "QGemm", [*exact, None, scale(16), np.array(7, left)], c=True)
        yield case(
            f"{name}-column", "QGemm", [a, scale(0.05), az, *column, ints[0], *y], {"alpha": 0.7}, near=NEAR_TIES
        )
        yield case(f"{name}-float", "QGemm", [*start, ints], {"alpha": 0.5})
        yield case(
            f"{name}-trans",
            "QGemm",
            [a.T.copy(), scale(0.05), az, w.T.copy(), *column[1:], ints[:, :1]],
            {"transA": 1, "transB": 1},
        )
        yield case(f"{name}-one", "QGemm", [*start, ints[0, :1]])
        yield case(
            f"{name}-batch",
            "QGemm",
            lambda n, s=start, k=left: [levels(k, n, 16), *s[1:], None, scale(0.25), np.array(3, k)],
            near=NEAR_TIES,
            c=True,
        )


def conv_cases() -> Iterator[Case]:
    bias = np.random.default_rng(5).integers(-1000, 1000, 6).astype(np.int32)
    shapes = {
        "pads": {"pads": [1, 1, 1, 1], "kernel_shape": [3, 2]},
        "strides": {"strides": [2, 1], "dilations": [1, 2]},
        "upper": {"auto_pad": "SAME_UPPER"},
    }
    for left, right in _PAIRS:
        name = f"conv-{left.__name__}-{right.__name__}"
        zero, w = np.array(7, left), weights(right, 6, 3, 3, 2)
        out = (scale(0.3), zero)
        for label, attributes in shapes.items():
            for last in (0, 1):
                x = levels(left, 2, 9, 8, 3) if last else levels(left, 2, 3, 9, 8)
                yield case(
                    f"{name}-{label}-{last}",
                    "QLinearConv",
                    [x, scale(0.05), zero, w, scale(0.01), np.array(3, right), *out, bias],
                    attributes | {"channels_last": last},
                    near=NEAR_TIES,
                    c=label == "pads",
                )
        x, grouped = levels(left, 2, 9, 8, 6), weights(right, 6, 3, 2, 2)
        yield case(
            f"{name}-column",
            "QLinearConv",
            [x, scale(0.05), zero, grouped, scales(6), np.zeros(6, right), *out],
            {"channels_last": 1, "group": 2},
            constants=[3, 4, 5],
            near=NEAR_TIES,
        )
        yield case(
            f"{name}-exact",
            "QLinearConv",
            [x, scale(0.5), zero, grouped, scale(0.25), np.array(0, right), scale(32), zero],
            {"channels_last": 1, "group": 2},
        )
        yield case(
            f"{name}-batch",
            "QLinearConv",
            lambda n, k=left, v=w, o=out, z=zero: [
                levels(k, n, n + 4, 9, 3),
                scale(0.05),
                z,
                v,
                scale(0.01),
                np.array(3, v.dtype),
                *o,
            ],
            {"channels_last": 1},
            near=NEAR_TIES,
        )


def linear_cases() -> Iterator[Case]:
    x = real(3, 4, 5) * 100
    for kind in (np.uint8, np.int8, np.uint16, np.int16, ml_dtypes.uint4, ml_dtypes.int4):
        narrow = kind in (ml_dtypes.uint4, ml_dtypes.int4)
        name, unit = np.dtype(kind).name, scale(40 if narrow else 0.5)
        zeros = np.array([1, 2, 0, 3]).astype(kind)
        given = {"declared": {"y0": kind}} if narrow else {}
        yield case(f"quantize-{name}", "QuantizeLinear", [x, unit, zeros[1].reshape(())], constants=[2], **given)
        yield case(
            f"quantize-{name}-axis",
            "QuantizeLinear",
            [x, unit * scale([1, 2, 0.5, 4]), zeros],
            {"axis": 1},
            constants=[2],
            c=True,
            **given,
        )
        yield case(
            f"quantize-{name}-last",
            "QuantizeLinear",
            [x[:, :, :4], unit * scale([1, 2, 0.5, 4]), zeros],
            {"axis": -1},
            constants=[2],
            **given,
        )
        yield case(
            f"quantize-{name}-batch",
            "QuantizeLinear",
            lambda n, u=unit, z=zeros: [real(n, 4) * 100, u, z[1].reshape(())],
            constants=[2],
            **given,
        )
        levels_ = np.arange(-40, 20).reshape(3, 4, 5).astype(kind)
        yield case(f"dequantize-{name}", "DequantizeLinear", [levels_, unit, zeros[1].reshape(())], constants=[2])
        yield case(
            f"dequantize-{name}-axis",
            "DequantizeLinear",
            [levels_, unit * scale([1, 2, 0.5, 4]), zeros],
            {"axis": 1},
            constants=[2],
            c=True,
        )
        yield case(f"dequantize-{name}-no_zero", "DequantizeLinear", [levels_, unit])
    yield case("quantize-no_zero", "QuantizeLinear", [x, scale(2)])
    for kind in (np.uint8, np.int16):
        halves = [x.astype(np.float16), np.array(0.3, np.float16), np.array(3, kind)]
        yield case(f"quantize-half-{kind.__name__}", "QuantizeLinear", halves, constants=[2])
        halves = [levels(kind, 3, 4), np.array(0.3, np.float16), np.array(3, kind)]
        # A half has 11 bits.
        yield case(f"dequantize-half-{kind.__name__}", "DequantizeLinear", halves, tolerance=1e-3)
    yield case("dequantize-int32", "DequantizeLinear", [np.arange(-9, 9, dtype=np.int32), scale(0.1)])


CASES = by_name(
    binary_cases, unary_cases, softmax_cases, selection_cases, pool_cases, mean_cases, integer_cases, matmul_cases,
    gemm_cases, conv_cases, linear_cases,
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


def test_halves_are_multiplied_in_single_precision() -> None:
    """The integer product is beyond the range of f16, its scaled value is not."""
    a, w = np.full((1, 64), 127, np.int8), np.full((64, 1), 100, np.int8)
    row = case(
        "half",
        "MatMulIntegerToFloat",
        [a, w, np.array(0.01, np.float16), np.array(0.01, np.float16)],
        meaning=lambda a, w, s, _: np.array([[127 * 100 * 64 * float(s) ** 2]], np.float16),
        tolerance=1e-3,
    )
    check(*row.forms)
