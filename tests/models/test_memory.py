"""The memory promise on real models: the arena is exact, and generated code stays inside of everything it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compiler
from backends.c.toolchain import build_executable, find_compiler
from ir.bind import bind_sizes
from ir.dims import evaluate, parse_dim
from ir.evaluate import evaluate_graph
from ir.types import DTYPES, TensorType
from tests.models import golden

ROOT = Path(__file__).parents[2]
SMALL = ["dnsmos_v8", "eeg_seizure", "light_shufflenet", "light_squeezenet", "magika", "oww_embedding", "oww_melspec",
         "paraphrase_minilm_l3", "ppocr2_cls", "silero_vad_ov16k"]  # fmt: skip
"""Ten zoo models that run under sanitizers in seconds."""


def guarded_run(folder: Path, model: golden.Golden, tmp_path: Path) -> None:
    for number, (inputs, outputs) in enumerate(model.pairs):
        made = tmp_path / f"made{number}.npz"
        command = [sys.executable, "-m", "tests.models.guarded", str(folder), str(inputs), str(made)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{model.name}: status {done.returncode}\n{done.stderr[-2000:]}"
        problem = golden.difference(model, dict(np.load(made)), dict(np.load(outputs)))
        assert problem is None, f"{model.name}: {problem}"


@pytest.mark.parametrize("name", SMALL)
def test_arena_is_exact(name: str, tmp_path: Path) -> None:
    """Guard pages on both sides of the arena, which is poisoned before each run."""
    model = golden.zoo(name)
    guarded_run(compiler.compile(model.model, out=tmp_path / "out", opt="-O2").folder, model, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [n for n in golden.zoo_names() if n not in SMALL])
def test_arena_is_exact_on_every_model(name: str, tmp_path: Path) -> None:
    model = golden.zoo(name)
    guarded_run(compiler.compile(model.model, out=tmp_path / "out", opt="-O2").folder, model, tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_sanitizers(name: str, tmp_path: Path) -> None:
    """The emitted test bench, built with the address and undefined-behaviour sanitizers."""
    model = golden.zoo(name)
    artifact = compiler.compile(model.model, out=tmp_path / "out")
    program = tmp_path / "bench"
    _build_sanitized(artifact, program)
    for inputs, outputs in model.pairs:
        made = run_bench(program, artifact, dict(np.load(inputs)), tmp_path)
        problem = golden.difference(model, made, dict(np.load(outputs)))
        assert problem is None, f"{name}: {problem}"


@pytest.mark.parametrize(
    ("model", "feeds"),
    [
        ("digits/digits.onnx", "digits/test_images.npz"),
        ("tiny_transformer/tiny_transformer.onnx", "tiny_transformer/inputs.npz"),
    ],
)
def test_sanitizers_on_samples(model: str, feeds: str, tmp_path: Path) -> None:
    """The samples under sanitizers against the interpreter."""
    loaded = compiler.load(ROOT / "samples" / model)
    given = dict(np.load(ROOT / "samples" / feeds))
    arrays = {v.name: given[v.name] if v.name in given else next(iter(given.values())) for v in loaded.graph.inputs}
    artifact = compiler.compile(loaded, out=tmp_path / "out")
    program = tmp_path / "bench"
    _build_sanitized(artifact, program)
    made = run_bench(program, artifact, arrays, tmp_path)
    expected = evaluate_graph(loaded.graph, [arrays[v.name] for v in loaded.graph.inputs])
    for name, wanted in zip(loaded.graph.output_names, expected):
        np.testing.assert_allclose(made[name], wanted, rtol=1e-4, atol=1e-5)


def _build_sanitized(artifact: compiler.Artifact, program: Path) -> None:
    """Builds the emitted test bench as `program`."""
    build_executable(
        sorted(artifact.folder.glob("*.c")),
        program,
        find_compiler(),
        include=[artifact.folder],
        opt="-O1",
        sanitize=("address", "undefined"),
        flags=("-fno-sanitize-recover=all",),
    )


def run_bench(
    program: Path, artifact: compiler.Artifact, feeds: dict[str, np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    """Runs the emitted test bench on raw files; the outputs by name. A sanitizer report fails the run."""

    def port(entry: dict) -> tuple[str, TensorType]:
        return entry["name"], TensorType(DTYPES[entry["dtype"]], tuple(parse_dim(str(s)) for s in entry["shape"]))

    manifest = artifact.manifest
    inputs = [port(p) for p in manifest["inputs"]]
    sizes = bind_sizes([t for _, t in inputs], [feeds[n] for n, _ in inputs], [n for n, _ in inputs])
    command = [str(program), "--weights", str(artifact.folder / "model.weights")]
    command += [f"{dim['name']}={sizes[dim['name']]}" for dim in manifest["dims"]]
    for number, (name, _) in enumerate(inputs):
        path = folder / f"in{number}.bin"
        path.write_bytes(np.ascontiguousarray(feeds[name]).tobytes())
        command.append(f"{name}={path}")
    outputs = [port(p) for p in manifest["outputs"]]
    command += [f"{name}={folder / f'out{number}.bin'}" for number, (name, _) in enumerate(outputs)]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    made = {}
    for number, (name, type_) in enumerate(outputs):
        raw = np.fromfile(folder / f"out{number}.bin", dtype=type_.dtype.numpy)
        made[name] = raw.reshape([evaluate(s, sizes) for s in type_.shape])
    return made
