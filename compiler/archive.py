"""Values of inputs and outputs as the arrays that an .npz file holds: sequences and maps are several, None is none.

The elements of a sequence `s` are `s.0`, `s.1` and so on, or the rows of one array `s`, which may have none; what an
optional lacks is left out; a map `m` is `m.keys` and `m.values`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_KEYS, _VALUES = ".keys", ".values"


def spread(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of these values."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            items = spread({f"{name}.{i}": item for i, item in enumerate(value)})
            arrays |= items or {name: np.empty(0, np.float32)}
        elif isinstance(value, Mapping):
            is_text = any(isinstance(key, str) for key in value)
            arrays[name + _KEYS] = np.array(list(value), object if is_text else np.int64)
            arrays[name + _VALUES] = np.array(list(value.values()), np.float32)
        elif value is not None:
            arrays[name] = np.asarray(value)
    return arrays


def gather(arrays: Mapping[str, Any], are_sequences: Mapping[str, bool]) -> dict[str, Any]:
    """The values of these arrays by name. `are_sequences` has the names that are known, and whether each is one of a
    sequence. What belongs to none of them stays as it is, and so does a sequence of which nothing is there."""
    values = dict(arrays)
    for name in (name for name, is_sequence in are_sequences.items() if is_sequence):
        if name not in values:
            items = list(_items(name, values, are_sequences))
            values |= {name: items} if items else {}
        elif np.ndim(values[name]):
            values[name] = list(values[name])
    return values


def _items(name: str, values: dict[str, Any], known: Mapping[str, bool]) -> Iterator[Any]:
    """Takes the elements of a sequence out of `values`, as long as there is a next one."""
    number = 0
    while True:
        label = f"{name}.{number}"
        if label in values and label not in known:
            yield values.pop(label)
        elif label + _KEYS in values and label + _VALUES in values:
            keys, items = values.pop(label + _KEYS), values.pop(label + _VALUES)
            yield dict(zip(keys.tolist(), items.tolist(), strict=True))
        else:
            return
        number += 1


__all__ = ["gather", "spread"]
