"""A target in a package of its own: found by its entry point, listed, compiled for, verified, refusing in sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples.installed import PACKAGE, ROOT, install


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def perceptron(environment, tmp_path_factory):
    """The example's model. Making it also runs the example, which compares the target with the interpreter."""
    path = tmp_path_factory.mktemp("model") / "perceptron.onnx"
    done = _python(environment, PACKAGE / "example.py", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def _python(environment, *arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def _sesame(environment, *arguments) -> subprocess.CompletedProcess[str]:
    return _python(environment, "-m", "compiler.cli", *arguments)


def test_targets_lists_it(environment):
    done = _sesame(environment, "targets", "--format", "json")
    toy = next(target for target in json.loads(done.stdout) if target["name"] == "toy")
    assert toy["options"] == [{"name": "comments", "default": True}]
    assert toy["description"].startswith("a machine")


def test_compile_verify_and_run(environment, perceptron, tmp_path):
    out = tmp_path / "out"
    done = _sesame(environment, "compile", perceptron, "--target", "toy,comments=false", "-o", out, "--verify")
    assert done.returncode == 0, done.stderr
    assert ";" not in Path(out, "model.toy").read_text(encoding="utf-8")
    again = _sesame(environment, "verify", out, "--model", perceptron, "--dim", "batch=7")
    assert again.returncode == 0, again.stderr
    assert "f32[7,3]" in again.stdout
    assert _sesame(environment, "inspect", out).returncode == 0


def test_two_compiles_give_equal_bytes(environment, perceptron, tmp_path):
    for name in ("a", "b"):
        assert _sesame(environment, "compile", perceptron, "-t", "toy", "-o", tmp_path / name).returncode == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_it_refuses_by_node_and_reason(environment):
    done = _sesame(environment, "check", ROOT / "samples/digits/digits.onnx", "--target", "toy")
    assert done.returncode == 4
    assert "the toy machine has no instruction for conv" in done.stderr
    assert "/conv1/Conv" in done.stderr
    assert "/conv2/Conv" in done.stderr


def test_an_option_it_does_not_have(environment, perceptron, tmp_path):
    done = _sesame(environment, "compile", perceptron, "-t", "toy,coments=true", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "did you mean 'comments'?" in done.stderr


def test_a_program_that_needs_too_many_registers(environment, tmp_path):
    """The last stage refuses as well: with what does not fit, and status 5."""
    script = f"""
import onnx
from onnx import helper
F = onnx.TensorProto.FLOAT
nodes = [helper.make_node("Exp" if i % 2 else "Neg", ["x" if i < 2 else f"v{{i - 2}}"], [f"v{{i}}"]) for i in range(40)]
value = lambda name: helper.make_tensor_value_info(name, F, ["n"])
graph = helper.make_graph(nodes, "wide", [value("x")], [value(f"v{{i}}") for i in range(20, 40)])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), {str(tmp_path / "wide.onnx")!r})
"""
    assert _python(environment, "-c", script).returncode == 0
    done = _sesame(environment, "compile", tmp_path / "wide.onnx", "-t", "toy", "-o", tmp_path / "out")
    assert done.returncode == 5, done.stderr
    assert "the 16 of the toy machine" in done.stderr
    assert not (tmp_path / "out").exists()
