"""Which inputs of a model decide a value: what a refusal names that could be lifted by knowing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ir.graph import Value

if TYPE_CHECKING:
    from compiler.onnx.importer import Scope


def inputs_behind(scope: Scope, value: Value) -> tuple[str, ...]:
    """The model's inputs that a value seen in `scope` follows from, by name; none where something else decides it."""
    found: set[str] = set()
    seen: set[Value] = set()
    pending = [value]
    while pending:
        value = pending.pop()
        if value in seen or value.content is not None:
            continue
        seen.add(value)
        if value.node is None and value.graph is scope.importer.graph:
            found.add(value.name)
            continue
        sources = _behind_input(scope, value) if value.node is None else value.node.inputs
        if not sources:
            return ()
        pending += [v for v in sources if v is not None]
    return tuple(sorted(found))


def _behind_input(scope: Scope | None, value: Value) -> Sequence[Value | None]:
    """What decides an input of a closed graph: the value it stands for, or what a loop's steps follow from."""
    while scope is not None and scope.graph is not value.graph:
        scope = scope.outer
    if scope is None:
        return ()
    return [scope.imported[value]] if value in scope.imported else scope.known.steps


__all__ = ["inputs_behind"]
