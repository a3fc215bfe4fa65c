"""Renews what `sesame ops` says of each operator, and the page that shows it.

    python -m tests.onnx.suite.operators

Cases are counted from the checked-in outcomes (`python -m tests.onnx.suite --update`); types are probed: the operator's
simplest case with each type of its newest schema is imported and given to the C target's passes.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
    simplest: dict[str, tuple[tuple[int, int], Case]] = {}
    for name, case in cases.items():
        model = case.model()
        for op in {f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in _nodes(model.graph)}:
            found[op]["cases"] += 1
            for device, passed in outcomes.items():
                found[op][device] += passed.get(name) == "passed"
        if len(model.graph.node) == 1 and outcomes["interpreter"].get(name) == "passed":
            node = model.graph.node[0]
            op = f"{node.domain or 'ai.onnx'}::{node.op_type}"
            rank = (-_version(model), len(node.input))
            if op not in simplest or rank < simplest[op][0]:
                simplest[op] = (rank, case)
    backend = find_backend("c")
    steps = backend.pipeline().passes
    legal = Pipeline(steps[: 1 + max(i for i, step in enumerate(steps) if step.name == "legalize")])
    for op, (_, case) in sorted(simplest.items()):
        found[op].update(_types(case, legal))
    known = {f"{entry.domain or 'ai.onnx'}::{entry.name}" for entry in all_ops()}
    return {op: entry for op, entry in found.items() if op in known or entry["cases"]}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _version(model: onnx.ModelProto) -> int:
    """The version that the schema of a model's first node is of."""
    node = model.graph.node[0]
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    return onnx.defs.get_schema(node.op_type, version, node.domain).since_version


def _types(case: Case, legal: Pipeline) -> dict[str, Any]:
    """Types of the first input of a case's node that are imported, and that the C target's passes take."""
    inputs, _ = next(iter(case.data_sets()))
    model = newest(case.model(), inputs)
    node = model.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, _version(model), node.domain)
    first = next((i for i, name in enumerate(node.input) if name), None)
    if first is None or first >= len(schema.inputs):
        return {}
    numbers = [(t, _number(t)) for t in sorted(schema.inputs[first].types)]
    names = {t: element_type(n).name for t, n in numbers if n is not None}
    taken, compiled = [], []
    for text, number in numbers:
        if number is None:
            continue
        imported = _import(retyped(model, schema.inputs[first].type_str, number), inputs)
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


def newest(model: onnx.ModelProto, inputs: Sequence[Any]) -> onnx.ModelProto:
    """The model in the newest version of its operator, as far as it is one of that version, too."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = made.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
    if schema.deprecated or schema.since_version <= _version(model):
        return made
    made.ir_version = onnx.IR_VERSION
    next(o for o in made.opset_import if o.domain == node.domain).version = schema.since_version
    return made if _import(made, inputs) is not None else model


def retyped(model: onnx.ModelProto, variable: str, number: int) -> onnx.ModelProto:
    """The model of one node with another element type wherever the node's schema says `variable`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, node = made.graph, made.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, _version(model), node.domain)
    names = {
        name
        for given, formals in ((node.input, schema.inputs), (node.output, schema.outputs))
        for position, name in enumerate(given)
        if formals[min(position, len(formals) - 1)].type_str == variable
    }
    _declare(graph, names, number)
    for tensor in graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(_constant(tensor.name, onnx.numpy_helper.to_array(tensor), number))
    if node.op_type in _ATTRIBUTES:
        _ATTRIBUTES[node.op_type](graph, number)
    return made


def _declare(graph: onnx.GraphProto, names: set[str], number: int) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.name in names and value.type.HasField("tensor_type"):
            value.type.tensor_type.elem_type = number


def _constant(name: str, array: np.ndarray, number: int) -> onnx.TensorProto:
    if number == onnx.TensorProto.STRING:
        return onnx.numpy_helper.from_array(np.array([str(x) for x in array.flat], object).reshape(array.shape), name)
    numbers = np.arange(array.size).reshape(array.shape) if array.dtype == object else array
    return onnx.numpy_helper.from_array(numbers.astype(onnx.helper.tensor_dtype_to_np_dtype(number)), name)


def _replace(node: onnx.NodeProto, old: str, **attributes: Any) -> None:
    """Gives a node other attributes in place of those whose names begin with `old`."""
    kept = [a for a in node.attribute if not a.name.startswith(old)]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in attributes.items())])


def _bit_cast(graph: onnx.GraphProto, number: int) -> None:
    """`to` must be of as many bits."""
    unsigned = f"UINT{element_type(number).bits}"
    to = dict(onnx.TensorProto.DataType.items()).get(unsigned, number)
    _replace(graph.node[0], "to", to=to)
    _declare(graph, {graph.node[0].output[0]}, to)


def _label_encoder(graph: onnx.GraphProto, number: int) -> None:
    """Keys are of the type of the input."""
    count = next(len(a.strings) or len(a.ints) or len(a.floats) for a in graph.node[0].attribute if "keys" in a.name)
    _replace(graph.node[0], "keys_", keys_tensor=_constant("keys", np.arange(count), number))


def _ngrams(graph: onnx.GraphProto, number: int) -> None:
    """What is counted is of the type of the input."""
    if number == onnx.TensorProto.STRING:
        (pool,) = (a.ints for a in graph.node[0].attribute if a.name == "pool_int64s")
        _replace(graph.node[0], "pool_int64s", pool_strings=[str(x) for x in pool])


def _scan(graph: onnx.GraphProto, number: int) -> None:
    """The body has a type of its own, and is the identity: not every type has a sum."""
    (body,) = (a.g for a in graph.node[0].attribute if a.name == "body")
    del body.node[:]
    body.node.extend(onnx.helper.make_node("Identity", [i.name], [o.name]) for i, o in zip(body.input, body.output))
    _declare(body, {value.name for value in [*body.input, *body.output]}, number)


_ATTRIBUTES: dict[str, Callable[[onnx.GraphProto, int], None]] = {
    "BitCast": _bit_cast, "LabelEncoder": _label_encoder, "Scan": _scan, "TfIdfVectorizer": _ngrams,
}  # fmt: skip
"""What else of an operator follows from the type of its input."""


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
