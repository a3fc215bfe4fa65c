"""The C target's pipeline: the passes from an imported graph to a program that `emit` takes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from backends.c.emit import lanes
from backends.c.support import carries, remembering
from compiler import __version__
from compiler.choices import Answers
from compiler.errors import CompileWarning, UsageError
from compiler.pipeline import PASSES, Pipeline, load_passes
from compiler.tuned import answering, differences, read_tuned

if TYPE_CHECKING:
    from backends.c import CBackend


_REGISTERS = {4: 16, 8: 16, 16: 32}
"""Vector registers by lanes: SSE and AVX2 have 16, AVX-512 has 32."""

_LEAST_BESIDE_BF16 = 4
"""Tiles of Winograd's filtering of f32 that are faster than plain sums of bf16."""


def pipeline(backend: CBackend) -> Pipeline:
    """canonicalize and fold first, then what the target needs, then kernels, then memory. Raises UsageError."""
    if backend.precision not in ("f32", "bf16"):
        raise UsageError("E0206", f"the precision is 'f32' or 'bf16', not '{backend.precision}'")
    load_passes()
    legalize = PASSES["legalize"].with_options(accepts=remembering(), carries=carries)
    identities = PASSES["canonicalize"].with_options(composites=False)
    tidy = ["fold", identities, "cse", "dce"]
    widen = PASSES["widen"].with_options(lanes=lanes(backend))
    kinds = ["maps", "sequences", "strings"]
    graph = ["shift", "fold", "canonicalize", "fold", "cse", "dce", *kinds, legalize, *tidy, "shift", "layout", *tidy]
    is_narrow = backend.precision == "bf16"
    winograd = PASSES["winograd"].with_options(least=_LEAST_BESIDE_BF16) if is_narrow else PASSES["winograd"]
    graph += [*([winograd] if backend.winograd else []), widen, *tidy, *(["narrow"] if is_narrow else []), "fuse"]
    tile = PASSES["tile"].with_options(lanes=lanes(backend), registers=_REGISTERS[lanes(backend)])
    accumulate = PASSES["accumulate"].with_options(lanes=lanes(backend))
    kernels = ["lower", "simplify", "join", "frame", "reuse", "share", "interleave", tile]
    kernels += ["unravel", "partition", accumulate, "simplify"]
    steps = Pipeline([*graph, *kernels, "memory"])
    return answering(steps, _tuned(backend)) if backend.tuned else steps


def _tuned(backend: CBackend) -> Answers:
    """The measured choices, with a warning where they were measured on another machine or with other options."""
    found = read_tuned(backend.tuned)
    others = differences(found, backend.machine(), __version__)
    if others:
        warnings.warn(f"{backend.tuned} was measured elsewhere: {'; '.join(others)}", CompileWarning, stacklevel=4)
    return found.answers()
