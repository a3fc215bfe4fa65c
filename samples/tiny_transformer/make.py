"""Build a small transformer encoder with dynamic batch and sequence length, and inputs for it, next to this script.

The graph is written with `onnx.helper` alone, in the decomposed style of exporters: shapes computed from Shape and
Concat, positions from Range, attention as MatMul, Where and Softmax, gelu through Erf. Weights are random with a fixed
seed: the model shows structure and predicts nothing. Writes `tiny_transformer.onnx` and `inputs.npz`; it must not read
anything.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SEED = 11
OPSET = 17
LAYERS = 2
HIDDEN = 32
HEADS = 4
HEAD_SIZE = HIDDEN // HEADS
FEED_FORWARD = 4 * HIDDEN
VOCABULARY = 100
MAX_SEQUENCE = 64
MASKED = -1e9


class EncoderGraph:
    """Nodes and initializers of the encoder as they accumulate; every method adds nodes and returns a tensor name."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def weight(self, name: str, *shape: int, scale: float) -> str:
        return self.constant(name, (scale * self.random.standard_normal(shape)).astype(np.float32))

    def integers(self, *values: int) -> str:
        return self.constant("i64_" + "_".join(str(value) for value in values), np.array(values, np.int64))

    def scalar(self, name: str, value: float | int, dtype: type = np.float32) -> str:
        return self.constant(name, np.array(value, dtype))

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """x f32[batch, sequence, inputs] -> f32[batch, sequence, outputs]."""
        product = self.node(
            "MatMul", [x, self.weight(f"{name}.weight", inputs, outputs, scale=inputs**-0.5)], f"{name}_product"
        )
        return self.node("Add", [product, self.weight(f"{name}.bias", outputs, scale=0.1)], name)

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation of x f32[batch, sequence, HIDDEN] over its last axis."""
        gain = self.constant(f"{name}.weight", (1 + 0.1 * self.random.standard_normal(HIDDEN)).astype(np.float32))
        bias = self.weight(f"{name}.bias", HIDDEN, scale=0.1)
        return self.node("LayerNormalization", [x, gain, bias], name, axis=-1, epsilon=1e-5)

    def dimension(self, x: str, axis: int, name: str) -> str:
        """i64[1], the size of x along axis."""
        shape = self.node("Shape", [x], f"{name}_shape")
        size = self.node("Gather", [shape, self.scalar(f"i64_{axis}_scalar", axis, np.int64)], f"{name}_scalar", axis=0)
        return self.node("Unsqueeze", [size, self.integers(0)], name)

    def embedding(self) -> str:
        """input_ids i64[batch, sequence] -> f32[batch, sequence, HIDDEN], tokens plus learned positions."""
        tokens = self.weight("token_embedding.weight", VOCABULARY, HIDDEN, scale=1.0)
        embedded = self.node("Gather", [tokens, "input_ids"], "tokens", axis=0)
        end = self.node("Squeeze", ["sequence_size", self.integers(0)], "sequence_scalar")
        start, step = self.scalar("zero", 0, np.int64), self.scalar("one", 1, np.int64)
        ids = self.node("Range", [start, end, step], "position_ids")
        table = self.weight("position_embedding.weight", MAX_SEQUENCE, HIDDEN, scale=0.3)
        limit = self.node("Slice", [table, self.integers(0), "sequence_size", self.integers(0)], "position_window")
        positions = self.node("Gather", [limit, ids], "positions", axis=0)
        return self.norm(self.node("Add", [embedded, positions], "embedded"), "embedding_norm")

    def mask(self) -> str:
        """attention_mask i64[batch, sequence] -> bool[batch, 1, 1, sequence], true where a key may be attended."""
        keep = self.node("Cast", ["attention_mask"], "keep", to=TensorProto.BOOL)
        return self.node("Unsqueeze", [keep, self.integers(1, 2)], "keep_keys")

    def heads(self, x: str, name: str, perm: list[int]) -> str:
        """x f32[batch, sequence, HIDDEN] -> its heads, [batch, sequence, HEADS, HEAD_SIZE] permuted by perm."""
        return self.node("Transpose", [self.node("Reshape", [x, "split_shape"], f"{name}_split")], name, perm=perm)

    def attention(self, x: str, keep: str, name: str) -> str:
        """Multi-head self-attention of x f32[batch, sequence, HIDDEN] under the key mask `keep`."""
        query = self.heads(self.linear(x, f"{name}.query", HIDDEN, HIDDEN), f"{name}.query_heads", [0, 2, 1, 3])
        key = self.heads(self.linear(x, f"{name}.key", HIDDEN, HIDDEN), f"{name}.key_heads", [0, 2, 3, 1])
        value = self.heads(self.linear(x, f"{name}.value", HIDDEN, HIDDEN), f"{name}.value_heads", [0, 2, 1, 3])
        scores = self.node("MatMul", [query, key], f"{name}.scores")
        scaled = self.node(
            "Div", [scores, self.scalar("sqrt_head_size", math.sqrt(HEAD_SIZE))], f"{name}.scaled_scores"
        )
        masked = self.node("Where", [keep, scaled, self.scalar("masked", MASKED)], f"{name}.masked_scores")
        weights = self.node("Softmax", [masked], f"{name}.weights", axis=-1)
        mixed = self.node("MatMul", [weights, value], f"{name}.mixed")
        rows = self.node("Transpose", [mixed], f"{name}.rows", perm=[0, 2, 1, 3])
        merged = self.node("Reshape", [rows, "merge_shape"], f"{name}.merged")
        return self.linear(merged, f"{name}.output", HIDDEN, HIDDEN)

    def gelu(self, x: str, name: str) -> str:
        """x * (1 + erf(x / sqrt 2)) / 2, elementwise."""
        erf = self.node(
            "Erf", [self.node("Div", [x, self.scalar("sqrt_2", math.sqrt(2))], f"{name}_arg")], f"{name}_erf"
        )
        gate = self.node("Add", [erf, self.scalar("f32_one", 1.0)], f"{name}_gate")
        return self.node("Mul", [self.node("Mul", [x, gate], f"{name}_twice"), self.scalar("half", 0.5)], name)

    def layer(self, x: str, keep: str, name: str) -> str:
        """One encoder layer, normalised after each residual sum; shapes as x f32[batch, sequence, HIDDEN]."""
        attended = self.node("Add", [x, self.attention(x, keep, f"{name}.attention")], f"{name}.attended")
        x = self.norm(attended, f"{name}.attention_norm")
        wide = self.gelu(self.linear(x, f"{name}.expand", HIDDEN, FEED_FORWARD), f"{name}.gelu")
        fed = self.node("Add", [x, self.linear(wide, f"{name}.contract", FEED_FORWARD, HIDDEN)], f"{name}.fed")
        return self.norm(fed, f"{name}.feed_forward_norm")

    def encoder(self) -> None:
        """The whole graph, from `input_ids` and `attention_mask` to `last_hidden_state`."""
        batch, sequence = self.dimension("input_ids", 0, "batch_size"), self.dimension("input_ids", 1, "sequence_size")
        sizes = [batch, sequence]
        self.node("Concat", [*sizes, self.integers(HEADS), self.integers(HEAD_SIZE)], "split_shape", axis=0)
        self.node("Concat", [*sizes, self.integers(HIDDEN)], "merge_shape", axis=0)
        x, keep = self.embedding(), self.mask()
        for index in range(LAYERS):
            x = self.layer(x, keep, f"layer{index}")
        self.node("Identity", [x], "last_hidden_state")


def build() -> onnx.ModelProto:
    """Return the checked model: i64[batch, sequence] twice in, f32[batch, sequence, HIDDEN] out; sequence <= 64."""
    graph = EncoderGraph(SEED)
    graph.encoder()
    dims = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*dims, HIDDEN])
    proto = helper.make_graph(graph.nodes, "tiny_transformer", inputs, [output], list(graph.initializers.values()))
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def example_inputs(batch: int, sequence: int, seed: int) -> dict[str, np.ndarray]:
    """Return random token ids and a mask whose row i hides the last i tokens (never all of them), both i64."""
    random = np.random.default_rng(seed)
    lengths = np.maximum(sequence - np.arange(batch), 1)
    mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
    return {"input_ids": random.integers(0, VOCABULARY, (batch, sequence)), "attention_mask": mask}


def main() -> None:
    """Write the model and one set of inputs, batch 3 and sequence 12."""
    onnx.save(build(), HERE / "tiny_transformer.onnx")
    inputs = example_inputs(batch=3, sequence=12, seed=SEED)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    np.savez_compressed(HERE / "inputs.npz", input_ids=ids, attention_mask=mask)


if __name__ == "__main__":
    main()
