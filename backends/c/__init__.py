"""The C target: readable C11 that needs nothing but a C compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.backend import Backend, Runnable
from compiler.errors import ToolError, UsageError

if TYPE_CHECKING:
    from compiler.artifact import Artifact
    from compiler.pipeline import Pipeline
    from ir.graph import Node
    from ir.program import Program


@dataclass
class CBackend(Backend):
    """Options: `march` is the processor the code is tiled and built for ("native", one of `sesame targets`, or
    a name the C compiler knows),
    `threads` how many a loaded model uses, `weights` "file" or "embed", `opt` and `cc` what it is built with when it is
    loaded, `sanitize` a +-separated list of sanitizers to build with, `winograd` whether convolutions may be done by
    Winograd's filtering, which rounds otherwise than plain sums do. `precision` is "f32", or "bf16" to round weights
    and what they are multiplied with to bf16, where that pays; sums and all else stay f32. With `deterministic`
    the results have the same bits on every processor and with every compiler: sums in one order, every operation
    rounded by itself. With `profile` the code takes the time of each call of a kernel, into memory that the caller
    gives. `tuned` is a file of choices that `sesame tune` has measured."""

    name: ClassVar[str] = "c"
    description: ClassVar[str] = "C11 source, weights file and CMake project; built with the host's C compiler to run"

    march: str = "native"
    threads: int = 1
    weights: str = "file"
    opt: str = "-O3"
    cc: str = ""
    sanitize: str = ""
    winograd: bool = True
    precision: str = "f32"
    deterministic: bool = False
    profile: bool = False
    tuned: str = ""

    def accepts(self, node: Node) -> bool | str:
        """True, or why C code cannot be made for the node as it is."""
        from backends.c.support import accepts

        return accepts(node)

    def pipeline(self) -> Pipeline:
        """From an imported graph to a program with its memory planned."""
        from backends.c.schedule import pipeline

        return pipeline(self)

    def emit(self, program: Program, out_dir: str | Path, model: Any = None) -> Artifact:
        """Writes the C project into `out_dir`. Raises CompileError."""
        from backends.c.emit import emit_program
        from compiler.artifact import Artifact

        emit_program(program, Path(out_dir), self, model)
        return Artifact(out_dir)

    def machine(self) -> dict[str, Any]:
        """The processor, the C compiler, and the options that decide which code is fast. Raises ToolError."""
        from backends.c.emit import processor as made_for
        from backends.c.toolchain import find_compiler
        from compiler.bench import processor

        compiler = find_compiler(self.cc or None).version.splitlines()[0]
        options = {"march": self.march, "opt": self.opt, "threads": self.threads, "precision": self.precision}
        return {"processor": processor(), "lanes": made_for(self).lanes, "c_compiler": compiler, **options}

    def build(self, folder: Path, manifest: Mapping[str, Any], product: str, progress: Any = None) -> Path:
        """The shared library ("so") or the test bench ("exe") of an emitted folder. Raises UsageError, ToolError."""
        from backends.c.build import build_library, build_program

        if product not in ("so", "exe"):
            raise UsageError("E0206", f"the C target emits c, so or exe, not '{product}'")
        return (build_library if product == "so" else build_program)(folder, manifest, self, progress)

    @classmethod
    def processors(cls) -> Sequence[Mapping[str, Any]]:
        """What `march` may name beside what the C compiler knows, and what the machine called "native" is."""
        from backends.c.emit import processor
        from backends.c.targets import PROCESSORS

        described = [each.to_json() for each in PROCESSORS]
        try:
            own = processor(cls(march="native"))
        except ToolError:  # no C compiler tells what this machine is
            return described
        return [*described, {**own.to_json(), "name": "native", "description": f"this machine, as {own.name}"}]

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> Runnable:
        """Builds the folder's shared library where it is missing, and loads it. Raises ToolError, ModelError.

        With sanitizers it is a program that runs beside this process, which could not load them.
        """
        if self.sanitize:
            from backends.c.sanitized import SanitizedModel

            return SanitizedModel(folder, manifest, self)
        from backends.c.loader import CModel

        return CModel(folder, manifest, self)
