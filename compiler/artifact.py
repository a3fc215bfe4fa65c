"""Artifacts: what a compile leaves in a folder, and how it is run again later.

Loading one needs its manifest and its target's loader, and none of the compiler's graph code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.backend import find_backend
from compiler.errors import ModelError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class Artifact:
    """A compiled model in `folder`. `manifest` says what it is: inputs, outputs, dims, memory, files."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens a folder. Raises ModelError where it holds no artifact that this version reads."""
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        try:
            self.manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelError("E0310", f"no artifact here: {error.strerror}", file=str(path)) from error
        except ValueError as error:
            raise ModelError("E0310", f"the manifest is not JSON: {error}", file=str(path)) from error
        version = self.manifest.get("schema_version") if isinstance(self.manifest, dict) else None
        if version != SCHEMA_VERSION:
            raise ModelError("E0310", f"manifest version {version}; this Sesame reads {SCHEMA_VERSION}", file=str(path))
        if not isinstance(self.manifest.get("target"), str):
            raise ModelError("E0310", "the manifest names no target", file=str(path))

    @property
    def target(self) -> str:
        return str(self.manifest["target"])

    @property
    def precision(self) -> str:
        """The type to which operands of products are rounded: "f32" for none."""
        return str(self.manifest.get("options", {}).get("precision", "f32"))

    def load(self, **options: Any) -> Any:
        """The artifact ready to run: an object with `run(feeds) -> dict`. Builds it where its target needs that."""
        return self._backend(options).load(self.folder, self.manifest)

    def build(self, product: str, progress: Any = None, **options: Any) -> Path:
        """Builds `product` ("so", "exe": what the target has) in the folder; its path. Raises UsageError, ToolError."""
        return self._backend(options).build(self.folder, self.manifest, product, progress)

    def _backend(self, options: Mapping[str, Any]) -> Any:
        return find_backend(self.target, **{**self.manifest.get("options", {}), **options})

    def __repr__(self) -> str:
        return f"Artifact({str(self.folder)!r})"
