"""ONNX operators: one Python function each; its signature is the ONNX schema, its body what one would write on paper.

`@onnx_op("Gemm", since=7)` files the function under its operator; the newest version not above the model's opset is
used. Positional parameters are inputs (default None: optional, `*xs`: variadic; annotated `Any | None`: it must be
listed, but may be omitted by an empty name), keyword-only ones are attributes with their schema defaults. Functions
never see protobufs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ir.op import OpError

Importer = Callable[..., Any]


@dataclass(frozen=True)
class OnnxOp:
    """An importer of one operator from opset `since` on."""

    domain: str
    name: str
    since: int
    function: Importer
    inputs: tuple[str, ...]
    least_inputs: int
    omissible: frozenset[str]
    variadic: bool
    attributes: tuple[str, ...]
    required: tuple[str, ...]
    any_attribute: bool


ONNX_OPS: dict[tuple[str, str], list[OnnxOp]] = {}


def onnx_op(name: str, since: int = 1, domain: str = "") -> Callable[[Importer], Importer]:
    """Decorator: `function(b, *inputs, **attributes)` imports operator `name` from version `since` on.

    It returns the output value, or a tuple of them; None in a tuple is an output that the importer does not give.
    """

    def register(function: Importer) -> Importer:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        entry = OnnxOp(
            domain, name, since, function,
            inputs=tuple(p.name for p in positional),
            least_inputs=sum(p.default is p.empty for p in positional),
            omissible=frozenset(p.name for p in positional if str(p.annotation).endswith("None")),
            variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
            attributes=tuple(p.name for p in keyword),
            required=tuple(p.name for p in keyword if p.default is p.empty),
            any_attribute=any(p.kind is p.VAR_KEYWORD for p in parameters),
        )  # fmt: skip
        versions = ONNX_OPS.setdefault((domain, name), [])
        if any(v.since == since for v in versions):
            raise TypeError(f"{domain or 'ai.onnx'}::{name} since {since} is registered twice")
        versions.append(entry)
        versions.sort(key=lambda v: v.since)
        return function

    return register


REFUSED: dict[tuple[str, str], str] = {}
"""Operators that are known and not supported, with the reason."""


def refuse(reason: str, *names: str, domain: str = "") -> None:
    """Says why operators have no importer. The reason completes "operator ... is not supported: "."""
    for name in names:
        if (domain, name) in REFUSED:
            raise TypeError(f"{domain or 'ai.onnx'}::{name} is refused twice")
        REFUSED[domain, name] = reason


def reason_against(domain: str, name: str) -> str | None:
    """Why an operator is refused; None for one that is unknown."""
    _load_families()
    return REFUSED.get((domain, name))


def find(domain: str, name: str, opset: int) -> OnnxOp | None:
    """The importer for an operator at an opset; None where there is none."""
    _load_families()
    versions = ONNX_OPS.get((domain, name), ())
    return next((v for v in reversed(versions) if v.since <= opset), None)


def all_ops() -> list[OnnxOp]:
    """Every importer, sorted by domain, name and version."""
    _load_families()
    return [v for _, versions in sorted(ONNX_OPS.items()) for v in versions]


def call(entry: OnnxOp, b: Any, inputs: list[Any], attributes: dict[str, Any]) -> tuple[Any, ...]:
    """Runs an importer after checking the node against its signature. Raises OpError."""
    given = len(inputs)
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    if len(inputs) < entry.least_inputs or (len(inputs) > len(entry.inputs) and not entry.variadic):
        raise OpError(f"it has {given} inputs; {entry.name} takes {entry.least_inputs} to {len(entry.inputs)}")
    missing = [n for n in entry.required if n not in attributes]
    if missing:
        raise OpError(f"attribute `{missing[0]}` is missing")
    if not entry.any_attribute:
        unknown = sorted(set(attributes) - set(entry.attributes))
        if unknown:
            raise OpError(f"attribute `{unknown[0]}` is not one of {entry.name} (opset {entry.since})")
    for name, value in zip(entry.inputs[: entry.least_inputs], inputs):
        if value is None and name not in entry.omissible:
            raise OpError(f"input `{name}` is missing")
    result = entry.function(b, *inputs, **attributes)
    return result if isinstance(result, tuple) else (result,)


_loaded = False


def _load_families() -> None:
    global _loaded
    if _loaded:
        return
    import compiler.onnx.ops as families

    for found in sorted(module.name for module in pkgutil.iter_modules(families.__path__)):
        importlib.import_module(f"{families.__name__}.{found}")
    _loaded = True
