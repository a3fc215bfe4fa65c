"""Tests written as text: a graph, what is done to it, and the text it must become.

A case begins with `# test: pass SPEC`, `# test: rule NAME`, `# test: roundtrip` or `# test: verify`, and its graph
follows. Further lines say what must hold:

- `# gives:` the rest of the case is the graph that comes out (`pytest --bless` writes it),
- `# run: @f([1.0, 2.0]) == [2.0, 4.0]` holds before and after the passes, and of the kernels they are lowered to,
- `# error: words` beside or below a line: parsing or verifying fails there, with these words,
- `# raises: words`: the pass fails with these words,
- `# near miss: words`: the rule nearly applies, and says so.

Constants that the text names (`const @w`) have seeded random elements.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import ir.ops  # noqa: F401 - registers the ops
from backends.reference import run_program
from compiler.errors import CompileError
from compiler.pipeline import Pipeline
from compiler.rules import rules_of
from ir.blob import ArrayBlob, Blob
from ir.evaluate import evaluate_graph
from ir.graph import Graph
from ir.op import parse_type, sample
from ir.parse import ParseError, parse_graph
from ir.rewrite import rewrite
from ir.text import graph_blobs
from ir.verify import VerifyError, verify_graph

_LOWERING = "legalize,fuse,lower,memory"


class CaseFailure(Exception):
    """A case does not hold; the message shows what came out."""


@dataclass
class Case:
    """One case of a file: `source` is everything up to `# gives:`, `expected` what follows it."""

    name: str
    line: int
    what: str
    source: str
    expected: str | None
    blessed: str | None = field(default=None)

    def check(self) -> None:
        """Raises CaseFailure."""
        kind, _, argument = self.what.partition(" ")
        if kind in ("pass", "rule"):
            self._check_text(self.outcome(kind, argument.strip()))
        elif kind == "roundtrip":
            self._check_roundtrip()
        elif kind == "verify":
            self._check_error()
        else:
            raise CaseFailure(f"there is no test called {self.what!r}")

    def parse(self) -> Graph:
        return parse_graph(self.source, blobs_of(self.source))

    def outcome(self, kind: str, argument: str) -> Graph | None:
        """The graph after the passes, with its runs checked; None where they fail as the case says they must."""
        graph = self.parse()
        verify_graph(graph)
        raises = self._words("raises")
        try:
            made = self._rewritten(graph, argument) if kind == "rule" else Pipeline.parse(argument).run(graph)
        except CompileError as error:
            if not raises or any(words not in str(error) for words in raises):
                raise CaseFailure(f"the pass failed:\n{error}") from error
            return None
        if raises:
            raise CaseFailure(f"the pass did not fail; it must say: {raises}")
        verify_graph(made)
        for run in self._words("run"):
            check_run(run, graph, made)
        return made

    def _rewritten(self, graph: Graph, name: str) -> Graph:
        rule = next((rule for rule in rules_of() if rule.__name__ == name), None)
        if rule is None:
            raise CaseFailure(f"there is no rule called {name!r}")
        made, misses = graph.clone(), []
        rewrite(made, [rule], on_near_miss=lambda miss: misses.append(str(miss)))
        wanted = self._words("near miss")
        if len(wanted) != len(misses) or any(words not in miss for words, miss in zip(wanted, misses)):
            raise CaseFailure("near misses are:\n  " + ("\n  ".join(misses) or "none"))
        return made

    def _check_text(self, made: Graph | None) -> None:
        if made is None or (self.expected is None and self._words("near miss")):
            return
        self.blessed = str(made).strip()
        parse_graph(self.blessed, graph_blobs(made))
        if self.expected is None or self.blessed != self.expected.strip():
            raise CaseFailure(_difference(self.expected or "", self.blessed))

    def _check_roundtrip(self) -> None:
        graph = self.parse()
        verify_graph(graph)
        written = "\n".join(line for line in self.source.splitlines() if not line.startswith("#")).strip()
        if str(graph).strip() != written:
            raise CaseFailure(_difference(written, str(graph).strip()))

    def _check_error(self) -> None:
        wanted = self._words("error")
        try:
            verify_graph(self.parse())
        except ParseError as error:
            lines = self.source.splitlines()
            near = "\n".join(lines[error.line - 1 : error.line + 1])
            if all(words in str(error) and f"# error: {words}" in near for words in wanted) and wanted:
                return
            raise CaseFailure(f"the error is another one, or at another line:\n{error}") from error
        except VerifyError as error:
            if all(words in str(error) for words in wanted) and wanted:
                return
            raise CaseFailure(f"the error is another one:\n{error}") from error
        if wanted:
            raise CaseFailure(f"nothing is wrong with the graph; it must say: {wanted}")

    def _words(self, key: str) -> list[str]:
        return [found.strip() for found in re.findall(rf"# {key}: (.*)$", self.source, re.MULTILINE)]


def read_cases(path: Path) -> list[Case]:
    """The cases of a file, in order."""
    cases: list[Case] = []
    text = path.read_text(encoding="utf-8")
    starts = [found.start() for found in re.finditer(r"^# test: ", text, re.MULTILINE)]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)])):
        head, _, rest = text[start:end].partition("\n")
        source, marker, expected = _cut_comment(rest).partition("# gives:\n")
        what = head.removeprefix("# test: ").strip()
        line = text[:start].count("\n") + 1
        cases.append(Case(f"{number}-{what.replace(' ', '-')}", line, what, source, expected if marker else None))
    return cases


def _cut_comment(text: str) -> str:
    """`text` without the comment that introduces the next case: comment lines at its end, after a blank line."""
    lines = text.splitlines(keepends=True)
    end = len(lines)
    while end and (
        not lines[end - 1].strip() or re.match(r"#(?! (run|error|raises|near miss|gives):)", lines[end - 1])
    ):
        end -= 1
    return "".join(lines[:end])


def blobs_of(text: str) -> dict[str, Blob]:
    """Random bytes for every constant that a text refers to by name."""
    found = re.findall(r'^\s*%\S+?:\s*(\w+\[[^\]]*\])\s*=\s*const @("[^"]*"|\S+)', text, re.MULTILINE)
    rng = np.random.default_rng(0)
    return {name.strip('"'): ArrayBlob(sample(parse_type(type_), rng)) for type_, name in found}


def check_run(run: str, before: Graph, after: Graph) -> None:
    """Checks `@f(args) == results` on a graph before and after passes, and on the program it lowers to."""
    found = re.fullmatch(r"@\S+?\((.*)\)\s*==\s*(.*)", run)
    if not found:
        raise CaseFailure(f"cannot read the run: {run}")
    arguments = ast.literal_eval(f"({found[1]},)") if found[1].strip() else ()
    expected: Any = ast.literal_eval(found[2])
    expected = expected if isinstance(expected, tuple) else (expected,)
    feeds = [np.array(a, value.dtype.numpy) for a, value in zip(arguments, before.inputs, strict=True)]
    names = [value.name for value in before.inputs]
    program = Pipeline.parse(_LOWERING).run(after)
    lowered = run_program(program, dict(zip(names, feeds)))
    for where, results in (
        ("before the passes", evaluate_graph(before, feeds)),
        ("after the passes", evaluate_graph(after, feeds)),
        ("as kernels", tuple(lowered[name] for name in program.output_names)),
    ):
        for result, wanted in zip(results, expected, strict=True):
            # f32 results against decimals that were typed in with six digits.
            if np.shape(wanted) != result.shape or not np.allclose(result, wanted, 1e-5, 1e-5, equal_nan=True):
                raise CaseFailure(f"{run}\n{where} it is {result.tolist()}")


def bless(path: Path, case: Case) -> None:
    """Writes what comes out of a case into its file as what is expected."""
    try:
        case.check()
        return
    except CaseFailure:
        if case.blessed is None:
            raise
    text = path.read_text(encoding="utf-8")
    old = case.source + ("" if case.expected is None else "# gives:\n" + case.expected)
    if text.count(old) != 1:
        raise CaseFailure("the case stands in its file twice; change one of the two")
    path.write_text(text.replace(old, f"{case.source}# gives:\n{case.blessed}\n"), encoding="utf-8")


def _difference(wanted: str, found: str) -> str:
    lines = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "expected", "found", lineterm="", n=2)
    return "\n".join(lines) + f"\n\nit became:\n{found}"
