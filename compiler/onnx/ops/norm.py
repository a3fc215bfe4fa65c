"""Normalizations of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.load import element_type
from compiler.onnx.registry import onnx_op
from ir.op import OpError
from ir.ops.norm import convert, widen


@onnx_op("BatchNormalization", since=14)
def BatchNormalization(
    b: Any,
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    if not training_mode:
        return b.batch_norm(x, scale, bias, mean, var, epsilon=float(epsilon))
    axes = tuple(axis for axis in range(x.rank) if axis != 1)
    a = widen(b, x)
    current_mean = b.reduce_mean(a, axes=axes, keepdims=False)
    deviation = a - b.reduce_mean(a, axes=axes, keepdims=True)
    current_var = b.reduce_mean(deviation * deviation, axes=axes, keepdims=False)
    y = b.batch_norm(
        x, scale, bias, convert(b, current_mean, mean), convert(b, current_var, var), epsilon=float(epsilon)
    )
    running = [
        convert(b, widen(b, old) * float(momentum) + convert(b, new, widen(b, old)) * (1.0 - float(momentum)), old)
        for old, new in ((mean, current_mean), (var, current_var))
    ]
    return (y, *running)


@onnx_op("BatchNormalization", since=7)
def BatchNormalization7(
    b: Any,
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Any:
    if any(b.is_output_used(position) for position in range(1, 5)):
        raise OpError("training mode (more than one output) is not supported before opset 14")
    if not spatial:
        raise OpError("`spatial` = 0 (statistics per position) is not supported")
    return b.batch_norm(x, scale, bias, mean, var, epsilon=float(epsilon))


@onnx_op("BatchNormalization", since=1)
def BatchNormalization1(
    b: Any,
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    consumed_inputs: tuple[int, ...] = (),
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Any:
    if not is_test and b.is_output_used(1):
        raise OpError("training mode (`is_test` = 0 with more than one output) is not supported before opset 14")
    return BatchNormalization7(b, x, scale, bias, mean, var, epsilon=epsilon, spatial=spatial)


@onnx_op("InstanceNormalization", since=1)
def InstanceNormalization(
    b: Any, x: Any, scale: Any, bias: Any, *, consumed_inputs: tuple[int, ...] = (), epsilon: float = 1e-5
) -> Any:
    return b.instance_norm(x, scale, bias, epsilon=float(epsilon))


@onnx_op("LayerNormalization", since=1)
def LayerNormalization(
    b: Any, x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """In the schema since opset 17; optimizers also write it into older models."""
    y = b.layer_norm(x, scale, bias, axis=axis, epsilon=float(epsilon))
    if not (b.is_output_used(1) or b.is_output_used(2)):
        return y
    stash = element_type(stash_type)
    return (y, *(v if v.dtype == stash else b.cast(v, to=stash) for v in _statistics(b, x, axis, epsilon)))


def _statistics(b: Any, x: Any, axis: int, epsilon: float) -> tuple[Any, Any]:
    """Mean and inverse standard deviation over the axes from `axis` on."""
    axes = tuple(range(axis % x.rank, x.rank))
    a = widen(b, x)
    mean = b.reduce_mean(a, axes=axes, keepdims=True)
    deviation = a - mean
    variance = b.reduce_mean(deviation * deviation, axes=axes, keepdims=True)
    return mean, b.reciprocal(b.sqrt(variance + float(epsilon)))


@onnx_op("RMSNormalization", since=23)
def RMSNormalization(b: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    return b.rms_norm(x, scale, axis=axis, epsilon=float(epsilon))


@onnx_op("GroupNormalization", since=21)
def GroupNormalization(
    b: Any, x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    return b.group_norm(x, scale, bias, groups=num_groups, epsilon=float(epsilon))


@onnx_op("GroupNormalization", since=18)
def GroupNormalization18(b: Any, x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5) -> Any:
    """Here scale and bias have one number per group."""
    channels = x.shape[1]
    wide = (num_groups, channels // num_groups)
    scale, bias = (
        b.reshape(b.expand(b.reshape(v, shape=(num_groups, 1)), shape=wide), shape=(channels,)) for v in (scale, bias)
    )
    return b.group_norm(x, scale, bias, groups=num_groups, epsilon=float(epsilon))


@onnx_op("LpNormalization", since=1)
def LpNormalization(b: Any, x: Any, *, axis: int = -1, p: int = 2) -> Any:
    return b.lp_norm(x, axis=axis, p=p)


@onnx_op("MeanVarianceNormalization", since=1)
def MeanVarianceNormalization(b: Any, x: Any, *, axes: tuple[int, ...] = (0, 2, 3)) -> Any:
    a = widen(b, x)
    deviation = a - b.reduce_mean(a, axes=axes, keepdims=True)
    variance = b.reduce_mean(deviation * deviation, axes=axes, keepdims=True)
    return convert(b, deviation / (b.sqrt(variance) + 1e-9), x)


@onnx_op("LRN", since=1)
def LRN(b: Any, x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    return b.lrn(x, size=size, alpha=float(alpha), beta=float(beta), bias=float(bias))
