"""ImageDecoder: generated C against Pillow, format by format, and on streams that are damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.parser
import pytest
from PIL import Image

import compiler
from compiler.errors import UnsupportedError
from compiler.onnx_backend import run_model
from ir.ops.image_files import opened

MODEL = """<ir_version: 10, opset_import: ["": 20]> decoder (uint8[N] stream) => (uint8[height,width,c] image) {
    image = ImageDecoder <pixel_format="RGB"> (stream)
}"""
SIZES = ((1, 1), (7, 5), (8, 8), (17, 33))


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Something smooth with noise on it, so that every coefficient and every filter has work."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + i) * 60 + np.cos(y / 7 - i) * 60 + 128 for i in range(channels)]
    return (np.stack(waves, -1) + rng.normal(0, 12, (height, width, channels))).clip(0, 255).astype(np.uint8)


def saved(image: Any, kind: str, **options: Any) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def in_mode(height: int, width: int, mode: str) -> Any:
    image = Image.fromarray(picture(height, width))
    if mode != "I;16":
        return image.convert(mode)
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 250)


def jpegs() -> Iterator[np.ndarray]:
    for size in SIZES:
        image = Image.fromarray(picture(*size))
        for progressive in (False, True):
            for subsampling in (0, 1, 2):
                yield saved(image, "jpeg", quality=70, subsampling=subsampling, progressive=progressive)
            yield saved(image.convert("L"), "jpeg", progressive=progressive)
            yield saved(image, "jpeg", restart_marker_blocks=2, progressive=progressive)
        yield saved(image, "jpeg", keep_rgb=True)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def interlaced(image: np.ndarray) -> np.ndarray:
    """A PNG in Adam7's passes, which Pillow reads and does not write."""
    height, width, channels = image.shape
    grid = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [image[y::down, x::across] for y, x, down, across in grid]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 1)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return np.frombuffer(b"\x89PNG\r\n\x1a\n" + chunks, np.uint8)


def pngs() -> Iterator[np.ndarray]:
    for size in SIZES:
        for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "I;16"):
            for level in (0, 9):
                yield saved(in_mode(*size, mode), "png", compress_level=level)
        for bits in (1, 2, 4):
            yield saved(Image.fromarray(picture(*size)).quantize(1 << bits), "png", bits=bits)
        for channels in (1, 2, 3, 4):
            yield interlaced(picture(*size, channels))


def bitmap(height: int, width: int, bits: int, coding: int, masks: tuple[int, ...], body: bytes) -> np.ndarray:
    """A bitmap of any coding; a negative height is top down. Colours of a palette are random."""
    palette = np.random.default_rng(1).integers(0, 256, 1024 if bits == 8 else 0, np.uint8).tobytes()
    extra = struct.pack(f"<{len(masks)}I", *masks) + palette
    start = 54 + len(extra)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, coding, len(body), 0, 0, 256 if palette else 0, 0)
    return np.frombuffer(b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + extra + body, np.uint8)


