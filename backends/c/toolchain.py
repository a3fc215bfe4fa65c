"""The host's C compiler: finding it, asking what it targets, and building libraries and programs with it.

Objects are compiled in parallel and kept in a content cache. Floating-point semantics are IEEE's: no flag here lets the
compiler reorder sums or forget NaN, infinities or signed zeros. This module knows nothing of models or kernels, and
runs no shell: every command is a list of arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypedDict, Unpack

from backends.c import cache
from backends.c.targets import check_machine, compile_flags
from compiler.errors import ToolError

Kind = Literal["gcc", "clang", "zig"]

RUNTIME_DIR = Path(__file__).parent / "runtime"

CODE_FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing")
"""What generated code is compiled with everywhere: here, by CMake, and by who reads docs/c-artifact.md. Nothing reads
errno or floating-point exceptions, so that loops with mathematical functions can be vectors; and the memory of an arena
and of embedded weights is declared as bytes, and holds values of all types."""

_WARNINGS = ("-Wall", "-Wextra")
_QUERY_SECONDS = 60.0
_DRIVER = re.compile(r"([\w.+-]+-)?(gcc|clang)(-[\d.]+)?")
"""Programs that are compilers themselves."""
_ERROR_LINES = 20
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(\S))', re.MULTILINE)
_READS_OTHER_FILES = re.compile(rb"\.incbin|^[ \t]*#[ \t]*embed", re.MULTILINE)


@dataclass(frozen=True)
class Compiler:
    """A C compiler that runs on this machine: the command that starts it, its family, and what it says of itself."""

    command: tuple[str, ...]
    kind: Kind
    version: str

    def target_macros(self, march: str | None = "native") -> Mapping[str, str]:
        """The predefined macros for `march`: `"__AVX512F__" in c.target_macros()`. Asked once, then remembered.

        Raises ToolError E0603 if the compiler does not know `march`.
        """
        return _target_macros(self.command, self.march_flags(march))

    def march_flags(self, march: str | None) -> tuple[str, ...]:
        """The flags for a processor: see `targets.compile_flags`."""
        if march:
            check_machine(march, _target_macros(self.command, ()))
        return compile_flags(march, self.kind)

    def flags(
        self,
        march: str | None = "native",
        opt: str = "-O3",
        *,
        sanitize: Sequence[str] = (),
        fp_contract: str = "fast",
    ) -> tuple[str, ...]:
        """The flags that generated code is compiled with.

        `fp_contract` is "fast" (a*b + c may be one rounding) or "off" (the same bits on every machine).
        """
        flags = ["-std=c11", *_WARNINGS, "-fPIC", opt, *self.march_flags(march)]
        flags += [*CODE_FLAGS, f"-ffp-contract={fp_contract}"]
        if sanitize:
            flags += ["-g", "-fno-omit-frame-pointer", f"-fsanitize={','.join(sanitize)}"]
        else:
            flags.append("-g0")
        if self.kind == "zig" and "undefined" not in sanitize:
            flags.append("-fno-sanitize=undefined")  # which zig turns on by itself
        return tuple(flags)


class BuildOptions(TypedDict, total=False):
    """The keyword arguments of `build_shared` and `build_executable`."""

    include: Sequence[Path]  # directories searched for headers; none by default
    opt: str  # "-O3"
    march: str | None  # "native"; None is the compiler's default
    sanitize: Sequence[str]  # such as ("address", "undefined")
    fp_contract: str  # "fast", or "off"
    defines: Sequence[str]  # such as ("NDEBUG", "LANES=16")
    flags: Sequence[str]  # further compiler flags, after all others
    libraries: Sequence[Path]  # shared libraries to link; found beside the output at run time
    jobs: int | None  # compilers at once; one per processor by default
    timeout: float  # seconds one compiler may run; 600
    use_cache: bool  # True
    progress: Callable[[int, int, str], None] | None  # called with (objects done, objects in all, source name)


@dataclass(frozen=True)
class BuildResult:
    """What a build made. `compiled + cached` is the number of sources; `warnings` is what the compilers printed."""

    output: Path
    compiled: int
    cached: int
    warnings: str
    seconds: float


def find_compiler(prefer: str | None = None) -> Compiler:
    """The C compiler to use: `prefer`, else `$CC`, else the first of cc, gcc and clang, else the bundled zig cc.

    `prefer` is "gcc", "clang", "zig", or a command with its arguments, as `$CC` is. What was asked for is used or
    refused, never replaced by another. Raises ToolError E0601 if there is no such compiler, E0602 if it does not work.
    """
    wanted = prefer or os.environ.get("CC", "").strip()
    if wanted:
        return _identify(_command_of(wanted))
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return _identify((name,))
    return _identify(_command_of("zig"))


def build_shared(
    sources: Sequence[Path], output: Path, compiler: Compiler, **options: Unpack[BuildOptions]
) -> BuildResult:
    """Compiles `sources` and links them into the shared library `output`, which appears whole or not at all.

    Raises ToolError: E0604 a source does not compile, E0605 the objects do not link, E0606 a compiler ran too long.
    """
    return _build(sources, output, compiler, ("-shared",), options)


def build_executable(
    sources: Sequence[Path], output: Path, compiler: Compiler, **options: Unpack[BuildOptions]
) -> BuildResult:
    """Compiles `sources` and links them into the program `output`. Otherwise as `build_shared`."""
    return _build(sources, output, compiler, (), options)


# ---------------------------------------------------------------- finding


def _command_of(wanted: str) -> tuple[str, ...]:
    """The command that a name or command line stands for. Raises ToolError E0601."""
    if wanted == "zig":
        if importlib.util.find_spec("ziglang") is None:
            raise ToolError(
                "E0601",
                "no C compiler found: neither cc, gcc nor clang is on PATH, and the ziglang package is not installed",
                help="install gcc or clang, or `pip install ziglang`, or set CC",
            )
        return (sys.executable, "-m", "ziglang", "cc")
    try:
        command = tuple(shlex.split(wanted))
    except ValueError as error:
        raise ToolError("E0601", f"cannot read the compiler command {wanted!r}: {error}") from error
    if shutil.which(command[0]) is None:
        raise ToolError(
            "E0601", f"C compiler {command[0]!r} not found", help="unset CC, or name a compiler that is on PATH"
        )
    return command


@functools.cache
def _identify(command: tuple[str, ...]) -> Compiler:
    macros = _target_macros(command, ())
    if "__clang__" not in macros and "__GNUC__" not in macros:
        raise ToolError("E0602", f"`{shlex.join(command)}` is neither GCC nor Clang", help="set CC to one of them")
    is_zig = any(re.fullmatch(r"(zig|ziglang|python-zig)(\.exe)?", Path(word).name) for word in command)
    kind: Kind = "zig" if is_zig else "clang" if "__clang__" in macros else "gcc"
    version = _remembered((*command, "--version"), command).strip()
    return Compiler(command, kind, version)


@functools.cache
def _target_macros(command: tuple[str, ...], march_flags: tuple[str, ...]) -> Mapping[str, str]:
    with tempfile.TemporaryDirectory(prefix="sesame-") as folder:
        empty = Path(folder) / "empty.c"
        empty.write_bytes(b"")
        question = (*command, *march_flags, "-dM", "-E", str(empty))
        text = _query(question) if march_flags else _remembered(question, command)
    macros = (line.split(" ", 2) for line in text.splitlines() if line.startswith("#define "))
    return MappingProxyType({parts[1]: parts[2] if len(parts) > 2 else "" for parts in macros})


def _remembered(question: tuple[str, ...], command: tuple[str, ...]) -> str:
    """What the compiler answers to a question, from the cache where that very program has been asked it before: asking
    takes longer than to load a model. A script, or a program that starts another compiler, is asked each time."""
    program = Path(shutil.which(command[0]) or command[0]).resolve()
    if len(command) != 1 or not _DRIVER.fullmatch(program.name):
        return _query(question)
    with contextlib.suppress(OSError):
        status = program.stat()
        asked = [word for word in question if not word.endswith(".c")]
        asked += [os.environ.get(name, "") for name in ("GCC_EXEC_PREFIX", "COMPILER_PATH")]
        key = cache.key_of("answer", *asked, str(program), f"{status.st_size} {status.st_mtime_ns} {status.st_ino}")
        found = cache.get(key)
        if found is not None:
            return found.read_text(encoding="utf-8")
        answer = _query(question)
        with tempfile.TemporaryDirectory(prefix="sesame-") as folder:
            written = Path(folder) / "answer"
            written.write_text(answer, encoding="utf-8")
            cache.put(key, written)
        return answer
    return _query(question)


def _query(command: tuple[str, ...]) -> str:
    """What a command prints that only asks the compiler something. Raises ToolError E0602, E0603 or E0606."""
    stdout, _ = _Processes(_QUERY_SECONDS).run("E0603", "asking the C compiler", command)
    return stdout


# ---------------------------------------------------------------- running


class _Processes:
    """Runs commands from several threads and can end them all, with the processes they started."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, code: str, what: str, command: Sequence[str]) -> tuple[str, str]:
        """Runs a command and returns what it wrote to standard output and standard error.

        Raises ToolError: `code` if it fails, E0602 if it cannot be started, E0606 on the time limit.
        """
        with self._lock:
            if self._ended:
                raise ToolError(code, f"{what} was not started: the build was stopped")
            process = self._start(what, command)
            self._running.add(process)
        try:
            stdout, stderr = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            raise ToolError(
                "E0606", f"{what} took more than {self.timeout:g} s: {shlex.join(command)}", help="raise the time limit"
            ) from None
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            raise _failure(code, f"{what} failed", command, process.returncode, stderr)
        return stdout, stderr

    def end(self) -> None:
        """Kills what runs and lets nothing new start."""
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill(process)

    @staticmethod
    def _start(what: str, command: Sequence[str]) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # a compiler driver's children are killed with it
            )
        except OSError as error:
            raise ToolError("E0602", f"{what} failed: {error}", help="set CC to a working compiler") from error


