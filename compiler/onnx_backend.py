"""The `onnx.backend` interface: `prepare`, `run_model`, `run_node`, `supports_device`.

Device "CPU" is compiled C, "REFERENCE" the interpreter of the imported graph. Sizes that the compiler must know are
compile-time constants here: where a model is refused as it stands, its small inputs of rank 0 and 1 take the values of
the first run that needs them, and the artifact is for these values. Another run with other values compiles again.
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
from compiler.errors import CompileError, UnsupportedError, UsageError
from ir.evaluate import evaluate_graph
from ir.types import TensorType

DEVICES = ("CPU", "REFERENCE")
_CONSTANT_ELEMENTS = 64
"""An input with more elements is data, not a shape, and is never made a constant."""


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
        self._tensors = {value.name for value in declared if value.type.HasField("tensor_type")}
        self.outputs = [value.name for value in model.graph.output]
        self._tuple = namedtupledict("Outputs", self.outputs)
        self._prepared: dict[tuple[tuple[str, bytes], ...], Any] = {}
        self._refusal: CompileError | None = None
        try:
            self._prepared[()] = _prepare(model, device, self.options, {})
        except CompileError as error:
            if not self.inputs or not _may_be_shapes(error):
                raise
            self._refusal = error

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
        if self._refusal is None:
            return self._prepared[()], frozenset()
        tensors = {name: value for name, value in feeds.items() if name in self._tensors}
        for candidates in (_integers(tensors), _small(tensors)):
            key = tuple(
                sorted((name, array.tobytes() + repr(array.shape).encode()) for name, array in candidates.items())
            )
            if not candidates:
                continue
            if key not in self._prepared:
                try:
                    self._prepared[key] = _prepare(self.model, self.device, self.options, candidates)
                except CompileError as error:
                    self._refusal = error
                    continue
            self.specialised = tuple(sorted(candidates))
            return self._prepared[key], frozenset(candidates)
        raise self._refusal


def _may_be_shapes(error: CompileError) -> bool:
    """Whether knowing inputs could help: something in the model is unsupported as it stands."""
    return isinstance(error, UnsupportedError) or any(
        isinstance(each, UnsupportedError) for each in getattr(error, "errors", ())
    )


def _integers(feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inputs that look like shapes, axes, sizes, counts: small integers of rank 0 or 1."""
    return {name: array for name, array in _small(feeds).items() if array.dtype.kind in "iu"}


def _small(feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inputs that may be parameters: small, of rank 0 or 1, such as scales, flags and modes."""
    return {
        name: value
        for name, value in feeds.items()
        if isinstance(value, np.ndarray) and value.ndim <= 1 and value.size <= _CONSTANT_ELEMENTS
    }


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
            if value.name not in feeds:
                raise UsageError("E0208", f"input '{value.name}' is missing", help=f"it is {value.type}")
            dtype = getattr(feeds[value.name], "dtype", None)
            if isinstance(value.type, TensorType) and dtype != value.type.dtype.numpy:
                raise UsageError("E0209", f"input '{value.name}' is {dtype}; the model takes {value.type}")
        results = evaluate_graph(graph, [feeds[value.name] for value in graph.inputs])
        return dict(zip(graph.output_names, results))

    return run


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
