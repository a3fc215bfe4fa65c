"""Loops marked "vector" as vector-extension code, and local arrays that fit as registers.

A vector loop is cut into chunks of as many lanes as the processor has; loops marked "unroll" around it are written out,
so that a tile of accumulators becomes named registers and its inner loop one multiply-add after another. What cannot be
written so is refused, and the caller writes ordinary loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from backends.c.expressions import Expressions
from backends.c.lanes import ELEMENTS, VectorCheck, indices_of, inlined, is_dot, keeps_order
from backends.c.names import Writer, wrapped
from backends.c.nests import Nest, Step, Tile
from backends.c.scalars import Text, constant, storage_type
from ir import types as t
from ir.access import is_contiguous, varies
from ir.dims import names, symbol
from ir.expr import Apply, Const, Expr, Index, Load, Var, transform, walk
from ir.functions import COSTLY
from ir.kernel import For, Let, Local, Stmt, Store, blocks_of, exprs_of, map_exprs, walk_stmts
from ir.schedule import substitute_var
from ir.types import DType

MAX_COPIES = 256
MAX_REGISTERS = 64
_MOST_CHUNKS = 4
"""Chunks of a vector loop that are written out where its functions are long."""


class Vectors:
    """Writes vector loops of one kernel. `types` collects the vector types it used: element and lanes; `macros` what
    declares the functions of vectors that it used."""

    def __init__(self, values: Expressions, lanes: int) -> None:
        self.values = values
        self.lanes = lanes
        self.tiles: dict[str, Tile] = {}
        self.types: dict[tuple[DType, int], None] = {}
        self.macros: dict[str, None] = {}
        self._known_lanes: dict[int, tuple[For, int | None]] = {}

    # ------------------------------------------------------------ what can be written as vectors

    def survey(self, block: tuple[Stmt, ...]) -> None:
        """Looks at all vector loops of a block before any is written: each inside of the loops around it, which tell
        what stays inside of its buffer."""
        for stmt in block:
            if not isinstance(stmt, For):
                for inner in blocks_of(stmt):
                    self.survey(inner)
                continue
            self.chunk_lanes(stmt)
            with contextmanager(self.values.loop)(stmt.var, None if isinstance(stmt.extent, Expr) else stmt.extent):
                self.survey(stmt.body)

    def loop_lanes(self, loop: For) -> int | None:
        """Lanes of the chunks that a vector loop is cut into and written out, None where it must stay a loop."""
        extent = loop.extent
        if loop.mark != "vector" or not isinstance(extent, int) or extent <= 0:
            return None
        lanes = self.chunk_lanes(loop)
        if lanes is None or extent % lanes != 0:
            return None
        return None if extent // lanes > _MOST_CHUNKS and is_costly(loop) else lanes

    def chunk_lanes(self, loop: For) -> int | None:
        """Lanes of the chunks in which a vector loop can run, None where it goes element by element."""
        if loop.mark != "vector" or isinstance(loop.extent, Expr):
            return None
        if id(loop) not in self._known_lanes:
            with contextmanager(self.values.loop)(loop.var, loop.extent):
                self._known_lanes[id(loop)] = (loop, self._lanes_of(loop, inlined(loop)))
        return self._known_lanes[id(loop)][1]

    def _lanes_of(self, whole: For, loop: For) -> int | None:
        """`loop` is `whole` without its lets."""
        widest = 4
        check = VectorCheck(whole, self._is_data, self.values.is_safe)
        for stmt in loop.body:
            if isinstance(stmt, For) and is_dot(stmt, loop.var) and not any(map(self._is_data, indices_of(stmt))):
                continue
            if not isinstance(stmt, Store) or stmt.function not in (None, "add", "mul", "max", "min"):
                return None
            dtype = stmt.value.dtype
            is_rounded = dtype == t.bf16 and stmt.function is None and varies(stmt.value, loop.var)
            if not (dtype in ELEMENTS or is_rounded) or not is_contiguous(stmt.index, loop.var):
                return None
            if any(map(self._is_data, stmt.index)) or not check.value(stmt.value):
                return None
            varying = [e for e in walk(stmt.value) if varies(e, loop.var)]
            sizes = [e.dtype.itemsize for e in varying if not isinstance(e, Index) and e.dtype != t.bool_]
            widest = max(widest, dtype.itemsize, *sizes)
        lanes = self.lanes * 4 // widest
        if isinstance(loop.extent, int) and 1 < loop.extent < lanes and lanes % loop.extent == 0:
            lanes = loop.extent  # a part of a vector, as where lanes are folded
        return lanes if lanes > 1 and keeps_order(loop) else None

    def _is_data(self, expr: Expr) -> bool:
        return self.values.is_data(expr)

    def is_written_out(self, loop: For) -> bool:
        """Whether a loop marked "unroll" is written out: it has a vector loop inside and is short."""
        if loop.mark != "unroll" or not isinstance(loop.extent, int):
            return False
        inside = [s for s in walk_stmts(loop.body) if isinstance(s, For) and self.loop_lanes(s)]
        return bool(inside) and self._copies(loop) <= MAX_COPIES

    def _copies(self, loop: For) -> int:
        """Statements that writing `loop` out makes, at most."""
        extent = loop.extent if isinstance(loop.extent, int) else 1
        lanes = self.loop_lanes(loop)
        if lanes:
            return extent // lanes * len(loop.body)
        inner = [self._copies(s) if isinstance(s, For) else 1 for s in loop.body]
        return (extent if loop.mark == "unroll" else 1) * sum(inner)

    # ------------------------------------------------------------ registers

    def plan(self, local: Local, rest: tuple[Stmt, ...]) -> Tile | None:
        """The register tile for `local`, given the statements in which it is visible; None if it must be an array."""
        shape = local.type.shape
        if not shape or not isinstance(shape[-1], int) or local.type.dtype not in ELEMENTS:
            return None
        written = _Scan(self, local.name)
        written.block(rest, frozenset())
        if len(written.lanes) != 1 or written.refused:
            return None
        lanes = written.lanes.pop()
        for stmt in rest:
            scan = _Scan(self, local.name, lanes)
            scan.block((stmt,), frozenset())
            if scan.read and scan.written:
                return None
        elements = local.type.elements
        if not isinstance(elements, int) or shape[-1] % lanes or elements // lanes > MAX_REGISTERS:
            return None
        return Tile(local.type, lanes)

    def declare(self, name: str, tile: Tile, following: tuple[Stmt, ...], out: Writer) -> Stmt | None:
        """Declares the registers of a tile. A following statement that fills them with a constant becomes their initial
        value, and is returned."""
        self.tiles[name] = tile
        fill = next((stmt for stmt in following if isinstance(stmt, For)), None)
        value = None if fill is None else self._filled(fill, name)
        self.types[(tile.type.dtype, tile.lanes)] = None
        *leading, width = (size for size in tile.type.shape if isinstance(size, int))
        rows: dict[tuple[int, ...], list[str]] = {}
        for index in _indices(leading):
            for chunk in range(width // tile.lanes):
                parts = [name, *map(str, index), str(chunk)]
                register = self.values.identifiers.fresh("_".join(parts))
                tile.registers[(*index, chunk)] = register
                rows.setdefault(index, []).append(register)
        initial = "" if value is None else f" = {self.splat(tile.vector, value).text.removeprefix(f'({tile.vector})')}"
        for row in rows.values():
            out.extend(wrapped(f"{'  ' * out.depth}{tile.vector} ", [register + initial for register in row], ";"))
        return None if value is None else fill

    def _filled(self, loop: For, name: str) -> Text | None:
        """The constant with which a nest fills the tile `name`, None if it does anything else."""
        steps = self._flat(loop)
        if steps is None or len(steps) != len({(step.stmt, step.base) for step in steps}):
            return None
        values = {step.stmt.value for step in steps if isinstance(step.stmt, Store) and step.stmt.function is None}
        value = values.pop() if len(values) == 1 else None
        if not isinstance(value, Const) or any(not isinstance(s.stmt, Store) or s.stmt.buffer != name for s in steps):
            return None
        tile = self.tiles[name]
        elements = tile.type.elements
        if not isinstance(elements, int) or len(steps) * tile.lanes != elements:
            return None
        return constant(value.dtype, value.value)

    def splat(self, vector: str, value: Text) -> Text:
        """A vector with `value` in every lane."""
        if value.text in ("0", "0.0f", "0.0", "0u"):
            return Text(f"({vector}){{0}}")
        return Text(f"SESAME_SPLAT({vector}, {value.text})")

    def spill(self, tile: Tile, out: Writer) -> None:
        """Copies the registers of a tile to its array, for code that reads single elements."""
        assert tile.array is not None
        *leading, width = (size for size in tile.type.shape if isinstance(size, int))
        for number, index in enumerate(_indices(leading)):
            for chunk in range(width // tile.lanes):
                offset = number * width + chunk * tile.lanes
                register = tile.registers[(*index, chunk)]
                out.line(f"SESAME_STORE({tile.vector}, &{tile.array}[{offset}], {register});")

    def reads_elements(self, name: str, stmt: Stmt) -> bool:
        """Whether `stmt` reads the tile `name` other than in vector loops."""
        scan = _Scan(self, name, self.tiles[name].lanes)
        scan.block((stmt,), frozenset())
        return scan.read

    # ------------------------------------------------------------ writing

    def write(self, loop: For, out: Writer) -> bool:
        """Writes a vector loop, or unrolled loops with nothing but vector loops inside; False where that cannot be."""
        steps = self._flat(loop)
        if steps is None:
            return False
        Nest(self, out, steps).write()
        return True

    def _flat(self, loop: For) -> list[Step] | None:
        lanes = self.loop_lanes(loop)
        if lanes:
            assert isinstance(loop.extent, int)
            return [step for base in range(0, loop.extent, lanes) for step in _steps(loop, base, lanes)]
        if not self.is_written_out(loop):
            return None
        assert isinstance(loop.extent, int)
        steps: list[Step] = []
        for value in range(loop.extent):
            for stmt in self._copy(loop, value):
                if isinstance(stmt, Let):
                    steps.append(Step(stmt, "", 0, 1))
                    continue
                inner = self._flat(stmt) if isinstance(stmt, For) else None
                if inner is None:
                    return None
                steps.extend(inner)
        return steps

    def write_chunk(self, loop: For, out: Writer) -> None:
        """Writes the body of a vector loop for one chunk, whose first element the C variable of the loop gives."""
        lanes = self.chunk_lanes(loop)
        assert lanes is not None
        Nest(self, out, _steps(loop, None, lanes)).write()

    def _copy(self, loop: For, value: int) -> tuple[Stmt, ...]:
        """The body of an unrolled loop for one value of its variable, its lets renamed."""
        body = substitute_var(loop.body, loop.var, value)
        renamed = {s.name: f"{s.name}_{value}" for s in body if isinstance(s, Let)}
        if not renamed:
            return body
        memo: dict[Expr, Expr] = {}

        def one(expr: Expr) -> Expr | None:
            return Var(expr.dtype, renamed[expr.name]) if isinstance(expr, Var) and expr.name in renamed else None

        def stmt(s: Stmt) -> Stmt:
            s = map_exprs(s, lambda e: transform(e, one, memo))
            if isinstance(s, For):
                return replace(s, body=tuple(stmt(inner) for inner in s.body))
            return replace(s, name=renamed[s.name]) if isinstance(s, Let) else s

        return tuple(stmt(s) for s in body)

    def copies(self, loop: For) -> Iterator[tuple[Stmt, ...]]:
        """The bodies of an unrolled loop, written out."""
        assert isinstance(loop.extent, int)
        for value in range(loop.extent):
            yield self._copy(loop, value)


class _Scan:
    """How the statements of a block touch one local array, which is to have registers of `register` lanes. `lanes` are
    those of the loops that write it; `read` says whether it is read by the element, or in chunks of other lanes."""

    def __init__(self, vectors: Vectors, name: str, register: int | None = None) -> None:
        self.vectors = vectors
        self.name = name
        self.register = register
        self.read = self.written = self.refused = False
        self.lanes: set[int] = set()

    def block(self, body: tuple[Stmt, ...], constant: frozenset[str]) -> None:
        """`constant` are the variables of loops that are written out."""
        for stmt in body:
            if isinstance(stmt, For) and (lanes := self.vectors.loop_lanes(stmt)):
                self._vector_loop(stmt, lanes, constant)
                continue
            exprs = exprs_of(stmt)
            self.read |= any(isinstance(e, Load) and e.buffer == self.name for e in walk(*exprs))
            if isinstance(stmt, Store) and stmt.buffer == self.name:
                self.refused = True
            inside = constant
            if isinstance(stmt, For) and self.vectors.is_written_out(stmt):
                inside = constant | {stmt.var}
            for inner in blocks_of(stmt):
                self.block(inner, inside)

    def _vector_loop(self, loop: For, lanes: int, constant: frozenset[str]) -> None:
        for stmt in inlined(loop).body:
            stmt = stmt.body[0] if isinstance(stmt, For) else stmt
            assert isinstance(stmt, Store)
            is_written = stmt.buffer == self.name
            accesses = [e.index for e in walk(stmt.value) if isinstance(e, Load) and e.buffer == self.name]
            if is_written:
                self.written = True
                self.lanes.add(lanes)
                accesses.append(stmt.index)
            for index in accesses:
                is_register = index[-1] == Index(t.i64, symbol(loop.var)) and all(
                    isinstance(i, Index) and names(i.value) <= constant for i in index[:-1]
                )
                self.read |= not is_register or lanes != (self.register or lanes)
                self.refused |= not is_register and index is stmt.index and is_written


def _steps(loop: For, base: int | None, lanes: int) -> list[Step]:
    """The statements of a vector loop for one chunk."""
    stores = [(stmt.body[0], stmt.var) if isinstance(stmt, For) else (stmt, None) for stmt in inlined(loop).body]
    return [Step(store, loop.var, base, lanes, dot) for store, dot in stores if isinstance(store, Store)]


def is_costly(loop: For) -> bool:
    """Whether a loop computes functions that take many instructions."""
    exprs = walk(*(e for s in walk_stmts(loop.body) for e in exprs_of(s)))
    return any(isinstance(e, Apply) and e.function in COSTLY for e in exprs)


def is_repeatable(loop: For) -> bool:
    """Whether iterations of a loop may run twice: none adds to an element or reads what the loop writes."""
    stores = [stmt for stmt in inlined(loop).body if isinstance(stmt, Store)]
    written = {store.buffer for store in stores}
    read = {e.buffer for store in stores for e in walk(store.value) if isinstance(e, Load)}
    return len(stores) == len(inlined(loop).body) and not written & read and all(s.function is None for s in stores)


def type_lines(types: set[tuple[DType, int]]) -> list[str]:
    """The declarations of vector types, sorted."""
    lines = []
    for dtype, lanes in sorted(types, key=lambda pair: (pair[0].name, pair[1])):
        name = f"{dtype}x{lanes}"
        lines.append(f"SESAME_VECTOR({name}, {storage_type(dtype)}, {lanes * dtype.itemsize})")
        if dtype in ELEMENTS:
            lines.append(f"SESAME_VECTOR_ORDER{'' if dtype.is_float else '_OF_INTEGERS'}({name})")
    return lines


def _indices(shape: list[int]) -> Iterator[tuple[int, ...]]:
    """All indices of an array, the last one fastest."""
    if not shape:
        yield ()
        return
    for head in range(shape[0]):
        for tail in _indices(shape[1:]):
            yield (head, *tail)


__all__ = ["Vectors", "is_repeatable", "type_lines"]
