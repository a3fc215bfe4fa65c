"""Models of one node of com.microsoft, on the interpreter and as C, against ONNX Runtime or a statement in NumPy.

A `Form` is one use of an operator at one size. `check` and `check_c` take several that differ in their sizes alone and
import them once: dims that differ between the sizes are symbols, and equal where they always are. A `Case` is such a
use as a row of a table, with a name and whether it is run as C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler.errors import UnsupportedError
from compiler.onnx.importer import import_model
from compiler.onnx.load import read_model_proto
from ir.evaluate import evaluate_graph
from ir.graph import Graph

TOLERANCE = 2e-5
"""Sums of up to a few hundred products in f32, added in another order than here."""
CASE_TOLERANCE = 1e-5
"""What rows of a table keep to, whose sums are shorter."""
SIZES = (2, 5)
"""The numbers at which the operands of a row are made where they are a function of a number."""

_DOMAINS = {"": 21, "com.microsoft": 1}
_CARRIERS = {
    np.dtype(ml_dtypes.bfloat16): np.float32, np.dtype(ml_dtypes.int4): np.int8, np.dtype(ml_dtypes.uint4): np.uint8,
}  # fmt: skip
"""Types of which arrays go neither into ONNX Runtime nor out of it, and those in which their values are passed."""


@dataclass(frozen=True, eq=False)
class Form:
    """One use of an operator: operands in the order of the schema (None: omitted), the outputs ("" omits one), and the
    operands that are initializers.

    The outputs must be `want`, or what `meaning` makes of the operands and attributes; without either, what ONNX
    Runtime gives. Floats agree within `tolerance`, all else exactly, or where `near` is given: that share of the
    elements may be off by one. All floats must be finite, unless `is_finite` is False. `views` pick the part of an
    output that counts. `declared` are the element types of outputs that ONNX Runtime does not infer. `formulas` are
    sizes that are formulas of symbols: "mask0" as "2*$query0", where a symbol is named by "$", an operand and an axis.
    Operands that are `measured` are the size of another input. `label` stands in messages.
    """

    op: str
    operands: Mapping[str, np.ndarray | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    constants: tuple[str, ...] = ()
    want: Mapping[str, np.ndarray] | None = None
    meaning: Callable[..., Any] | None = None
    tolerance: float = TOLERANCE
    near: float = 0.0
    is_finite: bool = True
    views: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    formulas: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = ()
    domain: str = "com.microsoft"
    label: str = ""

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
        if self.want is not None:
            return dict(self.want)
        if self.meaning is None:
            return run_onnxruntime(self)
        with np.errstate(all="ignore"):
            made = self.meaning(*self.operands.values(), **self.attributes)
        arrays = map(np.asarray, made if isinstance(made, (tuple, list)) else (made,))
        return dict(zip(self.named(), arrays, strict=True))

    def compare(self, results: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Asserts that the outputs are what they must be."""
        expected = self.expected()
        for name in self.named():
            about = f"{self.label} {self.op} {name} {dict(self.attributes)}".lstrip()
            got, want = np.asarray(results[prefix + name]), np.asarray(expected[name])
            assert (got.shape, got.dtype) == (want.shape, want.dtype), about
            view = self.views.get(name, np.asarray)
            is_empty = not want.size
            got, want = view(got), view(want)
            assert want.size or is_empty, f"{about}: nothing to compare with"
            self._compare_arrays(got, want, about)

    def _compare_arrays(self, got: np.ndarray, want: np.ndarray, about: str) -> None:
        is_rounded = want.dtype.kind in "fV" and want.dtype.itemsize > 1
        if want.dtype.kind == "V":  # the types of ml_dtypes
            got, want = got.astype(np.float32), want.astype(np.float32)
        if want.dtype.kind == "f":
            assert np.isfinite(want).all() or not self.is_finite, f"{about}: nothing to compare with"
        if is_rounded:
            wide, wanted = got.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(wide, wanted, self.tolerance, self.tolerance, err_msg=about)
        elif not self.near:
            np.testing.assert_array_equal(got, want, err_msg=about)
        else:
            difference = np.abs(got.astype(np.int64) - want.astype(np.int64))
            assert difference.max(initial=0) <= 1, f"{about}: off by {difference.max()}"
            assert (difference > 0).mean() <= self.near, f"{about}: {(difference > 0).mean():.2%} off by one"


@dataclass(frozen=True, eq=False)
class Case:
    """A row of a table: forms that differ in their sizes alone, and whether they are run as C as well."""

    id: str
    forms: tuple[Form, ...]
    c: bool = False


def case(
    id: str, op: str, operands: Sequence[np.ndarray | None] | Callable[[int], Sequence[np.ndarray | None]],
    attributes: Mapping[str, Any] | None = None, *, outputs: int | Sequence[int] = 1, constants: Sequence[int] = (),
    c: bool = False, tolerance: float = CASE_TOLERANCE, **options: Any,
) -> Case:  # fmt: skip
    """A row of a table. Its operands are x0, x1, ..., those at positions in `constants` initializers; a function of a
    number gives them at each of `SIZES`. Its outputs are y0, y1, ...: so many of them, or those at positions.
    """
    used = range(outputs) if isinstance(outputs, int) else outputs
    names = tuple(f"y{i}" if i in used else "" for i in range(max(used) + 1))
    weights = tuple(f"x{i}" for i in constants)
    runs = [operands(number) for number in SIZES] if callable(operands) else [operands]
    forms = [
        Form(op, {f"x{i}": array for i, array in enumerate(arrays)}, attributes or {}, names, weights,
             tolerance=tolerance, label=id, **options)
        for arrays in runs
    ]  # fmt: skip
    return Case(id, tuple(forms), c)


