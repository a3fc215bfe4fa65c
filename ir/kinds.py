"""What inputs and outputs of a model are to its callers, where a program has other tensors in their place.

A kind is plain JSON, so that a manifest holds it: ["strings"] are cells of bytes (`ir.cells`), ["maps", KEYS] rows of
values, ["sequence", DTYPE, AXES] and ["optional", KIND] several tensors (`ir.parts`), and ["tensor", DTYPE, AXES] is a
tensor as it is. Kinds are filed by "input NAME" and "output NAME". What loads a compiled model needs this and no graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ir import cells
from ir import types as t
from ir.parts import NO_AXIS
from ir.types import DTYPES, DType, OptionalType, SequenceType, TensorType, Type

Kind: TypeAlias = Sequence[Any]
Kinds: TypeAlias = Mapping[str, Kind]
_SEVERAL = ("sequence", "optional")


def kind_of(type_: Type) -> list[Any]:
    """The kind of values of a type. Raises TypeError for one that has no form in tensors."""
    match type_:
        case SequenceType(element=TensorType() as element):
            return ["sequence", element.dtype.name, element.rank]
        case OptionalType():
            return ["optional", kind_of(type_.element)]
        case TensorType():
            return ["tensor", type_.dtype.name, type_.rank]
    raise TypeError(f"{type_} has no form without sequences and optionals")


def tensor_names(kind: Kind, label: str) -> list[str]:
    """The names of the tensors of a value called `label`, in order."""
    match kind[0]:
        case "optional":
            return [f"{label}.present", *tensor_names(kind[1], label)]
        case "sequence":
            return [f"{label}.count", f"{label}.sizes", f"{label}.elements"]
    return [label]


def encode(kinds: Kinds, feeds: Mapping[str, Any], widths: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What callers give as the tensors that a program takes; `widths` are those of cells that are fixed.

    Raises ValueError, naming the input, for a value of another kind; inputs that are missing stay missing.
    """
    given = dict(feeds)
    inputs = {key.removeprefix("input "): kind for key, kind in kinds.items() if key.startswith("input ")}
    for name, kind in inputs.items():
        if kind[0] in _SEVERAL and name in given:
            given.update(_tensors(given.pop(name), kind, name))
    for name, kind in inputs.items():
        if kind[0] == "strings" and name in given:
            given[name] = _cells(given[name], name, (widths or {}).get(name))
    return given


def decode(kinds: Kinds, results: Mapping[str, Any]) -> dict[str, Any]:
    """What a program gives as callers get it: strings, lists, dicts, and None."""
    taken = dict(results)
    outputs = {key.removeprefix("output "): kind for key, kind in kinds.items() if key.startswith("output ")}
    for name, kind in outputs.items():
        if kind[0] == "strings":
            taken[name] = cells.decode(taken[name])
        elif kind[0] == "maps":
            taken[name] = [dict(zip(kind[1], row, strict=True)) for row in taken[name].tolist()]
    for name, kind in outputs.items():
        if kind[0] in _SEVERAL:
            own = {each: taken.pop(each) for each in tensor_names(kind, name)}
            taken[name] = _value(own, kind, name)
    return taken


def _cells(value: Any, name: str, width: int | None) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "OUST":
        raise ValueError(f"'{name}' is {array.dtype}; the model takes strings")
    try:
        return cells.encode(array.astype(object), width)
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from error


def _tensors(value: Any, kind: Kind, name: str) -> dict[str, Any]:
    """The tensors of a list, of an array, or of None for an optional that is not there."""
    if kind[0] == "optional":
        inner = kind[1]
        given = value if value is not None else _nothing(inner)
        return {f"{name}.present": np.array(value is not None), **_tensors(given, inner, name)}
    if kind[0] == "tensor":
        return {name: np.asarray(value)}
    dtype = DTYPES[kind[1]]
    arrays = [np.asarray(item) for item in value] if isinstance(value, (list, tuple)) else []
    is_text = dtype is t.string
    fits = all(array.dtype.kind in "OUST" if is_text else array.dtype == dtype.numpy for array in arrays)
    if not isinstance(value, (list, tuple)) or not fits:
        raise ValueError(f"'{name}' takes a list of arrays of type {dtype}")
    axes = kind[2] or max((array.ndim for array in arrays), default=0)
    if any(array.ndim > axes for array in arrays):
        raise ValueError(f"'{name}' takes a list of arrays with {axes} axes")
    sizes = np.full((len(arrays), axes), NO_AXIS, np.int64)
    room = max((math.prod(max(1, size) for size in array.shape) for array in arrays), default=0)
    elements = _zeros((len(arrays), room), dtype)
    for row, own, array in zip(elements, sizes, arrays):
        row[: array.size], own[: array.ndim] = array.reshape(-1), array.shape
    return {f"{name}.sizes": sizes, f"{name}.elements": elements}


def _nothing(kind: Kind) -> Any:
    return [] if kind[0] == "sequence" else _zeros((0,) * kind[2], DTYPES[kind[1]])


def _zeros(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    return np.full(shape, "" if dtype is t.string else 0, dtype.numpy)


def _value(arrays: Mapping[str, Any], kind: Kind, name: str) -> Any:
    """A list, an array, or None, from its tensors by name."""
    if kind[0] == "optional":
        return _value(arrays, kind[1], name) if bool(arrays[f"{name}.present"].item()) else None
    if kind[0] == "tensor":
        return arrays[name]
    made = []
    for row, sizes in list(zip(arrays[f"{name}.elements"], arrays[f"{name}.sizes"]))[: int(arrays[f"{name}.count"])]:
        shape = tuple(int(size) for size in sizes if size != NO_AXIS)
        made.append(row[: math.prod(shape)].reshape(shape))
    return made


__all__ = ["Kind", "Kinds", "decode", "encode", "kind_of", "tensor_names"]
