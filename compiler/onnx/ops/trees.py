"""Tree ensembles of ai.onnx.ml: ONNX's lists of node attributes become the arrays of `tree_ensemble`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.onnx.ops.shape import demand_at_most
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import Size
from ir.op import OpError
from ir.ops.ml import LEAF, MODES

_ML = "ai.onnx.ml"


@dataclass
class Forest:
    """Nodes by number; `leaves[i]` are the (target, weight) pairs of node i."""

    mode: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    no: list[int] = field(default_factory=list)
    missing: list[bool] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    leaves: list[list[tuple[int, float]]] = field(default_factory=list)

    def check(self, b: Any, features: Size, targets: int) -> None:
        """Raises OpError for a node that leads nowhere, or back to itself, and demands the features that are tested."""
        count = len(self.mode)
        pending = [0] * count
        ways: list[tuple[int, ...]] = [
            () if mode == LEAF else (yes, no) for mode, yes, no in zip(self.mode, self.yes, self.no)
        ]
        for node in [*self.roots, *(node for way in ways for node in way)]:
            if not 0 <= node < count:
                raise OpError("a node leads to one that is not there")
        for node in (node for way in ways for node in way):
            pending[node] += 1
        free = [i for i in range(count) if not pending[i]]
        for node in free:
            for following in ways[node]:
                pending[following] -= 1
                if not pending[following]:
                    free.append(following)
        if len(free) != count:
            raise OpError("the nodes of a tree lead in a circle")
        if any(not 0 <= target < targets for leaf in self.leaves for target, _ in leaf):
            raise OpError(f"a leaf has a weight for a target that is not one of {targets}")
        tested = {feature for feature, mode in zip(self.feature, self.mode) if mode != LEAF}
        message = f"a node tests a feature that is not one of {features}"
        if tested and not 0 <= min(tested) <= max(tested) < 1 << 31:
            raise OpError(message)
        demand_at_most(b, max(tested, default=-1) + 1, features, message)

    def scores(self, b: Any, x: Any, targets: int, aggregate: str) -> Any:
        """scores[n, targets] of x[n, features]."""
        if x.rank == 1:
            x = b.reshape(x, shape=(1, x.shape[0]))
        self.check(b, x.shape[1], targets)
        exact = t.f64 if x.dtype == t.f64 else t.f32
        x = x if x.dtype == exact else b.cast(x, to=exact)
        tested = [0 if mode == LEAF else feature for mode, feature in zip(self.mode, self.feature)]
        first = np.cumsum([0, *(len(pairs) for pairs in self.leaves)])
        pairs = [pair for leaf in self.leaves for pair in leaf] or [(0, 0.0)]
        arrays: list[Any] = [
            np.array(self.mode, np.uint8), np.array(tested, np.int32), np.array(self.threshold, exact.numpy),
            np.array(self.yes, np.int32), np.array(self.no, np.int32), np.array(self.missing, np.bool_),
            np.array(self.roots, np.int32), first.astype(np.int32), np.array([p[0] for p in pairs], np.int32),
            np.array([p[1] for p in pairs], exact.numpy),
        ]  # fmt: skip
        return b.tree_ensemble(x, *(b.const(a) for a in arrays), targets=targets, aggregate=aggregate)


def numbers(values: tuple[float, ...], tensor: Any) -> list[float]:
    """A list attribute, or its `_as_tensor` twin."""
    return list(values) if tensor is None else tensor.array().reshape(-1).tolist()


def forest(nodes: dict[str, Any], leaf_trees: Any, leaf_nodes: Any, leaf_ids: Any, weights: list[float]) -> Forest:
    """The forest that the `nodes_*` attributes and the lists of leaf weights of the older operators describe."""
    trees, ids, modes = nodes["treeids"], nodes["nodeids"], nodes["modes"]
    count = len(ids)
    lengths = [len(v) for v in (trees, modes, nodes["featureids"], nodes["truenodeids"], nodes["falsenodeids"])]
    lists = (leaf_trees, leaf_nodes, leaf_ids)
    if any(n != count for n in [*lengths, len(nodes["values"])]) or any(len(v) != len(weights) for v in lists):
        raise OpError("the lists that describe nodes or weights differ in length")
    unknown = sorted(set(modes) - set(MODES))
    if unknown:
        raise OpError(f"a node has the unknown mode '{unknown[0]}'")
    number = {key: i for i, key in enumerate(zip(trees, ids))}
    if len(number) != count:
        raise OpError("two nodes of a tree have the same id")
    track = nodes.get("missing") or (0,) * count

    def at(tree: int, node: int) -> int:
        return number.get((tree, node), -1)

    made = Forest(
        [MODES[m] for m in modes], list(nodes["featureids"]), list(nodes["values"]),
        [at(tree, n) for tree, n in zip(trees, nodes["truenodeids"])],
        [at(tree, n) for tree, n in zip(trees, nodes["falsenodeids"])],
        [bool(v) for v in track], leaves=[[] for _ in range(count)],
    )  # fmt: skip
    children = {n for i in range(count) if made.mode[i] != LEAF for n in (made.yes[i], made.no[i])}
    made.roots = [i for i in range(count) if i not in children]
    for tree, node, target, weight in zip(leaf_trees, leaf_nodes, leaf_ids, weights):
        if at(tree, node) < 0:
            raise OpError(f"there is no node {node} in tree {tree}, which has a weight")
        made.leaves[at(tree, node)].append((target, weight))
    return made


def transformed(b: Any, scores: Any, transform: str) -> Any:
    """Scores[n, c] after ai.onnx.ml's `post_transform`.

    A score that is the only one of its row stays as it is, but for PROBIT: so it is in ONNX Runtime and the reference
    evaluator, and so models are made that say SOFTMAX or LOGISTIC of it.
    """
    if transform == "NONE" or (scores.shape[1] == 1 and transform in ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")):
        return scores
    if transform == "LOGISTIC":
        return b.sigmoid(scores)
    if transform == "SOFTMAX":
        return b.softmax(scores, axes=(-1,))
    if transform == "SOFTMAX_ZERO":
        raised = b.exp(scores - b.reduce_max(scores, axes=(1,), keepdims=True))
        is_zero = b.less_or_equal(b.abs(scores), b.const(1e-7, scores.dtype))
        raised = b.where(is_zero, b.const(0.0, scores.dtype), raised)
        total = b.reduce_sum(raised, axes=(1,), keepdims=True)
        return raised / b.where(b.equal(total, b.const(0.0, scores.dtype)), b.const(1.0, scores.dtype), total)
    if transform == "PROBIT":
        return _probit(b, scores)
    raise OpError(f"`post_transform` is '{transform}'")


def _probit(b: Any, p: Any) -> Any:
    """The inverse of the normal distribution, by Winitzki's approximation of the inverse error function."""
    x = p * 2.0 - 1.0
    log = b.log((1.0 - x) * (1.0 + x))
    v = log * 0.5 + 2.0 / (np.pi * 0.147)
    root = b.sqrt(b.sqrt(v * v - log / 0.147) - v)
    return b.sign(x) * root * float(np.sqrt(2.0))


