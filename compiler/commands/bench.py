"""sesame bench: a compiled model beside other runtimes, on the same inputs, threads and machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.commands.arguments import (
    Deterministic,
    DimOption,
    InputOption,
    InputsOption,
    March,
    OptLevel,
    Precision,
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
from compiler.errors import EXIT_MISMATCH, EXIT_OK, UsageError, one_line

if TYPE_CHECKING:
    from compiler.artifact import Artifact

_NODES_SHOWN = 2


@command()
def bench(
    console: Console,
    subject: Subject,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="onnxruntime|openvino", help="What to compare with; may be repeated."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The .onnx file that an artifact was made from.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Threads of every side; may be repeated.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs in a block.")] = 20,
    blocks: Annotated[int, typer.Option("--blocks", min=1, help="Blocks of each side, interleaved.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Runs of each side before anything is timed.")] = 5,
    layers: Annotated[
        bool, typer.Option("--layers/--no-layers", help="The time of each call of a kernel instead.")
    ] = False,
    inputs: InputsOption = None,
    single: InputOption = None,
    seed: Seed = 0,
    target: Target = "c",
    dim: DimOption = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
    precision: Precision = None,
    deterministic: Deterministic = None,
) -> int:
    """Time a compiled model, after its outputs were compared; status 1 where they differ."""
    from compiler import bench as measure

    rivals = _rivals(against or [])
    if layers and rivals:
        raise UsageError("E0214", "--layers takes the times of the compiled model alone", help="leave --against out")
    counts = list(dict.fromkeys(threads or [1]))
    with scratch_folder() as scratch:
        options = target_options(
            counts[0], march, opt_level, winograd=winograd, precision=precision, deterministic=deterministic
        )
        options |= {"profile": True} if layers else {}
        opened = open_subject(console, subject, target, dim, options, Path(scratch))
        source = subject if opened.model is not None else model
        if rivals and source is None:
            raise UsageError(
                "E0214", "comparing needs the model that the artifact was made from", help="--model FILE.onnx"
            )
        feeds = gather_feeds(console, opened.signature, inputs, single, seed, opened.sizes)
        _build(console, opened.artifact)
        if layers:
            return _layers(console, opened.artifact, feeds, counts, repeat * blocks, warmup)
        schedule = measure.Schedule(repeat, blocks, warmup)
        with console.stage("measure"):
            record = measure.measure(opened.artifact.folder, source, rivals, counts, feeds, schedule)
    console.result(lambda: _text(record), record)
    return EXIT_OK if all(c["ok"] for c in record["outputs"]) else EXIT_MISMATCH


def _layers(
    console: Console, artifact: Artifact, feeds: dict[str, Any], counts: list[int], repeat: int, warmup: int
) -> int:
    from compiler.layers import measure_layers

    with console.stage("measure"):
        found = [measure_layers(artifact.folder, feeds, threads, repeat, warmup) for threads in counts]
    console.result(lambda: "\n\n".join(map(_layers_text, found)), {"layers": found})
    return EXIT_OK


def _layers_text(record: dict[str, Any]) -> str:
    header = ["kernel", "nodes", "ms", "share", "GFLOP/s", "of peak", "GB/s", "of peak", "bound"]
    ceilings = record["ceilings"]
    lines = [
        table(header, [_layer_row(call) for call in record["calls"]], right=range(2, 8)),
        f"kernels {record['kernels_ms']:.4g} ms of {record['wall_ms']:.4g} ms, medians of {record['runs']} runs, "
        f"threads {record['threads']}",
        f"peak {ceilings['gflops']:.4g} GFLOP/s of f32, {ceilings['gbytes']:.4g} GB/s read from as much memory as the "
        "model touches",
    ]
    return "\n".join(lines)


def _layer_row(call: dict[str, Any]) -> list[str]:
    def figure(key: str, form: str) -> str:
        return "" if call[key] is None else format(call[key], form)

    nodes = ", ".join(one_line(node) for node in call["nodes"][:_NODES_SHOWN])
    more = len(call["nodes"]) - _NODES_SHOWN
    return [
        call["kernel"].partition("_k_")[2] or call["kernel"],
        nodes + (f" and {more} more" if more > 0 else ""),
        figure("ms", ".4g"),
        figure("share", ".1%"),
        *(
            figure(key, form)
            for rate in ("gflops", "gbytes")
            for key, form in ((rate, ".4g"), (f"{rate}_share", ".0%"))
        ),
        call["bound"] or "",
    ]


def _rivals(texts: Sequence[str]) -> list[str]:
    """The names of rivals, each once, in order. Raises UsageError for one that is none."""
    if not texts:
        return []
    from compiler.rivals import RIVALS, rival_name

    named = {text: rival_name(text) for text in texts}
    for text, name in named.items():
        if name is None:
            raise UsageError("E0214", f"cannot bench against '{text}'", help=f"rivals: {', '.join(RIVALS)}")
    return list(dict.fromkeys(name for name in named.values() if name is not None))


def _build(console: Console, artifact: Artifact) -> None:
    """Builds what the sides load, where the target builds anything, so that no time of loading has it."""
    with console.stage("build"):
        loaded = artifact.load()
        getattr(loaded, "close", lambda: None)()


def _text(record: dict[str, Any]) -> str:
    header = ["", "version", "precision", "threads", "median ms", "min", "max", "cpu ms", "min", "max", "load ms"]
    lines = [
        table([*header, "peak MB"], [_row(side) for side in record["sides"]], right=range(3, 12)),
        f"{record['runs']} runs each, {record['processor']}",
    ]
    for ratios in record["ratios"]:
        each = [f"{ratio:.3f} of {name}" for name, ratio in ratios["each"].items()]
        each += [f"{ratios['ratio']:.3f} of the best"] if len(each) > 1 else []
        lines.append(f"ratio    threads {ratios['threads']}: {', '.join(each)} (median wall; less than 1 is faster)")
    for output in record["outputs"]:
        said = "agrees" if output["ok"] else "DIFFERS: the times are of different answers"
        whose = f"{output['against']}, threads {output['threads']}"
        lines.append(f"output   {output['name']} ({whose}): {said} (relative {output['relative']:.3g})")
    return "\n".join(lines)


def _row(side: dict[str, Any]) -> list[str]:
    spreads = [f"{side[kind][key]:.4g}" for kind in ("wall_ms", "cpu_ms") for key in ("median", "min", "max")]
    said = [side["name"], side["version"], side["precision"], str(side["threads"])]
    return [*said, *spreads, f"{side['load_ms']:.4g}", f"{side['peak_rss_mb']:.0f}"]


__all__ = ["bench"]
