/* Scalar mathematics for generated code.
 *
 * Every function is static inline, pure, and free of branches where that lets a compiler turn a loop of calls into
 * vector code (gcc and clang at -O3 -fno-math-errno -fno-trapping-math). Only IEEE-754 single and double arithmetic and
 * integer arithmetic are used, in round-to-nearest-even, so results are the same on every machine when floating-point
 * contraction is off. Infinities, NaN, signed zeros and denormals are honoured: do not compile with -ffast-math.
 *
 * Polynomials: minimax fits by the Remez exchange over the range named beside each, coefficients rounded to float.
 * "max ULP" is the largest error seen over every seventh float against double precision, contraction on or off, in
 * units of the last place of the exact result.
 */
#ifndef SESAME_MATH_H
#define SESAME_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ------------------------------------------------------------------ bits */

static inline uint32_t sesame_bits_f32(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline float sesame_from_bits_f32(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* |magnitude| with the sign bit of `sign`. */
static inline float sesame_with_sign_f32(float magnitude, float sign) {
  return sesame_from_bits_f32((sesame_bits_f32(magnitude) & 0x7FFFFFFFu) | (sesame_bits_f32(sign) & 0x80000000u));
}

/* Adding 1.5 * 2^23 to |x| < 2^22 leaves x rounded to an integer, ties to even, in the low bits of the sum. */
#define SESAME_ROUNDER 12582912.0f
#define SESAME_ROUNDER_BITS 0x4B400000u

/* ------------------------------------------------------------------ exponential and its relatives */

/* The reduction shared by the exponential functions: x = n ln 2 + r, |r| <= ln 2 / 2.
 * ln 2 is split in two, the first part of 10 bits, so that n times it is exact for |n| < 2^14. */
static inline float sesame_exp_reduce(float x, float *r) {
  float n = (x * 1.44269504f + SESAME_ROUNDER) - SESAME_ROUNDER;
  *r = (x - n * 0.693359375f) - n * -2.12194442e-4f;
  return n;
}

/* e^r - 1 - r for |r| <= ln 2 / 2, as r^2 q(r): q of degree 4, relative error of e^r 3.2e-9. */
static inline float sesame_exp_tail(float r) {
  float q = 1.38367142e-3f;
  q = q * r + 8.36914033e-3f;
  q = q * r + 4.16681059e-2f;
  q = q * r + 1.66665167e-1f;
  q = q * r + 4.99999940e-1f;
  return r * r * q;
}

/* 2^n for an integral float n, -126 <= n <= 127; anything at all for other n, NaN included. */
static inline float sesame_pow2(float n) {
  return sesame_from_bits_f32((sesame_bits_f32(n + SESAME_ROUNDER) - SESAME_ROUNDER_BITS + 127u) << 23);
}

/* e^x. Max ULP 1.1 (0.8 of the smallest denormal where the result is one). e^-inf = 0, e^inf = inf, e^NaN = NaN. */
static inline float sesame_expf(float x) {
  x = x > 89.0f ? 89.0f : x;     /* e^89 overflows; NaN passes both comparisons */
  x = x < -104.0f ? -104.0f : x; /* e^-104 is below half the smallest denormal */
  float r;
  float n = sesame_exp_reduce(x, &r);
  float p = 1.0f + (r + sesame_exp_tail(r));
  /* 2^n in two normal factors: only the last product can overflow or round to a denormal. */
  float half = (n * 0.5f + SESAME_ROUNDER) - SESAME_ROUNDER;
  return (p * sesame_pow2(half)) * sesame_pow2(n - half);
}

/* e^x - 1 for 0 <= x <= 64, without cancellation near zero. */
static inline float sesame_expm1_positive(float x) {
  float r;
  float n = sesame_exp_reduce(x, &r);
  float scale = sesame_pow2(n);
  return scale * (r + sesame_exp_tail(r)) + (scale - 1.0f);
}

/* tanh x = e / (e + 2) with e = e^(2|x|) - 1, and the sign of x. Max ULP 2.7. tanh(+-inf) = +-1, tanh(-0) = -0. */
static inline float sesame_tanhf(float x) {
  float a = fabsf(x);
  a = a > 10.0f ? 10.0f : a; /* tanh rounds to 1 from 9.02 on */
  float e = sesame_expm1_positive(a + a);
  return sesame_with_sign_f32(e / (e + 2.0f), x);
}

/* e^x / (1 + e^x): where x is above 88 both are the same float. Max ULP 2.4, denormal results included. */
static inline float sesame_sigmoidf(float x) {
  float e = sesame_expf(x > 88.0f ? 88.0f : x);
  return e / (1.0f + e);
}

/* erf x: odd polynomial of degree 11 for |x| < 0.875 (relative error 1.4e-8), above it 1 - e^(p(|x|)) where p of degree
 * 6 fits log erfc on [0.875, 4] (error relative to erf 2.0e-9). erf rounds to 1 from 3.92 on. Max ULP 1.3. */
static inline float sesame_erff(float x) {
  float a = fabsf(x);
  float z = a * a;
  float s = -6.02049113e-4f;
  s = s * z + 4.99892794e-3f;
  s = s * z + -2.67704856e-2f;
  s = s * z + 1.12819217e-1f;
  s = s * z + -3.76125038e-1f;
  s = s * z + 1.28379151e-1f;
  float near_zero = a + a * s;
  float c = a > 4.0f ? 4.0f : a;
  float p = 2.00996597e-4f;
  p = p * c + -3.09229479e-3f;
  p = p * c + 2.24202257e-2f;
  p = p * c + -1.04327515e-1f;
  p = p * c + -6.36737227e-1f;
  p = p * c + -1.12793612e0f;
  p = p * c + -1.33574722e-4f;
  float r;
  float n = sesame_exp_reduce(p, &r);
  float away = 1.0f - sesame_pow2(n) * (1.0f + (r + sesame_exp_tail(r)));
  return sesame_with_sign_f32(a < 0.875f ? near_zero : away, x);
}

/* ------------------------------------------------------------------ logarithm */

/* ln x: x = 2^n m with 2/3 <= m < 4/3, f = m - 1, ln m = f - f^2/2 + f^3 q(f), q of degree 7 (relative error 8.3e-9).
 * Max ULP 0.9. log(0) = -inf, log(x < 0) = NaN, log(inf) = inf; denormals are scaled by 2^25 first. */
static inline float sesame_logf(float x) {
  int denormal = x < 1.17549435e-38f;
  float y = denormal ? x * 33554432.0f : x;
  uint32_t u = sesame_bits_f32(y) - 0x3F2AAAABu; /* the bits of 2/3 */
  float f = sesame_from_bits_f32((u & 0x007FFFFFu) + 0x3F2AAAABu) - 1.0f;
  float n = (float)(int32_t)((u + 0x40000000u) >> 23) - (denormal ? 153.0f : 128.0f);
  float q = -1.27341524e-1f;
  q = q * f + 1.40873283e-1f;
  q = q * f + -1.22282825e-1f;
  q = q * f + 1.39901266e-1f;
  q = q * f + -1.66766554e-1f;
  q = q * f + 2.00108632e-1f;
  q = q * f + -2.49998987e-1f;
  q = q * f + 3.33332241e-1f;
  float z = f * f;
  float t = z * f * q - 0.5f * z;
  float value = n * 0.693359375f + (f + (t + n * -2.12194442e-4f));
  value = x > 0.0f ? value : (x == 0.0f ? -INFINITY : NAN);
  return x == INFINITY ? x : value;
}

/* ------------------------------------------------------------------ sine and cosine */

/* Reduces |x| < 2^25 by multiples of pi/2 in double: x = n pi/2 + r, |r| <= pi/4. Returns the low bits of n.
 * pi/2 is split after 27 bits, so that n times the first part is exact. */
static inline uint32_t sesame_trig_reduce_near(float x, double *r) {
  double t = (double)x * 0.6366197723675814 + 6755399441055744.0;
  uint64_t bits;
  memcpy(&bits, &t, sizeof bits);
  double n = t - 6755399441055744.0;
  *r = ((double)x - n * 1.570796325802803) - n * 9.920935796805404e-10;
  return (uint32_t)bits;
}

/* The same for 2^25 <= |x| < inf in integers (Payne and Hanek): |x| = m 2^e with a 24-bit m, and the 96 bits of 2/pi
 * from weight 2^(1-e) down give |x| 2/pi modulo 4 to 2^-60; the bits above contribute multiples of 4. */
static inline uint32_t sesame_trig_reduce_far(float x, double *r) {
  static const uint32_t two_over_pi[8] = {0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u, 0xF534DDC0u,
                                          0xDB629599u, 0x3C439041u, 0xFE5163ABu, 0xDEBBC561u};
  uint32_t u = sesame_bits_f32(x);
  uint64_t m = (u & 0x007FFFFFu) | 0x00800000u;
  uint32_t skip = ((u >> 23) & 0xFFu) - 152u; /* e - 2, from 0 up to 102 */
  uint32_t word = (skip >> 5) & 3u;
  uint32_t shift = skip & 31u;
  uint64_t top = ((uint64_t)two_over_pi[word] << 32) | two_over_pi[word + 1];
  uint64_t low = ((uint64_t)two_over_pi[word + 2] << 32) | two_over_pi[word + 3];
  uint64_t high = (top << shift) | ((low >> 1) >> (63u - shift));
  uint64_t rest = (low << shift) >> 32;
  /* `high` has weight 2^-62 in units of a quarter turn after the product, modulo 2^64. */
  uint64_t turn = m * high + ((m * rest) >> 32);
  uint32_t n = (uint32_t)((turn + 0x2000000000000000u) >> 62);
  double fraction = (double)(int64_t)(turn - ((uint64_t)n << 62));
  double value = fraction * 3.4061215800865545e-19; /* pi/2 * 2^-62 */
  *r = u >> 31 ? -value : value;
  return u >> 31 ? 0u - n : n;
}

/* sin(r + quarter * pi/2) for |r| <= pi/4. Relative errors of the polynomials: sine 3.7e-9, cosine 1.1e-10. */
static inline float sesame_trig_quarter(float r, uint32_t quarter) {
  float z = r * r;
  float s = -1.95184053e-4f;
  s = s * z + 8.33219010e-3f;
  s = s * z + -1.66666552e-1f;
  float sine = r + r * z * s;
  float c = 2.44306702e-5f;
  c = c * z + -1.38873013e-3f;
  c = c * z + 4.16666456e-2f;
  float cosine = (1.0f - 0.5f * z) + z * z * c;
  float value = quarter & 1u ? cosine : sine;
  return sesame_from_bits_f32(sesame_bits_f32(value) ^ ((quarter & 2u) << 30));
}

/* sin(x + shift * pi/2). The far reduction is a branch, almost never taken; it keeps gcc from turning loops of calls
 * into vector code. */
static inline float sesame_trig(float x, uint32_t shift) {
  float a = fabsf(x);
  double r;
  uint32_t n = a < 33554432.0f ? sesame_trig_reduce_near(x, &r) : sesame_trig_reduce_far(x, &r);
  float value = sesame_trig_quarter((float)r, n + shift);
  return a < INFINITY ? value : NAN;
}

/* sin x, x in radians, any magnitude. Max ULP 1.6. sin(+-inf) = NaN, sin(-0) = -0. */
static inline float sesame_sinf(float x) { return x == 0.0f ? x : sesame_trig(x, 0u); }

/* cos x, x in radians, any magnitude. Max ULP 1.6. cos(+-inf) = NaN. */
static inline float sesame_cosf(float x) { return sesame_trig(x, 1u); }

/* ------------------------------------------------------------------ integers */

/* Quotient rounded towards zero. a / 0 = 0; INT64_MIN / -1 wraps to INT64_MIN. Narrower types: widen, then narrow. */
static inline int64_t sesame_div_i64(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return (int64_t)(0u - (uint64_t)a);
  return a / b;
}

/* Remainder with the sign of `a` (as C and fmod). a rem 0 = 0. */
static inline int64_t sesame_rem_i64(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  return a % b;
}

/* Quotient rounded towards minus infinity. a / 0 = 0; INT64_MIN / -1 wraps to INT64_MIN. */
static inline int64_t sesame_floordiv_i64(int64_t a, int64_t b) {
  int64_t r = sesame_rem_i64(a, b);
  return sesame_div_i64(a, b) - (r != 0 && ((r ^ b) < 0));
}

/* Remainder with the sign of `b` (as Python). a mod 0 = 0. */
static inline int64_t sesame_mod_i64(int64_t a, int64_t b) {
  int64_t r = sesame_rem_i64(a, b);
  return r + ((r != 0 && ((r ^ b) < 0)) ? b : 0);
}

static inline uint64_t sesame_div_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
static inline uint64_t sesame_mod_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }

/* ------------------------------------------------------------------ rounding, and floats to integers */

/* x rounded to an integer, ties to even, as a float; the sign of zero is kept, NaN and infinities pass. */
static inline float sesame_round_even_f32(float x) {
  float a = fabsf(x);
  float rounded = (a + 8388608.0f) - 8388608.0f;
  return sesame_with_sign_f32(a < 8388608.0f ? rounded : a, x);
}

/* The quantisation step: x rounded to an integer, ties to even, clamped to [low, high]; NaN gives 0.
 * Needs -2^22 < low <= 0 <= high < 2^22. With a zero point z pass low - z and high - z and add z to the result. */
static inline int32_t sesame_round_even_clamp_i32(float x, int32_t low, int32_t high) {
  x = x == x ? x : 0.0f;
  x = x < (float)low ? (float)low : x;
  x = x > (float)high ? (float)high : x;
  return (int32_t)sesame_bits_f32(x + SESAME_ROUNDER) - (int32_t)SESAME_ROUNDER_BITS;
}

/* Floats to integers round towards zero; out of range saturates; NaN gives 0. (C leaves both undefined, and processors
 * disagree.) LOW and HIGH are the least and greatest floats whose conversion is defined, LIMIT is HIGH's successor. */
#define SESAME_FLOAT_TO_INT(NAME, FLOAT, INT, LOW, HIGH, LIMIT, INT_MAXIMUM)  \
  static inline INT NAME(FLOAT x) {                                           \
    FLOAT y = x == x ? x : (FLOAT)0;                                          \
    y = y < (FLOAT)(LOW) ? (FLOAT)(LOW) : y;                                  \
    y = y > (FLOAT)(HIGH) ? (FLOAT)(HIGH) : y;                                \
    INT whole = (INT)y;                                                       \
    return x >= (FLOAT)(LIMIT) ? (INT)(INT_MAXIMUM) : whole;                  \
  }

SESAME_FLOAT_TO_INT(sesame_f32_to_i8, float, int8_t, -128, 127, 128, INT8_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_u8, float, uint8_t, 0, 255, 256, UINT8_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_i16, float, int16_t, -32768, 32767, 32768, INT16_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_u16, float, uint16_t, 0, 65535, 65536, UINT16_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_i32, float, int32_t, -2147483648.0, 2147483520.0, 2147483648.0, INT32_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_u32, float, uint32_t, 0, 4294967040.0, 4294967296.0, UINT32_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_i64, float, int64_t, -0x1p63, 0x1.fffffep62, 0x1p63, INT64_MAX)
SESAME_FLOAT_TO_INT(sesame_f32_to_u64, float, uint64_t, 0, 0x1.fffffep63, 0x1p64, UINT64_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_i8, double, int8_t, -128, 127, 128, INT8_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_u8, double, uint8_t, 0, 255, 256, UINT8_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_i16, double, int16_t, -32768, 32767, 32768, INT16_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_u16, double, uint16_t, 0, 65535, 65536, UINT16_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_i32, double, int32_t, -2147483648.0, 2147483647.0, 2147483648.0, INT32_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_u32, double, uint32_t, 0, 4294967295.0, 4294967296.0, UINT32_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_i64, double, int64_t, -0x1p63, 0x1.fffffffffffffp62, 0x1p63, INT64_MAX)
SESAME_FLOAT_TO_INT(sesame_f64_to_u64, double, uint64_t, 0, 0x1.fffffffffffffp63, 0x1p64, UINT64_MAX)

/* ------------------------------------------------------------------ narrow floats */

/* A double to the float that has it rounded to odd: encoding that float in a format of 21 mantissa bits or fewer gives
 * the double rounded once, to nearest even. Use it in front of every encoder below when the source is a double. */
static inline float sesame_f64_to_f32_odd(double x) {
  float f = (float)x;
  uint32_t u = sesame_bits_f32(f);
  uint32_t inexact_even = ((double)f != x) & (x == x) & ((u & 1u) == 0u);
  uint32_t beyond = fabs((double)f) > fabs(x);
  return sesame_from_bits_f32(u + inexact_even * (1u - 2u * beyond));
}

/* Magnitude bits of a finite float in a format with `mantissa` stored bits and exponent bias `bias`, rounded to nearest
 * even, denormals included; not limited above. `a` is the float's bits without sign. */
static inline uint32_t sesame_encode_magnitude(uint32_t a, uint32_t mantissa, uint32_t bias) {
  uint32_t e = a >> 23;
  uint32_t m = (a & 0x007FFFFFu) | (e != 0u ? 0x00800000u : 0u);
  e = e == 0u ? 1u : e;
  uint32_t smallest = 128u - bias; /* the float exponent of the format's smallest normal number */
  uint32_t below = e < smallest ? smallest - e : 0u;
  uint32_t above = e < smallest ? 0u : e - smallest;
  uint32_t shift = 23u - mantissa + below;
  shift = shift > 25u ? 25u : shift; /* from 25 on everything rounds to zero */
  uint32_t rounded = (m + ((1u << (shift - 1u)) - 1u) + ((m >> shift) & 1u)) >> shift;
  return rounded + (above << mantissa); /* a normal number's leading 1 adds one to the exponent field */
}

/* The float whose magnitude bits in such a format are `code`, taken as finite. */
static inline float sesame_decode_magnitude(uint32_t code, uint32_t mantissa, uint32_t bias) {
  float denormal = (float)(int32_t)code * sesame_from_bits_f32((128u - bias - mantissa) << 23);
  float normal = sesame_from_bits_f32((code << (23u - mantissa)) + ((127u - bias) << 23));
  return code < (1u << mantissa) ? denormal : normal;
}

/* IEEE binary16 (f16) to f32, exact. NaN stays NaN, quiet, with its payload. */
static inline float sesame_f16_to_f32(uint16_t h) {
  uint32_t a = h & 0x7FFFu;
  uint32_t finite = sesame_bits_f32(sesame_decode_magnitude(a, 10u, 15u));
  uint32_t special = 0x7F800000u | (a << 13) | (a > 0x7C00u ? 0x00400000u : 0u);
  return sesame_from_bits_f32((a < 0x7C00u ? finite : special) | ((uint32_t)(h & 0x8000u) << 16));
}

/* f32 to f16, nearest even; overflow gives infinity, NaN a quiet NaN with the payload's high bits. */
static inline uint16_t sesame_f32_to_f16(float x) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t a = u & 0x7FFFFFFFu;
  uint32_t code = sesame_encode_magnitude(a, 10u, 15u);
  code = code > 0x7C00u ? 0x7C00u : code;
  code = a > 0x7F800000u ? 0x7E00u | ((a >> 13) & 0x03FFu) : code;
  return (uint16_t)(code | ((u >> 16) & 0x8000u));
}

