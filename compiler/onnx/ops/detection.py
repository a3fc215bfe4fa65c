"""Detection: NonMaxSuppression of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops.indexing import nonzero
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.dims import minimum
from ir.op import OpError


@onnx_op("NonMaxSuppression", since=10)
def NonMaxSuppression(
    b: Any, boxes: Any, scores: Any, max_output_boxes_per_class: Any = None, iou_threshold: Any = None,
    score_threshold: Any = None, *, center_point_box: int = 0,
) -> Any:  # fmt: skip
    """Rows (batch, class, box) of what `non_max_places` chooses."""
    if center_point_box not in (0, 1):
        raise OpError(f"`center_point_box` is {center_point_box}; it must be 0 or 1")
    most = b.const(0, t.i64) if max_output_boxes_per_class is None else _scalar(b, max_output_boxes_per_class)
    share, threshold = (None if x is None else _scalar(b, x) for x in (iou_threshold, score_threshold))
    places = b.non_max_places(boxes, scores, most, share, threshold, centered=bool(center_point_box))
    if most.content is not None and most.content.dtype != object:
        count = minimum(max(0, int(most.content)), places.shape[2])
        places = b.slice(places, starts=(0, 0, 0), shape=(*places.shape[:2], count), steps=(1, 1, 1))
    is_chosen = b.greater_or_equal(places, b.const(0, t.i64))
    found = b.transpose(nonzero(b, is_chosen, lambda: b.run_time_size(0)), perm=(1, 0))
    count = found.shape[0]
    box = b.reshape(b.gather_nd(places, found), shape=(count, 1))
    return b.concat(b.slice(found, starts=(0, 0), shape=(count, 2), steps=(1, 1)), box, axis=1)


def _scalar(b: Any, x: Any) -> Any:
    """One number, as rank 0; models write it as a tensor of one element as well."""
    if x.tensor.elements != 1:
        raise OpError(f"a limit is {x.type}; it must be one number")
    return x if x.rank == 0 else b.reshape(x, shape=())
