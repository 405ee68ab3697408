"""What figures, report and spreadsheet show of boxes."""

import numpy as np
import numpy.typing as npt

from visionforge.data.batches import ArrayDataset
from visionforge.evaluation.box_evaluation import BoxEvaluation
from visionforge.evaluation.box_files import box_columns
from visionforge.evaluation.label_colours import class_colours
from visionforge.reporting.box_overlays import box_comparison, box_overlay
from visionforge.reporting.context import ReportContext
from visionforge.reporting.drawn_presentation import Colour, DrawnPicture, DrawnPresentation, Pixels
from visionforge.reporting.presentation import Section, Sheet
from visionforge.reporting.sections import class_table
from visionforge.scoring.box_cases import SCORE_THRESHOLD

DRAWINGS = ("truth", "prediction", "comparison")


class BoxPresentation(DrawnPresentation):
    """What is shown of boxes; see `visionforge.reporting.presentation.Presentation`.

    Args:
        evaluation: The numbers.
        images: The split itself.
        background: Settings, epochs and origin.
    """

    drawings = DRAWINGS
    score = "F1"

    def __init__(self, evaluation: BoxEvaluation, images: ArrayDataset, background: ReportContext) -> None:
        self._evaluation = evaluation
        self._colours = class_colours(len(evaluation.spec.classes))
        super().__init__(evaluation, images, background)

    def sections(self) -> list[Section]:
        """Return the numbers of each class, and pictures."""
        notes = [
            f"Shown are boxes with a score of at least {SCORE_THRESHOLD}. Dashed ones are true; in the comparison, "
            "those that were missed and those that are wrong are crossed out."
        ]
        return [class_table(self._evaluation), *self._sections_of_pictures(notes)]

    def predictions(self) -> Sheet:
        """Return a row per predicted box."""
        evaluation = self._evaluation
        columns = box_columns(evaluation.spec, evaluation.said, self.background.side, evaluation.labels)
        return [column.name for column, _ in columns], zip(*(cells for _, cells in columns), strict=True)

    def _scores(self) -> npt.NDArray[np.float64]:
        return self._evaluation.best.cases.f1

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
        return DrawnPicture(index, drawings, caption, self._file(index))

    def _class_colours(self) -> list[tuple[str, Colour]]:
        colours = map(tuple, self._colours.tolist())
        return list(zip(self._evaluation.spec.classes, colours, strict=False))
