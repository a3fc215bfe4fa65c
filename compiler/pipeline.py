"""Pipelines: a plain list of passes, run one after another, watched by observers.

A pass changes a graph, lowers it to a program, changes the kernels of a program, or changes a program. Passes have no
verbose flags: printing, timing, verifying and numeric checks are observers (`compiler.observe`) around the list.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from compiler.errors import UsageError
from ir.build import Builder
from ir.graph import Graph
from ir.kernel import Kernel
from ir.program import Program, map_calls
from ir.rewrite import Listener, listening, rewrite
from ir.rule import Rule

Stage: TypeAlias = Literal["graph", "lower", "kernel", "program"]
Unit: TypeAlias = "Graph | Program"

ORDER: list[tuple[str, str, str]] = [
    ("canonicalize", "fuse", "rules match single ops, and a fused group hides them"),
    ("fold", "legalize", "what is known must not be expanded into ops that compute it"),
    ("maps", "legalize", "maps are refused where there are none; the rows that they are made of are tensors"),
    ("sequences", "strings", "a sequence of strings is first tensors of strings"),
    ("sequences", "legalize", "ops on sequences are refused where there are none; on tensors they are other ops"),
    ("strings", "legalize", "ops on strings are refused where there are no strings; on cells they are other ops"),
    ("legalize", "fuse", "only ops that the backend accepts have the element rules that fusion composes"),
    ("layout", "winograd", "it is the channels-last form of convolutions that is rewritten"),
    ("winograd", "fuse", "what follows a convolution is computed as its results are stored"),
    ("layout", "widen", "it rewrites channels-last convolutions"),
    ("widen", "fuse", "a fused group hides the convolution in it"),
    ("layout", "narrow", "it is the channels-last form of convolutions whose operands lie in order"),
    ("winograd", "narrow", "what is multiplied at the points of tiles needs all of its digits"),
    ("widen", "narrow", "it rewrites convolutions of f32"),
    ("narrow", "fuse", "operands are rounded by the kernel that makes them"),
    ("fuse", "lower", "lowering makes one kernel of each node"),
    ("legalize", "lower", "a node is lowered by its element rule or kernel; composites have neither"),
    ("lower", "tile", "tiling rewrites kernels"),
    ("lower", "join", "it joins the kernels of a program"),
    ("join", "frame", "rows that are joined store at their own places"),
    ("frame", "reuse", "a result that takes the place of an operand has no room for a frame"),
    ("frame", "share", "a function of what is stored inside of a frame gets names as part of that statement"),
    ("frame", "tile", "a tile stores more than once"),
    ("join", "attend", "it knows a softmax by its rows, which are one kernel"),
    ("attend", "reuse", "scores of which a result takes the place have two names, and are not followed"),
    ("attend", "share", "it reads what kernels do from statements that have no names for parts of them"),
    ("attend", "tile", "products are known before they are tiles"),
    ("join", "reuse", "a result that takes the place of an operand has two names, and is not followed"),
    ("join", "share", "what a statement computes twice is found where statements are what they will be"),
    ("join", "tile", "tiles are no rows"),
    ("reuse", "tile", "a tile may compute a row twice, which an update in place must not; tile sees which kernels are"),
    ("reuse", "memory", "a result that takes the place of an operand needs no place of its own"),
    ("lower", "memory", "memory is planned for the buffers of a program"),
    ("interleave", "tile", "the products of a block are tiled, not those of all blocks"),
    ("interleave", "memory", "buffers that hold one block need no place for the others"),
    ("tile", "unravel", "tile knows the loops of groups by the run that they are one with"),
    ("tile", "partition", "it splits loops that make tiles as one"),
    ("unravel", "partition", "parts are those of a row"),
    ("unravel", "accumulate", "elements lie side by side along a row only"),
    ("tile", "accumulate", "tile knows a sum that it can tile by its one accumulator"),
    ("tile", "vectorize", "what is marked is no part of a product to tile"),
    ("unravel", "vectorize", "elements lie side by side along a row only"),
    ("partition", "vectorize", "it parts loops of all elements"),
    ("tile", "memory", "tiling may add buffers for packed operands"),
]
"""(earlier, later, reason): checked when a pipeline that has both is built."""


@dataclass(frozen=True)
class Pass:
    """A named step. `run` takes what its stage says and the options by keyword."""

    name: str
    stage: Stage
    run: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()
    doc: str = ""

    def with_options(self, **options: Any) -> Pass:
        """The pass with options set. Raises UsageError for one it does not have."""
        known = [p.name for p in inspect.signature(self.run).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                raise UsageError("E0202", f"pass {self.name} has no option '{name}'", help=_suggest(name, known))
        merged = {**dict(self.options), **options}
        return replace(self, options=tuple(merged.items()))

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}{{{','.join(f'{k}={_option_text(v)}' for k, v in self.options if _is_plain(v))}}}".replace(
            "{}", ""
        )


def takes_choices(step: Pass) -> bool:
    """Whether a pass asks for choices between forms of code (`compiler.choices`)."""
    return "choices" in inspect.signature(step.run).parameters


PASSES: dict[str, Pass] = {}


def _register(name: str, stage: Stage, run: Callable[..., Any]) -> Pass:
    made = Pass(name, stage, run, doc=inspect.getdoc(run) or "")
    PASSES[name] = made
    return made


def graph_pass(function: Callable[..., Any]) -> Pass:
    """Decorator: `function(graph, b, *, options...)` is a pass on graphs; `b` builds at the graph's end."""
    takes_builder = (
        len([p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]) > 1
    )

    def run(graph: Graph, **options: Any) -> None:
        if takes_builder:
            function(graph, Builder(graph), **options)
        else:
            function(graph, **options)

    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    run.__doc__ = function.__doc__
    return _register(function.__name__, "graph", run)


