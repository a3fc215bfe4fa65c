"""Results do not depend on how the C compiler optimises: real models and the official suite, at every level.

Elsewhere models are built at one level; here, from one artifact, at all of them. Whole lists run with `-m sweep`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import compiler
from tests.models import golden
from tests.onnx.suite import expected
from tests.onnx.suite.cases import load_cases
from tests.onnx.suite.workers import run_cases

LEVELS = ["-O0", "-O1", "-O2", "-O3"]
SHORT = ["oww_melspec", "silero_vad_op15", "ort_logreg_iris", "mobius_bert_tiny", "t5_tiny_decoder_ts"]
"""A few of the fastest to build: convolutions, recurrences, trees, attention."""
LARGE = {
    "light_bvlc_alexnet", "light_densenet121", "light_inception_v1", "light_inception_v2", "light_resnet50",
    "light_vgg19", "light_zfnet512", "ppocr4_det", "smart_turn_v32",
}  # fmt: skip
"""Models that take seconds for each run at -O0, and have no form of code that others have not."""
LONG = [name for name in (*golden.zoo_names(), *golden.exporter_names()) if name not in LARGE]
SAMPLE = 16
"""Of so many cases of the suite, one."""


def check(name: str, folder: Path) -> None:
    """The golden outputs at every level, at both shapes."""
    model = golden.zoo(name) if name in golden.zoo_names() else golden.exporter(name)
    artifact = compiler.compile(model.model, out=folder / "out")
    problems = []
    for level in LEVELS:
        loaded = artifact.load(opt=level)
        for inputs, outputs in model.feeds():
            made = loaded.run({port.name: inputs[port.name] for port in loaded.ports.inputs})
            problem = golden.difference(model, made, outputs)
            problems += [f"{level}: {problem}"] if problem else []
        loaded.close()
    assert not problems


@pytest.mark.parametrize("name", SHORT)
def test_models(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in LONG if name not in SHORT])
def test_more_models(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("level", [level for level in LEVELS if level != "-O1"])  # which the suite itself is run at
def test_a_sample_of_the_suite(level: str) -> None:
    cases = [name for name, case in load_cases().items() if case.kind != "real"]
    sample = [name for name in cases if hashlib.sha256(name.encode()).digest()[1] % SAMPLE == 0]
    assert not expected.failures("CPU", run_cases(sample, "CPU", {"opt": level}))
