"""What attention looks like in kernels: products, and rows of weights that are exponentials over their sum.

`attend` makes one kernel of two products with a softmax between them; here is how the three are known, each by what its
statements do and not by where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ir import types as t
from ir.access import any_varies, is_contiguous
from ir.dims import Size, substitute, symbol
from ir.expr import Apply, Const, Expr, Index, Load, Var, transform, walk
from ir.kernel import Assign, For, Kernel, Let, Local, Stmt, Store, Variable


@dataclass(frozen=True)
class Product:
    """A sum of products of two operands: `left` goes with the rows (the last loop but one), `right` with the columns.
    `value` is what is stored of the sum, the variable `sum`."""

    loops: tuple[For, ...]
    sum: str
    depth: For
    left: Load
    right: Load
    store: Store
    value: Expr

    @property
    def row(self) -> For:
        return self.loops[-2]

    @property
    def column(self) -> For:
        return self.loops[-1]


@dataclass(frozen=True)
class Weights:
    """Rows of exponentials over their sum. `score` is an element before that, at place `column.var` of the row;
    `weight` is what is stored, of the exponential, the variable `power`, and of the row's sum, the variable `total`."""

    loops: tuple[For, ...]
    column: For
    score: Expr
    power: str
    total: str
    weight: Expr
    store: Store

    @property
    def divisor(self) -> Expr | None:
        """What each exponential is divided by, where a weight is nothing but that quotient, or 0 where that is NaN."""
        value, power = self.quotient, Var(t.f32, self.power)
        if not isinstance(value, Apply) or value.function != "div" or value.args[0] != power:
            return None
        divisor = value.args[1]
        if power in walk(divisor) or (self.is_guarded and divisor != Var(t.f32, self.total)):
            return None
        return divisor

    @property
    def quotient(self) -> Expr:
        """A weight without what makes 0 of NaN."""
        match self.weight:
            case Apply(function="select", args=(Apply(function="isnan", args=(tested,)), Const(value=0), value)):
                return value if tested == value else self.weight
        return self.weight

    @property
    def is_guarded(self) -> bool:
        """Whether a weight that would be NaN is 0."""
        return self.quotient is not self.weight


def product_of(kernel: Kernel) -> Product | None:
    """The product of f32 that a kernel is; None for any other kernel."""
    loops, body = _nest(kernel)
    if len(loops) < 2 or len(body) < 3 or not isinstance(body[0], Variable) or not isinstance(body[1], For):
        return None
    start, depth, store = body[0], body[1], body[-1]
    if start.init != Const(t.f32, 0.0) or not isinstance(store, Store) or store.function is not None:
        return None
    if len(depth.body) != 1 or isinstance(depth.extent, Expr) or not all(isinstance(s, Let) for s in body[2:-1]):
        return None
    update = depth.body[0]
    if not isinstance(update, Assign) or (update.name, update.function) != (start.name, "add"):
        return None
    sides = _sides(update.value, loops[-2].var, loops[-1].var, depth.var)
    value = _named(body[2:-1], store.value)
    return None if sides is None else Product(loops, start.name, depth, *sides, store, value)


def _sides(value: Expr, row: str, column: str, depth: str) -> tuple[Load, Load] | None:
    """The operands of a product, that of the rows first."""
    if not isinstance(value, Apply) or value.function != "mul" or value.dtype != t.f32:
        return None
    loads = [
        arg for arg in value.args if isinstance(arg, Load) and arg.outside is None and any_varies(arg.index, depth)
    ]
    if len(loads) != 2:
        return None
    left, right = sorted(loads, key=lambda load: any_varies(load.index, column))
    if any_varies(left.index, column) or any_varies(right.index, row):
        return None
    return (left, right) if any_varies(left.index, row) and any_varies(right.index, column) else None


def weights_of(kernel: Kernel) -> Weights | None:
    """The rows of weights that a kernel makes; None for any other kernel."""
    loops, body = _nest(kernel)
    known: dict[str, Expr] = {}
    steps: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, Let):
            known[stmt.name] = _put_in(stmt.value, known)
        elif not isinstance(stmt, Local):
            steps.append(stmt)
    match steps:
        case [Variable() as top, For() as highest, For() as powers, Variable() as total, For() as sums, For() as last]:
            return _weights(loops, known, (top, highest), powers, (total, sums), last)
    return None


def _weights(
    loops: tuple[For, ...],
    known: Mapping[str, Expr],
    top: tuple[Variable, For],
    powers: For,
    total: tuple[Variable, For],
    last: For,
) -> Weights | None:
    """Rows of weights from their greatest score, the exponentials, their sum, and what is stored."""
    column = last.var
    score = _gathered(*top, "max", column)
    stored, store = _only_store(powers), _only_store(last)
    if score is None or stored is None or store is None or top[0].init not in _LOWEST:
        return None
    if any(loop.extent != last.extent for loop in (top[1], powers, total[1])) or isinstance(last.extent, Expr):
        return None
    power = _moved(_put_in(stored.value, known), powers.var, column)
    if not isinstance(power, Apply) or power.function != "exp" or power.dtype != t.f32:
        return None
    (difference,) = power.args
    if not isinstance(difference, Apply) or difference.function != "sub" or difference.args[0] != score:
        return None
    if not _is_top(difference.args[1], top[0].name):
        return None
    at = tuple(_moved(i, powers.var, column) for i in stored.index)
    made = Load(t.f32, stored.buffer, at)
    if _gathered(*total, "add", column) != made or total[0].init != Const(t.f32, 0.0):
        return None
    name = f"{total[0].name}_power"
    weight = transform(_put_in(store.value, known), lambda e: Var(t.f32, name) if e == made else None)
    others = [e for e in walk(weight) if isinstance(e, (Load, Index)) or e == Var(t.f32, top[0].name)]
    return None if others else Weights(loops, last, score, name, total[0].name, weight, store)


