"""Numbers that are computed while the model runs, made into sizes.

Most operators take sizes that are symbols. Where a parameter is computed at run time, its numbers are brought into the
form that the op takes, and each becomes a symbol by `told`. What cannot be (a negative size) is a number of -1: a size
that no run accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Dim, Size
from ir.op import OpError

FARTHEST = 1 << 58
"""More than any size; sums of a few such numbers are still numbers of 64 bits."""


def is_known(*values: Any) -> bool:
    """Whether all these tensors are known when compiling, or omitted, or have no elements."""
    return all(value is None or value.content is not None or 0 in value.shape for value in values)


def count_of(value: Any, what: str) -> int:
    """How many numbers a tensor has. Raises OpError where only a run tells that."""
    if value.rank > 1 or not all(isinstance(size, int) for size in value.shape):
        raise OpError(f"`{what}` is {value.type}; how many numbers it has must be known when compiling")
    return int(value.shape[0]) if value.rank else 1


def numbers(b: Any, value: Any) -> Any:
    """An integer tensor as i64 with one axis."""
    flat = value if value.rank == 1 else b.reshape(value, shape=(1,))
    return flat if flat.dtype == t.i64 else b.cast(flat, to=t.i64)


def number(b: Any, value: Any, position: int = 0) -> Any:
    """One number of an i64 tensor with one axis, as a scalar."""
    if value.content is not None:
        found = value.content.reshape(-1)[position]
        return b.dims(found if isinstance(found, Dim) else int(found))
    return b.reshape(b.slice(value, starts=(position,), shape=(1,), steps=(1,)), shape=())


def vector(b: Any, sizes: Sequence[Size]) -> Any:
    """Sizes as an i64 tensor with one axis."""
    return b.dims(tuple(sizes)) if sizes else b.const(np.zeros(0, np.int64))


def known_numbers(value: Any) -> list[Size | None]:
    """The numbers of a tensor with one axis, as far as they are known when compiling."""
    if value.content is not None:
        return [v if isinstance(v, Dim) else int(v) for v in value.content.reshape(-1).tolist()]
    node = value.node
    if node is not None and node.op.name == "concat":
        return [found for part in node.inputs for found in known_numbers(part)]
    if node is not None and node.op.name in ("reshape", "cast") and node.inputs[0].rank <= 1:
        return known_numbers(node.inputs[0])
    size = value.shape[0] if value.rank else 1
    return [None] * (size if isinstance(size, int) else 0)


def elements_of(b: Any, value: Any, what: str) -> list[Any]:
    """The numbers of a tensor with one axis: those that are known, and i64 scalars for the others."""
    count_of(value, what)
    known, wide = known_numbers(value), numbers(b, value)
    return [size if size is not None else number(b, wide, n) for n, size in enumerate(known)]


def sizes_of(b: Any, value: Any, what: str, first: int = 0, axes: Sequence[int] | None = None) -> tuple[Size, ...]:
    """The numbers of a tensor as sizes of an output: of `axes`, or of all from axis `first` on. Nothing bounds those
    that only a run tells."""
    found: list[Size] = []
    for n, size in enumerate(elements_of(b, value, what)):
        axis = first + n if axes is None else axes[n]
        is_known_size = isinstance(size, (int, Dim))
        found.append(size if is_known_size else told(b, size, b.run_time_size(axis, is_bounded=False)))
    return tuple(found)


def scalar(b: Any, value: Any) -> Any:
    """A number, a size or a scalar as an i64 scalar."""
    return b.dims(value) if isinstance(value, (int, Dim)) else value


def choose(b: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`: numbers, sizes or i64 tensors."""
    return b.where(condition, scalar(b, yes), scalar(b, no))


def demand(b: Any, condition: Any) -> None:
    """Has a run refuse its inputs unless the condition, a bool scalar, holds."""
    told(b, b.cast(condition, to=t.i64), 1)


def told(b: Any, value: Any, size: Size, limit: Size | None = None, others: Sequence[Size] = ()) -> Size:
    """`size`, which is from here on the number in the i64 scalar `value`; see the op `told`."""
    if value.content is not None and value.content.reshape(-1).tolist()[0] == size:
        return size
    b.told(value, size=size, limit=limit, others=tuple(others))
    b.remember_teller(size, value)
    return size


__all__ = [
    "FARTHEST", "choose", "count_of", "demand", "elements_of", "is_known", "known_numbers", "number", "numbers",
    "scalar", "sizes_of", "told", "vector",
]  # fmt: skip
