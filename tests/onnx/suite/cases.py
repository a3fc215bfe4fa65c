"""The cases of the suite: a model, and data sets of inputs with the outputs they must give."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

KINDS = ("node", "simple", "real", "pytorch-converted", "pytorch-operator")
_PACKAGE = Path(onnx.__file__).parent


@dataclass(frozen=True)
class Case:
    """One case as onnx describes it; model and data are read when asked for."""

    name: str
    kind: str
    rtol: float
    atol: float
    source: Any

    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            return self.source.model
        return onnx.load(str(self._model_path()))

    def data_sets(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Pairs of inputs and outputs, in the model's order."""
        if self.source.data_sets is not None:
            for inputs, outputs in self.source.data_sets:
                yield [_value(item) for item in inputs], [_value(item) for item in outputs]
        elif self.source.model_dir is None:
            yield self._dummy_data()
        else:
            model = self.model()
            for folder in sorted(Path(self.source.model_dir).glob("test_data_set*")):
                inputs = _read(folder, "input", [i.type for i in model.graph.input])
                yield inputs, _read(folder, "output", [o.type for o in model.graph.output])

    def _model_path(self) -> Path:
        if self.source.model_dir is not None:
            return Path(self.source.model_dir) / "model.onnx"
        return _PACKAGE.parent / self.source.url

    def _dummy_data(self) -> tuple[list[Any], list[Any]]:
        """What onnx's own runner feeds the light models: a ramp from 0 to 1; the outputs lie beside the models."""
        model, path = self.model(), self._model_path()
        initializers = {tensor.name for tensor in model.graph.initializer}
        inputs = []
        for value in model.graph.input:
            if value.name not in initializers:
                shape = [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
                count = int(np.prod(shape))
                inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
        stem = str(path)[: -len(".onnx")]
        outputs = [_tensor(Path(f"{stem}_output_{i}.pb").read_bytes()) for i in range(len(model.graph.output))]
        return inputs, outputs


@functools.cache
def load_cases() -> dict[str, Case]:
    """All cases by name, sorted. Makes the models of the node cases, which takes some seconds."""
    from onnx.backend.test.loader import load_model_tests

    cases: dict[str, Case] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for source in load_model_tests(kind=kind):
                assert source.name not in cases, f"two cases are called {source.name}"
                cases[source.name] = Case(source.name, kind, source.rtol, source.atol, source)
    return dict(sorted(cases.items()))


def _read(folder: Path, what: str, types: list[onnx.TypeProto]) -> list[Any]:
    count = len(list(folder.glob(f"{what}_*.pb")))
    return [_parse((folder / f"{what}_{i}.pb").read_bytes(), types[i]) for i in range(count)]


def _parse(data: bytes, type_: onnx.TypeProto) -> Any:
    if type_.HasField("sequence_type"):
        return _value(onnx.SequenceProto.FromString(data))
    if type_.HasField("optional_type"):
        return _value(onnx.OptionalProto.FromString(data))
    return _tensor(data)


def _tensor(data: bytes) -> np.ndarray:
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))


def _value(item: Any) -> Any:
    """A value of the suite as arrays, lists of them, or None."""
    match item:
        case onnx.TensorProto():
            return onnx.numpy_helper.to_array(item)
        case onnx.SequenceProto():
            return onnx.numpy_helper.to_list(item)
        case onnx.OptionalProto():
            return onnx.numpy_helper.to_optional(item)
    return item
