"""Kernel expressions: what is computed for one element.

Immutable trees with structural equality. Index arithmetic is not a second language: an `Index` wraps a symbolic
size of `ir.dims` over loop variables and dims, so the normal form of `Dim` simplifies it. Nothing here knows a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from ir import types as t
from ir.dims import Dim, Size, Undecided, decide_eq, decide_le, symbol
from ir.functions import FUNCTIONS
from ir.types import DType


class _Hashed:
    """A place for the hash, which is computed once: expressions are compared and looked up all the time."""

    __slots__ = ("_hash",)
    _hash: int


@dataclass(frozen=True, eq=False, slots=True)
class Expr(_Hashed):
    """Base of all expressions. `dtype` is the type of the value; operators build further expressions."""

    dtype: DType

    def __add__(self, other: Operand) -> Expr:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return apply("div", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return apply("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return apply("floordiv", other, self)

    def __mod__(self, other: Operand) -> Expr:
        return apply("mod", self, other)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __and__(self, other: Operand) -> Expr:
        return apply("and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return apply("or", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return apply("ge", self, other)

    def equals(self, other: Operand) -> Expr:
        """The comparison as an expression (`==` compares the trees)."""
        return apply("eq", self, other)

    def differs(self, other: Operand) -> Expr:
        return apply("ne", self, other)

    def __bool__(self) -> bool:
        raise TypeError("an expression has no truth value while compiling; use select(condition, a, b)")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Expr) or type(self) is not type(other):
            return False
        return self._hash == other._hash and self._key() == other._key()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((type(self).__name__, *self._key())))

    def __hash__(self) -> int:
        return self._hash

    def _key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, eq=False, slots=True)
class Const(Expr):
    """A literal. Floats compare by their bits, so NaN equals NaN and 0.0 differs from -0.0."""

    value: int | float | bool | complex | str

    def _key(self) -> tuple[Any, ...]:
        return (self.dtype, repr(self.value))


@dataclass(frozen=True, eq=False, slots=True)
class Index(Expr):
    """An i64 whose value is a symbolic size over loop variables and dims."""

    value: Size


@dataclass(frozen=True, eq=False, slots=True)
class Var(Expr):
    """A scalar local of the kernel: bound by `Let`, or declared by `Variable` and assigned."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Load(Expr):
    """`buffer[index]`; where the index lies outside the buffer and `outside` is given, that value instead."""

    buffer: str
    index: tuple[Expr, ...]
    outside: Expr | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Apply(Expr):
    """A scalar function of `ir.functions` applied to arguments."""

    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Expr):
    """`value` converted to `dtype`. `saturate` clamps what does not fit a narrow float (ONNX Cast)."""

    value: Expr
    saturate: bool = True


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Expr):
    """`body` combined by `function` (add, mul, max, min, and, or) over `axes`, pairs of variable name and extent."""

    function: str
    axes: tuple[tuple[str, Size], ...]
    body: Expr


Operand: TypeAlias = "Expr | Size | float | bool"


def loop_var(name: str) -> Index:
    """The loop variable `name` as an expression."""
    return Index(t.i64, symbol(name))


def const(value: Any, dtype: DType) -> Const:
    """`value` as a literal of `dtype` (converted as NumPy converts, so that what is printed is what is meant)."""
    if dtype.kind == "string":
        return Const(dtype, str(value))
    if dtype.kind == "bool":
        return Const(dtype, bool(value))
    if dtype.is_integer:
        return Const(dtype, int(value))
    if dtype.kind == "complex":
        return Const(dtype, complex(value))
    return Const(dtype, float(dtype.numpy.type(value)))


