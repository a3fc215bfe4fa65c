"""The comparison with other runtimes: its networks are valid, and its table and means say what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import compare, graphs, plot


def record(name: str, times: dict[str, float], threads: int = 1, ok: bool = True) -> dict[str, Any]:
    def spread(ms: float) -> dict[str, float]:
        return {"median": ms, "min": ms / 2, "max": ms, "mean": ms}

    sides = [{"name": side, "threads": threads, "wall_ms": spread(ms), "cpu_ms": spread(ms), "peak_rss_mb": 50.0}
             for side, ms in times.items()]  # fmt: skip
    outputs = [{"name": "y", "against": side, "threads": threads, "ok": ok} for side in times if side != "sesame"]
    return {"name": name, "refused": {}, "sides": sides, "outputs": outputs}


FAST = record("fast", {"sesame": 1.0, "onnxruntime": 4.0, "openvino": 2.0})
SLOW = record("slow", {"sesame": 2.0, "onnxruntime": 1.0}, ok=False)
BROKEN = {"name": "broken", "error": "error[E0401]: no | such operator\n  --> somewhere"}


def test_a_factor_is_the_rivals_time_over_ours() -> None:
    assert compare.factors(FAST, 1) == {"onnxruntime": 4.0, "openvino": 2.0, "best": 2.0}
    assert compare.factors(FAST, 2) == compare.factors(BROKEN, 1) == {}


def test_a_picture_shows_each_model_that_ran_and_is_the_same_each_time(tmp_path: Path) -> None:
    records = [{"threads": [1, 2], **each} for each in (FAST, SLOW)] + [BROKEN]
    for name in ("one.svg", "two.svg"):
        plot.plot(records, tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert ">fast<" in text and ">slow<" in text and "broken" not in text
    assert text == (tmp_path / "two.svg").read_text()


def test_means_are_geometric_and_over_those_that_ran() -> None:
    found = compare.means([FAST, SLOW, BROKEN], 1)["median"]
    assert found == {"best": 1.0, "onnxruntime": pytest.approx(math.sqrt(2)), "openvino": 2.0}


def test_the_table_has_a_row_for_each_model_and_number_of_threads() -> None:
    lines = compare.table([FAST, SLOW, BROKEN], [1], compare.RIVALS).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert cells[2] == ["fast", "1", "1", "4", "2", "2.00", "2.00", "2.00", "1 / 4 / 2", "50 / 50 / 50", "agree"]
    assert cells[3][4:6] == ["-", "0.50"] and cells[3][-1] == "differ: y (onnxruntime)"
    assert cells[4][-1] == "error[E0401]: no / such operator"
    assert "threads 1, median: best 1.000" in lines[6]


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_networks_are_valid_and_their_outputs_depend_on_the_input(name: str, tmp_path: Path) -> None:
    path = graphs.write(name, tmp_path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first, second = (session.run(None, graphs.feeds(name, seed))[0] for seed in (0, 1))
    assert first.shape == (1, 1000) and np.isfinite(first).all()
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()


def test_every_network_has_inputs() -> None:
    assert {name: sorted(graphs.feeds(name)) for name in graphs.GRAPHS} == {
        "mobilenet_v2": ["image"],
        "efficientnet_b0": ["image"],
        "vit_b16": ["image"],
        "bert_base_128": ["attention_mask", "input_ids", "token_type_ids"],
    }


def test_a_model_is_compared_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> tiny (float[4] x) => (float[4] y) { y = Add(x, x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "tiny.onnx")
    feeds = {"x": np.ones(4, np.float32)}
    monkeypatch.setattr(compare, "source", lambda name, folder: (tmp_path / "tiny.onnx", feeds))
    found = compare.compare("tiny", tmp_path, [1], ["onnxruntime"], 0.001)
    assert found["refused"] == {} and found["outputs"][0]["ok"] and compare.factors(found, 1)["best"] > 0
