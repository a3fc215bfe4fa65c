"""Nodes of com.microsoft on the interpreter and as C, against ONNX Runtime or, where it has no kernel, a NumPy meaning.

A case whose operands are a function of a number has a symbol for every dim that the number changes; one import of it
is run at two sizes. Elements of four bits go in and out through casts, as ONNX Runtime does not feed them from NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ir.ops  # noqa: F401 - registers the ops
from backends.c import CBackend
from compiler.errors import CompileError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph

Arrays = Sequence[np.ndarray | None]
SIZES = (2, 5)
"""The numbers at which operands that are a function are made."""
_NIBBLES = {"int4": TensorProto.INT8, "uint4": TensorProto.UINT8}
_KEPT = {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4}


@dataclass(frozen=True, eq=False)
class Case:
    """One node. Operands at positions in `constants` are initializers; None omits an operand.

    Floats agree within `tolerance`, integers exactly, or where `near` is given: that share of the elements may be off
    by one. ONNX Runtime is given `instead` as operands, where it crashes on omitted ones. `meaning` takes the operands
    and gives the outputs, where ONNX Runtime has no kernel on this device.
    """

    id: str
    op: str
    operands: Arrays | Callable[[int], Arrays]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int | Sequence[int] = 1
    constants: Sequence[int] = ()
    opset: int = 17
    tolerance: float = 1e-5
    near: float = 0.0
    nibbles: bool = False
    c: bool = False
    instead: Arrays | None = None
    meaning: Callable[..., Any] | None = None
    domain: str = "com.microsoft"

    @property
    def used(self) -> tuple[int, ...]:
        """Positions of the outputs that the node names."""
        return tuple(range(self.outputs)) if isinstance(self.outputs, int) else tuple(self.outputs)

    def runs(self) -> list[Arrays]:
        """The operands of each run."""
        return [self.operands(n) for n in SIZES] if callable(self.operands) else [self.operands]

    def parts(self, prefix: str = "") -> tuple[list, list, list, list]:
        """Inputs, initializers, nodes and outputs of a graph, their names behind `prefix`."""
        runs = self.runs()
        inputs, weights, nodes, names = [], [], [], []
        for position, arrays in enumerate(zip(*runs, strict=True)):
            first = arrays[0]
            name = "" if first is None else f"{prefix}x{position}"
            names.append(name)
            if first is None:
                continue
            if position in self.constants:
                weights.append(_initializer(first, name))
                continue
            shape = [a[0] if len(set(a)) == 1 else f"{prefix}d{'_'.join(map(str, a))}"
                     for a in zip(*(array.shape for array in arrays))]  # fmt: skip
            kind = first.dtype.name
            inputs.append(helper.make_tensor_value_info(name, _element(kind), shape))
            if kind in _NIBBLES:
                nodes.append(helper.make_node("Cast", [name], [f"{name}_n"], to=_KEPT[kind]))
                names[-1] = f"{name}_n"
        results = [f"{prefix}y{i}" if i in self.used else "" for i in range(max(self.used) + 1)]
        made = [f"{name}_n" for name in results] if self.nibbles else results
        nodes.append(
            helper.make_node(self.op, names, made, name=f"{prefix}node", domain=self.domain, **self.attributes)
        )
        if self.nibbles:
            nodes += [helper.make_node("Cast", [m], [r], to=TensorProto.INT32) for m, r in zip(made, results)]
        return inputs, weights, nodes, [onnx.ValueInfoProto(name=name) for name in results if name]

    def model(self) -> onnx.ModelProto:
        """A model of the node alone."""
        return _model(self.opset, *self.parts())

    def feeds(self, arrays: Arrays, prefix: str = "") -> dict[str, np.ndarray]:
        """What the inputs of the model are given for operands `arrays`."""
        return {
            f"{prefix}x{i}": a.astype(a.dtype.name[:-1] + "8") if a.dtype.name in _NIBBLES else a
            for i, a in enumerate(arrays)
            if a is not None and i not in self.constants
        }

    def expected(self) -> list[list[np.ndarray]]:
        """The outputs of each run."""
        if self.meaning is not None:
            with np.errstate(all="ignore"):
                made = [self.meaning(*arrays, **self.attributes) for arrays in self.runs()]
            return [[np.asarray(a) for a in (m if isinstance(m, (tuple, list)) else (m,))] for m in made]
        if self.instead is not None:
            return replace(self, operands=self.instead, instead=None).expected()
        onnxruntime = pytest.importorskip("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(self.model().SerializeToString(), options, ["CPUExecutionProvider"])
        return [[np.asarray(a) for a in session.run(None, self.feeds(arrays))] for arrays in self.runs()]

    def interpreted(self) -> list[list[np.ndarray]]:
        """What the interpreter gives for each run, from one import."""
        graph = import_model(read_model_proto(self.model()))
        made = []
        for arrays in self.runs():
            feeds = self.feeds(arrays)
            made.append([np.asarray(a) for a in evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])])
        return made

    def check(self, made: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Asserts that the outputs of a run agree."""
        for got, want in zip(made, wanted, strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype), self.id
            if want.dtype.kind in "fV" and want.dtype.itemsize > 1:
                np.testing.assert_allclose(
                    got.astype(np.float64), want.astype(np.float64), rtol=self.tolerance, atol=self.tolerance,
                    equal_nan=True, err_msg=self.id,
                )  # fmt: skip
            elif not self.near:
                np.testing.assert_array_equal(got, want, err_msg=self.id)
            else:
                difference = np.abs(got.astype(np.int64) - want.astype(np.int64))
                assert difference.max(initial=0) <= 1, f"{self.id}: off by {difference.max()}"
                assert (difference > 0).mean() <= self.near, f"{self.id}: {(difference > 0).mean():.2%} off by one"


