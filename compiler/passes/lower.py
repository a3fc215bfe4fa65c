"""lower: from a graph of ops to a program of kernels on buffers.

Each op (or fused group) becomes a loop nest: its `element` rule inside loops over the output, or the nest its `kernel`
writes. Reductions become accumulators. Kernels of equal structure are one kernel. Nothing is scheduled or placed here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from compiler.errors import UnsupportedError
from compiler.passes.fuse import is_view
from compiler.passes.limits import forget_unbound, limits_known, limits_of
from compiler.pipeline import lower_pass
from ir import types as t
from ir.blob import ArrayBlob
from ir.demand import Pair
from ir.dims import Dim, Limits, Size, bounded, minimum, names, symbol, symbol_of, upper_bound
from ir.element import Alignment, KernelBuilder, Names, Output, Tensor, aligned, buffer_tensor, const, identity, naming
from ir.expr import Expr, Index, Reduce, Var, children, loop_var, transform
from ir.graph import Graph, Node, Value
from ir.kernel import Assign, Buffer, For, Kernel, Stmt, Store, Variable, canonical, fingerprint, rename
from ir.op import operand_names
from ir.ops.control import Loop
from ir.ops.fused import Fused, FusedKernel, structure_of
from ir.program import Bind, Branch, Call, Program, ProgramBuffer, Repeat, Step, told_by
from ir.schedule import SUFFIXES
from ir.types import TensorType

_ENDLESS = 1 << 59
"""A limit for the number of steps of a loop that nothing bounds and that stacks nothing."""
_LETTERS = {1: "i", 2: "i j", 3: "i j k", 4: "n c h w", 5: "n c d h w"}


@lower_pass
def lower(graph: Graph) -> Program:
    """The program of a graph whose ops are all tensors-to-tensors (and `if_` and `loop`), legalised for a backend."""
    program = Program(graph.name, bounds=dict(graph.bounds), equal_dims=list(graph.equal_dims))
    program.demanded_by, program.kinds = dict(graph.demanded_by), dict(graph.kinds)
    _check_tensors(graph)
    with bounded(graph.bounds):
        state = _Lowering(program, limits=limits_known(graph))
        for value, name in zip(graph.inputs, [v.name for v in graph.inputs]):
            state.buffer(value, "input")
            program.inputs.append(state.of[value])
            program.input_names.append(name)
        state.claim_outputs(graph)
        steps = state.nodes(graph)
        state.finish_outputs(graph, steps)
        program.steps = [*state.first, *steps]
        forget_unbound(program, state.limits.keys())
        program.limits = limits_of(program, state.limits)
    return program


def _check_tensors(graph: Graph) -> None:
    """Raises UnsupportedError for an input or output of the model that is a sequence or an optional."""
    named = [("input", v.name, v) for v in graph.inputs]
    named += [("output", name, v) for name, v in zip(graph.output_names, graph.outputs)]
    for kind, name, value in named:
        if not isinstance(value.type, TensorType):
            raise UnsupportedError("E0410", f"{kind} '{name}' is {value.type}; compiled programs work on tensors only")


Version: TypeAlias = tuple[Kernel, tuple[Size, ...], tuple[int, ...]]


@dataclass
class _Lowering:
    program: Program
    of: dict[Value, str] = field(default_factory=dict)
    kernels: dict[Hashable, tuple[Kernel, dict[str, str]]] = field(default_factory=dict)
    kernel_names: Names = field(default_factory=Names)
    buffer_names: Names = field(default_factory=Names)
    outputs: dict[Value, str] = field(default_factory=dict)
    made: dict[Hashable, tuple[list[Version], tuple[Pair, ...]]] = field(default_factory=dict)
    agreements: dict[tuple[Pair, ...], str] = field(default_factory=dict)
    first: list[Step] = field(default_factory=list)
    limits: Limits[Size | None] = field(default_factory=lambda: Limits())
    size_names: Names = field(default_factory=Names)

    def buffer(self, value: Value, place: str, base: str | None = None) -> str:
        """Makes the program buffer of a value."""
        name = self.buffer_names.fresh(value.name)
        self.program.buffers[name] = ProgramBuffer(name, value.tensor, place, blob=value.blob, base=base)  # type: ignore[arg-type]
        self.of[value] = name
        return name

    def claim_outputs(self, graph: Graph) -> None:
        """Values that can be written to the caller's memory at once; the others are copied at the end."""
        for value in graph.outputs:
            node = value.node
            is_written = node is not None and value.blob is None and not is_view(node) and node.op.name != "loop"
            if is_written and value not in self.outputs:
                self.outputs[value] = ""

    def finish_outputs(self, graph: Graph, steps: list[Step]) -> None:
        taken: set[str] = set()
        for value, public in zip(graph.outputs, graph.output_names):
            name = self.operand(value)
            if self.program.buffers[name].place != "output" or name in taken:
                copy = self.buffer_names.fresh(f"{public}.out")
                self.program.buffers[copy] = ProgramBuffer(copy, value.tensor, "output")
                steps.append(self.copy(name, copy, value.tensor, (public,)))
                name = copy
            taken.add(name)
            self.program.outputs.append(name)
            self.program.output_names.append(public)

    def copy(self, source: str, target: str, type_: TensorType, sources: tuple[str, ...]) -> Call:
        flat = type_.with_shape((type_.elements,))
        names_ = Names(sorted(names(type_.elements)))
        x, y = names_.fresh("x"), names_.fresh("y")
        k = KernelBuilder(names_)
        with k.loop("parallel", i=type_.elements) as i:
            k.store(Output(y, flat), (i,), buffer_tensor(x, flat).at(i))
        kernel = Kernel("copy", (Buffer(x, flat), Buffer(y, flat, "out")), k.body)
        return self.call(kernel, (source, target), sources)

    def nodes(self, graph: Graph) -> list[Step]:
        steps: list[Step] = []
        for node in graph.nodes():
            if node.op.name == "const":
                continue
            if node.op.name == "if_":
                steps.append(self.branch(node))
            elif node.op.name == "loop":
                steps += self.loop(node)
            elif is_view(node) and node.inputs[0] is not None:
                self.buffer(node.output, "view", base=self.operand(node.inputs[0]))
                steps += self.bindings(node)
            else:
                steps += self.bindings(node)
                steps.append(self.node(node))
        return steps

    def bindings(self, node: Node) -> list[Step]:
        """What gives the sizes that an op defines their values: its last operands."""
        if not node.op.defines:
            return []
        sizes = node.op.sizes_defined()
        counts = node.inputs[len(node.inputs) - len(sizes) :]
        pairs = tuple((size, self.operand(count)) for size, count in zip(sizes, counts) if count is not None)
        return [Bind(pairs, sources=node.sources, may_refuse=node.op.may_refuse)]

    def operand(self, value: Value) -> str:
        if value not in self.of:
            self.buffer(value, "weight")
        return self.of[value]

    def result(self, value: Value) -> str:
        place = "output" if value in self.outputs else "arena"
        name = self.buffer(value, place)
        self.program.buffers[name].blocked = 0 if value.node is None else type(value.node.op).blocked
        return name

    def node(self, node: Node) -> Step:
        """The call of a node's kernel; where an operand's last axis may turn out to be 1, one of two kernels."""
        key = _key_of(node)
        made = self.made.get(key)
        if made is None:
            with aligned(Alignment(self.program.equal_dims, True, self.limits)) as alignment:
                versions = [self.version(node)]
            if alignment.assumed:
                with aligned(Alignment(self.program.equal_dims)):
                    versions.append(self.version(node))
            made = self.made[key] = versions, tuple(alignment.assumed)
        versions, assumed = made
        values = _operands(node)
        results = tuple(self.result(v) for v in node.outputs)
        calls = [
            Call(kernel, (*(self.operand(values[i]) for i in positions), *results), sizes, node.sources)
            for kernel, sizes, positions in versions
        ]
        if not assumed:
            return calls[0]
        return Branch(self.agreement(assumed, node.sources), (calls[0],), (calls[1],), node.sources)

    def version(self, node: Node) -> Version:
        """A node's kernel, what sizes to call it with, and which of the node's operands it takes."""
        kernel, operands = kernel_of(node)
        values = _operands(node)
        return *self.shared(kernel), tuple(values.index(v) for v in operands)

    def agreement(self, pairs: tuple[Pair, ...], sources: tuple[str, ...]) -> str:
        """The buffer that says whether sizes are equal; the step that fills it is one of the first."""
        if pairs not in self.agreements:
            truth = TensorType(t.bool_, ())
            name = self.buffer_names.fresh("sizes_agree")
            self.program.buffers[name] = ProgramBuffer(name, truth, "arena")
            names_ = Names(sorted(n for pair in pairs for size in pair for n in names(size)))
            y, k = Output(names_.fresh("y"), truth), KernelBuilder(names_)
            agree: Expr = const(True, t.bool_)
            for a, b in pairs:
                agree = agree & Index(t.i64, a).equals(Index(t.i64, b))
            k.store(y, (), agree)
            kernel = Kernel("sizes_agree", (Buffer(y.name, truth, "out"),), k.body)
            self.first.append(self.call(kernel, (name,), sources))
            self.agreements[pairs] = name
        return self.agreements[pairs]

    def call(self, kernel: Kernel, args: tuple[str, ...], sources: tuple[str, ...]) -> Call:
        first, sizes = self.shared(kernel)
        return Call(first, args, sizes, sources)

    def shared(self, kernel: Kernel) -> tuple[Kernel, tuple[Size, ...]]:
        """The kernel, or an equal one made earlier; and the sizes to call that with. Kernels whose sizes have other
        bounds are not equal: later passes rely on the bounds."""
        form, mapping = canonical(kernel)
        bounds = tuple(sorted((mapping[name], self.program.bounds.get(name)) for name in kernel.sizes))
        key = (fingerprint(form), bounds)
        if key not in self.kernels:
            taken = Names([*mapping])
            others = {size: taken.fresh(f"{size}_") for size in kernel.sizes if size.endswith(SUFFIXES)}
            plain = rename(kernel, others) if others else kernel
            named = Kernel(self.kernel_names.fresh(kernel.name), plain.params, plain.body)
            self.kernels[key] = (named, {new: others.get(old, old) for old, new in mapping.items()})
        first, back = self.kernels[key]
        own = {back[new]: old for old, new in mapping.items() if new in back}
        return first, tuple(symbol(own[name]) for name in first.sizes)

    def branch(self, node: Node) -> Branch:
        condition, *captures = node.inputs
        assert condition is not None
        results = [self.result(v) for v in node.outputs]
        arms: list[tuple[Step, ...]] = []
        demands: list[tuple[tuple[Size, Size], ...]] = []
        taken = 0
        for body in (node.op.then, node.op.orelse):  # type: ignore[attr-defined]
            count = len(body.inputs)
            for inner, outer in zip(body.inputs, captures[taken : taken + count]):
                assert outer is not None
                self.of[inner] = self.operand(outer)
            taken += count
            steps = self.nodes(body)
            copies = [(self.operand(value), result) for value, result in zip(body.outputs, results)]
            steps += self.bind(_differing(node.outputs, body.outputs), copies, node)
            arms.append(tuple(steps))
            demands.append(self.demands(body, steps))
        return Branch(self.operand(condition), arms[0], arms[1], node.sources, *demands)

    def demands(self, body: Graph, steps: Sequence[Step]) -> tuple[tuple[Size, Size], ...]:
        """What a nested graph demands of sizes where it runs. What it demands of sizes that its own steps tell is held
        against the program, which checks that as soon as they are told."""
        inner = told_by(steps) & body.limits.keys()
        found = [pair for pair in body.equal_dims if pair not in self.program.equal_dims]
        late = [pair for pair in found if (names(pair[0]) | names(pair[1])) & inner]
        self.program.equal_dims += late
        return tuple(pair for pair in found if pair not in late)

    def loop(self, node: Node) -> list[Step]:
        """A loop over a nested graph: values that it carries live in buffers of their own, which each step reads and
        then writes; what it stacks is written row by row."""
        op_ = node.op
        assert isinstance(op_, Loop)
        trip, condition, *values = node.inputs
        number, going, *inner = op_.body.inputs
        states, first = inner[: op_.carried], [v for v in values[: op_.carried] if v is not None]
        for value, outer in zip(inner[op_.carried :], values[op_.carried :]):
            assert outer is not None
            self.of[value] = self.operand(outer)
        copies = [(self.operand(value), self.buffer(state, "arena")) for state, value in zip(states, first)]
        stops = condition is not None or not op_.runs_to_the_end()
        if stops or going.is_used():
            start = self.operand(condition) if condition is not None else self.constant(np.array(True), "true")
            copies.append((start, self.buffer(going, "arena")))
        counter = self.size_names.fresh(f"{op_.label}.step")
        stacked = [self.buffer(value, "arena") for value in node.outputs[op_.carried :]]
        most = self.limits.get(op_.total) if op_.steps is None else op_.steps
        self.limits[counter] = symbol(op_.total) if most is None and stacked else _ENDLESS if most is None else most
        steps = self.bind(_differing(states, first), copies, node)
        told = self.told_of_rows(node)
        memory: list[tuple[Size, Size]] = [(size, 0) for size in told]
        if op_.steps is None and stacked:
            memory.append((symbol(op_.total), 0 if most is None else most))  # rows are as far apart as ever
        steps += [Bind(tuple(memory), (), node.sources, settled=False, reserves=True)] if memory else []
        body = self.loop_body(node, counter, number, stops)
        demands = self.demands(op_.body, body)
        trips = None if trip is None else self.operand(trip)
        steps.append(Repeat(counter, trips, self.of[going] if stops else None, tuple(body), node.sources, demands))
        pairs = [*_differing(node.outputs[: op_.carried], states), *zip(told, told)]
        if op_.steps is None and stacked:
            pairs.append((symbol(op_.total), symbol(counter)))
        for value, state in zip(node.outputs, states):
            self.buffer(value, "view", base=self.of[state])
        return steps + self.bind(pairs, [], node)

    def loop_body(self, node: Node, counter: str, number: Value, stops: bool) -> list[Step]:
        """The steps of one turn of a loop: what it computes, rows of what is stacked, the next values it carries."""
        op_ = node.op
        assert isinstance(op_, Loop)
        steps: list[Step] = []
        if number.is_used():
            steps.append(self.call(_counting(counter), (self.buffer(number, "arena"),), node.sources))
        steps += self.nodes(op_.body)
        again, *results = op_.body.outputs
        after, rows = results[: op_.carried], results[op_.carried :]
        outs = node.outputs[op_.carried :]
        pairs = [pair for out, row in zip(outs, rows) for pair in _differing_shapes(out.shape[1:], row.shape)]
        later, told = minimum(symbol(counter), 1), self.told_of_rows(node)
        # Each row is as long as the first.
        same: list[tuple[Size, Size]] = [(later * (size - own), 0) for size, own in pairs if size in told]
        steps += self.bind(same, [], node)
        steps += self.bind(pairs, [], node, settled=False)
        for out, row in zip(outs, rows):
            if out.tensor.elements == 0:
                continue  # there is no step, or a row has no elements
            kernel = _row_kernel(row.tensor, out.tensor, counter)
            steps.append(self.call(kernel, (self.operand(row), self.of[out]), node.sources))
        _, going, *inner = op_.body.inputs
        states = inner[: op_.carried]
        copies = self.carry([*([going] if stops else []), *states], [*([again] if stops else []), *after])
        return steps + self.bind(_differing(states, after), copies, node, settled=False)

    def told_of_rows(self, node: Node) -> list[Size]:
        """The sizes of what a loop stacks that only its steps tell."""
        op_ = node.op
        assert isinstance(op_, Loop)
        outs, rows = node.outputs[op_.carried :], op_.body.outputs[1 + op_.carried :]
        pairs = [pair for out, row in zip(outs, rows) for pair in _differing_shapes(out.shape[1:], row.shape)]
        return list(dict.fromkeys(size for size, _ in pairs if symbol_of(size) in self.limits))

    def carry(self, states: list[Value], after: list[Value]) -> list[tuple[str, str]]:
        """Copies of the values after a step into the buffers of those before it, as if all were made at once."""
        own = {self.of[state] for state in states}
        early: list[tuple[str, str]] = []
        late: list[tuple[str, str]] = []
        for state, value in zip(states, after):
            source = self.operand(value)
            root = self.program.root(source).name
            if root == self.of[state]:
                continue
            if root in own:
                kept = self.buffer_names.fresh(f"{value.name}.kept")
                self.program.buffers[kept] = ProgramBuffer(kept, value.tensor, "arena")
                early.append((source, kept))
                source = kept
            late.append((source, self.of[state]))
        return early + late

    def bind(
        self, pairs: list[tuple[Size, Size]], copies: list[tuple[str, str]], node: Node, *, settled: bool = True
    ) -> list[Step]:
        """The step that gives sizes other sizes as their values, and copies; none where there is nothing to do."""
        if not pairs and not copies:
            return []
        return [Bind(tuple(dict.fromkeys(pairs)), tuple(copies), node.sources, settled=settled)]

    def constant(self, array: np.ndarray, hint: str) -> str:
        """The buffer of a constant."""
        name, blob = self.buffer_names.fresh(hint), ArrayBlob(array)
        self.program.buffers[name] = ProgramBuffer(name, TensorType(blob.dtype, blob.shape), "weight", blob=blob)
        return name


