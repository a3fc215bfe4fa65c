"""Graphs by name: feeds in, outputs out, every node computed by its op's `reference` in NumPy.

This is the meaning that every other backend is checked against, so it shares no code with any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ir.evaluate import evaluate_values
from ir.graph import Graph, Value
from ir.kinds import check
from ir.types import TensorType


def run_graph(graph: Graph, feeds: Mapping[str, np.ndarray], keep: bool = False) -> dict[str, Any]:
    """The outputs of `graph` by output name, or with `keep` every value by its name.

    Symbolic dims take their values from the shapes of `feeds`. Raises ValueError for a missing, unknown or
    ill-typed feed, and EvaluationError, naming the ONNX nodes, where a node fails.
    """
    expected = [value.name for value in graph.inputs]
    wrong = [f"no feed for input {name!r}" for name in expected if name not in feeds]
    wrong += [
        f"the graph has no input {name!r}; it has {', '.join(map(repr, expected)) or 'none'}"
        for name in feeds
        if name not in expected
    ]
    fed = [value for value in graph.inputs if value.name in feeds]
    wrong += [problem for value in fed for problem in _problems(value, feeds[value.name])]
    if wrong:
        raise ValueError("; ".join(wrong))
    values = evaluate_values(graph, [feeds[name] for name in expected], keep=keep)
    if keep:
        return {value.name: array for value, array in values.items()}
    return {name: values[value] for name, value in zip(graph.output_names, graph.outputs)}


def _problems(value: Value, fed: Any) -> Iterator[str]:
    """What is wrong with the type of what an input is fed."""
    if not isinstance(value.type, TensorType):
        try:
            check(value.name, value.type, fed)
        except ValueError as error:
            yield f"input {error}"
    elif isinstance(fed, np.ndarray) and fed.dtype != value.type.dtype.numpy:
        yield f"input {value.name!r} is {fed.dtype}, it must be {value.type}"
