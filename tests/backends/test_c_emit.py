"""What op examples do not show of emitted C: names, symbolic sizes, branches, threads, statuses, vector tiles."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.c.kernels import emit_kernel, header, source
from backends.c.names import Identifiers, comment, identifier, string_literal
from backends.c.project import RUNTIME, EmitOptions, write_project
from backends.c.sizes import plain_text
from backends.c.toolchain import build_executable, build_shared, find_compiler
from benchmarks.spills import disassembled, functions, spills
from ir import types as t
from ir.blob import ArrayBlob
from ir.dims import maximum, minimum, symbol
from ir.element import KernelBuilder, Names, Output, buffer_tensor
from ir.expr import Expr, Index, Load, apply, cast, const, select
from ir.kernel import Buffer, Kernel
from ir.program import Branch, Call, Program, ProgramBuffer, Slot

STRICT = ["-Werror", "-Wconversion", "-Wno-sign-conversion"]
HOSTILE = 'a*/ b??/ "c"\\\n\x1b[31m é %s'
N = symbol("N")


def pointwise(name: str, function: Any, inputs: int = 1, type_: t.TensorType | None = None) -> Kernel:
    """y[i] = function(x0[i], x1[i] ...) over one axis of N elements, in parallel."""
    type_ = type_ or t.tensor("f32", N)
    k = KernelBuilder(Names())
    tensors = [buffer_tensor(f"x{i}", type_) for i in range(inputs)]
    with k.loop("parallel", i=type_.shape[0]) as i:
        k.store(Output("y", type_), (i,), function(*(x.at(i) for x in tensors)))
    params = [Buffer(f"x{i}", type_) for i in range(inputs)]
    return Kernel(name, (*params, Buffer("y", type_, "out")), k.body)


class Built:
    """A program, emitted and loaded."""

    def __init__(self, program: Program, folder: Path, compiler: str = "gcc", **options: Any) -> None:
        self.files = write_project(program, folder, EmitOptions(**options))
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())
        sources = [f for f in self.files if f.suffix == ".c" and f.name != "main.c"]
        flags = [*STRICT, "-Wmissing-prototypes"]
        path = folder / f"lib{compiler}.so"
        build_shared(sources, path, find_compiler(compiler), include=[folder], opt="-O2", flags=flags, jobs=2)
        self.library = ctypes.CDLL(str(path))
        self.prefix = self.manifest["prefix"]

    def call(
        self, *arrays: np.ndarray, dims: tuple[int, ...] = (), arena_bytes: int | None = None, pool: Any = None
    ) -> int:
        """Runs it on arrays, inputs then outputs; the status."""
        needed_of = getattr(self.library, f"{self.prefix}_call_arena_bytes")
        needed_of.restype = ctypes.c_int64
        sizes = (ctypes.c_int64 * max(1, len(dims)))(*dims)
        needed = needed_of(sizes)
        size = max(needed, 0) if arena_bytes is None else arena_bytes
        weights = aligned(np.fromfile(self.folder / "model.weights", np.uint8)) if self.has_file else None
        arena = aligned(np.full(max(size, 0) + 64, 0xA5, np.uint8))
        io = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        data = None if weights is None else ctypes.c_void_p(weights.ctypes.data)
        run = getattr(self.library, f"{self.prefix}_call")
        status = run(io, sizes, data, ctypes.c_void_p(arena.ctypes.data), ctypes.c_size_t(size), pool)
        assert (arena[max(size, 0) :] == 0xA5).all(), "wrote beyond the arena"
        return status

    @property
    def has_file(self) -> bool:
        return self.manifest["weights"]["file"] is not None

    def status(self, name: str) -> int:
        header = (self.folder / "model.h").read_text()
        return int(re.search(rf"_{name} = (\d+)", header)[1])  # type: ignore[index]


def aligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def chain(name: str = "net", weights: np.ndarray | None = None) -> Program:
    """y = exp(x) * w, by way of the arena; x has the symbolic size `batch-size`, at most 1000."""
    size = symbol("batch-size")
    type_ = t.tensor("f32", size)
    w = np.float32([3.0]) if weights is None else weights
    scale = Kernel("scale", (Buffer("x", t.tensor("f32", N)), Buffer("w", t.tensor("f32", 1), "const"),
                             Buffer("y", t.tensor("f32", N), "out")), scale_body())  # fmt: skip
    program = Program(name, ["x"], ["y"], ["data"], ["result"], bounds={"batch-size": (1, 1000)})
    program.buffers = {
        "x": ProgramBuffer("x", type_, "input"),
        "e": ProgramBuffer("e", type_, "arena", slot=0),
        "w": ProgramBuffer("w", t.tensor("f32", 1), "weight", ArrayBlob(w)),
        "same": ProgramBuffer("same", t.tensor("f32", 1), "weight", ArrayBlob(w.copy())),
        "y": ProgramBuffer("y", type_, "output"),
    }
    program.slots = [Slot((size * 4 + 63) // 64 * 64)]
    exp = pointwise("exp", lambda x: apply("exp", x))
    program.steps = [Call(exp, ("x", "e"), (size,), ("node",)), Call(scale, ("e", "w", "y"), (size,), ("other",))]
    return program


def scale_body() -> tuple[Any, ...]:
    k = KernelBuilder(Names())
    with k.loop("parallel", i=N) as i:
        k.store(
            Output("y", t.tensor("f32", N)),
            (i,),
            buffer_tensor("x", t.tensor("f32", N)).at(i) * buffer_tensor("w", t.tensor("f32", 1)).at(0),
        )
    return k.body


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_a_program_with_a_symbolic_size(tmp_path: Path, compiler: str) -> None:
    built = Built(chain(), tmp_path, compiler)
    for size in (1, 7, 100):
        x = np.linspace(-1, 1, size, dtype=np.float32)
        y = np.zeros(size + 1, np.float32)
        assert built.call(x, y, dims=(size,)) == 0
        np.testing.assert_allclose(y[:size], np.exp(x) * 3, rtol=1e-6)
        assert y[size] == 0
    assert built.manifest["weights"]["bytes"] == 64, "equal weights are stored once"


def test_statuses(tmp_path: Path) -> None:
    built = Built(chain(), tmp_path)
    x, y = np.zeros(1001, np.float32), np.zeros(1001, np.float32)
    assert built.call(x, y, dims=(1001,)) == built.status("ERROR_DIMS")
    assert built.call(x, y, dims=(0,)) == built.status("ERROR_DIMS")
    assert built.call(x, y, dims=(100,), arena_bytes=447) == built.status("ERROR_ARENA_TOO_SMALL")
    assert built.call(x, y, dims=(100,), arena_bytes=448) == 0
    nothing = (ctypes.c_void_p * 2)(None, None)
    dims = (ctypes.c_int64 * 1)(1)
    assert built.library.net_call(nothing, dims, None, None, ctypes.c_size_t(0), None) == built.status("ERROR_NULL")
    assert built.library.net_call(None, dims, None, None, ctypes.c_size_t(0), None) == built.status("ERROR_NULL")
    built.library.net_strerror.restype = ctypes.c_char_p
    texts = {built.library.net_strerror(i) for i in range(9)}
    assert len(texts) == 9 and b"unknown status" in texts


def test_sizes_that_overflow_are_refused(tmp_path: Path) -> None:
    program = chain()
    program.bounds = {}
    built = Built(program, tmp_path)
    x = np.zeros(1, np.float32)
    for size in (1 << 61, 1 << 62, (1 << 63) - 1, -1):
        assert built.call(x, x.copy(), dims=(size,)) == built.status("ERROR_DIMS")


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_hostile_names(tmp_path: Path, compiler: str) -> None:
    program = chain(HOSTILE)
    program.input_names, program.output_names = [HOSTILE], [HOSTILE]
    program.steps = [
        Call(Kernel(HOSTILE, step.kernel.params, step.kernel.body), step.args, step.sizes, (HOSTILE, "", "*/"))
        for step in program.steps[:1]
    ] + program.steps[1:]  # type: ignore[union-attr]
    built = Built(program, tmp_path, compiler)
    x, y = np.zeros(5, np.float32), np.zeros(5, np.float32)
    assert built.call(x, y, dims=(5,)) == 0
    assert (y == 3).all()
    for file in built.files:
        if file.suffix in (".c", ".h", ".txt", ".json"):
            assert file.read_bytes().isascii()
    assert built.manifest["name"] == HOSTILE and built.manifest["inputs"][0]["name"] == HOSTILE
    build_executable(
        [f for f in built.files if f.suffix == ".c"],
        tmp_path / "bench",
        find_compiler(compiler),
        opt="-O1",
        flags=STRICT,
    )


@pytest.mark.parametrize(
    "text",
    ["int", "class", "", "9", "é", "a b", "_x", "INT_MAX", "EOF", "sesame_pool", "linux", "x" * 500, "f32x16", "*/"],
)
def test_identifiers_are_safe(text: str) -> None:
    name = identifier(text)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name)
    assert name not in ("int", "class", "INT_MAX", "EOF", "sesame_pool", "linux", "f32x16")


def test_identifiers_are_unique() -> None:
    scope = Identifiers()
    assert len({scope.fresh("a b"), scope.fresh("a.b"), scope.fresh("a_b"), scope.fresh("a_b_2")}) == 4
    assert scope.of("x!") == scope.of("x!") != scope.of("x?")


def test_comments_and_strings() -> None:
    assert "*/" not in comment("*/*/") and "\n" not in comment("a\nb") and not comment("a\\").endswith("\\")
    assert comment("é\x1b") == "\\xe9\\x1b"
    assert string_literal('a"\\\n??/é') == r'"a\042\134\012\077\077/\303\251"'


def test_sizes_as_c() -> None:
    h, w = symbol("H"), symbol("W")
    spell = {"H": "H", "W": "W"}.__getitem__
    assert plain_text((h + 1) // 2, spell) == "(H + 1) / 2"
    assert plain_text(h % 4, spell) == "H % 4"
    assert plain_text(1 - h, spell) == "1 - H"
    assert plain_text(h // w, spell) == "sesame_floordiv_i64(H, W)"
    assert plain_text(maximum(minimum(h, 8), w), spell) == "sesame_max_i64(W, sesame_min_i64(H, 8))"
    assert plain_text(h * (1 << 40), spell) == "H * INT64_C(1099511627776)"


def test_a_branch(tmp_path: Path) -> None:
    type_ = t.tensor("f32", 4)
    double, negate = (pointwise(n, f, type_=type_) for n, f in (("double", lambda x: x + x), ("negate", lambda x: -x)))
    program = Program("cond", ["c", "x"], ["y"], ["c", "x"], ["y"])
    program.buffers = {
        "c": ProgramBuffer("c", t.tensor("bool"), "input"),
        "x": ProgramBuffer("x", type_, "input"),
        "y": ProgramBuffer("y", type_, "output"),
    }
    then, orelse = (Call(k, ("x", "y")) for k in (double, negate))
    program.steps = [Branch("c", (then,), (orelse,), ("if node",)), Branch("c", (), ())]
    built = Built(program, tmp_path)
    x, y = np.float32([1, 2, 3, 4]), np.zeros(4, np.float32)
    for condition, want in ((True, x * 2), (False, -x)):
        assert built.call(np.array(condition), x, y) == 0
        np.testing.assert_array_equal(y, want)


def test_outputs_that_no_step_writes_are_copied(tmp_path: Path) -> None:
    type_ = t.tensor("f32", 4)
    program = Program("copies", ["x"], ["x", "w", "y", "y"], ["x"], ["same", "constant", "y", "again"])
    program.buffers = {
        "x": ProgramBuffer("x", type_, "input"),
        "w": ProgramBuffer("w", type_, "weight", ArrayBlob(np.float32([5, 6, 7, 8]))),
        "y": ProgramBuffer("y", type_, "output"),
    }
    program.steps = [Call(pointwise("neg", lambda x: -x, type_=type_), ("x", "y"))]
    built = Built(program, tmp_path)
    x = np.float32([1, 2, 3, 4])
    outs = [np.zeros(4, np.float32) for _ in range(4)]
    assert built.call(x, *outs) == 0
    for got, want in zip(outs, (x, [5, 6, 7, 8], -x, -x)):
        np.testing.assert_array_equal(got, want)


def test_threads_divide_the_parallel_loop(tmp_path: Path) -> None:
    program = chain()
    program.bounds = {}
    built = Built(program, tmp_path)
    library = built.library
    library.sesame_pool_bytes.restype = ctypes.c_size_t
    storage = np.zeros(library.sesame_pool_bytes(3), np.uint8)
    pool = ctypes.c_void_p()
    start = library.sesame_pool_start
    assert start(ctypes.c_void_p(storage.ctypes.data), ctypes.c_size_t(storage.nbytes), 3, ctypes.byref(pool)) == 0
    try:
        for size in (1, 3, 20_000, 100_001):
            x = np.linspace(-1, 1, size, dtype=np.float32)
            y = np.zeros(size, np.float32)
            assert built.call(x, y, dims=(size,), pool=pool) == 0
            np.testing.assert_allclose(y, np.exp(x) * 3, rtol=1e-6)
    finally:
        library.sesame_pool_stop(pool)


def test_nested_parallel_loops_are_one_range() -> None:
    k = KernelBuilder(Names())
    y = Output("y", t.tensor("f32", N, 5))
    with k.loop("parallel", i=N) as i, k.loop("parallel", j=5) as j:
        k.store(y, (i, j), 1.0)
    function = emit_kernel(Kernel("fill", (Buffer("y", y.type, "out"),), k.body), "fill")
    assert function.range == N * 5
    assert "flat / 5" in function.definition and "flat % 5" in function.definition


def gather(guarded: bool) -> Kernel:
    """y[i] = x[index[i]]; where `guarded`, zero for a negative index."""
    k = KernelBuilder(Names())
    x, index = buffer_tensor("x", t.tensor("f32", 6)), buffer_tensor("index", t.tensor("i64", 4))
    with k.loop(i=4) as i:
        at: Expr = index.at(i)
        value = x.at(at)
        k.store(Output("y", t.tensor("f32", 4)), (i,), select(at >= 0, value, 0.0) if guarded else value)
    buffers = (Buffer("x", x.type), Buffer("index", index.type), Buffer("y", t.tensor("f32", 4), "out"))
    return Kernel("gather", buffers, k.body)


@pytest.mark.parametrize("guarded", [False, True])
def test_indices_from_data_are_checked(tmp_path: Path, guarded: bool) -> None:
    kernel = gather(guarded)
    program = Program("gather", ["x", "index"], ["y"], ["x", "index"], ["y"])
    places = ("input", "input", "output")
    program.buffers = {b.name: ProgramBuffer(b.name, b.type, place) for b, place in zip(kernel.params, places)}  # type: ignore[arg-type]
    program.steps = [Call(kernel, ("x", "index", "y"))]
    built = Built(program, tmp_path)
    x, y = np.arange(6, dtype=np.float32), np.zeros(4, np.float32)
    assert built.call(x, np.int64([5, 0, 3, 3]), y) == 0
    assert y.tolist() == [5, 0, 3, 3]
    for bad in (6, 1 << 60):
        assert built.call(x, np.int64([5, bad, 3, 3]), y) == built.status("ERROR_INDEX")
    expected = 0 if guarded else built.status("ERROR_INDEX")
    assert built.call(x, np.int64([5, -1, 3, 3]), y) == expected, "what is not read needs no valid index"


def test_weights_inside_the_code(tmp_path: Path) -> None:
    built = Built(chain(weights=np.float32([2.5])), tmp_path, weights="embed")
    assert not (tmp_path / "model.weights").exists() and built.manifest["weights"]["bytes"] == 64
    x, y = np.zeros(3, np.float32), np.zeros(3, np.float32)
    assert built.call(x, y, dims=(3,)) == 0
    assert y.tolist() == [2.5] * 3


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_project(chain(), tmp_path / folder)
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / folder).iterdir()} for folder in ("a", "b"))
    assert first == second and {"model.c", "model.weights"} <= first.keys()


def test_the_bench_and_its_cmake_project(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    write_project(chain(), tmp_path)
    build = tmp_path / "build"
    subprocess.run(["cmake", "-S", tmp_path, "-B", build], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "-j", "2"], check=True, capture_output=True)
    x = np.linspace(0, 1, 10, dtype=np.float32)
    x.tofile(tmp_path / "x.bin")
    arguments = ["--weights", tmp_path / "model.weights", "--threads", "2", "--repeat", "3"]
    files = [f"data={tmp_path}/x.bin", f"result={tmp_path}/y.bin"]
    done = subprocess.run([build / "net_bench", *arguments, "batch-size=10", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.fromfile(tmp_path / "y.bin", np.float32), np.exp(x) * 3, rtol=1e-6)
    done = subprocess.run([build / "net_bench", *arguments, *files], capture_output=True, text=True)
    assert done.returncode == 64 and "batch-size" in done.stderr


# ------------------------------------------------------------ expressions


def test_shared_work_is_named_once_and_guarded_loads_stay_guarded() -> None:
    k = KernelBuilder(Names())
    x = buffer_tensor("x", t.tensor("f32", N))
    with k.loop(i=N) as i:
        shared = apply("exp", x.at(i))
        far = Load(t.f32, "x", (Index(t.i64, i.value + 7),))
        far_twice = apply("log", far) * apply("log", far)
        k.store(Output("y", x.type), (i,), select(apply("lt", i, N - 7), far_twice + shared, shared * shared))
    text = emit_kernel(Kernel("k", (Buffer("x", x.type), Buffer("y", x.type, "out")), k.body), "k").definition
    assert text.count("sesame_expf(") == 1
    assert text.count("sesame_logf(") == 1
    before, inside = text.split("if (")
    assert "x[i + 7]" not in before and "x[i + 7]" in inside


@pytest.mark.parametrize(
    "value", [0.1, -0.0, 1e-45, 3.4028235e38, float("inf"), float("-inf"), float("nan"), 1.0, 1e10]
)
def test_float_literals_are_exact(tmp_path: Path, value: float) -> None:
    kernel = pointwise(
        "literal",
        lambda x: apply("select", x.equals(x), const(value, t.f32), const(value, t.f32)),
        type_=t.tensor("f32", 1),
    )
    program = Program("literal", ["x"], ["y"], ["x"], ["y"])
    program.buffers = {n: ProgramBuffer(n, t.tensor("f32", 1), p) for n, p in (("x", "input"), ("y", "output"))}  # type: ignore[arg-type]
    program.steps = [Call(kernel, ("x", "y"))]
    y = np.zeros(1, np.float32)
    assert Built(program, tmp_path).call(np.zeros(1, np.float32), y) == 0
    assert y.tobytes() == np.float32([value]).tobytes() or (np.isnan(value) and np.isnan(y[0]))


def test_a_float_that_visits_small_integers_saturates(tmp_path: Path) -> None:
    type_ = t.tensor("f32", 8)
    x = np.float32([3.7, -3.7, 300, -300, np.nan, np.inf, -np.inf, 1e30])
    for dtype, want in ((t.u8, [3, 0, 255, 0, 0, 255, 0, 255]), (t.i8, [3, -3, 127, -128, 0, 127, -128, 127])):
        kernel = pointwise("visit", lambda x, dtype=dtype: cast(cast(x, dtype), t.f32), type_=type_)
        assert "sesame_integer_f32" in emit_kernel(kernel, "visit").definition
        program = Program(f"visit {dtype}", ["x"], ["y"], ["x"], ["y"])
        program.buffers = {"x": ProgramBuffer("x", type_, "input"), "y": ProgramBuffer("y", type_, "output")}
        program.steps = [Call(kernel, ("x", "y"))]
        y = np.zeros(8, np.float32)
        assert Built(program, tmp_path / str(dtype)).call(x, y) == 0
        assert y.tolist() == want


# ------------------------------------------------------------ vector tiles


def product(rows: int, vectors: int, lanes: int, depth: int, blocks: int) -> Kernel:
    """y = max(x @ w + b, 0) with a register tile of `rows` by `vectors`; w lies in panels."""
    width = vectors * lanes
    x, w = buffer_tensor("x", t.tensor("f32", rows, depth)), buffer_tensor("w", t.tensor("f32", blocks, depth, width))
    b, y = buffer_tensor("b", t.tensor("f32", blocks * width)), Output("y", t.tensor("f32", rows, blocks * width))
    k = KernelBuilder(Names())
    with k.loop("parallel", j=blocks) as j:
        acc = k.local("acc", t.tensor("f32", rows, width))
        with k.loop("unroll", r=rows) as r, k.loop("vector", c=width) as c:
            k.store(acc, (r, c), 0.0)
        with k.loop(k=depth) as kk, k.loop("unroll", r=rows) as r, k.loop("vector", c=width) as c:
            k.store(acc, (r, c), x.at(r, kk) * w.at(j, kk, c), "add")
        with k.loop(r=rows) as r, k.loop(c=width) as c:
            k.store(y, (r, j * width + c), apply("max", acc.at(r, c) + b.at(j * width + c), 0.0))
    roles = (("x", x, "in"), ("w", w, "const"), ("b", b, "const"), ("y", y, "out"))
    return Kernel("product", tuple(Buffer(n, v.type, role) for n, v, role in roles), k.body)  # type: ignore[arg-type]


def library_of(kernel: Kernel, folder: Path, lanes: int, march: str, compiler: str) -> Path:
    function = emit_kernel(kernel, "run", lanes)
    (folder / "model_kernels.h").write_text(header([function]))
    (folder / "run.c").write_text(source([function], "model_kernels.h"))
    path = folder / f"run-{compiler}.so"
    build_shared(
        [folder / "run.c"], path, find_compiler(compiler), include=[RUNTIME, folder], march=march, flags=STRICT
    )
    return path


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize(("rows", "vectors", "lanes", "march"), [(9, 3, 16, "x86-64-v4"), (6, 2, 8, "x86-64-v3")])
def test_the_inner_loop_of_a_tile_holds_its_accumulators_in_registers(
    tmp_path: Path, compiler: str, rows: int, vectors: int, lanes: int, march: str
) -> None:
    """A spill costs up to three times and no numbers show it, so the machine code is looked at."""
    path = library_of(product(rows, vectors, lanes, 64, 2), tmp_path, lanes, march, compiler)
    body = dict(functions(disassembled(path)))["run"]
    assert sum(mnemonic.startswith("vfmadd") for _, mnemonic, _ in body) >= rows * vectors and spills(body) == 0


def test_a_tile_of_more_sums_than_registers_spills(tmp_path: Path) -> None:
    path = library_of(product(14, 3, 16, 64, 2), tmp_path, 16, "x86-64-v4", "gcc")
    assert spills(dict(functions(disassembled(path)))["run"]) > 10


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize(("rows", "vectors", "lanes"), [(1, 1, 4), (3, 2, 4), (2, 2, 8), (1, 3, 16)])
def test_a_tile_computes_what_its_loops_say(tmp_path: Path, compiler: str, rows: int, vectors: int, lanes: int) -> None:
    depth, blocks, width = 5, 2, vectors * lanes
    library = ctypes.CDLL(
        str(library_of(product(rows, vectors, lanes, depth, blocks), tmp_path, lanes, "native", compiler))
    )
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, depth)).astype("f4"), rng.standard_normal((blocks, depth, width)).astype("f4")
    b, y = rng.standard_normal(blocks * width).astype("f4"), np.zeros((rows, blocks * width), np.float32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, w, b, y)]
    library.run(*pointers, ctypes.c_int64(0), ctypes.c_int64(blocks))
    want = np.maximum(x @ w.transpose(1, 0, 2).reshape(depth, -1) + b, 0)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_in_place", [False, True])
@pytest.mark.parametrize("fixed", [None, 3, 16, 45, 80])
def test_vector_loops_of_any_length(tmp_path: Path, fixed: int | None, is_in_place: bool) -> None:
    """What is left over repeats elements of the last chunk, or, in place, goes one by one."""
    extent = symbol("a") + symbol("b") if fixed is None else fixed
    x, y = buffer_tensor("x", t.tensor("f32", extent)), Output("y", t.tensor("f32", extent))
    source = buffer_tensor("y", y.type) if is_in_place else x
    k = KernelBuilder(Names())
    with k.loop("vector", i=extent) as i:
        k.store(y, (i,), apply("exp", source.at(i)) * x.at(i))
    buffers = (Buffer("x", x.type), Buffer("y", y.type, "inout" if is_in_place else "out"))
    library = ctypes.CDLL(str(library_of(Kernel("any", buffers, k.body), tmp_path, 16, "native", "gcc")))
    for a, b in [(0, 0), (0, 1), (7, 8), (8, 8), (20, 25), (31, 2), (1, 64)] if fixed is None else [(fixed, 0)]:
        xs = np.random.default_rng(a).standard_normal(a + b).astype(np.float32)
        ys = np.concatenate([xs, [7, 7]]).astype(np.float32)
        sizes = [] if fixed else [ctypes.c_int64(a), ctypes.c_int64(b)]
        library.run(ctypes.c_void_p(xs.ctypes.data), ctypes.c_void_p(ys.ctypes.data), *sizes)
        np.testing.assert_allclose(ys, [*np.exp(xs) * xs, 7, 7], rtol=1e-6)  # a few units of the last place


@pytest.mark.parametrize("is_state_last", [False, True])
def test_vector_loops_read_what_was_there_before_a_store(tmp_path: Path, is_state_last: bool) -> None:
    """A value with a name is what it was when it got it. Stored last, the state is read by vectors, each value once."""
    x, c, h = buffer_tensor("x", t.tensor("f32", 45)), buffer_tensor("c", t.tensor("f32", 45)), t.tensor("f32", 45)
    k = KernelBuilder(Names())
    with k.loop("vector", i=45) as i:
        held = k.let("held", c.at(i))
        cell = k.let("cell", apply("exp", x.at(i)) + held)
        stores = [lambda: k.store(Output("c", c.type), (i,), cell), lambda: k.store(Output("h", h), (i,), cell * held)]
        for store in reversed(stores) if is_state_last else stores:
            store()
    buffers = (Buffer("x", x.type), Buffer("c", c.type, "inout"), Buffer("h", h, "out"))
    kernel = Kernel("state", buffers, k.body)
    text = emit_kernel(kernel, "state", 16).definition
    assert (text.count("sesame_exp_f32x16(") == 1) is is_state_last
    library = ctypes.CDLL(str(library_of(kernel, tmp_path, 16, "native", "gcc")))
    xs, cs = np.random.default_rng(0).standard_normal((2, 45)).astype(np.float32)
    held, hs = cs.copy(), np.zeros(45, np.float32)
    library.run(*(ctypes.c_void_p(a.ctypes.data) for a in (xs, cs, hs)))
    np.testing.assert_allclose(cs, np.exp(xs) + held, rtol=1e-6)  # a few units of the last place
    np.testing.assert_allclose(hs, (np.exp(xs) + held) * held, rtol=1e-6, atol=1e-6)


def test_vector_loops_of_integers_widen_and_wrap(tmp_path: Path) -> None:
    """acc[c] += i32(x[k]) * i32(w[k, c]) for bytes, then a copy out in vectors."""
    x, w = buffer_tensor("x", t.tensor("u8", 300)), buffer_tensor("w", t.tensor("i8", 300, 32))
    y = Output("y", t.tensor("i32", 32))
    k = KernelBuilder(Names())
    acc = k.local("acc", t.tensor("i32", 32))
    with k.loop("vector", c=32) as c:
        k.store(acc, (c,), 2**31 - 1)
    with k.loop(k=300) as kk, k.loop("vector", c=32) as c:
        k.store(acc, (c,), cast(x.at(kk), t.i32) * cast(w.at(kk, c), t.i32), "add")
    with k.loop("vector", c=32) as c:
        k.store(y, (c,), acc.at(c))
    kernel = Kernel("bytes", (Buffer("x", x.type), Buffer("w", w.type), Buffer("y", y.type, "out")), k.body)
    library = ctypes.CDLL(str(library_of(kernel, tmp_path, 8, "native", "gcc")))
    rng = np.random.default_rng(0)
    xs, ws = rng.integers(0, 255, 300).astype(np.uint8), rng.integers(-128, 127, (300, 32)).astype(np.int8)
    result = np.zeros(32, np.int32)
    library.run(*(ctypes.c_void_p(a.ctypes.data) for a in (xs, ws, result)))
    with np.errstate(over="ignore"):
        want = (xs.astype(np.int64) @ ws.astype(np.int64) + 2**31 - 1).astype(np.int32)
    np.testing.assert_array_equal(result, want)
