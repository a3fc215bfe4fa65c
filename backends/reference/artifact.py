"""The reference target's artifact: the graph as text, its weights in one file, and a manifest.

A folder written here is read back without the ONNX model: it is a compilation stopped at the graph. Nothing is lowered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from backends.reference.graph import run_graph
from compiler.errors import EXIT_INTERNAL, CompileError, ModelError, UsageError
from ir.blob import ArrayBlob, Blob, write_blob
from ir.dims import dim_text
from ir.evaluate import EvaluationError
from ir.graph import Graph
from ir.kinds import kind_of
from ir.parse import ParseError, parse_graph
from ir.text import graph_blobs, graph_text
from ir.types import DTYPES, TensorType, Type

GRAPH_FILE = "model.graph"
WEIGHTS_FILE = "model.weights"
_ALIGNMENT = 64


def write_graph(graph: Graph, folder: Path) -> None:
    """Writes `graph` into `folder`. Weights are streamed, one at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GRAPH_FILE).write_text(graph_text(graph), encoding="utf-8")
    weights = []
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for name, blob in graph_blobs(graph).items():
            entry: dict[str, Any] = {"name": name, "dtype": blob.dtype.name, "shape": list(blob.shape)}
            if blob.dtype.kind == "string":
                entry["strings"] = [_as_text(item) for item in blob.array().flat]
            else:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                entry["offset"] = file.tell()
                write_blob(blob, file)
            weights.append(entry)
    files = [GRAPH_FILE, WEIGHTS_FILE, "manifest.json"]
    text = json.dumps(_manifest(graph, weights, files), indent=2, ensure_ascii=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _as_text(item: object) -> str:
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


def _manifest(graph: Graph, weights: list[dict[str, Any]], files: list[str]) -> dict[str, Any]:
    try:
        version = metadata.version("sesame-compiler")
    except metadata.PackageNotFoundError:
        version = "unknown"
    named = {name: value.type for name, value in zip(graph.output_names, graph.outputs)}
    return {
        "schema_version": 1,
        "name": graph.name,
        "compiler": {"name": "sesame", "version": version},
        "target": "reference",
        "options": {},
        "dims": [{"name": name, "min": low, "max": high} for name, (low, high) in graph.bounds.items()],
        "equal_dims": [[dim_text(a), dim_text(b)] for a, b in graph.equal_dims],
        "inputs": [_port(value.name, value.type) for value in graph.inputs],
        "outputs": [_port(name, type_) for name, type_ in named.items()],
        "kinds": _kinds(graph),
        "weights": {
            "file": WEIGHTS_FILE,
            "bytes": sum(blob.nbytes for blob in graph_blobs(graph).values() if blob.dtype.kind != "string"),
            "tensors": weights,
        },
        "files": files,
    }


def _port(name: str, type_: Type) -> dict[str, Any]:
    if not isinstance(type_, TensorType):
        return {"name": name, "type": str(type_)}
    return {"name": name, "dtype": type_.dtype.name, "shape": [dim_text(size) for size in type_.shape]}


def _kinds(graph: Graph) -> dict[str, list[Any]]:
    """The kinds of those inputs that are sequences or optionals of tensors."""
    found = {}
    for value in graph.inputs:
        if not isinstance(value.type, TensorType):
            with suppress(TypeError):
                found[f"input {value.name}"] = kind_of(value.type)
    return found


class ReferenceModel:
    """An artifact of the reference target, ready to run. Raises ModelError where the folder is damaged."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        path = folder / GRAPH_FILE
        try:
            text = path.read_text(encoding="utf-8")
            data = np.fromfile(folder / WEIGHTS_FILE, np.uint8)
            tensors = manifest["weights"]["tensors"]
            self.graph = parse_graph(text, {entry["name"]: _blob(entry, data) for entry in tensors})
        except ParseError as error:
            raise ModelError("E0311", str(error), file=str(path)) from error
        except (OSError, KeyError, ValueError) as error:
            raise ModelError("E0311", f"the weights cannot be read: {error}", file=str(folder)) from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Outputs by name. Raises UsageError for feeds that do not fit, CompileError where a node fails."""
        try:
            return run_graph(self.graph, feeds)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        except EvaluationError as error:
            raise CompileError("E0502", str(error), exit_code=EXIT_INTERNAL) from error


def _blob(entry: Mapping[str, Any], data: np.ndarray) -> Blob:
    """A weight of the manifest. Raises ValueError where the file is too short for it."""
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    if dtype.kind == "string":
        array = np.empty(len(entry["strings"]), dtype=object)
        array[:] = entry["strings"]
        return ArrayBlob(array.reshape(shape))
    length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = data[entry["offset"] : entry["offset"] + length]
    if dtype.is_integer and dtype.bits < 8:  # a whole byte each, as `ir.blob.stored` writes them
        return ArrayBlob(raw.view(np.int8 if dtype.kind == "int" else np.uint8).astype(dtype.numpy).reshape(shape))
    return ArrayBlob(raw.view(dtype.numpy).reshape(shape))
