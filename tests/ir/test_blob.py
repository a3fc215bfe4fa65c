"""Blobs: what they read, what they write, how they are identified, and what they cost in memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ir import panels
from ir.blob import (
    ArrayBlob,
    Blob,
    DeferredBlob,
    FileBlob,
    FileIdentity,
    FillBlob,
    bytes_in_file,
    stored,
    write_blob,
)
from ir.types import DTYPES, DType, bool_, f4e2m1, f32, i2, i4, i64, string, u2, u4

NUMERIC = [dtype for dtype in DTYPES.values() if dtype is not string]


def written(blob: Blob) -> bytes:
    file = io.BytesIO()
    assert write_blob(blob, file) == blob.nbytes
    return file.getvalue()


def sample(dtype: DType, count: int) -> np.ndarray:
    """An array with every bit pattern that a file of `count` elements of this type may hold."""
    rng = np.random.default_rng(7)
    if dtype.bits < 8:
        return rng.integers(0, 1 << dtype.bits, count, np.uint8).view(dtype.numpy)
    if dtype is bool_:
        return rng.integers(0, 2, count, np.uint8).astype(bool)
    return rng.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype.numpy)


def packed(array: np.ndarray, dtype: DType) -> bytes:
    """The ONNX file encoding of a one-axis array, made bit by bit."""
    if dtype.bits >= 8:
        return array.tobytes()
    bits = sum(int(v) << (i * dtype.bits) for i, v in enumerate(array.view(np.uint8)))
    return bits.to_bytes(bytes_in_file(dtype, array.shape), "little")


@pytest.mark.parametrize("dtype", NUMERIC, ids=str)
@pytest.mark.parametrize("count", [0, 1, 7, 300_001])
def test_file_blob_reads_every_type_at_an_odd_offset(tmp_path: Path, dtype: DType, count: int) -> None:
    if dtype.bits < 8:
        count = min(count, 20_001)  # `packed` is slow
    expected = sample(dtype, count)
    data = packed(expected, dtype)
    path = tmp_path / "w.bin"
    path.write_bytes(b"abc" + data + b"tail")
    blob = FileBlob(path, 3, len(data), dtype, (count,))
    array = blob.array()
    assert array.dtype == dtype.numpy
    assert array.tobytes() == expected.tobytes()
    assert not array.flags.writeable
    assert blob.nbytes == array.nbytes
    assert written(blob) == stored(expected).tobytes() == written(ArrayBlob(expected))


def test_sub_byte_elements_are_packed_low_bits_first(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes([0xF1, 0x08]))
    assert FileBlob(path, 0, 2, i4, (3,)).array().astype(int).tolist() == [1, -1, -8]
    assert FileBlob(path, 0, 2, u4, (2, 2)).array().astype(int).tolist() == [[1, 15], [8, 0]]
    assert FileBlob(path, 0, 2, i2, (5,)).array().astype(int).tolist() == [1, 0, -1, -1, 0]
    assert FileBlob(path, 0, 1, u2, (4,)).array().astype(int).tolist() == [1, 0, 3, 3]
    assert FileBlob(path, 0, 1, f4e2m1, (2,)).array().astype(float).tolist() == [0.5, -6.0]


def test_sub_byte_integers_are_stored_as_whole_bytes_of_the_same_value() -> None:
    assert stored(np.array([-1, 7, -8], i4.numpy)).tobytes() == bytes([0xFF, 7, 0xF8])
    assert stored(np.array([15, 3], u4.numpy)).tobytes() == bytes([15, 3])
    with pytest.raises(TypeError):
        stored(np.array([b"a"], object))


def test_bool_bytes_other_than_0_and_1_are_true(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes([0, 1, 2, 255]))
    blob = FileBlob(path, 0, 4, bool_, (4,))
    assert blob.array().view(np.uint8).tolist() == [0, 1, 1, 1]
    assert written(blob) == bytes([0, 1, 1, 1])


def test_file_blob_refuses_a_length_that_is_not_that_of_its_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        FileBlob(tmp_path / "w", 0, 15, f32, (4,))
    with pytest.raises(ValueError, match="cannot hold"):
        FileBlob(tmp_path / "w", -4, 16, f32, (4,))
    with pytest.raises(TypeError):
        FileBlob(tmp_path / "w", 0, 16, string, (2,))


def test_file_blob_notices_a_shorter_a_changed_and_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(16))
    identity = FileIdentity.of(os.stat(path))
    blob = FileBlob(path, 0, 16, f32, (4,), identity=identity)
    assert blob.array().tolist() == [0.0] * 4
    replacement = tmp_path / "other"
    replacement.write_bytes(bytes(16))
    os.replace(replacement, path)
    with pytest.raises(OSError, match="changed"):
        blob.array()
    with pytest.raises(OSError, match="changed"):
        written(blob)
    os.truncate(path, 15)
    with pytest.raises(OSError, match="changed"):
        FileBlob(path, 0, 16, f32, (4,)).array()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        blob.array()


def test_file_blob_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4))
    monkeypatch.chdir(tmp_path)
    blob = FileBlob("w.bin", 0, 4, f32, (1,))
    monkeypatch.chdir("/")
    assert blob.array().tolist() == [0.0]


def test_mapping_ends_with_the_array(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(1 << 20))
    array = FileBlob(path, 0, 1 << 20, f32, (1 << 18,)).array()

    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    assert mapped()
    del array
    assert not mapped()


def test_array_blob_writes_c_order_whatever_the_strides() -> None:
    array = np.arange(600_000, dtype=np.int64).reshape(600, 1000).T[::3, ::-1]
    assert written(ArrayBlob(array)) == np.ascontiguousarray(array).tobytes()
    assert written(ArrayBlob(np.float32(2.5))) == np.float32(2.5).tobytes()
    assert not ArrayBlob(array).array().flags.writeable


def test_strings_are_objects() -> None:
    blob = ArrayBlob(np.array(["a", "bc"]))
    assert blob.dtype is string
    assert blob.array().tolist() == ["a", "bc"]
    assert blob.key != ArrayBlob(np.array(["ab", "c"])).key
    with pytest.raises(TypeError):
        written(blob)


@pytest.mark.parametrize("dtype", NUMERIC, ids=str)
def test_fill_blob(dtype: DType) -> None:
    blob = FillBlob(1, dtype, (3, 500_001))
    expected = np.full(blob.shape, 1, dtype.numpy)
    assert blob.array().dtype == dtype.numpy
    assert (blob.array() == expected).all()
    assert not blob.array().flags.writeable
    assert written(blob) == expected.tobytes()
    assert written(FillBlob(1, dtype, ())) == expected[0, 0].tobytes()
    assert FillBlob(1, dtype, (0, 1 << 40)).array().shape == (0, 1 << 40)


def test_keys_tell_contents_apart_and_nothing_else(tmp_path: Path) -> None:
    ones = np.ones(4, np.float32)
    blobs = [
        ArrayBlob(ones), ArrayBlob(ones.reshape(2, 2)), ArrayBlob(ones.view(np.int32)), ArrayBlob(ones * 2),
        ArrayBlob(ones * 0), ArrayBlob(-(ones * 0)), ArrayBlob(np.ones(5000, np.float32)),
        FileBlob(tmp_path / "a", 0, 16, f32, (4,)), FileBlob(tmp_path / "a", 4, 16, f32, (4,)),
        FileBlob(tmp_path / "b", 0, 16, f32, (4,)), FileBlob(tmp_path / "a", 0, 16, f32, (2, 2)),
        FillBlob(1, f32, (4,)), FillBlob(2, f32, (4,)), FillBlob(1, f32, (5,)), FillBlob(1, i64, (4,)),
    ]  # fmt: skip
    assert len({blob.key for blob in blobs}) == len(blobs)
    assert ArrayBlob(ones).key == ArrayBlob(np.ones(8, np.float32)[::2]).key
    assert FillBlob(1, f32, (4,)).key == FillBlob(1.0, f32, (4,)).key


def test_deferred_key_is_label_params_and_inputs() -> None:
    def make(label: str = "scale", x: Blob | None = None, params: tuple = (2, "a", None, (1.5,), f32)) -> DeferredBlob:
        return DeferredBlob(label, lambda a: a * 2, (x or FillBlob(1, f32, (4,)),), f32, (4,), params)

    assert make().key == make().key
    others = [
        make("other"),
        make(x=FillBlob(2, f32, (4,))),
        make(params=(2.0, "a", None, (1.5,), f32)),
        make(params=()),
    ]
    assert len({blob.key for blob in [make(), *others]}) == 5
    with pytest.raises(TypeError, match="object"):
        make(params=(object(),))  # its text would hold an address


def test_deferred_blob_is_evaluated_anew_and_checked() -> None:
    calls = []

    def double(a: np.ndarray) -> np.ndarray:
        calls.append(a)
        return a * 2

    x = ArrayBlob(np.arange(3, dtype=np.float32))
    blob = DeferredBlob("double", double, (x,), f32, (3,))
    assert blob.array().tolist() == [0, 2, 4]
    assert not blob.array().flags.writeable
    assert written(blob) == np.array([0, 2, 4], np.float32).tobytes()
    assert len(calls) == 3
    with pytest.raises(ValueError, match=r"double: computed float32\[3\] for a blob declared f32\[4\]"):
        DeferredBlob("double", double, (x,), f32, (4,)).array()
    with pytest.raises(ValueError, match="widen: computed float64"):
        DeferredBlob("widen", lambda a: a.astype(np.float64), (x,), f32, (3,)).array()


def test_deep_and_wide_deferred_blobs() -> None:
    calls = 0

    def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return (a + b) % 1000003

    blob: Blob = ArrayBlob(np.array([1], np.int64))
    for _ in range(5000):
        blob = DeferredBlob("add", add, (blob, blob), i64, (1,))
    assert blob.array().tolist() == [pow(2, 5000, 1000003)]
    assert calls == 5000
    assert blob.key.startswith("deferred:add:")


def test_deferred_blob_frees_arrays_after_their_last_use() -> None:
    import weakref

    alive: list[weakref.ref] = []
    most = 0

    def step(a: np.ndarray) -> np.ndarray:
        nonlocal most
        result = a + 1
        alive.append(weakref.ref(result))
        most = max(most, sum(ref() is not None for ref in alive))
        return result

    blob: Blob = ArrayBlob(np.zeros(4, np.float32))
    for _ in range(50):
        blob = DeferredBlob("step", step, (blob,), f32, (4,))
    assert blob.array().tolist() == [50.0] * 4
    assert most == 2


MEMORY_OF_WRITING = """
import sys
from pathlib import Path
from ir.blob import FileBlob, FillBlob, write_blob
from ir.types import f32, i4

