"""Keys and values in pages: blocks of a pool that a table lends to sequences, which lie one behind another."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.element import KernelBuilder, Output, Tensor, apply, cast, const
from ir.expr import Expr, Var
from ir.op import Op, OpError, assume_equal, case, op, require
from ir.ops.elementwise import same_dtype
from ir.types import TensorType

_ENDS = np.array([0, 2, 3])
_PAST = np.array([1, 3])
_TABLE = np.array([[3, 0], [1, -1]])


@op
class PagesWrite(Op):
    """The pool pages[p, s, g, d] with new[n, g, d] in the slots at[n], counted through all pages; -1 is no slot."""

    examples = [
        case("f32[3,2,1,4]", "f32[3,1,4]", np.array([4, -1, 1])),
        case("i8[2,3,2,2]", "i8[1,2,2]", np.array([6])),
        case("f16[2,2,1,3]", "f16[0,1,3]", np.zeros(0, np.int64)),
    ]

    def infer(self, pages: TensorType, new: TensorType, at: TensorType) -> TensorType:
        same_dtype("pages_write", pages, new)
        require(pages.rank == 4 and new.rank == 3 and at.rank == 1, lambda: f"pages_write: {pages}, {new}, {at}")
        require(at.dtype == t.i64, lambda: f"pages_write: slots are {at}")
        for a, b in ((new.shape[0], at.shape[0]), (pages.shape[2], new.shape[1]), (pages.shape[3], new.shape[2])):
            assume_equal(a, b)
        return pages

    def reference(self, pages: np.ndarray, new: np.ndarray, at: np.ndarray) -> np.ndarray:
        out = pages.copy()
        flat = out.reshape(pages.shape[0] * pages.shape[1], *pages.shape[2:])
        for row, slot in zip(new, at.tolist()):
            if 0 <= slot < len(flat):
                flat[slot] = row
        return out

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], pages: Tensor, new: Tensor, at: Tensor) -> None:
        (out,) = outs
        count, slots, groups, size = pages.shape
        with k.loop("parallel", p=count) as p, k.loop(s=slots, g=groups, d=size) as (s, g, d):
            k.store(out, (p, s, g, d), pages.at(p, s, g, d))
        with k.loop(n=new.shape[0]) as n:
            slot = k.let("slot", at.at(n))
            with k.when((slot >= 0) & (slot < count * slots)), k.loop(g=groups, d=size) as (g, d):
                k.store(out, (slot // slots, slot % slots, g, d), new.at(n, g, d))


@op
class PagedAttention(Op):
    """Attention of tokens q[n, h, d] on the keys and values that their sequences have in pages[p, s, g, d].

    Tokens ends[b] <= n < ends[b + 1] are of sequence b, at positions from past[b] on. Position j of it stands in page
    table[b, j // s]; where that is no page, nothing is seen. A token at p sees j <= p where `causal`, else all of its
    sequence, and p - left_window <= j where that is not negative. Values are the first `value_size` elements of keys
    where there are none. `softcap` and sink[h] are those of `attention`.
    """

    scale: float
    causal: bool = True
    left_window: int = -1
    softcap: float = 0.0
    value_size: int = 0
    examples = [
        case("f32[3,2,4]", "f32[4,2,1,4]", "f32[4,2,1,3]", _ENDS, _PAST, _TABLE, scale=0.5),
        case("f32[3,2,4]", "f16[4,2,2,4]", None, _ENDS, _PAST, _TABLE, "f32[2]", scale=0.5, causal=False, softcap=2.0,
             value_size=2),
        case("f64[4,1,2]", "f64[4,2,1,2]", "f64[4,2,1,2]", _ENDS, _PAST, _TABLE, scale=1.0, left_window=1),
    ]  # fmt: skip

    def infer(self, q: TensorType, keys: TensorType, values: TensorType | None, ends: TensorType, past: TensorType,
              table: TensorType, sink: TensorType | None = None) -> TensorType:  # fmt: skip
        require(q.rank == 3 and q.dtype in (t.f32, t.f64), lambda: f"paged_attention does not take {q}")
        require(keys.rank == 4 and keys.dtype.is_float, lambda: f"paged_attention: keys are {keys}")
        heads, groups = q.shape[1], keys.shape[2]
        if not isinstance(heads, int) or not isinstance(groups, int) or groups < 1 or heads % groups:
            raise OpError(f"paged_attention: {heads} query heads and {groups} key heads")
        for what, given, rank in (("ends", ends, 1), ("past", past, 1), ("table", table, 2)):
            require(given.rank == rank and given.dtype == t.i64, lambda w=what, g=given: f"paged_attention: {w} is {g}")
        assume_equal(q.shape[2], keys.shape[3])
        assume_equal(past.shape[0], table.shape[0])
        assume_equal(ends.shape[0], past.shape[0] + 1)
        if values is None:
            size = keys.shape[3]
            require(self.value_size > 0 and (not isinstance(size, int) or self.value_size <= size),
                    lambda: f"paged_attention: values of {self.value_size} elements of keys {keys}")  # fmt: skip
            return q.with_shape((*q.shape[:2], self.value_size))
        require(values.rank == 4 and values.dtype.is_float, lambda: f"paged_attention: values are {values}")
        for axis in range(3):
            assume_equal(keys.shape[axis], values.shape[axis])
        return q.with_shape((*q.shape[:2], values.shape[3]))

    def reference(self, q, keys, values, ends, past, table, sink=None):
        size = keys.shape[1]
        share = q.shape[1] // keys.shape[2]
        pool = keys[..., : self.value_size] if values is None else values
        out = np.zeros((*q.shape[:2], pool.shape[3]), q.dtype)
        for n in range(q.shape[0]):
            b = int((ends[1:] <= n).sum())
            if b >= len(past):
                continue
            p = past[b] + n - ends[b]
            last = p if self.causal else past[b] + ends[b + 1] - ends[b] - 1
            first = max(0, p - self.left_window) if self.left_window >= 0 else 0
            seen = [j for j in range(first, last + 1) if j // size < table.shape[1]]
            seen = [j for j in seen if 0 <= table[b, j // size] < len(keys)]
            pages, slots = table[b, [j // size for j in seen]], [j % size for j in seen]
            k, v = (np.repeat(x[pages, slots], share, axis=1).astype(q.dtype) for x in (keys, pool))
            x = np.einsum("hd,jhd->hj", q[n], k) * q.dtype.type(self.scale)
            x = np.tanh(x / self.softcap) * self.softcap if self.softcap else x
            top = x.max(axis=1, initial=-np.inf)
            top = top if sink is None else np.maximum(top, sink)
            weights = np.exp(x - np.where(np.isneginf(top), 0, top)[:, None])
            total = weights.sum(axis=1) + (0 if sink is None else np.exp(sink - top))
            out[n] = np.einsum("hj,jhe->he", weights, v) / np.where(total == 0, 1, total)[:, None]
        return out

    def kernel(self, k_: KernelBuilder, outs: tuple[Output, ...], q: Tensor, keys: Tensor, values: Tensor | None,
               ends: Tensor, past: Tensor, table: Tensor, sink: Tensor | None = None) -> None:  # fmt: skip
        (out,) = outs
        wide, sequences, share = q.dtype, past.shape[0], out.shape[1] // keys.shape[2]
        with k_.loop("parallel", n=q.shape[0]) as n:
            b = k_.variable("b", 0, t.i64)
            with k_.loop(i=sequences) as i, k_.when(ends.at(i + 1) <= n):
                k_.assign(b, 1, "add")
            with k_.loop(h=out.shape[1]) as h:
                with k_.loop(e=out.shape[2]) as e:
                    k_.store(out, (n, h, e), 0)
                with k_.when(b < sequences):
                    p = k_.let("p", past.at(b) + n - ends.at(b))
                    last = p if self.causal else past.at(b) + ends.at(b + 1) - ends.at(b) - 1
                    first = apply("max", p - self.left_window, 0) if self.left_window >= 0 else const(0, t.i64)
                    start = k_.let("start", first)
                    count = k_.let("count", apply("max", last + 1 - start, 0))
                    top = k_.variable("top", float("-inf") if sink is None else cast(sink.at(h), wide), wide)
                    total = k_.variable("total", 0.0 if sink is None else 1.0, wide)
                    self._keys_seen(
                        k_, out, (q, keys, values, table), (n, h, h // share, b), (start, count), top, total
                    )
                    with k_.when(total > 0), k_.loop(e=out.shape[2]) as e:
                        k_.store(out, (n, h, e), out.at(n, h, e) / total)

    def _keys_seen(
        self, k_: KernelBuilder, out: Output, tensors: tuple[Tensor, Tensor, Tensor | None, Tensor],
        at: tuple[Expr, ...], span: tuple[Expr, Expr], top: Var, total: Var,
    ) -> None:  # fmt: skip
        """Adds the values of the keys seen, by their weights: relative to the greatest score so far, `top`."""
        q, keys, values, table = tensors
        n, h, g, b = at
        slots, wide = keys.shape[1], q.dtype
        with k_.loop(i=span[1]) as i:
            j = k_.let("j", span[0] + i)
            page = k_.let("page", table.at(b, j // slots, outside=-1))
            with k_.when((page >= 0) & (page < keys.shape[0])):
                score = k_.variable("score", 0, wide)
                with k_.loop(d=q.shape[2]) as d:
                    k_.assign(score, q.at(n, h, d) * cast(keys.at(page, j % slots, g, d), wide), "add")
                x = k_.let("x", score * self.scale, wide)
                if self.softcap:
                    x = k_.let("capped", apply("tanh", x / self.softcap) * self.softcap, wide)
                with k_.when(x > top):
                    factor = k_.let("factor", apply("exp", top - x), wide)
                    with k_.loop(e=out.shape[2]) as e:
                        k_.store(out, (n, h, e), out.at(n, h, e) * factor)
                    k_.assign(total, total * factor)
                    k_.assign(top, x)
                weight = k_.let("weight", apply("exp", x - top), wide)
                k_.assign(total, weight, "add")
                pool = keys if values is None else values
                with k_.loop(e=out.shape[2]) as e:
                    k_.store(out, (n, h, e), weight * cast(pool.at(page, j % slots, g, e), wide), "add")


__all__ = ["PagedAttention", "PagesWrite"]
