"""Measuring choices: kernels of a model that matter are timed in the forms that a pass offers, the fastest is kept.

Kernels are cut out of the model, those that take most of its time first. A form is chosen over the rule's where it was
faster, by more than what times vary, in two rounds. Nothing here changes what a model computes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compiler.choices import Answers, Question
from compiler.errors import CompileError, UsageError
from compiler.pipeline import Pass, run_pass, takes_choices
from compiler.trial import Stopwatch, cut_call, cut_node, run_passes, trial_of, typical
from compiler.tuned import Entry, Tuned, answering
from compiler.verify import Tolerance, compare_outputs
from ir.graph import Graph
from ir.program import Call, Program, Repeat

MARGIN = 0.03
"""How much faster than the rule's a form must be, of its time: below it, times of equal code differ as much."""
_LEAST_SHARE = 0.004
_MOST_FORMS = 10
_MOST_SWEPT = 64 << 20
_SECONDS = 0.5
_MOST_WEIGHTS = 512 << 20
_PROFILED_RUNS = 20
_MODEL_SECONDS = 4.0
_LEAST_MODEL_RUNS = 8
_BLOCK = 5


class Progress(Protocol):
    """Who is told how far measuring is."""

    def plan(self, point: str, keys: int) -> None:
        """Before the kernels of a pass are measured."""
        ...

    def done(self, result: Result) -> None:
        """After a kernel was measured, or found in the file."""
        ...


@dataclass
class Result:
    """What became of a question: times in milliseconds by form. `share` is that of the kernels in the model's time."""

    entry: Entry
    share: float
    is_new: bool = True

    @property
    def gain(self) -> float:
        """The rule's time over that of the choice."""
        ms = self.entry.ms
        return ms[self.entry.rule] / ms[self.entry.choice] if self.entry.choice in ms else 1.0


@dataclass
class Outcome:
    """All results, the share of the model's time that was looked at, and what stopped the measuring early, if anything:
    "budget" or "interrupt". `skipped` counts kernels that it left, `failed` gives reasons for those that could not be
    cut out or built."""

    results: list[Result] = field(default_factory=list)
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


