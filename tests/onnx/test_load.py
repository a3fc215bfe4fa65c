"""Loading: the same tensors as onnx reads, none of the memory, and a ModelError for everything hostile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import ModelError
from compiler.onnx.load import ELEMENT_TYPES, Limits, LoadedModel, element_type, read_model, read_model_proto
from ir.blob import ArrayBlob, FileBlob
from ir.types import DTYPES

ROOT = Path(__file__).parents[2]
FLOAT = TensorProto.FLOAT


def big(name: str, seed: int, count: int = 1000) -> TensorProto:
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(count).astype(np.float32), name)


def graph(*nodes: onnx.NodeProto, initializers: list[TensorProto] | None = None, name: str = "g") -> onnx.GraphProto:
    output = helper.make_tensor_value_info("y", FLOAT, ["N", 2])
    return helper.make_graph(list(nodes), name, [], [output], initializers or [])


def constant(name: str, tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor)


def model_with_weights_everywhere() -> onnx.ModelProto:
    """Large tensors in initializers, sparse initializers, attributes, subgraphs and functions; small ones too."""
    inner = graph(constant("c", big("inner", 1)), initializers=[big("inner_init", 2)], name="inner")
    middle = graph(helper.make_node("If", ["p"], ["m"], then_branch=inner, else_branch=inner), name="middle")
    listed = helper.make_node("Custom", [], ["l"], domain="x", name="listed")
    attribute = listed.attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.extend([big("many0", 3), big("many1", 4, 10)])
    sparse = helper.make_sparse_tensor(
        big("sparse_values", 5), numpy_helper.from_array(np.arange(1000), "sparse_indices"), [4000]
    )
    listed.attribute.append(helper.make_attribute("sparse", sparse))
    function = helper.make_function(
        "x", "F", [], ["o"], [constant("o", big("in_function", 6))], [helper.make_opsetid("", 21)], ["alpha"]
    )
    function.attribute_proto.append(helper.make_attribute("default", big("default", 7)))
    main = graph(
        helper.make_node("If", ["p"], ["y"], then_branch=middle, else_branch=middle),
        listed,
        initializers=[big("large", 8), big("small", 9, 3), helper.make_tensor("typed", FLOAT, [3000], [0.5] * 3000)],
    )
    main.sparse_initializer.append(sparse)
    model = helper.make_model(main, functions=[function], opset_imports=[helper.make_opsetid("", 21)])
    model.training_info.add().algorithm.initializer.append(big("training", 10))
    return model


def tensors(message: object) -> Iterator[TensorProto]:
    """Every TensorProto below a message, in field order."""
    if isinstance(message, TensorProto):
        yield message
        return
    for _, value in message.ListFields():  # type: ignore[attr-defined]
        for item in value if hasattr(value, "__len__") else [value]:
            if hasattr(item, "ListFields"):
                yield from tensors(item)


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def external(location: str = "w.bin", dims: tuple[int, ...] = (4,), **entries: object) -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def load_one(directory: Path, tensor: TensorProto, limits: Limits | None = None) -> LoadedModel:
    path = save(helper.make_model(graph(initializers=[tensor])), directory / "m.onnx")
    return read_model(path, limits)


def blob_error(directory: Path, tensor: TensorProto) -> ModelError:
    loaded = load_one(directory, tensor)
    with pytest.raises(ModelError) as caught:
        loaded.blob(loaded.proto.graph.initializer[0])
    assert caught.value.file == str(directory / "m.onnx")
    return caught.value


# --- weights inside the file


def test_every_tensor_reads_as_onnx_reads_it_and_large_ones_stay_in_the_file(tmp_path: Path) -> None:
    model = model_with_weights_everywhere()
    loaded = read_model(save(model, tmp_path / "m.onnx"))
    del model.training_info[:]
    expected = list(tensors(model))
    found = list(tensors(loaded.proto))
    assert [t.name for t in found] == [t.name for t in expected]
    assert len(found) == 19
    for ours, theirs in zip(found, expected, strict=True):
        blob = loaded.blob(ours)
        array = numpy_helper.to_array(theirs)
        assert isinstance(blob, FileBlob if len(theirs.raw_data) > 1024 else ArrayBlob)
        assert blob.array().dtype == array.dtype
        assert blob.array().tobytes() == array.tobytes()
        assert blob.shape == array.shape
    assert loaded.proto.ByteSize() < 20_000 < model.ByteSize()


def test_all_but_the_weights_is_kept(tmp_path: Path) -> None:
    model = model_with_weights_everywhere()
    loaded = read_model(save(model, tmp_path / "m.onnx"))
    del model.training_info[:]
    for message in (model, loaded.proto):
        for tensor in tensors(message):
            tensor.ClearField("raw_data")
    assert loaded.proto == model


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = save(model_with_weights_everywhere(), tmp_path / "m.onnx")
    loaded = read_model(path)
    assert loaded.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    changed = read_model(path)
    path.write_bytes(path.read_bytes() + b"\x08\x08")
    with pytest.raises(ModelError, match="E0301"):
        changed.sha256()
    large = next(t for t in loaded.proto.graph.initializer if t.name == "large")
    with pytest.raises(OSError, match="changed"):
        loaded.blob(large).array()


NUMERIC = [code for code, dtype in ELEMENT_TYPES.items() if dtype.name != "string"]


def values_of(code: int, count: int) -> np.ndarray:
    dtype = ELEMENT_TYPES[code]
    rng = np.random.default_rng(3)
    if dtype.is_float:
        return rng.choice(np.array([0.5, 1.0, 2.0, 4.0]), count).astype(dtype.numpy)
    if dtype.kind == "complex":
        return (rng.standard_normal(count) + 1j * rng.standard_normal(count)).astype(dtype.numpy)
    low = -2 if dtype.kind == "int" else 0
    return rng.integers(low, 2, count).astype(dtype.numpy)


@pytest.mark.parametrize("code", NUMERIC, ids=lambda code: str(ELEMENT_TYPES[code]))
@pytest.mark.parametrize("count", [0, 1, 7, 9000])
@pytest.mark.parametrize("raw", [True, False])
def test_every_element_type_raw_and_typed(tmp_path: Path, code: int, count: int, raw: bool) -> None:
    values = values_of(code, count)
    dtype = ELEMENT_TYPES[code]
    tensor = numpy_helper.from_array(values, "w")
    if not raw:
        tensor = helper.make_tensor("w", code, [count], values)
    assert tensor.data_type == code
    loaded = load_one(tmp_path, tensor)
    blob = loaded.blob(loaded.proto.graph.initializer[0])
    assert blob.dtype is dtype
    assert blob.array().tobytes() == values.tobytes()
    assert isinstance(blob, FileBlob) == (len(tensor.raw_data) > 1024)
    in_memory = read_model_proto(helper.make_model(graph(initializers=[tensor])))
    assert in_memory.blob(in_memory.proto.graph.initializer[0]).array().tobytes() == values.tobytes()


def test_every_element_type_of_onnx_is_known() -> None:
    unknown = {name for name, code in TensorProto.DataType.items() if code not in ELEMENT_TYPES}
    assert unknown == {"UNDEFINED"}
    assert set(ELEMENT_TYPES.values()) == set(DTYPES.values())
    with pytest.raises(ModelError, match="999"):
        element_type(999)


def test_strings() -> None:
    tensor = helper.make_tensor("s", TensorProto.STRING, [2, 1], [b"a", "\u00e9".encode()])
    blob = read_model_proto(helper.make_model(graph())).blob(tensor)
    assert blob.array().tolist() == [["a"], ["\u00e9"]]
    tensor.dims[0] = 3
    with pytest.raises(ModelError, match="2 strings"):
        read_model_proto(helper.make_model(graph())).blob(tensor)


def test_sparse_tensors_become_dense_when_asked_for(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "v")
    coordinates = np.array([[0, 1], [1, 0], [1, 2]])
    expected = [[0, 1, 0], [2, 0, 3]]
    for indices in (coordinates, np.ravel_multi_index(tuple(coordinates.T), (2, 3))):
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), [2, 3])
        model = helper.make_model(graph())
        model.graph.sparse_initializer.append(sparse)
        loaded = read_model(save(model, tmp_path / "m.onnx"))
        assert loaded.sparse_blob(loaded.proto.graph.sparse_initializer[0]).array().tolist() == expected
    for indices in (np.array([0, 1, 6]), np.array([-1, 0, 1]), np.array([[0, 0], [0, 3], [0, 1]])):
        sparse.indices.CopyFrom(numpy_helper.from_array(indices, "i"))
        with pytest.raises(ModelError, match="tensor v: an index lies outside"):
            loaded.sparse_blob(sparse).array()
    for wrong in (np.arange(2), np.zeros((3, 3), np.int64), np.arange(3, dtype=np.int32)):
        sparse.indices.CopyFrom(numpy_helper.from_array(wrong, "i"))
        with pytest.raises(ModelError, match="tensor v: its indices"):
            loaded.sparse_blob(sparse)


def test_sparse_strings() -> None:
    values = helper.make_tensor("v", TensorProto.STRING, [1], [b"x"])
    sparse = onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(np.array([1])), dims=[2])
    assert read_model_proto(helper.make_model(graph())).sparse_blob(sparse).array().tolist() == ["", "x"]


# --- malformed tensors


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"raw_data": bytes(15)}, "E0302"),
        ({"raw_data": bytes(17)}, "E0302"),
        ({"raw_data": bytes(4000)}, "E0302"),
        ({"float_data": [1.0] * 3}, "E0302"),
        ({"double_data": [1.0] * 4}, "E0302"),
        ({}, "E0302"),
        ({"raw_data": bytes(16), "data_type": 0}, "E0302"),
        ({"raw_data": bytes(16), "data_type": TensorProto.STRING}, "E0302"),
        ({"raw_data": bytes(16), "data_type": TensorProto.FLOAT6E2M3}, "E0302"),
        ({"raw_data": bytes(16), "segment": TensorProto.Segment(begin=0, end=1)}, "E0302"),
        ({"raw_data": bytes(16), "data_location": TensorProto.EXTERNAL}, "E0302"),
        ({"raw_data": bytes(4000), "data_location": TensorProto.EXTERNAL}, "E0302"),
        ({"dims": [-4]}, "E0302"),
        ({"dims": [2**31 + 1]}, "E0304"),
        ({"dims": [2**63 - 1, 2**63 - 1]}, "E0304"),
        ({"dims": [0, 2**31, 2**31]}, "E0304"),
        ({"dims": [1] * 33}, "E0304"),
    ],
)
def test_malformed_tensors_are_refused(tmp_path: Path, change: dict, code: str) -> None:
    tensor = TensorProto(**{"name": "w", "data_type": FLOAT, "dims": [4], **change})
    error = blob_error(tmp_path, tensor)
    assert error.code == code
    assert "tensor w: " in error.message


def test_a_forged_placeholder_is_refused(tmp_path: Path) -> None:
    forged = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4000], raw_data=b"sesame.raw_data@0")
    model = helper.make_model(graph(initializers=[big("large", 0), forged]))
    with pytest.raises(ModelError, match="reserved"):
        read_model(save(model, tmp_path / "m.onnx"))
    loaded = read_model_proto(model)
    with pytest.raises(ModelError, match="17 bytes of data"):
        loaded.blob(loaded.proto.graph.initializer[1])


def test_raw_data_given_twice_means_the_last_as_in_protobuf(tmp_path: Path) -> None:
    once = TensorProto(name="w", data_type=FLOAT, dims=[1000], raw_data=bytes(4000)).SerializeToString()
    twice = TensorProto.FromString(once + TensorProto(raw_data=b"\1" * 4000).SerializeToString())
    data = bytes([TensorProto.RAW_DATA_FIELD_NUMBER << 3 | 2, 0xA0, 0x1F])
    tensor = once + data + b"\1" * 4000
    assert twice.raw_data == b"\1" * 4000
    path = tmp_path / "m.onnx"
    path.write_bytes(length_prefixed(7, length_prefixed(5, tensor)))
    loaded = read_model(path)
    assert loaded.blob(loaded.proto.graph.initializer[0]).array().tobytes() == b"\1" * 4000


# --- external data


def test_external_data_is_read_where_it_says(tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"1234" + values.tobytes())
    for tensor, expected in [
        (external("sub/w.bin", offset=4, length=16, checksum="ignored", name="x", __class__="y"), values[:4]),
        (external("./sub//w.bin", (2, 2), offset=20), values[4:].reshape(2, 2)),
        (external("sub/w.bin", (0,), length=0), values[:0]),
    ]:
        loaded = load_one(tmp_path, tensor)
        blob = loaded.blob(loaded.proto.graph.initializer[0])
        assert np.array_equal(blob.array(), expected)
        assert loaded.data_files() == (tmp_path / "sub" / "w.bin",)
        in_memory = read_model_proto(loaded.proto, tmp_path)
        assert np.array_equal(in_memory.blob(tensor).array(), expected)


def test_external_data_may_be_packed(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes([0x21, 0x0F]))
    tensor = external(dims=(3,), length=2)
    tensor.data_type = TensorProto.INT4
    loaded = load_one(tmp_path, tensor)
    assert loaded.blob(tensor).array().astype(int).tolist() == [1, 2, -1]


def test_external_data_of_a_model_in_memory_needs_a_directory() -> None:
    loaded = read_model_proto(helper.make_model(graph()))
    with pytest.raises(ModelError, match="E0303"):
        loaded.blob(external())


@pytest.mark.parametrize(
    "location",
    [
        "", ".", "..", "../w.bin", "sub/../../w.bin", "sub/../w.bin", "/etc/passwd", "//etc/passwd", "C:w.bin",
        "C:\\w.bin", "..\\w.bin", "sub\\w.bin", "w.bin\0", "w\0.bin", "absent.bin", "sub", "sub/", "w.bin/x",
        "link.bin", "linked/w.bin", "loop", "hard.bin", "pipe", "x" * 300, "a/" * 3000 + "w.bin",
    ],
)  # fmt: skip
def test_locations_that_leave_the_directory_or_are_no_plain_file_are_refused(tmp_path: Path, location: str) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    for directory in (outside, inside, inside / "sub"):
        directory.mkdir()
        (directory / "w.bin").write_bytes(bytes(64))
    (inside / "link.bin").symlink_to(outside / "w.bin")
    (inside / "linked").symlink_to(outside)
    (inside / "loop").symlink_to("loop")
    os.link(outside / "w.bin", inside / "hard.bin")
    os.mkfifo(inside / "pipe")
    assert blob_error(inside, external(location)).code == "E0303"


def test_a_link_inside_the_directory_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (tmp_path / "link.bin").symlink_to("w.bin")
    assert "symbolic link" in blob_error(tmp_path, external("link.bin")).message


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": 1}, {"offset": 2**64}, {"offset": 2**63 - 1}, {"offset": -1}, {"offset": "0x0"}, {"offset": ""},
        {"offset": " 0"}, {"offset": "+0"}, {"offset": "1_0"}, {"offset": "\u0661"}, {"offset": "9" * 5000},
        {"length": 15}, {"length": 17}, {"length": 0}, {"length": -16}, {"length": 2**64 + 16}, {"length": "16.0"},
    ],
)  # fmt: skip
def test_ranges_outside_the_file_or_of_the_wrong_length_are_refused(tmp_path: Path, entries: dict) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    assert blob_error(tmp_path, external(**entries)).code in ("E0302", "E0303")


def test_entries_given_twice_or_without_a_location_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    twice = external()
    twice.external_data.add(key="location", value="w.bin")
    assert "twice" in blob_error(tmp_path, twice).message
    nowhere = external()
    del nowhere.external_data[:]
    assert "no location" in blob_error(tmp_path, nowhere).message
    strings = external()
    strings.data_type = TensorProto.STRING
    assert blob_error(tmp_path, strings).code == "E0303"


def test_a_data_file_swapped_after_loading_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    loaded = load_one(tmp_path, external())
    blob = loaded.blob(loaded.proto.graph.initializer[0])
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="changed"):
        blob.array()


# --- malformed files


def length_prefixed(number: int, content: bytes) -> bytes:
    return header_of_field(number, len(content)) + content


def header_of_field(number: int, length: int) -> bytes:
    out = bytearray([number << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length])


def load_bytes(path: Path, data: bytes) -> None:
    """Load and read every tensor; ModelError is the only exception allowed to come out."""
    path.write_bytes(data)
    try:
        loaded = read_model(path)
        for tensor in tensors(loaded.proto):
            loaded.blob(tensor)
    except ModelError as error:
        assert error.code in ("E0301", "E0302", "E0303", "E0304")
        assert str(path) in error.render()


def small_model() -> bytes:
    inner = graph(constant("c", big("inner", 1, 300)), initializers=[helper.make_tensor("t", FLOAT, [3], [1, 2, 3])])
    nodes = [helper.make_node("If", ["p"], ["y"], then_branch=inner, else_branch=inner)]
    main = graph(*nodes, initializers=[big("w", 2, 280), external(), big("v", 3, 2)])
    return helper.make_model(main).SerializeToString()


def test_a_file_cut_off_anywhere_is_an_error_or_a_model(tmp_path: Path) -> None:
    data = small_model()
    assert 3500 < len(data) < 6000
    for length in range(len(data)):
        load_bytes(tmp_path / "m.onnx", data[:length])


def test_a_file_with_any_bytes_changed_is_an_error_or_a_model(tmp_path: Path) -> None:
    data = small_model()
    rng = random.Random(5)
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        load_bytes(tmp_path / "m.onnx", bytes(broken))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"hello, this is some text and not a model\n", "E0302"),
        (b"\x08\x08", "no graph"),
        (b"\x00\x00", "does not begin a protobuf field"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "beyond what holds it"),
        (b"\x3a" + b"\xff" * 20, "longer than 10 bytes"),
        (b"\x3b\x3c", "wire type"),
        (b"\x3a\x00", None),
    ],
)
def test_files_that_are_not_models(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    if message is None:
        assert read_model(path).proto.HasField("graph")
        return
    with pytest.raises(ModelError, match=message):
        read_model(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent.onnx", tmp_path / "pipe"):
        with pytest.raises(ModelError, match="E0301") as caught:
            read_model(path)
        assert caught.value.file == str(path)


@pytest.mark.parametrize(
    "fields",
    [
        (7, 2),
        (7, 1, 3),
        (7, 1, 1),
        (7, 1, 5, 1),
        (7, 11, 1),
        (7, 11, 2, 1, 2, 1, 2),
        (7, 11, 2, 4, 1, 1, 2, 1, 2),
        (8, 1),
    ],
)
def test_names_that_are_not_text_are_refused(tmp_path: Path, fields: tuple[int, ...]) -> None:
    """`fields` are the field numbers on the way to a string: graph name, node name, input, attribute, dim name ..."""
    data = b"\xff\xfe"
    for number in reversed(fields):
        data = length_prefixed(number, data)
    path = tmp_path / "m.onnx"
    path.write_bytes(length_prefixed(7, b"") + data)
    with pytest.raises(ModelError, match="UTF-8"):
        read_model(path)


# --- limits


def nested(levels: int, payload: int = 0) -> onnx.ModelProto:
    """A model with `levels` subgraphs one inside the other; `payload` bytes of doc string in the innermost."""
    inner = graph()
    inner.doc_string = "x" * payload
    for _ in range(levels):
        node = onnx.NodeProto(op_type="If")
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(inner)
        inner = onnx.GraphProto(name="g", node=[node])
    return helper.make_model(inner)


@pytest.mark.parametrize("payload", [0, 5000])
def test_subgraphs_nest_to_the_limit_and_no_deeper(tmp_path: Path, payload: int) -> None:
    path = save(nested(5, payload), tmp_path / "m.onnx")
    assert read_model(path, Limits(depth=5)).proto == nested(5, payload)
    with pytest.raises(ModelError, match="E0304"):
        read_model(path, Limits(depth=4))
    with pytest.raises(ModelError, match="E0304"):
        read_model_proto(nested(5, payload), limits=Limits(depth=4))
    read_model(save(nested(30, payload), path))


def test_absurd_nesting_is_refused_without_recursion(tmp_path: Path) -> None:
    data = b"x" * 2000
    for _ in range(2000):
        data = length_prefixed(1, length_prefixed(5, length_prefixed(6, data)))
    path = tmp_path / "m.onnx"
    path.write_bytes(length_prefixed(7, data))
    with pytest.raises(ModelError, match="E0304"):
        read_model(path)


def test_other_limits(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]) for _ in range(10)]
    path = save(helper.make_model(graph(*nodes, initializers=[big("w", 0)])), tmp_path / "m.onnx")
    for limits in (Limits(nodes=9), Limits(proto_bytes=100)):
        with pytest.raises(ModelError, match="E0304"):
            read_model(path, limits)
        with pytest.raises(ModelError, match="E0304"):
            read_model_proto(onnx.load(path), limits=limits)
    assert read_model(path, Limits(nodes=10, proto_bytes=1000)).proto.graph.node
    for limits in (Limits(rank=0), Limits(dim=999), Limits(elements=999)):
        loaded = read_model(path, limits)
        with pytest.raises(ModelError, match="E0304"):
            loaded.blob(loaded.proto.graph.initializer[0])


# --- memory

MEMORY_OF_LOADING = """
import sys, time
from pathlib import Path
from compiler.onnx.load import read_model

