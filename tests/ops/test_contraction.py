"""Contractions beyond their examples: adjointness, symbolic padding, products of many operands, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ir.ops  # noqa: F401 - registers the ops
from compiler.errors import CompileError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph
from ir.op import OPS, OpError, parse_type
from ir.ops.contraction import parse_equation


def import_node(
    op: str,
    shapes: dict[str, tuple[Any, ...]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 20,
    **attributes: Any,
) -> Graph:
    """The graph of one ONNX node on f32 inputs of these shapes (names are symbolic dims), then constants."""
    constants = constants or {}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    node = helper.make_node(op, [*shapes, *constants], ["y"], **attributes)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "g", inputs, [out], weights)
    return import_model(read_model_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("pad", [(0, 0), (1, 2)])
def test_transposed_convolution_is_the_adjoint_of_convolution(stride: int, dilation: int, pad: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 11)), rng.standard_normal((6, 2, 3))
    conv = OPS["conv"](stride=(stride,), pad=pad, dilation=(dilation,), groups=2)
    y = conv.reference(x, w)
    z = rng.standard_normal(y.shape)
    rest = (11 + sum(pad) - 2 * dilation - 1) % stride
    back = OPS["conv_transpose"](stride=(stride,), pad=pad, dilation=(dilation,), extra=(rest,), groups=2)
    assert np.vdot(y, z) == pytest.approx(np.vdot(x, back.reference(z, w)))


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding_holds_for_every_value_of_a_symbolic_size(op: str, auto_pad: str) -> None:
    w = {"w": np.ones((1, 1, 3), np.float32)} if op == "Conv" else {}
    attributes = {"kernel_shape": [3], "strides": [2], "auto_pad": auto_pad}
    symbolic = import_node(op, {"x": (1, 1, "L")}, w, **attributes)
    for size in range(1, 9):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, size) - 3
        (y,) = evaluate_graph(symbolic, [x])
        (expected,) = evaluate_graph(import_node(op, {"x": x.shape}, w, **attributes), [x])
        assert y.shape == (1, 1, -(-size // 2))
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("rank", "expected"), [(1, (4,)), (2, (2, 4)), (3, (1, 2, 4))])
def test_einsum_of_many_operands(rank: int, expected: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    shapes = [(1, 2, 3)[3 - rank :], (3, 5), (5, 4)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    equation = "...j,jk,kl->...l"
    graph = import_node("Einsum", {f"x{i}": shape for i, shape in enumerate(shapes)}, equation=equation)
    (y,) = evaluate_graph(graph, arrays)
    assert y.shape == expected
    np.testing.assert_allclose(y, np.einsum(equation, *arrays), rtol=1e-5, atol=1e-6)
    assert len(list(graph.nodes("einsum"))) == 2


def test_einsum_without_an_arrow_sums_over_what_occurs_twice() -> None:
    assert parse_equation("ij,jk", [2, 2]) == (["ij", "jk"], "ik")
    assert parse_equation("...ba", [3]) == (["0ba"], "0ab")


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [("ij,jk->ik", [2]), ("ij->i", [3]), ("ij->ii", [2]), ("i1->i", [2]), ("...->", [11])],
)
def test_einsum_refuses(equation: str, ranks: list[int]) -> None:
    with pytest.raises(OpError, match="einsum"):
        parse_equation(equation, ranks)


@pytest.mark.parametrize(
    ("op", "attributes", "types", "reason"),
    [
        ("matmul", {}, ["f32[2,3]", "f32[4,5]"], "axis summed over"),
        ("matmul", {}, ["f32[2,3]", "i32[3,5]"], "types"),
        ("matmul", {}, ["f32[]", "f32[3]"], "at least one axis"),
        ("conv", {"stride": (1,), "pad": (0, 0), "dilation": (1,)}, ["f32[1,3,8]", "f32[2,4,3]"], "3 channels"),
        ("conv", {"stride": (1,), "pad": (0, 0), "dilation": (1,)}, ["f32[1,3,2]", "f32[2,3,3]"], "does not fit"),
        ("conv", {"stride": (0,), "pad": (0, 0), "dilation": (1,)}, ["f32[1,3,8]", "f32[2,3,3]"], "positive"),
        ("determinant", {}, ["f32[2,3]"], "square"),
    ],
)
def test_type_rules_refuse(op: str, attributes: dict[str, Any], types: list[str], reason: str) -> None:
    with pytest.raises(OpError, match=reason):
        OPS[op](**attributes).infer(*(parse_type(text) for text in types))


def test_kernel_shape_must_be_that_of_the_weights() -> None:
    with pytest.raises(CompileError, match="kernel_shape"):
        import_node("Conv", {"x": (1, 1, 9)}, {"w": np.ones((1, 1, 3), np.float32)}, kernel_shape=[2])
