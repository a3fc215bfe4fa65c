"""The C target's pipeline: the passes from an imported graph to a program that `emit` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.pipeline import PASSES, Pipeline, load_passes

if TYPE_CHECKING:
    from backends.c import CBackend


_ACCUMULATORS = {4: 12, 8: 12, 16: 28}
"""Vector registers left for accumulators, by lanes: of 16 with SSE and AVX2, of 32 with AVX-512."""


def pipeline(backend: CBackend) -> Pipeline:
    """canonicalize and fold first, then what the target needs, then kernels, then memory."""
    from backends.c.emit import lanes

    load_passes()
    legalize = PASSES["legalize"].with_options(accepts=backend.accepts)
    graph = ["fold", "cse", "dce", legalize, "fold", "layout", "fold", "cse", "dce", "fuse"]
    tile = PASSES["tile"].with_options(lanes=lanes(backend), accumulators=_ACCUMULATORS[lanes(backend)])
    return Pipeline([*graph, "lower", "simplify", "reuse", tile, "memory"])
