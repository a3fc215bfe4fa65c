"""Function bodies: those a model brings, and those ONNX's own schemas give for operators.

A body becomes a list of nodes with the caller's attributes filled in; the importer inlines them. Nothing is imported
here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
import onnx.defs

from compiler.onnx.load import ELEMENT_TYPES
from ir.dims import dim_text
from ir.types import SequenceType, TensorType, Type

_NUMBER_OF = {dtype: number for number, dtype in ELEMENT_TYPES.items()}


class FunctionLibrary:
    """The functions of a model by domain, name and overload."""

    def __init__(self, functions: Iterable[onnx.FunctionProto]) -> None:
        self._functions = {("" if f.domain == "ai.onnx" else f.domain, f.name, f.overload): f for f in functions}

    def find(self, domain: str, name: str, overload: str) -> onnx.FunctionProto | None:
        return self._functions.get((domain, name, overload))

    def instantiate(
        self, function: onnx.FunctionProto, call: onnx.NodeProto, omitted: set[str]
    ) -> list[onnx.NodeProto]:
        """The body of `function` with attribute references replaced by the call's attributes (or the defaults), and
        inputs that the call omits left empty."""
        given = {a.name: a for a in function.attribute_proto}
        given.update({a.name: a for a in call.attribute})
        nodes = []
        for node in function.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            _fill([copy], given)
            for position, name in enumerate(copy.input):
                if name in omitted:
                    copy.input[position] = ""
            nodes.append(copy)
        return nodes


def _fill(nodes: Sequence[onnx.NodeProto], given: dict[str, onnx.AttributeProto]) -> None:
    """Replaces attribute references in `nodes`, and in graphs inside them, by what is given; drops absent ones."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        kept = []
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                kept.append(attribute)
                continue
            value = given.get(attribute.ref_attr_name)
            if value is not None:
                filled = onnx.AttributeProto()
                filled.CopyFrom(value)
                filled.name = attribute.name
                kept.append(filled)
        if len(kept) != len(node.attribute) or any(a.ref_attr_name for a in node.attribute):
            copies = [onnx.AttributeProto() for _ in kept]
            for copy, attribute in zip(copies, kept):
                copy.CopyFrom(attribute)
            del node.attribute[:]
            node.attribute.extend(copies)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                pending.extend(graph.node)


def may_have_body(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the ONNX schema of an operator gives a function body, at least for some types of inputs."""
    schema = _schema_of(node, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def body_of_schema(node: onnx.NodeProto, opset: int, types: Sequence[Type | None]) -> onnx.FunctionProto | None:
    """The function body that an operator's ONNX schema gives at `opset` for inputs of `types`; None without one."""
    schema = _schema_of(node, opset)
    if schema is None:
        return None
    domain = _domain_of(node)
    if schema.has_function:
        body = schema.function_body
        function = onnx.FunctionProto()
        function.CopyFrom(body)
        _default_attributes(function, schema)
        _ensure_opset(function, domain, opset)
        return function
    if not schema.has_context_dependent_function or any(t is None for t in types):
        return None
    raw = schema.get_context_dependent_function(
        node.SerializeToString(), [type_proto(t).SerializeToString() for t in types if t]
    )
    if not raw:
        return None
    function = onnx.FunctionProto.FromString(raw)
    _default_attributes(function, schema)
    _ensure_opset(function, domain, opset)
    return function


def _domain_of(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _schema_of(node: onnx.NodeProto, opset: int) -> Any:
    """The OpSchema of an operator at `opset`, or None. (Its type stubs leave out all that concerns functions.)"""
    domain = _domain_of(node)
    return onnx.defs.get_schema(node.op_type, opset, domain) if onnx.defs.has(node.op_type, opset, domain) else None


@functools.cache
def attribute_types(domain: str, op_type: str, opset: int) -> Mapping[str, int]:
    """The types (of AttributeProto) of an operator's attributes in its ONNX schema; none for an operator without."""
    schema = _schema_of(onnx.NodeProto(domain=domain, op_type=op_type), opset)
    return {} if schema is None else {name: int(a.type.value) for name, a in schema.attributes.items()}


def _default_attributes(function: onnx.FunctionProto, schema: onnx.defs.OpSchema) -> None:
    present = {a.name for a in function.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in present and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            function.attribute_proto.append(attribute.default_value)


def _ensure_opset(function: onnx.FunctionProto, domain: str, opset: int) -> None:
    if not any(o.domain in (domain, "ai.onnx") for o in function.opset_import):
        function.opset_import.append(onnx.helper.make_opsetid(domain, opset))


def type_proto(type_: Type) -> onnx.TypeProto:
    """`type_` as a TypeProto; symbolic dims as text."""
    proto = onnx.TypeProto()
    if isinstance(type_, SequenceType):
        proto.sequence_type.elem_type.CopyFrom(type_proto(type_.element))
        return proto
    assert isinstance(type_, TensorType)
    proto.tensor_type.elem_type = _NUMBER_OF[type_.dtype]
    proto.tensor_type.shape.SetInParent()
    for size in type_.shape:
        dim = proto.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = dim_text(size)
    return proto
