/* A thread pool with a part of the work for each thread, and what is left of it for whoever is done: see sesame_pool.h.
 *
 * The range is divided among the threads, and each part into a few chunks. A thread takes the chunks of its own part,
 * so that it works on what it worked on before, and then those that others have not come to: nobody waits for a thread
 * that sleeps or whose core is taken. The caller waits for the chunks that were taken, not for threads.
 *
 * Whoever waits spins for a few microseconds (kernels follow each other closely), then gives up its time slice
 * (somebody else may need this core), then sleeps on a condition variable. A waiter counts itself as asleep before its
 * last look, and a publisher looks at that count after its change, both in the single order of seq_cst operations: one
 * of the two sees the other, so no wake-up is lost and nobody takes the mutex while threads are spinning.
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
  YIELDS = 128, /* looks with the time slice given up between: some 50 microseconds when nobody else wants the core */
  CHUNKS = 4    /* of each part */
};

typedef void (*loop_body)(void *context, int64_t begin, int64_t end);

/* A thread and its part of the job. `ticket` holds the job's number in its upper half and how many chunks nobody has
 * taken yet in its lower half: a chunk is taken by counting down, which fails once the job is another. */
typedef struct {
  alignas(LINE) atomic_uint_least64_t ticket;
  sesame_pool *pool;
  pthread_t thread;
} member;

struct sesame_pool {
  alignas(LINE) atomic_uint generation; /* the job's number; changes when there is a job, or the end */
  atomic_int sleeping_workers;
  atomic_bool stopping;
  alignas(LINE) atomic_int unfinished; /* chunks of the job that are not done */
  atomic_int sleeping_callers;
  alignas(LINE) atomic_flag busy;
  pthread_mutex_t mutex;
  pthread_cond_t work;
  pthread_cond_t done;
  /* The job. A thread that is late may look at it while it is written; it then fails to take a chunk. */
  _Atomic(loop_body) body;
  _Atomic(void *) context;
  atomic_int_least64_t count;
  int threads;
  member members[]; /* the caller's is the first, and has no thread of its own */
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

/* Where part `index` of `parts` of `count` elements begins: the first count % parts are one longer. */
static int64_t begin_of(int64_t count, int64_t parts, int64_t index) {
  int64_t longer = count % parts;
  return count / parts * index + (index < longer ? index : longer);
}

/* The chunks of part `index` of the job. */
static int64_t chunks_of(const sesame_pool *pool, int64_t count, int index) {
  int64_t size = begin_of(count, pool->threads, index + 1) - begin_of(count, pool->threads, index);
  return size < CHUNKS ? size : CHUNKS;
}

/* Does the chunks of part `index` that nobody has taken. */
static void run_part(sesame_pool *pool, int index) {
  atomic_uint_least64_t *ticket = &pool->members[index].ticket;
  uint_least64_t seen = atomic_load(ticket);
  while ((uint32_t)seen != 0) {
    loop_body body = atomic_load(&pool->body);
    void *context = atomic_load(&pool->context);
    int64_t count = atomic_load(&pool->count);
    if (!atomic_compare_exchange_weak(ticket, &seen, seen - 1)) continue;
    int64_t first = begin_of(count, pool->threads, index);
    int64_t size = begin_of(count, pool->threads, index + 1) - first;
    int64_t chunks = chunks_of(pool, count, index);
    int64_t chunk = chunks - (int64_t)(uint32_t)seen;
    body(context, first + begin_of(size, chunks, chunk), first + begin_of(size, chunks, chunk + 1));
    if (atomic_fetch_sub(&pool->unfinished, 1) == 1) wake(pool, &pool->sleeping_callers, &pool->done);
    seen = atomic_load(ticket);
  }
}

/* Does what there is to do, beginning with part `own`. */
static void run_parts(sesame_pool *pool, int own) {
  for (int i = 0; i < pool->threads; i++) run_part(pool, (own + i) % pool->threads);
}

static void announce(sesame_pool *pool) {
  atomic_fetch_add(&pool->generation, 1u);
  wake(pool, &pool->sleeping_workers, &pool->work);
}

static void *work(void *argument) {
  member *self = argument;
  sesame_pool *pool = self->pool;
  for (unsigned seen = 0;;) {
    wait_until(pool, announced, seen, &pool->sleeping_workers, &pool->work);
    if (atomic_load(&pool->stopping)) return NULL;
    seen = atomic_load(&pool->generation);
    run_parts(pool, (int)(self - pool->members));
  }
}

/* Tells `started` workers to end, waits for them and releases what the pool holds. */
static void end_workers(sesame_pool *pool, int started) {
  atomic_store(&pool->stopping, true);
  announce(pool);
  for (int i = 1; i <= started; i++) pthread_join(pool->members[i].thread, NULL);
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
    member *next = &pool->members[started + 1];
    if (pthread_create(&next->thread, NULL, work, next) != 0) break;
    started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

size_t sesame_pool_bytes(int threads) {
  if (threads < 1 || threads > SESAME_POOL_MAX_THREADS) return 0;
  return sizeof(sesame_pool) + (size_t)threads * sizeof(member) + LINE - 1;
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
  atomic_init(&pool->stopping, false);
  atomic_init(&pool->body, NULL);
  atomic_init(&pool->context, NULL);
  atomic_init(&pool->count, 0);
  pool->threads = threads;
  for (int i = 0; i < threads; i++) {
    atomic_init(&pool->members[i].ticket, 0u);
    pool->members[i].pool = pool;
  }
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
  atomic_store(&pool->body, body);
  atomic_store(&pool->context, context);
  atomic_store(&pool->count, count);
  int64_t chunks = 0;
  for (int i = 0; i < pool->threads; i++) chunks += chunks_of(pool, count, i);
  atomic_store(&pool->unfinished, (int)chunks);
  uint_least64_t job = (uint_least64_t)(atomic_load(&pool->generation) + 1u) << 32;
  for (int i = 0; i < pool->threads; i++) {
    atomic_store(&pool->members[i].ticket, job | (uint_least64_t)chunks_of(pool, count, i));
  }
  announce(pool);
  run_parts(pool, 0);
  wait_until(pool, finished, 0u, &pool->sleeping_callers, &pool->done);
  atomic_flag_clear(&pool->busy);
}

#endif
