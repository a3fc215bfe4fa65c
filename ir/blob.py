"""Weights as blobs: constant tensors whose bytes are read, or computed, only when somebody asks for them.

A blob is an array in memory, a range of a file, a constant fill, or a deferred function of other blobs. It knows its
type and an identity (`key`) without touching its bytes, and it never caches an array it has made: who holds the array
holds the memory. A blob never writes to the file it comes from. Hosts are taken to be little-endian, as ONNX files are.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np

from ir.types import DType, bool_, dtype_of, string

CHUNK = 1 << 20  # bytes read or written at a time while streaming
_MAP_FROM = 1 << 16  # ranges below this are read, not mapped: a process may hold only so many mappings

Param: TypeAlias = "int | float | str | bytes | bool | DType | tuple[Param, ...] | None"


class Blob(ABC):
    """A constant tensor of `dtype` and `shape` that can be materialised. Immutable."""

    dtype: DType
    shape: tuple[int, ...]

    def __init__(self, dtype: DType, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = tuple(int(size) for size in shape)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory, and of the blob as `write_blob` writes it."""
        return self.elements * self.dtype.itemsize

    @abstractmethod
    def array(self) -> np.ndarray:
        """The tensor as a read-only array, made now. Raises OSError where its file is gone, shorter or changed."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Identity: blobs of equal key hold equal bytes. The same in every run, but it may name a file of this machine,
        so it belongs in comparisons and never in an artefact."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes that `write_blob` writes, in pieces of about 1 MiB. A piece may change when the second after it is
        asked for."""
        array = self.array()
        # `flat` copies one slice at a time, where reshape would copy a strided or broadcast array whole.
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        step = max(1, CHUNK // self.dtype.itemsize)
        for start in range(0, self.elements, step):
            yield stored(flat[start : start + step]).tobytes()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}[{','.join(map(str, self.shape))}])"


class ArrayBlob(Blob):
    """An array in memory. The array must not change afterwards; arrays of str or bytes become object arrays."""

    def __init__(self, array: np.ndarray | np.generic) -> None:
        array = np.asarray(array)
        super().__init__(dtype_of(array), array.shape)
        self._array = _read_only(array.astype(object) if self.dtype is string else array)
        self._key: str | None = None

    def array(self) -> np.ndarray:
        return self._array

    @property
    def key(self) -> str:
        if self._key is None:
            digest = hashlib.sha256()
            for piece in self._digestible():
                digest.update(piece)
            self._key = f"array:{self.dtype}:{self.shape}:{digest.hexdigest()}"
        return self._key

    def _digestible(self) -> Iterator[bytes | memoryview]:
        if self.dtype is not string:
            yield from self.chunks()
            return
        for item in self._array.flat:
            encoded = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogatepass")
            yield len(encoded).to_bytes(8, "little") + encoded


