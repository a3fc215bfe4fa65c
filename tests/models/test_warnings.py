"""Generated C compiles without a warning, with gcc and with clang (the one that `ziglang` brings)."""

from __future__ import annotations

from pathlib import Path

import pytest

import compiler
from backends.c.toolchain import build_shared, find_compiler
from tests.models import golden

QUICK = ["ppocr2_cls", "paraphrase_minilm_l3", "silero_vad_ov16k", "oww_melspec"]
FLAGS = ("-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wundef")
COMPILERS = ["", "zig"]


def _build(model: golden.Golden, cc: str, tmp_path: Path) -> None:
    artifact = compiler.compile(model.model, out=tmp_path / "out")
    sources = sorted(artifact.folder.glob("*.c"))
    library, found = tmp_path / "model.so", find_compiler(cc or None)
    build_shared(sources, library, found, include=[artifact.folder], opt="-O1", flags=FLAGS)


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize("name", QUICK)
def test_no_warnings(name: str, cc: str, tmp_path: Path) -> None:
    _build(golden.zoo(name), cc, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize("name", golden.zoo_names() + golden.exporter_names())
def test_no_warnings_on_any_model(name: str, cc: str, tmp_path: Path) -> None:
    model = golden.zoo(name) if name in golden.zoo_names() else golden.exporter(name)
    _build(model, cc, tmp_path)
