/* Vectors of the GCC and Clang extension, for the register tiles of generated code.
 *
 * A vector type is named by its element and lanes, f32x16. Loads and stores need the alignment of one element only.
 * Arithmetic is the operators'; a scalar beside a vector stands for every lane.
 */
#ifndef SESAME_VECTOR_H
#define SESAME_VECTOR_H

#include "sesame_scalar.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* vector arguments here are always inlined */
#endif

/* Clang cuts vectors to the width it prefers for a processor, which may be half of the widest, unless told not to. */
#if defined(__clang__)
#define SESAME_VECTOR_BITS(bits) __attribute__((min_vector_width(bits)))
#else
#define SESAME_VECTOR_BITS(bits)
#endif

#define SESAME_VECTOR(V, T, BYTES)                                                              \
  typedef T V __attribute__((vector_size(BYTES)));                                              \
  typedef T V##_at __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));

#define SESAME_LOAD(V, address) ((V) * (const V##_at *)(address))
#define SESAME_STORE(V, address, value) (*(V##_at *)(address) = (value))
/* Minus zero stays minus zero: x - 0 is x. */
#define SESAME_SPLAT(V, scalar) ((scalar) - (V){0})
/* a where the comparison held, else b. */
#define SESAME_PICK(V, mask, a, b) \
  ((V)(((mask) & (__typeof__(mask))(a)) | (~(mask) & (__typeof__(mask))(b))))

/* Maximum and minimum that pass NaN on, and with a bound that is not NaN. */
#define SESAME_VECTOR_ORDER(V)                                                                           \
  static inline V sesame_max_##V(V a, V b) { return SESAME_PICK(V, (a > b) | (a != a), a, b); }          \
  static inline V sesame_min_##V(V a, V b) { return SESAME_PICK(V, (a < b) | (a != a), a, b); }          \
  static inline V sesame_at_least_##V(V x, V low) { return SESAME_PICK(V, x < low, low, x); }            \
  static inline V sesame_at_most_##V(V x, V high) { return SESAME_PICK(V, x > high, high, x); }
#define SESAME_VECTOR_ORDER_OF_INTEGERS(V)                                               \
  static inline V sesame_max_##V(V a, V b) { return SESAME_PICK(V, a > b, a, b); }       \
  static inline V sesame_min_##V(V a, V b) { return SESAME_PICK(V, a < b, a, b); }

