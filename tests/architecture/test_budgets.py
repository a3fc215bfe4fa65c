"""Budgets of start-up: reported on every run, and failed only at three times the budget.

That slack is for busy machines. The sizes and speeds of compiled models are not measured here.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

IMPORT_MS = 150
HELP_MS = 300
SLACK = 3
_RUNS = 5


def _milliseconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return (time.perf_counter() - started) * 1e3


def _report(capsys, what: str, samples: list[float], budget: int) -> float:
    best = min(samples)
    with capsys.disabled():
        print(f"\n{what}: best {best:.0f} ms, median {statistics.median(samples):.0f} ms; the budget is {budget} ms")
    return best


def test_import_compiler(capsys):
    """What `import compiler` adds to a bare interpreter."""
    script = "import time; t = time.perf_counter(); import compiler; print((time.perf_counter() - t) * 1e3)"
    samples = []
    for _ in range(_RUNS):
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        samples.append(float(done.stdout))
    assert _report(capsys, "import compiler", samples, IMPORT_MS) < SLACK * IMPORT_MS


def test_sesame_help(capsys):
    """The whole process, from start to end."""
    samples = [_milliseconds(["-m", "compiler.cli", "--help"]) for _ in range(_RUNS)]
    assert _report(capsys, "sesame --help", samples, HELP_MS) < SLACK * HELP_MS
