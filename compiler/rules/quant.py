"""Products of dequantised operands as products of integers, and those as u8 by i8 without zero points, which is what
processors multiply.

(x - a)(w - z) adds up to what x*w does, less a times the sum of w - z, less z times that of x. The sums of weights are
constants; those of x are a small part of the product. i32 wraps around on both sides alike, so the results are equal.
"""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.rules.constants import is_constant
from ir import types as t
from ir.graph import Value
from ir.kernel import dot_length
from ir.op import case
from ir.ops.quantized import signed, unsigned
from ir.rule import Rule

_RNG = np.random.default_rng(7)
_W = _RNG.integers(-128, 128, (6, 5)).astype(np.int8)
_L = _RNG.integers(-128, 128, (80, 70)).astype(np.int8)
_U = _RNG.integers(0, 256, (2, 8, 3)).astype(np.uint8)
_K = _RNG.integers(0, 256, (4, 3, 3, 2)).astype(np.uint8)
_G = _RNG.integers(-128, 128, (8, 4, 3)).astype(np.int8)
_BYTES = (t.i8, t.u8)
_CONV = ("stride", "pad", "dilation", "groups")
_LONGEST = (2**31 - 1) // (255 * 255)
"""How many products of bytes i32 holds without wrapping around."""
_TOGETHER = dot_length(t.i8)
_S, _A = np.array(0.02, np.float32), np.array(130, np.uint8)
_R, _Z = np.array([0.01, 0.5, 0.1, 0.02, 1], np.float32), np.array([0, 1, -3, 0, 0], np.int8)


def _is_plain(m: Any) -> bool:
    """Whether a product has the form already."""
    return (m["x"].dtype, m["w"].dtype) == (t.u8, t.i8) and not {"a", "z"} & m.values.keys()


def _check(m: Any) -> bool | str:
    for name in ("x", "w"):
        if m[name].dtype not in _BYTES:
            return f"%{m[name].name} is {m[name].dtype}, not bytes"
    return is_constant(m["w"]) or f"%{m['w'].name} is not a constant"


def _less(b: Any, product: Value, factor: Value | None, sums: Value) -> Value:
    return product if factor is None else product - factor * sums


def _lengthened(b: Any, value: Value, axis: int, extra: int) -> Value:
    """`value` with zeros at the end of an axis."""
    if extra == 0:
        return value
    after = tuple(extra if a == axis % value.rank else 0 for a in range(value.rank))
    return b.pad(value, before=(0,) * value.rank, after=after)


def _dequantized(b: Any, name: str, levels: Any, scale: Any, zero: Any) -> list[Any]:
    return [b.dequantize(levels, scale, *rest, axis=b.any_attr(name)) for rest in ((), (zero,))]


def _check_levels(m: Any, columns: int, length: Any) -> bool | str:
    """Whether scales and zero points leave sums of x * w as they are: one for x, one or one per column for w."""
    for name in {"s", "a"} & m.values.keys():
        if m[name].rank > 1 or m[name].shape not in ((), (1,)):
            return f"%{m[name].name} is {m[name].type}: the levels of x differ"
    for name in {"r", "z"} & m.values.keys():
        if m[name].shape not in ((), (1,)) and (m[name].rank != 1 or m["axis"] % m["w"].rank != columns):
            return f"%{m[name].name} is {m[name].type}: the levels of w differ along the sum"
    if not isinstance(length, int) or length > _LONGEST:
        return f"sums of {length} products may not fit into i32"
    return _check(m)


def _number(b: Any, value: Value | None) -> Value | None:
    return value if value is None or value.rank == 0 else b.reshape(value, shape=())


def _of_channels(b: Any, value: Value, w: Value) -> Value:
    """One number, or one per output channel of a convolution with weights w, as the result broadcasts them."""
    return value if value.rank == 0 else b.reshape(value, shape=(value.shape[0], *[1] * (w.rank - 2)))


