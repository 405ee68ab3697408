"""The picture of a network's robustness: the error over the severity of the corruptions, group by group."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from visionforge.reporting.figures.curves import DASHES, PALETTE
from visionforge.reporting.figures.static import GREY

SIZE = (5.0, 3.9)  # inches; small enough that its letters are legible on a telephone


def severity_curves(clean: float, groups: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draw the mean error of each group of corruptions over their severity; severity 0 is clean.

    Args:
        clean: The error on clean images.
        groups: Name → (severity, error), ascending.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for place, (name, points) in enumerate(groups.items()):
        x, y = zip((0, clean), *points, strict=True)
        colour, dashes = PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)]
        axes.plot(x, y, color=colour, linestyle=dashes, marker="o", markersize=4, linewidth=1.8, label=name)
    axes.axhline(clean, color=GREY, linewidth=1, linestyle=":")
    axes.set(xlabel="severity (0: clean)", ylabel="error (1 − accuracy)", ylim=(0, None))
    axes.set_xticks([0, *sorted({severity for points in groups.values() for severity, _ in points})])
    axes.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if groups:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
