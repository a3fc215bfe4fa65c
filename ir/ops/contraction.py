"""Contractions: sums of products over shared axes (matrix multiplication, convolution)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.dims import Size, decide_le
from ir.element import Tensor, cast, select, sum_over
from ir.expr import Expr
from ir.op import Op, OpError, assume_equal, case, ints, op, require, require_equal, sizes
from ir.ops.elementwise import broadcast_shapes, broadcast_sizes, same_dtype
from ir.ops.reduction import accumulator, wide
from ir.types import TensorType, dtype_of


@op
class Matmul(Op):
    """Matrix product with the semantics of np.matmul: leading axes broadcast, operands of rank 1 are vectors.

    Sums of narrow floats are taken in f32; integers wrap.
    """

    index_names = "g b h m n"
    examples = [
        case("f32[3,4]", "f32[4,5]"), case("f32[2,1,3,4]", "f32[3,4,5]"), case("f32[4]", "f32[4,5]"),
        case("f32[2,3,4]", "f32[4]"), case("f32[4]", "f32[4]"), case("f16[2,3]", "f16[3,2]"),
        case("i32[2,3]", "i32[3,2]"), case("f32[2,0]", "f32[0,3]"),
    ]  # fmt: skip

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        dtype = same_dtype("matmul", x, y)
        require(dtype.kind in ("float", "int", "uint"), lambda: f"matmul does not take {dtype}")
        require(x.rank >= 1 and y.rank >= 1, lambda: f"matmul: operands {x} and {y} need at least one axis each")
        inner, other = x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0]
        require(not (isinstance(inner, int) and isinstance(other, int)) or inner == other,
                lambda: f"matmul: {x} and {y} disagree on the axis summed over ({inner} and {other})")  # fmt: skip
        assume_equal(inner, other)
        rows = x.shape[-2:-1]
        columns = y.shape[-1:] if y.rank > 1 else ()
        return TensorType(dtype, (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(x)).numpy
        return np.asarray(np.matmul(x.astype(exact, copy=False), y.astype(exact, copy=False))).astype(
            x.dtype, copy=False
        )

    def element(self, i: tuple[Expr, ...], x: Tensor, y: Tensor) -> Expr:
        batch, own = list(i), []
        if y.rank > 1:
            own.append(batch.pop())
        if x.rank > 1:
            own.insert(0, batch.pop())
        of_x = _batch_index(batch, x)
        of_y = _batch_index(batch, y)

        def term(k: Expr) -> Expr:
            left = x.at(*of_x, own[0], k) if x.rank > 1 else x.at(k)
            right = y.at(*of_y, k, own[-1]) if y.rank > 1 else y.at(k)
            return wide(left) * wide(right)

        inner = y.shape[-2] if y.rank > 1 and isinstance(y.shape[-2], int) else x.shape[-1]  # equal; what is known
        return cast(sum_over([inner], term), x.dtype)


def _batch_index(batch: list[Expr], x: Tensor) -> list[Expr | int]:
    """The part of `batch` that indexes the leading axes of `x`, 0 where `x` is broadcast."""
    own = max(0, x.rank - 2)
    return [0 if size == 1 else i for i, size in zip(batch[len(batch) - own :], x.shape[:own])]


def check_shares(name: str, channels: Size, groups: int, bias: TensorType | None, outputs: Size) -> None:
    """Refuses channels that groups cannot share, and a bias that is not one number for each output channel."""
    require(groups >= 1, lambda: f"{name}: {groups} groups")
    if groups > 1:
        require_equal(f"{name}: channels that are shared by {groups} groups", channels, channels // groups * groups)
    if bias is not None:
        require(bias.rank == 1, lambda: f"{name}: the bias is {bias}")
        require_equal(f"{name}: the size of the bias", bias.shape[0], outputs)


@op
class Conv(Op):
    """Convolution of any spatial rank: x[n, c, ...] with w[o, c/groups, ...], optionally plus bias[o].

    `pad` gives the zeros before each spatial axis, then those after each. ONNX Conv without auto_pad.
    """

    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    groups: int = 1
    index_names = "n oc oh ow"
    examples = [
        case("f32[1,3,8,8]", "f32[4,3,3,3]", "f32[4]", stride=(2, 2), pad=(1, 1, 1, 1), dilation=(1, 1)),
        case("f32[2,4,7]", "f32[6,2,3]", None, stride=(1,), pad=(0, 2), dilation=(2,), groups=2),
        case("f16[1,2,3,3,3]", "f16[2,1,2,2,2]", None, stride=(1,) * 3, pad=(0,) * 6, dilation=(1,) * 3, groups=2),
    ]

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        spatial = _check_windows("conv", x, w, self.stride, self.pad, self.dilation)
        channels = w.shape[1] * self.groups
        require(x.shape[1] == channels or not isinstance(x.shape[1], int),
                lambda: f"conv: input has {x.shape[1]} channels, weights expect {channels}")  # fmt: skip
        assume_equal(x.shape[1], channels)
        check_shares("conv", w.shape[0], self.groups, bias, w.shape[0])
        out: list[Size] = []
        for a in range(spatial):
            span = (w.shape[2 + a] - 1) * self.dilation[a] + 1
            padded = x.shape[2 + a] + self.pad[a] + self.pad[spatial + a]
            require(decide_le(span, padded) is not False,
                    lambda padded=padded, span=span: f"conv: window of {span} does not fit into {padded}")  # fmt: skip
            out.append((padded - span) // self.stride[a] + 1)
        return TensorType(x.dtype, (x.shape[0], w.shape[0], *out))

    def reference(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        spatial = x.ndim - 2
        exact = _exact(x)
        shape = [int(size) for size in self.infer(*(TensorType(dtype_of(a), a.shape) for a in (x, w))).shape]
        pads = [(0, 0), (0, 0), *((int(self.pad[a]), int(self.pad[spatial + a])) for a in range(spatial))]
        padded = np.pad(x.astype(exact, copy=False), pads)
        weights = w.astype(exact, copy=False).reshape(self.groups, shape[1] // self.groups, *w.shape[1:])
        y = np.zeros((shape[0], self.groups, shape[1] // self.groups, math.prod(shape[2:])), exact)
        for tap in np.ndindex(*w.shape[2:]):
            starts = [t * d for t, d in zip(tap, self.dilation)]
            at = [slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, shape[2:], self.stride)]
            met = padded[(slice(None), slice(None), *at)].reshape(shape[0], self.groups, w.shape[1], y.shape[-1])
            y += weights[(slice(None), slice(None), slice(None), *tap)] @ met
        y = y.reshape(shape)
        if bias is not None:
            y = y + bias.astype(exact, copy=False).reshape(1, -1, *([1] * spatial))
        return y.astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor, bias: Tensor | None = None) -> Expr:
        n, oc, *position = i
        per_group = w.shape[0] // self.groups
        first = 0 if self.groups == 1 else oc // per_group * w.shape[1]

        def term(ic: Expr, *k: Expr) -> Expr:
            windows = zip(position, self.stride, k, self.dilation, self.pad)
            at = [p * s + tap * d - before for p, s, tap, d, before in windows]
            return wide(x.at(n, first + ic, *at, outside=0)) * wide(w.at(oc, ic, *k))

        acc = sum_over(w.shape[1:], named(term, ("ic", *tap_names(len(position)))))
        return cast(acc if bias is None else acc + wide(bias.at(oc)), x.dtype)


@op
class ConvTranspose(Op):
    """The transpose of convolution: x[n, c, ...] with w[c, o/groups, ...], optionally plus bias[o].

    `pad` is cut from the full result before each spatial axis, then after each; `extra` widens it after each.
    """

    stride: ints = ()
    pad: sizes = ()
    dilation: ints = ()
    extra: sizes = ()
    groups: int = 1
    index_names = "n oc oh ow"
    examples = [
        case("f32[1,3,4,4]", "f32[3,2,3,3]", "f32[2]", stride=(2, 2), pad=(1, 1, 0, 1), dilation=(1, 1), extra=(1, 0)),
        case("f32[1,2,3,3]", "f32[2,2,2,2]", None, stride=(2, 2), pad=(0,) * 4, dilation=(1, 1), extra=(0, 0)),
        case("f32[2,4,5]", "f32[4,1,3]", None, stride=(2,), pad=(1, 1), dilation=(2,), extra=(0,), groups=2),
    ]

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        spatial = _check_windows("conv_transpose", x, w, self.stride, self.pad, self.dilation)
        require(len(self.extra) == spatial, "conv_transpose: `extra` must give one number per spatial axis")
        require(x.shape[1] == w.shape[0] or not (isinstance(x.shape[1], int) and isinstance(w.shape[0], int)),
                lambda: f"conv_transpose: input has {x.shape[1]} channels, weights expect {w.shape[0]}")  # fmt: skip
        assume_equal(x.shape[1], w.shape[0])
        check_shares("conv_transpose", w.shape[0], self.groups, bias, w.shape[1] * self.groups)
        out: list[Size] = []
        for a in range(spatial):
            full = (x.shape[2 + a] - 1) * self.stride[a] + (w.shape[2 + a] - 1) * self.dilation[a] + 1
            out.append(full - self.pad[a] - self.pad[spatial + a] + self.extra[a])
        return TensorType(x.dtype, (x.shape[0], w.shape[1] * self.groups, *out))

    def reference(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        spatial = x.ndim - 2
        exact = _exact(x)
        type_of = [TensorType(dtype_of(a), a.shape) for a in (x, w)]
        shape = [int(size) for size in self.infer(*type_of).shape]
        g = self.groups
        # Every element of x adds its window to the full result, from which `pad` is cut.
        full = [int(s) + int(self.pad[a]) + int(self.pad[spatial + a]) for a, s in enumerate(shape[2:])]
        y = np.zeros((shape[0], g, shape[1] // g, *full), exact)
        xs = x.astype(exact, copy=False).reshape(x.shape[0], g, x.shape[1] // g, *x.shape[2:])
        ws = w.astype(exact, copy=False).reshape(g, -1, *w.shape[1:])
        for tap in np.ndindex(*w.shape[2:]):
            part = np.einsum("ngc...,gco->ngo...", xs, ws[(slice(None), slice(None), slice(None), *tap)])
            starts = [t * d for t, d in zip(tap, self.dilation)]
            at = [slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, x.shape[2:], self.stride)]
            y[(slice(None), slice(None), slice(None), *at)] += part
        y = y.reshape(shape[0], shape[1], *full)
        y = y[
            (
                slice(None),
                slice(None),
                *(slice(int(self.pad[a]), int(self.pad[a]) + shape[2 + a]) for a in range(spatial)),
            )
        ]
        if bias is not None:
            y = y + bias.astype(exact, copy=False).reshape(1, -1, *([1] * spatial))
        return y.astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor, bias: Tensor | None = None) -> Expr:
        n, oc, *position = i
        per_group = w.shape[1]
        group, o = (0, oc) if self.groups == 1 else (oc // per_group, oc % per_group)
        channels = w.shape[0] // self.groups
        full = [p + before for p, before in zip(position, self.pad)]
        if all(d == 1 for d in self.dilation):
            taps: list[Size] = [-(-k // s) for k, s in zip(w.shape[2:], self.stride)]
            term = self._term_by_phase(n, o, group * channels, full, x, w)
        else:
            taps = list(w.shape[2:])
            term = self._term_by_tap(n, o, group * channels, full, x, w)
        acc = sum_over([channels, *taps], named(term, ("ic", *tap_names(len(position)))))
        return cast(acc if bias is None else acc + wide(bias.at(oc)), x.dtype)

    def _term_by_phase(
        self, n: Expr, o: Expr, first: Any, full: list[Expr], x: Tensor, w: Tensor
    ) -> Callable[..., Expr]:
        """Only the taps that meet an element of x: position q = ih * stride + tap has taps q % stride + k * stride."""

        def term(ic: Expr, *k: Expr) -> Expr:
            inner = [q // s - step for q, s, step in zip(full, self.stride, k)]
            taps = [q % s + step * s for q, s, step in zip(full, self.stride, k)]
            return wide(x.at(n, first + ic, *inner, outside=0)) * wide(w.at(first + ic, o, *taps, outside=0))

        return term

    def _term_by_tap(self, n: Expr, o: Expr, first: Any, full: list[Expr], x: Tensor, w: Tensor) -> Callable[..., Expr]:
        """Every tap; those between elements of x add nothing."""

        def term(ic: Expr, *k: Expr) -> Expr:
            at = [q - tap * d for q, tap, d in zip(full, k, self.dilation)]
            value = wide(x.at(n, first + ic, *(q // s for q, s in zip(at, self.stride)), outside=0)) * wide(
                w.at(first + ic, o, *k)
            )
            for q, s in zip(at, self.stride):
                value = select((q % s).equals(0), value, 0)
            return value

        return term


def _exact(x: np.ndarray) -> np.dtype:
    """The type in which references of convolutions sum: f64 for floats, so that equal channels stay equal."""
    return np.dtype(np.float64) if dtype_of(x).is_float else x.dtype


def _check_windows(name: str, x: TensorType, w: TensorType, stride: ints, pad: sizes, dilation: ints) -> int:
    """The number of spatial axes. Raises OpError where operands or attributes do not fit it."""
    spatial = x.rank - 2
    require(spatial >= 1, lambda: f"{name}: input is {x}; it needs at least 3 axes")
    require(w.rank == x.rank, lambda: f"{name}: weights {w} and input {x} have different ranks")
    same_dtype(name, x, w)
    require(len(stride) == spatial and len(pad) == 2 * spatial and len(dilation) == spatial,
            lambda: f"{name}: stride, pad and dilation must give one number per spatial axis (pad: two)")  # fmt: skip
    require(all(s >= 1 for s in stride) and all(d >= 1 for d in dilation),
            lambda: f"{name}: stride {list(stride)} and dilation {list(dilation)} must be positive")  # fmt: skip
    return spatial


@op
class Einsum(Op):
    """Sums of products in Einstein's notation: `"bij,bjk->bik"`. A letter that the output lacks is summed over.

    A letter may occur twice in an operand (its diagonal); `...` stands for axes that broadcast.
    """

    equation: str
    examples = [
        case("f32[2,3,4]", "f32[2,4,5]", equation="bij,bjk->bik"), case("f32[3,3]", equation="ii->i"),
        case("f32[3,3]", equation="ii"), case("f32[2,3,4]", "f32[4,5]", equation="...j,jk->...k"),
        case("f32[3]", "f32[4]", equation="i,j->ji"), case("f32[2,3]", equation="ij->j"),
    ]  # fmt: skip

    def infer(self, *xs: TensorType) -> TensorType:
        dtype = same_dtype("einsum", *xs)
        terms, out = parse_equation(self.equation, [x.rank for x in xs])
        found: dict[str, list[Size]] = {}
        for x, term in zip(xs, terms):
            for letter, size in zip(term, x.shape):
                found.setdefault(letter, []).append(size)
        missing = [letter for letter in out if letter not in found]
        require(not missing, lambda: f"einsum: output letter '{missing[0]}' is in no operand of '{self.equation}'")
        sizes_of = {letter: broadcast_sizes(sizes) for letter, sizes in found.items()}
        return TensorType(dtype, tuple(sizes_of[letter] for letter in out))

    def reference(self, *xs: np.ndarray) -> np.ndarray:
        terms, out = parse_equation(self.equation, [x.ndim for x in xs])
        numbers = {letter: k for k, letter in enumerate(sorted({c for term in (*terms, out) for c in term}))}
        exact = accumulator(dtype_of(xs[0])).numpy
        operands: list[Any] = []
        for x, term in zip(xs, terms):
            operands += [x.astype(exact, copy=False), [numbers[c] for c in term]]
        return np.asarray(np.einsum(*operands, [numbers[c] for c in out])).astype(xs[0].dtype, copy=False)

    def element(self, i: tuple[Expr, ...], *xs: Tensor) -> Expr:
        terms, out = parse_equation(self.equation, [x.rank for x in xs])
        extents: dict[str, Size] = {}
        for x, term in zip(xs, terms):
            for letter, size in zip(term, x.shape):
                if letter not in out and extents.get(letter, 1) == 1:
                    extents[letter] = size

        def body(*summed: Expr) -> Expr:
            at = dict(zip(out, i)) | dict(zip(extents, summed))
            factors = [
                wide(x.at(*(0 if size == 1 else at[letter] for letter, size in zip(term, x.shape))))
                for x, term in zip(xs, terms)
            ]
            return math.prod(factors[1:], start=factors[0])

        hints = tuple(letter if letter.isalpha() else f"k{k}" for k, letter in enumerate(extents))
        return cast(sum_over(list(extents.values()), named(body, hints)), xs[0].dtype)


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand's axes and of the output's. Digits stand for the axes of `...`, the last being 0.

    Raises OpError for an equation that is malformed or does not fit operands of these ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise OpError(f"einsum: '{equation}' is for {len(parts)} operands, not {len(ranks)}")
    terms, longest = [], 0
    for part, rank in zip(parts, ranks):
        free = rank - len(part.replace("...", "", 1))
        if free < 0 or (free and "..." not in part) or free > 10:
            raise OpError(f"einsum: '{part}' of '{equation}' does not fit an operand of rank {rank}")
        longest = max(longest, free)
        terms.append(part.replace("...", "".join(str(k) for k in reversed(range(free))), 1))
    broadcast = "".join(str(k) for k in reversed(range(longest)))
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        right = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    out = right.replace("...", broadcast, 1)
    plain = left.replace(",", "").replace("...", "") + right.replace("...", "", 1)
    if not all(c.isalpha() and c.isascii() for c in plain) or len(set(out)) != len(out):
        raise OpError(f"einsum: '{equation}' is malformed")
    return terms, out


def tap_names(spatial: int) -> tuple[str, ...]:
    """Loop names of the taps of a window over `spatial` axes."""
    return ("kd", "kh", "kw")[3 - spatial :] if spatial <= 3 else tuple(f"k{a}" for a in range(spatial))


def named(function: Callable[..., Expr], names: Sequence[str]) -> Callable[..., Expr]:
    """`function` with a signature that names its arguments, for readable loops."""

    def call(*args: Expr) -> Expr:
        return function(*args)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
