"""The kernel IR: one function as an immutable tree of loops over buffers.

Immutable, because kernels are hashed, cached, compared and rewritten. Two kernels that differ only in names have the
same `structure`, so a network of a hundred equal layers has one of each. Nothing here knows a target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

from ir import types as t
from ir.dims import Size, names, substitute, symbol
from ir.expr import Apply, Cast, Expr, Index, Load, Reduce, Var, children, transform, walk
from ir.types import DType, TensorType

Role: TypeAlias = Literal["in", "const", "out", "inout"]
Mark: TypeAlias = Literal["", "parallel", "vector", "unroll", "dot"]
"""How a loop may run: on several threads, as the lanes of vectors, written out, or as one product of short vectors."""


DOT_BYTES = 4
DOT_OPERANDS: dict[DType, tuple[DType, DType]] = {t.i32: (t.u8, t.i8), t.f32: (t.bf16, t.bf16)}
"""By the type of a sum: what is multiplied in a loop marked "dot", which adds the products of operands that fill
`DOT_BYTES` as one. Of floats each odd product is added before the even one, both with one rounding as a fused
multiply-add, and denormals count as zeros: what a target has an instruction for, and what it does where it has none."""


def dot_length(operand: DType) -> int:
    """How many products of an element type a loop marked "dot" adds."""
    return DOT_BYTES // operand.itemsize


@dataclass(frozen=True)
class Buffer:
    """A parameter of a kernel. "const" buffers are weights; "inout" ones are read and written in place."""

    name: str
    type: TensorType
    role: Role = "in"


@dataclass(frozen=True)
class For:
    """`for var in 0..extent mark { body }`. The extent is a size, or an expression where it depends on data."""

    var: str
    extent: Size | Expr
    body: tuple[Stmt, ...]
    mark: Mark = ""


@dataclass(frozen=True)
class Let:
    """`let name = value`: a name for a value, never assigned again."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Variable:
    """`var name = init`: a scalar that `Assign` changes."""

    name: str
    init: Expr


@dataclass(frozen=True)
class Assign:
    """`name = value`, or `name function= value` (add, mul, max, min, and, or)."""

    name: str
    value: Expr
    function: str | None = None


@dataclass(frozen=True)
class Local:
    """`local name: type`: an array of static shape on the stack, uninitialised, visible in the rest of its block."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Store:
    """`buffer[index] = value`, or `buffer[index] function= value`."""

    buffer: str
    index: tuple[Expr, ...]
    value: Expr
    function: str | None = None


@dataclass(frozen=True)
class If:
    """`if condition { then } else { orelse }`"""

    condition: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True)
class While:
    """`while condition { body }`"""

    condition: Expr
    body: tuple[Stmt, ...]


Stmt: TypeAlias = For | Let | Variable | Assign | Local | Store | If | While


@dataclass(frozen=True)
class Kernel:
    """A function over buffers. Symbolic sizes in its types and loops are its integer parameters."""

    name: str
    params: tuple[Buffer, ...]
    body: tuple[Stmt, ...]

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the symbolic sizes the kernel needs, sorted."""
        found: set[str] = set()
        for buffer in self.params:
            for size in buffer.type.shape:
                found |= names(size)
        bound: set[str] = set()
        for stmt in walk_stmts(self.body):
            if isinstance(stmt, For):
                bound.add(stmt.var)
                if not isinstance(stmt.extent, Expr):
                    found |= names(stmt.extent)
            if isinstance(stmt, Local):
                for size in stmt.type.shape:
                    found |= names(size)
            for expr in walk(*exprs_of(stmt)):
                if isinstance(expr, Index):
                    found |= names(expr.value)
                if isinstance(expr, Reduce):
                    bound |= {name for name, _ in expr.axes}
                    for _, extent in expr.axes:
                        found |= names(extent)
        return tuple(sorted(found - bound))

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.params if b.name == name)

    @property
    def structure(self) -> str:
        """A hash of everything but names: equal for kernels that do the same to buffers of the same types."""
        return structure(self)

    def __str__(self) -> str:
        from ir.text import kernel_text

        return kernel_text(self)


