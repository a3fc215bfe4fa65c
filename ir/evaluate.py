"""Graphs on arrays: every node by its op's `reference`, symbolic sizes solved from the shapes of the arrays given.

This is what an op with nested graphs calls to run them, and what the reference backend is made of. It knows no target
and is not made to be fast. Errors name the node and the ONNX nodes it came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ir.bind import bind_sizes, check_assumptions, check_sizes, equations, solve_sizes
from ir.dims import Dim, dim_text, evaluate, names, symbol_of
from ir.graph import Graph, Node, Value
from ir.op import Op
from ir.types import TensorType

_ambient: ContextVar[dict[str, int] | None] = ContextVar("sizes", default=None)


class EvaluationError(Exception):
    """A node could not be computed; the message names it and the ONNX nodes it came from."""


def evaluate_graph(graph: Graph, inputs: Sequence[Any], sizes: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    """The outputs of `graph` on `inputs`: arrays, or lists for sequences and None for an absent optional.

    Sizes that the shapes of the inputs do not tell come from `sizes`, and in a nested graph from the graph around it.
    Raises ValueError where inputs contradict the graph's types, and EvaluationError where a node fails.
    """
    values = evaluate_values(graph, inputs, sizes)
    return tuple(values[value] for value in graph.outputs)


def evaluate_values(
    graph: Graph, inputs: Sequence[Any], sizes: Mapping[str, int] | None = None, keep: bool = False
) -> dict[Value, Any]:
    """Like `evaluate_graph`, but gives the values: those of the outputs, or every one of the graph with `keep`."""
    if len(inputs) != len(graph.inputs):
        raise ValueError(f"graph {graph.name} takes {len(graph.inputs)} inputs, {len(inputs)} were given")
    given = {**(_ambient.get() or {}), **(sizes or {})}
    bound = bind_sizes([v.type for v in graph.inputs], inputs, [v.name for v in graph.inputs], given)
    check_assumptions(graph.bounds, graph.equal_dims, bound, graph.demanded_by)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs))
    last_use = {} if keep else _last_uses(graph)
    late = [p for p in graph.equal_dims if (names(p[0]) | names(p[1])) & graph.limits.keys()]
    with np.errstate(all="ignore"), _sizes(bound):
        for node in graph.nodes():
            operands = [None if v is None else values[v] for v in node.inputs]
            if node.op.name == "told":
                _tell(node, operands[0], bound, graph)
            results = _compute(node, operands, bound)
            values.update(zip(node.outputs, results))
            if late and (node.op.defines or node.op.structural):
                check_assumptions({}, late, bound, graph.demanded_by)
            for value in last_use.get(node, ()):
                del values[value]
    return values


def materialise(op: Op, sizes: Mapping[str, int]) -> Op:
    """`op` with every symbolic size among its attributes evaluated, but for those that it defines itself, and limits.

    Raises KeyError for an unknown symbol.
    """
    changed = {}
    for field in dataclasses.fields(op):  # type: ignore[arg-type]
        if field.name in op.defines or field.name in op.limited_by:
            continue
        old = getattr(op, field.name)
        new = _substituted(old, sizes)
        if new is not old:
            changed[field.name] = new
    return dataclasses.replace(op, **changed) if changed else op  # type: ignore[type-var]


def _substituted(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, Dim):
        return evaluate(value, sizes)
    if not isinstance(value, tuple):
        return value
    new = tuple(_substituted(item, sizes) for item in value)
    return value if all(a is b for a, b in zip(new, value)) else new


def ambient_sizes() -> Mapping[str, int]:
    """The sizes of the graph that is being evaluated, for ops that have nested graphs."""
    return _ambient.get() or {}


@contextmanager
def _sizes(sizes: dict[str, int]) -> Iterator[None]:
    """Lets nested graphs see the sizes of the graph around them."""
    token = _ambient.set(sizes)
    try:
        yield
    finally:
        _ambient.reset(token)


def _last_uses(graph: Graph) -> dict[Node, list[Value]]:
    """The values that no later node needs, by the node after which they go."""
    kept = set(graph.outputs)
    last: dict[Value, Node] = {}
    for node in graph.nodes():
        for value in (*node.inputs, *node.outputs):
            if value is not None and value not in kept:
                last[value] = node
    result: dict[Node, list[Value]] = {}
    for value, node in last.items():
        result.setdefault(node, []).append(value)
    return result


def _compute(node: Node, operands: list[Any], sizes: dict[str, int]) -> tuple[Any, ...]:
    """The outputs of one node. Sizes that its results tell (those that depend on data) are added to `sizes`."""
    try:
        result = materialise(node.op, sizes).reference(*operands)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(node.outputs):
            raise ValueError(f"the reference gave {len(results)} results for {len(node.outputs)} outputs")
        return tuple(_checked(value, made, sizes) for value, made in zip(node.outputs, results))
    except EvaluationError:
        raise
    except Exception as error:
        shapes = ", ".join(_describe(operand) for operand in operands)
        origin = f" (from {', '.join(node.sources)})" if node.sources else ""
        raise EvaluationError(f"{node!r}{origin} on ({shapes}): {type(error).__name__}: {error}") from error


def _tell(node: Node, count: Any, sizes: dict[str, int], graph: Graph) -> None:
    """Gives a size its value. Raises EvaluationError for one beyond its limit, or that contradicts what is known."""
    (size,) = node.op.sizes_defined()
    name, value = symbol_of(size), int(count)
    origin = f" (from {', '.join(node.sources)})" if node.sources else ""
    if name is None or name not in graph.limits:
        if evaluate(size, sizes) != value:
            raise EvaluationError(
                f"the size {dim_text(size)} is {evaluate(size, sizes)}; the run gives {value}{origin}"
            )
        return
    limit = graph.limits[name]
    most = None if limit is None or names(limit) - sizes.keys() else evaluate(limit, sizes)
    least = graph.bounds.get(name, (0, None))[0]
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        raise EvaluationError(f"the size {dim_text(size)} is {value}, it must be {bounds}{origin}")
    sizes[name] = value


def _describe(operand: Any) -> str:
    return f"{operand.dtype}{list(operand.shape)}" if isinstance(operand, np.ndarray) else type(operand).__name__


def _checked(value: Value, made: Any, sizes: dict[str, int]) -> Any:
    """A result as an array of the type that was inferred for it."""
    if not isinstance(value.type, TensorType):
        return made
    array = np.asarray(
        made, dtype=object if value.type.dtype.kind == "string" else None
    )  # one text is no array of texts
    if array.dtype != value.type.dtype.numpy:
        raise ValueError(f"%{value.name} is {value.type}, the reference gave {array.dtype}")
    check_sizes(solve_sizes(equations(f"%{value.name}", value.type, array), sizes), sizes)
    return array
