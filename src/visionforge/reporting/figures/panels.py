"""Pictures in rows: what was seen, what is true, what was predicted, and how the two differ."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from visionforge.printable import printable
from visionforge.reporting.figures.static import GREY, shorten
from visionforge.reporting.label_overlays import FOUND, INVENTED, MISSED, Pixels

Legend = Sequence[tuple[str, tuple[int, int, int]]]
COMPARISON_LEGEND: Legend = (("found", FOUND), ("missed", MISSED), ("invented", INVENTED))
MOST_ROWS = 24
_PANEL, _NARROWEST = 1.9, 3.4  # inches, of a panel and of a figure
_CAPTION, _HEADINGS, _LINE = 0.2, 0.6, 0.16  # inches, of a row's caption, of what is above the rows, of a legend's line
_KEY, _LETTER = 0.5, 0.062  # inches, of an entry of a legend without its name, and of a letter of that
_LONGEST_CAPTION, _LONGEST_NAME = 28, 24  # characters for each panel of a row, and of a name in the legend


def panel_grid(
    rows: Sequence[Sequence[Pixels]],
    headings: Sequence[str],
    captions: Sequence[str],
    title: str,
    classes: Legend = (),
    verdicts: Legend = COMPARISON_LEGEND,
) -> Figure:
    """Draw up to 24 rows of panels, such as picture, truth, prediction and comparison.

    Args:
        rows: The panels of each row, (P, Q, 3) uint8; as many as there are headings.
        headings: One for each column.
        captions: One for each row, which stands below it, such as `17: Dice 0.91`.
        title: Heading of the figure.
        classes: Names and colours of classes, for a legend at the lower left; empty has none.
        verdicts: The same of the comparison, for one at the lower right, which may use the same colours.

    Raises:
        ValueError: If there is no row, or the numbers of panels, headings and captions differ.
    """
    if not rows or len(rows) != len(captions) or any(len(row) != len(headings) for row in rows):
        raise ValueError(
            f"rows: {len(rows)}, with {sorted({len(row) for row in rows})} panels; allowed: at least one, as many as "
            f"captions ({len(captions)}), with as many panels as headings ({len(headings)})"
        )
    shown = rows[:MOST_ROWS]
    height, across = shown[0][0].shape[:2]
    tall = _PANEL * min(2.0, max(0.3, height / across))
    width = max(_NARROWEST, _PANEL * len(headings))
    legends = _legends(classes, verdicts, width)
    lines = max((-(-len(entries) // columns) for entries, _, columns in legends), default=0)
    size = (width + 0.2, (tall + _CAPTION) * len(shown) + _HEADINGS + _LINE * lines)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(shown), len(headings), squeeze=False)
    for line, (panels, caption) in enumerate(zip(shown, captions, strict=False)):
        for axes, panel in zip(grid[line], panels, strict=True):
            axes.imshow(panel)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        text = shorten(printable(caption), _LONGEST_CAPTION * len(headings))
        _write_below(grid[line, 0], text)
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(printable(heading), fontsize=8.5, loc="left", pad=3)
    for entries, loc, columns in legends:
        patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*colour), label=name) for name, colour in entries]
        figure.legend(handles=patches, loc=loc, ncols=columns, fontsize=7.5, frameon=False)
    figure.suptitle(printable(title), fontsize=12)
    return figure


def _write_below(axes: Axes, text: str) -> None:
    """Write a caption that may reach below the next panels; only its height takes room, as an empty label."""
    axes.set_xlabel(" ", fontsize=7.5, labelpad=2)
    written = axes.annotate(
        text,
        (0, 0),
        (0, -3),
        xycoords="axes fraction",
        textcoords="offset points",
        annotation_clip=False,
        fontsize=7.5,
        color=GREY,
        va="top",
    )
    written.set_in_layout(False)


def _legends(
    classes: Legend, verdicts: Legend, width: float
) -> list[tuple[Legend, Literal["outside lower left", "outside lower right"], int]]:
    """Return the legends that are not empty, where they stand, and in how many columns, so that neither is too wide."""
    classes, verdicts = (
        [(shorten(printable(name), _LONGEST_NAME), colour) for name, colour in entries]
        for entries in (classes, verdicts)
    )
    right = max(1, min(len(verdicts), int((width if not classes else width / 2) / _widest(verdicts))))
    left = max(1, min(len(classes), int((width - (right * _widest(verdicts) if verdicts else 0)) / _widest(classes))))
    found: list[tuple[Legend, Literal["outside lower left", "outside lower right"], int]] = []
    if classes:
        found.append((classes, "outside lower left", left))
    if verdicts:
        found.append((verdicts, "outside lower right", right))
    return found


def _widest(entries: Legend) -> float:
    """Return the inches that an entry of a legend takes."""
    return _KEY + _LETTER * max((len(name) for name, _ in entries), default=0)
