"""Control flow: ops whose attributes are graphs that run under a condition, or many times.

The graphs are closed: what they use from outside arrives as operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir import types as t
from ir.demand import limits_in_force
from ir.dims import (
    Limits,
    Max,
    Size,
    Undecided,
    decide_eq,
    decide_le,
    evaluate,
    greatest,
    maximum,
    names,
    substitute,
    symbol,
    symbol_of,
    terms,
)
from ir.graph import Graph
from ir.op import Op, OpError, assume_equal, define, ints, op, require
from ir.types import OptionalType, SequenceType, TensorType, Type, names_in


def merged_type(a: Type, b: Type, label: str) -> Type:
    """The type of a value that is of type `a` or of type `b`; sizes that differ are symbols called `label.axis`.

    Raises OpError where element types or ranks differ.
    """
    if a == b:
        return a
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(joined_element(a.element, b.element, label))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        inner = [x.element if isinstance(x, OptionalType) else x for x in (a, b)]
        return OptionalType(merged_type(inner[0], inner[1], label))
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or a.dtype != b.dtype or a.rank != b.rank:
        raise OpError(f"a value is {a} on one way and {b} on the other; types and ranks must agree")
    sizes: list[Size] = []
    for axis, (x, y) in enumerate(zip(a.shape, b.shape)):
        sizes.append(x if decide_eq(x, y) else symbol(f"{label}.{axis}"))
        if not decide_eq(x, y):
            define(sizes[-1], maximum(x, y))
    return a.with_shape(sizes)


def joined_element(element: Type, other: Type, label: str) -> Type:
    """The element type of a sequence that has some of both types. Rank 0 stands for a shape that is not known yet."""
    if isinstance(element, TensorType) and isinstance(other, TensorType) and element.dtype == other.dtype:
        if element.rank == 0:
            return other
        if other.rank == 0:
            return element
    return merged_type(element, other, label)


def run(body: Graph, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs of a nested graph."""
    from ir.evaluate import evaluate_graph

    return evaluate_graph(body, arrays)


def _above(following: Size, size: Size) -> tuple[Size, Size]:
    """max(size, c) + k as c and size + k: from c on, the first term is `size` itself. Others stay what they are."""
    for coefficient, monomial in terms(following):
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Max) and size in monomial[0].args:
            others = [arg for arg in monomial[0].args if arg != size]
            if not any(names(arg) & names(size) for arg in others):
                return maximum(*others), following - maximum(*monomial[0].args) + size
    return 0, following


def no_rows(type_: TensorType) -> np.ndarray:
    """What a loop without steps stacks: no rows of `type_`. Sizes that its steps alone would tell are 0."""
    from ir.evaluate import ambient_sizes

    known = ambient_sizes()
    shape = (evaluate(size, known) if names(size) <= known.keys() else 0 for size in type_.shape)
    return np.zeros((0, *shape), type_.dtype.numpy)


@op
class If_(Op):
    """The outputs of `then` where the condition holds, else those of `orelse`.

    Operands after the condition are the inputs of `then`, then those of `orelse`. Sizes in which the two differ are
    symbols that begin with `label` and the number of the output, or with what `results` says for each.
    """

    name = "if_"
    structural = True
    then: Graph
    orelse: Graph
    label: str = "if"
    results: tuple[str, ...] = ()

    def infer(self, condition: Type, *captures: Type) -> Any:
        one = isinstance(condition, TensorType) and condition.dtype == t.bool_ and condition.elements == 1
        require(one, lambda: f"if: the condition is {condition}; it must be one bool")
        expected = len(self.then.inputs) + len(self.orelse.inputs)
        require(len(captures) == expected, lambda: f"if: {len(captures)} operands for {expected} inputs")
        a, b = self.then.outputs, self.orelse.outputs
        require(len(a) == len(b), lambda: f"if: one branch has {len(a)} outputs, the other {len(b)}")
        labels = self.results or [f"{self.label}.{i}" for i in range(len(a))]
        types = tuple(merged_type(x.type, y.type, label) for x, y, label in zip(a, b, labels, strict=True))
        return types[0] if len(types) == 1 else types

    def reference(self, condition: np.ndarray, *captures: Any) -> Any:
        count = len(self.then.inputs)
        outs = run(self.then, captures[:count]) if condition.item() else run(self.orelse, captures[count:])
        return outs[0] if len(outs) == 1 else outs


