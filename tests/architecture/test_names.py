"""Names that users may rely on: they exist, with these parameters. A change here is a change of the interface."""

from __future__ import annotations

import importlib
import inspect

import pytest

import compiler
import ir

PARAMETERS = {
    "compiler.compile": {"model": None, "target": "c", "threads": 1, "dims": None},
    "compiler.load": {"model": None, "dims": None},
    "compiler.find_backend": {"target": None},
    "compiler.Artifact": {"folder": None},
    "compiler.Pipeline": {"passes": ()},
}
"""The leading parameters and their defaults (None: it has none, or None)."""


def _found(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_stay(name):
    parameters = list(inspect.signature(_found(name)).parameters.values())[: len(PARAMETERS[name])]
    defaults = {p.name: None if p.default is p.empty else p.default for p in parameters}
    assert list(defaults.items()) == list(PARAMETERS[name].items())


def test_names_stay():
    assert {
        "Artifact",
        "CompileError",
        "Pipeline",
        "compile",
        "find_backend",
        "graph_pass",
        "kernel_pass",
        "load",
    } <= set(compiler.__all__)
    assert ir.Rule.__module__ == "ir.rule"
    for name in compiler.__all__:
        assert getattr(compiler, name) is not None
    assert callable(compiler.Artifact.load)


def test_the_onnx_interface_has_its_four_functions():
    adapter = importlib.import_module("compiler.onnx_backend")
    for name in ("prepare", "run_model", "run_node", "supports_device"):
        assert callable(getattr(adapter, name))
    assert adapter.supports_device("CPU")
    assert adapter.supports_device("REFERENCE")
    assert not adapter.supports_device("TOASTER")


def test_an_unknown_name_is_an_attribute_error():
    for module in (compiler, ir):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            module.nothing  # noqa: B018 - the access is what is tested
