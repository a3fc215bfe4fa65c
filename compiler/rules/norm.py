"""Normalizations that exporters spell out: layer_norm and rms_norm, their scale and bias, and the casts around them."""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import numpy as np

from compiler.rules.constants import number
from ir.op import case
from ir.ops.reduction import accumulator, normal_axes
from ir.rule import Rule
from ir.types import f16, f32

_EPS = np.array(1e-5, np.float32)
_NORMS = [case("f32[2,3,8]", _EPS, axes=(2,)), case("f32[2,3,8]", _EPS, axes=(-2, -1))]


def _may_be_norm(m):
    """Whether the statistics are taken over the last axes, with a known epsilon."""
    rank = m["x"].rank
    axes = normal_axes(m["axes"], rank, "norm")
    if not axes or axes != tuple(range(rank - len(axes), rank)):
        return f"the mean is over axes {axes}, not over the last ones of {m['x'].type}"
    return number(m["eps"]) is not None or f"%{m['eps'].name} is not a known number"


def _axis(m):
    return -len(m["axes"])


class LayerNorm(Rule):
    """d / sqrt(mean(d * d) + eps), d = x - mean(x)  =>  layer_norm(x)"""

    # It stands before RmsNorm, which would find rms_norm(d) in it.
    examples = _NORMS

    def find(b, x, eps):
        axes = b.any_attr("axes")

        def deviation():
            return x - b.reduce_mean(x, axes=axes)

        squares = [deviation() * deviation(), b.pow(deviation(), 2.0)]
        roots = [b.sqrt(b.reduce_mean(square, axes=axes) + eps) for square in squares]
        d = deviation()
        return [y for root in roots for y in (d / root, d * b.reciprocal(root), d * (1 / root))]

    check = _may_be_norm

    def replace(b, x, eps, m):
        return b.layer_norm(x, axis=_axis(m), epsilon=number(eps))


class RmsNorm(Rule):
    """x / sqrt(mean(x * x) + eps)  =>  rms_norm(x)"""

    examples = _NORMS

    def find(b, x, eps):
        axes = b.any_attr("axes")
        means = [b.reduce_mean(square, axes=axes) for square in (x * x, b.pow(x, 2.0))]
        roots = [b.sqrt(mean + eps) for mean in means]
        return [y for root in roots for y in (x / root, x * b.reciprocal(root), x * (1 / root))]

    check = _may_be_norm

    def replace(b, x, eps, m):
        return b.rms_norm(x, axis=_axis(m), epsilon=number(eps))


class RmsNormByMultiplication(Rule):
    """rms_norm(x) * scale  =>  rms_norm(x, scale)"""

    examples = [case("f32[2,3,8]", "f32[8]", axis=-1, epsilon=1e-5)]

    def find(b, x, scale):
        norms = [b.rms_norm(x, *rest, axis=b.any_attr("axis"), epsilon=b.any_attr("epsilon")) for rest in ((), (None,))]
        return [norm * scale for norm in norms]

    def check(m):
        return _fits(m, "scale")

    def replace(b, x, scale, m):
        return b.rms_norm(x, scale, axis=m["axis"], epsilon=m["epsilon"])


class LayerNormScale(Rule):
    """layer_norm(x) * scale  =>  layer_norm(x, scale)"""

    examples = [case("f32[2,3,8]", "f32[8]", axis=-1, epsilon=1e-5)]

    def find(b, x, scale):
        attributes = {"axis": b.any_attr("axis"), "epsilon": b.any_attr("epsilon")}
        return [b.layer_norm(x, *rest, **attributes) * scale for rest in ((), (None,), (None, None))]

    def check(m):
        return _fits(m, "scale")

    def replace(b, x, scale, m):
        return b.layer_norm(x, scale, axis=m["axis"], epsilon=m["epsilon"])


class LayerNormBias(Rule):
    """layer_norm(x, scale) + bias  =>  layer_norm(x, scale, bias)"""

    examples = [case("f32[2,3,8]", "f32[8]", "f32[8]", axis=-1, epsilon=1e-5)]

    def find(b, x, scale, bias):
        attributes = {"axis": b.any_attr("axis"), "epsilon": b.any_attr("epsilon")}
        return [b.layer_norm(x, scale, *rest, **attributes) + bias for rest in ((), (None,))]

    def check(m):
        return _fits(m, "bias")

    def replace(b, x, scale, bias, m):
        return b.layer_norm(x, scale, bias, axis=m["axis"], epsilon=m["epsilon"])


def _fits(m, name):
    """Whether a scale or bias has the axes that are normalized, and the type of x."""
    x, value = m["x"], m[name]
    if value.dtype != x.dtype:
        return f"%{value.name} is {value.dtype}, the input is {x.dtype}"
    axis = m["axis"] % x.rank
    return value.shape == x.shape[axis:] or f"%{value.name} is {value.type}, not of the normalized axes of {x.type}"


class NarrowRmsNorm(Rule):
    """cast(rms_norm(cast(x, f32)), the type of x)  =>  rms_norm(x), which takes its statistics in f32 itself"""

    tolerance = 1e-3
    examples = [case("f16[2,8]", wide=f32, narrow=f16, axis=-1, epsilon=1e-5)]

    def find(b, x):
        wide = b.cast(x, to=b.any_attr("wide"))
        attributes = {"axis": b.any_attr("axis"), "epsilon": b.any_attr("epsilon")}
        return [b.cast(b.rms_norm(wide, *rest, **attributes), to=b.any_attr("narrow")) for rest in ((), (None,))]

    def check(m):
        return _is_widened(m)

    def replace(b, x, m):
        return b.rms_norm(x, axis=m["axis"], epsilon=m["epsilon"])


class NarrowLayerNorm(Rule):
    """cast(layer_norm(cast(x, f32)), the type of x)  =>  layer_norm(x), which takes its statistics in f32 itself"""

    tolerance = 1e-3
    examples = [case("f16[2,8]", wide=f32, narrow=f16, axis=-1, epsilon=1e-5)]

    def find(b, x):
        wide = b.cast(x, to=b.any_attr("wide"))
        attributes = {"axis": b.any_attr("axis"), "epsilon": b.any_attr("epsilon")}
        norms = [b.layer_norm(wide, *rest, **attributes) for rest in ((), (None,), (None, None))]
        return [b.cast(norm, to=b.any_attr("narrow")) for norm in norms]

    def check(m):
        return _is_widened(m)

    def replace(b, x, m):
        return b.layer_norm(x, axis=m["axis"], epsilon=m["epsilon"])


def _is_widened(m):
    own = m["x"].dtype
    if m["narrow"] != own:
        return f"the result is {m['narrow']}, the input is {own}"
    return (own.is_float and own != m["wide"] == accumulator(own)) or f"{own} is normalized in {m['wide']}"
