"""What becomes of one case: passed, refused with a reason, or wrong. Tolerances are the suite's own."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from compiler.errors import CompileError, UnsupportedError
from compiler.onnx_backend import prepare
from tests.onnx.suite import chance
from tests.onnx.suite.cases import Case

Data = tuple[Sequence[Any], Sequence[Any]]
"""Inputs, and the outputs that they must give."""


@dataclass(frozen=True)
class Outcome:
    """`status` is passed, refused (then `code` says why), or wrong: another answer, an unforeseen error, or a crash.
    A variant that does not apply to a case is unchanged.

    `specialised` are inputs that had to be constants, with their types; `note` says how a case was judged that has
    many right answers.
    """

    name: str
    status: str
    code: str = ""
    reason: str = ""
    specialised: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_case(case: Case, device: str, options: Mapping[str, Any]) -> Outcome:
    """Runs every data set of a case and compares."""
    return guarded(case.name, lambda: run_model(case, case.model(), case.data_sets(), device, options))


def run_model(
    case: Case, model: onnx.ModelProto, data: Iterable[Data], device: str, options: Mapping[str, Any]
) -> Outcome:
    """The outcome of a model that stands for a case, by inputs and the outputs they must give. Raises CompileError."""
    specialised: tuple[str, ...] = ()
    note = ""
    is_drawn = bool(chance.drawing_nodes(model))
    prepared = prepare(model, device, **options)
    for number, (inputs, expected) in enumerate(data):
        actual = prepared.run(inputs)
        types = {n: np.asarray(x).dtype for n, x in zip(prepared.inputs, inputs) if n in prepared.specialised}
        specialised = tuple(f"{name}: {types[name]}" for name in prepared.specialised)
        wrong = difference(list(actual), expected, case.rtol, case.atol)
        if wrong and is_drawn:
            anew = lambda model, given: prepare(model, device, **options).run(given)  # noqa: E731
            wrong, note = chance.judge(model, anew, inputs, expected, actual)
        if wrong:
            return Outcome(case.name, "wrong", "answer", f"data set {number}: {wrong}", specialised)
    return Outcome(case.name, "passed", specialised=specialised, note=note)


def guarded(name: str, run: Callable[[], Outcome]) -> Outcome:
    """What `run` returns, or the outcome of the error that it raises."""
    try:
        return run()
    except CompileError as error:
        return _of_error(name, error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}:{where.lineno})"
        return Outcome(name, "wrong", "exception", text[:800])


def _of_error(name: str, error: CompileError) -> Outcome:
    """A refusal is an honest answer; any other error on a valid model is a defect."""
    inner: Sequence[CompileError] = getattr(error, "errors", (error,))
    status = "refused" if all(isinstance(each, UnsupportedError) for each in inner) else "wrong"
    return Outcome(name, status, inner[0].code, inner[0].message[:800])


def difference(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    """How a value differs from the expected one, or an empty text."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            return f"{len(expected)} values expected, got {actual!r:.200}"
        found = (difference(a, e, rtol, atol) for a, e in zip(actual, expected))
        return next((f"[{i}] {text}" for i, text in enumerate(found) if text), "")
    if expected is None or actual is None:
        return "" if expected is None and actual is None else "one value is absent"
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape:
        return f"shape {list(a.shape)}, expected {list(e.shape)}"
    if e.dtype.kind in "OUST":
        return "" if a.astype(object).tolist() == e.astype(object).tolist() else "strings differ"
    if a.dtype != e.dtype:
        return f"type {a.dtype}, expected {e.dtype}"
    return _numbers(a, e, rtol, atol)


def _numbers(a: np.ndarray, e: np.ndarray, rtol: float, atol: float) -> str:
    if e.dtype.kind in "biu" or not e.size:
        wrong = a != e
        return f"{int(wrong.sum())} of {e.size} elements differ" if wrong.any() else ""
    if e.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)  # as onnx's own runner: two units in the last place
    wide = np.complex128 if e.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), e.astype(wide)
    close = np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return ""
    with np.errstate(all="ignore"):
        worst = np.nanmax(np.abs(np.where(close, 0, x - y)))
    return f"{int((~close).sum())} of {e.size} elements differ, by up to {worst:.4g}"
