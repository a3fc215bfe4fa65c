"""Recurrent layers: LSTM, GRU and the plain RNN, one layer in one or two directions.

The layers are composites: the input's projection for all time steps is one matrix product, what remains is a scan over
time (`recurrent_scan`). Layout is time-major, x[t, n, i]; gates stand in the order of ONNX (LSTM i o f c, GRU z r h).
Narrow floats are computed in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.dims import Size, decide_eq
from ir.functions import FUNCTIONS
from ir.op import Op, assume_equal, case, op, require
from ir.ops.elementwise import same_dtype
from ir.ops.movement import shape_text
from ir.ops.reduction import accumulator
from ir.types import TensorType, dtype_of

floats = tuple[float, ...]
words = tuple[str, ...]

ACTIVATIONS: dict[str, Callable[[np.ndarray, Any, Any], np.ndarray]] = {
    "sigmoid": lambda x, alpha, beta: FUNCTIONS["sigmoid"].numpy(x),
    "tanh": lambda x, alpha, beta: np.tanh(x),
    "relu": lambda x, alpha, beta: np.maximum(x, 0),
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "leakyrelu": lambda x, alpha, beta: np.where(x >= 0, x, alpha * x),
    "thresholdedrelu": lambda x, alpha, beta: np.where(x >= alpha, x, 0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "elu": lambda x, alpha, beta: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "softsign": lambda x, alpha, beta: x / (1 + np.abs(x)),
    "softplus": lambda x, alpha, beta: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}
"""The activation functions ONNX allows in recurrent layers, by lower-case name; alpha and beta as ONNX names them."""


@dataclass(frozen=True, repr=False)
class Recurrent(Op):
    """Base of recurrent layers and their scans.

    `activations` holds `per_direction` names for each direction, `alpha` and `beta` as many numbers (ignored by
    functions that take none). `clip` bounds the operands of activations to [-clip, clip]; 0 does not. The cell state
    that an LSTM passes to its last activation is not clipped, and a sequence of length 0 gives zeros, not its initial
    state: ONNX leaves both open, this is what ONNX Runtime does.
    """

    gates: ClassVar[int]
    per_direction: ClassVar[int]

    direction: str = "forward"
    activations: words = ()
    alpha: floats = ()
    beta: floats = ()
    clip: float = 0.0

    @property
    def reversed(self) -> tuple[bool, ...]:
        """For each direction, whether it runs from the last time step to the first."""
        return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[self.direction]

    def activation(self, direction: int, position: int) -> tuple[str, float, float]:
        """Name, alpha and beta of an activation of a direction."""
        at = direction * self.per_direction + position
        return self.activations[at], self.alpha[at] if self.alpha else 0.0, self.beta[at] if self.beta else 0.0

    def activate(self, direction: int, position: int, x: np.ndarray, clipped: bool = True) -> np.ndarray:
        name, alpha, beta = self.activation(direction, position)
        if self.clip and clipped:
            x = np.clip(x, -self.clip, self.clip)
        return ACTIVATIONS[name](x, x.dtype.type(alpha), x.dtype.type(beta)).astype(x.dtype, copy=False)

    def check(self) -> None:
        """Raises OpError for attributes that make no sense."""
        require(self.direction in ("forward", "reverse", "bidirectional"), lambda: f"direction is '{self.direction}'")
        count = self.per_direction * len(self.reversed)
        require(len(self.activations) == count, lambda: f"{self.name} needs {count} activations: {self.activations}")
        unknown = [name for name in self.activations if name not in ACTIVATIONS]
        require(not unknown, lambda: f"{self.name}: unknown activation '{unknown[0]}'")
        require(all(len(v) in (0, count) for v in (self.alpha, self.beta)), "alpha and beta must fit the activations")

    def check_layer(
        self, x: TensorType, w: TensorType, r: TensorType, bias: TensorType | None,
        lens: TensorType | None, *states: TensorType | None, p: TensorType | None = None,
    ) -> tuple[TensorType, TensorType]:  # fmt: skip
        """Types of the outputs y[t, d, n, h] and y_h[d, n, h] of a layer. Raises OpError."""
        self.check()
        same_dtype(self.name, *(v for v in (x, w, r, bias, *states, p) if v is not None))
        require(x.dtype.is_float, lambda: f"{self.name} does not take {x.dtype}")
        require(x.rank == w.rank == r.rank == 3, lambda: f"{self.name}: x, w, r are {x}, {w}, {r}; each needs 3 axes")
        hidden, count = r.shape[2], len(self.reversed)
        require(isinstance(hidden, int), f"{self.name}: the hidden size must be known")
        self.check_shape("w", w, (count, self.gates * hidden, x.shape[2]))
        self.check_shape("r", r, (count, self.gates * hidden, hidden))
        self.check_shape("b", bias, (count, 2 * self.gates * hidden))
        return x.with_shape((x.shape[0], count, x.shape[1], hidden)), self.check_states(x, hidden, lens, *states, p=p)

    def check_states(
        self, x: TensorType, hidden: Size, lens: TensorType | None, *states: TensorType | None,
        p: TensorType | None = None,
    ) -> TensorType:  # fmt: skip
        """The type of a state[d, n, h], which the first states must have. Raises OpError where they, the lengths or the
        peepholes do not fit the sequences x[t, n, i]."""
        count = len(self.reversed)
        state = x.with_shape((count, x.shape[1], hidden))
        require(lens is None or lens.dtype.is_integer, lambda: f"{self.name}: lengths are {lens}")
        self.check_shape("lengths", lens, (x.shape[1],))
        for name, given in zip(("initial_h", "initial_c"), states):
            self.check_shape(name, given, state.shape)
        self.check_shape("p", p, (count, 3 * hidden))
        return state

    def check_shape(self, what: str, given: TensorType | None, shape: tuple[Size, ...]) -> None:
        """Demands that an operand has a shape. Raises OpError where it cannot have."""
        if given is None:
            return
        wrong = given.rank != len(shape) or any(decide_eq(a, b) is False for a, b in zip(given.shape, shape))
        require(not wrong, lambda: f"{self.name}: {what} is {given}, not of shape {shape_text(shape)}")
        for own, size in zip(given.shape, shape):
            assume_equal(own, size)

    def initial(
        self, state: np.ndarray | None, lens: np.ndarray | None, like: tuple[int, ...], dtype: np.dtype
    ) -> np.ndarray:
        """The state [d, n, h] before the first step, as an array to be changed."""
        if state is None:
            return np.zeros(like, dtype)
        return state.copy() if lens is None else np.where(lens[:, None] > 0, state, 0).astype(dtype)

    def steps(
        self, direction: int, lens: np.ndarray | None, time: int, batch: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each step of a direction: the time index of each sequence, and whether the sequence is that long."""
        lengths = np.full(batch, time) if lens is None else np.clip(lens, 0, time).astype(np.int64)
        found = []
        for t in range(time):
            at = lengths - 1 - t if self.reversed[direction] else np.full(batch, t)
            found.append((np.where(t < lengths, at, 0), t < lengths))
        return found


