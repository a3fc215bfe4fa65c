"""Every verb on a small model: what it prints, writes and returns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import compiler
from backends.c.targets import PROCESSORS
from compiler.errors import CompileError
from compiler.rivals import OpenVino
from tests.cli.conftest import DIGITS, Sesame, affine_model


def test_compile_writes_a_folder_that_runs(sesame: Sesame, model: Path, tmp_path: Path) -> None:
    made = sesame("compile", model, "-O", "1")
    assert made.status == 0, made.err
    assert made.out.startswith("affine.sesame: affine for c")
    x = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    ran = sesame("run", "affine.sesame", "--inputs", "in.npz", "-o", "out.npz")
    assert ran.status == 0, ran.err
    weights = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5
    np.testing.assert_allclose(np.load("out.npz")["y"], np.maximum(x @ weights, 0), rtol=1e-6)


def test_compile_does_not_overwrite_unless_forced(sesame: Sesame, model: Path) -> None:
    assert sesame("compile", model, "-o", "made").status == 0
    again = sesame("compile", model, "-o", "made")
    assert again.status == 2 and "error[E0207]" in again.err and "--force" in again.err
    assert sesame("compile", model, "-o", "made", "--force").status == 0


def test_compile_never_replaces_a_folder_that_is_no_artifact(sesame: Sesame, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert sesame("compile", model, "-o", "mine", "--force").status == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_compile_shows_passes(sesame: Sesame, model: Path) -> None:
    made = sesame("compile", model, "--print-after", "fuse", "--time-passes", "--disable-pass", "cse")
    assert made.status == 0, made.err
    assert "# after fuse\ngraph" in made.err
    assert "\ntotal" in made.err
    assert "\ncse" not in made.err


def test_compile_fixes_a_dim(sesame: Sesame, model: Path) -> None:
    made = sesame("compile", model, "--dim", "N=5", "--format", "json")
    assert made.json["dims"] == []
    assert made.json["inputs"][0]["shape"] == ["5", "3"]


def test_compile_bounds_a_dim(sesame: Sesame, model: Path) -> None:
    made = sesame("--format", "json", "compile", model, "--dim", "N=1..8", "-O", "1")
    assert (made.json["dims"][0]["min"], made.json["dims"][0]["max"]) == (1, 8)
    assert sesame("run", "affine.sesame", "--dim", "N=8").status == 0
    beyond = sesame("run", "affine.sesame", "--dim", "N=9")
    assert beyond.status == 2 and "error[E0209]" in beyond.err


def test_compile_verifies(sesame: Sesame, model: Path) -> None:
    made = sesame("compile", model, "--verify", "-O", "1")
    assert made.status == 0 and " ok" in made.err


def test_run_says_that_inputs_are_random(sesame: Sesame, artifact: Path) -> None:
    first = sesame("run", artifact, "--format", "json", "--dim", "N=4")
    assert "random ones, seed 0" in first.err
    assert first.json["outputs"]["y"]["shape"] == [4, 4]
    assert sesame("run", artifact, "--format", "json", "--dim", "N=4").out == first.out
    assert sesame("run", artifact, "--format", "json", "--dim", "N=4", "--seed", "1").out != first.out


def test_run_takes_single_inputs(sesame: Sesame, artifact: Path) -> None:
    np.save("x.npy", np.zeros((1, 3), np.float32))
    assert sesame("run", artifact, "--input", "x=x.npy").status == 0
    unknown = sesame("run", artifact, "--input", "xx=x.npy")
    assert unknown.status == 2 and "did you mean 'x'?" in unknown.err


@pytest.mark.parametrize("against", ["interp", "ort", "onnx-ref"])
def test_verify_agrees(sesame: Sesame, model: Path, against: str) -> None:
    done = sesame("verify", model, "--against", against, "-O", "1", "--format", "json")
    assert done.status == 0, done.err
    assert done.json["ok"] and [o["name"] for o in done.json["outputs"]] == ["y"]


def test_verify_finds_a_difference(sesame: Sesame, artifact: Path) -> None:
    np.savez("in.npz", x=np.ones((1, 3), np.float32))
    np.savez("wrong.npz", y=np.full((1, 4), 7, np.float32))
    done = sesame("verify", artifact, "--against", "data", "--inputs", "in.npz", "--outputs", "wrong.npz")
    assert done.status == 1 and "WRONG: 4 of 4" in done.out


def test_verify_a_model_against_data(sesame: Sesame, model: Path) -> None:
    np.savez("in.npz", x=np.zeros((1, 3), np.float32))
    np.savez("out.npz", y=np.zeros((1, 4), np.float32))
    done = sesame("verify", model, "-O", "1", "--against", "data", "--inputs", "in.npz", "--outputs", "out.npz")
    assert done.status == 0, done.err


def test_verify_under_sanitizers(sesame: Sesame, model: Path) -> None:
    done = sesame("verify", model, "--sanitize", "-O", "1", "--format", "json")
    assert done.status == 0 and done.json["ok"], done.err


def test_verify_per_node(sesame: Sesame, model: Path) -> None:
    done = sesame("verify", model, "--per-node", "-O", "1")
    assert done.status == 0 and "agree" in done.out


def test_verify_an_artifact_needs_its_model(sesame: Sesame, artifact: Path) -> None:
    assert sesame("verify", artifact).status == 2
    assert sesame("verify", artifact, "--model", artifact.parent / "affine.onnx").status == 0


def test_check_is_content(sesame: Sesame) -> None:
    done = sesame("check", DIGITS)
    assert done.status == 0 and "no problems" in done.out


def test_inspect_a_model(sesame: Sesame) -> None:
    done = sesame("inspect", DIGITS, "--format", "json")
    assert done.json["inputs"] == [{"name": "image", "type": "f32[N,1,8,8]"}]
    assert done.json["dims"] == [{"name": "N", "min": 0, "max": None}]
    assert done.json["onnx_ops"]["Conv"] == 2
    assert done.json["weights_bytes"] > 20_000
    assert "N" in done.json["memory"]["arena"]


def test_inspect_an_artifact(sesame: Sesame, artifact: Path) -> None:
    done = sesame("inspect", artifact, "--format", "json")
    assert done.json["target"] == "c" and done.json["outputs"] == [{"name": "y", "type": "f32[N,4]"}]
    assert "f32[N,4]" in sesame("inspect", artifact).out


def test_opt_prints_graph_and_program(sesame: Sesame, model: Path) -> None:
    assert sesame("opt", model, "--passes", "").out.startswith("graph @affine(%x: f32[N,3])")
    assert "kernel @" in sesame("opt", model).out
    assert sesame("opt", model, "--passes", "fold", "-o", "folded.graph").status == 0
    assert Path("folded.graph").read_text().startswith("graph @affine")


def test_bench_alone(sesame: Sesame, artifact: Path) -> None:
    done = sesame("bench", artifact, "--repeat", "2", "--blocks", "2", "--warmup", "1", "--format", "json")
    assert done.status == 0, done.err
    assert done.json["runs"] == 4 and done.json["sides"][0]["wall_ms"]["min"] > 0


def test_bench_beside_onnxruntime(sesame: Sesame, artifact: Path) -> None:
    done = sesame("bench", artifact, "--model", artifact.parent / "affine.onnx", "--against", "onnxruntime",
                  "--repeat", "2", "--blocks", "2", "--format", "json")  # fmt: skip
    assert done.status == 0, done.err
    assert done.json["outputs"][0]["ok"] and done.json["ratios"][0]["ratio"] > 0


def test_bench_beside_several_at_several_numbers_of_threads(sesame: Sesame, artifact: Path) -> None:
    pytest.importorskip("openvino", reason="it is an extra of its own, which developers have")
    options = ["--model", artifact.parent / "affine.onnx", "--repeat", "2", "--blocks", "2", "--format", "json"]
    rivals = ["--against", "openvino", "--against", "ort", "--against", "onnxruntime"]
    done = sesame("bench", artifact, *options, *rivals, "--threads", "2", "--threads", "1", "--dim", "N=3")
    assert done.status == 0, done.err
    names = ["sesame", "openvino", "onnxruntime"]
    assert [(side["name"], side["threads"]) for side in done.json["sides"]] == [(n, t) for t in (2, 1) for n in names]
    assert [side["precision"] for side in done.json["sides"]][:2] == ["as the model", "f32"]
    assert [(o["name"], o["against"], o["threads"], o["ok"]) for o in done.json["outputs"]] == [
        ("y", name, threads, True) for threads in (2, 1) for name in names[1:]
    ]
    for ratios in done.json["ratios"]:
        assert ratios["ratio"] == max(ratios["each"].values()) == ratios["each"][ratios["best"]]


def test_bench_layers(sesame: Sesame, model: Path) -> None:
    done = sesame("bench", model, "--dim", "N=2", "--layers", "--repeat", "2", "--blocks", "1", "--format", "json")
    assert done.status == 0, done.err
    (found,) = done.json["layers"]
    assert sum(call["share"] for call in found["calls"]) == pytest.approx(1)
    assert {node for call in found["calls"] for node in call["nodes"]} == {"product", "last"}
    assert sum(call["operations"] for call in found["calls"]) >= 2 * 4 * (3 * 2 + 1)
    assert found["ceilings"]["gflops"] > 0 and found["ceilings"]["gbytes"] > 0
    text = sesame("bench", model, "--dim", "N=2", "--layers", "--threads", "2", "--repeat", "1", "--blocks", "1")
    assert text.status == 0 and "product" in text.out and "threads 2" in text.out


def test_bench_layers_wants_clocks(sesame: Sesame, artifact: Path) -> None:
    done = sesame("bench", artifact, "--layers")
    assert done.status == 2 and "profile=true" in done.err
    assert sesame("bench", artifact, "--layers", "--against", "ort").status == 2


def test_bench_says_what_differs(sesame: Sesame, artifact: Path) -> None:
    other = affine_model(op_type="Neg")
    onnx.save(other, "other.onnx")
    done = sesame("bench", artifact, "--model", "other.onnx", "--against", "ort", "--repeat", "1", "--blocks", "1")
    assert done.status == 1 and "y (onnxruntime, threads 1): DIFFERS" in done.out


def test_precision_bf16(sesame: Sesame) -> None:
    w = np.random.default_rng(3).standard_normal((32, 64)).astype(np.float32)
    graph = onnx.parser.parse_graph("g (float[N,32] x) => (float[N,64] y) { y = MatMul(x, w) }")
    graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), "m.onnx")
    given = ("m.onnx", "--precision", "bf16", "--dim", "N=4")
    assert sesame("compile", *given, "-o", "out", "--verify").status == 0
    assert compiler.Artifact("out").precision == "bf16"
    assert sesame("verify", *given).status == 0
    assert sesame("verify", *given, "--rtol", "1e-6").status == 1  # the operands are rounded
    done = sesame("bench", "out", "--model", "m.onnx", "--against", "ov", "--against", "ort", "--repeat", "1",
                  "--blocks", "1", "--format", "json")  # fmt: skip
    assert done.status == 0 and done.json["precision"] == "bf16"
    sides = {side["name"]: side["precision"] for side in done.json["sides"]}
    assert sides["sesame"] == "bf16" and sides["onnxruntime"] == "as the model"
    assert sides["openvino"] in ("bf16", "f32")  # what the processor has
    assert sesame("compile", "m.onnx", "--precision", "f16").status == 2


def test_bench_refuses_a_rival_that_there_is_not(sesame: Sesame, artifact: Path) -> None:
    done = sesame("bench", artifact, "--against", "ort", "--against", "abacus")
    assert done.status == 2 and "cannot bench against 'abacus'" in done.err and "onnxruntime, openvino" in done.err


def test_a_rival_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CompileError, match=r"sesame-compiler\[openvino\]") as caught:
        OpenVino("net.onnx", 1)
    assert caught.value.exit_code == 7


def test_ops(sesame: Sesame) -> None:
    names = {entry["name"] for entry in sesame("ops", "--format", "json").json}
    assert {"Conv", "MatMul", "Relu"} <= names
    assert "| ai.onnx | Conv |" in sesame("ops", "--format", "md").out


def test_passes_and_targets(sesame: Sesame) -> None:
    assert "fold" in sesame("passes").out
    in_order = [entry["name"] for entry in sesame("passes", "--target", "c", "--format", "json").json]
    assert in_order.index("fuse") < in_order.index("lower") < in_order.index("memory")
    listed = {entry["name"]: entry for entry in sesame("targets", "--format", "json").json}
    assert {"name": "threads", "default": 1} in listed["c"]["options"]


def test_doctor(sesame: Sesame) -> None:
    done = sesame("doctor", "--format", "json")
    assert done.status == 0 and done.json["packages"]["numpy"] == np.__version__
    assert done.json["compilers"][0]["version"]


def test_targets_explains_the_processors_it_knows(sesame: Sesame) -> None:
    names = [each.name for each in PROCESSORS]
    lines = [line.split() for line in sesame("targets").out.splitlines()]
    listed = [words[0] for words in lines if words and words[0] in (*names, "native")]
    assert listed == [*names, "native"]
    (target,) = (t for t in sesame("targets", "--format", "json").json if t["name"] == "c")
    found = {each["name"]: each for each in target["processors"]}
    assert found["avx512-bf16"]["dot"] == ["u8 x i8", "bf16 x bf16"] and found["aarch64"]["registers"] == 32