/* bfloat16 to f32, exact. */
static inline float sesame_bf16_to_f32(uint16_t h) { return sesame_from_bits_f32((uint32_t)h << 16); }

/* f32 to bfloat16, nearest even, denormals kept; NaN stays NaN, quiet. */
static inline uint16_t sesame_f32_to_bf16(float x) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? (u >> 16) | 0x0040u : rounded);
}

/* float8 e4m3fn: bias 7, no infinity, NaN 0x7F and 0xFF, greatest 448 (0x7E). */
static inline float sesame_f8e4m3fn_to_f32(uint8_t h) {
  uint32_t a = h & 0x7Fu;
  float value = sesame_decode_magnitude(a, 3u, 7u);
  uint32_t bits = a == 0x7Fu ? 0x7FC00000u : sesame_bits_f32(value);
  return sesame_from_bits_f32(bits | ((uint32_t)(h & 0x80u) << 24));
}

/* float8 e5m2: bias 15, an 8-bit f16: infinity 0x7C, NaN 0x7D to 0x7F, greatest 57344 (0x7B). */
static inline float sesame_f8e5m2_to_f32(uint8_t h) { return sesame_f16_to_f32((uint16_t)(h << 8)); }

/* The "fnuz" formats have one zero, one NaN (0x80) and no infinity; bias one more, greatest 0x7F: 240 and 57344. */
static inline float sesame_f8fnuz_to_f32(uint8_t h, uint32_t mantissa, uint32_t bias) {
  uint32_t bits = sesame_bits_f32(sesame_decode_magnitude(h & 0x7Fu, mantissa, bias)) | ((uint32_t)(h & 0x80u) << 24);
  return sesame_from_bits_f32(h == 0x80u ? 0x7FC00000u : bits);
}

