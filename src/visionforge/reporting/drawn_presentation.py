"""What reports of masks and of boxes have in common: the worst pictures and some at random, drawn upon."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from visionforge.data.batches import ArrayDataset
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.panels import COMPARISON_LEGEND, panel_grid
from visionforge.reporting.presentation import Section
from visionforge.reporting.thumbnails import Panel, panel

SHOWN = 8  # pictures of each kind in a report
SAMPLE_SEED = 0  # which pictures are drawn at random
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and what is drawn on it.

    Attributes:
        index: Its place in the split.
        drawings: (P, Q, 3) each, as the presentation's `drawings` name them.
        caption: How good the prediction is.
        name: Its file, or None.
    """

    index: int
    drawings: Sequence[Pixels]
    caption: str
    name: str | None


class DrawnPresentation(ABC):
    """The pictures of a report, of which a task draws each.

    Args:
        evaluation: The numbers.
        images: The split itself.
        background: Settings, epochs and origin.

    Attributes:
        drawings: What each drawing of a picture shows.
        score: What pictures are ranked by, as a page writes it.
    """

    drawings: ClassVar[Sequence[str]]
    score: ClassVar[str]

    def __init__(self, evaluation: Any, images: ArrayDataset, background: ReportContext) -> None:
        self._images = images
        self.background = background
        self._spec, self._split = evaluation.spec, evaluation.split
        shows = evaluation.settings.report or evaluation.settings.figures
        at_random = np.random.default_rng(SAMPLE_SEED).permutation(len(evaluation.labels))
        self._worst = self._drawn(self._ranked()[:SHOWN]) if shows else []
        self._samples = self._drawn(np.sort(at_random[:SHOWN])) if shows else []

    @abstractmethod
    def _scores(self) -> npt.NDArray[np.float64]:
        """Return (N,) the score of each picture, NaN where it has none."""

    @abstractmethod
    def _picture(self, index: int, image: Pixels) -> DrawnPicture:
        """Return the drawings of a picture."""

    @abstractmethod
    def _class_colours(self) -> list[tuple[str, Colour]]:
        """Return name and colour of the classes that are drawn."""

    def figures(self) -> Mapping[str, Figure]:
        """Return grids of pictures with what is drawn on them."""
        title = f"{self._spec.dataset}, {self._split} split"
        pictures = {
            f"lowest_{self.score.lower()}": (self._worst, f"{title}: the lowest {self.score}"),
            "sample_predictions": (self._samples, f"{title}: drawn at random"),
        }
        return {
            name: panel_grid(
                [each.drawings for each in drawn],
                self.drawings,
                [f"{each.index}: {each.caption}" for each in drawn],
                heading,
                self._class_colours(),
            )
            for name, (drawn, heading) in pictures.items()
            if drawn
        }

    def _sections_of_pictures(self, notes: Sequence[str]) -> list[Section]:
        """Return the worst pictures, with notes, and those at random."""
        legend = self._legend()
        worst, samples = ([self._panel(each) for each in drawn] for drawn in (self._worst, self._samples))
        return [
            Section("worst", f"Lowest {self.score}", notes=list(notes), legend=legend, panels=worst),
            Section("samples", "Drawn at random", legend=legend, panels=samples),
        ]

    def _ranked(self) -> npt.NDArray[np.int64]:
        """Return the pictures that have a score, the lowest first."""
        scores = self._scores()
        order = np.argsort(scores, kind="stable")
        return order[~np.isnan(scores[order])]

    def _drawn(self, indices: npt.NDArray[np.int64]) -> list[DrawnPicture]:
        if not len(indices):
            return []
        pixels = self._images.__getitems__(indices.tolist())[0].cpu().numpy()
        return [self._picture(int(index), image) for index, image in zip(indices, pixels, strict=True)]

    def _file(self, index: int) -> str | None:
        """Return the file of a picture; None if it is not known."""
        names = self.background.side.names
        return None if names is None else names[index]

    def _legend(self) -> list[list[tuple[str, str]]]:
        """Return what is drawn, and its colour as a page writes it: the classes, and what the comparison tells."""
        verdicts = [(f"comparison: {name}", colour) for name, colour in COMPARISON_LEGEND]
        return [
            [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in row]
            for row in (self._class_colours(), verdicts)
        ]

    def _panel(self, drawn: DrawnPicture) -> Panel:
        drawings = list(zip(self.drawings, drawn.drawings, strict=True))
        return panel(drawn.index, drawings, drawn.caption, drawn.name)