def peak():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return int(line.split()[1]) // 1024

size = 1 << 28
before = peak()
with open("/dev/null", "wb") as out:
    floats = FileBlob(sys.argv[1], 0, size, f32, (size // 4,))
    nibbles = FileBlob(sys.argv[1], 0, size // 4, i4, (size // 2,))
    for blob in (floats, nibbles, FillBlob(1, f32, (size // 4,))):
        assert write_blob(blob, out) == blob.nbytes
print(peak() - before)
"""


def test_writing_a_file_range_or_a_fill_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.touch()
    os.truncate(path, 1 << 28)
    command = [sys.executable, "-c", MEMORY_OF_WRITING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < 24  # MiB; a quarter GiB passes through


def test_blobs_need_only_numpy() -> None:
    program = "import sys, ir.blob; print([m for m in ('onnx', 'lark', 'networkx') if m in sys.modules])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("rest", "columns", "factor"), [((5,), 12, 4), ((3, 2), 7, 4), ((1,), 3, 8), ((4,), 0, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.int4])
def test_panels_are_written_as_they_are_laid_out(
    rest: tuple[int, ...], columns: int, factor: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "CHUNK", 64)  # several turns of the two buffers
    whole = np.random.default_rng(0).integers(-8, 8, (*rest, columns)).astype(dtype)
    blob = panels.PanelBlob(ArrayBlob(whole), rest, factor)
    made = blob.array()
    for panel in range(blob.shape[0]):
        part = whole[..., panel * factor : (panel + 1) * factor]
        assert np.array_equal(made[panel][..., : part.shape[-1]], part)
        assert not made[panel][..., part.shape[-1] :].astype(np.float32).any()
    file = io.BytesIO()
    assert write_blob(blob, file) == blob.nbytes
    assert file.getvalue() == stored(made).tobytes()
