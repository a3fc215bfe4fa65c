"""sesame compile: a model becomes an artifact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.commands.arguments import (
    Deterministic,
    DimOption,
    March,
    ModelFile,
    OptLevel,
    Precision,
    Target,
    Threads,
    TunedFile,
    Winograd,
    parse_dims,
    target_options,
)
from compiler.commands.console import Console, command
from compiler.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from compiler.artifact import Artifact
    from compiler.driver import Model
    from compiler.pipeline import Observer, Pipeline


@command()
def compile_model(
    console: Console,
    model: ModelFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default MODEL.sesame here.")] = None,
    target: Target = "c",
    dim: DimOption = None,
    threads: Threads = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
    precision: Precision = None,
    deterministic: Deterministic = None,
    tuned: TunedFile = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="file|embed", help="Where the weights go.")
    ] = None,
    emit: Annotated[
        str, typer.Option("--emit", metavar="c|so|exe", help="Build a library or the test bench from the code, too.")
    ] = "c",
    force: Annotated[bool, typer.Option("--force/--no-force", help="Replace an earlier artifact.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Build it and compare with the interpreter.")
    ] = False,
    passes: Annotated[
        str | None, typer.Option("--passes", metavar="SPEC", help="Passes to run instead of the target's.")
    ] = None,
    disable_pass: Annotated[
        list[str] | None, typer.Option("--disable-pass", metavar="PASS", help="Leave a pass out.")
    ] = None,
    print_after: Annotated[
        list[str] | None, typer.Option("--print-after", metavar="PASS|all", help="Print the IR after a pass (stderr).")
    ] = None,
    time_passes: Annotated[
        bool, typer.Option("--time-passes/--no-time-passes", help="Print the time of each pass.")
    ] = False,
) -> int:
    """Compile a model."""
    from compiler.backend import find_backend
    from compiler.driver import compile, load

    given = {"winograd": winograd, "precision": precision, "weights": weights, "tuned": tuned and str(tuned)}
    options = target_options(threads, march, opt_level, deterministic=deterministic, **given)
    folder = Path(f"{model.stem}.sesame") if out is None else out
    pipeline = choose_pipeline(find_backend(target, **options), passes, disable_pass or [])
    watch = observers(pipeline, print_after or [], time_passes)
    with console.stage("import"):
        imported = load(model, parse_dims(dim))
    with console.stage("compile"):
        artifact = compile(imported, target, out=folder, force=force, pipeline=pipeline, watch=watch, **options)
    print_times(console, watch)
    record = summary(artifact)
    if emit != "c":
        with console.stage("build"):
            record["built"] = str(artifact.build(emit))
    status = _verify(console, artifact, imported, record) if verify else EXIT_OK
    console.result(lambda: summary_text(record), record)
    return status


def choose_pipeline(backend: Any, spec: str | None, disabled: list[str]) -> Pipeline:
    """The target's pipeline or the one of `spec`, without the passes that are disabled. Raises UsageError."""
    from compiler.pipeline import Pipeline

    own = backend.pipeline()
    if spec is None:
        return own.without(*disabled)
    bound = {step.name: dict(step.options) for step in own.passes}
    parsed = Pipeline.parse(spec)
    steps = [  # what only the target can say, such as what it accepts, comes from its own pipeline
        step.with_options(**{**bound.get(step.name, {}), **dict(step.options)}) for step in parsed.passes
    ]
    return Pipeline(steps).without(*disabled)


def observers(pipeline: Pipeline, print_after: list[str], time_passes: bool) -> list[Observer]:
    """What watches the passes. Raises UsageError for a pass that does not run."""
    from compiler import observe

    for name in print_after:
        if name != "all" and name not in pipeline.names():
            raise UsageError(
                "E0202",
                f"--print-after: the pipeline has no pass '{name}'",
                help=f"it runs {', '.join(pipeline.names())}",
            )
    watch: list[Any] = []
    if print_after:
        watch.append(PrintAfter(set(print_after)))
    if time_passes:
        watch.append(observe.Time())
    return watch


def print_times(console: Console, watch: list[Observer]) -> None:
    """The table of pass times on stderr, where passes were timed."""
    from compiler import observe

    for observer in watch:
        if isinstance(observer, observe.Time):
            console.log(observer.table(), -1)


class PrintAfter:
    """Prints the graph or program on stderr after the passes named, or after all that changed it."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.last = ""

    def start(self, unit: Any) -> None:
        self.last = str(text_of(unit)) if "all" in self.names else ""

    def before(self, step: Any, unit: Any) -> None:
        """Nothing is printed before a pass."""

    def after(self, step: Any, unit: Any) -> None:
        if "all" not in self.names and step.name not in self.names:
            return
        text = text_of(unit)
        if text == self.last:
            sys.stderr.write(f"# after {step.name}: unchanged\n")
        else:
            sys.stderr.write(f"# after {step.name}\n{text}\n")
        self.last = text

    def finish(self, unit: Any) -> None:
        """All was printed after its pass."""


def text_of(unit: Any) -> str:
    """A graph or a program as text."""
    from ir.graph import Graph
    from ir.text import graph_text, program_text

    return graph_text(unit) if isinstance(unit, Graph) else program_text(unit)


def _verify(console: Console, artifact: Artifact, model: Model, record: dict[str, Any]) -> int:
    """Compares the artifact with the interpreter on random inputs; the exit status."""
    from compiler.commands.verify import comparison_table, verdict
    from compiler.feeds import Signature, random_feeds
    from compiler.verify import Tolerance, compare_outputs, interpret

    feeds = random_feeds(Signature.of_graph(model.graph))
    with console.stage("verify"):
        tolerance = Tolerance(operands=artifact.precision)
        comparisons = compare_outputs(artifact.load().run(feeds), interpret(model, feeds), tolerance)
    console.log(comparison_table(comparisons))
    record["verified"] = [c.to_json() for c in comparisons]
    return verdict(comparisons)


def summary(artifact: Artifact) -> dict[str, Any]:
    """What was made, for the result of the command."""
    manifest = artifact.manifest
    keys = ("name", "target", "inputs", "outputs", "dims", "arena_bytes", "weights", "kernels", "calls", "pipeline")
    return {"folder": str(artifact.folder), **{key: manifest[key] for key in keys if key in manifest}}


def summary_text(record: dict[str, Any]) -> str:
    lines = [f"{record['folder']}: {record['name']} for {record['target']}"]
    arena = record.get("arena_bytes", {})
    if arena:
        lines.append(f"  arena   {arena['expression']} bytes")
    if "built" in record:
        lines.append(f"  built   {record['built']}")
    if "weights" in record:
        lines.append(f"  weights {record['weights']['bytes']} bytes")
    if "kernels" in record:
        lines.append(f"  kernels {record['kernels']}, called {record['calls']} times")
    return "\n".join(lines)


__all__ = ["PrintAfter", "choose_pipeline", "compile_model", "observers", "summary", "summary_text", "text_of"]