def _kill(process: subprocess.Popen[str]) -> None:
    if process.returncode is not None:  # its number may already be another process's
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended first
        return


def _failure(code: str, what: str, command: Sequence[str], status: int, stderr: str) -> ToolError:
    lines = stderr.strip().splitlines()
    shown = lines[:_ERROR_LINES]
    if len(lines) > _ERROR_LINES:
        shown.append(f"... {len(lines) - _ERROR_LINES} more lines")
    detail = "\n".join(f"    {line}" for line in shown)
    return ToolError(code, f"{what} (status {status}): {shlex.join(command)}\n{detail}".rstrip())


# ---------------------------------------------------------------- building


@dataclass(frozen=True)
class _Object:
    """A compiled source: where the object is, whether it came from the cache, what the compiler printed."""

    path: Path
    cached: bool
    warnings: str


def _build(
    sources: Sequence[Path], output: Path, compiler: Compiler, link_flags: tuple[str, ...], options: BuildOptions
) -> BuildResult:
    started = time.monotonic()
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    processes = _Processes(options.get("timeout", 600.0))
    with tempfile.TemporaryDirectory(prefix="sesame-", dir=output.parent) as folder:
        objects = _compile_all(sources, Path(folder), compiler, processes, options)
        linked = Path(folder) / output.name
        sanitize = options.get("sanitize", ())
        command = [
            *compiler.command,
            *link_flags,
            *(str(item.path) for item in objects),
            *(str(path.absolute()) for path in options.get("libraries", ())),
            *(("-Wl,-rpath,$ORIGIN",) if options.get("libraries") else ()),
            *((f"-fsanitize={','.join(sanitize)}",) if sanitize else ()),
            *("-lm", "-lpthread", "-o", str(linked)),
        ]
        warnings = [item.warnings for item in objects]
        warnings.append(processes.run("E0605", f"linking {output.name}", command)[1])
        os.replace(linked, output)
    cached = sum(item.cached for item in objects)
    if cached < len(objects) and options.get("use_cache", True):
        cache.gc_if_due()
    return BuildResult(
        output, len(objects) - cached, cached, "".join(text for text in warnings if text), time.monotonic() - started
    )


