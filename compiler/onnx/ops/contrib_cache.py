"""The cache of GroupQueryAttention of com.microsoft: how its entries are stored, and how a window of them moves on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ir import types as t
from ir.dims import Size, decide_eq, decide_le
from ir.op import OpError


@dataclass(frozen=True)
class Codec:
    """How entries x[b, g, t, d] are stored: as they are, or divided by `scale`, rounded and clamped to `bits` bits.

    Numbers of 4 bits are stored two in a byte, 8 more than they are, the first in the lower bits. Floats of 8 bits are
    not rounded to integers first.
    """

    scale: Any = None
    bits: int = 0
    dtype: Any = None

    def encode(self, b: Any, x: Any) -> Any:
        """Entries as they are stored."""
        if self.scale is None:
            return x
        y = (x if x.dtype == t.f32 else b.cast(x, to=t.f32)) / self.scale
        if self.dtype.is_float:
            return b.cast(y, to=self.dtype)
        low, high = -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        y = b.clip(b.round(y), b.const(low, t.f32), b.const(high, t.f32))
        if self.bits == 8:
            return b.cast(y, to=t.i8)
        y = b.cast(y + 8.0, to=t.u8)
        shape = (*x.shape[:3], x.shape[3] // 2)
        first, second = (b.slice(y, starts=(0, 0, 0, at), shape=shape, steps=(1, 1, 1, 2)) for at in (0, 1))
        return first + second * 16

    def decode(self, b: Any, stored: Any, size: Size, dtype: Any) -> Any:
        """Stored entries as floats [b, g, t, size]."""
        if self.scale is None:
            return stored
        if self.bits == 4:
            stored = b.cast(b.unpack_bits(stored, bits=4, size=size), to=t.i32) - 8
        x = b.cast(stored, to=t.f32) * self.scale
        return x if x.dtype == dtype else b.cast(x, to=dtype)


def codec(past: Any, scale: Any, kind: str, bits: int, size: Size) -> Codec:
    """How a cache with entries of `size` floats is stored. Raises OpError."""
    if kind == "NONE" and scale is None:
        if past is not None and not past.dtype.is_float:
            raise OpError(f"a cache of type {past.type} needs a scale, and its kind of quantization")
        return Codec()
    if kind not in ("PER_TENSOR", "PER_CHANNEL") or scale is None:
        raise OpError(f"a quantised cache needs a scale and is PER_TENSOR or PER_CHANNEL, not {kind}")
    dtype = {4: t.u8, 8: t.i8}.get(bits) if past is None else past.dtype
    if (bits, dtype) not in ((4, t.u8), (8, t.i8), (8, t.f8e4m3fn)):
        raise OpError(f"a cache of {bits} bits in {dtype} is not supported; it is 8 in i8 or f8e4m3fn, or 4 in u8")
    if bits == 4 and (not isinstance(size, int) or size % 2):
        raise OpError(f"two numbers stand in a byte, which a head of {size} does not fill")
    return Codec(scale, bits, dtype)


def resident(b: Any, count: Any, capacity: Size, window: int) -> Any:
    """How many of the last `count` tokens a cache holds: it drops as many at once as it has room for beyond the window,
    whenever it is full.
    """
    most, step = b.dims(capacity), b.dims(capacity - window + 1)
    dropped = (count - most + step - 1) / step * step
    return b.where(b.greater(count, most), count - dropped, count)


def moved(b: Any, x: Any, by: Any, size: Size) -> Any:
    """`size` entries of axis 2 of x[b, g, t, d] from by[b] on, with zeros behind the last."""
    nothing = b.full(shape=(*x.shape[:2], 0, x.shape[3]), value=0, dtype=x.dtype)
    return b.cache_append(nothing, x, -by, size=size)


@dataclass(frozen=True)
class Window:
    """A cache [b, g, capacity, d] of the last tokens, at its beginning and in order, that makes way for new ones.

    Attention is done on a copy with room for the new tokens: `before`[b] are there, and the first has position `gone`.
    Of the copy, what stays begins at `kept`[b].
    """

    capacity: Size
    before: Any
    gone: Any
    kept: Any


def window_of(b: Any, past: Any, start: Any, totals: Any, window: int) -> Window:
    """The window where start[b] tokens were before a call, and totals[b] are after it. Raises OpError."""
    if past is None or window < 1:
        raise OpError("`sliding_window_cache` needs `past_key`, `past_value` and a `local_window_size`")
    capacity = past.shape[2]
    if decide_le(window, capacity) is False:
        raise OpError(f"`sliding_window_cache`: a cache of {capacity} entries does not hold a window of {window}")
    before = resident(b, start, capacity, window)
    gone = start - before
    return Window(capacity, before, gone, totals - resident(b, totals, capacity, window) - gone)


def bias_in_window(b: Any, bias: Any, gone: Any, size: Size) -> Any:
    """bias[b or 1, h, s, position] by the entries of the copy of the cache, the first of which has position `gone`."""
    if bias is None:
        return None
    if decide_eq(bias.shape[0], gone.shape[0]) is not True:
        bias = b.expand(bias, shape=(gone.shape[0], *bias.shape[1:]))
    return b.transpose(moved(b, b.transpose(bias, perm=(0, 1, 3, 2)), gone, size), perm=(0, 1, 3, 2))
