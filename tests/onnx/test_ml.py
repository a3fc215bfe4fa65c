"""Operators of ai.onnx.ml against ONNX Runtime: random models, every kernel, transform, label type and element type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import UnsupportedError
from tests.ops.single_node import agrees, run

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


@pytest.mark.parametrize(
    ("kernel", "supports"), [("LINEAR", 0), *((k, 4) for k in ("LINEAR", "POLY", "RBF", "SIGMOID"))]
)
@pytest.mark.parametrize("one_class", [0, 1])
def test_svm_regressor(kernel: str, one_class: int, supports: int) -> None:
    """Without support vectors there is no kernel."""
    rng = np.random.default_rng(supports)
    model: dict[str, Any] = {
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0], "n_supports": supports, "one_class": one_class,
        "coefficients": rng.standard_normal(supports or 3).tolist(), "rho": [-0.3],
    }  # fmt: skip
    if supports:
        model["support_vectors"] = rng.standard_normal(supports * 3).tolist()
    agrees("SVMRegressor", [rows(rng, 3)], domain=ML, **model)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_preprocessing_of_every_type(dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = rows(rng, 4, dtype)
    agrees("Scaler", [x], domain=ML, offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5] * 4)
    agrees("Scaler", [x], domain=ML, offset=[1.0], scale=[0.5])
    for norm in ("MAX", "L1", "L2"):
        for given in (x, x[0], -np.abs(x), np.zeros((2, 3), dtype)):
            agrees("Normalizer", [given], domain=ML, norm=norm)
    agrees("ArrayFeatureExtractor", [x, np.array([[2, 0]])], domain=ML)
    if dtype == np.float32:  # ONNX Runtime has these for one type each
        agrees("Binarizer", [x], domain=ML, threshold=0.7)
    if dtype != np.int32:
        agrees("OneHotEncoder", [x], domain=ML, cats_int64s=[-2, 0, 3], zeros=1)


def test_categories() -> None:
    names, numbers = np.array(["a", "b", "other"], object), np.array([[4, 5, 6]])
    table = {"cats_int64s": [4, 5], "cats_strings": ["a", "b"]}
    agrees("CategoryMapper", [names], domain=ML, default_int64=-7, **table)
    agrees("CategoryMapper", [numbers], domain=ML, default_string="?", **table)
    agrees("OneHotEncoder", [names], domain=ML, cats_strings=["a", "b"], zeros=1)
    agrees("LabelEncoder", [names], domain=ML, ml_opset=1, classes_strings=["a", "b"], default_int64=-7)
    agrees("LabelEncoder", [numbers - 4], domain=ML, ml_opset=1, classes_strings=["a", "b"], default_string="?")
    with pytest.raises(UnsupportedError, match="`zeros` of 0"):
        run("OneHotEncoder", [names], domain=ML, cats_strings=["a", "b"], zeros=0)


KEYS = [
    ({"keys_strings": ["a", "b"]}, np.array(["b", "a", "q"], object)), ({"keys_int64s": [1, 2]}, np.array([[2, 1, 5]])),
    ({"keys_floats": [1.5, -2.0]}, np.array([1.5, -2, 3], np.float32)),
]  # fmt: skip
VALUES = [{"values_strings": ["x", "y"]}, {"values_int64s": [10, 20]}, {"values_floats": [0.1, 0.2]}]


@pytest.mark.parametrize("opset", [2, 4])
def test_label_encoder(opset: int) -> None:
    for keys, x in KEYS:
        for values in VALUES:
            agrees("LabelEncoder", [x], domain=ML, ml_opset=opset, **keys, **values)
    if opset == 4:  # before, ONNX Runtime finds no NaN
        x = np.array([np.nan, 1], np.float32)
        agrees("LabelEncoder", [x], domain=ML, ml_opset=4, keys_floats=[float("nan")], values_int64s=[3])


def test_imputer() -> None:
    x = np.array([[1, np.nan, 3], [np.nan, 5, 1]], np.float32)
    agrees("Imputer", [x], domain=ML, imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan"))
    agrees("Imputer", [x], domain=ML, imputed_value_floats=[7.0], replaced_value_float=1.0)
    agrees("Imputer", [np.array([[1, 2], [3, 1]])], domain=ML, imputed_value_int64s=[7, 8], replaced_value_int64=1)


@pytest.mark.parametrize("widths", [[4, 3], [2, 3], [6, 1]])
def test_feature_vectorizer_cuts_and_fills(widths: list[int]) -> None:
    rng = np.random.default_rng(1)
    agrees("FeatureVectorizer", [rows(rng, 4), rows(rng, 3)], domain=ML, inputdimensions=widths)
    agrees("FeatureVectorizer", [rows(rng, 4)[0], rows(rng, 3)[0]], domain=ML, inputdimensions=widths)
    cube = rng.standard_normal((2, 2, 2)).astype(np.float32)
    agrees("FeatureVectorizer", [cube], domain=ML, inputdimensions=widths[:1])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_models(transform: str) -> None:
    rng = np.random.default_rng(1)
    model = {"coefficients": rng.standard_normal(8).tolist(), "intercepts": [0.5, 1.0], "targets": 2}
    agrees("LinearRegressor", [rows(rng, 4)], domain=ML, post_transform=transform, **model)
    for scores, count in ((1, 2), (2, 2), (3, 3)):
        weights = {"coefficients": rng.standard_normal(4 * scores).tolist(), "intercepts": [0.5] * scores}
        if scores == 1 and transform == "PROBIT":
            with pytest.raises(UnsupportedError, match="PROBIT of two classes with one score has no meaning"):
                run(
                    "LinearClassifier",
                    [rows(rng, 4)],
                    2,
                    domain=ML,
                    post_transform=transform,
                    **weights,
                    **labels(2, False),
                )
            continue
        for is_text, dtype in ((False, np.float32), (True, np.float64), (False, np.int64)):
            model = weights | labels(count, is_text)
            agrees("LinearClassifier", [rows(rng, 4, dtype)], 2, domain=ML, post_transform=transform, **model)


def forest(rng: np.random.Generator, modes: list[str], leaf: str, ids: list[int]) -> dict[str, Any]:
    """Three trees of depth three, whose leaves give a weight to each of `ids`."""
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
                              "missing_value_tracks_true")
    }  # fmt: skip
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(3):
        for number in range(15):
            is_leaf = number >= 7
            row = (tree, number, int(rng.integers(3)), "LEAF" if is_leaf else modes[int(rng.integers(len(modes)))],
                   float(rng.integers(-2, 3)), 0 if is_leaf else 2 * number + 1, 0 if is_leaf else 2 * number + 2,
                   int(rng.integers(2)))  # fmt: skip
            for values, value in zip(nodes.values(), row):
                values.append(value)
            for which in ids if is_leaf else ():
                for values, value in zip(leaves.values(), (tree, number, which, float(rng.uniform(-0.1, 0.3)))):
                    values.append(value)
    return {f"nodes_{k}": v for k, v in nodes.items()} | {f"{leaf}_{k}": v for k, v in leaves.items()}


def measured(rng: np.random.Generator) -> np.ndarray:
    """Features on the thresholds and between, and NaN."""
    x = rng.integers(-3, 4, (9, 3)).astype(np.float32)
    x[0, 0] = x[3, 2] = np.nan
    return x


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_tree_regressors(transform: str, aggregate: str) -> None:
    """Of two targets and more: ONNX Runtime leaves a single score as it is, whatever transform is asked."""
    rng = np.random.default_rng(2)
    for base in ({}, {"base_values": [0.4, 0.5, 0.3]}):
        model = forest(rng, ["BRANCH_LEQ", "BRANCH_LEQ"], "target", [0, 1, 2]) | base
        model |= {"n_targets": 3, "aggregate_function": aggregate, "post_transform": transform}
        agrees("TreeEnsembleRegressor", [measured(rng)], domain=ML, **model)


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
def test_modes_of_trees(mode: str) -> None:
    rng = np.random.default_rng(2)
    model = forest(rng, [f"BRANCH_{mode}"], "target", [0]) | {"n_targets": 1}
    agrees("TreeEnsembleRegressor", [measured(rng)], domain=ML, **model)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("count", "ids"), [(2, [0]), (2, [1]), (3, [0, 1, 2])])
def test_tree_classifiers(transform: str, count: int, ids: list[int]) -> None:
    """Binary ones have one score: with two, ONNX Runtime gives labels that the model does not have."""
    rng = np.random.default_rng(2)
    model = forest(rng, ["BRANCH_LT"], "class", ids) | {"post_transform": transform}
    if (count, ids, transform) == (2, [0], "PROBIT"):
        with pytest.raises(UnsupportedError, match="PROBIT of two classes with one score has no meaning"):
            run("TreeEnsembleClassifier", [measured(rng)], 2, domain=ML, **model, classlabels_int64s=[3, 5])
        return
    for is_text in (False, True):
        names = {("classlabels_int64s" if k == "classlabels_ints" else k): v for k, v in labels(count, is_text).items()}
        agrees("TreeEnsembleClassifier", [measured(rng)], 2, domain=ML, **model, **names)
