"""Processors by name: what code is made for, with which flags, and that making it asks for no compiler of theirs."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

import compiler
from backends.c import CBackend, targets, toolchain
from backends.c.emit import processor
from compiler.errors import ToolError, UsageError

DIGITS = Path(__file__).parents[2] / "samples/digits/digits.onnx"
ZIG = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl", "riscv64": "riscv64-linux-musl"}
ZIG |= {"wasm32": "wasm32-wasi", "": "aarch64-linux-musl"}
NAMES = [
    "generic", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "avx512-vnni", "avx512-bf16", "aarch64", "riscv64-v",
    "wasm32-simd",
]  # fmt: skip


def zig_for(machine: str) -> str:
    return f"{sys.executable} -m ziglang cc -target {ZIG[machine]}"


def test_the_table_has_these_processors() -> None:
    assert [each.name for each in targets.PROCESSORS] == NAMES
    for each in targets.PROCESSORS:
        assert each.lanes in (4, 8, 16) and each.registers in (16, 32) and list(each.caches) == sorted(each.caches)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "generic"])
def test_compilers_are_told_to_compile_for_it(name: str) -> None:
    """What zig then says of itself is the same description: flags and macros fit each other."""
    found = toolchain.find_compiler(zig_for(targets.BY_NAME[name].machine)).target_macros(name)
    assert targets.described(found).name == name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks the C compiler of this machine about x86")
@pytest.mark.parametrize("name", [name for name in NAMES if targets.BY_NAME[name].machine == "x86_64"])
def test_gcc_is_told_the_same(name: str) -> None:
    assert targets.described(toolchain.find_compiler("gcc").target_macros(name)).name == name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks the C compiler of this machine about x86")
@pytest.mark.parametrize(("march", "name", "lanes"), [("sandybridge", "x86-64-v2", 8), ("skylake", "x86-64-v3", 8)])
def test_other_names_are_described_by_what_the_compiler_says(march: str, name: str, lanes: int) -> None:
    found = processor(CBackend(march=march))
    assert (found.name, found.lanes) == (name, lanes)


def test_macros_of_a_processor_between_two_of_the_table() -> None:
    knights = dict.fromkeys(["__x86_64__", "__SSE4_2__", "__AVX__", "__AVX2__", "__FMA__", "__AVX512F__"], "1")
    found = targets.described(knights)
    assert (found.name, found.lanes, found.registers) == ("x86-64-v3", 16, 32)
    assert targets.described({}).name == "generic"


@pytest.mark.parametrize("name", NAMES)
def test_code_is_made_without_a_compiler(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    artifact = compiler.compile(DIGITS, out=tmp_path / "out", march=name)
    assert artifact.manifest["lanes"] == targets.BY_NAME[name].lanes


@pytest.mark.parametrize("name", ["x86-64-v4", "aarch64", "riscv64-v"])
def test_code_for_other_machines_becomes_programs(name: str, tmp_path: Path) -> None:
    artifact = compiler.compile(DIGITS, out=tmp_path / "out", march=name, opt="-O1")
    built = artifact.build("exe", cc=zig_for(targets.BY_NAME[name].machine))
    machine = {"x86-64-v4": 62, "aarch64": 183, "riscv64-v": 243}[name]  # the numbers of ELF
    assert int.from_bytes(built.read_bytes()[18:20], "little") == machine


def test_code_for_another_machine_is_not_compiled_for_this_one(tmp_path: Path) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86-64"
    artifact = compiler.compile(DIGITS, out=tmp_path / "out", march=other, opt="-O0")
    with pytest.raises(ToolError, match="makes no code for") as refused:
        artifact.load()
    assert refused.value.code == "E0607"
    with pytest.raises(ToolError, match="cannot be loaded here") as refused:
        artifact.load(cc=zig_for(targets.BY_NAME[other].machine))
    assert refused.value.code == "E0607"


def test_what_one_machine_measured_decides_nothing_of_deterministic_code(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="deterministic"):
        CBackend(deterministic=True, tuned=str(tmp_path / "some.tuned.json")).pipeline()
