"""From a loaded ONNX model to a graph: names, opsets, functions, subgraphs. What an operator means is in `ops/`.

All problems of a model are collected and reported together, each with its node. Values that depend on a node which
failed are skipped in silence, so that one cause gives one error.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx

import ir.ops  # noqa: F401 - registers the ops that the builder makes
from compiler.errors import CompileError, ModelError, NodeRef, Problems, UnsupportedError, UsageError
from compiler.onnx import registry
from compiler.onnx.builder import Failed, OnnxBuilder
from compiler.onnx.conditions import Knowledge
from compiler.onnx.functions import FunctionLibrary, attribute_types, body_of_schema, may_have_body
from compiler.onnx.load import LoadedModel, element_type
from compiler.onnx.needs import inputs_behind
from compiler.onnx.signature import DimSpec, input_types
from ir.build import Builder
from ir.demand import told_late
from ir.dims import Dim, Size, Undecided, bounded, greatest, names
from ir.element import Names
from ir.graph import Graph, Node, Value
from ir.op import OpError, UnknownValue
from ir.types import OptionalType, SequenceType, TensorType, Type

_NEST_LIMIT = 32
_T = TypeVar("_T")


class Scope:
    """The names of one ONNX graph: values made so far, and initializers not yet used."""

    def __init__(
        self, importer: Importer, graph: Graph, outer: Scope | None, path: str, opsets: Mapping[str, int]
    ) -> None:
        self.importer = importer
        self.graph = graph
        self.outer = outer
        self.path = path
        self.opsets = opsets
        self.values: dict[str, Value | None] = {}
        self.initializers: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {}
        self.declared: dict[str, Sequence[onnx.TensorShapeProto.Dimension]] = {}
        self.captured: dict[str, Value] | None = None
        self.known = Knowledge()
        self.depth = 0 if outer is None else outer.depth + 1

    def close(
        self, proto: onnx.GraphProto, types: Sequence[Type], name: str, ref: NodeRef, known: Knowledge
    ) -> tuple[Graph, list[Value]]:
        """See `OnnxBuilder.subgraph`."""
        graph = Graph(name)
        graph.bounds, graph.limits = self.graph.bounds, self.graph.limits
        given = _arguments(proto, types)
        inner = Scope(self.importer, graph, self, f"{self.path}/{ref.name}" if self.path else ref.name, self.opsets)
        inner.captured, inner.known = {}, known
        for input_name, type_ in given:
            inner.values[input_name] = graph.add_input(input_name, type_)
        outputs = inner.run(proto)
        graph.set_outputs(outputs, [o.name for o in proto.output])
        return graph, list(inner.captured.values())

    def inline(self, proto: onnx.GraphProto, arguments: Sequence[Value], ref: NodeRef) -> list[Value]:
        """See `OnnxBuilder.inline`."""
        inner = Scope(
            self.importer, self.graph, self, f"{self.path}/{ref.name}" if self.path else ref.name, self.opsets
        )
        inner.values.update(_arguments(proto, arguments))
        return inner.run(proto)

    def run(self, proto: onnx.GraphProto) -> list[Value]:
        """Imports every node; the values of the outputs. Raises Failed where an output could not be made."""
        if self.depth > _NEST_LIMIT:
            raise ModelError("E0304", f"graphs are nested more than {_NEST_LIMIT} deep")
        self.declare(proto)
        self.run_nodes(proto.node)
        return self.results([o.name for o in proto.output])

    def declare(self, proto: onnx.GraphProto) -> None:
        """Takes note of initializers, and of the shapes that the graph declares for values."""
        for info in (*proto.value_info, *proto.output):
            if info.type.tensor_type.HasField("shape"):
                self.declared[info.name] = info.type.tensor_type.shape.dim
        for tensor in proto.initializer:
            if tensor.name in self.initializers:
                raise ModelError("E0302", f"two initializers are called '{tensor.name}'", file=self.importer.file)
            self.initializers[tensor.name] = tensor
        for sparse in proto.sparse_initializer:
            self.initializers[sparse.values.name] = sparse

    def run_time_size(self, name: str, axis: int, is_bounded: bool) -> Size:
        """See `OnnxBuilder.run_time_size`; `name` is that of the value."""
        dims = self.declared.get(name, ())
        declared = dims[axis] if axis < len(dims) else None
        hint = f"{self.path}/{name}_d{axis}" if self.path else f"{name}_d{axis}"
        if declared is not None and not is_bounded and declared.HasField("dim_value"):
            return int(declared.dim_value)
        if declared is not None and declared.dim_param.replace(".", "_").isidentifier():
            hint = declared.dim_param
        return self.importer.run_time_size(hint)

    def results(self, names: Iterable[str]) -> list[Value]:
        found = []
        for name in names:
            value = self.lookup(name)
            if value is None:
                raise Failed
            found.append(value)
        return found

    def run_nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Imports nodes in order. What is wrong with one is noted, and the others are imported all the same."""
        for index, node in enumerate(nodes):
            self.importer.tick()
            try:
                self.import_node(index, node)
            except Failed:
                self.fail(node)
            except CompileError as error:
                self.locate(error, index, node)
                self.importer.errors.append(error)
                self.fail(node)

    def locate(self, error: CompileError, index: int, node: onnx.NodeProto) -> None:
        """Says which node and file an error is about, where it does not say so itself."""
        error.file = error.file or self.importer.file
        if error.node is None:
            error.node = self.reference(index, node)

    def reference(self, index: int, node: onnx.NodeProto) -> NodeRef:
        """The node as errors name it."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        opset = self.opsets.get(domain)
        if opset is None and domain == "":
            opset = self.opsets.get("ai.onnx")
        return NodeRef(node.name or f"{node.op_type}_{index}", node.op_type, domain, opset, index, self.path)

    def fail(self, node: onnx.NodeProto) -> None:
        """Notes of the results of a node that there are none: what uses them fails without an error of its own."""
        for name in node.output:
            self.values[name] = None

    def lookup(self, name: str) -> Value | None:
        """The value called `name` here or in an outer graph; None where its node failed. Raises ModelError."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                value = scope.values[name]
                return value if value is None else self.capture(name, value)
            if name in scope.initializers:
                return self.capture(name, scope.load_initializer(name))
            scope = scope.outer
        order = "nodes must stand after those whose results they use"
        message = f"nothing produces the value '{name}' before it is used"
        raise ModelError("E0302", message, file=self.importer.file, help=order)

    def capture(self, name: str, value: Value) -> Value:
        """`value` as seen in this scope's graph: an outer value becomes one more input of each closed graph between."""
        if value.graph is self.graph:
            return value
        assert self.outer is not None
        outside = self.outer.capture(name, value)
        if self.captured is None:  # inlined into the outer scope's graph
            return outside
        if outside in self.known.values:
            return Builder(self.graph, before=next(self.graph.nodes(), None)).const(self.known.values[outside])
        known = next((v for v, o in self.imported.items() if o is outside), None) if self.captured else None
        if known is not None:
            return known
        if outside.blob is not None or (outside.node is not None and _is_literal(outside)):
            return Builder(self.graph, before=next(self.graph.nodes(), None)).const(_content_of(outside), name=name)
        inner = self.graph.add_input(name, outside.type)
        self.captured[name] = outside
        self.imported[inner] = outside
        return inner

    @property
    def imported(self) -> dict[Value, Value]:
        """Inputs of this closed graph that stand for outer values."""
        if not hasattr(self, "_imported"):
            self._imported: dict[Value, Value] = {}
        return self._imported

    def equalities(self) -> list[tuple[Size, Size]]:
        """The pairs of sizes that are demanded or known to be equal here."""
        found: list[tuple[Size, Size]] = []
        scope: Scope | None = self
        while scope is not None:
            found += (*scope.known.equal, *scope.graph.equal_dims)
            scope = scope.outer
        return list(dict.fromkeys(found))

    def load_initializer(self, name: str) -> Value:
        tensor = self.initializers.pop(name)
        if isinstance(tensor, onnx.SparseTensorProto):
            blob = self.importer.model.sparse_blob(tensor)
        else:
            blob = self.importer.model.blob(tensor)
        value = Builder(self.graph, before=next(self.graph.nodes(), None)).const(blob, name=name)
        self.values[name] = value
        return value

    def import_node(self, index: int, node: onnx.NodeProto) -> None:
        """Inserts what a node becomes, and binds its results. Raises CompileError where it cannot be imported, and
        Failed where a node before it could not."""
        ref = self.reference(index, node)
        domain, opset = ref.domain, ref.opset
        function = self.importer.functions.find(domain, node.op_type, node.overload)
        if function is not None:
            self.call_function(function, node, dataclasses.replace(ref, opset=None))
            return
        inputs = [self.lookup(n) if n else None for n in node.input]
        entry = registry.find(domain, node.op_type, opset or 1)
        if any(v is None and n for v, n in zip(inputs, node.input)):
            if entry is None and not may_have_body(node, opset or 1):
                raise self.unsupported(node, ref)  # whatever its inputs are: all of these are reported in one run
            raise Failed
        ref = _with_types(ref, node, inputs)
        if entry is None:
            self.expand_schema(node, ref, inputs)
            return
        b = OnnxBuilder(self, node, ref, opset or 1)
        last = self.graph._last
        try:
            with bounded(self.graph.bounds), told_late(self.graph.limits):
                outputs = registry.call(entry, b, list(inputs), self.attributes(node, opset or 1))
        except OpError as error:
            raise self.refusal(node, ref, error) from error
        except Undecided as error:
            raise self.refusal(node, ref, OpError(f"{error}; it must be known when compiling")) from error
        self.bind(node, ref, outputs, last)

    def refusal(self, node: onnx.NodeProto, ref: NodeRef, error: OpError) -> UnsupportedError:
        """Why an importer refuses a node; with the inputs that would have to be known, where only these are missing."""
        needs = self.inputs_asked_for(error, node)
        help = f"it follows from input {', '.join(needs)}; `constants` gives inputs a value" if needs else None
        refused = UnsupportedError("E0402", f"{node.op_type}: {error}", node=ref, file=self.importer.file, help=help)
        refused.needs = needs
        return refused

    def inputs_asked_for(self, error: OpError, node: onnx.NodeProto) -> tuple[str, ...]:
        """The inputs of the model that could lift a refusal: those behind a value that must be known, or behind numbers
        that are sizes of the node's inputs."""
        if isinstance(error, UnknownValue):
            return inputs_behind(self, error.value)
        values = [self.lookup(name) for name in node.input if name]
        types = [v.type for v in values if v is not None and isinstance(v.type, TensorType)]
        told = {name for type_ in types for size in type_.shape for name in names(size)} & self.importer.tellers.keys()
        return tuple(sorted({n for name in told for n in inputs_behind(self, self.importer.tellers[name])}))

    def bind(self, node: onnx.NodeProto, ref: NodeRef, outputs: Sequence[Value | None], last: Node | None) -> None:
        """Gives the results of a node their names. Raises CompileError for a name that is taken, and for a result that
        is not supported."""
        for position, name in enumerate(node.output):
            value = outputs[position] if position < len(outputs) else None
            if not name:
                continue
            if name in self.values or name in self.initializers:
                raise ModelError("E0302", f"two nodes produce the value '{name}'", node=ref, file=self.importer.file)
            if value is None:
                raise UnsupportedError("E0403", f"{node.op_type}: output number {position} ('{name}') is not supported",
                                       node=ref, file=self.importer.file)  # fmt: skip
            if value.node is not None and value.graph is self.graph and value.name.partition(".")[0].isdigit():
                self.graph.rename(value, name)
            self.values[name] = value

    def attributes(self, node: onnx.NodeProto, opset: int) -> dict[str, Any]:
        """Attributes as Python sees them. Raises ModelError for one of another type than the ONNX schema says."""
        declared = attribute_types(node.domain, node.op_type, opset)
        for attribute in node.attribute:
            wanted = declared.get(attribute.name, attribute.type)
            if attribute.type != wanted:
                kind = onnx.AttributeProto.AttributeType.Name
                found = f"attribute `{attribute.name}` is {kind(attribute.type)}; {node.op_type} takes {kind(wanted)}"
                raise ModelError("E0302", found)
        return {a.name: self.importer.attribute(a) for a in node.attribute}

    def call_function(self, function: onnx.FunctionProto, node: onnx.NodeProto, ref: NodeRef) -> None:
        """Inlines a model-local function at a node that calls it."""
        arguments = [self.lookup(n) if n else None for n in node.input]
        if any(v is None and n for v, n in zip(arguments, node.input)):
            raise Failed
        opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import}
        opsets.setdefault("", self.opsets.get("", 1))  # bodies of operators outside of ai.onnx do not always say
        inner = Scope(self.importer, self.graph, None, f"{self.path}/{ref.name}" if self.path else ref.name, opsets)
        inner.depth = self.depth + 1
        if inner.depth > _NEST_LIMIT:
            raise ModelError("E0304", f"functions are nested more than {_NEST_LIMIT} deep", node=ref)
        inner.captured = None
        omitted: set[str] = set()
        for position, name in enumerate(function.input):
            value = arguments[position] if position < len(arguments) else None
            if value is None:
                omitted.add(name)
            else:
                inner.values[name] = value
        if len(arguments) > len(function.input):
            raise ModelError(
                "E0302", f"it has {len(arguments)} inputs; its function takes {len(function.input)}", node=ref
            )
        nodes = self.importer.functions.instantiate(function, node, omitted)
        inner.run_nodes(nodes)
        wanted = [n for n, given in zip(function.output, node.output) if n and given]
        unmade = [n for n in wanted if n not in inner.values]
        if unmade:
            raise ModelError("E0302", f"its function produces no value '{unmade[0]}'", node=ref)
        outputs = [inner.values.get(n) if n else None for n in function.output]
        if any(n and v is None for n, v in zip(node.output, outputs)):
            raise Failed
        self.bind(node, ref, outputs, None)

    def expand_schema(self, node: onnx.NodeProto, ref: NodeRef, inputs: Sequence[Value | None]) -> None:
        """Imports an operator without an importer of its own from the function body in its ONNX schema."""
        function = body_of_schema(node, ref.opset or 1, [None if v is None else v.type for v in inputs])
        if function is None:
            raise self.unsupported(node, ref)
        self.call_function(function, node, ref)

    def unsupported(self, node: onnx.NodeProto, ref: NodeRef) -> UnsupportedError:
        """The error for an operator that has no importer, with the reason where there is one."""
        where = f" (opset {ref.opset})" if ref.opset else ": its domain has no opset in this model"
        message = f"operator {ref.domain or 'ai.onnx'}::{node.op_type} is not supported{where}"
        reason = registry.reason_against(ref.domain, node.op_type)
        if reason is not None:
            return UnsupportedError("E0401", f"{message}: {reason}", node=ref, file=self.importer.file)
        return UnsupportedError("E0401", message, node=ref, file=self.importer.file, help="`sesame ops` lists what is")


