"""How many rows and vectors a register tile has, from the sizes of a kernel and the registers of a machine; in which
order tiles follow each other; and what a kernel is called where such choices are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

from ir.dims import Size, dim_text
from ir.expr import Apply, Cast, Expr, walk
from ir.kernel import Assign, For, Kernel, Stmt, canonical, exprs_of, walk_stmts
from ir.kernel_text import expr_text

Shared = Literal["vectors", "weights", "nothing"]
"""What a tile's rows load once for all: vectors that each multiplies by a scalar of its own, or weights that each
multiplies by vectors of its own."""

_INDEPENDENT = 8
"""Sums that hide what one operation takes."""
_OF_NOTHING = 4
"""The same where rows load nothing in common: each waits for a load of its own, and more read memory out of order."""
_LOADED = 6
"""The same where each operation waits for a load of its own."""
_MOST_LOADED = 8
"""Sums beyond which what each loads for itself finds no registers, and is loaded from too many places at once."""
_ROWS_OF_UNKNOWN = 6
_WAY = 4096
"""Bytes after which addresses fall into the same set of a first-level cache again: of 64 lines of 64 bytes in most."""
_LINES_OF_A_SET = 8
_THRASHING = 1.25
"""How much longer rows take that evict each other: each line is read again for each of its elements."""
_FEW_PANELS = 4


@dataclass(frozen=True)
class Tile:
    """`rows` by `vectors` accumulators; a row of a panel has `columns` elements."""

    rows: int
    vectors: int
    columns: int


Order = Literal["panels first", "panels before rows", "panels last"]
"""Where the loop over panels of weights stands: around all others, around that over rows, or within that. The first
reads weights once, the last reads rows once, and the other reads those of a few rows that stay in the nearest cache."""


@dataclass(frozen=True)
class Tiling:
    """A tile, and the order in which tiles follow each other."""

    tile: Tile
    order: Order

    def __str__(self) -> str:
        return f"{self.tile.rows}x{self.tile.vectors} {self.order}"


def tilings(candidates: Sequence[Tile], orders: Sequence[Order]) -> list[Tiling]:
    """Every tile in every order: those that have the first tile or the first order precede all others."""
    pairs = [Tiling(tile, order) for tile in candidates for order in orders]
    return sorted(pairs, key=lambda each: (each.tile != candidates[0], each.order != orders[0]))


def orders(loops: int, panels: Size, has_weights: bool, is_batched: bool) -> list[Order]:
    """The orders for a kernel with `loops` loops around its `panels`, the rule's first. `is_batched` says that those
    around the rows have weights of their own."""
    if loops < 2:
        return ["panels first"]
    if not has_weights:
        return ["panels before rows"]
    if not is_batched and isinstance(panels, int) and panels < _FEW_PANELS:
        return ["panels before rows", "panels first", "panels last"]
    return ["panels first", "panels before rows", "panels last"]  # the order in which panels lie in memory


def key_of(kernel: Kernel) -> str:
    """The structure of a kernel that sums in nested loops, as text: their extents, what is summed over which others,
    the functions that follow, and the types of its tensors."""
    found, _ = canonical(kernel)
    outer, body = _chain(found.body)
    inner, update = _chain(body[1:2])
    assert isinstance(update[0], Assign)
    after = [e for s in walk_stmts(tuple(body[2:])) for e in walk(*exprs_of(s))]
    functions = sorted({e.function for e in after if isinstance(e, Apply)})
    functions += sorted({f"to {e.dtype}" for e in after if isinstance(e, Cast)})
    summed = f"{update[0].function} {expr_text(update[0].value)} over {_extents(inner)}"
    types = ", ".join(f"{b.name} {b.type}" for b in found.params)
    return f"{_extents(outer)}: {summed}; then {', '.join(functions) or 'nothing'}; {types}"


def _chain(block: Sequence[Stmt]) -> tuple[list[For], Sequence[Stmt]]:
    """The loops around each other that a block is, and what stands in the innermost."""
    loops: list[For] = []
    while len(block) == 1 and isinstance(block[0], For):
        loops.append(block[0])
        block = block[0].body
    return loops, block


def _extents(loops: Sequence[For]) -> str:
    return ", ".join(f"{loop.var} {dim_text(loop.extent)}" for loop in loops if not isinstance(loop.extent, Expr))


def tiles(
    rows: Size,
    columns: Size,
    lanes: int,
    registers: int,
    widths: Iterable[int],
    shared: Shared = "vectors",
    apart: int | None = None,
    is_streamed: bool = False,
) -> list[Tile]:
    """Every tile that registers hold, that with the least wasted work first: rows and columns beyond the end, and more
    loads than the FMAs hide.

    `widths` are the numbers of vectors that a row may have; `apart` are the bytes from one row of the operand that is
    not shared to the next, where known. Of equal tiles, more rows pass less often over vectors that are streamed from
    memory.
    """
    total = -(-columns // lanes) if isinstance(columns, int) else None
    together = _LINES_OF_A_SET * _WAY // gcd(apart, _WAY) if apart else None  # rows that stay in the cache together
    enough = {"weights": _LOADED, "nothing": _OF_NOTHING, "vectors": _INDEPENDENT}[shared]
    found: list[tuple[float, Tile]] = []
    for v in widths:
        if total is not None and v > max(1, total):
            continue
        most = _OF_NOTHING if shared == "nothing" else registers - v - 1  # a row of operands and a broadcast need some
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
            found.append((cost, Tile(r, v, v * lanes)))
    return [tile for _, tile in sorted(found, key=lambda each: each[0])]
