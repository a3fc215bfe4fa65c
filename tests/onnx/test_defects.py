"""What random models of one node found (`tests/fuzz/importers`), each cut down to the least that showed it."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import CompileError, UnsupportedError
from tests.ops.single_node import agrees, node_model, run

ML = "ai.onnx.ml"


def _f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_erf_and_logarithms_of_integers_cut_off_what_is_behind_the_point() -> None:
    assert run("Erf", [np.array([-4, 0, 1, 6], np.int32)], opset=9)[0].tolist() == [-1, 0, 0, 1]
    assert run("ReduceLogSum", [np.array([3, 18], np.int64)], opset=11)[0].tolist() == [3]
    assert run("ReduceLogSumExp", [np.array([3, 3, 3], np.int32)], opset=11)[0].tolist() == [4]


def test_an_integer_is_binarized_by_the_threshold_and_not_by_what_an_integer_holds_of_it() -> None:
    for x in (np.array([-1, 0, 1], np.int32), np.array([-1, 0, 1], np.int64)):
        assert run("Binarizer", [x], domain=ML, threshold=-0.5)[0].tolist() == [0, 1, 1]
        assert run("Binarizer", [x], domain=ML, threshold=1e30)[0].tolist() == [0, 0, 0]
        assert run("Binarizer", [x], domain=ML, threshold=-1e30)[0].tolist() == [1, 1, 1]


def test_a_lone_score_is_left_as_it_is() -> None:
    """As ONNX Runtime does: only PROBIT applies to one score."""
    x = np.array([[-1.5], [2.0]], np.float32)
    for transform in ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"):
        agrees("LinearRegressor", [x], domain=ML, coefficients=[2.0], intercepts=[0.5], post_transform=transform)


def test_statistics_of_a_norm_have_the_type_that_is_said() -> None:
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    y, mean, deviation = run("LayerNormalization", [x, np.ones(3)], 3, opset=17)
    assert (y.dtype, mean.dtype, deviation.dtype) == (np.float64, np.float32, np.float32)


def test_values_of_attention_may_have_a_type_of_their_own() -> None:
    q, k = (np.ones((1, 1, n, 2), np.float16) for n in (2, 3))
    v = np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1)
    y, key, value = run("Attention", [q, k, v], 3, opset=23)
    assert (y.dtype, key.dtype, value.dtype) == (np.float16, np.float16, np.float32)
    assert y.reshape(-1).tolist() == [1, 1]


def test_the_state_of_linear_attention_may_have_a_type_of_its_own() -> None:
    x, state = np.ones((1, 2, 2), np.float16), np.zeros((1, 1, 2, 2), np.float32)
    attributes: dict[str, Any] = {"update_rule": "linear", "q_num_heads": 1, "kv_num_heads": 1}
    y, last = run("LinearAttention", [x, x, x, state], 2, opset=27, **attributes)
    assert (y.dtype, last.dtype) == (np.float16, np.float32)


def test_a_range_of_16_bits_is_added_up_in_32() -> None:
    bounds = [np.array(v, np.float16) for v in (0, 4, 0.1)]
    (y,) = run("Range", bounds, opset=27, constants=(0, 1, 2), stash_type=1)
    expected = (np.arange(len(y), dtype=np.float32) * np.float32(bounds[2])).astype(np.float16)
    assert y.dtype == np.float16
    assert np.array_equal(y, expected)


def test_the_only_position_of_an_axis_is_no_quotient_of_zeros() -> None:
    theta = np.array([[[2, 0, 0], [0, 3, 0]]], np.float32)
    (y,) = run("AffineGrid", [theta, np.array([1, 1, 1, 2])], opset=20, constants=(1,), align_corners=1)
    assert y.tolist() == [[[[-2, -3], [2, -3]]]]


def test_resized_integers_are_rounded_once() -> None:
    """Rounding after each axis made 0.625 (between 0 and 1, then 1 and 1) into 1, and 0.375 into 0."""
    x = np.array([[[[0, 1], [1, 1]]]], np.int32)
    scales = _f32(1, 1, 2, 2)
    options: dict[str, Any] = {"opset": 19, "constants": (2,), "mode": "linear"}
    exact = run("Resize", [x.astype(np.float64), None, scales], **options)[0]
    assert np.array_equal(run("Resize", [x, None, scales], **options)[0], np.round(exact))


def test_products_of_quantized_floats() -> None:
    a = np.array([[1, 2]]).astype(ml_dtypes.float8_e4m3fn)
    b = np.array([[3], [4]]).astype(ml_dtypes.float8_e4m3fn)
    zero = np.zeros((), a.dtype)
    scale = np.array(0.5, np.float32)
    (y,) = run("QLinearMatMul", [a, scale, zero, b, scale, zero, scale, zero], opset=21)
    assert y.dtype == a.dtype
    assert y.astype(np.float32).tolist() == [[5.5]]


def test_an_image_of_complex_numbers_is_sampled() -> None:
    x = np.array([[[[1 + 2j, 3 - 1j]]]], np.complex64)
    grid = np.array([[[[-1, 0], [0, 0]]]], np.float32)
    (y,) = run("GridSample", [x, grid], opset=22, align_corners=1)
    assert y.reshape(-1).tolist() == [1 + 2j, 2 + 0.5j]


def test_texts_of_infinities_saturate_as_the_numbers_do() -> None:
    x, like = np.array(["INF", "-INF", "1e9"], object), np.zeros(1, ml_dtypes.float8_e4m3fnuz)
    assert run("CastLike", [x, like], opset=19)[0].astype(np.float32).tolist() == [240, -240, 240]


def test_strings_of_constants_are_texts() -> None:
    """They were bytes, which is what the file holds."""
    value = helper.make_tensor("v", TensorProto.STRING, [2], [b"a", "é".encode()])
    assert run("Constant", [], value=value)[0].tolist() == ["a", "é"]
    padded = run("Pad", [np.array(["x"], object), np.array([1, 0]), np.array("é", object)], constants=(1,), opset=21)
    assert padded[0].tolist() == ["é", "x"]


def test_what_is_not_zero_of_complex_numbers_and_strings() -> None:
    assert run("NonZero", [np.array([0, 1j, 2], np.complex64)])[0].tolist() == [[1, 2]]
    assert run("NonZero", [np.array(["a", "", "b"], object)])[0].tolist() == [[0, 2]]


def test_distinct_complex_numbers_are_ordered_by_their_real_parts() -> None:
    x = np.array([2, 1 + 1j, 2, 1], np.complex64)
    y, first, inverse, counts = run("Unique", [x], 4)
    assert y.tolist() == [1, 1 + 1j, 2]
    assert (first.tolist(), inverse.tolist(), counts.tolist()) == ([3, 1, 0], [2, 1, 2, 0], [1, 1, 2])


def test_a_slice_of_an_empty_axis_from_its_end_is_empty() -> None:
    x = np.zeros((2, 0), np.float32)
    bounds = [np.array(v) for v in ([-1, 1], [0, -5], [1, 0], [1, -1])]
    assert run("Slice", [x, *bounds], constants=(1, 2, 3, 4))[0].shape == (2, 0)


def test_a_lone_string_is_a_tensor() -> None:
    """NumPy gives an element of an object array for a tensor of rank 0, which is a text and no array."""
    assert run("GatherND", [np.array(["a", "b"], object), np.array([1])])[0].tolist() == "b"


def test_the_oldest_resize_takes_the_element_behind_where_it_shrinks() -> None:
    x = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    agrees("Resize", [x, _f32(1.0, 0.6)], opset=10, constants=(1,))
    agrees("Resize", [x, _f32(1.5, 0.6)], opset=10, constants=(1,))


def test_what_lies_outside_of_a_cropped_image_fits_its_type() -> None:
    options: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize"}
    x, roi, scales = np.array([[7, 9]], np.uint8), _f32(0, 0.5, 1, 2), _f32(1, 2)
    (y,) = run("Resize", [x, roi, scales], opset=19, constants=(1, 2), extrapolation_value=-1.5, **options)
    assert y.tolist() == [[7, 9, 0, 0]]


def test_no_output_has_the_type_of_a_block_scale() -> None:
    scale = np.array(0.5, ml_dtypes.float8_e8m0fnu)
    with pytest.raises(UnsupportedError, match="`output_dtype` must be given"):
        run("DequantizeLinear", [np.array([3], np.int8), scale], opset=24)
    (y,) = run("DequantizeLinear", [np.array([3], np.int8), scale], opset=24, output_dtype=TensorProto.FLOAT)
    assert y.tolist() == [1.5]


@pytest.mark.parametrize("dtype", [ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn])
def test_numbers_of_6_bits(dtype: type) -> None:
    """From a file, where four lie in three bytes, through a conversion and back."""
    x = np.array([0.25, -1.5, 3, 7, 99]).astype(dtype)
    tensor = numpy_helper.from_array(x, "value")
    assert len(tensor.raw_data) == 4
    (y,) = run("Constant", [], opset=28, value=tensor)
    assert (y.dtype, y.tolist()) == (x.dtype, x.tolist())
    code = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    assert run("Cast", [x.astype(np.float32)], opset=28, to=code)[0].tolist() == x.tolist()


def test_complex_numbers_are_refused_for_c_where_no_op_touches_them(tmp_path) -> None:
    """They reached the emitter, which has no word for them."""
    from compiler.driver import compile

    for op in ("Identity", "Shape"):
        model = node_model(op, [np.zeros(2, np.complex64)])
        with pytest.raises(CompileError, match="generated C has no type c64"):
            compile(model, "c", out=tmp_path / op)


def test_a_number_of_4_bits_goes_into_c(tmp_path) -> None:
    """One of rank 0 became a NumPy scalar, which has no address."""
    from compiler.driver import compile

    x = np.array(1.5, ml_dtypes.float4_e2m1fn)
    artifact = compile(node_model("Reshape", [x, np.array([1])], opset=23, constants=(1,)), "c", out=tmp_path / "m")
    (y,) = artifact.load(opt="-O0").run({"x0": x}).values()
    assert y.tolist() == [1.5]
