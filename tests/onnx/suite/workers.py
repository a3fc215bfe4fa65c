"""Cases in worker processes, so that one which crashes or hangs is a defect of that case and not the end of the run."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.onnx.suite.cases import load_cases
from tests.onnx.suite.judge import Outcome, run_case
from tests.onnx.suite.variants import run_variant

SECONDS = 300.0
"""The longest that one case may take."""


def run_cases(
    names: Iterable[str],
    device: str,
    options: Mapping[str, Any],
    jobs: int = 2,
    variant: str = "",
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """The outcome of every case named, sorted by name, or of a variant of it; `seen` is told of each as it comes."""
    load_cases()  # before workers are forked, so that they share what it made
    pending = list(names)[::-1]
    outcomes: list[Outcome] = []
    workers: dict[Connection, _Worker] = {}

    def finish(worker: _Worker, outcome: Outcome) -> None:
        outcomes.append(outcome)
        seen(outcome)
        if pending:
            worker.give(pending.pop())
        else:
            del workers[worker.connection]
            worker.stop()

    for _ in range(min(jobs, len(pending))):
        worker = _Worker(device, options, variant)
        workers[worker.connection] = worker
        worker.give(pending.pop())
    while workers:
        for ready in wait(list(workers), timeout=1.0):
            worker = workers[ready]  # type: ignore[index]
            try:
                finish(worker, worker.connection.recv())
            except EOFError:
                finish(_replace(workers, worker), worker.crash())
        for worker in [w for w in workers.values() if time.monotonic() - w.started > SECONDS]:
            worker.process.kill()
            finish(_replace(workers, worker), Outcome(worker.case, "wrong", "timeout", f"over {SECONDS:.0f} s"))
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _replace(workers: dict[Connection, _Worker], broken: _Worker) -> _Worker:
    """A new worker in the place of one that died."""
    del workers[broken.connection]
    worker = _Worker(broken.device, broken.options, broken.variant)
    workers[worker.connection] = worker
    return worker


class _Worker:
    """A process that runs one case after another."""

    def __init__(self, device: str, options: Mapping[str, Any], variant: str) -> None:
        self.device, self.options, self.variant = device, options, variant
        self.case, self.started = "", time.monotonic()
        forks = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if forks else "spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.connection, device, dict(options), variant), daemon=True
        )
        self.process.start()
        theirs.close()

    def give(self, case: str) -> None:
        self.case, self.started = case, time.monotonic()
        self.connection.send(case)

    def crash(self) -> Outcome:
        self.process.join()
        return Outcome(self.case, "wrong", "crash", f"the process died with status {self.process.exitcode}")

    def stop(self) -> None:
        self.connection.close()
        self.process.join(timeout=5)


def _serve(connection: Connection, parents: Connection, device: str, options: dict[str, Any], variant: str) -> None:
    parents.close()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cases = load_cases()
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        start = time.monotonic()
        case = cases[name]
        outcome = run_variant(variant, case, device, options) if variant else run_case(case, device, options)
        connection.send(Outcome(**{**outcome.to_json(), "seconds": round(time.monotonic() - start, 3)}))
