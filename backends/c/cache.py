"""A content cache of compiled objects on disk.

A key is the hash of everything an object depends on, so an entry is never stale, only unused: there is nothing to
invalidate. An entry whose checksum does not match is ignored. Losing the cache costs time and nothing else: where the
directory cannot be written, everything is compiled each time. This module does not know what a compiler is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path

DEFAULT_LIMIT_BYTES = 2 << 30
_SECONDS_BETWEEN = 600.0
"""How often the cache is looked through: with many entries that takes as long as compiling a small model."""
_KEY = re.compile(r"[0-9a-f]{64}")


def cache_dir() -> Path:
    """`$SESAME_CACHE_DIR`, else `$XDG_CACHE_HOME/sesame`, else `~/.cache/sesame`. It need not exist."""
    own = os.environ.get("SESAME_CACHE_DIR")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(shared) / "sesame" if shared else Path.home() / ".cache" / "sesame"


def key_of(*parts: bytes | str) -> str:
    """The SHA-256, in hex, of the parts. Lengths are hashed too: moving a byte from one part to the next changes it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def get(key: str) -> Path | None:
    """The file stored under `key`, or None if there is none or its checksum is wrong. Marks the entry as used."""
    entry = _entry(key)
    try:
        stated = _checksum_file(entry).read_text(encoding="ascii", errors="replace")
        actual = hashlib.sha256(entry.read_bytes()).hexdigest()
        if stated != actual:
            return None
        os.utime(entry)
    except OSError:
        return None
    return entry


def put(key: str, path: Path) -> bool:
    """Stores a copy of the file `path` under `key`. Returns whether it could.

    Both files appear whole or not at all, and a reader between the two sees no entry.
    """
    entry = _entry(key)
    try:
        data = path.read_bytes()
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_whole(entry, data)
        _write_whole(_checksum_file(entry), hashlib.sha256(data).hexdigest().encode())
    except OSError:
        return False
    return True


def gc_if_due() -> int:
    """`gc`, unless some process did that a short time ago. Returns the bytes removed."""
    done = _root() / "collected"
    try:
        if done.exists() and time.time() - done.stat().st_mtime < _SECONDS_BETWEEN:
            return 0
        done.touch()
    except OSError:
        return 0
    return gc()


def gc(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> int:
    """Removes the entries unused for longest until the cache holds at most `limit_bytes`. Returns the bytes removed."""
    entries: list[tuple[float, int, Path]] = []
    for path in _root().glob("??/*.o"):
        with contextlib.suppress(OSError):  # removed by another process since it was listed
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in entries) - limit_bytes
    removed = 0
    for _, size, path in sorted(entries):
        if removed >= excess:
            break
        with contextlib.suppress(OSError):  # not ours to remove, or already gone
            path.unlink()
            _checksum_file(path).unlink(missing_ok=True)
            removed += size
    return removed


def _root() -> Path:
    return cache_dir() / "objects"


def _entry(key: str) -> Path:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a cache key: {key!r}")
    return _root() / key[:2] / f"{key}.o"


def _checksum_file(entry: Path) -> Path:
    return entry.with_suffix(".sha256")


def _write_whole(path: Path, data: bytes) -> None:
    """Writes a file beside `path` and renames it into place."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
