"""From an emitted folder to a shared library in it, rebuilt only when code, compiler or flags have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.c.toolchain import Compiler, build_shared, find_compiler

if TYPE_CHECKING:
    from backends.c import CBackend

Progress = Callable[[int, int, str], None]


def build_library(
    folder: Path, manifest: Mapping[str, Any], options: CBackend, progress: Progress | None = None
) -> Path:
    """The shared library of an emitted folder, built where it is missing. Raises ToolError."""
    compiler = find_compiler(options.cc or None)
    sanitize = tuple(s for s in options.sanitize.split("+") if s)
    sources = sorted(folder / name for name in manifest["files"] if name.endswith(".c") and name != "main.c")
    output = folder / f"libmodel-{library_key(folder, manifest, options, compiler)}.so"
    if not output.exists():
        build_shared(sources, output, compiler, include=[folder], opt=options.opt, march=options.march or None,
                     sanitize=sanitize, progress=progress)  # fmt: skip
    return output


def library_key(folder: Path, manifest: Mapping[str, Any], options: CBackend, compiler: Compiler) -> str:
    """Names a build: the code, the compiler, and how it is called."""
    how = (compiler.command, compiler.version, options.opt, options.march, options.sanitize)
    digest = hashlib.sha256(repr(how).encode())
    for name in sorted(manifest["files"]):
        if name.endswith((".c", ".h")):
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()[:12]
