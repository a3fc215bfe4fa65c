"""Judges cases that draw random numbers, so that what they expect is one of many right answers.

Such a case must give the expected shapes and types, the same numbers each time, and others with another seed. Then its
model is run on its own inputs, repeated many times over, and the results are compared with those of onnx's reference
evaluator: for each element of the case, and all together, by the two-sample statistic of Kolmogorov and Smirnov.
Neighbouring draws must not be correlated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
from onnx.reference.op_run import OpRun

DRAWING = frozenset(
    ["Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
REPEATS = 1 << 14
"""Draws for each element of the case: a probability that is 0.04 off is found in one element, less in all of them."""
CHANCE = 1e-9
"""How often one comparison may reject what is right: with some hundred of them in a run, never in practice."""
_DEVIATION = 6.2
"""Standard deviations that a correlation of independent draws exceeds with a probability below `CHANCE`."""

Run = Callable[[onnx.ModelProto, Sequence[Any]], Sequence[Any]]
"""Prepares a model anew and runs it on inputs."""


class Multinomial(OpRun):
    """Classes drawn by their log probabilities, in NumPy; onnx's evaluator has none."""

    def _run(self, x: np.ndarray, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> tuple[np.ndarray]:
        shares = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
        bounds = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        drawn = np.random.default_rng().random((len(x), sample_size, 1))
        number = (bounds[:, None, :-1] <= drawn).sum(axis=2)
        return (number.astype(onnx.helper.tensor_dtype_to_np_dtype(dtype)),)


def drawing_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that draw, in nested graphs and functions too."""
    nodes = [*_nodes(model.graph.node), *(n for f in model.functions for n in _nodes(f.node))]
    return [node for node in nodes if node.op_type in DRAWING and node.domain in ("", "ai.onnx")]


def _nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def judge(
    model: onnx.ModelProto, run: Run, inputs: Sequence[Any], expected: Sequence[Any], actual: Sequence[Any]
) -> tuple[str, str]:
    """What is wrong with `actual`, or an empty text; and in words how it was judged."""
    for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if np.shape(a) != np.shape(e) or np.asarray(a).dtype != np.asarray(e).dtype:
            return f"[{number}] is {np.asarray(a).dtype}{list(np.shape(a))}, expected {e.dtype}{list(e.shape)}", ""
    if not _equal(actual, run(model, inputs)):
        return "the same model draws other numbers when it is prepared again", ""
    wide = widened(model)
    repeated = [np.concatenate([x] * REPEATS) if np.ndim(x) else x for x in inputs]
    ours = run(wide, repeated)
    if _equal(ours, run(with_seeds(wide, 1001), repeated)):
        return "another seed draws the same numbers", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = onnx.reference.ReferenceEvaluator(wide, new_ops=[Multinomial]).run(
            None, dict(zip([i.name for i in wide.graph.input], repeated))
        )
    return compare(ours, theirs)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with `REPEATS` times the first axis in every input, and in every shape that is drawn."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for value in wide.graph.input:
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_value *= REPEATS
    for value in wide.graph.output:
        value.type.tensor_type.ClearField("shape")
    del wide.graph.value_info[:]
    for node in drawing_nodes(wide):
        for attribute in node.attribute:
            if attribute.name == "shape" and attribute.ints:
                attribute.ints[0] *= REPEATS
    return wide


def with_seeds(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The model with other seeds in the nodes that draw."""
    seeded = onnx.ModelProto()
    seeded.CopyFrom(model)
    for number, node in enumerate(drawing_nodes(seeded)):
        kept = [a for a in node.attribute if a.name != "seed"]
        value = seed + number if node.op_type == "Dropout" else float(seed + number)
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("seed", value)])
    return seeded


def compare(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[str, str]:
    """How the distributions of two samples differ, or an empty text; and what was compared.

    Outputs of one shape are compared jointly: the tuple of their elements is one draw.
    """
    shapes = [np.shape(a) for a in ours]
    if shapes != [np.shape(e) for e in theirs]:
        return f"shapes {shapes}, expected {[np.shape(e) for e in theirs]}", ""
    found = []
    for shape in dict.fromkeys(shapes):
        mine, other, step = _keys(*([x for x in given if np.shape(x) == shape] for given in (ours, theirs)))
        for number, (x, y) in enumerate(zip([mine.reshape(-1), *mine.T], [other.reshape(-1), *other.T])):
            statistic, limit = distance(x, y, step), threshold(x.size, y.size)
            if not statistic <= limit:
                where = f"element {number - 1}" if number else "all elements"
                return f"the distribution of {where} is {statistic:.4f} from the expected one, over {limit:.4f}", ""
            if number == 0:
                found.append(f"{statistic:.4f} from the expected distribution, at most {limit:.4f} allowed")
        correlation = max(correlations(mine), key=abs)
        if not abs(correlation) <= _DEVIATION:
            return f"neighbouring draws are correlated, by {correlation:.1f} standard deviations", ""
    return "", f"judged by {REPEATS} draws for each element: {'; '.join(found)}"


def _keys(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """One number for each draw of each element, from all outputs: f64[REPEATS, elements of the case], twice.

    Later outputs weigh more than all that earlier ones can differ by. The third result is what numbers may differ by
    and still be equal: a rounding or two of f32.
    """
    columns = [[np.asarray(x).astype(np.float64).reshape(REPEATS, -1) for x in given] for given in (ours, theirs)]
    keys = [given[0] for given in columns]
    step = 1e-6 * max(1.0, *(float(np.abs(key).max()) for key in keys))
    for a, e in zip(*(given[1:] for given in columns)):
        span = 4 * max(1.0, *(float(np.ptp(key)) for key in keys))
        keys = [keys[0] + span * a, keys[1] + span * e]
    return keys[0], keys[1], step


def distance(x: np.ndarray, y: np.ndarray, step: float) -> float:
    """The greatest difference of the two empirical distribution functions, where `step` more or less is the same."""
    x, y = np.sort(x), np.sort(y)
    found = 0.0
    for a, b in ((x, y), (y, x)):
        below = np.searchsorted(a, a, side="right") / a.size - np.searchsorted(b, a + step, side="right") / b.size
        found = max(found, float(below.max()))
    return found


def threshold(n: int, m: int) -> float:
    """What the distance of two samples of one distribution exceeds with a probability of at most `CHANCE`.

    The asymptotic tail of the statistic; with values that repeat, the probability is lower.
    """
    return float(np.sqrt(-np.log(CHANCE / 2) / 2 * (n + m) / (n * m)))


def correlations(draws: np.ndarray) -> list[float]:
    """Correlations in standard deviations: of an element with itself in the next repeat, and with its neighbour."""
    z = draws - draws.mean(axis=0)
    found = []
    for left, right in ((z[:-1], z[1:]), (z.reshape(-1)[:-1], z.reshape(-1)[1:])):
        products = left * right
        size = float(np.sqrt((products * products).sum()))
        found.append(float(products.sum()) / size if size else 0.0)
    return found


def _equal(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
