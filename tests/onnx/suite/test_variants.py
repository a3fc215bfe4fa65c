"""Variants of the suite's cases: a sample of each every time, all of them with `-m sweep`; and what they find."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.onnx.suite import dynamic, expected, versions
from tests.onnx.suite.cases import load_cases
from tests.onnx.suite.judge import Outcome, difference
from tests.onnx.suite.variants import VARIANTS
from tests.onnx.suite.workers import run_cases

CPU_OPTIONS = {"opt": "-O1"}
_EVERY = {"REFERENCE": 24, "CPU": 150}
"""One case in so many runs each time."""
SAME_VERDICTS = ("constants", "minimal")
"""Variants that must not refuse what passes as it is. The others may: older operators, and sizes that must be known."""


def _sample(device: str, variant: str) -> list[str]:
    def place(name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{variant} {name}".encode()).digest()[:4], "little")

    cases = load_cases()
    return [name for name in cases if cases[name].kind != "real" and place(name) % _EVERY[device] == 0]


def _failures(device: str, variant: str, outcomes: list[Outcome]) -> list[str]:
    found = expected.failures(device, outcomes)
    return found if variant in SAME_VERDICTS else [line for line in found if "passed before" not in line]


DEVICES = [("CPU", variant) for variant in VARIANTS]
DEVICES += [("REFERENCE", variant) for variant in VARIANTS if variant != "minimal"]


@pytest.mark.parametrize(("device", "variant"), DEVICES)
def test_sample(device: str, variant: str) -> None:
    outcomes = run_cases(_sample(device, variant), device, CPU_OPTIONS if device == "CPU" else {}, variant=variant)
    assert not _failures(device, variant, outcomes)
    assert sum(o.status == "passed" for o in outcomes) > 3


@pytest.mark.sweep
@pytest.mark.parametrize(("device", "variant"), DEVICES)
def test_all(device: str, variant: str) -> None:
    outcomes = run_cases(load_cases(), device, CPU_OPTIONS if device == "CPU" else {}, variant=variant)
    assert not _failures(device, variant, outcomes)


def _differ(actual: Any, wanted: Any) -> str:
    return difference(actual, wanted, 1e-6, 0)  # sums and products of few floats


def _model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')


class _Fixed:
    """A model that ignores how many rows it is given but two."""

    specialised = ()

    def __init__(self, model: onnx.ModelProto) -> None:
        self.inputs = [value.name for value in model.graph.input]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        (x,) = inputs
        return [np.concatenate([x[:2] * 2, x[2:]])]


def test_a_batch_that_is_built_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("g (float[2, 3] x) => (float[2, 3] y) { y = Add (x, x) }")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    real = dynamic.prepare
    monkeypatch.setattr(dynamic, "prepare", lambda m, d, **o: _Fixed(m) if d == "CPU" else real(m, d, **o))
    status, reason, _ = dynamic.judge(model, [([x], [x * 2])], "CPU", {}, _differ)
    assert status == "wrong" and "other sizes (x [3, 4])" in reason


@pytest.mark.parametrize(
    ("text", "inputs", "note"),
    [
        ("g (float[2, 3] x) => (y) { y = Relu (x) }", [(2, 3)], "every dim; x [3, 4]"),
        ("g (float[2, 3] x, float[2, 3] w) => (y) { y = Mul (x, w) }", [(2, 3), (2, 3)], "every dim; x [3, 4], w"),
        (
            "g (float[2, 3] x, float[1, 3] w) => (y) { y = Mul (x, w) }",
            [(2, 3), (1, 3)],
            "every dim; x [3, 4], w [1, 4]",
        ),
    ],
)
def test_as_many_symbols_as_the_case_allows(text: str, inputs: list[tuple[int, ...]], note: str) -> None:
    arrays = [np.ones(shape, np.float32) for shape in inputs]
    status, reason, found = dynamic.judge(_model(text), [(arrays, [arrays[0]])], "REFERENCE", {}, _differ)
    assert (status, reason) == ("passed", "") and found.startswith(note)


def test_an_input_becomes_an_attribute_again() -> None:
    model = _model("g (float[2, 1, 3] x, int64[1] axes) => (float[2, 3] y) { y = Squeeze (x, axes) }")
    x, axes = np.ones((2, 1, 3), np.float32), np.array([1])
    older = {o.opset: o for o in versions.downgraded(model, [x, axes])}
    assert sorted(older) == [7, 11]
    (node,) = older[11].model.graph.node
    assert list(node.input) == ["x"] and node.attribute[0].name == "axes" and list(node.attribute[0].ints) == [1]
    assert len(older[11].inputs) == 1


def test_a_default_that_changed_is_written_out() -> None:
    model = _model("g (float[2, 3] x) => (float[2, 3] y) { y = Softmax (x) }")
    older = {o.opset: o for o in versions.downgraded(model, [np.ones((2, 3), np.float32)])}
    assert sorted(older) == [7, 11]
    assert older[11].model.graph.node[0].attribute[0].i == -1


def test_what_an_older_schema_cannot_say_is_left_out() -> None:
    model = _model("g (bfloat16[2] x, bfloat16[2] z) => (bfloat16[2] y) { y = Add (x, z) }")
    x = np.ones(2, np.float32).astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    assert [o.opset for o in versions.downgraded(model, [x, x])] == [13]
