"""What this machine can do at most, measured: multiplications with additions in vectors, and bytes read from memory.

Each thread does the same on its own; a rate is the sum of those that all reach at once. Times of kernels are held
against these, so they come from code that does nothing else.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.c.toolchain import build_shared, find_compiler

if TYPE_CHECKING:
    from backends.c import CBackend

_CHAINS = 12
_ROUNDS = 200_000
_LEAST_BYTES, _MOST_BYTES = 1 << 16, 1 << 29
_READ_BYTES = 1 << 26
_SECONDS = 0.3

_SOURCE = """\
#include <stdint.h>

typedef float vector __attribute__((vector_size(4 * @LANES@), aligned(4)));

/* Sums that do not wait for one another. */
float ceiling_operations(float factor, int64_t rounds) {
  vector sums[@CHAINS@], factors = factor - (vector){0};
  for (int i = 0; i < @CHAINS@; i++) sums[i] = factors + (float)i;
  for (int64_t n = 0; n < rounds; n++) {
@MULTIPLY@
  }
  float total = 0;
  for (int i = 0; i < @CHAINS@; i++) total += sums[i][0];
  return total;
}

float ceiling_read(const float *memory, int64_t count, int64_t times) {
  vector sums[@CHAINS@];
  for (int i = 0; i < @CHAINS@; i++) sums[i] = (vector){0};
  for (int64_t n = 0; n < times; n++) {
    for (int64_t at = 0; at + @CHAINS@ * @LANES@ <= count; at += @CHAINS@ * @LANES@) {
@READ@
    }
  }
  float total = 0;
  for (int i = 0; i < @CHAINS@; i++) total += sums[i][0];
  return total;
}
"""


def measure_ceilings(options: CBackend, lanes: int, threads: int, bytes_: int) -> dict[str, float]:
    """GFLOP/s of f32, and GB/s of reading memory as large as `bytes_` again and again. Raises ToolError."""
    with tempfile.TemporaryDirectory(prefix="sesame-ceilings-", ignore_cleanup_errors=True) as folder:
        library = _library(Path(folder), options, lanes)
    share = max(_LEAST_BYTES, min(bytes_, _MOST_BYTES) // threads)
    times = max(1, _READ_BYTES // share // threads)
    memories = [np.ones(share // 4, np.float32) for _ in range(threads)]
    operations = _rate(threads, lambda _: library.ceiling_operations(1e-9, _ROUNDS))
    reads = _rate(threads, lambda i: library.ceiling_read(memories[i].ctypes.data, share // 4, times))
    return {"gflops": operations * _ROUNDS * _CHAINS * lanes * 2 / 1e9, "gbytes": reads * share * times / 1e9}


def _library(folder: Path, options: CBackend, lanes: int) -> ctypes.CDLL:
    chains = range(_CHAINS)
    texts = {
        "MULTIPLY": "\n".join(f"    sums[{i}] = sums[{i}] * factors + factors;" for i in chains),
        "READ": "\n".join(f"      sums[{i}] += *(const vector *)(memory + at + {i * lanes});" for i in chains),
        "LANES": str(lanes),
        "CHAINS": str(_CHAINS),
    }
    text = _SOURCE
    for key, value in texts.items():
        text = text.replace(f"@{key}@", value)
    source = folder / "ceilings.c"
    source.write_text(text, encoding="ascii")
    compiler = find_compiler(options.cc or None)
    build_shared([source], folder / "ceilings.so", compiler, opt="-O3", march=options.march or None)
    library = ctypes.CDLL(str(folder / "ceilings.so"))
    library.ceiling_operations.argtypes = [ctypes.c_float, ctypes.c_int64]
    library.ceiling_operations.restype = ctypes.c_float
    library.ceiling_read.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    library.ceiling_read.restype = ctypes.c_float
    return library


def _rate(threads: int, work: Callable[[int], object]) -> float:
    """How often all threads do their work in a second, added up: the best of many short attempts."""
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        best = max(best, _attempt(threads, work))
    return best


def _attempt(threads: int, work: Callable[[int], object]) -> float:
    rates = [0.0] * threads
    together = threading.Barrier(threads)

    def run(number: int) -> None:
        together.wait()
        start = time.perf_counter()
        work(number)
        rates[number] = 1 / (time.perf_counter() - start)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(1, threads)]
    for worker in workers:
        worker.start()
    run(0)
    for worker in workers:
        worker.join()
    return sum(rates)


__all__ = ["measure_ceilings"]
