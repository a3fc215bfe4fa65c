"""Operators of com.microsoft that are not supported, and why."""

from __future__ import annotations

from compiler.onnx.registry import refuse

_MS = "com.microsoft"

refuse(
    "its tensors are laid out for the matrix units of one vendor's devices (`order_A` and the like), which its "
    "documentation does not describe; export the model with QDQ nodes",
    "QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization", "QOrderedLongformerAttention", "QOrderedMatMul",
    "QuantizeWithOrder", "DequantizeWithOrder", domain=_MS,
)  # fmt: skip
refuse(
    "it runs whole models in a loop of its own, with a number of steps that depends on data; compile the decoder "
    "without it and generate tokens outside of it",
    "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch", domain=_MS,
)  # fmt: skip
refuse(
    "it holds a program for one vendor's device in a format of that vendor; compile the model it was made from",
    "Snpe", "EPContext", domain=_MS,
)  # fmt: skip
refuse(
    "the format of its weights is private to ONNX Runtime, which packs them for one machine; export the model with "
    "MatMulNBits",
    "MatMulFpQ4", domain=_MS,
)  # fmt: skip
refuse("its format of block floating point is not documented", "QuantizeBFP", "DequantizeBFP", domain=_MS)
refuse(
    "its separators and tokens are regular expressions, whose matches decide the sizes of its result; tokenize before "
    "the model runs",
    "Tokenizer", domain=_MS,
)  # fmt: skip
refuse("it is for internal use, and what its mask means is not documented", "MaxpoolWithMask", domain=_MS)
refuse(
    "ONNX Runtime laid the model out for one processor when it saved it; let it optimise at level extended at most",
    "AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput", "Upsample",
    domain="com.microsoft.nchwc",
)  # fmt: skip
