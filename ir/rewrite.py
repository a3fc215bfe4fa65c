"""The driver of rewrite rules: a worklist that applies rules until none matches, and what keeps graphs in order.

Rules are filed by the op at their root. Names and sources survive: a new value takes the name of the one it replaces,
its nodes the sources of all that went. Who wants to watch listens (`listening`); near misses cost nothing otherwise.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ir.build import Builder
from ir.dims import bounded
from ir.evaluate import evaluate_graph
from ir.graph import Graph, Node, Value
from ir.op import Example, OpError
from ir.pattern import Apply, Match, operand_facts
from ir.rule import NearMiss, Rule, variable_names

_MOST_REWRITES_PER_NODE = 24


class RewriteError(Exception):
    """Rules that do not come to an end, or that give what they must not."""


@runtime_checkable
class Listener(Protocol):
    """Hears what rules do during `listening`. `wants_near_misses` makes the driver look for those of a rule."""

    def rule_applied(self, rule: str, node: Node) -> None: ...
    def wants_near_misses(self, rule: str) -> bool: ...
    def rule_missed(self, miss: NearMiss) -> None: ...


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listeners: Iterable[Listener]) -> Iterator[None]:
    """Lets `listeners` hear every rewrite inside."""
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)


def rewrite(
    graph: Graph,
    rules: Sequence[type[Rule]],
    *,
    on_match: Callable[[str, Node], None] | None = None,
    on_near_miss: Callable[[NearMiss], None] | None = None,
) -> dict[str, int]:
    """Applies `rules` until none matches, also in nested graphs; how often each was applied, in order of first use.

    `on_match` hears the name of a rule and the root before it is replaced; `on_near_miss` where a rule nearly matched.
    Raises RewriteError where rules undo each other for ever.
    """
    hits: dict[str, int] = {}
    for_each_graph(graph, lambda g: _Driver(g, rules, on_match, on_near_miss, hits).run())
    return hits


class _Driver:
    def __init__(
        self,
        graph: Graph,
        rules: Sequence[type[Rule]],
        on_match: Callable[[str, Node], None] | None,
        on_near_miss: Callable[[NearMiss], None] | None,
        hits: dict[str, int],
    ) -> None:
        self.graph = graph
        self.hits = hits
        self.on_match = on_match
        self.on_near_miss = on_near_miss
        self.by_root: dict[str, list[tuple[type[Rule], list[Apply]]]] = {}
        for rule in rules:
            for name in rule.root_ops():
                patterns = [p for p in rule.patterns() if p.op.name == name]
                self.by_root.setdefault(name, []).append((rule, patterns))
        self.depth = max((rule.depth() for rule in rules), default=1)
        self.listeners = _listeners.get()
        self.misses: dict[tuple[str, Node], NearMiss] = {}
        self.watched = {
            r for r in rules if on_near_miss or any(w.wants_near_misses(r.__name__) for w in self.listeners)
        }

    def run(self) -> None:
        pending = dict.fromkeys(n for n in self.graph.nodes() if n.op.name in self.by_root)
        queue = deque(pending)
        budget = _MOST_REWRITES_PER_NODE * (len(self.graph) + 8)
        while queue:
            node = queue.popleft()
            pending.pop(node, None)
            if node.graph is not self.graph:
                continue
            changed = self.visit(node)
            budget -= bool(changed)
            if budget < 0:
                raise RewriteError(f"rules undo each other; they were applied so often: {self.hits}")
            for again in changed:
                if again not in pending and again.graph is self.graph and again.op.name in self.by_root:
                    pending[again] = None
                    queue.append(again)
        self.report()

    def visit(self, node: Node) -> list[Node]:
        """Applies the first rule that fits; the nodes to look at again. What is known is left to be folded."""
        if node.outputs[0].content is not None:
            return []
        facts = operand_facts(node)
        for rule, patterns in self.by_root.get(node.op.name, ()):
            if patterns and rule not in self.watched and not any(p.may_match(*facts) for p in patterns):
                continue
            changed = self.attempt(rule, node)
            if changed is not None:
                self.hits[rule.__name__] = self.hits.get(rule.__name__, 0) + 1
                return changed
        return []

    def attempt(self, rule: type[Rule], node: Node) -> list[Node] | None:
        self.misses.pop((rule.__name__, node), None)
        found = rule.match(node)
        if found is None:
            if rule in self.watched and (miss := rule.near_miss(node)) is not None:
                self.misses[rule.__name__, node] = miss
            return None
        before = node.previous
        sources = tuple(dict.fromkeys(s for n in found.nodes for s in n.sources))
        result: Any
        try:
            with Builder(self.graph, node, sources) as b:
                result = rule.apply(b, found)
        except OpError as error:
            result = str(error)
        new_nodes = _between(self.graph, before, node)
        if isinstance(result, Value):
            result = self.acceptable(node.outputs[0], result)
        if not isinstance(result, Value):
            for made in reversed(new_nodes):
                self.graph.remove(made)
            if result is not None and rule in self.watched:
                self.misses[rule.__name__, node] = rule.missed(node, result)
            return None
        self.applied(rule, node)
        return self.put(found, result, new_nodes)

    def acceptable(self, old: Value, new: Value) -> Value | str:
        if new is old:
            return "it is what stands there"
        if new.type != old.type:
            return f"the result would be {new.type}, not {old.type}"
        return new

    def put(self, found: Match, new: Value, new_nodes: list[Node]) -> list[Node]:
        """Replaces the root's result; the nodes to look at again."""
        old = found.root.outputs[0]
        name = old.name
        around = [v.node for n in found.nodes for v in n.inputs if v is not None and v.node is not None]
        users = downstream(old, self.depth)
        self.graph.replace(old, new)
        for node in (*reversed(found.nodes), *around, *new_nodes):
            remove_dead(self.graph, node)
        if new.node is not None and new.node in new_nodes:
            self.graph.rename(new, name)
        beside = [user for node in around for v in node.outputs for user in v.users] if len(around) < 16 else []
        return [*new_nodes, *around, *users, *(u for u in beside if u.graph is self.graph)]

    def applied(self, rule: type[Rule], node: Node) -> None:
        if self.on_match is not None:
            self.on_match(rule.__name__, node)
        for listener in self.listeners:
            listener.rule_applied(rule.__name__, node)

    def report(self) -> None:
        for (name, node), miss in self.misses.items():
            if node.graph is not self.graph:
                continue
            if self.on_near_miss is not None:
                self.on_near_miss(miss)
            for listener in self.listeners:
                if listener.wants_near_misses(name):
                    listener.rule_missed(miss)


