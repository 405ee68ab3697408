"""What figures, report and spreadsheet show of masks."""

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.task import IGNORED, Matrix
from visionforge.data.batches import ArrayDataset
from visionforge.evaluation.label_colours import class_colours
from visionforge.evaluation.mask_evaluation import MaskEvaluation
from visionforge.evaluation.mask_files import drawn_numbers
from visionforge.reporting.context import ReportContext
from visionforge.reporting.drawn_presentation import Colour, DrawnPicture, DrawnPresentation, Pixels
from visionforge.reporting.label_overlays import mask_comparison, mask_overlay
from visionforge.reporting.presentation import Section, Sheet
from visionforge.reporting.sections import class_table

DRAWINGS = ("image", "truth", "prediction", "comparison")


class MaskPresentation(DrawnPresentation):
    """What is shown of masks; see `visionforge.reporting.presentation.Presentation`.

    Args:
        evaluation: The numbers.
        images: The split itself.
        background: Settings, epochs and origin.
    """

    drawings = DRAWINGS
    score = "Dice"

    def __init__(self, evaluation: MaskEvaluation, images: ArrayDataset, background: ReportContext) -> None:
        self._evaluation = evaluation
        self._shown = drawn_numbers(len(evaluation.spec.classes), evaluation.background)
        self._colours = class_colours(len(evaluation.spec.classes) + 1)
        super().__init__(evaluation, images, background)

    def sections(self) -> list[Section]:
        """Return the numbers of each class, which classes are taken for each other, and pictures."""
        background = self._evaluation.background
        notes = ["Stripes in the comparison are pixels of a class for which another one is predicted."]
        notes = notes if len(self._evaluation.spec.classes) - (background is not None) > 1 else []
        return [class_table(self._evaluation), self._confusion(), *self._sections_of_pictures(notes)]

    def predictions(self) -> Sheet:
        """Return a row per image: its Dice, and the pixels of each class."""
        evaluation, side = self._evaluation, self.background.side
        known = side.known
        classes = evaluation.spec.classes
        columns = ["index", *known, "Dice", "confidence"]
        columns += [f"{what} pixels of {name}" for what in ("true", "predicted") for name in classes]
        rows = (
            [
                index,
                *(texts[index] for texts in known.values()),
                None if np.isnan(dice) else float(dice),
                float(evaluation.best.sure[index]),
                *map(int, evaluation.best.true[index]),
                *map(int, evaluation.best.said[index]),
            ]
            for index, dice in enumerate(evaluation.best.dice)
        )
        return columns, rows

    def _scores(self) -> npt.NDArray[np.float64]:
        return self._evaluation.best.dice

    def _picture(self, index: int, image: Pixels) -> DrawnPicture:
        evaluation = self._evaluation
        truth, said, dice = evaluation.labels[index], evaluation.best.masks[index], evaluation.best.dice[index]
        truth, said = self._shown[truth], self._shown[said]
        drawings = [
            mask_overlay(image, np.zeros_like(said), self._colours),
            mask_overlay(image, truth, self._colours, IGNORED),
            mask_overlay(image, said, self._colours),
            mask_comparison(image, truth, said, IGNORED),
        ]
        caption = "nothing but background" if np.isnan(dice) else f"Dice {dice:.3f}"
        return DrawnPicture(index, drawings, caption, self._file(index))

    def _class_colours(self) -> list[tuple[str, Colour]]:
        names = self._evaluation.spec.classes
        shown = [(name, self._shown[k]) for k, name in enumerate(names) if self._shown[k]]
        return [(name, tuple(self._colours[number].tolist())) for name, number in shown]

    def _confusion(self) -> Section:
        """Return what the pixels of each class are taken for."""
        classes, counts = self._evaluation.spec.classes, self._evaluation.confusion
        most = 20
        if len(classes) > most:
            return Section(
                "decisions", "Which pixels are taken for which", notes=[f"Not shown of over {most} classes."]
            )
        totals = counts.sum(axis=1)
        rows = [
            [(int(count), float(count / max(1, total))) for count in row]
            for row, total in zip(counts, totals, strict=True)
        ]
        notes = ["Pixels by true class (rows) and predicted class (columns)."]
        return Section("decisions", "Which pixels are taken for which", notes=notes, matrix=Matrix(classes, rows))