def kernel_pass(function: Callable[..., Kernel]) -> Pass:
    """Decorator: `function(kernel, *, options...) -> kernel` is applied to every distinct kernel of a program."""
    return _register(function.__name__, "kernel", function)


def program_pass(function: Callable[..., Any]) -> Pass:
    """Decorator: `function(program, *, options...)` changes a program in place."""
    return _register(function.__name__, "program", function)


def lower_pass(function: Callable[..., Program]) -> Pass:
    """Decorator: `function(graph, *, options...) -> program`."""
    return _register(function.__name__, "lower", function)


def rule_pass(rule: type[Rule]) -> Pass:
    """The pass that applies one rule wherever it matches."""

    def run(graph: Graph) -> None:
        rewrite(graph, [rule])

    return Pass(rule.__name__, "graph", run, doc=inspect.getdoc(rule) or "")


class Observer(Protocol):
    """Watches a run of a pipeline. `unit` is the graph or program as it stands.

    One that is a `Listener` of `ir.rewrite`, too, hears which rules are applied, and which nearly are.
    """

    def start(self, unit: Unit) -> None: ...
    def before(self, step: Pass, unit: Unit) -> None: ...
    def after(self, step: Pass, unit: Unit) -> None: ...
    def finish(self, unit: Unit) -> None: ...


