"""Records `inputs_2.npz` and `outputs_2.npz` of the exporters' graphs: every symbolic dim gets another size.

Ids and floats of the first shape wrap around, masks grow by ones in front, positions follow the cache. The outputs are
those of ONNX Runtime on CPU, graph optimisation off.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

HERE = Path(__file__).parent
ONE_TOKEN = ("genai_", "mobius_mamba", "optimum_", "qwen3_tiny_decode_")
"""Graphs that decode one token at a time."""
Sizes = dict[str, int]


def second_sizes(name: str, first: Sizes) -> Sizes:
    """The sizes of the second shape by the names of dims."""
    sizes: Sizes = {}
    for dim, size in first.items():
        if dim in ("batch", "batch_size", "s44"):
            sizes[dim] = {1: 2, 2: 3, 3: 1}[size]
        elif dim in ("seq", "sequence_len", "sequence_length", "s70"):
            sizes[dim] = size if name.startswith(ONE_TOKEN) else size + 2
        elif dim in ("height", "width"):
            sizes[dim] = 128 - size
        elif dim == "kv_cache_dim" or dim.isdigit():
            sizes[dim] = size
        else:
            sizes[dim] = size + 3
    new, past = _named(sizes, "seq", "sequence_len", "sequence_length", "s70"), _named(sizes, "past", "s36")
    if (
        name == "mobius_bert_tiny"
    ):  # its mask[batch,seq] broadcasts against [..., seq,seq]: to 1 at first, here as it is
        sizes["batch"] = new
    for dim in sizes:
        if dim.startswith("total") or "+" in dim:
            sizes[dim] = new + past
    return sizes


def _named(sizes: Sizes, *prefixes: str) -> int:
    return next((sizes[dim] for dim in sizes if dim.startswith(prefixes) and "+" not in dim), 0)


def second_input(name: str, array: np.ndarray, shape: tuple[int, ...], past: int) -> np.ndarray:
    """An input of another shape, made of the recorded one."""
    if "mask" in name:
        rows = np.take(array, range(shape[0]), axis=0, mode="wrap")
        missing = max(0, shape[1] - rows.shape[1])
        return np.pad(rows, ((0, 0), (missing, 0)), constant_values=1)[:, -shape[1] :]
    if "position" in name:
        return np.broadcast_to(past + np.arange(shape[1]), shape).astype(array.dtype)
    if name == "nonpad_kv_seqlen":
        array = array + 2  # as many keys more as there are tokens
    for axis, size in enumerate(shape):
        array = np.take(array, range(size), axis=axis, mode="wrap")
    return np.ascontiguousarray(array)


def record(folder: Path) -> None:
    """Writes the two files of a graph."""
    inputs = dict(np.load(folder / "inputs.npz"))
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    dims = {
        v.name: [d.dim_param or str(d.dim_value) for d in v.type.tensor_type.shape.dim]
        for v in model.graph.input
        if v.name in inputs
    }
    first = {dim: size for name in dims for dim, size in zip(dims[name], inputs[name].shape)}
    sizes = second_sizes(folder.name, first)
    past = _named(sizes, "past", "s36") or int(inputs.get("write_indices", [0])[0])
    shapes = {name: tuple(sizes[dim] for dim in dims[name]) for name in dims}
    second = {name: second_input(name, inputs[name], shapes[name], past) for name in dims}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, second)))
    np.savez_compressed(folder / "inputs_2.npz", **second)
    np.savez_compressed(folder / "outputs_2.npz", **outputs)


if __name__ == "__main__":
    for given in sys.argv[1:] or sorted(p.name for p in HERE.iterdir() if (p / "inputs.npz").exists()):
        record(HERE / given)
