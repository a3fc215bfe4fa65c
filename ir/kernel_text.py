"""The text of kernels: statements as lines, expressions with the least parentheses that read back as the same tree.

An expression is printed without recursion, so that a deep fused chain prints. This module only reads what it prints.
"""

from __future__ import annotations

import json
import re

from ir.dims import Dim, Size
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Reduce, Var, children, walk
from ir.functions import FUNCTIONS
from ir.kernel import Assign, For, If, Kernel, Let, Local, Stmt, Store, Variable, While
from ir.text import literal_text, name_text, size_text, value_name
from ir.types import bool_, f32, string

KERNEL_WORDS = frozenset((
    "for", "in", "if", "else", "while", "var", "let", "local", "or", "over", "parallel", "vector", "unroll", "dot",
    "true", "false", "inf", "nan", "complex", "const", "out", "inout",
))  # fmt: skip
"""Words that mean something in a kernel's text, so a name equal to one is quoted."""

ATOM, UNARY, PRODUCT, SUM, SHIFT, AND, XOR, OR, COMPARISON = range(9)
"""How tightly an expression binds, tightest first (as in Python)."""

_LEVEL_OF_INFIX = {
    "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "+": SUM, "-": SUM, "<<": SHIFT, ">>": SHIFT,
    "&": AND, "^": XOR, "|": OR, "<": COMPARISON, "<=": COMPARISON, ">": COMPARISON, ">=": COMPARISON, "==": COMPARISON,
    "!=": COMPARISON,
}  # fmt: skip
FOLDED = frozenset(("add", "sub", "mul", "floordiv", "mod"))
"""Functions whose infix form on two indices is an index again; a tree that does not fold them is printed as a call."""
UPDATES = {"add": "+=", "sub": "-=", "mul": "*=", "and": "&=", "or": "|="}
_OUTER = re.compile(r"`(?:[^`\\]|\\.)*`|[^`]", re.DOTALL)
_UNREADABLE_INDEX = re.compile(r"(?<!/)/(?!/)|\b(?:min|max)\(")

_Text = tuple[str, int]


def kernel_lines(kernel: Kernel) -> list[str]:
    """The lines of a kernel's text."""
    params = ", ".join(f"{b.role} {_name(b.name)}: {b.type}" for b in kernel.params)
    return [f"kernel @{value_name(kernel.name)}({params}) {{", *_block(kernel.body, "  "), "}"]


def expr_text(expr: Expr) -> str:
    """The text of an expression."""
    return _printed(expr)[0]


def stmt_text(stmt: Stmt) -> str:
    """The text of a statement, nested blocks included."""
    return "\n".join(_block((stmt,), ""))


def _name(name: str) -> str:
    return name_text(name, KERNEL_WORDS)


def _size(size: Size) -> str:
    return size_text(size, KERNEL_WORDS)


def _block(block: tuple[Stmt, ...], indent: str) -> list[str]:
    lines: list[str] = []
    for stmt in block:
        lines.extend(_stmt_lines(stmt, indent))
    return lines


def _stmt_lines(stmt: Stmt, indent: str) -> list[str]:
    match stmt:
        case For():
            return _loop_lines(stmt, indent)
        case If():
            return _if_lines(stmt, indent)
        case While(condition=condition, body=body):
            return [f"{indent}while {expr_text(condition)} {{", *_block(body, indent + "  "), indent + "}"]
        case Let(name=name, value=value):
            return [f"{indent}let {_name(name)}: {value.dtype} = {expr_text(value)}"]
        case Variable(name=name, init=init):
            return [f"{indent}var {_name(name)}: {init.dtype} = {expr_text(init)}"]
        case Assign(name=name, value=value, function=function):
            return [f"{indent}{_name(name)} {_update(function)} {expr_text(value)}"]
        case Local(name=name, type=type_):
            return [f"{indent}local {_name(name)}: {type_}"]
        case Store(buffer=buffer, index=index, value=value, function=function):
            return [f"{indent}{_name(buffer)}[{_arguments(index)}] {_update(function)} {expr_text(value)}"]


def _update(function: str | None) -> str:
    return "=" if function is None else UPDATES.get(function, f"{function}=")


def _loop_lines(stmt: For, indent: str) -> list[str]:
    """Loops that contain nothing but the next loop share one line."""
    ranges: list[str] = []
    inner: Stmt = stmt
    body: tuple[Stmt, ...] = (stmt,)
    while len(body) == 1 and isinstance(inner := body[0], For):
        ranges.append(f"{_name(inner.var)} in 0..{_extent(inner.extent)}" + (f" {inner.mark}" if inner.mark else ""))
        body = inner.body
    return [f"{indent}for {', '.join(ranges)} {{", *_block(body, indent + "  "), indent + "}"]


