"""sesame inspect: what a model or an artifact takes, gives, is made of, and needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.commands.arguments import DimOption, Subject, Target, is_artifact, parse_dims
from compiler.commands.console import Console, command, table
from compiler.errors import CompileError

if TYPE_CHECKING:
    from compiler.driver import Dims, Model
    from ir.program import Program


@command()
def inspect(
    console: Console,
    subject: Subject,
    target: Target = "c",
    dim: DimOption = None,
    plan: Annotated[bool, typer.Option("--plan/--no-plan", help="Also lower the model and plan its memory.")] = True,
) -> None:
    """Show inputs, outputs, dims, ops, weights and the memory plan."""
    record = _artifact(subject) if is_artifact(subject) else _model(subject, parse_dims(dim), target if plan else None)
    console.result(lambda: _text(record), record)


def _artifact(folder: Path) -> dict[str, Any]:
    from compiler.artifact import Artifact

    manifest = Artifact(folder).manifest
    ports = {
        side: [_port(p["name"], p.get("type") or f"{p['dtype']}[{','.join(p['shape'])}]") for p in manifest[side]]
        for side in ("inputs", "outputs")
    }
    record: dict[str, Any] = {"name": manifest["name"], "kind": "artifact", **ports}
    record["dims"] = [{"name": d["name"], "min": d["min"], "max": d["max"]} for d in manifest["dims"]]
    for key in ("target", "options", "pipeline", "compiler", "source", "kernels", "calls", "files"):
        if key in manifest:
            record[key] = manifest[key]
    record["weights_bytes"] = manifest["weights"]["bytes"]
    if "arena_bytes" in manifest:  # not every target plans memory
        arena = manifest["arena_bytes"]
        record["memory"] = {"arena": arena["expression"], "arena_bytes": arena["bytes"]}
    return record


def _model(path: Path, dims: Dims, target: str | None) -> dict[str, Any]:
    from compiler.driver import load

    model = load(path, dims)
    graph = model.graph
    record: dict[str, Any] = {
        "name": model.name,
        "kind": "model",
        "inputs": [_port(v.name, str(v.type)) for v in graph.inputs],
        "outputs": [_port(name, str(v.type)) for name, v in zip(graph.output_names, graph.outputs)],
        "dims": _dims(model),
        "opsets": {o.domain or "ai.onnx": o.version for o in model.loaded.proto.opset_import},
        "onnx_ops": _sorted(Counter(_onnx_name(n) for n in model.loaded.proto.graph.node)),
        "ops": _sorted(Counter(n.op.name for n in graph.nodes() if n.op.name not in ("const", "dims"))),
        "weights_bytes": sum(v.blob.nbytes for n in graph.nodes("const") for v in n.outputs if v.blob is not None),
    }
    if target is not None:
        record["target"] = target
        record["memory"] = _plan(model, target)
    return record


def _plan(model: Model, target: str) -> dict[str, Any]:
    """The memory plan, or why there is none."""
    from compiler.backend import find_backend
    from ir.program import Program

    try:
        program = find_backend(target).pipeline().run(model)
    except CompileError as error:
        return {"problem": error.message, "help": f"`sesame check --target {target}` lists what stands in the way"}
    return memory_plan(program) if isinstance(program, Program) else {"problem": f"target {target} plans no memory"}


def memory_plan(program: Program) -> dict[str, Any]:
    """The arena: its size in bytes (a formula where dims are symbolic), its slots, and the buffers in each."""
    from ir.dims import dim_text

    total = program.arena_bytes
    slots = []
    for number, slot in enumerate(program.slots):
        tenants = [b for b in program.buffers.values() if b.place == "arena" and b.slot == number]
        slots.append(
            {
                "bytes": dim_text(slot.bytes),
                "buffers": [{"name": b.name, "type": str(b.type), "offset": b.offset} for b in tenants],
            }
        )
    return {
        "arena": dim_text(total),
        "arena_bytes": total if isinstance(total, int) else None,
        "weights_bytes": sum(b.blob.nbytes for b in program.weights if b.blob is not None),
        "kernels": len(program.kernels),
        "calls": sum(1 for _ in program.calls()),
        "slots": slots,
    }


def _onnx_name(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _dims(model: Model) -> list[dict[str, Any]]:
    from ir.dims import names
    from ir.types import TensorType

    found = {n for v in model.graph.inputs if isinstance(v.type, TensorType) for s in v.type.shape for n in names(s)}
    bounds = {name: model.graph.bounds.get(name, (0, None)) for name in sorted(found)}
    return [{"name": name, "min": least, "max": most} for name, (least, most) in bounds.items()]


def _port(name: str, type_: str) -> dict[str, str]:
    return {"name": name, "type": type_}


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _text(record: dict[str, Any]) -> str:
    lines = [f"{record['name']} ({record['kind']})"]
    rows = [["input", p["name"], p["type"]] for p in record["inputs"]] + [
        ["output", p["name"], p["type"]] for p in record["outputs"]
    ]
    for dim in record["dims"]:
        most = "" if dim["max"] is None else dim["max"]
        rows.append(["dim", dim["name"], f"{dim['min']}..{most}"])
    facts = [(key, str(record[key])) for key in ("target", "source", "pipeline") if record.get(key)]
    for key, label in (("onnx_ops", "ONNX ops"), ("ops", "ops")):
        if key in record:
            listed = ", ".join(f"{name} {count}" for name, count in record[key].items())
            facts.append((label, f"{sum(record[key].values())}: {listed}"))
    facts.append(("weights", f"{record['weights_bytes']} bytes"))
    lines += table(["", "", ""], rows).split("\n")[1:] if rows else []
    lines += [f"{label:<8} {text}" for label, text in facts]
    lines += _memory_lines(record.get("memory", {}))
    return "\n".join(lines)


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    if not memory:
        return []
    if "problem" in memory:
        return [f"memory   no plan: {memory['problem']}", f"         {memory.get('help', '')}".rstrip()]
    lines = [f"arena    {memory['arena']} bytes"]
    for number, slot in enumerate(memory.get("slots", ())):
        lines.append(f"  slot {number}: {slot['bytes']} bytes")
        lines += [f"    {b['offset']:>10}  {b['name']}: {b['type']}" for b in slot["buffers"]]
    return lines


__all__ = ["inspect", "memory_plan"]
