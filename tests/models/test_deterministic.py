"""Deterministic code gives the same bits whatever it is made for, compiled for, compiled with, and run on."""

from __future__ import annotations

import functools
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from backends.c.sanitized import SanitizedModel
from compiler.artifact import Artifact
from compiler.backend import find_backend
from compiler.errors import CompileError
from tests.models import golden

Feeds = dict[str, np.ndarray]
is_x86 = platform.machine() in ("x86_64", "AMD64")

ON_X86 = [  # made for, compiled for (None: the same), with, at: vectors of every width, wide ones in narrow ones too
    ("x86-64-v4", "native", "gcc", "-O3"),
    ("x86-64-v4", "x86-64-v2", "gcc", "-O2"),
    ("avx512-bf16", "x86-64", "gcc", "-O1"),
    ("x86-64-v3", None, "gcc", "-O2"),
    ("x86-64-v3", None, "zig", "-O3"),
    ("x86-64-v2", None, "gcc", "-O3"),
    ("x86-64", None, "zig", "-O2"),
    ("generic", None, "gcc", "-O0"),
    ("aarch64", "native", "gcc", "-O2"),
]
ELSEWHERE = [  # made and compiled for, zig's target, what runs it
    ("aarch64", "aarch64-linux-musl", ("qemu-aarch64",)),
    ("riscv64-v", "riscv64-linux-musl", ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=128")),
    ("generic", "riscv64-linux-musl", ("qemu-riscv64",)),
]
SMALL = ["functions_f32", "functions_f64", "sums", "layers", "attention"]
ZOO = ["magika", "oww_melspec", "silero_vad_op15", "ort_logreg_iris"]
EXPORTED = ["mobius_bert_tiny", "t5_tiny_decoder_ts"]
LONG = [
    "dnsmos_v8", "eeg_seizure", "light_shufflenet", "light_squeezenet", "minilm_l6_int8", "oww_embedding",
    "paraphrase_minilm_l3", "ppocr2_cls", "ppocr4_rec", "silero_vad_ov16k", "surfaces_gbr", "tashkeel_rawi_v3_int8",
]  # fmt: skip
BF16 = ["silero_vad_op15", "mobius_bert_tiny"]

ONE = [
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSwish", "Log", "Mish", "Neg", "Reciprocal", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Tan", "Tanh",
]  # fmt: skip


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Mapping[str, np.ndarray]) -> Any:
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "made", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def functions(dtype: np.dtype) -> tuple[Any, Feeds]:
    """Every function of one element, and of two, in the domain of each and beyond."""
    rng = np.random.default_rng(1)
    kind = TensorProto.FLOAT if dtype == np.float32 else TensorProto.DOUBLE
    nodes = [helper.make_node(op, ["x"], [op]) for op in ONE]
    nodes += [helper.make_node(op, ["x", "y"], [op]) for op in ("Pow", "Div", "Mul", "Max")]
    nodes += [helper.make_node("Mod", ["x", "y"], ["Mod"], fmod=1)]
    outputs = [value(node.output[0], 3, 173, dtype=kind) for node in nodes]
    x = rng.standard_normal((3, 173)) * np.array([[0.5], [3.0], [60.0]])
    y = rng.standard_normal((3, 173)) * 4
    inputs = [value(name, 3, 173, dtype=kind) for name in ("x", "y")]
    return model_of(nodes, inputs, outputs, {}), {"x": x.astype(dtype), "y": y.astype(dtype)}


def sums() -> tuple[Any, Feeds]:
    """Reductions along each axis, of lengths that make whole vectors and that do not, and products of all forms."""
    rng = np.random.default_rng(2)
    made: list[Any] = []
    for op in ("ReduceSum", "ReduceMean", "ReduceL2", "ReduceLogSumExp", "ReduceProd", "ReduceMax"):
        made += [helper.make_node(op, ["x", f"axis{axis}"], [f"{op}{axis}"], keepdims=0) for axis in range(3)]
    made += [helper.make_node("Softmax", ["x"], [f"soft{axis}"], axis=axis) for axis in range(3)]
    made += [helper.make_node("CumSum", ["x", "axis2"], ["running"])]
    made += [helper.make_node("LayerNormalization", ["x", "scale"], ["normed"])]
    made += [helper.make_node("MatMul", ["x", w], [f"by_{w}"]) for w in ("w1", "w3", "w7", "w20", "w70")]
    made += [helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1])]
    made += [
        helper.make_node("MatMul", ["x", "turned"], ["square"]),
        helper.make_node("MatMul", ["turned", "x"], ["gram"]),
    ]
    made += [helper.make_node("Einsum", ["x", "x"], ["inner"], equation="bij,bij->b")]
    outputs = [helper.make_empty_tensor_value_info(name) for node in made for name in node.output if name != "turned"]
    weights = {f"w{n}": rng.standard_normal((83, n)).astype(np.float32) for n in (1, 3, 7, 20, 70)}
    weights |= {f"axis{axis}": np.array([axis], np.int64) for axis in range(3)}
    weights["scale"] = rng.standard_normal(83).astype(np.float32)
    x = rng.standard_normal((2, 37, 83)).astype(np.float32)
    return model_of(made, [value("x", "B", "M", 83)], outputs, weights), {"x": x}


