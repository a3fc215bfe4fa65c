"""Sesame: an ahead-of-time compiler for ONNX models.

    artifact = compiler.compile("resnet50.onnx", target="c")
    y = artifact.load().run({"x": image})

Names are imported on first use, so that `import compiler` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.artifact import Artifact
    from compiler.backend import find_backend
    from compiler.driver import compile, load
    from compiler.errors import CompileError
    from compiler.pipeline import Pipeline, graph_pass, kernel_pass

_HOME = {
    "Artifact": "compiler.artifact",
    "CompileError": "compiler.errors",
    "Pipeline": "compiler.pipeline",
    "compile": "compiler.driver",
    "find_backend": "compiler.backend",
    "graph_pass": "compiler.pipeline",
    "kernel_pass": "compiler.pipeline",
    "load": "compiler.driver",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'compiler' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


__all__ = ["Artifact", "CompileError", "Pipeline", "compile", "find_backend", "graph_pass", "kernel_pass", "load"]
