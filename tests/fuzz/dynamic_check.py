"""One random model with sizes that only a run tells, four ways: interpreted, as a lowered program, and as C, once fast
and once watched by sanitizers. All must give the same, or fail where the others fail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import compiler
from backends.c import CBackend
from backends.reference.program import run_program
from compiler.errors import CompileError
from compiler.observe import Verify
from compiler.passes.dce import dce
from ir.bind import bind_sizes
from ir.dims import evaluate
from ir.evaluate import EvaluationError, evaluate_graph
from ir.graph import Graph
from ir.program import Program
from tests.fuzz.dynamic import Dynamic, meeting_model, random_model
from tests.models.guarded import Outcome, run_fenced

MOST = 24
"""What a size that nothing bounds is taken to be at most."""
FAR = 2000
"""The same, where what is too large is to reach beyond a page."""
_ROOM = 1 << 26
"""Bytes: what takes more memory is not run."""


class Report(Counter[str]):
    """How many models were refused, ran, or failed to."""


def load(model: Dynamic, most: int = MOST) -> Any:
    """The model with a bound for every size that needs one. Raises CompileError."""
    dims: dict[str, tuple[int, int]] = {}
    for _ in range(8):
        loaded = compiler.load(model.proto, dims=dims)
        try:
            CBackend(march="").pipeline().run(loaded)
            return loaded
        except CompileError as error:
            named = re.findall(r"the size '([^']+)' is known only when the model runs", str(error))
            if not named or set(named) <= dims.keys():
                raise
            dims |= dict.fromkeys(named, (0, most))
    raise AssertionError("bounds give rise to more sizes that need one")


def check(seed: int, folder: Path, report: Report, c_options: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the model of a seed."""
    model = random_model(seed)
    try:
        loaded = load(model)
        backend = CBackend(march="")
        program = backend.pipeline().run(loaded, watch=[Verify()])
        artifact = backend.emit(program, folder, loaded) if c_options else None
        built = [artifact.load(**options) for options in c_options] if artifact is not None else []
    except CompileError as error:
        if " broke the " in str(error):
            return [f"seed {seed}: {error}"]
        report["refused"] += 1
        report["refused: " + re.sub(r"'[^']*'|\d+", "_", str(error).split("\n")[0])[:150]] += 1
        return []
    except Exception as error:  # a crash of any kind is what this looks for
        return [f"seed {seed}: does not compile: {type(error).__name__}: {error}"]
    needed = _needed(loaded.graph)
    problems: list[str] = []
    for number in range(3):
        feeds = model.feeds(number)
        wanted = _wanted(loaded.graph, needed, feeds)
        ways: list[tuple[str, Outcome]] = []
        if not _composite(loaded.graph) and not _strings(loaded.graph):
            ways.append(("program", _outcome(lambda feeds=feeds: run_program(program, feeds))))
        ways += [
            (str(options), _outcome(lambda b=b, feeds=feeds: b.run(feeds))) for options, b in zip(c_options, built)
        ]
        report["ran" if isinstance(wanted, dict) else "failed as it should"] += 1
        for way, made in ways:
            found = _difference(wanted, made)
            if "IndexError" in str(wanted):
                continue  # kernels take the nearest place for one that lies outside
            if found is not None:
                problems.append(f"seed {seed}, feeds {number}, {way}: {found}")
    return problems


def check_fenced(seeds: Iterable[int], folder: Path, report: Report) -> list[str]:
    """What is wrong with models in which sizes meet, run with a fence around each memory."""
    runs: list[tuple[str, str, list[dict[str, np.ndarray]]]] = []
    wanted: list[list[Outcome]] = []
    for seed in seeds:
        model, backend = meeting_model(seed), CBackend(march="", opt="-O0")
        try:
            loaded = load(model, FAR)
            program = backend.pipeline().run(loaded, watch=[Verify()])
        except CompileError:
            report["refused"] += 1
            continue
        if _composite(loaded.graph) or _strings(loaded.graph) or any(v.rank > 2 for v in model.inputs):
            continue  # what callers give has other types in the program, or does not fit into a machine
        feeds = [each for each in map(model.feeds, range(6)) if _bytes_of(program, each) < _ROOM]
        needed = _needed(loaded.graph)
        runs.append((str(seed), str(backend.emit(program, folder / str(seed), loaded).folder), feeds))
        wanted.append([_wanted(loaded.graph, needed, each) for each in feeds])
    problems: list[str] = []
    for (seed, _, feeds), expected, made in zip(runs, wanted, run_fenced(runs, folder), strict=True):
        for number, (one, other) in enumerate(zip(expected, made, strict=True)):
            report["ran" if isinstance(one, dict) else "failed as it should"] += 1
            found = _difference(one, other)
            if found is not None and "IndexError" not in str(one):  # kernels take the nearest place
                problems.append(f"seed {seed}, feeds {number} of {len(feeds)}: {found}")
    return problems


def _bytes_of(program: Program, feeds: dict[str, np.ndarray]) -> int:
    """Bytes that the buffers of a program take together at most."""
    types = [program.buffers[name].type for name in program.inputs]
    sizes = bind_sizes(types, [feeds[name] for name in program.input_names], program.input_names)
    return sum(max(0, evaluate(program.capacity(buffer.type), sizes)) for buffer in program.buffers.values())


def _needed(graph: Graph) -> Graph:
    """A graph without what its outputs do not need."""
    needed = graph.clone()
    for _ in range(3):  # what is needed in a nested graph may be less, once less is needed around it
        dce.run(needed)
    return needed


def _wanted(graph: Graph, needed: Graph, feeds: dict[str, np.ndarray]) -> Outcome:
    """What the interpreter makes of feeds, where it can be of those nodes alone that are needed."""
    wanted = _outcome(lambda: _interpreted(graph, feeds))
    return _outcome(lambda: _interpreted(needed, feeds)) if isinstance(wanted, str) else wanted


def _composite(graph: Any) -> bool:
    return any(not hasattr(v.type, "dtype") for v in (*graph.inputs, *graph.outputs))


def _strings(graph: Any) -> bool:
    return any(getattr(getattr(v.type, "dtype", None), "kind", "") == "string" for v in (*graph.inputs, *graph.outputs))


def _interpreted(graph: Any, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    return dict(zip(graph.output_names, evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])))


def _outcome(run: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        with np.errstate(all="ignore"):
            return run()
    except (CompileError, EvaluationError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


def _difference(wanted: Outcome, made: Outcome) -> str | None:
    """What is wrong with an outcome. Where sizes do not fit, one way may refuse what another stretches or leaves out:
    that is no difference as long as memory is safe."""
    if isinstance(made, str):
        if "Sanitizer" in made.replace("LeakSanitizer", "") or "runtime error" in made or "lies outside" in made:
            return f"unsafe: {made}"
        if f" to {MOST}" in made or "beyond its limit" in made:
            return None
        return f"refuses what the interpreter runs: {made}" if isinstance(wanted, dict) else None
    if isinstance(wanted, str):
        return f"runs what the interpreter refuses: {wanted}"
    for name, value in wanted.items():
        if not _same(value, made[name]):
            return f"{name} is {made[name]!r:.300} instead of {value!r:.300}"
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tolist() == b.tolist()