def _differing(to: Sequence[Value], of: Sequence[Value]) -> list[tuple[Size, Size]]:
    """The sizes of the first values that the second tell, where they are other sizes."""
    return [pair for a, b in zip(to, of) for pair in _differing_shapes(a.shape, b.shape)]


def _differing_shapes(to: Sequence[Size], of: Sequence[Size]) -> list[tuple[Size, Size]]:
    return [(a, b) for a, b in zip(to, of) if a != b]


def _counting(counter: str) -> Kernel:
    """A kernel that stores the number of a loop's step."""
    y = Output("y", TensorType(t.i64, ()))
    k = KernelBuilder(Names([counter, "y"]))
    k.store(y, (), Index(t.i64, symbol(counter)))
    return Kernel("step_number", (Buffer("y", y.type, "out"),), k.body)


def _row_kernel(row: TensorType, stacked: TensorType, counter: str) -> Kernel:
    """A kernel that stores a row of a tensor that a loop stacks. The tensor is seen as one axis: a step that writes
    some of its rows leaves the others as they are."""
    source, target = row.with_shape((row.elements,)), stacked.with_shape((stacked.elements,))
    names_ = Names(sorted({counter, *names(row.elements), *names(stacked.elements)}))
    x, y = names_.fresh("x"), names_.fresh("y")
    k = KernelBuilder(names_)
    with k.loop("parallel", i=row.elements) as i:
        k.store(Output(y, target), (Index(t.i64, symbol(counter) * row.elements) + i,), buffer_tensor(x, source).at(i))
    return Kernel("stack_row", (Buffer(x, source), Buffer(y, target, "out")), k.body)


