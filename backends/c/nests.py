"""Written-out statements over vectors: one line of C for each register, or for each step of a loop over chunks.

Loads, scalars and intermediate values that several statements use get a name once. What may be written so is decided
in `vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from backends.c.expressions import Scope, hint, split_offset
from backends.c.lanes import MATH, factors_of, first_of, is_clamped, is_narrowing, is_whole
from backends.c.names import Writer
from backends.c.scalars import COMPARE, Text, value_type
from backends.c.sizes import PRODUCT, SUM, UNARY
from ir import types as t
from ir.access import varies
from ir.dims import names, substitute
from ir.element import highest, lowest
from ir.expr import Apply, Cast, Const, Expr, Index, Load, children, transform, walk
from ir.kernel import Let, Store, dot_length
from ir.types import DType, TensorType

if TYPE_CHECKING:
    from backends.c.vectors import Vectors

_Key: TypeAlias = tuple[Expr, int | None]
"""A value and the first of its lanes; -1 where it is the same in all lanes."""
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
class Step:
    """One statement of a written-out nest: for lanes `base` and up of the vector loop over `var`, or scalar.

    Where `base` is None, `var` itself runs over the first lanes of chunks. With `dot`, the loop of that variable around
    the statement is part of it: products of narrow operands are added.
    """

    stmt: Store | Let
    var: str
    base: int | None
    lanes: int
    dot: str | None = None


class Nest:
    """Writes the statements of a written-out nest; loads and scalars that several of them use get a name once."""

    def __init__(self, vectors: Vectors, out: Writer, steps: list[Step]) -> None:
        self.vectors = vectors
        self.values = vectors.values
        self.out = out
        self.steps = steps
        self.scope = Scope(out)
        self.named: dict[_Key, Text] = {}
        self.readers: dict[str, list[_Key]] = {}
        self.uses: dict[_Key, int] = {}
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
                self._forget(step.stmt.buffer)
        self.values.splits_offsets = False

    def _count(self, expr: Expr, step: Step) -> None:
        """Counts the uses of vectors and of scalar operands; what a vector is made of counts once."""
        is_vector = varies(expr, step.var)
        key = (expr, step.base if is_vector else -1)
        self.uses[key] = self.uses.get(key, 0) + 1
        if is_vector and self.uses[key] == 1 and not isinstance(expr, Load):
            for child in children(expr):
                self._count(child, step)

    def _store(self, store: Store, step: Step) -> None:
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

    def _dot(self, vector: str, current: Text, value: Expr, step: Step) -> Text:
        """`current` plus, in each lane, the narrow operands of x, the same for all lanes, by those of w."""
        assert step.dot is not None
        x, w = (first_of(load, step.dot) for load in factors_of(value, step.var))
        x_key, w_key = zip(factors_of(value, step.var), (-1, step.base))
        words, kind = self._type(t.i32, step.lanes), self._type(w.dtype, dot_length(w.dtype) * step.lanes)
        word = self.named.get(x_key)
        if word is None:
            text = Text(f"SESAME_SPLAT({words}, sesame_word({self._address(x.buffer, x.index, step)}))")
            word = self._name(x_key, f"{x.buffer}_word", words, text) if self.uses[x_key] > 1 else text
        lanes = self.named.get(w_key)
        if lanes is None:
            text = Text(f"SESAME_LOAD({kind}, {self._address(w.buffer, w.index, step)})")
            lanes = self._name(w_key, f"{w.buffer}_lanes", kind, text) if self.uses[w_key] > 1 else text
        count = dot_length(w.dtype)
        self.vectors.macros[f"SESAME_VECTOR_DOT{count}_{32 * step.lanes}({vector}, {words}, {kind})"] = None
        return Text(f"sesame_dot{count}_{vector}({current.text}, {word.text}, {lanes.text})")

    def _dtype(self, buffer: str) -> DType:
        tile = self.vectors.tiles.get(buffer)
        return tile.type.dtype if tile is not None else self.values.places[buffer].type.dtype

    def _type(self, dtype: DType, lanes: int) -> str:
        self.vectors.types[(dtype, lanes)] = None
        return f"{dtype}x{lanes}"

    def _register(self, tile: Tile, index: tuple[Expr, ...], step: Step) -> str:
        leading = tuple(i.value for i in index[:-1] if isinstance(i, Index) and isinstance(i.value, int))
        assert step.base is not None
        return tile.registers[(*leading, step.base // tile.lanes)]

    def _address(self, buffer: str, index: tuple[Expr, ...], step: Step) -> str:
        """The address of the first lane."""
        place = self.values.places[buffer]
        self.values.used.add(buffer)
        at, offset = split_offset([transform(i, lambda e: _at(e, step)) for i in index], place.type.shape)
        texts = [self.values.value(i, self.scope) for i in at]
        return f"&{place.name}[{self.values.linear(texts, place.type.shape, offset)}]"

    def _value(self, expr: Expr, step: Step) -> tuple[Text, bool]:
        """The value as C, and whether it is a vector."""
        if not varies(expr, step.var):
            return self._scalar(expr), False
        if isinstance(expr, Load):
            return self._load(expr, step), True
        key = (expr, step.base)
        if key in self.named:
            return self.named[key], True
        text = self._cast(expr, step) if isinstance(expr, Cast) else self._apply(expr, step)
        if self.uses.get(key, 0) < 2:
            return text, True
        return self._name(key, hint(expr), self._type(expr.dtype, step.lanes), text), True

    def _vector(self, expr: Expr, step: Step) -> Text:
        """The value as a vector, also where it is the same in all lanes."""
        text, is_vector = self._value(expr, step)
        return text if is_vector else self.vectors.splat(self._type(expr.dtype, step.lanes), text)

    def _apply(self, expr: Expr, step: Step) -> Text:
        assert isinstance(expr, Apply), f"no vector code for {type(expr).__name__}"
        vector = self._type(expr.dtype, step.lanes)
        if expr.function == "select":
            yes, no = (self._vector(side, step) for side in expr.args[1:])
            if not varies(expr.args[0], step.var):
                return Text(f"({self._scalar(expr.args[0]).at(UNARY)} ? {yes.text} : {no.text})")
            return Text(f"SESAME_PICK({vector}, {self._mask(expr.args[0], step).text}, {yes.text}, {no.text})")
        if expr.function in MATH:
            self.vectors.macros[math_macro(step.lanes)] = None
            return Text(f"sesame_{expr.function}_{vector}({self._vector(expr.args[0], step).text})")
        parts = [self._value(arg, step) for arg in expr.args]
        if expr.function in ("max", "min") and expr.dtype.is_float:
            bounded = self._bounded(expr, parts, step)
            if bounded is not None:
                return bounded
        return self._combined(expr.function, expr.dtype, step.lanes, parts)

    def _mask(self, expr: Expr, step: Step) -> Text:
        """A condition as a vector of bits, all set where it holds."""
        assert isinstance(expr, Apply)
        if expr.function in ("and", "or", "not"):
            parts = [f"({self._mask(arg, step).text})" for arg in expr.args]
            return Text(f"~{parts[0]}" if expr.function == "not" else f" {'&|'[expr.function == 'or']} ".join(parts))
        args = [self._vector(arg, step) for arg in expr.args]
        if expr.function == "isnan":
            return Text(f"{args[0].at(SUM)} != {args[0].at(SUM)}")
        return Text(f"{args[0].at(SUM)} {COMPARE[expr.function]} {args[1].at(SUM)}")

    def _cast(self, expr: Cast, step: Step) -> Text:
        """A conversion of vectors; one that changes both width and kind goes by integers of the wider width."""
        value = expr.value
        is_round_trip = isinstance(value, Cast) and is_narrowing(value) and self.uses.get((value, step.base), 0) < 2
        if expr.dtype == t.f32 and isinstance(value, Cast) and is_round_trip:
            return self._bounded_integer("integer", value, step)
        if is_narrowing(expr):
            ints = self._bounded_integer("to_ints", expr, step)
            return Text(f"__builtin_convertvector({ints.text}, {self._type(expr.dtype, step.lanes)})")
        text = self._vector(value, step)
        if t.bf16 in (expr.dtype, value.dtype):
            wide, narrow = self._type(t.f32, step.lanes), self._type(t.bf16, step.lanes)
            self.vectors.macros[f"SESAME_VECTOR_BF16({wide}, {narrow})"] = None
            return Text(f"sesame_{'rounded' if expr.dtype == t.bf16 else 'widened'}_{narrow}({text.text})")
        if expr.dtype.is_float and value.dtype.is_integer and value.dtype.itemsize < expr.dtype.itemsize:
            wide = self._type(t.DTYPES[f"i{8 * expr.dtype.itemsize}"], step.lanes)
            text = Text(f"__builtin_convertvector({text.text}, {wide})")
        return Text(f"__builtin_convertvector({text.text}, {self._type(expr.dtype, step.lanes)})")

    def _bounded_integer(self, name: str, cast: Cast, step: Step) -> Text:
        """An f32 clamped to the range of the integer type it is converted to: in f32 ("integer"), or in 32 bits."""
        self.vectors.macros[math_macro(step.lanes)] = None
        vector = self._type(t.f32, step.lanes)
        text = self._vector(cast.value, step)
        if is_clamped(cast.value, cast.dtype) and (name == "to_ints" or is_whole(cast.value)):
            zero = "number" if name == "integer" else "known_ints"
            return Text(f"sesame_{zero}_{vector}({text.text})")
        low, high = lowest(cast.dtype), highest(cast.dtype)
        return Text(f"sesame_{name}_{vector}({text.text}, {low}.0f, {high}.0f)")

    def _bounded(self, expr: Apply, parts: list[tuple[Text, bool]], step: Step) -> Text | None:
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

    def _load(self, load: Load, step: Step) -> Text:
        tile = self.vectors.tiles.get(load.buffer)
        is_register = tile is not None and step.base is not None and step.lanes == tile.lanes
        if (
            tile is not None
            and is_register
            and all(isinstance(i, Index) and isinstance(i.value, int) for i in load.index[:-1])
        ):
            return Text(self._register(tile, load.index, step))
        key = (load, step.base)
        if key in self.named:
            return self.named[key]
        vector = self._type(load.dtype, step.lanes)
        text = Text(f"SESAME_LOAD({vector}, {self._address(load.buffer, load.index, step)})")
        if self.uses[key] < 2:
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
        if not loads or self.uses.get(key, 0) < 2:
            return text
        return self._name(key, f"{loads[0].buffer}_value", value_type(expr.dtype), text)

    def _forget(self, buffer: str) -> None:
        """What was made of a buffer's elements is not what it would be once more of them are stored."""
        for key in self.readers.pop(buffer, ()):
            self.named.pop(key, None)

    def _name(self, key: _Key, stem: str, kind: str, text: Text) -> Text:
        name = self.values.identifiers.fresh(stem)
        self.out.line(f"const {kind} {name} = {text.text};")
        self.named[key] = Text(name)
        for buffer in {e.buffer for e in walk(key[0]) if isinstance(e, Load)}:
            self.readers.setdefault(buffer, []).append(key)
        return self.named[key]


def math_macro(lanes: int) -> str:
    """What declares the mathematical functions of vectors of f32."""
    return f"SESAME_VECTOR_MATH(f32x{lanes}, SESAME_VECTOR_UNITS_{32 * lanes})"


def _infix(function: str, args: list[Text]) -> Text:
    if function == "neg":
        return Text(f"-{args[0].at(UNARY + 1)}", UNARY)
    operator, rank = _INFIX[function]
    return Text(f"{args[0].at(rank)} {operator} {args[1].at(rank + 1)}", rank)


def _at(expr: Expr, step: Step) -> Expr | None:
    if step.base is not None and isinstance(expr, Index) and step.var in names(expr.value):
        return Index(t.i64, substitute(expr.value, {step.var: step.base}))
    return None
