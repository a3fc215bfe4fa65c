"""Weights of a program: where each lies in the weights image, and the image as a file or as C.

Blobs are read one at a time while writing. Blobs of equal key are stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from ir.blob import Blob, write_blob
from ir.program import Program

ALIGNMENT = 64


@dataclass(frozen=True)
class Image:
    """The weights image: offset in bytes of each weight buffer by name, the blobs in order, and the total size."""

    offsets: dict[str, int]
    blobs: tuple[tuple[int, Blob], ...]
    bytes: int


def layout(program: Program) -> Image:
    """Places the weights of `program` one after another, each at a multiple of 64 bytes."""
    offsets: dict[str, int] = {}
    by_key: dict[str, int] = {}
    blobs: list[tuple[int, Blob]] = []
    end = 0
    for buffer in program.weights:
        assert buffer.blob is not None, f"weight {buffer.name} has no blob"
        key = buffer.blob.key
        if key not in by_key:
            by_key[key] = end
            blobs.append((end, buffer.blob))
            end += -(-buffer.blob.nbytes // ALIGNMENT) * ALIGNMENT
        offsets[buffer.name] = by_key[key]
    return Image(offsets, tuple(blobs), end)


class _Sink:
    """Passes bytes on to a function, counting them; `worker` hashes one piece while the next is made and written."""

    def __init__(self, put: Callable[[bytes | memoryview], object], worker: ThreadPoolExecutor) -> None:
        self._put = put
        self._worker = worker
        self._hashed: Future[None] | None = None
        self._digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes | memoryview) -> int:
        self._wait()
        self._hashed = self._worker.submit(self._digest.update, data)
        self._put(data)
        self.count += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """SHA-256 of all that was written."""
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._hashed is not None:
            self._hashed.result()


def _stream(image: Image, put: Callable[[bytes | memoryview], object]) -> str:
    """Passes the image on piece by piece; returns its SHA-256."""
    with ThreadPoolExecutor(1) as worker:
        sink = _Sink(put, worker)
        for offset, blob in image.blobs:
            assert offset == sink.count
            written = write_blob(blob, cast(BinaryIO, sink))
            assert written == blob.nbytes, f"{blob!r} wrote {written} bytes"
            sink.write(b"\0" * (-written % ALIGNMENT))
        return sink.hexdigest()


def write_file(image: Image, path: Path) -> str:
    """Writes the image to `path`; returns its SHA-256."""
    with open(path, "wb") as file:
        return _stream(image, file.write)


def write_source(image: Image, path: Path, symbol: str) -> str:
    """Writes the image as a C array `symbol` of little-endian words; returns the SHA-256 of the bytes."""
    pending = BytesIO()
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write('#include "model.h"\n\n')
        file.write("/* Little-endian words: the bytes of the weights in order. */\n")
        file.write(f"_Alignas({ALIGNMENT}) const uint64_t {symbol}[{max(1, image.bytes // 8)}] = {{\n")

        def put(data: bytes | memoryview) -> None:
            pending.write(data)
            whole = pending.tell() // 64 * 64
            view = pending.getvalue()
            for start in range(0, whole, 64):
                words = (view[i : i + 8] for i in range(start, start + 64, 8))
                file.write(",".join(f"0x{int.from_bytes(word, 'little'):x}" for word in words) + ",\n")
            pending.seek(0)
            pending.truncate()
            pending.write(view[whole:])

        digest = _stream(image, put)
        file.write("0\n};\n" if not image.bytes else "};\n")
    return digest
