"""Random models of one node: the interpreter gives what ONNX Runtime or the reference evaluator of onnx gives.

A failure prints the node; `python -m tests.fuzz.importers --case Conv-11/0.17` shows that case again. The whole run is
`FUZZ_CASES=20000 FUZZ_SEED=7 pytest tests/fuzz/test_importers.py -m sweep`.
"""

from __future__ import annotations

import collections
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.importers.compiled import check_compiled, drawn
from tests.fuzz.importers.draft import PLANS, Undrawable, draw_from
from tests.fuzz.importers.judge import Verdict, difference, judge
from tests.fuzz.importers.run import make, run_cases, specimens
from tests.fuzz.importers.schemas import UNDRAWN, versions

_SAMPLE = 700
_WRONG = ("differ", "exception")


def _assert_right(verdicts: Sequence[Verdict]) -> None:
    wrong = [v for v in verdicts if v.kind in _WRONG]
    shown = "\n".join(f"{v.reproducer}\n    {v.kind}: {v.detail}" for v in wrong[:20])
    assert not wrong, f"{len(wrong)} of {len(verdicts)} cases\n{shown}"
    kinds = collections.Counter(v.kind for v in verdicts)
    assert kinds["agree"] > 0.85 * len(verdicts), kinds  # else the oracles run too little to tell anything


def test_a_sample_agrees() -> None:
    _assert_right(run_cases(specimens(_SAMPLE, seed=0), jobs=2))


@pytest.mark.sweep
def test_many_agree() -> None:
    count, seed = int(os.environ.get("FUZZ_CASES", "20000")), int(os.environ.get("FUZZ_SEED", "1"))
    _assert_right(run_cases(specimens(count, seed), jobs=2))


def _assert_compiled(count: int, seed: int, folder: Path) -> None:
    verdicts = check_compiled(drawn(specimens(count, seed), make), folder)
    wrong = [v for v in verdicts if v.kind in _WRONG]
    assert not wrong, "\n".join(f"{v.reproducer}\n    {v.kind} as C: {v.detail}" for v in wrong[:20])
    assert sum(v.kind == "agree" for v in verdicts) > 0.9 * len(verdicts)
    assert len(verdicts) > 0.5 * count  # the others have no inputs or sizes that only a run tells, or do not run


def test_a_sample_means_the_same_as_c(tmp_path: Path) -> None:
    _assert_compiled(60, 0, tmp_path)


@pytest.mark.sweep
def test_one_in_twenty_means_the_same_as_c(tmp_path: Path) -> None:
    count, seed = int(os.environ.get("FUZZ_CASES", "20000")), int(os.environ.get("FUZZ_SEED", "1"))
    _assert_compiled(count // 20, seed, tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(versions()), st.randoms(use_true_random=False))
def test_the_least_case_of_a_failure_is_found(version, source: random.Random) -> None:
    """The same cases drawn through hypothesis, which makes a failing one as small as it can."""
    try:
        case = draw_from(version, source)
    except Undrawable:
        return
    _assert_right_or_unknown(judge(case))


def _assert_right_or_unknown(verdict: Verdict) -> None:
    assert verdict.kind not in _WRONG, f"{verdict.reproducer}\n    {verdict.detail}"


def test_every_operator_has_a_plan_or_a_reason() -> None:
    names = {version.name for version in versions()}
    assert names == set(PLANS)
    assert not names & set(UNDRAWN)


def test_a_seed_is_a_case() -> None:
    firsts, seconds = (drawn(specimens(40, seed=3), make) for _ in range(2))
    assert len(firsts) > 30
    for first, second in zip(firsts, seconds, strict=True):
        assert first.describe() == second.describe()
        assert first.model == second.model


def test_a_wrong_result_is_seen() -> None:
    """The judge itself: another number, shape or type is a difference."""
    case = make(("Add-14", "0.1"))
    right = [case.feeds["x0"]]
    assert difference(right, right, case) == ""
    assert difference([right[0].reshape(-1)[:0]], right, case)
    assert difference([right[0] + 1], right, case)
    assert difference([right[0].astype("complex128")], right, case)
