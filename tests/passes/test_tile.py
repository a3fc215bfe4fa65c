"""Which register tiles kernels get, and that they compute what the kernels did."""

import numpy as np
import pytest

from backends.reference.kernel import run_kernel
from compiler.passes.tile import tile_kernel
from compiler.passes.tile_choice import Tile
from compiler.passes.tile_choice import tiles as every_tile
from ir.kernel import Kernel, Local, walk_stmts
from ir.parse import parse_kernel

LANES, REGISTERS = 16, 32

PRODUCT = """kernel @product(in x: f32[M,24], const w: f32[24,96], out y: f32[M,96]) {
  for m in 0..M, n in 0..96 {
    var acc: f32 = 0.0
    for k in 0..24 {
      acc += x[m, k] * w[k, n]
    }
    y[m, n] = acc
  }
}"""

BYTES = """kernel @bytes(in x: u8[M,24], const w: i8[24,96], out y: i32[M,96]) {
  for m in 0..M, n in 0..96 {
    var acc: i32 = 0:i32
    for k in 0..24 {
      acc += i32(x[m, k]) * i32(w[k, n])
    }
    y[m, n] = acc
  }
}"""

POOL = """kernel @pool(in x: f32[24,24,32], out y: f32[12,12,32]) {
  for h in 0..12, w in 0..12, c in 0..32 {
    var best: f32 = -inf
    for i in 0..2, j in 0..2 {
      best max= x[2*h + i, 2*w + j, c]
    }
    y[h, w, c] = best
  }
}"""


def tiles(kernel: Kernel) -> list[tuple[int, ...]]:
    """The accumulators of a kernel, rows by columns, in order."""
    return [tuple(int(n) for n in s.type.shape) for s in walk_stmts(kernel.body) if isinstance(s, Local)]  # type: ignore[arg-type]


def in_panels(w: np.ndarray, columns: int, depth: int) -> np.ndarray:
    """Weights [K, N] in panels [N/columns, K, columns], or with `depth` entries of K behind each column."""
    k, n = w.shape
    panels = w.reshape(k, n // columns, columns).transpose(1, 0, 2)
    if depth == 1:
        return np.ascontiguousarray(panels)
    return np.ascontiguousarray(panels.reshape(-1, k // depth, depth, columns).transpose(0, 1, 3, 2))


@pytest.mark.parametrize("text", [PRODUCT, BYTES])
def test_rows_that_make_no_whole_tile_are_done_two_at_a_time(text: str):
    """How many rows there are is not known: what 6 at a time leave over shares loads of weights, too."""
    kernel = parse_kernel(text)
    tiled, panels = tile_kernel(kernel, LANES, REGISTERS, {"w"})
    assert panels is not None and tiles(tiled) == [(6, 48), (2, 48), (48,)]
    rng = np.random.default_rng(0)
    is_float = kernel.buffer("w").type.dtype.is_float
    for rows in range(14):
        x, w = rng.integers(0, 9, (rows, 24)), rng.integers(-9, 9, (24, 96))
        y = np.full((rows, 96), -1, np.float32 if is_float else np.int32)
        x, w = x.astype(np.float32 if is_float else np.uint8), w.astype(np.float32 if is_float else np.int8)
        packed = in_panels(w, panels.columns, panels.depth)
        run_kernel(tiled, {"x": x, "w": packed, "y": y})
        np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64))  # small integers are exact in f32


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (4, 32), (8, 16), (16, 32)])
def test_tiles_of_no_machine_change_the_order_of_a_sum(lanes: int, registers: int):
    """Every bit is that of the kernel without tiles, for rows and columns that make whole tiles and that do not."""
    kernel = parse_kernel(PRODUCT)
    tiled, panels = tile_kernel(kernel, lanes, registers, {"w"}, least=16)
    assert panels is not None
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((7, 24)).astype(np.float32), rng.standard_normal((24, 96)).astype(np.float32)
    plain, result = (np.zeros((7, 96), np.float32) for _ in range(2))
    run_kernel(kernel, {"x": x, "w": w, "y": plain})
    beyond = np.pad(w, ((0, 0), (0, -96 % panels.columns)))
    run_kernel(tiled, {"x": x, "w": in_panels(beyond, panels.columns, panels.depth), "y": result})
    np.testing.assert_array_equal(result.view(np.uint32), plain.view(np.uint32))


def test_columns_that_make_a_tile_can_be_those_of_another_machine():
    """Eight columns without weights are enough for vectors of four, and too few for vectors of sixteen."""
    kernel = parse_kernel(POOL.replace("24,32]", "24,8]").replace("12,32]", "12,8]").replace("0..32", "0..8"))
    assert tile_kernel(kernel, 4, REGISTERS, set())[0] != kernel
    assert tile_kernel(kernel, 4, REGISTERS, set(), least=16)[0] == kernel


def test_an_even_rest_has_no_single_row():
    tiled, _ = tile_kernel(parse_kernel(PRODUCT.replace("M", "2*M")), LANES, REGISTERS, {"w"})
    assert tiles(tiled) == [(6, 48), (2, 48)]


