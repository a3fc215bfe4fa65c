"""A node in the making: what its schema leaves open is drawn when a plan asks for it.

A plan is a function of a `Draft`; it says what the text of a schema demands and its types do not (`plans_*.py`). All
else follows from the schema: types within the constraints, attributes left out where they have a default, optional
inputs and outputs present or absent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.importers.schemas import NUMPY, PARTNER, Version, element, kind, number

Plan = Callable[["Draft"], None]
PLANS: dict[str, Plan] = {}
_STRINGS = ("", "a", "b", "B", "ab", "a b", "abc", "Straße", "éa", "1", "-2.5")
_SIZES = (0, 1, 1, 1, 1, *(2, 3, 4, 5) * 6)


def plan(*names: str) -> Callable[[Plan], Plan]:
    """Decorator: the function draws cases for these operators."""

    def register(function: Plan) -> Plan:
        for name in names:
            assert name not in PLANS, f"{name} has two plans"
            PLANS[name] = function
        return function

    return register


class Undrawable(Exception):
    """This version has no case of the kind that the plan wanted to draw; another draw may do."""


@dataclass
class Case:
    """A model of one node with inputs.

    `output_types` are the element types that the schema gives the outputs (None: it leaves them to attributes).
    `has_values` is False where only types and shapes of outputs are defined; `coarse` allows for floats of 32 bits.
    """

    name: str
    version: Version
    opset: int
    model: onnx.ModelProto
    feeds: dict[str, Any]
    output_types: list[str | None] = field(default_factory=list)
    has_values: bool = True
    coarse: bool = False

    def describe(self) -> str:
        """The node, its opset, attributes and operands on a few lines."""
        (node,) = self.model.graph.node
        constants = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        attributes = ", ".join(f"{a.name}={_shown(helper.get_attribute_value(a))}" for a in node.attribute)
        lines = [
            f"{self.name}: opset {self.opset}, {', '.join(node.input)} -> {', '.join(node.output)} {{{attributes}}}"
        ]
        lines += [f"    {name}: {_described(value)}" for name, value in self.feeds.items()]
        lines += [f"    {name}: {_described(value)} (initializer)" for name, value in constants.items()]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    return (
        f"tensor {numpy_helper.to_array(value).tolist()}" if isinstance(value, onnx.TensorProto) else f"{value!r:.300}"
    )


def _described(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"{value!r:.120}"
    values = f" {value.tolist()}" if value.size <= 12 else ""
    return f"{value.dtype}{list(value.shape)}{values}"


@dataclass
class _Operand:
    value: Any
    type_text: str
    is_constant: bool


class Draft:
    """One node of a version of an operator."""

    def __init__(self, version: Version, source: random.Random) -> None:
        self.version = version
        self.schema = version.schema
        self.random = source
        low, high = version.opsets
        self.opset = self.pick([low, high, source.randint(low, high)])
        self.numbers = np.random.default_rng(source.getrandbits(32))
        self.types: dict[str, str] = {}
        self.operands: dict[int, _Operand] = {}
        self.attributes: dict[str, Any] = {}
        self.outputs: int | None = None
        self.has_values = True

    # chance

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, options: Iterable[Any]) -> Any:
        options = list(options)
        if not options:
            raise Undrawable(f"{self.version}: nothing to choose from")
        return options[self.random.randrange(len(options))]

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def integers(self, count: int, low: int, high: int) -> list[int]:
        return [self.integer(low, high) for _ in range(count)]

    def uniform(self, low: float, high: float) -> float:
        """A number that float32 holds, as attributes do."""
        return float(np.float32(self.random.uniform(low, high)))

    def axis(self, rank: int) -> int:
        """An axis of a tensor of `rank`, counted from either end."""
        if rank == 0:
            raise Undrawable("a scalar has no axis")
        return self.integer(-rank, rank - 1) if self.supports_negative_axes() else self.integer(0, rank - 1)

    def supports_negative_axes(self) -> bool:
        """Whether the text of the schema says that axes count from the back where negative (opset 11 on, mostly)."""
        texts = [a.description for a in self.schema.attributes.values() if a.name in ("axis", "axes", "perm")]
        texts += [i.description for i in self.schema.inputs if i.name in ("axis", "axes")]
        return any("egative" in text or "[-r" in text for text in texts)

    def axes(self, rank: int, least: int = 0) -> list[int]:
        """Distinct axes in any order, each counted from either end."""
        count = self.integer(least, rank)
        negative = self.supports_negative_axes()
        return [a - rank if negative and self.chance(0.4) else a for a in self.random.sample(range(rank), count)]

    def size(self, least: int = 0) -> int:
        return max(least, self.pick(_SIZES))

    def shape(self, low: int = 0, high: int = 4, least: int = 0) -> tuple[int, ...]:
        return tuple(self.size(least) for _ in range(self.integer(low, high)))

    def narrowed(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: leading axes dropped, others of size 1."""
        kept = list(shape)[self.pick([0, 0, 0, *range(len(shape) + 1)]) :]
        return tuple(1 if self.chance(0.25) else size for size in kept)

    # types

    def has(self, name: str) -> bool:
        """Whether this version has an attribute or an input called `name`."""
        return name in self.schema.attributes or any(i.name == name for i in self.schema.inputs)

    def position(self, key: int | str) -> int:
        if isinstance(key, int):
            return key
        found = [n for n, formal in enumerate(self.schema.inputs) if formal.name == key]
        assert found, f"{self.version} has no input {key}"
        return found[0]

    def formal(self, key: int | str) -> Any:
        return self.schema.inputs[min(self.position(key), len(self.schema.inputs) - 1)]

    def allowed(self, variable: str) -> list[str]:
        """The types that a variable of the schema may be bound to."""
        for constraint in self.schema.type_constraints:
            if constraint.type_param_str == variable:
                return list(constraint.allowed_type_strs)
        return [variable]

    def bind(self, variable: str, accept: Callable[[str], bool] = lambda name: True) -> str:
        """Binds a type variable to one of its tensor types whose element `accept` takes; the element's name."""
        if variable not in self.types:
            options = [t for t in self.allowed(variable) if t.startswith("tensor(") and accept(element(t))]
            likely = [t for t in options if element(t) in ("float", "int64")]
            self.types[variable] = self.pick(likely if likely and self.chance(0.3) else options)
        return element(self.types[variable])

    def dtype(self, key: int | str) -> str:
        """The element type of an input."""
        return self.bind(self.formal(key).type_str)

    def only(self, key: int | str, *kinds: str) -> str:
        """Binds an input's type to one of these kinds or names."""
        return self.bind(self.formal(key).type_str, lambda name: kind(name) in kinds or name in kinds)

    # values

    def array(self, dtype: str, shape: Sequence[int], low: float = -4, high: float = 4) -> np.ndarray:
        """Random values of an element type, within [low, high] where it has numbers."""
        shape = tuple(shape)
        match kind(dtype):
            case "bool":
                return np.asarray(self.numbers.random(shape) < 0.5)
            case "string":
                return np.array(self.numbers.choice(np.array(_STRINGS, dtype=object), shape), dtype=object)
            case "int" | "uint":
                least, most = _range(dtype)
                bounds = max(int(np.ceil(low)), least), min(int(np.floor(high)), most)
                return np.asarray(self.numbers.integers(*bounds, shape, endpoint=True)).astype(NUMPY[dtype])
            case "complex":
                parts = [self.numbers.uniform(low, high, shape) for _ in range(2)]
                return np.asarray(parts[0] + 1j * parts[1]).astype(NUMPY[dtype])
        if dtype == "float8e8m0":
            return np.asarray(2.0 ** self.numbers.integers(-3, 4, shape)).astype(NUMPY[dtype])
        values = np.asarray(self.numbers.uniform(low, high, shape))
        if self.chance(0.3):
            values = np.clip(np.round(values * 2) / 2, low, high)  # makes ties
        return np.asarray(values).astype(NUMPY[dtype])

    def feed(self, key: int | str, shape: Sequence[int], low: float = -4, high: float = 4) -> np.ndarray:
        """A run-time input of random values."""
        return self.give(key, self.array(self.dtype(key), shape, low, high))

    def give(self, key: int | str, value: Any, type_text: str | None = None) -> Any:
        """A run-time input. Tensors have the type that the input is bound to; other values name theirs."""
        at = self.position(key)
        self.operands[at] = _Operand(value, type_text or f"tensor({self.dtype(key)})", False)
        return value

    def fix(self, key: int | str, values: Any) -> np.ndarray:
        """An input that is an initializer."""
        at = self.position(key)
        array = np.asarray(values).astype(NUMPY[self.dtype(key)])
        self.operands[at] = _Operand(array, f"tensor({self.dtype(key)})", True)
        return array

    def parameter(self, name: str, values: Any) -> None:
        """Numbers that are an attribute in older versions and an initializer in newer ones."""
        if name in self.schema.attributes:
            self.attributes[name] = values
        else:
            self.fix(name, np.asarray(values, dtype=np.float64 if _has_fractions(values) else np.int64))

    def wants(self, key: int | str, probability: float = 0.5) -> bool:
        """Whether to give an input that may be left out."""
        if isinstance(key, str) and not any(i.name == key for i in self.schema.inputs):
            return False
        return self.position(key) < len(self.schema.inputs) and self.chance(probability)

    # attributes

    def set(self, **attributes: Any) -> None:
        """Sets attributes that this version has."""
        self.attributes.update({n: v for n, v in attributes.items() if n in self.schema.attributes})

    def choose(self, name: str, *options: Any) -> Any:
        """Sets an attribute to one of `options`, or leaves it out; the value in force (None: the version has none)."""
        declared = self.schema.attributes.get(name)
        if declared is None:
            return None
        if not declared.required and self.chance(0.3):
            if not declared.default_value.type:
                return None
            value = helper.get_attribute_value(declared.default_value)
            return value.decode() if isinstance(value, bytes) else value
        self.attributes[name] = self.pick(options)
        return self.attributes[name]

    def real(self, name: str, low: float, high: float) -> Any:
        """As `choose`, for a number between two."""
        return self.choose(name, self.uniform(low, high))

    # the end

    def case(self, name: str) -> Case:
        """The model and its feeds."""
        last = max(self.operands, default=-1)
        names = [f"x{n}" if n in self.operands else "" for n in range(last + 1)]
        outputs = self._output_names()
        node = helper.make_node(self.schema.name, names, outputs, domain=self.schema.domain)
        for key, value in self.attributes.items():
            node.attribute.append(helper.make_attribute(key, value, attr_type=self.schema.attributes[key].type.value))
        infos, weights, feeds = [], [], {}
        for n, operand in sorted(self.operands.items()):
            if operand.is_constant:
                weights.append(_tensor(f"x{n}", operand))
            else:
                infos.append(_value_info(f"x{n}", operand))
                feeds[f"x{n}"] = operand.value
        results = [onnx.ValueInfoProto(name=n) for n in outputs if n]
        graph = helper.make_graph([node], "g", infos, results, weights)
        imports = [helper.make_opsetid(self.schema.domain, self.opset)]
        imports += [helper.make_opsetid("", PARTNER[d]) for d in PARTNER if d == self.schema.domain]
        model = helper.make_model(graph, opset_imports=imports, ir_version=13)
        types = [self._output_type(n) for n, given in enumerate(outputs) if given]
        return Case(name, self.version, self.opset, model, feeds, types, self.has_values)

    def _output_type(self, position: int) -> str | None:
        formal = self.schema.outputs[min(position, len(self.schema.outputs) - 1)]
        text = self.types.get(formal.type_str, self.allowed(formal.type_str)[0])
        settled = formal.type_str in self.types or len(self.allowed(formal.type_str)) == 1
        return element(text) if settled and text.startswith("tensor(") else None

    def _output_names(self) -> list[str]:
        formal = self.schema.outputs
        if self.outputs is not None:
            return [f"y{n}" for n in range(self.outputs)]
        names = [f"y{n}" if o.option.name != "Optional" or self.chance(0.5) else "" for n, o in enumerate(formal)]
        if not any(names):
            names[-1] = f"y{len(names) - 1}"
        while not names[-1]:
            names.pop()
        return names


