"""fold: what is known before the program runs becomes a constant, or a tensor of symbolic sizes.

Small values were evaluated when the graph was built. Large ones (a transposed or rescaled weight) become deferred
blobs: their bytes are computed, one tensor at a time, when they are emitted. Nothing here reads a large weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.passes.cse import holds_graph
from compiler.pipeline import graph_pass
from ir.blob import Blob, DeferredBlob, FillBlob
from ir.build import CONTENT_LIMIT, Builder
from ir.dims import Dim, terms
from ir.graph import Graph, Node, Value
from ir.op import Op
from ir.rewrite import for_each_graph, remove_dead
from ir.types import TensorType

_READ_LIMIT = 1 << 20
"""Weights of at most this many bytes are read while compiling, where a small result comes of it."""


@graph_pass
def fold(graph: Graph, *, limit: int = 64) -> None:
    """Evaluates ops on constants. A result of over `limit` MiB stays an op, unless no larger than the operands."""
    for_each_graph(graph, lambda each: fold_graph(each, limit << 20))


def fold_graph(graph: Graph, limit: int) -> None:
    """Folds one graph; `limit` in bytes."""
    for node in graph.nodes():
        if node.op.name in ("const", "dims") or not node.op.pure:
            continue
        b = Builder(graph, node, node.sources)
        made = _from_content(b, node) or _from_blobs(b, node, limit)
        if made is None:
            continue
        _put(graph, node, made)


def _put(graph: Graph, node: Node, made: list[Value]) -> None:
    """Replaces the node's results. An unnamed result takes the name of the weight it was made of."""
    producers = [v.node for v in node.inputs if v is not None and v.node is not None]
    weights = [v.name for v in node.inputs if v is not None and v.blob is not None and not v.name.isdigit()]
    renamed = []
    for old, new in zip(list(node.outputs), made):
        renamed.append((new, weights[0] if old.name.isdigit() and weights else old.name))
        graph.replace(old, new)
    for dead in (node, *producers):
        remove_dead(graph, dead)
    for new, name in renamed:
        graph.rename(new, name)


def _from_content(b: Builder, node: Node) -> list[Value] | None:
    """Constants for outputs whose content is known."""
    contents = [value.content for value in node.outputs]
    if any(content is None or not _is_literal(value, content) for value, content in zip(node.outputs, contents)):
        return None
    return [_literal(b, value, content) for value, content in zip(node.outputs, contents) if content is not None]


def _is_literal(value: Value, content: np.ndarray) -> bool:
    """Whether a content is an array, or sizes that the op `dims` can hold."""
    if value.tensor.dtype.kind == "string" or content.dtype != object:
        return True
    if value.tensor.dtype.name != "i64" or content.ndim > 1:
        return False
    return all(
        isinstance(size, int) or (isinstance(size, Dim) and _is_whole(size)) for size in content.reshape(-1).tolist()
    )


def _is_whole(size: Dim) -> bool:
    return all(isinstance(coefficient, int) for coefficient, _ in terms(size))


def _literal(b: Builder, value: Value, content: np.ndarray) -> Value:
    if content.dtype == object and value.tensor.dtype.kind != "string":
        sizes = content.reshape(-1).tolist()
        return b.dims(sizes[0] if content.ndim == 0 else sizes)
    return b.const(np.asarray(content), value.tensor.dtype)


def _from_blobs(b: Builder, node: Node, limit: int) -> list[Value] | None:
    """Constants for the outputs of an op on constants: evaluated now where that is cheap, else when emitted."""
    if not node.inputs or _is_open(node.op) or not all(_is_static(value) for value in node.outputs):
        return None
    blobs = [None if v is None else constant_blob(v) for v in node.inputs]
    if not any(v is not None and v.blob is not None for v in node.inputs):
        return None
    if any(blob is None and v is not None for blob, v in zip(blobs, node.inputs)):
        return None
    before = sum(blob.nbytes for blob in blobs if blob is not None)
    after = sum(math.prod(v.shape) * v.dtype.itemsize for v in node.outputs)  # type: ignore[arg-type]
    if after > (before if node.op.movement else max(limit, before)):
        return None
    made = [deferred(node.op, blobs, value, i, len(node.outputs)) for i, value in enumerate(node.outputs)]
    if before <= _READ_LIMIT and all(blob.elements <= CONTENT_LIMIT for blob in made):
        return [b.const(blob.array(), blob.dtype) for blob in made]
    return [b.const(blob) for blob in made]


def _is_open(op: Op) -> bool:
    """Whether an op has a nested graph, or sizes that are known only at run time."""
    return holds_graph(op) or any(_has_dim(value) for value in op.attributes().values())


def _has_dim(value: Any) -> bool:
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(map(_has_dim, value)))


def _is_static(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.is_static and value.type.dtype.kind != "string"


def constant_blob(value: Value) -> Blob | None:
    """The bytes of a value that is constant: of a constant, or of one element repeated."""
    if value.blob is not None:
        return value.blob
    node = value.node
    if node is None or not _is_static(value):
        return None
    shape = tuple(int(size) for size in value.shape)
    if node.op.name == "full":
        return FillBlob(node.op.value, value.dtype, shape)  # type: ignore[attr-defined]
    source = node.inputs[0] if node.op.name == "expand" else None
    if source is not None and source.content is not None and source.content.size == 1 and source.blob is not None:
        return FillBlob(source.content.reshape(-1)[0], value.dtype, shape)
    return None


def deferred(op: Op, blobs: list[Blob | None], value: Value, index: int, count: int) -> DeferredBlob:
    """Output `index` of `count` of an op on constants, computed by the op's reference when it is asked for."""
    given = tuple(blob for blob in blobs if blob is not None)
    omitted = "".join("_" if blob is None else "x" for blob in blobs)
    part = f"#{index}" if count > 1 else ""
    shape = tuple(int(size) for size in value.shape)
    return DeferredBlob(
        f"{op.name}{op.attributes()!r}({omitted}){part}", _reference(op, blobs, index, count), given, value.dtype, shape
    )


def _reference(op: Op, blobs: list[Blob | None], index: int, count: int) -> Callable[..., Any]:
    present = [blob is not None for blob in blobs]

    def compute(*arrays: np.ndarray) -> np.ndarray:
        rest = iter(arrays)
        result = op.reference(*(next(rest) if is_given else None for is_given in present))
        return np.asarray(result[index] if count > 1 else result)

    return compute
