"""What examples of elementwise ops cannot show: symbolic sizes, conversions value by value, and old opsets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import ir.ops  # noqa: F401
from compiler.errors import UnsupportedError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir import types as t
from ir.build import Builder
from ir.dims import Dim, Undecided, evaluate, symbol
from ir.evaluate import evaluate_graph
from ir.functions import FUNCTIONS, convert
from ir.graph import Graph, Value
from ir.symbolic import EXACT, symbolic_map, truncated_quotient
from ir.types import TensorType

H, W = symbol("H"), symbol("W")


def at(size: Any, h: int, w: int = 1) -> Any:
    """A symbolic size at H = h, W = w; a number as it is."""
    return evaluate(size, {"H": h, "W": w}) if isinstance(size, Dim) else size


def towards_zero(a: int, b: int) -> int:
    return math.trunc(a / b)


class TestSymbolicSizes:
    """Shape arithmetic folds to sizes that hold for every value of the symbols."""

    def test_integer_division_rounds_towards_zero_whatever_the_sign(self) -> None:
        numerators: list[Callable[[Any], Any]] = [lambda h: h - 3, lambda h: 2 - 5 * h, lambda h: h, lambda h: -h]
        for numerator, divisor in itertools.product(numerators, (1, 2, 3, -2)):
            quotient = truncated_quotient(numerator(H), divisor)
            for h in range(12):
                assert at(quotient, h) == towards_zero(numerator(h), divisor)

    def test_a_division_of_non_negative_sizes_is_a_floor_division(self) -> None:
        assert truncated_quotient(H, 2) == H // 2
        assert truncated_quotient(H * W, W) == H

    def test_a_divisor_of_unknown_sign_is_undecided(self) -> None:
        with pytest.raises(Undecided):
            truncated_quotient(H, W - 4)

    @pytest.mark.parametrize("function", ["add", "sub", "mul", "min", "max", "mod", "fmod", "truncdiv", "floordiv"])
    def test_functions_of_two_sizes_agree_with_their_meaning_on_numbers(self, function: str) -> None:
        exact, numpy = EXACT[function], FUNCTIONS["div" if function == "truncdiv" else function].numpy
        for left, right in itertools.product((H, H - 4, 3), (2, 3, W + 1)):
            size = exact(left, right)
            for h, w in itertools.product(range(9), range(4)):
                assert at(size, h, w) == int(numpy(np.int64(at(left, h, w)), np.int64(at(right, h, w))))

    @pytest.mark.parametrize("function", ["neg", "abs"])
    def test_functions_of_one_size_agree_with_their_meaning_on_numbers(self, function: str) -> None:
        size = EXACT[function](H - 4)
        assert [at(size, h) for h in range(9)] == [int(FUNCTIONS[function].numpy(np.int64(h - 4))) for h in range(9)]

    def test_division_of_unknown_type_folds_only_where_it_comes_out_even(self) -> None:
        sizes = np.array([4 * H], dtype=object)
        assert symbolic_map("div", sizes, np.array([2])).tolist() == [2 * H]
        with pytest.raises(Undecided):
            symbolic_map("div", np.array([H], dtype=object), np.array([2]))
        assert symbolic_map("div", np.array([H], dtype=object), np.array([2.0]))[0] == H / 2

    def test_floats_that_are_no_simple_fraction_are_undecided(self) -> None:
        with pytest.raises(Undecided):
            symbolic_map("mul", np.array([H], dtype=object), np.array([0.1], np.float32))

    def test_division_by_zero_is_undecided(self) -> None:
        with pytest.raises(Undecided):
            symbolic_map("truncdiv", np.array([H], dtype=object), np.array([0]))


class TestShapeChains:
    """The chains that exporters write around Reshape and Resize, on the builder."""

    @pytest.fixture
    def b(self) -> Builder:
        graph = Graph()
        graph.add_input("x", TensorType(t.f32, (H, W)))
        return Builder(graph)

    def content(self, value: Value) -> list[Any]:
        assert value.content is not None
        return value.content.reshape(-1).tolist()

    def test_scaling_as_floats_and_back_keeps_the_size(self, b: Builder) -> None:
        scaled = b.cast(b.dims([H, W]), to=t.f32) * 2.0
        assert self.content(b.cast(b.floor(scaled), to=t.i64)) == [2 * H, 2 * W]

    def test_halving_as_floats_rounds_like_the_op(self, b: Builder) -> None:
        half = b.cast(b.dims([H]), to=t.f32) * 0.5
        assert self.content(b.cast(b.floor(half), to=t.i64)) == [H // 2]
        assert self.content(b.cast(b.ceil(half), to=t.i64)) == [(H + 1) // 2]
        assert self.content(b.cast(half, to=t.i64)) == [H // 2]

    def test_a_wildcard_is_replaced_where_the_comparison_is_decided(self, b: Builder) -> None:
        wanted = b.dims([H, -1, 3])
        chosen = b.where(b.equal(wanted, -1), b.dims([1, W, 1]), wanted)
        assert self.content(chosen) == [H, W, 3]

    def test_a_comparison_that_depends_on_the_size_has_no_content(self, b: Builder) -> None:
        assert b.equal(b.dims([H]), 4).content is None

    def test_bounds_decide_comparisons(self, b: Builder) -> None:
        b.graph.bounds = {"H": (5, 9)}
        assert self.content(b.equal(b.dims([H]), 4)) == [False]
        assert self.content(b.max(b.dims([H]), 4)) == [H]

    def test_the_sign_correction_of_a_floor_division_folds(self, b: Builder) -> None:
        size = b.dims([H * 6])
        assert self.content(b.mod(size, 3)) == [0]
        assert self.content(b.less(size, 0)) == [False]

    def test_clip_of_sizes(self, b: Builder) -> None:
        clipped = b.clip(b.dims([H + 2]), b.const(1), None)
        assert self.content(clipped) == [H + 2]


class TestConvert:
    """`convert`, which is what Cast means, against the tables of the ONNX specification."""

    @pytest.mark.parametrize("saturate", [True, False])
    @pytest.mark.parametrize("name", ["f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz"])
    def test_float8_beyond_the_range(self, name: str, saturate: bool) -> None:
        to = t.DTYPES[name]
        greatest = float(ml_dtypes.finfo(to.numpy).max)
        got = convert(np.array([np.inf, -np.inf, 1e6, -1e6, np.nan, greatest], np.float32), to, saturate)
        values = got.astype(np.float32)
        if saturate:
            assert values[:4].tolist() == [greatest, -greatest, greatest, -greatest]
        elif name == "f8e5m2":
            assert values[:4].tolist() == [np.inf, -np.inf, np.inf, -np.inf]
        else:
            assert np.isnan(values[:4]).all()
        assert np.isnan(values[4])
        assert values[5] == greatest

    @pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
    def test_float8_e8m0_rounds_to_a_power_of_two(self, round_mode: str) -> None:
        x = np.concatenate([2.0 ** np.arange(-20, 20, 0.125), 1.5 * 2.0 ** np.arange(-20, 20)]).astype(np.float32)
        got = convert(x, t.f8e8m0, True, round_mode).astype(np.float64)
        below, above = 2.0 ** np.floor(np.log2(x.astype(np.float64))), 2.0 ** np.ceil(np.log2(x.astype(np.float64)))
        nearest = np.where(x >= 1.5 * below, above, below)
        assert got.tolist() == {"up": above, "down": below, "nearest": nearest}[round_mode].tolist()

    def test_integers_keep_their_low_bits(self) -> None:
        x = np.array([200, -1, 300, 1 << 33], np.int64)
        assert convert(x, t.i8).tolist() == [-56, -1, 44, 0]
        assert convert(x, t.u16).tolist() == [200, 65535, 300, 0]

    def test_truth_values(self) -> None:
        assert convert(np.array([0.0, -0.0, np.nan, 1e-30], np.float32), t.bool_).tolist() == [False, False, True, True]
        assert convert(np.array([True, False]), t.bf16).astype(np.float32).tolist() == [1.0, 0.0]

    def test_strings(self) -> None:
        texts = np.array(["3.5", "1E8", "-INF", "NaN", "+inf"], dtype=object)
        values = convert(texts, t.f32)
        assert values.dtype == np.float32
        assert values[[0, 1, 2, 4]].tolist() == [3.5, 1e8, -np.inf, np.inf]
        assert np.isnan(values[3])
        assert convert(np.array(["7", "-12"], dtype=object), t.i64).tolist() == [7, -12]
        assert convert(np.array([0.5, 3.0], np.float32), t.string).tolist() == ["0.5", "3.0"]
        with pytest.raises(ValueError):
            convert(np.array(["seven"], dtype=object), t.f32)


def run(
    op_type: str,
    *inputs: np.ndarray,
    opset: int = 21,
    constants: tuple[int, ...] = (),
    outputs: int = 1,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """One ONNX node on the graph interpreter; inputs at the positions in `constants` are initializers."""
    names = [f"x{i}" for i in range(len(inputs))]
    tensors = [onnx.numpy_helper.from_array(x, n) for x, n in zip(inputs, names)]
    infos = [helper.make_tensor_value_info(n, p.data_type, x.shape) for n, p, x in zip(names, tensors, inputs)]
    results = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, results, **attributes)],
        "g",
        [info for i, info in enumerate(infos) if i not in constants],
        [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in results],
        [tensors[i] for i in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    imported = import_model(read_model_proto(model))
    return evaluate_graph(imported, [x for i, x in enumerate(inputs) if i not in constants])


class TestOperators:
    """Meanings that changed between opsets, and attributes."""

    def test_old_broadcasting_pairs_the_second_operand_with_an_axis(self) -> None:
        a, c = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([10, 20, 30], np.float32)
        (y,) = run("Add", a, c, opset=6, broadcast=1, axis=1)
        assert np.array_equal(y, a + c[:, None])

    def test_old_broadcasting_pairs_the_last_axes_by_default(self) -> None:
        a, c = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([10, 20, 30], np.float32)
        assert np.array_equal(run("Mul", a, c, opset=6, broadcast=1)[0], a * c)

    def test_old_broadcasting_refuses_an_operand_that_does_not_fit(self) -> None:
        with pytest.raises(UnsupportedError, match="does not fit at axis 2"):
            run("Add", np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), np.float32), opset=6, broadcast=1, axis=2)

    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    def test_softmax_before_opset_13_is_over_all_later_axes(self, axis: int) -> None:
        x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
        flat = x.reshape(math.prod(x.shape[: axis % 3]), -1)
        e = np.exp(flat - flat.max(1, keepdims=True))
        want = (e / e.sum(1, keepdims=True)).reshape(x.shape)
        np.testing.assert_allclose(run("Softmax", x, opset=11, axis=axis)[0], want, rtol=1e-6)
        np.testing.assert_allclose(run("LogSoftmax", x, opset=11, axis=axis)[0], np.log(want), rtol=1e-5, atol=1e-6)

    def test_hardmax_before_opset_13_has_one_winner_per_flat_row(self) -> None:
        x = np.random.default_rng(0).integers(0, 3, (2, 3, 4)).astype(np.float32)
        want = np.zeros((2, 12), np.float32)
        want[np.arange(2), x.reshape(2, 12).argmax(1)] = 1
        assert np.array_equal(run("Hardmax", x, opset=11, axis=1)[0], want.reshape(x.shape))

    def test_prelu_before_opset_7_has_a_slope_per_channel(self) -> None:
        x, slope = -np.ones((2, 3, 4, 5), np.float32), np.array([1, 2, 3], np.float32)
        assert np.array_equal(run("PRelu", x, slope, opset=6)[0], x * slope[:, None, None])

    def test_clip_bounds_as_attributes_and_as_inputs(self) -> None:
        x = np.array([-2, np.nan, 0.25, 9], np.float32)
        old = run("Clip", x, opset=6, min=0.0, max=1.0)[0]
        new = run("Clip", x, np.array(0, np.float32), np.array([1], np.float32))[0]
        assert np.array_equal(old, np.array([0, np.nan, 0.25, 1], np.float32), equal_nan=True)
        assert np.array_equal(old, new, equal_nan=True)

    def test_pow_has_the_type_of_its_base(self) -> None:
        (y,) = run("Pow", np.array([2, 3], np.int32), np.array([0.5, 2.0], np.float32))
        assert y.dtype == np.int32
        assert y.tolist() == [1, 9]

    def test_extremes_of_many_operands_keep_nan(self) -> None:
        rows = [np.array([1, np.nan, 3], np.float32), np.array([[2], [0]], np.float32), np.array([2], np.float32)]
        assert np.array_equal(run("Max", *rows)[0], np.array([[2, np.nan, 3], [2, np.nan, 3]]), equal_nan=True)
        assert np.array_equal(run("Min", *rows)[0], np.array([[1, np.nan, 2], [0, np.nan, 0]]), equal_nan=True)

    def test_shifts_beyond_the_width_leave_the_sign(self) -> None:
        a, by = np.array([-8, -8, 8, -8], np.int32), np.array([1, 40, 32, -1], np.int32)
        assert run("BitShift", a, by, opset=28, direction="RIGHT")[0].tolist() == [-4, -1, 0, -1]
        assert run("BitShift", a, by, opset=28, direction="LEFT")[0].tolist() == [-16, 0, 0, 0]

    @pytest.mark.parametrize(("opset", "mask_dtype"), [(7, np.float32), (13, np.bool_)])
    def test_dropout_keeps_everything(self, opset: int, mask_dtype: Any) -> None:
        x = np.ones((2, 3), np.float32)
        y, mask = run("Dropout", x, opset=opset, outputs=2)
        assert np.array_equal(y, x)
        assert mask.dtype == mask_dtype
        assert mask.all()

    def test_dropout_in_training_scales_what_it_keeps(self) -> None:
        x, on = np.ones((20, 30), np.float32), np.array(True)
        y, mask = run("Dropout", x, np.array(0.5, np.float32), on, opset=13, constants=(1, 2), outputs=2)
        assert np.array_equal(y, np.where(mask, np.float32(2), np.float32(0)))
        assert 0 < mask.sum() < mask.size
        assert np.array_equal(run("Dropout", x, np.array(0, np.float32), on, opset=13, constants=(1, 2))[0], x)

    def test_strings_compare(self) -> None:
        a, c = np.array(["a", "b"], dtype=object), np.array(["a", "c"], dtype=object)
        assert run("Equal", a, c)[0].tolist() == [True, False]

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    @pytest.mark.parametrize("op_type", ["Elu", "Selu", "Softplus", "Mish", "Gelu", "HardSwish", "LogSoftmax"])
    def test_narrow_floats_round_once(self, op_type: str, dtype: Any) -> None:
        x = np.linspace(-6, 6, 97).astype(dtype).reshape(1, -1)
        (y,) = run(op_type, x, opset=22)
        (exact,) = run(op_type, x.astype(np.float64), opset=22)
        assert y.dtype == dtype
        # Half a step, and a little: the f32 result may lie on the other side of a midpoint of two narrow floats.
        step = np.abs(exact) * float(ml_dtypes.finfo(dtype).eps)
        assert (np.abs(y.astype(np.float64) - exact) <= step * 0.51 + 1e-7).all()
