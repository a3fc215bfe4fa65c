"""The verdict on a case: what Sesame's interpreter gives, against what the oracles give."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import CompileError, UnsupportedError, UsageError
from compiler.onnx_backend import prepare
from tests.fuzz.importers.disagreements import known
from tests.fuzz.importers.draft import Case
from tests.fuzz.importers.oracles import ORACLES, NoAnswer
from tests.fuzz.importers.schemas import NUMPY

TOLERANCE = {
    "float64": 1e-6,  # functions of ONNX Runtime that are computed in float32 inside are a known disagreement
    "float32": 2e-5,  # a few units in the last place of sums of a few terms
    "float16": 4e-3,  # four units in the last place
    "bfloat16": 2**-6,  # as onnx's own runner: two units in the last place
    "complex64": 2e-5,
    "complex128": 1e-6,
}
"""Relative and absolute; every element here is of the order of one. Types not named must be equal."""


FAILURES = ("differ", "exception", "refused")
ROUNDED = ("Resize", "Upsample", "GridSample", "QLinearConv", "QLinearMatMul")
"""Operators whose integers are rounded from floats: one more or less is a matter of rounding."""
COARSE = {
    **dict.fromkeys(("Resize", "Upsample"), 100),  # positions are computed in float32 whatever the type of the image
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LayerNormalization"), 10),  # x - mean loses digits
}
"""Operators whose results are less exact than others', and how many times."""


@dataclass(frozen=True)
class Verdict:
    """What came of a case.

    `kind` is agree, or what it failed of: refused (with a reason), differ, exception; or nobody knows: unjudged where
    no oracle runs it, disputed where one that is known to be wrong does.
    """

    operator: str
    case: str
    kind: str
    detail: str = ""
    judge: str = ""
    reproducer: str = ""


def judge(case: Case, oracles: Sequence[str] = tuple(ORACLES)) -> Verdict:
    """Runs a case on the interpreter and compares it with the first oracle that runs it."""

    def verdict(kind: str, detail: str = "", judge: str = "") -> Verdict:
        shown = case.describe() if kind in FAILURES else ""
        return Verdict(case.version.name, case.name, kind, detail, judge, shown)

    answers = _Answers(case)
    try:
        made = list(prepare(case.model, "REFERENCE").run(case.feeds))
    except CompileError as error:
        inner: Sequence[CompileError] = getattr(error, "errors", (error,))
        if not answers.any(oracles):
            return verdict("unjudged", f"refused: {inner[0].message}")
        honest = all(isinstance(each, (UnsupportedError, UsageError)) for each in inner)
        return verdict("refused" if honest else "exception", inner[0].message)
    except Exception as error:
        if not answers.any(oracles):
            return verdict("unjudged", f"failed: {error}")
        return verdict("exception", f"{type(error).__name__}: {str(error)[:300]} {_place(error)}")
    mistyped = mistake(made, case)
    if mistyped:
        return verdict("differ", mistyped, "schema")
    problems: list[str] = []
    disputes: list[str] = []
    for name in oracles:
        expected = answers.of(name)
        if expected is None:
            continue
        if name == "onnxruntime in f32":
            if problems:  # a difference is not settled by fewer digits
                break
            case = dataclasses.replace(case, coarse=True)
        problem = difference(made, expected, case)
        reason = known(case, name)
        if not problem:
            problems += [f"{name} agrees"] if problems else []
            return verdict("differ" if problems else "agree", "; ".join(problems), name)
        (problems if reason is None else disputes).append(f"{name}: {reason or problem}")
    if problems:
        return verdict("differ", "; ".join(problems))
    refusals = "; ".join(f"{k}: {v[:80]}" for k, v in answers.refusals.items())
    return verdict("disputed" if disputes else "unjudged", "; ".join(disputes) or refusals)


def mistake(outputs: Sequence[Any], case: Case) -> str:
    """How the types of outputs depart from what the schema says, or an empty text."""
    for number, (value, name) in enumerate(zip(outputs, case.output_types)):
        if name is None or not isinstance(value, (np.ndarray, np.generic)) or name == "string":
            continue
        if value.dtype != NUMPY[name] and (name, value.dtype.name) != ("bfloat16", "float32"):
            return f"output {number} is {value.dtype}, the schema says {name}"
    return ""


