"""Window geometry that convolutions and pools share: kernel, strides, dilations and pads from ONNX attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.dims import Size, ceil_div, maximum
from ir.op import OpError

_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Window:
    """Numbers per spatial axis; `pad` has those before each axis, then those after each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[Size, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """How many elements each window reaches over."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation))


def per_axis(values: Sequence[int], count: int, default: int, what: str) -> tuple[int, ...]:
    """An attribute with one number per axis, or the default for all where it is absent."""
    if not values:
        return (default,) * count
    if len(values) != count:
        raise OpError(f"`{what}` is {list(values)}; it must give {count} numbers")
    return tuple(values)


def spatial_axes(x: Any) -> tuple[Size, ...]:
    """The sizes of the axes after batch and channel. Raises OpError where there are none."""
    if x.rank < 3:
        raise OpError(f"the input is {x.type}; it needs a batch axis, a channel axis and at least one more")
    return x.shape[2:]


def window(
    x: Any,
    kernel: Sequence[Size],
    *,
    auto_pad: str,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> Window:
    """The geometry of windows over the spatial axes of `x`, auto_pad resolved. Pads may be symbolic where sizes are."""
    shape = spatial_axes(x)
    rank = len(shape)
    if auto_pad not in _AUTO_PADS:
        raise OpError(f"`auto_pad` is '{auto_pad}'; it must be one of {', '.join(_AUTO_PADS)}")
    static = tuple(k for k in kernel if isinstance(k, int))
    if len(static) != rank or len(kernel) != rank or any(k < 1 for k in static):
        raise OpError(f"the kernel is {list(kernel)}; it must give {rank} positive numbers known when compiling")
    stride = per_axis(strides, rank, 1, "strides")
    dilation = per_axis(dilations, rank, 1, "dilations")
    if any(s < 1 for s in stride) or any(d < 1 for d in dilation):
        raise OpError(f"strides {list(stride)} and dilations {list(dilation)} must be positive")
    none = Window(static, stride, dilation, (0,) * (2 * rank))
    if auto_pad == "VALID":
        return none
    if auto_pad == "NOTSET":
        return Window(static, stride, dilation, per_axis(pads, 2 * rank, 0, "pads"))
    totals = [same_total(size, span, s) for size, span, s in zip(shape, none.spans, stride)]
    return Window(static, stride, dilation, split_pads(totals, upper=auto_pad == "SAME_UPPER"))


def same_total(size: Size, span: int, stride: int) -> Size:
    """Padding along one axis so that there are ceil(size / stride) windows."""
    if stride == 1:
        return span - 1
    return maximum(0, (ceil_div(size, stride) - 1) * stride + span - size)


def split_pads(totals: Sequence[Size], upper: bool) -> tuple[Size, ...]:
    """Total padding per axis as (before..., after...); an odd one more after where `upper`, else before."""
    less = [total // 2 for total in totals]
    more = [total - half for total, half in zip(totals, less)]
    return (*less, *more) if upper else (*more, *less)


def channels_first(b: Any, x: Any, is_last: int = 1) -> Any:
    """x[n, ..., c] as x[n, c, ...]; x itself unless `is_last`."""
    return b.transpose(x, perm=(0, x.rank - 1, *range(1, x.rank - 1))) if is_last else x


def channels_last_again(b: Any, y: Any, is_last: int = 1) -> Any:
    """y[n, c, ...] as y[n, ..., c]; y itself unless `is_last`."""
    return b.transpose(y, perm=(0, *range(2, y.rank), 1)) if is_last else y