static inline float sesame_f8e4m3fnuz_to_f32(uint8_t h) { return sesame_f8fnuz_to_f32(h, 3u, 8u); }
static inline float sesame_f8e5m2fnuz_to_f32(uint8_t h) { return sesame_f8fnuz_to_f32(h, 2u, 16u); }

/* f32 to a float8 with signed zero: `greatest` is the code of the greatest finite number, `over` what a rounded value
 * beyond it (and infinity) becomes, `nan` the code of NaN; the sign goes in front of all of them. */
static inline uint8_t sesame_f32_to_f8(float x, uint32_t mantissa, uint32_t bias, uint32_t greatest, uint32_t over,
                                       uint32_t nan) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t a = u & 0x7FFFFFFFu;
  uint32_t code = sesame_encode_magnitude(a, mantissa, bias);
  code = code > greatest ? over : code;
  code = a > 0x7F800000u ? nan : code;
  return (uint8_t)(code | ((u >> 24) & 0x80u));
}

/* f32 to a "fnuz" float8: what rounds to zero loses its sign; beyond the greatest number comes `over`, the greatest
 * number (signed) or NaN (0x80). */
static inline uint8_t sesame_f32_to_f8fnuz(float x, uint32_t mantissa, uint32_t bias, uint32_t over) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t a = u & 0x7FFFFFFFu;
  uint32_t code = sesame_encode_magnitude(a, mantissa, bias);
  code = code > 0x7Fu ? over : code;
  uint32_t sign = code == 0u || code == 0x80u ? 0u : (u >> 24) & 0x80u;
  return (uint8_t)(a > 0x7F800000u ? 0x80u : code | sign);
}

