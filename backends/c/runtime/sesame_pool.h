/* A small thread pool that the caller owns: it lives in memory the caller provides and in threads the caller asked for.
 * No allocation, no globals. Compile sesame_pool.c with -DSESAME_NO_THREADS where there is no pthread.h: a pool then
 * has one thread, the caller's.
 *
 *     _Alignas(64) static unsigned char storage[8192];
 *     sesame_pool *pool;
 *     int status = sesame_pool_start(storage, sizeof storage, 4, &pool);   // 0, or a SESAME_POOL_ code
 *     sesame_parallel_for(pool, rows, body, &context);
 *     sesame_pool_stop(pool);
 */
#ifndef SESAME_POOL_H
#define SESAME_POOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sesame_pool sesame_pool;

enum {
  SESAME_POOL_OK = 0,
  SESAME_POOL_BAD_ARGUMENT = 1, /* null pointer, or threads outside [1, SESAME_POOL_MAX_THREADS] */
  SESAME_POOL_TOO_SMALL = 2,    /* bytes < sesame_pool_bytes(threads) */
  SESAME_POOL_NO_THREAD = 3     /* the system refused a thread; none is left running */
};

#define SESAME_POOL_MAX_THREADS 1024

/* Bytes of storage for `threads` threads, the caller's included; 0 if there cannot be so many. Any alignment of the
 * storage will do. */
size_t sesame_pool_bytes(int threads);

/* Starts threads - 1 threads; the thread that calls sesame_parallel_for is the remaining one. `storage` must outlive
 * the pool. Returns a SESAME_POOL_ code; *out is NULL unless it is SESAME_POOL_OK. */
int sesame_pool_start(void *storage, size_t bytes, int threads, sesame_pool **out);

/* Ends the threads and waits for them. NULL is allowed. No sesame_parallel_for may be running. */
void sesame_pool_stop(sesame_pool *pool);

/* Threads that share the work, the caller's included; 1 for NULL. */
int sesame_pool_threads(const sesame_pool *pool);

/* Calls body(context, begin, end) once for each of some contiguous chunks of [0, count), and returns when all are done.
 * How it is split depends on nothing but count and the number of threads; which thread does a chunk depends on who
 * comes first. What the bodies wrote is visible to the caller on return. With pool == NULL, or while the pool is
 * already at work (a nested call, or another caller), the caller does the whole range inline. count <= 0 does nothing.
 */
void sesame_parallel_for(sesame_pool *pool, int64_t count, void (*body)(void *context, int64_t begin, int64_t end),
                         void *context);

#ifdef __cplusplus
}
#endif

#endif