@dataclass(frozen=True)
class Pipeline:
    """An immutable list of passes; the methods that change it return another. `str(pipeline)` is its spec."""

    passes: tuple[Pass, ...] = field(default_factory=tuple)

    def __init__(self, passes: Iterable[Pass | type[Rule] | str] = ()) -> None:
        object.__setattr__(self, "passes", tuple(_as_pass(p) for p in passes))
        self._check_order()

    @staticmethod
    def parse(spec: str) -> Pipeline:
        """The pipeline that a spec such as "canonicalize,fold{limit=16},dce" names. Raises UsageError."""
        load_passes()
        parts = re.findall(r"\s*([^,{}\s]+)\s*(?:\{([^}]*)\})?\s*(?:,|$)", spec)
        if ",".join(n + (f"{{{o}}}" if o else "") for n, o in parts).replace(" ", "") != spec.replace(" ", "").rstrip(
            ","
        ):
            raise UsageError(
                "E0203", f"cannot read the pipeline spec '{spec}'", help="write it as: pass,pass{option=value},pass"
            )
        made = []
        for name, options in parts:
            given = dict(
                item.split("=", 1) if "=" in item else (item, "true") for item in options.split(",") if item.strip()
            )
            made.append(_as_pass(name).with_options(**{k.strip(): _option_value(v.strip()) for k, v in given.items()}))
        return Pipeline(made)

    def names(self) -> list[str]:
        return [p.name for p in self.passes]

    def insert_before(self, name: str, *steps: Pass | type[Rule] | str) -> Pipeline:
        """The pipeline with `steps` before the first pass called `name`."""
        at = self._position(name)
        return Pipeline([*self.passes[:at], *steps, *self.passes[at:]])

    def insert_after(self, name: str, *steps: Pass | type[Rule] | str) -> Pipeline:
        at = len(self.passes) - self.names()[::-1].index(self.passes[self._position(name)].name)
        return Pipeline([*self.passes[:at], *steps, *self.passes[at:]])

    def without(self, *names: str) -> Pipeline:
        """The pipeline without the passes called so. Raises UsageError for one it does not have."""
        for name in names:
            self._position(name)
        return Pipeline([p for p in self.passes if p.name not in names])

    def with_options(self, name: str, **options: Any) -> Pipeline:
        """The pipeline with options of pass `name` set."""
        self._position(name)
        return Pipeline([p.with_options(**options) if p.name == name else p for p in self.passes])

    def run(self, model: Any, watch: Sequence[Observer] = ()) -> Any:
        """Runs on a model (`compiler.load`) or on a graph; the program, or the graph where nothing lowers it.

        The model's own graph is not changed.
        """
        unit: Unit = (model if isinstance(model, Graph) else model.graph).clone()
        with listening(observer for observer in watch if isinstance(observer, Listener)):
            for observer in watch:
                observer.start(unit)
            for step in self.passes:
                for observer in watch:
                    observer.before(step, unit)
                unit = run_pass(step, unit)
                for observer in watch:
                    observer.after(step, unit)
            if isinstance(unit, Program):
                unit.pipeline = str(self)
            for observer in watch:
                observer.finish(unit)
        return unit

    def __str__(self) -> str:
        return ",".join(str(p) for p in self.passes)

    def _position(self, name: str) -> int:
        if name not in self.names():
            raise UsageError("E0202", f"the pipeline has no pass '{name}'", help=_suggest(name, self.names()))
        return self.names().index(name)

    def _check_order(self) -> None:
        names = self.names()
        for earlier, later, reason in ORDER:
            if earlier in names and later in names and names.index(earlier) > names.index(later):
                raise UsageError("E0204", f"pass {earlier} must come before {later}: {reason}")


def run_pass(step: Pass, unit: Unit) -> Unit:
    """One pass on a graph or program. Raises UsageError where the stage does not fit."""
    options = dict(step.options)
    if step.stage in ("graph", "lower"):
        if not isinstance(unit, Graph):
            raise UsageError("E0204", f"pass {step.name} works on graphs, and the model is lowered already")
        result = step.run(unit, **options)
        return result if step.stage == "lower" else unit
    if not isinstance(unit, Program):
        raise UsageError("E0204", f"pass {step.name} works on lowered programs; put `lower` before it")
    if step.stage == "program":
        step.run(unit, **options)
    else:
        _map_kernels(unit, lambda kernel: step.run(kernel, **options))
    return unit


def _map_kernels(program: Program, change: Callable[[Kernel], Kernel]) -> None:
    done: dict[str, Kernel] = {}
    for kernel in program.kernels:
        done[kernel.name] = change(kernel)

    program.steps = map_calls(program.steps, lambda call: replace(call, kernel=done[call.kernel.name]))


def _as_pass(step: Pass | type[Rule] | str) -> Pass:
    if isinstance(step, Pass):
        return step
    if isinstance(step, str):
        load_passes()
        if step not in PASSES:
            raise UsageError("E0202", f"there is no pass called '{step}'", help=_suggest(step, sorted(PASSES)))
        return PASSES[step]
    return rule_pass(step)


def load_passes() -> None:
    """Registers the passes of `compiler.passes`."""
    import compiler.passes as package

    for found in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{found}")


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"


def _option_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return text


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, str))


def _option_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
