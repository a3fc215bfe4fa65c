"""Reading ONNX models: the protobuf without its weights, and the weights as blobs.

Everything in a model file is hostile until checked here: lengths, dims, names, nesting, where external data lies. No
weight is read while a model is loaded, and no code in a model is ever run. What operators mean is not known here.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError

from compiler.errors import EXIT_LIMIT, ModelError
from compiler.onnx.external import DataFile, data_range, find_data_file
from compiler.onnx.wire import strip_weights
from ir.blob import ArrayBlob, Blob, DeferredBlob, FileBlob, FileIdentity, bytes_in_file, decode
from ir.types import DTYPES, DType

_LFS_POINTER = b"version https://git-lfs"

_TYPE_NAMES = {
    "FLOAT": "f32", "DOUBLE": "f64", "FLOAT16": "f16", "BFLOAT16": "bf16", "BOOL": "bool", "STRING": "string",
    "INT8": "i8", "INT16": "i16", "INT32": "i32", "INT64": "i64", "INT4": "i4", "INT2": "i2",
    "UINT8": "u8", "UINT16": "u16", "UINT32": "u32", "UINT64": "u64", "UINT4": "u4", "UINT2": "u2",
    "COMPLEX64": "c64", "COMPLEX128": "c128", "FLOAT4E2M1": "f4e2m1", "FLOAT8E8M0": "f8e8m0",
    "FLOAT6E2M3": "f6e2m3", "FLOAT6E3M2": "f6e3m2",
    "FLOAT8E4M3FN": "f8e4m3fn", "FLOAT8E4M3FNUZ": "f8e4m3fnuz", "FLOAT8E5M2": "f8e5m2", "FLOAT8E5M2FNUZ": "f8e5m2fnuz",
}  # fmt: skip
ELEMENT_TYPES: dict[int, DType] = {
    onnx.TensorProto.DataType.Value(theirs): DTYPES[ours] for theirs, ours in _TYPE_NAMES.items()
}

# Where a TensorProto holds values of a type that are not raw: the field, and the NumPy type of its items.
_TYPED_FIELDS: dict[str, tuple[str, type[np.generic]]] = {
    "f32": ("float_data", np.float32), "c64": ("float_data", np.float32),
    "f64": ("double_data", np.float64), "c128": ("double_data", np.float64),
    "i64": ("int64_data", np.int64), "u32": ("uint64_data", np.uint64), "u64": ("uint64_data", np.uint64),
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a model may hold. `proto_bytes` is the model without its raw weights; `depth` counts nested subgraphs."""

    proto_bytes: int = 2**31 - 1
    rank: int = 32
    dim: int = 2**31
    elements: int = 2**40
    depth: int = 32
    nodes: int = 1_000_000


