"""sesame ops, passes, targets: what there is, from the registries themselves."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from compiler.commands.console import Console, command, table


@command(formats=("text", "json", "md"))
def ops(
    console: Console,
    domain: Annotated[
        str | None, typer.Option("--domain", help="Only operators of this domain (ai.onnx, com.microsoft ...).")
    ] = None,
) -> None:
    """ONNX operators: opsets of their importers, types, and how many cases of the official suite pass."""
    from compiler.onnx.coverage import operators

    found = operators(domain)
    header = ["domain", "operator", "since opset", "types", "interpreter", "C", "notes"]
    rows = [
        [o.domain, o.name, ", ".join(map(str, o.since)), o.types, o.passed("interpreter"), o.passed("c"), o.notes]
        for o in found
    ]
    console.result(
        lambda: _markdown(header, rows) if console.format == "md" else table(header, rows), [o.to_json() for o in found]
    )


@command()
def passes(
    console: Console,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The passes that this target runs, in order.")
    ] = None,
) -> None:
    """Passes that a pipeline can be made of."""
    from compiler.backend import find_backend
    from compiler.pipeline import PASSES, load_passes

    load_passes()
    chosen = find_backend(target).pipeline().passes if target else [PASSES[name] for name in sorted(PASSES)]
    record = [{"name": p.name, "stage": p.stage, "does": p.doc.partition("\n")[0]} for p in chosen]
    console.result(
        lambda: table(["pass", "works on", "does"], [[r["name"], r["stage"], r["does"]] for r in record]), record
    )


@command()
def targets(console: Console) -> None:
    """Installed targets, their options, and the processors they know by name."""
    from compiler.backend import backends

    record = [_target(name, point.load()) for name, point in backends().items()]
    console.result(lambda: "\n".join(_target_text(r) for r in record), record)


def _target(name: str, cls: Any) -> dict[str, Any]:
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    description = getattr(cls, "description", "") or (cls.__doc__ or "").partition("\n")[0]
    return {
        "name": name,
        "description": description,
        "notes": _options_doc(cls) if fields else "",
        "options": [{"name": f.name, "default": f.default} for f in fields],
        "processors": [dict(each) for each in getattr(cls, "processors", tuple)()],
    }


def _options_doc(cls: Any) -> str:
    return " ".join((cls.__doc__ or "").split())


def _target_text(record: dict[str, Any]) -> str:
    lines = [f"{record['name']}  {record['description']}"]
    for option in record["options"]:
        default = option["default"]
        shown = str(default).lower() if isinstance(default, bool) else str(default) or "(none)"
        lines.append(f"    {option['name']}={shown}")
    if record["notes"]:
        lines.append(f"    {record['notes']}")
    if record["processors"]:
        lines.append(_processors_text(record["processors"]))
    return "\n".join(lines)


def _processors_text(processors: list[dict[str, Any]]) -> str:
    """The processors of a target: f32 elements of a vector, registers, dot products, kilobytes of caches."""
    header = ["march", "lanes", "registers", "caches", "dot products", "what it is"]
    rows = []
    for p in processors:
        caches = "/".join(f"{size >> 10}K" if size < 1 << 20 else f"{size >> 20}M" for size in p["caches"])
        rows.append([p["name"], str(p["lanes"]), str(p["registers"]), caches, ", ".join(p["dot"]), p["description"]])
    return "\n" + "\n".join(f"    {line}" for line in table(header, rows).splitlines())


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


__all__ = ["ops", "passes", "targets"]