def _compile_all(
    sources: Sequence[Path], folder: Path, compiler: Compiler, processes: _Processes, options: BuildOptions
) -> list[_Object]:
    """The objects of `sources`, in their order. On an error or an interrupt the other compilers are ended."""
    jobs = max(1, min(options.get("jobs") or os.cpu_count() or 1, len(sources)))
    progress = options.get("progress")
    flags = (
        *compiler.flags(
            options.get("march", "native"),
            options.get("opt", "-O3"),
            sanitize=options.get("sanitize", ()),
            fp_contract=options.get("fp_contract", "fast"),
        ),
        *(f"-D{define}" for define in options.get("defines", ())),
        *options.get("flags", ()),
    )
    include = tuple(path.absolute() for path in options.get("include", ()))
    # With "native" the object depends on this machine, and the cache may be shared between machines.
    target = repr(sorted(compiler.target_macros(options.get("march", "native")).items()))
    use_cache = options.get("use_cache", True)

    def compile_one(index: int) -> _Object:
        source = sources[index].absolute()
        made = folder / f"{index:04d}-{source.stem}.o"
        key = _object_key(source, include, compiler, flags, target) if use_cache else None
        if key is not None and (found := cache.get(key)):
            shutil.copyfile(found, made)  # the entry itself may be collected before the link
            return _Object(made, True, "")
        paths = [f"-I{path}" for path in include]
        command = [*compiler.command, *flags, *paths, "-c", str(source), "-o", str(made)]
        _, warnings = processes.run("E0604", f"compiling {source.name}", command)
        if key is not None:
            cache.put(key, made)
        return _Object(made, False, warnings)

    with ThreadPoolExecutor(max_workers=jobs) as executor:
        futures: dict[Future[_Object], int] = {executor.submit(compile_one, i): i for i in range(len(sources))}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress is not None:
                    progress(done, len(sources), sources[futures[future]].name)
        except BaseException:
            processes.end()
            executor.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


