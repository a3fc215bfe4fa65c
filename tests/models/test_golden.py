"""Every real model: one compiled artifact, run at both of its shapes, gives the golden outputs."""

from __future__ import annotations

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
