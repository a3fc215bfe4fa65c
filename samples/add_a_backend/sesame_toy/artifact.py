"""What the toy target writes: `model.toy`, the program; `model.npz`, its weights; and `manifest.json`.

Names of the model are data: they stand in the manifest and, escaped, in comments; instructions have numbers only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import EXIT_DOES_NOT_FIT, CompileError, UsageError, printable
from ir.bind import bind_sizes, check_assumptions
from ir.dims import dim_text
from ir.graph import Graph, Node, Value
from ir.types import DTYPES, TensorType
from sesame_toy.machine import REGISTERS, run


def write(graph: Graph, folder: Path, comments: bool, options: dict[str, Any]) -> None:
    """Writes a graph of accepted nodes. Raises CompileError where it does not fit the registers."""
    folder.mkdir(parents=True, exist_ok=True)
    text, weights = assemble(graph, comments)
    (folder / "model.toy").write_text(text, encoding="utf-8")
    np.savez(folder / "model.npz", *weights)
    manifest = {
        "schema_version": 1,
        "name": graph.name,
        "target": "toy",
        "options": options,
        "inputs": [_port(value.name, value.tensor) for value in graph.inputs],
        "outputs": [_port(name, value.tensor) for name, value in zip(graph.output_names, graph.outputs)],
        "dims": [{"name": name, "min": least, "max": most} for name, (least, most) in sorted(graph.bounds.items())],
        "equal_dims": [[dim_text(a), dim_text(b)] for a, b in graph.equal_dims],
        "weights": {"file": "model.npz", "bytes": sum(w.nbytes for w in weights)},
        "files": ["manifest.json", "model.npz", "model.toy"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _port(name: str, type_: TensorType) -> dict[str, Any]:
    return {"name": name, "dtype": type_.dtype.name, "shape": [dim_text(size) for size in type_.shape]}


def assemble(graph: Graph, comments: bool) -> tuple[str, list[np.ndarray]]:
    """The text of the program and the weights it loads. A register is free again after its last use."""
    last_use: dict[Value, Node | None] = {value: node for node in graph.nodes() for value in node.inputs if value}
    last_use |= dict.fromkeys(graph.outputs)  # an output is kept to the end
    registers: dict[Value, int] = {}
    free = list(range(REGISTERS))[::-1]
    lines: list[str] = []
    weights: list[np.ndarray] = []

    def hold(value: Value) -> int:
        if not free:
            raise CompileError(
                "E0510", f"%{value.name} needs a register more than the {REGISTERS} of the toy machine",
                exit_code=EXIT_DOES_NOT_FIT, help="compile fewer operators at a time",
            )  # fmt: skip
        registers[value] = free.pop()
        return registers[value]

    for number, value in enumerate(graph.inputs):
        lines.append(f"input r{hold(value)}, {number}")
    for node in graph.nodes():
        if node.op.name == "const":
            continue
        for value in node.inputs:
            assert value is not None  # `accepts` refuses optional operands
            if value not in registers:  # weights are loaded where they are first used
                assert value.blob is not None
                lines.append(f"weight r{hold(value)}, {len(weights)}")
                weights.append(value.blob.array())
        operands = [registers[value] for value in node.inputs if value is not None]
        free += [registers.pop(v) for v in dict.fromkeys(node.inputs) if v is not None and last_use[v] is node]
        remark = f"  ; {printable(', '.join(node.sources))}" if comments and node.sources else ""
        code = f"{node.op.name} " + ", ".join(f"r{r}" for r in (hold(node.output), *operands))
        lines.append((code + remark).replace("\n", " "))
    for number, value in enumerate(graph.outputs):
        lines.append(f"output {number}, r{registers[value]}")
    return "\n".join(lines) + "\n", weights


class ToyModel:
    """An artifact of the toy target, ready to run on the simulator."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.text = (folder / "model.toy").read_text(encoding="utf-8")
        with np.load(folder / manifest["weights"]["file"], allow_pickle=False) as stored:
            self.weights = [stored[name] for name in stored.files]
        self.manifest = manifest

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises UsageError for feeds that do not fit."""
        names = [port["name"] for port in self.manifest["inputs"]]
        if set(feeds) != set(names):
            raise UsageError("E0208", f"the inputs are {', '.join(names)}; given: {', '.join(feeds)}")
        arrays = [np.asarray(feeds[name]) for name in names]
        types = [_type(port) for port in self.manifest["inputs"]]
        try:
            sizes = bind_sizes(types, arrays, names)
            check_assumptions({d["name"]: (d["min"], d["max"]) for d in self.manifest["dims"]}, (), sizes)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        outputs = self.manifest["outputs"]
        results = run(self.text, arrays, self.weights, len(outputs))
        return {port["name"]: result for port, result in zip(outputs, results)}


def _type(port: Mapping[str, Any]) -> TensorType:
    from ir.dims import parse_dim

    return TensorType(DTYPES[port["dtype"]], tuple(parse_dim(size) for size in port["shape"]))
