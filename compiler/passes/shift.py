"""shift: integer products become u8 by i8 without zero points, with what those add as terms after them.

The values of one operand are shifted by 128 where that makes bytes of the other kind; its zero point shifts along.
"""

from __future__ import annotations

from compiler.pipeline import graph_pass
from compiler.rules import rules_of
from ir.graph import Graph
from ir.rewrite import rewrite


@graph_pass
def shift(graph: Graph) -> None:
    """Applies the rules of `compiler.rules.quant`."""
    rewrite(graph, rules_of("quant"))
