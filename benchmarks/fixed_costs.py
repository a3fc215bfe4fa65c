"""What a model costs besides the work of its kernels: memory of the C program, a call, loading, compiling; with limits.

    python -m benchmarks.fixed_costs [--only memory call load compile] [--models NAME ...] [--keep FOLDER]

Each figure is measured in a process of its own. The status is 1 where one is beyond its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.budgets import deep_model
from benchmarks.compare import names, source

BESIDE_MB = 20.0
"""Memory of the C program besides weights and arena: the C library, the code, inputs and outputs."""
CALL_US = 5.0
LOAD_MS = 30.0
COMPILE_S = {"light_resnet50": 30.0, "bert_base_128": 40.0}
DEEP_S = 90.0
_DEEP_LAYERS = (625, 1250)
_MOST_GROWTH = 2.4
"""How much longer twice as many nodes may take: 2, and what times vary."""
_SMALLEST = "surfaces_gbr"
_CALLS = 20_000

_CHILD = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
_LOAD = """
import sys, time
import numpy
import backends.c.loader
from compiler.artifact import Artifact
start = time.perf_counter()
Artifact(sys.argv[1]).load()
print((time.perf_counter() - start) * 1e3)
"""


@dataclass(frozen=True)
class Row:
    """A figure with its limit, in the same unit; `detail` says what it is made of."""

    what: str
    figure: float
    limit: float
    unit: str
    detail: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within its limit."""
        return self.figure <= self.limit


def peak_bytes(command: Sequence[str], folder: Path) -> int:
    """The most memory that a program has held, but no less than the small process that starts it, some 9 MB. Raises
    RuntimeError where it fails."""
    launcher = [sys.executable, "-I", "-S", "-c", _CHILD, *command]
    done = subprocess.run(launcher, cwd=folder, capture_output=True, text=True, check=True)
    status, peak = map(int, done.stdout.split())
    if status != 0:
        raise RuntimeError(f"{command[0]} returned {status}: {done.stderr.strip()}")
    return peak


def bench_command(folder: Path, feeds: Mapping[str, Any]) -> list[str]:
    """The test bench of an artifact in `folder`, built, with inputs in files there and the sizes that they tell."""
    from compiler.artifact import Artifact

    artifact = Artifact(folder)
    loaded = artifact.load()
    arguments = [f"{name}={size}" for name, size in loaded.sizes(feeds).items() if name in loaded.ports.dims]
    for number, (port, array) in enumerate(zip(loaded.ports.inputs, loaded.ports.arrays(feeds))):
        (folder / f"input{number}.bin").write_bytes(array.tobytes())
        arguments.append(f"{port.name}=input{number}.bin")
    return [str(artifact.build("exe").resolve()), *arguments]


def memory_row(name: str, folder: Path, feeds: Mapping[str, Any]) -> Row:
    """What the C program of a model holds besides its weights and its arena."""
    from compiler.artifact import Artifact

    peak = peak_bytes(bench_command(folder, feeds), folder)
    artifact = Artifact(folder)
    loaded = artifact.load()
    weights, arena = int(artifact.manifest["weights"]["bytes"]), loaded.arena_bytes(feeds)
    beside = (peak - weights - arena) / 1e6
    detail = f"peak {peak / 1e6:.1f}, weights {weights / 1e6:.1f}, arena {arena / 1e6:.1f} MB"
    return Row(f"{name}: memory besides weights and arena", beside, BESIDE_MB, "MB", detail)