/* f32 to bfloat16 and back, for V of f32 and H of as many bf16: what sesame_f32_to_bf16 and sesame_bf16_to_f32 give. */
#define SESAME_VECTOR_BF16(V, H)                                                                         \
  typedef uint32_t H##_bits __attribute__((vector_size(sizeof(V))));                                     \
  static inline H sesame_rounded_##H(V x) {                                                              \
    const H##_bits bits = (H##_bits)x, rounded = bits + 0x7fffu + ((bits >> 16) & 1u);                   \
    return __builtin_convertvector(SESAME_PICK(H##_bits, x != x, bits | 0x400000u, rounded) >> 16, H);   \
  }                                                                                                      \
  static inline V sesame_widened_##H(H x) { return (V)(__builtin_convertvector(x, H##_bits) << 16); }

/* Four bytes as they lie in memory: operands of a dot. */
static inline int32_t sesame_word(const void *operands) {
  int32_t word;
  __builtin_memcpy(&word, operands, sizeof word);
  return word;
}

/* sesame_dot4_V(sum, x, w): to each lane, the four products of the unsigned bytes in that lane of x by the signed bytes
 * in that lane of w are added. Sums wrap around; nothing saturates. One instruction stands alone in its asm: compilers
 * keep the sums in registers around it, which they do not around the intrinsic. */
#define SESAME_BYTES_AT_ONCE(V, B, INSTRUCTION)                            \
  static inline V sesame_dot4_##V(V sum, V x, B w) {                     \
    __asm__(INSTRUCTION " %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));     \
    return sum;                                                          \
  }
/* Twice two products of 16 bits, added: what processors had before. */
#define SESAME_BYTES_BY_PAIRS(V, B, PAIRS)                                                            \
  typedef uint32_t V##_bits __attribute__((vector_size(sizeof(V))));                              \
  typedef int16_t V##_halves __attribute__((vector_size(sizeof(V))));                             \
  static inline V sesame_dot4_##V(V sum, V x, B w) {                                              \
    const V##_bits even_x = (V##_bits)x & 0x00ff00ffu, odd_x = ((V##_bits)x >> 8) & 0x00ff00ffu;  \
    const V##_halves odd_w = (V##_halves)w >> 8;                                                  \
    const V##_halves even_w = (V##_halves)((V##_bits)w << 8) >> 8;                                \
    V even, odd;                                                                                  \
    PAIRS(V, even, (V)even_x, (V)even_w);                                                         \
    PAIRS(V, odd, (V)odd_x, (V)odd_w);                                                            \
    return (V)((V##_bits)sum + (V##_bits)even + (V##_bits)odd);                                   \
  }
#define SESAME_PAIRS_AVX(V, sum, a, b) __asm__("vpmaddwd %2, %1, %0" : "=v"(sum) : "v"(a), "v"(b))
#define SESAME_PAIRS_SSE(V, sum, a, b)              \
  do {                                              \
    (sum) = (a);                                    \
    __asm__("pmaddwd %1, %0" : "+x"(sum) : "x"(b)); \
  } while (0)
#define SESAME_LOW_HALF(V, a) ((V)((V##_bits)(a) << 16) >> 16)
#define SESAME_PAIRS_PLAIN(V, sum, a, b) \
  ((sum) = SESAME_LOW_HALF(V, a) * SESAME_LOW_HALF(V, b) + ((a) >> 16) * ((b) >> 16))

/* By the bits of a vector: code may be compiled for less than it was written for. */
#if defined(__AVX512VNNI__)
#define SESAME_VECTOR_DOT4_512(V, W, B) SESAME_BYTES_AT_ONCE(V, B, "vpdpbusd")
#elif defined(__AVX512BW__)
#define SESAME_VECTOR_DOT4_512(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_AVX)
#else
#define SESAME_VECTOR_DOT4_512(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_PLAIN)
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define SESAME_VECTOR_DOT4_256(V, W, B) SESAME_BYTES_AT_ONCE(V, B, "vpdpbusd")
#define SESAME_VECTOR_DOT4_128(V, W, B) SESAME_BYTES_AT_ONCE(V, B, "vpdpbusd")
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define SESAME_VECTOR_DOT4_256(V, W, B) SESAME_BYTES_AT_ONCE(V, B, "%{vex%} vpdpbusd")
#define SESAME_VECTOR_DOT4_128(V, W, B) SESAME_BYTES_AT_ONCE(V, B, "%{vex%} vpdpbusd")
#elif defined(__AVX2__) && (defined(__AVX512BW__) || !defined(__AVX512F__))
#define SESAME_VECTOR_DOT4_256(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_AVX)
#define SESAME_VECTOR_DOT4_128(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_AVX)
#elif defined(__SSE2__) && !defined(__AVX__)
#define SESAME_VECTOR_DOT4_256(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_PLAIN)
#define SESAME_VECTOR_DOT4_128(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_SSE)
#else
#define SESAME_VECTOR_DOT4_256(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_PLAIN)
#define SESAME_VECTOR_DOT4_128(V, W, B) SESAME_BYTES_BY_PAIRS(V, B, SESAME_PAIRS_PLAIN)
#endif

/* sesame_dot2_V(sum, x, w): to each lane, the product of the odd bf16 in that lane of x and of w is added, then that of
 * the even ones. Each addition rounds once, to nearest even, as a fused multiply-add; denormal operands, sums and
 * results count as zeros of their sign, results after rounding. W is the vector of 32-bit words.
 *
 * This is what vdpbf16ps does. The instruction bfdot of other processors rounds otherwise, and is not used. */
#define SESAME_BF16_AT_ONCE(V, W, B)                                          \
  static inline V sesame_dot2_##V(V sum, W x, B w) {                          \
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));             \
    return sum;                                                               \
  }

/* The bits of an f32, without those of a denormal but for its sign. */
static inline uint32_t sesame_flushed(uint32_t bits) { return bits & 0x7f800000u ? bits : bits & 0x80000000u; }

/* A rounded sum with the last bit set where it lost something: rounding that again rounds the exact sum. */
static inline double sesame_rounded_to_odd(double sum, double lost) {
  union {
    double value;
    uint64_t bits;
  } odd = {sum};
  if ((lost < 0 || lost > 0) && (odd.bits & 1) == 0) odd.bits += (lost > 0) == (sum > 0) ? 1 : (uint64_t)-1;
  return odd.value;
}

/* One addition of dot2. The product of two bf16 is exact in double; what rounds to less than the least normal number
 * becomes zero. */
static inline float sesame_add_product(float sum, uint32_t x, uint32_t w) {
  const double product = (double)sesame_from_bits_f32(sesame_flushed(x)) * (double)sesame_from_bits_f32(sesame_flushed(w));
  const double term = (double)sesame_from_bits_f32(sesame_flushed(sesame_bits_f32(sum)));
  const double rounded = product + term, rest = rounded - product;
  const double lost = (product - (rounded - rest)) + (term - rest);
  const double total = sesame_rounded_to_odd(rounded, lost);
  const double least = 0x1.ffffffp-127; /* halfway from the number of 24 bits below 2^-126, which is denormal */
  if (total > -least && total < least) return total < 0 || (total == 0 && 1 / total < 0) ? -0.0f : 0.0f;
  return (float)total;
}