/* Plain encoders follow IEEE: beyond the greatest number comes infinity, or NaN where there is none. The `_sat`
 * encoders clamp values and infinities to the greatest number (ONNX Cast with saturate = 1). All round to nearest
 * even. */
static inline uint8_t sesame_f32_to_f8e4m3fn(float x) { return sesame_f32_to_f8(x, 3u, 7u, 0x7Eu, 0x7Fu, 0x7Fu); }
static inline uint8_t sesame_f32_to_f8e4m3fn_sat(float x) { return sesame_f32_to_f8(x, 3u, 7u, 0x7Eu, 0x7Eu, 0x7Fu); }
static inline uint8_t sesame_f32_to_f8e5m2(float x) { return sesame_f32_to_f8(x, 2u, 15u, 0x7Bu, 0x7Cu, 0x7Eu); }
static inline uint8_t sesame_f32_to_f8e5m2_sat(float x) { return sesame_f32_to_f8(x, 2u, 15u, 0x7Bu, 0x7Bu, 0x7Eu); }
static inline uint8_t sesame_f32_to_f8e4m3fnuz(float x) { return sesame_f32_to_f8fnuz(x, 3u, 8u, 0x80u); }
static inline uint8_t sesame_f32_to_f8e4m3fnuz_sat(float x) { return sesame_f32_to_f8fnuz(x, 3u, 8u, 0x7Fu); }
static inline uint8_t sesame_f32_to_f8e5m2fnuz(float x) { return sesame_f32_to_f8fnuz(x, 2u, 16u, 0x80u); }
static inline uint8_t sesame_f32_to_f8e5m2fnuz_sat(float x) { return sesame_f32_to_f8fnuz(x, 2u, 16u, 0x7Fu); }

