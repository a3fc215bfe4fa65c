"""A picture of a comparison: for each model, the best rival's time over Sesame's, as bars that start at 1.

    python -m benchmarks.plot RECORDS.json [--figure median] -o PICTURE.svg

RECORDS is what `python -m benchmarks.compare --json` wrote. The same records give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import FIGURES, factors

_COLOURS = {1: "#4c72b0", 2: "#dd8452"}


def plot(records: Sequence[Mapping[str, Any]], path: Path, figure: str = "median") -> None:
    """Writes an SVG file with a group of bars for each record that has a rival, the greatest factor on top."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "sesame", "svg.fonttype": "none"})
    from matplotlib import pyplot

    rows = [(r["name"], _by_threads(r, figure)) for r in records if "error" not in r]
    rows = sorted((row for row in rows if row[1]), key=lambda row: max(row[1].values()))
    counts = sorted({count for _, each in rows for count in each})
    height = 0.8 / max(1, len(counts))
    canvas, axes = pyplot.subplots(figsize=(8, 1 + 0.26 * len(rows)))
    for place, count in enumerate(counts):
        found = [(y, each[count]) for y, (_, each) in enumerate(rows) if count in each]
        axes.barh(
            [y + (place - (len(counts) - 1) / 2) * height for y, _ in found],
            [factor - 1 for _, factor in found],
            height,
            left=1,
            color=_COLOURS.get(count),
            label=f"{count} thread{'s' if count > 1 else ''}",
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 1.5, 2, 3, 4], ["0.5", "1", "1.5", "2", "3", "4"])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of the faster of ONNX Runtime and OpenVINO / time of Sesame")
    axes.legend(loc="lower right")
    canvas.tight_layout()
    canvas.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(canvas)


def _by_threads(record: Mapping[str, Any], figure: str) -> dict[int, float]:
    """The best rival's factor for each number of threads."""
    found = {count: factors(record, count, figure).get("best") for count in record["threads"]}
    return {count: factor for count, factor in found.items() if factor is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--figure", choices=sorted(FIGURES), default="median")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    plot(json.loads(arguments.records.read_text())["models"], arguments.out, arguments.figure)


if __name__ == "__main__":
    main()
