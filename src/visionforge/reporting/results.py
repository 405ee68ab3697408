"""What an evaluation leaves in a folder: metrics, predictions, figures, report and spreadsheet."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.data.batches import ArrayDataset
from visionforge.data.side_table import SideTable
from visionforge.evaluation.evaluation import Array, Evaluation
from visionforge.evaluation.predictions import write_predictions
from visionforge.evaluation.selection import Chosen, confidence_of, confident_mistakes, least_certain
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.curves import precision_recall_figure, reliability_figure, roc_figure
from visionforge.reporting.figures.static import (
    Picture,
    map_grid,
    own_style,
    sample_grid,
    save_figure,
    training_curves,
)
from visionforge.reporting.page import write_report
from visionforge.reporting.spreadsheet import write_summary
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import Workspace
from visionforge.training.epoch_log import read_epochs
from visionforge.training.monitor import AUC, Monitor

log = logging.getLogger(__name__)

SAMPLE_SEED = 0  # which images the grid of samples shows
SAMPLES = 24
Explainer = Callable[[Array], tuple[list[Array], str]]  # (N, C, H, W) uint8 → overlays (P, P, 3) and how they were made


def write_results(
    workspace: Workspace,
    evaluation: Evaluation,
    images: ArrayDataset,
    provenance: Mapping[str, Any],
    background: ReportContext,
    explainer: Explainer | None = None,
) -> dict[str, Any]:
    """Write all results of one evaluated split.

    Args:
        workspace: Where the files go.
        evaluation: The numbers.
        images: The split itself, for the grids of images.
        provenance: Further facts for `metrics.json`, such as the checkpoint and the digest of the data.
        background: What the report says beside the numbers; its pictures are added here.
        explainer: Makes the overlays that show where the network looked; None leaves them out.

    Returns:
        The content of `metrics.json`.
    """
    spec, settings = evaluation.spec, evaluation.settings
    content = {
        "dataset": spec.dataset,
        "split": evaluation.split,
        "images": len(evaluation.labels),
        "task": spec.task,
        "resolution": spec.resolution,
        **provenance,
        **evaluation.as_dict(),
    }
    write_predictions(workspace.predictions, spec, evaluation.said, evaluation.labels, background.side)
    background = _with_pictures(background, evaluation, images, explainer)
    if settings.figures:
        with own_style():
            _write_figures(workspace.figures, evaluation, images, background)
    if settings.report:
        write_report(workspace.report, evaluation, background)
        write_summary(workspace.summary, evaluation, background)
    write_atomic(workspace.metrics, json.dumps(content, indent=2) + "\n")  # last: its presence means complete
    return content


def _pictures(evaluation: Evaluation, images: ArrayDataset, side: SideTable, chosen: Chosen) -> list[Picture]:
    if not len(chosen.indices):
        return []
    indices = chosen.indices.tolist()
    pixels = images.__getitems__(indices)[0].cpu().numpy()
    labels, predicted = evaluation.labels[chosen.indices], evaluation.predicted[chosen.indices]
    names = [None if side.names is None else side.names[index] for index in indices]
    rows = zip(pixels, indices, labels, predicted, chosen.confidence.tolist(), names, strict=True)
    return [
        Picture(image, index, truth, said, sure, name=name or None) for image, index, truth, said, sure, name in rows
    ]


def _with_pictures(
    background: ReportContext, evaluation: Evaluation, images: ArrayDataset, explainer: Explainer | None
) -> ReportContext:
    side = background.side
    mistakes = _pictures(evaluation, images, side, confident_mistakes(evaluation))
    uncertain = _pictures(evaluation, images, side, least_certain(evaluation))
    count = evaluation.settings.explanations
    if explainer is None or not count or not (evaluation.settings.report or evaluation.settings.figures):
        return replace(background, mistakes=mistakes, uncertain=uncertain)
    wrong = mistakes[: count // 2]  # half of them mistakes, the others drawn from what is right
    agree = evaluation.predicted == evaluation.labels
    right = np.flatnonzero(agree if agree.ndim == 1 else agree.all(axis=1))
    chosen = _drawn(right)[: count - len(wrong)]
    wanted = [*wrong, *_pictures(evaluation, images, side, Chosen(chosen, confidence_of(evaluation)[chosen]))]
    if not wanted:
        return replace(background, mistakes=mistakes, uncertain=uncertain)
    overlays, method = explainer(np.stack([picture.image for picture in wanted]))
    if not overlays:
        return replace(background, mistakes=mistakes, uncertain=uncertain)
    explained = [replace(picture, overlay=overlay) for picture, overlay in zip(wanted, overlays, strict=True)]
    return replace(background, mistakes=mistakes, uncertain=uncertain, explained=explained, method=method)


def _drawn(indices: Array) -> Array:
    """Return indices in a random order that is always the same."""
    return np.random.default_rng(SAMPLE_SEED).permutation(indices)


def _write_figures(folder: Path, evaluation: Evaluation, images: ArrayDataset, background: ReportContext) -> None:
    spec, dpi, split = evaluation.spec, evaluation.settings.figure_dpi, evaluation.split
    count = len(evaluation.labels)
    heading = f"{spec.dataset}, {split} split, {count:,} images"
    if evaluation.partial is not None:
        lines = str(evaluation.partial).replace(" (", "\n(")
        heading = f"{spec.dataset}, {split} split\n{lines}"
    decisions = evaluation.task.decision_figure(evaluation.labels, evaluation.predicted, spec.classes, heading)
    chosen = np.sort(_drawn(np.arange(count))[:SAMPLES])
    samples = _pictures(evaluation, images, background.side, Chosen(chosen, confidence_of(evaluation)[chosen]))
    figures = {
        "confusion_matrix": decisions,
        "roc": roc_figure(evaluation, heading),
        "precision_recall": precision_recall_figure(evaluation, heading),
        "reliability": reliability_figure(evaluation, heading),
        **evaluation.task.figures(evaluation),
    }
    drawn = f"{spec.dataset}: {len(chosen)} images of the {split} split, drawn at random"
    for name, pictures, title in (
        ("sample_predictions", samples, drawn),
        ("mistakes", background.mistakes, f"{spec.dataset}, {split} split: the most confident mistakes"),
        ("least_certain", background.uncertain, f"{spec.dataset}, {split} split: the least certain predictions"),
    ):
        if pictures:
            figures[name] = sample_grid(pictures, spec.classes, title)
    if background.explained:
        figures["explanations"] = map_grid(background.explained, spec.classes, background.method)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png", dpi)


def write_training_curves(epochs: Path, figure: Path, title: str, dpi: int, monitor: Monitor = AUC) -> None:
    """Draw `metrics.csv` as a picture.

    Args:
        epochs: The table.
        figure: The PNG file.
        title: Heading.
        dpi: Pixels per inch.
        monitor: What the best epoch was chosen by.
    """
    with own_style():
        save_figure(training_curves(read_epochs(epochs), title, monitor), figure, dpi)
