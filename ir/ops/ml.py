"""Classical models: tree ensembles and table lookups.

Trees are arrays, one entry per node: generated code walks them, and is the same few loops for any forest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import cells
from ir import types as t
from ir.element import KernelBuilder, Output, Tensor, apply, cast, min_over, select
from ir.expr import Expr, Index, Var
from ir.op import Op, case, op, require
from ir.ops.cells import in_rows
from ir.ops.movement import same_width
from ir.types import TensorType

LEAF = 255
MODES = {
    "BRANCH_LEQ": 0,
    "BRANCH_LT": 1,
    "BRANCH_GTE": 2,
    "BRANCH_GT": 3,
    "BRANCH_EQ": 4,
    "BRANCH_NEQ": 5,
    "LEAF": LEAF,
}
_COMPARE = ("le", "lt", "ge", "gt", "eq", "ne")
_AGGREGATES = {"SUM": "add", "AVERAGE": "add", "MIN": "min", "MAX": "max"}


def _stump() -> list[np.ndarray]:
    """Two trees for the example: x0 <= 0.5, and a lone leaf."""
    mode = np.array([0, LEAF, LEAF, LEAF], np.uint8)
    feature, threshold = np.zeros(4, np.int32), np.array([0.5, 0, 0, 0], np.float32)
    yes, no = np.array([1, 0, 0, 0], np.int32), np.array([2, 0, 0, 0], np.int32)
    missing, roots = np.array([True, False, False, False]), np.array([0, 3], np.int32)
    first, target = np.array([0, 0, 1, 3, 4], np.int32), np.array([0, 1, 0, 1], np.int32)
    return [mode, feature, threshold, yes, no, missing, roots, first, target, np.array([1, 2, 3, 4], np.float32)]


@op
class TreeEnsemble(Op):
    """Scores[n, targets] of a forest for x[n, features].

    Node i goes to `yes[i]` where x[feature[i]] stands to threshold[i] as `mode[i]` says (or is NaN and `missing[i]`),
    else to `no[i]`. A leaf i adds weight[w] to score target[w] for w in first[i]..first[i+1]. Walks begin at `roots`.
    """

    targets: int
    aggregate: str = "SUM"
    examples = [
        case("f32[5,2]", *_stump(), targets=2),
        case(np.array([[0.0], [np.nan]], np.float32), *_stump(), targets=2, aggregate="MAX"),
        case("f32[3,1]", *_stump(), targets=3, aggregate="AVERAGE"),
    ]

    def infer(self, x: TensorType, mode: TensorType, feature: TensorType, threshold: TensorType, yes: TensorType,
              no: TensorType, missing: TensorType, roots: TensorType, first: TensorType, target: TensorType,
              weight: TensorType) -> TensorType:  # fmt: skip
        require(x.rank == 2 and x.dtype == threshold.dtype, lambda: f"tree_ensemble does not take {x}, {threshold}")
        require(self.aggregate in _AGGREGATES, lambda: f"tree_ensemble: aggregate {self.aggregate}")
        return TensorType(weight.dtype, (x.shape[0], self.targets))

    def reference(self, x, mode, feature, threshold, yes, no, missing, roots, first, target, weight):
        combine = {"add": np.add, "min": np.minimum, "max": np.maximum}[_AGGREGATES[self.aggregate]]
        compare = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)
        y = np.zeros((len(x), self.targets), weight.dtype)
        for row, scores in zip(x, y):
            given = np.zeros(self.targets, np.bool_)
            for node in roots:
                while mode[node] != LEAF:
                    value = row[feature[node]]
                    holds = compare[mode[node]](value, threshold[node]) or (missing[node] and np.isnan(value))
                    node = yes[node] if holds else no[node]
                for w in range(first[node], first[node + 1]):
                    at = target[w]
                    scores[at] = combine(scores[at], weight[w]) if given[at] else weight[w]
                    given[at] = True
        return y / weight.dtype.type(len(roots)) if self.aggregate == "AVERAGE" else y

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, mode: Tensor, feature: Tensor,
               threshold: Tensor, yes: Tensor, no: Tensor, missing: Tensor, roots: Tensor, first: Tensor,
               target: Tensor, weight: Tensor) -> None:  # fmt: skip
        (y,) = outs
        function = _AGGREGATES[self.aggregate]
        start = {"add": 0.0, "min": float("inf"), "max": float("-inf")}[function]
        with k.loop("parallel", n=x.shape[0]) as n:
            with k.loop(c=self.targets) as c:
                k.store(y, (n, c), start)
            with k.loop(tree=roots.shape[0]) as tree:
                node = k.variable("node", cast(roots.at(tree), t.i64), t.i64)
                with k.during(mode.at(node).differs(LEAF)):
                    value = k.let("value", x.at(n, cast(feature.at(node), t.i64)))
                    holds = self._holds(mode.at(node), value, threshold.at(node))
                    holds = holds | (missing.at(node) & apply("isnan", value))
                    k.assign(node, cast(select(holds, yes.at(node), no.at(node)), t.i64))
                begin = k.let("begin", cast(first.at(node), t.i64))
                count = k.let("count", cast(first.at(node + 1), t.i64) - begin)
                with k.loop(w=count) as w:
                    k.store(y, (n, cast(target.at(begin + w), t.i64)), weight.at(begin + w), function)
            with k.loop(c=self.targets) as c:
                if self.aggregate == "AVERAGE":
                    k.store(y, (n, c), y.at(n, c) / cast(Index(t.i64, roots.shape[0]), y.dtype))
                elif function != "add":
                    k.store(y, (n, c), select(y.at(n, c).equals(start), 0.0, y.at(n, c)))

    def _holds(self, mode: Expr, value: Expr, threshold: Expr) -> Expr:
        """How a node's value stands to its threshold, by mode."""
        result = apply(_COMPARE[0], value, threshold)
        for number in range(1, len(_COMPARE)):
            result = select(mode.equals(number), apply(_COMPARE[number], value, threshold), result)
        return result