def layers() -> tuple[Any, Feeds]:
    """Convolutions that Winograd's filtering takes and that it does not, of groups, of one channel, transposed and
    along one axis; pooling; norms; a recurrence."""
    rng = np.random.default_rng(3)
    shapes = {"c3": (24, 3, 3, 3), "c24": (32, 24, 3, 3), "d": (32, 1, 3, 3), "g": (32, 8, 1, 1), "one": (5, 1, 3, 5)}
    shapes |= {"up": (32, 6, 2, 2), "row": (9, 32, 4), "W": (1, 4 * 11, 9), "R": (1, 4 * 11, 11), "B": (1, 8 * 11)}
    weights = {name: (rng.standard_normal(s) * 0.2).astype(np.float32) for name, s in shapes.items()}
    weights["flat"], weights["s"] = np.array([1, 32, -1], np.int64), np.ones(32, np.float32)
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "c3"], ["a"], **pads), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "c24"], ["c"], **pads), helper.make_node("HardSigmoid", ["c"], ["e"]),
        helper.make_node("Conv", ["e", "d"], ["f"], group=32, **pads), helper.make_node("Sigmoid", ["f"], ["h"]),
        helper.make_node("Conv", ["h", "g"], ["i"], group=4),
        helper.make_node("AveragePool", ["i"], ["j"], kernel_shape=[3, 2]),
        helper.make_node("InstanceNormalization", ["j", "s", "s"], ["k"]),
        helper.make_node("ConvTranspose", ["k", "up"], ["l"]),
        helper.make_node("GlobalAveragePool", ["l"], ["m"]), helper.make_node("Reshape", ["k", "flat"], ["n"]),
        helper.make_node("Conv", ["n", "row"], ["o"]), helper.make_node("Transpose", ["o"], ["p"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["p", "W", "R", "B"], ["q", "r"], hidden_size=11),
        helper.make_node("Slice", ["x", "zero", "first", "one_axis"], ["t"]),
        helper.make_node("Conv", ["t", "one"], ["u"]),
        helper.make_node("LRN", ["k"], ["v"], size=3),
    ]  # fmt: skip
    weights |= {"zero": np.array([0]), "first": np.array([1]), "one_axis": np.array([1])}
    outputs = [helper.make_empty_tensor_value_info(name) for name in ("l", "m", "q", "r", "u", "v")]
    x = rng.standard_normal((1, 3, 18, 21)).astype(np.float32)
    return model_of(nodes, [value("x", 1, 3, 18, 21)], outputs, weights), {"x": x}


def attention() -> tuple[Any, Feeds]:
    """Heads of several widths over sequences whose lengths are known and that are not, with masks and without."""
    rng = np.random.default_rng(4)
    nodes: list[Any] = []
    inputs: list[Any] = []
    feeds: Feeds = {}
    for number, (width, symbolic, masked) in enumerate([(64, True, True), (32, False, False), (20, True, False)]):
        q, k, v, m = (f"{letter}{number}" for letter in "qkvm")
        turned, scores, weights = f"turned{number}", f"scores{number}", f"weights{number}"
        nodes += [helper.make_node("Transpose", [k], [turned], perm=[0, 1, 3, 2])]
        nodes += [helper.make_node("MatMul", [q, turned], [f"raw{number}"])]
        nodes += [helper.make_node("Add" if masked else "Mul", [f"raw{number}", m], [scores])]
        nodes += [helper.make_node("Softmax", [scores], [weights], axis=-1)]
        nodes += [helper.make_node("MatMul", [weights, v], [f"y{number}"])]
        rows, keys = ("M", "K") if symbolic else (45, 77)
        shapes = {q: (1, 3, rows, width), k: (1, 3, keys, width), v: (1, 3, keys, width)}
        shapes[m] = (1, 1, rows, keys) if masked else ()
        inputs += [value(name, *shape) for name, shape in shapes.items()]
        known = {"M": 45, "K": 77}
        sizes = {name: [known.get(size, size) for size in shape] for name, shape in shapes.items()}
        feeds |= {name: np.asarray(rng.standard_normal(size), np.float32) for name, size in sizes.items()}
    outputs = [helper.make_empty_tensor_value_info(f"y{number}") for number in range(3)]
    return model_of(nodes, inputs, outputs, {}), feeds


@functools.cache
def subject(name: str) -> tuple[Any, Feeds]:
    """A model, and inputs for it."""
    made: dict[str, Callable[[], tuple[Any, Feeds]]] = {
        "functions_f32": lambda: functions(np.dtype(np.float32)),
        "functions_f64": lambda: functions(np.dtype(np.float64)),
        "sums": sums, "layers": layers, "attention": attention,
    }  # fmt: skip
    if name in made:
        return made[name]()
    found = golden.zoo(name) if name in golden.zoo_names() else golden.exporter(name)
    return found.model, found.feeds()[-1][0]


