"""sesame bench: a compiled model beside ONNX Runtime, on the same inputs, threads and machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.commands.arguments import (
    DimOption,
    InputOption,
    InputsOption,
    March,
    OptLevel,
    Seed,
    Subject,
    Target,
    Winograd,
    gather_feeds,
    open_subject,
    scratch_folder,
    target_options,
)
from compiler.commands.console import Console, command, table
from compiler.errors import EXIT_MISMATCH, EXIT_OK, UsageError


@command()
def bench(
    console: Console,
    subject: Subject,
    against: Annotated[
        str | None, typer.Option("--against", metavar="onnxruntime", help="What to compare with.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The .onnx file that an artifact was made from.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of either side.")] = 1,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs in a block.")] = 20,
    blocks: Annotated[int, typer.Option("--blocks", min=1, help="Blocks of each side, interleaved.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Runs of each side before anything is timed.")] = 5,
    inputs: InputsOption = None,
    single: InputOption = None,
    seed: Seed = 0,
    target: Target = "c",
    dim: DimOption = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
) -> int:
    """Time a compiled model, after its outputs were compared; status 1 where they differ."""
    from compiler import bench as measure

    if against not in (None, "onnxruntime", "ort"):
        raise UsageError("E0214", f"cannot bench against '{against}'", help="--against onnxruntime")
    with scratch_folder() as scratch:
        opened = open_subject(
            console, subject, target, dim, target_options(threads, march, opt_level, winograd=winograd), Path(scratch)
        )
        source = subject if opened.model is not None else model
        if against is not None and source is None:
            raise UsageError(
                "E0214", "comparing needs the model that the artifact was made from", help="--model FILE.onnx"
            )
        feeds = gather_feeds(console, opened.signature, inputs, single, seed, opened.sizes)
        sides = [measure.Side("sesame", str(opened.artifact.folder), threads)]
        if against is not None:
            sides.append(measure.Side("onnxruntime", str(source), threads))
        with console.stage("measure"):
            record = measure.measure(sides, feeds, measure.Schedule(repeat, blocks, warmup))
    console.result(lambda: _text(record), record)
    return EXIT_OK if all(c["ok"] for c in record["outputs"]) else EXIT_MISMATCH


def _text(record: dict[str, Any]) -> str:
    rows = []
    for side in record["sides"]:
        wall, cpu = side["wall_ms"], side["cpu_ms"]
        rows.append(
            [
                side["name"],
                side["version"],
                *(f"{wall[k]:.4g}" for k in ("median", "min", "max")),
                f"{cpu['median']:.4g}",
                f"{side['load_ms']:.4g}",
                f"{side['peak_rss_mb']:.0f}",
            ]
        )
    header = ["", "version", "median ms", "min", "max", "cpu ms", "load ms", "peak MB"]
    lines = [
        table(header, rows, right=range(2, 8)),
        f"threads {record['threads']}, {record['runs']} runs each, {record['processor']}",
    ]
    if "ratio" in record:
        lines.append(f"ratio    {record['ratio']:.3f} (median wall, sesame / onnxruntime: less than 1 is faster)")
    for output in record["outputs"]:
        said = "agrees" if output["ok"] else "DIFFERS: the times are of different answers"
        lines.append(f"output   {output['name']}: {said} (relative {output['relative']:.3g})")
    return "\n".join(lines)


__all__ = ["bench"]
