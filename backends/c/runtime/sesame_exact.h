/* Mathematics that gives the same bits everywhere: of double without a C library, and of float by way of that.
 *
 * Code that is made deterministic calls these in place of the functions of <math.h>, of which it uses only what IEEE-754
 * rounds exactly: fabs, floor, ceil, trunc, rint, sqrt, fmod, copysign. Needs contraction to be off, which sesame_scalar.h
 * sees to. Special values are those of C11, annex F.
 *
 * Reductions leave so little of an argument that the terms of Taylor's series named beside each are enough. "Max ULP" is
 * the largest error seen over random arguments of all magnitudes, in units of the last place of the exact result.
 */
#ifndef SESAME_EXACT_H
#define SESAME_EXACT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ------------------------------------------------------------------ bits, and numbers of two doubles */

static inline uint64_t sesame_bits_f64(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline double sesame_from_bits_f64(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* 2^n for -1022 <= n <= 1023. */
static inline double sesame_pow2_f64(int n) { return sesame_from_bits_f64((uint64_t)(n + 1023) << 52); }

/* x 2^n for 1/2 <= |x| <= 2 and |n| < 1100: two normal factors, of which only the last can overflow or round. */
static inline double sesame_scale_f64(double x, int n) {
  return (x * sesame_pow2_f64(n / 2)) * sesame_pow2_f64(n - n / 2);
}

/* The rounded sum of a and b, |a| >= |b| or a = 0, and in *low what it lost. */
static inline double sesame_two_sum(double a, double b, double *low) {
  const double sum = a + b;
  *low = b - (sum - a);
  return sum;
}

/* The rounded product of a and b, and in *low what it lost. Operands are cut in halves of 26 bits: below 2^970. */
static inline double sesame_two_product(double a, double b, double *low) {
  const double p = a * 134217729.0, q = b * 134217729.0;
  const double a_high = p - (p - a), b_high = q - (q - b);
  const double a_low = a - a_high, b_low = b - b_high, product = a * b;
  *low = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  return product;
}

#define SESAME_INFINITE ((double)INFINITY)
#define SESAME_NO_NUMBER ((double)NAN)

/* ln 2 in two: the first part has 40 bits, so that n times it is exact for |n| < 2^13. */
#define SESAME_LN2 0.6931471805599453
#define SESAME_LN2_HIGH 0x1.62e42fefa4p-1
#define SESAME_LN2_LOW -1.7239444525614835e-13
#define SESAME_PI_HIGH 3.141592653589793
#define SESAME_PI_LOW 1.2246467991473532e-16

/* ------------------------------------------------------------------ exponential and its relatives */

/* e^r - 1 - r for |r| <= ln 2 / 2: up to r^14. */
static inline double sesame_exp_tail_f64(double r) {
  static const double terms[13] = {1.0 / 87178291200, 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                   1.0 / 362880,      1.0 / 40320,      1.0 / 5040,      1.0 / 720,      1.0 / 120,
                                   1.0 / 24,          1.0 / 6,          1.0 / 2};
  double q = terms[0];
  for (int k = 1; k < 13; k++) q = q * r + terms[k];
  return r * r * q;
}

/* The integer n nearest to x / ln 2, for |x| < 2^30, and in *r what x + low leaves beside n ln 2. */
static inline int sesame_exp_reduce_f64(double x, double low, double *r) {
  const double n = rint(x * 1.4426950408889634);
  *r = (x - n * SESAME_LN2_HIGH) - (n * SESAME_LN2_LOW - low);
  return (int)n;
}

/* e^(x + low), where low is small beside 1. */
static inline double sesame_exp_of_sum(double x, double low) {
  if (x != x) return x;
  if (x > 710.0) return SESAME_INFINITE;
  if (x < -746.0) return 0.0;
  double r;
  const int n = sesame_exp_reduce_f64(x, low, &r);
  return sesame_scale_f64(1.0 + (r + sesame_exp_tail_f64(r)), n);
}

/* e^x. Max ULP 1. */
static inline double sesame_exp(double x) { return sesame_exp_of_sum(x, 0.0); }

/* e^x - 1. Max ULP 2. */
static inline double sesame_expm1(double x) {
  if (x != x || x > 700.0) return sesame_exp(x);
  if (x < -60.0) return -1.0;
  double r;
  const int n = sesame_exp_reduce_f64(x, 0.0, &r);
  const double rest = r + sesame_exp_tail_f64(r), scale = sesame_pow2_f64(n);
  return n == 0 ? (x == 0.0 ? x : rest) : scale * rest + (scale - 1.0);
}

/* ------------------------------------------------------------------ logarithm and its relatives */

/* x > 0 as 2^n (1 + f) with 1/sqrt 2 <= 1 + f < sqrt 2: n, and f in *f. */
static inline int sesame_log_reduce_f64(double x, double *f) {
  const int is_denormal = x < 2.2250738585072014e-308;
  const uint64_t u = sesame_bits_f64(is_denormal ? x * 0x1p54 : x) - 0x3FE6A09E667F3BCDu; /* the bits of sqrt 1/2 */
  *f = sesame_from_bits_f64((u & 0x000FFFFFFFFFFFFFu) + 0x3FE6A09E667F3BCDu) - 1.0;
  return (int)((int64_t)u >> 52) - (is_denormal ? 54 : 0);
}

/* ln x = n ln 2 + 2 artanh s with s = f / (2 + f), up to s^23. Max ULP 0.9. */
static inline double sesame_log(double x) {
  if (x != x || x == SESAME_INFINITE) return x;
  if (x == 0.0) return -SESAME_INFINITE;
  if (x < 0.0) return SESAME_NO_NUMBER;
  double f;
  const double n = sesame_log_reduce_f64(x, &f);
  const double s = f / (2.0 + f), z = s * s;
  double q = 2.0 / 23;
  for (int k = 21; k >= 3; k -= 2) q = q * z + 2.0 / k;
  return n * SESAME_LN2_HIGH + (f - (s * (f - z * q) - n * SESAME_LN2_LOW));
}

/* ln (1 + x): the logarithm of the rounded sum, and what the sum lost. Max ULP 2. */
static inline double sesame_log1p(double x) {
  if (x == 0.0 || x != x || x == SESAME_INFINITE) return x;
  if (x <= -1.0) return x < -1.0 ? SESAME_NO_NUMBER : -SESAME_INFINITE;
  const double u = 1.0 + x, lost = x >= 1.0 ? 1.0 - (u - x) : x - (u - 1.0);
  return sesame_log(u) + lost / u;
}

/* ln x of a finite x > 0 as a sum of two doubles: the rounded one, and *low. The series of sesame_log, in which s and
 * the first two terms are numbers of two doubles. */
static inline double sesame_log_parts(double x, double *low) {
  double f, product_low, z_low, third_low, t_low, u_low, sum_low, total_low;
  const double n = sesame_log_reduce_f64(x, &f);
  const double d = 2.0 + f, d_low = f - (d - 2.0), s = f / d;
  const double product = sesame_two_product(s, d, &product_low);
  const double s_low = (((f - product) - product_low) - s * d_low) / d;
  const double z = sesame_two_product(s, s, &z_low);
  z_low += 2.0 * s * s_low;
  double q = 1.0 / 27;
  for (int k = 25; k >= 5; k -= 2) q = q * z + 1.0 / k;
  const double third = sesame_two_sum(1.0 / 3, z * q, &third_low); /* 1/3 + z/5 + ... */
  third_low += 1.850371707708594e-17;
  const double t = sesame_two_product(z, third, &t_low);
  t_low += z * third_low + z_low * third;
  const double u = sesame_two_product(s, t, &u_low);
  u_low += s * t_low + s_low * t;
  const double sum = sesame_two_sum(s, u, &sum_low);
  sum_low += s_low + u_low;
  const double total = sesame_two_sum(n * SESAME_LN2_HIGH, 2.0 * sum, &total_low);
  total_low += 2.0 * sum_low + n * SESAME_LN2_LOW;
  return sesame_two_sum(total, total_low, low);
}

/* ------------------------------------------------------------------ powers */

/* x^y = e^(y ln |x|), the product as a sum of two doubles, and the sign. Max ULP 0.9. */
static inline double sesame_pow(double x, double y) {
  if (y == 0.0 || x == 1.0) return 1.0;
  if (x != x || y != y) return x + y;
  const double a = fabs(x), half = 0.5 * y;
  const int is_integer = floor(y) == y, is_odd = is_integer && floor(half) != half;
  const double sign = is_odd && copysign(1.0, x) < 0.0 ? -1.0 : 1.0;
  if (a == 0.0 || a == SESAME_INFINITE) return sign * ((a == 0.0) == (y < 0.0) ? SESAME_INFINITE : 0.0);
  if (a == 1.0 && fabs(y) == SESAME_INFINITE) return 1.0;
  if (x < 0.0 && !is_integer) return SESAME_NO_NUMBER;
  const double exponent = y > 0x1p70 ? 0x1p70 : y < -0x1p70 ? -0x1p70 : y; /* beyond it all is 0, 1 or infinite */
  double log_low, low;
  const double log_high = sesame_log_parts(a, &log_low);
  const double high = sesame_two_product(exponent, log_high, &low);
  return sign * sesame_exp_of_sum(high, low + exponent * log_low);
}

/* ------------------------------------------------------------------ sine, cosine, tangent */

/* The high half of a product of 64 bits by 64. */
static inline uint64_t sesame_high_product(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xFFFFFFFFu, a_high = a >> 32, b_low = b & 0xFFFFFFFFu, b_high = b >> 32;
  const uint64_t middle = a_high * b_low + ((a_low * b_low) >> 32);
  const uint64_t other = a_low * b_high + (middle & 0xFFFFFFFFu);
  return a_high * b_high + (middle >> 32) + (other >> 32);
}

/* A finite x = n pi/2 + *r + *low with |*r| <= pi/4 and |*low| <= 2^-53 |*r|: the low bits of n. Where it is no less
 * than pi/4: |x| = m 2^e with an m of 53 bits, and the 192 bits of 2/pi from weight 2^(1-e) down give |x| 2/pi modulo 4 to
 * 2^-137 (Payne and Hanek); the bits above contribute multiples of 4. */
static inline unsigned sesame_trig_reduce_f64(double x, double *r, double *low) {
  static const uint64_t two_over_pi[21] = {
      0x0000000000000000u, 0xA2F9836E4E441529u, 0xFC2757D1F534DDC0u, 0xDB6295993C439041u, 0xFE5163ABDEBBC561u,
      0xB7246E3A424DD2E0u, 0x06492EEA09D1921Cu, 0xFE1DEB1CB129A73Eu, 0xE88235F52EBB4484u, 0xE99C7026B45F7E41u,
      0x3991D639835339F4u, 0x9C845F8BBDF9283Bu, 0x1FF897FFDE05980Fu, 0xEF2F118B5A0A6D1Fu, 0x6D367ECF27CB09B7u,
      0x4F463F669E5FEA2Du, 0x7527BAC7EBE5F17Bu, 0x3D0739F78A5292EAu, 0x6BFB5FB11F8D5D08u, 0x56033046FC7B6BABu,
      0xF0CFBC209AF4361Du};
  *r = x;
  *low = 0.0;
  if (fabs(x) < 0.7853981633974483) return 0;
  const uint64_t bits = sesame_bits_f64(x), m = (bits & 0x000FFFFFFFFFFFFFu) | 0x0010000000000000u;
  const unsigned skip = (unsigned)((bits >> 52) & 0x7FFu) - 1075u + 62u, word = skip >> 6, shift = skip & 63u;
  uint64_t w[3];
  for (unsigned i = 0; i < 3; i++) {
    w[i] = (two_over_pi[word + i] << shift) | ((two_over_pi[word + i + 1] >> 1) >> (63u - shift));
  }
  /* The product modulo 2^192, which is 4 quarter turns. */
  uint64_t p2 = m * w[2], p1 = m * w[1], p0 = m * w[0] + sesame_high_product(m, w[1]);
  const uint64_t carry = sesame_high_product(m, w[2]);
  p1 += carry;
  p0 += p1 < carry;
  unsigned n = (unsigned)(p0 >> 62);
  uint64_t high = (p0 << 2) | (p1 >> 62), next = (p1 << 2) | (p2 >> 62);
  const int is_above = high >> 63 != 0; /* nearer to the next quarter */
  if (is_above) {
    n++;
    high = ~high;
    next = ~next;
  }
  int zeros = 0;
  for (; high >> 63 == 0 && zeros < 128; zeros++) {
    high = (high << 1) | (next >> 63);
    next <<= 1;
  }
  const double scale = sesame_pow2_f64(-53 - zeros);
  const double part = (double)(high >> 11) * scale;
  const double rest = (double)((high & 0x7FFu) << 42 | next >> 22) * (scale * 0x1p-53);
  double product_low;
  const double product = sesame_two_product(part, 0.5 * SESAME_PI_HIGH, &product_low);
  product_low += part * (0.5 * SESAME_PI_LOW) + rest * (0.5 * SESAME_PI_HIGH);
  const double sign = is_above != (x < 0.0) ? -1.0 : 1.0;
  *r = sign * sesame_two_sum(product, product_low, low);
  *low *= sign;
  return x < 0.0 ? 0u - n : n;
}

/* sin (r + low) and cos (r + low) for |r| <= pi/4: up to r^19 and r^20. */
static inline double sesame_sine_f64(double r, double low) {
  static const double terms[8] = {1.0 / 355687428096000, 1.0 / 1307674368000, 1.0 / 6227020800, 1.0 / 39916800,
                                  1.0 / 362880,          1.0 / 5040,          1.0 / 120,        1.0 / 6};
  const double z = r * r;
  double q = 1.0 / 121645100408832000;
  for (int k = 0; k < 8; k++) q = terms[k] - q * z;
  return r + (low * (1.0 - 0.5 * z) - r * z * q);
}
static inline double sesame_cosine_f64(double r, double low) {
  static const double terms[8] = {1.0 / 6402373705728000, 1.0 / 20922789888000, 1.0 / 87178291200, 1.0 / 479001600,
                                  1.0 / 3628800,          1.0 / 40320,          1.0 / 720,         1.0 / 24};
  const double z = r * r, half = 0.5 * z, rough = 1.0 - half;
  double q = 1.0 / 2432902008176640000;
  for (int k = 0; k < 8; k++) q = terms[k] - q * z;
  return rough + (((1.0 - rough) - half) + (z * z * q - r * low));
}

/* sin (x + quarter pi/2). Max ULP 0.8. */
static inline double sesame_sine_of(double x, unsigned quarter) {
  if (!(fabs(x) < SESAME_INFINITE)) return SESAME_NO_NUMBER;
  double r, low;
  quarter += sesame_trig_reduce_f64(x, &r, &low);
  const double value = quarter & 1u ? sesame_cosine_f64(r, low) : sesame_sine_f64(r, low);
  return quarter & 2u ? -value : value;
}

static inline double sesame_sin(double x) { return x == 0.0 ? x : sesame_sine_of(x, 0u); }
static inline double sesame_cos(double x) { return sesame_sine_of(x, 1u); }

/* tan x. Max ULP 2.5. */
static inline double sesame_tan(double x) {
  if (x == 0.0 || !(fabs(x) < SESAME_INFINITE)) return x == 0.0 ? x : SESAME_NO_NUMBER;
  double r, low;
  const unsigned quarter = sesame_trig_reduce_f64(x, &r, &low);
  const double sine = sesame_sine_f64(r, low), cosine = sesame_cosine_f64(r, low);
  return quarter & 1u ? -cosine / sine : sine / cosine;
}

/* ------------------------------------------------------------------ inverse functions of angles */

/* arctan x: that of the nearest quarter c, and of t = (a - c) / (1 + a c), up to t^21, where a is |x| or 1 / |x|.
 * Max ULP 1.7. */
static inline double sesame_atan(double x) {
  static const double high[5] = {0.0, 0.24497866312686414, 0.4636476090008061, 0.6435011087932844, 0.7853981633974483};
  static const double low[5] = {0.0, 1.0698755618734451e-17, 2.2698777452961687e-17, 1.5834785051444286e-17,
                                3.061616997868383e-17};
  if (x != x) return x;
  const int is_large = fabs(x) > 1.0;
  const double a = is_large ? 1.0 / fabs(x) : fabs(x);
  const double quarter = rint(4.0 * a), c = 0.25 * quarter, t = (a - c) / (1.0 + a * c), z = t * t;
  const int place = (int)quarter;
  double q = 1.0 / 21;
  for (int k = 19; k >= 3; k -= 2) q = 1.0 / k - q * z;
  double angle = high[place] + (t + (low[place] - t * z * q));
  if (is_large) angle = 0.5 * SESAME_PI_HIGH - (angle - 0.5 * SESAME_PI_LOW);
  return copysign(angle, x);
}

/* The angle of (x, y). Max ULP 1.8. */
static inline double sesame_atan2(double y, double x) {
  if (x != x || y != y) return x + y;
  double angle;
  if (fabs(x) == fabs(y)) {
    angle = x == 0.0 ? 0.0 : 0.25 * SESAME_PI_HIGH;
  } else {
    angle = x == 0.0 ? 0.5 * SESAME_PI_HIGH : sesame_atan(fabs(y) / fabs(x));
  }
  if (copysign(1.0, x) < 0.0) angle = SESAME_PI_HIGH - (angle - SESAME_PI_LOW);
  return copysign(angle, y);
}

/* Max ULP 2.5 and 2.5. */
static inline double sesame_asin(double x) {
  return fabs(x) <= 1.0 ? sesame_atan2(x, sqrt((1.0 - x) * (1.0 + x))) : SESAME_NO_NUMBER;
}
static inline double sesame_acos(double x) {
  return fabs(x) <= 1.0 ? 2.0 * sesame_atan2(sqrt(1.0 - x), sqrt(1.0 + x)) : SESAME_NO_NUMBER;
}

/* ------------------------------------------------------------------ hyperbolic functions */

/* e^a / 2 for a >= 22, which may overflow only where the result does. */
static inline double sesame_half_exp(double a) {
  const double root = sesame_exp(0.5 * a);
  return a < 700.0 ? 0.5 * sesame_exp(a) : 0.5 * root * root;
}

/* Max ULP 2.5, 2 and 2.5. */
static inline double sesame_sinh(double x) {
  const double a = fabs(x);
  if (!(a < 22.0)) return x != x ? x : copysign(sesame_half_exp(a), x);
  const double e = sesame_expm1(a);
  return copysign(0.5 * (e + e / (e + 1.0)), x);
}
static inline double sesame_cosh(double x) {
  const double a = fabs(x);
  if (!(a < 22.0)) return x != x ? x : sesame_half_exp(a);
  const double e = sesame_exp(a);
  return 0.5 * e + 0.5 / e;
}
static inline double sesame_tanh(double x) {
  const double a = fabs(x), e = sesame_expm1(a > 22.0 ? 44.0 : 2.0 * a);
  return x != x ? x : copysign(e / (e + 2.0), x);
}

/* Max ULP 2.5, 2.5 and 2. */
static inline double sesame_asinh(double x) {
  const double a = fabs(x);
  if (!(a < 0x1p28)) return x != x ? x : copysign(sesame_log(a) + SESAME_LN2, x);
  return copysign(sesame_log1p(a + a * a / (1.0 + sqrt(a * a + 1.0))), x);
}
static inline double sesame_acosh(double x) {
  if (!(x >= 1.0)) return SESAME_NO_NUMBER;
  const double t = x - 1.0;
  return x > 0x1p28 ? sesame_log(x) + SESAME_LN2 : sesame_log1p(t + sqrt(2.0 * t + t * t));
}
static inline double sesame_atanh(double x) {
  const double a = fabs(x);
  return a <= 1.0 ? copysign(0.5 * sesame_log1p((a + a) / (1.0 - a)), x) : SESAME_NO_NUMBER;
}

/* ------------------------------------------------------------------ error function */

/* erf x. Below 5/4 the series 2/sqrt(pi) e^(-x^2) x (1 + (2 x^2) / 3 + (2 x^2)^2 / (3 5) ...), whose terms are all
 * positive; above it 1 - erfc x, by the continued fraction of erfc. Max ULP 3. */
static inline double sesame_erf(double x) {
  const double a = fabs(x);
  if (x == 0.0 || x != x) return x;
  if (a >= 6.0) return copysign(1.0, x);
  double low, value;
  const double square = sesame_two_product(a, a, &low), tail = sesame_exp_of_sum(-square, -low);
  if (a < 1.25) {
    double sum = 1.0;
    for (int k = 24; k > 0; k--) sum = 1.0 + sum * (2.0 * square) / (2 * k + 1);
    value = 1.1283791670955126 * a * tail * sum;
  } else {
    double fraction = a;
    for (int k = 150; k > 0; k--) fraction = a + 0.5 * k / fraction;
    value = 1.0 - tail / fraction * 0.5641895835477563;
  }
  return copysign(value, x);
}

/* ------------------------------------------------------------------ the same of float, rounded from double */

static inline float sesame_expm1f(float x) { return (float)sesame_expm1((double)x); }
static inline float sesame_log1pf(float x) { return (float)sesame_log1p((double)x); }
static inline float sesame_powf(float x, float y) { return (float)sesame_pow((double)x, (double)y); }
static inline float sesame_tanf(float x) { return (float)sesame_tan((double)x); }
static inline float sesame_asinf(float x) { return (float)sesame_asin((double)x); }
static inline float sesame_acosf(float x) { return (float)sesame_acos((double)x); }
static inline float sesame_atanf(float x) { return (float)sesame_atan((double)x); }
static inline float sesame_atan2f(float y, float x) { return (float)sesame_atan2((double)y, (double)x); }
static inline float sesame_sinhf(float x) { return (float)sesame_sinh((double)x); }
static inline float sesame_coshf(float x) { return (float)sesame_cosh((double)x); }
static inline float sesame_asinhf(float x) { return (float)sesame_asinh((double)x); }
static inline float sesame_acoshf(float x) { return (float)sesame_acosh((double)x); }
static inline float sesame_atanhf(float x) { return (float)sesame_atanh((double)x); }

#endif
