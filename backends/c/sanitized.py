"""Running an emitted folder under sanitizers: its test bench, built with them, as a process of its own.

The address sanitizer must be first in a process, so code built with it cannot be loaded into this one. Each run writes
the inputs to files and reads the outputs back: slow, and for checking only.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.c.build import library_key
from backends.c.ports import Ports, failed_run
from backends.c.toolchain import build_executable, find_compiler
from compiler.errors import EXIT_INTERNAL, CompileError

if TYPE_CHECKING:
    from backends.c import CBackend

_SECONDS = 600
_REPORT_LINES = 12
_BENCH_FAILED, _REPORTED = 64, 99
"""The exit statuses of a bench that could not run its model, and of one whose sanitizers had something to report; below
them are those of the model."""


class SanitizedModel:
    """A compiled model whose every run is watched by the sanitizers that `options.sanitize` names.

    `launcher` is what runs the program where this machine does not: an emulator of another one, with its arguments.
    """

    launcher: tuple[str, ...] = ()

    def __init__(self, folder: Path, manifest: Mapping[str, Any], options: CBackend) -> None:
        """Builds the program where it is missing. Raises ToolError."""
        self.folder, self.manifest, self.threads = folder, manifest, options.threads
        self.ports = Ports(manifest)
        self.program = self._build(options)

    def _build(self, options: CBackend) -> Path:
        compiler = find_compiler(options.cc or None)
        program = self.folder / f"bench-{library_key(self.folder, self.manifest, options, compiler)}"
        if not program.exists():
            sources = sorted(self.folder / name for name in self.manifest["files"] if name.endswith(".c"))
            build_executable(
                sources, program, compiler, include=[self.folder], opt=options.opt, march=options.march or None,
                sanitize=tuple(s for s in options.sanitize.split("+") if s), flags=("-fno-sanitize-recover=all",),
                fp_contract="off" if options.deterministic else "fast",
            )  # fmt: skip
        return program

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises UsageError for inputs that do not fit, CompileError with what a sanitizer reports."""
        arrays = self.ports.arrays(feeds)
        sizes = self.ports.sizes(arrays)
        with tempfile.TemporaryDirectory(prefix="sesame-run-") as scratch:
            folder = Path(scratch)
            self._execute(arrays, sizes, folder)
            told = {name: int(np.fromfile(folder / f"told{i}", np.int64)[0]) for i, name in enumerate(self.ports.told)}
            dtypes = [port.type.dtype.numpy for port in self.ports.outputs]
            memories = [np.fromfile(folder / f"out{i}", dtype) for i, dtype in enumerate(dtypes)]
            return self.ports.results(memories, {**sizes, **told})

    def _execute(self, arrays: list[np.ndarray], sizes: Mapping[str, int], scratch: Path) -> None:
        command = [*self.launcher, str(self.program), "--threads", str(self.threads)]
        if self.manifest["weights"]["file"] is not None:
            command += ["--weights", str(self.folder / self.manifest["weights"]["file"])]
        command += [f"{dim['name']}={sizes[dim['name']]}" for dim in self.manifest["dims"]]
        for i, (port, array) in enumerate(zip(self.ports.inputs, arrays)):
            (scratch / f"in{i}").write_bytes(array.tobytes())
            command.append(f"{port.name}={scratch / f'in{i}'}")
        command += [f"{port.name}={scratch / f'out{i}'}" for i, port in enumerate(self.ports.outputs)]
        command += [f"{name}={scratch / f'told{i}'}" for i, name in enumerate(self.ports.told)]
        said = f"exitcode={_REPORTED}"
        environment = {
            **os.environ,
            "ASAN_OPTIONS": said,
            "LSAN_OPTIONS": said,
            "UBSAN_OPTIONS": f"{said}:print_stacktrace=1",
        }
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise CompileError("E0503", f"the model ran longer than {_SECONDS} s", exit_code=EXIT_INTERNAL) from error
        if 0 < done.returncode < _BENCH_FAILED:
            raise failed_run(done.returncode, done.stderr.strip().removeprefix("run: "))
        if done.returncode != 0:
            report = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_REPORT_LINES])
            raise CompileError("E0503", f"the model failed under sanitizers, status {done.returncode}: {report}",
                               file=str(self.program), exit_code=EXIT_INTERNAL)  # fmt: skip


__all__ = ["SanitizedModel"]
