"""Matrix products and convolutions of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.shape import demand_equal
from compiler.onnx.ops.windows import Window, per_axis, spatial_axes, split_pads, window
from compiler.onnx.registry import onnx_op
from ir.dims import Size, decide_eq, decide_le
from ir.op import OpError
from ir.ops.contraction import parse_equation


@onnx_op("MatMul", since=1)
def MatMul(b: Any, a: Any, w: Any) -> Any:
    return b.matmul(a, w)


@onnx_op("Gemm", since=7)
def Gemm(
    b: Any, a: Any, w: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Any:
    if a.rank != 2 or w.rank != 2:
        raise OpError(f"operands are {a.type} and {w.type}; both must have 2 axes")
    y = b.matmul(b.transpose(a, perm=(1, 0)) if transA else a, b.transpose(w, perm=(1, 0)) if transB else w)
    y = _scaled(b, y, alpha)
    return y if c is None or beta == 0 else y + _scaled(b, c, beta)


@onnx_op("Gemm", since=1)
def Gemm1(
    b: Any,
    a: Any,
    w: Any,
    c: Any,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    return Gemm(b, a, w, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def _scaled(b: Any, x: Any, factor: float) -> Any:
    if factor == 1:
        return x
    if x.dtype.is_integer and not float(factor).is_integer():
        raise OpError(f"the factor {factor} would make {x.dtype} fractional")
    return x * (int(factor) if x.dtype.is_integer else float(factor))


@onnx_op("Einsum", since=12)
def Einsum(b: Any, *xs: Any, equation: str) -> Any:
    if len(xs) <= 2:
        return b.einsum(*xs, equation=equation.replace(" ", ""))
    return _einsum_in_pairs(b, list(xs), equation)


def _einsum_in_pairs(b: Any, xs: list[Any], equation: str) -> Any:
    """Products of many operands two at a time, so that no sum runs over more letters than it needs."""
    terms, out = parse_equation(equation, [x.rank for x in xs])
    letters = iter(c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation)
    named = {c: next(letters) for c in sorted({c for term in terms for c in term if c.isdigit()})}
    terms = ["".join(named.get(c, c) for c in term) for term in terms]
    out = "".join(named.get(c, c) for c in out)
    y, own = xs[0], terms[0]
    for position in range(1, len(xs)):
        needed = set(out).union(*terms[position + 1 :])
        term = terms[position]
        kept = "".join(c for c in dict.fromkeys(own + term) if c in needed)
        if position == len(xs) - 1:
            kept = out
        y = b.einsum(y, xs[position], equation=f"{own},{term}->{kept}")
        own = kept
    return y


@onnx_op("Conv", since=1)
def Conv(
    b: Any,
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] = (),
    group: int = 1,
    kernel_shape: tuple[int, ...] = (),
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    _check_kernel(w, kernel_shape)
    at = window(x, w.shape[2:], auto_pad=auto_pad, strides=strides, dilations=dilations, pads=pads)
    return b.conv(x, w, bias, stride=at.stride, pad=at.pad, dilation=at.dilation, groups=group)


@onnx_op("ConvTranspose", since=1)
def ConvTranspose(
    b: Any,
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] = (),
    group: int = 1,
    kernel_shape: tuple[int, ...] = (),
    output_padding: tuple[int, ...] = (),
    output_shape: tuple[int, ...] = (),
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    _check_kernel(w, kernel_shape)
    shape = spatial_axes(x)
    notset = "VALID" if auto_pad != "NOTSET" else auto_pad
    at = window(x, w.shape[2:], auto_pad=notset, strides=strides, dilations=dilations, pads=pads)
    extra: tuple[Size, ...] = per_axis(output_padding, len(shape), 0, "output_padding")
    wanted: list[Size] = []
    if output_shape:
        wanted = list(per_axis(output_shape[-len(shape) :], len(shape), 0, "output_shape"))
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * s for size, s in zip(shape, at.stride)]
    pad = at.pad
    if wanted:
        pad, extra = _pads_to_reach(wanted, shape, at, extra, upper=auto_pad == "SAME_UPPER")
    return b.conv_transpose(x, w, bias, stride=at.stride, pad=pad, dilation=at.dilation, extra=extra, groups=group)


def _pads_to_reach(
    wanted: list[Size], shape: tuple[Size, ...], at: Window, extra: tuple[Size, ...], upper: bool
) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """Pads and extra sizes that make a transposed convolution give the sizes `wanted`."""
    totals: list[Size] = []
    wider: list[Size] = []
    for size, out, s, span, more in zip(shape, wanted, at.stride, at.spans, extra):
        total = (size - 1) * s + span + more - out
        if decide_le(0, total) is None:
            raise OpError(f"the padding that makes size {size} into {out} has no known sign")
        negative = decide_le(0, total) is False
        totals.append(0 if negative else total)
        wider.append(more - total if negative else more)
    return split_pads(totals, upper), tuple(wider)


def _check_kernel(w: Any, kernel_shape: tuple[int, ...]) -> None:
    if kernel_shape and tuple(w.shape[2:]) != tuple(kernel_shape):
        raise OpError(f"`kernel_shape` is {list(kernel_shape)}, but the weights are {w.type}")


@onnx_op("DeformConv", since=19)
def DeformConv(
    b: Any,
    x: Any,
    w: Any,
    offset: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    dilations: tuple[int, ...] = (),
    group: int = 1,
    kernel_shape: tuple[int, ...] = (),
    offset_group: int = 1,
    pads: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
) -> Any:
    _check_kernel(w, kernel_shape)
    at = window(x, w.shape[2:], auto_pad="NOTSET", strides=strides, dilations=dilations, pads=pads)
    return b.deform_conv(
        x, w, offset, bias, mask,
        stride=at.stride, pad=at.pad, dilation=at.dilation, groups=group, offset_groups=offset_group,
    )  # fmt: skip


@onnx_op("CausalConvWithState", since=27)
def CausalConvWithState(
    b: Any, x: Any, w: Any, bias: Any = None, past_state: Any = None, *, activation: str = "none"
) -> Any:
    """A convolution per channel that looks back only; the last inputs are kept for the next call."""
    return causal_conv(b, x, w, bias, past_state, activation, 1)


def causal_conv(b: Any, x: Any, w: Any, bias: Any, state: Any, activation: str, dilation: int) -> tuple[Any, Any]:
    """Each channel of x[n, c, t] behind its `state` (default: zeros) convolved with w[c, 1, k]; the next state."""
    if activation not in ("none", "silu", "swish"):
        raise OpError(f"the activation '{activation}' is unknown")
    if x.rank != 3 or w.rank != 3 or not isinstance(w.shape[0], int) or not isinstance(w.shape[2], int):
        raise OpError(f"input {x.type} and weights {w.type} must have 3 axes, the weights of known size")
    channels = w.shape[0]
    kept = (x.shape[0], channels, (w.shape[2] - 1) * dilation)
    if state is None:
        state = b.full(shape=kept, value=0.0, dtype=x.dtype)
    demand_equal(b, state.shape[2], kept[2], f"the state is {state.type}; {kept[2]} inputs come before the first")
    padded = b.concat(state, x, axis=2)
    y = x  # of a call without tokens
    if decide_eq(x.shape[2], 0) is not True:
        y = b.conv(padded, w, bias, stride=(1,), pad=(0, 0), dilation=(dilation,), groups=channels)
    if activation != "none":
        y = y * b.sigmoid(y)
    return y, b.slice(padded, starts=(0, 0, x.shape[2]), shape=kept, steps=(1, 1, 1))
