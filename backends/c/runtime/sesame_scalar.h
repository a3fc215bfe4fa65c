/* Scalar functions of generated code, one per element type: sesame_<function>_<type>.
 *
 * Integer arithmetic wraps around, division by zero gives zero, shifts take any count; floating-point minimum and
 * maximum pass NaN on. All are static inline, pure, and short enough for loops of calls to become vector code.
 */
#ifndef SESAME_SCALAR_H
#define SESAME_SCALAR_H

#include <stdbool.h>

/* What would drive the sums of a tile out of registers: what one iteration loads kept for the next one, and addresses
 * and other invariants of loops kept where they are not used. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-predictive-commoning", "ira-region=all", "ira-loop-pressure")
#endif

/* Deterministic code rounds every operation by itself, whatever a compiler is told: where it could not be held to that,
 * it does not compile. */
#if defined(SESAME_DETERMINISTIC)
#if defined(__FAST_MATH__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0)
#error "deterministic code needs the arithmetic of IEEE-754: no -ffast-math, no wider registers"
#endif
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
#endif

#include "sesame_math.h"
#if defined(SESAME_DETERMINISTIC)
#include "sesame_exact.h"
#define SESAME_EXP sesame_exp
#else
#define SESAME_EXP exp
#endif

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wbitwise-instead-of-logical" /* both sides are evaluated, which vector code needs */
#define SESAME_UNROLL(n) _Pragma("clang loop unroll(full)")
#define SESAME_LANES _Pragma("clang loop vectorize(assume_safety)") /* iterations do not depend on each other */
#elif defined(__GNUC__)
#define SESAME_PRAGMA(text) _Pragma(#text)
#define SESAME_UNROLL(n) SESAME_PRAGMA(GCC unroll n)
#define SESAME_LANES SESAME_PRAGMA(GCC ivdep)
#else
#define SESAME_UNROLL(n)
#define SESAME_LANES
#endif

/* Whether an index that comes from data lies within [0, size); notes in *invalid that one did not. */
static inline bool sesame_index_is_valid(int64_t index, int64_t size, int *invalid) {
  if (index >= 0 && index < size) return true;
  __atomic_store_n(invalid, 1, __ATOMIC_RELAXED);
  return false;
}

/* ------------------------------------------------------------------ integers of any type */

/* WIDE is the unsigned type in which the arithmetic is done: it wraps around, where a signed type would overflow. */
#define SESAME_INTEGER(T, INT, WIDE, BITS)                                                                   \
  static inline INT sesame_add_##T(INT a, INT b) { return (INT)((WIDE)a + (WIDE)b); }                        \
  static inline INT sesame_sub_##T(INT a, INT b) { return (INT)((WIDE)a - (WIDE)b); }                        \
  static inline INT sesame_mul_##T(INT a, INT b) { return (INT)((WIDE)a * (WIDE)b); }                        \
  static inline INT sesame_neg_##T(INT a) { return (INT)((WIDE)0 - (WIDE)a); }                               \
  static inline INT sesame_and_##T(INT a, INT b) { return (INT)(a & b); }                                    \
  static inline INT sesame_or_##T(INT a, INT b) { return (INT)(a | b); }                                     \
  static inline INT sesame_xor_##T(INT a, INT b) { return (INT)(a ^ b); }                                    \
  static inline INT sesame_not_##T(INT a) { return (INT)~a; }                                                \
  static inline INT sesame_min_##T(INT a, INT b) { return b < a ? b : a; }                                   \
  static inline INT sesame_max_##T(INT a, INT b) { return b > a ? b : a; }                                   \
  static inline INT sesame_shl_##T(INT a, INT b) {                                                           \
    return (INT)((uint64_t)b < BITS ? (WIDE)a << ((uint64_t)b & (BITS - 1)) : 0);                            \
  }

