"""Times of a compiled model's parts: each call of a kernel, beside what the machine can do at most.

The model must have been compiled with clocks around its calls; their time, some tens of nanoseconds, is in each figure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UsageError


def measure_layers(
    artifact: str | Path, feeds: Mapping[str, np.ndarray], threads: int, repeat: int, warmup: int
) -> dict[str, Any]:
    """For each call of a kernel, in order: its ONNX nodes, median milliseconds, share of the time of all calls, rates
    of operations and bytes with their share of what was measured to be the most, and which of the two bounds it.

    Raises UsageError for an artifact without clocks.
    """
    from compiler.artifact import Artifact

    loaded = Artifact(artifact).load(threads=threads)
    if not getattr(loaded, "steps", None):
        message = "the artifact takes no times of its kernels"
        raise UsageError("E0214", message, help="give the .onnx file, or compile with --target c,profile=true")
    steps = loaded.costs(feeds)
    for _ in range(warmup):
        loaded.run(feeds)
    samples, walls = [], []
    for _ in range(repeat):
        loaded.profile[:] = 0
        start = time.perf_counter()
        loaded.run(feeds)
        walls.append((time.perf_counter() - start) * 1e3)
        samples.append(loaded.profile.copy())
    ceilings = loaded.ceilings()
    medians = np.median(np.stack(samples), axis=0)
    getattr(loaded, "close", lambda: None)()
    all_ms = float(medians[:, 0].sum()) / 1e6
    rows = [_row(step, ns, runs, all_ms, ceilings) for step, (ns, runs) in zip(steps, medians.tolist())]
    return {"threads": threads, "runs": repeat, "wall_ms": statistics.median(walls), "kernels_ms": all_ms,
            "ceilings": ceilings, "calls": rows}  # fmt: skip


def _row(
    step: Mapping[str, Any], nanoseconds: float, runs: float, all_ms: float, ceilings: Mapping[str, float]
) -> dict[str, Any]:
    """One call; figures that follow from sizes that only a run tells are None."""
    row: dict[str, Any] = {"kernel": step["function"], "nodes": step["nodes"], "runs": runs, "ms": nanoseconds / 1e6,
                           "share": nanoseconds / 1e6 / all_ms if all_ms else 0.0}  # fmt: skip
    lowest = {}
    for what, rate, ceiling in (("operations", "gflops", "compute"), ("bytes", "gbytes", "memory")):
        amount = step[what]
        row[what] = amount
        if amount is None or not nanoseconds:
            row |= {rate: None, f"{rate}_share": None}
            continue
        row[rate] = amount * runs / nanoseconds
        row[f"{rate}_share"] = row[rate] / ceilings[rate]
        lowest[ceiling] = amount / ceilings[rate]
    row["bound"] = max(lowest, key=lambda name: lowest[name]) if len(lowest) == 2 else None
    return row


__all__ = ["measure_layers"]
