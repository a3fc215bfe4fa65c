"""The C runtime: its mathematics against float64, its number formats against ml_dtypes, its thread pool under load."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx.numpy_helper
import pytest

from backends.c import toolchain
from backends.c.nests import math_macro
from backends.c.vectors import type_lines
from ir import types as t

# The samples hold signalling NaN and values beyond every format: NumPy's references warn of them by design.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero) encountered:RuntimeWarning")

STRICT = ("-Werror", "-Wconversion", "-Wdouble-promotion", "-Wshadow", "-Wmissing-prototypes")

FORMATS = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "f8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "f4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
}
SATURATING = ("f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz")
INTEGERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")
CODE = {"f16": "u16", "bf16": "u16"}  # all other formats are stored in a byte

C_TYPES = {"f32": "float", "f64": "double"} | {
    name: f"{'u' if name[0] == 'u' else ''}int{name[1:]}_t" for name in INTEGERS
}
NP_TYPES = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)} | {
    name: np.dtype(f"{'u' if name[0] == 'u' else ''}int{name[1:]}") for name in INTEGERS
}

ERF = np.vectorize(math.erf, otypes=[np.float64])


VECTORS = ("f32x4", "f32x8", "f32x16")
OF_VECTORS = ("exp", "log", "tanh", "sigmoid", "erf", "sqrt", "abs", "floor", "ceil", "round", "trunc")


def functions() -> dict[str, tuple[str, str]]:
    """Every one-argument function of the header under test: name -> (argument type, result type)."""
    table = {f"{name}f": ("f32", "f32") for name in ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos")}
    table |= {"round_even_f32": ("f32", "f32"), "f64_to_f32_odd": ("f64", "f32")}
    table |= {f"{source}_to_{name}": (source, name) for source in ("f32", "f64") for name in INTEGERS}
    for name in FORMATS:
        code = CODE.get(name, "u8")
        table[f"{name}_to_f32"] = (code, "f32")
        if name != "f8e8m0":
            table[f"f32_to_{name}"] = ("f32", code)
        if name in SATURATING:
            table[f"f32_to_{name}_sat"] = ("f32", code)
    table |= {f"{name}_{vector}": ("f32", "f32") for name in OF_VECTORS for vector in VECTORS}
    for mode in ("up", "down", "nearest"):
        table |= {f"f32_to_f8e8m0_{mode}{end}": ("f32", "u8") for end in ("", "_sat")}
    return table


def array_functions() -> str:
    """C that applies each function to an array: `map_<name>(x, y, n)`; and integer division with two arguments."""
    lines = ['#include "vectors.h"']
    for name, (source, result) in functions().items():
        head = f"void map_{name}(const {C_TYPES[source]} *restrict x, {C_TYPES[result]} *restrict y, int64_t n)"
        step, each = "i++", f"y[i] = sesame_{name}(x[i]);"
        vector = name.rpartition("_")[2]
        if vector in VECTORS:
            step, load = f"i += {vector[4:]}", f"SESAME_LOAD({vector}, &x[i])"
            each = f"SESAME_STORE({vector}, &y[i], sesame_{name}({load}));"
        lines.append(f"{head};\n{head} {{ for (int64_t i = 0; i < n; {step}) {each} }}")
    for vector in VECTORS:
        head = f"void ints_{vector}(const float *restrict x, float *restrict y, int32_t *restrict z, int64_t n)"
        load, integers = f"const {vector} v = SESAME_LOAD({vector}, &x[i]);", f"sesame_to_ints_{vector}(v, -128, 127)"
        body = f"SESAME_STORE({vector}, &y[i], sesame_integer_{vector}(v, 0, 255)); const {vector}_ints w = {integers};"
        body = f"{load} {body} memcpy(&z[i], &w, sizeof w);"
        lines.append(f"{head};\n{head} {{ for (int64_t i = 0; i < n; i += {vector[4:]}) {{ {body} }} }}")
    for name in ("div", "rem", "floordiv", "mod"):
        head = f"int64_t call_{name}_i64(int64_t a, int64_t b)"
        lines.append(f"{head};\n{head} {{ return sesame_{name}_i64(a, b); }}")
    for name in ("div", "mod"):
        head = f"uint64_t call_{name}_u64(uint64_t a, uint64_t b)"
        lines.append(f"{head};\n{head} {{ return sesame_{name}_u64(a, b); }}")
    head = "void quantize(const float *restrict x, int32_t *restrict y, int64_t n, int32_t low, int32_t high)"
    body = "for (int64_t i = 0; i < n; i++) y[i] = sesame_round_even_clamp_i32(x[i], low, high);"
    lines.append(f"{head};\n{head} {{ {body} }}")
    return "\n".join(lines) + "\n"


class Runtime:
    """The header compiled into a library, called with arrays."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def __call__(self, name: str, x: np.ndarray) -> np.ndarray:
        source, result = functions()[name]
        size = x.size
        x = np.pad(np.ascontiguousarray(x, NP_TYPES[source]), (0, -size % 16))
        y = np.empty(x.shape, NP_TYPES[result])
        getattr(self.library, f"map_{name}")(
            x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size)
        )
        return y[:size]


