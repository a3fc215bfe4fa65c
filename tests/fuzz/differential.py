"""One random graph three ways: interpreted as it is, interpreted after the graph passes, and as compiled C.

The bound on differences comes from the graph itself: f32 against its twin in f64 shows how much it amplifies rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.c import CBackend
from backends.c.toolchain import find_compiler
from compiler.errors import CompileError
from compiler.observe import Quiet, Verify
from compiler.pipeline import Pass, Unit
from ir.dims import evaluate
from ir.evaluate import EvaluationError, evaluate_graph
from ir.graph import Graph
from ir.types import TensorType
from tests.fuzz.graphs import Sample, random_graph

FACTOR = 64.0
"""How many times the rounding error of the reference another order of operations may have: errors of one run are a
sample, and a sum of n terms in another order has an error up to n times greater, seldom more than its root."""
LEAST = 2e-5
"""The tolerated error relative to the greatest element, where the reference happens to round well."""
PER_TERM = 2.0**-24
"""What each term of a sum may add to that: sums run in order, where NumPy adds in pairs."""


def march_of(seed: int) -> str:
    """What the graph of a seed is tiled and built for: narrower vectors than the machine's for every other one."""
    has_all = "__AVX512F__" in find_compiler().target_macros("native")
    return ("native", "x86-64-v3", "native", "x86-64")[seed % 4] if has_all else "native"


@dataclass(frozen=True)
class Problem:
    """What went wrong with a graph, and how to see it again."""

    seed: int
    what: str

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.what}"


class KeepGraph(Quiet):
    """Keeps the graph as the last graph pass leaves it."""

    def __init__(self) -> None:
        self.graph: Graph | None = None

    def after(self, step: Pass, unit: Unit) -> None:
        if isinstance(unit, Graph) and step.name == "fuse":
            self.graph = unit.clone()


@dataclass(frozen=True)
class Expected:
    """The reference's outputs and the greatest error that each may have."""

    arrays: Sequence[np.ndarray]
    tolerances: Sequence[float]

    def difference(self, made: Sequence[np.ndarray]) -> str | None:
        for number, (wanted, array, tolerance) in enumerate(zip(self.arrays, made, self.tolerances)):
            problem = _difference(wanted, array, tolerance)
            if problem is not None:
                return f"y{number}: {problem}"
        return None


def _difference(wanted: np.ndarray, made: np.ndarray, tolerance: float) -> str | None:
    if wanted.shape != made.shape or wanted.dtype != made.dtype:
        return f"{made.dtype}{list(made.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    if wanted.dtype.kind != "f":
        wrong = wanted != made
    else:
        with np.errstate(all="ignore"):
            error = np.abs(wanted.astype(np.float64) - made.astype(np.float64))
        wrong = ~((error <= tolerance) | (wanted == made) | (np.isnan(wanted) & np.isnan(made)))
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = f"{int(wrong.sum())} of {wrong.size} wrong"
    return f"{count}, first at {list(at)}: {made[at]} instead of {wanted[at]} (within {tolerance:.3g})"


def expected(sample: Sample, wide: Sample, sizes: Mapping[str, int]) -> Expected:
    """What the reference computes, with tolerances. Raises EvaluationError and ValueError where it cannot."""
    arrays = _evaluate(sample.graph, sample.feeds(sizes))
    exact = _evaluate(wide.graph, wide.feeds(sizes))
    least = LEAST + PER_TERM * _terms(sample.graph, sizes)
    return Expected(arrays, [_tolerance(a, b, least) for a, b in zip(arrays, exact)])


def _terms(graph: Graph, sizes: Mapping[str, int]) -> int:
    """At most how many terms the longest sum of a reduction has."""
    reduced = [v for node in graph.nodes() if node.op.name.startswith("reduce") for v in node.inputs if v is not None]
    return max((evaluate(value.tensor.elements, sizes) for value in reduced), default=0)


def _tolerance(array: np.ndarray, exact: np.ndarray, least: float) -> float:
    finite = np.isfinite(array.astype(np.float64)) & np.isfinite(exact.astype(np.float64))
    if array.dtype.kind != "f" or not finite.any():
        return 0.0
    error = np.abs(array[finite].astype(np.float64) - exact[finite].astype(np.float64)).max()
    return float(FACTOR * error + least * np.abs(exact[finite]).max())


def _evaluate(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(evaluate_graph(graph, [feeds[v.name] for v in graph.inputs]))


def check(seed: int, folder: Path) -> list[Problem]:
    """Builds the graph of `seed`, compiles it once in `folder`, and compares at both of its sizes."""
    sample, wide = random_graph(seed), random_graph(seed, is_wide=True)
    assert all(isinstance(v.type, TensorType) for v in sample.graph.outputs)
    keep, backend = KeepGraph(), CBackend(opt="-O1", march=march_of(seed))
    try:
        artifact = backend.emit(backend.pipeline().run(sample.graph, watch=[Verify(), keep]), folder)
        alone = artifact.load(opt="-O1", march=backend.march)
    except CompileError as error:
        return [Problem(seed, f"does not compile: {error.render()}")]
    except Exception as error:  # a crash of any kind is what this looks for
        return [Problem(seed, f"does not compile: {type(error).__name__}: {error}")]
    together = artifact.load(opt="-O1", march=backend.march, threads=2)
    assert keep.graph is not None
    problems: list[Problem] = []
    for sizes in sample.sizes:
        found = _compare(sample, wide, sizes, keep.graph, alone, together)
        problems += [Problem(seed, f"at {sizes}: {what}") for what in found]
    together.close()
    return problems


def _compare(
    sample: Sample, wide: Sample, sizes: Mapping[str, int], optimised: Graph, alone: Any, together: Any
) -> list[str]:
    feeds = sample.feeds(sizes)
    try:
        wanted = expected(sample, wide, sizes)
    except (EvaluationError, ValueError) as error:
        return [f"the reference fails: {error}"]
    problems: list[str] = []
    try:
        problem = wanted.difference(_evaluate(optimised, feeds))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem is not None:
        problems.append(f"after the graph passes, {problem}")
    names = sample.graph.output_names
    try:
        one, two = alone.run(feeds), together.run(feeds)
    except CompileError as error:
        return [*problems, f"compiled, {error.render()}"]
    problem = wanted.difference([one[name] for name in names])
    if problem is not None:
        problems.append(f"compiled, {problem}")
    problems += [f"{name} differs between 1 and 2 threads" for name in names if not _same_bits(one[name], two[name])]
    return problems


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()
