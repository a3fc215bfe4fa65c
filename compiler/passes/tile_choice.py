"""How many rows and vectors a register tile has, from the sizes of a kernel and the registers of a machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Literal

from ir.dims import Size

Shared = Literal["vectors", "weights", "nothing"]
"""What a tile's rows load once for all: vectors that each multiplies by a scalar of its own, or weights that each
multiplies by vectors of its own."""

_INDEPENDENT = 8
"""Sums that hide what one operation takes. More, where rows load nothing in common, only read memory out of order."""
_LOADED = 6
"""The same where each operation waits for a load of its own."""
_MOST_LOADED = 14
"""Sums beyond which what each loads for itself finds no registers."""
_ROWS_OF_UNKNOWN = 6
_WAY = 4096
"""Bytes after which addresses fall into the same set of a first-level cache again: of 64 lines of 64 bytes in most."""
_LINES_OF_A_SET = 8
_THRASHING = 1.25
"""How much longer rows take that evict each other: each line is read again for each of its elements."""


@dataclass(frozen=True)
class Tile:
    """`rows` by `vectors` accumulators; a row of a panel has `columns` elements."""

    rows: int
    vectors: int
    columns: int


def choose_tile(
    rows: Size,
    columns: Size,
    lanes: int,
    registers: int,
    widths: Iterable[int],
    shared: Shared = "vectors",
    apart: int | None = None,
    is_streamed: bool = False,
) -> Tile:
    """The tile with the least wasted work: rows and columns beyond the end, and more loads than the FMAs hide.

    `widths` are the numbers of vectors that a row may have; `apart` are the bytes from one row of the operand that is
    not shared to the next, where known. Of equal tiles, more rows pass less often over vectors that are streamed from
    memory.
    """
    total = -(-columns // lanes) if isinstance(columns, int) else None
    together = _LINES_OF_A_SET * _WAY // gcd(apart, _WAY) if apart else None  # rows that stay in the cache together
    enough = _LOADED if shared == "weights" else _INDEPENDENT
    best: tuple[float, Tile] | None = None
    for v in widths:
        if total is not None and v > max(1, total):
            continue
        most = _INDEPENDENT if shared == "nothing" else registers - v - 1  # a row of operands and a broadcast need some
        for r in range(1, max(1, most // v) + 1):
            if (isinstance(rows, int) and r > rows) or (not isinstance(rows, int) and r > _ROWS_OF_UNKNOWN):
                break
            waste = 1.0 if total is None else -(-total // v) * v / total
            if isinstance(rows, int):
                waste *= -(-rows // r) * r / rows
            cost = waste * max(1.0, enough / (r * v))
            if shared == "weights":
                cost *= (1 + 1 / r) * max(1.0, r * v / _MOST_LOADED)
            else:
                loads = 1 if shared == "nothing" else (r + v) / (r * v)
                cost = cost * max(1.0, 1.1 * loads) - 0.001 * r * v
                cost -= 0.0001 * r if is_streamed else 0.0
                cost *= _THRASHING if together and r > together else 1.0
            if best is None or cost < best[0]:
                best = (cost, Tile(r, v, v * lanes))
    assert best is not None
    return best[1]
