"""The checked-in outcomes: cases that pass, and cases that are refused with the code of the reason. They only grow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.onnx.suite.judge import Outcome

_HERE = Path(__file__).parent
_HEAD = (
    "# Cases of the official ONNX suite on device {device}: `NAME` passes, `NAME refused CODE` is refused.\n"
    "# `python -m tests.onnx.suite --device {device} --update` adds cases that pass now; it never drops one.\n"
)


def exempt() -> dict[str, str]:
    """Cases whose expected output is not the only right one, with the reason."""
    lines = (_HERE / "exempt.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return {line[0]: line[1] for line in pairs}


def path_of(device: str) -> Path:
    return _HERE / f"expected_{device.lower()}.txt"


def read(device: str) -> dict[str, str]:
    """ "passed", or "refused CODE", by case."""
    path = path_of(device)
    if not path.exists():
        return {}
    lines = [line.split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {name: rest[0] if rest else "passed" for name, *rest in lines}


def failures(device: str, outcomes: Iterable[Outcome]) -> list[str]:
    """What is not as it must be: wrong cases, and cases that passed before."""
    expected, excused = read(device), exempt()
    problems = []
    for outcome in outcomes:
        if outcome.name in excused:
            continue
        if outcome.status == "wrong":
            problems.append(f"{outcome.name}: wrong ({outcome.code}): {outcome.reason}")
        elif outcome.status == "refused" and expected.get(outcome.name) == "passed":
            problems.append(f"{outcome.name}: passed before, refused now ({outcome.code}): {outcome.reason}")
    return problems


def update(device: str, outcomes: Iterable[Outcome]) -> None:
    """Adds what passes now, and the codes of what is refused; a case that is listed as passing stays."""
    entries = read(device)
    excused = exempt()
    for outcome in outcomes:
        if outcome.name in excused or entries.get(outcome.name) == "passed":
            continue
        if outcome.status == "passed":
            entries[outcome.name] = "passed"
        elif outcome.status == "refused":
            entries[outcome.name] = f"refused {outcome.code}"
        else:
            entries.pop(outcome.name, None)
    lines = [name if state == "passed" else f"{name} {state}" for name, state in sorted(entries.items())]
    path_of(device).write_text(_HEAD.format(device=device) + "\n".join(lines) + "\n", encoding="utf-8")
