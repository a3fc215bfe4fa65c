"""Running the command in this process, and a small model to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler.cli import main

DIGITS = Path(__file__).parents[2] / "samples" / "digits" / "digits.onnx"


@dataclass
class Finished:
    """What a command left: its status, what it said, and its result as JSON."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Sesame = Callable[..., Finished]


@pytest.fixture
def sesame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sesame:
    """Runs `sesame ARGUMENTS...` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Finished(status, captured.out, captured.err)

    return run


def affine_model(**node: Any) -> onnx.ModelProto:
    """y = relu(x @ w) with x f32[N,3]; `node` replaces the operator Relu by another."""
    weights = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5, "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node(node.get("op_type", "Relu"), ["xw"], ["y"], name="last", domain=node.get("domain", "")),
    ]
    graph = helper.make_graph(
        nodes,
        "affine",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The affine model in a file of the folder that commands run in."""
    path = tmp_path / "affine.onnx"
    onnx.save(affine_model(), path)
    return path


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The affine model compiled once, to be read only."""
    folder = tmp_path_factory.mktemp("artifact")
    onnx.save(affine_model(), folder / "affine.onnx")
    assert main(["compile", str(folder / "affine.onnx"), "-q", "-O", "1", "-o", str(folder / "affine.sesame")]) == 0
    return folder / "affine.sesame"
