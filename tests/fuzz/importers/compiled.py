"""The same cases as C: many single nodes side by side in one graph, which one build serves.

What the interpreter gives is what C must give; whether that is right, `judge` says. Cases whose sizes only a run tells,
or whose values are not tensors, are left to the tests that are made for these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.c import CBackend
from compiler.driver import load
from compiler.errors import CompileError
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.types import TensorType
from tests.fuzz.importers.draft import Case, Undrawable
from tests.fuzz.importers.judge import Verdict, difference

PER_BUILD = 60
"""Cases in one graph: enough to make few builds, few enough for a build to take seconds."""


@dataclass
class _Entry:
    """A case that C takes: its graph, and what the interpreter gives."""

    case: Case
    graph: Graph
    expected: list[Any]
    prefix: str = ""

    def verdict(self, kind: str, detail: str = "") -> Verdict:
        shown = "" if kind == "agree" else self.case.describe()
        return Verdict(self.case.version.name, self.case.name, kind, detail, "interpreter", shown)


def check_compiled(cases: Sequence[Case], folder: Path, opt: str = "-O1") -> list[Verdict]:
    """The verdicts on those of `cases` that the interpreter runs and C can take."""
    backend = CBackend(opt=opt)
    entries, verdicts = [], []
    for case in cases:
        found = _entry(case, backend)
        if isinstance(found, Verdict):
            verdicts.append(found)
        elif found is not None:
            entries.append(found)
    for start in range(0, len(entries), PER_BUILD):
        verdicts += _run_together(entries[start : start + PER_BUILD], backend, folder / str(start))
    return verdicts


def _entry(case: Case, backend: CBackend) -> _Entry | Verdict | None:
    """The case, ready to be joined with others; a verdict where C refuses it; None where it is not for C."""
    try:
        graph = load(case.model).graph
        if not _is_static(graph):
            return None
        expected = list(evaluate_graph(graph, [case.feeds[v.name] for v in graph.inputs]))
    except Exception:
        return None  # that it does not run is found, and told, where it is interpreted
    entry = _Entry(case, graph, expected)
    try:
        backend.pipeline().run(graph.clone())
    except CompileError as error:
        inner: Sequence[CompileError] = getattr(error, "errors", (error,))
        return entry.verdict("refused", inner[0].message)
    except Exception as error:
        return entry.verdict("exception", f"{type(error).__name__}: {str(error)[:300]}")
    return entry


def _is_static(graph: Graph) -> bool:
    values = [*graph.inputs, *(v for node in graph.nodes() for v in node.outputs)]
    return all(isinstance(v.type, TensorType) and v.type.is_static for v in values) and bool(graph.inputs)


def _run_together(entries: Sequence[_Entry], backend: CBackend, folder: Path) -> list[Verdict]:
    """Builds and runs entries at once; one by one where that fails, so that the one to blame is found."""
    if not entries:
        return []
    try:
        results = _run(entries, backend, folder / "together")
    except Exception as error:
        if len(entries) == 1:
            text = error.render() if isinstance(error, CompileError) else str(error)
            return [entries[0].verdict("exception", f"{type(error).__name__}: {text[:300]}")]
        middle = len(entries) // 2
        halves = (entries[:middle], entries[middle:])
        return [v for n, half in enumerate(halves) for v in _run_together(half, backend, folder / str(n))]
    verdicts = []
    for entry in entries:
        made = [results[f"{entry.prefix}{name}"] for name in entry.graph.output_names]
        wrong = difference(made, entry.expected, entry.case)
        verdicts.append(entry.verdict("differ" if wrong else "agree", wrong))
    return verdicts


def _run(entries: Sequence[_Entry], backend: CBackend, folder: Path) -> Mapping[str, Any]:
    graph, feeds = joined(entries)
    artifact = backend.emit(backend.pipeline().run(graph), folder)
    return artifact.load(opt=backend.opt).run(feeds)


def joined(entries: Sequence[_Entry]) -> tuple[Graph, dict[str, Any]]:
    """One graph that holds all of theirs side by side, and its feeds."""
    whole, feeds, outputs, names = Graph("cases"), {}, [], []
    for number, entry in enumerate(entries):
        entry.prefix = f"c{number}_"
        mapped: dict[Value, Value] = {}
        for value in entry.graph.inputs:
            mapped[value] = whole.add_input(entry.prefix + value.name, value.type)
            feeds[mapped[value].name] = entry.case.feeds[value.name]
        for node in entry.graph.nodes():
            operands = [None if v is None else mapped[v] for v in node.inputs]
            hints = [entry.prefix + v.name for v in node.outputs]
            made = whole.insert(
                node.op, operands, [v.type for v in node.outputs], names=hints, sources=(entry.case.name,)
            )
            for old, new in zip(node.outputs, made.outputs):
                mapped[old] = new
                new._content = old._content
        outputs += [mapped[v] for v in entry.graph.outputs]
        names += [entry.prefix + name for name in entry.graph.output_names]
    whole.set_outputs(outputs, names)
    return whole, feeds


def drawn(specimens: Sequence[tuple[str, str]], make: Any) -> list[Case]:
    """The cases of specimens, but for those of which none can be drawn."""
    cases = []
    for specimen in specimens:
        try:
            cases.append(make(specimen))
        except Undrawable:
            continue
    return cases
