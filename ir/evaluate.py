"""Graphs on arrays: every node by its op's `reference`, symbolic sizes solved from the shapes of the arrays given.

This is what an op with nested graphs calls to run them, and what the reference backend is made of. It knows no target
and is not made to be fast. Errors name the node and the ONNX nodes it came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any

import numpy as np

from ir.dim_form import Name
from ir.dims import Dim, Size, dim_text, evaluate, names, substitute, terms
from ir.graph import Graph, Node, Value
from ir.op import Op
from ir.types import SequenceType, TensorType, Type

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
    check_assumptions(graph.bounds, graph.equal_dims, bound)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs))
    last_use = {} if keep else _last_uses(graph)
    with np.errstate(all="ignore"), _sizes(bound):
        for node in graph.nodes():
            results = _compute(node, [None if v is None else values[v] for v in node.inputs], bound)
            values.update(zip(node.outputs, results))
            for value in last_use.get(node, ()):
                del values[value]
    return values


def bind_sizes(
    types: Sequence[Type], arrays: Sequence[Any], labels: Sequence[str] = (), given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The value of every symbol in `types`, solved from the shapes of `arrays`, and of those in `given`.

    Shapes win over `given`. A dim that is an expression is solved where one symbol is left in it, else checked.
    Raises ValueError, naming the input and both sizes, for a contradiction, and for a symbol that nothing tells.
    """
    found: dict[str, int] = {}
    open_: list[tuple[str, int, Size, int]] = []
    for position, (type_, array) in enumerate(zip(types, arrays)):
        label = labels[position] if position < len(labels) else f"input {position}"
        open_ += _equations(label, type_, array)
    open_ = _solve(open_, found)
    found = {**(given or {}), **found}
    _check(_solve(open_, found), found)
    unknown = {name for type_ in types if isinstance(type_, TensorType) for size in type_.shape for name in names(size)}
    missing = sorted(unknown - found.keys())
    if missing:
        raise ValueError(f"the shapes of the inputs do not tell the size {', '.join(missing)}")
    return found


def materialise(op: Op, sizes: Mapping[str, int]) -> Op:
    """`op` with every symbolic size among its attributes evaluated. Raises KeyError for an unknown symbol."""
    changed = {}
    for field in dataclasses.fields(op):  # type: ignore[arg-type]
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


def _describe(operand: Any) -> str:
    return f"{operand.dtype}{list(operand.shape)}" if isinstance(operand, np.ndarray) else type(operand).__name__


def _checked(value: Value, made: Any, sizes: dict[str, int]) -> Any:
    """A result as an array of the type that was inferred for it."""
    if not isinstance(value.type, TensorType):
        return made
    array = np.asarray(made)
    if array.dtype != value.type.dtype.numpy:
        raise ValueError(f"%{value.name} is {value.type}, the reference gave {array.dtype}")
    _check(_solve(_equations(f"%{value.name}", value.type, array), sizes), sizes)
    return array


# Sizes from shapes.


def _equations(label: str, type_: Type, array: Any) -> list[tuple[str, int, Size, int]]:
    """(label, axis, size, actual) for each axis of a tensor; sequences and optionals tell nothing."""
    if not isinstance(type_, TensorType):
        if isinstance(type_, SequenceType) and not isinstance(array, (list, tuple)):
            raise ValueError(f"{label}: {type_} takes a list")
        return []
    shape = np.shape(array)
    if len(shape) != type_.rank:
        raise ValueError(f"{label}: {type_} has {type_.rank} axes, the array has shape {list(shape)}")
    return [(label, axis, size, actual) for axis, (size, actual) in enumerate(zip(type_.shape, shape))]


def _solve(equations: list[tuple[str, int, Size, int]], found: dict[str, int]) -> list[tuple[str, int, Size, int]]:
    """Solves what can be solved into `found`; gives the equations that remain to be checked, in order."""
    remaining, progress = equations, True
    while progress:
        progress, unsolved = False, []
        for equation in remaining:
            solution = _solution(equation, found)
            if solution is None:
                unsolved.append(equation)
            else:
                found[solution[0]] = solution[1]
                progress = True
        remaining = unsolved
    return remaining


def _solution(equation: tuple[str, int, Size, int], found: dict[str, int]) -> tuple[str, int] | None:
    """The symbol that an equation determines and its value: `a*N + b == actual` with one unknown N."""
    label, axis, size, actual = equation
    open_ = names(size) - found.keys()
    if len(open_) != 1:
        return None
    left = substitute(size, {name: found[name] for name in names(size) if name in found})
    constant, coefficient = Fraction(0), Fraction(0)
    for factor, monomial in terms(left):
        if not monomial:
            constant = Fraction(factor)
        elif len(monomial) == 1 and isinstance(monomial[0], Name):
            coefficient = Fraction(factor)
        else:
            return None
    value = (actual - constant) / coefficient
    if value.denominator != 1 or value < 0:
        raise ValueError(f"{label}: axis {axis} is {actual}, which {dim_text(size)} cannot be")
    return next(iter(open_)), int(value)


def _check(equations: Sequence[tuple[str, int, Size, int]], found: Mapping[str, int]) -> None:
    for label, axis, size, actual in equations:
        if names(size) - found.keys():
            continue
        expected = evaluate(size, found)
        if expected != actual:
            where = "" if isinstance(size, int) else f" ({dim_text(size)})"
            raise ValueError(f"{label}: axis {axis} is {actual}, it must be {expected}{where}")


def check_assumptions(
    bounds: Mapping[str, tuple[int, int | None]], equal_dims: Sequence[tuple[Size, Size]], sizes: Mapping[str, int]
) -> None:
    """Raises ValueError where `sizes` leave their bounds, or where dims that must be equal are not."""
    for name, (least, greatest) in bounds.items():
        value = sizes.get(name)
        if value is not None and (value < least or (greatest is not None and value > greatest)):
            limit = f"at least {least}" if greatest is None else f"{least} to {greatest}"
            raise ValueError(f"the size {name} is {value}, it must be {limit}")
    for a, b in equal_dims:
        if not (names(a) | names(b)) <= sizes.keys():
            continue
        left, right = evaluate(a, sizes), evaluate(b, sizes)
        if left != right:
            raise ValueError(f"{dim_text(a)} is {left} and {dim_text(b)} is {right}; they must be equal")