def _operands(node: Node) -> list[Value]:
    """The distinct operands of a node that are there."""
    return [v for v in dict.fromkeys(node.inputs) if v is not None]


def _key_of(node: Node) -> Hashable:
    """Equal for nodes that become equal kernels: networks repeat their layers, and a kernel is made once."""
    order = {value: n for n, value in enumerate(dict.fromkeys(node.inputs))}
    operands = tuple(v and (order[v], v.type, v.blob is not None) for v in node.inputs)
    return (structure_of(node.op), operands, tuple(v.type for v in node.outputs))


def kernel_of(node: Node) -> tuple[Kernel, list[Value]]:
    """The unscheduled kernel of a node, and the values for its input parameters, in order."""
    names_ = Names(sorted(_sizes_in(node)))
    operands: dict[Value, str] = {}
    hints = _hints(node)
    tensors: list[Tensor | None] = []
    for value, hint in zip(node.inputs, hints):
        if value is None:
            tensors.append(None)
            continue
        if value not in operands:
            operands[value] = names_.fresh(hint)
        tensors.append(buffer_tensor(operands[value], value.tensor))
    outs = [
        names_.fresh(hint)
        for hint in (["y"] if len(node.outputs) == 1 else [f"y{i}" for i in range(len(node.outputs))])
    ]
    outputs = tuple(Output(name, v.tensor) for name, v in zip(outs, node.outputs))
    k = KernelBuilder(names_)
    with naming(names_):
        if type(node.op).has("kernel"):
            node.op.kernel(k, outputs, *tensors)
        else:
            _element_loops(k, node, outputs[0], tensors)
    params = [Buffer(name, v.tensor, "const" if v.blob is not None else "in") for v, name in operands.items()]
    params += [Buffer(o.name, o.type, "out") for o in outputs]
    return Kernel(_kernel_name(node), tuple(params), k.body), list(operands)


