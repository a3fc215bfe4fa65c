"""Loops that go through the rows of a reshaped operand as one run, split by the length of a row."""

import numpy as np
import pytest

from backends.reference.kernel import run_kernel
from compiler.passes.accumulate import accumulate
from compiler.passes.unravel import unravel
from ir.kernel import For, Local, walk_stmts
from ir.parse import parse_kernel
from ir.text import kernel_text

LEAST = """kernel @least(in x: f32[N,2,32], out y: f32[1]) {
  var best: f32 = inf
  for n in 0..N, k in 0..64 {
    best min= x[n, k//32, k%32]
  }
  y[0] = best
}"""

COPY = """kernel @copy(in x: f32[N,4,24], out y: f32[N,96]) {
  for n in 0..N, k in 0..96 parallel {
    y[n, k] = x[n, k//24, k%24]
  }
}"""


def loops(text: str) -> list[tuple[str, object, str]]:
    made = unravel.run(parse_kernel(text))
    return [(s.var, s.extent, s.mark) for s in walk_stmts(made.body) if isinstance(s, For)]


def test_a_reduction_through_rows_gathers_in_vectors():
    made = accumulate.run(unravel.run(parse_kernel(LEAST)), lanes=8)
    assert [s for s in walk_stmts(made.body) if isinstance(s, Local)]
    x, y = np.random.default_rng(0).standard_normal((3, 2, 32)).astype(np.float32), np.zeros(1, np.float32)
    run_kernel(made, {"x": x, "y": y})
    assert y[0] == x.min()


def test_the_outer_loop_keeps_the_mark_and_indices_are_plain():
    assert loops(COPY)[1:] == [("k_row", 4, "parallel"), ("k_place", 24, "")]
    made = unravel.run(parse_kernel(COPY))
    assert "//" not in kernel_text(made) and "%" not in kernel_text(made)
    x, y = np.random.default_rng(0).standard_normal((2, 4, 24)).astype(np.float32), np.zeros((2, 96), np.float32)
    run_kernel(made, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x.reshape(2, 96))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (COPY.replace("24", "3").replace("[N,4,3]", "[N,32,3]"), "rows are shorter than vectors"),
        (COPY.replace("0..96", "0..90"), "the last row is not whole"),
        (COPY.replace("k%24", "(k//36)%24"), "rows of two lengths, neither of which is made of the other"),
        (COPY.replace("in 0..96 parallel", "in 0..96 vector"), "the loop is a vector already"),
        (COPY.replace("k//24, k%24", "0, k%24").replace("0..96", "0..24"), "there is one row"),
    ],
)
def test_loops_that_stay(text: str, why: str):
    kernel = parse_kernel(text)
    assert unravel.run(kernel) is kernel, why


def test_rows_of_rows_are_split_by_the_shorter():
    text = COPY.replace("[N,4,24]", "[N,2,2,24]").replace("k//24, k%24", "k//48, k//24 - 2*(k//48), k%24")
    assert loops(text)[1:] == [("k_row", 4, "parallel"), ("k_place", 24, "")]
    made = unravel.run(parse_kernel(text))
    x, y = np.random.default_rng(0).standard_normal((2, 2, 2, 24)).astype(np.float32), np.zeros((2, 96), np.float32)
    run_kernel(made, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x.reshape(2, 96))


SHUFFLE = """kernel @shuffle(in x: f32[N,4,34], out y: f32[N,136]) {
  for n in 0..N, k in 0..136 {
    y[n, k] = x[n, k%4, k//4]
  }
}"""


def test_rows_that_are_read_in_turn_are_read_in_order():
    assert loops(SHUFFLE)[1:] == [("k_place", 34, ""), ("k_row", 4, "")]
    made = unravel.run(parse_kernel(SHUFFLE))
    assert "//" not in kernel_text(made) and "%" not in kernel_text(made)
    x, y = np.random.default_rng(0).standard_normal((3, 4, 34)).astype(np.float32), np.zeros((3, 136), np.float32)
    run_kernel(made, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1).reshape(3, 136))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SHUFFLE.replace("k//4]", "2*(k//4)]").replace("34]", "67]"), "elements of a row lie apart"),
        (SHUFFLE.replace("0..136", "0..134"), "the last turn is not whole"),
        (SHUFFLE.replace("0..136", "0..24"), "there are few elements of each"),
        (SHUFFLE.replace("y[n, k] =", "y[n, 135 - k] ="), "it stores backwards"),
        (SHUFFLE.replace("x[n, k%4, k//4]", "select(k < 70, x[n, k%4, k//4], 0.0)"), "it asks where an element lies"),
    ],
)
def test_turns_that_stay(text: str, why: str):
    kernel = parse_kernel(text)
    assert unravel.run(kernel) == kernel, why
