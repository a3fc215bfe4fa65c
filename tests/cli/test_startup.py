"""What starting costs: help and `import compiler` load none of the heavy packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnx", "lark", "networkx", "rich", "onnxruntime", "ir.graph", "compiler.driver")


@pytest.mark.parametrize("statement", ["import compiler", "from compiler.cli import main; main(['--help'])"])
def test_nothing_heavy_is_imported(statement: str) -> None:
    code = f"import sys\n{statement}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:]
