"""Kernel expressions as C expressions.

Expressions are graphs: what occurs twice in a statement becomes a `const` local in front of it. A load that may leave
its buffer stands behind the condition that protects it and is never moved in front. This module writes no statements
but those locals, and knows no calling convention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from backends.c.names import Identifiers, Writer
from backends.c.scalars import (
    COMPARISON,
    Text,
    bounded_text,
    cast_text,
    constant,
    function_text,
    integer_in_float,
    loaded,
    value_type,
)  # fmt: skip
from backends.c.sizes import ATOM, PRODUCT, SUM, UNARY, size_text
from ir import types as t
from ir.dims import Dim, Name, Size, bounded, decide_le, names, substitute, terms
from ir.expr import Apply, Cast, Const, Expr, Index, Load, Reduce, Var, children, walk
from ir.types import TensorType

_DEEPEST = 12
_NOUNS = {
    "add": "sum", "sub": "difference", "mul": "product", "div": "quotient", "floordiv": "quotient", "mod": "remainder",
    "fmod": "remainder", "min": "least", "max": "greatest", "neg": "negated", "select": "picked", "lt": "is_less",
    "le": "is_at_most", "gt": "is_greater", "ge": "is_at_least", "eq": "is_equal", "ne": "differs", "sqrt": "root",
    "exp": "exponential", "log": "logarithm", "not": "inverted", "and": "both", "or": "either", "abs": "size",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a kernel's buffer or local array is: its C name and its type."""

    name: str
    type: TensorType


@dataclass
class Scope:
    """Values that have a name here, and where new ones are declared. Inner scopes see the names of outer ones."""

    writer: Writer
    parent: Scope | None = None
    named: dict[Expr, Text] = field(default_factory=dict)
    indices: dict[Size, Text] = field(default_factory=dict)

    def find(self, expr: Expr) -> Text | None:
        """The name that stands for `expr`, here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if expr in scope.named:
                return scope.named[expr]
            scope = scope.parent
        return None

    @property
    def root(self) -> Scope:
        """The outermost scope: that of the statement."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope


