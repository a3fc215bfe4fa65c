"""Signal processing of ai.onnx: Fourier transforms, windows and mel filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

from compiler.onnx.axes import RunTimeAxes
from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import (
    FARTHEST,
    choose,
    elements_of,
    is_known,
    number,
    numbers,
    scalar,
    sizes_of,
    told,
    vector,
)
from ir import types as t
from ir.demand import not_negative
from ir.dims import Dim, Size, maximum
from ir.graph import Value
from ir.op import OpError
from ir.ops.signal import mel_weights


@onnx_op("DFT", since=20)
def DFT(b: Any, x: Any, dft_length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    if not is_known(axis) and x.rank > 2:
        return _dft_along(b, x, dft_length, axis, bool(inverse), bool(onesided))
    along = -2 if axis is None or not is_known(axis) else int(b.scalar(axis, "axis"))
    return _dft(b, x, dft_length, along, bool(inverse), bool(onesided))


@onnx_op("DFT", since=17)
def DFT17(b: Any, x: Any, dft_length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    return _dft(b, x, dft_length, axis, bool(inverse), bool(onesided))


def _dft(b: Any, x: Any, dft_length: Any, axis: int, inverse: bool, onesided: bool) -> Any:
    if not -x.rank <= axis < x.rank:
        raise OpError(f"`axis` is {axis}; the input is {x.type}")
    axis = axis % x.rank
    size = x.shape[axis]
    length: Any = 2 * (size - 1) if inverse and onesided else size
    if dft_length is not None:
        (length,) = elements_of(b, dft_length, "dft_length")
    if isinstance(length, (int, Dim)):
        return transformed(b, x, length, axis, inverse, onesided)
    length = choose(b, b.less(length, 1), -1, length)
    if not onesided or inverse:
        return transformed(b, x, told(b, length, b.run_time_size(axis, is_bounded=False)), axis, inverse, onesided)
    out = told(b, b.div(length, 2) + 1, b.run_time_size(axis, is_bounded=False))
    length = told(b, length, b.run_time_number("length"), FARTHEST)
    return transformed(b, x, length, axis, inverse, onesided, out)


def transformed(
    b: Any, x: Any, length: Size, axis: int, inverse: bool = False, onesided: bool = False, out: Size | None = None
) -> Any:
    """The Fourier transform along an axis: by a table where its length is known, else each value by itself. `out` is
    the number of values, where that is told on its own."""
    size = x.shape[axis]
    if isinstance(length, int) and isinstance(size, int):
        return b.dft(x, length=length, axis=axis, inverse=inverse, onesided=onesided)
    if out is None:
        out = length // 2 + 1 if onesided and not inverse else length
    shape = (*x.shape[:axis], out, *x.shape[axis + 1 : -1])
    return b.direct_dft(x, shape=shape, count=size, length=length, axis=axis, inverse=inverse, onesided=onesided)


def _dft_along(b: Any, x: Any, dft_length: Any, axis: Any, inverse: bool, onesided: bool) -> Any:
    """The transform along an axis that only a run tells."""
    chosen = RunTimeAxes(b, axis, x.rank)
    count = b.reduce_sum(choose(b, chosen.is_hit, vector(b, x.shape), 0), axes=(0,), keepdims=False)
    length = count if not (inverse and onesided) else (count - 1) * 2
    if dft_length is not None:
        length = scalar(b, elements_of(b, dft_length, "dft_length")[0])
    wrong = b.or_(b.less(length, 1), b.not_(chosen.is_valid))
    hits = b.cast(chosen.is_hit, to=t.i64)
    wrong = b.or_(wrong, b.equal(number(b, hits, x.rank - 1), 1))
    length = choose(b, wrong, -1, length)
    out = b.div(length, 2) + 1 if onesided and not inverse else length
    longest = reduce(maximum, x.shape[:-1])
    limit = None if dft_length is not None else 2 * longest
    shape: list[Size] = []
    for a, size in enumerate(x.shape[:-1]):
        own = choose(b, b.equal(number(b, hits, a), 1), out, size)
        bound = None if limit is None else maximum(limit, size)
        shape.append(told(b, own, b.run_time_size(a, is_bounded=False), bound))
    return b.direct_dft(
        x, number(b, chosen.places), shape=tuple(shape), count=told(b, count, b.run_time_number("count"), longest),
        length=told(b, length, b.run_time_number("length"), FARTHEST if limit is None else limit),
        inverse=inverse, onesided=onesided,
    )  # fmt: skip


@onnx_op("STFT", since=17)
def STFT(
    b: Any, signal: Any, frame_step: Any, window: Any = None, frame_length: Any = None, *, onesided: int = 1
) -> Any:
    if signal.rank not in (2, 3):
        raise OpError(f"the signal is {signal.type}; it needs axes for batch, time and parts")
    if signal.rank == 2:
        signal = b.reshape(signal, shape=(*signal.shape, 1))
    length: Size = signal.shape[1] if window is None else window.shape[0]
    if frame_length is not None:
        (given,) = elements_of(b, frame_length, "frame_length")
        if isinstance(given, (int, Dim)):
            length = given
        elif window is None:
            wanted = choose(b, b.less(given, 1), -1, given)
            length = told(b, wanted, b.run_time_number("frame_length"), signal.shape[1])
        else:
            told(b, given, length)
    (step,) = elements_of(b, frame_step, "frame_step")
    if not isinstance(step, (int, Dim)):
        step = told(b, choose(b, b.less(step, 1), -1, step), b.run_time_number("frame_step"), FARTHEST)
    if not isinstance(length, int) and window is not None:
        b.assume_equal(*not_negative(signal.shape[1] - length))
    frames = b.frame(signal, length=length, step=step)
    if window is not None:
        frames = frames * b.reshape(window, shape=(length, 1))
    return transformed(b, frames, length, 2, onesided=bool(onesided))


@onnx_op("MelWeightMatrix", since=17)
def MelWeightMatrix(
    b: Any,
    num_mel_bins: Any,
    dft_length: Any,
    sample_rate: Any,
    lower_edge_hertz: Any,
    upper_edge_hertz: Any,
    *,
    output_datatype: int = 1,
) -> Any:
    given = (num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz)
    if not is_known(*given):
        return b.cast(_mel_weights_at_run_time(b, *given), to=element_type(output_datatype))
    bins, length, rate = (int(b.scalar(value, "sizes")) for value in given[:3])
    low, high = (float(b.scalar(value, "edges")) for value in given[3:])
    if bins < 1 or length < 1 or rate < 1 or not 0 <= low <= high <= rate / 2:
        raise OpError(f"{bins} bins from {low} to {high} Hz of {length} samples at {rate} Hz make no filters")
    return b.const(mel_weights(bins, length, rate, low, high), element_type(output_datatype))


def _mel_weights_at_run_time(b: Any, *given: Any) -> Any:
    """`mel_weights` of numbers that only a run tells."""
    bins, length, rate = (number(b, numbers(b, value)) for value in given[:3])
    low, high = (b.reshape(b.cast(value, to=t.f64), shape=()) for value in given[3:])

    def wide(value: Any) -> Any:
        return b.cast(value, to=t.f64) if isinstance(value, Value) else b.const(value, t.f64)

    bad = b.or_(b.or_(b.less(bins, 1), b.less(length, 1)), b.less(rate, 1))
    bad = b.or_(bad, b.or_(b.less(low, wide(0.0)), b.or_(b.less(high, low), b.less(wide(rate), high + high))))
    columns = told(b, choose(b, bad, -1, bins), b.run_time_size(1, is_bounded=False))
    rows = told(b, choose(b, bad, -1, b.div(length, 2) + 1), b.run_time_size(0, is_bounded=False))
    first, last = (b.log(wide(1.0) + edge / wide(700.0)) * wide(2595 / math.log(10)) for edge in (low, high))
    mels = wide(b.iota(shape=(columns + 2,))) * ((last - first) / (wide(bins) + wide(2.0))) + first
    hertz = (b.exp(mels * wide(math.log(10) / 2595)) - wide(1.0)) * wide(700.0)
    places = b.cast(b.floor(wide(length + 1) * hertz / wide(rate)), to=t.i64)
    left, centre, right = (b.slice(places, starts=(n,), shape=(columns,), steps=(1,)) for n in range(3))
    row = b.reshape(b.iota(shape=(rows,)), shape=(rows, 1))
    up = b.and_(b.and_(b.greater_or_equal(row, left), b.less_or_equal(row, centre)), b.greater(centre, left))
    down = b.and_(b.greater_or_equal(row, centre), b.less(row, right))
    alone = b.and_(b.equal(row, centre), b.equal(left, centre))
    rising = wide(row - left) / wide(b.max(centre - left, 1))
    falling = wide(right - row) / wide(b.max(right - centre, 1))
    return b.where(down, falling, b.where(up, rising, wide(b.cast(alone, to=t.i64))))


@onnx_op("Det", since=11)
def Det(b: Any, x: Any) -> Any:
    return b.determinant(x)


_WINDOWS = {"Hann": (0.5, 0.5, 0.0), "Hamming": (25 / 46, 21 / 46, 0.0), "Blackman": (0.42, 0.5, 0.08)}
"""Windows as a[0] - a[1] cos(x) + a[2] cos(2x), where x goes once around."""


def _window(terms: tuple[float, float, float]) -> Callable[..., Any]:
    """The importer of a window, computed in double precision: the body in its schema is not, whatever is asked."""

    def importer(b: Any, size: Any, *, output_datatype: int = 1, periodic: int = 1) -> Any:
        (length,) = sizes_of(b, size, "size")
        around: Size = length if periodic else length - 1
        step = b.const(2 * math.pi, t.f64) / b.cast(b.dims(around), to=t.f64)
        angle = b.iota(shape=(length,), axis=0, dtype=t.f64) * step
        constant, first, second = (b.const(value, t.f64) for value in terms)
        y = constant - first * b.cos(angle)
        y = y + second * b.cos(angle * 2.0) if terms[2] else y
        return b.cast(y, to=element_type(output_datatype))

    return importer


for _name, _terms in _WINDOWS.items():
    onnx_op(f"{_name}Window", since=17)(_window(_terms))
