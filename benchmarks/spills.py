"""Kernels whose innermost loops keep vectors on the stack: a spill costs up to three times, and no result shows it.

    python -m benchmarks.spills [--march MARCH] [--models NAME ...]

Each model is compiled and its machine code taken apart (objdump, x86-64). An innermost loop counts that multiplies and
adds, or adds products of bytes; so does each access of a whole vector on the stack in it. Status 1 where there are any.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
_PRODUCTS = ("vfmadd", "vpdp", "vdpbf16", "vpmaddwd")
_STACK = re.compile(r"\((%rsp|%rbp)")


def functions(listing: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The functions of a disassembly: the name, and address, mnemonic and operands of each instruction."""
    for part in re.split(r"\n(?=[0-9a-f]+ <)", listing):
        head, _, body = part.partition("\n")
        name = re.search(r"<(.+)>:", head)
        if name:
            found = (_LINE.match(line) for line in body.splitlines())
            yield name[1], [(m[1], m[2], m[3]) for m in found if m]


def spills(instructions: list[tuple[str, str, str]]) -> int:
    """Accesses of vectors on the stack in the innermost loops of a function that multiply and add."""
    places = {address: place for place, (address, _, _) in enumerate(instructions)}
    jumps = [
        (places[target], end)
        for end, (_, mnemonic, operands) in enumerate(instructions)
        if mnemonic.startswith("j") and (target := operands.split(" ")[0]) in places and places[target] < end
    ]
    innermost = [(a, b) for a, b in jumps if not any((c, d) != (a, b) and a <= c and d <= b for c, d in jumps)]
    total = 0
    for start, end in innermost:
        body = instructions[start : end + 1]
        if any(mnemonic.startswith(_PRODUCTS) for _, mnemonic, _ in body):
            total += sum(bool(_STACK.search(o)) and ("%zmm" in o or "%ymm" in o) for _, _, o in body)
    return total


def disassembled(library: Path) -> str:
    """What objdump says of a library. Raises CalledProcessError."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def model_spills(name: str, folder: Path, march: str) -> dict[str, int]:
    """The kernels of a model that spill, and how often."""
    from benchmarks.compare import source
    from compiler import compile

    path, _ = source(name, folder)
    with tempfile.TemporaryDirectory(prefix="sesame-spills-") as scratch:
        library = compile(path, out=Path(scratch) / "model", march=march).build("so")
        listing = disassembled(library)
    return {function: count for function, body in functions(listing) if (count := spills(body))}


def main() -> None:
    from benchmarks.compare import names

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--march", default="native")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="as in benchmarks.compare; without it, all")
    arguments = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory(prefix="sesame-spills-") as folder:
        for name in arguments.models or names():
            for function, count in model_spills(name, Path(folder), arguments.march).items():
                print(f"{name}: {function}: {count}")
                status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
