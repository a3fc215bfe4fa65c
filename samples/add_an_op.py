"""Teach the compiler an operator: declare what it means once, import it from a domain of its own, and compile it to C.

    python samples/add_an_op.py

The operator is `acme::SoftShrink`: x - bias above bias, x + bias below -bias, and 0 between. In the compiler itself the
first half of this file would stand in `ir/ops/activation.py` and the second in `compiler/onnx/ops/`; a program of one's
own may declare both anywhere, before it loads a model.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
import onnx
from onnx import helper

import compiler
from compiler.onnx.registry import onnx_op
from ir.element import Tensor, const, select
from ir.evaluate import evaluate_graph
from ir.expr import Expr
from ir.graph import Graph
from ir.op import Op, case, op, require
from ir.types import TensorType

# ---------------------------------------------------------------------------- what the op is


@op
class SoftShrink(Op):
    """x - bias where x > bias, x + bias where x < -bias, else 0; of floats."""

    # Attributes are fields with defaults. An op is frozen: its class and attributes are all it is.
    bias: float = 0.5

    # The examples drive the tests that every op gets: reference == element == C, on these types.
    examples = [case("f32[2,3]"), case("f32[5]", bias=0.1), case("f64[]")]

    def infer(self, x: TensorType) -> TensorType:
        """Types in, types out; sizes may be symbolic. A refusal is a sentence in terms of the op."""
        require(x.dtype.is_float, lambda: f"soft_shrink does not take {x.dtype}")
        require(self.bias >= 0, lambda: f"soft_shrink: bias {self.bias} is negative")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The meaning, in NumPy. It is what every other form is checked against; it need not be fast."""
        bias = x.dtype.type(self.bias)
        return np.where(x > bias, x - bias, np.where(x < -bias, x + bias, x.dtype.type(0)))

    def element(self, i: tuple[Expr, ...], x: Tensor) -> Expr:
        """One element of the output. Loops, fusion with neighbours, vectors and C follow from this expression."""
        value = x.at(*i)
        bias = const(self.bias, x.dtype)
        return select(value > bias, value - bias, select(value < -bias, value + bias, const(0, x.dtype)))


# ---------------------------------------------------------------------------- how ONNX spells it


# The signature is the schema: positional parameters are inputs, keyword-only ones attributes with their defaults. A
# node with an attribute that is not listed, or with too many inputs, is refused by name.
@onnx_op("SoftShrink", since=1, domain="acme")
def import_soft_shrink(b, x, *, lambd: float = 0.5):
    return b.soft_shrink(x, bias=lambd)


# ---------------------------------------------------------------------------- a model that uses it


def example_model() -> onnx.ModelProto:
    """y = soft_shrink(x @ w, 0.25) + 1, with a dynamic number of rows."""
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
        helper.make_node("SoftShrink", ["product"], ["shrunk"], name="shrink", domain="acme", lambd=0.25),
        helper.make_node("Add", ["shrunk", "one"], ["y"], name="plus_one"),
    ]
    graph = helper.make_graph(
        nodes,
        "shrink",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", 6])],
        [helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, 6], weight.tobytes(), raw=True),
         helper.make_tensor("one", onnx.TensorProto.FLOAT, [], [1.0])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)])


def main() -> int:
    model = compiler.load(example_model())
    print(model.graph)

    # A new op takes part in everything: here it is fused into the epilogue of the matrix product.
    with tempfile.TemporaryDirectory() as folder:
        artifact = compiler.compile(model, out=f"{folder}/shrink")
        print(f"kernels: {', '.join(artifact.manifest['nodes'])}")
        x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
        found = artifact.load().run({"x": x})["y"]

    (expected,) = evaluate_graph(model.graph, [x])
    error = float(np.abs(found - expected).max())
    print(f"largest difference from the reference: {error:.1e}")
    print(f"a graph of integers is refused: {refusal()}")
    return 0 if error < 1e-5 and "soft_shrink does not take i64" in refusal() else 1


def refusal() -> str:
    """What the type rule says of an operand that the op does not take."""
    from ir.build import Builder
    from ir.op import OpError, parse_type

    graph = Graph("wrong")
    x = graph.add_input("x", parse_type("i64[3]"))
    try:
        Builder(graph).soft_shrink(x)
    except OpError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    sys.exit(main())
