"""sesame check: every problem that stands between a model and a target, at once. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compiler.commands.arguments import DimOption, ModelFile, Target, parse_dims
from compiler.commands.console import Console, command
from compiler.errors import EXIT_OK, CompileError, Problems

if TYPE_CHECKING:
    from compiler.driver import Dims


@command()
def check(console: Console, model: ModelFile, target: Target = "c", dim: DimOption = None) -> int:
    """Report everything in a model that the compiler or the target does not do."""
    problems, was_imported = find_problems(model, target, parse_dims(dim))
    if problems:
        console.error(Problems(problems))  # which lists the nodes of equal problems together
    count = "no problems" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    verdict = f"{model}: {count} " + (
        f"for target {target}" if was_imported else "in importing; no target was asked yet"
    )
    record = {
        "model": str(model),
        "target": target,
        "ok": not problems,
        "imported": was_imported,
        "problems": [p.to_json() for p in problems],
    }
    console.result(verdict, record)
    return problems[0].exit_code if problems else EXIT_OK


def find_problems(path: Path, target: str, dims: Dims) -> tuple[list[CompileError], bool]:
    """What importing refuses, else what the target's passes refuse; and whether the model could be imported.

    Raises UsageError for wrong options.
    """
    from compiler.backend import find_backend
    from compiler.driver import load
    from compiler.errors import UsageError

    backend = find_backend(target)
    try:
        model = load(path, dims)
    except UsageError:
        raise
    except CompileError as error:
        return _flat(error), False
    try:
        backend.pipeline().run(model)
    except CompileError as error:
        return _flat(error), True
    return [], True


def _flat(error: CompileError) -> list[CompileError]:
    return [inner for each in error.errors for inner in _flat(each)] if isinstance(error, Problems) else [error]


__all__ = ["check", "find_problems"]