def told_inside(graph: Graph) -> set[str]:
    """The symbols whose values only the nodes of a graph tell, and each run of it anew."""
    found: set[str] = set()
    for node in graph.nodes():
        found |= {name for name in map(symbol_of, node.op.sizes_defined()) if name is not None}
        if node.op.structural:
            given = {name for value in node.inputs if value is not None for name in names_in(value.type)}
            found |= {name for value in node.outputs for name in names_in(value.type)} - given
    return found & graph.limits.keys()


def outside(type_: Type, label: str, changes: Callable[[str], bool]) -> Type:
    """A type inside a body as it is outside, where sizes of symbols that differ from step to step have other names."""
    if isinstance(type_, SequenceType):
        return SequenceType(outside(type_.element, label, changes))
    if isinstance(type_, OptionalType):
        return OptionalType(outside(type_.element, label, changes))
    if not isinstance(type_, TensorType):
        return type_
    sizes: list[Size] = []
    for axis, size in enumerate(type_.shape):
        differs = any(map(changes, names(size)))
        sizes.append(symbol(f"{label}.{axis}") if differs else size)
        if differs:
            define(sizes[-1], size)
    return type_.with_shape(sizes)


@op
class Loop(Op):
    """`body` run while its condition holds, at most `trip` times.

    Operands are trip, condition, `carried` values, and what the body captures.

    The body takes the number of the step, the condition and the carried values, and gives the next condition, the next
    carried values, and elements of the outputs that are stacked along a new first axis. Sizes that only a run tells are
    symbols that begin with `label`; `steps` is the number of steps where it is known, else `limit` what it is at most.
    `results` says what the sizes of each carried value are called after outside, where that is not LABEL.NUMBER.
    """

    structural = True
    body: Graph
    carried: int
    label: str = "loop"
    steps: Size | None = None
    limit: Size | None = None
    results: tuple[str, ...] = ()

    @property
    def total(self) -> str:
        """The name of the number of steps, where that is not known before."""
        return f"{self.label}.steps"

    def runs_to_the_end(self) -> bool:
        """Whether the body never stops the loop: the next condition is true, or the one it got."""
        after = self.body.outputs[0]
        return after is self.body.inputs[1] if after.content is None else bool(after.content.reshape(-1)[0])

    def infer(self, trip: Type | None, condition: Type | None, *values: Type) -> Any:
        inputs, outputs = self.body.inputs, self.body.outputs
        require(len(values) == len(inputs) - 2, lambda: f"loop: {len(values)} operands for {len(inputs) - 2} inputs")
        require(len(outputs) > self.carried, lambda: f"loop: the body has {len(outputs)} outputs")
        first: Size = symbol(self.total) if self.steps is None else self.steps
        if self.steps is None:
            define(first, self.limit)
        types: list[Type] = []
        self._define(values)
        for i, inner in enumerate(inputs[2 : 2 + self.carried]):
            own = self.results[i] if self.results else f"{self.label}.{i}"
            types.append(outside(inner.type, own, self._changes))
        inside = told_inside(self.body)
        for i, value in enumerate(outputs[1 + self.carried :]):
            row = outside(value.tensor, f"{self.label}.stacked.{i}", lambda name: self._changes(name) or name in inside)
            types.append(TensorType(value.dtype, (first, *getattr(row, "shape", ()))))
        return types[0] if len(types) == 1 else tuple(types)

    def _define(self, values: Sequence[Type]) -> None:
        """Says what the sizes of carried values are at most that change from step to step, one by another."""
        open_: list[tuple[Size, Size, Size]] = []
        for start, inner, after in zip(values, self.body.inputs[2 : 2 + self.carried], self.body.outputs[1:]):
            if all(isinstance(type_, TensorType) for type_ in (start, inner.type, after.type)):
                open_ += zip(start.shape, inner.shape, after.shape)  # type: ignore[union-attr]
        open_ = [change for change in dict.fromkeys(open_) if change[0] != change[1]]
        known: dict[str, Size | None] = {}
        while open_:
            left = [change for change in open_ if not self._found_limit(change, known)]
            if len(left) == len(open_):
                break
            open_ = left
        for name, limit in known.items():
            define(symbol(name), limit)
        for _, size, _ in open_:
            define(size, None)

    def _found_limit(self, change: tuple[Size, Size, Size], known: dict[str, Size | None]) -> bool:
        """Whether a size that changes has a limit, given those of `known`; then it is added to them."""
        first, size, following = change
        name = symbol_of(size)
        try:
            within = Limits(limits_in_force())
            for inner in [other for other in within if other.startswith(f"{self.label}.in.")]:
                del within[inner]
            within.update(known)
            limit = None if name is None else self._limit_of(size, first, greatest(following, within))
        except Undecided:
            limit = None
        if name is None or limit is None:
            return False
        known[name] = limit
        return True

    def _limit_of(self, size: Size, first: Size, following: Size) -> Size | None:
        """What a size is at most that is `first` before the loop and `following`, in terms of itself, after a step."""
        prefix, own = f"{self.label}.in.", symbol_of(size)
        if own is not None and decide_le(self._at_most(following, own), size):
            return first
        if own is not None:  # what one step makes of the first size or of a fixed one, where no step exceeds that
            most = maximum(first, substitute(following, {own: first}))
            again = substitute(following, {own: most})
            if not any(name.startswith(prefix) for name in names(most)) and decide_le(again, most):
                return most
        steps = self.limit if self.steps is None else self.steps
        least, following = _above(following, size)
        growth = following - size
        if steps is None or any(name.startswith(prefix) for name in names(growth)):
            return None
        return maximum(first, least) + steps * maximum(growth, 0)

    def _at_most(self, following: Size, own: str) -> Size:
        """A size after a step that is not less than `following`, and does not fall where the size before it rises."""
        before = f"{own}.before"
        try:
            return substitute(greatest(following, {own: symbol(before)}), {before: symbol(own)})
        except Undecided:
            return following

    def _changes(self, name: str) -> bool:
        """Whether a symbol is a size of what is carried that differs from step to step."""
        return name.startswith(f"{self.label}.in.")

    def reference(self, trip: np.ndarray | None, condition: np.ndarray | None, *values: Any) -> Any:
        carried, captures = list(values[: self.carried]), values[self.carried :]
        going = True if condition is None else bool(condition.item())
        most = np.inf if trip is None else trip.item()
        stacked: list[list[np.ndarray]] = [[] for _ in self.body.outputs[1 + self.carried :]]
        step = 0
        while going and step < most:
            outs = run(self.body, [np.array(step), np.array(going), *carried, *captures])
            going, carried = bool(outs[0].item()), list(outs[1 : 1 + self.carried])
            for row, element in zip(stacked, outs[1 + self.carried :]):
                row.append(element)
            step += 1
        results = (*carried, *(self._stack(row, i) for i, row in enumerate(stacked)))
        return results[0] if len(results) == 1 else results

    def _stack(self, row: list[np.ndarray], position: int) -> np.ndarray:
        return np.stack(row) if row else no_rows(self.body.outputs[1 + self.carried + position].tensor)