class TransposedLevels(Rule):
    """transpose(dequantize(w, r, z))  =>  dequantize(transpose(w), r, z), where w is constant"""

    examples = [
        case(_L, np.linspace(0.1, 0.3, 70, dtype=np.float32), np.arange(70, dtype=np.int8), axis=1, perm=(1, 0)),
        case(_L, _S, _Z[:1], axis=0, perm=(1, 0)),
    ]

    def find(b, w, r, z):
        return [b.transpose(q, perm=b.any_attr("perm")) for q in _dequantized(b, "axis", w, r, z)]

    def check(m):
        return is_constant(m["w"]) or f"%{m['w'].name} is not a constant"

    def replace(b, w, r, z, m):
        axis = m["perm"].index(m["axis"] % w.rank)
        return b.dequantize(b.transpose(w, perm=m["perm"]), r, z, axis=axis)


class ProductOfLevels(Rule):
    """matmul(dequantize(x, s, a), dequantize(w, r, z))  =>  matmul_integer(x, w, a, z) * (s * r), w constant"""

    shared = True
    examples = [
        case("u8[3,6]", _S, _A, _W, _R, _Z, xaxis=0, axis=1),
        case("i8[2,3,6]", _S, np.array([-3], np.int8), _W, _S, _Z[:1], xaxis=1, axis=0),
    ]

    def find(b, x, s, a, w, r, z):
        pairs = [(p, q) for p in _dequantized(b, "xaxis", x, s, a) for q in _dequantized(b, "axis", w, r, z)]
        return [b.matmul(p, q) for p, q in pairs]

    def check(m):
        if m["x"].rank < 2 or m["w"].rank < 2:
            return "an operand is a vector"
        return _check_levels(m, m["w"].rank - 1, m["w"].shape[-2])

    def replace(b, x, s, a, w, r, z):
        a, s = _number(b, a), _number(b, s)
        return b.cast(b.matmul_integer(x, w, a, z), to=t.f32) * (s * r)


class ConvolutionOfLevels(Rule):
    """conv(dequantize(x, s, a), dequantize(w, r, z), c)  =>  conv_integer(x, w, a, z) * (s * r) + c, w constant"""

    shared = True
    examples = [
        case("u8[1,3,6,6]", _S, _A, _K.astype(np.int8), _R[:4], _Z[:4], _R[:4], stride=(2, 1), pad=(1, 0, 1, 1),
             dilation=(1, 1), groups=1, xaxis=1, axis=0),
        case("i8[1,3,6,6]", _S, np.array(3, np.int8), _K, _S, np.array(119, np.uint8), _R[:4], stride=(1, 1),
             pad=(1, 1, 1, 1), dilation=(1, 1), groups=1, xaxis=0, axis=0),
    ]  # fmt: skip

    def find(b, x, s, a, w, r, z, bias):
        pairs = [(p, q) for p in _dequantized(b, "xaxis", x, s, a) for q in _dequantized(b, "axis", w, r, z)]
        attributes = {name: b.any_attr(name) for name in _CONV}
        return [b.conv(p, q, *rest, **attributes) for p, q in pairs for rest in ((), (bias,))]

    def check(m):
        if m["groups"] != 1:
            return f"it has {m['groups']} groups"
        length = 1
        for size in m["w"].shape[1:]:
            length = length * size
        return _check_levels(m, 0, length)

    def replace(b, x, s, a, w, r, z, bias, m):
        a, s = _number(b, a), _number(b, s)
        z = _number(b, z) if z is not None and z.shape == (1,) else z
        product = b.conv_integer(x, w, a, z, **{name: m[name] for name in _CONV})
        y = b.cast(product, to=t.f32) * _of_channels(b, s * r, w)
        return y if bias is None else y + _of_channels(b, bias, w)


