"""Products of bytes in C: exact for every size, type and zero point, on every kind of processor that compilers know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.c import CBackend
from ir import types as t
from ir.build import Builder
from ir.dims import symbol
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Value
from ir.types import DType, TensorType

_RNG = np.random.default_rng(3)


def numbers(dtype: DType, *shape: int) -> np.ndarray:
    """Random bytes, with both ends of their range among them."""
    low, high = (-128, 127) if dtype == t.i8 else (0, 255)
    array = _RNG.integers(low, high + 1, shape).astype(dtype.numpy)
    array.reshape(-1)[:2] = (low, high)[: array.size]
    return array


class Cases:
    """A graph with an input and an output for each case, and what to feed it."""

    def __init__(self) -> None:
        self.graph = Graph("bytes")
        self.feeds: dict[str, np.ndarray] = {}
        self.outputs: list[Value] = []

    def input(self, array: np.ndarray, *shape: Any) -> Value:
        """An input that `array` is fed to; its shape may have symbols."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = array
        return self.graph.add_input(name, TensorType(t.dtype_of(array.dtype), shape or array.shape))

    def compare(self, folder: Path, **options: Any) -> None:
        """Runs the cases in C and in NumPy. Integers are equal."""
        names = [f"y{i}" for i in range(len(self.outputs))]
        self.graph.set_outputs(self.outputs, names)
        backend = CBackend(**options)
        wanted = evaluate_graph(self.graph, [self.feeds[v.name] for v in self.graph.inputs])
        artifact = backend.emit(backend.pipeline().run(self.graph), folder)
        found = artifact.load().run(self.feeds)
        for name, array in zip(names, wanted):
            assert np.array_equal(found[name], array), name


def products() -> Cases:
    cases = Cases()
    with Builder(cases.graph) as b:
        for m, k, n in ((1, 64, 129), (5, 8, 3), (7, 12, 21), (13, 37, 75), (40, 64, 96), (3, 1, 33)):
            for x, w in ((t.u8, t.i8), (t.i8, t.i8), (t.u8, t.u8), (t.i8, t.u8)):
                row = cases.input(numbers(x, m, k), symbol("M"), k) if m == 13 else cases.input(numbers(x, m, k))
                zeros = (b.const(numbers(x, 1)[0]), b.const(numbers(w, n)))
                cases.outputs.append(b.matmul_integer(row, b.const(numbers(w, k, n)), *zeros))
        batch = cases.input(numbers(t.u8, 2, 3, 5, 16), symbol("B"), 3, 5, 16)
        zero = cases.input(numbers(t.u8, 1)[:1].reshape(()))
        y = b.matmul_integer(batch, b.const(numbers(t.i8, 3, 16, 20)), zero)
        cases.outputs += [y, b.cast(y, to=t.f32) * b.const(np.float32(0.5))]
    return cases


def convolutions() -> Cases:
    cases = Cases()
    with Builder(cases.graph) as b:
        for x, w, channels in ((t.u8, t.i8, 8), (t.u8, t.u8, 3), (t.i8, t.i8, 5), (t.i8, t.u8, 1)):
            image = cases.input(numbers(x, 2, channels, 9, 11), 2, channels, 9, symbol("W"))
            zeros = cases.input(numbers(x, 1).reshape(())), b.const(numbers(w, 18))
            kernel = b.const(numbers(w, 18, channels, 3, 3))
            for stride, pad, dilation in (((1, 1), (1, 1, 1, 1), (1, 1)), ((2, 2), (1, 0, 2, 1), (1, 2))):
                attributes = {"stride": stride, "pad": pad, "dilation": dilation}
                cases.outputs.append(b.conv_integer(image, kernel, *zeros, **attributes))
        row = cases.input(numbers(t.u8, 1, 8, 13))
        grouped = b.conv_integer(row, b.const(numbers(t.i8, 24, 4, 3)), b.const(np.uint8(7)), None, stride=(1,),
                                 pad=(1, 1), dilation=(1,), groups=2)  # fmt: skip
        cases.outputs.append(grouped)
    return cases


@pytest.mark.parametrize("make", [products, convolutions], ids=lambda make: make.__name__)
@pytest.mark.parametrize("cc", ["gcc", "zig"])
def test_they_are_exact(tmp_path: Path, make: Any, cc: str) -> None:
    make().compare(tmp_path, march="native", cc=cc)


@pytest.mark.parametrize("march", ["x86-64-v2", "x86-64-v3", ""])
def test_they_are_exact_where_no_instruction_adds_four_of_them(tmp_path: Path, march: str) -> None:
    products().compare(tmp_path, march=march)


def test_weights_lie_in_panels_of_four_products(tmp_path: Path) -> None:
    cases = Cases()
    with Builder(cases.graph) as b:
        cases.outputs.append(b.matmul_integer(cases.input(numbers(t.u8, 40, 64)), b.const(numbers(t.i8, 64, 96))))
    cases.compare(tmp_path, march="native")
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("kernels_*.c")))
    assert "sesame_dot4_" in code
