"""What rules ask about constants: whether a value is known before the program runs, and whether it is per channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir.graph import Value

_DEPTH = 12


def is_constant(value: Value, depth: int = _DEPTH) -> bool:
    """Whether a value is a constant, or made of constants by a few pure ops (which `fold` will then evaluate)."""
    if value.blob is not None or value.content is not None:
        return True
    node = value.node
    if node is None or depth == 0 or not node.inputs or not node.op.pure or node.op.structural:
        return False
    return all(v is None or is_constant(v, depth - 1) for v in node.inputs)


def number(value: Value) -> float | None:
    """The number that a value of one known element is, else None; an f32 as the shortest decimal that rounds to it."""
    content = value.content
    if content is None or content.size != 1 or content.dtype == object:
        return None
    item = content.reshape(-1)[0]
    return float(str(item)) if content.dtype == np.float32 else float(item)


def is_per_channel(value: Value, like: Value, axis: int = 1) -> bool | str:
    """Whether a constant has one element, or one for each index along `axis` of `like`, and broadcasts to it so."""
    if not is_constant(value):
        return f"%{value.name} is not a constant"
    shape = (1,) * (like.rank - value.rank) + tuple(value.shape)
    if value.rank > like.rank or any(size != 1 for a, size in enumerate(shape) if a != axis):
        return f"%{value.name} is {value.type}, not one number per channel of {like.type}"
    if not isinstance(like.shape[axis], int) or shape[axis] not in (1, like.shape[axis]):
        return f"%{value.name} is {value.type}, not one number per channel of {like.type}"
    return True


def channel_vector(b: Any, value: Value, channels: int) -> Value:
    """A per-channel constant as a vector of `channels` elements."""
    if math.prod(value.shape) == channels:  # type: ignore[arg-type]
        return b.reshape(value, shape=(channels,))
    return b.expand(b.reshape(value, shape=(1,)), shape=(channels,))
