"""Recurrent layers of ai.onnx: LSTM, GRU, RNN."""

from __future__ import annotations

from typing import Any

from compiler.onnx.registry import onnx_op
from ir.op import OpError

_ALPHA = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
_BETA = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}


def recurrent_attributes(
    names: tuple[str, ...],
    default: tuple[str, ...],
    direction: str,
    alpha: tuple[float, ...],
    beta: tuple[float, ...],
    clip: float,
) -> dict[str, Any]:
    """The attributes of `ir.ops.recurrent` ops for ONNX's: numbers go, in order, to the activations that take one."""
    count = len(default) * (2 if direction == "bidirectional" else 1)
    chosen = tuple(name.lower() for name in names) or default * (count // len(default))
    if len(chosen) != count:
        raise OpError(f"`activations` has {len(chosen)} names; direction '{direction}' needs {count}")
    return {
        "direction": direction, "activations": chosen, "clip": clip,
        "alpha": _numbers(chosen, alpha, _ALPHA), "beta": _numbers(chosen, beta, _BETA),
    }  # fmt: skip


def _numbers(names: tuple[str, ...], given: tuple[float, ...], defaults: dict[str, float]) -> tuple[float, ...]:
    if not any(name in defaults for name in names):
        return ()
    rest = list(given)
    return tuple(0.0 if n not in defaults else float(rest.pop(0)) if rest else defaults[n] for n in names)


def batch_first(b: Any, layout: int, *values: Any) -> list[Any]:
    """x[n, t, i] and states [n, d, h] with their first two axes exchanged where `layout` is 1."""
    return [b.transpose(v, perm=(1, 0, 2)) if layout and v is not None else v for v in values]


def results(b: Any, layout: int, outs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Outputs y[t, d, n, h] and states [d, n, h] as `layout` asks for."""
    if not layout:
        return outs
    return b.transpose(outs[0], perm=(2, 0, 1, 3)), *batch_first(b, 1, *outs[1:])


@onnx_op("LSTM", since=7)
def LSTM(
    b, X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, P=None, *, activation_alpha=(),
    activation_beta=(), activations=(), clip=0.0, direction="forward", hidden_size=0, input_forget=0, layout=0,
):  # fmt: skip
    default = ("sigmoid", "tanh", "tanh")
    given = recurrent_attributes(activations, default, direction, activation_alpha, activation_beta, clip)
    X, initial_h, initial_c = batch_first(b, layout, X, initial_h, initial_c)
    outs = b.lstm(X, W, R, B, sequence_lens, initial_h, initial_c, P, input_forget=bool(input_forget), **given)
    return results(b, layout, outs)


@onnx_op("GRU", since=7)
def GRU(
    b, X, W, R, B=None, sequence_lens=None, initial_h=None, *, activation_alpha=(), activation_beta=(), activations=(),
    clip=0.0, direction="forward", hidden_size=0, layout=0, linear_before_reset=0,
):  # fmt: skip
    given = recurrent_attributes(activations, ("sigmoid", "tanh"), direction, activation_alpha, activation_beta, clip)
    X, initial_h = batch_first(b, layout, X, initial_h)
    outs = b.gru(X, W, R, B, sequence_lens, initial_h, linear_before_reset=bool(linear_before_reset), **given)
    return results(b, layout, outs)


@onnx_op("RNN", since=7)
def RNN(
    b, X, W, R, B=None, sequence_lens=None, initial_h=None, *, activation_alpha=(), activation_beta=(), activations=(),
    clip=0.0, direction="forward", hidden_size=0, layout=0,
):  # fmt: skip
    given = recurrent_attributes(activations, ("tanh",), direction, activation_alpha, activation_beta, clip)
    X, initial_h = batch_first(b, layout, X, initial_h)
    return results(b, layout, b.rnn(X, W, R, B, sequence_lens, initial_h, **given))
