"""Runtimes that compiled models are timed beside: each loads an .onnx file, and runs it once as fast as its API allows.

Nothing of theirs is imported before it is asked for. What a runtime cannot load or run is a CompileError (exit code 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.verify import first_line, onnxruntime_session, unverified

Feeds = Mapping[str, Any]


class OnnxRuntime:
    """A session with all optimisations; outputs are new arrays in each run, as Sesame's are. Its CPU code multiplies
    what the model says, in whatever `precision` the others do."""

    def __init__(self, path: str | Path, threads: int, precision: str = "f32") -> None:
        self.precision: str = "as the model"
        self.session = onnxruntime_session(path, threads=threads)
        self.names = [output.name for output in self.session.get_outputs()]

    def runner(self, feeds: Feeds) -> Callable[[], Any]:
        """A function that runs the model once on these inputs."""
        run, names, given = self.session.run, self.names, dict(feeds)
        return lambda: run(names, given)

    def outputs(self, made: Any, names: Sequence[str]) -> dict[str, Any]:
        """The outputs by name, from what the runner gave."""
        return dict(zip(self.names, made))


class OpenVino:
    """A compiled model for least latency, in a precision that holds for activations beside compressed weights too;
    symbolic dims stay so. Arrays are shared, not copied."""

    def __init__(self, path: str | Path, threads: int, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            help_ = "pip install sesame-compiler[openvino]"
            raise unverified("the package openvino is not installed", help_) from error
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else activations become bytes where weights were stored as such
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            self.compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except Exception as error:
            raise unverified(f"OpenVINO refuses this model: {_openvino_reason(error)}") from error
        taken: str = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # what the processor has
        self.precision: str = {"float": "f32", "float32": "f32", "bfloat16": "bf16"}.get(taken, taken)

    def runner(self, feeds: Feeds) -> Callable[[], Any]:
        """A function that runs the model once on these inputs."""
        request, given = self.compiled.create_infer_request(), dict(feeds)
        return lambda: request.infer(given, share_inputs=True, share_outputs=True)

    def outputs(self, made: Any, names: Sequence[str]) -> dict[str, Any]:
        """The outputs under those of `names` that OpenVINO knows them by, or that stand in their place."""
        ports = list(self.compiled.outputs)
        placed = dict(zip(names, ports)) if len(ports) == len(names) else {}
        placed.update((name, port) for port in ports for name in port.get_names() if name in names)
        return {name: np.array(made[port]) for name, port in placed.items()}


RIVALS: dict[str, Callable[[str | Path, int, str], OnnxRuntime | OpenVino]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}
_NAMES = {"ort": "onnxruntime", "ov": "openvino"}


def rival_name(text: str) -> str | None:
    """The rival that `text` names, perhaps in short; None where it names none."""
    name = _NAMES.get(text, text)
    return name if name in RIVALS else None


def ran(runtime: OnnxRuntime | OpenVino, run: Callable[[], Any]) -> Any:
    """What the first run gives. Raises CompileError where the runtime fails in it."""
    try:
        return run()
    except Exception as error:
        raise _failed(runtime, error) from error


def _failed(runtime: OnnxRuntime | OpenVino, error: Exception) -> CompileError:
    if isinstance(runtime, OnnxRuntime):
        return unverified(f"ONNX Runtime cannot run this model on these inputs: {first_line(error)}")
    return unverified(f"OpenVINO cannot run this model on these inputs: {_openvino_reason(error)}")


def _openvino_reason(error: Exception) -> str:
    """What an error of OpenVINO says, without the places in its source that it names first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from ", "Check "))]
    return ": ".join(said)[:400] or first_line(error)


__all__ = ["RIVALS", "OnnxRuntime", "OpenVino", "ran", "rival_name"]
