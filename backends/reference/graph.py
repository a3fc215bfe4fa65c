"""Graphs by name: feeds in, outputs out, every node computed by its op's `reference` in NumPy.

This is the meaning that every other backend is checked against, so it shares no code with any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ir.evaluate import evaluate_values
from ir.graph import Graph
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
    for value in graph.inputs:
        array = feeds.get(value.name)
        if (
            isinstance(value.type, TensorType)
            and isinstance(array, np.ndarray)
            and array.dtype != value.type.dtype.numpy
        ):
            wrong.append(f"input {value.name!r} is {array.dtype}, it must be {value.type}")
    if wrong:
        raise ValueError("; ".join(wrong))
    values = evaluate_values(graph, [feeds[name] for name in expected], keep=keep)
    if keep:
        return {value.name: array for value, array in values.items()}
    return {name: values[value] for name, value in zip(graph.output_names, graph.outputs)}
