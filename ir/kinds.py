"""What inputs and outputs of a model are to its callers, where a program has other tensors in their place.

A kind is plain JSON, so that a manifest holds it: ["strings"] are cells of bytes (`ir.cells`), ["maps", KEYS] rows of
values, ["sequence", DTYPE, SHAPE, NAMES] and ["optional", KIND, NAME] several tensors (`ir.parts`), and
["tensor", DTYPE, SHAPE, NAME] is a tensor in an optional. A shape is the declared one, its sizes as text; names are
those of the tensors: of the count where that is one, of sizes and elements, of the flag. Kinds are filed by
"input NAME" and "output NAME". What loads a compiled model needs this and no graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ir import cells
from ir import types as t
from ir.bind import check_assumptions, equations, solve_sizes
from ir.demand import Pair
from ir.dims import Size, dim_text, evaluate, parse_dim
from ir.dims import names as names_in
from ir.parts import NO_AXIS
from ir.types import DTYPES, DType, OptionalType, SequenceType, TensorType, Type

Kind: TypeAlias = Sequence[Any]
Kinds: TypeAlias = Mapping[str, Kind]
_SEVERAL = ("sequence", "optional")


def kind_of(type_: Type, names: Sequence[str] = ()) -> list[Any]:
    """The kind of values of a type whose tensors have `names`, in order. Raises TypeError for one that has no form in
    tensors."""
    match type_:
        case SequenceType(element=TensorType() as element):
            return ["sequence", element.dtype.name, _texts(element.shape), list(names)]
        case OptionalType():
            return ["optional", kind_of(type_.element, names[1:]), *names[:1]]
        case TensorType():
            return ["tensor", type_.dtype.name, _texts(type_.shape), *names]
    raise TypeError(f"{type_} has no form without sequences and optionals")


def type_of(kind: Kind) -> Type:
    """The type of the values of a kind that is several tensors, as it was declared."""
    if kind[0] == "optional":
        return OptionalType(type_of(kind[1]))
    tensor = TensorType(DTYPES[kind[1]], tuple(parse_dim(size) for size in kind[2]))
    return SequenceType(tensor) if kind[0] == "sequence" else tensor


def tensor_names(kind: Kind, label: str) -> list[str]:
    """The names of the tensors of a value called `label`, in order."""
    match kind[0]:
        case "optional":
            return [*kind[2:], *tensor_names(kind[1], label)]
        case "sequence":
            return list(kind[3])
        case "tensor":
            return list(kind[3:])
    return [label]


def several(kinds: Kinds, side: str) -> dict[str, Kind]:
    """The kinds of those inputs or outputs that are several tensors, by name; `side` is "input" or "output"."""
    return {name: kind for name, kind in _of_side(kinds, side).items() if kind[0] in _SEVERAL}


def check(label: str, type_: Type, value: Any) -> None:
    """Raises ValueError, naming `label`, for a value that is none of a sequence or optional: no list, or an element of
    another type. Elements may have any size where theirs is a symbol, and any shape where no axes are declared.

    Of a tensor in an optional, sizes are not looked at: those that are symbols may be dims of other inputs.
    """
    match type_:
        case OptionalType():
            if value is not None:
                check(label, type_.element, value)
        case SequenceType(element=TensorType() as element):
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"'{label}' is no list; the model takes a list of arrays, {type_}")
            for i, item in enumerate(value):
                array = _checked(f"'{label}', element {i},", element, item, element.rank or None)
                sizes = zip(array.shape, element.shape)
                if any(isinstance(size, int) and size != actual for actual, size in sizes):
                    raise ValueError(_of_shape(f"'{label}', element {i},", array, element))
        case TensorType():
            _checked(f"'{label}'", type_, value, type_.rank)


def _checked(what: str, type_: TensorType, value: Any, rank: int | None) -> np.ndarray:
    """A value as an array of the element type and of `rank` axes, where that is known. Raises ValueError."""
    array = _array(value, type_.dtype)
    if array.dtype.kind not in "OUST" if type_.dtype is t.string else array.dtype != type_.dtype.numpy:
        raise ValueError(f"{what} is {array.dtype}; the model takes {type_.dtype.numpy}")
    if rank is not None and array.ndim != rank:
        raise ValueError(_of_shape(what, array, type_))
    return array


def _of_shape(what: str, array: np.ndarray, type_: TensorType) -> str:
    return f"{what} has shape {list(array.shape)}; the model takes {type_}"


def _array(value: Any, dtype: DType) -> np.ndarray:
    """A value as an array; a list of no texts is one of texts."""
    array = np.asarray(value)
    return array.astype(object) if dtype is t.string and not array.size else array


def encode(
    kinds: Kinds,
    feeds: Mapping[str, Any],
    types: Mapping[str, TensorType],
    bounds: Mapping[str, tuple[int, int | None]] | None = None,
    equal_dims: Sequence[Pair] = (),
) -> dict[str, Any]:
    """What callers give as the tensors that a program takes, which have these types, bounds and equal sizes.

    An optional that is absent is zeros of its shape: of sizes that the other inputs tell, else of such as are allowed.
    Raises ValueError, naming the input, for a value of another kind; inputs that are missing stay missing.
    """
    given, absent = dict(feeds), list[str]()
    labels = {}
    for label, kind in several(kinds, "input").items():
        labels |= dict.fromkeys(tensor_names(kind, label), label)
        if label in given:
            value = given.pop(label)
            check(label, type_of(kind), value)
            given |= _tensors(value, kind)
            absent += [name for name in tensor_names(kind, label) if value is None and name not in given]
    for name, kind in _of_side(kinds, "input").items():
        if kind[0] == "strings" and name in given:
            width = types[name].shape[-1] if name in types else None
            given[name] = _cells(given[name], labels.get(name, name), width if isinstance(width, int) else None)
    if absent:
        sizes = _sizes(types, given, absent, bounds or {}, equal_dims)
        shapes = {name: tuple(evaluate(size, sizes) for size in types[name].shape) for name in absent}
        given |= {name: _zeros(shape, types[name].dtype) for name, shape in shapes.items()}
    return given


def _sizes(
    types: Mapping[str, TensorType],
    given: Mapping[str, Any],
    absent: Iterable[str],
    bounds: Mapping[str, tuple[int, int | None]],
    equal_dims: Sequence[Pair],
) -> dict[str, int]:
    """The symbols in the types of all tensors, as those that are given tell them, with a value for each that they do
    not: the least, or 1, or one of the others, whichever nothing forbids."""
    sizes: dict[str, int] = {}
    told = [name for name, type_ in types.items() if name in given and np.ndim(given[name]) == type_.rank]
    solve_sizes([equation for name in told for equation in equations(name, types[name], given[name])], sizes)
    for name in sorted({n for each in absent for size in types[each].shape for n in names_in(size)} - sizes.keys()):
        least = bounds.get(name, (0, None))[0]
        values = (least, 1, *sorted(set(sizes.values())))
        sizes[name] = next((v for v in values if _is_allowed({**sizes, name: v}, bounds, equal_dims)), least)
    return sizes


def _is_allowed(
    sizes: Mapping[str, int], bounds: Mapping[str, tuple[int, int | None]], equal_dims: Sequence[Pair]
) -> bool:
    try:
        check_assumptions(bounds, equal_dims, sizes)
    except ValueError:
        return False
    return True


def decode(kinds: Kinds, results: Mapping[str, Any]) -> dict[str, Any]:
    """What a program gives as callers get it: strings, lists, dicts, and None."""
    return decoder(kinds)(results)


def decoder(kinds: Kinds) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`decode` for many results of one program."""
    outputs = _of_side(kinds, "output")
    strings = [name for name, kind in outputs.items() if kind[0] == "strings"]
    maps = [(name, kind[1]) for name, kind in outputs.items() if kind[0] == "maps"]
    lists = [(label, kind, tensor_names(kind, label)) for label, kind in several(kinds, "output").items()]

    def decoded(results: Mapping[str, Any]) -> dict[str, Any]:
        taken = dict(results)
        for name in strings:
            taken[name] = cells.decode(taken[name])
        for name, keys in maps:
            taken[name] = [dict(zip(keys, row, strict=True)) for row in taken[name].tolist()]
        for label, kind, tensors in lists:
            taken[label] = _value(iter([taken.pop(name) for name in tensors]), kind)
        return taken

    return decoded


