"""What random models with sizes that only a run tells are grown from; see `tests.fuzz.dynamic`.

Each recipe picks operands of a `Net`, adds a node or a few, and puts the results back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.dynamic import Net, NothingFits, Row, Shape, Tensor

RECIPES: dict[Callable[[Net], Any], float] = {}


def recipe(weight: float) -> Callable[[Callable[[Net], Any]], Callable[[Net], Any]]:
    def register(function: Callable[[Net], Any]) -> Callable[[Net], Any]:
        RECIPES[function] = weight
        return function

    return register


def grow(net: Net, steps: int) -> None:
    """Applies that many recipes, as far as operands are found."""
    for _ in range(steps):
        chosen = net.rng.choices(list(RECIPES), list(RECIPES.values()))[0]
        nodes, tensors, rows = len(net.nodes), len(net.tensors), len(net.rows)
        try:
            chosen(net)
        except NothingFits:
            del net.nodes[nodes:], net.rows[rows:]
            inputs = {v.name for v in net.root.inputs}
            net.tensors[tensors:] = [v for v in net.tensors[tensors:] if v.name in inputs]


def clipped(net: Net, value: Tensor) -> Tensor:
    if value.kind == "f":
        return net.make("Clip", [value, -8.0, 8.0], "f", value.shape)
    return net.make("Clip", [value, np.array(-9), np.array(9)], "i", value.shape)


def told(net: Net) -> str:
    """The tag of a size that a run tells."""
    return net.fresh("t")


# ---------------------------------------------------------------- of fixed sizes


@recipe(3)
def elementwise(net: Net) -> Tensor:
    x = net.pick("f", 0)
    how = net.rng.choice(["Neg", "Abs", "Relu", "Add", "Sub", "Mul", "Max", "Min", "scalar"])
    if how in ("Neg", "Abs", "Relu"):
        return net.make(how, [x], "f", x.shape)
    if how == "scalar":
        return clipped(net, net.make("Add", [x, float(net.rng.randint(-2, 2))], "f", x.shape))
    return clipped(net, net.make(how, [x, net.like(x)], "f", x.shape))


@recipe(1.5)
def unlike(net: Net) -> Tensor:
    """Two operands that may turn out to fit, or not: runs must agree on which."""
    x = net.pick("f", 1)
    found = [v for v in net.seen() if v.kind == "f" and v.rank == x.rank]
    return clipped(net, net.make("Add", [x, net.rng.choice(found[-6:])], "f", tuple(told(net) for _ in x.shape)))


@recipe(1.5)
def compare(net: Net) -> Tensor:
    x = net.pick("fi")
    other = net.like(x) if net.rng.random() < 0.5 else (1.0 if x.kind == "f" else np.array(1))
    return net.make(net.rng.choice(["Greater", "LessOrEqual"]), [x, other], "b", x.shape)


@recipe(1)
def where(net: Net) -> Tensor:
    x = net.pick("f", 1)
    masks = [v for v in net.seen() if v.kind == "b" and v.shape == x.shape]
    mask = net.rng.choice(masks) if masks else net.make("Greater", [x, 0.0], "b", x.shape)
    return net.make("Where", [mask, x, net.like(x)], "f", x.shape)


@recipe(1.5)
def reduce(net: Net) -> Tensor:
    x, keep = net.pick("f", 1), net.rng.randint(0, 1)
    axis = net.rng.randrange(x.rank)
    shape = (*x.shape[:axis], *(("1",) if keep else ()), *x.shape[axis + 1 :])
    op = net.rng.choice(["ReduceSum", "ReduceSum", "ReduceL1", "CumSum"])
    if op == "CumSum":
        return clipped(net, net.make(op, [x, np.array(axis)], "f", x.shape))
    return clipped(net, net.make(op, [x, np.array([axis])], "f", shape, keepdims=keep))


@recipe(1)
def transpose(net: Net) -> Tensor:
    x = net.pick("fs", 2)
    order = list(range(x.rank))
    net.rng.shuffle(order)
    return net.make("Transpose", [x], x.kind, tuple(x.shape[a] for a in order), perm=order)


@recipe(1)
def product(net: Net) -> Tensor:
    x = net.pick("f", 2, 2)
    y = net.make("Transpose", [x], "f", x.shape[::-1], perm=[1, 0])
    return clipped(net, net.make("MatMul", [x, y], "f", (x.shape[0], x.shape[0])))


@recipe(1.5)
def concat(net: Net) -> Tensor:
    x = net.pick("fis", 1)
    y = net.like(x, same_axes=1)
    return net.make("Concat", [x, y], x.kind, (told(net), *x.shape[1:]), axis=0)


@recipe(1)
def number(net: Net) -> Tensor:
    x = net.pick("fis", 1)
    return net.size(x, net.rng.randrange(x.rank))


# ---------------------------------------------------------------- of sizes that a run tells


def small(net: Net) -> Any:
    """A number: computed, or given."""
    found = [v for v in net.seen() if v.kind == "i" and v.rank == 0]
    if found and net.rng.random() < 0.7:
        return net.rng.choice(found[-4:])
    return net.input("i", ())


def vector(net: Net, value: Any) -> str:
    return net.names("Reshape", [value, np.array([1])])[0]


@recipe(2)
def nonzero(net: Net) -> Tensor:
    x = net.pick("fb", 1, 2)
    places, tag = net.names("NonZero", [x])[0], told(net)
    if x.rank == 1 and net.rng.random() < 0.7:
        flat = net.names("Squeeze", [places, np.array([0])])[0]
        return net.make("Gather", [net.like(x, kinds="f") if x.kind == "f" else x, flat], x.kind, (tag,))
    picked = net.names("Transpose", [places], perm=[1, 0])[0]
    return net.make("GatherND", [x, picked], x.kind, (tag,))


@recipe(2)
def compress(net: Net) -> Tensor:
    x = net.pick("fis", 1)
    axis = net.rng.randrange(x.rank)
    masks = [v for v in net.seen() if v.kind == "b" and v.shape == (x.shape[axis],)]
    if masks and net.rng.random() < 0.7:
        mask = net.rng.choice(masks)
    else:
        count = net.names("Unsqueeze", [net.size(x, axis), np.array([0])])[0]
        ones = net.names("Expand", [net.pick("b", 0, 0), count])[0]
        mask = net.put(Tensor(ones, "b", (x.shape[axis],)))
    return net.make("Compress", [x, mask], x.kind, (*x.shape[:axis], told(net), *x.shape[axis + 1 :]), axis=axis)


@recipe(1)
def unique(net: Net) -> Tensor:
    x = net.pick("fi", 1, 2)
    if net.rng.random() < 0.6:
        values, _, back, _ = net.names("Unique", [x], 4, sorted=net.rng.randint(0, 1))
        tag = told(net)
        net.put(Tensor(values, x.kind, (tag,)))
        return net.make("Gather", [values, back], x.kind, (told(net),))
    return net.make("Unique", [x], x.kind, (told(net), *x.shape[1:]), axis=0)


@recipe(1)
def top_k(net: Net) -> Tensor:
    x = net.pick("f", 1)
    count = net.names("Min", [net.names("Abs", [small(net)])[0], net.size(x, x.rank - 1)])[0]
    values, _ = net.names("TopK", [x, vector(net, count)], 2)
    return net.put(Tensor(values, "f", (*x.shape[:-1], told(net))))


@recipe(2)
def slice_(net: Net) -> Tensor:
    x = net.pick("fis", 1)
    axis, step = net.rng.randrange(x.rank), net.rng.choice([1, 1, 1, 2, -1])
    given = [x, vector(net, small(net)), vector(net, small(net)), np.array([axis]), np.array([step])]
    return net.make("Slice", given, x.kind, (*x.shape[:axis], told(net), *x.shape[axis + 1 :]))


@recipe(1.5)
def reshape(net: Net) -> Tensor:
    x = net.pick("fs", 1)
    how = net.rng.choice(["flat", "last", "rows", "given"])
    if how == "flat":
        return net.make("Reshape", [x, np.array([-1])], x.kind, (told(net),))
    if how == "last":
        whole = net.names("Unsqueeze", [x, np.array([0])])[0]
        last = vector(net, net.size(x, x.rank - 1))
        shape = net.names("Concat", [np.array([-1]), last], axis=0)[0]
        return net.make("Reshape", [whole, shape], x.kind, (told(net), x.shape[-1]))
    front = vector(net, net.size(x, 0)) if how == "rows" else vector(net, small(net))
    shape = net.names("Concat", [front, np.array([-1])], axis=0)[0]
    return net.make("Reshape", [x, shape], x.kind, (x.shape[0] if how == "rows" else told(net), told(net)))


@recipe(1)
def range_(net: Net) -> Tensor:
    limit = net.names("Min", [small(net), np.array(9)])[0]
    made = net.make("Range", [np.array(0), limit, np.array(net.rng.choice([1, 1, 2]))], "i", (told(net),))
    return net.make("Cast", [made], "f", made.shape, to=1)


@recipe(1)
def expand(net: Net) -> Tensor:
    x, y = net.pick("fs", 0, 1), net.pick("f", 1, 1)
    shape = net.names("Concat", [vector(net, net.size(y, 0)), np.array([1] * x.rank, np.int64)], axis=0)[0]
    return net.make("Expand", [x, shape], x.kind, (y.shape[0], *x.shape))


@recipe(1)
def gather(net: Net) -> Tensor:
    """Places that may lie outside."""
    x = net.pick("fs", 1)
    found = [v for v in net.seen() if v.kind == "i" and v.rank == 1]
    places = net.rng.choice(found) if found else net.input("i", ("M",))
    return net.make("Gather", [x, places], x.kind, (places.shape[0], *x.shape[1:]), axis=0)


# ---------------------------------------------------------------- control flow


def condition(net: Net) -> Any:
    how = net.rng.choice(["input", "sum", "size", "number"])
    if how == "input":
        return net.input("b", ())
    if how == "sum":
        return net.make("Greater", [net.names("ReduceSum", [net.pick("f")], keepdims=0)[0], 0.0], "b", ())
    x = net.pick("f", 1)
    return net.make("Less", [net.size(x, 0) if how == "size" else small(net), np.array(net.rng.randint(0, 4))], "b", ())


def merged(net: Net, a: Shape, b: Shape) -> Shape:
    return tuple(x if x == y else told(net) for x, y in zip(a, b))


@recipe(2)
def if_(net: Net) -> None:
    if net.depth > 2:
        raise NothingFits
    test, arms = condition(net), [Net(net.rng, net), Net(net.rng, net)]
    for arm in arms:
        grow(arm, net.rng.randint(1, 3))
    pairs = []
    for _ in range(net.rng.randint(1, 2)):
        one = arms[0].pick("fis")
        found = [v for v in arms[1].seen() if v.kind == one.kind and v.rank == one.rank and v not in arms[0].tensors]
        if not found:
            raise NothingFits
        pairs.append((one, net.rng.choice(found[-4:])))
    then = arms[0].graph("then", [one for one, _ in pairs])
    orelse = arms[1].graph("else", [other for _, other in pairs])
    names = net.names("If", [test], len(pairs), then_branch=then, else_branch=orelse)
    for name, (one, other) in zip(names, pairs):
        net.put(Tensor(name, one.kind, merged(net, one.shape, other.shape)))


def _next(body: Net, state: Tensor, how: str, states: list[Tensor]) -> Tensor:
    """What a loop carries after a step."""
    if how == "grow":
        return body.make("Concat", [state, body.like(state, same_axes=1)], state.kind, state.shape, axis=0)
    if how == "shrink":
        ends = [np.array([1]), np.array([99]), np.array([0])]
        return body.make("Slice", [state, *ends], state.kind, state.shape)
    if how == "any":
        return body.rng.choice([v for v in body.seen() if v.kind == state.kind and v.rank == state.rank][-5:])
    same = [v for v in body.seen() if v.kind == state.kind and v.shape == state.shape]
    return body.rng.choice([v for v in states if v in same] if how == "swap" else same[-5:])


@recipe(3)
def loop(net: Net) -> None:
    if net.depth > 1:
        raise NothingFits
    rng = net.rng
    first = [net.pick("fis", 0, 2) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.4:
        first.append(net.like(first[0]))
    hows = [rng.choice(["same", "same", "swap", "any", *(["grow", "grow", "shrink"] if v.rank else [])]) for v in first]
    hows = ["swap" if how == "same" and rng.random() < 0.3 else how for how in hows]
    body = Net(rng, net)
    step, going = Tensor(body.fresh("i"), "i", ()), Tensor(body.fresh("g"), "b", ())
    states = []
    for value, how in zip(first, hows):
        changing = {"any": value.rank, "grow": 1, "shrink": 1}.get(how, 0)
        shape = (*(told(net) for _ in range(changing)), *value.shape[changing:])
        states.append(body.put(Tensor(body.fresh("s"), value.kind, shape)))
    body.put(step)
    rows = [r for r in net.seen_rows() if r.kind in "fi"][-1:] if rng.random() < 0.3 else []
    carried_rows = [Row(body.fresh("q"), r.kind, r.rank) for r in rows]
    body.rows += carried_rows
    grow(body, rng.randint(1, 4))
    after = [_next(body, state, how, states) for state, how in zip(states, hows)]
    rows_after = [longer(body, row) for row in carried_rows]
    test, trip = going, small(net)
    if rng.random() < 0.4:
        value = body.names("ReduceSum", [body.pick("f")], keepdims=0)[0]
        test = body.make("Less", [value, 3.0], "b", ())
    trip = rng.choice([net.names("Min", [trip, np.array(4)])[0], trip.name, net.size(net.pick("f", 1), 0).name])
    stable = [v for v in body.tensors if not any(t.startswith("t") for t in v.shape) or rng.random() < 0.1]
    stacked = [rng.choice(stable) for _ in range(rng.randint(0, 2)) if stable]
    graph = body.graph("body", [test, *after, *rows_after, *stacked], [step, going, *states, *carried_rows])
    start: Any = rng.choice(["", condition(net)])
    names = net.names("Loop", [trip, start, *first, *rows], len(after) + len(rows) + len(stacked), body=graph)
    for name, state, value in zip(names, states, first):
        net.put(Tensor(name, state.kind, merged(net, state.shape, value.shape)))
    for name, row in zip(names[len(after) :], rows):
        net.rows.append(Row(name, row.kind, row.rank))
    count = told(net)
    for name, value in zip(names[len(after) + len(rows) :], stacked):
        net.put(Tensor(name, value.kind, (count, *value.shape)))


def meet(net: Net) -> None:
    """Branches and loops whose results are added to inputs of declared sizes. For models of its own."""
    for _ in range(3):
        nodes, tensors = len(net.nodes), len(net.tensors)
        try:
            net.rng.choice([choose, repeat, if_, loop])(net)
        except NothingFits:
            del net.nodes[nodes:], net.tensors[tensors:]
    found = [v for v in net.tensors if v.kind == "f" and any(tag.startswith("t") for tag in v.shape) and v.rank < 3]
    for value in net.rng.sample(found, min(len(found), 3)):
        shape = tuple(net.rng.choice("NMK") if tag.startswith("t") else tag for tag in value.shape)
        net.make("Add", [value, net.input("f", shape)], "f", shape)


def choose(net: Net) -> None:
    """An If between two inputs, one of them perhaps doubled."""
    arms = [Net(net.rng, net), Net(net.rng, net)]
    for arm in arms:
        x = arm.pick("f", 1, 1)
        doubled = net.rng.random() < 0.3
        arm.make("Concat", [x, x], "f", (told(net),), axis=0) if doubled else arm.make("Neg", [x], "f", x.shape)
    then, orelse = (arm.graph(name, arm.tensors[-1:]) for arm, name in zip(arms, ("then", "else")))
    name = net.names("If", [net.input("b", ())], then_branch=then, else_branch=orelse)[0]
    net.put(Tensor(name, "f", (told(net),)))


def repeat(net: Net) -> None:
    """A loop that stacks a row in each step, and perhaps carries what becomes longer or is replaced."""
    body, x = Net(net.rng, net), net.pick("f", 1, 1)
    step, going = Tensor(body.fresh("i"), "i", ()), Tensor(body.fresh("g"), "b", ())
    state = body.put(Tensor(body.fresh("s"), "f", (told(net),)))
    how = net.rng.choice(["grow", "replace", "keep"])
    if how == "grow":
        after = body.make("Concat", [state, x], "f", state.shape, axis=0)
    else:
        after = body.make("Neg", [body.pick("f", 1, 1) if how == "replace" else state], "f", state.shape)
    row = net.rng.choice([x, body.make("Cast", [step], "f", (), to=1)])
    graph = body.graph("body", [going, after, row], [step, going, state])
    trip = net.rng.choice([net.input("i", ()).name, net.size(net.tensors[0], 0).name])
    carried, stacked = net.names("Loop", [trip, "", x], 2, body=graph)
    net.put(Tensor(carried, "f", (told(net),)))
    net.put(Tensor(stacked, "f", (told(net), *row.shape)))


@recipe(1)
def scan(net: Net) -> None:
    if net.depth > 1:
        raise NothingFits
    x, state = net.pick("f", 1, 2), net.pick("f", 0, 1)
    axis, body = net.rng.randrange(x.rank), Net(net.rng, net)
    inner = [
        Tensor(body.fresh("s"), "f", state.shape),
        Tensor(body.fresh("e"), "f", x.shape[:axis] + x.shape[axis + 1 :]),
    ]
    body.tensors += inner
    grow(body, net.rng.randint(1, 3))
    after = net.rng.choice([v for v in body.seen() if v.kind == "f" and v.shape == state.shape][-4:])
    row = body.pick("f", 0, 2)
    graph = body.graph("body", [after, row], inner)
    flip, place = net.rng.randint(0, 1), net.rng.randint(0, row.rank)
    names = net.names(
        "Scan", [state, x], 2, body=graph, num_scan_inputs=1, scan_input_axes=[axis],
        scan_input_directions=[net.rng.randint(0, 1)], scan_output_axes=[place], scan_output_directions=[flip],
    )  # fmt: skip
    net.put(Tensor(names[0], "f", state.shape))
    net.put(Tensor(names[1], "f", (*row.shape[:place], x.shape[axis], *row.shape[place:])))


# ---------------------------------------------------------------- sequences, strings


def _row(net: Net) -> Row:
    found = net.seen_rows()
    return net.rng.choice(found[-4:]) if found else construct(net)


def _element(net: Net, row: Row) -> Tensor:
    found = [v for v in net.seen() if v.kind == row.kind and v.rank == row.rank]
    if not found:
        raise NothingFits
    return net.rng.choice(found[-4:])


def longer(net: Net, row: Row) -> Row:
    """The sequence with one more element."""
    at = [small(net)] if net.rng.random() < 0.4 else []
    return Row(net.names("SequenceInsert", [row, _element(net, row), *at])[0], row.kind, row.rank)


@recipe(1)
def construct(net: Net) -> Row:
    x = net.pick("fis", 0, 2)
    parts = [x, *(_element(net, Row("", x.kind, x.rank)) for _ in range(net.rng.randint(0, 2)))]
    net.rows.append(Row(net.names("SequenceConstruct", parts)[0], x.kind, x.rank))
    return net.rows[-1]


@recipe(1)
def split(net: Net) -> None:
    x = net.pick("fs", 1, 2)
    axis, keep = net.rng.randrange(x.rank), net.rng.randint(0, 1)
    sizes: Any = net.rng.choice([np.array(1), np.array(2), small(net)]) if keep else np.array(1)
    name = net.names("SplitToSequence", [x, sizes], axis=axis, keepdims=keep)[0]
    net.rows.append(Row(name, x.kind, x.rank if keep else x.rank - 1))


@recipe(1)
def change(net: Net) -> None:
    row = _row(net)
    if net.rng.random() < 0.6:
        net.rows.append(longer(net, row))
    else:
        at = [small(net)] if net.rng.random() < 0.5 else []
        net.rows.append(Row(net.names("SequenceErase", [row, *at])[0], row.kind, row.rank))


@recipe(2)
def take(net: Net) -> Tensor:
    row = _row(net)
    how = net.rng.choice(["at", "at", "length", "join", "stack"])
    if how == "length":
        return net.make("SequenceLength", [row], "i", ())
    if how == "at":
        at = net.rng.choice([small(net), np.array(0), np.array(-1)])
        return net.make("SequenceAt", [row, at], row.kind, tuple(told(net) for _ in range(row.rank)))
    if how == "join" and row.rank == 0:
        raise NothingFits
    shape = tuple(told(net) for _ in range(row.rank + (how == "stack")))
    return net.make("ConcatFromSequence", [row], row.kind, shape, axis=0, new_axis=int(how == "stack"))


@recipe(0.7)
def map_(net: Net) -> None:
    row = _row(net)
    if row.kind != "f" or net.depth > 1:
        raise NothingFits
    body = Net(net.rng, net)
    element = Tensor(body.fresh("e"), "f", tuple(told(net) for _ in range(row.rank)))
    body.put(element)
    result = body.make("Abs", [element], "f", element.shape)
    grow(body, net.rng.randint(0, 2))
    result = net.rng.choice([v for v in body.tensors if v.kind == "f"] or [result])
    graph = body.graph("body", [result], [element])
    net.rows.append(Row(net.names("SequenceMap", [row], body=graph)[0], "f", result.rank))


@recipe(1)
def strings(net: Net) -> Tensor:
    x = net.pick("s", 0, 2)
    how = net.rng.choice(["StringConcat", "StringConcat", "Equal", "Where"])
    if how == "Equal":
        return net.make("Equal", [x, net.like(x)], "b", x.shape)
    if how == "Where":
        mask = net.make("Equal", [x, net.like(x)], "b", x.shape)
        return net.make("Where", [mask, x, net.like(x)], "s", x.shape)
    return net.make("StringConcat", [x, net.like(x)], "s", x.shape)
