"""Patterns: the shape of a small expression, recorded by a builder, and where it stands in a graph.

A pattern is a directed graph of terms: an op applied to terms, a variable, a number. The same term in two places must
be the same value in both. Matching only reads the graph; it knows nothing of rules and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ir.graph import Node, Value
from ir.op import OPS, Op

COMMUTATIVE = {"add", "mul", "min", "max", "and", "or", "xor", "equal", "not_equal"}
"""Ops of two operands whose order does not matter; they match either way round."""

_TOLERANCE = 1e-6  # relative: a constant of a model was often rounded to f32 on its way


class Term:
    """A part of a pattern. Arithmetic on terms records ops, as arithmetic on values inserts them."""

    def __add__(self, other: Any) -> Apply:
        return Apply(OPS["add"], (self, other))

    def __radd__(self, other: Any) -> Apply:
        return Apply(OPS["add"], (other, self))

    def __sub__(self, other: Any) -> Apply:
        return Apply(OPS["sub"], (self, other))

    def __rsub__(self, other: Any) -> Apply:
        return Apply(OPS["sub"], (other, self))

    def __mul__(self, other: Any) -> Apply:
        return Apply(OPS["mul"], (self, other))

    def __rmul__(self, other: Any) -> Apply:
        return Apply(OPS["mul"], (other, self))

    def __truediv__(self, other: Any) -> Apply:
        return Apply(OPS["div"], (self, other))

    def __rtruediv__(self, other: Any) -> Apply:
        return Apply(OPS["div"], (other, self))

    def __neg__(self) -> Apply:
        return Apply(OPS["neg"], (self,))


class Variable(Term):
    """Any value; a parameter of `find`."""

    def __init__(self, name: str) -> None:
        self.name = name


class Number(Term):
    """A constant of one element, equal to `value` but for rounding."""

    def __init__(self, value: complex) -> None:
        self.value = value


class Part(Term):
    """One of several outputs of an op."""

    def __init__(self, whole: Apply, index: int) -> None:
        self.whole = whole
        self.index = index


@dataclass(frozen=True)
class AnyAttribute:
    """Stands for an attribute's value in a pattern; the same name twice must be the same value."""

    name: str


class Apply(Term):
    """An op on terms. Attributes that are not given must have their defaults."""

    def __init__(self, op: type[Op], operands: tuple[Any, ...], attributes: dict[str, Any] | None = None) -> None:
        self.op = op
        self.operands = tuple(_term(operand) for operand in operands)
        self.attributes = attributes or {}
        self.commutative = op.name in COMMUTATIVE and len(self.operands) == 2
        # The most telling operands are compared first, so that most failures are quick.
        self.needs = {_class(operand) for operand in self.operands if isinstance(operand, (Apply, Part))}
        self.needs_number = any(isinstance(operand, Number) for operand in self.operands)
        self.order = sorted(range(len(self.operands)), key=lambda i: _weight(self.operands[i]))
        defaults = op() if not self._required() else None
        for name in op.__dataclass_fields__:  # type: ignore[attr-defined]
            if name not in self.attributes:
                self.attributes[name] = getattr(defaults, name) if defaults is not None else _default(op, name)
        unknown = self.attributes.keys() - op.__dataclass_fields__.keys()  # type: ignore[attr-defined]
        if unknown:
            raise TypeError(f"op {op.name} has no attribute {', '.join(sorted(unknown))}")

    def _required(self) -> bool:
        from dataclasses import MISSING

        fields = self.op.__dataclass_fields__.values()  # type: ignore[attr-defined]
        return any(f.default is MISSING and f.default_factory is MISSING for f in fields)

    def may_match(self, ops: set[type[Op]], has_number: bool) -> bool:
        """False where a node cannot be this term, whose operands are results of `ops`, or known (`has_number`)."""
        return self.needs <= ops and (has_number or not self.needs_number)

    def __getitem__(self, index: int) -> Part:
        return Part(self, index)


def _class(term: Apply | Part) -> type[Op]:
    return term.op if isinstance(term, Apply) else term.whole.op


def _default(op: type[Op], name: str) -> Any:
    from dataclasses import MISSING

    found = op.__dataclass_fields__[name].default  # type: ignore[attr-defined]
    if found is MISSING:
        raise TypeError(f"a pattern must give attribute {name} of {op.name}, which has no default")
    return found


