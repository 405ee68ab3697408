"""Metrics of masks: how far they overlap, and how well their boundaries agree."""

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.mask_cases import WeightedMaskCases
from visionforge.scoring.rates import Floats


def _mean_dice(weighted: WeightedMaskCases) -> Floats:
    """Dice coefficient 2·|A ∩ B| / (|A| + |B|) of a class, over the pixels of all pictures; mean over classes."""
    return weighted.over_classes(weighted.dice)


def _mean_iou(weighted: WeightedMaskCases) -> Floats:
    """Intersection over union |A ∩ B| / |A ∪ B| of a class, over the pixels of all pictures; mean over classes."""
    return weighted.over_classes(weighted.iou)


def _pixel_accuracy(weighted: WeightedMaskCases) -> Floats:
    """Share of pixels whose class is right, over all pictures."""
    return weighted.pixel_accuracy


def _mean_dice_by_picture(weighted: WeightedMaskCases) -> Floats:
    """Dice coefficient within each picture, averaged over pictures, then over classes."""
    return weighted.over_classes(weighted.dice_by_picture)


def _mean_iou_by_picture(weighted: WeightedMaskCases) -> Floats:
    """Intersection over union within each picture, averaged over pictures, then over classes."""
    return weighted.over_classes(weighted.iou_by_picture)


def _pixel_accuracy_by_picture(weighted: WeightedMaskCases) -> Floats:
    """Share of pixels whose class is right within each picture, averaged over pictures."""
    return weighted.pixel_accuracy_by_picture


def _mean_boundary_f1(weighted: WeightedMaskCases) -> Floats | None:
    """F1 of boundary pixels that lie within the tolerance of the other boundary; mean over classes."""
    return None if weighted.boundary_f1 is None else weighted.over_classes(weighted.boundary_f1)


def _add(compute: Compute, name: str, label: str, every_epoch: bool = False) -> None:
    metric = Metric(
        name=name,
        label=label,
        compute=compute,
        tasks=("masks",),
        every_epoch=every_epoch,
        shared=True,
        position=40,
    )
    register_metric(metric)


_add(_mean_dice, "mean_dice", "Dice", every_epoch=True)
_add(_mean_iou, "mean_iou", "IoU", every_epoch=True)
_add(_pixel_accuracy, "pixel_accuracy", "pixel accuracy", every_epoch=True)
_add(_mean_dice_by_picture, "mean_dice_by_picture", "Dice, by picture")
_add(_mean_iou_by_picture, "mean_iou_by_picture", "IoU, by picture")
_add(_pixel_accuracy_by_picture, "pixel_accuracy_by_picture", "pixel accuracy, by picture")
_add(_mean_boundary_f1, "mean_boundary_f1", "boundary F1")
