"""What a case must give: ONNX Runtime as it is without optimisation, and the reference evaluator of onnx.

An oracle answers with outputs, or says why it has none.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.importers.draft import Case
from tests.fuzz.importers.schemas import NUMPY

os.environ.setdefault("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")  # opsets newer than ONNX Runtime promises to have
_SEEN_AS = {
    TensorProto.BFLOAT16: TensorProto.FLOAT,
    TensorProto.INT4: TensorProto.INT8,
    TensorProto.UINT4: TensorProto.UINT8,
    **{
        TensorProto.DataType.Value(name): TensorProto.FLOAT
        for name in dict(TensorProto.DataType.items())
        if name.startswith("FLOAT8") or name in ("FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2")
    },
}
"""Types that ONNX Runtime cannot hand over, and the ones that hold all their values."""


class NoAnswer(Exception):
    """The oracle does not run the case."""


def onnxruntime(case: Case) -> list[Any]:
    """Outputs of ONNX Runtime. Raises NoAnswer."""
    import onnxruntime as ort

    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model, narrow = _plain(case)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {i.name: case.feeds[i.name] for i in session.get_inputs()}
        outputs = session.run(None, feeds)
        return [_narrowed(value, narrow.get(o.name)) for value, o in zip(outputs, session.get_outputs())]
    except Exception as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error


def _plain(case: Case) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The model as ONNX Runtime can be given it, and the element types of its outputs that are seen as others.

    Inputs of types that it takes no arrays of become initializers, and such outputs are converted to others.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    for info in list(graph.input):
        if info.type.tensor_type.elem_type in _SEEN_AS:
            graph.input.remove(info)
            graph.initializer.append(numpy_helper.from_array(case.feeds[info.name], info.name))
    inferred = onnx.shape_inference.infer_shapes(case.model)
    types = {o.name: o.type.tensor_type.elem_type for o in inferred.graph.output}
    found = {name: number for name, number in types.items() if number in _SEEN_AS}
    graph.node[0].output[:] = [f"{o}_" if o in found else o for o in graph.node[0].output]
    for name, number in found.items():
        graph.node.append(helper.make_node("Cast", [f"{name}_"], [name], to=_SEEN_AS[number]))
    return model, found


def _narrowed(value: Any, number: int | None) -> Any:
    """An output as what it was before the model showed it as another type."""
    if number is None:
        return value
    return np.asarray(value).astype(NUMPY[TensorProto.DataType.Name(number).lower()])


def reference(case: Case) -> list[Any]:
    """Outputs of onnx's reference evaluator. Raises NoAnswer."""
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            outputs = ReferenceEvaluator(case.model).run(None, dict(case.feeds))
    except Exception as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    # The evaluator has no type for optionals: what Optional gives, it wraps in a list.
    return [o[0] for o in outputs] if case.version.name == "Optional" else outputs  # type: ignore[index]


_EXACT_BITS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "CastLike",
    "BitCast",
    "Range",
    "OptionalGetElement",
    "RMSNormalization",
)
"""Operators whose result depends on 16 bits being 16 bits."""
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _in_f32(case: Case, types: Sequence[int]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model with floats of 32 bits in the place of those of `types`. Raises NoAnswer where that changes nothing."""
    if case.version.name in _EXACT_BITS or not case.has_values:
        raise NoAnswer("its result depends on the size of its floats")
    model, feeds = onnx.ModelProto(), dict(case.feeds)
    model.CopyFrom(case.model)
    for info in model.graph.input:
        if info.type.tensor_type.elem_type in types:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
            feeds[info.name] = feeds[info.name].astype(np.float32)
    for tensor in model.graph.initializer:
        if tensor.data_type in types:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    if model == case.model:
        raise NoAnswer("it has no floats of other sizes")
    return model, feeds


def _rounded(value: Any, name: str | None) -> Any:
    """A result as the float that the schema says."""
    is_wide = isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float32
    return np.asarray(value).astype(NUMPY[name]) if is_wide and name in ("float16", "bfloat16", "double") else value


def _substituted(oracle: Callable[[Case], list[Any]], *types: int) -> Callable[[Case], list[Any]]:
    """`oracle` on the same node with floats of 32 bits, whose results are rounded to what they should be."""

    def run(case: Case) -> list[Any]:
        model, feeds = _in_f32(case, types)
        outputs = oracle(dataclasses.replace(case, model=model, feeds=feeds))
        return [_rounded(value, name) for value, name in zip(outputs, case.output_types)]

    return run


ORACLES: dict[str, Callable[[Case], list[Any]]] = {
    "onnxruntime": onnxruntime,
    "reference": reference,
    "reference in f32": _substituted(reference, *_HALVES),
    "onnxruntime in f32": _substituted(onnxruntime, *_HALVES, TensorProto.DOUBLE),
}
"""In the order in which they are asked.

The evaluator rounds every step of 16 bits to 16 bits, where operators may compute with more and round once; and ONNX
Runtime has kernels for floats of 32 bits that it has not for others.
"""
__all__ = ["ORACLES", "NoAnswer", "onnxruntime", "reference"]
