"""The time loops of recurrent layers, as kernels: what remains when the input's projection is one matrix product.

Operands are the projected input xw[t, n, d*g], the recurrence weights transposed, r[d, k, g], and the initial states.
State lives in the outputs y_h and y_c; the last output is a row of gates for each sequence: room to work in, zeros at
the end.
Every sequence and direction is independent; inside, units are the innermost loop so that it runs over whole rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ir import types as t
from ir.dims import Size
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const, select
from ir.expr import Expr, Index
from ir.op import case, op
from ir.ops.recurrent import Recurrent
from ir.types import TensorType

_UNROLL = 4


def activation_expr(name: str, x: Expr, alpha: float, beta: float) -> Expr:
    """An activation function of a recurrent layer as an expression."""
    match name:
        case "sigmoid" | "tanh":
            return apply(name, x)
        case "relu":
            return apply("max", x, 0)
        case "affine":
            return x * alpha + beta
        case "leakyrelu":
            return select(x >= 0, x, x * alpha)
        case "thresholdedrelu":
            return select(x >= alpha, x, 0)
        case "scaledtanh":
            return apply("tanh", x * beta) * alpha
        case "hardsigmoid":
            return apply("min", apply("max", x * alpha + beta, 0), 1)
        case "elu":
            return select(x >= 0, x, apply("expm1", apply("min", x, 0)) * alpha)
        case "softsign":
            return x / (apply("abs", x) + 1)
        case "softplus":
            return apply("max", x, 0) + apply("log1p", apply("exp", -apply("abs", x)))
    raise ValueError(f"no activation {name!r}")


class Scan(Recurrent):
    """What the three scans share: the loops around a step, and products with the recurrence weights."""

    def state_type(
        self, xw: TensorType, r: TensorType, lens: TensorType | None, *states: TensorType | None,
        p: TensorType | None = None,
    ) -> tuple[TensorType, TensorType, TensorType]:  # fmt: skip
        """Types of y[t, d, n, h], of a state [d, n, h], and of the gates [d, n, g]. Raises OpError."""
        self.check()
        time, batch, _ = xw.shape
        count, hidden, width = r.shape
        state = self.check_states(xw, hidden, lens, *states, p=p)
        return xw.with_shape((time, count, batch, hidden)), state, xw.with_shape((count, batch, width))

    def over_time(
        self, k: KernelBuilder, y: Output, gates: Output, states: list[tuple[Output, Tensor | None]],
        lens: Tensor | None, step: Callable[[int, Expr, Expr, Expr], None],
    ) -> None:  # fmt: skip
        """Loops over directions, sequences and time; `step(direction, d, n, at)` writes y[at] and the states."""
        batch, count = y.shape[2], len(self.reversed)
        if self.is_alike():
            with k.loop("parallel", d=count, n=batch) as (d, n):
                self._sequence(k, y, gates, states, lens, d, n, d.equals(1), lambda at: step(0, d, n, at))
            return
        for position, backward in enumerate(self.reversed):
            d = Index(t.i64, position)
            with k.loop("parallel", n=batch) as n:
                run = lambda at, position=position, d=d, n=n: step(position, d, n, at)  # noqa: E731
                self._sequence(k, y, gates, states, lens, d, n, backward, run)

    def is_alike(self) -> bool:
        """Whether there are two directions, and one loop over them can do both."""
        both = len(self.reversed) == 2
        return both and all(self.activation(1, i) == self.activation(0, i) for i in range(self.per_direction))

    @staticmethod
    def place(step: Expr, last: Expr, backward: Expr | bool) -> Expr:
        """Which time a step is for; `last` is the last of a sequence."""
        return step if backward is False else last - step if backward is True else select(backward, last - step, step)

    def _sequence(
        self, k: KernelBuilder, y: Output, gates: Output, states: list[tuple[Output, Tensor | None]],
        lens: Tensor | None, d: Expr, n: Expr, backward: Expr | bool, run: Callable[[Expr], None],
    ) -> None:  # fmt: skip
        time, _, _, hidden = y.shape
        length: Size | Expr = time
        if lens is not None:
            given = cast(lens.at(n), t.i64)
            length = k.let("length", apply("min", apply("max", given, 0), Index(t.i64, time)))
            with k.loop(t=time, j=hidden) as (at, j):
                k.store(y, (at, d, n, j), 0)
        for state, initial in states:
            with k.loop(j=hidden) as j:
                first = const(0, state.dtype) if initial is None else initial.at(d, n, j)
                k.store(state, (d, n, j), first if lens is None else select(apply("gt", length, 0), first, 0))
        with k.loop(t=length) as step:
            last = (length if isinstance(length, Expr) else Index(t.i64, length)) - 1
            at = self.place(step, last, backward)
            run(at if backward is False else k.let("at", at))
        with k.loop(j=gates.shape[2]) as j:
            k.store(gates, (d, n, j), 0)

    def accumulate(
        self,
        k: KernelBuilder,
        gates: Output,
        row: tuple[Expr, Expr],
        state: Callable[[Expr], Expr],
        r: Tensor,
        first: int,
        width: int,
    ) -> None:
        """gates[row, first + j] += sum over u of state(u) * r[d, u, first + j], for j in 0..width.

        Several units at a time, so that a gate is loaded and stored once for all of them.
        """
        d, n = row
        hidden = int(r.shape[1])  # type: ignore[arg-type]
        step = _UNROLL if hidden % _UNROLL == 0 else 1
        with k.loop(u=hidden // step) as block:
            units = [block * step + i for i in range(step)]
            held = [k.let("s", state(u)) for u in units]
            with k.loop(j=width) as j:
                total = gates.at(d, n, j + first)
                for u, s in zip(units, held):
                    total = total + s * r.at(d, u, j + first)
                k.store(gates, (d, n, j + first), total)

    def act(self, direction: int, position: int, x: Expr, clipped: bool = True) -> Expr:
        name, alpha, beta = self.activation(direction, position)
        if self.clip and clipped:
            x = apply("min", apply("max", x, -self.clip), self.clip)
        return activation_expr(name, x, alpha, beta)


_LSTM = ("sigmoid", "tanh", "tanh")


@op
class LstmScan(Scan):
    """The time loop of `lstm`: xw[t, n, d*4h] holds the gates' inputs with all biases."""

    input_forget: bool = False
    gates = 4
    per_direction = 3
    examples = [
        case("f32[3,2,16]", "f32[1,4,16]", activations=_LSTM),
        case("f32[3,2,24]", "f32[2,3,12]", "f32[2,9]", np.array([3, 1], np.int32), "f32[2,2,3]", "f32[2,2,3]",
             direction="bidirectional", activations=_LSTM * 2, clip=0.7),
    ]  # fmt: skip

    def infer(
        self, xw: TensorType, r: TensorType, p: TensorType | None = None, lens: TensorType | None = None,
        h0: TensorType | None = None, c0: TensorType | None = None,
    ) -> tuple[TensorType, ...]:  # fmt: skip
        y, state, gates = self.state_type(xw, r, lens, h0, c0, p=p)
        return y, state, state, gates

    def reference(self, xw, r, p=None, lens=None, h0=None, c0=None):
        time, batch, _ = xw.shape
        count, hidden, width = r.shape
        y, gates = np.zeros((time, count, batch, hidden), xw.dtype), np.zeros((count, batch, width), xw.dtype)
        h = self.initial(h0, lens, (count, batch, hidden), xw.dtype)
        c = self.initial(c0, lens, (count, batch, hidden), xw.dtype)
        rows = np.arange(batch)
        for d in range(count):
            pi, po, pf = np.split(np.zeros(3 * hidden, xw.dtype) if p is None else p[d], 3)
            for at, active in self.steps(d, lens, time, batch):
                g = xw[at, rows, d * width : (d + 1) * width] + h[d] @ r[d]
                gi, go, gf, gc = np.split(g, 4, axis=1)
                i = self.activate(d, 0, gi + pi * c[d])
                f = 1 - i if self.input_forget else self.activate(d, 0, gf + pf * c[d])
                cell = f * c[d] + i * self.activate(d, 1, gc)
                out = self.activate(d, 0, go + po * cell) * self.activate(d, 2, cell, clipped=False)
                mask = active[:, None]
                c[d], h[d] = np.where(mask, cell, c[d]), np.where(mask, out, h[d])
                y[at[active], d, rows[active]] = out[active]
        return y, h, c, gates

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor, r: Tensor, p=None, lens=None, h0=None, c0=None
    ) -> None:
        y, y_h, y_c, gates = outs
        width = int(r.shape[2])  # type: ignore[arg-type]

        def step(direction: int, d: Expr, n: Expr, at: Expr) -> None:
            with k.loop(j=width) as j:
                k.store(gates, (d, n, j), xw.at(at, n, d * width + j))
            self.accumulate(k, gates, (d, n), lambda u: y_h.at(d, n, u), r, 0, width)
            self.update(k, outs, p, direction, d, n, at)

        self.over_time(k, y, gates, [(y_h, h0), (y_c, c0)], lens, step)

    def update(
        self, k: KernelBuilder, outs: tuple[Output, ...], p: Tensor | None, direction: int, d: Expr, n: Expr, at: Expr
    ) -> None:
        """Writes the new state of a sequence and y[at] from its gates."""
        y, y_h, y_c, gates = outs[:4]
        hidden = y.shape[3]
        with k.loop(j=hidden) as j:
            held = k.let("c", y_c.at(d, n, j))
            gi, go, gf, gc = (k.let(w, gates.at(d, n, j + q * hidden)) for q, w in enumerate("iofg"))
            if p is not None:
                gi, gf = gi + p.at(d, j) * held, gf + p.at(d, j + 2 * hidden) * held
            i = k.let("input", self.act(direction, 0, gi))
            f = 1 - i if self.input_forget else self.act(direction, 0, gf)
            cell = k.let("cell", f * held + i * self.act(direction, 1, gc))
            if p is not None:
                go = go + p.at(d, j + hidden) * cell
            out = k.let("h", self.act(direction, 0, go) * self.act(direction, 2, cell, clipped=False))
            k.store(y_h, (d, n, j), out)
            k.store(y, (at, d, n, j), out)
            k.store(y_c, (d, n, j), cell)


