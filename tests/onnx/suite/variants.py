"""Variants of the cases: symbolic sizes, constant parameters, the shortest pipeline, and older opsets.

A variant is judged like the case it comes from. Where it does not apply, its outcome is `unchanged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from compiler.backend import find_backend
from compiler.onnx_backend import prepare
from compiler.pipeline import Pipeline
from tests.onnx.suite import chance, dynamic, versions
from tests.onnx.suite.cases import Case
from tests.onnx.suite.judge import Outcome, difference, guarded, run_model

NEEDED = ("maps", "sequences", "strings", "legalize", "lower", "memory")
"""The passes without which there is no program."""
_CONSTANT_ELEMENTS = 64


def run_dynamic(case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """Every dim of every input as a symbol, as far as the case allows."""
    model, data = case.model(), list(case.data_sets())
    if chance.drawing_nodes(model):
        return Outcome(case.name, "unchanged", note="what is drawn has many right answers")

    def differ(actual: Any, expected: Any) -> str:
        return difference(actual, expected, case.rtol, case.atol)

    status, reason, note = dynamic.judge(model, data, device, options, differ)
    return Outcome(case.name, status, {"wrong": "answer", "refused": "dynamic"}.get(status, ""), reason, note=note)


def run_constants(case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """Small integers and bools of rank 0 or 1 as initializers; floats too, where they are not the first input."""
    model = case.model()
    outcome = Outcome(case.name, "unchanged", note="no input is a small parameter")
    for inputs, expected in case.data_sets():
        made = onnx.ModelProto()
        made.CopyFrom(model)
        named = list(zip(made.graph.input, inputs))
        constant = [v.name for number, (v, x) in enumerate(named) if _is_parameter(x, number)]
        if not constant:
            return outcome
        for value, x in named:
            if value.name in constant:
                made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(x), value.name))
        rest = [x for value, x in named if value.name not in constant]
        del made.graph.input[:]
        made.graph.input.extend(value for value, _ in named if value.name not in constant)
        outcome = run_model(case, made, [(rest, expected)], device, options)
        if outcome.status != "passed":
            return outcome
    return outcome


def _is_parameter(x: Any, number: int) -> bool:
    if not isinstance(x, (np.ndarray, np.generic)) or x.ndim > 1 or x.size > _CONSTANT_ELEMENTS:
        return False
    return x.dtype.kind in "biu" or (number > 0 and x.dtype.kind in "fV")


def run_minimal(case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """In C with the passes alone that make a program at all."""
    if device != "CPU":
        return Outcome(case.name, "unchanged", note="the interpreter runs no passes")
    steps = find_backend("c", **options).pipeline().passes
    pipeline = Pipeline([step for step in steps if step.name in NEEDED])
    return run_model(case, case.model(), list(case.data_sets()), device, {**options, "pipeline": pipeline})


def run_versions(case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """In every older opset whose schema of the case's operator can express it."""
    if case.kind != "node":
        return Outcome(case.name, "unchanged", note="not a case of one operator")
    notes = []
    for inputs, expected in case.data_sets():
        for older in versions.downgraded(case.model(), inputs):
            outcome = run_model(case, older.model, [(older.inputs, expected)], device, options)
            if outcome.status == "wrong" and outcome.code == "answer":
                outcome = versions.second_opinion(older, outcome, lambda m, i: prepare(m, device, **options).run(i))
            if outcome.status != "passed":
                return Outcome(case.name, outcome.status, outcome.code, f"opset {older.opset}: {outcome.reason}")
            notes.append(f"opset {older.opset}{f' ({outcome.note})' if outcome.note else ''}")
    if not notes:
        return Outcome(case.name, "unchanged", note="no older schema can express it")
    return Outcome(case.name, "passed", note=", ".join(notes))


VARIANTS: dict[str, Callable[[Case, str, Mapping[str, Any]], Outcome]] = {
    "dynamic": run_dynamic,
    "constants": run_constants,
    "minimal": run_minimal,
    "versions": run_versions,
}


def run_variant(variant: str, case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """The outcome of a variant of a case; `unchanged` where it does not apply."""
    return guarded(case.name, lambda: VARIANTS[variant](case, device, options))
