"""What is declared must be documented and have examples: ops, ONNX importers, rules, passes, targets."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil

import compiler.rules
import ir.ops
from compiler.backend import backends
from compiler.onnx.registry import all_ops
from compiler.pipeline import ORDER, PASSES, load_passes
from ir.op import OPS
from ir.rule import Rule
from tests.architecture.source import modules, tree

HOLDS_A_GRAPH = {"fused", "fused_kernel"}
"""Ops whose attribute is a graph that a pass makes: the tests of that pass are their examples."""


def _declared_ops():
    for found in pkgutil.iter_modules(ir.ops.__path__):
        importlib.import_module(f"ir.ops.{found.name}")
    return {name: cls for name, cls in sorted(OPS.items()) if cls.__module__.startswith("ir.")}


def _declared_rules():
    for found in pkgutil.iter_modules(compiler.rules.__path__):
        importlib.import_module(f"compiler.rules.{found.name}")
    found, pending = [], [Rule]
    while pending:
        subclasses = pending.pop().__subclasses__()
        pending += subclasses
        found += [cls for cls in subclasses if cls.__module__.startswith("compiler.rules")]
    return sorted(found, key=lambda rule: rule.__name__)


def test_every_op_has_a_docstring_and_examples():
    """Examples drive the generated tests, so an op without one is not tested. Structural ops hold graphs or blobs."""
    wrong = [  # read from the source: a dataclass without a docstring is given one
        f"{module}:{node.lineno} {node.name}: no docstring"
        for module, path in modules().items()
        if module.startswith("ir.ops.")
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    wrong += [
        f"{name}: no examples"
        for name, cls in _declared_ops().items()
        if not cls.structural and not cls.examples and name not in HOLDS_A_GRAPH
    ]
    assert not wrong, "\n".join(wrong)


def test_every_op_gives_its_meaning():
    wrong = [
        f"{name}: no {method}"
        for name, cls in _declared_ops().items()
        for method in ("infer", "reference")
        if not cls.has(method)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_rule_has_its_equation_and_examples():
    wrong = [f"{rule.__name__}: no docstring" for rule in _declared_rules() if not rule.__dict__.get("__doc__")]
    wrong += [
        f"{rule.__name__}: no examples" for rule in _declared_rules() if "find" in rule.functions and not rule.examples
    ]
    assert not wrong, "\n".join(wrong)


def test_every_importer_is_used_by_name_and_version():
    """Each function's signature is the schema: attributes are keyword-only, and no two importers share a version."""
    entries = all_ops()
    assert entries
    assert len({(e.domain, e.name, e.since) for e in entries}) == len(entries)


def test_every_pass_says_what_it_does():
    load_passes()
    silent = [name for name, step in PASSES.items() if not step.doc and step.run.__module__.startswith("compiler.")]
    assert not silent, "\n".join(silent)


def test_order_names_passes_that_exist_and_gives_reasons():
    load_passes()
    assert ORDER
    for earlier, later, reason in ORDER:
        assert earlier in PASSES, earlier
        assert later in PASSES, later
        assert reason, (earlier, later)


def test_every_target_is_a_dataclass_with_a_description():
    assert {"c", "reference"} <= backends().keys()
    for name, point in backends().items():
        cls = point.load()
        assert dataclasses.is_dataclass(cls), name
        assert cls.name == name
        assert cls.description, name
        assert inspect.getdoc(cls), name
