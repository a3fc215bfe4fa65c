"""Models as ONNX Runtime's quantiser and graph optimiser write them: what they contain, and that it agrees.

Which operators of com.microsoft such files hold is written down in WRITTEN, for a convolutional network, a transformer,
a perceptron and an LSTM.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime import quantization

from backends.c import CBackend
from compiler.errors import CompileError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph

CONVOLUTIONAL = """<ir_version: 8, opset_import: ["": 13]> conv (float[N,3,16,16] x) => (float[N,10] y) {
 a = Conv<pads=[1,1,1,1]>(x, w1, b1)
 r = Relu(a)
 m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r)
 c = Conv<pads=[1,1,1,1]>(m, w2, b2)
 l = LeakyRelu<alpha=0.1>(c)
 s = Add(l, m)
 g = Sigmoid(s)
 t = Mul(g, s)
 p = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(t)
 q = Concat<axis=1>(p, t)
 k = Conv(q, w3)
 u = GlobalAveragePool(k)
 f = Flatten(u)
 h = Gemm<transB=1>(f, w4, b4)
 y = Softmax<axis=1>(h)
}"""
TRANSFORMER = """<ir_version: 8, opset_import: ["": 17]> block (float[N,S,16] x, float[N,S,16] r) => (float[N,S,16] y) {
 q0 = MatMul(x, wq)
 q = Add(q0, bq)
 k = MatMul(x, wk)
 v = MatMul(x, wv)
 kt = Transpose<perm=[0,2,1]>(k)
 scores = MatMul(q, kt)
 scaled = Div(scores, four)
 p = Softmax<axis=-1>(scaled)
 o = MatMul(p, v)
 ad = Add(o, r)
 ln = LayerNormalization<axis=-1>(ad, gamma, beta)
 h0 = MatMul(ln, w1)
 h = Add(h0, b1)
 e0 = Div(h, root)
 e1 = Erf(e0)
 e2 = Add(e1, one)
 e3 = Mul(h, e2)
 e4 = Mul(e3, half)
 y = MatMul(e4, w2)
}"""
PERCEPTRON = """<ir_version: 8, opset_import: ["": 13]> mlp (float[N,12] x) => (float[N,4] y) {
 a = Gemm(x, w1, b1)
 r = Relu(a)
 g = Gemm(r, w2)
 y = Tanh(g)
}"""
RECURRENT = """<ir_version: 8, opset_import: ["": 14]> lstm (float[T,N,8] x) => (float[T,1,N,6] y, float[1,N,6] h) {
 y, h = LSTM<hidden_size=6>(x, w, r, b)
}"""
WEIGHTS: dict[str, dict[str, tuple[int, ...] | float]] = {
    CONVOLUTIONAL: {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (12, 16, 1, 1),
                    "w4": (10, 12), "b4": (10,)},
    TRANSFORMER: {"wq": (16, 16), "bq": (16,), "wk": (16, 16), "wv": (16, 16), "gamma": (16,), "beta": (16,),
                  "w1": (16, 32), "b1": (32,), "w2": (32, 16), "four": 4.0, "root": 2**0.5, "one": 1.0, "half": 0.5},
    PERCEPTRON: {"w1": (12, 9), "b1": (9,), "w2": (9, 4)},
    RECURRENT: {"w": (1, 24, 8), "r": (1, 24, 6), "b": (1, 48)},
}  # fmt: skip
LEVELS = {"extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
QUANTISED = {
    "QLinearLeakyRelu", "QLinearAdd", "QLinearSigmoid", "QLinearMul", "QLinearAveragePool", "QLinearConcat",
    "QLinearGlobalAveragePool", "QGemm", "QLinearSoftmax",
}  # fmt: skip


def saved(text: str, path: Path) -> Path:
    """The model of `text` with seeded weights, in a file."""
    model, r = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, value in WEIGHTS[text].items():
        array = np.array(value) if isinstance(value, float) else r.standard_normal(value) * 0.3
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(model, str(path))
    return path


def feeds_for(model: onnx.ModelProto, n: int) -> dict[str, np.ndarray]:
    """Inputs whose free dims are `n` and more."""
    r, made = np.random.default_rng(n), {}
    for item in model.graph.input:
        dims = item.type.tensor_type.shape.dim
        shape = [d.dim_value or n + (d.dim_param == "S") for d in dims]
        made[item.name] = r.standard_normal(shape).astype(np.float32)
    return made


class Readings(quantization.CalibrationDataReader):
    """What the quantiser measures ranges with."""

    def __init__(self, path: Path) -> None:
        self.rest: Iterator[dict[str, np.ndarray]] = iter([feeds_for(onnx.load(str(path)), n) for n in (4, 5)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rest, None)


def quantised(path: Path, style: str, kind: str = "QUInt8") -> Path:
    """The model as the quantiser writes it: "QOperator", "QDQ", or "dynamic"."""
    out, of = path.with_suffix(f".{style}.onnx"), quantization.QuantType
    logging.disable(logging.WARNING)  # it advises on preprocessing
    try:
        if style == "dynamic":
            quantization.quantize_dynamic(path, out, weight_type=of.QInt8)
        else:
            quantization.quantize_static(
                path, out, Readings(path), quant_format=quantization.QuantFormat[style], activation_type=of[kind],
                weight_type=of.QInt8,
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return out


def settings() -> Any:
    made = onnxruntime.SessionOptions()
    made.log_severity_level, made.intra_op_num_threads = 4, 1
    return made


def optimised(path: Path, level: str) -> Path:
    """The model as the optimiser writes it."""
    out, options = path.with_suffix(f".{level}.onnx"), settings()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return out


def contrib(model: onnx.ModelProto) -> set[str]:
    """The operators of com.microsoft in a model."""
    return {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}


@dataclass(frozen=True)
class Written:
    """A way to a file, the operators of com.microsoft in it, and how far results may be off."""

    text: str
    make: Callable[[Path], Path]
    holds: set[str]
    tolerance: float = 1e-5
    c: bool = False


def _static(style: str, kind: str, level: str) -> Callable[[Path], Path]:
    return lambda path: optimised(quantised(path, style, kind), level)


def _dynamic(level: str) -> Callable[[Path], Path]:
    return lambda path: optimised(quantised(path, "dynamic"), level)


STEP = 1 / 255
"""One step of the quantised probabilities: sums in floats next to a tie may go either way."""
WRITTEN = {
    "quantiser-uint8": Written(CONVOLUTIONAL, lambda p: quantised(p, "QOperator"), QUANTISED, STEP, c=True),
    "quantiser-int8": Written(CONVOLUTIONAL, lambda p: quantised(p, "QOperator", "QInt8"), QUANTISED, STEP),
    "qdq-extended": Written(CONVOLUTIONAL, _static("QDQ", "QUInt8", "extended"), QUANTISED, STEP),
    "qdq-all": Written(CONVOLUTIONAL, _static("QDQ", "QUInt8", "all"), QUANTISED | {"QLinearConv", "NhwcMaxPool"}, STEP,
                       c=True),
    "qdq16": Written(CONVOLUTIONAL, _static("QDQ", "QUInt16", "extended"), set(), 1e-3),
    "conv": Written(CONVOLUTIONAL, lambda p: optimised(p, "extended"), {"FusedConv", "QuickGelu"}, c=True),
    "transformer": Written(TRANSFORMER, lambda p: optimised(p, "all"),
                           {"FusedMatMul", "SkipLayerNormalization", "BiasGelu"}, c=True),
    "transformer-dynamic": Written(TRANSFORMER, _dynamic("all"), {
        "MatMulIntegerToFloat", "FusedMatMul", "SkipLayerNormalization", "DynamicQuantizeMatMul", "Gelu",
    }, 1e-4, c=True),
    "perceptron": Written(PERCEPTRON, lambda p: optimised(p, "all"), {"FusedGemm"}),
    "lstm": Written(RECURRENT, _dynamic("all"), {"DynamicQuantizeLSTM"}, c=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimised")


def imported(name: str, folder: Path) -> tuple[onnx.ModelProto, Graph]:
    """The file as a model, and as our graph."""
    written = WRITTEN[name]
    model = onnx.load(str(written.make(saved(written.text, folder / f"{name}.onnx"))))
    return model, import_model(read_model_proto(model))


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = settings()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_agrees(name: str, folder: Path) -> None:
    """At two sizes from one import."""
    model, graph = imported(name, folder)
    assert contrib(model) >= WRITTEN[name].holds
    for n in (2, 3):
        feeds = feeds_for(model, n)
        made = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
        for got, want in zip(made, expected(model, feeds), strict=True):
            np.testing.assert_allclose(got, want, rtol=WRITTEN[name].tolerance, atol=WRITTEN[name].tolerance * 1.01)


@pytest.mark.parametrize("name", [name for name, written in WRITTEN.items() if written.c])
def test_what_is_written_agrees_in_c(name: str, folder: Path) -> None:
    """At two sizes from one artifact."""
    model, graph = imported(name, folder)
    backend = CBackend(opt="-O1", march="x86-64")
    compiled = backend.emit(backend.pipeline().run(graph), folder / name).load(opt="-O1", march="x86-64")
    for n in (2, 3):
        feeds = feeds_for(model, n)
        made = compiled.run(feeds)
        for output, want in zip(model.graph.output, expected(model, feeds), strict=True):
            tolerance = WRITTEN[name].tolerance
            np.testing.assert_allclose(made[output.name], want, rtol=tolerance, atol=tolerance * 1.01)


def test_what_is_laid_out_for_one_processor_is_refused(folder: Path) -> None:
    model = onnx.load(str(optimised(saved(CONVOLUTIONAL, folder / "nchwc.onnx"), "all")))
    domains = {node.domain for node in model.graph.node}
    if "com.microsoft.nchwc" not in domains and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("ONNX Runtime has no such layout for this processor")
    assert "com.microsoft.nchwc" in domains
    with pytest.raises(CompileError) as caught:
        import_model(read_model_proto(model))
    assert "let it optimise at level extended at most" in str(caught.value)
