"""sesame doctor: what this installation has to work with."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from typing import Any

from compiler.commands.console import Console, command, table
from compiler.errors import EXIT_OK, EXIT_TOOL, CompileError

_PACKAGES = (
    "sesame-compiler",
    "numpy",
    "onnx",
    "ml_dtypes",
    "lark",
    "networkx",
    "typer",
    "rich",
    "ziglang",
    "onnxruntime",
    "openvino",
)
_SIMD = (
    "__SSE4_2__",
    "__AVX__",
    "__AVX2__",
    "__FMA__",
    "__AVX512F__",
    "__AVX512VNNI__",
    "__AVX512BF16__",
    "__AVX512FP16__",
    "__ARM_NEON",
    "__ARM_FEATURE_DOTPROD",
    "__ARM_FEATURE_SVE",
    "__riscv_vector",
)


@command()
def doctor(console: Console) -> int:
    """Versions, C compilers, vector extensions and folders; status 6 without a working C compiler."""
    found = versions()
    compilers = _compilers()
    record = {**found, "compilers": compilers, "cache": str(_cache())}
    console.result(lambda: _text(record), record)
    return EXIT_OK if any("version" in c for c in compilers) else EXIT_TOOL


def versions() -> dict[str, Any]:
    """Of Python, the machine, and the packages that matter."""
    from importlib import metadata  # 15 ms that other commands need not spend

    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": packages,
    }


def _compilers() -> list[dict[str, Any]]:
    """The C compilers that the C target finds, the one it would choose first, with SIMD macros of this processor."""
    toolchain = _toolchain()
    if toolchain is None:
        return []
    asked: list[str | None] = [None, *(n for n in ("gcc", "clang") if shutil.which(n)), "zig"]
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for name in asked:
        try:
            compiler = toolchain.find_compiler(name)
            if compiler.command not in found:
                simd = [m.strip("_") for m in _SIMD if m in compiler.target_macros("native")]
                found[compiler.command] = {
                    "command": " ".join(compiler.command),
                    "version": compiler.version.splitlines()[0],
                    "simd": simd,
                }
        except CompileError as error:
            found[(name or "default",)] = {"command": name or "default", "problem": error.message}
    return list(found.values())


def _toolchain() -> Any:
    """The module that finds C compilers; None where the C target is not installed."""
    from compiler.backend import backends

    point = backends().get("c")
    if point is None:
        return None
    import importlib

    return importlib.import_module(f"{point.module}.toolchain")


def _cache() -> str | None:
    toolchain = _toolchain()
    return None if toolchain is None else str(toolchain.cache.cache_dir())


def _text(record: dict[str, Any]) -> str:
    rows = [["python", f"{record['python']} ({record['executable']})"]]
    rows += [["machine", f"{record['platform']}, {record['processors']} processors"]]
    rows += [[name, version or "not installed"] for name, version in record["packages"].items()]
    for compiler in record["compilers"]:
        rows.append(["C compiler", f"{compiler['command']}: {compiler.get('version') or compiler.get('problem')}"])
        if compiler.get("simd"):
            rows.append(["", " ".join(compiler["simd"])])
    if not record["compilers"]:
        rows.append(["C compiler", "none found"])
    rows.append(["object cache", str(record["cache"])])
    return table(["what", "found"], rows)


__all__ = ["doctor", "versions"]