_LOWEST = (Const(t.f32, -math.inf), Const(t.f32, float(t.f32.numpy.type(-3.4028234663852886e38))))


def _is_top(value: Expr, top: str) -> bool:
    """Whether a value is the greatest score, or 0 in its place where no score is above -inf."""
    own = Var(t.f32, top)
    match value:
        case Apply(function="select", args=(Apply(function="eq", args=pair), Const(value=0), other)):
            return other == own and set(pair) == {own, _LOWEST[0]}
    return value == own


def in_rows(product: Product, weights: Weights) -> Product | None:
    """A product in the rows of weights: the same rows, or groups of heads whose rows it takes as those of one; None
    where it goes through others."""
    *lead, last = (loop.extent for loop in product.loops[:-1])
    rows = weights.loops
    extents = [loop.extent for loop in rows]
    places: dict[str, Size] = {loop.var: symbol(row.var) for loop, row in zip(product.loops, rows)}
    if [*lead, last] != extents:
        if len(rows) < 2 or any(isinstance(extent, Expr) for extent in (last, *extents)):
            return None
        heads, each = extents[-2:]
        is_one = lead == extents[:-2]  # all heads are of one group, which has no loop
        groups = 1 if is_one else lead[-1] if lead[:-1] == extents[:-2] else None
        if not isinstance(heads, int) or not isinstance(groups, int) or heads % groups != 0:
            return None
        shared = heads // groups
        if last != each * shared:  # type: ignore[operator]
            return None
        head = symbol(rows[-2].var)
        places[product.row.var] = head % shared * each + symbol(rows[-1].var)  # type: ignore[operator]
        if not is_one:
            places[product.loops[-3].var] = head // shared
    left, right = (replace(e, index=tuple(moved(i, places) for i in e.index)) for e in (product.left, product.right))
    store = replace(product.store, index=tuple(moved(i, places) for i in product.store.index))
    if any_varies(right.index, rows[-1].var):
        return None
    loops = (*rows, product.column)
    return replace(product, loops=loops, left=left, right=right, store=store, value=moved(product.value, places))


def composed(scores: Product, weights: Weights, reader: str) -> Expr:
    """A score from the sum of its products, as a function of the row and column of the scores. The weights read what
    is stored of the sum as buffer `reader`."""
    inner = moved(weights.score, {weights.column.var: symbol(scores.column.var)})
    return transform(inner, lambda e: scores.value if isinstance(e, Load) and e.buffer == reader else None)


def place(kernel: Kernel, access: Load | Store, places: Mapping[str, Size]) -> Size | None:
    """Where in memory a load or store is, counted in elements, with other places for loop variables; None where data
    tells."""
    found: Size = 0
    for index, size in zip(access.index, kernel.buffer(access.buffer).type.shape):
        if not isinstance(index, Index):
            return None
        found = found * size + substitute(index.value, places)
    return found


def _nest(kernel: Kernel) -> tuple[tuple[For, ...], tuple[Stmt, ...]]:
    """The loops that hold nothing but the next, and what the innermost holds."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For) and not isinstance(body[0].extent, Expr):
        loops.append(body[0])
        body = body[0].body
    return tuple(loops), body


def _gathered(variable: Variable, loop: For, function: str, column: str) -> Expr | None:
    """What a loop gathers into a variable by a function, at place `column`."""
    update = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(update, Assign) or (update.name, update.function) != (variable.name, function):
        return None
    return _moved(update.value, loop.var, column)


def _only_store(loop: For) -> Store | None:
    """The store that is all that a loop does, at the element of its number."""
    store = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(store, Store) or store.function is not None or not is_contiguous(store.index, loop.var):
        return None
    return store


def _named(lets: tuple[Stmt, ...], value: Expr) -> Expr:
    known: dict[str, Expr] = {}
    for stmt in lets:
        assert isinstance(stmt, Let)
        known[stmt.name] = _put_in(stmt.value, known)
    return _put_in(value, known)


def _put_in(value: Expr, known: Mapping[str, Expr]) -> Expr:
    """A value with what names stand for."""
    return transform(value, lambda e: known.get(e.name) if isinstance(e, Var) else None) if known else value


def _moved(value: Expr, var: str, to: str) -> Expr:
    return moved(value, {var: symbol(to)})


def moved(value: Expr, places: Mapping[str, Size]) -> Expr:
    """A value with other places for loop variables."""

    def one(expr: Expr) -> Expr | None:
        return Index(t.i64, substitute(expr.value, places)) if isinstance(expr, Index) else None

    return transform(value, one)


def loads_of(value: Expr, buffer: str) -> list[Load]:
    """The loads of a buffer in a value."""
    return [e for e in walk(value) if isinstance(e, Load) and e.buffer == buffer]


__all__ = ["Product", "Weights", "composed", "in_rows", "loads_of", "moved", "place", "product_of", "weights_of"]
