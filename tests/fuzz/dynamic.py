"""Random ONNX models in which sizes are known only when they run: a model and feeds, all from one seed.

A `Net` is one ONNX graph in the making; the recipes of `tests.fuzz.dynamic_recipes` grow it. Numbers are small
integers, clipped where they grow, so that all ways of running a model give the same to the bit. Axes that are of one
size have one tag; each size that a run tells has a tag of its own, so that operands mostly fit each other, and at times
do not.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

ONNX_TYPES = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL, "s": TensorProto.STRING}
EXTENTS = (0, 1, 2, 3, 5, 8)
FAR_EXTENTS = (0, 1, 3, 40, 1500)
"""Sizes of which some reach beyond a page where others are planned."""
WORDS = ("", "a", "b", "ab", "Zoo", "é", "long word")
Shape = tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """A value: its name, its kind (a key of `ONNX_TYPES`), and the tag of each axis: a number is its size."""

    name: str
    kind: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class Row:
    """A sequence of tensors of a kind and a number of axes."""

    name: str
    kind: str
    rank: int


class NothingFits(Exception):
    """A recipe finds no operands."""


class Net:
    """A graph in the making; a nested one also sees the values of those around it."""

    def __init__(self, rng: random.Random, outer: Net | None = None) -> None:
        self.rng = rng
        self.outer = outer
        self.root: Net = self if outer is None else outer.root
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.nodes: list[Any] = []
        self.tensors: list[Tensor] = []
        self.rows: list[Row] = []
        self.inputs: list[Tensor] = []
        self.number = itertools.count() if outer is None else self.root.number

    def fresh(self, hint: str = "v") -> str:
        return f"{hint}{next(self.number)}"

    def put(self, value: Tensor) -> Tensor:
        self.tensors.append(value)
        return value

    def names(self, op: str, operands: Sequence[Any], count: int = 1, **attributes: Any) -> list[str]:
        """A node of `op`; the names of its outputs. Operands are values, names, or numbers, which become constants."""
        given = [self.operand(o) for o in operands]
        made = [self.fresh() for _ in range(count)]
        self.nodes.append(helper.make_node(op, given, made, name=self.fresh(f"{op}_"), **attributes))
        return made

    def make(self, op: str, operands: Sequence[Any], kind: str, shape: Shape, **attributes: Any) -> Tensor:
        return self.put(Tensor(self.names(op, operands, **attributes)[0], kind, shape))

    def operand(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, (Tensor, Row)):
            return value.name
        name = self.fresh("c")
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else None)
        tensor = helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.reshape(-1))
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def input(self, kind: str, shape: Shape) -> Tensor:
        """A new input of the model."""
        value = Tensor(self.fresh("x"), kind, shape)
        self.root.inputs.append(value)
        return self.root.put(value)

    def seen(self) -> list[Tensor]:
        """The tensors that nodes can use here, the nearest last."""
        return [*(self.outer.seen() if self.outer else []), *self.tensors]

    def seen_rows(self) -> list[Row]:
        return [*(self.outer.seen_rows() if self.outer else []), *self.rows]

    def pick(self, kinds: str = "f", least: int = 0, most: int = 3) -> Tensor:
        """A tensor of a kind and rank, mostly a recent one, or an input."""
        found = [v for v in self.seen() if v.kind in kinds and least <= v.rank <= most]
        if found and self.rng.random() < 0.9:
            return found[int(len(found) * self.rng.random() ** 0.4)]
        rank = self.rng.randint(least, max(least, min(most, 2)))
        return self.input(self.rng.choice(kinds), tuple(self.rng.choice(["N", "M", "N", "3"]) for _ in range(rank)))

    def like(self, value: Tensor, *, same_axes: int = 0, kinds: str | None = None) -> Tensor:
        """Another tensor that fits from axis number `same_axes` on, perhaps the same one."""
        found = [v for v in self.seen() if v.kind in (kinds or value.kind) and v.rank == value.rank
                 and v.shape[same_axes:] == value.shape[same_axes:]]  # fmt: skip
        return self.rng.choice(found[-6:])

    def size(self, value: Tensor, axis: int) -> Tensor:
        """The size of an axis, i64[]."""
        shape = self.names("Shape", [value])[0]
        return self.make("Gather", [shape, np.array(axis)], "i", ())

    def graph(self, name: str, outputs: Sequence[Tensor | Row], inputs: Sequence[Tensor | Row] = ()) -> Any:
        """The ONNX graph, for a node that has it as an attribute."""
        made = [Tensor(self.names("Identity", [v])[0], v.kind, v.shape) if isinstance(v, Tensor)
                else Row(self.names("Identity", [v])[0], v.kind, v.rank) for v in outputs]  # fmt: skip
        return helper.make_graph(self.nodes, name, [info(v) for v in inputs], [info(v) for v in made])


def info(value: Tensor | Row) -> ValueInfoProto:
    """What a graph declares of a value inside of it: no sizes."""
    if isinstance(value, Row):
        element = helper.make_tensor_type_proto(ONNX_TYPES[value.kind], [None] * value.rank)
        return helper.make_value_info(value.name, helper.make_sequence_type_proto(element))
    return helper.make_tensor_value_info(value.name, ONNX_TYPES[value.kind], [None] * value.rank)


@dataclass(frozen=True)
class Dynamic:
    """A random model, and what its inputs are."""

    seed: int
    proto: ModelProto
    inputs: tuple[Tensor, ...]
    meets: bool = False

    def feeds(self, number: int) -> dict[str, np.ndarray]:
        """Inputs at one of several choices of the sizes. Those of a model in which sizes meet are far apart, or one."""
        rng = np.random.default_rng([self.seed, number])
        extents = FAR_EXTENTS if self.meets else EXTENTS
        sizes = {"1": 1, "3": 3, **{tag: int(rng.choice(extents)) for tag in "NM"}}
        if self.meets:
            sizes["K"] = int(rng.choice(extents))
            sizes |= dict.fromkeys("MK", sizes["N"]) if number % 2 else {}
        return {v.name: _array(rng, v, [sizes[tag] for tag in v.shape]) for v in self.inputs}


def _array(rng: np.random.Generator, value: Tensor, shape: Sequence[int]) -> np.ndarray:
    if value.kind == "b":
        return rng.random(shape) < 0.5
    if value.kind == "s":
        return rng.choice(np.array(WORDS, object), shape)
    numbers = rng.integers(-3, 4, shape) if value.kind == "f" else rng.integers(-2, 6, shape)
    return numbers.astype(np.float32 if value.kind == "f" else np.int64)


def random_model(seed: int) -> Dynamic:
    """The model of a seed."""
    from tests.fuzz.dynamic_recipes import grow

    rng = random.Random(seed)
    net = Net(rng)
    net.input("f", rng.choice([("N",), ("N", "M"), ("N", "3")]))
    grow(net, rng.randint(2, 7))
    return Dynamic(seed, _proto(net), tuple(net.inputs))


def meeting_model(seed: int) -> Dynamic:
    """The model of a seed in which what branches and loops give meets inputs, whose sizes it may fit or not."""
    from tests.fuzz.dynamic_recipes import meet

    net = Net(random.Random(seed))
    for tag in "NM":
        net.input("f", (tag,))
    meet(net)
    return Dynamic(seed, _proto(net), tuple(net.inputs), meets=True)


def _proto(net: Net) -> ModelProto:
    """The model of a graph, whose outputs are what nothing uses and what was made last."""
    made = {name for node in net.nodes for name in node.output}
    results: list[Tensor | Row] = [v for v in net.tensors if v.name in made]
    used = {name for node in net.nodes for name in node.input}
    loose = [v for v in results if v.name not in used]
    chosen = list(dict.fromkeys([*loose[-4:], *results[-2:]])) or [net.make("Neg", [net.tensors[0]], "f", ("N",))]
    chosen += [row for row in net.rows if row.name in made][-1:]
    body = net.graph("net", chosen)
    inputs = [
        helper.make_tensor_value_info(v.name, ONNX_TYPES[v.kind], [int(t) if t.isdigit() else t for t in v.shape])
        for v in net.inputs
    ]
    body.input.extend(inputs)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
