"""Convolution whose taps move: each reads x at a fractional position that data gives."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ir import types as t
from ir.element import Tensor, apply, cast, select, sum_over
from ir.expr import Expr
from ir.op import Op, case, ints, op, require, require_equal
from ir.ops.contraction import check_shares, named, tap_names
from ir.ops.reduction import accumulator, wide
from ir.types import TensorType, dtype_of


@op
class DeformConv(Op):
    """Convolution of x[n, c, ...] with w[o, c/groups, ...], each tap moved by its `offset` and weighted by its `mask`.

    `offset` is [n, offset_groups * taps * spatial axes, ...], `mask` [n, offset_groups * taps, ...], both of the
    output's spatial sizes; the channels of x are shared out evenly to the offset groups. Between elements x is
    interpolated linearly, beyond its border it is 0.
    """

    stride: ints = ()
    pad: ints = ()
    dilation: ints = ()
    groups: int = 1
    offset_groups: int = 1
    index_names = "n oc oh ow"
    examples = [
        case("f32[1,2,4,5]", "f32[3,2,2,2]", "f32[1,8,3,4]", "f32[3]", "f32[1,4,3,4]",
             stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)),
        case("f32[2,4,5,4]", "f32[2,2,3,2]", "f32[2,24,3,2]", None, None,
             stride=(2, 2), pad=(1, 0, 1, 0), dilation=(1, 1), groups=2, offset_groups=2),
    ]  # fmt: skip

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        offset: TensorType,
        bias: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> TensorType:
        spatial = x.rank - 2
        require(x.dtype.is_float and spatial >= 1 and w.rank == offset.rank == x.rank,
                lambda: f"deform_conv: input {x}, weights {w} and offsets {offset} do not fit")  # fmt: skip
        require(len(self.stride) == len(self.dilation) == spatial and len(self.pad) == 2 * spatial,
                "deform_conv: stride and dilation must give one number per spatial axis, pad two")  # fmt: skip
        channels, taps = w.shape[1] * self.groups, math.prod(w.shape[2:])  # type: ignore[arg-type]
        require(x.shape[1] == channels and isinstance(channels, int) and channels % self.offset_groups == 0,
                lambda: f"deform_conv: {x} does not fit weights {w} in {self.offset_groups} offset groups")  # fmt: skip
        check_shares("deform_conv", w.shape[0], self.groups, bias, w.shape[0])
        out = [
            (size + self.pad[a] + self.pad[spatial + a] - (k - 1) * self.dilation[a] - 1) // self.stride[a] + 1
            for a, (size, k) in enumerate(zip(x.shape[2:], w.shape[2:]))
        ]
        for what, given, count in (("offsets", offset, taps * spatial), ("masks", mask, taps)):
            if given is None:
                continue
            require(given.rank == x.rank and given.shape[1] == self.offset_groups * count,
                    lambda what=what, given=given: f"deform_conv: {what} {given} do not fit weights {w}")  # fmt: skip
            for size, wanted in zip((given.shape[0], *given.shape[2:]), (x.shape[0], *out)):
                require_equal(f"deform_conv: a size of the {what}", size, wanted)
        return x.with_shape((x.shape[0], w.shape[0], *out))

    def reference(
        self,
        x: np.ndarray,
        w: np.ndarray,
        offset: np.ndarray,
        bias: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        n, c, *sizes = x.shape
        kernel, out, exact = w.shape[2:], offset.shape[2:], accumulator(dtype_of(x)).numpy
        moves = offset.astype(exact).reshape(n, self.offset_groups, *kernel, len(kernel), *out)
        share = np.ones((n, self.offset_groups, *kernel, *out), exact)
        share = share if mask is None else mask.astype(exact).reshape(share.shape)
        weights = w.astype(exact).reshape(self.groups, -1, *w.shape[1:])
        y = np.zeros((n, self.groups, w.shape[0] // self.groups, *out), exact)
        grid = np.indices(out)
        for tap in np.ndindex(*kernel):
            start = [k * d - before for k, d, before in zip(tap, self.dilation, self.pad)]
            at = (slice(None), slice(None), *tap)
            places = [grid[a] * self.stride[a] + start[a] + moves[at][:, :, a] for a in range(len(kernel))]
            met = _interpolated(x.astype(exact).reshape(n, self.offset_groups, -1, *sizes), places)
            met = (met * share[at][:, :, None]).reshape(n, self.groups, c // self.groups, *out)
            y += np.einsum("goc,ngc...->ngo...", weights[(slice(None), slice(None), slice(None), *tap)], met)
        y = y.reshape(n, w.shape[0], *out)
        if bias is not None:
            y = y + bias.astype(exact).reshape(-1, *[1] * len(out))
        return y.astype(x.dtype)

    def element(
        self,
        i: tuple[Expr, ...],
        x: Tensor,
        w: Tensor,
        offset: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Expr:
        n, oc, *position = i
        first = oc // (w.shape[0] // self.groups) * w.shape[1] if self.groups > 1 else 0
        per_offset: Any = x.shape[1] // self.offset_groups

        def term(ic: Expr, *taps: Expr) -> Expr:
            channel = ic + first
            number: Any = channel // per_offset
            for tap, extent in zip(taps, w.shape[2:]):
                number = number * extent + tap
            places = [
                wide(offset.at(n, number * len(taps) + a, *position))
                + cast(p * self.stride[a] + tap * self.dilation[a] - self.pad[a], accumulator(x.dtype))
                for a, (p, tap) in enumerate(zip(position, taps))
            ]
            value = _interpolate(x, (n, channel), places) * wide(w.at(oc, ic, *taps))
            return value if mask is None else value * wide(mask.at(n, number, *position))

        acc = sum_over(w.shape[1:], named(term, ("ic", *tap_names(len(position)))))
        return cast(acc if bias is None else acc + wide(bias.at(oc)), x.dtype)


def _interpolated(x: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """x[n, g, c, ...] at fractional places [n, g, ...] per axis, as [n, g, c, ...]; 0 outside."""
    n, g = x.shape[:2]
    planes = np.moveaxis(x, 2, -1)
    batch = np.ix_(np.arange(n), np.arange(g))
    batch = tuple(index.reshape(index.shape + (1,) * (places[0].ndim - 2)) for index in batch)
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=len(places)):
        weight, inside, at = np.ones(places[0].shape), np.ones(places[0].shape, bool), []
        for step, place, size in zip(corner, places, x.shape[3:]):
            low = np.floor(place)
            weight = weight * (place - low if step else 1 - (place - low))
            inside &= (low + step >= 0) & (low + step < size)
            at.append(np.clip(low + step, 0, size - 1).astype(np.int64))
        total = total + planes[(*batch, *at)] * np.where(inside, weight, 0)[..., None]
    return np.moveaxis(total, -1, 2)


def _interpolate(x: Tensor, plane: tuple[Expr, Expr], places: list[Expr]) -> Expr:
    """`x[plane]` at fractional places, 0 outside, as an expression."""
    limit = float(1 << 30)
    lows, shares = [], []
    for place in places:
        place = select(apply("abs", place) < limit, place, -limit)
        low = apply("floor", place)
        lows.append(cast(low, t.i64))
        shares.append(place - low)
    total: Expr | None = None
    for corner in itertools.product((0, 1), repeat=len(places)):
        value = wide(x.at(*plane, *(low + step for low, step in zip(lows, corner)), outside=0))
        for step, share in zip(corner, shares):
            value = value * (share if step else 1.0 - share)
        total = value if total is None else total + value
    assert total is not None
    return total
