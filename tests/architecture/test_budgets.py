"""Budgets of start-up: what the user waits for is printed on every run; what fails is three times the budget.

Processor time is what is held, because time on the wall says more about what else the machine is doing. The sizes and
speeds of compiled models are not measured here.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass

IMPORT_MS = 150
HELP_MS = 300
SLACK = 3
_RUNS = 5


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one process, from start to end."""

    wall: float
    processor: float


def _cost(arguments: list[str]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(wall * 1e3, used * 1e3)


def _least(arguments: list[str]) -> Cost:
    costs = [_cost(arguments) for _ in range(_RUNS)]
    return Cost(min(c.wall for c in costs), min(c.processor for c in costs))


def _report(capsys, what: str, cost: Cost, budget: int) -> None:
    with capsys.disabled():
        print(f"\n{what}: {cost.wall:.0f} ms, {cost.processor:.0f} ms of processor; the budget is {budget} ms")


def test_import_compiler(capsys):
    """What `import compiler` adds to a bare interpreter."""
    bare, whole = _least(["-c", "pass"]), _least(["-c", "import compiler"])
    cost = Cost(max(0.0, whole.wall - bare.wall), max(0.0, whole.processor - bare.processor))
    _report(capsys, "import compiler", cost, IMPORT_MS)
    assert cost.processor < SLACK * IMPORT_MS


def test_sesame_help(capsys):
    """The whole process."""
    cost = _least(["-m", "compiler.cli", "--help"])
    _report(capsys, "sesame --help", cost, HELP_MS)
    assert cost.processor < SLACK * HELP_MS
