"""What must hold of a kernel: names and scopes, ranks, element types, and indices that stay inside their buffers.

An index is refused only where it provably leaves its buffer: everywhere, or for some iteration of loops whose extents
are independent of one another. Behind a condition nothing is refused, because the condition may be the proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from ir.dim_form import Name
from ir.dims import Size, bounded, decide_le, names, substitute, terms, upper_bound
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Reduce, Var, children
from ir.functions import FUNCTIONS
from ir.kernel import Assign, For, If, Kernel, Let, Local, Stmt, Store, Variable, While, blocks_of, walk_stmts
from ir.kernel_text import expr_text, stmt_text
from ir.types import DType, TensorType, bool_

MARKS = ("", "parallel", "vector", "unroll", "dot")
REDUCTIONS = ("add", "mul", "max", "min", "and", "or")


@dataclass(frozen=True)
class _Scope:
    """What is visible at one place. `loops` are the extents of enclosing loops and reductions, outermost first."""

    scalars: Mapping[str, tuple[DType, bool]] = field(default_factory=dict)
    buffers: Mapping[str, tuple[TensorType, str]] = field(default_factory=dict)
    loops: Mapping[str, Size | None] = field(default_factory=dict)
    guarded: bool = False

    def has(self, name: str) -> bool:
        return name in self.scalars or name in self.buffers or name in self.loops

    def with_loop(self, name: str, extent: Size | None) -> _Scope:
        """Inside a loop. One that never runs proves nothing either."""
        never = extent is not None and decide_le(extent, 0) is True
        return replace(self, loops={**self.loops, name: extent}, guarded=self.guarded or never)

    def behind_condition(self) -> _Scope:
        return self if self.guarded else replace(self, guarded=True)


def kernel_problems(kernel: Kernel) -> Iterator[str]:
    """One sentence for each rule that the kernel breaks."""
    buffers: dict[str, tuple[TensorType, str]] = {}
    sizes: set[str] = set()
    for param in kernel.params:
        if param.name in buffers:
            yield f"two parameters are called {param.name}"
        buffers[param.name] = (param.type, param.role)
        sizes |= {name for size in param.type.shape for name in names(size)}
    yield from (f"{name} is both a parameter and a size" for name in buffers if name in sizes)
    checker = _Checker({stmt.var for stmt in walk_stmts(kernel.body) if isinstance(stmt, For)}, sizes)
    yield from checker.block(kernel.body, _Scope(buffers=buffers))


class _Checker:
    """Walks a kernel. `loop_names` are all loop variables in it: outside of their loops they mean nothing."""

    def __init__(self, loop_names: set[str], sizes: set[str]) -> None:
        self.loop_names = loop_names
        self.sizes = sizes

    def block(self, block: tuple[Stmt, ...], scope: _Scope) -> Iterator[str]:
        for stmt in block:
            yield from (f"`{_head(stmt)}`: {problem}" for problem in self.stmt(stmt, scope))
            yield from self.nested(stmt, scope)
            match stmt:
                case Let(name=name, value=value):
                    scope = replace(scope, scalars={**scope.scalars, name: (value.dtype, False)})
                case Variable(name=name, init=init):
                    scope = replace(scope, scalars={**scope.scalars, name: (init.dtype, True)})
                case Local(name=name, type=type_):
                    scope = replace(scope, buffers={**scope.buffers, name: (type_, "local")})

    def stmt(self, stmt: Stmt, scope: _Scope) -> Iterator[str]:
        """Problems of a statement itself."""
        match stmt:
            case For():
                yield from self.loop(stmt, scope)
            case Let(name=name, value=value) | Variable(name=name, init=value):
                yield from self.new_name(name, scope)
                yield from self.expr(value, scope)
            case Assign():
                yield from self.assign(stmt, scope)
            case Local(name=name, type=type_):
                yield from self.new_name(name, scope)
                if not type_.is_static:
                    yield f"the local {name} has a symbolic shape"
            case Store():
                yield from self.store(stmt, scope)
            case If(condition=condition) | While(condition=condition):
                yield from self.condition(condition, scope)

    def nested(self, stmt: Stmt, scope: _Scope) -> Iterator[str]:
        """Problems of the blocks inside a statement."""
        match stmt:
            case For(var=var, extent=extent, body=body):
                fixed = extent.value if isinstance(extent, Index) else None if isinstance(extent, Expr) else extent
                with _bounded(var, fixed):
                    yield from self.block(body, scope.with_loop(var, fixed))
            case If() | While():
                for block in blocks_of(stmt):
                    yield from self.block(block, scope.behind_condition())

    def new_name(self, name: str, scope: _Scope) -> Iterator[str]:
        if scope.has(name) or name in self.sizes:
            yield f"the name {name} is taken here"

    def loop(self, stmt: For, scope: _Scope) -> Iterator[str]:
        yield from self.new_name(stmt.var, scope)
        if stmt.mark not in MARKS:
            yield f"there is no mark {stmt.mark!r}"
        extent = stmt.extent
        if isinstance(extent, Expr):
            yield from self.expr(extent, scope)
            if not extent.dtype.is_integer:
                yield f"the extent is {extent.dtype}"
        else:
            yield from self.size(extent, scope)

    def assign(self, stmt: Assign, scope: _Scope) -> Iterator[str]:
        dtype, is_variable = scope.scalars.get(stmt.name, (None, False))
        if not is_variable:
            yield f"{stmt.name} is not a variable here"
        yield from self.expr(stmt.value, scope)
        if dtype is not None and dtype != stmt.value.dtype:
            yield f"{stmt.name} is {dtype}, the value is {stmt.value.dtype}"
        yield from _update_problems(stmt.function)

    def store(self, stmt: Store, scope: _Scope) -> Iterator[str]:
        yield from self.index(stmt.buffer, stmt.index, scope)
        for part in (*stmt.index, stmt.value):
            yield from self.expr(part, scope)
        yield from _update_problems(stmt.function)
        if stmt.buffer not in scope.buffers:
            return
        type_, role = scope.buffers[stmt.buffer]
        if role in ("in", "const"):
            yield f"{stmt.buffer} is an {role} parameter and is not written"
        if type_.dtype != stmt.value.dtype:
            yield f"{stmt.buffer} is {type_}, the value is {stmt.value.dtype}"
        if not scope.guarded:
            yield from self.bounds(stmt.buffer, type_, stmt.index, scope)

    def condition(self, condition: Expr, scope: _Scope) -> Iterator[str]:
        yield from self.expr(condition, scope)
        if condition.dtype != bool_:
            yield f"the condition is {condition.dtype}"

    def size(self, size: Size, scope: _Scope) -> Iterator[str]:
        for name in sorted(names(size)):
            if name in scope.scalars or name in scope.buffers:
                yield f"{name} is not a size"
            elif name in self.loop_names and name not in scope.loops:
                yield f"the loop variable {name} is used outside of its loop"

    # Expressions.

    def expr(self, root: Expr, scope: _Scope) -> Iterator[str]:
        """Problems of an expression; what is behind a condition in it is checked as such."""
        seen: set[tuple[Expr, bool]] = set()
        stack: list[tuple[Expr, _Scope]] = [(root, scope)]
        while stack:
            expr, inner = stack.pop()
            if (expr, inner.guarded) in seen:
                continue
            seen.add((expr, inner.guarded))
            for problem in self.one(expr, inner):
                yield f"{problem}, in `{_short(expr_text(expr))}`"
            if isinstance(expr, Reduce):
                continue
            always = _required(expr)
            for position, part in enumerate(children(expr)):
                stack.append((part, inner if position < always else inner.behind_condition()))

    def one(self, expr: Expr, scope: _Scope) -> Iterator[str]:
        match expr:
            case Const():
                yield from _const_problems(expr)
            case Index(value=value):
                yield from self.size(value, scope)
            case Var(name=name, dtype=dtype):
                if name not in scope.scalars:
                    yield f"{name} is not defined here"
                elif scope.scalars[name][0] != dtype:
                    yield f"{name} is {scope.scalars[name][0]}, used as {dtype}"
            case Load():
                yield from self.load(expr, scope)
            case Reduce():
                yield from self.reduce(expr, scope)
            case Apply():
                yield from _apply_problems(expr)
            case Cast():
                if "string" in (expr.dtype.kind, expr.value.dtype.kind):
                    yield f"a kernel cannot convert {expr.value.dtype} to {expr.dtype}"

    def load(self, expr: Load, scope: _Scope) -> Iterator[str]:
        yield from self.index(expr.buffer, expr.index, scope)
        if expr.buffer not in scope.buffers:
            return
        type_, _ = scope.buffers[expr.buffer]
        if type_.dtype != expr.dtype:
            yield f"{expr.buffer} is {type_}, loaded as {expr.dtype}"
        if expr.outside is not None and expr.outside.dtype != expr.dtype:
            yield f"{expr.buffer} is {type_}, outside of it is {expr.outside.dtype}"
        if expr.outside is None and not scope.guarded:
            yield from self.bounds(expr.buffer, type_, expr.index, scope)

    def reduce(self, expr: Reduce, scope: _Scope) -> Iterator[str]:
        if expr.function not in REDUCTIONS:
            yield f"there is no reduction by {expr.function}"
        if expr.body.dtype != expr.dtype:
            yield f"the reduction is {expr.dtype}, its body {expr.body.dtype}"
        inner = scope
        for name, extent in expr.axes:
            yield from self.new_name(name, inner)
            yield from self.size(extent, inner)
            inner = inner.with_loop(name, extent)
        yield from self.within(expr, expr.axes, inner)

    def within(self, expr: Reduce, axes: tuple[tuple[str, Size], ...], scope: _Scope) -> Iterator[str]:
        """Problems of the body of a reduction, under the bounds of its axes."""
        if not axes:
            yield from self.expr(expr.body, scope)
            return
        with _bounded(*axes[0]):
            yield from self.within(expr, axes[1:], scope)

    def index(self, buffer: str, index: tuple[Expr, ...], scope: _Scope) -> Iterator[str]:
        if buffer not in scope.buffers:
            yield f"{buffer} is not a buffer here"
            return
        type_, _ = scope.buffers[buffer]
        if len(index) != type_.rank:
            yield f"{len(index)} indices into {buffer}: {type_}"
        yield from (f"an index into {buffer} is {part.dtype}" for part in index if not part.dtype.is_integer)

    def bounds(self, buffer: str, type_: TensorType, index: tuple[Expr, ...], scope: _Scope) -> Iterator[str]:
        """Where an index provably leaves the buffer."""
        for axis, (part, size) in enumerate(zip(index, type_.shape)):
            if not isinstance(part, Index):
                continue
            least, greatest = _extremes(part.value, scope)
            where = f"axis {axis} of {buffer}: {type_}"
            if size == 0 and names(least):
                continue  # what it is for has a size that turns out to be 0, too
            if decide_le(0, greatest) is False or decide_le(size, least) is True:
                yield f"the index {part.value} is always outside of {where}"
            elif decide_le(0, least) is False:
                yield f"the index {part.value} goes down to {least}, outside of {where}"
            elif decide_le(size, greatest) is True:
                yield f"the index {part.value} goes up to {greatest}, outside of {where}"


def _extremes(value: Size, scope: _Scope) -> tuple[Size, Size]:
    """The least and greatest value of an index over the loops around it where both are attained, else the value itself.

    They are where the index is a sum of multiples of loop variables whose extents do not depend on other loops.
    """
    least, greatest = value, value
    for factor, monomial in terms(value):
        if not any(atom.names & scope.loops.keys() for atom in monomial):
            continue
        if len(monomial) != 1 or not isinstance(monomial[0], Name):
            return value, value
        name = monomial[0].name
        extent = scope.loops[name]
        if extent is None or names(extent) & scope.loops.keys():
            return value, value
        low: dict[str, Size] = {name: 0}
        high: dict[str, Size] = {name: extent - 1}
        least = substitute(least, low if factor > 0 else high)
        greatest = substitute(greatest, high if factor > 0 else low)
    return least, greatest


def _bounded(name: str, extent: Size | None) -> AbstractContextManager[None]:
    top = None if extent is None else upper_bound(extent)
    return bounded({name: (0, None if top is None else max(0, int(top) - 1))})


def _required(expr: Expr) -> int:
    """How many of the first parts of an expression are computed whenever it is."""
    match expr:
        case Apply(function="select"):
            return 1
        case Apply(function="and" | "or", args=args) if args[0].dtype == bool_:
            return 1
        case Load(index=index):
            return len(index)
        case _:
            return len(children(expr))


def _apply_problems(expr: Apply) -> Iterator[str]:
    entry = FUNCTIONS.get(expr.function)
    if entry is None or len(expr.args) != entry.arity:
        yield f"there is no function {expr.function} of {len(expr.args)} arguments"
        return
    args = expr.args
    if expr.function == "select":
        if args[0].dtype != bool_:
            yield f"the condition is {args[0].dtype}"
        args = args[1:]
    if any(arg.dtype != args[0].dtype for arg in args):
        yield f"{expr.function} of {' and '.join(str(arg.dtype) for arg in args)}"
    result = bool_ if entry.is_predicate else args[0].dtype
    if expr.dtype != result:
        yield f"{expr.function} gives {result}, not {expr.dtype}"


def _const_problems(expr: Const) -> Iterator[str]:
    value, dtype = expr.value, expr.dtype
    expected = {"string": str, "bool": bool, "float": float, "complex": complex}.get(dtype.kind, int)
    if type(value) is not expected:
        yield f"the literal {value!r} is not a {dtype}"
    elif dtype.is_integer and isinstance(value, int):
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
        if not low <= value < low + (1 << dtype.bits):
            yield f"{value} does not fit {dtype}"


def _update_problems(function: str | None) -> Iterator[str]:
    if function is not None and (function not in FUNCTIONS or FUNCTIONS[function].arity != 2):
        yield f"there is no update by {function}"


def _head(stmt: Stmt) -> str:
    return _short(stmt_text(stmt).splitlines()[0])


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."
