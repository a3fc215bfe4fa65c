"""The builder: the one language in which importers, `expand` and both sides of rewrite rules speak.

On a graph it inserts nodes, inferring their types and folding what is known; `ArrayBuilder` computes on arrays at once.
(The third, which records a pattern, is in `ir.rule`.) An op is a method: `b.conv(x, w, stride=(2, 2))`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ir import types as t
from ir.blob import ArrayBlob, Blob
from ir.demand import is_implied, not_negative, told_late
from ir.dims import Dim, Size, Undecided, bounded, decide_le, names, symbol, symbol_of
from ir.graph import Graph, Node, Value
from ir.op import OPS, Op, OpError, UnknownValue, assume_equal, assumptions, definitions
from ir.types import DType, TensorType, Type, dtype_of

CONTENT_LIMIT = 4096
"""Values of at most this many elements are evaluated while the graph is built."""


class Builder:
    """Inserts nodes into `graph`, before `before` or at its end, marked with `sources`."""

    def __init__(self, graph: Graph, before: Node | None = None, sources: tuple[str, ...] = ()) -> None:
        self.graph = graph
        self.before = before
        self.sources = sources

    def __enter__(self) -> Builder:
        self.graph._builders.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.graph._builders.remove(self)

    def nested(self, graph: Graph) -> Builder:
        """A builder for a nested graph, with the sources of this one."""
        return Builder(graph, None, self.sources)

    def __getattr__(self, name: str) -> Any:
        cls = OPS.get(name.rstrip("_"))
        if cls is None:
            raise AttributeError(f"there is no op named {name!r}")

        def make(*operands: Any, **attributes: Any) -> Any:
            return self.apply(cls(**attributes), *operands)

        return make

    def apply(self, op: Op, *operands: Any, names: Sequence[str | None] = ()) -> Any:
        """Inserts `op` on operands (values, numbers, arrays, or None); its output, or a tuple where it has several.

        Raises OpError where the op's type rule refuses the operands.
        """
        values = self.values(operands)
        graph = self.graph
        with self, bounded(graph.bounds), told_late(graph.limits), assumptions() as demanded, definitions() as defined:
            inferred = op.infer(*(None if v is None else v.type for v in values))
            types: tuple[Type, ...] = inferred if isinstance(inferred, tuple) else (inferred,)
            _demand_sizes(op, types)
            node = self.graph.insert(op, values, types, names=names, sources=self.sources, before=self.before)
            _evaluate(node)
        for a, b in demanded:
            self.assume_equal(a, b)
        for size, limit in defined:
            if isinstance(size, tuple):
                self.define_shape(size, limit)
            else:
                self.define(size, limit)
        return node.outputs[0] if len(node.outputs) == 1 else tuple(node.outputs)

    def splice(self, graph: Graph, arguments: Sequence[Value]) -> list[Value]:
        """Inserts the nodes of a closed graph, on `arguments` as its inputs; its outputs. Types stay what they are."""
        made: dict[Value, Value] = dict(zip(graph.inputs, arguments, strict=True))
        for node in graph.nodes():
            new = self.graph.insert(
                node.op, [None if v is None else made[v] for v in node.inputs], [v.type for v in node.outputs],
                names=[None if v.name.isdigit() else v.name for v in node.outputs],
                sources=node.sources or self.sources, before=self.before,
            )  # fmt: skip
            for old, value in zip(node.outputs, new.outputs):
                made[old] = value
                value._content = old._content
        return [made[value] for value in graph.outputs]

    def values(self, operands: Iterable[Any]) -> list[Value | None]:
        """Operands as values; plain numbers become constants of the type of the first tensor operand."""
        operands = list(operands)
        like = next((v.tensor.dtype for v in operands if isinstance(v, Value) and isinstance(v.type, TensorType)), None)
        return [
            v if v is None or isinstance(v, Value) else self.const(v, None if isinstance(v, np.ndarray) else like)
            for v in operands
        ]

    def const(self, value: Any, dtype: DType | None = None, name: str | None = None) -> Value:
        """A constant from a blob, an array or a number (numbers: i64, f32 or bool unless `dtype` says otherwise)."""
        if isinstance(value, Blob):
            return self.apply(OPS["const"](blob=value), names=(name,))  # type: ignore[call-arg]
        if isinstance(value, Dim) or (isinstance(value, (list, tuple)) and any(isinstance(v, Dim) for v in value)):
            return self.dims(value, name=name)
        if dtype is None and isinstance(value, float):
            dtype = t.f32
        array = np.asarray(value, dtype=None if dtype is None else dtype.numpy)
        if array.dtype.kind in "UST":
            array = array.astype(object)
        return self.apply(OPS["const"](blob=ArrayBlob(array)), names=(name,))  # type: ignore[call-arg]

    def dims(self, values: Size | Iterable[Size], name: str | None = None) -> Value:
        """An i64 tensor of sizes, which may be symbolic: rank 0 for one size, rank 1 for several."""
        scalar = isinstance(values, (int, Dim))
        sizes = (values,) if isinstance(values, (int, Dim)) else tuple(values)
        if not any(isinstance(size, Dim) for size in sizes):
            return self.const(np.array(sizes[0] if scalar else sizes, dtype=np.int64), name=name)
        return self.apply(OPS["dims"](values=sizes, scalar=scalar), names=(name,))  # type: ignore[call-arg]

    def content(self, value: Value) -> np.ndarray | None:
        """What is known of a value: see `Value.content`."""
        return value.content

    def sizes(self, value: Value, what: str) -> tuple[Size, ...]:
        """The elements of a known integer tensor as sizes. Raises OpError where they are computed at run time."""
        content = value.content
        if content is None and 0 in value.shape:
            return ()
        if content is None:
            raise UnknownValue(f"`{what}` is computed at run time; it must be known when compiling", value)
        return tuple(v if isinstance(v, Dim) else int(v) for v in content.reshape(-1).tolist())

    def scalar(self, value: Value, what: str) -> Any:
        """The single element of a known tensor. Raises OpError where it is computed at run time."""
        content = value.content
        if content is None or content.size != 1:
            raise UnknownValue(f"`{what}` must be a single value known when compiling", value)
        return content.reshape(-1).tolist()[0]

    def define(self, size: Size, limit: Size | None) -> None:
        """Records that a symbol gets its value when the graph runs, at most `limit`, or what a product of symbols is at
        most; other sizes are what they are."""
        name = symbol_of(size)
        if name is None and limit is not None and len(names(size)) > 1:
            self.graph.limits.products[names(size)] = limit
        if name is not None and self.graph.limits.get(name) is None:
            _, greatest = self.graph.bounds.get(name, (0, None))
            self.graph.limits[name] = limit if greatest is None else greatest

    def define_shape(self, shape: tuple[Size, ...], limit: Size | None) -> None:
        """Records that the product of any sizes of a shape that only a run tells is at most `limit`."""
        told = [name for name in dict.fromkeys(map(symbol_of, shape)) if name in self.graph.limits]
        for name in told:
            self.define(symbol(name), limit)
        self.define(math.prod(map(symbol, told), start=1), limit)

    def assume_equal(self, a: Size, b: Size) -> None:
        """Records that an op demands two sizes to be equal, where others do not imply it; emitted code checks it."""
        if not is_implied((a, b), self.graph.equal_dims):
            self.graph.equal_dims.append((a, b))
            if self.sources:
                self.graph.demanded_by[a, b] = self.sources[0]


def _demand_sizes(op: Op, types: Iterable[Type]) -> None:
    """Demands that no size of a result is negative. Only what is in memory has sizes that a target checks: a tensor
    between two ops that become one loop nest is not. Raises OpError."""
    shapes = (type_.shape for type_ in types if isinstance(type_, TensorType))
    for size in dict.fromkeys(size for shape in shapes for size in shape if symbol_of(size) is None):
        fits = decide_le(0, size)
        if fits is False:
            raise OpError(f"{op.name}: the result would have an axis of size {size}")
        if fits is None:
            assume_equal(*not_negative(size))


def _evaluate(node: Node) -> None:
    """Computes the content of a node's outputs where its operands are known and small."""
    op = node.op
    if op.name == "const":
        blob = getattr(op, "blob")  # noqa: B009
        if int(np.prod(blob.shape)) <= CONTENT_LIMIT:
            node.output._content = blob.array()
        return
    if op.name == "dims":
        node.output._content = op.reference()
        return
    if not op.pure or op.structural or not node.inputs:
        return
    contents = [None if v is None else v._content for v in node.inputs]
    if any(c is None and v is not None for c, v in zip(contents, node.inputs)):
        return
    if not all(isinstance(v.type, TensorType) and _is_small(v.type) for v in node.outputs):
        return
    is_symbolic = any(c is not None and _holds_dims(c) for c in contents)
    if is_symbolic and not op.symbolic:
        return
    try:
        with np.errstate(all="ignore"):
            results = op.reference(*contents)
    except Undecided:
        return
    for value, result in zip(node.outputs, results if isinstance(results, tuple) else (results,)):
        value._content = _normal(result, value.tensor)


