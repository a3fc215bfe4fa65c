"""Every real model: one compiled artifact, run at both of its shapes, gives the golden outputs; or it is refused, with
the reason that stands here."""

from __future__ import annotations

import re

import pytest

import compiler
from compiler.errors import CompileError
from tests.models import golden

REFUSED = {
    "deepseek_v3_tiny_hfexp__prefill": r"must be a single value known when compiling.*node_Range_552",
}
"""Model -> what the error says (a regular expression): sizes that depend on data. May only shrink."""


def _check(model: golden.Golden, tmp_path) -> None:
    if model.name in REFUSED:
        with pytest.raises(CompileError) as caught:
            _run(model, tmp_path)
        text = "".join(error.render() for error in getattr(caught.value, "errors", [caught.value]))
        assert re.search(REFUSED[model.name], text, re.DOTALL), text
        return
    _run(model, tmp_path)


def _run(model: golden.Golden, tmp_path) -> None:
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
