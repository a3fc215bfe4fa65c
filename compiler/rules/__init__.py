"""Rewrite rules by subject. They only say what becomes what; `compiler.passes.canonicalize` applies them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from ir.rule import Rule


def rules_of(*subjects: str) -> list[type[Rule]]:
    """The rules of the modules named (of all where none is), in the order in which they are written."""
    names = subjects or tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))
    rules: list[type[Rule]] = []
    for name in names:
        module = importlib.import_module(f"{__name__}.{name}")
        found = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
        rules += sorted((cls for cls in found if issubclass(cls, Rule)), key=lambda cls: _line(module, cls))
    return rules


def _line(module: object, cls: type[Rule]) -> int:
    return list(vars(module)).index(cls.__name__)
