"""What ONNX is told of operations that it calls by another name: one of ours, and one that its exporter lacks."""

from collections.abc import Callable
from typing import Any

import torch

_MOST_BOXES = 1 << 30  # that may be left of an image and class: all


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return operation → what writes it, as `torch.onnx.export` takes it."""
    import visionforge.models.box_selection  # noqa: F401  # defines the operation

    ours: Any = torch.ops.visionforge.nms_mask.default
    sort: Any = torch.ops.aten.sort.stable
    return {ours: _nms_mask, sort: _sort}


def _opset() -> Any:
    """Return the operations of ONNX, of which the annotations know constants only by all types that they may have."""
    import onnxscript

    return onnxscript.opset18


def _sort(values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Return sorted values and their places; of equal ones the first comes first, as TopK is defined."""
    op = _opset()
    axis = dim if dim >= 0 else dim + len(values.shape)
    count = op.Shape(values, start=axis, end=axis + 1)
    return op.TopK(values, count, axis=axis, largest=int(descending), sorted=1)


def _nms_mask(boxes: Any, scores: Any, kinds: Any, candidates: Any, iou: float) -> Any:
    """Return (G, P) which candidates are left; see `visionforge.models.box_selection.nms_mask`.

    NonMaxSuppression takes a row of scores for each class, and gives triples of image, class and box.
    """
    op = _opset()
    first, second = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    step = op.Constant(value_int=1)
    classes = op.Add(op.ReduceMax(kinds, keepdims=0), step)
    numbers = op.Unsqueeze(op.Range(op.Constant(value_int=0), classes, step), second)  # (K, 1)
    wanted = op.And(op.Equal(op.Unsqueeze(kinds, second), numbers), op.Unsqueeze(candidates, second))
    each = op.Where(wanted, op.Unsqueeze(scores, second), op.Constant(value_float=-1.0))  # (G, K, P)
    most, threshold = op.Constant(value_int=_MOST_BOXES), op.Constant(value_float=-0.5)
    found = op.NonMaxSuppression(boxes, each, most, op.Constant(value_float=iou), threshold)
    ones = op.Expand(op.Constant(value_float=1.0), op.Slice(op.Shape(found), first, second))
    marked = op.ScatterND(op.ConstantOfShape(op.Shape(each)), found, ones)
    return op.Greater(op.ReduceMax(marked, second, keepdims=0), op.Constant(value_float=0.5))
