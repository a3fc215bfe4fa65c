"""Limits of what queries see that follow from positions, as in causal attention: for whole blocks they are known ahead.

Such a limit compares two sums of the query's place, the key's, and what is the same for both. Where it holds at one
corner of a block it holds in all of it, and where it fails at the opposite one it holds nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.passes.attention import moved
from ir import types as t
from ir.access import varies
from ir.dims import Size, substitute, symbol
from ir.expr import Apply, Const, Expr, Index, apply, select

_FALLING = {"lt": -1, "le": -1, "gt": 1, "ge": 1}
"""Comparisons, and whether their truth rises or falls with the first operand."""


def limited(value: Expr, row: str, column: str) -> tuple[Expr, list[Apply]]:
    """A score as it is where no limit hides it, and the limits of query `row` and key `column` that do."""
    match value:
        case Apply(function="select", args=(condition, seen, Const(value=hidden))) if hidden == -math.inf:
            parts = _parts(condition)
            limits = [part for part in parts if _is_limit(part, row, column)]
            others = [part for part in parts if part not in limits]
            for part in reversed(others):
                seen = select(part, seen, value.args[2])
            return seen, [limit for limit in limits if isinstance(limit, Apply)]
    return value, []


def holds(limits: Sequence[Apply], row: str, rows: tuple[Size, Size], column: str, columns: tuple[Size, Size]) -> Expr:
    """Whether limits hold for all queries and keys from the first to the last of each pair."""
    return _at_corner(limits, {row: rows, column: columns})


def may_hold(
    limits: Sequence[Apply], row: str, rows: tuple[Size, Size], column: str, columns: tuple[Size, Size]
) -> Expr:
    """Whether each of the limits holds for some queries and keys from the first to the last of each pair."""
    return _at_corner(limits, {row: (rows[1], rows[0]), column: (columns[1], columns[0])})


def _at_corner(limits: Sequence[Apply], ends: dict[str, tuple[Size, Size]]) -> Expr:
    """Limits where they hold least, between the ends given: a rising one at the first, a falling one at the last."""
    result: Expr = Const(t.bool_, True)
    for limit in limits:
        way = _FALLING[limit.function]
        slopes = {var: (_slope(limit.args[0], var) or 0) - (_slope(limit.args[1], var) or 0) for var in ends}
        corner = {var: first if slopes[var] * way >= 0 else last for var, (first, last) in ends.items()}
        result = apply("and", result, moved(limit, corner))
    return result


def _parts(condition: Expr) -> list[Expr]:
    """What must hold for a condition to hold."""
    if isinstance(condition, Apply) and condition.function == "and":
        return [part for arg in condition.args for part in _parts(arg)]
    return [condition]


def _is_limit(part: Expr, row: str, column: str) -> bool:
    if not isinstance(part, Apply) or part.function not in _FALLING or part.args[0].dtype != t.i64:
        return False
    return all(_slope(arg, var) is not None for arg in part.args for var in (row, column))


def _slope(value: Expr, var: str) -> int | None:
    """By how much a number grows with each step of a loop variable; None where that is not the same everywhere."""
    if not varies(value, var):
        return 0
    match value:
        case Index(value=size):
            step = substitute(size, {var: symbol(var) + 1}) - size
            return step if isinstance(step, int) else None
        case Apply(function="add" | "sub" as function, args=(a, b)):
            first, second = _slope(a, var), _slope(b, var)
            if first is None or second is None:
                return None
            return first + second if function == "add" else first - second
    return None


__all__ = ["holds", "limited", "may_hold"]
