"""sesame tune: measures which forms of a model's kernels are fastest here, and keeps them in a file for `compile`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.commands.arguments import (
    DimOption,
    InputOption,
    InputsOption,
    March,
    ModelFile,
    OptLevel,
    Precision,
    Seed,
    Target,
    Threads,
    Winograd,
    gather_feeds,
    parse_dims,
    scratch_folder,
    target_options,
)
from compiler.commands.console import Console, command, table
from compiler.errors import EXIT_INTERRUPTED, EXIT_MISMATCH, EXIT_OK, UsageError, one_line

if TYPE_CHECKING:
    from compiler.tune import Effect, Outcome, Result
    from compiler.tuned import Tuned

_KEY_SHOWN = 60


@command()
def tune(
    console: Console,
    model: ModelFile,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; what it knows is kept. Default MODEL.tuned.json here.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="SECONDS", min=0, help="Measure no longer than this.")
    ] = None,
    again: Annotated[bool, typer.Option("--again/--no-again", help="Measure anew what the file knows.")] = False,
    inputs: InputsOption = None,
    single: InputOption = None,
    seed: Seed = 0,
    target: Target = "c",
    dim: DimOption = None,
    threads: Threads = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
    precision: Precision = None,
) -> int:
    """Measure which forms of a model's kernels are fastest on this machine; for `compile --tuned`."""
    from compiler.backend import find_backend
    from compiler.driver import load
    from compiler.feeds import Signature
    from compiler.tune import Tuner, measure_effect

    backend = find_backend(target, **target_options(threads, march, opt_level, winograd=winograd, precision=precision))
    path = Path(f"{model.stem}.tuned.json") if out is None else out
    known = _known(console, path, backend, again)
    with console.stage("import"):
        imported = load(model, parse_dims(dim))
    feeds = gather_feeds(console, Signature.of_graph(imported.graph), inputs, single, seed, {})
    limit = float("inf") if budget is None else budget
    with scratch_folder() as scratch, _progress(console) as progress:
        outcome = Tuner(imported, backend, feeds, known, progress, limit).run(Path(scratch))
    known.write(path)
    effect = None
    if outcome.stopped != "interrupt":
        with scratch_folder() as scratch, console.stage("compare"):
            effect = measure_effect(imported, backend, feeds, known, Path(scratch))
    record = _record(path, outcome, effect)
    console.result(lambda: _text(record, outcome.results), record)
    if outcome.stopped == "interrupt":
        return EXIT_INTERRUPTED
    return EXIT_OK if effect is None or effect.ok else EXIT_MISMATCH


def _known(console: Console, path: Path, backend: Any, again: bool) -> Tuned:
    """What the file knows, if there is one. Raises UsageError where it is of another machine, or of other options."""
    from compiler import __version__
    from compiler.tuned import Tuned, differences, read_tuned

    fresh = Tuned(backend.machine(), __version__)
    if not path.exists() or again:
        return fresh
    found = read_tuned(path)
    others = differences(found, fresh.machine, __version__)
    if others:
        message = f"the file was measured elsewhere: {'; '.join(others)}"
        raise UsageError("E0216", message, file=str(path), help="begin anew with --again, or name another with -o")
    console.log(f"{path} knows {len(found.entries)} kernels")
    return found


class _Lines:
    """Progress as a line for each kernel that was measured."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def plan(self, point: str, keys: int) -> None:
        """Says how much there is to measure."""
        self.console.log(f"{point}: {keys} kernels to measure")

    def done(self, result: Result) -> None:
        """Says what was found."""
        entry = result.entry
        said = "the rule's choice" if entry.choice == entry.rule else f"{result.gain:.2f} times as fast as {entry.rule}"
        self.console.log(f"  {_node(result)}: {entry.choice} ({said})", 1)


class _Bar(_Lines):
    """Progress as a bar on a terminal."""

    def __init__(self, console: Console, bar: Any) -> None:
        super().__init__(console)
        self.bar = bar
        self.task: Any = None

    def plan(self, point: str, keys: int) -> None:
        """Begins the bar of a pass."""
        self.task = self.bar.add_task(point, total=keys)

    def done(self, result: Result) -> None:
        """Moves the bar on."""
        self.bar.advance(self.task)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[_Lines]:
    if console.verbosity < 0 or not console.progress or not sys.stderr.isatty():
        yield _Lines(console)
        return
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Terminal(stderr=True)) as bar:
        yield _Bar(console, bar)


def _record(path: Path, outcome: Outcome, effect: Effect | None) -> dict[str, Any]:
    kernels = [
        {**vars(result.entry), "share": result.share, "gain": result.gain, "is_new": result.is_new}
        for result in outcome.results
    ]
    return {"file": str(path), "kernels": kernels, "skipped": outcome.skipped, "failed": outcome.failed,
            "stopped": outcome.stopped, "model": None if effect is None else vars(effect)}  # fmt: skip


def _text(record: dict[str, Any], results: Sequence[Result]) -> str:
    header = ["kernel", "node", "share", "rule", "ms", "tuned", "ms", "gain"]
    lines = [table(header, [_row(result) for result in results], right=(2, 4, 6, 7))]
    for key, reason in record["failed"].items():
        lines.append(f"not measured: {one_line(key)[:_KEY_SHOWN]}: {reason}")
    changed = sum(result.entry.choice != result.entry.rule for result in results)
    lines.append(f"{record['file']}: {len(results)} kernels, {changed} with another choice than the rule's")
    if record["stopped"]:
        why = "the budget is used up" if record["stopped"] == "budget" else "interrupted"
        lines.append(
            f"{why}: {record['skipped'] or 'some'} kernels were not measured; the same command goes on from here"
        )
    effect = record["model"]
    if effect is not None:
        ratio = effect["before_ms"] / effect["after_ms"]
        lines.append(
            f"model {effect['before_ms']:.4g} ms before, {effect['after_ms']:.4g} ms after: {ratio:.3f} times as fast "
            f"(least {effect['before_least_ms']:.4g} and {effect['after_least_ms']:.4g} ms)"
        )
        said = "agree" if effect["ok"] else "DIFFER"
        lines.append(f"outputs {said} (relative {effect['relative']:.3g})")
    return "\n".join(lines)


def _row(result: Result) -> list[str]:
    entry = result.entry
    times = [f"{entry.ms[form]:.4g}" if form in entry.ms else "" for form in (entry.rule, entry.choice)]
    key = one_line(entry.key)
    shown = key if len(key) <= _KEY_SHOWN else f"{key[: _KEY_SHOWN - 3]}..."
    is_rule = entry.choice == entry.rule
    return [shown, _node(result), f"{result.share:.1%}", entry.rule, times[0], "" if is_rule else entry.choice,
            "" if is_rule else times[1], "" if is_rule else f"{result.gain:.2f}"]  # fmt: skip


def _node(result: Result) -> str:
    nodes = result.entry.nodes
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return (one_line(nodes[0]) if nodes else "") + more


__all__ = ["tune"]
