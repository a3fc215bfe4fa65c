"""Attention against ONNX Runtime, and what no other runtime defines: rows that see nothing, and where caches end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.single_node import agrees, run

MS: dict[str, Any] = {"domain": "com.microsoft"}
B, S, HEADS, D = 2, 3, 4, 8
rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_heads_and_masks(causal: int, groups: int, softcap: float) -> None:
    q, k, v = floats(B, HEADS, S, D), floats(B, groups, 5, D), floats(B, groups, 5, 6)
    options: dict[str, Any] = {"opset": 23, "is_causal": causal, "softcap": softcap}
    agrees("Attention", [q, k, v], **options)
    agrees("Attention", [q, k, v, floats(S, 5)], **options)
    agrees("Attention", [q, k, v, rng.random((B, 1, S, 5)) < 0.8], **options)


def test_past_and_flat_operands() -> None:
    q, k, v = floats(B, S, HEADS * D), floats(B, S, 2 * D), floats(B, S, 2 * D)
    past = floats(B, 2, 4, D), floats(B, 2, 4, D)
    options: dict[str, Any] = {"opset": 23, "q_num_heads": HEADS, "kv_num_heads": 2, "is_causal": 1, "scale": 0.3}
    agrees("Attention", [q, k, v, None, *past], 3, **options)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    mask = np.array([[True, True], [False, False]])
    q, k, v = floats(1, 1, 2, D), floats(1, 1, 2, D), floats(1, 1, 2, D)
    for given in (mask, np.where(mask, 0, -np.inf).astype(np.float32)):
        (y,) = run("Attention", [q, k, v, given], opset=23)
        assert not y[0, 0, 1].any()
        assert np.isfinite(y).all()


def test_lengths_of_an_outside_cache() -> None:
    q, k, v = floats(2, 1, 2, D), floats(2, 1, 6, D), floats(2, 1, 6, D)
    lengths = np.array([4, 6])
    (y,) = run("Attention", [q, k, v, None, None, None, lengths], opset=24, is_causal=1)
    for row, length in enumerate(lengths):
        alone = [x[row : row + 1] for x in (q, k[:, :, :length], v[:, :, :length])]
        mask = np.tril(np.ones((2, length), np.bool_), length - 2)
        (want,) = run("Attention", [*alone, mask], opset=24)
        np.testing.assert_allclose(y[row : row + 1], want, rtol=1e-5, atol=1e-6)


def test_short_masks_hide_what_is_behind_them() -> None:
    q, k, v = floats(1, 1, 2, D), floats(1, 1, 5, D), floats(1, 1, 5, D)
    mask = floats(2, 3)
    (y,) = run("Attention", [q, k, v, mask], opset=24)
    (want,) = run("Attention", [q, k[:, :, :3], v[:, :, :3], mask], opset=24)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_scores(mode: int) -> None:
    q, k, v = floats(1, 2, S, D), floats(1, 2, 5, D), floats(1, 2, 5, D)
    outs = run("Attention", [q, k, v, floats(S, 5)], 4, opset=23, softcap=1.5, qk_matmul_output_mode=mode)
    if mode == 3:
        np.testing.assert_allclose(outs[3].sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(outs[3] @ v, outs[0], rtol=1e-5, atol=1e-6)
    elif mode == 0:
        np.testing.assert_allclose(outs[3], q @ np.swapaxes(k, 2, 3) / np.sqrt(D), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(interleaved: int) -> None:
    x, positions = floats(B, S, HEADS * D), np.array([[0, 1, 2], [3, 4, 5]])
    cache = floats(10, D // 2), floats(10, D // 2)
    agrees("RotaryEmbedding", [x, positions, *cache], interleaved=interleaved, **MS)
    agrees("RotaryEmbedding", [x, np.array([4]), *cache], interleaved=interleaved, **MS)
    agrees("RotaryEmbedding", [x, *cache, positions], interleaved=interleaved, num_heads=HEADS, opset=23)
    partial = [x, *(c[:, :2] for c in cache), positions]
    agrees("RotaryEmbedding", partial, interleaved=interleaved, num_heads=HEADS, rotary_embedding_dim=4, opset=23)


def grouped(steps: int, capacity: int, totals: list[int], bias: np.ndarray | None = None, **options: Any) -> None:
    """GroupQueryAttention with a cache; the present cache is compared as far as the shortest sequence goes."""
    groups, size, packed = 2, 16, options.pop("packed", False)
    q, k, v = (floats(len(totals), steps, n * size) for n in (HEADS, groups, groups))
    operands: list[np.ndarray | None] = [np.concatenate([q, k, v], axis=2), None, None] if packed else [q, k, v]
    operands += [floats(len(totals), groups, capacity, size) for _ in range(2)]
    operands += [np.array(totals, np.int32) - 1, np.array(max(totals), np.int32)]
    operands += [floats(64, size // 2), floats(64, size // 2)] if options.get("do_rotary") else [None, None]
    operands += [None, bias]
    heads = {"num_heads": HEADS, "kv_num_heads": groups}

    def valid(output: np.ndarray) -> np.ndarray:
        return output[:, :, : min(totals)] if output.ndim == 4 else output

    agrees("GroupQueryAttention", operands, 3, constants=(6,), view=valid, **heads, **MS, **options)


def test_group_query_attention() -> None:
    grouped(1, 5, [6], do_rotary=1)  # a cache that grows
    grouped(1, 16, [6], do_rotary=1)  # one that has room
    grouped(1, 16, [6, 9], do_rotary=1, rotary_interleaved=1)
    grouped(4, 0, [4], do_rotary=1)  # a prompt
    grouped(3, 16, [8], do_rotary=1, softcap=5.0, scale=0.3, packed=True)
    grouped(3, 16, [8], smooth_softmax=1)
    grouped(3, 16, [8], bias=floats(1, HEADS, 3, 8))


@pytest.mark.parametrize("window", [1, 2, 3, 20])
def test_group_query_attention_window(window: int) -> None:
    grouped(3, 16, [8], local_window_size=window)
    grouped(6, 0, [6], local_window_size=window)


def test_multi_head_attention() -> None:
    q, k, v, hidden = floats(B, S, 8), floats(B, 5, 8), floats(B, 5, 8), 8
    options: dict[str, Any] = {"num_heads": 2, **MS}
    agrees("MultiHeadAttention", [q, k, v, floats(3 * hidden)], scale=0.3, **options)
    agrees("MultiHeadAttention", [q, k, v, None, np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)], **options)
    agrees("MultiHeadAttention", [q, k, v, None, np.array([3, 5], np.int32)], **options)
    past = floats(B, 2, 4, 4), floats(B, 2, 4, 4)
    agrees("MultiHeadAttention", [q, q, q, None, None, None, *past], 3, unidirectional=1, **options)


@pytest.mark.parametrize("mask", [None, [[1, 1, 0], [1, 1, 1]], [2, 3]])
def test_contributed_attention(mask: list[Any] | None) -> None:
    given = None if mask is None else np.array(mask, np.int32)
    for unidirectional in (0, 1):
        operands = [floats(B, S, 6), floats(6, 24), floats(24), given]
        agrees("Attention", operands, num_heads=2, unidirectional=unidirectional, **MS)
    agrees("Attention", [floats(B, S, 6), floats(6, 24), floats(24), None, floats(2, B, 2, 4, 4)], 2, num_heads=2, **MS)
