"""Sequences and optionals as tensors, for targets that have neither.

A sequence is `Items`: a count, and up to C elements, each a row of at most M elements and a row of sizes. Shorter rows
are filled up, those of elements with zeros and those of sizes with -1. No product of sizes of an element exceeds M. An
optional is a `Maybe`: a flag, and a value that is there in any case. What an op becomes is its `on_parts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ir import types as t
from ir.dims import Size, symbol
from ir.types import DTYPES, DType, OptionalType, SequenceType, TensorType, Type

NO_AXIS = -1
"""What a row of sizes has where an element has no more axes."""


@dataclass(frozen=True)
class Items:
    """A sequence: count i64[], sizes i64[C,R], elements T[C,M]. Rows from the count on mean nothing."""

    count: Any
    sizes: Any
    elements: Any

    @property
    def most(self) -> Size:
        """C: how many elements there can be."""
        return self.elements.shape[0]

    @property
    def room(self) -> Size:
        """M: how many elements an element can have."""
        return self.elements.shape[1]

    @property
    def axes(self) -> Size:
        """R: how many axes an element can have."""
        return self.sizes.shape[1]


@dataclass(frozen=True)
class Maybe:
    """An optional: whether it is there, bool[], and the value."""

    present: Any
    value: Form


Form: TypeAlias = "Any | Items | Maybe"
"""What stands for a value: a tensor as it is, or the tensors of a sequence or an optional."""


def leaves(form: Form) -> list[Any]:
    """The tensors of a form, in order."""
    match form:
        case Items():
            return [form.count, form.sizes, form.elements]
        case Maybe():
            return [form.present, *leaves(form.value)]
    return [form]


def form_of(type_: Type, tensors: Iterator[Any]) -> Form:
    """The form of a value of `type_` from its tensors in order."""
    match type_:
        case SequenceType():
            return Items(next(tensors), next(tensors), next(tensors))
        case OptionalType():
            return Maybe(next(tensors), form_of(type_.element, tensors))
    return next(tensors)


def leaf_types(type_: Type, label: str) -> list[tuple[str, TensorType]]:
    """The tensors that a value of `type_` becomes, with their names; sizes that it does not tell are symbols called
    LABEL_items, LABEL_room and LABEL_axes, and LABEL_N for axes of optional tensors. Raises TypeError where there are
    none: for maps, and for sequences of other things than tensors."""
    match type_:
        case SequenceType(element=TensorType() as element):
            most, room = symbol(f"{label}_items"), symbol(f"{label}_room")
            axes = element.rank or symbol(f"{label}_axes")
            return [(f"{label}.count", TensorType(t.i64, ())), (f"{label}.sizes", TensorType(t.i64, (most, axes))),
                    (f"{label}.elements", TensorType(element.dtype, (most, room)))]  # fmt: skip
        case OptionalType():
            return [(f"{label}.present", TensorType(t.bool_, ())), *leaf_types(type_.element, label)]
        case TensorType():
            return [(label, type_)]
    raise TypeError(f"{type_} has no form without sequences and optionals")


# Values of callers.


def description(type_: Type) -> list[Any]:
    """What `encode` and `decode` need to know of a type, as plain JSON."""
    match type_:
        case SequenceType(element=TensorType() as element):
            return ["sequence", element.dtype.name, element.rank]
        case OptionalType():
            return ["optional", description(type_.element)]
        case TensorType():
            return ["tensor", type_.dtype.name, type_.rank]
    raise TypeError(f"{type_} has no form without sequences and optionals")


def names(what: Sequence[Any], label: str) -> list[str]:
    """The names of the tensors of a described value."""
    if what[0] == "optional":
        return [f"{label}.present", *names(what[1], label)]
    return [label] if what[0] == "tensor" else [f"{label}.count", f"{label}.sizes", f"{label}.elements"]


def encode(value: Any, what: Sequence[Any], label: str) -> dict[str, np.ndarray]:
    """The tensors of a value of a caller by name: of a list, an array, or None for an optional that is not there.

    Raises ValueError for a value of another kind.
    """
    if what[0] == "optional":
        inner = what[1]
        given = value if value is not None else _nothing(inner)
        return {f"{label}.present": np.array(value is not None), **encode(given, inner, label)}
    dtype = DTYPES[what[1]]
    if what[0] == "tensor":
        return {label: np.asarray(value)}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"'{label}' takes a list of arrays")
    arrays = [np.asarray(item) for item in value]
    if any(array.dtype != dtype.numpy for array in arrays):
        raise ValueError(f"'{label}' takes a list of arrays of type {dtype}")
    axes = what[2] or max((array.ndim for array in arrays), default=0)
    sizes = np.full((len(arrays), axes), NO_AXIS, np.int64)
    room = max((math.prod(max(1, size) for size in array.shape) for array in arrays), default=0)
    elements = _zeros((len(arrays), room), dtype)
    for row, own, array in zip(elements, sizes, arrays):
        if array.ndim > axes:
            raise ValueError(f"'{label}' takes arrays of {axes} axes")
        row[: array.size], own[: array.ndim] = array.reshape(-1), array.shape
    return {f"{label}.sizes": sizes, f"{label}.elements": elements}


def _nothing(what: Sequence[Any]) -> Any:
    return [] if what[0] == "sequence" else _zeros((0,) * what[2], DTYPES[what[1]])


def _zeros(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    return np.full(shape, "" if dtype is t.string else 0, dtype.numpy)


def decode(arrays: Mapping[str, Any], what: Sequence[Any], label: str) -> Any:
    """The value that callers get: a list, an array, or None, from its tensors by name."""
    if what[0] == "optional":
        return decode(arrays, what[1], label) if bool(arrays[f"{label}.present"].item()) else None
    if what[0] == "tensor":
        return arrays[label]
    made = []
    rows = zip(arrays[f"{label}.elements"], arrays[f"{label}.sizes"])
    for row, sizes in list(rows)[: int(arrays[f"{label}.count"].item())]:
        shape = tuple(int(size) for size in sizes if size != NO_AXIS)
        made.append(row[: math.prod(shape)].reshape(shape))
    return made


__all__ = [
    "NO_AXIS", "Form", "Items", "Maybe", "decode", "description", "encode", "form_of", "leaf_types", "leaves",
    "names",
]  # fmt: skip
