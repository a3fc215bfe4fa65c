"""Reductions of ai.onnx: Reduce*, with the axes as an attribute in older opsets and as an input in newer ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.onnx.ops.arithmetic import in_floats
from compiler.onnx.registry import onnx_op
from ir import types as t

_AXES_AS_INPUT = {
    "ReduceSum": 13,
    "ReduceMean": 18,
    "ReduceMax": 18,
    "ReduceMin": 18,
    "ReduceProd": 18,
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceLogSum": 18,
    "ReduceLogSumExp": 18,
    "ReduceSumSquare": 18,
}
_OF_FLOATS = ("reduce_log_sum", "reduce_log_sum_exp")
_OPS = {
    "ReduceSum": "reduce_sum",
    "ReduceMean": "reduce_mean",
    "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod",
    "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2",
    "ReduceLogSum": "reduce_log_sum",
    "ReduceLogSumExp": "reduce_log_sum_exp",
    "ReduceSumSquare": "reduce_sum_square",
}


def _reduced(b: Any, op_name: str, data: Any, axes: tuple[int, ...], keepdims: int) -> Any:
    function = getattr(b, op_name)
    if op_name in _OF_FLOATS:
        return in_floats(b, function, data, t.f64, axes=axes, keepdims=bool(keepdims))
    return function(data, axes=axes, keepdims=bool(keepdims))


def _with_attribute(op_name: str) -> Callable[..., Any]:
    def reduce(b: Any, data: Any, *, axes: tuple[int, ...] = (), keepdims: int = 1) -> Any:
        chosen = tuple(axes) or tuple(range(data.rank))
        return _reduced(b, op_name, data, chosen, keepdims)

    return reduce


def _with_input(op_name: str) -> Callable[..., Any]:
    def reduce(b: Any, data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        chosen = () if axes is None else tuple(int(axis) for axis in b.sizes(axes, "axes"))
        if not chosen and not noop_with_empty_axes:
            chosen = tuple(range(data.rank))
        return _reduced(b, op_name, data, chosen, keepdims)

    return reduce


for _name, _op_name in _OPS.items():
    onnx_op(_name, since=1)(_with_attribute(_op_name))
    onnx_op(_name, since=_AXES_AS_INPUT[_name])(_with_input(_op_name))