def blocks_of(stmt: Stmt) -> tuple[tuple[Stmt, ...], ...]:
    """The statement blocks directly inside a statement."""
    match stmt:
        case For(body=body) | While(body=body):
            return (body,)
        case If(then=then, orelse=orelse):
            return (then, orelse)
        case _:
            return ()


def exprs_of(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions directly in a statement, not those of nested statements."""
    match stmt:
        case For(extent=extent):
            return (extent,) if isinstance(extent, Expr) else ()
        case Let(value=value) | Assign(value=value):
            return (value,)
        case Variable(init=init):
            return (init,)
        case Store(index=index, value=value):
            return (*index, value)
        case If(condition=condition) | While(condition=condition):
            return (condition,)
        case _:
            return ()


def walk_stmts(block: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement of a block, in textual order, nested ones included."""
    for stmt in block:
        yield stmt
        for inner in blocks_of(stmt):
            yield from walk_stmts(inner)


def map_exprs(stmt: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """`stmt` with `change` applied to each of its direct expressions; nested blocks are kept."""
    match stmt:
        case For(extent=extent):
            return replace(stmt, extent=change(extent)) if isinstance(extent, Expr) else stmt
        case Let() | Assign():
            return replace(stmt, value=change(stmt.value))
        case Variable():
            return replace(stmt, init=change(stmt.init))
        case Store():
            return replace(stmt, index=tuple(change(e) for e in stmt.index), value=change(stmt.value))
        case If() | While():
            return replace(stmt, condition=change(stmt.condition))
        case _:
            return stmt


def map_blocks(stmt: Stmt, change: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]]) -> Stmt:
    """`stmt` with `change` applied to each block directly inside it."""
    match stmt:
        case For() | While():
            return replace(stmt, body=change(stmt.body))
        case If():
            return replace(stmt, then=change(stmt.then), orelse=change(stmt.orelse))
        case _:
            return stmt