def wide_array(x: np.ndarray | None) -> Any:
    """`x` in the type its sums are taken in."""
    return None if x is None else x.astype(accumulator(dtype_of(x)).numpy, copy=False)


def part(b: Any, x: Any, axis: int, start: Size, count: Size) -> Any:
    """`count` slices of `x` along `axis`, from `start` on."""
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    starts = tuple(start if a == axis else 0 for a in range(x.rank))
    return b.slice(x, starts=starts, shape=shape, steps=(1,) * x.rank)


def widen(b: Any, *values: Any) -> list[Any]:
    """Values cast to the type their sums are taken in; None stays."""
    kept = (None if v is None else accumulator(v.dtype) for v in values)
    return [v if v is None or to == v.dtype else b.cast(v, to=to) for v, to in zip(values, kept)]


def project(b: Any, x: Any, w: Any, bias: Any) -> Any:
    """x[t, n, i] times w[d, g, i] for all directions at once, plus bias[d, g]: y[t, n, d*g]."""
    time, batch, inputs = x.shape
    units = w.shape[0] * w.shape[1]
    flat = b.reshape(w, shape=(units, inputs))
    y = b.matmul(b.reshape(x, shape=(time * batch, inputs)), b.transpose(flat, perm=(1, 0)))
    if bias is not None:
        y = y + b.reshape(bias, shape=(units,))
    return b.reshape(y, shape=(time, batch, units))


