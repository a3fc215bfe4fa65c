"""Kernels from their syntax trees.

Every infix form makes the tree that was printed: two indices under + - * // % fold into one index, and nothing else is
simplified. Expressions are read without recursion, except for the bodies of reductions. What a kernel means is checked
by `ir.verify`, not here.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ir.dims import Size, Undecided, parse_dim
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Reduce, Var, const, loop_var
from ir.functions import FUNCTIONS
from ir.kernel import Assign, Buffer, For, If, Kernel, Let, Local, Stmt, Store, Variable, While
from ir.kernel_text import FOLDED, UPDATES
from ir.parse import ParseError, error_at, plain_name, subtrees, tensor_type, tokens, unquoted
from ir.types import DTYPES, DType, bool_, f32, i64, string

if TYPE_CHECKING:
    from lark import Token, Tree

    Branch = Tree[Token]

_FUNCTION_OF_INFIX = {entry.infix: name for name, entry in FUNCTIONS.items() if entry.infix}
_FUNCTION_OF_UPDATE = {text: name for name, text in UPDATES.items()}
_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv, "mod": operator.mod,
}  # fmt: skip
_SIZE_TREES = frozenset(("int", "named", "name", "infix", "negative", "power", "call"))
_SIZE_CALLS = frozenset(("min", "max"))


@dataclass(frozen=True)
class _Scope:
    """What names mean at one place: types of scalars, and of the elements of buffers. Other names are sizes."""

    scalars: Mapping[str, DType] = field(default_factory=dict)
    buffers: Mapping[str, DType] = field(default_factory=dict)

    def with_scalar(self, name: str, dtype: DType) -> _Scope:
        return replace(self, scalars={**self.scalars, name: dtype})

    def with_buffer(self, name: str, dtype: DType) -> _Scope:
        return replace(self, buffers={**self.buffers, name: dtype})

    def with_indices(self, names: Sequence[str]) -> _Scope:
        if not any(name in self.scalars for name in names):
            return self
        return replace(self, scalars={k: v for k, v in self.scalars.items() if k not in names})


def read_kernel(text: str, tree: Branch) -> Kernel:
    """The kernel of a syntax tree of `text`. Raises ParseError."""
    reader = _KernelReader(text)
    *params, body = subtrees(tree)
    buffers = tuple(reader.param(param) for param in params)
    scope = _Scope(buffers={buffer.name: buffer.type.dtype for buffer in buffers})
    return Kernel(unquoted(tokens(tree)[0]), buffers, reader.block(body, scope))


class _KernelReader:
    """Turns syntax trees of one text into statements and expressions."""

    def __init__(self, text: str) -> None:
        self.text = text

    def error(self, place: Branch | Token, message: str) -> ParseError:
        return error_at(self.text, place, message)

    def name(self, tree: Branch) -> str:
        return plain_name(tokens(tree)[0])

    def dtype(self, token: Token) -> DType:
        if token not in DTYPES:
            raise self.error(token, f"there is no element type {str(token)!r}")
        return DTYPES[token]

    def param(self, tree: Branch) -> Buffer:
        role, name = subtrees(tree)
        return Buffer(self.name(name), self.tensor(tree), str(tokens(role)[0]))  # type: ignore[arg-type]

    def tensor(self, tree: Branch) -> Any:
        token = tokens(tree, "TENSOR")[0]
        try:
            return tensor_type(str(token))
        except ValueError as error:
            raise self.error(token, str(error)) from error

    # Statements.

    def block(self, tree: Branch, scope: _Scope) -> tuple[Stmt, ...]:
        made: list[Stmt] = []
        for part in subtrees(tree):
            stmt = self.stmt(part, scope)
            made.append(stmt)
            if isinstance(stmt, Let):
                scope = scope.with_scalar(stmt.name, stmt.value.dtype)
            elif isinstance(stmt, Variable):
                scope = scope.with_scalar(stmt.name, stmt.init.dtype)
            elif isinstance(stmt, Local):
                scope = scope.with_buffer(stmt.name, stmt.type.dtype)
        return tuple(made)

    def stmt(self, tree: Branch, scope: _Scope) -> Stmt:
        parts = subtrees(tree)
        match tree.data:
            case "loop":
                return self.loop(parts[:-1], parts[-1], scope)
            case "let" | "variable":
                value = self.expr(parts[1], scope)
                if value.dtype != self.dtype(tokens(tree, "NAME")[0]):
                    raise self.error(parts[1], f"this is {value.dtype}")
                return (Let if tree.data == "let" else Variable)(self.name(parts[0]), value)
            case "local":
                return Local(self.name(parts[0]), self.tensor(tree))
            case "assign":
                return Assign(self.name(parts[0]), self.expr(parts[2], scope), self.update(parts[1]))
            case "store":
                index = tuple(self.expr(part, scope) for part in subtrees(parts[1]))
                return Store(self.name(parts[0]), index, self.expr(parts[3], scope), self.update(parts[2]))
            case "while":
                return While(self.expr(parts[0], scope), self.block(parts[1], scope))
            case _:
                return self.if_(tree, scope)

    def loop(self, ranges: list[Branch], body: Branch, scope: _Scope) -> Stmt:
        heads: list[tuple[str, Size | Expr, Any]] = []
        for part in ranges:
            name, extent, *mark = subtrees(part)
            heads.append((self.name(name), self.extent(extent, scope), str(tokens(mark[0])[0]) if mark else ""))
            scope = scope.with_indices([heads[-1][0]])
        block = self.block(body, scope)
        for name, extent, mark in reversed(heads[1:]):
            block = (For(name, extent, block, mark),)
        return For(heads[0][0], heads[0][1], block, heads[0][2])

    def if_(self, tree: Branch, scope: _Scope) -> Stmt:
        chain: list[tuple[Expr, tuple[Stmt, ...]]] = []
        orelse: tuple[Stmt, ...] = ()
        rest: Branch | None = tree
        while rest is not None:
            condition, then, *other = subtrees(rest)
            chain.append((self.expr(condition, scope), self.block(then, scope)))
            rest = other[0] if other and other[0].data == "if_" else None
            if other and rest is None:
                orelse = self.block(other[0], scope)
        made: If | None = None
        for condition_, then_ in reversed(chain):
            made = If(condition_, then_, orelse if made is None else (made,))
        assert made is not None
        return made

    def update(self, tree: Branch) -> str | None:
        if not tree.children:
            return None
        token = tokens(tree)[0]
        name = _FUNCTION_OF_UPDATE.get(token, token[:-1])
        if name not in FUNCTIONS or FUNCTIONS[name].arity != 2:
            raise self.error(token, f"there is no update {str(token)!r}")
        return name

    # Sizes.

    def slice(self, tree: Branch) -> str:
        return self.text[tree.meta.start_pos : tree.meta.end_pos]

    def size(self, tree: Branch) -> Size:
        try:
            return parse_dim(self.slice(tree))
        except ValueError as error:
            raise self.error(tree, str(error)) from error

    def extent(self, tree: Branch, scope: _Scope) -> Size | Expr:
        """A size, or an expression where it depends on data; `value(...)` makes an expression of a size."""
        if tree.data == "call" and tokens(tree)[0] == "value":
            return self.expr(subtrees(tree)[0], scope)
        is_size = all(
            part.data in _SIZE_TREES
            and not (part.data == "int" and tokens(part, "NAME"))
            and not (part.data == "name" and self.name(part) in scope.scalars)
            and not (part.data == "call" and tokens(part)[0] not in _SIZE_CALLS)
            and not (part.data == "infix" and tokens(part)[0].type in ("COMPARED", "BAR", "CARET", "AND", "SHIFTED"))
            for part in tree.iter_subtrees()
        )
        return self.size(tree) if is_size else self.expr(tree, scope)

    # Expressions.

    def expr(self, root: Branch, scope: _Scope) -> Expr:
        done: dict[int, Expr] = {}
        stack: list[tuple[Branch, bool]] = [(root, False)]
        while stack:
            tree, ready = stack.pop()
            parts = _operands(tree)
            if parts and not ready:
                stack.append((tree, True))
                stack.extend((part, False) for part in parts)
                continue
            try:
                done[id(tree)] = self.one(tree, [done[id(part)] for part in parts], scope)
            except (Undecided, ZeroDivisionError, OverflowError) as error:
                raise self.error(tree, str(error)) from error
        return done[id(root)]

    def one(self, tree: Branch, parts: list[Expr], scope: _Scope) -> Expr:
        """The expression of a tree whose operands are read."""
        match tree.data:
            case "int" | "float" | "complex":
                return self.number(tree)
            case "true" | "false":
                return const(tree.data == "true", bool_)
            case "string":
                return const(json.loads(tokens(tree)[0]), string)
            case "named":
                name = self.name(subtrees(tree)[0])
                return Var(scope.scalars[name], name) if name in scope.scalars else loop_var(name)
            case "load":
                name = self.name(subtrees(tree)[0])
                if name not in scope.buffers:
                    raise self.error(tree, f"there is no buffer {name!r} here")
                return Load(scope.buffers[name], name, tuple(parts))
            case "guarded":
                if not isinstance(parts[0], Load) or parts[0].outside is not None:
                    raise self.error(tree, "`or` gives the value of a load outside of its buffer")
                return replace(parts[0], outside=parts[1])
            case "negative":
                return _negative(parts[0])
            case "power":
                return self.power(tree, parts[0])
            case "infix":
                token = tokens(tree)[0]
                return self.apply(tree, _FUNCTION_OF_INFIX[str(token)], parts, folds=True)
            case "call":
                return self.call(tree, parts)
            case "reduction":
                return self.reduction(tree, scope)
        raise self.error(tree, "this is not an expression")

    def number(self, tree: Branch) -> Expr:
        """A literal: bare integers are indices, bare floats f32, others have their type after a colon."""
        named = tokens(tree, "NAME")
        if tree.data == "complex":
            return const(complex(*(float("".join(tokens(part))) for part in subtrees(tree))), self.dtype(named[0]))
        token = tokens(tree)[0]
        value = int(token) if tree.data == "int" else float(token)
        if not named:
            return Index(i64, value) if isinstance(value, int) else const(value, f32)
        return const(value, self.dtype(named[0]))

    def power(self, tree: Branch, base: Expr) -> Expr:
        if not isinstance(base, Index):
            raise self.error(tree, "`**` is for sizes; use pow(x, y)")
        return Index(i64, self.size(tree))

    def apply(self, tree: Branch, function: str, args: list[Expr], folds: bool = False) -> Expr:
        entry = FUNCTIONS.get(function)
        if entry is None or len(args) != entry.arity:
            raise self.error(tree, f"there is no function {function} of {len(args)} arguments")
        if folds and function in FOLDED and all(isinstance(arg, Index) for arg in args):
            return Index(i64, _FOLD[function](*(getattr(arg, "value") for arg in args)))  # noqa: B009
        first = args[1 if function == "select" else 0].dtype
        return Apply(bool_ if entry.is_predicate else first, function, tuple(args))

    def call(self, tree: Branch, args: list[Expr]) -> Expr:
        name, *wraps = tokens(tree)
        if name == "dim":
            found = re.fullmatch(r"dim\s*\((.*)\)", self.slice(tree), re.DOTALL)
            try:
                return Index(i64, parse_dim(found[1] if found else ""))
            except ValueError as error:
                raise self.error(tree, str(error)) from error
        if name in DTYPES:
            if len(args) != 1:
                raise self.error(tree, f"{name}(x) converts one value")
            return Cast(DTYPES[name], args[0], not wraps)
        return self.apply(tree, str(name), args)

    def reduction(self, tree: Branch, scope: _Scope) -> Expr:
        *ranges, body = subtrees(tree)
        axes = []
        for part in ranges:
            name, extent, *_ = subtrees(part)
            axes.append((self.name(name), self.size(extent)))
        value = self.expr(body, scope.with_indices([name for name, _ in axes]))
        return Reduce(value.dtype, str(tokens(tree)[0]), tuple(axes), value)


def _operands(tree: Branch) -> list[Branch]:
    """The trees of an expression's operands; a reduction reads its own body."""
    match tree.data:
        case "load":
            return subtrees(subtrees(tree)[1])
        case "infix" | "negative" | "power" | "guarded" | "call":
            return [] if tree.data == "call" and tokens(tree)[0] == "dim" else subtrees(tree)
        case _:
            return []


def _negative(value: Expr) -> Expr:
    """Minus a number is a literal, minus an index an index."""
    if isinstance(value, Index):
        return Index(i64, -value.value)
    if isinstance(value, Const) and not isinstance(value.value, (bool, str)):
        return Const(value.dtype, -value.value)
    return Apply(value.dtype, "neg", (value,))