def _of_side(kinds: Kinds, side: str) -> dict[str, Kind]:
    return {key.removeprefix(f"{side} "): kind for key, kind in kinds.items() if key.startswith(f"{side} ")}


def _texts(shape: Iterable[Size]) -> list[str]:
    return [dim_text(size) for size in shape]


def _cells(value: Any, label: str, width: int | None) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "OUST":
        raise ValueError(f"'{label}' is {array.dtype}; the model takes strings")
    try:
        return cells.encode(array.astype(object), width)
    except ValueError as error:
        raise ValueError(f"'{label}': {error}") from error


def _tensors(value: Any, kind: Kind) -> dict[str, Any]:
    """The tensors of a list, of an array, or of None for an optional that is not there: then of the flag alone."""
    if kind[0] == "optional":
        inner = {} if value is None else _tensors(value, kind[1])
        return {kind[2]: np.array(value is not None), **inner}
    dtype = DTYPES[kind[1]]
    if kind[0] == "tensor":
        return {kind[3]: _array(value, dtype)}
    arrays = [_array(item, dtype) for item in value]
    axes = len(kind[2]) or max((array.ndim for array in arrays), default=0)
    sizes = np.full((len(arrays), axes), NO_AXIS, np.int64)
    room = max((math.prod(max(1, size) for size in array.shape) for array in arrays), default=0)
    elements = _zeros((len(arrays), room), dtype)
    for row, own, array in zip(elements, sizes, arrays):
        row[: array.size], own[: array.ndim] = array.reshape(-1), array.shape
    return dict(zip(kind[3], (sizes, elements), strict=True))


def _zeros(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    return np.full(shape, "" if dtype is t.string else 0, dtype.numpy)


def _value(tensors: Iterator[Any], kind: Kind) -> Any:
    """A list, an array, or None, from its tensors in order."""
    if kind[0] == "optional":
        present = bool(next(tensors).item())
        return _value(tensors, kind[1]) if present else None
    if kind[0] == "tensor":
        return next(tensors)
    count, sizes, elements = tensors
    made = []
    for row, own in list(zip(elements, sizes))[: int(count)]:
        shape = tuple(int(size) for size in own if size != NO_AXIS)
        made.append(row[: math.prod(shape)].reshape(shape))
    return made


__all__ = ["Kind", "Kinds", "check", "decode", "encode", "kind_of", "several", "tensor_names", "type_of"]