@op
class GruScan(Scan):
    """The time loop of `gru`: xw[t, n, d*3h] holds the gates' inputs with their biases, bias[d, 3h] those of states."""

    linear_before_reset: bool = False
    gates = 3
    per_direction = 2
    examples = [
        case("f32[3,2,12]", "f32[1,4,12]", activations=("sigmoid", "tanh")),
        case("f32[3,2,18]", "f32[2,3,9]", "f32[2,9]", np.array([3, 1], np.int32), "f32[2,2,3]",
             direction="bidirectional", activations=("sigmoid", "tanh") * 2, linear_before_reset=True),
    ]  # fmt: skip

    def infer(
        self,
        xw: TensorType,
        r: TensorType,
        bias: TensorType | None = None,
        lens: TensorType | None = None,
        h0: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        return self.state_type(xw, r, lens, h0)

    def reference(self, xw, r, bias=None, lens=None, h0=None):
        time, batch, _ = xw.shape
        count, hidden, width = r.shape
        y, gates = np.zeros((time, count, batch, hidden), xw.dtype), np.zeros((count, batch, width), xw.dtype)
        h = self.initial(h0, lens, (count, batch, hidden), xw.dtype)
        rows = np.arange(batch)
        for d in range(count):
            bz, br, bh = np.split(np.zeros(width, xw.dtype) if bias is None else bias[d], 3)
            rz, rr, rh = np.split(r[d], 3, axis=1)
            for at, active in self.steps(d, lens, time, batch):
                xz, xr, xh = np.split(xw[at, rows, d * width : (d + 1) * width], 3, axis=1)
                z = self.activate(d, 0, xz + (h[d] @ rz + bz))
                reset = self.activate(d, 0, xr + (h[d] @ rr + br))
                inner = reset * (h[d] @ rh + bh) if self.linear_before_reset else (reset * h[d]) @ rh + bh
                out = (1 - z) * self.activate(d, 1, xh + inner) + z * h[d]
                h[d] = np.where(active[:, None], out, h[d])
                y[at[active], d, rows[active]] = out[active]
        return y, h, gates

    def kernel(
        self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor, r: Tensor, bias=None, lens=None, h0=None
    ) -> None:
        y, y_h, gates = outs
        hidden, width = int(r.shape[1]), int(r.shape[2])  # type: ignore[arg-type]

        def start(d: Expr, n: Expr, at: Expr, j: Expr, with_input: bool) -> Expr | int:
            after = 0 if bias is None else bias.at(d, j)
            return xw.at(at, n, d * width + j) + after if with_input else after

        def step(direction: int, d: Expr, n: Expr, at: Expr) -> None:
            before = self.linear_before_reset
            with k.loop(j=2 * hidden) as j:
                k.store(gates, (d, n, j), start(d, n, at, j, True))
            with k.loop(j=hidden) as j:
                k.store(gates, (d, n, j + 2 * hidden), start(d, n, at, j + 2 * hidden, not before))
            self.accumulate(k, gates, (d, n), lambda u: y_h.at(d, n, u), r, 0, width if before else 2 * hidden)
            if not before:
                with k.loop(j=hidden) as j:
                    reset = self.act(direction, 0, gates.at(d, n, j + hidden))
                    k.store(gates, (d, n, j + hidden), reset * y_h.at(d, n, j))
                self.accumulate(k, gates, (d, n), lambda u: gates.at(d, n, u + hidden), r, 2 * hidden, hidden)
            with k.loop(j=hidden) as j:
                z = k.let("z", self.act(direction, 0, gates.at(d, n, j)))
                inner = gates.at(d, n, j + 2 * hidden)
                if before:
                    reset = self.act(direction, 0, gates.at(d, n, j + hidden))
                    inner = xw.at(at, n, d * width + j + 2 * hidden) + reset * inner
                out = k.let("h", (1 - z) * self.act(direction, 1, inner) + z * y_h.at(d, n, j))
                k.store(y_h, (d, n, j), out)
                k.store(y, (at, d, n, j), out)

        self.over_time(k, y, gates, [(y_h, h0)], lens, step)


@op
class RnnScan(Scan):
    """The time loop of `rnn`: xw[t, n, d*h] holds the inputs with all biases."""

    gates = 1
    per_direction = 1
    examples = [
        case("f32[3,2,4]", "f32[1,4,4]", activations=("tanh",)),
        case("f32[3,2,6]", "f32[2,3,3]", np.array([3, 1], np.int32), "f32[2,2,3]", direction="bidirectional",
             activations=("relu", "leakyrelu"), alpha=(0, 0.1), beta=(0, 0)),
    ]  # fmt: skip

    def infer(
        self, xw: TensorType, r: TensorType, lens: TensorType | None = None, h0: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        return self.state_type(xw, r, lens, h0)

    def reference(self, xw, r, lens=None, h0=None):
        time, batch, _ = xw.shape
        count, hidden, width = r.shape
        y, gates = np.zeros((time, count, batch, hidden), xw.dtype), np.zeros((count, batch, width), xw.dtype)
        h = self.initial(h0, lens, (count, batch, hidden), xw.dtype)
        rows = np.arange(batch)
        for d in range(count):
            for at, active in self.steps(d, lens, time, batch):
                out = self.activate(d, 0, xw[at, rows, d * width : (d + 1) * width] + h[d] @ r[d])
                h[d] = np.where(active[:, None], out, h[d])
                y[at[active], d, rows[active]] = out[active]
        return y, h, gates

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], xw: Tensor, r: Tensor, lens=None, h0=None) -> None:
        y, y_h, gates = outs
        hidden = int(r.shape[1])  # type: ignore[arg-type]

        def step(direction: int, d: Expr, n: Expr, at: Expr) -> None:
            with k.loop(j=hidden) as j:
                k.store(gates, (d, n, j), xw.at(at, n, d * hidden + j))
            self.accumulate(k, gates, (d, n), lambda u: y_h.at(d, n, u), r, 0, hidden)
            with k.loop(j=hidden) as j:
                out = k.let("h", self.act(direction, 0, gates.at(d, n, j)))
                k.store(y_h, (d, n, j), out)
                k.store(y, (at, d, n, j), out)

        self.over_time(k, y, gates, [(y_h, h0)], lens, step)


__all__ = ["GruScan", "LstmScan", "RnnScan", "Scan", "activation_expr"]