@pytest.fixture(scope="module", params=["gcc-fast", "gcc-off", "gcc-baseline", "zig-fast"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    kind, variant = request.param.split("-")
    folder = tmp_path_factory.mktemp("runtime")
    source = folder / "maps.c"
    source.write_text(array_functions())
    types = type_lines({(t.f32, lanes) for lanes in (4, 8, 16)})
    macros = [math_macro(lanes) for lanes in (4, 8, 16)]
    (folder / "vectors.h").write_text("\n".join(['#include "sesame_vector_math.h"', *types, *macros, ""]))
    contract = "fast" if variant == "fast" else "off"
    march = None if variant == "baseline" else "native"
    return Runtime(
        toolchain.build_shared(
            [source], folder / "maps.so", toolchain.find_compiler(kind), include=[toolchain.RUNTIME_DIR, folder],
            flags=STRICT, fp_contract=contract, march=march, use_cache=False,
        ).output
    )  # fmt: skip


@pytest.fixture(scope="module")
def floats() -> np.ndarray:
    """Floats of every exponent, both signs, with the special ones: a stride through all bit patterns, and ranges."""
    patterns = np.arange(0, 1 << 32, 16381, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 1.17549435e-38, 3.4028235e38]
    near = np.concatenate([np.linspace(-limit, limit, 60001) for limit in (0.01, 1.0, 4.0, 20.0, 110.0)])
    return np.concatenate([patterns, np.array(special, np.float32), near.astype(np.float32)])


def ulps(result: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|result - exact| in units of the last place of the exact value, as floats count them."""
    place = np.maximum(np.frexp(np.abs(exact))[1] - 24, -149)
    return np.abs(result.astype(np.float64) - exact) / np.ldexp(1.0, place)


EXACT = {
    "expf": (np.exp, 1.1),
    "logf": (np.log, 1.0),
    "tanhf": (np.tanh, 2.8),
    "sigmoidf": (lambda x: np.where(x < 0, np.exp(x), 1.0) / (1.0 + np.exp(-np.abs(x))), 2.5),
    "erff": (ERF, 1.4),
    "sinf": (np.sin, 1.7),
    "cosf": (np.cos, 1.7),
}


EXACT |= {f"{name}_{vector}": EXACT[f"{name}f"] for name in OF_VECTORS[:5] for vector in VECTORS}
EXACT |= {f"sqrt_{vector}": (np.sqrt, 0.5) for vector in VECTORS}


@pytest.mark.parametrize("name", EXACT)
def test_functions_are_accurate(runtime: Runtime, floats: np.ndarray, name: str) -> None:
    """The tolerances are the header's stated errors, rounded up."""
    exact_of, tolerance = EXACT[name]
    result = runtime(name, floats)
    exact = exact_of(floats.astype(np.float64))
    rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rounded))
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(np.isinf(result), infinite)
    np.testing.assert_array_equal(result[infinite], rounded[infinite])
    finite = np.isfinite(rounded)
    error = ulps(result[finite], exact[finite])
    worst = int(np.argmax(error))
    assert error[worst] <= tolerance, floats[finite][worst]
    known = ~np.isnan(result)
    np.testing.assert_array_equal(np.signbit(result[known]), np.signbit(rounded[known]))


def test_functions_at_the_ends(runtime: Runtime) -> None:
    x = np.array([-np.inf, np.inf, np.nan, -0.0, 0.0], np.float32)
    expected = {
        "expf": [0, np.inf, np.nan, 1, 1],
        "logf": [np.nan, np.inf, np.nan, -np.inf, -np.inf],
        "tanhf": [-1, 1, np.nan, -0.0, 0],
        "sigmoidf": [0, 1, np.nan, 0.5, 0.5],
        "erff": [-1, 1, np.nan, -0.0, 0],
        "sinf": [np.nan, np.nan, np.nan, -0.0, 0],
        "cosf": [np.nan, np.nan, np.nan, 1, 1],
    }
    for vector in VECTORS:
        expected |= {f"{name}_{vector}": expected[f"{name}f"] for name in OF_VECTORS[:5]}
    for name, values in expected.items():
        np.testing.assert_array_equal(runtime(name, x), np.array(values, np.float32), err_msg=name)


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_round_as_numpy_does(runtime: Runtime, floats: np.ndarray, vector: str) -> None:
    x = np.concatenate([floats, np.arange(-300, 300, 0.125, dtype=np.float32)])
    for name, exact in {"abs": np.abs, "floor": np.floor, "ceil": np.ceil, "round": np.rint, "trunc": np.trunc}.items():
        result, expected = runtime(f"{name}_{vector}", x), exact(x)
        np.testing.assert_array_equal(result, expected, err_msg=name)
        known = ~np.isnan(x)
        np.testing.assert_array_equal(np.signbit(result[known]), np.signbit(expected[known]), err_msg=name)


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_become_integers(runtime: Runtime, floats: np.ndarray, vector: str) -> None:
    x = np.resize(np.concatenate([np.arange(-300, 300, 0.125, dtype=np.float32), floats]), floats.size // 16 * 16)
    y, z = np.empty(x.shape, np.float32), np.empty(x.shape, np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, z)]
    getattr(runtime.library, f"ints_{vector}")(*pointers, ctypes.c_int64(x.size))
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0))
    np.testing.assert_array_equal(y, np.clip(whole, 0, 255))
    np.testing.assert_array_equal(z, np.clip(whole, -128, 127))


