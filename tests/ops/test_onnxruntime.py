"""Contractions, reductions, pools, norms and image ops on random shapes and attributes, against ONNX Runtime.

Where the two are known to differ, the sampler stays out of the way and says why.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import ir.ops  # noqa: F401 - registers the ops
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph

_CASES = 25


@dataclass
class Case:
    """One node: run-time inputs, constants, and which names the node lists ("" omits an input or output)."""

    op: str
    opset: int
    inputs: dict[str, np.ndarray]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)
    outputs: tuple[str, ...] = ("y",)
    symbolic: bool = False
    domain: str = ""

    def model(self) -> onnx.ModelProto:
        """The model, with symbolic dims where `symbolic`."""
        infos = []
        for name, array in self.inputs.items():
            shape = [f"{name}{axis}" for axis in range(array.ndim)] if self.symbolic else array.shape
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        operands = self.operands or [*self.inputs, *self.constants]
        node = helper.make_node(self.op, operands, self.outputs, domain=self.domain, **self.attributes)
        results = [onnx.ValueInfoProto(name=name) for name in self.outputs if name]
        weights = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph([node], "g", infos, results, weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def check(self, tolerance: float) -> None:
        """Compares our results with ONNX Runtime's."""
        model = self.model()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, self.inputs)
        graph = import_model(read_model_proto(model))
        results = evaluate_graph(graph, [self.inputs[v.name] for v in graph.inputs])
        for result, want in zip(results, expected, strict=True):
            got, want = np.asarray(result), np.asarray(want)
            assert (got.shape, got.dtype) == (want.shape, want.dtype), self
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=str(self))