#define SESAME_BF16_BY_LANE(V, W, B, NAME, ATTRIBUTES)                                             \
  static ATTRIBUTES V NAME(V sum, W x, B w) {                                                      \
    const W words = (W)w;                                                                          \
    for (unsigned i = 0; i < sizeof(V) / 4; i++) {                                                 \
      const uint32_t a = (uint32_t)x[i], b = (uint32_t)words[i];                                   \
      sum[i] = sesame_add_product(sum[i], a & 0xffff0000u, b & 0xffff0000u);                       \
      sum[i] = sesame_add_product(sum[i], a << 16, b << 16);                                       \
    }                                                                                              \
    return sum;                                                                                    \
  }
/* Where nothing is tiny a fused multiply-add gives the same; sums from which on it may not are rare. */
#define SESAME_BF16_FUSED(V, W, B, FUSED, ANY)                                                     \
  typedef uint32_t V##_words __attribute__((vector_size(sizeof(V))));                              \
  SESAME_BF16_BY_LANE(V, W, B, sesame_exact_dot2_##V, __attribute__((noinline, cold, unused)))     \
  static inline V sesame_normal_##V(V##_words bits) {                                              \
    return (V)(bits & ~((V##_words)((bits & 0x7f800000u) == 0) & 0x7fffffffu));                    \
  }                                                                                                \
  static inline W sesame_tiny_##V(V sum) { /* more than 0, and 2^-126 at most */                   \
    return (W)((W)((V##_words)sum + (V##_words)sum + 0x7ffffffeu) < -0x7f000001);                  \
  }                                                                                                \
  static inline V sesame_dot2_##V(V sum, W x, B w) {                                               \
    V first = sum, second;                                                                         \
    const V##_words a = (V##_words)x, b = (V##_words)w;                                            \
    FUSED(first, sesame_normal_##V(a & 0xffff0000u), sesame_normal_##V(b & 0xffff0000u));          \
    second = first;                                                                                \
    FUSED(second, sesame_normal_##V(a << 16), sesame_normal_##V(b << 16));                         \
    const W tiny = sesame_tiny_##V(sum) | sesame_tiny_##V(first) | sesame_tiny_##V(second);        \
    if (__builtin_expect(ANY(tiny) != 0, 0)) return sesame_exact_dot2_##V(sum, x, w);              \
    return second;                                                                                 \
  }
#define SESAME_FUSED_X86(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#define SESAME_FUSED_ARM(sum, a, b) __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(a), "w"(b))
#define SESAME_ANY_512(mask)                                            \
  __extension__({                                                       \
    uint16_t found;                                                     \
    __asm__("vptestmd %1, %1, %0" : "=k"(found) : "v"(mask));           \
    found;                                                              \
  })
#define SESAME_ANY_256(mask) __builtin_ia32_movmskps256((float __attribute__((vector_size(32))))(mask))
#define SESAME_ANY_128(mask) __builtin_ia32_movmskps((float __attribute__((vector_size(16))))(mask))
#define SESAME_ANY_ARM(mask) ((mask)[0] | (mask)[1] | (mask)[2] | (mask)[3])
#define SESAME_BF16_PLAIN(V, W, B) SESAME_BF16_BY_LANE(V, W, B, sesame_dot2_##V, inline)

#if defined(__AVX512BF16__)
#define SESAME_VECTOR_DOT2_512(V, W, B) SESAME_BF16_AT_ONCE(V, W, B)
#elif defined(__AVX512F__)
#define SESAME_VECTOR_DOT2_512(V, W, B) SESAME_BF16_FUSED(V, W, B, SESAME_FUSED_X86, SESAME_ANY_512)
#else
#define SESAME_VECTOR_DOT2_512(V, W, B) SESAME_BF16_PLAIN(V, W, B)
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#define SESAME_VECTOR_DOT2_256(V, W, B) SESAME_BF16_AT_ONCE(V, W, B)
#define SESAME_VECTOR_DOT2_128(V, W, B) SESAME_BF16_AT_ONCE(V, W, B)
#elif defined(__FMA__) && defined(__AVX__)
#define SESAME_VECTOR_DOT2_256(V, W, B) SESAME_BF16_FUSED(V, W, B, SESAME_FUSED_X86, SESAME_ANY_256)
#define SESAME_VECTOR_DOT2_128(V, W, B) SESAME_BF16_FUSED(V, W, B, SESAME_FUSED_X86, SESAME_ANY_128)
#else
#define SESAME_VECTOR_DOT2_256(V, W, B) SESAME_BF16_PLAIN(V, W, B)
#if defined(__aarch64__) && !defined(__AARCH64EB__)
#define SESAME_VECTOR_DOT2_128(V, W, B) SESAME_BF16_FUSED(V, W, B, SESAME_FUSED_ARM, SESAME_ANY_ARM)
#else
#define SESAME_VECTOR_DOT2_128(V, W, B) SESAME_BF16_PLAIN(V, W, B)
#endif
#endif

#endif
