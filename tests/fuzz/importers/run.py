"""Many cases in processes of their own, so that one which kills its process is a verdict and not the end."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from tests.fuzz.importers import (  # noqa: F401 - each registers its plans
    plans_elementwise,
    plans_image,
    plans_indexing,
    plans_movement,
    plans_numeric,
    plans_values,
)
from tests.fuzz.importers.draft import Case, Undrawable, draw
from tests.fuzz.importers.judge import Verdict, judge
from tests.fuzz.importers.oracles import ORACLES
from tests.fuzz.importers.schemas import Version, versions

SECONDS = 60.0
"""The longest that one case may take."""

Specimen = tuple[str, str]
"""A version, as "Conv-11", and the seed of one of its cases."""


def specimens(count: int, seed: int, operators: Sequence[str] | None = None, case: str | None = None) -> list[Specimen]:
    """`count` cases dealt out evenly over the versions of all operators (or of those named)."""
    if case is not None:
        version, _, of = case.partition("/")
        return [(version, of)]
    chosen = [str(v) for v in versions() if not operators or v.name in operators]
    return [(chosen[n % len(chosen)], f"{seed}.{n // len(chosen)}") for n in range(count)]


def make(specimen: Specimen) -> Case:
    """The case of a specimen. Raises Undrawable."""
    return draw(_version(specimen[0]), specimen[1])


def _version(name: str) -> Version:
    return next(v for v in versions() if str(v) == name)


def check(specimen: Specimen, oracles: Sequence[str] = tuple(ORACLES)) -> Verdict:
    """Draws and judges one case."""
    name = specimen[0].rpartition("-")[0]
    try:
        case = make(specimen)
    except Undrawable as error:
        return Verdict(name, "/".join(specimen), "undrawn", str(error))
    return judge(case, oracles)


def run_cases(chosen: Sequence[Specimen], jobs: int = 1) -> list[Verdict]:
    """The verdicts on all cases, sorted by case."""
    shares = [[(specimen, tuple(ORACLES)) for specimen in chosen[n::jobs]][::-1] for n in range(jobs)]
    workers: dict[Connection, _Worker] = {worker.connection: worker for worker in map(_Worker, shares)}
    verdicts: list[Verdict] = []
    while workers:
        for done in [c for c, w in workers.items() if w.current is None]:
            workers.pop(done).stop()
        for ready in wait(list(workers), timeout=1.0):
            worker = workers[ready]  # type: ignore[index]
            try:
                verdicts.append(worker.connection.recv())
                worker.next()
            except EOFError:
                verdicts += _replace(workers, worker, "the process died")
        for worker in [w for w in workers.values() if time.monotonic() - w.started > SECONDS]:
            worker.process.kill()
            verdicts += _replace(workers, worker, f"over {SECONDS:.0f} s")
    return sorted(verdicts, key=lambda verdict: verdict.case)


def _replace(workers: dict[Connection, _Worker], broken: _Worker, why: str) -> list[Verdict]:
    """Puts a new process in the place of one that died; the case is judged again without ONNX Runtime, which has no
    guard against all that a schema allows, and where that dies too, the verdict is given."""
    broken.process.join()
    del workers[broken.connection]
    assert broken.current is not None
    specimen, oracles = broken.current
    given_up = "onnxruntime" not in oracles
    if not given_up:
        broken.pending.append((specimen, ("reference",)))
    worker = _Worker(broken.pending)
    workers[worker.connection] = worker
    name = specimen[0].rpartition("-")[0]
    detail = f"{why} (status {broken.process.exitcode})"
    return [Verdict(name, "/".join(specimen), "exception", detail, reproducer="/".join(specimen))] if given_up else []


class _Worker:
    """A process that judges one case after another."""

    def __init__(self, pending: list[tuple[Specimen, tuple[str, ...]]]) -> None:
        self.pending = pending
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.connection), daemon=True)
        self.process.start()
        theirs.close()
        self.current: tuple[Specimen, tuple[str, ...]] | None = None
        self.next()

    def next(self) -> None:
        self.started = time.monotonic()
        self.current = self.pending.pop() if self.pending else None
        if self.current is not None:
            self.connection.send(self.current)

    def stop(self) -> None:
        self.connection.close()
        self.process.join(timeout=5)


def _serve(connection: Connection, parents: Connection) -> None:
    parents.close()
    while True:
        try:
            specimen, oracles = connection.recv()
        except EOFError:
            return
        connection.send(check(specimen, oracles))