@op
class Scan(Op):
    """`body` run once for every slice of the scanned operands; operands are `states`, scanned tensors, captures.

    The body takes the states and one slice of each scanned tensor (along `in_axes`, backwards where `backward`), and
    gives the next states and slices of the stacked outputs (along `out_axes`, filled backwards where `out_backward`).
    Sizes that only a run tells are symbols that begin with `label`.
    """

    structural = True
    body: Graph
    states: int
    in_axes: ints = ()
    backward: tuple[bool, ...] = ()
    out_axes: ints = ()
    out_backward: tuple[bool, ...] = ()
    label: str = "scan"

    def infer(self, *values: Type) -> Any:
        inputs, outputs = self.body.inputs, self.body.outputs
        require(len(values) == len(inputs), lambda: f"scan: {len(values)} operands for {len(inputs)} inputs")
        require(len(outputs) == self.states + len(self.out_axes), lambda: f"scan: the body has {len(outputs)} outputs")
        scanned = values[self.states : self.states + len(self.in_axes)]
        lengths = [v.shape[a] for v, a in zip(scanned, self.in_axes) if isinstance(v, TensorType)]
        for other in lengths[1:]:
            require(decide_eq(lengths[0], other) is not False, lambda: f"scan: lengths are {lengths}")
            assume_equal(lengths[0], other)
        types: list[Type] = [v.type for v in inputs[: self.states]]
        inside = told_inside(self.body)
        for i, (value, axis) in enumerate(zip(outputs[self.states :], self.out_axes)):
            row = outside(value.tensor, f"{self.label}.stacked.{i}", inside.__contains__)
            shape = getattr(row, "shape", ())
            types.append(value.tensor.with_shape((*shape[:axis], lengths[0], *shape[axis:])))
        return types[0] if len(types) == 1 else tuple(types)

    def reference(self, *values: Any) -> Any:
        count = len(self.in_axes)
        states, captures = list(values[: self.states]), values[self.states + count :]
        scanned = values[self.states : self.states + count]
        length = scanned[0].shape[self.in_axes[0]]
        stacked: list[list[np.ndarray]] = [[] for _ in self.out_axes]
        for step in range(length):
            at = [length - 1 - step if flip else step for flip in self.backward]
            slices = [np.take(x, i, axis=a) for x, i, a in zip(scanned, at, self.in_axes)]
            outs = run(self.body, [*states, *slices, *captures])
            states = list(outs[: self.states])
            for row, element in zip(stacked, outs[self.states :]):
                row.append(element)
        made = []
        for row, axis, flip, value in zip(stacked, self.out_axes, self.out_backward, self.body.outputs[self.states :]):
            made.append(np.moveaxis(np.stack(row[::-1] if flip else row) if row else no_rows(value.tensor), 0, axis))
        results = (*states, *made)
        return results[0] if len(results) == 1 else results

    def expand(self, b: Any, *values: Any) -> Any:
        """The loop that takes a slice of each scanned operand in every step."""
        count, scanned = len(self.in_axes), values[self.states : self.states + len(self.in_axes)]
        length = scanned[0].shape[self.in_axes[0]]
        body = Graph(self.body.name)
        body.bounds, body.limits, body.equal_dims = b.graph.bounds, b.graph.limits, list(self.body.equal_dims)
        step, going = body.add_input("step", TensorType(t.i64, ())), body.add_input("going", TensorType(t.bool_, ()))
        inner = [body.add_input(v.name, v.type) for v in (*self.body.inputs[: self.states], *scanned)]
        captures = [body.add_input(v.name, v.type) for v in self.body.inputs[self.states + count :]]
        with b.nested(body) as c:
            last = c.dims(length - 1)
            at = [c.sub(last, step) if flip else step for flip in self.backward]
            slices = [c.gather(x, i, axis=a) for x, i, a in zip(inner[self.states :], at, self.in_axes)]
            results = [going, *c.splice(self.body, [*inner[: self.states], *slices, *captures])]
            body.set_outputs(results, [f"next{i}" for i in range(len(results))])
        loop = Loop(body, self.states, label=self.label, steps=length)
        made = b.apply(loop, b.dims(length), None, *values)
        results = list(made if isinstance(made, tuple) else (made,))
        for i, (axis, flip) in enumerate(zip(self.out_axes, self.out_backward), start=self.states):
            results[i] = _placed(b, results[i], axis, flip)
        return results[0] if len(results) == 1 else tuple(results)


def _placed(b: Any, rows: Any, axis: int, flip: bool) -> Any:
    """Rows that a loop has stacked, along `axis` and in reverse where `flip`."""
    if flip:
        starts, steps = (rows.shape[0] - 1, *(0 for _ in rows.shape[1:])), (-1, *(1 for _ in rows.shape[1:]))
        rows = b.slice(rows, starts=starts, shape=rows.shape, steps=steps)
    others = list(range(1, rows.rank))
    return b.transpose(rows, perm=(*others[:axis], 0, *others[axis:])) if axis else rows


__all__ = ["If_", "Loop", "Scan", "joined_element", "merged_type", "run", "told_inside"]
