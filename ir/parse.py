"""Reading texts back: `parse_graph`, `parse_kernel`, and the error both raise.

A graph is rebuilt through the builder, so that every printed type is checked against the op's own type rule. The parser
library is imported, and each grammar prepared, at the first use only: importing this module must stay cheap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.blob import ArrayBlob, Blob, FillBlob
from ir.build import Builder
from ir.dims import Limits, Size, names, parse_dim
from ir.graph import Graph, Value
from ir.kernel import Kernel
from ir.op import OPS, Op, OpError
from ir.text import array_of
from ir.types import DTYPES, DType, MapType, OptionalType, SequenceType, TensorType, Type
from ir.verify import types_agree

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

    Branch = Tree[Token]

_SIZE_PIECE = re.compile(r"`(?:[^`\\]|\\.)*`|[(),]|[^`(),]+", re.DOTALL)


class ParseError(ValueError):
    """Text that is not a graph or kernel. `line` and `column` count from 1; the message shows the place."""

    def __init__(self, message: str, text: str, line: int, column: int) -> None:
        lines = text.splitlines() or [""]
        shown = lines[line - 1] if line <= len(lines) else ""
        start = max(0, column - 80)
        excerpt = f"    {shown[start : start + 140]}\n    {' ' * (column - 1 - start)}^"
        super().__init__(f"line {line}, column {column}: {message}\n{excerpt}")
        self.message = message
        self.line = line
        self.column = column


def parse_graph(text: str, blobs: Mapping[str, Blob] | None = None) -> Graph:
    """The graph whose text this is. `blobs` are the constants it refers to by name (see `ir.text.graph_blobs`).

    Without `blobs`, constants referred to by name are zeros. Raises ParseError.
    """
    import ir.ops  # noqa: F401 - registers the ops that the text names

    tree = parse_tree("graph", text)
    return _GraphReader(text, blobs).graph(subtrees(tree)[0])


def parse_kernel(text: str) -> Kernel:
    """The kernel whose text this is; `ir.verify` says whether it is a good one. Raises ParseError."""
    from ir.kernel_parse import read_kernel

    return read_kernel(text, parse_tree("kernel", text))


def parse_tree(grammar: str, text: str) -> Branch:
    """The syntax tree of `text`. Raises ParseError."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        return _parser(grammar).parse(text)
    except UnexpectedInput as error:
        if isinstance(error, UnexpectedToken) and error.token.type == "$END":
            lines = text.splitlines() or [""]
            raise ParseError("the text ends too soon", text, len(lines), len(lines[-1]) + 1) from error
        found = text[error.pos_in_stream] if isinstance(error, UnexpectedCharacters) else getattr(error, "token", "")
        raise ParseError(f"{str(found)!r} cannot stand here", text, error.line, error.column) from error


