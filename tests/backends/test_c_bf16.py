"""Products of bf16 in C: every form of them gives the bits that the documented meaning says, denormals and NaN too."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from backends.c import toolchain
from backends.c.expressions import Text
from backends.c.scalars import stored
from ir import types as t

STRICT = ("-Werror", "-Wconversion", "-Wshadow")
COUNT = 1 << 16
FORMS = [  # compiler, -march=, further flags, bits of the vectors
    *(("gcc", "native", (), bits) for bits in (128, 256, 512)),
    ("gcc", "native", ("-mno-avx512bf16",), 512),
    *(("gcc", "x86-64-v3", (), bits) for bits in (128, 256)),
    *(("gcc", None, (), bits) for bits in (128,)),
    *(("zig", "native", (), bits) for bits in (128, 256, 512)),
    *(("zig", "x86_64_v3", (), bits) for bits in (128, 256, 512)),
    ("zig", None, (), 128),
]
"""With the instruction, with fused multiply-adds, and with neither; in vectors wider than the machine's, too."""

Operands = tuple[np.ndarray, np.ndarray, np.ndarray]


def source(bits: int) -> str:
    """C that adds two products to each of an array of sums: `dots(sums, x, w, n)`."""
    lanes = bits // 32
    return f"""#include "sesame_vector.h"
SESAME_VECTOR(f32x{lanes}, float, {bits // 8})
SESAME_VECTOR(i32x{lanes}, int32_t, {bits // 8})
SESAME_VECTOR(bf16x{2 * lanes}, uint16_t, {bits // 8})
SESAME_VECTOR_DOT2_{bits}(f32x{lanes}, i32x{lanes}, bf16x{2 * lanes})
void dots(float *sums, const int32_t *x, const uint16_t *w, int64_t n);
void dots(float *sums, const int32_t *x, const uint16_t *w, int64_t n) {{
  for (int64_t i = 0; i < n; i += {lanes}) {{
    const f32x{lanes} sum = SESAME_LOAD(f32x{lanes}, &sums[i]);
    const i32x{lanes} words = SESAME_LOAD(i32x{lanes}, &x[i]);
    const bf16x{2 * lanes} others = SESAME_LOAD(bf16x{2 * lanes}, &w[2 * i]);
    SESAME_STORE(f32x{lanes}, &sums[i], sesame_dot2_f32x{lanes}(sum, words, others));
  }}
}}
"""


def cases() -> Iterator[Operands]:
    """Bits of sums, and of pairs of operands: any, of a few exponents, near the least normal number, and near it from
    below after rounding."""
    rng = np.random.default_rng(2)

    def any_bits() -> np.ndarray:
        return rng.integers(0, 1 << 32, COUNT, dtype=np.uint64).astype(np.uint32)

    def of(low: int, high: int) -> np.ndarray:
        return any_bits() & np.uint32(0x807FFFFF) | rng.integers(low, high, COUNT).astype(np.uint32) << np.uint32(23)

    def pairs(low: int, high: int) -> np.ndarray:
        return of(low, high) >> np.uint32(16) | of(low, high) & np.uint32(0xFFFF0000)

    yield any_bits(), any_bits(), any_bits()
    yield of(120, 134), pairs(120, 134), pairs(120, 134)
    yield of(0, 3), pairs(50, 64), pairs(62, 70)
    yield of(0, 30), pairs(0, 127), pairs(0, 127)
    yield of(0, 2), pairs(0, 4), pairs(120, 135)
    yield of(230, 256), pairs(120, 256), pairs(120, 256)
    least = np.full(COUNT, 0x00800000, np.uint32) | any_bits() & np.uint32(0x80000000)
    first = rng.integers(40, 64, COUNT)
    second = 254 - first - 150 + rng.integers(-4, 5, COUNT)  # products about 2^-150
    tiny = (first << 7).astype(np.uint32) | any_bits() & np.uint32(0x807F), (second << 7).astype(np.uint32)
    yield least, *tiny
    yield least, *(operand << np.uint32(16) for operand in tiny)


def built(source: str, folder: Path, compiler: str, march: str | None, flags: tuple[str, ...]) -> ctypes.CDLL:
    """A library of C code, compiled without warnings."""
    file = folder / "code.c"
    file.write_text(source)
    made = toolchain.build_shared(
        [file], folder / "code.so", toolchain.find_compiler(compiler), include=[toolchain.RUNTIME_DIR],
        flags=(*STRICT, *flags), march=march, use_cache=False,
    )  # fmt: skip
    return ctypes.CDLL(str(made.output))


def run(operands: Operands, compiler: str, march: str | None, flags: tuple[str, ...], bits: int, folder: Path):
    """The bits that a form gives, NaN as one of them."""
    library = built(source(bits), folder, compiler, march, flags)
    found = []
    for sums, x, w in operands:
        result = sums.copy()
        library.dots(*(ctypes.c_void_p(a.ctypes.data) for a in (result, x, w)), ctypes.c_int64(COUNT))
        found.append(plain(result))
    return found


def plain(bits: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(bits.view(np.float32)), np.uint32(0x7FC00000), bits)


