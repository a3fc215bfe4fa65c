/* Mathematics of f32 vectors: the functions of sesame_math.h, all lanes at once.
 *
 * The same reductions and polynomials as there; the ranges, errors and special values noted there hold here too.
 * Processors with instructions for 2^n times x, for square roots and for rounding use them.
 */
#ifndef SESAME_VECTOR_MATH_H
#define SESAME_VECTOR_MATH_H

#include "sesame_math.h"
#include "sesame_vector.h"

/* For each lane, a scalar function: what processors without an instruction do. */
#define SESAME_EACH_LANE(V, NAME, FUNCTION)                                                       \
  static inline V sesame_##NAME##_##V(V x) {                                                      \
    for (unsigned lane = 0; lane < sizeof(V) / sizeof(float); lane++) x[lane] = FUNCTION(x[lane]); \
    return x;                                                                                     \
  }
#define SESAME_ROUNDING_EACH(V)       \
  SESAME_EACH_LANE(V, round, rintf)   \
  SESAME_EACH_LANE(V, floor, floorf)  \
  SESAME_EACH_LANE(V, ceil, ceilf)    \
  SESAME_EACH_LANE(V, trunc, truncf)

#define SESAME_ONE_INSTRUCTION(V, NAME, INSTRUCTION)    \
  static inline V sesame_##NAME##_##V(V x) {            \
    V y;                                                \
    __asm__(INSTRUCTION : "=v"(y) : "v"(x));            \
    return y;                                           \
  }
#define SESAME_ROUNDING_OF(V, INSTRUCTION)                       \
  SESAME_ONE_INSTRUCTION(V, round, INSTRUCTION " $8, %1, %0")    \
  SESAME_ONE_INSTRUCTION(V, floor, INSTRUCTION " $9, %1, %0")    \
  SESAME_ONE_INSTRUCTION(V, ceil, INSTRUCTION " $10, %1, %0")    \
  SESAME_ONE_INSTRUCTION(V, trunc, INSTRUCTION " $11, %1, %0")

/* x 2^n for integral n, in one instruction, or as a product of two normal factors of which only the last can overflow or
 * round to a denormal. */
#define SESAME_SCALE_OF(V)                                                 \
  static inline V sesame_scale_##V(V x, V n) {                             \
    V y;                                                                   \
    __asm__("vscalefps %2, %1, %0" : "=v"(y) : "v"(x), "v"(n));            \
    return y;                                                              \
  }
#define SESAME_SCALE_PLAIN(V)                                              \
  static inline V sesame_scale_##V(V x, V n) {                             \
    const V half = (n * 0.5f + SESAME_ROUNDER) - SESAME_ROUNDER;           \
    return (x * sesame_pow2_##V(half)) * sesame_pow2_##V(n - half);        \
  }

#define SESAME_UNITS_PLAIN(V) SESAME_SCALE_PLAIN(V) SESAME_ROUNDING_EACH(V) SESAME_EACH_LANE(V, sqrt, sqrtf)
#define SESAME_UNITS_AVX(V, SCALE, ROUND) \
  SCALE(V) SESAME_ROUNDING_OF(V, ROUND) SESAME_ONE_INSTRUCTION(V, sqrt, "vsqrtps %1, %0")

#define SESAME_VECTOR_UNITS_64(V) SESAME_UNITS_PLAIN(V)
#if defined(__AVX512F__)
#define SESAME_VECTOR_UNITS_512(V) SESAME_UNITS_AVX(V, SESAME_SCALE_OF, "vrndscaleps")
#else
#define SESAME_VECTOR_UNITS_512(V) SESAME_UNITS_PLAIN(V)
#endif
#if defined(__AVX512VL__)
#define SESAME_VECTOR_UNITS_256(V) SESAME_UNITS_AVX(V, SESAME_SCALE_OF, "vrndscaleps")
#define SESAME_VECTOR_UNITS_128(V) SESAME_UNITS_AVX(V, SESAME_SCALE_OF, "vrndscaleps")
#elif defined(__AVX__)
#define SESAME_VECTOR_UNITS_256(V) SESAME_UNITS_AVX(V, SESAME_SCALE_PLAIN, "vroundps")
#define SESAME_VECTOR_UNITS_128(V) SESAME_UNITS_AVX(V, SESAME_SCALE_PLAIN, "vroundps")
#else
#define SESAME_VECTOR_UNITS_256(V) SESAME_UNITS_PLAIN(V)
#define SESAME_VECTOR_UNITS_128(V) SESAME_UNITS_PLAIN(V)
#endif

