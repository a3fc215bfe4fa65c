"""Products, convolutions and activations of com.microsoft that are fused with others, against ONNX Runtime.

Where ONNX Runtime has no kernel for processors, the operators of ai.onnx that they stand for give what is expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from tests.onnx.contrib.differential import (
    Case,
    by_name,
    case,
    check,
    check_c,
    check_refused,
    compiled,
    interpreted,
    onnxruntime_gives,
)

HALF = 2e-3
"""Halves are rounded to 11 bits, once or twice."""


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def half(*shape: int, seed: int = 0) -> np.ndarray:
    return real(*shape, seed=seed).astype(np.float16)


def plain(op: str, *operands: np.ndarray | None, **attributes: Any) -> np.ndarray:
    """What ONNX Runtime gives for an operator of ai.onnx."""
    return onnxruntime_gives(op, *operands, domain="", **attributes)


ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "Softplus": (), "Softsign": (), "LeakyRelu": (0.3,), "Elu": (0.7,),
    "Celu": (0.7,), "ThresholdedRelu": (0.4,), "HardSigmoid": (0.3, 0.6), "ScaledTanh": (1.5, 0.5),
    "ParametricSoftplus": (1.5, 0.5),
}  # fmt: skip
CONV_ACTIVATIONS = {
    "": (), "Relu": (), "Tanh": (), "Sigmoid": (), "HardSwish": (), "LeakyRelu": (0.3,), "Clip": (-0.5, 1.5),
    "HardSigmoid": (0.3, 0.6),
}  # fmt: skip


def conv_cases() -> Iterator[Case]:
    x, w, bias, skip = real(2, 4, 7, 6), real(6, 4, 3, 3, seed=1), real(6, seed=2), real(2, 6, 7, 6, seed=3)
    pads = {"pads": [1, 1, 1, 1]}
    for name, parameters in CONV_ACTIVATIONS.items():
        given = (
            pads | ({"activation": name} if name else {}) | ({"activation_params": parameters} if parameters else {})
        )
        yield case(f"{name}-skip", "FusedConv", [x, w, bias, skip], given, c=name in ("Clip", "LeakyRelu"))
        yield case(f"{name}-alone", "FusedConv", [x, w], given)
    relu = {"activation": "Relu"}
    for label, attributes in {
        "strides": {"strides": [2, 1], "dilations": [1, 2], "kernel_shape": [3, 3]},
        "upper": {"auto_pad": "SAME_UPPER"},
        "valid": {"auto_pad": "VALID"},
    }.items():
        yield case(label, "FusedConv", [x, w, bias], relu | attributes)
    yield case("group", "FusedConv", [x, real(6, 2, 3, 3), None, skip], relu | pads | {"group": 2})
    yield case("1d", "FusedConv", [real(2, 3, 9), real(5, 3, 2), real(5)], relu)
    yield case("batch", "FusedConv", lambda n: [real(n, 4, n + 4, 6), w, bias, real(n, 6, n + 4, 6, seed=1)],
               relu | pads, c=True)  # fmt: skip


def last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def nhwc(x, w, bias=None, skip=None, *, activation="", activation_params=(), **attributes):
    """NhwcFusedConv and NhwcConv by FusedConv."""
    first = [None if v is None else np.moveaxis(v, -1, 1) for v in (x, skip)]
    given = attributes | ({"activation": activation} if activation else {})
    given |= {"activation_params": activation_params} if activation_params else {}
    return last(onnxruntime_gives("FusedConv", first[0], w, bias, first[1], **given))


def nhwc_cases() -> Iterator[Case]:
    x, w, bias, skip = real(2, 7, 6, 4), real(6, 4, 3, 3, seed=1), real(6, seed=2), real(2, 7, 6, 6, seed=3)
    pads = {"pads": [1, 1, 1, 1]}
    yield case("conv", "NhwcConv", [x, w, bias], pads, meaning=nhwc, c=True)
    yield case("conv-strides", "NhwcConv", [x, w], {"strides": [2, 1], "dilations": [1, 2]}, meaning=nhwc)
    yield case("conv-group", "NhwcConv", [x, real(6, 2, 3, 3)], {"group": 2, "auto_pad": "SAME_LOWER"}, meaning=nhwc)
    yield case("conv-batch", "NhwcConv", lambda n: [real(n, n + 4, 6, 4), w, bias], meaning=nhwc)
    yield case("fused", "NhwcFusedConv", [x, w, bias, skip], pads | {"activation": "Relu"}, meaning=nhwc, c=True)
    clip = {"activation": "Clip", "activation_params": (0.0, 1.0)}
    yield case("fused-clip", "NhwcFusedConv", [x, w], clip, meaning=nhwc)
    yield case("fused-skip", "NhwcFusedConv", [x, w, None, skip], pads, meaning=nhwc)
    pads_ = np.array([1, 1, 0, 1])
    up = {"strides": [2, 2], "output_padding": [1, 0]}
    x, up_w = real(1, 3, 5, 4), real(3, 4, 3, 3, seed=1)
    yield case("transpose", "ConvTransposeWithDynamicPads", [x, up_w, pads_, real(4)], up, constants=[2], c=True)
    yield case(
        "transpose-no_pads",
        "ConvTransposeWithDynamicPads",
        [x, up_w],
        {"dilations": [2, 1]},
        meaning=partial(plain, "ConvTranspose"),
    )
    yield case("transpose-group", "ConvTransposeWithDynamicPads", [real(1, 4, 5, 4), real(4, 2, 3, 3), pads_],
               {"group": 2, "kernel_shape": [3, 3]}, constants=[2])  # fmt: skip
    yield case("transpose-batch", "ConvTransposeWithDynamicPads", lambda n: [real(n, 3, n + 2, 4), up_w, pads_],
               constants=[2])  # fmt: skip


def vector(a: np.ndarray, v: np.ndarray, **_: Any) -> np.ndarray:
    return np.swapaxes(a, -1, -2) @ v


def matmul_cases() -> Iterator[Case]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((3, 4), (4, 5), {}), ((4, 3), (4, 5), {"transA": 1, "alpha": 0.5}), ((3, 4), (5, 4), {"transB": 1}),
        ((4, 3), (5, 4), {"transA": 1, "transB": 1}), ((4,), (4, 5), {}), ((4,), (4, 5), {"transA": 1}),
        ((3, 4), (4,), {"transB": 1}), ((4,), (4,), {"transA": 1, "transB": 1}), ((2, 4, 3), (2, 4, 5), {"transA": 1}),
        ((2, 3, 4), (5, 4), {"transB": 1, "alpha": -2.0}), ((2, 3, 4), (4,), {}), ((4,), (2, 4, 3), {}),
        ((4,), (2, 3, 4), {"transB": 1}), ((2, 1, 3, 4), (3, 4, 5), {}), ((0, 4), (4, 5), {"alpha": 2.0}),
    ]  # fmt: skip
    batched: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((4, 2, 3, 5), (2, 3, 5, 6), {"transBatchA": 1}), ((4, 2, 3, 5), (2, 3, 6, 5), {"transBatchA": 1, "transB": 1}),
        ((5, 2, 3, 4), (2, 3, 5, 6), {"transBatchA": 1, "transA": 1, "alpha": 0.3}),
        ((4, 2, 5), (6, 2, 5), {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
        ((2, 3, 4, 5), (5, 2, 3, 6), {"transBatchB": 1}), ((4, 2, 5), (2, 5, 3), {"transBatchA": 1}),
    ]  # fmt: skip
    for number, (a, b, attributes) in enumerate(shapes + batched):
        yield case(f"{number}", "FusedMatMul", [real(*a), real(*b, seed=1)], attributes, c=number in (1, 4, 15, 18))
    for number, (a, b, attributes) in enumerate(shapes):
        yield case(f"transpose-{number}", "TransposeMatMul", [real(*a), real(*b, seed=1)], attributes)
    wide = [real(3, 4).astype(np.float64), real(4, 5).astype(np.float64)]
    yield case("f64", "FusedMatMul", wide, {"alpha": 0.5}, tolerance=1e-12)
    yield case("f16", "FusedMatMul", [half(3, 4), half(4, 5, seed=1)], {"alpha": 0.5}, tolerance=HALF)
    yield case("batch", "FusedMatMul", lambda n: [real(n, 3, n + 1), real(4, n + 1, seed=1)], {"transB": 1}, c=True)
    # ONNX Runtime leaves `transA` out of account where the other operand is a vector; its documentation does not.
    yield case("vector", "FusedMatMul", [real(2, 4, 3), real(4, seed=1)], {"transA": 1}, meaning=vector)


def by_parts(a: np.ndarray, b: np.ndarray, *, activation: str, **attributes: Any) -> np.ndarray:
    """FusedMatMulActivation by FusedMatMul and the activation, by its name in ai.onnx."""
    of_activation = {k.removeprefix("activation_"): v for k, v in attributes.items() if k.startswith("activation_")}
    rest = {k: v for k, v in attributes.items() if not k.startswith("activation_")}
    return plain(activation, onnxruntime_gives("FusedMatMul", a, b, **rest), **of_activation)


def gemm_cases() -> Iterator[Case]:
    a, b = real(4, 3), real(3, 5, seed=1)
    for name, parameters in ACTIVATIONS.items():
        given: dict[str, Any] = {"activation": name}
        given |= dict(zip(("activation_alpha", "activation_beta"), parameters))
        yield case(name, "FusedGemm", [a, b, real(5)], given, c=name in ("Relu", "Celu", "ScaledTanh"))
    selu = {"activation": "Selu", "activation_alpha": 1.5, "activation_gamma": 1.1}
    yield case("Selu", "FusedGemm", [a, b], selu)
    relu = {"activation": "Relu"}
    yield case("trans", "FusedGemm", [real(3, 4), real(5, 3, seed=1), real(4, 1)], relu | {"transA": 1, "transB": 1})
    yield case("factors", "FusedGemm", [a, b, real(4, 5)], relu | {"alpha": 0.5, "beta": 0.25})
    yield case("scalar", "FusedGemm", [a, b, real()], relu)
    yield case("no_beta", "FusedGemm", [a, b, real(5) * np.float32(np.inf)], relu | {"beta": 0.0})
    yield case("batch", "FusedGemm", lambda n: [real(n, 3), real(3, 5, seed=1), real(5)], relu, c=True)
    for name, extra in {
        "Relu": {}, "Elu": {"activation_alpha": 0.5}, "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.6},
        "Softmax": {"activation_axis": 0}, "LogSoftmax": {"activation_axis": -1},
        "Selu": {"activation_alpha": 1.5, "activation_gamma": 1.1},
    }.items():  # fmt: skip
        yield case(f"activation-{name}", "FusedMatMulActivation", [real(2, 3, 4), real(5, 4)],
                   {"activation": name, "transB": 1, "alpha": 0.5} | extra, meaning=by_parts)  # fmt: skip
    gelu = lambda x, w, bias=None: gelu_tanh(x @ w + (0 if bias is None else bias))  # noqa: E731
    yield case("fast-gelu", "GemmFastGelu", [real(2, 3, 4), real(4, 5)], meaning=gelu)
    yield case("fast-gelu-bias", "GemmFastGelu", [real(2, 3, 4), real(4, 5), real(5)], meaning=gelu)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return onnxruntime_gives("FastGelu", x)


def gelu_erf(x: np.ndarray) -> np.ndarray:
    return onnxruntime_gives("Gelu", x)


def split(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    left, right = np.split(x + bias, 2, axis=-1)
    return left * gelu_erf(np.ascontiguousarray(right))


def softmax(x: np.ndarray, bias: np.ndarray, *, axis: int = 1, is_inner_broadcast: int) -> np.ndarray:
    total = x + bias
    flat = total.reshape(*total.shape[: axis % x.ndim], -1)
    return plain("Softmax", flat, axis=-1).reshape(total.shape)


def activation_cases() -> Iterator[Case]:
    x, bias = real(3, 4, 8) * 3, real(8, seed=1)
    edges = np.array([-np.inf, -90, -1e-8, -0.0, 0.0, 1e-8, 90, np.inf, np.nan], np.float32)
    for op in ("Gelu", "FastGelu", "QuickGelu"):
        # ONNX Runtime's functions differ from the C library's by some units in the last place.
        yield case(f"{op}-f32", op, [x], c=True)
        yield case(f"{op}-edges", op, [edges[1:-2]])
        yield case(f"{op}-f16", op, [x.astype(np.float16)], tolerance=HALF)
        yield case(f"{op}-batch", op, lambda n: [real(n, n + 1)])
        yield case(f"{op}-empty", op, [x[:0]])
    yield case("QuickGelu-alpha", "QuickGelu", [x], {"alpha": 0.5})
    for op in ("FastGelu", "BiasGelu"):
        yield case(f"{op}-bias", op, [x, bias], c=True)
        yield case(f"{op}-bias-f16", op, [x.astype(np.float16), bias.astype(np.float16)], tolerance=HALF)
        yield case(f"{op}-bias-batch", op, lambda n: [real(n, 2, 8), real(8, seed=1)], c=True)
    add = lambda x, bias, skip: x + bias + skip  # noqa: E731
    yield case("BiasAdd", "BiasAdd", [x, bias, real(3, 4, 8, seed=2)], meaning=add, c=True)
    yield case("BiasAdd-batch", "BiasAdd", lambda n: [real(n, 4, 8), bias, real(n, 4, 8)], meaning=add)
    yield case("BiasSplitGelu", "BiasSplitGelu", [x, bias], meaning=split, c=True)
    yield case("BiasSplitGelu-batch", "BiasSplitGelu", lambda n: [real(n, n, 8), bias], meaning=split)
    scores = real(2, 3, 4, 5)
    for label, shape, inner, axis in (
        ("inner", (2, 1, 1, 5), 1, -1), ("outer", (4, 5), 0, 3), ("whole", (2, 3, 4, 5), 0, 3),
        ("mask", (1, 1, 4, 5), 0, 3),
        ("from_on", (2, 1, 4, 5), 1, 2),
    ):  # fmt: skip
        yield case(f"BiasSoftmax-{label}", "BiasSoftmax", [scores, real(*shape, seed=1)],
                   {"axis": axis, "is_inner_broadcast": inner}, meaning=softmax, c=label == "inner")  # fmt: skip
    yield case("BiasSoftmax-default", "BiasSoftmax", [scores, real(5)], {"is_inner_broadcast": 0}, meaning=softmax)
    yield case("BiasSoftmax-batch", "BiasSoftmax", lambda n: [real(n, 3, n, 5), real(n, 1, 1, 5)],
               {"axis": 3, "is_inner_broadcast": 1}, meaning=softmax)  # fmt: skip


def all_bits(x: np.ndarray) -> np.ndarray:
    return np.full((x.size + 31) // 32, 0xFFFFFFFF, np.uint32)


def dropout_cases() -> Iterator[Case]:
    x, bias, skip = real(3, 5, 8), real(8, seed=1), real(3, 5, 8, seed=2)
    ratio, off = np.array(0.4, np.float32), np.array(False)
    kept = lambda x, bias, skip=0, *_: (x + bias + (0 if skip is None else skip), np.ones(x.shape, bool))  # noqa: E731
    packed = lambda x, bias, skip=0, *_: (kept(x, bias, skip)[0], all_bits(x))  # noqa: E731
    for op, meaning in (("BiasDropout", kept), ("BitmaskBiasDropout", packed)):
        yield case(f"{op}-all", op, [x, bias, skip, ratio, off], outputs=2, constants=[3, 4], meaning=meaning, c=True)
        yield case(f"{op}-bias", op, [x, bias], outputs=2, meaning=meaning)
        yield case(f"{op}-one", op, [x, skip, None, ratio], meaning=lambda *a, m=meaning: m(*a)[0])
        yield case(f"{op}-batch", op, lambda n: [real(n, 5, 8), bias, real(n, 5, 8)], outputs=2, meaning=meaning)
    bits = lambda x, *_: (x, all_bits(x))  # noqa: E731
    yield case("BitmaskDropout", "BitmaskDropout", [x, ratio, off], outputs=2, constants=[1, 2], meaning=bits)
    yield case("BitmaskDropout-one", "BitmaskDropout", [x], meaning=lambda x: x)


CASES = by_name(conv_cases, nhwc_cases, matmul_cases, gemm_cases, activation_cases, dropout_cases)


@pytest.mark.parametrize("name", CASES)
def test_interpreter_agrees(name: str) -> None:
    check(*CASES[name].forms)


def test_compiled_code_agrees(tmp_path: Path) -> None:
    check_c(tmp_path, *compiled(CASES.values()))


def test_a_mask_of_bits_is_the_mask_of_truth_values() -> None:
    """In training mode, where elements are dropped at random: the two operators draw the same from one seed."""
    x, bias, residual = real(5, 13), real(13, seed=1), real(5, 13, seed=2)
    made = []
    for op in ("BiasDropout", "BitmaskBiasDropout"):
        operands = [x, bias, residual, np.array(0.3, np.float32), np.array(True)]
        row = case(op, op, operands, {"seed": 7}, outputs=2, constants=[3, 4])
        made.append(interpreted(*row.forms)[0].values())
    (y, mask), (same, packed) = made
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(y, same)
    np.testing.assert_allclose(y, np.where(mask, (x + bias) / np.float32(0.7), 0) + residual, rtol=1e-5, atol=1e-6)
    bits = np.unpackbits(packed.astype("<u4").view(np.uint8), bitorder="little")
    np.testing.assert_array_equal(bits[: mask.size], mask.reshape(-1))


@pytest.mark.parametrize(("op", "kind", "alpha"), [("f32", np.float32, 0.5), ("i64", np.int64, 3.0)])
def test_sparse_weights_are_multiplied(op: str, kind: type, alpha: float) -> None:
    """A sparse initializer is made dense. ONNX Runtime takes sparse tensors from its own interface only."""
    dense, x = np.zeros((3, 4), kind), np.arange(12).reshape(4, 3).astype(kind)
    dense[0, 1], dense[2, 3] = 5, -2
    places = np.array([1, 11], np.int64)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    values = helper.make_tensor("a", element, [2], dense.reshape(-1)[places])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("p", onnx.TensorProto.INT64, [2], places), [3, 4])
    node = helper.make_node("SparseToDenseMatMul", ["a", "x"], ["y"], domain="com.microsoft", transB=0, alpha=alpha)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", element, ["n", 3])],
                              [onnx.ValueInfoProto(name="y")], sparse_initializer=[sparse])  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = import_model(read_model_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10)))
    np.testing.assert_array_equal(evaluate_graph(made, [x])[0], (dense @ x * kind(alpha)).astype(kind))


REFUSALS: list[tuple[Case, str]] = [
    (
        case("name", "FusedConv", [real(1, 2, 4, 4), real(2, 2, 1, 1)], {"activation": "Gelu"}),
        "'Gelu' is not supported",
    ),
    (case("few", "FusedGemm", [real(2, 2), real(2, 2)], {"activation": "HardSigmoid"}), "takes 2 parameters"),
    (
        case("celu", "FusedGemm", [real(2, 2), real(2, 2)], {"activation": "Celu", "activation_alpha": 0.0}),
        "would divide",
    ),
    (case("rank", "FusedGemm", [real(2, 2, 2), real(2, 2)], {"activation": "Relu"}), "must have 2 axes"),
    (case("halves", "BiasSplitGelu", [real(2, 3), real(3)]), "has no halves"),
    (case("unknown", "NhwcFusedConv", [real(1, 4, 4, 2), real(2, 2, 1, 1)], {"colour": 1}), "`colour` is not one"),
]


@pytest.mark.parametrize(("row", "why"), REFUSALS, ids=[row.id for row, _ in REFUSALS])
def test_refusals_name_what_and_why(row: Case, why: str) -> None:
    check_refused(*row.forms, why)
