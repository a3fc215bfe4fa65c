"""The optimizers of ai.onnx.preview.training, against onnx's reference and against their formulas in doubles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from compiler.errors import UnsupportedError
from compiler.onnx_backend import run_model
from tests.ops.single_node import node_model

DOMAIN = "ai.onnx.preview.training"
OPTIMIZERS: list[tuple[str, int, dict[str, Any]]] = [
    ("Adagrad", 3, {"norm_coefficient": 0.01, "decay_factor": 0.1, "epsilon": 1e-3}),
    ("Adam", 4, {"norm_coefficient": 0.01, "norm_coefficient_post": 0.02, "alpha": 0.8, "beta": 0.95}),
    ("Momentum", 3, {"norm_coefficient": 0.01, "alpha": 0.9, "beta": 0.7, "mode": "standard"}),
    ("Momentum", 3, {"norm_coefficient": 0.0, "alpha": 0.9, "beta": 0.7, "mode": "nesterov"}),
]


def operands(roles: int, tensors: int, step: int, dtype: type) -> list[np.ndarray]:
    rng = np.random.default_rng(step + tensors)
    shapes = [(2, 3), (), (0, 2)][:tensors]
    arrays = [np.abs(rng.standard_normal(shape)).astype(dtype) for _ in range(roles) for shape in shapes]
    return [np.array(0.1, np.float32), np.array(step, np.int64), *(np.asarray(a) for a in arrays)]


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("tensors", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "roles", "attributes"), OPTIMIZERS, ids=lambda v: str(v)[:8])
def test_optimizers(name: str, roles: int, attributes: dict[str, Any], dtype: type, tensors: int, step: int) -> None:
    given = operands(roles, tensors, step, dtype)
    model = node_model(name, given, outputs=tensors * (roles - 1), domain=DOMAIN, opset=17, **attributes)
    feeds = {f"x{i}": a for i, a in enumerate(given)}
    expected = ReferenceEvaluator(model).run(None, feeds)
    results = run_model(model, given, "REFERENCE")
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == dtype
        # The reference takes some factors in the type of R, float32, where ours are in double precision.
        np.testing.assert_allclose(got, np.asarray(want), rtol=2e-5, atol=1e-7)


def test_operands_that_do_not_fit_are_refused() -> None:
    given = operands(3, 1, 0, np.float32)
    odd = node_model("Adagrad", given[:-1], outputs=2, domain=DOMAIN, opset=17)
    with pytest.raises(UnsupportedError, match="after R and T it has 2 inputs; it takes X, G, H of each tensor"):
        run_model(odd, given[:-1], "REFERENCE")
    given[-1] = np.zeros((3, 3), np.float32)
    wide = node_model("Momentum", given, outputs=2, domain=DOMAIN, opset=17, **OPTIMIZERS[2][2])
    with pytest.raises(UnsupportedError, match=r"V number 0 is f32\[3,3\], X is f32\[2,3\]"):
        run_model(wide, given, "REFERENCE")