class Importer:
    """One import of one model. `errors` collects what is wrong with it."""

    def __init__(self, model: LoadedModel, dims: DimSpec, constants: Mapping[str, np.ndarray] | None = None) -> None:
        self.model = model
        self.dims = dims
        self.constants = constants or {}
        self.file = str(model.path) if model.path else None
        self.errors: list[CompileError] = []
        self.functions = FunctionLibrary(model.proto.functions)
        self.labels: Counter[str] = Counter()
        self.graph: Graph | None = None
        self.sizes = Names()
        self.tellers: dict[str, Value] = {}
        self._nodes = 0

    def run_time_size(self, hint: str) -> Size:
        """A size that only a run tells, under a name of its own; a number where the user fixes it."""
        name = self.sizes.fresh(hint)
        self.dims.seen.add(name)
        return self.dims.size(name)

    def tick(self) -> None:
        """Counts a node; what is inlined counts each time, so that functions cannot grow without bound."""
        self._nodes += 1
        if self._nodes > self.model.limits.nodes:
            raise ModelError("E0304", f"the model has more than {self.model.limits.nodes} nodes", file=self.file)

    def attribute(self, proto: onnx.AttributeProto) -> Any:
        """An attribute as Python sees it: numbers, str, tuples, Blobs for tensors, GraphProtos for graphs."""
        kind = proto.type
        at = onnx.AttributeProto
        match kind:
            case at.FLOAT:
                return proto.f
            case at.INT:
                return proto.i
            case at.STRING:
                return _text(proto.s)
            case at.TENSOR:
                return self.model.blob(proto.t)
            case at.SPARSE_TENSOR:
                return self.model.sparse_blob(proto.sparse_tensor)
            case at.GRAPH:
                return proto.g
            case at.FLOATS:
                return tuple(proto.floats)
            case at.INTS:
                return tuple(proto.ints)
            case at.STRINGS:
                return tuple(_text(s) for s in proto.strings)
            case at.TENSORS:
                return tuple(self.model.blob(t) for t in proto.tensors)
            case at.GRAPHS:
                return tuple(proto.graphs)
            case at.TYPE_PROTO:
                return type_of(proto.tp)
        raise ModelError("E0302", f"attribute '{proto.name}' has unknown type {kind}")

    def run(self) -> Graph:
        """The graph. Raises Problems with everything that is wrong."""
        proto = self.model.proto.graph
        graph = self.graph = Graph(proto.name or "model")
        opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in self.model.proto.opset_import}
        scope = Scope(self, graph, None, "", opsets)
        scope.declare(proto)
        types, graph.bounds = input_types(proto, scope.initializers, self.dims, self.file)
        self.sizes = Names(sorted(self.dims.seen))
        graph.limits.update(dict.fromkeys(_sizes_of_elements(types.values())))
        self.bind_constants(scope, types)
        for name, type_ in types.items():
            if name not in self.constants:
                scope.values[name] = graph.add_input(name, type_)
        try:
            scope.run_nodes(proto.node)
            outputs = scope.results(o.name for o in proto.output)
        except Failed:
            outputs = []
        except CompileError as error:
            self.errors.append(error)
            outputs = []
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else Problems(self.errors)
        self.bound_outputs(graph, outputs, proto)
        self.dims.seen.update(graph.limits)
        self.dims.check_names(self.file)
        graph.set_outputs(outputs, [o.name for o in proto.output])
        return graph

    def bound_outputs(self, graph: Graph, outputs: Sequence[Value], proto: onnx.GraphProto) -> None:
        """Demands that sizes of outputs that nothing else bounds are what the model declares; a run checks that."""
        b = Builder(graph)
        for value, declared in zip(outputs, proto.output):
            shape = value.shape if isinstance(value.type, TensorType) else ()
            for size, dim in zip(shape, declared.type.tensor_type.shape.dim):
                try:
                    greatest(size, graph.limits)
                except Undecided:
                    if dim.HasField("dim_value"):
                        b.assume_equal(size, int(dim.dim_value))

    def bind_constants(self, scope: Scope, types: Mapping[str, Type]) -> None:
        """Makes constants of inputs that have a value in `constants`. Raises UsageError for one that does not fit."""
        b = Builder(scope.graph)
        for name, array in self.constants.items():
            type_ = types.get(name)
            if type_ is None:
                raise UsageError("E0210", f"the model has no input '{name}' to make a constant of", file=self.file,
                                 help=f"its inputs: {', '.join(types) or 'none'}")  # fmt: skip
            if not isinstance(type_, TensorType):
                raise UsageError("E0210", f"input '{name}' is {type_}; only tensors can be constants", file=self.file)
            value = b.const(np.asarray(array), name=name)
            if value.dtype is not type_.dtype or not _fits(value.shape, type_.shape):
                raise UsageError("E0210", f"input '{name}' is {type_}, its constant is {value.type}", file=self.file)
            scope.values[name] = value


