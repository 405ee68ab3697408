"""Runs of an outputs folder that are to go, by the metrics that are known."""

import datetime
from collections.abc import Callable
from pathlib import Path

from visionforge.config.problems import nearest
from visionforge.config.schema.metrics import metrics
from visionforge.errors import SettingsError
from visionforge.runs.cleaning import Cleaning, clean


def clean_runs(
    outputs: Path,
    *,
    incomplete: bool = False,
    keep_best: int | None = None,
    by: str | None = None,
    older_than: datetime.timedelta | None = None,
    remove: bool = False,
    told: Callable[[str], None],
) -> Cleaning:
    """Find runs that are to go, and remove them if that is wanted; see `visionforge.runs.cleaning.clean`.

    Raises:
        SettingsError: If no metric is called `by`, or as `clean` says.
    """
    known = {**{name: metric.higher_is_better for name, metric in metrics().items()}, "loss": False}
    if by is not None and by not in known:
        close = nearest(by, known) or sorted(known)
        raise SettingsError(f"by: {by} is no metric; nearest: {', '.join(close)}")
    higher = True if by is None else known[by]
    return clean(
        outputs,
        incomplete=incomplete,
        keep_best=keep_best,
        by=by,
        higher_is_better=higher,
        older_than=older_than,
        remove=remove,
        told=told,
    )
