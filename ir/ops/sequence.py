"""Sequences of tensors, and optional values: in NumPy a list, and None for nothing. Only a graph interpreter has them.

Importers fold what is known when compiling, so that a sequence made and taken apart again leaves only tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, symbol
from ir.graph import Graph
from ir.op import Op, OpError, case, op, require
from ir.ops.control import joined_element, merged_type, run
from ir.types import DType, OptionalType, SequenceType, TensorType, Type


def sequence_element(what: str, sequence: Type) -> Type:
    """The type of the elements. Raises OpError for what is no sequence."""
    if isinstance(sequence, OptionalType):
        sequence = sequence.element
    if not isinstance(sequence, SequenceType):
        raise OpError(f"{what} does not take {sequence}")
    return sequence.element


def _place(sequence: list[Any], position: np.ndarray | None, end: int) -> int:
    """A position (the last of `end` by default) as an index from 0. Raises IndexError."""
    at = end - 1 if position is None else int(position.item())
    at = at + len(sequence) if at < 0 else at
    if not 0 <= at < end:
        raise IndexError(f"position {at} in a sequence of {len(sequence)}")
    return at


@op
class SequenceConstruct(Op):
    """The sequence of the operands. Sizes in which they differ are symbols that begin with `label`."""

    structural = True
    label: str = "sequence"
    examples = [case("f32[2]", "f32[2]")]

    def infer(self, *xs: Type) -> SequenceType:
        require(len(xs) > 0, "sequence_construct: no operands")
        element = xs[0]
        for x in xs[1:]:
            element = merged_type(element, x, self.label)
        return SequenceType(element)

    def reference(self, *xs: Any) -> list[Any]:
        return list(xs)


@op
class SequenceEmpty(Op):
    """A sequence of no tensors of `dtype`."""

    structural = True
    dtype: DType = t.f32

    def infer(self) -> SequenceType:
        return SequenceType(TensorType(self.dtype, ()))

    def reference(self) -> list[Any]:
        return []


@op
class SequenceAt(Op):
    """The element at `position`, from the end where it is negative."""

    structural = True

    def infer(self, sequence: Type, position: TensorType) -> Type:
        return sequence_element("sequence_at", sequence)

    def reference(self, sequence: list[Any], position: np.ndarray) -> Any:
        return sequence[_place(sequence, position, len(sequence))]


@op
class SequenceInsert(Op):
    """The sequence with x inserted before `position`, or at the end."""

    structural = True
    label: str = "sequence"

    def infer(self, sequence: Type, x: Type, position: TensorType | None = None) -> SequenceType:
        return SequenceType(joined_element(sequence_element("sequence_insert", sequence), x, self.label))

    def reference(self, sequence: list[Any], x: Any, position: np.ndarray | None = None) -> list[Any]:
        at = _place(sequence, position, len(sequence) + 1)
        return [*sequence[:at], x, *sequence[at:]]


@op
class SequenceErase(Op):
    """The sequence without the element at `position`, or without the last."""

    structural = True

    def infer(self, sequence: Type, position: TensorType | None = None) -> SequenceType:
        return SequenceType(sequence_element("sequence_erase", sequence))

    def reference(self, sequence: list[Any], position: np.ndarray | None = None) -> list[Any]:
        at = _place(sequence, position, len(sequence))
        return [*sequence[:at], *sequence[at + 1 :]]


@op
class SequenceLength(Op):
    """The number of elements, i64[]."""

    structural = True

    def infer(self, sequence: Type) -> TensorType:
        sequence_element("sequence_length", sequence)
        return TensorType(t.i64, ())

    def reference(self, sequence: list[Any]) -> np.ndarray:
        return np.array(len(sequence), np.int64)


@op
class SplitToSequence(Op):
    """Pieces of x along `axis`: of the sizes `split` (rank 1), or all of that size but the last (rank 0)."""

    structural = True
    axis: int = 0
    label: str = "split"

    def infer(self, x: TensorType, split: TensorType) -> SequenceType:
        require(0 <= self.axis < x.rank, lambda: f"split_to_sequence: axis {self.axis} of {x}")
        shape: list[Size] = list(x.shape)
        shape[self.axis] = symbol(f"{self.label}.{self.axis}")
        return SequenceType(x.with_shape(shape))

    def reference(self, x: np.ndarray, split: np.ndarray) -> list[np.ndarray]:
        size = x.shape[self.axis]
        ends = np.cumsum(split)[:-1] if split.ndim else np.arange(split.item(), size, split.item())
        return np.split(x, ends, axis=self.axis)


@op
class ConcatFromSequence(Op):
    """The elements one after the other along `axis`, which is a new one where `stack`."""

    structural = True
    axis: int = 0
    stack: bool = False
    label: str = "concat"

    def infer(self, sequence: Type) -> TensorType:
        element = sequence_element("concat_from_sequence", sequence)
        if not isinstance(element, TensorType):
            raise OpError(f"concat_from_sequence does not take a sequence of {element}")
        size = symbol(f"{self.label}.{self.axis}")
        before, after = element.shape[: self.axis], element.shape[self.axis if self.stack else self.axis + 1 :]
        return element.with_shape((*before, size, *after))

    def reference(self, sequence: list[np.ndarray]) -> np.ndarray:
        return np.stack(sequence, axis=self.axis) if self.stack else np.concatenate(sequence, axis=self.axis)


@op
class SequenceMap(Op):
    """The sequences of what `body` gives for each element of the first operand.

    Operands are `given` sequences and tensors, the inputs of the body in order, then what it captures. Elements of
    further sequences go along with those of the first; tensors are the same for all.
    """

    structural = True
    body: Graph
    given: int

    def infer(self, first: Type, *others: Type) -> Any:
        sequence_element("sequence_map", first)
        types = tuple(SequenceType(v.type) for v in self.body.outputs)
        return types[0] if len(types) == 1 else types

    def reference(self, *operands: Any) -> Any:
        given, captures = operands[: self.given], operands[self.given :]
        made: list[list[Any]] = [[] for _ in self.body.outputs]
        for i in range(len(given[0])):
            outs = run(self.body, [*(x[i] if isinstance(x, list) else x for x in given), *captures])
            for row, item in zip(made, outs):
                row.append(item)
        return made[0] if len(made) == 1 else tuple(made)


@op
class Optional_(Op):
    """x as an optional value; nothing of type `type` without x."""

    name = "optional"
    structural = True
    type: Type | None = None

    def infer(self, x: Type | None = None) -> OptionalType:
        element = x if x is not None else self.type
        require(element is not None, "optional: without a value, its type must be given")
        assert element is not None
        return OptionalType(element)

    def reference(self, x: Any = None) -> Any:
        return x


@op
class OptionalHasElement(Op):
    """Whether the optional holds a value."""

    structural = True

    def infer(self, x: Type) -> TensorType:
        return TensorType(t.bool_, ())

    def reference(self, x: Any) -> np.ndarray:
        return np.array(x is not None)


@op
class OptionalGetElement(Op):
    """The value in the optional."""

    structural = True

    def infer(self, x: Type) -> Type:
        return x.element if isinstance(x, OptionalType) else x

    def reference(self, x: Any) -> Any:
        if x is None:
            raise ValueError("the optional is empty")
        return x
