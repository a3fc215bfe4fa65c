"""sesame verify: runs a compiled model and a reference on the same inputs, and compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.commands.arguments import (
    Deterministic,
    DimOption,
    InputOption,
    InputsOption,
    March,
    Opened,
    OptLevel,
    Precision,
    Seed,
    Subject,
    Target,
    Threads,
    Winograd,
    gather_feeds,
    load_artifact,
    open_subject,
    parse_dims,
    scratch_folder,
    target_options,
)
from compiler.commands.console import Console, command, table
from compiler.errors import EXIT_MISMATCH, EXIT_OK, UsageError

if TYPE_CHECKING:
    from compiler.driver import Model
    from compiler.verify import Comparison, Tolerance
    from ir.graph import Graph


@command()
def verify(
    console: Console,
    subject: Subject,
    against: Annotated[
        str, typer.Option("--against", metavar="interp|ort|onnx-ref|data", help="What to compare with.")
    ] = "interp",
    model: Annotated[
        Path | None, typer.Option("--model", help="The .onnx file that an artifact was made from.")
    ] = None,
    inputs: InputsOption = None,
    single: InputOption = None,
    outputs: Annotated[
        Path | None, typer.Option("--outputs", metavar="FILE.npz", help="Expected outputs, for --against data.")
    ] = None,
    seed: Seed = 0,
    target: Target = "c",
    dim: DimOption = None,
    threads: Threads = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
    precision: Precision = None,
    deterministic: Deterministic = None,
    per_node: Annotated[
        bool,
        typer.Option("--per-node/--no-per-node", help="Compare every value of the optimised graph with ONNX Runtime."),
    ] = False,
    sanitize: Annotated[
        bool, typer.Option("--sanitize/--no-sanitize", help="Run it under address and undefined-behaviour sanitizers.")
    ] = False,
    rtol: Annotated[float | None, typer.Option("--rtol", min=0.0, help="Relative tolerance.")] = None,
    atol: Annotated[float | None, typer.Option("--atol", min=0.0, help="Absolute tolerance.")] = None,
    ulp: Annotated[int | None, typer.Option("--ulp", min=0, help="Tolerance in units in the last place.")] = None,
    cosine: Annotated[
        float | None, typer.Option("--cosine", max=1.0, help="Let floats pass with at least this cosine similarity.")
    ] = None,
) -> int:
    """Compare a compiled model with a reference; status 1 where they differ, 7 where the reference cannot run it."""
    from compiler.verify import Tolerance

    tolerance = Tolerance(rtol, atol, ulp, cosine)
    if (against == "data") != (outputs is not None):
        raise UsageError("E0213", "--against data and --outputs go together")
    sanitizers = "address+undefined" if sanitize else None
    options = target_options(
        threads,
        march,
        opt_level,
        winograd=winograd,
        precision=precision,
        deterministic=deterministic,
        sanitize=sanitizers,
    )
    with scratch_folder() as scratch:
        opened = open_subject(console, subject, target, dim, options, Path(scratch))
        tolerance = replace(tolerance, operands=opened.artifact.precision)
        reference = opened.model or _model_of(opened, model, against, dim)
        feeds = gather_feeds(console, opened.signature, inputs, single, seed, opened.sizes)
        if per_node:
            comparisons = _per_node(console, reference, target, options, feeds, tolerance)
        else:
            comparisons = _outputs(console, opened, reference, feeds, against, outputs, tolerance)
    status = verdict(comparisons)
    record = {
        "ok": status == EXIT_OK,
        "against": "ort" if per_node else against,
        "outputs": [c.to_json() for c in comparisons],
    }
    console.result(lambda: _text(console, comparisons), record)
    return status


def _model_of(opened: Opened, model: Path | None, against: str, dim: list[str] | None) -> Model | None:
    """The model an artifact is compared with. Raises UsageError where it is not known."""
    if against == "data":
        return None
    if model is None:
        made_from = opened.artifact.manifest.get("source")
        raise UsageError(
            "E0213",
            f"--against {against} needs the model that the artifact was made from",
            help=f"give it with --model {made_from or 'FILE.onnx'}",
        )
    from compiler.driver import load

    return load(model, parse_dims(dim))


def _outputs(
    console: Console,
    opened: Opened,
    model: Model | None,
    feeds: dict[str, Any],
    against: str,
    outputs: Path | None,
    tolerance: Tolerance,
) -> list[Comparison]:
    from compiler.archive import gather
    from compiler.feeds import read_npz
    from compiler.verify import compare_outputs, reference_outputs

    loaded = load_artifact(console, opened.artifact)
    with console.stage("run"):
        actual = loaded.run(feeds)
    if outputs is not None:
        are_sequences = {name: isinstance(value, list) for name, value in actual.items()}
        return compare_outputs(actual, gather(read_npz(outputs), are_sequences), tolerance)
    assert model is not None  # `_model_of` refused otherwise
    with console.stage(f"reference ({against})"):
        expected = reference_outputs(against, model, feeds)
    return compare_outputs(actual, expected, tolerance)


def _per_node(
    console: Console,
    model: Model | None,
    target: str,
    options: dict[str, Any],
    feeds: dict[str, Any],
    tolerance: Tolerance,
) -> list[Comparison]:
    """Compares the values of the graph after the target's graph passes."""
    from compiler.verify import compare_nodes

    if model is None:
        raise UsageError("E0213", "--per-node needs the model", help="give an .onnx file, or --model FILE.onnx")
    with console.stage("optimise"):
        graph = optimised(model, target, options)
    with console.stage("interpret and compare"):
        return compare_nodes(model, graph, feeds, tolerance)


def optimised(model: Model, target: str, options: dict[str, Any]) -> Graph:
    """The model's graph after the passes of a target that work on graphs."""
    from compiler.backend import find_backend
    from compiler.pipeline import Pipeline

    steps = [step for step in find_backend(target, **options).pipeline().passes if step.stage == "graph"]
    return Pipeline(steps).run(model)


def verdict(comparisons: list[Comparison]) -> int:
    """The exit status."""
    return EXIT_OK if all(c.ok for c in comparisons) else EXIT_MISMATCH


def _text(console: Console, comparisons: list[Comparison]) -> str:
    wrong = [c for c in comparisons if not c.ok]
    last = (
        f"all {len(comparisons)} agree"
        if not wrong
        else f"{len(wrong)} of {len(comparisons)} differ, the first is '{wrong[0].name}'"
    )
    return f"{comparison_table(comparisons)}\n{last}"


def comparison_table(comparisons: list[Comparison]) -> str:
    """A line per output: largest difference, relative to the largest element, in ulps, cosine, verdict."""
    rows = [
        [
            c.name,
            c.type,
            f"{c.max_abs:.3g}",
            f"{c.relative:.3g}",
            "-" if c.ulp is None else str(c.ulp),
            "-" if c.cosine is None else f"{c.cosine:.7f}",
            "ok" if c.ok else f"WRONG: {c.reason or f'{c.wrong} of {c.elements}'}",
        ]
        for c in comparisons
    ]
    return table(["output", "type", "max abs", "relative", "max ulp", "cosine", "verdict"], rows, right=(2, 3, 4, 5))


__all__ = ["comparison_table", "optimised", "verdict", "verify"]
