"""MoE and QMoE: mixtures of experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused

rng = np.random.default_rng(0)
EXPERTS = 4


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    """Floats that are the same for the same shape: a constant of several forms."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0), "relu2": lambda x: np.maximum(x, 0) ** 2, "gelu": gelu, "identity": lambda x: x,
    "silu": lambda x: x * sigmoid(x),
}  # fmt: skip


def inner(first: np.ndarray, third: np.ndarray | None, options: dict[str, Any]) -> np.ndarray:
    """What the first product (and the third) give to the second, by the operators' descriptions."""
    kind, fusion = options["activation_type"], options.get("swiglu_fusion", 0)
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](first) * (1 if third is None else third)
    gate, up = (first, third) if fusion == 0 else (first[0::2], first[1::2]) if fusion == 1 else np.split(first, 2)
    if kind == "geglu":
        return gelu(gate) * up
    limit, alpha = options.get("swiglu_limit", np.inf), options.get("activation_alpha", 1.0)
    is_after = options.get("swiglu_limit_after_activation", 0)
    gate = gate if is_after else np.minimum(gate, limit)
    active = gate * sigmoid(alpha * gate)
    active = np.minimum(active, limit) if is_after else active
    return active * (np.clip(up, -limit, limit) + options.get("activation_beta", 0.0))


def mixture(given: dict[str, Any], options: dict[str, Any], shares_of_all: bool) -> np.ndarray:
    """The output, token by token, of weights w1, w2, w3[expert, n, k] and biases b1, b2, b3."""

    def product(number: int, expert: int, x: np.ndarray) -> np.ndarray | None:
        w, bias = given.get(f"w{number}"), given.get(f"b{number}")
        return None if w is None else w[expert].astype(np.float64) @ x + (0 if bias is None else bias[expert])

    tokens = given["x"].reshape(-1, given["x"].shape[-1]).astype(np.float64)
    rows = []
    for token, logits in zip(tokens, given["router"].astype(np.float64)):
        chosen = np.argsort(-logits, kind="stable")[: options["k"]]
        shares = np.exp(logits - logits.max())
        total = shares.sum() if shares_of_all and not options.get("normalize_routing_weights") else shares[chosen].sum()
        y = [
            product(2, e, inner(product(1, e, token), product(3, e, token), options)) * shares[e] / total  # type: ignore
            for e in chosen
        ]
        rows.append(sum(y))
    return np.stack(rows).reshape(given["x"].shape).astype(given["x"].dtype)


def moe(
    *shape: int, kind: str = "relu", k: int = 2, biases: bool = False, third: bool = False, size: int = 5,
    dtype: Any = np.float32, **attributes: Any,
) -> Form:  # fmt: skip
    """An input of `shape`[6], and networks of `size` inner elements."""
    hidden = 6
    fused = 2 if kind in ("swiglu", "geglu") and attributes.get("swiglu_fusion") else 1
    operands: dict[str, Any] = {
        "x": floats(*shape, hidden), "router": floats(int(np.prod(shape)), EXPERTS) * 2,
        "w1": weights(EXPERTS, fused * size, hidden), "b1": weights(EXPERTS, fused * size) if biases else None,
        "w2": weights(EXPERTS, hidden, size), "b2": weights(EXPERTS, hidden) if biases else None,
        "w3": weights(EXPERTS, size, hidden) + 1 if third else None,
        "b3": weights(EXPERTS, size) + 1 if biases and third else None,
    }  # fmt: skip
    operands = {name: a if a is None else a.astype(dtype) for name, a in operands.items()}
    options = {"k": k, "activation_type": kind, **attributes}
    constants = tuple(n for n in ("w1", "b1", "w2", "b2", "w3", "b3") if operands[n] is not None)
    return Form("MoE", operands, options, constants=constants)


def stated(form: Form) -> Form:
    """The form with what the description says."""
    given = {name: a for name, a in form.operands.items() if a is not None}
    return replace(form, want={"y": mixture(given, dict(form.attributes), True)})


