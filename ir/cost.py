"""What a kernel costs at least, from its loops: arithmetic operations, and bytes that must move.

A bound to hold a measured time against, not a model of a machine: every element of a buffer moves once, if it moves at
all, and what a loop's data decides is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ir.dims import Size, maximum, minimum, names, substitute
from ir.expr import Apply, Const, Expr, Index, Load, Var, children, walk
from ir.functions import FUNCTIONS
from ir.kernel import Assign, For, If, Kernel, Stmt, Store, blocks_of, exprs_of

_FREE = {"and", "or", "xor", "not", "shl", "shr", "select"}


@dataclass(frozen=True)
class Cost:
    """Arithmetic operations (a multiplication with an addition is two) and bytes read and written, as sizes."""

    operations: Size
    bytes: Size


@dataclass
class _Tally:
    """Operations of a block, and how often it loads from and stores to each buffer."""

    operations: Size = 0
    loads: dict[str, Size] = field(default_factory=dict)
    stores: dict[str, Size] = field(default_factory=dict)

    def add(self, other: _Tally, times: Size = 1) -> None:
        self.operations = self.operations + other.operations * times
        for own, others in ((self.loads, other.loads), (self.stores, other.stores)):
            for name, count in others.items():
                own[name] = own.get(name, 0) + count * times


def cost(kernel: Kernel) -> Cost:
    """The cost of a kernel in terms of its sizes: of what its loops do, on the padding of tiles too.

    A loop whose extent another loop decides counts as it is in the middle of that one, one whose extent data decides as
    one iteration. Of two branches the costlier counts, and the cheaper where sizes decide: these are ways to do the
    same, some with more padding.
    """
    tally = _block(kernel.body, {})
    total: Size = 0
    for buffer in kernel.params:
        whole = buffer.type.elements * buffer.type.dtype.itemsize
        for counts in (tally.loads, tally.stores):
            if buffer.name in counts:
                total = total + minimum(whole, counts[buffer.name] * buffer.type.dtype.itemsize)
    unknown = (names(tally.operations) | names(total)) - set(kernel.sizes)
    assert not unknown, f"loops of {kernel.name} are counted in terms of {', '.join(sorted(unknown))}"
    return Cost(tally.operations, total)


def _block(block: tuple[Stmt, ...], middles: dict[str, Size]) -> _Tally:
    """The tally of a block; `middles` are the values of the loop variables around it half way through."""
    tally = _Tally()
    for stmt in block:
        _count_own(stmt, tally)
        if isinstance(stmt, For):
            extent = _extent(stmt, middles)
            inside = {**middles, stmt.var: maximum(0, extent - 1) // 2}
            tally.add(_block(stmt.body, inside), extent)
        elif isinstance(stmt, If):
            pick = minimum if _is_decided_by_sizes(stmt.condition, middles) else maximum
            tally.add(_either(pick, *(_block(inner, middles) for inner in blocks_of(stmt))))
        else:
            for inner in blocks_of(stmt):
                tally.add(_block(inner, middles))
    return tally


def _extent(loop: For, middles: dict[str, Size]) -> Size:
    extent = loop.extent
    if isinstance(extent, Expr):
        if not isinstance(extent, Index):
            return 1
        extent = extent.value
    return maximum(0, substitute(extent, middles)) if names(extent) & middles.keys() else extent


def _is_decided_by_sizes(condition: Expr, middles: dict[str, Size]) -> bool:
    parts = list(walk(condition))
    known = not any(isinstance(part, (Load, Var)) for part in parts)
    return known and not any(names(part.value) & middles.keys() for part in parts if isinstance(part, Index))


def _either(pick: Callable[..., Size], then: _Tally, orelse: _Tally) -> _Tally:
    both = _Tally(pick(then.operations, orelse.operations))
    for made, left, right in ((both.loads, then.loads, orelse.loads), (both.stores, then.stores, orelse.stores)):
        for name in dict.fromkeys([*left, *right]):
            made[name] = pick(left.get(name, 0), right.get(name, 0))
    return both


def _count_own(stmt: Stmt, tally: _Tally) -> None:
    """Adds what a statement does itself, each different expression once."""
    found = dict.fromkeys(walk(*exprs_of(stmt)))
    for expr in found:
        if isinstance(expr, Load):
            tally.loads[expr.buffer] = tally.loads.get(expr.buffer, 0) + 1
        elif isinstance(expr, Apply) and _is_arithmetic(expr):
            tally.operations = tally.operations + 1
    if isinstance(stmt, (Assign, Store)) and stmt.function is not None:
        tally.operations = tally.operations + 1
    if isinstance(stmt, Store):
        tally.stores[stmt.buffer] = tally.stores.get(stmt.buffer, 0) + 1
        if stmt.function is not None:
            tally.loads[stmt.buffer] = tally.loads.get(stmt.buffer, 0) + 1


def _is_arithmetic(expr: Apply) -> bool:
    """Whether an application computes with values, and not with indices, conditions or bits."""
    if expr.function in _FREE or FUNCTIONS[expr.function].is_predicate:
        return False
    return not all(isinstance(part, (Index, Const)) for part in children(expr))


__all__ = ["Cost", "cost"]
