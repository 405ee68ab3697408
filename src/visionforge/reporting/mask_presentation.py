"""What figures, report and spreadsheet show of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from visionforge.config.schema.task import IGNORED, Matrix
from visionforge.data.batches import ArrayDataset
from visionforge.evaluation.label_colours import class_colours
from visionforge.evaluation.mask_evaluation import MaskEvaluation
from visionforge.evaluation.mask_files import drawn_numbers
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.panels import COMPARISON_LEGEND, panel_grid
from visionforge.reporting.label_overlays import mask_comparison, mask_overlay
from visionforge.reporting.presentation import Section, Sheet
from visionforge.reporting.sections import class_table
from visionforge.reporting.thumbnails import Panel, panel

SHOWN = 8  # pictures of each kind in a report
SAMPLE_SEED = 0  # which pictures are drawn at random
DRAWINGS = ("image", "truth", "prediction", "comparison")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and its masks, drawn.

    Attributes:
        index: Its place in the split.
        drawings: (P, Q, 3) each, as `DRAWINGS` names them.
        caption: How good the mask is.
        name: Its file, or None.
    """

    index: int
    drawings: Sequence[Pixels]
    caption: str
    name: str | None


class MaskPresentation:
    """What is shown of masks; see `visionforge.reporting.presentation.Presentation`.

    Args:
        evaluation: The numbers.
        images: The split itself.
        background: Settings, epochs and origin.
    """

    def __init__(self, evaluation: MaskEvaluation, images: ArrayDataset, background: ReportContext) -> None:
        self._evaluation = evaluation
        self._images = images
        self.background = background
        self._shown = drawn_numbers(len(evaluation.spec.classes), evaluation.background)
        self._colours = class_colours(len(evaluation.spec.classes) + 1)
        settings = evaluation.settings
        shows = settings.report or settings.figures
        self._worst = self._drawn(self._ranked()[:SHOWN]) if shows else []
        self._samples = self._drawn(np.sort(self._random()[:SHOWN])) if shows else []

    def sections(self) -> list[Section]:
        """Return the numbers of each class, which classes are taken for each other, and pictures."""
        legend, background = self._legend(), self._evaluation.background
        notes = ["Stripes in the comparison are pixels of a class for which another one is predicted."]
        notes = notes if len(self._evaluation.spec.classes) - (background is not None) > 1 else []
        worst, samples = ([_panel(each) for each in pictures] for pictures in (self._worst, self._samples))
        return [
            class_table(self._evaluation),
            self._confusion(),
            Section("worst", "Lowest Dice", notes=notes, legend=legend, panels=worst),
            Section("samples", "Drawn at random", legend=legend, panels=samples),
        ]

    def figures(self) -> Mapping[str, Figure]:
        """Return grids of pictures with their masks."""
        spec, split = self._evaluation.spec, self._evaluation.split
        titles = {
            "lowest_dice": (self._worst, f"{spec.dataset}, {split} split: the lowest Dice"),
            "sample_predictions": (self._samples, f"{spec.dataset}, {split} split: drawn at random"),
        }
        legend = [(name, self._colours[self._shown[k]]) for k, name in self._drawn_classes()]
        return {
            name: panel_grid(
                [each.drawings for each in pictures],
                DRAWINGS,
                [f"{each.index}: {each.caption}" for each in pictures],
                title,
                [(each, (int(colour[0]), int(colour[1]), int(colour[2]))) for each, colour in legend],
            )
            for name, (pictures, title) in titles.items()
            if pictures
        }

    def predictions(self) -> Sheet:
        """Return a row per image: its Dice, and the pixels of each class."""
        evaluation, side = self._evaluation, self.background.side
        known = {heading: texts for heading, texts in (("name", side.names), ("group", side.groups)) if texts}
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

    def _ranked(self) -> npt.NDArray[np.int64]:
        """Return the pictures that have a Dice, the lowest first."""
        dice = self._evaluation.best.dice
        order = np.argsort(dice, kind="stable")
        return order[~np.isnan(dice[order])]

    def _random(self) -> npt.NDArray[np.int64]:
        return np.random.default_rng(SAMPLE_SEED).permutation(len(self._evaluation.labels))

    def _drawn(self, indices: npt.NDArray[np.int64]) -> list[DrawnPicture]:
        if not len(indices):
            return []
        pixels = self._images.__getitems__(indices.tolist())[0].cpu().numpy()
        return [self._picture(int(index), image) for index, image in zip(indices, pixels, strict=True)]

    def _picture(self, index: int, image: Pixels) -> DrawnPicture:
        evaluation, names = self._evaluation, self.background.side.names
        truth, said, dice = evaluation.labels[index], evaluation.best.masks[index], evaluation.best.dice[index]
        truth, said = self._shown[truth], self._shown[said]
        drawings = [
            mask_overlay(image, np.zeros_like(said), self._colours),
            mask_overlay(image, truth, self._colours, IGNORED),
            mask_overlay(image, said, self._colours),
            mask_comparison(image, truth, said, IGNORED),
        ]
        caption = "nothing but background" if np.isnan(dice) else f"Dice {dice:.3f}"
        return DrawnPicture(index, drawings, caption, None if names is None else names[index])

    def _drawn_classes(self) -> list[tuple[int, str]]:
        """Return number and name of the classes that are drawn."""
        return [(k, name) for k, name in enumerate(self._evaluation.spec.classes) if self._shown[k]]

    def _legend(self) -> list[tuple[str, str]]:
        """Return what is drawn, and its colour as a page writes it: the classes, and what the comparison tells."""
        colours = [(name, self._colours[self._shown[k]].tolist()) for k, name in self._drawn_classes()]
        verdicts = [(f"comparison: {name}", list(colour)) for name, colour in COMPARISON_LEGEND]
        return [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in [*colours, *verdicts]]

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


def _panel(drawn: DrawnPicture) -> Panel:
    drawings = list(zip(DRAWINGS, drawn.drawings, strict=True))
    return panel(drawn.index, drawings, drawn.caption, drawn.name)
