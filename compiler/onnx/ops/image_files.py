"""ImageDecoder of ai.onnx: from a stream of bytes to pixels. Sizes come from the stream; a damaged one has none."""

from __future__ import annotations

from typing import Any

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError
from ir.ops.image_files import MODES


@onnx_op("ImageDecoder", since=20)
def ImageDecoder(b: Any, encoded: Any, *, pixel_format: str = "RGB") -> Any:
    if pixel_format not in MODES:
        raise OpError(f"`pixel_format` is '{pixel_format}'; it must be {', '.join(MODES[:-1])} or {MODES[-1]}")
    if encoded.rank != 1 or encoded.dtype != t.u8:
        raise OpError(f"the stream is {encoded.type}; it must be u8 with one axis")
    sizes = b.image_size(encoded)
    said = [b.reshape(b.slice(sizes, starts=(i,), shape=(1,), steps=(1,)), shape=()) for i in range(2)]
    height, width = (b.run_time_size(axis, is_bounded=False) for axis in range(2))
    rows, columns = (b.run_time_size(axis) for axis in range(2))
    pixels, _, is_whole = b.image_pixels(
        encoded, *said, height=rows, width=columns, most_height=height, most_width=width
    )  # fmt: skip
    found = [b.mul(size, is_whole) for size in said]
    return b.image_channels(pixels, *found, height=height, width=width, mode=pixel_format)