@dataclass
class Tuner:
    """Measures the choices of a model for a target. `feeds` are inputs of it, whose sizes count; `known` is where
    results are kept, and what is known there is not measured again."""

    model: Any
    backend: Any
    feeds: Mapping[str, np.ndarray]
    known: Tuned
    progress: Progress
    seconds: float = float("inf")

    def run(self, scratch: Path) -> Outcome:
        """Measures until all is known, the time is over, or the user interrupts."""
        self._end = time.perf_counter() + self.seconds
        self._outcome = Outcome()
        try:
            self._measure_model(scratch)
            self._walk()
        except KeyboardInterrupt:
            self._outcome.stopped = "interrupt"
        return self._outcome

    def _measure_model(self, scratch: Path) -> None:
        """The time of each call as the model is now: what is worth to be measured."""
        from compiler.layers import measure_layers

        timed = replace(self.backend, profile=True, tuned="")
        folder = scratch / "profiled"
        artifact = timed.emit(
            answering(self.backend.pipeline(), self.known.answers()).run(self.model), folder, self.model
        )
        record = measure_layers(folder, self.feeds, self.backend.threads, _PROFILED_RUNS, 3)
        self._layers = record["calls"]
        self._all_ms = record["kernels_ms"]
        self._sizes = artifact.load().sizes(self.feeds)
        self._weights_bytes = int(artifact.manifest["weights"]["bytes"])

    def _walk(self) -> None:
        """Runs the passes; before each that asks, measures what it asks."""
        unit: Any = self.model.graph.clone()
        steps = self.backend.pipeline().passes
        for position, step in enumerate(steps):
            if takes_choices(step):
                self._measure(unit, steps[position:])
                step = step.with_options(choices=self.known.answers())
            unit = run_pass(step, unit)

    def _measure(self, unit: Any, steps: Sequence[Pass]) -> None:
        """Measures what the first of `steps` asks of `unit`; the others follow."""
        asked = Answers()
        run_pass(steps[0].with_options(choices=asked), _copied(unit))
        shares = {question.key: self._share(unit, question) for question in asked.asked.values()}
        wanted = [q for q in asked.asked.values() if shares[q.key] >= _LEAST_SHARE and len(q.legal) > 1]
        wanted.sort(key=lambda question: -shares[question.key])
        self.progress.plan(steps[0].name, len(wanted))
        for number, question in enumerate(wanted):
            where = (question.point, question.key)
            if where in self.known.entries and self.known.entries[where].choice in question.legal:
                self._note(Result(self.known.entries[where], shares[question.key], is_new=False))
                continue
            if time.perf_counter() > self._end:
                self._outcome.stopped, self._outcome.skipped = "budget", self._outcome.skipped + len(wanted) - number
                return
            try:
                entry = self._measure_one(unit, question, steps)
            except CompileError as error:
                self._outcome.failed[question.key] = error.message
                continue
            if entry is not None:
                self.known.add(entry)
                self._note(Result(entry, shares[question.key]))

    def _note(self, result: Result) -> None:
        self._outcome.results.append(result)
        self.progress.done(result)

    def _share(self, unit: Graph | Program, question: Question) -> float:
        """The share of the model's time that the kernels of a question take, by the ONNX nodes that they come from."""
        nodes = set(self._sources(unit, question))
        taken = sum(call["ms"] for call in self._layers if nodes & set(call["nodes"]))
        return taken / self._all_ms if self._all_ms else 0.0

    def _sources(self, unit: Graph | Program, question: Question) -> list[str]:
        subjects = set(question.subjects)
        if isinstance(unit, Graph):
            found = [node.sources for node in unit.nodes() if any(v.name in subjects for v in node.outputs)]
        else:
            found = [sources for call, sources in unit.sourced_calls() if call.kernel.name in subjects]
        return list(dict.fromkeys(source for sources in found for source in sources))

    def _measure_one(self, unit: Graph | Program, question: Question, steps: Sequence[Pass]) -> Entry | None:
        """Times the forms of one kernel. None where its sizes are told by a run only."""
        subject = question.subjects[0]
        cut = cut_node(unit, subject) if isinstance(unit, Graph) else cut_call(unit, subject)
        if cut is None:
            return None
        forms = _forms(question, self._most_forms(unit, question))
        programs = [self._formed(cut, question, form, steps) for form in forms]
        trial = trial_of(programs, min(_MOST_SWEPT, self._weights_bytes))
        watch = Stopwatch(trial, self.backend, self._sizes)
        try:
            rounds = [[typical(samples) for samples in watch.times(_SECONDS)] for _ in range(2)]
        finally:
            watch.close()
        chosen = _chosen(rounds)
        ms = {form: round(min(times), 6) for form, times in zip(forms, zip(*rounds))}
        nodes = self._sources(unit, question)
        return Entry(question.point, question.key, question.rule, forms[chosen], ms, nodes)

    def _most_forms(self, unit: Graph | Program, question: Question) -> int:
        """How many forms fit beside each other: each may have its weights in an order of its own."""
        if isinstance(unit, Graph):
            return _MOST_FORMS
        call = next(call for call in unit.calls() if call.kernel.name == question.subjects[0])
        weights = [unit.buffers[name] for name in call.args if unit.buffers[name].blob is not None]
        size = sum(buffer.blob.nbytes for buffer in weights if buffer.blob is not None)
        return max(2, min(_MOST_FORMS, _MOST_WEIGHTS // max(1, size)))

    def _formed(self, cut: Graph | Program, question: Question, form: str, steps: Sequence[Pass]) -> Program:
        """What the passes make of a kernel in a form. Raises UsageError where it is another kernel alone."""
        where = (question.point, question.key)
        answers = Answers({**self.known.answers().known, where: form})
        names = [step.name for step in steps]
        rest = [step.with_options(choices=answers) if takes_choices(step) else step for step in steps]
        made = run_passes(rest[: names.index("memory")], _copied(cut))
        if (
            where not in answers.asked
            or where in answers.refused
            or any(not isinstance(s, Call | Repeat) for s in made.walk())
        ):
            raise UsageError("E0217", "alone it is another kernel than in the model")
        return made


@dataclass(frozen=True)
class Effect:
    """Milliseconds of the whole model before and after, as medians and least; how much outputs differ at most,
    relative to their largest element, and whether that is what rounding explains."""

    before_ms: float
    after_ms: float
    before_least_ms: float
    after_least_ms: float
    relative: float
    ok: bool


def measure_effect(model: Any, backend: Any, feeds: Mapping[str, np.ndarray], known: Tuned, scratch: Path) -> Effect:
    """Times a model with the rules' choices and with those known, in blocks that take turns; compares outputs first."""
    loaded = []
    for name, answers in (("before", Answers()), ("after", known.answers())):
        program = answering(backend.pipeline(), answers).run(model)
        loaded.append(backend.emit(program, scratch / name, model).load(threads=backend.threads))
    results = [each.run(feeds) for each in loaded]
    compared = compare_outputs(results[1], results[0], Tolerance(operands=getattr(backend, "precision", "f32")))
    samples: list[list[float]] = [[], []]
    end = time.perf_counter() + _MODEL_SECONDS
    while len(samples[0]) < _LEAST_MODEL_RUNS or time.perf_counter() < end:
        for each, times in zip(loaded, samples):
            times += [_timed(each, feeds) for _ in range(_BLOCK)][1:]  # the first finds the other's memory in the cache
    for each in loaded:
        getattr(each, "close", lambda: None)()
    medians, least = [statistics.median(each) for each in samples], [min(each) for each in samples]
    worst = max((comparison.relative for comparison in compared), default=0.0)
    ok = all(comparison.ok for comparison in compared)
    return Effect(medians[0], medians[1], least[0], least[1], worst, ok)


def _timed(loaded: Any, feeds: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    loaded.run(feeds)
    return (time.perf_counter() - start) * 1e3


def _copied(unit: Graph | Program) -> Any:
    """A copy that passes may change."""
    if isinstance(unit, Graph):
        return unit.clone()
    return replace(unit, buffers=dict(unit.buffers), steps=list(unit.steps))


def _forms(question: Question, most: int) -> list[str]:
    """The forms to be timed: the rule's, those that its pass expects most of, and some of the others."""
    others = [form for form in question.legal if form != question.rule]
    first = others[: (most - 1) * 2 // 3]
    rest = others[len(first) :]
    wanted = most - 1 - len(first)
    spread = (
        [rest[i * len(rest) // wanted] for i in range(wanted)] if len(rest) > wanted > 0 else rest[: max(0, wanted)]
    )
    return [question.rule, *first, *spread]


def _chosen(rounds: Sequence[Sequence[float]]) -> int:
    """The fastest form of the first round, where it was faster than the first form in all of them, by the margin."""
    best = min(range(len(rounds[0])), key=lambda i: rounds[0][i])
    return best if all(times[best] < times[0] * (1 - MARGIN) for times in rounds) else 0


__all__ = ["MARGIN", "Effect", "Outcome", "Progress", "Result", "Tuner", "measure_effect"]
