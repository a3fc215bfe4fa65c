"""Sequences and optionals as tensors, for targets that have neither.

A sequence is `Items`: a count, and up to C elements, each a row of at most M elements and a row of sizes. Shorter rows
are filled up, those of elements with zeros and those of sizes with -1. No product of sizes of an element exceeds M. An
optional is a `Maybe`: a flag, and a value that is there in any case. What an op becomes is its `on_parts`; what callers
give and get is in `ir.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ir import types as t
from ir.dims import Size, symbol
from ir.types import OptionalType, SequenceType, TensorType, Type

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


def form_of(type_: Type, tensors: Iterator[Any], count_of: Callable[[Size], Any] | None = None) -> Form:
    """The form of a value of `type_` from its tensors in order. With `count_of`, the count of a sequence is none of
    them: it is what `count_of` makes of the number of rows."""
    match type_:
        case SequenceType():
            if count_of is None:
                return Items(next(tensors), next(tensors), next(tensors))
            sizes, elements = next(tensors), next(tensors)
            return Items(count_of(elements.shape[0]), sizes, elements)
        case OptionalType():
            return Maybe(next(tensors), form_of(type_.element, tensors, count_of))
    return next(tensors)


def leaf_types(
    type_: Type, label: str, size: Callable[[str], Size] = symbol, *, is_counted: bool = True
) -> list[tuple[str, TensorType]]:
    """The tensors that a value of `type_` becomes, with their names; without the count where it is not `is_counted`.

    `size` makes the sizes that the type does not tell: LABEL_items, LABEL_room and LABEL_axes. Raises TypeError where
    there are no such tensors: for maps, and for sequences of other things than tensors.
    """
    match type_:
        case SequenceType(element=TensorType() as element):
            most, room = size(f"{label}_items"), size(f"{label}_room")
            axes = element.rank or size(f"{label}_axes")
            count = [(f"{label}.count", TensorType(t.i64, ()))] if is_counted else []
            return [*count, (f"{label}.sizes", TensorType(t.i64, (most, axes))),
                    (f"{label}.elements", TensorType(element.dtype, (most, room)))]  # fmt: skip
        case OptionalType():
            value = type_.element
            inner = [(f"{label}.value", value)] if isinstance(value, TensorType) else None
            inner = inner or leaf_types(value, label, size, is_counted=is_counted)
            return [(f"{label}.present", TensorType(t.bool_, ())), *inner]
        case TensorType():
            return [(label, type_)]
    raise TypeError(f"{type_} has no form without sequences and optionals")


__all__ = ["NO_AXIS", "Form", "Items", "Maybe", "form_of", "leaf_types", "leaves"]
