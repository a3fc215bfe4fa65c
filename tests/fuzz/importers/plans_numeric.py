"""Plans of products, reductions, norms, losses, signals, and recurrent networks."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz.importers.draft import Draft, Undrawable, plan
from tests.fuzz.importers.schemas import kind, number

_MEAN_NEEDS_ELEMENTS = ("ReduceMean", "ReduceMax", "ReduceMin")


@plan("MatMul", "MatMulInteger")
def matmul(n: Draft) -> None:
    k = n.size()
    batch = n.shape(0, 2)
    left = (k,) if n.chance(0.15) else (*n.narrowed(batch), n.size(), k)
    right = (k,) if n.chance(0.15) else (*n.narrowed(batch), k, n.size())
    n.feed(0, left)
    n.feed(1, right)
    if n.version.name == "MatMulInteger":
        if n.chance(0.6):
            n.feed(2, () if len(left) < 2 or n.chance(0.5) else (left[-2],) if len(left) == 2 else (*left[:-1], 1))
        if n.chance(0.6):
            n.feed(3, () if len(right) < 2 or n.chance(0.5) else (right[-1],))


@plan("Gemm")
def gemm(n: Draft) -> None:
    m, k, width = (n.size() for _ in range(3))
    is_float = kind(n.dtype(0)) == "float"
    n.feed(0, (k, m) if n.choose("transA", 0, 1) else (m, k))
    n.feed(1, (width, k) if n.choose("transB", 0, 1) else (k, width))
    for name in ("alpha", "beta"):
        n.real(name, -2, 2) if is_float else n.choose(name, 1.0, 2.0)
    if n.schema.since_version < 11 or n.chance(0.7):
        n.feed(2, n.pick([(m, width), (width,), (1, width), (m, 1), (1,), ()]))


@plan("Einsum")
def einsum(n: Draft) -> None:
    letters, sizes = "abcdeAB", {c: n.size(1) for c in "abcdeAB"}
    terms = ["".join(n.pick(letters[:4]) for _ in range(n.integer(0, 3))) for _ in range(n.integer(1, 3))]
    if n.chance(0.2):
        terms = [term.upper() if n.chance(0.3) else term for term in terms]
        sizes.update({c.upper(): n.size(1) for c in "abcde"})
    dots = n.shape(1, 2, least=1) if n.chance(0.3) else ()
    written = [f"{term[:1]}...{term[1:]}" if dots else term for term in terms]
    equation = (", " if n.chance(0.2) else ",").join(written)
    if n.chance(0.7):
        used = sorted(set("".join(terms)))
        chosen = "".join(n.random.sample(used, n.integer(0, len(used))))
        equation += f"->{'...' if dots else ''}{chosen}"
    n.set(equation=equation)
    for position, term in enumerate(terms):
        n.feed(position, (*(sizes[c] for c in term[:1]), *dots, *(sizes[c] for c in term[1:])), -2, 2)


def _reduce(n: Draft) -> None:
    """A mean, a maximum and a minimum of nothing have no value in every version."""
    name = n.version.name
    low, high = (0.1, 4) if name == "ReduceLogSum" else (-2, 2)
    n.feed(0, n.shape(0, 4, least=1 if name in _MEAN_NEEDS_ELEMENTS or kind(n.dtype(0)) != "float" else 0), low, high)
    rank = n.operands[0].value.ndim
    n.choose("keepdims", 0, 1)
    n.choose("noop_with_empty_axes", 0, 1)
    if n.chance(0.7):
        axes = n.axes(rank, 0 if n.has("noop_with_empty_axes") else 1) if rank else []
        if axes or n.has("noop_with_empty_axes"):
            n.parameter("axes", axes)


for _name in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
    plan(f"Reduce{_name}")(_reduce)


@plan("Softmax", "LogSoftmax", "Hardmax")
def softmax(n: Draft) -> None:
    x = n.feed(0, n.shape(1, least=1))
    old = n.schema.since_version < 13
    if old and x.ndim < 2:
        n.set(axis=0)
        return
    n.choose("axis", *range(-x.ndim if n.schema.since_version >= 11 else 0, x.ndim))


@plan("BatchNormalization")
def batch_normalization(n: Draft) -> None:
    """Inference; in training its outputs are means of the batch. Images have channels at axis 1."""
    x = n.feed(0, n.shape(2, 5, least=1))
    channels = (x.shape[1],)
    for position, low in enumerate((-2, -2, -2, 0.1), 1):
        n.feed(position, channels, low, 2)
    n.real("epsilon", 1e-5, 1e-2)
    n.real("momentum", 0.1, 0.9)
    training = n.has("training_mode") and n.choose("training_mode", 0, 1)
    n.outputs = 3 if training else 1
    if training and (x.size // x.shape[1] < 2 or n.dtype(0) != n.dtype(3)):
        raise Undrawable("a variance of one element")


@plan("InstanceNormalization")
def instance_normalization(n: Draft) -> None:
    x = n.feed(0, n.shape(3, 5, least=1))
    n.feed(1, (x.shape[1],))
    n.feed(2, (x.shape[1],))
    n.real("epsilon", 1e-4, 1e-1)


@plan("GroupNormalization")
def group_normalization(n: Draft) -> None:
    groups = n.integer(1, 3)
    channels = groups * n.integer(1, 3)
    n.feed(0, (n.size(1), channels, *n.shape(1, 3, least=1)))
    n.set(num_groups=groups)
    for position in (1, 2):
        n.feed(position, (groups if n.schema.since_version < 21 else channels,))
    n.real("epsilon", 1e-4, 1e-1)
    n.choose("stash_type", 1)


@plan("LayerNormalization", "RMSNormalization")
def layer_normalization(n: Draft) -> None:
    x = n.feed(0, n.shape(1, 4, least=1))
    axis = n.choose("axis", *range(-x.ndim, x.ndim))
    n.feed(1, x.shape[axis:] if n.chance(0.8) else n.narrowed(x.shape[axis:]))
    if n.wants(2):
        n.feed(2, x.shape[axis:])
    n.real("epsilon", 1e-4, 1e-1)
    n.choose("stash_type", 1)
    n.types["U"] = "tensor(float)"


@plan("LpNormalization")
def lp_normalization(n: Draft) -> None:
    x = n.feed(0, n.shape(1, least=1), 0.5, 4)
    n.choose("axis", *range(-x.ndim, x.ndim))
    n.choose("p", 1, 2)


@plan("MeanVarianceNormalization")
def mean_variance_normalization(n: Draft) -> None:
    x = n.feed(0, n.shape(4, 4, least=2))
    if n.chance(0.6):
        n.set(axes=sorted(n.random.sample(range(x.ndim), n.integer(1, x.ndim))))


@plan("LRN")
def lrn(n: Draft) -> None:
    n.feed(0, n.shape(4, 4, least=1))
    n.choose("size", 1, 3, 5)
    n.real("alpha", 1e-3, 1)
    n.real("beta", 0.25, 1)
    n.real("bias", 0.5, 2)


@plan("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(n: Draft) -> None:
    batch, classes, rest = n.size(1), n.integer(2, 5), n.shape(0, 2, least=1)
    n.feed(0, (batch, classes, *rest))
    labels = n.feed(1, (batch, *rest), 0, classes - 1)
    if n.wants(2):
        n.feed(2, (classes,), 0.25, 2)
    n.choose("reduction", "none", "sum", "mean")
    if n.chance(0.4):
        ignored = n.pick([-1, 0, classes])
        n.set(ignore_index=ignored)
        labels.reshape(-1)[0] = 1
        if labels.size > 1:
            labels.reshape(-1)[-1] = ignored


@plan("Dropout")
def dropout(n: Draft) -> None:
    """Inference, where every element is kept."""
    n.feed(0, n.shape())
    if n.has("ratio") and "ratio" in n.schema.attributes:
        n.real("ratio", 0, 0.9)
        return
    if n.wants("ratio"):
        n.fix("ratio", np.array(n.uniform(0.1, 0.8)))
    if n.wants("training_mode"):
        n.fix("training_mode", np.array(False))
    n.choose("seed", 3)


@plan("Det")
def det(n: Draft) -> None:
    n.feed(0, (*n.shape(0, 2), *(n.integer(1, 4),) * 2))


@plan("RNN", "GRU", "LSTM")
def recurrent(n: Draft) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[n.version.name]
    steps, batch, inputs, hidden = (n.integer(1, 4) for _ in range(4))
    direction = n.choose("direction", "forward", "reverse", "bidirectional")
    directions = 2 if direction == "bidirectional" else 1
    first = bool(n.choose("layout", 0, 1))
    n.set(hidden_size=hidden)
    n.feed(0, (batch, steps, inputs) if first else (steps, batch, inputs), -1, 1)
    n.feed(1, (directions, gates * hidden, inputs), -1, 1)
    n.feed(2, (directions, gates * hidden, hidden), -1, 1)
    if n.chance(0.6):
        n.feed(3, (directions, 2 * gates * hidden), -1, 1)
    if n.chance(0.3):
        n.give(4, np.array(n.integers(batch, 1, steps), np.int32))
    for position in (5, 6):
        if n.wants(position, 0.4):
            n.feed(position, (batch, directions, hidden) if first else (directions, batch, hidden), -1, 1)
    if n.wants(7, 0.3):
        n.feed(7, (directions, 3 * hidden), -1, 1)
    n.choose("linear_before_reset", 0, 1)
    n.choose("input_forget", 0, 1)
    if n.chance(0.2):
        n.set(clip=n.uniform(0.2, 3))
    if n.chance(0.4):
        _activations(n, directions * {"RNN": 1, "GRU": 2, "LSTM": 3}[n.version.name])


def _activations(n: Draft, count: int) -> None:
    """Any of those that the schema lists; numbers are taken in order by those that need some."""
    needs = {"Affine": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2, "Elu": 1}
    names = [n.pick(["Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *needs]) for _ in range(count)]
    if any(name in needs for name in names):
        n.set(activation_alpha=[n.uniform(0.1, 1) for name in names if name in needs])
        n.set(activation_beta=[n.uniform(0.1, 1) for name in names if needs.get(name) == 2])
    n.set(activations=names)


@plan("DFT")
def dft(n: Draft) -> None:
    new = n.schema.since_version >= 20
    onesided = n.choose("onesided", 0, 1)
    inverse = n.choose("inverse", 0, 1)
    rank = n.integer(2, 4)
    sizes = [n.size(2 if onesided and inverse else 1) for _ in range(rank - 1)]
    axis = n.integer(0, rank - 2)
    if onesided and inverse and not new:
        raise Undrawable("one side of a spectrum has an inverse from version 20 on")
    n.feed(0, (*sizes, 2 if onesided and inverse else 1 if onesided else n.integer(1, 2)))
    written = axis - rank if n.chance(0.3) else axis
    if new:
        if axis != rank - 2 or n.chance(0.5):
            n.fix("axis", np.array(written))
    elif axis != 1 or n.chance(0.5):
        n.set(axis=written)
    if n.chance(0.4):
        n.fix("dft_length", np.array(n.integer(1, 7)))


@plan("STFT")
def stft(n: Draft) -> None:
    length, frame, step = n.integer(6, 14), n.integer(2, 6), n.integer(1, 4)
    onesided = n.choose("onesided", 0, 1)
    n.feed(0, (n.integer(1, 2), length, 1 if onesided or n.chance(0.5) else 2))
    n.fix(1, np.array(step))
    has_window = n.chance(0.6)
    if has_window:
        n.feed(2, (frame,), 0, 1)
    if not has_window or n.chance(0.5):
        n.fix(3, np.array(frame))


@plan("HannWindow", "HammingWindow", "BlackmanWindow")
def window(n: Draft) -> None:
    n.fix(0, np.array(n.integer(2, 12)))
    n.choose("periodic", 0, 1)
    if n.chance(0.4):
        n.set(output_datatype=number(n.pick(["float", "double", "float16", "bfloat16"])))


@plan("MelWeightMatrix")
def mel_weight_matrix(n: Draft) -> None:
    rate = n.pick([8000, 16000])
    for position, value in enumerate((n.integer(1, 8), n.pick([16, 32, 63]), rate)):
        n.fix(position, np.array(value))
    n.fix(3, np.array(n.pick([0.0, 20.0, 100.0])))
    n.fix(4, np.array(n.pick([rate / 2, 3000.0])))
    if n.chance(0.4):
        n.set(output_datatype=number(n.pick(["float", "double"])))


@plan("Bernoulli", "RandomNormalLike", "RandomUniformLike")
def random_like(n: Draft) -> None:
    """What is defined are type and shape."""
    n.has_values = False
    n.feed(0, n.shape(), 0, 1)
    if n.chance(0.5) or kind(n.dtype(0)) != "float":
        n.set(dtype=number(n.bind("T2")))


@plan("RandomNormal", "RandomUniform")
def random_shape(n: Draft) -> None:
    n.has_values = False
    n.set(shape=n.shape(1))
    if n.chance(0.5):
        n.set(dtype=number(n.bind("T")))


@plan("Multinomial")
def multinomial(n: Draft) -> None:
    n.has_values = False
    n.feed(0, n.shape(2, 2, least=1))
    n.choose("sample_size", 1, 4)
    n.choose("dtype", number("int32"), number("int64"))


@plan("LinearAttention")
def linear_attention(n: Draft) -> None:
    batch, steps, heads, group, width, depth = (n.integer(1, 3) for _ in range(6))
    rule = n.choose("update_rule", "linear", "gated", "delta", "gated_delta")
    n.set(q_num_heads=heads * group, kv_num_heads=heads)
    n.feed(0, (batch, steps, heads * group * width), -1, 1)
    n.feed(1, (batch, steps, heads * width), -1, 1)
    n.feed(2, (batch, steps, heads * depth), -1, 1)
    if n.wants(3):
        n.feed(3, (batch, heads, width, depth), -1, 1)
    if rule in ("gated", "gated_delta"):
        n.feed(4, (batch, steps, n.pick([heads, heads * width])), -1, 0)
    if rule in ("delta", "gated_delta"):
        n.feed(5, (batch, steps, n.pick([heads, 1])), 0, 1)
    n.real("scale", 0.25, 1)


@plan("CausalConvWithState")
def causal_conv(n: Draft) -> None:
    batch, channels, length, taps = (n.integer(1, 4) for _ in range(4))
    n.feed(0, (batch, channels, length))
    n.feed(1, (channels, 1, taps), -1, 1)
    if n.wants(2):
        n.feed(2, (channels,))
    if n.wants(3):
        n.feed(3, (batch, channels, taps - 1))
    n.choose("activation", "none", "silu", "swish")


@plan("RotaryEmbedding")
def rotary_embedding(n: Draft) -> None:
    batch, heads, steps, half, most = n.integer(1, 2), n.integer(1, 3), n.integer(1, 3), n.integer(1, 4), 6
    turned = n.integer(1, half) if n.chance(0.4) else half
    if turned != half:
        n.set(rotary_embedding_dim=2 * turned)
    flat = n.chance(0.5)
    n.feed(0, (batch, steps, heads * half * 2) if flat else (batch, heads, steps, half * 2))
    if flat or n.chance(0.3):
        n.set(num_heads=heads)
    n.choose("interleaved", 0, 1)
    shape = (batch, steps, turned)
    if n.chance(0.5):
        shape = (most, turned)
        n.give(3, n.numbers.integers(0, most, (batch, steps)).astype(np.int64))
    n.feed(1, shape, -1, 1)
    n.feed(2, shape, -1, 1)


@plan("Attention")
def attention(n: Draft) -> None:
    """Rows that may look at nothing are left open, so a boolean mask always allows the first key."""
    batch, heads, group, queries, keys = (
        n.integer(1, 2),
        n.integer(1, 2),
        n.integer(1, 2),
        n.integer(1, 4),
        n.integer(1, 4),
    )
    width, depth = n.integer(1, 4), n.integer(1, 4)
    flat = n.chance(0.4)
    if flat:
        n.set(q_num_heads=heads * group, kv_num_heads=heads)
    for position, (count, length, size) in enumerate(
        ((heads * group, queries, width), (heads, keys, width), (heads, keys, depth))
    ):
        n.feed(position, (batch, length, count * size) if flat else (batch, count, length, size), -2, 2)
    past = n.integer(1, 3) if n.chance(0.3) else 0
    if past:
        n.feed(4, (batch, heads, past, width), -2, 2)
        n.feed(5, (batch, heads, past, depth), -2, 2)
    if n.chance(0.5):
        shape = (batch, heads * group, queries, past + keys)[n.pick([2, 2, 1, 0]) :]
        shape = (*(1 if n.chance(0.3) else size for size in shape[:-2]), *shape[-2:])
        mask = n.feed(3, shape, -2, 0)
        if kind(n.dtype(3)) == "bool":
            mask[..., 0] = True
    n.choose("is_causal", 0, 1)
    if n.chance(0.4):
        n.set(scale=n.uniform(0.2, 1))
    n.real("softcap", 1.0, 4.0)
    n.outputs = 1
    if past or n.chance(0.2):
        n.outputs = 3
    if n.chance(0.2) and past:
        n.outputs = 4
        n.choose("qk_matmul_output_mode", 0, 1, 2, 3)
    assert math.prod(n.operands[0].value.shape)