_LSTM = ("sigmoid", "tanh", "tanh")


@op
class Lstm(Recurrent):
    """ONNX LSTM, time-major: outputs y[t, d, n, h], and the last states y_h and y_c[d, n, h].

    p holds the peepholes for the gates i o f. With `input_forget`, the forget gate is 1 - i.
    """

    input_forget: bool = False
    gates = 4
    per_direction = 3
    examples = [
        case("f32[3,2,4]", "f32[1,20,4]", "f32[1,20,5]", activations=_LSTM),
        case("f32[3,2,4]", "f32[2,12,4]", "f32[2,12,3]", "f32[2,24]", np.array([3, 1], np.int32), "f32[2,2,3]",
             "f32[2,2,3]", "f32[2,9]", direction="bidirectional",
             activations=(*_LSTM, "hardsigmoid", "softsign", "relu"),
             alpha=(0, 0, 0, 0.2, 0, 0), beta=(0, 0, 0, 0.5, 0, 0), clip=0.7),
        case("f16[2,1,3]", "f16[1,16,3]", "f16[1,16,4]", "f16[1,32]", direction="reverse", activations=_LSTM,
             input_forget=True),
    ]  # fmt: skip

    def infer(self, x: TensorType, w: TensorType, r: TensorType, bias: TensorType | None = None,
              lens: TensorType | None = None, h0: TensorType | None = None, c0: TensorType | None = None,
              p: TensorType | None = None) -> tuple[TensorType, ...]:  # fmt: skip
        y, state = self.check_layer(x, w, r, bias, lens, h0, c0, p=p)
        return y, state, state

    def scan(self) -> Op:
        from ir.ops.recurrent_scan import LstmScan

        return LstmScan(self.direction, self.activations, self.alpha, self.beta, self.clip, self.input_forget)

    def reference(self, x, w, r, bias=None, lens=None, h0=None, c0=None, p=None):
        x_, w, r, bias, h0, c0, p = (wide_array(v) for v in (x, w, r, bias, h0, c0, p))
        projected = [x_ @ w[d].T for d in range(len(w))]
        if bias is not None:
            half = bias.shape[1] // 2
            projected = [v + bias[d, :half] + bias[d, half:] for d, v in enumerate(projected)]
        outs = self.scan().reference(np.concatenate(projected, axis=2), np.swapaxes(r, 1, 2), p, lens, h0, c0)
        return tuple(v.astype(x.dtype, copy=False) for v in outs[:3])

    def expand(self, b: Any, x, w, r, bias=None, lens=None, h0=None, c0=None, p=None) -> Any:
        dtype = x.dtype
        x, w, r, bias, h0, c0, p = widen(b, x, w, r, bias, h0, c0, p)
        if bias is not None:
            half = bias.shape[1] // 2
            bias = part(b, bias, 1, 0, half) + part(b, bias, 1, half, half)
        xw = project(b, x, w, bias)
        outs = b.apply(self.scan(), xw, b.transpose(r, perm=(0, 2, 1)), p, lens, h0, c0)
        return tuple(v if v.dtype == dtype else b.cast(v, to=dtype) for v in outs[:3])


