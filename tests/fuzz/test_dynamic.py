"""Random models with sizes that only a run tells: interpreter, lowered program and C give the same, or all refuse.

Each is run at three choices of its sizes, some of them 0. `FUZZ_SEED=123 pytest tests/fuzz/test_dynamic.py -k one_seed`
checks one model; `FUZZ_GRAPHS=1000 FUZZ_FIRST=5000 pytest tests/fuzz/test_dynamic.py -m sweep` checks a thousand from
seed 5000 on, as C at -O0 and, under sanitizers, at -O3.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.dynamic_check import Report, check, check_fenced

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
_LOWERED, _COMPILED, _FENCED = 60, 12, 16
_PLAIN: dict[str, Any] = {"opt": "-O0", "march": ""}
_WATCHED: dict[str, Any] = {"opt": "-O3", "march": "", "sanitize": "address+undefined"}


def _check_all(seeds: range, folder: Path, options: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # a test bench that stops with a status frees nothing
    report = Report()
    problems = [problem for seed in seeds for problem in check(seed, folder / str(seed), report, options)]
    assert not problems, "\n".join(problems)
    return report


def test_lowered_as_interpreted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = _check_all(range(_LOWERED), tmp_path, [], monkeypatch)
    assert report["ran"] > _LOWERED  # of three runs of each model


def test_compiled_as_interpreted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = _check_all(range(_LOWERED, _LOWERED + _COMPILED), tmp_path, [{"opt": "-O1", "march": ""}], monkeypatch)
    assert report["ran"] > _COMPILED


def test_sizes_that_meet_are_checked_before_memory_is_touched(tmp_path: Path) -> None:
    report = Report()
    problems = check_fenced(range(_FENCED), tmp_path, report)
    assert not problems, "\n".join(problems)
    assert report["ran"] > _FENCED / 2 and report["failed as it should"] > _FENCED / 2, report


@pytest.mark.skipif("FUZZ_SEED" not in os.environ, reason="FUZZ_SEED names no model")
def test_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ["FUZZ_SEED"])
    _check_all(range(seed, seed + 1), tmp_path, [_PLAIN, _WATCHED], monkeypatch)


@pytest.mark.sweep
def test_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, count = int(os.environ.get("FUZZ_FIRST", "1000")), int(os.environ.get("FUZZ_GRAPHS", "200"))
    report = _check_all(range(first, first + count), tmp_path, [_PLAIN, _WATCHED], monkeypatch)
    assert report["ran"] > count


@pytest.mark.sweep
def test_many_that_meet(tmp_path: Path) -> None:
    first, count = int(os.environ.get("FUZZ_FIRST", "1000")), int(os.environ.get("FUZZ_GRAPHS", "200"))
    problems = check_fenced(range(first, first + count), tmp_path, Report())
    assert not problems, "\n".join(problems)
