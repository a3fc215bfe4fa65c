"""Random graphs for differential tests: a graph, the sizes to run it at, and feeds, all from one seed.

A graph is grown by the recipes of `tests.fuzz.recipes`. Values stay small (each has a bound on its magnitude), so that
nothing overflows and a tolerance can be stated; what jumps at a threshold (comparisons, rounding) is applied only to
values that every correct program computes exactly. The same seed gives the same graph in f32 and, as its wide twin, in
f64: how far the two differ is how much the graph amplifies rounding. Nothing here knows how graphs are compiled.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import ir.ops  # noqa: F401 - registers the ops
from ir import types as t
from ir.blob import ArrayBlob
from ir.build import Builder
from ir.dims import Size, bounded, evaluate, names, symbol
from ir.graph import Graph, Value
from ir.op import OpError
from ir.types import DType, TensorType

SYMBOLS = ("N", "M")
EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 33)
"""Values that symbolic dims take: 1, primes, and both sides of the vector lengths."""
STATIC = (1, 1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17)
MOST_ELEMENTS = 40_000
_GRAIN = 64
"""Inputs are multiples of 1/64 between -2 and 2: exact in f16, f32 and f64, and now and then equal to each other."""


@dataclass(frozen=True)
class Sample:
    """A random graph, two values for each of its symbolic dims, and the range of each integer input."""

    seed: int
    graph: Graph
    sizes: tuple[dict[str, int], dict[str, int]]
    ranges: Mapping[str, tuple[int, int]]

    def feeds(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """An array for every input, at these sizes."""
        rng = np.random.default_rng([self.seed, *sizes.values()])
        made = {}
        for value in self.graph.inputs:
            shape = [evaluate(size, sizes) for size in value.shape]
            made[value.name] = random_array(rng, value.dtype, shape, self.ranges.get(value.name, (-4, 5)))
        return made


def random_array(
    rng: np.random.Generator, dtype: DType, shape: Sequence[int], within: tuple[int, int] = (-4, 5)
) -> np.ndarray:
    """Integers of `within` (its end left out), booleans, or floats of [-2, 2] that every float type holds exactly."""
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    if dtype.is_integer:
        return rng.integers(*within, shape).astype(dtype.numpy)
    return (rng.integers(-2 * _GRAIN, 2 * _GRAIN + 1, shape) / _GRAIN).astype(dtype.numpy)


class Maker:
    """A graph in the making. Recipes take operands from it, apply ops with `b`, and put their results back."""

    def __init__(self, seed: int, is_wide: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.float = t.f64 if is_wide else t.f32
        self.half = t.f64 if is_wide else t.f16
        self.graph = Graph(f"fuzz{seed}")
        self.b = Builder(self.graph)
        self.pool: list[Value] = []
        self.magnitude: dict[Value, float] = {}
        self.exact: set[Value] = set()
        self.ranges: dict[str, tuple[int, int]] = {}
        self.has_symbols = self.rng.random() < 0.6
        self.sizes = (self._sizes(), self._sizes())
        for name in SYMBOLS:
            given = [sizes[name] for sizes in self.sizes]
            if self.rng.random() < 0.3:
                self.graph.bounds[name] = (min(given), self.rng.choice([None, max(given), 512]))

    # -- sizes

    def _sizes(self) -> dict[str, int]:
        is_empty = self.rng.random() < 0.07
        return {name: 0 if is_empty and self.rng.random() < 0.5 else self.rng.choice(EXTENTS) for name in SYMBOLS}

    def dim(self) -> Size:
        if self.has_symbols and self.rng.random() < 0.35:
            return symbol(self.rng.choice(SYMBOLS))
        return self.rng.choice(STATIC)

    def shape(self, least: int = 1, most: int = 4) -> tuple[Size, ...]:
        while True:
            shape = tuple(self.dim() for _ in range(self.rng.randint(least, most)))
            if self.extent(shape) <= MOST_ELEMENTS // 8:
                return shape

    def extent(self, shape: Sequence[Size]) -> int:
        """The greatest number of elements that a tensor of this shape can have."""
        most: dict[str, int] = {name: max(EXTENTS) for name in SYMBOLS}
        return math.prod(abs(evaluate(size, most)) for size in shape)

    # -- values

    def input(self, shape: Sequence[Size], dtype: DType | None = None, within: tuple[int, int] = (-4, 5)) -> Value:
        value = self.graph.add_input(f"x{len(self.graph.inputs)}", TensorType(dtype or self.float, tuple(shape)))
        if value.dtype.is_integer:
            self.ranges[value.name] = within
        return self.put(value, max(2, *map(abs, within)) if value.dtype.is_integer else 2.0, exact=True)

    def constant(self, shape: Sequence[int], dtype: DType | None = None, within: tuple[int, int] = (-4, 5)) -> Value:
        rng = np.random.default_rng(self.rng.randrange(1 << 30))
        made = self.b.const(ArrayBlob(random_array(rng, dtype or self.float, shape, within)))
        return self.put(made, max(2, *map(abs, within)) if made.dtype.is_integer else 2.0, exact=True, keep=False)

    def operand(self, shape: Sequence[Size]) -> Value:
        """A new input, or where the shape is static perhaps a constant."""
        if all(isinstance(size, int) for size in shape) and self.rng.random() < 0.6:
            return self.constant([int(size) for size in shape])  # type: ignore[arg-type]
        return self.input(shape)

    def put(self, value: Value, magnitude: float, exact: bool = False, keep: bool = True) -> Value:
        """Records what is known of a value, and with `keep` makes it an operand for later recipes."""
        self.magnitude[value] = magnitude
        if exact:
            self.exact.add(value)
        if keep:
            self.pool.append(value)
        return value

    def pick(self, accepts: Callable[[Value], bool] = lambda _: True, most: float = 64.0) -> Value:
        """A float value, mostly a recent one, of magnitude `most` at most; a new input where there is none."""
        found = [v for v in self.pool if v.dtype == self.float and accepts(v)]
        if not found:
            shape = self.shape()
            value = self.input(shape)
            if not accepts(value):
                raise OpError("no operand fits")
            return value
        place = int(len(found) * self.rng.random() ** 0.5)
        return self.tame(found[place], most)

    def pick_exact(self, accepts: Callable[[Value], bool] = lambda _: True) -> Value:
        return self.pick(lambda v: v in self.exact and accepts(v))

    def tame(self, value: Value, most: float) -> Value:
        """`value`, scaled down where it may be greater than `most`."""
        if self.magnitude[value] <= most:
            return value
        if self.rng.random() < 0.5:
            return self.put(self.b.mul(value, most / self.magnitude[value]), most, keep=False)
        return self.put(self.b.tanh(value), 1.0, keep=False)

    def broadcasting(self, value: Value) -> Value:
        """An operand that broadcasts against `value`: a value of the pool, or a new one with axes of 1 or dropped."""
        fits = [v for v in self.pool if v.dtype == value.dtype and _broadcasts(v.shape, value.shape)]
        if fits and self.rng.random() < 0.6:
            return self.tame(self.rng.choice(fits), 64.0)
        shape: tuple[Size, ...] = tuple(1 if self.rng.random() < 0.25 else size for size in value.shape)
        if self.rng.random() < 0.4:
            shape = shape[self.rng.randint(0, len(shape)) :]
        return self.operand(shape)


def _broadcasts(shape: Sequence[Size], other: Sequence[Size]) -> bool:
    return len(shape) <= len(other) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(other)))


def random_graph(seed: int, is_wide: bool = False) -> Sample:
    """The graph of `seed`, in f32, or in f64 throughout where `is_wide`."""
    from tests.fuzz.recipes import RECIPES

    maker = Maker(seed, is_wide)
    titles, weights = list(RECIPES), [weight for _, weight in RECIPES.values()]
    made, wanted = 0, maker.rng.randint(2, 9)
    for _ in range(4 * wanted):
        recipe, _ = RECIPES[maker.rng.choices(titles, weights)[0]]
        before = len(maker.pool)
        try:
            with bounded(maker.graph.bounds):  # as importers do: a size takes the form that the bounds give it
                recipe(maker)
        except OpError:
            continue
        finally:
            maker.pool[before:] = [v for v in maker.pool[before:] if maker.extent(v.shape) <= MOST_ELEMENTS]
        made += len(maker.pool) > before
        if made == wanted:
            break
    _choose_outputs(maker)
    used = {name for v in maker.graph.inputs for size in v.shape for name in names(size)}
    first, second = ({name: sizes[name] for name in SYMBOLS if name in used} for sizes in maker.sizes)
    return Sample(seed, maker.graph, (first, second), maker.ranges)


def _choose_outputs(maker: Maker) -> None:
    rng = maker.rng
    results = [v for v in maker.pool if v.node is not None]
    chosen = [results[-1]] if results else [maker.input(maker.shape())]
    chosen += [v for v in results[:-1] if not v.users or rng.random() < 0.15]
    if rng.random() < 0.1 and maker.graph.inputs:
        chosen.append(rng.choice(maker.graph.inputs))
    if rng.random() < 0.1:
        chosen.append(maker.constant((rng.choice(STATIC), 3)))
    if rng.random() < 0.05:
        chosen.append(chosen[0])
    rng.shuffle(chosen)
    maker.graph.set_outputs(chosen, [f"y{i}" for i in range(len(chosen))])