@op
class Gru(Recurrent):
    """ONNX GRU, time-major: outputs y[t, d, n, h] and the last state y_h[d, n, h].

    With `linear_before_reset`, the reset gate multiplies the recurrent product (and its bias), else its operand.
    """

    linear_before_reset: bool = False
    gates = 3
    per_direction = 2
    examples = [
        case("f32[3,2,4]", "f32[1,15,4]", "f32[1,15,5]", activations=("sigmoid", "tanh")),
        case("f32[3,2,4]", "f32[2,9,4]", "f32[2,9,3]", "f32[2,18]", np.array([1, 3], np.int32), "f32[2,2,3]",
             direction="bidirectional", activations=("sigmoid", "tanh") * 2, linear_before_reset=True),
        case("f32[2,1,3]", "f32[1,12,3]", "f32[1,12,4]", "f32[1,24]", direction="reverse",
             activations=("sigmoid", "softplus")),
    ]  # fmt: skip

    def infer(self, x: TensorType, w: TensorType, r: TensorType, bias: TensorType | None = None,
              lens: TensorType | None = None, h0: TensorType | None = None) -> tuple[TensorType, ...]:  # fmt: skip
        return self.check_layer(x, w, r, bias, lens, h0)

    def scan(self) -> Op:
        from ir.ops.recurrent_scan import GruScan

        return GruScan(self.direction, self.activations, self.alpha, self.beta, self.clip, self.linear_before_reset)

    def reference(self, x, w, r, bias=None, lens=None, h0=None):
        x_, w, r, bias, h0 = (wide_array(v) for v in (x, w, r, bias, h0))
        projected = [x_ @ w[d].T for d in range(len(w))]
        after = None
        if bias is not None:
            half = bias.shape[1] // 2
            projected, after = [v + bias[d, :half] for d, v in enumerate(projected)], bias[:, half:]
        outs = self.scan().reference(np.concatenate(projected, axis=2), np.swapaxes(r, 1, 2), after, lens, h0)
        return tuple(v.astype(x.dtype, copy=False) for v in outs[:2])

    def expand(self, b: Any, x, w, r, bias=None, lens=None, h0=None) -> Any:
        dtype = x.dtype
        x, w, r, bias, h0 = widen(b, x, w, r, bias, h0)
        before = after = None
        if bias is not None:
            half = bias.shape[1] // 2
            before, after = part(b, bias, 1, 0, half), part(b, bias, 1, half, half)
        xw = project(b, x, w, before)
        outs = b.apply(self.scan(), xw, b.transpose(r, perm=(0, 2, 1)), after, lens, h0)
        return tuple(v if v.dtype == dtype else b.cast(v, to=dtype) for v in outs[:2])


@op
class Rnn(Recurrent):
    """ONNX RNN, time-major: h = f(x W' + h R' + b); outputs y[t, d, n, h] and the last state y_h[d, n, h]."""

    gates = 1
    per_direction = 1
    examples = [
        case("f32[3,2,4]", "f32[1,5,4]", "f32[1,5,5]", activations=("tanh",)),
        case("f32[3,2,4]", "f32[2,3,4]", "f32[2,3,3]", "f32[2,6]", np.array([2, 3], np.int32), "f32[2,2,3]",
             direction="bidirectional", activations=("relu", "affine"), alpha=(0, 0.5), beta=(0, 0.25)),
    ]  # fmt: skip

    def infer(self, x: TensorType, w: TensorType, r: TensorType, bias: TensorType | None = None,
              lens: TensorType | None = None, h0: TensorType | None = None) -> tuple[TensorType, ...]:  # fmt: skip
        return self.check_layer(x, w, r, bias, lens, h0)

    def scan(self) -> Op:
        from ir.ops.recurrent_scan import RnnScan

        return RnnScan(self.direction, self.activations, self.alpha, self.beta, self.clip)

    def reference(self, x, w, r, bias=None, lens=None, h0=None):
        x_, w, r, bias, h0 = (wide_array(v) for v in (x, w, r, bias, h0))
        projected = [x_ @ w[d].T for d in range(len(w))]
        if bias is not None:
            half = bias.shape[1] // 2
            projected = [v + bias[d, :half] + bias[d, half:] for d, v in enumerate(projected)]
        outs = self.scan().reference(np.concatenate(projected, axis=2), np.swapaxes(r, 1, 2), lens, h0)
        return tuple(v.astype(x.dtype, copy=False) for v in outs[:2])

    def expand(self, b: Any, x, w, r, bias=None, lens=None, h0=None) -> Any:
        dtype = x.dtype
        x, w, r, bias, h0 = widen(b, x, w, r, bias, h0)
        if bias is not None:
            half = bias.shape[1] // 2
            bias = part(b, bias, 1, 0, half) + part(b, bias, 1, half, half)
        outs = b.apply(self.scan(), project(b, x, w, bias), b.transpose(r, perm=(0, 2, 1)), lens, h0)
        return tuple(v if v.dtype == dtype else b.cast(v, to=dtype) for v in outs[:2])
