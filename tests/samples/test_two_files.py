"""CONTRIBUTING's operator, put into the two files that it names and nowhere else: every generated test takes it up."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

from tests.samples.document import blocks

ROOT = Path(__file__).parents[2]
MODEL = """
import numpy as np, onnx.parser
from compiler.onnx_backend import prepare
text = '<ir_version: 8, opset_import: ["": 17, "acme": 1]> g (float[n] x) => (float[n] y) { y = acme.SquaredRelu (x) }'
x = np.array([-1, 2, 3], np.float32)
for device in ("REFERENCE", "CPU"):
    assert prepare(onnx.parser.parse_model(text), device).run([x]).y.tolist() == [0, 4, 9], device
"""


def _example() -> tuple[str, dict[str, str]]:
    """The imports of the example, and its two declarations by the file that the comment beside each names."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = next(b.text for b in blocks(page) if b.language == "python" and "class SquaredRelu" in b.text)
    lines = source.splitlines()
    imports, declared = [], {}
    for part in ast.parse(source).body:
        if not isinstance(part, (ast.ClassDef, ast.FunctionDef)):
            imports += lines[part.lineno - 1 : part.end_lineno]
            continue
        text = lines[part.decorator_list[0].lineno - 1 : part.end_lineno]
        file = next(line.partition("# ")[2].split()[1].rstrip(";") for line in text if "ops/" in line)
        declared[file] = "\n".join(text)
    return "\n".join(imports), declared


def test_an_operator_is_two_files(tmp_path: Path) -> None:
    copied = ("ir", "compiler", "backends", "tests")
    for folder in copied:
        skipped = shutil.ignore_patterns("__pycache__", "zoo", "exporters", "models")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    imports, declared = _example()
    assert sorted(declared) == ["compiler/onnx/ops/activation.py", "ir/ops/activation.py"]
    for file, text in declared.items():
        with (tmp_path / file).open("a", encoding="utf-8") as stream:
            stream.write(f"\n\n{imports}\n\n\n{text}\n")
    _run(tmp_path, "-c", MODEL)
    generated = ["tests/ir/test_text.py", "tests/backends/test_c_ops.py"]
    done = _run(tmp_path, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "squared_relu", *generated)
    passed = [line for line in done.splitlines() if "squared_relu" in line and "PASSED" in line]
    for file in generated:
        assert sum(file in line for line in passed) >= 3, done  # one for each example at least
    _run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_declarations.py")


def _run(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
