"""Sequences of tensors, and optional values: in NumPy a list, and None for nothing.

Importers fold what is known when compiling, so that a sequence made and taken apart again leaves only tensors. For
targets without sequences, `on_parts` says what an op is on the tensors that make one up (see `ir.parts`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Dim, Size, ceil_div, maximum, symbol
from ir.graph import Graph
from ir.op import Op, OpError, case, define, define_shape, op, require, sizes
from ir.ops.control import Loop, joined_element, merged_type, run
from ir.parts import NO_AXIS, Items, Maybe
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


def fitted(b: Any, form: Any, type_: Type) -> Any:
    """A form as one for values of `type_`: there where that is optional, and of its number of axes."""
    if isinstance(type_, OptionalType):
        given = form if isinstance(form, Maybe) else Maybe(b.const(np.array(True)), form)
        return Maybe(given.present, fitted(b, given.value, type_.element))
    if not isinstance(type_, SequenceType) or not isinstance(type_.element, TensorType):
        return form
    axes = type_.element.rank or form.axes
    return Items(form.count, filled(b, form.sizes, axes, NO_AXIS), form.elements)


def filled(b: Any, x: Any, size: Size, fill: int = 0) -> Any:
    """x with its last axis filled up to `size`."""
    before, after = (0,) * x.rank, (*(0,) * (x.rank - 1), size - x.shape[-1])
    value = b.const("" if x.dtype is t.string else fill, x.dtype)
    return x if x.shape[-1] == size else b.pad(x, value, before=before, after=after)


def _room(x: Any) -> Size:
    """The room that an element needs in a row: no less than its elements, or than the product of any of its sizes."""
    return math.prod((maximum(1, size) for size in x.shape), start=1)  # type: ignore[return-value]


def _row(b: Any, x: Any, room: Size) -> Any:
    """The elements of x as a row of `room`."""
    return filled(b, b.reshape(x, shape=(x.tensor.elements,)), room)


def _sizes(b: Any, x: Any, axes: Size) -> Any:
    """The shape of x as a row of `axes` sizes."""
    return filled(b, b.dims(x.shape), axes, NO_AXIS)


def _checked_position(b: Any, sequence: Items, position: Any, beyond: int) -> Any:
    """A position in a sequence as an index from 0, checked to be below its length and `beyond`; the last by default."""
    end = b.add(sequence.count, beyond)
    if position is None:
        return b.sub(end, 1)
    position = b.cast(b.reshape(position, shape=()), to=t.i64)
    at = b.where(b.less(position, 0), b.add(position, sequence.count), position)
    return b.checked(at, b.cast(b.and_(b.less(-1, at), b.less(at, end)), to=t.i64))


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

    def on_parts(self, b: Any, *xs: Any) -> Items:
        axes, room = max(x.rank for x in xs), maximum(*map(_room, xs))
        own = [b.reshape(_sizes(b, x, axes), shape=(1, axes)) for x in xs]
        rows = [b.reshape(_row(b, x, room), shape=(1, room)) for x in xs]
        return Items(b.dims(len(xs)), b.concat(*own, axis=0), b.concat(*rows, axis=0))


@op
class SequenceEmpty(Op):
    """A sequence of no tensors of `dtype`."""

    structural = True
    dtype: DType = t.f32

    def infer(self) -> SequenceType:
        return SequenceType(TensorType(self.dtype, ()))

    def reference(self) -> list[Any]:
        return []

    def on_parts(self, b: Any) -> Items:
        nothing = np.empty((0, 0), self.dtype.numpy)
        return Items(b.dims(0), b.const(np.empty((0, 0), np.int64)), b.const(nothing, self.dtype))


@op
class SequenceAt(Op):
    """The element at `position`, from the end where it is negative, as a tensor of `shape`."""

    structural = True
    shape: sizes = ()
    defines = ("shape",)

    def infer(self, sequence: Type, position: TensorType) -> Type:
        element = sequence_element("sequence_at", sequence)
        require(isinstance(element, TensorType), lambda: f"sequence_at does not take {sequence}")
        assert isinstance(element, TensorType)
        define_shape(self.shape, None)
        return element.with_shape(self.shape)

    def reference(self, sequence: list[Any], position: np.ndarray) -> Any:
        return sequence[_place(sequence, position, len(sequence))]

    def on_parts(self, b: Any, sequence: Items, position: Any) -> Any:
        at = _checked_position(b, sequence, position, 0)
        own = b.gather(sequence.sizes, at, axis=0)
        counts = [b.gather(own, b.const(axis, t.i64), axis=0) for axis in range(len(self.shape))]
        return b.row_tensor(b.gather(sequence.elements, at, axis=0), *counts, shape=self.shape)


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

    def on_parts(self, b: Any, sequence: Items, x: Any, position: Any = None) -> Items:
        at = _checked_position(b, sequence, position, 1)
        axes, room = maximum(sequence.axes, x.rank), maximum(sequence.room, _room(x))
        own = b.insert_row(filled(b, sequence.sizes, axes, NO_AXIS), _sizes(b, x, axes), at)
        rows = b.insert_row(filled(b, sequence.elements, room), _row(b, x, room), at)
        return Items(b.add(sequence.count, 1), own, rows)


@op
class SequenceErase(Op):
    """The sequence without the element at `position`, or without the last."""

    structural = True

    def infer(self, sequence: Type, position: TensorType | None = None) -> SequenceType:
        return SequenceType(sequence_element("sequence_erase", sequence))

    def reference(self, sequence: list[Any], position: np.ndarray | None = None) -> list[Any]:
        at = _place(sequence, position, len(sequence))
        return [*sequence[:at], *sequence[at + 1 :]]

    def on_parts(self, b: Any, sequence: Items, position: Any = None) -> Items:
        at = _checked_position(b, sequence, position, 0)
        own, rows = b.remove_row(sequence.sizes, at), b.remove_row(sequence.elements, at)
        return Items(b.sub(sequence.count, 1), own, rows)


@op
class SequenceLength(Op):
    """The number of elements, i64[]."""

    structural = True

    def infer(self, sequence: Type) -> TensorType:
        sequence_element("sequence_length", sequence)
        return TensorType(t.i64, ())

    def reference(self, sequence: list[Any]) -> np.ndarray:
        return np.array(len(sequence), np.int64)

    def on_parts(self, b: Any, sequence: Items) -> Any:
        return sequence.count


@op
class SplitToSequence(Op):
    """Pieces of x along `axis`: of the sizes `split` (rank 1), or all of that size but the last (rank 0).

    Without `keep`, pieces of size 1 have no such axis.
    """

    structural = True
    axis: int = 0
    keep: bool = True
    label: str = "split"

    def infer(self, x: TensorType, split: TensorType) -> SequenceType:
        require(0 <= self.axis < x.rank, lambda: f"split_to_sequence: axis {self.axis} of {x}")
        size = symbol(f"{self.label}.{self.axis}")
        if self.keep:
            define(size, x.shape[self.axis])
        own = (size,) if self.keep else ()
        return SequenceType(x.with_shape((*x.shape[: self.axis], *own, *x.shape[self.axis + 1 :])))

    def reference(self, x: np.ndarray, split: np.ndarray) -> list[np.ndarray]:
        size = x.shape[self.axis]
        step = max(1, int(split)) if split.ndim == 0 else 0
        own = split.tolist() if split.ndim else [min(step, size - start) for start in range(0, size, step)]
        if (split.ndim == 0 and split < 1) or any(n < 0 for n in own) or sum(own) != size:
            raise ValueError(f"pieces of {split.tolist()} of an axis of {size}")
        pieces = np.split(x, np.cumsum(own)[:-1].astype(np.int64), axis=self.axis) if own else []
        return pieces if self.keep else [np.squeeze(piece, self.axis) for piece in pieces]

    def on_parts(self, b: Any, x: Any, split: Any) -> Items:
        size, split = x.shape[self.axis], b.cast(split, to=t.i64)
        if split.rank == 1:
            most, count, own = split.shape[0], b.dims(split.shape[0]), split
            starts = b.cum_sum(split, axis=0, exclusive=True)
            whole = b.reduce_sum(split, axes=(0,), keepdims=False)
            outside = b.or_(b.less(split, 0), b.less(b.dims(size), split))  # of no more than that, no sum overflows
            wrong = b.reduce_sum(b.cast(outside, to=t.i64), axes=(0,), keepdims=False)
            wrong = b.add(wrong, b.cast(b.not_(b.equal(whole, b.dims(size))), to=t.i64))
            starts = b.checked(starts, wrong, holds=0)
        else:
            step = b.max(split, 1)
            known = None if split.content is None else split.content.item()
            most = ceil_div(size, max(1, known)) if isinstance(known, int) else size
            starts = b.mul(b.iota(shape=(most,), axis=0, dtype=t.i64), step)
            own = b.min(b.max(b.sub(b.dims(size), starts), 0), step)
            count = b.div(b.sub(b.add(b.dims(size), step), 1), step)
            count = b.checked(count, b.cast(b.less(0, split), to=t.i64))
        rows = b.piece_rows(x, starts, own, axis=self.axis, room=_room(x))
        columns = [
            b.reshape(own, shape=(most, 1)) if axis == self.axis else b.expand(b.dims((extent,)), shape=(most, 1))
            for axis, extent in enumerate(x.shape)
            if self.keep or axis != self.axis
        ]
        sizes_ = b.concat(*columns, axis=1) if columns else b.full(shape=(most, 0), dtype=t.i64)
        return Items(count, sizes_, rows)


@op
class ConcatFromSequence(Op):
    """The elements one after the other along `axis`, which is a new one where `stack`, as a tensor of `shape`."""

    structural = True
    axis: int = 0
    stack: bool = False
    shape: sizes = ()
    defines = ("shape",)

    def infer(self, sequence: Type) -> TensorType:
        element = sequence_element("concat_from_sequence", sequence)
        if not isinstance(element, TensorType):
            raise OpError(f"concat_from_sequence does not take a sequence of {element}")
        define_shape(self.shape, None)
        return element.with_shape(self.shape)

    def reference(self, sequence: list[np.ndarray]) -> np.ndarray:
        return np.stack(sequence, axis=self.axis) if self.stack else np.concatenate(sequence, axis=self.axis)

    def on_parts(self, b: Any, sequence: Items) -> Any:
        """Elements must be as many as there are rows to read, and of one shape but for the axis."""
        is_given = b.less(b.iota(shape=(sequence.most,), axis=0, dtype=t.i64), sequence.count)
        axes = [a for a in range(len(self.shape)) if a != self.axis]
        columns = {
            axis: b.gather(sequence.sizes, b.const(axis - (self.stack and axis > self.axis), t.i64), axis=1)
            for axis in (axes if self.stack else range(len(self.shape)))
        }
        zero = b.const(0, t.i64)
        own = b.where(is_given, b.const(1, t.i64) if self.stack else columns[self.axis], zero)
        counts = {axis: b.gather(columns[axis], zero, axis=0) for axis in axes}
        counts[self.axis] = b.reduce_sum(own, axes=(0,), keepdims=False)
        wrong = b.cast(b.less(sequence.count, 1), to=t.i64)
        negative = b.cast(b.less(own, 0), to=t.i64)
        wrong = b.add(wrong, b.reduce_sum(negative, axes=(0,), keepdims=False))
        for axis in axes:
            other = b.and_(is_given, b.not_(b.equal(columns[axis], counts[axis])))
            wrong = b.add(wrong, b.reduce_sum(b.cast(other, to=t.i64), axes=(0,), keepdims=False))
        starts = b.checked(b.cum_sum(own, axis=0, exclusive=True), wrong, holds=0)
        given = [counts[axis] for axis in range(len(self.shape))]
        return b.joined_rows(sequence.elements, starts, own, *given, axis=self.axis, shape=self.shape)


@op
class SequenceMap(Op):
    """The sequences of what `body` gives for each element of the first operand.

    Operands are `given` sequences and tensors, the inputs of the body in order, then what it captures. Elements of
    further sequences go along with those of the first; tensors are the same for all.
    """

    structural = True
    body: Graph
    given: int
    label: str = "map"

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

    def expand(self, b: Any, *operands: Any) -> Any:
        """The loop that takes an element of each sequence, and puts what the body makes of them at the end."""
        given, captures = operands[: self.given], operands[self.given :]
        kinds = [SequenceType(v.type) for v in self.body.outputs]
        body = Graph(self.body.name)
        body.bounds, body.limits, body.equal_dims = b.graph.bounds, b.graph.limits, list(self.body.equal_dims)
        step, going = body.add_input("step", TensorType(t.i64, ())), body.add_input("going", TensorType(t.bool_, ()))
        made = [body.add_input(f"made{i}", kind) for i, kind in enumerate(kinds)]
        outer = [body.add_input(v.name, v.type) for v in operands]
        with b.nested(body) as c:
            inner = [
                c.sequence_at(x, step, shape=own.shape) if isinstance(x.type, SequenceType) else x
                for x, own in zip(outer[: self.given], self.body.inputs)
            ]
            results = c.splice(self.body, [*inner, *outer[self.given :]])
            longer = [c.sequence_insert(row, x, label=f"{self.label}.made.{i}")
                      for i, (row, x) in enumerate(zip(made, results))]  # fmt: skip
            for value, kind in zip(longer, kinds):
                value.type = kind
            body.set_outputs([going, *longer])
        empty = [b.sequence_empty(dtype=v.dtype) for v in self.body.outputs]
        loop = Loop(body, len(kinds), label=self.label)
        return b.apply(loop, b.sequence_length(given[0]), None, *empty, *given, *captures)


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

    def on_parts(self, b: Any, x: Any = None) -> Maybe:
        is_given, value = b.const(np.array(x is not None)), x
        if value is None and isinstance(self.type, SequenceType) and isinstance(self.type.element, TensorType):
            value = SequenceEmpty(self.type.element.dtype).on_parts(b)
        elif value is None:
            require(isinstance(self.type, TensorType), lambda: f"optional: nothing of type {self.type}")
            assert isinstance(self.type, TensorType)
            shape = tuple(0 if isinstance(size, Dim) else size for size in self.type.shape)
            value = b.full(shape=shape, dtype=self.type.dtype)
        return Maybe(is_given, value)


@op
class OptionalHasElement(Op):
    """Whether the optional holds a value."""

    structural = True

    def infer(self, x: Type) -> TensorType:
        return TensorType(t.bool_, ())

    def reference(self, x: Any) -> np.ndarray:
        return np.array(x is not None)

    def on_parts(self, b: Any, x: Any) -> Any:
        return x.present if isinstance(x, Maybe) else b.const(np.array(True))


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

    def on_parts(self, b: Any, x: Any) -> Any:
        if not isinstance(x, Maybe):
            return x
        flag = b.cast(x.present, to=t.i64)
        if isinstance(x.value, Items):
            return Items(b.checked(x.value.count, flag), x.value.sizes, x.value.elements)
        return b.checked(x.value, flag)
