"""Recurrent layers against ONNX Runtime: directions, lengths, states, clipping and every activation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from compiler.errors import UnsupportedError
from ir.build import Builder
from ir.evaluate import evaluate_graph
from ir.graph import Graph
from ir.op import parse_type
from tests.ops.single_node import agrees, run

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - time steps, sequences, inputs, units
LENGTHS = (None, np.array([5, 2, 3], np.int32), np.array([2, 0, 3], np.int32))
DIRECTIONS = ("forward", "reverse", "bidirectional")
rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def weights(direction: str, gates: int, bias: bool = True) -> list[np.ndarray | None]:
    d = 2 if direction == "bidirectional" else 1
    return [floats(d, gates * H, I), floats(d, gates * H, H), floats(d, 2 * gates * H) if bias else None]


def state(direction: str) -> np.ndarray:
    return floats(2 if direction == "bidirectional" else 1, N, H)


@pytest.mark.parametrize(("direction", "lengths", "clip"), list(itertools.product(DIRECTIONS, range(3), (0.0, 0.3))))
def test_lstm(direction: str, lengths: int, clip: float) -> None:
    extra: dict[str, Any] = {"clip": clip} if clip else {}
    peepholes = floats(2 if direction == "bidirectional" else 1, 3 * H)
    operands = [
        floats(T, N, I),
        *weights(direction, 4),
        LENGTHS[lengths],
        state(direction),
        state(direction),
        peepholes,
    ]
    agrees("LSTM", operands, 3, direction=direction, hidden_size=H, **extra)
    agrees("LSTM", operands[:5], 3, direction=direction, hidden_size=H, **extra)


@pytest.mark.parametrize(("direction", "lengths", "before"), list(itertools.product(DIRECTIONS, range(3), (0, 1))))
def test_gru(direction: str, lengths: int, before: int) -> None:
    operands = [floats(T, N, I), *weights(direction, 3), LENGTHS[lengths], state(direction)]
    agrees("GRU", operands, 2, direction=direction, hidden_size=H, linear_before_reset=before)


@pytest.mark.parametrize(("direction", "lengths"), list(itertools.product(DIRECTIONS, range(3))))
def test_rnn(direction: str, lengths: int) -> None:
    names = ["Tanh", "Relu"] if direction == "bidirectional" else ["Tanh"]
    operands = [floats(T, N, I), *weights(direction, 1), LENGTHS[lengths], state(direction)]
    agrees("RNN", operands, 2, direction=direction, hidden_size=H, activations=names)


@pytest.mark.parametrize(
    "name",
    ["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus", "Relu"],
)
def test_activations_take_alpha_and_beta(name: str) -> None:
    operands = [floats(T, N, I), *weights("forward", 1)]
    agrees("RNN", operands, 2, hidden_size=H, activations=[name], activation_alpha=[0.7], activation_beta=[0.3])


@pytest.mark.parametrize("name", ["LeakyRelu", "HardSigmoid", "Elu"])
def test_activations_have_defaults(name: str) -> None:
    agrees("RNN", [floats(T, N, I), *weights("forward", 1)], 2, hidden_size=H, activations=[name])


def test_numbers_go_to_the_activations_that_take_one() -> None:
    x, w = floats(T, N, I), weights("forward", 3)
    names = ["Tanh", "HardSigmoid"]
    agrees("GRU", [x, *w], 2, hidden_size=H, activations=names, activation_alpha=[0.3], activation_beta=[0.4])


def test_input_forget() -> None:
    agrees("LSTM", [floats(T, N, I), *weights("forward", 4)], 3, hidden_size=H, input_forget=1)


def test_layout_exchanges_time_and_batch() -> None:
    x, given, first = floats(T, N, I), weights("bidirectional", 4), state("bidirectional")
    y, h, c = run("LSTM", [x, *given, None, first, first], 3, direction="bidirectional", hidden_size=H)
    swapped = first.transpose(1, 0, 2)
    operands = [x.transpose(1, 0, 2), *given, None, swapped, swapped]
    y1, h1, c1 = run("LSTM", operands, 3, direction="bidirectional", hidden_size=H, layout=1)
    np.testing.assert_array_equal(y1, y.transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(h1, h.transpose(1, 0, 2))
    np.testing.assert_array_equal(c1, c.transpose(1, 0, 2))


def test_wrong_number_of_activations_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="needs 2"):
        run("RNN", [floats(T, N, I), *weights("bidirectional", 1)], 2, direction="bidirectional", activations=["Tanh"])


@pytest.mark.parametrize("per_gate", [False, True])
def test_integer_weights(per_gate: bool) -> None:
    d, shape = 2, (2, 4 * H) if per_gate else (2,)
    w, r = (rng.integers(-128, 128, (d, n, 4 * H), dtype=np.int8) for n in (I, H))
    scales = [np.full(shape, 0.01, np.float32), np.zeros(shape, np.int8)]
    operands = [floats(T, N, I), w, r, floats(d, 8 * H), None, None, None, None, *scales, *scales]
    options = {"domain": "com.microsoft", "constants": (1, 2, 3, 8, 9, 10, 11), "direction": "bidirectional"}
    # One rounded state more or less moves what comes after it.
    agrees("DynamicQuantizeLSTM", operands, 3, hidden_size=H, tolerance=2e-2, **options)


@pytest.mark.parametrize(
    ("position", "wrong", "name"),
    [(4, np.array([1, 2], np.int32), "lengths"), (5, floats(1, N + 1, H), "initial_h"),
     (6, floats(2, N, H), "initial_c"), (7, floats(1, 2 * H), "p")],
)  # fmt: skip
def test_operands_that_do_not_fit_the_sequences_are_refused(position: int, wrong: np.ndarray, name: str) -> None:
    operands = [floats(T, N, I), *weights("forward", 4), None, state("forward"), state("forward"), floats(1, 3 * H)]
    operands[position] = wrong
    with pytest.raises(UnsupportedError, match=f"lstm: {name} is .*, not of shape"):
        run("LSTM", operands, 3, hidden_size=H)


@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
def test_a_first_state_of_another_batch_is_refused_when_called(op: str) -> None:
    """It was read beyond its end."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[op]
    b = Builder(Graph())
    shapes = ["f32[T,N,4]", f"f32[1,{gates * H},4]", f"f32[1,{gates * H},{H}]", f"f32[1,M,{H}]"]
    x, w, r, h = (b.graph.add_input(f"x{i}", parse_type(text)) for i, text in enumerate(shapes))
    activations = ("sigmoid", "tanh", "tanh") if op == "lstm" else ("sigmoid", "tanh") if op == "gru" else ("tanh",)
    outs = getattr(b, op)(x, w, r, None, None, h, activations=activations)
    b.graph.set_outputs(outs)
    assert [(str(a), str(c)) for a, c in b.graph.equal_dims] == [("M", "N")]
    with pytest.raises(ValueError, match="M is 1 and N is 2"):
        evaluate_graph(b.graph, [floats(2, 2, 4), floats(1, gates * H, 4), floats(1, gates * H, H), floats(1, 1, H)])
