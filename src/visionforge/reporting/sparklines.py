"""Small line charts as SVG text, for places where a plotting library is too much."""

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, GAP = 180, 60, 6  # pixels of one chart


def curves_svg(series: Mapping[str, Sequence[float]]) -> str:
    """Return a picture with a small chart for every series, side by side; nothing if there is none.

    Args:
        series: Name → values in order; those that are not finite leave a gap.

    >>> curves_svg({"val/loss": [2.0, 1.0]}).startswith("<svg")
    True
    """
    charts = [
        f'<g transform="translate({number * (WIDTH + GAP)} 0)">{_chart(name, values)}</g>'
        for number, (name, values) in enumerate(series.items())
    ]
    if not charts:
        return ""
    width = len(charts) * (WIDTH + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + 18}" '
        f'font-family="sans-serif" font-size="11">{"".join(charts)}</svg>'
    )


def _chart(name: str, values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span, step = (high - low) or 1.0, WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{place * step:.1f},{18 + HEIGHT - (value - low) / span * HEIGHT:.1f}"
        for place, value in enumerate(values)
        if math.isfinite(value)
    )
    text = html.escape(f"{name} {values[-1]:.3g}")
    return (
        f'<text x="0" y="11" fill="currentColor">{text}</text>'
        f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>'
    )
