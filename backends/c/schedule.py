"""The C target's pipeline: the passes from an imported graph to a program that `emit` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.pipeline import PASSES, Pipeline, load_passes

if TYPE_CHECKING:
    from backends.c import CBackend


def pipeline(backend: CBackend) -> Pipeline:
    """canonicalize and fold first, then what the target needs, then kernels, then memory."""
    load_passes()
    legalize = PASSES["legalize"].with_options(accepts=backend.accepts)
    return Pipeline(
        ["fold", "canonicalize", "cse", "dce", legalize, "fold", "canonicalize", "cse", "dce", "fuse", "lower", "reuse", "memory"]
    )
