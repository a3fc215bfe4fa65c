"""The mathematics of deterministic code: the same bits from every build, close to what is exact."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.c import toolchain
from tests.backends.test_c_runtime import STRICT

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero|underflow):RuntimeWarning")

BUILDS = {  # compiler, processor, optimisation; contraction is asked for, and must not happen
    "gcc-plain": ("gcc", None, "-O0"),
    "gcc-native": ("gcc", "native", "-O3"),
    "gcc-fma": ("gcc", "x86-64-v3", "-O2"),
    "zig-plain": ("zig", None, "-O0"),
    "zig-native": ("zig", "native", "-O3"),
}
WIDE = np.longdouble
ERF = np.vectorize(math.erf, otypes=[np.float64])
ONE: dict[str, tuple[Callable[[Any], Any], float]] = {  # the exact function, and the header's stated error, rounded up
    "exp": (np.exp, 1.0), "expm1": (np.expm1, 2.0), "log": (np.log, 1.0), "log1p": (np.log1p, 2.0),
    "sin": (np.sin, 0.9), "cos": (np.cos, 0.9), "tan": (np.tan, 2.5), "asin": (np.arcsin, 2.5),
    "acos": (np.arccos, 2.5), "atan": (np.arctan, 1.7), "sinh": (np.sinh, 2.5), "cosh": (np.cosh, 2.0),
    "tanh": (np.tanh, 2.5), "asinh": (np.arcsinh, 2.5), "acosh": (np.arccosh, 2.5), "atanh": (np.arctanh, 2.2),
    "erf": (ERF, 4.0),  # one unit of which is the reference's
}  # fmt: skip
TWO: dict[str, tuple[Callable[[Any, Any], Any], float]] = {"pow": (np.power, 1.0), "atan2": (np.arctan2, 2.0)}
OF_FLOAT = [name for name in (*ONE, *TWO) if name not in ("exp", "log", "sin", "cos", "tanh", "erf")]
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1e308]


def source() -> str:
    """C that applies each function to arrays: `map_<name>(x, y, z, n)`; those of one argument do not read y."""
    lines = ["#define SESAME_DETERMINISTIC 1", '#include "sesame_scalar.h"']
    for name in (*ONE, *TWO, *(f"{name}f" for name in OF_FLOAT)):
        kind = "float" if name.removesuffix("f") in OF_FLOAT and name.endswith("f") else "double"
        argument = "x[i], y[i]" if name.removesuffix("f") in TWO else "x[i]"
        head = f"void map_{name}(const {kind} *x, const {kind} *y, {kind} *z, int64_t n)"
        body = f"(void)y; for (int64_t i = 0; i < n; i++) z[i] = sesame_{name}({argument});"
        lines.append(f"{head};\n{head} {{ {body} }}")
    head = "void map_contraction(const double *x, const double *y, double *z, int64_t n)"
    lines.append(f"{head};\n{head} {{ for (int64_t i = 0; i < n; i++) z[i] = x[i] * y[i] - 1.0; }}")
    return "\n".join(lines) + "\n"


class Library:
    """The functions of one build, called with arrays."""

    def __init__(self, folder: Path, build: str) -> None:
        compiler, march, opt = BUILDS[build]
        path = folder / "maps.c"
        path.write_text(source())
        contract = "fast" if compiler == "gcc" else "on"  # with "fast", Clang disregards what the code says
        made = toolchain.build_shared(
            [path], folder / "maps.so", toolchain.find_compiler(compiler), include=[toolchain.RUNTIME_DIR],
            flags=STRICT, march=march, opt=opt, fp_contract=contract, use_cache=False,
        )  # fmt: skip
        self.library = ctypes.CDLL(str(made.output))

    def __call__(self, name: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        z = np.empty_like(x)
        arrays = [ctypes.c_void_p(a.ctypes.data) for a in (x, x if y is None else y, z)]
        getattr(self.library, f"map_{name}")(*arrays, ctypes.c_int64(x.size))
        return z


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Library]:
    return {build: Library(tmp_path_factory.mktemp(build), build) for build in BUILDS}


def numbers() -> np.ndarray:
    """Doubles of every exponent and of the ranges in which functions are not constant."""
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 1 << 64, 40_000, dtype=np.uint64).view(np.float64)
    ranges = [rng.uniform(-limit, limit, 30_000) for limit in (1e-6, 0.5, 1.0, 3.0, 6.0, 40.0, 750.0, 1e6)]
    near_one = 1.0 + np.ldexp(rng.uniform(-1, 1, 10_000), rng.integers(-50, -1, 10_000))
    quarters = np.rint(rng.uniform(0, 1e6, 10_000)) * (math.pi / 2)
    return np.concatenate([patterns, *ranges, near_one, quarters, SPECIAL])


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Arguments of functions of two: those of one by others, powers near to 1, and every pair of special values."""
    x = numbers()
    rng = np.random.default_rng(8)
    close = np.abs(1.0 + np.ldexp(rng.uniform(-1, 1, 30_000), rng.integers(-30, 8, 30_000)))
    powers = rng.uniform(-700, 700, 30_000) / np.where(close == 1, 1, np.log(close))
    whole, by = np.rint(rng.uniform(-30, 30, 5_000)), np.rint(rng.uniform(-30, 30, 5_000))
    special = np.array([*SPECIAL, 2.0, -2.0, 3.0, 0.5])
    first, second = np.meshgrid(special, special)
    xs = [x, close, whole, first.ravel()]
    return np.concatenate(xs), np.concatenate([rng.permutation(x), powers, by, second.ravel()])


