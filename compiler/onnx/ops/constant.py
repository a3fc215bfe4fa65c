"""ONNX operators that make values: Constant, ConstantOfShape, Range, EyeLike."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.onnx.load import element_type
from compiler.onnx.ops.shape import reshaped
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import sizes_of
from ir import types as t
from ir.blob import FillBlob
from ir.build import CONTENT_LIMIT
from ir.dims import Dim, Size, Undecided, ceil_div, maximum
from ir.op import OpError


@onnx_op("Constant", since=1)
def Constant(
    b: Any,
    *,
    value: Any = None,
    sparse_value: Any = None,
    value_int: int | None = None,
    value_ints: tuple[int, ...] | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_string: str | None = None,
    value_strings: tuple[str, ...] | None = None,
) -> Any:
    plain = [
        (value_int, np.int64), (value_ints, np.int64), (value_float, np.float32), (value_floats, np.float32),
        (value_string, object), (value_strings, object),
    ]  # fmt: skip
    given = [np.array(v, dtype=dtype) for v, dtype in plain if v is not None]
    given += [v for v in (value, sparse_value) if v is not None]
    if len(given) != 1:
        raise OpError(f"it has {len(given)} values; it must have one")
    return b.const(given[0])


@onnx_op("ConstantOfShape", since=9)
def ConstantOfShape(b: Any, shape: Any, *, value: Any = None) -> Any:
    sizes = sizes_of(b, shape, "shape")
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise OpError(f"`shape` is {list(sizes)}; sizes cannot be negative")
    dtype = t.f32 if value is None else value.dtype
    fill = 0.0 if value is None else value.array().reshape(-1).tolist()[0]
    if not any(isinstance(size, Dim) for size in sizes):
        return b.const(FillBlob(fill, dtype, tuple(int(size) for size in sizes)))
    if dtype == t.string:
        raise OpError("strings need a shape of numbers")
    return b.full(shape=sizes, value=fill, dtype=dtype)


def _count(start: Any, limit: Any, delta: Any) -> Size | None:
    """How many steps of `delta` lie between `start` and `limit`; None where only a run tells. Raises OpError."""
    if not isinstance(delta, Dim) and delta == 0:
        raise OpError("`delta` is 0")
    try:
        if any(isinstance(v, float) for v in (start, limit, delta)):
            return max(0, int(np.ceil((limit - start) / delta)))
        if isinstance(delta, Dim) or delta > 0:
            return maximum(0, ceil_div(limit - start, delta))
        return maximum(0, ceil_div(start - limit, -delta))
    except (Undecided, TypeError):
        return None


@onnx_op("Range", since=11)
def Range(b: Any, start: Any, limit: Any, delta: Any, *, stash_type: int = 1) -> Any:
    if start.dtype.is_float and start.dtype.bits < 32:  # added up in f32, whatever version says so
        wide = Range(b, *(b.cast(v, to=t.f32) for v in (start, limit, delta)))
        return b.cast(wide, to=start.dtype)
    ends = [v.content for v in (start, limit, delta)]
    first, last, step = (None if v is None or v.size != 1 else v.reshape(-1).tolist()[0] for v in ends)
    count = None if first is None or last is None or step is None else _count(first, last, step)
    if count is None:
        return b.range(*(reshaped(b, v, ()) for v in (start, limit, delta)), size=b.run_time_size(0))
    dtype = start.dtype
    if isinstance(count, int) and count <= CONTENT_LIMIT and not any(isinstance(v, Dim) for v in (first, step)):
        places = np.arange(count).astype(dtype.numpy)
        return b.const((first + places * np.asarray(step, dtype.numpy)).astype(dtype.numpy))
    places = b.iota(shape=(count,), axis=0, dtype=dtype)
    scaled = places if step == 1 else places * reshaped(b, delta, ())
    return scaled if first == 0 else scaled + reshaped(b, start, ())


@onnx_op("EyeLike", since=9)
def EyeLike(b: Any, x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    if x.rank != 2:
        raise OpError(f"the input is {x.type}; it must have 2 axes")
    chosen = x.dtype if dtype is None else element_type(dtype)
    return b.eye(shape=x.shape, diagonal=k, dtype=chosen)
