"""sesame opt: runs passes on a model and prints the graph or program that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.commands.arguments import DimOption, ModelFile, Target, parse_dims
from compiler.commands.compile import choose_pipeline, observers, print_times, text_of
from compiler.commands.console import Console, command


@command()
def opt(
    console: Console,
    model: ModelFile,
    passes: Annotated[
        str | None, typer.Option("--passes", metavar="SPEC", help="pass,pass{option=value},... (default: the target's)")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the text goes; default stdout.")] = None,
    target: Target = "c",
    dim: DimOption = None,
    disable_pass: Annotated[
        list[str] | None, typer.Option("--disable-pass", metavar="PASS", help="Leave a pass out.")
    ] = None,
    print_after: Annotated[
        list[str] | None, typer.Option("--print-after", metavar="PASS|all", help="Print the IR after a pass (stderr).")
    ] = None,
    time_passes: Annotated[
        bool, typer.Option("--time-passes/--no-time-passes", help="Print the time of each pass.")
    ] = False,
) -> None:
    """Run passes and print the graph or program. `--passes ''` prints the graph as imported."""
    from compiler.backend import find_backend
    from compiler.driver import load

    pipeline = choose_pipeline(find_backend(target), passes, disable_pass or [])
    watch = observers(pipeline, print_after or [], time_passes)
    text = text_of(pipeline.run(load(model, parse_dims(dim)), watch))
    print_times(console, watch)
    if out is not None:
        out.write_text(text, encoding="utf-8")
        console.log(f"written to {out}")
    else:
        console.result(text, {"pipeline": str(pipeline), "text": text})


__all__ = ["opt"]
