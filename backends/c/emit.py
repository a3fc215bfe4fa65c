"""The C target's way out: a program with its memory planned becomes a folder of C.

Decides what depends on the target's options; `project` writes the files.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.c.project import EmitOptions, write_project
from backends.c.targets import BY_NAME, Processor, described, own_caches
from backends.c.toolchain import find_compiler
from compiler.errors import UnsupportedError, UsageError
from ir.program import Program

if TYPE_CHECKING:
    from backends.c import CBackend


_WHERE_SET = ("profile", "tuned", "deterministic")
"""Options that the manifest names only where they are set."""


def emit_program(program: Program, out_dir: Path, backend: CBackend, model: Any = None) -> list[Path]:
    """Writes `program` into `out_dir`; the files written. `model` is where it came from, for the manifest.

    Raises UsageError for an option, UnsupportedError for a kernel without C code, ToolError without a C compiler.
    """
    if backend.weights not in ("file", "embed"):
        raise UsageError("E0206", f"weights are 'file' or 'embed', not '{backend.weights}'")
    options = EmitOptions(
        weights="embed" if backend.weights == "embed" else "file",
        lanes=processor(backend).lanes,
        target=_recorded(backend),
        source=getattr(getattr(model, "path", None), "name", None),
        profile=backend.profile,
        deterministic=backend.deterministic,
    )
    try:
        return write_project(program, out_dir, options)
    except ValueError as error:
        raise UnsupportedError("E0401", str(error)) from error


def _recorded(backend: CBackend) -> dict[str, Any]:
    """The options that the manifest keeps: those that are set, of a file its name."""
    options = dataclasses.asdict(backend)
    options["tuned"] = Path(backend.tuned).name
    return {key: value for key, value in options.items() if key not in _WHERE_SET or value}


def processor(backend: CBackend) -> Processor:
    """What the code is for: the description that `march` names, or else what the C compiler says of it; with "native",
    the caches are this machine's. Raises ToolError where a processor is neither described nor known to the compiler."""
    if backend.march in BY_NAME:
        return BY_NAME[backend.march]
    found = described(find_compiler(backend.cc or None).target_macros(backend.march or None))
    return dataclasses.replace(found, caches=own_caches(found.caches)) if backend.march == "native" else found
