"""Rules: what patterns match, what refuses them, what the driver keeps, and both sides of every rule of ours."""

from __future__ import annotations

import numpy as np
import pytest

import ir.ops  # noqa: F401 - registers the ops
from compiler.pipeline import Pipeline
from compiler.rules import rules_of
from ir.build import Builder
from ir.graph import Graph
from ir.op import case
from ir.rewrite import RewriteError, listening, prove, rewrite, spellings
from ir.rule import Rule
from ir.types import tensor
from ir.verify import verify_graph

WITH_EXAMPLES = [rule for rule in rules_of() if rule.examples]


@pytest.mark.parametrize("rule", WITH_EXAMPLES, ids=lambda rule: rule.__name__)
def test_both_sides_of_a_rule_compute_the_same(rule):
    prove(rule)


@pytest.mark.parametrize("rule", WITH_EXAMPLES, ids=lambda rule: rule.__name__)
def test_rules_together_end_where_the_rule_alone_leads(rule):
    """Other rules may see a part of the pattern first; they must not lead away from what the rule makes of it."""
    everything = Pipeline(["canonicalize", "shift", "canonicalize", "fold", "dce"])
    for example in rule.examples:
        for alone, together in zip(spellings(rule, example), spellings(rule, example)):
            rewrite(alone, [rule])
            verify_graph(alone)
            assert _ops(everything.run(alone)) == _ops(everything.run(together))


def _ops(graph: Graph) -> list[str]:
    return sorted(node.op.name for node in graph.nodes() if node.op.name != "const")


class Distribute(Rule):
    """x * y + x * z  =>  x * (y + z)"""

    examples = [case("f32[2]", "f32[2]", "f32[2]")]

    def find(b, x, y, z):
        return x * y + x * z

    def replace(b, x, y, z):
        return x * (y + z)


def graph_of_sum(swap_first: bool, swap_second: bool, other_factor: bool = False) -> Graph:
    graph = Graph("sum")
    x, y, z, w = (graph.add_input(name, tensor("f32", 2)) for name in "xyzw")
    with Builder(graph, sources=("node",)):
        first = y * x if swap_first else x * y
        right = w if other_factor else x
        second = z * right if swap_second else right * z
        total = first + second
    graph.rename(total, "total")
    graph.set_outputs([total])
    return graph


@pytest.mark.parametrize("swap_first", [False, True])
@pytest.mark.parametrize("swap_second", [False, True])
def test_commutative_operands_match_in_every_combination(swap_first, swap_second):
    graph = graph_of_sum(swap_first, swap_second)
    assert rewrite(graph, [Distribute]) == {"Distribute": 1}
    assert [node.op.name for node in graph.nodes()] == ["add", "mul"]
    verify_graph(graph)


def test_a_variable_is_one_value_everywhere():
    graph = graph_of_sum(False, False, other_factor=True)
    misses = []
    assert rewrite(graph, [Distribute], on_near_miss=misses.append) == {}
    assert len(misses) == 1 and "are not one value" in misses[0].reason


def test_new_values_keep_the_name_and_the_sources():
    graph = graph_of_sum(False, False)
    next(graph.nodes()).sources = ("first",)
    rewrite(graph, [Distribute])
    assert graph.outputs[0].name == "total"
    assert graph.outputs[0].node is not None and graph.outputs[0].node.sources == ("first", "node")


def test_an_inner_value_with_another_user_is_a_near_miss():
    graph = graph_of_sum(False, False)
    first = next(graph.nodes()).output
    graph.set_outputs([*graph.outputs, first])
    misses = []
    assert rewrite(graph, [Distribute], on_near_miss=misses.append) == {}
    assert misses[0].reason == f"intermediate %{first.name} has other users"


def test_rules_apply_to_what_rules_made():
    class DropNeg(Rule):
        """-(-x)  =>  x"""

        def find(b, x):
            return b.neg(b.neg(x))

        def replace(b, x):
            return x

    graph = Graph("negations")
    value = x = graph.add_input("x", tensor("f32", 2))
    for _ in range(40):
        value = Builder(graph).neg(value)
    graph.set_outputs([value])
    assert rewrite(graph, [DropNeg]) == {"DropNeg": 20}
    assert graph.outputs == [x] and not len(graph)


