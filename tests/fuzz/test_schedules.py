"""Random schedules: primitives applied in random order to the kernels of products and convolutions, which must then be
valid and compute what the kernel computed before, to the bit. Elements are small integers, so that sums are exact in
any order. A primitive may refuse (ScheduleError); it must not be wrong. A failure names its seed and the steps taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from backends.reference.kernel import run_kernel
from compiler.passes.lower import kernel_of
from compiler.passes.simplify import simplify
from ir.blob import ArrayBlob
from ir.build import graph_of
from ir.dims import decide_le, evaluate
from ir.expr import Expr
from ir.kernel import For, Kernel, Mark, Variable, walk_stmts
from ir.kernel_verify import kernel_problems
from ir.op import OPS, parse_type
from ir.panels import PanelBlob
from ir.schedule import ScheduleError, mark, pack, reorder, split, stage, unflatten

_SEEDS = 150
_SIZES = {"N": 7, "M": 5}


class Scheduling:
    """A kernel on its way through random primitives, and the arrays to run it on."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kernel, self.weight = _random_kernel(self.rng)
        self.steps: list[str] = []
        rng = np.random.default_rng(seed)
        self.buffers = {
            b.name: rng.integers(-3, 4, [evaluate(size, _SIZES) for size in b.type.shape]).astype(b.type.dtype.numpy)
            for b in self.kernel.params
        }
        self.result = self.kernel.params[-1].name
        self.wanted = self.run()

    def run(self) -> np.ndarray:
        self.buffers[self.result] = np.full_like(self.buffers[self.result], -77)
        sizes = {name: value for name, value in _SIZES.items() if name in self.kernel.sizes}
        run_kernel(self.kernel, self.buffers, sizes)
        return self.buffers[self.result].copy()

    def loops(self) -> list[For]:
        return [s for s in walk_stmts(self.kernel.body) if isinstance(s, For)]

    def outer(self) -> list[For]:
        """The loops over the output: perfectly nested, outermost first."""
        nest: list[For] = []
        body = self.kernel.body
        while len(body) == 1 and isinstance(body[0], For):
            nest.append(body[0])
            body = body[0].body
        return nest

    def apply(self, text: str, change: Callable[[Kernel], Kernel]) -> None:
        """Takes a step where it is not refused."""
        try:
            self.kernel = change(self.kernel)
        except ScheduleError:
            return
        self.steps.append(text)

    def split(self) -> None:
        found = self.rng.choice(self.loops())
        factor, tail = self.rng.choice([2, 3, 4, 5, 8]), self.rng.choice(["exact", "peel", "overlap"])
        is_output = found in self.outer()
        if isinstance(found.extent, Expr):
            return
        if tail == "overlap" and not (is_output and decide_le(factor, evaluate(found.extent, _SIZES))):
            return  # its contract: iterations are idempotent, and there are enough of them
        n, loop = len(self.steps), found.var
        self.apply(
            f"split {loop} {factor} {tail}", lambda k: split(k, loop, factor, f"{loop}o{n}", f"{loop}i{n}", tail)
        )

    def reorder(self) -> None:
        nest = [f.var for f in self.outer()]
        if len(nest) < 2:
            return
        start = self.rng.randrange(len(nest) - 1)
        part = nest[start : self.rng.randint(start + 2, len(nest))]
        self.rng.shuffle(part)
        self.apply(f"reorder {part}", lambda k: reorder(k, part))

    def stage(self) -> None:
        nest = [f.var for f in self.outer()]
        variables = [s.name for s in walk_stmts(self.kernel.body) if isinstance(s, Variable)]
        if not nest or not variables:
            return
        name, inner = self.rng.choice(variables), nest[-self.rng.randint(1, min(2, len(nest))) :]
        self.apply(f"stage {name} {inner}", lambda k: stage(k, name, inner))

    def mark(self) -> None:
        loop = self.rng.choice(self.loops()).var
        how: Mark = "vector" if self.rng.random() < 0.5 else "unroll"
        self.apply(f"mark {loop} {how}", lambda k: mark(k, loop, how))

    def simplify(self) -> None:
        self.apply("simplify", simplify.run)

    def pack(self) -> None:
        """Splits the last loop of the output exactly, and packs the weights that it indexes."""
        buffer, array = self.kernel.buffer(self.weight), self.buffers[self.weight]
        if not self.outer() or buffer.type.rank < 2:
            return
        axis, factor = self.rng.randrange(buffer.type.rank), self.rng.choice([2, 3, 4])
        if array.shape[axis] % factor:
            return
        before = len(self.steps)
        self.apply(f"pack {axis} {factor}", lambda k: pack(k, self.weight, axis, factor))
        if len(self.steps) > before:
            last = np.moveaxis(array, axis, -1)
            whole = ArrayBlob(np.ascontiguousarray(last))
            self.buffers[self.weight] = PanelBlob(whole, last.shape[:-1], factor).array()

    def unflatten(self) -> None:
        buffer, array = self.kernel.buffer(self.weight), self.buffers[self.weight]
        axis, factor = self.rng.randrange(buffer.type.rank), self.rng.choice([2, 3])
        before = len(self.steps)
        self.apply(f"unflatten {axis} {factor}", lambda k: unflatten(k, self.weight, axis, factor))
        if len(self.steps) > before:
            shape = [*array.shape[:axis], array.shape[axis] // factor, factor, *array.shape[axis + 1 :]]
            self.buffers[self.weight] = array.reshape(shape)


def _random_kernel(rng: random.Random) -> tuple[Kernel, str]:
    """The kernel of a product, a convolution, or a window, and the name of its weights."""
    how = rng.choice(["matmul", "batched", "conv", "last", "pool"])
    a, b, c = (rng.choice([1, 2, 3, 4, 6, 8, 9]) for _ in range(3))
    rows = rng.choice([a, "N"])
    if how == "matmul":
        graph = graph_of(
            OPS["matmul"](), [parse_type(f"f32[{rows},{b}]"), parse_type(f"f32[{b},{rng.choice([c, 'M'])}]")]
        )
    elif how == "batched":
        graph = graph_of(OPS["matmul"](), [parse_type(f"f32[2,{rows},{b}]"), parse_type(f"f32[2,{b},{c}]")])
    elif how == "pool":
        attributes = {"window": (2,), "stride": (1,), "pad": (1, 0), "dilation": (1,), "ceil": False}
        graph = graph_of(OPS["max_pool"](**attributes), [parse_type(f"f32[{rows},{b},{c + 1}]")])
    else:
        op, groups = ("conv_channels_last", 1) if how == "last" else ("conv", rng.choice([1, 2]))
        attributes = {"stride": (rng.choice([1, 2]),), "pad": (1, 1), "dilation": (1,), "groups": groups}
        x = f"f32[{rows},6,{2 * b}]" if how == "last" else f"f32[{rows},{2 * b},6]"
        w = f"f32[3,{2 * b},{2 * c}]" if how == "last" else f"f32[{2 * c},{2 * b // groups},3]"
        graph = graph_of(OPS[op](**attributes), [parse_type(x), parse_type(w)])
    kernel, _ = kernel_of(next(iter(graph.nodes())))
    return kernel, kernel.params[-2].name


@pytest.mark.parametrize("block", range(5))
def test_schedules_keep_what_is_computed(block: int) -> None:
    steps = ["split", "split", "split", "reorder", "reorder", "stage", "mark", "simplify", "pack", "unflatten"]
    taken = 0
    for seed in range(block * _SEEDS // 5, (block + 1) * _SEEDS // 5):
        made = Scheduling(seed)
        for _ in range(made.rng.randint(3, 8)):
            getattr(made, made.rng.choice(steps))()
            story = f"seed {seed}: {made.kernel.name}: {'; '.join(made.steps)}"
            try:
                wrong = list(kernel_problems(made.kernel))
                result = made.run()
            except Exception as error:
                raise AssertionError(f"{story}\n{type(error).__name__}: {error}\n{made.kernel}") from error
            assert not wrong, f"{story}\n{wrong[0]}\n{made.kernel}"
            assert np.array_equal(result, made.wanted), f"{story}\n{made.kernel}"
        taken += len(made.steps)
    assert taken > _SEEDS / 5  # most seeds take several steps
