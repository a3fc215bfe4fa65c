"""MultiHeadAttention and Attention of com.microsoft."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused, run_onnxruntime

rng = np.random.default_rng(0)
HEADS, H, HV = 2, 4, 6
D = HEADS * H


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def numbers(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def weights(*shape: int) -> np.ndarray:
    """Floats that are the same for the same shape: a constant of several forms."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def some(*shape: int) -> np.ndarray:
    """A mask of ones and zeros; each row of it has a one."""
    mask = rng.integers(0, 2, shape)
    mask[..., 0] = 1
    return numbers(mask)


def multi_head(
    batch: int = 2, length: int = 3, keys: int = 5, *, width: int = D, bias: bool = False, mask: Any = None,
    added: tuple[int, ...] = (), past: int | None = None, outputs: tuple[str, ...] = ("y",), **attributes: Any,
) -> Form:  # fmt: skip
    """Separate queries, keys and values; with `past`, behind so many entries of a cache."""
    operands: dict[str, Any] = {
        "query": floats(batch, length, D), "key": floats(batch, keys, D), "value": floats(batch, keys, width),
        "bias": floats(2 * D + width) if bias else None, "mask": mask, "added": floats(*added) if added else None,
        "past_key": None, "past_value": None, "filled": None,
    }  # fmt: skip
    if past is not None:
        operands |= {
            "past_key": floats(batch, HEADS, past, H),
            "past_value": floats(batch, HEADS, past, width // HEADS),
        }
    options: dict[str, Any] = {
        "declared": {"scores": np.float32},
        "formulas": {"mask0": mask_size(batch, mask, "query")},
    }
    return Form("MultiHeadAttention", operands, {"num_heads": HEADS, **attributes}, outputs, **options)


def mask_size(batch: int, mask: Any, operand: str) -> str:
    """The first size of a mask as a formula of the batch."""
    count = 0 if mask is None else mask.shape[0]
    return {2 * batch: f"2*${operand}0", 3 * batch + 2: f"3*${operand}0+2"}.get(count, f"${operand}0")


CACHED = ("y", "key_out", "value_out")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.7])
@pytest.mark.parametrize("width", [D, HEADS * HV])
def test_separate_operands(bias: bool, scale: float, width: int) -> None:
    options: dict[str, Any] = {"bias": bias, "scale": scale, "width": width}
    check(multi_head(2, 3, 5, **options), multi_head(3, 2, 4, **options))


MASKS: dict[str, Any] = {
    "lengths": lambda b, s, t: numbers([t - 1, t][:b]),
    "cumulated": lambda b, s, t: numbers([*[t - 1, t][:b], *np.arange(b + 1) * s, *np.arange(b + 1) * t]),
    "keys": lambda b, s, t: some(b, t),
    "scores": lambda b, s, t: some(b, s, t),
}
"""What stands in `key_padding_mask`, by the shape of the scores."""


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("filtered", [-10000.0, -3.0])
@pytest.mark.parametrize("added", [False, True])
def test_key_padding(mask: str, filtered: float, added: bool) -> None:
    def at(b: int, s: int, t: int) -> Form:
        bias = (1, HEADS, s, t) if added else ()
        return multi_head(b, s, t, mask=MASKS[mask](b, s, t), added=bias, mask_filter_value=filtered)

    check(at(2, 3, 5), at(1, 4, 6))


@pytest.mark.parametrize("mask", ["lengths", "keys", "scores"])
def test_key_padding_with_a_past(mask: str) -> None:
    def at(b: int, s: int, past: int) -> Form:
        given = MASKS[mask](b, s, past + s)
        return multi_head(b, s, s, mask=given, past=past, outputs=CACHED, unidirectional=1)

    check(at(2, 3, 4), at(1, 2, 7))


def test_only_what_is_above_zero_is_seen() -> None:
    check(multi_head(2, 3, 5, mask=numbers([[0, 1, 2, -1, 0], [1, 0, 1, 1, 7]])))


def test_a_sequence_of_padding_alone() -> None:
    # Scores of about 1 are added to -10000 in f32, whose steps are there 1e-3: that is what weights differ by.
    check(replace(multi_head(2, 3, 5, mask=numbers([[0] * 5, [1] * 5])), tolerance=1e-3))