@cache
def _parser(grammar: str) -> Lark:
    from lark import Lark

    source = (Path(__file__).parent / "grammar" / f"{grammar}.lark").read_text(encoding="utf-8")
    return Lark(source, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def error_at(text: str, place: Branch | Token, message: str) -> ParseError:
    """A ParseError at a tree or token of the parser."""
    meta: Any = getattr(place, "meta", place)
    return ParseError(message, text, getattr(meta, "line", 1), getattr(meta, "column", 1))


def subtrees(tree: Branch) -> list[Branch]:
    """The children of a tree that are trees."""
    return [child for child in tree.children if not isinstance(child, str)]


def tokens(tree: Branch, kind: str | None = None) -> list[Token]:
    """The children of a tree that are tokens, optionally those of one kind."""
    return [child for child in tree.children if isinstance(child, str) and kind in (None, child.type)]


def unquoted(token: str) -> str:
    """The name after `%` or `@`."""
    return json.loads(token[1:]) if token[1] == '"' else token[1:]


def plain_name(token: str) -> str:
    """A name of the language of sizes, out of its backticks."""
    return next(iter(names(parse_dim(token)))) if token[0] == "`" else str(token)


@lru_cache(maxsize=4096)
def tensor_type(text: str) -> TensorType:
    """The tensor type printed as `text`. Raises ValueError."""
    dtype, _, inner = text[:-1].partition("[")
    if dtype not in DTYPES:
        raise ValueError(f"there is no element type {dtype!r}")
    return TensorType(DTYPES[dtype], tuple(parse_dim(part) for part in _split(inner)))


def _split(text: str) -> list[str]:
    """`text` cut at commas outside of parentheses and backticks; an empty text has no parts."""
    if not text.strip():
        return []
    parts, depth = [""], 0
    for piece in _SIZE_PIECE.findall(text):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


class _GraphReader:
    """Turns syntax trees of one text into graphs."""

    def __init__(self, text: str, blobs: Mapping[str, Blob] | None) -> None:
        self.text = text
        self.blobs = blobs
        self.limits: Limits[Size | None] = Limits()

    def error(self, place: Branch | Token, message: str) -> ParseError:
        return error_at(self.text, place, message)

    def graph(self, tree: Branch) -> Graph:
        graph = Graph(unquoted(tokens(tree)[0]))
        graph.limits = self.limits
        values: dict[str, Value] = {}
        declared: list[Branch] = []
        for part in subtrees(tree):
            match part.data:
                case "param":
                    name, type_ = self.param(part, values)
                    values[name] = graph.add_input(name, type_)
                case "where":
                    self.where(graph, part)
                case "node" | "constant":
                    self.node(graph, part, values)
                case "return_":
                    self.results(graph, part, values, declared)
                case _:
                    declared.append(part)
        return graph

    def param(self, tree: Branch, values: Mapping[str, Value]) -> tuple[str, Type]:
        name = unquoted(tokens(tree)[0])
        if name in values:
            raise self.error(tree, f"%{name} is defined twice")
        return name, self.type(subtrees(tree)[0])

    def where(self, graph: Graph, tree: Branch) -> None:
        for condition in subtrees(tree):
            sizes = [self.size(part) for part in subtrees(condition)]
            if condition.data == "equality":
                graph.equal_dims.append((sizes[0], sizes[1]))
                continue
            least, *greatest = [s for i, s in enumerate(sizes) if i != 1]
            name = plain_name(self.slice(subtrees(condition)[1]))
            if not isinstance(least, int) or not all(isinstance(s, int) for s in greatest):
                raise self.error(condition, "bounds are written as: 1 <= N <= 512")
            graph.bounds[name] = (least, greatest[0] if greatest else None)  # type: ignore[assignment]

    def results(self, graph: Graph, tree: Branch, values: Mapping[str, Value], declared: list[Branch]) -> None:
        outputs, outer_names = [], []
        for part in subtrees(tree):
            used, *renamed = tokens(part)
            value = self.value_of(used, values)
            outputs.append(value)
            outer_names.append(json.loads(renamed[0]) if renamed else value.name)
        if len(declared) != len(outputs):
            raise self.error(tree, f"the graph declares {len(declared)} outputs and returns {len(outputs)}")
        for place, value in zip(declared, outputs):
            if self.type(place) != value.type:
                raise self.error(place, f"%{value.name} is {value.type}")
        graph.set_outputs(outputs, outer_names)

    def value_of(self, token: Token, values: Mapping[str, Value]) -> Value:
        value = values.get(unquoted(token))
        if value is None:
            raise self.error(token, f"{token} is not defined here")
        return value

    def node(self, graph: Graph, tree: Branch, values: dict[str, Value]) -> None:
        """Rebuilds a node and compares what its type rule gives with what the text says."""
        parts: dict[str, list[Branch]] = {}
        for part in subtrees(tree):
            parts.setdefault(part.data if part.data in _NODE_PARTS else "value", []).append(part)
        expected: dict[str, Type] = {}
        for part in parts["param"]:
            name, type_ = self.param(part, values)
            if name in expected:
                raise self.error(part, f"%{name} is defined twice")
            expected[name] = type_
        if tree.data == "constant":
            (only,) = expected.values()
            op_: Op = OPS["const"](blob=self.constant(tree, parts.get("value"), only))  # type: ignore[call-arg]
        else:
            op_ = self.op(tree, parts.get("attribute", []))
            given = {n for v in values.values() if isinstance(v.type, TensorType) for s in v.shape for n in names(s)}
            told = {name for size in op_.sizes_defined() for name in names(size)} - given if op_.defines else set()
            self.limits.update(dict.fromkeys(sorted(told - self.limits.keys())))
        operands = [self.operand(part, values) for part in parts.get("operand", [])]
        sources = tuple(json.loads(token) for part in parts.get("loc", []) for token in tokens(part))
        try:
            made = Builder(graph, sources=sources).apply(op_, *operands, names=tuple(expected))
        except (OpError, ArithmeticError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise self.error(tree, f"{op_.name}: {error}") from error
        outputs: tuple[Value, ...] = made if isinstance(made, tuple) else (made,)
        if len(outputs) != len(expected):
            raise self.error(tree, f"{op_.name} has {len(outputs)} outputs, not {len(expected)}")
        for place, value, type_ in zip(parts["param"], outputs, expected.values()):
            if not types_agree(graph, type_, value.type):
                raise self.error(place, f"%{value.name} is {type_} in the text, its type rule gives {value.type}")
            value.type = type_
            values[value.name] = value

    def operand(self, tree: Branch, values: Mapping[str, Value]) -> Value | None:
        token = tokens(tree)[0]
        return None if token == "_" else self.value_of(token, values)

    def op(self, tree: Branch, attributes: list[Branch]) -> Op:
        token = tokens(tree, "NAME")[0]
        cls = OPS.get(token)
        if cls is None:
            raise self.error(token, f"there is no op named {str(token)!r}")
        given: dict[str, Any] = {}
        for attribute in attributes:
            given[str(tokens(attribute)[0])] = self.attribute(subtrees(attribute)[0])
        try:
            return cls(**given)
        except (TypeError, ValueError, OpError) as error:
            raise self.error(token, f"{token}: {error}") from error

    def constant(self, tree: Branch, literal: list[Branch] | None, type_: Type) -> Blob:
        if not isinstance(type_, TensorType) or not all(isinstance(size, int) for size in type_.shape):
            raise self.error(tree, f"a constant cannot be {type_}")
        shape = tuple(int(size) for size in type_.shape)
        if literal:
            return self.literal(literal[0], type_.dtype, shape)
        token = tokens(tree, "GLOBAL")[0]
        if self.blobs is None:
            return FillBlob("" if type_.dtype.kind == "string" else 0, type_.dtype, shape)
        blob = self.blobs.get(unquoted(token))
        if blob is None:
            raise self.error(token, f"there is no constant {token}")
        if (blob.dtype, blob.shape) != (type_.dtype, shape):
            raise self.error(token, f"the constant {token} is {TensorType(blob.dtype, blob.shape)}")
        return blob

    def literal(self, tree: Branch, dtype: DType, shape: tuple[int, ...]) -> Blob:
        """The elements of a constant as an array."""
        items = list(_flat(self.attribute(tree)))
        if len(items) != int(np.prod(shape, dtype=np.int64)):
            raise self.error(tree, f"{len(items)} elements for a constant of shape {list(shape)}")
        kinds: tuple[type, ...] = {"string": (str,), "bool": (bool,), "float": (int, float)}.get(dtype.kind, (int,))
        if dtype.kind == "complex":
            kinds = (int, float, complex)
        if not all(isinstance(item, kinds) and (dtype.kind == "bool" or not isinstance(item, bool)) for item in items):
            raise self.error(tree, f"these are not elements of type {dtype}")
        try:
            return ArrayBlob(array_of(items, dtype, shape))
        except (OverflowError, ValueError) as error:
            raise self.error(tree, str(error)) from error

    def attribute(self, tree: Branch) -> Any:
        """The value of an attribute or of a constant."""
        match tree.data:
            case "none":
                return None
            case "true" | "false":
                return tree.data == "true"
            case "float":
                return float(tokens(tree)[0])
            case "string":
                return json.loads(tokens(tree)[0])
            case "complex":
                return complex(*(float(token) for token in tokens(tree)))
            case "list":
                return tuple(self.attribute(child) for child in subtrees(tree))
            case "graph":
                return self.graph(tree)
            case "size":
                return DTYPES.get(self.slice(tree)) or self.size(tree)
            case _:
                return self.type(tree)

    def type(self, tree: Branch) -> Type:
        match tree.data:
            case "tensor":
                return self.tensor(tokens(tree)[0])
            case "sequence":
                return SequenceType(self.type(subtrees(tree)[0]))
            case "optional":
                return OptionalType(self.type(subtrees(tree)[0]))
            case _:
                key = tokens(tree, "NAME")[0]
                if key not in DTYPES:
                    raise self.error(key, f"there is no element type {str(key)!r}")
                return MapType(DTYPES[key], self.type(subtrees(tree)[0]))

    def tensor(self, token: Token) -> TensorType:
        try:
            return tensor_type(str(token))
        except ValueError as error:
            raise self.error(token, str(error)) from error

    def slice(self, tree: Branch) -> str:
        return self.text[tree.meta.start_pos : tree.meta.end_pos]

    def size(self, tree: Branch) -> Size:
        try:
            return parse_dim(self.slice(tree))
        except ValueError as error:
            raise self.error(tree, str(error)) from error


_NODE_PARTS = frozenset(("param", "operand", "attribute", "loc"))


def _flat(value: Any) -> Iterator[Any]:
    """The items of nested tuples in order."""
    if isinstance(value, tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


__all__ = ["ParseError", "parse_graph", "parse_kernel"]
