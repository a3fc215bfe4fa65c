"""A scan of an .onnx file that leaves its weights where they are.

It walks the protobuf wire format and hands back the model with the `raw_data` of every large tensor replaced by a
short placeholder, and the byte ranges the placeholders stand for. It reads headers only, through one small window, does
not recurse, and trusts no length. It does not interpret the model: that is for the protobuf parser, which sees exactly
the fields the file has (training information left out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import onnx

from compiler.errors import EXIT_LIMIT, ModelError

_PREFIX = b"sesame.raw_data@"  # no proper prefix of it is a suffix, so occurrences cannot overlap
_WINDOW = 1 << 13  # small, so that hopping from one large tensor to the next reads little
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MESSAGES = {
    onnx.ModelProto: ("graph", "functions"),
    onnx.FunctionProto: ("node", "attribute_proto"),
    onnx.GraphProto: ("node", "initializer", "sparse_initializer"),
    onnx.NodeProto: ("attribute",),
    onnx.AttributeProto: ("t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors"),
    onnx.SparseTensorProto: ("values", "indices"),
    onnx.TensorProto: (),
}
# Message name -> field number -> name of the message in that field: the only ways to a TensorProto.
_ROUTES: dict[str, dict[int, str]] = {
    message.DESCRIPTOR.name: {
        message.DESCRIPTOR.fields_by_name[name].number: message.DESCRIPTOR.fields_by_name[name].message_type.name
        for name in names
    }
    for message, names in _MESSAGES.items()
}
_RAW_DATA = ("TensorProto", onnx.TensorProto.RAW_DATA_FIELD_NUMBER)
_TRAINING_INFO = ("ModelProto", onnx.ModelProto.TRAINING_INFO_FIELD_NUMBER)


@dataclass(frozen=True)
class StrippedModel:
    """`proto` is a serialised ModelProto; `ranges` maps each placeholder in it to (offset, length) in the file."""

    proto: bytes
    ranges: dict[bytes, tuple[int, int]]


@dataclass(slots=True)
class _Message:
    """A message being scanned. `parts` is its new content up to file position `copied`, `size` the bytes in `parts`."""

    kind: str
    number: int
    header: int
    end: int
    copied: int
    parts: list[bytes | tuple[int, int]] = field(default_factory=list)
    size: int = 0

    def replace(self, start: int, end: int, parts: list[bytes | tuple[int, int]], size: int) -> None:
        """Put `parts` in place of the file's bytes start..end."""
        self.parts.append((self.copied, start))
        self.parts.extend(parts)
        self.size += start - self.copied + size
        self.copied = end


def strip_weights(
    file: BinaryIO, size: int, *, threshold: int = 1024, max_nesting: int = 100, max_bytes: int = 2**31 - 1
) -> StrippedModel:
    """Scan the model in `file`, which has `size` bytes, and take out every `raw_data` of more than `threshold` bytes.

    Raises ModelError: E0302 where the wire format is broken, E0304 where messages nest deeper than `max_nesting` (the
    protobuf parser's own limit) or where more than `max_bytes` remain.
    """
    if threshold < len(_PREFIX):
        raise ValueError("a threshold below the length of a placeholder would strip placeholders")
    source = _Source(file, size)
    ranges: dict[bytes, tuple[int, int]] = {}
    root = _scan(source, _Message("ModelProto", 0, 0, size, 0), threshold, max_nesting, ranges)
    if root.size > max_bytes:
        raise ModelError(
            "E0304",
            f"the model holds {root.size} bytes besides its raw weights; the limit is {max_bytes}",
            exit_code=EXIT_LIMIT,
        )
    proto = b"".join(piece for part in root.parts for piece in source.pieces(part))
    if proto.count(_PREFIX) != len(ranges):
        raise ModelError("E0302", f"the model contains the text {_PREFIX.decode()!r}, which is reserved")
    return StrippedModel(proto, ranges)


def _scan(
    source: _Source, root: _Message, threshold: int, max_nesting: int, ranges: dict[bytes, tuple[int, int]]
) -> _Message:
    """Scan `root` and all messages below it that can hold a large tensor; returns it complete."""
    stack = [root]
    position = 0
    while True:
        message = stack[-1]
        if position == message.end:
            stack.pop()
            if not stack:
                message.replace(position, position, [], 0)
                return message
            _close(message, stack[-1])
            continue
        header = position
        number, wire, start, position = source.field(header, message.end)
        if wire != _BYTES:
            continue
        where = (message.kind, number)
        if where == _TRAINING_INFO:
            message.replace(header, position, [], 0)
        elif position - start <= threshold:
            continue  # too small to hold what we look for; the parser will read it
        elif where == _RAW_DATA:
            placeholder = _PREFIX + str(len(ranges)).encode()
            ranges[placeholder] = (start, position - start)
            _replace_bytes(message, number, header, position, [placeholder], len(placeholder))
        elif child := _ROUTES[message.kind].get(number):
            if len(stack) >= max_nesting:
                raise ModelError(
                    "E0304", f"messages nest deeper than {max_nesting} at byte {header}", exit_code=EXIT_LIMIT
                )
            stack.append(_Message(child, number, header, position, start))
            position = start


def _close(message: _Message, parent: _Message) -> None:
    """Put a scanned message into its parent, unless nothing in it was replaced."""
    if not message.parts:
        return
    message.replace(message.end, message.end, [], 0)
    _replace_bytes(parent, message.number, message.header, message.end, message.parts, message.size)


def _replace_bytes(
    message: _Message, number: int, start: int, end: int, content: list[bytes | tuple[int, int]], size: int
) -> None:
    header = _encode_varint(number << 3 | _BYTES) + _encode_varint(size)
    message.replace(start, end, [header, *content], len(header) + size)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Source:
    """The file behind one window of bytes. Not mapped: a file that shrinks meanwhile is an error, not a crash."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._base = 0
        self._window = b""

    def field(self, position: int, end: int) -> tuple[int, int, int, int]:
        """The field whose tag is at `position`: number, wire type, start and end of its value. None may pass `end`."""
        tag, start = self._varint(position, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ModelError("E0302", f"byte {position} does not begin a protobuf field")
        if wire == _VARINT:
            _, after = self._varint(start, end)
        elif wire == _BYTES:
            length, start = self._varint(start, end)
            after = start + length
        elif wire in (_FIXED64, _FIXED32):
            after = start + (8 if wire == _FIXED64 else 4)
        else:
            raise ModelError("E0302", f"the field at byte {position} is of a wire type that ONNX does not use")
        if after > end:
            raise ModelError(
                "E0302",
                f"the field at byte {position} ends at byte {after}, {after - end} beyond what holds it",
                help="the file may be cut off: compare its size with the original's",
            )
        return number, wire, start, after

    def pieces(self, part: bytes | tuple[int, int]) -> Iterator[bytes]:
        """The bytes of a part: itself, or those of a range of the file."""
        if isinstance(part, bytes):
            yield part
        elif part[0] < part[1]:
            yield self._read(*part)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        stop = min(position + 10, end)
        if not self._base <= position or stop > self._base + len(self._window):
            self._window = self._read(position, min(position + _WINDOW, self._size))
            self._base = position
        value = 0
        for index in range(position, stop):
            byte = self._window[index - self._base]
            value |= (byte & 0x7F) << 7 * (index - position)
            if byte < 0x80:
                return value, index + 1
        raise ModelError("E0302", f"the number at byte {position} is cut off or longer than 10 bytes")

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(end - start)
        if len(data) != end - start:
            raise ModelError("E0301", "the file became shorter while it was read")
        return data
