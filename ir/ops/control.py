"""Control flow: ops whose attributes are graphs that run under a condition, or many times.

The graphs are closed: what they use from outside arrives as operands. Only a graph interpreter runs loops; a backend
may emit `if_` as a branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, decide_eq, symbol
from ir.graph import Graph
from ir.op import Op, OpError, op, require
from ir.types import OptionalType, SequenceType, TensorType, Type


def merged_type(a: Type, b: Type, label: str) -> Type:
    """The type of a value that is of type `a` or of type `b`; sizes that differ are symbols called `label.axis`.

    Raises OpError where element types or ranks differ.
    """
    if a == b:
        return a
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(merged_type(a.element, b.element, label))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        inner = [x.element if isinstance(x, OptionalType) else x for x in (a, b)]
        return OptionalType(merged_type(inner[0], inner[1], label))
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or a.dtype != b.dtype or a.rank != b.rank:
        raise OpError(f"a value is {a} on one way and {b} on the other; types and ranks must agree")
    sizes: list[Size] = []
    for axis, (x, y) in enumerate(zip(a.shape, b.shape)):
        sizes.append(x if decide_eq(x, y) else symbol(f"{label}.{axis}"))
    return a.with_shape(sizes)


def run(body: Graph, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs of a nested graph."""
    from ir.evaluate import evaluate_graph

    return evaluate_graph(body, arrays)


@op
class If_(Op):
    """The outputs of `then` where the condition holds, else those of `orelse`.

    Operands after the condition are the inputs of `then`, then those of `orelse`. Sizes in which the two differ are
    symbols that begin with `label`.
    """

    name = "if_"
    structural = True
    then: Graph
    orelse: Graph
    label: str = "if"

    def infer(self, condition: Type, *captures: Type) -> Any:
        one = isinstance(condition, TensorType) and condition.dtype == t.bool_ and condition.elements == 1
        require(one, lambda: f"if: the condition is {condition}; it must be one bool")
        expected = len(self.then.inputs) + len(self.orelse.inputs)
        require(len(captures) == expected, lambda: f"if: {len(captures)} operands for {expected} inputs")
        a, b = self.then.outputs, self.orelse.outputs
        require(len(a) == len(b), lambda: f"if: one branch has {len(a)} outputs, the other {len(b)}")
        types = tuple(merged_type(x.type, y.type, f"{self.label}.{i}") for i, (x, y) in enumerate(zip(a, b)))
        return types[0] if len(types) == 1 else types

    def reference(self, condition: np.ndarray, *captures: Any) -> Any:
        count = len(self.then.inputs)
        outs = run(self.then, captures[:count]) if condition.item() else run(self.orelse, captures[count:])
        return outs[0] if len(outs) == 1 else outs


__all__ = ["If_", "merged_type", "run"]
