"""Strings as cells: UTF-8 bytes, each element padded with zero bytes to one width, along a new last axis.

This is what a string is in memory where there is no allocation: string[N] becomes u8[N,W]. A string ends at the first
zero byte of its cell, or at the end of it. NumPy only: what loads a compiled model needs this and no graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def encoded(item: Any) -> bytes:
    """One string as UTF-8; bytes stay as they are. Raises ValueError for a NUL, which would end it, and for what is
    no Unicode text."""
    if not isinstance(item, (str, bytes)):
        raise ValueError(f"{item!r:.40} is a {type(item).__name__}, not a string")
    try:
        data = item if isinstance(item, bytes) else item.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the string {item!r:.40} is no Unicode text: {error.reason}") from error
    if 0 in data:
        raise ValueError(f"the string {item!r:.40} holds a NUL character, which ends a string in a cell")
    return data


def encode(strings: np.ndarray, width: int | None = None) -> np.ndarray:
    """An array of strings as cells u8[..., width]; without `width` they are as wide as the longest, and at least 1.

    Raises ValueError for a string that is longer, or that has no cell (see `encoded`).
    """
    items = [encoded(item) for item in strings.ravel().tolist()]
    longest = max(map(len, items), default=0)
    if width is None:
        width = max(1, longest)
    if longest > width:
        raise ValueError(f"a string has {longest} bytes, a cell {width}")
    flat = b"".join(item.ljust(width, b"\0") for item in items)
    return np.frombuffer(flat, np.uint8).reshape(*strings.shape, width)


def decode(cells: np.ndarray) -> np.ndarray:
    """The strings of cells as an object array of str; what is not UTF-8 becomes U+FFFD."""
    shape, width = cells.shape[:-1], cells.shape[-1]
    data = np.ascontiguousarray(cells).tobytes()
    count = int(np.prod(shape, dtype=np.int64))
    out = np.empty(count, dtype=object)
    out[:] = [data[i * width : (i + 1) * width].partition(b"\0")[0].decode("utf-8", "replace") for i in range(count)]
    return out.reshape(shape)


def rows(cells: np.ndarray) -> list[bytes]:
    """The strings of cells u8[n,W] as bytes."""
    return [row.tobytes().partition(b"\0")[0] for row in cells]


def from_rows(strings: list[bytes], width: int) -> np.ndarray:
    """Cells u8[n,width] of strings, none of which is longer."""
    flat = b"".join(item.ljust(width, b"\0") for item in strings)
    return np.frombuffer(flat, np.uint8).reshape(len(strings), width)


__all__ = ["decode", "encode", "encoded", "from_rows", "rows"]
