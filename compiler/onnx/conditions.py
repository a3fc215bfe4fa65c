"""What a branch may know: the values and sizes that its condition implies where the branch runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ir.dims import Dim, Size
from ir.graph import Value

_EXACT = ("int", "uint", "bool", "string")
"""Kinds of types in which equal means the same value. Of floats, -0 equals 0."""


@dataclass(frozen=True)
class Knowledge:
    """Values of the graph around a nested graph, and pairs of equal sizes, that are known inside of it.

    `steps` are the values that decide how often a loop runs: were they known, it could be unrolled.
    """

    values: dict[Value, np.ndarray] = field(default_factory=dict)
    equal: tuple[tuple[Size, Size], ...] = ()
    steps: tuple[Value | None, ...] = ()


def implied(condition: Value, truth: bool) -> Knowledge:
    """What holds where a condition, one bool, is true (or is false)."""
    values: dict[Value, np.ndarray] = {}
    equal: list[tuple[Size, Size]] = []
    for value, holds in _parts(condition, truth):
        if value.content is None:
            values[value] = np.full([int(size) for size in value.shape], holds)
        known = _equated(value, holds)
        if known is not None:
            values[known[0]] = known[1]
        sizes = equal_sizes(value) if holds else None
        if sizes is not None:
            equal.append(sizes)
    return Knowledge(values, tuple(equal))


def _parts(condition: Value, truth: bool) -> Iterator[tuple[Value, bool]]:
    """A bool and its truth, and those of the bools it was made from, as far as they follow from it."""
    open_ = [(condition, truth)]
    while open_:
        value, holds = open_.pop()
        if value.dtype.kind != "bool" or value.tensor.elements != 1:
            continue
        yield value, holds
        node = value.node
        if node is None:
            continue
        name, operands = node.op.name, [v for v in node.inputs if v is not None]
        if name in ("reshape", "cast"):
            open_.append((operands[0], holds))
        elif name == "not":
            open_.append((operands[0], not holds))
        elif name == ("and" if holds else "or"):
            open_ += [(operand, holds) for operand in operands]


def _equated(value: Value, holds: bool) -> tuple[Value, np.ndarray] | None:
    """The value that a comparison with a constant tells, and what it is."""
    node = value.node
    if node is None or node.op.name != ("equal" if holds else "not_equal"):
        return None
    left, right = node.inputs
    assert left is not None and right is not None
    for one, other in ((left, right), (right, left)):
        content = other.content
        if content is None or one.content is not None or one.tensor.elements != 1 or one.dtype.kind not in _EXACT:
            continue
        if not any(isinstance(v, Dim) for v in content.flat):
            return one, content.reshape([int(size) for size in one.shape])
    return None


def equal_sizes(condition: Value) -> tuple[Size, Size] | None:
    """The two sizes whose equality is the condition, or None where it is another one."""
    node = condition.node
    while node is not None and node.op.name in ("reshape", "cast") and node.inputs[0] is not None:
        node = node.inputs[0].node
    if node is None or node.op.name != "equal":
        return None
    found: list[Size] = []
    for value in node.inputs:
        content = None if value is None else value.content
        if content is None or content.size != 1:
            return None
        element = content.reshape(-1)[0]
        found.append(element if isinstance(element, Dim) else int(element))
    return found[0], found[1]


__all__ = ["Knowledge", "equal_sizes", "implied"]
