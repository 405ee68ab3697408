"""What an evaluation leaves in a folder: metrics, predictions, figures, report and spreadsheet."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionforge.data.batches import ArrayDataset
from visionforge.evaluation.evaluation import SplitEvaluation
from visionforge.evaluation.metric_names import READINGS, metric_name, printed_metrics
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.static import own_style, save_figure, save_figures, training_curves
from visionforge.reporting.page import write_report
from visionforge.reporting.presentation import Explainer, Presentation
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import Workspace
from visionforge.training.epoch_log import read_epochs
from visionforge.training.monitor import AUC, Monitor

log = logging.getLogger(__name__)


def write_results(
    workspace: Workspace,
    evaluation: SplitEvaluation,
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
    evaluation.task.write_predictions(workspace, spec, evaluation.said, evaluation.labels, background.side)
    if settings.figures or settings.report:
        log.info("%s; figures and report follow", headline(content))
    shown: Presentation = evaluation.task.present(evaluation, images, background, explainer)
    if settings.figures:
        with own_style():
            named = shown.figures().items()
            save_figures(((figure, workspace.figures / f"{name}.png") for name, figure in named), settings.figure_dpi)
    if settings.report:
        from visionforge.reporting.spreadsheet import write_summary  # openpyxl

        write_report(workspace.report, evaluation, shown)
        write_summary(workspace.summary, evaluation, shown)
    write_atomic(workspace.metrics, json.dumps(content, indent=2) + "\n")  # last: its presence means complete
    return content


def headline(content: Mapping[str, Any]) -> str:
    """Return the first two metrics of an evaluated split in a line.

    Args:
        content: The content of `metrics.json`.

    >>> headline({"split": "test", "images": 3, "without_tta": {"accuracy": 0.5, "auc": 0.75}})
    'test split, 3 images: accuracy 0.5000, AUC 0.7500'
    """
    reading = next(name for name in reversed(READINGS) if content.get(name))
    values = {name: content[reading].get(name) for name in printed_metrics()}
    told = [f"{metric_name(name, None)} {value:.4f}" for name, value in values.items() if value is not None]
    return f"{content['split']} split, {content['images']:,} images: {', '.join(told[:2])}"


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
