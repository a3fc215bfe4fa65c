"""From an emitted folder to a shared library or a program in it, rebuilt only when code, compiler or flags change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.c.toolchain import CODE_FLAGS, BuildOptions, Compiler, build_executable, build_shared, find_compiler

if TYPE_CHECKING:
    from backends.c import CBackend

Progress = Callable[[int, int, str], None]


def build_library(
    folder: Path, manifest: Mapping[str, Any], options: CBackend, progress: Progress | None = None
) -> Path:
    """The shared library of an emitted folder, built where it is missing. Raises ToolError."""
    compiler = find_compiler(options.cc or None)
    output = folder / f"libmodel-{library_key(folder, manifest, options, compiler)}.so"
    if not output.exists():
        sources = [path for path in _sources(folder, manifest) if path.name != "main.c"]
        build_shared(sources, output, compiler, **_flags(folder, options, progress))
    return output


def build_program(
    folder: Path, manifest: Mapping[str, Any], options: CBackend, progress: Progress | None = None
) -> Path:
    """The test bench of an emitted folder as a program. Raises ToolError."""
    output = folder / "bench"
    compiler = find_compiler(options.cc or None)
    build_executable(_sources(folder, manifest), output, compiler, **_flags(folder, options, progress))
    return output


def _sources(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    return sorted(folder / name for name in manifest["files"] if name.endswith(".c"))


def _flags(folder: Path, options: CBackend, progress: Progress | None) -> BuildOptions:
    return {
        "include": [folder],
        "opt": options.opt,
        "march": options.march or None,
        "fp_contract": "off" if options.deterministic else "fast",
        "sanitize": tuple(s for s in options.sanitize.split("+") if s),
        "progress": progress,
    }


def library_key(folder: Path, manifest: Mapping[str, Any], options: CBackend, compiler: Compiler) -> str:
    """Names a build: the code, the compiler, and how it is called."""
    how = (compiler.command, compiler.version, CODE_FLAGS, options.opt, options.march, options.sanitize)
    digest = hashlib.sha256(repr(how).encode())
    for name in sorted(manifest["files"]):
        if name.endswith((".c", ".h")):
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()[:12]
