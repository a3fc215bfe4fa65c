"""Observers of a pipeline: they verify, time, dump, explain and check numerics after each pass, and change nothing.

pipeline.run(model, watch=[Verify(), Time(), Dump("out/ir"), Explain("ErfGelu"), Numerics(feeds)])
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from compiler.errors import EXIT_INTERNAL, EXIT_MISMATCH, CompileError
from compiler.pipeline import Pass, Unit
from compiler.verify import map_values
from ir import kinds
from ir.evaluate import EvaluationError, evaluate_graph
from ir.graph import Graph, Node
from ir.program import Program
from ir.rule import NearMiss
from ir.text import program_text
from ir.types import TensorType
from ir.verify import VerifyError, verify_graph, verify_program


class Quiet:
    """An observer that does nothing; others override what they need."""

    def start(self, unit: Unit) -> None:
        """Before the first pass."""

    def before(self, step: Pass, unit: Unit) -> None:
        """Before each pass."""

    def after(self, step: Pass, unit: Unit) -> None:
        """After each pass."""

    def finish(self, unit: Unit) -> None:
        """After the last pass."""


class Verify(Quiet):
    """Checks the graph or program after every pass. Raises CompileError, naming the pass that broke it."""

    def start(self, unit: Unit) -> None:
        _verify(unit, "the imported graph is wrong before any pass")

    def after(self, step: Pass, unit: Unit) -> None:
        _verify(unit, f"pass {step.name} broke the {'graph' if isinstance(unit, Graph) else 'program'}")


def _verify(unit: Unit, what: str) -> None:
    try:
        if isinstance(unit, Graph):
            verify_graph(unit)
        else:
            verify_program(unit)
    except VerifyError as error:
        raise CompileError("E0701", f"{what}: {error}", exit_code=EXIT_INTERNAL) from error


@dataclass
class Timing:
    """One pass: milliseconds, ops (kernel calls, once lowered) before and after, and uses of each rule."""

    name: str
    milliseconds: float
    before: int
    after: int
    rules: dict[str, int] = field(default_factory=dict)


class Time(Quiet):
    """Measures every pass; `rows` has the figures and `table()` shows them."""

    def __init__(self) -> None:
        self.rows: list[Timing] = []
        self._started = 0.0

    def start(self, unit: Unit) -> None:
        self.rows.clear()

    def before(self, step: Pass, unit: Unit) -> None:
        self.rows.append(Timing(step.name, 0.0, extent(unit), 0))
        self._started = time.perf_counter()

    def after(self, step: Pass, unit: Unit) -> None:
        row = self.rows[-1]
        row.milliseconds = (time.perf_counter() - self._started) * 1e3
        row.after = extent(unit)

    def rule_applied(self, rule: str, node: Node) -> None:
        if self.rows:
            rules = self.rows[-1].rules
            rules[rule] = rules.get(rule, 0) + 1

    def wants_near_misses(self, rule: str) -> bool:
        return False

    def rule_missed(self, miss: NearMiss) -> None:
        """Not asked for."""

    def table(self) -> str:
        """The rows as text, with the total time."""
        lines = [f"{'pass':<16}{'ms':>9}{'before':>8}{'after':>8}  rules"]
        for row in self.rows:
            rules = ", ".join(
                f"{name} {count}" for name, count in sorted(row.rules.items(), key=lambda r: (-r[1], r[0]))
            )
            lines.append(f"{row.name:<16}{row.milliseconds:>9.1f}{row.before:>8}{row.after:>8}  {rules}".rstrip())
        lines.append(f"{'total':<16}{sum(row.milliseconds for row in self.rows):>9.1f}")
        return "\n".join(lines)


def extent(unit: Unit) -> int:
    """Ops of a graph without its nested graphs, or kernel calls of a program."""
    return len(unit) if isinstance(unit, Graph) else sum(1 for _ in unit.calls())


class Dump(Quiet):
    """Writes the text of the graph or program into a folder after each pass that changed it: `07-fuse.graph`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._number = 0
        self._last = ""

    def start(self, unit: Unit) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = 0
        self._last = ""
        self._write("input", unit)

    def after(self, step: Pass, unit: Unit) -> None:
        self._number += 1
        self._write(step.name, unit)

    def _write(self, name: str, unit: Unit) -> None:
        text = str(unit) if isinstance(unit, Graph) else program_text(unit)
        if text == self._last:
            return
        self._last = text
        ending = "graph" if isinstance(unit, Graph) else "program"
        plain = re.sub(r"\W", "_", name)
        (self.folder / f"{self._number:02}-{plain}.{ending}").write_text(text, encoding="utf-8")


