"""Single kernels cut out of a model, in several forms, as one program that is timed call by call.

Before each form memory is read that pushes weights out of the nearer caches, and then its operands are written, as the
kernel before it in the model does: weights are as far away as they are there, operands as near.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.feeds import random_array
from compiler.passes.fuse import is_elementwise
from compiler.pipeline import PASSES, run_pass
from ir.build import Builder
from ir.dims import Dim, Size, dim_text, evaluate, names, substitute, symbol
from ir.graph import Graph, Node, Value
from ir.parse import parse_kernel
from ir.program import Call, Program, ProgramBuffer, Repeat, Step
from ir.types import TensorType, tensor

_LEAST_RUNS = 10
_MOST_RUNS = 200
_LINE_FLOATS = 16
_SWEPT = "memory read between"
_MOST_FOLLOWING = 4


@dataclass(frozen=True)
class Trial:
    """A program that runs several forms of a kernel in order. `calls` are the positions of each form's calls."""

    program: Program
    calls: tuple[range, ...]


def cut_call(program: Program, name: str) -> Program | None:
    """The first call of a kernel alone: what it reads are inputs, and what it writes are outputs. None where its sizes
    are told by a run only."""
    call = next(call for call in program.calls() if call.kernel.name == name)
    made = Program(name, bounds=dict(program.bounds), equal_dims=list(program.equal_dims))
    for buffer, arg in zip(call.kernel.params, call.args):
        found = program.buffers[arg]
        if program.root(arg).place == "weight":
            _keep_weight(program, made, found)
            continue
        if _late(program, found.type):
            return None
        if buffer.role in ("in", "inout") and arg not in made.inputs:
            made.inputs.append(arg)
        if buffer.role in ("out", "inout") and arg not in made.outputs:
            made.outputs.append(arg)
        made.buffers[arg] = ProgramBuffer(arg, found.type, "input" if buffer.role == "in" else "output")
    if any(names(size) & program.limits.keys() for size in call.sizes):
        return None
    made.input_names, made.output_names = list(made.inputs), list(made.outputs)
    made.steps = [call]
    return made


def _keep_weight(program: Program, made: Program, buffer: ProgramBuffer) -> None:
    while True:
        made.buffers[buffer.name] = replace(buffer)
        if buffer.base is None:
            return
        buffer = program.buffers[buffer.base]


def _late(program: Program, type_: TensorType) -> bool:
    return any(names(size) & program.limits.keys() for size in type_.shape)


def cut_node(graph: Graph, name: str) -> Graph | None:
    """The node that makes a value, with what pads its operand and the functions of each element that follow it. None
    where its sizes are told by a run only."""
    node = next(value.node for each in graph.nodes() for value in each.outputs if value.name == name)
    assert node is not None
    nodes = [node]
    first = node.inputs[0]
    if first is not None and first.node is not None and first.node.op.name == "pad":
        nodes.insert(0, first.node)
    while len(nodes) <= _MOST_FOLLOWING and (following := _following(graph, nodes[-1])) is not None:
        nodes.append(following)
    made, mapped = Graph(name), {}
    made.bounds, made.equal_dims, made.limits = dict(graph.bounds), list(graph.equal_dims), graph.limits
    b = Builder(made)
    for each in nodes:
        operands = [None if v is None else _operand(b, v, mapped) for v in each.inputs]
        mapped[each.output] = Builder(made, sources=each.sources).apply(each.op, *operands)
    made.set_outputs([mapped[nodes[-1].output]])
    late = made.limits.keys()
    types = [value.tensor for value in (*made.inputs, *made.outputs)]
    return None if any(names(size) & late for type_ in types for size in type_.shape) else made


def _following(graph: Graph, node: Node) -> Node | None:
    """The one user of a node where it computes each element from those at its place."""
    users = [user for user in graph.nodes() if any(v is node.output for v in user.inputs)]
    if len(users) != 1 or any(v is node.output for v in graph.outputs):
        return None
    fits = len(users[0].outputs) == 1 and not users[0].op.movement and is_elementwise(users[0])
    return users[0] if fits and users[0].output.shape == node.output.shape else None


def _operand(b: Builder, value: Value, mapped: dict[Value, Value]) -> Value:
    if value not in mapped:
        is_const = value.blob is not None
        mapped[value] = b.const(value.blob, name=value.name) if is_const else b.graph.add_input(value.name, value.type)
    return mapped[value]


def run_passes(steps: Sequence[Any], unit: Any) -> Any:
    """What passes make of a graph or program."""
    for step in steps:
        unit = run_pass(step, unit)
    return unit


