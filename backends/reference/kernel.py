"""Kernels element by element: each is written out once as a Python function on NumPy scalars, then called.

Every scalar operation is that of `ir.functions` on scalars of the exact type, every access is checked against its
buffer, and what is uninitialised holds garbage. `select`, `&` and `|` on bools, and the value after `or` are evaluated
only where they count, as in C. It shares no code with any emitter, so that agreement between the two means something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backends.reference.scalars import FAST_INFIX, constant, converter, scalar_function
from ir.bind import bind_sizes
from ir.dim_form import FloorDiv, Max, Min, Name
from ir.dims import Size, evaluate, terms
from ir.element import identity
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Reduce, Var, children
from ir.kernel import Assign, For, If, Kernel, Let, Local, Stmt, Store, Variable, While, walk_stmts
from ir.types import DType, TensorType

_MAX_NESTING = 24
"""Expressions nested deeper than this are cut into temporaries: Python's own parser has a limit."""
_LOGIC = {"and": "and", "or": "or"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
GARBAGE = 0xA5
"""The byte that memory holds before it is written."""


def run_kernel(kernel: Kernel, buffers: Mapping[str, np.ndarray], sizes: Mapping[str, int] | None = None) -> None:
    """Runs `kernel` on arrays by parameter name; "out" and "inout" ones are written in place.

    Sizes that the shapes do not tell come from `sizes`. Raises ValueError where arrays do not fit the parameters, and
    IndexError for an access outside of a buffer.
    """
    compile_kernel(kernel)([buffers[p.name] for p in kernel.params], sizes)


def compile_kernel(kernel: Kernel) -> Callable[[Sequence[np.ndarray], Mapping[str, int] | None], None]:
    """A function of the arrays of the parameters, in order, and of sizes by name. See `run_kernel`."""
    writer = _Writer(kernel)
    source = writer.write()
    namespace = writer.namespace
    exec(compile(source, f"<kernel {kernel.name}>", "exec"), namespace)
    run = namespace["kernel"]

    def call(arrays: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None) -> None:
        bound = bind_sizes([p.type for p in kernel.params], arrays, [p.name for p in kernel.params], sizes)
        missing = [name for name in kernel.sizes if name not in bound]
        if missing:
            raise ValueError(f"kernel {kernel.name}: no value for the size {', '.join(missing)}")
        memories = [_memory(p.name, p.type, p.role in ("out", "inout"), a) for p, a in zip(kernel.params, arrays)]
        locals_ = [np.empty([evaluate(s, bound) for s in x.type.shape], x.type.dtype.numpy) for x in writer.locals]
        memories += [array.reshape(-1) for array in locals_]
        shapes = [array.shape for array in (*arrays, *locals_)]
        with np.errstate(all="ignore"):
            run(memories, shapes, [bound[name] for name in kernel.sizes])

    return call


def _memory(name: str, type_: TensorType, written: bool, array: np.ndarray) -> np.ndarray:
    """The elements of an array in a row: a view where the kernel writes."""
    if array.dtype != type_.dtype.numpy:
        raise ValueError(f"{name} is {array.dtype}, it must be {type_}")
    if written and not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError(f"{name} is written, so its array must be contiguous and writeable")
    return array.reshape(-1)


def spoil(flat: np.ndarray) -> None:
    """Fills memory with garbage, so that reading it before it is written shows."""
    if flat.dtype == object:
        flat[...] = "uninitialised"
    elif flat.dtype == np.bool_:
        flat[...] = True
    else:
        flat.view(np.uint8)[...] = GARBAGE


def _outside(buffer: str, index: tuple[Any, ...], shape: tuple[int, ...]) -> IndexError:
    return IndexError(f"{buffer}[{', '.join(map(str, index))}] lies outside of its shape {list(shape)}")


class _Missing:
    """The mark of a shared value that is not computed yet."""


class _Function:
    """A Python function being written: definitions first, then its statements."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.definitions: list[str] = []
        self.lines: list[str] = []
        self.indent = ""

    def add(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def text(self) -> list[str]:
        return [self.head, *("    " + line for line in (*self.definitions, *self.lines))]


class _Writer:
    """Writes one kernel as Python source; `namespace` holds the constants and functions that the source names."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.locals = [stmt for stmt in walk_stmts(kernel.body) if isinstance(stmt, Local)]
        self.namespace: dict[str, Any] = {"missing": _Missing(), "outside": _outside, "spoil": spoil, "i64": np.int64}
        self.names: dict[str, str] = {}
        self.buffers: dict[str, int] = {}
        self.globals: dict[Any, str] = {}
        self.count = 0

    def write(self) -> str:
        function = _Function("def kernel(memories, shapes, sizes):")
        for position, name in enumerate(self.kernel.sizes):
            function.definitions.append(f"{self.name(name)} = sizes[{position}]")
        owners = [(p.name, p.type) for p in self.kernel.params] + [(x.name, x.type) for x in self.locals]
        for number, (name, type_) in enumerate(owners):
            function.definitions += self.accessors(number, name, type_.rank)
        for number, param in enumerate(self.kernel.params):
            self.buffers[param.name] = number
        self.local_number = len(self.kernel.params)
        self.block(function, self.kernel.body)
        function.add("return")
        return "\n".join(function.text()) + "\n"

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def name(self, name: str) -> str:
        """The Python variable for a name of the kernel, which may be any string."""
        if name not in self.names:
            self.names[name] = self.fresh("v")
        return self.names[name]

    def shared(self, key: Any, letter: str, make: Callable[[], Any]) -> str:
        """The name of an object in the namespace, made once per key."""
        if key not in self.globals:
            self.globals[key] = self.fresh(letter)
            self.namespace[self.globals[key]] = make()
        return self.globals[key]

    def accessors(self, number: int, name: str, rank: int) -> list[str]:
        """Functions that read, read or give None outside, and write an element of buffer `number`."""
        index = [f"i{a}" for a in range(rank)]
        inside = " and ".join(f"0 <= i{a} < n{number}_{a}" for a in range(rank)) or "True"
        flat = "0"
        for a in range(rank):
            flat = f"({flat}) * n{number}_{a} + i{a}" if a else "i0"
        arguments, raised = (
            ", ".join(index),
            f"raise outside({name!r}, ({''.join(i + ', ' for i in index)}), shapes[{number}])",
        )
        lines = [f"m{number} = memories[{number}]"]
        lines += [f"n{number}_{a} = shapes[{number}][{a}]" for a in range(rank)]
        lines += [f"def at{number}({arguments}):", f"    if {inside}: return m{number}[{flat}]", f"    {raised}"]
        lines += [f"def try{number}({arguments}):", f"    return m{number}[{flat}] if {inside} else None"]
        lines += [f"def put{number}({', '.join(['value', *index])}):", f"    if not ({inside}): {raised}"]
        return [*lines, f"    m{number}[{flat}] = value"]

    # Statements.

    def block(self, function: _Function, block: tuple[Stmt, ...]) -> None:
        for stmt in block:
            self.stmt(function, stmt)

    def nested(self, function: _Function, head: str, block: tuple[Stmt, ...]) -> None:
        function.add(head)
        outer, function.indent = function.indent, function.indent + "    "
        self.block(function, block)
        function.add("pass")
        function.indent = outer

    def stmt(self, function: _Function, stmt: Stmt) -> None:
        match stmt:
            case For(var=var, extent=extent, body=body):
                stop = f"int({self.values(function, extent)[0]})" if isinstance(extent, Expr) else self.size(extent)
                self.nested(function, f"for {self.name(var)} in range({stop}):", body)
            case Let(name=name, value=value) | Variable(name=name, init=value):
                function.add(f"{self.name(name)} = {self.values(function, value)[0]}")
            case Assign(name=name, value=value, function=update):
                text = self.values(function, value)[0]
                own = self.name(name)
                function.add(f"{own} = {text if update is None else self.combine(update, value.dtype, own, text)}")
            case Local(name=name):
                self.buffers[name] = self.local_number
                function.add(f"spoil(m{self.local_number})")
                self.local_number += 1
            case Store():
                self.store(function, stmt)
            case If(condition=condition, then=then, orelse=orelse):
                self.nested(function, f"if {self.values(function, condition)[0]}:", then)
                if orelse:
                    self.nested(function, "else:", orelse)
            case While(condition=condition, body=body):
                function.add("while True:")
                outer, function.indent = function.indent, function.indent + "    "
                function.add(f"if not ({self.values(function, condition)[0]}): break")
                self.block(function, body)
                function.indent = outer

    def store(self, function: _Function, stmt: Store) -> None:
        *index, value = self.values(function, *stmt.index, stmt.value)
        positions = [self.position(expr, text) for expr, text in zip(stmt.index, index)]
        number = self.buffers[stmt.buffer]
        if stmt.function is not None:
            kept = [self.fresh("p") for _ in positions]
            for variable, text in zip(kept, positions):
                function.add(f"{variable} = {text}")
            value = self.combine(stmt.function, stmt.value.dtype, f"at{number}({', '.join(kept)})", value)
            positions = kept
        function.add(f"put{number}({', '.join([value, *positions])})")

    # Expressions.

    def values(self, function: _Function, *roots: Expr) -> list[str]:
        """Python expressions for `roots`. Shared parts are computed once: before, or on demand if not always needed."""
        order, uses, always = _survey(roots)
        texts: dict[Expr, str] = {}
        depth: dict[Expr, int] = {}
        for expr in order:
            parts = _parts(expr)
            text = self.one(function, expr, texts)
            depth[expr] = 1 + max((depth[part] for part in parts), default=0)
            if parts and (uses[expr] > 1 or depth[expr] > _MAX_NESTING):
                text = self.eager(function, text) if expr in always else self.lazy(function, text)
                depth[expr] = 0
            texts[expr] = text
        return [self.scalar(root, texts[root]) for root in roots]

    def eager(self, function: _Function, text: str) -> str:
        variable = self.fresh("t")
        function.add(f"{variable} = {text}")
        return variable

    def lazy(self, function: _Function, text: str) -> str:
        """A call that computes a shared part at its first use in a statement."""
        cell, thunk = self.fresh("c"), self.fresh("f")
        function.definitions += [
            f"{cell} = missing",
            f"def {thunk}():",
            f"    nonlocal {cell}",
            f"    if {cell} is missing: {cell} = {text}",
            f"    return {cell}",
        ]
        function.add(f"{cell} = missing")
        return f"{thunk}()"

    def one(self, function: _Function, expr: Expr, texts: dict[Expr, str]) -> str:
        match expr:
            case Const(dtype=dtype, value=value):
                return self.shared(("const", dtype, repr(value)), "k", lambda: constant(value, dtype))
            case Index(value=value):
                return f"({self.size(value)})"
            case Var(name=name):
                return self.name(name)
            case Load():
                return self.load(expr, texts)
            case Cast(dtype=dtype, value=value, saturate=saturate):
                key = ("cast", value.dtype, dtype, saturate)
                return f"{self.shared(key, 'x', lambda: converter(value.dtype, dtype, saturate))}({texts[value]})"
            case Reduce():
                return self.reduce(function, expr)
            case Apply():
                return self.apply(expr, texts)
        raise TypeError(f"{type(expr).__name__} is not a kernel expression")

    def load(self, expr: Load, texts: dict[Expr, str]) -> str:
        number = self.buffers[expr.buffer]
        index = ", ".join(self.position(part, texts[part]) for part in expr.index)
        if expr.outside is None:
            return f"at{number}({index})"
        found = self.fresh("w")
        outside = self.scalar(expr.outside, texts[expr.outside])
        return f"({found} if ({found} := try{number}({index})) is not None else {outside})"

    def reduce(self, function: _Function, expr: Reduce) -> str:
        """A call of a nested function with the loops of the reduction."""
        name, total = self.fresh("r"), self.fresh("a")
        inner = _Function(f"def {name}():")
        start = self.values(inner, identity(expr.function, expr.dtype))[0]
        inner.add(f"{total} = {start}")
        for var, extent in expr.axes:
            inner.add(f"for {self.name(var)} in range({self.size(extent)}):")
            inner.indent += "    "
        value = self.values(inner, expr.body)[0]
        inner.add(f"{total} = {self.combine(expr.function, expr.dtype, total, value)}")
        inner.indent = ""
        inner.add(f"return {total}")
        function.definitions += inner.text()
        return f"{name}()"

    def apply(self, expr: Apply, texts: dict[Expr, str]) -> str:
        args = [self.scalar(arg, texts[arg]) for arg in expr.args]
        if expr.function == "select":
            return f"({args[1]} if {args[0]} else {args[2]})"
        if expr.function in _COMPARISONS and all(isinstance(arg, Index) for arg in expr.args):
            return f"({texts[expr.args[0]]} {_COMPARISONS[expr.function]} {texts[expr.args[1]]})"
        return self.combine(expr.function, expr.args[0].dtype, *args)

    def combine(self, function: str, dtype: DType, *args: str) -> str:
        """`function` on scalars of `dtype`, as a Python operator where that means the same."""
        if dtype.kind == "bool" and function in _LOGIC:
            return f"({args[0]} {_LOGIC[function]} {args[1]})"
        operator = FAST_INFIX.get((function, dtype.name))
        if operator is not None:
            return f"({args[0]} {operator} {args[1]})"
        called = self.shared(("apply", function, dtype), "x", lambda: scalar_function(function, dtype))
        return f"{called}({', '.join(args)})"

    def scalar(self, expr: Expr, text: str) -> str:
        """Indices are Python ints; elsewhere they are i64 scalars."""
        return f"i64{text}" if isinstance(expr, Index) else text

    def position(self, expr: Expr, text: str) -> str:
        return text.removeprefix("i64") if isinstance(expr, Index) else f"int({text})"

    def size(self, size: Size) -> str:
        """A Python expression for a size; fractions are brought over one denominator."""
        common = np.lcm.reduce([1, *(factor.denominator for factor, _ in terms(size))])
        parts = [
            "*".join([str(int(factor * int(common))), *(self.atom(atom) for atom in monomial)])
            for factor, monomial in terms(size)
        ]
        text = " + ".join(parts) or "0"
        return text if common == 1 else f"({text})//{common}"

    def atom(self, atom: Any) -> str:
        match atom:
            case Name(name=name):
                return self.name(name)
            case FloorDiv(num=num, den=den):
                return f"(({self.size(num)})//({self.size(den)}))"
            case Min(args=args) | Max(args=args):
                return f"{'min' if isinstance(atom, Min) else 'max'}({', '.join(self.size(arg) for arg in args)})"
        raise TypeError(f"{type(atom).__name__} is not part of a size")


def _parts(expr: Expr) -> tuple[Expr, ...]:
    """The parts computed by the same function: the body of a reduction has its own."""
    return () if isinstance(expr, Reduce) else children(expr)


def _required(expr: Expr) -> tuple[Expr, ...]:
    """The parts that are computed whenever the expression is."""
    match expr:
        case Apply(function="select", args=args):
            return args[:1]
        case Apply(function="and" | "or", args=args) if args[0].dtype.kind == "bool":
            return args[:1]
        case Load(index=index):
            return index
        case _:
            return _parts(expr)


def _survey(roots: tuple[Expr, ...]) -> tuple[list[Expr], dict[Expr, int], set[Expr]]:
    """The distinct parts of expressions, parts first; how often each is used; those that are always computed."""
    order: list[Expr] = []
    uses: dict[Expr, int] = dict.fromkeys(roots, 0)
    seen: set[Expr] = set()
    stack = [(root, False) for root in reversed(roots)]
    for root in roots:
        uses[root] += 1
    while stack:
        expr, ready = stack.pop()
        if ready:
            order.append(expr)
            continue
        if expr in seen:
            continue
        seen.add(expr)
        stack.append((expr, True))
        for part in reversed(_parts(expr)):
            uses[part] = uses.get(part, 0) + 1
            stack.append((part, False))
    always: set[Expr] = set()
    pending = list(roots)
    while pending:
        expr = pending.pop()
        if expr not in always:
            always.add(expr)
            pending.extend(_required(expr))
    return order, uses, always


__all__ = ["GARBAGE", "compile_kernel", "run_kernel", "spoil"]
