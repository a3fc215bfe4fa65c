"""Fetch the zoo's ONNX models by package, version and SHA-256 into a local cache.

Models come out of packages through `pip download` and `npm pack`, or out of a package that is already installed. A
file enters the cache only after its digest matches the manifest. This module must not name a registry, import or run
code of a fetched package, or keep an archive.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

MANIFEST = Path(__file__).with_name("zoo.toml")
DOWNLOAD_TIMEOUT_S = 600


class FetchError(RuntimeError):
    """A model could not be fetched, or what was fetched is not the file the manifest describes."""


@dataclass(frozen=True)
class ZooModel:
    """One manifest entry: where a model comes from, how to recognise it, and how to judge its outputs."""

    name: str
    package: str
    path: str
    sha256: str
    bytes: int
    licence: str
    quantised: str
    tolerance: str


@cache
def manifest() -> dict[str, ZooModel]:
    """Return all entries of `zoo.toml` by model name, in file order."""
    with MANIFEST.open("rb") as file:
        return {name: ZooModel(name=name, **fields) for name, fields in tomllib.load(file).items()}


def cache_dir() -> Path:
    """Return the folder that holds fetched models: `$SESAME_ZOO_CACHE`, else `~/.cache/sesame/zoo`."""
    configured = os.environ.get("SESAME_ZOO_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "sesame" / "zoo"


def cached(name: str) -> Path | None:
    """Return the cached file of model `name` if it is there with the right size, without any download.

    Raises FetchError for a name the manifest does not have.
    """
    model = _entry(name)
    path = _cache_path(model)
    return path if path.is_file() and path.stat().st_size == model.bytes else None


def fetch(name: str) -> Path:
    """Return the local path of model `name`, downloading its package first if the model is not in the cache.

    Other models of the same package are cached on the way. Raises FetchError when the name is unknown, the package
    cannot be downloaded, the archive lacks the file, or its SHA-256 differs.
    """
    model = _entry(name)
    path = _cache_path(model)
    if path.is_file() and _digest(path) == model.sha256:
        return path
    installed = _installed_member(model)
    if installed is not None and _digest(installed) == model.sha256:
        with installed.open("rb") as source:
            _store(model, source)
        return path
    siblings = [other for other in manifest().values() if other.package == model.package and not cached(other.name)]
    with tempfile.TemporaryDirectory(prefix="sesame-zoo-") as folder:
        archive = _download(model.package, Path(folder))
        try:
            _extract(archive, [model, *(other for other in siblings if other is not model)])
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise FetchError(f"{model.package}: {archive.name} is not a readable archive: {error}") from error
    return path


def _entry(name: str) -> ZooModel:
    model = manifest().get(name)
    if model is None:
        raise FetchError(f"unknown zoo model '{name}'; the manifest has: {', '.join(manifest())}")
    return model


def _cache_path(model: ZooModel) -> Path:
    return cache_dir() / f"{model.name}.onnx"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed_member(model: ZooModel) -> Path | None:
    """Return the model's file inside an installed distribution of its package, any version; the digest decides."""
    if model.package.startswith("npm:"):
        return None
    try:
        distribution = importlib.metadata.distribution(model.package.partition("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(model.path)))
    return path if path.is_file() else None


def _download(package: str, folder: Path) -> Path:
    """Download the archive of `package` into the empty `folder` and return its path."""
    failures: list[str] = []
    for command in _download_commands(package, folder):
        failure = _run(command, folder)
        archives = [path for path in folder.iterdir() if path.is_file()]
        if failure is None and len(archives) == 1:
            return archives[0]
        failures.append(f"{' '.join(command)}: {failure or f'left {len(archives)} files'}")
        for path in archives:
            path.unlink()
    raise FetchError(f"cannot download {package}:\n  " + "\n  ".join(failures))


def _download_commands(package: str, folder: Path) -> Iterator[list[str]]:
    if package.startswith("npm:"):
        npm = shutil.which("npm")
        if npm is None:
            raise FetchError(f"cannot download {package}: npm is not installed")
        yield [npm, "pack", "--silent", package.removeprefix("npm:")]
        return
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--dest", str(folder)]
    pip.append("--ignore-requires-python")  # only data is taken out of the package, so its Python version is irrelevant
    yield [*pip, "--only-binary=:all:", package]
    yield [*pip, "--no-binary=:all:", package]


def _run(command: list[str], folder: Path) -> str | None:
    """Run `command` in `folder`; return None on success, else the end of what it said."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {DOWNLOAD_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    return (done.stderr or done.stdout).strip()[-500:] or f"exit status {done.returncode}"


def _extract(archive: Path, models: list[ZooModel]) -> None:
    """Store every model of `models` from `archive`; a source archive may hold them below one more folder."""
    with _members(archive) as (names, read):
        for model in models:
            member = next((n for n in names if n == model.path or n.partition("/")[2] == model.path), None)
            if member is None:
                raise FetchError(f"{model.package}: {archive.name} has no member {model.path}")
            with read(member) as source:
                _store(model, source)


@contextmanager
def _members(archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """Yield the archive's member names and a function that opens one of them, for zip files and tarballs alike."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield zipped.namelist(), lambda name: zipped.open(name)
        return
    with tarfile.open(archive) as tarred:

        def read(name: str) -> IO[bytes]:
            source = tarred.extractfile(name)
            if source is None:
                raise FetchError(f"{archive.name}: {name} is not a regular file")
            return source

        yield tarred.getnames(), read


def _store(model: ZooModel, source: IO[bytes]) -> None:
    """Copy `source` into the cache atomically; raise FetchError and leave nothing behind if the digest differs."""
    target = _cache_path(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{model.name}-")
    try:
        with os.fdopen(handle, "wb") as out:
            shutil.copyfileobj(source, out)
        digest = _digest(Path(temporary))
        if digest != model.sha256:
            raise FetchError(f"{model.name}: sha256 of {model.path} is {digest}, the manifest says {model.sha256}")
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Fetch the named models (all by default); print one line per model; return 1 if any failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.zoo.fetch", description="Fetch zoo models into the local cache."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to fetch (default: all)")
    names: list[str] = parser.parse_args(arguments).names or list(manifest())
    failed = 0
    for name in names:
        try:
            print(f"{name}: {fetch(name)}", flush=True)
        except FetchError as error:
            failed += 1
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
    print(f"{len(names) - failed} fetched, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
