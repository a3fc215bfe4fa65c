"""Guard pages around the arena of random models whose sizes only a run tells: it is large enough, and exact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compiler
from compiler.errors import CompileError
from ir.evaluate import EvaluationError, evaluate_graph
from ir.types import TensorType
from tests.fuzz.dynamic import random_model
from tests.fuzz.dynamic_check import load

ROOT = Path(__file__).parents[2]
SEEDS = (13, 19, 20, 23, 42, 44, 47, 55, 67, 83)


def _feeds_that_run(graph: Any, seed: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
    """Inputs that the model takes, and what the interpreter makes of them."""
    model = random_model(seed)
    for number in range(8):
        feeds = model.feeds(number)
        try:
            return feeds, evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
        except (EvaluationError, ValueError):
            continue
    raise AssertionError(f"no inputs that model {seed} takes")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_arena_of_sizes_that_a_run_tells(seed: int, tmp_path: Path) -> None:
    try:
        loaded = load(random_model(seed))
    except CompileError as error:
        raise AssertionError(f"model {seed} is refused") from error
    feeds, wanted = _feeds_that_run(loaded.graph, seed)
    folder = compiler.compile(loaded, out=tmp_path / "out", opt="-O1", march="").folder
    np.savez(tmp_path / "in.npz", **feeds)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "tests.models.guarded", str(folder)]
    command += [str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"model {seed}: status {done.returncode}\n{done.stderr[-2000:]}"
    made = np.load(tmp_path / "out.npz")
    for name, value in zip(loaded.graph.output_names, wanted, strict=True):
        np.testing.assert_array_equal(made[name], value)


def test_the_models_are_of_tensors_that_a_run_sizes() -> None:
    for seed in SEEDS:
        graph = load(random_model(seed)).graph
        values = (*graph.inputs, *graph.outputs)
        assert graph.limits and all(isinstance(v.type, TensorType) and v.dtype.kind != "string" for v in values), seed
