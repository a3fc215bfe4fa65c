"""Running an emitted folder in this process: builds the shared library where it is missing, then calls it by ctypes.

Needs the manifest, NumPy and symbolic sizes; none of the compiler's graph code. Arrays are passed without a copy where
they are C-contiguous and of the right type.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.c.build import build_library
from backends.c.calls import PreparedCall
from backends.c.ports import Ports, failed_run
from compiler.errors import ModelError, ToolError
from ir.dims import evaluate, parse_dim

_ALIGNMENT = 64
_POOL_ERRORS = "the thread pool could not start"
_SHAPES_KEPT = 256
"""How many combinations of input shapes a model remembers: enough for the lengths of most sequences."""


class CModel:
    """A compiled model in memory. `run` may be called from one thread at a time; make another CModel for another.

    Where it was compiled with `profile`, `steps` are its calls of kernels, and each run adds to `profile`,
    i64[steps,2], the nanoseconds that each took and how often it ran.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], options: Any) -> None:
        self.folder = folder
        self.manifest = manifest
        self.ports = Ports(manifest)
        self._library = _opened(build_library(folder, manifest, options))
        prefix = manifest["prefix"]
        self._call = getattr(self._library, f"{prefix}_call")
        self._call.restype = ctypes.c_int  # it gets ctypes values only, which need no argtypes: converting takes longer
        self._arena_bytes = getattr(self._library, f"{prefix}_call_arena_bytes")
        self._arena_bytes.restype = ctypes.c_int64
        self._strerror = getattr(self._library, f"{prefix}_strerror")
        self._strerror.restype = ctypes.c_char_p
        self._weights = _map_weights(folder, manifest)
        self._weights_at = ctypes.c_void_p(self._weights.ctypes.data)
        self._arena_at, self._room = ctypes.c_void_p(), -1
        self._calls: dict[tuple[tuple[int, ...], ...], PreparedCall] = {}
        self._options = options
        self.steps: list[Mapping[str, Any]] = list(manifest.get("steps", ()))
        self.profile = np.zeros((len(self.steps), 2), np.int64)
        self._more = (ctypes.c_void_p(self.profile.ctypes.data),) if "steps" in manifest else ()
        self._pool_storage, self._pool = _start_pool(self._library, int(getattr(options, "threads", 1)))

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs by name. Raises UsageError for inputs that do not fit, CompileError for a failing run.

        Those named in `outputs` are written into the arrays there: C-contiguous, of the type and the shape of the
        output, and apart from all others.
        """
        arrays = self.ports.as_they_are(feeds)
        call = None if arrays is None else self._calls.get(tuple([array.shape for array in arrays]))
        if arrays is None or call is None:
            arrays = self.ports.arrays(feeds)
            call = self._prepared(arrays)
        results = call.memories() if outputs is None else call.given(outputs, arrays)
        call.point(arrays, results)
        if call.needed > self._room:
            self._arena_at, self._room = ctypes.c_void_p(self._arena_of(call.needed)), call.needed
        status = self._call(
            call.pointers, call.dims, self._weights_at, self._arena_at, call.arena_bytes, self._pool, *self._more
        )
        if status != 0:
            raise failed_run(status, self._strerror(status).decode())
        return call.results(results)

    def _prepared(self, arrays: Sequence[np.ndarray]) -> PreparedCall:
        """What a call with inputs of these shapes needs, kept for the next one."""
        key = tuple(array.shape for array in arrays)
        if key not in self._calls:
            if len(self._calls) >= _SHAPES_KEPT:
                self._calls.clear()
            self._calls[key] = PreparedCall(self.ports, self.ports.sizes(arrays), self._arena_bytes)
        return self._calls[key]

    def sizes(self, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
        """The sizes of symbolic dims with these inputs. Raises UsageError for inputs that do not fit."""
        return self.ports.sizes(self.ports.arrays(feeds))

    def arena_bytes(self, feeds: Mapping[str, np.ndarray]) -> int:
        """The bytes of working memory that a run with these inputs takes. Raises UsageError, CompileError."""
        return self._prepared(self.ports.arrays(feeds)).needed

    def costs(self, feeds: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """What each of `steps` costs with these inputs: "operations" and "bytes", None where only a run tells."""
        sizes = self.sizes(feeds)
        amounts = ("operations", "bytes")
        return [{**step, **{what: _known(step[what], sizes) for what in amounts}} for step in self.steps]

    def ceilings(self) -> dict[str, float]:
        """What this machine can do with as many threads: "gflops" of f32, and "gbytes" read in a second from memory as
        large as all that the model has touched. Raises ToolError."""
        from backends.c.ceilings import measure_ceilings

        touched = self._weights.nbytes + self._room
        return measure_ceilings(self._options, int(self.manifest["lanes"]), self._options.threads, touched)

    def _arena_of(self, needed: int) -> int:
        """The address of an aligned arena of `needed` bytes; it is kept from call to call while it is large enough."""
        self._arena = np.empty(needed + _ALIGNMENT, np.uint8)
        return -(-self._arena.ctypes.data // _ALIGNMENT) * _ALIGNMENT

    def close(self) -> None:
        """Stops the model's threads."""
        if self._pool is not None:
            self._library.sesame_pool_stop(self._pool)
            self._pool = None

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self.close()


def _opened(library: Path) -> ctypes.CDLL:
    """A shared library in this process. Raises ToolError where it is for another machine."""
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise ToolError(
            "E0607",
            f"the library cannot be loaded here: {error}",
            help="code for another machine is built with --emit exe, and runs there",
        ) from error


def _known(text: str, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate(parse_dim(text), sizes)
    except (KeyError, ValueError):
        return None


def _map_weights(folder: Path, manifest: Mapping[str, Any]) -> np.ndarray:
    """The weights file, mapped read-only. Raises ModelError where it is missing or has another size."""
    weights = manifest["weights"]
    if weights.get("file") is None or not weights["bytes"]:
        return np.zeros(_ALIGNMENT, np.uint8)
    path = folder / weights["file"]
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelError("E0311", f"the weights cannot be read: {error}", file=str(path)) from error
    if len(mapped) != weights["bytes"]:
        message = f"the weights have {len(mapped)} bytes, the manifest says {weights['bytes']}"
        raise ModelError("E0311", message, file=str(path))
    return np.frombuffer(mapped, np.uint8)


def _start_pool(library: ctypes.CDLL, threads: int) -> tuple[np.ndarray | None, ctypes.c_void_p | None]:
    if threads <= 1:
        return None, None
    library.sesame_pool_bytes.restype = ctypes.c_size_t
    library.sesame_pool_bytes.argtypes = [ctypes.c_int]
    pool_out = ctypes.POINTER(ctypes.c_void_p)
    library.sesame_pool_start.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, pool_out]
    library.sesame_pool_stop.argtypes = [ctypes.c_void_p]
    needed = library.sesame_pool_bytes(threads)
    storage = np.zeros(needed + _ALIGNMENT, np.uint8)
    address = (storage.ctypes.data + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    pool = ctypes.c_void_p()
    if library.sesame_pool_start(address, needed, threads, ctypes.byref(pool)) != 0:
        raise ToolError("E0610", _POOL_ERRORS, help="run with fewer threads")
    return storage, pool


__all__ = ["CModel"]