def test_rounding_to_even(runtime: Runtime, floats: np.ndarray) -> None:
    halves = np.arange(-40, 40, 0.25, dtype=np.float32)
    x = np.concatenate([floats, halves])
    result, expected = runtime("round_even_f32", x), np.rint(x)
    np.testing.assert_array_equal(result, expected)
    known = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(result[known]), np.signbit(expected[known]))


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255), (-131, 124), (-32768, 32767), (-8, 7)])
def test_rounding_for_quantisation(runtime: Runtime, floats: np.ndarray, low: int, high: int) -> None:
    x = np.concatenate([floats, np.arange(-300, 300, 0.125, dtype=np.float32)])
    y = np.empty(x.shape, np.int32)
    runtime.library.quantize(
        x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size), low, high
    )
    expected = np.clip(np.rint(np.nan_to_num(x.astype(np.float64), nan=0.0)), low, high).astype(np.int32)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", ["f32", "f64"])
def test_floats_to_integers_saturate(runtime: Runtime, floats: np.ndarray, source: str, target: str) -> None:
    info = np.iinfo(NP_TYPES[target])
    edges = [float(edge) + step for edge in (info.min, info.max) for step in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5)]
    x = np.concatenate([floats[::7], np.array(edges)]).astype(NP_TYPES[source])
    x = np.concatenate([x, np.nextafter(x[-14:], x.dtype.type(np.inf)), np.nextafter(x[-14:], -x[-14:])])
    expected = [0 if np.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v) for v in x]
    np.testing.assert_array_equal(runtime(f"{source}_to_{target}", x), np.array(expected, NP_TYPES[target]))