class Expressions:
    """Writes the expressions of one kernel. `places` maps names of buffers and local arrays in sight; `arrays` are the
    types of all local arrays, in sight or in registers.

    `data` are the buffers and variables that hold values from the kernel's inputs: an index made of them is checked
    before it is used, and `checks_indices` says that there was one. With `splits_offsets` the constant part of an index
    stands by itself, so that neighbouring loads share an address. `exact` is that of `function_text`.
    """

    def __init__(
        self,
        identifiers: Identifiers,
        places: dict[str, Place],
        data: frozenset[str] = frozenset(),
        *,
        exact: bool = False,
    ) -> None:
        self.identifiers = identifiers
        self.places = places
        self.data = data
        self.exact = exact
        self.arrays: dict[str, TensorType] = {}
        self.used: set[str] = set()
        self.checks_indices = False
        self.splits_offsets = False
        self._loops: list[tuple[str, Size]] = []

    def spell(self, name: str) -> str:
        """The C name of a loop variable, size or scalar local; notes that it is used."""
        self.used.add(name)
        return self.identifiers.of(name)

    def loop(self, variable: str, extent: Size | None) -> Iterator[None]:
        """A context (as a generator) in which `variable` runs from 0 below `extent`, None where that is not a size."""
        if extent is None:
            with bounded({variable: (0, None)}):
                yield
            return
        self._loops.append((variable, extent))
        top = extent - 1 if isinstance(extent, int) else None
        with bounded({variable: (0, top)}) if top is None or top >= 0 else bounded({variable: (0, None)}):
            yield
        self._loops.pop()

    # ------------------------------------------------------------ scopes

    def open(self, roots: Iterable[Expr], writer: Writer, parent: Scope | None = None) -> Scope:
        """A scope for evaluating `roots` once each, with what they share already declared."""
        scope = Scope(writer, parent)
        for expr in self._shared(list(roots), scope):
            scope.named[expr] = self._declare(expr, self._render(expr, scope), scope)
        return scope

    def _shared(self, roots: list[Expr], scope: Scope) -> list[Expr]:
        """What to give a name: evaluated whatever happens, and used more than once or at the end of a long chain."""
        order, guarded = self._unconditional(roots, scope)
        sure = set(order)
        uses: dict[Expr, int] = {}
        for expr in [*order, *(e for e in walk(*guarded) if e not in sure)]:
            for child in children(expr):
                uses[child] = uses.get(child, 0) + 1
        for root in roots:
            uses[root] = uses.get(root, 0) + 1
        loads = {branch for expr in order if _is_select(expr) for branch in children(expr)[1:] if _has_load(branch)}
        named: list[Expr] = []
        depth: dict[Expr, int] = {}
        for expr in order:
            depth[expr] = 1 + max((depth.get(child, 0) for child in children(expr)), default=0)
            if _is_leaf(expr):
                continue
            if uses[expr] > 1 or expr in loads or depth[expr] > _DEEPEST:
                named.append(expr)
                depth[expr] = 0
        return named

    def _unconditional(self, roots: list[Expr], scope: Scope) -> tuple[list[Expr], list[Expr]]:
        """What evaluating `roots` always evaluates, operands first, and the roots of what is evaluated on condition."""
        order: list[Expr] = []
        guarded: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            expr, ready = stack.pop()
            if ready:
                order.append(expr)
            elif expr not in seen and scope.find(expr) is None:
                seen.add(expr)
                sure, maybe = self._split(expr)
                guarded.extend(maybe)
                stack.append((expr, True))
                stack.extend((child, False) for child in reversed(sure))
        return order, guarded

    def _split(self, expr: Expr) -> tuple[list[Expr], list[Expr]]:
        """The operands that evaluating `expr` always evaluates, and those it evaluates on condition."""
        if _is_select(expr):
            condition, *branches = children(expr)
            safe = [branch for branch in branches if self.is_safe(branch)]
            return [condition, *safe], [branch for branch in branches if branch not in safe]
        if isinstance(expr, Load) and expr.outside is not None and not self.is_safe(expr.outside):
            return list(expr.index), [expr.outside]
        return list(children(expr)), []

    def is_safe(self, expr: Expr) -> bool:
        """Whether every load in `expr` stays inside its buffer, so that evaluating it needlessly does no harm."""
        return all(
            part.outside is not None or not self._may_leave(part) for part in walk(expr) if isinstance(part, Load)
        )

    def _declare(self, expr: Expr, text: Text, scope: Scope) -> Text:
        name = self.identifiers.fresh(hint(expr))
        scope.writer.line(f"const {value_type(expr.dtype)} {name} = {text.text};")
        return Text(name)

    # ------------------------------------------------------------ expressions

    def value(self, expr: Expr, scope: Scope) -> Text:
        """`expr` as C; declares in `scope` what it needs."""
        leaf = self._leaf(expr)
        if leaf is not None:
            return leaf
        return scope.find(expr) or self._render(expr, scope)

    def _leaf(self, expr: Expr) -> Text | None:
        match expr:
            case Const():
                return constant(expr.dtype, expr.value)
            case Var():
                return Text(self.spell(expr.name))
            case Index():
                return Text(*size_text(expr.value, self.spell))
        return None

    def _render(self, expr: Expr, scope: Scope) -> Text:
        match expr:
            case Load():
                return self._load(expr, scope)
            case Cast(value=Const() as inner) if inner.dtype.is_integer and expr.dtype in (t.f32, t.f64):
                return constant(expr.dtype, inner.value)
            case Cast(dtype=t.f32, value=Cast() as inner) if self._is_round_trip(inner, scope):
                return integer_in_float(self.value(inner.value, scope), inner.dtype)
            case Cast():
                value = self.value(expr.value, scope)
                return cast_text(value, expr.value.dtype, expr.dtype, expr.saturate)
            case Apply(function="select"):
                return self._select(expr, scope)
            case Apply():
                return self._apply(expr, scope)
            case Reduce():
                raise AssertionError("a reduction that was not lowered to loops reached the C emitter")
        leaf = self._leaf(expr)
        assert leaf is not None, f"no C for {type(expr).__name__}"
        return leaf

    def _is_round_trip(self, cast: Cast, scope: Scope) -> bool:
        """Whether a float becomes a small integer only to become a float again: then it need not leave float."""
        return (
            cast.dtype.is_integer and cast.dtype.bits in (8, 16) and cast.value.dtype == t.f32 and not scope.find(cast)
        )

    def _apply(self, expr: Apply, scope: Scope) -> Text:
        args = [self.value(arg, scope) for arg in expr.args]
        dtype = expr.args[0].dtype
        if expr.function in ("min", "max") and dtype.is_float:
            for value, bound, literal in ((args[0], args[1], expr.args[1]), (args[1], args[0], expr.args[0])):
                if isinstance(literal, Const) and literal.value == literal.value:
                    return bounded_text(expr.function, dtype, value, bound)
        return function_text(expr.function, dtype, args, exact=self.exact)

    def _select(self, expr: Apply, scope: Scope) -> Text:
        condition = self.value(expr.args[0], scope)
        return self._either(expr, condition, expr.args[1], expr.args[2], scope)

    def _either(self, whole: Expr, condition: Text, yes: Expr, no: Expr, scope: Scope) -> Text:
        """`condition ? yes : no`, or an if statement where a side that must not run needs locals of its own."""
        texts, writers = [], []
        for branch in (yes, no):
            writer = Writer(scope.writer.depth + 1)
            inner = scope if self.is_safe(branch) else self.open([branch], writer, scope)
            texts.append(self.value(branch, inner))
            writers.append(writer)
        if not any(writer.lines for writer in writers):
            return function_text("select", whole.dtype, [condition, *texts])
        name = self.identifiers.fresh(hint(whole))
        out = scope.writer
        out.line(f"{value_type(whole.dtype)} {name};")
        out.line(f"if ({condition.text}) {{")
        for writer, text, tail in zip(writers, texts, ("} else {", "}")):
            out.extend(writer.lines)
            out.line(f"  {name} = {text.text};")
            out.line(tail)
        return Text(name)

    # ------------------------------------------------------------ loads

    def _load(self, load: Load, scope: Scope) -> Text:
        place = self.places[load.buffer]
        self.used.add(load.buffer)
        if load.outside is None:
            return self._plain_load(load, place, scope)
        checks, index = self._checked_index(load, scope)
        value = loaded(load.dtype, f"{place.name}[{self.linear(index, place.type.shape)}]")
        if not checks:
            return value
        writer = Writer(scope.writer.depth + 1)
        safe = self.is_safe(load.outside)
        outside = self.value(load.outside, scope if safe else self.open([load.outside], writer, scope))
        condition = Text(" && ".join(checks), COMPARISON)
        if not writer.lines:
            return function_text("select", load.dtype, [condition, value, outside])
        name = self.identifiers.fresh(hint(load))
        scope.writer.line(f"{value_type(load.dtype)} {name};")
        scope.writer.line(f"if ({condition.text}) {{")
        scope.writer.line(f"  {name} = {value.text};")
        scope.writer.line("} else {")
        scope.writer.extend(writer.lines)
        scope.writer.line(f"  {name} = {outside.text};")
        scope.writer.line("}")
        return Text(name)

    def _plain_load(self, load: Load, place: Place, scope: Scope) -> Text:
        exprs, offset = load.index, 0
        if self.splits_offsets and not any(map(self.is_data, exprs)):
            exprs, offset = split_offset(exprs, place.type.shape)
        index = [self.value(i, scope) for i in exprs]
        checks = self.validity(exprs, index, place.type.shape, scope)
        value = loaded(load.dtype, f"{place.name}[{self.linear(index, place.type.shape, offset)}]")
        if not checks:
            return value
        condition = Text(" && ".join(checks), COMPARISON)
        return function_text("select", load.dtype, [condition, value, constant(load.dtype, 0)])

    def validity(self, exprs: Sequence[Expr], index: list[Text], shape: Sequence[Size], scope: Scope) -> list[str]:
        """The checks of indices that come from data; each that is no name or number gets one, in place in `index`."""
        checks: list[str] = []
        for position, (expr, size) in enumerate(zip(exprs, shape)):
            if not self.is_data(expr):
                continue
            if index[position].rank != ATOM or "(" in index[position].text:
                index[position] = self._named_index(expr, index[position], scope)
            self.checks_indices = True
            limit = size_text(size, self.spell)[0]
            checks.append(f"sesame_index_is_valid({index[position].text}, {limit}, invalid_index)")
        return checks

    def is_data(self, expr: Expr) -> bool:
        """Whether the value comes from the kernel's inputs, rather than from loops and sizes."""
        return any(
            (isinstance(part, Load) and part.buffer in self.data) or (isinstance(part, Var) and part.name in self.data)
            for part in walk(expr)
        )

    def _checked_index(self, load: Load, scope: Scope) -> tuple[list[str], list[Text]]:
        """The conditions under which `load` stays inside, and its index with what they mention named."""
        checks: list[str] = []
        index: list[Text] = []
        for expr, size in zip(load.index, self.places[load.buffer].type.shape):
            below, above = self._may_pass(expr, size)
            text = self.value(expr, scope)
            if (below or above) and (text.rank != ATOM or "(" in text.text):
                text = self._named_index(expr, text, scope)
            if below:
                checks.append(f"{text.text} >= 0")
            if above:
                checks.append(f"{text.text} < {Text(*size_text(size, self.spell)).at(SUM)}")
            index.append(text)
        return checks, index

    def _named_index(self, expr: Expr, text: Text, scope: Scope) -> Text:
        if not isinstance(expr, Index):
            name = self.identifiers.fresh("at")
            scope.writer.line(f"const int64_t {name} = {text.text};")
            return Text(name)
        root = scope.root
        if expr.value not in root.indices:
            name = self.identifiers.fresh("at")
            root.writer.line(f"const int64_t {name} = {text.text};")
            root.indices[expr.value] = Text(name)
        return root.indices[expr.value]

    def linear(self, index: Sequence[Text], shape: Sequence[Size], offset: int = 0) -> str:
        """The position of an element of a dense row-major array, in elements, `offset` after the one at `index`."""
        total: Text | None = None
        for text, size in zip(index, shape):
            if total is not None and total.text.isdigit() and isinstance(size, int):
                total = Text(str(int(total.text) * size))
            elif total is not None and size != 1:
                total = Text(f"{total.at(PRODUCT)} * {Text(*size_text(size, self.spell)).at(UNARY)}", PRODUCT)
            if text.text == "0":
                continue
            if total is None:
                total = text
            elif total.text.isdigit() and text.text.isdigit():
                total = Text(str(int(total.text) + int(text.text)))
            elif text.text.startswith("-"):
                total = Text(f"{total.at(SUM)} - {text.text[1:]}", SUM)
            else:
                total = Text(f"{total.at(SUM)} + {text.at(SUM)}", SUM)
        if total is None or offset == 0:
            return str(offset) if total is None else total.text
        if total.text.isdigit():
            return str(int(total.text) + offset)
        return f"{total.at(SUM)} {'-' if offset < 0 else '+'} {abs(offset)}"

    def _may_leave(self, load: Load) -> bool:
        place = self.places.get(load.buffer)
        shape = self.arrays[load.buffer].shape if place is None else place.type.shape
        return any(any(self._may_pass(expr, size)) for expr, size in zip(load.index, shape))

    def _may_pass(self, index: Expr, size: Size) -> tuple[bool, bool]:
        """Whether an index may be negative, and whether it may reach `size`, as far as the loops around it tell."""
        if not isinstance(index, Index):
            return True, True
        below = decide_le(0, self._least(index.value)) is not True
        above = decide_le(1, self._least(size - index.value)) is not True
        return below, above

    def _least(self, size: Size) -> Size:
        """`size` with each loop variable that it is linear in at the end of its range that makes it least.

        Bounds are constants, so h < H is not among them; this is what proves h + 1 <= H inside a loop over H.
        """
        for variable, extent in reversed(self._loops):
            if not isinstance(size, Dim):
                return size
            slope = _slope(size, variable)
            if slope is not None and slope < 0:
                size = substitute(size, {variable: extent - 1})
            elif slope is not None and slope > 0:
                size = substitute(size, {variable: 0})
        return size


