"""Sesame beside ONNX Runtime and OpenVINO, over the models of the zoo and networks of `graphs`, as a table in Markdown.

    python -m benchmarks.compare [--threads 1 2] [--models NAME ...] [--seconds S] [--precision bf16]
                                 [--json FILE] [--keep FOLDER]

A model is compiled, its outputs are compared with those of both, and it is timed as `sesame bench` does. A factor is a
rival's time over Sesame's: more than 1 is in Sesame's favour. Models of the onnx package without weights of their own
get seeded ones. What a rival cannot run is left out, with its reason in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RIVALS = ("onnxruntime", "openvino")
_BLOCKS = 5
_MOST_RUNS = 200
_COSINE = 0.999
"""Outputs agree that are as close as quantised models are to themselves on another runtime."""

# Packages are imported where they are needed: the processes that are timed start with this module.


def names() -> list[str]:
    """The models that there are: the zoo's, then those of `graphs`."""
    from benchmarks.graphs import GRAPHS
    from tests.models.golden import zoo_names

    return [*zoo_names(), *GRAPHS]


def source(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The model's file, made in `folder` where it is not there, and inputs for it."""
    from benchmarks import graphs
    from tests.models import golden
    from tests.models.seeded import seeded

    made = folder / f"{name}.onnx"
    if name in graphs.GRAPHS:
        return made if made.exists() else graphs.write(name, folder), graphs.feeds(name)
    found = golden.zoo(name)
    if name.startswith("light_"):
        if not made.exists():
            made.write_bytes(seeded(found.model).SerializeToString())
        return made, found.feeds()[0][0]
    return found.model, found.feeds()[0][0]


def compare(
    name: str, folder: Path, threads: Sequence[int], rivals: Sequence[str], seconds: float, precision: str = "f32"
) -> dict[str, Any]:
    """The record of one model, as `bench.measure` makes it, with `refused`: a reason for each rival that is left out.

    Where Sesame itself fails, the record is its `error` only.
    """
    from compiler import Artifact, CompileError, bench, compile
    from compiler.verify import Tolerance

    try:
        path, feeds = source(name, folder)
        with tempfile.TemporaryDirectory(prefix="sesame-", ignore_cleanup_errors=True) as scratch:
            start = time.perf_counter()
            artifact = compile(path, out=Path(scratch) / "model", precision=precision).folder
            repeat = _repeat(Artifact(artifact).load(), feeds, seconds)
            compile_s = time.perf_counter() - start
            refused: dict[str, str] = {}
            schedule = bench.Schedule(repeat, _BLOCKS, max(1, min(5, repeat)))
            while True:
                able = [rival for rival in rivals if rival not in refused]
                try:
                    made = bench.measure(artifact, path, able, threads, feeds, schedule, Tolerance(cosine=_COSINE))
                    return {"name": name, "compile_s": compile_s, "refused": refused, **made}
                except bench.SideError as error:
                    if error.side.kind == "sesame":
                        raise
                    refused[error.side.kind] = error.message
    except CompileError as error:
        return {"name": name, "error": str(error)}


def _repeat(model: Any, feeds: Mapping[str, Any], seconds: float) -> int:
    """How many runs of a block fill `seconds` with all blocks of a side."""
    model.run(feeds)
    start = time.perf_counter()
    model.run(feeds)
    one = max(1e-6, time.perf_counter() - start)
    return max(1, min(_MOST_RUNS, round(seconds / _BLOCKS / one)))


FIGURES = {"median": ("wall_ms", "median"), "least": ("wall_ms", "min"), "cpu median": ("cpu_ms", "median")}
"""What is compared: on a busy machine, the least time and the processor's say more than the median on the wall."""


def factors(record: Mapping[str, Any], threads: int, figure: str = "median") -> dict[str, float]:
    """The time of each rival over Sesame's, and that of the best one as "best"; empty where there is none."""
    clock, key = FIGURES[figure]
    times = {side["name"]: side[clock][key] for side in record.get("sides", ()) if side["threads"] == threads}
    ours = times.pop("sesame", None)
    if ours is None or not times:
        return {}
    each = {name: theirs / ours for name, theirs in times.items()}
    return {**each, "best": min(each.values())}


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers; NaN of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def means(records: Sequence[Mapping[str, Any]], threads: int) -> dict[str, dict[str, float]]:
    """Geometric means of the factors over all models, for each of FIGURES: best first, then each rival."""
    found = {}
    for figure in FIGURES:
        rows = [row for row in (factors(record, threads, figure) for record in records) if row]
        keys = ["best", *RIVALS]
        found[figure] = {key: geometric_mean(row[key] for row in rows if key in row) for key in keys}
    return found


def table(records: Sequence[Mapping[str, Any]], threads: Sequence[int], rivals: Sequence[str]) -> str:
    """All models in one table, and the geometric means below it."""
    head = ["model", "threads", "sesame ms", *(f"{rival} ms" for rival in rivals), "best / sesame", "least", "cpu",
            "cpu ms", "peak MB", "outputs"]  # fmt: skip
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 2), "---"])]
    lines += [_row(_cells(record, count, rivals)) for record in records for count in threads]
    for count in threads:
        for figure, each in means(records, count).items():
            said = ", ".join(f"{key} {value:.3f}" for key, value in each.items() if not math.isnan(value))
            lines.append(f"\nGeometric means of rival / sesame, threads {count}, {figure}: {said}")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(record: Mapping[str, Any], threads: int, rivals: Sequence[str]) -> list[str]:
    """A model at a number of threads; figures of three sides are in the order of the columns."""
    if "error" in record:
        first = record["error"].splitlines()[0].replace("|", "/")
        return [record["name"], str(threads), *[""] * (len(rivals) + 6), first]
    sides = {side["name"]: side for side in record["sides"] if side["threads"] == threads}
    order = ["sesame", *rivals]
    times = [f"{sides[name]['wall_ms']['median']:.4g}" if name in sides else "-" for name in order]
    factor = [factors(record, threads, figure).get("best") for figure in FIGURES]
    cpu = " / ".join(f"{sides[name]['cpu_ms']['median']:.4g}" if name in sides else "-" for name in order)
    peak = " / ".join(f"{sides[name]['peak_rss_mb']:.0f}" if name in sides else "-" for name in order)
    wrong = sorted(
        {f"{o['name']} ({o['against']})" for o in record["outputs"] if not o["ok"] and o["threads"] == threads}
    )
    said = f"differ: {', '.join(wrong)}" if wrong else "agree"
    return [record["name"], str(threads), *times, *("-" if f is None else f"{f:.2f}" for f in factor), cpu, peak, said]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of the zoo, or of graphs; without it, all")
    parser.add_argument("--against", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of runs for each side and number of threads")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="of Sesame, and of who has it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the records are written")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where models that are made stay for the next time")
    arguments = parser.parse_args()
    known = names()
    unknown = sorted(set(arguments.models or ()) - set(known))
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}; there are: {', '.join(known)}")
    settings = (arguments.threads, arguments.against, arguments.seconds, arguments.precision)
    records = []
    with tempfile.TemporaryDirectory(prefix="sesame-compare-", ignore_cleanup_errors=True) as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.models or known:
            print(name, file=sys.stderr, flush=True)
            records.append(compare(name, folder, *settings))
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(_summary(records, arguments.threads), indent=2) + "\n")
    print(table(records, arguments.threads, arguments.against))


def _summary(records: Sequence[Mapping[str, Any]], threads: Sequence[int]) -> dict[str, Any]:
    return {"means": {str(count): means(records, count) for count in threads}, "models": list(records)}


if __name__ == "__main__":
    main()
