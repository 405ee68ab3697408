"""Metrics of masks, with intervals by picture, and of the objects in them; they are part of `visionforge.metrics`."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from visionforge.evaluation import bootstrap
from visionforge.evaluation.arguments import ArrayLike, as_array, check_bootstrap
from visionforge.evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED, Estimate
from visionforge.evaluation.scores import PictureScorer, metrics_of_form
from visionforge.scoring import instances as _objects
from visionforge.scoring.mask_cases import MaskCases


def segmentation_metrics(
    truth: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    *,
    ignore: int | None = None,
    background: int | None = None,
    tolerance: float | None = None,
) -> Mapping[str, float | None]:
    """Return all metrics of masks by name; one that is undefined is None. Higher is better for all of them.

    - `pixel_accuracy`: share of right pixels.
    - `mean_dice`, `mean_iou`: Dice, 2|A∩B| / (|A|+|B|), and IoU, |A∩B| / |A∪B|, of each class from the pixels of all
      pictures together, averaged over the classes.
    - `pixel_accuracy_by_picture`, `mean_dice_by_picture`, `mean_iou_by_picture`: the same of each picture by itself. Of
      each class, the mean over the pictures that have it, and then the mean over the classes. So small objects count
      as much as large ones.
    - `mean_boundary_f1`, with a tolerance: how well the boundaries agree, by picture and class (Csurka et al., 2013). A
      boundary pixel has a neighbour of another class (left, right, above, below; in volumes before, behind).

    A class without a pixel in truth and prediction is absent: it is in no mean. A class that is predicted where it is
    not at all has 0. `segmentation_intervals` has the values of each class, too, and
    `visionforge.scoring.masks.WeightedMasks` says how torchmetrics and nnU-Net average.

    Args:
        truth: (N, H, W) or (N, D, H, W) integers, 0 to K-1, or `ignore`.
        predicted: The same shape.
        classes: Number of classes K, the background included.
        ignore: Value of `truth` that marks pixels that do not count, such as 255; None has none.
        background: A class that is in no mean over the classes, as is the custom in medicine; the pixel accuracies
            count it. None has all classes in.
        tolerance: Distance in pixels up to which boundaries agree; None leaves `mean_boundary_f1` out.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> truth = [[[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 1]]]
    >>> predicted = [[[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 0, 0], [0, 0, 1, 1]]]
    >>> found = segmentation_metrics(truth, predicted, 2, background=0)
    >>> round(found["mean_iou"], 3), round(found["mean_iou_by_picture"], 3)
    (0.833, 0.75)
    """
    scorer = _scorer(truth, predicted, classes, ignore, background, tolerance)
    (found,) = bootstrap.estimate([scorer], resamples=0)
    return found.overall


def segmentation_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    *,
    ignore: int | None = None,
    background: int | None = None,
    tolerance: float | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Estimate:
    """Return all metrics of masks, overall and per class, with bias-corrected bootstrap intervals.

    Pictures are drawn anew with replacement, because the pixels of one are not independent of each other. Nor are
    several pictures of one patient, of which the intervals are too narrow, as they are of only a few pictures.

    Args:
        truth: As in `segmentation_metrics`.
        predicted: As there.
        classes: As there.
        ignore: As there.
        background: As there.
        tolerance: As there.
        resamples: Number of resamples; 0 gives no intervals.
        confidence: Share of the resamples that an interval holds, between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, (30, 8, 8))
    >>> predicted = np.where(rng.random((30, 8, 8)) < rng.random((30, 1, 1)) / 2, 1 - truth, truth)
    >>> found = segmentation_intervals(truth, predicted, 2, resamples=500)
    >>> low, high = found.class_intervals["dice"][1]
    >>> low < found.per_class["dice"][1] < high
    True
    """
    check_bootstrap(resamples, confidence)
    scorer = _scorer(truth, predicted, classes, ignore, background, tolerance)
    (found,) = bootstrap.estimate([scorer], resamples, confidence, seed)
    return found


def _scorer(
    truth: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    ignore: int | None,
    background: int | None,
    tolerance: float | None,
) -> PictureScorer:
    true, said = as_array(truth), as_array(predicted)
    if background is not None and not 0 <= background < classes:
        raise ValueError(f"background: {background} is no class; allowed: 0 to {classes - 1}, or None")
    cases = MaskCases(true, said, classes, ignore, background, tolerance)
    _ = cases.sizes, cases.boundary  # which look at the values
    return PictureScorer(cases, metrics_of_form("masks"))


def instances(masks: ArrayLike, *, min_distance: float | None = None) -> npt.NDArray[np.int32]:
    """Return the objects of masks: 0 is background, and those of each picture are numbered from 1.

    Pixels that touch, also at a corner, are one object. With `min_distance`, an object that has several cores is
    divided between them by a watershed of the distance to its outline, also that at the edge of the picture. Its cores
    are the pixels that are farthest from the outline, each more than `min_distance` away from those that are deeper
    inside.

    Args:
        masks: (N, H, W) or (N, D, H, W), 0 and 1 or booleans; of several classes one at a time, as `masks == 2`.
        min_distance: Smallest distance of two cores in pixels, such as the radius of a usual object; None divides none.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> instances([[[1, 0, 1], [1, 0, 1]]]).tolist()
    [[[1, 0, 2], [1, 0, 2]]]
    """
    return _objects.instances(as_array(masks), min_distance)


def instance_average_precision(
    truth: ArrayLike, predicted: ArrayLike, *, thresholds: Sequence[float] = (0.5,)
) -> float | None:
    """Return the average precision of objects as the Data Science Bowl 2018 has it: the mean of TP / (TP + FP + FN).

    The mean is over the thresholds of IoU and over the pictures; a picture without any object, true or predicted, is
    left out, and None is returned if there is no other. An object is found if a predicted one has an IoU with it above
    the threshold. From 0.5 on at most one can, on either side, so that no assignment has to be searched. It is not the
    area under a curve of precision and recall, which detection calls average precision, and needs no scores of objects.

    Args:
        truth: (N, H, W) or (N, D, H, W) integers; 0 is background, every other number an object of its picture.
        predicted: The same shape; its numbers need not be those of the truth. `instances` makes them from masks.
        thresholds: Of IoU, 0.5 to below 1. The Data Science Bowl takes 0.5, 0.55, …, 0.95.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> truth = [[[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]]]
    >>> predicted = [[[5, 5, 0, 0, 7], [5, 5, 0, 0, 0]]]
    >>> round(instance_average_precision(truth, predicted), 3)  # one of two is found, and one is found in vain
    0.333
    """
    found = _objects.instance_precisions(as_array(truth), as_array(predicted), thresholds).mean(axis=1)
    return None if np.isnan(found).all() else float(np.nanmean(found))
