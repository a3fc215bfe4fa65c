"""The way from a model file to an artifact, as the command line and Python users take it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compiler.artifact import Artifact
from compiler.backend import Backend, find_backend
from compiler.errors import UsageError
from compiler.onnx.importer import import_model
from compiler.onnx.load import Limits, LoadedModel, read_model, read_model_proto
from compiler.pipeline import Observer, Pipeline
from compiler.tuned import warn_of_misfits
from ir.graph import Graph

Dims = Mapping[str, "int | tuple[int, int | None]"]


@dataclass
class Model:
    """An imported model: its graph, with the weights still in their files, and where it came from."""

    name: str
    graph: Graph
    loaded: LoadedModel

    @property
    def path(self) -> Path | None:
        return self.loaded.path


def load(
    model: str | os.PathLike[str] | onnx.ModelProto,
    dims: Dims | None = None,
    limits: Limits | None = None,
    *,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Imports an ONNX file (or a ModelProto). `dims` fixes (`{"N": 1}`) or bounds (`{"N": (1, 512)}`) symbolic dims.

    Inputs named in `constants` have that value: they are no inputs of the graph any more, and what is computed from
    them is computed now. Raises CompileError with everything that is wrong with the model.
    """
    loaded = read_model_proto(model, limits=limits) if isinstance(model, onnx.ModelProto) else read_model(model, limits)
    name = loaded.path.stem if loaded.path else (loaded.proto.graph.name or "model")
    graph = import_model(loaded, dims, constants)
    graph.name = name
    return Model(name, graph, loaded)


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto | Model,
    target: str = "c",
    threads: int = 1,
    dims: Dims | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = True,
    pipeline: Pipeline | str | None = None,
    watch: Sequence[Observer] = (),
    **options: Any,
) -> Artifact:
    """Compiles a model for `target` into folder `out` (default: a new temporary folder, kept).

    `options` are the target's (see `sesame targets`). Raises CompileError.
    """
    backend: Backend = find_backend(target, **options, **({"threads": threads} if threads != 1 else {}))
    imported = model if isinstance(model, Model) else load(model, dims)
    steps = (
        backend.pipeline() if pipeline is None else Pipeline.parse(pipeline) if isinstance(pipeline, str) else pipeline
    )
    program = steps.run(imported, watch)
    warn_of_misfits(steps)
    if out is None:
        return backend.emit(
            program, tempfile.mkdtemp(prefix=re.sub(r"[^\w.-]", "_", f"sesame-{imported.name}-"[:40])), imported
        )
    with fresh_folder(Path(out), force) as folder:
        backend.emit(program, folder, imported)
    return Artifact(out)


@contextlib.contextmanager
def fresh_folder(out: Path, force: bool) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when all went well; else nothing is left behind.

    Raises UsageError where `out` exists and is not an earlier artifact to be replaced.
    """
    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / "manifest.json").exists()):
            raise UsageError(
                "E0207", "the output exists and is not an artifact", file=str(out), help="choose another folder with -o"
            )
        if not force and any(out.iterdir()):
            raise UsageError("E0207", "the output exists", file=str(out), help="overwrite it with --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    made.chmod(0o755)
    try:
        yield made
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            os.replace(out, old / out.name)
            try:
                os.replace(made, out)
            except OSError:
                os.replace(old / out.name, out)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(made, out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
