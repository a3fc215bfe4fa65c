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
from backends.c.toolchain import build_executable, find_compiler
from compiler.errors import EXIT_INTERNAL, CompileError, UsageError
from ir.bind import bind_sizes, check_assumptions
from ir.blob import stored
from ir.dims import evaluate, parse_dim
from ir.types import DTYPES, TensorType

if TYPE_CHECKING:
    from backends.c import CBackend

_SECONDS = 600
_REPORT_LINES = 12


class SanitizedModel:
    """A compiled model whose every run is watched by the sanitizers that `options.sanitize` names."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], options: CBackend) -> None:
        """Builds the program where it is missing. Raises ToolError."""
        self.folder, self.manifest, self.threads = folder, manifest, options.threads
        self.inputs = [_port(port) for port in manifest["inputs"]]
        self.outputs = [_port(port) for port in manifest["outputs"]]
        self.program = self._build(options)

    def _build(self, options: CBackend) -> Path:
        compiler = find_compiler(options.cc or None)
        program = self.folder / f"bench-{library_key(self.folder, self.manifest, options, compiler)}"
        if not program.exists():
            sources = sorted(self.folder / name for name in self.manifest["files"] if name.endswith(".c"))
            build_executable(
                sources, program, compiler, include=[self.folder], opt=options.opt, march=options.march or None,
                sanitize=tuple(s for s in options.sanitize.split("+") if s), flags=("-fno-sanitize-recover=all",),
            )  # fmt: skip
        return program

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises UsageError for inputs that do not fit, CompileError with what a sanitizer reports."""
        arrays = [self._input(name, type_, feeds) for name, type_ in self.inputs]
        try:
            sizes = bind_sizes([t for _, t in self.inputs], arrays, [n for n, _ in self.inputs])
            bounds = {dim["name"]: (int(dim["min"]), dim["max"]) for dim in self.manifest["dims"]}
            equal = [(parse_dim(a), parse_dim(b)) for a, b in self.manifest.get("equal_dims", [])]
            check_assumptions(bounds, equal, sizes)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        with tempfile.TemporaryDirectory(prefix="sesame-run-") as scratch:
            self._execute(arrays, sizes, Path(scratch))
            return {
                name: self._output(Path(scratch) / f"out{i}", type_, sizes)
                for i, (name, type_) in enumerate(self.outputs)
            }

    def _input(self, name: str, type_: TensorType, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        if name not in feeds:
            raise UsageError("E0208", f"input '{name}' is missing", help=f"it is {type_}")
        array = np.asarray(feeds[name])
        if array.dtype != type_.dtype.numpy or array.ndim != type_.rank:
            raise UsageError("E0209", f"input '{name}' is {array.dtype}{list(array.shape)}; the model takes {type_}")
        return array

    def _execute(self, arrays: list[np.ndarray], sizes: Mapping[str, int], scratch: Path) -> None:
        command = [str(self.program), "--threads", str(self.threads)]
        if self.manifest["weights"]["file"] is not None:
            command += ["--weights", str(self.folder / self.manifest["weights"]["file"])]
        command += [f"{dim['name']}={sizes[dim['name']]}" for dim in self.manifest["dims"]]
        for i, ((name, _), array) in enumerate(zip(self.inputs, arrays)):
            (scratch / f"in{i}").write_bytes(stored(np.ascontiguousarray(array).reshape(array.shape)).tobytes())
            command.append(f"{name}={scratch / f'in{i}'}")
        command += [f"{name}={scratch / f'out{i}'}" for i, (name, _) in enumerate(self.outputs)]
        environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
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
        if done.returncode != 0:
            report = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_REPORT_LINES])
            raise CompileError("E0503", f"the model failed under sanitizers, status {done.returncode}: {report}",
                               file=str(self.program), exit_code=EXIT_INTERNAL)  # fmt: skip

    def _output(self, path: Path, type_: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
        return np.fromfile(path, dtype=type_.dtype.numpy).reshape([evaluate(size, sizes) for size in type_.shape])


def _port(port: Mapping[str, Any]) -> tuple[str, TensorType]:
    return port["name"], TensorType(DTYPES[port["dtype"]], tuple(parse_dim(str(size)) for size in port["shape"]))


__all__ = ["SanitizedModel"]