/* float8 e8m0: the scale of a block, 2^(code - 127) from 2^-127 to 2^127, no sign, no zero, NaN 0xFF. */
static inline float sesame_f8e8m0_to_f32(uint8_t h) {
  uint32_t bits = (uint32_t)h << 23;
  bits = h == 0u ? 0x00400000u : bits;
  return sesame_from_bits_f32(h == 0xFFu ? 0x7FC00000u : bits);
}

/* f32 to e8m0: `increment`, added to the bits, decides the rounding; codes beyond `greatest` become `greatest`. The
 * sign is ignored, NaN gives NaN. */
static inline uint8_t sesame_f32_to_f8e8m0(float x, uint32_t increment, uint32_t greatest) {
  uint32_t a = sesame_bits_f32(x) & 0x7FFFFFFFu;
  uint32_t code = (a + increment) >> 23;
  code = code > greatest ? greatest : code;
  return (uint8_t)(a > 0x7F800000u ? 0xFFu : code);
}

/* The increment for rounding to nearest, ties up - except that 2^-127, which is code 0 itself, stays there. */
static inline uint32_t sesame_e8m0_half(float x) { return fabsf(x) < 1.17549435e-38f ? 0x003FFFFFu : 0x00400000u; }

/* Rounding of the exponent: up (away from zero, the ONNX default), down, or nearest with ties up. As in the ONNX
 * reference the exponent field is what is rounded, so floats below 2^-126 count as lying between codes 0 and 1. Beyond
 * 2^127, infinity included, the `_sat` encoders give 2^127 and the plain ones NaN. */
