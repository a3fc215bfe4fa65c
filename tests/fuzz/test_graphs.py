"""Random graphs: the compiled C computes what the interpreter does, and so does the graph after the graph passes.

Each graph is compiled once and run at two values of every symbolic dim, and with two threads, which must give the same
bits as one. A failure names its seed; `FUZZ_SEED=123 pytest tests/fuzz/test_graphs.py -k one_seed -s` prints that graph
and checks it again. `FUZZ_GRAPHS=1000 FUZZ_FIRST=5000 pytest tests/fuzz/test_graphs.py -m sweep` runs a thousand from
seed 5000 on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.differential import check
from tests.fuzz.graphs import random_graph

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a mean of nothing is NaN, with a warning
_BLOCKS, _PER_BLOCK = 6, 10


def _check_all(seeds: range, folder: Path) -> None:
    problems = [problem for seed in seeds for problem in check(seed, folder / str(seed))]
    failed = sorted({problem.seed for problem in problems})
    assert not problems, f"{len(failed)} of {len(seeds)} graphs: {failed}\n" + "\n".join(map(str, problems))


@pytest.mark.parametrize("block", range(_BLOCKS))
def test_compiled_as_interpreted(block: int, tmp_path: Path) -> None:
    _check_all(range(block * _PER_BLOCK, (block + 1) * _PER_BLOCK), tmp_path)


@pytest.mark.skipif("FUZZ_SEED" not in os.environ, reason="FUZZ_SEED names no graph")
def test_one_seed(tmp_path: Path) -> None:
    seed = int(os.environ["FUZZ_SEED"])
    sample = random_graph(seed)
    print(sample.graph, *sample.sizes, sep="\n")
    _check_all(range(seed, seed + 1), tmp_path)


@pytest.mark.sweep
def test_many(tmp_path: Path) -> None:
    first = int(os.environ.get("FUZZ_FIRST", "1000"))
    _check_all(range(first, first + int(os.environ.get("FUZZ_GRAPHS", "200"))), tmp_path)


def test_the_same_seed_gives_the_same_graph() -> None:
    for seed in range(20):
        first, second, wide = random_graph(seed), random_graph(seed), random_graph(seed, is_wide=True)
        assert str(first.graph) == str(second.graph)
        assert [node.op.name for node in first.graph.nodes()] == [node.op.name for node in wide.graph.nodes()]