def trial_of(forms: Sequence[Program], swept: int) -> Trial:
    """A program that runs each of `forms`, which have the same inputs, after reading `swept` bytes of other memory."""
    made = Program("trial", bounds=dict(forms[0].bounds), equal_dims=list(forms[0].equal_dims))
    floats = max(_LINE_FLOATS, swept // 4 // _LINE_FLOATS * _LINE_FLOATS)
    _add_input(made, _SWEPT, tensor("f32", floats))
    for i, name in enumerate(forms[0].inputs):
        _add_input(made, f"given {i}", forms[0].buffers[name].type)
    made.buffers["sum"] = ProgramBuffer("sum", tensor("f32", 1), "output")
    made.outputs, made.output_names = ["sum"], ["sum"]
    sweep = Call(parse_kernel(_sweep_text(floats)), (_SWEPT, "sum"))
    calls: list[range] = []
    count = 0
    for number, form in enumerate(forms):
        prefix = f"form{number} "
        steps: list[Any] = [sweep]
        for i, name in enumerate(form.inputs):
            steps.append(_touch(f"given {i}", form.buffers[name].type, f"{prefix}{name}"))
        begin = count + len(steps)
        counters = {step.step: symbol(f"{prefix}{step.step}") for step in form.walk() if isinstance(step, Repeat)}
        made.limits |= {f"{prefix}{name}": form.limits[name] for name in counters}
        steps += [_renamed(step, prefix, counters) for step in form.steps]
        for buffer in form.buffers.values():
            place = "arena" if buffer.place in ("input", "output") else buffer.place
            base = None if buffer.base is None else f"{prefix}{buffer.base}"
            made.buffers[f"{prefix}{buffer.name}"] = replace(
                buffer, name=f"{prefix}{buffer.name}", place=place, base=base
            )
        made.steps += steps
        count = sum(1 for _ in made.calls())
        calls.append(range(begin, count))
    for name in made.sizes:  # inputs whose shapes tell the sizes, whatever those of the kernels tell
        _add_input(made, f"size {name}", tensor("u8", symbol(name)))
    run_pass(PASSES["memory"], made)
    return Trial(made, tuple(calls))


def _add_input(program: Program, name: str, type_: TensorType) -> None:
    program.buffers[name] = ProgramBuffer(name, type_, "input")
    program.inputs.append(name)
    program.input_names.append(name)


def _renamed(step: Step, prefix: str, counters: Mapping[str, Size]) -> Step:
    """A call, or a loop of calls, with names that no other form has."""
    if isinstance(step, Repeat):
        body = tuple(_renamed(inner, prefix, counters) for inner in step.body)
        return replace(step, step=f"{prefix}{step.step}", body=body)
    assert isinstance(step, Call)
    kernel = replace(step.kernel, name=f"{prefix}{step.kernel.name}")
    sizes = tuple(substitute(size, counters) for size in step.sizes)
    return replace(step, kernel=kernel, args=tuple(f"{prefix}{arg}" for arg in step.args), sizes=sizes)


def _sweep_text(floats: int) -> str:
    return f"""kernel @sweep(in x: f32[{floats}], out y: f32[1]) {{
      var sum: f32 = 0.0
      for i in 0..{floats // _LINE_FLOATS} {{
        sum += x[{_LINE_FLOATS}*i]
      }}
      y[0] = sum
    }}"""


def _touch(source: str, type_: TensorType, target: str) -> Call:
    """Copies an input to where a form reads it."""
    sizes = sorted({name for size in type_.shape for name in names(size)})
    renamed = {name: symbol(f"s{i}") for i, name in enumerate(sizes)}
    shape = [dim_text(substitute(size, renamed)) for size in type_.shape]
    loops = ", ".join(f"i{axis} in 0..{size}" for axis, size in enumerate(shape))
    index = ", ".join(f"i{axis}" for axis in range(len(shape)))
    copy = f"y[{index}] = x[{index}]"
    body = f"for {loops} {{ {copy} }}" if shape else copy
    typed = f"{type_.dtype}[{','.join(shape)}]"
    kernel = parse_kernel(f"kernel @touch(in x: {typed}, out y: {typed}) {{ {body} }}")
    kernel = replace(kernel, name=f"touch {target}")
    sizes_by_name = {f"s{i}": symbol(name) for i, name in enumerate(sizes)}
    return Call(kernel, (source, target), tuple(sizes_by_name[name] for name in kernel.sizes))


class Stopwatch:
    """A trial ready to run. `backend` is a target whose code can take times."""

    def __init__(self, trial: Trial, backend: Any, sizes: Mapping[str, int]) -> None:
        """Emits and builds the trial. Raises CompileError."""
        self._trial = trial
        self._folder = tempfile.TemporaryDirectory(prefix="sesame-trial-", ignore_cleanup_errors=True)
        timed = dataclasses.replace(backend, profile=True, tuned="")
        self._loaded = timed.emit(trial.program, self._folder.name).load(threads=backend.threads)
        rng = np.random.default_rng(0)
        self._feeds = {}
        for name in trial.program.inputs:
            type_ = trial.program.buffers[name].type
            shape = tuple(evaluate(size, sizes) if isinstance(size, Dim) else size for size in type_.shape)
            self._feeds[name] = random_array(type_, shape, rng)

    def times(self, seconds: float) -> list[list[float]]:
        """Milliseconds of each form, a list of runs each; the forms take turns. Runs fill `seconds`."""
        found: list[list[float]] = [[] for _ in self._trial.calls]
        self._loaded.run(self._feeds)
        end = time.perf_counter() + seconds
        runs = 0
        while runs < _LEAST_RUNS or (runs < _MOST_RUNS and time.perf_counter() < end):
            self._loaded.profile[:] = 0
            self._loaded.run(self._feeds)
            for samples, calls in zip(found, self._trial.calls):
                samples.append(float(self._loaded.profile[calls.start : calls.stop, 0].sum()) / 1e6)
            runs += 1
        return found

    def close(self) -> None:
        """Stops threads and removes what was built."""
        getattr(self._loaded, "close", lambda: None)()
        self._folder.cleanup()


def typical(samples: Sequence[float]) -> float:
    """The time of a run that nothing disturbed: the median of the faster half."""
    return statistics.median(sorted(samples)[: (len(samples) + 1) // 2])


__all__ = ["Stopwatch", "Trial", "cut_call", "cut_node", "run_passes", "trial_of", "typical"]
