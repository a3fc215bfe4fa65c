"""The C target's way out: a program with its memory planned becomes a folder of C.

Decides what depends on the target's options; `project` writes the files.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.c.project import EmitOptions, write_project
from backends.c.toolchain import find_compiler
from compiler.errors import UnsupportedError, UsageError
from ir.program import Program

if TYPE_CHECKING:
    from backends.c import CBackend


def emit_program(program: Program, out_dir: Path, backend: CBackend, model: Any = None) -> list[Path]:
    """Writes `program` into `out_dir`; the files written. `model` is where it came from, for the manifest.

    Raises UsageError for an option, UnsupportedError for a kernel without C code, ToolError without a C compiler.
    """
    if backend.weights not in ("file", "embed"):
        raise UsageError("E0206", f"weights are 'file' or 'embed', not '{backend.weights}'")
    options = EmitOptions(
        weights="embed" if backend.weights == "embed" else "file",
        lanes=lanes(backend),
        target=_recorded(backend),
        source=getattr(getattr(model, "path", None), "name", None),
        profile=backend.profile,
    )
    try:
        return write_project(program, out_dir, options)
    except ValueError as error:
        raise UnsupportedError("E0401", str(error)) from error


def _recorded(backend: CBackend) -> dict[str, Any]:
    """The options that the manifest keeps: those that are set, of a file its name."""
    options = dataclasses.asdict(backend)
    options["tuned"] = Path(backend.tuned).name
    return {key: value for key, value in options.items() if key not in ("profile", "tuned") or value}


def lanes(backend: CBackend) -> int:
    """Floats in a vector register of the processor that the code is for."""
    macros = find_compiler(backend.cc or None).target_macros(backend.march or None)
    if "__AVX512F__" in macros:
        return 16
    return 8 if "__AVX__" in macros else 4