def test_integer_division_is_defined_everywhere(runtime: Runtime) -> None:
    least, greatest = -(1 << 63), (1 << 63) - 1
    values = [0, 1, -1, 2, -2, 3, -3, 7, -7, 10, -10, 12345678901, -12345678901, greatest, least, least + 1]

    def wrapped(value: int) -> int:
        return (value - least) % (1 << 64) + least

    def truncated(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    expected = {
        "div": truncated,
        "rem": lambda a, b: a - b * truncated(a, b),
        "floordiv": lambda a, b: a // b,
        "mod": lambda a, b: a % b,
    }
    for name, exact in expected.items():
        function = getattr(runtime.library, f"call_{name}_i64")
        function.argtypes, function.restype = [ctypes.c_int64] * 2, ctypes.c_int64
        for a in values:
            for b in values:
                assert function(a, b) == (wrapped(exact(a, b)) if b else 0), (name, a, b)
    for name, a, b, exact in (
        ("div", 9, 0, 0),
        ("mod", 9, 0, 0),
        ("div", 1 << 63, 3, (1 << 63) // 3),
        ("mod", 9, 4, 1),
    ):
        function = getattr(runtime.library, f"call_{name}_u64")
        function.argtypes, function.restype = [ctypes.c_uint64] * 2, ctypes.c_uint64
        assert function(a, b) == exact


# ---------------------------------------------------------------- number formats


def codes_of(name: str) -> np.ndarray:
    """Every code of a format."""
    count = {"f4e2m1": 16, "f16": 1 << 16, "bf16": 1 << 16}.get(name, 256)
    return np.arange(count).astype(NP_TYPES[CODE.get(name, "u8")])


def samples_for(name: str) -> np.ndarray:
    """Floats that try an encoder: all values of the format, their midpoints and the floats beside those, and others."""
    values = codes_of(name).view(FORMATS[name]).astype(np.float32)
    values = np.unique(values[np.isfinite(values)])
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    beyond = values[-1] + (values[-1].astype(np.float64) - values[-2]) * np.array([0.25, 0.5, 0.75, 1, 2])
    exact = np.concatenate([values, middles, beyond.astype(np.float32)])
    rng = np.random.default_rng(1)
    random = rng.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    scaled = (rng.standard_normal(200_000) * np.exp2(rng.uniform(-20, 17, 200_000))).astype(np.float32)
    special = np.array([0, np.inf, np.nan, 1e-45, 1e-40, 3.4e38], np.float32)
    near = [np.nextafter(exact, np.float32(way)) for way in (np.inf, -np.inf)]
    everything = np.concatenate([exact, *near, random, scaled, special])
    return np.concatenate([everything, -everything])


def assert_same_codes(name: str, result: np.ndarray, expected: np.ndarray, x: np.ndarray) -> None:
    """Equal codes, any NaN being as good as another of the same sign."""
    both_nan = np.isnan(result.view(FORMATS[name]).astype(np.float32))
    both_nan &= np.isnan(expected.view(FORMATS[name]).astype(np.float32))
    wrong = (result != expected) & ~both_nan
    assert not wrong.any(), [(hex(a), hex(b), v.hex()) for a, b, v in zip(result[wrong], expected[wrong], x[wrong])][:5]


@pytest.mark.parametrize("name", FORMATS)
def test_decoding_every_code(runtime: Runtime, name: str) -> None:
    codes = codes_of(name)
    expected = codes.view(FORMATS[name]).astype(np.float32)
    result = runtime(f"{name}_to_f32", codes)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(result), ~known)
    np.testing.assert_array_equal(result[known].view(np.uint32), expected[known].view(np.uint32))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("f8e8m0", "f4e2m1")])
def test_encoding_rounds_to_nearest_even(runtime: Runtime, name: str) -> None:
    x = samples_for(name)
    expected = x.astype(FORMATS[name]).view(NP_TYPES[CODE.get(name, "u8")])
    assert_same_codes(name, runtime(f"f32_to_{name}", x), expected, x)