/* All functions of a vector of floats. UNITS is SESAME_VECTOR_UNITS_ of its size. */
#define SESAME_VECTOR_MATH(V, UNITS)                                                                     \
  typedef uint32_t V##_words __attribute__((vector_size(sizeof(V))));                                    \
  typedef int32_t V##_ints __attribute__((vector_size(sizeof(V))));                                      \
  static inline V sesame_abs_##V(V x) { return (V)((V##_words)x & 0x7FFFFFFFu); }                        \
  static inline V sesame_with_sign_##V(V magnitude, V sign) {                                            \
    return (V)(((V##_words)magnitude & 0x7FFFFFFFu) | ((V##_words)sign & 0x80000000u));                  \
  }                                                                                                      \
  /* 2^n for integral -126 <= n <= 127. */                                                               \
  static inline V sesame_pow2_##V(V n) {                                                                 \
    return (V)(((V##_words)(n + SESAME_ROUNDER) - (SESAME_ROUNDER_BITS - 127u)) << 23);                  \
  }                                                                                                      \
  UNITS(V)                                                                                               \
  static inline V sesame_exp_reduced_##V(V x, V *n) {                                                    \
    *n = (x * 1.44269504f + SESAME_ROUNDER) - SESAME_ROUNDER;                                            \
    return (x - *n * 0.693359375f) - *n * -2.12194442e-4f;                                               \
  }                                                                                                      \
  static inline V sesame_exp_tail_##V(V r) {                                                             \
    V q = r * 1.38367142e-3f + 8.36914033e-3f;                                                           \
    q = q * r + 4.16681059e-2f;                                                                          \
    q = q * r + 1.66665167e-1f;                                                                          \
    q = q * r + 4.99999940e-1f;                                                                          \
    return r * r * q;                                                                                    \
  }                                                                                                      \
  static inline V sesame_exp_##V(V x) {                                                                  \
    V n;                                                                                                 \
    x = SESAME_PICK(V, x > 89.0f, SESAME_SPLAT(V, 89.0f), x);                                            \
    x = SESAME_PICK(V, x < -104.0f, SESAME_SPLAT(V, -104.0f), x);                                        \
    const V r = sesame_exp_reduced_##V(x, &n);                                                           \
    return sesame_scale_##V(1.0f + (r + sesame_exp_tail_##V(r)), n);                                     \
  }                                                                                                      \
  /* e^x / (1 + e^x): where x is above 88 both are the same float, and below -104 it is 0. */            \
  static inline V sesame_sigmoid_##V(V x) {                                                              \
    V n;                                                                                                 \
    x = SESAME_PICK(V, x > 88.0f, SESAME_SPLAT(V, 88.0f), x);                                            \
    x = SESAME_PICK(V, x < -104.0f, SESAME_SPLAT(V, -104.0f), x);                                        \
    const V r = sesame_exp_reduced_##V(x, &n);                                                           \
    const V e = sesame_scale_##V(1.0f + (r + sesame_exp_tail_##V(r)), n);                                \
    return e / (1.0f + e);                                                                               \
  }                                                                                                      \
  static inline V sesame_tanh_##V(V x) {                                                                 \
    V n, a = sesame_abs_##V(x);                                                                          \
    a = SESAME_PICK(V, a > 10.0f, SESAME_SPLAT(V, 10.0f), a);                                            \
    const V r = sesame_exp_reduced_##V(a + a, &n);                                                       \
    const V scale = sesame_pow2_##V(n);                                                                  \
    const V e = scale * (r + sesame_exp_tail_##V(r)) + (scale - 1.0f);                                   \
    return sesame_with_sign_##V(e / (e + 2.0f), x);                                                      \
  }                                                                                                      \
  static inline V sesame_erf_##V(V x) {                                                                  \
    const V a = sesame_abs_##V(x);                                                                       \
    const V z = a * a;                                                                                   \
    V s = z * -6.02049113e-4f + 4.99892794e-3f;                                                          \
    s = s * z + -2.67704856e-2f;                                                                         \
    s = s * z + 1.12819217e-1f;                                                                          \
    s = s * z + -3.76125038e-1f;                                                                         \
    s = s * z + 1.28379151e-1f;                                                                          \
    const V c = SESAME_PICK(V, a > 4.0f, SESAME_SPLAT(V, 4.0f), a);                                      \
    V n, p = c * 2.00996597e-4f + -3.09229479e-3f;                                                       \
    p = p * c + 2.24202257e-2f;                                                                          \
    p = p * c + -1.04327515e-1f;                                                                         \
    p = p * c + -6.36737227e-1f;                                                                         \
    p = p * c + -1.12793612e0f;                                                                          \
    p = p * c + -1.33574722e-4f;                                                                         \
    const V r = sesame_exp_reduced_##V(p, &n);                                                           \
    const V away = 1.0f - sesame_pow2_##V(n) * (1.0f + (r + sesame_exp_tail_##V(r)));                    \
    return sesame_with_sign_##V(SESAME_PICK(V, a < 0.875f, a + a * s, away), x);                         \
  }                                                                                                      \
  static inline V sesame_log_##V(V x) {                                                                  \
    const __typeof__(x < x) denormal = x < 1.17549435e-38f;                                              \
    const V y = SESAME_PICK(V, denormal, x * 33554432.0f, x);                                            \
    const V##_words u = (V##_words)y - 0x3F2AAAABu;                                                      \
    const V f = (V)((u & 0x007FFFFFu) + 0x3F2AAAABu) - 1.0f;                                             \
    const V bias = SESAME_PICK(V, denormal, SESAME_SPLAT(V, 153.0f), SESAME_SPLAT(V, 128.0f));           \
    const V n = __builtin_convertvector((V##_ints)((u + 0x40000000u) >> 23), V) - bias;                  \
    V q = f * -1.27341524e-1f + 1.40873283e-1f;                                                          \
    q = q * f + -1.22282825e-1f;                                                                         \
    q = q * f + 1.39901266e-1f;                                                                          \
    q = q * f + -1.66766554e-1f;                                                                         \
    q = q * f + 2.00108632e-1f;                                                                          \
    q = q * f + -2.49998987e-1f;                                                                         \
    q = q * f + 3.33332241e-1f;                                                                          \
    const V z = f * f;                                                                                   \
    V value = n * 0.693359375f + (f + ((z * f * q - 0.5f * z) + n * -2.12194442e-4f));                   \
    value = SESAME_PICK(V, x == 0.0f, SESAME_SPLAT(V, -INFINITY), value);                                \
    value = SESAME_PICK(V, x >= 0.0f, value, SESAME_SPLAT(V, NAN));                                      \
    return SESAME_PICK(V, x == INFINITY, x, value);                                                      \
  }                                                                                                      \
  /* x, or 0 where it is not a number. */                                                                \
  static inline V sesame_number_##V(V x) { return SESAME_PICK(V, x == x, x, (V){0}); }                   \
  /* Rounded towards zero and clamped to the integers low to high; NaN is 0. */                          \
  static inline V sesame_integer_##V(V x, float low, float high) {                                       \
    x = sesame_number_##V(x);                                                                            \
    x = SESAME_PICK(V, x < low, SESAME_SPLAT(V, low), x);                                                \
    return sesame_trunc_##V(SESAME_PICK(V, x > high, SESAME_SPLAT(V, high), x));                         \
  }                                                                                                      \
  /* The same as integers of 32 bits: of any x, and of one that is known to lie within the range or to be NaN. */ \
  static inline V##_ints sesame_to_ints_##V(V x, float low, float high) {                                \
    x = sesame_number_##V(x);                                                                            \
    x = SESAME_PICK(V, x < low, SESAME_SPLAT(V, low), x);                                                \
    return __builtin_convertvector(SESAME_PICK(V, x > high, SESAME_SPLAT(V, high), x), V##_ints);        \
  }                                                                                                      \
  static inline V##_ints sesame_known_ints_##V(V x) {                                                    \
    return __builtin_convertvector(sesame_number_##V(x), V##_ints);                                      \
  }

#endif
