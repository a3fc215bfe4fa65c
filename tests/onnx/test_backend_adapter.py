"""The onnx.backend interface: how inputs are given, what comes back, and models that need their shape inputs known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.base import Backend, BackendRep

import compiler
from compiler import onnx_backend
from compiler.errors import CompileError, UnsupportedError, UsageError

DEVICES = pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
QUICK = {"opt": "-O1"}


def options(device: str) -> dict[str, str]:
    return QUICK if device == "CPU" else {}


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[str], opset: int = 18
) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", inputs, declared)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def reshaping() -> onnx.ModelProto:
    """y = reshape(x, shape), where the shape is an input."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [6]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
    ]
    return model_of([helper.make_node("Reshape", ["x", "shape"], ["y"])], inputs, ["y"])


def squeezing() -> onnx.ModelProto:
    """y = squeeze(reshape(x, shape)), where the shape is an input: the rank of y depends on it."""
    inputs = list(reshaping().graph.input)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["z"]), helper.make_node("Squeeze", ["z"], ["y"])]
    return model_of(nodes, inputs, ["y"])


def two_outputs() -> onnx.ModelProto:
    """total = a + b, and difference = a - b."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "ab"]
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return model_of(nodes, inputs, ["total", "difference"])


@DEVICES
def test_inputs_by_list_and_by_name(device: str) -> None:
    prepared = onnx_backend.prepare(two_outputs(), device, **options(device))
    a, b = np.array([1, 2], np.float32), np.array([5, 3], np.float32)
    by_list, by_name = prepared.run([a, b]), prepared.run({"b": b, "a": a})
    for outputs in (by_list, by_name):
        np.testing.assert_array_equal(outputs.total, a + b)
        np.testing.assert_array_equal(outputs[1], a - b)
        np.testing.assert_array_equal(outputs["difference"], a - b)
    assert prepared.run([np.zeros(7, np.float32)] * 2).total.shape == (7,)


@DEVICES
def test_shape_inputs_become_constants(device: str) -> None:
    prepared = onnx_backend.prepare(squeezing(), device, **options(device))
    x = np.arange(6, dtype=np.float32)
    for shape in ([2, 3], [1, 6], [2, 3]):
        (y,) = prepared.run([x, np.array(shape)])
        np.testing.assert_array_equal(y, x.reshape(shape).squeeze())
    assert prepared.specialised == ("shape",)


@DEVICES
def test_shape_inputs_need_not_become_constants(device: str) -> None:
    prepared = onnx_backend.prepare(reshaping(), device, **options(device))
    x = np.arange(6, dtype=np.float32)
    for shape in ([2, 3], [3, 2], [-1, 6]):
        np.testing.assert_array_equal(prepared.run([x, np.array(shape)])[0], x.reshape(shape))
    assert prepared.specialised == ()


def looping() -> onnx.ModelProto:
    """y = x[:i + 1] for each step i: a loop that must be unrolled, for which its number of steps must be known."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int64 steps, float[4] x, int64 unused) => (y) {
        zero = Constant <value = int64[1] {0}> ()
        sum = Constant <value = float {0.0}> ()
        y = Loop <body = body (int64 i, bool going, float total) => (on, next) {
            one = Constant <value = int64[1] {1}> ()
            end = Add (i, one)
            part = Slice (x, zero, end)
            added = ReduceSum <keepdims = 0> (part)
            next = Add (total, added)
            on = Identity (going)
        }> (steps, , sum)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


@DEVICES
def test_only_what_is_asked_for_becomes_constant(device: str) -> None:
    prepared = onnx_backend.prepare(looping(), device, **options(device))
    x = np.array([1, 2, 3, 4], np.float32)
    for steps, total in ((2, 4), (3, 10)):
        assert prepared.run([np.array(steps), x, np.array(0)]).y == total
    assert "x" not in prepared.specialised and "unused" not in prepared.specialised


def test_a_refusal_names_the_inputs_that_it_needs() -> None:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [6]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("other", TensorProto.FLOAT, [2, 2]),
    ]
    nodes = [
        helper.make_node("Shape", ["other"], ["two"], start=0, end=1),
        helper.make_node("Concat", ["rows", "two"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["z"]),
        helper.make_node("Squeeze", ["z"], ["y"]),
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2),
    ]
    with pytest.raises(UnsupportedError) as caught:
        compiler.load(model_of(nodes[:4], inputs, ["y"]))
    assert caught.value.needs == ("rows",) and "input rows" in str(caught.value)
    with pytest.raises(UnsupportedError) as caught:
        compiler.load(model_of(nodes[4:], inputs, ["y"]))
    assert caught.value.needs == ()


