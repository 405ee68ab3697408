"""Small line charts as SVG text, for places where a plotting library is too much."""

import math
from collections.abc import Mapping, Sequence

from visionforge.reporting.rendering import render

WIDTH, HEIGHT, GAP = 180, 60, 6  # pixels of one chart
TEXT = 18  # pixels above it for its name


def curves_svg(series: Mapping[str, Sequence[float]]) -> str:
    """Return a picture with a small chart for every series, side by side; nothing if there is none.

    Args:
        series: Name → values in order; those that are not finite leave a gap.

    >>> curves_svg({"val/loss": [2.0, 1.0]}).startswith("<svg")
    True
    """
    if not series:
        return ""
    charts = [
        {
            "left": place * (WIDTH + GAP),
            "name": name,
            "last": f"{values[-1]:.3g}" if values else "",
            "points": _line(values),
        }
        for place, (name, values) in enumerate(series.items())
    ]
    return render("curves.svg.j2", charts=charts, width=len(charts) * (WIDTH + GAP), height=HEIGHT + TEXT)


def _line(values: Sequence[float]) -> str:
    """Return the points of a line, in pixels; nothing if no value is finite."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span, step = (high - low) or 1.0, WIDTH / max(1, len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{TEXT + HEIGHT - (value - low) / span * HEIGHT:.1f}"
        for place, value in enumerate(values)
        if math.isfinite(value)
    )
