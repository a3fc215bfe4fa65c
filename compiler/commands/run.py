"""sesame run: runs a model once and shows, or writes, its outputs."""

from __future__ import annotations

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
    Threads,
    Winograd,
    gather_feeds,
    load_artifact,
    open_subject,
    scratch_folder,
    target_options,
)
from compiler.commands.console import Console, command, table

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 6


@command()
def run(
    console: Console,
    subject: Subject,
    inputs: InputsOption = None,
    single: InputOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.npz", help="Where the outputs go.")] = None,
    seed: Seed = 0,
    target: Target = "c",
    dim: DimOption = None,
    threads: Threads = None,
    march: March = None,
    opt_level: OptLevel = None,
    winograd: Winograd = None,
    precision: Precision = None,
    deterministic: Deterministic = None,
) -> None:
    """Run a compiled model, or compile one and run it."""
    import numpy as np

    from compiler.archive import spread

    options = target_options(
        threads, march, opt_level, winograd=winograd, precision=precision, deterministic=deterministic
    )
    with scratch_folder() as scratch:
        opened = open_subject(console, subject, target, dim, options, Path(scratch))
        feeds = gather_feeds(console, opened.signature, inputs, single, seed, opened.sizes)
        loaded = load_artifact(console, opened.artifact, threads)
        with console.stage("run"):
            results = spread(loaded.run(feeds))
    if out is not None:
        with out.open("wb") as file:
            plain: dict[str, Any] = {n: a.astype(np.str_) if a.dtype == object else a for n, a in results.items()}
            np.savez(file, **plain)  # arrays of objects would be pickled, and not read back
        console.log(f"{len(results)} outputs written to {out}")
    record = {name: _described(array) for name, array in results.items()}
    console.result(lambda: _text(record), {"outputs": record})


def _described(array: np.ndarray) -> dict[str, Any]:
    """Type, shape, range and the first elements of an array, in plain values."""
    import numpy as np

    from ir.types import dtype_of

    described: dict[str, Any] = {"dtype": str(dtype_of(array)), "shape": list(array.shape)}
    flat = array.reshape(-1)
    numbers = flat if flat.dtype.kind in "biufc" else flat.astype(np.float64) if flat.dtype.kind != "O" else None
    if numbers is not None and numbers.dtype.kind in "iuf" and numbers.size:
        described |= {
            "min": numbers.min().item(),
            "max": numbers.max().item(),
            "mean": float(numbers.mean(dtype=np.float64)),
        }
    described["first"] = (flat if numbers is None else numbers)[:_SHOWN].tolist()
    return described


def _text(record: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, d in record.items():
        spread = [f"{d[key]:.6g}" if key in d else "-" for key in ("min", "mean", "max")]
        first = " ".join(f"{v:.5g}" if isinstance(v, float) else str(v) for v in d["first"])
        rows.append([name, f"{d['dtype']}[{','.join(map(str, d['shape']))}]", *spread, first])
    return table(["output", "type", "min", "mean", "max", "first"], rows, right=(2, 3, 4))


__all__ = ["run"]