def test_rows_of_a_pooling_window_are_few_since_they_load_nothing_in_common():
    kernel = parse_kernel(POOL)
    tiled, panels = tile_kernel(kernel, LANES, REGISTERS, set())
    assert panels is None and tiles(tiled) == [(2, 32)]
    x = np.random.default_rng(0).standard_normal((24, 24, 32)).astype(np.float32)
    y = np.zeros((12, 12, 32), np.float32)
    run_kernel(tiled, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x.reshape(12, 2, 12, 2, 32).max((1, 3)))


DEPTHWISE = """kernel @depthwise(in x: f32[9,W+2,104], const w: f32[3,3,104], out y: f32[7,W,104]) {
  for h in 0..7, v in 0..W, c in 0..104 {
    var acc: f32 = 0.0
    for i in 0..3, j in 0..3 {
      acc += x[h + i, v + j, c] * w[i, j, c]
    }
    y[h, v, c] = acc
  }
}"""


def test_a_depthwise_tile_is_as_narrow_as_its_columns_need():
    """104 columns are 7 vectors, which are 7 panels of one, but would be 2 of four: every vector of its operand is
    loaded for one product anyway, however wide the tile."""
    tiled, panels = tile_kernel(parse_kernel(DEPTHWISE), LANES, REGISTERS, {"w"})
    assert panels is None and tiles(tiled)[0] == (6, 16)
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (9, 15, 104)).astype(np.float32)
    w = rng.integers(-9, 9, (3, 3, 104)).astype(np.float32)
    y = np.zeros((7, 13, 104), np.float32)
    run_kernel(tiled, {"x": x, "w": w, "y": y})
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))
    np.testing.assert_array_equal(y, np.einsum("hvcij,ijc->hvc", windows, w))


def test_a_depthwise_tile_leaves_registers_for_what_each_sum_loads():
    """Weights are loaded once for all rows; with 28 sums, compilers spill some."""
    assert every_tile(56, 144, LANES, REGISTERS, range(4, 0, -1), "weights")[0] == Tile(8, 1, LANES)
    assert every_tile(14, 480, LANES, REGISTERS, range(4, 0, -1), "weights")[0] == Tile(7, 1, LANES)


def test_a_pooling_tile_is_one_row():
    """Nothing is shared, and more rows are read from more places at once."""
    assert every_tile(56, 64, LANES, REGISTERS, range(4, 0, -1), "nothing")[0] == Tile(1, 4, 4 * LANES)


def test_a_product_shares_vectors_between_rows():
    """Loads are fewer the more both rows and vectors are; one row of vectors streams its weights."""
    assert every_tile(56, 256, LANES, REGISTERS, range(4, 0, -1))[0] == Tile(14, 2, 32)
    assert every_tile(1, 512, LANES, REGISTERS, range(8, 0, -1))[0] == Tile(1, 8, 128)


def test_rows_that_fall_into_one_set_of_the_cache_are_no_more_than_it_has_lines():
    """Rows 4096 bytes apart evict each other where there are more than eight; half as far apart, two sets hold them."""
    widths = range(4, 0, -1)
    assert every_tile(14, 256, LANES, REGISTERS, widths, apart=4096)[0].rows == 7
    assert every_tile(14, 256, LANES, REGISTERS, widths, apart=3 * 4096)[0].rows == 7
    assert every_tile(14, 256, LANES, REGISTERS, widths, apart=2048)[0].rows == 14
    assert every_tile(14, 256, LANES, REGISTERS, widths, apart=4096 + 64)[0].rows == 14


def test_weights_of_few_rows_are_passed_over_by_as_many_rows_as_can_be():
    widths = range(4, 0, -1)
    assert every_tile(16, 512, LANES, REGISTERS, widths)[0] == Tile(4, 4, 64)
    assert every_tile(16, 512, LANES, REGISTERS, widths, is_streamed=True)[0] == Tile(8, 2, 32)


def test_a_product_of_rows_far_apart_is_tiled_by_their_distance():
    """The rows of x are 4096 bytes apart along w, as where a convolution skips every other one."""
    text = """kernel @skips(in x: f32[28,512], const w: f32[512,256], out y: f32[14,256]) {
      for v in 0..14 {
        for c in 0..256 {
          var acc: f32 = 0.0
          for k in 0..512 {
            acc add= mul(x[2*v,k], w[k,c])
          }
          y[v,c] = acc
        }
      }
    }"""
    tiled, _ = tile_kernel(parse_kernel(text), LANES, REGISTERS, {"w"})
    assert tiles(tiled)[0][0] == 7


def test_a_load_with_a_name_is_tiled_as_one_without():
    named = """kernel @squares(in x: f32[24,32], out y: f32[32]) {
      for c in 0..32 {
        var acc: f32 = 0.0
        for k in 0..24 {
          let t: f32 = x[k, c]
          acc += t * t
        }
        y[c] = acc
      }
    }"""
    plain = named.replace("let t: f32 = x[k, c]", "").replace("t * t", "x[k, c] * x[k, c]")
    (tiled, _), (wanted, _) = (tile_kernel(parse_kernel(text), LANES, REGISTERS, set()) for text in (named, plain))
    assert tiles(tiled) == [(32,)] and tiled == wanted