static inline uint8_t sesame_f32_to_f8e8m0_up_sat(float x) { return sesame_f32_to_f8e8m0(x, 0x007FFFFFu, 0xFEu); }
static inline uint8_t sesame_f32_to_f8e8m0_up(float x) { return sesame_f32_to_f8e8m0(x, 0x007FFFFFu, 0xFFu); }
static inline uint8_t sesame_f32_to_f8e8m0_down_sat(float x) { return sesame_f32_to_f8e8m0(x, 0u, 0xFEu); }
static inline uint8_t sesame_f32_to_f8e8m0_down(float x) { return sesame_f32_to_f8e8m0(x, 0u, 0xFFu); }
static inline uint8_t sesame_f32_to_f8e8m0_nearest_sat(float x) {
  return sesame_f32_to_f8e8m0(x, sesame_e8m0_half(x), 0xFEu);
}
static inline uint8_t sesame_f32_to_f8e8m0_nearest(float x) {
  return sesame_f32_to_f8e8m0(x, sesame_e8m0_half(x), 0xFFu);
}

/* float6 e2m3 and e3m2, in the low six bits: up to 7.5 and to 28; no infinity, no NaN. */
static inline float sesame_f6_to_f32(uint8_t h, uint32_t mantissa, uint32_t bias) {
  uint32_t bits = sesame_bits_f32(sesame_decode_magnitude(h & 0x1Fu, mantissa, bias));
  return sesame_from_bits_f32(bits | ((uint32_t)(h & 0x20u) << 26));
}

