"""The texts of graphs, kernels and programs.

`ir.parse` reads graphs and kernels back as equal ones, so every name, type, attribute and literal is exact. Text is
deterministic: no addresses, no set order. This module only reads; it must never change what it prints.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ir.blob import ArrayBlob, Blob
from ir.dim_text import quote_name
from ir.dims import Dim, Size, dim_text
from ir.expr import const
from ir.graph import Graph, Node
from ir.kernel import Kernel
from ir.op import Op
from ir.program import Bind, Branch, Call, Program, ProgramBuffer, Repeat, Step
from ir.types import DTYPES, DType, MapType, OptionalType, SequenceType, TensorType

INLINE_LIMIT = 16
"""Constants of at most this many elements are printed; larger ones are referred to by name."""
_ALIGN_LIMIT = 64

GRAPH_WORDS = frozenset(("true", "false", "none", "inf", "nan", "complex", "graph", "where", *DTYPES))
"""Words that mean something else in a graph's text, so a dim of this name is quoted."""
_PLAIN_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*|[0-9]+")
_DIM_PIECE = re.compile(r"(?P<quoted>`(?:[^`\\]|\\.)*`)|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)(?P<call>\()?|.", re.DOTALL)


def graph_text(graph: Graph) -> str:
    """The text of a graph, nested graphs included. Raises TypeError for an attribute that has no text."""
    return "\n".join(_graph_lines(graph, _blob_names(graph))) + "\n"


def graph_blobs(graph: Graph) -> dict[str, Blob]:
    """The constants that `graph_text` refers to by name, which `parse_graph` needs besides the text."""
    return {name: getattr(node.op, "blob") for node, name in _blob_names(graph).items()}  # noqa: B009


def kernel_text(kernel: Kernel) -> str:
    """The text of a kernel."""
    from ir.kernel_text import kernel_lines

    return "\n".join(kernel_lines(kernel)) + "\n"


def program_text(program: Program) -> str:
    """A program for the reader: its buffers and where they lie, its kernels, its calls. It is not read back."""
    parts = [_program_head(program), _program_buffers(program)]
    parts += [kernel_text(kernel).splitlines() for kernel in program.kernels]
    parts.append(["run {", *_step_lines(program.steps, "  "), "}"])
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


# Names, types, sizes, literals.


def value_name(name: str) -> str:
    """`name` itself if it is plain, else as a JSON string: what follows `%` or `@`."""
    return name if _PLAIN_VALUE.fullmatch(name) else json.dumps(name)


def size_text(size: Size, words: frozenset[str]) -> str:
    """`dim_text` with names that are `words` of the language put between backticks."""
    text = dim_text(size)
    if not any(word in text for word in words):
        return text
    return _DIM_PIECE.sub(lambda m: f"`{m['name']}`" if m["name"] in words and not m["call"] else m[0], text)


def name_text(name: str, words: frozenset[str]) -> str:
    """A name as it stands in sizes and kernels: bare where it is an identifier and not one of `words`."""
    return f"`{name}`" if name in words else quote_name(name)


def literal_text(value: Any, dtype: DType) -> str:
    """A number, bool or string as the shortest text that `literal` of `dtype` reads back exactly."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, complex):
        return f"complex({float_text(value.real)}, {float_text(value.imag)})"
    if isinstance(value, float) and dtype.is_float:
        short = float_text(float(str(dtype.numpy.type(value))))
        return short if repr(const(float(short), dtype).value) == repr(value) else float_text(value)
    return float_text(value) if isinstance(value, float) else str(value)


def float_text(value: float) -> str:
    """The repr of a float, always with a point, an exponent, or as (-)inf or nan."""
    return repr(float(value))


# Graphs.


def _blob_names(graph: Graph) -> dict[Node, str]:
    """The constants of a graph and its nested graphs that are referred to by name: the value's name, made distinct."""
    found: dict[Node, str] = {}
    taken: set[str] = set()
    pending = [graph]
    while pending:
        current = pending.pop(0)
        for node in current.nodes():
            pending.extend(_nested_graphs(node.op))
            if node.op.name != "const" or _inline_constant(node) is not None:
                continue
            name, count = node.output.name, 0
            while name in taken:
                count += 1
                name = f"{node.output.name}.{count}"
            taken.add(name)
            found[node] = name
    return found


def _nested_graphs(op: Op) -> list[Graph]:
    """The graphs among the attributes of an op, also those in tuples."""
    found: list[Graph] = []
    pending = list(vars(op).values())
    while pending:
        value = pending.pop(0)
        if isinstance(value, Graph):
            found.append(value)
        elif isinstance(value, tuple):
            pending[:0] = value
    return found