def bitmaps() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(3)
    for height, width in SIZES:
        for mode in ("RGB", "L", "1", "P", "RGBA"):
            yield saved(in_mode(height, width, mode), "bmp")
        for bits, coding, masks in ((16, 0, ()), (16, 3, (0xF800, 0x7E0, 0x1F)), (32, 0, ())):
            body = rng.integers(0, 256, (width * bits + 31) // 32 * 4 * height, np.uint8).tobytes()
            for direction in (1, -1):
                yield bitmap(height * direction, width, bits, coding, masks, body)
        runs = b""
        for _ in range(height):
            left = width
            while left:
                count = int(min(rng.integers(1, 9), left))
                pixels = rng.integers(0, 256, count, np.uint8).tobytes()
                is_run = count < 3 or rng.random() < 0.5
                runs += bytes([count]) + pixels[:1] if is_run else bytes([0, count]) + pixels + bytes(count % 2)
                left -= count
            runs += b"\0\0"
        yield bitmap(height, width, 8, 1, (), runs + b"\0\1")


def anymaps() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(2)
    for size in SIZES:
        for mode in ("1", "L", "RGB"):
            yield saved(in_mode(*size, mode), "ppm")
    for most in (1, 3, 12, 255, 1000, 65535):
        for kind in b"12356":
            channels = 3 if kind in b"36" else 1
            values = rng.integers(0, 2 if kind == ord("1") else most + 1, 4 * 5 * channels)
            head = f"P{chr(kind)}\n# a comment\n5 4\n" + ("" if kind == ord("1") else f"{most}\n")
            wide = values.astype(">u2") if most > 255 else values.astype(np.uint8)
            body = wide.tobytes() if kind in b"56" else "\n".join(map(str, values)).encode()
            yield np.frombuffer(head.encode() + body, np.uint8)


def tiffs() -> Iterator[np.ndarray]:
    for size in SIZES:
        for mode in ("1", "L", "RGB", "P", "RGBA", "I;16"):
            image = in_mode(*size, mode)
            for compression in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate"):
                yield saved(image, "tiff", compression=compression)
                if mode in ("L", "RGB") and compression in ("tiff_lzw", "tiff_adobe_deflate"):
                    yield saved(image, "tiff", compression=compression, tiffinfo={317: 2, 278: 3})


FORMATS = {"jpeg": jpegs, "png": pngs, "bmp": bitmaps, "pnm": anymaps, "tiff": tiffs}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = compiler.load(onnx.parser.parse_model(MODEL), dims={"height": (0, 512), "width": (0, 512)})
    folder = tmp_path_factory.mktemp("images") / "decoder"
    loaded = compiler.compile(model, "c", out=folder, march="", opt="-O1").load()
    return lambda stream: loaded.run({"stream": stream})["image"]


@pytest.mark.parametrize("name", FORMATS)
def test_c_gives_what_pillow_gives(name: str, decoder: Any) -> None:
    for number, stream in enumerate(FORMATS[name]()):
        image = opened(stream)
        assert image is not None
        np.testing.assert_array_equal(decoder(stream), np.asarray(image), err_msg=f"stream {number}")


def test_large_images(decoder: Any) -> None:
    image = Image.fromarray(picture(200, 333))
    for kind, options in (("png", {}), ("jpeg", {}), ("tiff", {"compression": "tiff_lzw"})):
        stream = saved(image, kind, **options)
        np.testing.assert_array_equal(decoder(stream), np.asarray(opened(stream)))


def test_what_is_no_image_has_no_pixels(decoder: Any) -> None:
    whole = saved(Image.fromarray(picture(8, 8)), "png")
    for stream in (np.zeros(0, np.uint8), np.frombuffer(b"no image", np.uint8), whole[:20], whole[:-40]):
        assert decoder(stream).shape == (0, 0, 3)
        assert run_model(onnx.parser.parse_model(MODEL), [stream], "REFERENCE")[0].shape == (0, 0, 3)


def test_an_image_beyond_the_limits_is_an_error(decoder: Any) -> None:
    with pytest.raises(compiler.CompileError, match="limit"):
        decoder(saved(Image.fromarray(picture(513, 1)), "png"))


def test_formats_that_c_does_not_decode_are_refused_and_not_taken_for_damage(decoder: Any) -> None:
    image = Image.fromarray(picture(8, 9))
    streams = [saved(image, kind) for kind in ("webp", "jpeg2000")]
    streams += [saved(image.convert("CMYK"), "jpeg"), saved(image.convert("CMYK"), "tiff")]
    for stream in streams:
        assert run_model(onnx.parser.parse_model(MODEL), [stream], "REFERENCE")[0].shape == (8, 9, 3)
        with pytest.raises(UnsupportedError, match="a form that this code does not read"):
            decoder(stream)


def damaged(count: int) -> Iterator[np.ndarray]:
    """Streams with bytes changed, cut and repeated, more often at their beginning."""
    rng = np.random.default_rng(5)
    streams = [stream.tobytes() for make in FORMATS.values() for stream in make() if 60 < len(stream) < 4000]
    for _ in range(count):
        data = bytearray(streams[int(rng.integers(len(streams)))])
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(len(data) if rng.random() < 0.5 else min(len(data), 80)))
            match int(rng.integers(5)):
                case 0 | 1:
                    data[at] = int(rng.integers(256))
                case 2:
                    data[at] = 255
                case 3:
                    data[at + 1 :] = b"" if rng.random() < 0.3 else data[at + 1 :]
                case 4:
                    data[at:at] = data[at : at + 7]
        yield np.frombuffer(bytes(data), np.uint8)


def test_damaged_streams_end(decoder: Any) -> None:
    """Nothing hangs, and nothing is written outside: no status says that an index was out of range."""
    shapes = set()
    for stream in damaged(400):
        try:
            shapes.add(decoder(stream).shape)
        except compiler.CompileError as error:
            assert isinstance(error, UnsupportedError) or "limit" in str(error)
    assert (0, 0, 3) in shapes and len(shapes) > 3


@pytest.mark.sweep
def test_damaged_streams_under_sanitizers(tmp_path: Any) -> None:
    model = compiler.load(onnx.parser.parse_model(MODEL), dims={"height": (0, 512), "width": (0, 512)})
    artifact = compiler.compile(model, "c", out=tmp_path / "decoder", opt="-O1", sanitize="address+undefined")
    loaded = artifact.load()
    for stream in damaged(400):
        try:
            loaded.run({"stream": stream})
        except compiler.CompileError as error:
            assert isinstance(error, UnsupportedError) or "limit" in str(error)


def test_without_pillow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(compiler.CompileError, match=r"install sesame-compiler\[images\]"):
        run_model(onnx.parser.parse_model(MODEL), [np.zeros(4, np.uint8)], "REFERENCE")


def test_sizes_without_limits_are_refused_by_name() -> None:
    with pytest.raises(compiler.CompileError, match="height"):
        compiler.find_backend("c").pipeline().run(compiler.load(onnx.parser.parse_model(MODEL)))
