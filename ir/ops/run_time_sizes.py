"""Sizes that are computed while the model runs: what makes a number a size, and shapes told by tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Size, maximum
from ir.element import KernelBuilder, Output, Tensor, apply, select
from ir.expr import Expr, Index, Var
from ir.op import Op, case, define, op, require, sizes
from ir.types import TensorType


@op
class Told(Op):
    """x itself, an i64 scalar whose value is from here on the size `size`.

    A symbol takes the value, which must be within 0 and `limit`; another size must have it. The product of `size` and
    of any of `others` is at most `limit` too: whoever computes the values sees to that.
    """

    size: Size
    limit: Size | None = None
    others: sizes = ()
    structural = True
    pure = False
    defines = ("size",)

    def infer(self, x: TensorType) -> TensorType:
        require(x == TensorType(t.i64, ()), lambda: f"told: the operand is {x}, not i64[]")
        define(self.size, self.limit)
        if self.others:
            define(math.prod(self.others, start=self.size), self.limit)  # type: ignore[arg-type]
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x


def most_elements(shape: Sequence[Size]) -> Size:
    """The number of elements of a shape, its sizes of 0 left out: no size of another shape that holds the same
    elements needs to be greater."""
    product: Size = 1
    for size in shape:
        product = product * maximum(size, 1)
    return product


@dataclass(frozen=True)
class _Tally:
    """What the axes counted so far come to.

    Products: of the sizes of the source that are `left` since they are not copied, of those given that are not 0 (and
    `given` is 0 where one is 0), of those copied. Then how many are to be found, and whether one of those copied is 0.
    """

    left: Var
    given: Var
    nonzero: Var
    copied: Var
    holes: Var
    empty: Var
    fits: Var
    most: Expr


@op
class ReshapeSizes(Op):
    """The shape that ONNX Reshape makes of `shape` for a tensor of shape `source`: 0 copies a size unless `keep_zero`,
    and one -1 takes what is left.

    Every number is -1 where there is no such shape, or where its sizes, but for those that are 0, multiply to more than
    those of `source`.
    """

    source: sizes
    keep_zero: bool = False
    examples = [
        case(np.array([2, -1, 3], np.int64), source=(4, 6)),
        case(np.array([0, 0, -1], np.int64), source=(4, 6)),
        case(np.array([0, -1], np.int64), source=(0, 3, 4)),
        case(np.array([3, 4, 0], np.int64), source=(0, 3, 4), keep_zero=True),
        case(np.array([0, -1], np.int64), source=(0, 3), keep_zero=True),
        case(np.array([1 << 62, 1 << 62, -1], np.int64), source=(5,)),
        case(np.array([-1, -1], np.int64), source=(5,)),
        case(np.array([7], np.int64), source=(2, 3)),
        case(np.array([5, 0], np.int64), source=(0, 3), keep_zero=True),
        case(np.array([2, 0], np.int64), source=(2,)),
        case(np.array([0, 2], np.int64), source=(0, 3)),
        case(np.array([0, 4], np.int64), source=(0, 3)),
        case(np.array([-2, 3], np.int64), source=(2, 3)),
        case(np.zeros(0, np.int64), source=(1, 1)),
    ]  # fmt: skip

    def infer(self, shape: TensorType) -> TensorType:
        fits = shape.dtype == t.i64 and shape.rank == 1 and isinstance(shape.shape[0], int)
        require(fits, lambda: f"reshape_sizes: the shape is {shape}, not i64 with a number of elements that is known")
        return shape

    def reference(self, shape: np.ndarray) -> np.ndarray:
        source, wanted = [int(size) for size in self.source], shape.tolist()
        nothing = np.full(len(wanted), -1, np.int64)
        copied = [a for a, size in enumerate(wanted) if size == 0 and not self.keep_zero]
        if any(a >= len(source) for a in copied) or any(size < -1 for size in wanted) or wanted.count(-1) > 1:
            return nothing
        left = math.prod(size for a, size in enumerate(source) if a not in copied)
        given = math.prod(size for a, size in enumerate(wanted) if size != -1 and a not in copied)
        made = [source[a] if a in copied else size for a, size in enumerate(wanted)]
        if -1 in wanted:
            if given == 0 or left % given:
                return nothing
            made = [left // given if size == -1 else size for size in made]
        fits = math.prod(made) == math.prod(source)
        small = math.prod(max(size, 1) for size in made) <= math.prod(max(size, 1) for size in source)
        return np.array(made, np.int64).reshape(len(made)) if fits and small else nothing

    def kernel(self, k: KernelBuilder, outputs: tuple[Output, ...], shape: Tensor) -> None:
        count, rank = int(shape.shape[0]), len(self.source)  # type: ignore[arg-type]
        wanted = [k.let(f"size{a}", shape.at(a)) for a in range(count)]
        left, given, nonzero, copied = (k.variable(name, 1, t.i64) for name in ("left", "given", "nonzero", "copied"))
        empty, fits = k.variable("empty", False, t.bool_), k.variable("fits", True, t.bool_)
        holes = k.variable("holes", 0, t.i64)
        at = _Tally(left, given, nonzero, copied, holes, empty, fits, Index(t.i64, most_elements(self.source)))
        for a in range(max(rank, count)):
            size = Index(t.i64, self.source[a]) if a < rank else None
            if a < count and not self.keep_zero:
                with k.when(wanted[a].equals(0)):
                    self._copy(k, size, at)
                with k.otherwise():
                    self._take(k, wanted[a], size, at)
            else:
                self._take(k, wanted[a] if a < count else None, size, at)
        missing = self._missing(k, at)
        for a, size in enumerate(wanted):
            own = Index(t.i64, self.source[a]) if a < rank and not self.keep_zero else None
            made = size if own is None else select(size.equals(0), own, size)
            k.store(outputs[0], (a,), select(at.fits, select(size.equals(-1), missing, made), -1))

    def _copy(self, k: KernelBuilder, size: Expr | None, at: _Tally) -> None:
        """Counts in an axis whose size stays."""
        if size is None:
            k.assign(at.fits, False)
            return
        k.assign(at.copied, at.copied * apply("max", size, 1))
        k.assign(at.empty, at.empty | size.equals(0))

    def _take(self, k: KernelBuilder, wanted: Expr | None, size: Expr | None, at: _Tally) -> None:
        """Counts in an axis of the result that is not copied, and one of the source."""
        if size is not None:
            k.assign(at.left, at.left * size)
        if wanted is None:
            return
        with k.when(wanted > 0):
            with k.when(at.nonzero > apply("floordiv", at.most, wanted)):
                k.assign(at.fits, False)
            with k.when(at.fits):
                k.assign(at.nonzero, at.nonzero * wanted)
        with k.when(wanted.equals(0)):
            k.assign(at.given, 0)
        with k.when(wanted.equals(-1)):
            k.assign(at.holes, at.holes + 1)
        with k.when(wanted < -1):
            k.assign(at.fits, False)

    def _missing(self, k: KernelBuilder, at: _Tally) -> Expr:
        """The size for -1; whether all fits is settled here."""
        missing = k.variable("missing", 1, t.i64)
        given = k.let("product", at.given * at.nonzero)
        with k.when(at.holes > 1):
            k.assign(at.fits, False)
        with k.when(at.holes.equals(1)):
            with k.when(given > 0):
                k.assign(missing, apply("floordiv", at.left, given))
            with k.when(given.equals(0) | apply("ne", missing * given, at.left)):
                k.assign(at.fits, False)
        with k.when(at.holes.equals(0) & apply("ne", given, at.left) & apply("not", at.empty)):
            k.assign(at.fits, False)
        with k.when(at.nonzero * apply("max", missing, 1) > apply("floordiv", at.most, at.copied)):
            k.assign(at.fits, False)
        return missing


@op
class AxesInPairs(Op):
    """x with two axes for each: y[i0, j0, i1, j1, ...] is x[i0 + j0, i1 + j1, ...]. One of each two has the size of the
    axis, the other size 1; `outer` says what the first of each two is."""

    outer: sizes
    movement = True
    examples = [case("f32[3,4]", outer=(3, 1)), case("i64[2,5]", outer=(1, 1)), case("f32[0,2]", outer=(1, 2))]

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.outer) == x.rank, lambda: f"axes_in_pairs: {len(self.outer)} sizes for {x}")
        return x.with_shape(size for own, outer in zip(x.shape, self.outer) for size in (outer, own + 1 - outer))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.reshape([int(n) for own, outer in zip(x.shape, self.outer) for n in (outer, own + 1 - outer)])  # type: ignore[arg-type,operator]

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Any:
        return x.at(*(i[2 * a] + i[2 * a + 1] for a in range(x.rank)))
