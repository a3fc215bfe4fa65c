"""What `Op.element` and `Op.kernel` are written with: tensors read by index, reductions, and the kernel builder.

The same element rule serves lone ops and fused groups: a tensor is either a buffer to load from or another op's
element rule to compose with, and the rule cannot tell which.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ir import types as t
from ir.demand import Pair, is_implied, may_stretch
from ir.dims import Size, bounded, minimum, names, upper_bound
from ir.expr import Expr, Index, Load, Operand, Reduce, Var, apply, as_expr, cast, const, loop_var, select
from ir.kernel import Assign, For, If, Let, Local, Mark, Stmt, Store, Variable, While
from ir.types import DType, TensorType


class Names:
    """Gives each local of a kernel a name of its own, near to the hint."""

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, hint: str) -> str:
        name, count = hint, 1
        while name in self._taken:
            count += 1
            name = f"{hint}{count}"
        self._taken.add(name)
        return name


_names: ContextVar[Names | None] = ContextVar("names", default=None)


@contextmanager
def naming(names: Names) -> Iterator[Names]:
    """Names reductions and locals from `names` while element rules run."""
    token = _names.set(names)
    try:
        yield names
    finally:
        _names.reset(token)


def _fresh(hint: str) -> str:
    names = _names.get()
    if names is None:
        names = Names()
        _names.set(names)
    return names.fresh(hint)


class Tensor:
    """A tensor that an element rule reads. `at` gives the element at an index as an expression."""

    def __init__(self, type_: TensorType, load: Callable[[tuple[Expr, ...], Expr | None], Expr]) -> None:
        self.type = type_
        self._load = load

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def at(self, *index: Operand, outside: Operand | None = None) -> Expr:
        """The element at `index`. With `outside`, an index out of range gives that value instead."""
        if len(index) != self.rank:
            raise ValueError(f"{len(index)} indices into {self.type}")
        exprs = tuple(as_expr(i, t.i64) for i in index)
        return self.load(exprs, None if outside is None else as_expr(outside, self.dtype))

    def load(self, index: tuple[Expr, ...], outside: Expr | None) -> Expr:
        """`at`, for what is an expression already: an i64 for each axis, and a value of this dtype or None."""
        return self._load(index, outside)

    def broadcast_at(self, index: Sequence[Operand]) -> Expr:
        """The element that NumPy broadcasting pairs with `index` of a result of at least this rank."""
        own = list(index)[len(index) - self.rank :]
        return self.at(*(0 if size == 1 else i for i, size in zip(own, self.shape)))

    def stretched_at(self, index: Sequence[Operand], shape: Sequence[Size]) -> Expr:
        """`broadcast_at` in a result of `shape`, where an axis of the tensor may turn out to be 1 when it runs."""
        own, sizes = list(index)[len(index) - self.rank :], shape[len(shape) - self.rank :]
        inner = [all(size == 1 for size in self.shape[axis + 1 :]) for axis in range(self.rank)]
        return self.at(*map(_stretched, own, self.shape, sizes, inner))


def _stretched(index: Operand, own: Size, size: Size, is_inner: bool) -> Operand:
    """The index along an axis of size `own`, which is `size` or 1, for one along an axis of `size`."""
    if own == 1:
        return 0
    if not may_stretch(own, size) or _is_aligned(own, size, is_inner):
        return index
    return as_expr(index, t.i64) * Index(t.i64, minimum(own - 1, 1))


@dataclass
class Alignment:
    """Which sizes `stretched_at` takes to be equal: those in `known`, and with `is_assumed` all whose elements lie one
    after another in memory and that have no symbol of `late`. These are then in `assumed`."""

    known: Collection[Pair] = ()
    is_assumed: bool = False
    late: Collection[str] = ()
    assumed: dict[Pair, None] = field(default_factory=dict)


_alignment: ContextVar[Alignment | None] = ContextVar("alignment", default=None)


@contextmanager
def aligned(alignment: Alignment) -> Iterator[Alignment]:
    """Has element rules take some sizes to be equal that could be 1 instead."""
    token = _alignment.set(alignment)
    try:
        yield alignment
    finally:
        _alignment.reset(token)


def _is_aligned(own: Size, size: Size, is_inner: bool) -> bool:
    alignment = _alignment.get() or Alignment()
    if is_implied((own, size), alignment.known):
        return True
    if alignment.is_assumed and is_inner and not (names(own) | names(size)) & set(alignment.late):
        alignment.assumed[own, size] = None
        return True
    return False


def buffer_tensor(name: str, type_: TensorType) -> Tensor:
    """The tensor that loads from buffer `name`."""

    def load(index: tuple[Expr, ...], outside: Expr | None) -> Expr:
        return Load(type_.dtype, name, index, guard(index, type_.shape, outside))

    return Tensor(type_, load)


def guard(index: Sequence[Expr], shape: Sequence[Size], outside: Expr | None) -> Expr | None:
    """`outside` where the index may leave `shape`, None where it provably cannot."""
    return None if outside is None or inside(index, shape) is True else outside


def inside(index: Sequence[Expr], shape: Sequence[Size]) -> Expr | bool:
    """The condition that `index` lies within `shape`; True or False where decided."""
    conditions: list[Expr] = []
    for i, size in zip(index, shape):
        for condition in (apply("ge", i, 0), apply("lt", i, Index(t.i64, size))):
            if getattr(condition, "value", None) is False:
                return False
            if getattr(condition, "value", None) is not True:
                conditions.append(condition)
    result: Expr | None = None
    for condition in conditions:
        result = condition if result is None else result & condition
    return True if result is None else result


def computed_tensor(type_: TensorType, element: Callable[[tuple[Expr, ...]], Expr]) -> Tensor:
    """The tensor whose elements are computed by `element(index)` (a fused producer)."""
    memo: dict[tuple[Expr, ...], Expr] = {}

    def load(index: tuple[Expr, ...], outside: Expr | None) -> Expr:
        if index not in memo:
            memo[index] = element(index)
        value = memo[index]
        if outside is None:
            return value
        condition = inside(index, type_.shape)
        if isinstance(condition, bool):
            return value if condition else outside
        return select(condition, value, outside)

    return Tensor(type_, load)


def _reduce(function: str, extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    parameters = list(inspect.signature(body).parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        hints = [f"r{i}" for i in range(len(extents))]
    else:
        hints = [p.name for p in parameters]
    axes = [None if extent == 1 else (_fresh(hint), extent) for hint, extent in zip(hints, extents)]
    loops = [axis for axis in axes if axis is not None]
    with bounded({v: (0, None if (top := upper_bound(e)) is None else max(0, int(top) - 1)) for v, e in loops}):
        value = body(*(Index(t.i64, 0) if axis is None else loop_var(axis[0]) for axis in axes))
    return Reduce(value.dtype, function, tuple(loops), value) if loops else value


def sum_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    """The sum of `body(*index)` over 0 <= index < extents, in ascending order of the last index first."""
    return _reduce("add", extents, body)


def prod_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    return _reduce("mul", extents, body)


def max_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    return _reduce("max", extents, body)


def min_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    return _reduce("min", extents, body)


def any_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    return _reduce("or", extents, body)


def all_over(extents: Sequence[Size], body: Callable[..., Expr]) -> Expr:
    return _reduce("and", extents, body)


def lowest(dtype: DType) -> Any:
    """The identity of max: -inf, the least integer, or False."""
    if dtype.kind == "bool":
        return False
    if dtype.kind == "uint":
        return 0
    return -(1 << (dtype.bits - 1)) if dtype.is_integer else float("-inf")


def highest(dtype: DType) -> Any:
    """The identity of min: +inf, the greatest integer, or True."""
    if dtype.kind == "bool":
        return True
    if dtype.is_integer:
        return (1 << (dtype.bits - (dtype.kind == "int"))) - 1
    return float("inf")


def identity(function: str, dtype: DType) -> Expr:
    """The value that leaves `function` unchanged."""
    neutral = {"add": 0, "mul": 1, "max": lowest(dtype), "min": highest(dtype), "or": False, "and": True}
    return const(neutral[function], dtype)


class KernelBuilder:
    """Writes a loop nest in order, for `Op.kernel`:

    with k.loop(n=N, t=T) as (n, t):
        k.store(out, (n, t), x.at(n, t) * 2)
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._blocks: list[list[Stmt]] = [[]]

    @property
    def body(self) -> tuple[Stmt, ...]:
        return tuple(self._blocks[0])

    def _add(self, stmt: Stmt) -> None:
        self._blocks[-1].append(stmt)

    @contextmanager
    def block(self) -> Iterator[list[Stmt]]:
        """Collects the statements written inside into a list."""
        self._blocks.append([])
        try:
            yield self._blocks[-1]
        finally:
            self._blocks.pop()

    @contextmanager
    def loop(self, mark: Mark = "", **extents: Size | Expr) -> Iterator[Any]:
        """Nested loops, outermost first; yields the loop variable, or a tuple where there are several."""
        variables = [self.names.fresh(hint) for hint in extents]
        tops = [None if isinstance(e, Expr) else upper_bound(e) for e in extents.values()]
        ranges = {v: (0, None if top is None else max(0, int(top) - 1)) for v, top in zip(variables, tops)}
        with self.block() as body, bounded(ranges):
            yield loop_var(variables[0]) if len(variables) == 1 else tuple(loop_var(v) for v in variables)
        inner = tuple(body)
        for variable, extent in reversed(list(zip(variables, extents.values()))):
            inner = (For(variable, extent, inner, mark if variable == variables[0] else ""),)
        self._add(inner[0])

    def let(self, name: str, value: Operand, dtype: DType = t.i64) -> Expr:
        """A name for a value."""
        expr = as_expr(value, dtype)
        unique = self.names.fresh(name)
        self._add(Let(unique, expr))
        return Var(expr.dtype, unique)

    def variable(self, name: str, init: Operand, dtype: DType) -> Var:
        """A scalar that `assign` changes."""
        unique = self.names.fresh(name)
        self._add(Variable(unique, as_expr(init, dtype)))
        return Var(dtype, unique)

    def assign(self, variable: Var, value: Operand, function: str | None = None) -> None:
        self._add(Assign(variable.name, as_expr(value, variable.dtype), function))

    def local(self, name: str, type_: TensorType) -> Output:
        """An array of static shape on the stack; small (some KiB), uninitialised."""
        unique = self.names.fresh(name)
        self._add(Local(unique, type_))
        return Output(unique, type_)

    def store(self, out: Output, index: Sequence[Operand], value: Operand, function: str | None = None) -> None:
        self._add(Store(out.name, tuple(as_expr(i, t.i64) for i in index), as_expr(value, out.dtype), function))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        with self.block() as body:
            yield
        self._add(If(condition, tuple(body)))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """The else of the `when` just written."""
        last = self._blocks[-1].pop()
        if not isinstance(last, If):
            raise ValueError("otherwise() must follow when()")
        with self.block() as body:
            yield
        self._add(If(last.condition, last.then, tuple(body)))

    @contextmanager
    def during(self, condition: Expr) -> Iterator[None]:
        """A while loop."""
        with self.block() as body:
            yield
        self._add(While(condition, tuple(body)))


class Output(Tensor):
    """A buffer that a kernel writes; it can be read back as well."""

    def __init__(self, name: str, type_: TensorType) -> None:
        super().__init__(type_, buffer_tensor(name, type_).load)
        self.name = name


__all__ = [
    "Alignment", "KernelBuilder", "Names", "Output", "Tensor", "aligned", "all_over", "any_over", "apply",
    "buffer_tensor", "cast", "computed_tensor", "const", "guard", "highest", "identity", "inside", "lowest", "max_over",
    "min_over", "naming", "prod_over", "select", "sum_over",
]  # fmt: skip
