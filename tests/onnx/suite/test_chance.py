"""The judge of random cases: it accepts every operator that draws, and finds what follows another distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

from compiler.onnx_backend import prepare
from tests.onnx.suite import chance

MODELS = {
    "uniform": ("float[3] x", "RandomUniform <shape = [3], low = -2.0, high = 5.0, seed = 3.0> ()"),
    "uniform_like": ("double[3] x", "RandomUniformLike (x)"),
    "normal": ("float[3] x", "RandomNormal <shape = [3, 2], mean = 1.0, scale = 0.5> ()"),
    "normal_like": ("float16[3] x", "RandomNormalLike <dtype = 1, seed = 2.0> (x)"),
    "multinomial": ("float[2, 5] x", "Multinomial <sample_size = 3> (x)"),
    "bernoulli": ("float[3] x", "Bernoulli <dtype = 7> (x)"),
}


def _model(declared: str, node: str) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({declared}) => (y) {{ y = {node} }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("device", ["REFERENCE", "CPU"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_follows_its_law(name: str, device: str) -> None:
    declared, node = MODELS[name]
    model = _model(declared, node.replace("<", "<").strip())
    rank = declared.count(",") + 1
    x = np.array([[0.1, 0.5, 0.0, 0.9, 0.3], [0.0, -30.0, 0.7, 0.7, 1.0]])[
        : 2 if rank == 2 else 1, : 5 if rank == 2 else 3
    ]
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[declared.partition("[")[0]]
    inputs = [(x if rank == 2 else x[0]).astype(dtype)]

    def run(given: onnx.ModelProto, arrays: Any) -> Any:
        return prepare(given, device, **({"opt": "-O1"} if device == "CPU" else {})).run(arrays)

    expected = onnx.reference.ReferenceEvaluator(model, new_ops=[chance.Multinomial]).run(None, {"x": inputs[0]})
    wrong, note = chance.judge(model, run, inputs, expected, run(model, inputs))
    assert not wrong
    assert "expected distribution" in note


def _drawn(seed: int, share: float = 0.3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    kept = rng.random((chance.REPEATS * 3, 2)) >= share
    return [np.where(kept, np.float32(10) / 3, 0), kept]


def test_one_law_in_two_samples() -> None:
    assert chance.compare(_drawn(1), _drawn(2))[0] == ""


def test_another_probability_is_found() -> None:
    assert "distribution of all elements" in chance.compare(_drawn(1, share=0.33), _drawn(2))[0]


def test_another_probability_of_one_element_is_found() -> None:
    ours = _drawn(1)
    other = _drawn(3, share=0.36)
    for mine, theirs in zip(ours, other):
        mine.reshape(chance.REPEATS, -1)[:, 4] = theirs.reshape(chance.REPEATS, -1)[:, 4]
    assert "distribution of element 4" in chance.compare(ours, _drawn(2))[0]


def test_a_mask_of_other_draws_is_found() -> None:
    ours = [_drawn(1)[0], _drawn(3)[1]]
    assert "distribution" in chance.compare(ours, _drawn(2))[0]


def test_a_scale_that_is_off_is_found() -> None:
    ours = _drawn(1)
    assert "distribution" in chance.compare([ours[0] * np.float32(1.001), ours[1]], _drawn(2))[0]


def test_neighbours_that_depend_on_each_other_are_found() -> None:
    ours = [np.repeat(x[: chance.REPEATS // 2], 6, axis=0) for x in _drawn(1)]
    assert "correlated" in chance.compare(ours, _drawn(2))[0]


def test_draws_that_ignore_the_seed_are_found() -> None:
    model = _model(*MODELS["bernoulli"])
    x = np.array([0.1, 0.5, 0.9], np.float32)

    def run(_: onnx.ModelProto, arrays: Any) -> Any:
        rng = np.random.default_rng(5)
        return [(rng.random(arrays[0].shape) < arrays[0]).astype(np.int64)]

    expected = run(model, [x])
    assert "another seed" in chance.judge(model, run, [x], expected, expected)[0]


def test_draws_that_differ_each_time_are_found() -> None:
    model = _model(*MODELS["normal_like"])
    x, rng = np.zeros(3, np.float16), np.random.default_rng(5)
    run = lambda _, arrays: [rng.standard_normal(arrays[0].shape).astype(np.float32)]  # noqa: E731
    expected = run(model, [x])
    assert "prepared again" in chance.judge(model, run, [x], expected, run(model, [x]))[0]


def test_another_type_is_found() -> None:
    model = _model(*MODELS["bernoulli"])
    x = np.zeros(3, np.float32)
    assert "expected int64" in chance.judge(model, lambda *_: [x], [x], [x.astype(np.int64)], [x])[0]
