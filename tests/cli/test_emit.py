"""`sesame compile --emit` builds what it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SESAME = [sys.executable, "-m", "compiler.cli"]


def _compile(out: Path, emit: str) -> subprocess.CompletedProcess[str]:
    command = [*SESAME, "compile", "samples/digits/digits.onnx", "-o", str(out), "--emit", emit]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_library(tmp_path: Path) -> None:
    done = _compile(tmp_path / "out", "so")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("libmodel-*.so"))


def test_program_runs(tmp_path: Path) -> None:
    done = _compile(tmp_path / "out", "exe")
    assert done.returncode == 0, done.stderr
    bench = subprocess.run(
        [tmp_path / "out" / "bench", "--weights", tmp_path / "out" / "model.weights", "N=2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert bench.returncode == 0, bench.stderr
    assert "digits" in bench.stdout


def test_unknown_product_is_a_usage_error(tmp_path: Path) -> None:
    done = _compile(tmp_path / "out", "exx")
    assert done.returncode == 2
    assert "exx" in done.stderr
