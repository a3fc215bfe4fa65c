"""Loops marked "vector" as vector-extension code, and local arrays that fit as registers.

A vector loop is cut into chunks of as many lanes as the processor has; loops marked "unroll" around it are written out,
so that a tile of accumulators becomes named registers and its inner loop one multiply-add after another. What cannot be
written so is refused, and the caller writes ordinary loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from backends.c.expressions import Expressions, Scope, split_offset
from backends.c.lanes import depends, factors_of, first_of, indices_of, is_contiguous, is_dot, keeps_order
from backends.c.names import Writer, wrapped
from backends.c.scalars import Text, constant, storage_type, value_type
from backends.c.sizes import PRODUCT, SUM, UNARY
from ir import types as t
from ir.dims import names, substitute, symbol
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Var, children, transform, walk
from ir.kernel import (
    DOT_OPERANDS,
    For,
    Let,
    Local,
    Stmt,
    Store,
    blocks_of,
    dot_length,
    exprs_of,
    map_exprs,
    walk_stmts,
)
from ir.schedule import substitute_var
from ir.types import DType, TensorType

MAX_COPIES = 256
MAX_REGISTERS = 64
_ELEMENTS = (t.f32, t.f64, t.i8, t.i16, t.i32, t.i64, t.u8, t.u16, t.u32, t.u64)
_DOT_BITS = (128, 256, 512)
_INFIX = {"add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT)}


@dataclass
class Tile:
    """A local array held in registers: one C variable for each leading index and chunk."""

    type: TensorType
    lanes: int
    registers: dict[tuple[int, ...], str] = field(default_factory=dict)
    array: str | None = None

    @property
    def vector(self) -> str:
        return f"{self.type.dtype}x{self.lanes}"


@dataclass(frozen=True)
class _Step:
    """One statement of a written-out nest: for lanes `base` and up of the vector loop over `var`, or scalar.

    With `dot`, the loop of that variable around the statement is part of it: products of narrow operands are added.
    """

    stmt: Store | Let
    var: str
    base: int
    lanes: int
    dot: str | None = None


class Vectors:
    """Writes vector loops of one kernel. `types` collects the vector types it used: element and lanes."""

    def __init__(self, values: Expressions, lanes: int) -> None:
        self.values = values
        self.lanes = lanes
        self.tiles: dict[str, Tile] = {}
        self.types: dict[tuple[DType, int], None] = {}
        self._known_lanes: dict[int, tuple[For, int | None]] = {}

    # ------------------------------------------------------------ what can be written as vectors

    def loop_lanes(self, loop: For) -> int | None:
        """Lanes of the chunks that a vector loop can be cut into, None where it must stay a loop."""
        if loop.mark != "vector" or not isinstance(loop.extent, int) or loop.extent <= 0:
            return None
        if id(loop) not in self._known_lanes:
            self._known_lanes[id(loop)] = (loop, self._lanes_of(loop, loop.extent))
        return self._known_lanes[id(loop)][1]

    def _lanes_of(self, loop: For, extent: int) -> int | None:
        widest = 4
        for stmt in loop.body:
            if isinstance(stmt, For) and is_dot(stmt, loop.var) and not any(map(self._is_data, indices_of(stmt))):
                continue
            if not isinstance(stmt, Store) or stmt.function not in (None, "add", "mul", "max", "min"):
                return None
            dtype = stmt.value.dtype
            if dtype not in _ELEMENTS or not is_contiguous(stmt.index, loop.var):
                return None
            if any(map(self._is_data, stmt.index)):
                return None
            if not self._is_vector(stmt.value, loop.var) and depends(stmt.value, loop.var):
                return None
            sizes = [e.dtype.itemsize for e in walk(stmt.value) if not isinstance(e, Index) and depends(e, loop.var)]
            widest = max(widest, dtype.itemsize, *sizes)
        lanes = self.lanes * 4 // widest
        if 1 < extent < lanes and lanes % extent == 0:
            lanes = extent  # a part of a vector, as where lanes are folded
        return lanes if lanes > 1 and extent % lanes == 0 and keeps_order(loop) else None

    def _is_data(self, expr: Expr) -> bool:
        return self.values.is_data(expr)

    def _is_vector(self, expr: Expr, var: str) -> bool:
        """Whether `expr`, which depends on the loop variable, is made of what vectors can do."""
        if not depends(expr, var):
            return True
        match expr:
            case Load(index=index, outside=None):
                return expr.dtype in _ELEMENTS and is_contiguous(index, var) and not any(map(self._is_data, index))
            case Apply(function=function, args=args):
                known = function in ("add", "sub", "mul", "neg", "max", "min")
                known = known or (function == "div" and expr.dtype.is_float)
                return known and expr.dtype in _ELEMENTS and all(self._is_vector(arg, var) for arg in args)
            case Cast(value=value):
                whole = value.dtype.is_integer or expr.dtype.is_float
                return whole and {value.dtype, expr.dtype} <= set(_ELEMENTS) and self._is_vector(value, var)
        return False

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
        if not shape or not isinstance(shape[-1], int) or local.type.dtype not in _ELEMENTS:
            return None
        found: set[int] = set()
        for stmt in rest:
            scan = _Scan(self, local.name)
            scan.block((stmt,), frozenset())
            if scan.refused or (scan.read and scan.written):
                return None
            found |= scan.lanes
        if len(found) != 1:
            return None
        lanes = found.pop()
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
        scan = _Scan(self, name)
        scan.block((stmt,), frozenset())
        return scan.read

    # ------------------------------------------------------------ writing

    def write(self, loop: For, out: Writer) -> bool:
        """Writes a vector loop, or unrolled loops with nothing but vector loops inside; False where that cannot be."""
        steps = self._flat(loop)
        if steps is None:
            return False
        _Nest(self, out, steps).write()
        return True

    def _flat(self, loop: For) -> list[_Step] | None:
        lanes = self.loop_lanes(loop)
        if lanes:
            assert isinstance(loop.extent, int)
            stores = [(stmt.body[0], stmt.var) if isinstance(stmt, For) else (stmt, None) for stmt in loop.body]
            return [
                _Step(store, loop.var, base, lanes, dot)
                for base in range(0, loop.extent, lanes)
                for store, dot in stores
                if isinstance(store, Store)
            ]
        if not self.is_written_out(loop):
            return None
        assert isinstance(loop.extent, int)
        steps: list[_Step] = []
        for value in range(loop.extent):
            for stmt in self._copy(loop, value):
                if isinstance(stmt, Let):
                    steps.append(_Step(stmt, "", 0, 1))
                    continue
                inner = self._flat(stmt) if isinstance(stmt, For) else None
                if inner is None:
                    return None
                steps.extend(inner)
        return steps

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
    """How the statements of a block touch one local array."""

    def __init__(self, vectors: Vectors, name: str) -> None:
        self.vectors = vectors
        self.name = name
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
        for stmt in loop.body:
            stmt = stmt.body[0] if isinstance(stmt, For) else stmt
            assert isinstance(stmt, Store)
            accesses = [e.index for e in walk(stmt.value) if isinstance(e, Load) and e.buffer == self.name]
            if stmt.buffer == self.name:
                self.written = True
                accesses.append(stmt.index)
            for index in accesses:
                is_register = index[-1] == Index(t.i64, symbol(loop.var)) and all(
                    isinstance(i, Index) and names(i.value) <= constant for i in index[:-1]
                )
                self.lanes |= {lanes} if is_register else set()
                self.read |= not is_register
                self.refused |= not is_register and index is stmt.index and stmt.buffer == self.name


class _Nest:
    """Writes the statements of a written-out nest; loads and scalars that several of them use get a name once."""

    def __init__(self, vectors: Vectors, out: Writer, steps: list[_Step]) -> None:
        self.vectors = vectors
        self.values = vectors.values
        self.out = out
        self.steps = steps
        self.scope = Scope(out)
        self.named: dict[tuple[Expr, int], Text] = {}
        written = {step.stmt.buffer for step in steps if isinstance(step.stmt, Store)}
        self.changing = written - vectors.tiles.keys()
        self.uses: dict[tuple[Expr, int], int] = {}
        for step in steps:
            if step.dot is None:
                self._count(step.stmt.value, step)
                continue
            for operand, base in zip(factors_of(step.stmt.value, step.var), (-1, step.base)):
                self.uses[(operand, base)] = self.uses.get((operand, base), 0) + 1

    def write(self) -> None:
        """Writes all steps in order."""
        self.values.splits_offsets = True
        for step in self.steps:
            if isinstance(step.stmt, Let):
                text = self._scalar(step.stmt.value)
                name = self.values.identifiers.of(step.stmt.name)
                self.out.line(f"const {value_type(step.stmt.value.dtype)} {name} = {text.text};")
            else:
                self._store(step.stmt, step)
        self.values.splits_offsets = False

    def _count(self, expr: Expr, step: _Step) -> None:
        """Counts the uses of vector loads and of scalar operands."""
        if not depends(expr, step.var):
            self.uses[(expr, -1)] = self.uses.get((expr, -1), 0) + 1
        elif isinstance(expr, Load):
            self.uses[(expr, step.base)] = self.uses.get((expr, step.base), 0) + 1
        else:
            for child in children(expr):
                self._count(child, step)

    def _store(self, store: Store, step: _Step) -> None:
        dtype = self._dtype(store.buffer)
        vector = self._type(dtype, step.lanes)
        tile = self.vectors.tiles.get(store.buffer)
        if tile is not None:
            target = self._register(tile, store.index, step)
            current = Text(target)
        else:
            target = self._address(store.buffer, store.index, step)
            current = Text(f"SESAME_LOAD({vector}, {target})")
        if step.dot is not None:
            value, is_vector, function = self._dot(vector, current, store.value, step), True, None
        else:
            value, is_vector = self._value(store.value, step)
            function = store.function
        if tile is not None and function in ("add", "mul") and dtype.is_float:
            self.out.line(f"{target} {'+' if function == 'add' else '*'}= {value.text};")
            return
        if function is not None:
            value, is_vector = self._combined(function, dtype, step.lanes, [(current, True), (value, is_vector)]), True
        if not is_vector:
            value = self.vectors.splat(vector, value)
        if tile is not None:
            self.out.line(f"{target} = {value.text};")
        else:
            self.out.line(f"SESAME_STORE({vector}, {target}, {value.text});")

    def _dot(self, vector: str, current: Text, value: Expr, step: _Step) -> Text:
        """`current` plus, in each lane, the narrow operands of x, the same for all lanes, by those of w."""
        assert step.dot is not None
        x, w = (first_of(load, step.dot) for load in factors_of(value, step.var))
        x_key, w_key = zip(factors_of(value, step.var), (-1, step.base))
        word = self.named.get(x_key)
        if word is None:
            words = self._type(t.i32, step.lanes)
            text = Text(f"SESAME_SPLAT({words}, sesame_word({self._address(x.buffer, x.index, step)}))")
            word = self._name(x_key, f"{x.buffer}_word", words, text) if self.uses[x_key] > 1 else text
        lanes = self.named.get(w_key)
        if lanes is None:
            kind = self._type(w.dtype, dot_length(w.dtype) * step.lanes)
            text = Text(f"SESAME_LOAD({kind}, {self._address(w.buffer, w.index, step)})")
            lanes = self._name(w_key, f"{w.buffer}_lanes", kind, text) if self.uses[w_key] > 1 else text
        return Text(f"sesame_dot{dot_length(w.dtype)}_{vector}({current.text}, {word.text}, {lanes.text})")

    def _dtype(self, buffer: str) -> DType:
        tile = self.vectors.tiles.get(buffer)
        return tile.type.dtype if tile is not None else self.values.places[buffer].type.dtype

    def _type(self, dtype: DType, lanes: int) -> str:
        self.vectors.types[(dtype, lanes)] = None
        return f"{dtype}x{lanes}"

    def _register(self, tile: Tile, index: tuple[Expr, ...], step: _Step) -> str:
        leading = tuple(i.value for i in index[:-1] if isinstance(i, Index) and isinstance(i.value, int))
        return tile.registers[(*leading, step.base // tile.lanes)]

    def _address(self, buffer: str, index: tuple[Expr, ...], step: _Step) -> str:
        """The address of the first lane."""
        place = self.values.places[buffer]
        self.values.used.add(buffer)
        at, offset = split_offset([transform(i, lambda e: _at(e, step)) for i in index], place.type.shape)
        texts = [self.values.value(i, self.scope) for i in at]
        return f"&{place.name}[{self.values.linear(texts, place.type.shape, offset)}]"

    def _value(self, expr: Expr, step: _Step) -> tuple[Text, bool]:
        """The value as C, and whether it is a vector."""
        if not depends(expr, step.var):
            return self._scalar(expr), False
        match expr:
            case Load():
                return self._load(expr, step), True
            case Cast(value=value):
                inner, is_vector = self._value(value, step)
                assert is_vector
                return Text(f"__builtin_convertvector({inner.text}, {self._type(expr.dtype, step.lanes)})"), True
            case Apply(function=function, args=args):
                parts = [self._value(arg, step) for arg in args]
                if function in ("max", "min") and expr.dtype.is_float:
                    bounded = self._bounded(expr, parts, step)
                    if bounded is not None:
                        return bounded, True
                return self._combined(function, expr.dtype, step.lanes, parts), True
        raise AssertionError(f"no vector code for {type(expr).__name__}")

    def _bounded(self, expr: Apply, parts: list[tuple[Text, bool]], step: _Step) -> Text | None:
        for own, other in ((0, 1), (1, 0)):
            bound = expr.args[other]
            if isinstance(bound, Const) and bound.value == bound.value:
                vector = self._type(expr.dtype, step.lanes)
                name = "at_least" if expr.function == "max" else "at_most"
                limit = self.vectors.splat(vector, parts[other][0])
                return Text(f"sesame_{name}_{vector}({parts[own][0].text}, {limit.text})")
        return None

    def _combined(self, function: str, dtype: DType, lanes: int, parts: list[tuple[Text, bool]]) -> Text:
        vector = self._type(dtype, lanes)
        if function in ("max", "min"):
            texts = [text if is_vector else self.vectors.splat(vector, text) for text, is_vector in parts]
            return Text(f"sesame_{function}_{vector}({texts[0].text}, {texts[1].text})")
        if not dtype.is_float and dtype.is_signed:
            # Signed lanes are added as unsigned ones: they wrap around.
            unsigned = self._type(t.DTYPES["u" + dtype.name[1:]], lanes)
            parts = [
                (
                    Text(f"({unsigned}){(text if is_vector else self.vectors.splat(vector, text)).at(UNARY)}", UNARY),
                    True,
                )
                for text, is_vector in parts
            ]
            return Text(f"({vector})({_infix(function, [text for text, _ in parts]).text})", UNARY)
        return _infix(function, [text for text, _ in parts])

    def _load(self, load: Load, step: _Step) -> Text:
        tile = self.vectors.tiles.get(load.buffer)
        if tile is not None and all(isinstance(i, Index) and isinstance(i.value, int) for i in load.index[:-1]):
            return Text(self._register(tile, load.index, step))
        key = (load, step.base)
        if key in self.named:
            return self.named[key]
        vector = self._type(load.dtype, step.lanes)
        text = Text(f"SESAME_LOAD({vector}, {self._address(load.buffer, load.index, step)})")
        if self.uses[key] < 2 or load.buffer in self.changing:
            return text
        return self._name(key, f"{load.buffer}_lanes", vector, text)

    def _scalar(self, expr: Expr) -> Text:
        """A value that is the same in every lane."""
        key = (expr, -1)
        if key in self.named:
            return self.named[key]
        scope = self.values.open([expr], self.out, self.scope)
        text = self.values.value(expr, scope)
        loads = [part for part in walk(expr) if isinstance(part, Load)]
        if not loads or self.uses.get(key, 0) < 2 or any(part.buffer in self.changing for part in loads):
            return text
        return self._name(key, f"{loads[0].buffer}_value", value_type(expr.dtype), text)

    def _name(self, key: tuple[Expr, int], hint: str, kind: str, text: Text) -> Text:
        name = self.values.identifiers.fresh(hint)
        self.out.line(f"const {kind} {name} = {text.text};")
        self.named[key] = Text(name)
        return self.named[key]


def type_lines(types: set[tuple[DType, int]]) -> list[str]:
    """The declarations of vector types, sorted."""
    lines = []
    for dtype, lanes in sorted(types, key=lambda pair: (pair[0].name, pair[1])):
        name = f"{dtype}x{lanes}"
        lines.append(f"SESAME_VECTOR({name}, {storage_type(dtype)}, {lanes * dtype.itemsize})")
        if dtype in _ELEMENTS:
            lines.append(f"SESAME_VECTOR_ORDER{'' if dtype.is_float else '_OF_INTEGERS'}({name})")
    for dtype, lanes in sorted(types, key=lambda pair: (pair[1], pair[0].name)):
        w = DOT_OPERANDS[dtype][1] if dtype in DOT_OPERANDS else None
        count = 0 if w is None else dot_length(w)
        if (w, count * lanes) in types and 32 * lanes in _DOT_BITS:
            lines.append(f"SESAME_VECTOR_DOT{count}_{32 * lanes}({dtype}x{lanes}, i32x{lanes}, {w}x{count * lanes})")
    return lines


def _infix(function: str, args: list[Text]) -> Text:
    if function == "neg":
        return Text(f"-{args[0].at(UNARY + 1)}", UNARY)
    operator, rank = _INFIX[function]
    return Text(f"{args[0].at(rank)} {operator} {args[1].at(rank + 1)}", rank)


def _at(expr: Expr, step: _Step) -> Expr | None:
    if isinstance(expr, Index) and step.var in names(expr.value):
        return Index(t.i64, substitute(expr.value, {step.var: step.base}))
    return None


def _indices(shape: list[int]) -> Iterator[tuple[int, ...]]:
    """All indices of an array, the last one fastest."""
    if not shape:
        yield ()
        return
    for head in range(shape[0]):
        for tail in _indices(shape[1:]):
            yield (head, *tail)


__all__ = ["Tile", "Vectors", "type_lines"]
