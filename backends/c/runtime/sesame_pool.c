/* A thread pool with a static split: see sesame_pool.h.
 *
 * One generation counter announces work, one counter of unfinished workers announces its end. Every worker
 * acknowledges every generation, so that the job's fields are never written while a late worker still reads them.
 * Whoever waits spins for a few microseconds (kernels follow each other closely), then gives up its time slice
 * (somebody else may need this core), then sleeps on a condition variable. A waiter counts itself as asleep before its
 * last look at the counter, and a publisher looks at that count after changing the counter, both in the single order
 * of seq_cst operations: one of the two sees the other, so no wake-up is lost and nobody takes the mutex while threads
 * are spinning.
 */
#define _POSIX_C_SOURCE 200809L

#include "sesame_pool.h"

#ifdef SESAME_NO_THREADS

struct sesame_pool {
  int threads;
};

size_t sesame_pool_bytes(int threads) { return threads == 1 ? sizeof(sesame_pool) + sizeof(void *) : 0; }

int sesame_pool_start(void *storage, size_t bytes, int threads, sesame_pool **out) {
  if (out == NULL) return SESAME_POOL_BAD_ARGUMENT;
  *out = NULL;
  if (storage == NULL || threads < 1) return SESAME_POOL_BAD_ARGUMENT;
  if (threads > 1) return SESAME_POOL_NO_THREAD;
  if (bytes < sesame_pool_bytes(threads)) return SESAME_POOL_TOO_SMALL;
  uintptr_t start = ((uintptr_t)storage + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
  *out = (sesame_pool *)start;
  (*out)->threads = 1;
  return SESAME_POOL_OK;
}

void sesame_pool_stop(sesame_pool *pool) { (void)pool; }

int sesame_pool_threads(const sesame_pool *pool) { return pool == NULL ? 1 : pool->threads; }

void sesame_parallel_for(sesame_pool *pool, int64_t count, void (*body)(void *, int64_t, int64_t), void *context) {
  (void)pool;
  if (count > 0) body(context, 0, count);
}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
  LINE = 64,    /* a cache line: counters that different threads write are kept apart */
  SPINS = 512,  /* looks with a pause between: 2 to 20 microseconds by processor */
  YIELDS = 128  /* looks with the time slice given up between: some 50 microseconds when nobody else wants the core */
};

typedef struct {
  sesame_pool *pool;
  int index; /* of its chunk; the caller's is 0 */
  pthread_t thread;
} worker;

struct sesame_pool {
  alignas(LINE) atomic_uint generation; /* changes when there is a job, or the end */
  atomic_int sleeping_workers;
  alignas(LINE) atomic_int unfinished; /* workers that have not acknowledged this generation */
  atomic_int sleeping_callers;
  alignas(LINE) atomic_flag busy;
  pthread_mutex_t mutex;
  pthread_cond_t work;
  pthread_cond_t done;
  /* The job: written by the caller before it changes the generation. */
  void (*body)(void *context, int64_t begin, int64_t end);
  void *context;
  int64_t count;
  bool stopping;
  int threads;
  worker workers[]; /* threads - 1 */
};

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
  __asm__ volatile("yield");
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

static bool announced(sesame_pool *pool, unsigned seen) { return atomic_load(&pool->generation) != seen; }

static bool finished(sesame_pool *pool, unsigned unused) {
  (void)unused;
  return atomic_load(&pool->unfinished) == 0;
}

/* Returns when ready(pool, argument) holds: spin, yield, sleep. */
static void wait_until(sesame_pool *pool, bool (*ready)(sesame_pool *, unsigned), unsigned argument,
                       atomic_int *sleeping, pthread_cond_t *condition) {
  for (int i = 0; i < SPINS; i++) {
    if (ready(pool, argument)) return;
    pause_briefly();
  }
  for (int i = 0; i < YIELDS; i++) {
    if (ready(pool, argument)) return;
    sched_yield();
  }
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(sleeping, 1);
  while (!ready(pool, argument)) pthread_cond_wait(condition, &pool->mutex);
  atomic_fetch_sub(sleeping, 1);
  pthread_mutex_unlock(&pool->mutex);
}

/* Wakes those that sleep on `condition`. Taking the mutex makes sure that they have reached the wait. */
static void wake(sesame_pool *pool, atomic_int *sleeping, pthread_cond_t *condition) {
  if (atomic_load(sleeping) == 0) return;
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(condition);
  pthread_mutex_unlock(&pool->mutex);
}

