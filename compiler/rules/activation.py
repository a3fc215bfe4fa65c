"""Activations that exporters spell out: gelu, swish, hard_swish, mish, softplus, softmax, and clamps."""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import math

import numpy as np

from compiler.rules.constants import is_constant, number
from ir.op import case
from ir.rule import Rule

SQRT2 = math.sqrt(2.0)
SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)

_X = case("f32[2,3]")


class ErfGelu(Rule):
    """x * (erf(x / sqrt 2) + 1) * 0.5  =>  gelu(x)"""

    examples = [_X, case("f32[2,0]")]

    def find(b, x):
        erfs = [b.erf(x / SQRT2), b.erf(x * SQRT_HALF)]
        return [y for erf in erfs for y in (x * (erf + 1) * 0.5, x * ((erf + 1) * 0.5), x * 0.5 * (erf + 1))]

    def replace(b, x):
        return b.gelu(x)


class TanhGelu(Rule):
    """x * (tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)) + 1) * 0.5  =>  gelu(x), approximated"""

    examples = [_X]

    def find(b, x):
        inner = [
            (x + x * x * x * 0.044715) * SQRT_2_OVER_PI,
            (x + b.pow(x, 3.0) * 0.044715) * SQRT_2_OVER_PI,
            x * SQRT_2_OVER_PI * (x * x * 0.044715 + 1),
            x * SQRT_2_OVER_PI * (x * 0.044715 * x + 1),
            x * (x * x * 0.044715 + 1) * SQRT_2_OVER_PI,
        ]
        tanhs = [b.tanh(z) for z in inner]
        return [y for tanh in tanhs for y in (x * (tanh + 1) * 0.5, x * ((tanh + 1) * 0.5), x * 0.5 * (tanh + 1))]

    def replace(b, x):
        return b.gelu(x, approximate=True)


class Silu(Rule):
    """x * sigmoid(x)  =>  swish(x)"""

    examples = [_X]

    def find(b, x):
        return x * b.sigmoid(x)

    def replace(b, x):
        return b.swish(x)


class SiluByExp(Rule):
    """x / (exp(-x) + 1)  =>  swish(x)"""

    examples = [_X]

    def find(b, x):
        return x / (b.exp(-x) + 1)

    def replace(b, x):
        return b.swish(x)


class Swish(Rule):
    """x * sigmoid(x * alpha)  =>  swish(x)"""

    examples = [case("f32[2,3]", np.array(1.702, np.float32))]

    def find(b, x, alpha):
        return x * b.sigmoid(x * alpha)

    def check(m):
        return number(m["alpha"]) is not None or f"%{m['alpha'].name} is not a known number"

    def replace(b, x, alpha):
        return b.swish(x, alpha=number(alpha))


class HardSigmoid(Rule):
    """clip(x + 3, 0, 6) / 6  =>  hard_sigmoid(x)"""

    examples = [_X]

    def find(b, x):
        clipped = [b.clip(x + 3, 0, 6), b.min(b.max(x + 3, 0), 6), b.min(b.relu(x + 3), 6)]
        return [y for z in clipped for y in (z / 6, z * (1 / 6))]

    def check(m):
        return m["x"].dtype.is_float or "x is no float"

    def replace(b, x):
        return b.hard_sigmoid(x, alpha=1 / 6, beta=0.5)


class HardSwish(Rule):
    """x * clip(x + 3, 0, 6) / 6  =>  hard_swish(x)"""

    examples = [_X]

    def find(b, x):
        clipped = [b.clip(x + 3, 0, 6), b.min(b.max(x + 3, 0), 6), b.min(b.relu(x + 3), 6)]
        whole = [y for z in clipped for y in (x * z / 6, x * (z / 6), x * z * (1 / 6), x * (z * (1 / 6)))]
        return [*whole, x * b.hard_sigmoid(x, alpha=1 / 6, beta=0.5)]

    def replace(b, x):
        return b.hard_swish(x)


class Softplus(Rule):
    """log(exp(x) + 1)  =>  softplus(x)"""

    examples = [_X]

    def find(b, x):
        return b.log(b.exp(x) + 1)

    def replace(b, x):
        return b.softplus(x)


class Mish(Rule):
    """x * tanh(softplus(x))  =>  mish(x)"""

    examples = [_X]

    def find(b, x):
        return x * b.tanh(b.softplus(x))

    def replace(b, x):
        return b.mish(x)


class Sigmoid(Rule):
    """1 / (exp(-x) + 1)  =>  sigmoid(x)"""

    examples = [_X]

    def find(b, x):
        return [1 / (b.exp(-x) + 1), b.reciprocal(b.exp(-x) + 1)]

    def replace(b, x):
        return b.sigmoid(x)


class Relu(Rule):
    """max(x, 0)  =>  relu(x)"""

    examples = [_X, case("i32[3]")]

    def find(b, x):
        return [b.max(x, 0), b.clip(x, 0), b.clip(x, 0, None)]

    def replace(b, x):
        return b.relu(x)


class Softmax(Rule):
    """e / sum(e), e = exp(x - max(x))  =>  softmax(x)"""

    examples = [case("f32[2,3]", axes=(1,)), case("f32[2,3,4]", axes=(-2,))]

    def find(b, x):
        axes = b.any_attr("axes")
        e = b.exp(x - b.reduce_max(x, axes=axes))
        return e / b.reduce_sum(e, axes=axes)

    def check(m):
        return bool(m["axes"]) or "nothing is summed"

    def replace(b, x, m):
        return b.softmax(x, axes=m["axes"])


_RISING = {"relu", "leaky_relu", "max", "min", "clip"}


class MaxPoolOfRising(Rule):
    """max_pool(f(x))  =>  f(max_pool(x)), where f never falls, as relu: then f is computed of fewer elements"""

    examples = []
    roots = ("max_pool",)

    def change(b, node):
        value = node.inputs[0]
        f = value.node
        if f is None or f.op.name not in _RISING or getattr(f.op, "alpha", 1) < 0 or value in value.graph.outputs:
            return None
        x, *bounds = f.inputs
        are_numbers = all(v is None or (is_constant(v) and v.tensor.elements == 1 and v.rank <= x.rank) for v in bounds)
        if sum(value.users.values()) != 1 or x.shape != value.shape or not are_numbers or not _meets_elements(node.op):
            return None
        return b.apply(f.op, b.apply(node.op, x), *bounds)


def _meets_elements(pool):
    """Whether no window lies within the padding, whose least value is not a value of the function."""
    reach = zip(pool.pad, (*pool.window, *pool.window))
    return all(d == 1 for d in pool.dilation) and all(isinstance(p, int) and p < size for p, size in reach)