static inline float sesame_f6e2m3_to_f32(uint8_t h) { return sesame_f6_to_f32(h, 3u, 1u); }
static inline float sesame_f6e3m2_to_f32(uint8_t h) { return sesame_f6_to_f32(h, 2u, 3u); }

/* f32 to float6, nearest even, clamped to the greatest number; NaN, which has no code, gives 0. */
static inline uint8_t sesame_f32_to_f6(float x, uint32_t mantissa, uint32_t bias) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t code = sesame_encode_magnitude(u & 0x7FFFFFFFu, mantissa, bias);
  code = code > 0x1Fu ? 0x1Fu : code;
  return x != x ? (uint8_t)0 : (uint8_t)(code | ((u >> 26) & 0x20u));
}

static inline uint8_t sesame_f32_to_f6e2m3(float x) { return sesame_f32_to_f6(x, 3u, 1u); }
static inline uint8_t sesame_f32_to_f6e3m2(float x) { return sesame_f32_to_f6(x, 2u, 3u); }

/* float4 e2m1, in the low four bits: 0 0.5 1 1.5 2 3 4 6 and their negatives; no infinity, no NaN. */
static inline float sesame_f4e2m1_to_f32(uint8_t h) {
  uint32_t bits = sesame_bits_f32(sesame_decode_magnitude(h & 7u, 1u, 1u));
  return sesame_from_bits_f32(bits | ((uint32_t)(h & 8u) << 28));
}

/* f32 to e2m1, nearest even, clamped to 6; NaN, which has no code, gives 0, as the tests of ONNX have it. */
static inline uint8_t sesame_f32_to_f4e2m1(float x) {
  uint32_t u = sesame_bits_f32(x);
  uint32_t code = sesame_encode_magnitude(u & 0x7FFFFFFFu, 1u, 1u);
  code = code > 7u ? 7u : code;
  return x != x ? (uint8_t)0 : (uint8_t)(code | ((u >> 28) & 8u));
}

#endif