class ProductOfBytes(Rule):
    """matmul_integer(x, w, a, z)  =>  matmul_integer(x, w) - a * sums of w - z * sums of x, where w is constant"""

    examples = [
        case("u8[3,6]", _W, np.array(3, np.uint8), np.array([0, 0, 0, 0, 0], np.int8)),
        case("i8[2,3,8]", _U, np.array(-128, np.int8), np.array([[[255]], [[0]]], np.uint8)),
        case("i8[4,6]", _W, np.array([[1], [-2], [127], [0]], np.int8), np.array([1, 2, -128, 127, 0], np.int8)),
    ]

    def find(b, x, w, a, z):
        return [b.matmul_integer(x, w, *rest) for rest in ((), (a,), (a, z), (None, z))]

    def check(m):
        if _is_plain(m) and m["w"].shape[-2] % _TOGETHER == 0:
            return "it is one of u8 by i8 without zero points"
        a, z = m.values.get("a"), m.values.get("z")
        if a is not None and a.rank > 0 and a.shape[-1] != 1:
            return f"%{a.name} is {a.type}: the zero points of x differ along the sum"
        if z is not None and z.rank > 1 and z.shape[-2] != 1:
            return f"%{z.name} is {z.type}: the zero points of w differ along the sum"
        return _check(m)

    def replace(b, x, w, a, z):
        x, a = unsigned(b, x, a)
        w, z = signed(b, w, z)
        extra = -w.shape[-2] % _TOGETHER
        product = b.matmul_integer(_lengthened(b, x, -1, extra), _lengthened(b, w, -2, extra))
        if a is not None:
            weights = b.cast(w, to=t.i32)
            product = _less(b, product, a, b.reduce_sum(weights if z is None else weights - z, axes=(w.rank - 2,)))
        if z is not None:
            product = _less(b, product, z, b.reduce_sum(b.cast(x, to=t.i32), axes=(x.rank - 1,)))
        return product


class ConvolutionOfBytes(Rule):
    """conv_integer(x, w, a, z)  =>  conv_integer(x, w) - a * sums of w - z * sums of windows, where w is constant"""

    examples = [
        case("u8[1,3,6,6]", _K, np.array(5, np.uint8), np.array(119, np.uint8), stride=(2, 1), pad=(1, 0, 1, 1),
             dilation=(1, 1), groups=1),
        case("i8[2,8,7]", _G, np.array(-3, np.int8), None, stride=(1,), pad=(0, 2), dilation=(2,), groups=2),
        case("u8[1,3,6,6]", _K, np.array(255, np.uint8), np.array([0, 255, 1, 128], np.uint8), stride=(1, 1),
             pad=(0, 0, 0, 0), dilation=(1, 1), groups=1),
    ]  # fmt: skip

    def find(b, x, w, a, z):
        attributes = {name: b.any_attr(name) for name in _CONV}
        return [b.conv_integer(x, w, *rest, **attributes) for rest in ((), (a,), (a, z), (None, z))]

    def check(m):
        is_padded = any(size != 0 for size in m["pad"])
        short = m["groups"] == 1 and isinstance(m["w"].shape[1], int) and m["w"].shape[1] % _TOGETHER
        if _is_plain(m) and not is_padded and not short:
            return "it is one of u8 by i8 without zero points or padding"
        if m["groups"] != 1 and (m["w"].dtype == t.u8 or "z" in m.values):
            return "the sums of windows differ by group"
        return _check(m)

    def replace(b, x, w, a, z, m):
        x, a = unsigned(b, x, a)
        w, z = signed(b, w, z)
        if any(size != 0 for size in m["pad"]):
            half = x.rank - 2
            fill = None if a is None else b.cast(a, to=t.u8)
            x = b.pad(x, fill, before=(0, 0, *m["pad"][:half]), after=(0, 0, *m["pad"][half:]))
        given = {"stride": m["stride"], "pad": (0,) * len(m["pad"]), "dilation": m["dilation"]}
        extra = -w.shape[1] % _TOGETHER if m["groups"] == 1 else 0
        longer, wider = _lengthened(b, x, 1, extra), _lengthened(b, w, 1, extra)
        product = b.conv_integer(longer, wider, groups=m["groups"], **given)
        z = z if z is None else _of_channels(b, z, w)
        if a is not None:
            weights = b.cast(w, to=t.i32)
            if z is not None:
                weights = weights - (z if z.rank == 0 else b.reshape(z, shape=(w.shape[0], *[1] * (w.rank - 1))))
            sums = b.reduce_sum(weights, axes=tuple(range(1, w.rank)), keepdims=False)
            product = _less(b, product, a, _of_channels(b, sums, w))
        if z is not None:
            ones = b.const(np.ones((1, 1, *(int(size) for size in w.shape[2:])), np.int8))
            channels = b.reduce_sum(b.cast(x, to=t.i32), axes=(1,))
            product = _less(b, product, z, b.conv_integer(channels, ones, **given))
        return product