#define SESAME_SIGNED(T, INT, WIDE)                                                                          \
  static inline INT sesame_abs_##T(INT a) { return a < 0 ? sesame_neg_##T(a) : a; }                          \
  static inline INT sesame_sign_##T(INT a) { return (INT)((a > 0) - (a < 0)); }                              \
  /* Beyond the width, and for a negative amount, copies of the sign are left. */                            \
  static inline INT sesame_shr_##T(INT a, INT b) {                                                           \
    const uint64_t last = 8u * sizeof(INT) - 1u;                                                             \
    return (INT)(a >> ((uint64_t)b < last ? (uint64_t)b : last));                                            \
  }                                                                                                          \
  /* a to the power b; a negative power is the reciprocal rounded towards zero. */                           \
  static inline INT sesame_pow_##T(INT a, INT b) {                                                           \
    if (b < 0) return (INT)(a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0);                                  \
    WIDE result = 1, base = (WIDE)a;                                                                         \
    for (; b > 0; b = (INT)(b >> 1), base *= base) result *= (b & 1) ? base : 1;                             \
    return (INT)result;                                                                                      \
  }

#define SESAME_UNSIGNED(T, INT, WIDE)                                                                        \
  static inline INT sesame_abs_##T(INT a) { return a; }                                                      \
  static inline INT sesame_sign_##T(INT a) { return (INT)(a > 0); }                                          \
  static inline INT sesame_shr_##T(INT a, INT b) {                                                           \
    const uint64_t width = 8u * sizeof(INT);                                                                 \
    return (INT)((uint64_t)b < width ? a >> ((uint64_t)b & (width - 1u)) : 0);                               \
  }                                                                                                          \
  static inline INT sesame_pow_##T(INT a, INT b) {                                                           \
    WIDE result = 1, base = (WIDE)a;                                                                         \
    for (; b > 0; b = (INT)(b >> 1), base *= base) result *= (b & 1) ? base : 1;                             \
    return (INT)result;                                                                                      \
  }

SESAME_INTEGER(i8, int8_t, uint32_t, 8u)
SESAME_INTEGER(i16, int16_t, uint32_t, 16u)
SESAME_INTEGER(i32, int32_t, uint32_t, 32u)
SESAME_INTEGER(i64, int64_t, uint64_t, 64u)
SESAME_INTEGER(u8, uint8_t, uint32_t, 8u)
SESAME_INTEGER(u16, uint16_t, uint32_t, 16u)
SESAME_INTEGER(u32, uint32_t, uint32_t, 32u)
SESAME_INTEGER(u64, uint64_t, uint64_t, 64u)
SESAME_SIGNED(i8, int8_t, uint32_t)
SESAME_SIGNED(i16, int16_t, uint32_t)
SESAME_SIGNED(i32, int32_t, uint32_t)
SESAME_SIGNED(i64, int64_t, uint64_t)
SESAME_UNSIGNED(u8, uint8_t, uint32_t)
SESAME_UNSIGNED(u16, uint16_t, uint32_t)
SESAME_UNSIGNED(u32, uint32_t, uint32_t)
SESAME_UNSIGNED(u64, uint64_t, uint64_t)

/* Division: by zero gives zero, the least integer by -1 gives itself. `div` and `rem` round towards zero, `floordiv` and
 * `mod` towards minus infinity. The i64 forms are in sesame_math.h. */
#define SESAME_SIGNED_DIVISION(T, INT)                                                                       \
  static inline INT sesame_div_##T(INT a, INT b) {                                                           \
    return b == 0 ? (INT)0 : b == -1 ? sesame_neg_##T(a) : (INT)(a / b);                                     \
  }                                                                                                          \
  static inline INT sesame_rem_##T(INT a, INT b) { return b == 0 || b == -1 ? (INT)0 : (INT)(a % b); }       \
  static inline INT sesame_floordiv_##T(INT a, INT b) {                                                      \
    INT r = sesame_rem_##T(a, b);                                                                            \
    return (INT)(sesame_div_##T(a, b) - (r != 0 && (r < 0) != (b < 0)));                                     \
  }                                                                                                          \
  static inline INT sesame_mod_##T(INT a, INT b) {                                                           \
    INT r = sesame_rem_##T(a, b);                                                                            \
    return (INT)(r != 0 && (r < 0) != (b < 0) ? r + b : r);                                                  \
  }

#define SESAME_UNSIGNED_DIVISION(T, INT)                                                                     \
  static inline INT sesame_floordiv_##T(INT a, INT b) { return b == 0 ? (INT)0 : (INT)(a / b); }             \
  static inline INT sesame_rem_##T(INT a, INT b) { return b == 0 ? (INT)0 : (INT)(a % b); }

