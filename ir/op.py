"""How an operator is declared: one frozen class with attributes, its type rule, its meaning, and how it becomes code.

A class decorated with `@op` has `infer` (types in, types out), `reference` (its meaning in NumPy), and exactly one of
`element` (the value of one output element), `expand` (other ops), or `kernel` (a loop nest). Ops on graphs and on
values that are not tensors set `structural = True` and have none of the three: the interpreter runs them as they are,
and targets run what lowering makes of control flow, `on_cells` of strings, and `on_parts` of sequences and optionals.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from ir.demand import not_negative
from ir.dims import Size, decide_eq, decide_le, parse_dim
from ir.types import DTYPES, TensorType

ints = tuple[int, ...]
sizes = tuple[Size, ...]


class OpError(Exception):
    """An op cannot take these operands or attributes; the message says why, in terms of the op."""


class UnknownValue(OpError):
    """An op needs the content of `value`, which is computed at run time, to know what it does."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value


@dataclass(frozen=True)
class Example:
    """One use of an op: attribute values, and operands given as types or as arrays (None: an omitted operand)."""

    attributes: dict[str, Any]
    operands: tuple[TensorType | np.ndarray | None, ...]

    def arrays(self, seed: int = 0) -> tuple[np.ndarray | None, ...]:
        """Operands as arrays: those given, and seeded small values for those given as types."""
        rng = np.random.default_rng(seed)
        return tuple(sample(a, rng) if isinstance(a, TensorType) else a for a in self.operands)


def sample(type_: TensorType, rng: np.random.Generator) -> np.ndarray:
    """A small array of `type_`, whose shape must be static."""
    shape = tuple(int(size) for size in type_.shape)
    dtype = type_.dtype
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    if dtype.is_integer:
        low = 0 if dtype.kind == "uint" else -4
        return rng.integers(low, 4 if dtype.bits < 8 else 8, shape).astype(dtype.numpy)
    if dtype.kind == "string":
        return rng.choice(np.array(["a", "bb", "ccc"], dtype=object), shape)
    return np.asarray(rng.standard_normal(shape)).astype(dtype.numpy)


def case(*operands: str | TensorType | np.ndarray | None, **attributes: Any) -> Example:
    """`case("f32[1,3,8,8]", "f32[4,3,3,3]", stride=(2, 2))` is an Example."""
    return Example(attributes, tuple(parse_type(a) if isinstance(a, str) else a for a in operands))


def parse_type(text: str) -> TensorType:
    """The tensor type that `str(type)` prints. Raises ValueError."""
    found = re.fullmatch(r"\s*(\w+)\[(.*)\]\s*", text)
    if not found or found[1] not in DTYPES:
        raise ValueError(f"not a tensor type: {text!r}")
    return TensorType(DTYPES[found[1]], tuple(parse_dim(part) for part in split_commas(found[2])))


def split_commas(text: str) -> list[str]:
    """`text` cut at commas outside of parentheses and backticks; an empty text has no parts."""
    parts, depth, quoted, start = [], 0, False, 0
    for position, ch in enumerate(text):
        if ch == "`" and (position == 0 or text[position - 1] != "\\"):
            quoted = not quoted
        elif not quoted and ch in "()":
            depth += 1 if ch == "(" else -1
        elif not quoted and ch == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]]] if text.strip() else []


class Op:
    """Base of all ops. Instances are immutable and hashable: an op is its class and its attributes."""

    name: ClassVar[str] = ""
    index_names: ClassVar[str] = ""
    """Names of the output's index variables, e.g. "n oc oh ow"; shorter outputs use the last of them."""
    symbolic: ClassVar[bool] = False
    """`reference` also holds for object arrays of symbolic dims, so that shape arithmetic folds."""
    movement: ClassVar[bool] = False
    """Every output element is one input element (or a constant): composing it costs only index arithmetic."""
    pure: ClassVar[bool] = True
    """Same operands, same results. Random ops are not."""
    structural: ClassVar[bool] = False
    """Runs graphs or handles values that are not tensors: interpreted, or made into steps or other ops by passes."""
    defines: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold sizes, or tuples of them, which only a run tells. With a `kernel` or an `element`, the last
    operands of the op are as many i64 scalars that hold their values; a composite counts them in its `expand`."""
    may_refuse: ClassVar[bool] = False
    """Whether a negative value of a size that the op defines says that generated code does not read such data."""
    stores_once: ClassVar[bool] = False
    """The `kernel` stores each element of its one output once and does not read it, so that what follows from an
    element can be computed as it is stored."""
    blocked: ClassVar[int] = 0
    """How many of the first axes of the result count blocks, each of which is best used up before the next is made."""
    limited_by: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold limits of what the op defines: nothing is computed with them."""
    examples: ClassVar[list[Example]] = []

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        """Types of the outputs from types of the operands. Raises OpError."""
        raise NotImplementedError(type(self).__name__)

    def reference(self, *args: Any, **kwargs: Any) -> Any:
        """Arrays of the outputs from arrays of the operands."""
        raise NotImplementedError(type(self).__name__)

    def element(self, *args: Any, **kwargs: Any) -> Any:
        """element(index, *tensors): the expression of one output element."""
        raise NotImplementedError(type(self).__name__)

    def expand(self, *args: Any, **kwargs: Any) -> Any:
        """expand(builder, *values): the outputs by other ops."""
        raise NotImplementedError(type(self).__name__)

    def kernel(self, *args: Any, **kwargs: Any) -> Any:
        """kernel(k, outputs, *tensors): writes the loop nest with the kernel builder `k`."""
        raise NotImplementedError(type(self).__name__)

    def on_cells(self, *args: Any, **kwargs: Any) -> Any:
        """on_cells(builder, *values): the outputs where strings are cells (`ir.cells`): operands and results that
        are strings have type u8 and one more axis at the end, the bytes of each string."""
        raise NotImplementedError(type(self).__name__)

    def on_parts(self, *args: Any, **kwargs: Any) -> Any:
        """on_parts(builder, *operands): the outputs of an op of sequences, on the tensors that make them up
        (`ir.parts`)."""
        raise NotImplementedError(type(self).__name__)

    @classmethod
    def has(cls, method: str) -> bool:
        """Whether the class itself gives `method` ("element", "expand", "kernel", "on_cells", "on_parts")."""
        return getattr(cls, method) is not getattr(Op, method)

    def sizes_defined(self) -> tuple[Size, ...]:
        """The sizes in the attributes named in `defines`, in order."""
        values = (getattr(self, name) for name in self.defines)
        return tuple(size for value in values for size in (value if isinstance(value, tuple) else (value,)))

    def attributes(self) -> dict[str, Any]:
        """Attributes that differ from their defaults, in the order of declaration."""
        found = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default or type(value) is not type(field.default):
                found[field.name] = value
        return found


