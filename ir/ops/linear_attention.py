"""Linear attention: a matrix of state per head that keys write and queries read, one time step after the other."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.element import KernelBuilder, Output, Tensor, apply
from ir.expr import Expr
from ir.op import Op, OpError, case, op, require, require_equal
from ir.ops.elementwise import same_dtype
from ir.types import TensorType

RULES = ("linear", "gated", "delta", "gated_delta")


@op
class LinearAttention(Op):
    """Outputs y[b, s, h, e] = scale * q' S, and the last state S[b, g, d, e]; h / g query heads share a state.

    At each step S is multiplied by exp(decay[b, s, g, d or 1]) where the rule is gated, then k u' is added, with u = v,
    or u = beta[b, s, g or 1] * (v - S' k) where it is a delta rule. The third output is room to work in, zeros at the
    end.
    """

    rule: str = "linear"
    scale: float = 1.0
    examples = [
        case("f32[2,3,4,5]", "f32[2,3,2,5]", "f32[2,3,2,6]", None, None, None, scale=0.5),
        case("f32[1,3,2,4]", "f32[1,3,2,4]", "f32[1,3,2,4]", "f32[1,2,4,4]", "f32[1,3,2,4]", None, rule="gated"),
        case("f32[1,3,2,4]", "f32[1,3,1,4]", "f32[1,3,1,3]", None, "f32[1,3,1,1]", "f32[1,3,1]", rule="gated_delta"),
        case("f64[1,2,2,2]", "f64[1,2,2,2]", "f64[1,2,2,2]", "f64[1,2,2,2]", None, "f64[1,2,1]", rule="delta"),
    ]

    def infer(self, q: TensorType, k: TensorType, v: TensorType, state: TensorType | None = None,
              decay: TensorType | None = None, beta: TensorType | None = None) -> tuple[TensorType, ...]:  # fmt: skip
        dtype = same_dtype("linear_attention", *(x for x in (q, k, v, state, decay, beta) if x is not None))
        require(dtype in (t.f32, t.f64), lambda: f"linear_attention does not take {dtype}")
        require(q.rank == k.rank == v.rank == 4, lambda: f"linear_attention: q, k, v are {q}, {k}, {v}")
        require(self.rule in RULES, lambda: f"linear_attention: rule '{self.rule}'")
        heads, groups = q.shape[2], k.shape[2]
        if not isinstance(heads, int) or not isinstance(groups, int) or groups < 1 or heads % groups:
            raise OpError(f"linear_attention: {heads} query heads share {groups} states")
        require((decay is not None) == self.rule.startswith("gated"), "linear_attention: decay is for gated rules")
        require((beta is not None) == self.rule.endswith("delta"), "linear_attention: beta is for delta rules")
        batch, time, d, e = q.shape[0], q.shape[1], k.shape[3], v.shape[3]
        shape = (batch, groups, d, e)
        wanted = [("k", k, (batch, time, groups, q.shape[3])), ("v", v, (batch, time, groups, e))]
        wanted += [("state", state, shape), ("decay", decay, (batch, time, groups, d))]
        wanted += [("beta", beta, (batch, time, groups))]
        for name, x, sizes in wanted:
            if x is None:
                continue
            require(x.rank == len(sizes), lambda name=name, x=x: f"linear_attention: {name} is {x}")
            is_shared = name in ("decay", "beta") and x.shape[-1] == 1
            for a, b in list(zip(x.shape, sizes))[: -1 if is_shared else None]:
                require_equal(f"linear_attention: a size of {name}", a, b)
        return q.with_shape((*q.shape[:3], v.shape[3])), q.with_shape(shape), q.with_shape((*shape[:2], v.shape[3]))

    def reference(self, q, k, v, state=None, decay=None, beta=None):
        batch, time, heads, _ = q.shape
        groups, d, e = k.shape[2], k.shape[3], v.shape[3]
        s = np.zeros((batch, groups, d, e), q.dtype) if state is None else state.copy()
        y = np.zeros((batch, time, heads, e), q.dtype)
        for i in range(time):
            if decay is not None:
                s = s * np.exp(decay[:, i])[..., None]
            u = v[:, i]
            if beta is not None:
                u = (u - np.einsum("bgde,bgd->bge", s, k[:, i])) * beta[:, i][..., None]
            s = s + k[:, i][..., None] * u[..., None, :]
            read = np.einsum("bhd,bhde->bhe", q[:, i], np.repeat(s, heads // groups, axis=1))
            y[:, i] = read * q.dtype.type(self.scale)
        return y, s.astype(q.dtype), np.zeros((batch, groups, e), q.dtype)

    def kernel(self, k_: KernelBuilder, outs: tuple[Output, ...], q: Tensor, k: Tensor, v: Tensor, state=None,
               decay=None, beta=None) -> None:  # fmt: skip
        y, s, row = outs
        time, share = q.shape[1], q.shape[2] // k.shape[2]
        groups, d, e = k.shape[2], k.shape[3], v.shape[3]
        with k_.loop("parallel", b=q.shape[0], g=groups) as (b, g):
            with k_.loop(i=d, j=e) as (i, j):
                k_.store(s, (b, g, i, j), 0 if state is None else state.at(b, g, i, j))
            with k_.loop(t=time) as at:
                if decay is not None:
                    with k_.loop(i=d) as i:
                        factor = k_.let("factor", apply("exp", decay.at(b, at, g, 0 if decay.shape[3] == 1 else i)))
                        with k_.loop(j=e) as j:
                            k_.store(s, (b, g, i, j), s.at(b, g, i, j) * factor)
                self._write(k_, outs, k, v, beta, b, g, at)
                with k_.loop(r=share) as r:
                    h = g * share + r
                    with k_.loop(j=e) as j:
                        k_.store(y, (b, at, h, j), 0)
                    with k_.loop(i=d) as i:
                        read = k_.let("read", q.at(b, at, h, i) * self.scale)
                        with k_.loop(j=e) as j:
                            k_.store(y, (b, at, h, j), read * s.at(b, g, i, j), "add")
            with k_.loop(j=e) as j:
                k_.store(row, (b, g, j), 0)

    def _write(self, k_: KernelBuilder, outs: tuple[Output, ...], k: Tensor, v: Tensor, beta: Tensor | None, b: Expr,
               g: Expr, at: Expr) -> None:  # fmt: skip
        """S += k u'."""
        _, s, row = outs
        d, e = k.shape[3], v.shape[3]
        with k_.loop(j=e) as j:
            k_.store(row, (b, g, j), v.at(b, at, g, j))
        if beta is not None:
            with k_.loop(i=d) as i:
                key = k_.let("key", k.at(b, at, g, i))
                with k_.loop(j=e) as j:
                    k_.store(row, (b, g, j), row.at(b, g, j) - key * s.at(b, g, i, j))
            rate = k_.let("rate", beta.at(b, at, 0 if beta.shape[2] == 1 else g))
            with k_.loop(j=e) as j:
                k_.store(row, (b, g, j), row.at(b, g, j) * rate)
        with k_.loop(i=d) as i:
            key = k_.let("key", k.at(b, at, g, i))
            with k_.loop(j=e) as j:
                k_.store(s, (b, g, i, j), key * row.at(b, g, j), "add")


__all__ = ["RULES", "LinearAttention"]
