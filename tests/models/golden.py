"""Real models with golden outputs: where they lie, and how far a result may be from them.

Tolerances: fp32 models agree to 1e-4 of the largest output, because the golden outputs are those of ONNX Runtime in
another order of sums; quantised ones are judged by cosine, because one rounded activation more or less moves everything
after it. A model with another bound has its reason beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.zoo import fetch

ROOT = Path(__file__).parents[1]
CLOSE = 1e-4
COSINE = 0.999

OTHER_BOUNDS = {
    # At its second shape ONNX Runtime itself moves by 1e-4 between its optimisation levels: the network takes the log
    # of a spectrum whose smallest powers are differences of nearly equal numbers.
    "basic_pitch": 3e-4,
}


@dataclass(frozen=True)
class Golden:
    """A model and its golden inputs and outputs, at one shape or two."""

    name: str
    model: Path
    pairs: tuple[tuple[Path, Path], ...]
    is_quantised: bool

    def feeds(self) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """(inputs, outputs) by name, for each shape."""
        return [(dict(np.load(i)), dict(np.load(o))) for i, o in self.pairs]


def zoo(name: str) -> Golden:
    """A model of the zoo, fetched where it is not in the cache."""
    io = ROOT / "zoo" / "io" / name
    return Golden(name, fetch.fetch(name), _pairs(io), fetch.manifest()[name].tolerance == "cosine")


def exporter(name: str) -> Golden:
    """A graph as an exporter writes it. ONNX Runtime also quantises the activations of products with int4 and int8
    weights, so its answers to those are not exact."""
    folder = ROOT / "exporters" / name
    return Golden(name, folder / "model.onnx", _pairs(folder), "_int4_" in name or "_int8_" in name)


def _pairs(folder: Path) -> tuple[tuple[Path, Path], ...]:
    pairs = [(folder / f"inputs{suffix}.npz", folder / f"outputs{suffix}.npz") for suffix in ("", "_2")]
    assert pairs[0][0].exists(), f"{folder} has no golden inputs"
    return tuple(pair for pair in pairs if pair[0].exists())


def zoo_names() -> list[str]:
    return sorted(fetch.manifest())


def exporter_names() -> list[str]:
    return sorted(p.name for p in (ROOT / "exporters").iterdir() if p.is_dir() and not p.name.startswith("_"))


def difference(golden: Golden, made: Mapping[str, Any], expected: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the outputs `made`, or None."""
    for name, wanted in expected.items():
        if name not in made:
            return f"output {name} is missing"
        got = _rows(made[name], wanted.dtype) if isinstance(made[name], list) else made[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return f"{name} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
        if not wanted.size:
            continue
        if not np.issubdtype(wanted.dtype, np.floating):
            if not np.array_equal(got, wanted):
                return f"{name} differs in {np.count_nonzero(got != wanted)} of {wanted.size} elements"
            continue
        problem = _far(golden, got.astype(np.float64), wanted.astype(np.float64))
        if problem:
            return f"{name}: {problem}"
    return None


def _rows(maps: list[Any], dtype: np.dtype) -> np.ndarray:
    """A sequence of maps as the recorded outputs have it: their values, a row for each, in the order of the keys."""
    assert all(list(each) == sorted(each) for each in maps)
    return np.array([list(each.values()) for each in maps], dtype)


def _far(golden: Golden, got: np.ndarray, wanted: np.ndarray) -> str | None:
    finite = np.isfinite(wanted)
    odd = (np.where(np.isfinite(x), 0, x) for x in (got, wanted))
    if not np.array_equal(*odd, equal_nan=True):
        return "its infinities or NaNs are elsewhere"
    got, wanted = got[finite], wanted[finite]
    if golden.is_quantised:
        norms = float(np.linalg.norm(got) * np.linalg.norm(wanted))
        cosine = float(got @ wanted) / norms if norms else float(not got.any() and not wanted.any())
        return None if cosine >= COSINE else f"cosine {cosine:.6f}"
    largest = float(np.abs(wanted).max(initial=0))
    distance = float(np.abs(got - wanted).max(initial=0)) / (largest or 1.0)
    bound = OTHER_BOUNDS.get(golden.name, CLOSE)
    return None if distance <= bound else f"{distance:.1e} of the largest output away, {bound:.0e} allowed"
