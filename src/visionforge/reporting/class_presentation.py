"""What figures, report and spreadsheet show of images that have classes or labels."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from visionforge.data.batches import ArrayDataset
from visionforge.data.side_table import SideTable
from visionforge.evaluation.class_names import probability_columns, unique_names
from visionforge.evaluation.evaluation import Array, Evaluation, of_probabilities
from visionforge.evaluation.metric_names import READINGS, labels_of_metrics
from visionforge.evaluation.selection import Chosen, confidence_of, confident_mistakes, least_certain
from visionforge.reporting.abstention_section import abstention_section
from visionforge.reporting.context import ReportContext
from visionforge.reporting.embedding_section import embedding_view
from visionforge.reporting.figures.curves import precision_recall_figure, reliability_figure, risk_figure, roc_figure
from visionforge.reporting.figures.forest import forest_figures
from visionforge.reporting.figures.interactive import curve_plots, reliability_plots
from visionforge.reporting.figures.static import Picture, map_grid, sample_grid
from visionforge.reporting.presentation import Explainer, Section, Sheet
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.sections import class_table, headings, number
from visionforge.reporting.subgroup_sections import subgroup_sections
from visionforge.reporting.thumbnails import thumbnails

SAMPLE_SEED = 0  # which images the grid of samples shows
SAMPLES = 24


class ClassPresentation:
    """What is shown of images that have classes or labels; see `visionforge.reporting.presentation.Presentation`.

    Args:
        evaluation: The numbers.
        images: The split itself, for the grids of images.
        background: What the report says beside the numbers; its pictures are added here.
        explainer: Makes the overlays that show where the network looked; None leaves them out.
    """

    def __init__(
        self, evaluation: Evaluation, images: ArrayDataset, background: ReportContext, explainer: Explainer | None
    ) -> None:
        self._evaluation = evaluation
        self._images = images
        self.background = _with_pictures(background, evaluation, images, explainer)
        embedded = self.background.embedding
        self._map = None if embedded is None else embedding_view(embedded, evaluation, self.background.mistakes)

    def sections(self) -> list[Section]:
        """Return decisions, curves, calibration, classes, pictures, and the map of the features."""
        evaluation = self._evaluation
        return [
            _decisions(evaluation),
            Section("curves", "ROC and precision-recall curves", plots=curve_plots(evaluation)),
            _calibration(evaluation),
            *abstention_section(evaluation),
            class_table(evaluation),
            *subgroup_sections(evaluation),
            *_picture_sections(evaluation, self.background),
            *([] if self._map is None else [self._map.section()]),
        ]

    def predictions(self) -> Sheet:
        """Return a row per image: truth, prediction, and the probability of each class."""
        evaluation, side = self._evaluation, self.background.side
        names = unique_names(evaluation.spec)
        known = side.known
        columns = ["index", *known, "truth", "prediction", "right", *probability_columns(evaluation.spec)]
        rows = (
            [
                index,
                *(texts[index] for texts in known.values()),
                evaluation.task.label_text(truth, names),
                evaluation.task.label_text(said, names),
                bool(np.array_equal(truth, said)),
                *map(float, row),
            ]
            for index, (truth, said, row) in enumerate(
                zip(evaluation.labels, evaluation.predicted, evaluation.best.shown, strict=True)
            )
        )
        return columns, rows

    def figures(self) -> Mapping[str, Figure]:
        """Return what was decided, the curves, grids of images, and the map of the features."""
        evaluation, background = self._evaluation, self.background
        spec, split = evaluation.spec, evaluation.split
        count = len(evaluation.labels)
        heading = f"{spec.dataset}, {split} split, {count:,} images"
        if evaluation.partial is not None:
            lines = str(evaluation.partial).replace(" (", "\n(")
            heading = f"{spec.dataset}, {split} split\n{lines}"
        decisions = evaluation.task.decision_figure(evaluation.labels, evaluation.predicted, spec.classes, heading)
        chosen = np.sort(_drawn(np.arange(count))[:SAMPLES])
        samples = _pictures(
            evaluation, self._images, background.side, Chosen(chosen, confidence_of(evaluation)[chosen])
        )
        figures = {
            "confusion_matrix": decisions,
            "roc": roc_figure(evaluation, heading),
            "precision_recall": precision_recall_figure(evaluation, heading),
            "reliability": reliability_figure(evaluation, heading),
            **evaluation.task.figures(evaluation),
            **forest_figures(evaluation, heading),
        }
        if evaluation.risk is not None:
            figures["risk_coverage"] = risk_figure(evaluation.risk, heading)
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
        if self._map is not None:
            figures |= self._map.figures(heading)
        return figures


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


def _decisions(evaluation: Evaluation) -> Section:
    view = evaluation.task.decision_view(evaluation.labels, evaluation.predicted, evaluation.spec.classes)
    plots, matrix = view.plots, view.matrix
    return Section("decisions", view.heading, notes=view.notes, plots=plots, beside=len(plots) > 1, matrix=matrix)


def _calibration(evaluation: Evaluation) -> Section:
    calibration = evaluation.calibration
    if calibration is None:
        note = "No validation split was looked at, so there is no temperature."
    elif all(reading.after is None for reading in evaluation.readings.values()):
        note = (
            f"The {calibration.images:,} validation images do not fix a temperature: on them, being surer is always "
            "better (or always worse). The probabilities stay as they are."
        )
    else:
        note = (
            f"The temperature divides the logits; it was fitted on the {calibration.images:,} validation images and is "
            "kept in the checkpoint. It changes no ranking within an image, only how sure the probabilities are."
        )
    shown = sorted(of_probabilities(evaluation.spec.task), key=lambda name: name != "ece")
    rows = [
        [Cell(f"{READINGS[name]}, {when}"), *(Cell(number(values[key]), "number") for key in shown)]
        for name, reading in evaluation.readings.items()
        for when, values in (("as given", reading.estimate.overall), ("with temperature", reading.after))
        if values is not None
    ]
    labels = labels_of_metrics()
    table = Table(headings(["", *(labels[key] for key in shown)]), rows)
    heading = "Can its probabilities be believed?"
    return Section("calibration", heading, notes=[note], plots=reliability_plots(evaluation), table=table)


def _picture_sections(evaluation: Evaluation, background: ReportContext) -> list[Section]:
    classes = evaluation.spec.classes
    none = [] if background.mistakes else ["There are none: every prediction is right."]
    mistakes = thumbnails(background.mistakes, classes)
    found = [Section("mistakes", "Most confident mistakes", notes=none, pictures=mistakes)]
    if background.uncertain:
        uncertain = thumbnails(background.uncertain, classes)
        found.append(Section("uncertain", "Least certain predictions", pictures=uncertain))
    if background.explained:
        maps = thumbnails(background.explained, classes)
        found.append(Section("explained", "Where the network looked", notes=[background.method], pictures=maps))
    return found
