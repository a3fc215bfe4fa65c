"""Positions that are known when compiling, on axes whose sizes only a call or a run tells: nothing outside of a
caller's memory is touched, and what C gives is what the interpreter gives, or a refusal where that refuses too."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import compiler
from compiler.errors import CompileError
from ir.evaluate import evaluate_graph
from tests.models.guarded import run_fenced

MS, ML = "com.microsoft", "ai.onnx.ml"
Feeds = list[dict[str, Any]]


def each(**choices: Any) -> Feeds:
    """Every combination of choices of inputs: a number or a tuple is a shape, a list holds elements."""
    return [dict(zip(choices, chosen)) for chosen in itertools.product(*choices.values())]


@dataclass
class Probe:
    """A model of few nodes and what it is called with. Where regions `may_miss`, C takes 0 for those of an image that
    is not there, while the interpreter refuses."""

    inputs: str
    nodes: str
    feeds: Feeds
    constants: str = ""
    opset: int = 21
    may_miss: bool = False
    dims: dict[str, Any] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        opsets = ", ".join(f'"{d}": {v}' for d, v in {"": self.opset, MS: 1, ML: 3}.items())
        last, _, _ = self.nodes.split(";")[-1].partition("=")
        outputs = ", ".join(f"float[] {name.strip()}" for name in last.split(","))
        body = self.nodes.replace(";", "\n")
        text = (
            f"<ir_version: 10, opset_import: [{opsets}]> g ({self.inputs}) => ({outputs}) <{self.constants}> {{{body}}}"
        )
        made = onnx.parser.parse_model(text)
        for output in made.graph.output:
            output.ClearField("type")
        return made


def _arrays(model: onnx.ModelProto, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        given, dtype = feed[value.name], onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = (given,) if isinstance(given, int) else given
        is_shape = isinstance(shape, tuple)
        array = np.arange(1, math.prod(shape) + 1).reshape(shape) if is_shape else np.array(shape)
        found[value.name] = array.astype(dtype)
    return found


_PADS = "int64[2] p = {-2, 3}"
_ATTENTION = "float[b, s, 4] x, float[4, 12] w, float[12] q, int32[b, 1, k, m] mask"
_SEQUENCE = "s = SplitToSequence(x, l); y = SequenceAt(s, i)"
_TREE = (
    "y = ai.onnx.ml.TreeEnsembleRegressor <n_targets = 1, nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2], "
    "nodes_featureids = [FEATURE, 0, 0], nodes_values = [1.5, 0.0, 0.0], nodes_modes = ['BRANCH_LEQ', 'LEAF', 'LEAF'], "
    "nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0], target_treeids = [0, 0], target_nodeids = [1, 2], "
    "target_ids = [0, 0], target_weights = [1.0, 2.0]> (x)"
).replace("'", '"')
_SLICES = {"there": (2, 5, 1), "far": (-9, 10**12, 2), "back": (5, 0, -1), "end": (-1, -100, -2), "mixed": (3, -4, -1)}

PROBES: dict[str, Probe] = {
    **{
        f"slice_{name}": Probe(
            "float[n] x", "y = Slice(x, s, e, a, t)", each(x=(0, 1, 3, 4, 9)),
            f"int64[1] s = {{{s}}}, int64[1] e = {{{e}}}, int64[1] a = {{0}}, int64[1] t = {{{t}}}",
        )
        for name, (s, e, t) in _SLICES.items()
    },
    "split": Probe("float[n] x", "y, z = Split(x, s)", each(x=(0, 2, 3, 4)), "int64[2] s = {1, 2}"),
    "split_even": Probe("float[n] x", "y, z, w = Split <num_outputs = 3> (x)", each(x=(0, 1, 3, 4, 5))),
    "split_sequence": Probe(
        "float[n] x, int64 i", _SEQUENCE, each(x=(0, 2, 3, 4), i=([1], [-1])), "int64[2] l = {1, 2}",
    ),
    "gather": Probe("float[n] x", "y = Gather(x, i)", each(x=(0, 2, 3)), "int64[2] i = {0, 2}"),
    "gather_elements": Probe(
        "float[n, m] x, int64[a, b] i", "y = GatherElements(x, i)",
        each(x=((2, 2), (2, 1), (0, 2)), i=([[1, 1]], [[0, 0, 1]])),
    ),
    "gather_elements_of_rows": Probe(
        "float[n, m] x", "y = GatherElements <axis = 1> (x, i)", each(x=((0, 2), (1, 2), (2, 2), (3, 3))),
        "int64[2, 2] i = {1, 0, 0, 1}",
    ),
    "scatter_elements": Probe(
        "float[n, m] x, float[a, b] u, int64[a, b] i", "y = ScatterElements <axis = 1> (x, i, u)",
        [{"x": (n, 2), "i": i, "u": np.shape(i)} for n in (0, 2, 3) for i in ([[1, 1]], [[0, 0], [1, 1], [0, 1]])],
    ),
    "tensor_scatter": Probe(
        "float[b, n, 2] x, float[b, k, 2] u, int64[b] w", 'y = TensorScatter <mode = "circular"> (x, u, w)',
        each(x=((1, 0, 2), (1, 4, 2)), u=((1, 2, 2), (1, 5, 2)), w=([0], [3], [-1], [9])), opset=24,
    ),
    **{
        f"pad_{mode}": Probe("float[n] x", f'y = Pad <mode = "{mode}"> (x, p)', each(x=(0, 1, 2, 3, 9)), pads, opset=19)
        for mode, pads in [(m, "int64[2] p = {2, 3}") for m in ("constant", "reflect", "edge", "wrap")]
    },
    **{
        f"crop_{mode}": Probe(
            "float[n] x", f'y = Pad <mode = "{mode}"> (x, p)', each(x=(0, 1, 2, 3, 9)), _PADS, opset=19
        )
        for mode in ("constant", "reflect", "edge", "wrap")
    },
    "pad_told": Probe(
        "float[n] x, int64[2] p", 'y = Pad <mode = "edge"> (x, p)',
        each(x=(0, 1, 3), p=([1, 2], [-1, 2], [-9, 9], [-5, -5])), opset=19, dims={"y_d0": (0, 10)},
    ),
    "crop_and_sum": Probe(
        "float[n] x", "c = Pad(x, p); y = ReduceSum <keepdims = 0> (c)", each(x=(0, 1, 2, 3)), "int64[2] p = {-2, 0}"
    ),
    "crop_and_concat": Probe(
        "float[n] x, float[m] z", "c = Pad(x, p); y = Concat <axis = 0> (c, z)", each(x=(0, 1, 3), z=(0, 3)),
        "int64[2] p = {-2, 0}",
    ),
    "center_crop": Probe(
        "float[n, m] x", "y = CenterCropPad(x, s)", each(x=((0, 3), (5, 4), (6, 7))), "int64[2] s = {3, 4}",
    ),
    "top_k": Probe("float[n] x", "y, z = TopK(x, k)", each(x=(0, 1, 2, 3)), "int64[1] k = {2}"),
    "top_k_of_kept": Probe(
        "float[n] x, bool[n] c", "q = NonZero(c); f = Squeeze(q, z); w = Gather(x, f); y, v = TopK(w, t)",
        each(x=(3,), c=([1, 1, 1], [0, 1, 0], [0, 0, 0])), "int64[1] z = {0}, int64[1] t = {2}",
    ),
    "pad_of_kept": Probe(
        "float[n] x, bool[n] c", 'q = NonZero(c); f = Squeeze(q, z); w = Gather(x, f); y = Pad <mode = "edge"> (w, t)',
        each(x=(3,), c=([1, 1, 1], [0, 0, 0])), "int64[1] z = {0}, int64[2] t = {1, 1}",
    ),
    "arg_min": Probe("float[n, 2] x", "y = ArgMin <axis = 0> (x)", each(x=((0, 2), (1, 2)))),
    "resize": Probe(
        "float[1, 1, n] x", 'y = Resize <mode = "linear"> (x, , , s)', each(x=((1, 1, 0), (1, 1, 2))),
        "int64[3] s = {1, 1, 4}"
    ),
    "reverse": Probe(
        "float[n, 2] x, int64[2] l", "y = ReverseSequence(x, l)", each(x=((0, 2), (3, 2)), l=([0, 3], [4, -1])),
    ),
    "reshape": Probe("float[n] x", "y = Reshape(x, s)", each(x=(0, 5, 6)), "int64[2] s = {2, -1}"),
    "squeeze": Probe("float[n] x", "y = Squeeze(x, a)", each(x=(0, 1, 2)), "int64[1] a = {0}"),
    "expand": Probe("float[n] x, float[m] z", "s = Shape(z); y = Expand(x, s)", each(x=(0, 1, 3), z=(0, 1, 3))),
    "add": Probe("float[n] x, float[m] z", "y = Add(x, z)", each(x=(0, 1, 3), z=(0, 1, 2, 3))),
    "concat": Probe(
        "float[n, m] x, float[k, l] z", "y = Concat <axis = 0> (x, z)", each(x=((2, 2),), z=((2, 1), (1, 2))),
    ),
    "matmul": Probe("float[n, m] x, float[k, l] z", "y = MatMul(x, z)", each(x=((2, 2),), z=((1, 2), (2, 2), (3, 2)))),
    "depth_to_space": Probe(
        "float[1, c, 2, 1] x", "y = DepthToSpace <blocksize = 2> (x)", each(x=((1, 3, 2, 1), (1, 8, 2, 1))),
    ),
    "compress": Probe("float[n] x, bool[4] c", "y = Compress <axis = 0> (x, c)", each(x=(0, 2, 5), c=([1, 0, 1, 1],))),
    "scan": Probe(
        "float[n] x, float[m] z",
        "y = Scan <num_scan_inputs = 2, body = b (float a, float c) => (float r) {r = Add(a, c)}> (x, z)",
        each(x=(0, 2), z=(0, 2, 3)),
    ),
    "lstm": Probe(
        "float[s, 2, 2] x, float[1, 8, 2] w, float[1, 8, 2] r, int32[2] l",
        "y, h = LSTM <hidden_size = 2> (x, w, r, , l)",
        each(x=((0, 2, 2), (3, 2, 2)), w=((1, 8, 2),), r=((1, 8, 2),), l=([0, 3], [3, 9], [-1, 2])),
    ),
    "dft": Probe("float[1, n, 1] x", "y = DFT <onesided = 1> (x)", each(x=((1, 0, 1), (1, 1, 1), (1, 3, 1))), opset=20),
    "stft": Probe(
        "float[1, n, 1] x, float[w] q", "y = STFT(x, s, q)", each(x=((1, 4, 1),), q=(0, 4, 5)), "int64 s = {1}", 17,
    ),
    "max_unpool": Probe(
        "float[1, 1, n, n] x, int64[1, 1, n, n] i", "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i)",
        [{"x": (1, 1, n, n), "i": np.full((1, 1, n, n), v).tolist()} for n in (1, 2) for v in (0, 15, 16, -1, 2**62)],
    ),
    "zero points": Probe(
        "uint8[m, k] a, uint8[k, n] b, uint8[p] za, uint8[q] zb",
        "i = MatMulInteger (a, b, za, zb); y = Cast <to = 1> (i)",
        each(a=((2, 3), (1, 3)), b=((3, 4), (3, 1)), za=(1, 2, 3), zb=(1, 4, 2)),
    ),
    "rois": Probe(
        "float[n, 1, h, 2] x, float[1, 4] b, int64[1] i",
        "y = RoiAlign <output_height = 2, output_width = 2> (x, b, i)",
        each(x=((1, 1, 2, 2), (1, 1, 0, 2)), b=([[0, 0, 1, 1]], [[-9, -9, 9, 9]]), i=([0], [1], [-1])), may_miss=True,
    ),
    "embedding": Probe(
        "int32[1, s] i, float[v, 4] w, float[p, 4] t",
        "y, m = com.microsoft.EmbedLayerNormalization(i, , w, t, , g, g)",
        each(i=([[0]], [[0, 0]]), w=((2, 4),), t=((0, 4), (1, 4), (2, 4))), "float[4] g = {1, 2, 3, 4}",
    ),
    "mask": Probe(
        _ATTENTION, "y = com.microsoft.Attention <num_heads = 2, unidirectional = 1> (x, w, q, mask)",
        each(x=((2, 2, 4),), w=((4, 12),), q=(12,), mask=((2, 1, 1, 2), (2, 1, 2, 2), (2, 1, 2, 1), (2, 1, 3, 3))),
    ),
    "state": Probe(
        "float[1, 2, t] x, float[2, 1, 3] w, float[1, 2, f] s", "y, z = com.microsoft.CausalConvWithState(x, w, , s)",
        each(x=((1, 2, 1), (1, 2, 3)), w=((2, 1, 3),), s=((1, 2, 0), (1, 2, 1), (1, 2, 2), (1, 2, 3))),
    ),
    "rotary": Probe(
        "float[1, 2, s, 4] x, int64[1, s] i, float[p, 2] c, float[p, 2] d",
        "y = com.microsoft.RotaryEmbedding(x, i, c, d)",
        each(x=((1, 2, 1, 4),), i=([[0]], [[2]], [[-1]]), c=((3, 2),), d=((3, 2),)),
    ),
    "group_query": Probe(
        "float[1, s, 4] q, float[1, 2, p, 2] k, int32[1] l, int32 t",
        "y, a, b = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 2> (q, q, q, k, k, l, t)",
        [{"q": (1, s, 4), "k": (1, 2, p, 2), "l": [m], "t": [m + 1]}
        for s, p in ((1, 4), (2, 0)) for m in (p + s - 1, -1)],
    ),
    "features": Probe(
        "float[n, m] x", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)", each(x=((2, 0), (2, 3))), "int64[2] i = {0, 2}",
    ),
    "tree": Probe("float[n, m] x", _TREE.replace("FEATURE", "1"), each(x=((2, 0), (2, 1), (2, 2)))),
}  # fmt: skip
GROUPS = 6


def _problem(wanted: Any, made: Any, probe: Probe) -> str:
    """What is wrong with what C makes; empty where nothing is."""
    if isinstance(wanted, Exception):
        return "" if isinstance(made, str) or probe.may_miss else f"C gives {made}, the interpreter: {wanted}"
    if isinstance(made, str):
        return f"only C refuses: {made}"
    pairs = list(zip(made.values(), wanted, strict=True))
    same = all(a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs)
    return "" if same else f"C gives {made}, the interpreter {wanted}"


def _evaluated(graph: Any, feeds: dict[str, np.ndarray]) -> Any:
    try:
        return evaluate_graph(graph, [feeds[value.name] for value in graph.inputs])
    except Exception as error:  # of whatever kind, it is a refusal
        return error


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("group", range(GROUPS))
def test_memory_that_is_fenced(group: int, tmp_path: Path) -> None:
    """Tolerances are those of sums of a few products of floats."""
    names = list(PROBES)[group::GROUPS]
    runs, wanted = [], []
    for name in names:
        model = PROBES[name].model()
        loaded = compiler.load(model, dims=PROBES[name].dims)
        folder = compiler.compile(loaded, out=tmp_path / name, opt="-O0", march="").folder
        feeds = [_arrays(model, feed) for feed in PROBES[name].feeds]
        runs.append((name, str(folder), feeds))
        wanted.append([_evaluated(loaded.graph, feed) for feed in feeds])
    for name, feeds, expected, made in zip(names, (run[2] for run in runs), wanted, run_fenced(runs, tmp_path)):
        problems = [f"{f}: {p}" for f, w, m in zip(feeds, expected, made) if (p := _problem(w, m, PROBES[name]))]
        assert not problems, f"{name}: {problems}"


REFUSED = {
    "parts of less than nothing": Probe("float[3] x", "y, z, w = Split(x, s)", [], "int64[3] s = {1, -1, 3}"),
    "pieces that are not all": Probe("float[4] x, int64 i", _SEQUENCE, [], "int64[2] l = {1, 2}"),
    "more rows of indices": Probe(
        "float[1, 2] x", "y = GatherElements <axis = 1> (x, i)", [], "int64[2, 1] i = {1, 0}",
    ),
    "a negative feature": Probe("float[n, m] x", _TREE.replace("FEATURE", "-1"), []),
    "a feature beyond all": Probe("float[n, m] x", _TREE.replace("FEATURE", str(2**40)), []),
    "fewer positions than tokens": Probe(
        "int32[1, 3] i, float[2, 4] w", "y, m = com.microsoft.EmbedLayerNormalization(i, , w, w, , g, g)", [],
        "float[4] g = {1, 2, 3, 4}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_can_never_fit_is_refused(name: str) -> None:
    with pytest.raises(CompileError):
        compiler.load(REFUSED[name].model())
