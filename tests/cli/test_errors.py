"""What users see when something is wrong: a status, a sentence with a hint, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from compiler import cli
from compiler.commands import check as check_command
from tests.cli.conftest import Sesame, affine_model


def test_unknown_command_and_option_suggest(sesame: Sesame, model: Path) -> None:
    command = sesame("compil", model)
    assert command.status == 2 and "error[E0200]" in command.err and "compile" in command.err
    option = sesame("compile", model, "--thread", "2")
    assert option.status == 2 and "--threads" in option.err


def test_nothing_given_shows_help(sesame: Sesame) -> None:
    assert "Commands:" in sesame("--help").out
    shown = sesame()
    assert shown.status == 2 and "Commands:" in shown.err


def test_missing_and_malformed_models(sesame: Sesame, tmp_path: Path) -> None:
    assert sesame("run", "nowhere.onnx").status == 3
    (tmp_path / "noise.onnx").write_bytes(b"\xff\xfe not a model")
    noise = sesame("compile", "noise.onnx")
    assert noise.status == 3 and "error[E0302]" in noise.err and "Traceback" not in noise.err
    assert not (tmp_path / "noise.sesame").exists()


def test_unsupported_operator(sesame: Sesame, tmp_path: Path) -> None:
    onnx.save(affine_model(op_type="Frobnicate", domain="my.ops"), tmp_path / "odd.onnx")
    done = sesame("compile", "odd.onnx")
    assert done.status == 4 and "error[E0401]" in done.err and "my.ops::Frobnicate" in done.err
    checked = sesame("check", "odd.onnx", "--format", "json")
    assert checked.status == 4 and checked.json["problems"][0]["node"]["name"] == "last"


def test_errors_as_json(sesame: Sesame) -> None:
    import json

    done = sesame("run", "nowhere.onnx", "--format", "json")
    assert json.loads(done.err)["errors"][0]["code"] == "E0301"


@pytest.mark.parametrize(
    ("dim", "hint"), [("N", "--dim N=1"), ("N=..4", "--dim N=1"), ("N=9..2", "no size"), ("M=2", "its dims are: N")]
)
def test_bad_dims(sesame: Sesame, model: Path, dim: str, hint: str) -> None:
    done = sesame("compile", model, "--dim", dim)
    assert done.status == 2 and "error[E0201]" in done.err and hint in done.err


def test_bad_target_pass_and_reference(sesame: Sesame, model: Path) -> None:
    assert "error[E0205]" in sesame("compile", model, "--target", "d").err
    assert "did you mean 'threads'?" in sesame("compile", model, "--target", "c,thread=2").err
    assert "did you mean 'fuse'?" in sesame("compile", model, "--disable-pass", "fues").err
    assert "error[E0204]" in sesame("opt", model, "--passes", "lower,fuse").err
    assert sesame("verify", model, "--against", "oracle").status == 2


def test_wrong_inputs(sesame: Sesame, artifact: Path) -> None:
    np.save("x.npy", np.zeros((1, 3), np.float64))
    wrong = sesame("run", artifact, "--input", "x=x.npy")
    assert wrong.status == 2 and "the model takes float32" in wrong.err
    Path("junk.npz").write_bytes(b"not an archive")
    assert sesame("run", artifact, "--inputs", "junk.npz").status == 2


def test_pickles_are_never_loaded(sesame: Sesame, artifact: Path) -> None:
    np.save("x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    done = sesame("run", artifact, "--input", "x=x.npy")
    assert done.status == 2 and "error[E0212]" in done.err


def test_a_reference_that_cannot_run_is_neither_pass_nor_mismatch(
    sesame: Sesame, artifact: Path, tmp_path: Path
) -> None:
    onnx.save(affine_model(op_type="Frobnicate", domain="my.ops"), tmp_path / "odd.onnx")
    np.savez("in.npz", x=np.ones((1, 3), np.float32))
    from compiler.errors import CompileError
    from compiler.verify import run_onnxruntime

    with pytest.raises(CompileError) as caught:
        run_onnxruntime(tmp_path / "odd.onnx", {"x": np.ones((1, 3), np.float32)})
    assert caught.value.exit_code == 7


def test_a_fault_of_ours_leaves_a_bundle(sesame: Sesame, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(check_command, "find_problems", explode)
    done = sesame("check", model)
    assert done.status == 70 and "ZeroDivisionError: a bug" in done.err and "Traceback" not in done.err
    folder = Path(done.err.rpartition("files in ")[2].strip())
    assert "a bug" in (folder / "traceback.txt").read_text()
    assert (folder / "command.txt").read_text() == f"sesame check {model}\n"


def test_interruption(sesame: Sesame, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_command, "find_problems", interrupt)
    assert sesame("check", model).status == 130


def test_colour_only_where_asked(sesame: Sesame) -> None:
    assert "\x1b[" not in sesame("run", "nowhere.onnx").err
    assert "\x1b[1;31merror[E0301]\x1b[0m" in sesame("run", "nowhere.onnx", "--color", "always").err


def test_quiet_says_nothing(sesame: Sesame, model: Path) -> None:
    assert sesame("compile", model, "-q").err == ""


def test_version(sesame: Sesame) -> None:
    assert sesame("--version").out.startswith("sesame ")


def test_main_takes_the_process_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["sesame", "--version"])
    assert cli.main() == 0
