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

#endif