def run(loaded: Any, feeds: Feeds) -> Feeds:
    return loaded.run({port.name: feeds[port.name] for port in loaded.ports.inputs})


def made_for(march: str, name: str, folder: Path, **options: Any) -> Artifact:
    return compiler.compile(subject(name)[0], out=folder, march=march, deterministic=True, **options)


def assert_same(result: Feeds, expected: Feeds, how: str) -> None:
    """Equal bits; what is no number is so in both, since processors differ in the bits of that."""
    assert result.keys() == expected.keys()
    for name, wanted in expected.items():
        got = result[name]
        if not isinstance(wanted, np.ndarray):  # maps
            assert got == wanted, f"{how}: {name}"
            continue
        assert got.shape == wanted.shape and got.dtype == wanted.dtype, f"{how}: {name}"
        known = np.full(wanted.shape, True) if wanted.dtype.kind not in "fV" else wanted == wanted
        np.testing.assert_array_equal(got == got, known if wanted.dtype.kind in "fV" else got == got, err_msg=how)
        same = np.ascontiguousarray(got[known]).view(np.uint8) == np.ascontiguousarray(wanted[known]).view(np.uint8)
        assert same.all(), f"{how}: {name} differs in {np.count_nonzero(~same)} bytes"


def check_on_x86(name: str, folder: Path, builds: list[Any], **options: Any) -> None:
    expected = run(
        made_for("x86-64-v4", name, folder / "first", **options).load(march="x86-64", opt="-O0"), subject(name)[1]
    )
    for number, (march, compiled, cc, opt) in enumerate(builds):
        artifact = made_for(march, name, folder / str(number), **options)
        loaded = artifact.load(march=compiled or march, cc=cc, opt=opt, threads=1 + number % 2)
        assert_same(run(loaded, subject(name)[1]), expected, f"{march} as {compiled or march} by {cc} {opt}")
        loaded.close()


on_x86 = pytest.mark.skipif(not is_x86, reason="these builds are for x86-64")


@on_x86
@pytest.mark.parametrize("name", SMALL)
def test_made_up_models_on_x86(name: str, tmp_path: Path) -> None:
    builds = [build for build in ON_X86 if build[0] != "aarch64"]
    check_on_x86(name, tmp_path, builds)


@on_x86
@pytest.mark.parametrize("name", [*ZOO, *EXPORTED])
def test_real_models_on_x86(name: str, tmp_path: Path) -> None:
    check_on_x86(name, tmp_path, ON_X86[1:5:3] + ON_X86[6:7])


@on_x86
@pytest.mark.parametrize("name", BF16)
def test_products_of_bf16_on_x86(name: str, tmp_path: Path) -> None:
    check_on_x86(name, tmp_path, ON_X86[:1] + ON_X86[3:4] + ON_X86[6:7], precision="bf16")


@pytest.mark.sweep
@on_x86
@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["magika", *LONG])
def test_larger_models_on_x86(name: str, precision: str, tmp_path: Path) -> None:
    check_on_x86(name, tmp_path, ON_X86[1:5:3] + ON_X86[6:7], precision=precision)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("there", range(len(ELSEWHERE)), ids=[f"{march}-{runs[0]}" for march, _, runs in ELSEWHERE])
def test_made_up_models_elsewhere(name: str, there: int, tmp_path: Path) -> None:
    check_elsewhere(name, there, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [*ZOO, *EXPORTED, *LONG])
@pytest.mark.parametrize("there", range(2), ids=[march for march, _, _ in ELSEWHERE[:2]])
def test_real_models_elsewhere(name: str, there: int, tmp_path: Path) -> None:
    check_elsewhere(name, there, tmp_path)


def check_elsewhere(name: str, there: int, folder: Path) -> None:
    """A program for another processor, run by an emulator of it, gives what code for this one gives."""
    march, target, emulator = ELSEWHERE[there]
    if shutil.which(emulator[0]) is None:
        pytest.skip(f"{emulator[0]} is not installed")
    artifact = made_for(march, name, folder / "there")
    cc = f"{sys.executable} -m ziglang cc -target {target}"
    model = SanitizedModel(
        artifact.folder, artifact.manifest, find_backend("c", march=march, cc=cc, opt="-O2", deterministic=True)
    )
    model.launcher = emulator
    expected = run(made_for("native", name, folder / "here").load(), subject(name)[1])
    try:
        result = run(model, subject(name)[1])
    except CompileError as error:
        if f"{emulator[0]}: " in str(error) and "Assertion" in str(error):
            pytest.skip(f"{emulator[0]} ended by a defect of its own: {error}")
        raise
    assert_same(result, expected, f"{march} by {emulator[0]}")


@on_x86
def test_plain_code_does_not(tmp_path: Path) -> None:
    """What this page holds is not so by itself: contraction and the width of vectors show in sums."""
    model, feeds = subject("sums")
    results = [
        run(compiler.compile(model, out=tmp_path / march, march=march).load(), feeds)
        for march in ("x86-64-v3", "x86-64")
    ]
    assert any(not np.array_equal(results[0][name], results[1][name]) for name in results[0])
