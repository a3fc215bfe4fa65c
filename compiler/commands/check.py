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
    problems = find_problems(model, target, parse_dims(dim))
    for error in group(problems):
        console.error(error)
    record = {"model": str(model), "target": target, "ok": not problems, "problems": [p.to_json() for p in problems]}
    verdict = (
        f"{model}: no problems for target {target}"
        if not problems
        else f"{model}: {len(problems)} problems for target {target}"
    )
    console.result(verdict, record)
    return problems[0].exit_code if problems else EXIT_OK


def find_problems(path: Path, target: str, dims: Dims) -> list[CompileError]:
    """What importing refuses; if nothing, what the target's passes refuse. Raises UsageError for wrong options."""
    from compiler.backend import find_backend
    from compiler.driver import load
    from compiler.errors import UsageError

    backend = find_backend(target)
    try:
        backend.pipeline().run(load(path, dims))
    except UsageError:
        raise
    except CompileError as error:
        return _flat(error)
    return []


def _flat(error: CompileError) -> list[CompileError]:
    return [inner for each in error.errors for inner in _flat(each)] if isinstance(error, Problems) else [error]


def group(problems: list[CompileError]) -> list[CompileError]:
    """As one error to show, which lists the nodes of equal problems together."""
    return [Problems(problems)] if problems else []


__all__ = ["check", "find_problems"]
