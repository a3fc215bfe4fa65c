"""Maps: ZipMap, CastMap and DictVectorizer on the interpreter, and what becomes of a classifier's maps in C."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from compiler import observe as see
from compiler.errors import UnsupportedError
from compiler.onnx_backend import run_model
from compiler.verify import compare_outputs, run_onnxruntime
from tests.ops.single_node import node_model

ML = "ai.onnx.ml"
KINDS = {"i64": TensorProto.INT64, "f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE, "string": TensorProto.STRING}


def map_model(op: str, key: str, value: str, **attributes: Any) -> onnx.ModelProto:
    """A model of one node that takes a map."""
    x = onnx.ValueInfoProto(name="x")
    x.type.map_type.key_type = KINDS[key]
    x.type.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(KINDS[value], []))
    node = helper.make_node(op, ["x"], ["y"], domain=ML, **attributes)
    graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def interpreted(model: onnx.ModelProto, value: dict[Any, Any]) -> np.ndarray:
    return run_model(model, {"x": value}, "REFERENCE")[0]


NUMBERS = {1: 2.5, 0: 1e-7, 4: -3.7, 9: 1e20}


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
@pytest.mark.parametrize("to", ["TO_FLOAT", "TO_STRING", "TO_INT64"])
def test_cast_map(to: str, form: str) -> None:
    value = {k: v for k, v in NUMBERS.items() if to != "TO_INT64" or abs(v) < 1e18}  # beyond it, C++ leaves it open
    value = {k: float(np.float32(v)) for k, v in value.items()}
    model = map_model("CastMap", "i64", "f32", cast_to=to, map_form=form, max_map=6)
    made, expected = interpreted(model, value), run_onnxruntime(model, {"x": value})["y"]
    assert made.shape == expected.shape and made.tolist() == expected.tolist()
    assert made.dtype == expected.dtype


def test_cast_map_of_strings() -> None:
    model = map_model("CastMap", "i64", "string", cast_to="TO_FLOAT")
    assert interpreted(model, {3: "2.5", 1: "-1e3"}).tolist() == [[-1000.0, 2.5]]
    model = map_model("CastMap", "i64", "string", cast_to="TO_STRING", map_form="SPARSE", max_map=3)
    assert interpreted(model, {2: "b", 7: "c"}).tolist() == [["0.f", "0.f", "b"]]


@pytest.mark.parametrize(
    ("key", "value", "given"),
    [("string", "i64", {"a": 4, "c": 8}), ("i64", "string", {5: "x", 9: "y"}), ("i64", "f32", {7: 0.5, 9: 1.0}),
     ("string", "f64", {"b": 0.1}), ("string", "i64", {})],
)  # fmt: skip
def test_dict_vectorizer(key: str, value: str, given: dict[Any, Any]) -> None:
    vocabulary = {"string_vocabulary": ["a", "c", "b", "z"]} if key == "string" else {"int64_vocabulary": [5, 6, 7]}
    made = interpreted(map_model("DictVectorizer", key, value, **vocabulary), given)
    keys = next(iter(vocabulary.values()))
    missing: Any = "" if value == "string" else 0
    assert made.tolist() == [[given.get(k, missing) for k in keys]]
    assert made.dtype == {"i64": np.int64, "f32": np.float32, "f64": np.float64, "string": object}[value]


def test_a_vocabulary_of_the_wrong_keys_is_refused() -> None:
    model = map_model("DictVectorizer", "string", "f32", int64_vocabulary=[1])
    with pytest.raises(UnsupportedError, match="map_lookup: i64 to f32 from map<string,f32"):
        compiler.load(model)


LABELS = {"classlabels_int64s": [4, 7, 1]}, {"classlabels_strings": ["a", "b", 'c"']}


@pytest.mark.parametrize("labels", LABELS, ids=["numbers", "strings"])
def test_zip_map(labels: dict[str, Any], tmp_path: Path) -> None:
    """A sequence of maps, everywhere; in C the rows, with the keys in the manifest."""
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("ZipMap", ["n"], ["y"], domain=ML, **labels)]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "zip", [rows], [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="n")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)])
    keys = next(iter(labels.values()))
    expected = {"y": [dict(zip(keys, row)) for row in (-x).tolist()], "n": -x}
    assert run_model(proto, [x], "REFERENCE")[0] == expected["y"]
    model = compiler.load(proto)
    target = compiler.find_backend("c", march="", opt="-O1")
    program = target.pipeline().run(model, watch=[see.Numerics({"x": x})])
    artifact = target.emit(program, tmp_path / "zip", model)
    compared = compare_outputs(artifact.load().run({"x": x}), expected)
    assert {c.name: c.ok for c in compared} == {"y[0]": True, "y[1]": True, "n": True}
    manifest = json.loads((tmp_path / "zip" / "manifest.json").read_text())
    assert manifest["kinds"] == {"output y": ["maps", keys]}


def test_zip_map_of_one_row_and_of_other_labels() -> None:
    row = np.array([0.5, 0.25], np.float32)
    model = node_model("ZipMap", [row], domain=ML, classlabels_int64s=[1, 2])
    assert run_model(model, [row], "REFERENCE")[0] == [{1: 0.5, 2: 0.25}]
    model = node_model("ZipMap", [row], domain=ML, classlabels_int64s=[1, 2, 3])
    with pytest.raises(UnsupportedError, match="there are 3 labels"):
        compiler.load(model)
    model = node_model("ZipMap", [row], domain=ML, classlabels_int64s=[1, 1])
    with pytest.raises(UnsupportedError, match="a label is given twice"):
        compiler.load(model)


def test_maps_that_differ_are_told_apart() -> None:
    one = {"y": [{1: 0.5}]}
    assert [c.ok for c in compare_outputs({"y": [{1: 0.5000001}]}, one)] == [True]
    assert [c.ok for c in compare_outputs({"y": [{1: 0.6}]}, one)] == [False]
    assert [c.reason for c in compare_outputs({"y": [{2: 0.5}]}, one)] == ["it has other keys"]


def test_the_order_of_keys_is_no_difference() -> None:
    given, in_order, other = {3: 0.5, 1: 0.25, 2: 4.0}, {1: 0.25, 2: 4.0, 3: 0.5}, {1: 0.5, 2: 4.0, 3: 0.25}
    assert [c.ok for c in compare_outputs({"y": [given]}, {"y": [in_order]})] == [True]
    assert [c.ok for c in compare_outputs({"y": [given]}, {"y": [other]})] == [False]
    assert see.compare([in_order], [given], 1e-6, 0.0) == ("", 0.0)
    assert see.compare([other], [given], 1e-6, 0.0)[0].startswith("tensor 0: [2] is 0.5, it was 0.25")
    assert see.compare([{1: 0.5}], [{2: 0.5}], 1e-6, 0.0)[0] == "tensor 0: other keys"


def test_labels_that_are_not_sorted_agree_with_onnx_runtime(tmp_path: Path) -> None:
    """It gives keys in their order, and a map that was right was called wrong."""
    x = np.array([[1, 2, 3]], np.float32)
    model = node_model("ZipMap", [x], domain=ML, classlabels_int64s=[3, 1, 2])
    feeds = {model.graph.input[0].name: x}
    made = compiler.compile(model, out=tmp_path / "zip", opt="-O1").load().run(feeds)
    assert all(c.ok for c in compare_outputs(made, run_onnxruntime(model, feeds)))
