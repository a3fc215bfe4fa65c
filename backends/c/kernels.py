"""One kernel as one C function: what it takes, in which order, and which loop is divided among threads.

Parameters are the buffers that the code touches, in the kernel's order, then the sizes it uses, then `begin` and `end`
of the range of the parallel loop. Restrict-qualified pointers are the caller's promise that the memory plan keeps.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from backends.c.expressions import Expressions, Place
from backends.c.names import Identifiers, Writer, comment, wrapped
from backends.c.scalars import has_function, is_supported, storage_type
from backends.c.sizes import plain_text
from backends.c.statements import Statements
from backends.c.vectors import Vectors, type_lines
from ir.dims import Size, names
from ir.expr import Apply, Expr, Load, Reduce, Var, walk
from ir.kernel import Assign, Buffer, For, Kernel, Let, Local, Stmt, Store, Variable, blocks_of, exprs_of, walk_stmts
from ir.types import DType

LANES = 16


@dataclass(frozen=True)
class Function:
    """The C function of a kernel. `buffers` and `sizes` are the names of the kernel that it takes, in order.

    `range` is the number of iterations that may be divided among threads, None for a serial kernel. `vectors` are the
    vector types it needs: element and lanes; `macros` declare the functions of vectors that it calls. With
    `checks_indices` it also takes `int *invalid_index`, after the sizes, which it sets to 1 where an index from data
    lies outside its tensor. `work` is about how many scalar statements the whole range executes.
    """

    kernel: Kernel
    symbol: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    range: Size | None
    declaration: str
    definition: str
    vectors: tuple[tuple[DType, int], ...] = ()
    macros: tuple[str, ...] = ()
    checks_indices: bool = False
    work: Size = 0


def unsupported(kernel: Kernel) -> str | None:
    """Why C code cannot be made for `kernel`, as a sentence, or None if it can."""
    types = [buffer.type for buffer in kernel.params]
    exprs: list[Expr] = []
    for stmt in walk_stmts(kernel.body):
        exprs.extend(exprs_of(stmt))
        if isinstance(stmt, Local):
            types.append(stmt.type)
            if not stmt.type.is_static:
                return f"the local array {stmt.name} has no fixed size"
    refused = sorted({str(type_.dtype) for type_ in types if not is_supported(type_.dtype)})
    refused += sorted({str(expr.dtype) for expr in walk(*exprs) if not is_supported(expr.dtype)} - set(refused))
    if refused:
        return f"C code has no values of type {', '.join(refused)}"
    for expr in walk(*exprs):
        if isinstance(expr, Reduce):
            return "a reduction stands inside an expression; lower it to loops first"
        if isinstance(expr, Apply) and not has_function(expr.function, expr.args[-1].dtype):
            return f"C code has no function {expr.function} of {expr.args[-1].dtype}"
    return None


def emit_kernel(kernel: Kernel, symbol: str, lanes: int = LANES, *, exact: bool = False) -> Function:
    """The C function of `kernel` under the name `symbol`, with `exact` the same bits on every processor. Raises
    ValueError with the reason if it has none."""
    reason = unsupported(kernel)
    if reason is not None:
        raise ValueError(f"kernel {kernel.name}: {reason}")
    identifiers = Identifiers({symbol, "begin", "end", "flat", "invalid_index"})
    for name in [*(b.name for b in kernel.params), *kernel.sizes, *_bound_names(kernel)]:
        identifiers.of(name)
    places = {b.name: Place(identifiers.of(b.name), b.type) for b in kernel.params}
    values = Expressions(identifiers, places, _data(kernel), exact=exact)
    out = Writer(1)
    values.arrays = {s.name: s.type for s in walk_stmts(kernel.body) if isinstance(s, Local)}
    vectors = Vectors(values, lanes)
    vectors.survey(kernel.body)
    statements = Statements(values, vectors, out)
    lets, loops = _parallel_loops(kernel)
    if loops:
        statements.block(lets)
        _write_range(statements, loops)
    else:
        statements.block(kernel.body)
    buffers = tuple(b for b in kernel.params if b.name in values.used)
    sizes = tuple(size for size in kernel.sizes if size in values.used)
    head = _head(symbol, buffers, sizes, values.checks_indices, bool(loops), identifiers)
    bits = max((8 * dtype.itemsize * count for dtype, count in vectors.types), default=0)
    attribute = [f"SESAME_VECTOR_BITS({bits})"] if bits > 256 else []
    definition = "\n".join([*attribute, *head[:-1], head[-1] + " {", *out.lines, "}"])
    total = _iterations(loops) if loops else None
    return Function(
        kernel,
        symbol,
        buffers,
        sizes,
        total,
        "\n".join(head) + ";",
        definition,
        tuple(vectors.types),
        tuple(vectors.macros),
        values.checks_indices,
        _work(kernel.body, frozenset(kernel.sizes)),
    )


def _work(block: tuple[Stmt, ...], sizes: frozenset[str]) -> Size:
    """Scalar statements that a block executes, about: vectors count one eighth, loops over data eight iterations."""
    total: Size = 0
    for stmt in block:
        if not isinstance(stmt, For):
            total = total + 1
            for inner in blocks_of(stmt):
                total = total + _work(inner, sizes)
            continue
        extent = 8 if isinstance(stmt.extent, Expr) or names(stmt.extent) - sizes else stmt.extent
        if stmt.mark == "vector" and isinstance(extent, int):
            extent = -(-extent // 8)
        total = total + extent * _work(stmt.body, sizes)
    return total


def _data(kernel: Kernel) -> frozenset[str]:
    """The buffers and variables whose values come from the kernel's inputs, directly or through others."""
    found = {b.name for b in kernel.params if b.role != "out"}
    size = 0
    while size != len(found):
        size = len(found)
        for stmt in walk_stmts(kernel.body):
            if not isinstance(stmt, (Let, Variable, Assign, Store)):
                continue
            value = stmt.init if isinstance(stmt, Variable) else stmt.value
            sources = {e.buffer for e in walk(value) if isinstance(e, Load)}
            sources |= {e.name for e in walk(value) if isinstance(e, Var)}
            if sources & found:
                found.add(stmt.buffer if isinstance(stmt, Store) else stmt.name)
    return frozenset(found)


