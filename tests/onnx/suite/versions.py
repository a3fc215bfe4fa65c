"""Cases in older opsets: the same node as an earlier schema of its operator puts it.

What has become an input was an attribute, or the reverse; defaults that changed are written out. Where the meaning
itself changed, so that the case's outputs are not those of the older operator, ONNX Runtime gives a second opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from tests.onnx.suite.judge import Outcome, difference

OLDEST = 7


@dataclass(frozen=True)
class Older:
    """A case as opset `opset` expresses it, with the inputs that are left."""

    opset: int
    model: onnx.ModelProto
    inputs: list[Any]


def downgraded(model: onnx.ModelProto, inputs: Sequence[Any]) -> Iterator[Older]:
    """The model in every older opset at which its one operator has another schema that can express it."""
    nodes = model.graph.node
    opsets = {o.domain: o.version for o in model.opset_import}
    if len(nodes) != 1 or nodes[0].domain not in ("", "ai.onnx") or "" not in opsets or model.functions:
        return
    op, opset = nodes[0].op_type, opsets[""]
    newest = onnx.defs.get_schema(op, opset)
    history = {s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""}
    for since in sorted((v for v in history if v < newest.since_version), reverse=True):
        if _last_opset(history, since) < OLDEST:
            continue
        schema = onnx.defs.get_schema(op, since)
        found = None if schema.deprecated else _expressed(model, inputs, newest, schema)
        if found is not None:
            yield Older(max(since, OLDEST), *found)


def _last_opset(history: set[int], since: int) -> int:
    return min(v for v in history if v > since) - 1


def _expressed(
    model: onnx.ModelProto, inputs: Sequence[Any], newest: Any, schema: Any
) -> tuple[onnx.ModelProto, list[Any]] | None:
    """The model with its node as `schema` has it, and the inputs of the model that are left; None where it cannot."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = made.graph.node[0]
    feeds = {value.name: x for value, x in zip(made.graph.input, inputs)}
    moved = _move_inputs(node, feeds, newest, schema)
    if moved is None or not _fit_attributes(node, newest, schema) or not _types_fit(node, made, schema):
        return None
    if len([name for name in node.output if name]) > schema.max_output:
        return None
    left = [(value, x) for value, x in zip(made.graph.input, inputs) if value.name not in moved]
    del made.graph.input[:]
    made.graph.input.extend(value for value, _ in left)
    for entry in made.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(schema.since_version, OLDEST)
    made.ir_version = min(made.ir_version, 10)
    return made, [x for _, x in left]


def _move_inputs(node: onnx.NodeProto, feeds: dict[str, Any], newest: Any, schema: Any) -> set[str] | None:
    """Turns inputs that `schema` does not have into its attributes; the inputs that are gone. None where it cannot."""
    gone: set[str] = set()
    kept = list(node.input)
    names = [formal.name for formal in newest.inputs]
    older = [formal.name for formal in schema.inputs]
    if schema.max_input > 1000:  # variadic
        return gone
    for position in range(len(kept) - 1, -1, -1):
        if position < schema.max_input and (position >= len(names) or names[position] not in schema.attributes):
            continue
        name = kept.pop(position)
        if not name:
            continue
        formal = names[position]
        if formal not in schema.attributes or formal in older or name not in feeds or position < len(kept):
            return None
        x = np.asarray(feeds[name])
        wanted = schema.attributes[formal].type
        value = x.tolist()
        if wanted in (onnx.defs.OpSchema.AttrType.INTS, onnx.defs.OpSchema.AttrType.FLOATS):
            value = x.reshape(-1).tolist()
        elif x.size != 1:
            return None
        else:
            value = x.reshape(-1).tolist()[0]
        if value == []:
            return None
        node.attribute.append(onnx.helper.make_attribute(formal, value))
        gone.add(name)
    while kept and not kept[-1]:
        kept.pop()
    if not schema.min_input <= len(kept) <= schema.max_input:
        return None
    del node.input[:]
    node.input.extend(kept)
    return gone


def _fit_attributes(node: onnx.NodeProto, newest: Any, schema: Any) -> bool:
    """Drops attributes that the older schema lacks and that have their defaults, and writes out changed defaults."""
    given = {a.name: a for a in node.attribute}
    for name, attribute in list(given.items()):
        if name in schema.attributes:
            if attribute.type != int(schema.attributes[name].type.value):
                return False
            continue
        default = newest.attributes[name].default_value if name in newest.attributes else onnx.AttributeProto()
        if not default.name or onnx.helper.get_attribute_value(default) != onnx.helper.get_attribute_value(attribute):
            return False
        node.attribute.remove(attribute)
    for name, new in newest.attributes.items():
        if name in given or not new.default_value.name:
            continue
        old = schema.attributes.get(name)
        if old is None:
            continue  # what it was before there was a choice
        if not old.default_value.name or _value(old.default_value) != _value(new.default_value):
            node.attribute.append(new.default_value)
    return all(name in {a.name for a in node.attribute} for name, a in schema.attributes.items() if a.required)


def _value(attribute: onnx.AttributeProto) -> Any:
    return onnx.helper.get_attribute_value(attribute)


def _types_fit(node: onnx.NodeProto, model: onnx.ModelProto, schema: Any) -> bool:
    """Whether the older schema takes the types of the inputs that are left."""
    declared = {value.name: value.type for value in [*model.graph.input, *model.graph.output]}
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for position, name in enumerate(names):
            if name not in declared:
                continue
            formal = formals[min(position, len(formals) - 1)]
            if _type_text(declared[name]) not in formal.types:
                return False
    return True


def _type_text(type_: onnx.TypeProto) -> str:
    if type_.HasField("sequence_type"):
        return f"seq({_type_text(type_.sequence_type.elem_type)})"
    if type_.HasField("optional_type"):
        return f"optional({_type_text(type_.optional_type.elem_type)})"
    name = onnx.TensorProto.DataType.Name(type_.tensor_type.elem_type).lower()
    return f"tensor({name})"


def second_opinion(older: Older, outcome: Outcome, run: Callable[[onnx.ModelProto, Sequence[Any]], Any]) -> Outcome:
    """The outcome where the older operator means something else: what ONNX Runtime makes of it is right."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    stripped = onnx.ModelProto()
    stripped.CopyFrom(older.model)
    for value in stripped.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        session = onnxruntime.InferenceSession(stripped.SerializeToString(), options, ["CPUExecutionProvider"])
        expected = session.run(None, {v.name: x for v, x in zip(stripped.graph.input, older.inputs)})
    except Exception as error:
        return replace(outcome, reason=f"{outcome.reason}; ONNX Runtime has no opinion ({str(error)[:100]})")
    wrong = difference(list(run(stripped, older.inputs)), expected, 1e-3, 1e-5)
    if wrong:
        return replace(outcome, reason=f"{outcome.reason}; from ONNX Runtime: {wrong}")
    return replace(outcome, status="passed", code="", reason="", note="means something else, as ONNX Runtime has it")
