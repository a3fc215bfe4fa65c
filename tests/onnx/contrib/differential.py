"""Models of one node of com.microsoft, on the interpreter and as C, against ONNX Runtime or a statement in NumPy.

A `Form` is one use of an operator. The same use at several sizes is imported once: dims that differ between the sizes
are symbols, and equal where they always are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

import compiler
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph

TOLERANCE = 2e-5
"""Sums of up to a few hundred products in f32, added in another order than here."""

_DOMAINS = {"": 21, "com.microsoft": 1}


@dataclass(frozen=True)
class Form:
    """One use of an operator: operands in the order of the schema (None: omitted), those that are initializers, the
    outputs ("" omits one), what the outputs must be (None: what ONNX Runtime gives), which part of them counts, the
    element types of outputs that ONNX Runtime does not infer, and sizes that are formulas of symbols: "mask0" as
    "2*$query0", where a symbol is named by "$", an operand and an axis. Those `measured` are the size of another input.
    """

    op: str
    operands: Mapping[str, np.ndarray | None]
    outputs: tuple[str, ...] = ("y",)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    want: Mapping[str, np.ndarray] | None = None
    views: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    declared: Mapping[str, Any] = field(default_factory=dict)
    formulas: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = ()
    domain: str = "com.microsoft"

    def given(self) -> dict[str, np.ndarray]:
        """The operands that are there, and what some are measured by."""
        found = {name: array for name, array in self.operands.items() if array is not None}
        measures = {f"{name}_of": np.zeros(int(found[name]), np.float32) for name in self.measured}
        return {name: array for name, array in found.items() if name not in self.measured} | measures

    def feeds(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The inputs of the model by name."""
        return {prefix + name: array for name, array in self.given().items() if name not in self.constants}

    def named(self) -> list[str]:
        return [name for name in self.outputs if name]

    def expected(self) -> dict[str, np.ndarray]:
        """What the outputs must be."""
        return dict(self.want) if self.want is not None else run_onnxruntime(self)

    def compare(self, results: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Asserts that the outputs are what they must be: floats within the tolerance, all else exactly."""
        expected = self.expected()
        for name in self.named():
            got, want = np.asarray(results[prefix + name]), np.asarray(expected[name])
            about = f"{self.op} {name} {dict(self.attributes)}"
            assert (got.shape, got.dtype) == (want.shape, want.dtype), about
            view = self.views.get(name, np.asarray)
            is_empty = not want.size
            got, want = view(got), view(want)
            if want.dtype.kind in "fV":
                assert (want.size or is_empty) and np.isfinite(want.astype(np.float32)).all(), (
                    f"{about}: nothing to compare with"
                )
                np.testing.assert_allclose(
                    got.astype(np.float64), want.astype(np.float64), self.tolerance, self.tolerance, err_msg=about
                )
            else:
                np.testing.assert_array_equal(got, want, err_msg=about)


def model_of(groups: Sequence[Sequence[Form]]) -> onnx.ModelProto:
    """One node for each group of forms, which differ in their sizes alone; names are prefixed by "n0_", "n1_" ..."""
    nodes, inputs, outputs, weights = [], [], [], []
    for number, forms in enumerate(groups):
        first, prefix = forms[0], f"n{number}_"
        shapes = shapes_of(forms, prefix)
        for name, array in first.given().items():
            if name in first.constants:
                assert all(np.array_equal(array, form.operands[name]) for form in forms), f"{name} is no constant"
                weights.append(numpy_helper.from_array(array, prefix + name))
            else:
                element = helper.np_dtype_to_tensor_dtype(array.dtype)
                inputs.append(helper.make_tensor_value_info(prefix + name, element, shapes[name]))
        names = ["" if array is None else prefix + name for name, array in first.operands.items()]
        for name in first.measured:
            nodes.append(helper.make_node("Shape", [f"{prefix}{name}_of"], [f"{prefix}{name}_size"]))
            nodes.append(helper.make_node("Cast", [f"{prefix}{name}_size"], [prefix + name], to=onnx.TensorProto.INT32))
        results = [prefix + name if name else "" for name in first.outputs]
        nodes.append(helper.make_node(first.op, names, results, prefix, domain=first.domain, **first.attributes))
        for name in first.named():
            outputs.append(onnx.ValueInfoProto(name=prefix + name))
            if name in first.declared:
                element = helper.np_dtype_to_tensor_dtype(np.dtype(first.declared[name]))
                outputs[-1].type.tensor_type.elem_type = element
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid(domain, version) for domain, version in _DOMAINS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def shapes_of(forms: Sequence[Form], prefix: str) -> dict[str, list[int | str]]:
    """The declared shape of each input: sizes that differ between the forms are symbols, one for the same sizes."""
    symbols: dict[tuple[int, ...], str] = {}
    shapes: dict[str, list[int | str]] = {}
    for name, array in forms[0].given().items():
        shapes[name] = []
        for axis in range(array.ndim):
            sizes = tuple(form.given()[name].shape[axis] for form in forms)
            formula = forms[0].formulas.get(f"{name}{axis}")
            if len(set(sizes)) == 1:
                shapes[name].append(sizes[0])
            elif formula is not None:
                shapes[name].append(formula.replace("$", prefix))
            else:
                shapes[name].append(symbols.setdefault(sizes, f"{prefix}{name}{axis}"))
    return shapes


def run_onnxruntime(form: Form) -> dict[str, np.ndarray]:
    """What ONNX Runtime's CPU provider gives, without its own rewriting of the graph."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model, feeds = model_of([[form]]), form.feeds("n0_")
    narrow = {name: a.dtype for name, a in feeds.items() if a.dtype == ml_dtypes.bfloat16}
    if narrow:
        _feed_as_floats(model.graph, set(narrow))
        feeds = {name: a.astype(np.float32) if name in narrow else a for name, a in feeds.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    results = dict(zip(form.named(), map(np.asarray, session.run(None, feeds))))
    return {name: a.astype(ml_dtypes.bfloat16) if narrow else a for name, a in results.items()}


def _feed_as_floats(graph: onnx.GraphProto, names: set[str]) -> None:
    """Makes f32 of those inputs and of all outputs: NumPy arrays of bf16 go neither into ONNX Runtime nor out of it."""
    (node,) = graph.node
    before, after = [], []
    for value in graph.input:
        if value.name in names:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            before.append(
                helper.make_node("Cast", [value.name], [f"{value.name}_narrow"], to=onnx.TensorProto.BFLOAT16)
            )
    node.input[:] = [f"{name}_narrow" if name in names else name for name in node.input]
    node.output[:] = [f"{name}_narrow" if name else "" for name in node.output]
    for value in graph.output:
        after.append(helper.make_node("Cast", [f"{value.name}_narrow"], [value.name], to=onnx.TensorProto.FLOAT))
    nodes = [*before, node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def graph_of(*forms: Form) -> Graph:
    """The graph imported for forms that differ in their sizes alone."""
    return import_model(read_model_proto(model_of([forms])))


def check(*forms: Form) -> None:
    """Asserts that the interpreter agrees on every form, imported once for all of them."""
    graph = graph_of(*forms)
    for form in forms:
        feeds = form.feeds("n0_")
        results = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
        form.compare(dict(zip(form.named(), results)))


def check_c(folder: Path, *groups: Sequence[Form]) -> None:
    """Asserts that C compiled from one model of all groups agrees; the forms of a group differ in their sizes alone."""
    loaded = compiler.compile(model_of(groups), "c", out=folder / "artifact", opt="-O1").load()
    for step in range(max(map(len, groups))):
        chosen = [forms[min(step, len(forms) - 1)] for forms in groups]
        feeds = {name: a for n, form in enumerate(chosen) for name, a in form.feeds(f"n{n}_").items()}
        results = loaded.run(feeds)
        for number, form in enumerate(chosen):
            form.compare(results, f"n{number}_")