@pytest.mark.parametrize("shape", [(2, HEADS, 3, 5), (1, HEADS, 3, 5), (2, 1, 3, 5), (1, 1, 3, 5)])
def test_attention_bias(shape: tuple[int, ...]) -> None:
    check(multi_head(2, 3, 5, added=shape))


@pytest.mark.parametrize("past", [None, 0, 4])
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_past_and_present(past: int | None, unidirectional: int, bias: bool) -> None:
    outputs = (*CACHED, "scores")
    options: dict[str, Any] = {"bias": bias, "unidirectional": unidirectional, "outputs": outputs}
    later = None if past is None else past + 1
    check(multi_head(2, 3, 3, past=past, **options), multi_head(1, 1, 1, past=later, **options))


@pytest.mark.parametrize("bias", [True, False])
def test_keys_and_values_of_another_sequence(bias: bool) -> None:
    def at(b: int, s: int, t: int) -> Form:
        form = multi_head(b, s, t, bias=bias, outputs=CACHED)
        return replace(form, operands={**form.operands, "key": floats(b, HEADS, t, H), "value": floats(b, HEADS, t, H)})

    check(at(2, 3, 5), at(1, 2, 4))


@pytest.mark.parametrize("length", [1, 3])
def test_a_cache_with_room(length: int) -> None:
    def at(b: int, room: int, filled: int) -> Form:
        form = multi_head(b, length, length, past=room, outputs=CACHED)
        return replace(form, operands={**form.operands, "filled": numbers([filled])})

    check(at(2, 8, 3), at(1, 10, 0))


def searched(sequences: int, beams: int, room: int, filled: int) -> Form:
    """One token of each beam, whose past entries stand in the beams that the search came from."""
    form = multi_head(sequences * beams, 1, 1, past=room, outputs=CACHED)
    origins = rng.integers(0, beams, (sequences, beams, room))
    return replace(form, operands={**form.operands, "filled": numbers([filled]), "origins": numbers(origins)})


def test_the_cache_of_a_beam_search(tmp_path: Path) -> None:
    forms = [searched(2, 2, 8, 5), searched(1, 3, 9, 2)]
    forms = [replace(form, formulas={"query0": "$origins0*$origins1"}) for form in forms]
    check(*forms)
    check_c(tmp_path, forms)


def packed(form: Form) -> Form:
    """The form with queries, keys and values in one tensor, or keys and values where there are more of them."""
    parts = [form.operands[name] for name in ("query", "key", "value")]
    same = parts[0].shape == parts[1].shape
    heads = np.stack([x.reshape(*x.shape[:2], HEADS, H) for x in (parts if same else parts[1:])], axis=3)
    given = {"query": heads, "key": None} if same else {"key": heads}
    return replace(form, operands={**form.operands, **given, "value": None}, want=run_onnxruntime(form))


@pytest.mark.parametrize("keys", [3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_operands(keys: int, bias: bool) -> None:
    """ONNX Runtime has these on other processors than the CPU: they mean what separate operands do."""
    first = multi_head(2, 3, keys, bias=bias, mask=numbers([2, keys]))
    second = multi_head(1, 4, keys + 1, bias=bias, mask=numbers([3]))
    check(packed(first))
    check(packed(second))


def attention(
    batch: int = 2, length: int = 3, *, bias: bool = True, mask: Any = None, past: int | None = None,
    added: tuple[int, ...] = (), sizes: tuple[int, ...] = (), outputs: tuple[str, ...] = ("y",), **attributes: Any,
) -> Form:  # fmt: skip
    width = sum(sizes or (D,) * 3)
    operands: dict[str, Any] = {
        "x": floats(batch, length, 6), "weights": weights(6, width), "bias": weights(width) if bias else None,
        "mask": mask, "past": None if past is None else floats(2, batch, HEADS, past, H),
        "added": floats(*added) if added else None, "filled": None,
    }  # fmt: skip
    given = {"num_heads": HEADS, **({"qkv_hidden_sizes": sizes} if sizes else {}), **attributes}
    constants = ("weights", "bias") if bias else ("weights",)
    return Form("Attention", operands, given, outputs, constants, formulas={"mask0": mask_size(batch, mask, "x")})


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(), (D, D, 12), (12, 12, D)])
def test_projections(unidirectional: int, bias: bool, sizes: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"bias": bias, "sizes": sizes, "unidirectional": unidirectional, "scale": 0.4}
    check(attention(2, 3, **options), attention(1, 5, **options))


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("past", [None, 4])
@pytest.mark.parametrize("mask", [*MASKS, "range", None])
def test_mask_index(unidirectional: int, past: int | None, mask: str | None) -> None:
    def at(b: int, s: int, before: int | None) -> Form:
        t = s + (before or 0)
        made = {**MASKS, "range": lambda b, s, t: numbers([*[t - 1, t][:b], *[1, 0][:b]])}
        given = None if mask is None else made[mask](b, s, t)
        outputs = ("y",) if before is None else ("y", "present")
        options: dict[str, Any] = {"unidirectional": unidirectional, "mask_filter_value": -50.0}
        return attention(b, s, mask=given, past=before, outputs=outputs, **options)

    check(at(2, 3, past), at(1, 4, past and past + 2))