def _inline_constant(node: Node) -> str | None:
    """The elements of a small array as text, or None for a constant that is referred to by name."""
    blob = getattr(node.op, "blob")  # noqa: B009
    if not isinstance(blob, ArrayBlob) or blob.elements > INLINE_LIMIT:
        return None
    array = blob.array()
    if blob.dtype.kind == "string":
        return _array_text(array, blob.dtype) if all(isinstance(v, str) for v in array.flat) else None
    # Only what reads back to the same bytes is printed: a NaN with a payload is not.
    plain = [_plain_nan(value) for value in array.ravel().tolist()]
    exact = array_of(plain, blob.dtype, blob.shape).tobytes() == array.tobytes()
    return _array_text(array, blob.dtype) if exact else None


def _plain_nan(value: Any) -> Any:
    """A number as its text reads back."""
    if isinstance(value, complex):
        return complex(_plain_nan(value.real), _plain_nan(value.imag))
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def array_of(values: Sequence[Any], dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """The array of `dtype` and `shape` that holds `values` in row-major order."""
    array = np.empty(len(values), dtype=dtype.numpy)
    for position, value in enumerate(values):
        array[position] = value
    return array.reshape(shape)


def _array_text(array: np.ndarray, dtype: DType) -> str:
    if array.ndim == 0:
        return literal_text(array.tolist(), dtype)
    parts = (array[i : i + 1].reshape(array.shape[1:]) for i in range(array.shape[0]))
    return "[" + ", ".join(_array_text(part, dtype) for part in parts) + "]"


def _graph_lines(graph: Graph, blobs: dict[Node, str]) -> list[str]:
    inputs = ", ".join(f"%{value_name(v.name)}: {v.type}" for v in graph.inputs)
    outputs = ", ".join(str(v.type) for v in graph.outputs)
    conditions = ", ".join(_conditions(graph, GRAPH_WORDS))
    where = f" where {conditions}" if conditions else ""
    head = f"graph @{value_name(graph.name)}({inputs}) -> ({outputs}){where} {{"
    rows = [_node_columns(node, blobs) for node in graph.nodes()]
    results = [
        f"%{value_name(v.name)}" + (f" as {json.dumps(name)}" if name != v.name else "")
        for v, name in zip(graph.outputs, graph.output_names)
    ]
    last = f"  return {', '.join(results)}" if results else "  return"
    return [head, *_aligned(rows), last, "}"]


def _conditions(owner: Graph | Program, words: frozenset[str]) -> list[str]:
    """What `owner` assumes of its symbolic dims: `1 <= N <= 512`, `A == B`."""
    conditions = []
    for name, (least, greatest) in owner.bounds.items():
        upper = "" if greatest is None else f" <= {greatest}"
        conditions.append(f"{least} <= {name_text(name, words)}{upper}")
    return conditions + [f"{size_text(a, words)} == {size_text(b, words)}" for a, b in owner.equal_dims]


def _node_columns(node: Node, blobs: dict[Node, str]) -> tuple[str, str, str]:
    """A node as its results, its op with operands and attributes, and its sources."""
    results = ", ".join(f"%{value_name(v.name)}: {v.type}" for v in node.outputs)
    sources = f"loc({', '.join(json.dumps(s) for s in node.sources)})" if node.sources else ""
    if node.op.name == "const":
        name = blobs.get(node)
        return results, f"const {_inline_constant(node) if name is None else '@' + value_name(name)}", sources
    operands = ", ".join("_" if v is None else f"%{value_name(v.name)}" for v in node.inputs)
    attributes = ", ".join(f"{k}={attribute_text(v, blobs)}" for k, v in node.op.attributes().items())
    text = " ".join(part for part in (node.op.name, operands, f"{{{attributes}}}" if attributes else "") if part)
    return results, text, sources


def attribute_text(value: Any, blobs: dict[Node, str] | None = None) -> str:
    """The text of an attribute's value. Raises TypeError for a type that has none."""
    match value:
        case None:
            return "none"
        case bool() | str():
            return literal_text(value, DTYPES["bool"])
        case float() | complex():
            return literal_text(value, DTYPES["f64"]) if isinstance(value, complex) else float_text(value)
        case int() | Dim():
            return size_text(value, GRAPH_WORDS)
        case DType():
            return value.name
        case tuple():
            return "[" + ",".join(attribute_text(v, blobs) for v in value) + "]"
        case Graph():
            return "\n".join(_graph_lines(value, _blob_names(value) if blobs is None else blobs))
        case np.generic():
            return attribute_text(value.item(), blobs)
        case TensorType() | SequenceType() | OptionalType() | MapType():
            return str(value)
        case _:
            raise TypeError(f"an attribute of type {type(value).__name__} has no text")


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows `results = op  loc(...)` with `=` and `loc` in columns, as far as lines stay readable."""
    left = max((len(r[0]) for r in rows if len(r[0]) <= _ALIGN_LIMIT), default=0)
    middle = max((len(r[1]) for r in rows if r[2] and len(r[1]) <= _ALIGN_LIMIT), default=0)
    lines: list[str] = []
    for results, op_text, sources in rows:
        start = f"{results.ljust(left)} = " if results else ""
        line = start + (f"{op_text.ljust(middle)}   {sources}" if sources else op_text)
        lines.extend("  " + part for part in line.split("\n"))
    return lines


# Programs.


def _program_head(program: Program) -> list[str]:
    lines = [f"program @{value_name(program.name)}"]
    for title, buffers, outer in (
        ("inputs", program.inputs, program.input_names),
        ("outputs", program.outputs, program.output_names),
    ):
        shown = [f"{json.dumps(name)}: %{value_name(buffer)}" for buffer, name in zip(buffers, outer)]
        lines.append(f"  {title}: {', '.join(shown) or 'none'}")
    bounds = [
        f"{lo} <= {quote_name(n)}" + ("" if hi is None else f" <= {hi}") for n, (lo, hi) in program.bounds.items()
    ]
    equal = [f"{dim_text(a)} == {dim_text(b)}" for a, b in program.equal_dims]
    limits = [f"{quote_name(name)} <= {dim_text(limit)}" for name, limit in program.limits.items()]
    limits += [f"{'*'.join(map(quote_name, sorted(g)))} <= {dim_text(n)}" for g, n in program.limits.products.items()]
    if bounds or equal or limits:
        lines.append(f"  where: {', '.join(bounds + equal + limits)}")
    lines.append(f"  arena: {dim_text(program.arena_bytes)} bytes in {len(program.slots)} slots")
    lines += [f"    slot {i}: {dim_text(slot.bytes)} bytes" for i, slot in enumerate(program.slots)]
    if program.pipeline:
        lines.append(f"  pipeline: {program.pipeline}")
    return lines


def _program_buffers(program: Program) -> list[str]:
    rows = [(f"%{value_name(b.name)}: {b.type}", _place_text(b)) for b in program.buffers.values()]
    width = max((len(r[0]) for r in rows if len(r[0]) <= _ALIGN_LIMIT), default=0)
    return ["buffers {", *(f"  {name.ljust(width)}  {place}" for name, place in rows), "}"]


def _place_text(buffer: ProgramBuffer) -> str:
    match buffer.place:
        case "arena":
            return f"arena slot {buffer.slot} + {buffer.offset}"
        case "view":
            return f"view of %{value_name(buffer.base or '')}"
        case "weight" if buffer.blob is not None:
            return f"weight, {buffer.blob.nbytes} bytes"
        case place:
            return place


def _step_lines(steps: Iterable[Step], indent: str) -> list[str]:
    lines: list[str] = []
    for step in steps:
        match step:
            case Call():
                lines.append(indent + _call_text(step))
            case Branch():
                lines.append(f"{indent}if %{value_name(step.condition)} {{{_sources(step.sources)}")
                lines += _arm_lines(step.then, step.equal_then, indent + "  ")
                if step.orelse or step.equal_orelse:
                    lines.append(f"{indent}}} else {{")
                    lines += _arm_lines(step.orelse, step.equal_orelse, indent + "  ")
                lines.append(indent + "}")
            case Bind():
                values = (f"%{value_name(v)}" if isinstance(v, str) else dim_text(v) for _, v in step.pairs)
                pairs = ", ".join(f"{dim_text(size)} = {value}" for (size, _), value in zip(step.pairs, values))
                copies = ", ".join(f"%{value_name(target)} = %{value_name(source)}" for source, target in step.copies)
                word = "let" if step.settled else "reserve" if step.reserves else "let for now"
                lines.append(f"{indent}{word} {', '.join(filter(None, (pairs, copies)))}{_sources(step.sources)}")
            case Repeat():
                trip = "" if step.trip is None else f" in 0..%{value_name(step.trip)}"
                trip += "" if step.times is None else f" in 0..{dim_text(step.times)}"
                going = "" if step.going is None else f" while %{value_name(step.going)}"
                lines.append(f"{indent}for {quote_name(step.step)}{trip}{going} {{{_sources(step.sources)}")
                lines += [*_arm_lines(step.body, step.equal, indent + "  "), indent + "}"]
    return lines


def _arm_lines(steps: Iterable[Step], equal: Iterable[tuple[Size, Size]], indent: str) -> list[str]:
    demands = [f"{dim_text(a)} == {dim_text(b)}" for a, b in equal]
    return [*([f"{indent}where {', '.join(demands)}"] if demands else []), *_step_lines(steps, indent)]


def _call_text(call: Call) -> str:
    args = ", ".join(f"%{value_name(name)}" for name in call.args)
    sizes = ", ".join(f"{quote_name(k)}={dim_text(v)}" for k, v in zip(call.kernel.sizes, call.sizes))
    return f"@{value_name(call.kernel.name)}({args}){f' {{{sizes}}}' if sizes else ''}{_sources(call.sources)}"


def _sources(sources: tuple[str, ...]) -> str:
    return f"   loc({', '.join(json.dumps(s) for s in sources)})" if sources else ""