def add_base(b: Any, scores: Any, base: list[float], targets: int) -> Any:
    """Scores plus `base_values`: one for each target, or one for all."""
    if not base:
        return scores
    if len(base) not in (1, targets):
        raise OpError(f"there are {len(base)} base values for {targets} targets")
    return scores + b.const(np.array(base), scores.dtype)


def single(b: Any, x: Any) -> Any:
    return x if x.dtype == t.f32 else b.cast(x, to=t.f32)


@onnx_op("TreeEnsembleRegressor", domain=_ML)
def TreeEnsembleRegressor(
    b: Any, X: Any, *, n_targets: int = 0, aggregate_function: str = "SUM", post_transform: str = "NONE",
    base_values: tuple[float, ...] = (), base_values_as_tensor: Any = None, nodes_treeids: tuple[int, ...] = (),
    nodes_nodeids: tuple[int, ...] = (), nodes_featureids: tuple[int, ...] = (), nodes_modes: tuple[str, ...] = (),
    nodes_values: tuple[float, ...] = (), nodes_values_as_tensor: Any = None, nodes_truenodeids: tuple[int, ...] = (),
    nodes_falsenodeids: tuple[int, ...] = (), nodes_missing_value_tracks_true: tuple[int, ...] = (),
    nodes_hitrates: tuple[float, ...] = (), nodes_hitrates_as_tensor: Any = None, target_treeids: tuple[int, ...] = (),
    target_nodeids: tuple[int, ...] = (), target_ids: tuple[int, ...] = (), target_weights: tuple[float, ...] = (),
    target_weights_as_tensor: Any = None,
) -> Any:  # fmt: skip
    nodes = {
        "treeids": nodes_treeids, "nodeids": nodes_nodeids, "featureids": nodes_featureids, "modes": nodes_modes,
        "values": numbers(nodes_values, nodes_values_as_tensor), "truenodeids": nodes_truenodeids,
        "falsenodeids": nodes_falsenodeids, "missing": nodes_missing_value_tracks_true,
    }  # fmt: skip
    weights = numbers(target_weights, target_weights_as_tensor)
    trees = forest(nodes, target_treeids, target_nodeids, target_ids, weights)
    scores = trees.scores(b, X, n_targets, aggregate_function)
    scores = add_base(b, scores, numbers(base_values, base_values_as_tensor), n_targets)
    return transformed(b, single(b, scores), post_transform)