class LoadedModel:
    """A model whose large weights are still in its files.

    `proto` has a placeholder as `raw_data` of every large tensor, so tensors are read with `blob`, never with the
    functions of onnx. `path` is None for a model that was made in memory.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        path: Path | None = None,
        base_dir: Path | None = None,
        limits: Limits | None = None,
        identity: FileIdentity | None = None,
        ranges: dict[bytes, tuple[int, int]] | None = None,
    ) -> None:
        self.proto = proto
        self.path = path
        self.base_dir = base_dir
        self.limits = limits or Limits()
        self._identity = identity
        self._ranges = ranges or {}
        self._data_files: dict[str, DataFile] = {}
        self._sha256: str | None = None

    def blob(self, tensor: onnx.TensorProto) -> Blob:
        """The value of a TensorProto of this model. Reads no weight, apart from those inside `proto`.

        Raises ModelError: E0302 for a malformed tensor, E0303 for its external data, E0304 over a limit.
        """
        with self._naming(tensor):
            return self._blob(tensor)

    def sparse_blob(self, sparse: onnx.SparseTensorProto) -> Blob:
        """The value of a SparseTensorProto of this model, dense. Reads nothing before the array is asked for.

        Raises ModelError as `blob` does; indices outside the shape raise it (E0302) when the array is made.
        """
        values, indices = self.blob(sparse.values), self.blob(sparse.indices)
        with self._naming(sparse.values):
            shape = self._shape(sparse)
            count = values.elements
            if indices.dtype is not DTYPES["i64"] or indices.shape not in ((count,), (count, len(shape))):
                raise ModelError("E0302", f"its indices are {indices.dtype}{list(indices.shape)} for {count} values")

        def dense(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
            with self._naming(sparse.values):
                return _dense(values, indices, shape)

        return DeferredBlob("dense", dense, (values, indices), values.dtype, shape)

    def sha256(self) -> str:
        """Hex digest of the model file (not of external data), or of the serialised proto of a model made in memory."""
        if self._sha256 is None:
            self._sha256 = self._digest()
        return self._sha256

    def data_files(self) -> tuple[Path, ...]:
        """The files of external data that the blobs asked for so far lie in, sorted."""
        return tuple(sorted(Path(file.path) for file in self._data_files.values()))

    @property
    def _file(self) -> str | None:
        return None if self.path is None else str(self.path)

    @contextmanager
    def _naming(self, tensor: onnx.TensorProto) -> Iterator[None]:
        """Errors raised within say that they are about `tensor`."""
        try:
            yield
        except ModelError as error:
            name = tensor.name if isinstance(tensor.name, str) and tensor.name else "without a name"
            error.message = f"tensor {name}: {error.message}"
            error.args = (error.message,)
            error.file = self._file
            raise

    def _digest(self) -> str:
        if self.path is None:
            return hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()
        try:
            with open(self.path, "rb") as file:
                changed = FileIdentity.of(os.fstat(file.fileno())) != self._identity
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if changed:
            raise ModelError("E0301", "the file has changed since it was loaded", file=self._file)
        return digest

    def _blob(self, tensor: onnx.TensorProto) -> Blob:
        dtype = element_type(tensor.data_type)
        shape = self._shape(tensor)
        if tensor.HasField("segment"):
            raise ModelError("E0302", "segmented tensors are not part of any ONNX model")
        raw = tensor.raw_data
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if raw:
                raise ModelError("E0302", "it has raw data and external data at once")
            return self._external(tensor, dtype, shape)
        if dtype is DTYPES["string"]:
            return _strings(tensor, shape)
        expected = bytes_in_file(dtype, shape)
        if raw in self._ranges and self.path is not None:
            offset, length = self._ranges[raw]
            _check_length(length, expected, dtype, shape)
            return FileBlob(self.path, offset, length, dtype, shape, identity=self._identity)
        if not raw:
            return _typed_values(tensor, dtype, shape)
        _check_length(len(raw), expected, dtype, shape)
        return ArrayBlob(decode(np.frombuffer(raw, np.uint8), dtype, shape))

    def _shape(self, tensor: onnx.TensorProto | onnx.SparseTensorProto) -> tuple[int, ...]:
        shape = tuple(tensor.dims)
        if len(shape) > self.limits.rank:
            raise _over_limit("rank", len(shape), self.limits.rank)
        for size in shape:
            if size < 0:
                raise ModelError("E0302", f"its shape {list(shape)} has a negative size")
            if size > self.limits.dim:
                raise _over_limit("a size", size, self.limits.dim)
        elements = math.prod(max(size, 1) for size in shape)  # a zero must not hide what NumPy would overflow on
        if elements > self.limits.elements:
            raise _over_limit("number of elements", elements, self.limits.elements)
        return shape

    def _external(self, tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...]) -> Blob:
        if dtype is DTYPES["string"]:
            raise ModelError("E0303", "strings cannot be external data")
        if self.base_dir is None:
            raise ModelError(
                "E0303", "its data is external, and the model has no directory", help="give the directory as base_dir"
            )
        where = data_range(tensor)
        expected = bytes_in_file(dtype, shape)
        if where.length is not None:
            _check_length(where.length, expected, dtype, shape)
        file = self._data_files.get(where.location) or find_data_file(str(self.base_dir), where.location)
        self._data_files[where.location] = file
        if where.offset + expected > file.identity.size:
            raise ModelError(
                "E0303",
                f"its data ends at byte {where.offset + expected} of external data {where.location!r}, "
                f"which has {file.identity.size}",
                help="the data file may be cut off, or belong to another model",
            )
        return FileBlob(file.path, where.offset, expected, dtype, shape, identity=file.identity)


def read_model(path: str | os.PathLike[str], limits: Limits | None = None) -> LoadedModel:
    """Load the .onnx file at `path`, leaving its weights where they are.

    Raises ModelError: E0301 where it cannot be read, E0302 where it is not a well-formed model, E0304 over a limit.
    """
    path = Path(path)
    limits = limits or Limits()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelError("E0301", "not a regular file")
        with open(path, "rb") as file:
            identity = FileIdentity.of(os.fstat(file.fileno()))
            _refuse_what_is_no_model(file, identity.size)
            stripped = strip_weights(file, identity.size, max_bytes=limits.proto_bytes)
        proto = _parse(stripped.proto)
        _check_model(proto, limits)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ModelError as error:
        error.file = str(path)
        raise
    return LoadedModel(proto, path=path, base_dir=path.parent, limits=limits, identity=identity, ranges=stripped.ranges)


def read_model_proto(
    proto: onnx.ModelProto, base_dir: str | os.PathLike[str] | None = None, limits: Limits | None = None
) -> LoadedModel:
    """A model made in memory; `base_dir` is where its external data lies. Raises ModelError E0302, E0304."""
    limits = limits or Limits()
    try:
        size = proto.ByteSize()
    except EncodeError as error:
        raise ModelError("E0304", f"the model cannot be measured: {error}", exit_code=EXIT_LIMIT) from error
    if size > limits.proto_bytes:
        raise _over_limit("size in bytes", size, limits.proto_bytes)
    _check_model(proto, limits)
    return LoadedModel(proto, base_dir=None if base_dir is None else Path(base_dir), limits=limits)


def element_type(code: int) -> DType:
    """The DType of a TensorProto.DataType number. Raises ModelError E0302 for one that is unknown or undefined."""
    if code in ELEMENT_TYPES:
        return ELEMENT_TYPES[code]
    known = {number: name for name, number in onnx.TensorProto.DataType.items()}
    raise ModelError("E0302", f"element type {known.get(code, code)} is not one that tensors can have here")


def _refuse_what_is_no_model(file: BinaryIO, size: int) -> None:
    if size == 0:
        raise ModelError("E0302", "the file is empty")
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
        raise ModelError("E0302", "the file is a Git LFS pointer, not the model", help="fetch it with `git lfs pull`")


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError("E0302", f"the file is not an ONNX model: {error}") from error


def _check_model(proto: onnx.ModelProto, limits: Limits) -> None:
    """Guard the walks that follow: there is a graph, nodes are few enough and not nested too deep, names are text."""
    if not proto.HasField("graph"):
        raise ModelError("E0302", "the file holds no graph: it is not an ONNX model")
    _refuse_bytes(entry.domain for entry in proto.opset_import)
    count = 0
    pending: list[tuple[onnx.GraphProto | onnx.FunctionProto, int]] = [(proto.graph, 0)]
    pending.extend((function, 0) for function in proto.functions)
    while pending:
        graph, depth = pending.pop()
        if depth > limits.depth:
            raise _over_limit("nesting of subgraphs", depth, limits.depth)
        count += len(graph.node)
        if count > limits.nodes:
            raise _over_limit("number of nodes", count, limits.nodes)
        _refuse_bytes(_names(graph))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append((attribute.g, depth + 1))
                pending.extend((inner, depth + 1) for inner in attribute.graphs)


def _refuse_bytes(names: Iterable[str | bytes]) -> None:
    for name in names:
        if not isinstance(name, str):  # protobuf hands invalid UTF-8 through as bytes
            raise ModelError("E0302", f"the name {name!r} is not UTF-8 text")


def _names(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[str | bytes]:
    """Every name that the importer reads of a graph or function, its subgraphs apart."""
    yield graph.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
    values = [*graph.value_info]
    if isinstance(graph, onnx.FunctionProto):
        yield from (graph.domain, graph.overload, *graph.input, *graph.output, *graph.attribute)
        yield from (entry.domain for entry in graph.opset_import)
        yield from (attribute.name for attribute in graph.attribute_proto)
    else:
        yield from (tensor.name for tensor in graph.initializer)
        yield from (tensor.values.name for tensor in graph.sparse_initializer)
        values += [*graph.input, *graph.output]
    for value in values:
        yield value.name
        yield from _dim_names(value.type)


def _dim_names(type: onnx.TypeProto) -> Iterator[str | bytes]:
    kind = type.WhichOneof("value")
    while kind in ("sequence_type", "optional_type"):
        type = getattr(type, kind).elem_type
        kind = type.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        yield from (dim.dim_param for dim in getattr(type, kind).shape.dim)


def _strings(tensor: onnx.TensorProto, shape: tuple[int, ...]) -> Blob:
    if tensor.raw_data:
        raise ModelError("E0302", "strings cannot be raw data")
    count = math.prod(shape)
    if len(tensor.string_data) != count:
        raise ModelError("E0302", f"it has {len(tensor.string_data)} strings where its shape {list(shape)} has {count}")
    array = np.empty(count, object)
    array[:] = [text.decode("utf-8", "surrogateescape") for text in tensor.string_data]
    return ArrayBlob(array.reshape(shape))


def _typed_values(tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...]) -> Blob:
    """Values from one of the typed fields. Small types are widened to int32 there; sub-byte ones are packed bytes."""
    name, item = _TYPED_FIELDS.get(dtype.name, ("int32_data", np.int32))
    values = getattr(tensor, name)
    stored_bytes = math.prod(shape) if dtype.bits == 6 else bytes_in_file(dtype, shape)
    word = np.dtype(item if issubclass(item, np.floating) else f"u{dtype.itemsize}")
    if len(values) * word.itemsize != stored_bytes:
        raise ModelError(
            "E0302",
            f"it has {len(values)} values in {name}, and no raw data, where {dtype}{list(shape)} takes "
            f"{stored_bytes // word.itemsize}",
        )
    array = np.array(values, item)
    if dtype.kind == "bool":
        return ArrayBlob((array != 0).reshape(shape))
    if dtype.bits == 6:  # the one type of less than a byte that is not packed here
        return ArrayBlob(array.astype(np.uint8).view(dtype.numpy).reshape(shape))
    return ArrayBlob(decode(array.astype(word).view(np.uint8), dtype, shape))


def _dense(values: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`values` put where `indices` say: positions in the flat tensor, or a row of coordinates for each value."""
    bounds = np.array(shape, np.int64) if indices.ndim == 2 else math.prod(shape)
    if ((indices < 0) | (indices >= bounds)).any():
        raise ModelError("E0302", f"an index lies outside its shape {list(shape)}")
    positions = indices
    if indices.ndim == 2:
        positions = indices @ np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
    dense = np.full(math.prod(shape), "" if values.dtype == object else 0, values.dtype)
    dense[positions] = values.reshape(-1)
    return dense.reshape(shape)


def _check_length(length: int, expected: int, dtype: DType, shape: tuple[int, ...]) -> None:
    if length != expected:
        raise ModelError("E0302", f"it has {length} bytes of data where {dtype}{list(shape)} takes {expected}")


def _over_limit(what: str, value: int, limit: int) -> ModelError:
    return ModelError("E0304", f"{what}: {value} is over the limit of {limit}", exit_code=EXIT_LIMIT)


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError("E0301", f"cannot be read: {error.strerror or error}", file=str(path))
