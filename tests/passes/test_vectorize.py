"""Which loops become loops of vectors."""

from __future__ import annotations

import pytest

from compiler.passes.vectorize import vectorize
from ir.kernel import For, Kernel, walk_stmts
from ir.parse import parse_kernel

GATES = """kernel @gates(in x: f32[64], inout c: f32[32], out h: f32[32]) {
  for j in 0..32 {
    let held: f32 = c[j]
    let cell: f32 = add(mul(sigmoid(x[j]), held), tanh(x[j+32]))
    h[j] = mul(tanh(cell), held)
    c[j] = cell
  }
}"""


def marks(kernel: Kernel) -> dict[str, str]:
    return {s.var: s.mark for s in walk_stmts(kernel.body) if isinstance(s, For)}


def test_gates_are_vectors():
    assert marks(vectorize.run(parse_kernel(GATES))) == {"j": "vector"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sigmoid(x[j])", "x[j]"),  # with the tanh below: nothing that C compilers leave as it is
        ("c[j] = cell", "c[31-j] = cell"),
        ("x[j+32]", "x[2*j]"),
        ("0..32 {", "0..32 parallel {"),
    ],
)
def test_other_loops_stay(old: str, new: str):
    text = GATES.replace(old, new)
    if old.startswith("sigmoid"):
        text = text.replace("tanh(x[j+32])", "x[j+32]").replace("tanh(cell)", "cell")
    assert "vector" not in marks(vectorize.run(parse_kernel(text))).values()
