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
    name, who = case.version.name, oracle.removesuffix(" in f32")
    found = (d for d in KNOWN if name in d.operators.split() and d.oracle == who and d.applies(case))
    reason = next((d.reason for d in found), None)
    if reason is None and oracle == REFERENCE and any(_is_half(case, n) for n in range(8)):
        return "every step is rounded to 16 bits"
    return reason


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


def _rank(case: Case, position: int) -> int:
    """The rank of an initializer."""
    name = case.model.graph.node[0].input[position]
    return next((len(t.dims) for t in case.model.graph.initializer if t.name == name), 0)


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


_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)
KNOWN = [
    Disagreement("AffineGrid", ORT, "the only position of an axis of size 1 is at 1 where corners are aligned"),
    Disagreement(
        "Attention", ORT, "with an integer mask, what is_causal hides is a number of that type, and so not hidden",
        lambda case: _is_integer(case, 3),
    ),
    Disagreement("Attention", ORT, "softcap is applied to what is_causal hides, which is then seen again",
                 lambda case: bool(_attribute(case, "is_causal")) and bool(_attribute(case, "softcap"))),
    Disagreement("Attention", REFERENCE, "scores of mode 0 are those after softcap",
                 lambda case: bool(_attribute(case, "softcap"))),
    Disagreement("AveragePool LpPool", REFERENCE, "with `ceil_mode`, what lies beyond the image is read again",
                 lambda case: bool(_attribute(case, "ceil_mode"))),
    Disagreement("CastLike", ORT, "`round_mode` is ignored", lambda case: bool(_attribute(case, "round_mode"))),
    Disagreement("Cast CastLike", ORT, "the texts of truth values are 1 and 0", lambda case: _dtype(case) == "bool"),
    Disagreement("Cast CastLike", ORT, "floats are rounded to integers of 4 bits, not cut off",
                 lambda case: bool({"int4", "uint4"} & set(case.output_types)) or _attribute(case, "to") in _FOUR_BITS),
    Disagreement("Cast CastLike", ORT, "what is below the least float8 becomes that, not NaN, without `saturate`",
                 lambda case: _attribute(case, "saturate") == 0),
    Disagreement("Col2Im", ORT, "dilations of one axis are taken for 1",
                 lambda case: bool(_attribute(case, "dilations"))),
    Disagreement("ConvInteger", REFERENCE, "a zero point for each channel is subtracted from another axis",
                 lambda case: _has(case, 3)),
    Disagreement("ConvTranspose", REFERENCE, "the bias of a group is added to every one of its channels",
                 lambda case: _has(case, 2) and _attribute(case, "group", 1) != 1),
    Disagreement("DFT", ORT, "the inverse of one side takes its length for that of the whole",
                 lambda case: bool(_attribute(case, "onesided")) and bool(_attribute(case, "inverse"))),
    Disagreement("DictVectorizer", REFERENCE, "a map gives a vector, not a matrix of one row"),
    Disagreement("Dropout", ORT, "before version 12 the mask of what is kept is false, not true",
                 lambda case: case.version.schema.since_version < 12),
    Disagreement("DynamicQuantizeLinear", REFERENCE, "the scale of zeros alone is 1/255; ONNX Runtime takes 1"),
    Disagreement("Gather", ORT, "most of the strings gathered are empty", lambda case: _dtype(case) == "string"),
    Disagreement("GRU LSTM RNN", ORT, "Softplus of great numbers overflows",
                 lambda case: b"Softplus" in (_attribute(case, "activations") or [])),
    Disagreement("GlobalMaxPool", REFERENCE, "axes of size 1 are dropped"),
    Disagreement("GridSample", REFERENCE, "coefficients are in the type of the image, so 0 for integers", _is_integer),
    Disagreement("GridSample", REFERENCE, "cubic reads other elements for positions outside",
                 lambda case: _attribute(case, "mode") in ("cubic", "bicubic")),
    Disagreement("GridSample", REFERENCE, "positions of 64 bits lie on the other side of a tie",
                 lambda case: _attribute(case, "mode") == "nearest" and _dtype(case, 1) == "double"),
    Disagreement("GridSample", REFERENCE, "positions are computed in 16 bits", lambda case: _is_half(case, 1)),
    Disagreement("Hardmax", REFERENCE, "before version 13 the input was seen as a matrix, with one maximum in a row",
                 lambda case: case.version.schema.since_version < 13),
    Disagreement("InstanceNormalization", ORT, "the difference of a lone element to its mean is not 0",
                 lambda case: int(np.prod(case.feeds["x0"].shape[2:])) == 1),
    Disagreement("LinearClassifier LinearRegressor", ORT, "SOFTMAX_ZERO of nothing but zeros is NaN, not zeros",
                 lambda case: _attribute(case, "post_transform") == "SOFTMAX_ZERO"),
    Disagreement("LRN", REFERENCE, "the loop over channels ends at the number of images"),
    Disagreement("GRU RNN LSTM", REFERENCE, "options are ignored: clip, activations, directions, lengths",
                 lambda case: not _is_plain_recurrence(case)),
    Disagreement("MatMulInteger", ORT, "products over an axis of no entries are not set to 0", _is_empty),
    Disagreement("MatMulInteger", REFERENCE, "a zero point for each row is subtracted from columns",
                 lambda case: _has(case, 2)),
    Disagreement("MaxPool AveragePool LpPool", REFERENCE, "SAME pads by other amounts, and indices count the padding",
                 lambda case: _attribute(case, "auto_pad", "NOTSET") != "NOTSET"),
    Disagreement("MaxPool", REFERENCE, "padding before is taken for that after",
                 lambda case: bool(_attribute(case, "pads"))),
    Disagreement("MaxPool", REFERENCE, "indices of columns first begin anew with each image",
                 lambda case: _attribute(case, "storage_order") == 1),
    Disagreement("MeanVarianceNormalization", ORT, "equal elements give NaN: nothing is added to the deviation"),
    Disagreement("NegativeLogLikelihoodLoss", REFERENCE, "what has the index -1 counts in the mean although ignored",
                 lambda case: _attribute(case, "ignore_index") == -1),
    Disagreement("CenterCropPad Pad", REFERENCE, "strings are padded with the text 0",
                 lambda case: _dtype(case) == "string"),
    Disagreement("QLinearConv", REFERENCE, "scales of each channel are meant for images of two axes"),
    Disagreement("QLinearMatMul", REFERENCE, "scales of rows are taken for those of columns",
                 lambda case: _rank(case, 1) == 1),
    Disagreement("QLinearMatMul", REFERENCE, "products of float8 are rounded to float8",
                 lambda case: "float8" in _dtype(case) + _dtype(case, 3)),
    Disagreement("QLinearMatMul", REFERENCE, "scales of 16 bits are multiplied in 16 bits", lambda c: _is_half(c, 1)),
    Disagreement("QuantizeLinear", REFERENCE, "the quotient is not computed in the type of the scale",
                 lambda case: _dtype(case) != _dtype(case, 1)),
    Disagreement("QuantizeLinear", ORT, "the quotient of 16-bit floats is computed in 32",
                 lambda case: _is_half(case) or _is_half(case, 1)),
    Disagreement("ReduceLogSumExp", ORT, "exponentials of integers are cut to integers", _is_integer),
    Disagreement("Resize", REFERENCE, "tf_crop_and_resize divides by size * scale, not by the size that is made of it",
                 lambda case: _attribute(case, "coordinate_transformation_mode") == "tf_crop_and_resize"),
    Disagreement("Resize", REFERENCE, "pytorch_half_pixel puts the only position at -0.5, not at 0",
                 lambda case: _attribute(case, "coordinate_transformation_mode") == "pytorch_half_pixel"),
    Disagreement("Resize", REFERENCE, "positions of 64 bits lie on the other side of a tie",
                 lambda case: _attribute(case, "mode", "nearest") == "nearest"),
    Disagreement("Resize", ORT, "antialiasing of integers is computed in fixed point",
                 lambda case: _is_integer(case) and bool(_attribute(case, "antialias"))),
    Disagreement("Resize", ORT, "tf_crop_and_resize leaves an axis of scale 1 whole",
                 lambda case: _attribute(case, "coordinate_transformation_mode") == "tf_crop_and_resize"),
    Disagreement("Resize", ORT, "align_corners divides by the size that is made, not by size * scale",
                 lambda case: _attribute(case, "coordinate_transformation_mode") == "align_corners"),
    Disagreement("Resize", ORT, "with axes from the back, `keep_aspect_ratio_policy` takes the sizes of others",
                 lambda case: bool(_attribute(case, "keep_aspect_ratio_policy"))),
    Disagreement("Resize", REFERENCE, "complex numbers lose their imaginary part",
                 lambda case: _dtype(case).startswith("complex")),
    Disagreement("SequenceInsert", REFERENCE, "what is inserted at the end is put before the last"),
    Disagreement("Shape", REFERENCE, "an end before the start counts from the start"),
    Disagreement("Sign", ORT, "the sign of NaN is 0; text and NumPy leave it NaN"),
    Disagreement("Slice", ORT, "with a negative step, a start before the axis gives nothing; the text clamps it to 0"),
    Disagreement("SplitToSequence", ORT, "`keepdims` counts although `split` is given, where all parts have size 1",
                 lambda case: _has(case, 1)),
    Disagreement("StringNormalizer", REFERENCE, "accents are removed, and words within strings are stop words"),
    Disagreement("StringSplit", ORT, "text behind the last split is stripped, and splitting the empty text gives none"),
    Disagreement("TreeEnsemble", REFERENCE, "`post_transform` is ignored"),
    Disagreement("TreeEnsemble", ORT, "SOFTMAX and LOGISTIC are taken for one another"),
    Disagreement("TreeEnsembleClassifier", ORT, "scores of two classes are taken for those of one", _two_classes),
    Disagreement("Unique", REFERENCE, "along an axis, results are sorted though they should not be",
                 lambda case: _attribute(case, "sorted") == 0),
    Disagreement("Unsqueeze", REFERENCE, "axes are put in one after the other, in the order given"),
    Disagreement("TreeEnsembleRegressor", ORT, "base values are left out for a target that no leaf of the row scores"),
]  # fmt: skip
"""Each was read in the oracle's results and checked against the text; reasons are sentences about the oracle."""
