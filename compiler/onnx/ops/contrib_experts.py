"""Mixtures of experts of com.microsoft: each token goes through the few networks that its router chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import ceil_div
from ir.op import OpError
from ir.ops.norm import convert, widen

_MS = "com.microsoft"
Product = Callable[[Any, Any], Any]
"""From x[t, k or 1, h] and the experts chosen [t, k] to y[t, k, n]."""


def _with_bias(b: Any, y: Any, bias: Any, chosen: Any) -> Any:
    """y[t, k, n] plus the bias [e, n] of each expert chosen."""
    return y if bias is None else y + convert(b, b.gather(bias, chosen, axis=0), y)


@dataclass(frozen=True)
class _Gate:
    """What stands between the products of an expert: a function of the first, or of the first (the gate) and another.

    `fusion` says where that other stands: 0 in a third product, 1 beside each element of the gate, 2 behind the gate.
    """

    kind: str
    alpha: float
    beta: float
    fusion: int
    limit: float | None
    is_limited_after: bool

    def __call__(self, b: Any, first: Any, third: Any) -> Any:
        """What goes into the second product, from the first and from the third where there is one."""
        if self.kind not in ("swiglu", "geglu"):
            y = _activated(b, first, self.kind)
            return y if third is None else y * third
        if self.fusion not in (0, 1, 2):
            raise OpError(f"`swiglu_fusion` is {self.fusion}; it must be 0, 1 or 2")
        if (self.fusion == 0) == (third is None) or (self.fusion == 0 and self.kind == "geglu"):
            raise OpError(
                f"`{self.kind}` has a third product of its own or one that is fused into the first, not both or neither"
            )
        return self._gated(b, *((first, third) if third is not None else _halves(b, first, self.fusion == 1)))

    def _gated(self, b: Any, gate: Any, up: Any) -> Any:
        """The activation of the gate times what it lets through."""
        if self.kind == "geglu":
            return b.gelu(gate, approximate=True) * up
        if self.limit is not None:
            up = b.clip(up, b.const(-self.limit, up.dtype), b.const(self.limit, up.dtype))
            gate = gate if self.is_limited_after else b.min(gate, b.const(self.limit, gate.dtype))
        active = gate * b.sigmoid(gate * self.alpha)
        if self.limit is not None and self.is_limited_after:
            active = b.min(active, b.const(self.limit, active.dtype))
        return active * (up + self.beta)


def _activated(b: Any, x: Any, kind: str) -> Any:
    match kind:
        case "relu":
            return b.relu(x)
        case "relu2":
            return b.relu(x) * b.relu(x)
        case "gelu":
            return b.gelu(x, approximate=True)
        case "silu":
            return x * b.sigmoid(x)
        case "identity":
            return x
    raise OpError(f"`activation_type` is '{kind}', which is unknown")


def _halves(b: Any, x: Any, is_interleaved: bool) -> tuple[Any, Any]:
    """The gate and what it lets through of x[t, k, 2 n]: every other element, or one half after the other."""
    size = x.shape[2] // 2
    step = 2 if is_interleaved else 1
    starts = (0, 1) if is_interleaved else (0, size)
    first, second = (
        b.slice(x, starts=(0, 0, at), shape=(*x.shape[:2], size), steps=(1, 1, step)) for at in starts
    )  # fmt: skip
    return first, second


def _routed(b: Any, logits: Any, k: int) -> tuple[Any, Any]:
    """The k greatest logits of each token, in f32 or wider, and whose they are."""
    if logits.rank != 2 or (isinstance(logits.shape[1], int) and not 1 <= k <= logits.shape[1]):
        raise OpError(f"`router_probs` is {logits.type}; {k} of its last axis cannot be chosen")
    return b.top_k(widen(b, logits), axis=1, count=k)


def _mixed(
    b: Any, x: Any, chosen: Any, shares: Any, products: list[Product | None],
    biases: Sequence[Any], gate: _Gate,
) -> Any:  # fmt: skip
    """The outputs of the experts chosen for each token, added by their shares[t, k]."""
    if x.rank not in (2, 3):
        raise OpError(f"`input` is {x.type}; it must have 2 or 3 axes")
    size = x.shape[-1]
    tokens = b.reshape(widen(b, x), shape=(shares.shape[0], 1, size))
    first, second, third = products
    assert first is not None and second is not None
    up = None if third is None else _with_bias(b, third(tokens, chosen), biases[2], chosen)
    inner = gate(b, _with_bias(b, first(tokens, chosen), biases[0], chosen), up)
    y = _with_bias(b, second(inner, chosen), biases[1], chosen)
    y = b.reduce_sum(y * b.reshape(convert(b, shares, y), shape=(*shares.shape, 1)), axes=(1,), keepdims=False)
    return convert(b, b.reshape(y, shape=x.shape), x)


@onnx_op("MoE", domain=_MS)
def MoE(
    b: Any, input: Any, router_probs: Any, fc1_experts_weights: Any, fc1_experts_bias: Any = None,
    fc2_experts_weights: Any = None, fc2_experts_bias: Any = None, fc3_experts_weights: Any = None,
    fc3_experts_bias: Any = None, *, activation_alpha: float = 1.0, activation_beta: float = 0.0,
    activation_type: str = "relu", k: int = 1, normalize_routing_weights: int = 0, swiglu_fusion: int = 0,
    swiglu_limit: float | None = None, swiglu_limit_after_activation: int = 0, use_sparse_mixer: int = 0,
) -> Any:  # fmt: skip
    if use_sparse_mixer:
        raise OpError("`use_sparse_mixer` is not supported: what it does is not documented")
    if fc2_experts_weights is None:
        raise OpError("input `fc2_experts_weights` is missing")
    logits, chosen = _routed(b, router_probs, k)
    if normalize_routing_weights:
        shares = b.softmax(logits, axes=(1,))
    else:  # of all experts, not of those chosen
        shares = b.gather_elements(b.softmax(widen(b, router_probs), axes=(1,)), chosen, axis=1)

    def product(weights: Any) -> Product | None:
        return None if weights is None else lambda x, chosen: b.expert_matmul(x, weights, chosen)

    products = [product(w) for w in (fc1_experts_weights, fc2_experts_weights, fc3_experts_weights)]
    biases = (fc1_experts_bias, fc2_experts_bias, fc3_experts_bias)
    gate = _Gate(activation_type, activation_alpha, activation_beta, swiglu_fusion, swiglu_limit,
                 bool(swiglu_limit_after_activation))  # fmt: skip
    return _mixed(b, input, chosen, shares, products, biases, gate)


@onnx_op("QMoE", domain=_MS)
def QMoE(
    b: Any, input: Any, router_probs: Any, fc1_experts_weights: Any, fc1_scales: Any = None,
    fc1_experts_bias: Any = None, fc2_experts_weights: Any = None, fc2_scales: Any = None,
    fc2_experts_bias: Any = None, fc3_experts_weights: Any = None, fc3_scales: Any = None,
    fc3_experts_bias: Any = None, fc1_zero_points: Any = None, fc2_zero_points: Any = None,
    fc3_zero_points: Any = None, router_weights: Any = None, *unused: Any, accuracy_level: int = 0,
    activation_alpha: float = 1.0, activation_beta: float = 0.0, activation_type: str = "relu", block_size: int = 0,
    expert_weight_bits: int = 4, fc1_expert_weight_bits: int = 0, fc2_expert_weight_bits: int = 0,
    fc3_expert_weight_bits: int = 0, k: int = 1, normalize_routing_weights: int = 0, quant_type: str = "int",
    swiglu_fusion: int = 0, swiglu_limit: float | None = None, swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0, weights_prepacked: int = -1,
) -> Any:  # fmt: skip
    """Without `router_weights`, shares are those of the experts chosen alone, whether or not they are to be normalised:
    so it is in ONNX Runtime on CPUs. `accuracy_level` allows for less than the accuracy of floats.
    """
    if quant_type != "int" or any(v is not None for v in unused):
        raise OpError(
            f"`quant_type` '{quant_type}' and scales of activations are not supported, nor by ONNX Runtime on CPUs"
        )
    if use_sparse_mixer or weights_prepacked == 1:
        raise OpError("`use_sparse_mixer` and weights that are laid out for one machine are not supported")
    if fc2_experts_weights is None:
        raise OpError("input `fc2_experts_weights` is missing")
    logits, chosen = _routed(b, router_probs, k)
    if router_weights is None:
        shares = b.softmax(logits, axes=(1,))
    else:
        shares = b.gather_elements(widen(b, router_weights), chosen, axis=1)
        if normalize_routing_weights:
            shares = shares / b.reduce_sum(shares, axes=(1,), keepdims=True)
    inputs = (
        (fc1_experts_weights, fc1_scales, fc1_zero_points, fc1_expert_weight_bits),
        (fc2_experts_weights, fc2_scales, fc2_zero_points, fc2_expert_weight_bits),
        (fc3_experts_weights, fc3_scales, fc3_zero_points, fc3_expert_weight_bits),
    )
    products = [
        _quantised(b, weights, scales, zeros, bits or expert_weight_bits, block_size)
        for weights, scales, zeros, bits in inputs
    ]
    biases = (fc1_experts_bias, fc2_experts_bias, fc3_experts_bias)
    gate = _Gate(activation_type, activation_alpha, activation_beta, swiglu_fusion, swiglu_limit,
                 bool(swiglu_limit_after_activation))  # fmt: skip
    return _mixed(b, input, chosen, shares, products, biases, gate)


def _quantised(b: Any, weights: Any, scales: Any, zeros: Any, bits: int, block: int) -> Product | None:
    """The product with weights [e, n, bytes], one scale for each row or for each block of it."""
    if weights is None:
        return None
    if bits not in (2, 4, 8):
        raise OpError(f"weights of {bits} bits are not supported; they may have 2, 4 or 8")
    if scales is None or weights.rank != 3 or scales.rank != (3 if block else 2):
        raise OpError("each projection needs weights of 3 axes and scales, of 3 axes with `block_size` and else of 2")
    rows = weights.shape[:2]
    blocks = scales.shape[2] if block else 1
    scales = b.reshape(scales, shape=(*rows, blocks))
    if block and (not isinstance(blocks, int) or weights.shape[2] * 8 != blocks * block * bits):
        raise OpError(f"{weights.type} does not hold {blocks} blocks of {block} numbers of {bits} bits")
    if zeros is not None and bits < 8:
        width = blocks if block else rows[1]
        if zeros.shape[-1] != ceil_div(width * bits, 8):
            raise OpError(f"zero points {zeros.type} are not {width} numbers of {bits} bits")
        zeros = b.unpack_bits(zeros, bits=bits, size=width)
    if zeros is not None:
        zeros = b.reshape(zeros, shape=(*rows, blocks))
    if zeros is not None and zeros.dtype != t.u8:
        raise OpError(f"zero points are {zeros.type}; they must be bytes")
    return lambda x, chosen: b.expert_matmul(x, weights, chosen, scales, zeros, bits=bits)
