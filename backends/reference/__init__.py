"""The reference backend: graphs in NumPy and kernels by element. Slow; what all others are checked against."""

from __future__ import annotations

from backends.reference.graph import run_graph
from backends.reference.kernel import compile_kernel, run_kernel
from backends.reference.program import run_program
from ir.graph import Node


class ReferenceBackend:
    """Accepts every node whose op has a reference, and runs graphs by it."""

    name = "reference"

    def accepts(self, node: Node) -> bool | str:
        """True, or why the node cannot be run."""
        return True if type(node.op).has("reference") else f"{node.op.name} has no reference"


__all__ = ["ReferenceBackend", "compile_kernel", "run_graph", "run_kernel", "run_program"]