def call_row(folder: Path, feeds: Mapping[str, Any]) -> Row:
    """A call from Python in the best of blocks, less the same call in C, which is kernels but for some nanoseconds."""
    from compiler.artifact import Artifact

    model = Artifact(folder).load()
    blocks = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(_CALLS // 10):
            model.run(feeds)
        blocks.append((time.perf_counter() - start) / (_CALLS // 10) * 1e6)
    done = subprocess.run([*bench_command(folder, feeds), "--repeat", str(_CALLS)], cwd=folder, capture_output=True,
                          text=True, check=True)  # fmt: skip
    in_c = float(done.stdout.partition("mean ")[2].split()[0]) * 1e3
    whole = min(blocks)
    return Row("call of the smallest model from Python, besides kernels", whole - in_c, CALL_US, "us",
               f"{whole:.2f} us, of which {in_c:.2f} in C")  # fmt: skip


def load_row(name: str, folder: Path) -> Row:
    """The median time of loading an artifact that is built, in fresh processes; modules are imported before."""
    from compiler.artifact import Artifact

    Artifact(folder).load()
    command = [sys.executable, "-c", _LOAD, str(folder)]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(7)]
    return Row(f"{name}: load", statistics.median(times), LOAD_MS, "ms", "7 processes")


def compile_seconds(path: Path, folder: Path) -> float:
    """Seconds of `sesame compile --emit so` with an empty cache of objects."""
    environment = {**os.environ, "SESAME_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "compiler.cli", "compile", str(path), "-o", str(folder / "out"), "--emit", "so"]
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def compile_rows(models: Path) -> Iterator[Row]:
    """Compile times, the C compiler included, cold."""
    for name, limit in COMPILE_S.items():
        with tempfile.TemporaryDirectory(prefix="sesame-costs-") as folder:
            seconds = compile_seconds(source(name, models)[0], Path(folder))
        yield Row(f"{name}: compile", seconds, limit, "s", "with the C compiler, nothing cached")
    taken = []
    for layers in _DEEP_LAYERS:
        with tempfile.TemporaryDirectory(prefix="sesame-costs-") as folder:
            taken.append(compile_seconds(deep_model(Path(folder), layers), Path(folder)))
    yield Row(f"{4 * _DEEP_LAYERS[1]} nodes: compile", taken[1], DEEP_S, "s", "with the C compiler, nothing cached")
    detail = f"{4 * _DEEP_LAYERS[0]} nodes {taken[0]:.1f} s, {4 * _DEEP_LAYERS[1]} nodes {taken[1]:.1f} s"
    yield Row("twice as many nodes: compile", taken[1] / taken[0], _MOST_GROWTH, "times", detail)


def compiled_rows(wanted: Sequence[str], only: Sequence[str], models: Path) -> Iterator[Row]:
    """The figures of compiled models: memory of all of `wanted`, a call, and loading."""
    from compiler import compile

    for name in dict.fromkeys([*(wanted if "memory" in only else ()), _SMALLEST, "light_resnet50"]):
        is_memory = "memory" in only and name in wanted
        if not is_memory and not ("call" in only and name == _SMALLEST) and not ("load" in only and name != _SMALLEST):
            continue
        path, feeds = source(name, models)
        with tempfile.TemporaryDirectory(prefix="sesame-costs-") as scratch:
            folder = compile(path, out=Path(scratch) / "model").folder
            if is_memory:
                yield memory_row(name, folder, feeds)
            if "call" in only and name == _SMALLEST:
                yield call_row(folder, feeds)
            if "load" in only and name == "light_resnet50":
                yield load_row(name, folder)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | figure | limit | | made of |", "| --- | ---: | ---: | --- | --- |"]
    for row in rows:
        said = "kept" if row.is_kept else "**not kept**"
        lines.append(f"| {row.what} | {row.figure:.3g} {row.unit} | {row.limit:g} {row.unit} | {said} | {row.detail} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = ("memory", "call", "load", "compile")
    parser.add_argument("--only", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--models", nargs="+", metavar="NAME", help="whose memory is measured; without it, all")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where models that are made stay for the next time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows are written, too")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sesame-costs-") as scratch:
        models = arguments.keep or Path(scratch)
        models.mkdir(parents=True, exist_ok=True)
        found = compiled_rows(arguments.models or names(), arguments.only, models)
        for row in found:
            print(f"{row.what}: {row.figure:.3g} {row.unit}", file=sys.stderr, flush=True)
            rows.append(row)
        rows += compile_rows(models) if "compile" in arguments.only else ()
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([{**vars(row), "is_kept": row.is_kept} for row in rows], indent=2))
    return 0 if all(row.is_kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
