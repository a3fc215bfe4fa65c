"""The official suite: no case may be wrong, and none that passed may fall behind.

REFERENCE runs all cases but the light models, CPU a part chosen by the hash of the name; `-m sweep` runs everything.
"""

from __future__ import annotations

import hashlib

import pytest

from tests.onnx.suite import expected
from tests.onnx.suite.cases import load_cases
from tests.onnx.suite.workers import run_cases

CPU_OPTIONS = {"opt": "-O1"}
_EVERY = 6
"""One case in so many runs on CPU each time."""


def _quick() -> list[str]:
    """Cases without the light models, which take seconds each in the interpreter."""
    return [name for name, case in load_cases().items() if case.kind != "real"]


def _sample() -> list[str]:
    return [name for name in _quick() if hashlib.sha256(name.encode()).digest()[0] % _EVERY == 0]


def test_reference() -> None:
    assert not expected.failures("REFERENCE", run_cases(_quick(), "REFERENCE", {}))


def test_cpu_sample() -> None:
    assert not expected.failures("CPU", run_cases(_sample(), "CPU", CPU_OPTIONS))


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