def import_model(
    model: LoadedModel,
    dims: Mapping[str, int | tuple[int, int | None]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """The graph of a loaded model. `dims` fixes or bounds symbolic dims by name; `constants` gives inputs their values.

    Raises CompileError (ModelError, UnsupportedError, UsageError), or Problems with several of them.
    """
    return Importer(model, DimSpec(dims or {}), constants).run()


def _arguments(proto: onnx.GraphProto, given: Sequence[_T]) -> list[tuple[str, _T]]:
    """The inputs of a nested graph by name, with what they are given. Raises ModelError where the numbers differ."""
    own = {t.name for t in proto.initializer}
    declared = [i.name for i in proto.input if i.name not in own]
    if len(declared) != len(given):
        raise ModelError("E0302", f"its graph '{proto.name}' has {len(declared)} inputs; it must take {len(given)}")
    return list(zip(declared, given))


def _sizes_of_elements(types: Iterable[Type]) -> set[str]:
    """The symbols in the types of elements of sequences that no tensor tells: each element may have another value."""
    tensors = {name for type_ in types if isinstance(type_, TensorType) for size in type_.shape for name in names(size)}
    found: set[str] = set()
    for type_ in types:
        inner = type_
        while isinstance(inner, (SequenceType, OptionalType)):
            inner = inner.element
        found |= {name for size in getattr(inner, "shape", ()) for name in names(size)}
    return found - tensors


def _fits(actual: Sequence[Size], declared: Sequence[Size]) -> bool:
    return len(actual) == len(declared) and all(a == d or isinstance(d, Dim) for a, d in zip(actual, declared))


def type_of(proto: onnx.TypeProto) -> Type:
    """A TypeProto without its dims' names: element type and nesting."""
    if proto.HasField("sequence_type"):
        return SequenceType(type_of(proto.sequence_type.elem_type))
    return TensorType(element_type(proto.tensor_type.elem_type), ())


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _is_literal(value: Value) -> bool:
    """Whether a value is known, and a constant or the op `dims` can hold it."""
    content = value.content
    if content is None or content.dtype != object or value.tensor.dtype.kind == "string":
        return content is not None
    return content.ndim <= 1 and value.tensor.dtype.name == "i64"


def _content_of(value: Value) -> Any:
    blob = value.blob
    if blob is not None:
        return blob
    content = value.content
    assert content is not None
    if content.dtype == object and not isinstance(content.reshape(-1)[0] if content.size else "", str):
        return content.tolist()
    return content


def _with_types(ref: NodeRef, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> NodeRef:
    described = tuple(f"'{n}' {v.type}" for n, v in zip(node.input, inputs) if v is not None)
    return NodeRef(
        ref.name,
        ref.op,
        ref.domain,
        ref.opset,
        ref.index,
        ref.path,
        described,
        tuple(f"'{n}'" for n in node.output if n),
    )
