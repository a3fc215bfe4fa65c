"""Encoded images: their size, and their pixels.

The interpreter decodes with Pillow. Generated code has decoders of its own, one for each format (see `ir.ops.images`);
images in WebP and JPEG 2000 are refused when they are met. The two may differ in what they make of a damaged stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, apply, cast
from ir.op import Op, OpError, case, define, op, require
from ir.ops.images import bmp, jpeg, png, pnm, tiff
from ir.ops.images.canvas import WORK_COLUMNS, WORK_EXTRA, WORK_ROWS, Canvas, negated
from ir.ops.images.examples import EXAMPLES
from ir.types import TensorType

FORMATS: list[tuple[Callable[[Canvas], Expr], Any]] = [
    (bmp.is_bmp, bmp), (pnm.is_pnm, pnm), (png.is_png, png), (tiff.is_tiff, tiff), (jpeg.is_jpeg, jpeg),
]  # fmt: skip


def is_webp(c: Canvas) -> Expr:
    return c.matches(b"RIFF") & c.matches(b"WEBP", 8)


def is_jpeg_2000(c: Canvas) -> Expr:
    return c.matches(b"\0\0\0\x0cjP  ") | c.matches(b"\xff\x4f\xff\x51")


MODES = ("RGB", "BGR", "Grayscale")


def opened(encoded: np.ndarray) -> Any:
    """The image in a stream as Pillow's, in colours; None for what is no image. Raises OpError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise OpError("decoding images takes Pillow: install sesame-compiler[images]") from error
    import io

    try:
        image = Image.open(io.BytesIO(encoded.tobytes()))
        image.load()
        if image.mode.startswith("I"):  # greys of 16 bits, of which the upper eight count
            return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")
    except Exception:  # whatever a decoder makes of a damaged stream
        return None


def _require_bytes(name: str, encoded: TensorType) -> None:
    require(encoded.dtype == t.u8 and encoded.rank == 1, lambda: f"{name} does not take {encoded}")


@op
class ImageSize(Op):
    """Height and width of the image in a stream of bytes; 0 and 0 where there is none.

    Generated code gives -1 and -1 for images in formats, or forms of these, that it does not decode.
    """

    examples = [case(data) for data, _, _ in EXAMPLES]

    def infer(self, encoded: TensorType) -> TensorType:
        _require_bytes("image_size", encoded)
        return TensorType(t.i64, (2,))

    def reference(self, encoded: np.ndarray) -> np.ndarray:
        image = opened(encoded)
        return np.array((0, 0) if image is None else (image.height, image.width))

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], encoded: Tensor) -> None:
        for axis in range(2):
            k.store(outs[0], (axis,), 0)
        c = Canvas(k, encoded)
        with k.when(is_webp(c) | is_jpeg_2000(c)):
            for axis in range(2):
                k.store(outs[0], (axis,), -1)
        for matches, module in FORMATS:
            with k.when(c.ok & matches(c)):
                sizes = module.size(c)
                with k.when(c.ok):
                    for axis, size in enumerate(sizes):
                        k.store(outs[0], (axis,), size)


@op
class ImagePixels(Op):
    """The pixels of the image in a stream as u8[height,width,3], memory that it took, and whether they are whole (i64).

    The sizes are operands too, and at most `most_height` and `most_width`.
    """

    defines = ("height", "width")
    limited_by = ("most_height", "most_width")
    may_refuse = True
    height: Size
    width: Size
    most_height: Size | None = None
    most_width: Size | None = None
    examples = [case(data, np.array(h), np.array(w), height=h, width=w) for data, h, w in EXAMPLES[3:4]]

    def infer(self, encoded: TensorType, height: TensorType, width: TensorType) -> tuple[TensorType, ...]:
        _require_bytes("image_pixels", encoded)
        define(self.height, self.most_height)
        define(self.width, self.most_width)
        frame = (self.height + WORK_ROWS) * (self.width + WORK_COLUMNS) * 4 + WORK_EXTRA
        return TensorType(t.u8, (self.height, self.width, 3)), TensorType(t.i16, (frame,)), TensorType(t.i64, ())

    def reference(self, encoded: np.ndarray, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, ...]:
        image = opened(encoded)
        rows, columns = int(height), int(width)
        work = np.zeros((rows + WORK_ROWS) * (columns + WORK_COLUMNS) * 4 + WORK_EXTRA, np.int16)
        if image is None or (image.height, image.width) != (rows, columns):
            return np.zeros((rows, columns, 3), np.uint8), work, np.array(0)
        return np.asarray(image), work, np.array(1)

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], encoded: Tensor, height: Tensor, width: Tensor
    ) -> None:  # fmt: skip
        pixels, work, done = outs
        with k.loop(y=pixels.shape[0], x=pixels.shape[1], c=3) as place:
            k.store(pixels, place, 0)
        c = Canvas(k, encoded, pixels, work)
        found = k.variable("found", False, t.bool_)
        for matches, module in FORMATS:
            with k.when(negated(found) & matches(c)):
                k.assign(found, True)
                module.decode(c)
        with k.loop(i=work.shape[0]) as i:
            k.store(work, (i,), 0)
        k.store(done, (), cast(c.ok & found, t.i64))


@op
class ImageChannels(Op):
    """Pixels u8[h,w,3] as `mode` says, u8[height,width,3] or [height,width,1]; the sizes are operands as well.

    They are those of the pixels, or 0 where the image could not be decoded.
    """

    defines = ("height", "width")
    height: Size
    width: Size
    mode: str = "RGB"
    examples = [
        *(case("u8[2,3,3]", np.array(2), np.array(3), height=2, width=3, mode=mode) for mode in MODES),
        case("u8[2,3,3]", np.array(0), np.array(0), height=0, width=0),
    ]

    def infer(self, pixels: TensorType, height: TensorType, width: TensorType) -> TensorType:
        require(pixels.rank == 3 and pixels.dtype == t.u8, lambda: f"image_channels does not take {pixels}")
        require(self.mode in MODES, lambda: f"image_channels: mode {self.mode!r} is none of {', '.join(MODES)}")
        define(self.height, None)
        define(self.width, None)
        return TensorType(t.u8, (self.height, self.width, 1 if self.mode == "Grayscale" else 3))

    def reference(self, pixels: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
        pixels = pixels[: int(height), : int(width)]
        if self.mode != "Grayscale":
            return pixels[:, :, ::-1] if self.mode == "BGR" else pixels
        weights = np.array([19595, 38470, 7471])  # ITU-R BT.601 with 16 bits of fraction
        return ((pixels.astype(np.int64) @ weights + 0x8000) >> 16).astype(np.uint8)[:, :, None]

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], pixels: Tensor, height: Tensor, width: Tensor
    ) -> None:  # fmt: skip
        (y,) = outs
        with k.loop(r=y.shape[0], c=y.shape[1]) as (r, column):
            red, green, blue = (cast(pixels.at(r, column, i, outside=0), t.i64) for i in range(3))
            luma = apply("shr", red * 19595 + green * 38470 + blue * 7471 + 0x8000, 16)
            values = {"RGB": (red, green, blue), "BGR": (blue, green, red), "Grayscale": (luma,)}[self.mode]
            for channel, value in enumerate(values):
                k.store(y, (r, column, channel), cast(value, t.u8))


__all__ = ["MODES", "ImageChannels", "ImagePixels", "ImageSize", "opened"]
