"""PagedAttention, which ONNX Runtime has on GPUs only: held against its GroupQueryAttention, sequence by sequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx.contrib.differential import Form, check, check_c, check_refused, run_onnxruntime

rng = np.random.default_rng(0)
HEADS, GROUPS, H, SLOTS = 4, 2, 16, 4


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def numbers(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


ANGLES = [np.random.default_rng(i).standard_normal((64, H // 2)).astype(np.float32) for i in (1, 2)]


def alone(q: np.ndarray, k: np.ndarray, v: np.ndarray, past: list[np.ndarray], options: dict[str, Any]) -> Any:
    """What GroupQueryAttention gives for a sequence: the output [s, hidden], and present keys and values [t, g, d]."""
    length, before = len(q), len(past[0])
    turned = options.get("do_rotary", 0)
    operands: dict[str, Any] = {
        "q": q[None], "k": k[None], "v": v[None],
        **{f"past{i}": p.transpose(1, 0, 2)[None] for i, p in enumerate(past)},
        "last": numbers([before + length - 1]), "total": numbers(before + length),
        "cos": ANGLES[0] if turned else None, "sin": ANGLES[1] if turned else None, "at": None, "bias": None,
        "sink": options.get("sink"),
    }  # fmt: skip
    given = {"causal" if name == "is_causal" else name: value for name, value in options.items() if name != "sink"}
    form = Form("GroupQueryAttention", operands,
                {"num_heads": HEADS, "kv_num_heads": GROUPS, **given}, ("y", "keys", "values"))  # fmt: skip
    results = run_onnxruntime(form)
    return results["y"][0], results["keys"][0].transpose(1, 0, 2), results["values"][0].transpose(1, 0, 2)


def paged(
    lengths: list[int], past: list[int], *, packed: bool = False, mapped: bool = False, dtype: Any = np.float32,
    sink: bool = False, **attributes: Any,
) -> Form:  # fmt: skip
    """Sequences with so many new tokens and so many before them, in pages that were lent in any order."""
    columns = 4
    pages = rng.permutation(columns * len(lengths) + 2)[: columns * len(lengths)].reshape(len(lengths), columns)
    needed = [-(-(n + p) // SLOTS) for n, p in zip(lengths, past)]
    table = np.where(np.arange(columns) < np.array(needed)[:, None], pages, -1)
    caches = [floats(columns * len(lengths) + 2, SLOTS, GROUPS, H) for _ in range(2)]
    parts = [floats(sum(lengths), count * H) for count in (HEADS, GROUPS, GROUPS)]
    parts, caches = ([x.astype(dtype).astype(np.float32) for x in xs] for xs in (parts, caches))
    options = {**attributes, **({"sink": floats(HEADS)} if sink else {})}
    after = [x.copy() for x in caches]
    rows, slots = [], []
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for b, (n, p) in enumerate(zip(lengths, past)):
        places = [(table[b, j // SLOTS], j % SLOTS) for j in range(p + n)]
        stored = [np.stack([x[place] for place in places[:p]]) if p else x[0, :0] for x in caches]
        if n:
            y, *present = alone(*(x[ends[b] : ends[b + 1]] for x in parts), stored, options)
            rows.append(y)
            for pool, new in zip(after, present):
                for place, row in zip(places[p:], new[p:]):
                    pool[place] = row
        slots += [page * SLOTS + slot for page, slot in places[p:]]
    operands: dict[str, Any] = {
        "query": np.concatenate(parts, axis=1) if packed else parts[0], "key": None if packed else parts[1],
        "value": None if packed else parts[2], "keys": caches[0], "values": caches[1], "ends": ends, "past": past,
        "table": table, "cos": ANGLES[0] if attributes.get("do_rotary") else None,
        "sin": ANGLES[1] if attributes.get("do_rotary") else None, "slots": slots if mapped else None,
        "sink": options.get("sink"),
    }  # fmt: skip
    for name in ("ends", "past", "table", "slots"):
        operands[name] = None if operands[name] is None else numbers(operands[name])
    want = {"y": np.concatenate(rows), "keys_out": after[0], "values_out": after[1]}
    given, want = (
        {n: a if a is None or a.dtype != np.float32 else a.astype(dtype) for n, a in x.items()}
        for x in (operands, want)
    )
    constants = tuple(name for name in ("cos", "sin") if given[name] is not None)
    heads = {"num_heads": HEADS, "kv_num_heads": GROUPS, **attributes}
    # In f16, one step of it on either side of the last rounding: here as there, sums are taken in f32.
    return Form(
        "PagedAttention", given, heads, tuple(want), constants, want, tolerance=2e-5 if dtype == np.float32 else 2e-3
    )


SIZES = [([3, 1, 2], [2, 9, 0]), ([1, 1], [7, 3])]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("rotary", [{}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1}])
def test_sequences(packed: bool, mapped: bool, rotary: dict[str, Any]) -> None:
    forms = [paged(*sizes, packed=packed, mapped=mapped, **rotary) for sizes in SIZES]
    check(*(replace(form, formulas={"ends0": "$past0+1"}) for form in forms))


@pytest.mark.parametrize(
    "options",
    [{"is_causal": 0}, {"local_window_size": 3}, {"softcap": 2.0}, {"scale": 0.4}, {"sink": True},
     {"sink": True, "local_window_size": 1, "softcap": 1.0}],
)  # fmt: skip
def test_attributes(options: dict[str, Any]) -> None:
    check(paged(*SIZES[0], **options))


def test_floats_of_16_bits() -> None:
    check(paged(*SIZES[0], dtype=np.float16, do_rotary=1))


def test_a_sequence_without_tokens() -> None:
    check(paged([2, 0, 1], [1, 3, 0]))


def test_a_token_that_is_not_kept() -> None:
    """Its slot is -1: the cache stays as it is, and what stands there already is seen."""
    form = paged([2, 1], [1, 3], mapped=True)
    given = {name: a for name, a in form.operands.items() if a is not None}
    slot = given["slots"][1]
    slots = numbers([given["slots"][0], -1, given["slots"][2]])
    want = dict(form.expected())
    for name in ("keys", "values"):
        pool = want[f"{name}_out"] = want[f"{name}_out"].copy()
        pool[slot // SLOTS, slot % SLOTS] = given[name][slot // SLOTS, slot % SLOTS]
    operands = {**form.operands, "slots": slots}
    outputs = ("y", "keys_out", "values_out")
    check(Form("PagedAttention", operands, form.attributes, outputs, want=want, views={"y": lambda y: y[[0, 2]]}))


def test_values_that_are_a_part_of_the_keys() -> None:
    queries, keys, pool = floats(3, HEADS * H), floats(3, H), floats(2, SLOTS, 1, H)
    operands: dict[str, Any] = {
        "query": queries, "key": keys, "value": None, "keys": pool, "values": None, "ends": numbers([0, 3]),
        "past": numbers([0]), "table": numbers([[1]]),
    }  # fmt: skip
    options = {"num_heads": HEADS, "kv_num_heads": 1, "kv_cache_layout": "LATENT", "v_head_size": 10, "scale": 0.3}
    after = pool.copy()
    after[1, :3, 0] = keys
    scores = np.einsum("ihd,jd->hij", queries.reshape(3, HEADS, H), keys) * 0.3
    weights = np.exp(scores) * np.tri(3)
    y = np.einsum("hij,je->ihe", weights / weights.sum(-1, keepdims=True), keys[:, :10]).reshape(3, HEADS * 10)
    want = {"y": y.astype(np.float32), "keys_out": after}
    check(Form("PagedAttention", operands, options, ("y", "keys_out"), want=want))


def test_a_part_of_each_head_is_turned() -> None:
    form = paged(*SIZES[0], do_rotary=1)
    check_refused(replace(form, attributes={**form.attributes, "rotary_offset": 8}), "cannot be turned")
    few = {name: a[:, :2] for name, a in zip(("cos", "sin"), ANGLES)}
    got = replace(form, operands={**form.operands, **few}, attributes={**form.attributes, "rotary_offset": 8})
    keys = form.operands["key"]
    assert keys is not None
    first = keys[0].reshape(GROUPS, H)
    cos, sin = (few[name][2] for name in ("cos", "sin"))
    turned = first.copy()
    turned[:, 8:10] = first[:, 8:10] * cos - first[:, 10:12] * sin
    turned[:, 10:12] = first[:, 8:10] * sin + first[:, 10:12] * cos
    table = form.operands["table"]
    assert table is not None
    view = {"keys_out": lambda x: x[table[0, 0], 2]}
    pool = form.expected()["keys_out"].copy()
    pool[table[0, 0], 2] = turned
    check(replace(got, outputs=("", "keys_out", "values_out"), want={**form.expected(), "keys_out": pool}, views=view))


def test_what_is_refused() -> None:
    form = paged(*SIZES[0])

    def refused(why: str, outputs: tuple[str, ...] = form.outputs, operands: Any = (), **attributes: Any) -> None:
        changed = replace(form, outputs=outputs, attributes={**form.attributes, **attributes})
        check_refused(changed, why, **dict(operands))

    refused("must be SEPARATE or LATENT", kv_cache_layout="RING")
    refused("quantised cache", k_quant_type="PER_TENSOR")
    refused("nowhere to write", outputs=("y",))
    refused("does not fit the layout", kv_cache_layout="LATENT")
    refused("both or none", operands={"value": None})
    refused("needs `cos_cache`", do_rotary=1)


def test_in_c(tmp_path: Path) -> None:
    forms = [replace(paged(*sizes, do_rotary=1), formulas={"ends0": "$past0+1"}) for sizes in SIZES]
    narrow = paged(*SIZES[0], dtype=np.float16, packed=True, local_window_size=3, softcap=2.0)
    check_c(tmp_path, forms, [narrow])
