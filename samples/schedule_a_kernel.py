"""Write a matrix product as a kernel, schedule it by hand, and run every step on the interpreter and in C.

    python samples/schedule_a_kernel.py

A kernel says what is computed; a schedule is a list of calls that change the order of the work and nothing else. Each
primitive checks what it needs, and raises ScheduleError with the reason where that does not hold.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np

import compiler
from backends.reference import run_kernel
from ir import types as t
from ir.blob import ArrayBlob
from ir.dims import symbol
from ir.element import KernelBuilder, Names, Output, buffer_tensor
from ir.kernel import Buffer, Kernel
from ir.parse import parse_kernel
from ir.program import Call, Program, ProgramBuffer
from ir.schedule import ScheduleError, pack, parallelize, reorder, split, stage, unroll, vectorize
from ir.types import TensorType

K, N = 24, 48
LANES, ROWS = 16, 4
M = symbol("M")
"""The number of rows is known only when the kernel is called."""


def matmul() -> Kernel:
    """y[m, n] = sum over k of x[m, k] * w[k, n], as one would write it on paper."""
    x, w, y = (TensorType(t.f32, shape) for shape in ((M, K), (K, N), (M, N)))
    b = KernelBuilder(Names(["x", "w", "y"]))
    with b.loop(m=M, n=N) as (m, n):
        acc = b.variable("acc", 0.0, t.f32)
        with b.loop(k=K) as k:
            b.assign(acc, buffer_tensor("x", x).at(m, k) * buffer_tensor("w", w).at(k, n), "add")
        b.store(Output("y", y), (m, n), acc)
    return Kernel("matmul", (Buffer("x", x), Buffer("w", w, "const"), Buffer("y", y, "out")), b.body)


def steps(kernel: Kernel) -> list[tuple[str, Kernel]]:
    """The schedule, one primitive after another, with the kernel after each."""
    made = [("as written", kernel)]

    def then(what: str, changed: Kernel) -> Kernel:
        made.append((what, changed))
        return changed

    # Columns in vectors of LANES, rows in blocks of ROWS. N is a multiple of LANES, so nothing remains; M is unknown,
    # so the rows that remain get a loop of their own ("peel").
    kernel = then("columns in panels", split(kernel, "n", LANES, "panel", "lane"))
    kernel = then("panels outermost", reorder(kernel, ["panel", "m", "lane"]))
    kernel = then("rows in blocks", split(kernel, "m", ROWS, "block", "row", tail="peel"))
    # One accumulator for each (row, lane) and the reduction outside of them: x is loaded once per row, w once per
    # vector, and ROWS * LANES products are added. This turns a dot product into a register tile.
    kernel = then("a tile of accumulators", stage(kernel, "acc", ["row", "lane"]))
    kernel = then("lanes are vectors", vectorize(kernel, "lane"))
    kernel = then("rows are unrolled", unroll(kernel, "row"))
    # The panels of w are read from top to bottom. Laid out so in memory, they are read in order.
    kernel = then("weights in panels", pack(kernel, "w", axis=1, factor=LANES))
    then("panels on threads", parallelize(kernel, "panel"))
    return made


def in_panels(w: np.ndarray) -> np.ndarray:
    """What `pack` expects of the caller: the block number is the first axis, the place within the block the last."""
    return np.ascontiguousarray(w.reshape(K, N // LANES, LANES).transpose(1, 0, 2))


def in_c(kernel: Kernel, x: np.ndarray, w: np.ndarray, folder: str) -> np.ndarray:
    """The kernel as a program of one call: emitted as C, built, and run. The weights lie in the artifact."""
    program = Program("matmul", ["x"], ["y"], ["x"], ["y"])
    program.buffers = {
        "x": ProgramBuffer("x", kernel.buffer("x").type, "input"),
        "w": ProgramBuffer("w", kernel.buffer("w").type, "weight", blob=ArrayBlob(w)),
        "y": ProgramBuffer("y", kernel.buffer("y").type, "output"),
    }
    program.steps = [Call(kernel, ("x", "w", "y"), tuple(symbol(name) for name in kernel.sizes))]
    return compiler.find_backend("c").emit(program, folder).load().run({"x": x})["y"]


def main() -> int:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((11, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
    expected = x.astype(np.float64) @ w
    agree = True

    for what, kernel in steps(matmul()):
        weights = in_panels(w) if kernel.buffer("w").type.rank == 3 else w
        y = np.zeros((len(x), N), np.float32)
        run_kernel(kernel, {"x": x, "w": weights, "y": y})
        with tempfile.TemporaryDirectory() as folder:
            from_c = in_c(kernel, x, weights, folder)
        interpreted, compiled = (float(np.abs(found - expected).max()) for found in (y, from_c))
        # The text of a kernel reads back as an equal one: a schedule can be looked at, edited and compared.
        reads_back = parse_kernel(str(kernel)) == kernel
        print(f"{what:<24} interpreter {interpreted:.1e}   C {compiled:.1e}   reads back: {reads_back}")
        agree &= reads_back and interpreted < 1e-5 and compiled < 1e-5

    print(f"\n{kernel}")
    try:
        split(matmul(), "n", 7, "panel", "lane")
    except ScheduleError as error:
        print(f"refused: {error}")
        return 0 if agree else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
