"""Metrics of boxes: average precision and recall as COCO has them, and precision, recall and F1 at a score."""

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.box_cases import WeightedBoxCases
from visionforge.scoring.rates import Floats


def _map(weighted: WeightedBoxCases) -> Floats:
    """COCO's average precision, mean over the IoU thresholds 0.50, 0.55, …, 0.95 and over classes."""
    return weighted.over_classes(weighted.average_precision)


def _map_50(weighted: WeightedBoxCases) -> Floats:
    """Average precision at an IoU of at least 0.5, mean over classes."""
    return weighted.over_classes(weighted.average_precision_50)


def _map_75(weighted: WeightedBoxCases) -> Floats:
    """Average precision at an IoU of at least 0.75, mean over classes."""
    return weighted.over_classes(weighted.average_precision_75)


def _mar_100(weighted: WeightedBoxCases) -> Floats:
    """COCO's average recall with at most 100 boxes a picture, mean over IoU thresholds and classes."""
    return weighted.over_classes(weighted.average_recall)


def _precision(weighted: WeightedBoxCases) -> Floats:
    """Share of the boxes above the score threshold that are right, at an IoU of at least 0.5."""
    return weighted.pooled["precision"]


def _recall(weighted: WeightedBoxCases) -> Floats:
    """Share of the true boxes that are found above the score threshold, at an IoU of at least 0.5."""
    return weighted.pooled["recall"]


def _f1(weighted: WeightedBoxCases) -> Floats:
    """Harmonic mean of precision and recall of boxes above the score threshold."""
    return weighted.pooled["f1"]


def _add(compute: Compute, name: str, label: str, every_epoch: bool = False) -> None:
    metric = Metric(
        name=name,
        label=label,
        compute=compute,
        tasks=("boxes",),
        every_epoch=every_epoch,
        shared=True,
        position=50,
    )
    register_metric(metric)


_add(_map, "map", "mAP", every_epoch=True)
_add(_map_50, "map_50", "mAP at IoU 0.5", every_epoch=True)
_add(_map_75, "map_75", "mAP at IoU 0.75", every_epoch=True)
_add(_mar_100, "mar_100", "mean average recall")
_add(_precision, "precision", "precision of boxes")
_add(_recall, "recall", "recall of boxes")
_add(_f1, "f1", "F1 of boxes")
