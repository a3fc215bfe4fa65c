"""Timing compiled models, alone or beside ONNX Runtime: each side in a process of its own, taking turns in blocks.

Blocks of the sides alternate with a pause between, so that what the machine does meanwhile falls on both; outputs are
compared before anything is timed. Nothing here judges a time.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompileError

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Side:
    """One of those compared: `kind` is "sesame" (then `path` is an artifact) or "onnxruntime" (an .onnx file)."""

    kind: str
    path: str
    threads: int


@dataclass(frozen=True)
class Schedule:
    """`blocks` blocks of `repeat` timed runs for each side, after `warmup` runs that are not timed."""

    repeat: int
    blocks: int
    warmup: int


def measure(sides: Sequence[Side], feeds: Mapping[str, np.ndarray], schedule: Schedule) -> dict[str, Any]:
    """Times of every side in milliseconds, peak memory in MB, and how the outputs compare, in plain values.

    Raises the CompileError of a side that cannot load or run.
    """
    from compiler.verify import compare_outputs

    workers = [_Worker(side, feeds) for side in sides]
    try:
        ready = [worker.wait() for worker in workers]
        outputs = [worker.ask("outputs") for worker in workers]
        comparisons = [c.to_json() for c in compare_outputs(outputs[0], outputs[1])] if len(sides) > 1 else []
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
    described = [_side(*item) for item in zip(sides, ready, times, peaks)]
    record: dict[str, Any] = {
        "sides": described,
        "outputs": comparisons,
        "threads": sides[0].threads,
        "runs": schedule.repeat * schedule.blocks,
        "blocks": schedule.blocks,
        "warmup": schedule.warmup,
        "processor": processor(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if len(sides) > 1:
        record["ratio"] = described[0]["wall_ms"]["median"] / described[1]["wall_ms"]["median"]
    return record


def _side(side: Side, ready: dict[str, float], times: list[tuple[float, float]], peak: float) -> dict[str, Any]:
    package = "sesame-compiler" if side.kind == "sesame" else side.kind
    return {
        "name": side.kind,
        "version": metadata.version(package),
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
            raise CompileError(
                "E0502", f"the process that ran the model died with status {self.process.exitcode}", exit_code=70
            ) from error
        if not ok:
            code, message, help_, status = answer
            raise CompileError(code, message, help=help_, exit_code=status)
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
        run = _runner(side, feeds)
        connection.send((True, {"load_ms": (time.perf_counter() - start) * 1e3, "before_mb": before}))
        while True:
            what, *arguments = connection.recv()
            if what == "outputs":
                connection.send((True, run()))
            elif what == "block":
                connection.send((True, [_timed(run) for _ in range(arguments[0])]))
            else:
                connection.send((True, peak_rss_mb()))
    except EOFError:
        return
    except CompileError as error:
        connection.send((False, (error.code, error.message, error.help, error.exit_code)))


def _timed(run: Any) -> tuple[float, float]:
    """Wall and processor seconds of one run, all threads counted."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _runner(side: Side, feeds: dict[str, np.ndarray]) -> Any:
    """A function of no arguments that runs the side once; the outputs by name."""
    if side.kind == "sesame":
        from compiler.artifact import Artifact

        model = Artifact(side.path).load(threads=side.threads)
        return lambda: model.run(feeds)
    from compiler.verify import onnxruntime_session

    session = onnxruntime_session(side.path, threads=side.threads)
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, feeds)))


__all__ = ["Schedule", "Side", "measure", "processor"]