def by_name(*families: Callable[[], Iterator[Case]]) -> dict[str, Case]:
    """The rows of functions called SUBJECT_cases, as SUBJECT-ID."""
    rows = [(f"{family.__name__.removesuffix('_cases')}-{row.id}", row) for family in families for row in family()]
    assert len(dict(rows)) == len(rows), "two rows have one name"
    return dict(rows)


def compiled(cases: Iterable[Case]) -> list[tuple[Form, ...]]:
    """The forms of those rows that are run as C."""
    return [row.forms for row in cases if row.c]


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
                inputs.append(helper.make_tensor_value_info(prefix + name, _element(array.dtype), shapes[name]))
        names = ["" if array is None else prefix + name for name, array in first.operands.items()]
        for name in first.measured:
            nodes.append(helper.make_node("Shape", [f"{prefix}{name}_of"], [f"{prefix}{name}_size"]))
            nodes.append(helper.make_node("Cast", [f"{prefix}{name}_size"], [prefix + name], to=TensorProto.INT32))
        results = [prefix + name if name else "" for name in first.outputs]
        nodes.append(helper.make_node(first.op, names, results, prefix, domain=first.domain, **first.attributes))
        for name in first.named():
            outputs.append(onnx.ValueInfoProto(name=prefix + name))
            if name in first.declared:
                outputs[-1].type.tensor_type.elem_type = _element(first.declared[name])
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid(domain, version) for domain, version in _DOMAINS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _element(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


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
    """What ONNX Runtime's CPU provider gives on one thread, without its own rewriting of the graph."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model, feeds = model_of([[form]]), form.feeds("n0_")
    narrow = {name: array.dtype for name, array in feeds.items() if array.dtype in _CARRIERS}
    narrow |= {f"n0_{name}": np.dtype(dtype) for name, dtype in form.declared.items() if np.dtype(dtype) in _CARRIERS}
    if ml_dtypes.bfloat16 in narrow.values():
        narrow |= {f"n0_{name}": np.dtype(ml_dtypes.bfloat16) for name in form.named()}
    _carry(model.graph, narrow)
    feeds = {name: array.astype(_CARRIERS.get(array.dtype, array.dtype)) for name, array in feeds.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    results = dict(zip(form.named(), map(np.asarray, session.run(None, feeds)), strict=True))
    return {name: array.astype(narrow.get(f"n0_{name}", array.dtype)) for name, array in results.items()}


def onnxruntime_gives(op: str, *operands: np.ndarray | None, domain: str = "com.microsoft", **attributes: Any) -> Any:
    """The array that ONNX Runtime's CPU provider gives for a node of one output."""
    form = Form(op, {f"x{i}": array for i, array in enumerate(operands)}, attributes, domain=domain)
    return run_onnxruntime(form)["y"]


def _carry(graph: onnx.GraphProto, narrow: Mapping[str, np.dtype]) -> None:
    """Puts a Cast behind each input and before each output of `narrow`, whose values pass in the type's carrier."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}_narrow" if name in narrow else name for name in names]
    before, after = [], []
    for value in (v for v in graph.input if v.name in narrow):
        kind = narrow[value.name]
        before.append(helper.make_node("Cast", [value.name], [f"{value.name}_narrow"], to=_element(kind)))
        value.type.tensor_type.elem_type = _element(_CARRIERS[kind])
    for value in (v for v in graph.output if v.name in narrow):
        carrier = _element(_CARRIERS[narrow[value.name]])
        after.append(helper.make_node("Cast", [f"{value.name}_narrow"], [value.name], to=carrier))
        value.type.tensor_type.elem_type = carrier
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def graph_of(*forms: Form) -> Graph:
    """The graph imported for forms that differ in their sizes alone."""
    return import_model(read_model_proto(model_of([forms])))


def interpreted(*forms: Form) -> list[dict[str, np.ndarray]]:
    """What the interpreter gives for each form, imported once for all of them."""
    graph, made = graph_of(*forms), []
    for form in forms:
        feeds = form.feeds("n0_")
        results = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
        made.append(dict(zip(form.named(), map(np.asarray, results), strict=True)))
    return made


def check(*forms: Form) -> None:
    """Asserts that the interpreter agrees on every form, imported once for all of them."""
    assert forms, "nothing to compare"
    for form, results in zip(forms, interpreted(*forms), strict=True):
        form.compare(results)


def check_c(folder: Path, *groups: Sequence[Form]) -> None:
    """Asserts that C compiled from one model of all groups agrees; the forms of a group differ in their sizes alone."""
    assert groups, "nothing to compare"
    loaded = compiler.compile(model_of(groups), "c", out=folder / "artifact", opt="-O1").load()
    for step in range(max(map(len, groups))):
        chosen = [forms[min(step, len(forms) - 1)] for forms in groups]
        feeds = {name: a for n, form in enumerate(chosen) for name, a in form.feeds(f"n{n}_").items()}
        results = loaded.run(feeds)
        for number, form in enumerate(chosen):
            form.compare(results, f"n{number}_")


def check_refused(form: Form, why: str, **operands: np.ndarray | None) -> None:
    """Asserts that the importer refuses the form, with other `operands`, in a text that names the operator and why."""
    with pytest.raises(UnsupportedError) as caught:
        graph_of(replace(form, operands={**form.operands, **operands}))
    text = caught.value.render()
    assert why in text and form.op in text, text
