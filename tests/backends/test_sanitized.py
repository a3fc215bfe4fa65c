"""Models whose runs are watched by sanitizers: what a run refuses is told from what a sanitizer reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import compiler
from compiler.errors import EXIT_USAGE

TAKE = """<ir_version: 10, opset_import: ["": 21]>
take (float[4] x, int64[1] at) => (float[1] y) { y = Gather(x, at) }"""


START = "    const double start = seconds();"
MAIN = "int main(int count, char **values) {"
OPTIONS: dict[str, Any] = {"opt": "-O1", "sanitize": "address+undefined"}
FEEDS = {"x": np.arange(4, dtype=np.float32), "at": np.int64([2])}


def compiled(folder: Path) -> Any:
    return compiler.compile(compiler.load(onnx.parser.parse_model(TAKE)), "c", out=folder, **OPTIONS)


@pytest.fixture(scope="module")
def take(tmp_path_factory: Any) -> Any:
    return compiled(tmp_path_factory.mktemp("take")).load()


def test_a_run_gives_its_outputs(take: Any) -> None:
    assert take.run(FEEDS)["y"].tolist() == [2.0]


def test_a_status_is_the_error_that_a_loaded_model_raises(take: Any) -> None:
    """Nothing is leaked where a run ends early: that would be a report, and E0503."""
    with pytest.raises(compiler.CompileError, match="an index in the input data") as caught:
        take.run({**FEEDS, "at": np.int64([9])})
    assert (caught.value.code, caught.value.exit_code) == ("E0502", EXIT_USAGE)


def test_what_a_sanitizer_reports_is_an_error_of_its_own(tmp_path: Path) -> None:
    artifact = compiled(tmp_path)
    bench = tmp_path / "main.c"
    text = bench.read_text()
    broken = text.replace(MAIN, MAIN + "\n  volatile int most = 2147483647;\n  most = most + 1;")
    assert broken != text
    bench.write_text(broken)
    with pytest.raises(compiler.CompileError, match="signed integer overflow") as caught:
        artifact.load().run(FEEDS)
    assert caught.value.code == "E0503"


@pytest.mark.parametrize("place", ["io[0])[4]", "io[2])[1]"])
def test_the_element_after_an_input_or_output_is_not_there(place: str, tmp_path: Path) -> None:
    artifact = compiled(tmp_path)
    bench = tmp_path / "main.c"
    text = bench.read_text()
    broken = text.replace(START, f"  (void)((volatile float *){place};\n{START}")
    assert broken != text
    bench.write_text(broken)
    with pytest.raises(compiler.CompileError, match="heap-buffer-overflow"):
        artifact.load().run(FEEDS)