def test_encoding_e2m1(runtime: Runtime) -> None:
    x = samples_for("f4e2m1")
    expected = x.astype(FORMATS["f4e2m1"]).view(np.uint8)
    expected[np.isnan(x)] = 0  # there is no NaN; ml_dtypes gives a zero of either sign
    np.testing.assert_array_equal(runtime("f32_to_f4e2m1", x), expected)


@pytest.mark.parametrize("name", SATURATING)
def test_saturating_encoders_clamp(runtime: Runtime, name: str) -> None:
    x = samples_for(name)
    limit = np.float32(ml_dtypes.finfo(FORMATS[name]).max)
    expected = np.clip(x, -limit, limit).astype(FORMATS[name]).view(np.uint8)
    assert_same_codes(name, runtime(f"f32_to_{name}_sat", x), expected, x)


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_encoding_e8m0(runtime: Runtime, mode: str, saturate: bool) -> None:
    """As the ONNX reference for finite numbers; infinity as the table in the text of ONNX Cast has it."""
    x = np.abs(samples_for("f8e8m0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = onnx.numpy_helper.to_float8e8m0(x, saturate, mode).view(np.uint8)
    expected = np.where(np.isinf(x), 0xFE if saturate else 0xFF, expected)
    np.testing.assert_array_equal(runtime(f"f32_to_f8e8m0_{mode}{'_sat' if saturate else ''}", x), expected)


def test_doubles_are_rounded_once(runtime: Runtime) -> None:
    """Halfway cases of f16 moved by less than a float can tell: rounding to float first would lose the direction."""
    halves = codes_of("f16")[:0x7C00].view(np.float16).astype(np.float64)
    ties = (halves[1:] + halves[:-1]) / 2
    x = np.concatenate([ties, ties * (1 + 2.0**-40), ties * (1 - 2.0**-40), [65519.999999, 65520.0, 1e300, 1e-300]])
    x = np.concatenate([x, -x, [np.inf, -np.inf, np.nan, 0.0, -0.0]])
    expected = x.astype(np.float16).view(np.uint16)
    odd = runtime("f64_to_f32_odd", x)
    assert_same_codes("f16", runtime("f32_to_f16", odd), expected, x)


# ---------------------------------------------------------------- what compilers make of it


@pytest.mark.parametrize("kind", ["gcc", "zig"])
@pytest.mark.parametrize("defines", [(), ("SESAME_NO_THREADS",)])
def test_runtime_compiles_without_a_warning(tmp_path: Path, kind: str, defines: tuple[str, ...]) -> None:
    unit = tmp_path / "unit.c"
    unit.write_text('#include "sesame_math.h"\n#include "sesame_pool.h"\n')
    sources = [unit, toolchain.RUNTIME_DIR / "sesame_pool.c"]
    for opt in ("-O0", "-O2"):
        result = toolchain.build_shared(
            sources, tmp_path / "unit.so", toolchain.find_compiler(kind), include=[toolchain.RUNTIME_DIR],
            flags=STRICT, opt=opt, defines=defines, use_cache=False,
        )  # fmt: skip
        assert result.warnings == ""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names an x86 instruction set")
@pytest.mark.parametrize(
    "name", ["expf", "logf", "tanhf", "sigmoidf", "erff", "round_even_f32", "f32_to_i32", "f32_to_f16", "f16_to_f32",
             "f32_to_bf16", "f32_to_f8e4m3fn_sat"],
)  # fmt: skip
def test_loops_of_calls_become_vector_code(tmp_path: Path, name: str) -> None:
    source, result = functions()[name]
    unit = tmp_path / "loop.c"
    unit.write_text(
        '#include "sesame_math.h"\n'
        f"void loop(const {C_TYPES[source]} *restrict x, {C_TYPES[result]} *restrict y, int64_t n) {{\n"
        f"  for (int64_t i = 0; i < n; i++) y[i] = sesame_{name}(x[i]);\n}}\n"
    )
    compiler = toolchain.find_compiler("gcc")
    built = toolchain.build_shared(
        [unit], tmp_path / "loop.so", compiler, include=[toolchain.RUNTIME_DIR], march="x86-64-v3",
        flags=("-fopt-info-vec",), use_cache=False,
    )  # fmt: skip
    assert "loop.c:3:" in built.warnings
    assert "loop vectorized" in built.warnings


# ---------------------------------------------------------------- the thread pool

POOL_PROGRAM = r"""
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "sesame_pool.h"

#define MOST 100000
static unsigned char storage[1 << 16], touched[MOST];
static atomic_int chunks;
static sesame_pool *pool;

#define CHECK(condition) \
  do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, #condition); exit(1); } } while (0)

static void touch(void *context, int64_t begin, int64_t end) {
  CHECK(begin < end);
  atomic_fetch_add(&chunks, 1);
  for (int64_t i = begin; i < end; i++) ((unsigned char *)context)[i]++;
}

static void nested(void *context, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) sesame_parallel_for(pool, 10, touch, (unsigned char *)context + 10 * i);
}

static void check(int64_t count, int threads) {
  atomic_store(&chunks, 0);
  for (int64_t i = 0; i < MOST; i++) touched[i] = 0;
  sesame_parallel_for(pool, count, touch, touched);
  for (int64_t i = 0; i < MOST; i++) CHECK(touched[i] == (i < count));
  int64_t most = threads == 1 ? 1 : 4 * threads; /* four of the part of each thread */
  CHECK(atomic_load(&chunks) == (count <= 0 ? 0 : count == 1 ? 1 : count < most ? count : most));
}

static void *other_caller(void *mine) {
  for (int i = 0; i < 200; i++) sesame_parallel_for(pool, 100, touch, mine);
  return NULL;
}

static void callers_at_once(void) {
  static unsigned char mine[4][100];
  pthread_t callers[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&callers[i], NULL, other_caller, mine[i]) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(callers[i], NULL) == 0);
  for (int i = 0; i < 400; i++) {
    CHECK(mine[i / 100][i % 100] == 200);
    mine[i / 100][i % 100] = 0;
  }
}

static atomic_bool is_held;

static void hold(void *context, int64_t begin, int64_t end) {
  (void)begin, (void)end;
  if (!pthread_equal(*(pthread_t *)context, pthread_self())) {
    while (atomic_load(&is_held)) nanosleep(&(struct timespec){0, 100000}, NULL);
  } else {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (atomic_fetch_add(&chunks, 1) == 6) atomic_store(&is_held, false);
  }
}

/* The caller does seven of eight chunks while the other thread is held up in one, or all while it sleeps. */
static void check_help(void) {
  pthread_t self = pthread_self();
  atomic_store(&chunks, 0);
  atomic_store(&is_held, true);
  sesame_parallel_for(pool, 8, hold, &self);
  CHECK(atomic_load(&chunks) >= 7);
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 1;
  static const int64_t counts[] = {-1, 0, 1, 2, 3, 4, 5, 7, 63, 1000, 99999, MOST};
  for (int threads = 1; threads <= 4; threads++) {
    for (int restart = 0; restart < 3; restart++) {
      size_t bytes = sesame_pool_bytes(threads);
      CHECK(bytes > 0 && bytes + 8 <= sizeof storage);
      CHECK(sesame_pool_start(storage + restart, bytes, threads, &pool) == SESAME_POOL_OK);
      CHECK(sesame_pool_threads(pool) == threads);
      for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check(counts[i], threads);
      for (int i = 0; i < rounds; i++) sesame_parallel_for(pool, threads, touch, touched);
      nanosleep(&(struct timespec){0, 5000000}, NULL); /* long enough for the workers to fall asleep */
      check(1000, threads);
      if (threads == 2) check_help();
      atomic_store(&chunks, 0);
      for (int64_t i = 0; i < MOST; i++) touched[i] = 0;
      sesame_parallel_for(pool, 50, nested, touched);
      for (int64_t i = 0; i < MOST; i++) CHECK(touched[i] == (i < 500));
      callers_at_once();
      sesame_pool_stop(pool);
    }
  }
  pool = NULL;
  check(1000, 1);
  sesame_pool_stop(NULL);
  CHECK(sesame_pool_threads(NULL) == 1);
  CHECK(sesame_pool_bytes(0) == 0 && sesame_pool_bytes(-1) == 0 && sesame_pool_bytes(1 << 30) == 0);
  CHECK(sesame_pool_start(NULL, 1 << 16, 2, &pool) == SESAME_POOL_BAD_ARGUMENT && pool == NULL);
  CHECK(sesame_pool_start(storage, sizeof storage, 0, &pool) == SESAME_POOL_BAD_ARGUMENT);
  CHECK(sesame_pool_start(storage, sesame_pool_bytes(2) - 1, 2, &pool) == SESAME_POOL_TOO_SMALL);
  CHECK(sesame_pool_start(storage, sizeof storage, 2, NULL) == SESAME_POOL_BAD_ARGUMENT);
  puts("ok");
  return 0;
}
"""


def build_pool_program(folder: Path, kind: str, sanitize: tuple[str, ...] = ()) -> Path:
    program = folder / "pool.c"
    program.write_text("#define _POSIX_C_SOURCE 200809L\n" + POOL_PROGRAM)
    sources = [program, toolchain.RUNTIME_DIR / "sesame_pool.c"]
    compiler = toolchain.find_compiler(kind)
    return toolchain.build_executable(
        sources, folder / "pool", compiler, include=[toolchain.RUNTIME_DIR], sanitize=sanitize, opt="-O2"
    ).output


def run(program: Path, *arguments: str, core: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program, on one core only if `core` names it."""
    bind = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=120, check=False, preexec_fn=bind
    )


@pytest.mark.parametrize("kind", ["gcc", "zig"])
def test_pool_does_all_the_work_once(tmp_path: Path, kind: str) -> None:
    done = run(build_pool_program(tmp_path, kind), "5000")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("sanitize", [("thread",), ("address", "undefined")])
def test_pool_under_sanitizers(tmp_path: Path, sanitize: tuple[str, ...]) -> None:
    program, setarch = build_pool_program(tmp_path, "gcc", sanitize), shutil.which("setarch")
    done = run(program, "200")
    if "unexpected memory mapping" in done.stderr and setarch is not None:  # addresses too random for thread sanitizers
        done = run(Path(setarch), "-R", str(program), "200")
    if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
        pytest.skip("this kernel's address layout does not suit the thread sanitizer, and may not be changed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_pool_does_not_stall_on_one_core(tmp_path: Path) -> None:
    """Four threads share one core: each fork-join must give the core up rather than spin out a time slice.

    60,000 fork-joins of up to four threads. A spinning wait costs a scheduler slice (milliseconds) each: minutes in
    all, beyond the time limit of the run.
    """
    program = build_pool_program(tmp_path, "gcc")
    core = min(os.sched_getaffinity(0))
    done = run(program, "5000", core=core)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_pool_without_threads(tmp_path: Path) -> None:
    program = tmp_path / "serial.c"
    program.write_text(
        '#include "sesame_pool.h"\n'
        "static void add(void *sum, int64_t a, int64_t b) { for (; a < b; a++) *(int64_t *)sum += a; }\n"
        "int main(void) {\n"
        "  unsigned char storage[64]; sesame_pool *pool; int64_t sum = 0;\n"
        "  if (sesame_pool_start(storage, sizeof storage, 2, &pool) != SESAME_POOL_NO_THREAD || pool) return 1;\n"
        "  if (sesame_pool_start(storage + 1, 63, 1, &pool) != SESAME_POOL_OK) return 2;\n"
        "  sesame_parallel_for(pool, 10, add, &sum);\n"
        "  sesame_parallel_for(NULL, 10, add, &sum);\n"
        "  sesame_pool_stop(pool);\n"
        "  return sum == 90 && sesame_pool_threads(pool) == 1 ? 0 : 3;\n}\n"
    )
    sources = [program, toolchain.RUNTIME_DIR / "sesame_pool.c"]
    built = toolchain.build_executable(
        sources, tmp_path / "serial", toolchain.find_compiler(), include=[toolchain.RUNTIME_DIR],
        defines=("SESAME_NO_THREADS",), sanitize=("address", "undefined"),
    )  # fmt: skip
    assert run(built.output).returncode == 0