@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("k", [1, 2, EXPERTS])
@pytest.mark.parametrize("normalised", [0, 1])
@pytest.mark.parametrize("biases", [False, True])
def test_mixtures(kind: str, k: int, normalised: int, biases: bool) -> None:
    options: dict[str, Any] = {"kind": kind, "k": k, "normalize_routing_weights": normalised, "biases": biases}
    check(moe(2, 3, **options), moe(1, 5, **options))
    check(stated(moe(7, **options)), moe(4, **options))


LIMITED: dict[str, Any] = {"activation_alpha": 1.7, "activation_beta": 1.0, "swiglu_limit": 0.5}


@pytest.mark.parametrize("options", [{}, LIMITED])
def test_swiglu(options: dict[str, Any]) -> None:
    check(moe(2, 3, kind="swiglu", swiglu_fusion=1, **options), moe(1, 5, kind="swiglu", swiglu_fusion=1, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "silu", "third": True}, {"kind": "relu2"}, {"kind": "swiglu", "swiglu_fusion": 2, **LIMITED},
        {"kind": "swiglu", "third": True, **LIMITED}, {"kind": "geglu", "swiglu_fusion": 1},
        {"kind": "geglu", "swiglu_fusion": 2},
        {"kind": "swiglu", "swiglu_fusion": 1, "swiglu_limit_after_activation": 1, **LIMITED},
    ],
)  # fmt: skip
def test_what_onnxruntime_has_on_other_processors(options: dict[str, Any]) -> None:
    check(stated(moe(2, 3, biases=True, **options)))


def test_floats_of_16_bits() -> None:
    check(replace(stated(moe(2, 3, biases=True, dtype=np.float16)), tolerance=2e-3))  # of f16, rounded once