def _between(graph: Graph, before: Node | None, node: Node) -> list[Node]:
    """The nodes that stand after `before` (None: from the first) and before `node`."""
    made = []
    current = node.previous
    while current is not before:
        assert current is not None
        made.append(current)
        current = current.previous
    return made[::-1]


def downstream(value: Value, depth: int) -> list[Node]:
    """Users of a value, their users, and so on, at most `depth` steps away."""
    found: dict[Node, None] = dict.fromkeys(value.users)
    layer = list(found)
    for _ in range(depth - 1):
        layer = [user for node in layer for v in node.outputs for user in v.users if user not in found]
        found.update(dict.fromkeys(layer))
    return list(found)


def remove_dead(graph: Graph, node: Node) -> None:
    """Removes a node whose results are not used, and what is not used then. What tells sizes stays: see `dce`."""
    pending = [node]
    while pending:
        dead = pending.pop()
        if dead.graph is not graph or dead.op.defines or any(v.is_used() for v in dead.outputs):
            continue
        producers = [v.node for v in dead.inputs if v is not None and v.node is not None]
        graph.remove(dead)
        pending.extend(producers)


def for_each_graph(graph: Graph, change: Callable[[Graph], None]) -> None:
    """Runs `change` on the graphs inside the nodes of `graph` (branches, loop bodies), then on the graph itself.

    Nested graphs are shared between clones of a graph, so each is cloned before it is changed.
    """
    with bounded(graph.bounds):
        for node in graph.nodes():
            if node.op.structural:
                map_nested(node, lambda inner: for_each_graph(inner, change))
        change(graph)


