"""What a case must give: ONNX Runtime as it is without optimisation, and the reference evaluator of onnx.

An oracle answers with outputs, or says why it has none.
"""

from __future__ import annotations

import os
import warnings
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


ORACLES = {"onnxruntime": onnxruntime, "reference": reference}
__all__ = ["ORACLES", "NoAnswer", "onnxruntime", "reference"]
