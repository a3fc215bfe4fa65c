"""The plain light models of the onnx package with seeded random weights, so that their outputs test correctness.

In those models every weight is the output of a ConstantOfShape node and the answer is a constant. Here each becomes an
initializer drawn at random, and the output is what went into the final softmax, which would hide every difference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def seeded(path: str | Path, seed: int = 0) -> onnx.ModelProto:
    """The model at `path` with random weights (He scale for kernels) for each ConstantOfShape, giving logits."""
    model = onnx.load(str(path))
    graph = model.graph
    rng = np.random.default_rng(seed)
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made = {n.output[0]: n for n in graph.node if n.op_type == "ConstantOfShape"}
    roles = _roles(graph)
    kept = [n for n in graph.node if n.op_type not in ("ConstantOfShape", "Softmax")]
    final = next((n for n in graph.node if n.op_type == "Softmax"), None)
    if final is not None:
        graph.output[0].name = final.input[0]
    used_as_shape = {n.input[0] for n in made.values()}
    for name, node in made.items():
        shape = tuple(int(s) for s in shapes[node.input[0]])
        graph.initializer.append(numpy_helper.from_array(_weights(roles.get(name, ""), shape, rng), name))
    del graph.node[:]
    graph.node.extend(kept)
    needed = {name for n in kept for name in n.input}
    for field in (graph.initializer, graph.input):
        unused = [item for item in field if item.name in used_as_shape and item.name not in needed]
        for item in unused:
            field.remove(item)
    return model


def _roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What each tensor is to the node that takes it; what passes through reshapes keeps its role."""
    roles: dict[str, str] = {}
    for node in reversed(graph.node):
        if node.op_type == "BatchNormalization":
            for name, role in zip(node.input[1:], ("scale", "shift", "mean", "variance")):
                roles.setdefault(name, role)
        elif node.op_type in ("Conv", "Gemm"):
            for name, role in zip(node.input[1:], ("kernel", "shift")):
                roles.setdefault(name, role)
        elif node.op_type == "Unsqueeze":
            roles.setdefault(node.input[0], roles.get(node.output[0], "scale"))
        elif node.op_type in ("Mul", "Add"):
            roles.setdefault(node.input[1], "scale" if node.op_type == "Mul" else "shift")
    return roles


def _weights(role: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape)
    if role == "kernel":
        fan_in = int(np.prod(shape[1:])) or 1
        return (noise * np.sqrt(2 / fan_in)).astype(np.float32)
    if role in ("scale", "variance"):
        return (1 + 0.1 * np.tanh(noise)).astype(np.float32)
    return (0.1 * noise).astype(np.float32)
