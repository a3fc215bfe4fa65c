"""Whether two ways of running a model agree: comparison of arrays, and the references a model can be compared with.

A reference that cannot run a model raises CompileError with exit code 7: "not verified" is neither a pass nor a
mismatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import EXIT_UNVERIFIED, CompileError, UsageError
from ir.types import dtype_of

if TYPE_CHECKING:
    import onnx

    from compiler.driver import Model
    from ir.graph import Graph

_SLACK = {"f64": 1e-9, "f32": 1e-4, "f16": 4e-3, "bf16": 3e-2, "c64": 1e-4, "c128": 1e-9}
"""Relative tolerance by element type where none is given: the sum of a long row loses some of the type's digits. Types
of at most 8 bits differ by a step of theirs or not at all."""


@dataclass(frozen=True)
class Tolerance:
    """An element passes within `atol + rtol * |expected|`, or within `ulp` units in the last place.

    What is None follows from the element type; `atol` also from the largest expected element. Where any of the three is
    given, those left out are 0. Integers, bools and strings must be equal unless one is given. Where `cosine` is given,
    an output of floats passes too whose cosine similarity is at least that, as quantised models are judged. `operands`
    is the type to which the operands of products were rounded: results have no more digits than that.
    """

    rtol: float | None = None
    atol: float | None = None
    ulp: int | None = None
    cosine: float | None = None
    operands: str = "f32"

    def limits(self, expected: np.ndarray) -> tuple[float, float]:
        """(atol, rtol) for an expected array."""
        if self.rtol is not None or self.atol is not None or self.ulp is not None:
            return self.atol or 0.0, self.rtol or 0.0
        dtype = dtype_of(expected)
        slack = max(_SLACK.get(name, 0.0) for name in (dtype.name, self.operands if dtype.is_float else ""))
        return slack * largest(expected), slack


@dataclass(frozen=True)
class Comparison:
    """How one output differs. `relative` is max_abs over the largest expected element; `ulp` None where undefined."""

    name: str
    type: str
    ok: bool
    max_abs: float = 0.0
    relative: float = 0.0
    ulp: int | None = None
    cosine: float | None = None
    wrong: int = 0
    elements: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; numbers that JSON has not are strings."""
        return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def compare_outputs(
    actual: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Tolerance | None = None
) -> list[Comparison]:
    """A comparison for every expected output, in order. Sequences are compared item by item."""
    comparisons: list[Comparison] = []
    for name, value in expected.items():
        if name not in actual:
            comparisons.append(Comparison(name, "", False, reason="there is no such output"))
        else:
            comparisons += _compare(name, actual[name], value, tolerance or Tolerance())
    return comparisons


def _compare(name: str, actual: Any, expected: Any, tolerance: Tolerance) -> list[Comparison]:
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            return [Comparison(name, "sequence", False, reason=f"it has another length than {len(expected)}")]
        return [c for i, (a, e) in enumerate(zip(actual, expected)) for c in _compare(f"{name}[{i}]", a, e, tolerance)]
    if expected is None or actual is None:
        same = expected is None and actual is None
        return [Comparison(name, "none", same, reason="" if same else "one is absent")]
    if isinstance(expected, Mapping):
        values = map_values(actual, expected) if isinstance(actual, Mapping) else None
        if values is None:
            return [Comparison(name, "map", False, reason="it has other keys")]
        return [compare(name, *values, tolerance)]
    return [compare(name, np.asarray(actual), np.asarray(expected), tolerance)]