def _has_fractions(values: Any) -> bool:
    return any(isinstance(v, float) for v in (values if isinstance(values, (list, tuple)) else [values]))


def _range(dtype: str) -> tuple[int, int]:
    bits = int(dtype.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _tensor(name: str, operand: _Operand) -> onnx.TensorProto:
    array, dtype = operand.value, element(operand.type_text)
    if kind(dtype) == "string":
        return helper.make_tensor(name, onnx.TensorProto.STRING, array.shape, [s.encode() for s in array.reshape(-1)])
    return numpy_helper.from_array(array, name)


def _value_info(name: str, operand: _Operand) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name, type=_type_proto(operand.type_text, operand.value))


def _type_proto(text: str, value: Any) -> onnx.TypeProto:
    outer, _, rest = text.partition("(")
    inner = rest[:-1]
    if outer == "tensor":
        return helper.make_tensor_type_proto(number(inner), None if value is None else value.shape)
    if outer == "seq":
        ranks = {item.ndim for item in value or ()}
        like = np.zeros((0,) * max(ranks, default=1))
        proto = _type_proto(inner, like)
        for dim in proto.tensor_type.shape.dim:
            dim.Clear()
        return helper.make_sequence_type_proto(proto)
    if outer == "optional":
        return helper.make_optional_type_proto(_type_proto(inner, np.zeros(1) if value is None else value))
    key, _, of = inner.partition(",")
    return helper.make_map_type_proto(number(key), _type_proto(f"tensor({of.strip()})", np.zeros(())))


def draw(version: Version, seed: str) -> Case:
    """The case of a seed. Raises Undrawable where the plan finds none in a few attempts."""
    for attempt in range(20):
        try:
            return draw_from(version, random.Random(f"{seed}/{version}/{attempt}"), f"{version}/{seed}")
        except Undrawable:
            continue
    raise Undrawable(f"{version}: no case with seed {seed}")


def draw_from(version: Version, source: random.Random, name: str = "") -> Case:
    """The case that `source` leads to. Raises Undrawable where it leads to none."""
    draft = Draft(version, source)
    PLANS[version.name](draft)
    return draft.case(name or str(version))
