"""The C target's pipeline: the passes from an imported graph to a program that `emit` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.c.emit import lanes
from backends.c.support import carries, remembering
from compiler.pipeline import PASSES, Pipeline, load_passes

if TYPE_CHECKING:
    from backends.c import CBackend


_REGISTERS = {4: 16, 8: 16, 16: 32}
"""Vector registers by lanes: SSE and AVX2 have 16, AVX-512 has 32."""


def pipeline(backend: CBackend) -> Pipeline:
    """canonicalize and fold first, then what the target needs, then kernels, then memory."""
    load_passes()
    legalize = PASSES["legalize"].with_options(accepts=remembering(), carries=carries)
    identities = PASSES["canonicalize"].with_options(composites=False)
    tidy = ["fold", identities, "cse", "dce"]
    widen = PASSES["widen"].with_options(lanes=lanes(backend))
    kinds = ["maps", "sequences", "strings"]
    graph = ["shift", "fold", "canonicalize", "fold", "cse", "dce", *kinds, legalize, *tidy, "shift", "layout", *tidy]
    graph += [*(["winograd"] if backend.winograd else []), widen, *tidy, "fuse"]
    tile = PASSES["tile"].with_options(lanes=lanes(backend), registers=_REGISTERS[lanes(backend)])
    accumulate = PASSES["accumulate"].with_options(lanes=lanes(backend))
    kernels = ["lower", "simplify", "join", "reuse", "share", "interleave", tile, accumulate, "simplify"]
    return Pipeline([*graph, *kernels, "memory"])