def map_values(actual: Mapping[Any, Any], expected: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of two maps by the keys of the second, in f32 as ONNX has them; None where their keys differ, in any
    order."""
    if actual.keys() != expected.keys():
        return None
    made = [actual[key] for key in expected]
    return np.array(made, np.float32), np.array(list(expected.values()), np.float32)


def compare(name: str, actual: np.ndarray, expected: np.ndarray, tolerance: Tolerance | None = None) -> Comparison:
    """One array with another of the same type and shape; NaN equals NaN, infinities must be the same."""
    tolerance = tolerance or Tolerance()
    actual, expected = _plain(actual), _plain(expected)
    kind = dtype_of(expected)
    text = f"{kind}[{','.join(map(str, expected.shape))}]"
    if actual.dtype != expected.dtype:
        return Comparison(name, text, False, reason=f"it is {dtype_of(actual)}, expected {kind}")
    if actual.shape != expected.shape:
        return Comparison(
            name, text, False, reason=f"its shape is {list(actual.shape)}, expected {list(expected.shape)}"
        )
    if kind.kind == "string":
        wrong = int(np.sum(actual != expected))
        return Comparison(name, text, wrong == 0, wrong=wrong, elements=expected.size)
    if expected.size == 0:
        return Comparison(name, text, True)
    difference = _difference(actual, expected)
    atol, rtol = tolerance.limits(expected)
    with np.errstate(all="ignore"):
        bad = ~(difference <= atol + rtol * np.abs(_wide(expected)))
    bad = (bad & (difference != 0)) | np.isinf(difference)
    ulps = _ulps(actual, expected) if kind.kind == "float" and kind.bits >= 16 else None
    if tolerance.ulp is not None and ulps is not None:
        bad &= ulps > tolerance.ulp
    cosine = _cosine(actual, expected) if kind.kind == "float" else None
    if tolerance.cosine is not None and cosine is not None:
        bad &= cosine < tolerance.cosine
    top, wrong = float(difference.max()), int(bad.sum())
    scale = largest(expected)
    return Comparison(
        name,
        text,
        wrong == 0,
        top,
        top / scale if scale else top,
        None if ulps is None else int(ulps.max()),
        cosine,
        wrong,
        expected.size,
    )


def largest(array: np.ndarray) -> float:
    """The largest absolute value among finite elements, 0 where there is none."""
    wide = np.abs(_wide(array))
    finite = wide[np.isfinite(wide)]
    return float(finite.max()) if finite.size else 0.0


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "UST" else array


def _wide(array: np.ndarray) -> np.ndarray:
    """As a type NumPy computes with: float64, or complex128."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _difference(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|actual - expected| as float64; infinite where just one is NaN or they are different infinities."""
    if actual.dtype.kind in "iu" and actual.dtype.itemsize == 8:  # float64 does not hold these
        above = actual > expected
        high, low = np.where(above, actual, expected), np.where(above, expected, actual)
        return (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
    a, e = _wide(actual), _wide(expected)
    with np.errstate(all="ignore"):
        difference = np.abs(a - e)
    difference = np.where((a == e) | (np.isnan(a) & np.isnan(e)), 0.0, difference)
    return np.where(np.isnan(difference), np.inf, difference)


def _ulps(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How many representable values lie between; NaN against anything else is the largest number there is."""
    unsigned = np.dtype(f"u{actual.dtype.itemsize}")
    a, e = _ordered(actual, unsigned), _ordered(expected, unsigned)
    distance = (np.maximum(a, e) - np.minimum(a, e)).astype(np.uint64)
    nan_a, nan_e = np.isnan(_wide(actual)), np.isnan(_wide(expected))
    distance = np.where(nan_a & nan_e, np.uint64(0), distance)
    return np.where(nan_a ^ nan_e, np.uint64(2**63 - 1), distance)


def _ordered(array: np.ndarray, unsigned: np.dtype) -> np.ndarray:
    """Bits as unsigned integers in the order of the values; both zeros are the same."""
    bits = np.ascontiguousarray(array).view(unsigned)
    sign = unsigned.type(1 << (unsigned.itemsize * 8 - 1))
    return np.where(bits & sign, sign - (bits & ~sign), sign + bits)


def _cosine(actual: np.ndarray, expected: np.ndarray) -> float | None:
    a, e = _wide(actual).reshape(-1), _wide(expected).reshape(-1)
    with np.errstate(all="ignore"):
        norm = math.sqrt(float(a @ a)) * math.sqrt(float(e @ e))
        cosine = float(a @ e) / norm if norm else math.nan
    return cosine if math.isfinite(cosine) else None


# What a model is compared with.


def interpret(model: Model, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of the imported graph, every op by its NumPy reference, before any pass."""
    values = _interpret(model.graph, feeds, keep=False)
    return {name: values[value] for name, value in zip(model.graph.output_names, model.graph.outputs)}


def _interpret(graph: Graph, feeds: Mapping[str, Any], keep: bool) -> dict[Any, Any]:
    from ir.evaluate import EvaluationError, evaluate_values

    try:
        return evaluate_values(graph, [feeds[v.name] for v in graph.inputs], keep=keep)
    except EvaluationError as error:
        raise unverified(f"the interpreter cannot run this model: {error}") from error
    except ValueError as error:
        raise UsageError("E0209", str(error)) from error


def unverified(message: str, help: str | None = None) -> CompileError:
    """The error for a reference that cannot be had."""
    return CompileError("E0710", message, help=help, exit_code=EXIT_UNVERIFIED)


def run_onnxruntime(
    model: str | Path | onnx.ModelProto, feeds: Mapping[str, Any], extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Outputs by ONNX Runtime without its optimiser, and of the values named in `extra`, which need not be outputs."""
    session = onnxruntime_session(model, extra=extra, optimise=False)
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(feeds))))
    except Exception as error:
        raise unverified(f"ONNX Runtime cannot run this model on these inputs: {first_line(error)}") from error


def onnxruntime_session(
    model: str | Path | onnx.ModelProto, threads: int = 1, extra: Sequence[str] = (), optimise: bool = True
) -> Any:
    """A CPU session. Raises CompileError (exit code 7) where the package or an operator is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise unverified("the package onnxruntime is not installed", "pip install sesame-compiler[ort]") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    source: str | bytes = str(model) if isinstance(model, (str, Path)) else model.SerializeToString()
    if extra:
        proto = _headers(model)
        declared = {output.name for output in proto.graph.output}
        for name in extra:
            if name not in declared:
                proto.graph.output.add().name = name
        source = proto.SerializeToString()
        if isinstance(model, (str, Path)):
            folder = str(Path(model).resolve().parent)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise unverified(f"ONNX Runtime refuses this model: {first_line(error)}") from error


def _headers(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model; what lies in external data files stays there."""
    import onnx

    if isinstance(model, (str, Path)):
        return onnx.load(str(model), load_external_data=False)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def run_onnx_reference(model: str | Path | onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by the reference evaluator of the onnx package."""
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(str(model) if isinstance(model, (str, Path)) else model)
        results = evaluator.run(None, dict(feeds))
        return dict(zip(evaluator.output_names, results))  # type: ignore[arg-type]
    except Exception as error:
        raise unverified(f"the onnx reference evaluator cannot run this model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error of another package says, in short."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:400]


def reference_outputs(kind: str, model: Model, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by the reference called `kind`: interp, ort or onnx-ref. Raises CompileError."""
    runners: dict[str, Callable[[], dict[str, Any]]] = {
        "interp": lambda: interpret(model, feeds),
        "ort": lambda: run_onnxruntime(_source(model), feeds),
        "onnx-ref": lambda: run_onnx_reference(_source(model), feeds),
    }
    if kind not in runners:
        raise UsageError("E0213", f"there is no reference '{kind}'", help=f"references: {', '.join(runners)}, data")
    return runners[kind]()


def _source(model: Model) -> Path | onnx.ModelProto:
    return model.path or model.loaded.proto


def compare_nodes(
    model: Model, graph: Graph, feeds: Mapping[str, Any], tolerance: Tolerance | None = None
) -> list[Comparison]:
    """Every value of `graph` (the model's, after passes that keep names) that ONNX Runtime also computes, in order.

    Values whose name the model does not have, because passes made them, are left out.
    """
    known = {name for node in model.loaded.proto.graph.node for name in node.output if name}
    values = _interpret(graph, feeds, keep=True)
    ours = {value.name: array for value, array in values.items() if value.node is not None and value.name in known}
    theirs = run_onnxruntime(_source(model), feeds, extra=list(ours))
    return compare_outputs(ours, {name: theirs[name] for name in ours}, tolerance)


__all__ = [
    "Comparison",
    "Tolerance",
    "compare",
    "compare_nodes",
    "compare_outputs",
    "first_line",
    "interpret",
    "map_values",
    "onnxruntime_session",
    "reference_outputs",
    "run_onnx_reference",
    "run_onnxruntime",
    "unverified",
]