class FillBlob(Blob):
    """One value repeated over a shape; it occupies no memory, however large the shape."""

    def __init__(self, value: object, dtype: DType, shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape)
        self._value = np.empty((), dtype.numpy)
        self._value[()] = value

    def array(self) -> np.ndarray:
        """A broadcast view: every element is the same memory."""
        return np.broadcast_to(self._value, self.shape)

    @property
    def key(self) -> str:
        return f"fill:{self.shape}:{ArrayBlob(self._value).key}"

    def chunks(self) -> Iterator[bytes]:
        one = stored(self._value.reshape(1)).tobytes()
        step = max(1, CHUNK // len(one))
        for start in range(0, self.elements, step):
            yield one * min(step, self.elements - start)


class FileIdentity(NamedTuple):
    """What tells a file from another one later put in its place."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class FileBlob(Blob):
    """A range of a file in ONNX raw encoding: little-endian, C order, sub-byte elements packed low bits first.

    With `identity` given, reading fails (OSError) once another file stands at `path`, or the file was written to.
    Raises ValueError where `nbytes_in_file` is not what the type takes, TypeError for strings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int,
        nbytes_in_file: int,
        dtype: DType,
        shape: tuple[int, ...],
        *,
        identity: FileIdentity | None = None,
    ) -> None:
        super().__init__(dtype, shape)
        if nbytes_in_file != bytes_in_file(dtype, self.shape) or offset < 0:
            raise ValueError(f"{nbytes_in_file} bytes at {offset} cannot hold {dtype}{list(self.shape)}")
        self.path = os.path.abspath(path)
        self.offset = offset
        self.nbytes_in_file = nbytes_in_file
        self.identity = identity

    def array(self) -> np.ndarray:
        """The range, memory-mapped where it is large and needs no unpacking; possibly not aligned to its item size."""
        with self._open() as file:
            raw = self._map(file) if self.nbytes_in_file >= _MAP_FROM else self._read(file, self.nbytes_in_file)
        return _read_only(decode(np.frombuffer(raw, np.uint8)[-self.nbytes_in_file or None :], self.dtype, self.shape))

    @property
    def key(self) -> str:
        return f"file:{self.path}:{self.offset}:{self.nbytes_in_file}:{self.dtype}:{self.shape}"

    def chunks(self) -> Iterator[bytes]:
        # Read rather than mapped: pages of a mapping count towards resident memory until it is dropped.
        per_chunk = CHUNK * 8 // self.dtype.bits // 8 * 8  # so that every chunk starts with a whole byte
        with self._open() as file:
            for start in range(0, self.elements, per_chunk):
                part = (min(per_chunk, self.elements - start),)
                raw = np.frombuffer(self._read(file, bytes_in_file(self.dtype, part)), np.uint8)
                yield stored(decode(raw, self.dtype, part)).tobytes()

    def _open(self) -> BinaryIO:
        file = open(self.path, "rb")  # noqa: SIM115 - the caller closes it
        found = FileIdentity.of(os.fstat(file.fileno()))
        if found.size < self.offset + self.nbytes_in_file or (self.identity and found != self.identity):
            file.close()
            raise OSError(f"{self.path} has changed since its tensors were found in it")
        file.seek(self.offset)
        return file

    def _read(self, file: BinaryIO, count: int) -> bytes:
        raw = file.read(count)
        if len(raw) != count:
            raise OSError(f"{self.path} ends before the tensor at byte {self.offset}")
        return raw

    def _map(self, file: BinaryIO) -> mmap.mmap:
        """A mapping from the granule of the range to its end. It lives as long as an array on it."""
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        length = self.offset + self.nbytes_in_file - start
        return mmap.mmap(file.fileno(), length, offset=start, access=mmap.ACCESS_READ)


class DeferredBlob(Blob):
    """`function(*inputs)`, evaluated whenever the array is asked for.

    `label` names the function and `params` what it closes over: together with the inputs they are its identity, so two
    functions that differ must differ in label or params. `params` are plain values (TypeError otherwise). An array of
    another dtype or shape than declared raises ValueError naming the label.
    """

    def __init__(
        self,
        label: str,
        function: Callable[..., np.ndarray],
        inputs: tuple[Blob, ...],
        dtype: DType,
        shape: tuple[int, ...],
        params: tuple[Param, ...] = (),
    ) -> None:
        super().__init__(dtype, shape)
        self.label = label
        self.function = function
        self.inputs = tuple(inputs)
        self.params = tuple(params)
        self._own = f"{label}|{_param_text(self.params)}|{dtype}|{self.shape}"
        self._key: str | None = None

    def array(self) -> np.ndarray:
        """Evaluates what it rests on once each, without recursion, freeing intermediate arrays after their last use."""
        order = _dependencies_first(self, lambda blob: False)
        uses = Counter(id(source) for blob in order for source in blob.inputs)
        made: dict[int, np.ndarray] = {}
        for blob in order:
            made[id(blob)] = blob._evaluate([made[id(x)] if id(x) in made else x.array() for x in blob.inputs])
            for source in blob.inputs:
                uses[id(source)] -= 1
                if not uses[id(source)]:
                    made.pop(id(source), None)
        return made[id(self)]

    def _evaluate(self, arrays: list[np.ndarray]) -> np.ndarray:
        result = np.asarray(self.function(*arrays))
        if result.dtype != self.dtype.numpy or result.shape != self.shape:
            raise ValueError(
                f"{self.label}: computed {result.dtype}{list(result.shape)} for a blob declared "
                f"{self.dtype}{list(self.shape)}"
            )
        return _read_only(result)

    @property
    def key(self) -> str:
        for blob in _dependencies_first(self, lambda blob: blob._key is not None):
            text = "\n".join([blob._own, *(source.key for source in blob.inputs)])
            blob._key = f"deferred:{blob.label}:{hashlib.sha256(text.encode()).hexdigest()}"
        assert self._key is not None
        return self._key

    def __repr__(self) -> str:
        return f"DeferredBlob({self.label}: {self.dtype}[{','.join(map(str, self.shape))}])"


