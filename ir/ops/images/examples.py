"""Small streams, as examples for the ops that decode images."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def _bmp() -> bytes:
    """Two rows of three pixels of 24 bits, bottom up, each row filled up to twelve bytes."""
    rows = b"".join(bytes(range(9 * r, 9 * r + 9)) + bytes(3) for r in range(2))
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + len(rows), 0, 0, 54, 40, 3, 2, 1, 24, 0, 0, 0, 0, 0, 0) + rows


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png() -> bytes:
    """Three rows of five pixels with every kind of filter that differs, in two pieces."""
    rows = b"".join(bytes([f]) + bytes((37 * f + 11 * i) % 256 for i in range(15)) for f in (1, 3, 4))
    packed = zlib.compress(rows, 9)
    head = struct.pack(">IIBBBBB", 5, 3, 8, 2, 0, 0, 0)
    pieces = [_chunk(b"IDAT", packed[:9]), _chunk(b"IDAT", packed[9:])]
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(pieces) + _chunk(b"IEND", b"")


def _tiff() -> bytes:
    """Two rows of three greys as PackBits, most significant byte first."""
    strip = bytes([2, 10, 20, 30, 254, 40])
    tags = [(256, 3, 3), (257, 3, 2), (258, 3, 8), (259, 3, 32773), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 2),
            (279, 4, len(strip))]  # fmt: skip
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    return b"MM\0*" + struct.pack(">I", 14) + strip + struct.pack(">H", len(tags)) + entries + bytes(4)


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).copy()


EXAMPLES: list[tuple[np.ndarray, int, int]] = [
    (_array(_bmp()), 2, 3),
    (_array(b"P3 # colours\n2 1\n15 0 7 15 3 2 1 "), 1, 2),
    (_array(b"P4 9 2\n\xaa\x80\x55\x00"), 2, 9),
    (_array(_png()), 3, 5),
    (_array(_tiff()), 2, 3),
    (_array(b"no image"), 0, 0),
]
"""Streams with the heights and widths of their images."""