def add_product(total: np.float32, x: np.float32, w: np.float32) -> np.float32:
    """The documented meaning of one addition, by exact arithmetic."""
    least = np.float32(2.0**-126)
    total, x, w = (v * np.float32(0) if abs(v) < least else v for v in (total, x, w))
    if not all(np.isfinite(v) for v in (total, x, w)):
        return np.float32(np.float64(total) + np.float64(x) * np.float64(w))
    exact = Fraction(float(total)) + Fraction(float(x)) * Fraction(float(w))
    if exact == 0:
        return np.float32(np.float64(total) + np.float64(x) * np.float64(w))  # the sign of zeros
    scale = exact.numerator.bit_length() - exact.denominator.bit_length()
    unit = Fraction(2) ** (scale - (abs(exact) < Fraction(2) ** scale) - 23)
    digits = round(exact / unit)  # ties to even
    if abs(digits * unit) < Fraction(2) ** -126:
        return np.float32(np.copysign(0.0, float(exact)))
    if abs(digits * unit) >= Fraction(2) ** 128:
        return np.float32(np.copysign(np.inf, float(exact)))
    return np.float32(float(digits * unit))


def wanted(operands: Operands, at: slice) -> np.ndarray:
    """The bits of the documented meaning, for some of the operands."""
    found = []
    for sums, x, w in zip(*(a[at] for a in operands)):
        with np.errstate(all="ignore"):
            values = [
                np.array([v & 0xFFFF0000, v << 16 & 0xFFFFFFFF], np.uint32).view(np.float32) for v in map(int, (x, w))
            ]
            total = np.array([sums], np.uint32).view(np.float32)[0]
            for odd_then_even in zip(*values):
                total = add_product(total, *odd_then_even)
        found.append(np.float32(total).view(np.uint32))
    return plain(np.array(found, np.uint32))


@pytest.fixture(scope="module")
def operands() -> list[Operands]:
    return list(cases())


@pytest.fixture(scope="module")
def plainest(operands: list[Operands], tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """What the form for any processor gives."""
    return run(operands, "gcc", None, (), 256, tmp_path_factory.mktemp("plain"))


def test_the_form_for_any_processor_does_what_is_documented(
    operands: list[Operands], plainest: list[np.ndarray]
) -> None:
    for n, (given, made) in enumerate(zip(operands, plainest)):
        assert np.array_equal(made[:1500], wanted(given, slice(1500))), n
    assert all(len(np.unique(made)) > 1000 or n > 5 for n, made in enumerate(plainest))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_all_forms_give_the_same_bits(
    tmp_path: Path, form: tuple[str, str | None, tuple[str, ...], int], operands: list[Operands],
    plainest: list[np.ndarray],
) -> None:  # fmt: skip
    for n, (made, other) in enumerate(zip(run(operands, *form, tmp_path), plainest)):
        assert np.array_equal(made, other), (n, np.flatnonzero(made != other)[:3])


CONVERSIONS = """#include "sesame_vector.h"
SESAME_VECTOR(f32x8, float, 32)
SESAME_VECTOR(bf16x8, uint16_t, 16)
SESAME_VECTOR_BF16(f32x8, bf16x8)
void convert(const float *x, uint16_t *lanes, uint16_t *each, float *back, int64_t n);
void convert(const float *x, uint16_t *lanes, uint16_t *each, float *back, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    SESAME_STORE(bf16x8, &lanes[i], sesame_rounded_bf16x8(SESAME_LOAD(f32x8, &x[i])));
    SESAME_STORE(f32x8, &back[i], sesame_widened_bf16x8(SESAME_LOAD(bf16x8, &lanes[i])));
    for (int64_t j = i; j < i + 8; j++) each[j] = sesame_f32_to_bf16(x[j]);
  }
}
"""


@pytest.mark.parametrize(("compiler", "march"), [("gcc", "native"), ("gcc", None), ("zig", "native")])
def test_vectors_are_rounded_as_elements_are(tmp_path: Path, compiler: str, march: str | None) -> None:
    library = built(CONVERSIONS, tmp_path, compiler, march, ())
    special = np.array([0, 1, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7F7FFFFF, 0x7F7F8000], np.uint32)
    bits = np.concatenate([np.arange(0, 1 << 32, 16381, dtype=np.uint64).astype(np.uint32), special])
    bits = np.concatenate([bits, bits ^ np.uint32(0x80000000)])
    x = bits[: bits.size // 8 * 8].view(np.float32)
    lanes, each, back = np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16), np.zeros(x.size, np.float32)
    library.convert(*(ctypes.c_void_p(a.ctypes.data) for a in (x, lanes, each, back)), ctypes.c_int64(x.size))
    assert np.array_equal(lanes, each)
    assert np.array_equal(back.view(np.uint32), each.astype(np.uint32) << np.uint32(16))


def test_bits_that_were_read_are_stored_as_they_are() -> None:
    assert stored(t.bf16, Text("sesame_bf16_to_f32(x[i])")) == "x[i]"
    assert stored(t.bf16, Text("sesame_f16_to_f32(x[i])")) == "sesame_f32_to_bf16(sesame_f16_to_f32(x[i]))"
