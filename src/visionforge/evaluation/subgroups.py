"""Results by age, sex, site or scanner: metrics of each subgroup, and how far apart the subgroups are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionforge.data.kept_columns import MISSING
from visionforge.evaluation.bootstrap import Estimate
from visionforge.evaluation.intervals import Interval
from visionforge.evaluation.metric_names import interval_text, metric_name

LEAST_IMAGES, LEAST_CASES = 20, 10  # of a subgroup that is compared, and cases that its metric is about
LEVEL = 0.05  # of adjusted p-values that are warned of


@dataclass(frozen=True)
class Subgroup:
    """The images of one value of a column.

    Attributes:
        name: The value, or ``missing``.
        images: Their number.
        cases: Cases of each class or label.
        estimate: The task's headline metrics, and those of each class, with intervals.
        behind: Metric → number of cases that it is about.
    """

    name: str
    images: int
    cases: tuple[int, ...]
    estimate: Estimate
    behind: Mapping[str, float]

    def is_compared(self, metric: str) -> bool:
        """Return whether it has enough cases, and a value, to be compared with others."""
        enough = self.images >= LEAST_IMAGES and self.behind[metric] >= LEAST_CASES
        return self.name != MISSING and enough and self.estimate.overall[metric] is not None


@dataclass(frozen=True)
class Gap:
    """How far apart the subgroups of a column are in one metric.

    Attributes:
        metric: Its name.
        value: The largest value less the smallest; it is biased upwards.
        highest: The subgroup with the largest value.
        lowest: The one with the smallest.
        compared: Names of the subgroups that have enough cases.
        interval: Of the largest difference; None where a subgroup has no interval.
        by_chance: Mean gap of permutations; None without any.
        p: Share of permutations with a gap that is as large; None without any.
        adjusted: The same, adjusted for the number of gaps (Holm).
    """

    metric: str
    value: float
    highest: str
    lowest: str
    compared: tuple[str, ...]
    interval: Interval | None
    by_chance: float | None = None
    p: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class ByColumn:
    """The results by the values of one column.

    Attributes:
        column: Its heading.
        cut: Its values are numbers, cut into quartiles.
        missing: Number of images without a value, which are not compared.
        in_blocks: Whole groups of images, such as those of a patient, were exchanged for p, since each lies in one
            subgroup; False: some do not; None: there are no groups.
        subgroups: Those of its values.
        gaps: Metric → how far apart they are; none where fewer than two subgroups have enough cases.
    """

    column: str
    cut: bool
    missing: int
    in_blocks: bool | None
    subgroups: tuple[Subgroup, ...]
    gaps: Mapping[str, Gap]


@dataclass(frozen=True)
class Subgroups:
    """The results of one split by the values of columns.

    Attributes:
        columns: The results by each column.
        left_out: Column → why there are none.
        metrics: Names of the metrics.
        recall: Name of the metric of each class that tells how many of its cases are found.
        confidence: Of the intervals.
        permutations: From which p follows; 0 gives none.
    """

    columns: tuple[ByColumn, ...]
    left_out: Mapping[str, str]
    metrics: tuple[str, ...]
    recall: str
    confidence: float
    permutations: int

    @property
    def gaps(self) -> list[tuple[ByColumn, Gap]]:
        """Return all gaps with their columns."""
        return [(column, gap) for column in self.columns for gap in column.gaps.values()]

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what `metrics.json` holds of it.

        Args:
            classes: Names of the classes.
        """
        return {
            "confidence": self.confidence,
            "permutations": self.permutations,
            "gaps": len(self.gaps),
            "columns": {column.column: self._column(column, classes) for column in self.columns},
            "left_out": dict(self.left_out),
        }

    def _column(self, column: ByColumn, classes: Sequence[str]) -> dict[str, Any]:
        return {
            "quartiles": column.cut,
            "missing": column.missing,
            "groups_exchanged": column.in_blocks,
            "subgroups": {each.name: self._subgroup(each, classes) for each in column.subgroups},
            "gaps": {
                name: {
                    "value": gap.value,
                    "highest": gap.highest,
                    "lowest": gap.lowest,
                    "compared": gap.compared,
                    "interval": gap.interval,
                    "by_chance": gap.by_chance,
                    "p": gap.p,
                    "p_holm": gap.adjusted,
                }
                for name, gap in column.gaps.items()
            },
        }

    def _subgroup(self, subgroup: Subgroup, classes: Sequence[str]) -> dict[str, Any]:
        found = subgroup.estimate
        ends = found.class_intervals.get(self.recall, [None] * len(classes))
        return {
            "images": subgroup.images,
            "metrics": {name: found.overall[name] for name in self.metrics},
            "intervals": dict(found.intervals),
            "methods": dict(found.methods),
            "per_class": {
                name: {"cases": subgroup.cases[k], "recall": found.per_class[self.recall][k], "interval": ends[k]}
                for k, name in enumerate(classes)
            },
        }

    def warnings(self, positive: str | None) -> list[str]:
        """Return a line for each column whose subgroups are farther apart than chance explains.

        Args:
            positive: Of two classes, the one that is to be found.
        """
        lines = []
        for column in self.columns:
            known = [gap for gap in column.gaps.values() if gap.adjusted is not None and gap.adjusted < LEVEL]
            if not known:
                continue
            gap = min(known, key=lambda each: (each.adjusted, -each.interval[0] if each.interval else 0.0))
            values = {each.name: each.estimate.overall[gap.metric] for each in column.subgroups}
            ends = f" ({interval_text(gap.interval, gap.value)})" if gap.interval else ""
            lines.append(
                f"by {column.column}, {metric_name(gap.metric, positive)} differs more than chance explains: "
                f"{values[gap.lowest]:.3f} in {gap.lowest} to {values[gap.highest]:.3f} in {gap.highest}, gap "
                f"{gap.value:.3f}{ends}, p = {gap.adjusted:.2g} (Holm, {len(self.gaps)} gaps)"
            )
        return lines