@onnx_op("TreeEnsembleClassifier", domain=_ML)
def TreeEnsembleClassifier(
    b: Any, X: Any, *, class_ids: tuple[int, ...] = (), class_nodeids: tuple[int, ...] = (),
    class_treeids: tuple[int, ...] = (), class_weights: tuple[float, ...] = (), class_weights_as_tensor: Any = None,
    classlabels_int64s: tuple[int, ...] = (), classlabels_strings: tuple[str, ...] = (), post_transform: str = "NONE",
    base_values: tuple[float, ...] = (), base_values_as_tensor: Any = None, nodes_treeids: tuple[int, ...] = (),
    nodes_nodeids: tuple[int, ...] = (), nodes_featureids: tuple[int, ...] = (), nodes_modes: tuple[str, ...] = (),
    nodes_values: tuple[float, ...] = (), nodes_values_as_tensor: Any = None, nodes_truenodeids: tuple[int, ...] = (),
    nodes_falsenodeids: tuple[int, ...] = (), nodes_missing_value_tracks_true: tuple[int, ...] = (),
    nodes_hitrates: tuple[float, ...] = (), nodes_hitrates_as_tensor: Any = None,
) -> Any:  # fmt: skip
    nodes = {
        "treeids": nodes_treeids, "nodeids": nodes_nodeids, "featureids": nodes_featureids, "modes": nodes_modes,
        "values": numbers(nodes_values, nodes_values_as_tensor), "truenodeids": nodes_truenodeids,
        "falsenodeids": nodes_falsenodeids, "missing": nodes_missing_value_tracks_true,
    }  # fmt: skip
    weights = numbers(class_weights, class_weights_as_tensor)
    base = numbers(base_values, base_values_as_tensor)
    labels = classlabels_int64s or classlabels_strings
    limit = 0.5 if all(w >= 0 for w in weights) else 0.0
    if len(labels) == 2 and set(class_ids) == {0}:
        trees = forest(nodes, class_treeids, class_nodeids, (0,) * len(class_ids), weights)
        score = add_base(b, trees.scores(b, X, 1, "SUM"), base[-1:], 1)
        return two_classes(b, single(b, score), labels, post_transform, limit)
    trees = forest(nodes, class_treeids, class_nodeids, class_ids, weights)
    scores = add_base(b, trees.scores(b, X, len(labels), "SUM"), base, len(labels))
    if len(labels) == 2 and set(class_ids) == {1}:
        second = b.slice(scores, starts=(0, 1), shape=(scores.shape[0], 1), steps=(1, 1))
        label = threshold_label(b, second, labels, limit)
    else:
        label = best_label(b, scores, labels)
    return label, transformed(b, single(b, scores), post_transform)


def label_table(b: Any, labels: tuple[Any, ...]) -> Any:
    strings = labels and isinstance(labels[0], str)
    return b.const(np.array(labels, object) if strings else np.array(labels, np.int64))


def best_label(b: Any, scores: Any, labels: tuple[Any, ...]) -> Any:
    """The label of the greatest score of each row, the first of equals."""
    return b.gather(label_table(b, labels), b.arg_max(scores, axis=1), axis=0)


def threshold_label(b: Any, score: Any, labels: tuple[Any, ...], limit: float) -> Any:
    """The second of two labels where score[n, 1] is above the limit, else the first."""
    is_second = b.greater(b.reshape(score, shape=(score.shape[0],)), b.const(limit, score.dtype))
    return b.gather(label_table(b, labels), b.cast(is_second, to=t.i64), axis=0)


