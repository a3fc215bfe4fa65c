"""The `onnx.backend` interface: `prepare`, `run_model`, `run_node`, `supports_device`.

Device "CPU" is compiled C, "REFERENCE" the interpreter of the imported graph. Where a model is refused since inputs
that give shapes, axes, counts or modes must be known when compiling (a rank depends on them, or in C nothing bounds a
size that they give), exactly these take the values of the run, as the refusal names them. The artifact is for these
values; a run with others compiles again.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from compiler.artifact import Artifact
from compiler.driver import Model, compile, load
from compiler.errors import EXIT_INTERNAL, CompileError, UsageError
from ir.bind import bind_sizes, check_assumptions
from ir.evaluate import EvaluationError, evaluate_graph
from ir.graph import Value
from ir.kinds import check
from ir.types import OptionalType, SequenceType, TensorType

DEVICES = ("CPU", "REFERENCE")
_CONSTANT_ELEMENTS = 64
"""An input with more elements is data, not a parameter, and is never made a constant."""
_CONSTANT_KINDS = "biu"
"""Kinds of NumPy types of inputs that may be made constants: bools and integers."""


class SesameRep(BackendRep):
    """A model prepared for a device. `specialised` names the inputs that had to become constants."""

    def __init__(self, model: onnx.ModelProto, device: str, options: Mapping[str, Any]) -> None:
        """Compiles the model, unless it can be compiled only once inputs are known. Raises CompileError."""
        self.model = model
        self.device = device
        self.options = dict(options)
        self.specialised: tuple[str, ...] = ()
        initializers = {tensor.name for tensor in model.graph.initializer}
        initializers |= {tensor.values.name for tensor in model.graph.sparse_initializer}
        declared = [value for value in model.graph.input if value.name not in initializers]
        self.inputs = [value.name for value in declared]
        self._parameters = {value.name for value in declared if _may_be_parameter(value.type)}
        self.outputs = [value.name for value in model.graph.output]
        self._tuple = namedtupledict("Outputs", self.outputs)
        self._prepared: dict[tuple[tuple[str, bytes], ...], Any] = {}
        self._asked: set[str] = set()
        try:
            self._prepared[()] = _prepare(model, device, self.options, {})
        except CompileError as error:
            self._ask(error)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, a namedtuple. `inputs` is a list in the order of the model, one array, or a dict by name.

        Raises CompileError: UsageError for inputs that do not fit, and what compiling for these inputs raises.
        """
        feeds = self._feeds(inputs)
        runnable, constants = self._runnable_for(feeds)
        results = runnable({name: value for name, value in feeds.items() if name not in constants})
        return self._tuple(*(results[name] for name in self.outputs))

    def _feeds(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return {name: _array(value) for name, value in inputs.items()}
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(given) > len(self.inputs):
            raise UsageError("E0208", f"the model has {len(self.inputs)} inputs, {len(given)} were given")
        return dict(zip(self.inputs, map(_array, given)))

    def _runnable_for(self, feeds: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
        """What runs these feeds, and the inputs that are constants in it."""
        while True:
            constants = {name: feeds[name] for name in sorted(self._asked) if name in feeds}
            key = tuple((name, array.tobytes() + repr(array.shape).encode()) for name, array in constants.items())
            if key not in self._prepared:
                if any(array.size > _CONSTANT_ELEMENTS for array in constants.values()):
                    raise UsageError("E0209", f"inputs {', '.join(constants)} must have at most "
                                     f"{_CONSTANT_ELEMENTS} elements, since they are made constants")  # fmt: skip
                try:
                    self._prepared[key] = _prepare(self.model, self.device, self.options, constants)
                except CompileError as error:
                    self._ask(error)
                    continue
            self.specialised = tuple(constants)
            return self._prepared[key], frozenset(constants)

    def _ask(self, error: CompileError) -> None:
        """Notes the inputs that a refusal asks for. Raises it where it asks for none that it may have."""
        needs = {name for each in getattr(error, "errors", (error,)) for name in getattr(each, "needs", ())}
        if not needs <= self._parameters or needs <= self._asked:
            raise error
        self._asked |= needs


def _may_be_parameter(type_: onnx.TypeProto) -> bool:
    """Whether an input may be a shape, an axis, a count or a mode: integers or bools of rank 0 or 1."""
    if not type_.HasField("tensor_type") or not type_.tensor_type.HasField("shape"):
        return False
    dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.tensor_type.elem_type)
    return dtype.kind in _CONSTANT_KINDS and len(type_.tensor_type.shape.dim) <= 1


def _array(value: Any) -> Any:
    """An input as Sesame takes it: arrays, lists of them for sequences, None for an absent optional."""
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if value is None or isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return [_array(item) for item in value]
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UST" else array


def _prepare(
    model: onnx.ModelProto, device: str, options: Mapping[str, Any], constants: Mapping[str, np.ndarray]
) -> Any:
    """A function from feeds by name to outputs by name."""
    imported = load(model, constants=constants)
    return _interpreter(imported) if device == "REFERENCE" else _compiled(imported, options)


def _interpreter(model: Model) -> Any:
    graph = model.graph

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        for value in graph.inputs:
            _check_fed(value, feeds)
        arrays = [feeds[value.name] for value in graph.inputs]
        try:
            sizes = bind_sizes([value.type for value in graph.inputs], arrays, [value.name for value in graph.inputs])
            check_assumptions(graph.bounds, graph.equal_dims, sizes, graph.demanded_by)
        except ValueError as error:
            raise UsageError("E0209", str(error)) from error
        try:
            results = evaluate_graph(graph, arrays)
        except EvaluationError as error:
            raise CompileError("E0502", str(error), exit_code=EXIT_INTERNAL) from error
        return dict(zip(graph.output_names, results))

    return run


def _check_fed(value: Value, feeds: Mapping[str, Any]) -> None:
    """Raises UsageError where an input is missing, or not of its type as far as sizes do not matter."""
    if value.name not in feeds:
        raise UsageError("E0208", f"input '{value.name}' is missing", help=f"it is {value.type}")
    dtype = getattr(feeds[value.name], "dtype", None)
    if isinstance(value.type, TensorType) and dtype != value.type.dtype.numpy:
        raise UsageError("E0209", f"input '{value.name}' is {dtype}; the model takes {value.type}")
    if isinstance(value.type, (SequenceType, OptionalType)):
        try:
            check(value.name, value.type, feeds[value.name])
        except ValueError as error:
            raise UsageError("E0209", f"input {error}") from error


def _compiled(model: Model, options: Mapping[str, Any]) -> Any:
    folder = Path(tempfile.mkdtemp(prefix="artifact-", dir=_scratch()))
    artifact: Artifact = compile(model, "c", out=folder / "model", **options)
    return artifact.load().run


_folder: str | None = None


def _scratch() -> str:
    """The folder of this process's artifacts, removed when it ends."""
    global _folder
    if _folder is None:
        _folder = tempfile.mkdtemp(prefix="sesame-backend-")
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    return _folder


class SesameBackend(Backend):
    """Sesame as a backend in the sense of `onnx.backend`."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> SesameRep:
        """The model ready to run; `kwargs` are options of the C target. Raises CompileError."""
        kind = device.partition(":")[0].upper()
        if kind not in DEVICES:
            raise UsageError("E0215", f"there is no device '{device}'", help=f"devices: {', '.join(DEVICES)}")
        return SesameRep(model, kind, kwargs)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepares and runs once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs one node on arrays, of the newest opset or of `opset_version`. Raises CompileError."""
        opset = kwargs.pop("opset_version", None)
        return cls.run_model(_model_of_node(node, inputs, opset), inputs, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """CPU and REFERENCE."""
        return device.partition(":")[0].upper() in DEVICES


def _model_of_node(node: onnx.NodeProto, inputs: Any, opset: int | None) -> onnx.ModelProto:
    """A model of one node whose inputs have the types and shapes of the arrays given."""
    from onnx import helper

    names = [name for name in node.input if name]
    given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(names, inputs))
    declared = []
    for name in names:
        array = np.asarray(given[name])
        declared.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        )
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], node.op_type or "node", declared, outputs)
    imports = [helper.make_opsetid(node.domain, 1)] if node.domain not in ("", "ai.onnx") else []
    version = opset if opset is not None else onnx.defs.onnx_opset_version()
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version), *imports])


prepare = SesameBackend.prepare
run_model = SesameBackend.run_model
run_node = SesameBackend.run_node
supports_device = SesameBackend.supports_device

__all__ = ["DEVICES", "SesameBackend", "SesameRep", "prepare", "run_model", "run_node", "supports_device"]