def _is_small(type_: TensorType) -> bool:
    bound = type_.max_elements if not type_.is_static else int(np.prod([int(s) for s in type_.shape]))
    return type_.is_static and bound is not None and bound <= CONTENT_LIMIT


def _holds_dims(array: np.ndarray) -> bool:
    return array.dtype == object and any(isinstance(v, Dim) for v in array.flat)


def _normal(array: Any, type_: TensorType) -> np.ndarray | None:
    """The content as a typed array; an object array only where dims are in it."""
    array = np.asarray(array, dtype=object if type_.dtype.kind == "string" else None)
    if array.shape != type_.shape:
        raise OpError(f"reference gave shape {array.shape}, type rule {type_}")
    if array.dtype == object and type_.dtype.kind != "string":
        return array if _holds_dims(array) else array.astype(type_.dtype.numpy)
    return array


class ArrayBuilder:
    """The builder on arrays: every op computes at once. Composites are computed by their reference."""

    def __getattr__(self, name: str) -> Any:
        cls = OPS.get(name.rstrip("_"))
        if cls is None:
            raise AttributeError(f"there is no op named {name!r}")

        def compute(*operands: Any, **attributes: Any) -> Any:
            like = next((v.dtype for v in operands if isinstance(v, (np.ndarray, np.generic))), None)
            arrays = [v if v is None or isinstance(v, np.ndarray) else np.asarray(v, dtype=like) for v in operands]
            with np.errstate(all="ignore"):
                return cls(**attributes).reference(*arrays)

        return compute

    def const(self, value: Any, dtype: DType | None = None) -> np.ndarray:
        return np.asarray(value, dtype=None if dtype is None else dtype.numpy)


def graph_of(op: Op, types: Sequence[Type | None], name: str | None = None) -> Graph:
    """A graph that applies `op` to inputs of `types` (None: an omitted operand)."""
    graph = Graph(name or op.name)
    values = [None if type_ is None else graph.add_input(f"x{i}", type_) for i, type_ in enumerate(types)]
    out = Builder(graph).apply(op, *values)
    graph.set_outputs(out if isinstance(out, tuple) else (out,))
    return graph


__all__ = ["CONTENT_LIMIT", "ArrayBuilder", "Builder", "dtype_of", "graph_of"]
