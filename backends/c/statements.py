"""Kernel statements as C statements: loops keep their letters, locals their names.

Nothing here decides what runs in parallel or how a kernel is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from backends.c.expressions import Expressions, Place, Scope
from backends.c.names import Writer
from backends.c.scalars import storage_type, stored, value_type
from backends.c.sizes import plain_text
from backends.c.vectors import Vectors, is_repeatable
from ir import types as t
from ir.expr import Apply, Expr, Load, Var, walk
from ir.kernel import Assign, For, If, Let, Local, Stmt, Store, Variable, While, exprs_of, walk_stmts

_UNROLL_AT_MOST = 64


class Statements:
    """Writes the statements of one kernel to `out`, with the expressions of `values` and the loops of `vectors`."""

    def __init__(self, values: Expressions, vectors: Vectors, out: Writer) -> None:
        self.values = values
        self.vectors = vectors
        self.out = out
        self.types: dict[str, t.DType] = {}
        self._dead: set[str] = set()

    def block(self, body: tuple[Stmt, ...], registers: tuple[str, ...] = ()) -> None:
        """Writes the statements of a block in order. `registers` are tiles from outside that have no array yet."""
        places, tiles = dict(self.values.places), dict(self.vectors.tiles)
        own = list(registers)
        filled: Stmt | None = None
        for i, stmt in enumerate(body):
            if stmt is filled:
                continue
            read = tuple(name for name in own if self.vectors.reads_elements(name, stmt))
            if isinstance(stmt, If) and not any(self._reads(stmt.condition, name) for name in read):
                self._if(stmt, read)
                continue
            for name in read:
                self._spill(name)
            if isinstance(stmt, Local) and (tile := self.vectors.plan(stmt, body[i + 1 :])):
                filled = self.vectors.declare(stmt.name, tile, body[i + 1 : i + 2], self.out)
                own.append(stmt.name)
                continue
            if isinstance(stmt, (Let, Variable)) and not _is_read(stmt.name, body[i + 1 :]):
                self._dead.add(stmt.name)
                continue
            self.statement(stmt)
        self.values.places, self.vectors.tiles = places, tiles
        for name in registers:
            tiles[name].array = None

    def _reads(self, expr: Expr, name: str) -> bool:
        return any(isinstance(part, Load) and part.buffer == name for part in walk(expr))

    def _spill(self, name: str) -> None:
        """Puts the registers of a tile into an array, for the statement that follows."""
        tile = self.vectors.tiles[name]
        if tile.array is None:
            self._array(Local(name, tile.type))
            tile.array = self.values.places[name].name
        self.vectors.spill(tile, self.out)

    def statement(self, stmt: Stmt) -> None:
        """Writes one statement."""
        match stmt:
            case For():
                self._for(stmt)
            case Let():
                self._local(stmt.name, stmt.value, "const ")
            case Variable():
                self._local(stmt.name, stmt.init, "")
            case Assign():
                self._assign(stmt)
            case Local():
                self._array(stmt)
            case Store():
                self._store(stmt)
            case If():
                self._if(stmt)
            case While():
                self._while(stmt)

    def _scope(self, *roots: Expr) -> Scope:
        return self.values.open(roots, self.out)

    def _local(self, name: str, value: Expr, qualifier: str) -> None:
        scope = self._scope(value)
        text = self.values.value(value, scope)
        self.types[name] = value.dtype
        self.out.line(f"{qualifier}{value_type(value.dtype)} {self.values.identifiers.of(name)} = {text.text};")

    def _assign(self, stmt: Assign) -> None:
        if stmt.name in self._dead:
            return
        dtype = stmt.value.dtype
        name = self.values.spell(stmt.name)
        if stmt.function in ("add", "mul") and dtype in (t.f32, t.f64):
            text = self.values.value(stmt.value, self._scope(stmt.value))
            self.out.line(f"{name} {'+' if stmt.function == 'add' else '*'}= {text.text};")
            return
        value = stmt.value
        if stmt.function is not None:
            value = Apply(dtype, stmt.function, (Var(dtype, stmt.name), value))
        self.out.line(f"{name} = {self.values.value(value, self._scope(value)).text};")

    def _array(self, stmt: Local) -> None:
        elements = stmt.type.elements
        assert isinstance(elements, int), f"the local array {stmt.name} has no fixed size"
        name = self.values.identifiers.fresh(stmt.name)
        self.values.places[stmt.name] = Place(name, stmt.type)
        self.out.line(f"_Alignas(64) {storage_type(stmt.type.dtype)} {name}[{max(1, elements)}];")

    def _store(self, stmt: Store) -> None:
        place = self.values.places[stmt.buffer]
        dtype = place.type.dtype
        value = stmt.value
        in_place = stmt.function in ("add", "mul") and dtype in (t.f32, t.f64)
        if stmt.function is not None and not in_place:
            value = Apply(dtype, stmt.function, (Load(dtype, stmt.buffer, stmt.index), value))
        scope = self._scope(*stmt.index, value)
        index = [self.values.value(i, scope) for i in stmt.index]
        text = self.values.value(value, scope)
        self.values.used.add(stmt.buffer)
        operator = {"add": "+=", "mul": "*="}[stmt.function or ""] if in_place else "="
        checks = self.values.validity(stmt.index, index, place.type.shape, scope)
        target = f"{place.name}[{self.values.linear(index, place.type.shape)}]"
        guard = f"if ({' && '.join(checks)}) " if checks else ""
        self.out.line(f"{guard}{target} {operator} {stored(dtype, text)};")

    def _if(self, stmt: If, registers: tuple[str, ...] = ()) -> None:
        condition = self.values.value(stmt.condition, self._scope(stmt.condition))
        self.out.line(f"if ({condition.text}) {{")
        self._indented(stmt.then, registers)
        if stmt.orelse:
            self.out.line("} else {")
            self._indented(stmt.orelse, registers)
        self.out.line("}")

    def _indented(self, body: tuple[Stmt, ...], registers: tuple[str, ...]) -> None:
        self.out.depth += 1
        self.block(body, registers)
        self.out.depth -= 1

    def _while(self, stmt: While) -> None:
        probe = Writer(self.out.depth + 1)
        condition = self.values.value(stmt.condition, self.values.open([stmt.condition], probe))
        if not probe.lines:
            with self.out.block(f"while ({condition.text})"):
                self.block(stmt.body)
            return
        with self.out.block("for (;;)"):
            self.out.extend(probe.lines)
            self.out.line(f"if (!({condition.text})) break;")
            self.block(stmt.body)

    def _for(self, stmt: For) -> None:
        if self.vectors.write(stmt, self.out):
            return
        if self.vectors.is_written_out(stmt):
            for body in self.vectors.copies(stmt):
                with self.out.block(""):
                    self.block(body)
            return
        lanes = self.vectors.chunk_lanes(stmt)
        if lanes and not (isinstance(stmt.extent, int) and stmt.extent < lanes):
            self._chunks(stmt, lanes)
            return
        if stmt.mark == "unroll" and isinstance(stmt.extent, int) and 1 < stmt.extent <= _UNROLL_AT_MOST:
            self.out.line(f"SESAME_UNROLL({stmt.extent})")
        elif stmt.mark == "vector":
            self.out.line("SESAME_LANES")
        with self.loop(stmt):
            self.block(stmt.body)

    def _chunks(self, stmt: For, lanes: int) -> None:
        """A vector loop as a loop over chunks. What is left at the end goes into one more chunk that repeats some of
        the one before, or is done one by one where that would not give the same."""
        assert not isinstance(stmt.extent, Expr)
        extent = plain_text(stmt.extent, self.values.spell)
        name = self.values.identifiers.of(stmt.var)
        is_even = stmt.extent % lanes == 0
        if not is_even and not is_repeatable(stmt):
            head = f"for (int64_t {name} = 0; {name} + {lanes} <= {extent}; {name} += {lanes})"
            with self._inside(stmt), self.out.block(head):
                self.vectors.write_chunk(stmt, self.out)
            with self.loop(stmt, f"({extent}) / {lanes} * {lanes}"):
                self.block(stmt.body)
            return
        is_enough = isinstance(stmt.extent, int)
        with nullcontext() if is_enough else self.out.block(f"if ({extent} >= {lanes})", "} else {"):
            first = name if is_even else self.values.identifiers.fresh(f"{stmt.var}_chunk")
            head = f"for (int64_t {first} = 0; {first} < {extent}; {first} += {lanes})"
            with self._inside(stmt), self.out.block(head):
                if not is_even:
                    last = f"{first} + {lanes} <= {extent} ? {first} : {extent} - {lanes}"
                    self.out.line(f"const int64_t {name} = {last};")
                self.vectors.write_chunk(stmt, self.out)
        if not is_enough:
            self.out.depth += 1
            with self.loop(stmt):
                self.block(stmt.body)
            self.out.depth -= 1
            self.out.line("}")

    @contextmanager
    def loop(self, stmt: For, first: str = "0") -> Iterator[None]:
        """The head of a loop from `first` on; its body is written inside."""
        if isinstance(stmt.extent, Expr):
            extent = self._extent_of_expr(stmt)
        else:
            extent = plain_text(stmt.extent, self.values.spell)
        name = self.values.identifiers.of(stmt.var)
        with self._inside(stmt), self.out.block(f"for (int64_t {name} = {first}; {name} < {extent}; {name}++)"):
            yield

    def _inside(self, stmt: For) -> AbstractContextManager[None]:
        """What is known of the variable of a loop, in its body."""
        return contextmanager(self.values.loop)(stmt.var, None if isinstance(stmt.extent, Expr) else stmt.extent)

    def _extent_of_expr(self, stmt: For) -> str:
        assert isinstance(stmt.extent, Expr)
        text = self.values.value(stmt.extent, self._scope(stmt.extent))
        if isinstance(stmt.extent, Var) and stmt.extent.name in self.types:
            return text.text
        name = self.values.identifiers.fresh(f"{stmt.var}_end")
        self.out.line(f"const int64_t {name} = {text.text};")
        return name


def _is_read(name: str, block: tuple[Stmt, ...]) -> bool:
    """Whether a statement of the block reads the scalar `name`."""
    return any(
        isinstance(expr, Var) and expr.name == name for stmt in walk_stmts(block) for expr in walk(*exprs_of(stmt))
    )
