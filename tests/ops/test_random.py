"""Random numbers: the generator's published results, the same numbers on every device, and streams of their own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from compiler.onnx_backend import prepare
from ir.ops.random import words_array


def _run(body: str, device: str = "REFERENCE", outputs: str = "float[6] a, float[6] b", feeds: tuple = ()) -> list:
    declared = "" if not feeds else "float[6] x"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({declared}) => ({outputs}) {{ {body} }}'
    )
    return list(prepare(model, device).run(list(feeds)))


def test_words_are_those_of_split_mix_64() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert words_array(np.arange(5, dtype=np.uint64), 1234567).tolist() == known  # the first five of seed 1234567


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniform"])
def test_c_draws_what_the_interpreter_draws(op: str) -> None:
    body = f"a = {op} <shape = [6], seed = 1.5> () b = {op} <shape = [6]> ()"
    for ours, theirs in zip(_run(body, "CPU"), _run(body), strict=True):
        # Uniform numbers are a product and a sum; normal ones have the logarithm and the cosine of two libraries.
        np.testing.assert_allclose(ours, theirs, rtol=0 if op == "RandomUniform" else 2e-6, atol=2e-7)


def test_a_seed_decides_alone() -> None:
    same = _run("a = RandomUniform <shape = [6], seed = 2.0> () b = RandomUniform <shape = [6], seed = 2.0> ()")
    assert np.array_equal(*same)
    other = _run("a = RandomUniform <shape = [6], seed = 2.0> () b = RandomUniform <shape = [6], seed = 2.5> ()")
    assert not np.intersect1d(*other).size


@pytest.mark.parametrize("names", [("", ""), ("[one] ", "[two] "), ("[one] ", "[one] ")])
def test_nodes_without_a_seed_have_streams_of_their_own(names: tuple[str, str]) -> None:
    first, second = names
    body = f"{first}a = RandomNormal <shape = [6]> () {second}b = RandomNormal <shape = [6]> ()"
    a, b = _run(body)
    assert not np.intersect1d(a, b).size
    assert all(np.array_equal(x, y) for x, y in zip((a, b), _run(body), strict=True))


def test_calls_of_one_function_draw_apart() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "own": 1]> g () => (float[6] a, float[6] b)
        { [call] a = own.draw () [call] b = own.draw () }
        <domain: "own", opset_import: ["": 17]> draw () => (y) { y = RandomUniform <shape = [6]> () }"""
    a, b = prepare(onnx.parser.parse_model(text), "REFERENCE").run([])
    assert not np.intersect1d(a, b).size


def test_doubles_are_drawn_with_53_bits() -> None:
    (x,) = _run("a = RandomUniform <shape = [6], dtype = 11> ()", outputs="double[6] a")
    assert x.dtype == np.float64 and (x * 2.0**24 % 1 != 0).all() and (x * 2.0**53 % 1 == 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_dropout_takes_its_mode_when_it_runs(training: bool) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[6, 50] x, float ratio, bool training) => (float[6, 50] y, bool[6, 50] mask) {
            y, mask = Dropout <seed = 3> (x, ratio, training)
        }"""
    x = np.linspace(1, 2, 300, dtype=np.float32).reshape(6, 50)
    feeds = [x, np.array(0.25, np.float32), np.array(training)]
    for device in ("REFERENCE", "CPU"):
        prepared = prepare(onnx.parser.parse_model(text), device)
        y, mask = prepared.run(feeds)
        assert prepared.specialised == ()
        assert mask.all() != training
        np.testing.assert_allclose(
            y, np.where(mask, x / np.float32(0.75 if training else 1), 0), rtol=1e-6
        )  # two roundings
        assert 0.1 < 1 - mask.mean() < 0.4 or not training  # 0.25; a deviation is 0.025


def test_all_is_dropped_and_nothing() -> None:
    body = "r = Constant <value = float {%s}> () t = Constant <value = bool {1}> () a, b = Dropout (x, r, t)"
    x = np.ones(6, np.float32)
    for ratio in (1, 0):
        y, mask = _run(body % f"{ratio}.0", outputs="float[6] a, bool[6] b", feeds=(x,))
        assert (y == 1 - ratio).all() and (mask == (ratio == 0)).all()


def test_multinomial_of_any_number_of_classes() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n, c] x) => (int32[n, 200] y)
        { y = Multinomial <sample_size = 200> (x) }"""
    prepared = prepare(onnx.parser.parse_model(text), "CPU")
    for classes in (1, 4):
        x = np.full((2, classes), -np.inf, np.float32)
        x[0, 0], x[1, -1] = 0, 3
        assert (prepared.run([x]).y == [[0], [classes - 1]]).all()