def _extent(extent: Size | Expr) -> str:
    """A size; an expression, inside `value(...)` where it would read as a size."""
    if not isinstance(extent, Expr):
        return _size(extent)
    reads_as_size = all(isinstance(part, (Index, Apply)) for part in walk(extent))
    return f"value({expr_text(extent)})" if reads_as_size else expr_text(extent)


def _if_lines(stmt: If, indent: str) -> list[str]:
    lines = [f"{indent}if {expr_text(stmt.condition)} {{", *_block(stmt.then, indent + "  ")]
    orelse = stmt.orelse
    while len(orelse) == 1 and isinstance(chained := orelse[0], If):
        lines += [f"{indent}}} else if {expr_text(chained.condition)} {{", *_block(chained.then, indent + "  ")]
        orelse = chained.orelse
    if orelse:
        lines += [f"{indent}}} else {{", *_block(orelse, indent + "  ")]
    return [*lines, indent + "}"]


def _arguments(exprs: tuple[Expr, ...]) -> str:
    return ", ".join(expr_text(expr) for expr in exprs)


def _printed(root: Expr) -> _Text:
    """The text of an expression and how tightly it binds; shared parts are printed once and repeated."""
    done: dict[Expr, _Text] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if expr in done:
            continue
        parts = children(expr)
        if parts and not ready:
            stack.append((expr, True))
            stack.extend((part, False) for part in parts)
            continue
        done[expr] = _one(expr, [done[part] for part in parts])
    return done[root]


def _one(expr: Expr, parts: list[_Text]) -> _Text:
    """The text of an expression whose parts are printed."""
    match expr:
        case Const():
            return _const_text(expr)
        case Index(value=value):
            return index_text(value)
        case Var(name=name):
            return _name(name), ATOM
        case Load(buffer=buffer, index=index, outside=outside):
            load = f"{_name(buffer)}[{', '.join(text for text, _ in parts[: len(index)])}]"
            return (load if outside is None else f"({load} or {parts[-1][0]})"), ATOM
        case Cast(dtype=dtype, saturate=saturate):
            return f"{dtype}({parts[0][0]}{'' if saturate else ', saturate=false'})", ATOM
        case Reduce(function=function, axes=axes):
            ranges = ", ".join(f"{_name(var)} in 0..{_size(extent)}" for var, extent in axes)
            return f"{function} over ({ranges}) {{ {parts[0][0]} }}", ATOM
        case Apply():
            return _apply_text(expr, parts)
    raise TypeError(f"{type(expr).__name__} is not a kernel expression")


def _const_text(expr: Const) -> _Text:
    """Floats are f32, `true` and `false` bool, and strings string; any other type follows after a colon."""
    value, dtype = expr.value, expr.dtype
    text = json.dumps(value) if isinstance(value, str) else literal_text(value, dtype)
    implied = {bool: bool_, float: f32, str: string}.get(type(value))
    level = UNARY if text.startswith("-") else ATOM
    return (text if dtype == implied else f"{text}:{dtype}"), level


def index_text(size: Size) -> _Text:
    """An index: its dim with spaces around the outermost + and -; in `dim(...)` where it has functions or fractions."""
    text = _size(size)
    if not isinstance(size, Dim):
        return text, UNARY if text.startswith("-") else ATOM
    if _UNREADABLE_INDEX.search(text):
        return f"dim({text})", ATOM
    depth, spaced, level = 0, [], ATOM
    for position, match in enumerate(_OUTER.finditer(text)):
        piece = match[0]
        depth += (piece == "(") - (piece == ")")
        if depth == 0 and piece in "+-":
            level = max(level, SUM if position else UNARY)
            piece = f" {piece} " if position else piece
        elif depth == 0 and piece in "*/":
            level = max(level, PRODUCT)
        spaced.append(piece)
    return "".join(spaced), level


def _apply_text(expr: Apply, parts: list[_Text]) -> _Text:
    entry = FUNCTIONS.get(expr.function)
    infix = entry.infix if entry else None
    folds = all(isinstance(arg, Index) for arg in expr.args)
    if expr.function == "neg" and not folds and not isinstance(expr.args[0], Const):
        return f"-{_inside(parts[0], UNARY)}", UNARY
    if infix is None or len(parts) != 2 or (folds and expr.function in FOLDED):
        return f"{expr.function}({', '.join(text for text, _ in parts)})", ATOM
    level = _LEVEL_OF_INFIX[infix]
    left = _inside(parts[0], level - 1 if level == COMPARISON else level)
    return f"{left} {infix} {_inside(parts[1], level - 1)}", level


def _inside(part: _Text, level: int) -> str:
    """A part where what binds at `level` or tighter needs no parentheses."""
    text, own = part
    return text if own <= level else f"({text})"


__all__ = ["FOLDED", "KERNEL_WORDS", "UPDATES", "expr_text", "index_text", "kernel_lines", "stmt_text"]
