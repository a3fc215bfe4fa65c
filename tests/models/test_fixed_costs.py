"""What a model costs besides its kernels: the C program holds its weights and its arena once, and little else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from benchmarks import fixed_costs
from benchmarks.fixed_costs import Row

SIZE = 2600
"""Weights of 27 MB: were they held twice, the limit would not be kept."""


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """y = (x @ w) @ w."""
    weights = onnx.numpy_helper.from_array(np.full((SIZE, SIZE), 0.001, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIZE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], [weights])
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_the_c_program_holds_weights_and_arena_once(product: Path, tmp_path: Path) -> None:
    folder = compiler.compile(product, "c,opt=-O1", out=tmp_path / "model").folder
    feeds = {"x": np.ones((64, SIZE), np.float32)}
    row = fixed_costs.memory_row("product", folder, feeds)
    ends_mb = 2 * 64 * SIZE * 4 / 1e6
    assert ends_mb < row.figure <= row.limit == 20, row.detail
    assert "weights 27.3, arena 0.7 MB" in row.detail


def test_a_program_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="returned 3"):
        fixed_costs.peak_bytes(["sh", "-c", "exit 3"], tmp_path)


def test_the_peak_of_a_program_is_what_it_held(tmp_path: Path) -> None:
    held = fixed_costs.peak_bytes(["python3", "-c", "x = bytearray(60_000_000)"], tmp_path)
    assert 60e6 < held < 90e6  # besides what Python itself takes


def test_the_table_says_what_is_kept() -> None:
    kept, broken = Row("fast", 1.0, 2.0, "ms", "much"), Row("slow", 3.0, 2.0, "ms")
    assert kept.is_kept and not broken.is_kept
    lines = fixed_costs.table([kept, broken]).splitlines()
    assert lines[2] == "| fast | 1 ms | 2 ms | kept | much |" and "**not kept**" in lines[3]
