"""Cases with symbolic sizes: one artifact for every size of the inputs, run at the case's sizes and at others.

The symbols are as many as the case allows: one for every dim, one for every dim but those of size 1 (which may be
broadcast), one for every size, or those
of first dims or of the first input alone. What is asked for when compiling keeps its sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from compiler.errors import CompileError, UnsupportedError, UsageError
from compiler.onnx_backend import prepare

_OF_A_RUN = "E0502"
"""The code of what fails once a model runs."""
Naming = Callable[[int, int, int], str | None]
"""From the number of an input, an axis and its size to the symbol that takes its place; None where the size stays."""
Inputs = Mapping[str, Any]

NAMINGS: dict[str, Naming] = {
    "every dim": lambda number, axis, size: f"d{number}_{axis}",
    "every dim but ones": lambda number, axis, size: None if size == 1 else f"d{number}_{axis}",
    "one symbol for each size": lambda number, axis, size: None if size == 1 else f"size_{size}",
    "first dims": lambda number, axis, size: f"first_{size}" if axis == 0 and size != 1 else None,
    "dims of the first input": lambda number, axis, size: None if number or size == 1 else f"d{axis}",
    "first dim of the first input": lambda number, axis, size: None if number or axis else "first",
}


def symbolic(model: onnx.ModelProto, kept: Sequence[str], naming: Naming) -> onnx.ModelProto | None:
    """The model with symbols for the sizes of its inputs, but those `kept`; None where there is nothing to replace."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    count = 0
    free = [value for value in free_inputs(made) if value.name not in kept]
    for number, value in enumerate(free):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            name = naming(number, axis, dim.dim_value) if dim.HasField("dim_value") else None
            if name is not None:
                dim.dim_param = name
                count += 1
    forget_shapes(made)
    return made if count else None


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are tensors and have no initializer."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in given and v.type.HasField("tensor_type")]


def forget_shapes(model: onnx.ModelProto) -> None:
    """Drops what a model says about the sizes of values that are no inputs."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def other_sizes(inputs: Inputs, kept: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Inputs of other sizes, the likeliest to be valid first: all data larger, one size larger, first dims larger.

    Equal sizes stay equal, and sizes of 1 stay. Data repeat, so that indices stay valid.
    """
    arrays = {n: x for n, x in inputs.items() if isinstance(x, np.ndarray) and n not in kept}
    sizes = sorted({size for x in arrays.values() for size in x.shape if size > 1})
    changes: list[Callable[[int, int], int]] = [
        lambda axis, size: size + 1,
        lambda axis, size: size * 2,
        lambda axis, size: size * 2 if axis == 0 else size,
    ]
    changes += [lambda axis, size, chosen=chosen: size * 2 if size == chosen else size for chosen in sizes]
    changes += [lambda axis, size, chosen=chosen: size + 1 if size == chosen else size for chosen in sizes]
    changes += [lambda axis, size: size * 3 if axis == 1 else size]
    for change in changes:
        larger = {n: _resized(x, change) for n, x in arrays.items()}
        if any(larger[n].shape != x.shape for n, x in arrays.items()):
            yield {**inputs, **larger}
    for name, x in arrays.items():
        if x.ndim and x.shape[0]:
            yield {**inputs, name: np.concatenate([x, x])}


def _resized(x: np.ndarray, change: Callable[[int, int], int]) -> np.ndarray:
    places = [np.arange(change(axis, n) if n > 1 else n) % max(n, 1) for axis, n in enumerate(x.shape)]
    return np.ascontiguousarray(x[np.ix_(*places)]) if places else x


def static(model: onnx.ModelProto, inputs: Inputs) -> onnx.ModelProto:
    """The model with the sizes of `inputs`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in free_inputs(made):
        if not isinstance(inputs.get(value.name), np.ndarray) or not value.type.tensor_type.HasField("shape"):
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape):
            dim.dim_value = size
    forget_shapes(made)
    return made


def judge(
    model: onnx.ModelProto,
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]],
    device: str,
    options: Mapping[str, Any],
    differ: Callable[[Any, Any], str],
) -> tuple[str, str, str]:
    """(status, reason, note) of a case: the note says which dims were symbols, and what other sizes were compared.

    `differ` says how a result differs from the expected one.
    """
    if not any(v.type.tensor_type.shape.dim for v in free_inputs(model)):
        return "unchanged", "", "no input has a size"
    refusal = ""
    for level, naming in NAMINGS.items():
        try:
            made = _runs(model, data, device, options, naming)
        except CompileError as error:
            refusal = _refusal(error)
            continue
        if made is None:
            continue
        prepared, results, kept = made
        for number, (actual, (_, expected)) in enumerate(zip(results, data)):
            wrong = differ(list(actual), expected)
            if wrong:
                return "wrong", f"{level}, data set {number}: {wrong}", level
        wrong, other = _compare_other(model, prepared, dict(zip(prepared.inputs, data[0][0])), kept, differ)
        if wrong:
            return "wrong", f"{level}, other sizes ({other}): {wrong}", level
        constants = f"; constant: {', '.join(kept)}" if kept else ""
        return "passed", "", f"{level}; {other or 'no other size is valid'}{constants}"
    return ("refused", refusal, "") if refusal else ("unchanged", "", "no input has a size that may change")


def _is_demand(error: CompileError) -> bool:
    """Whether a run was refused for a size: a nested graph demands another, or parameters give one that cannot be."""
    return error.code == _OF_A_RUN and any(
        text in str(error) for text in ("must be equal", "it must be", "the run gives")
    )


def _refusal(error: CompileError) -> str:
    """Why a model with symbols cannot be had, or cannot run at these sizes. Raises any other error."""
    if _is_demand(error):
        return error.message
    inner = getattr(error, "errors", (error,))
    if not all(isinstance(each, (UnsupportedError, UsageError)) for each in inner):
        raise error
    return inner[0].message


def _runs(
    model: onnx.ModelProto, data: Sequence[Any], device: str, options: Mapping[str, Any], naming: Naming
) -> tuple[Any, list[Any], list[str]] | None:
    """A prepared model with symbols, its results, and the inputs that had to be known and so keep their sizes."""
    kept: list[str] = []
    while True:
        made = symbolic(model, kept, naming)
        if made is None:
            return None
        prepared = prepare(made, device, **options)
        results = [prepared.run(inputs) for inputs, _ in data]
        if set(prepared.specialised) <= set(kept):
            return prepared, results, kept
        kept = sorted({*kept, *prepared.specialised})


def _compare_other(
    model: onnx.ModelProto, prepared: Any, inputs: Inputs, kept: Sequence[str], differ: Callable[[Any, Any], str]
) -> tuple[str, str]:
    """How the first valid other sizes differ from the interpreter of a model with these sizes; and the sizes."""
    for given in other_sizes({n: np.asarray(x) if isinstance(x, np.generic) else x for n, x in inputs.items()}, kept):
        arrays = list(given.values())
        try:
            expected = prepare(static(model, given), "REFERENCE").run(arrays)
        except CompileError as error:
            if error.code == _OF_A_RUN and not _is_demand(error):
                raise
            continue  # these sizes do not fit the model
        except (ValueError, IndexError):
            continue
        sizes = ", ".join(f"{n} {list(x.shape)}" for n, x in given.items() if isinstance(x, np.ndarray) and x.shape)
        try:
            actual = prepared.run(arrays)
        except UsageError:
            continue  # sizes that the symbols of this level do not allow, such as 1 where there was more
        return differ(list(actual), list(expected)), sizes
    return "", ""