class _Answers:
    """The oracles' outputs, asked for when needed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.found: dict[str, list[Any] | None] = {}
        self.refusals: dict[str, str] = {}

    def of(self, name: str) -> list[Any] | None:
        if name not in self.found:
            try:
                self.found[name] = ORACLES[name](self.case)
                mistyped = mistake(self.found[name], self.case)
                if mistyped:
                    raise NoAnswer(mistyped)
            except NoAnswer as error:
                self.found[name], self.refusals[name] = None, str(error)
        return self.found[name]

    def any(self, names: Sequence[str]) -> bool:
        return any(self.of(name) is not None for name in names)


def _place(error: Exception) -> str:
    last = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
    return f"({last.filename.rpartition('/')[2]}:{last.lineno})"


def difference(made: Any, expected: Any, case: Case) -> str:
    """How a value differs from the expected one, or an empty text."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(made, (list, tuple)) or len(made) != len(expected):
            return f"{len(expected)} values expected, got {made!r:.100}"
        found = (difference(a, e, case) for a, e in zip(made, expected))
        return next((f"[{i}] {text}" for i, text in enumerate(found) if text), "")
    if isinstance(expected, Mapping):
        return "" if isinstance(made, Mapping) and dict(made) == dict(expected) else f"{made} instead of {expected}"
    if expected is None or made is None:
        return "" if expected is None and made is None else f"{made!r:.80} instead of {expected!r:.80}"
    a, e = np.asarray(made), np.asarray(expected)
    if a.shape != e.shape:
        return f"shape {list(a.shape)} instead of {list(e.shape)}"
    if e.dtype.kind in "OUST":
        narrow = any(getattr(v, "dtype", None) in (NUMPY["float16"], NUMPY["bfloat16"]) for v in case.feeds.values())
        return _texts(a.reshape(-1).tolist(), e.reshape(-1).tolist(), 1e-3 if narrow else 1e-6)
    if a.dtype != e.dtype and not (a.dtype.name == "bfloat16" and e.dtype == np.float32):
        return f"type {a.dtype} instead of {e.dtype}"
    return _numbers(a, e, case.version.name, case.coarse) if case.has_values else ""


def _texts(made: list[Any], expected: list[Any], tolerance: float) -> str:
    """How texts differ; those of numbers, which may be written in several ways, only where the numbers do."""
    wanted = [text.decode() if isinstance(text, bytes) else str(text) for text in expected]
    for at, (a, e) in enumerate(zip(made, wanted)):
        if a != e and not _same_number(a, e, tolerance):
            return f"at {at}, {a!r} instead of {e!r}"
    return ""


def _same_number(a: str, e: str, tolerance: float) -> bool:
    try:
        return bool(np.isclose(float(a), float(e), rtol=tolerance, equal_nan=True))
    except ValueError:
        return False


def _numbers(a: np.ndarray, e: np.ndarray, name: str, coarse: bool) -> str:
    tolerance = TOLERANCE.get(a.dtype.name, 0) * max(100 if coarse else 1, COARSE.get(name, 1))
    if a.dtype.kind == "b":
        wrong = a != e
    elif a.dtype.kind in "iu" or a.dtype.name.startswith(("int", "uint")):
        wrong = np.abs(np.asarray(a.astype(object) - e.astype(object))) > int(name in ROUNDED)
    else:
        wide = np.complex128 if e.dtype.kind == "c" else np.float64
        x, y = a.astype(wide), e.astype(wide)
        with np.errstate(all="ignore"):
            wrong = ~np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not np.any(wrong):
        return ""
    at = tuple(int(i) for i in np.argwhere(np.atleast_1d(wrong))[0])
    first = f"{np.atleast_1d(a)[at]} instead of {np.atleast_1d(e)[at]}"
    return f"{int(np.sum(wrong))} of {a.size} wrong, first at {list(at)}: {first}"


def cause(verdict: Verdict) -> str:
    """The detail without names and numbers, so that equal causes count together."""
    return re.sub(r"%\S+|'[^']*'|\d+(\.\d+)?", "_", verdict.detail)[:110]
