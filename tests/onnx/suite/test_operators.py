"""docs/operators.md is what `sesame ops` prints; with `-m sweep`, what it says is measured anew."""

from __future__ import annotations

import json

import pytest

from compiler.onnx import coverage
from tests.onnx.suite import operators

RENEW = "`python -m tests.onnx.suite.operators` renews the page"


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| domain")]


def test_the_page_is_what_the_command_prints() -> None:
    """An operator that has no findings yet may be missing on the page, so that adding one is a change of two files."""
    shown, printed = operators.PAGE.read_text(encoding="utf-8"), operators.page()
    assert shown.startswith(operators.HEAD)
    new = [
        f"| {o.domain} | {o.name} |" for o in coverage.operators() if not o.findings and f"| {o.name} |" not in shown
    ]
    assert _rows(shown) == [row for row in _rows(printed) if not row.startswith(tuple(new))], RENEW


def test_every_operator_of_onnx_is_listed() -> None:
    listed = {(o.domain, o.name): o for o in coverage.operators()}
    assert {("ai.onnx", "Conv"), ("ai.onnx.ml", "TreeEnsemble"), ("com.microsoft", "FusedMatMul")} <= set(listed)
    conv = listed["ai.onnx", "Conv"]
    assert conv.findings["interpreter"] == conv.findings["cases"] > 20 and "f32" in conv.findings["types"]
    assert {o.domain for o in coverage.operators("ai.onnx.ml")} == {"ai.onnx.ml"}


@pytest.mark.sweep
def test_findings_are_current() -> None:
    assert json.loads(coverage.FINDINGS.read_text(encoding="utf-8")) == operators.measure(), RENEW
    assert operators.PAGE.read_text(encoding="utf-8") == operators.page(), RENEW
