"""What is known of each ONNX operator: its importers, and what the official suite and probes of types have found.

The findings are in `coverage.json`, which `python -m tests.onnx.suite.operators` writes.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compiler.onnx.registry import OnnxOp, all_ops

FINDINGS = Path(__file__).with_name("coverage.json")
DOMAINS = ("ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training")
"""Domains whose operators are listed whether or not they are supported."""


@dataclass(frozen=True)
class Operator:
    """One ONNX operator. `findings` counts the `cases` and those that pass on `interpreter` and `c`, and has types."""

    domain: str
    name: str
    since: tuple[int, ...]
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    findings: dict[str, Any]
    has_body: bool

    @property
    def types(self) -> str:
        """Element types of the first input that the interpreter takes; "all" where these are all of its schema."""
        found = self.findings.get("types")
        if found is None:
            return ""
        return "all" if len(found) == self.findings["schema_types"] > 1 else " ".join(found)

    def passed(self, device: str) -> str:
        """How many cases of the official suite pass, of those that contain the operator."""
        cases = self.findings.get("cases", 0)
        return f"{self.findings[device]} of {cases}" if cases else ""

    @property
    def notes(self) -> str:
        """What else is to be said, as sentences without full stops."""
        found = []
        if not self.since:
            found.append("from its function body in the ONNX schema" if self.has_body else "not supported")
        missing = [name for name in self.findings.get("types", ()) if name not in self.findings["types_c"]]
        if missing:
            found.append(f"not in C: {' '.join(missing)}")
        if self.since and not self.findings.get("cases"):
            found.append("not in the official suite")
        return "; ".join(found)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: what `sesame ops --format json` prints of it."""
        return {
            "domain": self.domain, "name": self.name, "since": list(self.since), "inputs": list(self.inputs),
            "attributes": list(self.attributes), "types": self.findings.get("types"),
            "types_c": self.findings.get("types_c"), "cases": self.findings.get("cases", 0),
            "interpreter": self.findings.get("interpreter", 0), "c": self.findings.get("c", 0), "notes": self.notes,
        }  # fmt: skip


def operators(domain: str | None = None) -> list[Operator]:
    """Every operator of ONNX, and of other domains those with an importer, sorted by domain and name."""
    grouped: dict[tuple[str, str], list[OnnxOp]] = {}
    for entry in all_ops():
        grouped.setdefault((entry.domain or "ai.onnx", entry.name), []).append(entry)
    bodies = _schemas()
    found = []
    for key in sorted({*grouped, *bodies}):
        if domain is not None and key[0] != domain:
            continue
        entries = grouped.get(key, [])
        found.append(
            Operator(
                *key,
                tuple(e.since for e in entries),
                entries[-1].inputs if entries else (),
                entries[-1].attributes if entries else (),
                _findings().get("::".join(key), {}),
                bodies.get(key, False),
            )
        )
    return found


def _schemas() -> dict[tuple[str, str], bool]:
    """The operators of ONNX that are not deprecated, and whether their schema has a function body."""
    found = {}
    schemas: Any = onnx.defs.get_all_schemas()  # whose stubs lack what function bodies say of themselves
    for schema in schemas:
        domain = schema.domain or "ai.onnx"
        if domain in DOMAINS and not schema.deprecated:
            found[domain, schema.name] = schema.has_function or schema.has_context_dependent_function
    return found


@functools.cache
def _findings() -> dict[str, dict[str, Any]]:
    return json.loads(FINDINGS.read_text(encoding="utf-8")) if FINDINGS.exists() else {}


__all__ = ["FINDINGS", "Operator", "operators"]
