"""Control flow of ai.onnx: If, Loop, Scan.

What is decided when compiling is inlined: a branch whose condition is known, a loop of few known steps.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from compiler.onnx.conditions import Knowledge, equal_sizes, implied
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.demand import unequal
from ir.dims import decide_eq, maximum, symbol
from ir.graph import Graph
from ir.op import OpError, UnknownValue
from ir.ops.control import If_, joined_element, names_in
from ir.ops.control import Loop as LoopOp
from ir.ops.control import Scan as ScanOp
from ir.types import OptionalType, SequenceType, TensorType, Type

UNROLL = 64
"""Loops of at most this many steps, when that is known, are unrolled, so that no loop over graphs is left."""


def label(b: Any) -> str:
    """A name for sizes that depend on what a node does at run time."""
    made = b.unique_label()
    return made if b.ref.path else made[1:]


@onnx_op("If", since=1)
def If(b: Any, cond: Any, *, then_branch: Any, else_branch: Any) -> Any:
    content = cond.content
    if content is not None:
        if content.size != 1:
            raise OpError(f"the condition is {cond.type}; it must be one bool")
        return tuple(b.inline(then_branch if content.reshape(-1)[0] else else_branch))
    then, of_then = b.subgraph(then_branch, (), "then", implied(cond, True))
    orelse, of_orelse = b.subgraph(else_branch, (), "else", implied(cond, False))
    try:
        return b.apply(If_(then, orelse, label(b)), cond, *of_then, *of_orelse)
    except OpError as error:
        sizes = equal_sizes(cond)
        if sizes is None:
            hint = "give the sizes or inputs that the condition depends on a value, so that one branch is left"
            raise UnknownValue(f"{error}; {hint}", cond) from error
    if _fits_declared(b, orelse) and not _fits_declared(b, then):
        b.assume_equal(*unequal(*sizes))
        return tuple(b.inline(else_branch))
    b.assume_equal(*sizes)
    return tuple(b.inline(then_branch))


def _fits_declared(b: Any, branch: Graph) -> bool:
    """Whether the outputs of a branch have the ranks that the model declares for those of the node.

    Exporters write `squeeze` as an If whose branches differ in rank. Where the condition is that two sizes are equal,
    the branch that fits the model is taken (`then`, where nothing is declared), and the sizes are checked when it runs.
    """
    ranks = [(b.declared_rank(i), v.type) for i, v in enumerate(branch.outputs)]
    return all(declared is None or type_.rank == declared for declared, type_ in ranks if isinstance(type_, TensorType))


@onnx_op("Loop", since=1)
def Loop(b: Any, M: Any = None, cond: Any = None, *v_initial: Any, body: Any) -> Any:
    if len(body.output) <= len(v_initial):
        raise OpError(f"its body gives {len(body.output)} results; it must give a condition and {len(v_initial)} more")
    return _unrolled(b, M, cond, list(v_initial), body) or _looped(b, M, cond, list(v_initial), body)


def _unrolled(b: Any, trip: Any, cond: Any, carried: list[Any], body: Any) -> tuple[Any, ...] | None:
    """The outputs of a loop whose steps are decided when compiling; None where they are not, or are too many."""
    if (trip is not None and trip.content is None) or (cond is not None and cond.content is None):
        return None
    most = UNROLL + 1 if trip is None else b.scalar(trip, "M")
    going = True if cond is None else bool(cond.content.reshape(-1)[0])
    if not isinstance(most, int) or (trip is not None and cond is None and most > UNROLL):
        return None
    count = len(carried)
    stacked: list[list[Any]] = [[] for _ in body.output[1 + count :]]
    step = 0
    while going and step < most:
        if step == UNROLL:
            return None
        outs = b.inline(body, [b.const(np.array(step, np.int64)), b.const(np.array(True)), *carried])
        if outs[0].content is None:
            return None
        going, carried = bool(outs[0].content.reshape(-1)[0]), outs[1 : 1 + count]
        for row, element in zip(stacked, outs[1 + count :]):
            row.append(element)
        step += 1
    if step == 0 and stacked:
        return None
    return (*carried, *(stack(b, row, 0) for row in stacked))


def stack(b: Any, elements: list[Any], axis: int) -> Any:
    """Tensors stacked along a new axis."""
    return b.concat(*(b.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in elements), axis=axis)


def _looped(b: Any, trip: Any, cond: Any, carried: list[Any], body: Any) -> Any:
    """A loop that runs as a graph. Types of carried values are widened until the body keeps them."""
    prefix, count = label(b), len(carried)
    types: list[Type] = [v.type for v in carried]
    labels, limits = dict(b.scope.importer.labels), dict(b.graph.limits)
    for _ in range(4):
        b.scope.importer.labels = Counter(labels)  # what is imported again keeps its names, and no limits
        for name in [n for n in b.graph.limits if n not in limits and not n.startswith(f"{prefix}.in.")]:
            del b.graph.limits[name]
        given = [TensorType(t.i64, ()), TensorType(t.bool_, ()), *types]
        graph, captured = b.subgraph(body, given, "body", Knowledge(steps=(trip, cond)))
        made = [v.type for v in graph.outputs[1 : 1 + count]]
        wider = [_widened(a, c, f"{prefix}.in.{i}") for i, (a, c) in enumerate(zip(types, made))]
        if wider == types:
            break
        types = wider
        changing = (name for type_ in types for name in names_in(type_) if name.startswith(f"{prefix}.in."))
        b.graph.limits.update({name: b.graph.limits.get(name) for name in changing})
    else:
        raise OpError("the types of the values it carries change with every step")
    limit = None if trip is None or trip.content is None else b.scalar(trip, "M")
    most = maximum(limit, 0) if limit is not None else b.graph.bounds.get(f"{prefix}.steps", (0, None))[1]
    loop = LoopOp(graph, count, prefix, limit=most)
    if limit is not None and most is not None and loop.runs_to_the_end() and (cond is None or cond.content is not None):
        goes = cond is None or bool(cond.content.reshape(-1)[0])
        loop = LoopOp(graph, count, prefix, steps=most if goes else 0)
    return b.apply(loop, trip, cond, *carried, *captured)


def _widened(before: Type, after: Type, prefix: str) -> Type:
    """The type of a value that is of type `before` at first and `after` a step of the loop."""
    if isinstance(before, OptionalType) and not isinstance(after, OptionalType):
        return OptionalType(_widened(before.element, after, prefix))
    if isinstance(before, SequenceType) and isinstance(after, SequenceType):
        return SequenceType(joined_element(before.element, after.element, prefix))
    if not isinstance(before, TensorType) or not isinstance(after, TensorType):
        return before
    if before.dtype != after.dtype or before.rank != after.rank:
        raise OpError(f"a value it carries is {before} at first and {after} later")
    return before.with_shape(
        x if decide_eq(x, y) else symbol(f"{prefix}.{axis}")
        for axis, (x, y) in enumerate(zip(before.shape, after.shape))
    )


@onnx_op("Scan", since=9)
def Scan(
    b: Any, *initial_state_and_scan_inputs: Any, body: Any, num_scan_inputs: int,
    scan_input_axes: tuple[int, ...] = (), scan_input_directions: tuple[int, ...] = (),
    scan_output_axes: tuple[int, ...] = (), scan_output_directions: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    values = list(initial_state_and_scan_inputs)
    count = len(values) - num_scan_inputs
    states, scanned = values[:count], values[count:]
    outputs = len(body.output) - count
    if num_scan_inputs < 1 or count < 0 or outputs < 0:
        raise OpError(f"it has {len(values)} inputs and `num_scan_inputs` {num_scan_inputs}")
    given = scan_input_axes or (0,) * len(scanned)
    axes = tuple(axis % x.rank for axis, x in zip(given, scanned))
    backward = tuple(bool(v) for v in scan_input_directions or (0,) * len(scanned))
    out_axes = tuple(scan_output_axes or (0,) * outputs)
    out_backward = tuple(bool(v) for v in scan_output_directions or (0,) * outputs)
    if len(axes) != len(scanned) or len(backward) != len(scanned) or {len(out_axes), len(out_backward)} != {outputs}:
        raise OpError("axes and directions must be as many as there are scanned inputs and outputs")
    length = scanned[0].shape[axes[0]]
    if isinstance(length, int) and 0 < length <= UNROLL:
        return _scan_steps(b, body, states, scanned, axes, backward, out_axes, out_backward)
    slices = [x.tensor.with_shape((*x.shape[:a], *x.shape[a + 1 :])) for x, a in zip(scanned, axes)]
    graph, captured = b.subgraph(body, [*(v.type for v in states), *slices], "body")
    out_axes = tuple(a % (v.rank + 1) for a, v in zip(out_axes, graph.outputs[count:]))
    for state, after in zip(states, graph.outputs):
        if state.type != after.type:
            raise OpError(f"a state is {state.type} at first and {after.type} later")
    return b.apply(ScanOp(graph, count, axes, backward, out_axes, out_backward, label(b)), *states, *scanned, *captured)


def _scan_steps(
    b: Any, body: Any, states: list[Any], scanned: list[Any], axes: tuple[int, ...], backward: tuple[bool, ...],
    out_axes: tuple[int, ...], out_backward: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    """The outputs of a scan, one step after the other."""
    length, count = scanned[0].shape[axes[0]], len(states)
    rows: list[list[Any]] = [[] for _ in out_axes]
    for step in range(length):
        at = [length - 1 - step if flip else step for flip in backward]
        slices = [slice_of(b, x, axis, i) for x, axis, i in zip(scanned, axes, at)]
        outs = b.inline(body, [*states, *slices])
        states = outs[:count]
        for row, element in zip(rows, outs[count:]):
            row.append(element)
    made = []
    for row, axis, flip in zip(rows, out_axes, out_backward):
        made.append(stack(b, row[::-1] if flip else row, axis % (row[0].rank + 1)))
    return (*states, *made)


def slice_of(b: Any, x: Any, axis: int, position: int) -> Any:
    """Entry `position` of `axis`, without the axis."""
    starts = tuple(position if a == axis else 0 for a in range(x.rank))
    shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
    part = b.slice(x, starts=starts, shape=shape, steps=(1,) * x.rank)
    return b.reshape(part, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))


@onnx_op("Scan", since=8)
def Scan8(
    b: Any, sequence_lens: Any = None, *initial_state_and_scan_inputs: Any, body: Any, num_scan_inputs: int,
    directions: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    """The older form: every input has a batch axis in front, and each entry of the batch is scanned alone."""
    if sequence_lens is not None:
        raise OpError("`sequence_lens` is not supported")
    values = list(initial_state_and_scan_inputs)
    batch = values[0].shape[0]
    if not isinstance(batch, int) or not 0 < batch <= UNROLL:
        raise OpError(f"the batch size {batch} must be known when compiling, and at most {UNROLL}")
    rows = []
    for entry in range(batch):
        own = [slice_of(b, x, 0, entry) for x in values]
        outs = Scan(b, *own, body=body, num_scan_inputs=num_scan_inputs, scan_input_directions=directions)
        rows.append(outs if isinstance(outs, tuple) else (outs,))
    return tuple(stack(b, list(column), 0) for column in zip(*rows))
