"""The C target's pipeline: the passes from an imported graph to a program that `emit` takes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from backends.c.emit import processor
from backends.c.support import carries, remembering
from backends.c.targets import FIXED
from compiler import __version__
from compiler.choices import Answers
from compiler.errors import CompileWarning, UsageError
from compiler.pipeline import PASSES, Pipeline, load_passes
from compiler.tuned import answering, differences, read_tuned

if TYPE_CHECKING:
    from backends.c import CBackend


_LEAST_BESIDE_BF16 = 4
"""Tiles of Winograd's filtering of f32 that are faster than plain sums of bf16."""


def pipeline(backend: CBackend) -> Pipeline:
    """canonicalize and fold first, then what the target needs, then kernels, then memory. Raises UsageError."""
    if backend.precision not in ("f32", "bf16"):
        raise UsageError("E0206", f"the precision is 'f32' or 'bf16', not '{backend.precision}'")
    if backend.deterministic and backend.tuned:
        raise UsageError("E0206", "what was measured on one machine must not decide how deterministic code adds")
    load_passes()
    legalize = PASSES["legalize"].with_options(accepts=remembering(), carries=carries)
    identities = PASSES["canonicalize"].with_options(composites=False)
    tidy = ["fold", identities, "cse", "dce"]
    machine = processor(backend)
    fixed = FIXED if backend.deterministic else machine
    widen = PASSES["widen"].with_options(lanes=fixed.lanes)
    kinds = ["maps", "sequences", "strings"]
    graph = ["shift", "fold", "canonicalize", "fold", "cse", "dce", *kinds, legalize, *tidy, "shift", "layout", *tidy]
    is_narrow = backend.precision == "bf16"
    winograd = PASSES["winograd"].with_options(caches=fixed.caches[1:])
    winograd = winograd.with_options(least=_LEAST_BESIDE_BF16) if is_narrow else winograd
    graph += [*([winograd] if backend.winograd else []), widen, *tidy, *(["narrow"] if is_narrow else []), "fuse"]
    tile = PASSES["tile"].with_options(lanes=machine.lanes, registers=machine.registers, least=fixed.lanes)
    attend = PASSES["attend"].with_options(lanes=machine.lanes, registers=machine.registers, least=fixed.lanes)
    accumulate = PASSES["accumulate"].with_options(lanes=fixed.lanes, keep_columns=backend.deterministic)
    kernels = ["lower", "simplify", "join", attend, "frame", "reuse", "share", "interleave", tile]
    kernels += ["unravel", "partition", accumulate, "vectorize", "simplify"]
    steps = Pipeline([*graph, *kernels, "memory"])
    return answering(steps, _tuned(backend)) if backend.tuned else steps


def _tuned(backend: CBackend) -> Answers:
    """The measured choices, with a warning where they were measured on another machine or with other options."""
    found = read_tuned(backend.tuned)
    others = differences(found, backend.machine(), __version__)
    if others:
        warnings.warn(f"{backend.tuned} was measured elsewhere: {'; '.join(others)}", CompileWarning, stacklevel=4)
    return found.answers()
