"""The C toolchain: what it finds, builds, caches and refuses."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import subprocess
import time
from pathlib import Path

import onnx.parser
import pytest

from backends.c import cache, toolchain
from compiler import compile as compile_model
from compiler import load
from compiler.errors import ToolError

DOCS = Path(__file__).parents[2] / "docs"
ADD = '#include "add.h"\nint add(int a, int b) { return a + b + EXTRA; }\n'
ADD_H = "int add(int a, int b);\n"
TWICE = '#include "add.h"\nint twice(int a); int twice(int a) { return add(a, a); }\n'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SESAME_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "add.c").write_text(ADD)
    (folder / "add.h").write_text(ADD_H)
    (folder / "twice.c").write_text(TWICE)
    return folder


@pytest.fixture(params=["default", "zig"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> toolchain.Compiler:
    monkeypatch.delenv("CC", raising=False)
    return toolchain.find_compiler(None if request.param == "default" else request.param)


def build(project: Path, compiler: toolchain.Compiler, name: str = "libadd.so", **options) -> toolchain.BuildResult:
    sources = [project / "add.c", project / "twice.c"]
    options.setdefault("defines", ("EXTRA=0",))
    return toolchain.build_shared(sources, project / name, compiler, **options)


def test_builds_a_library_that_runs(project: Path, compiler: toolchain.Compiler) -> None:
    seen: list[tuple[int, int, str]] = []
    result = build(project, compiler, progress=lambda *step: seen.append(step))
    library = ctypes.CDLL(str(result.output))
    assert library.twice(21) == 42
    assert (result.compiled, result.cached, result.warnings) == (2, 0, "")
    assert [step[:2] for step in seen] == [(1, 2), (2, 2)]
    assert {step[2] for step in seen} == {"add.c", "twice.c"}


def test_builds_a_program_that_finds_its_library(project: Path, compiler: toolchain.Compiler) -> None:
    library = build(project, compiler).output
    (project / "main.c").write_text('#include "add.h"\nint main(void) { return add(3, 4); }\n')
    result = toolchain.build_executable([project / "main.c"], project / "main", compiler, libraries=[library])
    assert subprocess.run([result.output], check=False).returncode == 7


def test_objects_come_from_the_cache_until_something_they_read_changes(
    project: Path, compiler: toolchain.Compiler
) -> None:
    counts = []
    changes = [{"defines": ("EXTRA=1",)}, {"opt": "-O1"}, {"march": None}, {"fp_contract": "off"}, {"use_cache": False}]
    for number, options in enumerate([{}, {}, *changes]):
        result = build(project, compiler, f"lib{number}.so", **options)
        counts.append((result.compiled, result.cached))
    assert counts == [(2, 0), (0, 2), (2, 0), (2, 0), (2, 0), (2, 0), (2, 0)]
    (project / "add.h").write_text(ADD_H + "#define UNUSED 1\n")
    assert build(project, compiler).compiled == 2
    (project / "twice.c").write_text(TWICE.replace("add(a, a)", "3 * a"))
    result = build(project, compiler, "libthrice.so")
    assert (result.compiled, result.cached) == (1, 1)
    assert ctypes.CDLL(str(result.output)).twice(5) == 15


def test_headers_are_followed_through_include_directories(project: Path) -> None:
    compiler = toolchain.find_compiler()
    outer, inner = project / "outer", project / "inner"
    outer.mkdir()
    inner.mkdir()
    (outer / "value.h").write_text("#include <deep.h>\n")
    (inner / "deep.h").write_text("#define VALUE 1\n")
    (project / "value.c").write_text('#include "value.h"\nint value(void); int value(void) { return VALUE; }\n')
    for number in (1, 2):
        (inner / "deep.h").write_text(f"#define VALUE {number}\n")
        output = project / f"value{number}.so"
        result = toolchain.build_shared([project / "value.c"], output, compiler, include=[outer, inner])
        assert result.compiled == 1
        assert ctypes.CDLL(str(output)).value() == number


@pytest.mark.parametrize("text", ['#define WHERE "add.h"\n#include WHERE\n', '__asm__(".incbin \\"add.h\\"");\n'])
def test_sources_that_read_files_unseen_are_never_cached(project: Path, text: str) -> None:
    (project / "odd.c").write_text(text + "int odd(void); int odd(void) { return 1; }\n")
    compiler = toolchain.find_compiler()
    for _ in range(2):
        flags = ("-I", str(project), f"-Wa,-I{project}")
        result = toolchain.build_shared([project / "odd.c"], project / "odd.so", compiler, flags=flags)
        assert result.cached == 0


def test_damaged_cache_entries_are_ignored(project: Path, own_cache: Path) -> None:
    compiler = toolchain.find_compiler()
    build(project, compiler)
    for entry in own_cache.rglob("*.o"):
        entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    assert build(project, compiler).compiled == 2
    assert build(project, compiler).cached == 2


def test_works_where_the_cache_cannot_be_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESAME_CACHE_DIR", "/dev/null/cache")
    assert build(project, toolchain.find_compiler()).compiled == 2


def test_builds_are_reproducible(project: Path, compiler: toolchain.Compiler, tmp_path: Path) -> None:
    outputs = []
    for place in ("one", "another"):
        folder = tmp_path / place
        folder.mkdir()
        for file in project.glob("*.[ch]"):
            (folder / file.name).write_bytes(file.read_bytes())
        outputs.append(build(folder, compiler, use_cache=False).output.read_bytes())
    assert outputs[0] == outputs[1]


def test_a_source_that_does_not_compile_is_reported_with_the_command(
    project: Path, compiler: toolchain.Compiler
) -> None:
    (project / "add.c").write_text("int add(int a, int b) { return a + ; }\n" + "#error more\n" * 40)
    with pytest.raises(ToolError, match=r"compiling add\.c failed") as caught:
        build(project, compiler)
    text = str(caught.value)
    assert caught.value.code == "E0604"
    assert caught.value.exit_code == 6
    assert "-fno-math-errno" in text
    assert "more lines" in text
    assert not (project / "libadd.so").exists()
    assert not list(project.glob("sesame-*"))


def test_objects_that_do_not_link_are_reported(project: Path) -> None:
    with pytest.raises(ToolError) as caught:
        toolchain.build_executable(
            [project / "add.c"], project / "nothing", toolchain.find_compiler(), defines=["EXTRA=0"]
        )
    assert caught.value.code == "E0605"


def test_a_missing_source_is_reported(project: Path) -> None:
    with pytest.raises(ToolError, match=r"gone\.c"):
        toolchain.build_shared([project / "gone.c"], project / "gone.so", toolchain.find_compiler())


def test_a_compiler_that_hangs_is_ended_with_its_children(project: Path, tmp_path: Path) -> None:
    real = toolchain.find_compiler("gcc")
    script = tmp_path / "slow-cc"
    script.write_text('#!/bin/sh\ncase "$*" in *-dM*) exit 0;; esac\nsleep 30\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    slow = toolchain.Compiler((str(script),), real.kind, real.version)
    started = time.monotonic()
    with pytest.raises(ToolError, match="took more than"):
        build(project, slow, timeout=0.5, march=None, use_cache=False)
    assert time.monotonic() - started < 10


def test_cc_is_used_or_refused_but_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc -DFROM_CC=1")
    compiler = toolchain.find_compiler()
    assert compiler.command == ("gcc", "-DFROM_CC=1")
    assert "FROM_CC" in compiler.target_macros(None)
    monkeypatch.setenv("CC", "no-such-compiler -x")
    with pytest.raises(ToolError) as caught:
        toolchain.find_compiler()
    assert caught.value.code == "E0601"
    monkeypatch.setenv("CC", "gcc 'unbalanced")
    with pytest.raises(ToolError):
        toolchain.find_compiler()
    (tmp_path / "empty").mkdir()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert toolchain.find_compiler().kind == "zig"


def test_a_command_that_is_no_c_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolError) as caught:
        toolchain.find_compiler("true")
    assert caught.value.code == "E0602"


def test_kinds_and_versions() -> None:
    zig = toolchain.find_compiler("zig")
    assert zig.kind == "zig"
    assert "clang" in zig.version
    gcc = toolchain.find_compiler("gcc")
    assert gcc.kind == "gcc"
    assert gcc.version.startswith("gcc")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 instruction sets")
def test_target_macros_tell_the_instruction_set(compiler: toolchain.Compiler) -> None:
    wide = compiler.target_macros("x86-64-v3")
    assert {"__AVX2__", "__FMA__"} <= wide.keys()
    assert "__AVX512F__" not in wide
    assert "__AVX2__" not in compiler.target_macros("x86-64")
    flags = Path("/proc/cpuinfo").read_text().split()
    assert ("avx512f" in flags) == ("__AVX512F__" in compiler.target_macros("native"))
    with pytest.raises(ToolError) as caught:
        compiler.target_macros("no-such-processor")
    assert caught.value.code == "E0603"


@pytest.mark.parametrize("opt", ["-O0", "-O3"])
def test_wrapping_is_not_trapped_unless_asked(project: Path, compiler: toolchain.Compiler, opt: str) -> None:
    (project / "wrap.c").write_text("int wrap(int a); int wrap(int a) { return a + 1; }\n")
    output = toolchain.build_shared([project / "wrap.c"], project / f"wrap{opt}.so", compiler, opt=opt).output
    assert ctypes.CDLL(str(output)).wrap(5) == 6
    assert b"ubsan" not in output.read_bytes()


def test_sanitizers_find_what_they_look_for(project: Path) -> None:
    (project / "bad.c").write_text(
        "#include <limits.h>\nint main(int n, char **v) { int sum = INT_MAX; (void)v; sum += n; return sum == 5; }\n"
    )
    program = toolchain.build_executable(
        [project / "bad.c"], project / "bad", toolchain.find_compiler("gcc"), sanitize=("address", "undefined")
    ).output
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert "signed integer overflow" in done.stderr


# ---------------------------------------------------------------- the cache alone


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.cache_dir() == Path(os.environ["SESAME_CACHE_DIR"])
    monkeypatch.delenv("SESAME_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_dir() == Path("/x/sesame")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == Path.home() / ".cache" / "sesame"


def test_keys_depend_on_where_parts_end() -> None:
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc")
    assert cache.key_of("a", b"b") == cache.key_of(b"a", "b")
    with pytest.raises(ValueError, match="not a cache key"):
        cache.get("../../etc/passwd")


def test_put_get_and_collect(tmp_path: Path) -> None:
    keys = [cache.key_of(str(i)) for i in range(4)]
    file = tmp_path / "object"
    assert cache.get(keys[0]) is None
    for age, key in enumerate(keys):
        file.write_bytes(key.encode() * 16)  # 1024 bytes
        assert cache.put(key, file)
        entry = cache.get(key)
        assert entry is not None
        os.utime(entry, (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # makes the oldest the youngest
    assert cache.gc(2048) == 2048
    assert [cache.get(key) is not None for key in keys] == [True, False, False, True]
    assert cache.gc(0) == 2048
    assert not [path for path in cache.cache_dir().rglob("*") if path.is_file()]


def test_the_cache_is_looked_through_now_and_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"x")
    assert cache.put(cache.key_of("x"), tmp_path / "object")
    monkeypatch.setattr(cache, "gc", lambda: 1)
    assert [cache.gc_if_due(), cache.gc_if_due()] == [1, 0]
    os.utime(cache.cache_dir() / "objects" / "collected", (0, 0))
    assert cache.gc_if_due() == 1


def test_all_who_compile_generated_code_have_its_flags(tmp_path: Path) -> None:
    """The toolchain, the emitted CMakeLists.txt, and the commands of the pages, of which one may leave out speed."""
    flags = toolchain.Compiler(("cc",), "gcc", "").flags()
    assert set(toolchain.CODE_FLAGS) <= set(flags)
    text = '<ir_version: 8, opset_import: ["": 17]> tiny (float[4] x) => (float[4] y) { y = Relu(x) }'
    compile_model(load(onnx.parser.parse_model(text)), "c", out=tmp_path)
    (options,) = re.findall(r"PRIVATE\s+(-O3 [^)]+)\)", (tmp_path / "CMakeLists.txt").read_text())
    assert set(options.split()) == {"-O3", *toolchain.CODE_FLAGS, "-ffp-contract=fast"} <= set(flags)
    building = (DOCS / "c-artifact.md").read_text().partition("## Building")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(-f[\w-]+)`", building)) == {*toolchain.CODE_FLAGS, "-ffast-math"}
    commands = re.findall(r"^\$ (cc .+)$", "".join(page.read_text() for page in sorted(DOCS.glob("*.md"))), re.M)
    assert commands and all(" -fno-strict-aliasing " in command for command in commands)