def map_stmts(block: tuple[Stmt, ...], change: Callable[[Stmt], Stmt | tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """A block rebuilt from the innermost statements outwards; `change` gives one statement or several."""
    result: list[Stmt] = []
    for stmt in block:
        new = change(map_blocks(stmt, lambda inner: map_stmts(inner, change)))
        result.extend(new if isinstance(new, tuple) else (new,))
    return tuple(result)


def rename(kernel: Kernel, mapping: dict[str, str]) -> Kernel:
    """`kernel` with buffers, locals, variables, loop variables and sizes renamed; names not in `mapping` stay."""

    def name(old: str) -> str:
        return mapping.get(old, old)

    sizes_: dict[str, Size] = {old: symbol(new) for old, new in mapping.items()}

    def size(value: Size) -> Size:
        return substitute(value, sizes_)

    def type_(value: TensorType) -> TensorType:
        return value.with_shape(size(s) for s in value.shape)

    def one(expr: Expr) -> Expr | None:
        match expr:
            case Index():
                return Index(expr.dtype, size(expr.value))
            case Var():
                return Var(expr.dtype, name(expr.name))
            case Load():
                return Load(expr.dtype, name(expr.buffer), expr.index, expr.outside)
            case Reduce():
                return Reduce(expr.dtype, expr.function, tuple((name(v), size(e)) for v, e in expr.axes), expr.body)
            case _:
                return None

    memo: dict[Expr, Expr] = {}

    def stmt_(stmt: Stmt) -> Stmt:
        stmt = map_exprs(stmt, lambda e: transform(e, one, memo))
        match stmt:
            case For():
                extent = stmt.extent if isinstance(stmt.extent, Expr) else size(stmt.extent)
                return replace(stmt, var=name(stmt.var), extent=extent)
            case Let() | Variable() | Assign():
                return replace(stmt, name=name(stmt.name))
            case Local():
                return Local(name(stmt.name), type_(stmt.type))
            case Store():
                return replace(stmt, buffer=name(stmt.buffer))
            case _:
                return stmt

    params = tuple(Buffer(name(b.name), type_(b.type), b.role) for b in kernel.params)
    return Kernel(kernel.name, params, map_stmts(kernel.body, stmt_))


def canonical(kernel: Kernel) -> tuple[Kernel, dict[str, str]]:
    """`kernel` with names by order of appearance (b0.., s0.., v0..), and the mapping from old names to new."""
    mapping: dict[str, str] = {}
    for i, buffer in enumerate(kernel.params):
        mapping[buffer.name] = f"b{i}"
    counts = {"s": 0, "v": 0}

    def number(old: str, letter: str) -> None:
        if old not in mapping:
            mapping[old] = f"{letter}{counts[letter]}"
            counts[letter] += 1

    for buffer in kernel.params:
        for size in buffer.type.shape:
            for found in sorted(names(size)):
                number(found, "s")
    for stmt in walk_stmts(kernel.body):
        if isinstance(stmt, For):
            number(stmt.var, "v")
        elif isinstance(stmt, (Let, Variable, Local)):
            number(stmt.name, "v")
        for expr in walk(*exprs_of(stmt)):
            if isinstance(expr, Reduce):
                for var, _ in expr.axes:
                    number(var, "v")
    for size in kernel.sizes:
        number(size, "s")
    return rename(Kernel("k", kernel.params, kernel.body), mapping), mapping


def structure(kernel: Kernel) -> str:
    """See `Kernel.structure`."""
    return hashlib.sha256(fingerprint(canonical(kernel)[0]).encode()).hexdigest()[:16]


def fingerprint(kernel: Kernel) -> str:
    """All of a kernel but its own name as text, each distinct subexpression once: equal only for equal kernels."""
    numbers: dict[Expr, int] = {}
    rows: list[str] = []

    def number(root: Expr) -> int:
        stack = [root]
        while stack:
            expr = stack[-1]
            parts = children(expr)
            missing = [part for part in parts if part not in numbers]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if expr not in numbers:
                numbers[expr] = len(rows)
                rows.append(f"{_own_fields(expr)} of {[numbers[part] for part in parts]}")
        return numbers[root]

    def block(stmts: tuple[Stmt, ...]) -> str:
        return "{" + ";".join(map(one, stmts)) + "}"

    def one(stmt: Stmt) -> str:
        own = {f.name: getattr(stmt, f.name) for f in fields(stmt) if f.name not in ("body", "then", "orelse", "index")}
        plain = {key: value for key, value in own.items() if not isinstance(value, Expr)}
        exprs = [number(expr) for expr in exprs_of(stmt)]
        return f"{type(stmt).__name__}{plain}{exprs}" + "".join(map(block, blocks_of(stmt)))

    body = block(kernel.body)
    return f"{kernel.params}\n{body}\n" + "\n".join(rows)


def _own_fields(expr: Expr) -> str:
    """What an expression is apart from its subexpressions."""
    match expr:
        case Load(index=index, outside=outside):
            return f"load {expr.dtype} {expr.buffer} {len(index)} {outside is not None}"
        case Apply(function=function):
            return f"apply {expr.dtype} {function}"
        case Cast(saturate=saturate):
            return f"cast {expr.dtype} {saturate}"
        case Reduce(function=function, axes=axes):
            return f"reduce {expr.dtype} {function} {axes}"
        case _:
            return repr(expr)


__all__ = [
    "DOT_BYTES", "DOT_OPERANDS", "Assign", "Buffer", "For", "If", "Kernel", "Let", "Load", "Local", "Mark", "Role",
    "Stmt", "Store", "Variable", "While", "blocks_of", "canonical", "dot_length", "exprs_of", "fingerprint",
    "map_blocks", "map_exprs", "map_stmts", "rename", "walk_stmts",
]  # fmt: skip