@op
class Lookup(Op):
    """values[i] where keys[i] is the first key equal to x (NaN equals NaN), else `default`."""

    examples = [
        case(np.array([[3, 1], [7, 2]]), np.array([1, 2, 3]), np.array([0.5, 1.5, 2.5], np.float32),
             np.array(-1, np.float32)),
        case(np.array([np.nan, 2, 4], np.float32), np.array([np.nan, 4], np.float32), np.array([5, 6]), np.array(0)),
        case("string[3]", np.array(["a", "bb"], object), np.array([1, 2]), np.array(-1)),
        case("string[2,2]", np.array(["bb", "a", "bb"], object), np.array(["x", "long", "y"], object),
             np.array("none", object)),
        case(np.array([3, 1]), np.array([1, 2]), np.array(["x", "long"], object), np.array("none", object)),
        case("string[2]", np.array([], object), np.array([], np.int64), np.array(7)),
    ]  # fmt: skip

    def infer(self, x: TensorType, keys: TensorType, values: TensorType, default: TensorType) -> TensorType:
        require(keys.rank == 1 and values.rank == 1 and default.rank == 0, lambda: f"lookup in {keys}, {values}")
        require(x.dtype == keys.dtype, lambda: f"lookup of {x} in {keys}")
        require(values.dtype == default.dtype, lambda: f"lookup: values are {values}, the default is {default}")
        return x.with_dtype(values.dtype)

    def reference(self, x: np.ndarray, keys: np.ndarray, values: np.ndarray, default: np.ndarray) -> np.ndarray:
        def found(item: Any) -> Any:
            same = (i for i, key in enumerate(keys.tolist()) if key == item or (key != key and item != item))
            position = next(same, None)
            return default.item() if position is None else values[position]

        out = np.empty(x.size, values.dtype)
        out[:] = [found(item) for item in x.ravel().tolist()]
        return out.reshape(x.shape)

    def element(self, i: tuple[Expr, ...], x: Tensor, keys: Tensor, values: Tensor, default: Tensor) -> Expr:
        count = Index(t.i64, keys.shape[0])

        def same(j: Expr) -> Expr:
            equal = keys.at(j).equals(x.at(*i))
            if x.dtype.is_float:
                equal = equal | (apply("isnan", keys.at(j)) & apply("isnan", x.at(*i)))
            return select(equal, j, count)

        return values.at(min_over(keys.shape, same), outside=default.at())

    def on_cells(self, b: Any, x: Any, keys: Any, values: Any, default: Any) -> Any:
        """Strings among the keys are found by halving, so keys must be known when compiling."""
        if values.rank == 2:
            values, default = same_width(b, values, default)
        if keys.rank == 1:
            place = b.lookup(x, keys, b.const(np.arange(keys.shape[0])), b.const(np.array(-1)))
        else:
            place = b.reshape(self._find(b, in_rows(b, x), keys), shape=x.shape[:-1])
        is_missing = b.less(place, b.const(np.array(0)))
        if values.rank == 2:
            is_missing = b.reshape(is_missing, shape=(*is_missing.shape, 1))
        if values.shape[0] == 0:
            return b.expand(default, shape=(*place.shape, *default.shape))
        return b.where(is_missing, default, b.gather(values, b.max(place, b.const(np.array(0))), axis=0))

    def _find(self, b: Any, rows: Any, keys: Any) -> Any:
        """The position of each string in `keys`, the first of equal ones, or -1."""
        require(keys.blob is not None, "lookup: keys that are strings must be known when compiling")
        first = {key: place for place, key in reversed(list(enumerate(cells.rows(keys.blob.array()))))}
        ordered = sorted(first)
        found = b.find_cell(rows, b.const(cells.from_rows(ordered, keys.shape[1])))
        places = b.const(np.array([*(first[key] for key in ordered), -1]))
        return b.gather(places, found, axis=0)  # -1, which is none of them, is the last entry