def _sizes_in(node: Node) -> set[str]:
    """The symbolic sizes in a node's types and attributes, those inside of a fused group included."""
    found = {n for v in (*node.inputs, *node.outputs) if v is not None for s in v.shape for n in names(s)}
    for value in node.op.attributes().values():
        if isinstance(value, Graph):
            found.update(n for inner in value.nodes() for n in _sizes_in(inner))
        for size in value if isinstance(value, tuple) else (value,):
            found |= names(size) if isinstance(size, Dim) else set()
    return found


def _hints(node: Node) -> list[str]:
    if isinstance(node.op, (Fused, FusedKernel)):
        found = []
        for value in node.op.body.inputs:
            user = next(iter(value.users), None)
            found.append(_operand_hint(user, value) if user is not None else "x")
        return found
    given = operand_names(type(node.op))
    hints = []
    for position in range(len(node.inputs)):
        name = given[min(position, len(given) - 1)] if given else "x"
        hints.append(name.removeprefix("*").removesuffix("s") if name.startswith("*") else name)
    return hints


def _operand_hint(user: Node, value: Value) -> str:
    given = operand_names(type(user.op))
    position = user.inputs.index(value)
    name = given[min(position, len(given) - 1)] if given else "x"
    return "x" if name.startswith("*") else name


