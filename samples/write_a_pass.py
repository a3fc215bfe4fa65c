"""Write a pass and a rule, put them into a target's pipeline, and watch what they do.

    python samples/write_a_pass.py

A pipeline is an immutable list. A pass is a function that changes a graph; a rule is an equation, which the rewrite
driver applies wherever it holds. Neither prints anything: observers around the list do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import compiler
from compiler import observe as see
from ir import Rule
from ir.op import case
from ir.rewrite import prove

F32 = onnx.TensorProto.FLOAT


def example_model() -> onnx.ModelProto:
    """y = relu(relu(x)) * 6 + x * x: one relu too many, and a square spelled as a product."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu1"),
        helper.make_node("Relu", ["a"], ["b"], name="relu2"),
        helper.make_node("Mul", ["b", "six"], ["c"], name="scale"),
        helper.make_node("Mul", ["x", "x"], ["d"], name="square"),
        helper.make_node("Add", ["c", "d"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "example",
        [helper.make_tensor_value_info("x", F32, ["rows", 8])],
        [helper.make_tensor_value_info("y", F32, ["rows", 8])],
        [helper.make_tensor("six", F32, [], [6.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


# A graph pass takes the graph and, if it wants one, a builder. `graph.replace(old, new)` moves every user of `old`;
# names and ONNX sources follow, so that errors and reports still speak of the model's own nodes. The pass becomes known
# by its name: `sesame passes` would list it, and `--passes` accept it, if it stood in a module that is imported.
@compiler.graph_pass
def drop_repeated_relu(graph, b):
    """relu(relu(x)) is relu(x)."""
    for node in graph.nodes("relu"):
        producer = node.inputs[0].node
        if producer is not None and producer.op.name == "relu":
            graph.replace(node.output, node.inputs[0])


# A rule has two sides, written with the same builder that importers use; they are recorded, not run. `check` says
# why the rule does not apply after all, as a sentence, which Explain prints. Types never change: the driver refuses a
# replacement of another type or shape.
class SquareOfItself(Rule):
    """x * x  =>  pow(x, 2), of wide tensors"""

    examples = [case("f32[4,8]")]

    def find(b, x):
        return x * x

    def check(m):
        return m["x"].rank >= 1 or "a scalar is not worth it"

    def replace(b, x):
        return b.pow(x, 2.0)


def main() -> int:
    # Every rule can be tested by itself: both sides run on the arrays of its examples and must agree.
    prove(SquareOfItself)

    model = compiler.load(example_model())
    target = compiler.find_backend("c")
    pipeline = target.pipeline().insert_before("legalize", drop_repeated_relu, SquareOfItself)
    print(f"pipeline: {pipeline}")

    feeds = {"x": np.linspace(-2, 2, 24, dtype=np.float32).reshape(3, 8)}
    timed, explained = see.Time(), see.Explain("SquareOfItself", stream=sys.stdout)
    with tempfile.TemporaryDirectory() as folder:
        program = pipeline.run(
            model,
            watch=[
                see.Verify(),  # checks the IR after every pass, and names the one that broke it
                timed,  # milliseconds, ops before and after, and how often each rule was applied
                see.Dump(f"{folder}/ir"),  # a file for each pass that changed something
                explained,  # where the rule was applied, and where it nearly was and why not
                see.Numerics(feeds),  # runs the graph after each pass: the first one that changed the result
            ],
        )
        print(timed.table())
        print("written: " + ", ".join(sorted(path.name for path in Path(folder, "ir").iterdir())))
        found = target.emit(program, f"{folder}/out", model).load().run(feeds)["y"]

    x = feeds["x"]
    expected = np.maximum(x, 0) * 6 + x * x
    dropped = next(row for row in timed.rows if row.name == "drop_repeated_relu")
    print(f"ops before and after drop_repeated_relu: {dropped.before}, {dropped.after}")
    is_right = np.allclose(found, expected, rtol=1e-6) and explained.applied == 1
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