def split_offset(index: Sequence[Expr], shape: Sequence[Size]) -> tuple[tuple[Expr, ...], int]:
    """An index without its constant parts, as far as strides are known, and the elements they stand for."""
    rest = list(index)
    offset, stride = 0, 1
    for position in reversed(range(len(rest))):
        expr = rest[position]
        constant_part = next((c for c, atoms in terms(expr.value) if not atoms), 0) if isinstance(expr, Index) else 0
        if isinstance(expr, Index) and isinstance(constant_part, int) and constant_part:
            rest[position] = Index(t.i64, expr.value - constant_part)
            offset += constant_part * stride
        size = shape[position]
        if not isinstance(size, int):
            break
        stride *= size
    return tuple(rest), offset


def _slope(size: Dim, variable: str) -> int | None:
    """The constant factor of `variable` in `size`; None where it also stands elsewhere."""
    slope = 0
    for coefficient, atoms in terms(size):
        if len(atoms) == 1 and isinstance(atoms[0], Name) and atoms[0].name == variable:
            slope = coefficient
        elif variable in names(Dim(((1, atoms),))):
            return None
    return slope if isinstance(slope, int) else None


def _is_leaf(expr: Expr) -> bool:
    if isinstance(expr, Cast):
        return isinstance(expr.value, (Const, Index, Var))
    return isinstance(expr, (Const, Index, Var))


def _is_select(expr: Expr) -> bool:
    return isinstance(expr, Apply) and expr.function == "select"


def _has_load(expr: Expr) -> bool:
    return any(isinstance(part, Load) for part in walk(expr))


def hint(expr: Expr) -> str:
    match expr:
        case Load():
            return f"{expr.buffer}_value"
        case Apply():
            return _NOUNS.get(expr.function, f"{expr.function}_value")
        case Cast():
            return f"as_{expr.dtype}" if expr.dtype != t.bool_ else "is_set"
    return "value"
