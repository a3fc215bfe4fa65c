"""Processors that C code is made for, by name: one table of what the passes ask of a machine.

A description decides how wide vectors and how large register tiles are, and nothing else: which instruction does what
is known to the runtime headers alone, and they ask the C compiler. So code that was made for one processor runs on
every other that the compiler knows, only slower.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compiler.errors import ToolError

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Processor:
    """What passes ask of a machine. `lanes` floats make a vector, of which there are `registers`. `dot` are the sums of
    products of narrow operands that are one instruction there; elsewhere they are several. `caches` are the bytes of
    data that one core finds in the first, second and third level.

    `machine` is the architecture, as C compilers call it, empty for any. `flags` make GCC and Clang compile for it,
    `zig` is its name for zig. A compiler that defines all of `macros` compiles for it.
    """

    name: str
    description: str
    machine: str
    lanes: int
    registers: int
    dot: tuple[str, ...]
    caches: tuple[int, int, int]
    flags: tuple[str, ...]
    zig: str
    macros: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The description for `sesame targets`."""
        told = ("name", "description", "machine", "lanes", "registers", "dot", "caches")
        return {key: value for key, value in asdict(self).items() if key in told}


_BYTES, _BF16 = "u8 x i8", "bf16 x bf16"
_DESKTOP, _SERVER, _SMALL = (
    (32 << 10, 256 << 10, 8 << 20),
    (32 << 10, 1 << 20, 16 << 20),
    (32 << 10, 256 << 10, 2 << 20),
)
_V4 = ("__AVX512F__", "__AVX512BW__", "__AVX512DQ__", "__AVX512VL__")

PROCESSORS = (
    Processor("generic", "any 64-bit processor: vectors of 128 bits, and the compiler's own default for it",
              "", 4, 16, (), _SMALL, (), "baseline", ()),
    Processor("x86-64", "every x86 of 64 bits: SSE2",
              "x86_64", 4, 16, (), _DESKTOP, ("-march=x86-64",), "x86_64", ("__x86_64__",)),
    Processor("x86-64-v2", "x86 from about 2009 on: SSE4.2",
              "x86_64", 4, 16, (), _DESKTOP, ("-march=x86-64-v2",), "x86_64_v2", ("__x86_64__", "__SSE4_2__")),
    Processor("x86-64-v3", "x86 from about 2013 on: AVX2 and FMA",
              "x86_64", 8, 16, (), _DESKTOP, ("-march=x86-64-v3",), "x86_64_v3", ("__x86_64__", "__AVX2__", "__FMA__")),
    Processor("x86-64-v4", "x86 with AVX-512",
              "x86_64", 16, 32, (), _SERVER, ("-march=x86-64-v4",), "x86_64_v4", ("__x86_64__", *_V4)),
    Processor("avx512-vnni", "x86 with AVX-512 and its dot products of bytes",
              "x86_64", 16, 32, (_BYTES,), _SERVER, ("-march=x86-64-v4", "-mavx512vnni"), "x86_64_v4+avx512vnni",
              ("__x86_64__", *_V4, "__AVX512VNNI__")),
    Processor("avx512-bf16", "x86 with AVX-512 and its dot products of bytes and of bf16",
              "x86_64", 16, 32, (_BYTES, _BF16), _SERVER, ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
              "x86_64_v4+avx512vnni+avx512bf16", ("__x86_64__", *_V4, "__AVX512VNNI__", "__AVX512BF16__")),
    Processor("aarch64", "every Arm of 64 bits: NEON",
              "aarch64", 4, 32, (), _DESKTOP, ("-march=armv8-a",), "generic", ("__aarch64__",)),
    Processor("riscv64-v", "RISC-V of 64 bits with vectors: as RVV 1.0 with registers of 128 bits",
              "riscv64", 4, 32, (), _SMALL, ("-march=rv64gcv", "-mabi=lp64d"), "baseline_rv64+v",
              ("__riscv", "__riscv_vector")),
    Processor("wasm32-simd", "WebAssembly with vectors of 128 bits",
              "wasm32", 4, 16, (), _SMALL, ("-msimd128",), "generic+simd128", ("__wasm__", "__wasm_simd128__")),
)  # fmt: skip
"""From the least to the most of each architecture: the last one whose macros a compiler defines is what it is for."""

BY_NAME: Mapping[str, Processor] = {processor.name: processor for processor in PROCESSORS}

FIXED = BY_NAME["x86-64-v4"]
"""Decides all that a result's bits depend on where these must be the same on every processor."""


def described(macros: Mapping[str, str]) -> Processor:
    """The description that fits best what a compiler that defines `macros` compiles for."""
    best = [processor for processor in PROCESSORS if all(macro in macros for macro in processor.macros)][-1]
    if "__AVX512F__" in macros:  # with less of AVX-512 than the fourth level has
        return replace(best, lanes=16, registers=32)
    return replace(best, lanes=8) if "__AVX__" in macros and best.lanes < 8 else best


def compile_flags(march: str | None, kind: str) -> tuple[str, ...]:
    """The flags with which a compiler of a family ("gcc", "clang", "zig") compiles for a processor: one of the table,
    "native", any other name that the compiler knows, or its default (None)."""
    if march is None:
        return ()
    known = BY_NAME.get(march)
    if kind == "zig":  # zig spells processors with underscores: a dash takes a feature away
        name = march.replace("-", "_") if known is None else known.zig
        return (f"-mcpu={name}",) if name else ()
    if known is not None:
        return known.flags
    if march == "native" and platform.machine() in ("aarch64", "arm64", "armv7l"):
        return ("-mcpu=native",)
    return (f"-march={march}",)


def check_machine(march: str, macros: Mapping[str, str]) -> None:
    """Raises ToolError where a compiler makes code for another architecture than that of a processor of the table."""
    known = BY_NAME.get(march)
    if known is None or not known.machine:
        return
    tells = {"x86_64": "__x86_64__", "aarch64": "__aarch64__", "riscv64": "__riscv", "wasm32": "__wasm__"}
    if tells[known.machine] not in macros:
        raise ToolError(
            "E0607",
            f"the C compiler makes no code for {known.machine}, which {march} is",
            help="name a cross compiler with CC or the option cc, as in cc=aarch64-linux-gnu-gcc",
        )


def own_caches(otherwise: tuple[int, int, int]) -> tuple[int, int, int]:
    """The data caches of this machine's first core; what is not told is taken from `otherwise`."""
    found: dict[int, int] = dict(enumerate(otherwise, 1))
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction" and int(level) in found:
                found[int(level)] = int(size[:-1]) * _UNITS[size[-1]] if size[-1] in _UNITS else int(size)
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a machine that does not tell this
    return found[1], found[2], found[3]