def arguments(name: str, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = pairs() if name.removesuffix("f") in TWO else (numbers(), numbers())
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("name", [*ONE, *TWO, *(f"{name}f" for name in OF_FLOAT), "contraction"])
def test_every_build_gives_the_same_bits(libraries: dict[str, Library], name: str) -> None:
    dtype = np.float32 if name.removesuffix("f") in OF_FLOAT and name.endswith("f") else np.float64
    x, y = arguments(name, dtype)
    expected = libraries["gcc-plain"](name, x, y)
    if name == "contraction":
        np.testing.assert_array_equal(expected, x * y - 1.0)
    for build, library in libraries.items():
        result = library(name, x, y)
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(result), ~known, err_msg=build)
        bits = np.uint32 if dtype == np.float32 else np.uint64
        np.testing.assert_array_equal(result[known].view(bits), expected[known].view(bits), err_msg=build)


@pytest.mark.skipif(
    np.finfo(WIDE).nmant <= 60, reason="long double is no wider than double here: nothing to compare with"
)
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_results_are_accurate(libraries: dict[str, Library], name: str) -> None:
    """The tolerances are the header's stated errors, rounded up; denormal results may be half a unit farther."""
    x, y = arguments(name, np.float64)
    function, tolerance = {**ONE, **TWO}[name]
    wide = (x,) if name == "erf" else (x.astype(WIDE), y.astype(WIDE)) if name in TWO else (x.astype(WIDE),)
    exact = function(*wide)
    result, rounded = libraries["gcc-native"](name, x, y), exact.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rounded))
    infinite = np.isinf(rounded)
    near = np.abs(rounded) >= 1.7976931348623e308  # the greatest numbers may round to infinity
    np.testing.assert_array_equal(np.isinf(result) | near, infinite | near)
    compared = np.isfinite(rounded) & np.isfinite(result)
    place = np.ldexp(WIDE(1), np.maximum(np.frexp(np.abs(exact[compared]))[1] - 53, -1074))
    error = np.abs(result[compared] - exact[compared]) / place
    worst = int(np.argmax(error))
    assert error[worst] <= tolerance, (x[compared][worst], y[compared][worst], float(error[worst]))
    known = ~np.isnan(result)
    np.testing.assert_array_equal(np.signbit(result[known]), np.signbit(rounded[known]))


@pytest.mark.parametrize("name", [name for name in OF_FLOAT if name != "expm1"])
def test_floats_are_rounded_doubles(libraries: dict[str, Library], name: str) -> None:
    x, y = arguments(name, np.float32)
    result = libraries["gcc-native"](f"{name}f", x, y)
    wanted = libraries["gcc-native"](name, x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(result, wanted)


def test_powers_of_whole_numbers_are_exact_where_they_fit(libraries: dict[str, Library]) -> None:
    """They need not be, by the error that is stated; those of floats are, since they are rounded from double."""
    x, y = np.meshgrid(np.arange(-12.0, 13.0), np.arange(0.0, 7.0))
    result = libraries["gcc-native"]("powf", x.ravel().astype(np.float32), y.ravel().astype(np.float32))
    np.testing.assert_array_equal(result, (x**y).ravel().astype(np.float32))
