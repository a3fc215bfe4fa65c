"""Costs of kernels: operations and bytes, counted from loops."""

from __future__ import annotations

import pytest

from ir.cost import cost
from ir.dims import evaluate, parse_dim
from ir.kernel import Kernel
from ir.parse import parse_kernel

PRODUCT = """
kernel @product(in x: f32[M,8], const w: f32[8,4], out y: f32[M,4]) {
  for m in 0..M parallel {
    local acc: f32[4]
    for n in 0..4 vector {
      acc[n] = 0.0
    }
    for k in 0..8, n in 0..4 vector {
      acc[n] += x[m, k] * w[k, n]
    }
    for n in 0..4 {
      y[m, n] = max(acc[n], 0.0)
    }
  }
}
"""

TABLE = """
kernel @rows(in x: f32[1000,16], in i: i64[N], out y: f32[N,16]) {
  for n in 0..N, c in 0..16 {
    y[n, c] = x[i[n], c]
  }
}
"""

TRIANGLE = """
kernel @triangle(in x: f32[N,N], out y: f32[N]) {
  for r in 0..N {
    var sum: f32 = 0.0
    for c in 0..r + 1 {
      sum += x[r, c]
    }
    y[r] = sum
  }
}
"""

SIDES = """
kernel @sides(in x: f32[10], out y: f32[10]) {
  for n in 0..10 {
    if n > 2 {
      y[n] = x[n] * x[n] + 1.0
    } else {
      y[n] = x[n]
    }
  }
}
"""


WAYS = """
kernel @ways(in x: f32[N], out y: f32[N]) {
  if dim(N) >= 16 {
    for p in 0..(N + 15)//16, l in 0..16 {
      y[dim(l + min(16*p, N - 16))] = x[dim(l + min(16*p, N - 16))] * 2.0
    }
  } else {
    for n in 0..N {
      y[n] = x[n] * 2.0
    }
  }
}
"""


def costs(text: str, **sizes: int) -> tuple[int, int]:
    kernel: Kernel = parse_kernel(text)
    found = cost(kernel)
    return evaluate(found.operations, sizes), evaluate(found.bytes, sizes)


def test_a_product_counts_two_for_each_step_and_every_element_once() -> None:
    assert costs(PRODUCT, M=5) == (5 * 4 * (8 * 2 + 1), 4 * (5 * 8 + 8 * 4 + 5 * 4))


def test_a_cost_is_a_formula_of_the_sizes() -> None:
    assert cost(parse_kernel(PRODUCT)).operations == parse_dim("68*M")


@pytest.mark.parametrize(("rows", "read"), [(3, 3 * 16), (5000, 1000 * 16)])
def test_of_a_table_no_more_moves_than_is_looked_up(rows: int, read: int) -> None:
    operations, moved = costs(TABLE, N=rows)
    assert operations == 0 and moved == 4 * (read + rows * 16) + 8 * rows


def test_a_loop_that_another_decides_counts_as_in_the_middle() -> None:
    assert costs(TRIANGLE, N=9) == (9 * 5, 4 * (9 * 5 + 9))


def test_of_two_branches_the_costlier_counts() -> None:
    assert costs(SIDES) == (20, 80)


def test_of_two_ways_that_sizes_decide_the_cheaper_counts() -> None:
    assert costs(WAYS, N=5) == (5, 40) and costs(WAYS, N=32) == (32, 256)
