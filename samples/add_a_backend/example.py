"""Compile a small perceptron for the toy machine, run it on the simulator, and compare with the interpreter.

    pip install ./samples/add_a_backend
    python samples/add_a_backend/example.py [MODEL.onnx]

The target is found by its entry point, so it must be installed. With a path, the model is also written there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import compiler

F32 = onnx.TensorProto.FLOAT


def perceptron() -> onnx.ModelProto:
    """y = sigmoid(relu(x @ w1 + b1) @ w2), sigmoid spelled out, with a dynamic batch."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 8), "b1": (8,), "w2": (8, 3)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["one"] = np.array(1, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h0"], name="hidden/product"),
        helper.make_node("Add", ["h0", "b1"], ["h1"], name="hidden/bias"),
        helper.make_node("Relu", ["h1"], ["h2"], name="hidden/relu"),
        helper.make_node("MatMul", ["h2", "w2"], ["h3"], name="out/product"),
        helper.make_node("Neg", ["h3"], ["h4"], name="out/neg"),
        helper.make_node("Exp", ["h4"], ["h5"], name="out/exp"),
        helper.make_node("Add", ["h5", "one"], ["h6"], name="out/one"),
        helper.make_node("Div", ["one", "h6"], ["y"], name="out/div"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", F32, ["batch", 6])],
        [helper.make_tensor_value_info("y", F32, ["batch", 3])],
        [helper.make_tensor(name, F32, array.shape, array.tobytes(), raw=True) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def main() -> int:
    proto = perceptron()
    if len(sys.argv) > 1:
        onnx.save(proto, sys.argv[1])
    model = compiler.load(proto)
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        artifact = compiler.compile(model, target="toy", out=f"{folder}/toy")
        print(Path(artifact.folder, "model.toy").read_text(encoding="utf-8"))
        found = artifact.load().run({"x": x})["y"]
    expected = compiler.compile(model, target="reference").load().run({"x": x})["y"]
    error = float(np.abs(found - expected).max())
    print(f"largest difference from the interpreter: {error:.1e}")
    return 0 if error < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
