"""The official suite: no case may be wrong, and none that passed may fall behind.

All cases but the light models, which take seconds each in the interpreter; `-m sweep` runs those too.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from typing import Any

import numpy as np
import pytest

from tests.onnx.suite import expected, workers
from tests.onnx.suite.cases import Case, load_cases
from tests.onnx.suite.judge import Outcome, difference
from tests.onnx.suite.workers import run_cases

CPU_OPTIONS = {"opt": "-O1"}
_PARTS = 12
"""Tests that share the cases on CPU, so that a parallel run has something to divide."""


def _quick() -> list[str]:
    """Cases without the light models."""
    return [name for name, case in load_cases().items() if case.kind != "real"]


def _part(number: int) -> list[str]:
    return [name for name in _quick() if hashlib.sha256(name.encode()).digest()[0] % _PARTS == number]


def test_reference() -> None:
    assert not expected.failures("REFERENCE", run_cases(_quick(), "REFERENCE", {}))


@pytest.mark.parametrize("part", range(_PARTS))
def test_cpu(part: int) -> None:
    assert not expected.failures("CPU", run_cases(_part(part), "CPU", CPU_OPTIONS, jobs=1))


@pytest.mark.sweep
@pytest.mark.parametrize("device", ["REFERENCE", "CPU"])
def test_all(device: str) -> None:
    options = CPU_OPTIONS if device == "CPU" else {}
    assert not expected.failures(device, run_cases(load_cases(), device, options))


def test_expectations_name_real_cases() -> None:
    known = set(load_cases())
    assert not set(expected.exempt()) - known
    for device in ("REFERENCE", "CPU"):
        listed = expected.read(device)
        assert listed and not set(listed) - known
        assert not set(listed) & set(expected.exempt())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the fault is planted before a fork")
def test_a_crash_is_a_defect_of_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(case: Case, *_: Any) -> Outcome:
        if case.name == "test_abs":
            os._exit(9)
        return Outcome(case.name, "passed")

    monkeypatch.setattr(workers, "run_case", planted)
    found = {o.name: o for o in run_cases(["test_acos", "test_abs", "test_add"], "REFERENCE", {})}
    assert [found[name].status for name in ("test_acos", "test_abs", "test_add")] == ["passed", "wrong", "passed"]
    assert found["test_abs"].code == "crash"
    assert "crash" in expected.failures("REFERENCE", found.values())[0]


def test_what_differs() -> None:
    f32 = np.float32
    one = np.array([1.0, np.nan], f32)
    assert difference([one], [one.copy()], 1e-3, 1e-7) == ""
    assert "elements differ" in difference([one], [one * f32(1.1)], 1e-3, 1e-7)
    assert "type" in difference(one.astype(np.float64), one, 1e-3, 1e-7)
    assert "shape" in difference(one[None], one, 1e-3, 1e-7)
    assert "expected" in difference([one], [one, one], 1e-3, 1e-7)
    assert difference(np.array(["a"], object), np.array(["a"]), 0, 0) == ""
    assert difference(None, one, 0, 0) and not difference(None, None, 0, 0)
