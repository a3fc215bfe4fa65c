"""The teaching programs check themselves; here each is run as its first lines say, and must exit with status 0."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
PROGRAMS = sorted(path.name for path in SAMPLES.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs(program):
    done = subprocess.run(
        [sys.executable, SAMPLES / program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_says_how_it_is_run(program):
    text = ast.get_docstring(ast.parse((SAMPLES / program).read_text(encoding="utf-8")))
    assert text is not None
    assert f"python samples/{program}" in text


def test_the_teaching_programs_are_there():
    assert {"compile_model.py", "write_a_pass.py", "add_an_op.py", "schedule_a_kernel.py"} <= set(PROGRAMS)
