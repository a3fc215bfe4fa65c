"""What a command may say and how: results on stdout, logs and errors on stderr, as text or JSON, coloured or plain.

`command` makes a typer command of a function whose first parameter is a Console, with the options all verbs share.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Annotated, Any

import typer

from compiler.errors import CompileError, Problems, UsageError

_STYLES = {"error": "1;31", "warning": "1;33", "good": "32", "bad": "1;31", "help": "36", "faint": "2"}


@dataclass
class Console:
    """Where a command writes, and how much. `verbosity` is -1 for quiet, 0, or the number of -v."""

    format: str = "text"
    verbosity: int = 0
    color: str = "auto"
    progress: bool = True

    def result(self, text: str | Callable[[], str], record: Any) -> None:
        """The result of the command on stdout: `text`, or `record` with --format json."""
        if self.format == "json":
            sys.stdout.write(json.dumps(record, indent=2, default=str) + "\n")
        else:
            body = text if isinstance(text, str) else text()
            sys.stdout.write(body if body.endswith("\n") else body + "\n")

    def log(self, message: str, level: int = 0) -> None:
        """A line on stderr where the verbosity is at least `level`."""
        if self.verbosity >= level:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def error(self, error: CompileError) -> None:
        """An error on stderr (with --format json, an object)."""
        if self.format == "json":
            errors = error.errors if isinstance(error, Problems) else [error]
            sys.stderr.write(json.dumps({"errors": [e.to_json() for e in errors]}, indent=2) + "\n")
            return
        lines = []
        for line in error.render().split("\n"):
            head, mark, rest = line.partition("]: ")
            if line.startswith("error[") and mark:
                line = self.paint(head + "]", "error") + ": " + rest
            elif line.startswith("  help: "):
                line = "  " + self.paint("help", "help") + line[6:]
            lines.append(line)
        sys.stderr.write("\n".join(lines) + "\n")

    def paint(self, text: str, style: str, stream: IO[str] | None = None) -> str:
        """`text` in a style, where `stream` (default stderr) shows colours."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.is_colored(stream or sys.stderr) else text

    def is_colored(self, stream: IO[str]) -> bool:
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A long step: a spinner on a terminal, and a line with seconds and memory when it is done."""
        if self.verbosity < 0:
            yield
            return
        start = time.perf_counter()
        with self._spinner(name):
            yield
        self.log(self.paint(f"{name}: {time.perf_counter() - start:.2f} s, {peak_rss_mb():.0f} MB", "faint"))

    def _spinner(self, name: str) -> contextlib.AbstractContextManager[Any]:
        if not self.progress or not sys.stderr.isatty():
            return contextlib.nullcontext()
        from rich.console import Console as Terminal

        return Terminal(stderr=True).status(name)


def peak_rss_mb() -> float:
    """The most memory this process has held, in MB; 0 where the system does not say.

    Linux tells it in /proc: what getrusage says there starts with the peak of the process that started this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) / 1e3 for line in status if line.startswith("VmHWM")), 0.0)
    except OSError:
        return _rusage_mb()


def _rusage_mb() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns; those numbered in `right` are flush right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


Format = Annotated[str | None, typer.Option("--format", metavar="text|json", help="How the result is written.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="More of what happens; may be repeated.")]
Color = Annotated[str | None, typer.Option("--color", metavar="auto|always|never", help="Colours; NO_COLOR is heeded.")]
Progress = Annotated[bool | None, typer.Option("--progress/--no-progress", help="Spinners on a terminal.")]

_SHARED = {
    "format_": (Format, None),
    "quiet": (Quiet, False),
    "verbose": (Verbose, 0),
    "color": (Color, None),
    "progress": (Progress, None),
}


def adjusted(
    console: Console,
    format_: str | None = None,
    quiet: bool = False,
    verbose: int = 0,
    color: str | None = None,
    progress: bool | None = None,
    formats: Sequence[str] = ("text", "json", "md"),
) -> Console:
    """`console` with the options that were given. Raises UsageError for a value that is none."""
    wanted = format_ or console.format
    if wanted not in formats:
        raise UsageError("E0200", f"--format is one of {', '.join(formats)}, not '{wanted}'")
    shade = color or console.color
    if shade not in ("auto", "always", "never"):
        raise UsageError("E0200", f"--color is one of auto, always, never, not '{shade}'")
    verbosity = -1 if quiet else console.verbosity + verbose
    return replace(
        console,
        format=wanted,
        color=shade,
        verbosity=verbosity,
        progress=console.progress if progress is None else progress,
    )


def command(formats: Sequence[str] = ("text", "json")) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: a function whose first parameter is the Console becomes a typer command with the shared options."""

    def wrap(function: Callable[..., int | None]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **options: Any) -> int:
            shared = {name: options.pop(name) for name in _SHARED}
            settings: Settings = ctx.obj
            settings.console = adjusted(settings.console, **shared, formats=formats)
            return function(settings.console, **options) or 0

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(n, keyword, default=d, annotation=a) for n, (a, d) in _SHARED.items()]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=keyword) for p in own), *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return wrap


@dataclass
class Settings:
    """What the process shares with the command that runs: its console, which errors are reported on."""

    console: Console


__all__ = [
    "Color",
    "Console",
    "Format",
    "Progress",
    "Quiet",
    "Settings",
    "Verbose",
    "adjusted",
    "command",
    "peak_rss_mb",
    "table",
]