def _term(operand: Any) -> Term | None:
    if operand is None or isinstance(operand, Term):
        return operand
    if isinstance(operand, (bool, int, float, complex, np.generic)):
        return Number(operand)  # type: ignore[arg-type]
    raise TypeError(f"a pattern has terms, numbers and None, not {type(operand).__name__}")


def _weight(term: Term | None) -> int:
    return 2 if isinstance(term, Variable) else 1 if isinstance(term, Number) else 0


def operand_facts(node: Node) -> tuple[set[type[Op]], bool]:
    """What `Apply.may_match` takes: the ops that give the operands of a node, and whether one of them is known."""
    operands = [v for v in node.inputs if v is not None]
    return {type(v.node.op) for v in operands if v.node is not None}, any(v.content is not None for v in operands)


class PatternBuilder:
    """The builder that records: `b.erf(x)` is a term."""

    def __getattr__(self, name: str) -> Callable[..., Apply]:
        cls = OPS.get(name.rstrip("_")) or OPS.get(name)
        if cls is None:
            raise AttributeError(f"there is no op named {name!r}")
        return lambda *operands, **attributes: Apply(cls, operands, attributes)

    def any_attr(self, name: str) -> AnyAttribute:
        """An attribute of any value, known to `check` and `replace` as `m[name]`."""
        return AnyAttribute(name)


def terms_of(root: Apply) -> list[Term]:
    """The ops and numbers of a pattern, each once, the root first."""
    found: dict[Term, None] = {}
    stack: list[Term | None] = [root]
    while stack:
        term = stack.pop()
        if isinstance(term, Part):
            term = term.whole
        if term is None or isinstance(term, Variable) or term in found:
            continue
        found[term] = None
        if isinstance(term, Apply):
            stack.extend(reversed(term.operands))
    return list(found)


def depth_of(root: Apply) -> int:
    """The number of ops on the longest way down from the root."""
    below = [depth_of(o.whole if isinstance(o, Part) else o) for o in root.operands if isinstance(o, (Apply, Part))]
    return 1 + max(below, default=0)