@DEVICES
def test_data_is_no_parameter(device: str) -> None:
    """An input of rank 2 is never made a constant, whatever is asked."""
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1, 2])
    nodes = [
        helper.make_node("Reshape", ["x", "two"], ["shape"]),
        helper.make_node("Reshape", ["data", "shape"], ["z"]),
        helper.make_node("Squeeze", ["z"], ["y"]),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [2, 2])
    model = model_of(nodes, [x, data], ["y"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "two"))
    with pytest.raises(UnsupportedError, match="the rank depends on"):
        onnx_backend.prepare(model, device, **options(device))


def test_load_takes_constants() -> None:
    graph = compiler.load(reshaping(), constants={"shape": np.array([3, 2])}).graph
    assert [v.name for v in graph.inputs] == ["x"]
    assert graph.outputs[0].shape == (3, 2)
    with pytest.raises(UsageError, match="no input 'shap'"):
        compiler.load(reshaping(), constants={"shap": np.array([3, 2])})
    with pytest.raises(UsageError, match="its constant is"):
        compiler.load(reshaping(), constants={"shape": np.array([3, 2], np.int32)})
    with pytest.raises(UsageError, match="its constant is"):
        compiler.load(reshaping(), constants={"shape": np.array([3, 2, 1])})


@DEVICES
def test_run_node(device: str) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    x = np.array([[0, 1, 2]], np.float32)
    (y,) = onnx_backend.run_node(node, [x], device, **options(device))
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(), rtol=1e-6)


@DEVICES
def test_run_model_and_wrong_inputs(device: str) -> None:
    x = np.ones(3, np.float32)
    assert onnx_backend.run_model(two_outputs(), [x, x], device, **options(device)).total.tolist() == [2, 2, 2]
    prepared = onnx_backend.prepare(two_outputs(), device, **options(device))
    for wrong in ([x], [x, x.astype(np.float64)], [x, x, x]):
        with pytest.raises(UsageError):
            prepared.run(wrong)


def test_devices() -> None:
    assert onnx_backend.supports_device("CPU") and onnx_backend.supports_device("CPU:0")
    assert onnx_backend.supports_device("REFERENCE") and not onnx_backend.supports_device("CUDA")
    with pytest.raises(UsageError, match="no device 'CUDA'"):
        onnx_backend.prepare(two_outputs(), "CUDA")


def test_it_is_a_backend_of_onnx() -> None:
    assert issubclass(onnx_backend.SesameBackend, Backend)
    assert isinstance(onnx_backend.prepare(two_outputs(), "REFERENCE"), BackendRep)


def test_what_no_input_helps_is_refused_at_once_or_when_run() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    unknown = model_of([helper.make_node("Frobnicate", ["x"], ["y"], domain="my.ops")], [x], ["y"])
    with pytest.raises(UnsupportedError):
        onnx_backend.prepare(unknown, "REFERENCE").run([np.zeros((2,), np.float32)])
    big = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
    unknown = model_of([helper.make_node("Frobnicate", ["x"], ["y"], domain="my.ops")], [big], ["y"])
    with pytest.raises(CompileError):
        onnx_backend.prepare(unknown, "REFERENCE").run([np.zeros((2, 2), np.float32)])


@pytest.mark.parametrize(
    ("dtype", "is_parameter"), [("INT64", True), ("BOOL", True), ("FLOAT", False), ("STRING", False)]
)
def test_floats_and_texts_never_become_constants(
    dtype: str, is_parameter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks for them: a computation on them would be folded away when compiling."""
    x = helper.make_tensor_value_info("x", TensorProto.DataType.Value(dtype), [1])
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], [x], ["y"])
    refusal = UnsupportedError("E0402", "asked for")
    refusal.needs = ("x",)

    def refuse(model: object, device: str, options: object, constants: dict[str, np.ndarray]) -> None:
        raise refusal

    monkeypatch.setattr(onnx_backend, "_prepare", refuse)
    if is_parameter:
        assert onnx_backend.prepare(model, "REFERENCE")._asked == {"x"}
    else:
        with pytest.raises(UnsupportedError, match="asked for"):
            onnx_backend.prepare(model, "REFERENCE")
