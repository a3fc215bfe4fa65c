"""maps: outputs that are sequences of maps become the rows that the maps are made of, for targets that have no maps.

The graph keeps the keys, so that a loader can make maps again. A map that is used inside a graph stays, and is refused.
"""

from __future__ import annotations

from compiler.pipeline import graph_pass
from ir.graph import Graph


@graph_pass
def maps(graph: Graph) -> None:
    """Gives the operands of `zip_map` in place of its results, where these are outputs."""
    for position, (name, value) in enumerate(zip(graph.output_names, graph.outputs)):
        if value.node is None or value.node.op.name != "zip_map":
            continue
        (rows,) = value.node.inputs
        assert rows is not None
        graph.kinds[f"output {name}"] = ["maps", list(getattr(value.node.op, "keys"))]  # noqa: B009
        graph.outputs[position] = rows
    for node in list(graph.nodes("zip_map")):
        if not any(value.is_used() for value in node.outputs):
            graph.remove(node)
