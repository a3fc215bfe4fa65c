"""Promises that hold for every compile: the same bytes twice, the same bits for any number of threads, valid IR after
every pass."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compiler
from backends.c import CBackend
from compiler import observe
from compiler.driver import load
from tests.models import golden

ROOT = Path(__file__).parents[2]
MODELS = ["magika", "light_squeezenet", "paraphrase_minilm_l3"]


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.parametrize("name", MODELS)
def test_two_compiles_give_identical_bytes(name: str, tmp_path: Path) -> None:
    """In two processes with different hash seeds, into two folders."""
    model = golden.zoo(name).model
    code = "import compiler, sys; compiler.compile(sys.argv[1], out=sys.argv[2])"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(model), str(tmp_path / seed)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
    first, second = _digests(tmp_path / "1"), _digests(tmp_path / "2")
    assert first == second and "model.c" in first and "manifest.json" in first


@pytest.mark.parametrize("name", MODELS)
def test_threads_do_not_change_bits(name: str, tmp_path: Path) -> None:
    model = golden.zoo(name)
    artifact = compiler.compile(model.model, out=tmp_path / "out", opt="-O2")
    inputs, _ = model.feeds()[-1]
    alone = artifact.load()
    feeds = {port.name: inputs[port.name] for port in alone.ports.inputs}
    expected = alone.run(feeds)
    for threads in (2, 3):
        together = artifact.load(threads=threads)
        for output, wanted in expected.items():
            np.testing.assert_array_equal(together.run(feeds)[output], wanted)
        together.close()


@pytest.mark.parametrize("name", ["qwen3_tiny_decode_dynamo", "unet2d_dynhw_ts", "mobius_mamba_tiny"])
def test_every_pass_leaves_valid_ir(name: str) -> None:
    """`Verify` after every pass: types, uses and order of graphs; indices and types of kernels; overlapping buffers."""
    CBackend().pipeline().run(load(golden.exporter(name).model), watch=[observe.Verify()])
