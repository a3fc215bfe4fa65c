"""Operators whose parameters are computed while the model runs: one artifact, several values of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import compiler
from backends.c import CBackend
from backends.reference.program import run_program
from compiler.errors import CompileError
from ir.evaluate import EvaluationError, evaluate_graph
from ir.verify import verify_graph, verify_program

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


def single(
    op: str, feeds: dict[str, np.ndarray], *, opset: int = 21, rank: int | list[Any] = 1, free: tuple[str, ...] = (),
    outputs: int = 1, domain: str = "", shapes: dict[str, list[Any]] | None = None, inputs: list[str] | None = None,
    **attributes: Any,
) -> Any:  # fmt: skip
    """A model of one node that takes all of `feeds` when it runs. Inputs have the shapes of the feeds; `shapes` gives
    others. The outputs have that many axes, of sizes that are not declared, or the shape given."""
    names = [f"y{i}" for i in range(outputs)]
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), (shapes or {}).get(name, list(array.shape))
        )
        for name, array in feeds.items()
    ]
    kind = next(helper.np_dtype_to_tensor_dtype(array.dtype) for array in feeds.values())
    shape = rank if isinstance(rank, list) else [None] * rank
    made = [helper.make_tensor_value_info(name, kind, shape) for name in names]
    node = helper.make_node(op, inputs or list(feeds), names, domain=domain, **attributes)
    graph = helper.make_graph([node], "net", declared, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


class Compiled:
    """A model in the three ways to run it, compiled once."""

    def __init__(self, proto: Any, folder: Path, **options: Any) -> None:
        self.proto = proto
        self.loaded = compiler.load(proto, **options)
        verify_graph(self.loaded.graph)
        backend = CBackend(march="", opt="-O1")
        self.program = backend.pipeline().run(self.loaded)
        verify_program(self.program)
        self.runnable = backend.emit(self.program, folder / "net", self.loaded).load()

    def interpreted(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(evaluate_graph(self.loaded.graph, [feeds[v.name] for v in self.loaded.graph.inputs]))

    def agree(self, *feeds: dict[str, np.ndarray], wanted: list[list[np.ndarray]] | None = None) -> None:
        """Holds all three to the evaluator of ONNX, or to `wanted`."""
        for n, each in enumerate(feeds):
            expected = wanted[n] if wanted else ReferenceEvaluator(self.proto).run(None, each)
            names = self.loaded.graph.output_names
            ways = (dict(zip(names, self.interpreted(each))), run_program(self.program, each), self.runnable.run(each))
            for way, made in zip(("interpreter", "program", "C"), ways):
                for name, value in zip(names, expected):
                    value = np.asarray(value)
                    assert made[name].shape == value.shape, (way, n, name, made[name].shape, value.shape)
                    assert made[name].dtype == value.dtype, (way, n, name)
                    # Single precision: a few units in the last place of numbers around 1.
                    np.testing.assert_allclose(made[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{way} {n} {name}")

    def refuse(self, *feeds: dict[str, np.ndarray], status: str = "") -> None:
        """Holds all three to refusing these; C with a status whose text has `status` in it."""
        for each in feeds:
            with pytest.raises((EvaluationError, ValueError)):
                self.interpreted(each)
            with pytest.raises((ValueError, IndexError)):
                run_program(self.program, each)
            with pytest.raises(CompileError, match=f"the model returned: .*{status}"):
                self.runnable.run(each)


def ramp(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


LIMIT = "beyond its limit"


def test_reshape(tmp_path: Path) -> None:
    x = ramp(4, 6)
    net = Compiled(single("Reshape", {"x": x, "shape": ints(0, 0, 0)}, rank=3), tmp_path)
    feeds = [{"x": x, "shape": ints(*shape)} for shape in ((2, 3, 4), (-1, 2, 2), (0, 6, 1), (0, -1, 1), (24, 1, 1))]
    net.agree(*feeds)
    wrong = [(5, 5, 1), (-1, -1, 2), (7, -1, 1), (1 << 62, 1 << 62, 1), (1 << 32, 1 << 32, -1), (-2, -12, 1), (4, 6, 0)]
    net.refuse(*({"x": x, "shape": ints(*shape)} for shape in wrong), status=LIMIT)


def test_reshape_of_a_batch_and_use_of_the_result(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Exp", ["y"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["z"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["n", 4]), info("shape", TensorProto.INT64, [2])]
    outputs = [info("e", TensorProto.FLOAT, ["a", "b"]), info("z", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    net = Compiled(proto, tmp_path)
    feeds = [
        {"x": ramp(n, 4) / 10, "shape": ints(*s)} for n, s in ((3, (2, 6)), (1, (4, 1)), (0, (0, 3)), (5, (-1, 5)))
    ]
    net.agree(*feeds)
    net.refuse({"x": ramp(2, 4), "shape": ints(3, 3)}, status=LIMIT)


def test_reshape_that_allows_zero(tmp_path: Path) -> None:
    net = Compiled(single("Reshape", {"x": ramp(0, 3, 4), "shape": ints(0, 0)}, rank=2, allowzero=1), tmp_path)
    net.agree({"x": ramp(0, 3, 4), "shape": ints(12, 0)}, {"x": ramp(0, 3, 4), "shape": ints(0, 3)})
    net.refuse({"x": ramp(0, 3, 4), "shape": ints(0, 13)}, {"x": ramp(0, 3, 4), "shape": ints(0, -1)}, status=LIMIT)