SESAME_SIGNED_DIVISION(i8, int8_t)
SESAME_SIGNED_DIVISION(i16, int16_t)
SESAME_SIGNED_DIVISION(i32, int32_t)
SESAME_UNSIGNED_DIVISION(u8, uint8_t)
SESAME_UNSIGNED_DIVISION(u16, uint16_t)
SESAME_UNSIGNED_DIVISION(u32, uint32_t)
SESAME_UNSIGNED_DIVISION(u64, uint64_t)

/* The low bits of a byte as an integer of four or two bits, sign extended where the type is signed. */
static inline int8_t sesame_wrap_i4(int x) { return (int8_t)(((x & 15) ^ 8) - 8); }
static inline int8_t sesame_wrap_i2(int x) { return (int8_t)(((x & 3) ^ 2) - 2); }
static inline uint8_t sesame_wrap_u4(int x) { return (uint8_t)(x & 15); }
static inline uint8_t sesame_wrap_u2(int x) { return (uint8_t)(x & 3); }

/* ------------------------------------------------------------------ floats */

/* `at_least` and `at_most` are maximum and minimum with a bound that is not NaN. `mod` and `floordiv` round towards minus
 * infinity, as Python does. `sign` of NaN is NaN. */
#define SESAME_FLOAT(T, FLOAT, SUFFIX)                                                                       \
  static inline FLOAT sesame_at_least_##T(FLOAT x, FLOAT low) { return x < low ? low : x; }                  \
  static inline FLOAT sesame_at_most_##T(FLOAT x, FLOAT high) { return x > high ? high : x; }                \
  static inline FLOAT sesame_max_##T(FLOAT a, FLOAT b) { return ((a > b) | (a != a)) ? a : b; }              \
  static inline FLOAT sesame_min_##T(FLOAT a, FLOAT b) { return ((a < b) | (a != a)) ? a : b; }              \
  static inline FLOAT sesame_sign_##T(FLOAT x) { return x > 0 ? (FLOAT)1 : x < 0 ? (FLOAT)-1 : x + 0; }      \
  static inline bool sesame_isnan_##T(FLOAT x) { return x != x; }                                            \
  static inline bool sesame_isinf_##T(FLOAT x) { return fabs##SUFFIX(x) == (FLOAT)INFINITY; }                \
  static inline FLOAT sesame_mod_##T(FLOAT a, FLOAT b) {                                                     \
    FLOAT r = fmod##SUFFIX(a, b);                                                                            \
    if (r == 0) return copysign##SUFFIX((FLOAT)0, b);                                                        \
    return (r < 0) != (b < 0) ? r + b : r;                                                                   \
  }                                                                                                          \
  static inline FLOAT sesame_floordiv_##T(FLOAT a, FLOAT b) {                                                \
    if (b == 0) return a / b;                                                                                \
    FLOAT r = fmod##SUFFIX(a, b);                                                                            \
    FLOAT quotient = (a - r) / b;                                                                            \
    if (r != 0 && (r < 0) != (b < 0)) quotient -= 1;                                                         \
    if (quotient == 0) return copysign##SUFFIX((FLOAT)0, a / b);                                             \
    FLOAT whole = floor##SUFFIX(quotient);                                                                   \
    return quotient - whole > (FLOAT)0.5 ? whole + 1 : whole;                                                \
  }

SESAME_FLOAT(f32, float, f)
SESAME_FLOAT(f64, double, )

static inline double sesame_sigmoid_f64(double x) {
  double e = SESAME_EXP(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

/* x rounded towards zero and clamped to the integers low to high, NaN to 0: what becomes of a float that is converted to a
 * small integer and back, in float all the way. */
static inline float sesame_integer_f32(float x, float low, float high) {
  x = x == x ? x : 0.0f;
  x = x < low ? low : x;
  return truncf(x > high ? high : x);
}

/* A float rounded to what a narrow format holds. */
static inline float sesame_round_f16(float x) { return sesame_f16_to_f32(sesame_f32_to_f16(x)); }
static inline float sesame_round_bf16(float x) { return sesame_bf16_to_f32(sesame_f32_to_bf16(x)); }

#endif
