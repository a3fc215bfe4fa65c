"""lower: from a graph of ops to a program of kernels on buffers.

Each op (or fused group) becomes a loop nest: its `element` rule inside loops over the output, or the nest its `kernel`
writes. Reductions become accumulators. Kernels of equal structure are one kernel. Nothing is scheduled or placed here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

from compiler.errors import UnsupportedError
from compiler.passes.fuse import is_view
from compiler.pipeline import lower_pass
from ir import types as t
from ir.dims import Dim, Size, bounded, names, symbol, upper_bound
from ir.element import KernelBuilder, Names, Output, Tensor, buffer_tensor, identity, naming
from ir.expr import Expr, Index, Reduce, Var, children, loop_var, transform
from ir.graph import Graph, Node, Value
from ir.kernel import Assign, Buffer, For, Kernel, Stmt, Store, Variable, canonical, fingerprint, rename
from ir.op import operand_names
from ir.ops.fused import structure_of
from ir.program import Branch, Call, Program, ProgramBuffer, Step
from ir.schedule import SUFFIXES
from ir.types import TensorType

_LETTERS = {1: "i", 2: "i j", 3: "i j k", 4: "n c h w", 5: "n c d h w"}


@lower_pass
def lower(graph: Graph) -> Program:
    """The program of a graph whose ops are all tensors-to-tensors (and `if_`), legalised for a backend."""
    program = Program(graph.name, bounds=dict(graph.bounds), equal_dims=list(graph.equal_dims))
    program.demanded_by, program.strings = dict(graph.demanded_by), graph.strings
    _check_tensors(graph)
    state = _Lowering(program)
    with bounded(graph.bounds):
        for value, name in zip(graph.inputs, [v.name for v in graph.inputs]):
            state.buffer(value, "input")
            program.inputs.append(state.of[value])
            program.input_names.append(name)
        state.claim_outputs(graph)
        program.steps = state.nodes(graph)
        state.finish_outputs(graph, program.steps)
    return program


def _check_tensors(graph: Graph) -> None:
    """Raises UnsupportedError for an input or output of the model that is a sequence or an optional."""
    named = [("input", v.name, v) for v in graph.inputs]
    named += [("output", name, v) for name, v in zip(graph.output_names, graph.outputs)]
    for kind, name, value in named:
        if not isinstance(value.type, TensorType):
            raise UnsupportedError("E0410", f"{kind} '{name}' is {value.type}; compiled programs work on tensors only")


@dataclass
class _Lowering:
    program: Program
    of: dict[Value, str] = field(default_factory=dict)
    kernels: dict[Hashable, tuple[Kernel, dict[str, str]]] = field(default_factory=dict)
    kernel_names: Names = field(default_factory=Names)
    buffer_names: Names = field(default_factory=Names)
    outputs: dict[Value, str] = field(default_factory=dict)
    made: dict[Hashable, tuple[tuple[Kernel, tuple[Size, ...]], tuple[int, ...]]] = field(default_factory=dict)

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
            if node is not None and value.blob is None and not is_view(node) and value not in self.outputs:
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
            elif is_view(node) and node.inputs[0] is not None:
                self.buffer(node.output, "view", base=self.operand(node.inputs[0]))
            else:
                steps.append(self.node(node))
        return steps

    def operand(self, value: Value) -> str:
        if value not in self.of:
            self.buffer(value, "weight")
        return self.of[value]

    def result(self, value: Value) -> str:
        place = "output" if value in self.outputs else "arena"
        return self.buffer(value, place)

    def node(self, node: Node) -> Call:
        key = _key_of(node)
        made = self.made.get(key)
        values = [v for v in dict.fromkeys(node.inputs) if v is not None]
        if made is None:
            kernel, operands = kernel_of(node)
            made = (self.shared(kernel), tuple(values.index(v) for v in operands))
            self.made[key] = made
        (kernel, sizes), positions = made
        args = tuple(self.operand(values[position]) for position in positions)
        results = tuple(self.result(v) for v in node.outputs)
        return Call(kernel, args + results, sizes, node.sources)

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
            for value, result in zip(body.outputs, results):
                steps.append(self.copy(self.operand(value), result, value.tensor, node.sources))
            arms.append(tuple(steps))
            demands.append(tuple(pair for pair in body.equal_dims if pair not in self.program.equal_dims))
        return Branch(self.operand(condition), arms[0], arms[1], node.sources, *demands)


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
    body = getattr(node.op, "body", None)
    if node.op.name == "fused" and body is not None:
        found = []
        for value in body.inputs:
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
    body = getattr(node.op, "body", None)
    if node.op.name != "fused" or body is None:
        return node.op.name
    words = [n.op.name for n in body.nodes() if n.op.name not in ("const", "reshape", "broadcast_to", "cast")]
    short = list(dict.fromkeys(words))[:5]
    return re.sub(r"\W", "_", "_".join(short)) or "move"


def _index_names(node: Node) -> list[str]:
    """Names for the output's index variables."""
    rank = node.outputs[0].rank
    body = getattr(node.op, "body", None)
    ops = [n.op for n in body.nodes()] if node.op.name == "fused" and body is not None else [node.op]
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
