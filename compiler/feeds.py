"""Inputs for a model: random ones of its types, and those read from .npy and .npz files, checked against its types.

Knows nothing of how a model is run. Random values are small and seeded, so that a run can be repeated.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.archive import gather
from compiler.errors import UsageError
from ir import kinds
from ir.dims import Dim, Size, evaluate, names, parse_dim
from ir.graph import Graph
from ir.types import DTYPES, OptionalType, SequenceType, TensorType, Type

_SIZE = 3
"""Sizes of symbolic dims start here where nothing says otherwise: small, and not 1, which broadcasts."""


@dataclass(frozen=True)
class Signature:
    """What a model takes: types by input name, bounds of symbolic dims, and pairs of sizes that must be equal."""

    inputs: Mapping[str, Type]
    bounds: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    equal_dims: Sequence[tuple[Size, Size]] = ()

    @staticmethod
    def of_graph(graph: Graph) -> Signature:
        return Signature({v.name: v.type for v in graph.inputs}, graph.bounds, graph.equal_dims)

    @staticmethod
    def of_manifest(manifest: Mapping[str, Any]) -> Signature:
        """The signature in the manifest of an artifact, as callers see it. Raises UsageError for an input that has no
        kind there and is no tensor."""
        several = kinds.several(manifest.get("kinds", {}), "input")
        labels = {name: label for label, kind in several.items() for name in kinds.tensor_names(kind, label)}
        inputs: dict[str, Type] = {}
        for port in manifest["inputs"]:
            label = str(labels.get(port["name"], port["name"]))
            inputs[label] = kinds.type_of(several[label]) if label in several else port_type(port, manifest)
        return Signature(
            inputs,
            {dim["name"]: (int(dim["min"]), dim["max"]) for dim in manifest["dims"]},
            [(parse_dim(a), parse_dim(b)) for a, b in manifest.get("equal_dims", [])],
        )


def port_type(port: Mapping[str, Any], manifest: Mapping[str, Any]) -> TensorType:
    """The type of a tensor in a manifest, as callers see it: strings, where it holds them as cells. Raises UsageError
    for what is no tensor."""
    if "dtype" not in port:
        raise UsageError("E0211", f"'{port['name']}' is {port['type']}, which can be given from Python only")
    type_ = TensorType(DTYPES[port["dtype"]], tuple(parse_dim(str(size)) for size in port["shape"]))
    filed = manifest.get("kinds", {})
    is_text = ["strings"] in [filed.get(f"{way} {port['name']}") for way in ("input", "output")]
    return TensorType(DTYPES["string"], type_.shape[:-1]) if is_text else type_


def choose_sizes(signature: Signature, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A size for each symbolic dim: the given one, else a small one within its bounds that keeps equal dims equal.

    Raises UsageError for a dim that the inputs do not have.
    """
    symbols = sorted(
        {n for t in signature.inputs.values() if isinstance(t, TensorType) for s in t.shape for n in names(s)}
    )
    sizes = dict(given or {})
    for name in sizes:
        if name not in symbols:
            close = difflib.get_close_matches(name, symbols, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"its symbolic dims: {', '.join(symbols) or 'none'}"
            raise UsageError("E0201", f"the inputs have no symbolic dim '{name}'", help=hint)
    for name in symbols:
        if name not in sizes:
            _solve_equal(signature.equal_dims, sizes)
        if name not in sizes:
            least, greatest = signature.bounds.get(name, (0, None))
            sizes[name] = max(least, _SIZE if greatest is None else min(_SIZE, greatest))
    return {name: sizes[name] for name in symbols}


def _solve_equal(pairs: Sequence[tuple[Size, Size]], sizes: dict[str, int]) -> None:
    """Adds the sizes that equal pairs determine: `total == past + new` gives `total` once the others are chosen."""
    for left, right in [*pairs, *((b, a) for a, b in pairs)]:
        name = next(iter(names(left)), None)
        if name is None or name in sizes or left != parse_dim(_quoted(name)) or not names(right) <= sizes.keys():
            continue
        sizes[name] = evaluate(right, sizes)


def _quoted(name: str) -> str:
    from ir.dims import dim_text, symbol

    return dim_text(symbol(name))


def random_feeds(signature: Signature, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """An array for every input. Floats are normal; 8-bit integers span their range, others are 0 to 7 (valid as most
    indices); bools are even chances. Raises UsageError for an input that is not a tensor.
    """
    rng = np.random.default_rng(seed)
    chosen = choose_sizes(signature, sizes)
    feeds = {}
    for name, type_ in signature.inputs.items():
        if not isinstance(type_, TensorType):
            raise UsageError(
                "E0211",
                f"input '{name}' is {type_}; random inputs are made for tensors only",
                help=f"give it with --inputs FILE.npz{_entries(name, type_)}",
            )
        feeds[name] = random_array(
            type_, tuple(evaluate(s, chosen) if isinstance(s, Dim) else s for s in type_.shape), rng
        )
    return feeds


def random_array(type_: TensorType, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random array of the element type of `type_`; see `random_feeds`."""
    dtype = type_.dtype
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    if dtype.kind == "string":
        return rng.choice(np.array(["a", "bb", "ccc"], dtype=object), shape)
    if dtype.is_integer and dtype.bits <= 8:
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
        return np.asarray(rng.integers(low, low + (1 << dtype.bits), shape)).astype(dtype.numpy)
    if dtype.is_integer:
        return np.asarray(rng.integers(0, 8, shape)).astype(dtype.numpy)
    if dtype.kind == "complex":
        return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype.numpy)
    return np.asarray(rng.standard_normal(shape, dtype=np.float32)).astype(dtype.numpy)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Nothing is unpickled. Raises UsageError where it cannot be read."""
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        raise UsageError(
            "E0212", "this is one array (.npy), not an .npz file", file=str(path), help="--input NAME=FILE.npy"
        )
    with loaded:
        try:
            return {name: loaded[name] for name in loaded.files}
        except ValueError as error:
            raise UsageError("E0212", f"cannot be read: {error}", file=str(path)) from error


def read_npy(path: str | Path) -> np.ndarray:
    """The array of an .npy file. Nothing is unpickled. Raises UsageError where it cannot be read."""
    loaded = _load(path)
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise UsageError(
            "E0212", "this is an .npz file, not one array (.npy)", file=str(path), help="--inputs FILE.npz"
        )
    return loaded


def _load(path: str | Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError("E0212", f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except (ValueError, EOFError) as error:
        raise UsageError("E0212", f"cannot be read: {error}", file=str(path)) from error


def fit_feeds(signature: Signature, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """`feeds` for every input, in the model's order. Element types that .npy files cannot name are taken as bytes.

    Sequences may be as in an .npz file (`compiler.archive`); an optional that is left out is absent. Raises UsageError
    for a missing or unknown input, a wrong element type or rank.
    """
    given = gather(feeds, {name: _is_sequence(type_) for name, type_ in signature.inputs.items()})
    for name in given:
        if name not in signature.inputs:
            close = difflib.get_close_matches(name, signature.inputs, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"its inputs: {', '.join(signature.inputs) or 'none'}"
            raise UsageError("E0208", f"the model has no input '{name}'", help=hint)
    fitted = {}
    for name, type_ in signature.inputs.items():
        if name not in given and not isinstance(type_, OptionalType):
            raise UsageError("E0208", f"input '{name}' is missing", help=f"it is {type_}{_entries(name, type_)}")
        fitted[name] = _fit(name, type_, given.get(name))
    return fitted


def _is_sequence(type_: Type) -> bool:
    return isinstance(type_.element if isinstance(type_, OptionalType) else type_, SequenceType)


def _entries(name: str, type_: Type) -> str:
    """How a sequence is given in a file."""
    return f": its elements as {name}.0, {name}.1 ..." if _is_sequence(type_) else ""


def _fit(name: str, type_: Type, given: Any) -> Any:
    """A value of an input as the model takes it."""
    if isinstance(type_, OptionalType):
        return None if given is None else _fit(name, type_.element, given)
    if isinstance(type_, SequenceType):
        if isinstance(type_.element, TensorType) and isinstance(given, list):
            given = [_typed(type_.element, item) for item in given]
        try:
            kinds.check(name, type_, given)
        except ValueError as error:
            raise UsageError("E0209", f"input {error}") from error
        return given
    if not isinstance(type_, TensorType):
        return given
    array = _typed(type_, given)
    if array.dtype != type_.dtype.numpy:
        raise UsageError("E0209", f"input '{name}' is {array.dtype}; the model takes {type_.dtype.numpy}")
    if array.ndim != type_.rank:
        raise UsageError("E0209", f"input '{name}' has shape {list(array.shape)}; the model takes {type_}")
    return array


def _typed(type_: TensorType, given: Any) -> np.ndarray:
    """An array whose element type an .npy file could not name, with that type."""
    array = np.asarray(given)
    if array.dtype.kind == "V" and array.dtype.itemsize == type_.dtype.itemsize:
        return array.view(type_.dtype.numpy)
    return array.astype(object) if array.dtype.kind in "UST" and type_.dtype.kind == "string" else array
