"""Movement: ops whose every output element is one input element (or a constant), found by index arithmetic alone.

Shapes, starts and pads are attributes and may be symbolic. What reads indices from a tensor is in `indexing`. Index
rules here must stay simple sums wherever axes merely appear, vanish, split or merge, because fusion composes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ir import types as t
from ir.dims import Dim, FloorDiv, Size, decide_eq, decide_le, lower_bound, maximum, minimum, terms, upper_bound
from ir.element import Tensor, apply, const, select
from ir.expr import Expr, Index
from ir.op import Op, OpError, assume_equal, case, ints, op, require, require_at_most, sizes
from ir.ops.elementwise import broadcasts_to, same_dtype
from ir.types import TensorType


def settle(expr: Expr) -> Expr:
    """`expr` with quotients simplified by the bounds of the loop variables: (32*i + j)//64 is i//2 for j < 32."""
    if not isinstance(expr, Index):
        return expr
    total: Size = 0
    for coefficient, monomial in terms(expr.value):
        product: Any = coefficient
        for atom in monomial:
            product = product * (_quotient(atom) if isinstance(atom, FloorDiv) else Dim(((1, (atom,)),)))
        total = total + product
    return Index(t.i64, total)


def _quotient(atom: FloorDiv) -> Size:
    if decide_le(0, atom.num) and decide_le(atom.num + 1, atom.den):
        return 0
    whole = Dim(((1, (atom,)),))
    low = lower_bound(whole)
    if low is not None and low == upper_bound(whole):
        return low
    return _without_remainder(atom.num, atom.den) if isinstance(atom.den, int) else whole


def _without_remainder(num: Size, den: int) -> Size:
    """num // den, without the terms that cannot carry: those that stay below a common divisor of den and the others."""
    divisors = {math.gcd(int(c), den) for c, monomial in terms(num) if monomial}
    for divisor in sorted(divisors - {1}, reverse=True):
        rest: Size = 0
        for c, monomial in terms(num):
            if c % divisor:
                rest = rest + (Dim(((c, monomial),)) if monomial else int(c))
        if decide_le(0, rest) and decide_le(rest, divisor - 1):
            return (num - rest) // divisor // (den // divisor)
    return num // den


def greater(a: Expr, b: Expr) -> Expr:
    """The greater of two indices; still an `Index` where both are."""
    if isinstance(a, Index) and isinstance(b, Index):
        return Index(t.i64, maximum(a.value, b.value))
    return apply("max", a, b)


def lesser(a: Expr, b: Expr) -> Expr:
    """The lesser of two indices; still an `Index` where both are."""
    if isinstance(a, Index) and isinstance(b, Index):
        return Index(t.i64, minimum(a.value, b.value))
    return apply("min", a, b)


def ravel(index: Sequence[Expr], shape: Sequence[Size]) -> Expr:
    """The row-major position of `index` in `shape`."""
    position: Expr = Index(t.i64, 0)
    for i, size in zip(index, shape):
        position = position * size + i
    return position


