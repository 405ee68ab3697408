"""The critical-difference diagram: average ranks of methods, and bars over those that cannot be told apart."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from visionforge.reporting.figures.static import BLUE, shorten
from visionforge.scoring.ranks import Ranks

_LONGEST = 34  # characters of a name
_INK, _BAR = "#1F2937", 4.0
_STEP = 0.30  # inches between two names


def critical_difference_figure(names: Sequence[str], ranks: Ranks) -> Figure:
    """Draw the diagram of Demšar (2006): the best method stands at the left, thick bars join what cannot be told apart.

    Args:
        names: Of the methods.
        ranks: Their ranks.
    """
    average, count = ranks.average, len(names)
    low, high = 1, max(count, math.ceil(max(average)))
    order = sorted(range(count), key=lambda place: (average[place], names[place]))
    left, right = order[: (count + 1) // 2], order[(count + 1) // 2 :][::-1]
    bars = len(ranks.cliques)
    head, room = 0.85, 0.16 * bars + 0.18  # inches above the axis, and between the axis and the first name
    height = head + room + _STEP * len(left) + 0.1
    width = 7.6
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    start, end = 2.5, width - 2.5

    def x_of(rank: float) -> float:
        return start + (rank - low) / max(1, high - low) * (end - start)

    axes.plot((start, end), (head, head), color=_INK, linewidth=1.2)
    for rank in range(low, high + 1):
        axes.plot((x_of(rank), x_of(rank)), (head - 0.07, head), color=_INK, linewidth=1.2)
        axes.text(x_of(rank), head - 0.12, str(rank), ha="center", va="bottom", fontsize=9, color=_INK)
    _scale(axes, start, min(end, x_of(low + ranks.critical)), ranks)
    for depth, clique in enumerate(ranks.cliques):
        ends = [x_of(average[place]) for place in (clique[0], clique[-1])]
        y = head + 0.14 + 0.16 * depth
        axes.plot((ends[0] - 0.05, ends[1] + 0.05), (y, y), color=BLUE, linewidth=_BAR, solid_capstyle="round")
    for side, members in (("left", left), ("right", right)):
        for row, place in enumerate(members):
            x, y = x_of(average[place]), head + room + _STEP * row + 0.1
            edge, align, told = (start - 0.2, "right", -1) if side == "left" else (end + 0.2, "left", 1)
            axes.plot((x, x, edge), (head, y, y), color=_INK, linewidth=0.9)
            label = f"{shorten(names[place], _LONGEST)}  {average[place]:.2f}"
            axes.text(edge + 0.06 * told, y, label, ha=align, va="center", fontsize=9, color=_INK)
    return figure


def _scale(axes: object, start: float, end: float, ranks: Ranks) -> None:
    """Draw the critical difference to scale, above the axis."""
    y = 0.3
    draw = axes.plot  # type: ignore[attr-defined]  # matplotlib's axes
    draw((start, end), (y, y), color=_INK, linewidth=1.6)
    for x in (start, end):
        draw((x, x), (y - 0.05, y + 0.05), color=_INK, linewidth=1.6)
    text = f"critical difference {ranks.critical:.2f} ({ranks.confidence:.0%})"
    axes.text(start, y - 0.08, text, ha="left", va="bottom", fontsize=9, color=_INK)  # type: ignore[attr-defined]