/* Chunk `index` of the job: the first count % threads chunks are one longer. Empty chunks are not called. */
static void run_chunk(const sesame_pool *pool, int index) {
  int64_t size = pool->count / pool->threads;
  int64_t longer = pool->count % pool->threads;
  int64_t begin = index * size + (index < longer ? index : longer);
  int64_t end = begin + size + (index < longer ? 1 : 0);
  if (begin < end) pool->body(pool->context, begin, end);
}

static void announce(sesame_pool *pool) {
  atomic_store(&pool->unfinished, pool->threads - 1);
  atomic_fetch_add(&pool->generation, 1u);
  wake(pool, &pool->sleeping_workers, &pool->work);
}

static void *work(void *argument) {
  const worker *self = argument;
  sesame_pool *pool = self->pool;
  bool stopping = false;
  for (unsigned seen = 0; !stopping; seen++) {
    wait_until(pool, announced, seen, &pool->sleeping_workers, &pool->work);
    stopping = pool->stopping;
    if (!stopping) run_chunk(pool, self->index);
    if (atomic_fetch_sub(&pool->unfinished, 1) == 1) wake(pool, &pool->sleeping_callers, &pool->done);
  }
  return NULL;
}

/* Tells `started` workers to end, waits for them and releases what the pool holds. */
static void end_workers(sesame_pool *pool, int started) {
  pool->threads = started + 1;
  pool->stopping = true;
  announce(pool);
  for (int i = 0; i < started; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->mutex);
}

/* Starts the workers with all signals blocked, so that the host's handlers run on the host's threads. */
static int start_workers(sesame_pool *pool) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int started = 0;
  while (started < pool->threads - 1) {
    worker *next = &pool->workers[started];
    next->pool = pool;
    next->index = started + 1;
    if (pthread_create(&next->thread, NULL, work, next) != 0) break;
    started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

size_t sesame_pool_bytes(int threads) {
  if (threads < 1 || threads > SESAME_POOL_MAX_THREADS) return 0;
  return sizeof(sesame_pool) + (size_t)(threads - 1) * sizeof(worker) + LINE - 1;
}

int sesame_pool_start(void *storage, size_t bytes, int threads, sesame_pool **out) {
  if (out == NULL) return SESAME_POOL_BAD_ARGUMENT;
  *out = NULL;
  size_t needed = sesame_pool_bytes(threads);
  if (storage == NULL || needed == 0) return SESAME_POOL_BAD_ARGUMENT;
  if (bytes < needed) return SESAME_POOL_TOO_SMALL;
  sesame_pool *pool = (sesame_pool *)(((uintptr_t)storage + LINE - 1) / LINE * LINE);
  atomic_init(&pool->generation, 0u);
  atomic_init(&pool->sleeping_workers, 0);
  atomic_init(&pool->unfinished, 0);
  atomic_init(&pool->sleeping_callers, 0);
  atomic_flag_clear(&pool->busy);
  pool->stopping = false;
  pool->threads = threads;
  if (pthread_mutex_init(&pool->mutex, NULL) != 0) return SESAME_POOL_NO_THREAD;
  if (pthread_cond_init(&pool->work, NULL) != 0 || pthread_cond_init(&pool->done, NULL) != 0) {
    return SESAME_POOL_NO_THREAD;
  }
  int started = start_workers(pool);
  if (started < threads - 1) {
    end_workers(pool, started);
    return SESAME_POOL_NO_THREAD;
  }
  *out = pool;
  return SESAME_POOL_OK;
}

void sesame_pool_stop(sesame_pool *pool) {
  if (pool != NULL) end_workers(pool, pool->threads - 1);
}

int sesame_pool_threads(const sesame_pool *pool) { return pool == NULL ? 1 : pool->threads; }

void sesame_parallel_for(sesame_pool *pool, int64_t count, void (*body)(void *, int64_t, int64_t), void *context) {
  if (count <= 0) return;
  if (pool == NULL || pool->threads == 1 || count == 1 || atomic_flag_test_and_set(&pool->busy)) {
    body(context, 0, count);
    return;
  }
  pool->body = body;
  pool->context = context;
  pool->count = count;
  announce(pool);
  run_chunk(pool, 0);
  wait_until(pool, finished, 0u, &pool->sleeping_callers, &pool->done);
  atomic_flag_clear(&pool->busy);
}

#endif