def test_rules_that_undo_each_other_are_stopped():
    class ToSub(Rule):
        def find(b, x, y):
            return x + y

        def replace(b, x, y):
            return x - b.neg(y)

    class ToAdd(Rule):
        def find(b, x, y):
            return x - b.neg(y)

        def replace(b, x, y):
            return x + y

    with pytest.raises(RewriteError, match="undo each other"):
        rewrite(graph_of_sum(False, False), [ToSub, ToAdd])


def test_a_rule_that_would_change_a_type_is_refused():
    class Wrong(Rule):
        def find(b, x, y):
            return x * y

        def replace(b, x, y):
            return b.reduce_sum(x, axes=(0,))

    graph, misses = graph_of_sum(False, False), []
    assert rewrite(graph, [Wrong], on_near_miss=misses.append) == {}
    assert "the result would be f32[1], not f32[2]" in str(misses[0])
    assert [node.op.name for node in graph.nodes()] == ["mul", "mul", "add"]


def test_a_rule_that_computes_something_else_is_found_out():
    class Wrong(Rule):
        """x - y  =>  x + y"""

        examples = [case("f32[3]", "f32[3]")]

        def find(b, x, y):
            return x - y

        def replace(b, x, y):
            return x + y

    with pytest.raises(RewriteError, match="became"):
        prove(Wrong)


def test_numbers_match_up_to_the_rounding_of_their_type():
    class Third(Rule):
        examples = [case("f16[3]"), case("f32[3]"), case("f64[3]")]

        def find(b, x):
            return x * (1 / 3)

        def replace(b, x):
            return x * (1 / 3) + 0

    for spelling in (graph for example in Third.examples for graph in spellings(Third, example)):
        node = spelling.outputs[0].node
        assert node is not None and Third.match(node) is not None

    graph = Graph("other")
    x = graph.add_input("x", tensor("f32", 3))
    graph.set_outputs([x * Builder(graph).const(np.array(0.33334, np.float32))])
    assert rewrite(graph, [Third]) == {}


def test_attributes_must_be_equal_unless_any_will_do():
    class OverLast(Rule):
        def find(b, x):
            return b.softmax(x)

        def replace(b, x):
            return b.log_softmax(x)

    class OverAny(Rule):
        def find(b, x):
            return b.softmax(x, axes=b.any_attr("axes"))

        def replace(b, x, m):
            return b.log_softmax(x, axes=m["axes"])

    def graph() -> Graph:
        made = Graph("softmax")
        made.set_outputs([Builder(made).softmax(made.add_input("x", tensor("f32", 2, 3)), axes=(0,))])
        return made

    misses = []
    assert rewrite(graph(), [OverLast], on_near_miss=misses.append) == {}
    changed = graph()
    assert rewrite(changed, [OverAny]) == {"OverAny": 1}
    assert changed.outputs[0].node is not None and changed.outputs[0].node.op.attributes() == {"axes": (0,)}


def test_near_misses_are_only_looked_for_when_somebody_listens(monkeypatch):
    asked = []
    monkeypatch.setattr(Distribute, "near_miss", classmethod(lambda cls, node: asked.append(node)))
    rewrite(graph_of_sum(False, False, other_factor=True), [Distribute])
    assert not asked

    class Curious:
        def rule_applied(self, rule, node): ...
        def wants_near_misses(self, rule):
            return rule == "Distribute"

        def rule_missed(self, miss): ...

    with listening([Curious()]):
        rewrite(graph_of_sum(False, False, other_factor=True), [Distribute])
    assert asked


def test_a_rule_needs_both_sides():
    with pytest.raises(TypeError, match="find and replace"):

        class Half(Rule):
            def find(b, x):
                return b.neg(x)


def test_a_pattern_names_an_op_that_exists():
    class Unknown(Rule):
        def find(b, x):
            return b.nonsense(x)

        def replace(b, x):
            return x

    with pytest.raises(AttributeError, match="nonsense"):
        Unknown.patterns()
