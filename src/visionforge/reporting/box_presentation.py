"""What figures, report and spreadsheet show of boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from visionforge.data.batches import ArrayDataset
from visionforge.evaluation.box_evaluation import BoxEvaluation
from visionforge.evaluation.box_files import box_columns
from visionforge.evaluation.label_colours import class_colours
from visionforge.reporting.box_overlays import box_comparison, box_overlay
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.panels import COMPARISON_LEGEND, panel_grid
from visionforge.reporting.presentation import Section, Sheet
from visionforge.reporting.sections import class_table
from visionforge.reporting.thumbnails import Panel, panel
from visionforge.scoring.box_cases import SCORE_THRESHOLD

SHOWN = 8  # pictures of each kind in a report
SAMPLE_SEED = 0  # which pictures are drawn at random
DRAWINGS = ("truth", "prediction", "comparison")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and its boxes, drawn.

    Attributes:
        index: Its place in the split.
        drawings: (P, Q, 3) each, as `DRAWINGS` names them.
        caption: How good the boxes are.
        name: Its file, or None.
    """

    index: int
    drawings: Sequence[Pixels]
    caption: str
    name: str | None


class BoxPresentation:
    """What is shown of boxes; see `visionforge.reporting.presentation.Presentation`.

    Args:
        evaluation: The numbers.
        images: The split itself.
        background: Settings, epochs and origin.
    """

    def __init__(self, evaluation: BoxEvaluation, images: ArrayDataset, background: ReportContext) -> None:
        self._evaluation = evaluation
        self._images = images
        self.background = background
        self._colours = class_colours(len(evaluation.spec.classes))
        settings = evaluation.settings
        shows = settings.report or settings.figures
        self._worst = self._drawn(self._ranked()[:SHOWN]) if shows else []
        self._samples = self._drawn(np.sort(self._random()[:SHOWN])) if shows else []

    def sections(self) -> list[Section]:
        """Return the numbers of each class, and pictures."""
        legend = self._legend()
        worst, samples = ([_panel(each) for each in pictures] for pictures in (self._worst, self._samples))
        notes = [
            f"Shown are boxes with a score of at least {SCORE_THRESHOLD}. Dashed ones are true; in the comparison, "
            "those that were missed and those that are wrong are crossed out."
        ]
        return [
            class_table(self._evaluation),
            Section("worst", "Lowest F1", notes=notes, legend=legend, panels=worst),
            Section("samples", "Drawn at random", legend=legend, panels=samples),
        ]

    def figures(self) -> Mapping[str, Figure]:
        """Return grids of pictures with their boxes."""
        spec, split = self._evaluation.spec, self._evaluation.split
        titles = {
            "lowest_f1": (self._worst, f"{spec.dataset}, {split} split: the lowest F1"),
            "sample_predictions": (self._samples, f"{spec.dataset}, {split} split: drawn at random"),
        }
        legend = [
            (name, (int(colour[0]), int(colour[1]), int(colour[2])))
            for name, colour in zip(spec.classes, self._colours, strict=False)
        ]
        return {
            name: panel_grid(
                [each.drawings for each in pictures],
                DRAWINGS,
                [f"{each.index}: {each.caption}" for each in pictures],
                title,
                legend,
            )
            for name, (pictures, title) in titles.items()
            if pictures
        }

    def predictions(self) -> Sheet:
        """Return a row per predicted box."""
        evaluation = self._evaluation
        columns = box_columns(evaluation.spec, evaluation.said, self.background.side, evaluation.labels)
        return [column.name for column, _ in columns], zip(*(cells for _, cells in columns), strict=True)

    def _ranked(self) -> npt.NDArray[np.int64]:
        """Return the pictures that have an F1, the lowest first."""
        f1 = self._evaluation.best.cases.f1
        order = np.argsort(f1, kind="stable")
        return order[~np.isnan(f1[order])]

    def _random(self) -> npt.NDArray[np.int64]:
        return np.random.default_rng(SAMPLE_SEED).permutation(len(self._evaluation.labels))

    def _drawn(self, indices: npt.NDArray[np.int64]) -> list[DrawnPicture]:
        if not len(indices):
            return []
        pixels = self._images.__getitems__(indices.tolist())[0].cpu().numpy()
        return [self._picture(int(index), image) for index, image in zip(indices, pixels, strict=True)]

    def _picture(self, index: int, image: Pixels) -> DrawnPicture:
        cases, names = self._evaluation.best.cases, self._evaluation.spec.classes
        (right, missed), f1 = cases.verdicts, cases.f1[index]
        truth, said = cases.labels[index], cases.sure[index]
        true, shown = truth[:, 0] >= 0, said[:, 0] >= 0
        boxes, kinds = truth[true, 1:], truth[true, 0].astype(np.int64)
        found, found_kinds, scores = said[shown, 2:], said[shown, 0].astype(np.int64), said[shown, 1]
        drawings = [
            box_overlay(image, boxes, kinds, names),
            box_overlay(image, found, found_kinds, names, scores),
            box_comparison(image, boxes, ~missed[index][true], found, right[index][shown]),
        ]
        caption = "nothing to find" if np.isnan(f1) else f"F1 {f1:.3f}"
        files = self.background.side.names
        return DrawnPicture(index, drawings, caption, None if files is None else files[index])

    def _legend(self) -> list[tuple[str, str]]:
        """Return what is drawn, and its colour as a page writes it: the classes, and what the comparison tells."""
        classes = zip(self._evaluation.spec.classes, self._colours.tolist(), strict=False)
        verdicts = [(f"comparison: {name}", list(colour)) for name, colour in COMPARISON_LEGEND]
        return [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in [*classes, *verdicts]]


def _panel(drawn: DrawnPicture) -> Panel:
    drawings = list(zip(DRAWINGS, drawn.drawings, strict=True))
    return panel(drawn.index, drawings, drawn.caption, drawn.name)
