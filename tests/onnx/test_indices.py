"""Indices that name no entry of their axis: an error on the interpreter and in C, never another entry's value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import compiler
from compiler.errors import EXIT_USAGE
from compiler.onnx_backend import run_model

CASES = {
    "Gather": ("float[N,3] x, int64[2] at", "float[2,3] y", "Gather(x, at)", [1, 4]),
    "GatherElements": ("float[N,3] x, int64[1,3] at", "float[1,3] y", "GatherElements(x, at)", [[0, -5, 1]]),
    "GatherND": ("float[N,3] x, int64[2,2] at", "float[2] y", "GatherND(x, at)", [[0, 1], [3, 3]]),
    "ScatterElements": (
        "float[N,3] x, int64[1,3] at", "float[N,3] y", "ScatterElements(x, at, {of})", [[0, 4, 1]],
    ),
    "ScatterND": ("float[N,3] x, int64[1,1] at", "float[N,3] y", "ScatterND(x, at, {of})", [[-5]]),
}  # fmt: skip


def model_of(name: str) -> onnx.ModelProto:
    inputs, output, node, _ = CASES[name]
    made = "one = Constant<value = float[1,3] {1.0, 2.0, 3.0}>()\n" if "{of}" in node else ""
    node = node.replace("{of}", "one")
    text = f'<ir_version: 10, opset_import: ["": 21]>\ntaken ({inputs}) => ({output}) {{ {made} y = {node} }}'
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("name", CASES)
def test_an_index_outside_is_an_error_everywhere(name: str, tmp_path: Path) -> None:
    model, x = model_of(name), np.arange(12, dtype=np.float32).reshape(4, 3)
    outside = np.array(CASES[name][3])
    inside = np.where((outside >= 3) | (outside < -3), -1, outside)
    loaded = compiler.compile(compiler.load(model), "c", out=tmp_path, opt="-O1").load()
    expected = run_model(model, [x, inside], "REFERENCE")[0]
    np.testing.assert_array_equal(loaded.run({"x": x, "at": inside})["y"], expected)
    with pytest.raises(compiler.CompileError, match="index") as caught:
        loaded.run({"x": x, "at": outside})
    assert caught.value.exit_code == EXIT_USAGE
    with pytest.raises(compiler.CompileError, match="out of bounds"):
        run_model(model, [x, outside], "REFERENCE")
