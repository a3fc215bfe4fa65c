"""A fault of the compiler itself: a folder with the traceback, the command and the versions, and where it lies."""

from __future__ import annotations

import json
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from compiler.commands.console import Console
from compiler.commands.doctor import versions
from compiler.errors import printable

CODE = "E7000"


def report(console: Console, arguments: Sequence[str], error: BaseException) -> Path:
    """Writes the folder and says so on stderr; the folder. The model is not copied: it may be large, or private."""
    folder = Path(tempfile.mkdtemp(prefix="sesame-crash-"))
    text = "".join(traceback.format_exception(error))
    (folder / "traceback.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    (folder / "command.txt").write_text(
        f"sesame {shlex.join(arguments)}\n", encoding="utf-8", errors="backslashreplace"
    )
    (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")
    what = printable(f"{type(error).__name__}: {error}".splitlines()[0][:300])
    console.log(f"{console.paint(f'error[{CODE}]', 'error')}: a fault of the compiler: {what}", -1)
    console.log(f"  help: please report it with the files in {folder}", -1)
    if console.verbosity > 0:
        console.log(text)
    return folder


__all__ = ["report"]
