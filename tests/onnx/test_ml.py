"""Operators of ai.onnx.ml against ONNX Runtime: random models, every kernel, transform, label type and element type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import UnsupportedError
from tests.ops.single_node import agrees, run

pytest.importorskip("onnxruntime")

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
NUMBERS = (np.float32, np.float64, np.int64, np.int32)


def rows(rng: np.random.Generator, features: int, dtype: type = np.float32) -> np.ndarray:
    x = rng.standard_normal((5, features))
    return (x if np.dtype(dtype).kind == "f" else 3 * x).astype(dtype)


def labels(count: int, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"classlabels_strings": [f"class {i}" for i in range(count)]}
    return {"classlabels_ints": [10 * i + 3 for i in range(count)]}


def svm(rng: np.random.Generator, kernel: str, classes: int, features: int = 3) -> dict[str, Any]:
    sizes = [int(n) for n in rng.integers(1, 4, classes)]
    total, pairs = sum(sizes), classes * (classes - 1) // 2
    return {
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0], "vectors_per_class": sizes,
        "support_vectors": rng.standard_normal(total * features).tolist(),
        "coefficients": rng.standard_normal((classes - 1) * total).tolist(), "rho": rng.standard_normal(pairs).tolist(),
    }  # fmt: skip


def probabilities(rng: np.random.Generator, classes: int) -> dict[str, Any]:
    pairs = classes * (classes - 1) // 2
    return {"prob_a": (-np.abs(rng.standard_normal(pairs))).tolist(), "prob_b": rng.standard_normal(pairs).tolist()}


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_svm_classifier(kernel: str, classes: int) -> None:
    rng = np.random.default_rng(classes)
    for is_text, with_probabilities, dtype in ((False, False, np.float32), (True, True, np.float64)):
        model = svm(rng, kernel, classes) | labels(classes, is_text)
        model |= probabilities(rng, classes) if with_probabilities else {}
        agrees("SVMClassifier", [rows(rng, 3, dtype)], 2, domain=ML, **model)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("with_probabilities", [False, True])
def test_transforms_of_svm_classifiers(transform: str, classes: int, with_probabilities: bool) -> None:
    rng = np.random.default_rng(classes)
    model = svm(rng, "RBF", classes) | labels(classes, False) | {"post_transform": transform}
    model |= probabilities(rng, classes) if with_probabilities else {}
    if transform == "PROBIT" and classes == 2 and not with_probabilities:
        with pytest.raises(UnsupportedError, match="PROBIT of two classes with one score has no meaning"):
            run("SVMClassifier", [rows(rng, 3)], 2, domain=ML, **model)
        return
    agrees("SVMClassifier", [rows(rng, 3)], 2, domain=ML, **model)


def linear_svm(rng: np.random.Generator, classes: int) -> dict[str, Any]:
    """Without support vectors: one score for each class. ONNX Runtime wants the kernel and its parameters said."""
    coefficients = rng.standard_normal(classes * 3).tolist()
    kernel = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}
    return {"coefficients": coefficients, "rho": [0.25], **kernel, **labels(classes, False)}


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_svm_classifier(classes: int, transform: str) -> None:
    rng = np.random.default_rng(classes)
    model = linear_svm(rng, classes) | {"post_transform": transform}
    agrees("SVMClassifier", [rows(rng, 3)], 2, domain=ML, **model)


@pytest.mark.parametrize("classes", [1, 2])
def test_linear_svm_of_two_classes_takes_the_greater_score(classes: int) -> None:
    """ONNX Runtime always says the second of two classes where one score is above 0; ONNX does not."""
    rng = np.random.default_rng(classes)
    model, x = linear_svm(rng, classes), rows(rng, 3)
    label, scores = run("SVMClassifier", [x], 2, domain=ML, **model)
    expected = x @ np.array(model["coefficients"], np.float32).reshape(classes, 3).T + np.float32(0.25)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)  # sums of three in another order
    assert label.tolist() == [model["classlabels_ints"][i] for i in expected.argmax(1)]


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("supports", [0, 4])
def test_svm_regressor(kernel: str, one_class: int, supports: int) -> None:
    if kernel != "LINEAR" and not supports:
        pytest.skip("without support vectors there is no kernel")
    rng = np.random.default_rng(supports)
    model: dict[str, Any] = {
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0], "n_supports": supports, "one_class": one_class,
        "coefficients": rng.standard_normal(supports or 3).tolist(), "rho": [-0.3],
    }  # fmt: skip
    if supports:
        model["support_vectors"] = rng.standard_normal(supports * 3).tolist()
    agrees("SVMRegressor", [rows(rng, 3)], domain=ML, **model)
