"""Training operators of ai.onnx.preview.training: optimizers, each a few elementwise ops, and Gradient.

The factors that are one number for all tensors are taken in double precision: 1 - beta ** T loses most digits of a
float otherwise.
"""

from __future__ import annotations

from typing import Any

from compiler.gradient import gradients
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError

_TRAINING = "ai.onnx.preview.training"


def _scalar(b: Any, x: Any, what: str) -> Any:
    """One number, as f64[]."""
    if x.tensor.elements != 1:
        raise OpError(f"`{what}` is {x.type}; it must be one number")
    x = x if x.rank == 0 else b.reshape(x, shape=())
    return x if x.dtype == t.f64 else b.cast(x, to=t.f64)


def _groups(inputs: tuple[Any, ...], roles: str) -> list[tuple[Any, ...]]:
    """The tensors of each optimized one, by role: ONNX lists all tensors of the first role, then of the next."""
    count, rest = divmod(len(inputs), len(roles))
    if rest or not count or any(x is None for x in inputs):
        raise OpError(f"after R and T it has {len(inputs)} inputs; it takes {', '.join(roles)} of each tensor")
    groups = [inputs[i::count] for i in range(count)]
    for number, group in enumerate(groups):
        for role, x in zip(roles, group):
            if x.type != group[0].type:
                raise OpError(f"{role} number {number} is {x.type}, {roles[0]} is {group[0].type}")
    return groups


def _by_role(results: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(x for role in zip(*results) for x in role)


def _regularized(b: Any, x: Any, g: Any, coefficient: float) -> Any:
    return x * b.const(coefficient, x.dtype) + g if coefficient else g


def _narrow(b: Any, factor: Any, x: Any) -> Any:
    return factor if x.dtype == t.f64 else b.cast(factor, to=x.dtype)


@onnx_op("Adagrad", domain=_TRAINING)
def Adagrad(
    b: Any, R: Any, T: Any, *inputs: Any, decay_factor: float = 0.0, epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> Any:  # fmt: skip
    rate = _scalar(b, R, "R") / (_scalar(b, T, "T") * b.const(decay_factor, t.f64) + 1.0)
    results = []
    for x, g, h in _groups(inputs, "XGH"):
        g = _regularized(b, x, g, norm_coefficient)
        h = h + g * g
        results.append((x - _narrow(b, rate, x) * g / (b.sqrt(h) + b.const(epsilon, x.dtype)), h))
    return _by_role(results)


@onnx_op("Adam", domain=_TRAINING)
def Adam(
    b: Any, R: Any, T: Any, *inputs: Any, alpha: float = 0.9, beta: float = 0.999, epsilon: float = 1e-6,
    norm_coefficient: float = 0.0, norm_coefficient_post: float = 0.0,
) -> Any:  # fmt: skip
    rate, step = _scalar(b, R, "R"), _scalar(b, T, "T")
    one = b.const(1.0, t.f64)
    bias = b.sqrt(one - b.pow(b.const(beta, t.f64), step)) / (one - b.pow(b.const(alpha, t.f64), step))
    rate = b.where(b.greater(step, b.const(0.0, t.f64)), rate * bias, rate)
    results = []
    for x, g, v, h in _groups(inputs, "XGVH"):
        number = lambda value, dtype=x.dtype: b.const(value, dtype)  # noqa: E731
        g = _regularized(b, x, g, norm_coefficient)
        v = number(alpha) * v + number(1 - alpha) * g
        h = number(beta) * h + number(1 - beta) * (g * g)
        new = x - _narrow(b, rate, x) * v / (b.sqrt(h) + number(epsilon))
        results.append((number(1 - norm_coefficient_post) * new if norm_coefficient_post else new, v, h))
    return _by_role(results)


@onnx_op("Momentum", domain=_TRAINING)
def Momentum(
    b: Any, R: Any, T: Any, *inputs: Any, alpha: float, beta: float, mode: str, norm_coefficient: float
) -> Any:
    if mode not in ("standard", "nesterov"):
        raise OpError(f"`mode` is {mode!r}; it must be standard or nesterov")
    rate, step = _scalar(b, R, "R"), _scalar(b, T, "T")
    weight = b.where(b.greater(step, b.const(0.0, t.f64)), b.const(beta, t.f64), b.const(1.0, t.f64))
    results = []
    for x, g, v in _groups(inputs, "XGV"):
        g = _regularized(b, x, g, norm_coefficient)
        v = b.const(alpha, x.dtype) * v + _narrow(b, weight, x) * g
        step_along = v if mode == "standard" else g + b.const(alpha, x.dtype) * v
        results.append((x - _narrow(b, rate, x) * step_along, v))
    return _by_role(results)


@onnx_op("Gradient", domain=_TRAINING)
def Gradient(b: Any, *inputs: Any, xs: tuple[str, ...], y: str, zs: tuple[str, ...] = ()) -> Any:
    """The derivatives of the sum of `y` by `xs`, where `xs` and `zs` have the values given as inputs."""
    if len(inputs) != len(xs) + len(zs) or any(x is None for x in inputs):
        raise OpError(f"it has {len(inputs)} inputs; `xs` and `zs` name {len(xs) + len(zs)}")
    named = [b.value_of(name) for name in (*xs, *zs)]
    for name, value, given in zip((*xs, *zs), named, inputs):
        if value.type != given.type:
            raise OpError(f"'{name}' is {value.type}; its value is given as {given.type}")
    wanted = [b.is_output_used(i) for i in range(len(xs))]
    found = gradients(b, b.value_of(y), dict(zip(named, inputs)), [v for v, w in zip(named, wanted) if w])
    remaining = iter(found)
    return tuple(next(remaining) if w else None for w in wanted)
