"""tile: matrix products, convolutions and channel-wise windows become register tiles over packed weights.

A kernel that sums (or takes the greatest) over a nest of loops, with its innermost output axis contiguous in memory, is
split into blocks of rows by vectors, with one accumulator register for each; weights are laid out in panels of that
many columns, so that the inner loop reads memory in order. What a machine has (lanes, registers) is given as options;
which instruction does it is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler.choices import RULES, Choices
from compiler.passes.phases import split_phases
from compiler.passes.tile_choice import Order, Tile, Tiling, key_of, orders, tiles, tilings
from compiler.passes.tile_marks import mark_tile, tile_loop
from compiler.passes.tile_nests import Nest, find_nest, inner_nests, split_groups
from compiler.pipeline import program_pass
from ir import types as t
from ir.access import any_varies
from ir.dims import Size, bounded, ceil_div, decide_le, symbol
from ir.element import Names
from ir.expr import Expr, Index, apply
from ir.kernel import (
    For,
    If,
    Kernel,
    Let,
    Local,
    Stmt,
    Variable,
    map_blocks,
    map_stmts,
    walk_stmts,
)
from ir.panels import PanelBlob
from ir.program import Call, Program, ProgramBuffer, map_calls, touched
from ir.schedule import (
    ScheduleError,
    choose,
    find_loop,
    interleave,
    mark,
    pack,
    renamed_locals,
    reorder,
    split,
    stage,
    substitute_var,
    unmark,
    unname,
)
from ir.types import TensorType

_FEW_ROWS = 32
"""Rows for which weights are read that do not pay for having them in a cache."""


@dataclass(frozen=True)
class Panels:
    """How a parameter is to be packed: columns of a panel, and how many entries of an axis lie in each of them."""

    buffer: str
    columns: int
    depth: int
    axis: int


@program_pass
def tile(
    program: Program, *, lanes: int = 8, registers: int = 16, least: int | None = None, choices: Choices = RULES
) -> None:
    """Tiles every kernel it can, and packs the weights of their calls. `lanes` f32 elements make a vector, of which the
    machine has `registers`. Vectors of `least` elements, by default `lanes`, decide which kernels have enough columns:
    tiles may add in another order than what stays as it is. `choices` answers how large tiles are, and in which order
    they follow."""
    with bounded(program.bounds):
        made: dict[str, tuple[Kernel, Panels | None]] = {}
        for kernel in program.kernels:
            packable = _constant_operands(program, kernel)
            made[kernel.name] = tile_kernel(kernel, lanes, registers, packable, choices, least)
        packed: dict[tuple[str, TensorType], str] = {}

        def tiled(step: Call) -> Call:
            kernel, panels = made[step.kernel.name]
            if panels is None:
                return replace(step, kernel=kernel)
            position = next(i for i, b in enumerate(kernel.params) if b.name == panels.buffer)
            args = list(step.args)
            args[position] = _packed(program, packed, args[position], kernel.params[position].type, panels)
            return replace(step, kernel=kernel, args=tuple(args))

        program.steps = map_calls(program.steps, tiled)
        _drop_unused_weights(program)


def _constant_operands(program: Program, kernel: Kernel) -> set[str]:
    """Parameters that are weights, with their bytes at hand, in every call."""
    found = {b.name for b in kernel.params if b.role == "const"}
    for call in program.calls():
        if call.kernel.name == kernel.name:
            for buffer, arg in zip(kernel.params, call.args):
                if program.buffers[arg].place != "weight":
                    found.discard(buffer.name)
    return found


def _packed(
    program: Program, done: dict[tuple[str, TensorType], str], name: str, type_: TensorType, panels: Panels
) -> str:
    """The weight `name` in panels, as `type_`: calls of equal needs share it."""
    buffer = program.buffers[name]
    key = (name, type_)
    if key not in done:
        assert buffer.blob is not None
        made = f"{name}.panels{panels.columns}"
        others = sum(other == name for other, _ in done)
        made = f"{made}.{others}" if made in program.buffers else made
        rest = _rest_of(type_, panels)
        blob = PanelBlob(buffer.blob, rest, panels.columns, panels.depth, panels.axis + 1)
        program.buffers[made] = ProgramBuffer(made, type_, "weight", blob=blob)
        done[key] = made
    return done[key]


def _rest_of(type_: TensorType, panels: Panels) -> tuple[int, ...]:
    """The axes of a weight but its columns, from the type of its panels."""
    sizes = [int(size) for size in type_.shape]
    if panels.depth == 1:
        return tuple(sizes[1:-1])
    rest = sizes[1:-2]
    rest[panels.axis + 1] *= panels.depth
    return tuple(rest)


def _drop_unused_weights(program: Program) -> None:
    used = {program.root(name).name for step in program.walk() for name in touched(step)} | set(program.outputs)
    for name in [n for n, b in program.buffers.items() if b.place == "weight" and n not in used]:
        del program.buffers[name]


def tile_kernel(
    kernel: Kernel,
    lanes: int,
    registers: int,
    packable: set[str],
    choices: Choices = RULES,
    least: int | None = None,
) -> tuple[Kernel, Panels | None]:
    """The tiled kernel and what to pack; the kernel itself where nothing applies. `least` is as in `tile`."""
    whole, kernel = kernel, split_phases(split_groups(unname(kernel), packable))
    nest = find_nest(kernel, packable)
    if nest is None:
        return _tile_inside(whole, lanes, registers, packable)
    columns = next(f.extent for f in nest.loops if f.var == nest.columns)
    rows = next((f.extent for f in nest.loops if f.var == nest.rows), 1)
    if isinstance(columns, Expr) or isinstance(rows, Expr):
        return whole, None
    least = least or lanes
    if decide_le(least, columns) is False and (nest.weight is None or columns * 4 < least):  # type: ignore[operator]
        return whole, None
    if nest.weight is None and not isinstance(columns, int):
        return _tile_unknown_columns(kernel, nest, rows, columns, lanes, registers), None
    legal = _tilings(kernel, nest, rows, columns, lanes, registers)
    if nest.weight and columns % legal[0].tile.columns != 0 and nest.reads_others_along(nest.columns):
        nest = replace(nest, weight=None)  # only packed weights may be read beyond the last column
        if decide_le(least, columns) is False:
            return whole, None
        legal = _tilings(kernel, nest, rows, columns, lanes, registers)
    chosen = choices.choose("tile", whole.name, lambda: key_of(kernel), legal[0], lambda: legal)
    for tiling in dict.fromkeys((chosen, legal[0])):  # where a choice does not fit, the rule's
        try:
            tiled = _apply(kernel, nest, tiling)
            panels = _panels_of(nest, tiling.tile)
            return (_packed_operand(tiled, panels), panels) if panels else (tiled, None)
        except ScheduleError:
            continue
    return whole, None


def _panels_of(nest: Nest, shape: Tile) -> Panels | None:
    return Panels(nest.weight, shape.columns, nest.together, nest.depth_axis) if nest.weight else None


def _packed_operand(kernel: Kernel, panels: Panels) -> Kernel:
    """`kernel` with a parameter read from panels."""
    made = pack(kernel, panels.buffer, kernel.buffer(panels.buffer).type.rank - 1, panels.columns)
    return made if panels.depth == 1 else interleave(made, panels.buffer, panels.depth, panels.axis)


def _tile_inside(kernel: Kernel, lanes: int, registers: int, packable: set[str]) -> tuple[Kernel, Panels | None]:
    """A kernel that holds products of narrow operands among other things, such as the steps of a recurrent layer, with
    those tiled and their weights packed. They must be all that reads the weights."""
    nests = [nest for nest in inner_nests(kernel, packable) if nest.dot]
    if not nests or len({nest.weight for nest in nests}) != 1:
        return kernel, None
    extents = [nest.loops[-1].extent for nest in nests]
    if len(set(extents)) != 1 or not isinstance(extents[0], int):
        return kernel, None
    tiling = _tilings(kernel, nests[0], 1, extents[0], lanes, registers)[0]
    panels = _panels_of(nests[0], tiling.tile)
    made = kernel
    try:
        for nest in nests:
            made = _apply(made, nest, tiling)
        assert panels is not None
        return _packed_operand(made, panels), panels
    except ScheduleError:
        return kernel, None


def _tilings(kernel: Kernel, nest: Nest, rows: Size, columns: Size, lanes: int, registers: int) -> list[Tiling]:
    """Every way to tile a kernel, the rule's first."""
    most = (8 if rows == 1 else 4) if nest.weight else min(4, columns // lanes)  # type: ignore[operator]
    widths = range(most, 0, -1)  # type: ignore[arg-type]
    apart, is_streamed = nest.apart(kernel), nest.rows_of_weights() <= _FEW_ROWS
    candidates = tiles(rows, columns, lanes, registers, widths, nest.shared(), apart, is_streamed)
    if nest.reads_others_along(nest.columns):
        # Beyond the last column there is nothing to read.
        candidates = [each for each in candidates if columns % each.columns == 0 or each == candidates[0]]
    return tilings(candidates, _orders(nest, columns, candidates[0]))


def _orders(nest: Nest, columns: Size, shape: Tile) -> list[Order]:
    """The orders in which tiles may follow each other, the rule's first."""
    if nest.is_inner or (len(nest.loops) < 3 and nest.rows is None):
        return ["panels first"]
    if nest.rows is not None and nest.reads_others_along(nest.columns):
        return ["panels last"]  # what is read along the columns is used by no other panel: all of it, row by row
    weights = [e.index for e in nest.weight_loads] if nest.weight else []
    is_batched = any(any_varies(index, loop.var) for index in weights for loop in nest.loops[:-2])
    return orders(len(nest.loops) - 1, ceil_div(columns, shape.columns), bool(nest.weight), is_batched)


def _tile_unknown_columns(kernel: Kernel, nest: Nest, rows: Size, columns: Size, lanes: int, registers: int) -> Kernel:
    """Tiles for enough columns, chosen when called; below one vector of columns the kernel runs as it is."""
    result = kernel
    for vectors in (1, 4):
        shape = tiles(rows, columns, lanes, registers, (vectors,))[0]
        try:
            fast = _apply(kernel, nest, Tiling(shape, _orders(nest, columns, shape)[0]))
        except ScheduleError:
            return result
        result = choose(apply("ge", Index(t.i64, columns), shape.columns), fast, result)
    return result


def _apply(kernel: Kernel, nest: Nest, tiling: Tiling) -> Kernel:
    """The schedule: split columns and rows, accumulators in registers, weights packed."""
    shape = tiling.tile
    extents = {f.var: f.extent for f in nest.loops}
    column_extent = extents[nest.columns]
    assert not isinstance(column_extent, Expr)
    is_exact = column_extent % shape.columns == 0
    is_update = any(b.role == "inout" for b in kernel.params)
    if not nest.weight and not is_exact and is_update:
        raise ScheduleError("an update in place cannot be repeated")
    taken = Names([*kernel.sizes, *(b.name for b in kernel.params), *_bound_in(kernel)])
    panel, lane = taken.fresh(f"{nest.columns}_panel"), taken.fresh(f"{nest.columns}_lane")
    made = kernel if nest.is_inner else unmark(kernel)
    place = taken.fresh("q")
    if nest.dot:
        made = split(made, nest.dot, nest.together, taken.fresh(f"{nest.dot}_{nest.together}"), place)
    if nest.weight:
        made = _split_padded(made, nest.columns, shape.columns, panel, lane)
    else:
        made = split(made, nest.columns, shape.columns, panel, lane, "exact" if is_exact else "overlap")
    outer = [f.var for f in nest.loops if f.var != nest.columns]
    count = ceil_div(column_extent, shape.columns)
    order = {
        "panels first": [panel, *outer],
        "panels before rows": [*outer[:-1], panel, *outer[-1:]],
        "panels last": [*outer, panel],
    }[tiling.order]
    is_last = tiling.order == "panels last"
    made = reorder(made, [*order, lane])
    inner, repeated = [lane], set() if nest.weight or is_exact else {panel}
    if nest.rows is not None and shape.rows > 1:
        extent = extents[nest.rows]
        assert not isinstance(extent, Expr)
        block, row = taken.fresh(f"{nest.rows}_block"), taken.fresh(f"{nest.rows}_row")
        how = (
            "exact" if extent % shape.rows == 0 else "overlap" if isinstance(extent, int) and not is_update else "peel"
        )
        made = split(made, nest.rows, shape.rows, block, row, how)
        inner = [row, lane]
        made = reorder(made, [panel, row]) if is_last else made
        repeated.add(nest.rows)
        if how == "peel":
            made = _tile_rest(made, nest, block, inner, panel if is_last else None)
    made = stage(made, nest.accumulator, inner)
    if nest.dot:
        made = _dot_innermost(made, inner, place)
    if nest.weight and not is_exact:
        made = _clip_stores(made, inner, panel, shape.columns, column_extent)
    if nest.is_inner:
        return mark_tile(made, inner)
    for loop in _parallel_loops({v: extents.get(v, count) for v in order}, repeated):
        made = mark(made, loop, "parallel")
    return mark_tile(made, inner)


def _tile_rest(kernel: Kernel, nest: Nest, block: str, inner: list[str], panel: str | None) -> Kernel:
    """Tiles of two rows for those that make no whole tile, so that weights are loaded half as often, and a last row.
    `panel` is the loop over panels where it stands inside that over rows."""
    row, lane = inner
    rest, accumulator = f"{nest.rows}_t", f"{nest.accumulator}_t"
    extent = find_loop(kernel, rest).extent
    if isinstance(extent, Expr) or decide_le(2, extent) is False:
        return stage(kernel, accumulator, [f"{lane}_t"])
    made = split(kernel, rest, 2, f"{block}_t", f"{row}_t", "peel")
    made = made if panel is None else reorder(made, [f"{panel}_t", f"{row}_t"])
    made = stage(made, accumulator, [f"{row}_t", f"{lane}_t"])
    return made if extent % 2 == 0 else stage(made, f"{accumulator}_t", [f"{lane}_t_t"])


def _bound_in(kernel: Kernel) -> list[str]:
    """The names of loops, scalars and arrays of a kernel."""
    loops = [s.var for s in walk_stmts(kernel.body) if isinstance(s, For)]
    return loops + [s.name for s in walk_stmts(kernel.body) if isinstance(s, (Let, Variable, Local))]


def _dot_innermost(kernel: Kernel, inner: list[str], place: str) -> Kernel:
    """Moves the loop over the products that are added at a time into the tile, and marks it; likewise in the tiles of
    rows that make no whole one."""
    loops = {s.var for s in walk_stmts(kernel.body) if isinstance(s, For)}
    made, rest = kernel, ""
    while f"{place}{rest}" in loops:
        order = [f"{loop}{rest}" for loop in (*inner, place) if f"{loop}{rest}" in loops]
        made = mark(reorder(made, order), order[-1], "dot")
        rest = f"{rest}_t"
    return made


def _parallel_loops(order: dict[str, Size | Expr], repeated: set[str]) -> list[str]:
    """The outermost loops whose iterations may run on several threads: those that repeat the last rows or columns of
    the block before must not, and loops of one iteration do not count. Two are enough, or three where one may turn
    out to have one iteration, such as that over a batch."""
    found: list[str] = []
    for loop, extent in order.items():
        if loop in repeated or len(found) == 3 or sum(isinstance(order[name], int) for name in found) == 2:
            break
        if extent != 1:
            found.append(loop)
    return found


def _split_padded(kernel: Kernel, loop: str, factor: int, outer: str, inner: str) -> Kernel:
    """A split whose last block runs beyond the end: right only once stores are clipped and operands are padded."""
    found = find_loop(kernel, loop)
    body = substitute_var(found.body, loop, symbol(outer) * factor + symbol(inner))
    new = For(outer, ceil_div(found.extent, factor), (For(inner, factor, body),))  # type: ignore[arg-type]
    return replace(kernel, body=map_stmts(kernel.body, lambda s: new if isinstance(s, For) and s.var == loop else s))


def _clip_stores(kernel: Kernel, inner: list[str], outer: str, factor: int, extent: Size) -> Kernel:
    """Where the last panel goes beyond the last real column, stores results up to there: a copy of what stores them,
    beside that for whole panels."""
    left = extent % factor if isinstance(extent, int) else None

    def clip(s: Stmt, rest: Size) -> Stmt:
        is_lane = isinstance(s, For) and tile_loop(s.var) == inner[-1]
        return replace(s, extent=rest if left is None else left) if is_lane else s

    def block(stmts: tuple[Stmt, ...], panel: str) -> tuple[Stmt, ...]:
        return tuple(stmt(s, panel) for s in stmts)

    def stmt(s: Stmt, panel: str) -> Stmt:
        if isinstance(s, For) and tile_loop(s.var) == outer:
            panel = s.var  # rows that are left over may have a loop over panels of their own
        if not isinstance(s, For) or not s.var.endswith("_e") or tile_loop(s.var) not in inner:
            return map_blocks(s, lambda stmts: block(stmts, panel))
        rest = extent - symbol(panel) * factor
        last = map_stmts((s,), lambda each: clip(each, rest))
        return If(Index(t.i64, rest) >= factor, (s,), renamed_locals(last, "_c"))

    return replace(kernel, body=block(kernel.body, outer))