def _kernel_name(node: Node) -> str:
    if not isinstance(node.op, (Fused, FusedKernel)):
        return node.op.name
    words = [n.op.name for n in node.op.body.nodes() if n.op.name not in ("const", "reshape", "broadcast_to", "cast")]
    short = list(dict.fromkeys(words))[:5]
    return re.sub(r"\W", "_", "_".join(short)) or "move"


def _index_names(node: Node) -> list[str]:
    """Names for the output's index variables."""
    rank = node.outputs[0].rank
    ops = [n.op for n in node.op.body.nodes()] if isinstance(node.op, (Fused, FusedKernel)) else [node.op]
    given = next((op.index_names.split() for op in ops if op.index_names), [])
    letters = given[-rank:] if rank and len(given) >= rank else _LETTERS.get(rank, "").split()
    return letters if len(letters) == rank else [f"i{axis}" for axis in range(rank)]


def _element_loops(k: KernelBuilder, node: Node, out: Output, tensors: list[Tensor | None]) -> None:
    """Loops over the output around its element rule. An axis of size 1 has no loop."""
    hints = _index_names(node)
    variables: list[tuple[str, Size]] = []
    index: list[Expr] = []
    for hint, size in zip(hints, out.shape):
        if size == 1:
            index.append(Index(t.i64, 0))
            continue
        name = k.names.fresh(hint)
        variables.append((name, size))
        index.append(loop_var(name))
    ranges = {
        name: (0, None if (top := upper_bound(size)) is None else max(0, int(top) - 1)) for name, size in variables
    }
    with bounded(ranges):
        value = node.op.element(tuple(index), *tensors)
        stmts, value = bind_reductions(value, k.names)
    body: tuple[Stmt, ...] = (*stmts, Store(out.name, tuple(index), value))
    for position, (name, size) in reversed(list(enumerate(variables))):
        body = (For(name, size, body, "parallel" if position == 0 else ""),)
    for stmt in body:
        k._add(stmt)


def bind_reductions(value: Expr, names_: Names) -> tuple[list[Stmt], Expr]:
    """Statements that compute the reductions of an expression into accumulators, and the expression of those."""
    stmts: list[Stmt] = []
    done: dict[Expr, Expr] = {}

    def outermost(expr: Expr) -> list[Reduce]:
        found: dict[Reduce, None] = {}
        stack, seen = [expr], set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, Reduce):
                found[node] = None
            else:
                stack.extend(children(node))
        return list(found)

    for reduce in outermost(value):
        acc = names_.fresh("acc")
        inner, body = bind_reductions(reduce.body, names_)
        nest: tuple[Stmt, ...] = (*inner, Assign(acc, body, reduce.function))
        for name, extent in reversed(reduce.axes):
            nest = (For(name, extent, nest),)
        stmts += [Variable(acc, identity(reduce.function, reduce.dtype)), *nest]
        done[reduce] = Var(reduce.dtype, acc)
    if not done:
        return stmts, value
    return stmts, transform(value, lambda e: done.get(e))


__all__ = ["bind_reductions", "kernel_of", "lower"]
