"""Signal processing of ai.onnx: Fourier transforms, windows and mel filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size
from ir.op import OpError
from ir.ops.signal import mel_weights


@onnx_op("DFT", since=20)
def DFT(b: Any, x: Any, dft_length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    along = -2 if axis is None else int(b.scalar(axis, "axis"))
    return _dft(b, x, dft_length, along, bool(inverse), bool(onesided))


@onnx_op("DFT", since=17)
def DFT17(b: Any, x: Any, dft_length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    return _dft(b, x, dft_length, axis, bool(inverse), bool(onesided))


def _dft(b: Any, x: Any, dft_length: Any, axis: int, inverse: bool, onesided: bool) -> Any:
    if not -x.rank <= axis < x.rank:
        raise OpError(f"`axis` is {axis}; the input is {x.type}")
    size = x.shape[axis]
    length: Size = 2 * (size - 1) if inverse and onesided else size
    if dft_length is not None:
        length = b.sizes(dft_length, "dft_length")[0]
    if not isinstance(length, int):
        raise OpError(f"the length {length} of the transform must be known when compiling")
    return b.dft(x, length=length, axis=axis % x.rank, inverse=inverse, onesided=onesided)


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
        length = b.sizes(frame_length, "frame_length")[0]
    step = b.sizes(frame_step, "frame_step")[0]
    if not isinstance(length, int) or not isinstance(step, int):
        raise OpError(f"frame length {length} and frame step {step} must be known when compiling")
    frames = b.frame(signal, length=length, step=step)
    if window is not None:
        frames = frames * b.reshape(window, shape=(length, 1))
    return b.dft(frames, length=length, axis=2, onesided=bool(onesided))


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
    bins, length, rate = (
        int(b.scalar(value, what))
        for value, what in (
            (num_mel_bins, "num_mel_bins"),
            (dft_length, "dft_length"),
            (sample_rate, "sample_rate"),
        )
    )
    low = float(b.scalar(lower_edge_hertz, "lower_edge_hertz"))
    high = float(b.scalar(upper_edge_hertz, "upper_edge_hertz"))
    if bins < 1 or length < 1 or rate < 1 or not 0 <= low <= high <= rate / 2:
        raise OpError(f"{bins} bins from {low} to {high} Hz of {length} samples at {rate} Hz make no filters")
    return b.const(mel_weights(bins, length, rate, low, high), element_type(output_datatype))


@onnx_op("Det", since=11)
def Det(b: Any, x: Any) -> Any:
    return b.determinant(x)


_WINDOWS = {"Hann": (0.5, 0.5, 0.0), "Hamming": (25 / 46, 21 / 46, 0.0), "Blackman": (0.42, 0.5, 0.08)}
"""Windows as a[0] - a[1] cos(x) + a[2] cos(2x), where x goes once around."""


def _window(terms: tuple[float, float, float]) -> Callable[..., Any]:
    """The importer of a window, computed in double precision: the body in its schema is not, whatever is asked."""

    def importer(b: Any, size: Any, *, output_datatype: int = 1, periodic: int = 1) -> Any:
        (length,) = b.sizes(size, "size")
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
