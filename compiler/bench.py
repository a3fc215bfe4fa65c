"""Timing compiled models, alone or beside other runtimes: each side in a process of its own, taking turns in blocks.

Blocks of the sides alternate with a pause between, so that what the machine does meanwhile falls on all; outputs are
compared before anything is timed. Nothing here judges a time.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import CompileError

if TYPE_CHECKING:
    from compiler.verify import Tolerance

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Side:
    """One of those compared: `kind` is "sesame" (then `path` is an artifact) or one of `rivals` (an .onnx file)."""

    kind: str
    path: str
    threads: int
    precision: str = "f32"


@dataclass(frozen=True)
class Schedule:
    """`blocks` blocks of `repeat` timed runs for each side, after `warmup` runs that are not timed."""

    repeat: int
    blocks: int
    warmup: int


class SideError(CompileError):
    """What was wrong with one side, which is `side`."""

    def __init__(self, side: Side, code: str, message: str, help: str | None, exit_code: int) -> None:
        super().__init__(code, message, help=help, exit_code=exit_code)
        self.side = side


def measure(
    artifact: str | Path,
    model: str | Path | None,
    rivals: Sequence[str],
    threads: Sequence[int],
    feeds: Mapping[str, np.ndarray],
    schedule: Schedule,
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Times of an artifact and of rivals that run the model it was made from, in plain values: a side for each and each
    number of threads, how outputs compare, and ratios of median times on the wall. Rivals compute in the artifact's
    precision where they can.

    Those with the same number of threads take turns. Times are in milliseconds, memory in MB. Raises SideError for a
    side that cannot load or run.
    """
    from compiler.artifact import Artifact
    from compiler.verify import Tolerance

    precision = Artifact(artifact).precision
    tolerance = replace(tolerance or Tolerance(), operands=precision)
    record: dict[str, Any] = {"sides": [], "outputs": [], "ratios": []}
    for count in threads:
        given = [("sesame", str(artifact)), *((kind, str(model)) for kind in rivals)]
        sides = [Side(kind, path, count, precision) for kind, path in given]
        described, comparisons = _measure_sides(sides, feeds, schedule, tolerance)
        record["sides"] += described
        record["outputs"] += comparisons
        if rivals:
            record["ratios"].append(_ratios(described))
    return {
        **record,
        "precision": precision,
        "threads": list(threads),
        "runs": schedule.repeat * schedule.blocks,
        "blocks": schedule.blocks,
        "warmup": schedule.warmup,
        "processor": processor(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _measure_sides(
    sides: Sequence[Side], feeds: Mapping[str, np.ndarray], schedule: Schedule, tolerance: Tolerance | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The sides with their times, and how the outputs of the first compare with those of the others."""
    workers: list[_Worker] = []
    try:
        for side in sides:
            workers.append(_Worker(side, feeds))
        ready = [worker.wait() for worker in workers]
        comparisons = _compared(workers, tolerance)
        for worker in workers:
            worker.ask("block", schedule.warmup)
        times: list[list[tuple[float, float]]] = [[] for _ in sides]
        for _ in range(schedule.blocks):
            for worker, found in zip(workers, times):
                time.sleep(_PAUSE_SECONDS)
                found += worker.ask("block", schedule.repeat)
        peaks = [worker.ask("peak") for worker in workers]
    finally:
        for worker in workers:
            worker.stop()
    return [_side(*item) for item in zip(sides, ready, times, peaks)], comparisons


def _compared(workers: Sequence[_Worker], tolerance: Tolerance | None) -> list[dict[str, Any]]:
    from compiler.verify import Comparison, compare_outputs

    ours = workers[0].ask("outputs", [])
    found = []
    for worker in workers[1:]:
        theirs = worker.ask("outputs", list(ours))
        of_whom = {"against": worker.side.kind, "threads": worker.side.threads}
        lacking = [Comparison(name, "", False, reason="there is no such output") for name in ours if name not in theirs]
        found += [{**c.to_json(), **of_whom} for c in [*compare_outputs(ours, theirs, tolerance), *lacking]]
    return found


def _ratios(sides: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of the first side over those of the others, and over the best of them: less than 1 is faster."""
    ours, *theirs = ((side["name"], side["wall_ms"]["median"]) for side in sides)
    each = {name: ours[1] / median for name, median in theirs}
    best = max(each, key=lambda name: each[name])
    return {"threads": sides[0]["threads"], "best": best, "ratio": each[best], "each": each}


def _side(side: Side, ready: dict[str, Any], times: list[tuple[float, float]], peak: float) -> dict[str, Any]:
    package = "sesame-compiler" if side.kind == "sesame" else side.kind
    return {
        "name": side.kind,
        "version": metadata.version(package),
        "threads": side.threads,
        "precision": ready["precision"],
        "path": side.path,
        "wall_ms": _spread([w for w, _ in times]),
        "cpu_ms": _spread([c for _, c in times]),
        "load_ms": ready["load_ms"],
        "peak_rss_mb": peak,
        "rise_rss_mb": peak - ready["before_mb"],
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    ms = [s * 1e3 for s in seconds]
    return {"median": statistics.median(ms), "min": min(ms), "max": max(ms), "mean": statistics.fmean(ms)}


def processor() -> str:
    """What the system calls the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


class _Worker:
    """A process that has one side loaded and answers requests."""

    def __init__(self, side: Side, feeds: Mapping[str, np.ndarray]) -> None:
        self.side = side
        context = multiprocessing.get_context("spawn")  # a fork would share our memory and count it
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, side, dict(feeds)), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *request: Any) -> Any:
        self.connection.send(request)
        return self.wait()

    def wait(self) -> Any:
        try:
            ok, answer = self.connection.recv()
        except EOFError as error:
            self.process.join()
            message = f"the process that ran {self.side.kind} died with status {self.process.exitcode}"
            raise SideError(self.side, "E0502", message, None, 70) from error
        if not ok:
            raise SideError(self.side, *answer)
        return answer

    def stop(self) -> None:
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.terminate()


def _serve(connection: Connection, side: Side, feeds: dict[str, np.ndarray]) -> None:
    from compiler.commands.console import peak_rss_mb

    try:
        before, start = peak_rss_mb(), time.perf_counter()
        run, outputs, precision = _runner(side, feeds)
        load_ms = (time.perf_counter() - start) * 1e3
        connection.send((True, {"load_ms": load_ms, "before_mb": before, "precision": precision}))
        while True:
            what, *arguments = connection.recv()
            if what == "outputs":
                connection.send((True, outputs(arguments[0])))
            elif what == "block":
                connection.send((True, [_timed(run) for _ in range(arguments[0])]))
            else:
                connection.send((True, peak_rss_mb()))
    except EOFError:
        return
    except CompileError as error:
        connection.send((False, (error.code, error.message, error.help, error.exit_code)))


def _timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one run, all threads counted."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    taken = time.perf_counter() - wall
    return taken, time.process_time() - cpu


def _runner(
    side: Side, feeds: dict[str, np.ndarray]
) -> tuple[Callable[[], Any], Callable[[Sequence[str]], dict[str, Any]], str]:
    """A function that runs the side once, one that runs it and gives the outputs by name, and the side's precision."""
    if side.kind == "sesame":
        from compiler.artifact import Artifact

        model = Artifact(side.path).load(threads=side.threads)
        said = "as the model" if side.precision == "f32" else side.precision
        return lambda: model.run(feeds), lambda _: model.run(feeds), said
    from compiler.rivals import RIVALS, ran

    runtime = RIVALS[side.kind](side.path, side.threads, side.precision)
    run = runtime.runner(feeds)
    return run, lambda names: runtime.outputs(ran(runtime, run), names), runtime.precision


__all__ = ["Schedule", "Side", "SideError", "measure", "processor"]
