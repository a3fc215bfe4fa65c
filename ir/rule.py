"""Rewrite rules: an expression to find and what to put in its place, both written with a builder.

    class ErfGelu(Rule):
        \"\"\"x * (erf(x / sqrt 2) + 1) * 0.5  =>  gelu(x)\"\"\"
        def find(b, x):    return x * (b.erf(x / SQRT2) + 1) * 0.5
        def replace(b, x): return b.gelu(x)

A rule says where it applies and what then stands there; `ir.rewrite` applies it. Every rule can be tested by itself:
its `find` is also run on a graph builder, to make a program that it must match and must not change the meaning of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any, ClassVar

from ir.graph import Node, Value
from ir.op import Example
from ir.pattern import Apply, Match, PatternBuilder, Trace, Variable, depth_of, match, operand_facts, terms_of

_FUNCTIONS = ("find", "replace", "check", "change")


@dataclass(frozen=True)
class NearMiss:
    """A place where most of a rule's pattern stands. `reason` is a sentence: the first difference."""

    rule: str
    node: str
    sources: tuple[str, ...]
    matched: int
    total: int
    reason: str

    def __str__(self) -> str:
        origin = f" (from {', '.join(self.sources)})" if self.sources else ""
        return f"{self.rule} at %{self.node}{origin}: {self.reason} [{self.matched} of {self.total}]"


class Rule:
    """Base of all rules. The functions of a rule take no `self`.

    - `find(b, x, ...)`: the pattern; a list of patterns where there are several spellings. Numbers stand for constants
      of one element; `b.any_attr("perm")` for an attribute of any value; attributes left out must have their defaults.
    - `replace(b, x, ..., m)`: what stands there instead. `m` (optional) is the `Match`: `m["perm"]`, `m.root`.
    - `check(m)`: optional; True, or a sentence why the rule does not apply after all.

    Where no fixed pattern will do, a rule has `roots` (names of ops) and `change(b, node)` instead, which gives the new
    value, None, or a sentence. A rule never changes the type of a value: a match where it would is refused.
    """

    functions: ClassVar[dict[str, Callable[..., Any]]] = {}
    """The functions above, by name."""
    roots: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[bool] = False
    """Whether the inner nodes of a match may have other users; they stay then."""
    examples: ClassVar[list[Example]] = []
    """Operands and attributes to run `find` on: `case("f32[2,3]", perm=(1, 0))`; arrays become constants."""
    tolerance: ClassVar[float] = 1e-5
    """How far the two sides may differ, relative and absolute, on f32 examples."""

    _patterns: ClassVar[list[Apply] | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = {name: cls.__dict__[name] for name in _FUNCTIONS if isinstance(cls.__dict__.get(name), FunctionType)}
        for name, function in own.items():
            setattr(cls, name, staticmethod(function))
        cls.functions = {**cls.functions, **own}
        given = cls.functions.keys() - {"check"}
        if given != {"find", "replace"} and given != {"change"}:
            raise TypeError(f"rule {cls.__name__} must have find and replace, or roots and change")
        cls._patterns = None

    @classmethod
    def patterns(cls) -> list[Apply]:
        """The patterns that `find` records, one for each spelling."""
        if cls._patterns is None:
            cls._patterns = _recorded(cls) if "find" in cls.functions else []
        return cls._patterns

    @classmethod
    def root_ops(cls) -> tuple[str, ...]:
        """Names of the ops at which the rule can apply."""
        return cls.roots or tuple(dict.fromkeys(p.op.name for p in cls.patterns()))

    @classmethod
    def depth(cls) -> int:
        """How many ops deep the rule looks."""
        return max((depth_of(p) for p in cls.patterns()), default=2)

    @classmethod
    def match(cls, node: Node) -> Match | None:
        """The first spelling that stands at `node` and passes the checks; the node alone for a rule with `change`."""
        if "change" in cls.functions:
            return Match(node, [node])
        facts = operand_facts(node)
        for pattern in cls.patterns():
            if pattern.op is type(node.op) and pattern.may_match(*facts):
                found = match(pattern, node)
                if found is not None and cls.refusal(found) is None:
                    return found
        return None

    @classmethod
    def refusal(cls, found: Match) -> str | None:
        """Why a match is no place for the rule, or None."""
        used = None if cls.shared else _used_elsewhere(found)
        if used is not None:
            return f"intermediate %{used.name} has other users"
        verdict = cls.functions["check"](found) if "check" in cls.functions else True
        return None if verdict is True else str(verdict)

    @classmethod
    def near_miss(cls, node: Node) -> NearMiss | None:
        """What the best spelling lacks at `node`, where its root and at least half of it are there."""
        best: NearMiss | None = None
        for pattern in cls.patterns():
            if pattern.op is not type(node.op):
                continue
            trace = Trace()
            found = match(pattern, node, trace)
            total = len(terms_of(pattern))
            matched, reason = (total, cls.refusal(found)) if found is not None else (trace.matched, trace.reason)
            if reason and matched * 2 > total and (best is None or matched > best.matched):
                best = cls.missed(node, reason, matched, total)
        return best

    @classmethod
    def missed(cls, node: Node, reason: str, matched: int = 1, total: int = 1) -> NearMiss:
        return NearMiss(cls.__name__, node.outputs[0].name, node.sources, matched, total, reason)

    @classmethod
    def apply(cls, b: Any, found: Match) -> Any:
        """Runs `replace` (or `change`) with builder `b`: the new value; or None or a sentence, where there is none."""
        if "change" in cls.functions:
            return cls.functions["change"](b, found.root)
        replace = cls.functions["replace"]
        values = [found.values.get(name) for name in variable_names(cls)]
        return replace(b, *values, m=found) if _takes_match(replace) else replace(b, *values)


@lru_cache(4096)
def _takes_match(replace: Callable[..., Any]) -> bool:
    return "m" in inspect.signature(replace).parameters


@lru_cache(4096)
def variable_names(rule: type[Rule]) -> list[str]:
    """The parameters of `find`, but for the builder."""
    return list(inspect.signature(rule.functions["find"]).parameters)[1:]


def _recorded(rule: type[Rule]) -> list[Apply]:
    import ir.ops  # noqa: F401 - patterns name ops of the catalogue, which may not be loaded yet

    found = rule.functions["find"](PatternBuilder(), *(Variable(name) for name in variable_names(rule)))
    patterns = found if isinstance(found, list) else [found]
    for pattern in patterns:
        if not isinstance(pattern, Apply):
            raise TypeError(f"rule {rule.__name__}: find must give an op applied to something")
    return patterns


def _used_elsewhere(found: Match) -> Value | None:
    """An inner result that something outside of the match uses."""
    inside = set(found.nodes)
    for node in found.nodes:
        if node is found.root:
            continue
        for value in node.outputs:
            if any(user not in inside for user in value.users) or value in value.graph.outputs:
                return value
    return None


__all__ = ["Match", "NearMiss", "Rule", "variable_names"]