class Sampler(random.Random):
    """Random shapes and attributes."""

    def floats(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(self.randrange(1 << 30)).standard_normal(shape).astype(np.float32)

    def ints(self, count: int, low: int, high: int) -> list[int]:
        return [self.randint(low, high) for _ in range(count)]

    def likely(self, probability: float) -> bool:
        return self.random() < probability


def conv(r: Sampler) -> Case:
    axes, group = r.randint(1, 3), r.choice([1, 1, 2])
    inner, out, kernel = group * r.randint(1, 3), group * r.randint(1, 3), r.ints(axes, 1, 3)
    attributes: dict[str, Any] = {"group": group, "strides": r.ints(axes, 1, 3)}
    if r.likely(0.6):
        attributes |= {"pads": r.ints(2 * axes, 0, 2), "dilations": r.ints(axes, 1, 2)}
    else:  # ONNX Runtime refuses automatic padding with dilations
        attributes["auto_pad"] = r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    constants = {"w": r.floats(out, inner // group, *kernel)} | ({"b": r.floats(out)} if r.likely(0.5) else {})
    x = r.floats(r.randint(1, 2), inner, *r.ints(axes, 5, 9))
    return Case("Conv", 11, {"x": x}, constants, attributes, symbolic=r.likely(0.5))


def conv_transpose(r: Sampler) -> Case:
    axes, group = r.randint(1, 2), r.choice([1, 1, 2])
    inner, kernel, stride = group * r.randint(1, 3), r.ints(axes, 1, 4), r.ints(axes, 1, 3)
    attributes: dict[str, Any] = {"group": group, "strides": stride}
    if r.likely(0.4):
        attributes["dilations"] = r.ints(axes, 1, 2)
    if r.likely(0.4):
        attributes["output_padding"] = [r.randint(0, s - 1) for s in stride]
    if all(k >= s for k, s in zip(kernel, stride)) and r.likely(0.4):
        # With a kernel smaller than its stride, ONNX Runtime gives less than size * stride, which ONNX asks for.
        attributes["auto_pad"] = r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif r.likely(0.7):
        attributes["pads"] = r.ints(2 * axes, 0, 1)
    weights = {"w": r.floats(inner, r.randint(1, 3), *kernel)}
    return Case("ConvTranspose", 11, {"x": r.floats(1, inner, *r.ints(axes, 3, 6))}, weights, attributes)


def pool(r: Sampler) -> Case:
    op, opset = r.choice([("MaxPool", 12), ("AveragePool", 19), ("LpPool", 18)])
    axes = r.randint(1, 3)
    kernel = r.ints(axes, 1, 3)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": r.ints(axes, 1, 3), "ceil_mode": r.randint(0, 1)}
    if r.likely(0.7):
        attributes |= {"pads": [r.randint(0, k - 1) for k in kernel] * 2, "dilations": r.ints(axes, 1, 2)}
    else:  # ONNX Runtime ignores dilations where it pads automatically
        attributes["auto_pad"] = r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    outputs = ("y",)
    if op == "AveragePool":
        attributes["count_include_pad"] = r.randint(0, 1)
    elif op == "LpPool":
        attributes["p"] = r.randint(1, 3)
    elif r.likely(0.5):
        outputs, attributes["storage_order"] = ("y", "i"), r.randint(0, 1)
    x = r.floats(2, 2, *r.ints(axes, 5, 9))
    if op == "MaxPool" and r.likely(0.2):
        x = (x * 20).astype(np.int8)
    return Case(op, opset, {"x": x}, {}, attributes, outputs=outputs, symbolic=r.likely(0.5))


def reduction(r: Sampler) -> Case:
    names = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
    op, rank, opset = "Reduce" + r.choice(names), r.randint(1, 4), r.choice([11, 13, 18])
    x = r.floats(*r.ints(rank, 1, 4))
    x = np.abs(x) if op == "ReduceLogSum" else x
    axes = [a - rank if r.likely(0.5) else a for a in r.sample(range(rank), r.randint(0, rank))]
    attributes: dict[str, Any] = {"keepdims": r.randint(0, 1)}
    constants = {}
    if opset >= 18 or (opset >= 13 and op == "ReduceSum"):
        attributes["noop_with_empty_axes"] = r.randint(0, 1)
        constants = {"axes": np.array(axes, np.int64)}
    elif axes:
        attributes["axes"] = axes
    return Case(op, opset, {"x": x}, constants, attributes, symbolic=r.likely(0.3))


def resize(r: Sampler) -> Case:
    mode = r.choice(["nearest", "linear", "cubic"])
    coordinates = r.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = r.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attributes |= {"exclude_outside": r.randint(0, 1), "cubic_coeff_a": r.choice([-0.5, -0.75])}
    antialias = mode != "nearest" and coordinates != "align_corners" and r.likely(0.25)
    attributes["antialias"] = int(antialias)
    # With align_corners and a scale that gives no whole size, ONNX Runtime departs from the ONNX test suite.
    scales = [2, 3] if coordinates == "align_corners" else [2, 3, 0.5, 0.6, 1.5, 0.75, 2.3]
    x = {"x": r.floats(1, 2, r.randint(2, 6), r.randint(2, 6))}
    if r.likely(0.5):
        constants = {"scales": np.array([1, 1, r.choice(scales), r.choice(scales)], np.float32)}
        return Case(
            "Resize", 19, x, constants, attributes, ["x", "", "scales"], symbolic=not antialias and r.likely(0.4)
        )
    constants = {"sizes": np.array([1, 2, *r.ints(2, 1, 12)], np.int64)}
    return Case(
        "Resize", 19, x, constants, attributes, ["x", "", "", "sizes"], symbolic=not antialias and r.likely(0.4)
    )


def norm(r: Sampler) -> Case:
    x = r.floats(2, 4, *r.ints(r.randint(1, 2), 2, 4))
    match r.randint(0, 5):
        case 0:
            axis = r.randint(-x.ndim, x.ndim - 1)
            weights = {"s": r.floats(*x.shape[axis:])} | ({"b": r.floats(*x.shape[axis:])} if r.likely(0.5) else {})
            outputs = r.choice([("y",), ("y", "mean", "inverse")])
            return Case("LayerNormalization", 17, {"x": x}, weights, {"axis": axis}, outputs=outputs)
        case 1:
            return Case("InstanceNormalization", 6, {"x": x}, {"s": r.floats(4), "b": r.floats(4)})
        case 2:
            weights = {"s": r.floats(4), "b": r.floats(4), "m": r.floats(4), "v": np.abs(r.floats(4))}
            return Case("BatchNormalization", r.choice([7, 9, 15]), {"x": x}, weights)
        case 3:
            attributes = {"p": r.randint(1, 2), "axis": r.randint(0, x.ndim - 1)}
            return Case("LpNormalization", 1, {"x": x}, {}, attributes)
        case 4:
            attributes = {"size": r.choice([1, 3, 5]), "alpha": 0.5, "beta": 0.75, "bias": 1.5}
            return Case("LRN", 13, {"x": r.floats(2, 6, 3, 3)}, {}, attributes)
    return Case("GroupNormalization", 21, {"x": x}, {"s": r.floats(4), "b": r.floats(4)}, {"num_groups": 2})


def skip_norm(r: Sampler) -> Case:
    op = r.choice(["SkipSimplifiedLayerNormalization", "SkipLayerNormalization"])
    weights = {"gamma": r.floats(8)} | ({"beta": r.floats(8)} if op == "SkipLayerNormalization" else {})
    inputs = {"x": r.floats(2, 3, 8), "skip": r.floats(2, 3, 8)}
    outputs = ("y", "", "", "total") if r.likely(0.5) else ("y",)
    return Case(op, 17, inputs, weights, {"epsilon": 1e-5}, outputs=outputs, domain="com.microsoft")


def grid_sample(r: Sampler) -> Case:
    attributes = {
        "mode": r.choice(["linear", "nearest", "cubic"]), "align_corners": r.randint(0, 1),
        "padding_mode": r.choice(["zeros", "border", "reflection"]),
    }  # fmt: skip
    inputs = {"x": r.floats(2, 2, *r.ints(2, 2, 5)), "grid": r.floats(2, 3, 4, 2)}
    return Case("GridSample", 20, inputs, {}, attributes, symbolic=False)


def regions(r: Sampler) -> Case:
    x = r.floats(2, 2, 8, 9)
    corners = np.abs(r.floats(3, 2)) * 3
    rois = np.concatenate([corners, corners + np.abs(r.floats(3, 2)) * 4], axis=1)
    scale = r.choice([1.0, 0.5])
    if r.likely(0.3):
        batch = np.array([[0], [1], [1]], np.float32)
        attributes: dict[str, Any] = {"pooled_shape": r.ints(2, 1, 3), "spatial_scale": scale}
        return Case("MaxRoiPool", 1, {"x": x, "rois": np.concatenate([batch, rois], axis=1)}, {}, attributes)
    attributes = {
        "output_height": r.randint(1, 3), "output_width": r.randint(1, 3), "sampling_ratio": r.randint(0, 2),
        "spatial_scale": scale, "mode": r.choice(["avg", "max"]),
    }  # fmt: skip
    opset = r.choice([10, 16])
    if opset == 16:
        attributes["coordinate_transformation_mode"] = r.choice(["half_pixel", "output_half_pixel"])
    return Case("RoiAlign", opset, {"x": x, "rois": rois, "batch": np.array([0, 1, 1], np.int64)}, {}, attributes)


def matmul(r: Sampler) -> Case:
    batch, (m, k, n) = r.ints(r.randint(0, 2), 1, 3), r.ints(3, 1, 5)
    x, y = ([*(1 if r.likely(0.3) else size for size in batch), *rest] for rest in ((m, k), (k, n)))
    x, y = [k] if r.likely(0.2) else x, [k] if r.likely(0.2) else y
    return Case("MatMul", 13, {"a": r.floats(*x), "b": r.floats(*y)})


def gemm(r: Sampler) -> Case:
    m, k, n = r.ints(3, 1, 4)
    a, b = r.randint(0, 1), r.randint(0, 1)
    inputs = {"a": r.floats(*((k, m) if a else (m, k))), "b": r.floats(*((n, k) if b else (k, n)))}
    shape = r.choice([None, (n,), (m, n), (1, n), (m, 1), ()])
    attributes = {"transA": a, "transB": b, "alpha": r.choice([1.0, 0.5]), "beta": r.choice([1.0, 0.3])}
    return Case("Gemm", 13, inputs, {} if shape is None else {"c": np.asarray(r.floats(*shape))}, attributes)


def transform(r: Sampler) -> Case:
    size, inverse = r.randint(1, 9), r.randint(0, 1)
    onesided = 0 if inverse else r.randint(0, 1)
    x = r.floats(2, size, size, 1 if onesided else 2)
    length = {"length": np.array(r.randint(1, 9), np.int64)} if r.likely(0.5) else {}
    return Case("DFT", 17, {"x": x}, length, {"axis": r.randint(1, 2), "inverse": inverse, "onesided": onesided})


SAMPLERS: list[tuple[Callable[[Sampler], Case], float]] = [
    (conv, 1e-4), (conv_transpose, 1e-4), (pool, 1e-4), (reduction, 1e-4), (norm, 1e-4), (skip_norm, 1e-4),
    (grid_sample, 1e-4), (regions, 1e-4), (matmul, 1e-4), (gemm, 1e-4), (transform, 1e-4),
    (resize, 2e-3),  # ONNX Runtime takes cubic weights in single precision, in another order
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(_CASES))
@pytest.mark.parametrize(("sample", "tolerance"), SAMPLERS, ids=[sample.__name__ for sample, _ in SAMPLERS])
def test_agrees_with_onnxruntime(sample: Callable[[Sampler], Case], tolerance: float, seed: int) -> None:
    sample(Sampler(f"{sample.__name__} {seed}")).check(tolerance)
