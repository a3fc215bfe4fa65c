"""Attention as one kernel over blocks of queries: what `attend` makes of two products and the softmax between them.

The queries of a block are the lanes of vectors. Its scores lie key by key, so that the greatest score and the sum of
each query are gathered lane by lane, and each weight is a scalar to the product with the values. Keys come either all
at once, or in blocks with a running maximum and sum: what was gathered before is scaled by how far the maximum rose
(Milakov and Gimelshein 2018, Dao et al. 2022), and no more than a block of scores is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.passes.attention import Product, Weights, moved
from compiler.passes.attention_limits import holds, may_hold
from compiler.passes.attention_masks import in_blocks
from ir import types as t
from ir.access import varies
from ir.dims import Size, ceil_div, minimum, symbol
from ir.element import Names
from ir.expr import Apply, Const, Expr, Index, Load, Var, apply, select, transform, walk
from ir.functions import COSTLY
from ir.kernel import For, If, Let, Local, Mark, Stmt, Store
from ir.types import TensorType

_SHORT = 8
"""Operations of a score that are written out for each register."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of blocks: `queries` and `keys` of a block of scores, of which `tile_keys` are summed at a time; and of the
    results, `rows` by `columns` at a time. With `is_whole` a block holds all keys, else maximum and sum run on.
    `step` is how many keys the values of all rows are multiplied with before the next."""

    queries: int
    keys: int
    tile_keys: int
    rows: int
    columns: int
    lanes: int
    is_whole: bool
    step: int


@dataclass(frozen=True)
class Score:
    """A score as a function of the sum of its products, the variable `sum`, of query `row` and of key `column`. Buffers
    that are `masks` are turned, for blocks of `queries`."""

    value: Expr
    sum: str
    row: str
    column: str
    masks: frozenset[str]
    queries: int

    def at(self, total: Expr, row: Size, key: Size, lane: tuple[Size, Size] | None = None) -> Expr:
        """The score of a query and a key. `lane` says where the query is in masks, by block and place, where that does
        not follow from `row`."""
        block, place = (row // self.queries, row % self.queries) if lane is None else lane
        value = moved(in_blocks(self.value, self.masks, block, place), {self.row: row, self.column: key})
        return transform(value, lambda e: total if e == Var(t.f32, self.sum) else None)

    @property
    def is_by_lane(self) -> bool:
        """Whether the score of a key is the same function of the sum and of masks for all queries."""
        rest = transform(self.value, lambda e: _ZERO if isinstance(e, Load) and e.buffer in self.masks else None)
        return not varies(rest, self.row)

    @property
    def is_long(self) -> bool:
        """Whether it is a function of many operations."""
        functions = [e.function for e in walk(self.value) if isinstance(e, Apply)]
        return len(functions) > _SHORT or any(function in COSTLY for function in functions)


@dataclass
class Attention:
    """The parts of attention with one set of names, and how they are cut into blocks. `score` is that of all pairs of
    queries and keys, `seen` that of pairs for which all `limits` hold: by others it is -inf."""

    scores: Product
    weights: Weights
    values: Product
    score: Score
    seen: Score
    limits: Sequence[Apply]
    blocks: Blocks
    names: Names

    def __post_init__(self) -> None:
        self.rows, self.count = _size(self.scores.row), _size(self.scores.column)
        self.depth, self.width = _number(self.scores.depth.extent), _number(self.values.column.extent)
        fresh = self.names.fresh
        self.block = fresh(f"{self.scores.row.var}_block")
        self.queries, self.powers, self.result = fresh("queries"), fresh("powers"), fresh("result")
        self.top, self.peak, self.total, self.faded = fresh("top"), fresh("peak"), fresh("total"), fresh("faded")

    # ------------------------------------------------------------ the kernel's body

    def loop(self) -> For:
        """The loop over the blocks of queries of a head."""
        b = self.blocks
        held = [(self.queries, self.depth, b.queries), (self.total, b.queries), (self.result, b.queries, self.width)]
        held += [] if b.is_whole else [(self.top, b.queries)]
        made: tuple[Stmt, ...] = (
            *(Local(name, TensorType(t.f32, tuple(shape))) for name, *shape in held),
            *self._gather_queries(),
            *self._start(),
            *(self._all_keys() if b.is_whole else self._key_blocks()),
            *self._finish(),
        )
        return For(self.block, ceil_div(self.rows, b.queries), made, "parallel")

    @property
    def is_even(self) -> bool:
        """Whether each block has all of its queries."""
        return self.rows % self.blocks.queries == 0

    @property
    def valid(self) -> Size:
        """How many queries of the block there are."""
        size = self.blocks.queries
        return size if self.is_even else minimum(size, self.rows - symbol(self.block) * size)

    def _query(self, lane: Size) -> Size:
        """The row of a lane: lanes beyond the last query repeat that."""
        row = symbol(self.block) * self.blocks.queries + lane
        return row if self.is_even else minimum(row, self.rows - 1)

    def _lane(self, lane: Size) -> tuple[Size, Size]:
        """The block and the place of a lane in turned masks, whose blocks are these or hold several of them."""
        own, several = self.blocks.queries, self.score.queries // self.blocks.queries
        block = symbol(self.block)
        return (block, lane) if several == 1 else (block // several, block % several * own + lane)

    def _gather_queries(self) -> list[Stmt]:
        """The queries of the block as lanes."""
        lane, k = self.names.fresh("lane"), self.names.fresh(self.scores.depth.var)
        places = {self.scores.row.var: self._query(symbol(lane)), self.scores.depth.var: symbol(k)}
        store = Store(self.queries, (_at(symbol(k)), _at(symbol(lane))), moved(self.scores.left, places))
        return [For(lane, self.blocks.queries, (For(k, self.depth, (store,)),))]

    def _start(self) -> list[Stmt]:
        """Nothing gathered yet. The least float stands for no maximum: less -inf by it is -inf still."""
        made: list[Stmt] = [self._by_lane(lambda lane: [Store(self.total, (lane,), _ZERO)])]
        if not self.blocks.is_whole:
            made.append(self._by_lane(lambda lane: [Store(self.top, (lane,), Const(t.f32, lowest_finite()))]))
        if not self._is_one_step:
            made += self._over_result(lambda q, e: Store(self.result, (q, e), _ZERO))
        return made

    @property
    def _is_one_step(self) -> bool:
        return self.blocks.is_whole and self.blocks.keys <= self.blocks.step

    # ------------------------------------------------------------ scores and weights

    def _all_keys(self) -> list[Stmt]:
        """Scores of all keys, weights, and the values by weights."""
        made = [*self._scores(0, self.count), *self._powers(self.count)]
        if self.weights.divisor is None:
            made.append(self._weigh())
        count = self.blocks.step
        if self._is_one_step:
            return [*made, *self._by_values(0, 0, self.count)]
        block = self.names.fresh(f"{self.scores.column.var}_step")
        first = symbol(block) * count
        rest = count if self.count % count == 0 else minimum(count, self.count - first)
        return [*made, For(block, ceil_div(self.count, count), tuple(self._by_values(first, first, rest)))]

    def _key_blocks(self) -> list[Stmt]:
        """The same block by block, with what was gathered scaled to the maximum so far."""
        size = self.blocks.keys
        block = self.names.fresh(f"{self.scores.column.var}_block")
        first = symbol(block) * size
        count = size if self.count % size == 0 else minimum(size, self.count - first)
        made = (*self._scores(first, count), *self._powers(count), *self._by_values(first, 0, count))
        if self.limits:
            made = (If(may_hold(self.limits, *self._corners(first, count)), made),)
        return [For(block, ceil_div(self.count, size), made)]

    def _corners(self, first: Size, count: Size) -> tuple[str, tuple[Size, Size], str, tuple[Size, Size]]:
        """The first and the last query and key of a block."""
        queries = (symbol(self.block) * self.blocks.queries, self._query(self.blocks.queries - 1))
        return self.score.row, queries, self.score.column, (first, first + count - 1)

    def _scores(self, first: Size, count: Size) -> list[Stmt]:
        """The scores of the `count` keys from `first` on, and the greatest of each query."""
        b = self.blocks
        held = [
            Local(self.powers, TensorType(t.f32, (b.keys, b.queries))),
            Local(self.peak, TensorType(t.f32, (b.queries,))),
        ]
        lowest = Const(t.f32, lowest_finite())
        start = self._by_lane(lambda lane: [Store(self.peak, (lane,), lowest if b.is_whole else _load(self.top, lane))])
        made: list[Stmt] = [*held, start]
        every = self._sums(first, count, self.score)
        if not self.limits:
            return [*made, *every]
        condition = holds(self.limits, *self._corners(first, count))
        return [*made, If(condition, self._sums(first, count, self.seen), every)]

    def _sums(self, first: Size, count: Size, score: Score) -> tuple[Stmt, ...]:
        """The scores of keys, tile by tile where there are enough."""
        tile, made = self.blocks.tile_keys, self._tiles
        if isinstance(count, int):
            tiles: Stmt = made(first, count, tile, score)
        else:
            enough, few = made(first, count, tile, score), made(first, count, 1, score)
            tiles = If(apply("ge", _at(count), tile), (enough,), (few,))
        return (tiles,) if score.is_by_lane else (tiles, *self._masked(first, count, score))

    def _tiles(self, first: Size, count: Size, tile: int, score: Score) -> Stmt:
        """Sums of `tile` keys at a time. The last tile repeats some of the one before where there are not enough."""
        number = self.names.fresh(f"{self.scores.column.var}_tile")
        place = symbol(number) * tile
        place = place if tile == 1 or count % tile == 0 else minimum(place, count - tile)
        part, k = self.names.fresh("sums"), self.names.fresh(self.scores.depth.var)
        shape = (tile, self.blocks.queries)

        def product(row: Index, lane: Index) -> Store:
            places = {self.scores.column.var: first + place + row.value, self.scores.depth.var: symbol(k)}
            query = Load(t.f32, self.queries, (_at(symbol(k)), lane))
            return Store(part, (row, lane), apply("mul", query, moved(self.scores.right, places)), "add")

        def stored(row: Index, lane: Index) -> list[Stmt]:
            own = Load(t.f32, part, (row, lane))
            at = (_at(place + row.value), lane)
            if not score.is_by_lane:
                return [Store(self.powers, at, own)]
            value = score.at(own, 0, first + place + row.value, self._lane(lane.value))
            return [Store(self.powers, at, value), Store(self.peak, (lane,), Load(t.f32, self.powers, at), "max")]

        is_long = score.is_by_lane and score.is_long
        body = (
            Local(part, TensorType(t.f32, shape)),
            self._grid(shape, lambda row, lane: [Store(part, (row, lane), _ZERO)]),
            For(k, self.depth, (self._grid(shape, lambda row, lane: [product(row, lane)]),)),
            self._grid(shape, stored, "" if is_long else "unroll"),
        )
        return For(number, ceil_div(count, tile), body)

    def _masked(self, first: Size, count: Size, score: Score) -> list[Stmt]:
        """Scores from sums where they depend on the query otherwise, as with a mask; and the greatest of each query."""
        lane, key = self.names.fresh("lane"), self.names.fresh(self.scores.column.var)
        at = (_at(symbol(key)), _at(symbol(lane)))
        value = score.at(Load(t.f32, self.powers, at), self._query(symbol(lane)), first + symbol(key))
        masked = For(lane, self.blocks.queries, (For(key, count, (Store(self.powers, at, value),)),))
        key = self.names.fresh(key)

        def greater(lane: Index) -> list[Stmt]:
            return [Store(self.peak, (lane,), Load(t.f32, self.powers, (_at(symbol(key)), lane)), "max")]

        return [masked, For(key, count, (self._by_lane(greater),))]

    def _powers(self, count: Size) -> list[Stmt]:
        """Exponentials of the scores less the greatest, and their sums."""
        made: list[Stmt] = []
        if not self.blocks.is_whole:
            made.append(Local(self.faded, TensorType(t.f32, (self.blocks.queries,))))
            made.append(self._by_lane(self._fade))
        key = self.names.fresh(self.scores.column.var)

        def power(lane: Index) -> list[Stmt]:
            at = (_at(symbol(key)), lane)
            own = Load(t.f32, self.powers, at)
            value = apply("exp", apply("sub", own, _load(self.peak, lane)))
            return [Store(self.powers, at, value), Store(self.total, (lane,), own, "add")]

        return [*made, For(key, count, (self._by_lane(power),))]

    def _fade(self, lane: Index) -> list[Stmt]:
        """How much less what was gathered counts beside the new maximum."""
        factor = apply("exp", apply("sub", _load(self.top, lane), _load(self.peak, lane)))
        return [
            Store(self.faded, (lane,), factor),
            Store(self.total, (lane,), _load(self.faded, lane), "mul"),
            Store(self.top, (lane,), _load(self.peak, lane)),
        ]

    def _weigh(self) -> Stmt:
        """Weights from exponentials and their sum."""
        key = self.names.fresh(self.scores.column.var)

        def weight(lane: Index) -> list[Stmt]:
            at = (_at(symbol(key)), lane)
            return [
                Store(
                    self.powers,
                    at,
                    self._weight(self.weights.weight, Load(t.f32, self.powers, at), _load(self.total, lane)),
                )
            ]

        return For(key, self.count, (self._by_lane(weight),))

    def _weight(self, weight: Expr, power: Expr, total: Expr) -> Expr:
        """A function of an exponential and its sum."""
        known = {self.weights.power: power, self.weights.total: total}
        return transform(weight, lambda e: known.get(e.name) if isinstance(e, Var) else None)

    # ------------------------------------------------------------ values

    def _by_values(self, first: Size, held: Size, count: Size) -> list[Stmt]:
        """Adds `count` values from `first` on by their weights, which lie from `held` on."""
        made: list[Stmt] = []
        whole = self.width // self.blocks.columns
        if whole:
            made.append(self._value_tiles(first, held, count, 0, self.blocks.columns, whole))
        done = whole * self.blocks.columns
        for columns in _parts(self.width - done, self.blocks.lanes):
            made.append(self._value_tiles(first, held, count, done, columns, 1))
            done += columns
        return made

    def _value_tiles(self, first: Size, held: Size, count: Size, done: int, columns: int, panels: int) -> Stmt:
        """Tiles of rows by columns of the result, over `panels` panels of columns from `done` on."""
        tile, panel = self.names.fresh("tile"), self.names.fresh("panel")
        part, k = self.names.fresh("sums"), self.names.fresh(self.values.depth.var)
        shape = (self.blocks.rows, columns)
        offset = done + (symbol(panel) * columns if panels > 1 else 0)

        def own(row: Index, column: Index) -> tuple[Expr, Expr]:
            return _at(symbol(tile) * self.blocks.rows + row.value), _at(offset + column.value)

        def before(row: Index, column: Index) -> list[Stmt]:
            if self._is_one_step:
                return [Store(part, (row, column), _ZERO)]
            q, e = own(row, column)
            value: Expr = Load(t.f32, self.result, (q, e))
            value = value if self.blocks.is_whole else apply("mul", value, Load(t.f32, self.faded, (q,)))
            return [Store(part, (row, column), value)]

        def product(row: Index, column: Index) -> list[Stmt]:
            q, e = own(row, column)
            assert isinstance(e, Index)
            weight = Load(t.f32, self.powers, (_at(held + symbol(k)), q))
            places = {self.values.depth.var: first + symbol(k), self.values.column.var: e.value}
            return [Store(part, (row, column), apply("mul", weight, moved(self.values.right, places)), "add")]

        def after(row: Index, column: Index) -> list[Stmt]:
            return [Store(self.result, own(row, column), Load(t.f32, part, (row, column)))]

        body: tuple[Stmt, ...] = (
            Local(part, TensorType(t.f32, shape)),
            self._grid(shape, before),
            For(k, count, (self._grid(shape, product),)),
            self._grid(shape, after),
        )
        body = (For(panel, panels, body),) if panels > 1 else body
        return For(tile, ceil_div(self.valid, self.blocks.rows), body)

    def _finish(self) -> list[Stmt]:
        """What is stored of the sums of values."""
        q = self.names.fresh(self.scores.row.var)
        total = _load(self.total, _at(symbol(q)))
        divisor = self.weights.divisor
        before: list[Stmt] = []
        factor, is_empty = None, None
        if divisor is not None:
            factor = Var(t.f32, self.names.fresh("factor"))
            before.append(Let(factor.name, apply("div", Const(t.f32, 1.0), self._weight(divisor, total, total))))
            is_empty = apply("or", apply("isnan", total), apply("eq", total, _ZERO))
        e = self.names.fresh(self.values.column.var)
        value: Expr = Load(t.f32, self.result, (_at(symbol(q)), _at(symbol(e))))
        value = value if factor is None else apply("mul", value, factor)
        value = select(is_empty, _ZERO, value) if is_empty is not None and self.weights.is_guarded else value
        row = symbol(self.block) * self.blocks.queries + symbol(q)
        places = {self.scores.row.var: row, self.values.column.var: symbol(e)}
        result = transform(
            moved(self.values.value, places), lambda x: value if x == Var(t.f32, self.values.sum) else None
        )
        store = Store(self.values.store.buffer, tuple(moved(i, places) for i in self.values.store.index), result)
        return [For(q, self.valid, (*before, For(e, self.width, (store,), "vector")))]

    # ------------------------------------------------------------ loops

    def _by_lane(self, make: Callable[[Index], list[Stmt]]) -> Stmt:
        lane = self.names.fresh("lane")
        return For(lane, self.blocks.queries, tuple(make(_at(symbol(lane)))), "vector")

    def _grid(self, shape: tuple[int, int], make: Callable[[Index, Index], list[Stmt]], how: Mark = "unroll") -> Stmt:
        row, lane = self.names.fresh("row"), self.names.fresh("lane")
        body = tuple(make(_at(symbol(row)), _at(symbol(lane))))
        return For(row, shape[0], (For(lane, shape[1], body, "vector"),), how)

    def _over_result(self, make: Callable[[Index, Index], Stmt]) -> list[Stmt]:
        q, e = self.names.fresh("q"), self.names.fresh("e")
        inner = For(e, self.width, (make(_at(symbol(q)), _at(symbol(e))),), "vector")
        return [For(q, self.blocks.queries, (inner,))]


_ZERO = Const(t.f32, 0.0)


def lowest_finite() -> float:
    """The least f32 that is not -inf."""
    return -float(t.f32.numpy.type(3.4028234663852886e38))


def _parts(width: int, lanes: int) -> list[int]:
    """What is left of the columns as vectors, parts of vectors, and single elements."""
    parts = [lanes] * (width // lanes)
    rest = width % lanes
    while rest:
        part = 1 << (rest.bit_length() - 1)
        parts.append(part)
        rest -= part
    return parts


def _size(loop: For) -> Size:
    assert not isinstance(loop.extent, Expr)
    return loop.extent


def _number(extent: Size | Expr) -> int:
    assert isinstance(extent, int)
    return extent


def _load(buffer: str, place: Expr) -> Load:
    return Load(t.f32, buffer, (place,))


def _at(place: Size) -> Index:
    return Index(t.i64, place)


__all__ = ["Attention", "Blocks", "Score"]