def two_classes(b: Any, score: Any, labels: tuple[Any, ...], transform: str, limit: float) -> Any:
    """Label and scores[n, 2] of a classifier of two classes that has one score[n, 1], that of the second class.

    Scores are probabilities where the limit is not 0: then the first class has what is left of 1.
    """
    label = threshold_label(b, score, labels, limit)
    if transform == "LOGISTIC":
        return label, b.concat(b.sigmoid(-score), b.sigmoid(score), axis=1)
    if transform == "PROBIT":
        raise OpError("`post_transform` PROBIT of two classes with one score has no meaning")
    return label, b.concat(1.0 - score if limit else -score, score, axis=1)


@onnx_op("TreeEnsemble", since=5, domain=_ML)
def TreeEnsemble(
    b: Any, X: Any, *, aggregate_function: int = 1, post_transform: int = 0, n_targets: int = 0,
    leaf_targetids: tuple[int, ...], leaf_weights: Any, membership_values: Any = None,
    nodes_falseleafs: tuple[int, ...], nodes_falsenodeids: tuple[int, ...], nodes_featureids: tuple[int, ...],
    nodes_hitrates: Any = None, nodes_missing_value_tracks_true: tuple[int, ...] = (), nodes_modes: Any,
    nodes_splits: Any, nodes_trueleafs: tuple[int, ...], nodes_truenodeids: tuple[int, ...],
    tree_roots: tuple[int, ...],
) -> Any:  # fmt: skip
    modes, splits = nodes_modes.array().tolist(), nodes_splits.array().tolist()
    weights, count = leaf_weights.array().tolist(), len(nodes_splits.array())
    track = nodes_missing_value_tracks_true or (0,) * count
    lists = (modes, nodes_featureids, nodes_truenodeids, nodes_falsenodeids, nodes_trueleafs, nodes_falseleafs, track)
    if any(len(v) != count for v in lists) or len(weights) != len(leaf_targetids):
        raise OpError("the lists that describe nodes or leaves differ in length")
    made = Forest(leaves=[])

    def add(mode: int, feature: int, threshold: float, is_missing: int, leaf: list[tuple[int, float]]) -> int:
        made.mode.append(mode)
        made.feature.append(feature)
        made.threshold.append(threshold)
        made.yes.append(0)
        made.no.append(0)
        made.missing.append(bool(is_missing))
        made.leaves.append(leaf)
        return len(made.mode) - 1

    sets = _member_sets(membership_values, modes)
    chains: list[list[int]] = []
    for i in range(count):
        tests = [(modes[i], splits[i])] if modes[i] < 6 else [(4, value) for value in sets[i]]
        chains.append([add(mode, nodes_featureids[i], value, track[i], []) for mode, value in tests])

    def place(target: int, is_leaf: int) -> int:
        if not is_leaf:
            return chains[target][0] if 0 <= target < count else -1
        if not 0 <= target < len(weights):
            raise OpError(f"there is no leaf {target}")
        return add(LEAF, 0, 0.0, 0, [(leaf_targetids[target], weights[target])])

    for i, chain in enumerate(chains):
        holds = place(nodes_truenodeids[i], nodes_trueleafs[i])
        fails = place(nodes_falsenodeids[i], nodes_falseleafs[i])
        for node, following in zip(chain, [*chain[1:], fails]):
            made.yes[node], made.no[node] = holds, following
    made.roots = [chains[root][0] if 0 <= root < count else -1 for root in tree_roots]
    aggregate = ("AVERAGE", "SUM", "MIN", "MAX")[aggregate_function]
    scores = made.scores(b, X, n_targets, aggregate)
    y = transformed(b, scores, ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[post_transform])
    return y if y.dtype == X.dtype else b.cast(y, to=X.dtype)


def _member_sets(values: Any, modes: list[int]) -> dict[int, list[float]]:
    """For each node that tests membership, its set: ONNX lists them one after the other, with NaN between."""
    groups: list[list[float]] = [[]]
    for value in [] if values is None else values.array().tolist():
        if value != value:
            groups.append([])
        else:
            groups[-1].append(value)
    nodes = [i for i, mode in enumerate(modes) if mode == 6]
    if len([g for g in groups if g]) < len(nodes):
        raise OpError("`membership_values` has fewer sets than there are nodes that test membership")
    return dict(zip(nodes, (g for g in groups if g)))