def nested_graphs(node: Node) -> list[Graph]:
    """The graphs among the attributes of a node."""
    return [value for value in vars(node.op).values() if isinstance(value, Graph)]


def take_place(graph: Graph, old: Value, new: Value) -> None:
    """Makes users of `old` use `new`, which is called as `old` was unless it has a name of its own."""
    name = old.name
    graph.replace(old, new)
    if new.node is not None and old.node is not None and new.name.isdigit():
        graph.rename(new, name)


def map_nested(node: Node, change: Callable[[Graph], None]) -> None:
    """Gives `node` clones of its nested graphs, changed by `change`."""
    nested: dict[str, Graph] = {}
    for field in dataclasses.fields(node.op):  # type: ignore[arg-type]
        inner = getattr(node.op, field.name)
        if isinstance(inner, Graph):
            nested[field.name] = inner.clone()
            change(nested[field.name])
    if nested:
        node.op = dataclasses.replace(node.op, **nested)  # type: ignore[type-var]


# Rules that test themselves.


class _Concrete:
    """A graph builder on which `find` runs: attributes of any value are those of the example."""

    def __init__(self, builder: Builder, attributes: dict[str, Any]) -> None:
        self._builder = builder
        self._attributes = attributes

    def any_attr(self, name: str) -> Any:
        return self._attributes[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)


def spellings(rule: type[Rule], example: Example) -> list[Graph]:
    """One graph for each spelling of the rule, on the operands of an example (arrays become constants)."""
    graphs = []
    for position in range(len(rule.patterns())):
        graph = Graph(rule.__name__)
        with Builder(graph) as b:
            values = [
                b.const(operand, name=name)
                if isinstance(operand, np.ndarray)
                else operand and graph.add_input(name, operand)
                for name, operand in zip(variable_names(rule), example.operands, strict=True)
            ]
            found = rule.functions["find"](_Concrete(b, example.attributes), *values)
        chosen = found[position] if isinstance(found, list) else found
        graph.set_outputs([chosen], ["y"])
        for node in graph.nodes_reversed():
            remove_dead(graph, node)
        graphs.append(graph)
    return graphs


def prove(rule: type[Rule], seed: int = 0) -> None:
    """Runs both sides of a rule on random arrays, for each spelling and example.

    Raises RewriteError where a spelling is not matched, or where the two sides differ.
    """
    if not rule.examples:
        raise RewriteError(f"rule {rule.__name__} has no examples")
    for number, example in enumerate(rule.examples):
        for spelling, graph in enumerate(spellings(rule, example)):
            where = f"rule {rule.__name__}, example {number}, spelling {spelling}"
            names = dict(zip(variable_names(rule), example.arrays(seed), strict=True))
            feeds = [names[value.name] for value in graph.inputs]
            wanted = np.asarray(evaluate_graph(graph, feeds)[0])
            misses: list[NearMiss] = []
            if not rewrite(graph, [rule], on_near_miss=misses.append):
                raise RewriteError(f"{where}: does not match its own find: {'; '.join(map(str, misses)) or graph}")
            made = np.asarray(evaluate_graph(graph, feeds)[0])
            if wanted.dtype.kind in "OSUb":
                same = np.array_equal(made, wanted)
            else:
                a, b = made.astype(np.complex128), wanted.astype(np.complex128)
                same = np.allclose(a, b, rule.tolerance, rule.tolerance, equal_nan=True)
            if not same or made.shape != wanted.shape or made.dtype != wanted.dtype:
                raise RewriteError(f"{where}: {wanted} became {made}")


__all__ = [
    "Listener", "RewriteError", "downstream", "for_each_graph", "listening", "map_nested", "nested_graphs", "prove",
    "remove_dead", "rewrite", "spellings", "take_place",
]  # fmt: skip
