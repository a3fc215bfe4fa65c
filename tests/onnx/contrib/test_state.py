"""CausalConvWithState and LinearAttention of com.microsoft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    """Floats that are the same for the same shape: a constant of several forms."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def convolution(
    batch: int, length: int, *, channels: tuple[int, ...] = (3,), kernel: int = 4, bias: bool = True,
    state: bool = True, dtype: Any = np.float32, **attributes: Any,
) -> Form:  # fmt: skip
    count, kept = int(np.prod(channels)), (kernel - 1) * attributes.get("dilation", 1)

    def shape(size: int) -> tuple[int, ...]:
        return (batch, size, *channels) if attributes.get("channels_last") else (batch, *channels, size)

    operands: dict[str, Any] = {
        "x": floats(*shape(length)), "w": weights(count, 1, kernel), "bias": weights(count) if bias else None,
        "past": floats(*shape(kept)) if state else None,
    }  # fmt: skip
    given = {name: None if a is None else a.astype(dtype) for name, a in operands.items()}
    constants = ("w", "bias") if bias else ("w",)
    return Form("CausalConvWithState", given, attributes, ("y", "present"), constants)


@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_convolutions(activation: str, bias: bool, state: bool) -> None:
    options: dict[str, Any] = {"activation": activation, "bias": bias, "state": state}
    check(convolution(2, 5, **options), convolution(1, 2, **options))


@pytest.mark.parametrize("kernel", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("channels_last", [0, 1])
def test_kernels(kernel: int, dilation: int, channels_last: int) -> None:
    options: dict[str, Any] = {"kernel": kernel, "dilation": dilation, "channels_last": channels_last}
    check(convolution(2, 4, **options), convolution(3, 1, **options))


@pytest.mark.parametrize("channels", [(3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("state", [False, True])
def test_several_axes_of_channels(channels: tuple[int, ...], state: bool) -> None:
    options: dict[str, Any] = {"channels": channels, "channels_last": 1, "state": state}
    check(convolution(2, 5, **options), convolution(1, 2, **options))


def test_a_call_without_tokens() -> None:
    check(convolution(2, 0))


def attention(
    batch: int, length: int, rule: str, *, heads: int = 2, groups: int = 2, size: int = 4, width: int = 5,
    state: bool = True, per_element: bool = False, shared_rate: bool = False, **attributes: Any,
) -> Form:  # fmt: skip
    is_gated, is_delta = rule.startswith("gated"), rule.endswith("delta")
    rates, decays = (1 if shared_rate else groups), (groups * size if per_element else groups)
    operands: dict[str, Any] = {
        "query": floats(batch, length, heads * size), "key": floats(batch, length, groups * size) / size,
        "value": floats(batch, length, groups * width), "past": floats(batch, groups, size, width) if state else None,
        "decay": -np.abs(floats(batch, length, decays)) if is_gated else None,
        "rate": rng.random((batch, length, rates)).astype(np.float32) if is_delta else None,
    }  # fmt: skip
    options = {"q_num_heads": heads, "kv_num_heads": groups, "update_rule": rule, **attributes}
    return Form("LinearAttention", operands, options, ("y", "present"))


RULES = ["linear", "gated", "delta", "gated_delta"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 2), (2, 4), (1, 3)])
@pytest.mark.parametrize("state", [False, True])
def test_rules_and_heads(rule: str, heads: int, groups: int, state: bool) -> None:
    options: dict[str, Any] = {"heads": heads, "groups": groups, "state": state}
    check(attention(2, 3, rule, **options), attention(1, 5, rule, **options))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("per_element", [False, True])
@pytest.mark.parametrize("shared_rate", [False, True])
def test_gates_and_scales(rule: str, per_element: bool, shared_rate: bool) -> None:
    options: dict[str, Any] = {"per_element": per_element, "shared_rate": shared_rate, "scale": 0.3, "chunk_size": 2}
    check(attention(2, 3, rule, **options), attention(2, 1, rule, **options))


def test_what_is_refused() -> None:
    check_refused(convolution(2, 3, state_window=2), "nor by ONNX Runtime on CPUs")
    check_refused(convolution(2, 3, ndim=2), "nor by ONNX Runtime on CPUs")
    check_refused(convolution(2, 3, channels_last=1, state_length=5), "the extended path")
    check_refused(convolution(2, 3, dilation=0), "at least 1")
    check_refused(convolution(2, 3, activation="relu"), "is unknown")
    check_refused(attention(2, 3, "linear", state_window=2), "nor by ONNX Runtime on CPUs")
    check_refused(attention(2, 3, "linear", heads=2, groups=3), "do not share 2 heads")


def test_in_c(tmp_path: Path) -> None:
    last: dict[str, Any] = {"channels": (2, 3), "channels_last": 1, "dilation": 2, "activation": "silu"}
    check_c(
        tmp_path,
        [convolution(2, 5), convolution(1, 2)],
        [convolution(2, 5, **last), convolution(1, 2, **last)],
        [attention(2, 3, "gated_delta", heads=4), attention(1, 5, "gated_delta", heads=4)],
        [attention(2, 3, "gated", groups=4, per_element=True), attention(2, 1, "gated", groups=4, per_element=True)],
    )
