"""External tensor data: finds the file and range that a TensorProto names, and refuses every way out of the folder.

A location is hostile text. It is walked one component at a time from an open directory, without following links, and
the file it ends at must be a regular file of one name. Nothing is read or mapped here; blobs do that later, and compare
the file with the identity recorded here.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass

import onnx

from compiler.errors import ModelError
from ir.blob import FileIdentity

_HELP = (
    "external data must lie in regular files beside the model or below; where a download cache keeps links, "
    "copy the model and its data out of it"
)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_KNOWN_KEYS = ("location", "offset", "length")


@dataclass(frozen=True)
class DataFile:
    """A file of external data, as it was when the model was loaded."""

    path: str
    identity: FileIdentity


@dataclass(frozen=True)
class DataRange:
    """What a tensor's external_data entries say. `length` is None where they leave it out."""

    location: str
    offset: int
    length: int | None


def data_range(tensor: onnx.TensorProto) -> DataRange:
    """The range that `tensor` names; unknown keys are ignored. Raises ModelError E0303 where it is malformed."""
    found: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KNOWN_KEYS:
            continue
        if entry.key in found:
            raise ModelError("E0303", f"external data gives {entry.key!r} twice")
        found[entry.key] = entry.value
    if "location" not in found:
        raise ModelError("E0303", "external data names no location")
    length = _number(found, "length") if "length" in found else None
    return DataRange(found["location"], _number(found, "offset") if "offset" in found else 0, length)


def find_data_file(base_dir: str, location: str) -> DataFile:
    """The file at `location`, relative to `base_dir`, without following a link. Raises ModelError E0303."""
    parts = _components(location)
    try:
        file = _open_below(base_dir, parts)
    except (OSError, ValueError) as error:
        raise ModelError("E0303", f"external data {location!r} {_reason(error)}", help=_HELP) from error
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("E0303", f"external data {location!r} is not a regular file", help=_HELP)
    if status.st_nlink != 1:
        raise ModelError("E0303", f"external data {location!r} is a file with several names (hard links)", help=_HELP)
    return DataFile(os.path.join(os.path.abspath(base_dir), *parts), FileIdentity.of(status))


def _number(entries: dict[str, str], key: str) -> int:
    text = entries[key]
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise ModelError("E0303", f"external data gives {str(text)[:40]!r} as {key}, which is not a byte count")
    return int(text)


def _components(location: str) -> list[str]:
    """The names on the way to `location`. Only relative paths that stay below, with forward slashes, pass."""
    if not isinstance(location, str):  # protobuf hands invalid UTF-8 through as bytes
        raise ModelError("E0303", "external data names a location that is not UTF-8 text")
    if "\0" in location or "\\" in location or location.startswith("/") or re.match(r"[A-Za-z]:", location):
        raise ModelError("E0303", f"external data {location!r} is not a relative path with forward slashes", help=_HELP)
    parts = [part for part in location.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ModelError("E0303", f"external data {location!r} is not a file below the model's directory", help=_HELP)
    return parts


def _open_below(base_dir: str, parts: list[str]) -> int:
    """A descriptor of the file at `parts` below `base_dir`; every component is opened relative to the one before."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    directory = os.open(base_dir, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            child = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = child
        # Non-blocking, or opening a named pipe would wait for a writer.
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)


def _reason(error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return "does not exist"
    if number in (errno.ELOOP, errno.ENOTDIR):
        return "goes through a symbolic link, or through something that is not a directory"
    return f"cannot be opened: {error.strerror if isinstance(error, OSError) else 'its name is not a file name here'}"