def peak():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return int(line.split()[1]) // 1024

before = peak()
loaded = read_model(sys.argv[1])
blobs = [loaded.blob(tensor) for tensor in loaded.proto.graph.initializer]
assert sum(blob.nbytes for blob in blobs) >= 3 << 30
assert blobs[-1].array().flat[-1] == 0
print(peak() - before)
"""


def memory_of_loading(path: Path) -> int:
    command = [sys.executable, "-c", MEMORY_OF_LOADING, str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def test_3_gb_of_external_data_take_no_memory(tmp_path: Path) -> None:
    count = 200
    size = 1 << 24
    (tmp_path / "w.bin").touch()
    os.truncate(tmp_path / "w.bin", count * size)
    weights = [external("w.bin", (size // 4,), offset=i * size, length=size) for i in range(count)]
    path = save(helper.make_model(graph(initializers=weights)), tmp_path / "m.onnx")
    assert memory_of_loading(path) < 30  # MiB


def test_3_gb_inside_the_file_take_no_memory(tmp_path: Path) -> None:
    """Beyond what protobuf itself can read. The weights are a hole in a sparse file, so raw_data comes last."""
    size = 3 << 30
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[8, size // 64, 2]).SerializeToString()
    head = tensor + header_of_field(TensorProto.RAW_DATA_FIELD_NUMBER, size)
    for number in (onnx.GraphProto.INITIALIZER_FIELD_NUMBER, onnx.ModelProto.GRAPH_FIELD_NUMBER):
        head = header_of_field(number, len(head) + size) + head
    path = tmp_path / "m.onnx"
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    assert memory_of_loading(path) < 30  # MiB
