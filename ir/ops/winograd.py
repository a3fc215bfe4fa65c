"""Winograd's minimal filtering F(m x m, 3 x 3): convolution of tiles as products of what tiles and weights become.

A tile of m x m outputs rests on m+2 x m+2 inputs. Input and weights are taken to (m+2)^2 points, each point has a
matrix product over channels of its own, and the products are taken back: a quarter of the multiplications of plain sums
with m = 4, and less than half with m = 2. Along an axis the points are 0, 1, -1 and infinity, and 2 and -2 with m = 4.
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from ir import types as t
from ir.dims import Size, ceil_div, minimum
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, Index
from ir.op import Op, case, op, require, require_equal, sizes
from ir.types import TensorType

TILES = (2, 4)
_CHANNELS = 64
"""Channels for which a tile of results is held on the stack: 4 KiB with m = 4."""

_INPUT = {
    2: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    4: np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                 [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]),
}  # fmt: skip
_WEIGHTS = {
    2: np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    4: np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
}
_OUTPUT = {
    2: np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
}


def _check(name: str, tile: int, rows: int) -> None:
    require(tile in TILES, lambda: f"{name}: tiles have 2 x 2 or 4 x 4 outputs, not {tile} x {tile}")
    require(rows >= 1, lambda: f"{name}: a block has {rows} rows of tiles; it needs at least one")


@op
class WinogradWeights(Op):
    """Weights w[3, 3, c, o] at the points of tiles of `tile` x `tile` outputs: u[point, c, o]. Summed in f64."""

    tile: int
    index_names = "point ic oc"
    examples = [case("f32[3,3,4,5]", tile=2), case("f32[3,3,3,2]", tile=4)]

    def infer(self, w: TensorType) -> TensorType:
        _check(self.name, self.tile, 1)
        require(w.dtype == t.f32, lambda: f"winograd_weights takes weights of f32, not {w.dtype}")
        require(w.rank == 4 and w.shape[:2] == (3, 3), lambda: f"winograd_weights takes windows of 3 x 3, not {w}")
        return w.with_shape(((self.tile + 2) ** 2, *w.shape[2:]))

    def reference(self, w: np.ndarray) -> np.ndarray:
        g = _WEIGHTS[self.tile]
        points = np.einsum("ik,jl,klco->ijco", g, g, w.astype(np.float64), optimize=True)
        return points.reshape(-1, *w.shape[2:]).astype(w.dtype)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], w: Tensor) -> None:
        g = _WEIGHTS[self.tile]
        side = self.tile + 2
        with k.loop(ic=w.shape[2], oc=w.shape[3]) as (ic, oc):
            for i in range(side):
                for j in range(side):
                    factors = np.outer(g[i], g[j])
                    terms = [w.at(*tap, ic, oc) * float(factors[tap]) for tap in np.ndindex(3, 3) if factors[tap]]
                    k.store(outs[0], (i * side + j, ic, oc), sum(terms[1:], start=terms[0]))


@op
class WinogradInput(Op):
    """x[n, h, w, c] at the points of tiles of `tile` x `tile` outputs: v[n, block, point, tile, c].

    A block is `rows` rows of tiles. h and w are those of whole blocks and tiles: rows*tile*blocks + 2 and
    tile*columns + 2, so what lies beyond the results of a convolution must be there, but may be anything.
    """

    tile: int
    rows: int = 1
    index_names = "n block point tile ic"
    blocked = 2
    examples = [case("f32[2,6,8,3]", tile=2), case("f32[1,18,6,2]", tile=4, rows=2)]

    def infer(self, x: TensorType) -> TensorType:
        _check(self.name, self.tile, self.rows)
        require(x.dtype == t.f32 and x.rank == 4, lambda: f"winograd_input takes images of f32, not {x}")
        n, h, w, c = x.shape
        blocks, columns = (h - 2) // (self.tile * self.rows), (w - 2) // self.tile
        require_equal("winograd_input: rows of the image", h, blocks * self.tile * self.rows + 2)
        require_equal("winograd_input: columns of the image", w, columns * self.tile + 2)
        return x.with_shape((n, blocks, (self.tile + 2) ** 2, self.rows * columns, c))

    def reference(self, x: np.ndarray) -> np.ndarray:
        n, h, w, c = x.shape
        side, matrix = self.tile + 2, _INPUT[self.tile].astype(x.dtype)
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
        tiles = windows[:, :: self.tile, :: self.tile]
        points = np.einsum("ik,jl,nhwckl->nhijwc", matrix, matrix, tiles, optimize=True)
        blocks, columns = (h - 2) // (self.tile * self.rows), (w - 2) // self.tile
        shape = (n, blocks, self.rows, side * side, columns, c)
        return np.moveaxis(points.reshape(shape), 2, 3).reshape(n, blocks, side * side, self.rows * columns, c)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor) -> None:
        side = self.tile + 2
        blocks, columns = outs[0].shape[:2], (x.shape[2] - 2) // self.tile
        with _parallel(k, blocks, self.rows, columns) as (n, block, row, column):
            top, left = (block * self.rows + row) * self.tile, column * self.tile
            with k.loop("vector", ic=x.shape[3]) as ic:
                across = [
                    _to_points(
                        k,
                        f"column{j}_",
                        [k.let(f"x{i}_{j}", x.at(n, top + i, left + j, ic), t.f32) for i in range(side)],
                    )
                    for j in range(side)
                ]
                for i in range(side):
                    line = [k.let(f"point{i}_{j}", across[j][i], t.f32) for j in range(side)]
                    for j, value in enumerate(_to_points(k, f"row{i}_", line)):
                        k.store(outs[0], (n, block, i * side + j, row * columns + column, ic), value)


@op
class WinogradOutput(Op):
    """The results of tiles from their points z[n, block, point, tile, o], optionally plus bias[o]: y[n, oh, ow, o].

    `shape` is oh, ow: what tiles hold beyond it is dropped. `rows` are the rows of tiles in a block.
    """

    tile: int
    shape: sizes
    rows: int = 1
    index_names = "n oh ow oc"
    stores_once = True
    examples = [
        case("f32[2,2,16,3,3]", "f32[3]", tile=2, shape=(4, 5)),
        case("f32[1,1,16,6,80]", "f32[80]", tile=2, rows=2, shape=(4, 6)),
        case("f32[1,2,36,2,2]", None, tile=4, rows=2, shape=(13, 3)),
    ]  # fmt: skip

    def infer(self, z: TensorType, bias: TensorType | None = None) -> TensorType:
        _check(self.name, self.tile, self.rows)
        require(z.dtype == t.f32 and z.rank == 5, lambda: f"winograd_output takes tiles of f32, not {z}")
        require(len(self.shape) == 2, "winograd_output: `shape` must be oh, ow")
        oh, ow = self.shape
        columns, blocks = ceil_div(ow, self.tile), ceil_div(oh, self.tile * self.rows)
        wanted = (blocks, (self.tile + 2) ** 2, self.rows * columns)
        for size, right in zip(z.shape[1:], wanted):
            require_equal("winograd_output: sizes of the tiles", size, right)
        if bias is not None:
            require(bias.dtype == t.f32 and bias.rank == 1, lambda: f"winograd_output: bias is {bias}")
            require_equal("winograd_output: sizes of the bias", bias.shape[0], z.shape[4])
        return z.with_shape((z.shape[0], oh, ow, z.shape[4]))

    def reference(self, z: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        oh, ow = (int(size) for size in self.shape)
        side, matrix = self.tile + 2, _OUTPUT[self.tile].astype(z.dtype)
        columns, n, o = -(-ow // self.tile), z.shape[0], z.shape[4]
        tiles = z.reshape(-1, side, side, self.rows, columns, o)
        y = np.einsum("pi,qj,bijrco->brpcqo", matrix, matrix, tiles, optimize=True)
        y = y.reshape(n, -1, columns * self.tile, o)[:, :oh, :ow]
        return np.ascontiguousarray(y if bias is None else y + bias)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], z: Tensor, bias: Tensor | None = None) -> None:
        oh, ow = self.shape
        columns, channels = ceil_div(ow, self.tile), z.shape[4]
        group = min(channels, _CHANNELS) if isinstance(channels, int) else _CHANNELS
        with _parallel(k, z.shape[:2], self.rows, columns) as (n, block, row, column):
            top, left = (block * self.rows + row) * self.tile, column * self.tile
            heights, widths = _rest(oh, top, self.tile, self.rows), _rest(ow, left, self.tile, 1)
            with k.loop(group=ceil_div(channels, group)) as number:
                start = number * group
                count = _rest(channels, start, group, 1)
                local = k.local("results", z.type.with_shape((self.tile, self.tile, group)))
                with k.loop("vector", c=count) as c:
                    at = (n, block, row * columns + column, start + c)
                    self._results(k, local, c, z, at)
                with k.loop(p=heights, q=widths, oc=count) as (p, q, oc):
                    value = local.at(p, q, oc)
                    value = value if bias is None else value + bias.at(start + oc)
                    k.store(outs[0], (n, top + p, left + q, start + oc), value)

    def _results(self, k: KernelBuilder, local: Output, c: Expr, z: Tensor, at: tuple[Expr, ...]) -> None:
        """The results of a tile for channel `c` of its group into `local`; `at` is its place in z but for the point."""
        side = self.tile + 2
        *block, tile, channel = at
        across = []
        for j in range(side):
            column = [k.let(f"z{i}_{j}", z.at(*block, i * side + j, tile, channel), t.f32) for i in range(side)]
            across.append(_from_points(k, f"column{j}_", column))
        for p in range(self.tile):
            line = [k.let(f"sum{p}_{j}", across[j][p], t.f32) for j in range(side)]
            for q, value in enumerate(_from_points(k, f"row{p}_", line)):
                k.store(local, (p, q, c), value)


@contextmanager
def _parallel(k: KernelBuilder, blocks: sizes, rows: int, columns: Size) -> Iterator[tuple[Expr, ...]]:
    """Loops over images, blocks, rows of tiles in a block and tiles of a row; none over one element."""
    extents = dict(zip(("n", "block", "row", "column"), (*blocks, rows, columns)))
    with ExitStack() as stack:
        loops = {name: k.loop("parallel", **{name: size}) for name, size in extents.items() if size != 1}
        yield tuple(stack.enter_context(loops[name]) if name in loops else Index(t.i64, 0) for name in extents)


def _rest(size: Size, start: Expr, step: int, times: int) -> Size:
    """How much of `step` elements from `start` on lies within `size`, which whole multiples of step*times cover."""
    if size % (step * times) == 0:
        return step
    assert isinstance(start, Index)
    return minimum(step, size - start.value)


def _to_points(k: KernelBuilder, name: str, x: Sequence[Expr]) -> list[Expr]:
    """The product of the matrix of inputs and a vector, in as few operations as there need be."""
    if len(x) == 4:
        return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]
    even = k.let(f"{name}a", x[4] - x[2] * 4.0, t.f32)
    odd = k.let(f"{name}b", x[3] - x[1] * 4.0, t.f32)
    even2 = k.let(f"{name}c", x[4] - x[2], t.f32)
    odd2 = k.let(f"{name}d", (x[3] - x[1]) * 2.0, t.f32)
    first, last = x[0] * 4.0 - x[2] * 5.0 + x[4], x[1] * 4.0 - x[3] * 5.0 + x[5]
    return [first, even + odd, even - odd, even2 + odd2, even2 - odd2, last]


def _from_points(k: KernelBuilder, name: str, x: Sequence[Expr]) -> list[Expr]:
    """The product of the matrix of results and a vector."""
    if len(x) == 4:
        return [x[0] + x[1] + x[2], x[1] - x[2] - x[3]]
    sum1 = k.let(f"{name}a", x[1] + x[2], t.f32)
    difference1 = k.let(f"{name}b", x[1] - x[2], t.f32)
    sum2 = k.let(f"{name}c", x[3] + x[4], t.f32)
    difference2 = k.let(f"{name}d", x[3] - x[4], t.f32)
    return [
        x[0] + sum1 + sum2, difference1 + difference2 * 2.0, sum1 + sum2 * 4.0,
        difference1 + difference2 * 8.0 + x[5],
    ]  # fmt: skip


__all__ = ["WinogradInput", "WinogradOutput", "WinogradWeights"]
