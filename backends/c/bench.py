"""A test bench and a build file for an emitted model: both are C text only, and no part of the model itself."""

from __future__ import annotations

from backends.c.interface import Model
from backends.c.names import Writer, string_literal
from backends.c.sizes import plain_text
from backends.c.toolchain import CODE_FLAGS

_HEAD = r"""
#include "model.h"
#include "sesame_scalar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Usage: bench [--weights FILE] [--threads N] [--repeat N] [DIM=value ...] [name=file ...]
 * Inputs are read from their files (raw little-endian elements; zeros without one), outputs written to theirs.
 * The exit status is the one that the model returned, or BENCH_FAILED. */

enum { BENCH_FAILED = 64 };

static int fail(const char *what, const char *which) {
  fprintf(stderr, "%s: %s\n", what, which);
  return BENCH_FAILED;
}

/* Of an input or output: not a byte more than there are, so that sanitizers see what is read beyond its end. */
static void *exact_memory(size_t bytes) { return calloc(bytes > 0 ? bytes : 1, 1); }

/* Of weights, arena and threads. */
static void *aligned_memory(size_t bytes) {
  size_t rounded = (bytes / 64 + 1) * 64;
  void *memory = aligned_alloc(64, rounded);
  if (memory != NULL) memset(memory, 0, rounded);
  return memory;
}

static int read_file(const char *path, void *memory, size_t bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return 0;
  size_t got = fread(memory, 1, bytes, file);
  int more = fgetc(file) != EOF;
  fclose(file);
  return got == bytes && !more;
}

static int write_file(const char *path, const void *memory, size_t bytes) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) return 0;
  size_t put = fwrite(memory, 1, bytes, file);
  return (fclose(file) == 0) & (put == bytes);
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The text after `name=` in the arguments, or NULL. */
static const char *argument(int count, char **values, const char *name) {
  size_t length = strlen(name);
  for (int i = 1; i < count; i++) {
    if (strncmp(values[i], name, length) == 0 && values[i][length] == '=') return values[i] + length + 1;
  }
  return NULL;
}

static const char *option(int count, char **values, const char *name, const char *otherwise) {
  for (int i = 1; i + 1 < count; i++) {
    if (strcmp(values[i], name) == 0) return values[i + 1];
  }
  return otherwise;
}
"""

_BODY = r"""
/* Fills memory[]: the tensors, the weights, the arena, the threads; main() frees whatever is there. */
static int run(int count, char **values, void **memory) {
  void **io = memory, **weights = memory + @IO@, **arena = memory + @IO@ + 1, **storage = memory + @IO@ + 2;
  const char *const tensor_names[] = {@TENSORS@};
  size_t bytes[@SLOTS@] = {0};
@DIMS@  const int64_t arena_bytes = @P@_call_arena_bytes(dims);
  if (arena_bytes < 0) return fail("dims", "out of bounds");
@BYTES@  for (size_t i = 0; i < @IO@; i++) {
    const char *path = argument(count, values, tensor_names[i]);
    io[i] = exact_memory(bytes[i]);
    if (io[i] == NULL) return fail("out of memory for", tensor_names[i]);
    if (i >= @INPUTS@ || path == NULL) continue;
    if (!read_file(path, io[i], bytes[i])) return fail("not the bytes of the input", path);
  }
  *weights = aligned_memory(@UPPER@_WEIGHTS_BYTES);
  *arena = aligned_memory((size_t)arena_bytes);
  if (*weights == NULL || *arena == NULL) return fail("out of memory for", "weights and arena");
@WEIGHTS@  const int threads = atoi(option(count, values, "--threads", "1"));
  *storage = aligned_memory(sesame_pool_bytes(threads));
  sesame_pool *pool = NULL;
  if (threads > 1 && sesame_pool_start(*storage, sesame_pool_bytes(threads), threads, &pool) != 0) {
    return fail("cannot start", "threads");
  }
  const int repeat = atoi(option(count, values, "--repeat", "1"));
  double best = 1e30, sum = 0;
  int status = @UPPER@_OK;
  for (int i = 0; i < repeat && status == @UPPER@_OK; i++) {
    const double start = seconds();
    status = @P@_call(io, dims, @WEIGHTS_ARG@, *arena, (size_t)arena_bytes, pool@PROFILE@);
    const double took = seconds() - start;
    best = took < best ? took : best;
    sum += took;
  }
  sesame_pool_stop(pool);
  if (status != @UPPER@_OK) {
    fail("run", @P@_strerror(status));
    return status;
  }
  printf("%s: best %.6f ms, mean %.6f ms of %d\n", @P@_version(), best * 1e3, sum / repeat * 1e3, repeat);
  for (size_t i = @INPUTS@; i < @IO@; i++) {
    const char *path = argument(count, values, tensor_names[i]);
    if (path != NULL && !write_file(path, io[i], bytes[i])) return fail("cannot write", path);
  }
  return 0;
}

int main(int count, char **values) {
  void *memory[@IO@ + 3] = {NULL};
  const int status = run(count, values, memory);
  for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) free(memory[i]);
  return status;
}
"""