_PAIRS = np.array([[[0, 0.9, 0.2], [0.1, 0, 0.6], [0.8, 0.4, 0]], [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]])


@op
class CoupleProbabilities(Op):
    """Probabilities of k classes, f32[n,k], that fit those of pairs: r[n,i,j] is that of i where it is i or j.

    Wu, Lin and Weng's second method: coordinate descent on the sum of (r[j,i] p[i] - r[i,j] p[j]) ** 2, from equal
    probabilities, until the optimum's conditions hold within 0.005 / k, or 100 (k, if more) steps are done.
    """

    examples = [
        case(_PAIRS.astype(np.float32)),
        case(np.array([[[0, 0.7], [0.3, 0]]], np.float32)),
        case(np.zeros((0, 2, 2), np.float32)),
    ]

    def infer(self, r: TensorType) -> TensorType:
        fits = r.dtype == t.f32 and r.rank == 3 and r.shape[1] == r.shape[2] and isinstance(r.shape[1], int)
        require(fits and r.shape[1] != 0, lambda: f"couple_probabilities of {r}")
        return r.with_shape(r.shape[:2])

    def reference(self, r: np.ndarray) -> np.ndarray:
        k = r.shape[1]
        p = np.full(r.shape[:2], np.float32(1 / k))
        for row, given in zip(p, r):
            q = -given.T * given
            np.fill_diagonal(q, np.sum(given * given, axis=0, dtype=np.float32))
            for _ in range(max(100, k)):
                qp = q @ row
                pqp = np.sum(row * qp, dtype=np.float32)
                if np.max(np.abs(qp - pqp)) < np.float32(0.005) / np.float32(k):
                    break
                for i in range(k):
                    step = (pqp - qp[i]) / q[i, i]
                    row[i] += step
                    pqp = (pqp + step * (step * q[i, i] + 2 * qp[i])) / (1 + step) / (1 + step)
                    qp = (qp + step * q[i]) / (1 + step)
                    row /= 1 + step
        return p

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], r: Tensor) -> None:
        (p,) = outs
        size = r.shape[1]
        assert isinstance(size, int)
        limit = float(np.float32(0.005) / np.float32(size))
        with k.loop("parallel", n=r.shape[0]) as n:
            q = k.local("q", TensorType(t.f32, (size, size)))
            qp = k.local("qp", TensorType(t.f32, (size,)))
            with k.loop(i=size) as i:
                k.store(p, (n, i), 1 / size)
                total = k.variable("total", 0.0, t.f32)
                with k.loop(j=size) as j:
                    k.assign(total, r.at(n, j, i) * r.at(n, j, i), "add")
                    k.store(q, (i, j), -(r.at(n, j, i) * r.at(n, i, j)))
                k.store(q, (i, i), total)
            going = k.variable("going", True, t.bool_)
            rounds = k.variable("rounds", 0, t.i64)
            with k.during(going & (rounds < max(100, size))):
                self._round(k, n, p, q, qp, going, limit)
                k.assign(rounds, 1, "add")

    def _round(self, k: KernelBuilder, n: Expr, p: Output, q: Output, qp: Output, going: Var, limit: float) -> None:
        """One pass over the classes, unless the probabilities are the optimum already."""
        (size,) = qp.shape
        pqp = k.variable("pqp", 0.0, t.f32)
        with k.loop(i=size) as i:
            total = k.variable("total", 0.0, t.f32)
            with k.loop(j=size) as j:
                k.assign(total, q.at(i, j) * p.at(n, j), "add")
            k.store(qp, (i,), total)
            k.assign(pqp, p.at(n, i) * total, "add")
        worst = k.variable("worst", 0.0, t.f32)
        with k.loop(i=size) as i:
            k.assign(worst, apply("abs", qp.at(i) - pqp), "max")
        k.assign(going, worst >= limit)
        with k.when(going), k.loop(i=size) as i:
            step = k.let("step", (pqp - qp.at(i)) / q.at(i, i))
            k.store(p, (n, i), p.at(n, i) + step)
            k.assign(pqp, (pqp + step * (step * q.at(i, i) + qp.at(i) * 2.0)) / (step + 1.0) / (step + 1.0))
            with k.loop(j=size) as j:
                k.store(qp, (j,), (qp.at(j) + step * q.at(i, j)) / (step + 1.0))
                k.store(p, (n, j), p.at(n, j) / (step + 1.0))


__all__ = ["LEAF", "MODES", "CoupleProbabilities", "Lookup", "TreeEnsemble"]
