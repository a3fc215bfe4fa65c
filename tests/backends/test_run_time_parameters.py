"""Operators whose parameters are computed while the model runs: one artifact, several values of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import compiler
from backends.c import CBackend
from backends.reference.program import run_program
from compiler import onnx_backend
from compiler.errors import CompileError
from ir.evaluate import EvaluationError, evaluate_graph
from ir.verify import verify_graph, verify_program

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


def single(
    op: str, feeds: dict[str, np.ndarray], *, opset: int = 21, rank: int | list[Any] = 1, free: tuple[str, ...] = (),
    outputs: int = 1, domain: str = "", shapes: dict[str, list[Any]] | None = None, inputs: list[str] | None = None,
    **attributes: Any,
) -> Any:  # fmt: skip
    """A model of one node that takes all of `feeds` when it runs. Inputs have the shapes of the feeds; `shapes` gives
    others. The outputs have that many axes, of sizes that are not declared, or the shape given."""
    names = [f"y{i}" for i in range(outputs)]
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), (shapes or {}).get(name, list(array.shape))
        )
        for name, array in feeds.items()
    ]
    kind = next(helper.np_dtype_to_tensor_dtype(array.dtype) for array in feeds.values())
    shape = rank if isinstance(rank, list) else [None] * rank
    made = [helper.make_tensor_value_info(name, kind, shape) for name in names]
    node = helper.make_node(op, inputs or list(feeds), names, domain=domain, **attributes)
    graph = helper.make_graph([node], "net", declared, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


class Compiled:
    """A model in the three ways to run it, compiled once."""

    def __init__(self, proto: Any, folder: Path, **options: Any) -> None:
        self.proto = proto
        self.loaded = compiler.load(proto, **options)
        verify_graph(self.loaded.graph)
        backend = CBackend(march="", opt="-O1")
        self.program = backend.pipeline().run(self.loaded)
        verify_program(self.program)
        self.runnable = backend.emit(self.program, folder / "net", self.loaded).load()

    def interpreted(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(evaluate_graph(self.loaded.graph, [feeds[v.name] for v in self.loaded.graph.inputs]))

    def agree(self, *feeds: dict[str, np.ndarray], wanted: list[list[np.ndarray]] | None = None) -> None:
        """Holds all three to the evaluator of ONNX, or to `wanted`."""
        assert feeds, "nothing to compare"
        for n, each in enumerate(feeds):
            expected = wanted[n] if wanted else ReferenceEvaluator(self.proto).run(None, each)
            names = self.loaded.graph.output_names
            ways = (dict(zip(names, self.interpreted(each))), run_program(self.program, each), self.runnable.run(each))
            for way, made in zip(("interpreter", "program", "C"), ways):
                for name, value in zip(names, expected, strict=True):
                    value = np.asarray(value)
                    assert made[name].shape == value.shape, (way, n, name, made[name].shape, value.shape)
                    assert made[name].dtype == value.dtype, (way, n, name)
                    # Single precision: a few units in the last place of numbers around 1.
                    np.testing.assert_allclose(made[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{way} {n} {name}")

    def refuse(self, *feeds: dict[str, np.ndarray], status: str = "") -> None:
        """Holds all three to refusing these; C with a status whose text has `status` in it."""
        for each in feeds:
            with pytest.raises((EvaluationError, ValueError)):
                self.interpreted(each)
            with pytest.raises((ValueError, IndexError)):
                run_program(self.program, each)
            with pytest.raises(CompileError, match=f"the model returned: .*{status}"):
                self.runnable.run(each)


def ramp(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


LIMIT = "beyond its limit"


def test_reshape(tmp_path: Path) -> None:
    x = ramp(4, 6)
    net = Compiled(single("Reshape", {"x": x, "shape": ints(0, 0, 0)}, rank=3), tmp_path)
    feeds = [{"x": x, "shape": ints(*shape)} for shape in ((2, 3, 4), (-1, 2, 2), (0, 6, 1), (0, -1, 1), (24, 1, 1))]
    net.agree(*feeds)
    wrong = [(5, 5, 1), (-1, -1, 2), (7, -1, 1), (1 << 62, 1 << 62, 1), (1 << 32, 1 << 32, -1), (-2, -12, 1), (4, 6, 0)]
    net.refuse(*({"x": x, "shape": ints(*shape)} for shape in wrong), status=LIMIT)


def test_reshape_of_a_batch_and_use_of_the_result(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Exp", ["y"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["z"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["n", 4]), info("shape", TensorProto.INT64, [2])]
    outputs = [info("e", TensorProto.FLOAT, ["a", "b"]), info("z", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    net = Compiled(proto, tmp_path)
    feeds = [
        {"x": ramp(n, 4) / 10, "shape": ints(*s)} for n, s in ((3, (2, 6)), (1, (4, 1)), (0, (0, 3)), (5, (-1, 5)))
    ]
    net.agree(*feeds)
    net.refuse({"x": ramp(2, 4), "shape": ints(3, 3)}, status=LIMIT)


def test_reshape_that_allows_zero(tmp_path: Path) -> None:
    net = Compiled(single("Reshape", {"x": ramp(0, 3, 4), "shape": ints(0, 0)}, rank=2, allowzero=1), tmp_path)
    net.agree({"x": ramp(0, 3, 4), "shape": ints(12, 0)}, {"x": ramp(0, 3, 4), "shape": ints(0, 3)})
    net.refuse({"x": ramp(0, 3, 4), "shape": ints(0, 13)}, {"x": ramp(0, 3, 4), "shape": ints(0, -1)}, status=LIMIT)


def test_slice(tmp_path: Path) -> None:
    x = ramp(5, 6)
    numbers = {name: ints(0, 0) for name in ("starts", "ends", "axes", "steps")}
    net = Compiled(single("Slice", {"x": x, **numbers}, rank=2), tmp_path)
    far = 2**63 - 1
    chosen = [
        ((1, 2), (4, 6), (0, 1), (1, 2)), ((4, -1), (0, -far), (0, 1), (-1, -1)), ((-3, 0), (far, -2), (1, -2), (1, 3)),
        ((3, 5), (3, 2), (0, 1), (1, 1)), ((-far, 9), (far, 12), (0, 1), (far, 1)),
        ((-100, 5), (3, -7), (1, 0), (2, -2)),
    ]  # fmt: skip
    net.agree(*({"x": x, **{name: ints(*row) for name, row in zip(numbers, case)}} for case in chosen))
    step0, twice, outside = (
        ((0, 0), (1, 1), (0, 1), (0, 1)),
        ((0, 0), (1, 1), (1, -1), (1, 1)),
        ((0,) * 2, (1, 1), (0, 2), (1, 1)),
    )
    net.refuse(
        *({"x": x, **{name: ints(*row) for name, row in zip(numbers, case)}} for case in (step0, twice, outside))
    )


def test_slice_of_axes_that_are_known(tmp_path: Path) -> None:
    x = ramp(4, 5, 3)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, -1])
    proto = single("Slice", {"x": x, "starts": ints(0, 0), "ends": ints(0, 0)}, rank=[4, "k", "m"],
                   inputs=["x", "starts", "ends", "axes"])  # fmt: skip
    proto.graph.initializer.append(axes)
    net = Compiled(proto, tmp_path)
    assert [type_.name for type_ in net.loaded.graph.nodes("gather")] == []  # the steps are known: no indices are made
    pairs = [((1, 0), (4, 2)), ((-2, -3), (9, -1)), ((4, 1), (2, 1))]
    net.agree(*({"x": x, "starts": ints(*start), "ends": ints(*end)} for start, end in pairs))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str, tmp_path: Path) -> None:
    x = ramp(3, 4)
    proto = single("Pad", {"x": x, "pads": ints(0, 0, 0, 0)}, rank=["a", "b"], mode=mode, opset=21)
    net = Compiled(proto, tmp_path, dims={"a": (0, 12), "b": (0, 12)})
    chosen = [(1, 2, 0, 1), (0, 0, 0, 0), (2, 1, 1, 3), (2, 3, 2, 0)]
    modes: Any = {"mode": mode}
    net.agree(
        *({"x": x, "pads": ints(*pads)} for pads in chosen),
        wanted=[[np.pad(x, [(p[0], p[2]), (p[1], p[3])], **modes)] for p in chosen],
    )
    cut = [(-1, 2, 1, -2), (2, -3, -1, 1)]
    wanted = [np.pad(x[1:, :2], [(0, 1), (2, 0)], **modes), np.pad(x[:2, 3:], [(2, 0), (0, 1)], **modes)]
    net.agree(*({"x": x, "pads": ints(*pads)} for pads in cut), wanted=[[w] for w in wanted])
    wrong = [(-4, 0, 0, 0), (9, 0, 9, 0), (1 << 62, 0, 1 << 62, 0), (-(1 << 63), 0, 1, 0)]
    wrong += [] if mode == "constant" else [(-3, 0, 1, 0), (1 << 62, 0, -(1 << 62), 0)]
    net.refuse(*({"x": x, "pads": ints(*pads)} for pads in wrong))


def test_pad_of_axes_that_only_a_run_tells(tmp_path: Path) -> None:
    x = ramp(3, 4)
    feeds = {"x": x, "pads": ints(0, 0), "value": np.array(7, np.float32), "axes": ints(0)}
    net = Compiled(single("Pad", feeds, rank=["a", "b"]), tmp_path, dims={"a": (0, 9), "b": (0, 9)})
    net.agree(*({**feeds, "pads": ints(*p), "axes": ints(a)} for p, a in (((1, 2), 0), ((2, 0), -1), ((0, 3), 1))))
    net.refuse({**feeds, "axes": ints(2)})


def test_tile(tmp_path: Path) -> None:
    x = ramp(1, 2, 3)
    feeds = [{"x": x, "repeats": ints(*counts)} for counts in ((2, 1, 2), (1, 3, 1), (0, 2, 2))]
    proto = single("Tile", feeds[0], rank=["a", "b", "c"])
    net = Compiled(proto, tmp_path, dims={"a": (0, 4), "y0_repeats1": (0, 4), "y0_repeats2": (0, 4)})
    net.agree(*feeds)
    net.refuse({"x": x, "repeats": ints(1, 5, 1)}, {"x": x, "repeats": ints(1, -1, 1)}, status=LIMIT)


def test_split(tmp_path: Path) -> None:
    x = ramp(2, 7)
    net = Compiled(single("Split", {"x": x, "split": ints(0, 0, 0)}, rank=2, outputs=3, axis=1), tmp_path)
    net.agree(*({"x": x, "split": ints(*parts)} for parts in ((1, 2, 4), (7, 0, 0), (0, 3, 4))))
    wrong = [(1, 2, 3), (-1, 4, 4), (7, 7, -7), (7, 7, 7)]
    net.refuse(*({"x": x, "split": ints(*parts)} for parts in wrong))


def test_expand(tmp_path: Path) -> None:
    x = ramp(3, 1)
    feeds = [{"x": x, "shape": ints(*shape)} for shape in ((2, 3, 4), (1, 1, 1), (0, 3, 2))]
    net = Compiled(single("Expand", feeds[0], rank=["a", "b", "c"]), tmp_path, dims={"a": (0, 3), "c": (0, 5)})
    net.agree(*feeds)
    net.refuse({"x": x, "shape": ints(1, 2, 1)}, {"x": x, "shape": ints(1, 3, -1)}, {"x": x, "shape": ints(4, 3, 1)})


def test_constant_of_shape(tmp_path: Path) -> None:
    fill = helper.make_tensor("fill", TensorProto.INT64, [1], [5])
    proto = single("ConstantOfShape", {"shape": ints(0, 0)}, rank=["a", "b"], value=fill)
    net = Compiled(proto, tmp_path, dims={"a": (0, 5), "b": (0, 5)})
    net.agree({"shape": ints(2, 3)}, {"shape": ints(0, 5)})
    net.refuse({"shape": ints(6, 1)}, {"shape": ints(-1, 1)}, status=LIMIT)


def test_one_hot(tmp_path: Path) -> None:
    feeds = {"indices": ints(1, -1, 3), "depth": np.array(4), "values": ints(2, 9)}
    net = Compiled(single("OneHot", feeds, rank=[3, "d"]), tmp_path, dims={"d": (0, 6)})
    net.agree(feeds, {**feeds, "depth": np.array(2)}, {**feeds, "depth": np.array(6)})
    net.refuse({**feeds, "depth": np.array(-1)}, {**feeds, "depth": np.array(7)}, status=LIMIT)


def test_top_k(tmp_path: Path) -> None:
    x = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.float32)
    proto = single("TopK", {"x": x, "k": ints(0)}, rank=2, outputs=2)
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    net = Compiled(proto, tmp_path)
    order = np.argsort(-x, axis=1, kind="stable")
    wanted = [[np.take_along_axis(x, order[:, :k], 1), order[:, :k]] for k in (3, 5, 0)]
    net.agree(*({"x": x, "k": ints(k)} for k in (3, 5, 0)), wanted=wanted)
    net.refuse({"x": x, "k": ints(6)}, {"x": x, "k": ints(-1)}, status=LIMIT)


def test_squeeze_and_unsqueeze(tmp_path: Path) -> None:
    x = ramp(1, 3, 1)
    net = Compiled(single("Squeeze", {"x": x, "axes": ints(0)}, rank=2), tmp_path)
    net.agree({"x": x, "axes": ints(0)}, {"x": x, "axes": ints(-1)})
    net.refuse(*({"x": x, "axes": ints(a)} for a in (1, 3, -4)), status=LIMIT)
    net = Compiled(single("Unsqueeze", {"x": ramp(2, 3), "axes": ints(0, 0)}, rank=4), tmp_path / "un")
    net.agree(*({"x": ramp(2, 3), "axes": ints(*axes)} for axes in ((0, 1), (3, 0), (-1, -3))))
    net.refuse(*({"x": ramp(2, 3), "axes": ints(*axes)} for axes in ((0, 0), (0, 4), (1, -3))), status=LIMIT)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMean", "ReduceLogSumExp", "ReduceL2", "ReduceProd"])
def test_reductions(op: str, tmp_path: Path) -> None:
    x = ramp(2, 3, 4) / 8 - 1
    net = Compiled(single(op, {"x": x, "axes": ints(0, 0)}, rank=3), tmp_path)
    net.agree(*({"x": x, "axes": ints(*axes)} for axes in ((0, 1), (2, 0), (-1, -2))))
    net.refuse(*({"x": x, "axes": ints(*axes)} for axes in ((0, 0), (0, 3), (1, -2))), status=LIMIT)


def test_a_reduction_that_drops_axes_and_one_of_any_number_of_them(tmp_path: Path) -> None:
    x = ramp(2, 3, 4)
    net = Compiled(single("ReduceSum", {"x": x, "axes": ints(0)}, rank=2, keepdims=0), tmp_path)
    net.agree(*({"x": x, "axes": ints(a)} for a in (0, 1, -1)))
    net.refuse({"x": x, "axes": ints(3)}, status=LIMIT)
    for noop, wanted in ((0, x.sum(keepdims=True)), (1, x)):
        proto = single(
            "ReduceSum", {"x": x, "axes": ints(0)}, rank=3, shapes={"axes": ["m"]}, noop_with_empty_axes=noop
        )
        net = Compiled(proto, tmp_path / str(noop))
        net.agree({"x": x, "axes": ints(1, 2)}, {"x": x, "axes": ints(2)})
        net.agree({"x": x, "axes": ints()}, wanted=[[wanted]])


def test_center_crop_pad(tmp_path: Path) -> None:
    x = ramp(5, 4)
    net = Compiled(single("CenterCropPad", {"x": x, "shape": ints(0, 0)}, rank=["a", "b"]), tmp_path,
                   dims={"a": (0, 8), "b": (0, 8)})  # fmt: skip
    net.agree(*({"x": x, "shape": ints(*shape)} for shape in ((3, 4), (8, 2), (5, 7), (2, 2))))
    net.refuse({"x": x, "shape": ints(9, 1)}, status=LIMIT)


def test_center_crop_pad_of_sizes_that_a_run_tells(tmp_path: Path) -> None:
    """To sizes that other nodes tell: the result has these, not sums of what is kept and what is added."""
    text = """<ir_version: 8, opset_import: ["": 18]> crop (float[n,m] x, float[6] v, float[7] w) => (float[a,b] y) {
      p = NonZero(v) ps = Shape<start=1>(p) q = NonZero(w) qs = Shape<start=1>(q)
      shape = Concat<axis=0>(ps, qs) y = CenterCropPad(x, shape) }"""
    net = Compiled(onnx.parser.parse_model(text), tmp_path)
    v, w = np.array([1, 0, 2, 3, 0, 0], np.float32), np.array([1, 1, 0, 1, 1, 0, 1], np.float32)
    net.agree(
        {"x": ramp(5, 2), "v": v, "w": w}, {"x": ramp(2, 7), "v": v, "w": w}, {"x": ramp(3, 5), "v": v, "w": 0 * w}
    )


def test_affine_grid(tmp_path: Path) -> None:
    theta = np.array([[[1, 0.5, 0], [-0.25, 1, 0.125]]], np.float32)
    net = Compiled(single("AffineGrid", {"theta": theta, "size": ints(0, 0, 0, 0)}, rank=[1, "h", "w", 2]), tmp_path,
                   dims={"h": (1, 5), "w": (1, 5)})  # fmt: skip
    net.agree(*({"theta": theta, "size": ints(1, 3, h, w)} for h, w in ((2, 3), (5, 4), (1, 1))))
    net.refuse({"theta": theta, "size": ints(1, 3, 6, 1)}, {"theta": theta, "size": ints(1, 3, 1, 0)}, status=LIMIT)


def test_col2im(tmp_path: Path) -> None:
    x = ramp(1, 8, 6)
    feeds = [
        {"x": x, "image": ints(*image), "block": ints(*block)}
        for image, block in (((3, 4), (2, 2)), ((6, 2), (1, 2)), ((3, 9), (1, 8)))
    ]
    net = Compiled(single("Col2Im", feeds[0], rank=[1, None, "h", "w"]), tmp_path, dims={"h": (0, 9), "w": (0, 9)})
    net.agree(*feeds)
    wrong = [((3, 4), (2, 3)), ((3, 4), (0, 2)), ((1, 1), (3, 4)), ((9, 9), (1, 1))]
    net.refuse(*({"x": x, "image": ints(*image), "block": ints(*block)} for image, block in wrong))


def test_max_unpool(tmp_path: Path) -> None:
    x, places = np.array([[[[1, 2], [3, 4]]]], np.float32), np.array([[[[5, 7], [13, 15]]]])
    feeds = [{"x": x, "places": places, "shape": ints(1, 1, *s)} for s in ((4, 4), (5, 5))]
    proto = single("MaxUnpool", feeds[0], rank=[1, 1, "h", "w"], kernel_shape=[2, 2], strides=[2, 2])
    net = Compiled(proto, tmp_path, dims={"h": (0, 6), "w": (0, 6)})
    larger = np.zeros((1, 1, 5, 5), np.float32)
    same = np.zeros(16, np.float32)
    same[places.reshape(-1)] = x.reshape(-1)
    larger[..., :4, :4] = same.reshape(4, 4)
    net.agree(*feeds, wanted=[[same.reshape(1, 1, 4, 4)], [larger]])
    net.refuse({**feeds[0], "shape": ints(1, 2, 4, 4)}, {**feeds[0], "shape": ints(1, 1, 4, 7)})


def resized(feeds: dict[str, np.ndarray], tmp_path: Path, rank: list[Any], dims: Any, **attributes: Any) -> Compiled:
    """A compiled Resize of `x`; scales or sizes are taken from the feeds."""
    taken = ["x", "roi" if "roi" in feeds else "", *(["scales"] if "scales" in feeds else ["", "sizes"])]
    return Compiled(single("Resize", feeds, rank=rank, inputs=taken, **attributes), tmp_path, dims=dims)


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "nearest"}, {"mode": "linear"}, {"mode": "linear", "antialias": 1},
        {"mode": "cubic", "antialias": 1, "exclude_outside": 1},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
    ],
)  # fmt: skip
def test_resize_by_scales(attributes: dict[str, Any], tmp_path: Path) -> None:
    x = (ramp(1, 1, 4, 5) / 20) ** 1.5
    feeds = [{"x": x, "scales": np.array([1, 1, h, w], np.float32)} for h, w in ((0.6, 1.5), (2, 0.8), (0.5, 0.4))]
    rank, dims = [1, 1, "h", "w"], {"h": (0, 9), "w": (0, 9)}
    net = resized(feeds[0], tmp_path, rank, dims, **attributes)
    net.agree(*feeds)
    net.refuse(*({"x": x, "scales": np.array([1, 1, h, 1], np.float32)} for h in (3, -1, np.inf)))


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resize_to_sizes(policy: str, tmp_path: Path) -> None:
    x = ramp(1, 1, 4, 6)
    feeds = [{"x": x, "sizes": ints(h, w)} for h, w in ((3, 8), (6, 5), (4, 6))]
    rank, dims = [1, 1, "h", "w"], {"h": (0, 9), "w": (0, 12)}
    net = resized(feeds[0], tmp_path, rank, dims, mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
    net.agree(*feeds)
    net.refuse({"x": x, "sizes": ints(20, 20)})


def test_resize_of_a_region(tmp_path: Path) -> None:
    x = ramp(4, 6)
    regions = [np.array(r, np.float32) for r in ((0.2, 0.1, 0.8, 0.7), (0.5, 0, 1.5, 1))]
    feeds = [{"x": x, "roi": roi, "sizes": ints(*s)} for roi, s in zip(regions, ((3, 3), (5, 2)))]
    mode = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    net = resized(feeds[0], tmp_path, ["h", "w"], {"h": (0, 9), "w": (0, 12)}, **mode)
    net.agree(*feeds)


def test_upsample(tmp_path: Path) -> None:
    x = ramp(1, 1, 2, 5)
    feeds = [{"x": x, "scales": np.array([1, 1, h, w], np.float32)} for h, w in ((2, 3), (1.5, 0.6))]
    net = Compiled(single("Upsample", feeds[0], opset=9, rank=[1, 1, "h", "w"]), tmp_path,
                   dims={"h": (0, 9), "w": (0, 15)})  # fmt: skip
    rows = np.repeat(np.repeat(x, 2, 2), 3, 3)
    # 3 rows of 2, each the one at or before its place; 3 columns of 5, each the one at or behind it
    fewer = x[:, :, [0, 0, 1]][:, :, :, [0, 2, 4]]
    net.agree(*feeds, wanted=[[rows], [fewer]])


def test_windows(tmp_path: Path) -> None:
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        proto = single(op, {"n": np.array(0)}, rank=["n_out"])
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        net = Compiled(proto, tmp_path / op, dims={"n_out": (0, 12)})
        net.agree({"n": np.array(5)}, {"n": np.array(12)})
        net.refuse({"n": np.array(-1)}, {"n": np.array(13)}, status=LIMIT)


def test_fourier_transforms(tmp_path: Path) -> None:
    x = np.sin(ramp(2, 6, 1)).astype(np.float32)
    two_parts = np.cos(ramp(2, 4, 2)).astype(np.float32)
    for n, (signal, attributes) in enumerate(((x, {"onesided": 1}), (x, {}), (two_parts, {"inverse": 1}))):
        feeds = {"x": signal, "length": np.array(6)}
        net = Compiled(single("DFT", feeds, rank=[2, "k", 2], opset=20, **attributes), tmp_path / str(n),
                       dims={"k": (0, 9)})  # fmt: skip
        net.agree(*({**feeds, "length": np.array(length)} for length in (6, 8, 5)))
        net.refuse({**feeds, "length": np.array(0)}, {**feeds, "length": np.array(40)}, status=LIMIT)


def test_fourier_transforms_along_an_axis_that_only_a_run_tells(tmp_path: Path) -> None:
    x = np.sin(ramp(3, 4, 2)).astype(np.float32)
    for n, attributes in enumerate(({}, {"onesided": 1})):
        feeds = {"x": x, "axis": np.array(0)}
        net = Compiled(
            single("DFT", feeds, rank=3, opset=20, inputs=["x", "", "axis"], **attributes), tmp_path / str(n)
        )
        complex_x = x[..., 0] + 1j * x[..., 1]
        wanted = []
        for axis in (0, 1, 1):
            y = np.fft.fft(complex_x, axis=axis)
            y = np.take(y, range(x.shape[axis] // 2 + 1 if attributes else x.shape[axis]), axis)
            wanted.append([np.stack([y.real, y.imag], -1).astype(np.float32)])
        net.agree(*({**feeds, "axis": np.array(axis)} for axis in (0, 1, -2)), wanted=wanted)
        net.refuse({**feeds, "axis": np.array(2)}, {**feeds, "axis": np.array(-1)}, {**feeds, "axis": np.array(-4)})


def test_short_time_fourier_transform(tmp_path: Path) -> None:
    x = np.sin(ramp(1, 12, 1)).astype(np.float32)
    feeds = {"x": x, "step": np.array(0), "length": np.array(0)}
    net = Compiled(single("STFT", feeds, rank=4, opset=17, inputs=["x", "step", "", "length"]), tmp_path)
    net.agree(*({**feeds, "step": np.array(s), "length": np.array(n)} for s, n in ((4, 4), (2, 6), (1, 12))))
    wrong = ((0, 4), (-1, 4), (1, 13), (1, 0))
    net.refuse(*({**feeds, "step": np.array(s), "length": np.array(n)} for s, n in wrong), status=LIMIT)


def test_mel_weights(tmp_path: Path) -> None:
    names = ("bins", "length", "rate", "low", "high")
    rows = ((8, 16, 8192, 0.0, 4096.0), (5, 24, 16000, 300.0, 7000.0))
    kinds = (np.int64, np.int64, np.int64, np.float32, np.float32)
    feeds = [{name: np.array(v, kind) for name, v, kind in zip(names, row, kinds)} for row in rows]
    proto = single("MelWeightMatrix", feeds[0], rank=["a", "b"])
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    net = Compiled(proto, tmp_path, dims={"a": (0, 20), "b": (0, 9)})
    net.agree(*feeds)
    net.refuse({**feeds[0], "bins": np.array(0)}, {**feeds[0], "high": np.array(5000, np.float32)}, status=LIMIT)


def test_what_nothing_bounds_is_refused_by_c_with_the_input_behind_it() -> None:
    feeds = {"x": ramp(3, 1), "shape": ints(2, 3, 4)}
    proto = single("Expand", feeds, rank=3)
    loaded = compiler.load(proto)
    assert evaluate_graph(loaded.graph, list(feeds.values()))[0].shape == (2, 3, 4)  # the interpreter needs no bound
    with pytest.raises(CompileError, match=r"nothing bounds it") as caught:
        CBackend(march="").pipeline().run(loaded)
    errors = getattr(caught.value, "errors", [caught.value])
    assert all(error.needs == ("shape",) and "--dim y0_d" in error.help for error in errors)
    rep = onnx_backend.prepare(proto)
    assert rep.run(list(feeds.values()))[0].shape == (2, 3, 4)
    assert rep.specialised == ("shape",)


def test_what_is_known_of_a_shape_stays_known(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [24]),
              helper.make_tensor_value_info("n", TensorProto.INT64, [1])]  # fmt: skip
    rest = helper.make_tensor("rest", TensorProto.INT64, [2], [4, -1])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 3)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [rest])
    net = Compiled(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path)
    assert net.loaded.graph.outputs[0].shape[1] == 4
    net.agree({"x": ramp(24), "n": ints(2)}, {"x": ramp(24), "n": ints(6)})
    net.refuse({"x": ramp(24), "n": ints(5)})


def test_parameters_told_inside_of_branches(tmp_path: Path) -> None:
    def branch(name: str, shape: str) -> Any:
        made = helper.make_node("Reshape", ["x", shape], [f"{name}.r"])
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        return helper.make_graph([made, helper.make_node("Neg", [f"{name}.r"], [f"{name}.y"])], name, [], [out])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("yes", "s"), else_branch=branch("no", "t"))
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["n", 6]), info("c", TensorProto.BOOL, [])]
    inputs += [info(name, TensorProto.INT64, [2]) for name in ("s", "t")]
    graph = helper.make_graph([node], "net", inputs, [info("y", TensorProto.FLOAT, [None, None])])
    net = Compiled(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path)
    feeds = {"x": ramp(4, 6), "s": ints(3, 8), "t": ints(-1, 2)}
    net.agree({**feeds, "c": np.array(True)}, {**feeds, "c": np.array(False)})
    net.refuse({**feeds, "c": np.array(True), "s": ints(5, 5)}, status=LIMIT)


def test_running_totals_along_an_axis_that_only_a_run_tells(tmp_path: Path) -> None:
    x = ramp(2, 3)
    net = Compiled(single("CumSum", {"x": x, "axis": np.array(0)}, rank=2, opset=14), tmp_path)
    net.agree(*({"x": x, "axis": np.array(axis)} for axis in (0, 1, -2)))
    net.refuse({"x": x, "axis": np.array(2)}, {"x": x, "axis": np.array(-3)})


def test_crops_of_a_size_that_only_a_run_tells(tmp_path: Path) -> None:
    x = ramp(1, 1, 5, 5)
    feeds = {"x": x, "boxes": np.array([[0, 0, 1, 1]], np.float32), "at": np.zeros(1, np.int32), "size": ints(0, 0)}
    proto = single("CropAndResize", feeds, rank=[1, 1, "h", "w"], domain="com.microsoft")
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    net = Compiled(proto, tmp_path, dims={"h": (0, 5), "w": (0, 5)})
    sizes = [(5, 5), (3, 2), (2, 5)]
    corners = [x[:, :, :: 4 // (h - 1), :: 4 // (w - 1)] for h, w in sizes]
    net.agree(*({**feeds, "size": ints(*size)} for size in sizes), wanted=[[corner] for corner in corners])
    net.refuse({**feeds, "size": ints(6, 5)}, status=LIMIT)


def test_a_transposed_convolution_with_pads_that_only_a_run_tells(tmp_path: Path) -> None:
    x, w = ramp(1, 1, 3, 4), np.ones((1, 1, 3, 3), np.float32)
    feeds = {"x": x, "w": w, "pads": ints(0, 0, 0, 0)}
    proto = single("ConvTransposeWithDynamicPads", feeds, rank=4, domain="com.microsoft", strides=[2, 2])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    net = Compiled(proto, tmp_path)
    full = ReferenceEvaluator(single("ConvTranspose", {"x": x, "w": w}, rank=4, strides=[2, 2])).run(None, feeds)[0]
    chosen = [(0, 0, 0, 0), (1, 2, 0, 1), (3, 0, 4, 9)]
    wanted = [[full[:, :, p[0] : full.shape[2] - p[2], p[1] : full.shape[3] - p[3]]] for p in chosen]
    net.agree(*({**feeds, "pads": ints(*pads)} for pads in chosen), wanted=wanted)
    net.refuse({**feeds, "pads": ints(-1, 0, 0, 0)}, {**feeds, "pads": ints(9, 0, 9, 0)})
