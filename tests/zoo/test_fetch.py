"""Tests of the zoo's fetcher and manifest; they work without a network and must not download anything."""

from __future__ import annotations

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
    assert fetch.manifest()
    for name in fetch.manifest():
        stems = {path.stem for path in (IO_ROOT / name).glob("*.npz")}
        assert {"inputs", "outputs"} <= stems, name
        assert ("inputs_2" in stems) == ("outputs_2" in stems), name


def test_manifest_entries_are_well_formed() -> None:
    for model in fetch.manifest().values():
        assert len(model.sha256) == 64 and model.bytes > 0 and model.licence, model.name
        assert model.tolerance == ("cosine" if model.quantised else "close"), model.name


def demonstration() -> fetch.ZooModel:
    """A model of 4 bytes in a package of its own."""
    known = next(iter(fetch.manifest().values()))
    digest = "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
    return replace(known, name="demo", package="demo-models==1.0", path="demo/model.onnx", sha256=digest, bytes=4)


def test_takes_a_model_out_of_an_installed_package(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its version: what it holds decides, and another file is downloaded."""
    member, metadata = tmp_path / "site/demo/model.onnx", tmp_path / "site/demo_models-2.0.dist-info/METADATA"
    for path, content in ((member, b"1234"), (metadata, b"Metadata-Version: 2.1\nName: demo-models\nVersion: 2.0\n")):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    def download(package: str, folder: Path) -> Path:
        raise fetch.FetchError(f"asked for {package}")

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(fetch, "_download", download)
    entries = {"demo": demonstration()}
    monkeypatch.setattr(fetch, "manifest", lambda: entries)
    assert fetch.cached("demo") is None
    assert fetch.fetch("demo") == empty_cache / "demo.onnx" == fetch.cached("demo")
    assert [entry.name for entry in empty_cache.iterdir()] == ["demo.onnx"]
    (empty_cache / "demo.onnx").unlink()
    member.write_bytes(b"1235")
    with pytest.raises(fetch.FetchError, match=r"asked for demo-models==1\.0"):
        fetch.fetch("demo")


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(fetch.FetchError, match="unknown zoo model 'lenet'"):
        fetch.fetch("lenet")


def test_source_archive_below_a_folder_and_a_wrong_digest(empty_cache: Path, tmp_path: Path) -> None:
    archive = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tarred:
        member = tarfile.TarInfo("demo-1.0/demo/model.onnx")
        member.size = 4
        tarred.addfile(member, io.BytesIO(b"1234"))
    demo = demonstration()
    fetch._extract(archive, [demo])
    assert (empty_cache / "demo.onnx").read_bytes() == b"1234"
    with pytest.raises(fetch.FetchError, match=r"sha256 of demo/model\.onnx"):
        fetch._extract(archive, [replace(demo, name="other", sha256=next(iter(fetch.manifest().values())).sha256)])
    assert [entry.name for entry in empty_cache.iterdir()] == ["demo.onnx"]


def test_golden_arrays_are_plain_numbers() -> None:
    paths = sorted(IO_ROOT.glob("*/*.npz"))
    assert len(paths) >= 2 * len(fetch.manifest())
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            assert arrays.files and all(arrays[key].dtype.kind in "fiub" for key in arrays.files), path
