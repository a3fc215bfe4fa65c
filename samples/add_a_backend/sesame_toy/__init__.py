"""A Sesame target for the toy machine: what it accepts, which passes it wants, what it writes, and how that is run.

This is all that a backend is. It imports `ir` and `compiler`; neither of them imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.backend import Backend
from sesame_toy.machine import INSTRUCTIONS

if TYPE_CHECKING:
    from compiler.artifact import Artifact
    from compiler.pipeline import Pipeline
    from ir.graph import Graph, Node
    from sesame_toy.artifact import ToyModel


@dataclass
class ToyBackend(Backend):
    """Options: `comments` says whether the program names the ONNX node of each instruction."""

    name: ClassVar[str] = "toy"
    description: ClassVar[str] = "a machine of sixteen registers and a dozen instructions on f32 tensors"

    comments: bool = True

    def accepts(self, node: Node) -> bool | str:
        """True, or a sentence: it becomes the error message, the line in `sesame check`, and the support table.

        An op that is made of others is expanded where it is refused, until all that is left is accepted or final.
        """
        for value in (*node.inputs, *node.outputs):
            if value is None:
                return f"{node.op.name}: the toy machine has no optional operands"
            if getattr(value.type, "dtype", None) is None or value.tensor.dtype.name != "f32":
                return f"%{value.name} is {value.type}; the toy machine holds f32 tensors only"
        if node.op.name == "const":
            return True
        if node.op.name not in INSTRUCTIONS:
            return f"the toy machine has no instruction for {node.op.name}"
        if node.op.attributes():
            return f"{node.op.name}: the toy machine knows no attribute `{next(iter(node.op.attributes()))}`"
        return True

    def pipeline(self) -> Pipeline:
        """Passes that simplify the graph, and `legalize` with the sentences above. Nothing lowers it to loops here."""
        from compiler.pipeline import PASSES, Pipeline, load_passes

        load_passes()
        legalize = PASSES["legalize"].with_options(accepts=self.accepts)
        return Pipeline(["fold", "cse", "dce", legalize, "fold", "cse", "dce"])

    def emit(self, program: Graph, out_dir: str | Path, model: Any = None) -> Artifact:
        """Writes the artifact. Raises CompileError where the program needs more registers than there are."""
        from compiler.artifact import Artifact
        from sesame_toy.artifact import write

        write(program, Path(out_dir), self.comments, asdict(self))
        return Artifact(out_dir)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> ToyModel:
        """Opens an artifact that was written earlier."""
        from sesame_toy.artifact import ToyModel

        return ToyModel(folder, manifest)