def as_expr(value: Operand, like: DType) -> Expr:
    """`value` as an expression; a plain number takes the type `like`, a symbolic size is an i64 `Index`."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Dim):
        return cast(Index(t.i64, value), like)
    if like == t.i64 and isinstance(value, int) and not isinstance(value, bool):
        return Index(t.i64, value)
    return const(value, like)


def cast(value: Expr, dtype: DType, saturate: bool = True) -> Expr:
    """`value` as `dtype`; nothing where it is that already."""
    if value.dtype == dtype:
        return value
    if isinstance(value, Const) and dtype == t.i64 and value.dtype.is_integer:
        return Index(t.i64, int(value.value))  # type: ignore[arg-type]
    is_wide = dtype.kind in ("int", "uint", "float") and dtype.bits >= 32
    if isinstance(value, Index) and isinstance(value.value, int) and is_wide:
        return const(value.value, dtype)
    return Cast(dtype, value, saturate)


def apply(function: str, *args: Operand) -> Expr:
    """`function` applied to operands of one type (plain numbers take the type of the others)."""
    entry = FUNCTIONS[function]
    typed = [arg for arg in args if isinstance(arg, Expr)]
    like = next((a.dtype for a in typed if not isinstance(a, Index)), t.i64) if typed else t.i64
    if function == "select":
        condition, yes, no = args
        picked = next((a.dtype for a in (yes, no) if isinstance(a, Expr) and not isinstance(a, Index)), t.i64)
        exprs: tuple[Expr, ...] = (as_expr(condition, t.bool_), as_expr(yes, picked), as_expr(no, picked))
    else:
        exprs = tuple(as_expr(arg, like) for arg in args)
        exprs = tuple(cast(e, like) if isinstance(e, Index) else e for e in exprs)
    simple = _simplify(function, exprs)
    if simple is not None:
        return simple
    first = exprs[1].dtype if function == "select" else exprs[0].dtype
    return Apply(t.bool_ if entry.is_predicate else first, function, exprs)


def select(condition: Operand, yes: Operand, no: Operand) -> Expr:
    """`yes` where `condition` holds, else `no`."""
    return apply("select", condition, yes, no)


_INDEX_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}


def _simplify(function: str, args: tuple[Expr, ...]) -> Expr | None:
    if function == "select":
        condition, yes, no = args
        if isinstance(condition, Const):
            return yes if condition.value else no
        return yes if yes == no else None
    if function in ("and", "or") and args[0].dtype == t.bool_:
        return _simplify_logic(function, args)
    if not all(isinstance(arg, Index) for arg in args):
        return None
    values = [arg.value for arg in args if isinstance(arg, Index)]
    if function == "neg":
        return Index(t.i64, -values[0])
    if function in _INDEX_ARITHMETIC:
        if function in ("floordiv", "mod") and values[1] == 0:
            return None
        try:
            return Index(t.i64, _INDEX_ARITHMETIC[function](values[0], values[1]))
        except Undecided:
            return None
    if function in ("lt", "le", "gt", "ge", "eq", "ne"):
        verdict = _decide(function, values[0], values[1])
        return None if verdict is None else Const(t.bool_, verdict)
    if function in ("min", "max"):
        smaller = decide_le(values[0], values[1])
        if smaller is not None:
            return args[0] if smaller == (function == "min") else args[1]
    return None


def _decide(function: str, a: Size, b: Size) -> bool | None:
    if function in ("gt", "ge"):
        return _decide("lt" if function == "gt" else "le", b, a)
    if function == "le":
        return decide_le(a, b)
    if function == "lt":
        reverse = decide_le(b, a)
        return None if reverse is None else not reverse
    equal = decide_eq(a, b)
    return equal if equal is None or function == "eq" else not equal


def _simplify_logic(function: str, args: tuple[Expr, ...]) -> Expr | None:
    for one, other in (args, args[::-1]):
        if isinstance(one, Const):
            neutral = bool(one.value) == (function == "and")
            return other if neutral else one
    return args[0] if args[0] == args[1] else None


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions of `expr`."""
    match expr:
        case Load(index=index, outside=outside):
            return index if outside is None else (*index, outside)
        case Apply(args=args):
            return args
        case Cast(value=value):
            return (value,)
        case Reduce(body=body):
            return (body,)
        case _:
            return ()


def with_children(expr: Expr, new: Sequence[Expr]) -> Expr:
    """`expr` with its direct subexpressions replaced, simplified again."""
    match expr:
        case Load():
            rank = len(expr.index)
            return Load(expr.dtype, expr.buffer, tuple(new[:rank]), new[rank] if len(new) > rank else None)
        case Apply():
            simple = _simplify(expr.function, tuple(new))
            return simple if simple is not None else Apply(expr.dtype, expr.function, tuple(new))
        case Cast():
            return cast(new[0], expr.dtype, expr.saturate)
        case Reduce():
            return Reduce(expr.dtype, expr.function, expr.axes, new[0])
        case _:
            return expr


def transform(expr: Expr, change: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None) -> Expr:
    """`expr` rebuilt from the leaves up; `change` returns a replacement for a rebuilt node, or None to keep it."""
    memo = {} if memo is None else memo
    stack: list[tuple[Expr, bool]] = [(expr, False)]
    while stack:
        node, ready = stack.pop()
        if node in memo:
            continue
        parts = children(node)
        if not ready and parts:
            stack.append((node, True))
            stack.extend((part, False) for part in parts if part not in memo)
            continue
        new = [memo[part] for part in parts]
        rebuilt = node if all(a is b for a, b in zip(new, parts)) else with_children(node, new)
        replaced = change(rebuilt)
        memo[node] = rebuilt if replaced is None else replaced
    return memo[expr]


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct subexpression of `roots`, each once, parents before children."""
    seen: set[Expr] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(reversed(children(node)))
