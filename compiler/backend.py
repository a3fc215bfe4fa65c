"""Backends: how a target is found, what it must offer, and the options it is chosen with.

A backend is a class named by an entry point of group `sesame.backends`; a third party's package is found like ours.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from compiler.errors import UsageError

if TYPE_CHECKING:
    from compiler.pipeline import Pipeline
    from ir.graph import Node

GROUP = "sesame.backends"


class Runnable(Protocol):
    """A loaded artifact."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises CompileError for a missing, unknown or ill-typed input."""
        ...


class Backend:
    """Base of all targets. Subclasses are dataclasses whose fields are the target's options."""

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""

    def accepts(self, node: Node) -> bool | str:
        """True, or the reason (a sentence) why this target does not run the node as it is."""
        raise NotImplementedError

    def pipeline(self) -> Pipeline:
        """The passes from an imported graph to what `emit` takes."""
        raise NotImplementedError

    def emit(self, program: Any, out_dir: str | Path, model: Any = None) -> Any:
        """Writes the program into a folder; an Artifact. `model` is where it came from, for the manifest."""
        raise NotImplementedError

    def machine(self) -> dict[str, Any]:
        """What times of code for this target depend on: the machine, the tools, and the options."""
        raise UsageError("E0206", f"target {self.name} has nothing to tune")

    def build(self, folder: Path, manifest: Mapping[str, Any], product: str, progress: Any = None) -> Path:
        """Builds `product` from an emitted folder; `progress(done, of, what)` is called on the way.

        Raises UsageError where the target builds no such thing.
        """
        raise UsageError("E0206", f"target {self.name} does not build '{product}'")

    @classmethod
    def processors(cls) -> Sequence[Mapping[str, Any]]:
        """The machines that the target knows by name, for `sesame targets`: name, description, lanes, registers, dot,
        caches. None by default."""
        return ()

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> Runnable:
        """Makes an emitted folder runnable in this process."""
        raise NotImplementedError


def backends() -> dict[str, Any]:
    """Entry points of all installed targets by name, sorted."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    return dict(sorted(found.items()))


def find_backend(target: str, **options: Any) -> Any:
    """The target named `target` ("c", or "c,march=native,threads=2") with its options set.

    Raises UsageError for a target or an option that does not exist.
    """
    name, *given = [part.strip() for part in target.split(",")]
    known = backends()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise UsageError("E0205", f"there is no target '{name}'",
                         help=f"did you mean '{close[0]}'?" if close else f"targets: {', '.join(known)}")  # fmt: skip
    cls = known[name].load()
    for item in given:
        key, _, value = item.partition("=")
        options.setdefault(key.strip(), value.strip())
    return cls(**_typed(cls, name, options))


def _typed(cls: type, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the types their fields declare."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    typed: dict[str, Any] = {}
    for key, value in options.items():
        key = key.replace("-", "_")
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"options: {', '.join(fields) or 'none'}"
            raise UsageError("E0206", f"target {target} has no option '{key}'", help=hint)
        typed[key] = _convert(key, value, fields[key].default) if isinstance(value, str) else value
    return typed


def _convert(key: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false", "1", "0", "yes", "no", ""):
            raise UsageError("E0206", f"option '{key}' takes true or false, not '{value}'")
        return value.lower() in ("true", "1", "yes", "")
    if isinstance(default, int):
        try:
            return int(value)
        except ValueError:
            raise UsageError("E0206", f"option '{key}' takes a whole number, not '{value}'") from None
    return value
