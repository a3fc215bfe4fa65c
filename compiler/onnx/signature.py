"""The inputs of a model: their types, and what their dims are called.

ONNX dims are numbers, names, or expressions as text; exporters also write digits, "?" and -1. A name that is not an
expression of other dims is a symbol; the same name is the same symbol everywhere. Dims without one get names of their
own.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import onnx

from compiler.errors import ModelError, UnsupportedError, UsageError
from compiler.onnx.load import element_type
from ir.dims import Dim, Size, names, parse_dim_param, substitute, symbol
from ir.types import MapType, OptionalType, SequenceType, TensorType, Type

_ANONYMOUS = ("", "?", "-1", "None", "unk", "*")


@dataclass(frozen=True)
class DimSpec:
    """What the user says of dims: a number fixes one, a pair bounds it (None: no upper bound).

    `seen` are the names of the dims that the model turns out to have.
    """

    given: Mapping[str, int | tuple[int, int | None]]
    seen: set[str] = field(default_factory=set)

    def size(self, name: str) -> Size:
        fixed = self.given.get(name)
        return fixed if isinstance(fixed, int) else symbol(name)

    def bounds(self) -> dict[str, tuple[int, int | None]]:
        """What symbols are at least and at most; those of inputs that have a fixed size are no symbols."""
        pairs = {name: (v, v) if isinstance(v, int) else v for name, v in self.given.items()}
        return {name: pair for name, pair in pairs.items() if name not in self.seen or pair is self.given[name]}

    def check_names(self, file: str | None) -> None:
        """Raises UsageError for a dim that the model does not have."""
        for name in self.given:
            if name not in self.seen:
                close = difflib.get_close_matches(name, sorted(self.seen), 1)
                known = ", ".join(sorted(self.seen)) or "all fixed"
                hint = f"did you mean '{close[0]}'?" if close else f"its dims are: {known}"
                raise UsageError("E0201", f"the model has no dim called '{name}'", file=file, help=hint)


def input_types(
    graph: onnx.GraphProto, initializers: Container[str], dims: DimSpec, file: str | None
) -> tuple[dict[str, Type], dict[str, tuple[int, int | None]]]:
    """Types of the inputs that a caller must give (initializers listed as inputs are not), and bounds of their dims.

    Raises ModelError for an input without a usable type.
    """
    try:
        return _input_types(graph, initializers, dims, file)
    except ValueError as error:
        raise ModelError("E0304", f"a dim of the inputs cannot be read: {error}", file=file) from error


def _input_types(
    graph: onnx.GraphProto, initializers: Container[str], dims: DimSpec, file: str | None
) -> tuple[dict[str, Type], dict[str, tuple[int, int | None]]]:
    declared = [i for i in graph.input if i.name not in initializers]
    plain = {
        d.dim_param
        for i in declared
        for d in i.type.tensor_type.shape.dim
        if d.HasField("dim_param") and _is_name(d.dim_param)
    }
    types: dict[str, Type] = {}
    for item in declared:
        if item.name in types:
            raise ModelError("E0302", f"two inputs are called '{item.name}'", file=file)
        types[item.name] = _type(item.name, item.type, plain, dims, file)
    return types, dims.bounds()


def _is_name(text: str) -> bool:
    if text.strip() in _ANONYMOUS:
        return False
    return names(parse_dim_param(text)) == {text}


def _type(name: str, proto: onnx.TypeProto, plain: set[str], dims: DimSpec, file: str | None) -> Type:
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        inner = proto.sequence_type.elem_type
        if inner.HasField("tensor_type") and not inner.tensor_type.HasField("shape"):
            return SequenceType(TensorType(element_type(inner.tensor_type.elem_type), ()))  # of any ranks
        return SequenceType(_type(name, inner, plain, dims, file))
    if kind == "optional_type":
        return OptionalType(_type(name, proto.optional_type.elem_type, plain, dims, file))
    if kind == "map_type":
        return MapType(element_type(proto.map_type.key_type), _type(name, proto.map_type.value_type, plain, dims, file))
    if kind != "tensor_type":
        raise ModelError("E0302", f"input '{name}' has no type this compiler reads ({kind})", file=file)
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        raise UnsupportedError("E0404", f"input '{name}' has no shape, so its rank is unknown", file=file,
                               help="give the model an input shape (dims may be symbolic)")  # fmt: skip
    shape = tuple(_size(name, axis, dim, plain, dims) for axis, dim in enumerate(tensor.shape.dim))
    for size in shape:
        if isinstance(size, int) and not 0 <= size <= 2**31:
            raise ModelError("E0304", f"input '{name}' has a dim of size {size}", file=file)
    return TensorType(element_type(tensor.elem_type), shape)


def _size(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension, plain: set[str], dims: DimSpec) -> Size:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    text = dim.dim_param.strip() if dim.HasField("dim_param") else ""
    if text in _ANONYMOUS:
        label = f"{name}_d{axis}"
        dims.seen.add(label)
        return dims.size(label)
    parsed = parse_dim_param(text)
    if isinstance(parsed, Dim) and not names(parsed) <= plain:
        parsed = symbol(text)
    if not isinstance(parsed, Dim):
        return int(parsed)
    dims.seen.update(names(parsed))
    return substitute(parsed, {n: dims.size(n) for n in names(parsed)})
