"""Every real model: one compiled artifact, run at both of its shapes, gives the golden outputs; or it is refused, with
the reason that stands here."""

from __future__ import annotations

import re

import pytest

import compiler
from compiler.errors import CompileError
from tests.models import golden

REFUSED: dict[str, str] = {}
"""Model -> what the error must say (a regular expression). May only shrink."""


def _check(model: golden.Golden, tmp_path) -> None:
    if model.name in REFUSED:
        with pytest.raises(CompileError) as caught:
            compiler.compile(model.model, out=tmp_path / "out")
        assert re.search(REFUSED[model.name], str(caught.value), re.DOTALL), str(caught.value)
        return
    loaded = compiler.compile(model.model, out=tmp_path / "out", opt="-O2").load()
    for inputs, outputs in model.feeds():
        names = {name for name, _ in loaded.inputs}
        made = loaded.run({name: array for name, array in inputs.items() if name in names})
        problem = golden.difference(model, made, outputs)
        assert problem is None, f"{model.name}: {problem}"


@pytest.mark.parametrize("name", golden.zoo_names())
def test_zoo(name: str, tmp_path) -> None:
    _check(golden.zoo(name), tmp_path)


@pytest.mark.parametrize("name", golden.exporter_names())
def test_exporters(name: str, tmp_path) -> None:
    _check(golden.exporter(name), tmp_path)
