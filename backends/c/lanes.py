"""What a vector loop looks like: which values differ from lane to lane, what lies side by side, what adds up as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backends.c.scalars import COMPARE
from ir import types as t
from ir.access import any_varies, is_contiguous, varies
from ir.dims import Size, substitute, symbol
from ir.element import highest, lowest
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Var, children, transform, walk
from ir.kernel import DOT_OPERANDS, For, Let, Stmt, Store, dot_length, exprs_of, map_exprs, walk_stmts
from ir.types import DType

MATH = ("exp", "log", "tanh", "sigmoid", "erf", "sqrt", "abs", "floor", "ceil", "round", "trunc")
"""Functions of f32 that vectors have, under these names."""
ELEMENTS = (t.f32, t.f64, t.i8, t.i16, t.i32, t.i64, t.u8, t.u16, t.u32, t.u64)
_WHOLE = ("round", "floor", "ceil", "trunc")


def factors_of(value: Expr, var: str) -> tuple[Load, Load]:
    """The loads of a product of two: the one that does not depend on `var`, and the one that does."""
    x, w = sorted((e for e in walk(value) if isinstance(e, Load)), key=lambda load: varies(load, var))
    return x, w


def indices_of(loop: For) -> tuple[Expr, ...]:
    """The indices at which the store of a loop of one reads and writes."""
    stores = [stmt for stmt in loop.body if isinstance(stmt, Store)]
    loads = [e for stmt in stores for e in walk(stmt.value) if isinstance(e, Load)]
    return tuple(i for access in (*stores, *loads) for i in access.index)


def is_dot(loop: For, var: str) -> bool:
    """Whether a loop marked "dot" in the vector loop over `var` adds products of operands that lie side by side: those
    of one place for all lanes, and those of the last axis behind that of the lanes."""
    store = loop.body[0] if loop.mark == "dot" and len(loop.body) == 1 else None
    if not isinstance(store, Store) or store.function != "add" or store.value.dtype not in DOT_OPERANDS:
        return False
    value = store.value
    if not is_contiguous(store.index, var) or any_varies(store.index, loop.var) or not isinstance(value, Apply):
        return False
    if value.function != "mul" or not all(isinstance(a, Cast) and isinstance(a.value, Load) for a in value.args):
        return False
    x, w = factors_of(value, var)
    if (x.dtype, w.dtype) != DOT_OPERANDS[value.dtype] or loop.extent != dot_length(w.dtype):
        return False
    if varies(x, var) or len(w.index) < 2:
        return False
    return (
        x.outside is None
        and w.outside is None
        and is_contiguous(x.index, loop.var)
        and is_contiguous(w.index[:-1], var)
        and w.index[-1] == Index(t.i64, symbol(loop.var))
        and not any_varies(w.index[:-1], loop.var)
    )


def first_of(load: Load, var: str) -> Load:
    """The load where `var` is 0."""

    def one(expr: Expr) -> Expr | None:
        return Index(t.i64, substitute(expr.value, {var: 0})) if isinstance(expr, Index) else None

    return Load(load.dtype, load.buffer, tuple(transform(i, one) for i in load.index))


def keeps_order(loop: For) -> bool:
    """Whether a buffer that the loop stores to is read at the stored element only, or beyond all that are stored, so
    that lanes are independent."""
    stores = {stmt.buffer: stmt.index for stmt in loop.body if isinstance(stmt, Store)}
    loads = [e for stmt in loop.body for e in walk(*exprs_of(stmt)) if isinstance(e, Load)]
    own = [(load.index, stores[load.buffer]) for load in loads if load.buffer in stores]
    return all(read == stored or _is_beyond(read, stored, loop.extent) for read, stored in own)


def _is_beyond(read: tuple[Expr, ...], stored: tuple[Expr, ...], extent: Size | Expr) -> bool:
    """Whether an index lies so far behind another that a loop of `extent` iterations never reaches it."""
    if read[:-1] != stored[:-1] or not isinstance(read[-1], Index) or not isinstance(stored[-1], Index):
        return False
    distance = read[-1].value - stored[-1].value
    return isinstance(distance, int) and isinstance(extent, int) and distance >= extent


class VectorCheck:
    """Whether the values of a vector loop can be computed for many of its iterations at once. `is_data` says which
    indices need a check, which is made for one element at a time, and `is_safe` what may be computed needlessly."""

    def __init__(self, loop: For, is_data: Callable[[Expr], bool], is_safe: Callable[[Expr], bool]) -> None:
        self.var = loop.var
        self.is_data = is_data
        self.is_safe = is_safe
        self._sure = _sure_loads(loop)
        self._known: dict[Expr, bool] = {}

    def value(self, expr: Expr) -> bool:
        """Whether there is vector code for a value: it is the same in all lanes, or made of what vectors can do."""
        if expr not in self._known:
            self._known[expr] = not varies(expr, self.var) or self._differs(expr)
        return self._known[expr]

    def _differs(self, expr: Expr) -> bool:
        match expr:
            case Load(index=index, outside=None):
                is_known = expr.dtype in ELEMENTS or expr.dtype == t.bf16
                return is_known and is_contiguous(index, self.var) and not any(map(self.is_data, index))
            case Cast(value=value) if {expr.dtype, value.dtype} == {t.f32, t.bf16}:
                return self.value(value)
            case _ if expr.dtype not in ELEMENTS:
                return False
            case Apply(function="select", args=(condition, *sides)):
                able = self._condition(condition, expr.dtype) and all(map(self.value, sides))
                return able and all(map(self._may_run, sides))
            case Apply(function=function, args=args):
                known = function in ("add", "sub", "mul", "neg", "max", "min")
                known = known or (function == "div" and expr.dtype.is_float)
                return (known or (function in MATH and expr.dtype == t.f32)) and all(map(self.value, args))
            case Cast(value=value):
                whole = value.dtype.is_integer or expr.dtype.is_float or is_narrowing(expr)
                return whole and value.dtype in ELEMENTS and self.value(value)
        return False

    def _may_run(self, expr: Expr) -> bool:
        """Whether a side of a choice may be computed for all lanes."""
        return self._sure.issuperset(e for e in walk(expr) if isinstance(e, Load)) or self.is_safe(expr)

    def _condition(self, expr: Expr, dtype: DType) -> bool:
        """Whether a condition is one bool for all lanes, or made of comparisons of values as wide as `dtype`."""
        if not varies(expr, self.var):
            return True
        match expr:
            case Apply(function="and" | "or" | "not", args=args):
                return all(varies(arg, self.var) and self._condition(arg, dtype) for arg in args)
            case Apply(function=function, args=args) if function in COMPARE or function == "isnan":
                fits = all(arg.dtype in ELEMENTS and arg.dtype.itemsize == dtype.itemsize for arg in args)
                return fits and all(map(self.value, args))
        return False


def _sure_loads(loop: For) -> set[Load]:
    """The loads of a loop that happen whatever is chosen."""
    stack = [expr for stmt in walk_stmts(loop.body) for expr in exprs_of(stmt)]
    found: set[Load] = set()
    seen: set[Expr] = set()
    while stack:
        expr = stack.pop()
        if expr in seen:
            continue
        seen.add(expr)
        if isinstance(expr, Load) and expr.outside is None:
            found.add(expr)
        is_choice = isinstance(expr, Apply) and expr.function == "select"
        stack.extend(children(expr)[:1] if is_choice or isinstance(expr, Load) else children(expr))
    return found


def is_narrowing(cast: Cast) -> bool:
    """Whether an f32 becomes an integer of 8 or 16 bits."""
    return cast.value.dtype == t.f32 and cast.dtype in (t.i8, t.u8, t.i16, t.u16)


def is_clamped(expr: Expr, dtype: DType) -> bool:
    """Whether a float is a maximum and minimum with bounds within the range of an integer type: inside it, or NaN."""
    low, high = lowest(dtype), highest(dtype)
    found: dict[str, bool] = {}
    while isinstance(expr, Apply) and expr.function in ("min", "max"):
        bound = next((arg for arg in expr.args if isinstance(arg, Const)), None)
        if bound is None:
            break
        found.setdefault(expr.function, low <= bound.value <= high)  # type: ignore[operator]
        expr = expr.args[0] if expr.args[1] is bound else expr.args[1]
    return found == {"min": True, "max": True}


def is_whole(expr: Expr) -> bool:
    """Whether a float is an integer, infinite or NaN."""
    match expr:
        case Const(value=value):
            return float(value).is_integer()  # type: ignore[arg-type]
        case Cast(value=value):
            return value.dtype.is_integer or is_whole(value)
        case Apply(function="add" | "sub" | "mul" | "neg" | "min" | "max", args=args):
            return all(map(is_whole, args))
        case Apply(function=function):
            return function in _WHOLE
    return False


def inlined(loop: For) -> For:
    """A loop without lets: what they name stands where it is used. The loop as it is where a store between the two may
    change what such a value reads."""
    if not any(isinstance(stmt, Let) for stmt in loop.body):
        return loop
    known: dict[str, Expr] = {}
    stale: set[str] = set()
    body: list[Stmt] = []
    for stmt in loop.body:
        if any(isinstance(e, Var) and e.name in stale for s in walk_stmts((stmt,)) for e in walk(*exprs_of(s))):
            return loop
        stmt = map_exprs(stmt, lambda e: transform(e, lambda x: known.get(x.name) if isinstance(x, Var) else None))
        if isinstance(stmt, Let):
            known[stmt.name] = stmt.value
            continue
        body.append(stmt)
        stored = {s.buffer for s in walk_stmts((stmt,)) if isinstance(s, Store)}
        stale |= {
            name
            for name, value in known.items()
            if any(isinstance(e, Load) and e.buffer in stored for e in walk(value))
        }
    return replace(loop, body=tuple(body))
