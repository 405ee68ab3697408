"""What a report shows, whatever the labels are: its sections, and what a task puts into them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from visionforge.config.schema.task import Matrix
from visionforge.evaluation.evaluation import Array
from visionforge.reporting.context import ReportContext
from visionforge.reporting.figures.interactive import Spec
from visionforge.reporting.rendering import Table
from visionforge.reporting.thumbnails import Panel, Thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Explainer = Callable[[Array], tuple[list[Array], str]]  # (N, C, H, W) uint8 → overlays (P, P, 3) and how they were made
Sheet = tuple[Sequence[str], Iterable[Sequence[Any]]]  # of a spreadsheet: its headings and its rows


@dataclass(frozen=True)
class Card:
    """A number that stands out: its name, its value, and the interval below it, if there is one."""

    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class Section:
    """A section of the report; its parts are shown in this order.

    Attributes:
        anchor: Its name within the page.
        heading: Its heading.
        warning: What must not be overlooked.
        cards: Numbers that stand out.
        notes: Explanations, a paragraph each.
        plots: Interactive figures.
        beside: Whether the figures stand beside each other where there is room.
        matrix: A confusion matrix.
        table: A table.
        further: More tables, each with a line above it.
        pictures: Images of the split.
        legend: What is drawn in the panels, and its colour, a line for the classes and one for the comparison.
        panels: Images of the split beside what was said of them.
    """

    anchor: str
    heading: str
    warning: str = ""
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    plots: Sequence[Spec] = ()
    beside: bool = True
    matrix: Matrix | None = None
    table: Table | None = None
    further: Sequence[tuple[str, Table]] = ()
    pictures: Sequence[Thumbnail] = ()
    legend: Sequence[Sequence[tuple[str, str]]] = ()
    panels: Sequence[Panel] = ()


class Presentation(Protocol):
    """What a task shows of an evaluation.

    Attributes:
        background: Settings, epochs, origin and pictures.
    """

    background: ReportContext

    def figures(self) -> "Mapping[str, Figure]":
        """Return pictures by file name without ``.png``."""

    def sections(self) -> Sequence[Section]:
        """Return the sections of a report between its result and its settings."""

    def predictions(self) -> Sheet:
        """Return the sheet of the predictions, for a spreadsheet."""
