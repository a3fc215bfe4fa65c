"""attend: two products with a softmax between them become one kernel, which never holds more than a block of scores.

As `lower` and `join` leave it, attention is three calls with a matrix of scores, queries by keys for each head, in
memory between them. Here each block of queries goes through its scores, its weights and the values by these, while
they are in the cache. Whatever the product makes of its sums - a scale, a mask, a bound - is computed as before. Keys
that a call before has transposed are taken as they were: as scalars they may lie in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from compiler.passes.attention import Product, Weights, composed, in_rows, loads_of, place, product_of, weights_of
from compiler.passes.attention_blocks import Attention, Blocks, Score
from compiler.passes.attention_limits import limited
from compiler.passes.attention_masks import masks_of, read_across, turned, turning
from compiler.passes.interleave import is_apart, written
from compiler.passes.rows import Naming
from compiler.pipeline import program_pass
from ir import types as t
from ir.access import is_contiguous
from ir.dims import Size, symbol, symbol_of
from ir.element import Names
from ir.expr import Expr, Index, Load, apply, walk
from ir.kernel import Buffer, For, If, Kernel, Stmt, Store, exprs_of, walk_stmts
from ir.program import Call, Program, ProgramBuffer, Step, map_inside, touched
from ir.types import TensorType

_MOST_SCORES = 8192
"""Scores of a block that holds all keys: 32 KiB of the stack, and in the second cache at worst."""
_KEYS = 64
"""Keys of a block else, and values that are multiplied before the next: as much as the first cache holds."""
_MOST_HELD = 4096
"""Elements of the queries of a block, and of its results: 16 KiB of the stack each."""
_ROWS = 8
"""Rows of results that are summed at a time: with fewer, compilers load values again for each."""
_MOST_TILE_KEYS = 8
"""Sums that are enough to hide what an addition takes."""
_FEW = 4
"""Queries of a block where there may be few of them."""
_PARALLEL = 2
"""Loops around the blocks of queries that threads share with them."""


@program_pass
def attend(program: Program, *, lanes: int = 8, registers: int = 16, least: int | None = None) -> None:
    """Makes one kernel of each attention. `lanes` f32 elements make a vector; there are `registers` of them. Vectors of
    `least` elements, by default `lanes`, decide which attention is one kernel and whether its keys come all at once."""
    state = _Attending(program, lanes, registers, least or lanes)
    program.steps = state.steps(program.steps)


@dataclass(frozen=True)
class _Found:
    """The three calls of an attention, by position, and that which transposes its keys."""

    scores: int
    weights: int
    values: int
    keys: int | None = None


@dataclass(frozen=True)
class _Made:
    """A kernel with the buffers that it takes and the symbols that its sizes are, as positions among those of the three
    calls; and which of the buffers are masks, that it takes turned, for blocks of so many queries."""

    kernel: Kernel
    args: tuple[int, ...]
    sizes: tuple[int, ...]
    masks: frozenset[int]
    queries: int


@dataclass
class _Attending:
    program: Program
    lanes: int
    registers: int
    least: int
    made: dict[Hashable, _Made | None] = field(default_factory=dict)
    straight: dict[str, Kernel] = field(default_factory=dict)
    turning: dict[Hashable, Kernel] = field(default_factory=dict)
    turned: dict[tuple[str, int], str] = field(default_factory=dict)
    """Masks that are turned already where the steps are that are looked at, by name and queries of a block."""

    def __post_init__(self) -> None:
        self.names = Names(sorted(kernel.name for kernel in self.program.kernels))
        self.touches = Counter(name for step in self.program.walk() for name in touched(step))
        self.bases = Counter(buffer.base for buffer in self.program.buffers.values())
        self.writes = Counter(name for call in self.program.calls() for name in written(self.program, call))

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with attention as one call, that inside of branches and loops too."""
        result: list[Step | None] = []
        around, self.turned = self.turned, {}
        for step in steps:
            step = map_inside(step, self.steps)
            result.append(step)
            if isinstance(step, Call) and (found := self.find(result)) is not None:
                self.put(result, found)
        self.turned = around
        return [step for step in result if step is not None]

    # ------------------------------------------------------------ which calls

    def find(self, steps: Sequence[Step | None]) -> _Found | None:
        """The attention that the last of the steps ends."""
        last = steps[-1]
        assert isinstance(last, Call)
        values = product_of(last.kernel)
        if values is None:
            return None
        weights = self.maker(steps, last, values.left.buffer)
        middle = None if weights is None else steps[weights]
        if weights is None or not isinstance(middle, Call):
            return None
        known = weights_of(middle.kernel)
        makers = [self.maker(steps[: weights + 1], middle, name) for name in _read(known)] if known else []
        for position in makers:
            first = None if position is None else steps[position]
            if position is None or not isinstance(first, Call) or product_of(first.kernel) is None:
                continue
            found = _Found(position, weights, len(steps) - 1)
            return self.with_keys(steps, found) if self.may_wait(steps, found) else None
        return None

    def maker(self, steps: Sequence[Step | None], user: Call, param: str) -> int | None:
        """The position of the call that makes an operand, which nothing but that call and `user` touches."""
        name = dict(zip((b.name for b in user.kernel.params), user.args)).get(param)
        if name is None:
            return None
        made, touches = name, self.touches[name]
        if self.program.buffers[name].place == "view":
            made = self.program.buffers[name].base or name
            touches += self.touches[made]
        buffer = self.program.buffers[made]
        if touches != 2 or buffer.place != "arena" or buffer.blocked or self.bases[made] != (made != name):
            return None
        for position in reversed(range(len(steps) - 1)):
            step = steps[position]
            if isinstance(step, Call) and made in step.args:
                return position if step.args[-1] == made else None
        return None

    def may_wait(self, steps: Sequence[Step | None], found: _Found) -> bool:
        """Whether the first calls may be done where the last one is."""
        for own in (found.scores, found.weights):
            call = steps[own]
            assert isinstance(call, Call)
            if any(symbol_of(size) is None for size in call.sizes):
                return False
            for position in range(own + 1, found.values):
                other = steps[position]
                if other is None or position == found.weights:
                    continue
                if not isinstance(other, Call) or not is_apart(self.program, call, other):
                    return False
        last = steps[found.values]
        return isinstance(last, Call) and all(symbol_of(size) is not None for size in last.sizes)

    def with_keys(self, steps: Sequence[Step | None], found: _Found) -> _Found:
        """With the call that transposes the keys, if one does and they are used nowhere else."""
        call = steps[found.scores]
        assert isinstance(call, Call)
        product = product_of(call.kernel)
        assert product is not None
        index = product.right.index
        is_across = len(index) > 1 and index[-2:] == (_at(product.depth.var), _at(product.column.var))
        if not is_across or call.kernel.buffer(product.right.buffer).type.rank != len(index):
            return found
        reads = [e for s in walk_stmts(call.kernel.body) for e in walk(*exprs_of(s)) if isinstance(e, Load)]
        position = self.maker(steps[: found.scores + 1], call, product.right.buffer)
        if position is None or sum(e.buffer == product.right.buffer for e in reads) != 1:
            return found
        maker = steps[position]
        assert isinstance(maker, Call)
        return replace(found, keys=position) if straight_of(maker.kernel) is not None else found

    def copied(self, steps: Sequence[Step | None], found: _Found) -> str | None:
        """The buffer that the call of the keys does nothing with but transpose it, if that may be read instead."""
        maker = None if found.keys is None else steps[found.keys]
        if not isinstance(maker, Call):
            return None
        kernel = straight_of(maker.kernel)
        assert kernel is not None
        store = next(s for s in walk_stmts(kernel.body) if isinstance(s, Store))
        source = kernel.params[0]
        if store.value != Load(source.type.dtype, source.name, store.index) or source.type != kernel.params[-1].type:
            return None
        root = self.program.root(maker.args[0]).name
        for step in steps[found.keys + 1 :] if found.keys is not None else ():
            if step is not None and (not isinstance(step, Call) or root in written(self.program, step)):
                return None
        return maker.args[0]

    # ------------------------------------------------------------ one kernel

    def put(self, steps: list[Step | None], found: _Found) -> None:
        """Puts one call in the place of those of an attention, where it can be."""
        calls = [step for i in (found.scores, found.weights, found.values) if isinstance(step := steps[i], Call)]
        made = self.one(calls, found.keys is not None)
        if made is None:
            return
        call, before = made
        gone = {made.args[-1] for made in calls[:2]}
        maker = None if found.keys is None else steps[found.keys]
        if found.keys is not None and isinstance(maker, Call):
            source = self.copied(steps, found)
            steps[found.keys] = self.straightened(maker) if source is None else None
            if source is not None:
                gone.add(maker.args[-1])
                call = replace(call, args=tuple(source if arg == maker.args[-1] else arg for arg in call.args))
        steps[found.scores] = steps[found.weights] = None
        steps[found.values :] = [*before, call]
        gone |= {name for name, buffer in self.program.buffers.items() if buffer.base in gone}
        for name in gone:
            del self.program.buffers[name]

    def straightened(self, call: Call) -> Call:
        """The call that makes keys with their last two axes the other way round."""
        name = call.kernel.name
        if name not in self.straight:
            made = straight_of(call.kernel)
            assert made is not None
            self.straight[name] = replace(made, name=self.names.fresh(name))
        buffer = self.program.buffers[call.args[-1]]
        buffer.type = _swapped(buffer.type)
        return replace(call, kernel=self.straight[name])

    def one(self, calls: Sequence[Call], is_straight: bool) -> tuple[Call, list[Call]] | None:
        """The call of one kernel, and those that turn masks for it; what differs only in names shares kernels."""
        buffers = list(dict.fromkeys(arg for call in calls for arg in call.args))
        symbols = list(dict.fromkeys(symbol_of(size) for call in calls for size in call.sizes))
        is_written = tuple(self.writes[self.program.root(name).name] > 1 for name in buffers)
        key = (is_straight, is_written, *(
            (call.kernel.name, *map(buffers.index, call.args), *(symbols.index(symbol_of(s)) for s in call.sizes))
            for call in calls
        ))  # fmt: skip
        if key not in self.made:
            self.made[key] = self.kernel(calls, is_straight, buffers, symbols)
        found = self.made[key]
        if found is None:
            return None
        before: list[Call] = []
        args = [self.mask(buffers[i], found.queries, before) if i in found.masks else buffers[i] for i in found.args]
        sources = tuple(dict.fromkeys(source for call in calls for source in call.sources))
        sizes = tuple(symbol(name) for number in found.sizes if (name := symbols[number]) is not None)
        return Call(found.kernel, tuple(args), sizes, sources), before

    def mask(self, name: str, queries: int, before: list[Call]) -> str:
        """The buffer that holds a mask turned; what fills it, if nothing does yet, is added to `before`."""
        if (name, queries) not in self.turned:
            type_ = self.program.buffers[name].type
            if (type_, queries) not in self.turning:
                self.turning[(type_, queries)] = turning(self.names.fresh("turn"), type_, queries)
            kernel = self.turning[(type_, queries)]
            made = Names(list(self.program.buffers)).fresh(f"{name}.turned")
            self.program.buffers[made] = ProgramBuffer(made, kernel.params[-1].type, "arena")
            before.append(Call(kernel, (name, made), tuple(map(symbol, kernel.sizes))))
            self.turned[(name, queries)] = made
        return self.turned[(name, queries)]

    def kernel(
        self, calls: Sequence[Call], is_straight: bool, buffers: list[str], symbols: list[str | None]
    ) -> _Made | None:
        """The kernel that does what three calls do, in terms of their buffers and symbols."""
        naming = Naming()
        renamed = [naming.of_call(call, [], 0) for call in calls]
        made, read = calls[0].args[-1], zip(renamed[1].params, calls[1].args)
        reader = next(b.name for b, arg in read if self.program.root(arg).name == made)
        weights = weights_of(renamed[1])
        fitted = None if weights is None else _fitted(renamed, weights, reader)
        if weights is None or fitted is None:
            return None
        scores, values = fitted
        value = composed(scores, weights, reader)
        row, column = scores.row.var, scores.column.var
        seen, limits = limited(value, row, column)
        blocks = self.blocks(scores, weights, values, bool(limits))
        if blocks is None:
            return None
        straight = scores.right.buffer if is_straight else None
        if straight is not None:
            index = scores.right.index
            scores = replace(scores, right=replace(scores.right, index=(*index[:-2], index[-1], index[-2])))
        masks = self.masks(seen, row, column, naming)
        score, where_seen = (
            Score(read_across(e, masks), scores.sum, row, column, frozenset(masks.values()), blocks.queries)
            for e in (value, seen)
        )
        parts = (scores, weights, values, score, where_seen, limits)
        body: tuple[Stmt, ...] = (Attention(*parts, blocks, naming.names).loop(),)
        if not isinstance(scores.row.extent, int | Expr) and self.lanes > _FEW:
            few = Attention(*parts, _for_few(blocks), naming.names).loop()
            body = (If(apply("ge", Index(t.i64, scores.row.extent), self.lanes // 2), body, (few,)),)
        for number, loop in reversed(list(enumerate(scores.loops[:-2]))):
            body = (For(loop.var, loop.extent, body, "parallel" if number < _PARALLEL else ""),)
        used = {e.buffer for s in walk_stmts(body) for e in walk(*exprs_of(s)) if isinstance(e, Load)}
        used |= {s.buffer for s in walk_stmts(body) if isinstance(s, Store)}
        args, params = list[int](), list[Buffer]()
        for arg, buffer in sorted(naming.params.items(), key=lambda item: item[0] == calls[-1].args[-1]):
            type_ = _swapped(buffer.type) if buffer.name == straight else buffer.type
            if buffer.name in masks:
                buffer, type_ = replace(buffer, name=masks[buffer.name], role="in"), turned(type_, blocks.queries)
            if buffer.name in used:
                args.append(buffers.index(arg))
                params.append(replace(buffer, type=type_))
        kernel = Kernel(self.names.fresh("attention"), tuple(params), body)
        back = {own: symbols.index(size) for size, own in naming.sizes.items()}
        are_masks = frozenset(i for i, b in zip(args, params) if b.name in masks.values())
        return _Made(kernel, tuple(args), tuple(back[size] for size in kernel.sizes), are_masks, blocks.queries)

    def masks(self, value: Expr, row: str, column: str, naming: Naming) -> dict[str, str]:
        """The masks of a score that are to be turned, with the names that they have then: all of them, or none."""
        found = masks_of(value, row, column)
        args = {buffer.name: arg for arg, buffer in naming.params.items()}
        if any(self.writes[self.program.root(args[name]).name] > 1 for name in found):
            return {}
        return {name: naming.names.fresh(f"{name}_turned") for name in found}

    def blocks(self, scores: Product, weights: Weights, values: Product, has_limits: bool) -> Blocks | None:
        """How to cut the work; None where it is left as it is: few queries, or heads of no known or of great size.
        Where limits hide whole blocks of keys, they do not come all at once."""
        rows, count = scores.row.extent, scores.column.extent
        depth, width = scores.depth.extent, values.column.extent
        assert not isinstance(rows, Expr) and not isinstance(count, Expr)
        if not isinstance(depth, int) or not isinstance(width, int) or min(depth, width) < 1:
            return None
        if isinstance(rows, int) and rows * 4 < self.least:
            return None
        most = _MOST_HELD // max(depth, width)
        deciding = _vectors(rows, self.least, most) * self.least
        is_whole = isinstance(count, int) and count * deciding <= _MOST_SCORES
        is_whole = is_whole and (not has_limits or count <= _KEYS or weights.divisor is None)  # type: ignore[operator]
        most = min(most, _MOST_SCORES // max(1, int(count))) if is_whole else most  # type: ignore[arg-type]
        vectors = _vectors(rows, self.lanes, most) if deciding else 0
        if vectors == 0 or (not is_whole and weights.divisor is None):
            return None
        queries = vectors * self.lanes
        keys = int(count) if is_whole else _KEYS  # type: ignore[arg-type]
        tile = _tile_of(keys, min(_MOST_TILE_KEYS, (self.registers - vectors - 1) // vectors))
        whole = max(1, width // self.lanes)
        most = max(1, min(4, (self.registers - 4) // (_ROWS + 1)))
        panels = next(p for p in range(most, 0, -1) if whole % p == 0)
        return Blocks(queries, keys, tile, _ROWS, panels * self.lanes, self.lanes, is_whole, _KEYS)


def _vectors(rows: Size, lanes: int, most: int) -> int:
    """Vectors of queries of a block, of `most` queries at most: two, or one where that leaves fewer lanes over; 0 where
    not even one fits."""
    least = max(1, 8 // lanes)
    found = [v for v in (2 * least, least) if v * lanes <= most]
    if not found or not isinstance(rows, int):
        return found[-1] if found else 0
    return min(found, key=lambda v: -(-rows // (v * lanes)) * v)


def _for_few(blocks: Blocks) -> Blocks:
    """Blocks for few queries, as where a text grows by one word in each run: vectors are parts of those there are."""
    return replace(blocks, queries=_FEW, rows=1)


def _tile_of(keys: int, most: int) -> int:
    """Keys that are summed at a time: the number that leaves the fewest over."""
    return min(range(min(keys, most), 0, -1), key=lambda n: -(-keys // n) * n + (most - n) * keys / 32)


def _read(weights: Weights) -> list[str]:
    """The operands that the scores of rows are made of."""
    return list(dict.fromkeys(e.buffer for e in walk(weights.score) if isinstance(e, Load)))


def _fitted(kernels: Sequence[Kernel], weights: Weights, reader: str) -> tuple[Product, Product] | None:
    """The products of scores and of values in the rows of the weights, which read the scores as buffer `reader`; None
    where the three are not one attention: each goes through the same rows, and reads of them what the one before
    stores."""
    scores, values = (product and in_rows(product, weights) for product in map(product_of, kernels[::2]))
    if scores is None or values is None or not scores.column.extent == weights.column.extent == values.depth.extent:
        return None
    first, middle, last = kernels
    column = {loop.var: symbol(weights.column.var) for loop in (scores.column, values.depth)}
    made, weighed = place(first, scores.store, column), place(middle, weights.store, {})
    read = loads_of(weights.score, reader)
    if made is None or not read or any(e.outside is not None or place(middle, e, {}) != made for e in read):
        return None
    if weighed is None or weighed != place(last, values.left, column):
        return None
    if [b.name for b in middle.params if b.role in ("out", "inout")] != [weights.store.buffer]:
        return None
    if any(kernel.params[-1].role != "out" for kernel in kernels):
        return None
    if any(kernel.params[-1].type.dtype != t.f32 for kernel in (first, middle)) or not _is_quick(values):
        return None
    others = {e.buffer for e in walk(values.value, values.right) if isinstance(e, Load)}
    return None if others & {values.left.buffer, values.store.buffer} else (scores, values)


def _is_quick(values: Product) -> bool:
    """Whether values lie side by side along the columns of the result."""
    return is_contiguous(values.right.index, values.column.var)


def straight_of(kernel: Kernel) -> Kernel | None:
    """A function of elements with the last two axes of its result the other way round, and the loops over them too;
    None for any other kernel."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For) and not isinstance(body[0].extent, Expr):
        loops.append(body[0])
        body = body[0].body
    store = body[0] if len(body) == 1 else None
    if not isinstance(store, Store) or store.function is not None or len(loops) < 2 or len(store.index) < 2:
        return None
    if store.index[-2:] != (_at(loops[-2].var), _at(loops[-1].var)) or store.buffer != kernel.params[-1].name:
        return None
    out = kernel.params[-1]
    if out.role != "out" or loads_of(store.value, out.name) or loops[-1].mark:
        return None
    made = (replace(store, index=(*store.index[:-2], store.index[-1], store.index[-2])),)
    inner, outer = loops[-2], loops[-1]
    made = (replace(outer, body=(replace(inner, body=made, mark=""),), mark=inner.mark),)
    for loop in reversed(loops[:-2]):
        made = (replace(loop, body=made),)
    params = (*kernel.params[:-1], Buffer(out.name, _swapped(out.type), out.role))
    return replace(kernel, params=params, body=made)


def _swapped(type_: TensorType) -> TensorType:
    *others, a, b = type_.shape
    return type_.with_shape((*others, b, a))


def _at(var: str) -> Index:
    return Index(t.i64, symbol(var))