class Explain(Quiet):
    """Prints where a rule was applied, and where it nearly was and why not."""

    def __init__(self, rule: str, stream: TextIO | None = None) -> None:
        self.rule = rule
        self.stream = stream
        self.applied = 0
        self.misses: list[NearMiss] = []
        self._was_tried = False

    def start(self, unit: Unit) -> None:
        self.applied = 0
        self.misses.clear()
        self._was_tried = False

    def rule_applied(self, rule: str, node: Node) -> None:
        if rule == self.rule:
            self.applied += 1
            self._print(f"{rule} at %{node.outputs[0].name}: applied")

    def wants_near_misses(self, rule: str) -> bool:
        self._was_tried |= rule == self.rule
        return rule == self.rule

    def rule_missed(self, miss: NearMiss) -> None:
        if miss.rule == self.rule and miss not in self.misses:
            self.misses.append(miss)
            self._print(str(miss))

    def finish(self, unit: Unit) -> None:
        if not self._was_tried:
            self._print(f"{self.rule}: no pass of this pipeline has a rule of that name")
        else:
            self._print(f"{self.rule}: applied {self.applied} times, nearly {len(self.misses)} times")

    def _print(self, line: str) -> None:
        print(line, file=self.stream or sys.stderr)


Outputs = Sequence[np.ndarray]


class Numerics(Quiet):
    """Runs the model after each pass and compares the results with those before it.

    Graphs run by the reference; programs by `run_program(program, feeds)`, which gives the outputs by name, and not
    at all without it. Raises CompileError, naming the pass, once a result moves by more than `rtol` and `atol` from
    what the imported graph computes. `worst` has the greatest relative difference after each pass.
    """

    def __init__(
        self,
        feeds: Mapping[str, np.ndarray],
        rtol: float = 1e-3,
        atol: float = 1e-5,
        run_program: Callable[[Program, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        self.feeds = feeds
        self.rtol = rtol
        self.atol = atol
        self.run_program = run_program
        self.worst: list[tuple[str, float]] = []
        self._expected: list[Any] = []
        self._names: list[str] = []

    def start(self, unit: Unit) -> None:
        self.worst.clear()
        self._names = list(unit.output_names)
        self._expected = list(self._run(unit) or [])

    def after(self, step: Pass, unit: Unit) -> None:
        try:
            found = self._run(unit)
        except (EvaluationError, ValueError) as error:
            message = f"after pass {step.name} the model does not run any more: {error}"
            raise CompileError("E0702", message, exit_code=EXIT_MISMATCH) from error
        if found is None:
            return
        worst = 0.0
        for name, expected, made in zip(self._names, self._expected, found, strict=True):
            problem, difference = compare(expected, made, self.rtol, self.atol)
            worst = max(worst, difference)
            if problem:
                raise CompileError(
                    "E0702", f"pass {step.name} changed output {name}: {problem}", exit_code=EXIT_MISMATCH
                )
        self.worst.append((step.name, worst))

    def _run(self, unit: Unit) -> Outputs | None:
        if isinstance(unit, Graph):
            types = {value.name: value.type for value in unit.inputs if isinstance(value.type, TensorType)}
            feeds = kinds.encode(unit.kinds, self.feeds, types, unit.bounds, unit.equal_dims)
            made = evaluate_graph(unit, [self._feed(value.name, feeds) for value in unit.inputs])
            results = kinds.decode(unit.kinds, dict(zip(unit.output_names, made)))
            return [results[name] for name in self._names]
        if self.run_program is None:
            return None
        made = self.run_program(unit, self.feeds)
        return [made[name] for name in unit.output_names]

    def _feed(self, name: str, feeds: Mapping[str, Any]) -> Any:
        if name not in feeds:
            raise CompileError("E0208", f"the numeric check needs a value for input '{name}'")
        return feeds[name]


def compare(expected: Any, found: Any, rtol: float, atol: float) -> tuple[str, float]:
    """What is wrong with an output ("" where nothing is), and its greatest relative difference from `expected`."""
    if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
        return _compare_others(expected, found, rtol, atol)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype}{list(found.shape)} instead of {expected.dtype}{list(expected.shape)}", 0.0
    if expected.dtype.kind in "OSUb" or not expected.size:
        return ("" if np.array_equal(expected, found) else "other values"), 0.0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = expected.astype(wide), found.astype(wide)
    with np.errstate(all="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        relative = difference / np.maximum(np.abs(a), atol)
        bad = ~(difference <= atol + rtol * np.abs(a))
    worst = float(np.nanmax(relative)) if not np.all(np.isnan(relative)) else float("inf")
    if not bad.any():
        return "", worst
    place = np.unravel_index(int(np.argmax(np.where(bad, np.nan_to_num(relative, nan=np.inf), -1.0))), bad.shape)
    where = ", ".join(str(int(i)) for i in place)
    return f"[{where}] is {found[place]}, it was {expected[place]} ({int(bad.sum())} of {bad.size} differ)", worst


def _compare_others(expected: Any, found: Any, rtol: float, atol: float) -> tuple[str, float]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        values = map_values(found, expected)
        return ("other keys", 0.0) if values is None else compare(values[1], values[0], rtol, atol)
    if not isinstance(expected, (list, tuple)) or not isinstance(found, (list, tuple)):
        return ("" if expected is found else "another kind of value"), 0.0
    if len(expected) != len(found):
        return f"{len(found)} tensors instead of {len(expected)}", 0.0
    results = [compare(a, b, rtol, atol) for a, b in zip(expected, found)]
    problem = next((f"tensor {i}: {problem}" for i, (problem, _) in enumerate(results) if problem), "")
    return problem, max((worst for _, worst in results), default=0.0)


__all__ = ["Dump", "Explain", "Numerics", "Quiet", "Time", "Timing", "Verify", "compare", "extent"]
