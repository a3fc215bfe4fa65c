"""Loops over what lies in several parts: a loop over each, with nothing asked of single elements."""

import numpy as np
import pytest

from backends.reference.kernel import run_kernel
from compiler.passes.partition import partition
from ir.kernel import For, Kernel, walk_stmts
from ir.kernel_verify import kernel_problems
from ir.parse import parse_kernel
from ir.text import kernel_text

CONCAT = """kernel @concat(in a: f32[N,16], in b: f32[N,8], in c: f32[N,40], out y: f32[N,64]) {
  for n in 0..N parallel, w in 0..64 {
    let part: f32 = select(w < 24, select(w < 16, a[n, w], b[n, w - 16]), c[n, w - 24])
    y[n, w] = max(part * 2.0, 0.0)
  }
}"""
PAD = """kernel @pad(in x: f32[N,30], out y: f32[N,40]) {
  for n in 0..N, w in 0..40 {
    y[n, w] = (x[n, w - 3] or 7.0)
  }
}"""
MIRROR = """kernel @mirror(in x: f32[32], out y: f32[32]) {
  for w in 0..32 {
    y[w] = select(20 - w < 5, x[w], x[31 - w] + 1.0)
  }
}"""


def parts(kernel: Kernel) -> list[object]:
    return [s.extent for s in walk_stmts(kernel.body) if isinstance(s, For) and s.var.startswith("w")]


@pytest.mark.parametrize(
    ("text", "lengths"), [(CONCAT, [16, 8, 40]), (PAD, [3, 30, 7]), (MIRROR, [16, 16])], ids=["concat", "pad", "mirror"]
)
def test_each_part_is_a_loop_that_asks_nothing(text: str, lengths: list[int]):
    kernel = parse_kernel(text)
    made = partition.run(kernel)
    assert parts(made) == lengths and not list(kernel_problems(made))
    assert "select" not in kernel_text(made) and " or " not in kernel_text(made)
    rng = np.random.default_rng(0)
    arrays = {
        b.name: rng.standard_normal([3 if s == kernel.params[0].type.shape[0] and not isinstance(s, int) else s
                                     for s in b.type.shape]).astype(np.float32)
        for b in kernel.params
    }  # fmt: skip
    found, wanted = ({name: array.copy() for name, array in arrays.items()} for _ in range(2))
    run_kernel(made, found)
    run_kernel(kernel, wanted)
    np.testing.assert_array_equal(found["y"], wanted["y"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CONCAT.replace("w < 16", "w < N"), "a border that a run tells stays a question"),
        (CONCAT.replace("w in 0..64", "w in 0..64 unroll"), "the loop is marked"),
        (PAD.replace("30", "10").replace("40", "16"), "parts would be shorter than vectors"),
        (PAD.replace("w - 3", "2*w - 3"), "the border is no number of whole elements"),
        (PAD.replace("0..40", "0..M").replace("f32[N,40]", "f32[N,M]"), "the loop has no known end"),
    ],
)
def test_what_is_left_alone(text: str, why: str):
    kernel = parse_kernel(text)
    made = partition.run(kernel)
    assert len(parts(made)) == (2 if "w < N" in text else 1), why