@pytest.mark.parametrize("shape", [(2, HEADS, 3, 3), (1, 1, 3, 3)])
def test_attention_bias_of_projections(shape: tuple[int, ...]) -> None:
    check(attention(2, 3, added=shape, mask=some(2, 3)))


def test_a_mask_of_the_greatest_sequence() -> None:
    """ONNX Runtime has this on other processors: the rows of the queries, and as many columns as there are keys."""
    mask = some(2, 1, 9, 9)
    for past in (0, 4):
        form = attention(2, 3, past=past, outputs=("y", "present"), mask=mask[:, 0, past : past + 3, : past + 3])
        whole = replace(form, operands={**form.operands, "mask": mask}, want=run_onnxruntime(form))
        check(whole)


def test_one_cache_for_past_and_present() -> None:
    """ONNX Runtime has this on other processors: what a growing cache gives, in a buffer with room behind."""
    form = attention(2, 2, past=3, outputs=("y", "present"), unidirectional=1)
    want = run_onnxruntime(form)
    room = floats(2, 2, HEADS, 4, H)
    buffer = np.concatenate([form.operands["past"], room], axis=3)
    want["present"] = np.concatenate([want["present"], room[:, :, :, 2:]], axis=3)
    operands = {**form.operands, "past": buffer, "filled": numbers([3])}
    check(replace(form, operands=operands, want=want, attributes={**form.attributes, "past_present_share_buffer": 1}))


def test_what_is_refused() -> None:
    check_refused(multi_head(unidirectional=1), "as many keys as queries")
    check_refused(multi_head(mask=some(2, 3)), "an entry for each of 5 keys")
    check_refused(multi_head(mask=numbers([1, 2, 3])), "its size must be batch, 2 batch or 3 batch")
    check_refused(multi_head(3, 1, 1, past=4), "given together", past_value=None)
    check_refused(multi_head(), "there is none", filled=numbers([1]))
    check_refused(multi_head(), "a packed tensor", key=floats(2, 5, HEADS, 3, H), value=None)
    check_refused(multi_head(), "must be given", value=None)
    check_refused(multi_head(past=8), "one token at a time", filled=numbers([1]), origins=numbers(np.zeros((2, 1, 8))))
    check_refused(attention(do_rotary=1), "no input for the angles")
    check_refused(attention(past_present_share_buffer=1), "needs `past`")
    check_refused(attention(sizes=(D, D, 12), num_heads=3), "do not make queries")
    check_refused(attention(sizes=(D, D, 12), outputs=("y", "present")), "do not fit one `present`")


def test_in_c(tmp_path: Path) -> None:
    options: dict[str, Any] = {"outputs": CACHED, "unidirectional": 1}
    room = [multi_head(b, 1, 1, past=size, outputs=CACHED) for b, size in ((2, 8), (1, 10))]
    check_c(
        tmp_path,
        [multi_head(2, 3, 5, mask=some(2, 5), bias=True), multi_head(1, 2, 7, mask=some(1, 7), bias=True)],
        [multi_head(2, 3, 3, past=4, **options), multi_head(1, 1, 1, past=0, **options)],
        [replace(form, operands={**form.operands, "filled": numbers([3])}) for form in room],
        [attention(2, 3, mask=numbers([2, 3, 1, 0])), attention(1, 4, mask=numbers([4, 2]))],
        [packed(multi_head(2, 3, 5))],
    )
