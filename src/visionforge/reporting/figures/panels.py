"""Pictures in rows: what was seen, what is true, what was predicted, and how the two differ."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from visionforge.printable import printable
from visionforge.reporting.figures.static import GREY, shorten
from visionforge.reporting.figures.whole_pixels import WholePixels
from visionforge.reporting.label_overlays import FOUND, INVENTED, MISSED, Pixels

Legend = Sequence[tuple[str, tuple[int, int, int]]]
COMPARISON_LEGEND: Legend = (("found", FOUND), ("missed", MISSED), ("invented", INVENTED))
MOST_ROWS = 24
_PANEL, _NARROWEST, _GAP = 1.9, 3.4, 0.05  # inches, of a panel and of a figure, and around a panel
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
    high, wide = shown[0][0].shape[:2]
    side = _PANEL - 2 * _GAP
    tall = _PANEL * min(2.0, max(0.3, high / wide)) - 2 * _GAP
    scale = min(side / wide, tall / high)  # inches of a pixel
    width = max(_NARROWEST, _PANEL * len(headings)) + 2 * _GAP
    legends = _legends(classes, verdicts, width)
    lines = max((-(-len(entries) // columns) for entries, _, columns in legends), default=0)
    pitch = tall + _CAPTION + 2 * _GAP
    depth = _HEADINGS + pitch * len(shown) + _LINE * lines
    figure = Figure(figsize=(width, depth))
    axes = figure.add_axes((0, 0, 1, 1))  # one for all: a pair for each panel takes most of a second to lay out
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(depth, 0))  # inches from the upper left corner
    lefts = [_PANEL * column + 2 * _GAP for column in range(len(headings))]
    for line, (panels, caption) in enumerate(zip(shown, captions, strict=False)):
        top = _HEADINGS + pitch * line
        for left, panel in zip(lefts, panels, strict=True):
            WholePixels(axes, panel, (left, left + scale * wide, top + scale * high, top))
        text = shorten(printable(caption), _LONGEST_CAPTION * len(headings))
        axes.text(lefts[0], top + scale * high + _GAP, text, fontsize=7.5, color=GREY, va="top")
    for left, heading in zip(lefts, headings, strict=True):
        axes.text(left, _HEADINGS - _GAP, printable(heading), fontsize=8.5, va="bottom")
    for entries, loc, columns in legends:
        patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*colour), label=name) for name, colour in entries]
        figure.legend(handles=patches, loc=loc, ncols=columns, fontsize=7.5, frameon=False, borderaxespad=0.1)
    axes.text(width / 2, 0.2, printable(title), fontsize=12, ha="center", va="center")
    return figure


def _legends(
    classes: Legend, verdicts: Legend, width: float
) -> list[tuple[Legend, Literal["lower left", "lower right"], int]]:
    """Return the legends that are not empty, where they stand, and in how many columns, so that neither is too wide."""
    classes, verdicts = (
        [(shorten(printable(name), _LONGEST_NAME), colour) for name, colour in entries]
        for entries in (classes, verdicts)
    )
    right = max(1, min(len(verdicts), int((width if not classes else width / 2) / _widest(verdicts))))
    left = max(1, min(len(classes), int((width - (right * _widest(verdicts) if verdicts else 0)) / _widest(classes))))
    found: list[tuple[Legend, Literal["lower left", "lower right"], int]] = []
    if classes:
        found.append((classes, "lower left", left))
    if verdicts:
        found.append((verdicts, "lower right", right))
    return found


def _widest(entries: Legend) -> float:
    """Return the inches that an entry of a legend takes."""
    return _KEY + _LETTER * max((len(name) for name, _ in entries), default=0)
