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

#define SESAME_LOAD(V, address) (*(const V##_at *)(address))
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

/* Four bytes, unsigned ones, as they lie in memory. */
static inline int32_t sesame_word(const uint8_t *bytes) {
  int32_t word;
  __builtin_memcpy(&word, bytes, sizeof word);
  return word;
}

/* sesame_dot4_V(sum, x, w): to each lane, the four products of the unsigned bytes in that lane of x by the signed bytes
 * in that lane of w are added. Sums wrap around; nothing saturates. One instruction stands alone in its asm: compilers
 * keep the sums in registers around it, which they do not around the intrinsic. */
#define SESAME_DOT_OF_FOUR(V, B, INSTRUCTION)                            \
  static inline V sesame_dot4_##V(V sum, V x, B w) {                     \
    __asm__(INSTRUCTION " %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));     \
    return sum;                                                          \
  }
/* Twice two products of 16 bits, added: what processors had before. */
#define SESAME_DOT_OF_TWO(V, B, PAIRS)                                                            \
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
#define SESAME_VECTOR_DOT_512(V, B) SESAME_DOT_OF_FOUR(V, B, "vpdpbusd")
#elif defined(__AVX512BW__)
#define SESAME_VECTOR_DOT_512(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_AVX)
#else
#define SESAME_VECTOR_DOT_512(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_PLAIN)
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define SESAME_VECTOR_DOT_256(V, B) SESAME_DOT_OF_FOUR(V, B, "vpdpbusd")
#define SESAME_VECTOR_DOT_128(V, B) SESAME_DOT_OF_FOUR(V, B, "vpdpbusd")
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define SESAME_VECTOR_DOT_256(V, B) SESAME_DOT_OF_FOUR(V, B, "%{vex%} vpdpbusd")
#define SESAME_VECTOR_DOT_128(V, B) SESAME_DOT_OF_FOUR(V, B, "%{vex%} vpdpbusd")
#elif defined(__AVX2__) && (defined(__AVX512BW__) || !defined(__AVX512F__))
#define SESAME_VECTOR_DOT_256(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_AVX)
#define SESAME_VECTOR_DOT_128(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_AVX)
#elif defined(__SSE2__) && !defined(__AVX__)
#define SESAME_VECTOR_DOT_256(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_PLAIN)
#define SESAME_VECTOR_DOT_128(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_SSE)
#else
#define SESAME_VECTOR_DOT_256(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_PLAIN)
#define SESAME_VECTOR_DOT_128(V, B) SESAME_DOT_OF_TWO(V, B, SESAME_PAIRS_PLAIN)
#endif

#endif
