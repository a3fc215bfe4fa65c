"""What surrounds a convolution and can be part of it: per-channel factors and summands (batch norm), and padding.

Weights are changed by ops on constants, which `fold` turns into deferred blobs: no weight is read here.
"""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import numpy as np

from compiler.rules.constants import channel_vector, is_constant, is_per_channel
from ir.dims import decide_le
from ir.op import case
from ir.ops.reduction import accumulator
from ir.rule import Rule

_RNG = np.random.default_rng(7)
_W = _RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
_B = _RNG.standard_normal(4).astype(np.float32)
_C = _RNG.standard_normal((4, 1, 1)).astype(np.float32)
_TWO = np.full((1, 1, 1), 2, np.float32)
_PLAIN = {"stride": (2, 1), "pad": (1, 0, 1, 2), "dilation": (1, 1), "groups": 1}


def _attributes(b):
    return {name: b.any_attr(name) for name in ("stride", "pad", "dilation", "groups")}


def _given(m, *names):
    return {name: m[name] for name in names or ("stride", "pad", "dilation", "groups")}


class BatchNormOfConstants(Rule):
    """batch_norm(x, scale, bias, mean, variance)  =>  x * factor + summand, of constants"""

    examples = [case("f32[2,4,3,3]", _B, _B + 1, _B * 2, _B * _B, epsilon=1e-3)]

    def find(b, x, scale, bias, mean, variance):
        return b.batch_norm(x, scale, bias, mean, variance, epsilon=b.any_attr("epsilon"))

    def check(m):
        for name in ("scale", "bias", "mean", "variance"):
            if not is_constant(m[name]):
                return f"%{m[name].name} is not a constant"
        return accumulator(m["x"].dtype) == m["x"].dtype or f"{m['x'].dtype} is normalized in f32"

    def replace(b, x, scale, bias, mean, variance, m):
        return m.root.op.expand(b, x, scale, bias, mean, variance)


class ConvScale(Rule):
    """conv(x, w, bias) * c  =>  conv(x, w * c, bias * c), c a constant per output channel"""

    examples = [case("f32[1,3,8,8]", _W, _B, _C, **_PLAIN), case("f32[1,3,8,8]", _W, _B, _TWO, **_PLAIN)]

    def find(b, x, w, bias, c):
        convs = [b.conv(x, w, *rest, **_attributes(b)) for rest in ((), (None,), (bias,))]
        return [conv * c for conv in convs]

    def check(m):
        for name in {"w", "bias"} & m.values.keys():
            if not is_constant(m[name]):
                return f"%{m[name].name} is not a constant"
        return is_per_channel(m["c"], m.root.output)

    def replace(b, x, w, bias, c, m):
        c = channel_vector(b, c, w.shape[0])
        scaled = w * b.reshape(c, shape=(w.shape[0], *[1] * (w.rank - 1)))
        return b.conv(x, scaled, None if bias is None else bias * c, **_given(m))


class ConvBias(Rule):
    """conv(x, w, bias) + c  =>  conv(x, w, bias + c), c a constant per output channel"""

    examples = [case("f32[1,3,8,8]", _W, _B, _C, **_PLAIN), case("f32[1,3,8,8]", _W, _B, _TWO, **_PLAIN)]

    def find(b, x, w, bias, c):
        convs = [b.conv(x, w, *rest, **_attributes(b)) for rest in ((), (None,), (bias,))]
        return [conv + c for conv in convs]

    def check(m):
        if "bias" in m.values and not is_constant(m["bias"]):
            return f"%{m['bias'].name} is not a constant"
        return is_per_channel(m["c"], m.root.output)

    def replace(b, x, w, bias, c, m):
        c = channel_vector(b, c, w.shape[0])
        return b.conv(x, w, c if bias is None else bias + c, **_given(m))