def bench_source(model: Model) -> str:
    """The text of main.c: reads files, runs the model, reports times, writes files."""
    fields = [*model.fields, *model.told]
    texts = {
        "P": model.prefix,
        "UPPER": model.upper,
        "IO": str(len(fields)),
        "INPUTS": str(len(model.inputs)),
        "TENSORS": ", ".join(string_literal(field.name) for field in fields) or '""',
        "SLOTS": str(max(len(fields), 1)),
        "DIMS": _dims(model),
        "BYTES": _bytes(model),
        "WEIGHTS": "" if model.embed or not model.image.bytes else _READ_WEIGHTS.replace("@UPPER@", model.upper),
        "PROFILE": ", NULL" if model.profile else "",
        "WEIGHTS_ARG": "NULL" if model.embed else "*weights",
    }
    text = _BODY
    for key, value in texts.items():
        text = text.replace(f"@{key}@", value)
    return _HEAD.lstrip("\n") + text


_READ_WEIGHTS = """\
  const char *weights_path = option(count, values, "--weights", "model.weights");
  if (!read_file(weights_path, *weights, @UPPER@_WEIGHTS_BYTES)) return fail("not the weights", weights_path);
"""


def _dims(model: Model) -> str:
    out = Writer(1)
    if not model.sizes:
        out.line("const int64_t *dims = NULL;")
        return out.text
    out.line(f"const char *const dim_names[] = {{{', '.join(string_literal(size) for size in model.sizes)}}};")
    out.line(f"int64_t dims[{len(model.sizes)}];")
    with out.block(f"for (size_t i = 0; i < {len(model.sizes)}; i++)"):
        out.line("const char *text = argument(count, values, dim_names[i]);")
        out.line('if (text == NULL) return fail("give a value for the dim", dim_names[i]);')
        out.line("dims[i] = strtoll(text, NULL, 10);")
    return out.text


def _bytes(model: Model) -> str:
    """Sizes of the tensors in bytes, from the dims."""
    out = Writer(1)
    position = {size: f"dims[{i}]" for i, size in enumerate(model.sizes)}
    for i, field in enumerate(model.fields):
        size = model.program.capacity(field.buffer.type)
        out.line(f"bytes[{i}] = (size_t)({plain_text(size, position.__getitem__)});")
    for i in range(len(model.told)):
        out.line(f"bytes[{len(model.fields) + i}] = sizeof(int64_t);")
    return out.text


def cmake(model: Model, sources: list[str], deterministic: bool = False) -> str:
    """The text of CMakeLists.txt: a static library and the test bench."""
    listed = "\n  ".join(sources)
    return f"""cmake_minimum_required(VERSION 3.13)
project({model.prefix} C)

set(CMAKE_C_STANDARD 11)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
option(SESAME_NATIVE "Compile for the processor of this machine" ON)

find_package(Threads REQUIRED)
add_library({model.prefix} STATIC
  {listed})
target_include_directories({model.prefix} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options({model.prefix} PRIVATE
  -O3 {" ".join(CODE_FLAGS)} -ffp-contract={"off" if deterministic else "fast"})
if(SESAME_NATIVE)
  target_compile_options({model.prefix} PRIVATE -march=native)
endif()
target_link_libraries({model.prefix} PUBLIC m Threads::Threads)

add_executable({model.prefix}_bench main.c)
target_link_libraries({model.prefix}_bench PRIVATE {model.prefix})
"""