def unravel(position: Expr, shape: Sequence[Size]) -> tuple[Expr, ...]:
    """The index in `shape` of a row-major position."""
    index: list[Expr] = []
    for size in reversed(shape[1:]):
        index.append(settle(position % size))
        position = settle(position // size)
    return (*([position] if shape else []), *reversed(index))


def reshape_index(index: Sequence[Expr], shape: Sequence[Size], source: Sequence[Size]) -> tuple[Expr, ...]:
    """The index in `source` of the element at `index` of `shape`, both row-major with equally many elements.

    Axes are matched in the smallest groups of equal size, so that only a group that really merges axes divides.
    """
    if 0 in source:
        return tuple(Index(t.i64, 0) for _ in source)
    inner = [a for a, size in enumerate(source) if size != 1]
    outer = [a for a, size in enumerate(shape) if size != 1]
    found: list[Expr] = [Index(t.i64, 0)] * len(source)
    for theirs, ours in _groups([source[a] for a in inner], [shape[a] for a in outer]):
        axes, out = [inner[a] for a in theirs], [outer[a] for a in ours]
        position = ravel([index[a] for a in out], [shape[a] for a in out])
        for a, i in zip(axes, unravel(position, [source[a] for a in axes])):
            found[a] = i
    return tuple(found)


def _groups(left: Sequence[Size], right: Sequence[Size]) -> list[tuple[range, range]]:
    """Runs of axes of two shapes that hold equally many elements, as short as can be seen, from the last axis on."""
    products: dict[Size, int] = {}
    for b, product in _suffix_products(right):
        products.setdefault(product, b)
    groups, end_a, end_b = [], len(left), len(right)
    for a, product in _suffix_products(left):
        b = products.get(product)
        if b is not None and b < end_b and a > 0 and b > 0:
            groups.append((range(a, end_a), range(b, end_b)))
            end_a, end_b = a, b
    return [*groups, (range(end_a), range(end_b))]


def _suffix_products(shape: Sequence[Size]) -> list[tuple[int, Size]]:
    found, product = [], 1
    for a in range(len(shape) - 1, -1, -1):
        product = shape[a] * product
        found.append((a, product))
    return found


def shape_text(shape: Sequence[Size]) -> str:
    return f"[{','.join(map(str, shape))}]"


@op
class Reshape(Op):
    """x with `shape`, elements in row-major order. `shape` has as many elements as x: no 0 or -1 placeholders."""

    shape: sizes
    symbolic = True
    movement = True
    examples = [
        case("f32[2,3,4]", shape=(2, 12)), case("f32[6,4]", shape=(2, 3, 1, 4)), case("f32[4,6]", shape=(3, 8)),
        case("f32[1,1]", shape=()), case("f32[0,3]", shape=(3, 0, 2)), case("string[2,3]", shape=(3, 2)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        ours, theirs = math.prod(self.shape, start=1), x.elements  # type: ignore[arg-type]
        if decide_eq(ours, theirs) is False:
            raise OpError(f"reshape: {x} has {theirs} elements, shape {shape_text(self.shape)} has {ours}")
        assume_equal(ours, theirs)
        return x.with_shape(self.shape)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.reshape([int(s) for s in self.shape])

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return x.at(*reshape_index(i, self.shape, x.shape))

    def on_cells(self, b: Any, x: Any) -> Any:
        return b.reshape(x, shape=(*self.shape, x.shape[-1]))


@op
class Transpose(Op):
    """x with its axes permuted: axis a of the result is axis perm[a] of x."""

    perm: ints
    symbolic = True
    movement = True
    examples = [
        case("f32[2,3,4]", perm=(2, 0, 1)), case("f32[]", perm=()), case("i64[2,5]", perm=(1, 0)),
        case("string[2,3]", perm=(1, 0)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        ordered = sorted(self.perm)
        require(ordered == list(range(x.rank)), lambda: f"transpose: {self.perm} does not permute the axes of {x}")
        return x.with_shape(x.shape[a] for a in self.perm)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.perm)

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return x.at(*(i[self.perm.index(a)] for a in range(x.rank)))

    def on_cells(self, b: Any, x: Any) -> Any:
        return b.transpose(x, perm=(*self.perm, len(self.perm)))


@op
class Expand(Op):
    """x repeated along axes of size 1, and along new leading axes, to `shape`."""

    shape: sizes
    symbolic = True
    movement = True
    examples = [
        case("f32[3,1]", shape=(2, 3, 4)), case("f32[]", shape=(2,)), case("i64[2,3]", shape=(2, 3)),
        case("string[3,1]", shape=(2, 3, 2)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        fits = broadcasts_to(x.shape, self.shape)
        require(fits, lambda: f"expand: {x} does not broadcast to {shape_text(self.shape)}")
        return x.with_shape(self.shape)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, [int(s) for s in self.shape])

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return x.stretched_at(i, self.shape)

    def on_cells(self, b: Any, x: Any) -> Any:
        return b.expand(x, shape=(*self.shape, x.shape[-1]))


@op
class Slice(Op):
    """Elements starts[a], starts[a] + steps[a], ... of every axis a, as many as `shape` says. Steps may be negative."""

    starts: sizes
    shape: sizes
    steps: ints
    symbolic = True
    movement = True
    examples = [
        case("f32[5,4]", starts=(1, 0), shape=(2, 4), steps=(2, 1)),
        case("f32[5]", starts=(4,), shape=(5,), steps=(-1,)),
        case("i64[3,4]", starts=(2, 3), shape=(2, 0), steps=(-2, 1)),
        case("string[5,2]", starts=(4, 0), shape=(3, 1), steps=(-2, 1)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        given = {len(self.starts), len(self.shape), len(self.steps)}
        require(given == {x.rank}, lambda: f"slice: {x} needs {x.rank} starts, sizes and steps")
        require(0 not in self.steps, "slice: a step is 0")
        for start, count, step, size in zip(self.starts, self.shape, self.steps, x.shape):
            if size == 0 and decide_le(count, 0) is None:
                assume_equal(count, 0)
                continue
            last = start + (count - 1) * step
            fits = all(decide_le(0, p) is not False and decide_le(p, size - 1) is not False for p in (start, last))
            require(fits or decide_le(count, 0) is True,
                    lambda: f"slice: {shape_text(self.shape)} from {shape_text(self.starts)} leaves {x}")  # fmt: skip
        return x.with_shape(self.shape)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x[tuple(_slice(int(s), int(n), step) for s, n, step in zip(self.starts, self.shape, self.steps))]

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        return x.at(*(Index(t.i64, s) + p * step for s, p, step in zip(self.starts, i, self.steps)))

    def on_cells(self, b: Any, x: Any) -> Any:
        return b.slice(x, starts=(*self.starts, 0), shape=(*self.shape, x.shape[-1]), steps=(*self.steps, 1))


def _slice(start: int, count: int, step: int) -> slice:
    if count <= 0:
        return slice(0, 0)
    stop = start + count * step
    return slice(start, stop if stop >= 0 else None, step)


@op
class Concat(Op):
    """Operands one after the other along `axis`."""

    axis: int
    symbolic = True
    movement = True
    examples = [
        case("f32[2,3]", "f32[2,1]", "f32[2,4]", axis=1),
        case("i64[2]", "i64[0]", "i64[1]", axis=0),
        case("f32[2]", axis=0),
        case("string[2]", np.array(["a longer one"], object), "string[0]", axis=0),
    ]

    def infer(self, *xs: TensorType) -> TensorType:
        require(len(xs) > 0, "concat: no operands")
        first = xs[0]
        require(all(x.rank == first.rank for x in xs), lambda: f"concat: ranks differ: {', '.join(map(str, xs))}")
        require(0 <= self.axis < first.rank, lambda: f"concat: axis {self.axis} of {first}")
        shape: list[Size] = []
        for a in range(first.rank):
            along = [x.shape[a] for x in xs]
            shape.append(sum(along) if a == self.axis else _same_size(along, xs))
        return TensorType(same_dtype("concat", *xs), tuple(shape))

    def reference(self, *xs: np.ndarray) -> np.ndarray:
        return np.concatenate(xs, axis=self.axis)

    def element(self, i: tuple[Expr, ...], *xs: Tensor) -> Expr:
        at, offset, parts = i[self.axis], 0, []
        for x in xs:
            parts.append((offset + x.shape[self.axis], x.at(*i[: self.axis], at - offset, *i[self.axis + 1 :])))
            offset = offset + x.shape[self.axis]
        result = parts[-1][1]
        for end, value in reversed(parts[:-1]):
            result = select(at < Index(t.i64, end), value, result)
        return result

    def on_cells(self, b: Any, *xs: Any) -> Any:
        return b.concat(*same_width(b, *xs), axis=self.axis)


def _same_size(along: list[Size], xs: Sequence[TensorType]) -> Size:
    chosen = next((size for size in along if isinstance(size, int)), along[0])
    for size in along:
        require(decide_eq(size, chosen) is not False, lambda: f"concat: sizes differ: {', '.join(map(str, xs))}")
        assume_equal(size, chosen)
    return chosen


def same_width(b: Any, *cells: Any) -> list[Any]:
    """Cells of strings, all as wide as the widest."""
    width: Size = 0
    for x in cells:
        width = maximum(width, x.shape[-1])
    return [wider(b, x, width) for x in cells]


def wider(b: Any, x: Any, width: Size) -> Any:
    """Cells padded to `width` bytes, which is no less than they have."""
    if decide_eq(x.shape[-1], width):
        return x
    zeros = (0,) * (x.rank - 1)
    return b.pad(x, before=(*zeros, 0), after=(*zeros, width - x.shape[-1]))


PAD_MODES = ("constant", "reflect", "edge", "wrap")


@op
class Pad(Op):
    """x with before[a] elements added in front of axis a and after[a] behind.

    They are `value` (or the scalar operand `fill`) in mode "constant", and elements of x mirrored, repeated or wrapped
    around in the others. Only "constant" takes negative numbers: they cut off elements.
    """

    before: sizes
    after: sizes
    mode: str = "constant"
    value: float = 0.0
    movement = True
    examples = [
        case("f32[2,3]", before=(1, 0), after=(0, 2), value=1.5),
        case("i64[4]", "i64[]", before=(-1,), after=(2,)),
        case("f32[3,4]", before=(2, 1), after=(1, 3), mode="reflect"),
        case("f32[1,4]", before=(2, 9), after=(1, 5), mode="reflect"),
        case("f32[3]", before=(2,), after=(4,), mode="edge"),
        case("f32[3]", before=(2,), after=(4,), mode="wrap"),
        case("string[2,3]", before=(1, 0), after=(-1, 2)),
        case("string[3]", np.array("filled", object), before=(2,), after=(-1,)),
        case("string[3]", before=(2,), after=(2,), mode="reflect"),
    ]  # fmt: skip

    def infer(self, x: TensorType, fill: TensorType | None = None) -> TensorType:
        require(self.mode in PAD_MODES, lambda: f"pad: mode {self.mode!r} is none of {', '.join(PAD_MODES)}")
        given = {len(self.before), len(self.after)}
        require(given == {x.rank}, lambda: f"pad: {x} needs {x.rank} numbers before and after")
        require(fill is None or (fill.dtype == x.dtype and fill.rank == 0), lambda: f"pad: the fill of {x} is {fill}")
        if self.mode != "constant":
            least = [lower_bound(p) for p in (*self.before, *self.after)]
            require(all(low is None or low >= 0 for low in least), f"pad: mode {self.mode} cannot cut off elements")
        for a, (size, p, q) in enumerate(zip(x.shape, self.before, self.after)):
            needed = maximum(-p, 0) + maximum(-q, 0) if self.mode == "constant" else minimum(p + q, 1)
            require_at_most(f"pad of axis {a} of {x}", needed, size)
        return x.with_shape(s + p + q for s, p, q in zip(x.shape, self.before, self.after))

    def reference(self, x: np.ndarray, fill: np.ndarray | None = None) -> np.ndarray:
        pads = [(int(p), int(q)) for p, q in zip(self.before, self.after)]
        kept = x[tuple(slice(max(-p, 0), s - max(-q, 0)) for s, (p, q) in zip(x.shape, pads))]
        pads = [(max(p, 0), max(q, 0)) for p, q in pads]
        if self.mode != "constant":
            return np.pad(kept, pads, mode=self.mode)  # type: ignore[call-overload]
        nothing = "" if x.dtype == object else self.value
        value = np.asarray(nothing if fill is None else fill).astype(x.dtype)
        return np.pad(kept, pads, constant_values=value)

    def element(self, i: tuple[Expr, ...], x: Tensor, fill: Tensor | None = None) -> Expr:
        at = [p - before for p, before in zip(i, self.before)]
        if self.mode == "constant":
            outside = const(self.value, x.dtype) if fill is None else fill.at()
            return x.at(*at, outside=outside)
        source = {"reflect": _mirrored, "edge": _clamped, "wrap": _wrapped}[self.mode]
        return x.at(*(source(p, *axis) for p, *axis in zip(at, x.shape, self.before, self.after)))

    def on_cells(self, b: Any, x: Any, fill: Any = None) -> Any:
        before, after = (*self.before, 0), (*self.after, 0)
        if fill is None:
            return b.pad(x, before=before, after=after, mode=self.mode)
        x, fill = same_width(b, x, fill)
        padded = b.pad(x, before=before, after=after, mode=self.mode)
        given = b.full(shape=(*x.shape[:-1], 1), value=True, dtype=t.bool_)
        return b.where(b.pad(given, before=before, after=after, value=False), padded, fill)


def _clamped(at: Expr, size: Size, before: Size, after: Size) -> Expr:
    lifted = at if before == 0 else greater(at, Index(t.i64, 0))
    return lifted if after == 0 else lesser(lifted, Index(t.i64, size - 1))


def _wrapped(at: Expr, size: Size, before: Size, after: Size) -> Expr:
    return at if before == 0 and after == 0 else settle(at % size)


def _mirrored(at: Expr, size: Size, before: Size, after: Size) -> Expr:
    if size == 1:
        return Index(t.i64, 0)
    period = 2 * (size - 1)
    if decide_le(before, size - 1) and decide_le(after, size - 1):  # at most one reflection at each end
        lifted = at if before == 0 else greater(at, -at)
        return lifted if after == 0 else lesser(lifted, Index(t.i64, period) - lifted)
    folded = settle(at % maximum(period, 1))  # of a single element everything is a mirror image
    return lesser(folded, Index(t.i64, period) - folded)


@op
class Tile(Op):
    """x repeated `repeats[a]` times along each axis a."""

    repeats: sizes
    symbolic = True
    movement = True
    examples = [
        case("f32[2,3]", repeats=(2, 1)), case("f32[1,2]", repeats=(3, 2)), case("f32[2]", repeats=(0,)),
        case("string[2]", repeats=(3,)),
    ]  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.repeats) == x.rank, lambda: f"tile: {len(self.repeats)} repeats for {x}")
        return x.with_shape(s * n for s, n in zip(x.shape, self.repeats))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.tile(x, [int(n) for n in self.repeats])

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        at: list[Expr] = []
        for p, size, count in zip(i, x.shape, self.repeats):
            at.append(Index(t.i64, 0) if size == 1 else p if count == 1 else settle(p % size))
        return x.at(*at)

    def on_cells(self, b: Any, x: Any) -> Any:
        return b.tile(x, repeats=(*self.repeats, 1))


@op
class Trilu(Op):
    """The upper (or lower) triangle of the last two axes from `diagonal` (or the operand k) on, and zero elsewhere."""

    upper: bool = True
    diagonal: int = 0
    movement = True
    examples = [case("f32[3,4]"), case("i64[2,4,3]", upper=False, diagonal=-1), case("f32[3,3]", np.array(1, np.int64))]

    def infer(self, x: TensorType, k: TensorType | None = None) -> TensorType:
        require(x.rank >= 2, lambda: f"trilu: {x} has fewer than 2 axes")
        require(k is None or (k.dtype == t.i64 and k.rank == 0), lambda: f"trilu: k is {k}, not i64[]")
        return x

    def reference(self, x: np.ndarray, k: np.ndarray | None = None) -> np.ndarray:
        diagonal = self.diagonal if k is None else int(k)
        row, column = np.ogrid[: x.shape[-2], : x.shape[-1]]
        kept = column - row >= diagonal if self.upper else column - row <= diagonal
        return np.where(kept, x, np.zeros((), x.dtype))

    def element(self, i: tuple[Expr, ...], x: Tensor, k: Tensor | None = None) -> Expr:
        diagonal = Index(t.i64, self.diagonal) if k is None else k.at()
        off = i[-1] - i[-2]
        kept = off >= diagonal if self.upper else off <= diagonal
        return select(kept, x.at(*i), const(0, x.dtype))
