"""Non-inferiority: whether a model is worse than another by less than a margin that was fixed beforehand.

Piaggio, Elbourne, Pocock, Evans and Altman (2012, JAMA 308:2594): the limit of the interval on the worse side decides,
so with an interval of 95 % the one-sided level is 2.5 %.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from visionforge.config.problems import nearest
from visionforge.config.schema.metrics import metrics
from visionforge.errors import SettingsError

NON_INFERIOR, INFERIOR, NOT_SHOWN = "non-inferior", "inferior", "not shown"


def parse_margins(texts: Sequence[str]) -> dict[str, float]:
    """Return name of a metric → margin, of texts such as ``accuracy=0.02``.

    Raises:
        SettingsError: If one is something else, or a metric is named twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            margin = float(number)
        except ValueError:
            raise SettingsError(f"margins: {text!r} is not allowed; allowed: METRIC=NUMBER, as accuracy=0.02") from None
        if name in found:
            raise SettingsError(f"margins: {name} is named twice; give each metric one margin")
        found[name] = margin
    return found


def check_margins(margins: Mapping[str, float]) -> None:
    """Check the names of metrics, and that margins are numbers that are not negative.

    Raises:
        SettingsError: With a line for each that is not allowed.
    """
    known = metrics()
    problems = []
    for name, margin in margins.items():
        if name not in known:
            close = nearest(str(name), known) or list(known)
            problems.append(f"margins: {str(name)!r} is no metric; nearest: {', '.join(close)}")
        elif not known[name].interval:
            problems.append(f"margins: {name} has no interval, so nothing can be said of a margin; take another metric")
        elif isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
            problems.append(f"margins: {name}={margin} is not allowed; allowed: numbers from 0, as {name}=0.02")
    if problems:
        raise SettingsError(problems)


def check_judged(
    margins: Mapping[str, float], pairs: Sequence[str], differences: Sequence[Mapping[str, Any]], note: str | None
) -> None:
    """Check that no margin is passed over: every pair of models has a difference of its metric.

    Args:
        margins: Name of a metric → margin.
        pairs: Names of the models that are compared with the first.
        differences: The paired differences.
        note: Why there are none, if that is known.

    Raises:
        SettingsError: If one has none.
    """
    if not margins:
        return
    if not differences:
        reason = note or "there are no differences to judge; name two models or more, and leave resamples above 0"
        raise SettingsError(f"margins: {reason}")
    there = {(row["of"], row["metric"].partition(".")[2]) for row in differences}
    for pair in pairs:
        if missing := [name for name in margins if (pair, name) not in there]:
            known = sorted(name for of, name in there if of == pair)
            allowed = f"; there are {', '.join(known)}" if known else ", nor of any other metric"
            raise SettingsError(f"margins: model {pair} has no difference of {', '.join(missing)}{allowed}")


def verdict(interval: tuple[float, float] | None, margin: float, higher: bool) -> tuple[str, bool]:
    """Return one of the three verdicts, and whether the model is better.

    Args:
        interval: Of the difference from the other model; None if the cases are too few to tell.
        margin: By how much it may be worse.
        higher: Higher values of the metric are better.

    >>> verdict((-0.01, 0.03), 0.02, True), verdict((-0.01, 0.03), 0.02, False)
    (('non-inferior', False), ('not shown', False))
    """
    if interval is None:
        return NOT_SHOWN, False
    low, high = interval if higher else (-interval[1], -interval[0])
    if low > -margin:
        return NON_INFERIOR, low > 0
    return INFERIOR if high < -margin else NOT_SHOWN, False


def verdict_row(row: Mapping[str, Any], p: float | None, margin: float, confidence: float) -> dict[str, Any]:
    """Return what a margin says of a difference.

    Args:
        row: The paired difference.
        p: One-sided, of the hypothesis that the model is worse by the margin or more.
        margin: By how much it may be worse.
        confidence: Of the difference's interval.
    """
    higher = metrics()[row["metric"].partition(".")[2]].higher_is_better
    found, better = verdict(row["interval"], margin, higher)
    told = {key: row[key] for key in ("of", "from", "metric", "value", "interval")}
    told |= {"margin": margin, "higher_is_better": higher, "alpha": (1 - confidence) / 2}
    return told | {"verdict": found, "superior": better, "p": p}
