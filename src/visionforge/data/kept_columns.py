"""Which columns of a table an archive may keep beside its images, such as age, sex, site and scanner."""

from collections.abc import Sequence

from visionforge.data.info import MAX_COLUMNS

MAX_HEADING, MAX_CELL = 60, 256  # characters
MISSING = "missing"  # what stands where a table has nothing
RESERVED = frozenset(  # headings that tables of predictions have themselves
    (
        *("index", "path", "name", "group", "truth", "prediction", "right", "label", "uncertainty", "mask", "class"),
        *("score", "x1", "y1", "x2", "y2", "matched", "views", "confidence", "dice", "explained"),
        *("split", "fold", "disagreement", "set", "prediction_set", "abstained"),
    )
)
_RESERVED_BEGINNINGS = (
    *("probability_", "raw_probability_", "raw_tta_probability_", "tta_probability_"),
    *("true_pixels_", "predicted_pixels_", "shared_pixels_"),
)


def headings_problem(headings: Sequence[str]) -> str | None:
    """Return why columns cannot be kept under these headings; None if they can.

    Args:
        headings: Their names; they may come from strangers.
    """
    if len(headings) > MAX_COLUMNS:
        return f"has {len(headings):,} columns; allowed: at most {MAX_COLUMNS}"
    for heading in headings:
        if not 0 < len(heading) <= MAX_HEADING or heading != heading.strip() or not heading.isprintable():
            return f"has the heading {heading[:MAX_HEADING]!r}; allowed: 1 to {MAX_HEADING} printable characters"
        folded = heading.casefold()
        if folded in RESERVED or folded.startswith(_RESERVED_BEGINNINGS):
            return f"has the heading {heading!r}, which tables of predictions have themselves; rename it"
        if folded == MISSING:
            return f"has the heading {heading!r}, which stands for values that are not there; rename it"
    twice = {heading for heading in headings if headings.count(heading) > 1}
    return f"has the heading {min(twice)!r} more than once" if twice else None
