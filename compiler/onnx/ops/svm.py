"""Support vector machines of ai.onnx.ml. What ONNX leaves open is done as ONNX Runtime does it.

Kernels are matrix products, and so are the decisions between pairs of classes: the coefficients stand in a matrix of
support vectors by pairs.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from compiler.onnx.ops.trees import best_label, label_table, single, transformed
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError

_ML = "ai.onnx.ml"


def _rows(b: Any, x: Any) -> Any:
    x = b.reshape(x, shape=(1, x.shape[0])) if x.rank == 1 else x
    if x.rank != 2 or not isinstance(x.shape[1], int):
        raise OpError(f"the input is {x.type}; it must be [n, features], with features known when compiling")
    return single(b, x)


def _kernel(b: Any, x: Any, vectors: np.ndarray, kernel: str, params: tuple[float, ...]) -> Any:
    """The kernel of each row of x with each of `vectors`: f32[n, len(vectors)]."""
    gamma, coef0, degree = (*params, 0.0, 0.0, 0.0)[:3]
    number = lambda value: b.const(value, t.f32)  # noqa: E731
    if kernel == "RBF":
        # By differences, not by the expanded square: it cancels where a row is near to a vector.
        apart = b.reshape(x, shape=(x.shape[0], 1, x.shape[1])) - b.const(vectors)
        return b.exp(b.reduce_sum_square(apart, axes=(2,), keepdims=False) * number(-gamma))
    product = b.matmul(x, b.const(np.ascontiguousarray(vectors.T)))
    if kernel == "LINEAR":
        return product
    inner = product * number(gamma) + number(coef0)
    if kernel == "POLY":
        return b.pow(inner, number(degree))
    if kernel == "SIGMOID":
        return b.tanh(inner)
    raise OpError(f"`kernel_type` is '{kernel}'; it must be LINEAR, POLY, RBF or SIGMOID")


def _matrix(values: tuple[float, ...], rows: int, columns: int | None, what: str) -> np.ndarray:
    if rows < 1 or len(values) % rows or (columns is not None and len(values) != rows * columns):
        raise OpError(f"`{what}` has {len(values)} numbers, which do not make {rows} rows")
    return np.array(values, np.float32).reshape(rows, -1)


def _vectors(values: tuple[float, ...], count: int, x: Any) -> np.ndarray:
    return _matrix(values, count, x.shape[1], "support_vectors")


def _pairs(coefficients: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The coefficients by pairs of classes: column (i, j) has those of class i against j, and of class j against i."""
    starts = np.cumsum((0, *sizes))
    pairs = list(combinations(range(len(sizes)), 2))
    table = np.zeros((int(starts[-1]), len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        table[of_i, column] = coefficients[j - 1, of_i]
        table[of_j, column] = coefficients[i, of_j]
    return table


def _winner(b: Any, decisions: Any, count: int, labels: tuple[Any, ...]) -> Any:
    """The label of the class that most pairs decide for, the first of equals."""
    for_first, for_second = (np.zeros((decisions.shape[1], count), np.float32) for _ in range(2))
    for column, (i, j) in enumerate(combinations(range(count), 2)):
        for_first[column, i] = for_second[column, j] = 1
    is_first = b.cast(b.greater(decisions, 0.0), to=t.f32)
    votes = b.matmul(is_first, b.const(for_first)) + b.matmul(1.0 - is_first, b.const(for_second))
    return b.gather(label_table(b, labels), b.arg_max(votes, axis=1), axis=0)


def _probabilities(b: Any, decisions: Any, count: int, a: tuple[float, ...], c: tuple[float, ...]) -> Any:
    """Platt's probabilities of pairs, coupled to those of classes: f32[n, count]."""
    pairs = list(combinations(range(count), 2))
    if len(a) != len(pairs) or len(c) != len(pairs):
        raise OpError(f"`prob_a` and `prob_b` have {len(a)} and {len(c)} numbers for {len(pairs)} pairs of classes")
    first = b.sigmoid(-(decisions * b.const(np.array(a, np.float32)) + b.const(np.array(c, np.float32))))
    first = b.clip(first, b.const(1e-7, t.f32), b.const(1 - 1e-7, t.f32))
    columns = {pair: column for column, pair in enumerate(pairs)}
    # Column i * count + j of the concatenation below: pair (i, j), its complement, or 0 on the diagonal.
    order = [
        columns[i, j] if i < j else len(pairs) + columns[j, i] if i > j else 2 * len(pairs)
        for i in range(count)
        for j in range(count)
    ]
    every = b.concat(first, 1.0 - first, b.full(shape=(first.shape[0], 1), value=0.0, dtype=t.f32), axis=1)
    table = b.reshape(b.gather(every, b.const(np.array(order)), axis=1), shape=(first.shape[0], count, count))
    return b.couple_probabilities(table)


@onnx_op("SVMClassifier", domain=_ML)
def SVMClassifier(
    b: Any, X: Any, *, classlabels_ints: tuple[int, ...] = (), classlabels_strings: tuple[str, ...] = (),
    coefficients: tuple[float, ...] = (), kernel_params: tuple[float, ...] = (), kernel_type: str = "LINEAR",
    post_transform: str = "NONE", prob_a: tuple[float, ...] = (), prob_b: tuple[float, ...] = (),
    rho: tuple[float, ...] = (), support_vectors: tuple[float, ...] = (), vectors_per_class: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    x, labels = _rows(b, X), classlabels_ints or classlabels_strings
    if not labels:
        raise OpError("it has no `classlabels_ints` or `classlabels_strings`")
    vectors = sum(vectors_per_class)
    if vectors == 0:  # a linear model: one vector of coefficients for each class
        if not rho:
            raise OpError("`rho` is empty")
        weights = _matrix(coefficients, len(labels), x.shape[1], "coefficients")
        scores = _kernel(b, x, weights, "LINEAR", ()) + b.const(rho[0], t.f32)
        return best_label(b, scores, labels), transformed(b, scores, post_transform)
    count = len(vectors_per_class)
    if count != len(labels) or count < 2 or len(rho) != count * (count - 1) // 2:
        raise OpError(f"there are {len(labels)} labels and {len(rho)} numbers `rho` for {count} classes")
    table = _pairs(_matrix(coefficients, count - 1, vectors, "coefficients"), vectors_per_class)
    kernels = _kernel(b, x, _vectors(support_vectors, vectors, x), kernel_type, kernel_params)
    decisions = b.matmul(kernels, b.const(table)) + b.const(np.array(rho, np.float32))
    label = _winner(b, decisions, count, labels)
    if prob_a:
        return label, transformed(b, _probabilities(b, decisions, count, prob_a, prob_b), post_transform)
    if count > 2:
        return label, transformed(b, decisions, post_transform)
    return label, _two_scores(b, decisions, post_transform)


def _two_scores(b: Any, decision: Any, transform: str) -> Any:
    """The scores of two classes from the one decision between them."""
    if transform == "NONE":
        return b.concat(-decision, decision, axis=1)
    if transform == "PROBIT":
        raise OpError("`post_transform` PROBIT of two classes with one score has no meaning")
    second = b.sigmoid(decision) if transform == "LOGISTIC" else decision
    if transform not in ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"):
        raise OpError(f"`post_transform` is '{transform}'")
    return b.concat(1.0 - second, second, axis=1)


@onnx_op("SVMRegressor", domain=_ML)
def SVMRegressor(
    b: Any, X: Any, *, coefficients: tuple[float, ...] = (), kernel_params: tuple[float, ...] = (),
    kernel_type: str = "LINEAR", n_supports: int = 0, one_class: int = 0, post_transform: str = "NONE",
    rho: tuple[float, ...] = (), support_vectors: tuple[float, ...] = (),
) -> Any:  # fmt: skip
    x = _rows(b, X)
    if len(rho) != 1:
        raise OpError(f"`rho` has {len(rho)} numbers; a regressor has one")
    if n_supports:
        kernels = _kernel(b, x, _vectors(support_vectors, n_supports, x), kernel_type, kernel_params)
        weights = _matrix(coefficients, 1, n_supports, "coefficients")
    else:
        kernels, weights = x, _matrix(coefficients, 1, x.shape[1], "coefficients")
    score = b.matmul(kernels, b.const(np.ascontiguousarray(weights.T))) + b.const(rho[0], t.f32)
    if one_class:
        score = b.where(b.greater(score, 0.0), b.const(1.0, t.f32), b.const(-1.0, t.f32))
    return transformed(b, score, post_transform)
