"""The time loop of an LSTM whose recurrence weights are integers, and whose state is quantised anew at every step.

The state of a direction, all sequences together, is quantised to u8 as `dynamic_quantize` does; products are exact in
i32. A sequence takes part in this as long as it lasts, and for the step after its last.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from ir import types as t
from ir.element import KernelBuilder, Output, Tensor, apply, cast, select
from ir.expr import Expr, Index
from ir.op import case, op, require
from ir.ops.quantized import DynamicQuantize, clamped
from ir.ops.recurrent_scan import LstmScan, Scan
from ir.types import TensorType

_LSTM = ("sigmoid", "tanh", "tanh")


@op
class QuantizedLstmScan(Scan):
    """`lstm_scan` with integer weights r[d, k, 4h], their scales and zero points [d, 1] or [d, 4h].

    `sums` is what r minus its zero points adds up to along k, i32[d, 4h]. Outputs y, y_h, y_c, and a row per sequence
    to work in, zeros at the end.
    """

    input_forget: bool = False
    gates = 4
    per_direction = 3
    examples = [
        case("f32[3,2,16]", "i8[1,4,16]", np.full((1, 1), 0.05, np.float32), None, np.full((1, 16), 3, np.int32),
             activations=_LSTM),
        case("f32[3,2,24]", "u8[2,3,12]", np.full((2, 12), 0.02, np.float32), np.full((2, 12), 4, np.uint8),
             "i32[2,12]", "f32[2,9]", np.array([3, 1], np.int32), "f32[2,2,3]", "f32[2,2,3]",
             direction="bidirectional", activations=_LSTM * 2),
        case("f32[5,3,8]", "i8[1,2,8]", np.full((1, 1), 0.5, np.float32), np.full((1, 1), -3, np.int32), "i32[1,8]",
             None, np.array([5, 1, 2], np.int32), None, None, activations=_LSTM),
    ]  # fmt: skip

    def infer(self, xw: TensorType, r: TensorType, scale: TensorType, zero: TensorType | None, sums: TensorType,
              p: TensorType | None = None, lens: TensorType | None = None, h0: TensorType | None = None,
              c0: TensorType | None = None) -> tuple[TensorType, ...]:  # fmt: skip
        require(r.dtype in (t.i8, t.u8) and xw.dtype == t.f32, lambda: f"{self.name} does not take {xw}, {r}")
        require(sums.dtype == t.i32 and sums.shape == (r.shape[0], r.shape[2]), lambda: f"{self.name}: sums {sums}")
        y, state, gates = self.state_type(xw, r, lens, h0, c0, p=p)
        return y, state, state, gates

    def plain(self) -> LstmScan:
        return LstmScan(self.direction, self.activations, self.alpha, self.beta, self.clip, self.input_forget)

    def reference(self, xw, r, scale, zero, sums, p=None, lens=None, h0=None, c0=None):
        time, batch, _ = xw.shape
        count, hidden, width = r.shape
        y = np.zeros((time, count, batch, hidden), np.float32)
        h = self.initial(h0, lens, (count, batch, hidden), xw.dtype)
        c = self.initial(c0, lens, (count, batch, hidden), xw.dtype)
        levels = r.astype(np.int32) - (0 if zero is None else zero.astype(np.int32)[:, None])
        rows = np.arange(batch)
        for d in range(count):
            pi, po, pf = np.split(np.zeros(3 * hidden, xw.dtype) if p is None else p[d], 3)
            for step, (at, active) in enumerate(self.steps(d, lens, time, batch)):
                seen = np.full(batch, True) if lens is None else step <= lens
                q, state_scale, state_zero = DynamicQuantize().reference(np.where(seen[:, None], h[d], np.float32(0)))
                total = q.astype(np.int32) @ levels[d] - state_zero.astype(np.int32) * sums[d]
                g = xw[at, rows, d * width : (d + 1) * width] + total.astype(np.float32) * (state_scale * scale[d])
                gi, go, gf, gc = np.split(g, 4, axis=1)
                i = self.activate(d, 0, gi + pi * c[d])
                f = 1 - i if self.input_forget else self.activate(d, 0, gf + pf * c[d])
                cell = f * c[d] + i * self.activate(d, 1, gc)
                out = self.activate(d, 0, go + po * cell) * self.activate(d, 2, cell, clipped=False)
                c[d], h[d] = np.where(active[:, None], cell, c[d]), np.where(active[:, None], out, h[d])
                y[at[active], d, rows[active]] = out[active]
        return y, h, c, np.zeros((count, batch, width), np.float32)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor, r: Tensor, scale: Tensor, zero, sums,
               p=None, lens=None, h0=None, c0=None) -> None:  # fmt: skip
        def one(position: int, d: Expr, backward: Expr | bool) -> None:
            self._direction(k, outs, xw, (r, scale, zero, sums), (p, lens, h0, c0), position, d, backward)

        if self.is_alike():
            with k.loop("parallel", d=len(self.reversed)) as d:
                one(0, d, d.equals(1))
            return
        for position, backward in enumerate(self.reversed):
            one(position, Index(t.i64, position), backward)

    def _direction(self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor,
                   weights: tuple[Tensor, Tensor, Tensor | None, Tensor], rest: tuple[Tensor | None, ...],
                   position: int, d: Expr, backward: Expr | bool) -> None:  # fmt: skip
        """One direction; `position` is whose activation functions it has. Sequences go through time together, since
        the scale of their states is one."""
        y, y_h, y_c, gates = outs
        p, lens, h0, c0 = rest
        time, batch, hidden, width = y.shape[0], y.shape[2], y.shape[3], gates.shape[2]
        with k.loop(n=batch, j=hidden) as (n, j):
            for state, first in ((y_h, h0), (y_c, c0)):
                given = Index(t.i64, 0) if first is None else first.at(d, n, j)
                if first is not None and lens is not None:
                    given = select(lens.at(n) > 0, given, 0)
                k.store(state, (d, n, j), given if first is not None else 0)
        if lens is not None:
            with k.loop(t=time, n=batch, j=hidden) as (at, n, j):
                k.store(y, (at, d, n, j), 0)
        with k.loop(t=time) as step:
            levels = self._levels(k, y_h, d, step, lens)
            with k.loop(n=batch) as n:
                length = Index(t.i64, time) if lens is None else cast(lens.at(n), t.i64)
                length = length if lens is None else k.let("length", apply("min", length, Index(t.i64, time)))
                at = self.place(step, length - 1, backward)
                at = step if backward is False else k.let("at", at)
                with nullcontext() if lens is None else k.when(step < length):
                    self._gates(k, outs, xw, weights, levels, (d, n, at))
                    self.plain().update(k, outs, p, position, d, n, at)
        with k.loop(n=batch, j=width) as (n, j):
            k.store(gates, (d, n, j), 0)

    def _levels(self, k: KernelBuilder, y_h: Output, d: Expr, step: Expr, lens: Tensor | None) -> tuple[Expr, Expr]:
        """The scale and zero point that fit the state of direction `d` of sequences that are not over at `step`."""
        bounds = []
        for name, function in (("low", "min"), ("high", "max")):
            bound = k.variable(name, 0, t.f32)
            with k.loop(n=y_h.shape[1]) as n:
                seen = nullcontext() if lens is None else k.when(step <= cast(lens.at(n), t.i64))
                with seen, k.loop(j=y_h.shape[2]) as j:
                    k.assign(bound, y_h.at(d, n, j), function)
            bounds.append(bound)
        low, high = bounds
        scale = k.let("scale", select(high > low, (high - low) / 255.0, 1.0), t.f32)
        zero = k.let("zero", apply("round", apply("min", apply("max", -low / scale, 0), 255)), t.f32)
        return scale, zero

    def _gates(self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor,
               weights: tuple[Tensor, Tensor, Tensor | None, Tensor], levels: tuple[Expr, Expr],
               at: tuple[Expr, Expr, Expr]) -> None:  # fmt: skip
        """gates[d, n] = xw[at, n, d] + state * r, the product taken in integers.

        Zero points are taken out of it: (q - a)(r - z) adds up to what q*r does, less z times the sum of q, less a
        times that of r - z.
        """
        _, y_h, _, gates = outs
        r, scale, zero, sums = weights
        d, n, step = at
        state_scale, state_zero = levels
        hidden, width = int(r.shape[1]), int(r.shape[2])  # type: ignore[arg-type]
        state = k.local("state", TensorType(t.u8, (hidden,)))
        with k.loop(u=hidden) as u:
            k.store(state, (u,), clamped(apply("round", y_h.at(d, n, u) / state_scale) + state_zero, t.u8))
        lowest = k.let("lowest", cast(state_zero, t.i32))
        total = k.variable("total", 0, t.i32)
        if zero is not None:
            with k.loop(u=hidden) as u:
                k.assign(total, cast(state.at(u), t.i32), "add")
        with k.loop(j=width) as j:
            acc = k.variable("acc", 0, t.i32)
            with k.loop(u=hidden) as u:
                k.assign(acc, cast(state.at(u), t.i32) * cast(r.at(d, u, j), t.i32), "add")
            product = acc - lowest * sums.at(d, j)
            if zero is not None:
                product = product - total * cast(zero.at(d, 0 if zero.shape[1] == 1 else j), t.i32)
            own = scale.at(d, 0 if scale.shape[1] == 1 else j)
            k.store(gates, (d, n, j), xw.at(step, n, d * width + j) + cast(product, t.f32) * (state_scale * own))


__all__ = ["QuantizedLstmScan"]
