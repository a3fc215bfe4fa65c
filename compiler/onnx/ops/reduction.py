"""Reductions of ai.onnx: Reduce*, with the axes as an attribute in older opsets and as an input in newer ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.onnx.axes import RunTimeAxes, without_axes
from compiler.onnx.ops.arithmetic import in_floats
from compiler.onnx.ops.shape import reshaped, told_shape
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import choose, is_known, number, told, vector
from ir import types as t
from ir.dims import Size, maximum

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
        if not is_known(axes):
            return _reduced_at_run_time(b, op_name, data, axes, bool(keepdims), bool(noop_with_empty_axes))
        chosen = () if axes is None else tuple(int(axis) for axis in b.sizes(axes, "axes"))
        if not chosen and not noop_with_empty_axes:
            chosen = tuple(range(data.rank))
        return _reduced(b, op_name, data, chosen, keepdims)

    return reduce


def _reduced_at_run_time(b: Any, op_name: str, x: Any, axes: Any, keepdims: bool, keeps_all: bool) -> Any:
    """A reduction over axes that only a run tells: every axis becomes two, one of its size and one of size 1, and the
    second of each two is reduced."""
    chosen = RunTimeAxes(b, axes, x.rank)
    is_hit = chosen.is_hit if keeps_all else b.or_(chosen.is_hit, b.equal(b.dims(chosen.count), 0))
    sizes = choose(b, chosen.is_valid, choose(b, is_hit, 1, vector(b, x.shape)), -1)
    outer: list[Size] = []
    for a, size in enumerate(x.shape):
        name = b.run_time_size(a, is_bounded=False) if keepdims else b.run_time_number(f"axis{a}")
        outer.append(told(b, number(b, sizes, a), name, maximum(size, 1)))
    pairs = b.axes_in_pairs(x, outer=tuple(outer))
    y = getattr(b, op_name)(pairs, axes=tuple(range(1, 2 * x.rank, 2)), keepdims=False)
    if keepdims:
        return y
    left = without_axes(b, axes, x.shape, only_ones=False)
    return reshaped(b, y, told_shape(b, y, left, [None] * left.shape[0]))


for _name, _op_name in _OPS.items():
    onnx_op(_name, since=1)(_with_attribute(_op_name))
    onnx_op(_name, since=_AXES_AS_INPUT[_name])(_with_input(_op_name))