def _dependencies_first(root: DeferredBlob, skip: Callable[[DeferredBlob], bool]) -> list[DeferredBlob]:
    """`root` and the deferred blobs it rests on, each once, inputs before users; not those that `skip`, nor below."""
    order: list[DeferredBlob] = []
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        blob, inputs_done = stack.pop()
        if inputs_done:
            order.append(blob)
        elif id(blob) not in seen and not skip(blob):
            seen.add(id(blob))
            stack.append((blob, True))
            stack.extend((source, False) for source in reversed(blob.inputs) if isinstance(source, DeferredBlob))
    return order


def _param_text(param: object) -> str:
    """A text of a parameter that is the same in every run. Raises TypeError for what has none."""
    if isinstance(param, tuple):
        return "(" + ",".join(_param_text(item) for item in param) + ")"
    if param is None or isinstance(param, (bool, int, float, str, bytes, DType)):
        return f"{type(param).__name__} {param!r}"
    raise TypeError(f"a deferred blob cannot be identified by a parameter of type {type(param).__name__}")


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def bytes_in_file(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes in ONNX raw encoding, sub-byte elements packed. Raises TypeError for strings."""
    if dtype is string:
        raise TypeError("strings have no raw encoding")
    return (math.prod(shape) * dtype.bits + 7) // 8


def decode(raw: np.ndarray, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """Raw bytes (u8, one axis) in ONNX encoding as an array: a view, except for bool and sub-byte types."""
    if dtype is bool_:
        return (raw != 0).reshape(shape)
    if dtype.bits >= 8:
        return raw.view(dtype.numpy).reshape(shape)
    if dtype.bits == 6:  # four elements lie across three bytes
        bits = np.unpackbits(raw, bitorder="little")[: math.prod(shape) * 6].reshape(-1, 6)
        return np.packbits(bits, axis=1, bitorder="little").reshape(-1).view(dtype.numpy).reshape(shape)
    shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
    mask = np.uint8((1 << dtype.bits) - 1)
    elements = ((raw[:, None] >> shifts) & mask).reshape(-1)[: math.prod(shape)]
    return elements.view(dtype.numpy).reshape(shape)


def stored(array: np.ndarray) -> np.ndarray:
    """`array` as it stands in a weights file and in the memory of a compiled program.

    That is its own bytes, except that sub-byte integers are widened to a whole byte of the same value (i4 -1 is 0xff,
    where NumPy keeps 0x0f), so that a program reads them as int8 or uint8. Raises TypeError for strings.
    """
    dtype = dtype_of(array)
    if dtype is string:
        raise TypeError("a tensor of strings has no bytes to store")
    if dtype.bits >= 8:
        return array
    if dtype.is_integer:
        return array.astype(np.int8 if dtype.kind == "int" else np.uint8)
    return np.asarray(array.view(np.uint8) & np.uint8((1 << dtype.bits) - 1))


def write_blob(blob: Blob, file: BinaryIO) -> int:
    """Stream the blob's bytes (little-endian, C order, `stored` form) to `file`; returns how many, which is `nbytes`.

    Peak memory is that of one chunk for file ranges and fills, and that of the array for the others.
    """
    return sum(file.write(piece) for piece in blob.chunks())