def _initializer(array: np.ndarray, name: str) -> onnx.TensorProto:
    if array.dtype.name not in _KEPT:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, _KEPT[array.dtype.name], array.shape, array.astype(np.int8).reshape(-1).tolist())


def _element(kind: str) -> int:
    return _NIBBLES.get(kind) or helper.np_dtype_to_tensor_dtype(np.dtype("O" if kind.startswith("str") else kind))


def _model(opset: int, inputs: list, weights: list, nodes: list, outputs: list) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    versions = {"": opset, "com.microsoft": 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def check_interpreted(case: Case) -> None:
    """Asserts that the interpreter agrees at every size."""
    for made, wanted in zip(case.interpreted(), case.expected(), strict=True):
        case.check(made, wanted)


def check_compiled(cases: Sequence[Case], folder: Path) -> None:
    """Asserts that the cases, as one model made into C, agree at every size."""
    parts: list[list] = [[], [], [], []]
    for number, case in enumerate(cases):
        for whole, part in zip(parts, case.parts(f"c{number}_")):
            whole += part
    graph = import_model(read_model_proto(_model(cases[0].opset, *parts)))
    backend = CBackend(opt="-O1", march="x86-64")
    loaded_model = backend.emit(backend.pipeline().run(graph), folder).load(opt="-O1", march="x86-64")
    for size in range(len(SIZES)):
        feeds: dict[str, np.ndarray] = {}
        for number, case in enumerate(cases):
            feeds |= case.feeds(case.runs()[size % len(case.runs())], f"c{number}_")
        made = loaded_model.run(feeds)
        for number, case in enumerate(cases):
            wanted = case.expected()[size % len(case.runs())]
            case.check([made[f"c{number}_y{i}"] for i in case.used], wanted)


def refusal(case: Case) -> str:
    """The text of the error with which the importer refuses the node."""
    with pytest.raises(CompileError) as caught:
        import_model(read_model_proto(case.model()))
    return caught.value.render()


def by_name(*families: Callable[[], Iterator[Case]]) -> dict[str, Case]:
    """The cases of functions called SUBJECT_cases, as SUBJECT-ID."""
    return {f"{family.__name__.removesuffix('_cases')}-{case.id}": case for family in families for case in family()}


def compiled(cases: Sequence[Case]) -> list[Case]:
    """Those that are run as C."""
    return [case for case in cases if case.c]


__all__ = ["SIZES", "Case", "by_name", "check_compiled", "check_interpreted", "compiled", "refusal"]
