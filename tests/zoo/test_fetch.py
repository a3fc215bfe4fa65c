"""Tests of the zoo's fetcher and manifest; they work without a network and must not download anything."""

from __future__ import annotations

import importlib.metadata
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.zoo import fetch

IO_ROOT = Path(__file__).with_name("io")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SESAME_ZOO_CACHE", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_every_model_has_golden_inputs_and_outputs() -> None:
    for name in fetch.manifest():
        stems = {path.stem for path in (IO_ROOT / name).glob("*.npz")}
        assert {"inputs", "outputs"} <= stems, name
        assert ("inputs_2" in stems) == ("outputs_2" in stems), name


def test_manifest_entries_are_well_formed() -> None:
    for model in fetch.manifest().values():
        assert len(model.sha256) == 64 and model.bytes > 0 and model.licence, model.name
        assert model.tolerance == ("cosine" if model.quantised else "close"), model.name


def test_takes_a_model_out_of_the_installed_package(empty_cache: Path) -> None:
    if importlib.metadata.version("onnx") != "1.23.2":
        pytest.skip("the manifest describes the files of onnx 1.23.2")
    assert fetch.cached("light_squeezenet") is None
    path = fetch.fetch("light_squeezenet")
    assert path == empty_cache / "light_squeezenet.onnx" == fetch.cached("light_squeezenet")
    assert [entry.name for entry in empty_cache.iterdir()] == ["light_squeezenet.onnx"]


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(fetch.FetchError, match="unknown zoo model 'lenet'"):
        fetch.fetch("lenet")


def test_source_archive_below_a_folder_and_a_wrong_digest(empty_cache: Path, tmp_path: Path) -> None:
    archive = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tarred:
        member = tarfile.TarInfo("demo-1.0/demo/model.onnx")
        member.size = 4
        tarred.addfile(member, io.BytesIO(b"1234"))
    known = next(iter(fetch.manifest().values()))
    digest = "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
    demo = replace(known, name="demo", path="demo/model.onnx", sha256=digest, bytes=4)
    fetch._extract(archive, [demo])
    assert (empty_cache / "demo.onnx").read_bytes() == b"1234"
    with pytest.raises(fetch.FetchError, match=r"sha256 of demo/model\.onnx"):
        fetch._extract(archive, [replace(demo, name="other", sha256=known.sha256)])
    assert [entry.name for entry in empty_cache.iterdir()] == ["demo.onnx"]


def test_golden_arrays_are_plain_numbers() -> None:
    for path in sorted(IO_ROOT.glob("*/*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype.kind in "fiub" for key in arrays.files), path