@dataclass
class Match:
    """Where a pattern stands: its root, its nodes (the root last), and what its variables are."""

    root: Node
    nodes: list[Node]
    values: dict[str, Value] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The attribute, or else the value, that the pattern calls so."""
        return self.attributes[name] if name in self.attributes else self.values[name]


@dataclass
class Trace:
    """How far the best attempt at a pattern came: terms matched, and the first difference then."""

    matched: int = 0
    reason: str = ""


_Goals = tuple[Any, Any, Any] | None


class _Attempt:
    """One attempt to match, with everything bound so far; `trail` says in which order, for going back."""

    def __init__(self, trace: Trace | None) -> None:
        self.trace = trace
        self.bound: dict[Term, Value | None] = {}
        self.attributes: dict[str, Any] = {}
        self.trail: list[Term | str] = []

    def undo(self, length: int) -> None:
        while len(self.trail) > length:
            key = self.trail.pop()
            if isinstance(key, str):
                del self.attributes[key]
            else:
                del self.bound[key]

    def fail(self, reason: Callable[..., str], *about: Any) -> bool:
        """False; the trace, if there is one, learns `reason(*about)` where no attempt came further."""
        if self.trace is not None:
            matched = sum(isinstance(term, (Apply, Number)) for term in self.trail)
            if matched > self.trace.matched:
                self.trace.matched, self.trace.reason = matched, reason(*about)
        return False

    def solve(self, goals: _Goals) -> bool:
        """Whether all (term, value) goals hold together; tries both orders of commutative operands."""
        while goals is not None:
            term, value, goals = goals
            if term is None or value is None:
                if term is not value:
                    return self.fail(_omission, value)
                continue
            if term in self.bound:
                if self.bound[term] is not value:
                    return self.fail(_two_values, value, self.bound[term])
                continue
            if isinstance(term, Part):
                if value.node is None or value.index != term.index:
                    return self.fail(_other_output, value, term)
                goals = (term.whole, value.node.outputs[0], goals)
                continue
            if not self.accept(term, value):
                return False
            self.bound[term] = value
            self.trail.append(term)
            if not isinstance(term, Apply):
                continue
            operands = value.node.inputs
            if len(operands) < len(term.operands):
                operands = [*operands, *[None] * (len(term.operands) - len(operands))]
            if term.commutative and operands[0] is not operands[1]:
                length = len(self.trail)
                if self.solve(_push(term, operands, goals)):
                    return True
                self.undo(length)
                operands = operands[::-1]
            goals = _push(term, operands, goals)
        return True

    def accept(self, term: Term, value: Value) -> bool:
        """Whether `value` can be `term`, operands aside."""
        if isinstance(term, Number):
            return is_number(value, term.value) or self.fail(_not_number, value, term.value)
        if not isinstance(term, Apply):
            return True
        node = value.node
        if node is None or type(node.op) is not term.op or value.index:
            return self.fail(_other_op, value, term)
        if len(node.inputs) > len(term.operands) and any(v is not None for v in node.inputs[len(term.operands) :]):
            return self.fail(_other_arity, node, term)
        return self.accept_attributes(term, node)

    def accept_attributes(self, term: Apply, node: Node) -> bool:
        for name, wanted in term.attributes.items():
            found = getattr(node.op, name)
            if not isinstance(wanted, AnyAttribute):
                if found != wanted and not _is_close(found, wanted):
                    return self.fail(_other_attribute, node, name, wanted)
            elif wanted.name not in self.attributes:
                self.attributes[wanted.name] = found
                self.trail.append(wanted.name)
            elif self.attributes[wanted.name] != found:
                return self.fail(_other_attribute, node, name, self.attributes[wanted.name])
        return True


def _is_close(found: Any, wanted: Any) -> bool:
    return isinstance(found, float) and isinstance(wanted, float) and abs(found - wanted) <= _TOLERANCE * abs(wanted)


def _push(term: Apply, operands: list[Value | None], goals: _Goals) -> _Goals:
    for i in reversed(term.order):
        goals = (term.operands[i], operands[i], goals)
    return goals


# The first difference, as a sentence.


def _omission(value: Value | None) -> str:
    return "an operand is missing" if value is None else f"%{value.name} is given, and the pattern omits it"


def _two_values(value: Value, other: Value | None) -> str:
    return f"%{value.name} and {'an omitted operand' if other is None else f'%{other.name}'} are not one value"


def _other_output(value: Value, term: Part) -> str:
    return f"%{value.name} is not output {term.index} of {term.whole.op.name}"


def _other_op(value: Value, term: Apply) -> str:
    return f"%{value.name} is {'an input' if value.node is None else value.node.op.name}, not {term.op.name}"


def _other_arity(node: Node, term: Apply) -> str:
    return f"%{node.outputs[0].name} has {len(node.inputs)} operands, not {len(term.operands)}"


def _other_attribute(node: Node, name: str, wanted: Any) -> str:
    return f"%{node.outputs[0].name} has {name}={getattr(node.op, name)}, not {wanted}"


def _not_number(value: Value, wanted: complex) -> str:
    content = value.content
    if content is None or content.size != 1:
        return f"%{value.name} is not the constant {wanted:.7g}"
    return f"%{value.name} is {content.reshape(-1)[0]}, not {wanted:.7g}"


def is_number(value: Value, wanted: complex) -> bool:
    """Whether a value is known to have one element, equal to `wanted` up to rounding to its type."""
    content = value.content
    if content is None or content.size != 1:
        return False
    kind = content.dtype.kind
    if kind in "iub":
        return content.item() == wanted
    if kind in "OSU":
        found = content.item()
        return isinstance(found, (int, float)) and found == wanted
    found = content.item()
    if found == wanted:
        return True
    if not np.isfinite(wanted):
        return False
    rounded = np.asarray(wanted).astype(content.dtype).item()
    return found == rounded or abs(found - wanted) <= _TOLERANCE * abs(wanted)


def match(pattern: Apply, node: Node, trace: Trace | None = None) -> Match | None:
    """The pattern with its root at `node`, or None; `trace` learns how far the best attempt came."""
    attempt = _Attempt(trace)
    if not attempt.solve((pattern, node.outputs[0], None)):
        return None
    nodes: dict[Node, None] = {}
    values: dict[str, Value] = {}
    for term, value in attempt.bound.items():
        if isinstance(term, Apply) and value is not None and value.node is not None:
            nodes[value.node] = None
        elif isinstance(term, Variable) and value is not None:
            values[term.name] = value
    return Match(node, _producers_first(node, nodes), values, attempt.attributes)


def _producers_first(root: Node, nodes: dict[Node, None]) -> list[Node]:
    order: dict[Node, None] = {}
    stack = [(root, False)]
    while stack:
        node, is_ready = stack.pop()
        if is_ready:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            stack.extend((v.node, False) for v in reversed(node.inputs) if v is not None and v.node in nodes and v.node)
    return list(order)
