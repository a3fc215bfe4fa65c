"""Every op that has an element rule or a kernel, compiled to C and run on its own examples against its reference."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401
from backends.c.kernels import Function, emit_kernel, header, source, unsupported
from backends.c.project import RUNTIME
from backends.c.toolchain import build_shared, find_compiler
from compiler.passes.lower import kernel_of
from ir.blob import stored
from ir.build import Builder
from ir.graph import Graph, Value
from ir.op import OPS, Example
from ir.types import TensorType

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
_FILES = 8


@dataclass
class Case:
    """One example of an op: its kernel, the values its inputs take, and what the outputs should hold."""

    name: str
    function: Function
    operands: list[np.ndarray]
    outputs: tuple[np.ndarray, ...]


def example_case(name: str, number: int, example: Example) -> Case | None:
    """The case for an example, None where generated C does not do its types."""
    op = OPS[name](**example.attributes)
    arrays = example.arrays()
    if not all(a is None or (isinstance(a, np.ndarray) and a.dtype != object) for a in arrays):
        return None
    graph = Graph("example")
    builder = Builder(graph)
    values: dict[Value, np.ndarray] = {}
    inputs: list[Value | None] = []
    for i, (operand, array) in enumerate(zip(example.operands, arrays)):
        if array is None:
            inputs.append(None)
            continue
        is_type = isinstance(operand, TensorType)
        inputs.append(graph.add_input(f"x{i}", operand) if is_type else builder.const(array))
        values[inputs[-1]] = array  # type: ignore[index]
    made = builder.apply(op, *inputs)
    node = (made[0] if isinstance(made, tuple) else made).node
    if not all(isinstance(v.type, TensorType) and v.type.is_static for v in node.outputs):
        return None
    kernel, operands = kernel_of(node)
    if unsupported(kernel):
        return None
    function = emit_kernel(kernel, f"{name}_{number}")
    with np.errstate(all="ignore"):
        result = op.reference(*arrays)
    outputs = tuple(np.asarray(r) for r in (result if isinstance(result, tuple) else (result,)))
    return Case(f"{name}-{number}", function, [values[v] for v in operands], outputs)


@functools.cache
def cases() -> dict[str, Case]:
    """All cases by name."""
    found = {}
    for name, cls in sorted(OPS.items()):
        if not (cls.has("element") or cls.has("kernel")):
            continue
        for number, example in enumerate(cls.examples):
            case = example_case(name, number, example)
            if case is not None:
                found[case.name] = case
    return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """One library of all kernels, built as strictly as the compilers can."""
    folder: Path = tmp_path_factory.mktemp("ops")
    functions = [case.function for case in cases().values()]
    (folder / "model_kernels.h").write_text(header(functions))
    sources = []
    for i in range(_FILES):
        sources.append(folder / f"kernels_{i}.c")
        sources[-1].write_text(source(functions[i::_FILES], "model_kernels.h"))
    flags = ["-Werror", "-Wconversion", "-Wno-sign-conversion"]
    build_shared(sources, folder / "ops.so", find_compiler(), include=[RUNTIME, folder], opt="-O1", flags=flags, jobs=2)
    return ctypes.CDLL(str(folder / "ops.so"))


def run(case: Case, library: ctypes.CDLL) -> list[np.ndarray]:
    """The outputs of a case, from memory that holds garbage before."""
    function = case.function
    results = [np.frombuffer(bytearray(b"\xa5" * max(1, o.nbytes)), np.uint8)[: o.nbytes] for o in case.outputs]
    memory = dict(zip((b.name for b in function.kernel.params), [*map(as_stored, case.operands), *results]))
    arguments: list[Any] = [ctypes.c_void_p(memory[b.name].ctypes.data) for b in function.buffers]
    assert not function.sizes
    invalid = ctypes.c_int(0)
    if function.checks_indices:
        arguments.append(ctypes.byref(invalid))
    if function.range is not None:
        assert isinstance(function.range, int)
        arguments += [ctypes.c_int64(0), ctypes.c_int64(function.range)]
    call: Callable[..., Any] = getattr(library, function.symbol)
    call.restype = None
    call(*arguments)
    assert not invalid.value, "an index was out of range"
    return [r.view(o.dtype).reshape(o.shape) for r, o in zip(results, case.outputs)]


def as_stored(array: np.ndarray) -> np.ndarray:
    return stored(np.ascontiguousarray(array))


# Results in floats differ by rounding: sums in another order, contraction, and functions of the C runtime within 2 ULP.
TOLERANCE = {"float16": (2e-3, 2e-3), "bfloat16": (1.6e-2, 1.6e-2), "float32": (2e-5, 2e-6), "float64": (1e-12, 1e-13)}


@pytest.mark.parametrize("name", list(cases()))
def test_matches_the_reference(name: str, library: ctypes.CDLL) -> None:
    case = cases()[name]
    for got, want in zip(run(case, library), case.outputs):
        if want.dtype.name in TOLERANCE:
            relative, absolute = TOLERANCE[want.dtype.name]
            np.testing.assert_allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=relative, atol=absolute, equal_nan=True
            )
        else:
            assert got.tobytes() == as_stored(want).tobytes()