def numbers(x: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` numbers in the bytes of the last axis, the lowest bits first."""
    parts = [(x >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*x.shape[:-1], -1)[..., :count].astype(np.float64)


def packed(n: int, k: int, bits: int, block: int, zeros: bool) -> tuple[dict[str, Any], np.ndarray]:
    """Weights [experts, n, k] of `bits` bits with their scales and zero points, and what they stand for."""
    random = np.random.default_rng((n, k, bits, block))
    blocks = k // block if block else 1
    w = random.integers(0, 256, (EXPERTS, n, k * bits // 8), dtype=np.uint8)
    scales = (random.random((EXPERTS, n, blocks)) + 0.5).astype(np.float32) * np.float32(0.1)
    width = blocks if block else n
    rows = (EXPERTS, n) if block else (EXPERTS,)
    points = random.integers(0, 256, (*rows, -(-width * bits // 8)), dtype=np.uint8)
    middle = numbers(points, bits, width).reshape(EXPERTS, n, blocks) if zeros else 1 << (bits - 1)
    spread = [np.repeat(np.broadcast_to(v, scales.shape), k // blocks, axis=2) for v in (middle, scales)]
    parts = {"w": w, "s": scales if block else scales[:, :, 0], "z": points if zeros else None}
    return parts, (numbers(w, bits, k) - spread[0]) * spread[1]


def quantised(
    *shape: int, kind: str = "relu", bits: int = 4, block: int = 0, zeros: bool = False, biases: bool = False,
    third: bool = False, mix: bool = False, own_bits: dict[int, int] | None = None, size: int = 32, **attributes: Any,
) -> Form:  # fmt: skip
    fused = 2 if kind in ("swiglu", "geglu") and attributes.get("swiglu_fusion") else 1
    tokens = int(np.prod(shape))
    made = {
        number: packed(rows, size, (own_bits or {}).get(number, bits), block, zeros)
        for number, rows in ((1, fused * size), (2, size), *(((3, size),) if third else ()))
    }
    parts = {number: made[number][0] if number in made else dict.fromkeys("wsz") for number in (1, 2, 3)}
    bias = {1: weights(EXPERTS, fused * size), 2: weights(EXPERTS, size)} if biases else {}
    operands: dict[str, Any] = {"x": floats(*shape, size), "router": floats(tokens, EXPERTS) * 2}
    for number in (1, 2, 3):
        operands |= {f"w{number}": parts[number]["w"], f"s{number}": parts[number]["s"], f"b{number}": bias.get(number)}
    operands |= {f"z{number}": parts[number]["z"] for number in (1, 2, 3)}
    operands["mix"] = rng.random((tokens, EXPERTS)).astype(np.float32) if mix else None
    options = {"k": 2, "activation_type": kind, "expert_weight_bits": bits, **attributes}
    options |= {"block_size": block} if block else {}
    options |= {f"fc{number}_expert_weight_bits": own for number, own in (own_bits or {}).items()}
    constants = tuple(n for n, a in operands.items() if a is not None and n[0] in "wsbz")
    given = {"x": operands["x"], "router": operands["router"], **{f"b{n}": b for n, b in bias.items()}}
    given |= {f"w{number}": value for number, (_, value) in made.items()}
    want = None if mix else {"y": mixture(given, options, False)}
    return Form("QMoE", operands, options, constants=constants, want=want, tolerance=1e-4)


def by_onnxruntime(form: Form) -> Form:
    return replace(form, want=None)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [0, 16, 32])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantised_mixtures(bits: int, block: int, zeros: bool) -> None:
    form = quantised(3, bits=bits, block=block, zeros=zeros)
    check(form)
    if bits < 8 or not block:  # of 8 bits in blocks, ONNX Runtime rounds activations to 8 bits
        check(by_onnxruntime(form))


@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "swiglu", "identity"])
@pytest.mark.parametrize("normalised", [0, 1])
@pytest.mark.parametrize("mix", [False, True])
def test_activations_and_shares(kind: str, normalised: int, mix: bool) -> None:
    fusion = {"swiglu_fusion": 1, **LIMITED} if kind == "swiglu" else {}
    options: dict[str, Any] = {
        "kind": kind,
        "biases": True,
        "mix": mix,
        "normalize_routing_weights": normalised,
        **fusion,
    }
    check(by_onnxruntime(quantised(2, 3, **options)), by_onnxruntime(quantised(1, 5, **options)))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "silu", "third": True}, {"kind": "swiglu", "swiglu_fusion": 2, **LIMITED}, {"own_bits": {2: 8}},
        {"own_bits": {1: 8}, "block": 16, "zeros": True},
        {"kind": "swiglu", "third": True, "block": 16, "own_bits": {3: 2}},
    ],
)  # fmt: skip
def test_quantised_forms_that_onnxruntime_has_on_other_processors(options: dict[str, Any]) -> None:
    check(quantised(2, 3, **options))


def test_what_is_refused() -> None:
    check_refused(moe(3, use_sparse_mixer=1), "not documented")
    check_refused(moe(3, kind="tanh"), "which is unknown")
    check_refused(moe(3, k=5), "5 of its last axis cannot be chosen")
    check_refused(moe(3, kind="swiglu"), "a third product of its own or one that is fused")
    check_refused(moe(1, 2, 3), "2 or 3 axes")
    check_refused(quantised(3, quant_type="fp8"), "nor by ONNX Runtime on CPUs")
    check_refused(quantised(3, weights_prepacked=1), "laid out for one machine")
    check_refused(replace(quantised(3), attributes={"k": 2, "expert_weight_bits": 3}), "weights of 3 bits")
    check_refused(quantised(3, block=16), "scales, of 3 axes with `block_size`", s1=weights(EXPERTS, 32))
    check_refused(quantised(3, zeros=True), "are not 32 numbers of 4 bits", z1=np.zeros((EXPERTS, 15), np.uint8))


def test_in_c(tmp_path: Path) -> None:
    swiglu: dict[str, Any] = {"kind": "swiglu", "swiglu_fusion": 1, "biases": True, **LIMITED}
    check_c(
        tmp_path,
        [moe(2, 3, biases=True), moe(1, 5, biases=True)],
        [moe(7, **swiglu), moe(2, **swiglu)],
        [quantised(2, 3, zeros=True, block=16, bits=2), quantised(1, 5, zeros=True, block=16, bits=2)],
        [quantised(3, bits=8, **swiglu), quantised(9, bits=8, **swiglu)],
        [by_onnxruntime(quantised(3, zeros=True, mix=True))],
    )
