"""Every real model: one compiled artifact, run at both of its shapes, gives the golden outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import compiler
from tests.models import golden


def _check(model: golden.Golden, tmp_path) -> None:
    loaded = compiler.compile(model.model, out=tmp_path / "out", opt="-O2").load()
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
