"""The command `sesame`: its verbs, and what becomes of errors. What a verb does is in `compiler.commands`.

Status codes are those of `compiler.errors`. A user's error gives no Python traceback; a fault of ours gives a folder
with everything needed to report it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from compiler import __version__
from compiler.commands import bench, catalog, check, compile, console, doctor, inspect, opt, run, tune, verify
from compiler.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, CompileError, CompileWarning, UsageError, one_line

app = typer.Typer(
    name="sesame",
    help="Ahead-of-time compiler for ONNX models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("compile")(compile.compile_model)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("verify")(verify.verify)
app.command("inspect")(inspect.inspect)
app.command("opt")(opt.opt)
app.command("bench")(bench.bench)
app.command("tune")(tune.tune)
app.command("ops")(catalog.ops)
app.command("passes")(catalog.passes)
app.command("targets")(catalog.targets)
app.command("doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"sesame {__version__}\n")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    format_: console.Format = None,
    quiet: console.Quiet = False,
    verbose: console.Verbose = 0,
    color: console.Color = None,
    progress: console.Progress = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    settings: console.Settings = ctx.obj
    settings.console = console.adjusted(settings.console, format_, quiet, verbose, color, progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = console.Settings(console.Console())
    try:
        with warnings.catch_warnings():
            _show_warnings(settings)
            return _dispatch(given, settings)
    except CompileError as error:
        settings.console.error(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        settings.console.log("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail again
        return EXIT_OK
    except Exception as error:
        from compiler.commands.crash import report

        report(settings.console, given, error)
        return EXIT_INTERNAL


def _show_warnings(settings: console.Settings) -> None:
    """Lets warnings of ours be lines on stderr, and leaves others as they are."""
    otherwise = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, CompileWarning):
            settings.console.log(f"{settings.console.paint('warning', 'warning')}: {one_line(str(message))}")
        else:
            otherwise(message, category, *place)

    warnings.simplefilter("always", CompileWarning)
    warnings.showwarning = show


def _dispatch(given: list[str], settings: console.Settings) -> int:
    """Runs the command, with typer's own usage errors as ours."""
    try:
        status: Any = app(args=given, prog_name="sesame", standalone_mode=False, obj=settings)
    except typer.Exit as stop:
        return stop.exit_code
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(error.format_message() + "\n")
            return UsageError.exit_code
        raise UsageError(
            "E0200", _sentence(error.format_message()), help="`sesame --help` lists commands; each has --help"
        ) from error
    return status if isinstance(status, int) else EXIT_OK


_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""The base of typer's usage errors, which lies in one package or another by its version."""


def _sentence(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
