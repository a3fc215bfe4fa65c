"""canonicalize: rewrites a graph by the rules of `compiler.rules` until none applies.

Identities go, spelled-out activations and normalizations become the op they mean, and convolutions take up what
surrounds them. Weights change only through ops on constants; evaluating those is left to `fold`.
"""

from __future__ import annotations

from compiler.pipeline import graph_pass
from compiler.rules import rules_of
from ir.graph import Graph
from ir.rewrite import rewrite

SIMPLER = ("algebra", "movement")
COMPOSITES = ("activation", "norm", "conv")


@graph_pass
def canonicalize(graph: Graph, *, composites: bool = True) -> None:
    """Applies the rewrite rules. Without `composites` only identities, so that what `legalize` expanded stays so."""
    rewrite(graph, rules_of(*SIMPLER, *(COMPOSITES if composites else ())))