# ---------------------------------------------------------------- what an object depends on


def _object_key(
    source: Path, include: Sequence[Path], compiler: Compiler, flags: Sequence[str], target: str
) -> str | None:
    """The cache key of a source, or None if what it depends on cannot be told by reading `#include` lines.

    System headers are taken to be part of the compiler's version.
    """
    parts: list[bytes | str] = ["object 1", *compiler.command, compiler.version, "\0".join(flags), target]
    for name, data in _sources_read(source, include):
        if data is None:
            return None
        parts += [name, data]
    return cache.key_of(*parts)


def _sources_read(source: Path, include: Sequence[Path]) -> Iterator[tuple[str, bytes | None]]:
    """Name and bytes of a source and of every header it may include from its own or the `include` directories.

    The bytes are None if it may read files in other ways: `#include MACRO`, `#embed`, `.incbin`.
    """
    waiting = [(source.name, source)]
    seen = {source}
    while waiting:
        name, path = waiting.pop()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ToolError("E0604", f"cannot read {path.name}: {error.strerror}", file=str(path)) from error
        readable = not _READS_OTHER_FILES.search(data)
        for quoted, angled, macro in _INCLUDE.findall(data):
            readable = readable and not macro
            wanted = os.fsdecode(quoted or angled)
            places = ([path.parent] if quoted else []) + list(include)
            header = next((place / wanted for place in places if wanted and (place / wanted).is_file()), None)
            if header is not None and header not in seen:
                seen.add(header)
                waiting.append((wanted, header))
        yield name, (data if readable else None)