OPS: dict[str, type[Op]] = {}
_OpT = TypeVar("_OpT", bound=type[Op])


@dataclass_transform(frozen_default=True)
def op(cls: _OpT) -> _OpT:
    """Class decorator: makes an op of the class and registers it under its snake_case name (or its own `name`)."""
    made = dataclass(frozen=True, repr=False)(cls)
    if "name" not in cls.__dict__:
        made.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower().rstrip("_")
    forms = [form for form in ("element", "expand", "kernel") if made.has(form)]
    if len(forms) != 1 and not (made.structural and not forms):
        raise TypeError(f"op {made.name} must have exactly one of element, expand, kernel; it has {forms or 'none'}")
    if made.name in OPS:
        raise TypeError(f"op {made.name} is declared twice")
    OPS[made.name] = made
    return made


def operand_names(cls: type[Op]) -> list[str]:
    """Names of an op's operands, as `infer` declares them ("*xs" for a variadic one)."""
    parameters = list(inspect.signature(cls.infer).parameters.values())[1:]
    return [f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name for p in parameters]


_assumptions: ContextVar[list[tuple[Size, Size]] | None] = ContextVar("assumptions", default=None)


def assume_equal(a: Size, b: Size) -> None:
    """For type rules: records that the op demands two sizes to be equal, where that cannot be decided now."""
    found = _assumptions.get()
    if a != b and found is not None:
        found.append((a, b))


def require_equal(what: str, a: Size, b: Size) -> None:
    """For type rules: demands two sizes to be equal. Raises OpError where they are not; records what is undecided."""
    require(decide_eq(a, b) is not False, lambda: f"{what}: {a} where it must be {b}")
    assume_equal(a, b)


@contextmanager
def assumptions() -> Iterator[list[tuple[Size, Size]]]:
    """Collects what `assume_equal` records."""
    found: list[tuple[Size, Size]] = []
    token = _assumptions.set(found)
    try:
        yield found
    finally:
        _assumptions.reset(token)


def require_at_most(what: str, size: Size, most: Size) -> None:
    """For type rules: demands a size to be no more than another. Raises OpError where it is; records what is
    undecided."""
    fits = decide_le(size, most)
    require(fits is not False, lambda: f"{what}: {size} where it must be no more than {most}")
    if fits is None:
        assume_equal(*not_negative(most - size))


_definitions: ContextVar[list[tuple[Size | sizes, Size | None]] | None] = ContextVar("definitions", default=None)


def define(size: Size, limit: Size | None) -> None:
    """For type rules: `size` is known only once the op has run, and then at most `limit` (None: nothing bounds it)."""
    found = _definitions.get()
    if found is not None:
        found.append((size, limit))


def define_shape(shape: sizes, limit: Size | None) -> None:
    """For type rules: the sizes of a shape, as far as only a run tells them, are known once the op has run, and the
    product of any of them is then at most `limit`. Where steps bind such sizes, they check that."""
    found = _definitions.get()
    if found is not None:
        found.append((shape, limit))


@contextmanager
def definitions() -> Iterator[list[tuple[Size | sizes, Size | None]]]:
    """Collects what `define` and `define_shape` record: the latter as a tuple of sizes."""
    found: list[tuple[Size | sizes, Size | None]] = []
    token = _definitions.set(found)
    try:
        yield found
    finally:
        _definitions.reset(token)


def require(condition: bool, message: str | Callable[[], str]) -> None:
    """Raises OpError(message) unless the condition holds."""
    if not condition:
        raise OpError(message if isinstance(message, str) else message())


__all__ = [
    "OPS", "Example", "Op", "OpError", "UnknownValue", "assume_equal", "assumptions", "case", "define", "define_shape",
    "definitions", "ints", "op", "operand_names", "parse_type", "require", "require_at_most", "require_equal", "sample",
    "sizes", "split_commas",
]  # fmt: skip
