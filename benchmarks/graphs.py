"""Graphs of well-known networks with seeded weights, node by node: what they compute is noise, what it costs is not.

They have the layers, sizes and operators that exporters write for these networks, batch normalization folded into the
convolutions before it. `write(name, folder)` makes the file; no exporter and no download is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """A graph that grows by calls; each method gives the name of the value that it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def random(self, *shape: int, scale: float) -> str:
        return self.constant(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, groups: int = 1) -> str:
        """A convolution with bias that keeps the size at stride 1."""
        into, out = channels
        fan_in = into // groups * kernel * kernel
        weight = self.random(out, into // groups, kernel, kernel, scale=math.sqrt(2 / fan_in))
        bias = self.random(out, scale=0.1)
        return self.node("Conv", x, weight, bias, strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups,
                         kernel_shape=[kernel] * 2)  # fmt: skip

    def linear(self, x: str, into: int, out: int) -> str:
        product = self.node("MatMul", x, self.random(into, out, scale=1 / math.sqrt(into)))
        return self.node("Add", self.random(out, scale=0.02), product)

    def norm(self, x: str, width: int, epsilon: float) -> str:
        scale = self.constant(np.ones(width, np.float32))
        return self.node("LayerNormalization", x, scale, self.random(width, scale=0.02), axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        error = self.node("Erf", self.node("Div", x, self.number(math.sqrt(2))))
        return self.node("Mul", self.node("Mul", x, self.node("Add", error, self.number(1))), self.number(0.5))

    def silu(self, x: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.number(0), self.number(6))

    def attention(self, x: str, width: int, heads: int, tokens: int, mask: str | None = None) -> str:
        """Self-attention of [1, tokens, width]; `mask` is added to the scores."""
        split = self.ints(1, tokens, heads, width // heads)

        def projected(perm: Sequence[int]) -> str:
            rows = self.node("Reshape", self.linear(x, width, width), split)
            return self.node("Transpose", rows, perm=list(perm))

        query, key, value = (projected(perm) for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
        scores = self.node("Div", self.node("MatMul", query, key), self.number(math.sqrt(width // heads)))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        rows = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(1, tokens, width))
        return self.linear(rows, width, width)

    def model(self, inputs: Sequence[tuple[str, int, Sequence[int]]], output: str, shape: Sequence[int]) -> bytes:
        """The file, with these inputs and one output of floats."""
        takes = [helper.make_tensor_value_info(*each) for each in inputs]
        gives = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "network", takes, gives, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return model.SerializeToString()


def _classifier(net: Network, x: str, into: int) -> str:
    flat = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
    weight, bias = net.random(1000, into, scale=1 / math.sqrt(into)), net.random(1000, scale=0.02)
    return net.node("Gemm", flat, weight, bias, transB=1)


_IMAGE = ("image", TensorProto.FLOAT, (1, 3, 224, 224))
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Factor of expansion, channels, blocks, stride of the first: Sandler and others 2018, table 2."""

_EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
"""Factor of expansion, channels, blocks, stride of the first, kernel: Tan and Le 2019, table 1."""


def mobilenet_v2() -> bytes:
    """3.4 million weights, 0.3 G multiplications: pointwise and depthwise convolutions of 3 x 3."""
    net = Network()
    x, channels = net.relu6(net.conv("image", (3, 32), 3, 2)), 32
    for factor, out, blocks, stride in _MOBILENET_V2:
        for block in range(blocks):
            inner, y = channels * factor, x
            if factor != 1:
                y = net.relu6(net.conv(y, (channels, inner), 1))
            y = net.relu6(net.conv(y, (inner, inner), 3, stride if block == 0 else 1, groups=inner))
            y = net.conv(y, (inner, out), 1)
            x = net.node("Add", x, y) if block > 0 else y
            channels = out
    x = net.relu6(net.conv(x, (channels, 1280), 1))
    return net.model([_IMAGE], _classifier(net, x, 1280), (1, 1000))


def efficientnet_b0() -> bytes:
    """5.3 million weights, 0.4 G multiplications: depthwise convolutions of 3 x 3 and 5 x 5, channels gated, SiLU."""
    net = Network()
    x, channels = net.silu(net.conv("image", (3, 32), 3, 2)), 32
    for factor, out, blocks, stride, kernel in _EFFICIENTNET_B0:
        for block in range(blocks):
            inner, y = channels * factor, x
            if factor != 1:
                y = net.silu(net.conv(y, (channels, inner), 1))
            y = net.silu(net.conv(y, (inner, inner), kernel, stride if block == 0 else 1, groups=inner))
            gate = net.silu(net.conv(net.node("GlobalAveragePool", y), (inner, max(1, channels // 4)), 1))
            gate = net.node("Sigmoid", net.conv(gate, (max(1, channels // 4), inner), 1))
            y = net.conv(net.node("Mul", y, gate), (inner, out), 1)
            x = net.node("Add", x, y) if block > 0 else y
            channels = out
    x = net.silu(net.conv(x, (channels, 1280), 1))
    return net.model([_IMAGE], _classifier(net, x, 1280), (1, 1000))


def vit_b16() -> bytes:
    """86 million weights: 12 layers of width 768 with 12 heads, on the 196 patches of an image and a class."""
    net, width, heads, tokens = Network(), 768, 12, 197
    patch = net.random(width, 3, 16, 16, scale=1 / math.sqrt(768))
    patches = net.node("Conv", "image", patch, net.random(width, scale=0.02), strides=[16, 16], kernel_shape=[16, 16])
    rows = net.node("Transpose", net.node("Reshape", patches, net.ints(1, width, 196)), perm=[0, 2, 1])
    x = net.node("Concat", net.random(1, 1, width, scale=0.02), rows, axis=1)
    x = net.node("Add", x, net.random(1, tokens, width, scale=0.02))
    for _ in range(12):
        x = net.node("Add", net.attention(net.norm(x, width, 1e-6), width, heads, tokens), x)
        hidden = net.gelu(net.linear(net.norm(x, width, 1e-6), width, 4 * width))
        x = net.node("Add", net.linear(hidden, 4 * width, width), x)
    first = net.node("Gather", net.norm(x, width, 1e-6), net.constant(np.array(0, np.int64)), axis=1)
    return net.model([_IMAGE], net.linear(first, width, 1000), (1, 1000))


def bert_base(tokens: int = 128) -> bytes:
    """110 million weights: 12 layers of width 768 with 12 heads, on 128 tokens with a mask."""
    net, width, heads = Network(), 768, 12
    words = net.node("Gather", net.random(30522, width, scale=0.02), "input_ids")
    kinds = net.node("Gather", net.random(2, width, scale=0.02), "token_type_ids")
    x = net.node("Add", net.node("Add", words, kinds), net.random(1, tokens, width, scale=0.02))
    x = net.norm(x, width, 1e-12)
    wide = net.node("Unsqueeze", "attention_mask", net.ints(1, 2))
    absent = net.node("Sub", net.number(1), net.node("Cast", wide, to=TensorProto.FLOAT))
    mask = net.node("Mul", absent, net.number(float(np.finfo(np.float32).min)))
    for _ in range(12):
        x = net.norm(net.node("Add", net.attention(x, width, heads, tokens, mask), x), width, 1e-12)
        hidden = net.gelu(net.linear(x, width, 4 * width))
        x = net.norm(net.node("Add", net.linear(hidden, 4 * width, width), x), width, 1e-12)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return net.model([(name, TensorProto.INT64, (1, tokens)) for name in names], x, (1, tokens, width))


GRAPHS: dict[str, Callable[[], bytes]] = {
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "vit_b16": vit_b16,
    "bert_base_128": bert_base,
}


def write(name: str, folder: Path) -> Path:
    """The file of a network of GRAPHS in `folder`."""
    path = folder / f"{name}.onnx"
    path.write_bytes(GRAPHS[name]())
    return path


def feeds(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a network: an image of noise, or tokens, of which the last quarter is masked."""
    rng = np.random.default_rng(seed)
    if name != "bert_base_128":
        return {"image": rng.standard_normal((1, 3, 224, 224), dtype=np.float32)}
    mask = np.ones((1, 128), np.int64)
    mask[:, 96:] = 0
    ids = rng.integers(0, 30522, (1, 128), np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
