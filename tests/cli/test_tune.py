"""sesame tune, and compiling with what it found: good files, stale ones, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compiler
from compiler import tune
from compiler.errors import CompileWarning, UsageError
from tests.cli.conftest import DIGITS, Sesame


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures no longer than it must."""
    for name, value in (("_SECONDS", 0.0), ("_MODEL_SECONDS", 0.0), ("_MOST_FORMS", 3), ("_LEAST_SHARE", 0.0)):
        monkeypatch.setattr(tune, name, value)


@pytest.fixture
def tuned(sesame: Sesame, quick: None) -> dict[str, Any]:
    """What a file of choices for the digits model holds; it is `digits.tuned.json`."""
    done = sesame("tune", DIGITS, "--dim", "N=1", "-O", "1", "--format", "json")
    assert done.status == 0, done.err
    return json.loads(Path("digits.tuned.json").read_text())


def write(content: Any) -> str:
    Path("choices.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return "choices.json"


def kernel_sources(folder: str) -> str:
    return "".join(path.read_text() for path in sorted(Path(folder).glob("*.c")))


def test_tune_measures_kernels_and_the_model(sesame: Sesame, tuned: dict[str, Any]) -> None:
    assert tuned["machine"]["threads"] == 1 and tuned["compiler"]["name"] == "sesame"
    assert {entry["point"] for entry in tuned["kernels"]} >= {"tile"}
    for entry in tuned["kernels"]:
        assert {entry["rule"], entry["choice"]} <= entry["ms"].keys() and min(entry["ms"].values()) > 0
        assert entry["nodes"] and 1 < len(entry["ms"]) <= 3
    again = sesame("tune", DIGITS, "--dim", "N=1", "-O", "1", "--format", "json")
    assert again.status == 0, again.err
    assert not any(kernel["is_new"] for kernel in again.json["kernels"])
    assert again.json["model"]["ok"] and again.json["model"]["before_ms"] > 0
    shown = sesame("tune", DIGITS, "--dim", "N=1", "-O", "1")
    assert "gain" in shown.out and "outputs agree" in shown.out and "times as fast" in shown.out


def test_the_budget_ends_it_and_keeps_what_was_measured(sesame: Sesame, quick: None) -> None:
    done = sesame("tune", DIGITS, "--dim", "N=1", "-O", "1", "--budget", "0", "--format", "json")
    assert done.status == 0 and done.json["stopped"] == "budget" and done.json["skipped"] > 0
    assert json.loads(Path("digits.tuned.json").read_text())["kernels"] == []


def test_an_interrupt_keeps_what_was_measured(sesame: Sesame, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_one = tune.Tuner._measure_one
    done_once: list[bool] = []

    def interrupted(*arguments: Any) -> Any:
        if done_once:
            raise KeyboardInterrupt
        done_once.append(True)
        return measure_one(*arguments)

    monkeypatch.setattr(tune.Tuner, "_measure_one", interrupted)
    done = sesame("tune", DIGITS, "--dim", "N=1", "-O", "1")
    assert done.status == 130 and "interrupted" in done.out
    assert len(json.loads(Path("digits.tuned.json").read_text())["kernels"]) == 1


def test_compile_uses_the_file(sesame: Sesame, tuned: dict[str, Any]) -> None:
    asked = {entry["key"]: entry for entry in tuned["kernels"] if entry["point"] == "tile"}
    for entry in asked.values():
        entry["choice"] = next(form for form in entry["ms"] if form != entry["rule"])
    file = write(tuned)
    options = ("--dim", "N=1", "-O", "1")
    assert sesame("compile", DIGITS, "-o", "plain", *options).status == 0
    done = sesame("compile", DIGITS, "-o", "tuned", "--tuned", file, "--verify", *options)
    assert done.status == 0 and "warning" not in done.err, done.err
    assert kernel_sources("plain") != kernel_sources("tuned")
    assert json.loads(Path("tuned/manifest.json").read_text())["options"]["tuned"] == "choices.json"
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    artifact = compiler.compile(DIGITS, f"c,opt=-O1,tuned={file}", dims={"N": 1}, out="python")
    assert kernel_sources("python") == kernel_sources("tuned")
    expected = compiler.Artifact("plain").load().run({"image": image})["logits"]
    found = artifact.load().run({"image": image})["logits"]
    # Sums in another order: f32 rounds each of some hundred terms at 6e-8.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stale_file_is_a_warning_and_the_rules_choose(sesame: Sesame, tuned: dict[str, Any]) -> None:
    for entry in tuned["kernels"]:
        entry["choice"] = "4096x64 panels nowhere"
    tuned["machine"]["processor"] = "another"
    tuned["compiler"]["version"] = "0.0.1"
    file = write(tuned)
    options = ("--dim", "N=1", "-O", "1")
    assert sesame("compile", DIGITS, "-o", "plain", *options).status == 0
    done = sesame("compile", DIGITS, "-o", "stale", "--tuned", file, *options)
    assert done.status == 0
    assert "warning: choices.json was measured elsewhere: processor was 'another'" in done.err
    assert "the compiler was 0.0.1" in done.err and "tuned choices that there are not" in done.err
    assert kernel_sources("plain") == kernel_sources("stale")
    tuned["kernels"] = [{**entry, "key": "another"} for entry in tuned["kernels"]]
    with pytest.warns(CompileWarning, match="none of the .* tuned choices is for a kernel of this model"):
        compiler.compile(DIGITS, "c,opt=-O1", tuned=write(tuned))
    measured = sesame("tune", DIGITS, "-o", file)
    assert measured.status == 2 and "measured elsewhere" in measured.err and "--again" in measured.err


ENTRY = {"point": "tile", "key": "k", "rule": "r", "choice": "c", "ms": {}, "nodes": []}
WHOLE = {"schema_version": 1, "compiler": {"version": "0"}, "machine": {}, "kernels": [ENTRY]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a file of choices"),
        ({**WHOLE, "schema_version": 2}, "is not a file of choices"),
        ({**WHOLE, "machine": 1}, "does not say where"),
        ({**WHOLE, "kernels": {}}, "does not say where"),
        ({**WHOLE, "kernels": [1]}, "has an entry 0"),
        ({**WHOLE, "kernels": [ENTRY, {**ENTRY, "choice": 9}]}, "has an entry 1"),
        ({**WHOLE, "kernels": [{**ENTRY, "ms": {"c": "fast"}}]}, "has an entry 0"),
    ],
)
def test_a_file_that_is_none_is_an_error(sesame: Sesame, content: Any, reason: str) -> None:
    done = sesame("compile", DIGITS, "--tuned", write(content))
    assert done.status == 2 and "error[E0216]" in done.err and reason in done.err, done.err
    assert not Path("digits.sesame").exists()


def test_a_file_that_is_not_there(sesame: Sesame) -> None:
    assert "cannot be read" in sesame("compile", DIGITS, "--tuned", "nowhere.json").err


def test_a_target_with_nothing_to_tune_says_so(sesame: Sesame) -> None:
    done = sesame("tune", DIGITS, "--target", "reference")
    assert done.status == 2 and "nothing to tune" in done.err


def test_choices_of_several_sizes_stand_in_one_file(sesame: Sesame, quick: None) -> None:
    for batch in (1, 2):
        assert sesame("tune", DIGITS, "--dim", f"N={batch}", "-O", "1", "-o", "both.json").status == 0
    keys = {entry["key"] for entry in json.loads(Path("both.json").read_text())["kernels"]}
    assert any("f32[1," in key for key in keys) and any("f32[2," in key for key in keys)
    with pytest.raises(UsageError):
        compiler.find_backend("c", tuned="missing.json").pipeline()
