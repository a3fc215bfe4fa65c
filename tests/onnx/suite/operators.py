"""Renews what `sesame ops` says of each operator, and the page that shows it.

    python -m tests.onnx.suite.operators

Cases are counted from the checked-in outcomes (`python -m tests.onnx.suite --update`); types are probed: the operator's
simplest case with each type of its schema is imported and given to the C target's passes.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compiler.backend import find_backend
from compiler.driver import Model, load
from compiler.errors import CompileError
from compiler.onnx import coverage
from compiler.onnx.load import element_type
from compiler.onnx.registry import all_ops
from compiler.pipeline import Pipeline
from tests.onnx.suite import expected
from tests.onnx.suite.cases import Case, load_cases

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"
HEAD = """# Operators

What `sesame ops --format md` prints; `python -m tests.onnx.suite.operators` renews this page.

- **since opset**: the opsets at which importers start; each serves the models up to the next.
- **types**: element types of the first input that are imported; `all` are all that the newest schema has.
- **interpreter**, **C**: cases of the official ONNX suite that pass, of those with a node of this operator. A case that
  fails may do so for another of its operators.

"""


def main() -> int:
    lines = [f"{json.dumps(op)}: {json.dumps(found, sort_keys=True)}" for op, found in sorted(measure().items())]
    coverage.FINDINGS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """The page, from what the command prints."""
    command = [sys.executable, "-m", "compiler.cli", "ops", "--format", "md"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PAGE.parents[1]).stdout
    return HEAD + printed.rstrip() + "\n"


def measure() -> dict[str, dict[str, Any]]:
    """Findings by operator: counts of cases, and types."""
    cases = load_cases()
    outcomes = {"interpreter": expected.read("REFERENCE"), "c": expected.read("CPU")}
    found: dict[str, dict[str, Any]] = collections.defaultdict(lambda: {"cases": 0, "interpreter": 0, "c": 0})
    simplest: dict[str, Case] = {}
    for name, case in cases.items():
        model = case.model()
        for op in {f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in _nodes(model.graph)}:
            found[op]["cases"] += 1
            for device, passed in outcomes.items():
                found[op][device] += passed.get(name) == "passed"
        if len(model.graph.node) == 1 and outcomes["interpreter"].get(name) == "passed":
            node = model.graph.node[0]
            op = f"{node.domain or 'ai.onnx'}::{node.op_type}"
            if op not in simplest or len(node.input) < len(simplest[op].model().graph.node[0].input):
                simplest[op] = case
    backend = find_backend("c")
    steps = backend.pipeline().passes
    legal = Pipeline(steps[: 1 + max(i for i, step in enumerate(steps) if step.name == "legalize")])
    for op, case in sorted(simplest.items()):
        found[op].update(_types(case, legal))
    known = {f"{entry.domain or 'ai.onnx'}::{entry.name}" for entry in all_ops()}
    return {op: entry for op, entry in found.items() if op in known or entry["cases"]}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _types(case: Case, legal: Pipeline) -> dict[str, Any]:
    """Types of the first input of a case's node that are imported, and that the C target's passes take."""
    model = case.model()
    node = model.graph.node[0]
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    first = next((i for i, name in enumerate(node.input) if name), None)
    if first is None or first >= len(schema.inputs):
        return {}
    variable = schema.inputs[first].type_str
    numbers = [(t, _number(t)) for t in sorted(schema.inputs[first].types)]
    names = {t: element_type(n).name for t, n in numbers if n is not None}
    inputs, _ = next(iter(case.data_sets()))
    taken, compiled = [], []
    for text, number in numbers:
        if number is None:
            continue
        typed = _retyped(model, schema, variable, number)
        imported = _import(typed, inputs)
        if imported is None:
            continue
        taken.append(names[text])
        try:
            legal.run(imported)
        except CompileError:
            continue
        compiled.append(names[text])
    return {"types": sorted(taken), "types_c": sorted(compiled), "schema_types": len(names)} if names else {}


def _number(text: str) -> int | None:
    """The element type of `tensor(float)`; None for sequences and the like."""
    if not text.startswith("tensor("):
        return None
    return onnx.TensorProto.DataType.Value(text[len("tensor(") : -1].upper())


def _retyped(model: onnx.ModelProto, schema: Any, variable: str, number: int) -> onnx.ModelProto:
    """The model with another element type wherever the schema says `variable`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    declared = {value.name: value for value in [*made.graph.input, *made.graph.output]}
    node = made.graph.node[0]
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for position, name in enumerate(names):
            formal = formals[min(position, len(formals) - 1)]
            if formal.type_str == variable and name in declared and declared[name].type.HasField("tensor_type"):
                declared[name].type.tensor_type.elem_type = number
    return made


def _import(model: onnx.ModelProto, inputs: Sequence[Any]) -> Model | None:
    """The imported model, with the inputs that it asks for as constants; None where it is refused."""
    given = {value.name: (value, x) for value, x in zip(model.graph.input, inputs)}
    constants: dict[str, np.ndarray] = {}
    while True:
        try:
            return load(model, constants=constants)
        except CompileError as error:
            needs = {n for each in getattr(error, "errors", (error,)) for n in getattr(each, "needs", ())}
            if not needs - constants.keys():
                return None
            for name in needs:
                value, x = given[name]
                dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                constants[name] = np.asarray(x).astype(dtype)


if __name__ == "__main__":
    sys.exit(main())
