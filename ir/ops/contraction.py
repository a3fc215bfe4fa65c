"""Contractions: sums of products over shared axes (matrix multiplication, convolution)."""

from __future__ import annotations

import numpy as np

from ir.dims import Size
from ir.element import Tensor, cast, sum_over
from ir.expr import Expr
from ir.op import Op, assume_equal, case, ints, op, require
from ir.ops.elementwise import broadcast_shapes, same_dtype
from ir.ops.reduction import accumulator, wide
from ir.types import TensorType, dtype_of


@op
class Matmul(Op):
    """Matrix product with the semantics of np.matmul: leading axes broadcast, operands of rank 1 are vectors.

    Sums of narrow floats are taken in f32; integers wrap.
    """

    axes = "b h m n"
    examples = [
        case("f32[3,4]", "f32[4,5]"), case("f32[2,1,3,4]", "f32[3,4,5]"), case("f32[4]", "f32[4,5]"),
        case("f32[2,3,4]", "f32[4]"), case("f32[4]", "f32[4]"), case("f16[2,3]", "f16[3,2]"),
        case("i32[2,3]", "i32[3,2]"), case("f32[2,0]", "f32[0,3]"),
    ]  # fmt: skip

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        dtype = same_dtype("matmul", x, y)
        require(dtype.kind in ("float", "int", "uint"), lambda: f"matmul does not take {dtype}")
        require(x.rank >= 1 and y.rank >= 1, lambda: f"matmul: operands {x} and {y} need at least one axis each")
        inner, other = x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0]
        require(not (isinstance(inner, int) and isinstance(other, int)) or inner == other,
                lambda: f"matmul: {x} and {y} disagree on the axis summed over ({inner} and {other})")  # fmt: skip
        assume_equal(inner, other)
        rows = x.shape[-2:-1]
        columns = y.shape[-1:] if y.rank > 1 else ()
        return TensorType(dtype, (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        exact = accumulator(dtype_of(x)).numpy
        return np.asarray(np.matmul(x.astype(exact, copy=False), y.astype(exact, copy=False))).astype(
            x.dtype, copy=False
        )

    def element(self, i: tuple[Expr, ...], x: Tensor, y: Tensor) -> Expr:
        batch, own = list(i), []
        if y.rank > 1:
            own.append(batch.pop())
        if x.rank > 1:
            own.insert(0, batch.pop())
        of_x = _batch_index(batch, x)
        of_y = _batch_index(batch, y)

        def term(k: Expr) -> Expr:
            left = x.at(*of_x, own[0], k) if x.rank > 1 else x.at(k)
            right = y.at(*of_y, k, own[-1]) if y.rank > 1 else y.at(k)
            return wide(left) * wide(right)

        return cast(sum_over(x.shape[-1:], term), x.dtype)


def _batch_index(batch: list[Expr], x: Tensor) -> list[Expr | int]:
    """The part of `batch` that indexes the leading axes of `x`, 0 where `x` is broadcast."""
    own = max(0, x.rank - 2)
    return [0 if size == 1 else i for i, size in zip(batch[len(batch) - own :], x.shape[:own])]


@op
class Conv(Op):
    """Convolution of any spatial rank: x[n, c, ...] with w[o, c/groups, ...], optionally plus bias[o].

    `pad` gives the zeros before each spatial axis, then those after each. ONNX Conv without auto_pad.
    """

    stride: ints = ()
    pad: ints = ()
    dilation: ints = ()
    groups: int = 1
    axes = "n oc oh ow"
    examples = [
        case("f32[1,3,8,8]", "f32[4,3,3,3]", "f32[4]", stride=(2, 2), pad=(1, 1, 1, 1), dilation=(1, 1)),
        case("f32[2,4,7]", "f32[6,2,3]", None, stride=(1,), pad=(0, 2), dilation=(2,), groups=2),
    ]

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        spatial = x.rank - 2
        require(spatial >= 1, lambda: f"conv: input is {x}; it needs at least 3 axes")
        require(w.rank == x.rank, lambda: f"conv: weights {w} and input {x} have different ranks")
        require(len(self.stride) == spatial and len(self.pad) == 2 * spatial and len(self.dilation) == spatial,
                "conv: stride, pad and dilation must give one number per spatial axis (pad: two)")  # fmt: skip
        channels = w.shape[1] * self.groups
        require(x.shape[1] == channels or not isinstance(x.shape[1], int),
                lambda: f"conv: input has {x.shape[1]} channels, weights expect {channels}")  # fmt: skip
        assume_equal(x.shape[1], channels)
        out: list[Size] = []
        for a in range(spatial):
            span = (w.shape[2 + a] - 1) * self.dilation[a] + 1
            out.append((x.shape[2 + a] + self.pad[a] + self.pad[spatial + a] - span) // self.stride[a] + 1)
        return TensorType(x.dtype, (x.shape[0], w.shape[0], *out))

    def reference(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        spatial = x.ndim - 2
        pads = [(0, 0), (0, 0), *((self.pad[a], self.pad[spatial + a]) for a in range(spatial))]
        padded = np.pad(x, pads)
        spans = [(w.shape[2 + a] - 1) * self.dilation[a] + 1 for a in range(spatial)]
        axes = tuple(range(2, 2 + spatial))
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)  # type: ignore[call-overload]
        step = tuple(slice(None, None, s) for s in self.stride)
        taps = tuple(slice(None, None, d) for d in self.dilation)
        windows = windows[(slice(None), slice(None), *step, *taps)]
        n, c = x.shape[:2]
        g, o = self.groups, w.shape[0]
        out_shape = windows.shape[2 : 2 + spatial]
        rows = np.moveaxis(windows.reshape(n, g, c // g, *out_shape, -1), 2, -2)  # n g oh ow c k
        rows = rows.reshape(n, g, int(np.prod(out_shape)), -1)
        weights = w.reshape(g, o // g, -1)
        y = np.einsum("ngpk,gok->ngop", rows, weights, optimize=True).reshape(n, o, *out_shape)
        if bias is not None:
            y = y + bias.reshape(1, -1, *([1] * spatial))
        return y.astype(x.dtype, copy=False)

    def element(self, i: tuple[Expr, ...], x: Tensor, w: Tensor, bias: Tensor | None = None) -> Expr:
        n, oc, *position = i
        per_group = w.shape[0] // self.groups
        first = 0 if self.groups == 1 else oc // per_group * w.shape[1]

        def term(ic: Expr, *k: Expr) -> Expr:
            at = [
                p * s + tap * d - before
                for p, s, tap, d, before in zip(position, self.stride, k, self.dilation, self.pad)
            ]
            return x.at(n, first + ic, *at, outside=0) * w.at(oc, ic, *k)

        names = (
            "ic",
            *(("kd", "kh", "kw")[-len(position) :] if len(position) <= 3 else [f"k{a}" for a in range(len(position))]),
        )
        acc = sum_over(w.shape[1:], _named(term, names))
        return acc if bias is None else acc + bias.at(oc)


def _named(function, names: tuple[str, ...]):
    """`function` with a signature that names its arguments, for readable loops."""
    import inspect

    def named(*args: Expr) -> Expr:
        return function(*args)

    named.__signature__ = inspect.Signature([inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in names])
    return named
