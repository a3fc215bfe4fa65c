"""Runs what a page shows, in the order it shows it, in the current folder.

    python -m tests.samples.document PAGE.md

Of the fenced blocks of the page,

- ```` ```python ```` is executed; all of a page share one namespace,
- a block with `title="name"` is written to the file of that name,
- ```` ```console ```` holds commands after `$ ` and lines of what they print; each must succeed (or end in the status
  that a last line `[status 4]` gives) and print these lines, among others, in this order, `...` standing for anything.

Blocks of other languages are for the reader. Commands that set up a machine are written as `sh`, which is not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Untrue(Exception):
    """The page shows what does not happen."""


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands after the fence, and its lines."""

    language: str
    title: str | None
    line: int
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, also indented ones."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opened = re.match(r"(\s*)```(\w*)\s*(.*)", line)
        if not opened:
            continue
        title = re.search(r'title="([^"]+)"', opened[3])
        inner = []
        for _, body in lines:
            if body.strip() == "```":
                break
            inner.append(body.removeprefix(opened[1]))
        yield Block(opened[2], title and title[1], number + 1, "\n".join(inner) + "\n")


def run_page(page: Path) -> int:
    """Runs all blocks; how many were run. Raises Untrue, or what a Python block raises."""
    module = types.ModuleType(f"page_{page.stem.lower()}")
    sys.modules[module.__name__] = module  # dataclasses and pickling look it up
    namespace: dict[str, Any] = vars(module)
    count = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            padded = "\n" * (block.line - 1) + block.text  # so that errors name the lines of the page
            exec(compile(padded, str(page), "exec"), namespace)
        elif block.language == "console":
            _run_console(page, block)
        else:
            continue
        count += 1
    return count


def _run_console(page: Path, block: Block) -> None:
    for command, expected in _commands(block.text):
        done = subprocess.run(
            _arguments(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # in one, as on a terminal
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        status = 0
        if expected and (found := re.fullmatch(r"\[status (\d+)\]", expected[-1])):
            status = int(found[1])
            expected = expected[:-1]
        said = done.stdout
        if done.returncode != status:
            raise Untrue(f"{page.name}:{block.line}: {command}: status {done.returncode}, not {status}\n{said}")
        _compare(f"{page.name}:{block.line}: {command}", expected, said.splitlines())


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """Each command with the lines shown below it; a backslash at the end of a line continues it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line.strip())
    return found


def _arguments(command: str) -> list[str]:
    """The command with our own Python, and with the C compiler that the C target finds."""
    name, *rest = shlex.split(command)
    expanded = [str(match) for part in rest for match in (sorted(Path().glob(part)) if "*" in part else [part])]
    if name == "sesame":
        return [sys.executable, "-m", "compiler.cli", *expanded]
    if name == "python":
        return [sys.executable, *expanded]
    if name == "cc":
        from backends.c.toolchain import find_compiler

        return [*find_compiler(None).command, *expanded]
    return [name if "/" not in name else os.path.abspath(name), *expanded]


def _compare(where: str, expected: list[str], printed: list[str]) -> None:
    remaining = iter(printed)
    for wanted in expected:
        pattern = re.compile(r"\s+".join(re.escape(word).replace(r"\.\.\.", ".*") for word in wanted.split()))
        if not any(pattern.fullmatch(line.strip()) for line in remaining):
            raise Untrue(f"{where}: does not print {wanted!r}, but:\n" + "\n".join(printed))


if __name__ == "__main__":
    print(f"{run_page(Path(sys.argv[1]))} blocks")
