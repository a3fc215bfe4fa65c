"""Where an oracle departs from the text of ONNX, with the reason; the other oracle then decides, if there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.importers.draft import Case
from tests.fuzz.importers.schemas import kind

ORT, REFERENCE = "onnxruntime", "reference"


@dataclass(frozen=True)
class Disagreement:
    """Cases of `operators` that `applies` to, on which `oracle` is wrong for `reason`."""

    operators: str
    oracle: str
    reason: str
    applies: Callable[[Case], bool] = lambda case: True


def known(case: Case, oracle: str) -> str | None:
    """Why the oracle is not believed on a case; None where it is."""
    name = case.version.name
    found = (d for d in KNOWN if name in d.operators.split() and d.oracle == oracle and d.applies(case))
    return next((d.reason for d in found), None)


def _attribute(case: Case, name: str, default: object = None) -> object:
    for attribute in case.model.graph.node[0].attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _dtype(case: Case, position: int = 0) -> str:
    """The element type of an input, as schemas name it; empty where it is left out, or no tensor."""
    graph = case.model.graph
    name = graph.node[0].input[position] if position < len(graph.node[0].input) else ""
    numbers = {i.name: i.type.tensor_type.elem_type for i in graph.input}
    numbers |= {t.name: t.data_type for t in graph.initializer}
    return TensorProto.DataType.Name(numbers[name]).lower() if numbers.get(name) else ""


def _has(case: Case, position: int) -> bool:
    inputs = case.model.graph.node[0].input
    return position < len(inputs) and bool(inputs[position])


def _is_integer(case: Case, position: int = 0) -> bool:
    return kind(_dtype(case, position)) in ("int", "uint")


def _is_half(case: Case, position: int = 0) -> bool:
    return _dtype(case, position) in ("float16", "bfloat16")


def _is_empty(case: Case) -> bool:
    return any(isinstance(value, np.ndarray) and not value.size for value in case.feeds.values())


def _two_classes(case: Case) -> bool:
    labels = _attribute(case, "classlabels_strings") or _attribute(case, "classlabels_int64s") or ()
    return len(labels) == 2  # type: ignore[arg-type]


def _is_plain_recurrence(case: Case) -> bool:
    """What the reference evaluator knows of recurrent networks: the forward direction, with nothing optional."""
    names = {a.name for a in case.model.graph.node[0].attribute}
    simple = not names & {"clip", "activations", "activation_alpha", "input_forget"}
    return simple and not _has(case, 4) and _attribute(case, "direction", "forward") == "forward"


KNOWN = [
    Disagreement("AffineGrid", ORT, "the only position of an axis of size 1 is at 1 where corners are aligned"),
    Disagreement(
        "Attention", ORT, "with an integer mask, what is_causal hides is a number of that type, and so not hidden",
        lambda case: _is_integer(case, 3),
    ),
    Disagreement("Attention", REFERENCE, "scores of mode 0 are those after softcap",
                 lambda case: bool(_attribute(case, "softcap"))),
    Disagreement("Col2Im", ORT, "dilations of one axis are taken for 1",
                 lambda case: bool(_attribute(case, "dilations"))),
    Disagreement("Dropout", ORT, "before version 12 the mask of what is kept is false, not true",
                 lambda case: case.version.schema.since_version < 12),
    Disagreement("DynamicQuantizeLinear", REFERENCE, "the scale of zeros alone is 1/255; ONNX Runtime takes 1"),
    Disagreement("GlobalMaxPool", REFERENCE, "axes of size 1 are dropped"),
    Disagreement("GridSample", REFERENCE, "coefficients are in the type of the image, so 0 for integers", _is_integer),
    Disagreement("GridSample", REFERENCE, "positions are computed in 16 bits", lambda case: _is_half(case, 1)),
    Disagreement("Hardmax", REFERENCE, "before version 13 the input was seen as a matrix, with one maximum in a row",
                 lambda case: case.version.schema.since_version < 13),
    Disagreement("InstanceNormalization", REFERENCE, "every step is rounded to 16 bits", _is_half),
    Disagreement("LRN", REFERENCE, "the loop over channels ends at the number of images"),
    Disagreement("GRU RNN LSTM", REFERENCE, "options are ignored: clip, activations, directions, lengths",
                 lambda case: not _is_plain_recurrence(case)),
    Disagreement("MatMulInteger", ORT, "products over an axis of no entries are not set to 0", _is_empty),
    Disagreement("MatMulInteger", REFERENCE, "a zero point for each row is subtracted from columns",
                 lambda case: _has(case, 2)),
    Disagreement("MaxPool AveragePool LpPool", REFERENCE, "SAME pads by other amounts, and indices count the padding",
                 lambda case: _attribute(case, "auto_pad", "NOTSET") != "NOTSET"),
    Disagreement("Pad", REFERENCE, "strings are padded with the text 0", lambda case: _dtype(case) == "string"),
    Disagreement("QLinearConv", REFERENCE, "scales of each channel are meant for images of two axes"),
    Disagreement("QLinearMatMul", REFERENCE, "scales of 16 bits are multiplied in 16 bits", lambda c: _is_half(c, 1)),
    Disagreement("QuantizeLinear", ORT, "the quotient of 16-bit floats is computed in 32", _is_half),
    Disagreement("ReduceLogSumExp", ORT, "exponentials of integers are cut to integers", _is_integer),
    Disagreement("Resize", REFERENCE, "tf_crop_and_resize divides by size * scale, not by the size that is made of it",
                 lambda case: _attribute(case, "coordinate_transformation_mode") == "tf_crop_and_resize"),
    Disagreement("Resize", REFERENCE, "complex numbers lose their imaginary part",
                 lambda case: _dtype(case).startswith("complex")),
    Disagreement("SequenceInsert", REFERENCE, "what is inserted at the end is put before the last"),
    Disagreement("Shape", REFERENCE, "an end before the start counts from the start"),
    Disagreement("Sign", ORT, "the sign of NaN is 0; text and NumPy leave it NaN"),
    Disagreement("Slice", ORT, "with a negative step, a start before the axis gives nothing; the text clamps it to 0"),
    Disagreement("StringNormalizer", REFERENCE, "accents are removed, and words within strings are stop words"),
    Disagreement("StringSplit", ORT, "text behind the last split is stripped, and splitting the empty text gives none"),
    Disagreement("TreeEnsemble", REFERENCE, "`post_transform` is ignored"),
    Disagreement("TreeEnsemble", ORT, "SOFTMAX and LOGISTIC are taken for one another"),
    Disagreement("TreeEnsembleClassifier", ORT, "scores of two classes are taken for those of one", _two_classes),
    Disagreement("TreeEnsembleRegressor", ORT, "base values are left out for a target that no leaf of the row scores"),
]  # fmt: skip
"""Each was read in the oracle's results and checked against the text; reasons are sentences about the oracle."""
