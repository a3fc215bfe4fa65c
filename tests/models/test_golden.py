"""Every real model: one compiled artifact, run at both of its shapes, gives the golden outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import compiler
from tests.models import golden

BF16 = [  # convolutions, depthwise ones too, attention, recurrences, trees of operators, symbolic sizes
    "dnsmos_v8", "eeg_seizure", "light_shufflenet", "mobius_bert_tiny", "oww_embedding", "paraphrase_minilm_l3",
    "ppocr2_cls", "ppocr4_rec", "silero_vad_op15", "t5_tiny_decoder_ts",
]  # fmt: skip


def _check(model: golden.Golden, tmp_path, **options) -> None:
    loaded = compiler.compile(model.model, out=tmp_path / "out", opt="-O2", **options).load()
    for inputs, outputs in model.feeds():
        names = {port.name for port in loaded.ports.inputs}
        made = loaded.run({name: array for name, array in inputs.items() if name in names})
        problem = golden.difference(model, made, outputs)
        assert problem is None, f"{model.name}: {problem}"


@pytest.mark.parametrize("name", golden.zoo_names())
def test_zoo(name: str, tmp_path) -> None:
    _check(golden.zoo(name), tmp_path)


@pytest.mark.parametrize("name", golden.exporter_names())
def test_exporters(name: str, tmp_path) -> None:
    _check(golden.exporter(name), tmp_path)


@pytest.mark.parametrize("name", BF16)
def test_with_operands_of_bf16(name: str, tmp_path) -> None:
    """Judged as quantised models are: an activation has eight bits, and where the largest output is of a function as
    steep as the sigmoid of a mask's edge, it moves by more than 2^-8 of itself."""
    found = golden.zoo(name) if name in golden.zoo_names() else golden.exporter(name)
    _check(replace(found, is_quantised=True), tmp_path, precision="bf16")


@pytest.mark.parametrize(
    ("got", "problem"),
    [
        ([1.0, np.inf, np.nan, -np.inf], None),
        ([1.1, np.inf, np.nan, -np.inf], "1.0e-01 of the largest"),  # infinities do not hide it
        ([1.0, -np.inf, np.nan, -np.inf], "elsewhere"),
        ([1.0, np.nan, np.inf, -np.inf], "elsewhere"),
        ([1.0, np.inf, 0.0, -np.inf], "elsewhere"),
    ],
)
def test_differences_beside_infinities_and_nans_are_seen(got: list[float], problem: str | None) -> None:
    model = golden.Golden("made up", Path(), (), False)
    wanted = np.array([1.0, np.inf, np.nan, -np.inf], np.float32)
    found = golden.difference(model, {"y": np.array(got, np.float32)}, {"y": wanted})
    assert found is None if problem is None else found is not None and problem in found
