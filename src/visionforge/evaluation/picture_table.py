"""What a network says of pictures, as the rows of a table: label, probabilities and uncertainty."""

import math

import torch

from visionforge.data.info import TaskSpec
from visionforge.data.stream import Batch
from visionforge.errors import RunError
from visionforge.evaluation.scores import predicted_labels
from visionforge.evaluation.table_writers import Cell, Column
from visionforge.training.classifier import ImageClassifier


def columns_of(spec: TaskSpec) -> list[Column]:
    """Return the columns of a table of predictions; equal class names are told apart by their numbers."""
    unique = len(set(spec.classes)) == len(spec.classes)
    names = [name if unique else f"{index}_{name}" for index, name in enumerate(spec.classes)]
    kind = Column("prediction", "text" if spec.task == "multi-label" else "integer")
    probabilities = [Column(f"probability_{name}", "number") for name in names]
    return [Column("path"), Column("label"), kind, *probabilities, Column("uncertainty", "number")]


def table_rows(model: ImageClassifier, batch: Batch, tta: bool | None) -> list[list[Cell]]:
    """Return a row per image of a batch, with a cell per column of `columns_of`.

    Labels are chosen before the probabilities are calibrated, as `test` does: thresholds are chosen without the
    temperature, which never changes the most probable class. The uncertainty is the entropy of the
    calibrated probabilities as a share of the highest possible; for multi-label data, the mean over the labels.

    Args:
        model: The network, in evaluation mode.
        batch: The images.
        tta: Average over the test-time views; None takes the network's setting.

    Raises:
        RunError: If the network's outputs are not finite.
    """
    assert model.spec is not None
    spec, multi = model.spec, model.spec.task == "multi-label"
    device = next(model.parameters()).device
    with torch.inference_mode():
        alone, averaged = model.predict_probabilities(batch.images.to(device), tta)
        given = (alone if averaged is None else averaged).float().cpu()
        if not bool(torch.isfinite(given).all()):
            raise RunError(
                "the network's outputs are not finite, so its training has diverged; take another checkpoint"
            )
        calibrated = model.calibrated(given, tta=averaged is not None)
        wide = calibrated.double().clamp(0, 1)
        entropy = torch.special.entr(wide) + torch.special.entr(1 - wide) if multi else torch.special.entr(wide)
        highest = len(spec.classes) * math.log(2) if multi else math.log(len(spec.classes))
        uncertainty = (entropy.sum(dim=1) / highest).clamp(0, 1).tolist()
    thresholds = model.thresholds
    if averaged is not None and model.calibration is not None and model.calibration.thresholds_tta is not None:
        thresholds = torch.tensor(model.calibration.thresholds_tta)
    chosen = predicted_labels(given.numpy(), spec.task, None if thresholds is None else thresholds.numpy()).tolist()
    rows: list[list[Cell]] = []
    for name, label, probabilities, entropy_share in zip(
        batch.names, chosen, calibrated.tolist(), uncertainty, strict=True
    ):
        if multi:
            text = "|".join(spec.classes[k] for k, digit in enumerate(label) if digit)
            rows.append([name, text, "".join(map(str, label)), *probabilities, entropy_share])
        else:
            rows.append([name, spec.classes[label], label, *probabilities, entropy_share])
    return rows
