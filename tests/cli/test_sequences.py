"""Sequences, optionals and maps on the command line: from files, into files, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.archive import gather, spread
from compiler.errors import UsageError
from compiler.feeds import Signature, fit_feeds
from ir.types import OptionalType, SequenceType, tensor
from tests.cli.conftest import Sesame


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A model of a sequence `s` and an optional `o`: an element, the sequence, and whether the optional is there."""
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    inputs = [
        helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2, "k"]),
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_value_info("o", helper.make_optional_type_proto(inner)),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, None]),
        helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, [2, None]),
        helper.make_tensor_value_info("there", TensorProto.BOOL, []),
    ]
    nodes = [
        helper.make_node("SequenceAt", ["s", "i"], ["y"]),
        helper.make_node("SequenceErase", ["s", "i"], ["t"]),
        helper.make_node("OptionalHasElement", ["o"], ["there"]),
    ]
    graph = helper.make_graph(nodes, "turned", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "t.onnx")
    return tmp_path / "t.onnx"


ITEMS = {"s.0": np.ones((2, 1), np.float32), "s.1": np.full((2, 3), 2, np.float32), "i": np.array(1)}


@pytest.mark.parametrize("target", ["c", "reference"])
def test_a_sequence_from_a_file(sesame: Sesame, turned: Path, tmp_path: Path, target: str) -> None:
    assert sesame("compile", turned, "-o", "made", "-t", target).status == 0
    np.savez(tmp_path / "in.npz", **ITEMS, o=np.zeros(2, np.float32))
    ran = sesame("run", "made", "--inputs", "in.npz", "-o", "out.npz")
    assert ran.status == 0, ran.err
    made = dict(np.load("out.npz"))
    assert made.keys() == {"y", "t.0", "there"} and made["there"]
    np.testing.assert_array_equal(made["y"], ITEMS["s.1"])
    np.testing.assert_array_equal(made["t.0"], ITEMS["s.0"])
    for against in (["interp"], ["data", "--outputs", "out.npz"]):
        verified = sesame("verify", "made", "--model", turned, "--inputs", "in.npz", "--against", *against)
        assert verified.status == 0, verified.err
    np.savez("out.npz", **made, **{"t.1": made["t.0"]})
    assert sesame("verify", "made", "--inputs", "in.npz", "--against", "data", "--outputs", "out.npz").status == 1
    assert "input   s" in sesame("inspect", "made").out


def test_rows_are_elements_and_what_is_left_out_is_absent(sesame: Sesame, turned: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", s=np.ones((3, 2, 4), np.float32), i=np.array(0))
    ran = sesame("--format", "json", "run", turned, "--inputs", "in.npz", "-O", "1")
    assert ran.status == 0, ran.err
    outputs = ran.json["outputs"]
    assert outputs.keys() == {"y", "t.0", "t.1", "there"} and outputs["there"]["first"] == [False]


def test_a_sequence_is_timed(sesame: Sesame, turned: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **ITEMS)
    few = ["--repeat", "1", "--blocks", "1", "--warmup", "0", "-O", "1"]
    timed = sesame("bench", turned, "--inputs", "in.npz", *few)
    assert timed.status == 0, timed.err


def test_a_sequence_is_asked_for_by_name(sesame: Sesame, turned: Path, tmp_path: Path) -> None:
    """The tensors of C were asked for, and refused when they were given."""
    assert sesame("compile", turned, "-o", "made").status == 0
    for command in ("run", "bench"):
        random = sesame(command, "made")
        assert random.status == 2 and "error[E0211]: input 's' is seq<f32[2,k]>" in random.err
    np.savez(tmp_path / "in.npz", i=np.array(0))
    missing = sesame("run", "made", "--inputs", "in.npz")
    assert missing.status == 2 and "error[E0208]: input 's' is missing" in missing.err and "s.0, s.1" in missing.err
    np.savez(tmp_path / "in.npz", **{"s.0": ITEMS["s.0"], "s.2": ITEMS["s.1"]}, i=np.array(0))
    gap = sesame("run", "made", "--inputs", "in.npz")
    assert gap.status == 2 and "the model has no input 's.2'" in gap.err
    np.savez(tmp_path / "in.npz", s=np.ones((1, 3, 4), np.float32), i=np.array(0))
    wrong = sesame("run", "made", "--inputs", "in.npz")
    assert wrong.status == 2 and "input 's', element 0, has shape [3, 4]" in wrong.err


def test_maps_are_shown_and_written(sesame: Sesame, tmp_path: Path) -> None:
    node = helper.make_node("ZipMap", ["x"], ["m"], domain="ai.onnx.ml", classlabels_strings=["b", "a"])
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph([node], "zip", [rows], [onnx.ValueInfoProto(name="m")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "zip.onnx")
    np.savez(tmp_path / "in.npz", x=np.array([[1, 2]], np.float32))
    ran = sesame("run", "zip.onnx", "--inputs", "in.npz", "-o", "out.npz", "-O", "1")
    assert ran.status == 0, ran.err
    made = dict(np.load("out.npz"))
    assert made["m.0.keys"].tolist() == ["b", "a"] and made["m.0.values"].tolist() == [1, 2]
    again = sesame("verify", "zip.onnx", "--inputs", "in.npz", "--against", "data", "--outputs", "out.npz", "-O", "1")
    assert again.status == 0, again.err


def test_values_come_back_from_arrays() -> None:
    x, y = np.ones(2, np.float32), np.zeros((0, 3), np.float32)
    values: dict[str, Any] = {"s": [x, y], "empty": [], "x": y, "gone": None, "m": [{1: 2.0}, {"a": 0.5}]}
    back = gather(spread(values), {name: isinstance(value, list) for name, value in values.items()})
    assert back.keys() == {"s", "empty", "x", "m"} and back["empty"] == [] and back["m"] == values["m"]
    assert all(np.array_equal(a, b) for a, b in zip(back["s"], [x, y], strict=True))


def test_a_tensor_that_is_called_as_an_element_would_be() -> None:
    types = {"s": SequenceType(tensor("f32", 2)), "s.0": tensor("f32", 1), "o": OptionalType(tensor("f32"))}
    signature = Signature(types)
    pair, one = np.ones((1, 2), np.float32), np.ones(1, np.float32)
    fitted = fit_feeds(signature, {"s.0": one, "s": pair})
    assert fitted["s.0"] is one and len(fitted["s"]) == 1 and fitted["o"] is None
    with pytest.raises(UsageError, match="input 's' is missing"):
        fit_feeds(signature, {"s.0": one})


def test_elements_of_types_that_npy_cannot_name() -> None:
    stored = np.array([1, 2], ml_dtypes.bfloat16).view("V2")
    fitted = fit_feeds(Signature({"s": SequenceType(tensor("bf16", 2))}), {"s.0": stored})
    assert fitted["s"][0].dtype == ml_dtypes.bfloat16
