"""Holds a wheel against the source tree: every module and data file of the packages, the licence, nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ir", "compiler", "backends")
SUFFIXES = {".py", ".lark", ".c", ".h", ".json"}


def main() -> int:
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        packed = set(wheel.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts
    }
    metadata = {name for name in packed if ".dist-info/" in name}
    for name in sorted(sources - packed):
        print(f"missing in the wheel: {name}")
    for name in sorted(packed - sources - metadata):
        print(f"does not belong in the wheel: {name}")
    has_license = any(name.endswith("/LICENSE") for name in metadata)
    print(f"{len(packed)} files, {'with' if has_license else 'WITHOUT'} licence")
    return 0 if packed - metadata == sources and has_license else 1


if __name__ == "__main__":
    sys.exit(main())