class ConvSubtrahend(Rule):
    """conv(x, w, bias) - c  =>  conv(x, w, bias) + -c, c a constant per output channel"""

    examples = [case("f32[1,3,8,8]", _W, _B, _C, **_PLAIN)]

    def find(b, x, w, bias, c):
        convs = [b.conv(x, w, *rest, **_attributes(b)) for rest in ((), (None,), (bias,))]
        return [conv - c for conv in convs]

    def check(m):
        return is_per_channel(m["c"], m.root.output)

    def replace(b, x, w, bias, c, m):
        return b.conv(x, w, bias, **_given(m)) + -c


class ConvPad(Rule):
    """conv(pad(x, zeros), w, bias)  =>  conv(x, w, bias) with more padding"""

    examples = [case("f32[1,3,8,8]", _W, _B, before=(0, 0, 1, 2), after=(0, 0, 0, 1), **_PLAIN)]

    def find(b, x, w, bias):
        wide = {"before": b.any_attr("before"), "after": b.any_attr("after")}
        padded = [b.pad(x, **wide), b.pad(x, 0, **wide)]
        rests = ((), (None,), (bias,))
        return [b.conv(p, w, *rest, **_attributes(b)) for p in padded for rest in rests]

    def check(m):
        before, after = m["before"], m["after"]
        if any(size != 0 for size in (*before[:2], *after[:2])):
            return "it pads the batch or the channels"
        return all(decide_le(0, size) is True for size in (*before, *after)) or "it cuts off elements"

    def replace(b, x, w, bias, m):
        pad = tuple(own + more for own, more in zip(m["pad"], (*m["before"][2:], *m["after"][2:]), strict=True))
        return b.conv(x, w, bias, pad=pad, **_given(m, "stride", "dilation", "groups"))


class ConvTransposeScale(Rule):
    """conv_transpose(x, w, bias) * c  =>  conv_transpose(x, w * c, bias * c), in one group"""

    examples = [
        case("f32[1,4,5,5]", _W, _B[:3], _C[:3], stride=(2, 1), pad=(0, 0, 1, 1), dilation=(1, 1), extra=(0, 0))
    ]

    def find(b, x, w, bias, c):
        attributes = {name: b.any_attr(name) for name in ("stride", "pad", "dilation", "extra")}
        return [b.conv_transpose(x, w, *rest, **attributes) * c for rest in ((), (None,), (bias,))]

    def check(m):
        for name in {"w", "bias"} & m.values.keys():
            if not is_constant(m[name]):
                return f"%{m[name].name} is not a constant"
        return is_per_channel(m["c"], m.root.output)

    def replace(b, x, w, bias, c, m):
        c = channel_vector(b, c, w.shape[1])
        scaled = w * b.reshape(c, shape=(1, w.shape[1], *[1] * (w.rank - 2)))
        bias = None if bias is None else bias * c
        return b.conv_transpose(x, scaled, bias, **_given(m, "stride", "pad", "dilation", "extra"))


class ConvTransposeBias(Rule):
    """conv_transpose(x, w) + c  =>  conv_transpose(x, w, c), c a constant per output channel, in one group"""

    examples = [
        case("f32[1,4,5,5]", _W, _B[:3], _C[:3], stride=(2, 1), pad=(0, 0, 1, 1), dilation=(1, 1), extra=(0, 0))
    ]

    def find(b, x, w, bias, c):
        attributes = {name: b.any_attr(name) for name in ("stride", "pad", "dilation", "extra")}
        return [b.conv_transpose(x, w, *rest, **attributes) + c for rest in ((), (None,), (bias,))]

    def check(m):
        if "bias" in m.values and not is_constant(m["bias"]):
            return f"%{m['bias'].name} is not a constant"
        return is_per_channel(m["c"], m.root.output)

    def replace(b, x, w, bias, c, m):
        c = channel_vector(b, c, w.shape[1])
        bias = c if bias is None else bias + c
        return b.conv_transpose(x, w, bias, **_given(m, "stride", "pad", "dilation", "extra"))
