"""What a test leaves in a folder: metrics, predictions and figures."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.data.batches import ArrayDataset
from visionforge.data.info import TaskSpec
from visionforge.evaluation.figures import (
    confusion_matrix,
    label_matrix,
    sample_grid,
    save_figure,
    training_curves,
)
from visionforge.evaluation.metrics import classification_metrics, predicted_labels
from visionforge.evaluation.predictions import write_predictions
from visionforge.runs.files import write_atomic
from visionforge.training.predictions import Predictions

log = logging.getLogger(__name__)

Metrics = dict[str, float | None]
SAMPLE_SEED = 0  # which images the grid of samples shows
SAMPLES = 24


def evaluate(predictions: Predictions, spec: TaskSpec) -> tuple[Metrics, Metrics | None]:
    """Return the metrics without and with test-time augmentation (None if it is off)."""
    labels = predictions.labels.numpy()
    thresholds = None if predictions.thresholds is None else predictions.thresholds.numpy()
    plain = classification_metrics(predictions.probabilities.numpy(), labels, spec.task, thresholds)
    plain["loss"] = predictions.loss
    if predictions.probabilities_tta is None:
        return plain, None
    return plain, classification_metrics(predictions.probabilities_tta.numpy(), labels, spec.task, thresholds)


def write_results(
    folder: Path, predictions: Predictions, spec: TaskSpec, split: str, images: ArrayDataset, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Write `metrics.json`, `predictions.csv` and the figures of one evaluated split.

    Args:
        folder: Where the files go.
        predictions: What the network said.
        spec: The task.
        split: Name of the split.
        images: The split itself, for the grid of samples.
        provenance: Further facts for `metrics.json`, such as the checkpoint and the digest of the data.

    Returns:
        The content of `metrics.json`.
    """
    plain, averaged = evaluate(predictions, spec)
    content = {
        "dataset": spec.dataset,
        "split": split,
        "images": len(predictions.labels),
        "task": spec.task,
        "resolution": spec.resolution,
        **provenance,
        "without_tta": plain,
        "with_tta": averaged,
    }
    if predictions.thresholds is not None:
        content["thresholds"] = dict(zip(spec.classes, predictions.thresholds.tolist(), strict=True))
    probabilities = predictions.probabilities.numpy()
    tta = None if predictions.probabilities_tta is None else predictions.probabilities_tta.numpy()
    write_predictions(folder / "predictions.csv", spec, probabilities, tta, predictions.labels.numpy())
    _write_figures(folder / "figures", predictions, spec, split, images)
    write_atomic(folder / "metrics.json", json.dumps(content, indent=2) + "\n")  # last: its presence means complete
    return content


def _write_figures(folder: Path, predictions: Predictions, spec: TaskSpec, split: str, images: ArrayDataset) -> None:
    best = predictions.probabilities if predictions.probabilities_tta is None else predictions.probabilities_tta
    shown, labels = best.numpy(), predictions.labels.numpy()
    predicted = predicted_labels(shown, spec.task)
    heading = f"{spec.dataset}, {split} split, {len(labels):,} images"
    draw = label_matrix if spec.task == "multi-label" else confusion_matrix
    save_figure(draw(labels, predicted, spec.classes, heading), folder / "confusion_matrix.png")
    chosen = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(labels))[:SAMPLES])
    confidence = np.where(predicted == 1, shown, 1 - shown).min(1) if spec.task == "multi-label" else shown.max(1)
    figure = sample_grid(
        images.__getitems__(chosen.tolist())[0].cpu().numpy(),
        labels[chosen],
        predicted[chosen],
        confidence[chosen],
        spec.classes,
        f"{spec.dataset}: {len(chosen)} images of the {split} split, drawn at random",
    )
    save_figure(figure, folder / "sample_predictions.png")


def write_training_curves(epochs: Path, figure: Path, title: str) -> None:
    """Draw `metrics.csv` as a picture."""
    with epochs.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    save_figure(training_curves(rows, title), figure)
