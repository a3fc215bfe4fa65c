"""Ops on strings as cells (`ir.cells`): rows u8[n,W]: each a string that ends at its first zero byte, or after W.

What the string ops become where there are no strings (their `on_cells`). Reading past the end of a cell gives a zero
byte, so that loops over a string need one condition only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import cells
from ir import types as t
from ir.dims import Size, decide_eq
from ir.element import KernelBuilder, Output, Tensor
from ir.expr import Expr, Index, cast, select
from ir.op import Op, assume_equal, case, op, require
from ir.types import TensorType


def example_cells(*strings: str, width: int | None = None) -> np.ndarray:
    """Cells of strings, for examples."""
    return cells.encode(np.array(strings, object), width)


def require_cells(op_name: str, *operands: TensorType) -> None:
    """Raises OpError for what is not u8[n,W]."""
    wrong = [str(x) for x in operands if x.dtype != t.u8 or x.rank != 2]
    require(not wrong, lambda: f"{op_name} takes cells u8[n,W], not {', '.join(wrong)}")


def require_rows(op_name: str, a: TensorType, b: TensorType) -> None:
    """Demands equally many strings. Raises OpError where the numbers provably differ."""
    require(decide_eq(a.shape[0], b.shape[0]) is not False, lambda: f"{op_name}: {a} and {b} are not equally many")
    assume_equal(a.shape[0], b.shape[0])


def in_rows(b: Any, x: Any, shape: tuple[Size, ...] | None = None) -> Any:
    """Cells of any shape, broadcast to strings of `shape` where it is given, as rows u8[n,W]."""
    width = x.shape[-1]
    if shape is not None and shape != x.shape[:-1]:
        x = b.expand(x, shape=(*shape, width))
    count = math.prod(x.shape[:-1], start=1)
    return b.reshape(x, shape=(count, width))


def byte(x: Tensor, row: Expr, at: Expr) -> Expr:
    """The byte of string `row` at `at` as an i64; 0 from the end of the cell on."""
    return cast(x.at(row, at, outside=0), t.i64)


def length(k: KernelBuilder, x: Tensor, row: Expr) -> Expr:
    """The number of bytes of string `row`."""
    count = k.variable("length", 0, t.i64)
    with k.during(byte(x, row, count).differs(0)):
        k.assign(count, 1, "add")
    return count


def common_prefix(k: KernelBuilder, x: Tensor, row: Expr, y: Tensor, other: Expr) -> Expr:
    """How many bytes two strings have in common at the beginning."""
    count = k.variable("same", 0, t.i64)
    with k.during(byte(x, row, count).equals(byte(y, other, count)) & byte(x, row, count).differs(0)):
        k.assign(count, 1, "add")
    return count


@op
class EqualCells(Op):
    """Whether x[n] and y[n] are equal strings, as bool[n]."""

    examples = [
        case(example_cells("ab", "", "abc", "é"), example_cells("ab", "x", "ab", "é", width=7)),
        case(example_cells("a\x01", "b").repeat(3, axis=1), example_cells("aaa", "bbb")),
        case("u8[0,3]", "u8[0,2]"), case(np.zeros((2, 0), np.uint8), "u8[2,1]"),
    ]  # fmt: skip

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        require_cells("equal_cells", x, y)
        require_rows("equal_cells", x, y)
        return TensorType(t.bool_, x.shape[:1])

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([a == b for a, b in zip(cells.rows(x), cells.rows(y))], np.bool_)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, y: Tensor) -> None:
        with k.loop("parallel", n=x.shape[0]) as n:
            at = common_prefix(k, x, n, y, n)
            k.store(outs[0], (n,), byte(x, n, at).equals(byte(y, n, at)))


@op
class ConcatCells(Op):
    """x[n] followed by y[n]; u8[n,Wx+Wy]."""

    examples = [
        case(example_cells("ab", "", "abc"), example_cells("x", "yz", "")),
        case("u8[0,3]", "u8[0,2]"), case(np.zeros((2, 0), np.uint8), example_cells("a", "bc")),
    ]  # fmt: skip

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        require_cells("concat_cells", x, y)
        require_rows("concat_cells", x, y)
        return TensorType(t.u8, (x.shape[0], x.shape[1] + y.shape[1]))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        joined = [a + b for a, b in zip(cells.rows(x), cells.rows(y))]
        return cells.from_rows(joined, x.shape[1] + y.shape[1])

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, y: Tensor) -> None:
        (out,) = outs
        with k.loop("parallel", n=x.shape[0]) as n:
            first = length(k, x, n)
            with k.loop(j=out.shape[1]) as j:
                k.store(out, (n, j), select(j < first, x.at(n, j, outside=0), y.at(n, j - first, outside=0)))
            # What follows the end of y's string is not its business, and need not be zero.
            end = k.variable("end", first, t.i64)
            with k.during(byte(y, n, end - first).differs(0)):
                k.assign(end, 1, "add")
            clear_from(k, out, n, end)


def clear_from(k: KernelBuilder, out: Output, row: Expr, start: Expr) -> None:
    """Fills the rest of a cell with zero bytes."""
    with k.loop(z=Index(t.i64, out.shape[1]) - start) as z:
        k.store(out, (row, start + z), 0)


@op
class FindCell(Op):
    """The position of x[n] in `keys`, which are different strings in the order of their bytes; -1 where it is none."""

    examples = [
        case(example_cells("b", "", "zebra", "ab", "ba"), example_cells("", "ab", "b", "zebras")),
        case(example_cells("é", "e", "z"), example_cells("e", "é")),
        case("u8[3,2]", np.zeros((0, 1), np.uint8)), case("u8[0,2]", example_cells("x")),
    ]  # fmt: skip

    def infer(self, x: TensorType, keys: TensorType) -> TensorType:
        require_cells("find_cell", x, keys)
        return TensorType(t.i64, x.shape[:1])

    def reference(self, x: np.ndarray, keys: np.ndarray) -> np.ndarray:
        places = {key: place for place, key in enumerate(cells.rows(keys))}
        return np.array([places.get(item, -1) for item in cells.rows(x)], np.int64)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, keys: Tensor) -> None:
        with k.loop("parallel", n=x.shape[0]) as n:
            found = k.variable("found", -1, t.i64)
            low, high = k.variable("low", 0, t.i64), k.variable("high", Index(t.i64, keys.shape[0]), t.i64)
            with k.during(low < high):
                middle = k.let("middle", (low + high) // 2)
                at = common_prefix(k, x, n, keys, middle)
                own, theirs = k.let("own", byte(x, n, at)), k.let("theirs", byte(keys, middle, at))
                with k.when(own.equals(theirs)):
                    k.assign(found, middle)
                k.assign(low, select(own > theirs, middle + 1, low))
                k.assign(high, select(own > theirs, high, select(own < theirs, middle, low)))
            k.store(outs[0], (n,), found)


@op
class WalkCells(Op):
    """Whether a deterministic automaton accepts the bytes of x[n]: from state 0, state s goes to
    table[s, classes[byte]]."""

    examples = [
        case(
            example_cells("ab", "a", "", "abab", "abc"),
            np.array([0] * 97 + [1, 2] + [0] * 157, np.uint8),
            np.array([[3, 1, 3], [3, 3, 2], [3, 1, 3], [3, 3, 3]], np.int32),
            np.array([True, False, True, False]),
        )
    ]

    def infer(self, x: TensorType, classes: TensorType, table: TensorType, accepts: TensorType) -> TensorType:
        require_cells("walk_cells", x)
        require(classes == TensorType(t.u8, (256,)), lambda: f"walk_cells: classes are {classes}")
        require(table.dtype == t.i32 and table.rank == 2, lambda: f"walk_cells: the table is {table}")
        require(accepts == TensorType(t.bool_, table.shape[:1]), lambda: f"walk_cells: {accepts} for {table}")
        return TensorType(t.bool_, x.shape[:1])

    def reference(self, x: np.ndarray, classes: np.ndarray, table: np.ndarray, accepts: np.ndarray) -> np.ndarray:
        found = []
        for item in cells.rows(x):
            state = 0
            for each in item:
                state = table[state, classes[each]]
            found.append(accepts[state])
        return np.array(found, np.bool_)

    def kernel(self, k: KernelBuilder, outs: tuple[Output, ...], x: Tensor, classes: Tensor, table: Tensor,
               accepts: Tensor) -> None:  # fmt: skip
        with k.loop("parallel", n=x.shape[0]) as n:
            state, at = k.variable("state", 0, t.i64), k.variable("at", 0, t.i64)
            with k.during(byte(x, n, at).differs(0)):
                kind = cast(classes.at(byte(x, n, at)), t.i64)
                k.assign(state, cast(table.at(state, kind), t.i64))
                k.assign(at, 1, "add")
            k.store(outs[0], (n,), accepts.at(state))
