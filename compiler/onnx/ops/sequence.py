"""Sequences and optionals of ai.onnx. Where elements are known when compiling, operators give them, not sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.load import element_type
from compiler.onnx.ops.control import label
from compiler.onnx.ops.movement import parts_of
from compiler.onnx.registry import onnx_op
from ir.dims import Dim, ceil_div, names
from ir.op import OpError
from ir.types import OptionalType, SequenceType, TensorType


def known_elements(sequence: Any) -> list[Any] | None:
    """The elements of a sequence made in the same graph, None where they are not known."""
    node = sequence.node
    if node is None or node.op.name not in ("sequence_construct", "sequence_empty"):
        return None
    return list(node.inputs)


def made_of(b: Any, elements: list[Any], dtype: Any) -> Any:
    """The sequence of some values; of none, an empty one of tensors of `dtype`."""
    return b.sequence_construct(*elements, label=label(b)) if elements else b.sequence_empty(dtype=dtype)


def element_type_of(sequence: Any) -> TensorType:
    """The type of the tensors in a sequence. Raises OpError for what is none."""
    type_ = sequence.type.element if isinstance(sequence.type, OptionalType) else sequence.type
    if not isinstance(type_, SequenceType) or not isinstance(type_.element, TensorType):
        raise OpError(f"the input is {sequence.type}, not a sequence of tensors")
    return type_.element


def element_shape(b: Any, element: TensorType, axis: int | None = None) -> tuple[Any, ...]:
    """The shape of one element of a sequence, or of several joined along `axis`: sizes in which elements may differ are
    told by the run. Where the rank is not known, it is the one that the model declares for the output."""
    shape: tuple[Any, ...] = element.shape
    if not shape and axis is None:
        shape = (None,) * (b.declared_rank() or 0)
    told = told_by_inputs(b)
    return tuple(
        b.run_time_size(position) if size is None or position == axis or not names(size) <= told else size
        for position, size in enumerate(shape)
    )


def told_by_inputs(b: Any) -> set[str]:
    """The symbols that the shapes of inputs tell. What is declared of the elements of a sequence tells nothing: each
    may have sizes of its own."""
    types = (value.type for value in b.scope.importer.graph.inputs)
    return {name for type_ in types if isinstance(type_, TensorType) for size in type_.shape for name in names(size)}


def _position(position: Any, count: int, end: int) -> int | None:
    """A position that is known when compiling, as an index from 0; None where it is not. Raises OpError."""
    if position is None:
        return end - 1
    at = None if position.content is None else position.content.reshape(-1)[0]
    if at is None or isinstance(at, Dim):
        return None
    at = int(at)
    if not -count <= at < end:
        raise OpError(f"`position` is {at} in a sequence of {count}")
    return at + count if at < 0 else at


@onnx_op("SequenceConstruct", since=11)
def SequenceConstruct(b: Any, *inputs: Any) -> Any:
    return b.sequence_construct(*inputs, label=label(b))


@onnx_op("SequenceEmpty", since=11)
def SequenceEmpty(b: Any, *, dtype: int = 1) -> Any:
    return b.sequence_empty(dtype=element_type(dtype))


@onnx_op("SequenceAt", since=11)
def SequenceAt(b: Any, sequence: Any, position: Any) -> Any:
    elements = known_elements(sequence)
    at = None if elements is None else _position(position, len(elements), len(elements))
    if elements is not None and at is not None:
        return elements[at]
    return b.sequence_at(sequence, position, shape=element_shape(b, element_type_of(sequence)))


@onnx_op("SequenceInsert", since=11)
def SequenceInsert(b: Any, sequence: Any, tensor: Any, position: Any = None) -> Any:
    elements = known_elements(sequence)
    at = None if elements is None else _position(position, len(elements), len(elements) + 1)
    if elements is None or at is None:
        return b.sequence_insert(sequence, tensor, position, label=label(b))
    return made_of(b, [*elements[:at], tensor, *elements[at:]], tensor.dtype)


@onnx_op("SequenceErase", since=11)
def SequenceErase(b: Any, sequence: Any, position: Any = None) -> Any:
    elements = known_elements(sequence)
    at = None if elements is None else _position(position, len(elements), len(elements))
    if elements is None or at is None:
        return b.sequence_erase(sequence, position)
    return made_of(b, [*elements[:at], *elements[at + 1 :]], element_type_of(sequence).dtype)


@onnx_op("SequenceLength", since=11)
def SequenceLength(b: Any, sequence: Any) -> Any:
    elements = known_elements(sequence)
    return b.sequence_length(sequence) if elements is None else b.const(np.array(len(elements), np.int64))


@onnx_op("SplitToSequence", since=11)
def SplitToSequence(b: Any, x: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    if not -x.rank <= axis < x.rank:
        raise OpError(f"`axis` is {axis}, the input {x.type}")
    axis = axis % x.rank
    size = x.shape[axis]
    if split is None:
        pieces = None if not isinstance(size, int) else [1] * size
    else:
        pieces = _pieces(b, split, size)
    if pieces is None:
        keep = bool(keepdims) or split is not None
        split = b.const(np.array(1, np.int64)) if split is None else split
        return b.split_to_sequence(x, split, axis=axis, keep=keep, label=label(b))
    made = parts_of(b, x, axis, pieces)
    if split is None and not keepdims:
        made = tuple(b.reshape(part, shape=(*x.shape[:axis], *x.shape[axis + 1 :])) for part in made)
    return made_of(b, list(made), x.dtype)


def _pieces(b: Any, split: Any, size: Any) -> list[Any] | None:
    """The sizes of the pieces, None where their number is not known when compiling."""
    if split.content is None:
        return None
    if split.rank:
        return list(b.sizes(split, "split"))
    step = b.scalar(split, "split")
    if not isinstance(size, int) or not isinstance(step, int):
        return None
    if step < 1:
        raise OpError(f"`split` is {step}")
    count = int(ceil_div(size, step))
    return [min(step, size - i * step) for i in range(count)]


@onnx_op("ConcatFromSequence", since=11)
def ConcatFromSequence(b: Any, sequence: Any, *, axis: int, new_axis: int = 0) -> Any:
    elements = known_elements(sequence)
    if not elements:
        element = element_type_of(sequence)
        rank = element.rank + (1 if new_axis else 0)
        if elements is not None or not rank:
            raise OpError(f"the input is {sequence.type}, of which nothing can be concatenated")
        axis, size = axis % rank, (1,) if new_axis else ()
        whole = TensorType(element.dtype, (*element.shape[:axis], *size, *element.shape[axis:]))
        shape = element_shape(b, whole, axis)
        return b.concat_from_sequence(sequence, axis=axis, stack=bool(new_axis), shape=shape)
    rank = elements[0].rank + (1 if new_axis else 0)
    if not -rank <= axis < rank:
        raise OpError(f"`axis` is {axis} of {rank}")
    axis = axis % rank
    if new_axis:
        elements = [b.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in elements]
    return b.concat(*elements, axis=axis)


@onnx_op("SequenceMap", since=17)
def SequenceMap(b: Any, input_sequence: Any, *additional_inputs: Any, body: Any) -> Any:
    given = [input_sequence, *additional_inputs]
    rows: list[Any] = [known_elements(x) if isinstance(x.type, SequenceType) else x for x in given]
    if any(row is None for row in rows):
        types = [
            element.with_shape(element_shape(b, element, len(element.shape))) if element is not x.type else x.type
            for x in given
            for element in [element_type_of(x) if isinstance(x.type, SequenceType) else x.type]
        ]
        graph, captured = b.subgraph(body, types, "body")
        return b.sequence_map(*given, *captured, body=graph, given=len(given), label=label(b))
    steps = [b.inline(body, [row[i] if isinstance(row, list) else row for row in rows]) for i in range(len(rows[0]))]
    if not steps:
        raise OpError("the sequence is empty")
    return tuple(made_of(b, list(outs), None) for outs in zip(*steps))


@onnx_op("Optional", since=15)
def Optional(b: Any, input: Any = None, *, type: Any = None) -> Any:
    return b.optional(input, type=None if input is not None else type)


@onnx_op("OptionalHasElement", since=15)
def OptionalHasElement(b: Any, input: Any = None) -> Any:
    if input is not None and isinstance(input.type, OptionalType) and not _is_made(input):
        return b.optional_has_element(input)
    return b.const(np.array(input is not None and not _is_nothing(input)))


def _is_made(x: Any) -> bool:
    return x.node is not None and x.node.op.name == "optional"


def _is_nothing(x: Any) -> bool:
    return _is_made(x) and not [v for v in x.node.inputs if v is not None]


@onnx_op("OptionalGetElement", since=15)
def OptionalGetElement(b: Any, input: Any) -> Any:
    if not isinstance(input.type, OptionalType):
        return input
    if _is_nothing(input):
        raise OpError("the optional is empty")
    return input.node.inputs[0] if _is_made(input) else b.optional_get_element(input)