def _bound_names(kernel: Kernel) -> list[str]:
    """Names of loop variables and scalar locals, in textual order."""
    found: list[str] = []
    for stmt in walk_stmts(kernel.body):
        if isinstance(stmt, For):
            found.append(stmt.var)
        elif isinstance(stmt, (Let, Variable)):
            found.append(stmt.name)
    return found


def _head(
    symbol: str,
    buffers: tuple[Buffer, ...],
    sizes: tuple[str, ...],
    checks_indices: bool,
    is_parallel: bool,
    identifiers: Identifiers,
) -> list[str]:
    """The lines of a function head, without brace or semicolon."""
    parts = []
    for buffer in buffers:
        constness = "const " if buffer.role in ("in", "const") else ""
        restrict = "" if buffer.role == "inout" else "restrict "
        parts.append(f"{constness}{storage_type(buffer.type.dtype)} *{restrict}{identifiers.of(buffer.name)}")
    parts += [f"int64_t {identifiers.of(size)}" for size in sizes]
    if checks_indices:
        parts.append("int *invalid_index")
    if is_parallel:
        parts += ["int64_t begin", "int64_t end"]
    return wrapped(f"void {symbol}(", parts or ["void"], ")")


def _parallel_loops(kernel: Kernel) -> tuple[tuple[Stmt, ...], list[For]]:
    """The lets in front of the parallel loop and the loops that are divided together; no loops for a serial kernel.

    Directly nested parallel loops are one range; a kernel with anything beside them is serial.
    """
    body = kernel.body
    lets = tuple(stmt for stmt in body if isinstance(stmt, Let))
    rest = [stmt for stmt in body if not isinstance(stmt, Let)]
    loops: list[For] = []
    while len(rest) == 1 and isinstance(rest[0], For) and rest[0].mark == "parallel":
        if isinstance(rest[0].extent, Expr):
            break
        loops.append(rest[0])
        rest = list(rest[0].body)
    if loops and body[: len(lets)] != lets:
        return (), []
    return lets, loops


def _iterations(loops: list[For]) -> Size:
    """The product of the extents of loops over sizes."""
    total: Size = 1
    for loop in loops:
        assert not isinstance(loop.extent, Expr)
        total = total * loop.extent
    return total


def _write_range(statements: Statements, loops: list[For]) -> None:
    """The loops of a parallel range over `begin` to `end`."""
    values, out = statements.values, statements.out
    with ExitStack() as stack:
        for loop in loops:
            stack.enter_context(contextmanager(values.loop)(loop.var, loop.extent))  # type: ignore[arg-type]
        if len(loops) == 1:
            name = values.identifiers.of(loops[0].var)
            stack.enter_context(out.block(f"for (int64_t {name} = begin; {name} < end; {name}++)"))
        else:
            stack.enter_context(out.block("for (int64_t flat = begin; flat < end; flat++)"))
            _split_range(statements, loops)
        statements.block(loops[-1].body)


def _split_range(statements: Statements, loops: list[For]) -> None:
    """The variables of nested loops from the number of the iteration."""
    values, out = statements.values, statements.out
    for i, loop in enumerate(loops):
        inner = _iterations(loops[i + 1 :])
        text = "flat" if inner == 1 else f"flat / ({plain_text(inner, values.spell)})"
        if isinstance(inner, int) and inner != 1:
            text = f"flat / {inner}"
        if i > 0:
            extent = plain_text(_iterations([loop]), values.spell)
            text = f"{text} % {extent if isinstance(loop.extent, int) else f'({extent})'}"
        out.line(f"const int64_t {values.identifiers.of(loop.var)} = {text};")


def source(functions: list[Function], header: str) -> str:
    """A C file with `functions`; `header` is what declares them."""
    out = Writer()
    out.line(f'#include "{header}"')
    for function in functions:
        out.line()
        out.line(f"/* {comment(function.kernel.name)} */")
        out.extend(function.definition.split("\n"))
    return out.text


def header(functions: list[Function], deterministic: bool = False) -> str:
    """The C header that declares `functions`."""
    out = Writer()
    out.line("#ifndef MODEL_KERNELS_H")
    out.line("#define MODEL_KERNELS_H")
    out.line()
    if deterministic:
        out.line("#define SESAME_DETERMINISTIC 1 /* the same bits on every processor */")
    types = {pair for function in functions for pair in function.vectors}
    macros = {macro for function in functions for macro in function.macros}
    has_math = any(macro.startswith("SESAME_VECTOR_MATH") for macro in macros)
    included = "sesame_vector_math.h" if has_math else "sesame_vector.h" if types else "sesame_scalar.h"
    out.line(f'#include "{included}"')
    out.line()
    if types:
        out.extend([*type_lines(types), *sorted(macros), ""])
    for function in functions:
        out.extend(function.declaration.split("\n"))
    out.line()
    out.line("#endif")
    return out.text
