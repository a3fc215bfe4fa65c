"""The reference backend: graphs in NumPy and kernels by element. Slow; what all others are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backends.reference.graph import run_graph
from backends.reference.kernel import compile_kernel, run_kernel
from backends.reference.program import run_program
from compiler.backend import Backend

if TYPE_CHECKING:
    from backends.reference.artifact import ReferenceModel
    from compiler.artifact import Artifact
    from compiler.pipeline import Pipeline
    from ir.graph import Graph, Node


@dataclass
class ReferenceBackend(Backend):
    """Keeps the graph as it was imported and runs every node by its op's `reference`. It has no options."""

    name: ClassVar[str] = "reference"
    description: ClassVar[str] = "the graph itself, run node by node in NumPy; slow, for checking"

    def accepts(self, node: Node) -> bool | str:
        """True, or why the node cannot be run."""
        return True if type(node.op).has("reference") else f"{node.op.name} has no reference"

    def pipeline(self) -> Pipeline:
        """No passes: the meaning of a model is what was imported."""
        from compiler.pipeline import Pipeline

        return Pipeline([])

    def emit(self, program: Graph, out_dir: str | Path, model: Any = None) -> Artifact:
        """Writes the graph and its weights into `out_dir`. Raises UsageError for a program that is lowered already."""
        from backends.reference.artifact import write_graph
        from compiler.artifact import Artifact
        from compiler.errors import UsageError
        from ir.graph import Graph

        if not isinstance(program, Graph):
            raise UsageError(
                "E0204", "the reference target runs graphs, and the model is lowered", help="leave out `lower`"
            )
        write_graph(program, Path(out_dir))
        return Artifact(out_dir)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> ReferenceModel:
        """Reads an emitted folder. Raises ModelError."""
        from backends.reference.artifact import ReferenceModel

        return ReferenceModel(folder, manifest)


__all__ = ["ReferenceBackend", "compile_kernel", "run_graph", "run_kernel", "run_program"]
